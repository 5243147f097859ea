package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"moat/sentry/boot"
	"moat/sentry/boot/rpc"
)

// CreateOptions are `moat create`'s.
type CreateOptions struct {
	// Root is the directory of all containers' directories.
	Root string
	// PIDFile gets the number of the process to wait for; ConsoleSocket the master of the terminal.
	PIDFile, ConsoleSocket string
	// PIDFDSocket gets a descriptor of that process.
	PIDFDSocket string
	// Systemd: cgroupsPath is SLICE:PREFIX:NAME.
	Systemd bool
	// start: the first process is to run at once.
	start bool
}

// Create makes a container: everything but that its first process runs. The calling goroutine is the main one.
// On error nothing is left behind. The Container that it returns is locked; the Sandbox is its processes, children of this one.
func Create(o *Options, co *CreateOptions) (_ *Container, _ *Sandbox, err error) {
	if err := os.MkdirAll(co.Root, 0o711); err != nil {
		return nil, nil, err
	}
	c := &Container{dir: filepath.Join(co.Root, o.ID), State: State{ID: o.ID, Sandbox: o.sandbox, Bundle: o.Bundle, Rootfs: o.rootfs(), Created: time.Now().UTC(), UID: os.Getuid(),
		Spec: o.Spec, Process: &o.Config.First}}
	if err := os.Mkdir(c.dir, 0o700); err != nil {
		if errors.Is(err, os.ErrExist) {
			err = fmt.Errorf("container with given ID already exists: %s", o.ID)
		}
		return nil, nil, err
	}
	if err := c.acquire(); err != nil {
		return nil, nil, err
	}
	// A container is on all CPUs, or its cpuset's, whichever its creator may use.
	var all unix.CPUSet
	all.Fill()
	_ = unix.SchedSetaffinity(0, &all) // else it is on its creator's
	var s *Sandbox
	defer func() {
		if err != nil {
			if s != nil {
				s.Close()
			}
			if e := c.destroy(); e != nil {
				o.warn("%v", e)
			}
			c.Unlock()
		}
	}()
	if err := c.prepare(o, co); err != nil {
		return nil, nil, err
	}
	if s, err = c.launch(o, co); err != nil {
		return nil, nil, err
	}
	if err := c.build(o, s); err != nil {
		return nil, nil, err
	}
	if co.PIDFile != "" {
		if err := WritePIDFile(co.PIDFile, c.Init.PID); err != nil {
			return nil, nil, err
		}
	}
	if err := sendPIDFD(co.PIDFDSocket, c.Init.PID); err != nil {
		return nil, nil, err
	}
	c.Ready = true
	if !co.start {
		if err := c.save(); err != nil {
			return nil, nil, err
		}
		return c, s, s.detach()
	}
	c.starter = s.client
	if err := c.begin(s.detach); err != nil {
		return nil, nil, err
	}
	return c, s, nil
}

// detach lets the container live on when this process ends.
func (s *Sandbox) detach() error {
	if s.orders != nil {
		return s.orders.send(true)
	}
	return s.client.Call("Detach", &boot.None{}, &boot.None{})
}

// prepare finds out what will be needed on the host.
func (c *Container) prepare(o *Options, co *CreateOptions) error {
	p := cgroupPath(o.Spec, o.ID, co.Systemd)
	if p != "" {
		if err := checkUnused(p); err != nil {
			return fmt.Errorf("cgroup %s: %w", p, err)
		}
	}
	c.Cgroup = p
	return nil
}

// launch starts the container's processes, and makes their cgroup while they come up. Both are written down before that one is there, so that Delete finds
// it; the processes alone would end with this one.
func (c *Container) launch(o *Options, co *CreateOptions) (_ *Sandbox, err error) {
	o.Config.Standalone, o.dir = true, c.dir
	if c.Sandbox != "" {
		if err := c.share(o); err != nil {
			return nil, err
		}
	}
	if c.Sandbox != "" {
		if err := os.Symlink(filepath.Join("..", c.Sandbox, socketFile), filepath.Join(c.dir, socketFile)); err != nil {
			return nil, err
		}
	} else {
		if o.listen, err = listenAt(c.dir); err != nil {
			return nil, err
		}
		defer o.listen.Close()
	}
	if o.exit, err = os.OpenFile(filepath.Join(c.dir, exitFile), os.O_CREATE|os.O_WRONLY, 0o600); err != nil {
		return nil, err
	}
	defer o.exit.Close()
	if o.Config.First.Terminal && co.ConsoleSocket != "" {
		slave, err := openConsole(&o.Config.First, co.ConsoleSocket)
		if err != nil {
			return nil, err
		}
		defer slave.Close()
		o.Stdio = [3]*os.File{slave, slave, slave}
		o.Config.Console = true
	}
	start := launch
	if c.Sandbox != "" {
		start = c.launchKeeper
	}
	s, err := start(o)
	if err != nil {
		return nil, err
	}
	c.Init, c.Gofer = newHostProcess(s.sentry.cmd.Process.Pid), newHostProcess(s.gofer.cmd.Process.Pid)
	if err = c.save(); err == nil && c.Cgroup != "" {
		err = c.enterGroup(o)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// enterGroup makes the cgroup and puts the processes into it.
func (c *Container) enterGroup(o *Options) error {
	var r *specs.LinuxResources
	if l := o.Spec.Linux; l != nil {
		r = c.onHost(l.Resources)
	}
	g, err := newGroup(c.Cgroup, r)
	if mayIgnore(err) {
		o.warn("no cgroup: %v", err)
		c.Cgroup = ""
		return nil
	}
	if err != nil {
		return err
	}
	for _, p := range []hostProcess{c.Init, c.Gofer} {
		// One that has ended by now has said why, or its end will.
		if err := g.add(p.PID); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("cgroup %s: %w", c.Cgroup, err)
		}
	}
	if c.Sandbox == "" {
		o.counts = memoryCounts(c.Cgroup)
	}
	return nil
}

// build runs the hooks that come before the container's files, and has the sandbox built.
func (c *Container) build(o *Options, s *Sandbox) error {
	h := c.hooksOf()
	//lint:ignore SA1019 runtimes still have to run them, and Docker uses them
	prestart := h.Prestart
	if err := c.runHooks("prestart", prestart, Creating); err != nil {
		return err
	}
	if err := c.runHooks("createRuntime", h.CreateRuntime, Creating); err != nil {
		return err
	}
	if len(h.CreateContainer) > 0 {
		err := inNetwork(c.Init.PID, func() error { return c.runHooks("createContainer", h.CreateContainer, Creating) })
		if err != nil {
			return err
		}
	}
	return s.create(o)
}

// rootfs is the container's root on the host.
func (o *Options) rootfs() string {
	if len(o.gofer) == 0 {
		return ""
	}
	return o.gofer[0].Source
}

// WritePIDFile makes path a file with a number in it, whole or not at all.
func WritePIDFile(path string, pid int) error {
	return writeAtomic(path, fmt.Appendf(nil, "%d", pid), 0o644)
}

// Start starts the container's first process. The container is locked.
func (c *Container) Start() error {
	switch st := c.Status(); st {
	case Created:
	case Stopped:
		return errors.New("cannot start a container that has stopped")
	default:
		if !c.Started && st == Running {
			break // a Start that was interrupted
		}
		return errors.New("cannot start an already running container")
	}
	return c.begin(func() error { return nil })
}

// begin starts the first process, writes that down, and calls detach before the hooks that come then.
func (c *Container) begin(detach func() error) error {
	h := c.hooksOf()
	a := &boot.StartArgs{ID: c.ID, Hooks: h.StartContainer}
	if len(a.Hooks) > 0 {
		var err error
		if a.State, err = c.stateJSON(Created); err != nil {
			return err
		}
	}
	var r boot.StartReply
	err := c.Call("Start", a, &r)
	if err == nil {
		err = replyError(&r)
	}
	if err != nil {
		c.Init.signal(unix.SIGKILL)
		return err
	}
	c.Started = true
	if err := c.save(); err != nil {
		return err
	}
	if err := c.known(detach()); err != nil && err != ErrNotRunning { // it may have ended by now
		return err
	}
	if err := c.runHooks("poststart", h.Poststart, Running); err != nil {
		c.Init.signal(unix.SIGKILL)
		return err
	}
	return nil
}

// Kill sends a signal to the container's first process, or to all of its processes.
func (c *Container) Kill(sig unix.Signal, all bool) error {
	args := &boot.SignalArgs{ID: c.ID, Signal: int(sig), All: all}
	switch st := c.Status(); {
	case st == Stopped:
		if all {
			return nil
		}
		return ErrNotRunning
	case st == Paused && !c.inPod():
		if sig == unix.SIGKILL {
			if err := c.Init.signal(sig); err != nil {
				return err
			}
			return c.thaw()
		}
		return c.send("Signal", args)
	}
	err := c.Call("Signal", args, &boot.None{})
	var remote rpc.ServerError
	if err != nil && !errors.As(err, &remote) && c.Init.gone(time.Second) {
		return nil // that was the signal's doing
	}
	if err != nil && !errors.Is(err, ErrNotRunning) && sig == unix.SIGKILL && c.Init.alive() {
		// A sentry that does not listen is killed itself.
		return c.Init.signal(sig)
	}
	return err
}

// send does a request to a paused container, which gets it when it goes on.
func (c *Container) send(method string, args any) error {
	cl, err := c.Dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	cl.Go(method, args, &boot.None{})
	return nil
}

func (c *Container) thaw() error {
	g, err := loadGroup(c.Cgroup)
	if err != nil {
		return err
	}
	return g.freeze(false)
}

// Pause stops every process of the sandbox, Resume lets them go on. The container is locked.
func (c *Container) Pause() error {
	if st := c.Status(); st != Running && st != Created {
		return fmt.Errorf("container not running or created: %s", st)
	}
	if c.inPod() {
		return c.Call("Freeze", &boot.FreezeArgs{ID: c.ID, On: true}, &boot.None{})
	}
	g, err := loadGroup(c.Cgroup)
	if err != nil {
		return fmt.Errorf("pause needs a cgroup: %w", err)
	}
	return g.freeze(true)
}

// Resume undoes Pause.
func (c *Container) Resume() error {
	if st := c.Status(); st != Paused {
		return errors.New("container not paused")
	}
	if c.inPod() {
		return c.Call("Freeze", &boot.FreezeArgs{ID: c.ID}, &boot.None{})
	}
	return c.thaw()
}

// Delete removes a container that has stopped, or with force any. The container is locked. It can be done again when it was interrupted.
func (c *Container) Delete(force bool) error {
	switch st := c.Status(); st {
	case Stopped:
	case Created:
		force = true
		fallthrough
	default:
		if !force {
			return fmt.Errorf("cannot delete container %s that is not stopped: %s", c.ID, st)
		}
	}
	return c.destroy()
}

// longest is how long a killed process may take to end.
const longest = 10 * time.Second

// destroy ends whatever is left of a container and removes it.
func (c *Container) destroy() error {
	if err := c.endAll(); err != nil {
		return err
	}
	if c.Cgroup != "" {
		if g, err := loadGroup(c.Cgroup); err == nil {
			if err := g.remove(); err != nil {
				return err
			}
		}
	}
	var err error
	if c.Ready {
		// What these say does not keep the container from being gone.
		err = c.runHooks("poststop", c.hooksOf().Poststop, Stopped)
	}
	if e := os.RemoveAll(c.dir); e != nil {
		return e
	}
	if err != nil {
		return &Warning{err.Error()}
	}
	return nil
}

// Warning is an error that is only to be logged.
type Warning struct{ Text string }

func (w *Warning) Error() string { return w.Text }

// Update changes the limits. The container is locked.
func (c *Container) Update(r *specs.LinuxResources) error {
	st := c.Status()
	if st == Stopped {
		return ErrNotRunning
	}
	g, err := loadGroup(c.Cgroup)
	if err != nil {
		return err
	}
	if err := g.update(c.onHost(r)); err != nil {
		return err
	}
	a := &boot.UpdateArgs{ID: c.ID, Resources: r}
	if st == Paused && !c.inPod() {
		err = c.send("Update", a)
	} else {
		err = c.Call("Update", a, &boot.None{})
	}
	if err != nil {
		return err
	}
	if c.Spec.Linux == nil {
		c.Spec.Linux = &specs.Linux{}
	}
	c.Spec.Linux.Resources = mergeResources(c.Spec.Linux.Resources, r)
	return c.save()
}
