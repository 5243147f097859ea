// Command bench measures moat beside the native kernel and runsc, in interleaved runs on one machine, and writes a
// Markdown table of medians and ratios.
//
//	go run ./tests/bench -moat bin/moat -runsc PATH [-rounds N] [-only REGEX] [-json FILE] [-md FILE]
//
// Absolute times drift with the machine's neighbours; every figure of a round is taken within one round, so the
// ratios are what to read.
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// runner is one way to run a command.
type runner struct {
	Name   string
	Prefix []string
}

// sample is figures by runner and case, in nanoseconds.
type samples map[string]map[string][]float64

func (s samples) add(runner, name string, v float64) {
	if s[runner] == nil {
		s[runner] = map[string][]float64{}
	}
	s[runner][name] = append(s[runner][name], v)
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}

// program is a whole command whose wall time is measured.
type program struct{ Name, Shell string }

// programs are DESIGN's second kind of figure: what a user waits for. Each works in the directory $D.
var programs = []program{
	{"start (true)", "true"},
	{"python3 -c pass", "python3 -c pass"},
	{"python3 loop", `python3 -c 'sum(i*i for i in range(3000000))'`},
	{"gcc 5000 lines", `python3 -c 'for i in range(2500): print("int f%d(int a){return a*%d+1;}\n"%(i,i))' > $D/a.c && gcc -O1 -c -o $D/a.o $D/a.c`},
	{"sh 300 forks", `i=0; while [ $i -lt 300 ]; do /bin/true; i=$((i+1)); done`},
	{"find /usr", "find /usr -xdev > /dev/null"},
	{"tar of /usr/include", "tar cf $D/t.tar /usr/include 2>/dev/null && tar tf $D/t.tar > /dev/null"},
	{"gzip 32 MB", "head -c 32000000 /dev/zero | gzip > $D/z.gz"},
	{"git init, 500 files", `cd $D && rm -rf g && mkdir g && cd g && git init -q . && for i in $(seq 500); do echo $i > f$i; done && git add . && git -c user.name=a -c user.email=a@b commit -qm x && git status > /dev/null`},
	{"sqlite 20000 inserts", `cd $D && rm -f s.db && (echo 'begin;create table t(a,b);'; seq 20000 | sed 's/.*/insert into t values(&,"x&");/'; echo 'commit;') | sqlite3 s.db`},
	{"node", `node -e 'let s=0;for(let i=0;i<1e6;i++)s+=i;console.log(s)'`},
}

func main() {
	moat := flag.String("moat", "bin/moat", "the moat binary")
	runsc := flag.String("runsc", "", "the runsc binary; empty leaves it out")
	platforms := flag.String("platforms", "trap,ptrace", "moat platforms, comma separated")
	rounds := flag.Int("rounds", 3, "rounds of each runner")
	only := flag.String("only", "", "regular expression of cases")
	withPrograms := flag.Bool("programs", true, "measure whole programs too")
	jsonOut := flag.String("json", "", "write raw figures to this file")
	mdOut := flag.String("md", "", "write the table to this file instead of standard output")
	flag.Parse()

	work, err := os.MkdirTemp("", "moat-bench")
	check(err)
	defer os.RemoveAll(work)
	calls := filepath.Join(work, "calls")
	run(exec.Command("gcc", "-O2", "-static", "-o", calls, "tests/bench/prog/calls.c", "-lpthread"))

	runners := []runner{{Name: "native"}}
	if *runsc != "" {
		runners = append(runners, runner{"runsc", []string{*runsc, "--root", filepath.Join(work, "rs"), "--platform=systrap",
			"--network=none", "--ignore-cgroups", "do", "--"}})
	}
	abs, err := filepath.Abs(*moat)
	check(err)
	for _, p := range strings.Split(*platforms, ",") {
		runners = append(runners, runner{"moat " + p, []string{abs, "do", "--platform=" + p, "--"}})
	}
	sel := regexp.MustCompile(*only)
	all := samples{}
	for round := range *rounds {
		for _, r := range runners {
			fmt.Fprintf(os.Stderr, "round %d: %s\n", round+1, r.Name)
			measureCalls(all, r, calls, sel)
			if *withPrograms {
				measurePrograms(all, r, sel)
			}
		}
	}
	if *jsonOut != "" {
		b, err := json.MarshalIndent(all, "", " ")
		check(err)
		check(os.WriteFile(*jsonOut, b, 0o644))
	}
	table := render(all, runners)
	if *mdOut == "" {
		os.Stdout.Write(table)
		return
	}
	check(os.WriteFile(*mdOut, table, 0o644))
}

// measureCalls runs the program of single calls.
func measureCalls(all samples, r runner, calls string, sel *regexp.Regexp) {
	list, err := exec.Command(calls, "--list").Output()
	check(err)
	args := append(slices.Clone(r.Prefix), calls, "/tmp")
	n := 0
	for _, c := range strings.Fields(string(list)) {
		if sel.MatchString(c) {
			args = append(args, c)
			n++
		}
	}
	if n == 0 {
		return
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %s: %v\n", r.Name, err)
	}
	sc := bufio.NewScanner(bytes.NewReader(out))
	for sc.Scan() {
		name, v, ok := strings.Cut(sc.Text(), " ")
		if f, err := strconv.ParseFloat(v, 64); ok && err == nil {
			all.add(r.Name, name, f)
		}
	}
}

func measurePrograms(all samples, r runner, sel *regexp.Regexp) {
	for _, p := range programs {
		if !sel.MatchString(p.Name) {
			continue
		}
		dir := "D=$(mktemp -d) && export D && "
		args := append(slices.Clone(r.Prefix), "/bin/sh", "-c", dir+p.Shell+"; s=$?; rm -rf $D; exit $s")
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Stderr = os.Stderr
		start := time.Now()
		if err := cmd.Run(); err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s: %s: %v\n", r.Name, p.Name, err)
			continue
		}
		all.add(r.Name, p.Name, float64(time.Since(start).Nanoseconds()))
	}
}

// render makes the Markdown table: native's median, then each runner's as a multiple of native, and runsc's of moat's.
func render(all samples, runners []runner) []byte {
	var b bytes.Buffer
	var u unix.Utsname
	unix.Uname(&u)
	fmt.Fprintf(&b, "Linux %s, %d CPUs, %s. Medians; x is a multiple of native in the same run.\n\n",
		unix.ByteSliceToString(u.Release[:]), runtime.NumCPU(), time.Now().Format("2006-01-02"))
	b.WriteString("| case | native |")
	for _, r := range runners[1:] {
		fmt.Fprintf(&b, " %s | x |", r.Name)
	}
	b.WriteString("\n|---|---:|" + strings.Repeat("---:|---:|", len(runners)-1) + "\n")
	names := make([]string, 0, len(all["native"]))
	for n := range all["native"] {
		names = append(names, n)
	}
	slices.SortFunc(names, func(x, y string) int {
		return cmp.Compare(median(all["native"][x]), median(all["native"][y]))
	})
	for _, n := range names {
		nat := median(all["native"][n])
		fmt.Fprintf(&b, "| %s | %s |", n, ns(nat))
		for _, r := range runners[1:] {
			if v := median(all[r.Name][n]); v > 0 {
				fmt.Fprintf(&b, " %s | %.1f |", ns(v), v/nat)
			} else {
				b.WriteString(" failed | |")
			}
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}

func ns(v float64) string {
	switch {
	case v < 1e4:
		return fmt.Sprintf("%.0f ns", v)
	case v < 1e7:
		return fmt.Sprintf("%.1f us", v/1e3)
	}
	return fmt.Sprintf("%.0f ms", v/1e6)
}

func run(cmd *exec.Cmd) {
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	check(cmd.Run())
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}
