package gofer

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"moat/fsgofer/wire"
)

// handle is a handle in the gofer. refs counts its users, plus one while the inode has it; the last one gives it back. It must not be
// given back while a request that names it is under way: the gofer would take that for a broken sentry.
type handle struct {
	fs   *FS
	h    wire.Handle
	refs atomic.Int64
	used atomic.Bool
	// now: give it back at once, because it keeps an unlinked file's space.
	now bool
	// inode has it, unless it was evicted.
	inode *inode
}

func (h *handle) tryIncRef() bool {
	for {
		n := h.refs.Load()
		if n <= 0 {
			return false
		}
		if h.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (h *handle) decRef() {
	if h.refs.Add(-1) == 0 {
		h.fs.c.CloseHandle(h.h, h.now)
	}
}

// evict implements evictable.
func (h *handle) evict() bool {
	if h.inode.handle.Load() != h {
		return true
	}
	if h.used.Swap(false) || h.refs.Load() > 1 || !h.inode.handle.CompareAndSwap(h, nil) {
		return false
	}
	h.decRef()
	return true
}

// setHandle gives i a new handle. pinned: it cannot be found again, so it stays as long as i.
func (i *inode) setHandle(n wire.Handle, pinned bool) {
	if n == 0 {
		return
	}
	h := &handle{fs: i.fs, h: n, now: pinned, inode: i}
	h.refs.Store(1)
	h.used.Store(true)
	if old := i.handle.Swap(h); old != nil {
		old.decRef()
	}
	if !pinned {
		i.fs.handles.add(h, 1)
	}
}

// getHandle returns a directory's (or pinned file's) handle, to be released by decRef. ESTALE: it was lost, and is not found
// any more where it was.
func (i *inode) getHandle() (*handle, error) {
	for {
		if h := i.handle.Load(); h != nil && h.tryIncRef() {
			if !h.used.Load() {
				h.used.Store(true)
			}
			return h, nil
		}
		if err := i.findHandle(); err != nil {
			return nil, err
		}
	}
}

// findHandle walks to i again.
func (i *inode) findHandle() error {
	i.loc.RLock()
	defer i.loc.RUnlock()
	if i.handle.Load() != nil {
		return nil
	}
	if i.parent == nil || !i.isDir() {
		return unix.ESTALE
	}
	p, err := i.parent.getHandle()
	if err != nil {
		return err
	}
	defer p.decRef()
	n, err := i.fs.walk(p.h, i.name)
	if err != nil {
		return err
	}
	if keyOf(&n.Attr) != i.key || n.Handle == 0 {
		i.fs.c.CloseHandle(n.Handle, false)
		return unix.ESTALE
	}
	i.setHandle(n.Handle, false)
	return nil
}

// walk looks one name up.
func (fs *FS) walk(dir wire.Handle, name string) (wire.Node, error) {
	var rep wire.WalkRep
	if _, err := fs.call(wire.OpWalk, &wire.WalkReq{Dir: dir, Handle: true, Names: []string{name}}, &rep); err != nil {
		return wire.Node{}, err
	}
	if len(rep.Nodes) != 1 {
		return wire.Node{}, unix.EIO
	}
	return rep.Nodes[0], nil
}

// call is a request; when the gofer (or we) ran out of descriptors, caches are emptied and it is tried once more.
func (fs *FS) call(op wire.Op, req, rep wire.Message) (int, error) {
	fd, err := fs.c.Call(op, req, rep)
	if err == unix.EMFILE || err == unix.ENFILE {
		fs.handles.shrink()
		fs.fds.shrink()
		fs.c.FlushCloses()
		fd, err = fs.c.Call(op, req, rep)
	}
	return fd, err
}

// callFD is call for what answers with a descriptor.
func (fs *FS) callFD(op wire.Op, req, rep wire.Message) (int, error) {
	fd, err := fs.call(op, req, rep)
	if err == nil && fd < 0 {
		return -1, unix.EIO
	}
	return fd, err
}

// withRef calls fn with a Ref of i; i stays where it is meanwhile.
func (i *inode) withRef(fn func(wire.Ref) error) error {
	i.loc.RLock()
	defer i.loc.RUnlock()
	if h := i.handle.Load(); h != nil && h.tryIncRef() {
		defer h.decRef()
		return fn(wire.Ref{H: h.h, Ino: i.key.ino})
	}
	if i.parent == nil {
		return unix.ESTALE
	}
	p, err := i.parent.getHandle()
	if err != nil {
		return err
	}
	defer p.decRef()
	return fn(wire.Ref{H: p.h, Ino: i.key.ino, Name: i.name})
}

// requestAttr makes a request about i that is answered with its new attributes.
// Preconditions: i.wmu is held.
// +checklocksignore
func (i *inode) requestAttr(op wire.Op, req wire.Message, ref *wire.Ref) error {
	return i.withRef(func(r wire.Ref) error {
		*ref = r
		var rep wire.AttrRep
		if _, err := i.fs.call(op, req, &rep); err != nil {
			return err
		}
		i.adoptAll(&rep.Attr)
		return nil
	})
}

// request makes a request about i.
func (i *inode) request(op wire.Op, req, rep wire.Message, ref *wire.Ref) error {
	return i.withRef(func(r wire.Ref) error {
		*ref = r
		_, err := i.fs.call(op, req, rep)
		return err
	})
}
