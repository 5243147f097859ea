// Package vdso builds the shared object that the kernel maps into every program (vdso(7)): clock_gettime, gettimeofday, time, getcpu and clock_getres
// without a system call. The code is vdso_amd64.s, around which Build writes a small ELF file: one page of it, read-only and executable, and below it the vvar page that
// sentry/kernel/ktime keeps up to date. Both are pages of the memory file, the same ones for all programs.
//
// The package has no locks; a VDSO does not change.
package vdso

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/sentry/kernel/ktime"
	"moat/sentry/memmap"
	"moat/sentry/memory"
	"moat/sentry/mm"
)

const pageSize = hostarch.PageSize

// functions are the names, in the order of the markers.
var functions = []string{"clock_gettime", "gettimeofday", "time", "getcpu", "clock_getres"}

// VDSO can be mapped into address spaces.
type VDSO struct {
	pages *fixed
}

// New builds the vDSO in pages of f and publishes the time to it.
func New(f *memory.File) (*VDSO, error) {
	image, err := build(text(), -pageSize)
	if err != nil {
		return nil, err
	}
	fr, err := f.Allocate(2*pageSize, true)
	if err != nil {
		return nil, err
	}
	if fr.Length() != 2*pageSize {
		f.DecRef(fr)
		return nil, unix.ENOMEM
	}
	ktime.Publish(f.Bytes(fr.Start, pageSize))
	copy(f.Bytes(fr.Start+pageSize, pageSize), image)
	return &VDSO{&fixed{f, fr}}, nil
}

// Map maps vvar and vDSO, in this order, and returns the address of the latter (AT_SYSINFO_EHDR).
func (v *VDSO) Map(m *mm.MemoryManager) (hostarch.Addr, error) {
	vvar := memmap.MMapOpts{Length: 2 * pageSize, Private: true, Perms: hostarch.Read, MaxPerms: hostarch.Read, Mappable: v.pages, Hint: "[vvar]"}
	addr, err := m.MMap(mm.Caller{}, vvar)
	if err != nil {
		return 0, err
	}
	code := memmap.MMapOpts{
		Addr: addr + pageSize, Length: pageSize, Offset: pageSize, Private: true, Fixed: true, Perms: hostarch.ReadExecute, MaxPerms: hostarch.AnyAccess,
		Mappable: v.pages, Hint: "[vdso]",
	}
	return m.MMap(mm.Caller{}, code)
}

// fixed is a Mappable of pages that never change.
type fixed struct {
	f  *memory.File
	fr memmap.FileRange
}

func (x *fixed) AddMapping(memmap.Space, hostarch.AddrRange, uint64, bool) error { return nil }
func (x *fixed) RemoveMapping(memmap.Space, hostarch.AddrRange, uint64, bool)    {}
func (x *fixed) Translate(required, optional memmap.FileRange, _ hostarch.AccessType) ([]memmap.Translation, error) {
	if required.End > x.fr.Length() {
		return nil, &memmap.BusError{Err: unix.EFAULT}
	}
	src := memmap.FileRange{Start: optional.Start, End: min(optional.End, x.fr.Length())}
	fr := memmap.FileRange{Start: x.fr.Start + src.Start, End: x.fr.Start + src.End}
	x.f.IncRef(fr)
	return []memmap.Translation{{Source: src, File: x.f, Offset: fr.Start, Perms: hostarch.ReadExecute}}, nil
}

// marker begins each function of the text: ud2, "vVdoS" less a letter, and its number. The rest of the padding before it is whatever the assembler put.
var marker = []byte{0x0f, 0x0b, 'v', 'V', 'd', 'o', 'S'}

var errText = errors.New("vdso: the text in the binary is not what the builder expects")

// split finds the functions in the text and where it ends.
func split(code []byte) (starts []int, end int, err error) {
	for at := 0; ; {
		i := bytes.Index(code[at:], marker)
		if i < 0 || at+i+len(marker) >= len(code) || int(code[at+i+len(marker)]) != len(starts) {
			return nil, 0, errText
		}
		at += i
		if len(starts) == len(functions) {
			return starts, at, nil
		}
		at += len(marker) + 1
		starts = append(starts, at)
	}
}

// The parts of the file. Everything is in one page and mapped at once; virtual addresses are file offsets.
const (
	ehdrLen, phdrLen, symLen, dynLen = 64, 56, 24, 16
	numPhdrs                         = 2
	numDyn                           = 10
	dynOff                           = ehdrLen + numPhdrs*phdrLen
	symOff                           = dynOff + numDyn*dynLen
	versionName                      = "LINUX_2.6"
	soName                           = "linux-vdso.so.1"
)

// build makes the file; vvar is the address of the vvar page relative to it.
func build(code []byte, vvar int) ([]byte, error) {
	starts, end, err := split(code)
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	numSyms := 1 + 2*len(functions) // each with and without __vdso_
	strs := []byte{0}
	str := func(s string) uint32 {
		off := len(strs)
		strs = append(append(strs, s...), 0)
		return uint32(off)
	}
	so, ver := str(soName), str(versionName)
	names := make([]uint32, 0, numSyms)
	for _, f := range functions {
		n := str("__vdso_" + f)
		names = append(names, n, n+uint32(len("__vdso_")))
	}
	align := func(n, a int) int { return (n + a - 1) &^ (a - 1) }
	hashOff := symOff + numSyms*symLen
	versymOff := hashOff + 4*(2+1+numSyms)
	verdefOff := align(versymOff+2*numSyms, 8)
	strOff := verdefOff + 2*28
	codeOff := align(strOff+len(strs), 64)
	total := codeOff + end
	if total > pageSize {
		return nil, errText
	}
	b := make([]byte, pageSize)

	// ELF header.
	copy(b, elf.ELFMAG)
	copy(b[4:], []byte{byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)})
	le.PutUint16(b[16:], uint16(elf.ET_DYN))
	le.PutUint16(b[18:], uint16(elf.EM_X86_64))
	le.PutUint32(b[20:], uint32(elf.EV_CURRENT))
	le.PutUint64(b[32:], ehdrLen)
	le.PutUint16(b[52:], ehdrLen)
	le.PutUint16(b[54:], phdrLen)
	le.PutUint16(b[56:], numPhdrs)
	le.PutUint16(b[58:], 64)
	phdr := func(i int, typ elf.ProgType, flags elf.ProgFlag, off, size, al int) {
		p := b[ehdrLen+i*phdrLen:]
		le.PutUint32(p, uint32(typ))
		le.PutUint32(p[4:], uint32(flags))
		for j, v := range []int{off, off, off, size, size, al} {
			le.PutUint64(p[8+8*j:], uint64(v))
		}
	}
	phdr(0, elf.PT_LOAD, elf.PF_R|elf.PF_X, 0, total, pageSize)
	phdr(1, elf.PT_DYNAMIC, elf.PF_R, dynOff, numDyn*dynLen, 8)

	for i, d := range [numDyn][2]int{
		{int(elf.DT_SONAME), int(so)}, {int(elf.DT_HASH), hashOff}, {int(elf.DT_STRTAB), strOff}, {int(elf.DT_SYMTAB), symOff},
		{int(elf.DT_STRSZ), len(strs)}, {int(elf.DT_SYMENT), symLen}, {int(elf.DT_VERSYM), versymOff}, {int(elf.DT_VERDEF), verdefOff},
		{int(elf.DT_VERDEFNUM), 2}, // and DT_NULL ends the list
	} {
		le.PutUint64(b[dynOff+i*dynLen:], uint64(d[0]))
		le.PutUint64(b[dynOff+i*dynLen+8:], uint64(d[1]))
	}

	// Symbols: each function twice; the plain names are weak, as in Linux's.
	for i := range functions {
		size := end
		if i+1 < len(starts) {
			size = starts[i+1] - len(marker) - 1
		}
		for j, bind := range []elf.SymBind{elf.STB_GLOBAL, elf.STB_WEAK} {
			s := b[symOff+(1+2*i+j)*symLen:]
			le.PutUint32(s, names[2*i+j])
			s[4] = elf.ST_INFO(bind, elf.STT_FUNC)
			le.PutUint16(s[6:], 1) // any section but SHN_UNDEF
			le.PutUint64(s[8:], uint64(codeOff+starts[i]))
			le.PutUint64(s[16:], uint64(size-starts[i]))
		}
	}
	// Hash table with one bucket: a chain of all symbols.
	le.PutUint32(b[hashOff:], 1)
	le.PutUint32(b[hashOff+4:], uint32(numSyms))
	le.PutUint32(b[hashOff+8:], 1)
	for i := 1; i < numSyms-1; i++ {
		le.PutUint32(b[hashOff+12+4*i:], uint32(i+1))
	}
	// Versions: 1 is the file's own name, 2 is LINUX_2.6, which all symbols have.
	for i := 1; i < numSyms; i++ {
		le.PutUint16(b[versymOff+2*i:], 2)
	}
	for i, v := range []struct {
		flags uint16
		name  string
		off   uint32
		next  uint32
	}{{1, soName, so, 28}, {0, versionName, ver, 0}} {
		d := b[verdefOff+28*i:]
		le.PutUint16(d, 1)
		le.PutUint16(d[2:], v.flags)
		le.PutUint16(d[4:], uint16(i+1))
		le.PutUint16(d[6:], 1)
		le.PutUint32(d[8:], sysvHash(v.name))
		le.PutUint32(d[12:], 20)
		le.PutUint32(d[16:], v.next)
		le.PutUint32(d[20:], v.off)
	}
	copy(b[strOff:], strs)
	copy(b[codeOff:], code[:end])
	return b, patch(b[codeOff:total], codeOff, vvar)
}

// patch puts the distance to the vvar page into the instructions that load its address.
func patch(code []byte, at, vvar int) error {
	hole := []byte{0x4c, 0x8d, 0x05, 0x5a, 0x5a, 0x5a, 0x5a}
	n := 0
	for off := 0; ; n++ {
		i := bytes.Index(code[off:], hole)
		if i < 0 {
			break
		}
		off += i + len(hole)
		binary.LittleEndian.PutUint32(code[off-4:], uint32(int32(vvar-at-off)))
	}
	if n != 3 {
		return errText
	}
	return nil
}

// sysvHash is the ELF hash function.
func sysvHash(s string) (h uint32) {
	for i := range len(s) {
		h = h<<4 + uint32(s[i])
		g := h & 0xf0000000
		h = (h ^ g>>24) &^ g
	}
	return h
}
