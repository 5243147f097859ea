package gofer

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moat/sentry/kernel/auth"
	"moat/sentry/vfs"
)

// look is what stat(2) tells of path: errno, or type, mode, size, links and times.
func (e *env) look(path string) string {
	p, err := vfs.Resolve(e, e.root, path, 0)
	if err != nil {
		return err.Error()
	}
	defer p.DecRef()
	a, err := vfs.Stat(e, p)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d %o size %d links %d owner %d times %d %d", a.Ino, a.Mode, a.Size, a.Nlink, a.UID, a.Mtime, a.Ctime)
}

// hostLook is look on the host.
func hostLook(path string) string {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d %o size %d links %d owner %d times %d %d", st.Ino, st.Mode, st.Size, st.Nlink, st.Uid, st.Mtim.Nano(), st.Ctim.Nano())
}

// TestHostChanges: what the host does to a shared mount is seen by the next look, whether the times of directories tell of it or not, and however few
// descriptors there are; and as long as it does nothing, what was looked at is looked at without a request.
func TestHostChanges(t *testing.T) {
	for _, what := range []string{"by time", "by request", "few descriptors"} {
		t.Run(what, func(t *testing.T) {
			fs, dir, _ := mount(t, true)
			switch what {
			case "by request":
				fs.timed = false
			case "few descriptors":
				fs.fds.max, fs.handles.max = 2, 3
			}
			e := newEnv(t, fs)
			at := func(p string) string { return filepath.Join(dir, p) }
			must := func(errs ...error) {
				t.Helper()
				for _, err := range errs {
					if err != nil {
						t.Fatal(err)
					}
				}
			}
			must(os.MkdirAll(at("a/b/c"), 0o755), os.WriteFile(at("a/b/f"), []byte("1"), 0o644), os.WriteFile(at("a/g"), []byte("1"), 0o644),
				os.Link(at("a/g"), at("a/b/h")), os.Symlink("f", at("a/b/l")), os.MkdirAll(at("z/b"), 0o700), os.WriteFile(at("z/b/f"), []byte("other"), 0o600))
			paths := []string{"", "a", "a/b", "a/b/c", "a/b/f", "a/g", "a/b/h", "a/b/l", "a/b/none", "a/b/c/none", "z/b/f", "a/n", "a/n/f"}
			same := func(what string) {
				t.Helper()
				for round := range 4 {
					for _, p := range paths {
						if got, want := e.look("/"+p), hostLook(at(p)); got != want {
							t.Errorf("after %s, round %d: %q is %s, on the host %s", what, round, p, got, want)
						}
					}
				}
			}
			same("the start")
			for round := 0; what == "by time"; round++ { // the host's clock must go on first
				before := fs.c.Requests.Load()
				same("nothing")
				n := fs.c.Requests.Load() - before
				if n == 0 {
					break
				}
				if round == 100 {
					t.Fatalf("%d requests although nothing has changed for long", n)
				}
				time.Sleep(10 * time.Millisecond)
			}
			f, err := os.OpenFile(at("a/b/f"), os.O_RDWR, 0)
			must(err)
			defer f.Close()
			bind := t.TempDir()
			mounted := unix.Mount(at("a/b"), bind, "", unix.MS_BIND, "") == nil
			if mounted {
				defer unix.Unmount(bind, unix.MNT_DETACH)
			}
			owner := os.Getuid()
			if owner == 0 {
				owner = 4711
			}
			for _, c := range []struct {
				what string
				do   func() error
			}{
				{"create", func() error { return os.WriteFile(at("a/b/none"), nil, 0o600) }},
				{"create deeper", func() error { return os.WriteFile(at("a/b/c/none"), nil, 0o600) }},
				{"chmod", func() error { return os.Chmod(at("a/b/f"), 0o604) }},
				{"chown", func() error { return os.Chown(at("a/b/f"), owner, os.Getgid()) }},
				{"write", func() error { _, err := f.WriteString("more"); return err }},
				{"truncate", func() error { return f.Truncate(2) }},
				{"write by another link", func() error { return os.WriteFile(at("a/g"), []byte("three"), 0) }},
				{"chmod by another link", func() error { return os.Chmod(at("a/g"), 0o611) }},
				{"unlink of another link", func() error { return os.Remove(at("a/g")) }},
				{"fchmod of what was opened by a name that is gone", func() error { return f.Chmod(0o600) }},
				{"times", func() error { return unix.Utimes(at("a/b/f"), make([]unix.Timeval, 2)) }},
				{"write through a mapping", func() error {
					m, err := unix.Mmap(int(f.Fd()), 0, 1, unix.PROT_WRITE, unix.MAP_SHARED)
					if err == nil {
						m[0]++
						err = unix.Munmap(m)
					}
					return err
				}},
				{"chmod of a directory", func() error { return os.Chmod(at("a/b"), 0o711) }},
				{"chmod of the root", func() error { return os.Chmod(dir, 0o711) }},
				{"rename", func() error { return os.Rename(at("a/b/f"), at("a/b/none")) }},
				{"rename over a link", func() error { return os.Rename(at("a/b/none"), at("a/b/l")) }},
				{"exchange", func() error {
					return unix.Renameat2(unix.AT_FDCWD, at("a/b"), unix.AT_FDCWD, at("z/b"), unix.RENAME_EXCHANGE)
				}},
				{"rename of a directory above", func() error { return os.Rename(at("a"), at("y")) }},
				{"another in its place", func() error { return os.Rename(at("z"), at("a")) }},
				{"mkdir", func() error { return os.Mkdir(at("a/n"), 0o755) }},
				{"create in it", func() error { return os.WriteFile(at("a/n/f"), nil, 0o600) }},
				{"rmdir", func() error { return os.RemoveAll(at("a/n")) }},
				{"mkdir again", func() error { return os.MkdirAll(at("a/n/f"), 0o755) }},
				{"through another mount", func() error {
					if !mounted {
						return os.WriteFile(at("a/b/c/x"), nil, 0o600)
					}
					return os.Rename(filepath.Join(bind, "l"), filepath.Join(bind, "f"))
				}},
				{"many changes", func() error {
					for i := range 10_000 {
						n := at(fmt.Sprint("a/b/", i))
						if err := os.WriteFile(n, nil, 0o600); err != nil {
							return err
						}
						if err := os.Remove(n); err != nil {
							return err
						}
					}
					return os.Rename(at("a/b"), at("a/x"))
				}},
			} {
				if err := c.do(); err != nil {
					t.Fatal(c.what, err)
				}
				same(c.what)
			}
		})
	}
}

// TestHostYoung: once the clock that times are from has gone on since a change, looks at what was changed make no request each; what is changed then is seen.
func TestHostYoung(t *testing.T) {
	fs, dir, _ := mount(t, true)
	e := newEnv(t, fs)
	f := filepath.Join(dir, "f")
	var now unix.Timespec
	for round := range 20 {
		os.Remove(f)
		if err := os.WriteFile(f, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		e.look("/f") // at once: this tells nothing of later
		st, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		for now.Nano() <= st.ModTime().UnixNano() {
			if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now); err != nil {
				t.Fatal(err)
			}
		}
		before := fs.c.Requests.Load()
		for range 200 {
			if got, want := e.look("/f"), hostLook(f); got != want {
				t.Fatalf("round %d: %s, on the host %s", round, got, want)
			}
		}
		// The name, the owners of the file and its directory, and those once more when no change can be under way any longer.
		if n := fs.c.Requests.Load() - before; n > 5 {
			t.Fatalf("round %d: %d requests", round, n)
		}
		os.Chown(f, round, round)
		if got, want := e.look("/f"), hostLook(f); got != want {
			t.Fatalf("round %d, its owner changed: %s, on the host %s", round, got, want)
		}
	}
}

// TestHostModes: a mode that the host takes away is missed at once, that of a file by whatever name, of a directory on the way, and of the root.
func TestHostModes(t *testing.T) {
	fs, dir, _ := mount(t, true)
	e := newEnv(t, fs)
	user := vfs.WithCredentials(auth.NewUser(65534, 65534, nil, 0, e.Credentials().UserNS))
	for _, d := range []string{"", "d", "d/e"} {
		os.MkdirAll(filepath.Join(dir, d), 0o755)
		os.Chmod(filepath.Join(dir, d), 0o755)
	}
	f, other := filepath.Join(dir, "d/e/f"), filepath.Join(dir, "other")
	os.WriteFile(f, nil, 0o644)
	os.Chmod(f, 0o644)
	os.Link(f, other)
	open := func() error {
		fd, err := vfs.Open(user, e.root, "d/e/f", vfs.OpenOptions{})
		if err == nil {
			fd.DecRef()
		}
		return err
	}
	for _, p := range []string{f, other, filepath.Join(dir, "d"), filepath.Join(dir, "d/e"), dir} {
		st, _ := os.Stat(p)
		for range 4 {
			if err := open(); err != nil {
				t.Fatal(err)
			}
		}
		os.Chmod(p, 0o700&st.Mode().Perm())
		if err := open(); err != unix.EACCES {
			t.Errorf("%s has lost its mode: %v", p, err)
		}
		os.Chmod(p, st.Mode().Perm())
	}
}

// TestHostRaces: several look at a name, one of them for changes that others make at the same time. What was there before a look began, or something later, is
// what it must find.
func TestHostRaces(t *testing.T) {
	t.Run("here", func(t *testing.T) { races(t, t.TempDir()) })
	t.Run("times in seconds", func(t *testing.T) {
		image, dir := filepath.Join(t.TempDir(), "image"), t.TempDir()
		out, err := exec.Command("sh", "-c", fmt.Sprintf("truncate -s 16M %[1]s && mkfs.ext4 -q -I 128 %[1]s && mount -o loop %[1]s %[2]s", image, dir)).CombinedOutput()
		if err != nil {
			t.Skipf("no file system can be mounted: %s", out)
		}
		t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
		races(t, dir)
	})
}

func races(t *testing.T, dir string) {
	fs, _, _ := mountDir(t, dir, true)
	e := newEnv(t, fs)
	os.MkdirAll(filepath.Join(dir, "a/b"), 0o755)
	name := filepath.Join(dir, "a/b/f")
	const last = 2000
	put := func(n int) {
		tmp := fmt.Sprint(dir, "/tmp", n)
		os.WriteFile(tmp, nil, 0o600)
		os.Truncate(tmp, int64(n))
		if err := os.Rename(tmp, name); err != nil {
			t.Error(err)
		}
	}
	put(0)
	var done atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for before := int64(0); before < last; {
				before = done.Load()
				p, err := vfs.Resolve(e, e.root, "a/b/f", 0)
				var a vfs.Attr
				if err == nil {
					a, err = vfs.Stat(e, p)
					p.DecRef()
				}
				if err != nil || a.Size < before {
					t.Errorf("%d (%v) after %d", a.Size, err, before)
					return
				}
			}
		})
	}
	for n := int64(1); n <= last; n++ {
		put(int(n))
		done.Store(n)
	}
	wg.Wait()
}

// BenchmarkStatShared is stat(2) of a path on a shared mount that nobody changes.
func BenchmarkStatShared(b *testing.B) {
	fs, dir, _ := mount(b, true)
	os.WriteFile(filepath.Join(dir, "f"), nil, 0o600)
	e := newEnv(b, fs)
	for b.Loop() {
		p, err := vfs.Resolve(e, e.root, "f", 0)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := vfs.Stat(e, p); err != nil {
			b.Fatal(err)
		}
		p.DecRef()
	}
}
