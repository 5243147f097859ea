// Package timer has interval timers on any clock: what setitimer(2), timer_create(2) and timerfd_create(2) have in common.
//
// A timer on a clock that runs with the host's sleeps on a Go timer until its expiry. A timer on a CPU clock looks again no earlier than
// that clock could have reached the expiry; it sleeps longer the further away that is, and only while it is armed. So an idle
// sandbox has no timer running.
//
// Locks: Timer.mu is held while the clock is read, and not while fire runs.
package timer

import (
	"sync"
	"time"

	"moat/sentry/kernel/ktime"
)

// Clock is what a timer runs on.
type Clock interface {
	// Now is the clock's time in nanoseconds.
	Now() int64
	// Until is how long it takes at least until Now is d nanoseconds further.
	Until(d int64) time.Duration
}

// HostClock is a clock that runs with real time.
type HostClock func() int64

// Now implements Clock.
func (c HostClock) Now() int64 { return c() }

// Until implements Clock.
func (c HostClock) Until(d int64) time.Duration { return time.Duration(d) }

// The clocks of real time.
var (
	Monotonic Clock = HostClock(ktime.Monotonic)
	Realtime  Clock = HostClock(ktime.Realtime)
	Boottime  Clock = HostClock(ktime.Boottime)
)

// minPeriod bounds how often a timer fires: what lies between are overruns, as where an interrupt is late.
const minPeriod = 20 * time.Microsecond

// Setting is when a timer expires next, on its clock, and its period; both in nanoseconds, At 0 is disarmed, Period 0 is once.
type Setting struct{ At, Period int64 }

// Timer is one interval timer.
type Timer struct {
	clock Clock
	fire  func(n uint64)

	mu   sync.Mutex
	set  Setting     // +checklocks:mu
	host *time.Timer // +checklocks:mu
	gen  uint64      // of set; +checklocks:mu
}

// New returns a disarmed timer. fire is called with the number of expiries since it was last called, on a goroutine of its own.
func New(c Clock, fire func(n uint64)) *Timer { return &Timer{clock: c, fire: fire} }

// Clock is what t runs on.
func (t *Timer) Clock() Clock { return t.clock }

// Set arms t and returns its old remaining time and period.
func (t *Timer) Set(s Setting) (left, period int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	left, period = t.leftLocked()
	t.gen++
	t.set = s
	if t.host != nil {
		t.host.Stop()
		t.host = nil
	}
	if s.At != 0 {
		t.armLocked(t.clock.Now())
	}
	return left, period
}

// Stop disarms t.
func (t *Timer) Stop() { t.Set(Setting{}) }

// Get returns the remaining time, 0 if t is disarmed and at least 1 if not, and the period.
func (t *Timer) Get() (left, period int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.leftLocked()
}

func (t *Timer) leftLocked() (left, period int64) {
	if t.set.At == 0 {
		return 0, t.set.Period
	}
	left = t.set.At - t.clock.Now()
	if left <= 0 && t.set.Period > 0 {
		left += (-left/t.set.Period + 1) * t.set.Period
	}
	return max(left, 1), t.set.Period
}

// +checklocks:t.mu
func (t *Timer) armLocked(now int64) {
	gen := t.gen
	d := max(t.clock.Until(t.set.At-now), 0)
	t.host = time.AfterFunc(d, func() { t.expire(gen) })
}

func (t *Timer) expire(gen uint64) {
	t.mu.Lock()
	if gen != t.gen {
		t.mu.Unlock()
		return
	}
	now := t.clock.Now()
	if now < t.set.At {
		t.armLocked(now)
		t.mu.Unlock()
		return
	}
	n := int64(1)
	if p := t.set.Period; p > 0 {
		n += (now - t.set.At) / p
		t.set.At += n * p
		gen := t.gen
		t.host = time.AfterFunc(max(t.clock.Until(t.set.At-now), minPeriod), func() { t.expire(gen) })
	} else {
		t.set.At = 0
	}
	t.mu.Unlock()
	t.fire(uint64(n))
}
