// Package workloads runs real programs in sandboxes made by the moat binary, on every platform there is, and compares what they print with what they
// print on the host.
//
// MOAT_PLATFORMS limits the platforms; MOAT_LONG=1 adds the tests that take more than a few seconds (make workloads).
package workloads

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"moat/sentry/boot"
)

// moat is the binary; build the directory for what is made once.
var moat, build string

func TestMain(m *testing.M) {
	var err error
	if build, err = filepath.Abs("../../build"); err == nil {
		err = os.MkdirAll(build, 0o755)
	}
	// Both names must be seen by a nobody: the sentry executes the binary as such.
	dir, e := os.MkdirTemp("", "moat-test-")
	if err == nil {
		err = e
	}
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err == nil {
		moat = filepath.Join(dir, "moat")
		c := exec.Command("go", "build", "-trimpath", "-o", moat, "moat/cmd/moat")
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		var out []byte
		if out, err = c.CombinedOutput(); err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// path is the PATH of tests, on the host and inside.
const path = "PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func environ() []string {
	env := []string{path, "HOME=/root", "LANG=C.UTF-8", "TERM=xterm", "GOFLAGS=-mod=mod"}
	for _, k := range []string{"GOPROXY", "GOCACHE", "GOMODCACHE", "GONOSUMDB", "GONOSUMCHECK"} {
		if v, ok := os.LookupEnv(k); ok {
			env = append(env, k+"="+v)
		}
	}
	return env
}

// result is how a command ended.
type result struct {
	out, err string
	code     int
	took     time.Duration
}

func (r result) String() string {
	return fmt.Sprintf("code %d after %.1fs\nstdout: %s\nstderr: %s", r.code, r.took.Seconds(), clip(r.out), clip(r.err))
}

func clip(s string) string {
	if len(s) > 4000 {
		return s[:2000] + "\n[...]\n" + s[len(s)-2000:]
	}
	return s
}

// differ says where a result differs from the host's.
func differ(got, want result) string {
	a, b := strings.Split(got.out, "\n"), strings.Split(want.out, "\n")
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	line := func(s []string) string { return clip(strings.Join(s[min(n, len(s)):min(n+5, len(s))], "\n")) }
	return fmt.Sprintf("differs from the host in line %d of the output\n%s\n--- host:\n%s\n--- sandbox: %v\n--- host: %v", n+1, line(a), line(b), got, want)
}

// command runs a program with a time limit; it may be killed, never hang.
func command(t *testing.T, limit time.Duration, dir, stdin string, argv ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	c.Dir = dir
	c.Env = environ()
	c.WaitDelay = 5 * time.Second
	if stdin != "" {
		c.Stdin = strings.NewReader(stdin)
	}
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	start := time.Now()
	err := c.Run()
	r := result{out: out.String(), err: errs.String(), took: time.Since(start)}
	var exit *exec.ExitError
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		t.Fatalf("%s: not done after %v\n%v", strings.Join(argv, " "), limit, r)
	case errors.As(err, &exit):
		r.code = exit.ExitCode()
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			r.code = 128 + int(ws.Signal())
		}
	case err != nil:
		t.Fatalf("%s: %v", argv[0], err)
	}
	return r
}

// sandbox runs `moat do` with flags and a command.
type sandbox struct {
	platform, dir, stdin string
	flags                []string
	limit                time.Duration
}

func (s sandbox) run(t *testing.T, argv ...string) result {
	t.Helper()
	if s.limit == 0 {
		s.limit = 2 * time.Minute
	}
	args := append([]string{moat, "do", "--platform=" + s.platform}, s.flags...)
	return command(t, s.limit, s.dir, s.stdin, append(append(args, "--"), argv...)...)
}

// platforms runs f as a subtest for each platform.
func platforms(t *testing.T, f func(t *testing.T, platform string)) {
	t.Helper()
	names := boot.Platforms()
	if s := os.Getenv("MOAT_PLATFORMS"); s != "" {
		names = strings.Fields(s)
	}
	if len(names) == 0 {
		t.Skip("no platform is built in")
	}
	for _, p := range names {
		t.Run(p, func(t *testing.T) { f(t, p) })
	}
}

// long skips the test unless long ones are wanted.
func long(t *testing.T) {
	t.Helper()
	if os.Getenv("MOAT_LONG") == "" {
		t.Skip("a long one: MOAT_LONG=1, or make workloads")
	}
}

// need skips the test if a program is not installed.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		r := exec.Command("bash", "-c", "command -v "+p)
		r.Env = environ()
		if r.Run() != nil {
			t.Skipf("%s is not installed (make deps)", p)
		}
	}
}

// script runs a bash script on the host and in the sandbox, each in an empty directory, and wants the same output and exit code.
func script(t *testing.T, text string) {
	t.Helper()
	scriptFor(t, 2*time.Minute, text)
}

func scriptFor(t *testing.T, limit time.Duration, text string) {
	t.Helper()
	var want result
	done := false
	platforms(t, func(t *testing.T, p string) {
		if !done {
			want = command(t, limit, t.TempDir(), "", "bash", "-c", text)
			done = true
		}
		got := sandbox{platform: p, dir: t.TempDir(), limit: limit}.run(t, "bash", "-c", text)
		if got.out != want.out || got.code != want.code {
			t.Error(differ(got, want))
		}
		t.Logf("host %.1fs, sandbox %.1fs", want.took.Seconds(), got.took.Seconds())
	})
}

// checks runs a bash script in the sandbox and wants it to exit with 0 and to print want as its last line.
func checks(t *testing.T, limit time.Duration, text, want string) {
	t.Helper()
	platforms(t, func(t *testing.T, p string) {
		got := sandbox{platform: p, dir: t.TempDir(), limit: limit}.run(t, "bash", "-c", text)
		lines := strings.Split(strings.TrimSpace(got.out), "\n")
		if got.code != 0 || lines[len(lines)-1] != want {
			t.Errorf("want %q as the last line\n%v", want, got)
		}
		t.Logf("%.1fs", got.took.Seconds())
	})
}
