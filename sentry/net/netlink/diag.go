package netlink

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"

	"moat/sentry/net/inet"
)

const (
	byFamily    = 20 // SOCK_DIAG_BY_FAMILY
	sizeDiagReq = 56 // struct inet_diag_req_v2
)

// diag serves NETLINK_SOCK_DIAG: the sockets of the inet families. There are none to show of others.
func (r *request) diag() error {
	if r.typ != byFamily {
		return unix.EINVAL
	}
	if len(r.body) < 2 {
		return unix.EINVAL
	}
	if f := r.body[0]; f != unix.AF_INET && f != unix.AF_INET6 {
		if r.dump() {
			return nil
		}
		return unix.ENOENT
	}
	h, _ := r.header(sizeDiagReq)
	states := le.Uint32(h[4:])
	found := false
	for _, i := range r.s.st.Sockets() {
		if i.Family != int32(h[0]) || i.Protocol != int32(h[1]) || states>>i.State&1 == 0 && r.dump() {
			continue
		}
		if !r.dump() && (i.Local.Port != binary.BigEndian.Uint16(h[8:]) || i.Remote.Port != binary.BigEndian.Uint16(h[10:])) {
			continue
		}
		found = true
		r.diagItem(&i)
	}
	if !found && !r.dump() {
		return unix.ENOENT
	}
	return nil
}

// diagItem is struct inet_diag_msg.
func (r *request) diagItem(i *inet.SockInfo) {
	b := []byte{byte(i.Family), i.State, 0, 0}
	b = binary.BigEndian.AppendUint16(b, i.Local.Port)
	b = binary.BigEndian.AppendUint16(b, i.Remote.Port)
	for _, a := range []tcpip.Address{i.Local.Addr, i.Remote.Addr} {
		var w [16]byte
		switch s := a.AsSlice(); {
		case i.Family == unix.AF_INET6 && len(s) == 4:
			w[10], w[11] = 0xff, 0xff
			copy(w[12:], s)
		default:
			copy(w[:], s)
		}
		b = append(b, w[:]...)
	}
	b = append(b, le32(0, uint32(i.Ino), 0, 0, i.RxQueue, 0, i.UID, uint32(i.Ino))...)
	r.item(byFamily, b)
	r.reply.end()
}
