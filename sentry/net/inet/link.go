package inet

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/sniffer"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"moat/sentry/kernel"
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
	// FD is the packet socket (AF_PACKET, SOCK_RAW, SOCK_NONBLOCK) that is bound to it, -1 for an interface that is only shown; GSO says that it carries
	// struct virtio_net_hdr (PACKET_VNET_HDR).
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

// NICs are the interfaces in order of their indices.
func (s *Stack) NICs() []NIC {
	var l []NIC
	for id, i := range s.tcpip().NICInfo() {
		l = append(l, NIC{id, i})
	}
	slices.SortFunc(l, func(a, b NIC) int { return int(a.ID - b.ID) })
	return l
}

// NIC is an interface as it is now.
type NIC struct {
	ID tcpip.NICID
	stack.NICInfo
}

// byName finds an interface.
func (s *Stack) byName(name string) (tcpip.NICID, bool) {
	for _, n := range s.NICs() {
		if n.Name == name {
			return n.ID, true
		}
	}
	return 0, false
}

// unprivileged is net.ipv4.ip_unprivileged_port_start.
func (s *Stack) unprivileged() int32 { return s.firstPort.Load() }

// Sysctl is told of values below /proc/sys that were set in a network namespace, of which these have an effect here.
func Sysctl(ns *kernel.NetNamespace, path, value string) {
	v, err := strconv.Atoi(strings.Fields(value + " x")[0])
	s := Of(ns)
	if err != nil || s == nil {
		return
	}
	switch path {
	case "net/ipv4/ip_unprivileged_port_start":
		s.firstPort.Store(int32(min(max(v, 0), 65536)))
	case "net/ipv4/ip_local_port_range":
		if hi, err := strconv.Atoi(strings.Fields(value + " x x")[1]); err == nil && v > 0 && v <= hi && hi <= 65535 {
			_ = s.tcpip().SetPortRange(uint16(v), uint16(hi)) // the bounds are right
		}
	case "net/ipv4/ip_forward":
		_ = s.tcpip().SetForwardingDefaultAndAllNICs(ipv4.ProtocolNumber, v != 0) // there is IPv4
	case "net/ipv4/ip_default_ttl":
		ttl := tcpip.DefaultTTLOption(min(max(v, 1), 255))
		_ = s.tcpip().SetNetworkProtocolOption(ipv4.ProtocolNumber, &ttl)
	}
}

// addLinks makes the interfaces, with what they have: s.links are those whose descriptors it has taken over.
func (s *Stack) addLinks(n *stack.Stack, links []Link, pcap *os.File) error {
	table := n.GetRouteTable()
	for i := range links {
		l := &links[i]
		fail := func(what string, err any) error { return fmt.Errorf("link %s: %s: %v", l.Name, what, err) }
		id := tcpip.NICID(l.Index)
		if len(l.MAC) != header.EthernetAddressSize || l.MTU < header.IPv4MinimumMTU || l.MTU > 65535 || n.HasNIC(id) {
			return fail("index, hardware address or MTU", "bad")
		}
		var ep stack.LinkEndpoint = channel.New(0, l.MTU, tcpip.LinkAddress(l.MAC))
		s.links = append(s.links, *l)
		if l.FD >= 0 {
			ep = newPacketLink(l, s)
		}
		if l.FD >= 0 && pcap != nil {
			var err error
			if ep, err = sniffer.NewWithWriter(ep, pcap, 65535); err != nil {
				return fail("record", err)
			}
		}
		if err := n.CreateNICWithOptions(id, ep, stack.NICOptions{Name: l.Name, DeliverLinkPackets: true, Kind: "veth", QDisc: &acks{LinkWriter: ep}}); err != nil {
			return fail("create", err)
		}
		for _, a := range l.Addrs {
			t := address(a.Addr())
			pa := tcpip.ProtocolAddress{Protocol: protoOf(t), AddressWithPrefix: tcpip.AddressWithPrefix{Address: t, PrefixLen: a.Bits()}}
			if err := n.AddProtocolAddress(id, pa, stack.AddressProperties{}); err != nil {
				return fail(a.String(), err)
			}
			table = append(table, tcpip.Route{Destination: pa.AddressWithPrefix.Subnet(), NIC: id})
		}
		for _, r := range l.Routes {
			dst := tcpip.AddressWithPrefix{Address: address(r.Dst.Addr()), PrefixLen: r.Dst.Bits()}
			table = append(table, tcpip.Route{Destination: dst.Subnet(), Gateway: address(r.Gateway), NIC: id, SourceHint: address(r.Source)})
		}
		for _, e := range l.Neighbors {
			t := address(e.Addr)
			if len(e.MAC) != header.EthernetAddressSize {
				return fail(e.Addr.String(), "bad neighbour")
			}
			if err := n.AddStaticNeighbor(id, protoOf(t), t, tcpip.LinkAddress(e.MAC)); err != nil {
				return fail(e.Addr.String(), err)
			}
		}
	}
	setRoutes(n, table)
	return nil
}

// setRoutes sets the routing table, of which netstack takes the first that matches: the longest prefix first, and each once.
func setRoutes(n *stack.Stack, table []tcpip.Route) {
	slices.SortStableFunc(table, func(a, b tcpip.Route) int { return b.Destination.Prefix() - a.Destination.Prefix() })
	table = slices.CompactFunc(table, func(a, b tcpip.Route) bool {
		return a.Destination == b.Destination && a.Gateway == b.Gateway && a.NIC == b.NIC
	})
	n.SetRouteTable(table)
}
