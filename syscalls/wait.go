package syscalls

import (
	"moat/sentry/kernel"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
)

func init() {
	register(
		full(61, "wait4", "pid >wstatus waitflags ptr", sysWait4),
		full(247, "waitid", "int pid ptr waitflags ptr", sysWaitid),
	)
}

func sysWait4(t *kernel.Task, a kernel.Args) (uintptr, error) {
	options := a[2].Uint()
	if options&^(linux.WNOHANG|linux.WUNTRACED|linux.WCONTINUED|linux.WNOTHREAD|linux.WCLONE|linux.WALL) != 0 {
		return 0, unix.EINVAL
	}
	o := kernel.WaitOptions{Options: options | linux.WEXITED}
	pid := a[0].Int()
	if pid == -1<<31 {
		return 0, unix.ESRCH
	}
	if err := waitTarget(t, &o, pid); err != nil {
		return 0, err
	}
	r, err := t.Wait(&o)
	if r == nil || err != nil {
		return 0, err
	}
	if p := a[1].Pointer(); p != 0 {
		if err := t.CopyOutUint32(p, uint32(r.Status)); err != nil {
			return 0, err
		}
	}
	if p := a[3].Pointer(); p != 0 {
		if _, err := r.Rusage.CopyOut(t, p); err != nil {
			return 0, err
		}
	}
	return uintptr(r.PID), nil
}

// waitTarget sets whom wait4's pid names: one process, a group (negative; 0: the caller's), any (-1). A number that does not exist is ECHILD.
func waitTarget(t *kernel.Task, o *kernel.WaitOptions, pid int32) error {
	switch {
	case pid == -1:
	case pid == 0:
		o.Group = t.ThreadGroup().ProcessGroup().PID()
	case pid < 0:
		if o.Group = t.PIDNamespace().PID(-pid); o.Group == nil {
			return unix.ECHILD
		}
	default:
		if o.PID = t.PIDNamespace().PID(pid); o.PID == nil {
			return unix.ECHILD
		}
	}
	return nil
}

// sysWaitid writes the siginfo on errors too.
func sysWaitid(t *kernel.Task, a kernel.Args) (uintptr, error) {
	r, err := waitid(t, a)
	if p := a[2].Pointer(); p != 0 {
		if e := copyOutWaitInfo(t, p, r); e != nil {
			err = e
		}
	}
	return 0, err
}

func waitid(t *kernel.Task, a kernel.Args) (*kernel.WaitResult, error) {
	options := a[3].Uint()
	if options&^(linux.WNOHANG|linux.WNOWAIT|linux.WEXITED|linux.WSTOPPED|linux.WCONTINUED|linux.WNOTHREAD|linux.WCLONE|linux.WALL) != 0 ||
		options&(linux.WEXITED|linux.WSTOPPED|linux.WCONTINUED) == 0 {
		return nil, unix.EINVAL
	}
	o := kernel.WaitOptions{Options: options}
	id := a[1].Int()
	nonblock := false
	switch a[0].Int() {
	case linux.P_ALL:
	case linux.P_PID:
		if id <= 0 {
			return nil, unix.EINVAL
		}
		if err := waitTarget(t, &o, id); err != nil {
			return nil, err
		}
	case linux.P_PGID:
		if id < 0 {
			return nil, unix.EINVAL
		}
		if o.Group = t.ThreadGroup().ProcessGroup().PID(); id != 0 {
			if o.Group = t.PIDNamespace().PID(id); o.Group == nil {
				return nil, unix.ECHILD
			}
		}
	case linux.P_PIDFD:
		if id < 0 {
			return nil, unix.EINVAL
		}
		file, err := t.GetFile(id)
		if err != nil {
			return nil, err
		}
		defer file.DecRef()
		p, ok := file.Impl().(*kernel.PIDFD)
		if !ok || p.PID() == nil {
			return nil, unix.EBADF
		}
		o.PID = p.PID()
		if file.Nonblocking() && options&linux.WNOHANG == 0 {
			nonblock = true
			o.Options |= linux.WNOHANG
		}
	default:
		return nil, unix.EINVAL
	}
	r, err := t.Wait(&o)
	if err != nil {
		return nil, err
	}
	if r == nil && nonblock {
		return nil, unix.EAGAIN
	}
	if r != nil && a[4] != 0 {
		if _, err := r.Rusage.CopyOut(t, a[4].Pointer()); err != nil {
			return r, err
		}
	}
	return r, nil
}

// copyOutWaitInfo writes waitid's siginfo; with nothing to report its fields are zero.
func copyOutWaitInfo(t *kernel.Task, p hostarch.Addr, r *kernel.WaitResult) error {
	var info linux.SignalInfo
	if r != nil {
		info.Signo = int32(linux.SIGCHLD)
		info.SetPID(r.PID)
		info.SetUID(int32(t.UserNamespace().UIDOrOverflow(r.UID)))
		switch s := r.Status; {
		case s.Continued():
			info.Code = linux.CLD_CONTINUED
			info.SetStatus(int32(linux.SIGCONT))
		case s.Stopped():
			info.Code = linux.CLD_STOPPED
			if r.Trapped {
				info.Code = linux.CLD_TRAPPED
			}
			info.SetStatus(int32(s.StopSignal()))
		case s.Signaled():
			info.Code = linux.CLD_KILLED
			info.SetStatus(int32(s.TerminationSignal()))
		default:
			info.Code = linux.CLD_EXITED
			info.SetStatus(int32(s.ExitStatus()))
		}
	}
	// Only signo, errno, code, pid, uid and status are written.
	_, err := info.CopyOutN(t, p, 28)
	return err
}
