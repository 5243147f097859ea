package inet

import (
	"golang.org/x/sys/unix"
)

// The host lays frames that come in a ring that it shares with the sentry (packet_mmap.rst), so that to look for one, which the poller does all the time,
// and to take one that the host has not joined of several costs no host call. Of a frame that is longer than its place the ring has the beginning, and the socket's queue all of it.
const (
	ringFrame = 2048
	ringBlock = 32 << 10
	ringSize  = 512 << 10
)

// MakeRing gives a packet socket its ring, before it is bound; where the host has none to give frames are received by calls.
func MakeRing(fd int) {
	if unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2) == nil && unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_COPY_THRESH, 1) == nil {
		_ = unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_RX_RING,
			&unix.TpacketReq{Block_size: ringBlock, Block_nr: ringSize / ringBlock, Frame_size: ringFrame, Frame_nr: ringSize / ringFrame})
	}
}

// ring is a packet socket's, empty if it has none.
type ring struct {
	mem  []byte
	next int
}

func newRing(fd int) (r ring) {
	r.mem, _ = unix.Mmap(fd, 0, ringSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED) // EINVAL without a ring
	return r
}

// place is the one that is i behind the next to be taken.
func (r *ring) place(i int) int { return (r.next + i) % (ringSize / ringFrame) }

// long is how many frames, max at most, are the next and in the socket's queue.
func (r *ring) long(max int) (n int) {
	for r.mem != nil && n < max && r.header(r.place(n)).status()&unix.TP_STATUS_COPY != 0 {
		n++
	}
	return n
}

// small is the next frame, with room bytes before it, if there is one and it is not long; nil if it is lost. It is the ring's until it is given back.
func (r *ring) small(room int) (b []byte, ok bool) {
	h := r.header(r.next)
	if h.status()&(unix.TP_STATUS_USER|unix.TP_STATUS_COPY) != unix.TP_STATUS_USER {
		return nil, false
	}
	if at, n := int(h.Mac)-room, int(h.Snaplen)+room; h.Len == h.Snaplen && at >= 0 && n <= ringFrame-at {
		b = r.mem[r.next*ringFrame+at:][:n]
	}
	return b, true
}

// give gives the next n places back.
func (r *ring) give(n int) {
	for ; n > 0; n-- {
		r.header(r.next).free()
		r.next = r.place(1)
	}
}
