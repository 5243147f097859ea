package boot

import (
	"fmt"
	"os"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"

	"moat/sentry/boot/filter"
	"moat/sentry/fs/dev"
	"moat/sentry/fs/devpts"
	"moat/sentry/fs/gofer"
	"moat/sentry/fs/pipe"
	"moat/sentry/fs/proc"
	"moat/sentry/fs/sys"
	"moat/sentry/fs/tmpfs"
	"moat/sentry/kernel"
	"moat/sentry/loader/vdso"
	"moat/sentry/memory"
	"moat/sentry/net/inet"
	"moat/syscalls"
)

// sandbox is what runs.
type sandbox struct {
	c     *Config
	k     *kernel.Kernel
	log   *zap.Logger
	mem   *memory.File
	gofer *gofer.Client
	init  *kernel.ThreadGroup
	stdio stdio
}

// build makes the sandbox that c describes and starts its first process.
func build(c *Config, host *Host) (*sandbox, error) {
	if c.Spec == nil || c.Spec.Process == nil || c.Spec.Root == nil || len(c.Spec.Process.Args) == 0 {
		return nil, fmt.Errorf("the configuration has no process.args or no root")
	}
	b := &sandbox{c: c, log: newLog(c.Debug)}
	if err := b.makeKernel(host); err != nil {
		return nil, err
	}
	if err := b.openStdio(); err != nil {
		return nil, err
	}
	if !c.Unsafe {
		if err := filter.Install(b.k.Platform().Name()); err != nil {
			return nil, err
		}
	}
	// From here on nothing of the host can be had any more, and the container's own things begin.
	var err error
	b.gofer, err = gofer.NewClient(GoferFD, func(err error) { die("%v", err) })
	if err != nil {
		return nil, err
	}
	if err := b.mountAll(); err != nil {
		return nil, err
	}
	if err := b.startInit(); err != nil {
		return nil, err
	}
	return b, nil
}

func (b *sandbox) makeKernel(host *Host) (err error) {
	c := b.c
	if b.mem, err = memory.New(-1, c.Memory); err != nil {
		return err
	}
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
	b.k, err = kernel.New(kernel.Config{
		Platform: plat, Memory: b.mem, Table: syscalls.NewTable(os.NewFile(LogFD, "log")), Log: b.log, VDSO: v,
		Hostname: hostname, Domainname: domain, Hooks: hooks(), NetStack: inet.New(inet.Config{LoopbackUp: true}), NumCPUs: host.CPUs, Strace: c.Strace,
	})
	if err != nil {
		return err
	}
	return b.registerFileSystems(host)
}

func (b *sandbox) registerFileSystems(host *Host) error {
	tmpfs.Register(b.mem)
	if _, err := proc.NewInstances(b.k, proc.Options{CPUInfo: host.CPUInfo, Cmdline: host.Cmdline}); err != nil {
		return fmt.Errorf("procfs: %w", err)
	}
	sys.Register(b.k)
	pipe.Register()
	devpts.Register(b.k)
	return dev.Register(b.mem)
}

// wait returns the first process' status once every process is gone.
func (b *sandbox) wait() ExitStatus {
	<-b.k.Done()
	b.k.Kill()
	b.k.Wait()
	b.stdio.drain()
	st := exitStatus(b.init.ExitStatus())
	st.Lost = b.init.Lost()
	return st
}

func exitStatus(ws linux.WaitStatus) ExitStatus {
	if ws.Signaled() {
		return ExitStatus{Signal: int(ws.TerminationSignal())}
	}
	return ExitStatus{Code: int(ws.ExitStatus())}
}

func (b *sandbox) signal(a *SignalArgs) error {
	sig := linux.Signal(a.Signal)
	if !sig.IsValid() {
		return unix.EINVAL
	}
	if !b.k.SendSignal(0, sig, a.Group) {
		return unix.ESRCH
	}
	return nil
}
