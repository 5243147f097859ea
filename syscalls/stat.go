package syscalls

import (
	"moat/sentry/kernel"
	"moat/sentry/kernel/auth"
	"moat/sentry/vfs"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

func init() {
	register(
		full(4, "stat", "path stat", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return statAt(t, cwdArg, a[0], a[1], 0) }),
		full(6, "lstat", "path stat", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return statAt(t, cwdArg, a[0], a[1], unix.AT_SYMLINK_NOFOLLOW)
		}),
		full(5, "fstat", "fd stat", sysFstat),
		full(262, "newfstatat", "dirfd path stat atflags", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return statAt(t, a[0], a[1], a[2], a[3].Uint()) }),
		full(332, "statx", "dirfd path atflags hex ptr", sysStatx),
		full(137, "statfs", "path ptr", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return withPath(t, cwdArg, a[0], vfs.Follow, func(p vfs.Path) error { return statfs(t, p, a[1]) })
		}),
		full(138, "fstatfs", "fd ptr", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			f, err := t.GetFileOrPath(a[0].Int())
			if err != nil {
				return 0, err
			}
			defer f.DecRef()
			return 0, statfs(t, f.Path(), a[1])
		}),
		absent(136, "ustat", "obsolete; no device numbers of file systems to ask by"),
		full(21, "access", "path mode", cwd(sysFaccessat)),
		full(269, "faccessat", "dirfd path mode", sysFaccessat),
		full(439, "faccessat2", "dirfd path mode atflags", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return access(t, a[0], a[1], a[2].Uint(), a[3].Uint())
		}),
		full(89, "readlink", "path buf size", cwd(sysReadlinkat)),
		full(267, "readlinkat", "dirfd path buf size", sysReadlinkat),
	)
}

const statFlags = unix.AT_SYMLINK_NOFOLLOW | unix.AT_EMPTY_PATH | unix.AT_NO_AUTOMOUNT
const statSync = 0x6000 // AT_STATX_SYNC_TYPE

func statAt(t *kernel.Task, dirfd, path, buf kernel.Arg, flags uint32) (uintptr, error) {
	if path == 0 && flags&unix.AT_EMPTY_PATH != 0 && dirfd.Int() >= 0 {
		return sysFstat(t, kernel.Args{dirfd, buf}) // the other flags are not looked at (vfs_fstatat)
	}
	if flags&^uint32(statFlags|statSync) != 0 {
		return 0, unix.EINVAL
	}
	return withPathOrNull(t, dirfd, path, flags, func(p vfs.Path) error {
		a, err := vfs.Stat(t, p)
		if err != nil {
			return err
		}
		return putStat(t, buf, &a, p.Mount.FS().Dev())
	})
}

func sysFstat(t *kernel.Task, a kernel.Args) (uintptr, error) {
	f, err := t.GetFileOrPath(a[0].Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	at, err := f.Stat(t)
	if err != nil {
		return 0, err
	}
	return 0, putStat(t, a[1], &at, f.Path().Mount.FS().Dev())
}

// oldDev is new_encode_dev: the low 32 bits that stat and device nodes use.
func oldDev(d uint64) uint64 {
	major, minor := uint64(unix.Major(d)), uint64(unix.Minor(d))
	return minor&0xff | major<<8 | minor&^0xff<<12
}

// putStat copies out struct stat.
func putStat(t *kernel.Task, buf kernel.Arg, a *vfs.Attr, dev uint64) error {
	ns := t.Credentials().UserNS
	st := linux.Stat{Dev: oldDev(dev), Ino: a.Ino, Nlink: uint64(a.Nlink), Mode: uint32(a.Mode), UID: ns.UIDOrOverflow(a.UID), GID: ns.GIDOrOverflow(a.GID),
		Rdev: oldDev(a.Rdev), Size: a.Size, Blksize: int64(a.Blksize), Blocks: a.Blocks,
		ATime: a.Atime.Timespec(), MTime: a.Mtime.Timespec(), CTime: a.Ctime.Timespec()}
	_, err := st.CopyOut(t, buf.Pointer())
	return err
}

func sysStatx(t *kernel.Task, a kernel.Args) (uintptr, error) {
	flags, mask := a[2].Uint(), a[3].Uint()
	if flags&^uint32(statFlags|statSync) != 0 || flags&statSync == statSync || mask&linux.STATX__RESERVED != 0 {
		return 0, unix.EINVAL
	}
	return withPathOrNull(t, a[0], a[1], flags, func(p vfs.Path) error {
		at, err := vfs.Stat(t, p)
		if err != nil {
			return err
		}
		return putStatx(t, a[4], p, &at, mask)
	})
}

// putStatx writes struct statx. The birth time is told if it was asked for, and if neither the change nor the modification time was, these are
// not (fill_mg_cmtime).
func putStatx(t *kernel.Task, buf kernel.Arg, p vfs.Path, a *vfs.Attr, want uint32) error {
	const attrMountRoot = 0x2000
	ns := t.Credentials().UserNS
	dev := p.Mount.FS().Dev()
	mask, mount := uint32(linux.STATX_BASIC_STATS|linux.STATX_MNT_ID), p.Mount.ID()
	if want&unix.STATX_MNT_ID_UNIQUE != 0 {
		mask, mount = linux.STATX_BASIC_STATS|unix.STATX_MNT_ID_UNIQUE, p.Mount.UniqueID()
	}
	if a.Btime != 0 && want&linux.STATX_BTIME != 0 {
		mask |= linux.STATX_BTIME
	}
	if want&(linux.STATX_CTIME|linux.STATX_MTIME) == 0 {
		mask &^= linux.STATX_CTIME | linux.STATX_MTIME
	}
	attrs := a.Attributes
	if p.IsMountRoot() {
		attrs |= attrMountRoot
	}
	st := linux.Statx{Mask: mask, Blksize: uint32(a.Blksize), Attributes: attrs, Nlink: a.Nlink, UID: ns.UIDOrOverflow(a.UID), GID: ns.GIDOrOverflow(a.GID),
		Mode: a.Mode, Ino: a.Ino, Size: uint64(a.Size), Blocks: uint64(a.Blocks), AttributesMask: a.AttributesMask | attrMountRoot | unix.STATX_ATTR_AUTOMOUNT | unix.STATX_ATTR_DAX,
		Atime: linux.NsecToStatxTimestamp(int64(a.Atime)), Btime: linux.NsecToStatxTimestamp(int64(a.Btime)),
		Ctime: linux.NsecToStatxTimestamp(int64(a.Ctime)), Mtime: linux.NsecToStatxTimestamp(int64(a.Mtime)),
		RdevMajor: unix.Major(a.Rdev), RdevMinor: unix.Minor(a.Rdev), DevMajor: unix.Major(dev), DevMinor: unix.Minor(dev), MntID: mount}
	var b [256]byte // with room for what later versions of Linux know
	st.MarshalBytes(b[:])
	_, err := t.CopyOut(buf.Pointer(), b[:])
	return err
}

func statfs(t *kernel.Task, p vfs.Path, buf kernel.Arg) error {
	st, err := vfs.StatFS(t, p)
	if err != nil {
		return err
	}
	_, err = st.CopyOut(t, buf.Pointer())
	return err
}

// realIDs is the caller with other credentials.
type realIDs struct {
	*kernel.Task
	creds *auth.Credentials
}

func (r realIDs) Credentials() *auth.Credentials { return r.creds }

func sysFaccessat(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return access(t, a[0], a[1], a[2].Uint(), 0)
}

// access is faccessat2(2): without AT_EACCESS the real IDs count, and root's capabilities if the real user is root (fs/open.c access_override_creds).
func access(t *kernel.Task, dirfd, path kernel.Arg, mode, flags uint32) (uintptr, error) {
	if mode&^uint32(7) != 0 || flags&^uint32(unix.AT_EACCESS|unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH) != 0 {
		return 0, unix.EINVAL
	}
	w, err := pathOrEmpty(t, dirfd, path, follow(flags))
	if err != nil {
		return 0, err
	}
	defer w.done()
	var ctx vfs.Context = t
	if c := t.Credentials(); flags&unix.AT_EACCESS == 0 && (c.FSUID != c.RUID || c.FSGID != c.RGID || c.Effective != accessCaps(c)) {
		r := *c
		r.FSUID, r.FSGID, r.Effective = c.RUID, c.RGID, accessCaps(c)
		ctx = realIDs{t, &r}
	}
	p, err := w.resolve(ctx, follow(flags))
	if err != nil {
		return 0, err
	}
	defer p.DecRef()
	if mode == 0 {
		return 0, nil
	}
	return 0, vfs.Access(ctx, p, uint(mode))
}

func accessCaps(c *auth.Credentials) auth.CapSet {
	const noSetuidFixup = 1 << 2
	switch {
	case c.SecureBits&noSetuidFixup != 0:
		return c.Effective
	case c.RUID == c.UserNS.MapToKUID(0):
		return c.Permitted
	}
	return 0
}

func sysReadlinkat(t *kernel.Task, a kernel.Args) (uintptr, error) {
	size := a[3].Int()
	if size <= 0 {
		return 0, unix.EINVAL
	}
	w, err := pathOrEmpty(t, a[0], a[1], vfs.EmptyPath)
	if err != nil {
		return 0, err
	}
	defer w.done()
	p, err := w.resolve(t, vfs.EmptyPath)
	if err != nil {
		return 0, err
	}
	defer p.DecRef()
	s, err := vfs.Readlink(t, p)
	if err != nil {
		if err == unix.EINVAL && w.path == "" {
			err = unix.ENOENT
		}
		return 0, err
	}
	n, err := t.CopyOut(a[2].Pointer(), []byte(s[:min(len(s), int(size))]))
	return uintptr(n), err
}
