package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// unit is one command whose output names tests and their results.
type unit struct {
	name string
	// script is run by sh in dir.
	script, dir string
	timeout     time.Duration
}

// suite is a collection of units.
type suite struct {
	// about says for the report what it is and where it comes from.
	about string
	// packages of Debian that it needs.
	packages []string
	// prepare builds it in dir, unless that was done, and returns its units.
	prepare func(dir string) ([]unit, error)
	// parse reads the results from what a unit printed.
	parse func(out []byte) outcome
}

var suites = map[string]*suite{}

// order is the report's.
var order = []string{"cpython", "go", "selftests", "busybox", "coreutils", "bash", "perl", "stress"}

// longest is how long a unit may take that says nothing else.
const longest = 5 * time.Minute

type options struct {
	dir, doc string
	runtimes []runtime
	only     *regexp.Regexp
	prefix   []string
}

func main() {
	name := flag.String("suite", "cpython", strings.Join(order, ", ")+"; comma separated")
	names := flag.String("runtimes", "host,runsc,moat", "host, runsc, moat (on trap), moat-ptrace; comma separated")
	moat := flag.String("moat", "bin/moat", "the moat binary")
	runsc := flag.String("runsc", "", "the runsc binary")
	o := options{}
	flag.StringVar(&o.dir, "dir", "build/suites", "directory to build in, and to keep results and output in")
	flag.StringVar(&o.doc, "doc", "", "file with the report, of which this suite's part is written anew")
	only := flag.String("run", "", "regular expression of the units to run; their results are added to those of the last run")
	prefix := flag.String("prefix", "", "words before each command, such as nice")
	list := flag.Bool("list", false, "list the units and run nothing")
	flag.Parse()
	o.prefix = strings.Fields(*prefix)
	err := func() (err error) {
		if os.Geteuid() != 0 {
			return fmt.Errorf("it has to run as root")
		}
		if o.dir, err = filepath.Abs(o.dir); err != nil {
			return err
		}
		if o.only, err = regexp.Compile(*only); err != nil {
			return fmt.Errorf("-run: %w", err)
		}
		if o.runtimes, err = findRuntimes(strings.Split(*names, ","), *moat, *runsc); err != nil {
			return fmt.Errorf("-runtimes: %w", err)
		}
		for _, n := range strings.Split(*name, ",") {
			s := suites[n]
			if s == nil {
				return fmt.Errorf("-suite: %q is none of %s", n, strings.Join(order, ", "))
			}
			if err := o.run(s, n, *list); err != nil {
				return fmt.Errorf("%s: %w", n, err)
			}
		}
		return nil
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "suites:", err)
		os.Exit(1)
	}
}

// results are the outcomes of a suite on a runtime, by unit.
type results map[string]outcome

func (o *options) run(s *suite, name string, list bool) error {
	known, err := readKnown(name)
	if err != nil {
		return err
	}
	if err := install(s.packages...); err != nil {
		return err
	}
	dir := filepath.Join(o.dir, name)
	units, err := s.prepare(dir)
	if err != nil {
		return err
	}
	if list {
		for _, u := range units {
			fmt.Println(u.name)
		}
		return nil
	}
	all := map[string]results{}
	for _, rt := range allRuntimes {
		all[rt] = load(filepath.Join(dir, "results-"+rt+".json"))
		maps.DeleteFunc(all[rt], func(n string, _ outcome) bool {
			return !slices.ContainsFunc(units, func(u unit) bool { return u.name == n })
		})
	}
	for _, u := range units {
		if !o.only.MatchString(u.name) {
			continue
		}
		for _, rt := range o.runtimes {
			start := time.Now()
			r, err := rt.run(o.prefix, s, u, filepath.Join(dir, "output", rt.name))
			if err != nil {
				return err
			}
			all[rt.name][u.name] = r
			n := r.count()
			fmt.Printf("%-12s %-40s %5d ok %4d failed %4d skipped %6.0f s %s\n", rt.name, u.name, n.ok, n.failed, n.skipped, time.Since(start).Seconds(), r.Broken)
			js, err := json.MarshalIndent(all[rt.name], "", " ")
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, "results-"+rt.name+".json"), js, 0o644); err != nil {
				return err
			}
		}
	}
	report := &report{suite: s, name: name, units: units, all: all}
	unexplained := report.compare(known)
	fmt.Print(report.table(), report.list())
	if o.only.String() == "" {
		for _, k := range known {
			if !k.used {
				fmt.Printf("known/%s.txt: %s: %s: does not happen\n", name, k.unit, k.test)
			}
		}
	}
	if o.doc != "" {
		if err := report.write(o.doc); err != nil {
			return err
		}
	}
	if unexplained > 0 {
		return fmt.Errorf("%d results that differ from the host's have no reason in known/%s.txt", unexplained, name)
	}
	return nil
}

func load(file string) results {
	r := results{}
	if b, err := os.ReadFile(file); err == nil && json.Unmarshal(b, &r) != nil {
		fmt.Fprintf(os.Stderr, "suites: %s is not this program's, and left out\n", file)
		return results{}
	}
	return r
}
