package container

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"moat/sentry/net/inet"
)

// Network is what a sandbox gets of a network namespace: its interfaces but lo, with a packet socket each. The namespace keeps the interfaces and loses their
// addresses, so that the host's kernel does not answer for the sandbox.
type Network struct {
	Links []inet.Link
	// Loop leads to Docker's name server on lo, if there is one.
	Loop *inet.HostLoop
	// files are the packet sockets of Links, in order, and Loop's.
	files []*os.File
	// addrs and routes are what was taken away, and ns where.
	addrs  map[int][]netlink.Addr
	routes []netlink.Route
	ns     *os.File
	// pod: connections that are made to 127.0.0.1 in the namespace, as engines do to forward a port, are the container's.
	pod bool
	// helper ends the program that carries the packets (--network user) when it is closed.
	helper io.Closer
}

// OwnNetwork is OpenNetwork of the caller's own network namespace, which must not be that of the host's first process.
func OwnNetwork() (*Network, error) {
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return nil, err
	}
	if first, err := os.Readlink("/proc/1/ns/net"); err == nil && first == own {
		return nil, errors.New("this is the host's network namespace, whose addresses a sandbox must not take; use one of its own (ip netns exec NAME moat do --network sandbox ...)")
	}
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	return OpenNetwork(ns, false)
}

// OpenNetwork takes over the interfaces of a network namespace, an open file of nsfs that becomes the Network's, and for a pod lo's address. CAP_NET_ADMIN and
// CAP_NET_RAW are needed there.
func OpenNetwork(ns *os.File, pod bool) (*Network, error) {
	n := &Network{ns: ns, pod: pod, addrs: make(map[int][]netlink.Addr)}
	err := inNamespace(ns, n.open)
	if err != nil {
		n.Close()
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	return n, nil
}

// closeFiles closes the packet sockets, of which the sentry has its own.
func (n *Network) closeFiles() {
	for _, f := range n.files {
		f.Close()
	}
	n.files = nil
}

// Close gives the namespace its addresses and routes back.
func (n *Network) Close() {
	if n == nil {
		return
	}
	n.closeFiles()
	if n.helper != nil {
		n.helper.Close()
	}
	if n.ns == nil {
		return
	}
	// Who deleted the namespace's interfaces in the meantime wants nothing back.
	_ = inNamespace(n.ns, func() error { n.restore(); return nil })
	n.ns.Close()
}

func (n *Network) restore() {
	for index, as := range n.addrs {
		l, err := netlink.LinkByIndex(index)
		if err != nil {
			continue
		}
		for i := range as {
			_ = netlink.AddrAdd(l, &as[i])
		}
	}
	for i := range n.routes {
		_ = netlink.RouteReplace(&n.routes[i])
	}
}

// sendNetwork gives the sentry the interfaces of its network namespace, in which a container's hooks have made them, or those of o.
func (s *Sandbox) sendNetwork(o *Options) error {
	if o.Config.Network == "host" {
		return s.showNetwork(o)
	}
	if s.links == nil {
		return nil
	}
	defer s.links.Close()
	if o.Network == nil {
		path := fmt.Sprintf("/proc/%d/ns/net", s.sentry.cmd.Process.Pid)
		if own, err := os.Readlink(path); err == nil {
			first, _ := os.Readlink("/proc/1/ns/net")
			if mine, _ := os.Readlink("/proc/self/ns/net"); own == first || own == mine {
				return errors.New("linux.namespaces: the network namespace is the host's, whose addresses a sandbox must not take; use one of its own, or --network none")
			}
		}
		ns, err := os.Open(path)
		if err == nil {
			o.Network, err = OpenNetwork(ns, o.isSandbox)
		}
		if err != nil {
			return err
		}
	}
	defer o.Network.closeFiles()
	o.Config.Links, o.Config.Loop = o.Network.Links, o.Network.Loop
	return o.Network.send(s.links)
}

// showNetwork tells the sentry of the interfaces of the network namespace that it is in, which stay the host's.
func (s *Sandbox) showNetwork(o *Options) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", s.sentry.cmd.Process.Pid))
	if err != nil {
		return err
	}
	defer ns.Close()
	n := &Network{}
	show := func() error { return n.eachLink(func(l netlink.Link) error { return n.show(l) }) }
	var theirs, mine unix.Stat_t
	if unix.Fstat(int(ns.Fd()), &theirs) == nil && unix.Stat("/proc/self/ns/net", &mine) == nil && theirs.Ino == mine.Ino {
		err = show() // who may not enter namespaces is in this one
	} else {
		err = inNamespace(ns, func() error {
			if err := setSysctls(o.Spec); err != nil {
				return err
			}
			return show()
		})
	}
	if err != nil {
		return fmt.Errorf("interfaces: %w", err)
	}
	o.Config.Links = n.Links
	return nil
}

// setSysctls sets those of a container's network for the host's kernel, in the caller's network namespace.
func setSysctls(spec *specs.Spec) error {
	if spec.Linux == nil {
		return nil
	}
	for name, v := range spec.Linux.Sysctl {
		path := strings.ReplaceAll(name, ".", "/")
		if !strings.HasPrefix(path, "net/") || !filepath.IsLocal(path) {
			continue
		}
		if err := os.WriteFile("/proc/sys/"+path, []byte(v), 0); err != nil {
			return fmt.Errorf("linux.sysctl: %w", err)
		}
	}
	return nil
}

func (n *Network) show(l netlink.Link) error {
	d, _, _, err := describe(l)
	if mtu := d.MTU; err == nil && mtu >= 68 && mtu <= 65535 {
		d.MAC = append(d.MAC, make([]byte, 6)...)[:6]
		n.Links = append(n.Links, d)
	}
	return err
}

// send passes the packet sockets to the sentry at the other end of conn.
func (n *Network) send(conn *os.File) error {
	if len(n.files) == 0 {
		return nil
	}
	fds := make([]int, len(n.files))
	for i, f := range n.files {
		fds[i] = int(f.Fd())
	}
	if err := unix.Sendmsg(int(conn.Fd()), []byte{0}, unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("pass the packet sockets: %w", err)
	}
	return nil
}

func (n *Network) open() error {
	err := n.eachLink(func(l netlink.Link) error {
		if len(l.Attrs().HardwareAddr) != 6 {
			return nil
		}
		return n.take(l)
	})
	if err == nil && len(n.Links) > 0 {
		if err = n.openLoop(); err != nil {
			err = fmt.Errorf("the way to the name server on lo: %w", err)
		}
	}
	return err
}

// openLoop finds the sockets of Docker's name server, which it has put into the namespace, and opens a way to them: the container is 192.0.0.8/29 to the kernel,
// and what the server asks elsewhere leaves from 192.0.0.9; both by lo.
func (n *Network) openLoop() error {
	u, t := boundTo("udp"), boundTo("tcp")
	lo, err := netlink.LinkByName("lo")
	pod := n.pod && u+t == 0 && err == nil && lo.Attrs().Flags&net.FlagUp != 0
	if u+t == 0 && !pod {
		return nil
	}
	if err == nil {
		err = os.WriteFile("/proc/sys/net/ipv4/conf/lo/route_localnet", []byte("1"), 0)
	}
	if err != nil {
		return err
	}
	index := lo.Attrs().Index
	host := net.IPNet{IP: inet.LoopHost[:], Mask: net.CIDRMask(32, 32)}
	if err := netlink.AddrReplace(lo, &netlink.Addr{IPNet: &host}); err != nil {
		return fmt.Errorf("address %v: %w", &host, err)
	}
	guests := net.IPNet{IP: inet.LoopGuests[:], Mask: net.CIDRMask(29, 32)}
	if pod {
		guests = net.IPNet{IP: net.IPv4(127, 0, 0, 1).To4(), Mask: host.Mask}
		own := netlink.Addr{IPNet: &net.IPNet{IP: guests.IP, Mask: net.CIDRMask(8, 32)}}
		if netlink.AddrDel(lo, &own) == nil { // else it is not there
			n.addrs[index] = append(n.addrs[index], own)
		}
	}
	for _, r := range []*netlink.Route{
		{LinkIndex: index, Dst: &guests, Src: host.IP, Scope: netlink.SCOPE_LINK},
		{LinkIndex: index, Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, Src: host.IP, Scope: netlink.SCOPE_LINK},
	} {
		if err := netlink.RouteReplace(r); err != nil {
			return fmt.Errorf("route to %v: %w", r.Dst, err)
		}
	}
	f, _, err := packetSocket(index, unix.ETH_P_IP, false)
	if err == nil {
		n.Loop, n.files = &inet.HostLoop{UDP: u, TCP: t, Ports: pod}, append(n.files, f)
	}
	return err
}

// boundTo is the port of the socket of a protocol that is bound to 127.0.0.11 in the caller's network namespace; 0: there is none.
func boundTo(protocol string) uint16 {
	b, err := os.ReadFile("/proc/thread-self/net/" + protocol)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		f := append(strings.Fields(line), "", "", "")
		if port, ok := strings.CutPrefix(f[1], "0B00007F:"); ok && strings.HasSuffix(f[2], ":0000") {
			n, _ := strconv.ParseUint(port, 16, 16) // the kernel's own
			return uint16(n)
		}
	}
	return 0
}

// eachLink calls f for the interfaces beside lo that are up.
func (n *Network) eachLink(f func(netlink.Link) error) error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	for _, l := range links {
		a := l.Attrs()
		if a.Flags&net.FlagLoopback != 0 || a.Flags&net.FlagUp == 0 {
			continue
		}
		if err := f(l); err != nil {
			return fmt.Errorf("interface %s: %w", a.Name, err)
		}
	}
	return nil
}

// describe finds out what an interface has.
func describe(link netlink.Link) (l inet.Link, addrs []netlink.Addr, routes []netlink.Route, err error) {
	a := link.Attrs()
	l = inet.Link{Index: a.Index, Name: a.Name, MTU: uint32(a.MTU), MAC: a.HardwareAddr}
	addrs, err = netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return l, nil, nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, ad := range addrs {
		if p, ok := prefix(ad.IPNet); ok {
			l.Addrs = append(l.Addrs, p)
		}
	}
	routes, err = netlink.RouteList(link, netlink.FAMILY_ALL)
	if err != nil {
		return l, nil, nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if t, ok := route(&r); ok {
			l.Routes = append(l.Routes, t)
		}
	}
	neighbors, err := netlink.NeighList(a.Index, netlink.FAMILY_ALL)
	if err != nil {
		return l, nil, nil, fmt.Errorf("list neighbours: %w", err)
	}
	for _, e := range neighbors {
		if ip, ok := netip.AddrFromSlice(e.IP); ok && e.State&netlink.NUD_PERMANENT != 0 && len(e.HardwareAddr) == 6 && !ip.IsMulticast() {
			l.Neighbors = append(l.Neighbors, inet.Neighbor{Addr: ip.Unmap(), MAC: e.HardwareAddr})
		}
	}
	return l, addrs, routes, nil
}

// take describes one interface, opens its packet socket and removes its addresses.
func (n *Network) take(link netlink.Link) error {
	l, addrs, routes, err := describe(link)
	if err != nil {
		return err
	}
	f, gso, err := packetSocket(l.Index, unix.ETH_P_ALL, true)
	if err != nil {
		return err
	}
	l.GSO = gso
	n.Links, n.files = append(n.Links, l), append(n.files, f)
	// First what rests on the addresses: their removal takes the routes with it.
	n.routes = append(n.routes, routes...)
	for i := range addrs {
		if err := netlink.AddrDel(link, &addrs[i]); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("remove the address %v: %w", addrs[i].IPNet, err)
		}
		addrs[i].Label = ""
		n.addrs[l.Index] = append(n.addrs[l.Index], addrs[i])
	}
	return nil
}

func prefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	ip, ok := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(ip.Unmap(), ones), ok
}

// route is a unicast route of the main table.
func route(r *netlink.Route) (t inet.Route, ok bool) {
	if r.Type != unix.RTN_UNICAST || r.Table != unix.RT_TABLE_MAIN || r.MultiPath != nil {
		return t, false
	}
	switch {
	case r.Dst != nil:
		if t.Dst, ok = prefix(r.Dst); !ok {
			return t, false
		}
	case r.Family == netlink.FAMILY_V6:
		t.Dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	default:
		t.Dst = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	if ip, ok := netip.AddrFromSlice(r.Gw); ok {
		t.Gateway = ip.Unmap()
	}
	if ip, ok := netip.AddrFromSlice(r.Src); ok {
		t.Source = ip.Unmap()
	}
	return t, !t.Dst.Addr().IsMulticast()
}

// packetSocket opens a packet socket on an interface for packets of a protocol (ETH_P_*). gso says whether it carries struct virtio_net_hdr, if vnet asks for it.
func packetSocket(index int, protocol uint16, vnet bool) (f *os.File, gso bool, err error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, false, fmt.Errorf("packet socket: %w", err)
	}
	f = os.NewFile(uintptr(fd), "packet")
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	gso = vnet && unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1) == nil
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		return nil, false, fmt.Errorf("PACKET_IGNORE_OUTGOING: %w", err)
	}
	const size = 4 << 20
	for _, o := range [][2]int{{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, o[0], size) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, o[1], size) // as much as the host allows
		}
	}
	if vnet {
		inet.MakeRing(fd)
	}
	network := protocol<<8 | protocol>>8 // its byte order
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: network, Ifindex: index}); err != nil {
		return nil, false, fmt.Errorf("bind the packet socket: %w", err)
	}
	return f, gso, nil
}
