package mm

import (
	"sync/atomic"

	"moat/sentry/memmap"
	"moat/sentry/memmap/spans"

	"gvisor.dev/gvisor/pkg/hostarch"
)

// pma is a run of pages behind a part of a mapping. Its range is the span's. It holds one reference to each page.
type pma struct {
	file memmap.File
	off  uint64
	// perms is how the pages are mapped in the platform's address space: what needs no fault.
	perms hostarch.AccessType
	// max bounds perms for pages of a Mappable (Translation.Perms).
	max hostarch.AccessType
	// text says that pages of the file may be mapped as rewritten (text.go).
	text *text
	// anon pages are private memory of ours. cow: they may have other owners, and perms lacks Write.
	anon, cow bool
	// hot is set during a fork, in which the child gets a copy of the page (hot.go).
	hot bool
}

// rssCounters are bytes of pages by kind. They are atomic so that /proc need not wait for faults.
type rssCounters struct {
	anon, file, shmem, peak atomic.Int64
}

func (mm *MemoryManager) account(p *pma, n int64) {
	switch {
	case p.anon:
		mm.rss.anon.Add(n)
	case p.file == memmap.File(mm.mf):
		mm.rss.shmem.Add(n)
	default:
		mm.rss.file.Add(n)
	}
	if n > 0 {
		if t := mm.rss.total(); t > mm.rss.peak.Load() {
			mm.rss.peak.Store(t) // writers hold mu
		}
	}
}

func (r *rssCounters) total() int64 { return r.anon.Load() + r.file.Load() + r.shmem.Load() }

// pagePerms is how a page may be mapped for a vma's permissions.
func (p *pma) pagePerms(v *vma) hostarch.AccessType {
	at := v.can()
	if p.anon {
		at.Write = at.Write && !p.cow
		return at
	}
	at = at.Intersect(p.max)
	at.Write = at.Write && !v.private()
	return at
}

// fr is the range of file pages behind [a, b) of the span.
func fileRangeOf(sp *spans.Span[pma], a, b uint64) memmap.FileRange {
	return memmap.FileRange{Start: sp.Val.off + (a - sp.Start), End: sp.Val.off + (b - sp.Start)}
}

func (mm *MemoryManager) splitPMA(it spans.Iter, addr uint64) spans.Iter {
	start := mm.pmas.At(it).Start
	it = mm.pmas.Split(it, addr)
	mm.pmas.At(it).Val.off += addr - start
	return it
}

// isolatePMA cuts the run at it so that it lies within [start, end).
func (mm *MemoryManager) isolatePMA(it spans.Iter, start, end uint64) spans.Iter {
	if mm.pmas.At(it).Start < start {
		it = mm.splitPMA(it, start)
	}
	if mm.pmas.At(it).End > end {
		it, _ = mm.pmas.Prev(mm.splitPMA(it, end))
	}
	return it
}

func joined(a, b *spans.Span[pma]) bool {
	x, y := &a.Val, &b.Val
	return a.End == b.Start && x.file == y.file && x.off+a.Len() == y.off && x.perms == y.perms && x.max == y.max && x.anon == y.anon && x.cow == y.cow && x.hot == y.hot && x.text == y.text
}

// mergePMA joins the run at it with its neighbours where it can, and returns the position of what became of it.
func (mm *MemoryManager) mergePMA(it spans.Iter) spans.Iter {
	if n := mm.pmas.Next(it); mm.pmas.Ok(n) && joined(mm.pmas.At(it), mm.pmas.At(n)) {
		start, end := mm.pmas.At(it).Start, mm.pmas.At(n).End
		mm.pmas.Remove(n)
		mm.pmas.SetBounds(it, start, end)
	}
	if p, ok := mm.pmas.Prev(it); ok && joined(mm.pmas.At(p), mm.pmas.At(it)) {
		start, end := mm.pmas.At(p).Start, mm.pmas.At(it).End
		mm.pmas.Remove(it)
		mm.pmas.SetBounds(p, start, end)
		it = p
	}
	return it
}

// insertPMA adds a run and queues its mapping. It takes over the reference to the pages.
func (mm *MemoryManager) insertPMA(start, end uint64, p pma) {
	mm.account(&p, int64(end-start))
	mm.mapRun(start, end, &p)
	mm.mergePMA(mm.pmas.Insert(spans.Span[pma]{Start: start, End: end, Val: p}))
}

func (mm *MemoryManager) mapRun(start, end uint64, p *pma) {
	if p.text != nil && p.perms.Execute {
		mm.mapText(start, end, *p)
		return
	}
	mm.as.Map(addrRange(start, end), p.file.FD(), p.off, p.perms)
}

// removePMAs drops all runs in [start, end), and reports whether there were any. The caller unmaps the range.
// +checklocks:mm.mu
func (mm *MemoryManager) removePMAs(start, end uint64) bool {
	it := mm.pmas.Find(start)
	found := false
	for mm.pmas.Ok(it) && mm.pmas.At(it).Start < end {
		found = true
		it = mm.isolatePMA(it, start, end)
		it = mm.removePMA(it)
	}
	return found
}

// +checklocks:mm.mu
func (mm *MemoryManager) removePMA(it spans.Iter) spans.Iter {
	sp := mm.pmas.At(it)
	mm.account(&sp.Val, -int64(sp.Len()))
	f, fr := sp.Val.file, fileRangeOf(sp, sp.Start, sp.End)
	it = mm.pmas.Remove(it)
	mm.drop(f, fr)
	return it
}
