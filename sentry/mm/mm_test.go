package mm

import (
	"bytes"
	"fmt"
	"math/rand"
	"testing"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/sentry/memmap"
	"moat/sentry/memory"
)

func anon(m *MemoryManager, addr, n uint64, perms hostarch.AccessType, f func(*memmap.MMapOpts)) (uint64, error) {
	o := memmap.MMapOpts{Length: n, Addr: hostarch.Addr(addr), Private: true, Perms: perms, MaxPerms: hostarch.AnyAccess, Fixed: addr != 0}
	if f != nil {
		f(&o)
	}
	a, err := m.MMap(Caller{}, o)
	return uint64(a), err
}

// space is a model of an address space: what each page should hold and allow.
type space struct {
	mm     *MemoryManager
	mapped [pages]bool
	prot   [pages]hostarch.AccessType
	val    [pages]*byte // shared pages share the byte
	shared [pages]bool
}

const (
	pages = 256
	base  = 0x100000000
)

func (s *space) fork(t *testing.T) *space {
	c, err := s.mm.Fork()
	if err != nil {
		t.Fatal(err)
	}
	checkMapped(t, s.mm)
	checkMapped(t, c)
	n := *s
	n.mm = c
	for i, v := range n.val {
		if v != nil && !n.shared[i] {
			b := *v
			n.val[i] = &b
		}
	}
	return &n
}

// TestModel runs random operations on a family of address spaces and compares what a guest, and the sentry, sees with a model.
func TestModel(t *testing.T) {
	for seed := range int64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { runModel(t, rand.New(rand.NewSource(seed))) })
	}
}

func runModel(t *testing.T, r *rand.Rand) {
	m, mf := newMM(t)
	all := []*space{{mm: m}}
	perms := []hostarch.AccessType{hostarch.NoAccess, hostarch.Read, hostarch.ReadWrite, hostarch.ReadWrite, hostarch.ReadWrite}
	for step := range 4000 {
		s := all[r.Intn(len(all))]
		p := r.Intn(pages - 1)
		n := 1 + r.Intn(min(40, pages-p-1))
		addr, length := uint64(base+p*pageSize), uint64(n*pageSize)
		at := perms[r.Intn(len(perms))]
		switch op := r.Intn(12); op {
		case 0:
			shared := r.Intn(4) == 0
			if _, err := anon(s.mm, addr, length, at, func(o *memmap.MMapOpts) { o.Private = !shared; o.Populate = r.Intn(4) == 0 }); err != nil {
				t.Fatal(step, err)
			}
			for i := p; i < p+n; i++ {
				s.mapped[i], s.prot[i], s.val[i], s.shared[i] = true, at, new(byte), shared
			}
		case 1:
			if err := s.mm.MUnmap(hostarch.Addr(addr), length); err != nil {
				t.Fatal(step, err)
			}
			for i := p; i < p+n; i++ {
				s.mapped[i], s.val[i] = false, nil
			}
		case 2:
			err := s.mm.MProtect(Caller{}, hostarch.Addr(addr), length, at, false)
			for i := p; i < p+n; i++ {
				if !s.mapped[i] {
					if err != unix.ENOMEM {
						t.Fatal(step, "mprotect over a hole:", err)
					}
					break
				}
				s.prot[i] = at
				if i == p+n-1 && err != nil {
					t.Fatal(step, err)
				}
			}
		case 3:
			if len(all) < 6 && r.Intn(2) == 0 {
				all = append(all, s.fork(t))
			} else if len(all) > 1 {
				i := r.Intn(len(all))
				all[i].mm.DecUsers()
				all = append(all[:i], all[i+1:]...)
			}
		case 4:
			s.mm.MAdvise(Caller{}, hostarch.Addr(addr), length, unix.MADV_DONTNEED)
			for i := p; i < p+n; i++ {
				if s.mapped[i] && !s.shared[i] {
					s.val[i] = new(byte)
				}
			}
		case 5:
			model5(t, step, s, r, p)
		default:
			checkPage(t, step, s, mf, r, p)
		}
	}
	for _, s := range all {
		for p := range pages {
			checkPage(t, -1, s, mf, r, p)
		}
		s.mm.DecUsers()
	}
	if mf.Used() != 0 || mf.Committed() != 0 {
		t.Errorf("left behind: %d bytes in use, %d committed", mf.Used(), mf.Committed())
	}
}

// model5 moves pages by mremap.
func model5(t *testing.T, step int, s *space, r *rand.Rand, p int) {
	n := 1
	for p+n < pages/2 && n < 20 && s.mapped[p+n] && s.mapped[p] && s.shared[p+n] == s.shared[p] && s.prot[p+n] == s.prot[p] && !s.shared[p] {
		n++
	}
	to := pages/2 + r.Intn(pages/2-n)
	if p >= pages/2 || to < p+n || s.shared[p] {
		return
	}
	_, err := s.mm.MRemap(Caller{}, hostarch.Addr(base+p*pageSize), uint64(n*pageSize), uint64(n*pageSize), linux.MREMAP_FIXED|linux.MREMAP_MAYMOVE,
		hostarch.Addr(base+to*pageSize))
	if !s.mapped[p] {
		if err != unix.EFAULT {
			t.Fatal(step, "mremap of nothing:", err)
		}
		return
	}
	if err != nil {
		// A run that looks uniform may be several mappings.
		if err != unix.EFAULT {
			t.Fatal(step, err)
		}
		return
	}
	for i := range n {
		s.mapped[to+i], s.prot[to+i], s.val[to+i], s.shared[to+i] = true, s.prot[p+i], s.val[p+i], false
		s.mapped[p+i], s.val[p+i] = false, nil
	}
}

func checkPage(t *testing.T, step int, s *space, mf *memory.File, r *rand.Rand, p int) {
	t.Helper()
	addr := uint64(base + p*pageSize + 8)
	blind := r.Intn(2) == 0
	b, err := guest(s.mm, mf, addr, hostarch.Read, blind)
	switch {
	case !s.mapped[p]:
		if err != ErrMapErr {
			t.Fatalf("step %d page %d unmapped: %v", step, p, err)
		}
		var x [1]byte
		if _, err := s.mm.CopyIn(hostarch.Addr(addr), x[:]); err != unix.EFAULT {
			t.Fatalf("copy-in: %v", err)
		}
		return
	case !s.prot[p].Any():
		if err != ErrAccErr {
			t.Fatalf("step %d page %d PROT_NONE: %v", step, p, err)
		}
		return
	case err != nil:
		t.Fatalf("step %d page %d: %v", step, p, err)
	case *b != *s.val[p]:
		t.Fatalf("step %d page %d holds %d, want %d", step, p, *b, *s.val[p])
	}
	v := byte(r.Intn(256))
	if r.Intn(2) == 0 {
		_, err = s.mm.CopyOut(hostarch.Addr(addr), []byte{v})
	} else if b, err = guest(s.mm, mf, addr, hostarch.Write, blind); err == nil {
		*b = v
	}
	if s.prot[p].Write {
		if err != nil {
			t.Fatalf("step %d page %d write: %v", step, p, err)
		}
		*s.val[p] = v
	} else if err == nil {
		t.Fatalf("step %d page %d is read-only, and was written", step, p)
	}
	var x [1]byte
	if _, err := s.mm.CopyIn(hostarch.Addr(addr), x[:]); err != nil || x[0] != *s.val[p] {
		t.Fatalf("step %d page %d copy-in %d, %v", step, p, x[0], err)
	}
}

func TestPartialCopies(t *testing.T) {
	m, _ := newMM(t)
	a, err := anon(m, base, 2*pageSize, hostarch.ReadWrite, nil)
	if err != nil {
		t.Fatal(err)
	}
	end := hostarch.Addr(a + 2*pageSize)
	if n, err := m.CopyOut(end-5, []byte("0123456789")); n != 5 || err != unix.EFAULT {
		t.Errorf("CopyOut over the end: %d, %v", n, err)
	}
	if s, err := m.CopyInString(end-5, 100); s != "" || err != unix.EFAULT {
		t.Errorf("string without NUL: %q, %v", s, err)
	}
	m.CopyOut(end-5, []byte("abc\x00"))
	if s, err := m.CopyInString(end-5, 100); s != "abc" || err != nil {
		t.Errorf("string: %q, %v", s, err)
	}
	if _, err := m.CopyInString(end-5, 3); err != unix.ENAMETOOLONG {
		t.Errorf("long string: %v", err)
	}
	n, err := m.Blocks(hostarch.AddrRange{Start: end - 8, End: end + 100}, hostarch.Read, func(bs [][]byte) (uint64, error) {
		return uint64(len(bytes.Join(bs, nil))), nil
	})
	if n != 8 || err != nil {
		t.Errorf("Blocks: %d, %v", n, err)
	}
	if _, err := m.Blocks(hostarch.AddrRange{Start: end, End: end + 1}, hostarch.Read, nil); err != unix.EFAULT {
		t.Errorf("Blocks outside: %v", err)
	}
	if v, err := m.CompareAndSwapUint32(hostarch.Addr(a), 0, 7); v != 0 || err != nil {
		t.Error(v, err)
	}
	if v, err := m.CompareAndSwapUint32(hostarch.Addr(a), 7, 9); v != 7 || err != nil {
		t.Error(v, err)
	}
	if v, err := m.LoadUint32(hostarch.Addr(a)); v != 9 || err != nil {
		t.Error(v, err)
	}
	m.DecUsers()
}

type limits map[int]uint64

func (l limits) Limit(r int) linux.RLimit {
	if v, ok := l[r]; ok {
		return linux.RLimit{Cur: v, Max: v}
	}
	return linux.RLimit{Cur: linux.RLimInfinity, Max: linux.RLimInfinity}
}

func TestStackAndBrk(t *testing.T) {
	m, mf := newMM(t)
	c := Caller{Limits: limits{linux.RLIMIT_STACK: 8 << 20, linux.RLIMIT_AS: 64 << 20}}
	top := uint64(0x7ff000000000)
	if _, err := anon(m, top-0x21000, 0x21000, hostarch.ReadWrite, func(o *memmap.MMapOpts) { o.GrowsDown = true }); err != nil {
		t.Fatal(err)
	}
	at := func(a uint64) error { return m.HandleFault(c, hostarch.Addr(a), hostarch.Write, false) }
	if err := at(top - 4<<20); err != nil {
		t.Error("stack growth:", err)
	}
	if err := at(top - 8<<20 - 1); err != ErrMapErr {
		t.Error("stack limit:", err)
	}
	anon(m, top-6<<20, pageSize, hostarch.ReadWrite, nil)
	if err := at(top - 5<<20); err != ErrMapErr {
		t.Error("guard gap:", err)
	}
	if err := at(top - 5<<20 + 2*pageSize); err != nil {
		t.Error("just outside of the guard gap:", err)
	}
	m.SetAreas(Areas{StartBrk: 0x600123, Brk: 0x600123})
	if b := m.Brk(c, 0x700000); b != 0x700000 {
		t.Errorf("brk %#x", b)
	}
	if b := m.Brk(c, 0x10000000); b != 0x700000 {
		t.Errorf("brk beyond RLIMIT_AS: %#x", b)
	}
	if b := m.Brk(c, 0x600124); b != 0x600124 {
		t.Errorf("brk shrinks: %#x", b)
	}
	if _, err := m.MMap(c, memmap.MMapOpts{Length: 64 << 20, Private: true, Perms: hostarch.Read}); err != unix.ENOMEM {
		t.Error("RLIMIT_AS:", err)
	}
	m.DecUsers()
	if mf.Used() != 0 {
		t.Error("pages left")
	}
}

// TestWindow: how many faults it takes to use memory.
func TestWindow(t *testing.T) {
	for _, c := range []struct {
		name string
		most int
		use  func(m *MemoryManager, touch func(addr uint64))
	}{
		{"a large mapping upwards", 10, func(m *MemoryManager, touch func(uint64)) {
			anon(m, base, 8<<20, hostarch.ReadWrite, nil)
			for off := uint64(0); off < 8<<20; off += pageSize {
				touch(base + off)
			}
		}},
		{"with gaps", 10, func(m *MemoryManager, touch func(uint64)) {
			anon(m, base, 8<<20, hostarch.ReadWrite, nil)
			for off := uint64(0); off < 8<<20; off += 15 * pageSize {
				touch(base + off)
			}
		}},
		{"a small mapping at random", 8, func(m *MemoryManager, touch func(uint64)) {
			anon(m, base, 1664<<10, hostarch.ReadWrite, nil)
			for _, i := range rand.New(rand.NewSource(1)).Perm(416) {
				touch(base + uint64(i)*pageSize)
			}
		}},
		{"a large mapping here and there", 33, func(m *MemoryManager, touch func(uint64)) {
			anon(m, base, 64<<20, hostarch.ReadWrite, nil)
			for off := uint64(0); off < 64<<20; off += 2 << 20 {
				touch(base + off)
			}
			if n := m.rss.total(); n > 33*minAround {
				t.Errorf("%d KiB for 32 pages", n>>10)
			}
		}},
		{"malloc's heap", 2, func(m *MemoryManager, touch func(uint64)) {
			m.SetAreas(Areas{StartBrk: base, Brk: base})
			for end := uint64(base + 132<<10); end < base+2<<20; end += 132 << 10 {
				m.Brk(Caller{}, hostarch.Addr(end))
				for a := end - 132<<10; a < end; a += pageSize {
					touch(a)
				}
			}
		}},
	} {
		m, mf := newMM(t)
		faults := 0
		c.use(m, func(addr uint64) {
			if p, ok := m.as.(*fakeAS).pages[addr]; !ok || !p.at.Write {
				faults++
			}
			if _, err := guest(m, mf, addr, hostarch.Write, false); err != nil {
				t.Fatal(err)
			}
		})
		if faults > c.most {
			t.Errorf("%s: %d faults, not %d", c.name, faults, c.most)
		}
		m.DecUsers()
	}
}

func TestErrnos(t *testing.T) {
	m, _ := newMM(t)
	a, _ := anon(m, base, 4*pageSize, hostarch.ReadWrite, nil)
	mmap := func(f func(*memmap.MMapOpts)) error { _, err := anon(m, a, pageSize, hostarch.Read, f); return err }
	for i, c := range []struct {
		got  error
		want unix.Errno
	}{
		{mmap(func(o *memmap.MMapOpts) { o.Length = 0 }), unix.EINVAL},
		{mmap(func(o *memmap.MMapOpts) { o.Length = ^uint64(0) }), unix.ENOMEM},
		{mmap(func(o *memmap.MMapOpts) { o.Length = 1 << 47 }), unix.ENOMEM},
		{mmap(func(o *memmap.MMapOpts) { o.Addr++ }), unix.EINVAL},
		{mmap(func(o *memmap.MMapOpts) { o.FixedNoReplace = true }), unix.EEXIST},
		{mmap(func(o *memmap.MMapOpts) { o.Addr = 0x1000 }), unix.EPERM},
		{m.MUnmap(hostarch.Addr(a+1), 1), unix.EINVAL},
		{m.MUnmap(hostarch.Addr(a), 0), unix.EINVAL},
		{m.MProtect(Caller{}, hostarch.Addr(a), 5*pageSize, hostarch.Read, false), unix.ENOMEM},
		{m.MAdvise(Caller{}, hostarch.Addr(a), 5*pageSize, unix.MADV_WILLNEED), unix.ENOMEM},
		{m.MAdvise(Caller{}, hostarch.Addr(a), pageSize, 999), unix.EINVAL},
		{m.MSync(hostarch.Addr(a), 5*pageSize, unix.MS_SYNC), unix.ENOMEM},
		{m.MLock(Caller{Limits: limits{linux.RLIMIT_MEMLOCK: pageSize}}, hostarch.Addr(a), 2*pageSize, false), unix.ENOMEM},
		{m.MLock(Caller{Limits: limits{linux.RLIMIT_MEMLOCK: 0}}, hostarch.Addr(a), pageSize, false), unix.EPERM},
		{m.MInCore(hostarch.Addr(a), 5*pageSize, make([]byte, 5)), unix.ENOMEM},
	} {
		if c.got != c.want {
			t.Errorf("case %d: %v, want %v", i, c.got, c.want)
		}
	}
	m.DecUsers()
}

// TestManyVMAs: 100,000 mappings that cannot merge, then unmapped.
// TestProtectLater: allowing writes again changes nothing before the first write, unless the last time it was followed by one.
func TestProtectLater(t *testing.T) {
	m, _ := newMM(t)
	as := m.as.(*fakeAS)
	a := hostarch.Addr(must(anon(m, base, 4*pageSize, hostarch.ReadWrite, nil)))
	at := func() hostarch.AccessType { return as.pages[uint64(a)].at }
	write := func() {
		t.Helper()
		if err := m.HandleFault(Caller{}, a, hostarch.Write, false); err != nil || at() != hostarch.ReadWrite {
			t.Fatalf("after a write the page is mapped %v: %v", at(), err)
		}
	}
	protect := func(p, want hostarch.AccessType, ops int) {
		t.Helper()
		n := as.ops
		if err := m.MProtect(Caller{}, a, 4*pageSize, p, false); err != nil || at() != want || as.ops != n+ops {
			t.Fatalf("after mprotect to %v the page is mapped %v, by %d changes: %v", p, at(), as.ops-n, err)
		}
	}
	write()
	protect(hostarch.Read, hostarch.Read, 1)
	protect(hostarch.ReadWrite, hostarch.Read, 0)
	protect(hostarch.Read, hostarch.Read, 0)
	if err := m.HandleFault(Caller{}, a, hostarch.Write, false); err != ErrAccErr {
		t.Fatalf("a write that is forbidden: %v", err)
	}
	protect(hostarch.ReadWrite, hostarch.Read, 0)
	write()
	protect(hostarch.Read, hostarch.Read, 1)
	protect(hostarch.ReadWrite, hostarch.ReadWrite, 1)
	protect(hostarch.NoAccess, hostarch.NoAccess, 1)
	protect(hostarch.ReadWrite, hostarch.ReadWrite, 1)
}

// TestForkCopiesHotPages: what the child of one fork wrote to first, that of the next gets as a page of its own, whether the parent writes to it or not.
func TestForkCopiesHotPages(t *testing.T) {
	m, mf := newMM(t)
	a := must(anon(m, base, 8*pageSize, hostarch.ReadWrite, nil))
	if _, err := m.CopyOut(hostarch.Addr(a+3*pageSize), []byte("hot")); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		c := must(m.Fork())
		p := c.as.(*fakeAS).pages[a+3*pageSize]
		if want := i > 0; p.at.Write != want {
			t.Errorf("fork %d: the page is mapped %v", i, p.at)
		}
		if err := c.HandleFault(Caller{}, hostarch.Addr(a+3*pageSize), hostarch.Write, false); err != nil {
			t.Fatal(err)
		}
		p = c.as.(*fakeAS).pages[a+3*pageSize]
		if q := m.as.(*fakeAS).pages[a+3*pageSize]; p.off == q.off || string(mf.Bytes(p.off, 3)) != "hot" {
			t.Errorf("fork %d: the child's page is at %#x, the parent's at %#x", i, p.off, q.off)
		}
		c.DecUsers()
	}
}

// TestForkOfSpares: what was mapped for a child that has ended is mapped again only where it changed.
func TestForkOfSpares(t *testing.T) {
	m, mf := newMM(t)
	a := must(anon(m, base, 64*pageSize, hostarch.ReadWrite, nil))
	for i := uint64(0); i < 64; i += 2 {
		must(anon(m, base+i*pageSize, pageSize, hostarch.ReadWrite, func(o *memmap.MMapOpts) { o.Private = i%4 == 0 }))
		*must(guest(m, mf, a+i*pageSize, hostarch.Write, false)) = byte(i)
	}
	ops := func(change func(c *MemoryManager)) int {
		c := must(m.Fork())
		checkMapped(t, c)
		n := c.as.(*fakeAS).ops
		change(c)
		c.as.(*fakeAS).ops = 0
		c.DecUsers()
		return n
	}
	kept.Clear()
	tickets.Store(100)
	ops(func(*MemoryManager) {})
	if n := ops(func(c *MemoryManager) { must(guest(c, mf, a+8*pageSize, hostarch.Write, false)) }); n > 2 {
		t.Errorf("a second fork takes %d changes", n)
	}
	ops(func(c *MemoryManager) { c.MUnmap(hostarch.Addr(a+10*pageSize), 3*pageSize) })
	if n := ops(func(*MemoryManager) {}); n == 0 || n > 6 {
		t.Errorf("a fork behind a child that unmapped three pages takes %d changes", n)
	}
	must(m.MMap(Caller{}, memmap.MMapOpts{Length: 4 * pageSize, Addr: hostarch.Addr(a + 20*pageSize), Fixed: true, Private: true}))
	ops(func(*MemoryManager) {})
	m.DecUsers()
	kept.Range(func(k, _ any) bool { t.Errorf("space %v is still kept", k); return true })
}

// TestPopulate: pages are made ahead for a guest that writes to one after the other, not for one that reads or writes here and there.
func TestPopulate(t *testing.T) {
	for _, c := range []struct {
		at     hostarch.AccessType
		stride uint64
		want   bool
	}{{hostarch.Write, 1, true}, {hostarch.Read, 1, false}, {hostarch.Write, 613, false}} {
		m, mf := newMM(t)
		a := must(anon(m, base, 1024*pageSize, hostarch.ReadWrite, nil))
		for i := range uint64(1024) {
			if _, err := guest(m, mf, a+i*c.stride%1024*pageSize, c.at, false); err != nil {
				t.Fatal(err)
			}
			if made := m.as.(*fakeAS).made; i < 16 && made != 0 {
				t.Fatalf("%+v: %d bytes after %d pages", c, made, i+1)
			}
		}
		if made := m.as.(*fakeAS).made; (made > 512*pageSize) != c.want || !c.want && made != 0 {
			t.Errorf("%+v: %d bytes", c, made)
		}
		m.DecUsers()
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestManyVMAs(t *testing.T) {
	m, _ := newMM(t)
	for i := range 100000 {
		at := hostarch.Read
		if i&1 == 0 {
			at = hostarch.ReadWrite
		}
		if _, err := anon(m, 0, pageSize, at, nil); err != nil {
			t.Fatal(i, err)
		}
	}
	if n := m.Stats().Maps; n != 100000 {
		t.Errorf("%d mappings", n)
	}
	n := 0
	m.Mappings(0, true, func(*Mapping) bool { n++; return true })
	if n != 100000 {
		t.Errorf("listed %d", n)
	}
	m.DecUsers()
}

func benchMM(b *testing.B) (*MemoryManager, *memory.File) {
	m, mf := newMM(b)
	m.as.(*fakeAS).flat = true
	return m, mf
}

func BenchmarkFault(b *testing.B) {
	m, _ := benchMM(b)
	const n = 1 << 30
	a, _ := anon(m, base, n, hostarch.ReadWrite, nil)
	off := uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		if off >= n {
			b.StopTimer()
			m.MAdvise(Caller{}, hostarch.Addr(a), n, unix.MADV_DONTNEED)
			b.StartTimer()
			off = 0
		}
		// Every other 64 KiB, so that windows do not grow.
		if err := m.HandleFault(Caller{}, hostarch.Addr(a+off), hostarch.Write, false); err != nil {
			b.Fatal(err)
		}
		off += 128 << 10
	}
}

func BenchmarkCopyIn(b *testing.B) {
	m, _ := benchMM(b)
	a, _ := anon(m, base, 1<<20, hostarch.ReadWrite, nil)
	buf := make([]byte, 64)
	m.CopyIn(hostarch.Addr(a), buf)
	b.ReportAllocs()
	for b.Loop() {
		m.CopyIn(hostarch.Addr(a), buf)
	}
}

func BenchmarkFork(b *testing.B) {
	m, _ := benchMM(b)
	a, _ := anon(m, base, 64<<20, hostarch.ReadWrite, nil)
	m.Populate(hostarch.Addr(a), 64<<20)
	b.ReportAllocs()
	for b.Loop() {
		c, err := m.Fork()
		if err != nil {
			b.Fatal(err)
		}
		c.DecUsers()
	}
}
