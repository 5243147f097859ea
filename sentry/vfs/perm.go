package vfs

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"moat/sentry/kernel/auth"
)

func isDir(i Inode) bool  { return i.Mode()&unix.S_IFMT == unix.S_IFDIR }
func isLink(i Inode) bool { return i.Mode()&unix.S_IFMT == unix.S_IFLNK }

// Immutable is an inode that nobody may change (S_IMMUTABLE): what would is EPERM.
type Immutable interface{ Immutable() }

func immutable(i Inode) bool {
	_, ok := i.(Immutable)
	return ok
}

// FixedNames is a file system in whose directories nothing can be made: a name that is not there is ENOENT for all.
type FixedNames interface{ FixedNames() }

func (d *Dentry) fixedNames() bool {
	_, ok := d.sb.fs.(FixedNames)
	return ok
}

// capableOver reports whether c has cap over an inode with these owners: both must be mapped in c's user namespace
// (capable_wrt_inode_uidgid).
func capableOver(c *auth.Credentials, a *Attr, cap linux.Capability) bool {
	if !c.HasCap(cap) {
		return false
	}
	ns := c.UserNS
	return ns.MapFromKUID(a.UID) != auth.NoID && ns.MapFromKGID(a.GID) != auth.NoID
}

// Permission is inode_permission: whether ctx may access i as may (MayRead, ...) says, mounts aside. EACCES.
func Permission(ctx Context, i Inode, may uint) error {
	return permission(ctx, ctx.Credentials(), i, may)
}

func permission(ctx Context, c *auth.Credentials, i Inode, may uint) error {
	if may&MayWrite != 0 && immutable(i) {
		return unix.EPERM
	}
	if pc, ok := i.(PermissionChecker); ok {
		return pc.Permission(ctx, c, may)
	}
	return GenericPermission(ctx, c, i, may)
}

// GenericPermission is the check by mode, owner and capabilities (generic_permission).
func GenericPermission(ctx Context, c *auth.Credentials, i Inode, may uint) error {
	mode := uint(i.Mode())
	dir := mode&unix.S_IFMT == unix.S_IFDIR
	override := c.Capable(linux.CAP_DAC_OVERRIDE)
	if override && (dir || may&MayExec == 0) {
		return nil
	}
	known := i.FS().CachePolicy() != CacheRevalidate // else others may have changed it
	if known && (may&^(mode>>6&mode>>3&mode) == 0 || override && mode&0o111 != 0) {
		return nil // everybody may
	}
	a, err := i.Attr(ctx)
	if err != nil {
		return err
	}
	mode = uint(a.Mode)
	bits := uint(a.Mode)
	switch {
	case a.UID == c.FSUID:
		bits >>= 6
	case c.InGroup(a.GID):
		bits >>= 3
	}
	if may&^bits&7 == 0 {
		return nil
	}
	if dir {
		if may&MayWrite == 0 && capableOver(c, &a, linux.CAP_DAC_READ_SEARCH) || capableOver(c, &a, linux.CAP_DAC_OVERRIDE) {
			return nil
		}
		return unix.EACCES
	}
	if may == MayRead && capableOver(c, &a, linux.CAP_DAC_READ_SEARCH) {
		return nil
	}
	if (may&MayExec == 0 || mode&0o111 != 0) && capableOver(c, &a, linux.CAP_DAC_OVERRIDE) {
		return nil
	}
	return unix.EACCES
}

// ownerOrCapable is inode_owner_or_capable: ctx owns i, or has CAP_FOWNER over it.
func ownerOrCapable(ctx Context, i Inode) bool {
	a, err := i.Attr(ctx)
	if err != nil {
		return false
	}
	return ownerOr(ctx.Credentials(), &a)
}

func ownerOr(c *auth.Credentials, a *Attr) bool {
	return a.UID == c.FSUID || capableOver(c, a, linux.CAP_FOWNER)
}

// killPriv takes the set-id bits away that a write or truncation by an unprivileged caller ends (setattr_should_drop_sgid).
func killPriv(ctx Context, i Inode, mode uint16) error {
	c := ctx.Credentials()
	if c.HasCap(linux.CAP_FSETID) {
		return nil
	}
	n := dropSetID(mode)
	if n == mode {
		return nil
	}
	return i.SetAttr(ctx, SetAttr{Valid: SetMode, Mode: n & 0o7777})
}

// dropSetID is mode without S_ISUID, and without S_ISGID if it is group-executable.
func dropSetID(mode uint16) uint16 {
	mode &^= unix.S_ISUID
	if mode&0o010 != 0 {
		mode &^= unix.S_ISGID
	}
	return mode
}

// mayDelete is may_delete: write and search on dir, and the sticky bit. EACCES, EPERM.
func mayDelete(ctx Context, dir Inode, child Inode) error {
	if err := Permission(ctx, dir, MayWrite|MayExec); err != nil {
		return err
	}
	if dir.Mode()&unix.S_ISVTX == 0 {
		return nil
	}
	c := ctx.Credentials()
	a, err := child.Attr(ctx)
	if err != nil {
		return err
	}
	if a.UID == c.FSUID {
		return nil
	}
	da, err := dir.Attr(ctx)
	if err != nil {
		return err
	}
	if da.UID == c.FSUID || capableOver(c, &a, linux.CAP_FOWNER) {
		return nil
	}
	return unix.EPERM
}
