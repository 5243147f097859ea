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

	// lifeMu is held by whoever reaps the stub, and by those who kill it: its process ID is not another's meanwhile.
	lifeMu sync.Mutex
	// +checklocks:lifeMu
	reaped bool

	// usedMu guards used, the areas of the threads that there are.
	usedMu sync.Mutex
	// +checklocks:usedMu
	used map[*Area]struct{}

	// orderMu serialises batches.
	orderMu sync.Mutex
	// spare is the queue's other buffer.
	// +checklocks:orderMu
	spare []order
	// failed is the error of a batch: the stub is gone.
	// +checklocks:orderMu
	failed error

	// queued says without a lock whether anything waits.
	queued atomic.Bool
	// flushing: what was queued is being carried out.
	flushing atomic.Bool
	queueMu  sync.Mutex
	// +checklocks:queueMu
	queue []order

	// areas are those mapped and not in use.
	// +checklocks:orderMu
	areas []*Area
	// +checklocks:orderMu
	numAreas int

	release sync.Once
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
		if a.args[2] != b.args[2] || a.args[4] != b.args[4] || a.args[5]+a.args[1] != b.args[5] {
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

// Text is what SetText told of a text.
func (s *Space) Text(text int) uint64 { return atomic.LoadUint64(&s.slot.bases[text]) }

// PID is the stub's process ID.
func (s *Space) PID() int { return s.pid }

// Dead reports whether the stub is known to have ended.
func (s *Space) Dead() bool { return s.dead.Load() }

// Flush implements platform.AddressSpace.
func (s *Space) Flush() error {
	if !s.queued.Load() && !s.flushing.Load() {
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
		s.failed = s.carryOut(q[:n])
		q = q[n:]
	}
	return s.failed
}

// Fork implements platform.AddressSpace.
func (s *Space) Fork() (platform.AddressSpace, error) {
	sl, err := s.host.newSlot()
	if err != nil {
		return nil, err
	}
	fork := s.host.beginFork()
	defer s.host.endFork()
	s.orderMu.Lock()
	var pid int
	if err = s.flushLocked(); err == nil {
		sl.texts = copy(sl.bases, s.slot.bases[:s.slot.texts])
		pid, err = s.spawn(order{nr: orderFork, args: [6]uint64{forkFlags, uint64(s.host.ctlFD), uint64(sl.off), uint64(sl.off) + orderSize}})
	}
	s.orderMu.Unlock()
	if err != nil {
		s.host.freeSlot(sl)
		return nil, err
	}
	c := &Space{host: s.host, pid: pid, slot: sl}
	s.host.enter(c, fork)
	if err := c.await(&sl.reply.ready, 50*time.Microsecond, func(v uint32) bool { return v != 0 }); err != nil {
		c.Release()
		return nil, err
	}
	return c, nil
}

// spawn carries out an order that makes a process or a thread and returns its ID.
//
// +checklocks:s.orderMu
func (s *Space) spawn(o order) (int, error) {
	if err := s.carryOut([]order{o}); err != nil {
		return 0, err
	}
	n := s.slot.reply.ret.Load()
	if n < 0 && n > -4096 {
		return 0, unix.Errno(-n)
	}
	// The word is the guest's to forge; an ID that is no child of the sentry's fails in wait4 and ptrace.
	if n <= 1 || n > 1<<22 {
		return 0, GoneError{What: "it answered with nonsense"}
	}
	return int(n), nil
}

// NewThread implements platform.AddressSpace.
func (s *Space) NewThread() (platform.Thread, error) {
	s.orderMu.Lock()
	defer s.orderMu.Unlock()
	var a *Area
	o := order{nr: orderThread, args: [6]uint64{threadFlags}}
	if s.host.cfg.Handlers {
		var err error
		if a, err = s.newAreaLocked(); err != nil {
			return nil, err
		}
		o.args[1], o.args[2] = a.addr, 1
	}
	s.slot.reply.ready.Store(0)
	tid, err := s.spawn(o)
	if err != nil {
		return nil, err
	}
	if a == nil { // with an area the thread tells of itself by its first trap
		if err = s.await(&s.slot.reply.ready, 50*time.Microsecond, func(v uint32) bool { return v != 0 }); err != nil {
			return nil, err
		}
	}
	return s.host.cfg.NewThread(s, tid, a)
}

// Release implements platform.AddressSpace.
func (s *Space) Release() {
	s.release.Do(func() {
		s.dead.Store(true)
		s.reap()
		s.host.freeSlot(s.slot)
		s.orderMu.Lock()
		for _, a := range s.areas {
			s.host.freeChunk(a.chunk)
		}
		s.areas = nil
		s.orderMu.Unlock()
	})
}
