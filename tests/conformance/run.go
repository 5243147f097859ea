package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// options are how programs are run.
type options struct {
	static bool
	moat   string
	jobs   int
}

// job is one run of a program.
type job struct {
	program program
	user    int
	static  bool
}

func (j job) id() string {
	id := j.program.name()
	if j.user != 0 {
		id += "@user"
	}
	if j.static {
		id += "@static"
	}
	return id
}

// seconds is what a program may take; batch what all of them may.
const (
	seconds = 40
	batch   = 5 * time.Minute
)

// run runs jobs on a platform, or the host. The transcript of a job that did not end, because the sandbox died, says so.
func (s *suite) run(jobs []job, platform string, o options) (map[string][]string, error) {
	out := map[string][]string{}
	err := s.drive(jobs, platform, o, out)
	if err == nil || platform == "host" {
		return out, err
	}
	// The sandbox died: which program did it shows when each has one to itself.
	fmt.Fprintf(os.Stderr, "the sandbox died: %v\n", err)
	for _, j := range jobs {
		if out[j.id()] != nil {
			continue
		}
		if err := s.drive([]job{j}, platform, o, out); err != nil {
			out[j.id()] = strings.Split("the sandbox died: "+err.Error(), "\n")
		}
	}
	return out, nil
}

func (s *suite) drive(jobs []job, platform string, o options, out map[string][]string) error {
	var list bytes.Buffer
	for _, j := range jobs {
		fmt.Fprintln(&list, j.id(), j.user, s.binary(j.program, j.static))
	}
	argv := []string{s.binary(program{family: "driver", base: "driver"}, true), strconv.Itoa(o.jobs), strconv.Itoa(seconds)}
	if platform != "host" {
		argv = append([]string{o.moat, "do", "--platform=" + platform, "--"}, argv...)
	}
	ctx, cancel := context.WithTimeout(context.Background(), batch)
	defer cancel()
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	c.Stdin = &list
	c.WaitDelay = 5 * time.Second
	var errs bytes.Buffer
	c.Stderr = &errs
	pipe, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	perr := parse(pipe, out)
	err = c.Wait()
	if ctx.Err() != nil {
		err = fmt.Errorf("not done after %v", batch)
	}
	if err = errors.Join(err, perr); err != nil {
		return fmt.Errorf("%w\n%s", err, tail(errs.String(), 30))
	}
	return nil
}

// tail is the last n lines of s.
func tail(s string, n int) string {
	l := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(l[max(0, len(l)-n):], "\n")
}

// parse reads what the driver writes.
func parse(r io.Reader, out map[string][]string) error {
	b := bufio.NewReader(r)
	for {
		l, err := b.ReadString('\n')
		if err == io.EOF && l == "" {
			return nil
		}
		f := strings.Fields(l)
		if err != nil || len(f) < 2 {
			return fmt.Errorf("the driver wrote %q", l)
		}
		if f[0] == "+" {
			continue
		}
		n, err := strconv.Atoi(f[len(f)-1])
		if f[0] != "=" || len(f) != 3 || err != nil || n < 0 || n > 1<<24 {
			return fmt.Errorf("the driver wrote %q", l)
		}
		text := make([]byte, n)
		if _, err := io.ReadFull(b, text); err != nil {
			return err
		}
		out[f[1]] = strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	}
}

// compare runs programs on the host and on a platform.
func (s *suite) compare(ps []program, platform string, o options) (*table, error) {
	if err := s.build(ps, o.static); err != nil {
		return nil, err
	}
	if o.moat == "" && platform != "host" {
		dir, err := os.MkdirTemp("", "moat-conformance-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
		// The sentry executes it as a nobody.
		if err := os.Chmod(dir, 0o755); err != nil {
			return nil, err
		}
		o.moat = filepath.Join(dir, "moat")
		c := exec.Command("go", "build", "-trimpath", "-o", o.moat, "moat/cmd/moat")
		c.Dir = s.root
		c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=mod")
		if msg, err := c.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%w: %s", err, msg)
		}
	}
	var jobs []job
	for _, p := range ps {
		for _, u := range p.users {
			jobs = append(jobs, job{p, u, false})
		}
		if o.static {
			jobs = append(jobs, job{p, 0, true})
		}
	}
	start := time.Now()
	want, err := s.run(jobs, "host", o)
	if err != nil {
		return nil, err
	}
	host := time.Since(start)
	got, err := s.run(jobs, platform, o)
	if err != nil {
		return nil, err
	}
	t := &table{platform: platform, host: host, took: time.Since(start) - host}
	for _, j := range jobs {
		t.results = append(t.results, s.judge(j, want[j.id()], got[j.id()]))
	}
	return t, nil
}
