package ebpf

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// code assembles instructions: opcode, registers (destination, and source in the upper half), offset, immediate.
func code(ins ...[4]int64) (b []byte) {
	for _, i := range ins {
		b = append(b, byte(i[0]), byte(i[1]))
		b = binary.LittleEndian.AppendUint16(b, uint16(i[2]))
		b = binary.LittleEndian.AppendUint32(b, uint32(i[3]))
	}
	return b
}

var (
	exit  = [4]int64{0x95}
	zero  = [4]int64{0xb7, 0, 0, 0} // r0 = 0
	one   = [4]int64{0xb7, 0, 0, 1}
	typ   = [4]int64{0x61, 0x12, 0, 0} // r2 = *(u32 *)(r1 + 0)
	major = [4]int64{0x61, 0x14, 4, 0}
	minor = [4]int64{0x61, 0x15, 8, 0}
)

// TestDevices runs a program as runtimes make them: it allows reading and writing of c 1:3 and no more.
func TestDevices(t *testing.T) {
	p, err := Load(unix.BPF_PROG_TYPE_CGROUP_DEVICE, code(typ, [4]int64{0xbc, 0x23, 0, 0}, // w3 = w2
		[4]int64{0x54, 0x02, 0, 0xffff}, [4]int64{0x74, 0x03, 0, 16}, // w2 &= 0xffff; w3 >>= 16
		major, minor, [4]int64{0x55, 2, 6, 2}, // if r2 != 2 goto the end
		[4]int64{0xbc, 0x31, 0, 0}, [4]int64{0x54, 0x01, 0, 1}, [4]int64{0x55, 0x01, 3, 0}, // mknod
		[4]int64{0x55, 0x04, 2, 1}, [4]int64{0x56, 0x05, 1, 3},
		[4]int64{0x05, 0, 2, 0}, zero, exit, one, exit), [16]byte{'d'})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		access, kind, major, minor uint32
		want                       bool
	}{{2, 2, 1, 3, true}, {6, 2, 1, 3, true}, {1, 2, 1, 3, false}, {7, 2, 1, 3, false}, {2, 1, 1, 3, false}, {2, 2, 1, 5, false}, {2, 2, 8, 3, false}} {
		if got := p.Run(c.access, c.kind, c.major, c.minor); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// TestVerify: what might loop, or look where it may not, is refused.
func TestVerify(t *testing.T) {
	for name, c := range map[string]struct {
		code []byte
		want error
	}{
		"no instruction":         {nil, unix.EINVAL},
		"r0 is not set":          {code(exit), unix.EACCES},
		"no exit":                {code(zero), unix.EINVAL},
		"jump backwards":         {code(zero, [4]int64{0x05, 0, -2, 0}), unix.EINVAL},
		"jump out":               {code(zero, [4]int64{0x15, 0, 7, 0}, exit), unix.EINVAL},
		"unreachable":            {code(zero, [4]int64{0x05, 0, 1, 0}, one, exit), unix.EINVAL},
		"set on one way only":    {code(typ, [4]int64{0x15, 0x02, 1, 0}, zero, exit), unix.EACCES},
		"the context as result":  {code([4]int64{0xbf, 0x10, 0, 0}, exit), unix.EACCES},
		"pointer arithmetic":     {code([4]int64{0x07, 0x01, 0, 4}, zero, exit), unix.EACCES},
		"pointer compared":       {code(zero, [4]int64{0x15, 0x01, 0, 0}, exit), unix.EACCES},
		"behind the context":     {code([4]int64{0x61, 0x10, 12, 0}, exit), unix.EACCES},
		"before the context":     {code([4]int64{0x61, 0x10, -4, 0}, exit), unix.EACCES},
		"two fields at once":     {code([4]int64{0x79, 0x10, 0, 0}, exit), unix.EACCES},
		"part of a field":        {code([4]int64{0x69, 0x10, 4, 0}, exit), unix.EACCES},
		"half of the first":      {code([4]int64{0x69, 0x10, 2, 0}, exit), nil},
		"load from a number":     {code(zero, [4]int64{0x61, 0x00, 0, 0}, exit), unix.EACCES},
		"the stack":              {code(zero, [4]int64{0x61, 0xa0, -4, 0}, exit), unix.EACCES},
		"a store":                {code(zero, [4]int64{0x63, 0x01, 0, 0}, exit), unix.EINVAL},
		"a call":                 {code([4]int64{0x85, 0, 0, 14}, exit), unix.EINVAL},
		"64 bits":                {code([4]int64{0x18, 0, 0, 0}, [4]int64{}, exit), unix.EINVAL},
		"division by 0":          {code(one, [4]int64{0x37, 0, 0, 0}, exit), unix.EINVAL},
		"division by a 0 in r2":  {code(one, [4]int64{0xb7, 2, 0, 0}, [4]int64{0x3f, 0x20, 0, 0}, exit), nil},
		"shift too far":          {code(one, [4]int64{0x64, 0, 0, 32}, exit), unix.EINVAL},
		"exit as 32-bit jump":    {code(zero, [4]int64{0x96}), unix.EINVAL},
		"exit with an immediate": {code(zero, [4]int64{0x95, 0, 0, 1}), unix.EINVAL},
	} {
		if _, err := Load(unix.BPF_PROG_TYPE_CGROUP_DEVICE, c.code, [16]byte{}); err != c.want {
			t.Errorf("%s: %v, not %v", name, err, c.want)
		}
	}
	if _, err := Load(unix.BPF_PROG_TYPE_CGROUP_SKB, code(typ, zero, exit), [16]byte{}); err != unix.EACCES {
		t.Errorf("a packet's context: %v", err)
	}
}

// FuzzProgram: what is let through ends, and without a panic.
func FuzzProgram(f *testing.F) {
	f.Add(code(typ, major, minor, one, exit))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := Load(unix.BPF_PROG_TYPE_CGROUP_DEVICE, b[:min(len(b), 8*MaxInstructions)], [16]byte{}); err == nil {
			p.Run(7, 2, 1, 3)
		}
	})
}
