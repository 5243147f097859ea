package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

// The parts of a report.
const (
	partCalls    = "calls"
	partPrograms = "programs"
	partInside   = "inside"
	partSandbox  = "sandbox"
	partMemory   = "memory"
	partNetwork  = "network"
)

var anything = regexp.MustCompile("")

// samples are figures by part, case and runner: nanoseconds, or bytes in partMemory.
type samples map[string]map[string]map[string][]float64

func (s samples) add(part, runner, name string, v float64) {
	if s[part] == nil {
		s[part] = map[string]map[string][]float64{}
	}
	if s[part][name] == nil {
		s[part][name] = map[string][]float64{}
	}
	s[part][name][runner] = append(s[part][name][runner], v)
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}

// report writes the tables; with a directory also the raw figures and the plot.
func report(b *bench, out string) {
	head := fmt.Sprintf("%s, %d CPUs, %d rounds, %s.", host(), runtime.NumCPU(), b.rounds, time.Now().Format("2006-01-02"))
	var md bytes.Buffer
	fmt.Fprintf(&md, "# moat beside native, runc and runsc\n\n%s `make bench` made this page.\n\n", head)
	md.WriteString("Medians; a number behind a figure is its multiple of native's median in the same run. \"to runsc\" is how many times as fast (as small) as runsc moat's trap platform is.\n" +
		"Programs are measured with the start and end of their sandbox, which is new and knows no file yet, and in the same run from their own start to their end by a clock inside. Absolute times are the machine's; the ratios are what to read.\n")
	for _, p := range []struct{ part, title string }{
		{partCalls, "Calls and hand-overs"}, {partInside, "Programs, from their start to their end"},
		{partPrograms, "Programs, with the start and end of a sandbox"}, {partSandbox, "The sandbox"}, {partNetwork, "Network"}, {partMemory, "Memory"},
	} {
		if len(b.all[p.part]) > 0 {
			fmt.Fprintf(&md, "\n## %s\n\n", p.title)
			b.table(&md, p.part)
		}
	}
	if out == "" {
		os.Stdout.Write(md.Bytes())
		return
	}
	check(os.MkdirAll(out, 0o755))
	md.WriteString("\n![moat and runsc as multiples of native](plot.svg)\n")
	check(os.WriteFile(filepath.Join(out, "README.md"), md.Bytes(), 0o644))
	js, err := json.MarshalIndent(map[string]any{"host": head, "samples": b.all}, "", " ")
	check(err)
	check(os.WriteFile(filepath.Join(out, "results.json"), append(js, '\n'), 0o644))
	check(plotRatios(b, filepath.Join(out, "plot.svg")))
	os.Stdout.Write(md.Bytes())
}

// table prints a part's cases, those that native does fastest first.
func (b *bench) table(w *bytes.Buffer, part string) {
	cases := b.all[part]
	w.WriteString("| case |")
	for i, r := range b.runners {
		fmt.Fprintf(w, " %s |", r.name)
		if i > 0 {
			w.WriteString(" |")
		}
	}
	w.WriteString(" to runsc |\n|---|---:|" + strings.Repeat("---:|---:|", len(b.runners)-1) + "---:|\n")
	for _, n := range b.names(part) {
		nat := median(cases[n][native])
		fmt.Fprintf(w, "| %s |", n)
		for i, r := range b.runners {
			v := median(cases[n][r.name])
			switch {
			case v == 0 && i == 0:
				w.WriteString(" failed |")
			case v == 0:
				w.WriteString(" failed | |")
			case i == 0:
				fmt.Fprintf(w, " %s |", figure(part, v))
			default:
				fmt.Fprintf(w, " %s | %.2f |", figure(part, v), v/nat)
			}
		}
		if a, m := median(cases[n][runsc]), median(cases[n]["moat trap"]); a > 0 && m > 0 {
			fmt.Fprintf(w, " %.1f |\n", a/m)
		} else {
			w.WriteString(" |\n")
		}
	}
}

func (b *bench) names(part string) []string {
	cases := b.all[part]
	names := make([]string, 0, len(cases))
	for n := range cases {
		names = append(names, n)
	}
	slices.SortFunc(names, func(x, y string) int { return cmp.Compare(median(cases[x][native]), median(cases[y][native])) })
	return names
}

func figure(part string, v float64) string {
	switch {
	case part == partMemory:
		return fmt.Sprintf("%.1f MB", v/1e6)
	case v < 1e4:
		return fmt.Sprintf("%.0f ns", v)
	case v < 1e7:
		return fmt.Sprintf("%.1f us", v/1e3)
	}
	return fmt.Sprintf("%.0f ms", v/1e6)
}
