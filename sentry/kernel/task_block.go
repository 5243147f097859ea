package kernel

import (
	"time"

	"moat/sentry/linuxerr"

	"golang.org/x/sys/unix"
)

// Bits of Task.work. A task with any of them set takes the slow path before it returns to the guest; those in
// workInterrupts also end an interruptible wait.
const (
	// workSignal: a signal that is not blocked may be pending (TIF_SIGPENDING).
	workSignal uint32 = 1 << iota
	// workKill: the task must die.
	workKill
	// workStop: a group stop wants the task.
	workStop
	// workRestart: the call that just ended returned a restart code, or a saved mask must be restored.
	workRestart
	// workNotify: a function given to RunAtBoundary waits.
	workNotify
	// workFreeze: the task's cgroup may be frozen, or beyond its quota.
	workFreeze

	workInterrupts = workSignal | workKill | workStop
)

// setWork sets bits and makes sure that t sees them soon: a blocked task wakes, a running guest is interrupted.
func (t *Task) setWork(bits uint32) {
	if t.work.Or(bits)&bits == bits {
		return
	}
	t.poke()
}

func (t *Task) poke() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
	if t.inGuest.Load()&1 != 0 {
		if r := t.thr.Load(); r != nil {
			r.thread.Interrupt()
		}
	}
}

// Interrupted reports whether a signal, stop or kill waits for t: a long operation should return ERESTARTSYS or what it has.
func (t *Task) Interrupted() bool { return t.work.Load()&workInterrupts != 0 }

// Killed reports whether t must die.
func (t *Task) Killed() bool { return t.work.Load()&workKill != 0 }

// Block waits until C is readable or closed (vfs.Context); ERESTARTSYS if a signal comes first.
func (t *Task) Block(C <-chan struct{}) error {
	return t.wait(C, nil, workInterrupts, Sleeping)
}

// BlockKillable waits until C is readable or closed, or t is killed (ERESTARTNOINTR, which no guest sees).
func (t *Task) BlockKillable(C <-chan struct{}) error {
	return t.wait(C, nil, workKill, DiskSleep)
}

// BlockUntil is Block with a deadline on time.Now's monotonic clock; ETIMEDOUT when it passes (vfs.Context).
func (t *Task) BlockUntil(C <-chan struct{}, deadline time.Time) error {
	if deadline.IsZero() {
		return t.wait(C, nil, workInterrupts, Sleeping)
	}
	d := time.Until(deadline)
	if d <= 0 {
		select {
		case <-C:
			return nil
		default:
		}
		if t.Interrupted() {
			return linuxerr.ERESTARTSYS
		}
		return unix.ETIMEDOUT
	}
	if d < shortWait {
		t.alarm.at = deadline
		t.k.alarms.add(&t.alarm)
		defer t.k.alarms.remove(&t.alarm)
		return t.wait(C, t.alarm.C, workInterrupts, Sleeping)
	}
	if t.timer == nil {
		t.timer = time.NewTimer(d)
	} else {
		t.timer.Reset(d)
	}
	err := t.wait(C, t.timer.C, workInterrupts, Sleeping)
	t.timer.Stop()
	return err
}

func (t *Task) wait(C <-chan struct{}, timeout <-chan time.Time, intr uint32, s TaskState) error {
	select {
	case <-C:
		return nil
	default:
	}
	if t.straced.Load() {
		t.k.table.Blocked(t)
	}
	t.call.Store(t.regs.Orig_rax)
	t.state.Store(uint32(s))
	t.cpu.voluntary.Add(1)
	defer t.resume(t.pause())
	defer t.state.Store(uint32(Running))
	for {
		if t.work.Load()&intr != 0 {
			return linuxerr.ERESTARTSYS
		}
		select {
		case <-C:
			return nil
		case <-timeout:
			return unix.ETIMEDOUT
		case <-t.wake:
		}
	}
}

// pause comes before every wait of t's goroutine that others end, and resume with what it returned behind it: another thread's goroutine looks after guests and timers
// meanwhile, and the time is not t's.
func (t *Task) pause() (since time.Time) {
	if t.thread != nil {
		t.thread.Park()
	}
	return time.Now()
}

func (t *Task) resume(since time.Time) {
	if t.thread != nil {
		t.thread.Clock().Skip(time.Since(since))
	}
}

// SetRestart makes fn what restart_syscall(2) runs, and returns the code that leads there if no handler runs.
func (t *Task) SetRestart(fn func(*Task) (uintptr, error)) error {
	t.restart = fn
	return linuxerr.ERESTART_RESTARTBLOCK
}

// RestartSyscall is restart_syscall(2).
func (t *Task) RestartSyscall() (uintptr, error) {
	fn := t.restart
	t.restart = nil
	if fn == nil {
		return 0, unix.EINTR
	}
	return fn(t)
}
