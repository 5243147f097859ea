package container

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/bpf"

	"moat/syscalls"
)

// seccompRule is what to do with a call whose arguments meet all of conds.
type seccompRule struct {
	conds  []specs.LinuxSeccompArg
	action linux.BPFAction
}

// compileSeccomp turns linux.seccomp into a program of struct sock_filter; nil if there is none. It is for x86-64, the container's only kind of
// call. Calls that do not exist are left out, as libseccomp does. The program finds the call's number by bisection, then tries the call's rules in order.
func compileSeccomp(s *specs.LinuxSeccomp, warn func(string, ...any)) ([]byte, error) {
	if s == nil {
		return nil, nil
	}
	if s.ListenerPath != "" || s.ListenerMetadata != "" {
		return nil, fmt.Errorf("listenerPath: a listener is not supported")
	}
	otherwise, err := seccompAction(s.DefaultAction, s.DefaultErrnoRet)
	if err != nil {
		return nil, fmt.Errorf("defaultAction: %w", err)
	}
	if len(s.Flags) > 0 {
		warn("linux.seccomp.flags: %v have no effect in a sandbox", s.Flags)
	}
	numbers := make(map[string]uint32)
	for _, r := range syscalls.Rows() {
		numbers[r.Name] = uint32(r.Nr)
	}
	rules := make(map[uint32][]seccompRule)
	for i, c := range s.Syscalls {
		action, err := seccompAction(c.Action, c.ErrnoRet)
		if err != nil {
			return nil, fmt.Errorf("syscalls[%d].action: %w", i, err)
		}
		alternatives, err := seccompConds(c.Args)
		if err != nil {
			return nil, fmt.Errorf("syscalls[%d].args: %w", i, err)
		}
		for _, name := range c.Names {
			nr, ok := numbers[name]
			for _, a := range alternatives {
				if ok {
					rules[nr] = append(rules[nr], seccompRule{a, action})
				}
			}
		}
	}
	const archX86_64, x32 = 0xc000003e, 0x40000000
	p := program{
		{OpCode: bpf.Ld | bpf.W | bpf.Abs, K: 4},
		{OpCode: bpf.Jmp | bpf.Jeq, JumpIfTrue: 1, K: archX86_64},
		ret(linux.SECCOMP_RET_KILL_PROCESS),
		{OpCode: bpf.Ld | bpf.W | bpf.Abs, K: 0},
		{OpCode: bpf.Jmp | bpf.Jge, JumpIfFalse: 1, K: x32},
		ret(otherwise),
	}
	nrs := slices.Sorted(maps.Keys(rules))
	if a := s.DefaultAction; len(nrs) > 0 && a != specs.ActAllow && a != specs.ActLog && a != specs.ActTrace {
		// As with runc, calls that are newer than the profile do not exist: the C library then tries their predecessors.
		p = append(p, bpf.Instruction{OpCode: bpf.Jmp | bpf.Jgt, JumpIfFalse: 1, K: nrs[len(nrs)-1]},
			ret(linux.SECCOMP_RET_ERRNO.WithReturnCode(uint16(unix.ENOSYS))))
	}
	p = append(p, bisect(nrs, rules, otherwise)...)
	if len(p) > 4096 {
		return nil, fmt.Errorf("%d instructions are too many: Linux takes 4096", len(p))
	}
	return p.encode(), nil
}

type program []bpf.Instruction

func (p program) encode() (b []byte) {
	for _, in := range p {
		b = binary.NativeEndian.AppendUint16(b, in.OpCode)
		b = append(b, in.JumpIfTrue, in.JumpIfFalse)
		b = binary.NativeEndian.AppendUint32(b, in.K)
	}
	return b
}

func ret(a linux.BPFAction) bpf.Instruction {
	return bpf.Instruction{OpCode: bpf.Ret | bpf.K, K: uint32(a)}
}

// bisect finds the call in the accumulator among sorted numbers.
func bisect(nrs []uint32, rules map[uint32][]seccompRule, otherwise linux.BPFAction) program {
	if len(nrs) == 0 {
		return program{ret(otherwise)}
	}
	if len(nrs) == 1 {
		body := program{}
		for _, r := range rules[nrs[0]] {
			body = append(body, r.compile()...)
		}
		body = append(body, ret(otherwise))
		return append(program{{OpCode: bpf.Jmp | bpf.Jeq, JumpIfTrue: 1, K: nrs[0]}, ret(otherwise)}, body...)
	}
	mid := len(nrs) / 2
	left, right := bisect(nrs[:mid], rules, otherwise), bisect(nrs[mid:], rules, otherwise)
	p := program{{OpCode: bpf.Jmp | bpf.Jge, JumpIfFalse: 1, K: nrs[mid]}, {OpCode: bpf.Jmp | bpf.Ja, K: uint32(len(left))}}
	return append(append(p, left...), right...)
}

// compile returns the action if all conditions hold, and falls through if not.
func (r *seccompRule) compile() program {
	var p program
	// fails are the instructions that go to the end: those whose jump if true (or false) is marked.
	const end = 0xff
	for _, c := range r.conds {
		lo := bpf.Instruction{OpCode: bpf.Ld | bpf.W | bpf.Abs, K: 16 + 8*uint32(c.Index)}
		hi := lo
		hi.K += 4
		l, h := uint32(c.Value), uint32(c.Value>>32)
		jump := func(op uint16, k uint32, t, f uint8) bpf.Instruction {
			return bpf.Instruction{OpCode: bpf.Jmp | op, K: k, JumpIfTrue: t, JumpIfFalse: f}
		}
		switch c.Op {
		case specs.OpEqualTo:
			p = append(p, hi, jump(bpf.Jeq, h, 0, end), lo, jump(bpf.Jeq, l, 0, end))
		case specs.OpNotEqual:
			p = append(p, hi, jump(bpf.Jeq, h, 0, 2), lo, jump(bpf.Jeq, l, end, 0))
		case specs.OpGreaterThan:
			p = append(p, hi, jump(bpf.Jgt, h, 3, 0), jump(bpf.Jeq, h, 0, end), lo, jump(bpf.Jgt, l, 0, end))
		case specs.OpGreaterEqual:
			p = append(p, hi, jump(bpf.Jgt, h, 3, 0), jump(bpf.Jeq, h, 0, end), lo, jump(bpf.Jge, l, 0, end))
		case specs.OpLessThan:
			p = append(p, hi, jump(bpf.Jgt, h, end, 0), jump(bpf.Jeq, h, 0, 2), lo, jump(bpf.Jge, l, end, 0))
		case specs.OpLessEqual:
			p = append(p, hi, jump(bpf.Jgt, h, end, 0), jump(bpf.Jeq, h, 0, 2), lo, jump(bpf.Jgt, l, end, 0))
		case specs.OpMaskedEqual:
			and := func(k uint32) bpf.Instruction { return bpf.Instruction{OpCode: bpf.Alu | bpf.And | bpf.K, K: k} }
			p = append(p, hi, and(h), jump(bpf.Jeq, uint32(c.ValueTwo>>32), 0, end), lo, and(l), jump(bpf.Jeq, uint32(c.ValueTwo), 0, end))
		}
	}
	p = append(p, ret(r.action))
	for i := range p {
		if to := uint8(len(p) - 1 - i); p[i].OpCode&7 == bpf.Jmp {
			if p[i].JumpIfTrue == end {
				p[i].JumpIfTrue = to
			}
			if p[i].JumpIfFalse == end {
				p[i].JumpIfFalse = to
			}
		}
	}
	return p
}

func seccompAction(a specs.LinuxSeccompAction, errno *uint) (linux.BPFAction, error) {
	e := uint(unix.EPERM)
	if errno != nil {
		e = *errno
	}
	switch a {
	case specs.ActAllow, specs.ActLog:
		return linux.SECCOMP_RET_ALLOW, nil
	case specs.ActErrno:
		return linux.SECCOMP_RET_ERRNO.WithReturnCode(uint16(e)), nil
	case specs.ActKill, specs.ActKillThread:
		return linux.SECCOMP_RET_KILL_THREAD, nil
	case specs.ActKillProcess:
		return linux.SECCOMP_RET_KILL_PROCESS, nil
	case specs.ActTrap:
		return linux.SECCOMP_RET_TRAP, nil
	case specs.ActTrace:
		return linux.SECCOMP_RET_TRACE.WithReturnCode(uint16(e)), nil
	}
	return 0, fmt.Errorf("%q is not supported", a)
}

// seccompConds checks conditions: all must hold, but of several about one argument any (as runc and libseccomp have it).
func seccompConds(args []specs.LinuxSeccompArg) ([][]specs.LinuxSeccompArg, error) {
	ops := []specs.LinuxSeccompOperator{specs.OpEqualTo, specs.OpNotEqual, specs.OpGreaterThan, specs.OpGreaterEqual, specs.OpLessThan, specs.OpLessEqual,
		specs.OpMaskedEqual}
	twice := false
	var each [][]specs.LinuxSeccompArg
	for i, a := range args {
		switch {
		case a.Index > 5:
			return nil, fmt.Errorf("there is no argument %d", a.Index)
		case !slices.Contains(ops, a.Op):
			return nil, fmt.Errorf("op: there is no %q", a.Op)
		}
		twice = twice || slices.ContainsFunc(args[:i], func(o specs.LinuxSeccompArg) bool { return o.Index == a.Index })
		each = append(each, []specs.LinuxSeccompArg{a})
	}
	if twice {
		return each, nil
	}
	return [][]specs.LinuxSeccompArg{args}, nil
}
