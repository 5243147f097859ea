// Command conformance holds moat to Linux, errno for errno, with the host's kernel as the oracle.
//
// Below this directory there is a directory for each family of system calls, with small C programs. Each prints a transcript (include/conf.h): a line is a
// check, what was called and what the kernel answered. The command builds the programs, static and dynamic, runs them on the host and in a sandbox
// with the same small driver (driver/driver.c: namespaces of its own and an empty /tmp for each), and compares the transcripts. The host's is the expected one;
// nothing is written by hand. Where moat differs on purpose, a line in the file deviations says why.
//
//	conformance -list                              lists programs
//	conformance [-run REGEX] [-platform P] [-v]    runs, prints a table by family; -v with the differences
//	conformance -platform host                     compares the host with itself: what differs there is no check
//	conformance -doc FILE                          writes the table for docs
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

func main() {
	list := flag.Bool("list", false, "list the programs")
	run := flag.String("run", "", "only programs whose family/name matches this `REGEX`")
	platforms := flag.String("platform", "trap", "comma-separated platforms, or host")
	verbose := flag.Bool("v", false, "print the differences")
	static := flag.Bool("static", true, "run the static programs too")
	sandbox := flag.String("moat", "", "the moat `BINARY`; built if not given")
	doc := flag.String("doc", "", "write the table to this `FILE` too, in markdown")
	jobs := flag.Int("jobs", 4, "programs at a time")
	repeat := flag.Int("repeat", 1, "run each program `N` times")
	flag.Parse()
	if err := command(*list, *run, strings.Split(*platforms, ","), *verbose, *doc, *repeat, options{static: *static, moat: *sandbox, jobs: *jobs}); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func command(list bool, run string, platforms []string, verbose bool, doc string, repeat int, o options) error {
	re, err := regexp.Compile(run)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	s, err := open()
	if err != nil {
		return err
	}
	var ps []program
	for _, p := range s.programs {
		if re.MatchString(p.name()) {
			ps = append(ps, p)
		}
	}
	if list {
		for _, p := range ps {
			fmt.Printf("%-32s %s\n", p.name(), p.about)
		}
		return nil
	}
	if len(ps) == 0 {
		return fmt.Errorf("-run %s: no program has such a name; -list tells which there are", run)
	}
	failed := 0
	var tables []table
	for i := 0; i < repeat; i++ {
		for _, platform := range platforms {
			t, err := s.compare(ps, platform, o)
			if err != nil {
				return err
			}
			if verbose {
				t.differences(os.Stdout)
			}
			t.print(os.Stdout)
			tables = append(tables, *t)
			failed += t.failed()
		}
	}
	if doc != "" {
		if err := os.WriteFile(filepath.Join(s.root, doc), markdown(tables), 0o644); err != nil {
			return err
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d checks failed", failed)
	}
	return nil
}
