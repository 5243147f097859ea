package stub

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
	var timeout unsafe.Pointer
	if d > 0 {
		ts := unix.NsecToTimespec(int64(d))
		timeout = unsafe.Pointer(&ts)
	}
	unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWaitOp, uintptr(v), uintptr(timeout), 0, 0)
}

func waitid(idType, id int, info *childInfo, options int) error {
	_, _, e := unix.Syscall6(unix.SYS_WAITID, uintptr(idType), uintptr(id), uintptr(unsafe.Pointer(info)), uintptr(options), 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// slot is one stub's order and reply pages, mapped in the sentry.
type slot struct {
	off   int64 // in the control file
	mem   []byte
	order *orderPage
	reply *replyPage
	// bases is where files of code are mapped in the stub; read-only there. Those from texts on were never set. Space.orderMu guards both.
	bases []uint64
	texts int
}

func mapSlot(fd int, off int64) (*slot, error) {
	mem, err := unix.Mmap(fd, off, slotBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("stub: mapping a stub's control pages: %w", err)
	}
	sl := &slot{off: off, mem: mem, order: (*orderPage)(unsafe.Pointer(&mem[0])), reply: (*replyPage)(unsafe.Pointer(&mem[orderSize])),
		bases: unsafe.Slice((*uint64)(unsafe.Pointer(&mem[orderSize+replySize])), MaxTexts)}
	sl.order.ctl, sl.order.ackOff = uint32(fd), uint64(off)+uint64(unsafe.Offsetof(sl.order.ack))
	return sl, nil
}

// codePages are the pages with the entry code, the filters, and the code by which the template makes threads, copied from the sentry's own text.
func codePages(filters []byte) []byte {
	b := make([]byte, 3*pageSize)
	at, end := [...]int{0, templateOff, 2 * pageSize, handlerOff, callOff}, [...]int{templateOff, handlerOff, 3 * pageSize, callOff, pageSize}
	for i, code := range [...]*byte{stubCodeAddr(), templateCodeAddr(), spawnCodeAddr(), handlerCodeAddr(), callCodeAddr()} {
		next := [...]*byte{templateCodeAddr(), spawnCodeAddr(), handlerCodeAddr(), callCodeAddr(), codeEndAddr()}[i]
		n := int(uintptr(unsafe.Pointer(next)) - uintptr(unsafe.Pointer(code)))
		if n <= 0 || n > end[i]-at[i] {
			panic("stub: the entry code does not fit its place")
		}
		copy(b[at[i]:], unsafe.Slice(code, n))
	}
	copy(b[pageSize:], filters)
	return b
}

const (
	templateOff = 1536
	handlerOff  = 2048
	callOff     = 3072
	// CallAddr is where a slot jumps to in a stub.
	CallAddr = codeAddr + callOff
)

// chunk is the memory of one guest thread's Area, mapped in the sentry.
type chunk struct {
	off int64 // in the control file
	mem []byte
}

func mapChunk(fd int, off int64) (*chunk, error) {
	mem, err := unix.Mmap(fd, off, areaSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("stub: mapping a guest thread's area: %w", err)
	}
	return &chunk{off, mem}, nil
}

func (c *chunk) control() *Control { return (*Control)(unsafe.Pointer(&c.mem[0])) }

// spinUntil looks at word up to n times, with PAUSE between, and reports whether it became v.
//
//go:noescape
func spinUntil(word *atomic.Uint32, v uint32, n int) bool

// thisCPU is the CPU that the caller runs on, or just did.
func thisCPU() int
