package vfs

import (
	"slices"
	"sync/atomic"
)

// The shape of mount trees: attach, detach, copy, propagation. All functions need mountMu held for writing.

// peerGroup is a set of mounts that pass mount events to each other, and to slaves
// (Documentation/filesystems/sharedsubtree.rst).
type peerGroup struct {
	id      uint64
	members []*Mount
	slaves  []*Mount
}

var groupIDs atomic.Uint64

// attachLocked puts m at point (a dentry of parent), in parent's namespace. It takes references of its own.
func (m *Mount) attachLocked(parent *Mount, point *Dentry) {
	parent.IncRef()
	point.IncRef()
	pinPoint(point)
	m.place.Store(&place{parent: parent, point: point})
	l := []*Mount{m}
	if p := point.mounts.Load(); p != nil {
		l = append(l, *p...)
	}
	point.mounts.Store(&l)
	parent.children = append(parent.children, m)
	m.setNSLocked(parent.ns)
}

// setNSLocked enters m and all below it in ns, behind what is there.
func (m *Mount) setNSLocked(ns *MountNamespace) {
	if m.ns != ns {
		if m.ns != nil {
			m.ns.mounts = slices.DeleteFunc(m.ns.mounts, func(x *Mount) bool { return x == m })
		}
		m.ns = ns
		if ns != nil {
			ns.mounts = append(ns.mounts, m)
		}
	}
	for _, c := range m.children {
		c.setNSLocked(ns)
	}
}

// unplaceLocked takes m from its place, without leaving the namespace; dropPlace gives the references up later.
func (m *Mount) unplaceLocked() {
	at := m.place.Load()
	if at == nil {
		return
	}
	m.place.Store(nil)
	l := slices.DeleteFunc(slices.Clone(*at.point.mounts.Load()), func(x *Mount) bool { return x == m })
	if len(l) == 0 {
		at.point.mounts.Store(nil)
	} else {
		at.point.mounts.Store(&l)
	}
	at.parent.children = slices.DeleteFunc(at.parent.children, func(x *Mount) bool { return x == m })
	m.old = at
}

// detachLocked takes m out of its namespace and groups; the caller calls drop without mountMu.
func (m *Mount) detachLocked() {
	m.unplaceLocked()
	m.leaveLocked()
}

// leaveLocked takes m out of its namespace and groups.
func (m *Mount) leaveLocked() {
	if m.ns != nil {
		ns := m.ns
		ns.mounts = slices.DeleteFunc(ns.mounts, func(x *Mount) bool { return x == m })
		m.ns = nil
	}
	m.leaveGroupLocked()
	m.setMasterLocked(nil)
}

// dropPlace gives up the references of the place that unplaceLocked left.
func (m *Mount) dropPlace() {
	if at := m.old; at != nil {
		m.old = nil
		at.point.DecRef()
		at.parent.DecRef()
	}
}

// drop finishes detachLocked: the namespace's reference goes. That of a mount that is kept where it is becomes its parent's, which then has none to its
// parent any more: both go with the last user of the parent.
func (m *Mount) drop() {
	if at := m.old; at != nil && at.kept {
		m.old = nil
		at.parent.DecRef()
		return
	}
	m.dropPlace()
	m.DecRef()
}

// dropKept ends what is kept below m, whose last reference went.
func (m *Mount) dropKept() {
	mountMu.Lock()
	kept := slices.Clone(m.children)
	for _, c := range kept {
		c.unplaceLocked()
	}
	mountMu.Unlock()
	for _, c := range kept {
		c.old.point.DecRef()
		c.old = nil
		c.DecRef()
	}
}

// pinPoint makes the path to a mount point findable on file systems whose dentries are not cached.
func pinPoint(d *Dentry) {
	for {
		p := d.loc.Load().parent
		if p == d || d.flags.Load()&(dUnhashed|dDeleted) != dUnhashed {
			return
		}
		p.dir.mu.Lock()
		if _, ok := p.dir.children[d.Name()]; !ok {
			p.hashLocked(d.Name(), d)
		}
		p.dir.mu.Unlock()
		d = p
	}
}

func (m *Mount) joinGroupLocked(g *peerGroup) {
	m.group = g
	g.members = append(g.members, m)
}

// makeSharedLocked gives m a group of its own unless it has one.
func (m *Mount) makeSharedLocked() {
	if m.group == nil {
		m.joinGroupLocked(&peerGroup{id: groupIDs.Add(1)})
	}
}

// leaveGroupLocked takes m out of its peer group; slaves of a group that becomes empty become private.
func (m *Mount) leaveGroupLocked() {
	g := m.group
	if g == nil {
		return
	}
	m.group = nil
	g.members = slices.DeleteFunc(g.members, func(x *Mount) bool { return x == m })
	if len(g.members) == 0 {
		for _, s := range g.slaves {
			s.master = nil
		}
		g.slaves = nil
	}
}

func (m *Mount) setMasterLocked(g *peerGroup) {
	if m.master != nil {
		m.master.slaves = slices.DeleteFunc(m.master.slaves, func(x *Mount) bool { return x == m })
	}
	m.master = g
	if g != nil {
		g.slaves = append(g.slaves, m)
	}
}

// targetsLocked returns the mounts other than m that events at (m, d) propagate to.
func (m *Mount) targetsLocked(d *Dentry) []*Mount {
	if m.group == nil {
		return nil
	}
	var out []*Mount
	seen := map[*Mount]bool{m: true}
	var visit func(g *peerGroup)
	add := func(q *Mount) {
		if seen[q] {
			return
		}
		seen[q] = true
		if isAncestor(q.root, d) {
			out = append(out, q)
		}
	}
	groups := map[*peerGroup]bool{}
	visit = func(g *peerGroup) {
		if groups[g] {
			return
		}
		groups[g] = true
		for _, q := range g.members {
			add(q)
		}
		for _, q := range g.slaves {
			add(q)
			if q.group != nil {
				visit(q.group)
			}
		}
	}
	visit(m.group)
	return out
}

// cloneLocked returns an unattached copy of m rooted at root, in m's peer group and with m's master.
func (m *Mount) cloneLocked(root *Dentry) *Mount {
	c := newMount(m.sb, root, m.flags.Load(), m.source)
	if m.group != nil {
		c.joinGroupLocked(m.group)
	}
	if m.master != nil {
		c.setMasterLocked(m.master)
	}
	c.locked, c.locks = m.locked, m.locks // not unbind: only what it was said of cannot be bound
	return c
}

// loopsLocked reports whether on parent m could have mount namespaces keep each other: one is mounted in older ones only, and not copied from there.
func (m *Mount) loopsLocked(parent *Mount) (loops bool) {
	m.walkLocked(func(x *Mount) {
		h := x.root.holds()
		loops = loops || h != nil && (h.ID <= parent.ns.ID || parent.group != nil)
	})
	return loops
}

// holds is the mount namespace that d keeps as a file in nsfs, or nil.
func (d *Dentry) holds() *MountNamespace {
	if i, ok := d.inode.(interface{ Holds() *MountNamespace }); ok {
		return i.Holds()
	}
	return nil
}

// copyTreeLocked clones m from root on, with the mounts below if rec. each, if set, is told of every pair. Unbindable mounts are left out unless all.
func (m *Mount) copyTreeLocked(root *Dentry, rec, all bool, each func(from, to *Mount)) *Mount {
	c := m.cloneLocked(root)
	if each != nil {
		each(m, c)
	}
	if rec {
		for _, k := range m.children {
			at := k.place.Load()
			if (k.unbind && !all) || all && k.root.holds() != nil || !isAncestor(root, at.point) {
				continue
			}
			k.copyTreeLocked(k.root, true, all, each).attachLocked(c, at.point)
		}
	}
	return c
}

// walkLocked calls fn with m and all mounts below it.
func (m *Mount) walkLocked(fn func(*Mount)) {
	fn(m)
	for _, c := range m.children {
		c.walkLocked(fn)
	}
}

// graftLocked attaches the tree of m at (parent, point) and propagates that.
func (m *Mount) graftLocked(parent *Mount, point *Dentry) {
	targets := parent.targetsLocked(point)
	if parent.group != nil {
		m.walkLocked((*Mount).makeSharedLocked)
	}
	for _, q := range targets {
		slave := q.group != parent.group
		t := m.copyTreeLocked(m.root, true, true, func(from, to *Mount) {
			if slave {
				to.leaveGroupLocked()
				to.setMasterLocked(from.group)
				if q.group != nil {
					to.makeSharedLocked()
				}
			}
		})
		if q.ns != nil && parent.ns != nil && q.ns.Owner != parent.ns.Owner {
			t.lockTreeLocked()
		}
		t.locked = false
		t.attachLocked(q, point)
		q.ns.changedLocked()
	}
	m.attachLocked(parent, point)
	parent.ns.changedLocked()
}
