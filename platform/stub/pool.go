package stub

import (
	"cmp"
	"slices"

	"golang.org/x/sys/unix"

	"moat/platform"
)

// A stub takes the host some tenths of a millisecond to make: a process with its mappings, and threads. So stubs are used for one address
// space after the other, and some are always ready.
//
// When an address space is released its mappings go, which the helper tells in a way that no guest can forge. Then it waits until its guest threads, which were told to
// end, have ended, and makes new ones. Only the host is asked whether they have: a guest thread that stays, whatever it may have done to its registers and its area, would
// run in the next address space. If one does not end, the helper ends the stub.
//
// An address space that is kept (platform.Keeper) has its mappings until it is reclaimed or something else is made of the stub. It counts as released when its guest threads have
// ended: their pages may then be others'.

const (
	// maxReady is how many stubs wait for use, or are being made ready for it.
	maxReady = 8
	// firstThreads is how many guest threads a new stub has; one that is used again has as many as were used, up to maxThreads.
	firstThreads, maxThreads = 2, 8
	// maxEnds is how many guest threads may have to end before a stub is used again.
	maxEnds = 256
)

// want reports whether there is room for one stub more, and takes it.
func (h *Host) want() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || h.coming+len(h.ready) >= maxReady {
		return false
	}
	h.coming++
	return true
}

// put adds one of the stubs that are coming to the ready ones, with a ticket if it is kept; false if it came to nothing, or is not wanted any more.
func (h *Host) put(s *Space, keep, ok bool) (ticket uint64, _ bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.coming--
	if ok = ok && !h.closed; ok {
		if keep {
			h.tickets++
			ticket = h.tickets
		}
		s.ticket = ticket
		s.released.Store(false)
		h.ready = append(h.ready, s)
	}
	return ticket, ok
}

// Keep implements platform.Keeper.
func (h *Host) Keep(as platform.AddressSpace) uint64 { return as.(*Space).retire(true) }

// take takes what is kept under ticket, which is not 0, from the ready stubs. It is left there if it is not ready yet and must be.
func (h *Host) take(ticket uint64, ready bool) (s *Space, gone bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.IndexFunc(h.ready, func(s *Space) bool { return s.ticket == ticket })
	if i < 0 {
		return nil, true
	}
	if s = h.ready[i]; !ready {
		h.coming++
	} else if !s.dead.Load() && !s.renewed() {
		return nil, false
	}
	s.ticket = 0
	h.ready = slices.Delete(h.ready, i, i+1)
	return s, false
}

// Reclaim implements platform.Keeper.
func (h *Host) Reclaim(ticket uint64) (as platform.AddressSpace, gone bool) {
	s, gone := h.take(ticket, true)
	if s == nil {
		return nil, gone
	}
	if err := s.adopt(); err != nil {
		s.kill()
		return nil, true
	}
	return s, false
}

// Discard implements platform.Keeper. It does not wait until the mappings are gone.
func (h *Host) Discard(ticket uint64) {
	s, gone := h.take(ticket, false)
	if gone {
		return
	}
	s.orderMu.Lock()
	err := s.await(s.slot.order.seq.Load())
	if err == nil {
		s.tell(unmapAll[:])
	}
	s.orderMu.Unlock()
	if _, ok := h.put(s, false, err == nil); !ok {
		s.kill()
	}
}

// NewAddressSpace implements platform.Platform.
func (h *Host) NewAddressSpace() (platform.AddressSpace, error) {
	if h.zygote.dead.Load() {
		return nil, h.zygote.gone()
	}
	h.mu.Lock()
	s, ended := h.pick()
	mapped := s != nil && s.ticket != 0
	if mapped {
		s.ticket = 0
	}
	low := h.coming == 0 && len(h.ready) < maxReady && !h.closed && !slices.ContainsFunc(h.ready, (*Space).empty)
	if low {
		h.coming++
	}
	h.mu.Unlock()
	for _, e := range ended {
		e.kill()
	}
	if low {
		go h.refill()
	}
	if s == nil {
		var err error
		if s, err = h.create(); err != nil {
			return nil, err
		}
	}
	if mapped {
		s.push(unmapAll[0])
		s.push(unmapAll[1])
	}
	if err := s.adopt(); err != nil {
		s.kill()
		return nil, err
	}
	return s, nil
}

// empty reports whether a ready stub has no mappings that are kept.
func (s *Space) empty() bool { return s.ticket == 0 }

// pick takes a stub out of the ready ones: an empty one or, if there are none, the one that has been kept longest; nil if none is ready yet. Those that have ended it
// takes out, too.
// +checklocks:h.mu
func (h *Host) pick() (s *Space, ended []*Space) {
	h.ready = slices.DeleteFunc(h.ready, func(r *Space) bool {
		if r.dead.Load() {
			ended = append(ended, r)
			return true
		}
		return false
	})
	any := slices.ContainsFunc(h.ready, (*Space).empty)
	for _, r := range h.ready {
		if r.empty() == any && r.renewed() {
			if s = r; !any {
				break
			}
		}
	}
	h.ready = slices.DeleteFunc(h.ready, func(r *Space) bool { return r == s })
	return s, ended
}

func (h *Host) refill() {
	s, err := h.create() // whoever needs one will meet the error
	if _, ok := h.put(s, false, err == nil); !ok && err == nil {
		s.kill()
	}
}

// create makes a stub from the zygote, in which no guest code ever runs.
func (h *Host) create() (*Space, error) {
	sl, err := h.newSlot()
	if err != nil {
		return nil, err
	}
	fork := h.beginFork()
	defer h.endFork()
	z := h.zygote
	z.orderMu.Lock()
	pid, err := z.makeLocked([]order{{nr: orderFork, args: [6]uint64{forkFlags, uint64(h.ctlFD), uint64(sl.off), uint64(sl.off) + orderSize}}})
	z.orderMu.Unlock()
	if err != nil {
		h.freeSlot(sl)
		return nil, err
	}
	s := &Space{host: h, pid: pid, slot: sl, cpu: -1, used: firstThreads}
	h.enter(s, fork)
	if !s.renew(false) {
		s.kill()
		return nil, s.gone()
	}
	return s, nil
}

// unmapAll removes all mappings that a guest may have.
var unmapAll = [...]order{
	{nr: unix.SYS_MUNMAP, args: [6]uint64{minUser, WindowBase - minUser}},
	{nr: unix.SYS_MUNMAP, args: [6]uint64{windowEnd, stubBase - windowEnd}},
}

// renew empties the stub, unless its mappings are to be kept, and has its helper make it ready for the next address space, which goes on when renew returns; false if it is of no use
// any more.
func (s *Space) renew(keep bool) bool {
	s.orderMu.Lock()
	defer s.orderMu.Unlock()
	if !keep {
		s.queueMu.Lock()
		s.queue = s.queue[:0]
		s.queued.Store(false)
		s.queueMu.Unlock()
	} else if s.flushLocked() != nil {
		return false
	}
	if s.broken.Load() || s.failed != nil || len(s.tids) > maxEnds {
		return false
	}
	told := []order{
		{nr: unix.SYS_PWRITE64, args: [6]uint64{uint64(s.host.ctlFD), partAddr, 4, s.slot.order.ackOff}},
		{nr: unix.SYS_FUTEX, args: [6]uint64{ackAddr, futexWakeOp, 1}},
	}
	var orders []order
	if !keep {
		orders = append(unmapAll[:], told...)
	}
	orders = append(orders, freeOrder)
	words := map[int]uint64{} // whether a thread has ended is looked for 20000 times, every 50 us and when its area says so
	for _, a := range s.idle {
		words[a.tid] = a.addr
		a.leave()
	}
	for _, tid := range s.tids {
		orders = append(orders, order{nr: orderEnd, args: [6]uint64{uint64(s.pid), uint64(tid), cmp.Or(words[tid], orderAddr), 0, 50_000}})
	}
	if keep {
		orders = append(orders, told...)
	}
	clear(s.slot.bases[:s.slot.texts])
	s.free, s.idle, s.tids, s.slot.texts = append(s.free, s.idle...), s.idle[:0], s.tids[:0], 0
	n := min(max(s.used, 1), maxThreads)
	for s.used = 0; n > 0 && s.host.cfg.Handlers; n-- {
		// The old threads can write to their areas until they end: the new ones get other memory.
		a, mapped, err := s.newAreaLocked()
		if err != nil {
			return false
		}
		a.Control().SentrySleeps.Store(1) // it need ring no bell
		s.made, orders = append(s.made, a), append(orders, mapped, threadOrder(a, 1))
	}
	return s.carryOut(orders, s.host.cfg.Handlers) == nil
}

// renewed reports whether the stub, which is in the pool, can be used again.
func (s *Space) renewed() bool {
	return s.slot.order.ack.Load() == s.slot.order.seq.Load() && !slices.ContainsFunc(s.made, func(a *Area) bool { return a.Control().State.Load() != StateEvent })
}

// adopt makes idle threads of those that the helper made: in a stub that had none, so that what is in their areas is what the host wrote there.
func (s *Space) adopt() error {
	s.orderMu.Lock()
	defer s.orderMu.Unlock()
	if err := s.await(s.slot.order.seq.Load()); err != nil {
		return err
	}
	for _, a := range s.made {
		if err := a.Await(0); err != nil {
			return err
		}
		a.tid = int(a.Control().tid.Load())
		s.noteLocked(a.tid)
		a.Control().SentrySleeps.Store(0)
	}
	s.idle = append(s.idle, s.made...)
	s.host.freeChunks(s.stale...)
	s.made, s.stale = s.made[:0], s.stale[:0]
	return nil
}

// leave tells a's thread to end.
func (a *Area) leave() {
	c := a.Control()
	for v := c.State.Load(); v != stateEnded && !c.State.CompareAndSwap(v, StateExit); v = c.State.Load() {
	}
	if a.rouse() {
		a.Wake()
	}
}
