package kernel

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

// Limits is a table of resource limits by RLIMIT_*.
type Limits [linux.RLIMIT_RTTIME + 1]linux.RLimit

// DefaultLimits are a container's limits when its configuration names none.
func DefaultLimits() Limits {
	var l Limits
	for i, v := range linux.InitRLimits {
		l[i] = v
	}
	l[linux.RLIMIT_NOFILE] = linux.RLimit{Cur: 1024, Max: 1048576}
	l[linux.RLIMIT_MEMLOCK] = linux.RLimit{Cur: 8 << 20, Max: 8 << 20}
	l[linux.RLIMIT_NPROC] = linux.RLimit{Cur: 1 << 20, Max: 1 << 20}
	l[linux.RLIMIT_SIGPENDING] = linux.RLimit{Cur: 1 << 15, Max: 1 << 15}
	return l
}

// limitTable holds a process' limits. They are read without a lock; writers hold ThreadGroup.limitsMu.
type limitTable [len(Limits{})]struct{ cur, max atomic.Uint64 }

func (lt *limitTable) get(resource int) linux.RLimit {
	return linux.RLimit{Cur: lt[resource].cur.Load(), Max: lt[resource].max.Load()}
}

func (lt *limitTable) set(resource int, l linux.RLimit) {
	lt[resource].cur.Store(l.Cur)
	lt[resource].max.Store(l.Max)
}

func (lt *limitTable) setAll(l *Limits) {
	for i := range l {
		lt.set(i, l[i])
	}
}

// Limit is one resource limit of the process.
func (tg *ThreadGroup) Limit(resource int) linux.RLimit { return tg.limits.get(resource) }

// Limits is a copy of all of the process' limits.
func (tg *ThreadGroup) Limits() (l Limits) {
	for i := range l {
		l[i] = tg.limits.get(i)
	}
	return l
}

// SetLimit sets a limit and returns the old one (kernel/sys.c do_prlimit): EINVAL, EPERM if privileged is false and the hard limit would rise.
func (tg *ThreadGroup) SetLimit(resource int, n linux.RLimit, privileged bool) (linux.RLimit, error) {
	if n.Cur > n.Max {
		return linux.RLimit{}, unix.EINVAL
	}
	if resource == linux.RLIMIT_NOFILE && n.Max > maxNrOpen {
		return linux.RLimit{}, unix.EPERM
	}
	tg.limitsMu.Lock()
	defer tg.limitsMu.Unlock()
	old := tg.limits.get(resource)
	if n.Max > old.Max && !privileged {
		return old, unix.EPERM
	}
	tg.limits.set(resource, n)
	if resource == linux.RLIMIT_CPU {
		tg.watchCPULocked()
	}
	return old, nil
}

// maxNrOpen is /proc/sys/fs/nr_open.
const maxNrOpen = 1 << 20
