package vfs

import (
	"strconv"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

// OpenOptions are openat2(2)'s struct open_how. The caller has checked the flags (build_open_flags).
type OpenOptions struct {
	Flags   uint32
	Mode    uint16
	Resolve uint32 // RESOLVE_*
}

// Open is openat(2) relative to start.
func Open(ctx Context, start Path, path string, o OpenOptions) (*FileDescription, error) {
	w := walker{}
	flags := o.Resolve
	if o.Flags&unix.O_NOFOLLOW == 0 && o.Flags&(unix.O_CREAT|unix.O_EXCL) != unix.O_CREAT|unix.O_EXCL {
		flags |= Follow
	}
	if o.Flags&unix.O_DIRECTORY != 0 {
		flags |= Directory
	}
	if o.Flags&(unix.O_ACCMODE|unix.O_PATH|unix.O_DIRECTORY|unix.O_TRUNC) == unix.O_RDONLY {
		flags |= WillOpen
	}
	if err := w.begin(ctx, start, path, flags); err != nil {
		return nil, err
	}
	defer func() { w.done() }()
	if o.Flags&unix.O_TMPFILE == unix.O_TMPFILE {
		return w.openTmpfile(path, o)
	}
	if o.Flags&unix.O_CREAT == 0 || o.Flags&unix.O_PATH != 0 {
		if err := w.resolve(path); err != nil {
			return nil, err
		}
		return openPath(ctx, w.at, o.Flags, false)
	}
	created, err := w.resolveCreate(path, o)
	if err != nil {
		return nil, err
	}
	return openPath(ctx, w.at, o.Flags, created)
}

// resolveCreate is resolve for O_CREAT.
func (w *walker) resolveCreate(path string, o OpenOptions) (created bool, err error) {
	if path == "" {
		return false, unix.ENOENT
	}
	for {
		last, slash, err := w.parent(path)
		if err != nil {
			return false, err
		}
		if last == "" || last == "." || last == ".." {
			if o.Flags&unix.O_EXCL != 0 {
				return false, unix.EEXIST
			}
			return false, unix.EISDIR
		}
		if slash {
			return false, unix.EISDIR
		}
		target, err := w.step(last, w.flags&Follow != 0)
		if err == unix.ENOENT {
			created, err = w.create(last, o)
			if err == unix.EEXIST && o.Flags&unix.O_EXCL == 0 || err == nil && !created {
				path = last // somebody else was first; it may be a symlink
				continue
			}
			return created, err
		}
		if err != nil {
			return false, err
		}
		if target == "" {
			if o.Flags&unix.O_EXCL != 0 {
				return false, unix.EEXIST
			}
			return false, nil
		}
		if err := w.rebase(target); err != nil {
			return false, err
		}
		path = target
	}
}

// create makes the regular file name in the directory that w is at and moves w to it; false if it exists by now.
// +checklocksignore: lockOps locks only if it succeeds.
func (w *walker) create(name string, o OpenOptions) (bool, error) {
	dir := w.at
	if dir.Dentry.fixedNames() {
		return false, unix.ENOENT
	}
	if err := dir.Mount.beginWrite(); err != nil {
		return false, err
	}
	defer dir.Mount.endWrite()
	d := dir.Dentry
	if err := d.lockOps(); err != nil {
		return false, err
	}
	defer d.dir.ops.Unlock()
	if c, err := d.lookup(w.ctx, name); err != unix.ENOENT {
		if err == nil {
			c.DecRef()
		}
		return false, err
	}
	if err := d.mayCreate(w.ctx); err != nil {
		return false, err
	}
	opts, err := NewCreateOptions(w.ctx, d.inode, unix.S_IFREG|o.Mode&0o7777)
	if err != nil {
		return false, err
	}
	inode, err := d.inode.Create(w.ctx, name, opts)
	if err != nil {
		return false, err
	}
	c, err := d.added(name, inode)
	if err != nil {
		return false, err
	}
	w.at = Path{dir.Mount, c}
	d.DecRef() // w held it; the child holds it now
	return true, nil
}

// NewCreateOptions computes owner and mode of a new inode in dir: umask, set-group-id directories (inode_init_owner).
func NewCreateOptions(ctx Context, dir Inode, mode uint16) (CreateOptions, error) {
	c := ctx.Credentials()
	o := CreateOptions{Mode: mode &^ (ctx.Umask() & 0o777), UID: c.FSUID, GID: c.FSGID}
	if mode&unix.S_IFMT == unix.S_IFLNK {
		o.Mode = mode
	}
	if dir.Mode()&unix.S_ISGID != 0 {
		a, err := dir.Attr(ctx)
		if err != nil {
			return o, err
		}
		o.GID = a.GID
		if mode&unix.S_IFMT == unix.S_IFDIR {
			o.Mode |= unix.S_ISGID
		} else if o.Mode&(unix.S_ISGID|0o010) == unix.S_ISGID|0o010 && !c.InGroup(a.GID) && !capableOver(c, &a, linux.CAP_FSETID) {
			o.Mode &^= unix.S_ISGID
		}
	}
	return o, nil
}

func (w *walker) openTmpfile(path string, o OpenOptions) (*FileDescription, error) {
	w.flags |= Directory
	if err := w.resolve(path); err != nil {
		return nil, err
	}
	dir := w.at
	if err := dir.Mount.beginWrite(); err != nil {
		return nil, err
	}
	defer dir.Mount.endWrite()
	if err := dir.Dentry.mayCreate(w.ctx); err != nil {
		return nil, err
	}
	tm, ok := dir.Inode().(TmpfileMaker)
	if !ok {
		return nil, unix.EOPNOTSUPP
	}
	opts, err := NewCreateOptions(w.ctx, dir.Inode(), unix.S_IFREG|o.Mode&0o7777)
	if err != nil {
		return nil, err
	}
	inode, err := tm.Tmpfile(w.ctx, opts)
	if err != nil {
		return nil, err
	}
	if !attach(inode) {
		return nil, unix.ESTALE
	}
	a, err := inode.Attr(w.ctx)
	if err != nil {
		detach(inode)
		return nil, err
	}
	d := newDentry(dir.Dentry.sb, dir.Dentry, "#"+strconv.FormatUint(a.Ino, 10), inode)
	d.flags.Or(dUnhashed | dDeleted)
	if o.Flags&unix.O_EXCL != 0 {
		d.flags.Or(dUnlinkable)
	}
	defer d.DecRef()
	return openPath(w.ctx, Path{dir.Mount, d}, o.Flags&^unix.O_EXCL|unix.O_TMPFILE, true)
}

// pathFile is the FileImpl of O_PATH files.
type pathFile struct{ FileDefaults }

// accMode is what open needs for flags.
func accMode(flags uint32) uint {
	may := [...]uint{MayRead, MayWrite, MayRead | MayWrite, MayRead | MayWrite}[flags&unix.O_ACCMODE]
	if flags&unix.O_TRUNC != 0 {
		may |= MayWrite
	}
	return may
}

// OpenPath opens what p names; p keeps its references. For /proc/PID/fd-like reopening, and execve (see OpenExec).
func OpenPath(ctx Context, p Path, flags uint32) (*FileDescription, error) {
	return openPath(ctx, p, flags, false)
}

// openPath is do_open: created files need no permission.
func openPath(ctx Context, p Path, flags uint32, created bool) (*FileDescription, error) {
	inode := p.Inode()
	mode := inode.Mode()
	typ := mode & unix.S_IFMT
	if flags&unix.O_PATH != 0 {
		fd := NewFile(ctx.Credentials(), &pathFile{}, p.IncRef(), flags&(unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW))
		fd.pathOnly = true
		return fd, nil
	}
	may := accMode(flags)
	trunc := flags&unix.O_TRUNC != 0 && typ == unix.S_IFREG && !created
	switch typ {
	case unix.S_IFLNK:
		return nil, unix.ELOOP
	case unix.S_IFDIR:
		if may&MayWrite != 0 || flags&unix.O_CREAT != 0 {
			return nil, unix.EISDIR
		}
	case unix.S_IFCHR, unix.S_IFBLK:
		if p.Mount.Flags()&unix.ST_NODEV != 0 {
			return nil, unix.EACCES
		}
	}
	if !created {
		if may&MayWrite != 0 && p.Mount.ReadOnly() && (typ == unix.S_IFREG || typ == unix.S_IFDIR) {
			return nil, unix.EROFS
		}
		if err := Permission(ctx, inode, may); err != nil {
			return nil, err
		}
	}
	if flags&unix.O_NOATIME != 0 && !ownerOrCapable(ctx, inode) {
		return nil, unix.EPERM
	}
	if typ == unix.S_IFDIR && flags&unix.O_DIRECT != 0 {
		return nil, unix.EINVAL
	}
	return openFile(ctx, p, flags, trunc)
}

// openFile opens after the checks: it counts writers, truncates, and asks the file system.
func openFile(ctx Context, p Path, flags uint32, trunc bool) (_ *FileDescription, err error) {
	inode := p.Inode()
	typ := inode.Mode() & unix.S_IFMT
	wrote := false
	defer func() {
		if err != nil && wrote {
			p.endWrite()
		}
	}()
	if (accMode(flags)&MayWrite != 0 || trunc) && typ == unix.S_IFREG {
		if err := p.beginWrite(); err != nil {
			return nil, err
		}
		wrote = true
	}
	if err := breakLeases(ctx, inode, flags); err != nil {
		return nil, err
	}
	if trunc {
		if err := truncateInode(ctx, inode, 0); err != nil {
			return nil, err
		}
		Notify(p.Dentry, InModify)
	}
	flags &^= unix.O_CREAT | unix.O_EXCL | unix.O_TRUNC | unix.O_CLOEXEC
	var impl FileImpl
	switch typ {
	case unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO, unix.S_IFSOCK:
		impl, err = OpenSpecial(ctx, p, flags)
	default:
		impl, err = inode.Open(ctx, p.Dentry, flags)
	}
	if err != nil {
		return nil, err
	}
	if wrote && accMode(flags)&MayWrite == 0 { // it was for O_TRUNC
		p.endWrite()
		wrote = false
	}
	fd := NewFile(ctx.Credentials(), impl, p.IncRef(), flags)
	fd.wrote = wrote
	if typ == unix.S_IFREG && !wrote {
		fd.countReader()
	}
	fd.notify(InOpen)
	return fd, nil
}

// OpenExec opens the program at p for execve(2): EACCES unless it is a regular file that ctx may execute on a mount that allows it, ETXTBSY
// while it is open for writing. Until the file is released nobody can open it for writing.
func OpenExec(ctx Context, p Path) (*FileDescription, error) {
	inode := p.Inode()
	if inode.Mode()&unix.S_IFMT != unix.S_IFREG || p.Mount.Flags()&unix.ST_NOEXEC != 0 {
		return nil, unix.EACCES
	}
	if err := Permission(ctx, inode, MayExec); err != nil {
		return nil, err
	}
	if err := denyWrite(inode); err != nil {
		return nil, err
	}
	var impl FileImpl
	err := breakLeases(ctx, inode, unix.O_RDONLY)
	if err == nil {
		impl, err = inode.Open(ctx, p.Dentry, unix.O_RDONLY)
	}
	if err != nil {
		allowWrite(inode)
		return nil, err
	}
	fd := NewFile(ctx.Credentials(), impl, p.IncRef(), unix.O_RDONLY)
	fd.denied = true
	fd.countReader()
	fd.notify(InOpen)
	return fd, nil
}
