package inet

import (
	"runtime"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/loopback"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

func testLoop(tb testing.TB) (*stack.Stack, *loopLink) {
	s := New(Config{})
	tb.Cleanup(func() { runtime.KeepAlive(s) }) // it ends with its Stack
	n := s.tcpip()
	l := &loopLink{LinkEndpoint: loopback.New(), HostLoop: HostLoop{UDP: 5000, TCP: 5001, FD: -1, Ports: true}, net: n, queries: map[query]tcpip.Endpoint{}}
	d := stack.NetworkDispatcher(noDispatcher{})
	l.dispatcher.Store(&d) // Attach starts nothing
	if err := n.CreateNICWithOptions(7, l, stack.NICOptions{Name: "lo7"}); err != nil {
		tb.Fatal(err)
	}
	n.AddProtocolAddress(7, tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber,
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: loopback4, PrefixLen: 8}}, stack.AddressProperties{})
	n.SetRouteTable([]tcpip.Route{{Destination: header.IPv4LoopbackSubnet, NIC: 7}})
	return n, l
}

func loopPacket(from, to tcpip.Address, src, dst uint16, data string) []byte {
	b := make([]byte, header.IPv4MinimumSize+header.UDPMinimumSize+len(data))
	header.IPv4(b).Encode(&header.IPv4Fields{TotalLength: uint16(len(b)), TTL: 64, Protocol: uint8(udp.ProtocolNumber)})
	header.UDP(b[header.IPv4MinimumSize:]).Encode(&header.UDPFields{Length: uint16(header.UDPMinimumSize + len(data))})
	copy(b[header.IPv4MinimumSize+header.UDPMinimumSize:], data)
	rewrite(b, b[header.IPv4MinimumSize:], from, to, src, dst)
	return b
}

// TestHostLoop: an answer of the name server reaches the socket that asked, with good checksums; one of anybody else does not; queries elsewhere are bounded.
func TestHostLoop(t *testing.T) {
	n, l := testLoop(t)
	var q waiter.Queue
	u, _ := n.NewEndpoint(udp.ProtocolNumber, ipv4.ProtocolNumber, &q)
	if err := u.Bind(tcpip.FullAddress{Port: 4000}); err != nil {
		t.Fatal(err)
	}
	for _, g := range loopGuests {
		l.take(loopPacket(dockerDNS, g[1], 5001, 4000, "not the port of UDP"))
		l.take(loopPacket(tcpip.AddrFrom4([4]byte{127, 0, 0, 12}), g[1], 5000, 4000, "not the server"))
		l.take(loopPacket(dockerDNS, g[0], 5000, 4000, "not for the container"))
		if u.Readiness(waiter.ReadableEvents) != 0 {
			t.Fatal("what is not the name server's was delivered")
		}
		l.take(loopPacket(dockerDNS, g[1], 5000, 4000, "answer"))
		b := make([]byte, 100)
		w := tcpip.SliceWriter(b)
		res, err := u.Read(&w, tcpip.ReadOptions{NeedRemoteAddr: true})
		if err != nil || string(b[:res.Count]) != "answer" || res.RemoteAddr.Addr != dockerDNS || res.RemoteAddr.Port != dnsPort {
			t.Fatal(res, err)
		}
	}
	for p := range uint16(3 * maxQueries) {
		l.take(loopPacket(loopHost, loopback4, 1000+p, dnsPort, "query"))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queries) != maxQueries || len(l.order) != maxQueries {
		t.Fatal(len(l.queries), len(l.order))
	}
}

// FuzzHostLoop: no packet of the host's lo makes the stack panic.
func FuzzHostLoop(f *testing.F) {
	f.Add(loopPacket(dockerDNS, loopGuests[0][1], 5000, 4000, "answer"))
	f.Add(loopPacket(loopHost, loopback4, 1000, dnsPort, "query"))
	_, l := testLoop(f)
	f.Fuzz(func(_ *testing.T, b []byte) { l.take(b) })
}
