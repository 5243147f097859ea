package kernel

import (
	"cmp"
	"sync"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

// TraceMode is how a tracee runs after a stop.
type TraceMode uint8

const (
	// TraceCont: until the next signal or event. TraceSyscall: until it enters or leaves a system call. TraceStep: for one instruction.
	// TraceListen: it stays in its group stop (PTRACE_LISTEN).
	TraceCont TraceMode = iota
	TraceSyscall
	TraceStep
	TraceListen
)

// Stops that are not signals (PTRACE_EVENT_*), as bits 8-15 of a stop's code.
const (
	traceEventFork  = 1
	traceEventVfork = 2
	traceEventClone = 3
	traceEventExec  = 4
	traceEventVDone = 5
	traceEventExit  = 6
	traceSeccomp    = 7
	traceEventStop  = 128
)

// Options of PTRACE_SETOPTIONS: PTRACE_O_TRACESYSGOOD, then one bit an event, and PTRACE_O_EXITKILL.
const (
	TraceSysGood    = 1
	TraceExitKill   = 1 << 20
	TraceOptionMask = TraceSysGood | 1<<traceEventFork | 1<<traceEventVfork | 1<<traceEventClone | 1<<traceEventExec | 1<<traceEventVDone | 1<<traceEventExit | 1<<traceSeccomp | TraceExitKill
)

// SyscallStop says which side of a system call, or which filter's wish, a tracee stopped at (PTRACE_GET_SYSCALL_INFO).
type SyscallStop uint8

const (
	SyscallNone SyscallStop = iota
	SyscallEntry
	SyscallExit
	SyscallSeccomp
)

// tracing is what a tracee has of its tracer (ptrace(2)). A tracee that stops runs the tracer's requests on its own goroutine, which alone may touch its
// registers. Task.tracing is changed with tasksMu held for writing; mu comes behind sigMu.
type tracing struct {
	by     *Task
	seized bool
	// requests are the tracer's, while the tracee is stopped.
	requests chan func()

	mu sync.Mutex
	// +checklocks:mu
	options uint32
	// stopped: the tracee is in a stop with code, which wait(2) has been told of if reported. left is closed when it leaves the stop.
	// +checklocks:mu
	stopped bool
	// +checklocks:mu
	reported bool
	// +checklocks:mu
	code uint32
	// +checklocks:mu
	left chan struct{}
	// sig is delivered when the tracee goes on, as mode says.
	// +checklocks:mu
	sig linux.Signal
	// +checklocks:mu
	mode TraceMode
	// message is PTRACE_GETEVENTMSG's.
	// +checklocks:mu
	message uint64

	// trap: a stop with PTRACE_EVENT_STOP is due. Guarded by the tracee's sigMu.
	trap bool

	// For the tracee's goroutine: the signal it stopped with, the side of a system call, and whether the trap flag is ours.
	info    *linux.SignalInfo
	call    SyscallStop
	stepped bool
}

const flagTF = 0x100

// Traced reports whether another process traces t.
func (t *Task) Traced() bool { return t.tracing.Load() != nil }

// Tracer is the thread that traces t, or nil.
func (t *Task) Tracer() *Task {
	if tr := t.tracing.Load(); tr != nil {
		return tr.by
	}
	return nil
}

// traceLocked makes by the tracer of t. Preconditions: tasksMu is held for writing, t is not traced and alive.
func (t *Task) traceLocked(by *Task, seized bool, options uint32) {
	t.tracing.Store(&tracing{by: by, seized: seized, options: options, requests: make(chan func())})
	if by.tg.tracees == nil {
		by.tg.tracees = make(map[*Task]struct{})
	}
	by.tg.tracees[t] = struct{}{}
}

// untraceLocked ends the tracing of t, which goes on with sig if it is stopped. Preconditions: tasksMu is held for writing.
func (t *Task) untraceLocked(sig linux.Signal) {
	tr := t.tracing.Load()
	if tr == nil {
		return
	}
	t.tracing.Store(nil)
	delete(tr.by.tg.tracees, t)
	tr.mu.Lock()
	tr.stopped, tr.sig, tr.mode = false, sig, TraceCont
	tr.mu.Unlock()
	t.RunAtBoundary((*Task).publishIdentity)
	t.poke()
}

// releaseTracees detaches from the tracees of a thread that ends. Preconditions: tasksMu is held for writing.
func (by *Task) releaseTracees() {
	for t := range by.tg.tracees {
		tr := t.tracing.Load()
		if tr.by != by {
			continue
		}
		tr.mu.Lock()
		kill := tr.options&TraceExitKill != 0
		tr.mu.Unlock()
		t.untraceLocked(0)
		if kill {
			t.tg.SendSignal(kernelInfo(linux.SIGKILL))
		}
	}
}

// tracedEndLocked tells a tracer that is not told as the parent that t has ended; one in parent will be told as if it had made t. Preconditions: tasksMu is held
// for writing.
func (t *Task) tracedEndLocked(status linux.WaitStatus, parent *ThreadGroup) {
	tr := t.tracing.Load()
	if tr == nil {
		return
	}
	by := tr.by.tg
	t.untraceLocked(0)
	if by == parent {
		t.tg.parentTask = tr.by
	}
	if by == parent || by.exitNotified {
		return
	}
	pid := t.TIDIn(by.leader.PIDNamespace())
	if len(by.tracedDead) < maxTracedDead {
		by.tracedDead = append(by.tracedDead, tracedEnd{t.pid.Load(), WaitResult{PID: pid, UID: t.Credentials().RUID, Status: status}})
	}
	why, st := endOf(status)
	tr.by.toldOfTracee(t, why, st, 0)
}

// maxTracedDead bounds what a tracer that never waits piles up.
const maxTracedDead = 10000

type tracedEnd struct {
	pid    *PID
	result WaitResult
}

// TraceMe is PTRACE_TRACEME: t's parent becomes its tracer.
func (t *Task) TraceMe() error {
	t.k.tasksMu.Lock()
	defer t.k.tasksMu.Unlock()
	if t.Traced() || t.tg.parent == nil {
		return unix.EPERM
	}
	t.traceLocked(cmp.Or(t.tg.parentTask, t.tg.parent.leader), false, 0)
	t.publishIdentity()
	return nil
}

// Attach is PTRACE_ATTACH, or PTRACE_SEIZE with options: ESRCH, EPERM.
func (t *Task) Attach(o *Task, seize bool, options uint32) error {
	if o.tg == t.tg || !t.MayAccess(o, false) {
		return unix.EPERM
	}
	k := t.k
	k.tasksMu.Lock()
	switch {
	case o.exitDone || o.mm.Load() == nil:
		k.tasksMu.Unlock()
		return unix.ESRCH
	case o.Traced():
		k.tasksMu.Unlock()
		return unix.EPERM
	}
	o.traceLocked(t, seize, options)
	o.tg.sigMu.Lock()
	if o.stopped && !seize {
		// From a group stop it goes into a stop of ours, with no SIGCONT between.
		o.tracing.Load().trap = true
		o.poke()
	}
	o.tg.sigMu.Unlock()
	k.tasksMu.Unlock()
	o.RunAtBoundary((*Task).publishIdentity)
	if !seize {
		return o.SendSignal(kernelInfo(linux.SIGSTOP))
	}
	return nil
}

// tracee is o's tracing if t traces it: ESRCH.
func (t *Task) tracee(o *Task) (*tracing, error) {
	if tr := o.tracing.Load(); tr != nil && tr.by == t {
		return tr, nil
	}
	return nil, unix.ESRCH
}

// TraceInterrupt is PTRACE_INTERRUPT: ESRCH, EIO if o was not seized.
func (t *Task) TraceInterrupt(o *Task) error {
	tr, err := t.tracee(o)
	if err != nil {
		return err
	}
	if !tr.seized {
		return unix.EIO
	}
	o.tg.sigMu.Lock()
	tr.trap = true
	o.setWork(workSignal)
	o.poke()
	o.tg.sigMu.Unlock()
	return nil
}

// TraceRequest runs fn on the goroutine of o, which must be stopped: ESRCH, or what fn returns.
func (t *Task) TraceRequest(o *Task, fn func() error) error {
	tr, err := t.tracee(o)
	if err != nil {
		return err
	}
	tr.mu.Lock()
	left, stopped := tr.left, tr.stopped
	tr.mu.Unlock()
	if !stopped {
		return unix.ESRCH
	}
	done := make(chan error, 1)
	select {
	case tr.requests <- func() { done <- fn() }:
		return <-done
	case <-left:
		return unix.ESRCH
	}
}

// TraceResume makes o, which must be stopped, go on with a signal: ESRCH, EIO for a bad signal.
func (t *Task) TraceResume(o *Task, mode TraceMode, sig linux.Signal) error {
	tr, err := t.tracee(o)
	if err != nil {
		return err
	}
	if sig > linux.SignalMaximum {
		return unix.EIO
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if !tr.stopped {
		return unix.ESRCH
	}
	if mode == TraceListen && (!tr.seized || tr.code>>8 != traceEventStop) {
		return unix.EIO
	}
	tr.stopped, tr.sig, tr.mode = false, sig, mode
	o.poke()
	return nil
}

// Detach is PTRACE_DETACH: ESRCH, EIO.
func (t *Task) Detach(o *Task, sig linux.Signal) error {
	if _, err := t.tracee(o); err != nil {
		return err
	}
	if sig > linux.SignalMaximum {
		return unix.EIO
	}
	t.k.tasksMu.Lock()
	defer t.k.tasksMu.Unlock()
	if tr, err := t.tracee(o); err != nil {
		return err
	} else if tr.mu.Lock(); !tr.stopped {
		tr.mu.Unlock()
		return unix.ESRCH
	} else {
		tr.mu.Unlock()
	}
	o.untraceLocked(sig)
	return nil
}

// SetTraceOptions is PTRACE_SETOPTIONS: EINVAL.
func (t *Task) SetTraceOptions(o *Task, options uint32) error {
	tr, err := t.tracee(o)
	if err != nil {
		return err
	}
	if options&^uint32(TraceOptionMask) != 0 {
		return unix.EINVAL
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if !tr.stopped {
		return unix.ESRCH
	}
	tr.options = options
	return nil
}

// StopState is what a request may ask of the stop that t is in: for t's own goroutine, in TraceRequest.
func (t *Task) StopState() (info *linux.SignalInfo, message uint64, call SyscallStop) {
	tr := t.tracing.Load()
	if tr == nil {
		return nil, 0, SyscallNone
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.info, tr.message, tr.call
}

// waitTracees looks for a tracee of t's process with news. Preconditions: tasksMu is held for writing.
func (t *Task) waitTracees(o *WaitOptions) (r *WaitResult, any bool) {
	for i, d := range t.tg.tracedDead {
		if (o.PID == nil || o.PID == d.pid) && o.Group == nil {
			if any = true; o.Options&linux.WEXITED == 0 {
				continue
			}
			if o.Options&linux.WNOWAIT == 0 {
				t.tg.tracedDead = append(t.tg.tracedDead[:i:i], t.tg.tracedDead[i+1:]...)
			}
			res := d.result
			return &res, true
		}
	}
	for c := range t.tg.tracees {
		if o.PID != nil && c.pid.Load() != o.PID || o.Group != nil && (c.tg.pgrp == nil || c.tg.pgrp.pid != o.Group) {
			continue
		}
		any = true
		tr := c.tracing.Load()
		tr.mu.Lock()
		if tr.stopped && !tr.reported {
			tr.reported = o.Options&linux.WNOWAIT == 0
			r = &WaitResult{PID: c.TIDIn(t.PIDNamespace()), UID: c.Credentials().RUID, Status: linux.WaitStatusStopped(tr.code), Trapped: true,
				Rusage: c.tg.rusageLocked(true)}
		}
		tr.mu.Unlock()
		if r != nil {
			return r, true
		}
	}
	return nil, any
}

// FPState and SetFPState are the extended state of t (platform.Thread): for t's own goroutine, in TraceRequest.
func (t *Task) FPState() ([]byte, error) {
	if t.thread == nil { // its stub is gone, and it is about to exit
		return nil, unix.EIO
	}
	return t.thread.FPState()
}

// SetFPState replaces it.
func (t *Task) SetFPState(b []byte) error {
	if t.thread == nil {
		return unix.EIO
	}
	return t.thread.SetFPState(b)
}
