package kernel

import (
	"sync"
	"time"
)

// quota holds a group to cpu.max, where the host cannot: it sees one cgroup for the containers of a pod. What counts is the time for which the tasks had
// their threads run, be it on a CPU or in line for one, but no more than the CPUs can have given. Nothing is timed while nobody runs.
type quota struct {
	mu sync.Mutex // a leaf
	// timer is nil while nobody runs. start is when the period began, seen what of CPUTimes was counted by then at, left what may be used.
	timer     *time.Timer
	start, at time.Time
	seen      time.Duration
	left      time.Duration
	// over is not nil while the quota is used up, and closed at the end of that.
	over    chan struct{}
	periods uint64
	overs   uint64
	overFor time.Duration
}

// minLook is the shortest time between two looks at what was used.
const minLook = 5 * time.Millisecond

// HoldToQuota has cg held to Quota and Period from now on.
func (k *Kernel) HoldToQuota(cg *Cgroup) {
	cg.quota.CompareAndSwap(nil, &quota{})
	k.stopAll(cg)
}

// held returns what ends the time for which no task of cg may run by its quota; nil: they may.
func (k *Kernel) held(cg *Cgroup) <-chan struct{} {
	q := cg.quota.Load()
	if q == nil {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.timer == nil && cg.Quota.Load() > 0 {
		q.at = time.Now()
		q.start, q.left = q.at, cg.perPeriod()
		q.timer = time.AfterFunc(minLook, func() { k.look(cg, q) })
	}
	return q.over
}

func (cg *Cgroup) perPeriod() time.Duration { return time.Duration(cg.Quota.Load()) * time.Microsecond }

// look counts what was used since the last look.
func (k *Kernel) look(cg *Cgroup, q *quota) {
	user, sys := k.CPUTimes(cg)
	q.mu.Lock()
	now, period, quota := time.Now(), time.Duration(cg.Period.Load())*time.Microsecond, cg.perPeriod()
	if period <= 0 {
		period = 100 * time.Millisecond
	}
	used := min(user+sys-q.seen, now.Sub(q.at)*time.Duration(k.numCPUs))
	n := now.Sub(q.start) / period
	q.seen, q.at, q.start, q.periods = user+sys, now, q.start.Add(n*period), q.periods+uint64(n)
	q.left = min(q.left-used+n*quota, quota)
	next := q.start.Add(period).Sub(now)
	stop := false
	switch none := quota <= 0; {
	case !none && q.left <= 0:
		if stop = q.over == nil; stop {
			q.over, q.overs = make(chan struct{}), q.overs+1
		}
		q.overFor += next
	case q.over != nil:
		close(q.over)
		q.over = nil
	case none, n > 0 && used <= 0:
		stop, q.timer = !none, nil // who runs next passes by held
	}
	if q.over == nil {
		next = max(min(next, q.left/time.Duration(k.numCPUs)), minLook)
	}
	if q.timer != nil {
		q.timer.Reset(next)
	}
	q.mu.Unlock()
	if stop {
		k.stopAll(cg)
	}
}

// QuotaStat is what cpu.stat says of periods.
func (cg *Cgroup) QuotaStat() (periods, overs uint64, overFor time.Duration) {
	q := cg.quota.Load()
	if q == nil {
		return 0, 0, 0
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.periods, q.overs, q.overFor
}
