// Package ktime tells the time: to the sentry's system calls, and, by a page that guests map (vvar), to the vDSO, so that both agree to the nanosecond.
//
// Time is read from the CPU's time-stamp counter with parameters that are calibrated against the host's clocks. There is no timer: whoever asks for the
// time and finds the parameters old refreshes them, and the vDSO, which cannot, makes a real system call when they are too old. A clock that is found ahead of or behind
// the host's is not set but made to run slower or faster until the next refresh, so that it never goes back.
//
// Where the counter is not usable (not invariant, or not the host's own clock source) everything asks the host, and the vDSO makes system calls.
//
// Lock: mu guards calibration. Readers take none: parameters are an immutable struct behind an atomic pointer, and in the page they are guarded by a
// sequence count.
package ktime

import (
	"math/bits"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"moat/platform"
)

const (
	// refreshAfter is the age at which parameters are refreshed; the vDSO uses them up to twice that age.
	refreshAfter = time.Second
	// firstAfter is how long the first calibration measures.
	firstAfter = 20 * time.Millisecond
	// maxSlew is the largest error that is corrected by slewing.
	maxSlew = time.Millisecond
)

// params turn a counter value into a time: monotonic = base + ((tsc - baseTSC) * mult) >> 32.
type params struct {
	baseTSC uint64
	base    int64 // CLOCK_MONOTONIC at baseTSC, in ns
	mult    uint64
	maxAge  uint64 // in ticks: a refresh is due
	// real and boot are CLOCK_REALTIME and CLOCK_BOOTTIME less CLOCK_MONOTONIC.
	real, boot int64
}

func (p *params) at(tsc uint64) int64 {
	if tsc < p.baseTSC {
		tsc = p.baseTSC // another CPU's counter, a few ticks behind
	}
	hi, lo := bits.Mul64(tsc-p.baseTSC, p.mult)
	return p.base + int64(hi<<32|lo>>32)
}

// sample is one reading of the host's clocks.
type sample struct {
	tsc  uint64
	mono int64
}

var (
	mu sync.Mutex
	// cur is nil while the host must be asked.
	cur atomic.Pointer[params]
	// first and last are calibration samples. +checklocks:mu
	last sample
	// interval grows from firstAfter to refreshAfter. +checklocks:mu
	interval time.Duration
	// pages are the vvar pages to be kept up to date. +checklocks:mu
	pages []*vvarPage
	// usable is set by start.
	usable bool
	// hostOffsets are used while cur is nil: real and boot as in params.
	startOnce sync.Once
	due       atomic.Int64 // monotonic time of the next calibration while cur is nil
)

// Start begins calibration. It is called early, before the sentry loses its file system; other functions call it if nobody did.
func Start() { startOnce.Do(start) }

func start() {
	mu.Lock()
	defer mu.Unlock()
	b, err := os.ReadFile("/sys/devices/system/clocksource/clocksource0/current_clocksource")
	usable = platform.InvariantTSC() && (err != nil || strings.TrimSpace(string(b)) == "tsc")
	interval = firstAfter
	last = takeSample()
	due.Store(last.mono + int64(interval))
}

// takeSample reads counter and clock together: the tightest of a few tries.
func takeSample() sample {
	var best sample
	window := ^uint64(0)
	for range 5 {
		a := rdtsc()
		m := nanotime()
		b := rdtsc()
		if b-a < window {
			window = b - a
			best = sample{a + (b-a)/2, m}
		}
	}
	return best
}

// Monotonic is CLOCK_MONOTONIC in nanoseconds.
func Monotonic() int64 {
	Start()
	p := cur.Load()
	if p == nil {
		now := nanotime()
		if usable && now > due.Load() {
			refresh()
		}
		return now
	}
	tsc := rdtsc()
	if tsc-p.baseTSC > p.maxAge && tsc > p.baseTSC {
		refresh()
		return cur.Load().at(rdtsc())
	}
	return p.at(tsc)
}

// Realtime is CLOCK_REALTIME in nanoseconds.
func Realtime() int64 {
	m := Monotonic()
	if p := cur.Load(); p != nil {
		return m + p.real
	}
	return time.Now().UnixNano()
}

// Boottime is CLOCK_BOOTTIME in nanoseconds.
func Boottime() int64 {
	m := Monotonic()
	if p := cur.Load(); p != nil {
		return m + p.boot
	}
	return hostClock(unix.CLOCK_BOOTTIME)
}

// hostClock asks the host for a clock.
func hostClock(id int32) int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(id, &ts) // cannot fail for the clocks asked for here
	return ts.Nano()
}

// refresh calibrates again, if nobody else has just done so.
func refresh() {
	mu.Lock()
	defer mu.Unlock()
	old := cur.Load()
	s := takeSample()
	if old != nil && s.tsc-old.baseTSC <= old.maxAge || s.tsc <= last.tsc || s.mono-last.mono < int64(interval)/2 {
		return
	}
	// ticks -> ns as a 32.32 fraction.
	mult := div32(uint64(s.mono-last.mono), s.tsc-last.tsc)
	next := &params{baseTSC: s.tsc, base: s.mono, mult: mult}
	if old == nil {
		interval = 5 * firstAfter
	} else {
		interval = refreshAfter
		next.base, next.mult = slew(old.at(s.tsc), s.mono, mult)
		next.real, next.boot = old.real, old.boot
	}
	next.maxAge = div32(uint64(interval), 1) / max(mult, 1)
	real, boot := offsets()
	// The differences are constants of the host unless somebody sets its clock: do not follow the noise of measuring them.
	if d := real - next.real; d > 2000 || d < -2000 {
		next.real = real
	}
	if d := boot - next.boot; d > int64(time.Millisecond) || d < -int64(time.Millisecond) {
		next.boot = boot
	}
	last = s
	cur.Store(next)
	for _, v := range pages {
		v.store(next)
	}
}

// slew returns a base and a rate with which a clock that shows est where the host shows host meets the host's at the next refresh.
func slew(est, host int64, mult uint64) (base int64, rate uint64) {
	err := est - host
	if err > int64(maxSlew) || err < -int64(maxSlew) {
		// Time was lost in one piece (the machine was suspended, or stopped); a step forward is what the host's own clock made.
		return max(est, host), mult
	}
	return est, uint64(int64(mult) - int64(mult)*err/int64(refreshAfter))
}

// div32 is (a << 32) / b.
func div32(a, b uint64) uint64 {
	q, _ := bits.Div64(a>>32%b, a<<32, b)
	return q
}

// offsets measures CLOCK_REALTIME and CLOCK_BOOTTIME against CLOCK_MONOTONIC.
func offsets() (real, boot int64) {
	window := int64(1) << 62
	for range 5 {
		a := nanotime()
		r := time.Now().UnixNano()
		b := nanotime()
		if b-a < window {
			window, real = b-a, r-(a+(b-a)/2)
		}
	}
	return real, hostClock(unix.CLOCK_BOOTTIME) - nanotime()
}

// Publish keeps page, a page of memory that guests map for reading, up to date for the vDSO.
func Publish(page []byte) {
	Start()
	mu.Lock()
	defer mu.Unlock()
	v := newVVAR(page)
	pages = append(pages, v)
	if p := cur.Load(); p != nil {
		v.store(p)
	}
}
