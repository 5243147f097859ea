package kernel

import (
	"cmp"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/sentry/kernel/auth"
	"moat/sentry/kernel/keys"
	"moat/sentry/linuxerr"
	"moat/sentry/mm"
	"moat/sentry/vfs"
)

const (
	cloneNewTime = 0x80
	cloneNS      = linux.CLONE_NEWNS | linux.CLONE_NEWUTS | linux.CLONE_NEWIPC | linux.CLONE_NEWNET | linux.CLONE_NEWPID | linux.CLONE_NEWCGROUP | cloneNewTime
)

// CloneArgs are clone(2)'s arguments: Flags without the exit signal.
type CloneArgs struct {
	Flags                      uint64
	ExitSignal                 linux.Signal
	Stack, TLS                 uint64 // Stack is the new stack pointer, 0: the parent's
	ParentTID, ChildTID, PIDFD hostarch.Addr
	// CgroupFD is CLONE_INTO_CGROUP's directory, Cgroup what it is of, or nil.
	CgroupFD int32
	Cgroup   *Cgroup
	// SetTID are the wanted numbers, the innermost namespace's first.
	SetTID []int32
	// failed is why the child is not made once it has its numbers: they are used up.
	failed error
}

// Clone is clone(2), clone3(2), fork(2) and vfork(2); it returns the child's thread ID.
func (t *Task) Clone(a *CloneArgs) (int32, error) {
	if err := t.checkClone(a); err != nil {
		return 0, err
	}
	if t.Interrupted() {
		return 0, linuxerr.ERESTARTNOINTR
	}
	c, err := t.copy(a)
	if err != nil {
		return 0, err
	}
	var pidfd *vfs.FileDescription
	fd := int32(-1)
	if a.Flags&linux.CLONE_PIDFD != 0 {
		if pidfd, fd, a.failed = t.reservePIDFD(a); pidfd != nil {
			defer pidfd.DecRef()
		}
	}
	fp, err := t.thread.FPState()
	if err == nil {
		fp = slices.Clone(fp)
		err = c.join(t, a)
	}
	if err != nil {
		if fd >= 0 {
			t.fdt.Close(t, fd)
		}
		c.abandon()
		return 0, err
	}
	if pidfd != nil {
		pidfd.Impl().(*PIDFD).set(c, a.Flags&linux.CLONE_THREAD != 0)
	}
	tid := c.TIDIn(t.PIDNamespace())
	if a.Flags&linux.CLONE_PARENT_SETTID != 0 {
		t.CopyOutUint32(a.ParentTID, uint32(tid))
	}
	vfork := c.vfork
	event := t.traceClone(c, a)
	c.start(fp)
	if event != 0 {
		t.traceEvent(event, uint64(tid))
	}
	if vfork != nil {
		// Only a kill ends the wait; the child lives on.
		t.BlockKillable(vfork)
		t.traceEvent(traceEventVDone, uint64(tid))
	}
	return tid, nil
}

// checkClone refuses the combinations that copy_process refuses.
func (t *Task) checkClone(a *CloneArgs) error {
	has := func(f uint64) bool { return a.Flags&f == f }
	switch {
	case has(linux.CLONE_NEWNS | linux.CLONE_FS), has(linux.CLONE_NEWUSER | linux.CLONE_FS),
		has(linux.CLONE_THREAD) && !has(linux.CLONE_SIGHAND),
		has(linux.CLONE_SIGHAND) && !has(linux.CLONE_VM),
		has(linux.CLONE_SIGHAND | linux.CLONE_CLEAR_SIGHAND),
		has(linux.CLONE_PARENT) && t.tg.unkillable,
		has(linux.CLONE_THREAD) && (a.Flags&(linux.CLONE_NEWUSER|linux.CLONE_NEWPID) != 0 || t.ns.PIDForChildren != t.PIDNamespace()),
		has(linux.CLONE_PIDFD | linux.CLONE_DETACHED),
		has(linux.CLONE_NEWIPC | linux.CLONE_SYSVSEM):
		return unix.EINVAL
	}
	if t.nprocExceeded(t.user.Load()) {
		return unix.EAGAIN
	}
	return nil
}

// copy makes the child with everything that it shares or copies; nothing else can see it yet.
func (t *Task) copy(a *CloneArgs) (*Task, error) {
	flags := a.Flags
	creds := t.Credentials()
	if flags&linux.CLONE_NEWUSER != 0 {
		n, err := t.newUserNS()
		if err != nil {
			return nil, err
		}
		creds = n
	}
	ns, paths, err := t.copyNamespaces(flags, creds)
	if err != nil {
		return nil, err
	}
	var m *mm.MemoryManager
	if flags&linux.CLONE_VM != 0 {
		m = t.mm.Load()
		m.IncUsers()
	} else if m, err = t.mm.Load().Fork(); err != nil {
		dropNamespaces(ns, paths)
		return nil, toErrno(err)
	}
	c := t.k.newTask(t.name, creds, m, t.Cgroup())
	c.ns = ns
	c.regs = t.regs
	c.regs.Rax, c.regs.Orig_rax = 0, ^uint64(0)
	if a.Stack != 0 {
		c.regs.Rsp = a.Stack
	}
	if flags&linux.CLONE_SETTLS != 0 {
		c.regs.Fs_base = a.TLS
	}
	if flags&linux.CLONE_FILES != 0 {
		c.fdt = t.fdt
		c.fdt.IncRef()
	} else {
		c.fdt = t.fdt.Fork(^uint32(0))
	}
	if flags&linux.CLONE_FS != 0 {
		c.fs = t.fs
		c.fs.incRef()
	} else {
		c.fs = t.fs.fork()
	}
	if paths != nil {
		c.fs.set(paths[0], paths[1], true)
	}
	c.inherit(t, a)
	return c, nil
}

// inherit copies attributes of the thread.
func (c *Task) inherit(t *Task, a *CloneArgs) {
	c.ownMask = t.mask()
	if t.hasSaved {
		c.ownMask = t.savedMask
	}
	if a.Flags&(linux.CLONE_VM|linux.CLONE_VFORK) != linux.CLONE_VM {
		c.altStack = t.altStack
	}
	if a.Flags&linux.CLONE_CHILD_CLEARTID != 0 {
		c.clearTID = a.ChildTID
	}
	if a.Flags&linux.CLONE_CHILD_SETTID != 0 {
		c.setTID = a.ChildTID
	}
	if a.Flags&linux.CLONE_VFORK != 0 {
		c.vfork = make(chan struct{})
	}
	p, q := &t.attrs, &c.attrs
	q.noNewPrivs.Store(p.noNewPrivs.Load())
	q.nice.Store(p.nice.Load())
	q.policy.Store(p.policy.Load())
	q.rtPriority.Store(p.rtPriority.Load())
	if p.policy.Load()&linux.SCHED_RESET_ON_FORK != 0 {
		q.policy.Store(linux.SCHED_NORMAL)
		q.rtPriority.Store(0)
		q.nice.Store(max(0, p.nice.Load()))
	}
	q.ioprio.Store(p.ioprio.Load())
	q.timerSlack.Store(p.timerSlack.Load())
	q.defaultSlack = p.timerSlack.Load()
	q.personality.Store(p.personality.Load())
	q.affinity.Store(p.affinity.Load())
	q.tscFault.Store(p.tscFault.Load())
	q.thpDisable.Store(p.thpDisable.Load())
	t.tg.sharesUndo.CompareAndSwap(false, a.Flags&linux.CLONE_SYSVSEM != 0)
	c.rings = t.k.keys.Fork(keys.Caller{Rings: &t.rings, Credentials: t.Credentials()}, a.Flags&linux.CLONE_THREAD != 0)
	c.seccomp.Store(t.seccomp.Load())
	c.straced.Store(t.straced.Load())
}

// newTask returns a task outside of all tables. It takes over a user of m.
func (k *Kernel) newTask(name string, creds *auth.Credentials, m *mm.MemoryManager, cg *Cgroup) *Task {
	t := &Task{k: k, wake: make(chan struct{}, 1), alarm: alarm{C: make(chan time.Time, 1)}, name: name, startTime: time.Now()}
	t.cgroup.Store(cg)
	t.altStack.Flags = linux.SS_DISABLE
	t.creds.Store(creds)
	t.mm.Store(m)
	t.attrs.affinity.Store(k.AllCPUs())
	t.attrs.timerSlack.Store(defaultTimerSlack)
	t.attrs.defaultSlack = defaultTimerSlack
	return t
}

// defaultTimerSlack is 50 us, as for init on Linux.
const defaultTimerSlack = 50000

// abandon undoes copy for a task that was never started.
func (c *Task) abandon() {
	ctx := vfs.WithCredentials(c.Credentials())
	c.fdt.DecRef(ctx)
	c.fs.decRef()
	c.k.keys.Exit(&c.rings)
	if c.ns.Mount != nil {
		c.ns.Mount.DecRef()
	}
	c.mm.Load().DecUsers()
}

// join gives c its numbers and puts it into the process tree as a child of t.
func (c *Task) join(t *Task, a *CloneArgs) error {
	flips, err := c.enter(t, a)
	c.Cgroup().flipped(flips)
	return err
}

// enter is join but for telling of the groups that it returns: see Cgroup.flipped.
func (c *Task) enter(t *Task, a *CloneArgs) (flips int, err error) {
	k := t.k
	u := k.users.get(c.Credentials().RUID)
	c.user.Store(u)
	k.tasksMu.Lock()
	defer k.tasksMu.Unlock()
	cg := cmp.Or(a.Cgroup, t.Cgroup())
	t.tg.sigMu.Lock()
	stop := t.killed || (t.tg.exiting && !t.exiting)
	t.tg.sigMu.Unlock()
	if stop {
		k.users.put(u)
		return 0, linuxerr.ERESTARTNOINTR
	}
	if uint64(k.allPIDs.tasks.Load()) >= k.threadsMax.Load() {
		k.users.put(u)
		return 0, unix.EAGAIN
	}
	pns := c.ns.PIDForChildren
	pid, err := k.allocPID(pns, a.SetTID, t.maySetTID)
	if err == nil {
		if err = a.failed; err == nil && a.Cgroup != nil {
			err = cg.mayHoldLocked()
		}
		if err == nil && cg.full() {
			err = unix.EAGAIN
		}
		if err != nil {
			pid.unhash()
		}
	}
	if err != nil {
		k.users.put(u)
		return 0, err
	}
	u.procs.Add(1)
	k.forks.Add(1)
	c.cgroup.Store(cg)
	if m := c.mm.Load(); m != t.mm.Load() {
		m.ChargeTo(cg.Account())
	}
	flips = c.setPID(pid)
	if a.Flags&linux.CLONE_THREAD != 0 {
		c.joinThread(t.tg)
		return flips, nil
	}
	tg := k.newGroup(c, t.tg, a)
	if a.Flags&linux.CLONE_PARENT != 0 {
		tg.exitSignal = t.tg.exitSignal
		tg.setParent(t.tg.parent, t.tg.parentTask)
	} else {
		tg.exitSignal = a.ExitSignal
		tg.setParent(t.tg, t)
	}
	if pns.init == nil {
		pns.init = tg
		tg.unkillable = true
	}
	return flips, nil
}

// setPID makes pid the number of t, and returns how many groups it is the first task of: see Cgroup.flipped. Preconditions: tasksMu is held for writing.
func (t *Task) setPID(pid *PID) (flips int) {
	pid.task = t
	t.pid.Store(pid)
	t.tid.Store(pid.nums[pid.ns.level])
	for ns := pid.ns; ns != nil; ns = ns.parent {
		ns.tasks.Add(1)
	}
	t.Cgroup().count(1)
	flips = t.Cgroup().alive(1)
	t.work.Or(workFreeze)
	return flips
}

// joinThread adds c to tg. Preconditions: tasksMu is held for writing.
// +checklocksignore: c.tg is tg.
func (c *Task) joinThread(tg *ThreadGroup) {
	c.tg = tg
	c.tgid.Store(tg.leader.tgid.Load())
	tg.sigMu.Lock()
	defer tg.sigMu.Unlock()
	tg.handlers.lend(nil)
	tg.tasks = append(tg.tasks[:len(tg.tasks):len(tg.tasks)], c)
	tg.live++
	if tg.stop.count > 0 {
		c.stopPending = true
		tg.stop.count++
		c.work.Or(workStop)
	}
	c.recalcLocked()
}

// newGroup makes c the leader of a new process, with handlers, limits and group of from. Preconditions: tasksMu is held for writing.
func (k *Kernel) newGroup(c *Task, from *ThreadGroup, a *CloneArgs) *ThreadGroup {
	pid := c.pid.Load()
	tg := &ThreadGroup{k: k, pid: pid, leader: c, tasks: []*Task{c}, live: 1,
		done: make(chan struct{}), startTime: c.startTime}
	pid.group = tg
	c.tg = tg
	c.tgid.Store(c.tid.Load())
	if k.hooks.NewGroupTimers != nil {
		tg.Timers = k.hooks.NewGroupTimers(tg)
	}
	if from == nil {
		tg.handlers = newSignalHandlers()
		return tg
	}
	if a.Flags&linux.CLONE_SIGHAND != 0 {
		tg.handlers = from.handlers
		tg.handlers.lend(nil)
		tg.handlers.mu.Lock()
		tg.handlers.users++
		tg.handlers.mu.Unlock()
	} else {
		tg.handlers = from.handlers.copy(a.Flags&linux.CLONE_CLEAR_SIGHAND != 0)
	}
	lim := from.Limits()
	tg.limits.setAll(&lim)
	tg.limitsMu.Lock()
	tg.watchCPULocked()
	tg.limitsMu.Unlock()
	tg.oomScoreAdj.Store(from.oomScoreAdj.Load())
	tg.oomScoreAdjMin.Store(from.oomScoreAdjMin.Load())
	tg.hasTTY = from.hasTTY
	tg.joinGroup(from.pgrp)
	return tg
}

// setParent. Preconditions: tasksMu is held for writing.
func (tg *ThreadGroup) setParent(p *ThreadGroup, by *Task) {
	tg.parent, tg.parentTask = p, by
	tg.notePPID()
	if p != nil {
		p.children = append(p.children, tg)
		tg.hasSubreaper.Store(p.subreaper.Load() || p.hasSubreaper.Load())
	}
}

// notePPID. Preconditions: tasksMu is held for writing.
func (tg *ThreadGroup) notePPID() {
	if tg.parent == nil {
		tg.ppid.Store(0)
		return
	}
	tg.ppid.Store(tg.parent.pid.In(tg.pid.ns))
}
