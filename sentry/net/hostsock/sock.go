package hostsock

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/waiter"

	"moat/sentry/fs/hostfd"
	"moat/sentry/kernel"
	"moat/sentry/net/socket"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

// maxSockets bounds the host's sockets of one sandbox.
const maxSockets = 1 << 16

// Net makes sockets of the host.
type Net struct {
	poller *hostfd.Poller
	// firstPort is the first that everybody in the container may bind to.
	firstPort *atomic.Int32

	mu sync.Mutex
	// +checklocks:mu
	socks map[*sock]struct{}
}

// NewNet returns a Net whose sockets p waits for; it is called before the filter is in force.
func NewNet(p *hostfd.Poller, firstPort *atomic.Int32) *Net {
	return &Net{poller: p, firstPort: firstPort, socks: make(map[*sock]struct{})}
}

// base has the options of SOL_SOCKET, and socket.Socket\'s part that is theirs.
type base = socket.Base

// sock is a socket of the host. It implements socket.Socket.
type sock struct {
	vfs.Waitable
	base
	net    *Net
	ns     *kernel.NetNamespace
	fd     int
	number int32 // the poller's
	// rdShut is shutdown(2)'s: a call that does not wait is not told of it by the host, of datagrams.
	rdShut atomic.Bool
}

// New makes a socket of a kind that inet's own table has; SOCK_RAW is EPERM.
func (n *Net) New(t *kernel.Task, family, typ, protocol int32) (socket.Socket, error) {
	if typ == unix.SOCK_RAW {
		return nil, unix.EPERM
	}
	fd, err := unix.Socket(int(family), int(typ)|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(protocol))
	if err != nil {
		return nil, err
	}
	return n.open(t.Net(), fd, family, typ, protocol, uint32(t.Credentials().FSUID), nil)
}

// open enters the host's socket fd, which becomes the result's.
func (n *Net) open(ns *kernel.NetNamespace, fd int, family, typ, protocol int32, uid uint32, listener *socket.Base) (*sock, error) {
	s := &sock{Waitable: vfs.Waitable{Waiters: &waiter.Queue{}}, net: n, ns: ns, fd: fd}
	s.base.Init(family, typ, protocol)
	if listener != nil {
		s.base.Inherit(listener)
	}
	s.base.Hooks, s.base.UID = s, uid
	n.mu.Lock()
	full := len(n.socks) >= maxSockets
	if !full {
		n.socks[s] = struct{}{}
	}
	n.mu.Unlock()
	err := error(unix.ENOBUFS)
	if !full {
		s.number, err = n.poller.Add(fd, s.Waiters)
	}
	if err != nil {
		n.forget(s)
		unix.Close(fd)
		return nil, err
	}
	n.poller.Start()
	return s, nil
}

func (n *Net) forget(s *sock) {
	n.mu.Lock()
	delete(n.socks, s)
	n.mu.Unlock()
}

// Info is a socket for tables: its addresses as the host has them, empty if there is none, and TCP_* or 0.
type Info struct {
	Base          *socket.Base
	Local, Remote []byte
	State         uint8
}

// Sockets are the open sockets.
func (n *Net) Sockets() (l []Info) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for s := range n.socks {
		i := Info{Base: &s.base}
		_, i.Local, _ = named(unix.SYS_GETSOCKNAME, s.fd, 0)
		if _, a, err := named(unix.SYS_GETPEERNAME, s.fd, 0); err == nil {
			i.Remote = a
		}
		if b, err := getsockopt(s.fd, unix.SOL_TCP, unix.TCP_INFO, 1); err == nil && len(b) > 0 && s.stream() {
			i.State = b[0]
		}
		l = append(l, i)
	}
	return l
}

func (s *sock) stream() bool { return s.base.Type == unix.SOCK_STREAM }

// Release implements vfs.FileImpl.
func (s *sock) Release(vfs.Context, *vfs.FileDescription) {
	s.net.forget(s)
	s.net.poller.Remove(s.fd, s.number)
	unix.Close(s.fd)
}

// Bind implements socket.Socket.
func (s *sock) Bind(t *kernel.Task, addr []byte) error {
	if len(addr) >= 4 {
		port := int32(addr[2])<<8 | int32(addr[3])
		if port != 0 && port < s.net.firstPort.Load() && !t.Credentials().HasCapIn(linux.CAP_NET_BIND_SERVICE, s.ns.UserNamespace()) {
			return unix.EACCES
		}
	}
	return call(unix.SYS_BIND, s.fd, addr)
}

// Listen implements socket.Socket.
func (s *sock) Listen(_ *kernel.Task, backlog int) error { return unix.Listen(s.fd, backlog) }

// Accept implements socket.Socket.
func (s *sock) Accept(*kernel.Task) (socket.Socket, []byte, error) {
	fd, peer, err := named(unix.SYS_ACCEPT4, s.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	if err != nil {
		return nil, nil, err
	}
	n, err := s.net.open(s.ns, fd, s.base.Family, s.base.Type, s.base.Protocol, s.base.UID, &s.base)
	if err != nil {
		return nil, nil, err
	}
	return n, peer, nil
}

// Connect implements socket.Socket.
func (s *sock) Connect(_ *kernel.Task, addr []byte) error { return call(unix.SYS_CONNECT, s.fd, addr) }

// Shutdown implements socket.Socket.
func (s *sock) Shutdown(how int) error {
	err := unix.Shutdown(s.fd, how)
	if how != unix.SHUT_WR {
		s.rdShut.Store(true)
		s.Waiters.Notify(waiter.ReadableEvents)
	}
	return err
}

// LocalAddr implements socket.Socket.
func (s *sock) LocalAddr(*kernel.Task) ([]byte, error) {
	_, a, err := named(unix.SYS_GETSOCKNAME, s.fd, 0)
	return a, err
}

// PeerAddr implements socket.Socket.
func (s *sock) PeerAddr(*kernel.Task) ([]byte, error) {
	_, a, err := named(unix.SYS_GETPEERNAME, s.fd, 0)
	return a, err
}

// Readiness implements vfs.FileImpl.
func (s *sock) Readiness(mask waiter.EventMask) waiter.EventMask {
	ev := hostfd.Ready(s.fd, mask)
	if s.base.HasError() {
		ev |= waiter.EventErr & mask
	}
	return ev
}

// Ioctl implements vfs.FileImpl.
func (s *sock) Ioctl(ctx vfs.Context, _ *vfs.FileDescription, io usermem.IO, req uint32, arg uintptr) (uintptr, error) {
	if req != linux.FIONREAD && req != linux.TIOCOUTQ {
		return socket.NetDevice(ctx, s.ns, io, req, arg)
	}
	v, err := unix.IoctlGetInt(s.fd, uint(req))
	if err == nil {
		err = usermem.PutUint32(io, arg, uint32(v))
	}
	return 0, err
}
