package kernel

import (
	"time"

	"moat/sentry/kernel/signal"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

// SignalMask is the set of blocked signals. For t's own goroutine; others see a momentary value.
func (t *Task) SignalMask() linux.SignalSet { return t.mask() }

// SetSignalMask is sigprocmask(2) with SIG_SETMASK; signals that become unblocked are delivered at the boundary, and shared ones that become blocked are offered to
// other threads (retarget_shared_pending).
func (t *Task) SetSignalMask(m linux.SignalSet) {
	m &^= unblockable
	tg := t.tg
	tg.sigMu.Lock()
	defer tg.sigMu.Unlock()
	t.setMaskLocked(m)
}

// +checklocks:t.tg.sigMu
func (t *Task) setMaskLocked(m linux.SignalSet) {
	newly := m &^ t.mask()
	t.setMaskWord(m)
	t.hasSaved = false
	if newly != 0 && t.tg.shared.Set()&newly != 0 {
		t.retargetLocked(newly)
	}
	t.recalcLocked()
}

func (t *Task) recalcSignals() {
	t.tg.sigMu.Lock()
	t.recalcLocked()
	t.tg.sigMu.Unlock()
}

// retargetLocked wakes other threads for shared signals in set, which t no longer takes.
// +checklocks:t.tg.sigMu
func (t *Task) retargetLocked(set linux.SignalSet) {
	pending := t.tg.shared.Set() & set
	for _, o := range t.tg.tasks {
		if pending == 0 {
			return
		}
		if o != t && !o.exitingSignals && pending&^o.mask() != 0 {
			pending &= o.mask()
			o.setWork(workSignal)
		}
	}
}

// SetTempSignalMask blocks m for the length of the call (ppoll, pselect, epoll_pwait, sigsuspend): the old mask comes back when the call
// ends, but after a handler's delivery if a signal interrupted it. Call RestoreSignalMask if the call was not interrupted.
func (t *Task) SetTempSignalMask(m linux.SignalSet) {
	old := t.mask()
	t.SetSignalMask(m)
	t.tg.sigMu.Lock()
	t.savedMask, t.hasSaved = old, true
	t.tg.sigMu.Unlock()
	t.work.Or(workRestart)
}

// RestoreSignalMask undoes SetTempSignalMask, if no handler's delivery has.
func (t *Task) RestoreSignalMask() {
	if t.hasSaved {
		t.SetSignalMask(t.savedMask)
	}
}

// PendingSignals is sigpending(2): blocked and pending, for the thread or the process.
func (t *Task) PendingSignals() linux.SignalSet {
	t.tg.sigMu.Lock()
	defer t.tg.sigMu.Unlock()
	return (t.private.Set() | t.tg.shared.Set()) & t.mask()
}

// PendingSets are the pending sets of thread and process, and the sets that are blocked, ignored and caught, for proc_pid_status(5).
func (t *Task) PendingSets() (private, shared, blocked, ignored, caught linux.SignalSet) {
	tg := t.tg
	tg.sigMu.Lock()
	defer tg.sigMu.Unlock()
	tg.handlers.mu.Lock()
	defer tg.handlers.mu.Unlock()
	for i := linux.Signal(1); i <= linux.SignalMaximum; i++ {
		switch tg.handlers.getLocked(i).Handler {
		case linux.SIG_DFL:
		case linux.SIG_IGN:
			ignored |= linux.SignalSetOf(i)
		default:
			caught |= linux.SignalSetOf(i)
		}
	}
	return t.private.Set(), tg.shared.Set(), t.mask(), ignored, caught
}

// SignalPending reports whether a signal of set is pending for t, blocked or not (signalfd's readiness).
func (t *Task) SignalPending(set linux.SignalSet) bool {
	t.tg.sigMu.Lock()
	defer t.tg.sigMu.Unlock()
	return (t.private.Set()|t.tg.shared.Set())&set != 0
}

// DequeueSignal takes a pending signal of set, if there is one (signalfd's read). For t's own goroutine.
func (t *Task) DequeueSignal(set linux.SignalSet) (linux.SignalInfo, bool) {
	var info linux.SignalInfo
	t.tg.sigMu.Lock()
	defer t.tg.sigMu.Unlock()
	sig := t.dequeueLocked(^(set &^ unblockable), &info)
	t.recalcLocked()
	return info, sig != 0
}

// WaitSignal is sigtimedwait(2): the next signal of set; EAGAIN after timeout (negative: none), EINTR if another signal comes.
func (t *Task) WaitSignal(set linux.SignalSet, timeout time.Duration) (linux.SignalInfo, error) {
	var info linux.SignalInfo
	set &^= unblockable
	tg := t.tg
	tg.sigMu.Lock()
	sig := t.dequeueLocked(^set, &info)
	if sig != 0 || timeout == 0 {
		t.recalcLocked()
		tg.sigMu.Unlock()
		if sig == 0 {
			return info, unix.EAGAIN
		}
		return info, nil
	}
	t.waitSet = set
	t.recalcLocked()
	tg.sigMu.Unlock()

	var deadline time.Time
	if timeout > 0 {
		deadline = time.Now().Add(timeout)
	}
	err := t.BlockUntil(nil, deadline)

	tg.sigMu.Lock()
	defer tg.sigMu.Unlock()
	t.waitSet = 0
	sig = t.dequeueLocked(^set, &info)
	t.recalcLocked()
	switch {
	case sig != 0:
		return info, nil
	case err == unix.ETIMEDOUT:
		return info, unix.EAGAIN
	}
	return info, unix.EINTR
}

// SigAction is sigaction(2): it returns the old action and sets act if it is not nil. EINVAL for SIGKILL, SIGSTOP and numbers out of range.
func (t *Task) SigAction(sig linux.Signal, act *linux.SigAction) (linux.SigAction, error) {
	if !sig.IsValid() || (act != nil && signal.Has(unblockable, sig)) {
		return linux.SigAction{}, unix.EINVAL
	}
	tg := t.tg
	tg.sigMu.Lock()
	defer tg.sigMu.Unlock()
	h := tg.handlers
	h.mu.Lock()
	defer h.mu.Unlock()
	old := h.getLocked(sig)
	if act == nil {
		return old, nil
	}
	n := *act
	n.Mask &^= unblockable
	n.Flags &= saKnown
	h.setLocked(sig, n)
	// A signal that is now ignored is dropped even if it is pending and blocked (POSIX 3.3.1.3).
	if n.Handler == linux.SIG_IGN || (n.Handler == linux.SIG_DFL && signal.DefaultIgnored(sig)) {
		tg.discardLocked(linux.SignalSetOf(sig))
	}
	return old, nil
}

// saKnown are the flags that sigaction keeps (UAPI_SA_FLAGS and x86's SA_RESTORER); others read back as zero.
const saKnown = linux.SA_NOCLDSTOP | linux.SA_NOCLDWAIT | linux.SA_SIGINFO | linux.SA_ONSTACK | linux.SA_RESTART | linux.SA_NODEFER |
	linux.SA_RESETHAND | linux.SA_RESTORER | 0x800

// AltStack is sigaltstack(2)'s old value, with SS_ONSTACK if sp is on it.
func (t *Task) AltStack(sp uint64) linux.SignalStack {
	s := t.altStack
	if s.Size == 0 {
		s.Flags = linux.SS_DISABLE
	} else {
		s.Flags &= ssAutodisarm
		if t.onAltStack(sp) {
			s.Flags |= linux.SS_ONSTACK
		}
	}
	return s
}

const (
	ssAutodisarm = 1 << 31
	minSigStack  = 2048
)

func (t *Task) onAltStack(sp uint64) bool {
	s := &t.altStack
	// With SS_AUTODISARM the stack is never in use: it was disarmed on the way in.
	return s.Flags&ssAutodisarm == 0 && sp > s.Addr && sp-s.Addr <= s.Size
}

// SetAltStack is sigaltstack(2) (do_sigaltstack): EPERM on the stack itself, EINVAL for unknown flags, ENOMEM for a small one.
func (t *Task) SetAltStack(n linux.SignalStack, sp uint64) error {
	if t.onAltStack(sp) {
		return unix.EPERM
	}
	mode := n.Flags &^ ssAutodisarm
	if mode != linux.SS_DISABLE && mode != linux.SS_ONSTACK && mode != 0 {
		return unix.EINVAL
	}
	if mode == linux.SS_DISABLE {
		n.Addr, n.Size = 0, 0
	} else if n.Size < minSigStack {
		return unix.ENOMEM
	}
	t.altStack = n
	return nil
}
