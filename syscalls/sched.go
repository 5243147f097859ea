package syscalls

import (
	"moat/sentry/kernel"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/marshal/primitive"
)

const schedNote = "recorded and reported; the host schedules guest threads alike"

func init() {
	register(
		full(24, "sched_yield", "", func(*kernel.Task, kernel.Args) (uintptr, error) {
			// The host's, not the runtime's: the goroutine is locked to its thread, which Gosched would have to hand over.
			unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
			return 0, nil
		}),
		partial(140, "getpriority", "int pid", schedNote, sysGetpriority),
		partial(141, "setpriority", "int pid int", schedNote, sysSetpriority),
		partial(142, "sched_setparam", "pid ptr", schedNote, sysSchedSetparam),
		full(143, "sched_getparam", "pid ptr", sysSchedGetparam),
		partial(144, "sched_setscheduler", "pid int ptr", schedNote, sysSchedSetscheduler),
		full(145, "sched_getscheduler", "pid", sysSchedGetscheduler),
		full(146, "sched_get_priority_max", "int", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return rtRange(a[0].Int(), 99) }),
		full(147, "sched_get_priority_min", "int", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return rtRange(a[0].Int(), 1) }),
		full(148, "sched_rr_get_interval", "pid ptr", sysSchedRRInterval),
		partial(203, "sched_setaffinity", "pid size ptr", "the mask is what the guest sees; threads are not pinned", sysSetaffinity),
		full(204, "sched_getaffinity", "pid size ptr", sysGetaffinity),
		full(309, "getcpu", "ptr ptr ptr", sysGetcpu),
		partial(314, "sched_setattr", "pid ptr hex", schedNote, sysSchedSetattr),
		full(315, "sched_getattr", "pid ptr size hex", sysSchedGetattr),
		partial(251, "ioprio_set", "int pid hex", schedNote, sysIoprioSet),
		full(252, "ioprio_get", "int pid", sysIoprioGet),
	)
}

// schedTask is the task that a pid argument names: EINVAL, ESRCH.
func schedTask(t *kernel.Task, pid int32) (*kernel.Task, error) {
	if pid < 0 {
		return nil, unix.EINVAL
	}
	return taskOf(t, pid)
}

// sameOwner is check_same_owner or CAP_SYS_NICE.
func sameOwner(t, o *kernel.Task) bool {
	c, oc := t.Credentials(), o.Credentials()
	return c.EUID == oc.EUID || c.EUID == oc.RUID || c.HasCapIn(linux.CAP_SYS_NICE, oc.UserNS)
}

// whichTasks are the tasks that getpriority's and ioprio_get's which and who name: ESRCH if none. User 0 is the caller's own, or root.
func whichTasks(t *kernel.Task, which, who int32, root bool) ([]*kernel.Task, error) {
	k := t.Kernel()
	var ts []*kernel.Task
	switch which {
	case linux.PRIO_PROCESS:
		o, err := taskOf(t, who)
		return []*kernel.Task{o}, err
	case linux.PRIO_PGRP:
		pg := t.ThreadGroup().ProcessGroup()
		for _, tg := range k.ThreadGroups() {
			g := tg.ProcessGroup()
			if g != nil && ((who == 0 && g == pg) || (who != 0 && g.PID().In(t.PIDNamespace()) == who)) {
				ts = append(ts, tg.Tasks()...)
			}
		}
	case linux.PRIO_USER:
		uid := t.Credentials().RUID
		if who != 0 || root {
			uid = t.UserNamespace().MapToKUID(uint32(who))
		}
		for _, tg := range k.ThreadGroups() {
			for _, o := range tg.Tasks() {
				if o.Credentials().RUID == uid && o.TIDIn(t.PIDNamespace()) != 0 {
					ts = append(ts, o)
				}
			}
		}
	default:
		return nil, unix.EINVAL
	}
	if len(ts) == 0 {
		return nil, unix.ESRCH
	}
	return ts, nil
}

func sysGetpriority(t *kernel.Task, a kernel.Args) (uintptr, error) {
	ts, err := whichTasks(t, a[0].Int(), a[1].Int(), false)
	if err != nil {
		return 0, err
	}
	best := int32(-20)
	for _, o := range ts {
		best = max(best, 20-o.Nice())
	}
	return uintptr(best), nil
}

func sysSetpriority(t *kernel.Task, a kernel.Args) (uintptr, error) {
	nice := max(-20, min(19, a[2].Int()))
	ts, err := whichTasks(t, a[0].Int(), a[1].Int(), false)
	if err != nil {
		return 0, err
	}
	var failed error
	for _, o := range ts {
		if !sameOwner(t, o) {
			failed = unix.EPERM
			continue
		}
		if nice < o.Nice() && !mayNice(t, o, nice) {
			failed = unix.EACCES
			continue
		}
		if !safeNice(t, o) {
			failed = unix.EPERM
			continue
		}
		o.SetNice(nice)
	}
	return 0, failed
}

// safeNice is cap_safe_nice: how a task runs that may more than the caller is not the caller's to change.
func safeNice(t, o *kernel.Task) bool {
	c, oc := t.Credentials(), o.Credentials()
	return oc.Permitted&^c.Permitted == 0 || c.HasCapIn(linux.CAP_SYS_NICE, oc.UserNS)
}

// mayNice is can_nice: RLIMIT_NICE or CAP_SYS_NICE.
func mayNice(t, o *kernel.Task, nice int32) bool {
	return uint64(20-nice) <= o.ThreadGroup().Limit(linux.RLIMIT_NICE).Cur || t.Credentials().HasCapIn(linux.CAP_SYS_NICE, t.Kernel().RootUserNamespace())
}

func rtRange(policy int32, rt uintptr) (uintptr, error) {
	switch policy {
	case linux.SCHED_FIFO, linux.SCHED_RR:
		return rt, nil
	case linux.SCHED_NORMAL, linux.SCHED_BATCH, linux.SCHED_IDLE, linux.SCHED_DEADLINE, 7:
		return 0, nil
	}
	return 0, unix.EINVAL
}

// setScheduler is __sched_setscheduler for the policies without deadlines.
func setScheduler(t, o *kernel.Task, policy, prio int32) error {
	reset := policy & linux.SCHED_RESET_ON_FORK
	policy &^= linux.SCHED_RESET_ON_FORK
	if policy != linux.SCHED_NORMAL && policy != linux.SCHED_FIFO && policy != linux.SCHED_RR && policy != linux.SCHED_BATCH && policy != linux.SCHED_IDLE {
		return unix.EINVAL
	}
	rt := policy == linux.SCHED_FIFO || policy == linux.SCHED_RR
	if prio < 0 || prio > 99 || rt != (prio != 0) {
		return unix.EINVAL
	}
	if !t.Credentials().HasCapIn(linux.CAP_SYS_NICE, t.Kernel().RootUserNamespace()) {
		old, oldPrio := o.SchedPolicy()
		if old&^linux.SCHED_RESET_ON_FORK == linux.SCHED_IDLE && policy != linux.SCHED_IDLE && !mayNice(t, o, o.Nice()) {
			return unix.EPERM // SCHED_IDLE is below every nice value
		}
		if rt {
			lim := o.ThreadGroup().Limit(linux.RLIMIT_RTPRIO).Cur
			if (policy != old&^linux.SCHED_RESET_ON_FORK && lim == 0) || (prio > oldPrio && uint64(prio) > lim) {
				return unix.EPERM
			}
		}
		if old&linux.SCHED_RESET_ON_FORK != 0 && reset == 0 || !sameOwner(t, o) {
			return unix.EPERM
		}
	}
	if !safeNice(t, o) {
		return unix.EPERM
	}
	o.SetSchedPolicy(policy|reset, prio)
	return nil
}

func copyInPriority(t *kernel.Task, p hostarch.Addr) (int32, error) {
	if p == 0 {
		return 0, unix.EINVAL
	}
	v, err := t.CopyInUint32(p)
	return int32(v), err
}

func sysSchedSetparam(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a[0].Int() < 0 {
		return 0, unix.EINVAL
	}
	return 0, setParam(t, a[0].Int(), -1, a[1].Pointer())
}

// setParam sets the policy, unless that is negative, and the priority at p: EINVAL, ESRCH, EPERM.
func setParam(t *kernel.Task, pid, policy int32, p hostarch.Addr) error {
	prio, err := copyInPriority(t, p)
	if err != nil {
		return err
	}
	o, err := schedTask(t, pid)
	if err != nil {
		return err
	}
	if policy < 0 {
		policy, _ = o.SchedPolicy()
	}
	return setScheduler(t, o, policy, prio)
}

func sysSchedGetparam(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a[1] == 0 {
		return 0, unix.EINVAL
	}
	o, err := schedTask(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	_, prio := o.SchedPolicy()
	return 0, t.CopyOutUint32(a[1].Pointer(), uint32(prio))
}

func sysSchedSetscheduler(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a[1].Int() < 0 {
		return 0, unix.EINVAL
	}
	return 0, setParam(t, a[0].Int(), a[1].Int(), a[2].Pointer())
}

func sysSchedGetscheduler(t *kernel.Task, a kernel.Args) (uintptr, error) {
	o, err := schedTask(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	policy, _ := o.SchedPolicy()
	return uintptr(policy), nil
}

func sysSchedRRInterval(t *kernel.Task, a kernel.Args) (uintptr, error) {
	o, err := schedTask(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	nsec := int64(2800000) // what an idle CFS runqueue reports is near this
	switch p, _ := o.SchedPolicy(); p &^ linux.SCHED_RESET_ON_FORK {
	case linux.SCHED_RR:
		nsec = 100e6
	case linux.SCHED_FIFO:
		nsec = 0
	}
	return 0, copyOutTimespec(t, a[1].Pointer(), nsec)
}

func sysSetaffinity(t *kernel.Task, a kernel.Args) (uintptr, error) {
	var s kernel.CPUSet
	n := min(uint64(a[1].Uint()), uint64(len(s)*8))
	b := make([]byte, len(s)*8)
	if _, err := t.CopyIn(a[2].Pointer(), b[:n]); err != nil {
		return 0, err
	}
	for i := range s {
		s[i] = hostarch.ByteOrder.Uint64(b[8*i:])
	}
	o, err := schedTask(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	if !sameOwner(t, o) {
		return 0, unix.EPERM
	}
	return 0, o.SetAffinity(s)
}

func sysGetaffinity(t *kernel.Task, a kernel.Args) (uintptr, error) {
	size := uint64(a[1].Uint())
	if size*8 < uint64(t.Kernel().NumCPUs()) || size&7 != 0 {
		return 0, unix.EINVAL
	}
	if a[0].Int() < 0 {
		return 0, unix.ESRCH
	}
	o, err := schedTask(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	s := o.Affinity()
	// Linux copies as many bytes as its own mask has (nr_cpu_ids, in words).
	words := min((t.Kernel().NumCPUs()+63)/64, int(size/8))
	n, err := primitive.CopyUint64SliceOut(t, a[2].Pointer(), s[:words])
	return uintptr(n), err
}

func sysGetcpu(t *kernel.Task, a kernel.Args) (uintptr, error) {
	var err error
	for i, v := range []uint32{t.CPU(), 0} {
		if p := a[i].Pointer(); p != 0 && t.CopyOutUint32(p, v) != nil {
			err = unix.EFAULT // the other is told all the same
		}
	}
	return 0, err
}

func sysSchedSetattr(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a[1] == 0 || a[0].Int() < 0 || a[2] != 0 {
		return 0, unix.EINVAL
	}
	size, err := t.CopyInUint32(a[1].Pointer())
	if err != nil {
		return 0, err
	}
	if size == 0 {
		size = linux.SCHED_ATTR_SIZE_VER0
	}
	if size < linux.SCHED_ATTR_SIZE_VER0 || size > hostarch.PageSize {
		t.CopyOutUint32(a[1].Pointer(), linux.SCHED_ATTR_SIZE_VER1)
		return 0, unix.E2BIG
	}
	b := make([]byte, max(size, linux.SCHED_ATTR_SIZE_VER1))
	if _, err := t.CopyIn(a[1].Pointer(), b[:size]); err != nil {
		return 0, err
	}
	for _, c := range b[linux.SCHED_ATTR_SIZE_VER1:] {
		if c != 0 {
			t.CopyOutUint32(a[1].Pointer(), linux.SCHED_ATTR_SIZE_VER1)
			return 0, unix.E2BIG
		}
	}
	var at linux.SchedAttr
	at.UnmarshalBytes(b)
	policy, flags, nice, prio := int32(at.SchedPolicy), at.SchedFlags, at.SchedNice, int32(at.SchedPriority)
	if policy < 0 || flags&^0x7f != 0 {
		return 0, unix.EINVAL
	}
	o, err := schedTask(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	oldPolicy, oldPrio := o.SchedPolicy()
	if flags&linux.SCHED_FLAG_KEEP_POLICY != 0 {
		policy = oldPolicy &^ linux.SCHED_RESET_ON_FORK
	}
	if flags&linux.SCHED_FLAG_KEEP_PARAMS != 0 {
		nice, prio = o.Nice(), oldPrio
	}
	if flags&linux.SCHED_FLAG_RESET_ON_FORK != 0 {
		policy |= linux.SCHED_RESET_ON_FORK
	}
	nice = max(-20, min(19, nice))
	plain := policy&^linux.SCHED_RESET_ON_FORK == linux.SCHED_NORMAL || policy&^linux.SCHED_RESET_ON_FORK == linux.SCHED_BATCH
	if plain && nice < o.Nice() && !mayNice(t, o, nice) {
		return 0, unix.EPERM
	}
	if err := setScheduler(t, o, policy, prio); err != nil {
		return 0, err
	}
	if plain {
		o.SetNice(nice)
	}
	return 0, nil
}

func sysSchedGetattr(t *kernel.Task, a kernel.Args) (uintptr, error) {
	size := a[2].Uint()
	if a[1] == 0 || a[0].Int() < 0 || size < linux.SCHED_ATTR_SIZE_VER0 || size > hostarch.PageSize || a[3] != 0 {
		return 0, unix.EINVAL
	}
	o, err := schedTask(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	policy, prio := o.SchedPolicy()
	n := min(size, linux.SCHED_ATTR_SIZE_VER1)
	at := linux.SchedAttr{Size: n, SchedPolicy: uint32(policy &^ linux.SCHED_RESET_ON_FORK), SchedPriority: uint32(prio), SchedUtilMax: 1024}
	if policy&linux.SCHED_RESET_ON_FORK != 0 {
		at.SchedFlags = linux.SCHED_FLAG_RESET_ON_FORK
	}
	if prio == 0 {
		at.SchedNice = o.Nice()
	}
	_, err = at.CopyOutN(t, a[1].Pointer(), int(n))
	return 0, err
}

// ioprioWhich turns IOPRIO_WHO_* into PRIO_*.
func ioprioWhich(w int32) int32 {
	if w < 1 || w > 3 {
		return -1
	}
	return w - 1
}

// checkIOPrio is ioprio_check_cap: EPERM, EINVAL.
func checkIOPrio(t *kernel.Task, prio int32) error {
	switch class := prio >> linux.IOPRIO_CLASS_SHIFT; class {
	case linux.IOPRIO_CLASS_RT:
		if !t.Credentials().HasCap(linux.CAP_SYS_ADMIN) && !t.Credentials().HasCap(linux.CAP_SYS_NICE) {
			return unix.EPERM
		}
	case linux.IOPRIO_CLASS_BE, linux.IOPRIO_CLASS_IDLE:
	case linux.IOPRIO_CLASS_NONE:
		if prio&linux.IOPRIO_PRIO_MASK != 0 {
			return unix.EINVAL
		}
	default:
		return unix.EINVAL
	}
	return nil
}

func sysIoprioSet(t *kernel.Task, a kernel.Args) (uintptr, error) {
	prio := a[2].Int()
	if err := checkIOPrio(t, prio); err != nil {
		return 0, err
	}
	ts, err := whichTasks(t, ioprioWhich(a[0].Int()), a[1].Int(), true)
	if err != nil {
		return 0, err
	}
	for _, o := range ts {
		if c, oc := t.Credentials(), o.Credentials(); oc.RUID != c.EUID && oc.RUID != c.RUID && !c.HasCap(linux.CAP_SYS_NICE) || !safeNice(t, o) {
			return 0, unix.EPERM
		}
		o.SetIOPrio(prio)
	}
	return 0, nil
}

func sysIoprioGet(t *kernel.Task, a kernel.Args) (uintptr, error) {
	ts, err := whichTasks(t, ioprioWhich(a[0].Int()), a[1].Int(), false)
	if err != nil {
		return 0, err
	}
	best := int32(-1)
	for _, o := range ts {
		p := o.IOPrio()
		if p == 0 {
			// No class of its own: best effort, by nice value.
			p = linux.IOPRIO_CLASS_BE<<linux.IOPRIO_CLASS_SHIFT | (o.Nice()+20)/5
			if a[0].Int() == linux.IOPRIO_WHO_PROCESS {
				p = 0
			}
		}
		if best < 0 || p < best {
			best = p
		}
	}
	return uintptr(best), nil
}
