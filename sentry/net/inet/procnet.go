package inet

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"

	"moat/sentry/kernel"
)

// ProcNet prints the tables of /proc/net, below their headings.
func ProcNet() map[string]func(ns *kernel.NetNamespace, b *bytes.Buffer) {
	with := func(f func(s *Stack, b *bytes.Buffer)) func(*kernel.NetNamespace, *bytes.Buffer) {
		return func(ns *kernel.NetNamespace, b *bytes.Buffer) {
			if s := Of(ns); s != nil {
				f(s, b)
			}
		}
	}
	list := func(family, typ, protocol int32) func(*kernel.NetNamespace, *bytes.Buffer) {
		return with(func(s *Stack, b *bytes.Buffer) { s.procSockets(b, family, typ, protocol) })
	}
	return map[string]func(*kernel.NetNamespace, *bytes.Buffer){
		"dev": with(procDev), "route": with(procRoute), "arp": with(procARP), "if_inet6": with(procIf6), "ipv6_route": with(procRoute6),
		"ip_tables_names": with(func(_ *Stack, b *bytes.Buffer) { b.WriteString("nat\nfilter\n") }),
		"snmp":            with(procSNMP), "snmp6": with(procSNMP6), "netstat": with(procNetstat), "sockstat": with(procSockstat), "sockstat6": with(procSockstat6),
		"tcp": list(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_TCP), "tcp6": list(unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_TCP),
		"udp": list(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDP), "udp6": list(unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_UDP),
		"icmp": list(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP), "raw": list(unix.AF_INET, unix.SOCK_RAW, -1),
		"raw6": list(unix.AF_INET6, unix.SOCK_RAW, -1),
	}
}

// hexAddr is an address as those tables have it: words of the machine's byte order.
func hexAddr(family int32, a tcpip.FullAddress) string {
	f := format(family, a)
	var words []byte
	if family == unix.AF_INET {
		words = f[4:8]
	} else {
		words = f[8:24]
		if a.Addr.Len() == 0 {
			words = make([]byte, 16)
		}
	}
	var s strings.Builder
	for ; len(words) > 0; words = words[4:] {
		fmt.Fprintf(&s, "%08X", binary.LittleEndian.Uint32(words))
	}
	fmt.Fprintf(&s, ":%04X", a.Port)
	return s.String()
}

func (s *Stack) procSockets(b *bytes.Buffer, family, typ, protocol int32) {
	width := map[int32]int{unix.AF_INET: 149, unix.AF_INET6: 0}[family]
	n := 0
	for _, i := range s.Sockets() {
		if i.Family != family || i.Type != typ || protocol >= 0 && i.Protocol != protocol {
			continue
		}
		line := fmt.Sprintf("%4d: %s %s %02X %08X:%08X %02X:%08X %08X %5d %8d %d", n, hexAddr(family, i.Local), hexAddr(family, i.Remote), i.State, 0, i.RxQueue, 0, 0, 0,
			i.UID, 0, i.Ino)
		if typ == unix.SOCK_STREAM {
			line += " 1 0000000000000000 100 0 0 10 0"
		} else {
			line += " 2 0000000000000000 0"
		}
		fmt.Fprintf(b, "%-*s\n", width, line)
		n++
	}
}

func procDev(s *Stack, b *bytes.Buffer) {
	for _, n := range s.NICs() {
		st := &n.Stats
		fmt.Fprintf(b, "%6s: %7d %7d %4d %4d %4d %5d %10d %9d %8d %7d %4d %4d %4d %5d %7d %10d\n", n.Name, st.Rx.Bytes.Value(), st.Rx.Packets.Value(), 0, 0, 0, 0, 0, 0,
			st.Tx.Bytes.Value(), st.Tx.Packets.Value(), 0, 0, 0, 0, 0, 0)
	}
}

func procRoute(s *Stack, b *bytes.Buffer) {
	n := s.tcpip()
	for _, r := range s.Routes() {
		id := r.Destination.ID()
		if id.Len() != 4 || r.NIC == loNIC {
			continue
		}
		word := func(a []byte) uint32 {
			if len(a) != 4 {
				return 0
			}
			return binary.LittleEndian.Uint32(a)
		}
		flags := uint32(unix.RTF_UP)
		if r.Gateway.Len() > 0 {
			flags |= unix.RTF_GATEWAY
		}
		mask := r.Destination.Mask()
		fmt.Fprintf(b, "%-127s\n", fmt.Sprintf("%s\t%08X\t%08X\t%04X\t%d\t%d\t%d\t%08X\t%d\t%d\t%d", n.FindNICNameFromID(r.NIC), word(id.AsSlice()), word(r.Gateway.AsSlice()), flags,
			0, 0, 0, word(mask.AsSlice()), 0, 0, 0))
	}
}

func procRoute6(s *Stack, b *bytes.Buffer) {
	n := s.tcpip()
	for _, r := range s.Routes() {
		id := r.Destination.ID()
		if id.Len() != 16 {
			continue
		}
		var gw [16]byte
		flags := unix.RTF_UP
		if r.Gateway.Len() == 16 {
			gw = r.Gateway.As16()
			flags |= unix.RTF_GATEWAY
		}
		fmt.Fprintf(b, "%x %02x %032x %02x %x %08x %08x %08x %08x %8s\n", id.AsSlice(), r.Destination.Prefix(), 0, 0, gw, 256, 1, 0, flags, n.FindNICNameFromID(r.NIC))
	}
}

func procARP(s *Stack, b *bytes.Buffer) {
	for _, n := range s.NICs() {
		for _, e := range s.Neighbors(n.ID) {
			if e.Addr.Len() != 4 {
				continue
			}
			flags := 2 // ATF_COM
			if e.LinkAddr == "" {
				flags = 0
			}
			fmt.Fprintf(b, "%-16s 0x%-10x0x%-10x%-17s     *        %s\n", e.Addr, 1, flags, e.LinkAddr, n.Name)
		}
	}
}

func procIf6(s *Stack, b *bytes.Buffer) {
	for _, n := range s.NICs() {
		for _, p := range n.ProtocolAddresses {
			if p.Protocol == ipv4.ProtocolNumber {
				continue
			}
			a := p.AddressWithPrefix
			fmt.Fprintf(b, "%x %02x %02x %02x %02x %8s\n", a.Address.AsSlice(), int(n.ID), a.PrefixLen, Scope6(a.Address), 0x80, n.Name)
		}
	}
}

// Scope6 is an IPv6 address' scope as the kernel numbers it: host, link or global.
func Scope6(a tcpip.Address) int {
	switch {
	case a == loSubnet6.ID():
		return 0x10
	case linkLocal(a):
		return 0x20
	}
	return 0
}

func procSNMP(s *Stack, b *bytes.Buffer) {
	st := s.tcpip().Stats()
	ip, t, u, ic := &st.IP, &st.TCP, &st.UDP, &st.ICMP.V4
	fmt.Fprintf(b, "Ip: Forwarding DefaultTTL InReceives InHdrErrors InAddrErrors ForwDatagrams InUnknownProtos InDiscards InDelivers OutRequests OutDiscards OutNoRoutes ReasmTimeout ReasmReqds ReasmOKs ReasmFails FragOKs FragFails FragCreates OutTransmits\n")
	fmt.Fprintf(b, "Ip: 2 64 %d %d %d 0 0 0 %d %d %d 0 0 0 0 0 0 0 0 %d\n", ip.PacketsReceived.Value(), ip.MalformedPacketsReceived.Value(),
		ip.InvalidDestinationAddressesReceived.Value(), ip.PacketsDelivered.Value(), ip.PacketsSent.Value(), ip.OutgoingPacketErrors.Value(), ip.PacketsSent.Value())
	in, out := &ic.PacketsReceived, &ic.PacketsSent
	fmt.Fprintf(b, "Icmp: InMsgs InErrors InCsumErrors InDestUnreachs InTimeExcds InParmProbs InSrcQuenchs InRedirects InEchos InEchoReps InTimestamps InTimestampReps InAddrMasks InAddrMaskReps OutMsgs OutErrors OutRateLimitGlobal OutRateLimitHost OutDestUnreachs OutTimeExcds OutParmProbs OutSrcQuenchs OutRedirects OutEchos OutEchoReps OutTimestamps OutTimestampReps OutAddrMasks OutAddrMaskReps\n")
	fmt.Fprintf(b, "Icmp: %d %d 0 %d %d %d 0 0 %d %d 0 0 0 0 %d %d %d 0 %d %d %d 0 0 %d %d 0 0 0 0\n",
		in.EchoRequest.Value()+in.EchoReply.Value()+in.DstUnreachable.Value(), in.Invalid.Value(), in.DstUnreachable.Value(), in.TimeExceeded.Value(),
		in.ParamProblem.Value(), in.EchoRequest.Value(), in.EchoReply.Value(), out.EchoRequest.Value()+out.EchoReply.Value()+out.DstUnreachable.Value(),
		out.Dropped.Value(), out.RateLimited.Value(), out.DstUnreachable.Value(), out.TimeExceeded.Value(), out.ParamProblem.Value(), out.EchoRequest.Value(), out.EchoReply.Value())
	fmt.Fprintf(b, "Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab InSegs OutSegs RetransSegs InErrs OutRsts InCsumErrors\n")
	fmt.Fprintf(b, "Tcp: 1 200 120000 -1 %d %d %d %d %d %d %d %d %d %d %d\n", t.ActiveConnectionOpenings.Value(), t.PassiveConnectionOpenings.Value(),
		t.FailedConnectionAttempts.Value(), t.EstablishedResets.Value(), t.CurrentEstablished.Value(), t.ValidSegmentsReceived.Value(), t.SegmentsSent.Value(),
		t.Retransmits.Value(), t.InvalidSegmentsReceived.Value(), t.ResetsSent.Value(), t.ChecksumErrors.Value())
	fmt.Fprintf(b, "Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors\n")
	fmt.Fprintf(b, "Udp: %d %d %d %d %d %d %d 0 0\n", u.PacketsReceived.Value(), u.UnknownPortErrors.Value(), u.MalformedPacketsReceived.Value(), u.PacketsSent.Value(),
		u.ReceiveBufferErrors.Value(), u.PacketSendErrors.Value(), u.ChecksumErrors.Value())
	b.WriteString("UdpLite: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors\nUdpLite: 0 0 0 0 0 0 0 0 0\n")
}

func procSNMP6(s *Stack, b *bytes.Buffer) {
	st := s.tcpip().Stats()
	in, out := &st.ICMP.V6.PacketsReceived, &st.ICMP.V6.PacketsSent
	for _, v := range []struct {
		name string
		n    uint64
	}{{"Icmp6InEchos", in.EchoRequest.Value()}, {"Icmp6InEchoReplies", in.EchoReply.Value()}, {"Icmp6OutEchos", out.EchoRequest.Value()},
		{"Icmp6OutEchoReplies", out.EchoReply.Value()}, {"Icmp6InDestUnreachs", in.DstUnreachable.Value()}, {"Icmp6OutDestUnreachs", out.DstUnreachable.Value()}} {
		fmt.Fprintf(b, "%-32s\t%d\n", v.name, v.n)
	}
}

func procNetstat(s *Stack, b *bytes.Buffer) {
	st := s.tcpip().Stats()
	t := &st.TCP
	b.WriteString("TcpExt: SyncookiesSent SyncookiesRecv SyncookiesFailed ListenOverflows ListenDrops TCPTimeouts TCPSackRecovery TCPFastRetrans TCPSlowStartRetrans TCPLossProbes\n")
	fmt.Fprintf(b, "TcpExt: %d %d %d %d %d %d %d %d %d %d\n", t.ListenOverflowSynCookieSent.Value(), t.ListenOverflowSynCookieRcvd.Value(),
		t.ListenOverflowInvalidSynCookieRcvd.Value(), t.ListenOverflowAckDrop.Value(), t.ListenOverflowSynDrop.Value(), t.Timeouts.Value(), t.SACKRecovery.Value(),
		t.FastRetransmit.Value(), t.SlowStartRetransmits.Value(), t.TLPRecovery.Value())
	i := &st.IP
	fmt.Fprintf(b, "IpExt: InNoRoutes InPkts OutPkts\nIpExt: 0 %d %d\n", i.PacketsReceived.Value(), i.PacketsSent.Value())
}

// count is how many sockets there are of a kind, and how many TCP connections wait for their end.
func (s *Stack) count(family int32) (tcp, udp, raw, timeWait, all int) {
	for _, i := range s.Sockets() {
		if family != 0 && i.Family != family {
			continue
		}
		switch {
		case i.Ino == 0:
			timeWait++
			continue
		case i.Type == unix.SOCK_STREAM:
			tcp++
		case i.Protocol == unix.IPPROTO_UDP && i.Type == unix.SOCK_DGRAM:
			udp++
		default:
			raw++
		}
		all++
	}
	return
}

func procSockstat(s *Stack, b *bytes.Buffer) {
	t, u, r, tw, _ := s.count(unix.AF_INET)
	_, _, _, _, all := s.count(0)
	fmt.Fprintf(b, "sockets: used %d\nTCP: inuse %d orphan 0 tw %d alloc %d mem 0\nUDP: inuse %d mem 0\nUDPLITE: inuse 0\nRAW: inuse %d\nFRAG: inuse 0 memory 0\n", all, t, tw, t, u, r)
}

func procSockstat6(s *Stack, b *bytes.Buffer) {
	t, u, r, _, _ := s.count(unix.AF_INET6)
	fmt.Fprintf(b, "TCP6: inuse %d\nUDP6: inuse %d\nUDPLITE6: inuse 0\nRAW6: inuse %d\nFRAG6: inuse 0 memory 0\n", t, u, r)
}
