package ptrace

import (
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	futexWaitOp = 0
	futexWakeOp = 1
)

func futexWake(word *atomic.Uint32) {
	unix.Syscall(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWakeOp, 1)
}

func futexWait(word *atomic.Uint32, v uint32, d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWaitOp, uintptr(v), uintptr(unsafe.Pointer(&ts)), 0, 0)
}

// slot is one stub's order and reply pages, mapped in the sentry.
type slot struct {
	off   int64 // in the control file
	mem   []byte
	order *orderPage
	reply *replyPage
}

func mapSlot(fd int, off int64) (*slot, error) {
	mem, err := unix.Mmap(fd, off, orderSize+replySize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("ptrace: mapping a stub's control pages: %w", err)
	}
	return &slot{off: off, mem: mem, order: (*orderPage)(unsafe.Pointer(&mem[0])), reply: (*replyPage)(unsafe.Pointer(&mem[orderSize]))}, nil
}

// codeBytes is the entry code, a page of the sentry's own text.
func codeBytes() []byte {
	return unsafe.Slice(stubCodeAddr(), codeSize)
}

// codeSize covers stubCode.
const codeSize = 1024

func ptraceRegset(req uintptr, tid int, note uintptr, b []byte) (int, error) {
	iov := unix.Iovec{Base: &b[0], Len: uint64(len(b))}
	_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, req, uintptr(tid), note, uintptr(unsafe.Pointer(&iov)), 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(iov.Len), nil
}

func ptrace(req uintptr, tid int, addr, data uintptr) error {
	if _, _, e := unix.RawSyscall6(unix.SYS_PTRACE, req, uintptr(tid), addr, data, 0, 0); e != 0 {
		return e
	}
	return nil
}

func getRegs(tid int, r *unix.PtraceRegs) error {
	return ptrace(unix.PTRACE_GETREGS, tid, 0, uintptr(unsafe.Pointer(r)))
}

func setRegs(tid int, r *unix.PtraceRegs) error {
	return ptrace(unix.PTRACE_SETREGS, tid, 0, uintptr(unsafe.Pointer(r)))
}

// siginfo is the head of siginfo_t on amd64.
type siginfo struct {
	Signo, Errno, Code int32
	_                  int32
	Addr               uint64
	Syscall            int32
	_                  [100]byte
}

func getSiginfo(tid int, si *siginfo) error {
	return ptrace(unix.PTRACE_GETSIGINFO, tid, 0, uintptr(unsafe.Pointer(si)))
}
