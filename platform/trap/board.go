package trap

import (
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	gsync "gvisor.dev/gvisor/pkg/sync"

	"moat/platform/stub"
)

// board is where the goroutines of guest threads that run wait, parked, for the threads' events. Three kinds of goroutines look at it.
//
// The poller is the goroutine of a thread that expects its guest back at once. It looks at its own thread's state and at all others', and lets other
// goroutines of its OS thread run in between; so calls that wake other tasks go on without a wake of any OS thread. It keeps the role while it answers a call that is
// short, and hands it to another thread that runs when its own blocks.
//
// A watchman, one a CPU that the sandbox may run on, sleeps at its bell when nobody polls. The guest thread that rings it runs on the same CPU, where the wake costs least.
//
// The janitor looks, as long as guest code runs and ever so rarely, for threads that do not answer.
type board struct {
	bells *stub.Bells
	rows  [maxRows]atomic.Pointer[row]
	used  atomic.Int32 // rows
	// poller: a thread has the role.
	poller atomic.Bool
	// running counts guest threads in Run.
	running atomic.Int32
	// load is the mean of running over the last events, times 256.
	load atomic.Int32
	// busy is the last thread's verdict on polling, where new ones start: above 0 it did not pay, and how many have started since.
	busy atomic.Int32
	// home is the poller's CPU, as of late.
	home atomic.Int32
	// gap is the mean of looks in vain for an event while there is a crowd, times 16. hold is how many hand-overs are still to pass without polling for it, held how many
	// that were last.
	gap  atomic.Int32
	hold atomic.Int32
	held atomic.Int32
	// owed is a thread that was told to run and must be woken: one whose call blocks meanwhile may be told to do it. handed is one of which another was told that.
	owed   atomic.Pointer[thread]
	handed atomic.Pointer[thread]
	// offs counts the threads that are kept off a CPU.
	offs atomic.Int32
	// pairs counts the pairs on each CPU.
	pairs [stub.NumBells]atomic.Int32
	// active counts the guest threads of pairs in Run, on each CPU.
	active [stub.NumBells]atomic.Int32
	// outside is how many looks at full are left since a source had something.
	outside atomic.Int32
	// sleeps is 32 times the part of 256 hand-overs, of threads without a pair while the CPUs are full, that slept of late.
	sleeps atomic.Int32
	// rests: the janitor must be told when guest code runs.
	rests  atomic.Bool
	work   chan struct{}
	closed atomic.Bool
	// watchmen is how many are left, attended whose bells they have. missed counts events for which nobody was rung: guests run on CPUs that the sandbox did not have at first.
	watchmen atomic.Int32
	attended [stub.NumBells]atomic.Bool
	missed   int
	// turns counts the poller's rounds, and hand-overs for which it made none, since what was held back was sent.
	turns atomic.Int32
	// left is when an OS thread last left its CPU to a program that needed it.
	left atomic.Int64
	// sources are the descriptors that are attended; they are there before the first thread.
	sources []*source

	mu sync.Mutex
	// +checklocks:mu
	free []place
	// total are the counts of threads that ended.
	// +checklocks:mu
	total counts
	// rings is how often a watchman was woken, rounds how often the janitor looked.
	rings, rounds atomic.Uint64
}

const maxRows = 1024

// row has the places of 64 threads.
type row struct {
	// waits are those whose goroutines are parked. Who clears a bit readies the goroutine.
	waits   atomic.Uint64
	threads [64]atomic.Pointer[thread]
	// states are where the threads' states are, in memory that is never unmapped.
	states [64]*atomic.Uint32
}

// place is a thread's on the board.
type place struct {
	row *row
	bit uint64
}

func (p place) thread() *atomic.Pointer[thread] { return &p.row.threads[bits.TrailingZeros64(p.bit)] }

func newBoard(bells *stub.Bells) *board {
	b := &board{bells: bells, work: make(chan struct{}, 1)}
	b.bells.Nap = unix.NsecToTimespec(50_000)
	b.home.Store(-1)
	b.rests.Store(true)
	for c := range len(stub.CPUs) * 64 {
		if stub.CPUs.IsSet(c) {
			b.attend(c % stub.NumBells)
		}
	}
	go b.janitor()
	return b
}

// attend gives a bell its watchman, once.
func (b *board) attend(bell int) {
	if !b.attended[bell].Swap(true) {
		b.watchmen.Add(1)
		go b.watch(bell)
	}
}

// add gives t a place.
func (b *board) add(t *thread) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.free) == 0 {
		n := b.used.Load()
		if n == maxRows {
			return unix.EAGAIN
		}
		r := &row{}
		b.rows[n].Store(r)
		b.used.Store(n + 1)
		for i := range 64 {
			b.free = append(b.free, place{r, 1 << (63 - i)})
		}
	}
	t.place = b.free[len(b.free)-1]
	b.free = b.free[:len(b.free)-1]
	t.row.states[bits.TrailingZeros64(t.bit)] = t.state
	t.place.thread().Store(t)
	return nil
}

func (b *board) remove(t *thread) {
	t.place.thread().Store(nil)
	b.mu.Lock()
	b.free = append(b.free, t.place)
	b.total.add(&t.n)
	b.mu.Unlock()
}

// counts are what was done for guest threads: runs, those that ended with nobody looking, and the host calls that wake a guest thread, move it to a
// signal frame, and interrupt it.
type counts struct {
	runs, slept, wakes, frames uint64
	signals                    atomic.Uint64
}

func (c *counts) add(o *counts) {
	c.runs += o.runs
	c.slept += o.slept
	c.wakes += o.wakes
	c.frames += o.frames
	c.signals.Add(o.signals.Load())
}

// Counts implements platform.Counter, for the threads that have ended.
func (p *Platform) Counts() string {
	b := p.board
	b.mu.Lock()
	defer b.mu.Unlock()
	return fmt.Sprintf("hand-overs %d, slept for %d, wakes of guests %d, frames %d, interrupts %d, rings %d, janitor's rounds %d",
		b.total.runs, b.total.slept, b.total.wakes, b.total.frames, b.total.signals.Load(), b.rings.Load(), b.rounds.Load())
}

// enter counts a guest thread that is about to run, leave one that ran.
func (b *board) enter() {
	if b.running.Add(1) == ncpu+1 {
		b.count()
	}
}

func (b *board) leave() {
	n := b.running.Add(-1)
	if d := 16*(n+1) - b.load.Load()/16; d != 0 {
		b.load.Add(d)
	}
	if n == ncpu {
		b.count()
	}
}

// count publishes whether more guest threads run than there are CPUs.
func (b *board) count() {
	for {
		crowded := uint32(0)
		if b.running.Load() > ncpu {
			crowded = 1
		}
		b.bells.Crowded.Store(crowded)
		if (b.running.Load() > ncpu) == (crowded != 0) {
			return
		}
	}
}

// close ends the board's own goroutines.
func (b *board) close() {
	b.closed.Store(true)
	b.rouse()
	for b.watchmen.Load() > 0 {
		for i := range b.bells.Bell {
			b.bells.Bell[i].Ring()
		}
		time.Sleep(time.Millisecond)
	}
}

// each calls fn for the threads whose goroutines are parked; fn must take one before it touches more than its state.
func (b *board) each(fn func(t *thread) (more bool)) {
	for i := range b.used.Load() {
		r := b.rows[i].Load()
		for v := r.waits.Load(); v != 0; v &= v - 1 {
			if t := r.threads[bits.TrailingZeros64(v)].Load(); t != nil && !fn(t) {
				return
			}
		}
	}
}

// take takes t off the board; false if somebody else did, or if t has ended since the caller found it: its place may be another's then, who goes on waiting.
func (t *thread) take() bool {
	if t.row.waits.And(^t.bit)&t.bit == 0 {
		return false
	}
	o := t.thread().Load()
	if o != t && !o.putBack() {
		o.ready()
	}
	return o == t
}

// scan readies the goroutines of threads with events, to run on this OS thread.
func (b *board) scan(rung bool) (n int) {
	for i := range b.used.Load() {
		r := b.rows[i].Load()
		for v := r.events(); v != 0; v &= v - 1 {
			if t := r.threads[bits.TrailingZeros64(v)].Load(); t != nil && t.take() {
				t.rung = rung
				t.ready()
				n++
			}
		}
	}
	return n
}

// any reports whether scan may find an event.
//
//go:nosplit
func (b *board) any() bool {
	for i := int32(0); i < b.used.Load(); i++ {
		if b.rows[i].Load().events() != 0 {
			return true
		}
	}
	return b.closed.Load()
}

// events are the threads that wait and have an event.
//
//go:nosplit
func (r *row) events() (e uint64) {
	for v := r.waits.Load(); v != 0; v &= v - 1 {
		if stub.Told(r.states[bits.TrailingZeros64(v)].Load()) {
			e |= v & -v
		}
	}
	return e
}

// poll looks for events for about budget looks, as the poller. It returns true, still the poller, once t's own event is there.
func (b *board) poll(t *thread, budget int) bool {
	b.home.Store(int32(stub.CPU()))
	crowd := b.crowded()
	var due due
	for i := 0; i < budget; i += moreLooks {
		due.check(b)
		if i == flushLooks {
			b.flush()
		}
		b.turn(1)
		if b.scan(false) > 0 {
			if crowd {
				b.vain(int32(i))
			}
			i = 0
		}
		if i%visitLooks == 0 && b.visit() {
			i = 0
		}
		gsync.Goyield()
		if t.area.Spin(moreLooks, t.clock.Mark()) {
			if crowd {
				b.vain(int32(i))
			}
			return true
		}
	}
	if crowd {
		b.vain(int32(2 * budget))
	}
	t.keepOff(-1) // the CPU where it was to run may be another program's for long, and the poller's is free now
	b.endPoll(t)
	return false
}

// turn counts n rounds.
func (b *board) turn(n int32) {
	if b.turns.Add(n) >= flushTurns {
		b.flush()
	}
}

// settle wakes the threads that others might have.
func (b *board) settle() {
	if b.owed.Load() != nil {
		if o := b.owed.Swap(nil); o != nil {
			o.area.Wake()
		}
	}
	if b.handed.Load() != nil {
		if o := b.handed.Swap(nil); o != nil && o.area.Asleep() {
			o.area.Wake()
		}
	}
}

// due is how long the poller has known of wakes that others might make.
type due struct {
	owed, handed *thread
	n            int
}

func (d *due) check(b *board) {
	owed, handed := b.owed.Load(), b.handed.Load()
	if owed != d.owed || handed != d.handed {
		*d = due{owed: owed, handed: handed}
	}
	if d.n++; owed != nil && d.n > owedLooks/moreLooks || handed != nil && d.n > handedLooks/moreLooks {
		b.settle()
	}
}

// beginPoll makes t the poller if nobody is.
func (b *board) beginPoll(t *thread) bool {
	if t.polls {
		return true
	}
	if b.poller.Load() || !b.poller.CompareAndSwap(false, true) {
		return false
	}
	t.polls = true
	spinning().Add(1)
	b.bells.Polling.Store(1)
	return true
}

// endPoll leaves nobody polling. Threads that have just counted on it look for a while, then they ring. Who waits for the sources from now on is made ready on this OS
// thread, which the caller is about to leave to it.
func (b *board) endPoll(t *thread) {
	t.polls = false
	b.bells.Polling.Store(0)
	b.poller.Store(false)
	b.settle()
	b.giveBack()
	b.flush()
	spinning().Add(-1)
}

// passPoll makes another thread the poller, one that runs; or nobody.
func (b *board) passPoll(t *thread) {
	passed := false
	if !t.paired() {
		b.each(func(o *thread) bool {
			if o == t || !o.take() {
				return true
			}
			t.polls, o.polls, o.rung = false, true, false
			o.ready()
			passed = true
			return false
		})
	}
	if !passed {
		b.endPoll(t)
	}
}

// watch is the watchman of CPU c.
func (b *board) watch(c int) {
	defer b.watchmen.Add(-1)
	bell := &b.bells.Bell[c]
	for !b.closed.Load() {
		if b.pairs[c].Load() > 0 {
			stay(c)
		} else {
			stay(-1)
		}
		b.wait(bell)
		b.rings.Add(1)
		b.scan(true)
		gsync.Goyield()
	}
}

const (
	// slowTick is how often the janitor comes; quickTick is the same while threads have a place.
	slowTick, quickTick = 200 * time.Millisecond, 10 * time.Millisecond
	// patience is how many nanoseconds a thread may take to answer an interrupt.
	patience = int64(5 * time.Second)
	// maxMissed is how many events may be missed; a few are when they come just as the janitor looks.
	maxMissed = 8
)

// rouse tells the janitor that guest code runs.
func (b *board) rouse() {
	if b.rests.CompareAndSwap(true, false) {
		select {
		case b.work <- struct{}{}:
		default:
		}
	}
}

func (b *board) janitor() {
	for range b.work {
		for !b.closed.Load() {
			tick := slowTick
			if b.offs.Load() > 0 {
				tick = quickTick
			}
			for i := range b.pairs {
				if b.pairs[i].Load() > 0 {
					tick = quickTick
				}
			}
			time.Sleep(tick)
			b.rounds.Add(1)
			b.inspect()
			if b.running.Load() > 0 {
				continue
			}
			b.rests.Store(true)
			if b.running.Load() == 0 || !b.rests.CompareAndSwap(true, false) {
				break
			}
		}
		if b.closed.Load() {
			return
		}
	}
}

// inspect finds what rang no bell: a thread that the host ended. It ends stubs that do not answer, and lets threads go that compute.
func (b *board) inspect() {
	now := time.Now().UnixNano()
	b.each(func(t *thread) bool {
		if at := t.asked.Load(); at != 0 && now-at > patience {
			t.space.Kill() // guest code took the interrupt's signal away from the entry code
		} else if at == 0 && t.pending.Load() {
			t.signal() // guest code forged the state
		}
		if !t.take() {
			return true
		}
		if t.seen == t.runs {
			t.part()
		}
		t.seen = t.runs
		if t.putBack() {
			return true
		}
		if b.missed++; b.missed == maxMissed {
			for i := range b.attended {
				b.attend(i)
			}
		}
		t.ready()
		return true
	})
}

// putBack puts t back on the board; false if it has an event now, and is the caller's.
func (t *thread) putBack() bool {
	t.row.waits.Or(t.bit)
	return !stub.Told(t.state.Load()) || !t.take()
}
