package kernel

import (
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/abi/linux"
)

// cpuState is a task's CPU accounting. User time is how long guest code ran, system time how long the task's goroutine worked between; both are
// the platform thread's clock, less the waits that Task.wait tells it of. So the system call path counts nothing.
type cpuState struct {
	userBefore, sysBefore atomic.Int64 // of host threads before an execve
	final                 atomic.Pointer[cpuTimes]

	minorFaults, majorFaults, voluntary, involuntary atomic.Int64
	maxRSS                                           atomic.Int64 // bytes
}

// cpuTimes are user and system CPU time.
type cpuTimes struct{ user, sys time.Duration }

func (c *cpuTimes) add(o cpuTimes) {
	c.user += o.user
	c.sys += o.sys
}

// CPUTimes are the task's user and system CPU times.
func (t *Task) CPUTimes() (user, sys time.Duration) {
	ct := t.times()
	return ct.user, ct.sys
}

func (t *Task) times() cpuTimes {
	if f := t.cpu.final.Load(); f != nil {
		return *f
	}
	ct := cpuTimes{time.Duration(t.cpu.userBefore.Load()), time.Duration(t.cpu.sysBefore.Load())}
	if r := t.thr.Load(); r != nil {
		c := r.thread.Clock()
		ct.add(cpuTimes{c.Guest(), c.Sentry()})
	}
	return ct
}

// sleepsInPlace is how long a sleep may be that the platform makes in place. It is the guest that says for how long it slept, so where CPU time is limited none is.
func (t *Task) sleepsInPlace() time.Duration {
	if t.tg.Limit(linux.RLIMIT_CPU).Cur != linux.RLimInfinity {
		return 0
	}
	for cg := t.Cgroup(); cg != nil; cg = cg.parent {
		if cg.quota.Load() != nil {
			return 0
		}
	}
	return time.Millisecond
}

// CPUTimes are the CPU times of all of the process' threads, dead ones included.
func (tg *ThreadGroup) CPUTimes() (user, sys time.Duration) {
	tg.k.tasksMu.RLock()
	defer tg.k.tasksMu.RUnlock()
	ct := tg.timesLocked()
	return ct.user, ct.sys
}

func (tg *ThreadGroup) timesLocked() cpuTimes {
	ct := tg.deadTimes
	for _, t := range tg.tasks {
		ct.add(t.times())
	}
	return ct
}

// ChildCPUTimes are the times of the children that were waited for.
func (tg *ThreadGroup) ChildCPUTimes() (user, sys time.Duration) {
	tg.k.tasksMu.RLock()
	defer tg.k.tasksMu.RUnlock()
	return tg.childTimes.user, tg.childTimes.sys
}

// Faults are the task's minor and major page faults.
func (t *Task) Faults() (minor, major int64) {
	return t.cpu.minorFaults.Load(), t.cpu.majorFaults.Load()
}

// Switches are the task's voluntary and involuntary context switches.
func (t *Task) Switches() (voluntary, involuntary int64) {
	return t.cpu.voluntary.Load(), t.cpu.involuntary.Load()
}
