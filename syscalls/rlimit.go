package syscalls

import (
	"moat/sentry/kernel"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/marshal/primitive"
)

func init() {
	register(
		full(97, "getrlimit", "rlimitres ptr", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return 0, prlimit(t, t, a[0].Uint(), 0, a[1].Pointer())
		}),
		full(160, "setrlimit", "rlimitres rlimit", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			if a[1] == 0 {
				return 0, unix.EFAULT
			}
			return 0, prlimit(t, t, a[0].Uint(), a[1].Pointer(), 0)
		}),
		full(302, "prlimit64", "pid rlimitres rlimit ptr", sysPrlimit64),
		full(98, "getrusage", "int ptr", sysGetrusage),
		full(100, "times", "ptr", sysTimes),
	)
}

func sysPrlimit64(t *kernel.Task, a kernel.Args) (uintptr, error) {
	o, err := taskOf(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	if o.ThreadGroup() != t.ThreadGroup() && !mayPrlimit(t, o) {
		return 0, unix.EPERM
	}
	return 0, prlimit(t, o, a[1].Uint(), a[2].Pointer(), a[3].Pointer())
}

// mayPrlimit is check_prlimit_permission.
func mayPrlimit(t, o *kernel.Task) bool {
	c, oc := t.Credentials(), o.Credentials()
	if c.RUID == oc.EUID && c.RUID == oc.SUID && c.RUID == oc.RUID && c.RGID == oc.EGID && c.RGID == oc.SGID && c.RGID == oc.RGID {
		return true
	}
	return c.HasCapIn(linux.CAP_SYS_RESOURCE, oc.UserNS)
}

func prlimit(t, o *kernel.Task, res uint32, set, get hostarch.Addr) error {
	if res > linux.RLIMIT_RTTIME {
		return unix.EINVAL
	}
	tg := o.ThreadGroup()
	old := tg.Limit(int(res))
	if set != 0 {
		var n [2]uint64 // soft, hard
		if _, err := primitive.CopyUint64SliceIn(t, set, n[:]); err != nil {
			return err
		}
		var err error
		may := t.Credentials().HasCapIn(linux.CAP_SYS_RESOURCE, t.Kernel().RootUserNamespace())
		if old, err = tg.SetLimit(int(res), linux.RLimit{Cur: n[0], Max: n[1]}, may); err != nil {
			return err
		}
	}
	if get != 0 {
		_, err := primitive.CopyUint64SliceOut(t, get, []uint64{old.Cur, old.Max})
		return err
	}
	return nil
}

func sysGetrusage(t *kernel.Task, a kernel.Args) (uintptr, error) {
	r, err := t.Rusage(a[0].Int())
	if err != nil {
		return 0, err
	}
	_, err = r.CopyOut(t, a[1].Pointer())
	return 0, err
}

// sysTimes counts in CLOCKS_PER_SEC (100); the result is the time since boot.
func sysTimes(t *kernel.Task, a kernel.Args) (uintptr, error) {
	const tick = 10e6
	if p := a[0].Pointer(); p != 0 {
		u, s := t.ThreadGroup().CPUTimes()
		cu, cs := t.ThreadGroup().ChildCPUTimes()
		tms := linux.Tms{UTime: linux.ClockT(u / tick), STime: linux.ClockT(s / tick), CUTime: linux.ClockT(cu / tick), CSTime: linux.ClockT(cs / tick)}
		if _, err := tms.CopyOut(t, p); err != nil {
			return 0, err
		}
	}
	return uintptr(t.Kernel().Uptime() / tick), nil
}
