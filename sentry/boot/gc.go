package boot

import (
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// smallHeap is a live heap beside which twice as much garbage does not matter: collecting often costs more. A large one has garbage in proportion
	// to it, down to minGCPercent, so that what fills it, a flood from the network say, costs little more than it must.
	smallHeap    = 8 << 20
	maxGCPercent = 200
	minGCPercent = 50
	// trimDelay is how long after a start or such a collection the program's pages are given back: what start-up leaves to timers is over by then (the
	// last is that of names found in host directories, after a second).
	trimDelay = 1200 * time.Millisecond
)

// tuneGC sets how much garbage is let lie, after each collection anew, and trim after one that only time has caused. It needs no goroutine: what it leaves behind tells of the next collection.
func tuneGC(trim *time.Timer) {
	// The first is when the sentry takes so much, with all that the runtime needs. Start-up leaves less garbage than a collection costs in the runtime's
	// lists, let alone in pages of the program.
	debug.SetMemoryLimit(16 << 20)
	debug.SetGCPercent(-1)
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	percent, last := -1, time.Now()
	var tune func(*[16]byte)
	tune = func(mark *[16]byte) {
		if percent < 0 {
			debug.SetMemoryLimit(math.MaxInt64)
		}
		metrics.Read(live)
		now := int(min(max(maxGCPercent*smallHeap/(live[0].Value.Uint64()+1), minGCPercent), maxGCPercent))
		if d := percent - now; d > 10 || d < -10 { // which stops the world
			percent = now
			debug.SetGCPercent(now)
		}
		if time.Since(last) > 110*time.Second { // by itself the runtime collects every two minutes, however little there is
			trim.Reset(trimDelay)
		}
		last = time.Now()
		runtime.SetFinalizer(mark, tune)
	}
	runtime.SetFinalizer(new([16]byte), tune)
}
