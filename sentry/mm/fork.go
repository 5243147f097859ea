package mm

import (
	"moat/sentry/memmap"
	"moat/sentry/memmap/spans"
)

// Fork returns a copy of the address space with one user (kernel/fork.c dup_mmap). Private pages are shared until one side writes.
// It is called by a task of the space; other tasks of it may be running guest code.
func (mm *MemoryManager) Fork() (*MemoryManager, error) {
	as, old := mm.kin.reclaim(mm.p)
	if as == nil {
		var err error
		if as, err = mm.p.NewAddressSpace(); err != nil {
			return nil, err
		}
	}
	child := newOn(as, mm.p, mm.mf, mm.texts, mm.kin)
	child.before = old.maps
	child.expectTexts(old.textsAt)
	child.acct.Store(mm.acct.Load())
	child.Dumpable.Store(mm.Dumpable.Load())
	child.denyWX.Store(mm.denyWX.Load())
	mm.mu.Lock()
	hot := mm.splitHot()
	mm.shareForFork()
	child.layout = mm.layout
	mm.forkTexts(child)
	err := mm.copyVMAs(child)
	child.unmapBefore(^uint64(0))
	child.forked = err == nil
	mm.joinHot(hot)
	// A thread that runs meanwhile must not write to what the child is to see as it was. If there is none, the caller's own return does.
	if mm.users.Load() > 1 {
		mm.flush = true
	}
	mm.unlock()

	mm.metaMu.Lock()
	child.meta = mm.meta
	if child.meta.Exe != nil {
		child.meta.Exe.IncRef()
	}
	mm.metaMu.Unlock()
	if err != nil {
		child.DecUsers()
		return nil, err
	}
	return child, nil
}

// shareForFork makes private writable pages read-only: one change of the platform for neighbouring runs, not for each page.
func (mm *MemoryManager) shareForFork() {
	pit := mm.pmas.First()
	for it := mm.vmas.First(); mm.vmas.Ok(it); it = mm.vmas.Next(it) {
		sp := mm.vmas.At(it)
		v := &sp.Val
		if !v.private() || v.flags&vmDontFork != 0 {
			continue
		}
		if mm.pmas.Ok(pit) && mm.pmas.At(pit).End <= sp.Start {
			pit = mm.pmas.Find(sp.Start)
		}
		at := v.can()
		at.Write = false
		from, to := uint64(0), uint64(0)
		for ; mm.pmas.Ok(pit) && mm.pmas.At(pit).Start < sp.End; pit = mm.pmas.Next(pit) {
			ps := mm.pmas.At(pit)
			p := &ps.Val
			if p.hot {
				continue
			}
			if p.anon {
				p.cow = true
			}
			if !p.perms.Write {
				continue
			}
			p.perms.Write = false
			if ps.Start != to {
				if to > from {
					mm.as.Protect(addrRange(from, to), at)
				}
				from = ps.Start
			}
			to = ps.End
		}
		if to > from {
			mm.as.Protect(addrRange(from, to), at)
		}
	}
}

// copyVMAs copies mappings and pages to child. Preconditions: mu is held for writing; nobody else knows child.
func (mm *MemoryManager) copyVMAs(child *MemoryManager) error {
	for it := mm.vmas.First(); mm.vmas.Ok(it); it = mm.vmas.Next(it) {
		sp := mm.vmas.At(it)
		v := sp.Val
		if v.flags&vmDontFork != 0 {
			continue
		}
		if v.flags&vmAccount != 0 {
			if err := mm.mf.Charge(sp.Len()); err != nil {
				return err
			}
		}
		if v.mappable != nil {
			if err := v.mappable.AddMapping(child, addrRange(sp.Start, sp.End), v.off, v.sharedWritable()); err != nil {
				if v.flags&vmAccount != 0 {
					mm.mf.Uncharge(sp.Len())
				}
				return err
			}
		}
		if v.id != nil {
			v.id.IncRef()
		}
		v.lock = unlocked // memory locks are not inherited (mlock(2))
		child.stat.add(&v, sp.Len())
		child.vmas.InsertAt(endOf(&child.vmas), spans.Span[vma]{Start: sp.Start, End: sp.End, Val: v})
		if v.flags&vmWipeOnFork != 0 {
			continue
		}
		if err := mm.copyPMAs(child, sp); err != nil {
			return err
		}
	}
	return nil
}

func (mm *MemoryManager) copyPMAs(child *MemoryManager, vs *spans.Span[vma]) error {
	start, end := vs.Start, vs.End
	for it := mm.pmas.Find(start); mm.pmas.Ok(it) && mm.pmas.At(it).Start < end; it = mm.pmas.Next(it) {
		sp := mm.pmas.At(it)
		a, b := max(start, sp.Start), min(end, sp.End)
		fr := fileRangeOf(sp, a, b)
		p := sp.Val
		p.off = fr.Start
		if !p.hot {
			p.file.IncRef(fr)
		} else if err := mm.copyHot(&p, &vs.Val); err != nil {
			return err
		}
		child.account(&p, int64(b-a))
		child.mapOver(a, b, p)
		child.pmas.InsertAt(endOf(&child.pmas), spans.Span[pma]{Start: a, End: b, Val: p})
	}
	return nil
}

func endOf[V any](s *spans.Set[V]) spans.Iter { return s.Find(^uint64(0)) }

var _ memmap.Space = (*MemoryManager)(nil)
