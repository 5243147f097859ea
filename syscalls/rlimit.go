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
		full(97, "getrlimit", "rlimitres >rlimit", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			old, err := prlimit(t, t, a[0].Uint(), nil)
			if err == nil {
				err = copyOutLimit(t, a[1].Pointer(), old)
			}
			return 0, err
		}),
		full(160, "setrlimit", "rlimitres rlimit", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			n, err := copyInLimit(t, a[1].Pointer())
			if err == nil {
				_, err = prlimit(t, t, a[0].Uint(), n)
			}
			return 0, err
		}),
		full(302, "prlimit64", "pid rlimitres rlimit >rlimit", sysPrlimit64),
		full(98, "getrusage", "int ptr", sysGetrusage),
		full(100, "times", "ptr", sysTimes),
	)
}

func sysPrlimit64(t *kernel.Task, a kernel.Args) (uintptr, error) {
	var n *linux.RLimit
	var err error
	if a[2] != 0 {
		if n, err = copyInLimit(t, a[2].Pointer()); err != nil {
			return 0, err
		}
	}
	o, err := taskOf(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	if o != t && !mayPrlimit(t, o) {
		return 0, unix.EPERM
	}
	old, err := prlimit(t, o, a[1].Uint(), n)
	if err == nil && a[3] != 0 {
		err = copyOutLimit(t, a[3].Pointer(), old)
	}
	return 0, err
}

// mayPrlimit is check_prlimit_permission.
func mayPrlimit(t, o *kernel.Task) bool {
	c, oc := t.Credentials(), o.Credentials()
	if c.RUID == oc.EUID && c.RUID == oc.SUID && c.RUID == oc.RUID && c.RGID == oc.EGID && c.RGID == oc.SGID && c.RGID == oc.RGID {
		return true
	}
	return c.HasCapIn(linux.CAP_SYS_RESOURCE, oc.UserNS)
}

func copyInLimit(t *kernel.Task, addr hostarch.Addr) (*linux.RLimit, error) {
	var n [2]uint64 // soft, hard
	_, err := primitive.CopyUint64SliceIn(t, addr, n[:])
	return &linux.RLimit{Cur: n[0], Max: n[1]}, err
}

func copyOutLimit(t *kernel.Task, addr hostarch.Addr, l linux.RLimit) error {
	_, err := primitive.CopyUint64SliceOut(t, addr, []uint64{l.Cur, l.Max})
	return err
}

// prlimit returns a limit of o's, which becomes set if that is not nil.
func prlimit(t, o *kernel.Task, res uint32, set *linux.RLimit) (linux.RLimit, error) {
	switch {
	case res > linux.RLIMIT_RTTIME:
		return linux.RLimit{}, unix.EINVAL
	case set == nil:
		return o.ThreadGroup().Limit(int(res)), nil
	}
	return o.ThreadGroup().SetLimit(int(res), *set, t.Credentials().HasCapIn(linux.CAP_SYS_RESOURCE, t.Kernel().RootUserNamespace()))
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
