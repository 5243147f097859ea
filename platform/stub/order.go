package stub

import (
	"sync/atomic"
	"time"
)

// The stub's own pages (stub_amd64.s has the layout too).
const (
	stubBase  = 0x7fff_0000_0000
	codeAddr  = stubBase
	progAddr  = stubBase + pageSize
	orderAddr = stubBase + 0x10000
	orderSize = 32768
	replyAddr = orderAddr + orderSize
	replySize = 4096
	// Guest threads' areas.
	areaBase = stubBase + 0x1000_0000
	areaSize = 0x8000
	maxAreas = 1 << 16
	stubEnd  = areaBase + areaSize*maxAreas
	// userEnd is Linux's TASK_SIZE_MAX with four-level page tables.
	userEnd  = 0x7fff_ffff_f000
	pageSize = 4096

	// The window of rewritten system calls, which lies where 32-bit absolute addresses reach: a table of addresses, slots of code, and
	// each stub's own table of where files of code are mapped in it. Byte 2 of every address of the first table is 0x60, an
	// instruction that no amd64 processor knows (package trap).
	WindowBase  = 0x7f60_0000
	WindowSlots = WindowBase + 0x10000
	SlotSize    = 128
	MaxSlots    = 8192
	WindowTexts = WindowSlots + MaxSlots*SlotSize
	MaxTexts    = 4096
	windowEnd   = 0x7f80_0000
	basesSize   = MaxTexts * 8
	// slotBytes is what a stub's control pages take in the control file.
	slotBytes = orderSize + replySize + basesSize

	maxOrders  = orderSize/orderBytes - 1
	orderBytes = 64
)

// CodeAddr is where the entry code lies in every stub. Entered with EntryExit in RAX it ends the thread.
const (
	CodeAddr  = codeAddr
	EntryExit = 1
)

// Numbers that are not system calls but orders to make a stub or a guest thread.
const (
	orderFork   = ^uint64(0)
	orderThread = ^uint64(1)
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
	_   [56]byte
	ops [maxOrders]order
}

// replyPage is writable in the stub: nothing in it is believed beyond what the package comment says.
type replyPage struct {
	seq   atomic.Uint32
	_     uint32
	ready atomic.Uint32
	_     uint32
	ret   atomic.Int64
}

// GoneError says that the stub's process ended.
type GoneError struct{ What string }

func (e GoneError) Error() string { return "stub: the stub process is gone: " + e.What }

// carryOut gives the orders to the helper and waits for it. A helper that meets an error ends its process.
//
// Preconditions: s.orderMu is held; len(ops) <= maxOrders.
func (s *Space) carryOut(ops []order) error {
	if s.dead.Load() {
		return s.gone()
	}
	copy(s.slot.order.ops[:], ops)
	s.slot.order.n = uint32(len(ops))
	seq := s.slot.order.seq.Add(1)
	futexWake(&s.slot.order.seq)
	return s.await(&s.slot.reply.seq, 50*time.Millisecond, func(v uint32) bool { return v == seq })
}

// await waits until ok of the word holds, or the stub ends. It looks every poll in case no wake comes: from a stub that was
// killed, or a new thread, which may no longer call futex.
func (s *Space) await(word *atomic.Uint32, poll time.Duration, ok func(uint32) bool) error {
	// No Gosched: it would hand the locked thread over, which costs more than the wait.
	for i := 0; i < 2000; i++ {
		if ok(word.Load()) {
			return nil
		}
	}
	for {
		v := word.Load()
		if ok(v) {
			return nil
		}
		futexWait(word, v, poll)
		if ok(word.Load()) {
			return nil
		}
		if s.dead.Load() {
			return s.gone()
		}
	}
}
