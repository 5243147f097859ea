package kernel

import (
	"time"

	"gvisor.dev/gvisor/pkg/abi/linux"
)

// cpuWatch enforces RLIMIT_CPU. It runs only while the limit is finite, and looks again no earlier than the process could have reached it with all of its
// threads running.
type cpuWatch struct {
	timer *time.Timer   // guarded by ThreadGroup.limitsMu, as is seen
	seen  time.Duration // what was used when it looked last; -1: not yet
	from  time.Duration // what was used when it looked first
}

const minCPUCheck, idleCPUCheck, maxCPUCheck = time.Millisecond, 100 * time.Millisecond, 10 * time.Second

// cpuTick is how much a process runs before Linux, which looks when its clock ticks, finds it running.
const cpuTick = 4 * time.Millisecond

// watchCPULocked starts the watch if RLIMIT_CPU asks for it. Preconditions: limitsMu is held.
func (tg *ThreadGroup) watchCPULocked() {
	if tg.cpuWatch.timer == nil && tg.limits.get(linux.RLIMIT_CPU).Cur != linux.RLimInfinity {
		tg.cpuWatch.timer, tg.cpuWatch.seen = time.AfterFunc(minCPUCheck, tg.checkCPU), -1
	}
}

func (tg *ThreadGroup) stopCPUWatch() {
	tg.limitsMu.Lock()
	defer tg.limitsMu.Unlock()
	if tg.cpuWatch.timer != nil {
		tg.cpuWatch.timer.Stop()
		tg.cpuWatch.timer = nil
	}
}

// checkCPU sends SIGXCPU at the soft limit, and each second of CPU time after it, and SIGKILL at the hard one (check_process_timers).
func (tg *ThreadGroup) checkCPU() {
	select {
	case <-tg.done:
		return
	default:
	}
	user, sys := tg.CPUTimes()
	used := user + sys
	threads := time.Duration(max(1, tg.NumTasks()))
	tg.limitsMu.Lock()
	l := tg.limits.get(linux.RLIMIT_CPU)
	if l.Cur == linux.RLimInfinity || tg.cpuWatch.timer == nil {
		tg.cpuWatch.timer = nil
		tg.limitsMu.Unlock()
		return
	}
	seconds := uint64(used / time.Second)
	first, idle := tg.cpuWatch.seen < 0, used == tg.cpuWatch.seen
	if tg.cpuWatch.seen = used; first {
		tg.cpuWatch.from = used
	}
	var sig linux.Signal
	switch {
	case first || idle || used-tg.cpuWatch.from < cpuTick: // only a process that runs is told (run_posix_cpu_timers)
	case seconds >= l.Max:
		sig = linux.SIGKILL
	case seconds >= l.Cur:
		sig = linux.SIGXCPU
		l.Cur = seconds + 1
		tg.limits.set(linux.RLIMIT_CPU, l)
	}
	next := maxCPUCheck
	if l.Cur < 1<<32 {
		next = (time.Duration(l.Cur)*time.Second - used) / threads
	}
	if idle {
		next = max(next, idleCPUCheck)
	}
	tg.cpuWatch.timer.Reset(min(max(next, minCPUCheck), maxCPUCheck))
	tg.limitsMu.Unlock()
	if first {
		for _, t := range tg.Tasks() {
			t.RunAtBoundary((*Task).publishIdentity)
		}
	}
	if sig != 0 {
		tg.SendSignal(kernelInfo(sig))
	}
}
