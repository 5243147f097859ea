package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// calls measures single system calls and hand-overs with prog/calls.c. A sandbox is started once for a group of cases.
func (b *bench) calls() {
	bin := b.compile("calls", "-static")
	list, err := exec.Command(bin, "--list").Output()
	check(err)
	const group = 8
	var groups [][]string
	names := map[string][]string{}
	for _, n := range strings.Fields(string(list)) {
		if !b.only.MatchString(n) {
			continue
		}
		if len(groups) == 0 || len(groups[len(groups)-1]) == group {
			groups = append(groups, nil)
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], n)
	}
	var keys []string
	for _, g := range groups {
		k := strings.Join(g, " ")
		keys, names[k] = append(keys, k), g
	}
	only := b.only
	b.only = anything
	defer func() { b.only = only }()
	b.each(keys, func(r *runner, k string) {
		cmd := r.command(append([]string{bin, "/tmp", filepath.Join(b.work, "shared")}, names[k]...)...)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			fmt.Fprintf(os.Stderr, "\nbench: %s: %s: %v\n", r.name, k, err)
		}
		for line := range bytes.Lines(out) {
			name, v, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
			if f, err := strconv.ParseFloat(v, 64); err == nil {
				b.all.add(partCalls, r.name, name, f)
			}
		}
	})
}
