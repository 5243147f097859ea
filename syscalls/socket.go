package syscalls

import (
	"moat/sentry/kernel"
	"moat/sentry/net/socket"
	unixsock "moat/sentry/net/unix"
	"moat/sentry/vfs"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/waiter"
)

func init() {
	register(
		full(41, "socket", "family socktype int", sysSocket),
		full(42, "connect", "fd ptr int", sysConnect),
		full(43, "accept", "fd ptr ptr", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return accept(t, a, 0) }),
		full(288, "accept4", "fd ptr ptr hex", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return accept(t, a, a[3].Uint()) }),
		full(48, "shutdown", "fd int", sysShutdown),
		full(49, "bind", "fd ptr int", sysBind),
		full(50, "listen", "fd int", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return withSocket(t, a[0], func(s socket.Socket) error { return s.Listen(t, int(a[1].Int())) })
		}),
		full(51, "getsockname", "fd ptr ptr", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return sockName(t, a, socket.Socket.LocalAddr) }),
		full(52, "getpeername", "fd ptr ptr", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return sockName(t, a, socket.Socket.PeerAddr) }),
		full(53, "socketpair", "family socktype int >fds", sysSocketpair),
		full(54, "setsockopt", "fd int int ptr int", sysSetsockopt),
		full(55, "getsockopt", "fd int int ptr ptr", sysGetsockopt),
	)
}

// getSocket returns the socket of a descriptor with a reference to its file: EBADF, ENOTSOCK.
func getSocket(t *kernel.Task, fd int32) (*vfs.FileDescription, socket.Socket, error) {
	f, err := t.GetFile(fd)
	if err != nil {
		return nil, nil, err
	}
	s, ok := f.Impl().(socket.Socket)
	if !ok {
		f.DecRef()
		return nil, nil, unix.ENOTSOCK
	}
	return f, s, nil
}

// withSocket calls fn with the socket of fd: EBADF, ENOTSOCK.
func withSocket(t *kernel.Task, fd kernel.Arg, fn func(s socket.Socket) error) (uintptr, error) {
	f, s, err := getSocket(t, fd.Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	return 0, fn(s)
}

// maxSockaddr is sizeof(struct sockaddr_storage).
const maxSockaddr = 128

func copyInAddr(t *kernel.Task, addr hostarch.Addr, n int32) ([]byte, error) {
	if n < 0 || n > maxSockaddr {
		return nil, unix.EINVAL
	}
	b := make([]byte, n)
	if _, err := t.CopyIn(addr, b); err != nil {
		return nil, unix.EFAULT
	}
	return b, nil
}

// copyOutAddr writes an address and its length as net/socket.c move_addr_to_user: cut to what fits, the length whole.
func copyOutAddr(t *kernel.Task, b []byte, addr, lenAddr hostarch.Addr) error {
	n, err := t.CopyInUint32(lenAddr)
	if err != nil {
		return unix.EFAULT
	}
	if int32(n) < 0 {
		return unix.EINVAL
	}
	if err := t.CopyOutUint32(lenAddr, uint32(len(b))); err != nil {
		return err
	}
	_, err = t.CopyOut(addr, b[:min(len(b), int(n))])
	return err
}

// sockType splits SOCK_NONBLOCK and SOCK_CLOEXEC, which are O_NONBLOCK and O_CLOEXEC, off a type.
func sockType(typ int32) (int32, uint32, error) {
	flags := uint32(typ) &^ 0xf
	if flags&^(unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC) != 0 {
		return 0, 0, unix.EINVAL
	}
	return typ & 0xf, flags, nil
}

func sysSocket(t *kernel.Task, a kernel.Args) (uintptr, error) {
	typ, flags, err := sockType(a[1].Int())
	if err != nil {
		return 0, err
	}
	s, err := socket.New(t, a[0].Int(), typ, a[2].Int())
	if err != nil {
		return 0, err
	}
	return t.InstallFD(socket.Open(t, s, flags&unix.O_NONBLOCK), flags)
}

func sysSocketpair(t *kernel.Task, a kernel.Args) (uintptr, error) {
	typ, flags, err := sockType(a[1].Int())
	if err != nil {
		return 0, err
	}
	return 0, twoFDs(t, a[3], flags, func() (f, g *vfs.FileDescription, err error) {
		if a[0].Int() != unix.AF_UNIX {
			s, err := socket.New(t, a[0].Int(), typ, a[2].Int())
			if err == nil {
				socket.Open(t, s, 0).DecRef()
				err = unix.EOPNOTSUPP
			}
			return nil, nil, err
		}
		x, y, err := unixsock.Pair(t, typ, a[2].Int())
		if err != nil {
			return nil, nil, err
		}
		return socket.Open(t, x, flags&unix.O_NONBLOCK), socket.Open(t, y, flags&unix.O_NONBLOCK), nil
	})
}

func sysBind(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return withSocket(t, a[0], func(s socket.Socket) error {
		addr, err := copyInAddr(t, a[1].Pointer(), a[2].Int())
		if err != nil {
			return err
		}
		return s.Bind(t, addr)
	})
}

func sysShutdown(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return withSocket(t, a[0], func(s socket.Socket) error {
		if how := a[1].Int(); how < unix.SHUT_RD || how > unix.SHUT_RDWR {
			return unix.EINVAL
		}
		return s.Shutdown(int(a[1].Int()))
	})
}

func sysConnect(t *kernel.Task, a kernel.Args) (uintptr, error) {
	f, err := t.GetFile(a[0].Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	addr, err := copyInAddr(t, a[1].Pointer(), a[2].Int())
	if err != nil {
		return 0, err
	}
	s, ok := f.Impl().(socket.Socket)
	if !ok {
		return 0, unix.ENOTSOCK
	}
	try := func() error { return s.Connect(t, addr) }
	err = try()
	started := err == unix.EINPROGRESS || err == unix.EALREADY
	if f.Nonblocking() || err != unix.EWOULDBLOCK && !started {
		return 0, err
	}
	first := err
	d := s.Base().SendDeadline()
	err = f.Wait(t, waiter.WritableEvents|waiter.EventErr|waiter.EventHUp, d, func() error {
		err := try()
		switch err {
		case unix.EALREADY, unix.EINPROGRESS:
			return unix.EWOULDBLOCK
		}
		return err
	})
	if err == unix.EWOULDBLOCK && started {
		err = first // SO_SNDTIMEO passed; the connection is made all the same
	}
	return 0, interrupted(err, !d.IsZero())
}

// interrupted is what a signal makes of a call: one with a timeout is not restarted (sock_intr_errno).
func interrupted(err error, timeout bool) error {
	if timeout && isRestart(err) {
		return unix.EINTR
	}
	return err
}

func accept(t *kernel.Task, a kernel.Args, flags uint32) (uintptr, error) {
	f, err := t.GetFile(a[0].Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	if flags&^(unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC) != 0 {
		return 0, unix.EINVAL
	}
	return t.OpenFD(flags, func() (*vfs.FileDescription, error) {
		s, ok := f.Impl().(socket.Socket)
		if !ok {
			return nil, unix.ENOTSOCK
		}
		var n socket.Socket
		var peer []byte
		try := func() (err error) {
			n, peer, err = s.Accept(t)
			return err
		}
		if err = try(); err == unix.EWOULDBLOCK && !f.Nonblocking() {
			d := s.Base().RecvDeadline()
			err = interrupted(f.Wait(t, waiter.ReadableEvents|waiter.EventErr|waiter.EventHUp, d, try), !d.IsZero())
		}
		if err != nil {
			return nil, err
		}
		nf := socket.Open(t, n, flags&unix.SOCK_NONBLOCK)
		if a[1] != 0 {
			if err := copyOutAddr(t, peer, a[1].Pointer(), a[2].Pointer()); err != nil {
				nf.DecRef()
				return nil, err
			}
		}
		return nf, nil
	})
}

func sockName(t *kernel.Task, a kernel.Args, get func(socket.Socket, *kernel.Task) ([]byte, error)) (uintptr, error) {
	return withSocket(t, a[0], func(s socket.Socket) error {
		b, err := get(s, t)
		if err != nil {
			return err
		}
		return copyOutAddr(t, b, a[1].Pointer(), a[2].Pointer())
	})
}

// maxOption bounds the value of an option, maxTable that of iptables' table, and maxAsked what it is asked with.
const (
	maxOption = 4096
	maxTable  = 1<<20 + 96
	maxAsked  = 84
)

func sysSetsockopt(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return withSocket(t, a[0], func(s socket.Socket) error {
		n := a[4].Int()
		if n < 0 {
			return unix.EINVAL
		}
		level, name := a[1].Int(), a[2].Int()
		bound := int32(maxOption)
		if level == linux.SOL_IP && name == linux.IPT_SO_SET_REPLACE && t.Credentials().HasCapIn(linux.CAP_NET_ADMIN, t.Net().UserNamespace()) {
			bound = maxTable
		}
		val := make([]byte, min(n, bound))
		if _, err := t.CopyIn(a[3].Pointer(), val); err != nil {
			return err
		}
		err := error(unix.ENOPROTOOPT)
		if level == linux.SOL_SOCKET {
			err = s.Base().SetOption(t, name, val)
		}
		if err == unix.ENOPROTOOPT {
			err = s.SetOption(t, level, name, val)
		}
		return err
	})
}

func sysGetsockopt(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return withSocket(t, a[0], func(s socket.Socket) error {
		u, err := t.CopyInUint32(a[4].Pointer())
		if err != nil {
			return err
		}
		n := int32(u)
		if n < 0 {
			return unix.EINVAL
		}
		level, name := a[1].Int(), a[2].Int()
		var val []byte
		err = unix.ENOPROTOOPT
		if level == linux.SOL_SOCKET {
			val, err = s.Base().GetOption(name)
		}
		if asker, ok := s.(socket.Asker); ok && level == linux.SOL_IP && name >= linux.IPT_SO_GET_INFO && name <= linux.IPT_SO_GET_REVISION_TARGET {
			arg := make([]byte, min(n, maxAsked))
			if _, err := t.CopyIn(a[3].Pointer(), arg); err != nil {
				return err
			}
			val, err = asker.AskOption(t, level, name, arg)
		} else if err == unix.ENOPROTOOPT {
			val, err = s.GetOption(t, level, name, int(n))
		}
		if err != nil {
			return err
		}
		val = val[:min(len(val), int(n))]
		if level != linux.SOL_SOCKET { // a protocol tells the length before the value
			_ = t.CopyOutUint32(a[4].Pointer(), uint32(len(val))) // what fails here fails below
		}
		if _, err := t.CopyOut(a[3].Pointer(), val); err != nil {
			return err
		}
		return t.CopyOutUint32(a[4].Pointer(), uint32(len(val)))
	})
}
