package kernel

import (
	"cmp"
	"runtime"
	"slices"

	"moat/sentry/mm"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/waiter"
)

// waitEvents is what a group's childEvents are notified with.
const waitEvents = waiter.EventIn

// Exit is _exit(2): t alone ends.
func (t *Task) Exit(code int32) {
	t.beginExit(linux.WaitStatusExit(code & 0xff))
}

// ExitGroup is exit_group(2).
func (t *Task) ExitGroup(code int32) { t.exitGroup(linux.WaitStatusExit(code & 0xff)) }

// KillGroup ends t's process as if by sig.
func (t *Task) KillGroup(sig linux.Signal) { t.exitGroup(linux.WaitStatusTerminationSignal(sig)) }

func (t *Task) exitGroup(status linux.WaitStatus) {
	tg := t.tg
	tg.sigMu.Lock()
	if tg.execer != nil && tg.execer != t && !tg.exiting {
		// Another thread is in execve and has killed this one already.
		tg.sigMu.Unlock()
		t.beginExit(status)
		return
	}
	tg.groupExitLocked(status, t)
	status = tg.exitCode
	tg.sigMu.Unlock()
	t.beginExit(status)
}

// exit is do_exit: t gives up everything and becomes a zombie, or nothing.
func (t *Task) exit() {
	tg := t.tg
	t.traceEvent(traceEventExit, uint64(t.exitCode))
	k := t.k
	t.exitSignals()
	m := t.leaveMM()
	t.final()
	ns := t.ns.IPC
	t.releaseFiles()
	k.keys.Exit(&t.rings)
	k.tasksMu.Lock()
	tg.live--
	last := tg.live == 0
	var hang TTY
	if last {
		tg.sigMu.Lock()
		if !tg.exiting {
			tg.exiting, tg.exitCode = true, t.exitCode
		}
		tg.sigMu.Unlock()
		if tg.isSessionLeader() {
			hang = tg.disassociateTTY()
			tg.pgrp.session.leader = nil
		}
		tg.tracedDead = nil
	}
	t.releaseTracees()
	k.tasksMu.Unlock()
	if hang != nil {
		hang.Hangup()
	}
	if last {
		tg.stopCPUWatch()
		ns.Sem.Exit(tg, t.PID())
		if tg.Timers != nil {
			tg.Timers.Exit()
		}
		if ns := tg.pid.ns; ns.init == tg {
			since := t.pause()
			ns.zap(tg)
			t.resume(since)
		}
	}
	// Linux frees memory before it tells of an end. Who waits goes on sooner here, but where the memory is what is waited for: it is much, or a victim's.
	if m != nil && (m.RSS() > 16<<20 || k.oom.kills.Load() > 0 && k.isVictim(tg)) {
		m.DecUsers()
		m = nil
	}
	t.notifyExit()
	if m != nil {
		runtime.Gosched() // whoever waits for t goes on first
		m.DecUsers()
	}
}

// exitSignals is exit_signals: t takes no more signals; those meant for the process go to others.
func (t *Task) exitSignals() {
	tg := t.tg
	tg.sigMu.Lock()
	t.exitingSignals = true
	t.retargetLocked(^t.mask())
	stopped := t.stopPending && t.leaveStopLocked()
	t.stopPending = false
	tg.sigMu.Unlock()
	if stopped {
		tg.notifyStop(linux.CLD_STOPPED)
	}
}

// leaveMM gives up the address space (mm_release): the robust list and CLONE_CHILD_CLEARTID are honoured, a vfork parent runs on. A small one is
// returned, to be dropped when the parent has been told.
func (t *Task) leaveMM() *mm.MemoryManager {
	m := t.mm.Load()
	t.releaseMM()
	t.mm.Store(nil)
	t.releaseThread()
	if m != nil && !m.Small() {
		m.DecUsers()
		m = nil
	}
	t.endVfork()
	return m
}

// releaseMM does what leaving an address space does inside of it.
func (t *Task) releaseMM() {
	m := t.mm.Load()
	if m == nil {
		return
	}
	t.k.hooks.ExitRobust(t)
	t.robustList.Store(0)
	if t.clearTID != 0 {
		if m.Users() > 1 {
			if t.CopyOutUint32(t.clearTID, 0) == nil {
				t.k.hooks.FutexWake(t, t.clearTID)
			}
		}
		t.clearTID = 0
	}
}

func (t *Task) endVfork() {
	if t.vfork != nil {
		close(t.vfork)
		t.vfork = nil
	}
}

// final freezes t's CPU times.
func (t *Task) final() {
	ct := t.times()
	t.cpu.final.Store(&ct)
}

// releaseFiles drops descriptors, directories and namespaces.
func (t *Task) releaseFiles() {
	t.fdt.DecRef(t)
	t.mu.Lock()
	fs, mnt := t.fs, t.ns.Mount
	t.fdt, t.fs = nil, nil
	t.mu.Unlock()
	fs.decRef()
	if mnt != nil {
		mnt.DecRef()
	}
}

// zap ends every process of ns when its init ends (zap_pid_ns_processes), and waits until they are gone.
func (ns *PIDNamespace) zap(init *ThreadGroup) {
	k := ns.k
	e, ch := waiter.NewChannelEntry(waitEvents)
	ns.reaped.EventRegister(&e)
	defer ns.reaped.EventUnregister(&e)
	k.tasksMu.Lock()
	ns.dead = true
	init.autoReap = true
	for _, c := range slices.Clone(init.children) {
		if c.exitNotified {
			c.reapLocked()
		}
	}
	for _, p := range ns.pids {
		if p.group != nil && p.group != init {
			p.group.SendSignal(kernelInfo(linux.SIGKILL))
		}
	}
	k.tasksMu.Unlock()
	for {
		k.tasksMu.RLock()
		left := ns.tasks.Load() - int32(len(init.tasks))
		k.tasksMu.RUnlock()
		if left <= 0 {
			return
		}
		<-ch
	}
}

// notifyExit is exit_notify: children get a new parent, t becomes a zombie or vanishes, the parent is told when the process has ended.
func (t *Task) notifyExit() {
	k, tg := t.k, t.tg
	k.tasksMu.Lock()
	t.exitDone = true
	cg := t.Cgroup()
	flips := cg.alive(-1)
	t.state.Store(uint32(Zombie))
	t.giveAwayChildren()
	tg.sigMu.Lock()
	t.private.Discard(^linux.SignalSet(0))
	tg.sigMu.Unlock()
	if t != tg.leader {
		t.tracedEndLocked(t.exitCode, nil)
		t.removeLocked()
	}
	alive := 0
	for _, o := range tg.tasks {
		if !o.exitDone {
			alive++
		}
	}
	var done bool
	if alive == 0 {
		tg.endLocked()
		done = true
	} else {
		tg.sigMu.Lock()
		if e := tg.execer; e != nil {
			e.poke()
		}
		tg.sigMu.Unlock()
	}
	mine := t.pid.Load()
	k.tasksMu.Unlock()
	cg.flipped(flips)
	if done {
		tg.pid.waiters.Notify(waiter.ReadableEvents | waiter.EventHUp)
	}
	if mine != tg.pid {
		mine.waiters.Notify(waiter.ReadableEvents | waiter.EventHUp) // PIDFD_THREAD
	}
}

// removeLocked takes t out of its group and frees its number (release_task of one thread). Preconditions: tasksMu is held for writing.
func (t *Task) removeLocked() {
	tg := t.tg
	tg.sigMu.Lock()
	if i := slices.Index(tg.tasks, t); i >= 0 {
		if tg.lastTaker == t {
			tg.lastTaker = tg.tasks[(i+1)%len(tg.tasks)]
		}
		tg.tasks = slices.Delete(slices.Clone(tg.tasks), i, i+1)
	}
	tg.sigMu.Unlock()
	tg.deadTimes.add(t.times())
	tg.deadUsage.add(t)
	t.state.Store(uint32(Dead))
	u := t.user.Load()
	u.procs.Add(-1)
	t.k.users.put(u)
	p := t.pid.Load()
	p.task = nil
	p.ended.Store(true)
	p.freed.Store(true)
	for ns := p.ns; ns != nil; ns = ns.parent {
		ns.tasks.Add(-1)
	}
	t.Cgroup().settle(t)
	t.Cgroup().count(-1)
	p.put()
	for ns := p.ns; ns != nil; ns = ns.parent {
		if ns.dead {
			ns.reaped.Notify(waitEvents)
		}
	}
}

// endLocked makes a group without live tasks a zombie and tells its parent (do_notify_parent). Preconditions: tasksMu is held for writing.
func (tg *ThreadGroup) endLocked() {
	tg.sigMu.Lock()
	tg.exitStatus = tg.exitCode
	tg.shared.Discard(^linux.SignalSet(0))
	tg.sigMu.Unlock()
	tg.exitNotified = true
	tg.pid.ended.Store(true)
	parent := tg.parent
	tg.leader.tracedEndLocked(tg.exitStatus, parent)
	tg.hangupOrphan(parent, true)
	close(tg.done)
	if parent == nil {
		tg.reapLocked()
		return
	}
	reap := parent.autoReap
	if sig := tg.exitSignal; sig != 0 && sig <= linux.SignalMaximum { // clone(2) takes any number up to 255
		act := parent.handlers.get(sig)
		ignored := sig == linux.SIGCHLD && act.Handler == linux.SIG_IGN
		reap = reap || ignored || sig == linux.SIGCHLD && act.Flags&linux.SA_NOCLDWAIT != 0
		if !ignored {
			tg.tellParent(tg.exitInfo(sig))
		}
	}
	if reap {
		tg.reapLocked()
	}
	parent.childEvents.Notify(waitEvents)
}

// tellParent sends info, about tg, to its parent: the thread that made tg takes it first. Preconditions: tasksMu is held.
func (tg *ThreadGroup) tellParent(info *linux.SignalInfo) {
	tg.parent.sendNear(cmp.Or(tg.parentTask, tg.parent.leader), nil, info, true)
}

// exitInfo is childInfo of tg's end.
func (tg *ThreadGroup) exitInfo(sig linux.Signal) *linux.SignalInfo {
	why, st := endOf(tg.exitStatus)
	info := tg.childInfo(why, sig)
	info.SetStatus(st)
	return info
}

// endOf is si_code and si_status of an end.
func endOf(s linux.WaitStatus) (why, status int32) {
	if s.Signaled() {
		return linux.CLD_KILLED, int32(s.TerminationSignal())
	}
	return linux.CLD_EXITED, int32(s.ExitStatus())
}

// childInfo is the info of a signal about tg to its parent. Preconditions: tasksMu is held.
func (tg *ThreadGroup) childInfo(why int32, sig linux.Signal) *linux.SignalInfo {
	info := &linux.SignalInfo{Signo: int32(sig), Code: why}
	l := tg.parent.leader
	info.SetPID(tg.pid.In(l.PIDNamespace()))
	info.SetUID(int32(l.UserNamespace().UIDOrOverflow(tg.leader.Credentials().RUID)))
	ct := tg.timesLocked()
	hostarch.ByteOrder.PutUint64(info.Fields[16:], uint64(ct.user.Milliseconds()/10))
	hostarch.ByteOrder.PutUint64(info.Fields[24:], uint64(ct.sys.Milliseconds()/10))
	return info
}

// reapLocked frees a zombie group (release_task of the leader). Preconditions: tasksMu is held for writing.
func (tg *ThreadGroup) reapLocked() {
	if tg.reaped {
		return
	}
	tg.reaped = true
	if tg.parent != nil {
		tg.parent.children = slices.DeleteFunc(tg.parent.children, func(c *ThreadGroup) bool { return c == tg })
		tg.parent = nil
	}
	tg.leader.removeLocked()
	tg.leaveGroup()
	tg.pid.group = nil
	tg.pid.put()
	if ns := tg.pid.ns; ns.init == tg && ns == tg.k.RootPIDNamespace() {
		tg.k.initDone()
	}
}

// giveAwayChildren is forget_original_parent: t's children go to another thread of the process, to a subreaper, or to init. Preconditions: tasksMu is
// held for writing.
func (t *Task) giveAwayChildren() {
	tg := t.tg
	if len(tg.children) == 0 {
		return
	}
	var heir *Task // one that stays, else one that is about to exit
	for _, o := range tg.tasks {
		if o == t || o.exitDone {
			continue
		}
		if heir == nil {
			heir = o
		}
		if !o.exiting {
			heir = o
			break
		}
	}
	var reaper *ThreadGroup
	children := tg.children
	if heir == nil {
		tg.children = nil
	}
	for _, c := range children {
		if c.parentTask != t && heir != nil {
			continue
		}
		if heir == nil && reaper == nil {
			reaper = tg.findReaper()
		}
		t.sendPdeath(c)
		if heir != nil {
			c.parentTask = heir
			continue
		}
		c.adoptLocked(reaper, tg)
	}
}

// sendPdeath sends c's tasks their PR_SET_PDEATHSIG signals.
func (t *Task) sendPdeath(c *ThreadGroup) {
	for _, o := range c.tasks {
		if sig := o.attrs.pdeathsig.Load(); sig != 0 {
			c.send(nil, t.userInfo(o, linux.Signal(sig), linux.SI_USER), false)
		}
	}
}

// findReaper is find_new_reaper for a process without live threads.
func (tg *ThreadGroup) findReaper() *ThreadGroup {
	ns := tg.pid.ns
	init := ns.init
	if init == tg {
		// The namespace was emptied before its init got here; children from outside remain with nobody.
		return nil
	}
	if tg.hasSubreaper.Load() {
		for p := tg.parent; p != nil && p != init && p.pid.ns == ns; p = p.parent {
			if p.subreaper.Load() && p.live > 0 {
				return p
			}
		}
	}
	return init
}

// adoptLocked gives c to reaper (nil: nobody).
func (c *ThreadGroup) adoptLocked(reaper, old *ThreadGroup) {
	c.parent, c.parentTask = reaper, nil
	c.notePPID()
	for _, o := range c.tasks {
		o.RunAtBoundary((*Task).publishIdentity)
	}
	if reaper == nil {
		if c.exitNotified {
			c.reapLocked()
		}
		return
	}
	reaper.children = append(reaper.children, c)
	c.parentTask = reaper.leader
	c.exitSignal = linux.SIGCHLD
	if reaper.subreaper.Load() || reaper.hasSubreaper.Load() {
		c.hasSubreaper.Store(true)
	}
	if c.exitNotified {
		c.notifyAdopter()
	} else {
		c.hangupOrphan(old, false)
	}
}

// notifyAdopter tells the new parent of a zombie.
func (c *ThreadGroup) notifyAdopter() {
	act := c.parent.handlers.get(linux.SIGCHLD)
	if c.parent.autoReap || act.Handler == linux.SIG_IGN || act.Flags&linux.SA_NOCLDWAIT != 0 {
		p := c.parent
		c.reapLocked()
		p.childEvents.Notify(waitEvents)
		return
	}
	c.tellParent(c.exitInfo(linux.SIGCHLD))
	c.parent.childEvents.Notify(waitEvents)
}
