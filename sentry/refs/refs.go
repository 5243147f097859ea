// Package refs counts references. It has no locks and imports nothing of the sentry.
package refs

import "sync/atomic"

// TryInc adds one to n if n is at least least, and reports whether it did. It is how a reference is taken to what may be going away: below least
// it is gone.
func TryInc(n *atomic.Int64, least int64) bool {
	for {
		v := n.Load()
		if v < least {
			return false
		}
		if n.CompareAndSwap(v, v+1) {
			return true
		}
	}
}
