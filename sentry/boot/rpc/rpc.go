// Package rpc carries calls over the control sockets: JSON-RPC 1.0, as net/rpc/jsonrpc speaks it, with one parameter to a method and many calls under way at a
// time. That package is not used itself, as it brings HTTP, TLS and templates, with what these set up at start, into each process of a sandbox.
//
// Locks: Client.sending -> Client.mu. A server's answers are written under a lock of their own.
package rpc

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
)

type request struct {
	Method string `json:"method"`
	Params [1]any `json:"params"`
	ID     uint64 `json:"id"`
}

type response struct {
	ID     uint64          `json:"id"`
	Result json.RawMessage `json:"result"`
	Error  any             `json:"error"`
}

// ServerError is an error of the method itself.
type ServerError string

func (e ServerError) Error() string { return string(e) }

// Client is the side of a connection that calls.
type Client struct {
	conn    io.ReadWriteCloser
	sending sync.Mutex // held while a request is written

	mu    sync.Mutex
	calls map[uint64]*call // +checklocks:mu
	last  uint64           // +checklocks:mu
	// err is why there will be no more answers.
	err error // +checklocks:mu
}

// call is one that waits for its answer.
type call struct {
	reply any
	done  chan error
}

// NewClient returns the client of conn, which it owns.
func NewClient(conn io.ReadWriteCloser) *Client {
	c := &Client{conn: conn, calls: make(map[uint64]*call)}
	go c.receive()
	return c
}

// Go calls a method. The channel tells of its end, when reply is set: nil, a ServerError, or what is wrong with the connection.
func (c *Client) Go(method string, args, reply any) <-chan error {
	k := &call{reply, make(chan error, 1)}
	c.sending.Lock()
	defer c.sending.Unlock()
	c.mu.Lock()
	c.last++
	id, err := c.last, c.err
	c.calls[id] = k
	c.mu.Unlock()
	if err == nil {
		err = json.NewEncoder(c.conn).Encode(&request{method, [1]any{args}, id})
	}
	if err != nil && c.take(id) != nil {
		k.done <- err
	}
	return k.done
}

// Call calls a method and waits for its end.
func (c *Client) Call(method string, args, reply any) error { return <-c.Go(method, args, reply) }

// Close closes the connection.
func (c *Client) Close() error { return c.conn.Close() }

// take returns the call of a number, which is no longer one that waits; nil: it is none.
func (c *Client) take(id uint64) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.calls[id]
	delete(c.calls, id)
	return k
}

func (c *Client) receive() {
	var err error
	for d := json.NewDecoder(c.conn); err == nil; {
		var r response
		err = d.Decode(&r)
		if k := c.take(r.ID); k != nil && r.Error != nil {
			k.done <- ServerError(fmt.Sprint(r.Error))
		} else if k != nil {
			k.done <- json.Unmarshal(r.Result, k.reply)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	for _, k := range c.calls {
		k.done <- err
	}
	clear(c.calls)
}

// Method answers a call; its result is sent if there is no error.
type Method func(params json.RawMessage) (any, error)

// Do is the Method that f carries out.
func Do[Args, Reply any](f func(*Args, *Reply) error) Method {
	return func(params json.RawMessage) (any, error) {
		args, reply := new(Args), new(Reply)
		err := json.Unmarshal(params, args)
		if err == nil {
			err = f(args, reply)
		}
		return reply, err
	}
}

// Serve answers the calls that come over conn, each in a goroutine of its own, and tells answered of each answer that was written. Once no more come it calls
// ended; it closes conn and returns when all have been answered.
func Serve(conn io.ReadWriteCloser, methods map[string]Method, ended func(), answered func(method string)) {
	var calls sync.WaitGroup
	var sending sync.Mutex
	for d := json.NewDecoder(conn); ; {
		var params json.RawMessage
		r := request{Params: [1]any{&params}}
		if d.Decode(&r) != nil {
			break
		}
		calls.Go(func() {
			a := response{ID: r.ID}
			result, err := any(nil), fmt.Errorf("there is no method %s", r.Method)
			if m := methods[r.Method]; m != nil {
				result, err = m(params)
			}
			if err == nil {
				a.Result, err = json.Marshal(result)
			}
			if err != nil {
				a.Error = err.Error()
			}
			sending.Lock()
			defer sending.Unlock()
			_ = json.NewEncoder(conn).Encode(&a) // who has gone needs none
			answered(r.Method)
		})
	}
	ended()
	calls.Wait()
	conn.Close()
}
