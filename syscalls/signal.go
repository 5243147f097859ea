package syscalls

import (
	"time"

	"moat/sentry/kernel"
	"moat/sentry/linuxerr"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

func init() {
	register(
		full(13, "rt_sigaction", "signal sigaction >sigaction size", sysSigaction),
		full(14, "rt_sigprocmask", "sighow sigset >sigset size", sysSigprocmask),
		full(15, "rt_sigreturn", "", sysSigreturn),
		full(34, "pause", "", sysPause),
		full(62, "kill", "pid signal", sysKill),
		full(127, "rt_sigpending", "sigset size", sysSigpending),
		full(128, "rt_sigtimedwait", "sigset ptr timespec size", sysSigtimedwait),
		full(129, "rt_sigqueueinfo", "pid signal ptr", sysSigqueueinfo),
		full(130, "rt_sigsuspend", "sigset size", sysSigsuspend),
		full(131, "sigaltstack", "ptr ptr", sysSigaltstack),
		full(200, "tkill", "pid signal", sysTkill),
		full(234, "tgkill", "pid pid signal", sysTgkill),
		full(297, "rt_tgsigqueueinfo", "pid pid signal ptr", sysTgsigqueueinfo),
		full(424, "pidfd_send_signal", "fd signal ptr hex", sysPidfdSendSignal),
		full(219, "restart_syscall", "", func(t *kernel.Task, _ kernel.Args) (uintptr, error) { return t.RestartSyscall() }),
	)
}

func sysSigaction(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a[3].Uint64() != linux.SignalSetSize {
		return 0, unix.EINVAL
	}
	var act *linux.SigAction
	if p := a[1].Pointer(); p != 0 {
		act = new(linux.SigAction)
		if _, err := act.CopyIn(t, p); err != nil {
			return 0, err
		}
	}
	old, err := t.SigAction(linux.Signal(a[0].Int()), act)
	if err != nil || a[2] == 0 {
		return 0, err
	}
	_, err = old.CopyOut(t, a[2].Pointer())
	return 0, err
}

func sysSigprocmask(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a[3].Uint64() != linux.SignalSetSize {
		return 0, unix.EINVAL
	}
	old := t.SignalMask()
	if p := a[1].Pointer(); p != 0 {
		set, err := t.CopyInSigSet(p, linux.SignalSetSize)
		if err != nil {
			return 0, err
		}
		switch a[0].Int() {
		case linux.SIG_BLOCK:
			set |= old
		case linux.SIG_UNBLOCK:
			set = old &^ set
		case linux.SIG_SETMASK:
		default:
			return 0, unix.EINVAL
		}
		if set != old {
			t.SetSignalMask(set)
		}
	}
	if p := a[2].Pointer(); p != 0 {
		return 0, t.CopyOutUint64(p, uint64(old))
	}
	return 0, nil
}

func sysSigreturn(t *kernel.Task, _ kernel.Args) (uintptr, error) {
	t.SigReturn()
	return 0, nil
}

func sysPause(t *kernel.Task, _ kernel.Args) (uintptr, error) {
	if err := t.Block(nil); err != nil {
		return 0, linuxerr.ERESTARTNOHAND
	}
	return 0, nil
}

func sysSigpending(t *kernel.Task, a kernel.Args) (uintptr, error) {
	n := a[1].Uint64()
	if n > linux.SignalSetSize {
		return 0, unix.EINVAL
	}
	set := t.PendingSignals()
	_, err := set.CopyOutN(t, a[0].Pointer(), int(n))
	return 0, err
}

func sysSigtimedwait(t *kernel.Task, a kernel.Args) (uintptr, error) {
	set, err := t.CopyInSigSet(a[0].Pointer(), a[3].Uint64())
	if err != nil {
		return 0, err
	}
	timeout := time.Duration(-1)
	if ns, err := copyInTimeout(t, a[2].Pointer()); err != nil {
		return 0, err
	} else if ns != nil {
		timeout = time.Duration(*ns)
	}
	info, err := t.WaitSignal(set, timeout)
	if err != nil {
		return 0, err
	}
	if p := a[1].Pointer(); p != 0 {
		info.FixSignalCodeForUser()
		if _, err := info.CopyOut(t, p); err != nil {
			return 0, err
		}
	}
	return uintptr(info.Signo), nil
}

func sysSigsuspend(t *kernel.Task, a kernel.Args) (uintptr, error) {
	set, err := t.CopyInSigSet(a[0].Pointer(), a[1].Uint64())
	if err != nil {
		return 0, err
	}
	t.SetTempSignalMask(set)
	t.Block(nil)
	return 0, linuxerr.ERESTARTNOHAND
}

func sysSigaltstack(t *kernel.Task, a kernel.Args) (uintptr, error) {
	sp := t.Regs().Rsp
	old := t.AltStack(sp)
	if p := a[0].Pointer(); p != 0 {
		var n linux.SignalStack
		if _, err := n.CopyIn(t, p); err != nil {
			return 0, err
		}
		if err := t.SetAltStack(n, sp); err != nil {
			return 0, err
		}
	}
	if p := a[1].Pointer(); p != 0 {
		if _, err := old.CopyOut(t, p); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

func sysKill(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return 0, t.Kill(a[0].Int(), linux.Signal(a[1].Int()))
}

func sysTkill(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a[0].Int() <= 0 {
		return 0, unix.EINVAL
	}
	return 0, t.KillThread(0, a[0].Int(), linux.Signal(a[1].Int()), nil)
}

func sysTgkill(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a[0].Int() <= 0 || a[1].Int() <= 0 {
		return 0, unix.EINVAL
	}
	return 0, t.KillThread(a[0].Int(), a[1].Int(), linux.Signal(a[2].Int()), nil)
}

func sysSigqueueinfo(t *kernel.Task, a kernel.Args) (uintptr, error) {
	sig := linux.Signal(a[1].Int())
	info := new(linux.SignalInfo)
	if _, err := info.CopyIn(t, a[2].Pointer()); err != nil {
		return 0, err
	}
	info.Signo = int32(sig)
	return 0, t.QueueInfo(a[0].Int(), sig, info)
}

func sysTgsigqueueinfo(t *kernel.Task, a kernel.Args) (uintptr, error) {
	tgid, tid, sig := a[0].Int(), a[1].Int(), linux.Signal(a[2].Int())
	info := new(linux.SignalInfo)
	if _, err := info.CopyIn(t, a[3].Pointer()); err != nil {
		return 0, err
	}
	info.Signo = int32(sig)
	if tgid <= 0 || tid <= 0 {
		return 0, unix.EINVAL
	}
	return 0, t.KillThread(tgid, tid, sig, info)
}

func sysPidfdSendSignal(t *kernel.Task, a kernel.Args) (uintptr, error) {
	flags, sig := a[3].Uint(), linux.Signal(a[1].Int())
	if flags > 4 || flags&(flags-1) != 0 {
		return 0, unix.EINVAL
	}
	pid, thread, err := signalTarget(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	var info *linux.SignalInfo
	if ptr := a[2].Pointer(); ptr != 0 {
		info = new(linux.SignalInfo)
		if _, err := info.CopyIn(t, ptr); err != nil {
			return 0, err
		}
		if info.Signo != int32(sig) {
			return 0, unix.EINVAL
		}
	}
	return 0, t.KillPID(pid, sig, info, kernel.PIDFDScope(flags, thread))
}

// signalTarget is whom pidfd_send_signal(2) means: a pidfd, or an open /proc/PID.
func signalTarget(t *kernel.Task, fd int32) (pid *kernel.PID, thread bool, err error) {
	if p, err := pidOfFD(t, fd, true); err == nil {
		return p.PID(), p.Thread(), nil
	}
	f, err := t.GetFile(fd)
	if err != nil {
		return nil, false, err
	}
	defer f.DecRef()
	if d, ok := f.Dentry().Inode().(interface{ Process() *kernel.PID }); ok {
		return d.Process(), false, nil
	}
	return nil, false, unix.EBADF
}

// pidOfFD is the pidfd behind a descriptor: EBADF. Where self is set, PIDFD_SELF_THREAD and PIDFD_SELF_THREAD_GROUP are the caller's.
func pidOfFD(t *kernel.Task, fd int32, self bool) (*kernel.PIDFD, error) {
	if self && (fd == -10000 || fd == -10001) {
		return t.SelfPIDFD(fd == -10000), nil
	}
	f, err := t.GetFile(fd)
	if err != nil {
		return nil, err
	}
	defer f.DecRef()
	p, ok := f.Impl().(*kernel.PIDFD)
	if !ok || p.PID() == nil {
		return nil, unix.EBADF
	}
	return p, nil
}
