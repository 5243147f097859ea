// Package inet has the sockets of AF_INET, AF_INET6 and AF_PACKET on netstack (gvisor.dev/gvisor/pkg/tcpip), the links of the sandbox, and what
// /proc/net and netlink tell of both.
//
// A link is a packet socket of the host (packetlink.go), small frames from which lie in a ring (ring.go).
//
// A Stack belongs to a network namespace. Its netstack is made when the first socket or question needs it: a sandbox without network programs
// does not pay for one. A socket is a netstack endpoint with what netstack lacks of Linux around it: readiness, errors that are told once, sockets that can
// be connected anew, options that are kept, bounds.
//
// Locks: sock.mu guards a socket's own state and is not held over calls of netstack that deliver packets (Write, Connect, Close). Stack.mu guards the lists of
// sockets and the tables of iptables; only netstack's lock of its tables is taken under it. acks.mu guards what a link holds back; nothing is called under it. Waiter queues are notified by netstack, without locks of this package.
//
// Bounds: buffers of a socket are SO_SNDBUF's and SO_RCVBUF's (queue.go), error queues maxErrors, sockets of a stack maxSockets, connections that nobody holds any more
// (TIME_WAIT and the like) maxOrphans, of which the oldest goes first; packets for neighbours that do not answer maxUnresolved.
package inet

import (
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/loopback"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/raw"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"moat/platform"
	"moat/sentry/fs/hostfd"
	"moat/sentry/kernel"
	"moat/sentry/net/hostsock"
)

const (
	// loNIC is the loopback interface's index.
	loNIC tcpip.NICID = 1
	// maxSockets bounds the sockets of a stack that are open, maxOrphans the TCP connections that live on after close(2) (net.ipv4.tcp_max_tw_buckets).
	maxSockets = 1 << 18
	maxOrphans = 8192
)

// Stack is the network stack of a namespace.
type Stack struct {
	conf Config
	once sync.Once
	net  *stack.Stack
	// loop is the way to a name server on the host's lo, and lo then; nil if there is none.
	loop *HostLoop
	lo   *loopLink
	// links are the interfaces beside lo that it began with.
	links []Link
	// host makes the sockets if it is not nil; the netstack is then only what the tables show.
	host *hostsock.Net

	open atomic.Int64
	// queues counts the sockets that queue datagrams, packets what went in, for sweeps.
	queues, packets atomic.Int64
	// lag is by how much the packets sent were more than those that left when that was last looked at, unresolved when neighbours were last given up for it.
	lag, unresolved atomic.Int64
	// attender waits for the links' frames, if there is one.
	attender platform.Attender
	// OnLink is called of an interface that was changed by ioctl(2), or that is gone.
	OnLink atomic.Pointer[func(n *NIC, gone bool)]
	// firstPort is the first that everybody may bind to.
	firstPort atomic.Int32

	mu sync.Mutex
	// iptables are the tables that were set. +checklocks:mu
	iptables map[string]*table
	// socks are the open sockets. +checklocks:mu
	socks map[*sock]struct{}
	// late are connections whose data waits. +checklocks:mu
	late []*sock
	// orphans are endpoints of closed sockets whose connections are not over, oldest first. +checklocks:mu
	orphans []tcpip.Endpoint
}

// Config says what a stack has.
type Config struct {
	// LoopbackUp: lo has its addresses and works from the start. In a new namespace it is down.
	LoopbackUp bool
}

// New returns a stack. Nothing is made of it before it is used.
func New(c Config) *Stack {
	s := &Stack{conf: c, socks: make(map[*sock]struct{})}
	s.firstPort.Store(1024)
	return s
}

// AddLinks puts lo up and gives the stack interfaces beside it, which answer their neighbours from now on. What they carry is written to pcap if that is not nil; loop
// and a, which waits for frames, may be nil. It takes over the descriptors, and is called before anything else uses the stack.
func (s *Stack) AddLinks(links []Link, loop *HostLoop, a platform.Attender, pcap *os.File) error {
	s.conf.LoopbackUp, s.loop, s.attender = true, loop, a
	if len(links) == 0 {
		return nil
	}
	err := s.addLinks(s.tcpip(), links, pcap)
	for _, l := range links[len(s.links):] {
		unix.Close(l.FD)
	}
	return err
}

// RemoveLinks takes away what AddLinks has given, without an Attender, and closes the descriptors.
func (s *Stack) RemoveLinks() {
	for _, l := range s.links {
		_ = s.tcpip().RemoveNIC(tcpip.NICID(l.Index)) // it may be gone by now
	}
	if s.lo != nil {
		s.lo.Close()
	}
}

// Links are the interfaces beside lo that the stack began with.
func (s *Stack) Links() []Link { return s.links }

// UseHost makes the sockets of the stack the host kernel's. It is called before the first and before the filter is in force.
func (s *Stack) UseHost(p *hostfd.Poller) { s.host = hostsock.NewNet(p, &s.firstPort) }

// NewNamespace makes the stack of a new network namespace (kernel.Hooks.NewNetStack).
func NewNamespace() any { return New(Config{}) }

// Of is the stack of a namespace; nil if it has none.
func Of(ns *kernel.NetNamespace) *Stack {
	s, _ := ns.Stack.(*Stack)
	return s
}

// tcpip returns the netstack, made by the first call.
func (s *Stack) tcpip() *stack.Stack {
	s.once.Do(s.build)
	return s.net
}

// building is held while GOMAXPROCS is as many goroutines as netstack shall have for segments: with one for each CPU, those that handle a listener's
// connections spin for its lock.
var building sync.Mutex

func (s *Stack) build() {
	building.Lock()
	cpus := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(max(cpus/4, 1))
	n := stack.New(stack.Options{
		NetworkProtocols: []stack.NetworkProtocolFactory{ipv4.NewProtocol,
			ipv6.NewProtocolWithOptions(ipv6.Options{DADConfigs: stack.DADConfigurations{DupAddrDetectTransmits: 0}}), arp.NewProtocol},
		TransportProtocols:       []stack.TransportProtocolFactory{tcp.NewProtocolCUBIC, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
		HandleLocal:              true,
		Clock:                    clock{tcpip.NewStdClock()},
		RawFactory:               raw.EndpointFactory{},
		AllowPacketEndpointWrite: true,
	})
	runtime.GOMAXPROCS(cpus)
	building.Unlock()
	set := func(o tcpip.SettableTransportProtocolOption) { _ = n.SetTransportProtocolOption(tcp.ProtocolNumber, o) }
	// net.ipv4.tcp_wmem.
	set(&tcpip.TCPSendBufferSizeRangeOption{Min: 4096, Default: 16384, Max: maxSend})
	set(&tcpip.TCPReceiveBufferSizeRangeOption{Min: 4096, Default: 1 << 20, Max: 6291456})
	delay := tcpip.TCPDelayEnabled(true)
	set(&delay)
	_ = n.SetOption(tcpip.SendBufferSizeOption{Min: 4608, Default: 212992, Max: 2 * 212992})
	_ = n.SetOption(tcpip.ReceiveBufferSizeOption{Min: 2304, Default: 212992, Max: 2 * 212992})
	_ = n.SetPortRange(32768, 60999)
	for _, p := range []tcpip.NetworkProtocolNumber{ipv4.ProtocolNumber, ipv6.ProtocolNumber} {
		ttl := tcpip.DefaultTTLOption(64)
		_ = n.SetNetworkProtocolOption(p, &ttl)
	}
	// The options above are constants within netstack's bounds, and so are the loopback's: none of them can fail.
	lo := loopback.New()
	if s.loop != nil {
		s.lo = newLoopLink(lo, s.loop, n)
		lo = s.lo
	}
	_ = n.CreateNICWithOptions(loNIC, lo, stack.NICOptions{Name: "lo", Disabled: !s.conf.LoopbackUp, DeliverLinkPackets: true, QDisc: &acks{LinkWriter: lo}})
	s.net = n
	if s.conf.LoopbackUp {
		s.loopbackAddresses()
	}
	n.SetRouteTable([]tcpip.Route{{Destination: header.IPv4LoopbackSubnet, NIC: loNIC}, {Destination: loSubnet6, NIC: loNIC}})
	// A namespace that nobody can reach any more ends with its goroutines.
	runtime.AddCleanup(s, func(n *stack.Stack) { go n.Destroy() }, n)
}

var loSubnet6 = (tcpip.AddressWithPrefix{Address: header.IPv6Loopback, PrefixLen: 128}).Subnet()

func (s *Stack) loopbackAddresses() {
	for p, a := range map[tcpip.NetworkProtocolNumber]tcpip.AddressWithPrefix{
		ipv4.ProtocolNumber: {Address: loopback4, PrefixLen: 8}, ipv6.ProtocolNumber: {Address: header.IPv6Loopback, PrefixLen: 128},
	} {
		_ = s.net.AddProtocolAddress(loNIC, tcpip.ProtocolAddress{Protocol: p, AddressWithPrefix: a}, stack.AddressProperties{})
	}
}

var loopback4 = tcpip.AddrFrom4([4]byte{127, 0, 0, 1})

// add enters an open socket: ENOBUFS if there are too many.
func (s *Stack) add(k *sock) error {
	if s.open.Add(1) > maxSockets {
		s.open.Add(-1)
		return unix.ENOBUFS
	}
	if !k.tcp() {
		s.queues.Add(1)
	}
	s.mu.Lock()
	s.socks[k] = struct{}{}
	s.mu.Unlock()
	return nil
}

// remove takes a closed socket out; ep, if it is not nil, goes on without it until its connection is over.
func (s *Stack) remove(k *sock, ep tcpip.Endpoint) {
	s.open.Add(-1)
	if !k.tcp() {
		s.queues.Add(-1)
	}
	var drop tcpip.Endpoint
	s.mu.Lock()
	delete(s.socks, k)
	if ep != nil {
		s.pruneLocked()
		if s.orphans = append(s.orphans, ep); len(s.orphans) > maxOrphans {
			drop, s.orphans = s.orphans[0], s.orphans[1:]
		}
	}
	s.mu.Unlock()
	if drop != nil {
		drop.Abort()
	}
}

// pruneLocked forgets the oldest orphans that are over, a few at a time. +checklocks:s.mu
func (s *Stack) pruneLocked() {
	for range 4 {
		if len(s.orphans) == 0 || !over(s.orphans[0]) {
			return
		}
		s.orphans[0] = nil
		s.orphans = s.orphans[1:]
	}
}

func over(ep tcpip.Endpoint) bool {
	st := tcp.EndpointState(ep.State())
	return st == tcp.StateClose || st == tcp.StateError
}

// sockets are the open sockets, for tables.
func (s *Stack) sockets() []*sock {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := make([]*sock, 0, len(s.socks))
	for k := range s.socks {
		l = append(l, k)
	}
	return l
}
