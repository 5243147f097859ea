package stub

import (
	"time"

	"golang.org/x/sys/unix"
)

// A stub takes the host some tenths of a millisecond to make: a process with its mappings, and threads. So stubs are used for one address
// space after the other, and some are always ready.
//
// When an address space is released its mappings go, which the helper tells in a way that no guest can forge; then its guest threads are told to
// end. Only when the host says that they have ended is the stub used again: a guest thread that stays, whatever it may have done to its registers and
// its area, would run in the next address space.

const (
	// maxReady is how many stubs wait for use, or are being made ready for it.
	maxReady = 8
	// firstThreads is how many guest threads a new stub has; one that is used again has as many as were used, up to maxThreads.
	firstThreads, maxThreads = 2, 8
	// exitPatience is how long a guest thread may take to end.
	exitPatience = time.Second
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

// put adds a stub, one of those that are coming, to the ready ones; nil if it came to nothing.
func (h *Host) put(s *Space) {
	h.mu.Lock()
	h.coming--
	if s != nil && !h.closed {
		s.released.Store(false)
		h.ready = append(h.ready, s)
		s = nil
	}
	h.mu.Unlock()
	if s != nil {
		s.kill()
	}
}

// take returns a stub with nothing mapped.
func (h *Host) take() (*Space, error) {
	if h.zygote.dead.Load() {
		return nil, h.zygote.gone()
	}
	h.mu.Lock()
	var s *Space
	var ended []*Space
	for n := len(h.ready); n > 0 && s == nil; n-- {
		s = h.ready[n-1]
		h.ready[n-1] = nil
		h.ready = h.ready[:n-1]
		if s.dead.Load() {
			ended, s = append(ended, s), nil
		}
	}
	low := len(h.ready) == 0 && h.coming == 0 && !h.closed
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
		return h.create()
	}
	return s, nil
}

func (h *Host) refill() {
	s, _ := h.create() // whoever needs one will meet the error
	h.put(s)
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
	s := &Space{host: h, pid: pid, slot: sl, cpu: -1}
	h.enter(s, fork)
	if err := s.settle(); err != nil {
		s.kill()
		return nil, err
	}
	return s, nil
}

// settle gives a new stub its first threads.
func (s *Space) settle() error {
	s.orderMu.Lock()
	defer s.orderMu.Unlock()
	if s.host.cfg.Handlers {
		if err := s.populateLocked(firstThreads); err != nil {
			return err
		}
	}
	s.settled = true
	return nil
}

// populateLocked makes n idle guest threads, in a stub that has none: what is in their areas is what the host wrote there.
//
// +checklocks:s.orderMu
func (s *Space) populateLocked(n int) error {
	made := make([]*Area, n)
	var orders, threads []order
	for i := range made {
		a, o, err := s.newAreaLocked()
		if err != nil {
			return err
		}
		a.Control().SentrySleeps.Store(1) // it is waited for below: it need ring no bell
		made[i], orders, threads = a, append(orders, o...), append(threads, threadOrder(a))
	}
	if _, err := s.makeLocked(append(orders, threads...)); err != nil {
		return err
	}
	for _, a := range made {
		a.tid = int(a.Control().tid.Load())
		s.freeCPU(a.tid)
		s.tids = append(s.tids, a.tid)
		s.idle = append(s.idle, a)
	}
	for _, a := range made {
		if err := a.Await(0); err != nil { // until it is in the handler it could not be told to end
			return err
		}
		a.Control().SentrySleeps.Store(0)
	}
	return nil
}

// empty unmaps everything and lets the guest threads go; false if the stub is of no use any more.
func (s *Space) empty() bool {
	s.queueMu.Lock()
	s.queue = s.queue[:0]
	s.queued.Store(false)
	s.queueMu.Unlock()
	s.orderMu.Lock()
	defer s.orderMu.Unlock()
	ok := !s.broken.Load() && !s.dead.Load() && s.failed == nil && s.carryOut([]order{
		{nr: unix.SYS_MUNMAP, args: [6]uint64{minUser, WindowBase - minUser}},
		{nr: unix.SYS_MUNMAP, args: [6]uint64{windowEnd, stubBase - windowEnd}},
	}) == nil
	if !ok {
		s.host.put(nil)
		return false
	}
	for _, a := range s.idle {
		a.leave()
	}
	return true
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

// renew makes an emptied stub ready for the next address space.
func (s *Space) renew() {
	err := s.awaitEnd()
	if err == nil {
		s.orderMu.Lock()
		n := min(max(s.used, 1), maxThreads)
		s.used = 0
		s.tids = s.tids[:0]
		s.free, s.idle = append(s.free, s.idle...), s.idle[:0]
		clear(s.slot.bases[:s.slot.texts])
		s.slot.texts = 0
		if s.host.cfg.Handlers {
			err = s.populateLocked(n)
		}
		s.orderMu.Unlock()
	}
	if err != nil {
		s.host.put(nil)
		s.kill()
		return
	}
	s.host.put(s)
}

// awaitEnd waits until no guest thread is left. The host clears the state of one that ends; that may be forged, so the host is asked.
func (s *Space) awaitEnd() error {
	s.orderMu.Lock()
	tids, idle := s.tids, s.idle
	s.orderMu.Unlock()
	start := time.Now()
	for _, a := range idle {
		for v := a.Control().State.Load(); v != stateEnded && time.Since(start) < exitPatience; v = a.Control().State.Load() {
			futexWait(&a.Control().State, v, exitPatience)
		}
	}
	for _, tid := range tids {
		for d := 20 * time.Microsecond; !s.ended(tid); d = min(2*d, time.Millisecond) {
			if time.Since(start) > exitPatience {
				return GoneError{What: "a guest thread did not end"}
			}
			time.Sleep(d)
		}
	}
	return nil
}
