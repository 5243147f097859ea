package devpts

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

func newTTY() *tty { return &tty{c: defaultTermios()} }

// typed types text and returns what a reader gets line by line, and what is shown.
func (t *tty) typed(text string) (lines []string, shown string) {
	t.receive([]byte(text))
	for t.readable() {
		var b [inMax]byte
		lines = append(lines, string(b[:t.take(b[:])]))
	}
	return lines, string(t.out)
}

// TestEditing: the lines and the echo are those of Linux's n_tty.
func TestEditing(t *testing.T) {
	for _, c := range []struct {
		name, typed string
		lines       []string
		shown       string
		change      func(*tty)
	}{
		{"line", "ab\r", []string{"ab\n"}, "ab\r\n", nil},
		{"two lines", "a\nb\n", []string{"a\n", "b\n"}, "a\r\nb\r\n", nil},
		{"erase", "ab\x7fc\r", []string{"ac\n"}, "ab\b \bc\r\n", nil},
		{"erase nothing", "\x7f\r", []string{"\n"}, "\r\n", nil},
		{"erase a control character", "a\x01\x7f\r", []string{"a\n"}, "a^A\b \b\b \b\r\n", nil},
		{"erase a tab", "a\t\x7f\r", []string{"a\n"}, "a\t\b\b\b\b\b\b\b\r\n", nil},
		{"erase a word", "one two\x17\r", []string{"one \n"}, "one two\b \b\b \b\b \b\r\n", nil},
		{"kill", "abc\x15d\r", []string{"d\n"}, "abc\b \b\b \b\b \bd\r\n", nil},
		{"literal", "\x16\x03\r", []string{"\x03\n"}, "^\b^C\r\n", nil},
		{"end of file", "ab\x04", []string{"ab"}, "ab", nil},
		{"end of file at once", "\x04", []string{""}, "", nil},
		{"interrupt", "ab\x03c\r", []string{"c\n"}, "ab^Cc\r\n", nil},
		{"no flush", "ab\x03c\r", []string{"abc\n"}, "ab^Cc\r\n", func(t *tty) { t.c.LocalFlags |= unix.NOFLSH }},
		{"no echo", "ab\r", []string{"ab\n"}, "", func(t *tty) { t.c.LocalFlags &^= unix.ECHO }},
		{"new lines only", "ab\r", []string{"ab\n"}, "\r\n", func(t *tty) { t.c.LocalFlags = t.c.LocalFlags&^unix.ECHO | unix.ECHONL }},
		{"return stays", "ab\r\n", []string{"ab\r\n"}, "ab^M\r\n", func(t *tty) { t.c.InputFlags &^= unix.ICRNL }},
		{"return ignored", "a\rb\n", []string{"ab\n"}, "ab\r\n", func(t *tty) { t.c.InputFlags |= unix.IGNCR }},
		{"stripped", "\xe1\r", []string{"a\n"}, "a\r\n", func(t *tty) { t.c.InputFlags |= unix.ISTRIP }},
		{"raw", "a\x03\x7f", []string{"a\x03\x7f"}, "", func(t *tty) {
			t.c.LocalFlags &^= unix.ICANON | unix.ECHO | unix.ISIG
		}},
		{"no output processing", "ab\r", []string{"ab\n"}, "ab\n", func(t *tty) { t.c.OutputFlags &^= unix.OPOST }},
	} {
		tt := newTTY()
		if c.change != nil {
			c.change(tt)
		}
		lines, shown := tt.typed(c.typed)
		same := len(lines) == len(c.lines)
		for i := 0; same && i < len(lines); i++ {
			same = lines[i] == c.lines[i]
		}
		if !same || shown != c.shown {
			t.Errorf("%s: %q is read as %q and shown as %q; want %q and %q", c.name, c.typed, lines, shown, c.lines, c.shown)
		}
	}
}

func TestSignalKeys(t *testing.T) {
	tt := newTTY()
	tt.typed("\x03\x1c\x1a")
	if len(tt.sigs) != 3 || tt.sigs[0] != linux.SIGINT || tt.sigs[1] != linux.SIGQUIT || tt.sigs[2] != linux.SIGTSTP {
		t.Errorf("signals %v", tt.sigs)
	}
	tt = newTTY()
	tt.c.LocalFlags &^= unix.ISIG
	if lines, _ := tt.typed("\x03\r"); len(tt.sigs) != 0 || len(lines) != 1 || lines[0] != "\x03\n" {
		t.Errorf("without ISIG: signals %v, lines %q", tt.sigs, lines)
	}
}

func TestStopped(t *testing.T) {
	tt := newTTY()
	if tt.typed("\x13"); !tt.stopped {
		t.Error("^S does not stop")
	}
	if tt.typed("\x11"); tt.stopped {
		t.Error("^Q does not start")
	}
}

// TestLongLine: a line longer than 4,095 bytes is cut, and its end is still one (n_tty's man page: termios(3)).
func TestLongLine(t *testing.T) {
	tt := newTTY()
	tt.c.LocalFlags &^= unix.ECHO
	lines, _ := tt.typed(string(bytes.Repeat([]byte{'x'}, 10000)) + "\n")
	if len(lines) != 1 || len(lines[0]) != inMax || lines[0][inMax-1] != '\n' {
		t.Errorf("%d lines, the first of %d bytes", len(lines), len(lines[0]))
	}
}

// TestRoom: raw input that nobody reads is bounded, and none of it is lost once taken.
func TestRoom(t *testing.T) {
	tt := newTTY()
	tt.c.LocalFlags &^= unix.ICANON | unix.ECHO
	sent := 0
	for {
		n := tt.receive(bytes.Repeat([]byte{'y'}, 1000))
		if sent += n; n == 0 {
			break
		}
	}
	got := 0
	for tt.readable() {
		var b [777]byte
		got += tt.take(b[:])
	}
	if got != sent || sent > inMax+pendMax {
		t.Errorf("%d bytes taken, %d read", sent, got)
	}
}

func TestModeChange(t *testing.T) {
	tt := newTTY()
	tt.receive([]byte("half"))
	raw := tt.c
	raw.LocalFlags &^= unix.ICANON
	tt.setTermios(raw)
	var b [16]byte
	if n := tt.take(b[:2]); !tt.readable() || string(b[:n]) != "ha" {
		t.Errorf("%q", b[:n])
	}
	tt.setTermios(defaultTermios())
	if n := tt.take(b[:]); string(b[:n]) != "lf" {
		t.Errorf("%q", b[:n])
	}
}

func TestTermiosCodec(t *testing.T) {
	want := defaultTermios()
	for _, two := range []bool{false, true} {
		var c linux.KernelTermios
		if decodeTermios(&c, encodeTermios(&want, two), two); c != want {
			t.Errorf("termios2 %v: %+v, want %+v", two, c, want)
		}
	}
}

// FuzzLine drives the line discipline with any modes, input, output and reads.
func FuzzLine(f *testing.F) {
	std := defaultTermios()
	f.Add(encodeTermios(&std, false), []byte("hello\x7f\r\x03abc\x04\x16\x17\n"))
	f.Add(make([]byte, 36), []byte("\x00\xff\x80"))
	f.Fuzz(func(t *testing.T, modes, script []byte) {
		tt := newTTY()
		set := func(b []byte) {
			var m [36]byte
			copy(m[:], b)
			c := tt.c
			decodeTermios(&c, m[:], false)
			tt.setTermios(c)
		}
		set(modes)
		for i := 0; i < len(script); i++ {
			switch op := script[i]; op % 8 {
			case 0:
				n := min(len(script)-i-1, int(op>>3))
				tt.receive(script[i+1 : i+1+n])
				i += n
			case 1:
				var b [64]byte
				if tt.readable() {
					if n := tt.take(b[:op>>3]); n > int(op>>3) {
						t.Fatalf("%d bytes for %d", n, op>>3)
					}
				}
			case 2:
				tt.output(op, op&8 != 0)
			case 3:
				set(script[i:min(len(script), i+36)])
			case 4:
				tt.receive(bytes.Repeat([]byte{op}, 5000))
			case 5:
				tt.flushInput()
			case 6:
				tt.flushOutput()
			case 7:
				tt.out = nil // the master has read
			}
			lines := 0
			for _, c := range tt.in {
				if c&delimiter != 0 {
					lines++
				}
			}
			if tt.lflag(unix.ICANON) && lines != tt.lines {
				t.Fatalf("%d delimiters, %d lines", lines, tt.lines)
			}
			if len(tt.in) > inMax+2 || len(tt.pend) > pendMax || len(tt.out) > echoMax+16 || tt.edit < 0 || tt.edit > len(tt.in) || tt.lines < 0 {
				t.Fatalf("in %d, pend %d, out %d, edit %d, lines %d", len(tt.in), len(tt.pend), len(tt.out), tt.edit, tt.lines)
			}
			tt.sigs = nil
		}
	})
}
