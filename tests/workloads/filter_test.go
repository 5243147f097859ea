package workloads

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moat/fsgofer"
	"moat/platform/stub"
	"moat/sentry/boot"
	"moat/sentry/boot/filter"
)

// hostCall is a call that a process of a sandbox is made to make.
type hostCall struct {
	name string
	nr   uint64
	args [6]uint64
}

var (
	callSocket   = hostCall{"socket", unix.SYS_SOCKET, [6]uint64{unix.AF_INET, unix.SOCK_STREAM}}
	callOpen     = hostCall{"openat", unix.SYS_OPENAT, [6]uint64{}}
	callExecve   = hostCall{"execve", unix.SYS_EXECVE, [6]uint64{}}
	callFork     = hostCall{"clone of a process", unix.SYS_CLONE, [6]uint64{uint64(unix.SIGCHLD)}}
	callMapCode  = hostCall{"mmap of code", unix.SYS_MMAP, [6]uint64{0, 4096, unix.PROT_READ | unix.PROT_EXEC, unix.MAP_PRIVATE | unix.MAP_ANON}}
	callPrivate  = hostCall{"private mmap", unix.SYS_MMAP, [6]uint64{0, 4096, unix.PROT_READ, unix.MAP_PRIVATE | unix.MAP_ANON}}
	callProtect  = hostCall{"mprotect to code", unix.SYS_MPROTECT, [6]uint64{0, 0, unix.PROT_EXEC}}
	callUnshare  = hostCall{"unshare", unix.SYS_UNSHARE, [6]uint64{unix.CLONE_NEWUSER}}
	callTerminal = hostCall{"ioctl TIOCSTI", unix.SYS_IOCTL, [6]uint64{0, unix.TIOCSTI}}
	callKill     = hostCall{"kill SIGTERM", unix.SYS_KILL, [6]uint64{1, uint64(unix.SIGTERM)}}
	callRead     = hostCall{"read", unix.SYS_READ, [6]uint64{}}
	callPtrace   = hostCall{"ptrace", unix.SYS_PTRACE, [6]uint64{unix.PTRACE_ATTACH, 1}}
	callGetpid   = hostCall{"getpid", unix.SYS_GETPID, [6]uint64{}}
	call32       = hostCall{"a call of x32", 0x40000000 | unix.SYS_GETPID, [6]uint64{}}
)

// tracee is a thread of a sandbox that the test has taken over. The test's goroutine is locked to its OS thread.
type tracee struct {
	t   *testing.T
	tid int
}

func seize(t *testing.T, tid int) *tracee {
	t.Helper()
	if err := unix.PtraceSeize(tid); err != nil {
		t.Fatalf("PTRACE_SEIZE %d: %v", tid, err)
	}
	if err := unix.PtraceInterrupt(tid); err != nil {
		t.Fatalf("PTRACE_INTERRUPT %d: %v", tid, err)
	}
	tr := &tracee{t, tid}
	if st := tr.wait(); !st.Stopped() {
		t.Fatalf("thread %d does not stop: %#x", tid, st)
	}
	return tr
}

func (tr *tracee) wait() (st unix.WaitStatus) {
	for {
		if _, err := unix.Wait4(tr.tid, &st, unix.WALL, nil); err == nil {
			return st
		} else if err != unix.EINTR {
			tr.t.Fatalf("wait4 %d: %v", tr.tid, err)
		}
	}
}

// call makes the thread make c by the SYSCALL instruction at address at, and returns the result, or the status of a thread that died or the signal of one that
// got one. A thread that lives has its registers back.
func (tr *tracee) call(at uint64, c hostCall) (ret int64, st unix.WaitStatus) {
	tr.t.Helper()
	var old unix.PtraceRegs
	if err := unix.PtraceGetRegs(tr.tid, &old); err != nil {
		tr.t.Fatal(err)
	}
	r := old
	r.Rip, r.Rax, r.Orig_rax = at, c.nr, ^uint64(0)
	r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9 = c.args[0], c.args[1], c.args[2], c.args[3], c.args[4], c.args[5]
	if err := unix.PtraceSetRegs(tr.tid, &r); err != nil {
		tr.t.Fatal(err)
	}
	if err := unix.PtraceSingleStep(tr.tid); err != nil {
		tr.t.Fatal(err)
	}
	if st = tr.wait(); !st.Stopped() {
		return 0, st
	}
	if err := unix.PtraceGetRegs(tr.tid, &r); err != nil {
		tr.t.Fatal(err)
	}
	if st.StopSignal() == unix.SIGSYS { // the single step's own signal comes behind it
		unix.PtraceSingleStep(tr.tid)
		tr.wait()
	}
	if err := unix.PtraceSetRegs(tr.tid, &old); err != nil {
		tr.t.Fatal(err)
	}
	return int64(r.Rax), st
}

// syscallAt finds a SYSCALL instruction in code of process pid: in the page at, or with 0 in any that is not the stubs' own.
func syscallAt(t *testing.T, pid int, at uint64) uint64 {
	t.Helper()
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	maps, _ := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	for l := range strings.Lines(string(maps)) {
		var from, to uint64
		var prot string
		fmt.Sscanf(l, "%x-%x %s", &from, &to, &prot)
		if !strings.Contains(prot, "x") || from>>63 != 0 || strings.Contains(l, "[v") || at == 0 && from == stub.CodeAddr || at != 0 && (at < from || at >= to) {
			continue
		}
		if at != 0 {
			from, to = at, at+4096
		}
		b := make([]byte, min(to-from, 4<<20))
		n, _ := mem.ReadAt(b, int64(from))
		if i := bytes.Index(b[:n], []byte{0x0f, 0x05}); i >= 0 {
			return from + uint64(i)
		}
	}
	t.Fatalf("process %d has no SYSCALL instruction", pid)
	return 0
}

func tasks(t *testing.T, pid int) (tids []int) {
	t.Helper()
	fs, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*", pid))
	for _, f := range fs {
		n, _ := strconv.Atoi(filepath.Base(f))
		tids = append(tids, n)
	}
	return tids
}

// wantStatus wants every thread of pid to have the lines in its /proc/PID/status.
func wantStatus(t *testing.T, who string, pid int, lines ...string) {
	t.Helper()
	tids := tasks(t, pid)
	if len(tids) == 0 {
		t.Errorf("%s %d has no threads", who, pid)
	}
	for _, tid := range tids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/status", pid, tid))
		if err != nil {
			continue
		}
		for _, l := range lines {
			if !strings.Contains(string(b), l+"\n") {
				t.Errorf("%s: thread %d of %d: /proc/PID/status has no %q", who, tid, pid, l)
			}
		}
	}
}

// TestForbidden takes over the processes of live sandboxes and makes each try host calls that it may not make.
func TestForbidden(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to trace the processes of a sandbox")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	platforms(t, func(t *testing.T, p string) {
		dies := func(name string, pick func(*running) int, allowed hostCall, cs ...hostCall) {
			t.Run(name, func(t *testing.T) {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				for _, c := range cs {
					r := background(t, p)
					pid := pick(r)
					at := syscallAt(t, pid, 0)
					tr := seize(t, pid)
					if _, st := tr.call(at, allowed); !st.Stopped() || st.StopSignal() != unix.SIGTRAP {
						t.Fatalf("%s, which is allowed: status %#x", allowed.name, st)
					}
					if ret, st := tr.call(at, c); !st.Signaled() || st.Signal() != unix.SIGSYS {
						t.Errorf("%s: result %d, status %#x; it should have died of SIGSYS", c.name, ret, st)
						unix.PtraceDetach(pid)
						continue
					}
					if code := r.end(t); code != boot.ExitFailure || !strings.Contains(r.errs.String(), "its filter forbids (SIGSYS") {
						t.Errorf("%s: code %d: %s", c.name, code, r.errs.String())
					}
					r.gone(t)
				}
			})
		}
		dies("sentry", func(r *running) int { return r.sentry }, callGetpid,
			callSocket, callOpen, callExecve, callFork, callMapCode, callProtect, callUnshare, callTerminal, callKill, call32)
		if p == boot.DefaultPlatform { // it is the same on all
			dies("gofer", func(r *running) int { return r.gofer }, hostCall{"close", unix.SYS_CLOSE, [6]uint64{1 << 20}},
				callSocket, callOpen, callExecve, callFork, callMapCode, callPtrace, callTerminal, callKill)
		}
		t.Run("helper", func(t *testing.T) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			for _, c := range []hostCall{callSocket, callOpen, callExecve, callFork, callPrivate, callRead, callKill, callPtrace, callUnshare, callGetpid, call32} {
				r := background(t, p)
				pid := r.stubOf(t, "sleep 60")
				tr := seize(t, pid)
				at := syscallAt(t, pid, stub.HelperAddr)
				if ret, st := tr.call(at, hostCall{"munmap", unix.SYS_MUNMAP, [6]uint64{1}}); ret != -int64(unix.EINVAL) || st.StopSignal() != unix.SIGTRAP {
					t.Fatalf("munmap, which is allowed: result %d, status %#x", ret, st)
				}
				tr.trapped(syscallAt(t, pid, stub.CodeAddr), callProtect, c)
				tr.trapped(syscallAt(t, pid, 0), callProtect, c)
				if ret, st := tr.call(at, c); !st.Signaled() || st.Signal() != unix.SIGSYS {
					t.Errorf("%s: result %d, status %#x; the stub should have died of SIGSYS", c.name, ret, st)
					unix.PtraceDetach(pid)
				}
				if code := r.end(t); code != 0 || !strings.Contains(r.errs.String(), "process killed") {
					t.Errorf("%s: code %d: %s", c.name, code, r.errs.String())
				}
			}
		})
		t.Run("guest thread", func(t *testing.T) {
			r := background(t, p)
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			pid := r.stubOf(t, "sleep 60")
			entry, helper := syscallAt(t, pid, stub.CodeAddr), syscallAt(t, pid, stub.HelperAddr)
			tid := guestThread(t, pid, p)
			if fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/task/%d/fd", pid, tid)); err != nil || len(fds) != 0 {
				t.Errorf("a guest thread holds %d descriptors (%v)", len(fds), err)
			}
			tr := seize(t, tid)
			cs := []hostCall{callSocket, callOpen, callExecve, callFork, callPrivate, callProtect, callRead, callKill, callPtrace, callGetpid, call32,
				{"munmap", unix.SYS_MUNMAP, [6]uint64{1}}}
			if p == "trap" {
				futex := hostCall{"futex", unix.SYS_FUTEX, [6]uint64{1}}
				if ret, st := tr.call(entry, futex); ret != -int64(unix.EINVAL) || st.StopSignal() != unix.SIGTRAP {
					t.Errorf("futex, which the entry code may call: result %d, status %#x", ret, st)
				}
				cs = append(cs, hostCall{"pause", unix.SYS_PAUSE, [6]uint64{}})
				tr.trapped(syscallAt(t, pid, 0), futex, hostCall{"exit", unix.SYS_EXIT, [6]uint64{}}, hostCall{"rt_sigreturn", unix.SYS_RT_SIGRETURN, [6]uint64{}})
			}
			tr.trapped(entry, cs...)
			tr.trapped(syscallAt(t, pid, 0), cs...)
			tr.trapped(helper, cs...)
			// What the helper may call from there.
			tr.trapped(helper, hostCall{"munmap", unix.SYS_MUNMAP, [6]uint64{1}}, hostCall{"mprotect", unix.SYS_MPROTECT, [6]uint64{}}, hostCall{"close_range", unix.SYS_CLOSE_RANGE, [6]uint64{}},
				hostCall{"user dispatch", unix.SYS_PRCTL, [6]uint64{unix.PR_SET_SYSCALL_USER_DISPATCH, unix.PR_SYS_DISPATCH_OFF}}, hostCall{"exit_group", unix.SYS_EXIT_GROUP, [6]uint64{}},
				hostCall{"sigaltstack", unix.SYS_SIGALTSTACK, [6]uint64{}}, hostCall{"clone", unix.SYS_CLONE, [6]uint64{uint64(unix.CLONE_PARENT | unix.CLONE_FILES)}})
			unix.PtraceDetach(tid)
		})
	})
}

// trapped wants the filter to stop each of cs: with SIGSYS, before anything was done.
func (tr *tracee) trapped(at uint64, cs ...hostCall) {
	tr.t.Helper()
	for _, c := range cs {
		if ret, st := tr.call(at, c); !st.Stopped() || st.StopSignal() != unix.SIGSYS {
			tr.t.Errorf("%s: result %d, status %#x; it should have got SIGSYS", c.name, ret, st)
		}
	}
}

// guestThread is a guest thread of the stub. On ptrace those that there are have a tracer already: the helper is made to make another.
func guestThread(t *testing.T, pid int, platform string) int {
	t.Helper()
	before := tasks(t, pid)
	if platform != "ptrace" {
		return before[len(before)-1]
	}
	code := make([]byte, 2048)
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	if _, err := mem.ReadAt(code, stub.HelperAddr); err != nil {
		t.Fatal(err)
	}
	// MOVL $SYS_clone, AX; SYSCALL; TESTQ AX, AX: the second one makes a thread.
	at := bytes.LastIndex(code, []byte{0xb8, unix.SYS_CLONE, 0, 0, 0, 0x0f, 0x05, 0x48, 0x85, 0xc0})
	if at < 0 {
		t.Fatal("the entry code makes no thread")
	}
	c := hostCall{"clone of a thread", unix.SYS_CLONE, [6]uint64{}}
	for _, r := range stub.HelperRules(0) {
		if r.Nr == unix.SYS_CLONE && r.Args[0].Value&unix.CLONE_THREAD != 0 {
			c.args[0] = uint64(r.Args[0].Value)
		}
	}
	tr := seize(t, pid)
	ret, st := tr.call(stub.HelperAddr+uint64(at)+5, c)
	if ret <= 0 || st.StopSignal() != unix.SIGTRAP {
		t.Fatalf("clone: result %d, status %#x", ret, st)
	}
	unix.PtraceDetach(pid)
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		for _, tid := range tasks(t, pid) {
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/status", pid, tid))
			w, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/syscall", pid, tid))
			if strings.Contains(string(b), "\nTracerPid:\t0\n") && tid != pid && strings.HasPrefix(string(w), strconv.Itoa(unix.SYS_PAUSE)+" ") {
				return tid
			}
		}
	}
	t.Fatal("the new guest thread does not come up")
	return 0
}

// TestSurface prints how many host calls each process may make, and holds the numbers to what is aimed at.
func TestSurface(t *testing.T) {
	platforms(t, func(t *testing.T, p string) {
		guest, helper := map[uint32]bool{}, map[uint32]bool{}
		for _, r := range boot.GuestRules(p) {
			guest[r.Nr] = true
		}
		for _, r := range stub.HelperRules(0) {
			helper[r.Nr] = true
		}
		sentry := len(filter.Rules(p, "none"))
		t.Logf("host calls on %s: sentry %d, gofer %d (%d without a writable mount), helper %d, guest threads %d", p, sentry,
			len(fsgofer.Rules(true, false)), len(fsgofer.Rules(false, false)), len(helper), len(guest))
		if gofer := len(fsgofer.Rules(true, false)); sentry >= 45 || gofer > 30 || len(guest) > 4 {
			t.Errorf("more than wanted: sentry %d of fewer than 45, gofer %d of 30, guest threads %d of 4", sentry, gofer, len(guest))
		}
		out := command(t, time.Minute, "", "", moat, "surface", "--platform="+p).out
		for _, w := range []string{fmt.Sprintf("sentry (%s): %d host calls\n", p, sentry), fmt.Sprintf("helper thread: %d host calls\n", len(helper)),
			fmt.Sprintf("guest threads (%s): %d host calls\n", p, len(guest)), "\ngofer: "} {
			if !strings.Contains(out, w) {
				t.Errorf("moat surface does not print %q", w)
			}
		}
	})
}
