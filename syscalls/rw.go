package syscalls

import (
	"moat/sentry/kernel"
	"moat/sentry/net/socket"
	"moat/sentry/usermem"
	"moat/sentry/vfs"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

func init() {
	register(
		full(0, "read", "fd buf size", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return single(t, a, false, -1) }),
		full(1, "write", "fd data size", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return single(t, a, true, -1) }),
		full(17, "pread64", "fd buf size off", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return positioned(t, a, false) }),
		full(18, "pwrite64", "fd data size off", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return positioned(t, a, true) }),
		full(19, "readv", "fd iovec int", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return vector(t, a, false, -1, 0) }),
		full(20, "writev", "fd iovec int", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return vector(t, a, true, -1, 0) }),
		full(295, "preadv", "fd iovec int off", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return vectorAt(t, a, false) }),
		full(296, "pwritev", "fd iovec int off", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return vectorAt(t, a, true) }),
		full(327, "preadv2", "fd iovec int off hex hex", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return vector(t, a, false, a[3].Int64(), a[5].Uint())
		}),
		full(328, "pwritev2", "fd iovec int off hex hex", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return vector(t, a, true, a[3].Int64(), a[5].Uint())
		}),
		full(8, "lseek", "fd off whence", sysLseek),
	)
}

// result drops the error of a transfer that moved something.
func result(n int64, err error) (uintptr, error) {
	if n > 0 {
		return uintptr(n), nil
	}
	return 0, err
}

// single is read(2) and write(2), and from an offset that is not negative pread64(2) and pwrite64(2).
func single(t *kernel.Task, a kernel.Args, write bool, off int64) (uintptr, error) {
	f, err := t.GetFile(a[0].Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	switch {
	case off >= 0 && !f.Seekable():
		return 0, unix.ESPIPE
	case write && !f.Writable(), !write && !f.Readable():
		return 0, unix.EBADF
	}
	seq, err := t.SingleIO(a[1].Pointer(), a[2].Int64())
	if err != nil {
		return 0, err
	}
	return move(t, f, seq, write, off, 0, false)
}

// write writes to the position, or to off if that is not negative, and raises SIGPIPE with EPIPE.
func sigpipe(t *kernel.Task, f *vfs.FileDescription, src usermem.IOSequence, off int64, flags vfs.IOFlags) (uintptr, error) {
	var n int64
	var err error
	if off >= 0 {
		n, err = f.PWrite(t, src, off, flags)
	} else {
		n, err = f.Write(t, src, flags)
	}
	s, _ := f.Impl().(socket.Socket)
	if err == unix.EPIPE && (n == 0 || isPipe(f)) && f.Inode().Mode()&unix.S_IFMT != unix.S_IFREG && (s == nil || s.Base().Type == unix.SOCK_STREAM) {
		t.SignalSelf(linux.SIGPIPE)
	}
	return result(n, err)
}

// positioned is pread64(2) and pwrite64(2).
func positioned(t *kernel.Task, a kernel.Args, write bool) (uintptr, error) {
	if a[3].Int64() < 0 {
		return 0, unix.EINVAL
	}
	return single(t, a, write, a[3].Int64())
}

func vectorAt(t *kernel.Task, a kernel.Args, write bool) (uintptr, error) {
	if a[3].Int64() < 0 {
		return 0, unix.EINVAL
	}
	return vector(t, a, write, a[3].Int64(), 0)
}

// vector is the common part of readv and its kin; off -1 means the file position.
func vector(t *kernel.Task, a kernel.Args, write bool, off int64, rwf uint32) (uintptr, error) {
	if off < -1 {
		return 0, unix.EINVAL
	}
	f, err := t.GetFile(a[0].Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	if off >= 0 && !f.Seekable() {
		return 0, unix.ESPIPE
	}
	if write && !f.Writable() || !write && !f.Readable() {
		return 0, unix.EBADF
	}
	seq, err := t.CopyInIovecs(a[1].Pointer(), int(a[2].Int()))
	if err != nil || seq.NumBytes() == 0 {
		return 0, err
	}
	flags, err := rwFlags(f, write, rwf)
	if err != nil {
		return 0, err
	}
	return move(t, f, seq, write, off, flags, rwf&rwfNoSignal != 0)
}

// move is a transfer from or to off, or if that is negative the position. quiet: without SIGPIPE.
func move(t *kernel.Task, f *vfs.FileDescription, seq usermem.IOSequence, write bool, off int64, flags vfs.IOFlags, quiet bool) (uintptr, error) {
	switch {
	case write && off >= 0:
		return result(f.PWrite(t, seq, off, flags))
	case write && quiet:
		return result(f.Write(t, seq, flags))
	case write:
		return sigpipe(t, f, seq, -1, flags)
	case off >= 0:
		return result(f.PRead(t, seq, off, flags))
	}
	return result(f.Read(t, seq, flags))
}

const rwfNoSignal = 256

// rwFlags are the flags of a transfer for RWF_*: EOPNOTSUPP, EINVAL.
func rwFlags(f *vfs.FileDescription, write bool, rwf uint32) (flags vfs.IOFlags, err error) {
	const hipri, dsync, sync, nowait, app, noappend = 1, 2, 4, 8, 16, 32
	known := uint32(hipri | dsync | sync | nowait | app | noappend | rwfNoSignal)
	if !write && f.Inode().Mode()&unix.S_IFMT == unix.S_IFDIR {
		known = hipri // it has no read_iter
	}
	if rwf&^known != 0 {
		return 0, unix.EOPNOTSUPP
	}
	if rwf&(app|noappend) == app|noappend {
		return 0, unix.EINVAL
	}
	if rwf&nowait != 0 {
		flags |= vfs.IONonblock
	}
	if rwf&app != 0 {
		flags |= vfs.IOAppend
	}
	if rwf&noappend != 0 {
		flags |= vfs.IONoAppend
	}
	if rwf&dsync != 0 {
		flags |= vfs.IODsync
	}
	if rwf&sync != 0 {
		flags |= vfs.IODsync | vfs.IOSync
	}
	return flags, nil
}

func sysLseek(t *kernel.Task, a kernel.Args) (uintptr, error) {
	f, err := t.GetFile(a[0].Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	n, err := f.Seek(t, a[1].Int64(), a[2].Int())
	return uintptr(n), err
}
