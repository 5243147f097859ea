package kernel

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/bpf"
	"gvisor.dev/gvisor/pkg/hostarch"
)

// Guest seccomp filters (seccomp(2), kernel/seccomp.c). They restrict the guest inside moat; the stubs' own filters are the platform's.

// seccompFilter is the newest of a task's chain of filters; filters are shared by threads and children, and never change.
type seccompFilter struct {
	prev   *seccompFilter
	prog   bpf.Program
	strict bool // mode 1: no program
	cost   int  // instructions of the chain, with Linux's overhead
}

const (
	auditArchX86_64   = 0xc000003e
	maxSeccompInsns   = 4096
	maxSeccompChain   = 1 << 15
	seccompFlagsKnown = seccompTSync | seccompLog | seccompSpecAllow | seccompTSyncESRCH
	seccompTSync      = 1
	seccompLog        = 2
	seccompSpecAllow  = 4
	seccompTSyncESRCH = 0x10

	seccompRetLog = 0x7ffc0000
)

// SeccompMode is prctl(PR_GET_SECCOMP)'s answer: 0, 1 or 2.
func (t *Task) SeccompMode() int {
	f := t.seccomp.Load()
	switch {
	case f == nil:
		return 0
	case f.strict:
		return 1
	}
	return 2
}

// SeccompFilters is the number of filters (Seccomp_filters of proc_pid_status(5)).
func (t *Task) SeccompFilters() (n int) {
	for f := t.seccomp.Load(); f != nil && !f.strict; f = f.prev {
		n++
	}
	return n
}

// SetSeccompStrict is SECCOMP_SET_MODE_STRICT.
func (t *Task) SetSeccompStrict() error {
	if f := t.seccomp.Load(); f != nil && !f.strict {
		return unix.EINVAL
	}
	t.seccomp.Store(&seccompFilter{strict: true})
	t.publishIdentity()
	return nil
}

// SetSeccompFilter is SECCOMP_SET_MODE_FILTER with a program of struct sock_filter; the result is the thread that could not be synchronised, or 0.
func (t *Task) SetSeccompFilter(code []byte, flags uint32) (int32, error) {
	if flags&^seccompFlagsKnown != 0 {
		return 0, unix.EINVAL
	}
	if !t.NoNewPrivs() && !t.Credentials().HasCap(linux.CAP_SYS_ADMIN) {
		return 0, unix.EACCES
	}
	prog, err := compileSeccomp(code)
	if err != nil {
		return 0, err
	}
	// The signal lock orders this against other threads' TSYNC and clone.
	tg := t.tg
	tg.sigMu.Lock()
	defer tg.sigMu.Unlock()
	old := t.seccomp.Load()
	f := old.push(prog, len(code)/8)
	switch {
	case old != nil && old.strict:
		return 0, unix.EINVAL
	case old != nil && f.cost > maxSeccompChain:
		return 0, unix.ENOMEM
	}
	if flags&seccompTSync != 0 {
		for _, o := range tg.tasks {
			if o != t && !o.exitingSignals && !old.within(o.seccomp.Load()) {
				if flags&seccompTSyncESRCH != 0 {
					return 0, unix.ESRCH
				}
				return o.TID(), nil
			}
		}
		for _, o := range tg.tasks {
			if o != t {
				o.seccomp.Store(f)
				if t.NoNewPrivs() {
					o.SetNoNewPrivs()
				}
				o.RunAtBoundary((*Task).publishIdentity)
			}
		}
	}
	t.seccomp.Store(f)
	t.publishIdentity()
	return 0, nil
}

// pushSeccomp gives a task that nobody else knows yet a filter.
func (t *Task) pushSeccomp(code []byte) error {
	prog, err := compileSeccomp(code)
	if err == nil {
		t.seccomp.Store(t.seccomp.Load().push(prog, len(code)/8))
	}
	return err
}

// push is f, which may be nil, with prog in front. It costs what it had of instructions, whatever is left of them.
func (f *seccompFilter) push(prog bpf.Program, insns int) *seccompFilter {
	n := &seccompFilter{prev: f, prog: prog, cost: insns + 4}
	if f != nil {
		n.cost += f.cost
	}
	return n
}

// within reports whether other's chain is a part of f's.
func (f *seccompFilter) within(other *seccompFilter) bool {
	for ; ; f = f.prev {
		if f == other {
			return true
		}
		if f == nil {
			return false
		}
	}
}

// compileSeccomp checks and compiles a program (bpf_check_classic and seccomp_check_filter).
func compileSeccomp(code []byte) (bpf.Program, error) {
	if len(code) == 0 || len(code)%8 != 0 || len(code) > 8*maxSeccompInsns {
		return bpf.Program{}, unix.EINVAL
	}
	le := hostarch.ByteOrder
	insns := make([]bpf.Instruction, len(code)/8)
	for i := range insns {
		b := code[8*i:]
		in := bpf.Instruction{OpCode: le.Uint16(b), JumpIfTrue: b[2], JumpIfFalse: b[3], K: le.Uint32(b[4:])}
		if !seccompMay(&in) {
			return bpf.Program{}, unix.EINVAL
		}
		insns[i] = in
	}
	p, err := bpf.Compile(insns, true)
	if err != nil {
		return p, unix.EINVAL
	}
	return p, nil
}

// seccompMay reports whether a filter may hold in.
func seccompMay(in *bpf.Instruction) bool {
	switch in.OpCode {
	case bpf.Ld | bpf.W | bpf.Abs:
		return in.K < 64 && in.K&3 == 0
	case bpf.Ld | bpf.W | bpf.Len, bpf.Ldx | bpf.W | bpf.Len, bpf.Ret | bpf.K, bpf.Ret | bpf.A, bpf.Ld | bpf.Imm | bpf.W, bpf.Ldx | bpf.Imm | bpf.W,
		bpf.Misc | bpf.Tax, bpf.Misc | bpf.Txa, bpf.Ld | bpf.Mem | bpf.W, bpf.Ldx | bpf.Mem | bpf.W, bpf.St, bpf.Stx, bpf.Jmp | bpf.Ja, bpf.Alu | bpf.Neg:
		return true
	}
	switch in.OpCode &^ uint16(bpf.X) {
	case bpf.Alu | bpf.Add, bpf.Alu | bpf.Sub, bpf.Alu | bpf.Mul, bpf.Alu | bpf.Div, bpf.Alu | bpf.And, bpf.Alu | bpf.Or, bpf.Alu | bpf.Xor,
		bpf.Alu | bpf.Lsh, bpf.Alu | bpf.Rsh, bpf.Jmp | bpf.Jeq, bpf.Jmp | bpf.Jge, bpf.Jmp | bpf.Jgt, bpf.Jmp | bpf.Jset:
		return true
	}
	return false
}

// checkSeccomp runs t's filters on its call; false means that the call is not to be made: its result or signal is set. traced: a tracer was asked already.
func (t *Task) checkSeccomp(traced bool) bool {
	f := t.seccomp.Load()
	nr, a := t.asked()
	if f.strict {
		switch nr {
		case 0, 1, 60, 15:
			return true
		}
		t.beginExit(linux.WaitStatusTerminationSignal(linux.SIGKILL))
		return false
	}
	ret := t.runSeccomp(f, nr, &a)
	data := ret & linux.SECCOMP_RET_DATA
	switch ret & linux.SECCOMP_RET_ACTION_FULL {
	case uint32(linux.SECCOMP_RET_ALLOW), seccompRetLog:
		return true
	case uint32(linux.SECCOMP_RET_ERRNO):
		t.regs.Rax = uint64(-int64(min(data, 4095)))
	case uint32(linux.SECCOMP_RET_TRACE):
		if traced {
			return true
		}
		if !t.wantsEvent(traceSeccomp) {
			t.regs.Rax = ^uint64(unix.ENOSYS - 1)
			break
		}
		code := uint32(linux.SIGTRAP) | traceSeccomp<<8
		t.traceStop(code, uint64(data), t.stopInfo(code), SyscallSeccomp)
		// The tracer may have made it another call, or -1: none.
		return !t.Killed() && int32(t.regs.Orig_rax) >= 0 && t.checkSeccomp(true)
	case uint32(linux.SECCOMP_RET_USER_NOTIF): // nobody listens
		t.regs.Rax = ^uint64(unix.ENOSYS - 1)
	case uint32(linux.SECCOMP_RET_TRAP):
		t.regs.Rax = t.regs.Orig_rax
		t.regs.Orig_rax = ^uint64(0)
		t.ForceSignal(seccompInfo(t, nr, data))
	case uint32(linux.SECCOMP_RET_KILL_THREAD):
		if t.tg.NumTasks() > 1 {
			t.beginExit(linux.WaitStatusTerminationSignal(linux.SIGSYS))
			break
		}
		fallthrough
	default:
		t.k.log.Info("seccomp filter killed process")
		t.KillGroup(linux.SIGSYS)
	}
	return false
}

// runSeccomp returns the result with the highest precedence of all filters.
func (t *Task) runSeccomp(f *seccompFilter, nr uintptr, a *Args) uint32 {
	le := hostarch.ByteOrder
	b := t.scratch[:64]
	le.PutUint32(b, uint32(nr))
	le.PutUint32(b[4:], auditArchX86_64)
	le.PutUint64(b[8:], t.regs.Rip)
	for i, v := range a {
		le.PutUint64(b[16+8*i:], uint64(v))
	}
	ret := uint32(linux.SECCOMP_RET_ALLOW)
	for ; f != nil; f = f.prev {
		r, err := bpf.Exec[bpf.NativeEndian](f.prog, b)
		if err != nil {
			return uint32(linux.SECCOMP_RET_KILL_PROCESS)
		}
		if int32(r&linux.SECCOMP_RET_ACTION_FULL) < int32(ret&linux.SECCOMP_RET_ACTION_FULL) {
			ret = r
		}
	}
	return ret
}

func seccompInfo(t *Task, nr uintptr, data uint32) *linux.SignalInfo {
	info := &linux.SignalInfo{Signo: int32(linux.SIGSYS), Errno: int32(data), Code: linux.SYS_SECCOMP}
	info.SetCallAddr(t.regs.Rip)
	info.SetSyscall(int32(nr))
	info.SetArch(auditArchX86_64)
	return info
}
