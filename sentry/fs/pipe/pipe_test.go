package pipe

import (
	"bytes"
	"errors"
	"math/rand"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/waiter"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

func is(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// TestStream sends random bytes in random pieces through a blocking pipe.
func TestStream(t *testing.T) {
	ctx := vfs.Background()
	r, w := New(ctx, 0)
	want := make([]byte, 3<<20)
	rand.New(rand.NewSource(1)).Read(want)
	go func() {
		rnd := rand.New(rand.NewSource(2))
		for b := want; len(b) > 0; {
			n := min(len(b), 1+rnd.Intn(200000))
			c, err := w.Write(ctx, usermem.Bytes(b[:n]), 0)
			if err != nil || c != int64(n) {
				t.Error("write", c, err)
				return
			}
			b = b[n:]
		}
		w.DecRef()
	}()
	var got []byte
	rnd := rand.New(rand.NewSource(3))
	for {
		b := make([]byte, 1+rnd.Intn(100000))
		n, err := r.Read(ctx, usermem.Bytes(b), 0)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		got = append(got, b[:n]...)
	}
	if !bytes.Equal(got, want) {
		t.Error("data differs", len(got), len(want))
	}
	r.DecRef()
	if total.Load() != 0 {
		t.Error("capacity left", total.Load())
	}
}

func TestEdges(t *testing.T) {
	ctx := vfs.Background()
	r, w := New(ctx, unix.O_NONBLOCK)
	_, err := r.Read(ctx, usermem.Bytes(make([]byte, 1)), 0)
	is(t, "empty", err, unix.EAGAIN)
	n, err := w.Write(ctx, usermem.Bytes(make([]byte, 100000)), 0)
	if n != defaultSize || err != nil {
		t.Error("fill", n, err)
	}
	if w.Readiness(waiter.WritableEvents) != 0 {
		t.Error("full but writable")
	}
	r.Read(ctx, usermem.Bytes(make([]byte, 4095)), 0)
	_, err = w.Write(ctx, usermem.Bytes(make([]byte, 4096)), 0)
	is(t, "atomic", err, unix.EAGAIN)
	s := r.Impl().(vfs.PipeSizer)
	_, err = s.SetPipeSize(ctx, 4096)
	is(t, "shrink", err, unix.EBUSY)
	if n, err := s.SetPipeSize(ctx, 100000); n != 131072 || err != nil {
		t.Error("grow", n, err)
	}
	r.DecRef()
	_, err = w.Write(ctx, usermem.Bytes([]byte("x")), 0)
	is(t, "no reader", err, unix.EPIPE)
	w.DecRef()
	// Packets keep their bounds, and what a read does not take is lost.
	r, w = New(ctx, unix.O_DIRECT|unix.O_NONBLOCK)
	w.Write(ctx, usermem.Bytes([]byte("first")), 0)
	w.Write(ctx, usermem.Bytes([]byte("second")), 0)
	b := make([]byte, 3)
	if n, _ := r.Read(ctx, usermem.Bytes(b), 0); string(b[:n]) != "fir" {
		t.Error("packet", string(b[:n]))
	}
	b = make([]byte, 20)
	if n, _ := r.Read(ctx, usermem.Bytes(b), 0); string(b[:n]) != "second" {
		t.Error("packet", string(b[:n]))
	}
	// Peek leaves data in place.
	w.Write(ctx, usermem.Bytes([]byte("third")), 0)
	pk := r.Impl().(vfs.Peeker)
	if n, err := pk.Peek(b); n != 5 || err != nil {
		t.Error("peek", n, err)
	}
	pk.Discard(5)
	_, err = pk.Peek(b)
	is(t, "peek", err, unix.EAGAIN)
	w.DecRef()
	if n, err := pk.Peek(b); n != 0 || err != nil {
		t.Error("peek at the end", n, err)
	}
	if r.Readiness(waiter.ReadableEvents) != waiter.EventHUp {
		t.Error("no HUP")
	}
	r.DecRef()
}

// TestWakeups: a writer of little that waits behind a full pipe wakes when a page is free.
func TestWakeups(t *testing.T) {
	ctx := vfs.Background()
	r, w := New(ctx, 0)
	w.Write(ctx, usermem.Bytes(make([]byte, defaultSize)), 0)
	done := make(chan struct{})
	go func() {
		w.Write(ctx, usermem.Bytes(make([]byte, 10)), 0)
		close(done)
	}()
	time.Sleep(5 * time.Millisecond)
	r.Read(ctx, usermem.Bytes(make([]byte, pageSize)), 0)
	select {
	case <-done:
	case <-time.After(time.Second):
		t.Error("writer sleeps on")
	}
	r.DecRef()
	w.DecRef()
}

func BenchmarkPingPong(b *testing.B) {
	ctx := vfs.Background()
	r, w := New(ctx, 0)
	src, dst := usermem.Bytes(make([]byte, 100)), usermem.Bytes(make([]byte, 100))
	b.ReportAllocs()
	for b.Loop() {
		w.Write(ctx, src, 0)
		r.Read(ctx, dst, 0)
	}
}
