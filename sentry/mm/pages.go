package mm

import (
	"io"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/sentry/memmap"
	"moat/sentry/memmap/spans"
	"moat/sentry/memory"
)

const (
	// minAround and maxAround bound how much a fault brings in.
	minAround = 64 << 10
	maxAround = memory.HugePage
	// minCopy is how much the first copy-on-write fault of a sequence copies.
	minCopy = 16 << 10
	// eagerProtects is vma.eager after a write that an mprotect had allowed.
	eagerProtects = 8
)

// access is one request for pages.
type access struct {
	at hostarch.AccessType
	// foreign: the caller may not be a thread of this space about to return to it, so others may be running on pages that it replaces.
	foreign bool
}

var errBus = &memmap.BusError{Err: unix.EFAULT}

// ensure makes [ra, rb) of the mapping sp accessible, and may bring in more of [a, b), which contains it.
// Errors (*memmap.BusError, ENOMEM) are those of the first page of [ra, rb); if a later one fails, ensure stops there and the access
// finds out when it gets there.
// Preconditions: mu is held for writing; sp allows the access; [a, b) lies in sp.
// +checklocks:mm.mu
func (mm *MemoryManager) ensure(sp *spans.Span[vma], ra, rb, a, b uint64, ac access) error {
	for cur := ra; cur < rb; {
		it := mm.pmas.Find(cur)
		var err error
		switch {
		case !mm.pmas.Ok(it) || mm.pmas.At(it).Start > cur:
			err = mm.fill(sp, it, cur, a, b, ac)
		case ac.at.Write && !mm.pmas.At(it).Val.perms.Write:
			err = mm.makeWritable(sp, it, cur, rb, ac)
		default:
			cur = mm.pmas.At(it).End
		}
		if err != nil {
			if cur > ra {
				return nil
			}
			return err
		}
	}
	return nil
}

// fill brings in the page at addr, where there is none, and as much of [a, b) around it as is convenient. it is the position behind the hole.
// +checklocks:mm.mu
func (mm *MemoryManager) fill(sp *spans.Span[vma], it spans.Iter, addr, a, b uint64, ac access) error {
	if p, ok := mm.pmas.Prev(it); ok {
		a = max(a, mm.pmas.At(p).End)
	}
	if mm.pmas.Ok(it) {
		b = min(b, mm.pmas.At(it).Start)
	}
	if sp.Val.anonymous() {
		return mm.fillAnon(sp, addr, a, b, ac)
	}
	return mm.fillFile(sp, addr, a, b, ac)
}

func (mm *MemoryManager) fillAnon(sp *spans.Span[vma], addr, a, b uint64, ac access) error {
	if mm.mf.Pressed() {
		a, b = addr, addr+pageSize
	}
	if b-a > maxAround {
		a, b = addr, min(b, addr&^(maxAround-1)+maxAround)
	}
	p := pma{file: mm.mf, anon: true}
	p.perms = p.pagePerms(&sp.Val)
	for a <= addr {
		fr, err := mm.allocate(sp, a, b, true, true)
		if err != nil {
			if a == addr {
				return err
			}
			a, b = addr, addr+pageSize
			continue
		}
		p.off = fr.Start
		mm.insertPMA(a, a+fr.Length(), p)
		if sp.Val.goesOn && sp.Val.around > minAround && ac.at.Write && !ac.foreign {
			mm.as.Populate(addrRange(a, a+fr.Length())) // the guest goes through it
		}
		a += fr.Length()
	}
	sp.Val.lastUp = a
	return nil
}

// +checklocks:mm.mu
func (mm *MemoryManager) fillFile(sp *spans.Span[vma], addr, a, b uint64, ac access) error {
	v := &sp.Val
	at := ac.at
	if v.private() {
		at.Write = false
	}
	ts, err := v.mappable.Translate(v.fileRange(sp.Start, addr, addr+pageSize), v.fileRange(sp.Start, a, b), at)
	if err != nil {
		return err
	}
	var tx *text
	if isText(v) && mm.runs(sp) {
		if tx = mm.texts.lookup(v.mappable, false); tx != nil && !mm.adopt(tx, sp) {
			tx = nil
		}
	}
	ok := false
	for i := range ts {
		t := &ts[i]
		start := sp.Start + (t.Source.Start - v.off)
		end := start + t.Source.Length()
		ok = ok || start <= addr && addr < end
		p := pma{file: t.File, off: t.Offset, max: t.Perms, text: tx}
		p.perms = p.pagePerms(v)
		mm.insertPMA(start, end, p)
	}
	if !ok {
		return errBus
	}
	mm.fillSegments(sp)
	return nil
}

// fillSegments brings in what is mapped of the same file right before and behind sp, which was just faulted in: the segments of a library. They are used
// together, and of the data, which the dynamic linker relocates, the first pages are copied too. Errors show up when the guest gets there.
// +checklocks:mm.mu
func (mm *MemoryManager) fillSegments(sp *spans.Span[vma]) {
	if !sp.Val.segment() {
		return
	}
	start, end, code := sp.Start, sp.End, sp.Val.perms.Execute
	for it := mm.vmas.Find(start); ; {
		p, ok := mm.vmas.Prev(it)
		if !ok || mm.vmas.At(p).End != start || !mm.vmas.At(p).Val.segmentOf(sp.Val.mappable) {
			break
		}
		it, start, code = p, mm.vmas.At(p).Start, code || mm.vmas.At(p).Val.perms.Execute
	}
	for it := mm.vmas.Find(end); mm.vmas.Ok(it) && mm.vmas.At(it).Start == end && mm.vmas.At(it).Val.segmentOf(sp.Val.mappable); it = mm.vmas.Next(it) {
		end, code = mm.vmas.At(it).End, code || mm.vmas.At(it).Val.perms.Execute
	}
	if !code {
		return
	}
	for it := mm.vmas.Find(start); mm.vmas.Ok(it) && mm.vmas.At(it).Start < end; it = mm.vmas.Next(it) {
		if o := mm.vmas.At(it); o.Start != sp.Start && mm.pmas.Free(o.Start, o.End) && o.Val.can().Read {
			o.Val.filling = true
			mm.mapAhead(o.Start, o.End)
			o.Val.filling = false
		}
	}
	// Behind the data of a library lies what is zero at first.
	if it := mm.vmas.Find(end); mm.vmas.Ok(it) {
		if o := mm.vmas.At(it); o.Start == end && o.Val.anonymous() && o.Val.private() && o.Val.perms.Write && mm.pmas.Free(o.Start, o.End) {
			_ = mm.ensure(o, o.Start, o.Start+pageSize, o.Start, min(o.End, o.Start+minAround), access{at: hostarch.Write})
		}
	}
}

// segment reports whether a mapping may be one of several of an object file that the dynamic linker made.
func (v *vma) segment() bool {
	if !v.private() || v.filling {
		return false
	}
	wide, ok := v.mappable.(memmap.Wide)
	return ok && wide.TranslatesWide()
}

func (v *vma) segmentOf(m memmap.Mappable) bool { return v.mappable == m && v.private() }

// allocate gets pages for [start, end) of private memory: up to as many, at least one. hole says that they are the first there. Pages are put beside
// those of their neighbours in the memory file if possible, so that the host needs few map entries.
func (mm *MemoryManager) allocate(sp *spans.Span[vma], start, end uint64, hole, zero bool) (memmap.FileRange, error) {
	n := end - start
	at := func(off uint64) (memmap.FileRange, bool) {
		got := mm.acct.Load().AllocateAt(off, n, zero)
		return memmap.FileRange{Start: off, End: off + got}, got > 0
	}
	near := uint64(0)
	it := mm.pmas.Find(start)
	if p, ok := mm.pmas.Prev(it); ok {
		if l := mm.pmas.At(p); l.Val.anon && l.Start >= sp.Start {
			off := l.Val.off + (start - l.Start)
			if l.End == start || off>>memory.HugeShift == (l.Val.off+l.Len()-1)>>memory.HugeShift {
				if fr, ok := at(off); ok {
					return fr, nil
				}
			}
			near = off
		}
	}
	if mm.pmas.Ok(it) && mm.pmas.At(it).Start < end {
		it = mm.pmas.Next(it) // the run that is to be replaced
	}
	if mm.pmas.Ok(it) {
		r := mm.pmas.At(it)
		d := r.Start - start
		if r.Val.anon && r.End <= sp.End && r.Val.off >= d && (r.Val.off-d)>>memory.HugeShift == r.Val.off>>memory.HugeShift {
			if fr, ok := at(r.Val.off - d); ok {
				return fr, nil
			}
		}
	}
	if hole && sp.Len() >= memory.HugePage/2 {
		return mm.acct.Load().AllocateIn(start, near, n, zero)
	}
	return mm.acct.Load().Allocate(n, zero)
}

// makeWritable lets the page at addr, which is there, be written: it and perhaps its neighbours become pages of our own. rb is how far the
// access goes.
// +checklocks:mm.mu
func (mm *MemoryManager) makeWritable(sp *spans.Span[vma], it spans.Iter, addr, rb uint64, ac access) error {
	v := &sp.Val
	run := mm.pmas.At(it)
	lo, hi := max(run.Start, sp.Start), min(run.End, sp.End)
	if !v.private() {
		return mm.upgradeShared(sp, addr, max(lo, addr&^(minAround-1)), min(hi, addr&^(minAround-1)+minAround), ac)
	}
	if run.Val.anon && !run.Val.cow { // an mprotect that was not carried out
		v.eager = eagerProtects
		it = mm.isolatePMA(it, lo, hi)
		p := &mm.pmas.At(it).Val
		p.perms = p.pagePerms(v)
		mm.as.Protect(addrRange(lo, hi), p.perms)
		mm.mergePMA(it)
		return nil
	}
	if run.Val.anon {
		if !ac.foreign {
			mm.kin.hot.note(addr)
		}
		if s, e := mm.sole(run, addr, max(lo, addr&^(maxAround-1)), min(hi, addr&^(maxAround-1)+maxAround)); e > s {
			it = mm.isolatePMA(it, s, e)
			p := &mm.pmas.At(it).Val
			p.cow = false
			p.perms = p.pagePerms(v)
			mm.as.Protect(addrRange(s, e), p.perms)
			mm.mergePMA(it)
			return nil
		}
	}
	w := mm.copyWindow(sp, addr, run.Val.anon)
	s := max(lo, addr&^(min(w, minAround)-1))
	e := min(hi, max(s&^(min(w, minAround)-1)+w, min(rb, addr+maxAround)))
	if mm.mf.Pressed() {
		s, e = addr, addr+pageSize
	}
	v.lastUp, v.lastDn = e, s
	return mm.copyRun(sp, addr, s, e, ac)
}

// behindSegment reports whether sp, a mapping of a file, lies behind another of that file: it is the data of a library.
func (mm *MemoryManager) behindSegment(sp *spans.Span[vma]) bool {
	prev := mm.vmas.Lookup(sp.Start - 1)
	return prev != nil && prev.Val.segmentOf(sp.Val.mappable)
}

func (mm *MemoryManager) copyWindow(sp *spans.Span[vma], addr uint64, anon bool) uint64 {
	v := &sp.Val
	switch {
	case !anon && (v.flags&vmProgram != 0 || mm.behindSegment(sp)):
		// The dynamic linker goes through it.
		if v.cowWin >= minAround && addr&^(minAround-1) == v.lastUp {
			v.cowWin = min(2*v.cowWin, maxAround/4)
		} else {
			v.cowWin = minAround
		}
		return uint64(v.cowWin)
	case !anon:
		return pageSize
	}
	if v.cowWin == 0 || (addr != v.lastUp && addr+pageSize != v.lastDn) {
		v.cowWin = minCopy
	} else if v.cowWin < maxAround/8 {
		v.cowWin *= 2
	}
	return uint64(v.cowWin)
}

// sole returns the pages around addr within [lo, hi) that have no other owner; none if the one at addr has.
func (mm *MemoryManager) sole(run *spans.Span[pma], addr, lo, hi uint64) (s, e uint64) {
	n := mm.mf.Sole(fileRangeOf(run, addr, hi))
	if n == 0 {
		return addr, addr
	}
	for s = addr; s > lo && mm.mf.Sole(fileRangeOf(run, s-pageSize, s)) != 0; s -= pageSize {
	}
	return s, addr + n
}

// copyRun gives [s, e) of the run at addr, or less but at least the page at addr, pages of its own with the same contents.
// +checklocks:mm.mu
func (mm *MemoryManager) copyRun(sp *spans.Span[vma], addr, s, e uint64, ac access) error {
	fr, err := mm.allocate(sp, s, e, false, false)
	if err == nil && s+fr.Length() <= addr {
		mm.mf.DecRef(fr)
		s, e = addr, addr+pageSize
		fr, err = mm.allocate(sp, s, e, false, false)
	}
	if err != nil {
		return err
	}
	e = s + fr.Length()
	it := mm.pmas.Find(addr)
	run := mm.pmas.At(it)
	src := fileRangeOf(run, s, e)
	dst := mm.mf.Bytes(fr.Start, fr.Length())
	if run.Val.file == memmap.File(mm.mf) {
		copy(dst, mm.mf.Bytes(src.Start, src.Length()))
	} else if err := readPages(run.Val.file, dst, src.Start); err != nil {
		mm.mf.DecRef(fr)
		return err
	}
	it = mm.isolatePMA(it, s, e)
	mm.removePMA(it)
	if ac.foreign && mm.users.Load() > 1 {
		mm.flush = true // other threads would go on reading the old page
	}
	p := pma{file: mm.mf, off: fr.Start, anon: true}
	p.perms = p.pagePerms(&sp.Val)
	mm.insertPMA(s, e, p)
	return nil
}

// upgradeShared asks the Mappable again, now for writing.
// +checklocks:mm.mu
func (mm *MemoryManager) upgradeShared(sp *spans.Span[vma], addr, a, b uint64, ac access) error {
	v := &sp.Val
	ts, err := v.mappable.Translate(v.fileRange(sp.Start, addr, addr+pageSize), v.fileRange(sp.Start, a, b), ac.at)
	if err != nil {
		return err
	}
	ok := false
	for i := range ts {
		t := &ts[i]
		start := sp.Start + (t.Source.Start - v.off)
		end := start + t.Source.Length()
		p := pma{file: t.File, off: t.Offset, max: t.Perms}
		p.perms = p.pagePerms(v)
		ok = ok || start <= addr && addr < end && p.perms.Write
		mm.removePMAs(start, end)
		mm.insertPMA(start, end, p)
	}
	if !ok {
		return errBus
	}
	return nil
}

// readPages fills dst from pages of a file; what lies behind the file's end is zero.
func readPages(f memmap.File, dst []byte, off uint64) error {
	for len(dst) > 0 {
		n, err := f.ReadAt(dst, int64(off))
		dst = dst[n:]
		off += uint64(n)
		if err == io.EOF || (n == 0 && err == nil) {
			break
		}
		if err != nil && err != unix.EINTR {
			return &memmap.BusError{Err: err}
		}
	}
	clear(dst)
	return nil
}

// window is what a fault at addr should bring in: a power of two that grows while a mapping proves sequential, or is so small that what it brings in for nothing
// is little.
func (mm *MemoryManager) window(sp *spans.Span[vma], addr uint64) (a, b uint64) {
	v := &sp.Val
	w := uint64(minAround)
	up := addr-v.lastUp < max(uint64(v.around), pageSize)
	v.goesOn = up || addr+pageSize == v.lastDn
	switch {
	case v.flags&vmRandRead != 0:
		w = pageSize
	case v.goesOn || v.around != 0 && v.anonymous() && sp.Len() <= maxAround:
		w = min(2*max(uint64(v.around), minAround), maxAround)
	}
	if v.mappable != nil {
		if wide, ok := v.mappable.(memmap.Wide); ok && wide.TranslatesWide() {
			return sp.Start, sp.End
		}
	}
	a, b = max(addr&^(w-1), sp.Start), min(addr&^(w-1)+w, sp.End)
	if w > pageSize && w < maxAround && addr&(w-1) > w/2 {
		b = min(b+w, sp.End)
	}
	if up {
		a, b = max(v.lastUp, sp.Start), min((addr+w)&^(min(w, minAround)-1), sp.End) // what lies before it was brought in before
	}
	v.around, v.lastUp, v.lastDn = uint32(w), b, a
	return a, b
}
