package loader

import (
	"crypto/rand"
	"debug/elf"
	"encoding/binary"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/sentry/memmap"
	"moat/sentry/mm"
)

// VDSO is a vDSO that can be mapped: a *vdso.VDSO.
type VDSO interface {
	// Map maps it into m and returns its address.
	Map(m *mm.MemoryManager) (hostarch.Addr, error)
}

// LoadArgs is what the new program is started with.
type LoadArgs struct {
	Envv []string
	// UID, EUID, GID and EGID are as the program's user namespace sees them; Secure is AT_SECURE.
	UID, EUID, GID, EGID uint32
	Secure               bool
	// Caller has the limits: RLIMIT_STACK, RLIMIT_AS, RLIMIT_DATA.
	Caller     mm.Caller
	StackLimit uint64
	// NoRandom is personality(2)'s ADDR_NO_RANDOMIZE.
	NoRandom bool
	// VDSO may be nil.
	VDSO VDSO
}

// Info is where the program starts.
type Info struct {
	Entry, StackPointer hostarch.Addr
}

// placed is an ELF file that was mapped.
type placed struct {
	bias, entry, lo, phdr      uint64
	startCode, endCode         uint64
	startData, endData, endBrk uint64
}

// stackAhead is how much of the stack below the arguments is there when the program starts.
const stackAhead = 32 << 10

// Load maps the program into m, which must be empty, and lays out its stack.
func (im *Image) Load(m *mm.MemoryManager, a *LoadArgs) (Info, error) {
	ld := &load{im: im, m: m, a: a, end: uint64(m.UserRange().End)}
	rnd, err := ld.random()
	if err != nil {
		return Info{}, err
	}
	m.SetMMapBase(a.StackLimit, rnd.mmap)
	prog, err := ld.program(rnd)
	if err != nil {
		return Info{}, err
	}
	entry, base := prog.entry, uint64(0)
	if im.interp != nil {
		in, err := ld.place(im.interp, 0, im.interp.typ == elf.ET_EXEC)
		if err != nil {
			return Info{}, err
		}
		entry, base = in.entry, in.bias
	}
	if entry >= ld.end {
		return Info{}, unix.EINVAL
	}
	areas := mm.Areas{
		StartCode: hostarch.Addr(prog.startCode), EndCode: hostarch.Addr(prog.endCode),
		StartData: hostarch.Addr(prog.startData), EndData: hostarch.Addr(prog.endData), Static: im.interp == nil,
	}
	brk := (prog.endBrk + pageMask) &^ pageMask
	if im.prog.typ == elf.ET_DYN && im.interp == nil {
		// A static-PIE program lies among the mappings; its heap gets the place that other programs have (load_elf_binary).
		brk = ld.dynBase()
	}
	brk += rnd.brk
	areas.StartBrk, areas.Brk = hostarch.Addr(brk), hostarch.Addr(brk)
	if a.VDSO != nil {
		if areas.VDSO, err = a.VDSO.Map(m); err != nil {
			return Info{}, err
		}
	}
	sp, auxv, err := ld.stack(rnd, &areas, &prog, base)
	if err != nil {
		return Info{}, err
	}
	// What the first instructions touch travels with the program's own mappings.
	if areas.VDSO != 0 {
		m.Populate(areas.VDSO-pageSize, 2*pageSize) // with the page of data before it
	}
	m.Populate(hostarch.Addr(sp&^pageMask-stackAhead), stackAhead)
	m.SetAreas(areas)
	exe := memmap.Identity(im.File)
	if fd := Description(exe); fd != nil {
		exe = fd
	}
	exe.IncRef()
	m.SetMetadata(mm.Metadata{Exe: exe, Auxv: auxv})
	return Info{Entry: hostarch.Addr(entry), StackPointer: hostarch.Addr(sp)}, nil
}

type load struct {
	im  *Image
	m   *mm.MemoryManager
	a   *LoadArgs
	end uint64
}

// randomness is how far things are moved (arch/x86/mm/mmap.c, mm/util.c arch_randomize_brk, fs/binfmt_elf.c).
type randomness struct {
	stack, mmap, pie, brk, align uint64
	bytes                        [16]byte
}

func (ld *load) random() (r randomness, err error) {
	var b [40]byte
	if _, err = rand.Read(b[:]); err != nil {
		return r, err
	}
	copy(r.bytes[:], b[24:])
	if ld.a.NoRandom {
		return r, nil
	}
	le := binary.LittleEndian
	r.stack = uint64(le.Uint32(b[0:])&0x3fffff) << 12
	r.mmap = uint64(le.Uint32(b[4:])&(1<<28-1)) << 12
	r.pie = uint64(le.Uint32(b[8:])&(1<<28-1)) << 12
	r.brk = uint64(le.Uint32(b[12:])) % 0x2000000 &^ pageMask
	r.align = uint64(le.Uint32(b[16:])) % 8192
	return r, nil
}

func (ld *load) dynBase() uint64 { return ld.end / 3 * 2 &^ pageMask }

func (ld *load) program(rnd randomness) (placed, error) {
	prog := ld.im.prog
	switch {
	case prog.typ == elf.ET_EXEC:
		return ld.place(prog, 0, true)
	case ld.im.interp != nil:
		return ld.place(prog, (ld.dynBase()+rnd.pie)&^(prog.alignment()-1), true)
	}
	return ld.place(prog, 0, false)
}

// place maps the segments of e: at the addresses that they name plus at, or (fixed is false) wherever there is room.
func (ld *load) place(e *elfFile, at uint64, fixed bool) (placed, error) {
	lo, hi, err := e.span()
	if err != nil {
		return placed{}, err
	}
	size := hi - lo
	pl := placed{startCode: ^uint64(0)}
	if fixed {
		pl.bias = at
		if e.typ == elf.ET_DYN {
			pl.bias = at - lo
		}
	} else {
		// Reserve room for all of it, then put the segments there.
		align := e.alignment()
		room := size + align - pageSize
		if room < size || room > ld.end {
			return placed{}, unix.ENOMEM
		}
		a, err := ld.m.MMap(mm.Caller{}, memmap.MMapOpts{Length: room, Private: true, MaxPerms: hostarch.AnyAccess, NoReserve: true})
		if err != nil {
			return placed{}, err
		}
		start := (uint64(a) + align - 1) &^ (align - 1)
		if err := ld.m.MUnmap(a, room); err != nil {
			return placed{}, err
		}
		pl.bias = start - lo
	}
	pl.lo = lo + pl.bias
	if pl.lo+size > ld.end || pl.lo+size < pl.lo {
		return placed{}, unix.ENOMEM
	}
	pl.entry = e.entry + pl.bias
	err = e.loads(func(p *phdr) error { return ld.segment(e, p, &pl) })
	return pl, err
}

// segment maps one PT_LOAD segment (elf_load): the pages of the file, zeroes up to the end of the last, and anonymous memory behind.
func (ld *load) segment(e *elfFile, p *phdr, pl *placed) error {
	if p.memsz == 0 {
		return nil
	}
	start := pl.bias + p.vaddr
	fileEnd, memEnd := start+p.filesz, start+p.memsz
	mapStart := start &^ pageMask
	anonStart := mapStart
	perms := p.perms()
	if p.filesz > 0 {
		skew := start - mapStart
		if p.off < skew || (p.off-skew)&pageMask != 0 || p.off+p.filesz < p.off || p.off > 1<<62 {
			return unix.EINVAL
		}
		anonStart = (fileEnd + pageMask) &^ pageMask
		opts := memmap.MMapOpts{
			Addr: hostarch.Addr(mapStart), Length: anonStart - mapStart, Offset: p.off - skew, Private: true, Fixed: true,
			Perms: perms, MaxPerms: hostarch.AnyAccess, Program: true, Ahead: true,
		}
		if err := e.file.ConfigureMMap(&opts); err != nil {
			return err
		}
		if opts.Identity == nil {
			opts.Identity = e.file
		}
		if _, err := ld.m.MMap(ld.a.Caller, opts); err != nil {
			return err
		}
		if fileEnd < anonStart && p.memsz > p.filesz {
			// Only a writable page can be cleared; Linux lets the others show what follows in the file.
			if _, err := ld.m.ZeroOut(hostarch.Addr(fileEnd), int64(anonStart-fileEnd)); err != nil && perms.Write {
				return err
			}
		}
	}
	if anonEnd := (memEnd + pageMask) &^ pageMask; anonEnd > anonStart {
		_, err := ld.m.MMap(ld.a.Caller, memmap.MMapOpts{
			Addr: hostarch.Addr(anonStart), Length: anonEnd - anonStart, Private: true, Fixed: true, Perms: perms, MaxPerms: hostarch.AnyAccess,
		})
		if err != nil {
			return err
		}
		// The first pages of zeroed data are about to be used, too.
		ld.m.Populate(hostarch.Addr(anonStart), min(anonEnd-anonStart, 16*pageSize))
	}
	pl.note(e, p, start, fileEnd, memEnd)
	return nil
}

// note keeps the bounds that /proc/PID/stat and brk need.
func (pl *placed) note(e *elfFile, p *phdr, start, fileEnd, memEnd uint64) {
	if p.off <= e.phoff && e.phoff < p.off+p.filesz {
		pl.phdr = start + (e.phoff - p.off)
	}
	pl.startCode = min(pl.startCode, start)
	pl.startData = max(pl.startData, start)
	if p.flags&elf.PF_X != 0 {
		pl.endCode = max(pl.endCode, fileEnd)
	}
	pl.endData = max(pl.endData, fileEnd)
	pl.endBrk = max(pl.endBrk, memEnd)
}
