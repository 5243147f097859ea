package unix

import (
	"sync/atomic"

	"moat/sentry/vfs"
)

// flying counts descriptors in messages that nobody has received.
var flying atomic.Int64

// maxFlying bounds them: descriptors of sockets that are in one another's queues are never received, and never freed.
const maxFlying = 1 << 16

func inFlight(fs []*vfs.FileDescription, sign int) {
	if len(fs) > 0 {
		flying.Add(int64(sign * len(fs)))
	}
}

// TooMany reports whether n more descriptors may not be sent (ETOOMANYREFS).
func TooMany(n int) bool { return flying.Load()+int64(n) > maxFlying }
