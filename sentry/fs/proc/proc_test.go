package proc

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"

	"moat/fsgofer"
	"moat/platform"
	"moat/sentry/fs/gofer"
	"moat/sentry/kernel"
	"moat/sentry/kernel/auth"
	"moat/sentry/memory"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

// TestMain is also the gofer process: it serves the host's root read-only.
func TestMain(m *testing.M) {
	if os.Getenv("GOFER_TEST") != "" {
		err := fsgofer.Serve(fsgofer.Options{Conn: 3, ProcFD: -1, NoSeccomp: true, // a test binary may have cgo threads
			Mounts: []fsgofer.Mount{{ID: 1, FD: 4, ReadOnly: true}}})
		fmt.Fprintln(os.Stderr, err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// idle is a platform whose guests do nothing until they are interrupted.
type idle struct{}

func (idle) Name() string                 { return "idle" }
func (idle) Reserved() hostarch.AddrRange { return hostarch.AddrRange{} }
func (idle) SetText(int, hostarch.Addr)   {}
func (idle) SetName(string)               {}
func (idle) UserRange() hostarch.AddrRange {
	return hostarch.AddrRange{Start: 0x10000, End: 0x7ffffffff000}
}
func (idle) NewAddressSpace() (platform.AddressSpace, error)          { return idle{}, nil }
func (idle) Close()                                                   {}
func (idle) Map(hostarch.AddrRange, int, uint64, hostarch.AccessType) {}
func (idle) Unmap(hostarch.AddrRange)                                 {}
func (idle) Populate(hostarch.AddrRange)                              {}
func (idle) Protect(hostarch.AddrRange, hostarch.AccessType)          {}
func (idle) Flush() error                                             { return nil }
func (idle) Settled() bool                                            { return true }
func (idle) Fork() (platform.AddressSpace, error)                     { return idle{}, nil }
func (idle) NewThread() (platform.Thread, error)                      { return &idleThread{wake: make(chan struct{})}, nil }
func (idle) Release()                                                 {}

type idleThread struct {
	wake chan struct{}
	once sync.Once
}

func (t *idleThread) Run(*platform.Regs) (platform.Event, error) {
	<-t.wake
	return platform.Event{Kind: platform.EventInterrupted}, nil
}
func (t *idleThread) Interrupt()                     { t.once.Do(func() { close(t.wake) }) }
func (t *idleThread) FPState() ([]byte, error)       { return make([]byte, 832), nil }
func (t *idleThread) SetFPState([]byte) error        { return nil }
func (t *idleThread) Clock() *platform.Stopwatch     { return platform.NewStopwatch() }
func (t *idleThread) Park()                          {}
func (t *idleThread) Signals() *platform.SignalWords { return nil }
func (t *idleThread) SetIdentity(platform.Identity)  {}
func (t *idleThread) Release()                       {}

type table struct{}

func (table) Lookup(uintptr) kernel.SyscallFn                         { return nil }
func (table) Blocked(*kernel.Task)                                    {}
func (table) Enter(*kernel.Task, uintptr, kernel.Args)                {}
func (table) Exit(*kernel.Task, uintptr, kernel.Args, uintptr, error) {}

// start runs /bin/sh of the host's root, on an idle platform, with /proc mounted.
func start(t *testing.T) *kernel.Task {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	root, _ := os.Open("/")
	srv := os.NewFile(uintptr(p[1]), "srv")
	exe, _ := os.Executable()
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "GOFER_TEST=1")
	cmd.ExtraFiles = []*os.File{srv, root}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	srv.Close()
	root.Close()
	c, err := gofer.NewClient(p[0], func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Shutdown(p[0], unix.SHUT_RDWR); unix.Close(p[0]); cmd.Wait() })
	fs, err := gofer.Mount(c, 1, gofer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	mfd, err := memory.Create()
	if err != nil {
		t.Fatal(err)
	}
	mf, err := memory.New(mfd, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	k, err := kernel.New(kernel.Config{Platform: idle{}, Memory: mf, Table: table{}, Hostname: "box", NumCPUs: 2})
	if err != nil {
		t.Fatal(err)
	}
	ns, err := vfs.NewMountNamespace(k.RootUserNamespace(), fs, "root", unix.ST_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	in, err := NewInstances(k, Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := ns.Root()
	at, err := vfs.Resolve(rooted{vfs.Background(), r}, r, "/proc", vfs.Follow)
	if err != nil {
		t.Fatal(err)
	}
	if err := vfs.MountFS(in.New(k.RootPIDNamespace()), at, "proc", "", unix.ST_NOSUID); err != nil {
		t.Fatal(err)
	}
	k.RootNamespaces().Mount = ns
	tg, err := k.CreateProcess(&kernel.ProcessArgs{Filename: "/bin/sh", Argv: []string{"sh", "-c", "a b"}, Envv: []string{"A=1", "B=2"}, Cwd: "/usr",
		Umask: 0o22, Credentials: auth.NewRoot(k.RootUserNamespace()), FDTable: vfs.NewFDTable(), Limits: kernel.DefaultLimits()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Kill(); k.Wait() })
	return tg.Leader()
}

// rooted is a context of the kernel in a mount namespace.
type rooted struct {
	vfs.Context
	root vfs.Path
}

func (r rooted) Root() vfs.Path { return r.root }
func (r rooted) Cwd() vfs.Path  { return r.root }

func read(ctx vfs.Context, path string) (string, error) {
	fd, err := vfs.Open(ctx, ctx.Cwd(), path, vfs.OpenOptions{Flags: unix.O_RDONLY})
	if err != nil {
		return "", err
	}
	defer fd.DecRef()
	var out []byte
	buf := make([]byte, 1000)
	for {
		n, err := fd.Read(ctx, usermem.Bytes(buf), 0)
		if err != nil {
			return "", err
		}
		if n == 0 {
			return string(out), nil
		}
		out = append(out, buf[:n]...)
	}
}

func write(ctx vfs.Context, path, text string) error {
	fd, err := vfs.Open(ctx, ctx.Cwd(), path, vfs.OpenOptions{Flags: unix.O_WRONLY | unix.O_TRUNC})
	if err != nil {
		return err
	}
	defer fd.DecRef()
	_, err = fd.Write(ctx, usermem.Bytes([]byte(text)), 0)
	return err
}

func readlink(ctx vfs.Context, path string) (string, error) {
	p, err := vfs.Resolve(ctx, ctx.Cwd(), path, 0)
	if err != nil {
		return "", err
	}
	defer p.DecRef()
	return p.Inode().Readlink(ctx)
}

func list(ctx vfs.Context, path string) ([]string, error) {
	fd, err := vfs.Open(ctx, ctx.Cwd(), path, vfs.OpenOptions{Flags: unix.O_RDONLY | unix.O_DIRECTORY})
	if err != nil {
		return nil, err
	}
	defer fd.DecRef()
	var out []string
	for {
		n := 0
		err := fd.ReadDir(ctx, func(d vfs.Dirent) error {
			if n == 3 {
				return io.EOF
			}
			n++
			out = append(out, d.Name)
			return nil
		})
		if err != nil || n == 0 {
			return out, err
		}
	}
}

// keys are the first words of text's lines.
func keys(text string) string {
	var out []string
	for _, l := range strings.Split(text, "\n") {
		if f := strings.FieldsFunc(l, func(r rune) bool { return r == ' ' || r == ':' || r == '\t' }); len(f) > 0 {
			out = append(out, f[0])
		}
	}
	return strings.Join(out, " ")
}

// TestAgainstHost: the same lines in the same order as the host's, where a file has named lines.
func TestAgainstHost(t *testing.T) {
	task := start(t)
	for _, f := range []string{"/proc/self/status", "/proc/meminfo", "/proc/self/limits", "/proc/self/io", "/proc/self/smaps_rollup", "/proc/self/timens_offsets"} {
		got, err := read(task, f)
		if err != nil {
			t.Error(f, err)
			continue
		}
		host, _ := os.ReadFile(f)
		g, h := keys(got), keys(string(host))
		if i := strings.Index(g, "Rss"); strings.HasSuffix(f, "rollup") && i > 0 {
			g, h = g[i:], h[strings.Index(h, "Rss"):]
		}
		if g != h {
			t.Errorf("%s:\n%s\nhost:\n%s\n%s", f, g, h, got)
		}
	}
	got, _ := read(task, "/proc/self/stat")
	host, _ := os.ReadFile("/proc/self/stat")
	if a, b := len(strings.Fields(got)), len(strings.Fields(string(host))); a != b {
		t.Errorf("stat has %d fields, the host's %d: %s", a, b, got)
	}
	smaps, _ := read(task, "/proc/self/smaps")
	hsmaps, _ := os.ReadFile("/proc/self/smaps")
	head := func(s string) string { return keys(strings.Join(strings.SplitN(s, "\n", 26)[1:25], "\n")) }
	if head(smaps) != head(string(hsmaps)) {
		t.Errorf("smaps:\n%s\nhost:\n%s", head(smaps), head(string(hsmaps)))
	}
}

func TestProcess(t *testing.T) {
	task := start(t)
	for path, want := range map[string]string{
		"/proc/self/cmdline":             "sh\x00-c\x00a b\x00",
		"/proc/1/environ":                "A=1\x00B=2\x00",
		"/proc/thread-self/comm":         "sh\n",
		"/proc/self/cgroup":              "0::/\n",
		"/proc/self/uid_map":             "         0          0 4294967295\n",
		"/proc/sys/kernel/hostname":      "box\n",
		"/proc/sys/kernel/osrelease":     kernel.Release + "\n",
		"/proc/sys/vm/overcommit_memory": "0\n",
		"/proc/self/oom_score_adj":       "0\n",
		"/proc/self/task/1/children":     "",
	} {
		if got, err := read(task, path); got != want || err != nil {
			t.Errorf("%s: %q %v, want %q", path, got, err, want)
		}
	}
	for path, want := range map[string]string{
		"/proc/self": "1", "/proc/thread-self": "1/task/1", "/proc/self/cwd": "/usr", "/proc/self/root": "/", "/proc/mounts": "self/mounts",
		"/proc/self/ns/user": "user:[4026531837]",
	} {
		if got, err := readlink(task, path); got != want || err != nil {
			t.Errorf("%s: %q %v, want %q", path, got, err, want)
		}
	}
	if s, err := readlink(task, "/proc/self/exe"); err != nil || !strings.HasPrefix(s, "/usr/bin/") {
		t.Error("exe", s, err)
	}
	for path, text := range map[string]string{"/proc/sys/kernel/hostname": "other\n", "/proc/self/comm": "renamed", "/proc/self/oom_score_adj": "500\n",
		"/proc/sys/fs/inotify/max_user_watches": "1000\n"} {
		if err := write(task, path, text); err != nil {
			t.Error(path, err)
		}
		if got, err := read(task, path); strings.TrimSpace(got) != strings.TrimSpace(text) || err != nil {
			t.Errorf("%s: %q %v after writing %q", path, got, err, text)
		}
	}
	if err := write(task, "/proc/sys/kernel/printk", "x"); err != unix.EINVAL {
		t.Error(err)
	}
	if err := write(task, "/proc/meminfo", "x"); err != unix.EACCES && err != unix.EINVAL && err != unix.EIO {
		t.Error(err)
	}
	maps, _ := read(task, "/proc/self/maps")
	for _, w := range []string{"[stack]", "r-xp", "/usr/bin/"} {
		if !strings.Contains(maps, w) {
			t.Errorf("maps lack %s:\n%s", w, maps)
		}
	}
	mounts, _ := read(task, "/proc/self/mounts")
	if !strings.Contains(mounts, "proc /proc proc rw,nosuid") {
		t.Error(mounts)
	}
	if _, err := read(task, "/proc/2/stat"); err != unix.ENOENT {
		t.Error(err)
	}
	fd, err := vfs.Open(task, task.Cwd(), "/proc/self/ns/uts", vfs.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if f, ok := fd.Impl().(*kernel.NSFile); !ok || f.Object != any(task.UTS()) {
		t.Errorf("%T", fd.Impl())
	}
	n, err := task.NewFD(fd, true)
	if err != nil {
		t.Fatal(err)
	}
	link, err := readlink(task, fmt.Sprintf("/proc/self/fd/%d", n))
	if err != nil || !strings.HasPrefix(link, "uts:[") {
		t.Error(link, err)
	}
	info, err := read(task, fmt.Sprintf("/proc/self/fdinfo/%d", n))
	if err != nil || !strings.HasPrefix(info, "pos:\t0\nflags:\t02000000\nmnt_id:\t") {
		t.Errorf("%q %v", info, err)
	}
	fd.DecRef()
}

// TestReadAll reads every file and lists every directory.
func TestReadAll(t *testing.T) {
	task := start(t)
	count := 0
	var walk func(dir string, depth int)
	walk = func(dir string, depth int) {
		names, err := list(task, dir)
		if err != nil {
			t.Errorf("%s: %v", dir, err)
			return
		}
		seen := map[string]bool{}
		for _, n := range names {
			if seen[n] {
				t.Errorf("%s lists %s twice", dir, n)
			}
			seen[n] = true
			if n == "." || n == ".." {
				continue
			}
			path := dir + "/" + n
			p, err := vfs.Resolve(task, task.Cwd(), path, 0)
			if err != nil {
				t.Errorf("%s: %v", path, err)
				continue
			}
			a, _ := p.Inode().Attr(task)
			p.DecRef()
			count++
			switch a.FileType() {
			case unix.S_IFDIR:
				if depth < 8 {
					walk(path, depth+1)
				}
			case unix.S_IFLNK:
				if _, err := readlink(task, path); err != nil {
					t.Errorf("%s: %v", path, err)
				}
			default:
				if a.Mode&0o400 != 0 && n != "mem" {
					if _, err := read(task, path); err != nil {
						t.Errorf("%s: %v", path, err)
					}
				}
			}
		}
	}
	walk("/proc", 0)
	if count < 300 {
		t.Error("only", count, "files")
	}
}

// FuzzWrites: what a guest writes is taken or refused with EINVAL or ERANGE.
func FuzzWrites(f *testing.F) {
	f.Add("0 1000 1\n1 2000 65535\n")
	f.Add("monotonic -5 999999999\nboottime 4294967296 0")
	f.Add("32000\t1024000000\t500\t32000")
	y := &sysctls{values: map[string]string{}}
	y.ints("a", "1\t2\t3", -5, 5)
	f.Fuzz(func(t *testing.T, s string) {
		if es, err := parseIDMap(s); err == nil && len(es) == 0 {
			t.Error("no entries and no error")
		}
		if m, b, err := parseTimens(s, 0, 0); err == nil && (m > 5e18 || b > 5e18) {
			t.Error(m, b)
		}
		y.list[0].put(vfs.Background(), s)
		if n := len(strings.Fields(y.value(vfs.Background(), "a"))); n != 3 {
			t.Errorf("%q", y.value(vfs.Background(), "a"))
		}
	})
}
