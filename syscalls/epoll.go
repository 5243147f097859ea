package syscalls

import (
	"time"

	"moat/sentry/fs/anon"
	"moat/sentry/kernel"
	"moat/sentry/linuxerr"
	"moat/sentry/vfs"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

func init() {
	register(
		full(213, "epoll_create", "int", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			if a[0].Int() <= 0 {
				return 0, unix.EINVAL
			}
			return t.InstallFD(anon.NewEpoll(t), 0)
		}),
		full(291, "epoll_create1", "oflags", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			if a[0].Uint()&^uint32(unix.EPOLL_CLOEXEC) != 0 {
				return 0, unix.EINVAL
			}
			return t.InstallFD(anon.NewEpoll(t), a[0].Uint())
		}),
		full(233, "epoll_ctl", "fd epollop fd ptr", sysEpollCtl),
		full(232, "epoll_wait", "fd ptr int int", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return epollMs(t, a) }),
		full(281, "epoll_pwait", "fd ptr int int sigset size", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return epollMask(t, a[4], a[5].Uint64(), func() (uintptr, error) { return epollMs(t, a) })
		}),
		full(441, "epoll_pwait2", "fd ptr int timespec sigset size", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			block, deadline, err := timeout(t, a[3], 1)
			if err != nil {
				return 0, err
			}
			return epollMask(t, a[4], a[5].Uint64(), func() (uintptr, error) { return epollWait(t, a, block, deadline) })
		}),
	)
}

func sysEpollCtl(t *kernel.Task, a kernel.Args) (uintptr, error) {
	var ev linux.EpollEvent
	op := a[1].Int()
	if op != unix.EPOLL_CTL_DEL {
		if _, err := ev.CopyIn(t, a[3].Pointer()); err != nil {
			return 0, err
		}
	}
	ep, err := t.GetFile(a[0].Int())
	if err != nil {
		return 0, err
	}
	defer ep.DecRef()
	f, err := t.GetFile(a[2].Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	e, ok := ep.Impl().(*anon.Epoll)
	if !ok {
		if !vfs.CanPoll(f) {
			return 0, unix.EPERM
		}
		return 0, unix.EINVAL
	}
	return 0, e.Control(op, ep, f, a[2].Int(), ev)
}

func epollMs(t *kernel.Task, a kernel.Args) (uintptr, error) {
	ms := a[3].Int()
	var deadline time.Time
	if ms > 0 {
		deadline = time.Now().Add(time.Duration(ms) * time.Millisecond)
	}
	return epollWait(t, a, ms != 0, deadline)
}

// epollMask is withMask for calls that are never restarted.
func epollMask(t *kernel.Task, addr kernel.Arg, size uint64, fn func() (uintptr, error)) (uintptr, error) {
	n, err := withMask(t, addr, size, fn)
	if linuxerr.IsRestart(err) {
		err = unix.EINTR
	}
	return n, err
}

// epollWait is epoll_wait(2), which a signal always ends with EINTR.
func epollWait(t *kernel.Task, a kernel.Args, block bool, deadline time.Time) (uintptr, error) {
	f, err := t.GetFile(a[0].Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	n := int(a[2].Int())
	if n <= 0 || n > 1<<31/12 {
		return 0, unix.EINVAL
	}
	if _, err := t.SingleIO(a[1].Pointer(), int64(n)*12); err != nil {
		return 0, err
	}
	e, ok := f.Impl().(*anon.Epoll)
	if !ok {
		return 0, unix.EINVAL
	}
	got, err := e.Wait(t, t, a[1].Pointer(), n, block, deadline)
	if err == linuxerr.ERESTARTSYS {
		err = unix.EINTR
	}
	return uintptr(got), err
}
