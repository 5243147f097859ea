package oci

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/console"
)

// podman is Podman with moat as its runtime, and directories of its own.
type podman struct {
	t *testing.T
	// holder keeps a mount namespace without version 2 of cgroups, if the host has both: crun and Podman refuse that.
	holder *exec.Cmd
	dir    string
	user   bool // run as an ordinary user
}

const holderScript = `mount --make-rprivate / && { umount /sys/fs/cgroup/unified 2>/dev/null; echo ready; exec sleep infinity; }`

// newPodman makes the directories and the image "box". user: for nobody, rootless.
func newPodman(t *testing.T, user bool) *podman {
	t.Helper()
	if os.Getenv("MOAT_PODMAN") == "" {
		t.Skip("needs Podman: MOAT_PODMAN=1, or make oci")
	}
	dir, err := os.MkdirTemp("", "moat-podman-")
	if err != nil {
		t.Fatal(err)
	}
	p := &podman{t: t, dir: dir, user: user, holder: holdNamespaces(t, "-m")}
	t.Cleanup(p.close)
	os.Chmod(dir, 0o755)
	for _, d := range []string{"home", "run", "vol"} {
		os.Mkdir(p.at(d), 0o700)
		if user {
			os.Chown(p.at(d), nobody, nobody)
		}
	}
	tar := exec.Command("tar", "-C", rootfs, "--owner=0", "--group=0", "-c", ".")
	imp := p.command("import", "-", "box")
	imp.Stdin, _ = tar.StdoutPipe()
	if err = tar.Start(); err == nil {
		var said []byte
		if said, err = imp.CombinedOutput(); err != nil {
			err = fmt.Errorf("%w: %s", err, said)
		}
		tar.Wait()
	}
	if err != nil {
		t.Fatalf("podman import: %v", err)
	}
	return p
}

const nobody = 65534

func (p *podman) at(name string) string { return filepath.Join(p.dir, name) }

func (p *podman) command(args ...string) *exec.Cmd {
	a := []string{"-t", fmt.Sprint(p.holder.Process.Pid), "-m"}
	if p.user {
		a = append(a, "setpriv", "--reuid", fmt.Sprint(nobody), "--regid", fmt.Sprint(nobody), "--clear-groups", "--")
	}
	a = append(a, "podman", "--root", p.at("home/storage"), "--runroot", p.at("run/root"), "--tmpdir", p.at("run/tmp"), "--storage-driver", "vfs",
		"--cgroup-manager", "cgroupfs", "--events-backend", "file", "--log-level", "fatal", "--runtime", moat)
	c := exec.Command("nsenter", append(a, args...)...)
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.at("home"), "XDG_RUNTIME_DIR=" + p.at("run")}
	c.Dir = p.dir
	return c
}

// want runs a command and wants an exit code, and an output.
func (p *podman) want(code int, want string, args ...string) {
	p.t.Helper()
	c := p.command(args...)
	out, err := c.Output()
	if got := c.ProcessState.ExitCode(); got != code || strings.TrimSpace(string(out)) != want {
		said := ""
		if e, ok := err.(*exec.ExitError); ok {
			said = string(e.Stderr)
		}
		p.t.Errorf("podman %s: want code %d and %q; got %d and %q %s", strings.Join(args, " "), code, want, got, out, said)
	}
}

// start starts a container.
func (p *podman) start(name string, args ...string) {
	p.t.Helper()
	if out, err := p.command(append([]string{"run", "-d", "--name", name, "--network", "none"}, args...)...).CombinedOutput(); err != nil {
		p.t.Fatalf("podman run: %v: %s", err, out)
	}
}

// close removes every container, and sees that nothing is left of them.
func (p *podman) close() {
	p.command("rm", "-a", "-f", "-t", "0").Run()
	if p.user {
		p.command("system", "migrate").Run() // ends the process that holds the user namespace
	}
	p.holder.Process.Kill()
	p.holder.Wait()
	if err := os.RemoveAll(p.dir); err != nil {
		p.t.Errorf("left behind: %v", err)
	}
	if n := processesOf(p.dir); n > 0 {
		p.t.Errorf("%d processes are left behind", n)
	}
}

func TestPodman(t *testing.T) {
	p := newPodman(t, false)
	os.WriteFile(p.at("vol/f"), []byte("data"), 0o644)
	none := []string{"run", "--rm", "--network", "none"}
	run := func(code int, want string, args ...string) {
		t.Helper()
		p.want(code, want, append(none[:4:4], args...)...)
	}
	run(7, "hello", "box", "sh", "-c", "echo hello; exit 7")
	run(0, "data", "-v", p.at("vol")+":/v", "box", "sh", "-c", "cat /v/f; echo new > /v/g")
	if b, _ := os.ReadFile(p.at("vol/g")); string(b) != "new\n" {
		t.Errorf("a volume has %q", b)
	}
	run(1, "", "-v", p.at("vol")+":/v:ro", "box", "sh", "-c", "echo new > /v/h")
	run(0, "67108864", "-m", "64m", "box", "cat", "/sys/fs/cgroup/memory.max")
	run(2, "", "--pids-limit", "10", "box", "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 2 & done; wait")
	run(1, "33\n/tmp\nb\nhh", "--read-only", "--user", "33:33", "-w", "/tmp", "-e", "A=b", "--hostname", "hh", "box", "sh", "-c", "id -u; pwd; echo $A; hostname; touch /x")
	run(0, "100", "--ulimit", "nofile=100:200", "box", "sh", "-c", "ulimit -n")

	p.start("c", "box", "sh", "-c", "trap 'exit 9' TERM; echo one; while :; do sleep 0.1; done")
	eventually(t, "output", func() bool { out, _ := p.command("logs", "c").Output(); return string(out) == "one\n" })
	p.want(3, "in", "exec", "c", "sh", "-c", "echo in; exit 3")
	p.want(0, "c", "ps", "--format", "{{.Names}}")
	p.want(0, "c", "pause", "c")
	p.want(0, "paused", "inspect", "-f", "{{.State.Status}}", "c")
	p.want(0, "c", "unpause", "c")
	if out := p.onTerminal("exec", "-it", "c", "sh", "-c", "tty; stty size"); !strings.HasPrefix(out, "/dev/pts/0\r\n") {
		t.Errorf("exec -it: %q", out)
	}
	p.want(0, "c", "stop", "-t", "20", "c")
	p.want(0, "exited 9", "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "c")
	p.want(0, "c", "start", "c")
	p.want(0, "c", "kill", "c")
	eventually(t, "the end", func() bool {
		out, _ := p.command("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "c").Output()
		return string(out) == "exited 137\n"
	})
	if out := p.onTerminal("run", "--rm", "-it", "--network", "none", "box", "sh", "-c", "tty"); out != "/dev/pts/0\r\n" {
		t.Errorf("run -it: %q", out)
	}
}

// TestPodmanRootless: an ordinary user who has no IDs but his own, and no cgroup.
func TestPodmanRootless(t *testing.T) {
	p := newPodman(t, true)
	p.want(4, "0\nhello", "run", "--rm", "--network", "none", "box", "sh", "-c", "id -u; echo hello; exit 4")
	p.start("c", "box", "sleep", "100")
	p.want(3, "in", "exec", "c", "sh", "-c", "echo in; exit 3")
	p.want(0, "c", "ps", "--format", "{{.Names}}")
	p.want(0, "c", "kill", "c")
	eventually(t, "the end", func() bool {
		out, _ := p.command("inspect", "-f", "{{.State.ExitCode}}", "c").Output()
		return string(out) == "137\n"
	})
	p.want(0, "c", "rm", "c")
}

// onTerminal runs a command on a terminal and returns what it shows.
func (p *podman) onTerminal(args ...string) string {
	p.t.Helper()
	return onTerminal(p.t, p.command(args...))
}

func onTerminal(t *testing.T, c *exec.Cmd) string {
	t.Helper()
	master, path, err := console.NewPty()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	master.Resize(console.WinSize{Height: 30, Width: 100})
	slave, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	c.Stdin, c.Stdout, c.Stderr = slave, slave, slave
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	err = c.Start()
	slave.Close()
	if err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(limit, func() { c.Process.Kill() })
	defer late.Stop()
	out, _ := io.ReadAll(master) // EIO when nobody has it open
	c.Wait()
	return strings.TrimLeft(string(out), "\x00")
}
