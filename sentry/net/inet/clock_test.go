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
	before := platform.Uptime()
	now := c.NowMonotonic()
	if d := now.Sub(tcpip.MonotonicTime{}); d < before || d > platform.Uptime() || now != (tcpip.MonotonicTime{}).Add(d) {
		t.Fatal(d, "between", before, "and", platform.Uptime())
	}
	outer := time.Now()
	now = c.NowMonotonic()
	inner := time.Now()
	time.Sleep(20 * time.Millisecond)
	least := time.Since(inner)
	d := c.NowMonotonic().Sub(now)
	if most := time.Since(outer); d > most+most/10 || d < least-least/10 {
		t.Fatal(d, "have passed, not", least, "to", most)
	}
}
