package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// program is one C source.
type program struct {
	family, base string
	source       string
	about        string // the first comment of the source
	users        []int  // the uids to run it as
}

func (p program) name() string { return p.family + "/" + p.base }

// deviation is a difference that is wanted: checks of programs that match.
type deviation struct {
	program, check *regexp.Regexp
	reason         string
	line           int
}

// suite is the directory of the programs.
type suite struct {
	root       string // of the module
	dir        string
	programs   []program
	deviations []deviation
}

// open finds the suite from the working directory upwards.
func open() (*suite, error) {
	root, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	for {
		if _, err := os.Stat(filepath.Join(root, "tests/conformance/include/conf.h")); err == nil {
			break
		}
		if root == "/" {
			return nil, errors.New("tests/conformance is not below the working directory or one above")
		}
		root = filepath.Dir(root)
	}
	s := &suite{root: root, dir: filepath.Join(root, "tests/conformance")}
	names, err := filepath.Glob(filepath.Join(s.dir, "*/*.c"))
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		p := program{source: n, family: filepath.Base(filepath.Dir(n)), base: strings.TrimSuffix(filepath.Base(n), ".c"), users: []int{0}}
		if p.family == "driver" {
			continue
		}
		text, err := os.ReadFile(n)
		if err != nil {
			return nil, err
		}
		first, _, _ := strings.Cut(string(text), "\n")
		p.about = strings.TrimPrefix(first, "// ")
		// "// users: root ordinary" in the source asks for a run as each.
		if bytes.Contains(text, []byte("\n// users: root ordinary\n")) {
			p.users = []int{0, 1000}
		}
		s.programs = append(s.programs, p)
	}
	return s, s.readDeviations()
}

// readDeviations reads lines of "PROGRAM CHECK: REASON": two regular expressions without spaces (\s stands for one) and why.
func (s *suite) readDeviations() error {
	name := filepath.Join(s.dir, "deviations")
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	for i, l := range strings.Split(string(text), "\n") {
		if l == "" || l[0] == '#' {
			continue
		}
		what, reason, ok := strings.Cut(l, ": ")
		f := strings.Fields(what)
		if !ok || len(f) != 2 || reason == "" {
			return fmt.Errorf("%s:%d: a line is PROGRAM CHECK: REASON, PROGRAM and CHECK regular expressions without spaces", name, i+1)
		}
		d := deviation{reason: reason, line: i + 1}
		if d.program, err = regexp.Compile("^(?:" + f[0] + ")$"); err == nil {
			d.check, err = regexp.Compile(f[1])
		}
		if err != nil {
			return fmt.Errorf("%s:%d: %w", name, i+1, err)
		}
		s.deviations = append(s.deviations, d)
	}
	return nil
}

// onPurpose is the reason for a difference in a line of a program, if it has one.
func (s *suite) onPurpose(program, line string) (deviation, bool) {
	for _, d := range s.deviations {
		if d.program.MatchString(program) && d.check.MatchString(line) {
			return d, true
		}
	}
	return deviation{}, false
}

func (s *suite) binary(p program, static bool) string {
	b := filepath.Join(s.root, "build/conformance", p.family+"-"+p.base)
	if static {
		b += "-static"
	}
	return b
}

// build compiles what is older than its source.
func (s *suite) build(ps []program, static bool) error {
	if err := os.MkdirAll(filepath.Join(s.root, "build/conformance"), 0o755); err != nil {
		return err
	}
	ps = append(slices.Clone(ps), program{family: "driver", base: "driver", source: filepath.Join(s.dir, "driver/driver.c")})
	slots := make(chan struct{}, runtime.NumCPU())
	var wg sync.WaitGroup
	var mu sync.Mutex
	var all error
	for _, p := range ps {
		for _, st := range []bool{false, true} {
			// The driver is static; the rest is what was asked for.
			if (p.family == "driver") != st && (p.family == "driver" || st && !static) {
				continue
			}
			wg.Add(1)
			slots <- struct{}{}
			go func() {
				defer func() { <-slots; wg.Done() }()
				if err := s.compile(p, st); err != nil {
					mu.Lock()
					all = errors.Join(all, err)
					mu.Unlock()
				}
			}()
		}
	}
	wg.Wait()
	return all
}

func (s *suite) compile(p program, static bool) error {
	out := s.binary(p, static)
	if b, err := os.Stat(out); err == nil {
		old := false
		for _, n := range []string{p.source, filepath.Join(s.dir, "include/conf.h")} {
			if st, err := os.Stat(n); err != nil || st.ModTime().After(b.ModTime()) {
				old = true
			}
		}
		if !old {
			return nil
		}
	}
	args := []string{"-O1", "-w", "-fno-diagnostics-show-caret", "-ftrack-macro-expansion=0", "-pthread", "-I", filepath.Join(s.dir, "include"), "-o", out + ".new", p.source, "-lrt", "-lutil"}
	if static {
		args = append(args, "-static")
	}
	if msg, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("gcc %s: %w\n%s", p.source, err, msg)
	}
	return os.Rename(out+".new", out)
}
