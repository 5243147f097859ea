// Package rules holds the tree to its own rules: who may import whom, where unsafe may be used, how large it may grow.
package rules

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"moat/tests/rules/count"
)

type pkg struct {
	ImportPath, Dir string
	Imports         []string
	GoFiles         []string
}

func list(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-e", "-json=ImportPath,Dir,Imports,GoFiles", "moat/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	var ps []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return ps
		} else if err != nil {
			t.Fatal(err)
		}
		ps = append(ps, p)
	}
}

// layer is the rank of a package: imports go to a lower rank, or stay within the layer where that is allowed.
func under(p string, prefixes ...string) bool {
	for _, x := range prefixes {
		if p == x || strings.HasPrefix(p, x+"/") {
			return true
		}
	}
	return false
}

// TestImports holds DESIGN.md's one-way imports.
func TestImports(t *testing.T) {
	// The packages of group may not import those of banned, but for the exceptions.
	for _, r := range []struct {
		group, banned, except []string
		why                   string
	}{
		{[]string{"moat/platform"}, []string{"moat/sentry", "moat/syscalls", "moat/fsgofer", "moat/cmd"}, nil, "the platform knows nothing of the sentry"},
		{[]string{"moat/fsgofer"}, []string{"moat/sentry", "moat/syscalls", "moat/platform", "moat/cmd"}, nil, "the gofer shares nothing with the sentry but the protocol"},
		{[]string{"moat/sentry/kernel"}, []string{"moat/syscalls", "moat/sentry/boot", "moat/sentry/fs", "moat/sentry/net"}, nil, "boot hands the kernel its table"},
		{[]string{"moat/sentry/vfs", "moat/sentry/mm"}, []string{"moat/sentry/kernel"}, []string{"moat/sentry/kernel/auth"}, "files and memory lie below the kernel"},
		{[]string{"moat/sentry/fs"}, []string{"moat/syscalls", "moat/sentry/boot", "moat/cmd"}, nil, "file systems lie below the calls"},
		{[]string{"moat/sentry/memory", "moat/sentry/usermem", "moat/sentry/memmap", "moat/sentry/linuxerr", "moat/sentry/refs"}, []string{"moat/sentry", "moat/syscalls", "moat/cmd"},
			[]string{"moat/sentry/memory", "moat/sentry/usermem", "moat/sentry/memmap", "moat/sentry/linuxerr", "moat/sentry/refs"}, "the lowest layer"},
		{[]string{"moat/syscalls"}, []string{"moat/sentry/boot", "moat/cmd", "moat/fsgofer"}, nil, "the table lies below boot"},
		{[]string{"moat/sentry"}, []string{"moat/cmd", "moat/fsgofer"}, []string{"moat/fsgofer/wire"}, "the sentry shares nothing with the gofer but the protocol"},
		{[]string{"moat"}, []string{"gvisor.dev/gvisor/pkg/sentry", "gvisor.dev/gvisor/pkg/lisafs", "gvisor.dev/gvisor/pkg/ring0", "gvisor.dev/gvisor/runsc"}, nil,
			"what the project exists for is written here"},
	} {
		for _, p := range list(t) {
			if !under(p.ImportPath, r.group...) {
				continue
			}
			for _, i := range p.Imports {
				if under(i, r.banned...) && !under(i, r.except...) {
					t.Errorf("%s imports %s: %s", p.ImportPath, i, r.why)
				}
			}
		}
	}
}

// TestFileSystemsAndKernel: only the file systems that show tasks, or act for them, know the kernel.
func TestFileSystemsAndKernel(t *testing.T) {
	allowed := []string{"proc", "sys", "dev", "devpts", "cgroup", "anon", "mqueue"}
	for _, p := range list(t) {
		name, ok := strings.CutPrefix(p.ImportPath, "moat/sentry/fs/")
		if !ok || slices.Contains(allowed, strings.Split(name, "/")[0]) {
			continue
		}
		if slices.Contains(p.Imports, "moat/sentry/kernel") {
			t.Errorf("%s imports moat/sentry/kernel", p.ImportPath)
		}
	}
}

// TestUnsafe: unsafe is used in files of that name only.
func TestUnsafe(t *testing.T) {
	for _, p := range list(t) {
		for _, f := range p.GoFiles {
			b, err := os.ReadFile(filepath.Join(p.Dir, f))
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(b), "\n\t\"unsafe\"\n") && !strings.HasSuffix(f, "_unsafe.go") && !strings.HasSuffix(f, "_unsafe_amd64.go") {
				t.Errorf("%s/%s uses unsafe", p.ImportPath, f)
			}
		}
	}
}

// TestPointersAsNumbers: a pointer becomes a number in the arguments of a system call, or in a difference. In those of any other function it would be neither kept
// alive nor moved with the stack it points into, and the host would write where something else is by then (unsafe.Pointer, rule 4).
func TestPointersAsNumbers(t *testing.T) {
	for _, p := range list(t) {
		for _, f := range p.GoFiles {
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, filepath.Join(p.Dir, f), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			fine := map[ast.Expr]bool{}
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.BinaryExpr:
					fine[n.X], fine[n.Y] = true, true
				case *ast.CallExpr:
					if fun, ok := n.Fun.(*ast.SelectorExpr); ok && slices.Contains([]string{"Syscall", "Syscall6", "RawSyscall", "RawSyscall6", "AllThreadsSyscall"}, fun.Sel.Name) {
						for _, a := range n.Args {
							fine[a] = true
						}
					}
					if !fine[n] && len(n.Args) == 1 && types.ExprString(n.Fun) == "uintptr" && strings.HasPrefix(types.ExprString(n.Args[0]), "unsafe.Pointer(") {
						t.Errorf("%s: %s is not in the arguments of the system call itself", fset.Position(n.Pos()), types.ExprString(n))
					}
				}
				return true
			})
		}
	}
}

// TestSize: a reader should be able to audit moat.
func TestSize(t *testing.T) {
	pkgs, err := count.Tree("../..")
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, p := range pkgs {
		if p.Trusted {
			total += p.Code
		}
	}
	if total > count.Bound {
		t.Errorf("%d lines of trusted code (without comments and blank lines); the bound is %d", total, count.Bound)
	}
	t.Logf("%d lines of trusted code", total)
}

// TestNoRecover: a broken kernel does not go on.
func TestNoRecover(t *testing.T) {
	for _, p := range list(t) {
		if under(p.ImportPath, "moat/tests") {
			continue
		}
		for _, f := range p.GoFiles {
			b, err := os.ReadFile(filepath.Join(p.Dir, f))
			if err != nil {
				t.Fatal(err)
			}
			for n, l := range strings.Split(string(b), "\n") {
				if code, _, _ := strings.Cut(l, "//"); strings.Contains(code, "recover()") {
					t.Errorf("%s/%s:%d: recover", p.ImportPath, f, n+1)
				}
			}
		}
	}
}
