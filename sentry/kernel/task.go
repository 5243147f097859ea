package kernel

import (
	"sync"
	"sync/atomic"
	"time"

	"moat/platform"
	"moat/sentry/kernel/auth"
	"moat/sentry/kernel/keys"
	"moat/sentry/kernel/signal"
	"moat/sentry/mm"
	"moat/sentry/vfs"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
)

// Task is one guest thread: one goroutine, locked to an OS thread while the task lives. It implements vfs.Context and
// usermem.IO (of its address space).
type Task struct {
	k      *Kernel
	tg     *ThreadGroup // constant
	cgroup atomic.Pointer[Cgroup]
	before cpuTimes // what was used in other cgroups; guarded by Kernel.tasksMu

	// pid and exitDone are guarded by Kernel.tasksMu; tid and tgid are copies of the numbers in the task's own namespace.
	pid       atomic.Pointer[PID]
	exitDone  bool // the task is a zombie or gone
	tid, tgid atomic.Int32

	// work says what must be done before the next return to the guest: work* bits.
	work atomic.Uint32
	// inGuest is odd while the platform runs guest code: only then is thread.Interrupt needed.
	inGuest atomic.Uint32
	// wake carries one token that ends a Block early.
	wake chan struct{}
	// state is what /proc shows: TaskState.
	state atomic.Uint32

	// Owned by the task's goroutine.
	regs    platform.Regs
	thread  platform.Thread
	timer   *time.Timer
	alarm   alarm                        // of waits that are too short for timer
	restart func(*Task) (uintptr, error) // restart_syscall(2)'s function
	exiting bool
	// noRestart: the call replaced the registers (sigreturn, execve); its result must not touch them.
	regsReplaced bool
	altStack     linux.SignalStack
	clearTID     hostarch.Addr // CLONE_CHILD_CLEARTID
	setTID       hostarch.Addr // CLONE_CHILD_SETTID
	robustList   atomic.Uint64
	// FutexDead says that the futexes that t owned were handed on: nobody may wait for t to release one (FUTEX_STATE_DEAD).
	FutexDead atomic.Bool
	// vfork is closed when the task leaves the address space that it borrowed.
	vfork chan struct{}

	// thr is thread and cpu clock for other goroutines.
	thr atomic.Pointer[threadRef]

	creds   atomic.Pointer[auth.Credentials]
	mm      atomic.Pointer[mm.MemoryManager]
	seccomp atomic.Pointer[seccompFilter]
	straced atomic.Bool
	// tracing is set while another process traces t; see there.
	tracing atomic.Pointer[tracing]
	// call is the number of the system call that the task last waited in.
	call atomic.Uint64
	// Trace is the strace decoder's, for t's own goroutine.
	Trace any

	// mu guards what other tasks may look at; the task itself changes them (with mu) and reads without it.
	mu   sync.Mutex
	name string
	fdt  *vfs.FDTable // nil once the task has released it
	fs   *FSContext   // nil once the task has released it
	ns   Namespaces
	// notes are functions given to RunAtBoundary.
	notes []func(*Task)
	// rings are t's key rings.
	rings keys.Rings
	// user is counted against RLIMIT_NPROC.
	user atomic.Pointer[User]

	// Guarded by tg.sigMu. The mask is written by the task itself only, and read by it without the lock; it is in words if that is not nil
	// (signal_words.go).
	ownMask     linux.SignalSet
	words       *platform.SignalWords
	savedMask   linux.SignalSet // restored after the call when no handler runs (sigsuspend, ppoll)
	hasSaved    bool
	waitSet     linux.SignalSet // signals that rt_sigtimedwait waits for, though blocked
	private     signal.Pending
	stopPending bool // must take part in the group stop
	stopped     bool
	killed      bool // SIGKILL or a group exit
	// exitingSignals: t takes no more signals (PF_EXITING). forced: a synchronous signal that even init dies of.
	exitingSignals, forced bool

	// oneRange and scratch keep small copies from the heap; for t's own goroutine.
	oneRange [1]hostarch.AddrRange
	scratch  [64]byte
	fpBuf    []byte
	fault    lastFault
	oomKills uint64 // of Kernel.OOMKills, those that gave t another try
	trap     signal.Trap

	exitCode  linux.WaitStatus
	startTime time.Time
	attrs     taskAttrs
	cpu       cpuState
}

// taskAttrs are scheduling and security attributes that other tasks may read or change.
type taskAttrs struct {
	noNewPrivs atomic.Bool
	nice       atomic.Int32
	policy     atomic.Int32 // SCHED_*, with SCHED_RESET_ON_FORK
	rtPriority atomic.Int32
	ioprio     atomic.Int32
	timerSlack atomic.Int64
	// defaultSlack is what PR_SET_TIMERSLACK 0 restores.
	defaultSlack int64
	pdeathsig    atomic.Int32
	personality  atomic.Uint32
	affinity     atomic.Pointer[CPUSet]
	tscFault     atomic.Bool
	thpDisable   atomic.Uint32 // 1, or with 2 but for who asks by madvise(2)
	// nprocExceeded: set*uid passed RLIMIT_NPROC; execve fails with EAGAIN if that still holds.
	nprocExceeded atomic.Bool
}

// TaskState is the state letter of proc_pid_stat(5).
type TaskState uint32

const (
	Running TaskState = iota
	Sleeping
	DiskSleep
	Stopped
	Traced
	Zombie
	Dead
)

func (s TaskState) String() string {
	return [...]string{"R (running)", "S (sleeping)", "D (disk sleep)", "T (stopped)", "t (tracing stop)", "Z (zombie)", "X (dead)"}[s]
}

// State is the task's state, as /proc shows it.
func (t *Task) State() TaskState { return TaskState(t.state.Load()) }

// Kernel is the kernel that t runs in.
func (t *Task) Kernel() *Kernel { return t.k }

// ThreadGroup is t's process.
func (t *Task) ThreadGroup() *ThreadGroup { return t.tg }

// TID is the thread ID as seen in the task's own PID namespace.
func (t *Task) TID() int32 { return t.tid.Load() }

// PID is the process ID as seen in the task's own PID namespace.
func (t *Task) PID() int32 { return t.tgid.Load() }

// WaitsIn is the number of the system call that t waits in; false if it does not wait.
func (t *Task) WaitsIn() (nr uint64, ok bool) {
	s := t.State()
	return t.call.Load(), s != Running && s != Zombie && s != Dead
}

// ID is the task's PID object.
func (t *Task) ID() *PID { return t.pid.Load() }

// TIDIn is the thread ID as ns sees it, or 0.
func (t *Task) TIDIn(ns *PIDNamespace) int32 { return t.ID().In(ns) }

// PPID is getppid(2): 0 if the parent is outside t's PID namespace.
func (t *Task) PPID() int32 { return t.tg.ppid.Load() }

// PIDNamespace is the namespace that t's own numbers belong to.
func (t *Task) PIDNamespace() *PIDNamespace { return t.pid.Load().ns }

// Credentials are t's identity (subjective and objective).
func (t *Task) Credentials() *auth.Credentials { return t.creds.Load() }

// UserNamespace is the user namespace of t's credentials.
func (t *Task) UserNamespace() *auth.UserNamespace { return t.creds.Load().UserNS }

// MemoryManager is t's address space, without a reference; nil once t has exited. Other tasks use GetMM.
func (t *Task) MemoryManager() *mm.MemoryManager { return t.mm.Load() }

// FDTable is the task's descriptor table (may be shared: CLONE_FILES). For t's own goroutine.
func (t *Task) FDTable() *vfs.FDTable { return t.fdt }

// GetFDTable is FDTable for other goroutines, with a reference; nil if t has exited.
func (t *Task) GetFDTable() *vfs.FDTable {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fdt != nil {
		t.fdt.IncRef()
	}
	return t.fdt
}

// FSContext is the task's root, working directory and umask (may be shared); nil once t has exited. For t's own goroutine.
func (t *Task) FSContext() *FSContext { return t.fs }

// Paths returns t's root and working directory with references, for other goroutines; ok is false if t has exited.
func (t *Task) Paths() (root, cwd vfs.Path, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fs == nil {
		return vfs.Path{}, vfs.Path{}, false
	}
	root, cwd = t.fs.Get()
	return root, cwd, true
}

// PeekUmask is t's umask for other goroutines; ok is false if t has exited.
func (t *Task) PeekUmask() (mask uint16, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fs == nil {
		return 0, false
	}
	return t.fs.Umask(), true
}

// Namespaces are t's namespaces, for t's own goroutine or a moment's look.
func (t *Task) Namespaces() Namespaces {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ns
}

// UTS, IPC, Net and MountNamespace are for t's own goroutine.
func (t *Task) UTS() *UTSNamespace { return t.ns.UTS }

// IPC is t's IPC namespace.
func (t *Task) IPC() *IPCNamespace { return t.ns.IPC }

// Net is t's network namespace.
func (t *Task) Net() *NetNamespace { return t.ns.Net }

// MountNamespace is t's mount namespace.
func (t *Task) MountNamespace() *vfs.MountNamespace { return t.ns.Mount }

// Name is the command name (comm).
func (t *Task) Name() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.name
}

// SetName sets the command name, cut to 15 bytes.
func (t *Task) SetName(s string) {
	if len(s) > 15 {
		s = s[:15]
	}
	t.mu.Lock()
	t.name = s
	t.mu.Unlock()
}

// StartTime is when the thread was made.
func (t *Task) StartTime() time.Time { return t.startTime }

// Regs are the guest's registers, for t's own goroutine.
func (t *Task) Regs() *platform.Regs { return &t.regs }

// Self is t, also of what embeds it to act with other credentials (access(2)).
func (t *Task) Self() *Task { return t }

// NoNewPrivs is prctl(2)'s PR_SET_NO_NEW_PRIVS.
func (t *Task) NoNewPrivs() bool { return t.attrs.noNewPrivs.Load() }

// RobustList is the address set by set_robust_list(2).
func (t *Task) RobustList() hostarch.Addr { return hostarch.Addr(t.robustList.Load()) }

// SetRobustList is set_robust_list(2).
func (t *Task) SetRobustList(a hostarch.Addr) { t.robustList.Store(uint64(a)) }

// Rings are t's key rings, for Kernel.Keys.
func (t *Task) Rings() *keys.Rings { return &t.rings }

// SetClearTID is set_tid_address(2).
func (t *Task) SetClearTID(a hostarch.Addr) { t.clearTID = a }

// ClearTID is the address that is cleared and woken at exit.
func (t *Task) ClearTID() hostarch.Addr { return t.clearTID }

// Root is the root directory (vfs.Context).
func (t *Task) Root() vfs.Path { return t.fs.Root() }

// Cwd is the working directory (vfs.Context).
func (t *Task) Cwd() vfs.Path { return t.fs.Cwd() }

// Umask is umask(2) (vfs.Context).
func (t *Task) Umask() uint16 { return t.fs.Umask() }

// Now is CLOCK_REALTIME (vfs.Context).
func (t *Task) Now() vfs.Time { return vfs.Time(t.k.RealTime()) }

// FileSizeLimit is RLIMIT_FSIZE (vfs.Context).
func (t *Task) FileSizeLimit() uint64 { return t.tg.Limit(linux.RLIMIT_FSIZE).Cur }

// SendSIGXFSZ is what exceeding it does (vfs.Context).
func (t *Task) SendSIGXFSZ() { t.SignalSelf(linux.SIGXFSZ) }

// SignalSelf sends sig as kill(2) of oneself does.
func (t *Task) SignalSelf(sig linux.Signal) { t.SendSignal(t.userInfo(t, sig, linux.SI_USER)) }

// GetFile returns the open file of descriptor fd with a reference (drop with DecRef), or EBADF. O_PATH files give EBADF too.
func (t *Task) GetFile(fd int32) (*vfs.FileDescription, error) {
	f := t.fdt.Get(fd)
	if f == nil {
		return nil, unix.EBADF
	}
	if f.PathOnly() {
		f.DecRef()
		return nil, unix.EBADF
	}
	return f, nil
}

// GetFileOrPath is GetFile that also returns O_PATH files.
func (t *Task) GetFileOrPath(fd int32) (*vfs.FileDescription, error) {
	f := t.fdt.Get(fd)
	if f == nil {
		return nil, unix.EBADF
	}
	return f, nil
}

// NewFD installs f at the lowest free descriptor within RLIMIT_NOFILE; the table takes its own reference.
func (t *Task) NewFD(f *vfs.FileDescription, cloexec bool) (int32, error) {
	return t.fdt.NewFD(f, 0, cloexec, t.tg.Limit(linux.RLIMIT_NOFILE).Cur)
}

// OpenFD gives what open returns a descriptor, which is taken before: while open waits, others get higher ones. EMFILE comes before what open says.
func (t *Task) OpenFD(flags uint32, open func() (*vfs.FileDescription, error)) (uintptr, error) {
	var fd [1]int32
	fdt := t.fdt
	if err := fdt.Reserve(fd[:], flags&unix.O_CLOEXEC != 0, t.tg.Limit(linux.RLIMIT_NOFILE).Cur); err != nil {
		return 0, err
	}
	f, err := open()
	fdt.Install(fd[0], f)
	return uintptr(fd[0]), err
}

// InstallFD is NewFD for f whose reference it takes over; flags may hold O_CLOEXEC.
func (t *Task) InstallFD(f *vfs.FileDescription, flags uint32) (uintptr, error) {
	defer f.DecRef()
	fd, err := t.NewFD(f, flags&unix.O_CLOEXEC != 0)
	return uintptr(fd), err
}
