package platform

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// Stopwatch tells how long a thread runs guest code, and how long the sentry works for it in between. One goroutine starts and stops it; any may
// read it, also while it runs. Two readings of the processor's time-stamp counter at each change are all that it costs.
type Stopwatch struct {
	// state is twice the ticks so far or, while running, twice those less those at the start, plus 1: one word, so that a reader never sees time go back.
	state   atomic.Int64
	start   int64
	between atomic.Int64
	// stopped is when it was last stopped, or made; skip is what since then was no work.
	stopped, skip int64
}

// NewStopwatch returns a stopwatch that does not run. The sentry's time counts from here.
func NewStopwatch() *Stopwatch { return &Stopwatch{stopped: ticks()} }

// Start begins a run.
func (s *Stopwatch) Start() {
	s.start = ticks()
	if d := s.start - s.stopped - s.skip; d > 0 {
		s.between.Add(d)
	}
	s.skip = 0
	s.state.Store((s.state.Load()>>1-s.start)<<1 | 1)
}

// Stop ends the run that Start began and returns its length.
func (s *Stopwatch) Stop() time.Duration {
	s.stopped = max(ticks(), s.start) // another processor's counter may be a few ticks behind
	s.state.Store((s.state.Load()>>1 + s.stopped) << 1)
	return duration(s.stopped - s.start)
}

// Skip says that for d since it was stopped the sentry waited. For the goroutine that starts and stops it.
func (s *Stopwatch) Skip(d time.Duration) {
	hi, lo := bits.Mul64(uint64(max(d, 0)), 1<<32)
	q, _ := bits.Div64(hi, lo, rate())
	s.skip += int64(q)
}

// Guest is the length of all runs, with the present one.
func (s *Stopwatch) Guest() time.Duration {
	v := s.state.Load()
	if v&1 == 0 {
		return duration(v >> 1)
	}
	return duration(v>>1 + ticks())
}

// Sentry is how long the sentry worked between the runs.
func (s *Stopwatch) Sentry() time.Duration { return duration(s.between.Load()) }

// invariantTSC says that the counter runs at one rate. epoch and epochTicks are one moment.
var (
	invariantTSC = InvariantTSC()
	epoch        = time.Now()
	epochTicks   = ticks()
	// rate is how many nanoseconds a tick takes, times 1<<32, measured once from the start of the process to its first use.
	rate = sync.OnceValue(func() uint64 {
		if !invariantTSC {
			return 1 << 32
		}
		n := uint64(time.Since(epoch))
		q, _ := bits.Div64(n>>32, n<<32, max(uint64(ticks()-epochTicks), n>>32+1))
		return max(q, 1)
	})
)

// duration is n ticks.
func duration(n int64) time.Duration {
	hi, lo := bits.Mul64(uint64(max(n, 0)), rate())
	return time.Duration(hi<<32 | lo>>32)
}

// ticks reads the time-stamp counter, or a clock if the counter does not run at one rate.
func ticks() int64 {
	if !invariantTSC {
		return int64(time.Since(epoch))
	}
	return rdtsc()
}

func rdtsc() int64

// InvariantTSC reports whether the time-stamp counter runs at one rate in all power states (CPUID.80000007H:EDX[8]).
func InvariantTSC() bool
