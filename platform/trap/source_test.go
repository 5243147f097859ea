package trap

import (
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"moat/platform/stub"
)

// TestSource: what a descriptor has is taken, whoever looks: the source's goroutine or a poller, by turns and never both; and who ends to poll flushes.
func TestSource(t *testing.T) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	b := &board{bells: &stub.Bells{}}
	var inside atomic.Bool
	taken := make(chan byte, 1)
	p, flushed := &Platform{board: b}, 0
	p.Attend(fds[0], func() bool {
		if inside.Swap(true) {
			t.Error("two look at once")
		}
		defer inside.Store(false)
		var c [1]byte
		if n, _ := unix.Read(fds[0], c[:]); n != 1 {
			return false
		}
		taken <- c[0]
		return true
	}, func() { flushed++ })
	write := func(c byte) {
		if n, err := unix.Write(fds[1], []byte{c}); n != 1 {
			t.Fatal(err)
		}
	}
	expect := func(c byte) {
		if got := <-taken; got != c {
			t.Fatalf("%d came, not %d", got, c)
		}
	}
	s := b.sources[0]
	for i := range 400 {
		write(byte(i)) // who looks now is not known
		if i%2 == 0 {
			expect(byte(i))
		}
		poller := &thread{board: b}
		if !b.beginPoll(poller) {
			t.Fatal("there is a poller")
		}
		if i%2 != 0 {
			expect(byte(i))
		}
		if i%8 == 0 { // with a poller there, the goroutine looks once more at most
			for write(1); len(taken) == 0; {
				b.visit()
			}
			expect(1)
			for !s.lent.Load() {
			}
			if write(2); len(taken) != 0 || !b.visit() {
				t.Fatal("the poller does not look")
			}
			expect(2)
		}
		if !p.Looks() {
			t.Fatal("nobody says that the poller looks")
		}
		before := flushed
		if b.endPoll(poller); p.Looks() || flushed == before {
			t.Fatal("what was held back is not sent when the poll ends")
		}
	}
}
