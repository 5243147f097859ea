package kernel

import (
	"errors"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/platform"
	"moat/sentry/kernel/signal"
	"moat/sentry/linuxerr"
	"moat/sentry/mm"
)

// threadRef is what other goroutines may use of a running task's host side.
type threadRef struct {
	thread platform.Thread
}

// start runs t on a goroutine of its own. fp is the FPU state that it inherits, nil for the initial one.
func (t *Task) start(fp []byte) {
	t.k.running.Add(1)
	go t.main(fp)
}

func (t *Task) main(fp []byte) {
	defer t.k.running.Done()
	if err := t.newThread(fp); err != nil {
		t.brokenThread(err)
	}
	if t.setTID != 0 {
		t.CopyOutUint32(t.setTID, uint32(t.TID()))
	}
	t.loop()
	t.exit()
}

// newThread makes the host thread in t's address space. For t's own goroutine.
func (t *Task) newThread(fp []byte) error {
	thr, err := t.mm.Load().AddressSpace().NewThread()
	if err != nil {
		return err
	}
	if fp != nil {
		if err := thr.SetFPState(fp); err != nil {
			thr.Release()
			return err
		}
	}
	t.thread = thr
	t.thr.Store(&threadRef{thr})
	t.moveWords(thr.Signals())
	t.publishIdentity()
	return nil
}

// releaseThread ends the host thread, keeping its CPU time.
func (t *Task) releaseThread() {
	if t.thread == nil {
		return
	}
	c := t.thread.Clock()
	t.thr.Store(nil)
	t.cpu.userBefore.Add(int64(c.Guest()))
	t.cpu.sysBefore.Add(int64(c.Sentry()))
	t.moveWords(nil)
	t.thread.Release()
	t.thread = nil
}

// beginExit makes the run loop end with status.
func (t *Task) beginExit(status linux.WaitStatus) {
	t.exiting, t.exitCode = true, status
}

// loop runs guest code and answers it until the task exits.
func (t *Task) loop() {
	for !t.exiting {
		if t.work.Load() != 0 {
			t.handleWork()
			continue
		}
		// Whoever sets work looks at inGuest afterwards, and we look at work after setting inGuest: one of the two sees the other.
		t.inGuest.Add(1)
		if t.work.Load() != 0 {
			t.inGuest.Add(1)
			continue
		}
		ev, err := t.thread.Run(&t.regs)
		t.inGuest.Add(1)
		if err != nil {
			t.brokenThread(err)
			return
		}
		switch ev.Kind {
		case platform.EventSyscall:
			t.fault.valid = false
			if ev.Trapped {
				t.mm.Load().Trapped(hostarch.Addr(t.regs.Rip - 2))
			}
			t.syscall()
		case platform.EventFault:
			t.handleFault(&ev)
		case platform.EventSignal:
			t.fault.valid = false
			t.guestSignal(&ev)
		case platform.EventInterrupted:
			t.cpu.involuntary.Add(1)
			t.recalcSignals() // the mask may have been changed while the interrupt was on its way
		}
	}
}

// syscall carries out the system call that the registers ask for.
func (t *Task) syscall() {
	if t.tracing.Load() != nil {
		t.tracedSyscall()
		return
	}
	t.doSyscall()
}

// asked is the system call that the registers ask for; do_syscall_64 takes its number as an int.
func (t *Task) asked() (nr uintptr, args Args) {
	r := &t.regs
	return uintptr(uint32(r.Orig_rax)), Args{Arg(r.Rdi), Arg(r.Rsi), Arg(r.Rdx), Arg(r.R10), Arg(r.R8), Arg(r.R9)}
}

func (t *Task) doSyscall() {
	if t.seccomp.Load() != nil && !t.checkSeccomp(false) {
		return
	}
	r := &t.regs
	nr, args := t.asked()
	var ret uintptr
	var err error = unix.ENOSYS
	fn := t.k.table.Lookup(nr)
	if t.straced.Load() {
		t.k.table.Enter(t, nr, args)
		if fn != nil {
			ret, err = fn(t, args)
		}
		t.k.table.Exit(t, nr, args, ret, err)
	} else if fn != nil {
		ret, err = fn(t, args)
	}
	if t.k.sigios.count.Load() != 0 {
		t.k.sigios.flush()
	}
	if t.regsReplaced {
		t.regsReplaced = false
		return
	}
	starved := false
	if m := t.mm.Load(); m != nil {
		starved = m.Starved()
	}
	if err == nil {
		r.Rax = uint64(ret)
		if starved && t.shortOfMemory() {
			t.outOfMemory() // a copy ended short of what was asked for
		}
		return
	}
	errno := toErrno(err)
	// A copy that gets no memory for the guest's page is EFAULT. A call with such an error has had no effect, so it can be made again.
	if (errno == unix.ENOMEM || errno == unix.EFAULT) && t.shortOfMemory() && t.outOfMemory() {
		errno = linuxerr.ERESTARTNOINTR
	}
	r.Rax = uint64(-int64(errno))
	if errno >= linuxerr.ERESTARTSYS {
		t.work.Or(workRestart)
	}
}

// toErrno is the Errno in err; an error without one is a bug below that shows as EIO.
func toErrno(err error) unix.Errno {
	if e, ok := err.(unix.Errno); ok {
		return e
	}
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return unix.EIO
}

// lastFault remembers the fault before, so that a fault that repeats can be told from a race; count is how often it has.
type lastFault struct {
	addr  hostarch.Addr
	rip   uint64
	valid bool
	count int
}

// MMCaller is the caller that changes of t's address space are charged to.
func (t *Task) MMCaller() mm.Caller {
	return mm.Caller{Limits: t.tg, IPCLock: t.Credentials().HasCap(linux.CAP_IPC_LOCK)}
}

// handleFault resolves a page fault or raises its signal.
func (t *Task) handleFault(ev *platform.Event) {
	if ev.Addr&^0xfff == vsyscallPage && uint64(ev.Addr) == t.regs.Rip {
		t.fault.valid = false
		t.vsyscall()
		return
	}
	count := 0
	if t.fault.valid && t.fault.addr == ev.Addr && t.fault.rip == t.regs.Rip {
		count = t.fault.count + 1
	}
	// Once may be two races in a row: a fault that another thread's change of the mapping made, and made again.
	again := count > 1
	t.fault = lastFault{ev.Addr, t.regs.Rip, true, count}
	m := t.mm.Load()
	err := m.HandleFault(t.MMCaller(), ev.Addr, ev.Access, again)
	if err == nil && again && ev.Signal == unix.SIGBUS {
		err = mm.ErrBusErr // the page is mapped, but its file has been truncated from outside
	}
	if err == nil {
		t.cpu.minorFaults.Add(1)
		return
	}
	t.fault.valid = false
	fe, ok := err.(*mm.FaultError)
	if !ok {
		t.outOfMemory() // if t lives on, it makes the access again
		return
	}
	t.trap = signal.Trap{Number: 14, Error: pageFaultError(ev.Access, fe), CR2: uint64(ev.Addr)}
	info := &linux.SignalInfo{Signo: int32(fe.Signal), Code: fe.Code}
	info.SetAddr(uint64(ev.Addr))
	t.ForceSignal(info)
}

// pageFaultError is the hardware's error code: protection, write, user, instruction fetch.
func pageFaultError(at hostarch.AccessType, fe *mm.FaultError) uint64 {
	code := uint64(4)
	if fe == mm.ErrAccErr {
		code |= 1
	}
	if at.Write {
		code |= 2
	}
	if at.Execute {
		code |= 16
	}
	return code
}

// trapNumbers are the exceptions behind synchronous signals.
var trapNumbers = map[unix.Signal]uint64{unix.SIGFPE: 0, unix.SIGILL: 6, unix.SIGTRAP: 3, unix.SIGSEGV: 13, unix.SIGBUS: 17}

// resumeCall answers a thread that was led to a SYSCALL instruction which has been rewritten together with the one before it.
func (t *Task) resumeCall() bool {
	var code [2]byte
	if _, err := t.CopyIn(hostarch.Addr(t.regs.Rip), code[:]); err != nil || code != [2]byte{0x0f, 0x05} {
		return false
	}
	r := &t.regs
	r.Rip += 2
	r.Rcx, r.R11, r.Orig_rax = r.Rip, r.Eflags, r.Rax
	r.Rax = ^uint64(unix.ENOSYS) + 1
	t.syscall()
	return true
}

// guestSignal raises a synchronous signal other than a page fault's.
func (t *Task) guestSignal(ev *platform.Event) {
	if ev.Signal == unix.SIGILL && t.resumeCall() {
		return
	}
	info := &linux.SignalInfo{Signo: int32(ev.Signal), Code: ev.Code}
	info.SetAddr(uint64(ev.Addr))
	t.trap.Number, t.trap.Error = trapNumbers[ev.Signal], 0
	t.ForceSignal(info)
}

// logFatal notes a death by signal, which is often a bug of moat's.
func (t *Task) logFatal(sig linux.Signal, info *linux.SignalInfo) {
	if !signal.DefaultCore(sig) {
		return
	}
	t.k.log.Info("fatal signal", "pid", t.PID(), "tid", t.TID(), "name", t.name, "signal", int(sig),
		"code", info.Code, "addr", info.Addr(), "rip", t.regs.Rip, "rsp", t.regs.Rsp)
}

// publishIdentity tells the platform what it may answer in place.
func (t *Task) publishIdentity() {
	if t.thread == nil {
		return
	}
	c := t.Credentials()
	ns := c.UserNS
	t.thread.SetIdentity(platform.Identity{
		PID: t.PID(), TID: t.TID(), PPID: t.PPID(), CPU: t.CPU(),
		UID: ns.UIDOrOverflow(c.RUID), EUID: ns.UIDOrOverflow(c.EUID), GID: ns.GIDOrOverflow(c.RGID), EGID: ns.GIDOrOverflow(c.EGID),
		Sleeps: t.sleepsInPlace(),
		Valid:  !t.straced.Load() && t.tracing.Load() == nil && t.seccomp.Load() == nil && ns.Mapped(),
	})
}

// RunAtBoundary makes t run fn before it next enters the guest. fn runs on t's goroutine.
func (t *Task) RunAtBoundary(fn func(*Task)) {
	t.mu.Lock()
	t.notes = append(t.notes, fn)
	t.mu.Unlock()
	t.setWork(workNotify)
}

func (t *Task) runNotifications() {
	t.mu.Lock()
	fns := t.notes
	t.notes = nil
	t.work.And(^workNotify)
	t.mu.Unlock()
	for _, fn := range fns {
		fn(t)
	}
}
