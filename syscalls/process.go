package syscalls

import (
	"moat/sentry/kernel"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

func init() {
	register(
		full(39, "getpid", "", func(t *kernel.Task, _ kernel.Args) (uintptr, error) { return uintptr(t.PID()), nil }),
		full(186, "gettid", "", func(t *kernel.Task, _ kernel.Args) (uintptr, error) { return uintptr(t.TID()), nil }),
		full(110, "getppid", "", func(t *kernel.Task, _ kernel.Args) (uintptr, error) { return uintptr(t.PPID()), nil }),
		full(109, "setpgid", "pid pid", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return 0, t.Setpgid(a[0].Int(), a[1].Int()) }),
		full(111, "getpgrp", "", func(t *kernel.Task, _ kernel.Args) (uintptr, error) { return pidResult(t.PGIDOf(0)) }),
		full(121, "getpgid", "pid", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return pidResult(t.PGIDOf(a[0].Int())) }),
		full(124, "getsid", "pid", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return pidResult(t.SIDOf(a[0].Int())) }),
		full(112, "setsid", "", sysSetsid),
		full(60, "exit", "int", func(t *kernel.Task, a kernel.Args) (uintptr, error) { t.Exit(a[0].Int()); return 0, nil }),
		full(231, "exit_group", "int", func(t *kernel.Task, a kernel.Args) (uintptr, error) { t.ExitGroup(a[0].Int()); return 0, nil }),
		full(218, "set_tid_address", "ptr", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			t.SetClearTID(a[0].Pointer())
			return uintptr(t.TID()), nil
		}),
		partial(135, "personality", "hex", "the persona is recorded; only ADDR_NO_RANDOMIZE changes execve", sysPersonality),
		full(158, "arch_prctl", "archop ptr", sysArchPrctl),
		full(434, "pidfd_open", "pid hex", sysPidfdOpen),
		full(438, "pidfd_getfd", "fd int hex", sysPidfdGetfd),
		full(324, "membarrier", "int hex int", sysMembarrier),
		absent(334, "rseq", "only the host knows when it preempts a guest thread, and its rseq(2) kills one whose area is not mapped there and writable at any fault or preemption, which areas mapped at faults and copied on write are not; C libraries and allocators do without"),
		full(312, "kcmp", "pid pid int int int", sysKcmp),
	)
}

func pidResult(pid int32, err error) (uintptr, error) { return uintptr(pid), err }

// taskOf is the task that a number names, t for 0: ESRCH.
func taskOf(t *kernel.Task, tid int32) (*kernel.Task, error) {
	if tid == 0 {
		return t, nil
	}
	if o := t.PIDNamespace().Task(tid); o != nil {
		return o, nil
	}
	return nil, unix.ESRCH
}

func sysSetsid(t *kernel.Task, _ kernel.Args) (uintptr, error) {
	if err := t.ThreadGroup().Setsid(); err != nil {
		return 0, err
	}
	return uintptr(t.PID()), nil
}

func sysPersonality(t *kernel.Task, a kernel.Args) (uintptr, error) {
	old := t.Personality()
	if p := a[0].Uint(); p != 0xffffffff {
		t.SetPersonality(p)
	}
	return uintptr(old), nil
}

func sysArchPrctl(t *kernel.Task, a kernel.Args) (uintptr, error) {
	const getCPUID = 0x1011
	r := t.Regs()
	addr := a[1].Uint64()
	switch a[0].Int() {
	case linux.ARCH_SET_FS:
		if addr >= userTop {
			return 0, unix.EPERM
		}
		r.Fs_base = addr
	case linux.ARCH_SET_GS:
		if addr >= userTop {
			return 0, unix.EPERM
		}
		r.Gs_base = addr
	case linux.ARCH_GET_FS:
		return 0, t.CopyOutUint64(a[1].Pointer(), r.Fs_base)
	case linux.ARCH_GET_GS:
		return 0, t.CopyOutUint64(a[1].Pointer(), r.Gs_base)
	case getCPUID:
		return 1, nil
	case linux.ARCH_SET_CPUID:
		return 0, unix.ENODEV
	default:
		return 0, unix.EINVAL
	}
	return 0, nil
}

// userTop is TASK_SIZE_MAX.
const userTop = 0x7ffffffff000

func sysPidfdOpen(t *kernel.Task, a kernel.Args) (uintptr, error) {
	pid, flags := a[0].Int(), a[1].Uint()
	if flags&^(unix.O_NONBLOCK|unix.O_EXCL) != 0 || pid <= 0 {
		return 0, unix.EINVAL
	}
	p := t.PIDNamespace().PID(pid)
	if p == nil {
		return 0, unix.ESRCH
	}
	if flags&unix.O_EXCL == 0 && t.PIDNamespace().ThreadGroup(pid) == nil {
		if t.PIDNamespace().Task(pid) == nil {
			return 0, unix.ESRCH
		}
		return 0, unix.ENOENT
	}
	return t.InstallFD(kernel.NewPIDFD(t, p, flags), unix.O_CLOEXEC)
}

func sysPidfdGetfd(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a[2] != 0 {
		return 0, unix.EINVAL
	}
	p, err := pidOfFD(t, a[0].Int(), false)
	if err != nil {
		return 0, err
	}
	o, err := p.Task(t.Kernel())
	if err != nil {
		return 0, err
	}
	if !t.MayAccess(o, false) {
		return 0, unix.EPERM
	}
	table := o.GetFDTable()
	if table == nil {
		return 0, unix.ESRCH
	}
	defer table.DecRef(t)
	file := table.Get(a[1].Int())
	if file == nil {
		return 0, unix.EBADF
	}
	return t.InstallFD(file, unix.O_CLOEXEC)
}

// membarrier(2)'s commands.
const (
	mbGlobal = 1 << iota
	mbGlobalExpedited
	mbRegisterGlobalExpedited
	mbPrivateExpedited
	mbRegisterPrivateExpedited
	mbPrivateSyncCore
	mbRegisterPrivateSyncCore
	mbPrivateRseq
	mbRegisterPrivateRseq
	mbGetRegistrations
)

func sysMembarrier(t *kernel.Task, a kernel.Args) (uintptr, error) {
	cmd, flags := a[0].Int(), a[1].Uint()
	m := t.MemoryManager()
	if flags != 0 {
		return 0, unix.EINVAL
	}
	need := uint32(0)
	switch cmd {
	case 0:
		return mbGlobal | mbGlobalExpedited | mbRegisterGlobalExpedited | mbPrivateExpedited | mbRegisterPrivateExpedited |
			mbPrivateSyncCore | mbRegisterPrivateSyncCore | mbGetRegistrations, nil
	case mbGlobal, mbGlobalExpedited:
		t.Kernel().Barrier(nil)
		return 0, nil
	case mbRegisterGlobalExpedited, mbRegisterPrivateExpedited, mbRegisterPrivateSyncCore:
		m.Membarrier.Or(uint32(cmd))
		return 0, nil
	case mbPrivateExpedited:
		need = mbRegisterPrivateExpedited
	case mbPrivateSyncCore:
		need = mbRegisterPrivateSyncCore
	case mbGetRegistrations:
		return uintptr(m.Membarrier.Load()), nil
	default:
		return 0, unix.EINVAL
	}
	if m.Membarrier.Load()&need == 0 {
		return 0, unix.EPERM
	}
	t.Kernel().Barrier(m)
	return 0, nil
}

func sysKcmp(t *kernel.Task, a kernel.Args) (uintptr, error) {
	ns := t.PIDNamespace()
	x, y := ns.Task(a[0].Int()), ns.Task(a[1].Int())
	if x == nil || y == nil {
		return 0, unix.ESRCH
	}
	if !t.MayAccess(x, false) || !t.MayAccess(y, false) {
		return 0, unix.EPERM
	}
	r, err := kernel.Compare(x, y, a[2].Int(), a[3].Int(), a[4].Int())
	return uintptr(r), err
}
