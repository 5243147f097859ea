package gofer

import (
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"moat/sentry/fs/tmpfs"
	"moat/sentry/kernel/auth"
	"moat/sentry/memory"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

type env struct {
	vfs.Context
	root vfs.Path
	open []*vfs.FileDescription
}

func (e *env) Root() vfs.Path { return e.root }
func (e *env) Cwd() vfs.Path  { return e.root }

func newEnv(t testing.TB, fs vfs.FileSystem) *env {
	ns, err := vfs.NewMountNamespace(auth.NewRootNamespace(), fs, "none", 0)
	if err != nil {
		t.Fatal(err)
	}
	return &env{Context: vfs.Background(), root: ns.Root()}
}

// write writes s to path; keep leaves the file open.
func (e *env) write(path, s string, flags uint32, keep bool) error {
	f, err := vfs.Open(e, e.root, path, vfs.OpenOptions{Flags: unix.O_RDWR | flags, Mode: 0o644})
	if err != nil {
		return err
	}
	if keep {
		e.open = append(e.open, f)
	} else {
		defer f.DecRef()
	}
	_, err = f.Write(e, usermem.Bytes([]byte(s)), 0)
	return err
}

func (e *env) read(f *vfs.FileDescription) string {
	b := make([]byte, 1<<16)
	n, err := f.PRead(e, usermem.Bytes(b), 0, 0)
	if err != nil {
		return err.Error()
	}
	return string(b[:n])
}

func (e *env) on(path string, fn func(vfs.Path) error) error {
	p, err := vfs.Resolve(e, e.root, path, 0)
	if err != nil {
		return err
	}
	defer p.DecRef()
	return fn(p)
}

// use does something with open file n, and describes it.
func (e *env) use(n int, what int, text string) string {
	if len(e.open) == 0 {
		return ""
	}
	f := e.open[n%len(e.open)]
	var err error
	switch what {
	case 0:
		_, err = f.PWrite(e, usermem.Bytes([]byte(text)), int64(n%50), 0)
	case 1:
		err = f.Truncate(e, int64(n))
	case 2:
		err = vfs.Chmod(e, f.Path(), uint16(n)&0o777|0o600)
	case 3:
		e.open = append(e.open[:n%len(e.open)], e.open[n%len(e.open)+1:]...)
		f.DecRef()
		return "closed"
	}
	a, err2 := f.Stat(e)
	return fmt.Sprint(err, err2, a.Size, a.Nlink, a.Mode, e.read(f))
}

func (e *env) dump(t *testing.T, dir string) string {
	f, err := vfs.Open(e, e.root, dir, vfs.OpenOptions{Flags: unix.O_DIRECTORY})
	if err != nil {
		t.Fatal(dir, err)
	}
	defer f.DecRef()
	var names []string
	dino := map[string]uint64{}
	for n := 1; n > 0; {
		n = 0
		f.ReadDir(e, func(d vfs.Dirent) error {
			n++
			if d.Name != "." && d.Name != ".." {
				names = append(names, d.Name)
				dino[d.Name] = d.Ino
			}
			return nil
		})
	}
	sort.Strings(names)
	var b strings.Builder
	for _, n := range names {
		path := dir + "/" + n
		p, err := vfs.Resolve(e, e.root, path, 0)
		if err != nil {
			t.Fatal(path, err)
		}
		a, err := vfs.Stat(e, p)
		p.DecRef()
		if err != nil || a.Ino != dino[n] {
			t.Fatal(path, err, a.Ino, dino[n])
		}
		fmt.Fprintf(&b, "%s %o %d", path, a.Mode, a.Nlink)
		switch a.FileType() {
		case unix.S_IFDIR:
			fmt.Fprintf(&b, "\n%s", e.dump(t, path))
		case unix.S_IFREG:
			f, err := vfs.Open(e, e.root, path, vfs.OpenOptions{})
			if err != nil {
				t.Fatal(path, err)
			}
			fmt.Fprintf(&b, " %d %q\n", a.Size, e.read(f))
			f.DecRef()
		default:
			b.WriteString("\n")
		}
	}
	return b.String()
}

// hostDump is dump of what the host has.
func hostDump(t *testing.T, root, dir string) string {
	es, err := os.ReadDir(filepath.Join(root, dir))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range es {
		path := dir + "/" + e.Name()
		full := filepath.Join(root, path)
		var st unix.Stat_t
		if err := unix.Lstat(full, &st); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %o %d", path, st.Mode, st.Nlink)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			fmt.Fprintf(&b, "\n%s", hostDump(t, root, path))
		case unix.S_IFREG:
			text, _ := os.ReadFile(full)
			fmt.Fprintf(&b, " %d %q\n", st.Size, text)
		default:
			b.WriteString("\n")
		}
	}
	return b.String()
}

// TestLikeTmpfs does the same random things to a gofer mount, with caches that hardly hold anything, and to tmpfs, and compares the
// answers, the trees, and what the host then has.
// +checklocksignore
func TestLikeTmpfs(t *testing.T) {
	for seed := range int64(6) {
		shared := seed%3 == 2
		fs, dir, cmd := mount(t, shared)
		if seed%2 == 0 {
			fs.handles.max, fs.fds.max, fs.lists.max = 3, 2, 10
		}
		mem, err := memory.New(-1, 1<<28)
		if err != nil {
			t.Fatal(err)
		}
		g, p := newEnv(t, fs), newEnv(t, tmpfs.New(mem, tmpfs.Options{Mode: 0o755}))
		r := rand.New(rand.NewSource(seed))
		name := func() string {
			s := ""
			for range 1 + r.Intn(3) {
				s += "/" + []string{"a", "b", "c", "d", "e", "f"}[r.Intn(6)]
			}
			return s
		}
		for step := range 3000 {
			a, b, n, keep, what := name(), name(), r.Intn(300), r.Intn(4) == 0, r.Intn(4)
			text := fmt.Sprint("step ", step)
			var op string
			var fn func(e *env) any
			switch r.Intn(13) {
			case 0, 1:
				op, fn = "mkdir "+a, func(e *env) any { return vfs.Mkdir(e, e.root, a, 0o700) }
			case 2, 3:
				op, fn = "write "+a, func(e *env) any { return e.write(a, text, unix.O_CREAT, keep) }
			case 4:
				op, fn = "append "+a, func(e *env) any { return e.write(a, text, unix.O_APPEND, keep) }
			case 5:
				op, fn = "unlink "+a, func(e *env) any { return vfs.Unlink(e, e.root, a) }
			case 6:
				op, fn = "rmdir "+a, func(e *env) any { return vfs.Rmdir(e, e.root, a) }
			case 7:
				op, fn = "rename "+a+" "+b, func(e *env) any { return vfs.Rename(e, e.root, a, e.root, b, 0) }
			case 8:
				op, fn = "exchange "+a+" "+b, func(e *env) any { return vfs.Rename(e, e.root, a, e.root, b, unix.RENAME_EXCHANGE) }
			case 9:
				op, fn = "link "+a+" "+b, func(e *env) any {
					return e.on(a, func(p vfs.Path) error { return vfs.Link(e, p, e.root, b) })
				}
			case 10:
				op, fn = "chmod "+a, func(e *env) any {
					return e.on(a, func(p vfs.Path) error { return vfs.Chmod(e, p, uint16(n)|0o700) })
				}
			case 11:
				op, fn = "truncate "+a, func(e *env) any {
					return e.on(a, func(p vfs.Path) error { return vfs.Truncate(e, p, int64(n)) })
				}
			case 12:
				op, fn = fmt.Sprint("use ", n, what), func(e *env) any { return e.use(n, what, text) }
			}
			if x, y := fn(g), fn(p); x != y {
				t.Fatalf("seed %d step %d: %s: gofer %v, tmpfs %v", seed, step, op, x, y)
			}
			if step%100 == 99 {
				x, y := g.dump(t, "."), p.dump(t, ".")
				if x != y {
					t.Fatalf("seed %d step %d: gofer\n%s\ntmpfs\n%s", seed, step, x, y)
				}
				if h := hostDump(t, dir, "."); h != x {
					t.Fatalf("seed %d step %d: gofer\n%s\nhost\n%s", seed, step, x, h)
				}
				if step%300 == 299 {
					vfs.Shrink(1000, nil)
				}
			}
		}
		for _, e := range []*env{g, p} {
			for _, f := range e.open {
				f.DecRef()
			}
		}
		for vfs.Shrink(1<<20, nil) > 0 {
		}
		fs.fds.shrink()
		fs.handles.shrink()
		fs.c.FlushCloses()
		if _, err := fs.StatFS(vfs.Background()); err != nil {
			t.Error(err)
		}
		left, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", cmd.Process.Pid))
		if len(fs.inodes) > 1 || len(left) > 12 || len(fs.fds.items) > 0 {
			t.Errorf("seed %d: %d inodes and %d descriptors are left, and %d of the gofer's", seed, len(fs.inodes), len(fs.fds.items), len(left))
		}
	}
}
