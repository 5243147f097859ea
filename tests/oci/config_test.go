package oci

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func ptr[T any](v T) *T { return &v }

// TestConfig: what config.json says, as the container sees it.
func TestConfig(t *testing.T) {
	for name, c := range map[string]struct {
		set    func(r *runtime)
		script string
		want   string
	}{
		"names":  {func(r *runtime) { r.spec.Hostname, r.spec.Domainname = "hh", "dd" }, "hostname; cat /proc/sys/kernel/domainname", "hh\ndd\n"},
		"masked": {func(r *runtime) { r.spec.Linux.MaskedPaths = []string{"/proc/uptime", "/etc", "/nosuch"} }, "cat /proc/uptime; ls /etc; echo x 2>/dev/null >/etc/y || echo no", "no\n"},
		"read-only": {func(r *runtime) { r.spec.Root.Readonly = false; r.spec.Linux.ReadonlyPaths = []string{"/etc"} },
			"echo x 2>/dev/null >/etc/y || echo no; echo x > /tmp/y && echo yes", "no\nyes\n"},
		"read-only root": {func(*runtime) {}, "echo x 2>/dev/null >/y || echo no; mount | grep -c ' on / .*(ro'", "no\n1\n"},
		"sysctl": {func(r *runtime) {
			r.spec.Linux.Sysctl = map[string]string{"net.core.somaxconn": "99", "kernel.shmmax": "12345678"}
		},
			"cat /proc/sys/net/core/somaxconn /proc/sys/kernel/shmmax", "99\n12345678\n"},
		"limits": {func(r *runtime) {
			r.spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 77, Hard: 88}}
		}, "ulimit -n; ulimit -Hn", "77\n88\n"},
		"callers limits": {func(r *runtime) { r.spec.Process.Rlimits = nil }, "test $(ulimit -Hn) = " + hardFiles() + " && echo same", "same\n"},
		"user": {func(r *runtime) {
			r.spec.Process.User = specs.User{UID: 7, GID: 8, AdditionalGids: []uint32{9}, Umask: ptr(uint32(0o077))}
		}, "id -u; id -g; id -G; umask; echo $HOME", "7\n8\n8 9\n0077\n/home/ann\n"},
		"capabilities": {func(r *runtime) {
			r.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}, Permitted: []string{"CAP_KILL"}, Effective: []string{"CAP_KILL"}}
		}, "grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status | while read a b; do echo $b; done; grep NoNewPrivs /proc/self/status",
			strings.Repeat("0000000000000020\n", 3) + "NoNewPrivs:\t1\n"},
		"environment": {func(r *runtime) { r.spec.Process.Env = append(r.spec.Process.Env, "A=1", "HOME=", "A=2") }, "env | grep -E '^(A|HOME)='", "HOME=/root\nA=2\n"},
		"scheduler": {func(r *runtime) {
			r.spec.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 7}
			r.spec.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 5}
		}, "set -- $(cat /proc/$$/stat); echo ${19} ${40} ${41}; busybox ionice -p $$", "7 0 3\nbest-effort: prio 5\n"},
		"real-time scheduler": {func(r *runtime) {
			r.spec.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedRR, Priority: 9, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork}}
			r.spec.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_IDLE}
		}, "set -- $(cat /proc/$$/stat); echo ${19} ${40} ${41}; set -- $(cat /proc/self/stat); echo ${40} ${41}; busybox ionice -p $$", "0 9 2\n0 0\nidle\n"},
		"masked twice": {func(r *runtime) { r.spec.Linux.MaskedPaths = []string{"/etc", "/tmp", "/etc"} },
			"grep -c ' /etc ' /proc/mounts; stat -c %d /etc /tmp | uniq | wc -l", "1\n1\n"},
		"dangling symlink": {func(r *runtime) {
			os.Symlink("../nowhere/b", filepath.Join(r.spec.Root.Path, "tmp", "link"))
			r.spec.Mounts = append(r.spec.Mounts, specs.Mount{Destination: "/tmp/link/c", Type: "tmpfs"})
		}, "grep -c ' /nowhere/b/c ' /proc/mounts", "1\n"},
		"dangling symlink, root not read-only": {func(r *runtime) {
			r.spec.Root.Readonly = false
			os.Symlink("/nowhere/b", filepath.Join(r.spec.Root.Path, "tmp", "link"))
			r.spec.Mounts = append(r.spec.Mounts, specs.Mount{Destination: "/tmp/link", Source: "/etc/passwd", Options: []string{"bind"}})
		}, "grep -c ' /nowhere/b ' /proc/mounts", "1\n"},
		"tmpfs has the mode of what it covers": {func(r *runtime) {
			os.Chmod(filepath.Join(r.spec.Root.Path, "tmp"), 0o710)
			r.spec.Mounts = append(r.spec.Mounts, specs.Mount{Destination: "/tmp", Type: "tmpfs"}, specs.Mount{Destination: "/new/x", Type: "tmpfs"})
		}, "stat -c %a /tmp /new/x", "710\n1777\n"},
		"read-only /dev": {func(r *runtime) {
			r.spec.Mounts = append(r.spec.Mounts, specs.Mount{Destination: "/dev", Type: "tmpfs", Options: []string{"ro"}})
		}, "echo x > /dev/null && echo y 2>/dev/null > /dev/y || echo no", "no\n"},
		"mqueue": {func(r *runtime) {
			r.spec.Mounts = append(r.spec.Mounts, specs.Mount{Destination: "/q", Type: "mqueue"})
		}, "grep -c '^mqueue /q mqueue' /proc/mounts", "1\n"},
		"the host's path of a bind mount": {func(r *runtime) {
			r.spec.Mounts = append(r.spec.Mounts, specs.Mount{Destination: "/new/d", Source: filepath.Join(r.spec.Root.Path, "bin"), Options: []string{"bind"}})
		}, "grep -c '[^ ]/bin /new/d ' /proc/self/mountinfo", "1\n"},
		"oom score": {func(r *runtime) { r.spec.Process.OOMScoreAdj = ptr(321) }, "cat /proc/self/oom_score_adj", "321\n"},
		"tmpfs": {func(r *runtime) {
			r.spec.Mounts = append(r.spec.Mounts, specs.Mount{Destination: "/new/t", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=64k", "mode=700", "noexec", "nosuid", "shared"}})
		}, "grep -E ' /new/t ' /proc/self/mountinfo | grep -c 'nosuid.*noexec.*shared:'; ls -ld /new/t | grep -c drwx------", "1\n1\n"},
		"tmpcopyup": {func(r *runtime) {
			d := filepath.Join(r.spec.Root.Path, "tmp", "a", "b")
			os.MkdirAll(d, 0o755)
			os.Chmod(filepath.Dir(d), 0o700)
			for i := range 500 {
				os.WriteFile(filepath.Join(d, fmt.Sprintf("a-name-that-is-long-%d", i)), nil, 0o644)
			}
			os.WriteFile(filepath.Join(d, "f"), bytes.Repeat([]byte("x"), 300000), 0o711)
			os.Chown(filepath.Join(d, "f"), 0, 6)
			os.Chmod(filepath.Join(d, "f"), 0o711|os.ModeSetuid)
			os.Symlink("b/f", filepath.Join(r.spec.Root.Path, "tmp", "a", "l"))
			r.spec.Mounts = append(r.spec.Mounts, specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"}})
		}, "cd /tmp/a; stat -c '%a %u %g %s' b/f; ls b | wc -l; readlink l; stat -c %a .; wc -c < l; echo more >> b/f; stat -c %s l b/f; grep -c ' /tmp tmpfs' /proc/mounts",
			"4711 0 6 300000\n501\nb/f\n700\n300000\n3\n300005\n1\n"},
		"devices": {func(r *runtime) {
			r.spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/d/nil", Type: "c", Major: 1, Minor: 3, FileMode: ptr(os.FileMode(0o640)), GID: ptr(uint32(5))},
				{Path: "/dev/none", Type: "b", Major: 200, Minor: 1}}
		}, "echo x > /dev/d/nil && ls -l /dev/d/nil | grep -c '^crw-r----- .* 5 '; cat /dev/none 2>/dev/null || echo no", "1\nno\n"},
		"cgroup": {func(r *runtime) {
			r.spec.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20))},
				CPU: &specs.LinuxCPU{Quota: ptr(int64(50000)), Period: ptr(uint64(100000))}, Pids: &specs.LinuxPids{Limit: ptr(int64(20))}}
		}, "cd /sys/fs/cgroup; cat memory.max cpu.max pids.max cgroup.procs; cat /proc/self/cgroup", "67108864\n50000 100000\n20\n1\n2\n0::/\n"},
		"task limit": {func(r *runtime) {
			r.spec.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(5))}}
		},
			"(for i in 1 2 3 4 5 6; do sleep 1000 & done) 2>&1; echo end", "sh: can't fork: Resource temporarily unavailable\nend\n"},
		"out of memory": {func(r *runtime) {
			r.spec.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20))}}
		}, "exec 2>/dev/null; (x=a; while :; do x=$x$x$x$x; done); echo $?; grep 'oom_kill ' /sys/fs/cgroup/memory.events", "137\noom_kill 1\n"},
		"seccomp": {func(r *runtime) {
			r.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64},
				Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat", "nosuchcall"}, Action: specs.ActErrno, ErrnoRet: ptr(uint(95))},
					{Names: []string{"chmod", "fchmodat"}, Action: specs.ActErrno}}}
		}, "mkdir /tmp/x 2>&1; chmod 700 /tmp 2>&1; grep Seccomp: /proc/self/status",
			"mkdir: can't create directory '/tmp/x': Operation not supported\nchmod: /tmp: Operation not permitted\nSeccomp:\t2\n"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRuntime(t)
			// A root of its own: what is made to mount on stays there.
			own := t.TempDir()
			if err := os.CopyFS(own, os.DirFS(rootfs)); err != nil {
				t.Fatal(err)
			}
			r.spec.Root.Path = own
			c.set(r)
			r.sh(c.script)
			r.run(c.want, 0)
		})
	}
}

// TestBinds: mounts from the host, below a root that is read-only.
func TestBinds(t *testing.T) {
	r := newRuntime(t)
	own, dir := t.TempDir(), t.TempDir()
	if err := os.CopyFS(own, os.DirFS(rootfs)); err != nil {
		t.Fatal(err)
	}
	r.spec.Root.Path = own
	os.WriteFile(filepath.Join(dir, "f"), []byte("host"), 0o644)
	r.spec.Mounts = append(r.spec.Mounts,
		specs.Mount{Destination: "/new/rw", Source: dir, Options: []string{"rbind", "rprivate"}},
		specs.Mount{Destination: "/new/ro", Source: dir, Type: "bind", Options: []string{"bind", "ro", "noexec"}},
		specs.Mount{Destination: "/new/file", Source: filepath.Join(dir, "f"), Options: []string{"bind"}})
	r.sh("cat /new/file; echo; echo in > /new/rw/g; echo in 2>/dev/null > /new/ro/h || echo no; mount | grep -c '/new/ro .*(ro.*noexec'")
	r.run("host\nno\n1\n", 0)
	if b, _ := os.ReadFile(filepath.Join(dir, "g")); string(b) != "in\n" {
		t.Errorf("the host does not see what was written: %q", b)
	}
	r.spec.Mounts[len(r.spec.Mounts)-1].Options = []string{"bind", "fly"}
	r.write()
	if res := r.moat("run", "-b", r.bundle, "c"); res.code != 0 || !strings.Contains(res.err, `option "fly" is not for bind mounts`) {
		t.Errorf("an option that is not for bind mounts: %v", res)
	}
}

// TestBindFlags: a bind mount keeps the flags that its source is mounted with on the host, and what is mounted below it gets none of its own but the recursive ones.
func TestBindFlags(t *testing.T) {
	r := newRuntime(t)
	top := t.TempDir()
	sub := filepath.Join(top, "sub")
	for _, m := range []struct {
		dir   string
		flags uintptr
	}{{top, syscall.MS_NOEXEC | syscall.MS_NOSUID}, {sub, syscall.MS_NODEV}} {
		os.Mkdir(m.dir, 0o755)
		if err := syscall.Mount("none", m.dir, "tmpfs", m.flags, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { syscall.Unmount(m.dir, syscall.MNT_DETACH) })
	}
	b, err := os.ReadFile(busybox)
	if err == nil {
		err = os.WriteFile(filepath.Join(top, "busybox"), b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	for i, opts := range [][]string{{"rbind"}, {"rbind", "ro", "exec"}, {"rbind", "rro"}, {"bind", "ro"}} {
		r.spec.Mounts = append(r.spec.Mounts, specs.Mount{Destination: fmt.Sprintf("/%d", i), Source: top, Options: opts})
	}
	r.sh(`exec 2>&1; while read -r _ d t o _; do case $d in /[0-9]*) echo $d $o; esac; done </proc/mounts
/0/busybox true; echo x >/0/x && cat /0/x; echo x >/1/y; echo x >/1/sub/y && cat /1/sub/y; echo x >/2/sub/z; echo x >/3/sub/z`)
	r.run(`/0 rw,nosuid,noexec,relatime
/0/sub rw,nodev,relatime
/1 ro,nosuid,noexec,relatime
/1/sub rw,nodev,relatime
/2 ro,nosuid,noexec,relatime
/2/sub ro,nodev,relatime
/3 ro,nosuid,noexec,relatime
sh: /0/busybox: Permission denied
x
sh: can't create /1/y: Read-only file system
x
sh: can't create /2/sub/z: Read-only file system
sh: can't create /3/sub/z: Read-only file system
`, 1)
}

func TestHooks(t *testing.T) {
	r := newRuntime(t)
	log := filepath.Join(t.TempDir(), "log")
	host := func(name string) []specs.Hook {
		return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", `s=$(cat); echo ` + name + ` $X $(echo "$s" | grep -o '"status":"[a-z]*"') >> ` + log}, Env: []string{"X=1", "PATH=/bin:/usr/bin"}}}
	}
	own := t.TempDir()
	if err := os.CopyFS(own, os.DirFS(rootfs)); err != nil {
		t.Fatal(err)
	}
	r.spec.Root = &specs.Root{Path: own}
	r.spec.Hooks = &specs.Hooks{CreateRuntime: host("createRuntime"), CreateContainer: host("createContainer"), Poststart: host("poststart"), Poststop: host("poststop"),
		StartContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", `grep -o '"status":"[a-z]*"' > /tmp/hook; echo $$ > /tmp/pid`}}}}
	//lint:ignore SA1019 it is still to be run
	r.spec.Hooks.Prestart = host("prestart")
	r.sh("cat /tmp/hook; echo $$")
	r.run("\"status\":\"created\"\n1\n", 0)
	b, _ := os.ReadFile(log)
	want := "prestart 1 \"status\":\"creating\"\ncreateRuntime 1 \"status\":\"creating\"\ncreateContainer 1 \"status\":\"creating\"\npoststart 1 \"status\":\"running\"\npoststop 1 \"status\":\"stopped\"\n"
	if string(b) != want {
		t.Errorf("hooks: %s", b)
	}
	r.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo bad >&2; exit 3"}}}}
	r.write()
	r.fails(1, "error running createRuntime hook #0: /bin/sh: exit status 3: bad", "run", "-b", r.bundle, "c")
	r.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sleep", Args: []string{"sleep", "1000"}, Timeout: ptr(1)}}}
	r.write()
	r.fails(1, "longer than its timeout", "run", "-b", r.bundle, "c")
	r.spec.Process.Env = append(r.spec.Process.Env, "ONE=two")
	r.spec.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo said $ONE $HOME; exit 3"}}}}
	r.write()
	r.fails(1, "/bin/sh: exit status 3: said two /root", "run", "-b", r.bundle, "c")
	r.spec.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/nosuch"}}}
	r.write()
	r.fails(1, "error running startContainer hook #0: /nosuch", "run", "-b", r.bundle, "c")
}

// TestRefused: what cannot be honoured is an error that names the field; nothing is left behind.
func TestRefused(t *testing.T) {
	for words, set := range map[string]func(s *specs.Spec){
		"linux.namespaces[0].path: the pid namespace": func(s *specs.Spec) {
			s.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.PIDNamespace, Path: "/proc/1/ns/pid"}}
		},
		"linux.namespaces[1].type":        func(s *specs.Spec) { s.Linux.Namespaces[1] = s.Linux.Namespaces[0] },
		"linux.sysctl: \"vm.swappiness\"": func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"vm.swappiness": "1"} },
		"linux.sysctl: net.nosuch":        func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net.nosuch": "1"} },
		"linux.seccomp: defaultAction":    func(s *specs.Spec) { s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: "SCMP_ACT_FLY"} },
		"linux.uidMappings":               func(s *specs.Spec) { s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 1000, Size: 1000}} },
		"linux.resources.memory.limit":    func(s *specs.Spec) { s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: ptr(int64(1 << 20))} },
		"process.scheduler.policy":        func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedDeadline} },
		"process.scheduler.priority: 0":   func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedFIFO} },
		"process.scheduler.nice: 20":      func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Nice: 20} },
		"process.ioPriority": func(s *specs.Spec) {
			s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_RT, Priority: 8}
		},
		"linux.rootfsPropagation": func(s *specs.Spec) { s.Linux.RootfsPropagation = "sideways" },
		"mounts: proc on /proc": func(s *specs.Spec) {
			root := filepath.Join(os.TempDir(), filepath.Base(s.Root.Path)+"-link")
			os.CopyFS(root, os.DirFS(s.Root.Path))
			os.Remove(filepath.Join(root, "proc"))
			os.Symlink("tmp", filepath.Join(root, "proc"))
			s.Root.Path = root
		},
		"linux.resources.hugepageLimits": func(s *specs.Spec) {
			s.Linux.Resources.HugepageLimits = []specs.LinuxHugepageLimit{{Pagesize: "3GB", Limit: 1}}
		},
		"linux.devices: /dev/x": func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "q"}} },
	} {
		r := newRuntime(t, "true")
		set(r.spec)
		r.write()
		r.fails(1, words, "run", "-b", r.bundle, "c")
	}
	// What the gofer says is told, whenever it has ended.
	g := newRuntime(t, "true")
	g.spec.Mounts = append(g.spec.Mounts, specs.Mount{Destination: "/etc/passwd/x", Type: "tmpfs"})
	g.write()
	for range 8 {
		g.fails(1, "cannot make /etc/passwd/x to mount on: not a directory", "run", "-b", g.bundle, "c")
	}
	// A network namespace can be joined, but the host's addresses are not taken.
	r := newRuntime(t, "true")
	for i := range r.spec.Linux.Namespaces {
		if r.spec.Linux.Namespaces[i].Type == specs.NetworkNamespace {
			r.spec.Linux.Namespaces[i].Path = "/proc/self/ns/net"
		}
	}
	r.write()
	r.fails(0, "the host's interfaces are out of the sandbox's reach", "run", "-b", r.bundle, "c")
	r.ok("--network=none", "run", "-b", r.bundle, "c")
}

// hardFiles is this process' hard RLIMIT_NOFILE, which a container has that asks for none, as with runc.
func hardFiles() string {
	var l unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &l) // cannot fail
	return fmt.Sprint(l.Max)
}
