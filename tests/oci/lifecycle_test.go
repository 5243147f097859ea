package oci

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// subreaper makes this process the one that adopts what the runtime leaves running, as containerd's shim does.
var subreaper = sync.OnceFunc(func() { unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) })

// reap waits for an adopted process.
func reap(t *testing.T, pid int) syscall.WaitStatus {
	t.Helper()
	var ws syscall.WaitStatus
	for {
		_, err := syscall.Wait4(pid, &ws, 0, nil)
		if err == nil {
			return ws
		}
		if err != syscall.EINTR {
			t.Fatalf("wait for %d: %v", pid, err)
		}
	}
}

func readPID(t *testing.T, file string) int {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(b))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func TestLifecycle(t *testing.T) {
	subreaper()
	r := newRuntime(t)
	r.sh("trap 'exit 9' TERM; echo started; while :; do sleep 0.1; done")
	r.write()
	pidFile := filepath.Join(t.TempDir(), "pid")
	r.ok("create", "-b", r.bundle, "--pid-file", pidFile, "c")
	pid := readPID(t, pidFile)
	s := r.state("c")
	if s.Status != "created" || s.Pid != pid || s.Bundle != r.bundle || s.Rootfs != rootfs || s.Owner != "root" {
		t.Errorf("state: %+v", s)
	}
	r.fails(1, "already exists", "create", "-b", r.bundle, "c")
	r.ok("start", "c")
	r.fails(1, "already running", "start", "c")
	r.await("c", "running")
	if out := r.ok("list", "-q"); out != "c\n" {
		t.Errorf("list -q: %q", out)
	}
	if out := r.ok("list"); !strings.HasPrefix(out, "ID          PID         STATUS      BUNDLE") || !strings.Contains(out, "running") || lines(out) != 2 {
		t.Errorf("list: %q", out)
	}
	var l []specs.State
	if err := json.Unmarshal([]byte(r.ok("list", "-f", "json")), &l); err != nil || len(l) != 1 || l[0].ID != "c" {
		t.Errorf("list -f json: %v %v", l, err)
	}
	r.fails(1, "not stopped: running", "delete", "c")
	r.trapped("c")
	r.ok("pause", "c")
	if s := r.state("c"); s.Status != "paused" {
		t.Errorf("paused: %s", s.Status)
	}
	r.fails(255, "paused", "exec", "c", "true")
	r.ok("kill", "c", "TERM") // is delivered later
	r.ok("resume", "c")
	if ws := reap(t, pid); !ws.Exited() || ws.ExitStatus() != 9 {
		t.Errorf("the process that stands for the container ended with %v, not status 9", ws)
	}
	s = r.await("c", "stopped")
	if s.Pid != 0 || s.ExitStatus == nil || *s.ExitStatus != 9 {
		t.Errorf("stopped: %+v", s)
	}
	r.fails(1, "container not running", "kill", "c")
	r.ok("kill", "--all", "c", "KILL")
	r.ok("delete", "c")
	r.fails(1, "container does not exist", "state", "c")
	r.ok("delete", "--force", "c")
}

// TestKilled: a signal shows in the exit status as containerd reads it, whoever is killed.
func TestKilled(t *testing.T) {
	subreaper()
	r := newRuntime(t, "sleep", "1000")
	r.write()
	pidFile := filepath.Join(t.TempDir(), "pid")
	for name, kill := range map[string]func(pid int){
		"by the runtime":     func(int) { r.ok("kill", "c", "9") },
		"from the host":      func(pid int) { syscall.Kill(pid, syscall.SIGKILL) },
		"before it started":  nil,
		"by delete --force":  func(int) { r.ok("delete", "--force", "c") },
		"while it is paused": func(int) { r.ok("pause", "c"); r.ok("kill", "c", "KILL") },
	} {
		r.ok("create", "-b", r.bundle, "--pid-file", pidFile, "c")
		pid := readPID(t, pidFile)
		if kill == nil {
			r.ok("kill", "c", "SIGKILL")
		} else {
			r.ok("start", "c")
		}
		if kill != nil {
			// delete waits until the process is gone or a zombie: nobody may have reaped it by then.
			kill(pid)
		}
		ws := reap(t, pid)
		code := ws.ExitStatus()
		if ws.Signaled() {
			code = 128 + int(ws.Signal())
		}
		if code != 137 {
			t.Errorf("%s: the process ended with %v", name, ws)
		}
		r.ok("delete", "--force", "c")
	}
}

func TestRun(t *testing.T) {
	r := newRuntime(t)
	r.sh("echo out; echo err >&2; exit 3")
	r.write()
	if res := r.moat("run", "-b", r.bundle, "c"); res.out != "out\n" || res.err != "err\n" || res.code != 3 {
		t.Errorf("run: %v", res)
	}
	r.sh("exec 2>/dev/null; sh -c 'kill -9 $$'; exit $?")
	r.run("", 137)
	r.spec.Process.Args = []string{"nosuch"}
	r.write()
	r.fails(1, `exec: "nosuch": executable file not found in $PATH`, "run", "-b", r.bundle, "c")
	r.spec.Process.Args = []string{"/etc/passwd"}
	r.write()
	r.fails(1, "permission denied", "run", "-b", r.bundle, "c")
	if ids := r.ok("list", "-q"); ids != "" {
		t.Errorf("left behind: %s", ids)
	}
}

func TestExec(t *testing.T) {
	subreaper()
	r := newRuntime(t, "sleep", "1000")
	r.write()
	r.ok("run", "-d", "-b", r.bundle, "c")
	if res := r.moat("exec", "-e", "A=b", "--cwd", "/bin", "-u", "7:8", "c", "sh", "-c", "id -u; id -g; echo $A $HOME; pwd; exit 5"); res.code != 5 || res.out != "7\n8\nb /home/ann\n/bin\n" {
		t.Errorf("exec: %v", res)
	}
	if res := r.moat("exec", "c", "grep", "-c", "CapEff:.*20000020$", "/proc/self/status"); res.out != "0\n" {
		t.Logf("capabilities: %v", res)
	}
	r.fails(255, `"nosuch": executable file not found`, "exec", "c", "nosuch")
	r.fails(1+254, "process args cannot be empty", "exec", "c")

	// A process of config.json's form, detached: somebody waits for the process in the pid file, and kills it by that number.
	p := *r.spec.Process
	p.Args = []string{"sh", "-c", "trap 'exit 6' TERM; echo ready; while :; do sleep 0.1; done"}
	b, _ := json.Marshal(&p)
	file, pidFile, out := filepath.Join(t.TempDir(), "p.json"), filepath.Join(t.TempDir(), "pid"), filepath.Join(t.TempDir(), "out")
	os.WriteFile(file, b, 0o644)
	f, err := os.Create(out)
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(moat, "--root", r.root, "exec", "--process", file, "--detach", "--pid-file", pidFile, "c")
	c.Stdout = f
	err = c.Run()
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	pid := readPID(t, pidFile)
	eventually(t, "output", func() bool { b, _ := os.ReadFile(out); return string(b) == "ready\n" })
	syscall.Kill(pid, syscall.SIGTERM)
	if ws := reap(t, pid); ws.ExitStatus() != 6 {
		t.Errorf("a detached process that was sent SIGTERM: %v", ws)
	}
	// Its stand-in killed, the process is killed too.
	r.ok("exec", "-d", "--pid-file", pidFile, "c", "sleep", "777")
	pid = readPID(t, pidFile)
	if !strings.Contains(r.ok("ps", "c"), "sleep 777") {
		t.Error("ps does not show the process")
	}
	syscall.Kill(pid, syscall.SIGKILL)
	reap(t, pid)
	eventually(t, "the end of the process", func() bool { return !strings.Contains(r.ok("ps", "c"), "sleep 777") })
	// The container killed, its processes are.
	r.ok("exec", "-d", "--pid-file", pidFile, "c", "sleep", "777")
	pid = readPID(t, pidFile)
	var pids []int
	if err := json.Unmarshal([]byte(r.ok("ps", "-f", "json", "c")), &pids); err != nil || len(pids) != 2 {
		t.Errorf("ps -f json: %v %v", pids, err)
	}
	for _, p := range pids {
		if syscall.Kill(p, 0) != nil {
			t.Errorf("ps -f json: there is no process %d", p)
		}
	}
	main := r.state("c").Pid
	r.ok("kill", "c", "KILL")
	if ws := reap(t, pid); ws.ExitStatus() != 137 {
		t.Errorf("a process of a container that was killed: %v", ws)
	}
	reap(t, main)
	r.fails(255, "not running", "exec", "c", "true")
}

// TestConsole: the master of the terminal comes over the console socket, for the container and for exec.
func TestConsole(t *testing.T) {
	subreaper()
	r := newRuntime(t)
	r.sh("stty -echo; tty; ls /dev/console; read x; stty size; echo got $x; exit 4")
	r.spec.Process.Terminal = true
	r.spec.Process.ConsoleSize = &specs.Box{Height: 33, Width: 99}
	r.write()
	r.fails(1, "console socket", "create", "-b", r.bundle, "c")
	sock := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: sock, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r.ok("create", "-b", r.bundle, "--console-socket", sock, "c")
	pid := r.state("c").Pid
	master := receive(t, l)
	r.ok("start", "c")
	got := readUntil(t, master, "/dev/console")
	unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 44, Col: 88})
	// The change of size travels as a signal; nothing tells when it has arrived but the size itself.
	master.WriteString("hello\n")
	got += readUntil(t, master, "got hello")
	if !strings.HasPrefix(got, "/dev/pts/0\r\n/dev/console\r\n") || !strings.Contains(got, "33 99") && !strings.Contains(got, "44 88") {
		t.Errorf("the terminal said %q", got)
	}
	if ws := reap(t, pid); ws.ExitStatus() != 4 {
		t.Errorf("ended with %v", ws)
	}
	master.Close()
	r.ok("delete", "c")
}

// TestTerminalWithoutInput: the end of the input is no hang-up, and who reads lines that is no terminal gets them as they are.
func TestTerminalWithoutInput(t *testing.T) {
	r := newRuntime(t)
	r.spec.Process.Terminal = true
	r.sh("sleep 0.2; tty")
	r.run("/dev/pts/0\n", 0)
}

// TestCgroupInUse: a cgroup that others are in is refused, and stays.
func TestCgroupInUse(t *testing.T) {
	r := newRuntime(t, "sleep", "1000")
	r.spec.Linux.CgroupsPath = fmt.Sprintf("/moat-test-in-use-%d", os.Getpid())
	r.write()
	r.ok("run", "-d", "-b", r.bundle, "c")
	r.fails(1, "container's cgroup is not empty", "run", "-d", "-b", r.bundle, "d")
	r.ok("delete", "--force", "c")
}

// TestUnknownCapability is warned of.
func TestUnknownCapability(t *testing.T) {
	r := newRuntime(t, "true")
	r.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_FLY"}}
	r.write()
	if res := r.moat("run", "-b", r.bundle, "c"); res.code != 0 || !strings.Contains(res.err, `there is no capability "CAP_FLY"`) {
		t.Errorf("%v", res)
	}
}

func receive(t *testing.T, l *net.UnixListener) *os.File {
	t.Helper()
	c, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	oob := make([]byte, 64)
	_, n, _, _, err := c.ReadMsgUnix(make([]byte, 4096), oob)
	if err != nil {
		t.Fatal(err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		t.Fatalf("no descriptor came: %v", err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fds[0]), "master")
}

func readUntil(t *testing.T, f *os.File, word string) string {
	t.Helper()
	var all []byte
	buf := make([]byte, 4096)
	for !strings.Contains(string(all), word) {
		n, err := f.Read(buf)
		all = append(all, buf[:n]...)
		if err != nil {
			t.Fatalf("no %q in %q: %v", word, all, err)
		}
	}
	return string(all)
}

// TestPreserveFDs: descriptors beyond the first three reach the process.
func TestPreserveFDs(t *testing.T) {
	r := newRuntime(t)
	r.sh("cat <&4")
	r.write()
	a, b, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(b, "through 4")
	b.Close()
	c := exec.Command(moat, "--root", r.root, "run", "-b", r.bundle, "--preserve-fds", "2", "c")
	c.ExtraFiles = []*os.File{os.Stdin, a}
	out, err := c.Output()
	if err != nil || string(out) != "through 4" {
		t.Errorf("%q %v", out, err)
	}
	r.fails(1, "--preserve-fds", "run", "-b", r.bundle, "--preserve-fds", "1", "c")
}

// TestParallel: verbs on one ID, all at once, and many containers.
func TestParallel(t *testing.T) {
	r := newRuntime(t, "true")
	r.spec.Linux.CgroupsPath = ""
	r.write()
	var wg sync.WaitGroup
	made := make(chan int, 8)
	for i := range 8 {
		wg.Go(func() {
			if r.moat("create", "-b", r.bundle, "same").code == 0 {
				made <- i
			}
		})
		wg.Go(func() {
			if res := r.moat("run", "-b", r.bundle, fmt.Sprint("c", i)); res.code != 0 {
				t.Errorf("run: %v", res)
			}
		})
	}
	wg.Wait()
	if len(made) != 1 {
		t.Errorf("%d of 8 creates of one ID succeeded", len(made))
	}
}

// TestInterrupted kills verbs at random moments: afterwards list, delete --force and a fresh run of the same ID work, and nothing is left behind.
func TestInterrupted(t *testing.T) {
	rounds := 15
	if os.Getenv("MOAT_LONG") != "" {
		rounds = 500
	}
	r := newRuntime(t, "sleep", "1000")
	r.write()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	verbs := [][]string{{"create", "-b", r.bundle, "c"}, {"start", "c"}, {"run", "-d", "-b", r.bundle, "c"}, {"exec", "c", "true"}, {"pause", "c"}, {"resume", "c"},
		{"kill", "c", "KILL"}, {"delete", "c"}, {"delete", "--force", "c"}, {"update", "--pids-limit", "100", "c"}, {"state", "c"}, {"ps", "c"}}
	for i := range rounds {
		r.moat("delete", "--force", "c")
		told := r.interrupt(rnd, 1+rnd.IntN(5), 120, verbs)
		if res := r.moat("list"); res.code != 0 {
			t.Fatalf("round %d (%v): list: %v", i, told, res)
		}
		if res := r.moat("delete", "--force", "c"); res.code != 0 {
			t.Fatalf("round %d (%v): delete --force: %v", i, told, res)
		}
		if res := r.moat("run", "-d", "-b", r.bundle, "c"); res.code != 0 {
			t.Fatalf("round %d (%v): run: %v", i, told, res)
		}
	}
	r.ok("delete", "--force", "c")
	eventually(t, "the end of every process of "+r.root, func() bool { return processesOf(r.root) <= 0 })
}
