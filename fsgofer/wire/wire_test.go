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
	r := Ref{H: 1, Ino: 2, Name: "n"}
	return []Message{
		&HelloReq{1}, &HelloRep{2}, &AttachReq{3}, &AttachRep{1, true, a}, &WalkReq{1, true, []string{"a", "b"}}, &WalkRep{[]Node{n, n}, 2},
		&OpenReq{r, true}, &AttrRep{a}, &CreateReq{1, 2, 3, 4, "x"}, &NodeRep{n, a}, &MakeReq{1, 2, 3, 4, 5, "x", "y"}, &LinkReq{r, 1, "x"},
		&RenameReq{1, 2, 3, true, "a", "b"}, &UnlinkReq{1, true, true, "a"}, &GoneRep{3, a, a}, &LinkRep{a, a}, &RefReq{r},
		&SetAttrReq{r, 3, 4, 5, 6, 7, 8, 9}, &ReadDirReq{1, 2, true},
		&ReadDirRep{true, false, 5, []Dirent{{1, 2, 3, "e", n}}}, &ReadDirRep{false, true, 5, []Dirent{{1, 2, 3, "e", Node{}}}},
		&StringRep{"s"}, &XattrReq{r, 1, "n", []byte("v")}, &BytesRep{[]byte("b")}, &StatFSRep{Type: 1, Flags: 2}, &SyncReq{r, true},
		&AllocateReq{r, 1, 2, 3}, &SeekReq{r, 1, true}, &SeekRep{4}, &CloseReq{[]Handle{1, 2}}, &Empty{},
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
	d := Dirent{Name: "abc", Node: Node{Target: "xyz"}}
	for _, attrs := range []bool{false, true} {
		n, _ := Encode(b, Header{}, &ReadDirRep{Attrs: attrs, Entries: []Dirent{d}})
		if n != ReadDirFixed+DirentLen(&d, attrs) {
			t.Errorf("DirentLen: %d, want %d", ReadDirFixed+DirentLen(&d, attrs), n)
		}
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
		fd := -1
		if withFD {
			fd = p[1]
		}
		if err := srv.Send(p[1], len(msg), fd); err != nil {
			t.Fatal(err)
		}
		var rep WalkRep
		fd, err = c.Call(OpWalk, &WalkReq{Dir: 1, Names: []string{"x"}}, &rep)
		if err == nil && fd >= 0 {
			unix.Close(fd)
		}
		unix.Close(p[0])
		unix.Close(p[1])
	})
}
