package inet

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/tcpip"

	"moat/sentry/net/socket"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

// maxDatagram is what fits in an IP packet, with its headers.
const maxDatagram = 65535

// Send implements socket.Socket.
func (s *sock) Send(_ vfs.Context, m *socket.Message) (int64, error) {
	if m.Flags&unix.MSG_OOB != 0 || s.tcp() && m.Flags&unix.MSG_FASTOPEN != 0 {
		return 0, unix.EOPNOTSUPP
	}
	if err := s.base.TakeOwnError(); err != nil {
		s.told(s.endpoint())
		return 0, err
	}
	if s.tcp() {
		return s.sendStream(m)
	}
	s.st.delivered(1)
	n, err := s.sendDatagram(m)
	s.autobind(err)
	return n, err
}

// autobind gives a UDP socket that failed to send or to connect its port all the same (inet_send_prepare). One that has a port keeps it.
func (s *sock) autobind(failed error) {
	if failed != nil && s.udp() {
		_ = s.endpoint().Bind(tcpip.FullAddress{})
	}
}

func (s *sock) sendStream(m *socket.Message) (int64, error) {
	ep := s.endpoint()
	s.grow(ep)
	more := m.Flags&unix.MSG_MORE != 0
	switch {
	case !more && !s.corked.Load() && s.far.Load() && s.st.looks() && (s.late.Load() || !ep.SocketOptions().GetCorkOption()):
		if !s.late.Swap(true) {
			ep.SocketOptions().SetCorkOption(true)
		}
		defer s.st.hold(s)
	case more != s.corked.Load():
		s.push()
		s.corked.Store(more)
		if more {
			ep.SocketOptions().SetCorkOption(true)
		} else {
			// The data of this call goes with what was held back.
			defer ep.SocketOptions().SetCorkOption(s.isKept(linux.SOL_TCP, linux.TCP_CORK))
		}
	}
	c := newCursor(m.Data)
	n, err := ep.Write(&c, tcpip.WriteOptions{})
	if err != nil {
		s.told(ep)
		return 0, errno(err)
	}
	return n, nil
}

func (s *sock) sendDatagram(m *socket.Message) (int64, error) {
	var o tcpip.WriteOptions
	if m.Data.NumBytes() > maxDatagram {
		return 0, unix.EMSGSIZE
	}
	if m.Addr != nil {
		if s.udp() || s.base.Type == unix.SOCK_RAW || s.base.Family == unix.AF_INET6 || len(m.Addr) >= sizeIn {
			to, err := s.destination(m.Addr)
			if err != nil {
				return 0, err
			}
			o.To = &to
		} else {
			return 0, unix.EINVAL
		}
	}
	if _, alone := s.endpoint().GetRemoteAddress(); alone != nil && o.To == nil && s.udp() && !s.hasPending() {
		return 0, unix.EDESTADDRREQ
	}
	segment, err := s.control(m, &o)
	if err != nil {
		return 0, err
	}
	if s.wrShut.Load() {
		return 0, unix.EPIPE
	}
	cork := m.Flags&unix.MSG_MORE != 0 || s.udp() && s.isKept(linux.SOL_UDP, unix.UDP_CORK)
	if s.udp() && (cork || s.hasPending()) {
		return s.sendPart(m, o, cork)
	}
	if segment > 0 && m.Data.NumBytes() > int64(segment) {
		return s.sendSegments(m, o, int64(segment))
	}
	c := newCursor(m.Data)
	n, e := s.endpoint().Write(&c, o)
	if e != nil {
		if _, none := e.(*tcpip.ErrNoPortAvailable); none {
			return 0, unix.EAGAIN
		}
		return 0, errno(e)
	}
	return n, nil
}

func (s *sock) hasPending() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pending != nil
}

// sendPart adds to a datagram that is sent when a call without MSG_MORE comes.
func (s *sock) sendPart(m *socket.Message, o tcpip.WriteOptions, more bool) (int64, error) {
	n := int(m.Data.NumBytes())
	b := make([]byte, n)
	if _, err := m.Data.CopyIn(b); err != nil {
		return 0, err
	}
	s.mu.Lock()
	if len(s.pending)+n > maxDatagram-28 {
		s.pending, s.pendingTo = nil, nil
		s.mu.Unlock()
		return 0, unix.EMSGSIZE
	}
	if s.pending == nil {
		s.pending, s.pendingTo = make([]byte, 0, n), o.To
	}
	s.pending = append(s.pending, b...)
	s.mu.Unlock()
	if more {
		return int64(n), nil
	}
	return int64(n), s.flushPending(o)
}

// flushPending sends the datagram that was put together.
func (s *sock) flushPending(o tcpip.WriteOptions) error {
	s.mu.Lock()
	data, to := s.pending, s.pendingTo
	s.pending, s.pendingTo = nil, nil
	s.mu.Unlock()
	if data == nil {
		return nil
	}
	o.To = to
	c := newCursor(usermem.Bytes(data))
	_, err := s.endpoint().Write(&c, o)
	return errno(err)
}

// sendSegments is UDP_SEGMENT: one call, many datagrams.
func (s *sock) sendSegments(m *socket.Message, o tcpip.WriteOptions, size int64) (int64, error) {
	var done int64
	total := m.Data.NumBytes()
	if (total+size-1)/size > 64 {
		return 0, unix.EINVAL
	}
	for done < total {
		s.st.delivered(1)
		c := newCursor(m.Data.DropFirst(done).TakeFirst(size))
		n, err := s.endpoint().Write(&c, o)
		if err != nil {
			if done > 0 {
				return done, nil
			}
			return 0, errno(err)
		}
		done += n
	}
	return done, nil
}

// control takes the control messages of a send into o (ip_cmsg_send, ip6_datagram_send_ctl); segment is UDP_SEGMENT.
func (s *sock) control(m *socket.Message, o *tcpip.WriteOptions) (segment int, err error) {
	if s.udp() {
		if v := s.keptInt(linux.SOL_UDP, unix.UDP_SEGMENT); v > 0 {
			segment = v
		}
	}
	cm := &o.ControlMessages
	le := binary.LittleEndian
	for i := range m.Other {
		c := &m.Other[i]
		num := func() (int32, error) {
			if len(c.Data) < 4 {
				return 0, unix.EINVAL
			}
			return int32(le.Uint32(c.Data)), nil
		}
		var v int32
		switch {
		case c.Level == linux.SOL_UDP && c.Type == unix.UDP_SEGMENT && s.udp():
			if len(c.Data) != 2 {
				return 0, unix.EINVAL
			}
			segment = int(le.Uint16(c.Data))
		case c.Level == linux.SOL_IP && c.Type == linux.IP_TTL:
			if v, err = num(); err == nil && (v < 1 || v > 255) {
				err = unix.EINVAL
			}
			cm.HasTTL, cm.TTL = true, uint8(v)
		case c.Level == linux.SOL_IP && c.Type == linux.IP_TOS:
			if len(c.Data) != 1 && len(c.Data) != 4 {
				err = unix.EINVAL
			}
		case c.Level == linux.SOL_IP && c.Type == linux.IP_PKTINFO:
			if len(c.Data) != 12 {
				return 0, unix.EINVAL
			}
			// The source address is netstack's choice among those of the interface.
			if nic := tcpip.NICID(int32(le.Uint32(c.Data))); nic > 0 && o.To != nil {
				if !s.st.tcpip().HasNIC(nic) {
					return 0, unix.ENODEV
				}
				o.To.NIC = nic
			}
		case c.Level == linux.SOL_IPV6 && c.Type == linux.IPV6_HOPLIMIT:
			if v, err = num(); err == nil && (v < -1 || v > 255) {
				err = unix.EINVAL
			}
			cm.HasHopLimit, cm.HopLimit = v >= 0, uint8(v)
		case c.Level == linux.SOL_IPV6 && c.Type == linux.IPV6_TCLASS:
			if v, err = num(); err == nil && (v < -1 || v > 255) {
				err = unix.EINVAL
			}
		case c.Level == linux.SOL_IPV6 && c.Type == linux.IPV6_PKTINFO:
			if len(c.Data) < 20 {
				return 0, unix.EINVAL
			}
			p := &cm.IPv6PacketInfo
			cm.HasIPv6PacketInfo, p.NIC = true, tcpip.NICID(int32(le.Uint32(c.Data[16:])))
			if p.Addr = ip16(c.Data); p.Addr.Unspecified() {
				p.Addr = tcpip.Address{}
			}
			if p.NIC < 0 || p.NIC > 0 && !s.st.tcpip().HasNIC(p.NIC) {
				return 0, unix.ENODEV
			}
		case c.Level == linux.SOL_IP || c.Level == linux.SOL_IPV6 && s.base.Family == unix.AF_INET6:
			err = unix.EINVAL
		}
		if err != nil {
			return 0, err
		}
	}
	return segment, nil
}
