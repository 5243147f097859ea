package main

import (
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"moat/sentry/boot"
)

// sample is what runs on ptrace too: what depends on how a platform runs guest threads.
var sample = regexp.MustCompile(`^(memory|signals|futex)/|/(fork|exec|sig|clone)`)

// TestConformance compares every program on trap, and a sample on ptrace, with the host.
func TestConformance(t *testing.T) {
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("gcc is not installed (make deps)")
	}
	s, err := open()
	if err != nil {
		t.Fatal(err)
	}
	for _, platform := range []string{"trap", "ptrace"} {
		t.Run(platform, func(t *testing.T) {
			if !slices.Contains(boot.Platforms(), platform) {
				t.Skip("not built in")
			}
			ps := s.programs
			if platform == "ptrace" {
				ps = slices.DeleteFunc(slices.Clone(ps), func(p program) bool { return !sample.MatchString(p.name()) })
			}
			table, err := s.compare(ps, platform, options{jobs: 4})
			if err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			table.print(&b)
			t.Log("\n" + b.String())
			if table.failed() == 0 {
				return
			}
			// A machine that is busy elsewhere is not moat's fault: what failed is tried once more, one at a time.
			var again []program
			for _, r := range table.results {
				if r.failed > 0 && !slices.ContainsFunc(again, func(p program) bool { return p.name() == r.job.program.name() }) {
					again = append(again, r.job.program)
				}
			}
			table, err = s.compare(again, platform, options{jobs: 1})
			if err != nil {
				t.Fatal(err)
			}
			if table.failed() > 0 {
				b.Reset()
				table.differences(&b)
				t.Errorf("differs from the host\n%s", b.String())
			}
		})
	}
}

func TestDiff(t *testing.T) {
	s := &suite{deviations: []deviation{{program: regexp.MustCompile("^a/b$"), check: regexp.MustCompile("^wanted"), reason: "so"}}}
	j := job{program: program{family: "a", base: "b"}}
	r := s.judge(j, strings.Split("# h\none\ntwo\nthree\nwanted: 1", "\n"), strings.Split("# h\none\nzwei\ndrei\nthree\nwanted: 2", "\n"))
	if r.checks != 4 || r.failed != 2 || r.wanted != 2 {
		t.Errorf("checks %d failed %d on purpose %d, want 4 2 2: %q", r.checks, r.failed, r.wanted, r.diff)
	}
	if r := s.judge(j, []string{"one", "two"}, nil); r.failed != 2 {
		t.Errorf("nothing printed: %d failed, want 2", r.failed)
	}
}

func TestParse(t *testing.T) {
	out := map[string][]string{}
	if err := parse(strings.NewReader("+ a\n= a 4\nx\ny\n"), out); err != nil || !slices.Equal(out["a"], []string{"x", "y"}) {
		t.Errorf("%v %q", err, out)
	}
	for _, bad := range []string{"driver: x\n", "= a 9\nx\n", "= a -1\n", "+\n"} {
		if err := parse(strings.NewReader(bad), out); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}
