package inet

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"moat/sentry/kernel"
	"moat/sentry/net/socket"
	"moat/sentry/vfs"
)

// maxBacklog is net.core.somaxconn.
const maxBacklog = 4096

// Bind implements socket.Socket (inet_bind).
func (s *sock) Bind(t *kernel.Task, addr []byte) error {
	f, err := family(addr)
	switch {
	case err != nil, s.base.Family == unix.AF_INET && len(addr) < sizeIn, s.base.Family == unix.AF_INET6 && len(addr) < minIn6:
		return unix.EINVAL
	case f == unix.AF_UNSPEC && s.base.Family == unix.AF_INET && string(addr[4:8]) == "\x00\x00\x00\x00":
		addr = append([]byte{unix.AF_INET, 0}, addr[2:]...)
	case f != s.base.Family:
		return unix.EAFNOSUPPORT
	}
	a, err := parse(addr)
	if err != nil {
		return err
	}
	if a.Port != 0 && int32(a.Port) < s.st.unprivileged() && !s.capable(t, linux.CAP_NET_BIND_SERVICE) && s.base.Type != unix.SOCK_RAW {
		return unix.EACCES
	}
	if s.base.Type == unix.SOCK_RAW {
		a.Port = 0
	}
	if a.NIC == 0 && linkLocal(a.Addr) && s.endpoint().SocketOptions().GetBindToDevice() == 0 {
		return unix.EINVAL
	}
	if s.tcp() && s.tcpState() == tcp.StateError { // its port was given up, its error stays
		e, _ := s.base.TakeError().(unix.Errno)
		s.renew(t)
		s.base.SetError(e)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if has, err := s.endpoint().GetLocalAddress(); err == nil && has.Port != 0 && s.base.Type != unix.SOCK_RAW {
		return unix.EINVAL
	}
	if err := errno(s.endpoint().Bind(a)); err != nil {
		return err
	}
	s.bound = &a
	return nil
}

// Listen implements socket.Socket.
func (s *sock) Listen(_ *kernel.Task, backlog int) error {
	if !s.tcp() {
		return unix.EOPNOTSUPP
	}
	if backlog < 0 || backlog > maxBacklog {
		backlog = maxBacklog
	}
	// Linux's queue is full when it has more than backlog.
	if err := s.endpoint().Listen(backlog + 1); err != nil {
		if _, small := err.(*tcpip.ErrInvalidEndpointState); small && s.tcpState() == tcp.StateListen {
			return nil // more wait already than the new backlog allows
		}
		return errno(err)
	}
	s.rdShut.Store(false)
	return nil
}

// Accept implements socket.Socket.
func (s *sock) Accept(t *kernel.Task) (socket.Socket, []byte, error) {
	if !s.tcp() {
		return nil, nil, unix.EOPNOTSUPP
	}
	var peer tcpip.FullAddress
	ep, q, err := s.endpoint().Accept(&peer)
	if err != nil {
		return nil, nil, errno(err)
	}
	n := &sock{st: s.st, ns: s.ns, Waitable: vfs.Waitable{Waiters: q}}
	n.base.Init(s.base.Family, s.base.Type, s.base.Protocol)
	n.base.Inherit(&s.base)
	n.base.Hooks = n
	n.base.UID = s.base.UID
	n.ep.Store(&ep)
	s.mu.Lock()
	kept := s.kept
	if len(kept) > 0 {
		n.kept = make(map[int64][]byte, len(kept)) // +checklocksignore: nobody else has n
		for k, v := range kept {
			n.kept[k] = v // +checklocksignore: nobody else has n
		}
	}
	s.mu.Unlock()
	n.restore(t, ep)
	if err := s.st.add(n); err != nil {
		ep.Abort()
		return nil, nil, err
	}
	return n, format(s.base.Family, peer), nil
}

// restore sets the options that were set, on a new endpoint.
// +checklocksignore: kept is only added to, by setsockopt(2), and the caller has n alone or holds mu.
func (s *sock) restore(t *kernel.Task, ep tcpip.Endpoint) {
	b := &s.base
	linger, _ := b.Linger()
	for name, on := range map[int32]bool{
		linux.SO_REUSEADDR: b.ReuseAddr.Load(), linux.SO_REUSEPORT: b.ReusePort.Load(), linux.SO_KEEPALIVE: b.KeepAlive.Load(),
		linux.SO_LINGER: linger, linux.SO_MARK: b.Mark.Load() != 0, linux.SO_SNDBUF: b.SndBufSet.Load(), linux.SO_RCVBUF: b.RcvBufSet.Load(),
	} {
		if on {
			s.applyBase(ep, name)
		}
	}
	for k, v := range s.kept {
		_ = s.setOption(t, ep, int32(k>>32), int32(k), v) // it could be set before
	}
}

// Connect implements socket.Socket.
func (s *sock) Connect(t *kernel.Task, addr []byte) error {
	f, err := family(addr)
	if err != nil {
		return err
	}
	if f == unix.AF_UNSPEC {
		return s.disconnect(t)
	}
	if s.tcp() && s.tcpState() == tcp.StateError { // how the last one ended comes before what is wrong with this address
		e := s.base.TakeError()
		if s.renew(t); e == nil {
			e = unix.ECONNABORTED // it was told already
		}
		return e
	}
	if s.tcp() && s.tcpState() == tcp.StateListen {
		return unix.EISCONN
	}
	a, err := s.destination(addr)
	if err != nil {
		s.autobind(err)
		return err
	}
	if linkLocal(a.Addr) && a.NIC == 0 && s.endpoint().SocketOptions().GetBindToDevice() == 0 {
		return unix.EINVAL
	}
	s.bindLoopback(a.Addr)
	if !s.tcp() {
		if err := s.endpoint().Connect(a); err != nil {
			if _, none := err.(*tcpip.ErrNoPortAvailable); none {
				return unix.EAGAIN
			}
			return errno(err)
		}
		return nil
	}
	if st := s.tcpState(); st == tcp.StateInitial || st == tcp.StateBound {
		_ = s.base.TakeOwnError() // a new connection begins without one (tcp_connect_init)
	}
	switch err := s.endpoint().Connect(a); err.(type) {
	case *tcpip.ErrNoPortAvailable:
		return unix.EADDRNOTAVAIL
	case *tcpip.ErrInvalidEndpointState:
		return unix.EISCONN
	default:
		return errno(err)
	}
}

// bindLoopback gives what is about to be connected to another IPv4 address of lo's its first as the source, for which netstack would take that other.
func (s *sock) bindLoopback(to tcpip.Address) {
	if has, err := s.endpoint().GetLocalAddress(); header.IsV4LoopbackAddress(to) && to != loopback4 && err == nil && has.Port == 0 && has.Addr.Unspecified() {
		_ = s.endpoint().Bind(tcpip.FullAddress{Addr: loopback4}) // else it is netstack's choice
	}
}

// disconnect is connect(2) to AF_UNSPEC.
func (s *sock) disconnect(t *kernel.Task) error {
	if s.tcp() {
		switch s.tcpState() {
		case tcp.StateInitial, tcp.StateBound:
			return nil
		case tcp.StateEstablished, tcp.StateFinWait1, tcp.StateFinWait2, tcp.StateCloseWait, tcp.StateSynRecv:
			defer s.base.SetError(unix.ECONNRESET) // tcp_disconnect
		}
		s.renew(t)
		return nil
	}
	switch err := s.endpoint().Disconnect(); err.(type) {
	case *tcpip.ErrNotSupported:
		return nil // raw sockets: nothing was connected
	default:
		return errno(err)
	}
}

// renew gives a TCP socket a new endpoint with the options of the old one, bound to where bind(2) bound it.
func (s *sock) renew(t *kernel.Task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ep, err := s.newEndpoint(tcp.ProtocolNumber)
	if err != nil {
		return // netstack makes TCP endpoints without an error
	}
	s.restore(t, ep)
	old := s.endpoint()
	old.Abort()
	old.Close()
	if s.bound != nil {
		if err := ep.Bind(*s.bound); err != nil {
			s.bound = nil
		}
	}
	s.ep.Store(&ep)
	s.grown.Store(false)
	s.rdShut.Store(false)
	s.wrShut.Store(false)
	s.brokenPipe.Store(false)
}

// Shutdown implements socket.Socket (inet_shutdown).
func (s *sock) Shutdown(how int) error {
	ep := s.endpoint()
	var f tcpip.ShutdownFlags
	if how != unix.SHUT_WR && s.tcp() { // datagrams still come
		f |= tcpip.ShutdownRead
	}
	if how != unix.SHUT_RD {
		f |= tcpip.ShutdownWrite
	}
	if s.tcp() {
		switch st := s.tcpState(); {
		case st == tcp.StateTimeWait, st == tcp.StateClose, st == tcp.StateListen && s.rdShut.Load(): // on Linux that one is disconnected
			return unix.ENOTCONN
		case st == tcp.StateListen && how == unix.SHUT_WR:
			return nil
		}
	}
	s.push()
	err := ep.Shutdown(f)
	switch err.(type) {
	case *tcpip.ErrNotSupported:
		err = nil
	case nil, *tcpip.ErrNotConnected: // Linux marks a socket that is not connected too, and says so
	default:
		return errno(err)
	}
	s.shut(how)
	return errno(err)
}

func (s *sock) shut(how int) {
	if how != unix.SHUT_WR {
		s.rdShut.Store(true)
	}
	if how != unix.SHUT_RD {
		s.wrShut.Store(true)
	}
	ev := waiter.EventMask(allEvents)
	s.Waiters.Notify(ev)
}

// LocalAddr implements socket.Socket.
func (s *sock) LocalAddr(*kernel.Task) ([]byte, error) {
	a, err := s.endpoint().GetLocalAddress()
	if err != nil {
		return nil, errno(err)
	}
	if s.base.Type == unix.SOCK_RAW {
		a.Port = 0
		if s.base.Family == unix.AF_INET {
			a.Port = uint16(s.base.Protocol)
		}
	}
	return format(s.base.Family, a), nil
}

// PeerAddr implements socket.Socket.
func (s *sock) PeerAddr(*kernel.Task) ([]byte, error) {
	if s.tcp() {
		switch s.tcpState() {
		case tcp.StateSynSent, tcp.StateConnecting, tcp.StateTimeWait, tcp.StateClose, tcp.StateError:
			return nil, unix.ENOTCONN
		}
	}
	a, err := s.endpoint().GetRemoteAddress()
	if err != nil {
		return nil, errno(err)
	}
	return format(s.base.Family, a), nil
}
