package trap

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"moat/platform/stub"
)

// A hand-over by futex costs 6 us between two threads on one CPU and 35 to 50 us across CPUs, where the sleeper's CPU has to be woken; one where
// the other side looks all the time costs 0.1 us, if it has a CPU to look from. So a guest thread and the sentry's goroutine that serves it either
// spin on two CPUs or, when spinning does not pay because the CPUs are busy, share one. A guest thread that computes without calls is let
// go: which CPU it runs on is then the host's choice.
const (
	// spinLooks is how often each side looks at the state before it sleeps, at about 15 ns a look (a PAUSE where this was measured).
	spinLooks = 1500
	// wakeLooks is the same for a goroutine that had to wake its guest thread.
	wakeLooks = 7000
	// firstLooks is how long the goroutine looks at its own thread before it polls the board: a guest in a loop of calls is back by then. moreLooks
	// is how long between two looks at the board.
	firstLooks, moreLooks = 40, 16

	// short is a run of guest code between two calls that makes a pair worth keeping on one CPU.
	short = 300 * time.Microsecond
	// retry is after how many hand-overs on one CPU spinning is tried again.
	retry = 1024
	// A thread's score counts hand-overs that slept, less those that did not.
	pairAt, maxScore = 4, 8
)

var (
	ncpu int32
	// places says where OS threads of ours were put last: thread ID << 8 | CPU + 1.
	places [1024]atomic.Int64
)

// pair is a thread's place; its goroutine's own.
type pair struct {
	cpu   int // -1: none
	score int32
	count int
}

// paired reports whether the two sides share a CPU.
func (t *thread) paired() bool { return t.pair.cpu >= 0 }

// spins says how long the sides of t may look for each other now: only while there is a CPU for that besides those of the guest threads that run.
func (t *thread) spins() int {
	if t.paired() || t.board.load.Load() > ncpu*20 {
		return 0
	}
	return spinLooks
}

// await waits for the guest's next event. slept says that no goroutine was looking when it came.
func (t *thread) await(spin int) (slept bool, err error) {
	b := t.board
	if spin > 0 {
		if !t.wakes && t.area.Spin(firstLooks, t.clock.Mark()) || b.beginPoll(t) && b.poll(t, spin) {
			return false, nil
		}
	} else if t.polls {
		b.endPoll(t)
	}
	for {
		if err := t.area.Over(); err != nil {
			return true, err // Resume may have come after the word of it
		}
		t.rung = false
		if b.rests.Load() {
			b.rouse()
		}
		t.sleep()
		switch {
		case t.polls: // another handed the role to this thread
		case t.state.Load() == stub.StateEvent:
			return t.rung, nil
		default:
			if err := t.area.Over(); err != nil {
				return true, err
			}
			continue // who looked had seen an event that somebody else was faster to take
		}
		if b.poll(t, spinLooks) {
			return false, nil
		}
	}
}

// note learns from a hand-over: slept says that the sentry's side had to.
func (t *thread) note(slept bool, ran time.Duration) {
	p := &t.pair
	switch {
	case t.paired():
		if p.count++; p.count >= retry && t.board.load.Load() <= ncpu*20 {
			t.part()
			p.score = 0
			t.board.busy.Store(0)
		}
	case !slept:
		p.score = max(p.score-1, 0)
	case ran < short:
		if p.score++; p.score >= pairAt {
			t.board.busy.Store(1)
			t.join()
		}
	}
}

// join puts both sides on the CPU that has the fewest pairs.
func (t *thread) join() {
	best := 0
	for i := range int(ncpu) {
		if t.board.pairs[i].Load() < t.board.pairs[best].Load() {
			best = i
		}
	}
	if !pin(t.tid, best) {
		return
	}
	t.board.pairs[best].Add(1)
	t.pair.cpu, t.pair.count = best, 0
}

// stay keeps the OS thread that is about to wait, or goes on, on cpu, or on any if that is -1. Goroutines share OS threads: another one may have put it
// elsewhere.
func stay(cpu int) {
	tid := unix.Gettid()
	p, v := &places[tid%len(places)], int64(tid)<<8|int64(cpu+1)
	if old := p.Load(); old != v && pin(0, cpu) {
		p.Store(v)
	}
}

// part lets both sides run anywhere.
func (t *thread) part() {
	if !t.paired() {
		return
	}
	pin(t.tid, -1)
	t.board.pairs[t.pair.cpu].Add(-1)
	t.pair.cpu = -1
}

// pin keeps a thread on one CPU; -1 lets it run on all.
func pin(tid, cpu int) bool {
	var set unix.CPUSet
	for i := range int(ncpu) {
		if cpu < 0 || cpu == i {
			set.Set(i)
		}
	}
	return unix.SchedSetaffinity(tid, &set) == nil
}
