package workloads

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// screen is a terminal that the test sits at: the master of a pseudoterminal.
type screen struct {
	t      *testing.T
	master *os.File
	slave  *os.File
	cmd    *exec.Cmd

	mu   sync.Mutex
	text bytes.Buffer // everything that was shown
	seen int          // up to where expect has looked
	more chan struct{}
}

// sit starts a command whose session has the terminal; edit may redirect a part of its standard files elsewhere.
func sit(t *testing.T, edit func(*exec.Cmd), argv ...string) *screen {
	t.Helper()
	m, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(m.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(m.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	s, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	sc := &screen{t: t, master: m, slave: s, more: make(chan struct{}, 1)}
	sc.resize(33, 111)
	c := exec.Command(argv[0], argv[1:]...)
	c.Env = append(environ(), "PS1=> ")
	c.Dir = t.TempDir()
	c.Stdin, c.Stdout, c.Stderr = s, s, s
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if edit != nil {
		edit(c)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	sc.cmd = c
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := m.Read(b)
			if n == 0 || err != nil {
				return
			}
			sc.mu.Lock()
			sc.text.Write(b[:n])
			sc.mu.Unlock()
			select {
			case sc.more <- struct{}{}:
			default:
			}
		}
	}()
	t.Cleanup(func() { c.Process.Kill(); c.Wait(); s.Close(); m.Close() })
	return sc
}

func (s *screen) resize(rows, cols uint16) {
	s.t.Helper()
	if err := unix.IoctlSetWinsize(int(s.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *screen) typ(text string) {
	s.t.Helper()
	if _, err := io.WriteString(s.master, text); err != nil {
		s.t.Fatal(err)
	}
}

// expect waits until what is shown, behind the last match, matches the pattern.
func (s *screen) expect(pattern string) {
	s.t.Helper()
	re := regexp.MustCompile(pattern)
	late := time.After(30 * time.Second)
	for {
		s.mu.Lock()
		loc := re.FindIndex(s.text.Bytes()[s.seen:])
		if loc != nil {
			s.seen += loc[1]
			s.mu.Unlock()
			return
		}
		rest := s.text.String()[s.seen:]
		s.mu.Unlock()
		select {
		case <-s.more:
		case <-late:
			s.t.Fatalf("the terminal does not show %q; it shows, behind what was seen: %q", pattern, rest)
		}
	}
}

// until types text again and again until the pattern is shown.
func (s *screen) until(text, pattern string) {
	s.t.Helper()
	re := regexp.MustCompile(pattern)
	for range 100 {
		s.typ(text)
		time.Sleep(100 * time.Millisecond)
		s.mu.Lock()
		shown := re.Match(s.text.Bytes()[s.seen:])
		s.mu.Unlock()
		if shown {
			break
		}
	}
	s.expect(pattern)
}

// end waits for the command.
func (s *screen) end(code int) {
	s.t.Helper()
	done := make(chan error, 1)
	go func() { done <- s.cmd.Wait() }()
	select {
	case <-done:
	case <-time.After(60 * time.Second):
		s.t.Fatal("the command is still there")
	}
	if c := s.cmd.ProcessState.ExitCode(); c != code {
		s.t.Errorf("exit code %d, want %d; shown: %q", c, code, s.text.String())
	}
}

func TestTerminal(t *testing.T) {
	need(t, "bash", "stty", "tmux")
	platforms(t, func(t *testing.T, p string) {
		do := func(argv ...string) []string { return append([]string{moat, "do", "--platform=" + p, "--"}, argv...) }
		t.Run("job control", func(t *testing.T) {
			s := sit(t, nil, do("bash", "--norc", "--noediting", "-i")...)
			s.expect(`> $`)
			s.typ("tty; stty size; test -t 0 -a -t 1 -a -t 2 && echo all\r")
			s.expect(`/dev/pts/0\r\n33 111\r\nall\r\n> $`)
			s.typ("trap 'echo size $(stty size)' WINCH\r")
			s.expect(`> $`)
			s.resize(40, 120)
			s.until("\r", `size 40 120\r\n`)
			s.typ("echo on; echo\r")
			s.expect(`\non\r\n\r\n> $`)
			s.typ("sleep 100\r")
			s.expect(`sleep 100\r\n`)
			time.Sleep(300 * time.Millisecond) // it must be in the foreground before the key
			s.typ("\x03")
			s.expect(`\^C\r\n> $`)
			s.typ("echo code $?\r")
			s.expect(`code 130\r\n> $`)
			s.typ("sleep 100\r")
			s.expect(`sleep 100\r\n`)
			time.Sleep(300 * time.Millisecond)
			s.typ("\x1a")
			s.expect(`\^Z\r\n\[1\]\+ +Stopped +sleep 100\r\n> $`)
			s.typ("bg; jobs\r")
			s.expect(`\[1\]\+ sleep 100 &\r\n\[1\]\+ +Running +sleep 100 &\r\n> $`)
			s.typ("fg\r")
			s.expect(`sleep 100\r\n`)
			time.Sleep(300 * time.Millisecond)
			s.typ("\x1c")
			s.expect(`\^\\(Quit)?.*\r\n> $`)
			s.typ("cat | tr a-z A-Z\r")
			s.expect(`A-Z\r\n`)
			s.typ("some line\r\x04")
			s.expect(`some line\r\nSOME LINE\r\n> $`)
			s.typ("stty -echo; read x; stty echo; echo got $x\r")
			s.expect(`\$x\r\n`)
			time.Sleep(300 * time.Millisecond)
			s.typ("secret\r")
			s.expect(`^(\r\n)?got secret\r\n> $`)
			s.typ("exit 7\r")
			s.end(7)
		})
		t.Run("tmux", func(t *testing.T) {
			s := sit(t, nil, do("bash", "--norc", "-c", "export TMUX_TMPDIR=/tmp SHELL=/bin/sh; tmux -f /dev/null new-session -s one 'echo in $((40+2)); read x; echo bye'; echo left $?")...)
			s.expect(`in 42`)
			s.typ("\x02d") // detach
			s.expect(`detached \(from session one\)`)
			s.expect(`left 0\r\n`)
			s.end(0)
		})
		// Only a part of standard input, output and error is a terminal.
		t.Run("input only", func(t *testing.T) {
			out, err := os.CreateTemp(t.TempDir(), "out")
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			s := sit(t, func(c *exec.Cmd) { c.Stdout = out }, do("sh", "-c", `test -t 1 || echo no terminal; stty -echo; echo ask >&2; read x; stty echo; echo "got $x"; stty size; echo more >&2; read y; echo "got $y"`)...)
			s.expect(`ask\r\n`)
			s.typ("secret\r")
			s.expect(`^more\r\n`) // nothing was echoed
			s.typ("seen\r")
			s.expect(`^seen\r\n`)
			s.end(0)
			b, _ := os.ReadFile(out.Name())
			if string(b) != "no terminal\ngot secret\n33 111\ngot seen\n" {
				t.Errorf("output: %q", b)
			}
			if tio, err := unix.IoctlGetTermios(int(s.slave.Fd()), unix.TCGETS); err != nil || tio.Lflag&unix.ECHO == 0 {
				t.Errorf("the terminal does not echo any more (%v)", err)
			}
		})
		t.Run("output only", func(t *testing.T) {
			s := sit(t, func(c *exec.Cmd) { c.Stdin, c.SysProcAttr.Ctty = strings.NewReader("from a pipe\n"), 1 }, do("sh", "-c", `cat; test -t 1 && stty size <&1; test -t 0 || echo no input`)...)
			s.expect(`from a pipe\r\n33 111\r\nno input\r\n`)
			s.end(0)
		})
		t.Run("interrupt of a pipeline", func(t *testing.T) {
			s := sit(t, nil, "sh", "-c", "trap : INT; "+moat+" do --platform="+p+" -- sh -c 'echo up >&2; exec sleep 100' | cat; echo ended")
			s.expect(`up\r\n`)
			s.typ("\x03")
			s.expect(`ended\r\n`)
			s.end(0)
		})
	})
}
