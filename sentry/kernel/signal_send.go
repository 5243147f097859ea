package kernel

import (
	"cmp"
	"slices"
	"sync"

	"moat/platform"
	"moat/sentry/kernel/signal"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/waiter"
)

const unblockable = signal.Unblockable

// SignalHandlers are the actions of signals, shared by CLONE_SIGHAND (struct sighand_struct).
type SignalHandlers struct {
	mu sync.Mutex
	// in is where the actions are: in own, or in the words of the one thread that they are lent to.
	in    *platform.SignalActions // +checklocks:mu
	own   *platform.SignalActions // +checklocks:mu
	users int                     // +checklocks:mu
}

func newSignalHandlers() *SignalHandlers {
	own := &platform.SignalActions{}
	return &SignalHandlers{in: own, own: own, users: 1}
}

func (h *SignalHandlers) get(sig linux.Signal) linux.SigAction {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.getLocked(sig)
}

// copy returns the actions in a new set; onlyIgnored is execve's: only SIG_IGN survives. CLONE_CLEAR_SIGHAND is the same.
// +checklocksignore: nobody else has n.
func (h *SignalHandlers) copy(onlyIgnored bool) *SignalHandlers {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := newSignalHandlers()
	for sig := linux.Signal(1); sig <= linux.SignalMaximum; sig++ {
		a := h.getLocked(sig)
		if !onlyIgnored {
			n.setLocked(sig, a)
		} else if a.Handler == linux.SIG_IGN {
			n.setLocked(sig, linux.SigAction{Handler: linux.SIG_IGN})
		}
	}
	return n
}

// kernelInfo is the info of a signal that the kernel sends on its own account (SEND_SIG_PRIV).
func kernelInfo(sig linux.Signal) *linux.SignalInfo {
	return &linux.SignalInfo{Signo: int32(sig), Code: linux.SI_KERNEL}
}

// SendSignal sends a signal to the thread. EAGAIN: a real-time signal met RLIMIT_SIGPENDING.
func (t *Task) SendSignal(info *linux.SignalInfo) error { return t.tg.send(t, info, true) }

// SendSignal sends a signal to the process: a thread that does not block it takes it.
func (tg *ThreadGroup) SendSignal(info *linux.SignalInfo) error { return tg.send(nil, info, true) }

// send queues info to task t, or to the group if t is nil (kernel/signal.c send_signal_locked). force says that the sender is the kernel
// or in an ancestor PID namespace: its SIGKILL and SIGSTOP reach even init.
func (tg *ThreadGroup) send(t *Task, info *linux.SignalInfo, force bool) error {
	return tg.sendNear(tg.leader, t, info, force)
}

// sendNear is send; near is the first that may take a signal to the group.
func (tg *ThreadGroup) sendNear(near, t *Task, info *linux.SignalInfo, force bool) error {
	sig := linux.Signal(info.Signo)
	if !sig.IsValid() {
		return unix.EINVAL
	}
	tg.sigMu.Lock()
	ok, queued := tg.sendLocked(near, t, info, force)
	tg.sigMu.Unlock()
	if queued {
		tg.sigWaiters.Notify(waiter.ReadableEvents)
	}
	if !ok {
		return unix.EAGAIN
	}
	return nil
}

// +checklocks:tg.sigMu
func (tg *ThreadGroup) sendLocked(near, t *Task, info *linux.SignalInfo, force bool) (ok, queued bool) {
	sig := linux.Signal(info.Signo)
	if !tg.prepareLocked(t, sig, force) {
		return true, false
	}
	p, owner := &tg.shared, tg.leader
	if t != nil {
		p, owner = &t.private, t
	}
	if sig.IsStandard() && signal.Has(p.Set(), sig) {
		return true, false
	}
	if !p.Add(info, owner.userCounter(), tg.Limit(linux.RLIMIT_SIGPENDING).Cur) {
		return false, false
	}
	tg.notePendingLocked(t)
	tg.completeLocked(near, t, sig)
	return true, true
}

// SendTimerSignal queues e, a preallocated entry with its Info filled in, to t or (t nil) to the group, in which near, if it is not nil, may take it first. queued
// is false if e is still in a queue from an earlier expiry (an overrun) or the signal is ignored.
func (tg *ThreadGroup) SendTimerSignal(near, t *Task, e *signal.Entry) (queued bool) {
	sig := linux.Signal(e.Info.Signo)
	tg.sigMu.Lock()
	if e.Queued() || !tg.prepareLocked(t, sig, false) {
		tg.sigMu.Unlock()
		return false
	}
	p := &tg.shared
	if t != nil {
		p = &t.private
	}
	p.AddPreallocated(e)
	tg.notePendingLocked(t)
	tg.completeLocked(cmp.Or(near, tg.leader), t, sig)
	tg.sigMu.Unlock()
	tg.sigWaiters.Notify(waiter.ReadableEvents)
	return true
}

// CancelTimerSignal takes e out of whatever queue it is in.
func (tg *ThreadGroup) CancelTimerSignal(t *Task, e *signal.Entry) {
	tg.sigMu.Lock()
	defer tg.sigMu.Unlock()
	if t != nil {
		t.private.Remove(e)
	} else {
		tg.shared.Remove(e)
	}
}

// prepareLocked does what a signal does by being sent, even if it is blocked or ignored: SIGCONT continues, stop signals cancel a SIGCONT. It reports whether
// the signal is to be queued (prepare_signal).
// +checklocks:tg.sigMu
func (tg *ThreadGroup) prepareLocked(t *Task, sig linux.Signal, force bool) bool {
	if tg.exiting {
		return false
	}
	switch {
	case signal.DefaultStop(sig):
		tg.discardLocked(linux.SignalSetOf(linux.SIGCONT))
	case sig == linux.SIGCONT:
		tg.continueLocked()
	}
	if t == nil {
		t = tg.leader
	}
	return !tg.ignoredLocked(t, sig, force)
}

// ignoredLocked is sig_ignored: a blocked signal is never ignored, since its handler may change by the time it is unblocked.
func (tg *ThreadGroup) ignoredLocked(t *Task, sig linux.Signal, force bool) bool {
	if signal.Has(t.mask(), sig) || t.tracing.Load() != nil && sig != linux.SIGKILL {
		return false // nor is one that a tracer is to see
	}
	h := tg.handlers.get(sig).Handler
	if tg.unkillable && h == linux.SIG_DFL && !(force && signal.Has(unblockable, sig)) {
		return true
	}
	return h == linux.SIG_IGN || (h == linux.SIG_DFL && signal.DefaultIgnored(sig))
}

// +checklocks:tg.sigMu
func (tg *ThreadGroup) discardLocked(set linux.SignalSet) {
	tg.shared.Discard(set)
	for _, t := range tg.tasks {
		t.private.Discard(set)
	}
}

// completeLocked finds a thread to take sig, near before others, and wakes it; a signal that is bound to end the process does so at once (complete_signal).
// +checklocks:tg.sigMu
func (tg *ThreadGroup) completeLocked(near, t *Task, sig linux.Signal) {
	if sig == linux.SIGKILL {
		tg.groupExitLocked(linux.WaitStatusTerminationSignal(sig), nil)
		return
	}
	if t != nil {
		if !t.wants(sig) {
			return
		}
	} else if t = tg.taker(near, sig); t == nil {
		return
	}
	if !t.Traced() && !signal.DefaultCore(sig) && !signal.DefaultIgnored(sig) && !signal.DefaultStop(sig) && !signal.Has(t.mask(), sig) && !tg.unkillable &&
		tg.handlers.get(sig).Handler == linux.SIG_DFL {
		tg.groupExitLocked(linux.WaitStatusTerminationSignal(sig), nil)
		return
	}
	t.setWork(workSignal)
}

// taker is the thread that takes a signal to the process: near, which it was sent to, if it may, or else the first with nothing else to do, looked for
// from the one on that was found last.
// +checklocks:tg.sigMu
func (tg *ThreadGroup) taker(near *Task, sig linux.Signal) (second *Task) {
	if near.wants(sig) {
		return near
	}
	from := max(0, slices.Index(tg.tasks, tg.lastTaker))
	for i := range tg.tasks {
		o := tg.tasks[(from+i)%len(tg.tasks)]
		if !o.wants(sig) {
			continue
		}
		if o.work.Load()&workSignal == 0 {
			tg.lastTaker = o
			return o
		}
		second = cmp.Or(second, o)
	}
	return second
}

// wants reports whether t may take sig now: one that is stopped takes only SIGKILL. Preconditions: sigMu is held.
func (t *Task) wants(sig linux.Signal) bool {
	return !signal.Has(t.mask()&^t.waitSet, sig) && !t.exitingSignals && !t.stopped
}

// continueLocked is SIGCONT's effect (prepare_signal).
// +checklocks:tg.sigMu
func (tg *ThreadGroup) continueLocked() {
	tg.discardLocked(signal.Stop)
	s := &tg.stop
	s.dequeued = false
	if s.done {
		s.notify = linux.CLD_CONTINUED
	} else if s.count > 0 {
		s.notify = linux.CLD_STOPPED
	}
	if s.done || s.count > 0 {
		s.continued = true
		s.waitSig = 0
		// The leader tells the parent when it gets to run; it must pass through its slow path.
		tg.anyTask().setWork(workSignal)
	}
	s.done, s.count = false, 0
	for _, t := range tg.tasks {
		t.stopPending = false
		t.work.And(^workStop)
		if t.stopped {
			t.stopped = false
			t.poke()
		}
	}
}

func (tg *ThreadGroup) anyTask() *Task {
	if !tg.leader.exitingSignals || len(tg.tasks) == 0 {
		return tg.leader
	}
	return tg.tasks[0]
}

// groupExitLocked makes every task but self exit with status (zap_other_threads and SIGNAL_GROUP_EXIT).
// +checklocks:tg.sigMu
func (tg *ThreadGroup) groupExitLocked(status linux.WaitStatus, self *Task) {
	if !tg.exiting {
		tg.exiting, tg.exitCode = true, status
	}
	tg.stop.count = 0
	for _, t := range tg.tasks {
		if t != self {
			t.kill()
		}
	}
}

// kill makes t exit. Preconditions: sigMu is held.
func (t *Task) kill() {
	t.stopPending, t.stopped, t.killed = false, false, true
	t.setWork(workKill)
	t.poke()
}

// RecalcSignals sets or clears workSignal by what is pending and not blocked. Preconditions: sigMu is held; t is the caller's task.
// +checklocks:t.tg.sigMu
func (t *Task) recalcLocked() {
	tr := t.tracing.Load()
	if (t.private.Set()|t.tg.shared.Set())&^(t.mask()&^t.waitSet) != 0 || t.tg.stop.notify != 0 || tr != nil && tr.trap {
		t.setWork(workSignal)
	} else {
		t.work.And(^workSignal)
	}
	t.tellPendingLocked()
}
