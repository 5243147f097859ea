package syscalls

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/sentry/kernel"
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
	o := t
	if pid := a[0].Int(); pid != 0 {
		if o = t.PIDNamespace().Task(pid); o == nil {
			return 0, unix.ESRCH
		}
		if o.ThreadGroup() != t.ThreadGroup() && !mayPrlimit(t, o) {
			return 0, unix.EPERM
		}
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
	le := hostarch.ByteOrder
	var b [16]byte
	old := tg.Limit(int(res))
	if set != 0 {
		if _, err := t.CopyIn(set, b[:]); err != nil {
			return err
		}
		var err error
		n := linux.RLimit{Cur: le.Uint64(b[:]), Max: le.Uint64(b[8:])}
		if old, err = tg.SetLimit(int(res), n, t.Credentials().HasCapIn(linux.CAP_SYS_RESOURCE, t.Kernel().RootUserNamespace())); err != nil {
			return err
		}
	}
	if get != 0 {
		le.PutUint64(b[:], old.Cur)
		le.PutUint64(b[8:], old.Max)
		_, err := t.CopyOut(get, b[:])
		return err
	}
	return nil
}

func sysGetrusage(t *kernel.Task, a kernel.Args) (uintptr, error) {
	r, err := t.Rusage(a[0].Int())
	if err != nil {
		return 0, err
	}
	return 0, copyOutRusage(t, a[1].Pointer(), &r)
}

// sysTimes counts in CLOCKS_PER_SEC (100); the result is the time since boot.
func sysTimes(t *kernel.Task, a kernel.Args) (uintptr, error) {
	const tick = 10e6
	if p := a[0].Pointer(); p != 0 {
		var b [32]byte
		u, s := t.ThreadGroup().CPUTimes()
		cu, cs := t.ThreadGroup().ChildCPUTimes()
		for i, d := range [...]int64{int64(u), int64(s), int64(cu), int64(cs)} {
			hostarch.ByteOrder.PutUint64(b[8*i:], uint64(d/tick))
		}
		if _, err := t.CopyOut(p, b[:]); err != nil {
			return 0, err
		}
	}
	return uintptr(t.Kernel().Uptime() / tick), nil
}
