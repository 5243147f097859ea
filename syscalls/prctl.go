package syscalls

import (
	"moat/sentry/kernel"
	"moat/sentry/mm"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/marshal/primitive"
)

func init() {
	register(
		partial(157, "prctl", "prop ptr ptr ptr ptr", "PR_SET_MM_MAP and speculation, MCE and core scheduling controls are refused", sysPrctl),
		partial(317, "seccomp", "int hex ptr", "no user notification (SECCOMP_FILTER_FLAG_NEW_LISTENER)", sysSeccomp),
	)
}

// prctl(2) options that abi/linux lacks.
const (
	prGetSpeculation   = 52
	prSetSpeculation   = 53
	prGetIOFlusher     = 58
	prSetIOFlusher     = 57
	prSetMDWE          = 65
	prGetMDWE          = 66
	prGetAuxv          = 0x41555856
	prMCEKillDefault   = 2
	prSetMemoryMerge   = 67
	prGetMemoryMerge   = 68
	prTscEnable        = 1
	prTscSigsegv       = 2
	prTimingStatistics = 0
)

func sysPrctl(t *kernel.Task, a kernel.Args) (uintptr, error) {
	unused := func(from int) bool {
		for _, v := range a[from:5] {
			if v != 0 {
				return false
			}
		}
		return true
	}
	m := t.MemoryManager()
	switch op := a[0].Int(); op {
	case linux.PR_SET_PDEATHSIG:
		if a[1] > linux.SignalMaximum {
			return 0, unix.EINVAL
		}
		t.SetPDeathSignal(a[1].Int())
	case linux.PR_GET_PDEATHSIG:
		return 0, t.CopyOutUint32(a[1].Pointer(), uint32(t.PDeathSignal()))
	case linux.PR_GET_DUMPABLE:
		return uintptr(m.Dumpable.Load()), nil
	case linux.PR_SET_DUMPABLE:
		if a[1] > 1 {
			return 0, unix.EINVAL
		}
		m.Dumpable.Store(a[1].Int())
	case linux.PR_GET_KEEPCAPS:
		return uintptr(t.Credentials().SecureBits >> 4 & 1), nil
	case linux.PR_SET_KEEPCAPS:
		if a[1] > 1 {
			return 0, unix.EINVAL
		}
		return 0, t.SetKeepCaps(a[1] == 1)
	case linux.PR_GET_TIMING:
		return prTimingStatistics, nil
	case linux.PR_SET_TIMING:
		if a[1] != prTimingStatistics {
			return 0, unix.EINVAL
		}
	case linux.PR_SET_NAME:
		var b [16]byte
		n, err := copyInBytesUpToNul(t, a[1].Pointer(), b[:15])
		if err != nil {
			return 0, err
		}
		t.SetName(string(b[:n]))
	case linux.PR_GET_NAME:
		var b [16]byte
		copy(b[:15], t.Name())
		_, err := t.CopyOut(a[1].Pointer(), b[:])
		return 0, err
	case linux.PR_GET_SECCOMP:
		return uintptr(t.SeccompMode()), nil
	case linux.PR_SET_SECCOMP:
		switch a[1] {
		case 1:
			return seccompSet(t, 0, 0, 0)
		case 2:
			return seccompSet(t, linux.SECCOMP_SET_MODE_FILTER, 0, a[2].Pointer())
		}
		return 0, unix.EINVAL
	case linux.PR_CAPBSET_READ:
		if a[1] > 40 {
			return 0, unix.EINVAL
		}
		if t.Credentials().Bounding.Has(linux.Capability(a[1])) {
			return 1, nil
		}
	case linux.PR_CAPBSET_DROP:
		return 0, t.DropBounding(linux.Capability(min(a[1], 1000)))
	case linux.PR_GET_TSC:
		return 0, t.CopyOutUint32(a[1].Pointer(), prTscEnable)
	case linux.PR_SET_TSC:
		if a[1] != prTscEnable {
			return 0, unix.EINVAL
		}
	case linux.PR_GET_SECUREBITS:
		return uintptr(t.Credentials().SecureBits), nil
	case linux.PR_SET_SECUREBITS:
		return 0, t.SetSecureBits(a[1].Uint())
	case linux.PR_SET_TIMERSLACK:
		t.SetTimerSlack(a[1].Int64())
	case linux.PR_GET_TIMERSLACK:
		return uintptr(t.TimerSlack()), nil
	case linux.PR_TASK_PERF_EVENTS_DISABLE, linux.PR_TASK_PERF_EVENTS_ENABLE:
	case linux.PR_MCE_KILL:
		if a[1] > 1 || !unused(3) {
			return 0, unix.EINVAL
		}
	case linux.PR_MCE_KILL_GET:
		if !unused(1) {
			return 0, unix.EINVAL
		}
		return prMCEKillDefault, nil
	case linux.PR_SET_MM:
		return 0, prctlSetMM(t, m, a)
	case linux.PR_SET_CHILD_SUBREAPER:
		t.ThreadGroup().SetSubreaper(a[1] != 0)
	case linux.PR_GET_CHILD_SUBREAPER:
		return 0, t.CopyOutUint32(a[1].Pointer(), boolWord(t.ThreadGroup().Subreaper()))
	case linux.PR_SET_NO_NEW_PRIVS:
		if a[1] != 1 || !unused(2) {
			return 0, unix.EINVAL
		}
		t.SetNoNewPrivs()
	case linux.PR_GET_NO_NEW_PRIVS:
		if !unused(1) {
			return 0, unix.EINVAL
		}
		return uintptr(boolWord(t.NoNewPrivs())), nil
	case linux.PR_GET_TID_ADDRESS:
		return 0, t.CopyOutUint64(a[1].Pointer(), uint64(t.ClearTID()))
	case linux.PR_SET_THP_DISABLE:
		const exceptAdvised = 2 // PR_THP_DISABLE_EXCEPT_ADVISED
		if !unused(3) || a[2]&^exceptAdvised != 0 || a[1] == 0 && a[2] != 0 {
			return 0, unix.EINVAL
		}
		mode := uint32(0)
		if a[1] != 0 {
			mode = 1 | a[2].Uint()
		}
		t.SetTHPDisabled(mode)
	case linux.PR_GET_THP_DISABLE:
		if !unused(1) {
			return 0, unix.EINVAL
		}
		return uintptr(t.THPDisabled()), nil
	case linux.PR_CAP_AMBIENT:
		if a[1] == linux.PR_CAP_AMBIENT_CLEAR_ALL && !unused(2) || !unused(3) {
			return 0, unix.EINVAL
		}
		return t.Ambient(a[1].Uint64(), linux.Capability(min(a[2], 1000)))
	case linux.PR_SET_VMA:
		return 0, prctlSetVMA(t, m, a)
	case linux.PR_SET_PTRACER:
		// Yama's exception list: moat has no Yama.
		return 0, unix.EINVAL
	case prGetAuxv:
		if !unused(3) {
			return 0, unix.EINVAL
		}
		aux := m.Auxv()
		_, err := t.CopyOut(a[1].Pointer(), aux[:min(uint64(len(aux)), a[2].Uint64())])
		return uintptr(len(aux)), err
	case prSetMemoryMerge:
		if !unused(2) {
			return 0, unix.EINVAL
		}
	case prGetMemoryMerge, prGetMDWE:
		if !unused(1) {
			return 0, unix.EINVAL
		}
		if a[0].Int() == prGetMDWE && m.DeniesWriteExec() {
			return 1, nil
		}
	case prSetMDWE:
		const refuseExecGain, noInherit = 1, 2
		if !unused(2) || a[1].Uint64()&^(refuseExecGain|noInherit) != 0 || a[1].Uint64() == noInherit {
			return 0, unix.EINVAL
		}
		if m.DeniesWriteExec() && a[1]&refuseExecGain == 0 {
			return 0, unix.EPERM
		}
		if a[1] != 0 {
			m.DenyWriteExec()
		}
	case prSetIOFlusher, prGetIOFlusher:
		if !t.Credentials().HasCap(linux.CAP_SYS_RESOURCE) {
			return 0, unix.EPERM
		}
		return 0, unix.EINVAL
	case prGetSpeculation, prSetSpeculation:
		return 0, unix.ENODEV
	default:
		return 0, unix.EINVAL
	}
	return 0, nil
}

func boolWord(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// copyInBytesUpToNul is strncpy_from_user: the bytes before the NUL, or len(b) of them.
func copyInBytesUpToNul(t *kernel.Task, p hostarch.Addr, b []byte) (int, error) {
	s, err := t.CopyInString(p, len(b)+1)
	if err == unix.ENAMETOOLONG {
		return t.CopyIn(p, b)
	}
	return copy(b, s), err
}

// prctlSetMM is PR_SET_MM for single fields (kernel/sys.c prctl_set_mm).
func prctlSetMM(t *kernel.Task, m *mm.MemoryManager, a kernel.Args) error {
	if a[4] != 0 || (a[3] != 0 && a[1] != linux.PR_SET_MM_AUXV) {
		return unix.EINVAL
	}
	if !t.Credentials().HasCap(linux.CAP_SYS_RESOURCE) {
		return unix.EPERM
	}
	v := a[2].Pointer()
	if v >= userTop {
		return unix.EINVAL
	}
	ar := m.Areas()
	fields := map[uint32]*hostarch.Addr{
		linux.PR_SET_MM_START_CODE: &ar.StartCode, linux.PR_SET_MM_END_CODE: &ar.EndCode, linux.PR_SET_MM_START_DATA: &ar.StartData,
		linux.PR_SET_MM_END_DATA: &ar.EndData, linux.PR_SET_MM_START_STACK: &ar.StartStack, linux.PR_SET_MM_START_BRK: &ar.StartBrk,
		linux.PR_SET_MM_BRK: &ar.Brk, linux.PR_SET_MM_ARG_START: &ar.ArgStart, linux.PR_SET_MM_ARG_END: &ar.ArgEnd,
		linux.PR_SET_MM_ENV_START: &ar.EnvStart, linux.PR_SET_MM_ENV_END: &ar.EnvEnd,
	}
	f := fields[a[1].Uint()]
	if f == nil {
		return unix.EINVAL
	}
	*f = v
	if ar.StartCode > ar.EndCode || ar.StartData > ar.EndData || ar.StartBrk > ar.Brk || ar.ArgStart > ar.ArgEnd || ar.EnvStart > ar.EnvEnd {
		return unix.EINVAL
	}
	m.SetAreas(ar)
	return nil
}

func prctlSetVMA(t *kernel.Task, m *mm.MemoryManager, a kernel.Args) error {
	if a[1] != linux.PR_SET_VMA_ANON_NAME {
		return unix.EINVAL
	}
	name := ""
	if a[4] != 0 {
		var err error
		if name, err = shortString(t, a[4], linux.ANON_VMA_NAME_MAX_LEN); err != nil {
			return err
		}
		for _, c := range []byte(name) {
			if c < 0x20 || c > 0x7e || c == '\\' || c == '`' || c == '$' || c == '[' || c == ']' {
				return unix.EINVAL
			}
		}
	}
	return m.SetAnonName(a[2].Pointer(), a[3].Uint64(), name)
}

func sysSeccomp(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return seccompSet(t, a[0].Uint(), a[1].Uint(), a[2].Pointer())
}

func seccompSet(t *kernel.Task, op, flags uint32, p hostarch.Addr) (uintptr, error) {
	switch op {
	case 0:
		if flags != 0 || p != 0 {
			return 0, unix.EINVAL
		}
		return 0, t.SetSeccompStrict()
	case linux.SECCOMP_SET_MODE_FILTER:
		var prog [2]uint64 // struct sock_fprog: a length of two bytes, a pointer
		if _, err := primitive.CopyUint64SliceIn(t, p, prog[:]); err != nil {
			return 0, err
		}
		n := uint16(prog[0])
		if n == 0 || n > 4096 {
			return 0, unix.EINVAL
		}
		code := make([]byte, 8*int(n))
		if _, err := t.CopyIn(hostarch.Addr(prog[1]), code); err != nil {
			return 0, err
		}
		tid, err := t.SetSeccompFilter(code, flags)
		return uintptr(tid), err
	case linux.SECCOMP_GET_ACTION_AVAIL:
		if flags != 0 {
			return 0, unix.EINVAL
		}
		act, err := t.CopyInUint32(p)
		if err != nil {
			return 0, err
		}
		switch linux.BPFAction(act) {
		case linux.SECCOMP_RET_KILL_PROCESS, linux.SECCOMP_RET_KILL_THREAD, linux.SECCOMP_RET_TRAP, linux.SECCOMP_RET_ERRNO,
			linux.SECCOMP_RET_TRACE, linux.SECCOMP_RET_ALLOW, 0x7ffc0000:
			return 0, nil
		}
		return 0, unix.EOPNOTSUPP
	}
	return 0, unix.EINVAL
}
