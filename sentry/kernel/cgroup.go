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

// Cgroup is what one container's tasks are counted and bounded by, from their birth to their end: a control group that nobody can leave. Limits are 0
// where there is none.
type Cgroup struct {
	// Memory pays for the tasks' pages, and bounds them but the first container's.
	Memory *memory.Account
	// MemoryMax and MemoryLow are in bytes, for the tasks to see; Quota of each Period in microseconds of CPU time; Weight is cpu.weight, 1 to 10000.
	MemoryMax atomic.Uint64
	MemoryLow atomic.Uint64
	Quota     atomic.Int64
	Period    atomic.Int64
	Weight    atomic.Uint64
	// MaxTasks is pids.max: past it fork and clone fail with EAGAIN.
	MaxTasks atomic.Uint64

	tasks    atomic.Int64
	oomKills atomic.Uint64
	// endedUser and endedSys are the CPU times (ns) of tasks that ended.
	endedUser atomic.Int64
	endedSys  atomic.Int64
	// quota is nil where the host sees to it.
	quota atomic.Pointer[quota]

	mu sync.Mutex // a leaf
	// thaw is not nil while the group is frozen, and closed at the end of that.
	thaw chan struct{} // +checklocks:mu
}

// Tasks is the number of tasks, zombies included.
func (cg *Cgroup) Tasks() int { return int(cg.tasks.Load()) }

// OOMKills is the number of processes that were killed for want of memory.
func (cg *Cgroup) OOMKills() uint64 { return cg.oomKills.Load() }

// full reports whether there may be no more tasks.
func (cg *Cgroup) full() bool {
	most := cg.MaxTasks.Load()
	return most != 0 && uint64(cg.tasks.Load()) >= most
}

// leave takes t, which has ended, out of the group.
func (cg *Cgroup) leave(t *Task) {
	ct := t.times()
	cg.endedUser.Add(int64(ct.user))
	cg.endedSys.Add(int64(ct.sys))
	cg.tasks.Add(-1)
}

// CPUTimes are what the tasks of cg have used, ended ones too.
func (k *Kernel) CPUTimes(cg *Cgroup) (user, sys time.Duration) {
	k.tasksMu.RLock()
	defer k.tasksMu.RUnlock()
	user, sys = time.Duration(cg.endedUser.Load()), time.Duration(cg.endedSys.Load())
	for _, p := range k.allPIDs.pids {
		if t := p.task; t != nil && t.cgroup == cg {
			ct := t.times()
			user, sys = user+ct.user, sys+ct.sys
		}
	}
	return user, sys
}

// Members are the processes of cg, zombies included.
func (k *Kernel) Members(cg *Cgroup) []*ThreadGroup {
	k.tasksMu.RLock()
	defer k.tasksMu.RUnlock()
	var gs []*ThreadGroup
	for _, p := range k.allPIDs.pids {
		if p.group != nil && p.group.leader.cgroup == cg {
			gs = append(gs, p.group)
		}
	}
	return gs
}

// KillAll ends every process of cg (cgroup.kill) and waits until they have ended. Nobody may make processes there from outside any more.
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
func (t *Task) MemoryAccount() *memory.Account { return t.cgroup.Memory }

// Cgroup is the control group that t was born into.
func (t *Task) Cgroup() *Cgroup { return t.cgroup }

// SetFrozen keeps the tasks of cg from running guest code, or lets them go on (cgroup.freeze). A call that is on its way is finished first; a task that
// waits in one goes on waiting. Who is killed ends all the same.
func (k *Kernel) SetFrozen(cg *Cgroup, on bool) {
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
		k.Barrier(nil)
	}
}

// stopAll has the tasks of cg come by freeze.
func (k *Kernel) stopAll(cg *Cgroup) {
	k.tasksMu.RLock()
	defer k.tasksMu.RUnlock()
	for _, p := range k.allPIDs.pids {
		if t := p.task; t != nil && t.cgroup == cg {
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
	t.work.And(^workFreeze)
	for {
		ch := t.cgroup.frozen()
		if ch == nil {
			ch = t.k.held(t.cgroup)
		}
		if ch == nil || t.wait(ch, nil, workKill, Sleeping) != nil {
			return
		}
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
func (c Inside) MemoryAccount() *memory.Account { return c.Group.Memory }

// Within is ctx as an Inhabitant. What acts nowhere acts in the first container.
func (k *Kernel) Within(ctx vfs.Context) Inhabitant {
	if i, ok := ctx.(Inhabitant); ok {
		return i
	}
	return Inside{ctx, &k.rootNS, k.rootCgroup}
}

// RootCgroup is the first container's.
func (k *Kernel) RootCgroup() *Cgroup { return k.rootCgroup }

// NewContainer returns namespaces of its own for a container that is not the first, but without mounts and network; names that are "" are the first one's.
func (k *Kernel) NewContainer(host, domain string) (*Namespaces, error) {
	pidns, err := k.newPIDNamespace(k.allPIDs, k.rootUserNS)
	if err != nil {
		return nil, err
	}
	h, d := k.rootNS.UTS.Names()
	return &Namespaces{
		UTS: k.NewUTSNamespace(cmp.Or(host, h), cmp.Or(domain, d), k.rootUserNS), IPC: k.NewIPCNamespace(k.rootUserNS),
		Cgroup: &CgroupNamespace{nsID: k.newNSID(k.rootUserNS), Root: "/"}, Time: k.rootNS.Time, TimeForChildren: k.rootNS.Time, PIDForChildren: pidns,
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
