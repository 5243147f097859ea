package platform

import (
	"sync/atomic"
	"time"
)

// Stopwatch tells how long a thread runs guest code, and how long the sentry works for it in between. One goroutine starts and stops it; any may
// read it, also while it runs. Two readings of the clock at each change are all that it costs.
type Stopwatch struct {
	// state is twice the time so far or, while running, twice that time less the time of the start, plus 1: one word, so that a reader never sees time go back.
	state   atomic.Int64
	start   int64
	between atomic.Int64
	// stopped is when it was last stopped, or made; skip is what since then was no work.
	stopped, skip int64
}

var epoch = time.Now()

func now() int64 { return int64(time.Since(epoch)) }

// NewStopwatch returns a stopwatch that does not run. The sentry's time counts from here.
func NewStopwatch() *Stopwatch { return &Stopwatch{stopped: now()} }

// Start begins a run.
func (s *Stopwatch) Start() {
	s.start = now()
	if d := s.start - s.stopped - s.skip; d > 0 {
		s.between.Add(d)
	}
	s.skip = 0
	s.state.Store((s.state.Load()>>1-s.start)<<1 | 1)
}

// Stop ends the run that Start began and returns its length.
func (s *Stopwatch) Stop() time.Duration {
	s.stopped = now()
	s.state.Store((s.state.Load()>>1 + s.stopped) << 1)
	return time.Duration(s.stopped - s.start)
}

// Skip says that for d since it was stopped the sentry waited. For the goroutine that starts and stops it.
func (s *Stopwatch) Skip(d time.Duration) { s.skip += int64(d) }

// Guest is the length of all runs, with the present one.
func (s *Stopwatch) Guest() time.Duration {
	v := s.state.Load()
	if v&1 == 0 {
		return time.Duration(v >> 1)
	}
	return time.Duration(v>>1 + now())
}

// Sentry is how long the sentry worked between the runs.
func (s *Stopwatch) Sentry() time.Duration { return time.Duration(s.between.Load()) }
