package vfs

import "golang.org/x/sys/unix"

// What a mount namespace that was copied into a less privileged user namespace may not undo: the flags of the mounts in it, and what they cover.

const (
	lockableFlags = unix.ST_RDONLY | unix.ST_NOSUID | unix.ST_NODEV | unix.ST_NOEXEC
	atimeFlags    = unix.ST_NOATIME | unix.ST_RELATIME | unix.ST_NODIRATIME
	lockAtime     = 1 << 31 // in Mount.locks: the atimeFlags stay as they are
)

// lockTreeLocked is lock_mnt_tree.
func (m *Mount) lockTreeLocked() {
	m.walkLocked(func(x *Mount) {
		x.locks |= x.flags.Load()&lockableFlags | lockAtime
		x.locked = x.locked || x != m
	})
}

// mayChangeLocked is can_change_locked_flags: f are the flags that m is to have.
func (m *Mount) mayChangeLocked(f uint32) bool {
	return m.locks&lockableFlags&^f == 0 && (m.locks&lockAtime == 0 || (m.flags.Load()^f)&atimeFlags == 0)
}

// coversLocked is has_locked_children: something below p is hidden by a locked mount.
func (p Path) coversLocked() bool {
	for _, c := range p.Mount.children {
		if c.locked && isAncestor(p.Dentry, c.place.Load().point) {
			return true
		}
	}
	return false
}

// EmptyDirectory is a directory that exists to be mounted on: covering it hides nothing.
type EmptyDirectory interface{ EmptyDirectory() bool }

// revealsLocked is mount_too_revealing: m, a proc or sysfs for a namespace of somebody less than root, shows what all that ns has of its kind hide. If not,
// it takes over how they are locked.
func (m *Mount) revealsLocked(ns *MountNamespace) bool {
	typ := m.FS().Type()
	if ns.Owner.Parent == nil || typ != "proc" && typ != "sysfs" {
		return false
	}
	for _, x := range ns.mounts {
		locks := x.locks & (unix.ST_RDONLY | lockAtime)
		if x.sb.ro.Load() {
			locks |= unix.ST_RDONLY
		}
		switch f := m.flags.Load(); {
		case x.FS().Type() != typ, x.root != x.sb.root, locks&unix.ST_RDONLY&^f != 0, locks&lockAtime != 0 && (x.flags.Load()^f)&atimeFlags != 0:
			continue
		}
		hides := false
		for _, c := range x.children {
			e, ok := c.place.Load().point.inode.(EmptyDirectory)
			hides = hides || c.locked && !(ok && e.EmptyDirectory())
		}
		if !hides {
			m.locks |= locks
			return false
		}
	}
	return true
}
