package kernel

import (
	"gvisor.dev/gvisor/pkg/abi/linux"
	"moat/sentry/kernel/signal"
)

// traceStop stops t, if it is traced, until its tracer lets it go on or it is killed, and returns the signal that it is to go on with. code is a signal, with an
// event in bits 8-15. For t's own goroutine, with no locks held.
func (t *Task) traceStop(code uint32, message uint64, info *linux.SignalInfo, call SyscallStop) linux.Signal {
	tr := t.tracing.Load()
	if tr == nil || t.Killed() {
		return 0
	}
	if tr.stepped {
		t.regs.Eflags &^= flagTF
		tr.stepped = false
	}
	tr.mu.Lock()
	if t.tracing.Load() != tr { // detached meanwhile
		tr.mu.Unlock()
		return 0
	}
	left := make(chan struct{})
	tr.stopped, tr.reported, tr.code, tr.message, tr.left = true, false, code, message, left
	tr.info, tr.call = info, call
	tr.mu.Unlock()
	t.state.Store(uint32(Traced))
	since := t.pause()
	tr.by.toldOfTracee(t, linux.CLD_TRAPPED, int32(code&0x7f), linux.SA_NOCLDSTOP)
	for {
		tr.mu.Lock()
		if !tr.stopped || t.Killed() {
			break
		}
		tr.mu.Unlock()
		select {
		case <-t.wake:
		case fn := <-tr.requests:
			fn()
		}
	}
	tr.stopped = false
	close(left)
	sig, mode := tr.sig, tr.mode
	tr.sig, tr.info, tr.call = 0, nil, SyscallNone
	tr.mu.Unlock()
	t.state.Store(uint32(Running))
	t.resume(since)
	if mode == TraceStep {
		t.regs.Eflags |= flagTF
		tr.stepped = true
	}
	if t.Killed() {
		return 0
	}
	return sig
}

// toldOfTracee sends a tracer SIGCHLD about t, if its handler has none of the flags, and wakes its waits.
func (by *Task) toldOfTracee(t *Task, why, status int32, flags uint64) {
	tg := by.tg
	info := &linux.SignalInfo{Signo: int32(linux.SIGCHLD), Code: why}
	info.SetPID(t.TIDIn(tg.leader.PIDNamespace()))
	info.SetUID(int32(tg.leader.UserNamespace().UIDOrOverflow(t.Credentials().RUID)))
	info.SetStatus(status)
	if act := tg.handlers.get(linux.SIGCHLD); act.Handler != linux.SIG_IGN && act.Flags&flags == 0 {
		tg.sendNear(by, nil, info, true)
	}
	tg.childEvents.Notify(waitEvents)
}

// traceEvent stops t for an event that its tracer asked to be told of.
func (t *Task) traceEvent(event uint32, message uint64) {
	if t.wantsEvent(event) {
		code := uint32(linux.SIGTRAP) | event<<8
		t.injected(t.traceStop(code, message, t.stopInfo(code), SyscallNone))
	}
}

func (t *Task) wantsEvent(event uint32) bool {
	tr := t.tracing.Load()
	if tr == nil {
		return false
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.options&(1<<event) != 0
}

// stopInfo is the siginfo of a stop with code that is not a signal's (ptrace_do_notify).
func (t *Task) stopInfo(code uint32) *linux.SignalInfo {
	info := &linux.SignalInfo{Signo: int32(code & 0x7f), Code: int32(code)}
	info.SetPID(t.TID())
	info.SetUID(int32(t.UserNamespace().UIDOrOverflow(t.Credentials().RUID)))
	return info
}

// injected queues a signal that a tracer let t go on with after a stop that was not a signal's.
func (t *Task) injected(sig linux.Signal) {
	if sig != 0 {
		t.SendSignal(&linux.SignalInfo{Signo: int32(sig), Code: linux.SI_USER})
	}
}

// traceSignal is ptrace_signal: the tracer sees a signal before it is delivered and may change or drop it. It returns 0 if it is dropped.
func (t *Task) traceSignal(sig linux.Signal, info *linux.SignalInfo) linux.Signal {
	now := t.traceStop(uint32(sig), 0, info, SyscallNone)
	if now != 0 && now != linux.Signal(info.Signo) {
		*info = linux.SignalInfo{Signo: int32(now), Code: linux.SI_USER}
	}
	return now
}

// traceTrapLocked stops t where a PTRACE_EVENT_STOP is due, and reports whether one was. sigMu is dropped meanwhile.
// +checklocks:t.tg.sigMu
func (t *Task) traceTrapLocked() bool {
	tr := t.tracing.Load()
	if tr == nil || !tr.trap {
		return false
	}
	tr.trap = false
	tg := t.tg
	sig := linux.SIGTRAP
	if t.stopped {
		sig = tg.stop.sig
	}
	code := uint32(sig)
	var info *linux.SignalInfo
	if tr.seized {
		code |= traceEventStop << 8
		info = t.stopInfo(code)
	}
	tg.sigMu.Unlock()
	inject := t.traceStop(code, 0, info, SyscallNone)
	tg.sigMu.Lock()
	tr.mu.Lock()
	listen := tr.mode == TraceListen
	tr.mu.Unlock()
	if t.stopped && !listen && t.tracing.Load() == tr {
		t.stopped = false // it leaves the group stop alone
	}
	if inject != 0 && !signal.DefaultStop(inject) {
		tg.sigMu.Unlock()
		t.injected(inject)
		tg.sigMu.Lock()
	}
	return true
}

// listening reports whether the tracer let its tracee go on by PTRACE_LISTEN.
func (tr *tracing) listening() bool {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.mode == TraceListen
}

// tracedSyscall is syscall for a tracee.
func (t *Task) tracedSyscall() {
	skip := false
	if t.callStop(SyscallEntry) {
		skip = int32(t.regs.Orig_rax) == -1 // the tracer does not want it
	}
	if t.Killed() {
		return
	}
	if !skip {
		t.doSyscall()
	}
	if !t.exiting {
		t.callStop(SyscallExit)
	}
}

// callStop stops at a side of a system call if the tracer runs t from one to the next.
func (t *Task) callStop(side SyscallStop) bool {
	tr := t.tracing.Load()
	if tr == nil {
		return false
	}
	tr.mu.Lock()
	want, good := tr.mode == TraceSyscall, tr.options&TraceSysGood != 0
	tr.mu.Unlock()
	if !want {
		return false
	}
	code := uint32(linux.SIGTRAP)
	if good {
		code |= 0x80
	}
	// The message is PTRACE_EVENTMSG_SYSCALL_ENTRY or _EXIT.
	t.injected(t.traceStop(code, uint64(side), t.stopInfo(code), side))
	return true
}

// traceClone makes the child c of a tracee a tracee of the same tracer if that wants it, and returns the event to report. Before c runs.
func (t *Task) traceClone(c *Task, a *CloneArgs) (event uint32) {
	tr := t.tracing.Load()
	if tr == nil || a.Flags&linux.CLONE_UNTRACED != 0 {
		return 0
	}
	switch {
	case a.Flags&linux.CLONE_VFORK != 0:
		event = traceEventVfork
	case a.ExitSignal != linux.SIGCHLD || a.Flags&linux.CLONE_THREAD != 0:
		event = traceEventClone
	default:
		event = traceEventFork
	}
	if !t.wantsEvent(event) {
		event = 0
	}
	if event == 0 && a.Flags&linux.CLONE_PTRACE == 0 {
		return 0
	}
	t.k.tasksMu.Lock()
	tr.mu.Lock()
	options := tr.options
	tr.mu.Unlock()
	if t.tracing.Load() == tr {
		c.traceLocked(tr.by, tr.seized, options)
	}
	t.k.tasksMu.Unlock()
	if tr.seized {
		c.tg.sigMu.Lock()
		if n := c.tracing.Load(); n != nil {
			n.trap = true
			c.setWork(workSignal)
		}
		c.tg.sigMu.Unlock()
	} else {
		c.SendSignal(&linux.SignalInfo{Signo: int32(linux.SIGSTOP), Code: linux.SI_USER})
	}
	return event
}

// traceExec tells a tracer of an execve: by an event, or as in old times by SIGTRAP.
func (t *Task) traceExec(old uint64) {
	tr := t.tracing.Load()
	if tr == nil {
		return
	}
	if t.wantsEvent(traceEventExec) {
		t.traceEvent(traceEventExec, old)
	} else if !tr.seized {
		info := &linux.SignalInfo{Signo: int32(linux.SIGTRAP), Code: linux.SI_USER}
		info.SetPID(t.PID())
		t.SendSignal(info)
	}
}
