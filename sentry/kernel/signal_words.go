package kernel

import (
	"moat/platform"

	"gvisor.dev/gvisor/pkg/abi/linux"
)

// A platform may let guests change their signal masks in place. The mask then lives in words that the guest can write, at any time and with any value: whoever
// reads it twice may see two masks. That is as if the guest had made the call in between, so nothing may rest on it but which signals the thread takes.

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

// moveMask makes w, or the task itself if it is nil, hold the mask.
func (t *Task) moveMask(w *platform.SignalWords) {
	t.tg.sigMu.Lock()
	defer t.tg.sigMu.Unlock()
	m := t.mask()
	t.words = w
	t.setMaskWord(m)
	t.tellPendingLocked()
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
