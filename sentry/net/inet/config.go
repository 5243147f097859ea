package inet

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// What follows is what a guest with CAP_NET_ADMIN may change, by netlink(7) or netdevice(7); the callers have checked that it has it.

// SetUp brings an interface up or down. lo gets its addresses when it comes up first.
func (s *Stack) SetUp(id tcpip.NICID, up bool) error {
	n := s.tcpip()
	if !up {
		return errno(n.DisableNIC(id))
	}
	if err := n.EnableNIC(id); err != nil {
		return errno(err)
	}
	if id == loNIC {
		if i, ok := n.SingleNICInfo(id); ok && len(i.ProtocolAddresses) == 0 {
			s.loopbackAddresses()
		}
	}
	return nil
}

// SetMTU sets an interface's MTU, within what IP asks for and an Ethernet can.
func (s *Stack) SetMTU(id tcpip.NICID, mtu uint32) error {
	if mtu < 68 || mtu > 65536 {
		return unix.EINVAL
	}
	if n, ok := s.tcpip().SingleNICInfo(id); ok && n.Kind == bridgeKind {
		mtu += header.EthernetMinimumSize // which a BridgeEndpoint's has in it
	}
	return errno(s.tcpip().SetNICMTU(id, mtu))
}

// SetName renames an interface.
func (s *Stack) SetName(id tcpip.NICID, name string) error {
	if err := s.nameable(name); err != nil {
		return err
	}
	return errno(s.tcpip().SetNICName(id, name))
}

// nameable is nil for a name that an interface can get.
func (s *Stack) nameable(name string) error {
	if name == "" || len(name) >= unix.IFNAMSIZ || name == "." || name == ".." || strings.ContainsAny(name, "/: \t\n\v\f\r") {
		return unix.EINVAL
	}
	if _, taken := s.byName(name); taken {
		return unix.EEXIST
	}
	return nil
}

// maxAddresses bounds the addresses of an interface, maxRoutes the routing table.
const (
	maxAddresses = 1024
	maxRoutes    = 4096
)

// AddAddress gives an interface an address, and a route to its network: EEXIST.
func (s *Stack) AddAddress(id tcpip.NICID, a tcpip.AddressWithPrefix) error {
	n := s.tcpip()
	i, ok := n.SingleNICInfo(id)
	if !ok {
		return unix.ENODEV
	}
	if len(i.ProtocolAddresses) >= maxAddresses {
		return unix.ENOBUFS
	}
	if err := n.AddProtocolAddress(id, tcpip.ProtocolAddress{Protocol: protoOf(a.Address), AddressWithPrefix: a}, stack.AddressProperties{}); err != nil {
		return errno(err)
	}
	if a.PrefixLen < 8*a.Address.Len() {
		if err := s.AddRoute(tcpip.Route{Destination: a.Subnet(), NIC: id}); err != nil && err != unix.EEXIST {
			return err
		}
	}
	return nil
}

// RemoveAddress undoes AddAddress: EADDRNOTAVAIL.
func (s *Stack) RemoveAddress(id tcpip.NICID, a tcpip.AddressWithPrefix) error {
	if err := s.tcpip().RemoveAddress(id, a.Address); err != nil {
		return unix.EADDRNOTAVAIL
	}
	_ = s.RemoveRoute(tcpip.Route{Destination: a.Subnet(), NIC: id}) // it may have been removed before
	return nil
}

// AddRoute adds a route: EEXIST, ENETUNREACH if the gateway is on no network of the interface.
func (s *Stack) AddRoute(r tcpip.Route) error {
	n := s.tcpip()
	s.mu.Lock()
	defer s.mu.Unlock()
	table := n.GetRouteTable()
	if len(table) >= maxRoutes {
		return unix.ENOBUFS
	}
	near := r.Gateway.Len() == 0
	for i := range table {
		t := &table[i]
		if t.Destination == r.Destination && (t.Gateway == r.Gateway || r.Destination.Prefix() == 0) {
			return unix.EEXIST
		}
		if !near && t.Gateway.Len() == 0 && t.Destination.Contains(r.Gateway) && (r.NIC == 0 || r.NIC == t.NIC) {
			near, r.NIC = true, t.NIC
		}
	}
	if !near {
		return unix.ENETUNREACH
	}
	if !n.HasNIC(r.NIC) {
		return unix.ENODEV
	}
	setRoutes(n, append(table, r))
	return nil
}

// RemoveRoute removes the first route that matches: ESRCH.
func (s *Stack) RemoveRoute(r tcpip.Route) error {
	n := s.tcpip()
	s.mu.Lock()
	defer s.mu.Unlock()
	table := n.GetRouteTable()
	i := slices.IndexFunc(table, func(t tcpip.Route) bool {
		return t.Destination == r.Destination && (r.Gateway.Len() == 0 || t.Gateway == r.Gateway) && (r.NIC == 0 || r.NIC == t.NIC)
	})
	if i < 0 {
		return unix.ESRCH
	}
	n.SetRouteTable(slices.Delete(table, i, i+1))
	return nil
}

// Routes is the routing table.
func (s *Stack) Routes() []tcpip.Route { return s.tcpip().GetRouteTable() }

// FindRoute is how a packet to dst would go: its source, its gateway (empty if dst is near) and its interface.
func (s *Stack) FindRoute(dst, src tcpip.Address, id tcpip.NICID) (source, gateway tcpip.Address, nic tcpip.NICID, err error) {
	r, e := s.tcpip().FindRoute(id, src, dst, protoOf(dst), false)
	if e != nil {
		return source, gateway, 0, errno(e)
	}
	defer r.Release()
	return r.LocalAddress(), r.NextHop(), r.NICID(), nil
}

// Neighbors are the neighbour entries of an interface, of both families.
func (s *Stack) Neighbors(id tcpip.NICID) (l []stack.NeighborEntry) {
	for _, p := range []tcpip.NetworkProtocolNumber{ipv4.ProtocolNumber, ipv6Proto} {
		e, _ := s.tcpip().Neighbors(id, p) // lo has none
		l = append(l, e...)
	}
	return l
}

// AddNeighbor makes a permanent entry, RemoveNeighbor removes one.
func (s *Stack) AddNeighbor(id tcpip.NICID, a tcpip.Address, mac tcpip.LinkAddress) error {
	return errno(s.tcpip().AddStaticNeighbor(id, protoOf(a), a, mac))
}

// RemoveNeighbor removes an entry: ENOENT.
func (s *Stack) RemoveNeighbor(id tcpip.NICID, a tcpip.Address) error {
	if s.tcpip().RemoveNeighbor(id, protoOf(a), a) != nil {
		return unix.ENOENT
	}
	return nil
}
