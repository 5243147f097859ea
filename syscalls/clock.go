package syscalls

import (
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"

	"moat/sentry/kernel"
	"moat/sentry/kernel/ktime"
	"moat/sentry/kernel/timer"
	"moat/sentry/linuxerr"
)

func init() {
	const noSet = "the host's clocks are not the sandbox's to set: EPERM"
	register(
		full(35, "nanosleep", "timespec >timespec", sysNanosleep),
		full(96, "gettimeofday", "ptr ptr", sysGettimeofday),
		full(201, "time", "ptr", sysTime),
		full(228, "clock_gettime", "clock >timespec", sysClockGettime),
		full(229, "clock_getres", "int ptr", sysClockGetres),
		full(230, "clock_nanosleep", "clock hex timespec >timespec", sysClockNanosleep),
		partial(164, "settimeofday", "ptr ptr", noSet, func(*kernel.Task, kernel.Args) (uintptr, error) { return 0, unix.EPERM }),
		partial(227, "clock_settime", "int ptr", noSet, sysClockSettime),
		partial(159, "adjtimex", "ptr", "reads only; "+noSet, func(t *kernel.Task, a kernel.Args) (uintptr, error) { return adjtimex(t, a[0].Pointer()) }),
		partial(305, "clock_adjtime", "int ptr", "reads only; "+noSet, sysClockAdjtime),
	)
}

// taskClock and groupClock are CPU clocks (kernel/time/posix-cpu-timers.c).
type taskClock struct {
	t    *kernel.Task
	user bool
}

func (c taskClock) Now() int64 { return cpuTime(c.t, c.user) }

func (taskClock) Until(d int64) time.Duration { return cpuUntil(d, 1) }

type groupClock struct {
	tg   *kernel.ThreadGroup
	user bool
}

func (c groupClock) Now() int64 { return cpuTime(c.tg, c.user) }

func (c groupClock) Until(d int64) time.Duration {
	return cpuUntil(d, min(c.tg.NumTasks(), c.tg.Kernel().NumCPUs()))
}

func cpuTime(of interface {
	CPUTimes() (user, sys time.Duration)
}, userOnly bool) int64 {
	user, sys := of.CPUTimes()
	if userOnly {
		return int64(user)
	}
	return int64(user + sys)
}

// cpuUntil is how long n running threads take at least to use d of CPU time. Linux looks at each tick, 4 ms.
func cpuUntil(d int64, n int) time.Duration {
	return max(time.Duration(d)/time.Duration(max(n, 1)), 4*time.Millisecond)
}

const tick = 4_000_000 // CLOCK_*_COARSE's resolution: CONFIG_HZ=250

// isAlarm reports whether id is a clock that wakes the machine, which needs an RTC: EINVAL to read, EOPNOTSUPP to sleep on.
func isAlarm(id int32) bool {
	return id == linux.CLOCK_REALTIME_ALARM || id == linux.CLOCK_BOOTTIME_ALARM
}

// clockOf returns the clock of id as t may read it: EINVAL.
func clockOf(t *kernel.Task, id int32) (timer.Clock, error) {
	if id < 0 {
		return cpuClock(t, id)
	}
	switch id {
	case linux.CLOCK_REALTIME, linux.CLOCK_REALTIME_COARSE, unix.CLOCK_TAI:
		return timer.Realtime, nil
	case linux.CLOCK_MONOTONIC, linux.CLOCK_MONOTONIC_RAW, linux.CLOCK_MONOTONIC_COARSE:
		return timer.Monotonic, nil
	case linux.CLOCK_BOOTTIME:
		return timer.Boottime, nil
	case linux.CLOCK_PROCESS_CPUTIME_ID:
		return groupClock{t.ThreadGroup(), false}, nil
	case linux.CLOCK_THREAD_CPUTIME_ID:
		return taskClock{t, false}, nil
	}
	return nil, unix.EINVAL
}

// cpuClock decodes a CPU clock's number: ~pid << 3, a bit for threads, and PROF, VIRT or SCHED.
func cpuClock(t *kernel.Task, id int32) (timer.Clock, error) {
	pid, which := ^(id >> 3), id&3
	if which == 3 {
		return nil, unix.EINVAL // a dynamic clock: no such device
	}
	user := which == 1
	if id&4 != 0 {
		o := t
		if pid != 0 {
			if o = t.PIDNamespace().Task(pid); o == nil || o.ThreadGroup() != t.ThreadGroup() {
				return nil, unix.EINVAL
			}
		}
		return taskClock{o, user}, nil
	}
	tg := t.ThreadGroup()
	if pid != 0 {
		if tg = t.PIDNamespace().ThreadGroup(pid); tg == nil {
			return nil, unix.EINVAL
		}
	}
	return groupClock{tg, user}, nil
}

func copyOutTimespec(t *kernel.Task, p hostarch.Addr, ns int64) error {
	ts := linux.NsecToTimespec(ns)
	_, err := ts.CopyOut(t, p)
	return err
}

// timevalOf cuts off what is below a microsecond.
func timevalOf(ns int64) linux.Timeval { return linux.Timeval{Sec: ns / 1e9, Usec: ns % 1e9 / 1e3} }

func sysClockGettime(t *kernel.Task, a kernel.Args) (uintptr, error) {
	c, err := clockOf(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	now := c.Now()
	if id := a[0].Int(); id == linux.CLOCK_REALTIME_COARSE || id == linux.CLOCK_MONOTONIC_COARSE {
		now -= now % tick
	}
	return 0, copyOutTimespec(t, a[1].Pointer(), now)
}

func sysClockGetres(t *kernel.Task, a kernel.Args) (uintptr, error) {
	id := a[0].Int()
	if _, err := clockOf(t, id); err != nil {
		return 0, err
	}
	if a[1] == 0 {
		return 0, nil
	}
	res := int64(1)
	if id == linux.CLOCK_REALTIME_COARSE || id == linux.CLOCK_MONOTONIC_COARSE || id < 0 && id&3 != 2 {
		res = tick
	}
	return 0, copyOutTimespec(t, a[1].Pointer(), res)
}

func sysClockSettime(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if id := a[0].Int(); id != linux.CLOCK_REALTIME {
		return 0, unix.EINVAL
	}
	ns, err := copyInTimeout(t, a[1].Pointer())
	if err != nil {
		return 0, err
	}
	if ns == nil {
		return 0, unix.EFAULT
	}
	return 0, unix.EPERM
}

func sysGettimeofday(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if p := a[0].Pointer(); p != 0 {
		tv := timevalOf(ktime.Realtime())
		if _, err := tv.CopyOut(t, p); err != nil {
			return 0, err
		}
	}
	if p := a[1].Pointer(); p != 0 {
		var tz [8]byte
		if _, err := t.CopyOut(p, tz[:]); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

func sysTime(t *kernel.Task, a kernel.Args) (uintptr, error) {
	now := uint64(ktime.Realtime() / 1e9)
	if p := a[0].Pointer(); p != 0 {
		if err := t.CopyOutUint64(p, now); err != nil {
			return 0, err
		}
	}
	return uintptr(now), nil
}

func sysClockAdjtime(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a[0].Int() != linux.CLOCK_REALTIME {
		if _, err := clockOf(t, a[0].Int()); err != nil {
			return 0, err
		}
		return 0, unix.EOPNOTSUPP
	}
	return adjtimex(t, a[1].Pointer())
}

// adjtimex fills struct timex as an unsynchronised clock has it.
func adjtimex(t *kernel.Task, p hostarch.Addr) (uintptr, error) {
	const size, timeError, staUnsync = 208, 5, 0x40
	var b [size]byte
	if _, err := t.CopyIn(p, b[:]); err != nil {
		return 0, err
	}
	// modes is an int before longs; only ADJ_OFFSET_SS_READ changes nothing.
	if modes := hostarch.ByteOrder.Uint32(b[:]); modes != 0 && modes != 0xa001 {
		return 0, unix.EPERM
	}
	le := hostarch.ByteOrder
	clear(b[8:])
	le.PutUint64(b[24:], 16000000) // maxerror
	le.PutUint64(b[32:], 16000000) // esterror
	le.PutUint32(b[40:], staUnsync)
	le.PutUint64(b[48:], 2)        // constant
	le.PutUint64(b[56:], 1)        // precision
	le.PutUint64(b[64:], 32768000) // tolerance
	now := ktime.Realtime()
	le.PutUint64(b[72:], uint64(now/1e9))
	le.PutUint64(b[80:], uint64(now%1e9/1e3))
	le.PutUint64(b[88:], 10000) // tick
	_, err := t.CopyOut(p, b[:])
	return timeError, err
}

func sysNanosleep(t *kernel.Task, a kernel.Args) (uintptr, error) {
	ns, err := copyInTimeout(t, a[0].Pointer())
	if err != nil {
		return 0, err
	}
	if ns == nil {
		return 0, unix.EFAULT
	}
	return sleepUntil(t, timer.Monotonic, addSat(ktime.Monotonic(), *ns), a[1].Pointer(), false)
}

func sysClockNanosleep(t *kernel.Task, a kernel.Args) (uintptr, error) {
	id := a[0].Int()
	switch id {
	case linux.CLOCK_THREAD_CPUTIME_ID, linux.CLOCK_MONOTONIC_RAW, linux.CLOCK_REALTIME_COARSE, linux.CLOCK_MONOTONIC_COARSE,
		linux.CLOCK_REALTIME_ALARM, linux.CLOCK_BOOTTIME_ALARM:
		return 0, unix.EOPNOTSUPP
	}
	c, err := clockOf(t, id)
	if err != nil {
		return 0, err
	}
	ns, err := copyInTimeout(t, a[2].Pointer())
	if err != nil {
		return 0, err
	}
	if ns == nil {
		return 0, unix.EFAULT
	}
	if own, ok := c.(taskClock); ok && own.t == t {
		return 0, unix.EINVAL
	}
	abs := a[1].Uint()&linux.TIMER_ABSTIME != 0
	end := *ns
	if !abs {
		end = addSat(c.Now(), end)
	}
	return sleepUntil(t, c, end, a[3].Pointer(), abs)
}

// sleepUntil sleeps until c is at end. A relative sleep that is interrupted stores what is left at rem and goes on by restart_syscall(2).
func sleepUntil(t *kernel.Task, c timer.Clock, end int64, rem hostarch.Addr, abs bool) (uintptr, error) {
	for {
		left := end - c.Now()
		if left <= 0 {
			return 0, nil
		}
		err := t.BlockUntil(nil, time.Now().Add(c.Until(left)))
		if err == unix.ETIMEDOUT {
			continue
		}
		if err != linuxerr.ERESTARTSYS {
			return 0, err
		}
		if abs {
			return 0, linuxerr.ERESTARTNOHAND
		}
		if left = end - c.Now(); left <= 0 {
			return 0, nil
		}
		if rem != 0 {
			if err := copyOutTimespec(t, rem, left); err != nil {
				return 0, err
			}
		}
		return 0, t.SetRestart(func(t *kernel.Task) (uintptr, error) { return sleepUntil(t, c, end, rem, false) })
	}
}
