package wire

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// inFlight bounds the requests in flight, and with them the Client's buffers.
const inFlight = 64

// Client is the sentry's side: it sends requests and waits for their replies. It needs no host call but sendmsg and
// recvmsg (and close, for descriptors that nobody asked for).
//
// There is no reader thread. Of the goroutines that wait for replies one, the leader, is blocked in recvmsg; it hands others theirs
// and, when its own came, makes the next waiter leader. So an uncontended call wakes no thread but its own.
type Client struct {
	conn int

	slots chan *call // free calls
	busy  atomic.Int32

	mu sync.Mutex
	// pending has the calls in flight by tag.
	// +checklocks:mu
	pending [inFlight]*call
	// leading: a goroutine is in recvmsg.
	// +checklocks:mu
	leading bool
	// +checklocks:mu
	onDeath func(error)
	// dead is why no further call can be made.
	// +checklocks:mu
	dead error
	// closes are handles to give back with the next Close.
	// +checklocks:mu
	closes []Handle

	// MaxHandles is how many handles the gofer keeps.
	MaxHandles int
	// Requests counts the calls made.
	Requests atomic.Uint64
	byOp     [OpMax]opCount
}

// opCount is how many calls of an operation were made, and how long (ns) they took together.
type opCount struct{ n, ns atomic.Int64 }

// buffers are those of no call: most that are in flight at a time.
var buffers = sync.Pool{New: func() any { return NewBuffer() }}

// call is one request; it has a buffer while it is in flight. wake is signalled when done is set or the call is to lead.
type call struct {
	tag  uint16
	buf  *Buffer
	n    int
	fds  []int // in buf
	full bool  // the descriptors were lost: our table is full
	done bool
	wake chan struct{}
}

// NewClient starts the conversation over the socket conn, which the Client owns from now on. onDeath is called once, from a goroutine of its
// own, when the gofer is gone or breaks the protocol; all calls then return EIO.
func NewClient(conn int, onDeath func(error)) (*Client, error) {
	c := &Client{conn: conn, onDeath: onDeath, slots: make(chan *call, inFlight)}
	for i := range inFlight {
		c.slots <- &call{tag: uint16(i), wake: make(chan struct{}, 1)}
	}
	var rep HelloRep
	var lifeline [1]int
	n, err := c.CallFDs(OpHello, &HelloReq{Version}, &rep, lifeline[:])
	if err != nil {
		return nil, fmt.Errorf("gofer did not answer: %w", err)
	}
	if n == 0 || rep.MaxHandles < 64 {
		return nil, fmt.Errorf("gofer: bad hello")
	}
	c.MaxHandles = int(min(rep.MaxHandles, 1<<20))
	go c.watch(lifeline[0])
	return c, nil
}

// watch waits for the gofer's end, so that it is noticed while no request is in flight.
func (c *Client) watch(lifeline int) {
	b := &Buffer{B: make([]byte, 64)}
	b.Recv(lifeline)
	unix.Close(lifeline)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.die(fmt.Errorf("the gofer is gone"))
}

// die ends the connection.
// +checklocks:c.mu
func (c *Client) die(why error) {
	if c.dead != nil {
		return
	}
	c.dead = why
	for _, k := range c.pending {
		if k != nil {
			k.signal()
		}
	}
	if c.onDeath != nil {
		go c.onDeath(why)
	}
}

// Close ends the conversation, on which the gofer ends; onDeath is not called any more. It waits for the calls in flight; later ones return EIO. It is called
// once at most.
func (c *Client) Close() {
	var held [inFlight]*call
	for i := range held {
		held[i] = <-c.slots
	}
	c.mu.Lock()
	c.onDeath = nil
	c.die(fmt.Errorf("closed"))
	c.mu.Unlock()
	unix.Close(c.conn)
	for _, k := range held {
		c.slots <- k
	}
}

func (k *call) signal() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// Call sends req and waits for the reply, which is decoded into rep. The error is the gofer's errno, or EIO if the connection is broken.
func (c *Client) Call(op Op, req, rep Message) error {
	_, err := c.CallFDs(op, req, rep, nil)
	return err
}

// CallFDs is Call for a reply with descriptors, which it stores in fds, and returns how many there are. EMFILE: there is no room for them, in fds or
// in the sentry's table.
func (c *Client) CallFDs(op Op, req, rep Message, fds []int) (int, error) {
	c.Requests.Add(1)
	start := time.Now()
	k := <-c.slots
	k.buf = buffers.Get().(*Buffer)
	n, err := c.call(k, op, req, rep)
	if n > len(fds) {
		closeAll(k.fds)
		n, err = 0, unix.EMFILE
	}
	copy(fds, k.fds[:n])
	buffers.Put(k.buf)
	k.buf, k.fds = nil, nil
	c.slots <- k
	c.byOp[op].n.Add(1)
	c.byOp[op].ns.Add(int64(time.Since(start)))
	return n, err
}

// Counts says for each operation that was asked for how often, and how long answers took on average: "Walk 12 (31us) Open 3 (40us)".
func (c *Client) Counts() string {
	var b strings.Builder
	for op := range c.byOp {
		if n := c.byOp[op].n.Load(); n > 0 {
			fmt.Fprintf(&b, " %v %d (%v)", Op(op), n, time.Duration(c.byOp[op].ns.Load()/n).Round(time.Microsecond))
		}
	}
	return strings.TrimPrefix(b.String(), " ")
}

// call makes the call k; the descriptors that it returns the number of are k.fds.
func (c *Client) call(k *call, op Op, req, rep Message) (int, error) {
	h := Header{Tag: k.tag, Op: op}
	if c.busy.Add(1) > 1 {
		h.Errno = FlagBusy
	}
	defer c.busy.Add(-1)
	n, err := Encode(k.buf.B, h, req)
	if err != nil {
		return 0, err
	}
	k.done, k.full, k.fds, k.n = false, false, nil, 0
	select {
	case <-k.wake:
	default:
	}
	c.mu.Lock()
	if c.dead != nil {
		c.mu.Unlock()
		return 0, unix.EIO
	}
	c.pending[k.tag] = k
	c.mu.Unlock()
	if err := k.buf.Send(c.conn, n, nil); err != nil {
		c.mu.Lock()
		c.die(fmt.Errorf("send to the gofer: %w", err))
		c.pending[k.tag] = nil
		c.mu.Unlock()
		return 0, unix.EIO
	}
	if !c.wait(k) {
		return 0, unix.EIO
	}
	h, err = DecodeHeader(k.buf.B[:k.n])
	if err == nil && h.Op != op {
		err = unix.EBADMSG
	}
	if err == nil && h.Errno != 0 {
		closeAll(k.fds)
		// Only errnos; the restart codes and beyond are the sentry's own.
		if h.Errno >= 512 {
			return 0, unix.EIO
		}
		return 0, unix.Errno(h.Errno)
	}
	if err == nil {
		err = DecodeBody(k.buf.B[:k.n], rep)
	}
	if err != nil {
		closeAll(k.fds)
		c.mu.Lock()
		c.die(fmt.Errorf("the gofer sent a bad reply to operation %v", op))
		c.mu.Unlock()
		return 0, unix.EIO
	}
	if k.full {
		return 0, unix.EMFILE
	}
	return len(k.fds), nil
}

// wait returns when k is done; false if the connection is dead instead.
func (c *Client) wait(k *call) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !k.done && c.dead == nil {
		if c.leading {
			c.mu.Unlock()
			<-k.wake
			c.mu.Lock()
			continue
		}
		c.leading = true
		buf := k.buf
		c.mu.Unlock()
		n, fds, err := buf.Recv(c.conn)
		c.mu.Lock()
		c.leading = false
		c.dispatch(k, n, fds, err)
	}
	c.pending[k.tag] = nil
	if !c.leading {
		for _, o := range c.pending {
			if o != nil && !o.done {
				o.signal()
				break
			}
		}
	}
	return k.done
}

// dispatch gives the message in leader's buffer to the call it answers.
// +checklocks:c.mu
func (c *Client) dispatch(leader *call, n int, fds []int, err error) {
	full := err == unix.EMFILE
	if err != nil && !full {
		c.die(fmt.Errorf("receive from the gofer: %w", err))
		return
	}
	if n == 0 {
		c.die(fmt.Errorf("the gofer is gone"))
		return
	}
	h, err := DecodeHeader(leader.buf.B[:n])
	if err != nil || h.Tag >= inFlight || c.pending[h.Tag] == nil || c.pending[h.Tag].done {
		closeAll(fds)
		c.die(fmt.Errorf("the gofer answered a question that nobody asked"))
		return
	}
	k := c.pending[h.Tag]
	k.buf, leader.buf = leader.buf, k.buf
	k.n, k.fds, k.full, k.done = n, fds, full, true
	if k != leader {
		k.signal()
	}
}

// CloseHandle gives a handle back, now or some time soon.
func (c *Client) CloseHandle(h Handle, now bool) {
	if h == 0 {
		return
	}
	c.mu.Lock()
	c.closes = append(c.closes, h)
	flush := now || len(c.closes) >= 128
	c.mu.Unlock()
	if flush {
		c.FlushCloses()
	}
}

// FlushCloses gives back what CloseHandle collected.
func (c *Client) FlushCloses() {
	k := <-c.slots
	defer func() { c.slots <- k }()
	b := buffers.Get().(*Buffer)
	defer buffers.Put(b)
	c.mu.Lock()
	req := CloseReq{c.closes}
	c.closes = nil
	dead := c.dead != nil
	c.mu.Unlock()
	for len(req.Handles) > 0 && !dead {
		part := CloseReq{req.Handles[:min(len(req.Handles), MaxCloses)]}
		req.Handles = req.Handles[len(part.Handles):]
		n, err := Encode(b.B, Header{Tag: k.tag, Op: OpClose}, &part)
		if err == nil {
			err = b.Send(c.conn, n, nil)
		}
		if err != nil {
			c.mu.Lock()
			c.die(fmt.Errorf("send to the gofer: %w", err))
			c.mu.Unlock()
			return
		}
	}
}
