package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// executor is a process that executes programs (exec/diff.c), on the host or in moat.
type executor struct {
	argv   []string
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	errs   *tailBuffer
	deaths int
}

// tailBuffer keeps the end of what is written to it.
type tailBuffer struct {
	mu sync.Mutex
	b  []byte
}

func (t *tailBuffer) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.b = append(t.b, p...); len(t.b) > 1<<20 {
		t.b = slices.Clone(t.b[len(t.b)-1<<19:])
	}
	return len(p), nil
}

func (e *executor) start() error {
	e.cmd = exec.Command(e.argv[0], e.argv[1:]...)
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	e.errs = &tailBuffer{}
	e.cmd.Stderr = e.errs
	e.cmd.WaitDelay = 2 * time.Second
	var err error
	if e.in, err = e.cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := e.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	e.out = bufio.NewReaderSize(out, 1<<16)
	return e.cmd.Start()
}

// stop ends the executor; the next program gets a new one.
func (e *executor) stop() {
	if e.cmd == nil {
		return
	}
	e.in.Close()
	done := make(chan struct{})
	go func() { e.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(3 * time.Second):
		e.cmd.Process.Kill()
		<-done
	}
	e.cmd = nil
}

// patience is how long a program may take.
const patience = 10 * time.Minute

// A call that sleeps for hasty waits, perhaps: programs are compared with it first, and again with steady if they differ.
const hasty, steady = 1 * time.Millisecond, 25 * time.Millisecond

var errDied = errors.New("the executor died")

// run executes p and returns a line for each call. errDied is the executor's death, or that it hangs; its last words come with it.
func (e *executor) run(p program, quiet time.Duration) ([]string, error) {
	if e.cmd == nil {
		if err := e.start(); err != nil {
			return nil, err
		}
	}
	hangs := false
	cmd := e.cmd
	t := time.AfterFunc(patience, func() {
		// moat's sentry prints its goroutines first.
		hangs = true
		if s := sentryOf(cmd.Process.Pid); s > 0 {
			syscall.Kill(s, syscall.SIGQUIT)
			time.Sleep(5 * time.Second)
		}
		cmd.Process.Kill()
	})
	defer t.Stop()
	lines, err := func() ([]string, error) {
		if _, err := io.WriteString(e.in, p.text(quiet)); err != nil {
			return nil, err
		}
		h, err := e.out.ReadString('\n')
		if err != nil {
			return nil, err
		}
		var st, n int
		if _, err := fmt.Sscanf(h, "= %d %d", &st, &n); err != nil || n > 1<<24 {
			return nil, fmt.Errorf("the executor wrote %q", h)
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(e.out, b); err != nil {
			return nil, err
		}
		l := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
		if st != 0 {
			l[len(l)-1] += fmt.Sprintf(" (the controller ended: %d)", st>>8)
		}
		return canonical(l), nil
	}()
	if err != nil {
		e.deaths++
		e.stop()
		what, words := "died", 60
		if hangs {
			what, words = "hangs", 2000
		}
		return nil, fmt.Errorf("%w (%s): %v\n%s", errDied, what, err, tail(string(e.errs.b), words))
	}
	return lines, nil
}

var identity = regexp.MustCompile(`\b[IAD]\d+(\.\d+)?`)

// canonical numbers identities and addresses by their first appearance.
func canonical(lines []string) []string {
	seen := map[string]string{}
	for i, l := range lines {
		lines[i] = identity.ReplaceAllStringFunc(l, func(s string) string {
			if seen[s] == "" {
				seen[s] = fmt.Sprintf("%c#%d", s[0], len(seen))
			}
			return seen[s]
		})
	}
	return lines
}

// knownDifference is a line of the file known.
type knownDifference struct {
	re     *regexp.Regexp
	reason string
	n      int
}

func readKnown(file string) ([]*knownDifference, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var ks []*knownDifference
	for i, l := range strings.Split(string(b), "\n") {
		if l == "" || l[0] == '#' {
			continue
		}
		re, reason, ok := strings.Cut(l, ": ")
		if !ok {
			return nil, fmt.Errorf("%s:%d: not REGEX: REASON", file, i+1)
		}
		r, err := regexp.Compile(re)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, i+1, err)
		}
		ks = append(ks, &knownDifference{re: r, reason: reason})
	}
	return ks, nil
}

// difference is how the transcripts of a program differ first.
type difference struct {
	at         int
	host, moat string
	known      *knownDifference
}

func (d *difference) describe(p program) string {
	return fmt.Sprintf("%s\n      host %.600s\n      moat %.600s", p.show(d.at), d.host, d.moat)
}

var result = regexp.MustCompile(`\$\d+`)

// origins is args with the calls that made them for the results of others: "$socketpair.1".
func (p program) origins(args string) string {
	return result.ReplaceAllStringFunc(args, func(s string) string {
		n, _ := strconv.Atoi(s[1:])
		return "$" + p.calls[n].t.name
	})
}

// head is the first word of a result, numbers above errnos left out.
func head(s string) string {
	f := strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == '<' })
	if len(f) == 0 {
		return ""
	}
	return f[0]
}

// commands are the arguments of a call that say what it does.
var commands = map[string][]int{"ioctl": {1}, "fcntl": {1}, "prctl": {0}, "futex": {1}, "madvise": {2}, "setsockopt": {1, 2}, "getsockopt": {1, 2}, "semctl": {2}, "shmctl": {1}, "msgctl": {1}}

// kind is a call's name and its command, by which differences are told apart.
func (c *call) kind() string {
	k := c.t.name
	for _, i := range commands[k] {
		k += " " + c.args[i]
	}
	return k
}

// pair is a host's and moat's executor.
type pair struct {
	host, moat executor
	known      []*knownDifference
	quiet      time.Duration
}

// compare runs p on both and returns the first difference that is not known, or else the first that is, or nil.
func (x *pair) compare(p program) (*difference, error) {
	var h []string
	var herr error
	done := make(chan struct{})
	go func() { h, herr = x.host.run(p, x.quiet); close(done) }()
	m, err := x.moat.run(p, x.quiet)
	<-done
	if herr != nil {
		return nil, fmt.Errorf("host: %w\n%s", herr, p)
	}
	if errors.Is(err, errDied) {
		fmt.Printf("%v\n%s", err, p)
		return &difference{at: len(p.calls) - 1, host: "goes on", moat: err.Error()}, nil
	}
	if err != nil {
		return nil, err
	}
	var first *difference
	for i := range p.calls {
		if i >= len(h) || i >= len(m) {
			return nil, fmt.Errorf("transcripts of %d and %d lines", len(h), len(m))
		}
		if h[i] == m[i] {
			continue
		}
		d := &difference{at: i, host: h[i], moat: m[i]}
		line := fmt.Sprintf("%s(%s) => %s | %s", p.calls[i].t.name, p.origins(strings.Join(readable(p.calls[i].args), ", ")), h[i], m[i])
		for _, k := range x.known {
			if k.re.MatchString(line) {
				d.known = k
				break
			}
		}
		if d.known == nil {
			return d, nil
		}
		if first == nil {
			first = d
		}
		// What follows may rest on it, so only small deviations are worth going on after.
		if !strings.HasPrefix(d.known.reason, "(goes on) ") {
			break
		}
	}
	return first, nil
}

// same reports whether p still shows a difference like d.
func (x *pair) same(p program, name string, d *difference) (*difference, bool) {
	if len(p.calls) == 0 {
		return nil, false
	}
	e, err := x.compare(p)
	if err != nil {
		fmt.Printf("while a program was reduced: %v\n", err)
	}
	if err != nil || e == nil || e.known != nil || p.calls[e.at].t.name != name && e.host != "goes on" || (e.host == "goes on") != (d.host == "goes on") {
		return nil, false
	}
	return e, true
}

// reduce makes p as small as it goes while it still shows a difference like d.
func (x *pair) reduce(p program, d *difference) (program, *difference) {
	name := p.calls[d.at].t.name
	try := func(q program) bool {
		if e, ok := x.same(q, name, d); ok {
			p, d = q, e
			return true
		}
		return false
	}
	if d.at+1 < len(p.calls) {
		try(p.without(d.at+1, len(p.calls)))
	}
	for n := max(1, len(p.calls)/2); ; n /= 2 {
		for i := len(p.calls) - n; i > -n; i -= n {
			if lo := max(i, 0); lo+min(n, n+i) <= len(p.calls) {
				try(p.without(lo, lo+min(n, n+i)))
			}
		}
		if n == 1 {
			break
		}
	}
	if p.user != 0 {
		q := p
		q.user = 0
		try(q)
	}
	for i := range p.calls {
		if p.calls[i].actor != 0 {
			q := program{user: p.user, calls: slices.Clone(p.calls)}
			q.calls[i].actor = 0
			try(q)
		}
	}
	return p, d
}

// bucket is the differences that look alike.
type bucket struct {
	n     int
	seeds []uint64
	small program
	d     *difference
}

type diffStats struct {
	mu                      sync.Mutex
	programs, calls, differ int
	known, unstable, deaths int
	buckets                 map[string]*bucket
}

// runDiff compares programs from seed on, for seconds, with jobs pairs of executors.
func runDiff(moat, prog, platform string, seed uint64, seconds, jobs, count int, only string, show bool) error {
	src, err := source("diff.c")
	if err != nil {
		return err
	}
	ks, err := readKnown(filepath.Join(filepath.Dir(filepath.Dir(src)), "known"))
	if err != nil {
		return err
	}
	if show {
		fmt.Print(generate(seed, only))
		fmt.Print(generate(seed, only).text(steady))
	}
	st := &diffStats{buckets: map[string]*bucket{}}
	end := time.Now().Add(time.Duration(seconds) * time.Second)
	start := time.Now()
	next := seed
	var wg sync.WaitGroup
	errs := make(chan error, jobs)
	for range jobs {
		wg.Add(1)
		go func() {
			defer wg.Done()
			x := &pair{known: ks}
			x.host.argv = []string{prog}
			x.moat.argv = []string{moat, "do", "--debug", "--debug-log=/dev/null", "--platform=" + platform, "--", prog}
			defer x.host.stop()
			defer x.moat.stop()
			for time.Now().Before(end) {
				st.mu.Lock()
				s := next
				next++
				st.mu.Unlock()
				if count > 0 && s >= seed+uint64(count) {
					return
				}
				if err := x.one(s, only, st); err != nil {
					errs <- fmt.Errorf("seed %d: %w", s, err)
					return
				}
			}
		}()
	}
	wg.Wait()
	st.report(seed, platform, time.Since(start), ks)
	select {
	case err := <-errs:
		return err
	default:
	}
	if len(st.buckets) > 0 || st.deaths > 0 {
		return fmt.Errorf("%d kinds of difference", len(st.buckets))
	}
	return nil
}

// one compares the program of a seed and keeps what differs, reduced if it is the first of its kind.
func (x *pair) one(s uint64, only string, st *diffStats) error {
	p := generate(s, only)
	x.quiet = hasty
	d, err := x.compare(p)
	if err != nil {
		return err
	}
	unstable := false
	if d != nil && d.known == nil && d.host != "goes on" {
		// A difference that is not there again is of the time, not of the kernel.
		x.quiet = steady
		if d, err = x.compare(p); err != nil {
			return err
		}
		unstable = d == nil
	}
	st.mu.Lock()
	if unstable {
		st.unstable++
	}
	st.programs++
	st.calls += len(p.calls)
	if d != nil && d.known != nil {
		st.known++
		d.known.n++
		d = nil
	}
	st.mu.Unlock()
	if d == nil {
		return nil
	}
	dead := d.host == "goes on"
	if !dead {
		e, ok := x.same(p, p.calls[d.at].t.name, d)
		if !ok || e.at != d.at || e.host != d.host || e.moat != d.moat {
			st.mu.Lock()
			st.unstable++
			st.mu.Unlock()
			return nil
		}
	}
	key := p.calls[d.at].kind() + " " + head(d.host) + " " + head(d.moat)
	if dead {
		key = "death"
	}
	st.mu.Lock()
	st.differ++
	b := st.buckets[key]
	if b == nil {
		b = &bucket{}
		st.buckets[key] = b
	}
	b.n++
	b.seeds = append(b.seeds, s)
	first := b.n == 1 || dead && b.n < 4
	if dead {
		st.deaths++
	}
	st.mu.Unlock()
	if !first {
		return nil
	}
	q, e := x.reduce(p, d)
	st.mu.Lock()
	b.small, b.d = q, e
	fmt.Printf("seed %d:\n%s   %s\n", s, q, e.describe(q))
	st.mu.Unlock()
	return nil
}

func (st *diffStats) report(seed uint64, platform string, took time.Duration, ks []*knownDifference) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "seed %d %s: programs %d calls %d in %.0f s; differences %d of %d kinds, known %d, unstable %d, deaths %d\n", seed, platform, st.programs, st.calls, took.Seconds(),
		st.differ, len(st.buckets), st.known, st.unstable, st.deaths)
	keys := make([]string, 0, len(st.buckets))
	for k := range st.buckets {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int { return st.buckets[b].n - st.buckets[a].n })
	for _, k := range keys {
		x := st.buckets[k]
		fmt.Fprintf(&b, "%5d %s (seeds %s)\n", x.n, k, strings.Join(ints(x.seeds[:min(3, len(x.seeds))]), " "))
	}
	for _, k := range ks {
		if k.n > 0 {
			fmt.Fprintf(&b, "%5d known: %s\n", k.n, k.reason)
		}
	}
	os.Stdout.Write(b.Bytes())
}

func ints(v []uint64) (s []string) {
	for _, n := range v {
		s = append(s, strconv.FormatUint(n, 10))
	}
	return s
}
