package boot

import (
	"fmt"
	"os"
	"sync"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"

	"moat/platform"
	"moat/sentry/boot/filter"
	"moat/sentry/fs/cgroup"
	"moat/sentry/fs/dev"
	"moat/sentry/fs/devpts"
	"moat/sentry/fs/gofer"
	"moat/sentry/fs/mqueue"
	"moat/sentry/fs/pipe"
	"moat/sentry/fs/proc"
	"moat/sentry/fs/sys"
	"moat/sentry/fs/tmpfs"
	"moat/sentry/kernel"
	"moat/sentry/loader/vdso"
	"moat/sentry/memory"
	"moat/sentry/net/inet"
	"moat/sentry/vfs"
	"moat/syscalls"
)

// sandbox is what runs.
type sandbox struct {
	c     *Config
	k     *kernel.Kernel
	log   *zap.Logger
	mem   *memory.File
	gofer *gofer.Client
	host  hostFiles
	init  *process
	// limits are what the container sees in its cgroup.
	limits cgroup.Limits

	mu      sync.Mutex
	started bool // +checklocks:mu
}

// build makes the sandbox that c describes, with a first process that is ready to run.
func build(c *Config, host *Host) (*sandbox, error) {
	if c.Spec == nil || c.Spec.Root == nil {
		return nil, fmt.Errorf("the configuration has no root")
	}
	b := &sandbox{c: c, log: newLog(c.Debug)}
	if err := b.makeKernel(host); err != nil {
		return nil, err
	}
	var err error
	if b.host, err = newHostFiles(); err != nil {
		return nil, err
	}
	network := c.Network
	switch {
	case network == "host":
		inet.Of(b.k.RootNamespaces().Net).UseHost(b.host.poller)
	case len(c.Links) == 0:
		network = "none"
	}
	fds := []int{StdioFD, StdioFD + 1, StdioFD + 2}
	for i := range c.First.Extra {
		fds = append(fds, ExtraFD+i)
	}
	b.init = &process{}
	if b.init.files, err = b.host.openAll(fds, true); err != nil {
		return nil, err
	}
	if !c.Unsafe {
		if err := filter.Install(b.k.Platform().Name(), network); err != nil {
			return nil, err
		}
	}
	// From here on nothing of the host can be had any more, and the container's own things begin.
	b.gofer, err = gofer.NewClient(GoferFD, func(err error) { die("%v", err) })
	if err != nil {
		return nil, err
	}
	if err := b.mountAll(); err != nil {
		return nil, err
	}
	if err := b.applySpec(); err != nil {
		return nil, err
	}
	if err := b.prepare(b.init, &c.First, !c.Plain); err != nil {
		return nil, err
	}
	if err := b.finishDev(); err != nil {
		return nil, fmt.Errorf("make /dev read-only: %w", err)
	}
	return b, nil
}

// start runs the hooks in the container and then the first process; false if that was done before.
func (b *sandbox) start(a *StartArgs) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.started {
		return false, nil
	}
	for i := range a.Hooks {
		if err := b.runHook(&a.Hooks[i], a.State); err != nil {
			return false, fmt.Errorf("error running startContainer hook #%d: %w", i, err)
		}
	}
	b.started = true
	b.init.run()
	return true, nil
}

func (b *sandbox) hasStarted() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.started
}

func (b *sandbox) makeKernel(host *Host) (err error) {
	c := b.c
	if b.mem, err = memory.New(-1, c.Memory); err != nil {
		return err
	}
	vfs.SetPressed(b.mem.Pressed)
	plat, err := newPlatform(c.Platform)
	if err != nil {
		return err
	}
	v, err := vdso.New(b.mem)
	if err != nil {
		return fmt.Errorf("vDSO: %w", err)
	}
	hostname := c.Spec.Hostname
	if hostname == "" {
		hostname = "moat"
	}
	domain := c.Spec.Domainname
	if domain == "" {
		domain = "(none)"
	}
	stack := inet.New(inet.Config{LoopbackUp: true})
	if err := b.addLinks(stack); err != nil {
		return fmt.Errorf("network: %w", err)
	}
	b.k, err = kernel.New(kernel.Config{
		Platform: plat, Memory: b.mem, Table: syscalls.NewTable(os.NewFile(LogFD, "log")), Log: b.log, VDSO: v,
		Hostname: hostname, Domainname: domain, Hooks: b.hooks(), NetStack: stack, NumCPUs: host.CPUs, Strace: c.Strace,
	})
	if err != nil {
		return err
	}
	return b.registerFileSystems(host)
}

func (b *sandbox) registerFileSystems(host *Host) error {
	tmpfs.Register(b.mem)
	if _, err := proc.NewInstances(b.k, proc.Options{CPUInfo: host.CPUInfo, Cmdline: host.Cmdline, Net: inet.ProcNet(),
		Sysctl: inet.Of(b.k.RootNamespaces().Net).Sysctl}); err != nil {
		return fmt.Errorf("procfs: %w", err)
	}
	sys.Register(b.k, b.netDevs()...)
	pipe.Register()
	devpts.Register(b.k)
	mqueue.Register(b.k)
	cgroup.Register(b.k, &b.limits)
	if l := b.c.Spec.Linux; l != nil {
		b.limit(l.Resources)
	}
	return dev.Register(b.mem)
}

// wait returns the first process' status once every process is gone.
func (b *sandbox) wait() ExitStatus {
	<-b.k.Done()
	b.k.Kill()
	b.k.Wait()
	b.log.Debug("gofer", zap.Uint64("requests", b.gofer.Requests.Load()), zap.String("by operation", b.gofer.Counts()))
	if p, ok := b.k.Platform().(platform.Counter); ok {
		b.log.Debug("platform", zap.String("name", b.k.Platform().Name()), zap.String("counts", p.Counts()))
	}
	return b.init.wait()
}

func exitStatus(ws linux.WaitStatus) ExitStatus {
	if ws.Signaled() {
		return ExitStatus{Signal: int(ws.TerminationSignal())}
	}
	return ExitStatus{Code: int(ws.ExitStatus())}
}

// signal sends a signal from outside. A container that was created and not started ends by any that would end its first process.
func (b *sandbox) signal(a *SignalArgs) error {
	sig := linux.Signal(a.Signal)
	if sig == 0 {
		return nil
	}
	if !sig.IsValid() {
		return unix.EINVAL
	}
	if !b.hasStarted() && a.PID == 0 {
		switch sig {
		case linux.SIGCHLD, linux.SIGCONT, linux.SIGURG, linux.SIGWINCH, linux.SIGSTOP, linux.SIGTSTP, linux.SIGTTIN, linux.SIGTTOU:
			return nil
		}
		exit(ExitStatus{Signal: a.Signal})
	}
	if a.All {
		for _, tg := range b.k.ThreadGroups() {
			b.k.SendSignal(tg.PIDIn(b.k.RootPIDNamespace()), sig, false)
		}
		return nil
	}
	if !b.k.SendSignal(a.PID, sig, a.Group) {
		return unix.ESRCH
	}
	return nil
}

func (b *sandbox) hooks() kernel.Hooks {
	return kernel.Hooks{ExitRobust: syscalls.ExitRobust, FutexWake: syscalls.FutexWake, NewGroupTimers: syscalls.NewGroupTimers,
		NewNetStack: inet.NewNamespace, InitOOM: b.initOOM}
}
