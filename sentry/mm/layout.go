package mm

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/sentry/memmap"
	"moat/sentry/memmap/spans"
)

// layout is where things are put by default (mm_struct's mmap_base, brk, ...).
type layout struct {
	mmapBase           uint64 // mappings go below it, top down
	gapSize, gapTop    uint64 // see findGap
	startBrk, brk      uint64
	startCode, endCode uint64
	startData, endData uint64
	startStack         uint64
	argStart, argEnd   uint64
	envStart, envEnd   uint64
	vdso               uint64
	static             bool
}

func (l *layout) setDefault(lim hostarch.AddrRange) {
	l.mmapBase = uint64(lim.End) - (128<<20 + stackGuardGap)
}

// Areas are the addresses that the loader sets and /proc/PID/stat shows.
type Areas struct {
	StartCode, EndCode, StartData, EndData, StartStack hostarch.Addr
	StartBrk, Brk                                      hostarch.Addr
	ArgStart, ArgEnd, EnvStart, EnvEnd                 hostarch.Addr
	VDSO                                               hostarch.Addr
	// Static: the program has no interpreter. Shown nowhere.
	Static bool
}

// Metadata describes the program, for /proc.
type Metadata struct {
	// Exe is /proc/PID/exe: a *vfs.FileDescription.
	Exe memmap.Identity
	// Auxv is /proc/PID/auxv: pairs of words.
	Auxv []byte
}

// SetAreas is called by the loader.
func (mm *MemoryManager) SetAreas(a Areas) {
	mm.mu.Lock()
	defer mm.mu.Unlock()
	l := &mm.layout
	l.startCode, l.endCode = uint64(a.StartCode), uint64(a.EndCode)
	l.startData, l.endData = uint64(a.StartData), uint64(a.EndData)
	l.startStack = uint64(a.StartStack)
	l.startBrk, l.brk = uint64(a.StartBrk), uint64(a.Brk)
	l.argStart, l.argEnd = uint64(a.ArgStart), uint64(a.ArgEnd)
	l.envStart, l.envEnd = uint64(a.EnvStart), uint64(a.EnvEnd)
	l.vdso, l.static = uint64(a.VDSO), a.Static
}

// Areas returns the program's areas.
func (mm *MemoryManager) Areas() Areas {
	mm.mu.RLock()
	defer mm.mu.RUnlock()
	l := &mm.layout
	return Areas{
		StartCode: hostarch.Addr(l.startCode), EndCode: hostarch.Addr(l.endCode),
		StartData: hostarch.Addr(l.startData), EndData: hostarch.Addr(l.endData),
		StartStack: hostarch.Addr(l.startStack), StartBrk: hostarch.Addr(l.startBrk), Brk: hostarch.Addr(l.brk),
		ArgStart: hostarch.Addr(l.argStart), ArgEnd: hostarch.Addr(l.argEnd),
		EnvStart: hostarch.Addr(l.envStart), EnvEnd: hostarch.Addr(l.envEnd), VDSO: hostarch.Addr(l.vdso), Static: l.static,
	}
}

// SetMetadata replaces the program's description; it takes over the reference to Exe.
func (mm *MemoryManager) SetMetadata(m Metadata) {
	mm.metaMu.Lock()
	old := mm.meta.Exe
	mm.meta = m
	mm.metaMu.Unlock()
	if old != nil {
		old.DecRef()
	}
}

// Exe returns /proc/PID/exe with a reference, or nil.
func (mm *MemoryManager) Exe() memmap.Identity {
	mm.metaMu.Lock()
	defer mm.metaMu.Unlock()
	if mm.meta.Exe != nil {
		mm.meta.Exe.IncRef()
	}
	return mm.meta.Exe
}

// Auxv returns /proc/PID/auxv.
func (mm *MemoryManager) Auxv() []byte {
	mm.metaMu.Lock()
	defer mm.metaMu.Unlock()
	return mm.meta.Auxv
}

// SetMMapBase places mmap's area below the stack: stackLimit is RLIMIT_STACK, rnd a random multiple of the page size
// (arch/x86/mm/mmap.c mmap_base).
func (mm *MemoryManager) SetMMapBase(stackLimit, rnd uint64) {
	const minGap, stackRnd = 128 << 20, 16 << 30
	end := uint64(mm.lim.End)
	gap := stackLimit
	if pad := uint64(stackRnd + stackGuardGap); gap+pad > gap {
		gap += pad
	}
	gap = min(max(gap, minGap), end/6*5)
	mm.mu.Lock()
	mm.layout.mmapBase = pageUp(end-gap) - rnd
	mm.layout.gapTop = 0
	mm.mu.Unlock()
}

// reserved reports whether the platform keeps part of [start, end) for itself.
func (mm *MemoryManager) reserved(start, end uint64) bool {
	return start < uint64(mm.keep.End) && uint64(mm.keep.Start) < end
}

// findGap returns where a mapping of n bytes goes. hint is the address that the caller would like.
func (mm *MemoryManager) findGap(n, hint uint64, low32 bool) (uint64, error) {
	lo, hi := uint64(mm.lim.Start), uint64(mm.lim.End)
	if n > hi-lo {
		return 0, unix.ENOMEM
	}
	end := hi
	if low32 {
		end = min(hi, 0x80000000)
	}
	if hint &^= pageMask; hint != 0 {
		hint = max(hint, lo)
	}
	if hint != 0 && n <= end && hint <= end-n && !mm.reserved(hint, hint+n) {
		it := mm.vmas.Find(hint)
		if !mm.vmas.Ok(it) || hint+n <= mm.vmas.At(it).Start-min(mm.vmas.At(it).Start, startGap(mm.vmas.At(it))) {
			return hint, nil
		}
	}
	if low32 {
		if mm.reserved(0x40000000, end) {
			end = uint64(mm.keep.Start)
		}
		if a, ok := mm.vmas.GapUp(max(lo, 0x40000000), end, n, startGap); ok {
			return a, nil
		}
		return 0, unix.ENOMEM
	}
	// Above gapTop there is no gap of gapSize bytes or more: without this, 100,000 mappings would make each search long.
	l := &mm.layout
	top := l.mmapBase
	if l.gapTop != 0 && n >= l.gapSize {
		top = l.gapTop
	}
	a, ok := mm.vmas.GapDown(max(lo, uint64(mm.keep.End)), top, n, startGap)
	if !ok && top != l.mmapBase {
		a, ok = mm.vmas.GapDown(max(lo, uint64(mm.keep.End)), l.mmapBase, n, startGap)
	}
	if !ok && mm.keep.Length() > 0 {
		a, ok = mm.vmas.GapDown(lo, uint64(mm.keep.Start), n, startGap)
	}
	if ok {
		l.gapSize, l.gapTop = n, a+n
		return a, nil
	}
	if a, ok := mm.vmas.GapUp(mm.layout.mmapBase, hi, n, startGap); ok {
		return a, nil
	}
	return 0, unix.ENOMEM
}

// startGap is how much room a mapping needs below it (include/linux/mm.h stack_guard_start_gap).
func startGap(sp *spans.Span[vma]) uint64 {
	if sp.Val.flags&vmGrowsDown != 0 {
		return stackGuardGap
	}
	return 0
}

// Brk is brk(2)'s system call: it returns the new break, or the old one if it cannot be had.
func (mm *MemoryManager) Brk(c Caller, addr hostarch.Addr) hostarch.Addr {
	mm.mu.Lock()
	lock, start := unlocked, uint64(0)
	l := &mm.layout
	old := l.brk
	want := uint64(addr)
	if want >= l.startBrk && want <= uint64(mm.lim.End) && mm.setBrk(c, want) {
		l.brk = want
		if lock = mm.lockFuture; lock == lockEager {
			start = pageUp(old)
		}
	}
	cur := l.brk
	mm.unlock()
	if start != 0 && pageUp(cur) > start {
		mm.Populate(hostarch.Addr(start), pageUp(cur)-start)
	}
	return hostarch.Addr(cur)
}

// +checklocks:mm.mu
func (mm *MemoryManager) setBrk(c Caller, want uint64) bool {
	l := &mm.layout
	if lim := c.limit(linux.RLIMIT_DATA); lim != linux.RLimInfinity && want-l.startBrk+(l.endData-l.startData) > lim {
		return false
	}
	from, to := pageUp(l.brk), pageUp(want)
	if to <= from {
		if to < from {
			mm.removeVMAs(to, from, true)
		}
		return true
	}
	if mm.reserved(from, to) {
		return false
	}
	if it := mm.vmas.Find(from); mm.vmas.Ok(it) && mm.vmas.At(it).Start-startGap(mm.vmas.At(it)) < to+pageSize {
		return false
	}
	v := vma{perms: hostarch.ReadWrite, maxPerms: hostarch.AnyAccess, flags: vmPrivate, lock: mm.lockFuture}
	if mm.addAnon(c, from, to, v) != nil {
		return false
	}
	// Who lets a heap grow by much that was used up to its end, as malloc(3) does, is about to use what is new.
	if to-from >= minAround && !mm.pmas.Free(from-pageSize, from) {
		sp := mm.vmas.Lookup(from)
		a, b := mm.window(sp, from)
		_ = mm.ensure(sp, from, from+pageSize, a, b, access{at: hostarch.Write})
	}
	return true
}

// addAnon adds an anonymous private mapping where nothing is mapped.
func (mm *MemoryManager) addAnon(c Caller, start, end uint64, v vma) error {
	n := end - start
	if err := mm.mayExpand(c, v.perms, v.flags, n); err != nil {
		return err
	}
	if mm.vmas.Len() >= maxMapCount {
		return unix.ENOMEM
	}
	if v.lock != unlocked && !mm.mayLock(c, n) {
		return unix.EAGAIN
	}
	if mm.charged(&v) {
		if err := mm.mf.Charge(n); err != nil {
			return err
		}
		v.flags |= vmAccount
	}
	mm.insertVMA(start, end, v)
	return nil
}

// charged is whether a mapping's length is promised memory (mm/mmap.c accountable_mapping).
func (mm *MemoryManager) charged(v *vma) bool {
	if mode, _ := mm.mf.Overcommit(); v.flags&vmNoReserve != 0 && mode != 2 {
		return false
	}
	return v.private() && v.perms.Write
}
