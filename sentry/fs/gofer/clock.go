package gofer

import (
	"sync"

	"moat/sentry/vfs"
)

// evictable is something that a clock bounds the number of.
type evictable interface {
	// evict gives the thing up, unless it is in use or was used since the last call. It reports whether it is gone.
	evict() bool
}

// clock bounds how many things are kept, by weight: a second-chance cache. What is in use stays, so the bound may be exceeded.
type clock struct {
	max int // +checklocksignore: set once, before use.

	mu sync.Mutex
	// +checklocks:mu
	items []weighed
	// +checklocks:mu
	hand int
	// +checklocks:mu
	weight int
}

type weighed struct {
	evictable
	weight int
}

// add enters x, and throws others out if there are too many.
func (c *clock) add(x evictable, weight int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.items = append(c.items, weighed{x, weight})
	c.weight += weight
	limit := c.max
	if vfs.Pressed() {
		limit /= 16
	}
	for scan := 32; scan > 0 && c.weight > limit; scan-- {
		c.hand = (c.hand + 1) % len(c.items)
		// The newest is not its own victim.
		if c.hand != len(c.items)-1 && c.items[c.hand].evict() {
			c.removeLocked()
		}
	}
}

// +checklocks:c.mu
func (c *clock) removeLocked() {
	last := len(c.items) - 1
	c.weight -= c.items[c.hand].weight
	c.items[c.hand] = c.items[last]
	c.items[last] = weighed{}
	c.items = c.items[:last]
	if c.hand >= last {
		c.hand = 0
	}
}

// shrink gives up what can be given up, in one or two rounds.
func (c *clock) shrink() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for scan := 2 * len(c.items); scan > 0 && len(c.items) > 0; scan-- {
		c.hand = (c.hand + 1) % len(c.items)
		if c.items[c.hand].evict() {
			c.removeLocked()
		}
	}
}
