package syscalls

import (
	"slices"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/marshal/primitive"
	"moat/platform"
	"moat/sentry/kernel"
	"moat/sentry/kernel/signal"
)

func init() {
	register(partial(101, "ptrace", "int pid ptr ptr", "debug registers read as 0 and cannot be set (EINVAL): on trap nobody traces the host's threads (gdb: set can-use-hw-watchpoints 0); no PTRACE_SYSEMU, which serves other sandboxes (EIO), and none of what serves checkpointing: PTRACE_PEEKSIGINFO, PTRACE_O_SUSPEND_SECCOMP, ... (EIO, EINVAL)", sysPtrace))
}

// Requests of ptrace(2).
const (
	ptTraceMe, ptPeekText, ptPeekData, ptPeekUser, ptPokeText, ptPokeData, ptPokeUser = 0, 1, 2, 3, 4, 5, 6
	ptCont, ptKill, ptSingleStep, ptGetRegs, ptSetRegs, ptGetFPRegs, ptSetFPRegs      = 7, 8, 9, 12, 13, 14, 15
	ptAttach, ptDetach, ptSyscall, ptArchPrctl                                        = 16, 17, 24, 30
	ptSetOptions, ptGetEventMsg, ptGetSigInfo, ptSetSigInfo, ptGetRegSet, ptSetRegSet = 0x4200, 0x4201, 0x4202, 0x4203, 0x4204, 0x4205
	ptSeize, ptInterrupt, ptListen, ptGetSigMask, ptSetSigMask, ptSyscallInfo         = 0x4206, 0x4207, 0x4208, 0x420a, 0x420b, 0x420e
)

// Register sets of PTRACE_GETREGSET.
const (
	ntPRStatus = 1
	ntFPRegSet = 2
	ntXState   = 0x202
)

const (
	regsSize   = 27 * 8
	fpRegsSize = 512
	// fpSoftware is where the part of the floating-point state begins that the processor leaves alone.
	fpSoftware = 464
	// fpHeaderSize is the size of what follows the legacy state: which components are in use.
	fpHeaderSize = 64
	// debugRegs is where struct user has the debug registers; userSize is its size.
	debugRegs, userSize = 848, 928
)

func sysPtrace(t *kernel.Task, a kernel.Args) (uintptr, error) {
	req := a[0].Int()
	if req == ptTraceMe {
		return 0, t.TraceMe()
	}
	o := t.PIDNamespace().Task(a[1].Int())
	if o == nil {
		return 0, unix.ESRCH
	}
	addr, data := a[2], a[3]
	switch req {
	case ptAttach:
		return 0, t.Attach(o, false, 0)
	case ptSeize:
		if addr != 0 || data.Uint64()&^kernel.TraceOptionMask != 0 {
			return 0, unix.EIO
		}
		return 0, t.Attach(o, true, data.Uint())
	case ptInterrupt:
		return 0, t.TraceInterrupt(o)
	case ptKill:
		if o.Tracer() != t {
			return 0, unix.ESRCH
		}
		return 0, o.ThreadGroup().SendSignal(&linux.SignalInfo{Signo: int32(linux.SIGKILL), Code: linux.SI_USER})
	case ptCont, ptSyscall, ptSingleStep, ptListen:
		mode := map[int32]kernel.TraceMode{ptCont: kernel.TraceCont, ptSyscall: kernel.TraceSyscall, ptSingleStep: kernel.TraceStep, ptListen: kernel.TraceListen}[req]
		if data.Uint64() > linux.SignalMaximum {
			return 0, unix.EIO
		}
		return 0, t.TraceResume(o, mode, linux.Signal(data))
	case ptDetach:
		if data.Uint64() > linux.SignalMaximum {
			return 0, unix.EIO
		}
		return 0, t.Detach(o, linux.Signal(data))
	case ptSetOptions:
		return 0, t.SetTraceOptions(o, data.Uint())
	}
	return ptraceStopped(t, o, req, addr, data)
}

// ptraceStopped is the requests that look into a stopped tracee.
func ptraceStopped(t, o *kernel.Task, req int32, addr, data kernel.Arg) (uintptr, error) {
	p := data.Pointer()
	switch req {
	case ptPeekText, ptPeekData:
		return 0, peek(t, o, p, func() (uint64, error) {
			var b [8]byte
			err := force(o, addr.Pointer(), b[:], false)
			return hostarch.ByteOrder.Uint64(b[:]), err
		})
	case ptPokeText, ptPokeData:
		var b [8]byte
		hostarch.ByteOrder.PutUint64(b[:], data.Uint64())
		return 0, t.TraceRequest(o, func() error { return force(o, addr.Pointer(), b[:], true) })
	case ptPeekUser, ptPokeUser:
		return 0, ptraceUser(t, o, req == ptPokeUser, addr.Uint64(), data)
	case ptGetRegs, ptSetRegs:
		return 0, regs(t, o, p, regsSize, req == ptSetRegs)
	case ptGetFPRegs, ptSetFPRegs:
		return 0, fpRegs(t, o, p, fpRegsSize, false, req == ptSetFPRegs)
	case ptGetRegSet, ptSetRegSet:
		return 0, regSet(t, o, addr.Uint64(), p, req == ptSetRegSet)
	case ptGetEventMsg:
		return 0, peek(t, o, p, func() (uint64, error) {
			_, m, _ := o.StopState()
			return m, nil
		})
	case ptGetSigInfo, ptSetSigInfo:
		return 0, sigInfo(t, o, p, req == ptSetSigInfo)
	case ptGetSigMask, ptSetSigMask:
		return 0, sigMask(t, o, addr.Uint64(), p, req == ptSetSigMask)
	case ptSyscallInfo:
		return syscallInfo(t, o, addr.Uint64(), p)
	case ptArchPrctl:
		return 0, traceArchPrctl(t, o, p, addr)
	}
	if err := t.TraceRequest(o, func() error { return nil }); err != nil {
		return 0, err
	}
	return 0, unix.EIO
}

// get runs fn, which fills b, on the tracee's goroutine, and copies b to the tracer.
func get(t, o *kernel.Task, p hostarch.Addr, b []byte, fn func() error) error {
	if err := t.TraceRequest(o, fn); err != nil {
		return err
	}
	_, err := t.CopyOut(p, b)
	return err
}

// peek is get for a word.
func peek(t, o *kernel.Task, p hostarch.Addr, fn func() (uint64, error)) (err error) {
	var v uint64
	if err := t.TraceRequest(o, func() (err error) { v, err = fn(); return err }); err != nil {
		return err
	}
	return t.CopyOutUint64(p, v)
}

// force reads or writes a tracee's memory whatever its permissions: EIO where there is none.
func force(o *kernel.Task, addr hostarch.Addr, b []byte, write bool) error {
	m := o.MemoryManager()
	if m == nil {
		return unix.EIO
	}
	if n, _ := m.Force(addr, b, write); n != len(b) {
		return unix.EIO
	}
	return nil
}

// regs copies struct user_regs_struct, or the first n bytes of it.
func regs(t, o *kernel.Task, p hostarch.Addr, n int, set bool) error {
	var b [regsSize]byte
	if !set {
		return get(t, o, p, b[:n], func() error { putRegs(&b, o.Regs()); return nil })
	}
	if _, err := t.CopyIn(p, b[:n]); err != nil {
		return err
	}
	return t.TraceRequest(o, func() error {
		var all [regsSize]byte
		putRegs(&all, o.Regs())
		copy(all[:], b[:n])
		return setRegs(o, &all)
	})
}

// regFields are the registers in struct user_regs_struct's order.
func regFields(r *platform.Regs) [27]*uint64 {
	return [27]*uint64{&r.R15, &r.R14, &r.R13, &r.R12, &r.Rbp, &r.Rbx, &r.R11, &r.R10, &r.R9, &r.R8, &r.Rax, &r.Rcx, &r.Rdx, &r.Rsi, &r.Rdi, &r.Orig_rax,
		&r.Rip, &r.Cs, &r.Eflags, &r.Rsp, &r.Ss, &r.Fs_base, &r.Gs_base, &r.Ds, &r.Es, &r.Fs, &r.Gs}
}

func putRegs(b *[regsSize]byte, r *platform.Regs) {
	for i, f := range regFields(r) {
		hostarch.ByteOrder.PutUint64(b[8*i:], *f)
	}
}

// setRegs gives a tracee registers: EIO for segments or bases that no user program can have.
func setRegs(o *kernel.Task, b *[regsSize]byte) error {
	n := *o.Regs()
	for i, f := range regFields(&n) {
		*f = hostarch.ByteOrder.Uint64(b[8*i:])
	}
	old := o.Regs()
	if n.Fs_base >= userTop || n.Gs_base >= userTop || n.Cs != old.Cs || n.Ss != old.Ss {
		return unix.EIO
	}
	n.Ds, n.Es, n.Fs, n.Gs = old.Ds, old.Es, old.Fs, old.Gs
	// User programs may change these flags (FLAG_MASK); the rest stays.
	const flags = 0x50dd5
	n.Eflags = old.Eflags&^flags | n.Eflags&flags
	*old = n
	return nil
}

// fpRegs copies the first n bytes of the floating-point state; xstate says of which register set: the legacy 512 bytes, or the whole.
func fpRegs(t, o *kernel.Task, p hostarch.Addr, n int, xstate, set bool) error {
	b := make([]byte, n)
	if set {
		if _, err := t.CopyIn(p, b); err != nil {
			return err
		}
	}
	err := t.TraceRequest(o, func() error {
		s, err := o.FPState()
		if err != nil {
			return unix.EIO
		}
		// The part that the processor leaves alone has notes of the host's signal frame. A register set has the mask of features there.
		notes, features := slices.Clone(s[fpSoftware:fpRegsSize]), signal.Features(s)
		s = slices.Clone(s)
		if !set {
			clear(s[fpSoftware:fpRegsSize])
			if xstate {
				hostarch.ByteOrder.PutUint64(s[fpSoftware:], features)
			}
			copy(b, s)
			return nil
		}
		copy(s, b)
		copy(s[fpSoftware:], notes)
		if h := s[fpRegsSize:min(len(s), fpRegsSize+fpHeaderSize)]; !xstate && len(h) > 0 {
			h[0] |= 3 // x87 and SSE are no longer in their initial state
		} else if xstate && len(h) == fpHeaderSize && (hostarch.ByteOrder.Uint64(h)&^features != 0 || slices.Max(h[8:]) != 0) {
			return unix.EINVAL
		}
		if o.SetFPState(s) != nil {
			return unix.EINVAL
		}
		return nil
	})
	if err == nil && !set {
		_, err = t.CopyOut(p, b)
	}
	return err
}

// regSet is PTRACE_GETREGSET and PTRACE_SETREGSET: data is an iovec, whose length becomes what was copied.
func regSet(t, o *kernel.Task, kind uint64, p hostarch.Addr, set bool) error {
	var iov [2]uint64
	if _, err := primitive.CopyUint64SliceIn(t, p, iov[:]); err != nil {
		return err
	}
	base, size := hostarch.Addr(iov[0]), iov[1]
	full := uint64(regsSize)
	switch kind {
	case ntPRStatus:
	case ntFPRegSet:
		full = fpRegsSize
	case ntXState:
		if err := t.TraceRequest(o, func() error {
			s, err := o.FPState()
			full = uint64(len(s))
			return err
		}); err != nil {
			return err
		}
		if set && size%8 == 0 && size < full {
			return unix.EFAULT
		}
	default:
		if err := t.TraceRequest(o, func() error { return nil }); err != nil {
			return err
		}
		return unix.EINVAL
	}
	if size%8 != 0 {
		return unix.EINVAL
	}
	n := int(min(size, full))
	var err error
	if kind == ntPRStatus {
		err = regs(t, o, base, n, set)
	} else {
		err = fpRegs(t, o, base, n, kind == ntXState, set)
	}
	if err != nil {
		return err
	}
	return t.CopyOutUint64(p+8, uint64(n))
}

// ptraceUser is PTRACE_PEEKUSER and PTRACE_POKEUSER: the registers are at the start of struct user; debug registers read as 0.
func ptraceUser(t, o *kernel.Task, poke bool, off uint64, data kernel.Arg) error {
	if off%8 != 0 || off >= userSize {
		return unix.EIO
	}
	if !poke {
		return peek(t, o, data.Pointer(), func() (uint64, error) {
			if off < regsSize {
				return *regFields(o.Regs())[off/8], nil
			}
			return 0, nil
		})
	}
	return t.TraceRequest(o, func() error {
		switch {
		case off < regsSize:
			var all [regsSize]byte
			putRegs(&all, o.Regs())
			hostarch.ByteOrder.PutUint64(all[off:], data.Uint64())
			return setRegs(o, &all)
		case off >= debugRegs && data == 0:
			return nil
		case off >= debugRegs:
			return unix.EINVAL
		}
		return unix.EIO
	})
}

func sigInfo(t, o *kernel.Task, p hostarch.Addr, set bool) error {
	var v linux.SignalInfo
	if set {
		if _, err := v.CopyIn(t, p); err != nil {
			return err
		}
	}
	err := t.TraceRequest(o, func() error {
		info, _, _ := o.StopState()
		switch {
		case info == nil:
			return unix.EINVAL
		case set:
			*info = v
		default:
			v = *info
		}
		return nil
	})
	if err == nil && !set {
		_, err = v.CopyOut(t, p)
	}
	return err
}

func sigMask(t, o *kernel.Task, size uint64, p hostarch.Addr, set bool) error {
	if size != linux.SignalSetSize {
		return unix.EINVAL
	}
	if !set {
		return peek(t, o, p, func() (uint64, error) { return uint64(o.SignalMask()), nil })
	}
	v, err := t.CopyInUint64(p)
	if err != nil {
		return err
	}
	return t.TraceRequest(o, func() error { o.SetSignalMask(linux.SignalSet(v)); return nil })
}

// syscallInfo is PTRACE_GET_SYSCALL_INFO: it returns the size of what there is.
func syscallInfo(t, o *kernel.Task, size uint64, p hostarch.Addr) (uintptr, error) {
	const auditArchX86_64 = 0xc000003e
	var b [88]byte // struct ptrace_syscall_info, which ends in padding
	n := 24
	err := t.TraceRequest(o, func() error {
		_, message, side := o.StopState()
		r, le := o.Regs(), hostarch.ByteOrder
		b[0] = byte(side)
		le.PutUint32(b[4:], auditArchX86_64)
		le.PutUint64(b[8:], r.Rip)
		le.PutUint64(b[16:], r.Rsp)
		switch side {
		case kernel.SyscallEntry, kernel.SyscallSeccomp:
			n = 80
			if side == kernel.SyscallSeccomp {
				n = 84
				le.PutUint32(b[80:], uint32(message))
			}
			for i, v := range [...]uint64{r.Orig_rax, r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9} {
				le.PutUint64(b[24+8*i:], v)
			}
		case kernel.SyscallExit:
			n = 33
			le.PutUint64(b[24:], r.Rax)
			if r.Rax > ^uint64(4095) {
				b[32] = 1
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	if _, err := t.CopyOut(p, b[:min(uint64(n), size)]); err != nil {
		return 0, err
	}
	return uintptr(n), nil
}

// traceArchPrctl is PTRACE_ARCH_PRCTL: the tracee's FS and GS bases.
func traceArchPrctl(t, o *kernel.Task, p hostarch.Addr, code kernel.Arg) error {
	const setGS, setFS, getFS, getGS = 0x1001, 0x1002, 0x1003, 0x1004
	// data is the operation, addr what it is about; for SET_* the value itself.
	op, where := uint64(p), code.Pointer()
	switch op {
	case getFS:
		return peek(t, o, where, func() (uint64, error) { return o.Regs().Fs_base, nil })
	case getGS:
		return peek(t, o, where, func() (uint64, error) { return o.Regs().Gs_base, nil })
	case setFS, setGS:
		if uint64(where) >= userTop {
			return unix.EPERM
		}
		return t.TraceRequest(o, func() error {
			if op == setFS {
				o.Regs().Fs_base = uint64(where)
			} else {
				o.Regs().Gs_base = uint64(where)
			}
			return nil
		})
	}
	return unix.EINVAL
}
