package oci

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// docker is a daemon of its own, started by hand in network and mount namespaces of its own, with moat as its default runtime.
type docker struct {
	dir, sock string
	cmd       *exec.Cmd
}

// daemonScript keeps the daemon's mounts to itself and leaves version 1 of cgroups alone, if the host has both.
const daemonScript = `mount --make-rprivate / && eval "$SETUP" && { umount /sys/fs/cgroup/unified 2>/dev/null; ip link set lo up; exec dockerd "$@"; }`

var theDocker struct {
	once sync.Once
	d    *docker
	err  error
}

// startDocker starts the daemon on first use; TestDocker stops it.
func startDocker(t *testing.T) *docker {
	t.Helper()
	if os.Getenv("MOAT_DOCKER") == "" {
		t.Skip("needs Docker: MOAT_DOCKER=1, or make oci")
	}
	theDocker.once.Do(func() {
		theDocker.d = &docker{}
		theDocker.err = theDocker.d.launch("true")
	})
	if theDocker.err != nil {
		t.Fatal(theDocker.err)
	}
	return theDocker.d
}

// launch starts the daemon with more flags, after setup, a script, in its mount namespace, and makes the image box.
func (d *docker) launch(setup string, flags ...string) (err error) {
	if d.dir, err = os.MkdirTemp("", "moat-docker-"); err != nil {
		return err
	}
	if err := os.Chmod(d.dir, 0o711); err != nil { // for a root that is somebody else on the host
		return err
	}
	d.sock = "unix://" + d.dir + "/s"
	at := func(s string) string { return filepath.Join(d.dir, s) }
	log, err := os.Create(at("log"))
	if err == nil {
		err = os.WriteFile(at("moat-host"), []byte("#!/bin/sh\nexec "+moat+` --network=host "$@"`), 0o755)
	}
	if err != nil {
		return err
	}
	defer log.Close()
	d.cmd = exec.Command("unshare", append([]string{"-n", "-m", "bash", "-c", daemonScript, "dockerd", "-H", d.sock, "--exec-root", at("exec"), "--pidfile", at("pid"),
		"--data-root", at("data"), "--add-runtime", "moat=" + moat, "--add-runtime", "moat-host=" + at("moat-host"), "--default-runtime", "moat", "--bip", "10.99.0.1/24"}, flags...)...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.Env = append(os.Environ(), "SETUP="+setup)
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := d.cmd.Start(); err != nil {
		return err
	}
	for end := time.Now().Add(time.Minute); d.command("version").Run() != nil; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			b, _ := os.ReadFile(at("log"))
			return fmt.Errorf("dockerd does not start: %s", b)
		}
	}
	tar := exec.Command("tar", "-C", rootfs, "-c", ".")
	imp := d.command("import", "-", "box")
	imp.Stdin, _ = tar.StdoutPipe()
	if err = tar.Start(); err == nil {
		err = imp.Run()
		tar.Wait()
	}
	return err
}

// stop ends the daemon, its containers and what it mounted.
func (d *docker) stop(t *testing.T) {
	if out, _ := d.command("ps", "-aq").Output(); len(out) > 0 {
		d.command(append([]string{"rm", "-f"}, strings.Fields(string(out))...)...).Run()
	}
	d.cmd.Process.Signal(syscall.SIGTERM)
	d.cmd.Wait()
	if err := os.RemoveAll(d.dir); err != nil {
		t.Errorf("the daemon's directory cannot be removed: %v", err)
	}
}

func (d *docker) command(args ...string) *exec.Cmd {
	return exec.Command("docker", append([]string{"-H", d.sock}, args...)...)
}

// run runs a docker command.
func (d *docker) run(t *testing.T, args ...string) result {
	t.Helper()
	return run(t, nil, append([]string{"docker", "-H", d.sock}, args...)...)
}

// ok runs one that must succeed, and returns its output without the last newline.
func (d *docker) ok(t *testing.T, args ...string) string {
	t.Helper()
	r := d.run(t, args...)
	if r.code != 0 {
		t.Fatalf("docker %s: %v", strings.Join(args, " "), r)
	}
	return strings.TrimSuffix(r.out, "\n")
}

// inspect is a field of a container's description.
func (d *docker) inspect(t *testing.T, name, field string) string {
	t.Helper()
	return d.ok(t, "inspect", "-f", "{{"+field+"}}", name)
}

// start starts a container that is removed at the test's end.
func (d *docker) start(t *testing.T, args ...string) string {
	t.Helper()
	id := d.ok(t, append([]string{"run", "-d"}, args...)...)
	t.Cleanup(func() { d.run(t, "rm", "-f", id) })
	return id
}

func TestDocker(t *testing.T) {
	d := startDocker(t)
	defer d.stop(t)
	const box = "box"
	// What one command prints.
	for name, c := range map[string]struct {
		flags  []string
		script string
		code   int
		want   string
	}{
		"exit code":     {nil, "echo out; exit 7", 7, "out"},
		"user":          {[]string{"--user", "5:6"}, "id -u; id -g", 0, "5\n6"},
		"hostname":      {[]string{"--hostname", "foo"}, "hostname", 0, "foo"},
		"environment":   {[]string{"-e", "A=B", "-w", "/tmp/x"}, "echo $A; pwd", 0, "B\n/tmp/x"},
		"ulimit":        {[]string{"--ulimit", "nofile=77:88"}, "ulimit -n; ulimit -Hn", 0, "77\n88"},
		"cap-drop":      {[]string{"--cap-drop", "ALL"}, "grep CapEff /proc/self/status", 0, "CapEff:\t0000000000000000"},
		"seccomp":       {nil, "grep Seccomp: /proc/self/status", 0, "Seccomp:\t2"},
		"read-only":     {[]string{"--read-only", "--tmpfs", "/t:size=1m"}, "echo x 2>/dev/null > /a || echo no; echo y > /t/b; cat /t/b", 0, "no\ny"},
		"cpus":          {[]string{"--cpus", "0.5"}, "cat /sys/fs/cgroup/cpu.max", 0, "50000 100000"},
		"memory":        {[]string{"-m", "64m"}, "cat /sys/fs/cgroup/memory.max", 0, "67108864"},
		"child's OOM":   {[]string{"-m", "64m"}, "exec 2>/dev/null; (x=a; while :; do x=$x$x$x$x; done); echo $?", 0, "137"},
		"pids-limit":    {[]string{"--pids-limit", "4"}, "(for i in 1 2 3 4 5; do sleep 1 & done) 2>&1; echo end", 0, "sh: can't fork: Resource temporarily unavailable\nend"},
		"not on a tty":  {nil, "tty", 1, "not a tty"},
		"entry point":   {[]string{"--entrypoint", "/bin/echo"}, "x", 0, "-c x"},
		"named volume":  {[]string{"-v", "vol:/v"}, "echo kept >> /v/f; cat /v/f", 0, "kept"},
		"init":          {[]string{"--init"}, "grep -c docker-init /proc/1/cmdline", 0, "1"},
		"oom score":     {[]string{"--oom-score-adj", "100"}, "cat /proc/self/oom_score_adj", 0, "100"},
		"added device":  {[]string{"--device", "/dev/null:/dev/nil"}, "echo x > /dev/nil; echo $?", 0, "0"},
		"sysctl":        {[]string{"--sysctl", "net.core.somaxconn=99"}, "cat /proc/sys/net/core/somaxconn", 0, "99"},
		"private shm":   {[]string{"--shm-size", "1m"}, "mount | grep -c /dev/shm", 0, "1"},
		"hosts' files":  {nil, "grep -c localhost /etc/hosts", 0, "2"},
		"killed itself": {nil, "kill -9 $$ ; kill -TERM $$; echo init lives", 0, "init lives"},
	} {
		t.Run(name, func(t *testing.T) {
			args := append(append([]string{"run", "--rm"}, c.flags...), box, "sh", "-c", c.script)
			if c.flags != nil && c.flags[0] == "--entrypoint" {
				args = append(append([]string{"run", "--rm"}, c.flags...), box, "-c", c.script)
			}
			if r := d.run(t, args...); r.code != c.code || strings.TrimSpace(r.out) != c.want {
				t.Errorf("want code %d and %q: %v", c.code, c.want, r)
			}
		})
	}
	for name, f := range map[string]func(*testing.T, *docker){"errors": dockerErrors, "life": dockerLife, "exec": dockerExec, "files": dockerFiles,
		"restart": dockerRestart, "oom": dockerOOM, "terminal": dockerTerminal, "build": dockerBuild, "attach": dockerAttach, "health": dockerHealth, "network": dockerNetwork, "shared": dockerShared, "servers": dockerServers} {
		t.Run(name, func(t *testing.T) { f(t, d) })
	}
}

func dockerErrors(t *testing.T, d *docker) {
	for program, code := range map[string]int{"nosuch": 127, "/etc/passwd": 126} {
		if r := d.run(t, "run", "--rm", "box", program); r.code != code {
			t.Errorf("%s: want %d: %v", program, code, r)
		}
	}
}

func dockerLife(t *testing.T, d *docker) {
	id := d.start(t, "box", "sh", "-c", "trap 'echo term; exit 9' TERM; echo up; while :; do sleep 0.1; done")
	eventually(t, "output", func() bool { return d.ok(t, "logs", id) == "up" })
	d.ok(t, "pause", id)
	if s := d.inspect(t, id, ".State.Status"); s != "paused" {
		t.Errorf("paused: %s", s)
	}
	d.ok(t, "unpause", id)
	if s := d.ok(t, "stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", id); !strings.Contains(s, "MiB / ") || strings.HasPrefix(s, "0B") {
		t.Errorf("stats: %s", s)
	}
	if s := d.ok(t, "top", id); lines(s) < 1 || strings.Contains(s, "init") {
		t.Errorf("top: %s", s)
	}
	d.ok(t, "stop", id)
	if s := d.inspect(t, id, ".State.ExitCode") + d.ok(t, "logs", id); s != "9up\nterm" {
		t.Errorf("after stop: %s", s)
	}
	id = d.start(t, "box", "sleep", "1000")
	d.ok(t, "stop", "-t", "1", id) // an init that does not handle it: SIGTERM, then SIGKILL
	if s := d.inspect(t, id, ".State.ExitCode"); s != "137" {
		t.Errorf("after stop of what does not: %s", s)
	}
	d.ok(t, "start", id)
	d.ok(t, "kill", id)
	if s := d.inspect(t, id, ".State.ExitCode"); s != "137" {
		t.Errorf("after kill: %s", s)
	}
	d.ok(t, "restart", id)
	d.ok(t, "update", "-m", "100m", "--memory-swap", "-1", id)
	if s := d.ok(t, "exec", id, "cat", "/sys/fs/cgroup/memory.max"); s != "104857600" {
		t.Errorf("after update: %s", s)
	}
}

func dockerExec(t *testing.T, d *docker) {
	id := d.start(t, "box", "sleep", "1000")
	if r := d.run(t, "exec", "-u", "7", "-w", "/bin", "-e", "Q=1", id, "sh", "-c", "id -u; pwd; echo $Q; echo err >&2; exit 4"); r.code != 4 || r.out != "7\n/bin\n1\n" || r.err != "err\n" {
		t.Errorf("exec: %v", r)
	}
	c := d.command("exec", "-i", id, "cat")
	c.Stdin = strings.NewReader("through\n")
	if out, err := c.Output(); err != nil || string(out) != "through\n" {
		t.Errorf("exec -i: %q %v", out, err)
	}
	d.ok(t, "exec", "-d", id, "sleep", "500")
	if s := d.ok(t, "top", id); lines(s) != 2 || !strings.Contains(s, "sleep") {
		t.Errorf("top: %s", s)
	}
	if r := d.run(t, "exec", id, "nosuch"); r.code != 126 && r.code != 127 {
		t.Errorf("exec of nothing: %v", r)
	}
}

func dockerFiles(t *testing.T, d *docker) {
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "f"), []byte("host\n"), 0o644)
	if s := d.ok(t, "run", "--rm", "-v", dir+":/v", "-v", dir+":/ro:ro", "box", "sh", "-c", "cat /v/f; echo in > /v/g; echo no 2>/dev/null > /ro/h || echo ro"); s != "host\nro" {
		t.Errorf("-v: %s", s)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "g")); string(b) != "in\n" {
		t.Errorf("the host does not see what was written: %q", b)
	}
	// The first process looks for a file that comes later; nothing tells moat.
	id := d.start(t, "box", "sh", "-c", "echo new > /newfile; ls / /tmp; until cat /tmp/late 2>/dev/null; do sleep 0.1; done; sleep 1000")
	eventually(t, "the file", func() bool { return d.run(t, "exec", id, "cat", "/newfile").out == "new\n" })
	if s := d.ok(t, "diff", id); !strings.Contains(s, "A /newfile") {
		t.Errorf("diff: %s", s)
	}
	d.ok(t, "commit", id, "box-new")
	if s := d.ok(t, "run", "--rm", "box-new", "cat", "/newfile"); s != "new" {
		t.Errorf("commit: %s", s)
	}
	d.ok(t, "cp", filepath.Join(dir, "f"), id+":/copied")
	if s := d.ok(t, "exec", id, "cat", "/copied"); s != "host" {
		t.Errorf("cp into: %s", s)
	}
	os.WriteFile(filepath.Join(dir, "f"), []byte("other\n"), 0o644)
	d.ok(t, "cp", filepath.Join(dir, "f"), id+":/copied")
	if s := d.ok(t, "exec", id, "sh", "-c", "cat /copied; echo more >> /copied; ls /copied"); s != "other\n/copied" {
		t.Errorf("cp onto what was there: %s", s)
	}
	if s := d.ok(t, "exec", id, "cat", "/copied"); s != "other\nmore" {
		t.Errorf("written to what was copied: %s", s)
	}
	d.ok(t, "cp", filepath.Join(dir, "f"), id+":/tmp/late")
	eventually(t, "the file that the first process waits for", func() bool { return strings.HasSuffix(d.ok(t, "logs", id), "other") })
	d.ok(t, "cp", id+":/newfile", filepath.Join(dir, "out"))
	if b, _ := os.ReadFile(filepath.Join(dir, "out")); string(b) != "new\n" {
		t.Errorf("cp out of: %q", b)
	}
}

func dockerRestart(t *testing.T, d *docker) {
	id := d.start(t, "--restart", "on-failure:2", "box", "sh", "-c", "echo x; exit 1")
	eventually(t, "the second restart", func() bool {
		return d.inspect(t, id, ".RestartCount") == "2"
	})
	eventually(t, "giving up", func() bool { return d.inspect(t, id, ".State.Status") == "exited" })
	if s := d.ok(t, "logs", id); s != "x\nx\nx" {
		t.Errorf("logs: %s", s)
	}
}

func dockerOOM(t *testing.T, d *docker) {
	var s string
	for range 3 { // word of the kill and of the end come to Docker by different ways, with any runtime
		id := d.start(t, "-m", "64m", "box", "sh", "-c", "x=a; while :; do x=$x$x$x$x; done")
		eventually(t, "the end", func() bool { return d.inspect(t, id, ".State.Status") == "exited" })
		if s = d.inspect(t, id, ".State.OOMKilled") + d.inspect(t, id, ".State.ExitCode"); s == "true137" {
			return
		}
	}
	t.Errorf("OOMKilled, ExitCode: %s", s)
}

// dockerShared: the network, and the processes, of another container.
func dockerShared(t *testing.T, d *docker) {
	id := d.start(t, "--ipc", "shareable", "box", "sh", "-c", "echo hello >/tmp/index.html; exec busybox httpd -f -p 8080 -h /tmp")
	of := "container:" + id
	get := "until busybox wget -qO- http://127.0.0.1:8080/ 2>/dev/null; do :; done"
	if out := d.ok(t, "run", "--rm", "--network", of, "box", "sh", "-c", get); out != "hello" {
		t.Errorf("by the network of another container: %q", out)
	}
	both := d.start(t, "--network", of, "--pid", of, "box", "sleep", "100")
	if out := d.ok(t, "exec", both, "sh", "-c", get+"; ps"); !strings.HasPrefix(out, "hello\n") || !strings.Contains(out, "httpd -f") || !strings.Contains(out, "sleep 100") {
		t.Errorf("with the processes of another container: %s", out)
	}
	// A network of its own, on the bridge, from where the other is reached, and the other way about.
	addr := d.inspect(t, id, ".NetworkSettings.IPAddress")
	third := d.start(t, "--pid", of, "--ipc", of, "box", "sh", "-c", "echo third >/tmp/index.html; busybox httpd -f -p 8080 -h /tmp")
	own := d.inspect(t, third, ".NetworkSettings.IPAddress")
	ask := func(who, whom, want string) {
		t.Helper()
		if out := d.ok(t, "exec", who, "sh", "-c", "until busybox wget -qO- http://"+whom+":8080/ 2>/dev/null; do :; done"); out != want {
			t.Errorf("%s: %q, not %q", whom, out, want)
		}
	}
	for range 2 {
		ask(third, addr, "hello")
		ask(third, "127.0.0.1", "third")
		ask(id, own, "third")
		if out := d.ok(t, "exec", third, "sh", "-c", "cat /proc/1/cmdline | tr '\\0' ' '; busybox ip -o -4 addr show dev eth0"); !strings.HasPrefix(out, "busybox httpd -f -p 8080 -h /tmp ") || !strings.Contains(out, own+"/") {
			t.Errorf("with the processes alone: %q", out)
		}
		d.ok(t, "restart", "-t", "1", third)
		own = d.inspect(t, third, ".NetworkSettings.IPAddress")
	}
	// And it has the name server of a network with names.
	d.ok(t, "network", "create", "named")
	t.Cleanup(func() { d.run(t, "network", "rm", "named") })
	for range 2 {
		if out := d.ok(t, "run", "--rm", "--name", "fourth", "--network", "named", "--pid", of, "box", "sh", "-c", "busybox nslookup fourth 127.0.0.11 | grep -c Address"); out != "2" {
			t.Errorf("its own name: %q", out)
		}
	}
	other := d.start(t, "box", "sleep", "100")
	if res := d.run(t, "run", "--rm", "--pid", of, "--network", "container:"+other, "box", "true"); res.code != 125 || !strings.Contains(res.err, "in another sandbox") {
		t.Errorf("with the network of a third: %v", res)
	}
	if out := d.ok(t, "run", "--rm", "--pid", of, "--network", "host", "box", "busybox", "ip", "-o", "link"); strings.Count(out, "\n") != 0 {
		t.Errorf("with the host's network: %q", out)
	}
	d.ok(t, "rm", "-f", third)
	d.ok(t, "stop", "-t", "1", both)
	if out := d.ok(t, "exec", id, "sh", "-c", get); out != "hello" {
		t.Errorf("after the end of who was with it: %q", out)
	}
}

func dockerHealth(t *testing.T, d *docker) {
	id := d.start(t, "--health-cmd", "echo well", "--health-interval", "1s", "box", "sleep", "1000")
	eventually(t, "health", func() bool { return d.inspect(t, id, ".State.Health.Status") == "healthy" })
}

func dockerBuild(t *testing.T, d *docker) {
	c := d.command("build", "-t", "built", "-")
	c.Stdin = strings.NewReader("FROM box\nRUN echo built > /built && id -u\nCMD cat /built\n")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("build: %v %s", err, out)
	}
	if s := d.ok(t, "run", "--rm", "built"); s != "built" {
		t.Errorf("what was built: %s", s)
	}
}

func dockerAttach(t *testing.T, d *docker) {
	id := d.start(t, "-i", "box", "sh", "-c", "read x; echo got $x; sleep 1")
	c := d.command("attach", id)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	c.Stdout = &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	io.WriteString(in, "data\n")
	c.Wait()
	if s := d.ok(t, "logs", id); s != "got data" {
		t.Errorf("attach: %q, logs %q", out.String(), s)
	}
}

// dockerTerminal drives run -it and exec -it through a terminal.
func dockerTerminal(t *testing.T, d *docker) {
	id := d.start(t, "-t", "box", "sleep", "1000")
	for name, args := range map[string][]string{
		"run":  {"run", "--rm", "-it", "box", "sh", "-c", "tty; read x; echo got $x; read y"},
		"exec": {"exec", "-it", id, "sh", "-c", "tty; read x; echo got $x; read y"},
	} {
		master, slave := openPTY(t)
		c := d.command(args...)
		c.Stdin, c.Stdout, c.Stderr = slave, slave, slave
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		slave.Close()
		readUntil(t, master, "/dev/pts/")
		master.WriteString("hello\r")
		readUntil(t, master, "got hello")
		master.WriteString("\x03") // ^C
		err := c.Wait()
		master.Close()
		if c.ProcessState.ExitCode() != 130 {
			t.Errorf("%s: after ^C: %v", name, err)
		}
	}
}

func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}
