package inet

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

const ipv6Proto = ipv6.ProtocolNumber

// SockInfo is a socket as /proc/net and SOCK_DIAG show it.
type SockInfo struct {
	Family, Type, Protocol int32
	// State is TCP_*; other sockets are TCP_CLOSE, or TCP_ESTABLISHED when connected.
	State         uint8
	Local, Remote tcpip.FullAddress
	RxQueue       uint32
	UID           uint32
	// Ino is 0 for a connection that no socket holds any more.
	Ino uint64
}

// Sockets are the sockets of the inet families, and connections that live on without one.
func (s *Stack) Sockets() (l []SockInfo) {
	if s.host != nil {
		for _, h := range s.host.Sockets() {
			b := h.Base
			i := SockInfo{Family: b.Family, Type: b.Type, Protocol: b.Protocol, State: uint8(tcp.StateClose), UID: b.UID, Ino: b.Ino.Load()}
			i.Local, _ = parse(h.Local) // what the host says; empty if it has none
			if i.Remote, _ = parse(h.Remote); h.State != 0 {
				i.State = h.State
			} else if h.Remote != nil {
				i.State = uint8(tcp.StateEstablished)
			}
			l = append(l, i)
		}
	}
	for _, k := range s.sockets() {
		if k.base.Family != unix.AF_PACKET {
			l = append(l, k.info())
		}
	}
	s.mu.Lock()
	orphans := append([]tcpip.Endpoint(nil), s.orphans...)
	s.mu.Unlock()
	for _, ep := range orphans {
		if over(ep) {
			continue
		}
		i := SockInfo{Type: unix.SOCK_STREAM, Protocol: unix.IPPROTO_TCP, State: linuxState(tcp.EndpointState(ep.State())), Family: unix.AF_INET}
		i.Local, _ = ep.GetLocalAddress()
		i.Remote, _ = ep.GetRemoteAddress()
		if e, ok := ep.Info().(*stack.TransportEndpointInfo); ok && e.NetProto == ipv6Proto {
			i.Family = unix.AF_INET6
		}
		l = append(l, i)
	}
	return l
}

func (k *sock) info() SockInfo {
	ep := k.endpoint()
	i := SockInfo{Family: k.base.Family, Type: k.base.Type, Protocol: k.base.Protocol, UID: k.base.UID, Ino: k.base.Ino.Load(), State: uint8(tcp.StateClose)}
	i.Local, _ = ep.GetLocalAddress() // empty if it has none
	var err tcpip.Error
	if i.Remote, err = ep.GetRemoteAddress(); err != nil {
		i.Remote = tcpip.FullAddress{}
	} else {
		i.State = uint8(tcp.StateEstablished)
	}
	if k.base.Type == unix.SOCK_RAW {
		i.Local.Port, i.Remote.Port = uint16(k.base.Protocol), 0
	}
	if k.tcp() {
		i.State = linuxState(k.tcpState())
	}
	if n, err := ep.GetSockOptInt(tcpip.ReceiveQueueSizeOption); err == nil {
		i.RxQueue = uint32(n)
	}
	return i
}
