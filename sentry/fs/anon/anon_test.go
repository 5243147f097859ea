package anon

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"moat/sentry/usermem"
	"moat/sentry/vfs"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

var ctx = vfs.Background()

func is(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func event(n uint32) *vfs.FileDescription {
	f, _ := NewEventFD(ctx, n, unix.EFD_NONBLOCK)
	return f
}

func put(f *vfs.FileDescription) { f.Impl().(*EventFD).Add(1) }

func add(ep, f *vfs.FileDescription, fd int32, events uint32) error {
	return ep.Impl().(*Epoll).Control(unix.EPOLL_CTL_ADD, ep, f, fd, linux.EpollEvent{Events: events, Data: [2]int32{fd}})
}

func now(ep *vfs.FileDescription) string {
	s, _ := nowIn(ep, 100*12)
	return s
}

// nowIn is now with memory for so many bytes.
func nowIn(ep *vfs.FileDescription, size int) (string, error) {
	b := make([]byte, size)
	n, err := ep.Impl().(*Epoll).Wait(ctx, &usermem.BytesIO{B: b}, 0, 100, false, time.Time{})
	s := ""
	for range n {
		var e linux.EpollEvent
		b = e.UnmarshalBytes(b)
		s += fmt.Sprintf("%d:%x ", e.Data[0], e.Events)
	}
	return s, err
}

// TestEpollFault: what cannot be copied is told again, edge or not.
func TestEpollFault(t *testing.T) {
	ep := NewEpoll(ctx)
	defer ep.DecRef()
	for i, ev := range []uint32{unix.EPOLLIN | epollET, unix.EPOLLIN | unix.EPOLLONESHOT, unix.EPOLLIN} {
		is(t, "add", add(ep, event(1), int32(i+1), ev), nil)
	}
	for _, c := range []struct {
		size int
		want string
		err  error
	}{{11, "", unix.EFAULT}, {23, "1:1 ", nil}, {0, "", unix.EFAULT}, {30, "2:1 3:1 ", nil}, {36, "3:1 ", nil}} {
		if s, err := nowIn(ep, c.size); s != c.want || err != c.err {
			t.Errorf("%d bytes: %q %v, want %q %v", c.size, s, err, c.want, c.err)
		}
	}
}

func TestEpollKinds(t *testing.T) {
	ep, f := NewEpoll(ctx), event(1)
	is(t, "add", add(ep, f, 1, unix.EPOLLIN), nil)
	is(t, "again", add(ep, f, 1, unix.EPOLLIN), unix.EEXIST)
	is(t, "same file, other descriptor", add(ep, f, 2, unix.EPOLLIN|epollET), nil)
	is(t, "itself", add(ep, ep, 3, unix.EPOLLIN), unix.EINVAL)
	g := event(1)
	is(t, "one shot", add(ep, g, 3, unix.EPOLLIN|unix.EPOLLONESHOT), nil)
	if s := now(ep); s != "1:1 2:1 3:1 " {
		t.Error("first", s)
	}
	if s := now(ep); s != "1:1 " {
		t.Error("level only", s)
	}
	put(f)
	put(g)
	if s := now(ep); s != "1:1 2:1 " && s != "2:1 1:1 " {
		t.Error("edge", s)
	}
	f.DecRef() // the last reference: both go
	e := ep.Impl().(*Epoll)
	s := now(ep)
	e.mu.Lock()
	items := len(e.items)
	e.mu.Unlock()
	if s != "" || items != 1 {
		t.Error("closed", s)
	}
	ep.DecRef()
	g.DecRef()
	if epollItems.Load() != 0 {
		t.Error("items left", epollItems.Load())
	}
}

func TestEpollNesting(t *testing.T) {
	var e [6]*vfs.FileDescription
	for i := range e {
		e[i] = NewEpoll(ctx)
	}
	for i := range 4 {
		is(t, "chain", add(e[i], e[i+1], 0, unix.EPOLLIN), nil)
	}
	is(t, "too long below", add(e[4], e[5], 0, unix.EPOLLIN), unix.ELOOP)
	is(t, "too long above", add(e[5], e[0], 0, unix.EPOLLIN), unix.ELOOP)
	is(t, "circle", add(e[3], e[1], 1, unix.EPOLLIN), unix.ELOOP)
	f := event(0)
	add(e[4], f, 9, unix.EPOLLIN)
	if s := now(e[0]); s != "" {
		t.Error("not ready", s)
	}
	put(f)
	if s := now(e[0]); s != "0:1 " {
		t.Error("through four", s)
	}
	for i := range e {
		e[i].DecRef()
	}
	f.DecRef()
	for i := range e {
		if n := &e[i].Impl().(*Epoll).nest; len(n.watches)+len(n.watchedBy) != 0 {
			t.Error("link left at", i)
		}
	}
}

// TestEpollThreads: many wait together, each event is taken once and none is lost.
func TestEpollThreads(t *testing.T) {
	const files, rounds = 50, 200
	ep := NewEpoll(ctx)
	fs := make([]*vfs.FileDescription, files)
	for i := range fs {
		fs[i] = event(0)
		add(ep, fs[i], int32(i), unix.EPOLLIN|unix.EPOLLONESHOT)
	}
	done := make(chan int, files*rounds)
	stop := time.Now().Add(20 * time.Second)
	var wg sync.WaitGroup
	e := ep.Impl().(*Epoll)
	left := files * rounds
	var mu sync.Mutex
	for range 8 {
		wg.Go(func() {
			for {
				mu.Lock()
				l := left
				mu.Unlock()
				if l <= 0 || time.Now().After(stop) {
					return
				}
				b := make([]byte, 3*12)
				n, _ := e.Wait(ctx, &usermem.BytesIO{B: b}, 0, 3, true, time.Now().Add(50*time.Millisecond))
				for range n {
					var ev linux.EpollEvent
					b = ev.UnmarshalBytes(b)
					f := fs[ev.Data[0]]
					var b [8]byte
					if _, err := f.Read(ctx, usermem.Bytes(b[:]), 0); err != nil {
						t.Error("event without data", err)
					}
					e.Control(unix.EPOLL_CTL_MOD, ep, f, ev.Data[0], linux.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Data: ev.Data})
					mu.Lock()
					left--
					mu.Unlock()
					done <- int(ev.Data[0])
				}
			}
		})
	}
	for i := range fs {
		put(fs[i])
	}
	for range files * (rounds - 1) {
		select {
		case i := <-done:
			put(fs[i])
		case <-time.After(10 * time.Second):
			t.Fatal("an event was lost")
		}
	}
	wg.Wait()
	if left != 0 {
		t.Error("left", left)
	}
	ep.DecRef()
}

func TestTimer(t *testing.T) {
	f, err := NewTimer(ctx, unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK)
	is(t, "new", err, nil)
	tm := f.Impl().(*Timer)
	var b [8]byte
	_, err = f.Read(ctx, usermem.Bytes(b[:]), 0)
	is(t, "disarmed", err, unix.EAGAIN)
	tm.Set(1, 1e6, true)
	time.Sleep(10 * time.Millisecond)
	if n, _ := f.Read(ctx, usermem.Bytes(b[:]), 0); n != 8 || le.Uint64(b[:]) < 9 {
		t.Error("ticks", n, le.Uint64(b[:]))
	}
	if v, i := tm.Set(0, 0, false); v <= 0 || v > 1e6 || i != 1e6 {
		t.Error("old", v, i)
	}
	f.DecRef()
}

func TestSiginfo(t *testing.T) {
	i := linux.SignalInfo{Signo: 35, Code: linux.SI_QUEUE}
	i.SetPID(7)
	i.SetUID(8)
	i.SetSigval(99)
	var b [siginfoSize]byte
	putSiginfo(b[:], &i)
	if le.Uint32(b[0:]) != 35 || int32(le.Uint32(b[8:])) != -1 || le.Uint32(b[12:]) != 7 || le.Uint32(b[16:]) != 8 || le.Uint32(b[44:]) != 99 || le.Uint64(b[48:]) != 99 {
		t.Error(b)
	}
}

func TestInotifyQueue(t *testing.T) {
	f, _ := NewInotify(ctx, unix.IN_NONBLOCK)
	in := f.Impl().(*Inotify)
	w := &watch{in: in, wd: 1, mask: unix.IN_CREATE}
	in.mu.Lock()
	in.watches[1] = w
	in.mu.Unlock()
	b := make([]byte, 1<<20)
	for i := range maxQueued + 10 {
		w.Event(unix.IN_CREATE, 0, fmt.Sprint("f", i), false)
		w.Event(unix.IN_CREATE, 0, fmt.Sprint("f", i), false) // merged
		w.Event(unix.IN_DELETE, 0, "x", false)                // not asked for
	}
	_, err := f.Read(ctx, usermem.Bytes(b[:16]), 0)
	is(t, "short", err, unix.EINVAL)
	total, last := 0, uint32(0)
	for {
		n, err := f.Read(ctx, usermem.Bytes(b[:100]), 0)
		if err != nil {
			is(t, "empty", err, unix.EAGAIN)
			break
		}
		for at := 0; at < int(n); at += 16 + int(le.Uint32(b[at+12:])) {
			total++
			last = le.Uint32(b[at+4:])
		}
	}
	in.mu.Lock()
	left := in.bytes
	in.mu.Unlock()
	if total != maxQueued+1 || last != unix.IN_Q_OVERFLOW || left != 0 {
		t.Error(total, last, left)
	}
}

func BenchmarkEpollPingPong(b *testing.B) {
	ep, f := NewEpoll(ctx), event(0)
	add(ep, f, 1, unix.EPOLLIN)
	for i := range 1000 { // which are quiet
		add(ep, event(0), int32(i+2), unix.EPOLLIN)
	}
	e, ev := ep.Impl().(*Epoll), f.Impl().(*EventFD)
	var word [8]byte
	b.ReportAllocs()
	dst, out := usermem.Bytes(word[:]), &usermem.BytesIO{B: make([]byte, 4*12)}
	for b.Loop() {
		ev.Add(1)
		if n, _ := e.Wait(ctx, out, 0, 4, true, time.Time{}); n != 1 {
			b.Fatal(n)
		}
		f.Read(ctx, dst, 0)
	}
}
