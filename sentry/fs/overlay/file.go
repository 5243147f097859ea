package overlay

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"moat/sentry/memmap"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

// Open implements vfs.Inode.
func (n *node) Open(ctx vfs.Context, d *vfs.Dentry, flags uint32) (vfs.FileImpl, error) {
	if n.dir != nil {
		return &dirFile{n: n}, nil
	}
	if n.lower == nil || n.copied.Load() && n.typ == unix.S_IFREG {
		// Nothing of the lower file is needed any more.
		u, err := n.upper.Load().Open(ctx, d, flags)
		if err != nil {
			return nil, err
		}
		return upperFile{u}, nil
	}
	f := &file{n: n}
	if flags&unix.O_ACCMODE == unix.O_WRONLY {
		return f, nil
	}
	l, err := n.lower.Open(ctx, d, flags&^unix.O_ACCMODE)
	if err != nil {
		return nil, err
	}
	f.impl.Store(&half{FileImpl: l})
	return f, nil
}

// upperFile is a tmpfs file without what only memfds have.
type upperFile struct{ vfs.FileImpl }

// file is an open regular file that had not been copied up when it was opened.
type file struct {
	vfs.FileDefaults
	n *node
	// impl is the lower file, then the upper.
	impl atomic.Pointer[half]

	mu sync.Mutex
	// old are the lower files that impl was, for Release: a read may still be under way.
	// +checklocks:mu
	old []vfs.FileImpl
}

type half struct {
	vfs.FileImpl
	upper bool
}

// now returns the file that has the data.
func (f *file) now(ctx vfs.Context) (vfs.FileImpl, error) {
	h := f.impl.Load()
	up := f.n.copied.Load()
	if h != nil && h.upper == up {
		return h.FileImpl, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	h = f.impl.Load()
	if h != nil && h.upper == up {
		return h.FileImpl, nil
	}
	i := f.n.lower
	if up {
		i = f.n.upper.Load().Inode
	}
	impl, err := i.Open(ctx, nil, unix.O_RDWR&^boolMask(!up))
	if err != nil {
		return nil, err
	}
	if h != nil {
		f.old = append(f.old, h.FileImpl)
	}
	f.impl.Store(&half{impl, up})
	return impl, nil
}

func boolMask(b bool) uint32 {
	if b {
		return unix.O_ACCMODE
	}
	return 0
}

// writable copies the file up.
func (f *file) writable(ctx vfs.Context) (vfs.FileImpl, error) {
	if err := f.n.copyData(ctx, math.MaxInt64); err != nil {
		return nil, err
	}
	return f.now(ctx)
}

// Release implements vfs.FileImpl.
func (f *file) Release(ctx vfs.Context, fd *vfs.FileDescription) {
	if h := f.impl.Load(); h != nil {
		h.Release(ctx, fd)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, o := range f.old {
		o.Release(ctx, fd)
	}
}

// Seekable implements vfs.FileImpl.
func (*file) Seekable() bool { return true }

// Read implements vfs.FileImpl.
func (f *file) Read(ctx vfs.Context, fd *vfs.FileDescription, dst usermem.IOSequence, off int64, flags vfs.IOFlags) (int64, error) {
	i, err := f.now(ctx)
	if err != nil {
		return 0, err
	}
	return i.Read(ctx, fd, dst, off, flags)
}

// Write implements vfs.FileImpl.
func (f *file) Write(ctx vfs.Context, fd *vfs.FileDescription, src usermem.IOSequence, off int64, flags vfs.IOFlags) (int64, int64, error) {
	i, err := f.writable(ctx)
	if err != nil {
		return 0, off, err
	}
	return i.Write(ctx, fd, src, off, flags)
}

// SeekEnd implements vfs.FileImpl.
func (f *file) SeekEnd(ctx vfs.Context) (int64, error) {
	a, err := f.n.Attr(ctx)
	return a.Size, err
}

// SeekData implements vfs.FileImpl.
func (f *file) SeekData(ctx vfs.Context, off int64, data bool) (int64, error) {
	i, err := f.now(ctx)
	if err != nil {
		return 0, err
	}
	return i.SeekData(ctx, off, data)
}

// Allocate implements vfs.FileImpl.
func (f *file) Allocate(ctx vfs.Context, mode uint32, off, length int64) error {
	i, err := f.writable(ctx)
	if err != nil {
		return err
	}
	return i.Allocate(ctx, mode, off, length)
}

// Fsync implements vfs.FileImpl.
func (*file) Fsync(vfs.Context, bool) error { return nil }

// Ioctl implements vfs.FileImpl.
func (f *file) Ioctl(ctx vfs.Context, fd *vfs.FileDescription, io usermem.IO, req uint32, arg uintptr) (uintptr, error) {
	i, err := f.now(ctx)
	if err != nil {
		return 0, err
	}
	return i.Ioctl(ctx, fd, io, req, arg)
}

// ConfigureMMap implements vfs.FileImpl. A mapping that may be written through maps the copy; others share the lower file's pages.
func (f *file) ConfigureMMap(ctx vfs.Context, fd *vfs.FileDescription, o *memmap.MMapOpts) error {
	get := f.now
	if !o.Private && fd.Writable() {
		get = f.writable
	}
	i, err := get(ctx)
	if err != nil {
		return err
	}
	return i.ConfigureMMap(ctx, fd, o)
}

// dirFile is an open directory. A directory without changes is listed as the lower one is, less what is removed meanwhile; any other is
// listed at once when reading starts, and offsets count its entries.
type dirFile struct {
	vfs.FileDefaults
	n *node

	mu sync.Mutex
	// +checklocks:mu
	lower vfs.FileImpl
	// +checklocks:mu
	list []vfs.Dirent
}

// Release implements vfs.FileImpl.
func (f *dirFile) Release(ctx vfs.Context, fd *vfs.FileDescription) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lower != nil {
		f.lower.Release(ctx, fd)
	}
}

// Seekable implements vfs.FileImpl.
func (*dirFile) Seekable() bool { return true }

// SeekEnd implements vfs.FileImpl.
func (*dirFile) SeekEnd(vfs.Context) (int64, error) { return math.MaxInt64, nil }

// Fsync implements vfs.FileImpl.
func (*dirFile) Fsync(vfs.Context, bool) error { return nil }

// ReadDir implements vfs.FileImpl.
func (f *dirFile) ReadDir(ctx vfs.Context, fd *vfs.FileDescription, off int64, emit func(vfs.Dirent) error) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.n
	if off == 0 || f.list == nil && f.lower == nil {
		if err := f.startLocked(ctx, fd); err != nil {
			return off, err
		}
	}
	up := n.parentIno()
	if f.list == nil {
		return f.lower.ReadDir(ctx, fd, off, func(e vfs.Dirent) error {
			if e.Name == ".." {
				e.Ino = up
			} else if _, changed := n.entry(e.Name); changed {
				return nil
			}
			return emit(e)
		})
	}
	for ; off >= 0 && off < int64(len(f.list)); off++ {
		e := f.list[off]
		e.Off = off + 1
		if emit(e) != nil {
			break
		}
	}
	return off, nil
}

func (n *node) parentIno() uint64 {
	n.dir.mu.RLock()
	defer n.dir.mu.RUnlock()
	return n.dir.parent.ino
}

// startLocked begins a listing.
// +checklocks:f.mu
func (f *dirFile) startLocked(ctx vfs.Context, fd *vfs.FileDescription) (err error) {
	n := f.n
	f.list = nil
	if f.lower == nil && n.lower != nil {
		if f.lower, err = n.lower.Open(ctx, fd.Dentry(), unix.O_RDONLY|unix.O_DIRECTORY); err != nil {
			return err
		}
	}
	n.dir.mu.RLock()
	changed := make(map[string]entry, len(n.dir.entries))
	for name, e := range n.dir.entries {
		changed[name] = e
	}
	n.dir.mu.RUnlock()
	if n.lower != nil && len(changed) == 0 {
		return nil
	}
	list := []vfs.Dirent{{Name: ".", Type: unix.DT_DIR, Ino: n.ino}, {Name: "..", Type: unix.DT_DIR, Ino: n.parentIno()}}
	if f.lower != nil {
		_, err = f.lower.ReadDir(ctx, fd, 0, func(e vfs.Dirent) error {
			if _, ok := changed[e.Name]; !ok && e.Name != "." && e.Name != ".." {
				list = append(list, e)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	kept := len(list)
	for name, e := range changed {
		if e.node != nil {
			list = append(list, vfs.Dirent{Name: name, Type: uint8(e.node.typ >> 12), Ino: e.node.ino})
		}
	}
	// The same order each time, oldest first.
	slices.SortFunc(list[kept:], func(a, b vfs.Dirent) int { return cmp.Or(cmp.Compare(a.Ino, b.Ino), strings.Compare(a.Name, b.Name)) })
	f.list = list
	return nil
}
