package ebpf

// alu64 is a op b. A division by 0 is 0, its remainder a.
func alu64(op uint8, a, b uint64) uint64 {
	switch op {
	case 0x00:
		return a + b
	case 0x10:
		return a - b
	case 0x20:
		return a * b
	case opDIV:
		if b == 0 {
			return 0
		}
		return a / b
	case 0x40:
		return a | b
	case 0x50:
		return a & b
	case opLSH:
		return a << (b & 63)
	case opRSH:
		return a >> (b & 63)
	case opNEG:
		return -a
	case opMOD:
		if b == 0 {
			return a
		}
		return a % b
	case 0xa0:
		return a ^ b
	case opMOV:
		return b
	default:
		return uint64(int64(a) >> (b & 63))
	}
}

// alu32 is the same of 32 bits, whose shifts and signs alone differ.
func alu32(op uint8, a, b uint32) uint32 {
	switch op {
	case opLSH, opRSH:
		b &= 31
	case opARSH:
		return uint32(int32(a) >> (b & 31))
	}
	return uint32(alu64(op, uint64(a), uint64(b)))
}

// taken reports whether a conditional jump is taken.
func taken(op uint8, a, b uint64) bool {
	switch op {
	case 0x10:
		return a == b
	case 0x20:
		return a > b
	case 0x30:
		return a >= b
	case 0x40:
		return a&b != 0
	case 0x50:
		return a != b
	case 0x60:
		return int64(a) > int64(b)
	case 0x70:
		return int64(a) >= int64(b)
	case 0xa0:
		return a < b
	case 0xb0:
		return a <= b
	case 0xc0:
		return int64(a) < int64(b)
	default:
		return int64(a) <= int64(b)
	}
}
