package anon

import (
	"math"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/waiter"
	"moat/sentry/kernel/ktime"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

// Timer is timerfd_create(2). A host timer runs only while somebody may wait for it.
type Timer struct {
	vfs.FileDefaults
	queue waiter.Queue
	clock int32

	mu sync.Mutex
	// next is when it expires (again), on the timer's clock; 0 disarmed. interval is 0 for one shot. Both in nanoseconds.
	// +checklocks:mu
	next int64
	// +checklocks:mu
	interval int64
	// missed are expirations that were counted but not read.
	// +checklocks:mu
	missed uint64
	// +checklocks:mu
	host *time.Timer
}

// NewTimer returns an open timerfd: EINVAL.
func NewTimer(ctx vfs.Context, clock int32, flags uint32) (*vfs.FileDescription, error) {
	switch clock {
	case unix.CLOCK_REALTIME, unix.CLOCK_MONOTONIC, unix.CLOCK_BOOTTIME, unix.CLOCK_REALTIME_ALARM, unix.CLOCK_BOOTTIME_ALARM:
	default:
		return nil, unix.EINVAL
	}
	if flags&^uint32(unix.TFD_CLOEXEC|unix.TFD_NONBLOCK) != 0 {
		return nil, unix.EINVAL
	}
	return vfs.NewAnonFile(ctx, "[timerfd]", &Timer{clock: clock}, unix.O_RDWR|flags&oNonblock), nil
}

func (t *Timer) now() int64 {
	switch t.clock {
	case unix.CLOCK_MONOTONIC:
		return ktime.Monotonic()
	case unix.CLOCK_BOOTTIME, unix.CLOCK_BOOTTIME_ALARM:
		return ktime.Boottime()
	}
	return ktime.Realtime()
}

// Set is timerfd_settime(2): it arms the timer for value (absolute if abs; 0 disarms), then every interval nanoseconds, and returns
// the setting before.
func (t *Timer) Set(value, interval int64, abs bool) (oldValue, oldInterval int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	oldValue, oldInterval = t.leftLocked()
	t.missed, t.next, t.interval = 0, 0, 0
	if value > 0 {
		if !abs {
			now := t.now()
			value = now + min(value, math.MaxInt64-now)
		}
		t.next, t.interval = value, interval
	}
	t.armLocked()
	return oldValue, oldInterval
}

// Get is timerfd_gettime(2): the time left and the interval.
func (t *Timer) Get() (value, interval int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.leftLocked()
}

// +checklocks:t.mu
func (t *Timer) leftLocked() (value, interval int64) {
	t.countLocked()
	if t.next == 0 {
		return 0, t.interval
	}
	return max(1, t.next-t.now()), t.interval
}

// countLocked moves expirations that are past to missed.
// +checklocks:t.mu
func (t *Timer) countLocked() {
	if t.next == 0 {
		return
	}
	late := t.now() - t.next
	switch {
	case late < 0:
	case t.interval == 0:
		t.missed++
		t.next = 0
	default:
		n := late/t.interval + 1
		t.missed += uint64(n)
		t.next += n * t.interval
	}
}

// armLocked sets the host's timer.
// +checklocks:t.mu
func (t *Timer) armLocked() {
	if t.next == 0 {
		if t.host != nil {
			t.host.Stop()
		}
		return
	}
	d := max(0, time.Duration(t.next-t.now()))
	if t.host == nil {
		t.host = time.AfterFunc(d, t.fire)
	} else {
		t.host.Reset(d)
	}
}

func (t *Timer) fire() {
	t.mu.Lock()
	t.countLocked()
	due := t.missed > 0
	// Early by a rounding of clocks: wait for the rest. A periodic timer goes on while somebody watches.
	if !due || !t.queue.IsEmpty() {
		t.armLocked()
	}
	t.mu.Unlock()
	if due {
		t.queue.Notify(waiter.ReadableEvents)
	}
}

// Read implements vfs.FileImpl.
func (t *Timer) Read(_ vfs.Context, _ *vfs.FileDescription, dst usermem.IOSequence, _ int64, _ vfs.IOFlags) (int64, error) {
	if dst.NumBytes() < 8 {
		return 0, unix.EINVAL
	}
	t.mu.Lock()
	t.countLocked()
	n := t.missed
	t.missed = 0
	t.armLocked()
	t.mu.Unlock()
	if n == 0 {
		return 0, unix.EWOULDBLOCK
	}
	return putWord(dst, n)
}

// Release implements vfs.FileImpl.
func (t *Timer) Release(vfs.Context, *vfs.FileDescription) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next = 0
	t.armLocked()
}

// Readiness implements vfs.FileImpl.
func (t *Timer) Readiness(mask waiter.EventMask) waiter.EventMask {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.countLocked()
	if t.missed == 0 {
		return 0
	}
	return mask & waiter.ReadableEvents
}

// EventRegister implements vfs.FileImpl.
func (t *Timer) EventRegister(w *waiter.Entry) error {
	t.queue.EventRegister(w)
	t.mu.Lock()
	t.armLocked()
	t.mu.Unlock()
	return nil
}

// EventUnregister implements vfs.FileImpl.
func (t *Timer) EventUnregister(w *waiter.Entry) { t.queue.EventUnregister(w) }
