package stub

import (
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"moat/platform"
)

// Area is what a guest thread shares with the sentry: a page of control words and, behind it, the alternate signal stack, on which the host
// lays the frame of each signal. A guest can write all of it; what the sentry reads there it checks.
type Area struct {
	space *Space
	chunk *chunk
	addr  uint64 // in the stub
	tid   int
	// behind: the thread, while nobody uses it, waits behind a call, not in the handler.
	behind bool
}

// States of Control.State.
const (
	// StateEvent: the thread is in the handler and waits for the sentry.
	StateEvent = 1
	// StateRun: the thread runs guest code, or is about to.
	StateRun = 2
	// StateExit: the thread is to end.
	StateExit = 3
	// StateFrame: the thread, which waits behind a call, is to go on to the handler.
	StateFrame = 4
	// StatePark: the thread is to sleep until it is told more.
	StatePark = 6
	// StateGone: the stub has ended.
	StateGone = 7
	// stateEnded: the thread has ended; the host says so (CLONE_CHILD_CLEARTID).
	stateEnded = 0
)

// Control is the control page (stub_amd64.s has the layout too).
type Control struct {
	State atomic.Uint32
	// GuestSleeps and SentrySleeps say that the side waits by futex, the guest on its word of Bells and the sentry on State, and must be woken.
	GuestSleeps, SentrySleeps atomic.Uint32
	// GuestSpin is how often the handler looks at State before it sleeps.
	GuestSpin atomic.Uint32
	// Hot are registers of a call, as Regs.
	Hot HotRegs
	// What the handler was called with, and the segment bases.
	Signal, Siginfo, Ucontext, GSBase, FSBase uint64
	// altstack is the stack_t that the thread gives sigaltstack(2).
	altstack [3]uint64
	// negSelf is the area's address, negated: how a slot finds out whether the GS base is ours.
	negSelf uint64
	// CPU is what getcpu(2) says.
	CPU atomic.Uint32
	// Call is 1 if the thread waits behind a call, with the registers in Regs, and 0 if it waits in the handler.
	Call atomic.Uint32
	Regs CallRegs
	// tid is the thread's ID, written when it is made.
	tid atomic.Int32
	_   uint32
	// nap is the address of the word that the thread sleeps on, wake that of another's which it is to wake before it does so in StatePark, or 0.
	nap  uint64
	wake atomic.Uint64
	_    [24]byte
	// Opaque is not zero when slots may not answer from Identity.
	Opaque   atomic.Uint32
	Identity [7]atomic.Uint32
	// Return is where a call that answerCode works at returns to.
	Return uint64
	// Signals are what answerCode answers rt_sigprocmask(2) and rt_sigaction(2) from.
	Signals platform.SignalWords
	// A sleep of at most napMax nanoseconds is made in place. napFor is its length as a timespec, whose seconds are 0; napped are the ticks of those that have ended, napSince is
	// when the last began.
	napFor   [2]uint64
	napped   atomic.Int64
	napSince uint64
	napMax   atomic.Uint64
}

// HotRegs and CallRegs are a guest's registers as callCode stores and loads them.
type HotRegs struct {
	RAX, RDI, RSI, RDX, R10, RSP uint64
}

// CallRegs are the others.
type CallRegs struct {
	RIP, EFlags, RBX, RCX, RBP, R8, R9, R11, R12, R13, R14, R15 uint64
}

// Offsets in Control that slots use.
const (
	OffNegSelf  = 128
	offCPU      = 136
	OffOpaque   = 288
	OffIdentity = 292
	offReturn   = 320
	offMask     = 328
	offTID      = 240
)

// Control is the area's control page.
func (a *Area) Control() *Control { return a.chunk.control() }

// Nap lets the thread make sleeps of up to d in place, and returns where it counts their ticks.
func (a *Area) Nap(d time.Duration) *atomic.Int64 {
	c := a.Control()
	c.napMax.Store(uint64(d))
	if d == 0 {
		return nil
	}
	return &c.napped
}

// Bytes returns the n bytes at stub address addr if they lie on the signal stack, else nil.
func (a *Area) Bytes(addr, n uint64) []byte {
	off := addr - a.addr
	if off < pageSize || off >= areaSize || n > areaSize-off {
		return nil
	}
	return a.chunk.mem[off : off+n : off+n]
}

// Saves reports whether callCode stores a copy of the extended state, at Saved, when it is called with nr.
func Saves(nr uint64) bool {
	return nr >= unix.SYS_CLONE && nr <= unix.SYS_KILL || nr == unix.SYS_TGKILL || nr == unix.SYS_CLONE3
}

// Saved are n bytes of what callCode stored.
func (a *Area) Saved(n int) []byte { return a.Bytes(a.addr+pageSize, uint64(n)) }

// Addr is the area's address in the stub.
func (a *Area) Addr() uint64 { return a.addr }

// newAreaLocked returns an area with memory that no thread of the stub has, and the order that maps it there.
//
// +checklocks:s.orderMu
func (s *Space) newAreaLocked() (*Area, order, error) {
	c, err := s.host.newChunk()
	if err != nil {
		return nil, order{}, err
	}
	s.areasMu.Lock()
	defer s.areasMu.Unlock()
	var a *Area
	if n := len(s.free); n > 0 {
		a, s.free = s.free[n-1], s.free[:n-1]
		s.stale, a.chunk = append(s.stale, a.chunk), c
	} else if n := len(s.areas); n < maxAreas {
		a = &Area{space: s, chunk: c, addr: areaBase + uint64(n)*areaSize}
		s.areas = append(s.areas, a)
	} else {
		s.host.freeChunks(c)
		return nil, order{}, unix.EAGAIN
	}
	a.reset()
	return a, order{nr: unix.SYS_MMAP, args: [6]uint64{a.addr, areaSize, unix.PROT_READ | unix.PROT_WRITE,
		unix.MAP_SHARED | unix.MAP_FIXED, uint64(s.host.ctlFD), uint64(c.off)}}, nil
}

// reset makes a an area whose thread is about to trap by itself, first of all. What another thread left in it goes: its control page and, at the top of
// the signal stack, the registers of its last signal.
func (a *Area) reset() {
	clear(a.chunk.mem[:pageSize])
	clear(a.chunk.mem[areaSize-frameSize:])
	c := a.Control()
	c.negSelf = -a.addr
	c.nap = a.napAddr()
	c.Opaque.Store(1)
	c.State.Store(StateRun)
	c.altstack = [3]uint64{a.addr + pageSize, 0, areaSize - pageSize}
	a.tid, a.behind = 0, false
}

// frameSize is more than the host lays on the signal stack for one signal.
const frameSize = 12 << 10

// Release gives a thread that waits for the sentry back to its space, for another guest thread of it; behind says that it does so behind a call,
// where it stays until it is told StateFrame. How it left the area is no secret within an address space.
func (a *Area) Release(behind bool) {
	a.behind = behind
	a.Park(nil)
	c := a.Control()
	c.Opaque.Store(1)
	c.GuestSpin.Store(0)
	a.space.orderMu.Lock()
	a.space.idle = append(a.space.idle, a)
	a.space.orderMu.Unlock()
}

// Behind reports whether the thread, taken from its space anew, waits behind a call.
func (a *Area) Behind() bool { return a.behind }

// Lose says that the thread cannot be used again, nor can the stub.
func (a *Area) Lose() { a.space.broken.Store(true) }

// Spin looks up to n times whether the thread of a waits for the sentry (StateEvent), and notes in mark since when.
func (a *Area) Spin(n int, mark *atomic.Int64) bool {
	return spinUntil(&a.Control().State, StateEvent, n, mark)
}

// Await waits until the thread of a waits for the sentry (StateEvent), first by looking spin times, then by futex.
func (a *Area) Await(spin int) (err error) {
	for done := spinUntil(&a.Control().State, StateEvent, spin, nil); !done && err == nil; {
		done, err = a.AwaitFor(aliveCheck)
	}
	return err
}

// Told reports whether state v of a thread that was told to run says that it waits for the sentry, or never will.
//
//go:nosplit
func Told(v uint32) bool { return v == StateEvent || v == StateGone || v == stateEnded }

// Over says why the thread will never wait for the sentry; nil if it may.
func (a *Area) Over() error { return a.over(a.Control().State.Load()) }

// over says why a thread in state v will never wait for the sentry. Who sets State to say so wakes the sentry.
func (a *Area) over(v uint32) error {
	switch {
	case a.space.dead.Load():
		return a.space.gone()
	case v == stateEnded:
		return GoneError{What: "a guest thread ended by itself"}
	}
	return nil
}

// AwaitFor is Await without spinning, for d at most; done says whether the thread is in the handler.
func (a *Area) AwaitFor(d time.Duration) (done bool, err error) {
	c := a.Control()
	c.SentrySleeps.Store(1)
	v := c.State.Load()
	if v != StateEvent {
		if err := a.over(v); err != nil {
			return false, err
		}
		platform.FutexWait(&c.State, v, d)
	}
	c.SentrySleeps.Store(0)
	return c.State.Load() == StateEvent, nil
}

// aliveCheck is how soon who waits for a batch finds out that the stub has ended, should it miss being told. Within briefly most batches are done.
const aliveCheck, briefly = 200 * time.Millisecond, 5 * time.Millisecond

// Park lets the thread, if it waits for the sentry, sleep at once. It wakes the thread of o before, if that is not nil: what Begin left to be done. That it does so is
// not certain.
func (a *Area) Park(o *Area) {
	c := a.Control()
	if o != nil {
		c.wake.Store(o.napAddr())
	}
	if (!c.State.CompareAndSwap(StateEvent, StatePark) || a.Asleep()) && o != nil {
		c.wake.Store(0)
		o.Wake()
	}
}

// Begin lets the thread go on with state s, StateRun, StateExit or StateFrame, and reports whether it sleeps: then it must be woken.
func (a *Area) Begin(s uint32) (asleep bool) {
	a.Control().State.Store(s)
	return a.rouse()
}

// Resume is Begin, and wakes the thread if it must be.
func (a *Area) Resume(s uint32) (woken bool) {
	if woken = a.Begin(s); woken {
		a.Wake()
	}
	return woken
}

// rouse makes a thread that sleeps, or is about to, notice that its state was changed.
func (a *Area) rouse() bool {
	if !a.Asleep() {
		return false
	}
	a.nap().Add(1)
	return true
}

// Wake wakes the thread, and those that share its word.
func (a *Area) Wake() { platform.FutexWake(a.nap(), math.MaxInt32) }

// napIndex is which word the thread sleeps on.
func (a *Area) napIndex() int { return int(a.chunk.off/areaSize) % numNaps }

func (a *Area) nap() *atomic.Uint32 { return &a.space.host.Bells().naps[a.napIndex()] }

func (a *Area) napAddr() uint64 { return windowBells + offNaps + 4*uint64(a.napIndex()) }

// Asleep reports whether Resume would have to wake the thread.
func (a *Area) Asleep() bool { return a.Control().GuestSleeps.Load() != 0 }

var _ platform.Platform = (*Host)(nil)
