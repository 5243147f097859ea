package syscalls

import (
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"

	"moat/sentry/fs/mqueue"
	"moat/sentry/kernel"
	"moat/sentry/net/socket"
	"moat/sentry/vfs"
)

func init() {
	register(
		full(240, "mq_open", "str flags:open mode:octal ptr", sysMqOpen),
		full(241, "mq_unlink", "str", sysMqUnlink),
		full(242, "mq_timedsend", "fd data size int timespec", sysMqSend),
		full(243, "mq_timedreceive", "fd ptr size ptr timespec", sysMqReceive),
		full(244, "mq_notify", "fd ptr", sysMqNotify),
		full(245, "mq_getsetattr", "fd ptr ptr", sysMqAttr),
	)
}

// mqName copies in a queue's name: EACCES for one that is no name of a file.
func mqName(t *kernel.Task, addr kernel.Arg) (string, error) {
	s, err := t.CopyInPath(addr.Pointer())
	switch {
	case err != nil:
		return "", err
	case s == "":
		return "", unix.ENOENT
	case s == "." || s == ".." || strings.Contains(s, "/"):
		return "", unix.EACCES
	case len(s) > 255:
		return "", unix.ENAMETOOLONG
	}
	return s, nil
}

func sysMqOpen(t *kernel.Task, a kernel.Args) (uintptr, error) {
	var attr *mqueue.Attr
	if a[3] != 0 {
		var q linux.MqAttr
		if _, err := q.CopyInN(t, a[3].Pointer(), 32); err != nil {
			return 0, err
		}
		attr = &mqueue.Attr{MaxMsg: q.MqMaxmsg, MsgSize: q.MqMsgsize}
	}
	name, err := mqName(t, a[0])
	if err != nil {
		return 0, err
	}
	flags := a[1].Uint() & (unix.O_ACCMODE | unix.O_CREAT | unix.O_EXCL | unix.O_NONBLOCK)
	f, err := mqueue.Of(t.IPC()).Open(t, name, flags, uint16(a[2]), attr)
	if err != nil {
		return 0, err
	}
	return t.InstallFD(f, unix.O_CLOEXEC)
}

func sysMqUnlink(t *kernel.Task, a kernel.Args) (uintptr, error) {
	name, err := mqName(t, a[0])
	if err != nil {
		return 0, err
	}
	return 0, mqueue.Of(t.IPC()).Unlink(t, name)
}

// withQueue calls fn with the queue that fd is open on: EBADF if it is none.
func withQueue(t *kernel.Task, fd kernel.Arg, fn func(f *vfs.FileDescription, q *mqueue.File) error) (uintptr, error) {
	return withFile(t, fd, func(f *vfs.FileDescription) error {
		q, ok := f.Impl().(*mqueue.File)
		if !ok {
			return unix.EBADF
		}
		return fn(f, q)
	})
}

// mqDeadline is a time-out on CLOCK_REALTIME as one of the host's monotonic clock; zero: none.
func mqDeadline(t *kernel.Task, addr kernel.Arg) (time.Time, error) {
	ns, err := copyInTimeout(t, addr.Pointer())
	if err != nil || ns == nil {
		return time.Time{}, err
	}
	return time.Now().Add(time.Duration(*ns - int64(t.Now()))), nil
}

func sysMqSend(t *kernel.Task, a kernel.Args) (uintptr, error) {
	deadline, err := mqDeadline(t, a[4])
	if err != nil {
		return 0, err
	}
	if a[3].Uint() >= 32768 {
		return 0, unix.EINVAL
	}
	return withQueue(t, a[0], func(f *vfs.FileDescription, q *mqueue.File) error {
		n := a[2].Uint64()
		switch {
		case !f.Writable():
			return unix.EBADF
		case n > uint64(q.Queue.Attributes.MsgSize):
			return unix.EMSGSIZE
		}
		b := make([]byte, n)
		if _, err := t.CopyIn(a[1].Pointer(), b); err != nil {
			return err
		}
		return q.Send(t, f, mqueue.Message{Priority: a[3].Uint(), Text: b}, deadline)
	})
}

func sysMqReceive(t *kernel.Task, a kernel.Args) (n uintptr, err error) {
	deadline, err := mqDeadline(t, a[4])
	if err != nil {
		return 0, err
	}
	_, err = withQueue(t, a[0], func(f *vfs.FileDescription, q *mqueue.File) error {
		switch {
		case !f.Readable():
			return unix.EBADF
		case a[2].Uint64() < uint64(q.Queue.Attributes.MsgSize):
			return unix.EMSGSIZE
		}
		m, err := q.Receive(t, f, deadline)
		if err != nil {
			return err
		}
		n = uintptr(len(m.Text))
		if a[3] != 0 {
			if err := t.CopyOutUint32(a[3].Pointer(), m.Priority); err != nil {
				return err
			}
		}
		_, err = t.CopyOut(a[1].Pointer(), m.Text)
		return err
	})
	return n, err
}

func sysMqNotify(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a[1] == 0 {
		return withQueue(t, a[0], func(_ *vfs.FileDescription, q *mqueue.File) error { q.Forget(t); return nil })
	}
	var ev linux.Sigevent
	if _, err := ev.CopyIn(t, a[1].Pointer()); err != nil {
		return 0, err
	}
	var e mqueue.Event
	switch ev.Notify {
	case linux.SIGEV_SIGNAL:
		if uint32(ev.Signo) > linux.SignalMaximum {
			return 0, unix.EINVAL
		}
		e.Signo, e.Value = ev.Signo, ev.Value
	case linux.SIGEV_THREAD:
		// The C library has a thread read the message from a netlink socket, and call the function.
		if _, err := t.CopyInBytes(hostarch.Addr(ev.Value), e.Cookie[:]); err != nil {
			return 0, err
		}
		if _, err := withSocket(t, kernel.Arg(ev.Signo), func(s socket.Socket) error {
			var ok bool
			if e.Socket, ok = s.(mqueue.Receiver); !ok {
				return unix.EINVAL
			}
			return nil
		}); err != nil {
			return 0, err
		}
	case linux.SIGEV_NONE:
	default:
		return 0, unix.EINVAL
	}
	return withQueue(t, a[0], func(_ *vfs.FileDescription, q *mqueue.File) error { return q.Notify(t, e) })
}

func sysMqAttr(t *kernel.Task, a kernel.Args) (uintptr, error) {
	var set linux.MqAttr
	if a[1] != 0 {
		if _, err := set.CopyIn(t, a[1].Pointer()); err != nil {
			return 0, err
		}
		if set.MqFlags&^unix.O_NONBLOCK != 0 {
			return 0, unix.EINVAL
		}
	}
	return withQueue(t, a[0], func(f *vfs.FileDescription, q *mqueue.File) error {
		flags, at := f.Flags(), q.Queue.Attributes
		old := linux.MqAttr{MqFlags: int64(flags & unix.O_NONBLOCK), MqMaxmsg: at.MaxMsg, MqMsgsize: at.MsgSize, MqCurmsgs: int64(q.Queue.Count())}
		if a[1] != 0 {
			if err := f.SetStatusFlags(t, flags&^unix.O_NONBLOCK|uint32(set.MqFlags)); err != nil {
				return err
			}
		}
		if a[2] == 0 {
			return nil
		}
		_, err := old.CopyOut(t, a[2].Pointer())
		return err
	})
}
