package stub

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
	gsync "gvisor.dev/gvisor/pkg/sync"
	"moat/platform"
)

// The stub's own pages (stub_amd64.s has the layout too).
const (
	stubBase = 0x7fff_0000_0000
	// codeAddr is the page of the entry code, answerAddr that of the code that answers calls in place: guest threads may make calls of the host from these two alone.
	// helperAddr is the page of the helper's code, tableAddr that of where answers go by number.
	codeAddr   = stubBase
	answerAddr = stubBase + pageSize
	helperAddr = stubBase + 2*pageSize
	tableAddr  = stubBase + 3*pageSize
	orderAddr  = stubBase + 0x10000
	orderSize  = 32768
	replyAddr  = orderAddr + orderSize
	replySize  = 4096
	// Guest threads' areas.
	areaBase = stubBase + 0x1000_0000
	areaSize = 0x8000
	maxAreas = 1 << 16
	stubEnd  = areaBase + areaSize*maxAreas
	// userEnd is Linux's TASK_SIZE_MAX with four-level page tables.
	userEnd  = 0x7fff_ffff_f000
	pageSize = 4096

	// The window of rewritten system calls, which lies where 32-bit absolute addresses reach: a table of addresses, slots of code, the page of bells, and
	// each stub's own table of where files of code are mapped in it. Byte 2 of every address of the first table is 0x60, an
	// instruction that no amd64 processor knows (package trap).
	WindowBase  = 0x7f60_0000
	WindowSlots = WindowBase + 0x10000
	SlotSize    = 128
	MaxSlots    = 8192 - pageSize/SlotSize
	windowBells = WindowSlots + MaxSlots*SlotSize
	WindowTexts = windowBells + pageSize
	MaxTexts    = 4096
	windowEnd   = 0x7f80_0000
	basesSize   = MaxTexts * 8
	// slotBytes is what a stub's control pages take in the control file.
	slotBytes = orderSize + replySize + basesSize

	maxOrders  = orderSize/orderBytes - 3
	orderBytes = 64

	nameSize = 16 // TASK_COMM_LEN
	nameAddr = orderAddr + 28
	ackAddr  = orderAddr + 24
	partAddr = orderAddr + 44
	cpusSize = 128
	cpusAddr = orderAddr + orderSize - cpusSize
)

// CodeAddr is the page of the entry code in every stub, HelperAddr that of the helper's code. Entered at its start with EntryExit in RAX the entry code ends the
// thread.
const (
	CodeAddr   = codeAddr
	HelperAddr = helperAddr
	EntryExit  = StateExit
)

// Numbers that are not system calls but orders to make a stub, to make a guest thread, and to wait for a guest thread's end.
const (
	orderFork   = ^uint64(0)
	orderThread = ^uint64(1)
	orderEnd    = ^uint64(2)
)

// order is one call for the helper to make.
type order struct {
	nr   uint64
	args [6]uint64
	_    uint64
}

// orderPage is read-only in the stub.
type orderPage struct {
	seq atomic.Uint32
	n   uint32
	// ctl is the control file's descriptor, ackOff where ack lies in it.
	ctl uint32
	// waits says that the sentry sleeps on ack and must be woken.
	waits  atomic.Uint32
	ackOff uint64
	// ack is the number of the last batch done, which the helper writes through the control file.
	ack atomic.Uint32
	// name is for SetName.
	name [nameSize]byte
	// part is what ack becomes by an order to tell that a part of the batch is done.
	part uint32
	_    [32 - nameSize]byte
	ops  [maxOrders]order
	// cpus are those that guest threads may run on.
	cpus unix.CPUSet
}

// replyPage is writable in the stub. made is where the ID of a thread without an area goes, which nobody reads. ready says that a thread may be seized: a guest that
// forges that for another is seized before user dispatch is on for it, which PTRACE_SYSEMU does not need.
type replyPage struct {
	made  uint32
	_     uint32
	ready atomic.Uint32
	_     [244]byte
	// rung is, for each bell, its count when a thread of this stub last woke the watchman. The sentry does not read it.
	rung [NumBells]uint32
}

// GoneError says that the stub's process ended.
type GoneError struct{ What string }

func (e GoneError) Error() string { return "stub: the stub process is gone: " + e.What }

// carryOut gives the orders to the helper and waits until it is done, or tells of a part. A helper that meets an error ends its process.
//
// The helper runs on the CPU that this is called on: to switch there costs 4 us, to wake another CPU ten times as much. But if apart is set and the CPU is that of who looks for
// guests' calls, who must go on, the helper runs elsewhere, and other goroutines here. Stubs that a helper makes inherit its place, so that of the zygote is left alone.
//
// Preconditions: len(ops) <= maxOrders.
//
// +checklocks:s.orderMu
func (s *Space) carryOut(ops []order, apart bool) error {
	if s.dead.Load() {
		return s.gone()
	}
	here := CPU()
	if apart = apart && s.host.cfg.Looks(here); apart {
		PinOff(s.pid, here)
	} else if here != s.cpu && s != s.host.zygote {
		s.cpu = here
		Pin(s.pid, here)
	}
	o := s.tell(ops)
	for i := 0; apart && i < 1000 && o.ack.Load()-o.part > 1; i++ {
		gsync.Goyield()
	}
	return s.await(o.part)
}

// tell gives the orders to the helper, which must be done with the last batch.
//
// +checklocks:s.orderMu
func (s *Space) tell(ops []order) *orderPage {
	o := s.slot.order
	copy(o.ops[:], ops)
	o.n = uint32(len(ops))
	o.part = o.seq.Load() + 1
	o.seq.Add(2)
	platform.FutexWake(&o.seq, 1)
	return o
}

// await waits until the helper is done with the batch, or tells of part.
//
// +checklocks:s.orderMu
func (s *Space) await(part uint32) error {
	o := s.slot.order
	o.waits.Store(1)
	for wait, d := futexWaitBriefly, briefly; ; wait, d = platform.FutexWait, aliveCheck {
		v := o.ack.Load()
		if v == o.seq.Load() || v == part {
			break
		}
		if s.dead.Load() {
			return s.gone()
		}
		wait(&o.ack, v, d)
	}
	o.waits.Store(0)
	return nil
}
