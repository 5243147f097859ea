package tmpfs

import (
	"slices"
	"sync"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/waiter"
	"moat/sentry/vfs"
)

// directory is a directory. Entries keep their position for life, so that a listing can go on while others change it.
type directory struct {
	inode

	dmu sync.RWMutex
	// parent is for ".."; a removed directory keeps it.
	// +checklocks:dmu
	parent *directory
	// +checklocks:dmu
	entries map[string]*entry
	// order has the entries by off; removed ones stay as tombstones until there are too many.
	// +checklocks:dmu
	order []*entry
	// +checklocks:dmu
	last int64
}

type entry struct {
	name string
	node node // nil: removed
	off  int64
}

// Offsets 0 and 1 are "." and "..".
const firstOff = 2

func (d *directory) find(name string) node {
	d.dmu.RLock()
	defer d.dmu.RUnlock()
	if e := d.entries[name]; e != nil {
		return e.node
	}
	return nil
}

// +checklocks:d.dmu
func (d *directory) insertLocked(name string, n node) {
	if d.entries == nil {
		d.entries = make(map[string]*entry)
	}
	d.last = max(d.last, firstOff-1) + 1
	e := &entry{name: name, node: n, off: d.last}
	d.entries[name] = e
	d.order = append(d.order, e)
	if c, ok := n.(*directory); ok {
		d.mu.Lock()
		d.nlink++
		d.mu.Unlock()
		if c != d {
			c.dmu.Lock()
			c.parent = d
			c.dmu.Unlock()
		}
	}
}

// +checklocks:d.dmu
func (d *directory) removeLocked(name string) {
	e := d.entries[name]
	if e == nil {
		return
	}
	if _, ok := e.node.(*directory); ok {
		d.mu.Lock()
		d.nlink--
		d.mu.Unlock()
	}
	e.node = nil
	delete(d.entries, name)
	if len(d.order) > 64 && len(d.entries) < len(d.order)/2 {
		d.order = slices.DeleteFunc(d.order, func(e *entry) bool { return e.node == nil })
	}
}

func (d *directory) insert(name string, n node, now vfs.Time) {
	d.dmu.Lock()
	d.insertLocked(name, n)
	d.dmu.Unlock()
	d.modified(now)
}

func (d *directory) remove(name string, now vfs.Time) {
	d.dmu.Lock()
	d.removeLocked(name)
	d.dmu.Unlock()
	d.modified(now)
}

func (d *directory) empty() bool {
	d.dmu.RLock()
	defer d.dmu.RUnlock()
	return len(d.entries) == 0
}

// Attr implements vfs.Inode.
func (d *directory) Attr(ctx vfs.Context) (vfs.Attr, error) {
	a, err := d.inode.Attr(ctx)
	d.dmu.RLock()
	a.Size = int64(40 + 20*len(d.entries)) // BOGO_DIRENT_SIZE
	d.dmu.RUnlock()
	return a, err
}

// SetAttr implements vfs.Inode.
func (d *directory) SetAttr(ctx vfs.Context, s vfs.SetAttr) error {
	if s.Valid&vfs.SetSize != 0 {
		return unix.EISDIR
	}
	return d.inode.SetAttr(ctx, s)
}

// Lookup implements vfs.Inode.
func (d *directory) Lookup(_ vfs.Context, name string) (vfs.Inode, error) {
	if n := d.find(name); n != nil {
		return n, nil
	}
	return nil, unix.ENOENT
}

// newNode makes an inode of the type that o.Mode says.
func (fs *FileSystem) newNode(ctx vfs.Context, o vfs.CreateOptions, now vfs.Time) (node, error) {
	if err := fs.newInode(); err != nil {
		return nil, err
	}
	var n node
	switch o.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		n = &regular{acct: fs.mem.AccountOf(ctx), seals: unix.F_SEAL_SEAL} // only memfds are sealed
	case unix.S_IFDIR:
		n = &directory{}
	case unix.S_IFLNK:
		n = &symlink{}
	default:
		n = &special{}
	}
	n.base().init(fs, o, now)
	return n, nil
}

func (d *directory) make(ctx vfs.Context, name string, o vfs.CreateOptions) (node, error) {
	now := ctx.Now()
	if d.find(name) != nil {
		return nil, unix.EEXIST
	}
	n, err := d.fs.newNode(ctx, o, now)
	if err != nil {
		return nil, err
	}
	if c, ok := n.(*directory); ok {
		c.setLinks(2, false)
	}
	d.insert(name, n, now)
	return n, nil
}

// Create implements vfs.Inode.
func (d *directory) Create(ctx vfs.Context, name string, o vfs.CreateOptions) (vfs.Inode, error) {
	n, err := d.make(ctx, name, o)
	if err != nil {
		return nil, err
	}
	return n, nil
}

// Mkdir implements vfs.Inode.
func (d *directory) Mkdir(ctx vfs.Context, name string, o vfs.CreateOptions) (vfs.Inode, error) {
	return d.Create(ctx, name, o)
}

// Symlink implements vfs.Inode.
func (d *directory) Symlink(ctx vfs.Context, name, target string, o vfs.CreateOptions) (vfs.Inode, error) {
	if len(target) >= unix.PathMax {
		return nil, unix.ENAMETOOLONG
	}
	n, err := d.make(ctx, name, o)
	if err != nil {
		return nil, err
	}
	n.(*symlink).target = target // not seen before VFS enters it: VFS holds the directory
	return n, nil
}

// Tmpfile implements vfs.TmpfileMaker.
func (d *directory) Tmpfile(ctx vfs.Context, o vfs.CreateOptions) (vfs.Inode, error) {
	n, err := d.fs.newNode(ctx, o, ctx.Now())
	if err != nil {
		return nil, err
	}
	n.base().setLinks(0, true)
	return n, nil
}

// Link implements vfs.Inode.
func (d *directory) Link(ctx vfs.Context, name string, target vfs.Inode) error {
	n, ok := target.(node)
	if !ok || n.base().fs != d.fs {
		return unix.EXDEV
	}
	now := ctx.Now()
	if d.find(name) != nil {
		return unix.EEXIST
	}
	if err := n.base().addLink(now); err != nil {
		return err
	}
	d.insert(name, n, now)
	return nil
}

// Unlink implements vfs.Inode.
func (d *directory) Unlink(ctx vfs.Context, name string, child vfs.Inode) error {
	n := d.find(name)
	if n == nil || vfs.Inode(n) != child {
		return unix.ENOENT
	}
	now := ctx.Now()
	d.remove(name, now)
	n.base().dropLink(1, now)
	return nil
}

// Rmdir implements vfs.Inode.
func (d *directory) Rmdir(ctx vfs.Context, name string, child vfs.Inode) error {
	c, ok := d.find(name).(*directory)
	if !ok || vfs.Inode(c) != child {
		return unix.ENOENT
	}
	if !c.empty() {
		return unix.ENOTEMPTY
	}
	now := ctx.Now()
	d.remove(name, now)
	c.dropLink(2, now)
	return nil
}

// Rename implements vfs.Inode.
func (d *directory) Rename(ctx vfs.Context, name string, child, newDir vfs.Inode, newName string, replaced vfs.Inode, flags uint32) error {
	nd, ok := newDir.(*directory)
	n, nok := child.(node)
	if !ok || !nok {
		return unix.EXDEV
	}
	now := ctx.Now()
	var r node
	if replaced != nil {
		r = replaced.(node)
	}
	exchange := flags&unix.RENAME_EXCHANGE != 0
	if rd, ok := r.(*directory); ok && !exchange && !rd.empty() {
		return unix.ENOTEMPTY
	}
	var white node
	if flags&unix.RENAME_WHITEOUT != 0 {
		o, err := vfs.NewCreateOptions(ctx, d, unix.S_IFCHR)
		if err == nil {
			white, err = d.fs.newNode(ctx, o, now)
		}
		if err != nil {
			return err
		}
	}
	d.remove(name, now)
	if r != nil {
		nd.remove(newName, now)
	}
	nd.insert(newName, n, now)
	n.base().touchCtime(now)
	switch {
	case exchange:
		d.insert(name, r, now)
		r.base().touchCtime(now)
	case white != nil:
		d.insert(name, white, now)
	}
	if r != nil && !exchange {
		if _, ok := r.(*directory); ok {
			r.base().dropLink(2, now)
		} else {
			r.base().dropLink(1, now)
		}
	}
	return nil
}

func (i *inode) touchCtime(now vfs.Time) {
	i.mu.Lock()
	i.ctime = now
	i.mu.Unlock()
}

// releaseTree frees the pages of all files below d, when the file system goes. Nobody uses it any more.
func (d *directory) releaseTree() {
	todo := []*directory{d}
	for len(todo) > 0 {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		d.dmu.Lock()
		for _, e := range d.entries {
			switch n := e.node.(type) {
			case *directory:
				todo = append(todo, n)
			case *regular:
				n.free()
			}
		}
		d.entries, d.order = nil, nil
		d.dmu.Unlock()
	}
}

// Open implements vfs.Inode.
func (d *directory) Open(vfs.Context, *vfs.Dentry, uint32) (vfs.FileImpl, error) {
	return &dirFile{d: d}, nil
}

// dirFile is an open directory.
type dirFile struct {
	vfs.FileDefaults
	d *directory
}

// Seekable implements vfs.FileImpl.
func (*dirFile) Seekable() bool { return true }

// Read implements vfs.FileImpl; see vfs.DirRead.
func (f *dirFile) SeekEnd(vfs.Context) (int64, error) {
	f.d.dmu.RLock()
	defer f.d.dmu.RUnlock()
	return f.d.last + 1, nil
}

// Fsync implements vfs.FileImpl.
func (*dirFile) Fsync(vfs.Context, bool) error { return nil }

// Readiness implements vfs.FileImpl.
func (*dirFile) Readiness(mask waiter.EventMask) waiter.EventMask {
	return mask & (waiter.ReadableEvents | waiter.WritableEvents)
}

// ReadDir implements vfs.FileImpl.
func (f *dirFile) ReadDir(ctx vfs.Context, fd *vfs.FileDescription, off int64, emit func(vfs.Dirent) error) (int64, error) {
	d := f.d
	d.accessed(ctx, fd)
	if off == 0 {
		if emit(vfs.Dirent{Name: ".", Type: unix.DT_DIR, Ino: d.ino, Off: 1}) != nil {
			return off, nil
		}
		off = 1
	}
	if off == 1 {
		d.dmu.RLock()
		up := d.parent.ino
		d.dmu.RUnlock()
		if emit(vfs.Dirent{Name: "..", Type: unix.DT_DIR, Ino: up, Off: firstOff}) != nil {
			return off, nil
		}
		off = firstOff
	}
	// emit may touch guest memory, so it is called without the lock, in batches.
	var batch [64]vfs.Dirent
	for {
		n := 0
		d.dmu.RLock()
		i, _ := slices.BinarySearchFunc(d.order, off, func(e *entry, off int64) int { return int(e.off - off) })
		for ; i < len(d.order) && n < len(batch); i++ {
			if e := d.order[i]; e.node != nil {
				b := e.node.base()
				batch[n] = vfs.Dirent{Name: e.name, Type: uint8(b.mode.Load() & unix.S_IFMT >> 12), Ino: b.ino, Off: e.off + 1}
				n++
			}
		}
		d.dmu.RUnlock()
		if n == 0 {
			return off, nil
		}
		for _, e := range batch[:n] {
			if emit(e) != nil {
				return off, nil
			}
			off = e.Off
		}
	}
}
