package syscalls

import (
	"errors"
	"sync"

	"moat/sentry/kernel"
	"moat/sentry/vfs"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
)

// Directories: listing, the working directory, the root.

func init() {
	register(
		full(78, "getdents", "fd ptr size", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return getdents(t, a, true) }),
		full(217, "getdents64", "fd ptr size", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return getdents(t, a, false) }),
		full(79, "getcwd", "ptr size", sysGetcwd),
		full(80, "chdir", "path", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return withPath(t, cwdArg, a[0], vfs.Follow|vfs.Directory, func(p vfs.Path) error { return chdir(t, p) })
		}),
		full(81, "fchdir", "fd", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			f, err := t.GetFileOrPath(a[0].Int())
			if err != nil {
				return 0, err
			}
			defer f.DecRef()
			return 0, chdir(t, f.Path())
		}),
		full(161, "chroot", "path", sysChroot),
		full(95, "umask", "mode", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return uintptr(t.FSContext().SetUmask(a[0].Mode())), nil
		}),
	)
}

var errFull = errors.New("buffer is full")

var direntBuffers = sync.Pool{New: func() any { b := make([]byte, 0, 64<<10); return &b }}

// putDirent appends d to b as struct linux_dirent64, or with old as struct linux_dirent, whose last byte is the type; nil if it would exceed limit.
func putDirent(b []byte, limit int, d *vfs.Dirent, old bool) []byte {
	n := (8 + 8 + 2 + 1 + len(d.Name) + 1 + 7) &^ 7
	if len(b)+n > limit {
		return nil
	}
	le := hostarch.ByteOrder
	at := len(b)
	b = b[:at+n]
	e := b[at:]
	clear(e[18+len(d.Name):])
	le.PutUint64(e, d.Ino)
	le.PutUint64(e[8:], uint64(d.Off))
	le.PutUint16(e[16:], uint16(n))
	if old {
		copy(e[18:], d.Name)
		e[n-1] = d.Type
	} else {
		e[18] = d.Type
		copy(e[19:], d.Name)
	}
	return b
}

func getdents(t *kernel.Task, a kernel.Args, old bool) (uintptr, error) {
	f, err := t.GetFile(a[0].Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	if a[2].Int() < 0 {
		return 0, unix.EINVAL
	}
	buf := direntBuffers.Get().(*[]byte)
	defer direntBuffers.Put(buf)
	b := (*buf)[:0]
	limit := int(min(uint64(a[2].Uint()), uint64(cap(b))))
	full := false
	err = f.ReadDir(t, func(d vfs.Dirent) error {
		n := putDirent(b, limit, &d, old)
		if n == nil {
			full = true
			return errFull
		}
		b = n
		return nil
	})
	if len(b) == 0 {
		if err == nil && full {
			err = unix.EINVAL
		}
		return 0, err
	}
	if _, err := t.CopyOut(a[1].Pointer(), b); err != nil {
		return 0, err
	}
	return uintptr(len(b)), nil
}

func sysGetcwd(t *kernel.Task, a kernel.Args) (uintptr, error) {
	s, err := vfs.Getcwd(t)
	if err != nil {
		return 0, err
	}
	if uint64(len(s)+1) > a[1].Uint64() {
		return 0, unix.ERANGE
	}
	n, err := t.CopyOut(a[0].Pointer(), append([]byte(s), 0))
	return uintptr(n), err
}

func chdir(t *kernel.Task, p vfs.Path) error {
	if p.Inode().Mode()&unix.S_IFMT != unix.S_IFDIR {
		return unix.ENOTDIR
	}
	if err := vfs.Permission(t, p.Inode(), vfs.MayExec); err != nil {
		return err
	}
	t.FSContext().SetCwd(p.IncRef())
	return nil
}

func sysChroot(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return withPath(t, cwdArg, a[0], vfs.Follow|vfs.Directory, func(p vfs.Path) error {
		if err := vfs.Permission(t, p.Inode(), vfs.MayExec); err != nil {
			return err
		}
		if !t.Credentials().HasCap(linux.CAP_SYS_CHROOT) {
			return unix.EPERM
		}
		t.FSContext().SetRoot(p.IncRef())
		return nil
	})
}
