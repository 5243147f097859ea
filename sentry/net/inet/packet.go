package inet

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/waiter"

	"moat/sentry/kernel"
	"moat/sentry/net/socket"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

// packetSock is a socket of AF_PACKET (packet(7)): SOCK_RAW with the link's header, SOCK_DGRAM without. What it does not have a method for is as with other
// sockets.
type packetSock struct {
	*sock
	proto tcpip.NetworkProtocolNumber
}

func init() {
	socket.Register(unix.AF_PACKET, func(t *kernel.Task, typ, protocol int32) (socket.Socket, error) {
		st := Of(t.Net())
		if st == nil {
			return nil, unix.EAFNOSUPPORT
		}
		s := &sock{st: st, ns: t.Net(), Waitable: vfs.Waitable{Waiters: &waiter.Queue{}}}
		if !s.capable(t, linux.CAP_NET_RAW) || st.host != nil {
			return nil, unix.EPERM
		}
		if typ != unix.SOCK_RAW && typ != unix.SOCK_DGRAM {
			return nil, unix.ESOCKTNOSUPPORT
		}
		p := &packetSock{s, tcpip.NetworkProtocolNumber(htons(uint16(protocol)))}
		s.base.Init(unix.AF_PACKET, typ, protocol)
		s.base.Hooks, s.base.UID = s, uint32(t.Credentials().FSUID)
		ep, err := st.tcpip().NewPacketEndpoint(typ == unix.SOCK_DGRAM, p.proto, s.Waiters)
		if err != nil {
			return nil, errno(err)
		}
		s.ep.Store(&ep)
		if err := st.add(s); err != nil {
			ep.Close()
			return nil, err
		}
		return p, nil
	})
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// llAddr decodes struct sockaddr_ll.
func llAddr(b []byte) (nic tcpip.NICID, proto tcpip.NetworkProtocolNumber, mac tcpip.LinkAddress, err error) {
	if len(b) < sizeLL || binary.LittleEndian.Uint16(b) != unix.AF_PACKET {
		return 0, 0, "", unix.EINVAL
	}
	n := min(int(b[11]), 8)
	return tcpip.NICID(int32(binary.LittleEndian.Uint32(b[4:]))), tcpip.NetworkProtocolNumber(binary.BigEndian.Uint16(b[2:])), tcpip.LinkAddress(b[12 : 12+n]), nil
}

func (p *packetSock) formatLL(nic tcpip.NICID, proto tcpip.NetworkProtocolNumber, kind tcpip.PacketType, mac tcpip.LinkAddress) []byte {
	b := make([]byte, sizeLL)
	b[0] = unix.AF_PACKET
	binary.BigEndian.PutUint16(b[2:], uint16(proto))
	binary.LittleEndian.PutUint32(b[4:], uint32(nic))
	b[8] = unix.ARPHRD_ETHER & 0xff
	if nic == loNIC {
		binary.LittleEndian.PutUint16(b[8:], unix.ARPHRD_LOOPBACK)
	}
	switch kind {
	case tcpip.PacketBroadcast:
		b[10] = unix.PACKET_BROADCAST
	case tcpip.PacketMulticast:
		b[10] = unix.PACKET_MULTICAST
	case tcpip.PacketOtherHost:
		b[10] = unix.PACKET_OTHERHOST
	case tcpip.PacketOutgoing:
		b[10] = unix.PACKET_OUTGOING
	}
	b[11] = byte(copy(b[12:], mac))
	return b
}

// Bind implements socket.Socket.
func (p *packetSock) Bind(_ *kernel.Task, addr []byte) error {
	nic, proto, _, err := llAddr(addr)
	if err != nil {
		return err
	}
	if nic < 0 || nic > 0 && !p.st.tcpip().HasNIC(nic) {
		return unix.ENODEV
	}
	if proto == 0 {
		proto = p.proto
	}
	return errno(p.endpoint().Bind(tcpip.FullAddress{NIC: nic, Port: uint16(proto)}))
}

// Connect implements socket.Socket, and so do those below: none of it is for packets.
func (p *packetSock) Connect(*kernel.Task, []byte) error { return unix.EOPNOTSUPP }

// Shutdown is not for packets.
func (p *packetSock) Shutdown(int) error { return unix.EOPNOTSUPP }

// PeerAddr is not for packets.
func (p *packetSock) PeerAddr(*kernel.Task) ([]byte, error) { return nil, unix.EOPNOTSUPP }

// LocalAddr implements socket.Socket.
func (p *packetSock) LocalAddr(*kernel.Task) ([]byte, error) {
	a, err := p.endpoint().GetLocalAddress()
	if err != nil {
		return nil, errno(err)
	}
	return p.formatLL(a.NIC, tcpip.NetworkProtocolNumber(a.Port), tcpip.PacketHost, ""), nil
}

// Send implements socket.Socket.
func (p *packetSock) Send(_ vfs.Context, m *socket.Message) (int64, error) {
	if m.Data.NumBytes() > maxDatagram {
		return 0, unix.EMSGSIZE
	}
	var o tcpip.WriteOptions
	if len(m.Addr) > 0 {
		nic, proto, mac, err := llAddr(m.Addr)
		if err != nil {
			return 0, err
		}
		if nic <= 0 || !p.st.tcpip().HasNIC(nic) {
			return 0, unix.ENXIO
		}
		o.To = &tcpip.FullAddress{NIC: nic, Port: uint16(proto), LinkAddr: mac}
	}
	c, skip := newCursor(m.Data), int64(0)
	if o.To != nil && o.To.NIC == loNIC && p.base.Type == unix.SOCK_RAW {
		if skip = header.EthernetMinimumSize; m.Data.NumBytes() < skip {
			return 0, unix.EINVAL
		}
		c = newCursor(m.Data.DropFirst(skip))
	}
	n, err := p.endpoint().Write(&c, o)
	if err != nil {
		return 0, errno(err)
	}
	return n + skip, nil
}

// Read implements vfs.FileImpl.
func (p *packetSock) Read(ctx vfs.Context, f *vfs.FileDescription, dst usermem.IOSequence, _ int64, _ vfs.IOFlags) (int64, error) {
	return socket.Read(ctx, p, f, dst)
}

// Write implements vfs.FileImpl.
func (p *packetSock) Write(ctx vfs.Context, _ *vfs.FileDescription, src usermem.IOSequence, off int64, _ vfs.IOFlags) (int64, int64, error) {
	return socket.Write(ctx, p, src, off, false)
}

// Recv implements socket.Socket.
func (p *packetSock) Recv(_ vfs.Context, m *socket.Message) (int64, error) {
	if m.Flags&(unix.MSG_OOB|unix.MSG_ERRQUEUE) != 0 {
		return 0, unix.EWOULDBLOCK
	}
	var b bytes.Buffer
	res, err := p.endpoint().Read(&b, tcpip.ReadOptions{Peek: m.Flags&unix.MSG_PEEK != 0, NeedRemoteAddr: true, NeedLinkPacketInfo: true})
	if err != nil {
		return 0, errno(err)
	}
	data, nic, proto := b.Bytes(), res.RemoteAddr.NIC, res.LinkPacketInfo.Protocol
	if nic == loNIC && p.base.Type == unix.SOCK_RAW {
		// Netstack's loopback has no header, Linux's an empty one.
		h := make([]byte, header.EthernetMinimumSize, header.EthernetMinimumSize+len(data))
		binary.BigEndian.PutUint16(h[12:], uint16(proto))
		data = append(h, data...)
	}
	res.Total = len(data)
	n := min(len(data), int(m.Data.NumBytes()))
	if _, err := m.Data.CopyOut(data[:n]); err != nil {
		return 0, err
	}
	if res.RemoteAddr.LinkAddr == "" {
		res.RemoteAddr.LinkAddr = "\x00\x00\x00\x00\x00\x00"
	}
	m.Addr = p.formatLL(nic, proto, res.LinkPacketInfo.PktType, res.RemoteAddr.LinkAddr)
	p.controls(m, &res.ControlMessages)
	if n < res.Total {
		m.OutFlags |= unix.MSG_TRUNC
		if m.Flags&unix.MSG_TRUNC != 0 {
			n = res.Total
		}
	}
	return int64(n), nil
}

// SetOption implements socket.Socket. Memberships change nothing: a link delivers what is for it; there are no rings.
func (p *packetSock) SetOption(t *kernel.Task, level, name int32, val []byte) error {
	if level != linux.SOL_PACKET {
		return p.sock.SetOption(t, level, name, val)
	}
	switch name {
	case linux.PACKET_ADD_MEMBERSHIP, unix.PACKET_DROP_MEMBERSHIP, linux.PACKET_AUXDATA, unix.PACKET_TIMESTAMP:
		if len(val) < 4 {
			return unix.EINVAL
		}
		return nil
	}
	return unix.ENOPROTOOPT
}

// GetOption implements socket.Socket.
func (p *packetSock) GetOption(t *kernel.Task, level, name int32, size int) ([]byte, error) {
	if level == linux.SOL_PACKET && name == linux.PACKET_STATISTICS {
		return le32(0, 0), nil
	}
	if level == linux.SOL_PACKET {
		return nil, unix.ENOPROTOOPT
	}
	return p.sock.GetOption(t, level, name, size)
}

var _ socket.Socket = (*packetSock)(nil)
