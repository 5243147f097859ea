package boot

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"

	"moat/sentry/fs/gofer"
	"moat/sentry/kernel"
	"moat/sentry/vfs"
)

// container is one of those that share the sandbox: files, namespaces, a control group and a first process of its own.
type container struct {
	*sandbox
	c     *Config
	ns    *kernel.Namespaces
	cg    *kernel.Cgroup
	gofer *gofer.Client
	init  *process

	startMu sync.Mutex // held for the length of a start
	started bool       // +checklocks:startMu

	// ending is held for reading by who makes a process, and then over is not set.
	ending sync.RWMutex
	over   bool // +checklocks:ending
	// made: add is done with it.
	made bool // +checklocks:ending
	// status is what ended says, if it is not 0: how a container ended whose process never ran, or what was lost.
	status ExitStatus    // +checklocks:ending
	done   chan struct{} // of a container of add: closed when it has ended and released everything
}

// errNotRunning is what the command line calls a container that has ended.
var errNotRunning = errors.New("container not running")

// fill makes the container's files and its first process, from init.files and gofer.
func (b *container) fill() error {
	if err := b.mountAll(); err != nil {
		return err
	}
	if err := b.applySpec(); err != nil {
		return err
	}
	if err := b.prepare(b.init, &b.c.First, !b.c.Plain); err != nil {
		return err
	}
	if err := b.finishDev(); err != nil {
		return fmt.Errorf("make /dev read-only: %w", err)
	}
	return nil
}

// inside is ctx in the container's namespaces.
func (b *container) inside(ctx vfs.Context) kernel.Inside {
	return kernel.Inside{Context: ctx, NS: b.ns, Group: b.cg}
}

// find is the container of an ID.
func (s *sandbox) find(id string) (*container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.containers[id]; b != nil {
		return b, nil
	}
	return nil, errNotRunning
}

// newContainer is a container for add.
func (s *sandbox) newContainer(c *Config) (*container, error) {
	a, err := s.mem.NewAccount()
	if err != nil {
		return nil, fmt.Errorf("too many containers in the sandbox: %w", err)
	}
	return &container{sandbox: s, c: c, cg: s.k.NewCgroup(a), init: &process{}, done: make(chan struct{})}, nil
}

// add makes b, from descriptors that it owns: the gofer's socket, those of the first process, and the links'.
func (s *sandbox) add(b *container, fds []int) (err error) {
	links := fds[4+b.c.First.Extra:]
	if b.init.files, err = s.host.openAll(fds[1:4+b.c.First.Extra], false); err == nil {
		err = s.enter(b)
	}
	if err != nil {
		unix.Close(fds[0])
	} else if b.gofer, err = gofer.NewClient(fds[0], b.lose); err != nil {
		unix.Close(fds[0])
	}
	if err == nil {
		err = b.share()
	}
	if err != nil {
		closeFDs(links)
	} else {
		err = b.link(links)
	}
	if err == nil {
		b.limit(b.c.Spec.Resources)
		err = b.fill()
	}
	b.ending.Lock()
	if err == nil && b.over {
		err = errNotRunning
	}
	b.over, b.made = b.over || err != nil, true
	b.ending.Unlock()
	switch {
	case err == nil:
	case b.init.tg != nil:
		b.kill()
	default:
		closeAll(b.init.files)
		b.release()
	}
	return err
}

// enter puts b among the containers, when one of its ID that is at its end has gone.
func (s *sandbox) enter(b *container) error {
	for {
		s.mu.Lock()
		o := s.containers[b.c.ID]
		if o == nil {
			s.containers[b.c.ID] = b
		}
		s.mu.Unlock()
		switch {
		case o == nil:
			return nil
		case o.done == nil || !o.isOver():
			return fmt.Errorf("the sandbox has a container %q already", b.c.ID)
		}
		<-o.done
	}
}

func (b *container) isOver() bool {
	b.ending.RLock()
	defer b.ending.RUnlock()
	return b.over
}

// share gives b its namespaces: those of others that the configuration names, and its own but for the network.
func (b *container) share() (err error) {
	spec := &b.c.Spec
	if f := &b.first.c.Spec; !slices.Equal(spec.UIDMappings, f.UIDMappings) || !slices.Equal(spec.GIDMappings, f.GIDMappings) {
		return errors.New("linux.uidMappings, linux.gidMappings: all containers of a pod have its sandbox's")
	}
	if b.ns, err = b.k.NewContainer(spec.Hostname, spec.Domainname, b.cg); err != nil {
		return err
	}
	for kind, id := range b.c.Share {
		o, err := b.find(id)
		if err != nil {
			return fmt.Errorf("share the %s namespace of container %s: %w", kind, id, err)
		}
		switch kind {
		case specs.PIDNamespace:
			b.ns.PIDForChildren = o.ns.PIDForChildren
		case specs.UTSNamespace:
			b.ns.UTS = o.ns.UTS
		case specs.IPCNamespace:
			b.ns.IPC = o.ns.IPC
		case specs.NetworkNamespace:
			b.ns.Net = o.ns.Net
		}
	}
	return nil
}

// lose ends a container whose gofer is gone.
func (b *container) lose(err error) {
	b.log.Error("container ended", "id", b.c.ID, "error", err)
	b.end(ExitStatus{Signal: int(linux.SIGKILL), Lost: err.Error()})
}

// end kills the container. If its first process is not what it ends by, how says how.
func (b *container) end(how ExitStatus) {
	b.ending.Lock()
	if b.status == (ExitStatus{}) {
		b.status = how
	}
	alive := b.made && !b.over
	b.over = true
	b.ending.Unlock()
	if alive {
		b.kill()
	}
}

// kill kills the first process, and hooks. One that does not run yet is told when it begins to.
func (b *container) kill() {
	for _, tg := range b.k.Members(b.cg) {
		_ = tg.Deliver(linux.SIGKILL, false) // ESRCH: it has ended
	}
	b.startMu.Lock()
	defer b.startMu.Unlock()
	if !b.started {
		b.started = true
		b.run()
	}
}

// run lets the first process run, and in the case of a container of add takes care of its end. Preconditions: startMu is held.
func (b *container) run() {
	b.init.run()
	if b.done != nil {
		go b.attend()
	}
}

// attend waits for the first process' end, which takes with it whoever is left of the container.
func (b *container) attend() {
	<-b.init.tg.Done()
	b.ending.Lock()
	b.over = true
	b.ending.Unlock()
	b.k.KillAll(b.cg)
	st := b.init.wait()
	b.ending.Lock()
	if b.status == (ExitStatus{}) {
		b.status = st
	}
	b.ending.Unlock()
	b.release()
}

// release gives up what a container of add without processes has.
func (b *container) release() {
	b.mu.Lock()
	if b.containers[b.c.ID] == b {
		delete(b.containers, b.c.ID)
	}
	b.mu.Unlock()
	if b.ns != nil && b.ns.Mount != nil {
		b.ns.Mount.DecRef()
	}
	if b.gofer != nil {
		// A gofer that does not answer must not keep anybody waiting.
		go b.gofer.Close()
	}
	b.unlink()
	b.k.EndCgroups(b.cg)
	close(b.done)
}

// ended waits for the end of a container of add, and says how it ended.
func (b *container) ended() ExitStatus {
	<-b.done
	b.ending.RLock()
	defer b.ending.RUnlock()
	return b.status
}

// start runs the hooks in the container and then the first process; false if that was done before.
func (b *container) start(a *StartArgs) (bool, error) {
	b.startMu.Lock()
	defer b.startMu.Unlock()
	if b.started {
		return false, nil
	}
	for i := range a.Hooks {
		if err := b.runHook(&a.Hooks[i], a.State); err != nil {
			return false, fmt.Errorf("error running startContainer hook #%d: %w", i, err)
		}
	}
	b.started = true
	b.run()
	return true, nil
}

func (b *container) hasStarted() bool {
	b.startMu.Lock()
	defer b.startMu.Unlock()
	return b.started
}

// signal sends a signal from outside. A container that was created and not started ends by any that would end its first process.
func (b *container) signal(a *SignalArgs) error {
	sig := linux.Signal(a.Signal)
	if sig == 0 {
		return nil
	}
	if !sig.IsValid() {
		return unix.EINVAL
	}
	gofer.Doubt()
	if !b.hasStarted() && a.PID == 0 {
		switch sig {
		case linux.SIGCHLD, linux.SIGCONT, linux.SIGURG, linux.SIGWINCH, linux.SIGSTOP, linux.SIGTSTP, linux.SIGTTIN, linux.SIGTTOU:
			return nil
		}
		st := ExitStatus{Signal: a.Signal}
		if b.done == nil {
			exit(st)
		}
		b.end(st)
		return nil
	}
	if a.All {
		for _, tg := range b.k.Members(b.cg) {
			_ = tg.Deliver(sig, false) // ESRCH: it has just ended
		}
		return nil
	}
	tg := b.init.tg
	if a.PID != 0 {
		tg = b.ns.PIDForChildren.ThreadGroup(a.PID)
	}
	if tg == nil || !tg.Leader().Cgroup().Below(b.cg) {
		return unix.ESRCH
	}
	return tg.Deliver(sig, a.Group)
}
