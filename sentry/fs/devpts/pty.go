package devpts

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/waiter"

	"moat/sentry/kernel"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

// Pty is a pseudoterminal.
type Pty struct {
	fs    *FS
	n     uint32
	job   kernel.TTYJob
	slave *slaveInode

	masterQueue waiter.Queue
	slaveQueue  waiter.Queue

	mu   sync.Mutex
	tty  tty // guarded by mu; closures use it, which the lock analyzer does not follow
	size linux.Winsize
	// locked: TIOCSPTLCK. packet: TIOCPKT. excl: TIOCEXCL.
	locked, packet, excl bool
	// masterGone: the master was closed, the slaves are hung up.
	masterGone bool
	// slaves counts open slaves; once: there was one.
	slaves int
	once   bool
}

// Job implements kernel.TTY.
func (p *Pty) Job() *kernel.TTYJob { return &p.job }

// Name implements kernel.TTY.
func (p *Pty) Name() string { return fmt.Sprintf("pts/%d", p.n) }

// Device implements kernel.TTY: the kernel's encoding of 136:n.
func (p *Pty) Device() uint64 { return uint64(p.n&0xff | 136<<8 | (p.n&^0xff)<<12) }

// Hangup implements kernel.TTY. The end of a session does not hang a pseudoterminal up (disassociate_ctty).
func (p *Pty) Hangup() {}

// after sends what was found out under the lock: signals, and readiness to whoever may wait. Preconditions: p.mu is held; it is released.
// +checklocksrelease:p.mu
func (p *Pty) after() {
	sigs := p.tty.sigs
	p.tty.sigs = nil
	master, slave := p.tty.printed, p.tty.arrived
	p.tty.printed, p.tty.arrived = 0, 0
	p.mu.Unlock()
	for _, s := range sigs {
		p.fs.k.SignalForeground(&p.job, s)
	}
	p.masterQueue.Notify(p.masterReady(^waiter.EventMask(0)) | master)
	p.slaveQueue.Notify(p.slaveReady(^waiter.EventMask(0)) | slave)
}

// async is vfs.Asyncer's AsyncEvents. A file without an owner tells the foreground group, or else who arms it (tty_fasync).
func (p *Pty) async(ctx vfs.Context, fd *vfs.FileDescription) waiter.EventMask {
	if t, ok := ctx.(*kernel.Task); ok && fd.AsyncOwner() == nil {
		scope := kernel.ScopeProcessGroup
		id, _ := t.ForegroundPGID(&p.job, true)
		if id == 0 {
			scope, id = kernel.ScopeGroup, t.PID()
		}
		if o, err := t.NewFileOwner(scope, id); err == nil {
			fd.SetAsyncOwner(o)
		}
	}
	return vfs.AsyncEvents
}

func (p *Pty) masterReady(mask waiter.EventMask) (ev waiter.EventMask) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.tty.out) > 0 && !p.tty.stopped || p.packet && p.tty.pktStatus != 0 {
		ev |= waiter.ReadableEvents
	}
	if p.packet && p.tty.pktStatus != 0 {
		ev |= waiter.EventPri
	}
	if len(p.tty.pend) < pendMax {
		ev |= waiter.WritableEvents
	}
	if p.once && p.slaves == 0 {
		ev |= waiter.EventHUp
	}
	return ev & mask
}

func (p *Pty) slaveReady(mask waiter.EventMask) (ev waiter.EventMask) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.masterGone {
		return mask & (waiter.ReadableEvents | waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	}
	if p.tty.readable() {
		ev |= waiter.ReadableEvents
	}
	if len(p.tty.out) < outMax/2 && !p.tty.stopped {
		ev |= waiter.WritableEvents
	}
	return ev & mask
}

// openSlave counts an open slave: EIO when the master is gone or the slave is locked, EBUSY if it is exclusive.
func (p *Pty) openSlave(admin bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.masterGone || p.locked:
		return unix.EIO
	case p.excl && p.slaves > 0 && !admin:
		return unix.EBUSY
	}
	p.slaves++
	p.once = true
	return nil
}

func (p *Pty) closeSlave() {
	p.mu.Lock()
	p.slaves--
	p.after()
}

// closeMaster hangs the slaves up and takes the terminal out of its directory.
func (p *Pty) closeMaster() {
	p.mu.Lock()
	p.masterGone = true
	p.tty.flushInput()
	p.tty.out = nil
	p.after()
	p.fs.remove(p)
	p.fs.k.TTYHangup(&p.job)
}

// copyChunk is how much is copied from the guest at a time.
const copyChunk = 1024

// input passes what the master's side types. The count may be short: EWOULDBLOCK.
func (p *Pty) input(b []byte) (int, error) {
	p.mu.Lock()
	n := p.tty.receive(b)
	p.after()
	if n < len(b) {
		return n, unix.EWOULDBLOCK
	}
	return n, nil
}

// readOutput gives the master what the slave's side printed: EIO at the end.
func (p *Pty) readOutput(b []byte) (int, error) {
	p.mu.Lock()
	t := &p.tty
	if p.packet {
		if t.pktStatus != 0 && len(b) > 0 {
			b[0] = t.pktStatus
			t.pktStatus = 0
			p.mu.Unlock()
			return 1, nil
		}
		if len(b) > 0 {
			b[0] = linux.TIOCPKT_DATA
		}
	}
	from := 0
	if p.packet {
		from = min(1, len(b))
	}
	switch {
	case len(t.out) > 0 && !t.stopped:
	case p.once && p.slaves == 0:
		p.mu.Unlock()
		return 0, unix.EIO
	default:
		p.mu.Unlock()
		return 0, unix.EWOULDBLOCK
	}
	n := copy(b[from:], t.out)
	if t.out = t.out[n:]; len(t.out) == 0 {
		t.out = nil
	}
	p.after()
	return n + from, nil
}

// print passes what a slave's writer prints.
func (p *Pty) print(b []byte) (n int, err error) {
	p.mu.Lock()
	switch {
	case p.masterGone:
		p.mu.Unlock()
		return 0, unix.EIO
	case p.tty.stopped:
		p.mu.Unlock()
		return 0, unix.EWOULDBLOCK
	}
	for n < len(b) && p.tty.output(b[n], false) {
		n++
	}
	p.after()
	if n < len(b) {
		err = unix.EWOULDBLOCK
	}
	return n, err
}

// readInput gives a slave's reader its input. It waits itself where VTIME is set, unless nonblock.
func (p *Pty) readInput(ctx vfs.Context, b []byte, nonblock bool) (int, error) {
	var e waiter.Entry
	var ch chan struct{}
	var deadline time.Time
	for {
		p.mu.Lock()
		t := &p.tty
		if p.masterGone {
			p.mu.Unlock()
			return 0, nil
		}
		minimum, timeout := int(t.c.ControlCharacters[unix.VMIN]), time.Duration(t.c.ControlCharacters[unix.VTIME])*100*time.Millisecond
		canon := t.lflag(unix.ICANON)
		have := len(t.in)
		enough := t.readable()
		if !canon {
			enough = have >= max(1, min(minimum, len(b))) || minimum == 0 && timeout == 0 || have > 0 && nonblock
		}
		if enough {
			n := t.take(b)
			p.after()
			return n, nil
		}
		p.mu.Unlock()
		if nonblock || canon || timeout == 0 || minimum > 0 && have == 0 {
			return 0, unix.EWOULDBLOCK
		}
		// VTIME counts from the call (VMIN 0), or from the last byte.
		now := time.Now()
		if deadline.IsZero() || minimum > 0 {
			deadline = now.Add(timeout)
		}
		if ch == nil {
			e, ch = waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr)
			p.slaveQueue.EventRegister(&e)
			defer p.slaveQueue.EventUnregister(&e)
			continue
		}
		if err := ctx.BlockUntil(ch, deadline); err == unix.ETIMEDOUT {
			p.mu.Lock()
			n := p.tty.take(b)
			p.after()
			return n, nil
		} else if err != nil {
			return 0, err
		}
	}
}

// master is an open master.
type master struct {
	vfs.Waitable
	p *Pty
}

// AsyncEvents implements vfs.Asyncer.
func (m *master) AsyncEvents(ctx vfs.Context, fd *vfs.FileDescription) waiter.EventMask {
	return m.p.async(ctx, fd)
}

// Release implements vfs.FileImpl.
func (m *master) Release(vfs.Context, *vfs.FileDescription) { m.p.closeMaster() }

// Read implements vfs.FileImpl.
func (m *master) Read(_ vfs.Context, _ *vfs.FileDescription, dst usermem.IOSequence, _ int64, _ vfs.IOFlags) (int64, error) {
	buf := make([]byte, min(dst.NumBytes(), outMax))
	n, err := m.p.readOutput(buf)
	if err != nil {
		return 0, err
	}
	n, err = dst.CopyOut(buf[:n])
	return int64(n), err
}

// Write implements vfs.FileImpl.
func (m *master) Write(_ vfs.Context, _ *vfs.FileDescription, src usermem.IOSequence, _ int64, _ vfs.IOFlags) (int64, int64, error) {
	n, err := chunks(src, m.p.input)
	return n, 0, err
}

// chunks passes src to fn piece by piece.
func chunks(src usermem.IOSequence, fn func([]byte) (int, error)) (int64, error) {
	var buf [copyChunk]byte
	var done int64
	for {
		n, err := src.CopyIn(buf[:])
		if n == 0 {
			return done, err
		}
		k, e := fn(buf[:n])
		done += int64(k)
		if e != nil || err != nil {
			if e == nil {
				e = err
			}
			return done, e
		}
		src = src.DropFirst(int64(k))
		if src.NumBytes() == 0 {
			return done, nil
		}
	}
}

// Readiness implements vfs.FileImpl.
func (m *master) Readiness(mask waiter.EventMask) waiter.EventMask { return m.p.masterReady(mask) }

// slave is an open slave.
type slave struct {
	vfs.Waitable
	p *Pty
}

// AsyncEvents implements vfs.Asyncer.
func (s *slave) AsyncEvents(ctx vfs.Context, fd *vfs.FileDescription) waiter.EventMask {
	return s.p.async(ctx, fd)
}

// Release implements vfs.FileImpl.
func (s *slave) Release(vfs.Context, *vfs.FileDescription) { s.p.closeSlave() }

// Read implements vfs.FileImpl.
func (s *slave) Read(ctx vfs.Context, _ *vfs.FileDescription, dst usermem.IOSequence, _ int64, flags vfs.IOFlags) (int64, error) {
	if t, ok := ctx.(*kernel.Task); ok {
		if err := t.CheckTTYRead(&s.p.job); err != nil {
			return 0, err
		}
	}
	buf := make([]byte, min(dst.NumBytes(), inMax))
	n, err := s.p.readInput(ctx, buf, flags&vfs.IONonblock != 0)
	if err != nil {
		return 0, err
	}
	n, err = dst.CopyOut(buf[:n])
	return int64(n), err
}

// Write implements vfs.FileImpl.
func (s *slave) Write(ctx vfs.Context, _ *vfs.FileDescription, src usermem.IOSequence, _ int64, _ vfs.IOFlags) (int64, int64, error) {
	if t, ok := ctx.(*kernel.Task); ok && s.p.tostop() {
		if err := t.CheckTTYChange(&s.p.job); err != nil {
			return 0, 0, err
		}
	}
	n, err := chunks(src, s.p.print)
	return n, 0, err
}

func (p *Pty) tostop() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tty.lflag(unix.TOSTOP)
}

// Readiness implements vfs.FileImpl.
func (s *slave) Readiness(mask waiter.EventMask) waiter.EventMask { return s.p.slaveReady(mask) }
