package stub

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/platform"
)

// Space is one stub: what every platform built on stubs makes its address spaces of.
type Space struct {
	host *Host
	pid  int
	slot *slot
	// dead: the stub has ended, or is about to be ended by Release. end says how it ended by itself.
	dead atomic.Bool
	end  atomic.Pointer[string]
	// diedOnce is for died.
	diedOnce sync.Once
	// broken: the stub may not be used for another address space.
	broken atomic.Bool

	// lifeMu is held by whoever reaps the stub, and by those who kill it: its process ID is not another's meanwhile.
	lifeMu sync.Mutex
	// +checklocks:lifeMu
	reaped bool

	// areasMu guards areas, all that are mapped: those in use, idle or free.
	areasMu sync.Mutex
	// +checklocks:areasMu
	areas []*Area

	// orderMu serialises batches.
	orderMu sync.Mutex
	// spare is the queue's other buffer.
	// +checklocks:orderMu
	spare []order
	// failed is the error of a batch: the stub is gone.
	// +checklocks:orderMu
	failed error
	// cpu is where the helper is kept.
	// +checklocks:orderMu
	cpu int

	// queued says without a lock whether anything waits.
	queued atomic.Bool
	// flushing: what was queued is being carried out.
	flushing atomic.Bool
	queueMu  sync.Mutex
	// +checklocks:queueMu
	queue []order

	// idle are areas with a thread that waits to be used, free those without one.
	// +checklocks:orderMu
	idle []*Area
	// +checklocks:orderMu
	free []*Area
	// used is how many threads were used at a time, at most.
	// +checklocks:orderMu
	used int
	// tids are the guest threads made, of which some may have ended.
	// +checklocks:orderMu
	tids []int
	// made are the areas of threads that the helper makes for the next address space: whose they are who has the stub from the pool.
	made []*Area
	// stale is what areas had before, until the stub has it no more.
	stale []*chunk

	released atomic.Bool
	// ticket is what the stub is kept under, or 0. The host's mu guards it.
	ticket uint64
}

func protOf(at hostarch.AccessType) uint64 {
	var p uint64
	if at.Read {
		p |= unix.PROT_READ
	}
	if at.Write {
		p |= unix.PROT_WRITE
	}
	if at.Execute {
		p |= unix.PROT_EXEC
	}
	return p
}

// push queues o, joined to the last order where the two make one.
func (s *Space) push(o order) {
	s.queueMu.Lock()
	if n := len(s.queue); n == 0 || !join(&s.queue[n-1], &o) {
		s.queue = append(s.queue, o)
	}
	s.queued.Store(true)
	s.queueMu.Unlock()
}

// join extends a by b if b goes on where a ends, in addresses and in the file.
func join(a, b *order) bool {
	if a.nr != b.nr || a.args[0]+a.args[1] != b.args[0] {
		return false
	}
	switch a.nr {
	case unix.SYS_MUNMAP:
	case unix.SYS_MPROTECT:
		if a.args[2] != b.args[2] {
			return false
		}
	case unix.SYS_MMAP:
		if a.args[2] != b.args[2] || a.args[3] != b.args[3] || a.args[4] != b.args[4] || a.args[5]+a.args[1] != b.args[5] {
			return false
		}
	default:
		return false
	}
	a.args[1] += b.args[1]
	return true
}

// within panics if the sentry asks for a range that is not the guest's: the stub's own pages would be lost.
func within(ar hostarch.AddrRange) {
	if ar.Start < minUser || ar.End > stubBase || ar.Start >= ar.End || ar.Start < windowEnd && WindowBase < ar.End {
		panic(fmt.Sprintf("stub: range %v is not within user space", ar))
	}
}

// besides calls fn for the parts of ar that are not the window's.
func besides(ar hostarch.AddrRange, fn func(hostarch.AddrRange)) {
	if ar.Start < windowEnd && WindowBase < ar.End {
		if ar.Start < WindowBase {
			fn(hostarch.AddrRange{Start: ar.Start, End: WindowBase})
		}
		if ar.Start = windowEnd; ar.Start >= ar.End {
			return
		}
	}
	fn(ar)
}

// Map implements platform.AddressSpace.
func (s *Space) Map(ar hostarch.AddrRange, fd int, off uint64, at hostarch.AccessType) {
	within(ar)
	s.push(order{nr: unix.SYS_MMAP, args: [6]uint64{uint64(ar.Start), uint64(ar.Length()), protOf(at),
		unix.MAP_SHARED | unix.MAP_FIXED, uint64(fd), off}})
}

// Populate implements platform.AddressSpace.
func (s *Space) Populate(ar hostarch.AddrRange) {
	s.queueMu.Lock()
	defer s.queueMu.Unlock()
	if n := len(s.queue); n > 0 && s.queue[n-1].nr == unix.SYS_MMAP && s.queue[n-1].args[0] == uint64(ar.Start) && s.queue[n-1].args[1] == uint64(ar.Length()) {
		s.queue[n-1].args[3] |= unix.MAP_POPULATE
	}
}

// Unmap implements platform.AddressSpace. munmap(2) may be of ranges in which nothing can be mapped.
func (s *Space) Unmap(ar hostarch.AddrRange) {
	if ar.Start, ar.End = max(ar.Start, minUser), min(ar.End, stubBase); ar.Start >= ar.End {
		return
	}
	besides(ar, func(ar hostarch.AddrRange) {
		within(ar)
		s.push(order{nr: unix.SYS_MUNMAP, args: [6]uint64{uint64(ar.Start), uint64(ar.Length())}})
	})
}

// Protect implements platform.AddressSpace.
func (s *Space) Protect(ar hostarch.AddrRange, at hostarch.AccessType) {
	besides(ar, func(ar hostarch.AddrRange) {
		within(ar)
		s.push(order{nr: unix.SYS_MPROTECT, args: [6]uint64{uint64(ar.Start), uint64(ar.Length()), protOf(at)}})
	})
}

// SetText implements platform.AddressSpace.
func (s *Space) SetText(text int, base hostarch.Addr) {
	s.orderMu.Lock()
	defer s.orderMu.Unlock()
	s.slot.texts = max(s.slot.texts, text+1)
	atomic.StoreUint64(&s.slot.bases[text], uint64(base))
}

// SetName implements platform.AddressSpace.
func (s *Space) SetName(name string) {
	s.orderMu.Lock()
	defer s.orderMu.Unlock()
	n := &s.slot.order.name
	clear(n[copy(n[:nameSize-1], name):])
	s.push(order{nr: unix.SYS_PRCTL, args: [6]uint64{unix.PR_SET_NAME, nameAddr}})
}

// Text is what SetText told of a text.
func (s *Space) Text(text int) uint64 { return atomic.LoadUint64(&s.slot.bases[text]) }

// PID is the stub's process ID.
func (s *Space) PID() int { return s.pid }

// Settled implements platform.AddressSpace.
func (s *Space) Settled() bool { return !s.queued.Load() && !s.flushing.Load() }

// Flush implements platform.AddressSpace.
func (s *Space) Flush() error {
	if s.Settled() {
		return nil
	}
	s.orderMu.Lock()
	defer s.orderMu.Unlock()
	return s.flushLocked()
}

// +checklocks:s.orderMu
func (s *Space) flushLocked() error {
	// Whoever sees an empty queue must also see that its orders are still being carried out, and wait.
	s.flushing.Store(true)
	defer s.flushing.Store(false)
	s.queueMu.Lock()
	q := s.queue
	s.queue = s.spare[:0]
	s.queued.Store(false)
	s.queueMu.Unlock()
	s.spare = q
	for len(q) > 0 && s.failed == nil {
		n := min(len(q), maxOrders)
		s.failed = s.carryOut(q[:n], false)
		q = q[n:]
	}
	return s.failed
}

// result is what the helper tells of the last order to make something: an ID, or an errno. The caller holds host.resultMu.
//
// +checklocks:s.orderMu
func (s *Space) result() (int, error) {
	n, err := unix.Seek(s.host.ctlFD, 0, unix.SEEK_CUR)
	if err != nil {
		return 0, err
	}
	if id := int(int32(n)); id >= 0 {
		return id, nil
	}
	return 0, unix.Errno(-int32(n))
}

// makeLocked carries out orders, the last of which makes something, and returns the ID of that.
//
// +checklocks:s.orderMu
func (s *Space) makeLocked(orders []order) (id int, err error) {
	s.host.resultMu.Lock()
	defer s.host.resultMu.Unlock()
	if err := s.carryOut(orders, false); err != nil {
		return 0, err
	}
	return s.result()
}

// threadOrder makes a guest thread on a, which may be nil; its ID is told unless quiet is 1.
func threadOrder(a *Area, quiet uint64) order {
	o := order{nr: orderThread, args: [6]uint64{guestFlags, 0, replyAddr, quiet}}
	if a != nil {
		o.args[1], o.args[2] = a.addr, a.addr+offTID
	}
	return o
}

// NewThread implements platform.AddressSpace.
func (s *Space) NewThread() (platform.Thread, error) {
	s.orderMu.Lock()
	s.used = max(s.used, len(s.tids)-len(s.idle)+1)
	if n := len(s.idle); n > 0 {
		a := s.idle[n-1]
		s.idle = s.idle[:n-1]
		s.orderMu.Unlock()
		return s.host.cfg.NewThread(s, a.tid, a)
	}
	tid, a, err := s.newThreadLocked()
	s.orderMu.Unlock()
	if err != nil {
		return nil, err
	}
	return s.host.cfg.NewThread(s, tid, a)
}

// +checklocks:s.orderMu
func (s *Space) newThreadLocked() (int, *Area, error) {
	if !s.host.cfg.Handlers {
		s.slot.reply.ready.Store(0)
		tid, err := s.makeLocked([]order{freeOrder, threadOrder(nil, 0)})
		if err == nil {
			s.noteLocked(tid)
		}
		for err == nil && s.slot.reply.ready.Load() == 0 { // no wake comes: the new thread may no longer call futex
			if platform.FutexWait(&s.slot.reply.ready, 0, 50*time.Microsecond); s.dead.Load() {
				err = s.gone()
			}
		}
		return tid, nil, err
	}
	a, mapped, err := s.newAreaLocked()
	if err != nil {
		return 0, nil, err
	}
	// The thread tells of itself by its first trap.
	a.tid, err = s.makeLocked([]order{mapped, freeOrder, threadOrder(a, 0)})
	if !s.dead.Load() {
		s.host.freeChunks(s.stale...)
		s.stale = s.stale[:0]
	}
	if err != nil {
		s.free = append(s.free, a)
		return 0, nil, err
	}
	s.noteLocked(a.tid)
	return a.tid, a, nil
}

// noteLocked notes a new guest thread, for which the helper was let go, unless there are too many for the stub to be used again.
//
// +checklocks:s.orderMu
func (s *Space) noteLocked(tid int) {
	if s.cpu = -1; len(s.tids) <= maxEnds {
		s.tids = append(s.tids, tid)
	}
}

// freeOrder lets the helper run anywhere, and with it the threads that it makes.
var freeOrder = order{nr: unix.SYS_SCHED_SETAFFINITY, args: [6]uint64{0, cpusSize, cpusAddr}}

// Release implements platform.AddressSpace. When it returns, no guest thread can reach what was mapped.
func (s *Space) Release() { s.retire(false) }

// retire is Release, or Keep.
func (s *Space) retire(keep bool) (ticket uint64) {
	if s.released.Swap(true) {
		return 0
	}
	if s.host.want() {
		if ticket, ok := s.host.put(s, keep, s.renew(keep)); ok {
			return ticket
		}
	}
	s.kill()
	return 0
}

// kill ends the stub.
func (s *Space) kill() {
	s.dead.Store(true)
	s.reap()
	s.host.freeSlot(s.slot)
	s.areasMu.Lock()
	for _, a := range s.areas {
		s.host.freeChunks(a.chunk)
	}
	s.host.freeChunks(s.stale...)
	s.areas, s.stale = nil, nil
	s.areasMu.Unlock()
}
