package overlay

import (
	"fmt"
	"math/rand"
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
}

func (e *env) Root() vfs.Path { return e.root }
func (e *env) Cwd() vfs.Path  { return e.root }

func mount(t testing.TB, fs vfs.FileSystem) *env {
	ns, err := vfs.NewMountNamespace(auth.NewRootNamespace(), fs, "none", 0)
	if err != nil {
		t.Fatal(err)
	}
	return &env{vfs.Background(), ns.Root()}
}

// noRelease keeps a lower file system alive that is mounted for preparing it.
type noRelease struct{ *tmpfs.FileSystem }

func (noRelease) Release() {}

func (e *env) write(path, s string, flags uint32) error {
	f, err := vfs.Open(e, e.root, path, vfs.OpenOptions{Flags: unix.O_WRONLY | flags, Mode: 0o644})
	if err != nil {
		return err
	}
	defer f.DecRef()
	_, err = f.Write(e, usermem.Bytes([]byte(s)), 0)
	return err
}

func (e *env) read(path string) string {
	f, err := vfs.Open(e, e.root, path, vfs.OpenOptions{})
	if err != nil {
		return err.Error()
	}
	defer f.DecRef()
	b := make([]byte, 1<<16)
	n, err := f.Read(e, usermem.Bytes(b), 0)
	if err != nil {
		return err.Error()
	}
	return string(b[:n])
}

func (e *env) link(from, to string) error {
	p, err := vfs.Resolve(e, e.root, from, 0)
	if err != nil {
		return err
	}
	defer p.DecRef()
	return vfs.Link(e, p, e.root, to)
}

func (e *env) chmod(path string, mode uint16) error {
	p, err := vfs.Resolve(e, e.root, path, 0)
	if err != nil {
		return err
	}
	defer p.DecRef()
	return vfs.Chmod(e, p, mode)
}

func (e *env) truncate(path string, size int64) error {
	p, err := vfs.Resolve(e, e.root, path, vfs.Follow)
	if err != nil {
		return err
	}
	defer p.DecRef()
	return vfs.Truncate(e, p, size)
}

// dump describes the tree below dir.
func (e *env) dump(t *testing.T, dir string, inos map[string]uint64) string {
	f, err := vfs.Open(e, e.root, dir, vfs.OpenOptions{Flags: unix.O_DIRECTORY})
	if err != nil {
		t.Fatal(dir, err)
	}
	defer f.DecRef()
	var names []string
	dino := map[string]uint64{}
	f.ReadDir(e, func(d vfs.Dirent) error {
		if d.Name != "." && d.Name != ".." {
			names = append(names, d.Name)
			dino[d.Name] = d.Ino
		}
		return nil
	})
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
		if err != nil {
			t.Fatal(path, err)
		}
		if a.Ino != dino[n] {
			t.Errorf("%s: d_ino %d, st_ino %d", path, dino[n], a.Ino)
		}
		if inos != nil {
			inos[path] = a.Ino
		}
		fmt.Fprintf(&b, "%s %o %d", path, a.Mode, a.Nlink)
		switch a.FileType() {
		case unix.S_IFDIR:
			fmt.Fprintf(&b, "\n%s", e.dump(t, path, inos))
		case unix.S_IFREG:
			fmt.Fprintf(&b, " %d %q\n", a.Size, e.read(path))
		default:
			b.WriteString("\n")
		}
	}
	return b.String()
}

func populate(e *env) {
	for _, d := range []string{"d0", "d0/d1", "d0/d1/d2", "d3", "d3/d4"} {
		vfs.Mkdir(e, e.root, d, 0o755)
		for i := range 4 {
			e.write(fmt.Sprintf("%s/f%d", d, i), strings.Repeat(fmt.Sprint(i), 100*i), unix.O_CREAT)
		}
		e.link(d+"/f1", d+"/h")
		vfs.Symlink(e, "f2", e.root, d+"/s")
	}
}

func newPair(t testing.TB) (over, plain *env, fs *FileSystem, mem *memory.File) {
	mem, err := memory.New(-1, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	lower := tmpfs.New(mem, tmpfs.Options{Mode: 0o755})
	populate(mount(t, noRelease{lower}))
	fs, err = New(tmpfs.New(mem, tmpfs.Options{}), lower)
	if err != nil {
		t.Fatal(err)
	}
	over, plain = mount(t, fs), mount(t, tmpfs.New(mem, tmpfs.Options{Mode: 0o755}))
	populate(plain)
	return
}

// TestLikeTmpfs does the same random things to an overlay and to a plain file system with the same files.
func TestLikeTmpfs(t *testing.T) {
	for seed := range int64(6) {
		o, p, fs, _ := newPair(t)
		r := rand.New(rand.NewSource(seed))
		name := func() string {
			s := ""
			for range 1 + r.Intn(3) {
				s += "/" + []string{"d0", "d1", "d2", "d3", "d4", "f0", "f1", "f2", "h", "s", "n1", "n2"}[r.Intn(12)]
			}
			return s
		}
		both := func(what string, fn func(e *env) error) {
			if a, b := fn(o), fn(p); a != b {
				t.Fatalf("seed %d: %s: overlay %v, tmpfs %v", seed, what, a, b)
			}
		}
		for step := range 3000 {
			a, b, n := name(), name(), r.Intn(300)
			switch r.Intn(11) {
			case 0:
				both("mkdir "+a, func(e *env) error { return vfs.Mkdir(e, e.root, a, 0o700) })
			case 1:
				both("write "+a, func(e *env) error { return e.write(a, fmt.Sprint(step), unix.O_CREAT) })
			case 2:
				both("append "+a, func(e *env) error { return e.write(a, fmt.Sprint(step), unix.O_APPEND) })
			case 3:
				both("unlink "+a, func(e *env) error { return vfs.Unlink(e, e.root, a) })
			case 4:
				both("rmdir "+a, func(e *env) error { return vfs.Rmdir(e, e.root, a) })
			case 5, 6:
				both("rename "+a+" "+b, func(e *env) error { return vfs.Rename(e, e.root, a, e.root, b, 0) })
			case 7:
				both("exchange "+a+" "+b, func(e *env) error { return vfs.Rename(e, e.root, a, e.root, b, unix.RENAME_EXCHANGE) })
			case 8:
				both("link "+a+" "+b, func(e *env) error { return e.link(a, b) })
			case 9:
				both("chmod "+a, func(e *env) error { return e.chmod(a, uint16(n)|0o700) })
			case 10:
				both("truncate "+a, func(e *env) error { return e.truncate(a, int64(n)) })
			}
			if step%100 == 0 {
				if a, b := o.dump(t, ".", nil), p.dump(t, ".", nil); a != b {
					t.Fatalf("seed %d step %d: overlay\n%s\ntmpfs\n%s", seed, step, a, b)
				}
				if step%500 == 0 {
					vfs.Shrink(1000, nil)
				}
			}
		}
		_ = fs
	}
}

// +checklocksignore: nobody else.
func TestInodeNumbers(t *testing.T) {
	o, _, fs, _ := newPair(t)
	before, after := map[string]uint64{}, map[string]uint64{}
	o.dump(t, ".", before)
	for p := range before {
		o.chmod(p, 0o777)
		o.write(p, "x", unix.O_APPEND)
	}
	vfs.Shrink(1000, nil)
	o.dump(t, ".", after)
	for p, i := range before {
		if after[p] != i {
			t.Errorf("%s: inode %d became %d", p, i, after[p])
		}
	}
	if _, ok := fs.nodes[fs.lower.Root()]; !ok {
		t.Error("root")
	}
}

// TestCoherence: a file opened for reading sees what is written after a copy-up.
func TestCoherence(t *testing.T) {
	o, _, _, _ := newPair(t)
	f, err := vfs.Open(o, o.root, "d0/f1", vfs.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.DecRef()
	b := make([]byte, 200)
	f.PRead(o, usermem.Bytes(b), 0, 0)
	o.write("d0/h", "changed", 0)
	n, err := f.PRead(o, usermem.Bytes(b), 0, 0)
	if err != nil || n != 100 || !strings.HasPrefix(string(b[:n]), "changed1") {
		t.Error(n, err, string(b[:n]))
	}
}

// +checklocksignore: nobody else.
func TestNothingLeft(t *testing.T) {
	o, p, fs, mem := newPair(t)
	for i := range 200 {
		o.write(fmt.Sprintf("d0/t%d", i), strings.Repeat("x", 5000), unix.O_CREAT)
		vfs.Unlink(o, o.root, fmt.Sprintf("d0/t%d", i))
	}
	if n := len(fs.root.dir.entries); n != 0 {
		t.Error(n, "entries")
	}
	d, _ := vfs.Resolve(o, o.root, "d0", 0)
	if n := len(d.Inode().(*node).dir.entries); n != 0 {
		t.Error(n, "entries stay in d0")
	}
	d.DecRef()
	m := o.root.Mount.Namespace()
	o.root.DecRef()
	m.DecRef()
	m = p.root.Mount.Namespace()
	p.root.DecRef()
	m.DecRef()
	// What remains belongs to the mount that prepared the lower files.
	vfs.Shrink(1<<20, nil)
	if mem.Used() > 8192 {
		t.Error(mem.Used(), "bytes left")
	}
}

func init() { lazySize = 50 } // so that the small files here are copied page by page too

// TestDirectorySize: a new directory's size grows and shrinks with its names, as on tmpfs.
func TestDirectorySize(t *testing.T) {
	o, _, _, _ := newPair(t)
	size := func() int64 {
		p, err := vfs.Resolve(o, o.root, "/new", 0)
		if err != nil {
			t.Fatal(err)
		}
		defer p.DecRef()
		a, err := vfs.Stat(o, p)
		if err != nil {
			t.Fatal(err)
		}
		return a.Size
	}
	vfs.Mkdir(o, o.root, "/new", 0o700)
	empty := size()
	o.write("/new/a", "x", unix.O_CREAT)
	o.write("/new/b", "x", unix.O_CREAT)
	two := size()
	vfs.Unlink(o, o.root, "/new/a")
	if one := size(); empty != 40 || two != 80 || one != 60 {
		t.Errorf("sizes %d, %d, %d with 0, 2, 1 names", empty, two, one)
	}
}
