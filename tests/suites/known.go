package main

import (
	"embed"
	"fmt"
	"regexp"
	"strings"
)

//go:embed known
var knownFiles embed.FS

// known is a result of moat that differs from the host's, with its reason.
type known struct {
	unit, test *regexp.Regexp
	reason     string
	used       bool
}

// readKnown reads the lines of a suite's file: unit and test, both regular expressions that match the whole name, and the reason, separated by tabs.
// The test "-" is the unit itself, which timed out or died.
func readKnown(suite string) (ks []*known, err error) {
	file := "known/" + suite + ".txt"
	b, err := knownFiles.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for i, line := range strings.Split(string(b), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.Split(line, "\t")
		if len(f) != 3 || f[2] == "" {
			return nil, fmt.Errorf("%s:%d: wants unit, test and reason, separated by tabs", file, i+1)
		}
		k := &known{reason: f[2]}
		for j, re := range []**regexp.Regexp{&k.unit, &k.test} {
			if *re, err = regexp.Compile("^(" + f[j] + ")$"); err != nil {
				return nil, fmt.Errorf("%s:%d: %w", file, i+1, err)
			}
		}
		ks = append(ks, k)
	}
	return ks, nil
}

func reason(ks []*known, unit, test string) string {
	for _, k := range ks {
		if k.unit.MatchString(unit) && k.test.MatchString(test) {
			k.used = true
			return k.reason
		}
	}
	return ""
}
