// Command fuzz throws system calls at moat.
//
//	fuzz -raw [-seed N] [-seconds N] [-platform P]     random numbers and arguments: the sandbox must answer, never die, and never grow
//	fuzz -diff [-seed N] [-seconds N] [-platform P]    programs of calls on the host and in moat, whose answers must be the same
//
// The calls of the first are made by a small C program (exec/raw.c), which is given the arguments' kinds from moat's own table. The programs of the second
// are made here (gen.go, calls.go), from their number alone, and executed by exec/diff.c; one whose transcripts differ is run again, and reduced. The file
// known has the differences that are on purpose.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"moat/syscalls"
)

func main() {
	raw := flag.Bool("raw", false, "raw calls, on moat alone")
	seed := flag.Uint64("seed", 1, "the first `SEED`")
	seconds := flag.Int("seconds", 60, "how long")
	platform := flag.String("platform", "trap", "the platform")
	workers := flag.Int("workers", 4, "processes, or pairs of executors, at a time")
	bin := flag.String("moat", "", "the moat `BINARY`; built if not given")
	diff := flag.Bool("diff", false, "programs on the host and on moat")
	count := flag.Int("count", 0, "at most `N` programs")
	only := flag.String("only", "", "programs of these `FAMILIES` only")
	show := flag.Bool("show", false, "print the first program")
	flag.Parse()
	err := command(*bin, map[bool]string{true: "raw.c", false: "diff.c"}[*raw], func(bin, prog string) error {
		switch {
		case *raw:
			return runRaw(bin, prog, *platform, *seed, *seconds, *workers)
		case *diff:
			return runDiff(bin, prog, *platform, *seed, *seconds, *workers, *count, *only, *show)
		}
		return errors.New("say -raw or -diff")
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "fuzz:", err)
		os.Exit(1)
	}
}

// command builds moat, if it is not given, and a program of exec, and hands both to run.
func command(bin, name string, run func(bin, prog string) error) error {
	dir, err := os.MkdirTemp("", "moat-fuzz-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	// The sentry executes its binary as a nobody.
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	if bin == "" {
		bin = filepath.Join(dir, "moat")
		c := exec.Command("go", "build", "-trimpath", "-o", bin, "moat/cmd/moat")
		c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=mod")
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
	}
	prog := filepath.Join(dir, strings.TrimSuffix(name, ".c"))
	src, err := source(name)
	if err != nil {
		return err
	}
	if out, err := exec.Command("gcc", "-O1", "-w", "-static", "-pthread", "-o", prog, src).CombinedOutput(); err != nil {
		return fmt.Errorf("gcc %s: %w\n%s", src, err, out)
	}
	return run(bin, prog)
}

// source finds a C file from the working directory upwards.
func source(name string) (string, error) {
	for d, _ := os.Getwd(); ; d = filepath.Dir(d) {
		p := filepath.Join(d, "tests/fuzz/exec", name)
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
		if d == "/" {
			return "", fmt.Errorf("tests/fuzz/exec/%s is not below the working directory or one above", name)
		}
	}
}

// signatures are the lines that raw.c reads.
func signatures() *bytes.Buffer {
	var b bytes.Buffer
	for _, r := range syscalls.Rows() {
		fmt.Fprintln(&b, r.Nr, r.Sig)
	}
	return &b
}

// How much the sentry may have grown at the end over what it was after a quarter of the time: caches fill up until then.
const maxGrowthKiB, maxMoreThreads, maxMoreFiles = 256 << 10, 100, 200

func runRaw(bin, prog, platform string, seed uint64, seconds, workers int) error {
	c := exec.Command(bin, "do", "--debug", "--debug-log=/dev/null", "--platform="+platform, "--memory=2G", "--",
		prog, strconv.FormatUint(seed, 10), strconv.Itoa(seconds), strconv.Itoa(workers))
	var out, errs bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = signatures(), &out, &errs
	c.WaitDelay = 5 * time.Second
	start := time.Now()
	if err := c.Start(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	// One that does not end is told to print its goroutines, and killed if it does not even do that.
	late, dead := time.After(time.Duration(seconds)*time.Second+30*time.Second), (<-chan time.Time)(nil)
	hangs := false
	var first, last usage
	for tick := time.NewTicker(time.Second); ; {
		select {
		case <-tick.C:
			if u := usageOf(sentryOf(c.Process.Pid)); u.kib > 0 {
				if last = u; first.kib == 0 && time.Since(start) > time.Duration(seconds)*time.Second/4 {
					first = u
				}
			}
			continue
		case <-late:
			hangs = true
			syscall.Kill(sentryOf(c.Process.Pid), syscall.SIGQUIT)
			dead = time.After(10 * time.Second)
			continue
		case <-dead:
			c.Process.Kill()
			continue
		case err := <-done:
			tick.Stop()
			fmt.Printf("seed %d %s: %s; sentry %s, then %s\n", seed, platform, strings.TrimSpace(out.String()), first, last)
			switch {
			case hangs:
				return fmt.Errorf("seed %d: the sandbox hangs\n%s", seed, tail(errs.String(), 3000))
			case err != nil, !strings.Contains(out.String(), "calls"):
				return fmt.Errorf("seed %d: the sandbox died: %v\n%s", seed, err, panicOf(errs.String()))
			case first.kib > 0 && (last.kib > first.kib+maxGrowthKiB || last.threads > first.threads+maxMoreThreads || last.files > first.files+maxMoreFiles):
				return fmt.Errorf("seed %d: the sentry grew from %s to %s", seed, first, last)
			}
			return nil
		}
	}
}

// panicOf is what a dying sentry says first, which the stacks of all others follow.
func panicOf(s string) string {
	for _, w := range []string{"panic:", "fatal error:"} {
		if i := strings.Index(s, w); i >= 0 {
			l := strings.Split(s[i:], "\n")
			return strings.Join(l[:min(len(l), 60)], "\n")
		}
	}
	return tail(s, 200)
}

func tail(s string, n int) string {
	l := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(l[max(0, len(l)-n):], "\n")
}

// usage is what a process uses: private memory, threads, descriptors.
type usage struct{ kib, threads, files int }

func (u usage) String() string {
	return fmt.Sprintf("%d MiB %d threads %d files", u.kib>>10, u.threads, u.files)
}

func usageOf(pid int) (u usage) {
	st, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for _, l := range strings.Split(string(st), "\n") {
		for name, n := range map[string]*int{"RssAnon:": &u.kib, "Threads:": &u.threads} {
			if v, ok := strings.CutPrefix(l, name); ok {
				*n, _ = strconv.Atoi(strings.Fields(v)[0])
			}
		}
	}
	fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	u.files = len(fds)
	return u
}

// sentryOf is the child of a process that has most memory: the sentry. 0 if there is none.
func sentryOf(pid int) (sentry int) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	most := 0
	for _, f := range strings.Fields(string(b)) {
		p, _ := strconv.Atoi(f)
		if u := usageOf(p); u.kib > most {
			sentry, most = p, u.kib
		}
	}
	return sentry
}
