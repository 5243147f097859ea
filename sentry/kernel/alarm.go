package kernel

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"moat/platform"
)

// shortWait is how long a wait is that alarms ends. Go's timers end it up to a millisecond late where nothing else wakes the runtime, which sleeps in
// epoll_wait(2) and so counts milliseconds; of a longer one that is little.
const shortWait = 4 * time.Millisecond

// alarms ends short waits. While there are any, a goroutine sleeps in futex(2) until the first deadline.
type alarms struct {
	mu  sync.Mutex
	due []*alarm // +checklocks:mu
	// until is when the goroutine looks again; zero: there is none. +checklocks:mu
	until time.Time
	// word counts what has it look earlier.
	word atomic.Uint32
}

// alarm is one wait: C, which has room for one, gets a time when it is over.
type alarm struct {
	at time.Time
	C  chan time.Time
}

func (a *alarms) add(x *alarm) {
	a.mu.Lock()
	defer a.mu.Unlock()
	i, _ := slices.BinarySearchFunc(a.due, x, func(p, q *alarm) int { return p.at.Compare(q.at) })
	a.due = slices.Insert(a.due, i, x)
	switch {
	case a.until.IsZero():
		a.until = x.at
		go a.run()
	case x.at.Before(a.until):
		a.until = x.at
		a.word.Add(1)
		platform.FutexWake(&a.word, 1)
	}
}

// remove takes x back, whether its time has come or not.
func (a *alarms) remove(x *alarm) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.due = slices.DeleteFunc(a.due, func(y *alarm) bool { return x == y })
	select {
	case <-x.C:
	default:
	}
}

// run ends when nobody waits: the goroutine that it has just woken then runs in its place.
func (a *alarms) run() {
	for {
		a.mu.Lock()
		now := time.Now()
		for len(a.due) > 0 && !a.due[0].at.After(now) {
			a.due[0].C <- now
			a.due = slices.Delete(a.due, 0, 1)
		}
		if len(a.due) == 0 {
			a.until = time.Time{}
			a.mu.Unlock()
			return
		}
		a.until = a.due[0].at
		d, word := a.until.Sub(now), a.word.Load()
		a.mu.Unlock()
		platform.FutexWait(&a.word, word, d)
	}
}
