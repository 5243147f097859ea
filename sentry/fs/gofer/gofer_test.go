package gofer

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"

	"moat/fsgofer"
	"moat/sentry/memmap"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

// TestMain is also the gofer process.
func TestMain(m *testing.M) {
	if os.Getenv("GOFER_TEST") != "" {
		err := fsgofer.Serve(fsgofer.Options{Conn: 3, ProcFD: -1, NoSeccomp: true, Mounts: []fsgofer.Mount{{ID: 1, FD: 4, Shared: os.Getenv("GOFER_TEST") == "shared"}}})
		fmt.Fprintln(os.Stderr, err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func mount(t testing.TB, shared bool) (*FS, string, *exec.Cmd) {
	return mountDir(t, t.TempDir(), shared)
}

func mountDir(t testing.TB, dir string, shared bool) (*FS, string, *exec.Cmd) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	srv := os.NewFile(uintptr(p[1]), "srv")
	exe, _ := os.Executable()
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "GOFER_TEST="+map[bool]string{false: "exclusive", true: "shared"}[shared])
	cmd.ExtraFiles = []*os.File{srv, root}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	srv.Close()
	root.Close()
	c, err := NewClient(p[0], func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Shutdown(p[0], unix.SHUT_RDWR); unix.Close(p[0]); cmd.Wait() })
	fs, err := Mount(c, 1, Options{Shared: shared})
	if err != nil {
		t.Fatal(err)
	}
	return fs, dir, cmd
}

var bg = vfs.Background()

func lookup(t testing.TB, dir vfs.Inode, name string) *inode {
	t.Helper()
	i, err := dir.Lookup(bg, name)
	if err != nil {
		t.Fatal(name, err)
	}
	return i.(*inode)
}

func create(t testing.TB, dir vfs.Inode, name string) *inode {
	t.Helper()
	i, err := dir.Create(bg, name, vfs.CreateOptions{Mode: unix.S_IFREG | 0o644})
	if err != nil {
		t.Fatal(name, err)
	}
	return i.(*inode)
}

func open(t testing.TB, i *inode, flags uint32) *file {
	t.Helper()
	f, err := i.Open(bg, nil, flags)
	if err != nil {
		t.Fatal(err)
	}
	return f.(*file)
}

func write(t testing.TB, f *file, s string, off int64, flags vfs.IOFlags) int64 {
	t.Helper()
	n, end, err := f.Write(bg, nil, usermem.Bytes([]byte(s)), off, flags)
	if err != nil || n != int64(len(s)) {
		t.Fatal(n, err)
	}
	return end
}

func read(t testing.TB, f *file, n int, off int64) string {
	t.Helper()
	b := make([]byte, n)
	m, err := f.Read(bg, nil, usermem.Bytes(b), off, 0)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:m])
}

func attr(t testing.TB, i *inode) vfs.Attr {
	t.Helper()
	a, err := i.Attr(bg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestExclusive(t *testing.T) {
	fs, dir, _ := mount(t, false)
	root := fs.Root()
	i := create(t, root, "f")
	f := open(t, i, unix.O_RDWR)
	write(t, f, "hello", 0, 0)
	if end := write(t, f, " world", 0, vfs.IOAppend); end != 11 {
		t.Error("append ends at", end)
	}
	if s := read(t, f, 100, 3); s != "lo world" {
		t.Errorf("read %q", s)
	}
	host, _ := os.Stat(filepath.Join(dir, "f"))
	if a := attr(t, i); a.Size != 11 || int64(a.Mtime) != host.ModTime().UnixNano() || a.Mode != unix.S_IFREG|0o644 || a.Nlink != 1 {
		t.Errorf("%+v", a)
	}
	// All is known by now: no more requests.
	was := fs.c.Requests.Load()
	g := open(t, i, unix.O_RDONLY)
	attr(t, i)
	read(t, g, 5, 0)
	g.Release(bg, nil)
	if n := fs.c.Requests.Load() - was; n != 0 {
		t.Errorf("open, stat and read of a known file made %d requests", n)
	}
	if err := i.SetAttr(bg, vfs.SetAttr{Valid: vfs.SetSize | vfs.SetMode, Size: 4, Mode: 0o4755}); err != nil {
		t.Error(err)
	}
	if a := attr(t, i); a.Size != 4 || a.Mode != unix.S_IFREG|0o4755 || read(t, f, 9, 0) != "hell" {
		t.Errorf("after truncate: %+v", a)
	}
	// Renamed, then unlinked while open.
	d, err := root.Mkdir(bg, "d", vfs.CreateOptions{Mode: 0o755, UID: 3, GID: 4})
	if err != nil || attr(t, d.(*inode)).UID != 3 {
		t.Fatal(err)
	}
	if err := root.Rename(bg, "f", i, d, "g", nil, 0); err != nil {
		t.Fatal(err)
	}
	if j := lookup(t, d, "g"); j != i {
		t.Error("a rename made another inode")
	}
	if err := i.SetAttr(bg, vfs.SetAttr{Valid: vfs.SetMtime, Mtime: 1e9}); err != nil || attr(t, i).Mtime != 1e9 {
		t.Error("setattr after rename", err)
	}
	if err := root.Rmdir(bg, "d", d); err != unix.ENOTEMPTY {
		t.Error(err)
	}
	if err := d.Unlink(bg, "g", i); err != nil {
		t.Fatal(err)
	}
	write(t, f, "still", 0, 0)
	if a := attr(t, i); a.Nlink != 0 || a.Size != 5 || read(t, f, 9, 0) != "still" {
		t.Errorf("unlinked: %+v", a)
	}
	f.Release(bg, nil)
	i.Evict()
	if err := root.Rmdir(bg, "d", d); err != nil {
		t.Error(err)
	}
	if err := root.Link(bg, "l2", create(t, root, "l1")); err != nil {
		t.Error(err)
	}
	if lookup(t, root, "l1") != lookup(t, root, "l2") || attr(t, lookup(t, root, "l1")).Nlink != 2 {
		t.Error("two names are two inodes")
	}
	if _, err := root.Symlink(bg, "s", "../x", vfs.CreateOptions{}); err != nil {
		t.Error(err)
	}
	was = fs.c.Requests.Load()
	if s, err := lookup(t, root, "s").Readlink(bg); s != "../x" || err != nil || fs.c.Requests.Load() != was+1 {
		t.Error(s, err)
	}
	if _, err := root.Create(bg, "l1", vfs.CreateOptions{Mode: 0o600}); err != unix.EEXIST {
		t.Error(err)
	}
	if _, err := root.Lookup(bg, "none"); err != unix.ENOENT {
		t.Error(err)
	}
	tmp, err := root.(vfs.TmpfileMaker).Tmpfile(bg, vfs.CreateOptions{Mode: unix.S_IFREG | 0o600})
	if err == nil {
		if err := root.Link(bg, "named", tmp); err != nil {
			t.Error("link of a tmpfile", err)
		}
	} else if err != unix.EOPNOTSUPP {
		t.Error(err)
	}
}

func list(t testing.TB, f *dirFile, stop int) (names []string) {
	t.Helper()
	var off int64
	for {
		n := 0
		next, err := f.ReadDir(bg, nil, off, func(d vfs.Dirent) error {
			if n == stop {
				return unix.EINVAL
			}
			n++
			names = append(names, d.Name)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return names
		}
		off = next
	}
}

func TestReadDir(t *testing.T) {
	fs, dir, _ := mount(t, false)
	root := fs.root
	for _, count := range []int{0, 1, 100, 20000} {
		for n := len(list(t, &dirFile{inode: root}, 1000)) - 2; n < count; n++ {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("a-file-named-%d", n)), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		root.list.Store(nil)
		for _, stop := range []int{1 << 30, 100, 7} {
			names := list(t, &dirFile{inode: root}, stop)
			seen := map[string]bool{}
			for _, n := range names {
				seen[n] = true
			}
			if len(names) != count+2 || len(seen) != count+2 || names[0] != "." || names[1] != ".." {
				t.Errorf("%d entries (stop %d): %d, %d different, first %v", count, stop, len(names), len(seen), names[:2])
			}
		}
	}
	// A short directory is known after it was listed, and no longer after a change.
	d, _ := root.Mkdir(bg, "d", vfs.CreateOptions{Mode: 0o755})
	list(t, &dirFile{inode: d.(*inode)}, 10)
	was := fs.c.Requests.Load()
	list(t, &dirFile{inode: d.(*inode)}, 10)
	if _, err := d.Lookup(bg, "x"); err != unix.ENOENT || fs.c.Requests.Load() != was {
		t.Error("requests for what is known", err)
	}
	create(t, d, "x")
	if names := list(t, &dirFile{inode: d.(*inode)}, 10); len(names) != 3 {
		t.Error(names)
	}
	lookup(t, d, "x")
}

func TestShared(t *testing.T) {
	fs, dir, cmd := mount(t, true)
	path := filepath.Join(dir, "f")
	os.WriteFile(path, []byte("one"), 0o600)
	i := lookup(t, fs.root, "f")
	f := open(t, i, unix.O_RDWR)
	os.WriteFile(path, []byte("three"), 0o600)
	if a := attr(t, i); a.Size != 5 || read(t, f, 10, 0) != "three" {
		t.Errorf("size %d", a.Size)
	}
	h, _ := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	h.WriteString("+host")
	h.Close()
	if end := write(t, f, "+guest", 0, vfs.IOAppend); end != 16 {
		t.Error("append ends at", end)
	}
	var proof atomic.Int64
	if ok, err := fs.root.Revalidate(bg, "f", i, &proof); !ok || err != nil {
		t.Error(ok, err)
	}
	os.Remove(path)
	os.WriteFile(path, []byte("other"), 0o600)
	if ok, err := fs.root.Revalidate(bg, "f", i, &proof); ok || err != nil {
		t.Error("another file under the name is taken for the same", err)
	}
	os.Remove(path)
	if ok, err := fs.root.Revalidate(bg, "f", nil, &proof); !ok || err != nil {
		t.Error("a name that is gone", err)
	}
	if s := read(t, f, 100, 0); s != "three+host+guest" {
		t.Errorf("%q", s)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if _, err := fs.root.Lookup(bg, "f"); err != unix.EIO {
		t.Error("after the gofer's death:", err)
	}
	if s := read(t, f, 3, 0); s != "thr" {
		t.Errorf("%q", s)
	}
}

func TestMap(t *testing.T) {
	fs, _, _ := mount(t, false)
	i := create(t, fs.root, "f")
	f := open(t, i, unix.O_RDWR)
	write(t, f, string(bytes.Repeat([]byte("x"), 5000)), 0, 0)
	tr, err := i.Translate(memmap.FileRange{Start: 4096, End: 8192}, memmap.FileRange{Start: 0, End: 1 << 20}, hostarch.Read)
	if err != nil || len(tr) != 1 || tr[0].Source.End != 8192 || !tr[0].Perms.Write {
		t.Fatal(tr, err)
	}
	f.Release(bg, nil)
	i.dropFDs()
	b := make([]byte, 5)
	if n, err := tr[0].File.ReadAt(b, 4998); n != 2 || err == nil || b[0] != 'x' {
		t.Error("a mapped file was closed", n, err)
	}
	h := tr[0].File.(*hostFD)
	tr[0].File.DecRef(memmap.FileRange{Start: 0, End: 4096})
	tr[0].File.DecRef(memmap.FileRange{Start: 4096, End: 8192})
	if h.refs.Load() >= 0 {
		t.Error("an unmapped file stays open", h.refs.Load())
	}
	_, err = i.Translate(memmap.FileRange{Start: 8192, End: 12288}, memmap.FileRange{Start: 8192, End: 12288}, hostarch.Read)
	if be := (*memmap.BusError)(nil); !errors.As(err, &be) {
		t.Error(err)
	}
}

// TestManyDirs: more directories than handles are kept.
// +checklocksignore
func TestManyDirs(t *testing.T) {
	fs, dir, _ := mount(t, false)
	fs.handles.max = 20
	for a := range 10 {
		for b := range 10 {
			os.MkdirAll(filepath.Join(dir, fmt.Sprint(a), fmt.Sprint(b), "x"), 0o700)
		}
	}
	var leaves []*inode
	for a := range 10 {
		for b := range 10 {
			leaves = append(leaves, lookup(t, lookup(t, fs.root, fmt.Sprint(a)), fmt.Sprint(b)))
		}
	}
	if len(fs.handles.items) > 60 {
		t.Error(len(fs.handles.items), "handles")
	}
	for _, l := range leaves {
		lookup(t, l, "x")
	}
}

func BenchmarkOpenRead(b *testing.B) {
	fs, _, _ := mount(b, false)
	i := create(b, fs.root, "f")
	f := open(b, i, unix.O_RDWR)
	write(b, f, "hello", 0, 0)
	buf := make([]byte, 4096)
	dst := usermem.Bytes(buf)
	b.ReportAllocs()
	for b.Loop() {
		f.Read(bg, nil, dst, 0, 0)
	}
}

func BenchmarkLookup(b *testing.B) {
	fs, _, _ := mount(b, false)
	create(b, fs.root, "f")
	for b.Loop() {
		lookup(b, fs.root, "f")
	}
}

// TestPrefetch: what was listed is found without requests, and never with attributes from before a change.
func TestPrefetch(t *testing.T) {
	fs, dir, _ := mount(t, false)
	for n := range 2000 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%d", n)), make([]byte, n), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	was := fs.c.Requests.Load()
	d := &dirFile{inode: fs.root}
	var off int64
	for done := false; !done; {
		done = true
		off, _ = d.ReadDir(bg, nil, off, func(e vfs.Dirent) error {
			done = false
			if e.Type == unix.DT_REG {
				i := lookup(t, fs.root, e.Name)
				if a := attr(t, i); fmt.Sprintf("f%d", a.Size) != e.Name || a.Ino != e.Ino {
					t.Errorf("%s: %+v", e.Name, a)
				}
				i.Evict()
			}
			return nil
		})
	}
	if n := fs.c.Requests.Load() - was; n > 20 {
		t.Errorf("ls -l of 2000 files: %d requests", n)
	}
	if _, err := fs.root.Lookup(bg, "none"); err != unix.ENOENT {
		t.Error(err)
	}
	if n := fs.c.Requests.Load() - was; n > 20 {
		t.Error("a request for a name that is known not to be there")
	}
	i := lookup(t, fs.root, "f7")
	f := open(t, i, unix.O_WRONLY)
	write(t, f, "more than seven", 0, 0)
	f.Release(bg, nil)
	i.Evict()
	if a := attr(t, lookup(t, fs.root, "f7")); a.Size != 15 {
		t.Error("the size from before a write:", a.Size)
	}
	// Reading that skips a part does not make the listing complete.
	fs.root.list.Store(nil)
	d = &dirFile{inode: fs.root}
	list2 := func(off int64, n int) int64 {
		next, err := d.ReadDir(bg, nil, off, func(vfs.Dirent) error {
			if n--; n < 0 {
				return unix.EINVAL
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return next
	}
	mid := list2(0, 1500)
	fs.root.list.Store(nil)
	d = &dirFile{inode: fs.root}
	list2(0, 5)
	list2(mid, 1<<30)
	for n := range 2000 {
		lookup(t, fs.root, fmt.Sprintf("f%d", n))
	}
}

// TestAhead: a cold path takes one request, and what was found ahead is not believed after a change.
func TestAhead(t *testing.T) {
	fs, dir, _ := mount(t, false)
	os.MkdirAll(filepath.Join(dir, "a/b/c"), 0o700)
	os.WriteFile(filepath.Join(dir, "a/b/c/f"), []byte("x"), 0o600)
	was := fs.c.Requests.Load()
	fs.root.Prefetch(bg, "a", "b/c/none", false)
	b := lookup(t, lookup(t, fs.root, "a"), "b")
	c := lookup(t, b, "c")
	if _, err := c.Lookup(bg, "none"); err != unix.ENOENT || fs.c.Requests.Load() != was+1 {
		t.Error(err, fs.c.Requests.Load()-was, "requests")
	}
	lookup(t, c, "f")
	b.Prefetch(bg, "c", "f/none", false)
	create(t, c, "none")
	if c2 := lookup(t, b, "c"); c2 != c {
		t.Error("another inode")
	}
	lookup(t, c, "none")
	b.Prefetch(bg, "c", "none", false)
	if err := c.Unlink(bg, "none", lookup(t, c, "none")); err != nil {
		t.Error(err)
	}
	if _, err := lookup(t, b, "c").Lookup(bg, "none"); err != unix.ENOENT {
		t.Error(err)
	}
}

// TestFull: a full disk is ENOSPC, after what still fitted.
func TestFull(t *testing.T) {
	fs, dir, _ := mount(t, true)
	sub := filepath.Join(dir, "full")
	os.Mkdir(sub, 0o700)
	if err := unix.Mount("none", sub, "tmpfs", 0, "size=64k"); err != nil {
		t.Skip(err)
	}
	defer unix.Unmount(sub, unix.MNT_DETACH)
	f := open(t, create(t, lookup(t, fs.root, "full"), "f"), unix.O_RDWR)
	n, _, err := f.Write(bg, nil, usermem.Bytes(make([]byte, 100<<10)), 0, 0)
	if n == 0 || n > 64<<10 || err != nil {
		t.Error(n, err)
	}
	if n, _, err := f.Write(bg, nil, usermem.Bytes(make([]byte, 100)), n, 0); n != 0 || err != unix.ENOSPC {
		t.Error(n, err)
	}
	if err := f.Allocate(bg, 0, 0, 1<<20); err != unix.ENOSPC {
		t.Error(err)
	}
	f.Release(bg, nil)
}

func BenchmarkReadBig(b *testing.B) {
	fs, dir, _ := mount(b, false)
	os.WriteFile(filepath.Join(dir, "f"), make([]byte, 64<<20), 0o600)
	f := open(b, lookup(b, fs.root, "f"), unix.O_RDONLY)
	buf := make([]byte, 128<<10)
	h, _ := os.Open(filepath.Join(dir, "f"))
	for _, bench := range []struct {
		name string
		fn   func(off int64)
	}{{"gofer", func(off int64) { f.Read(bg, nil, usermem.Bytes(buf), off, 0) }}, {"host", func(off int64) { h.ReadAt(buf, off) }}} {
		b.Run(bench.name, func(b *testing.B) {
			b.SetBytes(int64(len(buf)))
			for i := 0; b.Loop(); i++ {
				bench.fn(int64(i%512) * int64(len(buf)))
			}
		})
	}
}

// TestReplaced: a file of an exclusive mount that the host replaced all the same can be opened.
func TestReplaced(t *testing.T) {
	fs, dir, _ := mount(t, false)
	path := filepath.Join(dir, "f")
	os.WriteFile(path, []byte("old"), 0o600)
	i := lookup(t, fs.root, "f")
	os.WriteFile(path+"2", []byte("new one"), 0o600)
	os.Rename(path+"2", path)
	f := open(t, i, unix.O_RDONLY)
	if s := read(t, f, 100, 0); s != "new one" {
		t.Errorf("%q", s)
	}
	f.Release(bg, nil)
}
