package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

func init() {
	suites["go"] = &suite{
		about:   "Go's tests of its standard library, compiled on the host (`go test -c`) and run with `-test.short`",
		prepare: goUnits,
		parse:   parseGo,
	}
}

var goPackages = []string{"os", "os/exec", "os/signal", "os/user", "syscall", "net", "net/http", "io/fs", "time", "runtime"}

func goUnits(dir string) (us []unit, err error) {
	out, err := exec.Command("go", "env", "GOROOT", "GOCACHE").Output()
	f := strings.Fields(string(out))
	if err != nil || len(f) != 2 {
		return nil, fmt.Errorf("go env: %w: %s", err, out)
	}
	for _, p := range goPackages {
		bin := filepath.Join(dir, strings.ReplaceAll(p, "/", "_")+".test")
		if _, err := os.Stat(bin); err != nil {
			if err := command("", "env", "CGO_ENABLED=0", "GOFLAGS=", "go", "test", "-c", "-o", bin, p); err != nil {
				return nil, err
			}
		}
		us = append(us, unit{name: p, dir: filepath.Join(f[0], "src", p), timeout: 15 * time.Minute,
			script: fmt.Sprintf("export PATH=%s/bin:$PATH CGO_ENABLED=0 GOFLAGS= GOTOOLCHAIN=local GOCACHE=%s\n%s -test.short -test.v -test.timeout 14m", f[0], f[1], bin)})
	}
	return us, nil
}

var goResult = regexp.MustCompile(`(?m)^ *--- (PASS|FAIL|SKIP): (\S+)`)

func parseGo(out []byte) (o outcome) {
	for _, m := range goResult.FindAllSubmatch(out, -1) {
		o.set(string(m[2]), map[string]string{"PASS": ok, "FAIL": failed, "SKIP": skipped}[string(m[1])])
	}
	if !regexp.MustCompile(`(?m)^(PASS|FAIL)$`).Match(out) {
		o.Broken = "died or timed out"
	}
	return o
}
