package trap

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/sync"

	"moat/platform/stub"
)

// spinningOffset is nmspinning's place in the runtime's schedt.
const spinningOffset = 116

// spinning is the runtime's count of OS threads that look for goroutines to run. While it is not 0, who makes a goroutine ready wakes no OS thread for it.
func spinning() *atomic.Int32

// sleep parks the goroutine of t until somebody takes t off the board and readies it.
func (t *thread) sleep() {
	t.parking.Store(true)
	sync.Gopark(slept, unsafe.Pointer(t), sync.WaitReasonSelect, sync.TraceBlockSelect, 0)
	for t.parking.Load() { // slept's OS thread has lost its CPU: what it does last must not meet the next who has t's place
		sync.Goyield()
	}
}

// slept puts a thread on the board whose goroutine is parked. An event that came meanwhile, which nobody may have seen, unparks it.
//
//go:nosplit
//go:norace
func slept(gp uintptr, p unsafe.Pointer) bool {
	t := (*thread)(p)
	t.gp = gp
	t.row.waits.Or(t.bit)
	waits := !stub.Told(t.state.Load()) || t.row.waits.And(^t.bit)&t.bit == 0
	t.parking.Store(false)
	return waits
}

// ready lets the goroutine of a thread go on that was taken off the board.
func (t *thread) ready() { sync.Goready(t.gp, 0, false) }

//go:linkname entersyscallblock runtime.entersyscallblock
func entersyscallblock()

//go:linkname exitsyscall runtime.exitsyscall
func exitsyscall()

// wait waits for the bell, unless there is an event. The goroutine leaves its place to others before (a host call otherwise keeps it for a while), so
// nothing here may split the stack or touch what the garbage collector may free.
//
//go:nosplit
func (b *board) wait(bell *stub.Bell) {
	entersyscallblock()
	bell.Sleep()
	if !b.any() {
		bell.Wait()
	}
	bell.Wake()
	exitsyscall()
}

// wait waits until there may be something to read, as board.wait does.
//
//go:nosplit
func (s *source) wait() {
	entersyscallblock()
	_, _, _ = unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&s.fd)), 1, 0, 0, 0, 0)
	exitsyscall()
}
