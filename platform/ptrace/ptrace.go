// Package ptrace is the platform that runs anywhere, and the reference: guest threads are host threads of a stub
// (package stub), traced with PTRACE_SYSEMU by the OS thread of the goroutine that made them, for their whole life.
// Syscall User Dispatch, which holds guest threads without a tracer too, comes before PTRACE_SYSEMU: most calls stop the thread by the SIGSYS that it raises.
//
// Locks: thread.mu guards the thread's life against Interrupt. Platform.mu is a leaf.
package ptrace

import (
	"fmt"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"

	"moat/platform"
	"moat/platform/stub"
)

// GuestRules are the calls of the host that guest threads may make while no tracer stops them: before they are seized and after they were let go.
func GuestRules() []stub.Rule {
	return []stub.Rule{
		{Nr: unix.SYS_EXIT, Name: "exit", Why: "a guest thread ends"},
		{Nr: unix.SYS_PAUSE, Name: "pause", Why: "a new guest thread waits for its tracer"},
	}
}

// Platform implements platform.Platform and platform.Watcher.
type Platform struct {
	*stub.Host
	deaths chan os.Signal

	mu sync.Mutex
	// threads are those that have not been released.
	// +checklocks:mu
	threads map[*thread]struct{}
}

// New starts the platform: it forks the first stub, so it must be called before the sentry's filter forbids that.
func New() (platform.Platform, error) {
	p := &Platform{threads: map[*thread]struct{}{}, deaths: make(chan os.Signal, 1)}
	var err error
	if p.Host, err = stub.New(stub.Config{Name: "ptrace", Guest: GuestRules(), NewThread: p.newThread}); err != nil {
		return nil, err
	}
	// A guest thread that dies while its task is at work in the sentry stays a zombie, and its process with it, until its tracer looks. The host
	// tells of it by SIGCHLD. It would tell of each stop, too, but for SA_NOCLDSTOP.
	signal.Notify(p.deaths, unix.SIGCHLD)
	if err := noChildStops(); err != nil {
		p.Close()
		return nil, fmt.Errorf("ptrace: rt_sigaction SIGCHLD: %w", err)
	}
	go func() {
		for range p.deaths {
			p.findDead()
		}
	}()
	return p, nil
}

// Close implements platform.Platform.
func (p *Platform) Close() {
	signal.Stop(p.deaths)
	close(p.deaths)
	p.Host.Close()
}

// findDead looks which guest threads were killed. That is rare: one that leaves is not traced by then.
func (p *Platform) findDead() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for t := range p.threads {
		if how, ok := stub.Ended(t.tid); ok {
			t.space.Died(how)
		}
	}
}
