package trap

import (
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A hand-over by futex costs 6 us between two threads on one CPU and 35 to 50 us across CPUs, where the sleeper's CPU has to be woken; one where
// the other side looks all the time costs 0.1 us, if it has a CPU to look from. So a guest thread and the sentry's goroutine that serves it either
// spin on two CPUs or, when spinning does not pay because the CPUs are busy, share one. A guest thread that computes without calls is let
// go: which CPU it runs on is then the host's choice.
//
// A goroutine that spins lets others run in between: often the call that it has just answered is what made them ready, and they
// go on at once on the same OS thread.

const (
	// spinLooks is how often each side looks at the state before it sleeps, at about 15 ns a look (a PAUSE where this was measured).
	spinLooks = 1500
	// wakeLooks is the same for a goroutine that had to wake its guest thread.
	wakeLooks = 7000
	// firstLooks is how long the sentry looks before it lets other goroutines run the first time: a guest in a loop of calls is back by then.
	// moreLooks is how long between the later times.
	firstLooks, moreLooks = 100, 300

	// short is a run of guest code between two calls that makes a pair worth keeping on one CPU.
	short = 300 * time.Microsecond
	// long is when a guest thread that makes no call is let go.
	long = 4 * time.Millisecond
	// retry is after how many hand-overs on one CPU spinning is tried again.
	retry = 1024
	// A thread's score counts hand-overs that slept, less those that did not.
	pairAt, maxScore = 4, 8
)

var (
	ncpu int32
	// running counts guest threads in Run, which want a CPU each; with their goroutines they want two.
	running atomic.Int32
	// busy is the last thread's verdict on spinning, where new ones start: above 0 it did not pay.
	busy atomic.Int32
	// pairs counts the pairs on each CPU.
	pairs [64]atomic.Int32
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

// spins says how long the sides of t may spin now: only while there is a CPU for both sides of every guest thread that runs.
func (t *thread) spins() int {
	if t.paired() || running.Load()*2 > ncpu {
		return 0
	}
	return spinLooks
}

// await waits for the guest's next event.
func (t *thread) await(spin int) (slept bool, err error) {
	for left, looks := spin, firstLooks; left > 0; left, looks = left-looks, moreLooks {
		if t.area.Spin(looks) {
			return false, nil
		}
		runtime.Gosched()
	}
	stay(t.pair.cpu)
	if t.paired() {
		if done, err := t.area.AwaitFor(long); done || err != nil {
			return true, err
		}
		t.part()
		stay(-1)
	}
	return t.area.Await(0)
}

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
	if !pin(t.tid, best) {
		return
	}
	pairs[best].Add(1)
	t.pair.cpu, t.pair.count = best, 0
}

// stay keeps the OS thread that is about to wait, or goes on, on cpu, or on any if that is -1. Goroutines share OS threads: another one may have put it
// elsewhere.
func stay(cpu int) {
	tid := unix.Gettid()
	p, v := &places[tid%len(places)], int64(tid)<<8|int64(cpu+1)
	if old := p.Load(); old != v && (cpu >= 0 || old>>8 == int64(tid)) && pin(0, cpu) {
		p.Store(v)
	}
}

// part lets both sides run anywhere.
func (t *thread) part() {
	if !t.paired() {
		return
	}
	pin(t.tid, -1)
	pairs[t.pair.cpu].Add(-1)
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
