package syscalls

import (
	"golang.org/x/sys/unix"
	"moat/sentry/kernel"
	"moat/sentry/vfs"
)

func init() {
	// onPath and onFile make the three variants of each call.
	onPath := func(flags uint32, fn func(*kernel.Task, vfs.Path, kernel.Args) (uintptr, error)) kernel.SyscallFn {
		return func(t *kernel.Task, a kernel.Args) (n uintptr, err error) {
			_, err = withPath(t, cwdArg, a[0], flags, func(p vfs.Path) (err error) {
				n, err = fn(t, p, a)
				return err
			})
			return n, err
		}
	}
	onFile := func(fn func(*kernel.Task, vfs.Path, kernel.Args) (uintptr, error)) kernel.SyscallFn {
		return func(t *kernel.Task, a kernel.Args) (n uintptr, err error) {
			_, err = withFile(t, a[0], func(f *vfs.FileDescription) (err error) {
				n, err = fn(t, f.Path(), a)
				return err
			})
			return n, err
		}
	}
	register(
		full(188, "setxattr", "path str ptr size hex", onPath(vfs.Follow, setxattr)),
		full(189, "lsetxattr", "path str ptr size hex", onPath(0, setxattr)),
		full(190, "fsetxattr", "fd str ptr size hex", onFile(setxattr)),
		full(191, "getxattr", "path str ptr size", onPath(vfs.Follow, getxattr)),
		full(192, "lgetxattr", "path str ptr size", onPath(0, getxattr)),
		full(193, "fgetxattr", "fd str ptr size", onFile(getxattr)),
		full(194, "listxattr", "path ptr size", onPath(vfs.Follow, listxattr)),
		full(195, "llistxattr", "path ptr size", onPath(0, listxattr)),
		full(196, "flistxattr", "fd ptr size", onFile(listxattr)),
		full(197, "removexattr", "path str", onPath(vfs.Follow, removexattr)),
		full(198, "lremovexattr", "path str", onPath(0, removexattr)),
		full(199, "fremovexattr", "fd str", onFile(removexattr)),
		absent(463, "setxattrat", "too new to be needed; libraries fall back"),
		absent(464, "getxattrat", "too new to be needed; libraries fall back"),
		absent(465, "listxattrat", "too new to be needed; libraries fall back"),
		absent(466, "removexattrat", "too new to be needed; libraries fall back"),
	)
}

const (
	xattrNameMax = 255
	xattrSizeMax = 65536
	xattrListMax = 65536
)

// xattrName copies in an attribute's name: ERANGE if it is empty or too long.
func xattrName(t *kernel.Task, addr kernel.Arg) (string, error) {
	s, err := t.CopyInString(addr.Pointer(), xattrNameMax+1)
	if err == unix.ENAMETOOLONG || err == nil && s == "" {
		return "", unix.ERANGE
	}
	return s, err
}

func setxattr(t *kernel.Task, p vfs.Path, a kernel.Args) (uintptr, error) {
	if a[4].Uint()&^uint32(unix.XATTR_CREATE|unix.XATTR_REPLACE) != 0 {
		return 0, unix.EINVAL
	}
	name, err := xattrName(t, a[1])
	if err != nil {
		return 0, err
	}
	if a[3].Uint64() > xattrSizeMax {
		return 0, unix.E2BIG
	}
	v := make([]byte, a[3])
	if _, err := t.CopyIn(a[2].Pointer(), v); err != nil {
		return 0, err
	}
	return 0, vfs.SetXattr(t, p, name, v, a[4].Uint())
}

// putOut copies v out if size is not zero: ERANGE if it does not fit.
func putOut(t *kernel.Task, v []byte, addr, size kernel.Arg) (uintptr, error) {
	if size != 0 {
		if uint64(len(v)) > size.Uint64() {
			return 0, unix.ERANGE
		}
		if _, err := t.CopyOut(addr.Pointer(), v); err != nil {
			return 0, err
		}
	}
	return uintptr(len(v)), nil
}

func getxattr(t *kernel.Task, p vfs.Path, a kernel.Args) (uintptr, error) {
	name, err := xattrName(t, a[1])
	if err != nil {
		return 0, err
	}
	v, err := vfs.GetXattr(t, p, name)
	if err != nil {
		return 0, err
	}
	return putOut(t, v, a[2], a[3])
}

func listxattr(t *kernel.Task, p vfs.Path, a kernel.Args) (uintptr, error) {
	names, err := vfs.ListXattr(t, p)
	if err != nil {
		return 0, err
	}
	var b []byte
	for _, n := range names {
		b = append(append(b, n...), 0)
	}
	if len(b) > xattrListMax {
		return 0, unix.E2BIG
	}
	return putOut(t, b, a[1], a[2])
}

func removexattr(t *kernel.Task, p vfs.Path, a kernel.Args) (uintptr, error) {
	name, err := xattrName(t, a[1])
	if err != nil {
		return 0, err
	}
	return 0, vfs.RemoveXattr(t, p, name)
}
