package platform

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// Stopwatch tells how long a thread runs guest code, and how long the sentry works for it in between. One goroutine starts and stops it; any may
// read it, also while it runs. Two readings of the processor's time-stamp counter at each change are all that it costs, and neither need delay the thread: the end of a run
// may be marked by who looks for it (Mark), and Start be called when the run has begun.
type Stopwatch struct {
	// base is the ticks of all runs before the last, less those at the start of that. mark is when it ended, 0 while it goes on. Start sets base first and Guest reads
	// mark first: so what Guest finds may be too little for a moment, but not too much, and last, the most it has found, keeps time from going back.
	base, mark, last, between atomic.Int64
	start                     int64
	// skip is what since the last run was no work.
	skip int64
	// idle counts the ticks of the runs in which the thread slept; nil: none.
	idle atomic.Pointer[atomic.Int64]
}

// NewStopwatch returns a stopwatch that does not run. The sentry's time counts from here.
func NewStopwatch() *Stopwatch {
	s := &Stopwatch{start: ticks()}
	s.base.Store(-s.start)
	s.mark.Store(s.start)
	return s
}

// Start begins a run.
func (s *Stopwatch) Start() {
	mark := s.mark.Load()
	s.start = max(ticks(), mark) // another processor's counter may be a few ticks behind
	if d := s.start - mark - s.skip; d > 0 {
		s.between.Add(d)
	}
	s.skip = 0
	s.base.Add(mark - s.start)
	s.mark.Store(0)
}

// Stop ends the run that Start began, if Mark has not, and returns its length.
func (s *Stopwatch) Stop() time.Duration {
	if s.mark.Load() == 0 {
		s.mark.Store(max(ticks(), s.start))
	}
	return duration(s.mark.Load() - s.start)
}

// Mark is where who sees the end of the run may put the time-stamp counter; nil where there is no such counter.
func (s *Stopwatch) Mark() *atomic.Int64 {
	if !invariantTSC {
		return nil
	}
	return &s.mark
}

// Skip says that for d since it was stopped the sentry waited. For the goroutine that starts and stops it.
func (s *Stopwatch) Skip(d time.Duration) {
	hi, lo := bits.Mul64(uint64(max(d, 0)), 1<<32)
	q, _ := bits.Div64(hi, lo, rate())
	s.skip += int64(q)
}

// Idle has c, in ticks, count what in the runs from now on is no work; nil: nothing. For the goroutine that starts and stops it, between runs.
func (s *Stopwatch) Idle(c *atomic.Int64) {
	old := s.idle.Load()
	if old == c {
		return
	}
	if old != nil {
		s.base.Add(-idle(old, s.base.Load()+s.mark.Load())) // a reader that finds it counted twice is kept from going back by last
	}
	if c != nil {
		c.Store(0)
	}
	s.idle.Store(c)
}

// idle is what c counts, of now ticks at most: whose it is may write to it what it likes.
func idle(c *atomic.Int64, now int64) int64 { return min(max(c.Load(), 0), max(now, 0)) }

// Guest is the length of all runs, with the present one.
func (s *Stopwatch) Guest() time.Duration {
	now := ticks()
	if m := s.mark.Load(); m != 0 {
		now = m
	}
	now += s.base.Load()
	if c := s.idle.Load(); c != nil {
		now -= idle(c, now)
	}
	for {
		last := s.last.Load()
		if now <= last || s.last.CompareAndSwap(last, now) {
			return duration(max(now, last))
		}
	}
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

// Uptime is how long the process has run, by the time-stamp counter: it costs a quarter of what the clock does, and may differ from that by some millionths.
func Uptime() time.Duration { return duration(ticks() - epochTicks) }

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
func InvariantTSC() bool {
	most, _, _, _ := CPUID(0x80000000, 0)
	_, _, _, d := CPUID(0x80000007, 0)
	return most >= 0x80000007 && d>>8&1 != 0
}

// CPUID is what the processor tells of itself: registers EAX to EDX for a leaf and, in ECX, a sub-leaf.
func CPUID(leaf, sub uint32) (a, b, c, d uint32)
