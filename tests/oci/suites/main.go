package main

import (
	"bytes"
	"context"
	_ "embed"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// suite is one collection of test programs.
type suite struct {
	// prepare fetches and builds it in dir, unless that was done, and returns the programs' names.
	prepare func(dir string) ([]string, error)
	// command runs one program for the runtime, a script that takes a runtime's arguments.
	command func(ctx context.Context, dir, program, runtime string) *exec.Cmd
	// parallel is how many programs may run at once.
	parallel int
}

var suites = map[string]*suite{"runtime-tools": &runtimeTools, "runc": &runcTests}

// longest is how long one program may take.
const longest = 3 * time.Minute

//go:embed known.txt
var knownText string

// known is a failure with its reason.
type known struct {
	suite, program, reason string
	assertion              *regexp.Regexp
	used                   bool
}

func readKnown() (ks []*known, err error) {
	for i, line := range strings.Split(knownText, "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.Split(line, "\t")
		if len(f) != 4 {
			return nil, fmt.Errorf("known.txt:%d: there are %d fields, not four", i+1, len(f))
		}
		re, err := regexp.Compile(f[2])
		if err != nil {
			return nil, fmt.Errorf("known.txt:%d: %w", i+1, err)
		}
		ks = append(ks, &known{suite: f[0], program: f[1], assertion: re, reason: f[3]})
	}
	return ks, nil
}

// result is what one program said.
type result struct {
	ok, skipped int
	failed      []string
	output      []byte
}

var assertion = regexp.MustCompile(`(?m)^(ok|not ok) +[0-9]+ *-? *(.*)$`)

// parse counts the lines of the Test Anything Protocol. Most programs end with status 0 whatever they say; one that does not, and names no failure, is
// a failure itself.
func parse(out []byte, err error) (r result) {
	r.output = out
	for _, m := range assertion.FindAllSubmatch(out, -1) {
		text := string(m[2])
		switch {
		case strings.Contains(strings.ToLower(text), "# skip"):
			r.skipped++
		case string(m[1]) == "ok":
			r.ok++
		default:
			r.failed = append(r.failed, text)
		}
	}
	if err != nil && len(r.failed) == 0 {
		r.failed = []string{err.Error()}
	}
	return r
}

func main() {
	name := flag.String("suite", "runtime-tools", "runtime-tools or runc")
	runtimes := flag.String("runtimes", "bin/moat,runc", "the runtimes; those that are not installed are left out")
	args := flag.String("args", "", "arguments for moat before the verb")
	dir := flag.String("dir", "build/suites", "directory to build in and to leave the programs' output in")
	only := flag.String("run", "", "regular expression of the programs to run")
	flag.Parse()
	s := suites[*name]
	if s == nil || os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "suites: run it as root, with -suite runtime-tools or -suite runc")
		os.Exit(2)
	}
	if os.Getenv(insideEnv) == "" {
		os.Exit(again())
	}
	if err := run(s, *name, strings.Split(*runtimes, ","), strings.Fields(*args), *dir, *only); err != nil {
		fmt.Fprintln(os.Stderr, "suites:", err)
		os.Exit(1)
	}
}

// insideEnv is set in the mount namespace with cgroups of its own.
const insideEnv = "MOAT_SUITES_INSIDE"

const ownCgroups = `mount --make-rprivate /
umount /sys/fs/cgroup/unified 2>/dev/null
if [ "$(stat -f -c %T /sys/fs/cgroup)" = tmpfs ]; then
	m=$(mktemp -d); mount -t tmpfs -o mode=755 cgroup $m
	for c in /sys/fs/cgroup/*/; do mkdir $m/${c#/sys/fs/cgroup/} && mount --bind $c $m/${c#/sys/fs/cgroup/}; done
	umount -l /sys/fs/cgroup && mount --move $m /sys/fs/cgroup && rmdir $m
fi
exec "$@"`

// again runs this command in a mount namespace of its own.
func again() int {
	c := exec.Command("unshare", append([]string{"-m", "bash", "-c", ownCgroups, "bash", "/proc/self/exe"}, os.Args[1:]...)...)
	if exe, err := os.Executable(); err == nil {
		c.Args[6] = exe
	}
	c.Env = append(os.Environ(), insideEnv+"=1")
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := c.Run(); err != nil {
		return 1
	}
	return 0
}

func run(s *suite, name string, runtimes, args []string, dir, only string) error {
	re, err := regexp.Compile(only)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	ks, err := readKnown()
	if err != nil {
		return err
	}
	if dir, err = filepath.Abs(filepath.Join(dir, name)); err != nil {
		return err
	}
	programs, err := s.prepare(dir)
	if err != nil {
		return err
	}
	programs = slices.DeleteFunc(programs, func(p string) bool { return !re.MatchString(p) })
	var list strings.Builder
	unexplained := 0
	fmt.Print("| runtime | programs | all ok | assertions ok | not ok | skipped |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, rt := range runtimes {
		script, err := wrap(dir, rt, args)
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s is left out: %v\n", rt, err)
			continue
		}
		results := s.run(dir, script, filepath.Base(rt), programs)
		var all result
		passed := 0
		for i, r := range results {
			all.ok, all.skipped, all.failed = all.ok+r.ok, all.skipped+r.skipped, append(all.failed, r.failed...)
			if len(r.failed) == 0 && r.ok+r.skipped > 0 {
				passed++
			}
			for _, f := range r.failed {
				reason := "?"
				if filepath.Base(rt) == "moat" {
					if reason = find(ks, name, programs[i], f); reason == "" {
						unexplained++
						reason = "WITHOUT A REASON"
					}
				}
				fmt.Fprintf(&list, "%s: %s: %s: %s\n", filepath.Base(rt), programs[i], f, reason)
			}
		}
		fmt.Printf("| %s | %d | %d | %d | %d | %d |\n", filepath.Base(rt), len(programs), passed, all.ok, len(all.failed), all.skipped)
	}
	fmt.Printf("\n%s", list.String())
	for _, k := range ks {
		if k.suite == name && !k.used && slices.Contains(programs, k.program) {
			fmt.Printf("known.txt: %s: %s: does not happen\n", k.program, k.assertion)
		}
	}
	if unexplained > 0 {
		return fmt.Errorf("%d failures have no reason in known.txt", unexplained)
	}
	return nil
}

func find(ks []*known, suite, program, text string) string {
	for _, k := range ks {
		if k.suite == suite && k.program == program && k.assertion.MatchString(text) {
			k.used = true
			return k.reason
		}
	}
	return ""
}

// wrap makes a script that is the runtime with a directory for its state.
func wrap(dir, rt string, args []string) (string, error) {
	path, err := exec.LookPath(rt)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return "", err
	}
	script := filepath.Join(dir, "runtime", filepath.Base(rt))
	if err := os.MkdirAll(filepath.Dir(script), 0o755); err != nil {
		return "", err
	}
	state := filepath.Join(dir, "state-"+filepath.Base(rt))
	if err := os.MkdirAll(state, 0o711); err != nil {
		return "", err
	}
	if filepath.Base(rt) != "moat" {
		args = nil
	}
	text := fmt.Sprintf("#!/bin/sh\nexec %s --root %s %s \"$@\"\n", path, state, strings.Join(args, " "))
	return script, os.WriteFile(script, []byte(text), 0o755)
}

// run runs the programs and leaves what they print in dir/output/RUNTIME.
func (s *suite) run(dir, script, rt string, programs []string) []result {
	results := make([]result, len(programs))
	slots := make(chan struct{}, s.parallel)
	logs := filepath.Join(dir, "output", rt)
	os.MkdirAll(logs, 0o755)
	var wg sync.WaitGroup
	for i, p := range programs {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(context.Background(), longest)
			defer cancel()
			c := s.command(ctx, dir, p, script)
			c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
			c.WaitDelay = 5 * time.Second
			var out, errs bytes.Buffer
			c.Stdout, c.Stderr = &out, &errs
			err := c.Run()
			results[i] = parse(out.Bytes(), err)
			os.WriteFile(filepath.Join(logs, p+".tap"), append(out.Bytes(), errs.Bytes()...), 0o644)
		})
	}
	wg.Wait()
	return results
}

// module downloads a module and copies it to dir, where it may be changed.
func module(path, version, dir string) error {
	c := exec.Command("go", "mod", "download", "-json", path+"@"+version)
	c.Dir = os.TempDir()
	out, err := c.Output()
	m := regexp.MustCompile(`"Dir": "([^"]+)"`).FindSubmatch(out)
	if err != nil || m == nil {
		return fmt.Errorf("go mod download %s@%s: %w: %s", path, version, err, out)
	}
	return command("", "sh", "-c", `mkdir -p "$2" && cp -r "$1/." "$2" && chmod -R u+w "$2"`, "sh", string(m[1]), dir)
}

// command runs a command in dir.
func command(dir string, args ...string) error {
	c := exec.Command(args[0], args[1:]...)
	c.Dir = dir
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=mod -trimpath")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}
