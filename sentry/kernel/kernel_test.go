package kernel

import (
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/platform"
	"moat/sentry/fs/tmpfs"
	"moat/sentry/kernel/auth"
	"moat/sentry/loader"
	"moat/sentry/memmap"
	"moat/sentry/memory"
	"moat/sentry/mm"
	"moat/sentry/vfs"
)

// The guests of these tests are Go functions: a fake platform runs each as a coroutine that makes "system calls", which are closures.

type script func(g *guest)

type fakePlatform struct {
	mu      sync.Mutex
	scripts map[uint64]script // by address: programs and signal handlers
	next    uint64
}

func (p *fakePlatform) add(s script) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next += 16
	p.scripts[p.next] = s
	return p.next
}

func (p *fakePlatform) get(addr uint64) script {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.scripts[addr]
}

func (*fakePlatform) Name() string                 { return "fake" }
func (*fakePlatform) Reserved() hostarch.AddrRange { return hostarch.AddrRange{} }
func (*fakeAS) SetText(int, hostarch.Addr)         {}
func (*fakeAS) SetName(string)                     {}
func (*fakePlatform) UserRange() hostarch.AddrRange {
	return hostarch.AddrRange{Start: 0x10000, End: 0x7ffffffff000}
}
func (p *fakePlatform) NewAddressSpace() (platform.AddressSpace, error) { return &fakeAS{p}, nil }
func (*fakePlatform) Close()                                            {}

type fakeAS struct{ p *fakePlatform }

func (*fakeAS) Map(hostarch.AddrRange, int, uint64, hostarch.AccessType) {}
func (*fakeAS) Unmap(hostarch.AddrRange)                                 {}
func (*fakeAS) Populate(hostarch.AddrRange)                              {}
func (*fakeAS) Protect(hostarch.AddrRange, hostarch.AccessType)          {}
func (*fakeAS) Flush() error                                             { return nil }
func (*fakeAS) Settled() bool                                            { return true }
func (a *fakeAS) Fork() (platform.AddressSpace, error)                   { return &fakeAS{a.p}, nil }
func (*fakeAS) Release()                                                 {}
func (a *fakeAS) NewThread() (platform.Thread, error) {
	return &guest{p: a.p, resume: make(chan struct{}), event: make(chan platform.Event), intr: make(chan struct{}, 1), fp: make([]byte, 832)}, nil
}

// guest is a thread of the fake platform.
type guest struct {
	p       *fakePlatform
	regs    *platform.Regs
	resume  chan struct{}
	event   chan platform.Event
	intr    chan struct{}
	started bool
	call    func(*Task) (uintptr, error)
	fp      []byte
}

func (g *guest) FPState() ([]byte, error)     { return g.fp, nil }
func (g *guest) SetFPState(b []byte) error    { copy(g.fp, b); return nil }
func (*guest) Clock() *platform.Stopwatch     { return platform.NewStopwatch() }
func (*guest) Park()                          {}
func (*guest) Signals() *platform.SignalWords { return nil }
func (*guest) SetIdentity(platform.Identity)  {}
func (*guest) Release()                       {}
func (g *guest) Interrupt() {
	select {
	case g.intr <- struct{}{}:
	default:
	}
}

func (g *guest) Run(regs *platform.Regs) (platform.Event, error) {
	g.regs = regs
	if !g.started {
		g.started = true
		s := g.p.get(regs.Rip)
		if regs.R12 != 0 && regs.Rax == 0 {
			s = g.p.get(regs.R12) // a clone's child
		}
		go func() {
			<-g.resume
			s(g)
			g.sys(func(t *Task) (uintptr, error) { t.ExitGroup(0); return 0, nil })
		}()
	}
	g.resume <- struct{}{}
	return <-g.event, nil
}

// sys makes a system call. Signal handlers that the kernel sets up run in it, as they would after a real call.
func (g *guest) sys(fn func(*Task) (uintptr, error)) int64 {
	back := g.regs.Rip + 2
	for {
		g.regs.Rip = back
		g.regs.Orig_rax, g.regs.Rax = 1, ^uint64(37)
		g.call = fn
		g.event <- platform.Event{Kind: platform.EventSyscall}
		<-g.resume
		for g.regs.Rip != back && g.regs.Rip != back-2 {
			h := g.p.get(g.regs.Rip)
			h(g)
			g.regs.Rsp += 8
			g.call = func(t *Task) (uintptr, error) { t.SigReturn(); return 0, nil }
			g.regs.Orig_rax = 15
			g.event <- platform.Event{Kind: platform.EventSyscall}
			<-g.resume
		}
		if g.regs.Rip == back {
			g.regs.Rip = back - 2
			return int64(g.regs.Rax)
		}
	}
}

// spin runs until the kernel interrupts.
func (g *guest) spin() {
	<-g.intr
	g.regs.Orig_rax = ^uint64(0)
	g.event <- platform.Event{Kind: platform.EventInterrupted}
	<-g.resume
}

type fakeTable struct{}

func (fakeTable) Lookup(uintptr) SyscallFn {
	return func(t *Task, _ Args) (uintptr, error) { return t.thread.(*guest).call(t) }
}
func (fakeTable) Enter(*Task, uintptr, Args)                {}
func (fakeTable) Blocked(*Task)                             {}
func (fakeTable) Exit(*Task, uintptr, Args, uintptr, error) {}

const stackTop = 0x20000

// boot starts a kernel whose first process runs s, and waits for its end.
// +checklocksignore: nobody else.
func boot(t *testing.T, s script) linux.WaitStatus {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	mem, err := memory.New(fd, 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	p := &fakePlatform{scripts: make(map[uint64]script), next: 0x1000}
	k, err := New(Config{Platform: p, Memory: mem, Table: fakeTable{}})
	if err != nil {
		t.Fatal(err)
	}
	ns, err := vfs.NewMountNamespace(k.rootUserNS, tmpfs.New(mem, tmpfs.Options{}), "root", 0)
	if err != nil {
		t.Fatal(err)
	}
	k.rootNS.Mount = ns
	a := &ProcessArgs{Credentials: auth.NewRoot(k.rootUserNS), FDTable: vfs.NewFDTable(), Limits: DefaultLimits(), Unkillable: true}
	task, err := k.prepareProcess(a)
	if err != nil {
		t.Fatal(err)
	}
	m, err := mm.New(p, mem, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.MMap(mm.Caller{}, memmap.MMapOpts{Addr: 0x10000, Fixed: true, Length: stackTop - 0x10000, Private: true, Perms: hostarch.ReadWrite,
		MaxPerms: hostarch.AnyAccess}); err != nil {
		t.Fatal(err)
	}
	task.mm.Store(m)
	task.user.Store(k.users.get(0))
	if err := k.adopt(task, a); err != nil {
		t.Fatal(err)
	}
	task.regs = startRegs(loader.Info{Entry: hostarch.Addr(p.add(s)), StackPointer: stackTop})
	task.start(nil)
	done := make(chan struct{})
	go func() {
		k.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		for _, tg := range k.ThreadGroups() {
			for _, o := range tg.Tasks() {
				t.Logf("tid %d of %d: %v work %x killed %v exitDone %v", o.TID(), o.PID(), o.State(), o.work.Load(), o.killed, o.exitDone)
			}
		}
		t.Fatal("tasks are left")
	}
	k.tasksMu.Lock()
	defer k.tasksMu.Unlock()
	if n := len(k.allPIDs.pids); n != 0 {
		t.Errorf("%d numbers are left in use", n)
	}
	if len(k.users.users) != 0 {
		t.Error("users are left")
	}
	return task.tg.exitStatus
}

func (g *guest) clone(flags uint64, sig linux.Signal, s script) int64 {
	g.regs.R12 = g.p.add(s)
	return g.sys(func(t *Task) (uintptr, error) {
		tid, err := t.Clone(&CloneArgs{Flags: flags, ExitSignal: sig})
		return uintptr(tid), err
	})
}

func (g *guest) fork(s script) int32 { return int32(g.clone(0, linux.SIGCHLD, s)) }

const threadFlags = linux.CLONE_VM | linux.CLONE_FS | linux.CLONE_FILES | linux.CLONE_SIGHAND | linux.CLONE_THREAD

func (g *guest) thread(s script) int32 { return int32(g.clone(threadFlags, 0, s)) }

func (g *guest) exit(code int32) {
	g.sys(func(t *Task) (uintptr, error) { t.Exit(code); return 0, nil })
}

func (g *guest) kill(pid int32, sig linux.Signal) int64 {
	return g.sys(func(t *Task) (uintptr, error) { return 0, t.Kill(pid, sig) })
}

func (g *guest) pause() int64 {
	return g.sys(func(t *Task) (uintptr, error) { return 0, t.Block(nil) })
}

// wait returns the child and status; options as for wait4.
func (g *guest) wait(pid int32, options uint32) (who int32, st linux.WaitStatus, errno int64) {
	errno = g.sys(func(t *Task) (uintptr, error) {
		o := &WaitOptions{Options: options | linux.WEXITED}
		if pid > 0 {
			o.PID = t.PIDNamespace().PID(pid)
		}
		r, err := t.Wait(o)
		if r != nil {
			who, st = r.PID, r.Status
		}
		return 0, err
	})
	return who, st, errno
}

func (g *guest) handle(sig linux.Signal, flags uint64, s script) {
	act := &linux.SigAction{Handler: linux.SIG_IGN, Flags: flags | linux.SA_RESTORER, Restorer: 1}
	if s != nil {
		act.Handler = g.p.add(s)
	}
	g.sys(func(t *Task) (uintptr, error) { _, err := t.SigAction(sig, act); return 0, err })
}

func (g *guest) pid() int32 {
	return int32(g.sys(func(t *Task) (uintptr, error) { return uintptr(t.PID()), nil }))
}

func TestForkWait(t *testing.T) {
	st := boot(t, func(g *guest) {
		got := 0
		g.handle(linux.SIGCHLD, linux.SA_SIGINFO, func(h *guest) { got++ })
		c := g.fork(func(g *guest) { g.exit(7) })
		who, st, e := g.wait(-1, 0)
		for e == -int64(unix.EINTR) {
			who, st, e = g.wait(-1, 0)
		}
		if who != c || !st.Exited() || st.ExitStatus() != 7 || got != 1 {
			t.Errorf("wait: %d %v %d, %d SIGCHLD", who, st, e, got)
		}
		if _, _, e := g.wait(-1, 0); e != -int64(unix.ECHILD) {
			t.Errorf("no children: %d", e)
		}
		// Ignored SIGCHLD: children vanish, wait sees none.
		g.handle(linux.SIGCHLD, 0, nil)
		g.fork(func(g *guest) {})
		if _, _, e := g.wait(-1, 0); e != -int64(unix.ECHILD) {
			t.Errorf("ignored SIGCHLD: %d", e)
		}
		g.exit(3)
	})
	if st.ExitStatus() != 3 {
		t.Errorf("init: %v", st)
	}
}

func TestSignals(t *testing.T) {
	boot(t, func(g *guest) {
		// A handler with SA_RESTART: the call goes on; without: EINTR.
		c := g.fork(func(g *guest) {
			n := 0
			g.handle(linux.SIGUSR1, linux.SA_RESTART, func(*guest) { n++ })
			g.handle(linux.SIGUSR2, 0, func(*guest) { n += 10 })
			g.kill(g.pid(), linux.SIGUSR1)
			if n != 1 {
				t.Errorf("handler ran %d times", n)
			}
			if e := g.pause(); e != -int64(unix.EINTR) {
				t.Errorf("pause: %d", e)
			}
			g.exit(int32(n))
		})
		time.Sleep(20 * time.Millisecond)
		g.kill(c, linux.SIGUSR1)
		time.Sleep(20 * time.Millisecond)
		g.kill(c, linux.SIGUSR2)
		if _, st, _ := g.wait(c, 0); st.ExitStatus() != 12 {
			t.Errorf("handlers: %v", st)
		}
		// A blocked signal waits; sigtimedwait takes it.
		c = g.fork(func(g *guest) {
			g.sys(func(t *Task) (uintptr, error) { t.SetSignalMask(linux.SignalSetOf(40)); return 0, nil })
			for v := range uint64(3) {
				g.sys(func(t *Task) (uintptr, error) {
					info := &linux.SignalInfo{Signo: 40, Code: linux.SI_QUEUE}
					info.SetSigval(v)
					return 0, t.QueueInfo(t.PID(), 40, info)
				})
			}
			for v := range uint64(3) {
				g.sys(func(k *Task) (uintptr, error) {
					info, err := k.WaitSignal(linux.SignalSetOf(40), -1)
					if err != nil || info.Sigval() != v {
						t.Errorf("sigwait: %v %v", info.Sigval(), err)
					}
					return 0, nil
				})
			}
			e := g.sys(func(k *Task) (uintptr, error) {
				_, err := k.WaitSignal(linux.SignalSetOf(40), time.Millisecond)
				return 0, err
			})
			if e != -int64(unix.EAGAIN) {
				t.Errorf("sigtimedwait: %d", e)
			}
		})
		g.wait(c, 0)
		// Deaths by signal, of a sleeping and of a running thread.
		c = g.fork(func(g *guest) { g.pause() })
		g.kill(c, linux.SIGTERM)
		if _, st, _ := g.wait(c, 0); !st.Signaled() || st.TerminationSignal() != linux.SIGTERM {
			t.Errorf("SIGTERM: %v", st)
		}
		c = g.fork(func(g *guest) { g.spin() })
		time.Sleep(5 * time.Millisecond)
		g.kill(c, linux.SIGKILL)
		if _, st, _ := g.wait(c, 0); st.TerminationSignal() != linux.SIGKILL {
			t.Errorf("SIGKILL: %v", st)
		}
		// init itself ignores what it has no handler for.
		g.kill(1, linux.SIGTERM)
		g.kill(1, linux.SIGKILL)
	})
}

func TestJobControl(t *testing.T) {
	boot(t, func(g *guest) {
		c := g.fork(func(g *guest) {
			g.sys(func(k *Task) (uintptr, error) { return 0, k.Setpgid(0, 0) }) // terminal stops do nothing in an orphaned group
			g.thread(func(g *guest) { g.pause() })
			g.pause()
		})
		time.Sleep(10 * time.Millisecond)
		g.kill(c, linux.SIGSTOP)
		who, st, _ := g.wait(c, linux.WSTOPPED)
		if who != c || !st.Stopped() || st.StopSignal() != linux.SIGSTOP {
			t.Errorf("stop: %d %v", who, st)
		}
		if who, _, e := g.wait(c, linux.WSTOPPED|linux.WNOHANG); who != 0 || e != 0 {
			t.Errorf("stop reported twice: %d %d", who, e)
		}
		g.kill(c, linux.SIGCONT)
		if _, st, _ := g.wait(c, linux.WCONTINUED); !st.Continued() {
			t.Errorf("continue: %v", st)
		}
		g.kill(c, linux.SIGTSTP)
		if _, st, _ := g.wait(c, linux.WSTOPPED); st.StopSignal() != linux.SIGTSTP {
			t.Errorf("SIGTSTP: %v", st)
		}
		g.kill(c, linux.SIGKILL)
		if _, st, _ := g.wait(c, 0); st.TerminationSignal() != linux.SIGKILL {
			t.Errorf("SIGKILL of a stopped process: %v", st)
		}
	})
}

func TestOrphans(t *testing.T) {
	st := boot(t, func(g *guest) {
		var grandchild int32
		c := g.fork(func(g *guest) { grandchild = g.fork(func(g *guest) { g.pause() }); g.exit(0) })
		g.wait(c, 0)
		if p := g.sys(func(k *Task) (uintptr, error) {
			return uintptr(k.PIDNamespace().ThreadGroup(grandchild).Leader().PPID()), nil
		}); p != 1 {
			t.Errorf("orphan's parent is %d", p)
		}
		g.kill(grandchild, linux.SIGKILL)
		if who, _, _ := g.wait(-1, 0); who != grandchild {
			t.Errorf("init reaps %d", who)
		}
		// A process group that becomes orphaned with a stopped member gets SIGHUP and SIGCONT.
		c = g.fork(func(g *guest) {
			g.sys(func(k *Task) (uintptr, error) { return 0, k.tg.Setsid() })
			s := g.fork(func(g *guest) {
				g.sys(func(k *Task) (uintptr, error) { return 0, k.Setpgid(0, 0) })
				g.pause()
			})
			for g.sys(func(k *Task) (uintptr, error) { pg, err := k.PGIDOf(s); return uintptr(pg), err }) != int64(s) {
				time.Sleep(time.Millisecond)
			}
			g.kill(s, linux.SIGSTOP)
			g.wait(s, linux.WSTOPPED)
			g.exit(0)
		})
		g.wait(c, 0)
		if _, st, _ := g.wait(-1, 0); st.TerminationSignal() != linux.SIGHUP {
			t.Errorf("member of an orphaned group: %v", st)
		}
		// What is left dies with init.
		for range 3 {
			g.fork(func(g *guest) { g.fork(func(g *guest) { g.spin() }); g.pause() })
		}
		g.thread(func(g *guest) { g.pause() })
		g.sys(func(t *Task) (uintptr, error) { t.ExitGroup(5); return 0, nil })
	})
	if st.ExitStatus() != 5 {
		t.Errorf("init: %v", st)
	}
}

func TestNamespaces(t *testing.T) {
	boot(t, func(g *guest) {
		c := int32(g.clone(linux.CLONE_NEWPID, linux.SIGCHLD, func(g *guest) {
			if p := g.pid(); p != 1 {
				t.Errorf("init of a namespace is %d", p)
			}
			g.fork(func(g *guest) { g.fork(func(g *guest) { g.pause() }); g.pause() })
			g.exit(9)
		}))
		if _, st, _ := g.wait(c, 0); st.ExitStatus() != 9 {
			t.Errorf("namespace's init: %v", st)
		}
		if n := g.sys(func(k *Task) (uintptr, error) { return uintptr(k.PIDNamespace().NumTasks()), nil }); n != 1 {
			t.Errorf("%d tasks are left", n)
		}
	})
}

// TestThreads: the leader's exit leaves a zombie until the last thread ends; a signal to the process picks a thread that does not block it.
func TestThreads(t *testing.T) {
	boot(t, func(g *guest) {
		c := g.fork(func(g *guest) {
			g.handle(linux.SIGUSR1, 0, func(*guest) {})
			g.thread(func(g *guest) {
				g.sys(func(t *Task) (uintptr, error) { t.SetSignalMask(^linux.SignalSet(0)); return 0, nil })
				g.pause()
			})
			g.thread(func(g *guest) {
				if e := g.pause(); e != -int64(unix.EINTR) {
					t.Errorf("pause: %d", e)
				}
				g.sys(func(t *Task) (uintptr, error) { t.ExitGroup(4); return 0, nil })
			})
			g.exit(1)
		})
		time.Sleep(20 * time.Millisecond)
		if who, _, e := g.wait(c, linux.WNOHANG); who != 0 || e != 0 {
			t.Errorf("a group with threads was reaped: %d %d", who, e)
		}
		g.kill(c, linux.SIGUSR1)
		if _, st, _ := g.wait(c, 0); st.ExitStatus() != 4 {
			t.Errorf("status %v", st)
		}
	})
}
