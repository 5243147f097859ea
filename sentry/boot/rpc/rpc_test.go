package rpc

import (
	"errors"
	"io"
	"net"
	"net/rpc/jsonrpc"
	"sync"
	"sync/atomic"
	"testing"
)

type pair struct{ A, B int }

// serve answers on one end of a pipe, and returns the other and a function that waits for Serve's end.
func serve(t *testing.T, methods map[string]Method) (net.Conn, *atomic.Int32, func()) {
	client, server := net.Pipe()
	t.Cleanup(func() { client.Close() })
	var answers atomic.Int32
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		Serve(server, methods, func() { close(ended) }, func(string) { answers.Add(1) })
		close(done)
	}()
	return client, &answers, func() { <-ended; <-done }
}

func TestCalls(t *testing.T) {
	release := make(chan struct{})
	conn, answers, wait := serve(t, map[string]Method{
		"Add":  Do(func(p *pair, sum *int) error { *sum = p.A + p.B; return nil }),
		"Fail": Do(func(*struct{}, *struct{}) error { return errors.New("no luck") }),
		"Hang": Do(func(_ *struct{}, s *string) error { <-release; *s = "late"; return nil }),
	})
	c := NewClient(conn)
	var late string
	hang := c.Go("Hang", struct{}{}, &late)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			var sum int
			if err := c.Call("Add", &pair{i, 2 * i}, &sum); err != nil || sum != 3*i {
				t.Errorf("%d+%d is %d, %v", i, 2*i, sum, err)
			}
		})
	}
	wg.Wait()
	for method, want := range map[string]string{"Fail": "no luck", "None": "there is no method None"} {
		var remote ServerError
		if err := c.Call(method, struct{}{}, &struct{}{}); !errors.As(err, &remote) || err.Error() != want {
			t.Errorf("%s: %v; want the server's error %q", method, err, want)
		}
	}
	if err := c.Call("Add", "text", new(int)); err == nil {
		t.Error("a parameter of the wrong type was taken")
	}
	close(release)
	if err := <-hang; err != nil || late != "late" {
		t.Errorf("the call that hung: %q, %v", late, err)
	}
	c.Close()
	wait()
	if n := answers.Load(); n != 54 {
		t.Errorf("%d answers were told of; want 54", n)
	}
	if err := c.Call("Add", &pair{}, new(int)); err == nil {
		t.Error("a call on a closed connection succeeded")
	}
}

// TestGone: the server's end is that of the calls that wait, and of those that come.
func TestGone(t *testing.T) {
	client, server := net.Pipe()
	c := NewClient(client)
	go func() { // a write to a pipe ends when it has been read
		server.Read(make([]byte, 1<<10))
		server.Close()
	}()
	call := c.Go("Wait", struct{}{}, &struct{}{})
	if err := <-call; err == nil {
		t.Error("a call without an answer succeeded")
	}
	if err := c.Call("Wait", struct{}{}, &struct{}{}); err == nil {
		t.Error("a call after the end succeeded")
	}
}

// TestStandard: the standard library's client, which containerd's shim uses, is understood.
func TestStandard(t *testing.T) {
	conn, _, _ := serve(t, map[string]Method{"Add": Do(func(p *pair, sum *int) error { *sum = p.A + p.B; return nil })})
	c := jsonrpc.NewClient(conn)
	var sum int
	if err := c.Call("Add", &pair{3, 4}, &sum); err != nil || sum != 7 {
		t.Errorf("3+4 is %d, %v", sum, err)
	}
	if err := c.Call("None", &pair{}, &sum); err == nil || err.Error() != "there is no method None" {
		t.Errorf("an unknown method: %v", err)
	}
}

// stream is a connection whose other side says what it says, whatever it is sent.
type stream struct{ io.Reader }

func (stream) Write(b []byte) (int, error) { return len(b), nil }
func (stream) Close() error                { return nil }

// FuzzReplies: whatever the other side says, each call ends, once.
func FuzzReplies(f *testing.F) {
	f.Add([]byte(`{"id":1,"result":5,"error":null}`))
	f.Add([]byte(`{"id":1,"result":null,"error":"x"}{"id":1}{"id":2,"result":{"A":1}}`))
	f.Add([]byte(`{"id":-1}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, w := io.Pipe()
		c := NewClient(stream{r})
		calls := []<-chan error{c.Go("A", 1, new(int)), c.Go("B", 2, new(pair)), c.Go("C", 3, nil)}
		go func() {
			w.Write(b)
			w.Close()
		}()
		for _, k := range calls {
			<-k
			select {
			case err := <-k:
				t.Errorf("a call ended twice, then with %v", err)
			default:
			}
		}
	})
}
