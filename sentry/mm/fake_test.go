package mm

import (
	"sync"
	"sync/atomic"
	"testing"

	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/platform"
	"moat/sentry/memory"
)

// fakePlatform records mappings page by page, so that tests can act as the guest.
type fakePlatform struct{}

type fakePage struct {
	fd  int
	off uint64
	at  hostarch.AccessType
}

type fakeAS struct {
	mu    sync.Mutex
	pages map[uint64]fakePage
	ops   int
	made  uint64 // bytes of Populate
	flat  bool   // count only
}

func (fakePlatform) Name() string                 { return "fake" }
func (fakePlatform) Reserved() hostarch.AddrRange { return hostarch.AddrRange{} }
func (f *fakeAS) SetText(int, hostarch.Addr)      {}
func (f *fakeAS) SetName(string)                  {}
func (fakePlatform) UserRange() hostarch.AddrRange {
	return hostarch.AddrRange{Start: 0x10000, End: 0x7ffffffff000}
}
func (fakePlatform) NewAddressSpace() (platform.AddressSpace, error) {
	return &fakeAS{pages: make(map[uint64]fakePage)}, nil
}
func (fakePlatform) Close() {}

// kept are the spaces that were kept, by ticket.
var (
	kept    sync.Map
	tickets atomic.Uint64
)

func (fakePlatform) Keep(as platform.AddressSpace) uint64 {
	t := tickets.Add(1)
	kept.Store(t, as)
	return t
}

// Reclaim has lost each seventh.
func (fakePlatform) Reclaim(t uint64) (platform.AddressSpace, bool) {
	as, ok := kept.LoadAndDelete(t)
	if !ok || t%7 == 0 {
		return nil, true
	}
	return as.(platform.AddressSpace), false
}

func (fakePlatform) Discard(t uint64) { kept.Delete(t) }

// checkMapped compares what the platform has mapped with the runs of pages.
func checkMapped(t *testing.T, m *MemoryManager) {
	t.Helper()
	as, n := m.as.(*fakeAS), 0
	for it := m.pmas.First(); m.pmas.Ok(it); it = m.pmas.Next(it) {
		sp := m.pmas.At(it)
		for a := sp.Start; a < sp.End; a += pageSize {
			if want := (fakePage{sp.Val.file.FD(), sp.Val.off + a - sp.Start, sp.Val.perms}); as.pages[a] != want {
				t.Fatalf("%#x is mapped to %+v, want %+v", a, as.pages[a], want)
			}
			n++
		}
	}
	if n != len(as.pages) {
		t.Fatalf("%d pages are mapped, want %d", len(as.pages), n)
	}
}

func (f *fakeAS) Populate(ar hostarch.AddrRange) { f.made += uint64(ar.Length()) }

func (f *fakeAS) Map(ar hostarch.AddrRange, fd int, off uint64, at hostarch.AccessType) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ops++
	if f.flat {
		return
	}
	for a := uint64(ar.Start); a < uint64(ar.End); a += pageSize {
		f.pages[a] = fakePage{fd, off + a - uint64(ar.Start), at}
	}
}

func (f *fakeAS) Unmap(ar hostarch.AddrRange) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ops++
	for a := range f.pages {
		if a >= uint64(ar.Start) && a < uint64(ar.End) {
			delete(f.pages, a)
		}
	}
}

func (f *fakeAS) Protect(ar hostarch.AddrRange, at hostarch.AccessType) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ops++
	if f.flat {
		return
	}
	for a, p := range f.pages {
		if a >= uint64(ar.Start) && a < uint64(ar.End) {
			p.at = at
			f.pages[a] = p
		}
	}
}

func (f *fakeAS) Flush() error                        { return nil }
func (f *fakeAS) Settled() bool                       { return true }
func (f *fakeAS) NewThread() (platform.Thread, error) { return nil, nil }
func (f *fakeAS) Release()                            {}

func newMM(t testing.TB) (*MemoryManager, *memory.File) {
	mf, err := memory.New(-1, 4<<30)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(mf.Close)
	m, err := New(fakePlatform{}, mf, nil)
	if err != nil {
		t.Fatal(err)
	}
	return m, mf
}

// guest accesses a byte as guest code would: through what the platform has mapped, faulting as often as it takes.
func guest(m *MemoryManager, mf *memory.File, addr uint64, at hostarch.AccessType, blind bool) (*byte, error) {
	as := m.as.(*fakeAS)
	for try := 0; ; try++ {
		as.mu.Lock()
		p, ok := as.pages[addr&^pageMask]
		as.mu.Unlock()
		if ok && p.at.SupersetOf(at) {
			return &mf.Bytes(p.off+addr&pageMask, 1)[0], nil
		}
		if try > 4 {
			panic("fault loop")
		}
		told := at
		if blind {
			told = hostarch.NoAccess
		}
		if err := m.HandleFault(Caller{}, hostarch.Addr(addr), told, try > 0); err != nil {
			return nil, err
		}
	}
}
