// Package platform is the small interface behind which the machines that run guest code stand.
//
// Nothing above it asks which machine runs, and it knows nothing of the sentry. An AddressSpace is the host side of
// one guest address space; a Thread is the host side of one guest thread, for its whole life. Every page that a guest
// sees is a page of a host file (the sandbox's memory file, or a file handed over by the gofer) named by a descriptor
// of the sentry's own table.
package platform

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
)

// Regs are a guest thread's general registers, with orig_rax, fs_base and gs_base: Linux's struct user_regs_struct.
type Regs = unix.PtraceRegs

// Platform makes address spaces.
type Platform interface {
	// Name is the platform's name on the command line: "ptrace", "trap", "kvm".
	Name() string

	// UserRange is the range of addresses that a guest may map.
	// Everything outside it belongs to the platform: an AddressSpace refuses to change it.
	UserRange() hostarch.AddrRange

	// Reserved is a range within UserRange that guests may not map after all; empty if there is none.
	Reserved() hostarch.AddrRange

	// NewAddressSpace returns an address space with nothing mapped in UserRange. It may come from a warm pool.
	NewAddressSpace() (AddressSpace, error)

	// Close ends every stub. No AddressSpace may be used afterwards.
	Close()
}

// Rewriter is implemented by a Platform that lets system calls of known code enter it without a trap. Such code is a text: a file mapped
// private for execution, wherever in however many address spaces.
type Rewriter interface {
	// NewText returns a number for a text; false if there are none left. FreeText takes it back once no address space can run its rewritten code.
	NewText() (text int, ok bool)
	FreeText(text int)

	// Rewrite changes the system call instruction at page[at:], or instructions around it that lie within page, so that it traps no more where the text's
	// base is told to the address space. page is from offset off of the text. It returns the bytes that it changed, [from, to); false if it
	// cannot be done without a change that a guest could notice otherwise than by reading it.
	Rewrite(text int, page []byte, off uint64, at int) (from, to int, ok bool)
}

// Watcher is implemented by a Platform whose address spaces can end by other things than Release: somebody kills a host process of theirs.
type Watcher interface {
	// Watch makes gone be called, once, for each address space that has ended so, on a goroutine of its own and whether or not a thread of it runs. gone(nil)
	// says that no address spaces can be made any more.
	Watch(gone func(AddressSpace))
}

// Attender is implemented by a Platform whose goroutines look for what guests do: who looks anyway can look after a descriptor, too, which costs no wake.
type Attender interface {
	// Attend has poll called, by one goroutine at a time, when fd may have something to read. poll takes some of it without waiting and says whether there
	// was any. flush, which may be called by several at once, sends what was held back while Looks. fd stays open. Attend is called before there are address spaces.
	Attend(fd int, poll func() bool, flush func())
	// Looks reports whether flush is called within microseconds: what was held back before that needs nobody else.
	Looks() bool
	// Leave says that a program to which frames were sent has run on the caller's CPU, in place of it.
	Leave()
}

// Keeper is implemented by a Platform that can keep an address space, with what is mapped in it, for one that is to have nearly the same: a fork of the same parent.
type Keeper interface {
	// Keep is AddressSpace.Release, but that what is mapped or queued stays, so that files stay open that are. It returns a number for Reclaim or Discard; 0 if the space was
	// released after all.
	Keep(as AddressSpace) (ticket uint64)
	// Reclaim returns what was kept, for which the caller maps and unmaps what is to be different. It is nil if it is not ready yet, or gone for good: the platform
	// keeps few, and not for long.
	Reclaim(ticket uint64) (as AddressSpace, gone bool)
	// Discard releases what was kept.
	Discard(ticket uint64)
}

// Counter is implemented by a Platform that counts what it does.
type Counter interface {
	// Counts is a line for the log.
	Counts() string
}

// AddressSpace is the host side of one guest address space.
//
// Map, Unmap and Protect are queued; they take effect, in order and in one batch, before the next Thread.Run of any
// thread of the space executes guest code, or at Flush. They are safe for concurrent use with each other and with
// running threads. An operation that the host refuses for want of memory or map entries (ENOMEM) surfaces from Flush
// or from Thread.Run as an error; the caller then kills the guest process, never the sandbox.
type AddressSpace interface {
	// Map maps ar to the file fd from offset off with protection at (MAP_SHARED|MAP_FIXED), replacing what was there.
	// at never holds Execute for a range that the guest has not mapped executable. fd must stay open until the
	// mapping has been flushed. ar and off are page-aligned; ar lies within UserRange.
	Map(ar hostarch.AddrRange, fd int, off uint64, at hostarch.AccessType)

	// Populate says of ar, which was just mapped, that the guest is about to write to all of it: its pages may be made at once. A hint.
	Populate(ar hostarch.AddrRange)

	// Unmap removes every mapping in ar. Later accesses there fault.
	Unmap(ar hostarch.AddrRange)

	// Protect changes the protection of what is mapped in ar; holes are allowed and left alone.
	Protect(ar hostarch.AddrRange, at hostarch.AccessType)

	// Flush carries out what is queued and returns when it is in force in every thread. Settled reports that there is nothing to do for it.
	Flush() error
	Settled() bool

	// SetText says that the text, a number from Rewriter.NewText, is mapped so that its byte 0 is, or would be, at base. At once.
	SetText(text int, base hostarch.Addr)

	// SetName has host tools like ps(1) show the beginning of name, a command line. It is queued, too.
	SetName(name string)

	// NewThread makes a host thread in the space for one guest thread. It starts with initial FPU state.
	NewThread() (Thread, error)

	// Release frees the space after all its threads were released. Idempotent.
	Release()
}

// Thread is the host side of one guest thread. All but Interrupt and Clock are called by one goroutine, which
// also made it (AddressSpace.NewThread). A platform that needs it on one OS thread locks it to that until Release.
type Thread interface {
	// Run loads regs, executes guest code until something happens, and stores the registers back in regs.
	// For EventSyscall regs.Orig_rax is the call's number, regs.Rip is behind the syscall instruction, and regs.Rax
	// is -ENOSYS, as Linux shows it to a tracer. For the other events Orig_rax is ^0.
	// regs are not trusted: a register state that the host would refuse (bad segment, non-canonical base) must be
	// reported as an EventFault or EventSignal, never as an error.
	// An error means that the stub is gone or broken (killed from outside, host out of memory): the guest process
	// cannot go on. The error says what happened to the stub.
	Run(regs *Regs) (Event, error)

	// Interrupt makes the Run in progress, or if there is none the next one, return EventInterrupted soon. It may be
	// called from any goroutine, at any time, also after Release.
	Interrupt()

	// FPState returns the thread's extended state in the standard (non-compacted) XSAVE layout, as in a Linux signal
	// frame. The slice is valid until the next call of any method.
	FPState() ([]byte, error)

	// SetFPState replaces the extended state; nil resets it to the initial state. Garbage is sanitised (reserved
	// bits, MXCSR mask) as Linux's sigreturn does, or refused with EINVAL.
	SetFPState(b []byte) error

	// Clock tells how long guest code of this thread has run, and the sentry for it.
	Clock() *Stopwatch

	// Park says that the thread will not be run soon: its call waits for something. It need not be told of the next Run.
	Park()

	// SetIdentity publishes, between runs, what calls answered in place may answer. A platform that answers none ignores it.
	SetIdentity(id Identity)

	// Signals are the words that calls answered in place may change; nil on a platform that answers none. They are the thread's until Release.
	Signals() *SignalWords

	// Release ends the host thread. Idempotent.
	Release()
}

// SignalWords are a guest thread's signal mask and whether a change of it must be told. The guest may write them at any time: they fool it alone.
type SignalWords struct {
	// Mask is the set of blocked signals, which the guest may change in place while Pending is 0.
	Mask atomic.Uint64
	// Pending is not 0 while a signal is pending for the thread or its process. Who sets it looks at Mask afterwards; the guest that changes Mask looks at Pending
	// afterwards and, if it is set, undoes the change and makes the call.
	Pending atomic.Uint32
	_       uint32
	Actions SignalActions
}

// SignalActions are what signals do to a process.
type SignalActions struct {
	// Lent is not 0 while the guest may change Of in place, if Pending is 0.
	Lent atomic.Uint32
	_    uint32
	Of   [64]SignalAction
}

// SignalAction is the kernel's struct sigaction: handler, flags, restorer and mask.
type SignalAction [4]atomic.Uint64

// Set changes a; who reads it meanwhile may find some of both.
func (a *SignalAction) Set(v [4]uint64) {
	for i := range a {
		if a[i].Load() != v[i] {
			a[i].Store(v[i])
		}
	}
}

// Identity is what a guest thread may learn of itself without a hand-over.
type Identity struct {
	PID, TID, PPID       int32
	UID, EUID, GID, EGID uint32
	CPU                  uint32 // what getcpu(2) says
	// Valid is false when nothing may be answered in place (the thread is traced, filtered or straced).
	Valid bool
	// Sleeps is how long a sleep may be that is made in place. The thread says how long it slept, so this must be 0 where its CPU time is held to a limit.
	Sleeps time.Duration
}

// EventKind says why Thread.Run returned.
type EventKind uint8

const (
	// EventSyscall: the guest executed a syscall instruction.
	EventSyscall EventKind = iota
	// EventFault: a memory access faulted (SIGSEGV or SIGBUS of the stub). Addr and Access say where and how.
	EventFault
	// EventSignal: guest code raised a synchronous signal other than a page fault (SIGFPE, SIGILL, SIGTRAP, or
	// SIGSEGV without an address: a general-protection fault). Signal, Code and Addr are the siginfo's.
	EventSignal
	// EventInterrupted: Interrupt was called.
	EventInterrupted
)

// Event is what ended a Thread.Run.
type Event struct {
	Kind   EventKind
	Signal unix.Signal
	// Code is si_code.
	Code int32
	// Addr is the fault address, or si_addr.
	Addr hostarch.Addr
	// Access is the kind of access that faulted; all false where the platform cannot tell.
	Access hostarch.AccessType
	// Trapped says of a system call that its instruction, the two bytes before Rip, could be rewritten (Rewriter).
	Trapped bool
}
