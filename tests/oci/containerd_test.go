package oci

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"moat/cmd/moat/install"
)

// containerd is a daemon of its own, started by hand in network and mount namespaces of its own, with moat's shim in its PATH.
type containerd struct {
	t *testing.T
	// holder keeps the namespaces, so that the daemon can be started again in them.
	holder, daemon *exec.Cmd
	dir, namespace string
	bin            string
}

const boxImage = "docker.io/library/box:latest"

// newContainerd starts one and imports the image "box"; what config returns is added to its configuration.
func newContainerd(t *testing.T, namespace string, config func(dir string) string) *containerd {
	t.Helper()
	if os.Getenv("MOAT_CONTAINERD") == "" {
		t.Skip("needs containerd: MOAT_CONTAINERD=1, or make containerd")
	}
	d := &containerd{t: t, namespace: namespace, bin: filepath.Dir(moat)}
	c := exec.Command("go", "build", "-C", "../../cmd/"+install.Shim, "-trimpath", "-o", d.bin, ".")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var err error
	if d.dir, err = os.MkdirTemp("", "moat-containerd-"); err != nil {
		t.Fatal(err)
	}
	d.holder = holdNamespaces(t, "-m", "-n")
	t.Cleanup(d.close)
	conf := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\n[grpc]\n  address = %q\n[debug]\n  level = \"debug\"\n", d.at("root"), d.at("state"), d.at("s"))
	if config != nil {
		conf += config(d.dir)
	}
	err = os.WriteFile(d.at("config.toml"), []byte(conf), 0o644)
	if err == nil {
		_, err = install.Containerd(d.at("config.toml"), "moat", moat)
	}
	if err != nil {
		t.Fatal(err)
	}
	d.inside("ip", "link", "set", "lo", "up").Run()
	d.start()
	d.importImage(boxImage, "sh")
	return d
}

// holdNamespaces makes namespaces that live as long as a process, in which there is no version 2 of cgroups if the host has both.
func holdNamespaces(t *testing.T, flags ...string) *exec.Cmd {
	t.Helper()
	c := exec.Command("unshare", append(flags, "bash", "-c", holderScript)...)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err == nil {
		_, err = io.ReadFull(out, make([]byte, 6))
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (d *containerd) at(name string) string { return filepath.Join(d.dir, name) }

// inside is a command in the daemon's namespaces.
func (d *containerd) inside(args ...string) *exec.Cmd {
	c := exec.Command("nsenter", append([]string{"-t", fmt.Sprint(d.holder.Process.Pid), "-m", "-n"}, args...)...)
	c.Env = append(os.Environ(), "PATH="+d.bin+":"+os.Getenv("PATH"))
	return c
}

func (d *containerd) start() {
	d.t.Helper()
	log, err := os.OpenFile(d.at("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		d.t.Fatal(err)
	}
	defer log.Close()
	d.daemon = d.inside("containerd", "-c", d.at("config.toml"))
	d.daemon.Stdout, d.daemon.Stderr = log, log
	d.daemon.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := d.daemon.Start(); err != nil {
		d.t.Fatal(err)
	}
	eventually(d.t, "the daemon's start", func() bool { return d.command("version").Run() == nil })
}

// command is one of ctr.
func (d *containerd) command(args ...string) *exec.Cmd {
	return d.inside(append([]string{"ctr", "-a", d.at("s"), "-n", d.namespace}, args...)...)
}

// ctr runs one.
func (d *containerd) ctr(args ...string) result {
	d.t.Helper()
	c := d.command(args...)
	return run(d.t, c.Env, c.Args...)
}

// ok runs one that must succeed.
func (d *containerd) ok(args ...string) string {
	d.t.Helper()
	r := d.ctr(args...)
	if r.code != 0 {
		d.t.Fatalf("ctr %s: %v", strings.Join(args, " "), r)
	}
	return r.out
}

// run is ctr's with moat's shim.
func (d *containerd) run(args ...string) []string {
	return append([]string{"run", "--runtime", install.RuntimeType}, args...)
}

// importImage imports a hand-made archive of the test's tree, in Docker's form.
func (d *containerd) importImage(name string, cmd ...string) {
	d.t.Helper()
	layer, err := layerOf(rootfs)
	if err != nil {
		d.t.Fatal(err)
	}
	config, _ := json.Marshal(map[string]any{"architecture": "amd64", "os": "linux", "config": map[string]any{"Cmd": cmd, "Env": []string{"PATH=/bin"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}}})
	manifest, _ := json.Marshal([]any{map[string]any{"Config": "config.json", "RepoTags": []string{name}, "Layers": []string{"layer.tar"}}})
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, data := range map[string][]byte{"layer.tar": layer, "config.json": config, "manifest.json": manifest} {
		w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))})
		w.Write(data)
	}
	w.Close()
	if err := os.WriteFile(d.at("image.tar"), b.Bytes(), 0o644); err != nil {
		d.t.Fatal(err)
	}
	d.ok("images", "import", d.at("image.tar"))
}

func layerOf(dir string) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		i, err := e.Info()
		if err != nil {
			return err
		}
		link, _ := os.Readlink(path)
		h, err := tar.FileInfoHeader(i, link)
		if err != nil {
			return err
		}
		h.Name, _ = filepath.Rel(dir, path)
		if err := w.WriteHeader(h); err != nil || !i.Mode().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err == nil {
			_, err = w.Write(data)
		}
		return err
	})
	w.Close()
	return b.Bytes(), err
}

// shim is the pid of a container's shim.
func (d *containerd) shim(id string) int {
	d.t.Helper()
	out, _ := exec.Command("pgrep", "-f", fmt.Sprintf("^%s/%s -namespace %s -id %s ", d.bin, install.Shim, d.namespace, id)).Output()
	pid := 0
	if n, _ := fmt.Sscan(string(out), &pid); n != 1 {
		d.t.Fatalf("there is no shim of %s: %q", id, out)
	}
	return pid
}

// status is the line of `ctr task ls` about a container.
func (d *containerd) status(id string) string {
	for l := range strings.Lines(d.ok("task", "ls")) {
		if f := strings.Fields(l); len(f) == 3 && f[0] == id {
			return f[2]
		}
	}
	return ""
}

// left are the processes, mounts, state and sockets that there are of this daemon's containers.
func (d *containerd) left() (l []string) {
	out, _ := exec.Command("pgrep", "-f", "-a", d.bin+"/(containerd-shim|moat)").Output()
	l = append(l, strings.Fields(string(out))...)
	for _, p := range []string{"/run/containerd/moat/" + d.namespace + "/*", d.at("state/io.containerd.runtime.v2.task/" + d.namespace + "/*"),
		"/sys/fs/cgroup/*/" + d.namespace + "/*/"} {
		m, _ := filepath.Glob(p)
		l = append(l, m...)
	}
	for _, id := range []string{"a", "k", "r", "o", "p"} {
		s := fmt.Sprintf("/run/containerd/s/%x", sha256.Sum256([]byte(filepath.Join(d.at("s"), d.namespace, id))))
		if _, err := os.Lstat(s); err == nil {
			l = append(l, s)
		}
	}
	m, _ := d.inside("cat", "/proc/self/mounts").Output()
	for line := range strings.Lines(string(m)) {
		if strings.Contains(line, d.dir) {
			l = append(l, line)
		}
	}
	return l
}

// close stops the daemon and sees that nothing is left.
func (d *containerd) close() {
	var l []string
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if l = d.left(); len(l) == 0 {
			break
		}
	}
	if len(l) > 0 {
		d.t.Errorf("left behind: %q", l)
	}
	d.daemon.Process.Signal(syscall.SIGTERM)
	d.daemon.Wait()
	d.holder.Process.Kill()
	d.holder.Wait()
	for _, g := range []string{"/sys/fs/cgroup/*/" + d.namespace, "/run/containerd/moat/" + d.namespace} {
		m, _ := filepath.Glob(g)
		for _, p := range m {
			os.Remove(p)
		}
	}
	if d.t.Failed() {
		log, _ := os.ReadFile(d.at("log"))
		d.t.Logf("the daemon's log ends with:\n%s", log[max(0, len(log)-4000):])
	}
	if err := os.RemoveAll(d.dir); err != nil {
		d.t.Errorf("left behind: %v", err)
	}
}

func TestContainerd(t *testing.T) {
	d := newContainerd(t, fmt.Sprintf("moat-test-%d", os.Getpid()), nil)
	// All events, for the tests to wait for.
	c := d.command("events")
	f, err := os.Create(d.at("events"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c.Stdout = f
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { c.Process.Kill(); c.Wait() }()
	for _, sub := range []struct {
		name string
		f    func(*testing.T, *containerd)
	}{{"run", ctrRun}, {"life", ctrLife}, {"exec", ctrExec}, {"terminal", ctrTerminal}, {"attach", ctrAttach}, {"memory", ctrMemory}, {"options", ctrOptions},
		{"killed shim", ctrKilledShim}, {"restart", ctrRestart}} {
		t.Run(sub.name, func(t *testing.T) {
			e := *d
			e.t = t
			sub.f(t, &e)
			if l := d.left(); len(l) > 0 && !t.Failed() {
				eventually(t, fmt.Sprintf("the end of what is left (%q)", l), func() bool { return len(d.left()) == 0 })
			}
			d.daemon = e.daemon
		})
	}
}

// await waits for an event with the words.
func (d *containerd) await(words ...string) {
	d.t.Helper()
	eventually(d.t, "the event "+strings.Join(words, " "), func() bool { return d.events(words...) > 0 })
}

// events counts those with all the words.
func (d *containerd) events(words ...string) (n int) {
	b, _ := os.ReadFile(d.at("events"))
next:
	for l := range strings.Lines(string(b)) {
		for _, w := range words {
			if !strings.Contains(l, w) {
				continue next
			}
		}
		n++
	}
	return n
}

func ctrRun(t *testing.T, d *containerd) {
	for name, c := range map[string]struct {
		flags  []string
		script string
		code   int
		want   string
	}{
		"output":   {nil, "echo out; echo err >&2", 0, "out"},
		"code":     {nil, "exit 7", 7, ""},
		"kernel":   {nil, "grep -c moat /proc/version", 0, "1"},
		"signal":   {nil, "kill -9 $$; exec sleep 0", 0, ""},
		"cwd, env": {[]string{"--cwd", "/tmp", "--env", "A=b"}, "pwd; echo $A", 0, "/tmp\nb"},
		"root":     {[]string{"--read-only"}, "echo x > /x", 1, ""},
		"caps":     {[]string{"--cap-drop", "CAP_CHOWN"}, "grep CapBnd /proc/self/status", 0, "CapBnd:\t00000000a80425fa"},
	} {
		r := d.ctr(d.run(append(append([]string{"--rm"}, c.flags...), boxImage, "r", "sh", "-c", c.script)...)...)
		if r.code != c.code || strings.TrimSpace(r.out) != c.want {
			t.Errorf("%s: want code %d and %q: %v", name, c.code, c.want, r)
		}
	}
	if r := d.ctr(d.run("--rm", boxImage, "r", "nosuch")...); r.code == 0 || !strings.Contains(r.err, `"nosuch": executable file not found`) {
		t.Errorf("a program that there is not: %v", r)
	}
}

func ctrLife(t *testing.T, d *containerd) {
	d.ok(d.run("-d", boxImage, "a", "sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.1; done")...)
	if s := d.status("a"); s != "RUNNING" {
		t.Errorf("status: %s", s)
	}
	d.ok("task", "pause", "a")
	if s := d.status("a"); s != "PAUSED" {
		t.Errorf("status of what was paused: %s", s)
	}
	d.ok("task", "resume", "a")
	s := d.ok("task", "metrics", "a")
	for _, l := range []string{`memory\.usage\w* +[0-9]{7,}`, `pids\.current +[1-9]`, `cpu\w*\.usage\w* +[1-9]`} {
		if !regexp.MustCompile(l).MatchString(s) {
			t.Errorf("metrics: no %s in %s", l, s)
		}
	}
	if r := d.ctr("task", "checkpoint", "a"); r.code == 0 || !strings.Contains(r.err, "checkpoint: moat has no checkpoints: not implemented") {
		t.Errorf("checkpoint: %v", r)
	}
	d.ok("task", "kill", "a")
	d.await("/tasks/exit", `"id":"a"`, `"exit_status":9`)
	if s := d.status("a"); s != "STOPPED" {
		t.Errorf("status of what has ended: %s", s)
	}
	if r := d.ctr("task", "rm", "a"); r.code != 9 && r.code != 0 {
		t.Errorf("task rm: %v", r)
	}
	d.ok("containers", "rm", "a")
	for _, e := range []string{"create", "start", "paused", "resumed", "exit", "delete"} {
		d.await("/tasks/"+e+" ", `"container_id":"a"`)
	}
}

func ctrExec(t *testing.T, d *containerd) {
	d.ok(d.run("-d", boxImage, "a", "sleep", "1000")...)
	if r := d.ctr("task", "exec", "--exec-id", "e1", "a", "sh", "-c", "echo in; exit 3"); r.code != 3 || r.out != "in\n" {
		t.Errorf("exec: %v", r)
	}
	if r := d.ctr("task", "exec", "--exec-id", "e2", "a", "nosuch"); r.code == 0 || !strings.Contains(r.err, "executable file not found") {
		t.Errorf("exec of what there is not: %v", r)
	}
	d.ok("task", "exec", "-d", "--exec-id", "e3", "a", "sleep", "1000")
	if s := d.ok("task", "ps", "a"); strings.Count(s, "ExecID:e3") != 1 || lines(s) < 4 {
		t.Errorf("ps: %s", s)
	}
	d.ok("task", "kill", "-s", "KILL", "--exec-id", "e3", "a")
	d.await("/tasks/exit", `"id":"e3"`, `"exit_status":137`)
	if s := d.ok("task", "ps", "a"); strings.Contains(s, "e3") {
		t.Errorf("ps, afterwards: %s", s)
	}
	for _, e := range []string{"exec-added", "exec-started"} {
		d.await("/tasks/"+e, `"exec_id":"e3"`)
	}
	d.remove("a")
}

// remove kills a container and removes it.
func (d *containerd) remove(id string) {
	d.t.Helper()
	d.ctr("task", "kill", "-s", "KILL", id)
	eventually(d.t, "the end of "+id, func() bool { return d.status(id) != "RUNNING" })
	d.ctr("task", "rm", id)
	d.ok("containers", "rm", id)
}

func ctrTerminal(t *testing.T, d *containerd) {
	// ctr sets the size after the start.
	const script = `tty; until [ "$(stty size)" = "30 100" ]; do sleep 0.05; done; sleep 0.2; echo set; exit 6`
	d.ok(d.run("-d", boxImage, "a", "sleep", "1000")...)
	for name, c := range map[string]*exec.Cmd{
		"run -t":  d.command(d.run("--rm", "-t", boxImage, "r", "sh", "-c", script)...),
		"exec -t": d.command("task", "exec", "-t", "--exec-id", "e", "a", "sh", "-c", script),
	} {
		out := onTerminal(t, c)
		if out = strings.ReplaceAll(out, "\r", ""); out != "/dev/pts/0\nset\n" || c.ProcessState.ExitCode() != 6 {
			t.Errorf("%s: %q, %v", name, out, c.ProcessState)
		}
	}
	d.remove("a")
}

func ctrAttach(t *testing.T, d *containerd) {
	if out := onTerminal(t, d.command(d.run("-d", "-t", boxImage, "a", "sh", "-c", "read x; echo got $x; exit 5")...)); out != "" {
		t.Fatal(out)
	}
	master, slave := openPTY(t)
	defer master.Close()
	c := d.command("task", "attach", "a")
	c.Stdin, c.Stdout, c.Stderr = slave, slave, slave
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	time.Sleep(200 * time.Millisecond)
	master.WriteString("data\r")
	readUntil(t, master, "got data")
	c.Wait()
	if code := c.ProcessState.ExitCode(); code != 5 {
		t.Errorf("attach ends with %d", code)
	}
	d.remove("a")
}

func ctrMemory(t *testing.T, d *containerd) {
	const hog = "x=a; while :; do x=$x$x$x$x; done"
	limited := func(script string) []string {
		return d.run("--rm", "--memory-limit", "67108864", boxImage, "o", "sh", "-c", script)
	}
	oom := func() int { return d.events("/tasks/oom", `"container_id":"o"`) }
	// A child is killed, and its parent lives on.
	if r := d.ctr(limited("(" + hog + ") 2>/dev/null; echo $?; exit 4")...); r.code != 4 || r.out != "137\n" {
		t.Errorf("a child's want of memory: %v", r)
	}
	eventually(t, "the event of a child's want of memory", func() bool { return oom() == 1 })
	if r := d.ctr(limited(hog)...); r.code != 137 {
		t.Errorf("the first process' want of memory: %v", r)
	}
	eventually(t, "the event of the first process' want of memory", func() bool { return oom() > 1 })
	b, _ := os.ReadFile(d.at("events"))
	if s := string(b); strings.LastIndex(s, "/tasks/oom") > strings.LastIndex(s, `/tasks/exit {"container_id":"o"`) {
		t.Error("that there was no memory is told after the end")
	}
}

func ctrOptions(t *testing.T, d *containerd) {
	conf := d.at("moat.toml")
	for text, want := range map[string]string{
		"BinaryName = \"/nosuch/moat\"\n": "/nosuch/moat", // by its file
		"BinaryNames = \"x\"\n":           "BinaryNames",
		"BinaryName = 1\n":                "runtime options",
		"BinaryName":                      "runtime options",
	} {
		os.WriteFile(conf, []byte(text), 0o644)
		if r := d.ctr(d.run("--rm", "--runtime-config-path", conf, boxImage, "p", "true")...); r.code == 0 || !strings.Contains(r.err, want) {
			t.Errorf("%q: want an error with %q: %v", text, want, r)
		}
	}
	root := d.at("elsewhere")
	os.WriteFile(conf, fmt.Appendf(nil, "Root = %q\nBinaryName = %q\n", root, moat), 0o644)
	d.ok(d.run("-d", "--runtime-config-path", conf, boxImage, "p", "sleep", "1000")...)
	if _, err := os.Stat(filepath.Join(root, d.namespace, "p")); err != nil {
		t.Error(err)
	}
	d.remove("p")
}

// ctrKilledShim: what a shim leaves that is killed is cleared up by containerd, which starts another to do so.
func ctrKilledShim(t *testing.T, d *containerd) {
	d.ok(d.run("-d", boxImage, "k", "sleep", "1000")...)
	syscall.Kill(d.shim("k"), syscall.SIGKILL)
	d.await("/tasks/exit", `"id":"k"`, `"exit_status":137`)
	d.await("/tasks/delete", `"container_id":"k"`)
	eventually(t, "the end of the task", func() bool { return d.status("k") == "" })
	d.ok("containers", "rm", "k")
	// The name can be used again.
	if r := d.ctr(d.run("--rm", boxImage, "k", "sh", "-c", "exit 3")...); r.code != 3 {
		t.Errorf("the next of that name: %v", r)
	}
}

// ctrRestart: tasks live on when containerd is killed, and the next finds them.
func ctrRestart(t *testing.T, d *containerd) {
	d.ok(d.run("-d", boxImage, "a", "sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.1; done")...)
	d.daemon.Process.Kill()
	d.daemon.Wait()
	d.start()
	if s := d.status("a"); s != "RUNNING" {
		t.Errorf("status after the restart: %s", s)
	}
	if r := d.ctr("task", "exec", "--exec-id", "e", "a", "sh", "-c", "echo in; exit 3"); r.code != 3 || r.out != "in\n" {
		t.Errorf("exec after the restart: %v", r)
	}
	d.ok("task", "kill", "a")
	eventually(t, "the end", func() bool { return d.status("a") == "STOPPED" })
	if r := d.ctr("task", "rm", "a"); r.code != 0 && r.code != 9 {
		t.Errorf("task rm after the restart: %v", r)
	}
	d.ok("containers", "rm", "a")
}
