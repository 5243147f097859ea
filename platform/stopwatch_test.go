package platform

import (
	"sync/atomic"
	"testing"
	"time"
)

// TestStopwatch compares a stopwatch with the clock.
func TestStopwatch(t *testing.T) {
	s := NewStopwatch()
	var prev time.Duration
	var stop time.Time
	for range 5 {
		begin := time.Now()
		s.Start()
		inner := time.Now()
		for time.Since(inner) < 5*time.Millisecond {
			if g := s.Guest(); g < prev {
				t.Fatalf("went back from %v to %v", prev, g)
			} else {
				prev = g
			}
		}
		least := time.Since(inner)
		stop = time.Now()
		ran := s.Stop()
		if most := time.Since(begin); ran < least-least/100 || ran > most+most/100 {
			t.Errorf("%v, not between %v and %v", ran, least, most)
		}
	}
	if s.Guest() < 25*time.Millisecond {
		t.Errorf("%v in all", s.Guest())
	}
	before := s.Sentry()
	time.Sleep(20 * time.Millisecond)
	s.Skip(15 * time.Millisecond)
	s.Start()
	if d, most := s.Sentry()-before, time.Since(stop)-15*time.Millisecond; d < 4*time.Millisecond || d > most+most/10 {
		t.Errorf("the sentry worked for %v of at most %v", d, most)
	}
}

// TestStopwatchIdle: what a thread says it slept is taken off, once, and no more than there is; time does not go back.
func TestStopwatchIdle(t *testing.T) {
	s := NewStopwatch()
	var c atomic.Int64
	s.Idle(&c)
	var prev time.Duration
	for _, n := range []int64{0, 1 << 62, -1 << 63, -1} {
		s.Start()
		c.Store(n)
		s.Stop()
		if g := s.Guest(); g < prev {
			t.Errorf("%d ticks idle: went back from %v to %v", n, prev, g)
		} else {
			prev = g
		}
	}
	c.Store(0)
	s.Start()
	for began := time.Now(); time.Since(began) < 10*time.Millisecond; {
	}
	ran := s.Stop()
	c.Store(s.mark.Load() - s.start)
	s.Idle(nil)
	if g := s.Guest(); g > prev+time.Millisecond/10 && g > ran/2 {
		t.Errorf("%v, of which %v were idle", g, ran)
	}
}

func BenchmarkStopwatch(b *testing.B) {
	s := NewStopwatch()
	for b.Loop() {
		s.Start()
		s.Stop()
	}
}
