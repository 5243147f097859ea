package auth

import (
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

// EnterUserNS returns c in ns with all capabilities there (set_cred_user_ns).
func (c *Credentials) EnterUserNS(ns *UserNamespace) *Credentials {
	n := c.Clone()
	n.UserNS = ns
	n.SecureBits = 0
	n.Inheritable, n.Ambient = 0, 0
	n.Permitted, n.Effective, n.Bounding = AllCaps, AllCaps, AllCaps
	return n
}

// maxMapEntries is how many lines a map may have (UID_GID_MAP_MAX_EXTENTS).
const maxMapEntries = 340

// IDMap returns the user or group map, as reader, who looks from another namespace, sees it: the parent column is in reader's IDs
// (or the parent's, if reader is ns itself).
func (ns *UserNamespace) IDMap(uid bool, reader *UserNamespace) []IDMapEntry {
	m := slices.Clone(ns.maps(uid))
	up := reader
	if reader == ns {
		up = ns.Parent
	}
	if up == nil || ns.Parent == nil {
		return m
	}
	for i := range m {
		m[i].Parent = up.fromKernel(ns.Parent.toKernel(m[i].Parent, uid), uid)
	}
	return m
}

// SetIDMap is a write to uid_map or gid_map by a process with credentials c (kernel/user_namespace.c map_write): EPERM, EINVAL. A map is written once.
func (ns *UserNamespace) SetIDMap(uid bool, entries []IDMapEntry, c *Credentials) error {
	if len(entries) == 0 || len(entries) > maxMapEntries {
		return unix.EINVAL
	}
	for i, e := range entries {
		if e.Length == 0 || e.First == NoID || e.Parent == NoID || e.First+e.Length < e.First || e.Parent+e.Length < e.Parent {
			return unix.EINVAL
		}
		for _, o := range entries[:i] {
			if overlap(e.First, o.First, e.Length, o.Length) || overlap(e.Parent, o.Parent, e.Length, o.Length) {
				return unix.EINVAL
			}
		}
	}
	if ns.Parent == nil {
		return unix.EPERM
	}
	ns.mu.Lock()
	defer ns.mu.Unlock()
	m, capSet := &ns.uidMap, linux.Capability(linux.CAP_SETUID)
	if !uid {
		m, capSet = &ns.gidMap, linux.CAP_SETGID
	}
	if *m != nil || !c.HasCapIn(linux.CAP_SYS_ADMIN, ns) || (c.UserNS != ns && c.UserNS != ns.Parent) {
		return unix.EPERM
	}
	if !ns.mayMapLocked(uid, entries, c, capSet) {
		return unix.EPERM
	}
	for _, e := range entries {
		for _, id := range [...]uint32{e.Parent, e.Parent + e.Length - 1} {
			if ns.Parent.toKernel(id, uid) == NoID {
				return unix.EPERM
			}
		}
	}
	*m = slices.Clone(entries)
	return nil
}

// mayMapLocked is new_idmap_permitted: one's own ID may be mapped without privilege, others with CAP_SETUID or CAP_SETGID in the parent.
// +checklocks:ns.mu
func (ns *UserNamespace) mayMapLocked(uid bool, entries []IDMapEntry, c *Credentials, capSet linux.Capability) bool {
	if len(entries) == 1 && entries[0].Length == 1 && ns.Owner == c.EUID {
		id := ns.Parent.toKernel(entries[0].Parent, uid)
		if uid && KUID(id) == c.EUID {
			return true
		}
		if !uid && ns.setgroupsDenied && KGID(id) == c.EGID {
			return true
		}
	}
	return c.HasCapIn(capSet, ns.Parent)
}

func overlap(a, b, la, lb uint32) bool { return a < b+lb && b < a+la }

// MaySetgroups reports whether setgroups(2) is allowed in ns: it has a gid map and setgroups was not denied.
func (ns *UserNamespace) MaySetgroups() bool {
	ns.mu.RLock()
	defer ns.mu.RUnlock()
	return ns.gidMap != nil && !ns.setgroupsDenied
}

// SetgroupsAllowed is what /proc/PID/setgroups shows.
func (ns *UserNamespace) SetgroupsAllowed() bool {
	ns.mu.RLock()
	defer ns.mu.RUnlock()
	return !ns.setgroupsDenied
}

// SetSetgroups is a write to /proc/PID/setgroups: EPERM once the gid map is there, or to allow what was denied.
func (ns *UserNamespace) SetSetgroups(allow bool) error {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	switch {
	case allow && ns.setgroupsDenied, !allow && ns.gidMap != nil && !ns.setgroupsDenied:
		return unix.EPERM
	case !allow:
		ns.setgroupsDenied = true
	}
	return nil
}

// Root is the user namespace that all others are in.
func (ns *UserNamespace) Root() *UserNamespace {
	for ns.Parent != nil {
		ns = ns.Parent
	}
	return ns
}

// IsAncestorOf reports whether ns is c or encloses it.
func (ns *UserNamespace) IsAncestorOf(c *UserNamespace) bool {
	for ; c != nil; c = c.Parent {
		if c == ns {
			return true
		}
	}
	return false
}

// nsInos numbers user namespaces; see Ino.
var nsInos atomic.Uint64

// Ino is the namespace's inode number in nsfs (/proc/PID/ns/user): Linux's PROC_USER_INIT_INO for the root.
func (ns *UserNamespace) Ino() uint64 {
	const first = 0xEFFFFFFD
	if ns.Parent == nil {
		return first
	}
	if ns.ino.Load() == 0 {
		ns.ino.CompareAndSwap(0, 0xF1000000+nsInos.Add(1))
	}
	return ns.ino.Load()
}
