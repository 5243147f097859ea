package stub

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
	// Entry allows the call from the entry code only, Spawn from the page that is mapped only while no guest thread runs.
	Entry, Spawn bool
	Why          string
}

// ArgRule pins the low 32 bits of one argument, under Mask.
type ArgRule struct {
	Index       int
	Mask, Value uint32
}

const (
	threadFlags = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_CHILD_CLEARTID
	forkFlags   = unix.CLONE_PARENT | unix.CLONE_FILES
	helperFlags = threadFlags | unix.CLONE_FILES // dropped at once, by close_range
	spawnFlags  = threadFlags | unix.CLONE_PARENT_SETTID
)

// SpawnRules are what the guests' filter has besides where there are handlers: they let a template make guest threads, which so need not be put under it one by one: that takes the
// host a quarter of a millisecond. Guest threads are under them too, but while they run there is no page to make the calls from, nor a
// descriptor to map one.
func SpawnRules() []Rule {
	return []Rule{
		{Nr: unix.SYS_CLONE, Name: "clone", Args: []ArgRule{{0, ^uint32(0), spawnFlags}}, Spawn: true, Why: "the template makes a guest thread"},
		{Nr: unix.SYS_SIGALTSTACK, Name: "sigaltstack", Spawn: true, Why: "a new guest thread gets its signal stack"},
	}
}

// HelperRules is the filter of a stub's helper thread, and of a guest thread until it has its own. ctl is the control file's descriptor.
func HelperRules(ctl int) []Rule {
	all := ^uint32(0)
	return []Rule{
		{Nr: unix.SYS_FUTEX, Name: "futex", Why: "wait for orders, tell of their end"},
		{Nr: unix.SYS_PWRITE64, Name: "pwrite64", Args: []ArgRule{{0, all, uint32(ctl)}, {2, all, 4}}, Why: "tell of the end of a batch in a way that no guest can"},
		{Nr: unix.SYS_LSEEK, Name: "lseek", Args: []ArgRule{{0, all, uint32(ctl)}}, Why: "tell the ID of a new process or thread in such a way"},
		{Nr: unix.SYS_MMAP, Name: "mmap", Args: []ArgRule{{3, all, unix.MAP_SHARED | unix.MAP_FIXED}}, Why: "map pages of files of the sentry, where it says"},
		{Nr: unix.SYS_MUNMAP, Name: "munmap", Why: "unmap guest memory"},
		{Nr: unix.SYS_MPROTECT, Name: "mprotect", Why: "change guest memory's protection"},
		{Nr: unix.SYS_CLONE, Name: "clone", Args: []ArgRule{{0, all, helperFlags}}, Why: "make a guest thread"},
		{Nr: unix.SYS_CLONE, Name: "clone", Args: []ArgRule{{0, all, forkFlags}}, Why: "make a stub"},
		{Nr: unix.SYS_CLONE, Name: "clone", Args: []ArgRule{{0, all, spawnFlags}}, Spawn: true, Why: "the template's, under whose filter this is"},
		{Nr: unix.SYS_PRCTL, Name: "prctl", Args: []ArgRule{{0, all, unix.PR_SET_PDEATHSIG}}, Why: "end with the sentry"},
		{Nr: unix.SYS_CLOSE_RANGE, Name: "close_range", Why: "a new guest thread drops all descriptors"},
		{Nr: unix.SYS_SECCOMP, Name: "seccomp", Why: "a new guest thread tightens its filter"},
		{Nr: unix.SYS_EXIT, Name: "exit", Why: "a guest thread ends"},
		{Nr: unix.SYS_EXIT_GROUP, Name: "exit_group", Why: "an order failed"},
		{Nr: unix.SYS_SIGALTSTACK, Name: "sigaltstack", Why: "a new guest thread gets its signal stack"},
		{Nr: unix.SYS_PAUSE, Name: "pause", Why: "a new guest thread waits for its tracer"},
		{Nr: unix.SYS_RT_SIGRETURN, Name: "rt_sigreturn", Why: "guest threads, whose own filter says from where"},
	}
}

const (
	bpfLoad = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	bpfJeq  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	bpfAnd  = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	bpfRet  = unix.BPF_RET | unix.BPF_K

	// offsets in struct seccomp_data
	dataNr, dataArch, dataIP, dataArgs = 0, 4, 8, 16

	auditArchX86_64 = 0xc000003e
)

// compile turns rules into a seccomp(2) program that answers everything else with other.
func compile(rules []Rule, other uint32) []unix.SockFilter {
	p := []unix.SockFilter{
		{Code: bpfLoad, K: dataArch},
		{Code: bpfJeq, K: auditArchX86_64, Jt: 1},
		{Code: bpfRet, K: other},
	}
	for _, r := range rules {
		n := uint8(1 + 3*len(r.Args)) // instructions of this rule behind the test of the number
		page := uint64(codeAddr)
		if r.Spawn {
			page = spawnAddr
		}
		if r.Entry || r.Spawn {
			n += 5
		}
		p = append(p, unix.SockFilter{Code: bpfLoad, K: dataNr}, unix.SockFilter{Code: bpfJeq, K: r.Nr, Jf: n})
		if r.Entry || r.Spawn { // the instruction pointer is in the page
			p = append(p, unix.SockFilter{Code: bpfLoad, K: dataIP + 4}, unix.SockFilter{Code: bpfJeq, K: uint32(page >> 32), Jf: n - 2},
				unix.SockFilter{Code: bpfLoad, K: dataIP}, unix.SockFilter{Code: bpfAnd, K: ^uint32(pageSize - 1)},
				unix.SockFilter{Code: bpfJeq, K: uint32(page), Jf: n - 5})
		}
		for i, a := range r.Args {
			p = append(p, unix.SockFilter{Code: bpfLoad, K: dataArgs + 8*uint32(a.Index)},
				unix.SockFilter{Code: bpfAnd, K: a.Mask},
				unix.SockFilter{Code: bpfJeq, K: a.Value, Jf: uint8(3*(len(r.Args)-i-1) + 1)})
		}
		p = append(p, unix.SockFilter{Code: bpfRet, K: unix.SECCOMP_RET_ALLOW})
	}
	return append(p, unix.SockFilter{Code: bpfRet, K: other})
}

// filterPage is the page at progAddr: two struct sock_fprog, then the two programs.
func filterPage(guest []Rule, ctl int) []byte {
	b := make([]byte, pageSize)
	off := uint64(64)
	for i, p := range [][]unix.SockFilter{
		// A trap kills the helper, which has no handler. It is not a plain kill because guest threads are under this
		// filter too, where a trap must get through: the host emulates the vsyscall page even for a traced thread,
		// which the platform then undoes.
		compile(HelperRules(ctl), unix.SECCOMP_RET_TRAP),
		compile(guest, unix.SECCOMP_RET_TRAP),
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
