package workloads

import (
	"bufio"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// shell is a sandbox whose bash takes commands one by one.
type shell struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out chan string
}

func newShell(t *testing.T, platform string, flags ...string) *shell {
	t.Helper()
	return startShell(t, append(append([]string{moat, "do", "--platform=" + platform}, flags...), "--", "bash")...)
}

// startShell is newShell by a command of the caller's.
func startShell(t *testing.T, argv ...string) *shell {
	t.Helper()
	s := &shell{t: t, out: make(chan string, 1000)}
	s.cmd = exec.Command(argv[0], argv[1:]...)
	s.cmd.Env = environ()
	s.cmd.Dir = "/tmp"
	out, err := s.cmd.StdoutPipe()
	if err == nil {
		s.in, err = s.cmd.StdinPipe()
	}
	if err == nil {
		err = s.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for r := bufio.NewScanner(out); r.Scan(); {
			s.out <- r.Text()
		}
		close(s.out)
	}()
	t.Cleanup(func() {
		s.in.Close()
		time.AfterFunc(20*time.Second, func() { s.cmd.Process.Kill() })
		s.cmd.Wait()
	})
	return s
}

// send types a line; what it prints is for expect.
func (s *shell) send(text string) {
	s.t.Helper()
	if _, err := io.WriteString(s.in, text+"\n"); err != nil {
		s.t.Fatalf("the sandbox has ended before: %s: %v", text, err)
	}
}

// expect reads lines up to one that begins with prefix, and returns its rest and those before.
func (s *shell) expect(limit time.Duration, prefix string) (rest, before string) {
	s.t.Helper()
	after := time.After(limit)
	for {
		select {
		case l, ok := <-s.out:
			if !ok {
				s.t.Fatalf("the sandbox has ended; no %q in\n%s", prefix, before)
			}
			if rest, ok := strings.CutPrefix(l, prefix); ok {
				return rest, before
			}
			before += l + "\n"
		case <-after:
			s.t.Fatalf("not done after %v; no %q in\n%s", limit, prefix, before)
		}
	}
}

// do runs a command and returns its output and exit code.
func (s *shell) do(limit time.Duration, text string) (out, code string) {
	s.t.Helper()
	s.send(text + "\necho \"<end $?>\"")
	code, out = s.expect(limit, "<end ")
	return out, strings.TrimSuffix(code, ">")
}
