package kernel

import (
	"math"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/abi/linux"
)

// Release and Version are the kernel version that guests see (uname(2), /proc/version).
const (
	Release = "6.12.0-moat"
	Version = "#1 SMP PREEMPT_DYNAMIC moat"
)

// MemoryInfo is what sysinfo(2) and /proc/meminfo report, in bytes.
type MemoryInfo struct{ Total, Free uint64 }

// MemoryInfo is the state of the sandbox's memory.
func (k *Kernel) MemoryInfo() MemoryInfo {
	total, used := k.memory.Limit(), k.memory.Used()
	return MemoryInfo{Total: total, Free: total - min(total, used)}
}

// loadAverage is computed when it is asked for: a sandbox that nobody looks at takes no timer for it.
type loadAverage struct {
	mu   sync.Mutex
	last time.Time
	avg  [3]float64
}

// LoadAverage are the load averages over 1, 5 and 15 minutes, decayed from samples taken when somebody asks.
func (k *Kernel) LoadAverage() [3]float64 {
	n, _ := k.NumRunning()
	l := &k.load
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if d := now.Sub(l.last); l.last.IsZero() || d >= 5*time.Second {
		if l.last.IsZero() {
			d = now.Sub(k.start)
		}
		for i, minutes := range [...]float64{1, 5, 15} {
			e := math.Exp(-d.Minutes() / minutes)
			l.avg[i] = l.avg[i]*e + float64(n)*(1-e)
		}
		l.last = now
	}
	return l.avg
}

// RebootNamespace is reboot(2) in a PID namespace: its init dies, as if by sig.
func (k *Kernel) RebootNamespace(ns *PIDNamespace, sig linux.Signal) {
	k.tasksMu.RLock()
	defer k.tasksMu.RUnlock()
	if tg := ns.init; tg != nil {
		tg.sigMu.Lock()
		tg.groupExitLocked(linux.WaitStatusTerminationSignal(sig), nil)
		tg.sigMu.Unlock()
	}
}
