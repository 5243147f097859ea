package inet

import (
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"

	"moat/platform"
)

// TestClock: netstack's clock is the process' time, and goes as the host's does.
func TestClock(t *testing.T) {
	var c clock
	before, start := platform.Uptime(), time.Now()
	now := c.NowMonotonic()
	if d := now.Sub(tcpip.MonotonicTime{}); d < before || d > platform.Uptime() || now != (tcpip.MonotonicTime{}).Add(d) {
		t.Fatal(d, "between", before, "and", platform.Uptime())
	}
	time.Sleep(20 * time.Millisecond)
	if d, want := c.NowMonotonic().Sub(now), time.Since(start); d > want+want/1000 || d < want-want/100 {
		t.Fatal(d, "have passed, not", want)
	}
}
