package kernel

import (
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/platform"
	"moat/sentry/kernel/auth"
	"moat/sentry/kernel/keys"
	"moat/sentry/loader"
	"moat/sentry/memory"
	"moat/sentry/mm"
	"moat/sentry/vfs"
)

// Config is what a Kernel is made from.
type Config struct {
	Platform platform.Platform
	Memory   *memory.File
	Table    SyscallTable
	Log      *slog.Logger
	// VDSO is mapped into every program; it may be nil.
	VDSO loader.VDSO
	// UserNS is the root user namespace; nil makes one.
	UserNS *auth.UserNamespace
	// Hostname and Domainname are the initial UTS names.
	Hostname, Domainname string
	// NetStack is the network stack of the root network namespace, for sentry/net.
	NetStack any
	// Hooks of subsystems that stand above the kernel's core.
	Hooks Hooks
	// NumCPUs is how many CPUs guests see; 0 is the host's number.
	NumCPUs int
	// Strace makes every task be traced through the table's Enter and Exit.
	Strace bool
}

// Hooks connect subsystems that the kernel must call but does not import. Nil ones do nothing.
type Hooks struct {
	// ExitRobust honours t's robust list and PI futexes when it leaves its address space.
	ExitRobust func(t *Task)
	// FutexWake wakes one waiter at addr (CLONE_CHILD_CLEARTID).
	FutexWake func(t *Task, addr hostarch.Addr)
	// NewGroupTimers makes a process' timer state.
	NewGroupTimers func(tg *ThreadGroup) GroupTimers
	// InitOOM is called before the first process is killed for want of memory.
	InitOOM func()
	// NewNetStack makes the network stack of a new network namespace.
	NewNetStack func() any
}

// Kernel is the root of all state.
type Kernel struct {
	platform platform.Platform
	memory   *memory.File
	texts    *mm.Texts
	table    SyscallTable
	log      *slog.Logger
	hooks    Hooks
	strace   atomic.Bool
	shmDev   uint64 // st_dev of System V segments
	vdso     loader.VDSO
	numCPUs  int
	cpuset   atomic.Pointer[CPUSet] // see Confine; nil: all CPUs

	rootUserNS *auth.UserNamespace
	// allPIDs has every process of every container; only those outside of all containers see it, and it has no init.
	allPIDs *PIDNamespace
	// rootNS and rootCgroup are the first container's.
	rootNS     Namespaces
	rootCgroup *Cgroup
	// cgroupIDs is the last Cgroup's number, cgroups how many there are but the containers' own.
	cgroupIDs atomic.Uint64
	cgroups   int // +checklocks:tasksMu
	nsSeq     atomic.Uint64
	users     userTable
	keys      *keys.Store
	sigios    sigios
	alarms    alarms
	start     time.Time
	// AIO are the requests that contexts of io_setup(2) were made for: /proc/sys/fs/aio-nr.
	AIO atomic.Uint64
	// AIOMax is how many there may be: aio-max-nr.
	AIOMax atomic.Uint64

	// tasksMu guards the process tree; see doc.go.
	tasksMu sync.RWMutex
	// init is the first process.
	init *ThreadGroup // +checklocks:tasksMu

	oom        oomKiller
	threadsMax atomic.Uint64 // see SetThreadsMax
	load       loadAverage
	forks      atomic.Uint64
	running    sync.WaitGroup // task goroutines
	done       chan struct{}  // closed when init is gone
	doneOnce   sync.Once
}

// New returns a kernel without processes.
func New(c Config) (*Kernel, error) {
	k := &Kernel{platform: c.Platform, memory: c.Memory, texts: mm.NewTexts(c.Platform, c.Memory), table: c.Table, log: c.Log, hooks: c.Hooks, vdso: c.VDSO, shmDev: vfs.NewAnonDev(),
		numCPUs: c.NumCPUs, rootUserNS: c.UserNS, start: time.Now(), done: make(chan struct{}), oom: oomKiller{news: make(chan struct{})}}
	k.rootCgroup = k.NewCgroup(c.Memory.Root())
	k.strace.Store(c.Strace)
	k.threadsMax.Store(ThreadsMax)
	k.AIOMax.Store(0x10000)
	k.keys = keys.NewStore()
	if k.log == nil {
		k.log = slog.New(slog.DiscardHandler)
	}
	if k.numCPUs <= 0 {
		k.numCPUs = runtime.NumCPU()
	}
	if k.rootUserNS == nil {
		k.rootUserNS = auth.NewRootNamespace()
	}
	if k.hooks.ExitRobust == nil {
		k.hooks.ExitRobust = func(*Task) {}
	}
	if k.hooks.FutexWake == nil {
		k.hooks.FutexWake = func(*Task, hostarch.Addr) {}
	}
	if k.hooks.InitOOM == nil {
		k.hooks.InitOOM = func() {}
	}
	k.users.users = make(map[auth.KUID]*User)
	u := k.rootUserNS
	u.ID = k.newNSID(nil).ino
	var err error
	if k.allPIDs, err = k.newPIDNamespace(nil, u); err != nil {
		return nil, err
	}
	pidns, err := k.newPIDNamespace(k.allPIDs, u)
	if err != nil {
		return nil, err
	}
	tn := &TimeNamespace{nsID: k.newNSID(u), frozen: true}
	k.rootNS = Namespaces{
		UTS: k.NewUTSNamespace(c.Hostname, c.Domainname, u), IPC: k.NewIPCNamespace(u),
		Net:    &NetNamespace{nsID: k.newNSID(u), Stack: c.NetStack},
		Cgroup: &CgroupNamespace{nsID: k.newNSID(u), Root: k.rootCgroup}, Time: tn, TimeForChildren: tn, PIDForChildren: pidns,
	}
	if w, ok := c.Platform.(platform.Watcher); ok {
		w.Watch(k.spaceGone)
	}
	return k, nil
}

// Platform, Memory, Log and Table are what the kernel was made with.
func (k *Kernel) Platform() platform.Platform { return k.platform }

// Memory is the memory file.
func (k *Kernel) Memory() *memory.File { return k.memory }

// Log is the kernel's log.
func (k *Kernel) Log() *slog.Logger { return k.log }

// Keys are all keys of key rings.
func (k *Kernel) Keys() *keys.Store { return k.keys }

// RootUserNamespace is all containers' outermost user namespace.
func (k *Kernel) RootUserNamespace() *auth.UserNamespace { return k.rootUserNS }

// RootPIDNamespace is the first container's outermost PID namespace.
func (k *Kernel) RootPIDNamespace() *PIDNamespace { return k.rootNS.PIDForChildren }

// RootNamespaces are the namespaces of the first process; boot sets Mount before it makes processes.
func (k *Kernel) RootNamespaces() *Namespaces { return &k.rootNS }

// BootTime is when the kernel started (/proc/uptime, btime).
func (k *Kernel) BootTime() time.Time { return k.start }

// Forks is the number of tasks ever made (/proc/stat processes).
func (k *Kernel) Forks() uint64 { return k.forks.Load() }

// NumCPUs is the number of CPUs that guests see.
func (k *Kernel) NumCPUs() int { return k.numCPUs }

// Init is the first process of the first container, or nil.
func (k *Kernel) Init() *ThreadGroup {
	k.tasksMu.RLock()
	defer k.tasksMu.RUnlock()
	return k.init
}

// SetStrace makes all tasks, and those to come, be traced through the table's Enter and Exit, or not any more.
func (k *Kernel) SetStrace(on bool) {
	k.strace.Store(on)
	for _, tg := range k.ThreadGroups() {
		for _, t := range tg.Tasks() {
			t.straced.Store(on)
			t.RunAtBoundary((*Task).publishIdentity)
		}
	}
}

// Done is closed when the first process, and with it everything, has ended.
func (k *Kernel) Done() <-chan struct{} { return k.done }

func (k *Kernel) initDone() { k.doneOnce.Do(func() { close(k.done) }) }

// Wait returns when every task's goroutine has ended.
func (k *Kernel) Wait() { k.running.Wait() }

// Kill ends every process.
func (k *Kernel) Kill() {
	k.tasksMu.Lock()
	defer k.tasksMu.Unlock()
	k.allPIDs.dead = true
	for _, p := range k.allPIDs.pids {
		if p.group != nil {
			p.group.SendSignal(kernelInfo(linux.SIGKILL))
		}
	}
}

// ThreadGroups are all processes of all containers.
func (k *Kernel) ThreadGroups() []*ThreadGroup { return k.allPIDs.ThreadGroups() }

// NumRunning counts tasks that are runnable, and all tasks (/proc/loadavg).
func (k *Kernel) NumRunning() (running, total int) {
	k.tasksMu.RLock()
	defer k.tasksMu.RUnlock()
	for _, p := range k.allPIDs.pids {
		if p.task != nil {
			total++
			if p.task.State() == Running {
				running++
			}
		}
	}
	return running, total
}

// peakRSS is the highest resident set of m so far, in bytes.
func peakRSS(m *mm.MemoryManager) int64 { return int64(m.RSSPeak()) }

// Uptime is the time since boot in nanoseconds.
func (k *Kernel) Uptime() int64 { return int64(time.Since(k.start)) }
