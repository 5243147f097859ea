package trap

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	gsync "gvisor.dev/gvisor/pkg/sync"

	"moat/platform/stub"
)

// A hand-over by futex costs 6 us between two threads on one CPU and 35 to 50 us across CPUs, where the sleeper's CPU has to be woken; one where
// the other side looks all the time costs 0.1 us, if it has a CPU to look from. So guest threads that call often are kept off the poller's CPU, as many as there
// are: a thread there would wait for its answer from someone who waits for its CPU. Where polling does not pay because calls are too rare or the CPUs are busy, a guest
// thread and the sentry's goroutine that serves it share a CPU. While the guests that run leave no CPU to look from, as two compilers on two CPUs, all do: the host
// would wake each side of a hand-over wherever a CPU is idle for a moment. A guest thread that computes without calls is let go: which CPU it runs on is then the
// host's choice.
const (
	// spinLooks is how often each side looks at the state before it sleeps, at about 15 ns a look (a PAUSE where this was measured).
	spinLooks = 1500
	// wakeLooks is the same for a goroutine that had to wake its guest thread.
	wakeLooks = 7000
	// firstLooks is how long the goroutine looks at its own thread before it polls the board: a guest in a loop of calls is back by then. moreLooks
	// is how long between two looks at the board.
	firstLooks, moreLooks = 40, 16
	// owedLooks is how long a guest thread that must be woken may wait for another to block, whose own the wake then is. handedLooks is after how long it is seen to that the other did it.
	owedLooks, handedLooks = 64, 1024

	// short is a run of guest code between two calls that makes a pair worth keeping on one CPU.
	short = 300 * time.Microsecond
	// retry is after how many hand-overs on one CPU spinning is tried again.
	retry = 1024
	// While polling does not pay, it is tried with one of tryNew threads that are new. It pays again if that often in all a thread's hand-overs need no sleep.
	tryNew, proved = 8, 32
	// A thread's score counts hand-overs that slept, less those that did not. At offAt it is kept off the poller's CPU, at pairAt it shares one.
	offAt, pairAt = 4, 8
	// With fullLoad sixteenths of the CPUs in use by guests, and restsAt of 256 hand-overs slept for, new pairs are made; they last for keep hand-overs after. A pair
	// moves to a CPU that at moveAt hand-overs in a row had no other while its own had.
	fullLoad, restsAt, keep, moveAt = 13, 64, 512, 8
	// A thread of whose calls an eighth may wake other tasks gets no such pair.
	talkAt = 16384 / 8
	// crowdLoad is fullLoad for what is called a crowd: some guest threads wait for a CPU all the time.
	crowdLoad = 20
	// crowdLooks is how long the poller may look in vain for each event, some 5 us, while there are more guest threads than CPUs that could use its own: two switches on
	// one CPU, which the look saves, take as long.
	crowdLooks = 256
	// visitLooks is how long between two looks at the sources.
	visitLooks = 4 * moreLooks
	// flushLooks is after how long in which no guest called what was held back for a batch is sent, and flushTurns after how many rounds of the poller, of which a hand-over
	// counts as turnsEach, it is sent anyway (a guest that asks without a pause for what answers it is not to wait for that: it does for about a millisecond); it is sent at once
	// where the last guest that runs blocks, whose CPU is then free for who gets it. Sooner, and what is sent to a program of the host wakes it on the poller's CPU, which it
	// takes away, for each frame anew, from who makes the next, while the guest looks in vain on the other; and stays there.
	flushLooks, flushTurns, turnsEach = 32 * moreLooks, 2048, 4
	// lingers is how long a source is looked at after the last that came from it came soon, while nobody polls.
	lingers = 50 * time.Microsecond
	// stays is how long an OS thread, wherever it went, stays there at least: to move takes some 50 us, and to share the CPU of a client 15 for each frame.
	stays = 500 * time.Microsecond
	// maxHold is how many hand-overs pass at most before polling for a crowd is tried again.
	maxHold = 64 * retry
)

var (
	// ncpu is how many CPUs there are in stub.CPUs.
	ncpu int32
	// places says where OS threads of ours were put last: thread ID << 8 | CPU + 1.
	places [1024]atomic.Int64
)

// pair is a thread's place; its goroutine's own.
type pair struct {
	cpu   int // -1: none
	off   int // the CPU that the guest thread is kept off; -1: none
	score int32
	count int   // hand-overs on one CPU; if none is, those that find the score at 0
	brief int32 // short runs in a row, up to offAt
	// full: the pair was made because there was no CPU to look from. uneven counts hand-overs that found a better CPU.
	full   bool
	uneven int
	// talk is how many of 16384 calls could wake other tasks, by the last few hundred: a server of many clients reads from all, then writes to all.
	talk int32
}

// paired reports whether the two sides share a CPU.
func (t *thread) paired() bool { return t.pair.cpu >= 0 }

// crowded reports whether guest threads could use the poller's CPU.
func (b *board) crowded() bool { return b.load.Load() > ncpu*crowdLoad*16 }

// full reports whether the guest threads that run leave no CPU. It does not while something comes from outside, which who polls takes for all of them.
func (b *board) full() bool {
	if n := b.outside.Load(); n > 0 {
		b.outside.Store(n - 1)
		return false
	}
	return b.load.Load() > ncpu*fullLoad*16
}

// noteSleep counts a hand-over without a pair while the CPUs are full. One that is lost to another thread's at the same time is no loss.
func (b *board) noteSleep(slept bool) {
	r := b.sleeps.Load()
	if slept {
		r += 256
	}
	b.sleeps.Store(r - r/32)
}

// spins says how long the sides of t may look for each other now: while there is a CPU for that besides those of the guest threads that run, or they call so often
// that it pays all the same.
func (t *thread) spins() int {
	b := t.board
	if ncpu == 1 {
		return 0
	}
	if t.pair.full {
		switch t.pair.count++; {
		case t.talks():
		case b.full():
			t.balance()
			return 0
		case t.pair.count < keep:
			return 0
		}
		t.part()
	}
	if b.crowded() {
		if n := b.hold.Load(); n > 0 {
			b.hold.Store(n - 1)
			return 0
		}
		if t.paired() {
			t.part()
		}
		return 2 * crowdLooks
	}
	if t.paired() {
		return 0
	}
	if b.full() && !t.talks() && b.sleeps.Load() > 32*restsAt {
		if t.pair.full = t.join(); t.pair.full {
			return 0
		}
	}
	return spinLooks
}

// vain learns how many looks in vain the poller needs for an event, while there is a crowd.
func (b *board) vain(looks int32) {
	g := b.gap.Load()
	g += looks - g/16
	if g <= 16*crowdLooks {
		b.gap.Store(g)
		if g < 2*crowdLooks {
			b.held.Store(0)
		}
		return
	}
	b.gap.Store(0)
	n := min(max(2*b.held.Load(), retry), maxHold)
	b.held.Store(n)
	b.hold.Store(n)
}

// await waits for the guest's next event. woken says that the guest was asleep, that no goroutine was looking when it came.
func (t *thread) await(spin int, woken bool) (slept bool, err error) {
	b := t.board
	if spin > 0 {
		if !t.wakes && !woken && t.area.Spin(firstLooks, t.clock.Mark()) {
			if b.crowded() {
				b.vain(0)
			}
			// The poller, if it is another, may wait for this OS thread.
			switch t.alone++; {
			case t.alone%16 != 0:
			case t.polls:
				b.turn(16 * turnsEach)
			default:
				gsync.Goyield()
			}
			return false, nil
		}
		if b.beginPoll(t) && b.poll(t, spin) {
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

// note learns from a hand-over: slept says that the sentry's side had to, polled that it was to look first.
func (t *thread) note(slept, polled bool, ran time.Duration) {
	p := &t.pair
	if ran >= short {
		p.brief = 0
		t.keepOff(-1)
	} else if p.brief < offAt {
		p.brief++
	}
	if !t.paired() && t.board.full() && !t.talks() {
		t.board.noteSleep(slept)
	}
	switch {
	case p.full:
	case t.paired():
		if p.count++; p.count >= retry && !t.board.crowded() {
			t.part()
			p.score = 0
			t.board.busy.Store(0)
		}
	case !slept:
		if p.score > 0 {
			p.score--
		} else if p.count++; p.count == proved {
			t.board.busy.Store(0)
		}
	case ran < short:
		switch p.score++; {
		case p.score == offAt && polled:
			t.keepOff(stub.CPU())
		case p.score >= pairAt:
			t.board.busy.Store(1)
			t.join()
		}
	}
}

// brief reports whether t is likely to call soon. A thread that is new, as a fork's child is, has not shown it, but if nobody else needs the CPUs it does no
// harm: woken on the poller's CPU, where the host likes to put it, it would wait until that has looked for it in vain.
func (t *thread) brief() bool {
	return t.pair.brief >= offAt || t.runs < offAt && t.board.running.Load() < ncpu-1
}

// keepOff keeps the guest thread off a CPU; -1 lets it run on all.
func (t *thread) keepOff(cpu int) {
	if p := &t.pair; p.off != cpu && !t.paired() && ncpu > 1 && stub.PinOff(t.tid, cpu) {
		if p.off >= 0 {
			t.board.offs.Add(-1)
		}
		if p.off = cpu; cpu >= 0 {
			t.board.offs.Add(1)
		}
	}
}

// talks reports whether t wakes other tasks so often that it may well be they who wake it: the goroutine that answers it then runs where theirs did.
func (t *thread) talks() bool { return t.pair.talk > talkAt }

// join puts both sides on the CPU where the fewest guest threads of pairs run.
func (t *thread) join() bool {
	b, best := t.board, -1
	for i := range b.active {
		if stub.CPUs.IsSet(i) && (best < 0 || b.active[i].Load() < b.active[best].Load()) {
			best = i
		}
	}
	return best >= 0 && t.joinOn(best)
}

// joinOn puts both sides on cpu.
func (t *thread) joinOn(cpu int) bool {
	if t.keepOff(-1); !stub.Pin(t.tid, cpu) {
		return false
	}
	t.board.pairs[cpu].Add(1)
	t.pair.cpu, t.pair.count, t.pair.uneven = cpu, 0, 0
	return true
}

// balance moves a pair whose CPU has others to one that has none.
func (t *thread) balance() {
	p, b := &t.pair, t.board
	p.count = 0
	if b.active[p.cpu].Load() == 0 {
		p.uneven = 0
		return
	}
	for i := range b.active {
		if stub.CPUs.IsSet(i) && b.active[i].Load() == 0 {
			if p.uneven++; p.uneven >= moveAt {
				t.part()
				p.full = t.joinOn(i)
			}
			return
		}
	}
	p.uneven = 0
}

// stay keeps the OS thread that is about to wait, or goes on, on cpu, or on any if that is -1. Goroutines share OS threads: another one may have put it
// elsewhere.
func stay(cpu int) {
	tid := unix.Gettid()
	p, v := &places[tid%len(places)], int64(tid)<<8|int64(cpu+1)
	if old := p.Load(); old != v && stub.Pin(0, cpu) {
		p.Store(v)
	}
}

// depart takes the OS thread to another CPU, if the guests that run leave one, because a program that talks with them needs this one: a client that is woken by what is
// sent to it stays where it runs, and so does who is woken by what it sends.
func (b *board) depart() {
	now := time.Now().UnixNano()
	if last := b.left.Load(); now-last > int64(stays) && b.left.CompareAndSwap(last, now) && b.running.Load() < ncpu-1 && stub.PinOff(0, stub.CPU()) {
		tid := unix.Gettid()
		places[tid%len(places)].Store(int64(tid)<<8 - 1) // for stay to change
		stay(-1)
		b.home.Store(int32(stub.CPU()))
	}
}

// part lets both sides run anywhere.
func (t *thread) part() {
	if !t.paired() {
		t.keepOff(-1)
		return
	}
	stub.Pin(t.tid, -1)
	t.board.pairs[t.pair.cpu].Add(-1)
	t.pair.cpu, t.pair.full = -1, false
}
