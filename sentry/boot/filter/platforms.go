package filter

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/seccomp"
)

const (
	ptraceSysemu     = 31
	ptraceSetSigMask = 0x420b
)

// stubs is what platforms made of stubs call.
var stubs = []Rule{
	{"wait4", unix.SYS_WAIT4, all, "what a guest thread did; the end of a stub"},
	{"waitid", unix.SYS_WAITID, all, "whether a stub is still there"},
	{"kill", unix.SYS_KILL, args{free, eq(uintptr(unix.SIGKILL))}, "the end of a stub"},
	{"futex", unix.SYS_FUTEX, seccomp.Or{
		args{free, eq(futexWait)},
		args{free, eq(futexWake)},
	}, "hand-over to a stub's helper thread"},
	{"mmap", unix.SYS_MMAP, args{eq(0), free, eq(rw), eq(unix.MAP_SHARED)}, "order pages of stubs"},
	{"sched_setaffinity", unix.SYS_SCHED_SETAFFINITY, all, "a stub's thread and the one that it works with on one CPU"},
	{"ftruncate", unix.SYS_FTRUNCATE, all, "more order pages"},
}

func init() {
	req := func(r uintptr) seccomp.SyscallRule { return args{eq(r)} }
	Platforms["ptrace"] = []Rule{
		{"ptrace", unix.SYS_PTRACE, seccomp.Or{
			args{eq(unix.PTRACE_SEIZE), free, eq(0), eq(unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_EXITKILL)},
			req(unix.PTRACE_INTERRUPT), req(ptraceSysemu), req(unix.PTRACE_GETREGS), req(unix.PTRACE_SETREGS), req(unix.PTRACE_GETSIGINFO),
			req(unix.PTRACE_GETREGSET), req(unix.PTRACE_SETREGSET), req(unix.PTRACE_DETACH), req(ptraceSetSigMask),
		}, "running guest threads"},
	}
	Platforms["ptrace"] = append(Platforms["ptrace"], stubs...)
	Platforms["trap"] = stubs
}
