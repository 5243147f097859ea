package stub

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"

	"moat/platform"
)

// What the host says of a signal that it raises in a guest thread (sigaction(2)).
const (
	SIKernel        = 0x80
	SysSeccomp      = 1 // si_code of SIGSYS
	SysUserDispatch = 2

	siUser       = 0
	archX86_64   = auditArchX86_64
	vsyscallBase = 0xffffffffff600000
)

// Complete is what code (si_code) and arch (si_arch) of a signal should be. The host may lose what it would say of one (__send_signal_locked, "silently loses info"): of
// SIGSYS, once in some 100,000 times where that was seen. It is a call all the same, and a SIGTRAP a breakpoint. Faults that so lose their information
// happen again.
func Complete(sig unix.Signal, code int32, arch uint32) (int32, uint32) {
	switch {
	case code != siUser:
	case sig == unix.SIGSYS:
		return SysUserDispatch, archX86_64
	case sig == unix.SIGTRAP:
		return SIKernel, arch
	}
	return code, arch
}

// Call makes an event, and regs, of a SIGSYS: a system call that has not been made. int $0x80 is refused.
func Call(arch uint32, regs *platform.Regs) platform.Event {
	if arch != archX86_64 {
		return platform.Event{Kind: platform.EventSignal, Signal: unix.SIGSEGV, Code: SIKernel}
	}
	EnterCall(regs)
	return platform.Event{Kind: platform.EventSyscall}
}

// Vsyscall reports whether a SIGSYS for a call at address at is a jump into the vsyscall page, and makes an event of that. The host, which emulates the page, has
// already returned from there: that is undone, since the sentry emulates the page itself and wants to see the jump.
func Vsyscall(at uint64, regs *platform.Regs) (platform.Event, bool) {
	if at&^(pageSize-1) != vsyscallBase {
		return platform.Event{}, false
	}
	if regs.Rip&^(pageSize-1) != vsyscallBase {
		regs.Rsp -= 8
		regs.Rip = at
	}
	return platform.Event{Kind: platform.EventFault, Signal: unix.SIGSEGV, Code: 1, Addr: hostarch.Addr(regs.Rip), Access: hostarch.Execute}, true
}

// EnterCall makes regs, with the number of a call in RAX, what they are once the call has been entered.
func EnterCall(regs *platform.Regs) {
	regs.Orig_rax = regs.Rax
	regs.Rax = ^uint64(unix.ENOSYS) + 1
}
