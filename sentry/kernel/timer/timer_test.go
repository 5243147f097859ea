package timer

import (
	"math"
	"sync/atomic"
	"testing"
	"time"
)

// manual is a clock that stands still between steps; its host timers never fire by themselves within a test.
type manual struct{ now atomic.Int64 }

func (m *manual) Now() int64                { return m.now.Load() }
func (m *manual) Until(int64) time.Duration { return time.Hour }

func TestPeriods(t *testing.T) {
	c := &manual{}
	fired := uint64(0)
	tm := New(c, func(n uint64) bool { fired += n; return true })
	c.now.Store(1000)
	tm.Set(Setting{At: 1100, Period: 50})
	if l, p := tm.Get(); l != 100 || p != 50 {
		t.Error("get", l, p)
	}
	tm.expire() // early
	c.now.Store(1100)
	if !tm.Due() {
		t.Error("not due")
	}
	tm.expire()
	if fired != 1 || tm.Due() {
		t.Error("fired", fired)
	}
	c.now.Store(1320) // 1150, 1200, 1250, 1300
	tm.expire()       // held
	if fired != 1 {
		t.Error("fired while held", fired)
	}
	if l, _ := tm.Get(); l != 30 {
		t.Error("left", l)
	}
	if n := tm.Rearm(); n != 4 {
		t.Error("missed", n)
	}
	if n := tm.Rearm(); n != 0 {
		t.Error("missed again", n)
	}
	c.now.Store(1350)
	if n := tm.Take(); n != 1 {
		t.Error("taken", n)
	}
	if l, p := tm.Set(Setting{}); l != 50 || p != 50 {
		t.Error("old", l, p)
	}
	tm.expire()
	if fired != 1 || tm.Take() != 0 {
		t.Error("disarmed timer fired")
	}
	// The end of time.
	tm.Set(Setting{At: 1, Period: math.MaxInt64})
	tm.expire()
	if l, _ := tm.Get(); fired != 2 || l < math.MaxInt64/2 {
		t.Error("overflow", fired, l)
	}
}

func TestHost(t *testing.T) {
	ch := make(chan uint64, 100)
	tm := New(Monotonic, func(n uint64) bool { ch <- n; return false })
	start := time.Now()
	tm.Set(Setting{At: Monotonic.Now() + 20e6})
	if n := <-ch; n != 1 || time.Since(start) < 20*time.Millisecond {
		t.Error(n, time.Since(start))
	}
	if l, _ := tm.Get(); l != 0 {
		t.Error("left", l)
	}
	// A nanosecond's period fires at a bearable rate, and counts all.
	start = time.Now()
	tm.Set(Setting{At: Monotonic.Now() + 1, Period: 1})
	sum := uint64(0)
	for range 3 {
		sum += <-ch
	}
	if d := time.Since(start); d < 2*retry || sum < uint64(2*retry) || sum > uint64(d) {
		t.Error("rate", d, sum)
	}
	tm.Stop()
	time.Sleep(2 * retry)
	for len(ch) > 0 {
		<-ch
	}
	time.Sleep(2 * retry)
	if len(ch) != 0 {
		t.Error("fires after Stop")
	}
}
