package tmpfs

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/sentry/kernel/auth"
	"moat/sentry/memmap"
	"moat/sentry/memory"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

type env struct {
	vfs.Context
	root, cwd vfs.Path
}

func (e *env) Root() vfs.Path { return e.root }
func (e *env) Cwd() vfs.Path  { return e.cwd }

func newEnv(t testing.TB) (*env, *FileSystem, *vfs.MountNamespace) {
	mem, err := memory.New(-1, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	fs := New(mem, Options{Mode: 0o755})
	ns, err := vfs.NewMountNamespace(auth.NewRootNamespace(), fs, "none", 0)
	if err != nil {
		t.Fatal(err)
	}
	ns.Owner = vfs.Background().Credentials().UserNS
	r := ns.Root()
	t.Cleanup(func() {
		r.DecRef()
		ns.DecRef()
		if n := fs.blocks.Load(); n != 0 {
			t.Errorf("%d pages left", n)
		}
		if n := mem.Used(); n > memory.PageSize {
			t.Errorf("%d bytes of memory left", n)
		}
		mem.Close()
	})
	return &env{vfs.Background(), r, r}, fs, ns
}

func (e *env) as(uid auth.KUID) *env {
	c := auth.NewUser(uid, auth.KGID(uid), nil, 0, e.Credentials().UserNS)
	return &env{vfs.WithCredentials(c), e.root, e.cwd}
}

func (e *env) open(t testing.TB, path string, flags uint32) *vfs.FileDescription {
	t.Helper()
	f, err := vfs.Open(e, e.cwd, path, vfs.OpenOptions{Flags: flags, Mode: 0o644})
	if err != nil {
		t.Fatalf("open %s: %v", path, err)
	}
	return f
}

func (e *env) wantOpen(t testing.TB, path string, flags uint32, want error) {
	t.Helper()
	f, err := vfs.Open(e, e.cwd, path, vfs.OpenOptions{Flags: flags, Mode: 0o644})
	if err == nil {
		f.DecRef()
	}
	is(t, "open "+path, err, want)
}

func is(t testing.TB, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func (e *env) ino(t testing.TB, path string) uint64 {
	t.Helper()
	p, err := vfs.Resolve(e, e.cwd, path, 0)
	if err != nil {
		t.Errorf("stat %s: %v", path, err)
		return 0
	}
	defer p.DecRef()
	a, _ := vfs.Stat(e, p)
	return a.Ino
}

func TestNames(t *testing.T) {
	e, _, _ := newEnv(t)
	for _, d := range []string{"a", "a/b", "a/b/c", "d"} {
		is(t, "mkdir", vfs.Mkdir(e, e.cwd, d, 0o755), nil)
	}
	is(t, "mkdir again", vfs.Mkdir(e, e.cwd, "a/", 0o755), unix.EEXIST)
	is(t, "mkdir .", vfs.Mkdir(e, e.cwd, "a/.", 0o755), unix.EEXIST)
	is(t, "mkdir below nothing", vfs.Mkdir(e, e.cwd, "x/y", 0o755), unix.ENOENT)
	e.open(t, "a/f", unix.O_CREAT|unix.O_WRONLY).DecRef()
	e.wantOpen(t, "a/f", unix.O_CREAT|unix.O_EXCL, unix.EEXIST)
	e.wantOpen(t, "a/f/", 0, unix.ENOTDIR)
	e.wantOpen(t, "a/f/g", 0, unix.ENOTDIR)
	e.wantOpen(t, "a/new/", unix.O_CREAT, unix.EISDIR)
	e.wantOpen(t, "a", unix.O_CREAT, unix.EISDIR)
	e.wantOpen(t, "a", unix.O_WRONLY, unix.EISDIR)
	e.wantOpen(t, "", 0, unix.ENOENT)
	e.wantOpen(t, string(bytes.Repeat([]byte("n"), 256)), 0, unix.ENAMETOOLONG)
	is(t, "symlink", vfs.Symlink(e, "loop", e.cwd, "loop"), nil)
	e.wantOpen(t, "loop", 0, unix.ELOOP)
	e.wantOpen(t, "loop/x", 0, unix.ELOOP)
	is(t, "symlink", vfs.Symlink(e, "../d/made", e.cwd, "a/dangling"), nil)
	e.wantOpen(t, "a/dangling", 0, unix.ENOENT)
	e.wantOpen(t, "a/dangling", unix.O_CREAT|unix.O_EXCL, unix.EEXIST)
	e.wantOpen(t, "a/dangling", unix.O_CREAT|unix.O_NOFOLLOW, unix.ELOOP)
	e.wantOpen(t, "a/dangling", unix.O_CREAT, nil)
	if e.ino(t, "d/made") == 0 {
		t.Error("O_CREAT through a dangling symlink made nothing")
	}
	is(t, "symlink abs", vfs.Symlink(e, "/a//b/", e.cwd, "abs"), nil)
	if e.ino(t, "abs/c") != e.ino(t, "a/b/c") || e.ino(t, "abs/../b/./c/..") != e.ino(t, "a/b") {
		t.Error("absolute symlink or ..")
	}
	if e.ino(t, "../../..") != e.ino(t, "/") {
		t.Error(".. leaves the root")
	}
	is(t, "rmdir full", vfs.Rmdir(e, e.cwd, "a"), unix.ENOTEMPTY)
	is(t, "rmdir .", vfs.Rmdir(e, e.cwd, "a/."), unix.EINVAL)
	is(t, "rmdir ..", vfs.Rmdir(e, e.cwd, "a/b/.."), unix.ENOTEMPTY)
	is(t, "rmdir file", vfs.Rmdir(e, e.cwd, "a/f"), unix.ENOTDIR)
	is(t, "unlink dir", vfs.Unlink(e, e.cwd, "a/b"), unix.EISDIR)
	is(t, "unlink slash", vfs.Unlink(e, e.cwd, "a/f/"), unix.ENOTDIR)
	mv := func(a, b string, fl uint32) error { return vfs.Rename(e, e.cwd, a, e.cwd, b, fl) }
	is(t, "into itself", mv("a", "a/b/x", 0), unix.EINVAL)
	is(t, "onto parent", mv("a/b/c", "a", 0), unix.ENOTEMPTY)
	is(t, "dir onto file", mv("d", "a/f", 0), unix.ENOTDIR)
	is(t, "file onto dir", mv("a/f", "d", 0), unix.EISDIR)
	is(t, "noreplace", mv("a/f", "d/made", unix.RENAME_NOREPLACE), unix.EEXIST)
	fi, mi := e.ino(t, "a/f"), e.ino(t, "d/made")
	is(t, "exchange", mv("a/f", "d/made", unix.RENAME_EXCHANGE), nil)
	if e.ino(t, "a/f") != mi || e.ino(t, "d/made") != fi {
		t.Error("exchange did not")
	}
	is(t, "exchange dirs", mv("a/b", "d", unix.RENAME_EXCHANGE), nil)
	if e.ino(t, "a/b/made") != fi || e.ino(t, "d/c/../..") != e.ino(t, "/") {
		t.Error("exchange of directories")
	}
	is(t, "link", func() error {
		p, _ := vfs.Resolve(e, e.cwd, "a/f", 0)
		defer p.DecRef()
		return vfs.Link(e, p, e.cwd, "hard")
	}(), nil)
	is(t, "rename same file", mv("hard", "a/f", 0), nil)
	f := e.open(t, "hard", 0)
	is(t, "unlink", vfs.Unlink(e, e.cwd, "hard"), nil)
	if s := vfs.PathString(e, e.root, f.Path()); s != "/hard (deleted)" {
		t.Error("path of an unlinked file:", s)
	}
	f.DecRef()
	if p, _ := vfs.Resolve(e, e.cwd, "d/c", 0); true {
		if s, ok := vfs.GetPath(e.root, p); s != "/d/c" || !ok {
			t.Error("path", s)
		}
		p.DecRef()
	}
}

func TestResolveFlags(t *testing.T) {
	e, _, _ := newEnv(t)
	vfs.Mkdir(e, e.cwd, "jail", 0o755)
	vfs.Mkdir(e, e.cwd, "jail/in", 0o755)
	vfs.Symlink(e, "/in", e.cwd, "jail/abs")
	vfs.Symlink(e, "../jail/in", e.cwd, "jail/out")
	j, _ := vfs.Resolve(e, e.cwd, "jail", 0)
	defer j.DecRef()
	for _, c := range []struct {
		path  string
		flags uint32
		want  error
	}{
		{"in/..", vfs.ResolveBeneath, nil}, {"..", vfs.ResolveBeneath, unix.EXDEV}, {"/in", vfs.ResolveBeneath, unix.EXDEV},
		{"abs", vfs.ResolveBeneath | vfs.Follow, unix.EXDEV}, {"abs", vfs.ResolveInRoot | vfs.Follow, nil},
		{"out", vfs.ResolveBeneath | vfs.Follow, unix.EXDEV}, {"../../in", vfs.ResolveInRoot, nil},
		{"out", vfs.ResolveNoSymlinks | vfs.Follow, unix.ELOOP}, {"out", vfs.ResolveNoSymlinks, nil},
		{"in", vfs.ResolveCached, nil}, {"never", vfs.ResolveCached, unix.EAGAIN},
	} {
		p, err := vfs.Resolve(e, j, c.path, c.flags)
		is(t, fmt.Sprintf("%s %#x", c.path, c.flags), err, c.want)
		p.DecRef()
	}
}

func TestPermissions(t *testing.T) {
	e, _, _ := newEnv(t)
	u := e.as(1000)
	vfs.Mkdir(e, e.cwd, "priv", 0o700)
	vfs.Mkdir(e, e.cwd, "tmp", 0o777)
	p, _ := vfs.Resolve(e, e.cwd, "tmp", 0)
	defer p.DecRef()
	is(t, "chmod", vfs.Chmod(e, p, 0o1777), nil)
	is(t, "chmod by other", vfs.Chmod(u, p, 0o777), unix.EPERM)
	u.wantOpen(t, "priv/x", 0, unix.EACCES)
	u.wantOpen(t, "x", unix.O_CREAT, unix.EACCES)
	e.open(t, "tmp/roots", unix.O_CREAT).DecRef()
	is(t, "sticky", vfs.Unlink(u, u.cwd, "tmp/roots"), unix.EPERM)
	u.open(t, "tmp/mine", unix.O_CREAT).DecRef()
	m, _ := vfs.Resolve(u, u.cwd, "tmp/mine", 0)
	defer m.DecRef()
	is(t, "setuid", vfs.Chmod(u, m, 0o4755), nil)
	f := u.open(t, "tmp/mine", unix.O_WRONLY)
	f.Write(u, usermem.Bytes([]byte("x")), 0)
	f.DecRef()
	if a, _ := vfs.Stat(e, m); a.Mode != unix.S_IFREG|0o755 {
		t.Errorf("set-user-id survives a write: %o", a.Mode)
	}
	is(t, "chown away", vfs.Chown(u, m, 5, auth.KGID(auth.NoID)), unix.EPERM)
	is(t, "mine", vfs.Unlink(u, u.cwd, "tmp/mine"), nil)
	x, err := vfs.OpenExec(e, m)
	is(t, "exec", err, nil)
	is(t, "text busy", func() error { _, err := vfs.OpenPath(e, m, unix.O_WRONLY); return err }(), unix.ETXTBSY)
	x.DecRef()
}

func TestMounts(t *testing.T) {
	e, fs, ns := newEnv(t)
	for _, d := range []string{"m", "b", "old"} {
		vfs.Mkdir(e, e.cwd, d, 0o755)
	}
	at := func(s string) vfs.Path {
		p, err := vfs.Resolve(e, e.cwd, s, 0)
		if err != nil {
			t.Fatal(s, err)
		}
		return p
	}
	m := at("m")
	is(t, "mount", vfs.MountFS(New(fs.mem, Options{}), m, "none", "", 0), nil)
	m.DecRef()
	e.open(t, "m/file", unix.O_CREAT).DecRef()
	vfs.Mkdir(e, e.cwd, "m/sub", 0o755)
	m, b := at("m"), at("b")
	is(t, "bind", vfs.BindMount(m, b, false), nil)
	b.DecRef()
	if e.ino(t, "b/file") != e.ino(t, "m/file") || e.ino(t, "b/..") != e.ino(t, "/") {
		t.Error("bind mount")
	}
	is(t, "rename across", vfs.Rename(e, e.cwd, "m/file", e.cwd, "b/x", 0), unix.EXDEV)
	is(t, "rmdir mount point", vfs.Rmdir(e, e.cwd, "m"), unix.EBUSY)
	b = at("b")
	is(t, "remount ro", vfs.DoMount(e, "", b, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""), nil)
	e.wantOpen(t, "b/file", unix.O_WRONLY, unix.EROFS)
	e.wantOpen(t, "b/new", unix.O_CREAT, unix.EROFS)
	e.open(t, "m/file", unix.O_WRONLY).DecRef()
	b.DecRef()
	// A shared mount's events reach its peers.
	is(t, "shared", vfs.DoMount(e, "", m, "", unix.MS_SHARED, ""), nil)
	ns2, ps := ns.Copy(e, e.root)
	e2 := &env{e.Context, ps[0], ps[0]}
	s := at("m/sub")
	is(t, "mount", vfs.MountFS(New(fs.mem, Options{}), s, "x", "", 0), nil)
	s.DecRef()
	e.open(t, "m/sub/inner", unix.O_CREAT).DecRef()
	if e2.ino(t, "m/sub/inner") != e.ino(t, "m/sub/inner") {
		t.Error("mount did not propagate")
	}
	s = at("m/sub")
	is(t, "umount", vfs.Unmount(e, s, 0), nil)
	s.DecRef()
	e2.wantOpen(t, "m/sub/inner", 0, unix.ENOENT)
	ps[0].DecRef()
	ns2.DecRef()
	is(t, "private", vfs.DoMount(e, "", m, "", unix.MS_PRIVATE, ""), nil)
	// pivot_root
	vfs.Mkdir(e, e.cwd, "m/old", 0o755)
	o := at("m/old")
	old, err := vfs.PivotRoot(e, m, o)
	is(t, "pivot_root", err, nil)
	e.root, e.cwd = m, m
	if e.ino(t, "/old/m") == 0 || e.ino(t, "/file") == 0 {
		t.Error("pivot_root")
	}
	_ = old
	if n := len(ns.Mounts(e.root)); n != 3 {
		t.Errorf("%d mounts: %+v", n, ns.Mounts(e.root))
	}
	is(t, "busy", vfs.Unmount(e, o2(t, e, "/old"), 0), unix.EBUSY)
	is(t, "detach", vfs.Unmount(e, o2(t, e, "/old"), unix.MNT_DETACH), nil)
	o.DecRef()
	m.DecRef()
}

func o2(t *testing.T, e *env, s string) vfs.Path {
	p, err := vfs.Resolve(e, e.cwd, s, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.DecRef)
	return p
}

// TestModel compares a file with a byte slice under random writes, truncations, holes, and mappings.
func TestModel(t *testing.T) {
	e, fs, _ := newEnv(t)
	f := e.open(t, "f", unix.O_CREAT|unix.O_RDWR)
	defer f.DecRef()
	r := rand.New(rand.NewSource(3))
	var model []byte
	const max = 300 << 10
	grow := func(n int) {
		if n > len(model) {
			model = append(model, make([]byte, n-len(model))...)
		}
	}
	for step := range 4000 {
		off, n := r.Intn(max), 1+r.Intn(40<<10)
		if r.Intn(3) == 0 {
			n = 1 + r.Intn(100)
		}
		switch r.Intn(6) {
		case 0, 1, 2:
			b := make([]byte, n)
			r.Read(b)
			if c, err := f.PWrite(e, usermem.Bytes(b), int64(off), 0); err != nil || c != int64(n) {
				t.Fatal(c, err)
			}
			grow(off + n)
			copy(model[off:], b)
		case 3:
			is(t, "truncate", f.Truncate(e, int64(off)), nil)
			grow(off)
			model = model[:off]
		case 4:
			is(t, "punch", f.Allocate(e, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(off), int64(n)), nil)
			if off < len(model) {
				clear(model[off:min(len(model), off+n)])
			}
		case 5:
			reg := f.Impl().(*file).r
			fr := memmap.FileRange{Start: pageDown(uint64(off)), End: pageDown(uint64(off)) + pageSize}
			ts, err := reg.Translate(fr, fr, hostarch.ReadWrite)
			if end := pageUp(uint64(len(model))); fr.End > end {
				var be *memmap.BusError
				if !errors.As(err, &be) {
					t.Fatal("translation beyond the end", err)
				}
				continue
			}
			if err != nil || len(ts) != 1 {
				t.Fatal(err, ts)
			}
			b := fs.mem.Bytes(ts[0].Offset, pageSize)
			if m := model[fr.Start:min(fr.End, uint64(len(model)))]; !bytes.Equal(b[:len(m)], m) {
				t.Fatal("mapping differs at step", step)
			}
			fs.mem.DecRef(memmap.FileRange{Start: ts[0].Offset, End: ts[0].Offset + pageSize})
		}
		if step%50 == 0 {
			got := make([]byte, max+50<<10)
			c, err := f.PRead(e, usermem.Bytes(got), 0, 0)
			if err != nil || !bytes.Equal(got[:c], model) {
				t.Fatalf("step %d: %d bytes, want %d, %v", step, c, len(model), err)
			}
		}
	}
	is(t, "unlink", vfs.Unlink(e, e.cwd, "f"), nil)
}

func TestLimits(t *testing.T) {
	e, fs, _ := newEnv(t)
	fs.opts.Size, fs.opts.Inodes = 16*pageSize, 3
	fs.setLimits()
	f := e.open(t, "f", unix.O_CREAT|unix.O_RDWR)
	n, err := f.Write(e, usermem.Bytes(make([]byte, 40*pageSize)), 0)
	if n != 16*pageSize || err != nil {
		t.Error("write to a full file system:", n, err)
	}
	_, err = f.Write(e, usermem.Bytes(make([]byte, 1)), 0)
	is(t, "write", err, unix.ENOSPC)
	e.open(t, "g", unix.O_CREAT).DecRef()
	e.wantOpen(t, "h", unix.O_CREAT, unix.ENOSPC)
	vfs.Unlink(e, e.cwd, "f")
	if fs.blocks.Load() != 16 {
		t.Error("pages of an open file went")
	}
	f.DecRef()
	if fs.blocks.Load() != 0 || fs.inodes.Load() != 2 {
		t.Error("unlinked file stays", fs.blocks.Load(), fs.inodes.Load())
	}
}

func TestMemfd(t *testing.T) {
	e, fs, _ := newEnv(t)
	s, err := NewShm(fs.mem)
	is(t, "shm", err, nil)
	f, err := s.NewMemfd(e, "x", unix.MFD_ALLOW_SEALING)
	is(t, "memfd", err, nil)
	if p := vfs.PathString(e, e.root, f.Path()); p != "/memfd:x (deleted)" {
		t.Error(p)
	}
	is(t, "truncate", f.Truncate(e, 8192), nil)
	im := f.Impl().(*file)
	is(t, "seal", im.AddSeals(unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE), nil)
	is(t, "shrink", f.Truncate(e, 0), unix.EPERM)
	is(t, "grow", f.Truncate(e, 8193), unix.EPERM)
	_, err = f.Write(e, usermem.Bytes([]byte("x")), 0)
	is(t, "write", err, unix.EPERM)
	f.DecRef()
	if s.fs.inodes.Load() != 1 {
		t.Error("memfd stays")
	}
}

func TestLocks(t *testing.T) {
	e, _, _ := newEnv(t)
	f, g := e.open(t, "f", unix.O_CREAT|unix.O_RDWR), e.open(t, "f", unix.O_RDWR)
	defer f.DecRef()
	defer g.DecRef()
	is(t, "ex", f.Flock(e, unix.LOCK_EX), nil)
	is(t, "sh nb", g.Flock(e, unix.LOCK_SH|unix.LOCK_NB), unix.EAGAIN)
	ch := make(chan error)
	go func() { ch <- g.Flock(e, unix.LOCK_EX) }()
	time.Sleep(5 * time.Millisecond)
	is(t, "un", f.Flock(e, unix.LOCK_UN), nil)
	is(t, "woken", <-ch, nil)
	a, b := vfs.NewFDTable(), vfs.NewFDTable()
	w := func(s, n int64) vfs.FileLock { return vfs.FileLock{Type: unix.F_WRLCK, Start: s, End: n - 1} }
	is(t, "a 0-10", f.SetLock(e, a, w(0, 10), false), nil)
	is(t, "b 10-20", g.SetLock(e, b, w(10, 20), false), nil)
	is(t, "b 5-15", g.SetLock(e, b, w(5, 15), false), unix.EAGAIN)
	is(t, "a unlock 2-4", f.SetLock(e, a, vfs.FileLock{Type: unix.F_UNLCK, Start: 2, End: 3}, false), nil)
	is(t, "b 2-4", g.SetLock(e, b, w(2, 4), false), nil)
	if l, ok := f.GetLock(a, w(0, 100)); !ok || l.Start != 2 || l.End != 3 {
		t.Error("getlk", l, ok)
	}
	go func() { ch <- f.SetLock(e, a, w(10, 11), true) }()
	time.Sleep(5 * time.Millisecond)
	is(t, "deadlock", g.SetLock(e, b, w(0, 1), true), unix.EDEADLK)
	is(t, "b unlock", g.SetLock(e, b, vfs.FileLock{Type: unix.F_UNLCK, End: 1 << 62}, false), nil)
	is(t, "a woken", <-ch, nil)
}

func TestFDTable(t *testing.T) {
	e, _, _ := newEnv(t)
	f := e.open(t, "f", unix.O_CREAT|unix.O_RDWR)
	defer f.DecRef()
	ft := vfs.NewFDTable()
	for i := range int32(100000) {
		if fd, err := ft.NewFD(f, 0, i%2 == 0, 1<<20); fd != i || err != nil {
			t.Fatal(fd, err)
		}
	}
	is(t, "limit", func() error { _, err := ft.NewFD(f, 0, false, 100000); return err }(), unix.EMFILE)
	for _, fd := range []int32{70000, 5, 64, 99999} {
		is(t, "close", ft.Close(e, fd), nil)
	}
	for _, want := range []int32{5, 64, 70000, 99999, 100000} {
		if fd, _ := ft.NewFD(f, 0, false, 1<<20); fd != want {
			t.Error("got", fd, "want", want)
		}
	}
	if fd, _ := ft.NewFD(f, 200000, false, 1<<20); fd != 200000 {
		t.Error("minimum", fd)
	}
	c := ft.Fork(1 << 20)
	c.CloseOnExec(e)
	if g := c.Get(2); g != nil || c.Get(200000) == nil {
		t.Error("close on exec")
	} else if g := c.Get(200000); g != f {
		t.Error("fork")
	} else {
		g.DecRef()
		g.DecRef()
	}
	c.CloseRange(e, 3, 99997)
	if c.Get(5) != nil || c.Get(1) == nil || c.Get(99999) == nil {
		t.Error("close_range")
	}
	f.DecRef()
	f.DecRef()
	c.DecRef(e)
	ft.DecRef(e)
}

// TestBigDirectory: listing and unlinking 100,000 entries, while listing, is linear.
func TestBigDirectory(t *testing.T) {
	e, fs, _ := newEnv(t)
	const n = 100000
	start := time.Now()
	for i := range n {
		e.open(t, fmt.Sprintf("file%d", i), unix.O_CREAT|unix.O_WRONLY).DecRef()
	}
	made := time.Since(start)
	d := e.open(t, "/", unix.O_RDONLY|unix.O_DIRECTORY)
	defer d.DecRef()
	got := 0
	for {
		var names []string
		d.ReadDir(e, func(de vfs.Dirent) error {
			if len(names) == 500 {
				return unix.EINVAL
			}
			names = append(names, de.Name)
			return nil
		})
		if len(names) == 0 {
			break
		}
		for _, s := range names {
			if s[0] != '.' {
				got++
				is(t, "unlink", vfs.Unlink(e, e.cwd, s), nil)
			}
		}
	}
	t.Logf("create %v, list and unlink %v", made, time.Since(start)-made)
	if got != n || fs.inodes.Load() != 1 {
		t.Error("listed", got, "left", fs.inodes.Load())
	}
}

func TestDentryCache(t *testing.T) {
	e, fs, _ := newEnv(t)
	vfs.SetDentryLimit(100)
	defer vfs.SetDentryLimit(128 << 10)
	for i := range 2000 {
		vfs.Mkdir(e, e.cwd, fmt.Sprint(i), 0o755)
		e.open(t, fmt.Sprintf("%d/f", i), unix.O_CREAT).DecRef()
	}
	for i := range 2000 {
		is(t, "unlink", vfs.Unlink(e, e.cwd, fmt.Sprintf("%d/f", i)), nil)
		is(t, "rmdir", vfs.Rmdir(e, e.cwd, fmt.Sprint(i)), nil)
	}
	if fs.inodes.Load() != 1 {
		t.Error(fs.inodes.Load(), "inodes left")
	}
}

func FuzzWalk(f *testing.F) {
	for _, s := range []string{"a/b/../l", "//l/.././x/", "l/l/l", "../a/abs/b"} {
		f.Add(s, uint32(0))
	}
	e, _, _ := newEnv(f)
	vfs.Mkdir(e, e.cwd, "a", 0o755)
	vfs.Mkdir(e, e.cwd, "a/b", 0o755)
	vfs.Symlink(e, "a/b/..", e.cwd, "l")
	vfs.Symlink(e, "/a/", e.cwd, "a/abs")
	f.Fuzz(func(t *testing.T, s string, flags uint32) {
		if p, err := vfs.Resolve(e, e.cwd, s, flags&0x7ff); err == nil {
			vfs.GetPath(e.root, p)
			p.DecRef()
		}
		if fd, err := vfs.Open(e, e.cwd, s, vfs.OpenOptions{Flags: flags &^ 3, Mode: 0o600, Resolve: flags >> 16 & 0x3f}); err == nil {
			fd.DecRef()
		}
		vfs.Unlink(e, e.cwd, s)
	})
}

func BenchmarkStat(b *testing.B) {
	e, _, _ := newEnv(b)
	vfs.Mkdir(e, e.cwd, "usr", 0o755)
	vfs.Mkdir(e, e.cwd, "usr/share", 0o755)
	vfs.Mkdir(e, e.cwd, "usr/share/doc", 0o755)
	e.open(b, "usr/share/doc/f", unix.O_CREAT).DecRef()
	b.ReportAllocs()
	for b.Loop() {
		p, err := vfs.Resolve(e, e.cwd, "/usr/share/doc/f", vfs.Follow)
		if err != nil {
			b.Fatal(err)
		}
		vfs.Stat(e, p)
		p.DecRef()
	}
}

func BenchmarkOpenClose(b *testing.B) {
	e, _, _ := newEnv(b)
	e.open(b, "f", unix.O_CREAT).DecRef()
	b.ReportAllocs()
	for b.Loop() {
		e.open(b, "f", 0).DecRef()
	}
}

func BenchmarkWrite4K(b *testing.B) {
	e, _, _ := newEnv(b)
	f := e.open(b, "f", unix.O_CREAT|unix.O_RDWR)
	defer f.DecRef()
	src := usermem.Bytes(make([]byte, 4096))
	b.SetBytes(4096)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		f.PWrite(e, src, int64(i%10000)*4096, 0)
	}
}

func BenchmarkRead4K(b *testing.B) {
	e, _, _ := newEnv(b)
	f := e.open(b, "f", unix.O_CREAT|unix.O_RDWR)
	defer f.DecRef()
	f.Write(e, usermem.Bytes(make([]byte, 4096)), 0)
	dst := usermem.Bytes(make([]byte, 4096))
	b.SetBytes(4096)
	b.ReportAllocs()
	for b.Loop() {
		f.PRead(e, dst, 0, 0)
	}
}

// TestAllocateFails: a fallocate that finds no memory leaves none behind, and one that never can says so at once.
func TestAllocateFails(t *testing.T) {
	e, fs, _ := newEnv(t)
	f := e.open(t, "f", unix.O_CREAT|unix.O_RDWR)
	defer f.DecRef()
	b := make([]byte, 3*pageSize)
	if _, err := f.PWrite(e, usermem.Bytes(b), 64<<20, 0); err != nil {
		t.Fatal(err)
	}
	mem := fs.mem
	limit, used := mem.Limit(), mem.Used()
	defer mem.SetLimit(limit)
	mem.SetLimit(used + 16<<20)
	is(t, "more than there is", f.Allocate(e, 0, 0, 1<<40), unix.ENOSPC)
	is(t, "more than is left", f.Allocate(e, 0, 0, 16<<20+2*pageSize), unix.ENOMEM)
	if got := mem.Used(); got != used {
		t.Errorf("%d bytes in use, %d before", got, used)
	}
	is(t, "what is left", f.Allocate(e, 0, 0, 8<<20), nil)
}
