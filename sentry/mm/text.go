package mm

import (
	"bytes"
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/platform"
	"moat/sentry/memmap"
	"moat/sentry/memmap/spans"
	"moat/sentry/memory"
)

// Code of files that are mapped private for execution is rewritten where it makes system calls often, if the platform can (platform.Rewriter).
//
// What is rewritten is a copy of the page in the memory file, which is mapped in place of the page in every address space that has the file at
// one place and has not written to the page. Runs of pages go on naming the file's own: the sentry, /proc/PID/mem and copies on write see
// the original bytes, and only what the guest reads of its own code differs. Copies are never changed once they are mapped: another call in
// the same page makes a new one, for those that map the page from then on. For them, too, copies that lie close to each other become one, with the pages between.

const (
	// hotCall is how often a call must trap before it is rewritten: each rewritten page costs every later exec a mapping.
	hotCall = 12
	// maxCalls bounds the calls of one text that are counted, maxIdle the texts that are kept though nothing maps them.
	maxCalls, maxIdle = 1024, 64
	// checkedAt is how much of a text is compared with its file at a time: what stays in a processor's nearer cache.
	checkedAt = 64 << 10
	// maxBetween is how much of the file between two copies is copied to have one mapping less, maxJoined how much of a text may become part of larger copies at a time.
	maxBetween, maxJoined = 7 * pageSize, 256 * pageSize
	// Values of text.calls besides counts.
	callDone, callRefused = 254, 255
)

// Texts are the files whose code is rewritten, for all address spaces of a sandbox.
type Texts struct {
	rw platform.Rewriter
	mf *memory.File
	// changes counts what changed how code is to be mapped.
	changes atomic.Uint64

	mu sync.Mutex
	// +checklocks:mu
	byFile map[memmap.Mappable]*text
	// idle are those of byFile that no address space uses, the longest idle first.
	// +checklocks:mu
	idle []*text
	// check is where code is compared.
	// +checklocks:mu
	check []byte
}

// text is a file with rewritten code. Texts.mu guards all but num and file.
type text struct {
	num    int
	file   memmap.Mappable
	users  int // address spaces that have a base for it
	stale  bool
	calls  map[uint64]uint8 // by offset in the file
	copies []textCopy       // ascending
	old    []memmap.FileRange
	were   map[uint64][]original // by page
	// changed: something was rewritten since copies were last joined. That is done again after waits uses more, of which waited have passed.
	changed       bool
	waits, waited int
}

// textCopy is what is at off of the file as rewritten.
type textCopy struct {
	off uint64
	fr  memmap.FileRange
}

// original is what stood in a page before it was rewritten at at.
type original struct {
	at   int
	code []byte
}

func (c *textCopy) end() uint64 { return c.off + c.fr.Length() }

// part is what c has of [off, end).
func (c *textCopy) part(off, end uint64) textCopy {
	off, end = max(off, c.off), min(end, c.end())
	return textCopy{off, memmap.FileRange{Start: c.fr.Start + off - c.off, End: c.fr.Start + end - c.off}}
}

// find is the place in copies of the first that ends behind off.
func (tx *text) find(off uint64) int {
	return sort.Search(len(tx.copies), func(i int) bool { return tx.copies[i].end() > off })
}

// NewTexts returns an empty set, or nil if p does not rewrite.
func NewTexts(p platform.Platform, mf *memory.File) *Texts {
	if rw, ok := p.(platform.Rewriter); ok {
		return &Texts{rw: rw, mf: mf, byFile: make(map[memmap.Mappable]*text)}
	}
	return nil
}

// lookup returns the text of m, with one user more; nil if there is none and create is not set, or the platform has none left.
func (ts *Texts) lookup(m memmap.Mappable, create bool) *text {
	if ts == nil {
		return nil
	}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	tx := ts.byFile[m]
	if tx == nil && create {
		if num, ok := ts.rw.NewText(); ok {
			tx = &text{num: num, file: m, calls: make(map[uint64]uint8), were: make(map[uint64][]original)}
			ts.byFile[m] = tx
		}
	}
	if tx != nil {
		ts.useLocked(tx)
	}
	return tx
}

// +checklocks:ts.mu
func (ts *Texts) useLocked(tx *text) {
	if tx.users++; tx.users == 1 {
		ts.idle = slices.DeleteFunc(ts.idle, func(x *text) bool { return x == tx })
	}
}

// release takes a user away. A text that nobody uses is kept for the next, unless it is out of date or there are too many.
func (ts *Texts) release(tx *text) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if tx.users--; tx.users > 0 {
		return
	}
	if tx.stale {
		ts.freeLocked(tx)
		return
	}
	if ts.idle = append(ts.idle, tx); len(ts.idle) > maxIdle {
		old := ts.idle[0]
		ts.idle = slices.Delete(ts.idle, 0, 1)
		delete(ts.byFile, old.file)
		ts.freeLocked(old)
	}
}

// +checklocks:ts.mu
func (ts *Texts) freeLocked(tx *text) {
	for i := range tx.copies {
		ts.mf.DecRef(tx.copies[i].fr)
	}
	for _, fr := range tx.old {
		ts.mf.DecRef(fr)
	}
	ts.rw.FreeText(tx.num)
}

// current reports whether the file still says what was rewritten. If not, the text is forgotten. A change while the file is
// mapped shows when it is mapped next; mappings that are there keep the code they have.
func (ts *Texts) current(tx *text) bool {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.joinLocked(tx)
	for i := range tx.copies {
		c := &tx.copies[i]
		for at := uint64(0); at < c.fr.Length(); at += checkedAt {
			if ts.sameLocked(tx, c.part(c.off+at, c.off+at+checkedAt)) {
				continue
			}
			if tx.stale = true; ts.byFile[tx.file] == tx {
				delete(ts.byFile, tx.file)
			}
			return false
		}
	}
	return !tx.stale
}

// sameLocked reports whether the file says what stood in the pages of c, at most checkedAt, before they were rewritten.
//
// +checklocks:ts.mu
func (ts *Texts) sameLocked(tx *text, c textCopy) bool {
	if ts.check == nil {
		ts.check = make([]byte, checkedAt+pageSize)
	}
	buf, want := ts.check[:c.fr.Length()], ts.check[checkedAt:]
	if readMappable(tx.file, buf, c.off) != nil {
		return false
	}
	for at := uint64(0); at < c.fr.Length(); at += pageSize {
		page := ts.mf.Bytes(c.fr.Start+at, pageSize)
		if were := tx.were[c.off+at]; len(were) > 0 {
			copy(want, page)
			for _, o := range slices.Backward(were) {
				copy(want[o.at:], o.code)
			}
			page = want
		}
		if !bytes.Equal(buf[at:at+pageSize], page) {
			return false
		}
	}
	return true
}

// joinLocked makes one copy of those that lie close to each other: each is a mapping of every later exec, and more of its page faults. It does so ever more
// seldom, as the copies of before may be mapped and stay.
//
// +checklocks:ts.mu
func (ts *Texts) joinLocked(tx *text) {
	if !tx.changed {
		return
	}
	if tx.waited++; tx.waited <= tx.waits {
		return
	}
	tx.changed, tx.waited, tx.waits = false, 0, 2*tx.waits+1
	left := uint64(maxJoined)
	for i, j := 0, 0; i < len(tx.copies); i++ {
		first := tx.copies[i]
		for j = i + 1; j < len(tx.copies) && tx.copies[j].off-tx.copies[j-1].end() <= maxBetween && tx.copies[j].end()-first.off <= left; j++ {
		}
		if j == i+1 {
			continue
		}
		n := tx.copies[j-1].end() - first.off
		left -= n
		fr, err := ts.mf.Allocate(n, false)
		if err != nil {
			return
		}
		all := ts.mf.Bytes(fr.Start, fr.Length())
		if fr.Length() < n || readMappable(tx.file, all, first.off) != nil {
			ts.mf.DecRef(fr)
			return
		}
		for _, c := range tx.copies[i:j] {
			copy(all[c.off-first.off:], ts.mf.Bytes(c.fr.Start, c.fr.Length()))
			tx.old = append(tx.old, c.fr)
		}
		tx.copies = slices.Replace(tx.copies, i, j, textCopy{first.off, fr})
		ts.changes.Add(1)
	}
}

func readMappable(m memmap.Mappable, dst []byte, off uint64) error {
	fr := memmap.FileRange{Start: off, End: off + uint64(len(dst))}
	ts, err := m.Translate(fr, fr, hostarch.Read)
	if err != nil {
		return err
	}
	for _, t := range ts {
		if a, b := max(fr.Start, t.Source.Start), min(fr.End, t.Source.End); err == nil && a < b {
			err = readPages(t.File, dst[a-off:b-off], t.Offset+(a-t.Source.Start))
		}
		t.File.DecRef(memmap.FileRange{Start: t.Offset, End: t.Offset + t.Source.Length()})
	}
	return err
}

// trapped counts a call that trapped at off, and reports whether a page where it is rewritten is there now.
func (ts *Texts) trapped(tx *text, off uint64) bool {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	switch n := tx.calls[off]; {
	case n == callDone:
		return true
	case n == callRefused, n == 0 && len(tx.calls) >= maxCalls, tx.stale:
		return false
	case n < hotCall:
		tx.calls[off] = n + 1
		return false
	}
	tx.calls[off] = callRefused
	if ts.rewriteLocked(tx, off&^pageMask, int(off&pageMask)) {
		tx.calls[off] = callDone
		return true
	}
	return false
}

// rewriteLocked makes a new copy of the page with one call more rewritten.
//
// +checklocks:ts.mu
func (ts *Texts) rewriteLocked(tx *text, off uint64, at int) bool {
	i := tx.find(off)
	known := i < len(tx.copies) && tx.copies[i].off <= off
	was := make([]byte, pageSize)
	if known {
		copy(was, ts.mf.Bytes(tx.copies[i].fr.Start+off-tx.copies[i].off, pageSize))
	} else if readMappable(tx.file, was, off) != nil {
		return false
	}
	code := slices.Clone(was)
	from, to, ok := ts.rw.Rewrite(tx.num, code, off, at)
	if !ok {
		return false
	}
	fr, err := ts.mf.Allocate(pageSize, false)
	if err != nil {
		return false // the slot stays taken until the text goes
	}
	copy(ts.mf.Bytes(fr.Start, pageSize), code)
	add := []textCopy{{off, fr}}
	if known {
		c := &tx.copies[i]
		tx.old = append(tx.old, c.part(off, off+pageSize).fr)
		add = slices.DeleteFunc([]textCopy{c.part(0, off), add[0], c.part(off+pageSize, c.end())}, func(c textCopy) bool { return c.fr.Length() == 0 })
		tx.copies = slices.Delete(tx.copies, i, i+1)
	}
	tx.copies = slices.Insert(tx.copies, i, add...)
	tx.changed = true
	ts.changes.Add(1)
	tx.were[off] = append(tx.were[off], original{from, was[from:to]})
	return true
}

// next is what the first copy that has something of [off, end) has of it.
func (ts *Texts) next(tx *text, off, end uint64) (textCopy, bool) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	i := tx.find(off)
	if i == len(tx.copies) || tx.copies[i].off >= end {
		return textCopy{}, false
	}
	return tx.copies[i].part(off, end), true
}

// Trapped tells that the guest made a system call by the instruction at addr, which trapped and could be rewritten.
func (mm *MemoryManager) Trapped(addr hostarch.Addr) {
	if mm.texts == nil {
		return
	}
	mm.mu.Lock()
	defer mm.unlock()
	a := uint64(addr)
	page := a &^ pageMask
	sp, run := mm.vmas.Lookup(a), mm.pmas.Lookup(page)
	if sp == nil || run == nil || !isText(&sp.Val) || run.Val.anon {
		return
	}
	tx := mm.texts.lookup(sp.Val.mappable, true)
	if tx == nil || !mm.adopt(tx, sp) || !mm.texts.trapped(tx, sp.Val.off+(a-sp.Start)) {
		return
	}
	run.Val.text = tx
	p := run.Val
	p.off += page - run.Start
	mm.mapRun(page, page+pageSize, &p)
}

func isText(v *vma) bool { return v.private() && v.perms.Execute && v.mappable != nil }

// runs reports whether sp is known to be code that runs. What a static program maps by itself is so only once it has: a translator, like valgrind, maps its
// client's code for execution but reads it, so that it must see what the file says. A dynamic linker maps what it runs.
//
// +checklocks:mm.mu
func (mm *MemoryManager) runs(sp *spans.Span[vma]) bool {
	l := &mm.layout
	if !l.static || sp.Start < l.endCode && l.startCode < sp.End {
		return true
	}
	for tx := range mm.bases {
		if tx.file == sp.Val.mappable {
			return true
		}
	}
	return false
}

// adopt makes tx, of which it takes over a use, known to the platform as what sp maps; false if sp must show the file's own pages: tx is out of
// date, or is mapped somewhere else too. Preconditions: isText.
//
// +checklocks:mm.mu
func (mm *MemoryManager) adopt(tx *text, sp *spans.Span[vma]) bool {
	base := sp.Start - sp.Val.off
	old, known := mm.bases[tx]
	if known {
		mm.texts.release(tx)
		if old == base {
			return true
		}
		for it := mm.vmas.First(); mm.vmas.Ok(it); it = mm.vmas.Next(it) {
			if o := mm.vmas.At(it); o.Val.mappable == tx.file && isText(&o.Val) && o.Start-o.Val.off == old {
				return false
			}
		}
	}
	if !mm.texts.current(tx) {
		if !known {
			mm.texts.release(tx)
		}
		return false
	}
	if mm.bases == nil {
		mm.bases = make(map[*text]uint64)
	}
	mm.bases[tx] = base
	mm.as.SetText(tx.num, hostarch.Addr(base))
	return true
}

// mapText is mapRun of a run with rewritten pages.
func (mm *MemoryManager) mapText(start, end uint64, p pma) {
	for base := mm.bases[p.text]; start < end; {
		c, ok := mm.texts.next(p.text, start-base, end-base)
		stop := end
		if ok {
			stop = base + c.off
		}
		if stop > start {
			mm.as.Map(addrRange(start, stop), p.file.FD(), p.off, p.perms)
		}
		if !ok {
			return
		}
		mm.as.Map(addrRange(stop, base+c.end()), mm.mf.FD(), c.fr.Start, p.perms)
		p.off += base + c.end() - start
		start = base + c.end()
	}
}

// forkTexts gives child, a fork of mm, the same bases.
func (mm *MemoryManager) forkTexts(child *MemoryManager) {
	if len(mm.bases) == 0 {
		return
	}
	child.bases = make(map[*text]uint64, len(mm.bases))
	for tx, base := range mm.bases {
		child.bases[tx] = base
		child.as.SetText(tx.num, hostarch.Addr(base))
		mm.texts.mu.Lock()
		mm.texts.useLocked(tx)
		mm.texts.mu.Unlock()
	}
}

// dropTexts is called once nothing runs in the space any more.
func (mm *MemoryManager) dropTexts() {
	for tx := range mm.bases {
		mm.texts.release(tx)
	}
	mm.bases = nil
}
