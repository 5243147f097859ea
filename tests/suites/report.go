package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
)

// report is what is told of a suite.
type report struct {
	suite *suite
	name  string
	units []unit
	// all has the results by runtime.
	all map[string]results
	// differences has a line for each test that passes on the host and not elsewhere, by runtime.
	differences map[string][]string
	explained   []string
}

// compare finds what passes on the host and not in moat, and returns how many of these have no reason.
func (r *report) compare(ks []*known) (unexplained int) {
	r.differences = map[string][]string{}
	byReason := map[string]int{}
	for _, rt := range allRuntimes[1:] {
		for _, u := range r.units {
			host, have := r.all["host"][u.name]
			mine, ran := r.all[rt][u.name]
			if !ran {
				continue
			}
			add := func(test, what string) {
				text := fmt.Sprintf("%s: %s: %s: %s", rt, u.name, test, what)
				if strings.HasPrefix(rt, "moat") {
					why := reason(ks, u.name, test)
					if why == "" {
						unexplained++
						why = "WITHOUT A REASON"
					} else if rt == "moat" {
						byReason[why]++
					}
					text += ": " + why
				}
				r.differences[rt] = append(r.differences[rt], text)
			}
			if mine.Broken != "" && (!have || host.Broken == "") {
				add("-", mine.Broken)
			}
			for _, t := range slices.Sorted(maps.Keys(host.Tests)) {
				if host.Tests[t] != ok || mine.Tests[t] == ok || mine.Broken != "" && mine.Tests[t] == "" {
					continue
				}
				what := mine.Tests[t]
				if what == "" {
					what = "did not run"
				}
				add(t, what)
			}
			for _, t := range slices.Sorted(maps.Keys(mine.Tests)) {
				if mine.Tests[t] == failed && (!have || host.Tests[t] == "") {
					add(t, "failed (did not run on the host)")
				}
			}
		}
	}
	for _, why := range slices.Sorted(maps.Keys(byReason)) {
		r.explained = append(r.explained, fmt.Sprintf("- %d: %s", byReason[why], why))
	}
	return unexplained
}

func (r *report) table() string {
	var b strings.Builder
	b.WriteString("| runtime | units | passed | failed | skipped | units not whole | pass on the host and not here | passed in the units that all ran whole |\n" +
		"| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	for _, rt := range allRuntimes {
		rs := r.all[rt]
		if len(rs) == 0 {
			continue
		}
		var c counts
		broken, common := 0, 0
		for u, o := range rs {
			n := o.count()
			if r.everywhere(u) {
				common += n.ok
			}
			c.ok, c.failed, c.skipped = c.ok+n.ok, c.failed+n.failed, c.skipped+n.skipped
			if o.Broken != "" {
				broken++
			}
		}
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d | %d | %d |\n", rt, len(rs), c.ok, c.failed, c.skipped, broken, len(r.differences[rt]), common)
	}
	return b.String()
}

// everywhere reports whether all runtimes that have results have whole ones of a unit.
func (r *report) everywhere(unit string) bool {
	for _, rs := range r.all {
		if o, ran := rs[unit]; len(rs) > 0 && (!ran || o.Broken != "") {
			return false
		}
	}
	return true
}

// list has what differs, a line each.
func (r *report) list() string {
	var b strings.Builder
	for _, rt := range allRuntimes {
		for _, d := range r.differences[rt] {
			b.WriteString(d + "\n")
		}
	}
	return b.String()
}

const docHead = `# Suites that others wrote

Written by ` + "`make suites`" + `: the same programs natively in namespaces and an overlay ("host"), in runsc on systrap, and in moat. A unit that timed out or died counts as one failure,
and its tests that did not run count nowhere. What passes on the host and not in moat is in ` + "`tests/suites/known`" + `, with the reason.
`

// write replaces the suite's part of a document, a section under its name.
func (r *report) write(file string) error {
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parts := map[string]string{}
	head := regexp.MustCompile(`(?m)^## (\w+)$`)
	at := head.FindAllSubmatchIndex(old, -1)
	for i, m := range at {
		end := len(old)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		parts[string(old[m[2]:m[3]])] = string(old[m[0]:end])
	}
	var ran []string
	for _, u := range r.units {
		if _, ok := r.all["moat"][u.name]; ok {
			ran = append(ran, u.name)
		}
	}
	about := r.suite.about + "."
	if len(ran) < len(r.units) {
		about += " Of its " + fmt.Sprint(len(r.units)) + " units these ran: " + strings.Join(ran, ", ") + "."
	}
	mine := fmt.Sprintf("## %s\n\n%s\n\n%s\n", r.name, about, r.table())
	if len(r.explained) > 0 {
		mine += "Not as on the host in moat:\n\n" + strings.Join(r.explained, "\n") + "\n\n"
	}
	parts[r.name] = mine
	b := docHead + "\n"
	for _, n := range order {
		if parts[n] != "" {
			b += strings.TrimRight(parts[n], "\n") + "\n\n"
		}
	}
	return os.WriteFile(file, []byte(strings.TrimRight(b, "\n")+"\n"), 0o644)
}
