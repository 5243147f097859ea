package inet

import (
	"encoding/binary"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/rawfile"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// vnetSize is sizeof(struct virtio_net_hdr), vnetNeedsCsum and vnetValid are its flags: the host's kernel has not made the checksum yet (the packet
	// comes from this machine), or has verified it.
	vnetSize      = 10
	vnetNeedsCsum = 1
	vnetValid     = 2
	vnetTCP4      = 1
	vnetTCP6      = 4
	// batch is how many frames one call receives.
	batch = 8
	// smallFrame holds a frame of an Ethernet without segments that the host has joined, bigFrame the rest of one with.
	smallFrame = 2048
	bigFrame   = 65536
	// gsoMax is the largest TCP segment that is handed to the host to be cut.
	gsoMax = 65536 - 256
)

// packetLink is a link endpoint on a packet socket of the host. fdbased, netstack's own, takes every checksum for good, so that what a wire has corrupted
// would reach programs; here the host says of each packet whether it vouches for the checksum (PACKET_VNET_HDR), and the stack verifies it if not.
type packetLink struct {
	file *os.File
	raw  syscall.RawConn
	fd   int
	gso  bool
	mac  tcpip.LinkAddress
	mtu  atomic.Uint32
	// unverified: the host does not vouch for the checksums of the packet that is being delivered, and the stack must verify them.
	unverified atomic.Bool
	wg         sync.WaitGroup
	// delivered is told how many frames went to the stack.
	delivered func(n int64)
	// dispatcher is nil before the first Attach.
	dispatcher atomic.Pointer[stack.NetworkDispatcher]
}

// newPacketLink takes over the descriptor of l. It must be called while the host's epoll_ctl(2) may be.
func newPacketLink(l *Link, delivered func(n int64)) (*packetLink, error) {
	if err := unix.SetNonblock(l.FD, true); err != nil {
		return nil, err
	}
	p := &packetLink{file: os.NewFile(uintptr(l.FD), l.Name), fd: l.FD, gso: l.GSO, mac: tcpip.LinkAddress(l.MAC), delivered: delivered}
	p.mtu.Store(l.MTU)
	var err error
	p.raw, err = p.file.SyscallConn()
	return p, err
}

// Attach implements stack.LinkEndpoint.
func (p *packetLink) Attach(d stack.NetworkDispatcher) {
	if p.dispatcher.Swap(&d) == nil {
		p.wg.Go(p.receive)
	}
}

// IsAttached implements stack.LinkEndpoint.
func (p *packetLink) IsAttached() bool {
	d := p.dispatcher.Load()
	return d != nil && *d != nil
}

// slot is where one frame is received: most end in small, and are copied into a buffer of their size, so that what the stack keeps of them costs no more.
type slot struct {
	vnet  [vnetSize]byte
	small [smallFrame]byte
	big   *buffer.View
	iov   [3]unix.Iovec
}

// fill makes the slot ready.
func (s *slot) fill(h *rawfile.MMsgHdr, gso bool) {
	if s.big == nil {
		s.big = buffer.NewViewSize(bigFrame)
		s.iov = [3]unix.Iovec{rawfile.IovecFromBytes(s.vnet[:]), rawfile.IovecFromBytes(s.small[:]), rawfile.IovecFromBytes(s.big.AsSlice())}
	}
	v := s.iov[:]
	if !gso {
		v = v[1:]
	}
	h.Msg.Iov = &v[0]
	h.Msg.SetIovlen(len(v))
}

// take returns the n bytes of a frame that were received.
func (s *slot) take(n int) buffer.Buffer {
	b := buffer.MakeWithData(s.small[:min(n, smallFrame)])
	if n > smallFrame {
		s.big.CapLength(n - smallFrame)
		_ = b.Append(s.big)
		s.big = nil
	}
	return b
}

// receive delivers frames until the descriptor is closed.
func (p *packetLink) receive() {
	slots := make([]slot, batch) // never moves: the host is given its addresses
	var hdrs [batch]rawfile.MMsgHdr
	_ = p.raw.Read(func(fd uintptr) bool { // which waits for more, and for no less than what comes after, when it is told false
		for {
			for i := range slots {
				slots[i].fill(&hdrs[i], p.gso)
			}
			n, errno := recvmmsg(int(fd), hdrs[:])
			for i := range max(n, 0) {
				p.deliver(&slots[i], int(hdrs[i].Len))
			}
			p.delivered(int64(max(n, 0)))
			if errno == unix.EAGAIN || 0 < n && n < batch {
				return false
			}
		}
	})
}

// deliver hands one frame to the stack. Nothing of it is believed.
func (p *packetLink) deliver(s *slot, n int) {
	valid, unfinished := false, false
	if p.gso {
		if n < vnetSize {
			return
		}
		n -= vnetSize
		valid, unfinished = s.vnet[0]&vnetValid != 0, s.vnet[0]&vnetNeedsCsum != 0
	}
	if n < header.EthernetMinimumSize || n > smallFrame+bigFrame {
		return
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: s.take(n)})
	defer pkt.DecRef()
	if !p.ParseHeader(pkt) {
		return
	}
	dst := header.Ethernet(pkt.LinkHeader().Slice()).DestinationAddress()
	switch {
	case dst == p.mac:
		pkt.PktType = tcpip.PacketHost
	case dst == header.EthernetBroadcastAddress:
		pkt.PktType = tcpip.PacketBroadcast
	case dst[0]&1 != 0:
		pkt.PktType = tcpip.PacketMulticast
	default:
		return // another's, on a link that floods
	}
	if d := *p.dispatcher.Load(); d != nil {
		p.unverified.Store(!unfinished && !(valid && whole(pkt))) // what the host has not finished it has not cut
		d.DeliverNetworkPacket(pkt.NetworkProtocolNumber, pkt)    // which asks for the capabilities
	}
}

// whole reports that a packet is of TCP or UDP and no fragment, whose checksum would be that of more than it has.
func whole(pkt *stack.PacketBuffer) bool {
	b, ok := pkt.Data().PullUp(header.IPv4MinimumSize)
	if ip := header.IPv4(b); ok && pkt.NetworkProtocolNumber == header.IPv4ProtocolNumber {
		return !ip.More() && ip.FragmentOffset() == 0
	}
	next := header.IPv6(b).NextHeader // looks at no more than an IPv4 header has
	return ok && (next() == uint8(header.TCPProtocolNumber) || next() == uint8(header.UDPProtocolNumber))
}

// WritePackets implements stack.LinkEndpoint. What the host does not take is lost, as on a wire.
func (p *packetLink) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	done := 0
	for _, pkt := range pkts.AsSlice() {
		views := pkt.AsSlices()
		var arr [8]unix.Iovec
		iov := arr[:0]
		var h [vnetSize]byte
		if p.gso {
			p.vnetHeader(h[:], pkt)
			iov = append(iov, rawfile.IovecFromBytes(h[:]))
		}
		for _, v := range views {
			if len(v) > 0 {
				iov = append(iov, rawfile.IovecFromBytes(v))
			}
		}
		if len(iov) > rawfile.MaxIovs {
			return done, &tcpip.ErrMessageTooLong{}
		}
		if errno := rawfile.NonBlockingWriteIovec(p.fd, iov); errno != 0 {
			return done, tcpip.TranslateErrno(errno)
		}
		done++
	}
	return done, nil
}

// vnetHeader describes a packet whose checksum is not made, or that the host is to cut.
func (p *packetLink) vnetHeader(h []byte, pkt *stack.PacketBuffer) {
	o := &pkt.GSOOptions
	if o.Type == stack.GSONone || !o.NeedsCsum {
		return
	}
	le := binary.LittleEndian
	h[0] = vnetNeedsCsum
	le.PutUint16(h[2:], uint16(pkt.HeaderSize()))
	le.PutUint16(h[6:], header.EthernetMinimumSize+o.L3HdrLen)
	le.PutUint16(h[8:], o.CsumOffset)
	if pkt.Data().Size() > int(o.MSS) {
		if h[1] = vnetTCP4; o.Type == stack.GSOTCPv6 {
			h[1] = vnetTCP6
		}
		le.PutUint16(h[4:], o.MSS)
	}
}

// GSOMaxSize implements stack.GSOEndpoint.
func (p *packetLink) GSOMaxSize() uint32 {
	if p.gso {
		return gsoMax
	}
	return 0
}

// SupportedGSO implements stack.GSOEndpoint.
func (p *packetLink) SupportedGSO() stack.SupportedGSO {
	if p.gso {
		return stack.HostGSOSupported
	}
	return stack.GSONotSupported
}

// AddHeader implements stack.LinkEndpoint.
func (p *packetLink) AddHeader(pkt *stack.PacketBuffer) {
	header.Ethernet(pkt.LinkHeader().Push(header.EthernetMinimumSize)).Encode(&header.EthernetFields{
		SrcAddr: pkt.EgressRoute.LocalLinkAddress, DstAddr: pkt.EgressRoute.RemoteLinkAddress, Type: pkt.NetworkProtocolNumber,
	})
}

// ParseHeader implements stack.LinkEndpoint.
func (p *packetLink) ParseHeader(pkt *stack.PacketBuffer) bool {
	b, ok := pkt.LinkHeader().Consume(header.EthernetMinimumSize)
	if ok {
		pkt.NetworkProtocolNumber = header.Ethernet(b).Type()
	}
	return ok
}

// MTU implements stack.LinkEndpoint, and so do those below.
func (p *packetLink) MTU() uint32 { return p.mtu.Load() }

// SetMTU may only lower what the host's link carries.
func (p *packetLink) SetMTU(mtu uint32) { p.mtu.Store(mtu) }

// MaxHeaderLength is an Ethernet header's.
func (*packetLink) MaxHeaderLength() uint16 { return header.EthernetMinimumSize }

// LinkAddress is the hardware address.
func (p *packetLink) LinkAddress() tcpip.LinkAddress { return p.mac }

// SetLinkAddress does nothing: the host's interface has its address.
func (*packetLink) SetLinkAddress(tcpip.LinkAddress) {}

// Capabilities say whether checksums were verified of the packet that is being delivered.
func (p *packetLink) Capabilities() stack.LinkEndpointCapabilities {
	if p.unverified.Load() {
		return stack.CapabilityResolutionRequired
	}
	return stack.CapabilityRXChecksumOffload | stack.CapabilityResolutionRequired
}

// Wait returns when nothing is received any more.
func (p *packetLink) Wait() { p.wg.Wait() }

// ARPHardwareType is Ethernet's.
func (*packetLink) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareEther }

// Close closes the descriptor, which ends receive.
func (p *packetLink) Close() { p.file.Close() }

// SetOnCloseAction is not needed: only the stack closes a link.
func (*packetLink) SetOnCloseAction(func()) {}
