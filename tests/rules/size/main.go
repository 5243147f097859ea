// Command size prints the lines of the tree by package, and what the imports add.
package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"moat/tests/rules/count"
)

func main() {
	pkgs, err := count.Tree(".")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var lines, code int
	fmt.Printf("%8s %8s %8s  package\n", "lines", "code", "tests")
	for _, trusted := range []bool{true, false} {
		for _, p := range pkgs {
			if p.Trusted != trusted {
				continue
			}
			fmt.Printf("%8d %8d %8d  %s\n", p.Lines, p.Code, p.Tests, p.Dir)
			if trusted {
				lines += p.Lines
				code += p.Code
			}
		}
		if trusted {
			fmt.Printf("%8d %8d           trusted code in all (at most %d of code)\n\n", lines, code, count.Bound)
		}
	}
	imports()
}

// imports counts the Go files of other modules that are linked into moat.
func imports() {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if .Module}}{{if not .Module.Main}}{{$d := .Dir}}{{$m := .Module.Path}}{{range .GoFiles}}{{$m}} {{$d}}/{{.}}\n{{end}}{{end}}{{end}}", "./cmd/moat").Output()
	if err != nil {
		fmt.Fprintln(os.Stderr, "go list:", err)
		return
	}
	byModule := map[string]int{}
	var order []string
	for s := bufio.NewScanner(strings.NewReader(string(out))); s.Scan(); {
		mod, path, ok := strings.Cut(s.Text(), " ")
		if !ok {
			continue
		}
		b, err := os.ReadFile(filepath.Clean(path))
		if err != nil {
			continue
		}
		if byModule[mod] == 0 {
			order = append(order, mod)
		}
		byModule[mod] += strings.Count(string(b), "\n")
	}
	fmt.Println("\n   lines  linked from other modules")
	for _, m := range order {
		fmt.Printf("%8d  %s\n", byModule[m], m)
	}
}
