package stub

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
	"moat/platform"
)

const (
	futexWaitOp = 0
	futexWakeOp = 1
)

// futexWaitBriefly is platform.FutexWait for what is done by a thread on this CPU within microseconds; for d at most the caller keeps its place among goroutines, see platform.FutexWake.
func futexWaitBriefly(word *atomic.Uint32, v uint32, d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	syscall.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWaitOp, uintptr(v), uintptr(unsafe.Pointer(&ts)), 0, 0)
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
	sl.order.cpus = CPUs
	return sl, nil
}

// Places in codes that have a name; before codeEnd are those that codePages lays out.
const codeEnd, answerCode, signalCode, answerEnd = 5, 6, 7, 8

// codePages are the pages with the entry code, the helper's code, and the answers in place, copied from the sentry's own text.
func codePages() []byte {
	b := make([]byte, 2*pageSize)
	at, end := [...]int{0, pageSize, handlerOff, callOff, waitOff}, [...]int{handlerOff, 2 * pageSize, callOff, waitOff, pageSize}
	for i, code := range codes()[:codeEnd] {
		next := codes()[i+1]
		n := int(uintptr(unsafe.Pointer(next)) - uintptr(unsafe.Pointer(code)))
		if n <= 0 || n > end[i]-at[i] {
			panic("stub: the entry code does not fit its place")
		}
		copy(b[at[i]:], unsafe.Slice(code, n))
	}
	return append(b, answerPages()...)
}

// answerText is a copy of answerCode and of signalCode.
func answerText() (answer, signal []byte) {
	// The one follows the other, and the end them.
	a, m, end := codes()[answerCode], codes()[signalCode], codes()[answerEnd]
	n := min(uintptr(unsafe.Pointer(m))-uintptr(unsafe.Pointer(a)), signalOff)
	return bytes.Clone(unsafe.Slice(a, n)), bytes.Clone(unsafe.Slice(m, min(uintptr(unsafe.Pointer(end))-uintptr(unsafe.Pointer(m)), pieceOff-signalOff)))
}

const (
	handlerOff = 2048
	callOff    = 3072
	waitOff    = 3520
	// CallAddr is where a slot jumps to in a stub.
	CallAddr = codeAddr + callOff
)

// offCrowded is where Crowded is.
const offCrowded = uint32(unsafe.Offsetof(Bells{}.Crowded))

// Bells are what guest threads wake the sentry by. They read this page, which the sentry alone writes.
type Bells struct {
	// Polling says that somebody in the sentry looks at the states of the threads that run: a short wait may be worth it.
	Polling atomic.Uint32
	_       [3]uint32
	// Nap is how long a thread sleeps before it wakes a watchman again that had not yet been asleep.
	Nap unix.Timespec
	// Crowded is not 0 while more guest threads run than there are CPUs.
	Crowded atomic.Uint32
	_       [28]byte
	Bell    [NumBells]Bell
	// naps are what guest threads sleep on; where there are many, some share one.
	naps [numNaps]atomic.Uint32
}

const (
	numNaps = (pageSize - offNaps) / 4
	offNaps = 64 * (1 + NumBells)
)

// Bell is where a watchman in the sentry waits for threads that run on one CPU.
type Bell struct {
	// count is odd while the watchman must be woken.
	count atomic.Uint32
	_     [60]byte
}

// Sleep says that the watchman is about to sleep, Wake that it is awake.
//
//go:nosplit
func (b *Bell) Sleep() { b.count.Add(1) }

// Wake is the counterpart of Sleep.
//
//go:nosplit
func (b *Bell) Wake() { b.count.Add(1) }

// NumBells is how many bells there are; CPUs beyond share them.
const NumBells = 32

// Bells are those of all the host's stubs.
func (h *Host) Bells() *Bells { return (*Bells)(unsafe.Pointer(&h.window[windowBells-WindowBase])) }

// StateWord is where the state is, for who must not call Control.
func (a *Area) StateWord() *atomic.Uint32 { return &a.chunk.control().State }

// Wait waits for a ring. It is called between Sleep and Wake by a goroutine that has left its place to others, so it does nothing that needs one.
//
//go:nosplit
func (b *Bell) Wait() {
	syscall.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&b.count)), futexWaitOp, uintptr(b.count.Load()), 0, 0, 0)
}

// Asleep reports whether the watchman must be woken.
func (b *Bell) Asleep() bool { return b.count.Load()&1 != 0 }

// Ring wakes the watchman.
func (b *Bell) Ring() { platform.FutexWake(&b.count, 1) }

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

// spinUntil looks at word up to n times, with PAUSE between, and reports whether it became v. If so, mark, if it is not nil, becomes the time-stamp counter of just before.
//
//go:noescape
func spinUntil(word *atomic.Uint32, v uint32, n int, mark *atomic.Int64) bool
