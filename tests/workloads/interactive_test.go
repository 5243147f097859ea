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
	s := &shell{t: t, out: make(chan string, 1000)}
	s.cmd = exec.Command(moat, append(append([]string{"do", "--platform=" + platform}, flags...), "--", "bash")...)
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

// do runs a command and returns its output and exit code.
func (s *shell) do(limit time.Duration, text string) (out string, code string) {
	s.t.Helper()
	if _, err := io.WriteString(s.in, text+"\necho \"<end $?>\"\n"); err != nil {
		s.t.Fatalf("the sandbox has ended before: %s: %v", text, err)
	}
	after := time.After(limit)
	for {
		select {
		case l, ok := <-s.out:
			if !ok {
				s.t.Fatalf("the sandbox has ended in: %s\n%s", text, out)
			}
			if c, ok := strings.CutPrefix(l, "<end "); ok {
				return out, strings.TrimSuffix(c, ">")
			}
			out += l + "\n"
		case <-after:
			s.t.Fatalf("not done after %v: %s\n%s", limit, text, out)
		}
	}
}
