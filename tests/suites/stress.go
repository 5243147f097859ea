package main

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"
)

func init() {
	suites["stress"] = &suite{
		about:    "`stress-ng --verify`, each stressor of the classes below for a second (Debian's stress-ng), without those of known/stress.skip and tests/workloads/testdata/stressors.absent",
		packages: []string{"stress-ng"},
		prepare:  stressUnits,
		parse:    parseLines,
	}
}

var stressClasses = strings.Fields("cpu cpu-cache filesystem interrupt io memory network os pipe scheduler security vm")

// stressUnits: a unit for each class; a stressor is in several, and run in the first.
func stressUnits(string) (us []unit, err error) {
	help, err := exec.Command("stress-ng", "--help").Output()
	if err != nil {
		return nil, err
	}
	mine, err := knownFiles.ReadFile("known/stress.skip")
	if err != nil {
		return nil, err
	}
	absent, err := os.ReadFile("tests/workloads/testdata/stressors.absent")
	if err != nil {
		return nil, err
	}
	var seen []string
	for l := range strings.Lines(string(absent) + string(mine)) {
		if name, reason, ok := strings.Cut(l, ": "); ok && reason != "\n" && l[0] != '#' {
			seen = append(seen, name)
		}
	}
	for _, class := range stressClasses {
		out, _ := exec.Command("stress-ng", "--class", class+"?").CombinedOutput()
		_, list, found := strings.Cut(string(out), "stressors: ")
		if !found {
			return nil, fmt.Errorf("stress-ng does not list class %s: %s", class, out)
		}
		var names []string
		for _, s := range strings.Fields(list) {
			// Names of classes stand among those of stressors.
			if !slices.Contains(seen, s) && regexp.MustCompile(`(?m)--`+regexp.QuoteMeta(s)+` N\b`).Match(help) {
				names, seen = append(names, s), append(seen, s)
			}
		}
		if len(names) == 0 {
			continue
		}
		us = append(us, unit{name: class, dir: "/tmp", timeout: 20 * time.Minute, script: "ulimit -c 0\n" + loop(strings.Join(names, " "),
			`case $t in exec|spawn|resources) as="setpriv --reuid=65534 --regid=65534 --clear-groups"; chmod 1777 .;; esac
timeout -k 5 60 $as stress-ng --$t 1 --verify -t 1 --temp-path /tmp; s=$?; case $s in 3|4) s=77;; esac; exit $s`)})
	}
	return us, nil
}
