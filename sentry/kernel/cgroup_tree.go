package kernel

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/waiter"

	"moat/sentry/kernel/auth"
	"moat/sentry/memory"
)

// Controllers is a set of controllers of cgroup version 2.
type Controllers uint8

// The controllers there are.
const (
	CPUController Controllers = 1 << iota
	MemoryController
	PIDsController
	AllControllers = 1<<iota - 1
)

// Bounds of a tree (cgroup.max.depth and cgroup.max.descendants, which Linux does not bound by itself).
const (
	cgroupDepth = 64
	// CgroupsMax is for all containers of a sandbox together.
	CgroupsMax = 1024
)

// cgroupNode is a Cgroup's place in its tree.
type cgroupNode struct {
	id     uint64  // constant, as are name, parent and owner
	name   string  // "" of a root
	parent *Cgroup // nil of a root
	owner  FileAttr

	// Guarded by Kernel.tasksMu: groups below, by name; which controllers those have; whether rmdir took this one away.
	children map[string]*Cgroup
	subtree  Controllers
	removed  bool

	// Events tells of what cgroup.events shows (EventsVersion), OOMs of OOMKills.
	Events, OOMs  waiter.Queue
	eventsVersion atomic.Uint64
	// devices says what devices may be used, nil for all; changed under tasksMu.
	devices atomic.Pointer[DevicePrograms]
	// files are the owners and permissions that were set, by the file's name; guarded by Cgroup.mu.
	files map[string]FileAttr
}

// FileAttr is who owns a file of a cgroup's directory, and its permissions.
type FileAttr struct {
	UID  auth.KUID
	GID  auth.KGID
	Perm uint16
}

const cgroupEvent = waiter.EventPri | waiter.EventErr

// NewCgroup returns the root of a container's tree.
func (k *Kernel) NewCgroup(a *memory.Account) *Cgroup {
	cg := &Cgroup{cgroupNode: cgroupNode{id: k.cgroupIDs.Add(1)}}
	cg.memory.Store(a)
	return cg
}

// ID is a number that no other group has.
func (cg *Cgroup) ID() uint64 { return cg.id }

// Parent is the group above; nil: cg is a container's root.
func (cg *Cgroup) Parent() *Cgroup { return cg.parent }

// Name is the name in the parent.
func (cg *Cgroup) Name() string { return cg.name }

// Populated reports whether there are tasks in cg or below.
func (cg *Cgroup) Populated() bool { return cg.live.Load() > 0 }

// EventsVersion changes when cgroup.events does.
func (cg *Cgroup) EventsVersion() uint64 { return cg.eventsVersion.Load() }

// Below reports whether cg is top, or a group below that.
func (cg *Cgroup) Below(top *Cgroup) bool {
	for ; cg != nil; cg = cg.parent {
		if cg == top {
			return true
		}
	}
	return false
}

// CommonWith is the lowest group that both are below of or are; nil: they are in different containers.
func (cg *Cgroup) CommonWith(o *Cgroup) *Cgroup {
	for cg != nil && !o.Below(cg) {
		cg = cg.parent
	}
	return cg
}

// PathFrom is cg's path as seen in a namespace with this root (cgroup_namespaces(7)): "/..", once for each level above.
func (cg *Cgroup) PathFrom(root *Cgroup) string {
	up := ""
	for root != nil && !cg.Below(root) {
		root, up = root.parent, up+"/.."
	}
	down := ""
	for ; cg != root; cg = cg.parent {
		if cg.parent == nil {
			break // another container's
		}
		down = "/" + cg.name + down
	}
	if up+down == "" {
		return "/"
	}
	return up + down
}

// alive adds n to the tasks that are no zombies, and returns how many groups, from cg upwards, were or became empty by that: for flipped.
// Preconditions: tasksMu is held for writing.
func (cg *Cgroup) alive(n int64) (flips int) {
	for ; cg != nil; cg = cg.parent {
		if now := cg.live.Add(n); now == 0 || now == n {
			flips++
		}
	}
	return flips
}

// flipped tells of what alive returned. Preconditions: tasksMu is not held.
func (cg *Cgroup) flipped(flips int) {
	for ; flips > 0; flips, cg = flips-1, cg.parent {
		cg.eventsVersion.Add(1)
		cg.Events.Notify(cgroupEvent)
	}
}

// Children are the groups in cg, by ID.
func (k *Kernel) Children(cg *Cgroup) []*Cgroup {
	k.tasksMu.RLock()
	defer k.tasksMu.RUnlock()
	return slices.SortedFunc(maps.Values(cg.children), func(a, b *Cgroup) int { return cmp.Compare(a.id, b.id) })
}

// Child is the group with this name in cg, or nil.
func (k *Kernel) Child(cg *Cgroup, name string) *Cgroup {
	k.tasksMu.RLock()
	defer k.tasksMu.RUnlock()
	return cg.children[name]
}

// Removed reports whether the group is gone.
func (k *Kernel) Removed(cg *Cgroup) bool {
	k.tasksMu.RLock()
	defer k.tasksMu.RUnlock()
	return cg.removed
}

// Descendants is the number of groups below cg.
func (k *Kernel) Descendants(cg *Cgroup) int {
	k.tasksMu.RLock()
	defer k.tasksMu.RUnlock()
	n := -1
	cg.walkLocked(func(*Cgroup) { n++ })
	return n
}

func (cg *Cgroup) walkLocked(f func(*Cgroup)) {
	f(cg)
	for _, c := range cg.children {
		c.walkLocked(f)
	}
}

// Controllers are those that cg has, and those that it passes on to its children.
func (k *Kernel) Controllers(cg *Cgroup) (own, subtree Controllers) {
	k.tasksMu.RLock()
	defer k.tasksMu.RUnlock()
	return cg.controllersLocked(), cg.subtree
}

func (cg *Cgroup) controllersLocked() Controllers {
	if cg.parent == nil {
		return AllControllers
	}
	return cg.parent.subtree
}

// MakeCgroup makes a group in cg (cgroup_mkdir): ENOENT if that is gone, EEXIST, EAGAIN beyond the bounds, ENOSPC where memory can be counted for no more groups.
func (k *Kernel) MakeCgroup(cg *Cgroup, name string, own FileAttr) (*Cgroup, error) {
	if strings.Contains(name, "\n") {
		return nil, unix.EINVAL
	}
	k.tasksMu.Lock()
	defer k.tasksMu.Unlock()
	depth := 0
	for c := cg; c != nil; c = c.parent {
		depth++
	}
	switch {
	case cg.removed:
		return nil, unix.ENOENT
	case cg.children[name] != nil:
		return nil, unix.EEXIST
	case depth > cgroupDepth, k.cgroups >= CgroupsMax:
		return nil, unix.EAGAIN
	}
	c := k.NewCgroup(cg.Account())
	c.name, c.parent = name, cg
	c.owner, c.files = own, map[string]FileAttr{"": own}
	if err := c.accountLocked(cg.subtree); err != nil {
		return nil, err
	}
	if cg.children == nil {
		cg.children = map[string]*Cgroup{}
	}
	cg.children[name] = c
	k.cgroups++
	return c, nil
}

// RemoveCgroup takes an empty group away (cgroup_rmdir): EBUSY if it has tasks or groups.
func (k *Kernel) RemoveCgroup(cg *Cgroup) error {
	k.tasksMu.Lock()
	defer k.tasksMu.Unlock()
	switch {
	case cg.parent == nil, cg.live.Load() > 0, len(cg.children) > 0:
		return unix.EBUSY
	case cg.removed:
		return unix.ENOENT
	}
	k.endCgroupLocked(cg)
	return nil
}

// EndCgroups gives up a container's tree, which has no tasks any more.
func (k *Kernel) EndCgroups(root *Cgroup) {
	k.tasksMu.Lock()
	defer k.tasksMu.Unlock()
	var all []*Cgroup
	root.walkLocked(func(cg *Cgroup) { all = append(all, cg) })
	for _, cg := range all[1:] {
		k.endCgroupLocked(cg)
	}
	root.Account().End()
}

// +checklocks:k.tasksMu
func (k *Kernel) endCgroupLocked(cg *Cgroup) {
	_ = cg.accountLocked(0) // cannot fail
	cg.removed = true
	delete(cg.parent.children, cg.name)
	k.cgroups--
}

// accountLocked gives cg an account of its own if have says that it has the memory controller, else the parent's.
func (cg *Cgroup) accountLocked(have Controllers) error {
	old, up := cg.Account(), cg.parent.Account()
	own := old != up
	if own == (have&MemoryController != 0) {
		return nil
	}
	a := up
	if !own {
		var err error
		if a, err = up.NewAccount(); err != nil {
			return err
		}
	} else {
		old.End()
	}
	cg.walkLocked(func(c *Cgroup) { c.memory.CompareAndSwap(old, a) })
	return nil
}

// SetControllers adds to and takes from the controllers of cg's children (cgroup.subtree_control): ENOENT for one that cg has not, EBUSY for one that a child passes on,
// or if a group that is no root has tasks of its own.
func (k *Kernel) SetControllers(cg *Cgroup, add, take Controllers) error {
	k.tasksMu.Lock()
	defer k.tasksMu.Unlock()
	now := (cg.subtree | add) &^ take
	switch {
	case cg.removed:
		return unix.ENODEV
	case add&^cg.controllersLocked() != 0:
		return unix.ENOENT
	case cg.parent != nil && add != 0 && k.ownTasksLocked(cg):
		return unix.EBUSY
	}
	for _, c := range cg.children {
		if c.subtree&^now != 0 {
			return unix.EBUSY
		}
	}
	for _, c := range cg.children {
		if err := c.accountLocked(now); err != nil {
			for _, c := range cg.children {
				_ = c.accountLocked(cg.subtree) // as it was, with an account for each
			}
			return err
		}
		c.reset(cg.subtree &^ now)
	}
	cg.subtree = now
	for _, p := range k.allPIDs.pids {
		if t := p.task; t != nil && t.Cgroup().Below(cg) {
			t.chargeLocked()
		}
	}
	return nil
}

// reset has cg begin anew with what belongs to controllers that it loses.
func (cg *Cgroup) reset(lost Controllers) {
	if lost&PIDsController != 0 {
		cg.MaxTasks.Store(0)
	}
	if lost&CPUController != 0 {
		cg.Quota.Store(0)
		cg.Period.Store(0)
		cg.Weight.Store(0)
	}
	if lost&MemoryController != 0 {
		cg.OOMGroup.Store(false)
		for _, n := range [...]*atomic.Uint64{&cg.MemoryMax, &cg.MemoryMin, &cg.MemoryLow, &cg.MemoryHigh, &cg.SwapMax, &cg.oomKills} {
			n.Store(0)
		}
	}
}

// SetMemoryMax bounds the memory of cg, in bytes; 0: no bound. ENODEV if it has no account of its own any more.
func (k *Kernel) SetMemoryMax(cg *Cgroup, n uint64) error {
	k.tasksMu.RLock()
	defer k.tasksMu.RUnlock()
	if cg.removed || cg.controllersLocked()&MemoryController == 0 {
		return unix.ENODEV
	}
	cg.MemoryMax.Store(n)
	cg.Account().SetLimit(n)
	return nil
}

// chargeLocked has t's address space paid for by its group.
func (t *Task) chargeLocked() {
	if m := t.mm.Load(); m != nil {
		m.ChargeTo(t.MemoryAccount())
	}
}

func (k *Kernel) ownTasksLocked(cg *Cgroup) bool {
	n := cg.live.Load()
	for _, c := range cg.children {
		n -= c.live.Load()
	}
	return n > 0
}

// mayHoldLocked says whether tasks may come into cg: ENODEV if it is gone, EBUSY if it passes controllers on and is no root (the "no internal process" rule).
func (cg *Cgroup) mayHoldLocked() error {
	switch {
	case cg.removed:
		return unix.ENODEV
	case cg.subtree != 0 && cg.parent != nil:
		return unix.EBUSY
	}
	return nil
}

// Attach moves the process to cg, with all its threads. What they have used stays where it was.
func (k *Kernel) Attach(tg *ThreadGroup, cg *Cgroup) error {
	k.tasksMu.Lock()
	if err := cg.mayHoldLocked(); err != nil {
		k.tasksMu.Unlock()
		return err
	}
	told := map[*Cgroup]int{}
	for _, t := range tg.tasks {
		old := t.Cgroup()
		if t.exitDone || old == cg {
			continue
		}
		old.settle(t)
		old.count(-1)
		cg.count(1)
		told[cg] = max(told[cg], cg.alive(1)) // before the old one's: what both are below of is never empty between
		told[old] = max(told[old], old.alive(-1))
		t.cgroup.Store(cg)
		t.chargeLocked()
		t.setWork(workFreeze)
	}
	k.tasksMu.Unlock()
	for cg, flips := range told {
		cg.flipped(flips)
	}
	return nil
}

// changed tells of a change of cgroup.events in cg and below.
func (k *Kernel) changed(cg *Cgroup) {
	var all []*Cgroup
	k.tasksMu.RLock()
	cg.walkLocked(func(c *Cgroup) { all = append(all, c) })
	k.tasksMu.RUnlock()
	for _, c := range all {
		c.flipped(1)
	}
}

// Attr are the owner and permissions of a file in cg's directory, "" for that itself; perm are those that it begins with.
func (cg *Cgroup) Attr(name string, perm uint16) FileAttr {
	cg.mu.Lock()
	defer cg.mu.Unlock()
	if a, ok := cg.files[name]; ok {
		return a
	}
	return FileAttr{cg.owner.UID, cg.owner.GID, perm}
}

// SetAttr sets them.
func (cg *Cgroup) SetAttr(name string, a FileAttr) {
	cg.mu.Lock()
	defer cg.mu.Unlock()
	if cg.files == nil {
		cg.files = map[string]FileAttr{}
	}
	cg.files[name] = a
}
