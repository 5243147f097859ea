package gofer

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"moat/fsgofer/wire"
	"moat/sentry/vfs"
)

// Lookup implements vfs.Inode.
func (i *inode) Lookup(_ vfs.Context, name string) (vfs.Inode, error) {
	if f, ok := i.foundAhead(name, 0); ok {
		c := i.fs.inodeOf(&f.node, i, name)
		c.found(&f)
		return c, nil
	}
	if c, err, ok := i.fromList(name); ok {
		return c, err
	}
	if c, err, ok := i.takeAhead(name); ok {
		return c, err
	}
	if i.missed() {
		if c, err, ok := i.fromList(name); ok {
			return c, err
		}
	}
	n, err := i.walkOne(name, nil)
	if err != nil {
		return nil, err
	}
	return i.fs.inodeOf(&n, i, name), nil
}

// Revalidate implements vfs.Revalidator. On a shared mount a name that was found true is so as long as the directory has the same change time.
func (i *inode) Revalidate(_ vfs.Context, name string, child vfs.Inode, proof *atomic.Int64) (bool, error) {
	c, _ := child.(*inode)
	epoch := i.changeTime()
	proven := epoch != 0 && epoch == proof.Load()
	if !proven || c.blind() {
		if f, ok := i.foundAhead(name, epoch); ok {
			if c == nil || !c.still(&f.node.Attr) {
				unix.Close(f.fd)
				return false, nil
			}
			c.adopt(&f.node.Attr)
			c.relocate(i, name)
			c.found(&f)
			proof.Store(epoch)
			return true, nil
		}
	}
	if proven {
		if c != nil {
			c.relocate(i, name)
			c.mu.Lock()
			c.fetched = time.Time{} // attributes from before are not of now
			c.mu.Unlock()
		}
		return true, nil
	}
	epoch = i.asOf(epoch, 0) // the gofer waits for changes that are under way
	n, err := i.walkOne(name, &epoch)
	if err == unix.ENOENT {
		proof.Store(epoch)
		return child == nil, nil
	}
	if err != nil {
		return false, err
	}
	if c == nil || !c.still(&n.Attr) {
		i.fs.c.CloseHandle(n.Handle, false)
		return false, nil
	}
	c.adopt(&n.Attr)
	c.relocate(i, name)
	c.foundHandle(n.Handle)
	proof.Store(epoch)
	if c.key.btime != n.Attr.Btime && c.isFile() && !i.fs.shared {
		// Perhaps it is another file, with the number of one that was gone.
		c.markStale()
		return true, c.refresh()
	}
	return true, nil
}

// changeTime is that which the directory has now; 0: there is none to tell by.
func (i *inode) changeTime() int64 {
	if !i.fs.shared || !i.fs.timed || i.key.dev != i.fs.root.key.dev {
		return 0
	}
	t, _ := i.lookAt(true)
	if t == 0 && i.fetch(true, 0) == nil {
		t, _ = i.lookAt(true)
	}
	return t
}

// same reports whether attributes are of i. On an exclusive mount a file has another time of birth once an overlay of the host has copied it up for being changed.
func (i *inode) same(a *wire.Attr) bool {
	k := keyOf(a)
	if !i.fs.shared {
		k.btime = i.key.btime
	}
	return k == i.key && (i.mode.Load()^a.Mode)&unix.S_IFMT == 0
}

// still is same for what has the name of i now. Where the overlay is of several file systems the file has another number, too: it is the same if it had not lost its name.
func (i *inode) still(a *wire.Attr) bool {
	if i.fs.shared || i.same(a) || (i.mode.Load()^a.Mode)&unix.S_IFMT != 0 {
		return i.same(a)
	}
	if i.isDir() {
		var req wire.RefReq
		var rep wire.AttrRep
		return i.handle.Load() != nil && i.request(wire.OpGetAttr, &req, &rep, &req.Ref) == nil && rep.Attr.Nlink > 0
	}
	var st unix.Stat_t
	h := i.rw.Load()
	if h == nil || !h.tryIncRef() {
		return false
	}
	defer h.decRef()
	return unix.Fstat(h.fd, &st) == nil && st.Nlink > 0
}

// changed notes that name in the directory is another now, and the directory's attributes.
func (i *inode) changed(a *wire.Attr, name string) {
	i.outdate(name)
	i.adopt(a)
}

// outdate notes that what is known of name is no longer true.
func (i *inode) outdate(name string) {
	i.fs.changes.Add(1)
	i.changes.Add(1)
	if l := i.list.Load(); l != nil && !l.outdated.add(name) {
		i.list.CompareAndSwap(l, nil)
	}
	if o := i.opened.Load(); o != nil {
		o.drop(name)
	}
}

// Create implements vfs.Inode.
func (i *inode) Create(_ vfs.Context, name string, o vfs.CreateOptions) (vfs.Inode, error) {
	if t := o.Mode & unix.S_IFMT; t != unix.S_IFREG && t != 0 {
		return i.make(name, "", uint32(o.Mode), o)
	}
	return i.create(name, o)
}

// maker is a handle of i, in which something is made, and how the gofer has its owner.
func (i *inode) maker(o vfs.CreateOptions) (h *handle, uid, gid uint32, err error) {
	if uid, gid, err = i.fs.giveTo(o.UID, o.GID, vfs.SetUID|vfs.SetGID); err == nil {
		h, err = i.getHandle()
	}
	return h, uid, gid, err
}

// create makes a regular file; without a name, one for which only a handle exists.
func (i *inode) create(name string, o vfs.CreateOptions) (vfs.Inode, error) {
	h, uid, gid, err := i.maker(o)
	if err != nil {
		return nil, err
	}
	defer h.decRef()
	req := wire.CreateReq{Dir: h.h, Name: name, Mode: uint32(o.Mode & 0o7777), UID: uid, GID: gid}
	var rep wire.NodeRep
	fd, err := i.fs.callFD(wire.OpCreate, &req, &rep)
	if err != nil {
		return nil, err
	}
	handle := rep.Node.Handle
	rep.Node.Handle = 0
	var c *inode
	if name == "" {
		c = i.fs.inodeOf(&rep.Node, nil, "")
		c.setHandle(handle, true)
	} else {
		i.changed(&rep.Dir, name)
		c = i.fs.inodeOf(&rep.Node, i, name)
	}
	c.install(fd, &c.rw, 0)
	return c, nil
}

// Tmpfile implements vfs.TmpfileMaker.
func (i *inode) Tmpfile(_ vfs.Context, o vfs.CreateOptions) (vfs.Inode, error) {
	return i.create("", o)
}

// Mkdir implements vfs.Inode.
func (i *inode) Mkdir(_ vfs.Context, name string, o vfs.CreateOptions) (vfs.Inode, error) {
	return i.make(name, "", unix.S_IFDIR|uint32(o.Mode&0o7777), o)
}

// Symlink implements vfs.Inode.
func (i *inode) Symlink(_ vfs.Context, name, target string, o vfs.CreateOptions) (vfs.Inode, error) {
	return i.make(name, target, unix.S_IFLNK|0o777, o)
}

func (i *inode) make(name, target string, mode uint32, o vfs.CreateOptions) (vfs.Inode, error) {
	h, uid, gid, err := i.maker(o)
	if err != nil {
		return nil, err
	}
	defer h.decRef()
	req := wire.MakeReq{Dir: h.h, Name: name, Target: target, Mode: mode, UID: uid, GID: gid, Rdev: o.Rdev}
	var rep wire.NodeRep
	if err := i.fs.call(wire.OpMake, &req, &rep); err != nil {
		return nil, err
	}
	i.changed(&rep.Dir, name)
	return i.fs.inodeOf(&rep.Node, i, name), nil
}

// Link implements vfs.Inode.
func (i *inode) Link(_ vfs.Context, name string, target vfs.Inode) error {
	t, ok := target.(*inode)
	if !ok || t.fs != i.fs {
		return unix.EXDEV
	}
	h, err := i.getHandle()
	if err != nil {
		return err
	}
	defer h.decRef()
	err = t.withRef(func(r wire.Ref) error {
		var rep wire.LinkRep
		if err := i.fs.call(wire.OpLink, &wire.LinkReq{Target: r, Dir: h.h, Name: name}, &rep); err != nil {
			return err
		}
		t.adopt(&rep.Attr)
		i.changed(&rep.Dir, name)
		return nil
	})
	if err != nil {
		return err
	}
	t.loc.RLock()
	if t.parent != nil {
		t.parent.outdate(t.name) // it is listed there as a file with one name
	}
	t.loc.RUnlock()
	t.relocate(i, name)
	return nil
}

// Unlink implements vfs.Inode.
func (i *inode) Unlink(_ vfs.Context, name string, child vfs.Inode) error {
	return i.remove(name, child, false)
}

// Rmdir implements vfs.Inode.
func (i *inode) Rmdir(_ vfs.Context, name string, child vfs.Inode) error {
	return i.remove(name, child, true)
}

func (i *inode) remove(name string, child vfs.Inode, rmdir bool) error {
	c := child.(*inode)
	if c.unmapped() {
		return unix.EOVERFLOW
	}
	h, err := i.getHandle()
	if err != nil {
		return err
	}
	defer h.decRef()
	c.loc.Lock()
	defer c.loc.Unlock()
	req := wire.UnlinkReq{Dir: h.h, Name: name, Rmdir: rmdir, Keep: c.keepLocked(i, name)}
	var rep wire.GoneRep
	if err := i.fs.call(wire.OpUnlink, &req, &rep); err != nil {
		return err
	}
	i.changed(&rep.Dir, name)
	c.lostLocked(i, name, rep.Handle)
	return nil
}

// keepLocked reports whether i must be held by a handle when name in dir goes away: it is used, or has other names
// that may not be known, and no handle yet.
// +checklocks:i.loc
func (i *inode) keepLocked(dir *inode, name string) bool {
	if i.handle.Load() != nil || i.parent != dir || i.name != name {
		return false
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.opens.Load() > 0 || i.attr.Nlink > 1 || i.fs.shared
}

// lostLocked notes that name in dir no longer names i; n is the handle that keeps it, if any.
// +checklocks:i.loc
func (i *inode) lostLocked(dir *inode, name string, n wire.Handle) {
	i.setHandle(n, true)
	i.mu.Lock()
	last := i.isDir() || i.attr.Nlink <= 1
	if last {
		i.attr.Nlink = 0
	} else {
		i.attr.Nlink--
	}
	i.staleLocked()
	if i.parent == dir && i.name == name {
		i.parent = nil
		i.gone = i.handle.Load() == nil || i.isDir()
	}
	i.mu.Unlock()
	if last && !i.fs.shared {
		// The host may give the inode number to another file as soon as nobody has this one open.
		i.fs.forget(i)
	}
}

// Rename implements vfs.Inode.
// +checklocksignore: lockTwo.
func (i *inode) Rename(_ vfs.Context, name string, child vfs.Inode, newDir vfs.Inode, newName string, replaced vfs.Inode, flags uint32) error {
	to, ok := newDir.(*inode)
	if !ok || to.fs != i.fs {
		return unix.EXDEV
	}
	c := child.(*inode)
	r, _ := replaced.(*inode)
	if c.unmapped() || r != nil && r.unmapped() {
		return unix.EOVERFLOW
	}
	from, err := i.getHandle()
	if err != nil {
		return err
	}
	defer from.decRef()
	dest, err := to.getHandle()
	if err != nil {
		return err
	}
	defer dest.decRef()
	defer lockTwo(c, r)()
	exchange := flags&unix.RENAME_EXCHANGE != 0
	req := wire.RenameReq{OldDir: from.h, NewDir: dest.h, OldName: name, NewName: newName, Flags: flags}
	if r == nil {
		// VFS has seen that there is nothing; on a shared mount there may be by now.
		if flags == 0 && !i.fs.shared {
			req.Flags = unix.RENAME_NOREPLACE
		}
	} else if !exchange {
		req.Keep = r.keepLocked(to, newName)
	}
	var rep wire.GoneRep
	err = i.fs.call(wire.OpRename, &req, &rep)
	if err == unix.EINVAL && req.Flags != flags {
		req.Flags = flags // a host file system without RENAME_NOREPLACE
		err = i.fs.call(wire.OpRename, &req, &rep)
	}
	if err != nil {
		return err
	}
	i.changed(&rep.Dir, name)
	to.changed(&rep.New, newName)
	if r != nil && exchange {
		r.movedLocked(to, newName, i, name)
		r.markStale()
	} else if r != nil {
		r.lostLocked(to, newName, rep.Handle)
	}
	c.movedLocked(i, name, to, newName)
	c.markStale()
	return nil
}

// movedLocked notes that name in dir became newName in newDir.
// +checklocks:i.loc
func (i *inode) movedLocked(dir *inode, name string, newDir *inode, newName string) {
	if i.parent == nil || i.parent == dir && i.name == name {
		i.parent, i.name = newDir, newName
	}
}

// lockTwo locks the locations of a and b (which may be nil, or a) and returns what unlocks them.
// +checklocksignore
func lockTwo(a, b *inode) func() {
	if b == nil || a == b {
		a.loc.Lock()
		return a.loc.Unlock
	}
	if a.key.ino > b.key.ino || a.key.ino == b.key.ino && a.key.dev > b.key.dev {
		a, b = b, a
	}
	a.loc.Lock()
	b.loc.Lock()
	return func() {
		b.loc.Unlock()
		a.loc.Unlock()
	}
}

// Open implements vfs.Inode.
func (i *inode) Open(_ vfs.Context, _ *vfs.Dentry, flags uint32) (vfs.FileImpl, error) {
	if i.isDir() {
		return &dirFile{inode: i}, nil
	}
	if !i.isFile() {
		return nil, unix.ENXIO
	}
	write := flags&unix.O_ACCMODE != unix.O_RDONLY
	i.opens.Add(1)
	if i.fs.shared && i.fs.opens.Load() < maxOpens {
		i.fs.opens.Add(1)
	}
	h, err := i.getFD(write)
	if err != nil {
		i.opens.Add(-1)
		return nil, err
	}
	return &file{inode: i, h: h}, nil
}
