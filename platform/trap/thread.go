package trap

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
	gsync "gvisor.dev/gvisor/pkg/sync"

	"moat/platform"
	"moat/platform/stub"
)

const (
	interruptSignal = unix.SIGUSR2
	// taskSize is the first address that no segment base may have.
	taskSize = 0x7ffffffff000
	flagTF   = 0x100
)

// thread is a guest thread.
type thread struct {
	space *stub.Space
	slots *slots
	tid   int
	area  *stub.Area
	// The thread waits in the handler, where uc is the frame's ucontext, checked, and fp its extended state, checked; or uc is nil and it waits
	// behind a call, of which fp is the extended state if that was stored.
	uc []byte
	fp []byte
	// fpLen is the size of fp, notes are what the host noted in that of the thread's first frame. saves: the area has a copy.
	fpLen int
	notes [fxsaveSize - swOff]byte
	saves bool
	fs    uint64 // FS base of the last run
	// pending is a sticky interrupt. Who sets it looks at the state then, and sends a signal if guest code runs; Run sets the state, then looks at pending.
	pending atomic.Bool
	n       counts
	pair    pair

	board *board
	place
	state *atomic.Uint32 // the area's
	gp    uintptr        // the goroutine that sleep parked
	// parking: sleep's OS thread is not done with t.
	parking atomic.Bool
	polls   bool   // t is the board's poller
	rung    bool   // a watchman found the event
	wakes   bool   // the call that t answers may wake other tasks
	alone   uint   // counts events that its own goroutine saw
	runs    uint64 // counts runs
	seen    uint64 // the run that the janitor saw
	// asked is when an interrupt's signal was sent that has not been answered, or 0.
	asked atomic.Int64

	mu sync.Mutex
	// +checklocks:mu
	released bool

	clock *platform.Stopwatch
	// lost: the thread does not do as it is told, or is gone.
	lost bool
}

func (p *Platform) newThread(s *stub.Space, tid int, a *stub.Area) (platform.Thread, error) {
	t := &thread{space: s, slots: p.slots, tid: tid, area: a, pair: pair{cpu: -1, off: -1}, clock: platform.NewStopwatch(), board: p.board, state: a.StateWord()}
	err := t.begin()
	if err == nil {
		err = p.board.add(t)
	}
	if err != nil {
		a.Lose()
		return nil, err
	}
	if b := t.board; b.busy.Load() > 0 && b.busy.Add(1)%tryNew != 0 {
		t.join()
	}
	return t, nil
}

// begin brings a thread that is new, or was another guest thread's, to where it can be given its first registers.
func (t *thread) begin() error {
	if !t.area.Behind() {
		if t.state.Load() != stub.StatePark {
			if err := t.area.Await(spinLooks); err != nil {
				return err
			}
		}
		if err := t.locate(); err != nil {
			return err
		}
	}
	if err := t.SetFPState(nil); err != nil {
		return err
	}
	t.fpLen = len(t.fp)
	copy(t.notes[:], t.fp[swOff:])
	return nil
}

// locate finds the frame of the signal that the handler was called for. What the area says of it is the guest's to forge.
func (t *thread) locate() error {
	at := t.area.Control().Ucontext
	if t.uc = t.area.Bytes(at, ucontextSize); t.uc == nil {
		return stub.GoneError{What: "its signal frame is not on its signal stack"}
	}
	t.fp = nil
	fp := get(t.uc, gFpstate)
	if head := t.area.Bytes(fp, fxsaveSize); head != nil {
		n := uint64(binary.LittleEndian.Uint32(head[swOff+16:])) // xstate_size
		if n < fxsaveSize || n > maxXSave {
			n = fxsaveSize
		}
		t.fp = t.area.Bytes(fp, n)
	}
	return nil
}

// frame makes a thread that waits behind a call go to the handler, where its extended state is in memory.
func (t *thread) frame() error {
	if t.uc == nil {
		t.n.frames++
		t.area.Resume(stub.StateFrame)
		if err := t.area.Await(spinLooks); err != nil {
			return err
		}
		if err := t.locate(); err != nil {
			return err
		}
	}
	if t.fp == nil {
		return stub.GoneError{What: "its signal frame has no extended state"}
	}
	return nil
}

// Run implements platform.Thread.
func (t *thread) Run(regs *platform.Regs) (platform.Event, error) {
	ev, err := t.run(regs)
	t.lost = t.lost || err != nil
	return ev, err
}

func (t *thread) run(regs *platform.Regs) (platform.Event, error) {
	if regs.Fs_base >= taskSize || regs.Gs_base >= taskSize {
		return platform.Event{Kind: platform.EventSignal, Signal: unix.SIGSEGV, Code: stub.SIKernel}, nil
	}
	if err := t.space.Flush(); err != nil {
		return platform.Event{}, err
	}
	if t.uc == nil && (regs.Gs_base != 0 || regs.Rip >= taskSize || regs.Eflags&flagTF != 0) {
		if err := t.frame(); err != nil {
			return platform.Event{}, err
		}
	}
	for {
		t.put(regs)
		if t.pending.Load() && t.pending.Swap(false) {
			return platform.Event{Kind: platform.EventInterrupted}, nil
		}
		spin := t.spins()
		if c := t.area.Control(); c.GuestSpin.Load() != uint32(spin) {
			c.GuestSpin.Store(uint32(spin))
		}
		if home := int(t.board.home.Load()); spin > 0 && t.pair.off != home && t.brief() && t.area.Asleep() {
			t.keepOff(home)
		}
		woken := t.resume(spin)
		if woken {
			t.n.wakes++
			spin = min(spin*wakeLooks, wakeLooks)
		}
		// The guest is on its way: what can wait until now costs it no time.
		t.clock.Start()
		t.runs++
		t.n.runs++
		t.board.enter()
		on := t.pair.cpu
		if on >= 0 {
			t.board.active[on].Add(1)
		}
		if t.pending.Load() {
			t.signal() // a signal before may have found the thread behind its call, where it is not passed on
		}
		slept, err := t.await(spin, woken)
		if slept {
			t.n.slept++
		}
		t.board.leave()
		if on >= 0 {
			t.board.active[on].Add(-1)
		}
		if t.asked.Load() != 0 {
			t.asked.Store(0)
		}
		ran := t.clock.Stop()
		if err != nil {
			return platform.Event{}, err
		}
		t.note(slept, spin > 0, ran)
		if t.area.Control().Call.Load() != 0 {
			t.called(regs)
			t.entered(regs.Orig_rax)
			return platform.Event{Kind: platform.EventSyscall}, nil
		}
		if spin > 0 && t.board.crowded() {
			t.board.vain(4 * crowdLooks)
		}
		if err := t.locate(); err != nil {
			return platform.Event{}, err
		}
		t.get(regs)
		if ev, ok := t.event(regs); ok {
			if ev.Kind == platform.EventSyscall {
				t.entered(regs.Orig_rax)
			}
			return ev, nil
		}
	}
}

// resume lets the guest run and reports whether it sleeps. Another that runs, and is likely to block soon, may have to wake it.
func (t *thread) resume(spin int) (asleep bool) {
	b := t.board
	b.settle()
	if asleep = t.area.Begin(stub.StateRun); !asleep {
		return false
	}
	if spin == 0 || b.running.Load() == 0 || !b.owed.CompareAndSwap(nil, t) {
		t.area.Wake()
	} else if !b.poller.Load() {
		b.settle() // who ends to poll does it after that: one of the two sees the other
	}
	return true
}

// entered looks at the call that t is about to answer.
func (t *thread) entered(nr uint64) {
	k := plain
	if nr < uint64(len(kinds)) {
		k = kinds[nr]
	}
	t.wakes = k == waking
	if t.pair.talk -= t.pair.talk / 128; t.wakes && nr != unix.SYS_CLOSE {
		t.pair.talk += 128
	}
	if k == plain {
		t.long()
	}
}

// long says that what t is about to do may take long: another polls meanwhile, and for a crowd it is as good as looks in vain.
func (t *thread) long() {
	b := t.board
	if b.crowded() && b.hold.Load() == 0 {
		b.vain(4 * crowdLooks)
	}
	if t.polls {
		b.passPoll(t)
		gsync.Goyield() // to who waits for the sources now
	}
}

// put writes regs where the thread will load them from. A guest whose GS base is 0 runs with that of the area instead.
func (t *thread) put(regs *platform.Regs) {
	c := t.area.Control()
	if t.uc == nil {
		if regs.Fs_base != t.fs {
			c.FSBase, t.fs = regs.Fs_base, regs.Fs_base
		}
		storeCall(c, regs)
		return
	}
	c.FSBase, t.fs = regs.Fs_base, regs.Fs_base
	if c.GSBase = regs.Gs_base; regs.Gs_base == 0 {
		c.GSBase = t.area.Addr()
	}
	store(t.uc, regs)
}

// get reads the frame's registers. Those of a thread that was interrupted in callCode, on its way out, are those that it was to load.
func (t *thread) get(regs *platform.Regs) {
	c := t.area.Control()
	load(t.uc, regs)
	regs.Fs_base, regs.Gs_base = c.FSBase, c.GSBase
	if regs.Gs_base == t.area.Addr() {
		regs.Gs_base = 0
	}
	if regs.Rip&^0xfff == stub.CodeAddr && unix.Signal(c.Signal) == interruptSignal {
		loadCall(c, regs)
		regs.Fs_base = t.fs
	}
}

// called reads the registers of a call that came through callCode.
func (t *thread) called(regs *platform.Regs) {
	c := t.area.Control()
	t.uc, t.fp = nil, nil
	loadCall(c, regs)
	if stub.Saves(regs.Rax) {
		t.fp, t.saves = t.area.Saved(t.fpLen), true
	}
	t.fs = c.FSBase
	regs.Fs_base, regs.Gs_base = t.fs, 0
	enterCall(regs, regs.Rip)
}

// enterCall makes regs those of a thread behind its SYSCALL instruction, which goes on at ret.
func enterCall(regs *platform.Regs, ret uint64) {
	regs.Rip, regs.Rcx, regs.R11 = ret, ret, regs.Eflags
	stub.EnterCall(regs)
}

// event makes an event of the signal; false for one that concerns nobody.
func (t *thread) event(regs *platform.Regs) (platform.Event, bool) {
	c := t.area.Control()
	sig := unix.Signal(c.Signal)
	if x, off, ok := t.slots.lookup(regs.Rip); ok {
		base := t.space.Text(x.text)
		switch {
		case sig == interruptSignal: // the call has had no effect; it is made again
			regs.Rip = base + x.start
		case (sig == unix.SIGSEGV || sig == unix.SIGBUS) && off < uint64(len(x.lead)+probeLen): // the GS base is the guest's
			if x.nr >= 0 {
				regs.Rax = uint64(x.nr)
			}
			enterCall(regs, base+x.ret)
			return platform.Event{Kind: platform.EventSyscall}, true
		}
	}
	if sig == interruptSignal || sig == unix.SIGSEGV || sig == unix.SIGBUS {
		if made, ok := t.area.Answer(regs); ok && !made {
			enterCall(regs, regs.Rip)
			return platform.Event{Kind: platform.EventSyscall}, true
		}
	}
	if sig == interruptSignal {
		return platform.Event{Kind: platform.EventInterrupted}, t.pending.Swap(false)
	}
	si := t.area.Bytes(c.Siginfo, siginfoSize)
	if si == nil {
		return platform.Event{Kind: platform.EventSignal, Signal: unix.SIGSEGV, Code: stub.SIKernel}, true
	}
	code, arch := stub.Complete(sig, int32(binary.LittleEndian.Uint32(si[8:])), binary.LittleEndian.Uint32(si[28:]))
	addr := get(si, 16)
	switch {
	case sig == unix.SIGSYS && (code == stub.SysUserDispatch || code == stub.SysSeccomp):
		return call(regs, addr, arch), true
	case code <= 0:
		return platform.Event{}, false // sent by some process of the host: not the guest's
	case (sig == unix.SIGSEGV || sig == unix.SIGBUS) && code != stub.SIKernel:
		ev := platform.Event{Kind: platform.EventFault, Signal: sig, Code: code, Addr: hostarch.Addr(addr)}
		if get(t.uc, gTrapno) == trapPageFault {
			e := get(t.uc, gErr)
			ev.Access = hostarch.AccessType{Read: e&(pfWrite|pfInstr) == 0, Write: e&pfWrite != 0, Execute: e&pfInstr != 0}
		}
		return ev, true
	case sig == unix.SIGILL || sig == unix.SIGTRAP || sig == unix.SIGFPE || sig == unix.SIGSYS:
		return platform.Event{Kind: platform.EventSignal, Signal: sig, Code: code, Addr: hostarch.Addr(addr)}, true
	}
	// A general-protection fault, or a number that the guest forged: no other signal has the handler.
	return platform.Event{Kind: platform.EventSignal, Signal: unix.SIGSEGV, Code: stub.SIKernel}, true
}

// call is a system call that the host trapped at address at.
func call(regs *platform.Regs, at uint64, arch uint32) platform.Event {
	if ev, ok := stub.Vsyscall(at, regs); ok {
		return ev
	}
	ev := stub.Call(arch, regs)
	ev.Trapped = ev.Kind == platform.EventSyscall
	return ev
}

// Interrupt implements platform.Thread.
func (t *thread) Interrupt() {
	t.pending.Store(true)
	if s := t.state.Load(); !stub.Told(s) && s != stub.StatePark {
		t.signal()
	}
}

func (t *thread) signal() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.released {
		if t.asked.Load() == 0 {
			t.asked.Store(time.Now().UnixNano())
		}
		t.n.signals.Add(1)
		unix.Tgkill(t.space.PID(), t.tid, interruptSignal)
	}
}

// FPState implements platform.Thread.
func (t *thread) FPState() ([]byte, error) {
	if t.uc == nil && t.fp != nil {
		copy(t.fp[swOff:], t.notes[:])
		clear(t.fp[min(fxsaveSize+8, t.fpLen):min(fxsaveSize+xsaveHeader, t.fpLen)]) // XSAVE leaves it alone
		return t.fp, nil
	}
	err := t.frame()
	return t.fp, err
}

// SetFPState implements platform.Thread.
func (t *thread) SetFPState(b []byte) error {
	if err := t.frame(); err != nil {
		return err
	}
	return setFP(t.fp, b, get(t.fp, swXfeatures))
}

// Clock implements platform.Thread: a guest runs from being resumed to its event.
func (t *thread) Clock() *platform.Stopwatch { return t.clock }

// Signals implements platform.Thread.
func (t *thread) Signals() *platform.SignalWords { return &t.area.Control().Signals }

// Park implements platform.Thread.
func (t *thread) Park() {
	b := t.board
	o := b.owed.Swap(nil)
	if o == nil {
		t.area.Park(nil)
	} else {
		t.area.Park(o.area)
		if old := b.handed.Swap(o); old != nil && old.area.Asleep() {
			old.area.Wake()
		}
	}
	if b.running.Load() == 0 {
		b.flush()
	}
	if t.polls {
		b.passPoll(t)
	}
}

// SetIdentity implements platform.Thread.
func (t *thread) SetIdentity(id platform.Identity) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.released {
		return // the area may be another thread's
	}
	c := t.area.Control()
	c.Opaque.Store(1)
	if t.clock.Mark() == nil {
		id.Sleeps = 0 // the thread counts ticks of a counter that there is not
	}
	t.clock.Idle(t.area.Nap(id.Sleeps))
	if !id.Valid {
		return
	}
	for i, v := range [...]uint32{uint32(id.PID), uint32(id.TID), uint32(id.PPID), id.UID, id.EUID, id.GID, id.EGID} {
		c.Identity[i].Store(v)
	}
	c.CPU.Store(id.CPU)
	c.Opaque.Store(0)
}

// Release implements platform.Thread: another guest thread of the space may get the host's.
func (t *thread) Release() {
	t.mu.Lock()
	if t.released {
		t.mu.Unlock()
		return
	}
	t.released = true
	t.clock.Idle(nil)
	t.mu.Unlock()
	if t.polls {
		t.board.passPoll(t)
	}
	t.part()
	if t.saves {
		clear(t.area.Saved(t.fpLen)) // the area may become another process'
	}
	t.board.remove(t)
	if t.lost {
		t.area.Lose()
		return
	}
	t.area.Release(t.uc == nil)
}
