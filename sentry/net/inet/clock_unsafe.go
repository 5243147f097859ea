package inet

import (
	"unsafe"

	"gvisor.dev/gvisor/pkg/tcpip"

	"moat/platform"
)

// clock is netstack's standard clock, but for the time of which segments take note, some twenty times for a request and its answer.
type clock struct{ tcpip.Clock }

// NowMonotonic implements tcpip.Clock.
func (clock) NowMonotonic() tcpip.MonotonicTime {
	now := platform.Uptime()
	return *(*tcpip.MonotonicTime)(unsafe.Pointer(&now)) // its nanoseconds, of which Add would make a time.Time and nanoseconds again
}
