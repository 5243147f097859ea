package gofer

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"moat/fsgofer/wire"
	"moat/sentry/refs"
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

func (h *handle) tryIncRef() bool { return refs.TryInc(&h.refs, 1) }

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
	n, err := i.parent.walkOne(i.name, nil)
	if err != nil {
		return err
	}
	if n.Handle == 0 || !i.same(&n.Attr) {
		i.fs.c.CloseHandle(n.Handle, false)
		return unix.ESTALE
	}
	i.setHandle(n.Handle, false)
	return nil
}

// walkOne looks one name up. epoch, if it is not nil, becomes 0 if what was found may be from before it.
func (i *inode) walkOne(name string, epoch *int64) (wire.Node, error) {
	var rep wire.WalkRep
	_, err := i.walk(&wire.WalkReq{Settle: epoch != nil && *epoch != 0, Names: []string{name}}, &rep, nil)
	if epoch != nil && !rep.Settled {
		*epoch = 0
	}
	switch {
	case err != nil:
		return wire.Node{}, err
	case len(rep.Nodes) == 1:
		return rep.Nodes[0], nil
	case len(rep.Nodes) == 0 && rep.Errno > 0 && rep.Errno < 512:
		return wire.Node{}, unix.Errno(rep.Errno)
	}
	return wire.Node{}, unix.EIO
}

// walk makes the request req from the directory i, for handles, and returns how many descriptors came.
func (i *inode) walk(req *wire.WalkReq, rep *wire.WalkRep, fds []int) (n int, err error) {
	req.Handle = true
	err = i.withRef(func(r wire.Ref) (err error) {
		req.Dir = r
		n, err = i.fs.callFDs(wire.OpWalk, req, rep, fds)
		return err
	})
	i.foundHandle(rep.Dir)
	rep.Nodes = rep.Nodes[:min(len(rep.Nodes), len(req.Names))]
	return n, err
}

// foundHandle takes a handle of i that came with an answer.
func (i *inode) foundHandle(n wire.Handle) {
	if n != 0 && i.handle.Load() != nil {
		i.fs.c.CloseHandle(n, false)
		return
	}
	i.setHandle(n, false)
}

// callFDs is a request whose answer may have descriptors; when the gofer (or we) ran out of descriptors, caches are emptied and it is tried once more.
func (fs *FS) callFDs(op wire.Op, req, rep wire.Message, fds []int) (int, error) {
	n, err := fs.c.CallFDs(op, req, rep, fds)
	if err == unix.EMFILE || err == unix.ENFILE {
		fs.handles.shrink()
		fs.fds.shrink()
		fs.c.FlushCloses()
		n, err = fs.c.CallFDs(op, req, rep, fds)
	}
	return n, err
}

func (fs *FS) call(op wire.Op, req, rep wire.Message) error {
	_, err := fs.callFDs(op, req, rep, nil)
	return err
}

// callFD is call for what answers with a descriptor.
func (fs *FS) callFD(op wire.Op, req, rep wire.Message) (int, error) {
	var fd [1]int
	n, err := fs.callFDs(op, req, rep, fd[:])
	if err == nil && n == 0 {
		err = unix.EIO
	}
	if err != nil {
		return -1, err
	}
	return fd[0], nil
}

// withRef calls fn with a Ref of i; i stays where it is meanwhile.
func (i *inode) withRef(fn func(wire.Ref) error) error { return i.refBelow("", 0, fn) }

// refBelow calls fn with a Ref of what path, of so many names, leads to from i: i's handle, or a longer path from further up. It costs the gofer
// little to walk a path, and one request less than to get a handle.
func (i *inode) refBelow(path string, names int, fn func(wire.Ref) error) error {
	i.loc.RLock()
	defer i.loc.RUnlock()
	if h := i.handle.Load(); h != nil && h.tryIncRef() {
		defer h.decRef()
		if !h.used.Load() {
			h.used.Store(true)
		}
		return fn(wire.Ref{H: h.h, Path: path})
	}
	if i.parent == nil {
		return unix.ESTALE
	}
	switch {
	case path == "":
		// Where the name leads now is to be this file.
		inner := fn
		fn = func(r wire.Ref) error {
			r.Ino = i.key.ino
			return inner(r)
		}
		path = i.name
	default:
		path = i.name + "/" + path
	}
	if names++; i.fs.shared || names == wire.MaxNames || len(path) > wire.MaxPath-wire.MaxName-1 {
		// Names on a shared mount change: no longer path than it must be.
		p, err := i.parent.getHandle()
		if err != nil {
			return err
		}
		defer p.decRef()
		return fn(wire.Ref{H: p.h, Path: path})
	}
	return i.parent.refBelow(path, names, fn)
}

// request makes a request about i.
func (i *inode) request(op wire.Op, req, rep wire.Message, ref *wire.Ref) error {
	return i.withRef(func(r wire.Ref) error {
		*ref = r
		return i.fs.call(op, req, rep)
	})
}
