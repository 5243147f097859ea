package kernel

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/waiter"
	"moat/sentry/kernel/auth"
)

// WaitOptions say which children wait(2) looks at, and for what.
type WaitOptions struct {
	// PID limits to one process, Group to one process group; both nil: any child.
	PID   *PID
	Group *PID
	// Options are wait's W* flags.
	Options uint32
}

// WaitResult is what wait(2) tells of a child.
type WaitResult struct {
	PID    int32
	UID    auth.KUID
	Status linux.WaitStatus
	Rusage linux.Rusage
	// Trapped: the stop is a tracee's (CLD_TRAPPED).
	Trapped bool
}

// Wait is wait4(2) and waitid(2). A nil result without an error is WNOHANG's; ECHILD if there is nothing to wait for.
func (t *Task) Wait(o *WaitOptions) (*WaitResult, error) {
	tg := t.tg
	var e waiter.Entry
	var ch chan struct{}
	var interrupted error
	for {
		t.k.tasksMu.Lock()
		r, any := t.waitScan(o)
		t.k.tasksMu.Unlock()
		switch {
		case r != nil:
			return r, nil
		case !any:
			return nil, unix.ECHILD
		case o.Options&linux.WNOHANG != 0:
			return nil, nil
		case interrupted != nil:
			return nil, interrupted
		}
		if ch == nil {
			// Register, and look again before sleeping.
			e, ch = waiter.NewChannelEntry(waitEvents)
			tg.childEvents.EventRegister(&e)
			defer tg.childEvents.EventUnregister(&e)
			continue
		}
		// The signal may be the SIGCHLD of what is waited for: what has become of the children comes first (do_wait).
		interrupted = t.Block(ch)
	}
}

// waitScan looks for a child with news. Preconditions: tasksMu is held for writing.
func (t *Task) waitScan(o *WaitOptions) (r *WaitResult, any bool) {
	if len(t.tg.tracees)+len(t.tg.tracedDead) > 0 {
		if r, any = t.waitTracees(o); r != nil {
			return r, true
		}
	}
	if o.PID != nil {
		c := o.PID.group
		if c == nil || c.parent != t.tg {
			return nil, any
		}
		r, ok := t.waitOne(c, o)
		return r, ok || any
	}
	for _, own := range [...]bool{true, false} { // the task's own children come before those of other threads, the older ones first
		for _, c := range t.tg.children {
			if (c.parentTask == t) != own || o.Group != nil && (c.pgrp == nil || c.pgrp.pid != o.Group) {
				continue
			}
			res, ok := t.waitOne(c, o)
			if res != nil {
				return res, true
			}
			any = any || ok
		}
	}
	return nil, any
}

func (t *Task) waitOne(c *ThreadGroup, o *WaitOptions) (r *WaitResult, eligible bool) {
	if o.Options&linux.WNOTHREAD != 0 && c.parentTask != t {
		return nil, false
	}
	by := c.leader.Tracer()
	traced := by != nil && by.tg == t.tg
	if o.Options&linux.WALL == 0 && !traced && (c.exitSignal != linux.SIGCHLD) != (o.Options&linux.WCLONE != 0) {
		return nil, false
	}
	r = &WaitResult{PID: c.pid.In(t.PIDNamespace()), UID: c.leader.Credentials().RUID}
	if c.exitNotified {
		if o.Options&linux.WEXITED == 0 {
			return nil, true
		}
		r.Status = c.exitStatus
		r.Rusage = c.rusageLocked(true)
		if o.Options&linux.WNOWAIT == 0 {
			t.tg.addChild(c)
			c.reapLocked()
		}
		return r, true
	}
	c.sigMu.Lock()
	defer c.sigMu.Unlock()
	if o.Options&linux.WSTOPPED != 0 && !traced && c.stop.done && c.stop.waitSig != 0 {
		r.Status = linux.WaitStatusStopped(uint32(c.stop.waitSig))
		if o.Options&linux.WNOWAIT == 0 {
			c.stop.waitSig = 0
		}
	} else if o.Options&linux.WCONTINUED != 0 && c.stop.continued {
		r.Status = linux.WaitStatusContinued()
		if o.Options&linux.WNOWAIT == 0 {
			c.stop.continued = false
		}
	} else {
		return nil, true
	}
	r.Rusage = c.rusageLocked(true)
	return r, true
}

// addChild adds the times of c, which is being reaped, to tg's. Preconditions: tasksMu is held for writing.
func (tg *ThreadGroup) addChild(c *ThreadGroup) {
	tg.childTimes.add(c.timesLocked())
	tg.childTimes.add(c.childTimes)
	u := c.usageLocked()
	tg.childUsage.merge(&u)
	tg.childUsage.merge(&c.childUsage)
}

// usage is what getrusage(2) reports besides times.
type usage struct {
	maxRSS                                 int64 // bytes
	minFlt, majFlt, voluntary, involuntary int64
}

func (u *usage) merge(o *usage) {
	u.maxRSS = max(u.maxRSS, o.maxRSS)
	u.minFlt += o.minFlt
	u.majFlt += o.majFlt
	u.voluntary += o.voluntary
	u.involuntary += o.involuntary
}

func (u *usage) add(t *Task) {
	u.minFlt += t.cpu.minorFaults.Load()
	u.majFlt += t.cpu.majorFaults.Load()
	u.voluntary += t.cpu.voluntary.Load()
	u.involuntary += t.cpu.involuntary.Load()
	u.maxRSS = max(u.maxRSS, t.cpu.maxRSS.Load())
}

func (tg *ThreadGroup) usageLocked() usage {
	u := tg.deadUsage
	for _, t := range tg.tasks {
		t.noteRSS()
		u.add(t)
	}
	return u
}

// noteRSS records the peak resident set of t's address space.
func (t *Task) noteRSS() {
	if m := t.mm.Load(); m != nil {
		if p := peakRSS(m); p > t.cpu.maxRSS.Load() {
			t.cpu.maxRSS.Store(p)
		}
	}
}

func makeRusage(ct cpuTimes, u *usage) linux.Rusage {
	return linux.Rusage{
		UTime: linux.NsecToTimeval(int64(ct.user)), STime: linux.NsecToTimeval(int64(ct.sys)), MaxRSS: u.maxRSS >> 10,
		MinFlt: u.minFlt, MajFlt: u.majFlt, NVCSw: u.voluntary, NIvCSw: u.involuntary,
	}
}

// rusageLocked is the group's resource usage, with that of its reaped children if both. Preconditions: tasksMu is held.
func (tg *ThreadGroup) rusageLocked(both bool) linux.Rusage {
	ct, u := tg.timesLocked(), tg.usageLocked()
	if both {
		ct.add(tg.childTimes)
		u.merge(&tg.childUsage)
	}
	return makeRusage(ct, &u)
}

// Rusage is getrusage(2) of t for RUSAGE_SELF, RUSAGE_CHILDREN or RUSAGE_THREAD; EINVAL.
func (t *Task) Rusage(who int32) (linux.Rusage, error) {
	k, tg := t.k, t.tg
	switch who {
	case linux.RUSAGE_THREAD:
		var u usage
		t.noteRSS()
		u.add(t)
		return makeRusage(t.times(), &u), nil
	case linux.RUSAGE_SELF:
		k.tasksMu.RLock()
		defer k.tasksMu.RUnlock()
		return tg.rusageLocked(false), nil
	case linux.RUSAGE_CHILDREN:
		k.tasksMu.RLock()
		defer k.tasksMu.RUnlock()
		return makeRusage(tg.childTimes, &tg.childUsage), nil
	}
	return linux.Rusage{}, unix.EINVAL
}
