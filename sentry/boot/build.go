package boot

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
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
	"moat/sentry/kernel/auth"
	"moat/sentry/loader/vdso"
	"moat/sentry/memory"
	"moat/sentry/net/inet"
	"moat/sentry/vfs"
	"moat/syscalls"
)

// sandbox is what runs: the kernel, and what all containers share.
type sandbox struct {
	k    *kernel.Kernel
	log  *slog.Logger
	mem  *memory.File
	host hostFiles
	// first is the container that the sandbox was made with. It ends when that does.
	first *container

	mu         sync.Mutex
	containers map[string]*container // +checklocks:mu
}

// build makes the sandbox that c describes, with a first process that is ready to run.
func build(c *Config, host *Host) (*sandbox, error) {
	s := &sandbox{log: newLog(c.Debug)}
	b := &container{sandbox: s, c: c}
	s.first, s.containers = b, map[string]*container{c.ID: b}
	if err := s.makeKernel(c, host); err != nil {
		return nil, err
	}
	b.ns, b.cg = s.k.RootNamespaces(), s.k.RootCgroup()
	b.limit(c.Spec.Resources)
	var err error
	if s.host, err = newHostFiles(); err != nil {
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
	return s, b.fill()
}

func (b *sandbox) makeKernel(c *Config, host *Host) (err error) {
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
	users, err := userNamespace(&c.Spec)
	if err != nil {
		return err
	}
	vfs.SetRoot(auth.NewRoot(users))
	hostname := c.Spec.Hostname
	if hostname == "" {
		hostname = "moat"
	}
	domain := c.Spec.Domainname
	if domain == "" {
		domain = "(none)"
	}
	stack := inet.New(inet.Config{LoopbackUp: true})
	if err := addLinks(c, stack, plat); err != nil {
		return fmt.Errorf("network: %w", err)
	}
	b.k, err = kernel.New(kernel.Config{
		Platform: plat, Memory: b.mem, Table: syscalls.NewTable(os.NewFile(LogFD, "log")), Log: b.log, VDSO: v,
		Hostname: hostname, Domainname: domain, Hooks: b.hooks(c.Standalone), NetStack: stack, UserNS: users, NumCPUs: host.CPUs, Strace: c.Strace,
	})
	if err != nil {
		return err
	}
	return b.registerFileSystems(c, host)
}

// userNamespace is the user namespace of all containers. Its parent's IDs are the host's, as the gofer has them: that maps the owners of files.
func userNamespace(l *Spec) (*auth.UserNamespace, error) {
	ns, err := mappings(l.UIDMappings, l.GIDMappings)
	if err == nil && (uint32(ns.MapToKUID(0)) == auth.NoID || uint32(ns.MapToKGID(0)) == auth.NoID) {
		err = errors.New("0 is not mapped")
	}
	if err != nil {
		return nil, fmt.Errorf("linux.uidMappings, linux.gidMappings: %w", err)
	}
	return ns, nil
}

// mappings is a user namespace with these maps; without any, each ID is itself.
func mappings(uids, gids []specs.LinuxIDMapping) (*auth.UserNamespace, error) {
	ns := auth.NewRootNamespace()
	if len(uids)+len(gids) == 0 {
		return ns, nil
	}
	host := auth.NewRoot(ns)
	ns, err := host.NewChild()
	for i, list := range [][]specs.LinuxIDMapping{uids, gids} {
		m := []auth.IDMapEntry{}
		for _, e := range list {
			m = append(m, auth.IDMapEntry{First: e.ContainerID, Parent: e.HostID, Length: e.Size})
		}
		if err == nil {
			err = ns.SetIDMap(i == 0, m, host)
		}
		if err != nil {
			return nil, fmt.Errorf("%v is not a map of IDs (%w)", list, err)
		}
	}
	return ns, nil
}

func (b *sandbox) registerFileSystems(c *Config, host *Host) error {
	tmpfs.Register(b.mem)
	if _, err := proc.NewInstances(b.k, proc.Options{CPUInfo: host.CPUInfo, Cmdline: host.Cmdline, Net: inet.ProcNet(),
		Sysctl: inet.Sysctl}); err != nil {
		return fmt.Errorf("procfs: %w", err)
	}
	sys.Register(b.k, netDevs)
	pipe.Register()
	devpts.Register(b.k)
	mqueue.Register(b.k)
	cgroup.Register(b.k)
	return dev.Register(b.mem)
}

// wait returns the first container's status once every process is gone.
func (b *sandbox) wait() ExitStatus {
	<-b.k.Done()
	b.k.Kill()
	b.k.Wait()
	b.log.Debug("gofer", "requests", b.first.gofer.Requests.Load(), "operations", b.first.gofer.Counts())
	if p, ok := b.k.Platform().(platform.Counter); ok {
		b.log.Debug("platform", "name", b.k.Platform().Name(), "counts", p.Counts())
	}
	return b.first.init.wait()
}

func exitStatus(ws linux.WaitStatus) ExitStatus {
	if ws.Signaled() {
		return ExitStatus{Signal: int(ws.TerminationSignal())}
	}
	return ExitStatus{Code: int(ws.ExitStatus())}
}

func (b *sandbox) hooks(standalone bool) kernel.Hooks {
	h := kernel.Hooks{ExitRobust: syscalls.ExitRobust, FutexWake: syscalls.FutexWake, NewGroupTimers: syscalls.NewGroupTimers, NewNetStack: inet.NewNamespace}
	if standalone {
		h.InitOOM = b.initOOM
	}
	return h
}
