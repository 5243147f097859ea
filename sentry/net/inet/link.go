package inet

import (
	"net/netip"
	"slices"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// Link is an interface of the sandbox beside lo, as it was found in the network namespace that the command line entered.
type Link struct {
	Index int
	Name  string
	MTU   uint32
	// MAC is the hardware address, 6 bytes.
	MAC []byte
	// Addrs are the addresses, with the lengths of their prefixes.
	Addrs []netip.Prefix
	// Routes go out by this link, Neighbors are its permanent entries.
	Routes    []Route
	Neighbors []Neighbor
	// FD is the packet socket (AF_PACKET, SOCK_RAW) that is bound to it; GSO says that it carries struct virtio_net_hdr (PACKET_VNET_HDR).
	FD  int
	GSO bool
}

// Route is one entry of a link's routes; an invalid Gateway is none, an invalid Source netstack's choice.
type Route struct {
	Dst             netip.Prefix
	Gateway, Source netip.Addr
}

// Neighbor is one entry of a neighbour table.
type Neighbor struct {
	Addr netip.Addr
	MAC  []byte
}

func address(a netip.Addr) tcpip.Address {
	switch {
	case !a.IsValid():
		return tcpip.Address{}
	case a.Is4() || a.Is4In6():
		return tcpip.AddrFrom4(a.As4())
	}
	return tcpip.AddrFrom16(a.As16())
}

func protoOf(a tcpip.Address) tcpip.NetworkProtocolNumber {
	if a.Len() == 4 {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

// nics are the interfaces in order of their indices.
func (s *Stack) nics() []nic {
	var l []nic
	for id, i := range s.tcpip().NICInfo() {
		l = append(l, nic{id, i})
	}
	slices.SortFunc(l, func(a, b nic) int { return int(a.id - b.id) })
	return l
}

type nic struct {
	id tcpip.NICID
	stack.NICInfo
}

// byName finds an interface.
func (s *Stack) byName(name string) (tcpip.NICID, bool) {
	for _, n := range s.nics() {
		if n.Name == name {
			return n.id, true
		}
	}
	return 0, false
}

// unprivileged is net.ipv4.ip_unprivileged_port_start.
func (s *Stack) unprivileged() int32 { return 1024 }

func (s *Stack) addLink(n *stack.Stack, l *Link) {}
