package mm

import (
	"maps"
	"testing"

	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/platform"
	"moat/sentry/memmap"
	"moat/sentry/memory"
)

// rewriting is a fakePlatform that rewrites what it is asked to: two bytes become 0xee.
type rewriting struct{ fakePlatform }

func (rewriting) NewText() (int, bool) { return 0, true }
func (rewriting) FreeText(int)         {}
func (rewriting) Rewrite(_ int, page []byte, _ uint64, at int) (from, to int, ok bool) {
	page[at], page[at+1] = 0xee, 0xee
	return at, at + 2, true
}

// codeFile is a file of 64 pages, translated two pages at a time.
type codeFile struct {
	mf *memory.File
	fr memmap.FileRange
}

func (c *codeFile) AddMapping(memmap.Space, hostarch.AddrRange, uint64, bool) error { return nil }
func (c *codeFile) RemoveMapping(memmap.Space, hostarch.AddrRange, uint64, bool)    {}

func (c *codeFile) Translate(required, _ memmap.FileRange, _ hostarch.AccessType) (ts []memmap.Translation, err error) {
	for off := required.Start &^ (2*pageSize - 1); off < required.End; off += 2 * pageSize {
		fr := memmap.FileRange{Start: c.fr.Start + off, End: c.fr.Start + off + 2*pageSize}
		c.mf.IncRef(fr)
		ts = append(ts, memmap.Translation{Source: memmap.FileRange{Start: off, End: off + 2*pageSize}, File: c.mf, Offset: fr.Start, Perms: hostarch.ReadExecute})
	}
	return ts, nil
}

// TestTextCopies: every address space sees what was rewritten when it mapped the file, and the file's own bytes elsewhere; copies that lie close to each other
// are one, with what lies between, and the file's change there counts; nothing is lost or kept for good.
func TestTextCopies(t *testing.T) {
	const n = 64
	mf, err := memory.New(-1, 4<<30)
	if err != nil {
		t.Fatal(err)
	}
	defer mf.Close()
	f := &codeFile{mf: mf, fr: must(mf.Allocate(n*pageSize, true))}
	code := mf.Bytes(f.fr.Start, n*pageSize)
	for i := range code {
		code[i] = byte(i % 131)
	}
	used := mf.Used()
	var p platform.Platform = rewriting{}
	texts := NewTexts(p, mf)
	want := make(map[uint64]bool) // offsets of what is rewritten
	var spaces []*MemoryManager
	exec := func() *MemoryManager {
		m := must(New(p, mf, texts))
		must(m.MMap(Caller{}, memmap.MMapOpts{Length: n * pageSize, Addr: base, Fixed: true, Private: true, Perms: hostarch.ReadExecute, MaxPerms: hostarch.AnyAccess, Mappable: f}))
		spaces = append(spaces, m)
		return m
	}
	check := func(m *MemoryManager, want map[uint64]bool) {
		t.Helper()
		for off := uint64(0); off < n*pageSize; off++ {
			w := code[off]
			if want[off] || want[off-1] {
				w = 0xee
			}
			if b := must(guest(m, mf, base+off, hostarch.Execute, false)); *b != w {
				t.Fatalf("offset %#x: %#x, want %#x", off, *b, w)
			}
		}
	}
	rewrite := func(m *MemoryManager, page, at uint64) {
		off := page*pageSize + at
		must(guest(m, mf, base+off, hostarch.Execute, false))
		for range hotCall + 1 {
			m.Trapped(hostarch.Addr(base + off))
		}
		want[off] = true
	}
	first := exec()
	for _, page := range []uint64{10, 11, 14, 40, 63} {
		rewrite(first, page, 100)
	}
	check(first, want)
	then := maps.Clone(want)
	second := exec()
	check(second, want)
	at := func(page uint64) uint64 { return second.as.(*fakeAS).pages[base+page*pageSize].off }
	if at(14) != at(10)+4*pageSize || at(12) == f.fr.Start+12*pageSize || at(20) != f.fr.Start+20*pageSize || at(39) != f.fr.Start+39*pageSize {
		t.Errorf("pages 10 to 14 are at %#x to %#x, 12 at %#x, 20 at %#x; the file at %#x", at(10), at(14), at(12), at(20), f.fr.Start)
	}
	rewrite(second, 12, 200)
	rewrite(second, 11, 300)
	rewrite(second, 11, 302)
	third := exec()
	check(third, want)
	fork := func() { // of a space that maps all copies as they are now
		t.Helper()
		m := exec()
		for page := uint64(0); page < n; page++ {
			must(guest(m, mf, base+page*pageSize, hostarch.Execute, false))
		}
		for range 3 {
			c := must(m.Fork())
			check(c, want)
			c.DecUsers()
			rewrite(third, 13, uint64(8+2*len(want)))
		}
		c := must(m.Fork())
		check(c, want)
		c.DecUsers()
	}
	fork()
	rewrite(third, 13, 8)
	rewrite(third, 41, 0)
	check(exec(), want)
	check(first, then)

	code[12*pageSize]++ // between two that were rewritten
	check(exec(), nil)
	for _, m := range spaces {
		m.DecUsers()
	}
	texts.mu.Lock()
	defer texts.mu.Unlock()
	if len(texts.byFile) != 0 || mf.Used() != used {
		t.Errorf("%d texts and %d bytes are left", len(texts.byFile), int64(mf.Used()-used))
	}
}
