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
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
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

// maxGrowth is how much larger the sentry may be at the end than it was after a quarter of the time, in KiB: caches fill up until then.
const maxGrowth = 256 << 10

func runRaw(bin, prog, platform string, seed uint64, seconds, workers int) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(seconds)*time.Second+time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, bin, "do", "--debug", "--debug-log=/dev/null", "--platform="+platform, "--memory=2G", "--",
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
	first, last := 0, 0
	for tick := time.NewTicker(time.Second); ; {
		select {
		case <-tick.C:
			if n := resident(c.Process.Pid); n > 0 {
				if last = n; first == 0 && time.Since(start) > time.Duration(seconds)*time.Second/4 {
					first = n
				}
			}
			continue
		case err := <-done:
			tick.Stop()
			fmt.Printf("seed %d %s: %s, sentry %d MiB then %d MiB\n", seed, platform, strings.TrimSpace(out.String()), first>>10, last>>10)
			switch {
			case ctx.Err() != nil:
				return fmt.Errorf("seed %d: the sandbox hangs", seed)
			case err != nil, !strings.Contains(out.String(), "calls"):
				return fmt.Errorf("seed %d: the sandbox died: %v\n%s", seed, err, tail(errs.String(), 200))
			case first > 0 && last > first+maxGrowth:
				return fmt.Errorf("seed %d: the sentry grew from %d to %d MiB", seed, first>>10, last>>10)
			}
			return nil
		}
	}
}

func tail(s string, n int) string {
	l := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(l[max(0, len(l)-n):], "\n")
}

// resident is the private memory, in KiB, of the largest child of a process: the sentry.
func resident(pid int) (most int) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for _, f := range strings.Fields(string(b)) {
		st, _ := os.ReadFile("/proc/" + f + "/status")
		for _, l := range strings.Split(string(st), "\n") {
			if v, ok := strings.CutPrefix(l, "RssAnon:"); ok {
				n, _ := strconv.Atoi(strings.Fields(v)[0])
				most = max(most, n)
			}
		}
	}
	return most
}
