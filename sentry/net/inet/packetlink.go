package inet

import (
	"encoding/binary"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/rawfile"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
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
	// batch is how many frames one call receives, outBatch how many one sends.
	batch    = 8
	outBatch = 8
	// maxVain is after how many looks at an empty ring the socket is asked.
	maxVain = 256
	// slowFrame is how long a frame takes at most to be sent, if no program that is woken by one runs in between in place of the sender.
	slowFrame = 8 * time.Microsecond
	// smallFrame holds a frame of an Ethernet without segments that the host has joined, bigFrame the rest of one with.
	smallFrame = 2048
	bigFrame   = 65536
	// downDelay is how long a link of which the host's kernel has told an error is left alone.
	downDelay = time.Second
	// gsoMax is the largest TCP segment that is handed to the host to be cut.
	gsoMax = 65536 - 256
)

// packetLink is a link endpoint on a packet socket of the host. fdbased, netstack's own, takes every checksum for good, so that what a wire has corrupted
// would reach programs; here the host says of each packet whether it vouches for the checksum (PACKET_VNET_HDR), and the stack verifies it if not.
type packetLink struct {
	*channel.Endpoint // has the hardware address, the MTU and the dispatcher; its queue is not used

	fd int
	// file is fd where nobody attends it, which Close then closes.
	file   *os.File
	closed atomic.Bool
	gso    bool
	mac    tcpip.LinkAddress
	// unverified: the host does not vouch for the checksums of the packet that is being delivered, and the stack must verify them.
	unverified atomic.Bool
	st         *Stack
	ring       ring
	vain       uint   // how often the ring was empty
	slots      []slot // never moves: the host is given its addresses
	hdrs       [batch]rawfile.MMsgHdr
	receives   atomic.Bool

	outMu sync.Mutex
	// out are the frames that wait to be sent together, as many as queued. +checklocks:outMu
	out     [outBatch]frame
	outHdrs [outBatch]rawfile.MMsgHdr
	queued  int
	slow    bool // the last took long
}

// newPacketLink takes over the descriptor of l, a link of s.
func newPacketLink(l *Link, s *Stack) *packetLink {
	p := &packetLink{Endpoint: channel.New(0, l.MTU, tcpip.LinkAddress(l.MAC)), fd: l.FD, gso: l.GSO, mac: tcpip.LinkAddress(l.MAC), st: s, slots: make([]slot, batch)}
	if l.GSO {
		p.SupportedGSOKind = stack.HostGSOSupported
	}
	p.ring = newRing(p.fd)
	return p
}

// Attach implements stack.LinkEndpoint. What comes when nobody is attached any more is dropped. A descriptor that is attended stays open until the sandbox ends.
func (p *packetLink) Attach(d stack.NetworkDispatcher) {
	p.Endpoint.Attach(d)
	switch {
	case p.receives.Swap(true):
	case p.st.attender != nil:
		p.st.attender.Attend(p.fd, p.receive, p.flush)
	default:
		p.file = os.NewFile(uintptr(p.fd), "link")
		go p.serve()
	}
}

// serve receives until the link is closed.
func (p *packetLink) serve() {
	c, err := p.file.SyscallConn()
	for ; err == nil && !p.closed.Load(); time.Sleep(downDelay) {
		_ = c.Read(func(uintptr) bool { // which ends by errors of the link, too (ENETDOWN)
			for !p.closed.Load() && p.receive() {
			}
			return p.closed.Load()
		})
	}
	if p.ring.mem != nil {
		_ = unix.Munmap(p.ring.mem)
	}
}

// Close implements stack.LinkEndpoint.
func (p *packetLink) Close() {
	if p.file != nil && !p.closed.Swap(true) {
		p.outMu.Lock() // nobody sends
		defer p.outMu.Unlock()
		p.file.Close()
	}
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

// receive delivers a batch of frames; false: there are none.
func (p *packetLink) receive() bool {
	most := batch
	if p.ring.mem != nil {
		if most = p.ring.long(batch); most == 0 {
			if p.receiveSmall() {
				return true
			}
			// The queue is asked all the same, ever so rarely: an error of the link (ENETDOWN), until it has been told, ends every wait at once.
			if p.vain++; p.vain%maxVain != 0 {
				return false
			}
			most = batch
		}
	}
	for i := range p.slots[:most] {
		p.slots[i].fill(&p.hdrs[i], p.gso)
	}
	n, errno := recvmmsg(p.fd, p.hdrs[:most])
	long := p.ring.long(most)
	if errno == 0 {
		long = min(long, n)
	}
	if errno != unix.ENETDOWN { // the frames are still there
		p.ring.give(long)
	}
	for i := range max(n, 0) {
		s, n, vnet := &p.slots[i], int(p.hdrs[i].Len), []byte(nil)
		if p.gso {
			vnet, n = s.vnet[:], max(n-vnetSize, 0)
		}
		p.deliver(vnet, s.take(n))
	}
	p.st.delivered(int64(max(n, 0)))
	return errno != unix.EAGAIN || long > 0
}

// receiveSmall delivers a batch of frames that are in the ring as a whole.
func (p *packetLink) receiveSmall() bool {
	n, room := 0, 0
	if p.gso {
		room = vnetSize
	}
	for b, ok := p.ring.small(room); ok && n < batch; b, ok = p.ring.small(room) {
		k := min(room, len(b))
		p.deliver(b[:k], buffer.MakeWithData(b[k:]))
		p.ring.give(1)
		n++
	}
	p.st.delivered(int64(n))
	return n > 0
}

// deliver hands one frame to the stack. Nothing of it is believed.
func (p *packetLink) deliver(vnet []byte, frame buffer.Buffer) {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: frame})
	defer pkt.DecRef()
	valid, unfinished := false, false
	if len(vnet) > 0 {
		valid, unfinished = vnet[0]&vnetValid != 0, vnet[0]&vnetNeedsCsum != 0
	}
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
	p.unverified.Store(!unfinished && !(valid && whole(pkt))) // what the host has not finished it has not cut
	p.InjectInbound(pkt.NetworkProtocolNumber, pkt)           // which asks for the capabilities
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

// frame is one that is to be sent. The host is given the addresses of vnet and of what pkt has.
type frame struct {
	pkt  *stack.PacketBuffer
	vnet [vnetSize]byte
	iov  []unix.Iovec
}

// WritePackets implements stack.LinkEndpoint. What the host does not take is lost, as on a wire.
func (p *packetLink) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	p.outMu.Lock()
	defer p.outMu.Unlock()
	for _, pkt := range pkts.AsSlice() {
		f, h := &p.out[p.queued], &p.outHdrs[p.queued].Msg
		f.pkt, f.iov = pkt.IncRef(), f.iov[:0]
		if p.gso {
			p.vnetHeader(&f.vnet, pkt)
			f.iov = append(f.iov, rawfile.IovecFromBytes(f.vnet[:]))
		}
		views, skip := pkt.AsViewList()
		for v := views.Front(); v != nil; v = v.Next() {
			b := v.AsSlice()
			k := min(skip, len(b))
			f.iov, skip = rawfile.AppendIovecFromBytes(f.iov, b[k:], rawfile.MaxIovs), skip-k
		}
		if len(f.iov) > 0 {
			h.Iov = &f.iov[0]
		}
		h.SetIovlen(len(f.iov))
		if p.queued++; p.queued == outBatch {
			p.flushLocked()
		}
	}
	if !p.st.looks() {
		p.flushLocked()
	}
	return pkts.Len(), nil
}

// flush sends what waits.
func (p *packetLink) flush() {
	p.st.push()
	p.outMu.Lock()
	defer p.outMu.Unlock()
	p.flushLocked()
}

// flushLocked is flush. +checklocks:p.outMu
func (p *packetLink) flushLocked() {
	since, ran := time.Now(), time.Duration(0)
	if p.slow {
		ran = threadTime()
	}
	for done := 0; done < p.queued && !p.closed.Load(); {
		n, errno := rawfile.NonBlockingSendMMsg(p.fd, p.outHdrs[done:p.queued])
		if errno != 0 {
			n = 1
		}
		done += n
	}
	took := time.Since(since)
	// Who is woken by each frame and runs first takes four fifths of the time; what interrupts a thread otherwise, its runtime's monitor too, less.
	if p.slow && threadTime()-ran < took*2/5 && p.st.attender != nil {
		p.st.attender.Leave()
	}
	p.slow = took > time.Duration(p.queued)*slowFrame
	for i := range p.out[:p.queued] {
		p.out[i].pkt.DecRef()
	}
	p.queued = 0
}

// threadTime is the CPU time of the OS thread.
func threadTime() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) // there is that clock
	return time.Duration(ts.Nano())
}

// vnetHeader describes a packet whose checksum is not made, or that the host is to cut.
func (p *packetLink) vnetHeader(h *[vnetSize]byte, pkt *stack.PacketBuffer) {
	o := &pkt.GSOOptions
	*h = [vnetSize]byte{}
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
func (*packetLink) GSOMaxSize() uint32 { return gsoMax }

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

// MaxHeaderLength is an Ethernet header's.
func (*packetLink) MaxHeaderLength() uint16 { return header.EthernetMinimumSize }

// SetLinkAddress does nothing: the host's interface has its address.
func (*packetLink) SetLinkAddress(tcpip.LinkAddress) {}

// Capabilities say whether checksums were verified of the packet that is being delivered.
func (p *packetLink) Capabilities() stack.LinkEndpointCapabilities {
	if p.unverified.Load() {
		return stack.CapabilityResolutionRequired
	}
	return stack.CapabilityRXChecksumOffload | stack.CapabilityResolutionRequired
}

// ARPHardwareType is Ethernet's.
func (*packetLink) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareEther }
