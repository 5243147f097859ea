package trap

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	gsync "gvisor.dev/gvisor/pkg/sync"
)

// source is a descriptor that is attended. Its goroutine waits in the host for it, wakes up for the first that comes and lends it to the poller, if there is one by
// then: what comes while somebody polls wakes nobody.
type source struct {
	poll  func() bool
	flush func()
	fd    unix.PollFd
	// busy is set by who polls: one that ends to poll may give back what the next has begun to look at.
	busy atomic.Bool
	// lent: the poller looks. Who clears it does from then on; back tells the source's goroutine that it shall.
	lent atomic.Bool
	back chan struct{}
}

// Attend implements platform.Attender.
func (p *Platform) Attend(fd int, poll func() bool, flush func()) {
	s := &source{poll: poll, flush: flush, fd: unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}, back: make(chan struct{}, 1)}
	p.board.sources = append(p.board.sources, s)
	go p.board.serve(s)
}

// Looks implements platform.Attender: who ends to poll flushes after that.
func (p *Platform) Looks() bool { return p.board.poller.Load() }

func (b *board) flush() {
	b.turns.Store(0)
	for _, s := range b.sources {
		s.flush()
	}
}

// Leave implements platform.Attender.
func (p *Platform) Leave() { p.board.depart() }

func (b *board) serve(s *source) {
	soon := false // what came last came soon
	for !b.closed.Load() {
		// What this makes ready runs here, one after the other, and wakes no other OS threads.
		spinning().Add(1)
		found := soon && b.linger(s)
		if !found && !b.poller.Load() {
			spinning().Add(-1)
			since := time.Now()
			s.wait()
			waited := time.Since(since)
			spinning().Add(1)
			if soon && waited < lingers/2 {
				b.depart() // who sent could not while this thread had its CPU
			}
			soon = waited < lingers
		}
		for b.look(s) {
			gsync.Goyield()
		}
		spinning().Add(-1)
		if s.lent.Store(true); b.poller.Load() || !s.lent.Swap(false) {
			<-s.back
		}
	}
}

// linger looks for what comes soon, while nobody polls.
func (b *board) linger(s *source) bool {
	for since := time.Now(); time.Since(since) < lingers && !b.poller.Load(); gsync.Goyield() {
		if b.look(s) {
			return true
		}
	}
	return false
}

// look takes some of what there is.
func (b *board) look(s *source) (found bool) {
	for !s.busy.CompareAndSwap(false, true) {
		gsync.Goyield()
	}
	if found = s.poll(); found {
		b.outside.Store(keep)
	}
	s.busy.Store(false)
	return found
}

// visit looks at the sources that are lent and reports whether there was something. The poller calls it.
func (b *board) visit() (found bool) {
	for _, s := range b.sources {
		if s.lent.Load() && s.busy.CompareAndSwap(false, true) {
			if s.poll() {
				found = true
				b.outside.Store(keep)
			}
			s.busy.Store(false)
		}
	}
	return found
}

// giveBack ends the loans, when there is no poller any more.
func (b *board) giveBack() {
	for _, s := range b.sources {
		if s.lent.Load() && s.lent.Swap(false) {
			s.back <- struct{}{}
		}
	}
}
