package stub

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// codes are where the pieces of code begin; those of the entry code and the helper's follow each other up to the last of them.
func codes() *[answerEnd + 1]*byte

//go:noescape
func enterStub(code, order, reply uintptr)

//go:linkname runtimeBeforeFork syscall.runtime_BeforeFork
func runtimeBeforeFork()

//go:linkname runtimeAfterFork syscall.runtime_AfterFork
func runtimeAfterFork()

//go:linkname runtimeAfterForkInChild syscall.runtime_AfterForkInChild
func runtimeAfterForkInChild()

// zygote is what the child needs, computed before the fork.
type zygote struct {
	codeFD, ctlFD      uintptr
	windowFD           uintptr
	orderOff, replyOff uintptr
	filter             *unix.SockFprog
	handlers           bool
	action             [4]uint64 // struct kernel_sigaction
}

// setHandlers makes the stubs handle SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, SIGSYS and SIGUSR2 by the entry code, on the
// threads' alternate stacks, with everything else blocked.
func (z *zygote) setHandlers() {
	const saSiginfo, saOnstack, saRestorer = 4, 0x08000000, 0x04000000
	z.handlers = true
	z.action = [4]uint64{codeAddr + handlerOff, saSiginfo | saOnstack | saRestorer, codeAddr, ^uint64(0)}
}

// forkZygote forks the process that becomes the first stub. The child shares the descriptor table, unmaps the sentry and enters
// the helper's loop.
//
// The child runs on a copy of this goroutine's stack in a process where no other thread lives, so it may neither
// allocate nor grow the stack nor be preempted.
//
//go:norace
//go:nosplit
//go:nocheckptr
func forkZygote(z *zygote) (int, unix.Errno) {
	runtimeBeforeFork()
	pid, _, e := syscall.RawSyscall6(unix.SYS_CLONE, unix.CLONE_FILES, 0, 0, 0, 0, 0)
	if e != 0 || pid != 0 {
		runtimeAfterFork()
		return int(pid), e
	}
	runtimeAfterForkInChild()
	child(z)
	return 0, 0
}

//go:norace
//go:nosplit
func child(z *zygote) {
	syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0, 0)
	syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0)
	if !mapAt(codeAddr, pageSize, unix.PROT_READ|unix.PROT_EXEC, z.codeFD, 0) ||
		!mapAt(helperAddr, pageSize, unix.PROT_READ|unix.PROT_EXEC, z.codeFD, pageSize) ||
		!mapAt(answerAddr, pageSize, unix.PROT_READ|unix.PROT_EXEC, z.codeFD, 2*pageSize) ||
		!mapAt(tableAddr, pageSize, unix.PROT_READ, z.codeFD, 3*pageSize) ||
		!mapAt(orderAddr, orderSize, unix.PROT_READ, z.ctlFD, z.orderOff) ||
		!mapAt(replyAddr, replySize, unix.PROT_READ|unix.PROT_WRITE, z.ctlFD, z.replyOff) ||
		!mapAt(WindowBase, WindowTexts-WindowBase, unix.PROT_READ|unix.PROT_EXEC, z.windowFD, 0) ||
		!mapAt(WindowTexts, basesSize, unix.PROT_READ, z.ctlFD, z.replyOff+replySize) {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 98, 0, 0)
	}
	if z.handlers {
		for _, sig := range [...]uintptr{4, 5, 7, 8, 11, 12, 31} { // handledSignals
			syscall.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&z.action)), 0, 8, 0, 0)
		}
	}
	// From here on only the stub's own code makes calls.
	if _, _, e := syscall.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(z.filter))); e != 0 {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 98, 0, 0)
	}
	enterStub(helperAddr, orderAddr, replyAddr)
}

//go:norace
//go:nosplit
func mapAt(addr, n, prot, fd, off uintptr) bool {
	p, _, e := syscall.RawSyscall6(unix.SYS_MMAP, addr, n, prot, unix.MAP_SHARED|unix.MAP_FIXED, fd, off)
	return e == 0 && p == addr
}
