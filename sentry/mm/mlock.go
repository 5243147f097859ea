package mm

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
)

// MLock is mlock(2), or with onFault mlock2(2)'s MLOCK_ONFAULT. Pages of the sandbox are never swapped by moat itself; locking brings them in and is accounted.
func (mm *MemoryManager) MLock(c Caller, addr hostarch.Addr, length uint64, onFault bool) error {
	if !c.IPCLock && c.limit(linux.RLIMIT_MEMLOCK) == 0 {
		return unix.EPERM
	}
	start := uint64(addr) &^ pageMask
	n := pageUp(length + uint64(addr)&pageMask)
	if start+n < start {
		if !c.IPCLock {
			return unix.ENOMEM // it is more than anybody may lock
		}
		return unix.EINVAL
	}
	mode := lockEager
	if onFault {
		mode = lockOnFault
	}
	mm.mu.Lock()
	err := mm.setLock(c, start, start+n, mode)
	mm.unlock()
	if err != nil || onFault {
		return err
	}
	return mm.populateLocked(start, start+n)
}

// populateLocked brings pages in for mlock, whose errors are ENOMEM and EAGAIN (mm/mlock.c __mlock_posix_error_return).
func (mm *MemoryManager) populateLocked(start, end uint64) error {
	for start < end {
		n, err := mm.populate(start, min(end, start+maxAround), hostarch.NoAccess, true)
		if start += n; err == unix.ENOMEM {
			return unix.EAGAIN
		} else if err != nil {
			return unix.ENOMEM
		}
	}
	return nil
}

// MUnlock is munlock(2).
func (mm *MemoryManager) MUnlock(addr hostarch.Addr, length uint64) error {
	start := uint64(addr) &^ pageMask
	n := pageUp(length + uint64(addr)&pageMask)
	if start+n < start {
		return unix.EINVAL
	}
	mm.mu.Lock()
	defer mm.unlock()
	return mm.setLock(Caller{}, start, start+n, unlocked)
}

func (mm *MemoryManager) setLock(c Caller, start, end uint64, mode lockMode) error {
	if start == end {
		return nil
	}
	if mode != unlocked {
		var have uint64
		for it := mm.vmas.Find(start); mm.vmas.Ok(it) && mm.vmas.At(it).Start < end; it = mm.vmas.Next(it) {
			if sp := mm.vmas.At(it); sp.Val.lock != unlocked {
				have += min(end, sp.End) - max(start, sp.Start)
			}
		}
		if !mm.mayLock(c, end-start-have) {
			return unix.ENOMEM
		}
	}
	it := mm.vmas.Find(start)
	for at := start; at < end; {
		if !mm.vmas.Ok(it) || mm.vmas.At(it).Start > at {
			return unix.ENOMEM
		}
		if v := &mm.vmas.At(it).Val; v.lock != mode && v.flags&vmSpecial == 0 {
			it = mm.isolate(it, start, end)
			sp := mm.vmas.At(it)
			mm.stat.sub(&sp.Val, sp.Len())
			sp.Val.lock = mode
			mm.stat.add(&sp.Val, sp.Len())
			it = mm.mergeVMA(it)
		}
		at = mm.vmas.At(it).End
		it = mm.vmas.Next(it)
	}
	return nil
}

// MLockAll is mlockall(2); MUnlockAll is flags 0.
func (mm *MemoryManager) MLockAll(c Caller, flags int32) error {
	if flags == 0 || flags&^(linux.MCL_CURRENT|linux.MCL_FUTURE|linux.MCL_ONFAULT) != 0 || flags == linux.MCL_ONFAULT {
		return unix.EINVAL
	}
	lim := c.limit(linux.RLIMIT_MEMLOCK)
	if !c.IPCLock && lim == 0 {
		return unix.EPERM
	}
	mm.mu.Lock()
	if flags&linux.MCL_CURRENT != 0 && !c.IPCLock && mm.stat.total > lim {
		mm.mu.Unlock()
		return unix.ENOMEM
	}
	mode := lockEager
	if flags&linux.MCL_ONFAULT != 0 {
		mode = lockOnFault
	}
	mm.lockFuture = unlocked
	if flags&linux.MCL_FUTURE != 0 {
		mm.lockFuture = mode
	}
	if flags&linux.MCL_CURRENT != 0 {
		mm.lockAllLocked(mode)
	}
	mm.unlock()
	if flags&linux.MCL_CURRENT != 0 && mode == lockEager {
		for _, ar := range mm.ranges() {
			mm.Populate(ar.Start, uint64(ar.Length()))
		}
	}
	return nil
}

// MUnlockAll is munlockall(2).
func (mm *MemoryManager) MUnlockAll() {
	mm.mu.Lock()
	mm.lockFuture = unlocked
	mm.lockAllLocked(unlocked)
	mm.unlock()
}

func (mm *MemoryManager) lockAllLocked(mode lockMode) {
	for it := mm.vmas.First(); mm.vmas.Ok(it); it = mm.vmas.Next(it) {
		if sp := mm.vmas.At(it); sp.Val.flags&vmSpecial == 0 {
			mm.stat.sub(&sp.Val, sp.Len())
			sp.Val.lock = mode
			mm.stat.add(&sp.Val, sp.Len())
			it = mm.mergeVMA(it)
		}
	}
}

func (mm *MemoryManager) ranges() []hostarch.AddrRange {
	mm.mu.RLock()
	defer mm.mu.RUnlock()
	rs := make([]hostarch.AddrRange, 0, mm.vmas.Len())
	for it := mm.vmas.First(); mm.vmas.Ok(it); it = mm.vmas.Next(it) {
		rs = append(rs, addrRange(mm.vmas.At(it).Start, mm.vmas.At(it).End))
	}
	return rs
}
