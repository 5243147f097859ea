package kernel

import (
	"cmp"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"

	"moat/sentry/memory"
	"moat/sentry/vfs"
)

// Cgroup is a control group: what tasks are counted and bounded by. Each container has a tree of them, whose root nobody can leave; what is counted of one
// counts in those above too. Limits are 0 where there is none.
type Cgroup struct {
	// memory pays for the tasks' pages, and bounds them but the first container's. Without the memory controller it is the parent's.
	memory atomic.Pointer[memory.Account]
	// MemoryMax, MemoryMin, MemoryLow, MemoryHigh and SwapMax (the last two one more than what they are) are in bytes, for the tasks to see; OOMGroup has all tasks
	// killed where one is. Quota of each Period is in microseconds of CPU time; Weight is cpu.weight, 1 to 10000.
	MemoryMax  atomic.Uint64
	MemoryMin  atomic.Uint64
	MemoryLow  atomic.Uint64
	MemoryHigh atomic.Uint64
	SwapMax    atomic.Uint64
	OOMGroup   atomic.Bool
	Quota      atomic.Int64
	Period     atomic.Int64
	Weight     atomic.Uint64
	// MaxTasks is one more than pids.max, past which fork and clone fail with EAGAIN.
	MaxTasks atomic.Uint64

	tasks    atomic.Int64
	live     atomic.Int64 // tasks that are no zombies
	oomKills atomic.Uint64
	// endedUser and endedSys are the CPU times (ns) of tasks that ended.
	endedUser atomic.Int64
	endedSys  atomic.Int64
	// quota is nil where the host sees to it.
	quota atomic.Pointer[quota]

	mu sync.Mutex // a leaf
	// thaw is not nil while the group is frozen, and closed at the end of that.
	thaw chan struct{} // +checklocks:mu

	// Host reads, for the root of a sandbox's first container, what the host counts of the sandbox's memory, in bytes, and how much of that is its cache of files
	// (inactive and active): nil where it does not tell. Set before the first task.
	Host func() (used, inactive, active uint64)

	cgroupNode
}

// Tasks is the number of tasks, zombies included.
func (cg *Cgroup) Tasks() int { return int(cg.tasks.Load()) }

// OOMKills is the number of processes that were killed for want of memory.
func (cg *Cgroup) OOMKills() uint64 { return cg.oomKills.Load() }

// Account is who pays for the tasks' pages.
func (cg *Cgroup) Account() *memory.Account { return cg.memory.Load() }

// MemoryUsed are the bytes in use by the tasks and, of a sandbox's first container, by moat, which to the tasks is their kernel; and how many of them are the host's
// cache of files (inactive and active), and the kernel's. The bound is for the tasks alone, see boot.Overhead.
func (cg *Cgroup) MemoryUsed() (used, inactive, active, kernel uint64) {
	used = cg.Account().Used()
	if cg.Host != nil {
		all, i, a := cg.Host()
		if own := used + i + a; all > own {
			return all, i, a, all - own
		}
	}
	return used, 0, 0, 0
}

// full reports whether there may be no more tasks.
func (cg *Cgroup) full() bool {
	for ; cg != nil; cg = cg.parent {
		if most := cg.MaxTasks.Load(); most != 0 && uint64(cg.tasks.Load())+1 >= most {
			return true
		}
	}
	return false
}

// count adds n tasks.
func (cg *Cgroup) count(n int64) {
	for ; cg != nil; cg = cg.parent {
		cg.tasks.Add(n)
	}
}

// settle adds what t has used in cg to what ended tasks have. Preconditions: tasksMu is held for writing.
func (cg *Cgroup) settle(t *Task) {
	ct := t.times()
	for ; cg != nil; cg = cg.parent {
		cg.endedUser.Add(int64(ct.user - t.before.user))
		cg.endedSys.Add(int64(ct.sys - t.before.sys))
	}
	t.before = ct
}

// CPUTimes are what the tasks of cg have used, ended ones too.
func (k *Kernel) CPUTimes(cg *Cgroup) (user, sys time.Duration) {
	k.tasksMu.RLock()
	defer k.tasksMu.RUnlock()
	user, sys = time.Duration(cg.endedUser.Load()), time.Duration(cg.endedSys.Load())
	for _, p := range k.allPIDs.pids {
		if t := p.task; t != nil && t.Cgroup().Below(cg) {
			ct := t.times()
			user, sys = user+ct.user-t.before.user, sys+ct.sys-t.before.sys
		}
	}
	return user, sys
}

// Members are the processes of cg and the groups below it, zombies included.
func (k *Kernel) Members(cg *Cgroup) []*ThreadGroup {
	k.tasksMu.RLock()
	defer k.tasksMu.RUnlock()
	var gs []*ThreadGroup
	for _, p := range k.allPIDs.pids {
		if p.group != nil && p.group.leader.Cgroup().Below(cg) {
			gs = append(gs, p.group)
		}
	}
	return gs
}

// KillGroup sends every process of cg SIGKILL (cgroup.kill).
func (k *Kernel) KillGroup(cg *Cgroup) {
	for _, tg := range k.Members(cg) {
		tg.SendSignal(kernelInfo(linux.SIGKILL))
	}
}

// KillAll ends every process of cg and waits until they have ended. Nobody may make processes there from outside any more.
func (k *Kernel) KillAll(cg *Cgroup) {
	for again := true; again; {
		again = false
		for _, tg := range k.Members(cg) {
			select {
			case <-tg.done:
				continue
			default:
			}
			again = true
			tg.SendSignal(kernelInfo(linux.SIGKILL))
			<-tg.done
		}
	}
}

// MemoryAccount is who pays for what t makes.
func (t *Task) MemoryAccount() *memory.Account { return t.Cgroup().Account() }

// Cgroup is t's control group.
func (t *Task) Cgroup() *Cgroup { return t.cgroup.Load() }

// SetFrozen is Freeze, and returns once no task runs.
func (k *Kernel) SetFrozen(cg *Cgroup, on bool) {
	k.Freeze(cg, on)
	if on {
		k.Barrier(nil)
	}
}

// Freeze keeps the tasks of cg from running guest code, or lets them go on (cgroup.freeze). A call that is on its way is finished first; a task that
// waits in one goes on waiting. Who is killed ends all the same.
func (k *Kernel) Freeze(cg *Cgroup, on bool) {
	cg.mu.Lock()
	was := cg.thaw
	switch {
	case on && was == nil:
		cg.thaw = make(chan struct{})
	case !on && was != nil:
		close(was)
		cg.thaw = nil
	}
	cg.mu.Unlock()
	if on {
		k.stopAll(cg)
	}
	k.changed(cg)
}

// stopAll has the tasks of cg come by freeze.
func (k *Kernel) stopAll(cg *Cgroup) {
	k.tasksMu.RLock()
	defer k.tasksMu.RUnlock()
	for _, p := range k.allPIDs.pids {
		if t := p.task; t != nil && t.Cgroup().Below(cg) {
			t.setWork(workFreeze)
		}
	}
}

// Frozen reports whether the tasks of cg are kept from running.
func (cg *Cgroup) Frozen() bool { return cg.frozen() != nil }

func (cg *Cgroup) frozen() <-chan struct{} {
	cg.mu.Lock()
	defer cg.mu.Unlock()
	return cg.thaw
}

// freeze keeps t at the boundary for as long as its group is frozen or has used up its quota, or until it is killed.
func (t *Task) freeze() {
	for {
		t.work.And(^workFreeze)
		var ch <-chan struct{}
		for cg := t.Cgroup(); cg != nil && ch == nil; cg = cg.parent {
			if ch = cg.frozen(); ch == nil {
				ch = t.k.held(cg)
			}
		}
		if ch == nil || t.wait(ch, nil, workKill|workFreeze, Sleeping) != nil && t.work.Load()&workFreeze == 0 {
			break
		}
	}
	if t.sleepsInPlace() == 0 {
		t.publishIdentity()
	}
}

// Inhabitant is a vfs.Context that acts within namespaces: a Task, or an Inside.
type Inhabitant interface {
	vfs.Context
	Namespaces() Namespaces
	PIDNamespace() *PIDNamespace
	Cgroup() *Cgroup
}

// Inside is a Context of the kernel itself that sets up a container.
type Inside struct {
	vfs.Context
	NS    *Namespaces
	Group *Cgroup
}

// Namespaces, PIDNamespace and Cgroup are the container's.
func (c Inside) Namespaces() Namespaces { return *c.NS }

// PIDNamespace implements Inhabitant.
func (c Inside) PIDNamespace() *PIDNamespace { return c.NS.PIDForChildren }

// Cgroup implements Inhabitant.
func (c Inside) Cgroup() *Cgroup { return c.Group }

// MemoryAccount is the container's.
func (c Inside) MemoryAccount() *memory.Account { return c.Group.Account() }

// Within is ctx as an Inhabitant. What acts nowhere acts in the first container.
func (k *Kernel) Within(ctx vfs.Context) Inhabitant {
	if i, ok := ctx.(Inhabitant); ok {
		return i
	}
	return Inside{ctx, &k.rootNS, k.rootCgroup}
}

// RootCgroup is the first container's.
func (k *Kernel) RootCgroup() *Cgroup { return k.rootCgroup }

// NewContainer returns namespaces of its own for a container in cg that is not the first, but without mounts and network; names that are "" are the first one's.
func (k *Kernel) NewContainer(host, domain string, cg *Cgroup) (*Namespaces, error) {
	pidns, err := k.newPIDNamespace(k.allPIDs, k.rootUserNS)
	if err != nil {
		return nil, err
	}
	h, d := k.rootNS.UTS.Names()
	return &Namespaces{
		UTS: k.NewUTSNamespace(cmp.Or(host, h), cmp.Or(domain, d), k.rootUserNS), IPC: k.NewIPCNamespace(k.rootUserNS),
		Cgroup: &CgroupNamespace{nsID: k.newNSID(k.rootUserNS), Root: cg}, Time: k.rootNS.Time, TimeForChildren: k.rootNS.Time, PIDForChildren: pidns,
	}, nil
}

// Deliver sends the process, or with group its process group, a signal from outside of all containers: ESRCH if it has ended.
func (tg *ThreadGroup) Deliver(sig linux.Signal, group bool) error {
	tg.k.tasksMu.RLock()
	defer tg.k.tasksMu.RUnlock()
	if tg.pgrp == nil {
		return unix.ESRCH
	}
	info := &linux.SignalInfo{Signo: int32(sig), Code: linux.SI_USER}
	if group {
		tg.pgrp.signal(info)
		return nil
	}
	return tg.SendSignal(info)
}
