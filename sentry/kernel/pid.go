package kernel

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/waiter"
	"moat/sentry/kernel/auth"
)

// PIDMax is /proc/sys/kernel/pid_max; numbers are handed out in [1, PIDMax), and wrap to reservedPIDs.
const (
	PIDMax       = 4194304
	reservedPIDs = 300
)

// PID is Linux's struct pid: the numbers, one for each level of nested PID namespaces, by which a task, a process, a process
// group or a session is known. The numbers stay taken for as long as any of the four uses them.
type PID struct {
	ns   *PIDNamespace // the deepest
	nums []int32       // by level; nums[ns.level] is the number in ns

	// Guarded by Kernel.tasksMu.
	task  *Task // alive or zombie, nil after it is reaped
	group *ThreadGroup
	pgrp  *ProcessGroup
	sess  *Session

	// waiters are pidfds: notified when the process has ended.
	waiters waiter.Queue
	// ended: the process is a zombie or gone; freed: it was reaped.
	ended, freed atomic.Bool
}

// In is p's number in ns, or 0 if it has none there.
func (p *PID) In(ns *PIDNamespace) int32 {
	if p == nil || ns.level >= len(p.nums) || !ns.isAncestorOf(p.ns) {
		return 0
	}
	return p.nums[ns.level]
}

// Nums are p's numbers from ns inwards, as in /proc/PID/status' NSpid.
func (p *PID) Nums(ns *PIDNamespace) []int32 {
	if p == nil || p.In(ns) == 0 {
		return nil
	}
	return p.nums[ns.level:]
}

// Namespace is the namespace that p was made in.
func (p *PID) Namespace() *PIDNamespace { return p.ns }

// PIDNamespace is pid_namespaces(7). Its fields are guarded by Kernel.tasksMu.
type PIDNamespace struct {
	nsID
	k      *Kernel
	parent *PIDNamespace
	level  int
	pids   map[int32]*PID
	last   int32
	// init is the process with number 1: it reaps orphans, and its end ends the namespace.
	init *ThreadGroup
	// dead: init has ended, no task can be made here.
	dead bool
	// reaped is notified when a number is freed: init's exit waits there for the namespace to empty.
	reaped waiter.Queue
	tasks  atomic.Int32
}

func (k *Kernel) newPIDNamespace(parent *PIDNamespace, user *auth.UserNamespace) (*PIDNamespace, error) {
	ns := &PIDNamespace{nsID: k.newNSID(user), k: k, parent: parent, pids: make(map[int32]*PID)}
	if parent != nil {
		if ns.level = parent.level + 1; ns.level > 33 { // allPIDs and Linux's 32
			return nil, unix.ENOSPC
		}
	}
	return ns, nil
}

// Parent is the enclosing namespace, nil for the root.
func (ns *PIDNamespace) Parent() *PIDNamespace { return ns.parent }

func (ns *PIDNamespace) isAncestorOf(c *PIDNamespace) bool {
	for c != nil && c.level > ns.level {
		c = c.parent
	}
	return c == ns
}

// allocPID takes a number in ns and every namespace around it. set, if not empty, are the wanted numbers from the deepest namespace outwards (clone3's
// set_tid), which may says whether they may be chosen in a namespace. Preconditions: k.tasksMu is held for writing.
func (k *Kernel) allocPID(ns *PIDNamespace, set []int32, may func(*PIDNamespace) bool) (*PID, error) {
	if len(set) > ns.level { // allPIDs is nobody's
		return nil, unix.EINVAL
	}
	p := &PID{ns: ns, nums: make([]int32, ns.level+1)}
	fail := func(err error) (*PID, error) {
		p.unhash()
		return nil, err
	}
	for n, i := ns, 0; n != nil; n, i = n.parent, i+1 {
		var nr int32
		if i < len(set) {
			nr = set[i]
			if nr <= 0 || nr >= PIDMax || (nr != 1 && n.init == nil) {
				return fail(unix.EINVAL)
			}
			if !may(n) {
				return fail(unix.EPERM)
			}
			if _, used := n.pids[nr]; used {
				return fail(unix.EEXIST)
			}
		} else if nr = n.nextFree(); nr == 0 {
			return fail(unix.EAGAIN)
		} else {
			n.last = nr
		}
		n.pids[nr] = p
		p.nums[n.level] = nr
	}
	if ns.dead || k.allPIDs.dead { // the numbers are used up
		return fail(unix.ENOMEM)
	}
	return p, nil
}

// ThreadsMax bounds /proc/sys/kernel/threads-max, past which fork and clone fail with EAGAIN, and is its default. Each task takes the host a thread.
const ThreadsMax = 1 << 15

// SetThreadsMax sets it.
func (k *Kernel) SetThreadsMax(n uint64) { k.threadsMax.Store(n) }

func (ns *PIDNamespace) nextFree() int32 {
	nr := ns.last
	for range PIDMax {
		if nr++; nr >= PIDMax {
			nr = reservedPIDs
		}
		if _, used := ns.pids[nr]; !used {
			return nr
		}
	}
	return 0
}

// unhash frees p's numbers. Preconditions: tasksMu is held for writing.
func (p *PID) unhash() {
	for n := p.ns; n != nil; n = n.parent {
		if nr := p.nums[n.level]; nr != 0 && n.pids[nr] == p {
			delete(n.pids, nr)
		}
	}
}

// put frees the numbers when nothing uses them any more. Preconditions: tasksMu is held for writing.
func (p *PID) put() {
	if p.task == nil && p.group == nil && p.pgrp == nil && p.sess == nil {
		p.unhash()
	}
}

// PID returns the struct pid with number nr in ns, or nil.
func (ns *PIDNamespace) PID(nr int32) *PID {
	ns.k.tasksMu.RLock()
	defer ns.k.tasksMu.RUnlock()
	return ns.pids[nr]
}

// Task returns the task with thread ID tid in ns, alive or zombie, or nil.
func (ns *PIDNamespace) Task(tid int32) *Task {
	ns.k.tasksMu.RLock()
	defer ns.k.tasksMu.RUnlock()
	return ns.taskLocked(tid)
}

func (ns *PIDNamespace) taskLocked(tid int32) *Task {
	if p := ns.pids[tid]; p != nil {
		return p.task
	}
	return nil
}

// ThreadGroup returns the process with number pid in ns, alive or zombie, or nil.
func (ns *PIDNamespace) ThreadGroup(pid int32) *ThreadGroup {
	ns.k.tasksMu.RLock()
	defer ns.k.tasksMu.RUnlock()
	return ns.groupLocked(pid)
}

func (ns *PIDNamespace) groupLocked(pid int32) *ThreadGroup {
	if p := ns.pids[pid]; p != nil {
		return p.group
	}
	return nil
}

// ThreadGroups returns the processes in ns, zombies included, in no order.
func (ns *PIDNamespace) ThreadGroups() []*ThreadGroup {
	ns.k.tasksMu.RLock()
	defer ns.k.tasksMu.RUnlock()
	gs := make([]*ThreadGroup, 0, len(ns.pids))
	for _, p := range ns.pids {
		if p.group != nil {
			gs = append(gs, p.group)
		}
	}
	return gs
}

// NumTasks is the number of tasks in ns and below, zombies included.
func (ns *PIDNamespace) NumTasks() int { return int(ns.tasks.Load()) }

// LastPID is the number most recently handed out (/proc/loadavg).
func (ns *PIDNamespace) LastPID() int32 {
	ns.k.tasksMu.RLock()
	defer ns.k.tasksMu.RUnlock()
	return ns.last
}
