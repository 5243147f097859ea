package kernel

import (
	"gvisor.dev/gvisor/pkg/hostarch"
)

// Arg is one system call argument, a register.
type Arg uintptr

// Int is the argument as a C int.
func (a Arg) Int() int32 { return int32(a) }

// Uint is the argument as a C unsigned int.
func (a Arg) Uint() uint32 { return uint32(a) }

// Int64 is the argument as a long or off_t.
func (a Arg) Int64() int64 { return int64(a) }

// Uint64 is the argument as an unsigned long or size_t.
func (a Arg) Uint64() uint64 { return uint64(a) }

// Pointer is the argument as an address in the guest.
func (a Arg) Pointer() hostarch.Addr { return hostarch.Addr(a) }

// Mode is the argument as a mode_t.
func (a Arg) Mode() uint16 { return uint16(a) }

// Args are a system call's arguments.
type Args [6]Arg

// SyscallFn carries out one system call for t. The error is a unix.Errno (or a linuxerr restart code).
type SyscallFn func(t *Task, a Args) (uintptr, error)

// SyscallTable is what boot hands to the kernel: the calls by number.
type SyscallTable interface {
	// Lookup returns the function for nr, or nil for ENOSYS.
	Lookup(nr uintptr) SyscallFn
	// Enter and Exit are called around each call of a task that is straced (--strace).
	Enter(t *Task, nr uintptr, a Args)
	Blocked(t *Task) // before t sleeps
	Exit(t *Task, nr uintptr, a Args, ret uintptr, err error)
}
