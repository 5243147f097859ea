package syscalls

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/sentry/kernel"
	"moat/sentry/vfs"
)

func init() {
	register(
		full(428, "open_tree", "dirfd path hex", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return sysOpenTree(t, a, nil) }),
		partial(467, "open_tree_attr", "dirfd path hex ptr size", "no MOUNT_ATTR_IDMAP: EINVAL, as file systems without FS_ALLOW_IDMAP", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			if a[3] == 0 && a[4] != 0 {
				return 0, unix.EINVAL
			}
			return sysOpenTree(t, a, func(p vfs.Path) error {
				if a[3] == 0 {
					return nil
				}
				m, err := mountAttr(t, a[3], a[4])
				if err != nil || m == nil {
					return err
				}
				return vfs.SetMountAttr(t, p, *m, a[2].Uint()&unix.AT_RECURSIVE != 0)
			})
		}),
		partial(429, "move_mount", "dirfd path dirfd path hex", "no MOVE_MOUNT_BENEATH and MOVE_MOUNT_SET_GROUP: EINVAL, as before they came", sysMoveMount),
		full(430, "fsopen", "str hex", sysFsopen),
		partial(431, "fsconfig", "fd uint str ptr int", "parameters are flags and strings: no file system takes others (EOPNOTSUPP, EINVAL)", sysFsconfig),
		full(432, "fsmount", "fd hex hex", sysFsmount),
		full(433, "fspick", "dirfd path hex", sysFspick),
		partial(442, "mount_setattr", "dirfd path hex ptr size", "no MOUNT_ATTR_IDMAP: EINVAL, as file systems without FS_ALLOW_IDMAP", sysMountSetattr),
	)
}

// newFD gives t a descriptor of f, whose reference it consumes.
func newFD(t *kernel.Task, f *vfs.FileDescription, err error, cloexec bool) (uintptr, error) {
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	fd, err := t.NewFD(f, cloexec)
	return uintptr(fd), err
}

// sysOpenTree is open_tree(2), and open_tree_attr(2) if set is not nil.
func sysOpenTree(t *kernel.Task, a kernel.Args, set func(p vfs.Path) error) (uintptr, error) {
	flags := a[2].Uint()
	switch {
	case flags&^(statFlags|unix.AT_RECURSIVE|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC) != 0,
		flags&(unix.AT_RECURSIVE|unix.OPEN_TREE_CLONE) == unix.AT_RECURSIVE:
		return 0, unix.EINVAL
	case flags&unix.OPEN_TREE_CLONE != 0:
		if err := vfs.MayMount(t); err != nil {
			return 0, err
		}
	}
	var fd uintptr
	_, err := withPath(t, a[0], a[1], follow(flags), func(p vfs.Path) (err error) {
		var f *vfs.FileDescription
		if flags&unix.OPEN_TREE_CLONE != 0 {
			f, err = vfs.OpenTree(t, p, flags&unix.AT_RECURSIVE != 0)
		} else {
			f, err = vfs.OpenPath(t, p, unix.O_PATH)
		}
		if err == nil && set != nil {
			if err = set(f.Path()); err != nil {
				f.DecRef()
			}
		}
		fd, err = newFD(t, f, err, flags&unix.OPEN_TREE_CLOEXEC != 0)
		return err
	})
	return fd, err
}

func sysMoveMount(t *kernel.Task, a kernel.Args) (uintptr, error) {
	const known = unix.MOVE_MOUNT_F_SYMLINKS | unix.MOVE_MOUNT_F_AUTOMOUNTS | unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_SYMLINKS |
		unix.MOVE_MOUNT_T_AUTOMOUNTS | unix.MOVE_MOUNT_T_EMPTY_PATH
	if err := vfs.MayMount(t); err != nil {
		return 0, err
	}
	flags := a[4].Uint()
	if flags&^known != 0 {
		return 0, unix.EINVAL
	}
	walk := func(symlinks, empty uint32) (w uint32) {
		if flags&symlinks != 0 {
			w = vfs.Follow
		}
		if flags&empty != 0 {
			w |= vfs.EmptyPath
		}
		return w
	}
	return withPath(t, a[2], a[3], walk(unix.MOVE_MOUNT_T_SYMLINKS, unix.MOVE_MOUNT_T_EMPTY_PATH), func(to vfs.Path) error {
		_, err := withPath(t, a[0], a[1], walk(unix.MOVE_MOUNT_F_SYMLINKS, unix.MOVE_MOUNT_F_EMPTY_PATH), func(from vfs.Path) error {
			return vfs.MoveMount(t, from, to)
		})
		return err
	})
}

func sysFsopen(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if err := vfs.MayMount(t); err != nil {
		return 0, err
	}
	if a[1].Uint()&^uint32(unix.FSOPEN_CLOEXEC) != 0 {
		return 0, unix.EINVAL
	}
	name, err := shortString(t, a[0], hostarch.PageSize)
	if err != nil {
		return 0, err
	}
	f, err := vfs.NewFSContext(t, name)
	return newFD(t, f, err, a[1] != 0)
}

// shortString is strndup_user: EINVAL if it has n bytes or more.
func shortString(t *kernel.Task, a kernel.Arg, n int) (string, error) {
	s, err := t.CopyInString(a.Pointer(), n)
	if err == unix.ENAMETOOLONG {
		err = unix.EINVAL
	}
	return s, err
}

func sysFspick(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if err := vfs.MayMount(t); err != nil {
		return 0, err
	}
	flags := a[2].Uint()
	if flags&^(unix.FSPICK_CLOEXEC|unix.FSPICK_SYMLINK_NOFOLLOW|unix.FSPICK_NO_AUTOMOUNT|unix.FSPICK_EMPTY_PATH) != 0 {
		return 0, unix.EINVAL
	}
	walk := uint32(vfs.Follow)
	if flags&unix.FSPICK_SYMLINK_NOFOLLOW != 0 {
		walk = 0
	}
	if flags&unix.FSPICK_EMPTY_PATH != 0 {
		walk |= vfs.EmptyPath
	}
	var fd uintptr
	_, err := withPath(t, a[0], a[1], walk, func(p vfs.Path) error {
		f, err := vfs.PickFSContext(t, p)
		fd, err = newFD(t, f, err, flags&unix.FSPICK_CLOEXEC != 0)
		return err
	})
	return fd, err
}

func sysFsconfig(t *kernel.Task, a kernel.Args) (uintptr, error) {
	cmd, key, value, aux := a[1].Uint(), a[2] != 0, a[3] != 0, a[4].Int()
	bad := a[0].Int() < 0
	switch cmd {
	case unix.FSCONFIG_SET_FLAG:
		bad = bad || !key || value || aux != 0
	case unix.FSCONFIG_SET_STRING:
		bad = bad || !key || !value || aux != 0
	case unix.FSCONFIG_SET_BINARY:
		bad = bad || !key || !value || aux <= 0 || aux > 1<<20
	case unix.FSCONFIG_SET_PATH, unix.FSCONFIG_SET_PATH_EMPTY:
		bad = bad || !key || !value || aux != unix.AT_FDCWD && aux < 0
	case unix.FSCONFIG_SET_FD:
		bad = bad || !key || value || aux < 0
	case unix.FSCONFIG_CMD_CREATE, unix.FSCONFIG_CMD_RECONFIGURE, 8: // FSCONFIG_CMD_CREATE_EXCL
		bad = bad || key || value || aux != 0
	default:
		if !bad {
			return 0, unix.EOPNOTSUPP
		}
	}
	if bad {
		return 0, unix.EINVAL
	}
	return withFile(t, a[0], func(f *vfs.FileDescription) error {
		c, ok := f.Impl().(*vfs.FSContext)
		if !ok {
			return unix.EINVAL
		}
		switch cmd {
		case unix.FSCONFIG_CMD_CREATE, 8:
			return c.Create(t)
		case unix.FSCONFIG_CMD_RECONFIGURE:
			return c.Reconfigure(t)
		}
		k, err := shortString(t, a[2], 256)
		switch {
		case err != nil:
			return err
		case cmd == unix.FSCONFIG_SET_FLAG:
			return c.Set(t, k, nil)
		case cmd != unix.FSCONFIG_SET_STRING:
			return unix.EINVAL
		}
		v, err := shortString(t, a[3], 256)
		if err != nil {
			return err
		}
		return c.Set(t, k, &v)
	})
}

// mountAttrBits are MOUNT_ATTR_* but those of access times, and their ST_*.
var mountAttrBits = [...]struct{ attr, st uint32 }{{unix.MOUNT_ATTR_RDONLY, unix.ST_RDONLY}, {unix.MOUNT_ATTR_NOSUID, unix.ST_NOSUID}, {unix.MOUNT_ATTR_NODEV, unix.ST_NODEV},
	{unix.MOUNT_ATTR_NOEXEC, unix.ST_NOEXEC}, {unix.MOUNT_ATTR_NODIRATIME, unix.ST_NODIRATIME}, {unix.MOUNT_ATTR_NOSYMFOLLOW, 0x2000}}

// attrFlags turns MOUNT_ATTR_* but those of access times into ST_*.
func attrFlags(attr uint64) (f uint32) {
	for _, b := range mountAttrBits {
		if attr&uint64(b.attr) != 0 {
			f |= b.st
		}
	}
	return f
}

// mountAttrs turns ST_* into MOUNT_ATTR_*.
func mountAttrs(flags uint32) (attr uint64) {
	for _, b := range append(mountAttrBits[:], struct{ attr, st uint32 }{unix.MOUNT_ATTR_NOATIME, unix.ST_NOATIME}) {
		if flags&b.st != 0 {
			attr |= uint64(b.attr)
		}
	}
	if flags&(unix.ST_NOATIME|unix.ST_RELATIME) == 0 {
		attr |= unix.MOUNT_ATTR_STRICTATIME
	}
	return attr
}

const attrKnown = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR__ATIME |
	unix.MOUNT_ATTR_NODIRATIME | unix.MOUNT_ATTR_NOSYMFOLLOW

// atimeFlags is the flag of MOUNT_ATTR__ATIME's value: EINVAL.
func atimeFlags(attr uint64) (uint32, error) {
	switch attr & unix.MOUNT_ATTR__ATIME {
	case unix.MOUNT_ATTR_RELATIME:
		return unix.ST_RELATIME, nil
	case unix.MOUNT_ATTR_NOATIME:
		return unix.ST_NOATIME, nil
	case unix.MOUNT_ATTR_STRICTATIME:
		return 0, nil
	}
	return 0, unix.EINVAL
}

func sysFsmount(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if err := vfs.MayMount(t); err != nil {
		return 0, err
	}
	attr := uint64(a[2].Uint())
	atime, err := atimeFlags(attr)
	if err != nil || a[1].Uint()&^uint32(unix.FSMOUNT_CLOEXEC) != 0 || attr&^attrKnown != 0 {
		return 0, unix.EINVAL
	}
	var fd uintptr
	_, err = withFile(t, a[0], func(f *vfs.FileDescription) error {
		c, ok := f.Impl().(*vfs.FSContext)
		if !ok {
			return unix.EINVAL
		}
		m, err := c.Mount(t, attrFlags(attr)|atime)
		fd, err = newFD(t, m, err, a[1] != 0)
		return err
	})
	return fd, err
}

func sysMountSetattr(t *kernel.Task, a kernel.Args) (uintptr, error) {
	flags := a[2].Uint()
	if flags&^(statFlags|unix.AT_RECURSIVE) != 0 {
		return 0, unix.EINVAL
	}
	m, err := mountAttr(t, a[3], a[4])
	if err != nil || m == nil {
		return 0, err
	}
	return withPath(t, a[0], a[1], follow(flags), func(p vfs.Path) error { return vfs.SetMountAttr(t, p, *m, flags&unix.AT_RECURSIVE != 0) })
}

// mountAttr is the struct mount_attr at addr; nil if it changes nothing: E2BIG, EINVAL, EPERM, EFAULT.
func mountAttr(t *kernel.Task, addr, size kernel.Arg) (*vfs.MountAttr, error) {
	const propagation = unix.MS_UNBINDABLE | unix.MS_PRIVATE | unix.MS_SLAVE | unix.MS_SHARED
	switch {
	case size.Uint64() > hostarch.PageSize:
		return nil, unix.E2BIG
	case size.Uint64() < 32:
		return nil, unix.EINVAL
	}
	if err := vfs.MayMount(t); err != nil {
		return nil, err
	}
	b, err := copyInSized(t, addr, size, 32)
	if err != nil {
		return nil, err
	}
	le := hostarch.ByteOrder
	set, clear, prop := le.Uint64(b), le.Uint64(b[8:]), le.Uint64(b[16:])
	if set|clear|prop == 0 {
		return nil, nil
	}
	m := vfs.MountAttr{Set: attrFlags(set), Clear: attrFlags(clear), Propagation: prop}
	switch clear & unix.MOUNT_ATTR__ATIME {
	case unix.MOUNT_ATTR__ATIME:
		atime, err := atimeFlags(set)
		if err != nil {
			return nil, err
		}
		m.Set |= atime
		m.Clear |= unix.ST_NOATIME | unix.ST_RELATIME
	case 0:
		if set&unix.MOUNT_ATTR__ATIME != 0 {
			return nil, unix.EINVAL
		}
	default:
		return nil, unix.EINVAL
	}
	if prop&^propagation != 0 || prop&(prop-1) != 0 || (set|clear)&^attrKnown != 0 {
		return nil, unix.EINVAL
	}
	return &m, nil
}
