// Package trap is the fast platform: guest threads run natively in stubs (package stub), and what they call is caught by seccomp.
//
// # A system call
//
// The guest thread's filter traps every call that is not made by the entry code. The host then delivers SIGSYS, whose handler in the entry
// code runs on the thread's Area: memory shared with the sentry. The frame that the host laid there holds all registers and the extended
// state. The handler sets StateEvent and waits; the sentry reads the frame, answers by writing registers into it, sets StateRun, and
// the handler returns through rt_sigreturn(2). Faults and other synchronous signals come the same way, and an Interrupt is a SIGUSR2.
//
// # A rewritten system call
//
// The trap and the way back cost some 3 us, so the code of files that are mapped for execution is rewritten where it makes calls often (rewrite.go). Such a
// call jumps through a slot in the window (slots.go) to callCode, which stores the registers in the area by itself, without a signal; the
// extended state stays where it is. The sentry answers by writing registers there. What that way cannot do, because it needs the extended
// state or a GS base of the guest's, is done in a frame: StateFrame makes the thread trap.
//
// Both sides look at the state for a short while before they sleep by futex, as long as there is a CPU for each.
//
// # Trust
//
// A guest can write its areas and jump into the entry code. From there it can call futex, rt_sigreturn and exit, on itself. The sentry
// reads the frame's place from the area and checks that it lies on the signal stack; it copies registers out and takes them for what they
// are, a guest's.
//
// Locks: thread.mu guards the thread's life against Interrupt.
package trap

import (
	"runtime"

	"golang.org/x/sys/unix"

	"moat/platform"
	"moat/platform/stub"
)

// GuestRules is the filter of guest threads.
func GuestRules() []stub.Rule {
	return []stub.Rule{
		{Nr: unix.SYS_RT_SIGRETURN, Name: "rt_sigreturn", Entry: true, Why: "go on in guest code"},
		{Nr: unix.SYS_FUTEX, Name: "futex", Entry: true, Why: "hand over to the sentry and wait for it"},
		{Nr: unix.SYS_EXIT, Name: "exit", Entry: true, Why: "a guest thread ends"},
	}
}

// Platform implements platform.Platform and platform.Rewriter.
type Platform struct {
	*stub.Host
	slots *slots
}

// New starts the platform: it forks the first stub, so it must be called before the sentry's filter forbids that.
func New() (platform.Platform, error) {
	ncpu = int32(min(runtime.NumCPU(), len(pairs)))
	p := &Platform{}
	var err error
	if p.Host, err = stub.New(stub.Config{Name: "trap", Guest: GuestRules(), Handlers: true, NewThread: p.newThread}); err != nil {
		return nil, err
	}
	p.slots = newSlots(p.Window())
	return p, nil
}

// NewText implements platform.Rewriter.
func (p *Platform) NewText() (int, bool) { return p.slots.newText() }

// FreeText implements platform.Rewriter.
func (p *Platform) FreeText(text int) { p.slots.freeText(text) }
