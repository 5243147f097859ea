package syscalls

import (
	"moat/sentry/kernel"
	"moat/sentry/vfs"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
)

// xattrOp is a call that was looked at, all but the file that it is made on: that comes last, as on Linux.
type xattrOp func(vfs.Path) (uintptr, error)

func init() {
	type prepare func(t *kernel.Task, a []kernel.Arg) (xattrOp, error)
	on := func(fn prepare, flags uint32, file bool) kernel.SyscallFn {
		return func(t *kernel.Task, a kernel.Args) (n uintptr, err error) {
			op, err := fn(t, a[1:])
			if err != nil {
				return 0, err
			}
			if file {
				_, err = withFile(t, a[0], func(f *vfs.FileDescription) (err error) {
					n, err = op(f.Path())
					return err
				})
				return n, err
			}
			_, err = withPath(t, cwdArg, a[0], flags, func(p vfs.Path) (err error) {
				n, err = op(p)
				return err
			})
			return n, err
		}
	}
	for _, c := range []struct {
		nr        uintptr
		name, sig string
		fn        prepare
	}{{188, "setxattr", "str ptr size hex", setxattr}, {191, "getxattr", "str ptr size", getxattr}, {194, "listxattr", "ptr size", listxattr}, {197, "removexattr", "str", removexattr}} {
		register(full(c.nr, c.name, "path "+c.sig, on(c.fn, vfs.Follow, false)), full(c.nr+1, "l"+c.name, "path "+c.sig, on(c.fn, 0, false)),
			full(c.nr+2, "f"+c.name, "fd "+c.sig, on(c.fn, 0, true)))
	}
	// at makes the calls with a directory and flags; set and get have the rest in a struct xattr_args.
	at := func(fn prepare, args bool) kernel.SyscallFn {
		return func(t *kernel.Task, a kernel.Args) (n uintptr, err error) {
			if a[2].Uint()&^uint32(unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH) != 0 {
				return 0, unix.EINVAL
			}
			rest := a[3:]
			if args {
				b, err := copyInSized(t, a[4], a[5], 16)
				if err != nil {
					return 0, err
				}
				le := hostarch.ByteOrder
				rest = []kernel.Arg{a[3], kernel.Arg(le.Uint64(b)), kernel.Arg(le.Uint32(b[8:])), kernel.Arg(le.Uint32(b[12:]))}
			}
			op, err := fn(t, rest)
			if err != nil {
				return 0, err
			}
			_, err = withPathOrNull(t, a[0], a[1], a[2].Uint(), func(p vfs.Path) (err error) {
				n, err = op(p)
				return err
			})
			return n, err
		}
	}
	register(full(463, "setxattrat", "dirfd path hex str ptr size", at(setxattr, true)), full(465, "listxattrat", "dirfd path hex ptr size", at(listxattr, false)),
		full(464, "getxattrat", "dirfd path hex str ptr size", at(func(t *kernel.Task, a []kernel.Arg) (xattrOp, error) {
			if a[3] != 0 {
				return nil, unix.EINVAL
			}
			return getxattr(t, a)
		}, true)),
		full(466, "removexattrat", "dirfd path hex str", at(removexattr, false)))
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

func setxattr(t *kernel.Task, a []kernel.Arg) (xattrOp, error) {
	if a[3].Uint()&^uint32(unix.XATTR_CREATE|unix.XATTR_REPLACE) != 0 {
		return nil, unix.EINVAL
	}
	name, err := xattrName(t, a[0])
	if err != nil {
		return nil, err
	}
	if a[2].Uint64() > xattrSizeMax {
		return nil, unix.E2BIG
	}
	v := make([]byte, a[2])
	if _, err := t.CopyIn(a[1].Pointer(), v); err != nil {
		return nil, err
	}
	return func(p vfs.Path) (uintptr, error) { return 0, vfs.SetXattr(t, p, name, v, a[3].Uint()) }, nil
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

func getxattr(t *kernel.Task, a []kernel.Arg) (xattrOp, error) {
	name, err := xattrName(t, a[0])
	return func(p vfs.Path) (uintptr, error) {
		v, err := vfs.GetXattr(t, p, name)
		if err != nil {
			return 0, err
		}
		return putOut(t, v, a[1], a[2])
	}, err
}

func listxattr(t *kernel.Task, a []kernel.Arg) (xattrOp, error) {
	return func(p vfs.Path) (uintptr, error) {
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
		return putOut(t, b, a[0], a[1])
	}, nil
}

func removexattr(t *kernel.Task, a []kernel.Arg) (xattrOp, error) {
	name, err := xattrName(t, a[0])
	return func(p vfs.Path) (uintptr, error) { return 0, vfs.RemoveXattr(t, p, name) }, err
}
