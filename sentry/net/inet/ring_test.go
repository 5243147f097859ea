package inet

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// payloads are what came in UDP datagrams.
type payloads struct {
	stack.NetworkDispatcher
	got [][]byte
}

func (p *payloads) DeliverNetworkPacket(_ tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	if b := pkt.Data().AsRange().ToSlice(); b[9] == unix.IPPROTO_UDP {
		p.got = append(p.got, b[28:])
	}
}

// TestRing: frames come in order, whole and once, whether they fit in a place of the ring or not; more than there are places are lost, and nothing else. An error of
// the link is taken.
func TestRing(t *testing.T) {
	runtime.LockOSThread() // it ends with the test, and its namespace with it
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skip("no network namespace: ", err)
	}
	lo := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "lo", Index: 1}}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for _, o := range []int{unix.PACKET_VNET_HDR, unix.PACKET_IGNORE_OUTGOING} {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, o, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20); err != nil {
		t.Fatal(err)
	}
	MakeRing(fd)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: unix.ETH_P_ALL << 8, Ifindex: 1}); err != nil {
		t.Fatal(err)
	}
	mac := tcpip.LinkAddress(make([]byte, 6))
	p := &packetLink{Endpoint: channel.New(0, 65535, mac), fd: fd, gso: true, mac: mac, st: &Stack{}, slots: make([]slot, batch), ring: newRing(fd)}
	if p.ring.mem == nil {
		t.Fatal("there is no ring")
	}
	defer unix.Munmap(p.ring.mem)
	in := &payloads{}
	p.Endpoint.Attach(in)
	out, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(out)
	to := &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}}
	if err := unix.Bind(out, to); err != nil { // what nobody gets would be answered
		t.Fatal(err)
	}
	send := func(number uint32, size int) {
		b := binary.LittleEndian.AppendUint32(nil, number)
		b = append(b, bytes.Repeat([]byte{byte(number)}, size-4)...)
		if err := unix.Sendto(out, b, 0, to); err != nil {
			t.Fatal(err)
		}
	}
	check := func(sizes ...int) {
		t.Helper()
		for p.receive() {
		}
		if len(in.got) != len(sizes) {
			t.Fatalf("%d datagrams came of %d", len(in.got), len(sizes))
		}
		for i, b := range in.got {
			if len(b) != sizes[i] || binary.LittleEndian.Uint32(b) != uint32(i) || bytes.Count(b[4:], []byte{byte(i)}) != len(b)-4 {
				t.Fatalf("datagram %d: %d bytes of %d, of datagram %d", i, len(b), sizes[i], binary.LittleEndian.Uint32(b))
			}
		}
		in.got = nil
	}
	for _, sizes := range [][]int{{4}, {300, 1400, 5}, {60000, 60000, 20, 30, 1400, 7}, {370, 371, 372, 373, 374, 375, 376, 377, 378, 379, 380, 381, 382, 383, 384, 385, 386, 387, 388, 389, 390}, {}} {
		for round := range 100 {
			for i, n := range sizes {
				send(uint32(i), n)
			}
			if check(sizes...); t.Failed() {
				t.Fatal("round", round)
			}
		}
	}
	const places = ringSize / ringFrame
	all := make([]int, places+places/2)
	for i := range all {
		all[i] = 4 + i%2*1000
		send(uint32(i), all[i])
	}
	check(all[:places]...)
	send(0, 4)
	check(4)

	if err := netlink.LinkSetDown(lo); err != nil {
		t.Fatal(err)
	}
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 0); n != 1 || fds[0].Revents&unix.POLLERR == 0 {
		t.Fatal("the link that is down tells nothing:", fds[0].Revents, err)
	}
	for range 2 * maxVain {
		p.receive()
	}
	if n, _ := unix.Poll(fds, 0); n != 0 {
		t.Fatal("its error stays:", fds[0].Revents)
	}
}
