package vfs

import (
	"sync"
	"sync/atomic"

	"moat/sentry/kernel/auth"
	"moat/sentry/refs"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/waiter"
)

// super is what all mounts of one FileSystem share: its dentries (Linux's super_block).
type super struct {
	fs     FileSystem
	refs   atomic.Int64 // mounts
	root   *Dentry
	path   string // what root is of a file system of the host's, in mountinfo; "": all
	policy CachePolicy
	// owner is the user namespace that it was mounted in (s_user_ns); nil is the root's. ro: nobody writes, through whatever mount (SB_RDONLY).
	owner *auth.UserNamespace
	ro    atomic.Bool
	// writers are those of all mounts; see Mount.writers.
	writers atomic.Int64
	// renameMu is held over renames between directories, so that the shape of the tree stands still.
	renameMu sync.Mutex
	handles  handleTable
}

func newSuper(fs FileSystem) (*super, error) {
	r := fs.Root()
	if !attach(r) {
		return nil, unix.ESTALE
	}
	sb := &super{fs: fs, policy: fs.CachePolicy()}
	sb.root = newDentry(sb, nil, "", r)
	return sb, nil
}

// decRef drops a mount's reference; the last one empties the cache of sb and releases the file system.
func (sb *super) decRef() {
	if sb.refs.Add(-1) != 0 {
		return
	}
	sb.root.prune()
	sb.root.flags.Or(dUnhashed)
	sb.root.DecRef()
	sb.fs.Release()
}

// prune drops the unused dentries below d.
func (d *Dentry) prune() {
	if d.dir == nil {
		return
	}
	d.dir.mu.Lock()
	kids := make([]*Dentry, 0, len(d.dir.children))
	for _, c := range d.dir.children {
		c.IncRef()
		d.unhashLocked(c)
		kids = append(kids, c)
	}
	d.dir.mu.Unlock()
	for _, c := range kids {
		c.prune()
		c.DecRef()
	}
}

// Mount is one mount of a FileSystem (Linux's struct mount). A mount in a namespace is kept by the namespace; a
// mount that was detached lives on while paths refer to it.
type Mount struct {
	refs atomic.Int64
	sb   *super
	root *Dentry // holds a reference
	id   uint64
	// flags are statfs(2)'s ST_RDONLY, ST_NOSUID, ST_NODEV, ST_NOEXEC, ST_NOATIME, ST_NODIRATIME, ST_RELATIME, ST_NOSYMFOLLOW.
	flags atomic.Uint32
	// writers counts files open for writing; -1<<31 is added while remounting read-only.
	writers atomic.Int64
	// place is where the mount is attached; nil at the root of a namespace, or when detached.
	place  atomic.Pointer[place]
	source string
	// keeps: children are kept on it; see drop.
	keeps atomic.Bool
	// expire is 2 when MNT_EXPIRE was asked for, and less by each reference that is dropped: the asker's is the first, another was a use.
	expire atomic.Int32

	// The rest is guarded by mountMu.
	ns       *MountNamespace
	children []*Mount
	group    *peerGroup // shared
	master   *peerGroup // slave
	unbind   bool       // MS_UNBINDABLE
	locked   bool       // what it covers is not for this namespace to see (MNT_LOCKED)
	locks    uint32     // the flags that may not be cleared (MNT_LOCK_*)
	old      *place     // where it was before detachLocked, until drop
}

type place struct {
	parent *Mount  // holds a reference
	point  *Dentry // holds a reference
	// kept: the parent was detached with this mount on it, and keeps it; see drop.
	kept bool
}

// mountMu guards the shape of all mount trees (Linux's namespace_sem). Path walk reads place and Dentry.mounts without it.
var mountMu sync.RWMutex

var (
	mountIDs atomic.Uint64
	nsIDs    atomic.Uint64
	nsByID   sync.Map
)

func newMount(sb *super, root *Dentry, flags uint32, source string) *Mount {
	m := &Mount{sb: sb, root: root, id: mountIDs.Add(1) + 20, source: source}
	m.refs.Store(1)
	m.flags.Store(flags)
	sb.refs.Add(1)
	root.IncRef()
	return m
}

// IncRef takes another reference.
func (m *Mount) IncRef() { m.refs.Add(1) }

func (m *Mount) tryIncRef() bool { return refs.TryInc(&m.refs, 1) }

// DecRef drops a reference.
func (m *Mount) DecRef() {
	if e := m.expire.Load(); e > 0 {
		m.expire.CompareAndSwap(e, e-1)
	}
	if m.refs.Add(-1) == 0 {
		if m.keeps.Load() {
			m.dropKept()
		}
		m.root.DecRef()
		m.sb.decRef()
	}
}

// FS is the mounted file system.
func (m *Mount) FS() FileSystem { return m.sb.fs }

// ID is the mount's ID in mountinfo and statx.
func (m *Mount) ID() uint64 { return m.id }

// UniqueID is the mount's ID that is never used again, in statx and statmount(2).
func (m *Mount) UniqueID() uint64 { return m.id + 1<<31 }

// Flags are the mount's ST_* flags.
func (m *Mount) Flags() uint32 { return m.flags.Load() }

// Namespace is the mount namespace that m is attached in, or nil.
func (m *Mount) Namespace() *MountNamespace {
	mountMu.RLock()
	defer mountMu.RUnlock()
	return m.ns
}

// ReadOnly reports whether writes through m fail with EROFS.
func (m *Mount) ReadOnly() bool { return m.flags.Load()&unix.ST_RDONLY != 0 || m.sb.ro.Load() }

const remounting = -1 << 31

// beginWrite counts a file open for writing; EROFS.
func (m *Mount) beginWrite() error {
	if a, b := m.writers.Add(1), m.sb.writers.Add(1); a <= 0 || b <= 0 || m.ReadOnly() {
		m.endWrite()
		return unix.EROFS
	}
	return nil
}

func (m *Mount) endWrite() {
	m.writers.Add(-1)
	m.sb.writers.Add(-1)
}

// child returns the mount on d below m, with a reference, or nil.
func (m *Mount) child(d *Dentry) *Mount {
	l := d.mounts.Load()
	if l == nil {
		return nil
	}
	// The one mounted last is on top of the others and covers them.
	for _, c := range *l {
		if p := c.place.Load(); p != nil && p.parent == m && c.tryIncRef() {
			return c
		}
	}
	return nil
}

// Path is a place in the tree: a dentry seen through a mount.
type Path struct {
	Mount  *Mount
	Dentry *Dentry
}

// Ok reports whether p is set.
func (p Path) Ok() bool { return p.Mount != nil }

// Inode is the file at p.
func (p Path) Inode() Inode { return p.Dentry.inode }

// IncRef takes references to mount and dentry; it returns p.
func (p Path) IncRef() Path {
	if p.Mount != nil {
		p.Mount.IncRef()
		p.Dentry.IncRef()
	}
	return p
}

// DecRef drops the references; nothing for the zero Path.
func (p Path) DecRef() {
	if p.Mount != nil {
		p.Dentry.DecRef()
		p.Mount.DecRef()
	}
}

// descend consumes p and returns the root of the topmost mount at p.
func (p Path) descend() Path {
	for {
		c := p.Mount.child(p.Dentry)
		if c == nil {
			return p
		}
		c.root.IncRef()
		p.DecRef()
		p = Path{c, c.root}
	}
}

// ascend consumes p; if p is the root of a mount that has a place, it returns that place (and true).
func (p Path) ascend() (Path, bool) {
	for p.Dentry == p.Mount.root {
		at := p.Mount.place.Load()
		if at == nil {
			break
		}
		if !at.parent.tryIncRef() {
			continue // moved or detached meanwhile
		}
		if !at.point.tryIncRef() {
			at.parent.DecRef()
			continue
		}
		p.DecRef()
		return Path{at.parent, at.point}, true
	}
	return p, false
}

// MountNamespace is mount_namespaces(7).
type MountNamespace struct {
	refs  atomic.Int64
	ID    uint64
	Owner *auth.UserNamespace
	// Changed is notified (EventPri|EventErr) when the table changes: poll(2) on /proc/PID/mounts.
	Changed waiter.Queue

	// anon: it has nothing but a tree that open_tree(2) or fsmount(2) made, until that is moved elsewhere.
	anon bool

	// Guarded by mountMu.
	root   *Mount
	mounts []*Mount // in order of mounting
	event  uint64
}

// UserNamespace owns ns.
func (ns *MountNamespace) UserNamespace() *auth.UserNamespace { return ns.Owner }

// NewMountNamespace returns a namespace whose root is fs.
func NewMountNamespace(owner *auth.UserNamespace, fs FileSystem, source string, flags uint32) (*MountNamespace, error) {
	sb, err := newSuper(fs)
	if err != nil {
		return nil, err
	}
	ns := &MountNamespace{ID: nsIDs.Add(1), Owner: owner}
	ns.refs.Store(1)
	m := newMount(sb, sb.root, flags, source)
	m.ns = ns
	ns.root, ns.mounts = m, []*Mount{m}
	nsByID.Store(ns.ID, ns)
	return ns, nil
}

// FindMountNamespace returns the one with a number, with a reference, or nil.
func FindMountNamespace(id uint64) *MountNamespace {
	if ns, ok := nsByID.Load(id); ok && ns.(*MountNamespace).TryIncRef() {
		return ns.(*MountNamespace)
	}
	return nil
}

// TryIncRef takes another reference, unless the last is gone.
func (ns *MountNamespace) TryIncRef() bool { return refs.TryInc(&ns.refs, 1) }

// IncRef takes another reference.
func (ns *MountNamespace) IncRef() { ns.refs.Add(1) }

// DecRef drops a reference; the last one unmounts everything.
func (ns *MountNamespace) DecRef() {
	if ns.refs.Add(-1) != 0 {
		return
	}
	nsByID.Delete(ns.ID)
	mountMu.Lock()
	gone := ns.root.detachTreeLocked()
	ns.mounts, ns.root = nil, nil
	mountMu.Unlock()
	dropAll(gone)
}

// Root returns the root directory of the namespace (topmost mount), with references.
func (ns *MountNamespace) Root() Path {
	mountMu.RLock()
	m := ns.root
	p := Path{m, m.root}.IncRef()
	mountMu.RUnlock()
	return p.descend()
}

// Event is a number that changes whenever the mount table does.
func (ns *MountNamespace) Event() uint64 {
	mountMu.RLock()
	defer mountMu.RUnlock()
	return ns.event
}

// changedLocked is called after each change of the table.
func (ns *MountNamespace) changedLocked() {
	if ns != nil {
		ns.event++
		ns.Changed.Notify(waiter.EventPri | waiter.EventErr)
	}
}

// IsMountRoot reports whether p is the root of its mount.
func (p Path) IsMountRoot() bool { return p.Dentry == p.Mount.root }
