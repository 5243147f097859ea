package overlay

import (
	"sync"

	"golang.org/x/sys/unix"
	"moat/sentry/vfs"
)

// directory is what a directory's node has beside.
type directory struct {
	mu sync.RWMutex
	// parent is for "..".
	// +checklocks:mu
	parent *node
	// entries are the names that differ from the lower directory's.
	// +checklocks:mu
	entries map[string]entry
}

// entry is a changed name; node is nil for a whiteout. covers: the lower directory has the name too.
type entry struct {
	node   *node
	covers bool
}

func (n *node) entry(name string) (entry, bool) {
	n.dir.mu.RLock()
	defer n.dir.mu.RUnlock()
	e, ok := n.dir.entries[name]
	return e, ok
}

// set makes name name c.
func (n *node) set(name string, c *node) {
	d := n.dir
	d.mu.Lock()
	if d.entries == nil {
		d.entries = make(map[string]entry)
	}
	// VFS looked name up before: it is either a whiteout here, or not below.
	d.entries[name] = entry{c, d.entries[name].covers}
	d.mu.Unlock()
	if c.dir != nil {
		n.links.Add(1)
		c.dir.mu.Lock()
		c.dir.parent = n
		c.dir.mu.Unlock()
	}
	n.pin()
	c.pin()
}

// unset takes name, which names c, away.
func (n *node) unset(name string, c *node) {
	d := n.dir
	d.mu.Lock()
	e, ok := d.entries[name]
	switch {
	case !ok || e.covers:
		if d.entries == nil {
			d.entries = make(map[string]entry)
		}
		d.entries[name] = entry{covers: true}
	default:
		delete(d.entries, name)
	}
	d.mu.Unlock()
	if c.dir != nil {
		n.links.Add(-1)
	}
	n.pin()
}

// Lookup implements vfs.Inode.
func (n *node) Lookup(ctx vfs.Context, name string) (vfs.Inode, error) {
	if n.dir == nil {
		return nil, unix.ENOTDIR
	}
	c, err := n.find(ctx, name)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Prefetch implements vfs.Prefetcher.
func (n *node) Prefetch(ctx vfs.Context, name, rest string, open bool) {
	if p, ok := n.lower.(vfs.Prefetcher); ok {
		if _, changed := n.entry(name); !changed {
			p.Prefetch(ctx, name, rest, open)
		}
	}
}

func (n *node) find(ctx vfs.Context, name string) (*node, error) {
	if e, ok := n.entry(name); ok {
		if e.node == nil {
			return nil, unix.ENOENT
		}
		return e.node, nil
	}
	if n.lower == nil {
		return nil, unix.ENOENT
	}
	for range 8 {
		l, err := n.lower.Lookup(ctx, name)
		if err != nil {
			return nil, err
		}
		c, err := n.fs.nodeOf(ctx, l, n)
		if err != unix.ESTALE {
			return c, err
		}
	}
	return nil, unix.ESTALE
}

func (n *node) make(ctx vfs.Context, name string, o vfs.CreateOptions, target string) (vfs.Inode, error) {
	if n.gone.Load() {
		return nil, unix.ENOENT
	}
	if err := n.touch(ctx); err != nil {
		return nil, err
	}
	c, err := n.fs.newNode(ctx, o, target)
	if err != nil {
		return nil, err
	}
	n.set(name, c)
	return c, nil
}

// Create implements vfs.Inode.
func (n *node) Create(ctx vfs.Context, name string, o vfs.CreateOptions) (vfs.Inode, error) {
	return n.make(ctx, name, o, "")
}

// Mkdir implements vfs.Inode.
func (n *node) Mkdir(ctx vfs.Context, name string, o vfs.CreateOptions) (vfs.Inode, error) {
	return n.make(ctx, name, o, "")
}

// Symlink implements vfs.Inode.
func (n *node) Symlink(ctx vfs.Context, name, target string, o vfs.CreateOptions) (vfs.Inode, error) {
	return n.make(ctx, name, o, target)
}

// Tmpfile implements vfs.TmpfileMaker.
func (n *node) Tmpfile(ctx vfs.Context, o vfs.CreateOptions) (vfs.Inode, error) {
	c, err := n.fs.newNode(ctx, o, "")
	if err != nil {
		return nil, err
	}
	c.links.Store(0)
	c.gone.Store(true)
	c.linkable.Store(true)
	return c, nil
}

// Link implements vfs.Inode.
func (n *node) Link(ctx vfs.Context, name string, target vfs.Inode) error {
	t, ok := target.(*node)
	if !ok || t.fs != n.fs {
		return unix.EXDEV
	}
	if err := n.touch(ctx); err != nil {
		return err
	}
	if err := t.addLink(ctx); err != nil {
		return err
	}
	n.set(name, t)
	return nil
}

// Unlink implements vfs.Inode.
func (n *node) Unlink(ctx vfs.Context, name string, child vfs.Inode) error {
	c := child.(*node)
	if err := n.touch(ctx); err != nil {
		return err
	}
	n.unset(name, c)
	c.dropLink(ctx)
	return nil
}

// Rmdir implements vfs.Inode.
func (n *node) Rmdir(ctx vfs.Context, name string, child vfs.Inode) error {
	c := child.(*node)
	if err := c.empty(ctx); err != nil {
		return err
	}
	return n.Unlink(ctx, name, child)
}

// empty returns ENOTEMPTY if n has entries.
func (n *node) empty(ctx vfs.Context) error {
	n.dir.mu.RLock()
	for _, e := range n.dir.entries {
		if e.node != nil {
			n.dir.mu.RUnlock()
			return unix.ENOTEMPTY
		}
	}
	n.dir.mu.RUnlock()
	if n.lower == nil {
		return nil
	}
	l, err := n.lower.Open(ctx, nil, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer l.Release(ctx, nil)
	found := false
	_, err = l.ReadDir(ctx, nil, 0, func(e vfs.Dirent) error {
		if e.Name != "." && e.Name != ".." {
			if _, hidden := n.entry(e.Name); !hidden {
				found = true
				return unix.ENOTEMPTY
			}
		}
		return nil
	})
	if found {
		return unix.ENOTEMPTY
	}
	return err
}

// Rename implements vfs.Inode.
func (n *node) Rename(ctx vfs.Context, name string, child, newDir vfs.Inode, newName string, replaced vfs.Inode, flags uint32) error {
	to, ok := newDir.(*node)
	if !ok || to.fs != n.fs {
		return unix.EXDEV
	}
	c := child.(*node)
	exchange := flags&unix.RENAME_EXCHANGE != 0
	var r *node
	if replaced != nil {
		r = replaced.(*node)
		if r.dir != nil && !exchange {
			if err := r.empty(ctx); err != nil {
				return err
			}
		}
	}
	var white *node
	if flags&unix.RENAME_WHITEOUT != 0 {
		o, err := vfs.NewCreateOptions(ctx, n, unix.S_IFCHR)
		if err == nil {
			white, err = n.fs.newNode(ctx, o, "")
		}
		if err != nil {
			return err
		}
	}
	for _, x := range []*node{n, to} {
		if err := x.touch(ctx); err != nil {
			return err
		}
	}
	if err := c.SetAttr(ctx, vfs.SetAttr{Valid: vfs.SetCtimeOnly}); err != nil {
		return err
	}
	n.unset(name, c)
	if r != nil {
		to.unset(newName, r)
	}
	to.set(newName, c)
	switch {
	case exchange:
		n.set(name, r)
	case r != nil:
		r.dropLink(ctx)
	}
	if white != nil {
		n.set(name, white)
	}
	return nil
}
