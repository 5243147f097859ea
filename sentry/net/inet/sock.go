package inet

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"moat/sentry/kernel"
	"moat/sentry/net/socket"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

// base has the options of SOL_SOCKET, and socket.Socket\'s part that is theirs.
type base = socket.Base

// sock is a socket of AF_INET or AF_INET6. It implements socket.Socket.
type sock struct {
	vfs.Waitable
	base
	owner owner
	st    *Stack
	ns    *kernel.NetNamespace
	// ep is replaced when a TCP socket is disconnected, for which netstack's endpoints cannot be used again.
	ep atomic.Pointer[tcpip.Endpoint]
	// rdShut and wrShut are shutdown(2)'s.
	rdShut, wrShut atomic.Bool
	// brokenPipe: EPIPE was made pending.
	brokenPipe atomic.Bool
	// corked: the last send had MSG_MORE.
	corked atomic.Bool
	// grown: the send buffer is a connection's. far: to elsewhere.
	grown, far atomic.Bool
	// late: what was sent waits for Stack.push.
	late atomic.Bool
	// errors counts what waits in the error queue, at most.
	errors atomic.Int32
	// taken counts the datagrams that were read; throttled is the endpoint's receive buffer while it gets no more of them, else 0.
	taken, throttled atomic.Int64

	mu sync.Mutex
	// bound is what bind(2) was given, nil if it was not called. +checklocks:mu
	bound *tcpip.FullAddress
	// kept are options as they were set, by level<<32 | name: for a new endpoint, and those that netstack does not know. +checklocks:mu
	kept map[int64][]byte
	// pending is a datagram that is being put together (MSG_MORE, UDP_CORK), and where it goes. +checklocks:mu
	pending   []byte
	pendingTo *tcpip.FullAddress
	// watch counts errors; it is registered once. +checklocks:mu
	watch *waiter.Entry
}

const (
	// maxErrors bounds an error queue (IP_RECVERR).
	maxErrors = 128
	allEvents = waiter.AllEvents
	// maxSend is the largest send buffer of TCP that grows by itself (net.ipv4.tcp_wmem).
	maxSend = 4 << 20
)

func init() {
	for _, f := range []int32{unix.AF_INET, unix.AF_INET6} {
		socket.Register(int(f), func(t *kernel.Task, typ, protocol int32) (socket.Socket, error) { return create(t, f, typ, protocol) })
	}
}

// protocols are what SOCK_STREAM and SOCK_DGRAM may be of (inetsw_array).
var protocols = []struct {
	typ, protocol int32
	v6            bool
	trans         tcpip.TransportProtocolNumber
}{
	{unix.SOCK_STREAM, unix.IPPROTO_TCP, true, tcp.ProtocolNumber},
	{unix.SOCK_DGRAM, unix.IPPROTO_UDP, true, udp.ProtocolNumber},
	{unix.SOCK_DGRAM, unix.IPPROTO_ICMP, false, icmp.ProtocolNumber4},
	{unix.SOCK_DGRAM, unix.IPPROTO_ICMPV6, true, icmp.ProtocolNumber6},
}

// create is net/ipv4/af_inet.c inet_create.
func create(t *kernel.Task, family, typ, protocol int32) (socket.Socket, error) {
	if protocol < 0 || protocol >= 263 {
		return nil, unix.EINVAL
	}
	st := Of(t.Net())
	if st == nil {
		return nil, unix.EAFNOSUPPORT
	}
	s := &sock{st: st, ns: t.Net(), Waitable: vfs.Waitable{Waiters: &waiter.Queue{}}}
	if typ == unix.SOCK_RAW {
		if protocol == 0 {
			return nil, unix.EPROTONOSUPPORT
		}
		if !s.capable(t, linux.CAP_NET_RAW) {
			return nil, unix.EPERM
		}
		return s.init(t, family, typ, protocol, tcpip.TransportProtocolNumber(protocol))
	}
	known := false
	for _, p := range protocols {
		if p.typ != typ {
			continue
		}
		known = true
		if (protocol == 0 || protocol == p.protocol) && (family == unix.AF_INET6 || p.protocol != unix.IPPROTO_ICMPV6) && (family == unix.AF_INET || p.v6) {
			return s.init(t, family, typ, p.protocol, p.trans)
		}
	}
	if !known {
		return nil, unix.ESOCKTNOSUPPORT
	}
	return nil, unix.EPROTONOSUPPORT
}

func (s *sock) init(t *kernel.Task, family, typ, protocol int32, trans tcpip.TransportProtocolNumber) (socket.Socket, error) {
	if s.st.host != nil {
		return s.st.host.New(t, family, typ, protocol)
	}
	s.base.Init(family, typ, protocol)
	s.base.Hooks = s
	s.owner = owner{uint32(t.Credentials().FSUID), uint32(t.Credentials().FSGID)}
	s.base.UID = s.owner.uid
	ep, err := s.newEndpoint(trans)
	if err != nil {
		return nil, err
	}
	if err := s.st.add(s); err != nil {
		ep.Close()
		return nil, err
	}
	s.ep.Store(&ep)
	return s, nil
}

func netProto(family int32) tcpip.NetworkProtocolNumber {
	if family == unix.AF_INET {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

func (s *sock) newEndpoint(trans tcpip.TransportProtocolNumber) (tcpip.Endpoint, error) {
	ep, err := s.makeEndpoint(trans)
	if err == nil {
		ep.SetOwner(s.owner)
	}
	return ep, err
}

// owner is who made a socket (auth.KUID, auth.KGID), for the packet filter. It leads to no socket: a connection in TIME_WAIT keeps no namespace.
type owner struct{ uid, gid uint32 }

// KUID implements tcpip.PacketOwner.
func (o owner) KUID() uint32 { return o.uid }

// KGID implements tcpip.PacketOwner.
func (o owner) KGID() uint32 { return o.gid }

func (s *sock) makeEndpoint(trans tcpip.TransportProtocolNumber) (tcpip.Endpoint, error) {
	n := s.st.tcpip()
	if s.base.Type != unix.SOCK_RAW {
		ep, err := n.NewEndpoint(trans, netProto(s.base.Family), s.Waiters)
		return ep, errno(err)
	}
	// IPPROTO_RAW only sends, with headers of the caller's.
	ep, err := n.NewRawEndpoint(trans, netProto(s.base.Family), s.Waiters, trans != unix.IPPROTO_RAW)
	if err == nil && trans == unix.IPPROTO_RAW {
		ep.SocketOptions().SetHeaderIncluded(true)
	}
	return ep, errno(err)
}

func (s *sock) endpoint() tcpip.Endpoint { return *s.ep.Load() }

func (s *sock) tcp() bool { return s.base.Type == unix.SOCK_STREAM }

func (s *sock) udp() bool {
	return s.base.Protocol == unix.IPPROTO_UDP && s.base.Type == unix.SOCK_DGRAM
}

// tcpState is the state of a TCP socket.
func (s *sock) tcpState() tcp.EndpointState { return tcp.EndpointState(s.endpoint().State()) }

// capable is ns_capable of the socket's network namespace.
func (s *sock) capable(t *kernel.Task, c linux.Capability) bool {
	return t.Credentials().HasCapIn(c, s.ns.UserNamespace())
}

// Release implements vfs.FileImpl.
func (s *sock) Release(vfs.Context, *vfs.FileDescription) {
	s.mu.Lock()
	watch := s.watch
	s.watch = nil
	s.mu.Unlock()
	if watch != nil {
		s.Waiters.EventUnregister(watch)
	}
	ep := s.endpoint()
	s.push()
	ep.Close()
	if !s.tcp() || over(ep) || s.tcpState() > tcp.StateClosing {
		ep = nil
	}
	s.st.remove(s, ep)
}

// OptionChanged implements socket.Hooks: netstack is told of an option of SOL_SOCKET that has just been set.
func (s *sock) OptionChanged(name int32) { s.applyBase(s.endpoint(), name) }

func (s *sock) applyBase(ep tcpip.Endpoint, name int32) {
	o, b := ep.SocketOptions(), &s.base
	switch name {
	case linux.SO_REUSEADDR:
		o.SetReuseAddress(b.ReuseAddr.Load())
	case linux.SO_REUSEPORT:
		o.SetReusePort(b.ReusePort.Load())
	case linux.SO_KEEPALIVE:
		o.SetKeepAlive(b.KeepAlive.Load())
	case linux.SO_BROADCAST:
		o.SetBroadcast(b.Broadcast.Load())
	case linux.SO_LINGER:
		on, sec := b.Linger()
		o.SetLinger(tcpip.LingerOption{Enabled: on, Timeout: time.Duration(sec) * time.Second})
	case linux.SO_MARK:
		o.SetMark(uint32(b.Mark.Load()))
	case linux.SO_SNDBUF, linux.SO_SNDBUFFORCE:
		o.SetSendBufferSize(int64(b.SndBuf.Load()), true)
	case linux.SO_RCVBUF, linux.SO_RCVBUFFORCE:
		o.SetReceiveBufferSize(int64(b.RcvBuf.Load()), true)
	}
}

// BufferSize implements socket.Hooks: those of TCP grow by themselves.
func (s *sock) BufferSize(name int32) int32 {
	switch o := s.endpoint().SocketOptions(); {
	case !s.tcp():
		return 0
	case name == linux.SO_SNDBUF:
		s.grow(s.endpoint())
		return int32(o.GetSendBufferSize())
	default:
		return int32(o.GetReceiveBufferSize())
	}
}

// grow makes the send buffer of a new connection as large as its first flight needs (tcp_init_buffer_space), where SO_SNDBUF did not fix it: netstack
// does so only when data was acknowledged, and programs count on writing more than that at once.
func (s *sock) grow(ep tcpip.Endpoint) {
	if s.grown.Load() || s.tcpState() != tcp.StateEstablished && s.tcpState() != tcp.StateCloseWait {
		return
	}
	s.grown.Store(true)
	if peer, err := ep.GetRemoteAddress(); err == nil {
		s.far.Store(s.st.tcpip().CheckLocalAddress(0, protoOf(peer.Addr), peer.Addr) == 0)
	}
	if o, size := ep.SocketOptions(), min(int64(2*tcp.InitialCwnd*s.maxSegment(ep)), maxSend); !s.base.SndBufSet.Load() && o.GetSendBufferSize() < size {
		o.SetSendBufferSize(size, false)
	}
}

// PendingError implements socket.Hooks: the error that the endpoint keeps.
func (s *sock) PendingError() unix.Errno {
	ep := s.endpoint()
	if e, ok := errno(ep.LastError()).(unix.Errno); ok {
		s.told(ep)
		return e
	}
	return 0
}

// Readiness implements vfs.FileImpl (net/ipv4/tcp.c tcp_poll, net/core/datagram.c datagram_poll).
func (s *sock) Readiness(mask waiter.EventMask) waiter.EventMask {
	ep := s.endpoint()
	var ev waiter.EventMask
	if s.tcp() {
		ev = s.tcpReadiness(ep)
	} else {
		ev = ep.Readiness(allEvents) &^ (waiter.EventHUp | waiter.EventRdHUp)
		if s.rdShut.Load() {
			ev |= waiter.ReadableEvents | waiter.EventRdHUp
			if s.wrShut.Load() {
				ev |= waiter.EventHUp
			}
		}
	}
	if s.base.HasError() || s.errors.Load() > 0 && ep.SocketOptions().PeekErr() != nil {
		ev |= waiter.EventErr
	}
	return ev & mask
}

func (s *sock) tcpReadiness(ep tcpip.Endpoint) waiter.EventMask {
	const out = waiter.WritableEvents
	const ended = waiter.ReadableEvents | out | waiter.EventHUp | waiter.EventRdHUp
	switch st := tcp.EndpointState(ep.State()); st {
	case tcp.StateInitial, tcp.StateBound:
		ev := out | waiter.EventHUp
		if s.rdShut.Load() {
			ev |= waiter.ReadableEvents | waiter.EventRdHUp
		}
		return ev
	case tcp.StateConnecting, tcp.StateSynSent, tcp.StateSynRecv:
		return 0
	case tcp.StateListen:
		if s.rdShut.Load() {
			return out | waiter.EventHUp // Linux disconnects it
		}
		return ep.Readiness(waiter.ReadableEvents) & waiter.ReadableEvents
	case tcp.StateError:
		// The error is moved to where looking does not take it away.
		if e := s.PendingError(); e != 0 {
			s.base.SetError(e)
		}
		return ended
	case tcp.StateClose:
		if !s.wrShut.Load() && s.brokenPipe.CompareAndSwap(false, true) {
			// A reset met a connection whose other end had finished (tcp_reset).
			s.base.SetError(unix.EPIPE)
		}
		return ended
	default:
		ev := ep.Readiness(waiter.ReadableEvents|out) & (waiter.ReadableEvents | out)
		finished := s.rdShut.Load() || st == tcp.StateCloseWait || st == tcp.StateLastAck || st == tcp.StateClosing || st == tcp.StateTimeWait
		if low := s.base.RcvLowat.Load(); low > 1 && !finished && ev&waiter.ReadableEvents != 0 {
			if n, err := ep.GetSockOptInt(tcpip.ReceiveQueueSizeOption); err == nil && n < int(low) {
				ev &^= waiter.ReadableEvents
			}
		}
		if finished {
			ev |= waiter.ReadableEvents | waiter.EventRdHUp
			if s.wrShut.Load() || st == tcp.StateLastAck || st == tcp.StateClosing || st == tcp.StateTimeWait {
				ev |= waiter.EventHUp
			}
		}
		if s.wrShut.Load() {
			ev |= out
		}
		return ev
	}
}

// Read implements vfs.FileImpl.
func (s *sock) Read(ctx vfs.Context, f *vfs.FileDescription, dst usermem.IOSequence, _ int64, _ vfs.IOFlags) (int64, error) {
	return socket.Read(ctx, s, f, dst)
}

// Write implements vfs.FileImpl.
func (s *sock) Write(ctx vfs.Context, _ *vfs.FileDescription, src usermem.IOSequence, off int64, _ vfs.IOFlags) (int64, int64, error) {
	return socket.Write(ctx, s, src, off, s.tcp())
}

// Ioctl implements vfs.FileImpl.
func (s *sock) Ioctl(ctx vfs.Context, _ *vfs.FileDescription, io usermem.IO, req uint32, arg uintptr) (uintptr, error) {
	var opt tcpip.SockOptInt
	n := 0
	switch req {
	case linux.FIONREAD:
		opt = tcpip.ReceiveQueueSizeOption
	case linux.TIOCOUTQ:
		opt = tcpip.SendQueueSizeOption
	case unix.SIOCATMARK:
		opt = -1
	default:
		return Ioctl(ctx, s.ns, io, req, arg)
	}
	if opt >= 0 {
		v, err := s.endpoint().GetSockOptInt(opt)
		if _, unknown := err.(*tcpip.ErrUnknownProtocolOption); err != nil && !unknown {
			return 0, errno(err)
		}
		n = max(v, 0)
	} else if !s.tcp() {
		return 0, unix.ENOTTY
	}
	return 0, usermem.PutUint32(io, arg, uint32(n))
}

var _ socket.Socket = (*sock)(nil)
