package kernel

import (
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/sentry/kernel/ktime"
)

// vsyscallPage is the page of the three legacy calls; jumping there faults and is emulated (arch/x86/entry/vsyscall).
const vsyscallPage = hostarch.Addr(0xffffffffff600000)

// vsyscall emulates the call at the faulting address: gettimeofday, time or getcpu, then a ret.
func (t *Task) vsyscall() {
	nr := [...]uintptr{96, 201, 309}
	off := t.regs.Rip - uint64(vsyscallPage)
	if off&0x3ff != 0 || off>>10 >= uint64(len(nr)) {
		t.vsyscallFault()
		return
	}
	ret, err := t.CopyInUint64(hostarch.Addr(t.regs.Rsp))
	if err != nil {
		t.vsyscallFault()
		return
	}
	args := Args{Arg(t.regs.Rdi), Arg(t.regs.Rsi), Arg(t.regs.Rdx)}
	rax := ^uint64(38 - 1)
	if fn := t.k.table.Lookup(nr[off>>10]); fn != nil {
		v, err := fn(t, args)
		rax = uint64(v)
		if err != nil {
			rax = uint64(-int64(toErrno(err)))
		}
	}
	t.regs.Rax = rax
	t.regs.Rip = ret
	t.regs.Rsp += 8
}

// segvMapErr is SEGV_MAPERR.
const segvMapErr = 1

func (t *Task) vsyscallFault() {
	info := &linux.SignalInfo{Signo: int32(linux.SIGSEGV), Code: segvMapErr}
	info.SetAddr(t.regs.Rip)
	t.ForceSignal(info)
}

// RealTime is CLOCK_REALTIME in nanoseconds.
func (k *Kernel) RealTime() int64 { return ktime.Realtime() }
