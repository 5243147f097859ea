package vfs

import (
	"sync"
	"sync/atomic"

	"moat/sentry/refs"
)

// Dentry is a name in the tree of one FileSystem. inode is fixed for its life: a name that gets another file gets
// another Dentry.
type Dentry struct {
	// refs counts users and children. deadRefs once the dentry is destroyed: no reference can be taken any more.
	refs  atomic.Int64
	sb    *super
	inode Inode // nil: negative
	loc   atomic.Pointer[location]
	loc0  location
	flags atomic.Uint32
	// mounts are the mounts on this dentry, copied on change (under mountMu).
	mounts atomic.Pointer[[]*Mount]
	dir    *dirState // directories only
	// proof is the Revalidator's.
	proof atomic.Int64
	// prev and next link the cache's clock; guarded by dcache.mu.
	prev, next *Dentry
}

type location struct {
	parent *Dentry // holds a reference; the root's is itself, without one
	name   string
}

// dirState is what a directory's dentry has beside.
type dirState struct {
	id uint64 // lock order of unrelated directories in a rename
	// ops is held shared over Lookup and exclusively over calls that change the directory.
	ops sync.RWMutex
	// mu guards children. Order: ops, mu.
	mu sync.RWMutex
	// +checklocks:mu
	children map[string]*Dentry
	// versioned is the inode, if it is; version is that of which children that are not doubted are.
	versioned Versioned
	version   atomic.Uint64
}

const (
	dUnhashed   = 1 << iota // not in its parent's children: destroyed when unused
	dDeleted                // unlinked: "(deleted)"
	dReferenced             // used since the clock passed
	dListed                 // in the clock
	dUnlinkable             // an O_TMPFILE with O_EXCL: may not get a name
	dDoubted                // to be revalidated
)

const deadRefs = -1 << 40

var dirIDs atomic.Uint64

// newDentry returns a dentry with one reference, which must have attached inode; it takes a reference to parent.
func newDentry(sb *super, parent *Dentry, name string, inode Inode) *Dentry {
	d := &Dentry{sb: sb, inode: inode}
	d.refs.Store(1)
	if inode != nil && isDir(inode) {
		d.dir = &dirState{id: dirIDs.Add(1)}
		if sb.policy == CacheForever {
			d.dir.versioned, _ = inode.(Versioned)
		}
	}
	if parent == nil {
		parent = d
	} else {
		parent.IncRef()
	}
	d.loc0 = location{parent, name}
	d.loc.Store(&d.loc0)
	return d
}

// Inode is the file that d names; nil for a negative dentry.
func (d *Dentry) Inode() Inode { return d.inode }

// FS is the file system of d.
func (d *Dentry) FS() FileSystem { return d.sb.fs }

// Name is d's last known name; "" for a root.
func (d *Dentry) Name() string { return d.loc.Load().name }

// Deleted reports whether the name is gone (unlinked, but still open).
func (d *Dentry) Deleted() bool { return d.flags.Load()&dDeleted != 0 }

// IsRoot reports whether d is the root of its file system.
func (d *Dentry) IsRoot() bool { return d.loc.Load().parent == d }

// Parent returns d's parent with a reference.
func (d *Dentry) Parent() *Dentry {
	for {
		l := d.loc.Load()
		if l.parent.tryIncRef() {
			if d.loc.Load() == l {
				return l.parent
			}
			l.parent.DecRef()
		}
	}
}

// IncRef takes another reference.
func (d *Dentry) IncRef() { d.refs.Add(1) }

func (d *Dentry) tryIncRef() bool { return refs.TryInc(&d.refs, 0) }

// DecRef drops a reference. An unhashed dentry without references is destroyed; others stay cached.
// No lock of a file system may be held.
func (d *Dentry) DecRef() {
	for d != nil && d.refs.Add(-1) == 0 && d.flags.Load()&dUnhashed != 0 {
		// The count may have been raised and dropped again meanwhile: whoever sets it dead destroys.
		if !d.refs.CompareAndSwap(0, deadRefs) {
			return
		}
		d = d.destroy()
	}
}

// destroy gives up what a dead dentry holds, and returns the parent, to which the caller drops a reference.
func (d *Dentry) destroy() *Dentry {
	dcache.remove(d)
	if d.inode != nil {
		if d.Deleted() && watchTotal.Load() != 0 {
			if a, err := d.inode.Attr(Background()); err == nil && a.Nlink == 0 || d.dir != nil {
				deliver(d.inode, InDeleteSelf, 0, "", true)
			}
		}
		detach(d.inode)
	}
	if p := d.loc.Load().parent; p != d {
		return p
	}
	return nil
}

func (d *Dentry) touch() {
	if d.flags.Load()&dReferenced == 0 {
		d.flags.Or(dReferenced)
	}
}

// cached returns the cached child of that name with a reference, or nil.
func (d *Dentry) cached(name string) *Dentry {
	d.dir.mu.RLock()
	c := d.dir.children[name]
	if c != nil {
		c.refs.Add(1)
	}
	d.dir.mu.RUnlock()
	if c != nil {
		c.touch()
	}
	return c
}

// check has d's children doubted if others may have changed d.
func (d *Dentry) check() {
	if d.dir.versioned == nil {
		return
	}
	if v := d.dir.versioned.Version(); v > d.dir.version.Load() {
		d.dir.mu.Lock()
		for _, c := range d.dir.children {
			c.flags.Or(dDoubted)
		}
		d.dir.version.Store(v)
		d.dir.mu.Unlock()
	}
}

// sure reports whether d is what its name names.
func (d *Dentry) sure() bool {
	return d.sb.policy == CacheForever && d.flags.Load()&dDoubted == 0
}

// hash enters c, whose location is (d, name), in d's children.
// +checklocks:d.dir.mu
func (d *Dentry) hashLocked(name string, c *Dentry) {
	if d.dir.children == nil {
		d.dir.children = make(map[string]*Dentry)
	}
	d.dir.children[name] = c
	c.flags.And(^uint32(dUnhashed))
	dcache.add(c)
}

// unhashLocked removes c from d's children.
// +checklocks:d.dir.mu
func (d *Dentry) unhashLocked(c *Dentry) {
	name := c.loc.Load().name
	if d.dir.children[name] == c {
		delete(d.dir.children, name)
	}
	c.flags.Or(dUnhashed)
}

func (d *Dentry) unhash(c *Dentry) {
	d.dir.mu.Lock()
	d.unhashLocked(c)
	d.dir.mu.Unlock()
}

// isAncestor reports whether a is d or above it. Stable only under sb.renameMu.
func isAncestor(a, d *Dentry) bool {
	for {
		if a == d {
			return true
		}
		p := d.loc.Load().parent
		if p == d {
			return false
		}
		d = p
	}
}

// dentryCache is the clock of all hashed dentries: those beyond limit that were not used since the hand last passed
// are dropped.
type dentryCache struct {
	mu sync.Mutex
	// +checklocks:mu
	hand  *Dentry
	n     atomic.Int64
	limit atomic.Int64
}

var dcache = func() *dentryCache {
	c := &dentryCache{}
	c.limit.Store(128 << 10)
	return c
}()

// pressed reports whether memory is short; caches are then a sixteenth of what they may be.
var pressed atomic.Pointer[func() bool]

// SetPressed says how to find out whether memory is short. The function is called often.
func SetPressed(f func() bool) { pressed.Store(&f) }

// Pressed reports whether memory is short, so that caches are to be small.
func Pressed() bool {
	f := pressed.Load()
	return f != nil && (*f)()
}

// SetDentryLimit bounds how many unused dentries are cached.
func SetDentryLimit(n int64) { dcache.limit.Store(n) }

func (c *dentryCache) add(d *Dentry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d.flags.Load()&dListed != 0 {
		return
	}
	d.flags.Or(dListed | dReferenced)
	c.n.Add(1)
	if c.hand == nil {
		d.prev, d.next = d, d
		c.hand = d
		return
	}
	h := c.hand
	d.prev, d.next = h.prev, h
	h.prev.next, h.prev = d, d
}

func (c *dentryCache) remove(d *Dentry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.removeLocked(d)
}

// +checklocks:c.mu
func (c *dentryCache) removeLocked(d *Dentry) {
	if d.flags.Load()&dListed == 0 {
		return
	}
	d.flags.And(^uint32(dListed))
	c.n.Add(-1)
	if d.next == d {
		c.hand = nil
	} else {
		d.prev.next, d.next.prev = d.next, d.prev
		if c.hand == d {
			c.hand = d.next
		}
	}
	d.prev, d.next = nil, nil
}

// shrink moves the hand a little way when the cache is over its limit. The caller holds no lock.
func (c *dentryCache) shrink() {
	limit, tight := c.limit.Load(), Pressed()
	if tight {
		limit /= 16
	}
	if over := c.n.Load() - limit; over > 0 {
		c.prune(int(min(over, 64)), 256, tight, nil)
	}
}

// Shrink drops up to n unused dentries, of one file system or, if it is nil, of all. It returns how many.
func Shrink(n int, of FileSystem) int { return dcache.prune(n, int(2*dcache.n.Load()), true, of) }

// prune drops up to want unused dentries of a file system, or of all, looking at up to scan of them.
// +checklocksignore: the lock is a victim's parent's.
func (c *dentryCache) prune(want, scan int, force bool, of FileSystem) int {
	var victims []*Dentry
	c.mu.Lock()
	for ; scan > 0 && want > len(victims) && c.hand != nil; scan-- {
		d := c.hand
		c.hand = d.next
		if d.refs.Load() != 0 || of != nil && d.sb.fs != of {
			continue
		}
		if d.flags.Load()&dReferenced != 0 && !force {
			d.flags.And(^uint32(dReferenced))
			continue
		}
		// Insertion takes dcache.mu under the parent's lock, so only try.
		p := d.loc.Load().parent
		if p == d || !p.dir.mu.TryLock() {
			continue
		}
		if d.loc.Load().parent == p && d.refs.CompareAndSwap(0, deadRefs) {
			p.unhashLocked(d)
			c.removeLocked(d)
			victims = append(victims, d)
		}
		p.dir.mu.Unlock()
	}
	c.mu.Unlock()
	for _, d := range victims {
		d.destroy().DecRef()
	}
	return len(victims)
}
