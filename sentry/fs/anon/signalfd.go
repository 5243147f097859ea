package anon

import (
	"sync/atomic"

	"moat/sentry/usermem"
	"moat/sentry/vfs"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/waiter"
)

// SignalSource is what signalfd needs of a task.
type SignalSource interface {
	// SignalPending reports whether a signal of set is pending; DequeueSignal takes one.
	SignalPending(set linux.SignalSet) bool
	DequeueSignal(set linux.SignalSet) (linux.SignalInfo, bool)
}

// SignalFD is signalfd(2). It reads the signals of whoever reads; poll tells of those of who made it.
type SignalFD struct {
	file
	source SignalSource
	set    atomic.Uint64
}

// NewSignalFD returns an open signalfd for set. queue is notified when the source gets a signal.
func NewSignalFD(ctx vfs.Context, s SignalSource, queue *waiter.Queue, set linux.SignalSet, flags uint32) *vfs.FileDescription {
	f := &SignalFD{file: file{vfs.Waitable{Waiters: queue}}, source: s}
	f.set.Store(uint64(set))
	return vfs.NewAnonFile(ctx, "[signalfd]", f, unix.O_RDWR|flags&oNonblock)
}

// SetMask changes the set.
func (f *SignalFD) SetMask(set linux.SignalSet) {
	f.set.Store(uint64(set))
	f.Waiters.Notify(waiter.ReadableEvents)
}

// Mask is the set, for fdinfo.
func (f *SignalFD) Mask() linux.SignalSet { return linux.SignalSet(f.set.Load()) }

const siginfoSize = 128

// Read implements vfs.FileImpl.
func (f *SignalFD) Read(ctx vfs.Context, _ *vfs.FileDescription, dst usermem.IOSequence, _ int64, _ vfs.IOFlags) (int64, error) {
	left := dst.NumBytes()
	if left < siginfoSize {
		return 0, unix.EINVAL
	}
	s, ok := ctx.(SignalSource)
	if !ok {
		s = f.source
	}
	var done int64
	for ; left-done >= siginfoSize; done += siginfoSize {
		info, ok := s.DequeueSignal(f.Mask())
		if !ok {
			break
		}
		var b [siginfoSize]byte
		putSiginfo(b[:], &info)
		if _, err := dst.DropFirst(done).CopyOut(b[:]); err != nil {
			if done > 0 {
				return done, nil
			}
			return 0, err
		}
	}
	if done == 0 {
		return 0, unix.EWOULDBLOCK
	}
	return done, nil
}

// putSiginfo fills struct signalfd_siginfo (fs/signalfd.c signalfd_copyinfo).
func putSiginfo(b []byte, i *linux.SignalInfo) {
	le.PutUint32(b[0:], uint32(i.Signo))
	le.PutUint32(b[4:], uint32(i.Errno))
	le.PutUint32(b[8:], uint32(i.Code))
	switch {
	case i.Code == linux.SI_TIMER:
		le.PutUint32(b[24:], uint32(i.TimerID()))
		le.PutUint32(b[32:], uint32(i.Overrun()))
		le.PutUint64(b[48:], i.Sigval())
		le.PutUint32(b[44:], uint32(i.Sigval()))
	case i.Code <= 0 || i.Code == linux.SI_KERNEL:
		le.PutUint32(b[12:], uint32(i.PID()))
		le.PutUint32(b[16:], uint32(i.UID()))
		if i.Code < 0 { // the others' sender gave no value
			le.PutUint64(b[48:], i.Sigval())
			le.PutUint32(b[44:], uint32(i.Sigval()))
		}
	case i.Signo == int32(linux.SIGCHLD):
		le.PutUint32(b[12:], uint32(i.PID()))
		le.PutUint32(b[16:], uint32(i.UID()))
		le.PutUint32(b[40:], uint32(i.Status()))
		copy(b[56:72], i.Fields[16:]) // utime and stime
	case i.Signo == int32(linux.SIGIO):
		le.PutUint32(b[28:], uint32(i.Band()))
		le.PutUint32(b[20:], i.FD())
	default:
		le.PutUint64(b[72:], i.Addr())
	}
}

// Readiness implements vfs.FileImpl.
func (f *SignalFD) Readiness(mask waiter.EventMask) waiter.EventMask {
	if !f.source.SignalPending(f.Mask()) {
		return 0
	}
	return mask & waiter.ReadableEvents
}
