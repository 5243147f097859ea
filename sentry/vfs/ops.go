package vfs

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"moat/sentry/kernel/auth"
)

// lockOps locks d for a change of its entries: ENOENT if d was removed.
// +checklocksignore: locked only if it succeeds.
func (d *Dentry) lockOps() error {
	d.dir.ops.Lock()
	if d.Deleted() {
		d.dir.ops.Unlock()
		return unix.ENOENT
	}
	return nil
}

// added enters the new inode as name of d, tells watchers, and returns a reference. d.dir.ops is held.
func (d *Dentry) added(name string, inode Inode) (*Dentry, error) {
	if !attach(inode) {
		return nil, unix.ESTALE
	}
	c := d.enter(name, inode, d.dir.version.Load(), true)
	notifyDir(d, InCreate, 0, name, isDir(inode))
	return c, nil
}

// entryKind tells makeEntry what differs: slashes may follow a directory's name, and a link has checks of its own before that of the directory.
type entryKind uint8

const (
	plainEntry entryKind = iota
	dirEntry
	linkEntry
)

// makeEntry is the common part of mkdir, mknod, symlink and link: it resolves the parent, checks, and calls make
// with the directory locked.
// +checklocksignore: lockOps locks only if it succeeds.
func makeEntry(ctx Context, start Path, path string, kind entryKind, make func(dir Path, name string) (Inode, error)) error {
	dir, name, slash, err := ResolveParent(ctx, start, path, 0)
	if err != nil {
		return err
	}
	defer dcache.shrink()
	defer dir.DecRef()
	if name == "" || name == "." || name == ".." {
		return unix.EEXIST
	}
	d := dir.Dentry
	rofs := dir.Mount.beginWrite()
	if rofs == nil {
		defer dir.Mount.endWrite()
	}
	if err := d.lockOps(); err != nil {
		return err
	}
	defer d.dir.ops.Unlock()
	c, err := d.lookupFresh(ctx, name)
	if err == nil {
		c.DecRef()
		return unix.EEXIST
	}
	if err != unix.ENOENT || d.fixedNames() {
		return err
	}
	if slash && kind != dirEntry {
		return unix.ENOENT
	}
	if rofs != nil {
		return rofs
	}
	if kind != linkEntry {
		if err := d.mayCreate(ctx); err != nil {
			return err
		}
	}
	inode, err := make(dir, name)
	if err != nil {
		return err
	}
	c, err = d.added(name, inode)
	if err != nil {
		return err
	}
	c.DecRef()
	return nil
}

// lookupFresh is lookup with revalidation. d.dir.ops is held.
func (d *Dentry) lookupFresh(ctx Context, name string) (*Dentry, error) {
	d.check()
	if c := d.cached(name); c != nil {
		if d.sb.policy == CacheNone || c.sure() {
			return c.found(nil)
		}
		if valid, err := d.revalidate(ctx, name, c); valid || err != nil {
			return c.found(err)
		}
		c.DecRef()
	}
	return d.lookup(ctx, name)
}

// mayCreate is may_create: who is nobody in the user namespace that d's file system was mounted in makes nothing there (EOVERFLOW).
func (d *Dentry) mayCreate(ctx Context) error {
	c := ctx.Credentials()
	if o := d.sb.owner; o != nil && (o.MapFromKUID(c.FSUID) == auth.NoID || o.MapFromKGID(c.FSGID) == auth.NoID) {
		return unix.EOVERFLOW
	}
	return Permission(ctx, d.inode, MayWrite|MayExec)
}

// Mkdir is mkdirat(2).
func Mkdir(ctx Context, start Path, path string, mode uint16) error {
	return makeEntry(ctx, start, path, dirEntry, func(dir Path, name string) (Inode, error) {
		o, err := NewCreateOptions(ctx, dir.Inode(), unix.S_IFDIR|mode&0o1777)
		if err != nil {
			return nil, err
		}
		return dir.Inode().Mkdir(ctx, name, o)
	})
}

// NodeType says whether mknod(2) makes files of a type (may_mknod).
func NodeType(mode uint16) error {
	switch mode & unix.S_IFMT {
	case 0, unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR, unix.S_IFBLK:
	case unix.S_IFDIR:
		return unix.EPERM
	default:
		return unix.EINVAL
	}
	return nil
}

// Mknod is mknodat(2), also for binding sockets (S_IFSOCK).
func Mknod(ctx Context, start Path, path string, mode uint16, rdev uint64) error {
	if err := NodeType(mode); err != nil {
		return err
	}
	return makeEntry(ctx, start, path, plainEntry, func(dir Path, name string) (Inode, error) {
		if err := mayMknod(ctx, mode, rdev); err != nil {
			return nil, err
		}
		if mode&unix.S_IFMT == 0 {
			mode |= unix.S_IFREG
		}
		o, err := NewCreateOptions(ctx, dir.Inode(), mode&(unix.S_IFMT|0o7777))
		if err != nil {
			return nil, err
		}
		o.Rdev = rdev
		return dir.Inode().Create(ctx, name, o)
	})
}

// mayMknod checks who may make device nodes; an overlay whiteout is none.
func mayMknod(ctx Context, mode uint16, rdev uint64) error {
	if t := mode & unix.S_IFMT; t != unix.S_IFCHR && t != unix.S_IFBLK || t == unix.S_IFCHR && rdev == 0 {
		return nil
	}
	if !ctx.Credentials().Capable(linux.CAP_MKNOD) {
		return unix.EPERM
	}
	return mayUseDevice(ctx, 1, mode, rdev)
}

// Symlink is symlinkat(2).
func Symlink(ctx Context, target string, start Path, path string) error {
	if target == "" {
		return unix.ENOENT
	}
	return makeEntry(ctx, start, path, plainEntry, func(dir Path, name string) (Inode, error) {
		o, err := NewCreateOptions(ctx, dir.Inode(), unix.S_IFLNK|0o777)
		if err != nil {
			return nil, err
		}
		return dir.Inode().Symlink(ctx, name, target, o)
	})
}

// Link makes path another name of the file at target: linkat(2).
func Link(ctx Context, target Path, start Path, path string) error {
	return makeEntry(ctx, start, path, linkEntry, func(dir Path, name string) (Inode, error) {
		t := target.Inode()
		if dir.Mount != target.Mount {
			return nil, unix.EXDEV
		}
		if err := mayLink(ctx, t); err != nil {
			return nil, err
		}
		if err := dir.Dentry.mayCreate(ctx); err != nil {
			return nil, err
		}
		if isDir(t) {
			return nil, unix.EPERM
		}
		if target.Dentry.flags.Load()&dUnlinkable != 0 {
			return nil, unix.ENOENT
		}
		if err := dir.Inode().Link(ctx, name, t); err != nil {
			return nil, err
		}
		notifyLinks(t)
		return t, nil
	})
}

// notifyLinks tells watchers of i itself that its link count changed.
func notifyLinks(i Inode) {
	if watchTotal.Load() != 0 {
		deliver(i, InAttrib, 0, "", false)
	}
}

// mayLink is may_linkat with fs.protected_hardlinks=1: who does not own a file links it only if it is regular, without set-id bits, and his to read and
// write.
func mayLink(ctx Context, i Inode) error {
	if ownerOrCapable(ctx, i) {
		return nil
	}
	mode := i.Mode()
	if mode&unix.S_IFMT != unix.S_IFREG || mode&unix.S_ISUID != 0 || mode&(unix.S_ISGID|0o010) == unix.S_ISGID|0o010 ||
		Permission(ctx, i, MayRead|MayWrite) != nil {
		return unix.EPERM
	}
	return nil
}

// Unlink is unlinkat(2) without AT_REMOVEDIR.
func Unlink(ctx Context, start Path, path string) error { return remove(ctx, start, path, false) }

// Rmdir is rmdir(2).
func Rmdir(ctx Context, start Path, path string) error { return remove(ctx, start, path, true) }

// +checklocksignore: lockOps locks only if it succeeds.
func remove(ctx Context, start Path, path string, rmdir bool) error {
	dir, name, slash, err := ResolveParent(ctx, start, path, 0)
	if err != nil {
		return err
	}
	defer dir.DecRef()
	switch {
	case !rmdir && (name == "" || name == "." || name == ".."):
		return unix.EISDIR
	case name == "":
		return unix.EBUSY
	case name == ".":
		return unix.EINVAL
	case name == "..":
		return unix.ENOTEMPTY
	}
	if err := dir.Mount.beginWrite(); err != nil {
		return err
	}
	defer dir.Mount.endWrite()
	d := dir.Dentry
	if err := d.lockOps(); err != nil {
		return err
	}
	c, err := d.lookupFresh(ctx, name)
	if err == nil {
		err = d.removeChild(ctx, c, name, rmdir, slash)
	}
	d.dir.ops.Unlock()
	if c != nil {
		isdir := c.dir != nil
		if err == nil && !rmdir {
			notifyLinks(c.inode)
		}
		if err == nil {
			c.detachMounts()
		}
		c.DecRef() // may release the file: without locks
		if err == nil {
			notifyDir(d, InDelete, 0, name, isdir)
		}
	}
	return err
}

// removeChild removes c, d's entry name. d.dir.ops is held.
func (d *Dentry) removeChild(ctx Context, c *Dentry, name string, rmdir, slash bool) error {
	dir := c.dir != nil
	if slash && !rmdir {
		if dir {
			return unix.EISDIR
		}
		return unix.ENOTDIR
	}
	if err := mayDelete(ctx, d.inode, c.inode); err != nil {
		return err
	}
	switch {
	case rmdir && !dir:
		return unix.ENOTDIR
	case !rmdir && dir:
		return unix.EISDIR
	case c.mountedHere(ctx):
		return unix.EBUSY
	}
	if rmdir {
		c.dir.ops.Lock()
		defer c.dir.ops.Unlock()
		if err := d.inode.Rmdir(ctx, name, c.inode); err != nil {
			return err
		}
	} else if err := d.inode.Unlink(ctx, name, c.inode); err != nil {
		return err
	}
	d.removed(c)
	return nil
}

// removed takes the unlinked c from d's children.
func (d *Dentry) removed(c *Dentry) {
	d.dir.mu.Lock()
	d.unhashLocked(c)
	c.flags.Or(dDeleted)
	d.dir.mu.Unlock()
	if c.dir != nil {
		c.prune() // negative dentries
	}
}
