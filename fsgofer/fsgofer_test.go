package fsgofer

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/seccomp"

	"moat/fsgofer/wire"
)

// TestMain is also the gofer: each test starts the test binary as a server process, with its filter on.
func TestMain(m *testing.M) {
	if os.Getenv("GOFER_TEST") == "forbidden" {
		filter, err := program(true, false)
		if err == nil {
			err = seccomp.SetFilter(filter)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		for _, a := range Answers() {
			r, _, errno := unix.RawSyscall(a.NR, 99, 0, 8)
			if errno != a.Errno || errno == 0 && r != 0 {
				os.Exit(1)
			}
		}
		unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		os.Exit(0)
	}
	if os.Getenv("GOFER_TEST") != "" {
		mounts := []Mount{{ID: 1, FD: 4}, {ID: 2, FD: 5, ReadOnly: true}, {ID: 3, FD: 6, Shared: true}}
		if os.Getenv("GOFER_TEST") == "read-only" {
			mounts = []Mount{{ID: 1, FD: 4, ReadOnly: true}}
		}
		// What the runtime does by itself, sooner or later: timers, collections, memory given back.
		go func() {
			var keep [][]byte
			for {
				time.Sleep(2 * time.Millisecond)
				keep = append(keep, make([]byte, 4<<20))
				if len(keep) == 8 {
					keep = nil
					debug.FreeOSMemory()
				}
			}
		}()
		err := Serve(Options{Conn: 3, ProcFD: -1, Mounts: mounts})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type env struct {
	*wire.Client
	dir  string
	root wire.Handle
	cmd  *exec.Cmd
	died chan error
}

func start(t testing.TB) *env { return startWith(t, "1") }

func startWith(t testing.TB, what string) *env {
	e := &env{dir: t.TempDir(), died: make(chan error, 1)}
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.Open(e.dir)
	if err != nil {
		t.Fatal(err)
	}
	srv := os.NewFile(uintptr(p[1]), "srv")
	exe, _ := os.Executable()
	e.cmd = exec.Command(exe)
	e.cmd.Env = append(os.Environ(), "GOFER_TEST="+what, "GODEBUG="+Godebug)
	e.cmd.Stderr = os.Stderr
	e.cmd.ExtraFiles = []*os.File{srv, root, root, root}
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	srv.Close()
	root.Close()
	if e.Client, err = wire.NewClient(p[0], func(err error) { e.died <- err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Shutdown(p[0], unix.SHUT_RDWR); unix.Close(p[0]); e.cmd.Wait() })
	e.root = e.attach(t, 1)
	return e
}

func (e *env) attach(t testing.TB, id uint32) wire.Handle {
	var rep wire.AttachRep
	if err := e.Call(wire.OpAttach, &wire.AttachReq{Mount: id}, &rep); err != nil {
		t.Fatal("attach", err)
	}
	return rep.Root
}

func (e *env) walk(dir wire.Handle, names ...string) (*wire.WalkRep, error) {
	rep := &wire.WalkRep{}
	err := e.Call(wire.OpWalk, &wire.WalkReq{Dir: wire.Ref{H: dir}, Handle: true, Names: names}, rep)
	if err == nil && len(rep.Nodes) == 0 {
		err = unix.Errno(rep.Errno)
	}
	return rep, err
}

// callFD is a call that is answered with a descriptor.
func (e *env) callFD(op wire.Op, req, rep wire.Message) (int, error) {
	var fd [1]int
	n, err := e.CallFDs(op, req, rep, fd[:])
	if err == nil && n != 1 {
		err = errors.New("no descriptor")
	}
	return fd[0], err
}

// open opens path, below the handle if it is not empty.
func (e *env) open(r wire.Ref, write bool) (int, wire.Attr, error) {
	var rep wire.OpenRep
	fd, err := e.callFD(wire.OpOpen, &wire.OpenReq{Ref: r, Write: write}, &rep)
	return fd, rep.Attr, err
}

func (e *env) create(t testing.TB, dir wire.Handle, name string) int {
	var rep wire.NodeRep
	fd, err := e.callFD(wire.OpCreate, &wire.CreateReq{Dir: dir, Name: name, Mode: 0644}, &rep)
	if err != nil || rep.Node.Attr.Mode != unix.S_IFREG|0644 {
		t.Fatalf("create %s: %v %#o", name, err, rep.Node.Attr.Mode)
	}
	return fd
}

func (e *env) make(dir wire.Handle, name string, mode uint32, target string, rdev uint64) (wire.Node, error) {
	var rep wire.NodeRep
	err := e.Call(wire.OpMake, &wire.MakeReq{Dir: dir, Name: name, Mode: mode, Target: target, Rdev: rdev, UID: 7, GID: 8}, &rep)
	return rep.Node, err
}

func want(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) || (want == nil && err != nil) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func TestFiles(t *testing.T) {
	e := start(t)
	fd := e.create(t, e.root, "f")
	if n, err := unix.Pwrite(fd, []byte("hello"), 0); n != 5 || err != nil {
		t.Fatal(n, err)
	}
	unix.Close(fd)
	d, err := e.make(e.root, "d", unix.S_IFDIR|0750, "", 0)
	want(t, "mkdir", err, nil)
	if d.Handle == 0 || d.Attr.Mode != unix.S_IFDIR|0750 || d.Attr.UID != 7 || d.Attr.GID != 8 {
		t.Errorf("mkdir: %+v", d)
	}
	_, err = e.make(d.Handle, "l", unix.S_IFLNK|0777, "../../etc/passwd", 0)
	want(t, "symlink", err, nil)
	_, err = e.make(d.Handle, "p", unix.S_IFIFO|04777, "", 0)
	want(t, "mkfifo", err, nil)
	rep, err := e.walk(e.root, "d", "l", "x")
	if err != nil || len(rep.Nodes) != 2 || rep.Errno != 0 || rep.Nodes[1].Target != "../../etc/passwd" {
		t.Errorf("walk: %v %+v", err, rep)
	}
	_, err = e.walk(e.root, "nothing")
	want(t, "walk", err, unix.ENOENT)
	var a wire.AttrRep
	_, _, err = e.open(wire.Ref{H: d.Handle, Path: "p"}, true)
	want(t, "open of a FIFO", err, unix.EINVAL)
	fd, a.Attr, err = e.open(wire.Ref{H: e.root, Path: "f"}, false)
	want(t, "open", err, nil)
	b := make([]byte, 10)
	if n, _ := unix.Pread(fd, b, 0); string(b[:n]) != "hello" || a.Attr.Size != 5 {
		t.Errorf("read %q, size %d", b[:n], a.Attr.Size)
	}
	if _, err := unix.Write(fd, b); err != unix.EBADF {
		t.Errorf("a read-only descriptor can be written: %v", err)
	}
	unix.Close(fd)
	_, _, err = e.open(wire.Ref{H: e.root, Path: "f", Ino: a.Attr.Ino + 1}, false)
	want(t, "open of another inode", err, unix.ESTALE)

	var h wire.GoneRep
	err = e.Call(wire.OpUnlink, &wire.UnlinkReq{Dir: e.root, Name: "f", Keep: true}, &h)
	want(t, "unlink", err, nil)
	err = e.Call(wire.OpSetAttr, &wire.SetAttrReq{Ref: wire.Ref{H: h.Handle}, Valid: wire.SetMode | wire.SetMtime, Mode: 04711, Mtime: -1}, &a)
	if err != nil || a.Attr.Mode != unix.S_IFREG|04711 || a.Attr.Mtime != -1 || a.Attr.Nlink != 0 {
		t.Errorf("setattr of an unlinked file: %v %+v", err, a.Attr)
	}
	fd, a.Attr, err = e.open(wire.Ref{H: h.Handle}, true)
	want(t, "open of an unlinked file", err, nil)
	unix.Close(fd)
	err = e.Call(wire.OpSetXattr, &wire.XattrReq{Ref: wire.Ref{H: h.Handle}, Name: "user.x", Value: []byte("v")}, &wire.Empty{})
	if err != nil && err != unix.EOPNOTSUPP {
		t.Error("setxattr", err)
	}
	err = e.Call(wire.OpSetXattr, &wire.XattrReq{Ref: wire.Ref{H: h.Handle}, Name: "trusted.x"}, &wire.Empty{})
	want(t, "setxattr trusted", err, unix.EOPNOTSUPP)
	e.CloseHandle(h.Handle, true)
	var sf wire.StatFSRep
	err = e.Call(wire.OpStatFS, &wire.RefReq{Ref: wire.Ref{H: e.root}}, &sf)
	want(t, "statfs", err, nil)
	err = e.Call(wire.OpSync, &wire.SyncReq{Ref: wire.Ref{H: e.root}}, &wire.Empty{})
	want(t, "fsync", err, nil)
	err = e.Call(wire.OpSetAttr, &wire.SetAttrReq{Ref: wire.Ref{H: d.Handle, Path: "l"}, Valid: wire.SetMtime, Mtime: 5e9}, &a)
	if err != nil || a.Attr.Mtime != 5e9 {
		t.Error("times of a symlink", err, a.Attr.Mtime)
	}
	var l wire.LinkRep
	err = e.Call(wire.OpLink, &wire.LinkReq{Target: wire.Ref{H: d.Handle, Path: "l"}, Dir: e.root, Name: "l2"}, &l)
	if err != nil || l.Attr.Nlink != 2 {
		t.Error("link of a symlink", err, l.Attr.Nlink)
	}
	fd, err = e.callFD(wire.OpCreate, &wire.CreateReq{Dir: e.root, Mode: 0600}, &wire.NodeRep{})
	if err != unix.EOPNOTSUPP {
		want(t, "tmpfile", err, nil)
		unix.Close(fd)
	}
}

func TestReadOnlyAndShared(t *testing.T) {
	e := start(t)
	ro, sh := e.attach(t, 2), e.attach(t, 3)
	unix.Close(e.create(t, e.root, "f"))
	_, err := e.make(ro, "d", unix.S_IFDIR, "", 0)
	want(t, "mkdir", err, unix.EROFS)
	_, _, err = e.open(wire.Ref{H: ro, Path: "f"}, true)
	want(t, "open for writing", err, unix.EROFS)
	fd, _, err := e.open(wire.Ref{H: ro, Path: "f"}, false)
	want(t, "open", err, nil)
	unix.Close(fd)
	err = e.Call(wire.OpRename, &wire.RenameReq{OldDir: e.root, OldName: "f", NewDir: sh, NewName: "g"}, &wire.GoneRep{})
	want(t, "rename across mounts", err, unix.EXDEV)
	_, err = e.make(sh, "dev", unix.S_IFCHR|0666, "", unix.Mkdev(1, 3))
	want(t, "mknod on a shared mount", err, unix.EPERM)
	err = e.Call(wire.OpAttach, &wire.AttachReq{Mount: 9}, &wire.AttachRep{})
	want(t, "attach of no mount", err, unix.ENODEV)
}

// TestReadOnly: the smaller filter of a gofer that changes nothing is enough for what it does.
func TestReadOnly(t *testing.T) {
	e := startWith(t, "read-only")
	os.WriteFile(filepath.Join(e.dir, "f"), []byte("x"), 0o600)
	os.Symlink("f", filepath.Join(e.dir, "l"))
	for _, n := range []string{"f", "l"} {
		if _, err := e.walk(e.root, n); err != nil {
			t.Error(err)
		}
	}
	var a wire.AttrRep
	fd, _, err := e.open(wire.Ref{H: e.root, Path: "f"}, false)
	want(t, "open", err, nil)
	unix.Close(fd)
	var d wire.ReadDirRep
	for attrs := range wire.AttrsAll + 1 {
		err = e.Call(wire.OpReadDir, &wire.ReadDirReq{Dir: wire.Ref{H: e.root}, Attrs: attrs}, &d)
		want(t, "readdir", err, nil)
	}
	err = e.Call(wire.OpSync, &wire.SyncReq{Ref: wire.Ref{H: e.root}, All: true}, &wire.Empty{})
	want(t, "syncfs", err, nil)
	err = e.Call(wire.OpUnlink, &wire.UnlinkReq{Dir: e.root, Name: "f"}, &wire.GoneRep{})
	want(t, "unlink", err, unix.EROFS)
	err = e.Call(wire.OpSetXattr, &wire.XattrReq{Ref: wire.Ref{H: e.root}, Name: "user.x"}, &wire.Empty{})
	want(t, "setxattr", err, unix.EROFS)
	err = e.Call(wire.OpSetAttr, &wire.SetAttrReq{Ref: wire.Ref{H: e.root, Path: "f"}, Valid: wire.SetMode}, &a)
	want(t, "chmod", err, unix.EROFS)
}

func TestReadDir(t *testing.T) {
	e := start(t)
	const n = 5000
	for i := range n {
		if err := os.WriteFile(filepath.Join(e.dir, fmt.Sprintf("file-%d", i)), nil, 0600); err != nil {
			t.Fatal(err)
		}
	}
	for attrs := range wire.AttrsAll + 1 {
		seen := map[string]bool{}
		for off := int64(0); ; {
			var rep wire.ReadDirRep
			if err := e.Call(wire.OpReadDir, &wire.ReadDirReq{Dir: wire.Ref{H: e.root}, Off: off, Attrs: attrs}, &rep); err != nil {
				t.Fatal(err)
			}
			for at := 0; at < len(rep.Lists[0]); {
				var d wire.Entry
				d, at = rep.Lists[0].At(at)
				if seen[d.Name] || d.HasNode() != (attrs == wire.AttrsAll) || d.HasNode() && d.Node().Attr.Ino != d.Ino {
					t.Fatalf("%+v", d)
				}
				seen[d.Name] = true
			}
			if off = rep.Next; rep.EOF {
				break
			}
		}
		if len(seen) != n {
			t.Errorf("attrs %v: %d entries of %d", attrs, len(seen), n)
		}
	}
}

// tree makes d/a/{f,s -> x}, d/b/c/g, d/e.
func tree(t *testing.T, dir string) {
	for _, d := range []string{"d/a", "d/b/c", "d/e"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"d/a/f", "d/b/c/g"} {
		if err := os.WriteFile(filepath.Join(dir, f), []byte(f), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	os.Symlink("x", filepath.Join(dir, "d/a/s"))
}

// TestBelow: a listing comes with those of the directories below it.
func TestBelow(t *testing.T) {
	e := start(t)
	tree(t, e.dir)
	for attrs := range wire.AttrsAll + 1 {
		for limit, lists := range map[uint32]int{0: 1, 1000: 5} {
			var rep wire.ReadDirRep
			if err := e.Call(wire.OpReadDir, &wire.ReadDirReq{Dir: wire.Ref{H: e.root, Path: "d"}, Attrs: attrs, Below: limit}, &rep); err != nil || !rep.EOF || len(rep.Lists) != lists {
				t.Fatalf("%v %+v", err, rep)
			}
			got := map[string]string{}
			var visit func(i int, path string)
			visit = func(i int, path string) {
				for at := 0; at < len(rep.Lists[i]); {
					var d wire.Entry
					d, at = rep.Lists[i].At(at)
					got[path+d.Name] = ""
					if d.HasNode() {
						got[path+d.Name] = d.Node().Target
					}
					if d.HasNode() != (attrs == wire.AttrsAll || attrs == wire.AttrsDirs && d.Type == unix.DT_DIR) {
						t.Errorf("attrs %d: %+v", attrs, d)
					}
					if d.Sub > 0 {
						visit(int(d.Sub), path+d.Name+"/")
					}
				}
			}
			visit(0, "")
			want := 3
			if limit > 0 {
				want = 7
			}
			if len(got) != want || attrs == wire.AttrsAll && limit > 0 && got["a/s"] != "x" {
				t.Errorf("attrs %d, at most %d below: %v", attrs, limit, got)
			}
		}
	}
}

// TestSiblings: a listing comes with those of directories beside it.
func TestSiblings(t *testing.T) {
	e := start(t)
	tree(t, e.dir)
	var rep wire.ReadDirRep
	req := wire.ReadDirReq{Dir: wire.Ref{H: e.root, Path: "d/e"}, Below: 1000, Siblings: []string{"none", "b", "a"}}
	if err := e.Call(wire.OpReadDir, &req, &rep); err != nil || len(rep.Lists) != 4 || len(rep.Siblings) != 3 || rep.Siblings[0] != 0 || len(rep.Lists[0]) != 0 {
		t.Fatalf("%v %+v", err, rep)
	}
	for i, name := range []string{"", "c", "f"} {
		if l := rep.Siblings[i]; l != 0 {
			if d, _ := rep.Lists[l].At(0); d.Name != name && d.Name != "s" {
				t.Errorf("sibling %d has %q", i, d.Name)
			}
		}
	}
}

// TestPaths: a path below a handle leads to what is there and never elsewhere; several files are opened at once.
func TestPaths(t *testing.T) {
	e := start(t)
	tree(t, e.dir)
	os.Symlink("/", filepath.Join(e.dir, "d/out"))
	os.Symlink("b", filepath.Join(e.dir, "d/in"))
	fd, _, err := e.open(wire.Ref{H: e.root, Path: "d/b/c/g"}, false)
	want(t, "open by path", err, nil)
	unix.Close(fd)
	for _, p := range []string{"d/out/etc/passwd", "d/in/c/g"} {
		_, _, err = e.open(wire.Ref{H: e.root, Path: p}, false)
		want(t, "open through a symlink", err, unix.ELOOP)
	}
	var w wire.WalkRep
	var fds [wire.MaxFDs]int
	n, err := e.CallFDs(wire.OpWalk, &wire.WalkReq{Dir: wire.Ref{H: e.root, Path: "d/a"}, Handle: true, Open: true, Names: []string{"f"}}, &w, fds[:])
	if err != nil || n != 1 || w.Dir == 0 || len(w.Nodes) != 1 {
		t.Fatal("walk that opens", err, n, w)
	}
	unix.Close(fds[0])
	n, err = e.CallFDs(wire.OpWalk, &wire.WalkReq{Dir: wire.Ref{H: w.Dir}, Open: true, Names: []string{"s"}}, &w, fds[:])
	if err != nil || n != 0 || w.Nodes[0].Target != "x" {
		t.Error("walk to a symlink", err, n, w)
	}
	err = e.Call(wire.OpWalk, &wire.WalkReq{Dir: wire.Ref{H: e.root, Path: "d/b"}, Handle: true, Names: []string{"none", "x"}}, &w)
	if err != nil || unix.Errno(w.Errno) != unix.ENOENT || len(w.Nodes) != 0 || w.Dir == 0 {
		t.Error("walk to nowhere", err, w)
	}
	for _, open := range []bool{false, true} {
		w = wire.WalkRep{}
		req := wire.WalkReq{Dir: wire.Ref{H: e.root, Path: "d/a"}, Settle: true, Open: open, More: []string{"none", "f", "s"}}
		if n, err = e.CallFDs(wire.OpWalk, &req, &w, fds[:]); err != nil || (n == 1) != open || len(w.More) != 3 || w.More[1].Attr.Ino == 0 {
			t.Fatal("walk to several", err, n, w)
		}
		closeAll(fds[:n])
		w = wire.WalkRep{}
		req.Dir.H = e.attach(t, 3)
		n, err = e.CallFDs(wire.OpWalk, &req, &w, fds[:])
		if err != nil || n != 2 || len(w.More) != 3 || !w.Settled || w.More[0].Attr.Ino != 0 || w.More[2].Target != "x" {
			t.Fatal("walk to several on a shared mount", err, n, w)
		}
		for k, fd := range fds[:n] {
			var st unix.Stat_t
			if unix.Fstat(fd, &st); st.Ino != w.More[k+1].Attr.Ino {
				t.Errorf("descriptor %d is of %d, not of %d", k, st.Ino, w.More[k+1].Attr.Ino)
			}
			if _, err := unix.Pread(fd, nil, 0); (err == nil) != (open && k == 0) {
				t.Errorf("descriptor %d of a walk that opens (%v) is read: %v", k, open, err)
			}
			unix.Close(fd)
		}
	}
	os.WriteFile(filepath.Join(e.dir, "d/a/f2"), []byte("22"), 0o600)
	var o wire.OpenRep
	n, err = e.CallFDs(wire.OpOpen, &wire.OpenReq{Ref: wire.Ref{H: e.root, Path: "d/a/f"}, More: []string{"s", "f2", "none"}}, &o, fds[:])
	if err != nil || n != 2 || len(o.More) != 3 || o.More[0].Ino != 0 || o.More[1].Size != 2 || o.More[2].Ino != 0 {
		t.Fatal("open of several", err, n, o)
	}
	b := make([]byte, 10)
	if n, _ := unix.Pread(fds[1], b, 0); string(b[:n]) != "22" {
		t.Errorf("the second file reads %q", b[:n])
	}
	unix.Close(fds[0])
	unix.Close(fds[1])
}

func TestConcurrent(t *testing.T) {
	e := start(t)
	var wg sync.WaitGroup
	for g := range 100 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 50 {
				name := fmt.Sprintf("%d-%d", g, i)
				var rep wire.NodeRep
				fd, err := e.callFD(wire.OpCreate, &wire.CreateReq{Dir: e.root, Name: name, Mode: 0600}, &rep)
				if err != nil {
					t.Error(err)
					return
				}
				unix.Close(fd)
				w, err := e.walk(e.root, name)
				if err != nil || w.Nodes[0].Attr.Ino != rep.Node.Attr.Ino {
					t.Error("another reply", err)
					return
				}
				if err := e.Call(wire.OpUnlink, &wire.UnlinkReq{Dir: e.root, Name: name}, &wire.GoneRep{}); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
}

// TestDeath: SIGKILL is noticed without a request, and calls return EIO.
func TestDeath(t *testing.T) {
	e := start(t)
	e.cmd.Process.Kill()
	select {
	case err := <-e.died:
		if !strings.Contains(err.Error(), "gone") {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("nobody noticed")
	}
	_, err := e.walk(e.root, "x")
	want(t, "walk", err, unix.EIO)
}

// TestStopped: a gofer that is stopped and continued, in whatever call it is, goes on.
func TestStopped(t *testing.T) {
	e := start(t)
	unix.Close(e.create(t, e.root, "f"))
	for range 50 {
		e.cmd.Process.Signal(unix.SIGSTOP)
		e.cmd.Process.Signal(unix.SIGCONT)
		if _, err := e.walk(e.root, "f"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFilter: a call that is not in Rules is the gofer's last.
func TestFilter(t *testing.T) {
	exe, _ := os.Executable()
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "GOFER_TEST=forbidden")
	var e *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &e) || e.Sys().(syscall.WaitStatus).Signal() != unix.SIGSYS {
		t.Error(err)
	}
	if n := len(Rules(false, false)); n > 17 {
		t.Errorf("%d calls without a writable mount", n)
	}
	seen := map[uintptr]bool{}
	for _, r := range Rules(true, false) {
		if seen[r.NR] || r.Why == "" || r.Args == nil {
			t.Errorf("%+v", r)
		}
		seen[r.NR] = true
	}
	if len(seen) > 30 {
		t.Errorf("%d calls", len(seen))
	}
	t.Logf("the gofer may make %d calls, %d if every mount is read-only", len(seen), len(Rules(false, false)))
}

// TestLook: on a shared mount attributes come with a descriptor that is good for nothing else, of whatever file, and a walk can wait for changes.
func TestLook(t *testing.T) {
	e := start(t)
	tree(t, e.dir)
	root := e.attach(t, 3)
	for _, path := range []string{"", "d", "d/a/f", "d/a/s"} {
		var rep wire.AttrRep
		fd, err := e.callFD(wire.OpGetAttr, &wire.RefReq{Ref: wire.Ref{H: root, Path: path}}, &rep)
		if err != nil {
			t.Fatal(path, err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || st.Ino != rep.Attr.Ino || st.Mode != rep.Attr.Mode {
			t.Error(path, err, st, rep)
		}
		if _, err := unix.Read(fd, make([]byte, 1)); err != unix.EBADF {
			t.Errorf("%s: read: %v", path, err)
		}
		unix.Close(fd)
	}
	want(t, "attributes on a mount that is not shared", e.Call(wire.OpGetAttr, &wire.RefReq{Ref: wire.Ref{H: e.root}}, &wire.AttrRep{}), nil)
	for _, name := range []string{"a", "none"} {
		for _, dir := range []string{"d", "d/a/f"} {
			var w wire.WalkRep
			err := e.Call(wire.OpWalk, &wire.WalkReq{Dir: wire.Ref{H: root, Path: dir}, Settle: true, Names: []string{name}}, &w)
			if err != nil || w.Settled != (dir == "d") || (len(w.Nodes) == 1) != (w.Settled && name == "a") {
				t.Errorf("%s/%s: %v %+v", dir, name, err, w)
			}
		}
	}
}

// TestBadRequest: a name that leads out ends the gofer. Names like that cannot be encoded by wire, so the bytes are patched.
func TestBadRequest(t *testing.T) {
	for _, name := range []string{"..", "a/b", "/x", "a\x00", "."} {
		b := make([]byte, 1000)
		fill := strings.Repeat("z", len(name))
		n, err := wire.Encode(b, wire.Header{Op: wire.OpWalk}, &wire.WalkReq{Dir: wire.Ref{H: 1}, Names: []string{fill}})
		if err != nil {
			t.Fatal(err)
		}
		copy(b[strings.Index(string(b[:n]), fill):], name)
		if err := wire.DecodeBody(b[:n], &wire.WalkReq{}); err != unix.EBADMSG {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func FuzzRequest(f *testing.F) {
	b := make([]byte, wire.MaxMessage)
	n, _ := wire.Encode(b, wire.Header{Op: wire.OpWalk}, &wire.WalkReq{Dir: wire.Ref{H: 1}, Handle: true, Names: []string{"a", "b"}})
	f.Add(uint16(wire.OpWalk), append([]byte(nil), b[8:n]...))
	n, _ = wire.Encode(b, wire.Header{}, &wire.XattrReq{Ref: wire.Ref{H: 1, Path: "a"}, Name: "user.x", Value: []byte("y")})
	f.Add(uint16(wire.OpSetXattr), append([]byte(nil), b[8:n]...))
	n, _ = wire.Encode(b, wire.Header{}, &wire.ReadDirReq{Dir: wire.Ref{H: 1, Path: "a/b"}, Below: 9})
	f.Add(uint16(wire.OpReadDir), append([]byte(nil), b[8:n]...))
	n, _ = wire.Encode(b, wire.Header{}, &wire.RenameReq{OldDir: 1, NewDir: 1, OldName: "a", NewName: "b", Keep: true})
	f.Add(uint16(wire.OpRename), append([]byte(nil), b[8:n]...))
	dir := f.TempDir()
	fd, err := unix.Open(dir, unix.O_PATH, 0)
	if err != nil {
		f.Fatal(err)
	}
	s := &Server{conn: -1, lifeline: -1, maxHandles: 100, mounts: map[uint32]*mount{}, handles: map[wire.Handle]*handle{}}
	m := &mount{Mount{ID: 1, FD: fd}, &handle{fd: fd, dir: -1, refs: 1}}
	m.file.mount = m
	s.mounts[1] = m
	if err := unix.Chdir("/proc/self/fd"); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, op uint16, body []byte) {
		s.addHandle(m.file)
		msg := append(make([]byte, wire.HeaderLen), body...)
		rep, fd, _ := s.handle(wire.Op(op), msg)
		if o, ok := rep.(*withFDs); ok {
			closeAll(o.fds)
		}
		if fd >= 0 {
			unix.Close(fd)
		}
	})
}
