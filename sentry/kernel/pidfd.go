package kernel

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/waiter"
	"moat/sentry/vfs"
)

// pidfdThread is PIDFD_THREAD: the pidfd refers to a thread.
const pidfdThread = unix.O_EXCL

// PIDFD is the file behind a pidfd (pidfd_open(2)): readable when the process has ended.
type PIDFD struct {
	vfs.FileDefaults
	pid    atomic.Pointer[PID]
	thread atomic.Bool
}

func (f *PIDFD) set(t *Task, thread bool) {
	f.pid.Store(t.pid.Load())
	f.thread.Store(thread)
}

// PID is the process or thread that f refers to.
func (f *PIDFD) PID() *PID { return f.pid.Load() }

// Thread reports whether f refers to a thread (PIDFD_THREAD).
func (f *PIDFD) Thread() bool { return f.thread.Load() }

// Task is the task that f refers to: ESRCH if it was reaped.
func (f *PIDFD) Task(k *Kernel) (*Task, error) {
	k.tasksMu.RLock()
	defer k.tasksMu.RUnlock()
	p := f.pid.Load()
	if p == nil {
		return nil, unix.ESRCH
	}
	if t := p.task; t != nil {
		return t, nil
	}
	return nil, unix.ESRCH
}

// Readiness implements vfs.FileImpl.
func (f *PIDFD) Readiness(mask waiter.EventMask) waiter.EventMask {
	p := f.pid.Load()
	if p == nil {
		return 0
	}
	if p.ended.Load() {
		ev := waiter.ReadableEvents
		if p.freed.Load() {
			ev |= waiter.EventHUp
		}
		return mask & ev
	}
	return 0
}

// EventRegister implements vfs.FileImpl.
func (f *PIDFD) EventRegister(e *waiter.Entry) error {
	if p := f.pid.Load(); p != nil {
		p.waiters.EventRegister(e)
	}
	return nil
}

// EventUnregister implements vfs.FileImpl.
func (f *PIDFD) EventUnregister(e *waiter.Entry) {
	if p := f.pid.Load(); p != nil {
		p.waiters.EventUnregister(e)
	}
}

// SelfPIDFD is what PIDFD_SELF_THREAD or PIDFD_SELF_THREAD_GROUP stands for. It is no open file.
func (t *Task) SelfPIDFD(thread bool) *PIDFD {
	f := &PIDFD{}
	if f.set(t, thread); !thread {
		f.pid.Store(t.PIDNamespace().PID(t.PID()))
	}
	return f
}

// NewPIDFD returns a pidfd for p.
func NewPIDFD(ctx vfs.Context, p *PID, flags uint32) *vfs.FileDescription {
	f := &PIDFD{}
	f.pid.Store(p)
	f.thread.Store(flags&pidfdThread != 0)
	return vfs.NewAnonFile(ctx, "[pidfd]", f, unix.O_RDWR|flags&unix.O_NONBLOCK)
}

// reservePIDFD installs a pidfd that will refer to the child, and writes its number.
func (t *Task) reservePIDFD(a *CloneArgs) (*vfs.FileDescription, int32, error) {
	file := vfs.NewAnonFile(t, "[pidfd]", &PIDFD{}, unix.O_RDWR)
	fd, err := t.NewFD(file, true)
	if err != nil {
		file.DecRef()
		return nil, -1, err
	}
	if err := t.CopyOutUint32(a.PIDFD, uint32(fd)); err != nil {
		t.fdt.Close(t, fd)
		file.DecRef()
		return nil, -1, unix.EFAULT
	}
	return file, fd, nil
}
