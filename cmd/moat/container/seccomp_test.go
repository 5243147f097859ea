package container

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/bpf"

	"moat/syscalls"
)

func decode(t *testing.T, code []byte) bpf.Program {
	t.Helper()
	var insns []bpf.Instruction
	for b := code; len(b) > 0; b = b[8:] {
		insns = append(insns, bpf.Instruction{OpCode: binary.NativeEndian.Uint16(b), JumpIfTrue: b[2], JumpIfFalse: b[3], K: binary.NativeEndian.Uint32(b[4:])})
	}
	p, err := bpf.Compile(insns, false)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// runProgram runs a program on a call.
func runProgram(t *testing.T, p bpf.Program, arch, nr uint32, args [6]uint64) uint32 {
	t.Helper()
	data := make([]byte, 64)
	binary.NativeEndian.PutUint32(data, nr)
	binary.NativeEndian.PutUint32(data[4:], arch)
	for i, a := range args {
		binary.NativeEndian.PutUint64(data[16+8*i:], a)
	}
	r, err := bpf.Exec[bpf.NativeEndian](p, data)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func holds(a specs.LinuxSeccompArg, v uint64) bool {
	switch a.Op {
	case specs.OpEqualTo:
		return v == a.Value
	case specs.OpNotEqual:
		return v != a.Value
	case specs.OpGreaterThan:
		return v > a.Value
	case specs.OpGreaterEqual:
		return v >= a.Value
	case specs.OpLessThan:
		return v < a.Value
	case specs.OpLessEqual:
		return v <= a.Value
	}
	return v&a.Value == a.ValueTwo
}

// want is what a configuration says of a call, found the slow way.
func want(s *specs.LinuxSeccomp, name string, args [6]uint64) linux.BPFAction {
	for _, c := range s.Syscalls {
		action, _ := seccompAction(c.Action, c.ErrnoRet)
		for _, n := range c.Names {
			if n != name {
				continue
			}
			all, any, seen, twice := true, false, map[uint]bool{}, false
			for _, a := range c.Args {
				h := holds(a, args[a.Index])
				all, any = all && h, any || h
				twice = twice || seen[a.Index]
				seen[a.Index] = true
			}
			if twice && any || !twice && all {
				return action
			}
		}
	}
	action, _ := seccompAction(s.DefaultAction, s.DefaultErrnoRet)
	return action
}

// lastNamed is the highest number of a call that s names.
func lastNamed(s *specs.LinuxSeccomp, rows []syscalls.Row) (last uintptr) {
	for _, c := range s.Syscalls {
		for _, r := range rows {
			if slices.Contains(c.Names, r.Name) {
				last = max(last, r.Nr)
			}
		}
	}
	return last
}

// TestSeccomp compares compiled programs of random configurations with what they say.
func TestSeccomp(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	ops := []specs.LinuxSeccompOperator{specs.OpEqualTo, specs.OpNotEqual, specs.OpGreaterThan, specs.OpGreaterEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpMaskedEqual}
	values := []uint64{0, 1, 2, 1 << 31, 1<<32 - 1, 1 << 32, 1<<32 + 1, 5<<32 + 7, 1<<64 - 1}
	actions := []specs.LinuxSeccompAction{specs.ActAllow, specs.ActErrno, specs.ActKillProcess, specs.ActTrap}
	rows := syscalls.Rows()
	for range 60 {
		s := &specs.LinuxSeccomp{DefaultAction: actions[rnd.IntN(4)]}
		for range rnd.IntN(20) {
			errno := uint(1 + rnd.IntN(100))
			c := specs.LinuxSyscall{Action: actions[rnd.IntN(4)], ErrnoRet: &errno, Names: []string{"no_such_call"}}
			for range 1 + rnd.IntN(10) {
				c.Names = append(c.Names, rows[rnd.IntN(len(rows))].Name)
			}
			for range rnd.IntN(3) {
				c.Args = append(c.Args, specs.LinuxSeccompArg{Index: uint(rnd.IntN(6)), Op: ops[rnd.IntN(len(ops))], Value: values[rnd.IntN(len(values))],
					ValueTwo: values[rnd.IntN(len(values))]})
			}
			s.Syscalls = append(s.Syscalls, c)
		}
		code, err := compileSeccomp(s, nil)
		if err != nil {
			t.Fatal(err)
		}
		p := decode(t, code)
		for range 400 {
			row := rows[rnd.IntN(len(rows))]
			var args [6]uint64
			for i := range args {
				args[i] = values[rnd.IntN(len(values))]
			}
			w := uint32(want(s, row.Name, args))
			if last := lastNamed(s, rows); last > 0 && row.Nr > last && s.DefaultAction != specs.ActAllow {
				w = uint32(linux.SECCOMP_RET_ERRNO.WithReturnCode(38))
			}
			if got := runProgram(t, p, 0xc000003e, uint32(row.Nr), args); got != w {
				t.Fatalf("%s%v: %#x, want %#x", row.Name, args, got, w)
			}
		}
		if got := runProgram(t, p, 0x40000003, 1, [6]uint64{}); got != uint32(linux.SECCOMP_RET_KILL_PROCESS) {
			t.Errorf("a call of another architecture: %#x", got)
		}
	}
}

func TestCgroupPath(t *testing.T) {
	for _, c := range []struct {
		path    string
		systemd bool
		want    string
	}{{"", false, "/id"}, {"/a/b", false, "/a/b"}, {"a/../../b", false, "/b"}, {"user-1.slice:docker:x", true, "/user.slice/user-1.slice/docker-x.scope"},
		{":p:n", true, "/system.slice/p-n.scope"}} {
		s := &specs.Spec{Linux: &specs.Linux{CgroupsPath: c.path}}
		if got := cgroupPath(s, "id", c.systemd); got != c.want {
			t.Errorf("%q: %s, want %s", c.path, got, c.want)
		}
	}
}

// TestSeccompNewer: calls above all of a profile's do not exist, unless the profile lets what it does not name pass.
func TestSeccompNewer(t *testing.T) {
	const arch, newer = 0xc000003e, 1000
	for _, c := range []struct {
		action specs.LinuxSeccompAction
		want   linux.BPFAction
	}{
		{specs.ActErrno, linux.SECCOMP_RET_ERRNO.WithReturnCode(38)}, {specs.ActKill, linux.SECCOMP_RET_ERRNO.WithReturnCode(38)},
		{specs.ActAllow, linux.SECCOMP_RET_ALLOW},
	} {
		code, err := compileSeccomp(&specs.LinuxSeccomp{DefaultAction: c.action, Syscalls: []specs.LinuxSyscall{{Names: []string{"read", "statx"}, Action: specs.ActTrap}}},
			func(string, ...any) {})
		if err != nil {
			t.Fatal(err)
		}
		p := decode(t, code)
		if got := runProgram(t, p, arch, newer, [6]uint64{}); got != uint32(c.want) {
			t.Errorf("%s: a newer call: %#x", c.action, got)
		}
		if got := runProgram(t, p, arch, 332, [6]uint64{}); got != uint32(linux.SECCOMP_RET_TRAP) {
			t.Errorf("%s: the last call: %#x", c.action, got)
		}
	}
}
