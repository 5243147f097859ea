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
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
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
// would reach programs; here the host says of each packet whether it vouches for the checksum (PACKET_VNET_HDR), and it is verified if not.
type packetLink struct {
	file *os.File
	raw  syscall.RawConn
	fd   int
	gso  bool
	mac  tcpip.LinkAddress
	mtu  atomic.Uint32
	// unverified: the packet that is being delivered is a fragment, whose transport's checksum the stack must verify once the whole is there.
	unverified atomic.Bool
	// bad counts frames that were dropped for their checksum.
	bad atomic.Uint64
	wg  sync.WaitGroup
	// delivered is told how many frames went to the stack.
	delivered func(n int64)

	mu sync.RWMutex
	// +checklocks:mu
	dispatcher stack.NetworkDispatcher
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
	p.mu.Lock()
	start := p.dispatcher == nil && d != nil
	p.dispatcher = d
	p.mu.Unlock()
	if start {
		p.wg.Add(1)
		go p.receive()
	}
}

// IsAttached implements stack.LinkEndpoint.
func (p *packetLink) IsAttached() bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.dispatcher != nil
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

// receive delivers frames until the link is detached or the descriptor fails.
func (p *packetLink) receive() {
	defer p.wg.Done()
	slots := make([]slot, batch) // never moves: the host is given its addresses
	var hdrs [batch]rawfile.MMsgHdr
	for p.IsAttached() {
		n := 0
		err := p.raw.Read(func(fd uintptr) bool {
			for i := range slots {
				slots[i].fill(&hdrs[i], p.gso)
			}
			var errno unix.Errno
			n, errno = recvmmsg(int(fd), hdrs[:])
			return errno != unix.EAGAIN
		})
		if err != nil {
			return
		}
		for i := range max(n, 0) {
			p.deliver(&slots[i], int(hdrs[i].Len))
		}
		p.delivered(int64(max(n, 0)))
	}
}

// deliver hands one frame to the stack. Nothing of it is believed.
func (p *packetLink) deliver(s *slot, n int) {
	trusted, unfinished := false, false
	if p.gso {
		if n < vnetSize {
			return
		}
		n -= vnetSize
		unfinished = s.vnet[0]&vnetNeedsCsum != 0
		trusted = unfinished || s.vnet[0]&vnetValid != 0
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
	if !trusted && !checksumGood(pkt.NetworkProtocolNumber, pkt.Data().AsRange().ToSlice) {
		p.bad.Add(1)
		return
	}
	p.mu.RLock()
	d := p.dispatcher
	p.mu.RUnlock()
	if d != nil {
		p.unverified.Store(!unfinished && fragment(pkt))       // what the host has not finished it has not cut
		d.DeliverNetworkPacket(pkt.NetworkProtocolNumber, pkt) // which asks for the capabilities
	}
}

// fragment reports whether a packet is a fragment, or may be one behind extension headers.
func fragment(pkt *stack.PacketBuffer) bool {
	switch pkt.NetworkProtocolNumber {
	case header.IPv4ProtocolNumber:
		b, ok := pkt.Data().PullUp(header.IPv4MinimumSize)
		ip := header.IPv4(b)
		return ok && (ip.More() || ip.FragmentOffset() != 0)
	case header.IPv6ProtocolNumber:
		b, ok := pkt.Data().PullUp(header.IPv6MinimumSize)
		if !ok {
			return false
		}
		switch tcpip.TransportProtocolNumber(header.IPv6(b).NextHeader()) {
		case header.TCPProtocolNumber, header.UDPProtocolNumber, header.ICMPv6ProtocolNumber:
			return false
		}
		return true
	}
	return false
}

// checksumGood verifies the transport's checksum of an IP packet. What it cannot judge (fragments, other protocols, malformed packets, which the
// stack rejects) is good.
func checksumGood(proto tcpip.NetworkProtocolNumber, packet func() []byte) bool {
	var transport tcpip.TransportProtocolNumber
	var src, dst tcpip.Address
	var b []byte
	switch proto {
	case header.IPv4ProtocolNumber:
		b = packet()
		ip := header.IPv4(b)
		if len(b) < header.IPv4MinimumSize || !ip.IsValid(len(b)) || ip.More() || ip.FragmentOffset() != 0 {
			return true
		}
		transport, src, dst = ip.TransportProtocol(), ip.SourceAddress(), ip.DestinationAddress()
		b = b[ip.HeaderLength():ip.TotalLength()]
	case header.IPv6ProtocolNumber:
		b = packet()
		ip := header.IPv6(b)
		if len(b) < header.IPv6MinimumSize || int(ip.PayloadLength()) > len(b)-header.IPv6MinimumSize {
			return true
		}
		transport, src, dst = tcpip.TransportProtocolNumber(ip.NextHeader()), ip.SourceAddress(), ip.DestinationAddress()
		b = b[header.IPv6MinimumSize:][:ip.PayloadLength()]
	default:
		return true
	}
	switch {
	case transport == header.TCPProtocolNumber && len(b) >= header.TCPMinimumSize, transport == header.ICMPv6ProtocolNumber:
	case transport == header.UDPProtocolNumber && len(b) >= header.UDPMinimumSize:
		if binary.BigEndian.Uint16(b[6:]) == 0 {
			return true // there is none
		}
	case transport == header.ICMPv4ProtocolNumber:
		return checksum.Checksum(b, 0) == 0xffff
	default:
		return true
	}
	return checksum.Checksum(b, header.PseudoHeaderChecksum(transport, src, dst, uint16(len(b)))) == 0xffff
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

// Capabilities say that checksums were verified, by the host or by deliver, of all but the packet that is being delivered if it is a fragment.
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
