package boot

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

const (
	// smallHeap is a live heap beside which twice as much garbage does not matter: collecting often costs more. A large one has garbage in proportion
	// to it, down to minGCPercent, so that what fills it, a flood from the network say, costs little more than it must.
	smallHeap    = 8 << 20
	maxGCPercent = 200
	minGCPercent = 50
)

// tuneGC sets how much garbage is let lie, after each collection anew. It needs no goroutine: what it leaves behind tells of the next collection.
func tuneGC() {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	now := 0
	var tune func(*[16]byte)
	tune = func(mark *[16]byte) {
		metrics.Read(live)
		percent := int(min(max(maxGCPercent*smallHeap/(live[0].Value.Uint64()+1), minGCPercent), maxGCPercent))
		if d := percent - now; d > 10 || d < -10 { // which stops the world
			now = percent
			debug.SetGCPercent(percent)
		}
		runtime.SetFinalizer(mark, tune)
	}
	tune(new([16]byte))
}
