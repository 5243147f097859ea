package anon

import (
	"math"
	"sync"

	"moat/sentry/usermem"
	"moat/sentry/vfs"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/waiter"
)

// EventFD is eventfd(2).
type EventFD struct {
	file
	semaphore bool

	mu sync.Mutex
	// +checklocks:mu
	count uint64
}

// NewEventFD returns an open eventfd. flags are EFD_*: EINVAL.
func NewEventFD(ctx vfs.Context, initial uint32, flags uint32) (*vfs.FileDescription, error) {
	if flags&^uint32(unix.EFD_SEMAPHORE|unix.EFD_NONBLOCK|unix.EFD_CLOEXEC) != 0 {
		return nil, unix.EINVAL
	}
	e := &EventFD{file: newFile(), semaphore: flags&unix.EFD_SEMAPHORE != 0, count: uint64(initial)}
	return vfs.NewAnonFile(ctx, "[eventfd]", e, unix.O_RDWR|flags&oNonblock), nil
}

// Read implements vfs.FileImpl.
func (e *EventFD) Read(_ vfs.Context, _ *vfs.FileDescription, dst usermem.IOSequence, _ int64, _ vfs.IOFlags) (int64, error) {
	if dst.NumBytes() < 8 {
		return 0, unix.EINVAL
	}
	e.mu.Lock()
	if e.count == 0 {
		e.mu.Unlock()
		return 0, unix.EWOULDBLOCK
	}
	v := e.count
	if e.semaphore {
		v = 1
	}
	e.count -= v
	e.mu.Unlock()
	e.Waiters.Notify(waiter.WritableEvents)
	n, err := putWord(dst, v)
	return n &^ 7, err // whole or not at all
}

// Write implements vfs.FileImpl: each buffer is a write of its own (do_loop_readv_writev).
func (e *EventFD) Write(_ vfs.Context, _ *vfs.FileDescription, src usermem.IOSequence, _ int64, _ vfs.IOFlags) (n, _ int64, _ error) {
	if len(src.Addrs) == 0 {
		return 0, 0, unix.EINVAL
	}
	for _, ar := range src.Addrs {
		var b [8]byte
		if ar.Length() != 8 {
			return n, 0, unix.EINVAL
		}
		if _, err := usermem.Single(src.IO, ar.Start, 8).CopyIn(b[:]); err != nil {
			return n, 0, err
		}
		v := le.Uint64(b[:])
		if v == math.MaxUint64 {
			return n, 0, unix.EINVAL
		}
		if err := e.Add(v); err != nil {
			return n, 0, err
		}
		n += 8
	}
	return n, 0, nil
}

// Add adds v to the counter: EWOULDBLOCK if it would overflow.
func (e *EventFD) Add(v uint64) error {
	e.mu.Lock()
	if v > math.MaxUint64-1-e.count {
		e.mu.Unlock()
		return unix.EWOULDBLOCK
	}
	e.count += v
	e.mu.Unlock()
	e.Waiters.Notify(waiter.ReadableEvents) // of 0 too: an edge
	return nil
}

// Count is the counter, for fdinfo.
func (e *EventFD) Count() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.count
}

// Readiness implements vfs.FileImpl.
func (e *EventFD) Readiness(mask waiter.EventMask) waiter.EventMask {
	n := e.Count()
	var ev waiter.EventMask
	if n > 0 {
		ev |= waiter.ReadableEvents
	}
	if n < math.MaxUint64-1 {
		ev |= waiter.WritableEvents
	}
	return ev & mask
}
