package loader

import (
	"debug/elf"
	"encoding/binary"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
)

const (
	pageSize = hostarch.PageSize
	pageMask = pageSize - 1
	// taskSize is TASK_SIZE: where user space ends.
	taskSize = 1<<47 - pageSize

	ehdrSize = 64
	phdrSize = 56
	// maxPhdrs bounds the size of the program header table (fs/binfmt_elf.c load_elf_phdrs).
	maxPhdrBytes = 65536
)

// phdr is a program header.
type phdr struct {
	typ                               elf.ProgType
	flags                             elf.ProgFlag
	off, vaddr, filesz, memsz, palign uint64
}

// elfFile is an ELF file whose headers were read.
type elfFile struct {
	file      File
	typ       elf.Type
	entry     uint64
	phoff     uint64
	phdrs     []phdr
	execStack bool
}

// parseELF reads the headers of an ELF file for this machine; the error for any flaw is bad.
func parseELF(f File, head []byte, bad unix.Errno) (*elfFile, error) {
	le := binary.LittleEndian
	if len(head) < ehdrSize || string(head[:4]) != elf.ELFMAG || elf.Class(head[elf.EI_CLASS]) != elf.ELFCLASS64 {
		return nil, bad
	}
	e := &elfFile{file: f, typ: elf.Type(le.Uint16(head[16:])), entry: le.Uint64(head[24:]), phoff: le.Uint64(head[32:])}
	phentsize, phnum := le.Uint16(head[54:]), le.Uint16(head[56:])
	size := int(phnum) * phdrSize
	if e.typ != elf.ET_EXEC && e.typ != elf.ET_DYN || elf.Machine(le.Uint16(head[18:])) != elf.EM_X86_64 ||
		phentsize != phdrSize || size == 0 || size > maxPhdrBytes || e.phoff > 1<<62 {
		return nil, bad
	}
	raw := make([]byte, size)
	if n, err := readFull(f, raw, int64(e.phoff)); err != nil || n < size {
		return nil, bad
	}
	e.phdrs = make([]phdr, phnum)
	for i := range e.phdrs {
		b := raw[i*phdrSize:]
		e.phdrs[i] = phdr{
			typ: elf.ProgType(le.Uint32(b)), flags: elf.ProgFlag(le.Uint32(b[4:])), off: le.Uint64(b[8:]), vaddr: le.Uint64(b[16:]),
			filesz: le.Uint64(b[32:]), memsz: le.Uint64(b[40:]), palign: le.Uint64(b[48:]),
		}
		if p := &e.phdrs[i]; p.typ == elf.PT_GNU_STACK {
			e.execStack = p.flags&elf.PF_X != 0
		}
	}
	return e, nil
}

// prepareELF reads the program's headers and its interpreter's.
func (im *Image) prepareELF(head []byte, open Opener) error {
	var err error
	if im.prog, err = parseELF(im.File, head, unix.ENOEXEC); err != nil {
		return err
	}
	for i := range im.prog.phdrs {
		p := &im.prog.phdrs[i]
		if p.typ != elf.PT_INTERP {
			continue
		}
		path, err := readInterp(im.File, p)
		if err != nil {
			return err
		}
		f, err := open(path)
		if err != nil {
			return err
		}
		var h [ehdrSize]byte
		if n, err := readFull(f, h[:], 0); err != nil || n < len(h) {
			f.DecRef()
			if err == nil {
				err = unix.EIO
			}
			return err
		}
		if im.interp, err = parseELF(f, h[:], unix.ELIBBAD); err != nil {
			f.DecRef()
			return err
		}
		return nil
	}
	return nil
}

func readInterp(f File, p *phdr) (string, error) {
	if p.filesz > unix.PathMax || p.filesz < 2 || p.off > 1<<62 {
		return "", unix.ENOEXEC
	}
	b := make([]byte, p.filesz)
	n, err := readFull(f, b, int64(p.off))
	if err != nil {
		return "", err
	}
	if n < len(b) {
		return "", unix.EIO
	}
	if b[len(b)-1] != 0 {
		return "", unix.ENOEXEC
	}
	return cString(b), nil
}

// loads calls fn for each PT_LOAD segment.
func (e *elfFile) loads(fn func(p *phdr) error) error {
	for i := range e.phdrs {
		if e.phdrs[i].typ == elf.PT_LOAD {
			if err := fn(&e.phdrs[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// span is the range of addresses that the segments take, page-aligned: [lo, hi). EINVAL if they are absurd.
func (e *elfFile) span() (lo, hi uint64, err error) {
	lo = ^uint64(0)
	err = e.loads(func(p *phdr) error {
		if p.vaddr >= taskSize || p.filesz > p.memsz || p.memsz > taskSize || taskSize-p.memsz < p.vaddr {
			return unix.EINVAL
		}
		lo = min(lo, p.vaddr&^pageMask)
		hi = max(hi, p.vaddr+p.memsz)
		return nil
	})
	if err == nil && hi <= lo {
		err = unix.EINVAL
	}
	return lo, (hi + pageMask) &^ pageMask, err
}

// alignment is the largest valid p_align of the segments (maximum_alignment).
func (e *elfFile) alignment() uint64 {
	a := uint64(pageSize)
	e.loads(func(p *phdr) error {
		if p.palign&(p.palign-1) == 0 && p.palign <= 1<<40 {
			a = max(a, p.palign)
		}
		return nil
	})
	return a
}

func (p *phdr) perms() hostarch.AccessType {
	return hostarch.AccessType{Read: p.flags&elf.PF_R != 0, Write: p.flags&elf.PF_W != 0, Execute: p.flags&elf.PF_X != 0}
}
