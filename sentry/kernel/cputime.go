package kernel

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// cpuState is a task's CPU accounting. User time is what the platform's thread has used; system time is the CPU time of the OS thread that the task's
// goroutine is locked to, which runs nothing else. So the system call path counts nothing.
type cpuState struct {
	osTID       atomic.Int32
	osBase      int64        // the OS thread's CPU time before it was the task's
	guestBefore atomic.Int64 // of host threads before an execve
	final       atomic.Pointer[cpuTimes]

	minorFaults, majorFaults, voluntary, involuntary atomic.Int64
	maxRSS                                           atomic.Int64 // bytes
}

// cpuTimes are user and system CPU time.
type cpuTimes struct{ user, sys time.Duration }

func (c *cpuTimes) add(o cpuTimes) {
	c.user += o.user
	c.sys += o.sys
}

func (c *cpuState) begin() {
	tid := unix.Gettid()
	c.osBase = int64(threadClock(tid))
	c.osTID.Store(int32(tid))
}

// threadClock is the CPU time of one of our own OS threads (CPUCLOCK_PERTHREAD of clock_gettime(2)).
func threadClock(tid int) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^tid)<<3|6, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
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
	ct := cpuTimes{user: time.Duration(t.cpu.guestBefore.Load())}
	if r := t.thr.Load(); r != nil {
		ct.user += r.thread.CPUTime()
	}
	if tid := t.cpu.osTID.Load(); tid != 0 {
		ct.sys = max(0, threadClock(int(tid))-time.Duration(t.cpu.osBase))
	}
	return ct
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
