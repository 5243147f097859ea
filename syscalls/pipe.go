package syscalls

import (
	"moat/sentry/fs/pipe"
	"moat/sentry/kernel"
	"moat/sentry/vfs"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/marshal/primitive"
)

func init() {
	register(
		full(22, "pipe", ">fds", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return makePipe(t, a[0], 0) }),
		full(293, "pipe2", ">fds oflags", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return makePipe(t, a[0], a[1].Uint()) }),
	)
}

func makePipe(t *kernel.Task, addr kernel.Arg, flags uint32) (uintptr, error) {
	const notification = unix.O_EXCL // O_NOTIFICATION_PIPE
	if flags&^uint32(unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_DIRECT|notification) != 0 {
		return 0, unix.EINVAL
	}
	if flags&notification != 0 {
		return 0, unix.ENOPKG // as without CONFIG_WATCH_QUEUE
	}
	r, w := pipe.New(t, flags)
	defer r.DecRef()
	defer w.DecRef()
	return 0, twoFDs(t, addr, r, w, flags&unix.O_CLOEXEC != 0)
}

// twoFDs gives two files descriptors and stores those at addr.
func twoFDs(t *kernel.Task, addr kernel.Arg, x, y *vfs.FileDescription, cloexec bool) error {
	fds, err := t.FDTable().NewFDs([]*vfs.FileDescription{x, y}, cloexec, nofile(t))
	if err != nil {
		return err
	}
	if _, err := primitive.CopyInt32SliceOut(t, addr.Pointer(), fds); err != nil {
		for _, fd := range fds {
			t.FDTable().Close(t, fd)
		}
		return err
	}
	return nil
}
