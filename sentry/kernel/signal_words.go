package kernel

import (
	"moat/platform"
	"moat/sentry/kernel/signal"

	"gvisor.dev/gvisor/pkg/abi/linux"
)

// A platform may let guests change their signal masks in place. The mask then lives in words that the guest can write, at any time and with any value: whoever
// reads it twice may see two masks. That is as if the guest had made the call in between, so nothing may rest on it but which signals the thread takes.
//
// The actions of a process with one thread, which it shares with no other, live there, too, and what is read is as little to be trusted: it decides what becomes of the
// process' own signals, and whether its children wait for it.

// mask is the set of blocked signals.
func (t *Task) mask() linux.SignalSet {
	if t.words != nil {
		return linux.SignalSet(t.words.Mask.Load()) &^ unblockable
	}
	return t.ownMask
}

func (t *Task) setMaskWord(m linux.SignalSet) {
	if t.words != nil {
		t.words.Mask.Store(uint64(m))
		return
	}
	t.ownMask = m
}

// moveWords makes w, or the sentry if it is nil, hold the mask and, if they are t's alone, the actions.
func (t *Task) moveWords(w *platform.SignalWords) {
	t.tg.sigMu.Lock()
	defer t.tg.sigMu.Unlock()
	m := t.mask()
	t.words = w
	t.setMaskWord(m)
	t.tellPendingLocked()
	if len(t.tg.tasks) > 1 {
		w = nil
	}
	t.tg.handlers.lend(w)
}

// tellPendingLocked says in the words whether a signal is pending, blocked or not.
// +checklocks:t.tg.sigMu
func (t *Task) tellPendingLocked() {
	if t.words == nil {
		return
	}
	p := uint32(0)
	if t.private.Set()|t.tg.shared.Set() != 0 || t.hasSaved || t.tg.stop.notify != 0 {
		p = 1
	}
	if t.words.Pending.Load() != p {
		t.words.Pending.Store(p)
	}
}

// notePendingLocked says so to the threads that a signal was just queued for, t or (nil) all: before anybody looks at their masks.
// +checklocks:tg.sigMu
func (tg *ThreadGroup) notePendingLocked(t *Task) {
	if t != nil {
		if t.words != nil {
			t.words.Pending.Store(1)
		}
		return
	}
	for _, o := range tg.tasks {
		if o.words != nil {
			o.words.Pending.Store(1)
		}
	}
}

// lend makes w hold the actions, or, if it is nil or others share them, h itself again.
func (h *SignalHandlers) lend(w *platform.SignalWords) {
	h.mu.Lock()
	defer h.mu.Unlock()
	from, to := h.in, h.own
	if w != nil && h.users == 1 {
		to = &w.Actions
	}
	if to == from {
		return
	}
	for sig := linux.Signal(1); sig <= linux.SignalMaximum; sig++ {
		h.in = from
		a := h.getLocked(sig)
		h.in = to
		h.setLocked(sig, a)
	}
	from.Lent.Store(0)
	to.Lent.Store(1)
}

// +checklocks:h.mu
func (h *SignalHandlers) getLocked(sig linux.Signal) linux.SigAction {
	if signal.Has(unblockable, sig) {
		return linux.SigAction{}
	}
	w := &h.in.Of[sig-1]
	return linux.SigAction{Handler: w[0].Load(), Flags: w[1].Load() & saKnown, Restorer: w[2].Load(), Mask: linux.SignalSet(w[3].Load()) &^ unblockable}
}

// +checklocks:h.mu
func (h *SignalHandlers) setLocked(sig linux.Signal, a linux.SigAction) {
	h.in.Of[sig-1].Set([4]uint64{a.Handler, a.Flags, a.Restorer, uint64(a.Mask)})
}

// resetLocked makes the default of sig's handler.
// +checklocks:h.mu
func (h *SignalHandlers) resetLocked(sig linux.Signal) { h.in.Of[sig-1][0].Store(linux.SIG_DFL) }
