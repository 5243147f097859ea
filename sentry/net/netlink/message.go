package netlink

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

var le = binary.LittleEndian

const (
	hdrSize  = 16 // struct nlmsghdr
	attrSize = 4  // struct nlattr
)

func align(n int) int { return (n + 3) &^ 3 }

// request is one message of a guest's.
type request struct {
	s     *sock
	admin bool // CAP_NET_ADMIN
	raw   []byte
	typ   uint16
	flags uint16
	seq   uint32
	port  uint32
	body  []byte
	reply reply
}

// dump reports whether all objects are asked for.
func (r *request) dump() bool { return r.flags&unix.NLM_F_DUMP == unix.NLM_F_DUMP }

// requests carries out every message of a datagram (netlink_rcv_skb). Malformed ones end it.
func (s *sock) requests(b []byte, admin bool) {
	s.mu.Lock()
	port := s.port
	s.mu.Unlock()
	for len(b) >= hdrSize {
		n := int(le.Uint32(b))
		if n < hdrSize || n > len(b) {
			return
		}
		r := &request{s: s, admin: admin, raw: b[:n], typ: le.Uint16(b[4:]), flags: le.Uint16(b[6:]), seq: le.Uint32(b[8:]), port: port, body: b[hdrSize:n]}
		b = b[min(align(n), len(b)):]
		if r.flags&unix.NLM_F_REQUEST == 0 || r.typ < unix.NLMSG_MIN_TYPE && r.flags&unix.NLM_F_ACK == 0 {
			continue
		}
		r.serve()
	}
}

func (r *request) serve() {
	var err error
	switch {
	case r.s.full():
		err = unix.ENOBUFS
	case r.typ < unix.NLMSG_MIN_TYPE:
	case r.s.base.Protocol == unix.NETLINK_ROUTE:
		err = r.route()
	case r.s.base.Protocol == unix.NETLINK_SOCK_DIAG:
		err = r.diag()
	default:
		err = unix.ENOENT // no family of NETLINK_GENERIC
	}
	if err == nil && r.dump() {
		r.reply.begin(unix.NLMSG_DONE, unix.NLM_F_MULTI, r.seq, r.port)
		r.reply.fixed(le32(0))
		r.reply.end()
	} else if err != nil || r.flags&unix.NLM_F_ACK != 0 {
		r.fail(err)
	}
	r.s.answer(r.reply.take()...)
}

// fail adds NLMSG_ERROR, which is an acknowledgement if err is nil.
func (r *request) fail(err error) {
	e, _ := err.(unix.Errno)
	flags := uint16(0)
	orig := r.raw
	if err == nil || r.s.option(unix.NETLINK_CAP_ACK) {
		orig = orig[:hdrSize]
		flags = 0x100 // NLM_F_CAPPED
	}
	r.reply.begin(unix.NLMSG_ERROR, flags, r.seq, r.port)
	r.reply.fixed(le32(uint32(-int32(e))))
	r.reply.fixed(orig)
	r.reply.end()
}

// item begins a message of an answer: one of many if all were asked for.
func (r *request) item(typ uint16, fixed []byte) {
	flags := uint16(0)
	if r.dump() {
		flags = unix.NLM_F_MULTI
	}
	r.reply.begin(typ, flags, r.seq, r.port)
	r.reply.fixed(fixed)
}

// reply builds datagrams.
type reply struct {
	done  [][]byte
	b     []byte
	start int
}

func (p *reply) begin(typ, flags uint16, seq, port uint32) {
	if len(p.b) > chunk {
		p.done, p.b = append(p.done, p.b), nil
	}
	p.start = len(p.b)
	p.b = append(p.b, make([]byte, hdrSize)...)
	h := p.b[p.start:]
	le.PutUint16(h[4:], typ)
	le.PutUint16(h[6:], flags)
	le.PutUint32(h[8:], seq)
	le.PutUint32(h[12:], port)
}

func (p *reply) fixed(b []byte) { p.pad(append(p.b, b...)) }

func (p *reply) pad(b []byte) {
	p.b = b
	for len(p.b)%4 != 0 {
		p.b = append(p.b, 0)
	}
}

// attr adds an attribute.
func (p *reply) attr(typ uint16, data []byte) {
	p.b = le.AppendUint16(p.b, uint16(attrSize+len(data)))
	p.b = le.AppendUint16(p.b, typ)
	p.pad(append(p.b, data...))
}

func (p *reply) text(typ uint16, s string) { p.attr(typ, append([]byte(s), 0)) }
func (p *reply) u32(typ uint16, v uint32)  { p.attr(typ, le32(v)) }
func (p *reply) u8(typ uint16, v uint8)    { p.attr(typ, []byte{v}) }

func (p *reply) end() { le.PutUint32(p.b[p.start:], uint32(len(p.b)-p.start)) }

// take returns the datagrams.
func (p *reply) take() [][]byte {
	if len(p.b) > 0 {
		p.done = append(p.done, p.b)
	}
	return p.done
}

func le32(v ...uint32) []byte {
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = le.AppendUint32(b, x)
	}
	return b
}

// attrs takes attributes apart; what follows a malformed one is not seen. The last of a type counts.
func attrs(b []byte) map[uint16][]byte {
	m := make(map[uint16][]byte)
	for len(b) >= attrSize {
		n := int(le.Uint16(b))
		if n < attrSize || n > len(b) {
			break
		}
		m[le.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER)] = b[attrSize:n]
		b = b[min(align(n), len(b)):]
	}
	return m
}

// header splits a body after n bytes of a fixed struct: zeroes in place of what is missing, as old programs send less.
func (r *request) header(n int) ([]byte, map[uint16][]byte) {
	h := make([]byte, n)
	k := copy(h, r.body)
	return h, attrs(r.body[min(align(k), len(r.body)):])
}

// num is an attribute that is a 32-bit number, 0 if it is not there.
func num(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return le.Uint32(b)
}

func str(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
