package ptrace

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Rule is a host call that a stub's filter lets through.
type Rule struct {
	Nr   uint32
	Name string
	// Args pins the low halves of arguments.
	Args []ArgRule
	Why  string
}

// ArgRule pins the low 32 bits of one argument, under Mask.
type ArgRule struct {
	Index       int
	Mask, Value uint32
}

const (
	threadFlags = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_SIGHAND | unix.CLONE_THREAD
	forkFlags   = unix.CLONE_PARENT | unix.CLONE_FILES
)

// HelperRules is the filter of a stub's helper thread, and of a guest thread until it has its own.
func HelperRules() []Rule {
	all := ^uint32(0)
	return []Rule{
		{unix.SYS_FUTEX, "futex", nil, "wait for orders, tell of their end"},
		{unix.SYS_MMAP, "mmap", []ArgRule{{3, all, unix.MAP_SHARED | unix.MAP_FIXED}}, "map pages of files of the sentry, where it says"},
		{unix.SYS_MUNMAP, "munmap", nil, "unmap guest memory"},
		{unix.SYS_MPROTECT, "mprotect", nil, "change guest memory's protection"},
		{unix.SYS_CLONE, "clone", []ArgRule{{0, all, threadFlags}}, "make a guest thread"},
		{unix.SYS_CLONE, "clone", []ArgRule{{0, all, forkFlags}}, "make a stub: fork and new address spaces"},
		{unix.SYS_PRCTL, "prctl", []ArgRule{{0, all, unix.PR_SET_PDEATHSIG}}, "end with the sentry"},
		{unix.SYS_CLOSE_RANGE, "close_range", nil, "a new guest thread drops all descriptors"},
		{unix.SYS_SECCOMP, "seccomp", nil, "a new guest thread tightens its filter"},
		{unix.SYS_EXIT, "exit", nil, "a guest thread ends"},
		{unix.SYS_EXIT_GROUP, "exit_group", nil, "an order failed"},
	}
}

// GuestRules is the filter of guest threads. PTRACE_SYSEMU stops guest code's calls before it; exit is made by the
// entry code after the thread was let go.
func GuestRules() []Rule {
	return []Rule{{unix.SYS_EXIT, "exit", nil, "a guest thread ends"}}
}

const (
	bpfLoad = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	bpfJeq  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	bpfAnd  = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	bpfRet  = unix.BPF_RET | unix.BPF_K

	// offsets in struct seccomp_data
	dataNr, dataArch, dataArgs = 0, 4, 16

	auditArchX86_64 = 0xc000003e
)

// compile turns rules into a seccomp(2) program that answers everything else with other.
func compile(rules []Rule, other uint32) []unix.SockFilter {
	p := []unix.SockFilter{
		{Code: bpfLoad, K: dataArch},
		{Code: bpfJeq, K: auditArchX86_64, Jt: 1},
		{Code: bpfRet, K: unix.SECCOMP_RET_KILL_PROCESS},
	}
	for _, r := range rules {
		n := uint8(1 + 3*len(r.Args)) // instructions of this rule behind the test of the number
		p = append(p, unix.SockFilter{Code: bpfLoad, K: dataNr}, unix.SockFilter{Code: bpfJeq, K: r.Nr, Jf: n})
		for i, a := range r.Args {
			p = append(p, unix.SockFilter{Code: bpfLoad, K: dataArgs + 8*uint32(a.Index)},
				unix.SockFilter{Code: bpfAnd, K: a.Mask},
				unix.SockFilter{Code: bpfJeq, K: a.Value, Jf: n - uint8(3*(i+1))})
		}
		p = append(p, unix.SockFilter{Code: bpfRet, K: unix.SECCOMP_RET_ALLOW})
	}
	return append(p, unix.SockFilter{Code: bpfRet, K: other})
}

// filterPage is the page at progAddr: two struct sock_fprog, then the two programs.
func filterPage() []byte {
	b := make([]byte, pageSize)
	off := uint64(64)
	for i, p := range [][]unix.SockFilter{
		// A trap kills the helper, which has no handler. It is not a plain kill because guest threads are under this
		// filter too, where a trap must get through: the host emulates the vsyscall page even for a traced thread,
		// which the platform then undoes.
		compile(HelperRules(), unix.SECCOMP_RET_TRAP),
		compile(GuestRules(), unix.SECCOMP_RET_TRAP),
	} {
		binary.LittleEndian.PutUint16(b[16*i:], uint16(len(p)))
		binary.LittleEndian.PutUint64(b[16*i+8:], progAddr+off)
		for _, f := range p {
			binary.LittleEndian.PutUint16(b[off:], f.Code)
			b[off+2], b[off+3] = f.Jt, f.Jf
			binary.LittleEndian.PutUint32(b[off+4:], f.K)
			off += 8
		}
	}
	return b
}
