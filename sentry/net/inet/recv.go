package inet

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"moat/sentry/net/socket"
	"moat/sentry/vfs"
)

// Recv implements socket.Socket.
func (s *sock) Recv(_ vfs.Context, m *socket.Message) (int64, error) {
	if m.Flags&unix.MSG_ERRQUEUE != 0 {
		return s.recvError(m)
	}
	if m.Flags&unix.MSG_OOB != 0 && !s.udp() {
		if s.tcp() {
			return 0, unix.EINVAL // there is no urgent data
		}
		return 0, unix.EOPNOTSUPP
	}
	if s.tcp() {
		return s.recvStream(m)
	}
	return s.recvDatagram(m)
}

// discard is an io.Writer that counts.
type discard struct{ left int }

func (d *discard) Write(b []byte) (int, error) {
	if len(b) > d.left {
		n := d.left
		d.left = 0
		return n, unix.ENOSPC
	}
	d.left -= len(b)
	return len(b), nil
}

func (s *sock) recvStream(m *socket.Message) (int64, error) {
	c := newCursor(m.Data)
	ep := s.endpoint()
	room := c.left
	peek := room == 0 || m.Flags&unix.MSG_PEEK != 0
	var res tcpip.ReadResult
	var err tcpip.Error
	if room == 0 || m.Flags&unix.MSG_TRUNC != 0 { // one for nothing waits like any other
		res, err = ep.Read(&discard{max(room, 1)}, tcpip.ReadOptions{Peek: peek})
	} else {
		res, err = ep.Read(&c, tcpip.ReadOptions{Peek: peek})
	}
	switch err.(type) {
	case nil:
		if !peek {
			ep.ModerateRecvBuf(res.Count)
		}
		if s.isKept(linux.SOL_TCP, linux.TCP_INQ) {
			n, _ := ep.GetSockOptInt(tcpip.ReceiveQueueSizeOption) // 0 if the socket is gone
			m.Other = append(m.Other, socket.Control{Level: linux.SOL_TCP, Type: linux.TCP_INQ, Data: le32(uint32(n))})
		}
		return int64(min(res.Count, room)), nil
	case *tcpip.ErrClosedForReceive:
		if tcp.EndpointState(ep.State()) != tcp.StateError {
			return 0, nil
		}
		return 0, s.base.TakeError()
	case *tcpip.ErrWouldBlock, *tcpip.ErrNotConnected:
		if s.rdShut.Load() {
			return 0, nil
		}
	}
	if e := s.base.TakeOwnError(); e != nil {
		return 0, e
	}
	s.told(ep)
	return 0, errno(err)
}

// told drops netstack's second copy of the error that a connection ended with, which the caller is about to tell.
func (s *sock) told(ep tcpip.Endpoint) {
	if s.tcp() && tcp.EndpointState(ep.State()) == tcp.StateError {
		ep.LastError()
	}
}

func (s *sock) recvDatagram(m *socket.Message) (int64, error) {
	if err := s.base.TakeOwnError(); err != nil {
		return 0, err
	}
	c := newCursor(m.Data)
	ep := s.endpoint()
	peek := m.Flags&unix.MSG_PEEK != 0
	res, err := ep.Read(&c, tcpip.ReadOptions{Peek: peek, NeedRemoteAddr: true})
	if _, bad := err.(*tcpip.ErrBadBuffer); !peek && (err == nil || bad) {
		s.taken.Add(1)
		s.unthrottle()
	}
	switch err.(type) {
	case nil:
	case *tcpip.ErrBadBuffer:
		if c.err != nil {
			return 0, c.err
		}
		res.Count = 0 // there was no room at all
	case *tcpip.ErrClosedForReceive, *tcpip.ErrWouldBlock:
		if s.rdShut.Load() && m.Flags&unix.MSG_DONTWAIT == 0 {
			return 0, nil // only a wait is ended by shutdown(2)
		}
		return 0, unix.EWOULDBLOCK
	default:
		return 0, errno(err)
	}
	if s.base.Type == unix.SOCK_RAW || !s.udp() {
		res.RemoteAddr.Port = 0
	}
	m.Addr = format(s.base.Family, res.RemoteAddr)
	s.controls(m, &res.ControlMessages)
	if res.Count < res.Total {
		m.OutFlags |= unix.MSG_TRUNC
		if m.Flags&unix.MSG_TRUNC != 0 {
			return int64(res.Total), nil
		}
	}
	return int64(res.Count), nil
}

// controls makes the control messages of a received datagram (sock_recv_timestamp, ip_cmsg_recv, ip6_datagram_recv_ctl).
func (s *sock) controls(m *socket.Message, cm *tcpip.ReceivableControlMessages) {
	put := func(level, typ int32, data []byte) {
		m.Other = append(m.Other, socket.Control{Level: level, Type: typ, Data: data})
	}
	le := binary.LittleEndian
	switch ts := cm.Timestamp; {
	case s.base.TimestampNS.Load() && cm.HasTimestamp:
		put(linux.SOL_SOCKET, linux.SO_TIMESTAMPNS, le.AppendUint64(le.AppendUint64(nil, uint64(ts.Unix())), uint64(ts.Nanosecond())))
	case s.base.Timestamp.Load() && cm.HasTimestamp:
		put(linux.SOL_SOCKET, linux.SO_TIMESTAMP, le.AppendUint64(le.AppendUint64(nil, uint64(ts.Unix())), uint64(ts.Nanosecond()/1000)))
	}
	if cm.HasIPPacketInfo {
		p := &cm.PacketInfo
		if s.base.Family == unix.AF_INET6 && s.endpoint().SocketOptions().GetIPv6ReceivePacketInfo() {
			a := mapped(p.DestinationAddr).As16()
			put(linux.SOL_IPV6, linux.IPV6_PKTINFO, le.AppendUint32(a[:], uint32(p.NIC)))
		} else {
			b := le32(uint32(p.NIC))
			b = append(b, p.LocalAddr.AsSlice()...)
			put(linux.SOL_IP, linux.IP_PKTINFO, append(b, p.DestinationAddr.AsSlice()...))
		}
	}
	if cm.HasIPv6PacketInfo {
		a := cm.IPv6PacketInfo.Addr.As16()
		put(linux.SOL_IPV6, linux.IPV6_PKTINFO, le.AppendUint32(a[:], uint32(cm.IPv6PacketInfo.NIC)))
	}
	if cm.HasTTL {
		put(linux.SOL_IP, linux.IP_TTL, le32(uint32(cm.TTL)))
	}
	if cm.HasTOS {
		put(linux.SOL_IP, linux.IP_TOS, []byte{cm.TOS})
	}
	if cm.HasHopLimit {
		put(linux.SOL_IPV6, linux.IPV6_HOPLIMIT, le32(uint32(cm.HopLimit)))
	}
	if cm.HasTClass {
		put(linux.SOL_IPV6, linux.IPV6_TCLASS, le32(cm.TClass))
	}
	if cm.HasOriginalDstAddress {
		level := int32(linux.SOL_IP)
		if s.base.Family == unix.AF_INET6 {
			level = linux.SOL_IPV6
		}
		typ := int32(linux.IP_ORIGDSTADDR)
		if level == linux.SOL_IPV6 {
			typ = linux.IPV6_ORIGDSTADDR
		}
		put(level, typ, format(s.base.Family, cm.OriginalDstAddress))
	}
}

// recvError takes a message from the error queue (ip_recv_error).
func (s *sock) recvError(m *socket.Message) (int64, error) {
	e := s.endpoint().SocketOptions().DequeueErr()
	if e == nil {
		s.errors.Store(0)
		return 0, unix.EWOULDBLOCK
	}
	s.errors.Add(-1)
	b := le32(0)
	if n, ok := errno(e.Err).(unix.Errno); ok {
		b = le32(uint32(n))
	}
	origin := [...]byte{0, 1, 2, 3}[e.Cause.Origin()&3]
	b = append(b, origin, e.Cause.Type(), e.Cause.Code(), 0)
	b = append(b, le32(e.Cause.Info(), 0)...)
	level, typ, fam := int32(linux.SOL_IP), int32(linux.IP_RECVERR), int32(unix.AF_INET)
	if e.NetProto != ipv4.ProtocolNumber {
		level, typ, fam = linux.SOL_IPV6, linux.IPV6_RECVERR, unix.AF_INET6
	}
	if e.Cause.Origin().IsICMPErr() {
		b = append(b, format(fam, tcpip.FullAddress{Addr: e.Offender.Addr, NIC: e.Offender.NIC})...)
	} else {
		b = append(b, make([]byte, sizeIn)...)
	}
	m.Other = append(m.Other, socket.Control{Level: level, Type: typ, Data: b})
	m.Addr = format(s.base.Family, e.Dst)
	m.OutFlags |= unix.MSG_ERRQUEUE
	if e.Payload == nil {
		return 0, nil
	}
	data := e.Payload.AsSlice()
	n, err := m.Data.CopyOut(data)
	if n < len(data) {
		m.OutFlags |= unix.MSG_TRUNC
	}
	return int64(n), err
}

// watchErrors bounds the error queue: netstack's grows with every ICMP message. It is called when errors are asked for.
func (s *sock) watchErrors() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watch != nil {
		return
	}
	e := waiter.NewFunctionEntry(waiter.EventErr, func(waiter.EventMask) {
		if s.errors.Add(1) > maxErrors {
			s.endpoint().SocketOptions().DequeueErr()
			s.errors.Add(-1)
		}
	})
	s.watch = &e
	s.Waiters.EventRegister(&e)
}
