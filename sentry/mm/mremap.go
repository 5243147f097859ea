package mm

import (
	"moat/sentry/memmap/spans"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
)

// MRemap is mremap(2), with the checks of mm/mremap.c in their order.
func (mm *MemoryManager) MRemap(c Caller, addr hostarch.Addr, oldLen, newLen uint64, flags uint32, newAddr hostarch.Addr) (hostarch.Addr, error) {
	const known = linux.MREMAP_MAYMOVE | linux.MREMAP_FIXED | unix.MREMAP_DONTUNMAP
	old := uint64(addr)
	fixed, dontUnmap := flags&linux.MREMAP_FIXED != 0, flags&unix.MREMAP_DONTUNMAP != 0
	switch {
	case flags&^uint32(known) != 0,
		flags&linux.MREMAP_MAYMOVE == 0 && (fixed || dontUnmap),
		dontUnmap && pageUp(oldLen) != pageUp(newLen),
		old&pageMask != 0:
		return 0, unix.EINVAL
	}
	oldLen, newLen = pageUp(oldLen), pageUp(newLen)
	if newLen == 0 || newLen > taskSize || old > taskSize {
		return 0, unix.EINVAL
	}
	to := uint64(0) // otherwise the new address does not count, not even as a hint
	if fixed || dontUnmap {
		to = uint64(newAddr)
		switch {
		case to&pageMask != 0, to > taskSize-newLen, to < old+oldLen && old < to+newLen:
			return 0, unix.EINVAL
		}
	}
	mm.mu.Lock()
	res, err := mm.mremapLocked(c, old, oldLen, newLen, to, flags)
	populate := false
	if err == nil {
		sp := mm.vmas.Lookup(res)
		populate = sp != nil && sp.Val.lock == lockEager && newLen > oldLen
	}
	mm.unlock()
	if populate {
		mm.Populate(hostarch.Addr(res+oldLen), newLen-oldLen)
	}
	return hostarch.Addr(res), err
}

// +checklocks:mm.mu
func (mm *MemoryManager) mremapLocked(c Caller, old, oldLen, newLen, to uint64, flags uint32) (uint64, error) {
	fixed, dontUnmap := flags&linux.MREMAP_FIXED != 0, flags&unix.MREMAP_DONTUNMAP != 0
	sp := mm.vmas.Lookup(old)
	if sp == nil {
		return 0, unix.EFAULT
	}
	v := &sp.Val
	if oldLen > taskSize-old {
		if oldLen >= newLen { // munmap(2) says so
			return 0, unix.EINVAL
		}
		return 0, unix.EFAULT
	}
	if v.flags&vmSealed != 0 || oldLen > newLen && mm.sealed(old+newLen, old+oldLen) || fixed && mm.sealed(to, to+newLen) {
		return 0, unix.EPERM
	}
	// Shrinking in place may span several mappings, like munmap.
	if !fixed && !dontUnmap && oldLen >= newLen {
		if oldLen > newLen {
			mm.removeVMAs(old+newLen, old+oldLen, true)
		}
		return old, nil
	}
	if oldLen == 0 {
		// A second mapping of the same object: for shared mappings only.
		if v.private() || dontUnmap {
			return 0, unix.EINVAL
		}
	}
	if dontUnmap && v.flags&vmNoGrow != 0 {
		return 0, unix.EINVAL
	}
	if v.flags&(vmSpecial|vmNoGrow) != 0 && (dontUnmap || oldLen != newLen) {
		return 0, unix.EFAULT
	}
	if fixed && newLen < oldLen {
		mm.removeVMAs(old+newLen, old+oldLen, true)
		oldLen = newLen
		if sp = mm.vmas.Lookup(old); sp == nil {
			return 0, unix.EFAULT
		}
		v = &sp.Val
	}
	if old+oldLen > sp.End {
		return 0, unix.EFAULT
	}
	if newLen > oldLen || oldLen == 0 {
		if v.mappable != nil && v.off+(old-sp.Start)+newLen < v.off {
			return 0, unix.EINVAL
		}
	}
	grow := newLen - oldLen
	if v.lock != unlocked && !mm.mayLock(c, grow) {
		return 0, unix.EAGAIN
	}
	extra := grow
	if dontUnmap || oldLen == 0 {
		extra = newLen
	}
	if mm.mayExpand(c, v.perms, v.flags, extra) != nil {
		return 0, unix.ENOMEM
	}
	if !fixed && !dontUnmap && old+oldLen == sp.End && oldLen != 0 && mm.growInPlace(sp, old, oldLen, newLen) {
		return old, nil
	}
	if flags&linux.MREMAP_MAYMOVE == 0 {
		return 0, unix.ENOMEM
	}
	return mm.move(old, oldLen, newLen, to, flags)
}

// growInPlace extends the mapping behind its end if there is room.
func (mm *MemoryManager) growInPlace(sp *spans.Span[vma], old, oldLen, newLen uint64) bool {
	end := old + newLen
	if end > uint64(mm.lim.End) || end < old || mm.reserved(old, end) {
		return false
	}
	if it := mm.vmas.Find(sp.End); mm.vmas.Ok(it) && mm.vmas.At(it).Start < end {
		return false
	}
	v := sp.Val
	n := newLen - oldLen
	if v.flags&vmAccount != 0 && mm.mf.Charge(n) != nil {
		return false
	}
	if v.mappable != nil {
		off := v.off + sp.Len()
		if v.mappable.AddMapping(mm, addrRange(sp.End, end), off, v.sharedWritable()) != nil {
			if v.flags&vmAccount != 0 {
				mm.mf.Uncharge(n)
			}
			return false
		}
	}
	mm.stat.add(&v, n)
	it := mm.vmas.Find(sp.Start)
	mm.vmas.SetBounds(it, sp.Start, end)
	mm.mergeVMA(it)
	return true
}

// move makes a new mapping of what [old, old+oldLen) maps, with newLen bytes, and takes the pages along.
// +checklocks:mm.mu
func (mm *MemoryManager) move(old, oldLen, newLen, to uint64, flags uint32) (uint64, error) {
	fixed, dontUnmap := flags&linux.MREMAP_FIXED != 0, flags&unix.MREMAP_DONTUNMAP != 0
	if fixed {
		if to < uint64(mm.lim.Start) {
			return 0, unix.EPERM
		}
		if to+newLen > uint64(mm.lim.End) || mm.reserved(to, to+newLen) {
			return 0, unix.ENOMEM
		}
		mm.removeVMAs(to, to+newLen, true)
	} else {
		var err error
		if to, err = mm.findGap(newLen, to, false); err != nil {
			return 0, err
		}
	}
	// Making room may have removed or cut what is to be moved only if the ranges overlapped, which the caller refused.
	it := mm.vmas.Find(old)
	sp := mm.vmas.At(it)
	v := sp.Val
	if v.mappable != nil {
		v.off += old - sp.Start
	}
	charge := newLen
	if !dontUnmap && oldLen != 0 {
		charge = newLen - oldLen
	}
	if v.flags&vmAccount != 0 {
		if err := mm.mf.Charge(charge); err != nil {
			return 0, unix.ENOMEM
		}
	}
	if v.mappable != nil {
		if err := v.mappable.AddMapping(mm, addrRange(to, to+newLen), v.off, v.sharedWritable()); err != nil {
			if v.flags&vmAccount != 0 {
				mm.mf.Uncharge(charge)
			}
			return 0, err
		}
	}
	if v.id != nil {
		v.id.IncRef()
	}
	mm.movePMAs(old, oldLen, to)
	switch {
	case dontUnmap:
		// The old mapping stays, empty; locks move along (mm/mremap.c).
		it = mm.isolate(it, old, old+oldLen)
		o := mm.vmas.At(it)
		mm.stat.sub(&o.Val, o.Len())
		o.Val.lock = unlocked
		mm.stat.add(&o.Val, o.Len())
	case oldLen != 0:
		// The charge for the old length goes over to the new mapping.
		if v.flags&vmAccount != 0 {
			mm.mf.Recharge(oldLen)
		}
		mm.removeVMAs(old, old+oldLen, true)
	}
	v.around, v.lastUp, v.lastDn = 0, 0, 0
	mm.insertVMA(to, to+newLen, v)
	return to, nil
}

func (mm *MemoryManager) movePMAs(old, oldLen, to uint64) {
	if oldLen == 0 {
		return
	}
	any := false
	it := mm.pmas.Find(old)
	for mm.pmas.Ok(it) && mm.pmas.At(it).Start < old+oldLen {
		it = mm.isolatePMA(it, old, old+oldLen)
		sp := *mm.pmas.At(it)
		mm.pmas.Remove(it)
		mm.account(&sp.Val, -int64(sp.Len()))
		sp.Val.text = nil // its base is that of the old place
		mm.insertPMA(to+(sp.Start-old), to+(sp.End-old), sp.Val)
		any = true
		it = mm.pmas.Find(sp.End)
	}
	if any {
		mm.as.Unmap(addrRange(old, old+oldLen))
	}
}

// RemapFilePages is remap_file_pages(2) as Linux emulates it: it maps another part of the object in place of a part of a shared mapping (mm/mmap.c).
func (mm *MemoryManager) RemapFilePages(c Caller, addr hostarch.Addr, size, pgoff uint64) error {
	start := uint64(addr) &^ pageMask
	size &^= pageMask
	if start+size <= start || pgoff > taskSize/pageSize || pgoff+size/pageSize < pgoff {
		return unix.EINVAL
	}
	mm.mu.Lock()
	defer mm.unlock()
	sp := mm.vmas.Lookup(start)
	if sp == nil || sp.Val.private() || sp.End < start+size || sp.Val.flags&vmSpecial != 0 {
		return unix.EINVAL
	}
	v := sp.Val
	if v.id != nil {
		v.id.IncRef()
	}
	v.off, v.around, v.lastUp, v.lastDn = pgoff*pageSize, 0, 0, 0
	if err := v.mappable.AddMapping(mm, addrRange(start, start+size), v.off, v.sharedWritable()); err != nil {
		mm.releaseID(v.id)
		return err
	}
	mm.removeVMAs(start, start+size, true)
	mm.insertVMA(start, start+size, v)
	return nil
}
