package inet

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

var testMAC = tcpip.LinkAddress("\x02\x00\x00\x00\x00\x01")

// testLink is a stack with a link whose descriptor is not there: what it sends is lost.
func testLink(tb testing.TB) (*stack.Stack, *packetLink) {
	s := New(Config{LoopbackUp: true})
	n := s.tcpip()
	p := &packetLink{Endpoint: channel.New(0, 1500, testMAC), fd: -1, gso: true, mac: testMAC, st: &Stack{}}
	p.SupportedGSOKind = stack.HostGSOSupported
	p.receives.Store(true) // Attach starts nothing
	if err := n.CreateNICWithOptions(2, p, stack.NICOptions{Name: "eth0", DeliverLinkPackets: true}); err != nil {
		tb.Fatal(err)
	}
	for proto, a := range map[tcpip.NetworkProtocolNumber]tcpip.Address{
		ipv4.ProtocolNumber: tcpip.AddrFrom4([4]byte{10, 0, 0, 1}), ipv6.ProtocolNumber: tcpip.AddrFrom16([16]byte{0: 0xfd, 15: 1}),
	} {
		n.AddProtocolAddress(2, tcpip.ProtocolAddress{Protocol: proto, AddressWithPrefix: tcpip.AddressWithPrefix{Address: a, PrefixLen: 24}}, stack.AddressProperties{})
	}
	tb.Cleanup(func() { runtime.KeepAlive(s) }) // the netstack ends with it
	return n, p
}

type noDispatcher struct{ stack.NetworkDispatcher }

func (p *packetLink) inject(frame []byte, flags byte) {
	p.deliver([]byte{flags, 9: 0}, buffer.MakeWithData(frame))
}

// FuzzFrame: no frame from a wire makes the stack panic, with a listening and a connecting TCP socket, a UDP socket and a packet socket behind it.
func FuzzFrame(f *testing.F) {
	for _, h := range []string{
		"020000000001020000000002080045000028000100004006000a0a0000020a00000103e8005000000001000000005002200000000000",
		"0200000000010200000000020800450000200001000040110000" + "0a0000020a00000103e80035000c0000" + "61626364",
		"02000000000102000000000286dd6000000000083aff" + "fd000000000000000000000000000002" + "fd000000000000000000000000000001" + "8000000000010001",
		"ffffffffffff0200000000020806000108000604000102000000000" + "20a0000020000000000000a000001",
		"02000000000102000000000208004500001c00012000401100000a0000020a00000103e80035000c0000",
	} {
		b, err := hex.DecodeString(h)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, byte(0))
		f.Add(b, byte(vnetValid))
	}
	n, p := testLink(f)
	var q waiter.Queue
	l, _ := n.NewEndpoint(tcp.ProtocolNumber, ipv4.ProtocolNumber, &q)
	l.Bind(tcpip.FullAddress{Port: 80})
	l.Listen(10)
	u, _ := n.NewEndpoint(udp.ProtocolNumber, ipv6.ProtocolNumber, &q)
	u.Bind(tcpip.FullAddress{Port: 53})
	n.NewPacketEndpoint(true, header.IPv4ProtocolNumber, &q)
	f.Fuzz(func(t *testing.T, frame []byte, flags byte) {
		if len(frame) > smallFrame+bigFrame {
			return
		}
		p.inject(frame, flags)
	})
}

// TestChecksum: what the host vouches for is taken, what it does not is verified.
func TestChecksum(t *testing.T) {
	n, p := testLink(t)
	var q waiter.Queue
	u, _ := n.NewEndpoint(udp.ProtocolNumber, ipv4.ProtocolNumber, &q)
	if err := u.Bind(tcpip.FullAddress{Port: 53}); err != nil {
		t.Fatal(err)
	}
	b, _ := hex.DecodeString("020000000001020000000002080045000020000100004011" + "0000" + "0a0000020a00000103e80035000c0000" + "61626364")
	ip := header.IPv4(b[14:])
	ip.SetChecksum(^ip.CalculateChecksum())
	datagram := header.UDP(b[34:])
	sum := header.PseudoHeaderChecksum(udp.ProtocolNumber, ip.SourceAddress(), ip.DestinationAddress(), 12)
	datagram.SetChecksum(^datagram.CalculateChecksum(sum + binary.BigEndian.Uint16([]byte("ab")) + binary.BigEndian.Uint16([]byte("cd"))))
	received := func() bool { return u.Readiness(waiter.ReadableEvents) != 0 }
	drain := func() { u.Read(&discard{100}, tcpip.ReadOptions{}) }
	if p.inject(b, 0); !received() {
		t.Fatal("a good checksum was refused")
	}
	drain()
	b[len(b)-1] ^= 1
	if p.inject(b, 0); received() {
		t.Fatal("a bad checksum was taken")
	}
	if p.inject(b, vnetNeedsCsum); !received() {
		t.Fatal("what the host vouches for was refused")
	}
	drain()
	b[0] ^= 4
	if p.inject(b, vnetValid); received() {
		t.Fatal("a frame for another was taken")
	}
}

// TestVnetHeader: a large TCP segment is described for the host to cut.
func TestVnetHeader(t *testing.T) {
	p := &packetLink{gso: true}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: 100, Payload: buffer.MakeWithData(make([]byte, 5000))})
	defer pkt.DecRef()
	pkt.TransportHeader().Push(20)
	pkt.NetworkHeader().Push(20)
	pkt.LinkHeader().Push(14)
	pkt.GSOOptions = stack.GSO{Type: stack.GSOTCPv6, NeedsCsum: true, CsumOffset: 16, MSS: 1400, L3HdrLen: 20}
	var h [vnetSize]byte
	p.vnetHeader(&h, pkt)
	if want := [vnetSize]byte{1, vnetTCP6, 54, 0, 0x78, 5, 34, 0, 16, 0}; h != want {
		t.Fatal(h, want)
	}
}

// looker is a platform that looks as long as it says so.
type looker struct{ looks bool }

func (*looker) Attend(int, func() bool, func()) {}
func (l *looker) Looks() bool                   { return l.looks }

func (l *looker) Leave() {}

// TestBatch: frames wait for each other while somebody looks, and only then; they go out whole and in order, but for one that the host refuses.
func TestBatch(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	look := &looker{looks: true}
	p := &packetLink{fd: fds[0], st: &Stack{attender: look}}
	next := 0
	send := func(sizes ...int) {
		var l stack.PacketBufferList
		defer l.DecRef()
		for _, n := range sizes {
			pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: 20, Payload: buffer.MakeWithData(bytes.Repeat([]byte{byte(next)}, n))})
			pkt.LinkHeader().Push(14)[13] = byte(next)
			l.PushBack(pkt)
			next++
		}
		if n, _ := p.WritePackets(l); n != len(sizes) {
			t.Fatalf("%d of %d taken", n, len(sizes))
		}
	}
	big := make([]byte, 1<<20)
	expect := func(numbers ...int) {
		t.Helper()
		for _, want := range numbers {
			if n, err := unix.Read(fds[1], big); n != 14+want || err != nil || big[13] != byte(want) || big[n-1] != byte(want) {
				t.Fatalf("frame %d: %d bytes of %d, %v", want, n, big[13], err)
			}
		}
		if n, err := unix.Read(fds[1], big); err != unix.EAGAIN {
			t.Fatalf("%d bytes more, %v", n, err)
		}
	}
	next = 1
	send(1)
	send(2, 3)
	expect()
	p.flush()
	expect(1, 2, 3)
	send(4)
	look.looks = false
	send(5)
	expect(4, 5)
	send(6, len(big), 8)
	expect(6, 8)
	look.looks = true
	var all []int
	for next <= 8+outBatch {
		all = append(all, next)
		send(next)
	}
	expect(all...)
}

// TestRelieve: a neighbour that does not answer is given up after many packets to it, and not after a few. As long as there are many, connections are made by SYN
// cookies.
func TestRelieve(t *testing.T) {
	n, p := testLink(t)
	null, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	raw, _ := null.SyscallConn()
	_ = raw.Control(func(fd uintptr) { p.fd = int(fd) })
	// What does not fit is dropped.
	if err := unix.Connect(p.fd, &unix.SockaddrInet4{Port: null.LocalAddr().(*net.UDPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	s := &Stack{net: n}
	s.once.Do(func() {})
	n.AddRoute(tcpip.Route{Destination: header.IPv4EmptySubnet, NIC: 2})
	ep, e := n.NewEndpoint(udp.ProtocolNumber, ipv4.ProtocolNumber, &waiter.Queue{})
	if e != nil {
		t.Fatal(e)
	}
	defer ep.Close()
	send := func(k int) (asked bool) {
		for range k {
			_, _ = ep.Write(bytes.NewReader([]byte{1}), tcpip.WriteOptions{To: &tcpip.FullAddress{NIC: 2, Addr: tcpip.AddrFrom4([4]byte{10, 0, 0, 9}), Port: 9}}) // what waits too long is dropped
		}
		time.Sleep(resolveTime + 10*time.Millisecond)
		s.relieve()
		l, e := n.Neighbors(2, ipv4.ProtocolNumber)
		if e != nil {
			t.Fatal(e)
		}
		return slices.ContainsFunc(l, func(n stack.NeighborEntry) bool { return n.State == stack.Incomplete })
	}
	if !send(maxUnresolved / 2) {
		t.Error("a neighbour is given up at once")
	}
	if send(maxUnresolved) {
		t.Error("a neighbour is asked for without end")
	}
	cookies := func() bool {
		var o tcpip.TCPAlwaysUseSynCookies
		if err := n.TransportProtocolOption(tcp.ProtocolNumber, &o); err != nil {
			t.Fatal(err)
		}
		return bool(o)
	}
	if !cookies() {
		t.Error("a flood makes half-open connections")
	}
	if send(1); cookies() {
		t.Error("SYN cookies outlive the flood")
	}
}
