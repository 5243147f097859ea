package trap

import (
	"sync/atomic"
	"testing"

	"moat/platform/stub"
)

// TestReusedPlace: who has found a thread on the board that ends before it is taken, and whose place another gets, leaves that one where it is.
func TestReusedPlace(t *testing.T) {
	b := &board{bells: &stub.Bells{}}
	old, next := &thread{board: b, state: new(atomic.Uint32)}, &thread{board: b, state: new(atomic.Uint32)}
	if err := b.add(old); err != nil {
		t.Fatal(err)
	}
	b.remove(old)
	if err := b.add(next); err != nil || next.place != old.place {
		t.Fatalf("another place: %v", err)
	}
	next.state.Store(stub.StateRun)
	next.row.waits.Or(next.bit)
	if old.take() {
		t.Error("a thread that has ended was taken")
	}
	if !next.take() {
		t.Error("the next thread in its place does not wait any more")
	}
	if next.take() {
		t.Error("it was taken twice")
	}
}
