package unix

import (
	"slices"
	"sync"
	"sync/atomic"

	"moat/sentry/vfs"
)

// flying are the descriptors in messages that nobody has received.
type flying struct {
	mu  sync.Mutex
	n   int                            // +checklocks:mu
	of  map[*vfs.FileDescription]int64 // how often those of sockets are there; +checklocks:mu
	gen atomic.Uint64                  // counts what is sent, received and peeked at, with mu held
	// collecting is set while a goroutine that will collect has not begun.
	collecting atomic.Bool
}

var flights = flying{of: make(map[*vfs.FileDescription]int64)}

// maxFlying bounds them.
const maxFlying = 1 << 16

// inFlight notes that messages with fs are queued (1), taken from a queue (-1), or copied from one (0).
func inFlight(fs []*vfs.FileDescription, sign int) {
	if len(fs) == 0 {
		return
	}
	flights.mu.Lock()
	defer flights.mu.Unlock()
	flights.gen.Add(1)
	flights.n += sign * len(fs)
	for _, f := range fs {
		if _, ok := f.Impl().(*sock); ok {
			if flights.of[f] += int64(sign); flights.of[f] == 0 {
				delete(flights.of, f)
			}
		}
	}
}

// TooMany reports whether n more descriptors may not be sent (ETOOMANYREFS).
func TooMany(n int) bool {
	flights.mu.Lock()
	defer flights.mu.Unlock()
	return flights.n+n > maxFlying
}

// collectSoon is called when a socket is gone: others may now be referred to by nothing but messages in one another's queues.
func collectSoon() {
	flights.mu.Lock()
	defer flights.mu.Unlock()
	if len(flights.of) > 0 && !flights.collecting.Swap(true) {
		go collect()
	}
}

// collect closes such sockets (net/unix/garbage.c). What cannot be reached stays so; that it cannot is known if nothing was sent, received or peeked at while it was
// found out, and else left to the next time.
func collect() {
	flights.collecting.Store(false)
	outside := make(map[*sock]int64) // references that are not from among themselves
	gen := flights.gen.Load()
	flights.mu.Lock()
	for f, n := range flights.of {
		if f.Refs() == n {
			outside[f.Impl().(*sock)] = n
		}
	}
	flights.mu.Unlock()
	carried := make(map[*sock][]*sock)
	for s := range outside {
		carried[s] = s.carried()
	}
	for _, cs := range carried {
		for _, c := range cs {
			outside[c]--
		}
	}
	var reach func(s *sock)
	reach = func(s *sock) {
		cs := carried[s]
		delete(carried, s)
		for _, c := range cs {
			reach(c)
		}
	}
	for s, n := range outside {
		if n > 0 {
			reach(s)
		}
	}
	if flights.gen.Load() == gen {
		for s := range carried {
			s.close(false)
		}
	}
}

// carried are the sockets in messages to s, and to connections to it that were not accepted.
func (s *sock) carried() (cs []*sock) {
	s.mu.Lock()
	all := append(slices.Clone(s.pending), s)
	s.mu.Unlock()
	for _, o := range all {
		o.mu.Lock()
		for _, m := range o.msgs.q[o.msgs.head:] {
			for _, f := range m.rights {
				if c, ok := f.Impl().(*sock); ok {
					cs = append(cs, c)
				}
			}
		}
		o.mu.Unlock()
	}
	return cs
}
