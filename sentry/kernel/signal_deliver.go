package kernel

import (
	"moat/sentry/kernel/signal"
	"moat/sentry/linuxerr"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

// groupStop is the state of a job-control stop of a thread group. Guarded by ThreadGroup.sigMu.
type groupStop struct {
	// dequeued: a stop signal was taken and no SIGCONT came since.
	dequeued bool
	// count is how many tasks have yet to stop; done: all have.
	count int
	done  bool
	sig   linux.Signal
	// waitSig is the stop that wait(2) has not been told of, or 0; continued likewise.
	waitSig   linux.Signal
	continued bool
	// notify is CLD_STOPPED or CLD_CONTINUED when the parent must be told by the next task that passes its boundary.
	notify int32
}

// handleWork does what stands between t and the guest. When it returns the task may enter the guest, or t.exiting is set.
func (t *Task) handleWork() {
	for !t.exiting {
		w := t.work.Load()
		if w == 0 {
			return
		}
		if w&workKill != 0 {
			t.exitGroupKilled()
			return
		}
		if w&workFreeze != 0 {
			t.freeze()
			continue
		}
		if w&workNotify != 0 {
			t.runNotifications()
		}
		if w&(workSignal|workStop|workRestart) != 0 {
			t.deliverSignals()
			if t.exiting {
				return
			}
		}
	}
}

// exitGroupKilled ends t because its group is exiting, or because another thread execs.
func (t *Task) exitGroupKilled() {
	t.tg.sigMu.Lock()
	code := t.exitCode
	if t.tg.exiting {
		code = t.tg.exitCode
	}
	t.tg.sigMu.Unlock()
	t.beginExit(code)
}

// deliverSignals is arch_do_signal_or_restart: it delivers one signal to a handler, or finishes the interrupted call.
func (t *Task) deliverSignals() {
	var info linux.SignalInfo
	act, ok := t.nextSignal(&info)
	if t.exiting || t.Killed() {
		return
	}
	if ok {
		t.restartForHandler(act)
		t.work.And(^workRestart)
		t.runHandler(&info, act)
		return
	}
	t.restartWithoutHandler()
	t.work.And(^workRestart)
	t.RestoreSignalMask()
}

// inSyscall reports whether the registers are those of a system call whose result may ask for a restart.
func (t *Task) restartCode() unix.Errno {
	if int64(t.regs.Orig_rax) < 0 || int64(t.regs.Rax) > 0 {
		return 0
	}
	return unix.Errno(-t.regs.Rax)
}

// restartForHandler is handle_signal's choice: EINTR or run the call again after the handler.
func (t *Task) restartForHandler(act linux.SigAction) {
	again := false
	switch t.restartCode() {
	case linuxerr.ERESTART_RESTARTBLOCK, linuxerr.ERESTARTNOHAND:
	case linuxerr.ERESTARTSYS:
		again = act.Flags&linux.SA_RESTART != 0
	case linuxerr.ERESTARTNOINTR:
		again = true
	default:
		return
	}
	if again {
		t.regs.Rax = t.regs.Orig_rax
		t.regs.Rip -= 2
	} else {
		t.regs.Rax = ^uint64(4 - 1) // -EINTR
	}
	t.regs.Orig_rax = ^uint64(0)
}

// restartWithoutHandler runs the call again if it was interrupted and no handler runs.
func (t *Task) restartWithoutHandler() {
	switch t.restartCode() {
	case linuxerr.ERESTARTNOHAND, linuxerr.ERESTARTSYS, linuxerr.ERESTARTNOINTR:
		t.regs.Rax = t.regs.Orig_rax
		t.regs.Rip -= 2
	case linuxerr.ERESTART_RESTARTBLOCK:
		t.regs.Rax = sysRestartSyscall
		t.regs.Rip -= 2
	default:
		return
	}
	t.regs.Orig_rax = ^uint64(0)
}

const sysRestartSyscall = 219

// nextSignal is get_signal: it dequeues until a signal has a handler, doing default actions on the way.
func (t *Task) nextSignal(info *linux.SignalInfo) (act linux.SigAction, ok bool) {
	tg := t.tg
	tg.sigMu.Lock()
	defer tg.sigMu.Unlock()
	for {
		if t.killed {
			return act, false
		}
		if t.traceTrapLocked() {
			continue
		}
		if why := tg.stop.notify; why != 0 {
			tg.stop.notify = 0
			tg.sigMu.Unlock()
			tg.notifyStop(why)
			tg.sigMu.Lock()
			continue
		}
		if t.stopPending {
			t.stopLocked()
			continue
		}
		sig := t.dequeueLocked(t.mask(), info)
		if sig == 0 {
			t.recalcLocked()
			return act, false
		}
		if sig != linux.SIGKILL && t.tracing.Load() != nil {
			tg.sigMu.Unlock()
			sig = t.traceSignal(sig, info)
			tg.sigMu.Lock()
			if sig == 0 {
				continue
			}
			if signal.Has(t.mask(), sig) {
				t.private.Add(info, t.userCounter(), ^uint64(0))
				continue
			}
		}
		act = t.takeAction(sig)
		switch {
		case act.Handler == linux.SIG_IGN:
		case act.Handler != linux.SIG_DFL:
			t.recalcLocked()
			return act, true
		case signal.DefaultIgnored(sig):
		case tg.unkillable && sig != linux.SIGSTOP && sig != linux.SIGKILL && !t.forced:
		case signal.DefaultStop(sig):
			if t.beginStopLocked(sig) {
				continue
			}
		default:
			tg.groupExitLocked(linux.WaitStatusTerminationSignal(sig), t)
			code := tg.exitCode
			tg.sigMu.Unlock()
			t.logFatal(sig, info)
			t.beginExit(code)
			tg.sigMu.Lock()
			return act, false
		}
	}
}

// takeAction returns sig's action, resetting it if it is SA_RESETHAND. Preconditions: sigMu is held.
func (t *Task) takeAction(sig linux.Signal) linux.SigAction {
	h := t.tg.handlers
	h.mu.Lock()
	defer h.mu.Unlock()
	act := h.getLocked(sig)
	if act.Handler > linux.SIG_IGN && act.Flags&linux.SA_RESETHAND != 0 {
		h.resetLocked(sig)
	}
	return act
}

// dequeueLocked takes the next signal not in mask: synchronous ones first, then the thread's own, then the process'.
// +checklocks:t.tg.sigMu
func (t *Task) dequeueLocked(mask linux.SignalSet, info *linux.SignalInfo) linux.Signal {
	sig := t.private.Next(mask)
	p := &t.private
	if sig == 0 {
		if sig = t.tg.shared.Next(mask); sig == 0 {
			return 0
		}
		p = &t.tg.shared
	}
	p.Dequeue(sig, info)
	if signal.DefaultStop(sig) {
		t.tg.stop.dequeued = true
	}
	return sig
}

// beginStopLocked is do_signal_stop for a dequeued stop signal: true when t has stopped and run again. sigMu is dropped meanwhile.
// +checklocks:t.tg.sigMu
func (t *Task) beginStopLocked(sig linux.Signal) bool {
	tg := t.tg
	if sig != linux.SIGSTOP {
		// Stop signals from a terminal do nothing in an orphaned process group.
		tg.sigMu.Unlock()
		tg.k.tasksMu.RLock()
		orphaned := tg.pgrp != nil && tg.pgrp.orphaned(nil)
		tg.k.tasksMu.RUnlock()
		tg.sigMu.Lock()
		if orphaned {
			return false
		}
	}
	s := &tg.stop
	if !s.dequeued || tg.exiting || t.killed || tg.execer != nil {
		return false
	}
	if !s.done {
		s.sig = sig
	}
	s.count = 0
	for _, o := range tg.tasks {
		if o == t || (!o.exitingSignals && !o.stopped && !o.stopPending) {
			o.stopPending = true
		}
		if o.stopPending {
			s.count++
			if o != t {
				o.setWork(workStop)
			}
		}
	}
	t.stopLocked()
	return true
}

// stopLocked makes t take part in the group stop and waits for SIGCONT or a kill. sigMu is dropped while waiting.
// +checklocks:t.tg.sigMu
func (t *Task) stopLocked() {
	tg := t.tg
	t.stopPending = false
	t.work.And(^workStop)
	t.stopped = true
	t.state.Store(uint32(Stopped))
	if t.leaveStopLocked() {
		tg.sigMu.Unlock()
		tg.notifyStop(linux.CLD_STOPPED)
		tg.sigMu.Lock()
	}
	tr := t.tracing.Load()
	if tr != nil {
		tr.trap = true
	}
	for t.stopped && !t.killed {
		if t.traceTrapLocked() {
			continue
		}
		tg.sigMu.Unlock()
		since := t.pause()
		<-t.wake
		t.resume(since)
		tg.sigMu.Lock()
	}
	if tr != nil && tr.seized && !t.killed && t.tracing.Load() == tr {
		tr.trap = tr.listening() // SIGCONT ended a stop that the tracer listens to
	}
	t.stopped = false
	t.state.Store(uint32(Running))
}

// leaveStopLocked counts t as having stopped (or exited) and reports whether that completes the group's stop.
func (t *Task) leaveStopLocked() bool {
	s := &t.tg.stop
	if s.count == 0 {
		return false
	}
	if s.count--; s.count > 0 || s.done {
		return false
	}
	s.done, s.waitSig, s.continued = true, s.sig, false
	return true
}

// notifyStop tells the parent that the group stopped or continued (do_notify_parent_cldstop).
func (tg *ThreadGroup) notifyStop(why int32) {
	k := tg.k
	k.tasksMu.RLock()
	defer k.tasksMu.RUnlock()
	parent := tg.parent
	if parent == nil {
		return
	}
	info := tg.childInfo(why, linux.SIGCHLD)
	if why == linux.CLD_STOPPED {
		tg.sigMu.Lock()
		info.SetStatus(int32(tg.stop.sig))
		tg.sigMu.Unlock()
	} else {
		info.SetStatus(int32(linux.SIGCONT))
	}
	act := parent.handlers.get(linux.SIGCHLD)
	if act.Handler != linux.SIG_IGN && act.Flags&linux.SA_NOCLDSTOP == 0 {
		tg.tellParent(info)
	}
	parent.childEvents.Notify(waitEvents)
}

// Stopped reports whether the group is stopped by job control.
func (tg *ThreadGroup) Stopped() bool {
	tg.sigMu.Lock()
	defer tg.sigMu.Unlock()
	return tg.stop.done
}

// ForceSignal makes t take a synchronous signal: if it is blocked or ignored its action becomes the default (force_sig_info).
func (t *Task) ForceSignal(info *linux.SignalInfo) {
	sig := linux.Signal(info.Signo)
	tg := t.tg
	tg.sigMu.Lock()
	defer tg.sigMu.Unlock()
	tg.handlers.mu.Lock()
	h := tg.handlers.getLocked(sig).Handler
	if blocked := signal.Has(t.mask(), sig); blocked || h == linux.SIG_IGN || h == linux.SIG_DFL {
		tg.handlers.resetLocked(sig)
		t.setMaskWord(t.mask() &^ linux.SignalSetOf(sig))
		t.forced = true // not even init survives this
	}
	tg.handlers.mu.Unlock()
	if !signal.Has(t.private.Set(), sig) {
		t.private.Add(info, t.userCounter(), ^uint64(0))
	}
	t.setWork(workSignal)
}

// forceSegv ends a process whose signal frame cannot be written or read (force_sigsegv): during delivery of SIGSEGV itself the handler is not tried again.
func (t *Task) forceSegv(sig linux.Signal) {
	if sig == linux.SIGSEGV {
		t.tg.handlers.mu.Lock()
		t.tg.handlers.resetLocked(sig)
		t.tg.handlers.mu.Unlock()
	}
	t.ForceSignal(kernelInfo(linux.SIGSEGV))
}
