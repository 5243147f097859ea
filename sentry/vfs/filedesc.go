package vfs

import (
	"sync"
	"sync/atomic"

	"moat/sentry/kernel/auth"
	"moat/sentry/memmap"
	"moat/sentry/refs"
	"moat/sentry/usermem"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/waiter"
)

// FileDescription is an open file description (open(2)).
type FileDescription struct {
	refs     atomic.Int64
	impl     FileImpl
	path     Path // holds references
	creds    *auth.Credentials
	flags    atomic.Uint32 // O_*: access mode and status flags
	seekable bool
	fixed    bool // a NoopSeeker
	pathOnly bool // O_PATH
	// wrote: counted as a writer of path; denied: being executed.
	wrote  bool
	denied bool
	reads  bool // counted as a reader of the inode
	// locked: a lock was taken through it, to be dropped at the end.
	locked atomic.Bool

	// outside keeps the position in the place of off, if not nil.
	outside Positioned
	// offMu guards off, and makes reads and writes at it atomic (f_pos_lock).
	offMu sync.Mutex
	// +checklocks:offMu
	off int64

	ext atomic.Pointer[fileExt]
}

// fileExt is the rarely used part of a FileDescription.
type fileExt struct {
	mu sync.Mutex
	// hooks run when the file is released: epoll forgets it.
	// +checklocks:mu
	hooks map[any]func()
	async asyncState
}

func (fd *FileDescription) extension() *fileExt {
	if e := fd.ext.Load(); e != nil {
		return e
	}
	fd.ext.CompareAndSwap(nil, &fileExt{})
	return fd.ext.Load()
}

// statusFlags are the flags that a file keeps after open (F_GETFL).
const statusFlags = unix.O_ACCMODE | unix.O_APPEND | unix.O_ASYNC | unix.O_DIRECT | unix.O_DSYNC | 0o100000 /* O_LARGEFILE */ |
	unix.O_NOATIME | unix.O_NONBLOCK | unix.O_SYNC | unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_TMPFILE

// NewFile returns an open file with one reference. It takes over the references of p. flags are open(2)'s.
func NewFile(creds *auth.Credentials, impl FileImpl, p Path, flags uint32) *FileDescription {
	fd := &FileDescription{impl: impl, path: p, creds: creds, seekable: impl.Seekable()}
	_, fd.fixed = impl.(NoopSeeker)
	fd.outside, _ = impl.(Positioned)
	fd.refs.Store(1)
	fd.flags.Store(flags & statusFlags)
	return fd
}

// Impl is the file system's side.
func (fd *FileDescription) Impl() FileImpl { return fd.impl }

// Path is where the file was opened; the references are fd's.
func (fd *FileDescription) Path() Path { return fd.path }

// Dentry is the dentry of Path.
func (fd *FileDescription) Dentry() *Dentry { return fd.path.Dentry }

// Inode is the file.
func (fd *FileDescription) Inode() Inode { return fd.path.Dentry.inode }

// Credentials are the opener's.
func (fd *FileDescription) Credentials() *auth.Credentials { return fd.creds }

// Flags are F_GETFL's: access mode and status flags.
func (fd *FileDescription) Flags() uint32 { return fd.flags.Load() }

// PathOnly reports whether the file was opened with O_PATH.
func (fd *FileDescription) PathOnly() bool { return fd.pathOnly }

// Readable and Writable tell the access mode.
func (fd *FileDescription) Readable() bool {
	m := fd.flags.Load() & unix.O_ACCMODE
	return (m == unix.O_RDONLY || m == unix.O_RDWR) && !fd.pathOnly
}

// Writable reports whether the file was opened for writing.
func (fd *FileDescription) Writable() bool {
	m := fd.flags.Load() & unix.O_ACCMODE
	return (m == unix.O_WRONLY || m == unix.O_RDWR) && !fd.pathOnly
}

// Seekable reports whether the file has a position.
func (fd *FileDescription) Seekable() bool { return fd.seekable }

// Nonblocking reports O_NONBLOCK.
func (fd *FileDescription) Nonblocking() bool { return fd.flags.Load()&unix.O_NONBLOCK != 0 }

// mayDirect reports whether F_SETFL may set O_DIRECT: on a pipe, or on a file that was opened by a name, which a memfd was not.
func (fd *FileDescription) mayDirect() bool {
	switch fd.Inode().Mode() & unix.S_IFMT {
	case unix.S_IFIFO, unix.S_IFBLK:
		return true
	case unix.S_IFREG:
		return !fd.path.Dentry.IsRoot()
	}
	return false
}

// SetStatusFlags is F_SETFL: only O_APPEND, O_DIRECT, O_NOATIME and O_NONBLOCK change; see SetAsync.
func (fd *FileDescription) SetStatusFlags(ctx Context, flags uint32) error {
	const settable = unix.O_APPEND | unix.O_DIRECT | unix.O_NOATIME | unix.O_NONBLOCK
	for {
		old := fd.flags.Load()
		set := old&^settable | flags&settable
		if old == set {
			return nil
		}
		if set&^old&unix.O_NOATIME != 0 && !ownerOrCapable(ctx, fd.Inode()) {
			return unix.EPERM
		}
		if set&unix.O_DIRECT != 0 && !fd.mayDirect() {
			return unix.EINVAL
		}
		if err := fd.impl.SetFlags(ctx, old, set); err != nil {
			return err
		}
		if fd.flags.CompareAndSwap(old, set) {
			return nil
		}
	}
}

// Refs is the number of references now.
func (fd *FileDescription) Refs() int64 { return fd.refs.Load() }

// IncRef takes another reference.
func (fd *FileDescription) IncRef() { fd.refs.Add(1) }

// TryIncRef takes a reference unless the last one is gone (a weak reference, as epoll's).
func (fd *FileDescription) TryIncRef() bool { return refs.TryInc(&fd.refs, 1) }

// DecRef drops a reference; the last one releases the file.
func (fd *FileDescription) DecRef() {
	if fd.refs.Add(-1) == 0 {
		fd.release()
	}
}

func (fd *FileDescription) release() {
	ctx := WithCredentials(fd.creds)
	if e := fd.ext.Load(); e != nil {
		fd.arm(nil, 0)
		e.mu.Lock()
		hooks := e.hooks
		e.hooks = nil
		e.mu.Unlock()
		for _, h := range hooks {
			h()
		}
	}
	if !fd.pathOnly && fd.path.Ok() {
		if fd.locked.Load() {
			fd.dropLocks()
		}
		fd.notifyClose()
	}
	fd.impl.Release(ctx, fd)
	if fd.denied {
		allowWrite(fd.Inode())
	}
	if fd.reads {
		fd.Inode().vfsState().readers.Add(-1)
	}
	if fd.wrote {
		fd.path.endWrite()
	}
	fd.path.DecRef()
}

func (fd *FileDescription) countReader() {
	fd.reads = true
	fd.Inode().vfsState().readers.Add(1)
}

// AddReleaseHook has fn called when fd is released, unless RemoveReleaseHook(key) comes first.
func (fd *FileDescription) AddReleaseHook(key any, fn func()) {
	e := fd.extension()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.hooks == nil {
		e.hooks = make(map[any]func())
	}
	e.hooks[key] = fn
}

// RemoveReleaseHook undoes AddReleaseHook.
func (fd *FileDescription) RemoveReleaseHook(key any) {
	e := fd.extension()
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.hooks, key)
}

// Readiness is poll(2)'s view of the file.
func (fd *FileDescription) Readiness(mask waiter.EventMask) waiter.EventMask {
	return fd.impl.Readiness(mask)
}

// EventRegister implements waiter.Waitable.
func (fd *FileDescription) EventRegister(e *waiter.Entry) error { return fd.impl.EventRegister(e) }

// EventUnregister implements waiter.Waitable.
func (fd *FileDescription) EventUnregister(e *waiter.Entry) { fd.impl.EventUnregister(e) }

// Stat returns the attributes of the open file.
func (fd *FileDescription) Stat(ctx Context) (Attr, error) { return fd.Inode().Attr(ctx) }

// Ioctl is ioctl(2) for requests that VFS does not answer itself; see syscalls.
func (fd *FileDescription) Ioctl(ctx Context, io usermem.IO, req uint32, arg uintptr) (uintptr, error) {
	return fd.impl.Ioctl(ctx, fd, io, req, arg)
}

// ConfigureMMap fills opts for a mapping of the file, after mmap(2)'s checks of the access mode (EACCES), of a
// mount with noexec (EPERM) and of the seals (EPERM, by the file).
func (fd *FileDescription) ConfigureMMap(ctx Context, opts *memmap.MMapOpts) error {
	if fd.pathOnly {
		return unix.EBADF
	}
	if !fd.Readable() {
		return unix.EACCES
	}
	if !opts.Private {
		if !fd.Writable() {
			if opts.Perms.Write {
				return unix.EACCES
			}
			opts.MaxPerms.Write = false
		}
	}
	if fd.path.Mount.Flags()&unix.ST_NOEXEC != 0 {
		if opts.Perms.Execute {
			return unix.EPERM
		}
		opts.MaxPerms.Execute = false
	}
	if opts.MaxPerms == (hostarch.AccessType{}) {
		return unix.EACCES
	}
	opts.Identity = fd
	return fd.impl.ConfigureMMap(ctx, fd, opts)
}

// MappedName implements memmap.Identity: the path as the file's own namespace sees it.
func (fd *FileDescription) MappedName() string { return PathString(Background(), Path{}, fd.path) }

// DeviceID implements memmap.Identity.
func (fd *FileDescription) DeviceID() uint64 { return fd.path.Dentry.sb.fs.Dev() }

// InodeID implements memmap.Identity.
func (fd *FileDescription) InodeID() uint64 {
	a, err := fd.Inode().Attr(Background())
	if err != nil {
		return 0
	}
	return a.Ino
}
