package inet

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/tcpip"

	"moat/sentry/net/socket"
	"moat/sentry/usermem"
)

// FuzzAddress: what is taken for an address is formatted as the same address, and nothing panics.
func FuzzAddress(f *testing.F) {
	f.Add([]byte{unix.AF_INET, 0, 0, 80, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add(append([]byte{unix.AF_INET6, 0, 0, 80}, make([]byte, 24)...))
	f.Add(append(append([]byte{unix.AF_INET6, 0, 0, 80, 0, 0, 0, 0, 0xff, 0x32}, make([]byte, 14)...), 0x30, 0x30, 0x30, 0xff)) // a scope that is negative
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parse(b)
		if err != nil {
			return
		}
		out := format(int32(b[0]), a)
		again, err := parse(out)
		if err != nil || again != a {
			t.Fatalf("%x: %v, then %v, %v", b, a, again, err)
		}
	})
}

// FuzzControl: control messages of a send never panic.
func FuzzControl(f *testing.F) {
	f.Add(int32(0), int32(8), make([]byte, 12))
	f.Add(int32(41), int32(50), make([]byte, 20))
	st := New(Config{LoopbackUp: true})
	f.Fuzz(func(t *testing.T, level, typ int32, data []byte) {
		for _, family := range []int32{unix.AF_INET, unix.AF_INET6} {
			s := &sock{st: st}
			s.base.Init(family, unix.SOCK_DGRAM, unix.IPPROTO_UDP)
			to := tcpip.FullAddress{}
			_, _ = s.control(&socket.Message{Other: []socket.Control{{Level: level, Type: typ, Data: data}}}, &tcpip.WriteOptions{To: &to})
		}
	})
}

func TestCursor(t *testing.T) {
	mem := &usermem.BytesIO{B: []byte("0123456789")}
	seq := usermem.IOSequence{IO: mem, Addrs: []hostarch.AddrRange{{Start: 0, End: 3}, {Start: 5, End: 5}, {Start: 8, End: 10}}}
	c := newCursor(seq)
	var got bytes.Buffer
	if _, err := got.ReadFrom(&c); err != nil || got.String() != "01289" || c.Len() != 0 {
		t.Fatal(got.String(), err, c.Len())
	}
	c = newCursor(seq)
	if n, err := c.Write([]byte("abcdefg")); n != 5 || err == nil {
		t.Fatal(n, err)
	}
	if string(mem.B) != "abc34567de" {
		t.Fatal(string(mem.B))
	}
	// Memory that is not there ends a copy with what was moved.
	bad := newCursor(usermem.IOSequence{IO: mem, Addrs: []hostarch.AddrRange{{Start: 8, End: 12}}})
	if n, err := bad.Read(make([]byte, 4)); n != 2 || err != unix.EFAULT {
		t.Fatal(n, err)
	}
}

// TestOrphans: connections that nobody holds any more are bounded, the oldest goes first.
func TestOrphans(t *testing.T) {
	st := New(Config{LoopbackUp: true})
	eps := make([]*fakeEndpoint, maxOrphans+10)
	for i := range eps {
		eps[i] = &fakeEndpoint{}
		if err := st.add(&sock{}); err != nil {
			t.Fatal(err)
		}
		st.remove(&sock{}, eps[i])
	}
	for i, e := range eps {
		if want := i < 10; e.aborted != want {
			t.Fatalf("endpoint %d: aborted %v", i, e.aborted)
		}
	}
}

type fakeEndpoint struct {
	tcpip.Endpoint
	aborted bool
}

func (f *fakeEndpoint) Abort()        { f.aborted = true }
func (f *fakeEndpoint) State() uint32 { return 6 } // TIME_WAIT
