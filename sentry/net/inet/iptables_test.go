package inet

import (
	"encoding/binary"
	"encoding/hex"
	"testing"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"moat/sentry/usermem"
)

// replace is the struct ipt_replace of a table.
func (k *table) replace(name string) []byte {
	le := binary.LittleEndian
	b := make([]byte, 32, sizeReplace+len(k.entries))
	copy(b, name)
	b = le.AppendUint32(le.AppendUint32(le.AppendUint32(b, uint32(k.valid)), k.count), uint32(len(k.entries)))
	for _, l := range [][stack.NumHooks]uint32{k.hook, k.underflow} {
		for _, o := range l {
			b = le.AppendUint32(b, o)
		}
	}
	return append(append(b, make([]byte, 12)...), k.entries...)
}

// chain adds user chains to a table, each a head, a rule and a RETURN; jumps[i] is the chain that the i'th jumps to, -1 for none.
func (k *table) chain(jumps ...int) *table {
	le := binary.LittleEndian
	unit := func(target string, data []byte) []byte {
		e := make([]byte, sizeEntry+sizeExt+len(data))
		le.PutUint16(e[88:], sizeEntry)
		le.PutUint16(e[90:], uint16(len(e)))
		le.PutUint16(e[sizeEntry:], uint16(sizeExt+len(data)))
		copy(e[sizeEntry+2:], target)
		copy(e[sizeEntry+sizeExt:], data)
		return e
	}
	head := unit(errorTarget, make([]byte, 32))
	standard := func(v int32) []byte { return unit("", le.AppendUint64(nil, uint64(uint32(v)))) }
	end := len(k.entries) - len(head)
	final := append([]byte(nil), k.entries[end:]...)
	k.entries = k.entries[:end]
	size := len(head) + 2*len(standard(0))
	for _, j := range jumps {
		v := int32(verdictReturn)
		if j >= 0 {
			v = int32(end + j*size + len(head))
		}
		k.entries = append(append(append(k.entries, head...), standard(v)...), standard(verdictReturn)...)
		k.count += 3
	}
	k.entries = append(k.entries, final...)
	return k
}

func TestDecodeTable(t *testing.T) {
	filter := tables["filter"].hooks
	deep := make([]int, maxNesting+2)
	for i := range deep {
		deep[i] = i + 1
	}
	deep[len(deep)-1] = -1
	for name, c := range map[string]struct {
		k    *table
		edit func(b []byte) []byte
		want error
	}{
		"empty":    {k: emptyTable(filter)},
		"chains":   {k: emptyTable(filter).chain(1, 2, -1)},
		"circle":   {k: emptyTable(filter).chain(1, 0), want: unix.ELOOP},
		"itself":   {k: emptyTable(filter).chain(0), want: unix.ELOOP},
		"too deep": {k: emptyTable(filter).chain(deep...), want: unix.ELOOP},
		"no final entry": {k: emptyTable(filter), edit: func(b []byte) []byte {
			b[36]--
			b = b[:len(b)-176]
			binary.LittleEndian.PutUint32(b[40:], uint32(len(b)-96))
			return b
		}, want: unix.EINVAL},
		"cut":                 {k: emptyTable(filter), edit: func(b []byte) []byte { return b[:len(b)-1] }, want: unix.EINVAL},
		"policy not there":    {k: emptyTable(filter), edit: func(b []byte) []byte { b[68] = 7; return b }, want: unix.EINVAL},
		"chains that overlap": {k: emptyTable(filter), edit: func(b []byte) []byte { copy(b[48:52], b[52:56]); return b }, want: unix.EINVAL},
		"conditional policy":  {k: emptyTable(filter), edit: func(b []byte) []byte { b[sizeReplace] = 10; return b }, want: unix.EINVAL},
		"unknown target":      {k: emptyTable(filter), edit: func(b []byte) []byte { b[sizeReplace+sizeEntry+2] = 'X'; return b }, want: unix.ENOENT},
	} {
		b := c.k.replace("filter")
		if c.edit != nil {
			b = c.edit(b)
		}
		if _, err := decodeTable(b, filter, nil); err != c.want {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// FuzzTable: no table makes the stack panic, neither when it is set nor when packets meet it.
func FuzzTable(f *testing.F) {
	n, p := testLink(f)
	reject, _ := n.NetworkProtocolInstance(ipv4.ProtocolNumber).(stack.RejectIPv4WithHandler)
	if reject == nil {
		f.Fatal("IPv4 cannot reject")
	}
	f.Add(emptyTable(tables["filter"].hooks).chain(1, -1).replace("filter"))
	f.Add(emptyTable(tables["nat"].hooks).replace("nat"))
	for _, target := range []string{"REJECT", "DNAT", "SNAT", "REDIRECT", "MASQUERADE"} {
		k := emptyTable(tables["nat"].hooks).chain(-1)
		b := k.replace("nat")
		copy(b[sizeReplace+4*152+176+sizeEntry+2:], target)
		f.Add(b)
	}
	var q waiter.Queue
	u, _ := n.NewEndpoint(udp.ProtocolNumber, ipv4.ProtocolNumber, &q)
	u.Bind(tcpip.FullAddress{Port: 53})
	datagram, _ := hex.DecodeString("0200000000010200000000020800450000200001000040110000" + "0a0000020a00000103e80035000c0000" + "61626364")
	syn, _ := hex.DecodeString("020000000001020000000002080045000028000100004006000a0a0000020a00000103e8005000000001000000005002200000000000")
	f.Fuzz(func(_ *testing.T, b []byte) {
		for name, k := range tables {
			t, err := decodeTable(b, k.hooks, &rejecter{reject, make(chan struct{}, maxRejects)})
			if err != nil {
				continue
			}
			n.IPTables().ReplaceTable(k.id, t.form, false)
			p.inject(datagram, vnetValid)
			p.inject(syn, vnetValid)
			for _, to := range []tcpip.Address{loopback4, tcpip.AddrFrom4([4]byte{10, 0, 0, 9})} {
				c := newCursor(usermem.Bytes([]byte("abcd")))
				u.Write(&c, tcpip.WriteOptions{To: &tcpip.FullAddress{Addr: to, Port: 53}})
			}
			n.IPTables().ReplaceTable(k.id, emptyForm(name), false)
		}
	})
}

func emptyForm(name string) stack.Table {
	k, _ := decodeTable(emptyTable(tables[name].hooks).replace(name), tables[name].hooks, nil)
	return k.form
}

// TestMultiport: ports and ranges, on either side, and all others.
func TestMultiport(t *testing.T) {
	tcp := stack.IPHeaderFilter{CheckProtocol: true, Protocol: header.TCPProtocolNumber}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: header.TCPMinimumSize})
	defer pkt.DecRef()
	pkt.TransportProtocolNumber = header.TCPProtocolNumber
	h := header.TCP(pkt.TransportHeader().Push(header.TCPMinimumSize))
	h.SetSourcePort(1000)
	h.SetDestinationPort(80)
	for _, c := range []struct {
		which, invert byte
		ports         []uint16
		ranges        []byte // those that begin one
		want          bool
	}{
		{1, 0, []uint16{79, 81}, nil, false}, {1, 0, []uint16{79, 80}, nil, true}, {1, 1, []uint16{79, 80}, nil, false}, {1, 0, []uint16{79, 81}, []byte{0}, true},
		{0, 0, []uint16{80}, nil, false}, {0, 0, []uint16{80, 1000}, nil, true}, {0, 1, []uint16{80}, nil, true}, {0, 0, []uint16{1, 5, 999, 1001}, []byte{0, 2}, true},
		{2, 0, []uint16{80}, nil, true}, {2, 0, []uint16{1000}, nil, true}, {2, 1, []uint16{1000}, nil, false}, {2, 0, []uint16{5}, nil, false}, {1, 1, nil, nil, true},
	} {
		b := make([]byte, 48)
		b[0], b[1], b[47] = c.which, byte(len(c.ports)), c.invert
		for i, p := range c.ports {
			binary.LittleEndian.PutUint16(b[2+2*i:], p)
		}
		for _, i := range c.ranges {
			b[32+i] = 1
		}
		m, err := decodeMatch("multiport", 1, b, &tcp)
		if err != nil {
			t.Fatal(err)
		}
		if got, drop := m.Match(stack.Input, pkt, "", ""); got != c.want || drop {
			t.Errorf("%+v: %v %v", c, got, drop)
		}
		if m, err = decodeMatch("multiport", 1, b, &stack.IPHeaderFilter{CheckProtocol: true, Protocol: header.UDPProtocolNumber}); err != nil {
			t.Fatal(err)
		}
		if got, _ := m.Match(stack.Input, pkt, "", ""); got {
			t.Errorf("%+v: matches another protocol", c)
		}
	}
	for _, b := range [][]byte{make([]byte, 47), {0: 3, 47: 0}, {1: 16, 47: 0}} {
		if _, err := decodeMatch("multiport", 1, b, &tcp); err != unix.EINVAL {
			t.Errorf("%v: %v", b, err)
		}
	}
	if _, err := decodeMatch("multiport", 1, make([]byte, 48), &stack.IPHeaderFilter{}); err != unix.EINVAL {
		t.Error(err)
	}
}
