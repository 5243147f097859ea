package vfs

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/waiter"
)

// AsyncOwner is who receives a file's SIGIO (F_SETOWN): a task, a process or a process group.
type AsyncOwner interface {
	// SendSIGIO sends sig (0: SIGIO without siginfo) with si_fd and, for the reason why (POLL_*), si_code and si_band. It must not block.
	SendSIGIO(sig int32, fd int32, reason int32)
}

// asyncState is O_ASYNC's part of a file; guarded by fileExt.mu.
type asyncState struct {
	owner AsyncOwner
	sig   int32
	fd    int32
	entry *waiter.Entry
}

// SetAsyncOwner is F_SETOWN; nil for nobody. fdnum is the descriptor that si_fd will tell.
func (fd *FileDescription) SetAsyncOwner(o AsyncOwner, fdnum int32) {
	e := fd.extension()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.async.owner, e.async.fd = o, fdnum
}

func (fd *FileDescription) asyncState() asyncState {
	e := fd.ext.Load()
	if e == nil {
		return asyncState{}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.async
}

// AsyncOwner is F_GETOWN's source, nil for nobody.
func (fd *FileDescription) AsyncOwner() AsyncOwner { return fd.asyncState().owner }

// SetAsyncSignal is F_SETSIG; 0 is SIGIO.
func (fd *FileDescription) SetAsyncSignal(sig int32) {
	e := fd.extension()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.async.sig = sig
}

// AsyncSignal is F_GETSIG.
func (fd *FileDescription) AsyncSignal() int32 { return fd.asyncState().sig }

// setAsync starts or stops SIGIO delivery.
func (fd *FileDescription) setAsync(on bool) {
	e := fd.extension()
	e.mu.Lock()
	old := e.async.entry
	e.async.entry = nil
	var entry *waiter.Entry
	if on {
		n := waiter.NewFunctionEntry(waiter.AllEvents, fd.sigio)
		entry = &n
		e.async.entry = entry
	}
	e.mu.Unlock()
	if old != nil {
		fd.impl.EventUnregister(old)
	}
	if entry != nil && fd.impl.EventRegister(entry) != nil {
		e.mu.Lock()
		e.async.entry = nil
		e.mu.Unlock()
	}
}

func (fd *FileDescription) sigio(mask waiter.EventMask) {
	e := fd.extension()
	e.mu.Lock()
	a := e.async
	e.mu.Unlock()
	if a.owner == nil || fd.flags.Load()&unix.O_ASYNC == 0 {
		return
	}
	reason := int32(PollHup)
	switch {
	case mask&waiter.ReadableEvents != 0:
		reason = PollIn
	case mask&waiter.WritableEvents != 0:
		reason = PollOut
	case mask&waiter.EventErr != 0:
		reason = PollErr
	case mask&waiter.EventPri != 0:
		reason = PollPri
	}
	a.owner.SendSIGIO(a.sig, a.fd, reason)
}

// Reasons for SIGIO: si_code's POLL_*.
const (
	PollIn = iota + 1
	PollOut
	PollMsg
	PollErr
	PollPri
	PollHup
)
