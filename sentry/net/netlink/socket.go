// Package netlink has the sockets of AF_NETLINK: NETLINK_ROUTE (rtnetlink(7)) on the interfaces, addresses, routes and neighbours of a network namespace's stack,
// NETLINK_SOCK_DIAG (sock_diag(7)) on its sockets, and NETLINK_KOBJECT_UEVENT and NETLINK_GENERIC, on which nothing is ever said and nothing is known.
//
// A request is answered before send returns: the answers wait in the socket's queue. Notifications go to the sockets of the namespace that
// have joined the group.
//
// Locks: sock.mu guards a socket's queue and groups, hub.mu the sockets of a namespace; hub.mu comes before sock.mu. Queues are notified without locks.
package netlink

import (
	"encoding/binary"
	"sync"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/waiter"

	"moat/sentry/kernel"
	"moat/sentry/net/inet"
	"moat/sentry/net/socket"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

const (
	// maxQueue bounds what waits in a socket, in bytes, besides the answer to one request; maxRequest is the largest datagram that is taken.
	maxQueue   = 256 << 10
	maxRequest = 64 << 10
	// chunk is about how large a datagram of a dump becomes.
	chunk = 8 << 10
	// sizeNL is sizeof(struct sockaddr_nl).
	sizeNL = 12
)

// base has the options of SOL_SOCKET, and socket.Socket\'s part that is theirs.
type base = socket.Base

// sock is a netlink socket. It implements socket.Socket.
type sock struct {
	vfs.Waitable
	base
	ns *kernel.NetNamespace
	st *inet.Stack

	mu sync.Mutex
	// port is nl_pid, 0 before the socket is bound. +checklocks:mu
	port uint32
	// groups are those that were joined; bit n-1 is group n. +checklocks:mu
	groups uint64
	// datagrams wait to be received, bytes in all. +checklocks:mu
	datagrams [][]byte
	bytes     int
	// lost: a notification did not fit (ENOBUFS). +checklocks:mu
	lost bool
	// options are NETLINK_*'s that were set; bit n is option n. +checklocks:mu
	options uint64
	// peer is connect(2)'s: 0 is the kernel. +checklocks:mu
	peer uint32
}

// hub are the sockets of a namespace.
type hub struct {
	mu sync.Mutex
	// +checklocks:mu
	ports map[portKey]*sock
}

type portKey struct {
	protocol int32
	port     uint32
}

// hubs finds a namespace's hub; namespaces are few, and an entry is small.
var hubs sync.Map // of uint64 (inode number) to *hub

func (s *sock) hub() *hub {
	if h, ok := hubs.Load(s.ns.Ino()); ok {
		return h.(*hub)
	}
	h, _ := hubs.LoadOrStore(s.ns.Ino(), &hub{ports: make(map[portKey]*sock)})
	return h.(*hub)
}

func init() {
	socket.Register(unix.AF_NETLINK, func(t *kernel.Task, typ, protocol int32) (socket.Socket, error) {
		if typ != unix.SOCK_RAW && typ != unix.SOCK_DGRAM {
			return nil, unix.ESOCKTNOSUPPORT
		}
		switch protocol {
		case unix.NETLINK_ROUTE, unix.NETLINK_SOCK_DIAG, unix.NETLINK_KOBJECT_UEVENT, unix.NETLINK_GENERIC:
		default:
			return nil, unix.EPROTONOSUPPORT
		}
		st := inet.Of(t.Net())
		if st == nil {
			return nil, unix.EAFNOSUPPORT
		}
		s := &sock{Waitable: vfs.Waitable{Waiters: &waiter.Queue{}}, ns: t.Net(), st: st}
		s.base.Init(unix.AF_NETLINK, typ, protocol)
		if st.OnLink.Load() == nil {
			of := &request{s: &sock{ns: s.ns, st: st}}
			f := func(n *inet.NIC, gone bool) {
				of.tell(groupLink, func(o *request) { o.link(n, gone) })
			}
			st.OnLink.Store(&f)
		}
		return s, nil
	})
}

// Release implements vfs.FileImpl.
func (s *sock) Release(vfs.Context, *vfs.FileDescription) {
	s.mu.Lock()
	port := s.port
	s.datagrams, s.bytes = nil, 0
	s.mu.Unlock()
	if port != 0 {
		h := s.hub()
		h.mu.Lock()
		delete(h.ports, portKey{s.base.Protocol, port})
		h.mu.Unlock()
	}
}

// bind gives the socket a port: the one asked for, or the process' number, or any.
func (s *sock) bind(t *kernel.Task, port uint32) error {
	h := s.hub()
	h.mu.Lock()
	defer h.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.port != 0 {
		if port != 0 && port != s.port {
			return unix.EINVAL
		}
		return nil
	}
	if port != 0 {
		if _, taken := h.ports[portKey{s.base.Protocol, port}]; taken {
			return unix.EADDRINUSE
		}
	} else {
		for port = uint32(t.ThreadGroup().ID().In(t.PIDNamespace())); ; {
			if _, taken := h.ports[portKey{s.base.Protocol, port}]; !taken && port != 0 {
				break
			}
			if int32(port) > 0 {
				port = ^uint32(4095) // netlink_autobind goes down from -4097
			}
			port--
		}
	}
	s.port = port
	h.ports[portKey{s.base.Protocol, port}] = s
	return nil
}

// Bind implements socket.Socket.
func (s *sock) Bind(t *kernel.Task, addr []byte) error {
	if len(addr) < sizeNL || binary.LittleEndian.Uint16(addr) != unix.AF_NETLINK {
		return unix.EINVAL
	}
	groups := binary.LittleEndian.Uint32(addr[8:])
	if groups != 0 && s.base.Protocol == unix.NETLINK_SOCK_DIAG && !t.Credentials().HasCapIn(linux.CAP_NET_ADMIN, s.ns.UserNamespace()) {
		return unix.EPERM
	}
	if err := s.bind(t, binary.LittleEndian.Uint32(addr[4:])); err != nil {
		return err
	}
	s.mu.Lock()
	s.groups = s.groups&^0xffffffff | uint64(groups)
	s.mu.Unlock()
	return nil
}

// Connect implements socket.Socket.
func (s *sock) Connect(t *kernel.Task, addr []byte) error {
	if len(addr) < 2 {
		return unix.EINVAL
	}
	peer := uint32(0)
	if f := binary.LittleEndian.Uint16(addr); f != unix.AF_UNSPEC {
		if f != unix.AF_NETLINK || len(addr) < sizeNL {
			return unix.EINVAL
		}
		peer = binary.LittleEndian.Uint32(addr[4:])
	}
	if err := s.bind(t, 0); err != nil {
		return err
	}
	s.mu.Lock()
	s.peer = peer
	s.mu.Unlock()
	return nil
}

// Listen implements socket.Socket.
func (s *sock) Listen(*kernel.Task, int) error { return unix.EOPNOTSUPP }

// Accept implements socket.Socket.
func (s *sock) Accept(*kernel.Task) (socket.Socket, []byte, error) { return nil, nil, unix.EOPNOTSUPP }

// Shutdown implements socket.Socket.
func (s *sock) Shutdown(int) error { return unix.EOPNOTSUPP }

func nlAddr(port, groups uint32) []byte {
	b := make([]byte, sizeNL)
	b[0] = unix.AF_NETLINK
	binary.LittleEndian.PutUint32(b[4:], port)
	binary.LittleEndian.PutUint32(b[8:], groups)
	return b
}

// LocalAddr implements socket.Socket.
func (s *sock) LocalAddr(*kernel.Task) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return nlAddr(s.port, uint32(s.groups)), nil
}

// PeerAddr implements socket.Socket.
func (s *sock) PeerAddr(*kernel.Task) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return nlAddr(s.peer, 0), nil
}

// Send implements socket.Socket: the requests in m are carried out and answered.
func (s *sock) Send(ctx vfs.Context, m *socket.Message) (int64, error) {
	t, ok := ctx.(*kernel.Task)
	if !ok {
		return 0, unix.EINVAL
	}
	if m.Flags&unix.MSG_OOB != 0 {
		return 0, unix.EOPNOTSUPP
	}
	n := m.Data.NumBytes()
	if n > maxRequest {
		return 0, unix.EMSGSIZE
	}
	s.mu.Lock()
	to := s.peer
	s.mu.Unlock()
	if len(m.Addr) > 0 {
		if len(m.Addr) < sizeNL || binary.LittleEndian.Uint16(m.Addr) != unix.AF_NETLINK {
			return 0, unix.EINVAL
		}
		to = binary.LittleEndian.Uint32(m.Addr[4:])
	}
	if to != 0 {
		return 0, unix.ECONNREFUSED // processes do not talk to each other here
	}
	if err := s.bind(t, 0); err != nil {
		return 0, err
	}
	b := make([]byte, n)
	if _, err := m.Data.CopyIn(b); err != nil {
		return 0, err
	}
	s.requests(b, t.Credentials().HasCapIn(linux.CAP_NET_ADMIN, s.ns.UserNamespace()))
	return n, nil
}

// answer queues datagrams of the kernel's.
func (s *sock) answer(ds ...[]byte) {
	s.mu.Lock()
	for _, d := range ds {
		s.datagrams = append(s.datagrams, d)
		s.bytes += len(d)
	}
	s.mu.Unlock()
	s.Waiters.Notify(waiter.ReadableEvents)
}

// Deliver implements mqueue.Receiver.
func (s *sock) Deliver(d []byte) {
	if !s.full() {
		s.answer(d)
	}
}

// full reports whether the socket must read before it may ask more.
func (s *sock) full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes > maxQueue
}

// notify sends a notification to the sockets of s's namespace that are in group.
func (s *sock) notify(group uint, d []byte) {
	h := s.hub()
	h.mu.Lock()
	var told []*sock
	for k, o := range h.ports {
		if k.protocol != unix.NETLINK_ROUTE {
			continue
		}
		o.mu.Lock()
		if o.groups&(1<<(group-1)) != 0 {
			if o.bytes > maxQueue {
				o.lost = true
			} else {
				o.datagrams = append(o.datagrams, d)
				o.bytes += len(d)
			}
			told = append(told, o)
		}
		o.mu.Unlock()
	}
	h.mu.Unlock()
	for _, o := range told {
		o.Waiters.Notify(waiter.ReadableEvents)
	}
}

// Recv implements socket.Socket.
func (s *sock) Recv(_ vfs.Context, m *socket.Message) (int64, error) {
	if m.Flags&unix.MSG_OOB != 0 {
		return 0, unix.EOPNOTSUPP
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost {
		s.lost = false
		return 0, unix.ENOBUFS
	}
	if len(s.datagrams) == 0 {
		return 0, unix.EWOULDBLOCK
	}
	d := s.datagrams[0]
	n := min(len(d), int(m.Data.NumBytes()))
	if _, err := m.Data.CopyOut(d[:n]); err != nil {
		return 0, err
	}
	if m.Flags&unix.MSG_PEEK == 0 {
		s.datagrams[0] = nil
		s.datagrams, s.bytes = s.datagrams[1:], s.bytes-len(d)
	}
	m.Addr = nlAddr(0, 0)
	if n < len(d) {
		m.OutFlags |= unix.MSG_TRUNC
		if m.Flags&unix.MSG_TRUNC != 0 {
			return int64(len(d)), nil
		}
	}
	return int64(n), nil
}

// Readiness implements vfs.FileImpl.
func (s *sock) Readiness(mask waiter.EventMask) waiter.EventMask {
	s.mu.Lock()
	defer s.mu.Unlock()
	ev := waiter.EventMask(waiter.WritableEvents)
	if len(s.datagrams) > 0 || s.lost {
		ev |= waiter.ReadableEvents
	}
	if s.lost {
		ev |= waiter.EventErr
	}
	return ev & mask
}

// Read implements vfs.FileImpl.
func (s *sock) Read(ctx vfs.Context, f *vfs.FileDescription, dst usermem.IOSequence, _ int64, _ vfs.IOFlags) (int64, error) {
	return socket.Read(ctx, s, f, dst)
}

// Write implements vfs.FileImpl.
func (s *sock) Write(ctx vfs.Context, _ *vfs.FileDescription, src usermem.IOSequence, off int64, _ vfs.IOFlags) (int64, int64, error) {
	return socket.Write(ctx, s, src, off, false)
}

// Ioctl implements vfs.FileImpl.
func (s *sock) Ioctl(ctx vfs.Context, _ *vfs.FileDescription, io usermem.IO, req uint32, arg uintptr) (uintptr, error) {
	return inet.Ioctl(ctx, s.ns, io, req, arg)
}

// GetOption implements socket.Socket.
func (s *sock) GetOption(_ *kernel.Task, level, name int32, _ int) ([]byte, error) {
	if level != linux.SOL_NETLINK || name < 0 || name > 63 {
		return nil, unix.ENOPROTOOPT
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return binary.LittleEndian.AppendUint32(nil, uint32(s.options>>name&1)), nil
}

// SetOption implements socket.Socket.
func (s *sock) SetOption(_ *kernel.Task, level, name int32, val []byte) error {
	if level != linux.SOL_NETLINK {
		return unix.ENOPROTOOPT
	}
	if len(val) < 4 {
		return unix.EINVAL
	}
	v := binary.LittleEndian.Uint32(val)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch name {
	case unix.NETLINK_ADD_MEMBERSHIP, unix.NETLINK_DROP_MEMBERSHIP:
		if v < 1 || v > 63 {
			return unix.EINVAL
		}
		if name == unix.NETLINK_ADD_MEMBERSHIP {
			s.groups |= 1 << (v - 1)
		} else {
			s.groups &^= 1 << (v - 1)
		}
	case unix.NETLINK_PKTINFO, unix.NETLINK_BROADCAST_ERROR, unix.NETLINK_NO_ENOBUFS, unix.NETLINK_CAP_ACK, unix.NETLINK_EXT_ACK, unix.NETLINK_GET_STRICT_CHK,
		unix.NETLINK_LISTEN_ALL_NSID:
		s.options &^= 1 << name
		if v != 0 {
			s.options |= 1 << name
		}
	default:
		return unix.ENOPROTOOPT
	}
	return nil
}

func (s *sock) option(name int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.options>>name&1 != 0
}

var _ socket.Socket = (*sock)(nil)
