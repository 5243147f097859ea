package mm

import (
	"moat/sentry/memmap"
	"moat/sentry/memmap/spans"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
)

// vmaFlags are a mapping's properties besides its permissions (VM_*).
type vmaFlags uint16

const (
	vmPrivate vmaFlags = 1 << iota
	vmGrowsDown
	vmNoReserve
	vmDontFork
	vmWipeOnFork
	vmDontDump
	vmHuge
	vmNoHuge
	vmAccount // its length is charged to the memory file
	vmRandRead
	vmSeqRead
	vmProgram // MMapOpts.Program
	vmSealed  // mseal(2)
	vmSpecial // vDSO and vvar: may not be moved in part or written
	vmNoGrow  // MMapOpts.NoExpand
	vmGuard   // MADV_GUARD_INSTALL: nobody may touch it
)

// lockMode is whether and how a mapping is locked (mlock(2)).
type lockMode uint8

const (
	unlocked lockMode = iota
	lockOnFault
	lockEager
)

// vma is one guest mapping. Its range is the span's.
type vma struct {
	// mappable is nil for private anonymous memory; off is the offset in it of the mapping's start.
	mappable memmap.Mappable
	off      uint64
	// id is the file behind the mapping, nil if there is none. Each vma holds a reference.
	id memmap.Identity
	// name is "[vdso]" and the like, or a PR_SET_VMA_ANON_NAME name.
	name            string
	perms, maxPerms hostarch.AccessType
	flags           vmaFlags
	lock            lockMode
	// filling is set while fillSegments brings the mapping in.
	filling bool
	// eager is how many mprotects that allow writes are carried out at once, because the last that was not was followed by a write.
	eager uint8

	// around is the fault-around window, and last the end (or, downwards, the start) of what it last brought in, behind which the last fault
	// went on if goesOn is set.
	goesOn bool
	around uint32
	cowWin uint32
	lastUp uint64
	lastDn uint64
}

func (v *vma) private() bool   { return v.flags&vmPrivate != 0 }
func (v *vma) anonymous() bool { return v.mappable == nil }

// sharedWritable is whether a Mappable must expect writes.
func (v *vma) sharedWritable() bool { return !v.private() && v.maxPerms.Write }

// effective is what x86 page tables can express: everything that may be written or executed may be read.
func effective(at hostarch.AccessType) hostarch.AccessType {
	at.Read = at.Read || at.Write || at.Execute
	return at
}

// can is what may be done with the pages of v.
func (v *vma) can() hostarch.AccessType {
	if v.flags&vmGuard != 0 {
		return hostarch.NoAccess
	}
	return effective(v.perms)
}

// fileRange translates a range of addresses in the vma that starts at start.
func (v *vma) fileRange(start, a, b uint64) memmap.FileRange {
	return memmap.FileRange{Start: v.off + (a - start), End: v.off + (b - start)}
}

// compatible reports whether b, right behind a, can be one mapping with it (mm/vma.c is_mergeable_vma).
func compatible(a, b *spans.Span[vma]) bool {
	x, y := &a.Val, &b.Val
	return a.End == b.Start && x.mappable == y.mappable && x.id == y.id && x.perms == y.perms && x.maxPerms == y.maxPerms &&
		x.flags == y.flags && x.lock == y.lock && x.name == y.name && x.flags&vmSpecial == 0 &&
		(x.mappable == nil || x.off+a.Len() == y.off)
}

// insertVMA adds a mapping, joined to its neighbours if they are alike. It takes over the vma's reference to its identity.
// Preconditions: mu is held for writing; the range is free; AddMapping was called.
func (mm *MemoryManager) insertVMA(start, end uint64, v vma) {
	mm.stat.add(&v, end-start)
	it := mm.vmas.Insert(spans.Span[vma]{Start: start, End: end, Val: v})
	mm.mergeVMA(it)
}

// mergeVMA joins the mapping at it with its neighbours where it can, and returns the position of what became of it.
func (mm *MemoryManager) mergeVMA(it spans.Iter) spans.Iter {
	if p, ok := mm.vmas.Prev(it); ok && compatible(mm.vmas.At(p), mm.vmas.At(it)) {
		it = mm.joinNext(p)
	}
	if n := mm.vmas.Next(it); mm.vmas.Ok(n) && compatible(mm.vmas.At(it), mm.vmas.At(n)) {
		it = mm.joinNext(it)
	}
	return it
}

func (mm *MemoryManager) joinNext(it spans.Iter) spans.Iter {
	n := mm.vmas.Next(it)
	start, end := mm.vmas.At(it).Start, mm.vmas.At(n).End
	mm.releaseID(mm.vmas.At(n).Val.id)
	mm.vmas.Remove(n)
	mm.vmas.SetBounds(it, start, end)
	return it
}

func (mm *MemoryManager) releaseID(id memmap.Identity) {
	if id != nil {
		mm.released = append(mm.released, id)
	}
}

// splitVMA cuts the mapping at it at addr, inside it, and returns the second half.
func (mm *MemoryManager) splitVMA(it spans.Iter, addr uint64) spans.Iter {
	it = mm.vmas.Split(it, addr)
	p, _ := mm.vmas.Prev(it)
	v := &mm.vmas.At(it).Val
	if v.mappable != nil {
		v.off += addr - mm.vmas.At(p).Start
	}
	if v.id != nil {
		v.id.IncRef()
	}
	return it
}

// isolate cuts the mapping at it so that it lies within [start, end), and returns its position.
func (mm *MemoryManager) isolate(it spans.Iter, start, end uint64) spans.Iter {
	if mm.vmas.At(it).Start < start {
		it = mm.splitVMA(it, start)
	}
	if mm.vmas.At(it).End > end {
		it, _ = mm.vmas.Prev(mm.splitVMA(it, end))
	}
	return it
}

// removeVMAs removes all mappings and pages in [start, end) and queues the change. Without a platform change if unmap is false.
// Preconditions: mu is held for writing.
// +checklocks:mm.mu
func (mm *MemoryManager) removeVMAs(start, end uint64, unmap bool) {
	if start > end {
		panic("mm: a range that ends before it starts")
	}
	it := mm.vmas.Find(start)
	found := false
	for mm.vmas.Ok(it) && mm.vmas.At(it).Start < end {
		found = true
		it = mm.isolate(it, start, end)
		sp := mm.vmas.At(it)
		v := &sp.Val
		mm.stat.sub(v, sp.Len())
		if v.flags&vmAccount != 0 {
			mm.mf.Uncharge(sp.Len())
		}
		if v.mappable != nil {
			v.mappable.RemoveMapping(mm, addrRange(sp.Start, sp.End), v.off, v.sharedWritable())
		}
		mm.releaseID(v.id)
		it = mm.vmas.Remove(it)
	}
	if found && end >= mm.layout.gapTop {
		mm.layout.gapTop = 0
	}
	if found && mm.removePMAs(start, end) && unmap {
		mm.as.Unmap(addrRange(start, end))
	}
}

// covered reports whether [start, end) is mapped without a hole.
func (mm *MemoryManager) covered(start, end uint64) bool {
	for it := mm.vmas.Find(start); mm.vmas.Ok(it) && mm.vmas.At(it).Start <= start; it = mm.vmas.Next(it) {
		if start = mm.vmas.At(it).End; start >= end {
			return true
		}
	}
	return false
}

func addrRange(start, end uint64) hostarch.AddrRange {
	return hostarch.AddrRange{Start: hostarch.Addr(start), End: hostarch.Addr(end)}
}

func pageUp(n uint64) uint64 { return (n + pageMask) &^ pageMask }

// vmStat counts mapped bytes as /proc/PID/statm and status do.
type vmStat struct {
	total, data, stack, exec, locked, peak uint64
}

// isData is whether a mapping counts against RLIMIT_DATA (mm/internal.h is_data_mapping).
func isData(perms hostarch.AccessType, flags vmaFlags) bool {
	return perms.Write && flags&vmPrivate != 0 && flags&vmGrowsDown == 0
}

func (s *vmStat) add(v *vma, n uint64) { s.change(v, n); s.peak = max(s.peak, s.total) }
func (s *vmStat) sub(v *vma, n uint64) { s.change(v, -n) }
func (s *vmStat) change(v *vma, n uint64) {
	s.total += n
	switch {
	case isData(v.perms, v.flags):
		s.data += n
	case v.flags&vmGrowsDown != 0:
		s.stack += n
	case v.perms.Execute && !v.perms.Write:
		s.exec += n
	}
	if v.lock != unlocked {
		s.locked += n
	}
}

// mayExpand checks RLIMIT_AS and RLIMIT_DATA for n more bytes (mm/mmap.c may_expand_vm).
func (mm *MemoryManager) mayExpand(c Caller, perms hostarch.AccessType, flags vmaFlags, n uint64) error {
	if as := c.limit(linux.RLIMIT_AS); mm.stat.total+n > as {
		return unix.ENOMEM
	}
	if isData(perms, flags) && mm.stat.data+n > c.limit(linux.RLIMIT_DATA) {
		return unix.ENOMEM
	}
	return nil
}

// mayLock checks RLIMIT_MEMLOCK for n more locked bytes.
func (mm *MemoryManager) mayLock(c Caller, n uint64) bool {
	return c.IPCLock || mm.stat.locked+n <= c.limit(linux.RLIMIT_MEMLOCK)
}
