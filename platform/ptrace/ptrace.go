// Package ptrace is the platform that runs anywhere, and the reference: guest threads are host threads of a stub
// (package stub), traced with PTRACE_SYSEMU by the OS thread of the goroutine that made them, for their whole life.
//
// Locks: thread.mu guards the thread's life against Interrupt.
package ptrace

import (
	"golang.org/x/sys/unix"

	"moat/platform"
	"moat/platform/stub"
)

// GuestRules is the filter of guest threads. PTRACE_SYSEMU stops guest code's calls before it; exit is made by the
// entry code after the thread was let go.
func GuestRules() []stub.Rule {
	return []stub.Rule{
		{Nr: unix.SYS_EXIT, Name: "exit", Entry: true, Why: "a guest thread ends"},
		{Nr: unix.SYS_PAUSE, Name: "pause", Entry: true, Why: "a new guest thread waits for its tracer"},
	}
}

// New starts the platform: it forks the first stub, so it must be called before the sentry's filter forbids that.
func New() (platform.Platform, error) {
	return stub.New(stub.Config{Name: "ptrace", Guest: GuestRules(), NewThread: newThread})
}
