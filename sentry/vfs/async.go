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

// Asyncer is a FileImpl that can be O_ASYNC (one with Linux's fasync method). AsyncEvents is called when it becomes that, and says what of its wait queue
// is told by SIGIO.
type Asyncer interface {
	AsyncEvents(ctx Context, fd *FileDescription) waiter.EventMask
}

// Events that wait queues are notified of for SIGIO alone, where Linux calls kill_fasync with POLL_IN, POLL_OUT and POLL_HUP. Files that use them tell of no others.
const (
	AsyncIn waiter.EventMask = 1 << (32 + iota)
	AsyncOut
	AsyncHup
	AsyncEvents = AsyncIn | AsyncOut | AsyncHup
)

// asyncState is O_ASYNC's part of a file; guarded by fileExt.mu.
type asyncState struct {
	owner AsyncOwner
	sig   int32
	fd    int32 // the descriptor that it was armed by
	entry *waiter.Entry
}

func (fd *FileDescription) editAsync(edit func(*asyncState)) {
	e := fd.extension()
	e.mu.Lock()
	defer e.mu.Unlock()
	edit(&e.async)
}

// SetAsyncOwner is F_SETOWN; nil for nobody.
func (fd *FileDescription) SetAsyncOwner(o AsyncOwner) {
	fd.editAsync(func(a *asyncState) { a.owner = o })
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
	fd.editAsync(func(a *asyncState) { a.sig = sig })
}

// AsyncSignal is F_GETSIG.
func (fd *FileDescription) AsyncSignal() int32 { return fd.asyncState().sig }

// SetAsync starts or stops SIGIO, in which si_fd is num: ENOTTY if there is none. The O_ASYNC of an open(2) has no effect, and cannot be taken back (fasync_helper).
func (fd *FileDescription) SetAsync(ctx Context, on bool, num int32) error {
	if on == (fd.flags.Load()&unix.O_ASYNC != 0) {
		return nil
	}
	a, ok := fd.impl.(Asyncer)
	switch {
	case !ok || fd.Inode().Mode()&unix.S_IFMT == unix.S_IFREG:
		return unix.ENOTTY
	case !on:
		fd.arm(nil, 0)
		return nil
	}
	n := waiter.NewFunctionEntry(a.AsyncEvents(ctx, fd), fd.sigio)
	err := fd.impl.EventRegister(&n)
	if err == nil {
		fd.arm(&n, num)
	}
	return err
}

// arm puts entry, which is nil for none, in the place of what tells of events by now.
func (fd *FileDescription) arm(entry *waiter.Entry, num int32) {
	var old *waiter.Entry
	fd.editAsync(func(a *asyncState) {
		if old = a.entry; entry != nil {
			fd.flags.Or(unix.O_ASYNC)
		} else if old != nil {
			fd.flags.And(^uint32(unix.O_ASYNC))
		}
		a.entry, a.fd = entry, num
	})
	if old != nil {
		fd.impl.EventUnregister(old)
	}
}

func (fd *FileDescription) sigio(mask waiter.EventMask) {
	a := fd.asyncState()
	if a.owner == nil || fd.flags.Load()&unix.O_ASYNC == 0 {
		return
	}
	reason := int32(PollHup)
	switch {
	case mask&AsyncHup != 0:
	case mask&waiter.EventErr != 0:
		reason = PollErr
	case mask&(waiter.ReadableEvents|AsyncIn) != 0:
		reason = PollIn
	case mask&(waiter.WritableEvents|AsyncOut) != 0:
		reason = PollOut
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
