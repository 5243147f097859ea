package oci

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"moat/cmd/moat/container"
)

// pod is a runtime with a sandbox, "sb", that sleeps, and others in it.
type pod struct {
	*runtime
	dir string
	pid int // of the sandbox
}

func newPod(t *testing.T) *pod {
	t.Helper()
	subreaper()
	p := &pod{runtime: newRuntime(t), dir: t.TempDir()}
	t.Cleanup(p.nothingLeft)
	p.sandbox()
	return p
}

// sandbox makes and starts the sandbox.
func (p *pod) sandbox() {
	p.t.Helper()
	p.ok("run", "-d", "-b", p.config("sb", "sandbox", []string{"sleep", "1000"}), "sb")
	p.pid = p.state("sb").Pid
}

// processes are those of the host that the containers' states name.
func (p *pod) processes(ids ...string) (pids []int) {
	for _, id := range ids {
		var s container.State
		if b, err := os.ReadFile(filepath.Join(p.root, id, "state.json")); err == nil && json.Unmarshal(b, &s) == nil {
			pids = append(pids, s.Init.PID, s.Gofer.PID)
		}
	}
	return pids
}

// gone waits until processes have ended, and adopts them if they are orphans.
func (p *pod) gone(pids []int) {
	p.t.Helper()
	eventually(p.t, fmt.Sprintf("the end of processes %v", pids), func() bool {
		return !slices.ContainsFunc(pids, func(pid int) bool {
			syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
			return pid != 0 && unix.Kill(pid, 0) == nil
		})
	})
}

// nothingLeft deletes all containers, and looks for their processes and cgroups.
func (p *pod) nothingLeft() {
	ds, _ := filepath.Glob(filepath.Join(p.root, "*"))
	var ids []string
	for _, d := range ds {
		ids = append(ids, filepath.Base(d))
	}
	pids := p.processes(ids...)
	for _, id := range ids {
		p.moat("delete", "--force", id)
	}
	p.gone(pids)
	if left, _ := filepath.Glob("/sys/fs/cgroup/*" + p.spec.Linux.CgroupsPath + "-*"); len(left) > 0 {
		p.t.Errorf("cgroups are left: %v", left)
	}
}

// config writes a bundle of its own for container id, and returns where.
func (p *pod) config(id, kind string, args []string, change ...func(*specs.Spec)) string {
	p.t.Helper()
	var s specs.Spec
	b, err := json.Marshal(p.spec)
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	s.Process.Args = args
	s.Linux.CgroupsPath += "-" + id
	s.Hostname = "host-" + id
	s.Annotations = map[string]string{"io.kubernetes.cri.container-type": kind, "io.kubernetes.cri.sandbox-id": "sb"}
	if kind == "container" {
		for i, n := range s.Linux.Namespaces {
			if name := map[specs.LinuxNamespaceType]string{"network": "net", "ipc": "ipc", "uts": "uts"}[n.Type]; name != "" {
				s.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/%s", p.pid, name)
			}
		}
	}
	for _, f := range change {
		f(&s)
	}
	dir := filepath.Join(p.dir, id)
	os.Mkdir(dir, 0o755)
	if b, err = json.Marshal(&s); err == nil {
		err = os.WriteFile(filepath.Join(dir, "config.json"), b, 0o644)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return dir
}

// run starts a container that runs a script.
func (p *pod) run(id, script string, change ...func(*specs.Spec)) {
	p.t.Helper()
	p.ok("run", "-d", "-b", p.config(id, "container", []string{"sh", "-c", script}, change...), id)
}

// exec runs a script in a container and returns its output.
func (p *pod) exec(id, script string) string {
	p.t.Helper()
	return p.ok("exec", id, "sh", "-c", script)
}

// namespace gives a namespace of the container a path, or with "-" takes it out.
func namespace(kind specs.LinuxNamespaceType, path string) func(*specs.Spec) {
	return func(s *specs.Spec) {
		i := slices.IndexFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind })
		if path == "-" {
			s.Linux.Namespaces = slices.Delete(s.Linux.Namespaces, i, i+1)
			return
		}
		s.Linux.Namespaces[i].Path = path
	}
}

func (p *pod) sharePID() func(*specs.Spec) {
	return namespace("pid", fmt.Sprintf("/proc/%d/ns/pid", p.pid))
}

const forever = "trap 'exit 9' TERM; while :; do sleep 0.1; done"

// TestPod: what containers of a pod share, and what not; each has all verbs to itself.
func TestPod(t *testing.T) {
	p := newPod(t)
	own := t.TempDir()
	if err := os.CopyFS(own, os.DirFS(rootfs)); err != nil {
		t.Fatal(err)
	}
	p.run("a", forever)
	p.run("b", "sleep 1000 & wait", func(s *specs.Spec) {
		s.Root = &specs.Root{Path: own}
		s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 77, Hard: 77}}
		s.Process.Capabilities = &specs.LinuxCapabilities{}
	})
	if n := lines(p.ok("list", "-q")); n != 3 {
		t.Errorf("%d containers", n)
	}
	for id, want := range map[string]string{"sb": "sleep", "a": "sh", "b": "sh"} {
		if got := p.exec(id, "cat /proc/1/comm"); got != want+"\n" {
			t.Errorf("process 1 of %s is %q", id, got)
		}
	}
	// Own files, processes, limits, capabilities and seccomp; the pod's names, IPC and network.
	p.exec("b", "echo mine > /tmp/f")
	if b, _ := os.ReadFile(filepath.Join(own, "tmp/f")); string(b) != "mine\n" {
		t.Errorf("the file of b on the host: %q", b)
	}
	if got := p.exec("b", "ulimit -n; grep -c 'CapBnd:.*0000000000000000' /proc/self/status; hostname"); got != "77\n1\nhost-sb\n" {
		t.Errorf("in b: %q", got)
	}
	if got := p.exec("a", "ls /tmp; hostname; ulimit -n"); got != "host-sb\n1024\n" {
		t.Errorf("in a: %q", got)
	}
	for _, ns := range []struct {
		name string
		same bool
	}{{"net", true}, {"ipc", true}, {"uts", true}, {"pid", false}, {"mnt", false}, {"cgroup", false}} {
		a, b := p.exec("a", "readlink /proc/self/ns/"+ns.name), p.exec("sb", "readlink /proc/self/ns/"+ns.name)
		if (a == b) != ns.same {
			t.Errorf("namespace %s: %q in a container, %q in the sandbox", ns.name, a, b)
		}
	}
	eventually(t, "the two processes of b", func() bool { return lines(p.ok("ps", "b")) == 3 })
	if got := p.ok("ps", "b"); strings.Contains(got, "trap") {
		t.Errorf("ps b: %s", got)
	}
	for _, id := range []string{"sb", "a", "b"} {
		var pids []int
		if err := json.Unmarshal([]byte(p.ok("ps", "-f", "json", id)), &pids); err != nil || len(pids) == 0 || unix.Kill(pids[0], 0) != nil {
			t.Errorf("ps -f json %s: %v %v", id, pids, err)
		}
	}
	var ev struct{ Data container.Stats }
	if err := json.Unmarshal([]byte(p.ok("events", "--stats", "b")), &ev); err != nil || ev.Data.Pids.Current != 2 || ev.Data.CPU.Usage.Total == 0 {
		t.Errorf("events: %+v %v", ev, err)
	}
	// The number of state stands for the container: it ends with its exit status, and passes signals on.
	pid := p.state("a").Pid
	p.trapped("a")
	p.ok("kill", "--all", "b", "KILL")
	p.await("b", "stopped")
	unix.Kill(pid, unix.SIGTERM)
	if ws := reap(t, pid); ws.ExitStatus() != 9 {
		t.Errorf("the process that stands for a ended with %v", ws)
	}
	if s := p.await("a", "stopped"); s.ExitStatus == nil || *s.ExitStatus != 9 {
		t.Errorf("a: %+v", s)
	}
	if s := p.state("b"); s.ExitStatus == nil || *s.ExitStatus != 137 {
		t.Errorf("b: %+v", s)
	}
	p.fails(255, "not running", "exec", "a", "true")
	p.ok("delete", "a")
	p.ok("delete", "b")
	if s := p.state("sb"); s.Status != "running" || p.exec("sb", "echo on") != "on\n" {
		t.Errorf("the sandbox: %+v", s)
	}
	// One in the foreground, with the same ID as one before.
	dir := p.config("a", "container", []string{"sh", "-c", "echo out; exit 3"})
	if res := p.moat("run", "-b", dir, "a"); res.code != 3 || res.out != "out\n" || res.err != "" {
		t.Errorf("run: %v", res)
	}
	p.fails(1, `"nosuch": executable file not found`, "run", "-b", p.config("a", "container", []string{"nosuch"}), "a")
}

// TestPodSharedPID: containers in the sandbox's PID namespace, and in that of another container.
func TestPodSharedPID(t *testing.T) {
	p := newPod(t)
	p.run("a", "sleep 2000 & "+forever, p.sharePID())
	p.run("b", "sleep 3000", namespace("pid", fmt.Sprintf("/proc/%d/ns/pid", p.state("a").Pid)))
	p.trapped("a")
	if got := p.exec("b", "cat /proc/1/comm; ps"); !strings.HasPrefix(got, "sleep\n") || !strings.Contains(got, "sleep 2000") || !strings.Contains(got, "sleep 3000") {
		t.Errorf("b sees %q", got)
	}
	if got := p.ok("ps", "b"); lines(got) != 2 {
		t.Errorf("ps b: %s", got)
	}
	p.run("c", forever)
	if got := p.exec("c", "ps"); strings.Contains(got, "sleep 2000") {
		t.Errorf("c sees %q", got)
	}
	p.run("d", "sleep 4000", namespace("pid", fmt.Sprintf("/proc/%d/ns/pid", p.state("c").Pid)))
	// A signal to all is one to all of a container. Its end takes its other processes with it, and the end of a namespace all in there.
	p.ok("kill", "--all", "a", "TERM")
	if s := p.await("a", "stopped"); *s.ExitStatus != 9 {
		t.Errorf("a: %+v", s)
	}
	if got := p.exec("b", "ps"); strings.Contains(got, "sleep 2000") || !strings.Contains(got, "sleep 3000") {
		t.Errorf("b sees %q", got)
	}
	p.ok("kill", "c", "KILL")
	if s := p.await("d", "stopped"); *s.ExitStatus != 137 {
		t.Errorf("d, whose PID namespace was c's: %+v", s)
	}
	dir := p.config("e", "container", []string{"sleep", "5000"}, namespace("pid", "-"))
	if res := p.moat("run", "-d", "-b", dir, "e"); res.code != 0 || !strings.Contains(res.err, "the host's pid namespace cannot be shared: the pod's is") {
		t.Errorf("no PID namespace: %v", res)
	}
	if got := p.exec("b", "ps"); !strings.Contains(got, "sleep 5000") {
		t.Errorf("b sees %q", got)
	}
}

// TestPodNetwork: one's server is the other's localhost; who has a network of its own does not see it.
func TestPodNetwork(t *testing.T) {
	p := newPod(t)
	p.run("a", "while :; do echo served | busybox nc -l -p 5000; done")
	p.run("b", forever)
	p.run("c", forever, namespace("network", ""), namespace("uts", ""))
	eventually(t, "an answer", func() bool { return p.moat("exec", "b", "busybox", "nc", "127.0.0.1", "5000").out == "served\n" })
	if res := p.moat("exec", "c", "busybox", "nc", "127.0.0.1", "5000"); res.code == 0 {
		t.Errorf("another network: %v", res)
	}
	if got := p.exec("c", "hostname"); got != "host-c\n" {
		t.Errorf("names of its own: %q", got)
	}
}

// TestPodOrders deletes containers and sandbox in every order. With the sandbox all end.
func TestPodOrders(t *testing.T) {
	p := newPod(t)
	for i, order := range [][]string{{"sb", "a", "b"}, {"sb", "b", "a"}, {"a", "sb", "b"}, {"b", "sb", "a"}, {"a", "b", "sb"}, {"b", "a", "sb"}} {
		if i > 0 {
			p.sandbox()
		}
		p.run("a", forever)
		p.ok("create", "-b", p.config("b", "container", []string{"sleep", "1000"}), "b")
		if s := p.state("b"); s.Status != "created" {
			t.Errorf("b: %+v", s)
		}
		pids := p.processes("sb", "a", "b")
		for j, id := range order {
			p.ok("delete", "--force", id)
			dead := slices.Contains(order[:j+1], "sb")
			for _, o := range order[j+1:] {
				if s := p.state(o); (s.Status == "stopped") != dead {
					t.Errorf("%v, after %s: %s is %s", order, id, o, s.Status)
				}
			}
		}
		p.gone(pids)
	}
}

// TestPodCrash: the end of what stands for a container, or serves it, is that container's alone; the sentry's is all's.
func TestPodCrash(t *testing.T) {
	p := newPod(t)
	p.run("a", forever)
	p.run("b", forever)
	p.run("c", forever)
	unix.Kill(p.processes("a")[0], unix.SIGKILL)
	unix.Kill(p.processes("b")[1], unix.SIGKILL)
	for _, id := range []string{"a", "b"} {
		if s := p.await(id, "stopped"); *s.ExitStatus != 137 {
			t.Errorf("%s: %+v", id, s)
		}
		p.ok("delete", id)
		p.run(id, forever)
	}
	if got := p.exec("c", "echo on"); got != "on\n" {
		t.Errorf("c: %q", got)
	}
	unix.Kill(p.pid, unix.SIGKILL)
	for _, id := range []string{"sb", "a", "b", "c"} {
		if s := p.await(id, "stopped"); *s.ExitStatus != 137 {
			t.Errorf("%s: %+v", id, s)
		}
	}
	p.fails(1, "sandbox sb: stopped", "run", "-b", p.config("d", "container", []string{"true"}), "d")
}

// TestPodParallel makes containers at the same time.
func TestPodParallel(t *testing.T) {
	p := newPod(t)
	var wg sync.WaitGroup
	for i := range 6 {
		id := fmt.Sprint("c", i)
		dir := p.config(id, "container", []string{"sh", "-c", fmt.Sprint("exit ", i)})
		wg.Go(func() {
			if res := p.moat("run", "-b", dir, id); res.code != i {
				t.Errorf("%s: %v", id, res)
			}
		})
	}
	wg.Wait()
	if n := lines(p.ok("list", "-q")); n != 1 {
		t.Errorf("%d containers are left", n)
	}
}

// TestPodLimits: one's limits are not another's, and each sees its own.
func TestPodLimits(t *testing.T) {
	p := newPod(t)
	cgroup := func(r *specs.LinuxResources) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Linux.Resources = r
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup"})
		}
	}
	p.run("a", "exec sleep 1000", cgroup(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(8))}}))
	p.run("b", forever, cgroup(&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(50000)), Period: ptr(uint64(100000))}}))
	const files = "cd /sys/fs/cgroup; cat pids.max cpu.max; "
	if got := p.exec("a", files+"sleep 1000 & cat pids.current"); got != "8\nmax 100000\n3\n" {
		t.Errorf("a sees %q", got)
	}
	if got := p.exec("b", files); got != "max\n50000 100000\n" {
		t.Errorf("b sees %q", got)
	}
	const many = "for i in 1 2 3 4 5 6 7 8 9; do sleep 0.5 & done; wait; echo done"
	if res := p.moat("exec", "a", "sh", "-c", strings.ReplaceAll(many, "0.5", "1000")); !strings.Contains(res.err, "fork") {
		t.Errorf("more tasks than a may have: %v", res)
	}
	if got := p.exec("b", many); got != "done\n" {
		t.Errorf("as many tasks in b: %q", got)
	}
	p.ok("update", "--pids-limit", "50", "a")
	if got := p.exec("a", many); got != "done\n" {
		t.Errorf("with a higher limit: %q", got)
	}
}

// TestPodQuota: a container of a pod is held to its CPU quota, and the others are not.
func TestPodQuota(t *testing.T) {
	p := newPod(t)
	used := func() time.Duration { // of the sandbox's cgroup on the host, which has all guest threads
		var e struct {
			Data struct {
				CPU struct{ Usage struct{ Total uint64 } }
			}
		}
		if s := p.ok("events", "--stats", "sb"); json.Unmarshal([]byte(s), &e) != nil || e.Data.CPU.Usage.Total == 0 {
			t.Fatalf("events: %s", s)
		}
		return time.Duration(e.Data.CPU.Usage.Total)
	}
	cgroup := func(s *specs.Spec) {
		s.Linux.Resources = &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(10000)), Period: ptr(uint64(50000))}}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup"})
	}
	p.run("a", forever, cgroup)
	stat := func(name string) (n int64) {
		for _, l := range strings.Split(p.exec("a", "cat /sys/fs/cgroup/cpu.stat"), "\n") {
			if f := strings.Fields(l); len(f) == 2 && f[0] == name {
				fmt.Sscan(f[1], &n)
			}
		}
		return n
	}
	time.Sleep(500 * time.Millisecond) // asleep, as most of the time: the quota is not timed now, and must be when work begins
	p.ok("exec", "-d", "a", "sh", "-c", "for i in 1 2 3; do while :; do :; done & done; while :; do echo; done > /dev/null")
	eventually(t, "a period in which it is held", func() bool { return stat("nr_throttled") > 3 })
	start, was, own := time.Now(), used(), stat("usage_usec")
	time.Sleep(2 * time.Second)
	host, mine := used()-was, time.Duration(stat("usage_usec")-own)*time.Microsecond
	wall := time.Since(start)
	if host > wall*6/10 {
		t.Errorf("four loops of a container with a fifth of a CPU used %v by its own account, %v by the host's, in %v", mine, host, wall)
	}
	if n := stat("nr_throttled"); stat("throttled_usec") == 0 || stat("nr_periods") < n {
		t.Errorf("cpu.stat: %s", p.exec("a", "cat /sys/fs/cgroup/cpu.stat"))
	}
	p.ok("update", "--cpu-quota", "-1", "a")
	held := stat("nr_throttled")
	was = used()
	eventually(t, "more work without the quota", func() bool { return used()-was > 3*time.Second })
	if n := stat("nr_throttled"); n > held+1 {
		t.Errorf("held %d times after the quota was lifted", n-held)
	}
}

// TestPodMemory: who passes his limit loses a process; the others have theirs.
func TestPodMemory(t *testing.T) {
	p := newPod(t)
	p.run("a", forever, func(s *specs.Spec) {
		s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20))}}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup"},
			specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs"})
	})
	p.run("b", forever)
	const hog = "busybox head -c 157286400 /dev/zero | busybox tail -c 157286400 >/dev/null"
	if res := p.moat("exec", "a", "sh", "-c", hog); res.code != 137 {
		t.Errorf("a, past its limit: %v", res)
	}
	if res := p.moat("exec", "b", "sh", "-c", hog); res.code != 0 {
		t.Errorf("b: %v", res)
	}
	if got := p.exec("a", "cd /sys/fs/cgroup; cat memory.max; grep oom_kill memory.events; read used < memory.current; test $used -lt 67108864 && echo less"); got != "67108864\noom_kill 1\nless\n" {
		t.Errorf("a sees %q", got)
	}
	// Files in memory count, too, and it is who made them that loses a process.
	if res := p.moat("exec", "a", "sh", "-c", "busybox dd if=/dev/zero of=/tmp/f bs=1M count=100 2>/dev/null"); res.code == 0 {
		t.Errorf("a file beyond a's limit: %v", res)
	}
	if s := p.state("b"); s.Status != "running" {
		t.Errorf("b: %+v", s)
	}
}

// TestPodPause: a pause is a container's own.
func TestPodPause(t *testing.T) {
	p := newPod(t)
	p.run("a", "while :; do date +%s%N > /tmp/beat; done", func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/tmp", Type: "bind", Source: p.dir, Options: []string{"bind"}})
	})
	p.run("b", forever)
	beat := func() string {
		b, _ := os.ReadFile(filepath.Join(p.dir, "beat"))
		return string(b)
	}
	eventually(t, "a beat", func() bool { return beat() != "" })
	for _, id := range []string{"a", "sb"} {
		p.ok("pause", id)
		if s := p.state(id); s.Status != "paused" {
			t.Errorf("%s: %+v", id, s)
		}
		p.fails(255, "paused", "exec", id, "true")
	}
	last, changes := beat(), 0
	for range 100 {
		time.Sleep(2 * time.Millisecond)
		if b := beat(); b != last {
			last, changes = b, changes+1
		}
	}
	if changes > 2 { // of one write that was on its way: emptied, written
		t.Errorf("a goes on: %d changes", changes)
	}
	if got := p.exec("b", "echo on"); got != "on\n" || p.state("b").Status != "running" {
		t.Errorf("b: %q", got)
	}
	p.ok("resume", "a")
	eventually(t, "another beat", func() bool { return beat() != last })
	p.ok("pause", "a")
	p.ok("kill", "a", "KILL")
	if s := p.await("a", "stopped"); *s.ExitStatus != 137 {
		t.Errorf("a, killed while it was paused: %+v", s)
	}
	p.fails(1, "not paused", "resume", "b")
	p.ok("resume", "sb")
}

// TestPodTerminal: a terminal, its size, and hooks.
func TestPodTerminal(t *testing.T) {
	p := newPod(t)
	sock := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: sock, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	log := filepath.Join(t.TempDir(), "log")
	dir := p.config("a", "container", []string{"sh", "-c", "tty; read x; until stty size | grep '44 88'; do sleep 0.1; done; exit 4"}, func(s *specs.Spec) {
		s.Process.Terminal = true
		hook := func(name string) []specs.Hook {
			return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo " + name + " $(grep -o '\"pid\":[0-9]*') >> " + log}}}
		}
		s.Hooks = &specs.Hooks{CreateRuntime: hook("create"), Poststop: hook("stop"), StartContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "cat >/dev/null; test $$ != 1"}}}}
	})
	p.ok("create", "-b", dir, "--console-socket", sock, "a")
	pid := p.state("a").Pid
	master := receive(t, l)
	p.ok("start", "a")
	readUntil(t, master, "/dev/pts/0")
	unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 44, Col: 88})
	master.WriteString("\n")
	readUntil(t, master, "44 88")
	if ws := reap(t, pid); ws.ExitStatus() != 4 {
		t.Errorf("ended with %v", ws)
	}
	master.Close()
	p.ok("delete", "a")
	if b, _ := os.ReadFile(log); string(b) != fmt.Sprintf("create \"pid\":%d\nstop\n", pid) {
		t.Errorf("hooks: %q", b)
	}
}

// TestPodRefused: what makes no sense is an error that names the annotation or the field.
func TestPodRefused(t *testing.T) {
	p := newPod(t)
	annotate := func(kv ...string) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Annotations = map[string]string{}
			for i := 0; i < len(kv); i += 2 {
				s.Annotations[kv[i]] = kv[i+1]
			}
		}
	}
	const kind, sandbox = "io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"
	for words, change := range map[string]func(*specs.Spec){
		kind + `: "box" is neither`:                   annotate(kind, "box"),
		sandbox + `: "" is not the ID`:                annotate(kind, "container"),
		sandbox + `: "../x" is not the ID`:            annotate(kind, "container", sandbox, "../x"),
		"sandbox no: container does not exist":        annotate(kind, "container", sandbox, "no"),
		"the pid namespace /proc/self/ns/pid is none": namespace("pid", "/proc/self/ns/pid"),
		"linux.namespaces[0].path: stat /proc/1/ns/x": namespace("pid", "/proc/1/ns/x"),
	} {
		p.fails(1, words, "create", "-b", p.config("a", "container", []string{"true"}, change), "a")
	}
	p.run("b", forever)
	p.fails(1, "sandbox b: its annotations do not make it one", "create", "-b", p.config("a", "container", []string{"true"}, annotate(kind, "container", sandbox, "b")), "a")
	// The other engines' words.
	for i, a := range []func(*specs.Spec){annotate("io.kubernetes.cri-o.ContainerType", "container", "io.kubernetes.cri-o.SandboxID", "sb"), annotate("io.containerd.runc.v2.group", "sb")} {
		p.run(fmt.Sprint("c", i), forever, a)
		if got := p.exec(fmt.Sprint("c", i), "hostname"); got != "host-sb\n" {
			t.Errorf("%d: %q", i, got)
		}
	}
}

// TestPodInterrupted kills verbs at random moments: afterwards the sandbox and its other container go on, and the ID can be had again.
func TestPodInterrupted(t *testing.T) {
	rounds := 8
	if os.Getenv("MOAT_LONG") != "" {
		rounds = 250
	}
	p := newPod(t)
	p.run("other", forever)
	dir := p.config("c", "container", []string{"sleep", "1000"})
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	verbs := [][]string{{"create", "-b", dir, "c"}, {"create", "-b", dir, "c"}, {"start", "c"}, {"run", "-d", "-b", dir, "c"}, {"exec", "-d", "c", "sleep", "5"}, {"pause", "c"},
		{"resume", "c"}, {"kill", "c", "KILL"}, {"delete", "c"}, {"delete", "--force", "c"}, {"update", "--pids-limit", "100", "c"}, {"state", "c"}}
	for i := range rounds {
		told := p.interrupt(rnd, 1+rnd.IntN(4), 100, verbs)
		for _, v := range [][]string{{"list"}, {"delete", "--force", "c"}, {"run", "-d", "-b", dir, "c"}, {"delete", "--force", "c"}, {"exec", "other", "true"}} {
			if res := p.moat(v...); res.code != 0 {
				t.Fatalf("round %d (%v): %v: %v", i, told, v, res)
			}
		}
	}
	if n := strings.Count(p.ok("debug", "--stacks", "sb"), "(*container).attend("); n != 1 {
		t.Errorf("the sentry waits for %d containers besides its own", n)
	}
}
