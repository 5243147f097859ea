package ebpf

import (
	"crypto/sha1"
	"encoding/binary"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// What an instruction's opcode has, in the specification's words.
const (
	classLDX   = 1
	classALU   = 4
	classJMP   = 5
	classJMP32 = 6
	classALU64 = 7
	sourceX    = 0x08
	modeMEM    = 0x60

	opDIV  = 0x30
	opLSH  = 0x60
	opRSH  = 0x70
	opNEG  = 0x80
	opMOD  = 0x90
	opMOV  = 0xb0
	opARSH = 0xc0
	jmpJA  = 0x00
	jmpEnd = 0x90
)

// MaxInstructions is BPF_MAXINSNS.
const MaxInstructions = 4096

// insn is struct bpf_insn.
type insn struct {
	op       uint8
	dst, src uint8
	off      int16
	imm      int32
}

// Program is a loaded program.
type Program struct {
	ID    uint32
	Type  uint32 // unix.BPF_PROG_TYPE_CGROUP_DEVICE, or BPF_PROG_TYPE_CGROUP_SKB, which may look at nothing
	Name  [16]byte
	Tag   [8]byte // of the instructions
	insns []insn
}

var lastID atomic.Uint32

// Len is the number of instructions.
func (p *Program) Len() int { return len(p.insns) }

// Load decodes and verifies code, 8 bytes an instruction: EINVAL for what is no program, EACCES for one that might do what it may not.
func Load(typ uint32, code []byte, name [16]byte) (*Program, error) {
	p := &Program{Type: typ, Name: name, insns: make([]insn, len(code)/8)}
	sum := sha1.Sum(code)
	copy(p.Tag[:], sum[:])
	for i := range p.insns {
		b := code[8*i:]
		p.insns[i] = insn{b[0], b[1] & 15, b[1] >> 4, int16(binary.LittleEndian.Uint16(b[2:])), int32(binary.LittleEndian.Uint32(b[4:]))}
	}
	if err := p.verify(); err != nil {
		return nil, err
	}
	p.ID = lastID.Add(1)
	return p, nil
}

// kinds are what registers hold.
type kinds [10]uint8

const (
	nothing = iota
	number
	context
)

// verify follows the instructions in order: as jumps only lead forward, all ways to one are known when it is reached.
func (p *Program) verify() error {
	at := make([]*kinds, len(p.insns)+1)
	at[0] = &kinds{}
	if p.Type == unix.BPF_PROG_TYPE_CGROUP_DEVICE {
		at[0][1] = context
	}
	flow := func(to int, k kinds) error {
		switch {
		case to >= len(p.insns):
			return unix.EINVAL
		case at[to] == nil:
			at[to] = &k
		default:
			for r := range k {
				if at[to][r] != k[r] {
					at[to][r] = nothing
				}
			}
		}
		return nil
	}
	if len(p.insns) == 0 {
		return unix.EINVAL
	}
	for pc, in := range p.insns {
		if at[pc] == nil {
			return unix.EINVAL // never reached
		}
		k := *at[pc]
		if in.dst >= uint8(len(k)) || in.src >= uint8(len(k)) {
			return unix.EACCES // the stack
		}
		var err error
		switch in.op & 7 {
		case classLDX:
			err = in.verifyLoad(&k)
		case classALU, classALU64:
			err = in.verifyALU(&k)
		case classJMP, classJMP32:
			op := in.op & 0xf0
			switch {
			case in.op == classJMP|jmpEnd && in == (insn{op: in.op}):
				if k[0] != number {
					return unix.EACCES
				}
				continue
			case in.off < 0, op == 0x80, op == jmpEnd, op > 0xd0, op == jmpJA && in != (insn{op: classJMP, off: in.off}):
				return unix.EINVAL
			case in.op&sourceX != 0 && in.imm != 0, in.op&sourceX == 0 && in.src != 0:
				return unix.EINVAL
			case op == jmpJA:
				if err := flow(pc+1+int(in.off), k); err != nil {
					return err
				}
				continue
			case k[in.dst] != number, in.op&sourceX != 0 && k[in.src] != number:
				return unix.EACCES
			}
			err = flow(pc+1+int(in.off), k)
		default:
			err = unix.EINVAL
		}
		if err == nil {
			err = flow(pc+1, k)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// verifyLoad is cgroup_dev_is_valid_access: whole words, and smaller parts of the first.
func (in *insn) verifyLoad(k *kinds) error {
	size := in.size()
	switch {
	case in.op&0xe0 != modeMEM, in.imm != 0:
		return unix.EINVAL
	case k[in.src] != context, in.off < 0, size > 4, int(in.off)+size > 12, int(in.off)%size != 0, in.off >= 4 && size != 4:
		return unix.EACCES
	}
	k[in.dst] = number
	return nil
}

// size is how many bytes a load reads.
func (in *insn) size() int { return [...]int{4, 2, 1, 8}[in.op>>3&3] }

func (in *insn) verifyALU(k *kinds) error {
	op, x := in.op&0xf0, in.op&sourceX != 0
	wide := in.op&7 == classALU64
	bits := int32(32)
	if wide {
		bits = 64
	}
	switch {
	case op > opARSH, in.off != 0, x && in.imm != 0, !x && in.src != 0, op == opNEG && (x || in.imm != 0):
		return unix.EINVAL
	case !x && (op == opDIV || op == opMOD) && in.imm == 0:
		return unix.EINVAL
	case !x && (op == opLSH || op == opRSH || op == opARSH) && (in.imm < 0 || in.imm >= bits):
		return unix.EINVAL
	case op == opMOV && x && wide && k[in.src] != nothing:
		k[in.dst] = k[in.src]
		return nil
	case x && k[in.src] != number, op != opMOV && k[in.dst] != number:
		return unix.EACCES
	}
	k[in.dst] = number
	return nil
}

// Run runs p for an access to a device: access is 1 for mknod, 2 for reading, 4 for writing, or a sum of them; kind is 1 for a block device and 2 for a character
// device. It reports whether p allows it.
func (p *Program) Run(access, kind, major, minor uint32) bool {
	var ctx [12]byte
	binary.LittleEndian.PutUint32(ctx[0:], access<<16|kind)
	binary.LittleEndian.PutUint32(ctx[4:], major)
	binary.LittleEndian.PutUint32(ctx[8:], minor)
	var r [10]uint64
	for pc := 0; ; pc++ {
		in := &p.insns[pc]
		b := uint64(int64(in.imm))
		if in.op&sourceX != 0 {
			b = r[in.src]
		}
		switch in.op & 7 {
		case classLDX:
			var word [8]byte
			copy(word[:], ctx[in.off:int(in.off)+in.size()])
			r[in.dst] = binary.LittleEndian.Uint64(word[:])
		case classALU64:
			r[in.dst] = alu64(in.op&0xf0, r[in.dst], b)
		case classALU:
			r[in.dst] = uint64(alu32(in.op&0xf0, uint32(r[in.dst]), uint32(b)))
		default:
			a := r[in.dst]
			if in.op&7 == classJMP32 {
				a, b = uint64(int64(int32(a))), uint64(int64(int32(b))) // keeps both orders
			}
			switch op := in.op & 0xf0; {
			case op == jmpEnd:
				return r[0] != 0
			case op == jmpJA, taken(op, a, b):
				pc += int(in.off)
			}
		}
	}
}
