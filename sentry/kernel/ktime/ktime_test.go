package ktime

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestAgree: the clocks never go back, and stay within microseconds of the host's.
func TestAgree(t *testing.T) {
	Start()
	end := time.Now().Add(1500 * time.Millisecond)
	prev := Monotonic()
	for time.Now().Before(end) {
		a := hostClock(unix.CLOCK_MONOTONIC)
		m := Monotonic()
		b := hostClock(unix.CLOCK_MONOTONIC)
		if m < prev {
			t.Fatalf("went back by %d ns", prev-m)
		}
		prev = m
		if m < a-20000 || m > b+20000 {
			t.Fatalf("%d is not within [%d, %d]: off by %d", m, a, b, m-a)
		}
		ra := time.Now().UnixNano()
		r := Realtime()
		if rb := time.Now().UnixNano(); r < ra-20000 || r > rb+20000 {
			t.Fatalf("real time %d is not within [%d, %d]", r, ra, rb)
		}
	}
	if d := Boottime() - hostClock(unix.CLOCK_BOOTTIME); d > 1e6 || d < -1e6 {
		t.Errorf("boot time off by %d ns", d)
	}
	if usable && cur.Load() == nil {
		t.Error("never calibrated")
	}
}

func BenchmarkMonotonic(b *testing.B) {
	for b.Loop() {
		Monotonic()
	}
}
