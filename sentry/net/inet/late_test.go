package inet

import (
	"testing"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"moat/sentry/kernel"
	"moat/sentry/net/socket"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

// blink looks once.
type blink struct {
	looker
	looked bool
}

func (b *blink) Looks() bool {
	was := b.looked
	b.looked = true
	return !was
}

// TestLate: what is sent while somebody looks leaves with the next push, and before what changes whether it may leave: MSG_MORE, TCP_CORK, shutdown(2).
func TestLate(t *testing.T) {
	look := &looker{looks: true}
	st := New(Config{LoopbackUp: true})
	st.attender = look
	task := rootTask()
	newSock := func() *sock {
		s := &sock{st: st, ns: &kernel.NetNamespace{}, Waitable: vfs.Waitable{Waiters: &waiter.Queue{}}}
		if _, err := s.init(task, unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_TCP, tcp.ProtocolNumber); err != nil {
			t.Fatal(err)
		}
		return s
	}
	addr := []byte{unix.AF_INET, 0, 31, 64, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0}
	l, s := newSock(), newSock()
	connected, made := waiter.NewChannelEntry(waiter.WritableEvents)
	s.Waiters.EventRegister(&connected)
	if err := l.Bind(task, addr); err != nil {
		t.Fatal(err)
	}
	if err := l.Listen(task, 9); err != nil {
		t.Fatal(err)
	}
	if err := s.Connect(task, addr); err != unix.EINPROGRESS {
		t.Fatal(err)
	}
	<-made
	send := func(flags int32) {
		t.Helper()
		if n, err := s.Send(vfs.Background(), &socket.Message{Data: usermem.Bytes([]byte("x")), Flags: flags}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	set := func(name int32, v byte) {
		if err := s.SetOption(task, linux.SOL_TCP, name, []byte{v, 0, 0, 0}); err != nil {
			t.Fatal(err)
		}
	}
	var last uint64
	sent := func(want uint64) {
		t.Helper()
		n := s.endpoint().Stats().(*tcp.Stats).SegmentsSent.Value()
		if n-last != want {
			t.Fatalf("%d segments, want %d", n-last, want)
		}
		last = n
	}
	set(linux.TCP_NODELAY, 1)
	last = s.endpoint().Stats().(*tcp.Stats).SegmentsSent.Value()
	send(0) // in all no more than what may leave unacknowledged
	if sent(1); s.far.Load() {
		t.Fatal("lo is not this machine's")
	}
	s.far.Store(true)
	send(0)
	send(0)
	sent(0)
	st.push()
	sent(1)
	send(0)
	send(unix.MSG_MORE)
	sent(1)
	send(0)
	sent(1)
	send(0)
	set(linux.TCP_CORK, 1)
	sent(1)
	send(0)
	st.push()
	sent(0)
	if b, err := s.GetOption(task, linux.SOL_TCP, linux.TCP_CORK, 4); err != nil || b[0] != 1 {
		t.Fatal(b, err)
	}
	set(linux.TCP_CORK, 0)
	sent(1)
	send(0)
	if b, err := s.GetOption(task, linux.SOL_TCP, linux.TCP_CORK, 4); err != nil || b[0] != 0 {
		t.Fatal(b, err)
	}
	look.looks = false
	st.push() // by who looked
	sent(1)
	st.attender = new(blink)
	send(0)
	sent(1)
	look.looks, st.attender = true, look
	send(0)
	if err := s.Shutdown(unix.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	sent(2)
	st.push()
	sent(0)
	s.Release(vfs.Background(), nil)
	l.Release(vfs.Background(), nil)
}
