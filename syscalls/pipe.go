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
	return 0, twoFDs(t, addr, flags, func() (r, w *vfs.FileDescription, err error) {
		r, w = pipe.New(t, flags)
		return r, w, nil
	})
}

// twoFDs stores two descriptors at addr and gives them the files that open returns. The numbers are told also of files that then cannot be (net/socket.c
// __sys_socketpair).
func twoFDs(t *kernel.Task, addr kernel.Arg, flags uint32, open func() (x, y *vfs.FileDescription, err error)) error {
	fdt, fds := t.FDTable(), make([]int32, 2)
	if err := fdt.Reserve(fds, flags&unix.O_CLOEXEC != 0, nofile(t)); err != nil {
		return err
	}
	var x, y *vfs.FileDescription
	_, err := primitive.CopyInt32SliceOut(t, addr.Pointer(), fds)
	if err == nil {
		x, y, err = open()
	}
	fdt.Install(fds[0], x)
	fdt.Install(fds[1], y)
	return err
}
