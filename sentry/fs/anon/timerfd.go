package anon

import (
	"sync"

	"moat/sentry/kernel/timer"
	"moat/sentry/usermem"
	"moat/sentry/vfs"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Timer is timerfd_create(2). A periodic one that has expired rests until it is read.
type Timer struct {
	file
	timer *timer.Timer

	mu sync.Mutex
	// ticks are expirations that were not read. +checklocks:mu
	ticks uint64
}

// NewTimer returns an open timerfd: EINVAL, EPERM.
func NewTimer(ctx vfs.Context, clock int32, flags uint32) (*vfs.FileDescription, error) {
	var c timer.Clock
	switch clock {
	case unix.CLOCK_REALTIME, unix.CLOCK_REALTIME_ALARM:
		c = timer.Realtime
	case unix.CLOCK_MONOTONIC:
		c = timer.Monotonic
	case unix.CLOCK_BOOTTIME, unix.CLOCK_BOOTTIME_ALARM:
		c = timer.Boottime
	}
	if c == nil || flags&^uint32(unix.TFD_CLOEXEC|unix.TFD_NONBLOCK) != 0 {
		return nil, unix.EINVAL
	}
	if (clock == unix.CLOCK_REALTIME_ALARM || clock == unix.CLOCK_BOOTTIME_ALARM) && !ctx.Credentials().Capable(linux.CAP_WAKE_ALARM) {
		return nil, unix.EPERM
	}
	t := &Timer{file: newFile()}
	t.timer = timer.New(c, t.fire)
	return vfs.NewAnonFile(ctx, "[timerfd]", t, unix.O_RDWR|flags&oNonblock), nil
}

func (t *Timer) fire(n uint64) (hold bool) {
	t.mu.Lock()
	t.ticks += n
	t.mu.Unlock()
	t.Waiters.Notify(waiter.ReadableEvents)
	return true
}

// Set is timerfd_settime(2): it arms the timer for value (absolute if abs; 0 disarms), then every interval nanoseconds, and returns
// the setting before.
func (t *Timer) Set(value, interval int64, abs bool) (oldValue, oldInterval int64) {
	if value > 0 && !abs {
		if now := t.timer.Now(); value+now > now {
			value += now
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	oldValue, oldInterval = t.timer.Set(timer.Setting{At: value, Period: interval})
	t.ticks = 0
	return oldValue, oldInterval
}

// Get is timerfd_gettime(2): the time left and the interval.
func (t *Timer) Get() (value, interval int64) { return t.timer.Get() }

// Read implements vfs.FileImpl.
func (t *Timer) Read(_ vfs.Context, _ *vfs.FileDescription, dst usermem.IOSequence, _ int64, _ vfs.IOFlags) (int64, error) {
	if dst.NumBytes() < 8 {
		return 0, unix.EINVAL
	}
	t.mu.Lock()
	n := t.ticks
	t.ticks = 0
	t.mu.Unlock()
	if n += t.timer.Take(); n == 0 {
		return 0, unix.EWOULDBLOCK
	}
	return putWord(dst, n)
}

// Release implements vfs.FileImpl.
func (t *Timer) Release(vfs.Context, *vfs.FileDescription) { t.timer.Stop() }

// Readiness implements vfs.FileImpl.
func (t *Timer) Readiness(mask waiter.EventMask) waiter.EventMask {
	t.mu.Lock()
	n := t.ticks
	t.mu.Unlock()
	if n == 0 && !t.timer.Due() {
		return 0
	}
	return mask & waiter.ReadableEvents
}
