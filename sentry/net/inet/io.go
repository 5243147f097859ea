package inet

import (
	"io"

	"gvisor.dev/gvisor/pkg/hostarch"

	"moat/sentry/usermem"
)

// cursor moves through guest memory: what netstack reads a message from (tcpip.Payloader) and writes one to (io.Writer).
type cursor struct {
	io    usermem.IO
	cur   hostarch.AddrRange
	rest  []hostarch.AddrRange
	left  int
	moved int
	err   error
}

func newCursor(s usermem.IOSequence) cursor {
	return cursor{io: s.IO, rest: s.Addrs, left: int(s.NumBytes())}
}

// next makes cur a range that has bytes; the caller knows that some are left.
func (c *cursor) next() {
	for c.cur.Length() == 0 && len(c.rest) > 0 {
		c.cur, c.rest = c.rest[0], c.rest[1:]
	}
}

// move copies between b and guest memory until b or the memory is at its end.
func (c *cursor) move(b []byte, copyRange func(hostarch.Addr, []byte) (int, error)) int {
	done := 0
	for done < len(b) && c.left > 0 && c.err == nil {
		c.next()
		n := min(len(b)-done, int(c.cur.Length()))
		n, c.err = copyRange(c.cur.Start, b[done:done+n])
		c.cur.Start += hostarch.Addr(n)
		c.left -= n
		c.moved += n
		done += n
	}
	return done
}

// Len implements tcpip.Payloader.
func (c *cursor) Len() int { return c.left }

// Read implements io.Reader.
func (c *cursor) Read(b []byte) (int, error) {
	if c.left == 0 && len(b) > 0 {
		return 0, io.EOF
	}
	n := c.move(b, c.io.CopyIn)
	return n, c.err
}

// Write implements io.Writer; io.ErrShortWrite at the end of the memory.
func (c *cursor) Write(b []byte) (int, error) {
	n := c.move(b, c.io.CopyOut)
	if n < len(b) && c.err == nil {
		return n, io.ErrShortWrite
	}
	return n, c.err
}
