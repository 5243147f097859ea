package devpts

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/waiter"
	"moat/sentry/vfs"
)

// cell is a byte of input, with what the line discipline knows of it.
type cell uint16

const (
	delimiter cell = 1 << 8 // ends a line
	eofMark   cell = 1 << 9 // ends it without being part of it (VEOF)
)

const (
	// inMax is N_TTY_BUF_SIZE: the longest line, and what is kept for readers. pendMax is what waits before it.
	inMax, pendMax = 4096, 16 << 10
	// outMax is what waits for the master; echoes may exceed it a little.
	outMax  = 8 << 10
	echoMax = outMax + 4096
)

// tty is the state of the line discipline. Everything is guarded by Pty.mu.
type tty struct {
	c linux.KernelTermios
	// in is input for readers; lines counts delimiters in it, and the line being edited begins at edit (canonical mode).
	in    []cell
	lines int
	edit  int
	// pend is input that in has no room for.
	pend []byte
	out  []byte
	// column of the cursor; base is that of the line being edited.
	column, base int
	lnext        bool // the next byte is taken literally
	stopped      bool // ^S
	// sigs are signals for the foreground group, to be sent without the lock.
	sigs []linux.Signal
	// arrived is what readers are told by SIGIO: of a line, or a byte that is read as it is; printed what the master is.
	arrived, printed waiter.EventMask
	// pktStatus are TIOCPKT_* bits for a master in packet mode.
	pktStatus uint8
}

// defaultTermios is tty_std_termios of a pty: 38400 baud, 8 bits.
func defaultTermios() linux.KernelTermios {
	return linux.KernelTermios{
		InputFlags:   unix.ICRNL | unix.IXON,
		OutputFlags:  unix.OPOST | unix.ONLCR,
		ControlFlags: unix.B38400 | unix.CS8 | unix.CREAD,
		LocalFlags:   unix.ISIG | unix.ICANON | unix.ECHO | unix.ECHOE | unix.ECHOK | unix.ECHOCTL | unix.ECHOKE | unix.IEXTEN,
		ControlCharacters: [linux.NumControlCharacters]uint8{
			unix.VINTR: 3, unix.VQUIT: 28, unix.VERASE: 127, unix.VKILL: 21, unix.VEOF: 4, unix.VMIN: 1, unix.VSTART: 17, unix.VSTOP: 19,
			unix.VSUSP: 26, unix.VREPRINT: 18, unix.VDISCARD: 15, unix.VWERASE: 23, unix.VLNEXT: 22,
		},
		InputSpeed: 38400, OutputSpeed: 38400,
	}
}

func (t *tty) iflag(f uint32) bool { return t.c.InputFlags&f != 0 }
func (t *tty) oflag(f uint32) bool { return t.c.OutputFlags&f != 0 }
func (t *tty) lflag(f uint32) bool { return t.c.LocalFlags&f != 0 }

// is reports whether b is the control character i; 0 is none.
func (t *tty) is(b byte, i int) bool { return b != 0 && t.c.ControlCharacters[i] == b }

// receive takes bytes from the master and returns how many: fewer than all if there is no room.
func (t *tty) receive(b []byte) int {
	n := min(len(b), pendMax-len(t.pend))
	t.pend = append(t.pend, b[:n]...)
	t.advance()
	return n
}

// advance moves pending input on, as far as there is room.
func (t *tty) advance() {
	// A signal character drops what is in the buffers, but not what was typed after it: so pend is looked at as it was.
	i, pend := 0, t.pend
	for ; i < len(pend); i++ {
		if len(t.in) >= inMax-1 {
			// A line that is too long loses what comes before its end; otherwise readers must make room.
			if !t.lflag(unix.ICANON) || t.lines > 0 {
				break
			}
		}
		t.input(pend[i])
	}
	if t.pend = pend[i:]; len(t.pend) == 0 {
		t.pend = nil
	}
}

// input is n_tty_receive_char.
func (t *tty) input(b byte) {
	if t.iflag(unix.ISTRIP) {
		b &= 0x7f
	}
	if t.iflag(unix.IUCLC) && t.lflag(unix.IEXTEN) && b >= 'A' && b <= 'Z' {
		b += 'a' - 'A'
	}
	if t.lnext {
		t.lnext = false
		t.putInput(b)
		return
	}
	if t.iflag(unix.IXON) {
		if t.is(b, unix.VSTART) {
			t.start()
			return
		}
		if t.is(b, unix.VSTOP) {
			t.stop()
			return
		}
	}
	if t.lflag(unix.ISIG) {
		for _, s := range [...]struct {
			char int
			sig  linux.Signal
		}{{unix.VINTR, linux.SIGINT}, {unix.VQUIT, linux.SIGQUIT}, {unix.VSUSP, linux.SIGTSTP}} {
			if t.is(b, s.char) {
				t.signalKey(b, s.sig)
				return
			}
		}
	}
	if t.stopped && t.iflag(unix.IXON) && t.iflag(unix.IXANY) {
		t.start()
	}
	switch {
	case b == '\r' && t.iflag(unix.IGNCR):
		return
	case b == '\r' && t.iflag(unix.ICRNL):
		b = '\n'
	case b == '\n' && t.iflag(unix.INLCR):
		b = '\r'
	}
	if t.lflag(unix.ICANON) && t.lineKey(b) {
		return
	}
	t.putInput(b)
}

// signalKey is a key that sends a signal: unless NOFLSH is set, what was typed before is dropped.
func (t *tty) signalKey(b byte, sig linux.Signal) {
	if !t.lflag(unix.NOFLSH) {
		t.flushInput()
		// What was printed has reached the master's buffer already, and stays (pty_flush_buffer).
		t.pktStatus |= linux.TIOCPKT_FLUSHWRITE
	}
	if t.iflag(unix.IXON) {
		t.start()
	}
	t.echo(b)
	t.sigs = append(t.sigs, sig)
}

func (t *tty) start() {
	if t.stopped {
		t.stopped = false
		t.pktStatus = t.pktStatus&^linux.TIOCPKT_STOP | linux.TIOCPKT_START
	}
}

func (t *tty) stop() {
	if !t.stopped {
		t.stopped = true
		t.pktStatus = t.pktStatus&^linux.TIOCPKT_START | linux.TIOCPKT_STOP
	}
}

func (t *tty) flushInput() {
	t.in, t.pend, t.lines, t.edit, t.lnext = nil, nil, 0, 0, false
	t.pktStatus |= linux.TIOCPKT_FLUSHREAD
}

func (t *tty) flushOutput() {
	t.out = nil
	t.pktStatus |= linux.TIOCPKT_FLUSHWRITE
}

// lineKey is a key with a meaning in canonical mode (n_tty_receive_char_canon).
func (t *tty) lineKey(b byte) bool {
	ext := t.lflag(unix.IEXTEN)
	switch {
	case t.is(b, unix.VERASE), t.is(b, unix.VKILL), ext && t.is(b, unix.VWERASE):
		t.erase(b)
	case ext && t.is(b, unix.VLNEXT):
		t.lnext = true
		if t.lflag(unix.ECHO) && t.lflag(unix.ECHOCTL) {
			t.emit('^')
			t.emit('\b')
		}
	case ext && t.lflag(unix.ECHO) && t.is(b, unix.VREPRINT):
		t.echo(b)
		t.output('\n', true)
		t.base = t.column
		for _, c := range t.in[t.edit:] {
			t.echoChar(byte(c))
		}
	case b == '\n':
		if t.lflag(unix.ECHO) || t.lflag(unix.ECHONL) {
			t.output('\n', true)
		}
		t.endLine(cell(b))
	case t.is(b, unix.VEOF):
		t.endLine(eofMark)
	case t.is(b, unix.VEOL), ext && t.is(b, unix.VEOL2):
		t.echo(b)
		t.endLine(cell(b))
	default:
		return false
	}
	return true
}

func (t *tty) endLine(c cell) {
	t.in = append(t.in, c|delimiter)
	t.lines++
	t.edit = len(t.in)
	t.arrived = vfs.AsyncIn
}

// putInput adds an ordinary byte.
func (t *tty) putInput(b byte) {
	full := len(t.in) >= inMax-1
	if t.lflag(unix.ECHO) && !(full && t.lflag(unix.ICANON)) {
		if len(t.in) == t.edit {
			t.base = t.column
		}
		t.echoChar(b)
	}
	if full {
		if t.iflag(unix.IMAXBEL) {
			t.emit('\a')
		}
		return
	}
	t.in = append(t.in, cell(b))
	if b == 0xff && t.iflag(unix.PARMRK) {
		t.in = append(t.in, cell(b))
	}
	if !t.lflag(unix.ICANON) {
		t.edit, t.arrived = len(t.in), vfs.AsyncIn
	}
}

func (t *tty) echo(b byte) {
	if t.lflag(unix.ECHO) {
		t.echoChar(b)
	}
}

// echoChar prints an input byte; control characters as ^X.
func (t *tty) echoChar(b byte) {
	if t.lflag(unix.ECHOCTL) && isControl(b) && b != '\t' {
		t.emit('^')
		t.emit(b ^ 0x40)
		return
	}
	t.output(b, true)
}

func isControl(b byte) bool { return b < 0x20 || b == 0x7f }

func continuation(b byte) bool { return b&0xc0 == 0x80 }

func wordByte(b byte) bool {
	return b == '_' || b >= '0' && b <= '9' || b|0x20 >= 'a' && b|0x20 <= 'z' || b >= 0x80
}

// erase takes a character, a word or the whole line back (n_tty.c eraser).
func (t *tty) erase(key byte) {
	if len(t.in) == t.edit {
		return
	}
	word := t.is(key, unix.VWERASE) && !t.is(key, unix.VERASE)
	kill := t.is(key, unix.VKILL) && !t.is(key, unix.VERASE) && !word
	if kill && !(t.lflag(unix.ECHO) && t.lflag(unix.ECHOK) && t.lflag(unix.ECHOKE) && t.lflag(unix.ECHOE)) {
		t.in = t.in[:t.edit]
		if t.lflag(unix.ECHO) {
			t.echoChar(key)
			if t.lflag(unix.ECHOK) {
				t.output('\n', true)
			}
		}
		return
	}
	seen := false
	for len(t.in) > t.edit {
		n := len(t.in) - 1
		if t.iflag(unix.IUTF8) {
			for n > t.edit && continuation(byte(t.in[n])) {
				n--
			}
		}
		b := byte(t.in[n])
		if word {
			if wordByte(b) {
				seen = true
			} else if seen {
				break
			}
		}
		t.in = t.in[:n]
		t.eraseEcho(key, b)
		if !word && !kill {
			break
		}
	}
}

// eraseEcho wipes the character b, which was just taken from the end of the line, from the screen.
func (t *tty) eraseEcho(key, b byte) {
	switch {
	case !t.lflag(unix.ECHO):
	case t.is(key, unix.VERASE) && !t.lflag(unix.ECHOE):
		t.echoChar(key)
	case b == '\t':
		// Back to where the tab began.
		col := t.base
		for _, c := range t.in[t.edit:] {
			switch b := byte(c); {
			case b == '\t':
				col = col&^7 + 8
			case isControl(b):
				if t.lflag(unix.ECHOCTL) {
					col += 2
				}
			case !t.iflag(unix.IUTF8) || !continuation(b):
				col++
			}
		}
		for n := t.column - col; n > 0 && n <= 8; n-- {
			t.output('\b', true)
		}
	default:
		if isControl(b) && t.lflag(unix.ECHOCTL) {
			t.wipe()
		}
		if !isControl(b) || t.lflag(unix.ECHOCTL) {
			t.wipe()
		}
	}
}

func (t *tty) wipe() {
	t.emit('\b')
	t.emit(' ')
	t.emit('\b')
}

// emit prints an echo byte as it is.
func (t *tty) emit(b byte) {
	if len(t.out) < echoMax {
		t.out, t.printed = append(t.out, b), vfs.AsyncIn
	}
	if b == '\b' {
		t.column = max(0, t.column-1)
	} else if !isControl(b) {
		t.column++
	}
}

// output is do_output_char: a byte on its way to the master. echo says that it may exceed the buffer a little; otherwise false means no room.
func (t *tty) output(b byte, echo bool) bool {
	limit := outMax
	if echo {
		limit = echoMax
	}
	if len(t.out)+8 > limit {
		return false
	}
	t.printed = vfs.AsyncIn
	if !t.oflag(unix.OPOST) {
		t.out = append(t.out, b)
		return true
	}
	switch b {
	case '\n':
		if t.oflag(unix.ONLRET) {
			t.column = 0
		}
		if t.oflag(unix.ONLCR) {
			t.column = 0
			t.out = append(t.out, '\r')
		}
	case '\r':
		if t.oflag(unix.ONOCR) && t.column == 0 {
			return true
		}
		if t.oflag(unix.OCRNL) {
			b = '\n'
			if t.oflag(unix.ONLRET) {
				t.column = 0
			}
			break
		}
		t.column = 0
	case '\t':
		n := 8 - t.column&7
		t.column += n
		if t.c.OutputFlags&unix.TABDLY == unix.XTABS {
			t.out = append(t.out, "        "[:n]...)
			return true
		}
	case '\b':
		t.column = max(0, t.column-1)
	default:
		if t.oflag(unix.OLCUC) && b >= 'a' && b <= 'z' {
			b -= 'a' - 'A'
		}
		if !isControl(b) && !(t.iflag(unix.IUTF8) && continuation(b)) {
			t.column++
		}
	}
	t.out = append(t.out, b)
	return true
}

// readable reports whether a reader of the slave finds what it waits for.
func (t *tty) readable() bool {
	if t.lflag(unix.ICANON) {
		return t.lines > 0
	}
	need := 1
	if t.c.ControlCharacters[unix.VTIME] == 0 {
		need = max(1, int(t.c.ControlCharacters[unix.VMIN]))
	}
	return len(t.in) >= need
}

// take moves input to b: a line at most in canonical mode. The caller has seen that there is something.
func (t *tty) take(b []byte) int {
	n, i := 0, 0
	canon := t.lflag(unix.ICANON)
	for i < len(t.in) && (n < len(b) || canon && t.in[i]&eofMark != 0) {
		if canon && t.lines == 0 {
			break
		}
		c := t.in[i]
		i++
		if c&eofMark == 0 {
			b[n] = byte(c)
			n++
		}
		if c&delimiter != 0 {
			t.lines--
			if canon {
				break
			}
		}
	}
	if t.in = t.in[i:]; len(t.in) == 0 {
		t.in = nil
	}
	t.edit = max(0, t.edit-i)
	t.advance()
	return n
}

// setTermios is n_tty_set_termios.
func (t *tty) setTermios(c linux.KernelTermios) {
	old := t.c
	t.c = c
	if (old.LocalFlags^c.LocalFlags)&unix.ICANON != 0 {
		t.lnext = false
		if c.LocalFlags&unix.ICANON != 0 {
			// What was read raw becomes a line.
			t.lines = 0
			for i := range t.in {
				t.in[i] &= 0xff
			}
			if n := len(t.in); n > 0 {
				t.in[n-1] |= delimiter
				t.lines = 1
			}
		} else {
			kept := t.in[:0]
			for _, x := range t.in {
				if x&eofMark == 0 {
					kept = append(kept, x&0xff)
				}
			}
			t.in, t.lines = kept, 0
		}
		t.edit = len(t.in)
	}
	if old.InputFlags&unix.IXON != 0 && c.InputFlags&unix.IXON == 0 {
		t.start()
	}
	t.advance()
}
