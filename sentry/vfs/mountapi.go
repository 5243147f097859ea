package vfs

import (
	"golang.org/x/sys/unix"
)

// The mount calls that work on trees by descriptor: open_tree(2), move_mount(2), mount_setattr(2), and what fsmount(2) of them needs.

// openDetached returns an O_PATH file of the root of m, which is in no namespace and is consumed. What of the tree nobody moved elsewhere goes with the file.
func (m *Mount) openDetached(ctx Context) *FileDescription {
	anon := &MountNamespace{ID: nsIDs.Add(1), Owner: ctx.Credentials().UserNS, root: m, anon: true}
	mountMu.Lock()
	m.setNSLocked(anon)
	mountMu.Unlock()
	p := Path{m, m.root}.IncRef()
	f, _ := openPath(ctx, p, unix.O_PATH, false) // cannot fail
	p.DecRef()
	f.AddReleaseHook(m, func() {
		var gone []*Mount
		mountMu.Lock()
		if m.ns == anon {
			gone = m.detachTreeLocked()
		}
		mountMu.Unlock()
		dropAll(gone)
	})
	return f
}

// OpenTree is open_tree(2) with OPEN_TREE_CLONE: a copy of the tree at p, with what is mounted below if rec.
func OpenTree(ctx Context, p Path, rec bool) (*FileDescription, error) {
	ns, err := namespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	mountMu.Lock()
	if p.Mount.ns != ns && (p.Mount.ns == nil || !p.Mount.ns.anon) {
		mountMu.Unlock()
		return nil, unix.EINVAL
	}
	m, err := p.cloneTreeLocked(rec)
	mountMu.Unlock()
	if err != nil {
		return nil, err
	}
	return m.openDetached(ctx), nil
}

// unbindableLocked reports whether m or a mount below it is unbindable.
func unbindableLocked(m *Mount) (found bool) {
	m.walkLocked(func(x *Mount) { found = found || x.unbind })
	return found
}

// MoveMount is move_mount(2), and mount(2)'s MS_MOVE: src is a mount of the caller's namespace, or the root of a detached tree.
func MoveMount(ctx Context, src, target Path) error {
	ns, err := namespaceOf(ctx)
	if err != nil {
		return err
	}
	mountMu.Lock()
	err = moveMountLocked(ns, src, target)
	mountMu.Unlock()
	src.Mount.dropPlace()
	return err
}

// +checklocks:mountMu
func moveMountLocked(ns *MountNamespace, src, target Path) error {
	m, at, to := src.Mount, src.Mount.place.Load(), target.Mount.ns
	attached := m.ns != nil && !m.ns.anon
	switch {
	case src.Dentry != m.root, (m.root.dir != nil) != (target.Dentry.dir != nil), m.ns == nil, to == nil:
		return unix.EINVAL
	case attached && (m.locked || m.onShared() || m.ns != to || ns != nil && m.ns != ns):
		return unix.EINVAL
	case !attached && (at != nil || to == m.ns || to != ns && !to.anon):
		return unix.EINVAL
	case target.Mount.group != nil && unbindableLocked(m):
		return unix.EINVAL
	case attached && at == nil:
		return unix.ELOOP // all is below the root
	}
	for x := target.Mount; ; {
		if x == m {
			return unix.ELOOP
		}
		p := x.place.Load()
		if p == nil {
			break
		}
		x = p.parent
	}
	if !attached {
		return m.graftAtLocked(target)
	}
	if target.Dentry.Deleted() {
		return unix.ENOENT
	}
	if m.loopsLocked(target.Mount) {
		return unix.EINVAL
	}
	m.unplaceLocked()
	m.graftLocked(target.Mount, target.Dentry)
	return nil
}

// MountAttr is mount_setattr(2)'s struct mount_attr: ST_* flags to clear and then to set, and a propagation (MS_*).
type MountAttr struct {
	Set, Clear  uint32
	Propagation uint64
}

// flags are those that x gets.
func (a *MountAttr) flags(x *Mount) uint32 { return x.flags.Load()&^a.Clear | a.Set }

// SetMountAttr is mount_setattr(2): all mounts at p (and below, if rec) change, or none.
func SetMountAttr(ctx Context, p Path, a MountAttr, rec bool) error {
	ns, err := namespaceOf(ctx)
	if err != nil {
		return err
	}
	mountMu.Lock()
	defer mountMu.Unlock()
	m := p.Mount
	if p.Dentry != m.root || m.ns == nil || m.ns != ns && !(m.ns.anon && m.place.Load() == nil) {
		return unix.EINVAL
	}
	all := []*Mount{m}
	if rec {
		all = all[:0]
		m.walkLocked(func(x *Mount) { all = append(all, x) })
	}
	var held []*Mount
	for _, x := range all {
		if !x.mayChangeLocked(a.flags(x)) {
			err = unix.EPERM
		} else if a.Set&unix.ST_RDONLY != 0 && x.flags.Load()&unix.ST_RDONLY == 0 {
			held = append(held, x)
			if x.writers.Add(remounting) != remounting {
				err = unix.EBUSY
			}
		}
		if err != nil {
			break
		}
	}
	for _, x := range all {
		if err == nil {
			x.flags.Store(a.flags(x))
			x.propagateLocked(a.Propagation)
		}
	}
	for _, x := range held {
		x.writers.Add(-remounting)
	}
	m.ns.changedLocked()
	return err
}
