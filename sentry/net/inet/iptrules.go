package inet

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// targets and matches are the extensions that there are, with their revision.
var (
	targets = map[string]byte{"": 0, errorTarget: 0, "REJECT": 0, "DNAT": 0, "SNAT": 0, "REDIRECT": 0, "MASQUERADE": 0}
	matches = map[string]byte{"tcp": 0, "udp": 0, "owner": 1, "comment": 0, "multiport": 1}
)

// extension takes a struct xt_entry_match or xt_entry_target apart, which are alike.
func extension(b []byte) (name string, rev byte, data, rest []byte, err error) {
	if len(b) < sizeExt {
		return "", 0, nil, nil, unix.EINVAL
	}
	n := int(binary.LittleEndian.Uint16(b))
	if n < sizeExt || n > len(b) {
		return "", 0, nil, nil, unix.EINVAL
	}
	return cstring(b[2:31]), b[31], b[sizeExt:n], b[n:], nil
}

// decodeRule decodes the struct ipt_entry at the start of b, next bytes long. jump is where a jump goes, else 0.
func decodeRule(b []byte, reject stack.RejectIPv4WithHandler) (r stack.Rule, next int, jump uint32, err error) {
	fail := func(err error) (stack.Rule, int, uint32, error) { return r, 0, 0, err }
	if len(b) < sizeEntry+sizeExt {
		return fail(unix.EINVAL)
	}
	le := binary.LittleEndian
	target := int(le.Uint16(b[88:]))
	next = int(le.Uint16(b[90:]))
	if next > len(b) || next%8 != 0 || target < sizeEntry || target+sizeExt > next {
		return fail(unix.EINVAL)
	}
	if r.Filter, err = decodeFilter(b[:sizeIP]); err != nil {
		return fail(err)
	}
	for rest := b[sizeEntry:target]; len(rest) > 0; {
		var name string
		var rev byte
		var data []byte
		if name, rev, data, rest, err = extension(rest); err != nil {
			return fail(err)
		}
		m, err := decodeMatch(name, rev, data, &r.Filter)
		if err != nil {
			return fail(err)
		}
		if m != nil {
			r.Matchers = append(r.Matchers, m)
		}
	}
	name, rev, data, _, err := extension(b[target:next])
	if err != nil {
		return fail(err)
	}
	if want, ok := targets[name]; !ok || rev != want {
		return fail(unix.ENOENT)
	}
	if name == "" {
		if len(data) < 4 {
			return fail(unix.EINVAL)
		}
		switch v := int32(le.Uint32(data)); {
		case v == verdictAccept:
			r.Target = &stack.AcceptTarget{NetworkProtocol: ipv4.ProtocolNumber}
		case v == verdictDrop:
			r.Target = &stack.DropTarget{NetworkProtocol: ipv4.ProtocolNumber}
		case v == verdictReturn:
			r.Target = &stack.ReturnTarget{NetworkProtocol: ipv4.ProtocolNumber}
		case v > 0:
			jump, r.Target = uint32(v), &stack.DropTarget{}
		default:
			return fail(unix.EINVAL)
		}
		return r, next, jump, nil
	}
	r.Target, err = decodeTarget(name, data, &r.Filter, reject)
	return r, next, 0, err
}

// decodeFilter decodes struct ipt_ip.
func decodeFilter(b []byte) (f stack.IPHeaderFilter, err error) {
	const (
		notIn, notOut, notTOS, notSrc, notDst, notFrag, notProto = 1, 2, 4, 8, 16, 32, 64
	)
	f = stack.IPHeaderFilter{Src: ip4(b), Dst: ip4(b[4:]), SrcMask: ip4(b[8:]), DstMask: ip4(b[12:])}
	name := func(name, mask []byte) string {
		s := cstring(name)
		if n := len(s); n > 0 && n < len(mask) && mask[n] == 0 {
			s += "+" // the mask has no byte for the end: all that begin so
		}
		return s
	}
	f.InputInterface, f.OutputInterface = name(b[16:32], b[48:64]), name(b[32:48], b[64:80])
	proto, flags, inv := binary.LittleEndian.Uint16(b[80:]), b[82], b[83]
	// Fragments (flag 1) and gotos (2) are not carried; neither is a protocol that is not.
	if flags != 0 || inv&(notTOS|notFrag|notProto) != 0 || inv>>7 != 0 || proto > 255 {
		return f, unix.EINVAL
	}
	f.Protocol, f.CheckProtocol = tcpip.TransportProtocolNumber(proto), proto != 0
	f.InputInterfaceInvert, f.OutputInterfaceInvert, f.SrcInvert, f.DstInvert = inv&notIn != 0, inv&notOut != 0, inv&notSrc != 0, inv&notDst != 0
	return f, nil
}

// decodeMatch decodes a match, nil for one that says nothing.
func decodeMatch(name string, rev byte, b []byte, f *stack.IPHeaderFilter) (stack.Matcher, error) {
	le := binary.LittleEndian
	want, ok := matches[name]
	switch {
	case !ok || rev != want:
		return nil, unix.ENOENT
	case name == "comment":
		return nil, nil
	case name == "owner": // struct xt_owner_match_info
		const uid, gid, all = 1, 2, 3
		if len(b) < 18 || b[16]&^all != 0 || b[17]&^all != 0 {
			return nil, unix.EINVAL
		}
		m := &ownerMatch{match: b[16], invert: b[17]}
		for i := range m.ids {
			m.ids[i] = le.Uint32(b[4*i:])
		}
		return m, nil
	}
	if name == "multiport" { // struct xt_multiport_v1
		if len(b) < 48 || b[0] > 2 || b[1] > 15 || !f.CheckProtocol || f.Protocol != header.TCPProtocolNumber && f.Protocol != header.UDPProtocolNumber {
			return nil, unix.EINVAL
		}
		m := &portsMatch{proto: f.Protocol, which: b[0], invert: b[47] != 0}
		for i := range int(b[1]) {
			if port := le.Uint16(b[2+2*i:]); i > 0 && b[31+i] != 0 { // the one before begins a range
				m.ranges[len(m.ranges)-1][1] = port
			} else {
				m.ranges = append(m.ranges, [2]uint16{port, port})
			}
		}
		return m, nil
	}
	// struct xt_tcp, xt_udp
	m := &portMatch{proto: header.UDPProtocolNumber}
	size, inv := 10, 8
	if name == "tcp" {
		m.proto, size, inv = header.TCPProtocolNumber, 12, 11
	}
	if len(b) < size || !f.CheckProtocol || f.Protocol != m.proto {
		return nil, unix.EINVAL
	}
	for i := range m.ports {
		m.ports[i] = le.Uint16(b[2*i:])
	}
	m.invert = b[inv]
	if name == "tcp" {
		if b[8] != 0 { // an option that must be there
			return nil, unix.EINVAL
		}
		m.mask, m.flags = b[9], b[10]
	}
	return m, nil
}

// portMatch is the match tcp or udp: the least and greatest source port, and destination port; and flags of TCP.
type portMatch struct {
	proto               tcpip.TransportProtocolNumber
	ports               [4]uint16
	mask, flags, invert byte
}

// Match implements stack.Matcher.
func (m *portMatch) Match(_ stack.Hook, p *stack.PacketBuffer, _, _ string) (matches, hotdrop bool) {
	b := p.TransportHeader().Slice()
	switch {
	case p.TransportProtocolNumber != m.proto || len(b) < 4:
		return false, false
	case m.proto == header.TCPProtocolNumber && len(b) < header.TCPMinimumSize:
		return false, true
	}
	for i := range 2 {
		port := binary.BigEndian.Uint16(b[2*i:])
		if (port >= m.ports[2*i] && port <= m.ports[2*i+1]) == (m.invert>>i&1 != 0) {
			return false, false
		}
	}
	return m.proto != header.TCPProtocolNumber || (b[13]&m.mask == m.flags) != (m.invert&4 != 0), false
}

// portsMatch is the match multiport: which is 0 for source ports, 1 for destination ports, 2 for either.
type portsMatch struct {
	proto  tcpip.TransportProtocolNumber
	which  byte
	invert bool
	ranges [][2]uint16
}

// Match implements stack.Matcher.
func (m *portsMatch) Match(_ stack.Hook, p *stack.PacketBuffer, _, _ string) (matches, hotdrop bool) {
	b := p.TransportHeader().Slice()
	if p.TransportProtocolNumber != m.proto || len(b) < 4 {
		return false, false
	}
	for i := range 2 {
		port := binary.BigEndian.Uint16(b[2*i:])
		matches = matches || m.which != byte(1-i) && slices.ContainsFunc(m.ranges, func(r [2]uint16) bool { return port >= r[0] && port <= r[1] })
	}
	return matches != m.invert, false
}

// ownerMatch is the match owner: the least and greatest user, and group.
type ownerMatch struct {
	ids           [4]uint32
	match, invert byte
}

// Match implements stack.Matcher.
func (m *ownerMatch) Match(h stack.Hook, p *stack.PacketBuffer, _, _ string) (matches, hotdrop bool) {
	if p.Owner == nil || h != stack.Output && h != stack.Postrouting {
		return m.match&^m.invert == 0 && m.match != 0, false
	}
	for i, id := range [2]uint32{p.Owner.KUID(), p.Owner.KGID()} {
		if m.match>>i&1 != 0 && (id >= m.ids[2*i] && id <= m.ids[2*i+1]) == (m.invert>>i&1 != 0) {
			return false, false
		}
	}
	return true, false
}

// rejects are netstack's for ipt_reject_with, 0 for what it does not have.
var rejects = [...]stack.RejectIPv4WithICMPType{stack.RejectIPv4WithICMPNetUnreachable, stack.RejectIPv4WithICMPHostUnreachable, stack.RejectIPv4WithICMPProtUnreachable,
	stack.RejectIPv4WithICMPPortUnreachable, 0, stack.RejectIPv4WithICMPNetProhibited, stack.RejectIPv4WithICMPHostProhibited, stack.RejectIPv4WithTCPReset,
	stack.RejectIPv4WithICMPAdminProhibited}

// decodeTarget decodes a target that is not a standard one.
func decodeTarget(name string, b []byte, f *stack.IPHeaderFilter, reject stack.RejectIPv4WithHandler) (stack.Target, error) {
	le, be := binary.LittleEndian, binary.BigEndian
	switch {
	case name == errorTarget:
		return &stack.ErrorTarget{NetworkProtocol: ipv4.ProtocolNumber}, nil
	case name == "REJECT":
		if len(b) < 4 || le.Uint32(b) >= uint32(len(rejects)) || rejects[le.Uint32(b)] == 0 || reject == nil {
			return nil, unix.EINVAL
		}
		return &hooked{&stack.RejectIPv4Target{Handler: reject, RejectWith: rejects[le.Uint32(b)]}, onInput | onForward | onOutput}, nil
	}
	// struct nf_nat_ipv4_multi_range_compat: how many, flags, addresses and ports from and to.
	const mapIPs, mapPorts = 1, 2
	if len(b) < 20 || le.Uint32(b) != 1 {
		return nil, unix.EINVAL
	}
	flags, addr, port := le.Uint32(b[4:]), ip4(b[8:]), be.Uint16(b[16:])
	ips, ports := flags&mapIPs != 0, flags&mapPorts != 0
	if flags&^(mapIPs|mapPorts) != 0 || ips && le.Uint32(b[8:]) != le.Uint32(b[12:]) || ports && port != be.Uint16(b[18:]) ||
		ports && !(f.CheckProtocol && (f.Protocol == header.TCPProtocolNumber || f.Protocol == header.UDPProtocolNumber)) {
		return nil, unix.EINVAL // ranges, random ports; ports of what has none
	}
	switch {
	case name == "DNAT" && (ips || ports):
		return &hooked{&stack.DNATTarget{Addr: addr, Port: port, NetworkProtocol: ipv4.ProtocolNumber, ChangeAddress: ips, ChangePort: ports}, onPrerouting | onOutput}, nil
	case name == "SNAT" && (ips || ports):
		return &hooked{&stack.SNATTarget{Addr: addr, Port: port, NetworkProtocol: ipv4.ProtocolNumber, ChangeAddress: ips, ChangePort: ports}, onInput | onPostrouting}, nil
	case name == "REDIRECT" && ports && !ips:
		return &hooked{&stack.RedirectTarget{Port: port, NetworkProtocol: ipv4.ProtocolNumber}, onPrerouting | onOutput}, nil
	case name == "MASQUERADE" && !ports && !ips:
		return &hooked{&stack.MasqueradeTarget{NetworkProtocol: ipv4.ProtocolNumber}, onPostrouting}, nil
	}
	return nil, unix.EINVAL
}
