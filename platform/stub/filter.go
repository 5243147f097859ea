package stub

import (
	"slices"

	"golang.org/x/sys/unix"
)

// Rule is a host call that the stubs' filter lets through.
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
	threadFlags = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_CHILD_CLEARTID
	forkFlags   = unix.CLONE_PARENT | unix.CLONE_FILES
	guestFlags  = threadFlags | unix.CLONE_PARENT_SETTID | unix.CLONE_FILES // the last is dropped at once, by close_range
)

// HelperRules are the calls that may be made from the page of the helper's code. A guest thread makes some of them before it turns into one: from then on the
// host lets it make no call from there. ctl is the control file's descriptor.
func HelperRules(ctl int) []Rule {
	all := ^uint32(0)
	return []Rule{
		{Nr: unix.SYS_FUTEX, Name: "futex", Why: "wait for orders, tell of their end"},
		{Nr: unix.SYS_PWRITE64, Name: "pwrite64", Args: []ArgRule{{0, all, uint32(ctl)}, {2, all, 4}}, Why: "tell of the end of a batch in a way that no guest can"},
		{Nr: unix.SYS_LSEEK, Name: "lseek", Args: []ArgRule{{0, all, uint32(ctl)}}, Why: "tell the ID of a new process or thread in such a way"},
		{Nr: unix.SYS_MMAP, Name: "mmap", Args: []ArgRule{{3, all &^ unix.MAP_POPULATE, unix.MAP_SHARED | unix.MAP_FIXED}}, Why: "map pages of files of the sentry, where it says"},
		{Nr: unix.SYS_MUNMAP, Name: "munmap", Why: "unmap guest memory"},
		{Nr: unix.SYS_MPROTECT, Name: "mprotect", Why: "change guest memory's protection"},
		{Nr: unix.SYS_CLONE, Name: "clone", Args: []ArgRule{{0, all, guestFlags}}, Why: "make a guest thread"},
		{Nr: unix.SYS_CLONE, Name: "clone", Args: []ArgRule{{0, all, forkFlags}}, Why: "make a stub"},
		{Nr: unix.SYS_PRCTL, Name: "prctl", Args: []ArgRule{{0, all, unix.PR_SET_PDEATHSIG}, {1, all, uint32(unix.SIGKILL)}}, Why: "end with the sentry"},
		{Nr: unix.SYS_PRCTL, Name: "prctl", Args: []ArgRule{{0, all, unix.PR_SET_NAME}, {1, all, nameAddr & 0xffffffff}}, Why: "the program's name, for host tools"},
		{Nr: unix.SYS_TGKILL, Name: "tgkill", Args: []ArgRule{{2, all, 0}}, Why: "has a guest thread ended?"},
		{Nr: unix.SYS_SCHED_SETAFFINITY, Name: "sched_setaffinity", Args: []ArgRule{{0, all, 0}}, Why: "guest threads, which begin with the helper's CPUs, run on all"},
		{Nr: unix.SYS_SIGALTSTACK, Name: "sigaltstack", Why: "a new guest thread gets its signal stack"},
		{Nr: unix.SYS_CLOSE_RANGE, Name: "close_range", Why: "it drops all descriptors"},
		{Nr: unix.SYS_PRCTL, Name: "prctl", Args: []ArgRule{{0, all, unix.PR_SET_SYSCALL_USER_DISPATCH}, {1, all, unix.PR_SYS_DISPATCH_ON}, {2, all, codeAddr & 0xffffffff},
			{3, all, guestCode}, {4, all, 0}}, Why: "and all calls but the entry code's (Syscall User Dispatch)"},
		{Nr: unix.SYS_EXIT_GROUP, Name: "exit_group", Why: "an order failed"},
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

	// guestCode is how many bytes from codeAddr are code that guest threads may make calls of the host from.
	guestCode = 2 * pageSize
)

// compile makes the seccomp(2) program of all of a stub's threads. A call is allowed from the entry code and the answers, by guest, and from
// the helper's code, by helper.
//
// What keeps a guest thread from the helper's calls is not this program but Syscall User Dispatch, which comes before it: the host has one flag a thread for it
// and nothing to set up. A program of its own for each guest thread, which would say the same, takes a quarter of a millisecond to install, and Linux (6.18 seen)
// can deadlock for good, host-wide, when more than a thousand programs are freed at once: as when a sandbox of as many threads is killed.
//
// A guest's other calls raise SIGSYS: the few that user dispatch lets pass are those of the entry code, which makes one that does not exist where it wants the signal, and jumps
// into the vsyscall page, where the host asks the program alone.
func compile(guest, helper []Rule) []unix.SockFilter {
	trap := unix.SockFilter{Code: bpfRet, K: unix.SECCOMP_RET_TRAP}
	entry := section(guest, unix.SECCOMP_RET_TRAP)
	code, help := uint64(codeAddr), uint64(helperAddr)
	return slices.Concat([]unix.SockFilter{
		{Code: bpfLoad, K: dataArch},
		{Code: bpfJeq, K: auditArchX86_64, Jt: 1},
		trap,
		{Code: bpfLoad, K: dataIP + 4},
		{Code: bpfJeq, K: uint32(code >> 32), Jt: 1},
		trap,
		{Code: bpfLoad, K: dataIP},
		{Code: bpfAnd, K: ^uint32(guestCode - 1)},
		{Code: bpfJeq, K: uint32(code), Jf: uint8(len(entry))},
	}, entry, []unix.SockFilter{
		{Code: bpfJeq, K: uint32(help), Jt: 1},
		trap,
	}, section(helper, unix.SECCOMP_RET_KILL_PROCESS))
}

// section allows what rules say and answers everything else with other.
func section(rules []Rule, other uint32) []unix.SockFilter {
	p := []unix.SockFilter{{Code: bpfLoad, K: dataNr}}
	for _, r := range rules {
		p = append(p, unix.SockFilter{Code: bpfJeq, K: r.Nr, Jf: uint8(1 + 3*len(r.Args))})
		for i, a := range r.Args {
			p = append(p, unix.SockFilter{Code: bpfLoad, K: dataArgs + 8*uint32(a.Index)},
				unix.SockFilter{Code: bpfAnd, K: a.Mask},
				unix.SockFilter{Code: bpfJeq, K: a.Value, Jf: uint8(3*(len(r.Args)-i-1) + 1)})
		}
		p = append(p, unix.SockFilter{Code: bpfRet, K: unix.SECCOMP_RET_ALLOW})
		if len(r.Args) > 0 {
			p = append(p, unix.SockFilter{Code: bpfLoad, K: dataNr}) // a failed argument's way to the next rule
		}
	}
	return append(p, unix.SockFilter{Code: bpfRet, K: other})
}
