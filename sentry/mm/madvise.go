package mm

import (
	"slices"

	"moat/sentry/memmap/spans"
	"moat/sentry/memory"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
)

const (
	madvPopulateRead  = 22
	madvPopulateWrite = 23
	madvDontNeedLock  = 24
	madvCollapse      = 25
	madvGuardInstall  = 102
	madvGuardRemove   = 103
)

// PunchHoler is implemented by Mappables whose pages MADV_REMOVE can free (tmpfs files).
type PunchHoler interface {
	PunchHole(off, length uint64) error
}

// MAdvise is madvise(2) (mm/madvise.c): holes in the range make the result ENOMEM, after the rest was done.
func (mm *MemoryManager) MAdvise(c Caller, addr hostarch.Addr, length uint64, advice int32) error {
	if !slices.Contains(knownAdvice, advice) {
		return unix.EINVAL
	}
	start, end, err := mm.checkRange(addr, length)
	if err != nil || start == end {
		return err
	}
	switch advice {
	case madvPopulateRead, madvPopulateWrite:
		return mm.madvPopulate(start, end, advice == madvPopulateWrite)
	case unix.MADV_REMOVE:
		return mm.madvRemove(start, end)
	}
	mm.mu.Lock()
	defer mm.unlock()
	it := mm.vmas.Find(start)
	var hole error
	for at := start; at < end; {
		if !mm.vmas.Ok(it) {
			return unix.ENOMEM
		}
		if s := mm.vmas.At(it).Start; s > at {
			hole = unix.ENOMEM
			if at = s; at >= end {
				break
			}
		}
		if it, err = mm.adviseVMA(it, start, end, advice); err != nil {
			return err
		}
		at = mm.vmas.At(it).End
		it = mm.vmas.Next(it)
	}
	return hole
}

var knownAdvice = []int32{
	unix.MADV_NORMAL, unix.MADV_RANDOM, unix.MADV_SEQUENTIAL, unix.MADV_WILLNEED, unix.MADV_DONTNEED, unix.MADV_FREE, unix.MADV_REMOVE,
	unix.MADV_DONTFORK, unix.MADV_DOFORK, unix.MADV_MERGEABLE, unix.MADV_UNMERGEABLE, unix.MADV_HUGEPAGE, unix.MADV_NOHUGEPAGE,
	unix.MADV_DONTDUMP, unix.MADV_DODUMP, unix.MADV_WIPEONFORK, unix.MADV_KEEPONFORK, unix.MADV_COLD, unix.MADV_PAGEOUT,
	madvPopulateRead, madvPopulateWrite, madvDontNeedLock, madvCollapse,
	madvGuardInstall, madvGuardRemove,
}

// adviseVMA applies an advice to the part of the mapping at it that lies in [start, end), and returns the position of what was advised.
// +checklocks:mm.mu
func (mm *MemoryManager) adviseVMA(it spans.Iter, start, end uint64, advice int32) (spans.Iter, error) {
	sp := mm.vmas.At(it)
	v := &sp.Val
	s, e := max(start, sp.Start), min(end, sp.End)
	flags := v.flags
	switch advice {
	case unix.MADV_DONTNEED, madvDontNeedLock, madvGuardInstall:
		if v.lock != unlocked && advice != madvDontNeedLock || v.flags&vmSpecial != 0 {
			return it, unix.EINVAL
		}
		if v.flags&vmSealed != 0 && v.anonymous() && !v.perms.Write {
			return it, unix.EPERM // would discard what may not be written
		}
		if mm.zap(s, e); advice != madvGuardInstall {
			return it, nil
		}
		flags |= vmGuard
	case madvGuardRemove:
		if v.flags&vmSpecial != 0 {
			return it, unix.EINVAL
		}
		flags &^= vmGuard
	case unix.MADV_FREE:
		if !v.anonymous() || v.lock != unlocked {
			return it, unix.EINVAL
		}
		// Linux frees such pages when memory is short, and the caller must expect them to be either kept or zero.
		if mm.mf.Used() > mm.mf.Limit()/2 {
			mm.zap(s, e)
		}
		return it, nil
	case unix.MADV_COLD, unix.MADV_PAGEOUT:
		if v.lock != unlocked || v.flags&vmSpecial != 0 {
			return it, unix.EINVAL
		}
		return it, nil
	case madvCollapse:
		if (sp.Start+memory.HugePage-1)&^(memory.HugePage-1)+memory.HugePage > sp.End {
			return it, unix.EINVAL // no huge page fits in
		}
	case unix.MADV_NORMAL:
		flags &^= vmRandRead | vmSeqRead
	case unix.MADV_RANDOM:
		flags = flags&^vmSeqRead | vmRandRead
	case unix.MADV_SEQUENTIAL:
		flags = flags&^vmRandRead | vmSeqRead
	case unix.MADV_DONTFORK:
		flags |= vmDontFork
	case unix.MADV_DOFORK:
		if v.flags&vmSpecial != 0 {
			return it, unix.EINVAL
		}
		flags &^= vmDontFork
	case unix.MADV_WIPEONFORK:
		if !v.anonymous() || !v.private() {
			return it, unix.EINVAL
		}
		flags |= vmWipeOnFork
	case unix.MADV_KEEPONFORK:
		flags &^= vmWipeOnFork
	case unix.MADV_DONTDUMP:
		flags |= vmDontDump
	case unix.MADV_DODUMP:
		flags &^= vmDontDump
	case unix.MADV_HUGEPAGE:
		flags = flags&^vmNoHuge | vmHuge
	case unix.MADV_NOHUGEPAGE:
		flags = flags&^vmHuge | vmNoHuge
	}
	if flags == v.flags {
		return it, nil
	}
	it = mm.isolate(it, start, end)
	mm.vmas.At(it).Val.flags = flags
	return mm.mergeVMA(it), nil
}

// zap drops the pages in [start, end): private ones are lost, shared ones are asked for again.
// +checklocks:mm.mu
func (mm *MemoryManager) zap(start, end uint64) {
	if mm.removePMAs(start, end) {
		mm.as.Unmap(addrRange(start, end))
	}
}

func (mm *MemoryManager) madvPopulate(start, end uint64, write bool) error {
	at := hostarch.Read
	if write {
		at = hostarch.Write
	}
	for start < end {
		mm.mu.RLock()
		sp := mm.vmas.Lookup(start)
		unreadable := sp != nil && !write && !sp.Val.perms.Read
		mm.mu.RUnlock()
		if unreadable {
			return unix.EINVAL // also if its pages are readable because they are writable
		}
		n, err := mm.populate(start, min(end, start+maxAround), at, true)
		start += n
		switch err {
		case nil:
		case ErrMapErr:
			return unix.ENOMEM
		case ErrAccErr:
			return unix.EINVAL
		case unix.ENOMEM:
			return err
		default:
			return unix.EFAULT
		}
	}
	return nil
}

func (mm *MemoryManager) madvRemove(start, end uint64) error {
	return mm.eachMapping(start, end, func(v vma, off, n uint64) error {
		if v.mappable == nil || v.lock != unlocked {
			return unix.EINVAL
		}
		if h, ok := v.mappable.(PunchHoler); ok && !v.private() && v.maxPerms.Write {
			return h.PunchHole(off, n)
		}
		return unix.EACCES
	})
}

// eachMapping calls fn, without locks, for each mapping, or part of one, in a range: v's n bytes from its mappable's offset off. ENOMEM if there were holes.
func (mm *MemoryManager) eachMapping(start, end uint64, fn func(v vma, off, n uint64) error) (hole error) {
	for start < end {
		mm.mu.RLock()
		it := mm.vmas.Find(start)
		if !mm.vmas.Ok(it) || mm.vmas.At(it).Start >= end {
			mm.mu.RUnlock()
			return unix.ENOMEM
		}
		sp := mm.vmas.At(it)
		if sp.Start > start {
			hole, start = unix.ENOMEM, sp.Start
		}
		v, e := sp.Val, min(end, sp.End)
		off := v.off + (start - sp.Start)
		if v.id != nil {
			v.id.IncRef()
		}
		mm.mu.RUnlock()
		err := fn(v, off, e-start)
		if v.id != nil {
			v.id.DecRef()
		}
		if err != nil {
			return err
		}
		start = e
	}
	return hole
}

// Populate brings in the pages of a range as far as possible (mm/gup.c __mm_populate); errors are ignored.
func (mm *MemoryManager) Populate(addr hostarch.Addr, n uint64) {
	for start, end := uint64(addr), uint64(addr)+n; start < end; {
		done, err := mm.populate(start, min(end, start+maxAround), hostarch.NoAccess, false)
		if start += done; err != nil {
			return
		}
	}
}

// populate makes pages from start on present, at most to end and to the end of the mapping there. Without a kind of access it is the one that needs no
// fault later: writing for private writable memory, else reading.
func (mm *MemoryManager) populate(start, end uint64, at hostarch.AccessType, strict bool) (uint64, error) {
	mm.mu.Lock()
	defer mm.unlock()
	sp := mm.vmas.Lookup(start)
	if sp == nil {
		return 0, ErrMapErr
	}
	if sp.Val.flags&vmGuard != 0 {
		return 0, unix.EFAULT
	}
	eff := sp.Val.can()
	if !at.Any() {
		at = hostarch.Read
		if eff.Write && sp.Val.private() {
			at = hostarch.Write
		}
	}
	end = min(end, sp.End)
	if !eff.SupersetOf(at) || sp.Val.flags&vmSpecial != 0 && strict {
		if strict {
			return 0, ErrAccErr
		}
		return end - start, nil
	}
	for cur := start; cur < end; {
		// One page at a time as far as errors go: ensure reports those of the first page only.
		if err := mm.ensure(sp, cur, end, cur, end, access{at: at, foreign: true}); err != nil {
			return cur - start, err
		}
		for cur < end {
			run := mm.pmas.Lookup(cur)
			if run == nil || !run.Val.perms.SupersetOf(at) {
				break
			}
			cur = run.End
		}
	}
	return end - start, nil
}

// MInCore is mincore(2): one byte a page, 1 if it is there. vec has room for the range.
func (mm *MemoryManager) MInCore(addr hostarch.Addr, length uint64, vec []byte) error {
	start, end := uint64(addr), uint64(addr)+pageUp(length)
	mm.mu.RLock()
	defer mm.mu.RUnlock()
	if !mm.covered(start, end) {
		return unix.ENOMEM
	}
	for i := range vec {
		vec[i] = 0
	}
	for it := mm.pmas.Find(start); mm.pmas.Ok(it) && mm.pmas.At(it).Start < end; it = mm.pmas.Next(it) {
		sp := mm.pmas.At(it)
		for a := max(start, sp.Start); a < min(end, sp.End); a += pageSize {
			vec[(a-start)/pageSize] = 1
		}
	}
	return nil
}

// Syncer is implemented by mapped objects whose pages msync(2) writes back.
type Syncer interface {
	SyncRange(off, length uint64) error
}

// MSync is msync(2).
func (mm *MemoryManager) MSync(addr hostarch.Addr, length uint64, flags int32) error {
	if flags&^(unix.MS_ASYNC|unix.MS_INVALIDATE|unix.MS_SYNC) != 0 || uint64(addr)&pageMask != 0 ||
		flags&unix.MS_ASYNC != 0 && flags&unix.MS_SYNC != 0 {
		return unix.EINVAL
	}
	start, end := uint64(addr), uint64(addr)+pageUp(length)
	if end < start {
		return unix.ENOMEM
	}
	return mm.eachMapping(start, end, func(v vma, off, n uint64) error {
		if flags&unix.MS_INVALIDATE != 0 && v.lock != unlocked {
			return unix.EBUSY
		}
		if s, ok := v.mappable.(Syncer); ok && flags&unix.MS_SYNC != 0 && !v.private() {
			return s.SyncRange(off, n)
		}
		return nil
	})
}
