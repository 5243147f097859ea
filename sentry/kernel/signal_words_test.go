package kernel

import (
	"testing"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"moat/platform"
)

// TestForgedActions: what a guest writes into words that it was lent is at most an action that it could have asked for.
// +checklocksignore: nobody else has h.
func TestForgedActions(t *testing.T) {
	h := newSignalHandlers()
	w := &platform.SignalWords{}
	h.lend(w)
	if w.Actions.Lent.Load() == 0 {
		t.Fatal("not lent")
	}
	for i := range w.Actions.Of {
		w.Actions.Of[i].Set([4]uint64{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)})
	}
	check := func(when string) {
		for sig := linux.Signal(1); sig <= linux.SignalMaximum; sig++ {
			want := linux.SigAction{Handler: ^uint64(0), Flags: saKnown, Restorer: ^uint64(0), Mask: ^unblockable}
			if sig == linux.SIGKILL || sig == linux.SIGSTOP {
				want = linux.SigAction{}
			}
			if got := h.get(sig); got != want {
				t.Errorf("%s: signal %d: %+v", when, sig, got)
			}
		}
	}
	check("lent")
	n := h.copy(false)
	if n.get(linux.SIGUSR1) != h.get(linux.SIGUSR1) || h.copy(true).get(linux.SIGUSR1) != (linux.SigAction{}) {
		t.Error("the copies differ")
	}
	h.lend(nil)
	if w.Actions.Lent.Load() != 0 {
		t.Error("still lent")
	}
	for i := range w.Actions.Of {
		w.Actions.Of[i].Set([4]uint64{1, 1, 1, 1})
	}
	check("taken back")
	h.users = 2
	if h.lend(w); w.Actions.Lent.Load() != 0 {
		t.Error("lent though another process has them, too")
	}
}
