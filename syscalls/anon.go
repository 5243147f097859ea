package syscalls

import (
	"moat/sentry/fs/anon"
	"moat/sentry/kernel"
	"moat/sentry/vfs"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

// eventfd, timerfd, signalfd, inotify.

func init() {
	register(
		full(284, "eventfd", "uint", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return eventfd(t, a[0].Uint(), 0) }),
		full(290, "eventfd2", "uint hex", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return eventfd(t, a[0].Uint(), a[1].Uint()) }),
		full(283, "timerfd_create", "int hex", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			f, err := anon.NewTimer(t, a[0].Int(), a[1].Uint())
			if err != nil {
				return 0, err
			}
			return t.InstallFD(f, a[1].Uint())
		}),
		partial(286, "timerfd_settime", "fd hex ptr ptr", "TFD_TIMER_CANCEL_ON_SET never cancels: the clock is not set", sysTimerfdSettime),
		full(287, "timerfd_gettime", "fd ptr", sysTimerfdGettime),
		full(282, "signalfd", "fd sigset size", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return signalfd(t, a, 0) }),
		full(289, "signalfd4", "fd sigset size hex", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return signalfd(t, a, a[3].Uint()) }),
		full(253, "inotify_init", "", func(t *kernel.Task, _ kernel.Args) (uintptr, error) { return inotifyInit(t, 0) }),
		full(294, "inotify_init1", "hex", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return inotifyInit(t, a[0].Uint()) }),
		full(254, "inotify_add_watch", "fd path hex", sysInotifyAdd),
		full(255, "inotify_rm_watch", "fd int", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return withInotify(t, a[0], func(in *anon.Inotify) (uintptr, error) { return 0, in.Remove(a[1].Int()) })
		}),
	)
}

func eventfd(t *kernel.Task, n, flags uint32) (uintptr, error) {
	f, err := anon.NewEventFD(t, n, flags)
	if err != nil {
		return 0, err
	}
	return t.InstallFD(f, flags)
}

func timerOf(t *kernel.Task, fd kernel.Arg) (*anon.Timer, *vfs.FileDescription, error) {
	f, err := t.GetFile(fd.Int())
	if err != nil {
		return nil, nil, err
	}
	tm, ok := f.Impl().(*anon.Timer)
	if !ok {
		f.DecRef()
		return nil, nil, unix.EINVAL
	}
	return tm, f, nil
}

func sysTimerfdSettime(t *kernel.Task, a kernel.Args) (uintptr, error) {
	const abs, cancelOnSet = 1, 2
	var its linux.Itimerspec
	if _, err := its.CopyIn(t, a[2].Pointer()); err != nil {
		return 0, err
	}
	if !its.Valid() || a[1].Uint()&^uint32(abs|cancelOnSet) != 0 {
		return 0, unix.EINVAL
	}
	tm, f, err := timerOf(t, a[0])
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	value, interval := tm.Set(int64(seconds(its.Value.Unix())), int64(seconds(its.Interval.Unix())), a[1].Uint()&abs != 0)
	if a[3] == 0 {
		return 0, nil
	}
	return 0, copyOutItimerspec(t, a[3].Pointer(), value, interval)
}

func sysTimerfdGettime(t *kernel.Task, a kernel.Args) (uintptr, error) {
	tm, f, err := timerOf(t, a[0])
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	value, interval := tm.Get()
	return 0, copyOutItimerspec(t, a[1].Pointer(), value, interval)
}

func signalfd(t *kernel.Task, a kernel.Args, flags uint32) (uintptr, error) {
	set, err := t.CopyInSigSet(a[1].Pointer(), a[2].Uint64())
	if err != nil {
		return 0, err
	}
	if flags&^uint32(unix.SFD_CLOEXEC|unix.SFD_NONBLOCK) != 0 {
		return 0, unix.EINVAL
	}
	set &^= linux.MakeSignalSet(linux.SIGKILL, linux.SIGSTOP)
	if a[0].Int() == -1 {
		return t.InstallFD(anon.NewSignalFD(t, t, t.ThreadGroup().SignalWaiters(), set, flags), flags)
	}
	f, err := t.GetFile(a[0].Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	s, ok := f.Impl().(*anon.SignalFD)
	if !ok {
		return 0, unix.EINVAL
	}
	s.SetMask(set)
	return uintptr(a[0].Int()), nil
}

func inotifyInit(t *kernel.Task, flags uint32) (uintptr, error) {
	f, err := anon.NewInotify(t, flags)
	if err != nil {
		return 0, err
	}
	return t.InstallFD(f, flags)
}

func withInotify(t *kernel.Task, fd kernel.Arg, fn func(*anon.Inotify) (uintptr, error)) (uintptr, error) {
	f, err := t.GetFile(fd.Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	in, ok := f.Impl().(*anon.Inotify)
	if !ok {
		return 0, unix.EINVAL
	}
	return fn(in)
}

func sysInotifyAdd(t *kernel.Task, a kernel.Args) (uintptr, error) {
	mask := a[2].Uint()
	const known = linux.IN_ALL_EVENTS | unix.IN_UNMOUNT | unix.IN_Q_OVERFLOW | unix.IN_IGNORED | unix.IN_ONLYDIR | unix.IN_DONT_FOLLOW |
		unix.IN_EXCL_UNLINK | unix.IN_MASK_CREATE | unix.IN_MASK_ADD | unix.IN_ISDIR | unix.IN_ONESHOT
	if mask&known == 0 {
		return 0, unix.EINVAL
	}
	return withInotify(t, a[0], func(in *anon.Inotify) (wd uintptr, err error) {
		walk := uint32(vfs.Follow)
		if mask&unix.IN_DONT_FOLLOW != 0 {
			walk = 0
		}
		if mask&unix.IN_ONLYDIR != 0 {
			walk |= vfs.Directory
		}
		_, err = withPath(t, cwdArg, a[1], walk, func(p vfs.Path) error {
			if err := vfs.Permission(t, p.Inode(), vfs.MayRead); err != nil {
				return err
			}
			n, err := in.Add(p.Inode(), mask)
			wd = uintptr(n)
			return err
		})
		return wd, err
	})
}
