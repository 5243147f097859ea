package inet

import (
	"encoding/binary"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/rawfile"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"moat/sentry/usermem"
)

// HostLoop is the way to the name server that Docker runs for a container: a process of the host with sockets on 127.0.0.11 in the container's network
// namespace, on ports that change. Docker has the host's iptables turn port 53 into them, which the sandbox's packets do not meet, so that its lo does it.
type HostLoop struct {
	// UDP and TCP are the ports.
	UDP, TCP uint16
	// Ports: connections to 127.0.0.1 there are the container's, from loopForward.
	Ports bool
	// FD is a packet socket that is bound to the namespace's lo.
	FD int
}

var (
	// LoopGuests/29 is what the container's loopback addresses are to the host's kernel, LoopHost the kernel's own address for its way out (RFC 6890, RFC 7600:
	// nobody else has them).
	LoopGuests = [4]byte{192, 0, 0, 8}
	LoopHost   = [4]byte{192, 0, 0, 9}

	dockerDNS = tcpip.AddrFrom4([4]byte{127, 0, 0, 11})
	loopHost  = tcpip.AddrFrom4(LoopHost)
	// loopForward is who connects to the container's ports by the host's lo.
	loopForward = tcpip.AddrFrom4([4]byte{127, 192, 0, 9})
	// loopGuests are those that a client of 127.0.0.11 can have: netstack's choice and Linux's, with what the kernel sees.
	loopGuests = [...][2]tcpip.Address{{dockerDNS, tcpip.AddrFrom4(LoopGuests)}, {loopback4, tcpip.AddrFrom4([4]byte{192, 0, 0, 10})}}
)

const (
	dnsPort = 53
	// maxQueries bounds the queries to servers elsewhere that wait for an answer: the oldest goes.
	maxQueries = 64
	// maxLoopFrame is the largest frame of the host's lo.
	maxLoopFrame = header.EthernetMinimumSize + maxDatagram
)

// loopLink is lo where there is a HostLoop: packets between 127.0.0.1 and the name server go through the packet socket, with other addresses and the
// server's port, all others stay. What the server asks of servers elsewhere leaves the host's kernel by its lo, and goes on by sockets of this stack.
type loopLink struct {
	stack.LinkEndpoint // loopback
	HostLoop
	file       *os.File
	net        *stack.Stack
	dispatcher atomic.Pointer[stack.NetworkDispatcher]

	mu sync.Mutex
	// +checklocks:mu
	closed bool
	// queries are the sockets of queries by the port that they came from, order the oldest first. +checklocks:mu
	queries map[query]tcpip.Endpoint
	// +checklocks:mu
	order []query
}

type query struct {
	port   uint16
	server tcpip.Address
}

func newLoopLink(lo stack.LinkEndpoint, h *HostLoop, n *stack.Stack) *loopLink {
	return &loopLink{LinkEndpoint: lo, HostLoop: *h, file: os.NewFile(uintptr(h.FD), "lo"), net: n, queries: make(map[query]tcpip.Endpoint)}
}

// Attach implements stack.LinkEndpoint.
func (l *loopLink) Attach(d stack.NetworkDispatcher) {
	l.LinkEndpoint.Attach(d)
	if d != nil && l.dispatcher.Swap(&d) == nil {
		go l.receive()
	}
}

// Close implements stack.LinkEndpoint. From then on the server is not reached, and lo is as any.
func (l *loopLink) Close() {
	l.mu.Lock()
	l.closed = true
	open := slices.Collect(maps.Values(l.queries))
	clear(l.queries)
	l.order = nil
	l.mu.Unlock()
	l.file.Close()
	for _, ep := range open {
		ep.Close()
	}
}

// WritePackets implements stack.LinkEndpoint.
func (l *loopLink) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	for _, pkt := range pkts.AsSlice() {
		if pkt.NetworkProtocolNumber == ipv4.ProtocolNumber && l.toHost(pkt) {
			continue
		}
		var one stack.PacketBufferList
		one.PushBack(pkt)
		if _, err := l.LinkEndpoint.WritePackets(one); err != nil {
			return 0, err
		}
	}
	return pkts.Len(), nil
}

// ports are the source's and the destination's of a TCP or UDP packet that is no fragment; ok is false for others.
func ports(b []byte) (ip header.IPv4, payload []byte, src, dst uint16, ok bool) {
	ip = header.IPv4(b)
	if len(b) < header.IPv4MinimumSize || !ip.IsValid(len(b)) || ip.More() || ip.FragmentOffset() != 0 {
		return ip, nil, 0, 0, false
	}
	ip = ip[:ip.TotalLength()]
	payload = ip.Payload()
	switch p := ip.TransportProtocol(); {
	case p == header.UDPProtocolNumber && len(payload) >= header.UDPMinimumSize, p == header.TCPProtocolNumber && len(payload) >= header.TCPMinimumSize:
		return ip, payload, binary.BigEndian.Uint16(payload), binary.BigEndian.Uint16(payload[2:]), true
	}
	return ip, nil, 0, 0, false
}

// rewrite gives a packet other addresses and ports, and its checksums.
func rewrite(ip header.IPv4, payload []byte, from, to tcpip.Address, src, dst uint16) {
	ip.SetSourceAddress(from)
	ip.SetDestinationAddress(to)
	ip.SetChecksum(0)
	ip.SetChecksum(^ip.CalculateChecksum())
	binary.BigEndian.PutUint16(payload, src)
	binary.BigEndian.PutUint16(payload[2:], dst)
	at := 16 // TCP's
	if ip.TransportProtocol() == header.UDPProtocolNumber {
		at = 6
	}
	sum := payload[at : at+2]
	clear(sum)
	c := ^checksum.Checksum(payload, header.PseudoHeaderChecksum(ip.TransportProtocol(), from, to, uint16(len(payload))))
	if c == 0 {
		c = 0xffff // 0 is none
	}
	binary.BigEndian.PutUint16(sum, c)
}

// serverPort is the port of the server for a protocol.
func (l *loopLink) serverPort(p tcpip.TransportProtocolNumber) uint16 {
	if p == header.UDPProtocolNumber {
		return l.UDP
	}
	return l.TCP
}

// toHost sends a packet for the name server there, or who has connected from there; false: it is for nobody there.
func (l *loopLink) toHost(pkt *stack.PacketBuffer) bool {
	to := header.IPv4(pkt.NetworkHeader().Slice()).DestinationAddress()
	if to != dockerDNS && to != loopForward {
		return false
	}
	v := pkt.ToView()
	defer v.Release()
	ip, payload, src, dst, ok := ports(v.AsSlice())
	if to == loopForward {
		if ok = ok && l.Ports && ip.SourceAddress() == loopback4 && ip.TransportProtocol() == header.TCPProtocolNumber; ok {
			rewrite(ip, payload, ip.SourceAddress(), loopHost, src, dst)
			l.send(ip)
		}
		return ok
	}
	for _, g := range loopGuests {
		if ok && dst == dnsPort && ip.SourceAddress() == g[0] && l.serverPort(ip.TransportProtocol()) != 0 {
			rewrite(ip, payload, g[1], dockerDNS, src, l.serverPort(ip.TransportProtocol()))
			l.send(ip)
			return true
		}
	}
	return false
}

// send gives the host's kernel a packet. What it does not take is lost.
func (l *loopLink) send(ip []byte) {
	b := make([]byte, header.EthernetMinimumSize, header.EthernetMinimumSize+len(ip))
	binary.BigEndian.PutUint16(b[12:], uint16(ipv4.ProtocolNumber))
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		_ = rawfile.NonBlockingWrite(l.FD, append(b, ip...))
	}
}

// receive takes what the host's kernel sends by its lo.
func (l *loopLink) receive() {
	b := make([]byte, maxLoopFrame)
	for {
		n, err := l.file.Read(b)
		if err != nil {
			return
		}
		if n > header.EthernetMinimumSize && header.Ethernet(b).Type() == ipv4.ProtocolNumber {
			l.take(b[header.EthernetMinimumSize:n])
		}
	}
}

// take delivers one packet of the host's kernel, of which nothing is believed: an answer to the container, or a query to a server elsewhere.
func (l *loopLink) take(b []byte) {
	ip, payload, src, dst, ok := ports(b)
	switch {
	case !ok:
	case ip.SourceAddress() == dockerDNS && src == l.serverPort(ip.TransportProtocol()):
		for _, g := range loopGuests {
			if ip.DestinationAddress() != g[1] {
				continue
			}
			l.deliver(ip, payload, dockerDNS, g[0], dnsPort, dst)
			return
		}
	case l.Ports && ip.SourceAddress() == loopHost && ip.DestinationAddress() == loopback4 && ip.TransportProtocol() == header.TCPProtocolNumber:
		l.deliver(ip, payload, loopForward, loopback4, src, dst)
	case ip.SourceAddress() == loopHost && dst == dnsPort && ip.TransportProtocol() == udp.ProtocolNumber:
		l.ask(query{src, ip.DestinationAddress()}, payload[header.UDPMinimumSize:])
	}
}

// deliver hands the container a packet, rewritten.
func (l *loopLink) deliver(ip header.IPv4, payload []byte, from, to tcpip.Address, src, dst uint16) {
	rewrite(ip, payload, from, to, src, dst)
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(ip)})
	(*l.dispatcher.Load()).DeliverNetworkPacket(ipv4.ProtocolNumber, pkt)
	pkt.DecRef()
}

// ask sends a query on by a socket of this stack.
func (l *loopLink) ask(q query, data []byte) {
	l.mu.Lock()
	ep := l.queries[q]
	l.mu.Unlock()
	if ep == nil {
		if ep = l.open(q); ep == nil {
			return
		}
	}
	c := newCursor(usermem.Bytes(data))
	_, _ = ep.Write(&c, tcpip.WriteOptions{}) // a query that is lost is asked again
}

// open makes the socket for a query, nil if there is no way to its server.
func (l *loopLink) open(q query) tcpip.Endpoint {
	w := &waiter.Queue{}
	ep, err := l.net.NewEndpoint(udp.ProtocolNumber, ipv4.ProtocolNumber, w)
	if err != nil {
		return nil
	}
	if err := ep.Connect(tcpip.FullAddress{Addr: q.server, Port: dnsPort}); err != nil {
		ep.Close()
		return nil
	}
	e := waiter.NewFunctionEntry(waiter.ReadableEvents, func(waiter.EventMask) { l.answer(q, ep) })
	w.EventRegister(&e)
	var old tcpip.Endpoint
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		ep.Close()
		return nil
	}
	if len(l.order) == maxQueries {
		old = l.queries[l.order[0]]
		delete(l.queries, l.order[0])
		l.order = l.order[1:]
	}
	l.queries[q], l.order = ep, append(l.order, q)
	l.mu.Unlock()
	if old != nil {
		old.Close()
	}
	return ep
}

// answer gives the host's kernel what came for a query.
func (l *loopLink) answer(q query, ep tcpip.Endpoint) {
	b := make([]byte, maxDatagram)
	const head = header.IPv4MinimumSize + header.UDPMinimumSize
	for {
		w := tcpip.SliceWriter(b[head:])
		res, err := ep.Read(&w, tcpip.ReadOptions{})
		if err != nil {
			return
		}
		p := header.IPv4(b[:head+res.Count])
		p.Encode(&header.IPv4Fields{TotalLength: uint16(len(p)), TTL: 64, Protocol: uint8(udp.ProtocolNumber)})
		header.UDP(p[header.IPv4MinimumSize:]).Encode(&header.UDPFields{Length: uint16(len(p) - header.IPv4MinimumSize)})
		rewrite(p, p[header.IPv4MinimumSize:], q.server, loopHost, dnsPort, q.port)
		l.send(p)
	}
}
