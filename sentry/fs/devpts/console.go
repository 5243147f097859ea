package devpts

import (
	"sync"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/waiter"

	"moat/sentry/kernel"
	"moat/sentry/kernel/auth"
)

// Console is a terminal whose master is the sentry itself: a terminal of the host is behind it.
type Console struct {
	p    *Pty
	once sync.Once
}

// NewConsole makes a terminal for a user. With plain, lines end with a line feed alone: somebody who is no terminal reads them.
func (f *FS) NewConsole(c *auth.Credentials, rows, cols uint16, plain bool) (*Console, error) {
	p, err := f.newPty(c)
	if err != nil {
		return nil, err
	}
	p.locked = false
	if plain {
		p.tty.c.OutputFlags &^= unix.ONLCR
	}
	p.size = linux.Winsize{Row: rows, Col: cols}
	return &Console{p: p}, nil
}

// Name is the slave's path below /dev.
func (c *Console) Name() string { return c.p.Name() }

// Job is its job control.
func (c *Console) Job() *kernel.TTYJob { return &c.p.job }

// Resize sets the size; the foreground group hears of it.
func (c *Console) Resize(rows, cols uint16) { c.p.resize(linux.Winsize{Row: rows, Col: cols}) }

// Close is the master's close(2): the slaves are hung up, and the terminal is gone from its directory.
func (c *Console) Close() { c.once.Do(c.p.closeMaster) }

// Type passes all of b in as typed, waiting for room; false if the terminal is gone.
func (c *Console) Type(b []byte) bool {
	e, ch := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventHUp)
	c.p.masterQueue.EventRegister(&e)
	defer c.p.masterQueue.EventUnregister(&e)
	for {
		n, err := c.p.input(b)
		if b = b[n:]; len(b) == 0 {
			return true
		}
		if err != unix.EWOULDBLOCK {
			return false
		}
		<-ch
	}
}

// Printed waits for what is printed and copies it to b. 0: every slave is closed, for now.
func (c *Console) Printed(b []byte) int {
	e, ch := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventHUp)
	c.p.masterQueue.EventRegister(&e)
	defer c.p.masterQueue.EventUnregister(&e)
	for {
		n, err := c.p.readOutput(b)
		if err == nil {
			return n
		}
		if err != unix.EWOULDBLOCK {
			return 0
		}
		<-ch
	}
}
