package anon

import (
	"sync"

	"golang.org/x/sys/unix"
)

// nesting is an epoll's place among the epolls that watch each other: the count of descriptors by which it watches, and is watched. All guarded by nestMu.
type nesting struct {
	watches, watchedBy map[*Epoll]int
	// visit is the walk that last came here, and depth what it found.
	visit uint64
	depth int
}

// maxNests is how long a chain of epolls may be (EP_MAX_NESTS).
const maxNests = 4

var (
	// nestMu is a leaf.
	nestMu sync.Mutex
	// +checklocks:nestMu
	visits uint64
)

// link notes that e watches inner: ELOOP if that makes a circle or too long a chain (ep_loop_check).
func link(e, inner *Epoll) error {
	nestMu.Lock()
	defer nestMu.Unlock()
	visits++
	down := inner.depth(e, true)
	visits++
	if down+1+e.depth(nil, false) > maxNests {
		return unix.ELOOP
	}
	if e.nest.watches == nil {
		e.nest.watches = make(map[*Epoll]int)
	}
	if inner.nest.watchedBy == nil {
		inner.nest.watchedBy = make(map[*Epoll]int)
	}
	e.nest.watches[inner]++
	inner.nest.watchedBy[e]++
	return nil
}

// depth is the length of the longest chain down from e (or up), more than maxNests if it leads to stop. Each epoll is visited once a walk.
// +checklocks:nestMu
func (e *Epoll) depth(stop *Epoll, down bool) int {
	if e == stop {
		return maxNests + 1
	}
	n := &e.nest
	if n.visit == visits {
		return n.depth
	}
	n.visit, n.depth = visits, 0
	next := n.watchedBy
	if down {
		next = n.watches
	}
	d := 0
	for o := range next {
		d = max(d, o.depth(stop, down)+1)
	}
	n.depth = d
	return d
}

func unlink(e, inner *Epoll) {
	nestMu.Lock()
	defer nestMu.Unlock()
	if e.nest.watches[inner]--; e.nest.watches[inner] == 0 {
		delete(e.nest.watches, inner)
	}
	if inner.nest.watchedBy[e]--; inner.nest.watchedBy[e] == 0 {
		delete(inner.nest.watchedBy, e)
	}
}
