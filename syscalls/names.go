package syscalls

import (
	"moat/sentry/kernel"
	"moat/sentry/kernel/auth"
	"moat/sentry/vfs"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

// Calls that change names and attributes.

func init() {
	register(
		full(83, "mkdir", "path mode", cwd(sysMkdirat)),
		full(258, "mkdirat", "dirfd path mode", sysMkdirat),
		full(84, "rmdir", "path", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return unlink(t, cwdArg, a[0], unix.AT_REMOVEDIR)
		}),
		full(87, "unlink", "path", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return unlink(t, cwdArg, a[0], 0) }),
		full(263, "unlinkat", "dirfd path atflags", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return unlink(t, a[0], a[1], a[2].Uint()) }),
		full(82, "rename", "path path", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return rename(t, cwdArg, a[0], cwdArg, a[1], 0) }),
		full(264, "renameat", "dirfd path dirfd path", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return rename(t, a[0], a[1], a[2], a[3], 0) }),
		full(316, "renameat2", "dirfd path dirfd path hex", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return rename(t, a[0], a[1], a[2], a[3], a[4].Uint())
		}),
		full(86, "link", "path path", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return link(t, cwdArg, a[0], cwdArg, a[1], 0) }),
		full(265, "linkat", "dirfd path dirfd path atflags", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return link(t, a[0], a[1], a[2], a[3], a[4].Uint())
		}),
		full(88, "symlink", "path path", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return symlink(t, a[0], cwdArg, a[1]) }),
		full(266, "symlinkat", "path dirfd path", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return symlink(t, a[0], a[1], a[2]) }),
		full(133, "mknod", "path mode dev", cwd(sysMknodat)),
		full(259, "mknodat", "dirfd path mode dev", sysMknodat),
		full(90, "chmod", "path mode", cwd(sysFchmodat)),
		full(91, "fchmod", "fd mode", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return withFile(t, a[0], func(f *vfs.FileDescription) error { return vfs.Chmod(t, f.Path(), a[1].Mode()) })
		}),
		full(268, "fchmodat", "dirfd path mode", sysFchmodat),
		full(452, "fchmodat2", "dirfd path mode atflags", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			if a[3].Uint()&^uint32(unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH) != 0 {
				return 0, unix.EINVAL
			}
			return withPath(t, a[0], a[1], follow(a[3].Uint()), func(p vfs.Path) error { return vfs.Chmod(t, p, a[2].Mode()) })
		}),
		full(92, "chown", "path int int", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return chown(t, cwdArg, a[0], a[1], a[2], 0) }),
		full(94, "lchown", "path int int", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return chown(t, cwdArg, a[0], a[1], a[2], unix.AT_SYMLINK_NOFOLLOW)
		}),
		full(260, "fchownat", "dirfd path int int atflags", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return chown(t, a[0], a[1], a[2], a[3], a[4].Uint())
		}),
		full(93, "fchown", "fd int int", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return withFile(t, a[0], func(f *vfs.FileDescription) error { return chownPath(t, f.Path(), a[1], a[2]) })
		}),
		full(132, "utime", "path ptr", sysUtime),
		full(235, "utimes", "path ptr", cwd(sysFutimesat)),
		full(261, "futimesat", "dirfd path ptr", sysFutimesat),
		full(280, "utimensat", "dirfd path ptr atflags", sysUtimensat),
		full(76, "truncate", "path off", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			if a[1].Int64() < 0 {
				return 0, unix.EINVAL
			}
			return withPath(t, cwdArg, a[0], vfs.Follow, func(p vfs.Path) error { return vfs.Truncate(t, p, a[1].Int64()) })
		}),
		full(77, "ftruncate", "fd off", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			if a[1].Int64() < 0 {
				return 0, unix.EINVAL
			}
			return withFile(t, a[0], func(f *vfs.FileDescription) error { return f.Truncate(t, a[1].Int64()) })
		}),
	)
}

func sysMkdirat(t *kernel.Task, a kernel.Args) (uintptr, error) {
	w, err := pathAt(t, a[0], a[1])
	if err != nil {
		return 0, err
	}
	defer w.done()
	return 0, vfs.Mkdir(t, w.start, w.path, a[2].Mode())
}

func sysFchmodat(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return withPath(t, a[0], a[1], vfs.Follow, func(p vfs.Path) error { return vfs.Chmod(t, p, a[2].Mode()) })
}

func unlink(t *kernel.Task, dirfd, path kernel.Arg, flags uint32) (uintptr, error) {
	if flags&^uint32(unix.AT_REMOVEDIR) != 0 {
		return 0, unix.EINVAL
	}
	w, err := pathAt(t, dirfd, path)
	if err != nil {
		return 0, err
	}
	defer w.done()
	if flags != 0 {
		return 0, vfs.Rmdir(t, w.start, w.path)
	}
	return 0, vfs.Unlink(t, w.start, w.path)
}

func rename(t *kernel.Task, olddir, oldpath, newdir, newpath kernel.Arg, flags uint32) (uintptr, error) {
	if err := vfs.RenameFlags(flags); err != nil {
		return 0, err
	}
	o, err := pathAt(t, olddir, oldpath)
	if err != nil {
		return 0, err
	}
	defer o.done()
	n, err := pathAt(t, newdir, newpath)
	if err != nil {
		// The old path is walked before the new one is even looked at.
		p, _, _, old := vfs.ResolveParent(t, o.start, o.path, 0)
		if old != nil {
			return 0, old
		}
		p.DecRef()
		return 0, err
	}
	defer n.done()
	return 0, vfs.Rename(t, o.start, o.path, n.start, n.path, flags)
}

func link(t *kernel.Task, olddir, oldpath, newdir, newpath kernel.Arg, flags uint32) (uintptr, error) {
	if flags&^uint32(unix.AT_SYMLINK_FOLLOW|unix.AT_EMPTY_PATH) != 0 {
		return 0, unix.EINVAL
	}
	walk := uint32(0)
	if flags&unix.AT_SYMLINK_FOLLOW != 0 {
		walk |= vfs.Follow
	}
	if flags&unix.AT_EMPTY_PATH != 0 {
		walk |= vfs.EmptyPath
	}
	o, err := pathOrEmpty(t, olddir, oldpath, walk)
	if err != nil {
		return 0, err
	}
	defer o.done()
	if flags&unix.AT_EMPTY_PATH != 0 {
		if o.file != nil && o.file.Credentials() != t.Credentials() && !t.Credentials().HasCap(linux.CAP_DAC_READ_SEARCH) {
			return 0, unix.ENOENT
		}
	}
	p, err := o.resolve(t, walk)
	if err != nil {
		return 0, err
	}
	defer p.DecRef()
	n, err := pathAt(t, newdir, newpath)
	if err != nil {
		return 0, err
	}
	defer n.done()
	return 0, vfs.Link(t, p, n.start, n.path)
}

func symlink(t *kernel.Task, target, dirfd, path kernel.Arg) (uintptr, error) {
	s, err := t.CopyInPath(target.Pointer())
	if err == nil && s == "" {
		err = unix.ENOENT
	}
	if err != nil {
		return 0, err
	}
	w, err := pathAt(t, dirfd, path)
	if err != nil {
		return 0, err
	}
	defer w.done()
	return 0, vfs.Symlink(t, s, w.start, w.path)
}

// newDev is new_decode_dev.
func newDev(d uint32) uint64 { return unix.Mkdev(d&0xfff00>>8, d&0xff|d>>12&0xfff00) }

func sysMknodat(t *kernel.Task, a kernel.Args) (uintptr, error) {
	mode := a[2].Mode()
	if err := vfs.NodeType(mode); err != nil {
		return 0, err // before the name is looked at
	}
	w, err := pathAt(t, a[0], a[1])
	if err != nil {
		return 0, err
	}
	defer w.done()
	var rdev uint64
	if f := mode & unix.S_IFMT; f == unix.S_IFCHR || f == unix.S_IFBLK {
		rdev = newDev(a[3].Uint())
	}
	return 0, vfs.Mknod(t, w.start, w.path, mode, rdev)
}

func chown(t *kernel.Task, dirfd, path, uid, gid kernel.Arg, flags uint32) (uintptr, error) {
	if flags&^uint32(unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH) != 0 {
		return 0, unix.EINVAL
	}
	return withPath(t, dirfd, path, follow(flags), func(p vfs.Path) error { return chownPath(t, p, uid, gid) })
}

func chownPath(t *kernel.Task, p vfs.Path, uid, gid kernel.Arg) error {
	ns := t.Credentials().UserNS
	u, g := auth.KUID(auth.NoID), auth.KGID(auth.NoID)
	if uid.Uint() != auth.NoID {
		if u = ns.MapToKUID(uid.Uint()); uint32(u) == auth.NoID {
			return unix.EINVAL
		}
	}
	if gid.Uint() != auth.NoID {
		if g = ns.MapToKGID(gid.Uint()); uint32(g) == auth.NoID {
			return unix.EINVAL
		}
	}
	return vfs.Chown(t, p, u, g)
}

// now is the change that a null pointer asks for.
func touchNow(t *kernel.Task) vfs.SetAttr {
	n := t.Now()
	return vfs.SetAttr{Valid: vfs.SetAtime | vfs.SetMtime, Atime: n, Mtime: n}
}

func sysUtime(t *kernel.Task, a kernel.Args) (uintptr, error) {
	set, touch := touchNow(t), true
	if p := a[1].Pointer(); p != 0 {
		var u linux.Utime
		if _, err := u.CopyIn(t, p); err != nil {
			return 0, err
		}
		set.Atime, set.Mtime, touch = seconds(u.Actime, 0), seconds(u.Modtime, 0), false
	}
	return withPath(t, cwdArg, a[0], vfs.Follow, func(p vfs.Path) error { return vfs.Utimes(t, p, set, touch) })
}

// seconds is a time, clamped to what a Time can hold.
func seconds(sec, nsec int64) vfs.Time {
	const most = (1<<63 - 1) / 1000000000
	return vfs.Time(min(max(sec, -most+1), most-1)*1000000000 + nsec)
}

func sysFutimesat(t *kernel.Task, a kernel.Args) (uintptr, error) {
	set, touch := touchNow(t), true
	if a[2] != 0 {
		var tv [2]linux.Timeval
		if _, err := linux.CopyTimevalSliceIn(t, a[2].Pointer(), tv[:]); err != nil {
			return 0, err
		}
		for i, p := range [...]*vfs.Time{&set.Atime, &set.Mtime} {
			if tv[i].Usec < 0 || tv[i].Usec >= 1e6 {
				return 0, unix.EINVAL
			}
			*p = seconds(tv[i].Sec, tv[i].Usec*1000)
		}
		touch = false
	}
	if a[1] == 0 && a[0].Int() != unix.AT_FDCWD {
		return withFile(t, a[0], func(f *vfs.FileDescription) error { return vfs.Utimes(t, f.Path(), set, touch) })
	}
	return withPath(t, a[0], a[1], vfs.Follow, func(p vfs.Path) error { return vfs.Utimes(t, p, set, touch) })
}

func sysUtimensat(t *kernel.Task, a kernel.Args) (uintptr, error) {
	flags := a[3].Uint()
	set, touch := touchNow(t), true
	var bad error // told after what is wrong with the file
	if a[2] != 0 {
		var ts [2]linux.Timespec
		if _, err := linux.CopyTimespecSliceIn(t, a[2].Pointer(), ts[:]); err != nil {
			return 0, err
		}
		omitted, now := 0, 0
		for i, f := range [...]struct {
			p   *vfs.Time
			bit vfs.SetAttrMask
		}{{&set.Atime, vfs.SetAtime}, {&set.Mtime, vfs.SetMtime}} {
			switch ns := ts[i].Nsec; {
			case ns == unix.UTIME_NOW:
				now++
			case ns == unix.UTIME_OMIT:
				set.Valid &^= f.bit
				omitted++
			case ns < 0 || ns >= 1e9:
				bad = unix.EINVAL
			default:
				*f.p = seconds(ts[i].Sec, ns)
			}
		}
		if omitted == 2 {
			return 0, nil
		}
		touch = now == 2
	}
	if a[1] == 0 && a[0].Int() != unix.AT_FDCWD {
		if flags != 0 {
			return 0, unix.EINVAL
		}
		return withFile(t, a[0], func(f *vfs.FileDescription) error {
			if bad != nil {
				return bad
			}
			return vfs.Utimes(t, f.Path(), set, touch)
		})
	}
	if flags&^uint32(unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH) != 0 {
		return 0, unix.EINVAL
	}
	return withPath(t, a[0], a[1], follow(flags), func(p vfs.Path) error {
		if bad != nil {
			return bad
		}
		return vfs.Utimes(t, p, set, touch)
	})
}
