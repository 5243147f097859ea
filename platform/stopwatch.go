package platform

import (
	"sync/atomic"
	"time"
)

// Stopwatch adds up how long a thread runs guest code. One goroutine starts and stops it; any may read it, also while it runs.
type Stopwatch struct {
	// state is twice the time so far or, while running, twice that time less the time of the start, plus 1: one word, so that a reader never sees time go back.
	state atomic.Int64
	start int64
}

var epoch = time.Now()

// Start begins a run.
func (s *Stopwatch) Start() {
	s.start = int64(time.Since(epoch))
	s.state.Store((s.state.Load()>>1-s.start)<<1 | 1)
}

// Stop ends the run that Start began and returns its length.
func (s *Stopwatch) Stop() time.Duration {
	now := int64(time.Since(epoch))
	s.state.Store((s.state.Load()>>1 + now) << 1)
	return time.Duration(now - s.start)
}

// Time is the length of all runs, with the present one.
func (s *Stopwatch) Time() time.Duration {
	v := s.state.Load()
	if v&1 == 0 {
		return time.Duration(v >> 1)
	}
	return time.Duration(v>>1 + int64(time.Since(epoch)))
}
