package ptrace

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

func ptraceRegset(req uintptr, tid int, note uintptr, b []byte) (int, error) {
	iov := unix.Iovec{Base: &b[0], Len: uint64(len(b))}
	_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, req, uintptr(tid), note, uintptr(unsafe.Pointer(&iov)), 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(iov.Len), nil
}

// ptrace is for requests whose data is no pointer.
func ptrace(req uintptr, tid int, data uintptr) error {
	if _, _, e := unix.RawSyscall6(unix.SYS_PTRACE, req, uintptr(tid), 0, data, 0, 0); e != 0 {
		return e
	}
	return nil
}

// ptraceAt is for those whose data is memory. It becomes a number in the system call itself and no sooner: a stack may move, and on it what data points to.
func ptraceAt(req uintptr, tid int, addr uintptr, data unsafe.Pointer) error {
	if _, _, e := unix.RawSyscall6(unix.SYS_PTRACE, req, uintptr(tid), addr, uintptr(data), 0, 0); e != 0 {
		return e
	}
	return nil
}

func getRegs(tid int, r *unix.PtraceRegs) error {
	return ptraceAt(unix.PTRACE_GETREGS, tid, 0, unsafe.Pointer(r))
}

func setRegs(tid int, r *unix.PtraceRegs) error {
	return ptraceAt(unix.PTRACE_SETREGS, tid, 0, unsafe.Pointer(r))
}

// siginfo is the head of siginfo_t on amd64.
type siginfo struct {
	Signo, Errno, Code int32
	_                  int32
	Addr               uint64
	Syscall            int32
	Arch               uint32
	_                  [96]byte
}

func getSiginfo(tid int, si *siginfo) error {
	return ptraceAt(unix.PTRACE_GETSIGINFO, tid, 0, unsafe.Pointer(si))
}

// setSigmask replaces the set of signals that the thread blocks.
func setSigmask(tid int, mask *uint64) error {
	const setSigMask = 0x420b // PTRACE_SETSIGMASK
	return ptraceAt(setSigMask, tid, unsafe.Sizeof(*mask), unsafe.Pointer(mask))
}

// noChildStops makes SIGCHLD, which the Go runtime handles, tell of deaths only (SA_NOCLDSTOP).
func noChildStops() error {
	const saNoCldStop = 1
	var act [4]uint64 // struct kernel_sigaction: handler, flags, restorer, mask
	if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGCHLD), 0, uintptr(unsafe.Pointer(&act)), 8, 0, 0); e != 0 {
		return e
	}
	act[1] |= saNoCldStop
	if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGCHLD), uintptr(unsafe.Pointer(&act)), 0, 8, 0, 0); e != 0 {
		return e
	}
	return nil
}
