package vfs

import (
	"strings"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

// Flags of path resolution: openat2(2)'s RESOLVE_* in the low byte, and VFS's own.
const (
	ResolveNoXdev       = unix.RESOLVE_NO_XDEV
	ResolveNoMagiclinks = unix.RESOLVE_NO_MAGICLINKS
	ResolveNoSymlinks   = unix.RESOLVE_NO_SYMLINKS
	ResolveBeneath      = unix.RESOLVE_BENEATH
	ResolveInRoot       = unix.RESOLVE_IN_ROOT
	ResolveCached       = 0x20

	// Follow follows a symlink in the last component.
	Follow = 0x100
	// Directory wants a directory: ENOTDIR.
	Directory = 0x200
	// EmptyPath lets "" name the start (AT_EMPTY_PATH).
	EmptyPath = 0x400
	// WillOpen tells that what is found will be opened for reading.
	WillOpen = 0x800
)

const maxLinks = 40 // MAXSYMLINKS

// walker is one path walk.
type walker struct {
	ctx   Context
	root  Path   // where ".." stops and "/" starts; borrowed
	moved uint64 // movesDone when the walk began
	at    Path   // owned
	flags uint32
	links int
	rest  string // of the path, behind the name that step is given
}

// begin sets w at the start of path. The caller ends with done unless it takes w.at over.
func (w *walker) begin(ctx Context, start Path, path string, flags uint32) error {
	w.ctx, w.flags, w.moved = ctx, flags, movesDone.Load()
	w.root = ctx.Root()
	if !w.root.Ok() || flags&(ResolveBeneath|ResolveInRoot) != 0 {
		w.root = start
	}
	if path != "" && path[0] == '/' {
		if flags&ResolveBeneath != 0 {
			return unix.EXDEV
		}
		start = w.root
	}
	w.at = start.IncRef()
	return nil
}

func (w *walker) done() {
	w.at.DecRef()
	w.at = Path{}
}

// parent walks to the directory of path's last component, which it returns: "" if path has none ("/"). slash
// tells that slashes follow it.
func (w *walker) parent(path string) (last string, slash bool, err error) {
	for {
		for path != "" && path[0] == '/' {
			path = path[1:]
		}
		if path == "" {
			return "", false, nil
		}
		name, rest := path, ""
		if i := strings.IndexByte(path, '/'); i >= 0 {
			name, rest = path[:i], path[i:]
		}
		next := rest
		for next != "" && next[0] == '/' {
			next = next[1:]
		}
		if next == "" {
			return name, rest != "", w.mayLookup()
		}
		if err := w.mayLookup(); err != nil {
			return "", false, err
		}
		w.rest = next
		target, err := w.step(name, true)
		w.rest = ""
		if err != nil {
			return "", false, err
		}
		path = next
		if target != "" {
			path = target + rest
			if err := w.rebase(target); err != nil {
				return "", false, err
			}
		}
	}
}

// rebase moves w to the root if a symlink's target starts there.
func (w *walker) rebase(target string) error {
	if target[0] != '/' {
		return nil
	}
	if w.flags&ResolveBeneath != 0 || w.flags&ResolveNoXdev != 0 && w.root.Mount != w.at.Mount {
		return unix.EXDEV
	}
	old := w.at
	w.at = w.root.IncRef()
	old.DecRef()
	return nil
}

// mayLookup checks that names may be looked up where w is.
func (w *walker) mayLookup() error {
	i := w.at.Dentry.inode
	mode := i.Mode()
	if mode&unix.S_IFMT != unix.S_IFDIR {
		return unix.ENOTDIR
	}
	if err := permission(w.ctx, w.ctx.Credentials(), i, MayExec); err != nil {
		return err
	}
	return nil
}

// step moves w to the entry name of the directory that it is at. If that is a symlink to follow, w stays and the
// target is returned; a magic link moves w at once.
func (w *walker) step(name string, follow bool) (target string, err error) {
	switch name {
	case ".":
		return "", nil
	case "..":
		return "", w.dotdot()
	}
	d, err := w.at.Dentry.child(w.ctx, name, w.rest, w.flags)
	if err != nil {
		return "", err
	}
	if follow && isLink(d.inode) {
		target, err := w.follow(d)
		d.DecRef()
		return target, err
	}
	old := w.at.Dentry
	w.at.Dentry = d
	old.DecRef()
	return "", w.cross()
}

// cross enters what is mounted at w.at.
func (w *walker) cross() error {
	if w.at.Dentry.mounts.Load() == nil {
		return nil
	}
	m := w.at.Mount
	w.at = w.at.descend()
	if w.at.Mount != m && w.flags&ResolveNoXdev != 0 {
		return unix.EXDEV
	}
	return nil
}

func (w *walker) dotdot() error {
	for {
		if w.at == w.root {
			if w.flags&ResolveBeneath != 0 {
				return unix.EXDEV
			}
			break
		}
		if d := w.at.Dentry; d != w.at.Mount.root {
			w.at.Dentry = d.Parent()
			d.DecRef()
			break
		}
		up, ok := w.at.ascend()
		w.at = up
		if !ok {
			break
		}
		if w.flags&ResolveNoXdev != 0 {
			return unix.EXDEV
		}
	}
	if w.flags&(ResolveBeneath|ResolveInRoot) != 0 && movesBegun.Load() != w.moved {
		return unix.EAGAIN // a rename since the walk began may have led it out of its root (handle_dots)
	}
	return w.cross()
}

// follow reads the symlink d.
func (w *walker) follow(d *Dentry) (target string, err error) {
	if w.links++; w.links > maxLinks || w.flags&ResolveNoSymlinks != 0 || w.at.Mount.Flags()&0x2000 != 0 {
		return "", unix.ELOOP
	}
	if w.flags&ResolveCached != 0 && d.sb.policy != CacheForever {
		return "", unix.EAGAIN
	}
	target, jump, err := d.inode.FollowLink(w.ctx)
	if err != nil {
		return "", err
	}
	if !jump.Ok() {
		if target == "" {
			return "", unix.ENOENT
		}
		return target, nil
	}
	switch {
	case w.flags&ResolveNoMagiclinks != 0:
		err = unix.ELOOP
	case w.flags&(ResolveBeneath|ResolveInRoot) != 0, w.flags&ResolveNoXdev != 0 && jump.Mount != w.at.Mount:
		err = unix.EXDEV
	}
	if err != nil {
		jump.DecRef()
		return "", err
	}
	w.at.DecRef()
	w.at = jump
	return "", nil
}

// child returns the dentry of d's entry name, with a reference: ENOENT. rest is what will be walked from there.
func (d *Dentry) child(ctx Context, name, rest string, flags uint32) (*Dentry, error) {
	if len(name) > linux.NAME_MAX {
		return nil, unix.ENAMETOOLONG
	}
	if flags&ResolveCached == 0 {
		d.check()
	}
	if c := d.cached(name); c != nil {
		switch {
		case c.sure() || c.mounts.Load() != nil:
			return c.found(nil)
		case flags&ResolveCached != 0:
			c.DecRef()
			return nil, unix.EAGAIN
		}
		valid, err := d.revalidate(ctx, name, c)
		if valid || err != nil {
			return c.found(err)
		}
		c.DecRef()
	} else if flags&ResolveCached != 0 {
		return nil, unix.EAGAIN
	}
	d.dir.ops.RLock()
	if p, ok := d.inode.(Prefetcher); ok && (rest != "" || flags&WillOpen != 0) {
		p.Prefetch(ctx, name, rest, flags&WillOpen != 0)
	}
	c, err := d.lookup(ctx, name)
	d.dir.ops.RUnlock()
	dcache.shrink()
	return c, err
}

// found is what a lookup that ended at d returns: d, whose reference it takes over, err, or ENOENT if d is negative.
func (d *Dentry) found(err error) (*Dentry, error) {
	if err == nil && d.inode == nil {
		err = unix.ENOENT
	}
	if err != nil {
		d.DecRef()
		return nil, err
	}
	return d, nil
}

// revalidate asks the file system whether c is still what name names; if not, c and what is below leave the cache.
func (d *Dentry) revalidate(ctx Context, name string, c *Dentry) (bool, error) {
	rv, ok := d.inode.(Revalidator)
	if !ok {
		return true, nil
	}
	version := d.dir.version.Load()
	valid, err := rv.Revalidate(ctx, name, c.inode, &c.proof)
	if err != nil {
		return false, err
	}
	if valid {
		d.dir.mu.RLock()
		if d.dir.version.Load() == version {
			c.flags.And(^uint32(dDoubted))
		}
		d.dir.mu.RUnlock()
		return true, nil
	}
	d.unhash(c)
	c.prune()
	return false, nil
}

// lookup asks the file system for name, unless it has been cached meanwhile (on a mount that others change, what another task found may be from before
// this one's call began). d.dir.ops is held.
func (d *Dentry) lookup(ctx Context, name string) (*Dentry, error) {
	if len(name) > linux.NAME_MAX {
		return nil, unix.ENAMETOOLONG
	}
	if d.sb.policy != CacheRevalidate {
		if c := d.cached(name); c != nil {
			return c.found(nil)
		}
	}
	if d.Deleted() {
		return nil, unix.ENOENT
	}
	for range 8 {
		version := d.dir.version.Load()
		inode, err := d.inode.Lookup(ctx, name)
		if err != nil {
			if err != unix.ENOENT || d.sb.policy == CacheNone {
				return nil, err
			}
			return d.enter(name, nil, version, false).found(nil)
		}
		if !attach(inode) {
			continue
		}
		return d.enter(name, inode, version, false), nil
	}
	return nil, unix.ESTALE
}

// enter makes a dentry for name with an attached inode (nil: negative) and caches it as the policy says. A dentry that
// was cached first wins, unless replace says that name is new or others may have changed it. version is that of d when the inode was found. It returns a
// reference.
func (d *Dentry) enter(name string, inode Inode, version uint64, replace bool) *Dentry {
	name = strings.Clone(name) // not a part of some long path
	c := newDentry(d.sb, d, name, inode)
	if d.sb.policy == CacheNone {
		c.flags.Or(dUnhashed)
		return c
	}
	d.dir.mu.Lock()
	if old := d.dir.children[name]; old != nil {
		if !replace && (old.inode == inode || d.sb.policy == CacheForever || old.mounts.Load() != nil) {
			old.IncRef()
			d.dir.mu.Unlock()
			c.flags.Or(dUnhashed)
			c.DecRef()
			return old
		}
		old.IncRef()
		d.unhashLocked(old)
		defer old.DecRef()
	}
	if d.dir.version.Load() != version {
		c.flags.Or(dDoubted)
	}
	d.hashLocked(name, c)
	d.dir.mu.Unlock()
	return c
}

// Resolve walks path from start (used if path is relative) and returns what it names, with references. flags are
// Follow, Directory, EmptyPath and RESOLVE_*.
func Resolve(ctx Context, start Path, path string, flags uint32) (Path, error) {
	var w walker
	if err := w.begin(ctx, start, path, flags); err != nil {
		return Path{}, err
	}
	if err := w.resolve(path); err != nil {
		w.done()
		return Path{}, err
	}
	return w.at, nil
}

func (w *walker) resolve(path string) error {
	if path == "" && w.flags&EmptyPath == 0 {
		return unix.ENOENT
	}
	wantDir := w.flags&Directory != 0
	for path != "" {
		last, slash, err := w.parent(path)
		if err != nil {
			return err
		}
		if last == "" {
			break
		}
		if slash {
			wantDir, w.flags = true, w.flags|Follow
		}
		target, err := w.step(last, w.flags&Follow != 0)
		if err != nil {
			return err
		}
		if target == "" {
			break
		}
		if err := w.rebase(target); err != nil {
			return err
		}
		path = target
	}
	if wantDir && w.at.Dentry.dir == nil {
		return unix.ENOTDIR
	}
	return nil
}

// ResolveParent walks to the directory of path's last component and returns both. last is "" for "/", and may be "."
// or "..". slash tells that slashes follow it.
func ResolveParent(ctx Context, start Path, path string, flags uint32) (dir Path, last string, slash bool, err error) {
	if path == "" {
		return Path{}, "", false, unix.ENOENT
	}
	var w walker
	if err := w.begin(ctx, start, path, flags); err != nil {
		return Path{}, "", false, err
	}
	last, slash, err = w.parent(path)
	if err != nil {
		w.done()
		return Path{}, "", false, err
	}
	return w.at, last, slash, nil
}
