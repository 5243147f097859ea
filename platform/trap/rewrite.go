package trap

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/arch/x86/x86asm"
	"golang.org/x/sys/unix"

	"moat/platform/stub"
)

// jumpLen is the length of JMP [disp32], which reads the address of a slot from the window's table.
const jumpLen = 7

// Rewrite implements platform.Rewriter. It knows three ways.
//
// MOV EAX, imm32; SYSCALL is as long as the jump through the table. Who jumps to the SYSCALL alone meets the upper half of the table's
// address, 0x60 0x7f, which no processor executes in 64-bit mode: the illegal instruction is answered as the system call that it was.
//
// LEA reg, [address] of that length before a SYSCALL, which is how compilers load an argument last, becomes the jump alone. The slot does what it did.
//
// Any other SYSCALL becomes a short jump of the same length to padding behind a function nearby, where the jump through the table fits. Padding is what
// follows an instruction that never goes on to the next, and no code of the page jumps to.
func (p *Platform) Rewrite(text int, page []byte, off uint64, at int) (from, to int, ok bool) {
	if at < 0 || at+2 > len(page) || page[at] != 0x0f || page[at+1] != 0x05 || off+uint64(at) >= 1<<31 {
		return 0, 0, false
	}
	x := site{text: text, start: off + uint64(at), ret: off + uint64(at) + 2, nr: -1}
	if from = at - 5; from >= 0 && page[from] == 0xb8 && endsAt(page, from, at) {
		if x.nr = int64(binary.LittleEndian.Uint32(page[from+1:])); x.nr == unix.SYS_RT_SIGRETURN {
			return 0, 0, false // unwinders know a signal frame by this code
		}
		x.start = off + uint64(from)
		slot, ok := p.slots.add(x)
		if ok {
			putJump(page[from:], slot)
		}
		return from, at + 2, ok
	}
	if x.lead = lead(text, page, off, at); x.lead != nil {
		x.start -= jumpLen
		slot, ok := p.slots.add(x)
		if ok {
			putJump(page[at-jumpLen:], slot)
		}
		return at - jumpLen, at + 2, ok
	}
	pad, ok := padding(page, at)
	if !ok {
		return 0, 0, false
	}
	slot, ok := p.slots.add(x)
	if !ok {
		return 0, 0, false
	}
	page[at], page[at+1] = 0xeb, byte(pad-(at+2))
	putJump(page[pad:], slot)
	return at, pad + jumpLen, true
}

func putJump(b []byte, slot uint32) {
	copy(b, []byte{0xff, 0x24, 0x25})
	binary.LittleEndian.PutUint32(b[3:], slot)
}

// lead is code for a slot that does what the LEA before the SYSCALL at at does, and may do it twice; nil if there is none of jumpLen bytes.
func lead(text int, page []byte, off uint64, at int) []byte {
	from := at - jumpLen
	if from < 0 || page[from]&^4 != 0x48 || page[from+1] != 0x8d || !endsAt(page, from, at) {
		return nil
	}
	rex, modrm := page[from]&4, page[from+2]
	reg, base := modrm>>3&7, modrm&7
	switch {
	case reg == 4 || rex == 0 && reg == 1 || rex != 0 && reg == 3: // RSP and R12, RCX, R11
	case modrm>>6 == 2 && base != 4 && (rex != 0 || base != reg):
		return bytes.Clone(page[from:at])
	case modrm>>6 == 0 && base == 5:
		le := binary.LittleEndian
		target := int64(off) + int64(at) + int64(int32(le.Uint32(page[from+3:])))
		if target != int64(int32(target)) {
			return nil
		}
		b := le.AppendUint32([]byte{0x48 | rex, 0x8b, reg<<3 | 4, 0x25}, uint32(stub.WindowTexts+8*text)) // MOV reg, [text]
		return le.AppendUint32(append(b, 0x48|rex|rex>>2, 0x8d, 0x80|reg<<3|reg), uint32(target))         // LEA reg, [reg+target]
	}
	return nil
}

// decode returns the length and the kind of the instruction at code; 0 if it is not known.
func decode(code []byte) (n int, op x86asm.Op) {
	if bytes.HasPrefix(code, []byte{0xf3, 0x0f, 0x1e, 0xfa}) {
		return 4, 0 // ENDBR64
	}
	inst, err := x86asm.Decode(code[:min(len(code), 15)], 64)
	if err != nil {
		return 0, 0
	}
	return inst.Len, inst.Op
}

// endsAt reports whether the instruction before the one at end is that at start. Wherever one begins to decode, the stream of amd64 instructions
// soon is the true one: most of the streams that begin some way before start and that end is part of must have start as their last.
func endsAt(page []byte, start, end int) bool {
	yes, no := 0, 0
	for s := max(start-48, 0); s <= max(start-8, 0); s++ {
		last := s
		i := s
		for i < end {
			n, _ := decode(page[i:])
			if n == 0 {
				break
			}
			last = i
			i += n
		}
		switch {
		case i != end:
		case last == start:
			yes++
		default:
			no++
		}
	}
	return yes > 2*no
}

// padding finds room for a jump within reach of a short jump from the two bytes at at.
func padding(page []byte, at int) (int, bool) {
	reach := min(at+2+127, len(page)-jumpLen)
	dead := false // the instruction before never goes on to the next
	for i := at + 2; i <= reach; {
		if dead {
			n := fill(page[i:])
			if n >= jumpLen && !aimedAt(page, i, i+jumpLen) {
				return i, true
			}
			if n > 0 {
				i += n
				dead = false
				continue
			}
		}
		n, op := decode(page[i:])
		if n == 0 {
			return 0, false
		}
		dead = op == x86asm.RET || op == x86asm.JMP || op == x86asm.UD2 || op == x86asm.HLT || op == x86asm.INT
		i += n
	}
	return 0, false
}

// fill is the number of bytes of NOP and INT3 instructions that code begins with.
func fill(code []byte) int {
	i := 0
	for i < len(code) {
		if code[i] == 0xcc {
			i++
			continue
		}
		n, op := decode(code[i:])
		if n == 0 || op != x86asm.NOP {
			break
		}
		i += n
	}
	return i
}

// aimedAt reports whether any bytes of the page, taken for a relative jump or call, lead into [a, b).
func aimedAt(page []byte, a, b int) bool {
	for i, c := range page {
		target := -1
		switch rest := page[i+1:]; {
		case (c&0xf0 == 0x70 || c == 0xeb || c&0xfc == 0xe0) && len(rest) >= 1:
			target = i + 2 + int(int8(rest[0]))
		case (c&0xfe == 0xe8 || c&0xf0 == 0x80) && len(rest) >= 4: // CALL, JMP; the second byte of a conditional jump
			target = i + 5 + int(int32(binary.LittleEndian.Uint32(rest)))
		}
		if a <= target && target < b {
			return true
		}
	}
	return false
}
