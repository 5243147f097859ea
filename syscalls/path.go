package syscalls

import (
	"moat/sentry/kernel"
	"moat/sentry/vfs"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
)

// at is a path argument with the directory it is relative to.
type at struct {
	path  string
	start vfs.Path
	file  *vfs.FileDescription // of a descriptor: keeps start referenced
}

// pathAt copies in the path at addr, relative to dirfd. An empty one is no path, and that comes before what dirfd is. done must be called.
func pathAt(t *kernel.Task, dirfd, addr kernel.Arg) (at, error) {
	return pathOrEmpty(t, dirfd, addr, 0)
}

// pathOrEmpty is pathAt for calls that may take an empty path, with vfs.EmptyPath in the walk's flags.
func pathOrEmpty(t *kernel.Task, dirfd, addr kernel.Arg, walk uint32) (at, error) {
	path, err := t.CopyInPath(addr.Pointer())
	if err == nil && path == "" && walk&vfs.EmptyPath == 0 {
		err = unix.ENOENT
	}
	if err != nil {
		return at{}, err
	}
	return startAt(t, dirfd.Int(), path)
}

// pathOrNull is pathAt for calls that take a null pointer for "" with AT_EMPTY_PATH.
func pathOrNull(t *kernel.Task, dirfd, addr kernel.Arg, flags uint32) (at, error) {
	if addr == 0 && flags&unix.AT_EMPTY_PATH != 0 {
		return startAt(t, dirfd.Int(), "")
	}
	return pathOrEmpty(t, dirfd, addr, follow(flags))
}

func startAt(t *kernel.Task, dirfd int32, path string) (at, error) {
	if dirfd == unix.AT_FDCWD || path != "" && path[0] == '/' {
		return at{path: path, start: t.Cwd()}, nil
	}
	f, err := t.GetFileOrPath(dirfd)
	if err != nil {
		return at{}, err
	}
	return at{path: path, start: f.Path(), file: f}, nil
}

func (a *at) done() {
	if a.file != nil {
		a.file.DecRef()
	}
}

// cwdArg is the dirfd of calls without one.
const cwdArg = kernel.Arg(unix.AT_FDCWD & (1<<64 - 1))

// cwd makes of a call that names a directory before its path the one without.
func cwd(at kernel.SyscallFn) kernel.SyscallFn {
	return func(t *kernel.Task, a kernel.Args) (uintptr, error) {
		return at(t, kernel.Args{cwdArg, a[0], a[1], a[2], a[3], a[4]})
	}
}

// resolve walks a.
func (a *at) resolve(ctx vfs.Context, flags uint32) (vfs.Path, error) {
	return vfs.Resolve(ctx, a.start, a.path, flags)
}

// withPath resolves the path argument and calls fn with what it names.
func withPath(t *kernel.Task, dirfd, addr kernel.Arg, flags uint32, fn func(p vfs.Path) error) (uintptr, error) {
	w, err := pathOrEmpty(t, dirfd, addr, flags)
	if err != nil {
		return 0, err
	}
	return w.call(t, flags, fn)
}

// withPathOrNull is withPath for pathOrNull and the AT_* flags.
func withPathOrNull(t *kernel.Task, dirfd, addr kernel.Arg, flags uint32, fn func(p vfs.Path) error) (uintptr, error) {
	w, err := pathOrNull(t, dirfd, addr, flags)
	if err != nil {
		return 0, err
	}
	return w.call(t, follow(flags), fn)
}

// call walks a, calls fn with what it names, and is done.
func (a *at) call(t *kernel.Task, flags uint32, fn func(p vfs.Path) error) (uintptr, error) {
	defer a.done()
	p, err := a.resolve(t, flags)
	if err != nil {
		return 0, err
	}
	defer p.DecRef()
	return 0, fn(p)
}

// withFile calls fn with the open file of fd (O_PATH ones give EBADF).
func withFile(t *kernel.Task, fd kernel.Arg, fn func(f *vfs.FileDescription) error) (uintptr, error) {
	f, err := t.GetFile(fd.Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	return 0, fn(f)
}

// follow is the walk's flags for AT_SYMLINK_NOFOLLOW and AT_EMPTY_PATH.
func follow(flags uint32) uint32 {
	w := uint32(vfs.Follow)
	if flags&unix.AT_SYMLINK_NOFOLLOW != 0 {
		w = 0
	}
	if flags&unix.AT_EMPTY_PATH != 0 {
		w |= vfs.EmptyPath
	}
	return w
}

// copyInSized copies in a structure that may grow, of which want bytes are known (copy_struct_from_user): what is behind them must be zero.
func copyInSized(t *kernel.Task, addr, size kernel.Arg, want int) ([]byte, error) {
	n := size.Uint64()
	if n < uint64(want) {
		return nil, unix.EINVAL
	}
	if n > hostarch.PageSize {
		return nil, unix.E2BIG
	}
	b := make([]byte, n)
	if _, err := t.CopyIn(addr.Pointer(), b); err != nil {
		return nil, err
	}
	for _, c := range b[want:] {
		if c != 0 {
			return nil, unix.E2BIG
		}
	}
	return b[:want], nil
}
