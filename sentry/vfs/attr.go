package vfs

import (
	"strings"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"moat/sentry/kernel/auth"
)

// changeAttr wraps a change of p's inode: read-only mounts, notification.
func changeAttr(p Path, fn func() error) error {
	if err := p.Mount.beginWrite(); err != nil {
		return err
	}
	defer p.Mount.endWrite()
	if err := fn(); err != nil {
		return err
	}
	Notify(p.Dentry, InAttrib)
	return nil
}

// Chmod is fchmodat(2). EOPNOTSUPP for a symlink.
func Chmod(ctx Context, p Path, mode uint16) error {
	return changeAttr(p, func() error {
		i := p.Inode()
		if isLink(i) || i == Inode(anonIno) {
			return unix.EOPNOTSUPP
		}
		a, err := i.Attr(ctx)
		if err != nil {
			return err
		}
		c := ctx.Credentials()
		if !ownerOr(c, &a) || immutable(i) {
			return unix.EPERM
		}
		mode &= 0o7777
		if !c.InGroup(a.GID) && !capableOver(c, &a, linux.CAP_FSETID) {
			mode &^= unix.S_ISGID
		}
		return i.SetAttr(ctx, SetAttr{Valid: SetMode, Mode: mode})
	})
}

// Chown is fchownat(2); auth.NoID leaves an ID as it is.
func Chown(ctx Context, p Path, uid auth.KUID, gid auth.KGID) error {
	return changeAttr(p, func() error {
		i := p.Inode()
		a, err := i.Attr(ctx)
		if err != nil {
			return err
		}
		if i == Inode(anonIno) {
			return unix.EOPNOTSUPP
		}
		if immutable(i) && (uint32(uid) != auth.NoID || uint32(gid) != auth.NoID) {
			return unix.EPERM
		}
		c := ctx.Credentials()
		var set SetAttr
		capable := capableOver(c, &a, linux.CAP_CHOWN)
		if uint32(uid) != auth.NoID {
			if !capable && (c.FSUID != a.UID || uid != a.UID) {
				return unix.EPERM
			}
			set.Valid |= SetUID
			set.UID = uid
		}
		if uint32(gid) != auth.NoID {
			if !capable && (c.FSUID != a.UID || gid != a.GID && !c.InGroup(gid)) {
				return unix.EPERM
			}
			set.Valid |= SetGID
			set.GID = gid
		}
		if a.FileType() != unix.S_IFDIR {
			// chown always ends set-id bits (fs/open.c chown_common).
			if n := dropSetID(a.Mode); n != a.Mode {
				if !ownerOr(c, &a) {
					return unix.EPERM
				}
				set.Valid |= SetMode
				set.Mode = n & 0o7777
			}
			if a.FileType() == unix.S_IFREG {
				if err := i.RemoveXattr(ctx, "security.capability"); err == unix.EROFS || err == unix.EIO {
					return err
				}
			}
		}
		if set.Valid == 0 {
			set.Valid = SetCtimeOnly
		}
		return i.SetAttr(ctx, set)
	})
}

// Utimes is utimensat(2): set's Atime and Mtime are changed as Valid says. touch: to the present, for which
// write permission is enough.
func Utimes(ctx Context, p Path, set SetAttr, touch bool) error {
	return changeAttr(p, func() error {
		i := p.Inode()
		if immutable(i) {
			return unix.EPERM
		}
		if !ownerOrCapable(ctx, i) {
			if !touch {
				return unix.EPERM
			}
			if err := Permission(ctx, i, MayWrite); err != nil {
				return err
			}
		}
		return i.SetAttr(ctx, set)
	})
}

// Truncate is truncate(2).
func Truncate(ctx Context, p Path, size int64) error {
	i := p.Inode()
	switch i.Mode() & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFDIR:
		return unix.EISDIR
	default:
		return unix.EINVAL
	}
	if size < 0 {
		return unix.EINVAL
	}
	if err := p.Mount.beginWrite(); err != nil {
		return err
	}
	defer p.Mount.endWrite()
	if err := Permission(ctx, i, MayWrite); err != nil {
		return err
	}
	if err := getWrite(i); err != nil {
		return err
	}
	defer putWrite(i)
	if err := breakLeases(ctx, i, unix.O_WRONLY); err != nil {
		return err
	}
	if err := truncateInode(ctx, i, size); err != nil {
		return err
	}
	Notify(p.Dentry, InModify)
	return nil
}

// Truncate is ftruncate(2).
func (fd *FileDescription) Truncate(ctx Context, size int64) error {
	if fd.pathOnly {
		return unix.EBADF
	}
	i := fd.Inode()
	if size < 0 || i.Mode()&unix.S_IFMT != unix.S_IFREG || !fd.Writable() {
		return unix.EINVAL
	}
	if err := truncateInode(ctx, i, size); err != nil {
		return err
	}
	fd.notify(InModify)
	return nil
}

// MayGrow is inode_newsize_ok: EFBIG, and SIGXFSZ, if size is more than i has and RLIMIT_FSIZE allows.
func MayGrow(ctx Context, i Inode, size int64) error {
	if uint64(size) <= ctx.FileSizeLimit() {
		return nil
	}
	a, err := i.Attr(ctx)
	if err == nil && size > a.Size {
		ctx.SendSIGXFSZ()
		err = unix.EFBIG
	}
	return err
}

func truncateInode(ctx Context, i Inode, size int64) error {
	if err := MayGrow(ctx, i, size); err != nil {
		return err
	}
	set := SetAttr{Valid: SetSize, Size: size}
	if mode := i.Mode(); mode&(unix.S_ISUID|unix.S_ISGID) != 0 && !ctx.Credentials().HasCap(linux.CAP_FSETID) {
		if n := dropSetID(mode); n != mode {
			set.Valid |= SetMode
			set.Mode = n & 0o7777
		}
	}
	return i.SetAttr(ctx, set)
}

// Access is faccessat(2) with the effective IDs of ctx.
func Access(ctx Context, p Path, may uint) error {
	i := p.Inode()
	if may&MayExec != 0 && i.Mode()&unix.S_IFMT == unix.S_IFREG && p.Mount.Flags()&unix.ST_NOEXEC != 0 {
		return unix.EACCES
	}
	if err := Permission(ctx, i, may); err != nil {
		return err
	}
	if may&MayWrite != 0 && p.Mount.ReadOnly() {
		switch i.Mode() & unix.S_IFMT {
		case unix.S_IFREG, unix.S_IFDIR, unix.S_IFLNK:
			return unix.EROFS
		}
	}
	return nil
}

// Readlink is readlinkat(2): EINVAL unless p is a symlink.
func Readlink(ctx Context, p Path) (string, error) {
	if !isLink(p.Inode()) {
		return "", unix.EINVAL
	}
	return p.Inode().Readlink(ctx)
}

// Stat is statx(2)'s source.
func Stat(ctx Context, p Path) (Attr, error) { return p.Inode().Attr(ctx) }

// StatFS is statfs(2).
func StatFS(ctx Context, p Path) (linux.Statfs, error) {
	st, err := p.Mount.FS().StatFS(ctx)
	if err != nil {
		return st, err
	}
	st.Flags = uint64(p.Mount.Flags()) | linux.ST_VALID
	if p.Mount.ReadOnly() {
		st.Flags |= unix.ST_RDONLY
	}
	dev := p.Mount.FS().Dev()
	if st.FSID == [2]int32{} {
		st.FSID = [2]int32{int32(dev), int32(dev >> 32)}
	}
	return st, nil
}

// xattrPermission is xattr_permission of fs/xattr.c.
func xattrPermission(ctx Context, i Inode, name string, may uint) error {
	switch {
	case strings.HasPrefix(name, "system."):
		return nil
	case strings.HasPrefix(name, "security."):
		// security/commoncap.c cap_inode_setxattr
		need := linux.Capability(linux.CAP_SYS_ADMIN)
		if name == "security.capability" {
			need = linux.CAP_SETFCAP
		}
		if may == MayWrite && !ctx.Credentials().HasCap(need) {
			return unix.EPERM
		}
		return nil
	case strings.HasPrefix(name, "trusted."):
		if !ctx.Credentials().Capable(linux.CAP_SYS_ADMIN) {
			if may == MayWrite {
				return unix.EPERM
			}
			return unix.ENODATA
		}
		return nil
	case strings.HasPrefix(name, "user."):
		t := i.Mode() & unix.S_IFMT
		if t != unix.S_IFREG && t != unix.S_IFDIR {
			if may == MayWrite {
				return unix.EPERM
			}
			return unix.ENODATA
		}
		if t == unix.S_IFDIR && i.Mode()&unix.S_ISVTX != 0 && may == MayWrite && !ownerOrCapable(ctx, i) {
			return unix.EPERM
		}
	}
	return Permission(ctx, i, may)
}

// GetXattr is getxattr(2).
func GetXattr(ctx Context, p Path, name string) ([]byte, error) {
	if err := xattrPermission(ctx, p.Inode(), name, MayRead); err != nil {
		return nil, err
	}
	return p.Inode().GetXattr(ctx, name)
}

// SetXattr is setxattr(2).
func SetXattr(ctx Context, p Path, name string, value []byte, flags uint32) error {
	return changeAttr(p, func() error {
		if err := xattrPermission(ctx, p.Inode(), name, MayWrite); err != nil {
			return err
		}
		return p.Inode().SetXattr(ctx, name, value, flags)
	})
}

// ListXattr is listxattr(2); trusted.* only for those who may read them.
func ListXattr(ctx Context, p Path) ([]string, error) {
	l, err := p.Inode().ListXattr(ctx)
	if err != nil || ctx.Credentials().HasCap(linux.CAP_SYS_ADMIN) {
		return l, err
	}
	out := l[:0]
	for _, n := range l {
		if !strings.HasPrefix(n, "trusted.") {
			out = append(out, n)
		}
	}
	return out, nil
}

// RemoveXattr is removexattr(2).
func RemoveXattr(ctx Context, p Path, name string) error {
	return changeAttr(p, func() error {
		if err := xattrPermission(ctx, p.Inode(), name, MayWrite); err != nil {
			return err
		}
		return p.Inode().RemoveXattr(ctx, name)
	})
}
