package syscalls

import (
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/sentry/kernel"
	"moat/sentry/kernel/signal"
	"moat/sentry/linuxerr"
)

func init() {
	register(
		full(13, "rt_sigaction", "signal sigaction sigaction size", sysSigaction),
		full(14, "rt_sigprocmask", "sighow sigset sigset size", sysSigprocmask),
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
	le := hostarch.ByteOrder
	var b [32]byte
	if p := a[1].Pointer(); p != 0 {
		if _, err := t.CopyIn(p, b[:]); err != nil {
			return 0, err
		}
		act = &linux.SigAction{Handler: le.Uint64(b[:]), Flags: le.Uint64(b[8:]), Restorer: le.Uint64(b[16:]), Mask: linux.SignalSet(le.Uint64(b[24:]))}
	}
	old, err := t.SigAction(linux.Signal(a[0].Int()), act)
	if err != nil || a[2] == 0 {
		return 0, err
	}
	le.PutUint64(b[:], old.Handler)
	le.PutUint64(b[8:], old.Flags)
	le.PutUint64(b[16:], old.Restorer)
	le.PutUint64(b[24:], uint64(old.Mask))
	_, err = t.CopyOut(a[2].Pointer(), b[:])
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
	var b [8]byte
	hostarch.ByteOrder.PutUint64(b[:], uint64(t.PendingSignals()))
	_, err := t.CopyOut(a[0].Pointer(), b[:n])
	return 0, err
}

func sysSigtimedwait(t *kernel.Task, a kernel.Args) (uintptr, error) {
	set, err := t.CopyInSigSet(a[0].Pointer(), a[3].Uint64())
	if err != nil {
		return 0, err
	}
	timeout := time.Duration(-1)
	if p := a[2].Pointer(); p != 0 {
		var b [16]byte
		if _, err := t.CopyIn(p, b[:]); err != nil {
			return 0, err
		}
		sec, nsec := int64(hostarch.ByteOrder.Uint64(b[:])), int64(hostarch.ByteOrder.Uint64(b[8:]))
		if sec < 0 || nsec < 0 || nsec >= 1e9 {
			return 0, unix.EINVAL
		}
		if timeout = 1<<63 - 1; sec < 9e9 {
			timeout = time.Duration(sec*1e9 + nsec)
		}
	}
	info, err := t.WaitSignal(set, timeout)
	if err != nil {
		return 0, err
	}
	if p := a[1].Pointer(); p != 0 {
		if err := copyOutInfo(t, p, &info); err != nil {
			return 0, err
		}
	}
	return uintptr(info.Signo), nil
}

func copyOutInfo(t *kernel.Task, p hostarch.Addr, info *linux.SignalInfo) error {
	var b [128]byte
	info.FixSignalCodeForUser()
	signal.PutInfo(b[:], info)
	_, err := t.CopyOut(p, b[:])
	return err
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
	le := hostarch.ByteOrder
	var b [24]byte
	if p := a[0].Pointer(); p != 0 {
		if _, err := t.CopyIn(p, b[:]); err != nil {
			return 0, err
		}
		n := linux.SignalStack{Addr: le.Uint64(b[:]), Flags: le.Uint32(b[8:]), Size: le.Uint64(b[16:])}
		if err := t.SetAltStack(n, sp); err != nil {
			return 0, err
		}
	}
	if p := a[1].Pointer(); p != 0 {
		clear(b[:])
		le.PutUint64(b[:], old.Addr)
		le.PutUint32(b[8:], old.Flags)
		le.PutUint64(b[16:], old.Size)
		if _, err := t.CopyOut(p, b[:]); err != nil {
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

func copyInInfo(t *kernel.Task, p hostarch.Addr, sig linux.Signal) (*linux.SignalInfo, error) {
	var b [128]byte
	if _, err := t.CopyIn(p, b[:]); err != nil {
		return nil, err
	}
	info := signal.GetInfo(b[:])
	info.Signo = int32(sig)
	return &info, nil
}

func sysSigqueueinfo(t *kernel.Task, a kernel.Args) (uintptr, error) {
	pid, sig := a[0].Int(), linux.Signal(a[1].Int())
	info, err := copyInInfo(t, a[2].Pointer(), sig)
	if err != nil {
		return 0, err
	}
	return 0, t.QueueInfo(pid, sig, info)
}

func sysTgsigqueueinfo(t *kernel.Task, a kernel.Args) (uintptr, error) {
	tgid, tid, sig := a[0].Int(), a[1].Int(), linux.Signal(a[2].Int())
	info, err := copyInInfo(t, a[3].Pointer(), sig)
	if err != nil {
		return 0, err
	}
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
	f, p, err := pidOfFD(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	var info *linux.SignalInfo
	if ptr := a[2].Pointer(); ptr != 0 {
		var b [128]byte
		if _, err := t.CopyIn(ptr, b[:]); err != nil {
			return 0, err
		}
		i := signal.GetInfo(b[:])
		if i.Signo != int32(sig) {
			return 0, unix.EINVAL
		}
		info = &i
	}
	return 0, t.KillPID(p.PID(), sig, info, kernel.PIDFDScope(flags, p.Thread()))
}

// pidOfFD is the pidfd behind a descriptor: EBADF.
func pidOfFD(t *kernel.Task, fd int32) (interface{ DecRef() }, *kernel.PIDFD, error) {
	f, err := t.GetFile(fd)
	if err != nil {
		return nil, nil, err
	}
	p, ok := f.Impl().(*kernel.PIDFD)
	if !ok || p.PID() == nil {
		f.DecRef()
		return nil, nil, unix.EBADF
	}
	return f, p, nil
}
