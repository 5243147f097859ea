package netlink

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"moat/sentry/net/inet"
)

// Groups of notifications (RTNLGRP_*).
const (
	groupLink     = 1
	groupNeigh    = 3
	groupAddr4    = 5
	groupRoute4   = 7
	groupAddr6    = 9
	groupRoute6   = 11
	sizeIfinfo    = 16
	sizeIfaddr    = 8
	sizeRtmsg     = 12
	sizeNdmsg     = 12
	tableMain     = unix.RT_TABLE_MAIN
	changeMessage = 0 // seq and port of a notification
)

// route serves NETLINK_ROUTE.
func (r *request) route() error {
	// Odd kinds ask; all others change something (rtnetlink_rcv_msg).
	if r.typ&3 != 2 && !r.admin {
		return unix.EPERM
	}
	switch r.typ {
	case unix.RTM_GETLINK:
		return r.getLink()
	case unix.RTM_NEWLINK, unix.RTM_SETLINK:
		return r.setLink()
	case unix.RTM_DELLINK:
		h, a := r.header(sizeIfinfo)
		n, err := r.nic(int32(le.Uint32(h[4:])), str(a[unix.IFLA_IFNAME]))
		if err != nil {
			return err
		}
		return r.s.st.RemoveBridge(n)
	case unix.RTM_GETADDR:
		return r.getAddr()
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return r.changeAddr()
	case unix.RTM_GETROUTE:
		return r.getRoute()
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return r.changeRoute()
	case unix.RTM_GETNEIGH:
		return r.getNeigh()
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		return r.changeNeigh()
	case unix.RTM_GETRULE:
		return r.getRule()
	case unix.RTM_GETQDISC, unix.RTM_GETADDRLABEL, unix.RTM_GETNETCONF, unix.RTM_GETNEIGHTBL, unix.RTM_GETNEXTHOP:
		if r.dump() {
			return nil
		}
	}
	return unix.EOPNOTSUPP
}

// byIndex finds an interface: ENODEV.
func (r *request) nic(index int32, name string) (*inet.NIC, error) {
	for _, n := range r.s.st.NICs() {
		if index > 0 && n.ID == tcpip.NICID(index) || index <= 0 && name != "" && n.Name == name {
			return &n, nil
		}
	}
	return nil, unix.ENODEV
}

func (r *request) getLink() error {
	h, a := r.header(sizeIfinfo)
	if r.dump() {
		for _, n := range r.s.st.NICs() {
			r.link(&n, false)
		}
		return nil
	}
	n, err := r.nic(int32(le.Uint32(h[4:])), str(a[unix.IFLA_IFNAME])+str(a[53])) // IFLA_ALT_IFNAME
	if err != nil {
		return err
	}
	r.link(n, false)
	return nil
}

func (r *request) link(n *inet.NIC, gone bool) {
	typ, flags, change := uint16(unix.RTM_NEWLINK), n.LinuxFlags(), uint32(0)
	if gone {
		typ, change = unix.RTM_DELLINK, ^uint32(0)
	}
	h := append([]byte{unix.AF_UNSPEC, 0}, le.AppendUint16(nil, n.HardwareType())...)
	r.item(typ, append(h, le32(uint32(n.ID), flags, change)...))
	p := &r.reply
	p.text(unix.IFLA_IFNAME, n.Name)
	p.u32(unix.IFLA_TXQLEN, 1000)
	oper, carrier := uint8(2), uint8(0) // IF_OPER_DOWN
	if n.Flags.Running {
		oper, carrier = 6, 1
	}
	if n.Flags.Loopback {
		oper = 0 // lo does not say
	}
	p.u8(unix.IFLA_OPERSTATE, oper)
	p.u8(unix.IFLA_LINKMODE, 0)
	p.u32(unix.IFLA_MTU, n.MTU)
	p.u32(50, 0)     // IFLA_MIN_MTU
	p.u32(51, 65535) // IFLA_MAX_MTU
	p.u32(unix.IFLA_GROUP, 0)
	p.u32(unix.IFLA_PROMISCUITY, 0)
	p.u32(unix.IFLA_NUM_TX_QUEUES, 1)
	p.u32(unix.IFLA_NUM_RX_QUEUES, 1)
	p.u8(unix.IFLA_CARRIER, carrier)
	p.text(unix.IFLA_QDISC, "noqueue")
	mac, bcast := make([]byte, 6), []byte{255, 255, 255, 255, 255, 255}
	copy(mac, n.LinkAddress)
	if n.Flags.Loopback {
		bcast = make([]byte, 6)
	}
	p.attr(unix.IFLA_ADDRESS, mac)
	p.attr(unix.IFLA_BROADCAST, bcast)
	st := &n.Stats
	counts := []uint64{st.Rx.Packets.Value(), st.Tx.Packets.Value(), st.Rx.Bytes.Value(), st.Tx.Bytes.Value()}
	s64, s32 := make([]byte, 25*8), make([]byte, 24*4)
	for i, c := range counts {
		le.PutUint64(s64[8*i:], c)
		le.PutUint32(s32[4*i:], uint32(c))
	}
	p.attr(unix.IFLA_STATS64, s64)
	p.attr(unix.IFLA_STATS, s32)
	if n.Kind != "" {
		var info reply
		info.text(unix.IFLA_INFO_KIND, n.Kind)
		p.attr(unix.IFLA_LINKINFO|unix.NLA_F_NESTED, info.b)
	}
	p.end()
}

func (r *request) setLink() error {
	h, a := r.header(sizeIfinfo)
	n, err := r.nic(int32(le.Uint32(h[4:])), str(a[unix.IFLA_IFNAME]))
	if err != nil {
		if r.typ != unix.RTM_NEWLINK || r.flags&unix.NLM_F_CREATE == 0 {
			return err
		}
		if str(attrs(a[unix.IFLA_LINKINFO])[unix.IFLA_INFO_KIND]) != "bridge" {
			return unix.EOPNOTSUPP // there are no other kinds of interfaces to make
		}
		if err := r.s.st.AddBridge(str(a[unix.IFLA_IFNAME])); err != nil {
			return err
		}
		r.flags &^= unix.NLM_F_EXCL
		if n, err = r.nic(0, str(a[unix.IFLA_IFNAME])); err != nil {
			return err // somebody has removed it
		}
	}
	if r.flags&unix.NLM_F_EXCL != 0 && r.typ == unix.RTM_NEWLINK {
		return unix.EEXIST
	}
	st := r.s.st
	if b, ok := a[unix.IFLA_MTU]; ok {
		if err := st.SetMTU(n.ID, num(b)); err != nil {
			return err
		}
	}
	if b, ok := a[unix.IFLA_IFNAME]; ok && str(b) != n.Name {
		if err := st.SetName(n.ID, str(b)); err != nil {
			return err
		}
	}
	flags, change := le.Uint32(h[8:]), le.Uint32(h[12:])
	if change == 0 && flags != 0 {
		change = ^uint32(0)
	}
	if change&unix.IFF_UP != 0 && n.Flags.Running != (flags&unix.IFF_UP != 0) {
		if err := st.SetUp(n.ID, flags&unix.IFF_UP != 0); err != nil {
			return err
		}
	}
	if n, err = r.nic(int32(n.ID), ""); err == nil {
		r.tell(groupLink, func(o *request) { o.link(n, false) })
	}
	return nil
}

// tell sends a notification that build makes.
func (r *request) tell(group uint, build func(o *request)) {
	o := &request{s: r.s, seq: changeMessage, port: changeMessage}
	build(o)
	for _, d := range o.reply.take() {
		r.s.notify(group, d)
	}
}

func family(a tcpip.Address) byte {
	if a.Len() == 4 {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// addrOf is an attribute that is an address of a family; an empty one if it is not there.
func addrOf(fam byte, b []byte) (tcpip.Address, error) {
	switch {
	case len(b) == 0:
		return tcpip.Address{}, nil
	case fam == unix.AF_INET && len(b) == 4:
		return tcpip.AddrFrom4Slice(b), nil
	case fam == unix.AF_INET6 && len(b) == 16:
		return tcpip.AddrFrom16Slice(b), nil
	}
	return tcpip.Address{}, unix.EINVAL
}

func (r *request) getAddr() error {
	h, _ := r.header(sizeIfaddr)
	if !r.dump() {
		return unix.EOPNOTSUPP
	}
	for _, n := range r.s.st.NICs() {
		if i := le.Uint32(h[4:]); i != 0 && n.ID != tcpip.NICID(i) && r.s.option(unix.NETLINK_GET_STRICT_CHK) {
			continue
		}
		for _, p := range n.ProtocolAddresses {
			if a := p.AddressWithPrefix; h[0] == 0 || h[0] == family(a.Address) {
				r.addr(unix.RTM_NEWADDR, &n, a)
			}
		}
	}
	return nil
}

func (r *request) addr(typ uint16, n *inet.NIC, a tcpip.AddressWithPrefix) {
	scope := byte(unix.RT_SCOPE_UNIVERSE)
	if n.Flags.Loopback {
		scope = unix.RT_SCOPE_HOST
	} else if family(a.Address) == unix.AF_INET6 && inet.Scope6(a.Address) == 0x20 {
		scope = unix.RT_SCOPE_LINK
	}
	r.item(typ, append([]byte{family(a.Address), byte(a.PrefixLen), unix.IFA_F_PERMANENT, scope}, le32(uint32(n.ID))...))
	p := &r.reply
	p.attr(unix.IFA_ADDRESS, a.Address.AsSlice())
	if a.Address.Len() == 4 {
		p.attr(unix.IFA_LOCAL, a.Address.AsSlice())
		if sub := a.Subnet(); !n.Flags.Loopback && a.PrefixLen < 31 {
			b := sub.Broadcast()
			p.attr(unix.IFA_BROADCAST, b.AsSlice())
		}
		p.text(unix.IFA_LABEL, n.Name)
	}
	p.u32(unix.IFA_FLAGS, unix.IFA_F_PERMANENT)
	p.attr(unix.IFA_CACHEINFO, le32(^uint32(0), ^uint32(0), 0, 0))
	p.end()
}

func (r *request) changeAddr() error {
	h, a := r.header(sizeIfaddr)
	b := a[unix.IFA_LOCAL]
	if b == nil {
		b = a[unix.IFA_ADDRESS]
	}
	ip, err := addrOf(h[0], b)
	if err != nil || ip.Len() == 0 || int(h[1]) > 8*ip.Len() {
		return unix.EINVAL
	}
	n, err := r.nic(int32(le.Uint32(h[4:])), "")
	if err != nil {
		return err
	}
	w := tcpip.AddressWithPrefix{Address: ip, PrefixLen: int(h[1])}
	group := uint(groupAddr4)
	if family(ip) == unix.AF_INET6 {
		group = groupAddr6
	}
	if r.typ == unix.RTM_DELADDR {
		err = r.s.st.RemoveAddress(n.ID, w)
	} else if err = r.s.st.AddAddress(n.ID, w); err == unix.EEXIST && r.flags&unix.NLM_F_REPLACE != 0 {
		err = nil
	}
	if err == nil {
		r.tell(group, func(o *request) { o.addr(r.typ, n, w) })
	}
	return err
}

func (r *request) getRoute() error {
	h, a := r.header(sizeRtmsg)
	if !r.dump() {
		dst, err := addrOf(h[0], a[unix.RTA_DST])
		if err != nil || dst.Len() == 0 {
			return unix.EINVAL
		}
		src, err := addrOf(h[0], a[unix.RTA_SRC])
		if err != nil {
			return err
		}
		from, gw, nic, err := r.s.st.FindRoute(dst, src, tcpip.NICID(num(a[unix.RTA_OIF])))
		if err != nil {
			return err
		}
		r.routeItem(unix.RTM_NEWROUTE, tcpip.AddressWithPrefix{Address: dst, PrefixLen: 8 * dst.Len()}, gw, from, nic)
		return nil
	}
	if h[0] != 0 && h[0] != unix.AF_INET && h[0] != unix.AF_INET6 {
		return nil
	}
	for _, t := range r.s.st.Routes() {
		id := t.Destination.ID()
		if h[0] != 0 && family(id) != h[0] || t.NIC == 1 && id.Len() == 4 {
			continue // 127.0.0.0/8 is in the local table
		}
		var src tcpip.Address
		if t.Gateway.Len() == 0 {
			src = t.SourceHint
			if src.Len() == 0 {
				src = r.sourceIn(t.Destination, t.NIC)
			}
		}
		r.routeItem(unix.RTM_NEWROUTE, tcpip.AddressWithPrefix{Address: id, PrefixLen: t.Destination.Prefix()}, t.Gateway, src, t.NIC)
	}
	return nil
}

// sourceIn is the interface's IPv4 address in a subnet, if it has one there.
func (r *request) sourceIn(sub tcpip.Subnet, nic tcpip.NICID) tcpip.Address {
	n, err := r.nic(int32(nic), "")
	if err != nil {
		return tcpip.Address{}
	}
	for _, p := range n.ProtocolAddresses {
		if a := p.AddressWithPrefix.Address; a.Len() == 4 && sub.Contains(a) {
			return a
		}
	}
	return tcpip.Address{}
}

func (r *request) routeItem(typ uint16, dst tcpip.AddressWithPrefix, gw, src tcpip.Address, nic tcpip.NICID) {
	scope, proto := byte(unix.RT_SCOPE_UNIVERSE), byte(unix.RTPROT_BOOT)
	if gw.Len() == 0 && dst.PrefixLen < 8*dst.Address.Len() {
		proto = unix.RTPROT_KERNEL
		if dst.Address.Len() == 4 {
			scope = unix.RT_SCOPE_LINK
		}
	}
	r.item(typ, append([]byte{family(dst.Address), byte(dst.PrefixLen), 0, 0, tableMain, proto, scope, unix.RTN_UNICAST}, le32(0)...))
	p := &r.reply
	p.u32(unix.RTA_TABLE, tableMain)
	if dst.PrefixLen > 0 {
		p.attr(unix.RTA_DST, dst.Address.AsSlice())
	}
	if gw.Len() > 0 {
		p.attr(unix.RTA_GATEWAY, gw.AsSlice())
	}
	if src.Len() > 0 {
		p.attr(unix.RTA_PREFSRC, src.AsSlice())
	}
	p.u32(unix.RTA_OIF, uint32(nic))
	if dst.Address.Len() == 16 {
		p.u32(unix.RTA_PRIORITY, 256)
	}
	p.end()
}

func (r *request) changeRoute() error {
	h, a := r.header(sizeRtmsg)
	if h[0] != unix.AF_INET && h[0] != unix.AF_INET6 {
		return unix.EAFNOSUPPORT
	}
	if h[7] != unix.RTN_UNICAST && h[7] != unix.RTN_UNSPEC || h[4] != tableMain && h[4] != 0 {
		return unix.EOPNOTSUPP
	}
	dst, err := addrOf(h[0], a[unix.RTA_DST])
	if err != nil {
		return err
	}
	if dst.Len() == 0 {
		if dst = tcpip.AddrFrom4([4]byte{}); h[0] == unix.AF_INET6 {
			dst = tcpip.AddrFrom16([16]byte{})
		}
	}
	gw, err := addrOf(h[0], a[unix.RTA_GATEWAY])
	if err != nil || int(h[1]) > 8*dst.Len() {
		return unix.EINVAL
	}
	src, err := addrOf(h[0], a[unix.RTA_PREFSRC])
	if err != nil {
		return err
	}
	w := tcpip.AddressWithPrefix{Address: dst, PrefixLen: int(h[1])}
	t := tcpip.Route{Destination: w.Subnet(), Gateway: gw, NIC: tcpip.NICID(num(a[unix.RTA_OIF])), SourceHint: src}
	if t.NIC != 0 {
		if _, err := r.nic(int32(t.NIC), ""); err != nil {
			return err
		}
	} else if gw.Len() == 0 && r.typ == unix.RTM_NEWROUTE {
		return unix.ENODEV
	}
	st := r.s.st
	switch {
	case r.typ == unix.RTM_DELROUTE:
		err = st.RemoveRoute(t)
	default:
		if err = st.AddRoute(t); err == unix.EEXIST && r.flags&unix.NLM_F_REPLACE != 0 {
			if err = st.RemoveRoute(tcpip.Route{Destination: t.Destination}); err == nil {
				err = st.AddRoute(t)
			}
		}
	}
	if err == nil {
		group := uint(groupRoute4)
		if h[0] == unix.AF_INET6 {
			group = groupRoute6
		}
		r.tell(group, func(o *request) { o.routeItem(r.typ, w, gw, src, t.NIC) })
	}
	return err
}

func (r *request) getNeigh() error {
	h, _ := r.header(sizeNdmsg)
	if !r.dump() {
		return unix.EOPNOTSUPP
	}
	for _, n := range r.s.st.NICs() {
		for _, e := range r.s.st.Neighbors(n.ID) {
			if h[0] == 0 || h[0] == family(e.Addr) {
				r.neigh(&n, &e)
			}
		}
	}
	return nil
}

// nudState is NUD_*.
func nudState(s stack.NeighborState) uint16 {
	switch s {
	case stack.Incomplete:
		return unix.NUD_INCOMPLETE
	case stack.Reachable:
		return unix.NUD_REACHABLE
	case stack.Stale:
		return unix.NUD_STALE
	case stack.Delay:
		return unix.NUD_DELAY
	case stack.Probe:
		return unix.NUD_PROBE
	case stack.Static:
		return unix.NUD_PERMANENT
	}
	return unix.NUD_FAILED
}

func (r *request) neigh(n *inet.NIC, e *stack.NeighborEntry) {
	h := append([]byte{family(e.Addr), 0, 0, 0}, le32(uint32(n.ID))...)
	h = le.AppendUint16(h, nudState(e.State))
	r.item(unix.RTM_NEWNEIGH, append(h, 0, unix.RTN_UNICAST))
	r.reply.attr(unix.NDA_DST, e.Addr.AsSlice())
	if len(e.LinkAddr) == 6 {
		r.reply.attr(unix.NDA_LLADDR, []byte(e.LinkAddr))
	}
	r.reply.end()
}

func (r *request) changeNeigh() error {
	h, a := r.header(sizeNdmsg)
	ip, err := addrOf(h[0], a[unix.NDA_DST])
	if err != nil || ip.Len() == 0 {
		return unix.EINVAL
	}
	n, err := r.nic(int32(le.Uint32(h[4:])), "")
	if err != nil {
		return err
	}
	if r.typ == unix.RTM_DELNEIGH {
		return r.s.st.RemoveNeighbor(n.ID, ip)
	}
	mac := a[unix.NDA_LLADDR]
	if len(mac) != 6 || n.Flags.Loopback {
		return unix.EINVAL
	}
	return r.s.st.AddNeighbor(n.ID, ip, tcpip.LinkAddress(mac))
}

// getRule answers with the rules that every Linux begins with.
func (r *request) getRule() error {
	h, _ := r.header(sizeRtmsg)
	if !r.dump() {
		return unix.EOPNOTSUPP
	}
	for _, fam := range []byte{unix.AF_INET, unix.AF_INET6} {
		if h[0] != 0 && h[0] != fam {
			continue
		}
		for _, t := range []struct{ table, prio uint32 }{{unix.RT_TABLE_LOCAL, 0}, {unix.RT_TABLE_MAIN, 32766}, {unix.RT_TABLE_DEFAULT, 32767}} {
			if fam == unix.AF_INET6 && t.table == unix.RT_TABLE_DEFAULT {
				continue
			}
			r.item(unix.RTM_NEWRULE, append([]byte{fam, 0, 0, 0, byte(t.table), 0, 0, 1}, le32(0)...))
			r.reply.u32(15, t.table) // FRA_TABLE
			r.reply.u32(14, ^uint32(0))
			r.reply.u32(6, t.prio) // FRA_PRIORITY
			r.reply.end()
		}
	}
	return nil
}
