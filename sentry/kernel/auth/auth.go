// Package auth has credentials: user and group IDs, capabilities and user namespaces (credentials(7),
// capabilities(7), user_namespaces(7)). It is a leaf: the file layer and the kernel both build on it.
//
// A *Credentials is immutable once it is published in a task; changes are made on a Clone and swapped in whole.
package auth

import (
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

// KUID and KGID are IDs as the root user namespace sees them; file systems store these.
type (
	KUID uint32
	KGID uint32
)

// NoID is (uid_t)-1: no such user or group.
const NoID = ^uint32(0)

// Overflow is what an ID without a mapping shows as (/proc/sys/kernel/overflowuid).
const Overflow = 65534

// CapSet is a set of capabilities, bit 1<<CAP_X.
type CapSet uint64

// AllCaps has every capability that Linux knows (CAP_LAST_CAP = 40).
const AllCaps CapSet = 1<<(linux.CAP_LAST_CAP+1) - 1

// CapMask is the set of the one capability c.
func CapMask(c linux.Capability) CapSet { return 1 << uint(c) }

// Has reports whether s holds c.
func (s CapSet) Has(c linux.Capability) bool { return s&CapMask(c) != 0 }

// Credentials are a task's (or an open file's) identity.
type Credentials struct {
	RUID, EUID, SUID, FSUID KUID
	RGID, EGID, SGID, FSGID KGID
	// Groups are the supplementary groups, sorted.
	Groups                                               []KGID
	Permitted, Inheritable, Effective, Bounding, Ambient CapSet
	// SecureBits are prctl(2)'s SECBIT_*, including KEEP_CAPS.
	SecureBits uint32
	// NoNewPrivs lives on the task; see kernel.
	UserNS *UserNamespace
}

// NewRoot returns the credentials of root with all capabilities in ns.
func NewRoot(ns *UserNamespace) *Credentials {
	return NewUser(ns.MapToKUID(0), ns.MapToKGID(0), nil, AllCaps, ns)
}

// NewUser returns the credentials of an ordinary user, or of root with caps if uid is 0.
func NewUser(uid KUID, gid KGID, groups []KGID, caps CapSet, ns *UserNamespace) *Credentials {
	g := slices.Clone(groups)
	slices.Sort(g)
	return &Credentials{RUID: uid, EUID: uid, SUID: uid, FSUID: uid, RGID: gid, EGID: gid, SGID: gid, FSGID: gid,
		Groups: g, Permitted: caps, Effective: caps, Bounding: caps, UserNS: ns}
}

// Clone returns a copy that may be changed.
func (c *Credentials) Clone() *Credentials {
	n := *c
	n.Groups = slices.Clone(c.Groups)
	return &n
}

// InGroup reports whether g is the file system group or a supplementary one.
func (c *Credentials) InGroup(g KGID) bool {
	if c.FSGID == g {
		return true
	}
	_, ok := slices.BinarySearch(c.Groups, g)
	return ok
}

// HasCap reports whether c holds capability cap in its own user namespace.
func (c *Credentials) HasCap(cap linux.Capability) bool { return c.Effective.Has(cap) }

// Capable is capable(): whether c holds cap over the machine, in the first user namespace.
func (c *Credentials) Capable(cap linux.Capability) bool {
	return c.UserNS.Parent == nil && c.HasCap(cap)
}

// HasCapIn reports whether c holds cap in ns: it is held in ns or an ancestor of ns in which c's namespace lies, or c
// owns ns from its parent (kernel security/commoncap.c cap_capable).
func (c *Credentials) HasCapIn(cap linux.Capability, ns *UserNamespace) bool {
	for {
		if ns == c.UserNS {
			return c.Effective.Has(cap)
		}
		if ns == nil || ns.Parent == nil {
			return false
		}
		if ns.Parent == c.UserNS && ns.Owner == c.EUID {
			return true
		}
		ns = ns.Parent
	}
}

// IDMapEntry maps IDs [First, First+Length) of a namespace to [Parent, Parent+Length) of its parent (uid_map).
type IDMapEntry struct{ First, Parent, Length uint32 }

// UserNamespace is user_namespaces(7).
type UserNamespace struct {
	// ID is the namespace's number in nsfs.
	ID         uint64
	Parent     *UserNamespace
	Owner      KUID
	OwnerGroup KGID
	Level      int
	ino        atomic.Uint64 // see Ino

	mu sync.RWMutex
	// +checklocks:mu
	uidMap []IDMapEntry
	// +checklocks:mu
	gidMap []IDMapEntry
	// SetgroupsDenied is /proc/PID/setgroups = deny.
	// +checklocks:mu
	setgroupsDenied bool
}

// NewRootNamespace returns a namespace in which every ID maps to itself.
func NewRootNamespace() *UserNamespace {
	id := []IDMapEntry{{0, 0, ^uint32(0)}}
	return &UserNamespace{uidMap: id, gidMap: id}
}

// NewChild returns a namespace below c's with empty maps, owned by c (clone(2) CLONE_NEWUSER); EUSERS at depth 32.
func (c *Credentials) NewChild() (*UserNamespace, error) {
	if c.UserNS.Level >= 32 {
		return nil, unix.EUSERS
	}
	return &UserNamespace{Parent: c.UserNS, Owner: c.EUID, OwnerGroup: c.EGID, Level: c.UserNS.Level + 1,
		setgroupsDenied: !c.UserNS.SetgroupsAllowed()}, nil
}

func down(m []IDMapEntry, id uint32) uint32 {
	for _, e := range m {
		if id >= e.First && id-e.First < e.Length {
			return e.Parent + (id - e.First)
		}
	}
	return NoID
}

func up(m []IDMapEntry, id uint32) uint32 {
	for _, e := range m {
		if id >= e.Parent && id-e.Parent < e.Length {
			return e.First + (id - e.Parent)
		}
	}
	return NoID
}

// MapToKUID returns the kernel ID of ns's uid, or NoID.
func (ns *UserNamespace) MapToKUID(uid uint32) KUID { return KUID(ns.toKernel(uid, true)) }

// MapToKGID returns the kernel ID of ns's gid, or NoID.
func (ns *UserNamespace) MapToKGID(gid uint32) KGID { return KGID(ns.toKernel(gid, false)) }

// MapFromKUID returns how ns sees k, or NoID. UIDOrOverflow never fails.
func (ns *UserNamespace) MapFromKUID(k KUID) uint32 { return ns.fromKernel(uint32(k), true) }

// MapFromKGID returns how ns sees k, or NoID.
func (ns *UserNamespace) MapFromKGID(k KGID) uint32 { return ns.fromKernel(uint32(k), false) }

// UIDOrOverflow returns how ns sees k, or Overflow.
func (ns *UserNamespace) UIDOrOverflow(k KUID) uint32 { return orOverflow(ns.MapFromKUID(k)) }

// GIDOrOverflow returns how ns sees k, or Overflow.
func (ns *UserNamespace) GIDOrOverflow(k KGID) uint32 { return orOverflow(ns.MapFromKGID(k)) }

func orOverflow(id uint32) uint32 {
	if id == NoID {
		return Overflow
	}
	return id
}

// Mapped reports whether both maps have been written: from then on, what IDs look like in ns never changes.
func (ns *UserNamespace) Mapped() bool { return len(ns.maps(true)) > 0 && len(ns.maps(false)) > 0 }

func (ns *UserNamespace) maps(uid bool) []IDMapEntry {
	ns.mu.RLock()
	defer ns.mu.RUnlock()
	if uid {
		return ns.uidMap
	}
	return ns.gidMap
}

func (ns *UserNamespace) toKernel(id uint32, uid bool) uint32 {
	for ; ns != nil && id != NoID; ns = ns.Parent {
		if ns.Parent == nil {
			return id
		}
		id = down(ns.maps(uid), id)
	}
	return id
}

func (ns *UserNamespace) fromKernel(id uint32, uid bool) uint32 {
	if ns.Parent == nil || id == NoID {
		return id
	}
	id = ns.Parent.fromKernel(id, uid)
	if id == NoID {
		return id
	}
	return up(ns.maps(uid), id)
}
