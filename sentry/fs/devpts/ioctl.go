package devpts

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"

	"moat/sentry/kernel"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

// Ioctl implements vfs.FileImpl (ioctl_tty(2)).
func (m *master) Ioctl(ctx vfs.Context, fd *vfs.FileDescription, io usermem.IO, req uint32, arg uintptr) (uintptr, error) {
	p := m.p
	switch req {
	case linux.TIOCGPTN:
		return 0, usermem.PutUint32(io, arg, p.n)
	case linux.TIOCSPTLCK:
		v, err := usermem.Uint32(io, arg)
		if err != nil {
			return 0, err
		}
		return 0, p.locking(func() { p.locked = v != 0 })
	case 0x80045439: // TIOCGPTLCK
		return 0, usermem.PutUint32(io, arg, p.flag(&p.locked))
	case linux.TIOCPKT:
		v, err := usermem.Uint32(io, arg)
		if err != nil {
			return 0, err
		}
		return 0, p.locking(func() {
			if p.packet = v != 0; p.packet {
				p.tty.pktStatus = 0
			}
		})
	case linux.TIOCGPKT:
		return 0, usermem.PutUint32(io, arg, p.flag(&p.packet))
	case linux.TIOCGPTPEER:
		return p.openPeer(ctx, uint32(arg))
	case 0x40045436: // TIOCSIG
		if arg < 1 || arg > 64 {
			return 0, unix.EINVAL
		}
		p.fs.k.SignalForeground(&p.job, linux.Signal(arg))
		return 0, nil
	}
	return p.ioctl(ctx, fd, io, req, arg, true)
}

// Ioctl implements vfs.FileImpl.
func (s *slave) Ioctl(ctx vfs.Context, fd *vfs.FileDescription, io usermem.IO, req uint32, arg uintptr) (uintptr, error) {
	if s.p.flag(&s.p.masterGone) != 0 {
		return 0, unix.EIO
	}
	return s.p.ioctl(ctx, fd, io, req, arg, false)
}

func (p *Pty) locking(fn func()) error {
	p.mu.Lock()
	fn()
	p.after()
	return nil
}

func (p *Pty) flag(b *bool) uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if *b {
		return 1
	}
	return 0
}

// ioctl is what both sides have.
func (p *Pty) ioctl(ctx vfs.Context, fd *vfs.FileDescription, io usermem.IO, req uint32, arg uintptr, isMaster bool) (uintptr, error) {
	t, _ := ctx.(*kernel.Task)
	if changes[req] && t != nil && !isMaster {
		if err := t.CheckTTYChange(&p.job); err != nil {
			return 0, err
		}
	}
	switch req {
	case linux.TCGETS, linux.TCGETS2:
		p.mu.Lock()
		c := p.tty.c
		p.mu.Unlock()
		_, err := io.CopyOut(hostarch.Addr(arg), encodeTermios(&c, req == linux.TCGETS2))
		return 0, err
	case linux.TCSETS, linux.TCSETSW, linux.TCSETSF, linux.TCSETS2, linux.TCSETSW2, linux.TCSETSF2:
		return 0, p.setTermios(io, req, arg)
	case linux.TIOCGWINSZ:
		p.mu.Lock()
		z := p.size
		p.mu.Unlock()
		b := make([]byte, z.SizeBytes())
		z.MarshalBytes(b)
		_, err := io.CopyOut(hostarch.Addr(arg), b)
		return 0, err
	case linux.TIOCSWINSZ:
		var z linux.Winsize
		b := make([]byte, z.SizeBytes())
		if _, err := io.CopyIn(hostarch.Addr(arg), b); err != nil {
			return 0, err
		}
		z.UnmarshalBytes(b)
		p.resize(z)
		return 0, nil
	case linux.TIOCINQ:
		return 0, usermem.PutUint32(io, arg, p.inQueue(isMaster))
	case linux.TIOCOUTQ:
		p.mu.Lock()
		n := len(p.tty.out)
		p.mu.Unlock()
		if isMaster {
			n = 0
		}
		return 0, usermem.PutUint32(io, arg, uint32(n))
	case unix.TCFLSH:
		return 0, p.flush(arg, isMaster)
	case unix.TCXONC:
		return 0, p.flow(arg)
	case unix.TCSBRK, unix.TCSBRKP, linux.TIOCSBRK, linux.TIOCCBRK:
		return 0, nil // What was written is with the master already.
	case linux.TIOCEXCL, linux.TIOCNXCL:
		return 0, p.locking(func() { p.excl = req == linux.TIOCEXCL })
	case linux.TIOCGEXCL:
		return 0, usermem.PutUint32(io, arg, p.flag(&p.excl))
	case linux.TIOCGETD:
		return 0, usermem.PutUint32(io, arg, 0)
	case linux.TIOCSETD:
		v, err := usermem.Uint32(io, arg)
		if err == nil && v != 0 {
			err = unix.EINVAL
		}
		return 0, err
	case linux.TIOCGDEV:
		return 0, usermem.PutUint32(io, arg, uint32(p.Device()))
	case linux.TIOCSTI, linux.TIOCVHANGUP:
		return 0, unix.EIO // dev.tty.legacy_tiocsti is 0
	}
	if t == nil {
		return 0, unix.ENOTTY
	}
	return p.jobIoctl(t, fd, io, req, arg, isMaster)
}

// changes are the requests that a background process may not make (tty_check_change).
var changes = map[uint32]bool{
	linux.TCSETS: true, linux.TCSETSW: true, linux.TCSETSF: true, linux.TCSETS2: true, linux.TCSETSW2: true, linux.TCSETSF2: true,
	linux.TIOCSPGRP: true, unix.TCFLSH: true, unix.TCXONC: true, unix.TCSBRK: true, unix.TCSBRKP: true, linux.TIOCSETD: true,
}

// jobIoctl is job control.
func (p *Pty) jobIoctl(t *kernel.Task, fd *vfs.FileDescription, io usermem.IO, req uint32, arg uintptr, isMaster bool) (uintptr, error) {
	switch req {
	case linux.TIOCSCTTY:
		if isMaster {
			return 0, unix.ENOTTY
		}
		return 0, t.SetControllingTTY(&p.job, arg == 1, fd.Readable())
	case linux.TIOCNOTTY:
		return 0, t.ReleaseControllingTTY(&p.job)
	case linux.TIOCGPGRP:
		n, err := t.ForegroundPGID(&p.job, isMaster)
		if err != nil {
			return 0, err
		}
		return 0, usermem.PutUint32(io, arg, uint32(n))
	case linux.TIOCSPGRP:
		v, err := usermem.Uint32(io, arg)
		if err != nil {
			return 0, err
		}
		return 0, t.SetForegroundPGID(&p.job, int32(v), isMaster)
	case linux.TIOCGSID:
		n, err := t.TTYSessionID(&p.job, isMaster)
		if err != nil {
			return 0, err
		}
		return 0, usermem.PutUint32(io, arg, uint32(n))
	}
	return 0, unix.ENOTTY
}

// resize is TIOCSWINSZ: the foreground group hears of a change.
func (p *Pty) resize(z linux.Winsize) {
	p.mu.Lock()
	changed := p.size != z
	p.size = z
	p.mu.Unlock()
	if changed {
		p.fs.k.SignalForeground(&p.job, linux.SIGWINCH)
	}
}

func (p *Pty) inQueue(isMaster bool) uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := &p.tty
	switch {
	case isMaster:
		return uint32(len(t.out))
	case !t.lflag(unix.ICANON):
		return uint32(len(t.in))
	}
	n := uint32(0)
	for _, c := range t.in[:t.edit] {
		if c&eofMark == 0 {
			n++
		}
	}
	return n
}

func (p *Pty) flush(arg uintptr, isMaster bool) error {
	if arg > unix.TCIOFLUSH {
		return unix.EINVAL
	}
	return p.locking(func() {
		in, out := arg == unix.TCIFLUSH || arg == unix.TCIOFLUSH, arg == unix.TCOFLUSH || arg == unix.TCIOFLUSH
		if isMaster {
			// The master's output is the slave's input.
			in, out = out, in
		}
		if in {
			p.tty.flushInput()
		}
		if out {
			p.tty.flushOutput()
		}
	})
}

func (p *Pty) flow(arg uintptr) error {
	switch arg {
	case unix.TCOOFF:
		return p.locking(p.tty.stop)
	case unix.TCOON:
		return p.locking(p.tty.start)
	case unix.TCIOFF, unix.TCION:
		return nil
	}
	return unix.EINVAL
}

// setTermios is TCSETS and its kin; output has always been drained.
func (p *Pty) setTermios(io usermem.IO, req uint32, arg uintptr) error {
	two := req == linux.TCSETS2 || req == linux.TCSETSW2 || req == linux.TCSETSF2
	b := make([]byte, termiosLen(two))
	if _, err := io.CopyIn(hostarch.Addr(arg), b); err != nil {
		return err
	}
	p.mu.Lock()
	c := p.tty.c
	decodeTermios(&c, b, two)
	if req == linux.TCSETSF || req == linux.TCSETSF2 {
		p.tty.flushInput()
	}
	p.tty.setTermios(c)
	p.after()
	return nil
}

func termiosLen(two bool) int {
	if two {
		return 44
	}
	return 36
}

// encodeTermios makes a struct termios, or termios2.
func encodeTermios(c *linux.KernelTermios, two bool) []byte {
	b := make([]byte, c.SizeBytes())
	c.MarshalBytes(b)
	return b[:termiosLen(two)]
}

// decodeTermios reads what encodeTermios makes. A pty has 8 bits and no parity whatever is asked for (pty_set_termios).
func decodeTermios(c *linux.KernelTermios, b []byte, two bool) {
	all := encodeTermios(c, true)
	copy(all, b)
	c.UnmarshalBytes(all)
	c.ControlFlags = c.ControlFlags&^(unix.CSIZE|unix.PARENB) | unix.CS8 | unix.CREAD
	if s, ok := speeds[c.ControlFlags&unix.CBAUD]; ok && !two {
		c.InputSpeed, c.OutputSpeed = s, s
	}
}

var speeds = map[uint32]uint32{
	unix.B0: 0, unix.B300: 300, unix.B1200: 1200, unix.B2400: 2400, unix.B4800: 4800, unix.B9600: 9600, unix.B19200: 19200, unix.B38400: 38400,
	unix.B57600: 57600, unix.B115200: 115200, unix.B230400: 230400,
}
