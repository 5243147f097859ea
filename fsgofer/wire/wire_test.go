package wire

import (
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

// all has a value of each message, to round-trip and to seed the fuzzer.
func all() []Message {
	a := Attr{Ino: 1, Dev: 2, Mode: 3, Size: -4, Mtime: 1 << 60}
	n := Node{Handle: 7, Attr: a, Target: "t"}
	r := Ref{H: 1, Ino: 2, Path: "n/m"}
	return []Message{
		&HelloReq{1}, &HelloRep{2}, &AttachReq{3}, &AttachRep{1, true, a}, &WalkReq{r, true, true, true, []string{"a", "b"}, []string{"m"}}, &WalkRep{3, []Node{n, n}, 2, true, []Node{n}},
		&OpenReq{r, true, []string{"o"}}, &OpenRep{a, []Attr{a}}, &AttrRep{a}, &CreateReq{1, 2, 3, 4, "x"}, &NodeRep{n, a}, &MakeReq{1, 2, 3, 4, 5, "x", "y"}, &LinkReq{r, 1, "x"},
		&RenameReq{1, 2, 3, true, "a", "b"}, &UnlinkReq{1, true, true, "a"}, &GoneRep{3, a, a}, &LinkRep{a, a}, &RefReq{r},
		&SetAttrReq{r, 3, 4, 5, 6, 7, 8}, &ReadDirReq{r, 2, AttrsAll, 7, []string{"s"}},
		&ReadDirRep{1, true, 5, []Entries{entries(&n), entries(nil)}, []uint32{1}}, &ReadDirRep{0, false, 5, []Entries{""}, []uint32{}},
		&StringRep{"s"}, &XattrReq{r, 1, "n", []byte("v")}, &BytesRep{[]byte("b")}, &StatFSRep{Type: 1, Flags: 2}, &SyncReq{r, true},
		&CloseReq{[]Handle{1, 2}}, &Empty{},
	}
}

func TestRoundTrip(t *testing.T) {
	b := make([]byte, MaxMessage)
	for _, m := range all() {
		n, err := Encode(b, Header{Tag: 5, Op: 6}, m)
		if err != nil {
			t.Fatalf("%T: %v", m, err)
		}
		got := reflect.New(reflect.TypeOf(m).Elem()).Interface().(Message)
		if err := DecodeBody(b[:n], got); err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%T: %v: %+v, want %+v", m, err, got, m)
		}
		if err := DecodeBody(b[:n+1], got); err != unix.EBADMSG {
			t.Errorf("%T with a byte too many: %v", m, err)
		}
		if n > HeaderLen && DecodeBody(b[:n-1], got) != unix.EBADMSG {
			t.Errorf("%T without its last byte is accepted", m)
		}
	}
	n, _ := Encode(b, Header{}, &ReadDirRep{Lists: []Entries{entries(nil)}})
	if n != ReadDirFixed+len(entries(nil)) {
		t.Errorf("ReadDirFixed: %d, want %d", ReadDirFixed, n-len(entries(nil)))
	}
}

// entries are two entries, the second with a node if n is not nil.
func entries(n *Node) Entries {
	b := AppendEntry(make([]byte, 0, 1000), 1, 2, 3, "one", nil)
	return Entries(AppendEntry(b, 4, 5, 6, "two", n))
}

func TestEntries(t *testing.T) {
	n := Node{Attr: Attr{Ino: 4, Dev: 2, Mode: 3, Mtime: -1, Attributes: 1 << 40}, Target: "to"}
	s := entries(&n)
	one, next := s.At(0)
	if one.Name != "one" || one.Ino != 1 || one.Off != 2 || one.Type != 3 || one.Sub != 0 || one.HasNode() {
		t.Errorf("%+v", one)
	}
	two, next := s.At(next)
	if two.Name != "two" || two.Ino != 4 || two.Off != 5 || two.Type != 6 || !two.HasNode() || two.Node() != n || next != len(s) {
		t.Errorf("%+v", two)
	}
	b := []byte(s)
	SetSub(b, 258)
	if one, _ = Entries(b).At(0); one.Sub != 258 {
		t.Error(one.Sub)
	}
	if l := EntryLen("one", nil) + EntryLen("two", &n); l != len(s) {
		t.Errorf("EntryLen: %d, want %d", l, len(s))
	}
}

// FuzzDecode: no bytes make a decoder of either side fail in another way than EBADMSG, and what is accepted encodes to the same bytes.
func FuzzDecode(f *testing.F) {
	b := make([]byte, MaxMessage)
	for i, m := range all() {
		n, _ := Encode(b, Header{}, m)
		f.Add(uint8(i), append([]byte(nil), b[HeaderLen:n]...))
	}
	kinds := all()
	f.Fuzz(func(t *testing.T, kind uint8, body []byte) {
		m := reflect.New(reflect.TypeOf(kinds[int(kind)%len(kinds)]).Elem()).Interface().(Message)
		msg := append(make([]byte, HeaderLen), body...)
		if DecodeBody(msg, m) != nil || len(msg) > MaxMessage {
			return
		}
		n, err := Encode(b, Header{}, m)
		if err != nil || string(b[:n]) != string(msg) {
			t.Fatalf("%T %+v: %v: %x, was %x", m, m, err, b[:n], msg)
		}
	})
}

// FuzzReply: a gofer that answers with any bytes gets the client to EIO at worst.
func FuzzReply(f *testing.F) {
	f.Add([]byte{0, 0, 3, 0, 0, 0, 0, 0}, true)
	f.Add([]byte{9, 0, 3, 0, 2, 0, 0, 0, 1}, false)
	f.Fuzz(func(t *testing.T, msg []byte, withFD bool) {
		p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if len(msg) == 0 || len(msg) > MaxMessage {
			msg = []byte{1}
		}
		c := &Client{conn: p[0], slots: make(chan *call, 1), onDeath: func(error) {}}
		c.slots <- &call{wake: make(chan struct{}, 1)}
		srv := NewBuffer()
		copy(srv.B, msg)
		var fds []int
		if withFD {
			fds = []int{p[1], p[1]}
		}
		if err := srv.Send(p[1], len(msg), fds); err != nil {
			t.Fatal(err)
		}
		var rep WalkRep
		var got [1]int
		if n, err := c.CallFDs(OpWalk, &WalkReq{Dir: Ref{H: 1}, Names: []string{"x"}}, &rep, got[:]); err == nil && n > 0 {
			unix.Close(got[0])
		}
		unix.Close(p[0])
		unix.Close(p[1])
	})
}
