package workloads

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// children are the processes below pid, by their names in /proc/PID/cmdline's second word, all of them in order of age.
func children(pid int) (pids []int) {
	ts, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	var b []byte
	for _, f := range ts {
		c, _ := os.ReadFile(f)
		b = append(append(b, c...), ' ')
	}
	for _, f := range strings.Fields(string(b)) {
		n, _ := strconv.Atoi(f)
		pids = append(append(pids, n), children(n)...)
	}
	return pids
}

func cmdline(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.TrimSpace(string(bytes.ReplaceAll(b, []byte{0}, []byte{' '})))
}

// running is a sandbox in the background.
type running struct {
	cmd           *exec.Cmd
	errs          bytes.Buffer
	sentry, gofer int
	stubs         []int
	done          chan error
}

// background starts a sandbox with a program that says "up" and sleeps.
func background(t *testing.T, platform string, flags ...string) *running {
	t.Helper()
	r := &running{done: make(chan error, 1)}
	args := append([]string{"do", "--platform=" + platform}, flags...)
	r.cmd = exec.Command(moat, append(args, "--", "sh", "-c", "sleep 60 & sleep 0.1; echo up; wait")...)
	r.cmd.Env = environ()
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.cmd.Stdout, r.cmd.Stderr = pw, &r.errs
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pw.Close()
	go func() { r.done <- r.cmd.Wait() }()
	t.Cleanup(func() {
		r.cmd.Process.Kill()
		pr.Close()
	})
	b := make([]byte, 3)
	pr.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := pr.Read(b); err != nil || string(b) != "up\n" {
		t.Fatalf("the sandbox did not come up: %q %v: %s", b, err, r.errs.String())
	}
	for _, p := range children(r.cmd.Process.Pid) {
		switch cmdline(p) {
		case "moat boot":
			if r.sentry == 0 {
				r.sentry = p
				continue
			}
			r.stubs = append(r.stubs, p)
		case "moat gofer":
			r.gofer = p
		default:
			r.stubs = append(r.stubs, p)
		}
	}
	if r.sentry == 0 || r.gofer == 0 {
		t.Fatalf("sentry %d, gofer %d: not both found", r.sentry, r.gofer)
	}
	return r
}

// stubOf is the stub of the process whose command line begins with what is given.
func (r *running) stubOf(t *testing.T, begins string) int {
	t.Helper()
	for _, s := range r.stubs {
		if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", s)); strings.HasPrefix(string(b), begins) {
			return s
		}
	}
	t.Fatalf("none of %d stubs runs %s", len(r.stubs), begins)
	return 0
}

// end waits for the command line's end.
func (r *running) end(t *testing.T) (code int) {
	t.Helper()
	select {
	case <-r.done:
	case <-time.After(20 * time.Second):
		t.Fatalf("the command line is still there")
	}
	return r.cmd.ProcessState.ExitCode()
}

// alive reports a process that has not ended. A zombie has: when the command line was killed, reaping is up to the machine's init.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(rest, "Z")
}

// gone wants every process of the sandbox to be gone.
func (r *running) gone(t *testing.T) {
	t.Helper()
	for _, p := range append([]int{r.sentry, r.gofer}, r.stubs...) {
		for i := 0; alive(p); i++ {
			if i == 250 {
				t.Errorf("process %d (%s) is left behind", p, cmdline(p))
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// lost wants the sandbox to end because its first process was killed from outside.
func (r *running) lost(t *testing.T) {
	t.Helper()
	if code := r.end(t); code != 137 || strings.Count(r.errs.String(), "\n") != 1 || !strings.Contains(r.errs.String(), "stub") {
		t.Errorf("code %d: %s", code, r.errs.String())
	}
	r.gone(t)
}

func TestKilled(t *testing.T) {
	platforms(t, func(t *testing.T, p string) {
		t.Run("sentry", func(t *testing.T) {
			r := background(t, p)
			syscall.Kill(r.sentry, syscall.SIGKILL)
			if code := r.end(t); code != 137 || strings.Count(r.errs.String(), "\n") != 1 || !strings.Contains(r.errs.String(), "sentry was killed by signal 9") {
				t.Errorf("code %d: %s", code, r.errs.String())
			}
			r.gone(t)
		})
		t.Run("gofer", func(t *testing.T) {
			r := background(t, p)
			syscall.Kill(r.gofer, syscall.SIGKILL)
			if code := r.end(t); code != 137 || strings.Count(r.errs.String(), "\n") != 1 || !strings.Contains(r.errs.String(), "gofer was killed by signal 9") {
				t.Errorf("code %d: %s", code, r.errs.String())
			}
			r.gone(t)
		})
		t.Run("stubs", func(t *testing.T) {
			// Every task waits inside the sentry.
			r := background(t, p)
			for _, s := range r.stubs {
				syscall.Kill(s, syscall.SIGKILL)
			}
			// Of the other process the log may tell first.
			if code := r.end(t); code != 137 || !strings.Contains(r.errs.String(), "stub") {
				t.Errorf("code %d: %s", code, r.errs.String())
			}
			r.gone(t)
		})
		t.Run("stub of init", func(t *testing.T) {
			r := background(t, p)
			syscall.Kill(r.stubOf(t, "sh -c"), syscall.SIGKILL)
			r.lost(t)
		})
		t.Run("first stub", func(t *testing.T) {
			r := background(t, p)
			syscall.Kill(r.stubs[0], syscall.SIGKILL)
			r.lost(t)
		})
		t.Run("stub of another", func(t *testing.T) {
			r := background(t, p)
			syscall.Kill(r.stubOf(t, "sleep 60"), syscall.SIGKILL)
			if code := r.end(t); code != 0 || strings.Count(r.errs.String(), "\n") != 1 || !strings.Contains(r.errs.String(), "process killed") {
				t.Errorf("code %d: %s", code, r.errs.String())
			}
			r.gone(t)
		})
		t.Run("command line", func(t *testing.T) {
			r := background(t, p)
			r.cmd.Process.Kill()
			r.end(t)
			r.gone(t)
		})
		t.Run("by a signal", func(t *testing.T) {
			r := background(t, p)
			r.cmd.Process.Signal(syscall.SIGTERM)
			if code := r.end(t); code != 143 {
				t.Errorf("code %d: %s", code, r.errs.String())
			}
			r.gone(t)
		})
	})
}

// TestLockedDown looks at the processes from outside.
func TestLockedDown(t *testing.T) {
	platforms(t, func(t *testing.T, p string) {
		r := background(t, p)
		const none = "0000000000000000"
		locked := []string{"Seccomp:\t2", "NoNewPrivs:\t1", "CapInh:\t" + none, "CapAmb:\t" + none}
		without := append([]string{"CapPrm:\t" + none, "CapEff:\t" + none}, locked...)
		wantStatus(t, "sentry", r.sentry, without...)
		// All that the gofer of a read-only tree keeps is reading what root may read.
		wantStatus(t, "gofer", r.gofer, append([]string{"CapPrm:\t0000000000000004", "CapEff:\t0000000000000004"}, locked...)...)
		for _, s := range r.stubs {
			wantStatus(t, "stub", s, without...)
		}
		for name, pid := range map[string]int{"sentry": r.sentry, "gofer": r.gofer} {
			if es, err := os.ReadDir(fmt.Sprintf("/proc/%d/root", pid)); err != nil || len(es) != 0 {
				t.Errorf("%s: its root has %d entries (%v)", name, len(es), err)
			}
			for _, ns := range []string{"mnt", "pid", "net", "ipc", "uts", "cgroup"} {
				a, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, ns))
				b, _ := os.Readlink("/proc/self/ns/" + ns)
				if a == b || a == "" {
					t.Errorf("%s is in the host's %s namespace", name, ns)
				}
			}
		}
		t.Logf("%d stubs", len(r.stubs))
	})
}

// counts is what a sandbox could leave behind.
func counts(t *testing.T) (procs, fds, mounts int) {
	t.Helper()
	ps, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range ps {
		// All of a sandbox's processes run the binary of these tests, and no others do.
		if exe, _ := os.Readlink(p + "/exe"); strings.TrimSuffix(exe, " (deleted)") == moat {
			procs++
		}
	}
	fd, _ := os.ReadDir("/proc/self/fd")
	mi, _ := os.ReadFile("/proc/self/mountinfo")
	return procs, len(fd), bytes.Count(mi, []byte("\n"))
}

// TestNothingLeft: 1,000 fork+exec in a row and 200 threads at once leave no host process, thread, descriptor or memory behind, neither while the
// sandbox lives nor afterwards.
func TestNothingLeft(t *testing.T) {
	need(t, "perl", "/usr/bin/python3")
	const exec = `perl -e 'for (1..%d) { my $p = fork() // die; if (!$p) { exec "/bin/true" } waitpid $p, 0; $? == 0 or die "status $?" }
my @n = grep { /^\d+$/ } map { s,.*/,,r } glob "/proc/[0-9]*"; print scalar(@n), "\n"; my @f = glob "/proc/self/fd/*"; print scalar(@f) <= 4 ? "few" : "many", "\n"'`
	const threads = `/usr/bin/python3 -c '
import threading, os, time
b = threading.Barrier(201)
ts = [threading.Thread(target=b.wait) for _ in range(200)]
[t.start() for t in ts]
print(len(os.listdir("/proc/self/task")))
b.wait(); [t.join() for t in ts]
for _ in range(500): # join returns a moment before the thread is gone
    n = len(os.listdir("/proc/self/task"))
    if n == 1: break
    time.sleep(0.01)
print(n)'`
	platforms(t, func(t *testing.T, p string) {
		p0, f0, m0 := counts(t)
		t.Run("sandbox", func(t *testing.T) {
			s := newShell(t, p)
			run := func(text, want string) {
				t.Helper()
				if out, code := s.do(5*time.Minute, text); out != want || code != "0" {
					t.Errorf("code %s: %s", code, out)
				}
			}
			run(fmt.Sprintf(exec, 100), "2\nfew\n")
			run(threads, "201\n1\n")
			before := atRest(s.cmd.Process.Pid)
			start := time.Now()
			run(fmt.Sprintf(exec, 1000), "2\nfew\n")
			t.Logf("1,000 fork+exec: %.1fs", time.Since(start).Seconds())
			run(threads, "201\n1\n")
			grown(t, "after 1,000 fork+exec and 200 threads the sandbox", 0, before, atRest(s.cmd.Process.Pid))
		})
		p1, f1, m1 := counts(t)
		if p1 > p0 || f1 > f0 || m1 != m0 {
			t.Errorf("left behind: processes %d -> %d, descriptors %d -> %d, mounts %d -> %d", p0, p1, f0, f1, m0, m1)
		}
	})
}

// TestMemoryReturns: what a guest frees, or leaves at its end, goes back to the host.
func TestMemoryReturns(t *testing.T) {
	need(t, "/usr/bin/python3")
	platforms(t, func(t *testing.T, p string) {
		r := sandbox{platform: p}.run(t, "/usr/bin/python3", "-c", `
import os, time
def used():
    m = dict(l.split(":") for l in open("/proc/meminfo"))
    return int(m["MemTotal"].split()[0]) - int(m["MemFree"].split()[0])
before = used()
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        x = bytearray(200 << 20)
        for i in range(0, len(x), 4096): x[i] = 1
        os._exit(0)
    os.waitpid(pid, 0)
time.sleep(0.5)
print("returned" if used() < before + (20 << 10) else f"kept {used()-before} kB")`)
		if r.code != 0 || r.out != "returned\n" {
			t.Error(r)
		}
	})
}
