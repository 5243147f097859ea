package memory

import (
	"math/bits"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"moat/sentry/memmap"
)

// blockKind says what a block's free pages are for.
type blockKind uint8

const (
	neutral  blockKind = iota // all pages free; in File.neutral
	small                     // any run; in File.partial while it has free pages
	big                       // kept for one address range
	punching                  // the reclaimer has it; in no list
)

// block is the state of 2 MiB of the file. All but refs is guarded by File.mu.
type block struct {
	refs  [blockPages]atomic.Int32
	owner [blockPages]uint8 // Account.id of pages in use, 0 of free ones
	free  mask
	dirty mask // subset of free: has contents
	nfree int
	kind  blockKind
	pos   int32 // index in the list that the block is in, -1 if none
	// maxRun bounds the length of the longest free run from above.
	maxRun  int
	inDirty bool
}

// mask has a bit for each page of a block.
type mask [blockPages / 64]uint64

func (m *mask) set(start, n int) {
	for ; n > 0; n, start = n-1, start+1 {
		if start&63 == 0 && n >= 64 {
			m[start>>6] = ^uint64(0)
			n, start = n-63, start+63
			continue
		}
		m[start>>6] |= 1 << (start & 63)
	}
}

func (m *mask) clear(start, n int) {
	for ; n > 0; n, start = n-1, start+1 {
		if start&63 == 0 && n >= 64 {
			m[start>>6] = 0
			n, start = n-63, start+63
			continue
		}
		m[start>>6] &^= 1 << (start & 63)
	}
}

func (m *mask) count() (n int) {
	for _, w := range m {
		n += bits.OnesCount64(w)
	}
	return n
}

// next returns the first run of ones at or after from: [start, end), or start == blockPages.
func (m *mask) next(from int) (start, end int) {
	start = m.scan(from, 0)
	return start, m.scan(start, ^uint64(0))
}

// scan returns the first bit at or after from that differs from the bits of skip.
func (m *mask) scan(from int, skip uint64) int {
	for i := from >> 6; i < len(m); i++ {
		w := m[i] ^ skip
		if i == from>>6 {
			w &= ^uint64(0) << (from & 63)
		}
		if w != 0 {
			return i<<6 + bits.TrailingZeros64(w)
		}
	}
	return blockPages
}

// findRun returns the start of the first run of n ones, or -1 and the length of the longest run.
func (m *mask) findRun(n int) (start, longest int) {
	for at := 0; at < blockPages; {
		s, e := m.next(at)
		if e-s >= n {
			return s, n
		}
		longest = max(longest, e-s)
		at = e
	}
	return -1, longest
}

// reserve takes up to n pages of the limit, at least one.
func (f *File) reserve(n int) (int, error) {
	for {
		used := f.used.Load()
		n = min(n, int((f.limit.Load()-used)>>PageShift))
		if n <= 0 {
			return 0, unix.ENOMEM
		}
		now := used + int64(n)<<PageShift
		if f.used.CompareAndSwap(used, now) {
			for p := f.peak.Load(); now > p && !f.peak.CompareAndSwap(p, now); p = f.peak.Load() {
			}
			return n, nil
		}
	}
}

func (f *File) unreserve(n int) { f.used.Add(-int64(n) << PageShift) }

// Allocate returns a run of pages with a reference count of one: n bytes (rounded up to pages, at most HugePage), or
// less near the limit, but at least a page. ENOMEM at the limit. If zero is set the pages are zero, else they may hold anything that the
// caller must overwrite.
func (a *Account) Allocate(n uint64, zero bool) (memmap.FileRange, error) {
	f := a.f
	a, want, err := a.reserve(int((min(n, HugePage) + PageSize - 1) >> PageShift))
	if err != nil {
		return memmap.FileRange{}, err
	}
	f.mu.Lock()
	idx, start := f.findLocked(want)
	if idx < 0 {
		f.mu.Unlock()
		a.unreserve(want)
		return memmap.FileRange{}, unix.ENOMEM
	}
	return f.takeLocked(a, idx, start, want, zero), nil
}

// AllocateIn is Allocate from a block of its own: the run lies at the offset in the block that addr has in its 2 MiB, so
// that AllocateAt can later put its neighbours beside it. The block behind near (a file offset, or 0) is preferred.
func (a *Account) AllocateIn(addr, near, n uint64, zero bool) (memmap.FileRange, error) {
	f := a.f
	phase := int(addr % HugePage >> PageShift)
	a, want, err := a.reserve(min(int((n+PageSize-1)>>PageShift), blockPages-phase))
	if err != nil {
		return memmap.FileRange{}, err
	}
	f.mu.Lock()
	idx := -1
	if near != 0 {
		idx = f.takeNeutralLocked(int(near >> HugeShift))
	}
	if idx < 0 {
		idx = f.anyNeutralLocked()
	}
	if idx < 0 {
		f.mu.Unlock()
		a.unreserve(want)
		return a.Allocate(n, zero)
	}
	(*f.tab.Load())[idx].kind = big
	return f.takeLocked(a, idx, phase, want, zero), nil
}

// AllocateAt allocates the pages at off that are free, up to n bytes and the end of the block. It returns how many bytes
// it got: 0 if the first page is in use.
func (a *Account) AllocateAt(off, n uint64, zero bool) uint64 {
	f := a.f
	idx, start := int(off>>HugeShift), int(off%HugePage>>PageShift)
	a, want, err := a.reserve(min(int((n+PageSize-1)>>PageShift), blockPages-start))
	if err != nil {
		return 0
	}
	got := 0
	f.mu.Lock()
	if tab := *f.tab.Load(); idx < len(tab) && tab[idx] != nil && (tab[idx].kind == small || tab[idx].kind == big) {
		got = min(tab[idx].free.scan(start, ^uint64(0))-start, want)
	} else if start == 0 && idx < int(f.size>>HugeShift) {
		if idx = f.takeNeutralLocked(idx); idx >= 0 {
			(*f.tab.Load())[idx].kind = big
			got = want
		}
	}
	if got == 0 {
		f.mu.Unlock()
	} else {
		f.takeLocked(a, idx, start, got, zero)
	}
	a.unreserve(want - got)
	return uint64(got) << PageShift
}

// findLocked finds a run of n free pages in a block for any use, or makes such a block.
func (f *File) findLocked(n int) (idx, start int) {
	tab := *f.tab.Load()
	// Looking at a few blocks is enough: offsets are cheap, and maxRun makes a second look at a full block cheaper still.
	for i := len(f.partial) - 1; i >= max(0, len(f.partial)-8); i-- {
		b := tab[f.partial[i]]
		if b.maxRun < n {
			continue
		}
		s, longest := b.free.findRun(n)
		if s >= 0 {
			return int(f.partial[i]), s
		}
		b.maxRun = longest
	}
	if idx = f.anyNeutralLocked(); idx >= 0 {
		b := (*f.tab.Load())[idx]
		b.kind = small
		f.listLocked(idx, b, &f.partial)
		return idx, 0
	}
	// All offsets are in some block: take from wherever there is room.
	for i, b := range tab {
		if b == nil || b.kind == punching || b.nfree < n {
			continue
		}
		if s, _ := b.free.findRun(n); s >= 0 {
			return i, s
		}
	}
	return -1, 0
}

// anyNeutralLocked takes a neutral block off its list, or a forgotten one, or a new one; -1 if there is none.
func (f *File) anyNeutralLocked() int {
	if n := len(f.neutral); n > 0 {
		idx := int(f.neutral[n-1])
		f.unlistLocked((*f.tab.Load())[idx], &f.neutral)
		return idx
	}
	for n := len(f.holes); n > 0; n = len(f.holes) {
		idx := f.holes[n-1]
		f.holes = f.holes[:n-1]
		delete(f.inHoles, idx)
		if (*f.tab.Load())[idx] == nil {
			return f.takeNeutralLocked(int(idx))
		}
	}
	return f.takeNeutralLocked(f.next)
}

// forgetLocked takes a neutral block without contents out of tab.
func (f *File) forgetLocked(idx int, b *block) {
	if b.kind != neutral || b.nfree < blockPages || b.inDirty || b.dirty != (mask{}) {
		return
	}
	f.unlistLocked(b, &f.neutral)
	(*f.tab.Load())[idx] = nil
	if _, ok := f.inHoles[int32(idx)]; !ok {
		f.inHoles[int32(idx)] = struct{}{}
		f.holes = append(f.holes, int32(idx))
	}
}

// spareBlocks is how many free blocks there may be for one that was never used to be taken still, so that a long run stays in one piece.
const spareBlocks = 64

// takeNeutralLocked takes block idx if it is neutral, forgotten, or the next that was never used; else it returns -1.
func (f *File) takeNeutralLocked(idx int) int {
	tab := *f.tab.Load()
	if idx <= 0 {
		return -1
	}
	switch {
	case idx > f.next || uint64(idx) >= f.size>>HugeShift:
		return -1
	case idx == f.next && len(f.neutral)+len(f.holes) >= spareBlocks:
		return -1
	case idx == f.next && idx >= len(tab):
		tab = append(make([]*block, 0, 2*idx+16), tab...)[:2*idx+16]
		f.tab.Store(&tab)
	case idx < f.next && tab[idx] != nil:
		if b := tab[idx]; b.kind == neutral && b.pos >= 0 {
			f.unlistLocked(b, &f.neutral)
			return idx
		}
		return -1
	}
	b := &block{nfree: blockPages, maxRun: blockPages, pos: -1}
	b.free.set(0, blockPages)
	tab[idx] = b
	f.next = max(f.next, idx+1)
	return idx
}

func (f *File) listLocked(idx int, b *block, list *[]int32) {
	b.pos = int32(len(*list))
	*list = append(*list, int32(idx))
}

func (f *File) unlistLocked(b *block, list *[]int32) {
	l := *list
	last := l[len(l)-1]
	l[b.pos] = last
	(*f.tab.Load())[last].pos = b.pos
	*list = l[:len(l)-1]
	b.pos = -1
}

// takeLocked marks pages as in use, unlocks, and zeroes those that need it.
// +checklocksrelease:f.mu
func (f *File) takeLocked(a *Account, idx, start, n int, zero bool) memmap.FileRange {
	b := (*f.tab.Load())[idx]
	b.free.clear(start, n)
	if b.nfree -= n; b.nfree == 0 && b.pos >= 0 && b.kind == small {
		f.unlistLocked(b, &f.partial)
	}
	for i := start; i < start+n; i++ {
		b.refs[i].Store(1)
	}
	if a.id != 0 {
		f.accounted = true
		for i := start; i < start+n; i++ {
			b.owner[i] = a.id
		}
	}
	var dirty mask
	if s, _ := b.dirty.next(start); s < start+n {
		dirty = b.dirty
		b.dirty.clear(start, n)
		f.dirtyPages -= dirty.count() - b.dirty.count()
	}
	f.allocs++
	f.mu.Unlock()

	base := uint64(idx) << HugeShift
	for s, e := dirty.next(start); zero && s < start+n; s, e = dirty.next(e) {
		clear(f.Bytes(base+uint64(s)<<PageShift, uint64(min(e, start+n)-s)<<PageShift))
	}
	off := base + uint64(start)<<PageShift
	return memmap.FileRange{Start: off, End: off + uint64(n)<<PageShift}
}

// IncRef implements memmap.File.
func (f *File) IncRef(fr memmap.FileRange) {
	tab := *f.tab.Load()
	for off := fr.Start; off < fr.End; off += PageSize {
		tab[off>>HugeShift].refs[off%HugePage>>PageShift].Add(1)
	}
}

// DecRef implements memmap.File. Pages without references are free when it returns.
func (f *File) DecRef(fr memmap.FileRange) {
	tab := *f.tab.Load()
	for off := fr.Start; off < fr.End; {
		idx := int(off >> HugeShift)
		b := tab[idx]
		i := int(off % HugePage >> PageShift)
		end := min(blockPages, i+int((fr.End-off)>>PageShift))
		off += uint64(end-i) << PageShift
		for run := 0; i < end; {
			if r := b.refs[i].Add(-1); r == 0 {
				run++
			} else if r < 0 {
				panic("memory: page freed twice")
			} else if run > 0 {
				f.free(idx, i-run, run)
				run = 0
			}
			if i++; i == end && run > 0 {
				f.free(idx, i-run, run)
			}
		}
	}
}

// Sole returns how many bytes from fr.Start on have exactly one reference.
func (f *File) Sole(fr memmap.FileRange) uint64 {
	tab := *f.tab.Load()
	off := fr.Start
	for ; off < fr.End; off += PageSize {
		if tab[off>>HugeShift].refs[off%HugePage>>PageShift].Load() != 1 {
			break
		}
	}
	return off - fr.Start
}

func (f *File) free(idx, start, n int) {
	f.mu.Lock()
	b := (*f.tab.Load())[idx]
	b.free.set(start, n)
	b.dirty.set(start, n)
	b.nfree += n
	f.dirtyPages += n
	if !b.inDirty {
		b.inDirty = true
		f.dirty = append(f.dirty, int32(idx))
	}
	f.relistLocked(idx, b)
	wake := f.kick
	if f.dirtyPages > f.keepPages()*4 {
		wake = f.urgent
	}
	f.unreserveLocked(b, start, n)
	f.mu.Unlock()
	select {
	case wake <- struct{}{}:
	default:
	}
}

// relistLocked puts a block that got free pages in the list where it belongs.
func (f *File) relistLocked(idx int, b *block) {
	b.maxRun = blockPages
	switch {
	case b.kind == punching:
	case b.nfree == blockPages:
		if b.pos >= 0 && b.kind == small {
			f.unlistLocked(b, &f.partial)
		}
		if b.kind != neutral || b.pos < 0 {
			b.kind = neutral
			f.listLocked(idx, b, &f.neutral)
		}
	case b.kind == small && b.pos < 0:
		f.listLocked(idx, b, &f.partial)
	}
}
