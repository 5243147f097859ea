package fsgofer

import (
	"embed"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/bpf"
	"gvisor.dev/gvisor/pkg/seccomp"
)

// Rule is one host call that the gofer may make, with what its arguments are held to.
type Rule struct {
	Name string
	NR   uintptr
	Args seccomp.SyscallRule
	Why  string
}

// Answer is a call that the filter itself answers, with an errno or 0 for success: nothing of the host kernel is reached.
type Answer struct {
	Rule
	Errno unix.Errno
}

// Answers are the calls of the runtime that it can do without, as long as they do not kill it.
func Answers() []Answer {
	all := seccomp.MatchAll{}
	return []Answer{
		{Rule{"madvise", unix.SYS_MADVISE, all, "the runtime then gives memory back by mapping it anew"}, unix.ENOSYS},
		{Rule{"munmap", unix.SYS_MUNMAP, all, "reservations that turned out unfit, tables that were outgrown: less than is in use"}, 0},
		{Rule{"sched_yield", unix.SYS_SCHED_YIELD, all, "between spinning and sleeping"}, 0},
		{Rule{"restart_syscall", unix.SYS_RESTART_SYSCALL, all, "sleeps that a freezer or a debugger broke off: what sleeps looks again"}, unix.EINTR},
		{Rule{"write", unix.SYS_WRITE, args{free, free, eq(8)}, "to the runtime's event descriptor: a timer's thread is told of an earlier one; sysmon finds out, too"}, unix.EAGAIN},
		{Rule{"read", unix.SYS_READ, args{free, free, eq(8)}, "from it: there is nothing (see drain)"}, unix.EAGAIN},
	}
}

type args = seccomp.PerArg

var (
	free = seccomp.AnyValue{}
	// cwd is AT_FDCWD (-100): the working directory, /proc/self/fd. The C int is extended by Go's calls as a uintptr.
	cwd = seccomp.EqualTo(^uintptr(99))
)

func eq(v uintptr) seccomp.ValueMatcher { return seccomp.EqualTo(v) }

// Rules are the calls that the gofer makes once it serves; any other kills it, but for Answers. `moat surface` prints them. Without a writable mount
// those that change files are not among them, and on a host whose clock can be read without a call (see Options.SlowClock) nor is that: each of these has its own system call, so fewer they cannot be. What needs a descriptor that
// the sentry has (fallocate, ftruncate, SEEK_HOLE) is the sentry's to do. The runtime makes no thread any more and those that there are have come up (see
// makeThreads, settle), sends itself no signal and names no mapping (see Godebug), and handles none (see Serve): there is no rt_sigreturn to return into an
// attacker's frame.
// Paths cannot be seen by a filter: that names stay below their directory is openat2's doing, and the mount namespace's.
func Rules(writable, slowClock bool) []Rule {
	rules := []Rule{
		// Talking to the sentry.
		{"recvmsg", unix.SYS_RECVMSG, args{free, free, eq(unix.MSG_CMSG_CLOEXEC)}, "requests"},
		{"sendmsg", unix.SYS_SENDMSG, args{free, free, eq(unix.MSG_NOSIGNAL)}, "replies and donated descriptors"},
		{"close", unix.SYS_CLOSE, seccomp.MatchAll{}, "handles and donated descriptors"},
		// Finding files.
		{"openat2", unix.SYS_OPENAT2, args{free, free, free, eq(unix.SizeofOpenHow)}, "names below a directory; descriptors reopened for data"},
		{"statx", unix.SYS_STATX, args{free, free, free, eq(statMask)}, "attributes"},
		{"readlinkat", unix.SYS_READLINKAT, seccomp.MatchAll{}, "targets of symlinks"},
		{"getdents64", unix.SYS_GETDENTS64, seccomp.MatchAll{}, "directories"},
		{"lseek", unix.SYS_LSEEK, args{free, free, eq(unix.SEEK_SET)}, "going on in a directory"},
		{"fstatfs", unix.SYS_FSTATFS, seccomp.MatchAll{}, "statfs"},
		{"getxattr", unix.SYS_GETXATTR, seccomp.MatchAll{}, "user.*, security.capability"},
		{"listxattr", unix.SYS_LISTXATTR, seccomp.MatchAll{}, "user.*, security.capability"},
		// The Go runtime.
		{"futex", unix.SYS_FUTEX, seccomp.Or{
			args{free, eq(futexWait | futexPrivate)},
			args{free, eq(futexWake | futexPrivate)},
			// Panic paths of the runtime wake without the private flag.
			args{free, eq(futexWake)},
		}, "runtime: locks, sleeping threads"},
		{"nanosleep", unix.SYS_NANOSLEEP, seccomp.MatchAll{}, "runtime: sysmon"},
		{"mmap", unix.SYS_MMAP, seccomp.Or{
			args{free, free, eq(unix.PROT_NONE), eq(anon)},
			args{free, free, eq(unix.PROT_NONE), eq(anon | unix.MAP_FIXED)},
			args{free, free, eq(unix.PROT_READ | unix.PROT_WRITE), eq(anon)},
			args{free, free, eq(unix.PROT_READ | unix.PROT_WRITE), eq(anon | unix.MAP_FIXED)},
		}, "runtime: heap and stacks, taken and given back; never executable"},
		{"epoll_pwait", unix.SYS_EPOLL_PWAIT, seccomp.MatchAll{}, "runtime: timers (of its scavenger)"},
		{"write", unix.SYS_WRITE, args{eq(2)}, "last words on stderr"},
		{"exit_group", unix.SYS_EXIT_GROUP, seccomp.MatchAll{}, "the end"},
	}
	if slowClock {
		rules = append(rules, Rule{"clock_gettime", unix.SYS_CLOCK_GETTIME, seccomp.MatchAll{}, "runtime: clocks that the vDSO asks the kernel for"})
	}
	if !writable {
		return rules
	}
	return append(rules, []Rule{
		{"mkdirat", unix.SYS_MKDIRAT, seccomp.MatchAll{}, "mkdir"},
		{"mknodat", unix.SYS_MKNODAT, seccomp.MatchAll{}, "mknod"},
		{"symlinkat", unix.SYS_SYMLINKAT, seccomp.MatchAll{}, "symlink"},
		{"linkat", unix.SYS_LINKAT, args{cwd, free, free, free, eq(unix.AT_SYMLINK_FOLLOW)}, "link, by /proc/self/fd"},
		{"renameat2", unix.SYS_RENAMEAT2, args{free, free, free, free, seccomp.BitsAllowlist(7)}, "rename"},
		{"unlinkat", unix.SYS_UNLINKAT, args{free, free, seccomp.BitsAllowlist(unix.AT_REMOVEDIR)}, "unlink, rmdir"},
		{"fchownat", unix.SYS_FCHOWNAT, args{free, free, free, free, eq(unix.AT_EMPTY_PATH | unix.AT_SYMLINK_NOFOLLOW)}, "owner"},
		{"fchmodat", unix.SYS_FCHMODAT, args{cwd}, "mode, by /proc/self/fd"},
		{"utimensat", unix.SYS_UTIMENSAT, args{free, free, free, eq(unix.AT_EMPTY_PATH | unix.AT_SYMLINK_NOFOLLOW)}, "times"},
		{"setxattr", unix.SYS_SETXATTR, seccomp.MatchAll{}, "user.*"},
		{"removexattr", unix.SYS_REMOVEXATTR, seccomp.MatchAll{}, "user.*"},
		{"fsync", unix.SYS_FSYNC, seccomp.MatchAll{}, "fsync"},
		{"syncfs", unix.SYS_SYNCFS, seccomp.MatchAll{}, "syncfs"},
	}...)
}

// FUTEX_WAIT, FUTEX_WAKE, FUTEX_PRIVATE_FLAG; what the runtime's mappings are.
const (
	futexWait    = 0
	futexWake    = 1
	futexPrivate = 128
	anon         = unix.MAP_PRIVATE | unix.MAP_ANON
)

// built are the programs that Rules and Answers make, ahead of time: building one takes milliseconds. The tests hold them to the rules, and write
// them with -update.
//
//go:embed built
var built embed.FS

// program is the one that puts a process under Rules.
func program(writable, slowClock bool) ([]bpf.Instruction, error) {
	b, err := built.ReadFile(fmt.Sprintf("built/writable=%v,slow=%v", writable, slowClock))
	if err != nil {
		return nil, err
	}
	p := make([]bpf.Instruction, len(b)/8)
	_, err = binary.Decode(b, binary.LittleEndian, p)
	return p, err
}
