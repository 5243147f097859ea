package platform

import (
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// FutexWake wakes n of those that wait for word. It does not tell the Go runtime that it makes a host call: the thread that it wakes may run first on this CPU, and if
// that takes a while the runtime would give the caller's place to another OS thread, which has to be woken for it.
func FutexWake(word *atomic.Uint32, n uintptr) {
	syscall.RawSyscall(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), 1 /* FUTEX_WAKE */, n)
}

// FutexWait sleeps while word is v, for d at most.
func FutexWait(word *atomic.Uint32, v uint32, d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), 0 /* FUTEX_WAIT */, uintptr(v), uintptr(unsafe.Pointer(&ts)), 0, 0)
}
