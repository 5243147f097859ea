package gofer

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moat/sentry/fs/tmpfs"
	"moat/sentry/memory"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

// TestDoubt: what others on the host did to names of an exclusive mount is seen after a doubt, whatever was cached; who finds nothing changed
// asks for the directories alone.
func TestDoubt(t *testing.T) {
	fs, dir, _ := mount(t, false)
	e := newEnv(t, fs)
	at := func(s string) string { return filepath.Join(dir, s) }
	put := func(name, s string) {
		t.Helper()
		os.RemoveAll(at(name))
		if err := os.WriteFile(at(name), []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	has := func(path string) string {
		f, err := vfs.Open(e, e.root, path, vfs.OpenOptions{})
		if err != nil {
			return err.Error()
		}
		defer f.DecRef()
		return e.read(f)
	}
	check := func(when string, want map[string]string) {
		t.Helper()
		for path, s := range want {
			if got := has(path); got != s {
				t.Errorf("%s: %s is %q, not %q", when, path, got, s)
			}
		}
	}
	for _, d := range []string{"a", "a/b", "a/b/c", "gone"} {
		if err := os.Mkdir(at(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"f", "a/f", "a/b/f", "a/b/c/f", "gone/f"} {
		put(f, "old")
		for n := range 5 {
			put(fmt.Sprint(f, n), "x")
		}
	}
	time.Sleep(50 * time.Millisecond) // until the next change has another time, on any kernel
	none := unix.ENOENT.Error()
	old := map[string]string{"f": "old", "a/f": "old", "a/b/f": "old", "a/b/c/f": "old", "gone/f": "old", "a/new": none, "a/b/c/new": none, "new": none}
	check("before", old)
	e.dump(t, ".")
	Doubt()
	check("nothing changed", old)
	time.Sleep(50 * time.Millisecond)
	Doubt()
	was := fs.c.Requests.Load()
	check("nothing changed", old)
	if n := fs.c.Requests.Load() - was; n < 5 || n > 10 {
		t.Errorf("%d requests for 5 directories that did not change", n)
	}
	kept, err := vfs.Open(e, e.root, "a/f", vfs.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	put("new", "1")
	put("a/new", "2")
	put("a/b/c/new", "3")
	put("a/f", "replaced")
	put("a/b/c/f", "replaced")
	os.RemoveAll(at("gone"))
	if err := os.Chmod(at("a"), 0o700); err != nil {
		t.Fatal(err)
	}
	Doubt()
	changed := map[string]string{"f": "old", "a/f": "replaced", "a/b/f": "old", "a/b/c/f": "replaced", "gone/f": none, "a/new": "2", "a/b/c/new": "3", "new": "1"}
	check("after", changed)
	if s := e.read(kept); s != "old" {
		t.Errorf("the open file is %q", s)
	}
	kept.DecRef()
	if err := e.on("a", func(p vfs.Path) error {
		a, err := vfs.Stat(e, p)
		if a.Mode != unix.S_IFDIR|0o700 {
			t.Errorf("a's mode is %o", a.Mode)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	if got, err := entries(e, "a/b/c"); err != nil || got != 2+6+1 {
		t.Errorf("a/b/c has %d names: %v", got, err)
	}
	// What the sandbox itself does is no reason to miss what others do.
	for n := range 3 {
		mine, theirs := fmt.Sprint("a/mine", n), fmt.Sprint("a/theirs", n)
		check("not yet", map[string]string{theirs: none})
		if err := e.write(mine, "m", unix.O_CREAT, false); err != nil {
			t.Fatal(err)
		}
		put(theirs, "t")
		if err := e.write(mine+"-", "m", unix.O_CREAT, false); err != nil {
			t.Fatal(err)
		}
		Doubt()
		check("beside others", map[string]string{theirs: "t", mine: "m", mine + "-": "m"})
	}
	// In time, it is seen without any order.
	check("not yet", map[string]string{"a/late": none})
	put("a/late", "l")
	for end := time.Now().Add(time.Minute); has("a/late") != "l"; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a name that was missing is missing for good")
		}
	}
}

// TestDoubtOnOverlay: a host's overlay gives what is changed another time of birth. It is the same file all the same, and what is mounted there stays.
func TestDoubtOnOverlay(t *testing.T) {
	layers := t.TempDir()
	for _, d := range []string{"lower/d/sub", "lower/e/sub", "upper", "work"} {
		os.MkdirAll(filepath.Join(layers, d), 0o755)
	}
	for _, f := range []string{"d/f", "d/g", "e/f"} {
		os.WriteFile(filepath.Join(layers, "lower", f), []byte("lower"), 0o644)
	}
	dir := t.TempDir()
	if err := unix.Mount("overlay", dir, "overlay", 0, fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", layers)); err != nil {
		t.Skip("no overlay can be mounted: ", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	fs, _, _ := mountDir(t, dir, false)
	e := newEnv(t, fs)
	mem, err := memory.New(-1, 1<<28)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"d/sub", "e/sub"} {
		if err := e.on(d, func(p vfs.Path) error { return vfs.MountFS(tmpfs.New(mem, tmpfs.Options{}), p, "none", "", 0) }); err != nil {
			t.Fatal(err)
		}
		if err := e.write(d+"/in", "mounted", unix.O_CREAT, false); err != nil {
			t.Fatal(err)
		}
	}
	inode := func(path string) (i vfs.Inode) {
		t.Helper()
		if err := e.on(path, func(p vfs.Path) error { i = p.Inode(); return nil }); err != nil {
			t.Fatal(path, err)
		}
		return i
	}
	was := map[string]vfs.Inode{}
	names := []string{"d", "d/f", "d/g", "e", "d/sub/in", "e/sub/in"}
	for _, n := range names {
		was[n] = inode(n)
	}
	time.Sleep(50 * time.Millisecond)
	// The sandbox changes d and what is in it, somebody else e.
	if err := e.write("d/f", "UPPER", 0, true); err != nil {
		t.Fatal(err)
	}
	if err := e.write("d/new", "new", unix.O_CREAT, false); err != nil {
		t.Fatal(err)
	}
	if err := e.on("d/g", func(p vfs.Path) error { return vfs.Chmod(e, p, 0o600) }); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(dir, "e/theirs"), []byte("theirs"), 0o644)
	for range 2 {
		Doubt()
		for _, n := range names {
			if inode(n) != was[n] {
				t.Errorf("%s is another inode", n)
			}
		}
		f, err := vfs.Open(e, e.root, "e/theirs", vfs.OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		f.DecRef()
		fs.handles.shrink() // what is found again is found
	}
	if _, err := e.open[0].Write(e, usermem.Bytes([]byte(" AND MORE")), 0); err != nil {
		t.Fatal(err)
	}
	if f, err := vfs.Open(e, e.root, "d/f", vfs.OpenOptions{}); err != nil || e.read(f) != "UPPER AND MORE" {
		t.Error("d/f: ", err)
	}
}

// entries counts the entries of a directory.
func entries(e *env, path string) (n int, err error) {
	f, err := vfs.Open(e, e.root, path, vfs.OpenOptions{Flags: unix.O_DIRECTORY})
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	return n, f.ReadDir(e, func(vfs.Dirent) error { n++; return nil })
}
