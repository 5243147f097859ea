package inet

import (
	"encoding/binary"
	"math"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
)

type so = tcpip.SocketOptions

// recvErr is IP_RECVERR and IPV6_RECVERR. Netstack does not bound the queue of a TCP endpoint, whose errors come by SO_ERROR anyway: there it is only kept.
func recvErr(set func(*so, bool)) option {
	return option{min: -1 << 31, max: 1<<31 - 1, set: func(s *sock, ep tcpip.Endpoint, v int) error {
		if s.tcp() {
			return nil
		}
		s.watchErrors()
		set(ep.SocketOptions(), v != 0)
		return nil
	}}
}

// mtuOption is IP_MTU and IPV6_MTU: the path's, of a connected socket.
var mtuOption = option{get: func(s *sock, ep tcpip.Endpoint) (int, error) {
	peer, err := ep.GetRemoteAddress()
	if err != nil {
		return 0, unix.ENOTCONN
	}
	r, err := s.st.tcpip().FindRoute(peer.NIC, tcpip.Address{}, peer.Addr, protoOf(peer.Addr), false)
	if err != nil {
		return 0, errno(err)
	}
	defer r.Release()
	if r.NetProto() == ipv4.ProtocolNumber {
		return int(r.MTU()) + header.IPv4MinimumSize, nil
	}
	return int(r.MTU()) + header.IPv6MinimumSize, nil
}, set: func(*sock, tcpip.Endpoint, int) error { return unix.ENOPROTOOPT }, min: -1 << 31, max: 1<<31 - 1}

// hops is IP_TTL and IPV6_UNICAST_HOPS: -1 is the default, 64.
func hops(o tcpip.SockOptInt, unset, lowest int) option {
	return option{min: -1, max: 255,
		get: func(_ *sock, ep tcpip.Endpoint) (int, error) {
			v, err := ep.GetSockOptInt(o)
			if v == unset {
				v = 64
			}
			return v, errno(err)
		},
		set: func(_ *sock, ep tcpip.Endpoint, v int) error {
			if v == -1 {
				v = unset
			} else if v < lowest {
				return unix.EINVAL
			}
			return errno(ep.SetSockOptInt(o, v))
		}}
}

var (
	mcastTTL = option{min: -1, max: 255, get: intOption(tcpip.MulticastTTLOption, 0, 0).get,
		set: func(_ *sock, ep tcpip.Endpoint, v int) error {
			if v == -1 {
				v = 1
			}
			return errno(ep.SetSockOptInt(tcpip.MulticastTTLOption, v))
		}}
	tclass = option{min: -1, max: 255, get: intOption(tcpip.IPv6TrafficClassOption, 0, 0).get,
		set: func(_ *sock, ep tcpip.Endpoint, v int) error {
			return errno(ep.SetSockOptInt(tcpip.IPv6TrafficClassOption, max(v, 0)))
		}}
	mcastLoop = flagOption((*so).GetMulticastLoop, (*so).SetMulticastLoop)
	pmtud     = option{min: 0, max: 5,
		get: func(s *sock, ep tcpip.Endpoint) (int, error) {
			if s.keptValue(linux.SOL_IP, linux.IP_MTU_DISCOVER) == nil && s.keptValue(linux.SOL_IPV6, linux.IPV6_MTU_DISCOVER) == nil {
				return linux.IP_PMTUDISC_WANT, nil // net.ipv4.ip_no_pmtu_disc is 0
			}
			v, err := ep.GetSockOptInt(tcpip.MTUDiscoverOption)
			return v, errno(err)
		},
		set: func(_ *sock, ep tcpip.Endpoint, v int) error {
			return errno(ep.SetSockOptInt(tcpip.MTUDiscoverOption, min(v, 3)))
		}}
)

var ipOptions = map[int32]option{
	linux.IP_TOS:             intOption(tcpip.IPv4TOSOption, math.MinInt32, math.MaxInt32), // a byte
	linux.IP_TTL:             hops(tcpip.IPv4TTLOption, tcpip.UseDefaultIPv4TTL, 1),
	linux.IP_HDRINCL:         rawOnly(flagOption((*so).GetHeaderIncluded, (*so).SetHeaderIncluded)),
	linux.IP_PKTINFO:         flagOption((*so).GetReceivePacketInfo, (*so).SetReceivePacketInfo),
	linux.IP_MTU_DISCOVER:    pmtud,
	linux.IP_RECVERR:         recvErr((*so).SetIPv4RecvError),
	linux.IP_RECVTTL:         flagOption((*so).GetReceiveTTL, (*so).SetReceiveTTL),
	linux.IP_RECVTOS:         flagOption((*so).GetReceiveTOS, (*so).SetReceiveTOS),
	linux.IP_MTU:             mtuOption,
	linux.IP_RECVORIGDSTADDR: flagOption((*so).GetReceiveOriginalDstAddress, (*so).SetReceiveOriginalDstAddress),
	linux.IP_MULTICAST_TTL:   mcastTTL,
	linux.IP_MULTICAST_LOOP:  mcastLoop,
	linux.IP_TRANSPARENT:     {min: -1 << 31, max: 1<<31 - 1, admin: true},
	linux.IP_MINTTL:          {min: 0, max: 255},
	linux.IP_MULTICAST_ALL:   keptOption(1),
}

// ipNeedsValue are options that refuse to be set to a value of no bytes, which for others is 0 (do_ip_setsockopt).
var ipNeedsValue = []int32{linux.IP_TTL, linux.IP_FREEBIND, linux.IP_TRANSPARENT, linux.IP_MINTTL, linux.IP_MULTICAST_TTL, linux.IP_MULTICAST_LOOP, linux.IP_MULTICAST_ALL, linux.IP_UNICAST_IF, linux.IP_LOCAL_PORT_RANGE}

var ip6Options = map[int32]option{
	linux.IPV6_TCLASS:          tclass,
	linux.IPV6_UNICAST_HOPS:    hops(tcpip.IPv6HopLimitOption, tcpip.UseDefaultIPv6HopLimit, 0),
	linux.IPV6_MULTICAST_HOPS:  mcastTTL,
	linux.IPV6_MULTICAST_LOOP:  mcastLoop,
	linux.IPV6_MULTICAST_IF:    intOption(tcpip.IPv6MulticastInterfaceOption, 0, 1<<31-1),
	linux.IPV6_MTU_DISCOVER:    pmtud,
	linux.IPV6_MTU:             mtuOption,
	linux.IPV6_RECVERR:         recvErr((*so).SetIPv6RecvError),
	linux.IPV6_RECVHOPLIMIT:    flagOption((*so).GetReceiveHopLimit, (*so).SetReceiveHopLimit),
	linux.IPV6_RECVTCLASS:      flagOption((*so).GetReceiveTClass, (*so).SetReceiveTClass),
	linux.IPV6_RECVORIGDSTADDR: flagOption((*so).GetReceiveOriginalDstAddress, (*so).SetReceiveOriginalDstAddress),
	linux.IPV6_HDRINCL:         rawOnly(flagOption((*so).GetHeaderIncluded, (*so).SetHeaderIncluded)),
	linux.IPV6_CHECKSUM:        intOption(tcpip.IPv6Checksum, -1<<31, 1<<31-1),
	linux.IPV6_RECVPKTINFO: flagOption((*so).GetIPv6ReceivePacketInfo, func(o *so, on bool) {
		o.SetIPv6ReceivePacketInfo(on)
		o.SetReceivePacketInfo(on) // of IPv4 datagrams too
	}),
	linux.IPV6_V6ONLY: {min: -1 << 31, max: 1<<31 - 1,
		get: flagOption((*so).GetV6Only, nil).get,
		set: func(s *sock, ep tcpip.Endpoint, v int) error {
			if a, err := ep.GetLocalAddress(); err != nil || a.Port != 0 {
				return unix.EINVAL
			}
			ep.SocketOptions().SetV6Only(v != 0)
			return nil
		}},
	linux.IPV6_TRANSPARENT:      {min: -1 << 31, max: 1<<31 - 1, admin: true},
	linux.IPV6_AUTOFLOWLABEL:    keptOption(1),
	linux.IPV6_ADDR_PREFERENCES: keptOption(2),
	linux.IPV6_MINHOPCOUNT:      {min: 0, max: 255},
	linux.IPV6_MULTICAST_ALL:    keptOption(1),
}

// noEffect and noEffect6 are options that are kept, 0 at first, and change nothing here.
var (
	noEffect = []int32{linux.IP_FREEBIND, linux.IP_RECVOPTS, linux.IP_RETOPTS, linux.IP_NODEFRAG, linux.IP_BIND_ADDRESS_NO_PORT, linux.IP_RECVFRAGSIZE,
		linux.IP_CHECKSUM, linux.IP_LOCAL_PORT_RANGE, linux.IP_UNICAST_IF, linux.IP_PASSSEC, linux.IP_ROUTER_ALERT}
	noEffect6 = []int32{linux.IPV6_FREEBIND, linux.IPV6_RECVRTHDR, linux.IPV6_RECVHOPOPTS, linux.IPV6_RECVDSTOPTS, linux.IPV6_RECVPATHMTU,
		linux.IPV6_DONTFRAG, linux.IPV6_FLOWINFO, linux.IPV6_FLOWINFO_SEND, linux.IPV6_RECVFRAGSIZE, linux.IPV6_UNICAST_IF}
)

func init() {
	for _, name := range noEffect {
		ipOptions[name] = keptOption(0)
	}
	for _, name := range noEffect6 {
		ip6Options[name] = keptOption(0)
	}
}

var udpOptions = map[int32]option{
	unix.UDP_CORK:         keptOption(0),
	unix.UDP_SEGMENT:      {min: 0, max: 65535},
	unix.UDP_GRO:          keptOption(0), // datagrams may be joined; they never are
	unix.UDP_NO_CHECK6_TX: {min: -1 << 31, max: 1<<31 - 1},
	unix.UDP_NO_CHECK6_RX: {min: -1 << 31, max: 1<<31 - 1},
}

func rawOnly(o option) option {
	get, set := o.get, o.set
	o.get = func(s *sock, ep tcpip.Endpoint) (int, error) {
		if s.base.Type != unix.SOCK_RAW {
			return 0, nil
		}
		return get(s, ep)
	}
	o.set = func(s *sock, ep tcpip.Endpoint, v int) error {
		if s.base.Type != unix.SOCK_RAW {
			return unix.ENOPROTOOPT
		}
		return set(s, ep, v)
	}
	return o
}

const (
	mcastJoin  = 42 // MCAST_JOIN_GROUP
	mcastLeave = 45 // MCAST_LEAVE_GROUP
)

// membership reports whether an option of SOL_IP or SOL_IPV6 is about multicast groups.
func membership(name int32) bool {
	switch name {
	case linux.IP_ADD_MEMBERSHIP, linux.IP_DROP_MEMBERSHIP, linux.IPV6_ADD_MEMBERSHIP, linux.IPV6_DROP_MEMBERSHIP, mcastJoin, mcastLeave:
		return true
	}
	return false
}

// setIPSpecial handles the options of SOL_IP and SOL_IPV6 whose value is a struct.
func (s *sock) setIPSpecial(ep tcpip.Endpoint, level, name int32, val []byte) (handled bool, err error) {
	v6 := level == linux.SOL_IPV6
	m := tcpip.MembershipOption{}
	join := name == linux.IP_ADD_MEMBERSHIP && !v6 || name == linux.IPV6_ADD_MEMBERSHIP && v6 || name == mcastJoin
	le := binary.LittleEndian
	switch {
	case !v6 && (name == linux.IP_ADD_MEMBERSHIP || name == linux.IP_DROP_MEMBERSHIP):
		// struct ip_mreq or ip_mreqn.
		if len(val) < 8 {
			return true, unix.EINVAL
		}
		m.MulticastAddr, m.InterfaceAddr = ip4(val), ip4(val[4:])
		if len(val) >= 12 {
			m.NIC = tcpip.NICID(int32(le.Uint32(val[8:])))
		}
	case v6 && (name == linux.IPV6_ADD_MEMBERSHIP || name == linux.IPV6_DROP_MEMBERSHIP):
		if len(val) < 20 {
			return true, unix.EINVAL
		}
		m.MulticastAddr, m.NIC = ip16(val), tcpip.NICID(int32(le.Uint32(val[16:])))
	case name == mcastJoin || name == mcastLeave:
		// struct group_req: an index, and a sockaddr at 8.
		if len(val) < 8+sizeIn {
			return true, unix.EINVAL
		}
		a, err := parse(val[8:])
		if err != nil {
			return true, err
		}
		m.NIC, m.MulticastAddr = tcpip.NICID(int32(le.Uint32(val))), a.Addr
	case !v6 && name == linux.IP_MULTICAST_IF:
		return true, s.setMulticastIf(ep, val)
	case !v6 && name == linux.IP_OPTIONS:
		return true, nil
	case !v6 && name == linux.IP_ROUTER_ALERT && s.base.Type != unix.SOCK_RAW:
		return true, unix.EINVAL
	case !v6 && name == linux.IP_NODEFRAG && s.base.Type != unix.SOCK_RAW:
		return true, unix.ENOPROTOOPT
	default:
		return false, nil
	}
	if s.tcp() {
		return true, unix.ENOPROTOOPT
	}
	if join {
		o := tcpip.AddMembershipOption(m)
		return true, errno(ep.SetSockOpt(&o))
	}
	o := tcpip.RemoveMembershipOption(m)
	return true, errno(ep.SetSockOpt(&o))
}

func (s *sock) setMulticastIf(ep tcpip.Endpoint, val []byte) error {
	var o tcpip.MulticastInterfaceOption
	switch {
	case len(val) >= 12:
		o.InterfaceAddr, o.NIC = ip4(val[4:]), tcpip.NICID(int32(binary.LittleEndian.Uint32(val[8:])))
	case len(val) >= 8:
		o.InterfaceAddr = ip4(val[4:])
	case len(val) >= 4:
		o.InterfaceAddr = ip4(val)
	default:
		return unix.EINVAL
	}
	if o.InterfaceAddr.Unspecified() {
		o.InterfaceAddr = tcpip.Address{}
	}
	return errno(ep.SetSockOpt(&o))
}
