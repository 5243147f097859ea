package mm

import (
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"

	"golang.org/x/sys/unix"
	"moat/sentry/memmap"
	"moat/sentry/memmap/spans"
)

// HandleFault makes the page at addr accessible after a guest's access at faulted there. nil means: try again. *FaultError says which signal to send,
// ENOMEM that the process must be killed for want of memory.
//
// If the platform cannot tell the kind of access (at is zero), a fault on a page that is there is a write. repeat says that the same thread
// faulted at the same address and instruction just before, with nothing in between: only then is a fault on a page that should allow it
// believed to be more than a race with another thread's fault.
func (mm *MemoryManager) HandleFault(c Caller, addr hostarch.Addr, at hostarch.AccessType, repeat bool) error {
	page := uint64(addr) &^ pageMask
	mm.mu.Lock()
	err := mm.faultLocked(c, page, at, repeat)
	mm.unlock()
	return err
}

// +checklocks:mm.mu
func (mm *MemoryManager) faultLocked(c Caller, page uint64, at hostarch.AccessType, repeat bool) error {
	mm.limits = c.Limits
	sp, err := mm.vmaFor(c, page)
	if err != nil {
		return err
	}
	v := &sp.Val
	if may := effective(v.perms); v.flags&vmGuard != 0 && may.Any() && may.SupersetOf(at) {
		return ErrMapErr
	}
	eff := v.can()
	if !at.Any() {
		if !eff.Any() {
			return ErrAccErr
		}
		if at, err = mm.guess(sp, page, repeat); err != nil {
			return err
		}
	}
	// A platform may report a write as a read as well.
	if at.Write {
		at = hostarch.Write
	}
	if !eff.SupersetOf(at) {
		return ErrAccErr
	}
	if run := mm.pmas.Lookup(page); run != nil && run.Val.perms.SupersetOf(at) {
		// Another thread was first, or the host lost the mapping.
		a, b := max(run.Start, sp.Start, page&^(minAround-1)), min(run.End, sp.End, page&^(minAround-1)+minAround)
		p := run.Val
		p.off += a - run.Start
		mm.mapRun(a, b, &p)
		return nil
	}
	if v.flags&vmProgram != 0 && v.perms.Write && page < sp.Start+minAround && v.segment() && mm.behindSegment(sp) {
		at = hostarch.Write // the dynamic linker looks at the data of a library before it relocates it
	}
	a, b := mm.window(sp, page)
	return faultError(mm.ensure(sp, page, page+pageSize, a, b, access{at: at}))
}

// guess decides what kind of access an unknown one was.
func (mm *MemoryManager) guess(sp *spans.Span[vma], page uint64, repeat bool) (hostarch.AccessType, error) {
	eff := sp.Val.can()
	run := mm.pmas.Lookup(page)
	if run == nil || !run.Val.perms.Read {
		if sp.Val.anonymous() && eff.Write {
			return hostarch.Write, nil
		}
		return hostarch.Read, nil
	}
	if eff.Write && !run.Val.perms.Write {
		return hostarch.Write, nil
	}
	if repeat {
		// Everything that the mapping allows is in force, and still the access faults.
		return hostarch.NoAccess, ErrAccErr
	}
	return hostarch.Read, nil
}

func faultError(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := err.(*memmap.BusError); ok {
		return ErrBusErr
	}
	if err == unix.ENOMEM {
		return err
	}
	if _, ok := err.(*FaultError); ok {
		return err
	}
	return ErrBusErr
}

// vmaFor finds the mapping of a page; a stack grows to it.
func (mm *MemoryManager) vmaFor(c Caller, page uint64) (*spans.Span[vma], error) {
	it := mm.vmas.Find(page)
	if !mm.vmas.Ok(it) {
		return nil, ErrMapErr
	}
	sp := mm.vmas.At(it)
	if sp.Start <= page {
		return sp, nil
	}
	if sp.Val.flags&vmGrowsDown == 0 || !mm.growStack(c, it, page) {
		return nil, ErrMapErr
	}
	return mm.vmas.At(mm.vmas.Find(page)), nil
}

// growStack extends the mapping at it downwards to page (mm/vma.c expand_downwards).
func (mm *MemoryManager) growStack(c Caller, it spans.Iter, page uint64) bool {
	sp := mm.vmas.At(it)
	if page < uint64(mm.lim.Start) || mm.reserved(page, sp.Start) {
		return false
	}
	if p, ok := mm.vmas.Prev(it); ok {
		prev := mm.vmas.At(p)
		if prev.Val.flags&vmGrowsDown == 0 && prev.Val.can().Any() && page-prev.End < stackGuardGap {
			return false
		}
	}
	v := &sp.Val
	n := sp.Start - page
	if sp.End-page > c.limit(linux.RLIMIT_STACK) || mm.mayExpand(c, v.perms, v.flags, n) != nil {
		return false
	}
	if v.lock != unlocked && !mm.mayLock(c, n) {
		return false
	}
	if v.flags&vmAccount != 0 && mm.mf.Charge(n) != nil {
		return false
	}
	mm.stat.add(v, n)
	if v.flags&vmGuard == 0 {
		mm.vmas.SetBounds(it, page, sp.End)
		return true
	}
	below := *v // the guard stays where it is
	below.flags &^= vmGuard
	mm.vmas.InsertAt(it, spans.Span[vma]{Start: page, End: sp.Start, Val: below})
	return true
}

// Invalidate implements memmap.Space.
func (mm *MemoryManager) Invalidate(ar hostarch.AddrRange, private bool) {
	start, end := uint64(ar.Start), uint64(ar.End)
	mm.mu.Lock()
	for it := mm.vmas.Find(start); mm.vmas.Ok(it) && mm.vmas.At(it).Start < end; it = mm.vmas.Next(it) {
		if sp := mm.vmas.At(it); !sp.Val.anonymous() {
			mm.invalidateIn(max(start, sp.Start), min(end, sp.End), private)
		}
	}
	mm.unlock()
}

// +checklocks:mm.mu
func (mm *MemoryManager) invalidateIn(start, end uint64, private bool) {
	it := mm.pmas.Find(start)
	for mm.pmas.Ok(it) && mm.pmas.At(it).Start < end {
		if mm.pmas.At(it).Val.anon && !private {
			it = mm.pmas.Next(it)
			continue
		}
		it = mm.isolatePMA(it, start, end)
		sp := mm.pmas.At(it)
		mm.as.Unmap(addrRange(sp.Start, sp.End))
		it = mm.removePMA(it)
		// The caller frees the pages as soon as this returns.
		mm.flush = true
	}
}
