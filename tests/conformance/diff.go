package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// result is a comparison of two transcripts.
type result struct {
	job            job
	checks, failed int
	wanted, gaps   int // differs on purpose; differs and should not, which is known
	diff           []string
}

// gap begins the reason of a difference that is not wanted, only known.
const gap = "gap: "

// table is the results of a platform.
type table struct {
	platform   string
	host, took time.Duration
	results    []result
}

// edit is a line of a diff: op is ' ' in both, '-' in the first only, '+' in the second only.
type edit struct {
	op   byte
	line string
}

// diff is a shortest edit from a to b, by the longest common subsequence.
func diff(a, b []string) (es []edit) {
	n, m := len(a), len(b)
	l := make([][]int32, n+1)
	for i := range l {
		l[i] = make([]int32, m+1)
	}
	for i := n - 1; i >= 0; i-- {
		for j := m - 1; j >= 0; j-- {
			if a[i] == b[j] {
				l[i][j] = l[i+1][j+1] + 1
			} else {
				l[i][j] = max(l[i+1][j], l[i][j+1])
			}
		}
	}
	i, j := 0, 0
	for i < n || j < m {
		switch {
		case i < n && j < m && a[i] == b[j]:
			es = append(es, edit{' ', a[i]})
			i++
			j++
		case i < n && (j == m || l[i+1][j] >= l[i][j+1]):
			es = append(es, edit{'-', a[i]})
			i++
		default:
			es = append(es, edit{'+', b[j]})
			j++
		}
	}
	return es
}

// judge compares what a job printed on the host and on the platform. A run of lines that differ fails as many checks as its longer side has.
func (s *suite) judge(j job, want, got []string) result {
	r := result{job: j}
	for _, l := range want {
		if !strings.HasPrefix(l, "#") {
			r.checks++
		}
	}
	minus, plus := 0, 0
	flush := func() {
		r.failed += max(minus, plus)
		minus, plus = 0, 0
	}
	for _, e := range diff(want, got) {
		if e.op == ' ' {
			flush()
			if strings.HasPrefix(e.line, "#") {
				r.diff = append(r.diff, "  "+e.line)
			}
			continue
		}
		if d, ok := s.onPurpose(j.program.name(), e.line); ok {
			if strings.HasPrefix(d.reason, gap) {
				r.gaps++
			} else {
				r.wanted++
			}
			r.diff = append(r.diff, fmt.Sprintf("~ %c%s (%s)", e.op, e.line, d.reason))
			continue
		}
		r.diff = append(r.diff, string(e.op)+" "+e.line)
		if e.op == '-' {
			minus++
		} else {
			plus++
		}
	}
	flush()
	return r
}

func (t *table) failed() (n int) {
	for _, r := range t.results {
		n += r.failed
	}
	return n
}

// differences prints the lines that differ, below the headings that they are under.
func (t *table) differences(w io.Writer) {
	for _, r := range t.results {
		head := ""
		if r.failed > 0 {
			fmt.Fprintf(w, "--- %s on the host, +++ on %s\n", r.job.id(), t.platform)
		}
		for _, l := range r.diff {
			if l[0] == ' ' {
				head = l
				continue
			}
			if r.failed == 0 || l[0] == '~' {
				continue
			}
			if head != "" {
				fmt.Fprintln(w, head)
				head = ""
			}
			fmt.Fprintln(w, l)
		}
	}
}

// row is a family's line of the table.
type row struct {
	family                                         string
	programs, runs, checks, all, wanted, gaps, bad int
}

// passed is the checks that are the same. What differs counts a line on each side, so the other columns may add up to more.
func (r row) passed() int { return max(0, r.all-r.bad-(r.gaps+r.wanted+1)/2) }

// rows sums up by family: checks counts each program once, all every run.
func (t *table) rows() (rows []row) {
	at := map[string]int{}
	for _, r := range t.results {
		i, ok := at[r.job.program.family]
		if !ok {
			i = len(rows)
			at[r.job.program.family] = i
			rows = append(rows, row{family: r.job.program.family})
		}
		x := &rows[i]
		x.runs++
		x.all += r.checks
		x.bad += r.failed
		x.wanted += r.wanted
		x.gaps += r.gaps
		if r.job.user == 0 && !r.job.static {
			x.programs++
			x.checks += r.checks
		}
	}
	slices.SortFunc(rows, func(a, b row) int { return strings.Compare(a.family, b.family) })
	sum := row{family: "all"}
	for _, r := range rows {
		sum.programs += r.programs
		sum.runs += r.runs
		sum.checks += r.checks
		sum.all += r.all
		sum.wanted += r.wanted
		sum.gaps += r.gaps
		sum.bad += r.bad
	}
	return append(rows, sum)
}

func (t *table) print(w io.Writer) {
	fmt.Fprintf(w, "%-12s %9s %7s %6s %9s %7s %7s %6s %10s\n", t.platform, "programs", "checks", "runs", "compared", "passed", "failed", "known", "on purpose")
	for _, r := range t.rows() {
		fmt.Fprintf(w, "%-12s %9d %7d %6d %9d %7d %7d %6d %10d\n", r.family, r.programs, r.checks, r.runs, r.all, r.passed(), r.bad, r.gaps, r.wanted)
	}
	fmt.Fprintf(w, "host %.1f s, %s %.1f s\n", t.host.Seconds(), t.platform, t.took.Seconds())
}

// markdown is docs/conformance.md.
func markdown(ts []table) []byte {
	var b strings.Builder
	b.WriteString("# Conformance\n\nWritten by `make conformance`: the programs of `tests/conformance`, run on the host and in a sandbox; what the host's kernel answers is the expected answer.\n" +
		"\"Checks\" counts each program once, \"compared\" every run of it: static and dynamic, as root and, where that differs, as an ordinary user. " +
		"What differs on purpose, and the gaps that are known, are in `tests/conformance/deviations`, with the reasons (lines of either side are counted).\n")
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		fmt.Fprintf(&b, "The host's kernel was Linux %s.\n", unix.ByteSliceToString(u.Release[:]))
	}
	for _, t := range ts {
		fmt.Fprintf(&b, "\n## %s\n\n| family | programs | checks | compared | passed | failed | known gaps | on purpose |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n", t.platform)
		for _, r := range t.rows() {
			fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d | %d | %d |\n", r.family, r.programs, r.checks, r.all, r.passed(), r.bad, r.gaps, r.wanted)
		}
		var left []string
		for _, r := range t.results {
			if r.failed > 0 {
				left = append(left, fmt.Sprintf("`%s` (%d)", r.job.id(), r.failed))
			}
		}
		if left != nil {
			fmt.Fprintf(&b, "\nFailed: %s.\n", strings.Join(left, ", "))
		}
	}
	return []byte(b.String())
}
