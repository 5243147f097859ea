// Package timer has interval timers on any clock: what setitimer(2), timer_create(2) and timerfd_create(2) have in common.
//
// A timer on a clock that runs with the host's sleeps on a Go timer until its expiry; a periodic one then waits for its owner to take notice (Rearm), as Linux's waits for
// its signal to be delivered or its file to be read. A timer on a CPU clock looks again no earlier than that clock could have reached the
// expiry, and only while it is armed. So an idle sandbox has no timer running.
//
// Locks: Timer.mu is held while the clock is read, and not while fire runs. With a HostClock it is a leaf.
package timer

import (
	"math"
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

// retry is the shortest period of a timer that nobody listens to (posix_timer_fn: a jiffy, to prevent live lock).
const retry = 4 * time.Millisecond

// Setting is when a timer expires next, on its clock, and its period; both in nanoseconds, At 0 is disarmed, Period 0 is once.
type Setting struct{ At, Period int64 }

// Timer is one interval timer.
type Timer struct {
	clock Clock
	fire  func(n uint64) (hold bool)

	mu   sync.Mutex
	set  Setting     // +checklocks:mu
	host *time.Timer // made at the first use; +checklocks:mu
	// held: it has expired and waits for Rearm. +checklocks:mu
	held bool
	// gen counts settings, so that an expiry of an old one is known. +checklocks:mu
	gen uint64
}

// New returns a disarmed timer. fire is called with the number of expiries since it was last called or Rearm was, on a goroutine of its own. If it returns true, a
// periodic timer is not armed again before Rearm. A timer without fire only counts.
func New(c Clock, fire func(n uint64) (hold bool)) *Timer { return &Timer{clock: c, fire: fire} }

// Clock is what t runs on.
func (t *Timer) Clock() Clock { return t.clock }

// Now is the clock's time.
func (t *Timer) Now() int64 { return t.clock.Now() }

// Set arms t and returns its old remaining time and period.
func (t *Timer) Set(s Setting) (left, period int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.clock.Now()
	left, period = t.leftLocked(now)
	t.gen++
	t.set, t.held = s, false
	if s.At != 0 {
		t.armLocked(now, 0)
	} else if t.host != nil {
		t.host.Stop()
	}
	return left, period
}

// Stop disarms t.
func (t *Timer) Stop() { t.Set(Setting{}) }

// Get returns the remaining time, 0 if t is disarmed and at least 1 if not, and the period.
func (t *Timer) Get() (left, period int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.leftLocked(t.clock.Now())
}

// +checklocks:t.mu
func (t *Timer) leftLocked(now int64) (left, period int64) {
	s := t.set
	if s.At == 0 {
		return 0, s.Period
	}
	left = s.At - now
	if left <= 0 && s.Period > 0 {
		left += (-left/s.Period + 1) * s.Period
	} else if left <= 0 && t.fire == nil {
		return 0, 0
	}
	return max(left, 1), s.Period
}

// +checklocks:t.mu
func (t *Timer) armLocked(now int64, least time.Duration) {
	if t.fire == nil {
		return
	}
	d := max(t.clock.Until(t.set.At-now), least)
	if t.host == nil {
		t.host = time.AfterFunc(d, t.expire)
	} else {
		t.host.Reset(d)
	}
}

// passLocked counts the expiries until now and moves At behind it.
// +checklocks:t.mu
func (t *Timer) passLocked(now int64) (n int64) {
	late := now - t.set.At
	if late < 0 {
		return 0
	}
	if t.set.Period == 0 {
		t.set.At = 0
		return 1
	}
	n = late/t.set.Period + 1
	if add := n * t.set.Period; add/n == t.set.Period && t.set.At <= math.MaxInt64-add {
		t.set.At += add
	} else {
		t.set.At = math.MaxInt64
	}
	return n
}

func (t *Timer) expire() {
	t.mu.Lock()
	if t.set.At == 0 || t.held {
		t.mu.Unlock() // of a setting that is gone
		return
	}
	now := t.clock.Now()
	n := t.passLocked(now)
	if n == 0 {
		t.armLocked(now, 0)
		t.mu.Unlock()
		return
	}
	gen := t.gen
	// Rearm may come before fire returns.
	t.held = t.set.At != 0
	t.mu.Unlock()
	if t.fire(uint64(n)) {
		return
	}
	t.mu.Lock()
	if t.gen == gen && t.held {
		t.held = false
		t.armLocked(t.clock.Now(), retry)
	}
	t.mu.Unlock()
}

// Rearm makes a periodic timer that fired and was held go on, and returns the expiries that passed meanwhile.
func (t *Timer) Rearm() (missed uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.held {
		return 0
	}
	t.held = false
	now := t.clock.Now()
	n := t.passLocked(now)
	t.armLocked(now, 0)
	return uint64(n)
}

// Take returns the expiries until now that fire was not told of, and makes a timer that is held go on.
func (t *Timer) Take() (n uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.set.At == 0 {
		return 0
	}
	now := t.clock.Now()
	n = uint64(t.passLocked(now))
	if t.held = false; t.set.At != 0 {
		t.armLocked(now, 0)
	}
	return n
}

// Due reports whether Take would return any.
func (t *Timer) Due() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.set.At != 0 && t.clock.Now() >= t.set.At
}
