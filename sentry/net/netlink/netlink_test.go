package netlink

import (
	"testing"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/waiter"

	"moat/sentry/kernel"
	"moat/sentry/net/inet"
	"moat/sentry/vfs"
)

func testSock(protocol int32) *sock {
	s := &sock{Waitable: vfs.Waitable{Waiters: &waiter.Queue{}}, ns: &kernel.NetNamespace{}, st: inet.New(inet.Config{LoopbackUp: true})}
	s.base.Init(unix.AF_NETLINK, unix.SOCK_RAW, protocol)
	s.port = 7
	return s
}

func message(typ, flags uint16, body ...byte) []byte {
	b := make([]byte, hdrSize, hdrSize+len(body))
	le.PutUint32(b, uint32(hdrSize+len(body)))
	le.PutUint16(b[4:], typ)
	le.PutUint16(b[6:], flags|unix.NLM_F_REQUEST)
	return append(b, body...)
}

// wellFormed checks that every message of the answers is within its datagram.
func wellFormed(t *testing.T, s *sock) (types []uint16) {
	for _, d := range s.datagrams {
		for len(d) > 0 {
			n := int(le.Uint32(d))
			if n < hdrSize || n > len(d) {
				t.Fatalf("a message of %d bytes in %d", n, len(d))
			}
			types = append(types, le.Uint16(d[4:]))
			d = d[min(align(n), len(d)):]
		}
	}
	s.datagrams, s.bytes = nil, 0
	return types
}

// FuzzRequest: no request panics, and every answer is well formed.
func FuzzRequest(f *testing.F) {
	for _, typ := range []uint16{unix.RTM_GETLINK, unix.RTM_GETADDR, unix.RTM_GETROUTE, unix.RTM_GETNEIGH, unix.RTM_GETRULE} {
		f.Add(message(typ, unix.NLM_F_DUMP, make([]byte, 16)...), true)
	}
	f.Add(message(unix.RTM_NEWADDR, unix.NLM_F_ACK, 2, 24, 0, 0, 1, 0, 0, 0, 8, 0, 2, 0, 10, 0, 0, 1), true)
	f.Add(message(unix.RTM_NEWROUTE, unix.NLM_F_ACK, 2, 24, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0, 8, 0, 1, 0, 10, 0, 0, 0, 8, 0, 4, 0, 1, 0, 0, 0), true)
	f.Add(message(byFamily, unix.NLM_F_DUMP, append([]byte{2, 6, 0, 0, 255, 255, 255, 255}, make([]byte, 48)...)...), false)
	route, diag := testSock(unix.NETLINK_ROUTE), testSock(unix.NETLINK_SOCK_DIAG)
	f.Fuzz(func(t *testing.T, b []byte, admin bool) {
		for _, s := range []*sock{route, diag} {
			s.requests(b, admin)
			wellFormed(t, s)
		}
	})
}

func TestPermission(t *testing.T) {
	s := testSock(unix.NETLINK_ROUTE)
	add := message(unix.RTM_NEWADDR, unix.NLM_F_ACK, 2, 24, 0, 0, 1, 0, 0, 0, 8, 0, 2, 0, 10, 0, 0, 1)
	result := func(admin bool) int32 {
		s.requests(add, admin)
		d := s.datagrams[len(s.datagrams)-1]
		s.datagrams = nil
		return int32(le.Uint32(d[hdrSize:]))
	}
	if e := result(false); e != -int32(unix.EPERM) {
		t.Fatal(e)
	}
	if e := result(true); e != 0 {
		t.Fatal(e)
	}
	if e := result(true); e != -int32(unix.EEXIST) {
		t.Fatal(e)
	}
}

// TestDump: a dump ends with NLMSG_DONE.
func TestDump(t *testing.T) {
	s := testSock(unix.NETLINK_ROUTE)
	s.requests(message(unix.RTM_GETADDR, unix.NLM_F_DUMP, make([]byte, 8)...), false)
	if got := wellFormed(t, s); len(got) != 3 || got[2] != unix.NLMSG_DONE {
		t.Fatal(got)
	}
}
