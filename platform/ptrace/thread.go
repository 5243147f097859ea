package ptrace

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/platform"
	"moat/platform/stub"
)

const (
	// interruptSignal is sent to a guest thread to stop it; it is never delivered.
	interruptSignal = unix.SIGUSR2
	// syscallStop is the stop signal of a system call with PTRACE_O_TRACESYSGOOD.
	syscallStop = unix.SIGTRAP | 0x80

	ptraceSeize     = 0x4206
	ptraceInterrupt = 0x4207
	ptraceEventStop = 128
	ptraceSysemu    = 31
	noteX86XState   = 0x202
	userCS, userSS  = 0x33, 0x2b
)

// thread is a guest thread, traced by the OS thread of the goroutine that owns it.
type thread struct {
	p     *Platform
	space *stub.Space
	tid   int

	// regs are the host thread's registers if known, to leave out a SETREGS that changes nothing.
	regs  platform.Regs
	known bool
	xsave []byte

	// pending is a sticky interrupt; running says that a signal is needed to end the Run in progress.
	pending atomic.Bool
	running atomic.Bool

	mu sync.Mutex
	// +checklocks:mu
	released bool

	clock *platform.Stopwatch
}

func (p *Platform) newThread(s *stub.Space, tid int, _ *stub.Area) (platform.Thread, error) {
	// Only the OS thread that seizes a thread may trace it.
	runtime.LockOSThread()
	t := &thread{p: p, space: s, tid: tid, xsave: make([]byte, 8192), clock: platform.NewStopwatch()}
	if err := t.seize(); err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	p.mu.Lock()
	p.threads[t] = struct{}{}
	p.mu.Unlock()
	return t, nil
}

func (t *thread) seize() error {
	if err := ptrace(ptraceSeize, t.tid, unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_EXITKILL); err != nil {
		return fmt.Errorf("ptrace: seizing a guest thread: %w", err)
	}
	if err := ptrace(ptraceInterrupt, t.tid, 0); err != nil {
		return fmt.Errorf("ptrace: stopping a guest thread: %w", err)
	}
	if _, err := t.wait(); err != nil {
		return err
	}
	return t.SetFPState(nil)
}

// wait waits for the thread's next stop.
func (t *thread) wait() (unix.WaitStatus, error) {
	var st unix.WaitStatus
	for {
		_, err := unix.Wait4(t.tid, &st, unix.WALL, nil)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return 0, stub.GoneError{What: fmt.Sprintf("wait4: %v", err)}
		case st.Exited():
			return st, stub.GoneError{What: fmt.Sprintf("it exited with %d", st.ExitStatus())}
		case st.Signaled():
			return st, stub.GoneError{What: fmt.Sprintf("it was killed by %v", st.Signal())}
		}
		return st, nil
	}
}

// gone turns ESRCH of a thread that died between two calls into the error that says so.
func (t *thread) gone(err error) error {
	if err == unix.ESRCH {
		if _, werr := t.wait(); werr != nil {
			return werr
		}
	}
	return fmt.Errorf("ptrace: guest thread: %w", err)
}

// Run implements platform.Thread.
func (t *thread) Run(regs *platform.Regs) (platform.Event, error) {
	if err := t.space.Flush(); err != nil {
		return platform.Event{}, err
	}
	regs.Cs, regs.Ss, regs.Ds, regs.Es, regs.Fs, regs.Gs = userCS, userSS, 0, 0, 0, 0
	regs.Orig_rax = ^uint64(0)
	if !t.known || t.regs != *regs {
		if err := setRegs(t.tid, regs); err == unix.EIO {
			// The host refuses the FS or GS base: an address that is not canonical, or the kernel's.
			return platform.Event{Kind: platform.EventSignal, Signal: unix.SIGSEGV, Code: stub.SIKernel}, nil
		} else if err != nil {
			return platform.Event{}, t.gone(err)
		}
		t.regs, t.known = *regs, true
	}
	for {
		t.running.Store(true)
		if t.pending.Swap(false) {
			t.running.Store(false)
			return platform.Event{Kind: platform.EventInterrupted}, nil
		}
		t.clock.Start()
		if err := ptrace(ptraceSysemu, t.tid, 0); err != nil {
			return platform.Event{}, t.gone(err)
		}
		st, err := t.wait()
		t.running.Store(false)
		t.clock.Stop()
		if err != nil {
			return platform.Event{}, err
		}
		ev, done, err := t.decode(st, regs)
		if done || err != nil {
			return ev, err
		}
	}
}

// decode makes an event of a stop; done is false for a stop that concerns nobody.
func (t *thread) decode(st unix.WaitStatus, regs *platform.Regs) (ev platform.Event, done bool, err error) {
	if err := getRegs(t.tid, regs); err != nil {
		return ev, false, t.gone(err)
	}
	t.regs, t.known = *regs, true
	sig := st.StopSignal()
	if sig == syscallStop {
		return platform.Event{Kind: platform.EventSyscall}, true, nil
	}
	regs.Orig_rax = ^uint64(0)
	if int(st)>>16 == ptraceEventStop {
		return platform.Event{Kind: platform.EventInterrupted}, t.pending.Swap(false), nil
	}
	var si siginfo
	if err := getSiginfo(t.tid, &si); err != nil {
		return ev, false, t.gone(err)
	}
	addr := hostarch.Addr(si.Addr)
	si.Code, si.Arch = stub.Complete(sig, si.Code, si.Arch)
	switch {
	case sig == interruptSignal:
		return platform.Event{Kind: platform.EventInterrupted}, t.pending.Swap(false), nil
	case sig == unix.SIGSYS && si.Code == stub.SysUserDispatch:
		return stub.Call(si.Arch, regs), true, nil
	case sig == unix.SIGSYS && si.Code == stub.SysSeccomp:
		ev, ok := stub.Vsyscall(si.Addr, regs)
		if !ok {
			return ev, false, stub.GoneError{What: "it made a call of its own"}
		}
		t.known = false
		return ev, true, nil
	case si.Code <= 0:
		return ev, false, nil // sent by some process of the host: not the guest's
	}
	switch sig {
	case unix.SIGSEGV, unix.SIGBUS:
		if si.Code == stub.SIKernel {
			return platform.Event{Kind: platform.EventSignal, Signal: unix.SIGSEGV, Code: stub.SIKernel}, true, nil
		}
		ev = platform.Event{Kind: platform.EventFault, Signal: sig, Code: si.Code, Addr: addr}
		ev.Access.Execute = si.Addr == regs.Rip
		return ev, true, nil
	case unix.SIGFPE, unix.SIGILL, unix.SIGTRAP:
		return platform.Event{Kind: platform.EventSignal, Signal: sig, Code: si.Code, Addr: addr}, true, nil
	}
	return ev, false, nil
}

// Interrupt implements platform.Thread.
func (t *thread) Interrupt() {
	t.pending.Store(true)
	if !t.running.Load() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.released {
		unix.Tgkill(t.space.PID(), t.tid, interruptSignal)
	}
}

// Clock implements platform.Thread. The guest's time includes the host's own switches, and waits for a CPU.
func (t *thread) Clock() *platform.Stopwatch { return t.clock }

// Park implements platform.Thread: a stopped thread takes no CPU.
func (*thread) Park() {}

// Signals implements platform.Thread.
func (t *thread) Signals() *platform.SignalWords { return nil }

// SetIdentity implements platform.Thread. Nothing is answered in place.
func (t *thread) SetIdentity(platform.Identity) {}

// Release implements platform.Thread: the thread leaves through the entry code.
func (t *thread) Release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.released {
		return
	}
	t.released = true
	t.p.mu.Lock()
	delete(t.p.threads, t)
	t.p.mu.Unlock()
	defer runtime.UnlockOSThread()
	r := platform.Regs{Rip: stub.CodeAddr, Rax: stub.EntryExit, Orig_rax: ^uint64(0), Cs: userCS, Ss: userSS, Eflags: 0x202}
	// An interrupt may still be pending: unblocked, it would kill the whole stub once nobody traces the thread.
	blocked := ^uint64(0)
	if setRegs(t.tid, &r) != nil || setSigmask(t.tid, &blocked) != nil || ptrace(unix.PTRACE_DETACH, t.tid, 0) != nil {
		// Dead already, or about to be: its tracer must wait for it, or the stub's other threads' end is never reported.
		for {
			if _, err := t.wait(); err != nil {
				return
			}
		}
	}
}

// Offsets in the standard XSAVE layout (Intel SDM vol. 1, 13.4) with Linux's software bytes.
const (
	mxcsrOffset       = 24
	mxcsrMaskOffset   = 28
	swXfeaturesOffset = 464
	xsaveHeader       = 512
	initialFCW        = 0x37f
	initialMXCSR      = 0x1f80
	defaultMXCSRMask  = 0xffbf
)

// FPState implements platform.Thread.
func (t *thread) FPState() ([]byte, error) {
	n, err := ptraceRegset(unix.PTRACE_GETREGSET, t.tid, noteX86XState, t.xsave)
	if err != nil {
		return nil, t.gone(err)
	}
	return t.xsave[:n:n], nil
}

// SetFPState implements platform.Thread.
func (t *thread) SetFPState(b []byte) error {
	var own [8192]byte
	b = own[:copy(own[:], b)] // b may be what FPState returned
	cur, err := t.FPState()
	if err != nil {
		return err
	}
	features := binary.LittleEndian.Uint64(cur[swXfeaturesOffset:])
	mask := binary.LittleEndian.Uint32(cur[mxcsrMaskOffset:])
	if mask == 0 {
		mask = defaultMXCSRMask
	}
	clear(cur)
	h := cur[xsaveHeader:]
	switch {
	case len(b) == 0:
		binary.LittleEndian.PutUint16(cur, initialFCW)
		binary.LittleEndian.PutUint32(cur[mxcsrOffset:], initialMXCSR)
	case len(b) < xsaveHeader:
		return unix.EINVAL
	default:
		copy(cur, b)
		clear(cur[swXfeaturesOffset:xsaveHeader])
		bv := uint64(3) // the legacy area alone: x87 and SSE
		if len(b) >= xsaveHeader+64 {
			bv = binary.LittleEndian.Uint64(h) & features
		}
		clear(h[:64])
		binary.LittleEndian.PutUint64(h, bv)
		mxcsr := binary.LittleEndian.Uint32(cur[mxcsrOffset:])
		binary.LittleEndian.PutUint32(cur[mxcsrOffset:], mxcsr&mask)
	}
	if _, err := ptraceRegset(unix.PTRACE_SETREGSET, t.tid, noteX86XState, cur); err == unix.EINVAL {
		return err
	} else if err != nil {
		return t.gone(err)
	}
	return nil
}
