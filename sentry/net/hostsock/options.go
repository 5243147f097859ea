package hostsock

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"

	"moat/sentry/kernel"
)

// Options are what may be set and asked on the host, by level; the filter holds setsockopt(2) and getsockopt(2) to them.
var Options = map[int32][]int32{
	unix.SOL_SOCKET: {unix.SO_REUSEADDR, unix.SO_ERROR, unix.SO_DONTROUTE, unix.SO_BROADCAST, unix.SO_SNDBUF, unix.SO_RCVBUF, unix.SO_KEEPALIVE, unix.SO_OOBINLINE,
		unix.SO_PRIORITY, unix.SO_LINGER, unix.SO_REUSEPORT, unix.SO_RCVLOWAT, unix.SO_BINDTODEVICE, unix.SO_TIMESTAMP, unix.SO_ACCEPTCONN, unix.SO_TIMESTAMPNS,
		unix.SO_COOKIE, unix.SO_BINDTOIFINDEX},
	unix.SOL_TCP: {unix.TCP_NODELAY, unix.TCP_MAXSEG, unix.TCP_CORK, unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL, unix.TCP_KEEPCNT, unix.TCP_SYNCNT, unix.TCP_LINGER2,
		unix.TCP_DEFER_ACCEPT, unix.TCP_WINDOW_CLAMP, unix.TCP_INFO, unix.TCP_QUICKACK, unix.TCP_CONGESTION, unix.TCP_USER_TIMEOUT, unix.TCP_NOTSENT_LOWAT, unix.TCP_INQ},
	unix.SOL_UDP: {unix.UDP_CORK, unix.UDP_SEGMENT, unix.UDP_GRO},
	unix.SOL_IP: {unix.IP_TOS, unix.IP_TTL, unix.IP_PKTINFO, unix.IP_MTU_DISCOVER, unix.IP_RECVERR, unix.IP_RECVTTL, unix.IP_RECVTOS, unix.IP_MTU, unix.IP_FREEBIND,
		unix.IP_RECVORIGDSTADDR, unix.IP_BIND_ADDRESS_NO_PORT, unix.IP_MULTICAST_IF, unix.IP_MULTICAST_TTL, unix.IP_MULTICAST_LOOP, unix.IP_ADD_MEMBERSHIP,
		unix.IP_DROP_MEMBERSHIP, unix.IP_MULTICAST_ALL},
	unix.SOL_IPV6: {unix.IPV6_UNICAST_HOPS, unix.IPV6_MULTICAST_IF, unix.IPV6_MULTICAST_HOPS, unix.IPV6_MULTICAST_LOOP, unix.IPV6_JOIN_GROUP, unix.IPV6_LEAVE_GROUP,
		unix.IPV6_MTU_DISCOVER, unix.IPV6_MTU, unix.IPV6_RECVERR, unix.IPV6_V6ONLY, unix.IPV6_RECVPKTINFO, unix.IPV6_RECVHOPLIMIT, unix.IPV6_RECVTCLASS, unix.IPV6_TCLASS,
		unix.IPV6_RECVORIGDSTADDR},
}

// sendable are the control messages that are passed on to the host.
var sendable = map[int32][]int32{
	unix.SOL_UDP: {unix.UDP_SEGMENT}, unix.SOL_IP: {unix.IP_PKTINFO, unix.IP_TTL, unix.IP_TOS}, unix.SOL_IPV6: {unix.IPV6_PKTINFO, unix.IPV6_HOPLIMIT, unix.IPV6_TCLASS},
}

// maxValue bounds what is passed on of an option: the longest is struct tcp_info.
const maxValue = 256

// SetOption implements socket.Socket.
func (s *sock) SetOption(_ *kernel.Task, level, name int32, val []byte) error {
	if !slices.Contains(Options[level], name) {
		return unix.ENOPROTOOPT
	}
	return setsockopt(s.fd, level, name, val[:min(len(val), maxValue)])
}

// GetOption implements socket.Socket.
func (s *sock) GetOption(_ *kernel.Task, level, name int32, size int) ([]byte, error) {
	if !slices.Contains(Options[level], name) {
		return nil, unix.ENOPROTOOPT
	}
	return getsockopt(s.fd, level, name, min(size, maxValue))
}

func (s *sock) getInt(level, name int32) int32 {
	if b, err := getsockopt(s.fd, level, name, 4); err == nil && len(b) == 4 {
		return int32(binary.LittleEndian.Uint32(b))
	}
	return 0
}

// OptionChanged implements socket.Hooks: the host is told of an option of SOL_SOCKET that was set. What it refuses is what needs rights there.
func (s *sock) OptionChanged(name int32) {
	b := &s.base
	v := int32(0)
	switch name {
	case linux.SO_LINGER:
		on, sec := b.Linger()
		var l [8]byte
		if binary.LittleEndian.PutUint32(l[4:], uint32(sec)); on {
			l[0] = 1
		}
		_ = setsockopt(s.fd, unix.SOL_SOCKET, name, l[:])
		return
	case linux.SO_SNDBUF, linux.SO_SNDBUFFORCE:
		name, v = linux.SO_SNDBUF, b.SndBuf.Load()/2
	case linux.SO_RCVBUF, linux.SO_RCVBUFFORCE:
		name, v = linux.SO_RCVBUF, b.RcvBuf.Load()/2
	case linux.SO_RCVLOWAT:
		v = b.RcvLowat.Load()
	case linux.SO_PRIORITY:
		v = b.Priority.Load()
	case linux.SO_REUSEADDR, linux.SO_DONTROUTE, linux.SO_BROADCAST, linux.SO_KEEPALIVE, linux.SO_OOBINLINE, linux.SO_REUSEPORT, linux.SO_TIMESTAMP, linux.SO_TIMESTAMPNS:
		if o, err := b.GetOption(name); err == nil {
			v = int32(o[0])
		}
	default:
		return
	}
	_ = setsockopt(s.fd, unix.SOL_SOCKET, name, binary.LittleEndian.AppendUint32(nil, uint32(v)))
}

// PendingError implements socket.Hooks.
func (s *sock) PendingError() unix.Errno { return unix.Errno(s.getInt(unix.SOL_SOCKET, unix.SO_ERROR)) }

// BufferSize implements socket.Hooks.
func (s *sock) BufferSize(name int32) int32 { return s.getInt(unix.SOL_SOCKET, name) }
