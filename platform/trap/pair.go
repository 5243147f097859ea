package trap

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A hand-over by futex costs 6 us between two threads on one CPU and 35 to 50 us across CPUs, where the sleeper's CPU has to be woken; one where
// the other side looks all the time costs 0.1 us, if it has a CPU to look from. So a guest thread and the sentry thread that serves it either
// spin on two CPUs or, when spinning does not pay because the CPUs are busy, share one. A guest thread that computes without calls is let
// go: which CPU it runs on is then the host's choice.

const (
	// short is a run of guest code between two calls that makes a pair worth keeping on one CPU.
	short = 300 * time.Microsecond
	// long is when a guest thread that makes no call is let go.
	long = 4 * time.Millisecond
	// retry is after how many hand-overs on one CPU spinning is tried again.
	retry = 1024
	// A thread's score counts hand-overs that slept, less those that did not.
	pairAt, maxScore = 4, 8
)

// busy is the last thread's verdict on spinning, where new ones start: above 0 it did not pay.
var busy atomic.Int32

// pairs counts the pairs on each CPU.
var pairs [64]atomic.Int32

// pair is a thread's place; its goroutine's own.
type pair struct {
	cpu   int // -1: none
	score int32
	count int
}

// paired reports whether the two sides share a CPU.
func (t *thread) paired() bool { return t.pair.cpu >= 0 }

// note learns from a hand-over: slept says that the sentry's side had to.
func (t *thread) note(slept bool, ran time.Duration) {
	p := &t.pair
	switch {
	case t.paired():
		if p.count++; p.count >= retry && running.Load()*2 <= ncpu {
			t.part()
			p.score = 0
			busy.Store(0)
		}
	case !slept:
		p.score = max(p.score-1, 0)
	case ran < short:
		if p.score++; p.score >= pairAt {
			busy.Store(1)
			t.join()
		}
	}
}

// join puts both sides on the CPU that has the fewest pairs.
func (t *thread) join() {
	best := 0
	for i := range int(ncpu) {
		if pairs[i].Load() < pairs[best].Load() {
			best = i
		}
	}
	var set unix.CPUSet
	set.Set(best)
	if unix.SchedSetaffinity(0, &set) != nil || unix.SchedSetaffinity(t.tid, &set) != nil {
		return
	}
	pairs[best].Add(1)
	t.pair.cpu, t.pair.count = best, 0
}

// part lets both sides run anywhere.
func (t *thread) part() {
	if !t.paired() {
		return
	}
	var set unix.CPUSet
	for i := range int(ncpu) {
		set.Set(i)
	}
	unix.SchedSetaffinity(t.tid, &set)
	unix.SchedSetaffinity(0, &set)
	pairs[t.pair.cpu].Add(-1)
	t.pair.cpu = -1
}
