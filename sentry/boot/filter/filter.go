// Package filter is the sentry's seccomp filter, as data: each host call that the sentry may make once it is locked in, what its
// arguments are held to, and why it is there. Any other call kills the sandbox. `moat surface` prints it.
//
// No call here opens a file, makes a socket (but with --network host), starts a program or makes memory executable. What the platforms need is listed by
// platform and allowed only to the one that runs.
package filter

import (
	"embed"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/bpf"
	"gvisor.dev/gvisor/pkg/seccomp"

	"moat/sentry/net/hostsock"
)

// Rule is one host call.
type Rule struct {
	Name string
	NR   uintptr
	Args seccomp.SyscallRule
	Why  string
}

type args = seccomp.PerArg

var (
	free = seccomp.AnyValue{}
	all  = seccomp.MatchAll{}
)

func eq(v uintptr) seccomp.ValueMatcher { return seccomp.EqualTo(v) }

// listenFD is boot.ListenFD.
const listenFD = 9

const (
	futexWait    = 0
	futexWake    = 1
	futexPrivate = 128
	prSetVMA     = 0x53564d41
	// mapDroppable is MAP_DROPPABLE: the runtime keeps state of getrandom(2) in the vDSO, more of it as threads come.
	mapDroppable = 0x08
	anon         = unix.MAP_PRIVATE | unix.MAP_ANON
	rw           = unix.PROT_READ | unix.PROT_WRITE
	threadFlags  = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_SYSVSEM | unix.CLONE_THREAD | unix.CLONE_SETTLS
)

// runtime is what the Go runtime calls by itself.
var runtime = []Rule{
	{"futex", unix.SYS_FUTEX, seccomp.Or{
		args{free, eq(futexWait | futexPrivate)},
		args{free, eq(futexWake | futexPrivate)},
		args{free, eq(futexWake)},
	}, "locks and sleeping threads"},
	{"nanosleep", unix.SYS_NANOSLEEP, all, "the runtime's monitor"},
	{"sched_yield", unix.SYS_SCHED_YIELD, all, "spinning"},
	{"mmap", unix.SYS_MMAP, seccomp.Or{
		args{free, free, eq(unix.PROT_NONE), eq(anon)},
		args{free, free, eq(unix.PROT_NONE), eq(anon | unix.MAP_FIXED)},
		args{free, free, eq(rw), eq(anon)},
		args{free, free, eq(rw), eq(anon | unix.MAP_FIXED)},
		args{eq(0), free, eq(rw), eq(mapDroppable | unix.MAP_ANONYMOUS)},
	}, "heap and stacks; never executable"},
	{"munmap", unix.SYS_MUNMAP, all, "heap"},
	{"madvise", unix.SYS_MADVISE, all, "heap"},
	{"prctl", unix.SYS_PRCTL, args{eq(prSetVMA)}, "names of the runtime's mappings"},
	{"clone", unix.SYS_CLONE, args{eq(threadFlags)}, "threads, never processes"},
	{"exit", unix.SYS_EXIT, all, "the end of a thread"},
	{"exit_group", unix.SYS_EXIT_GROUP, all, "the end"},
	{"rt_sigprocmask", unix.SYS_RT_SIGPROCMASK, all, "new threads"},
	{"sigaltstack", unix.SYS_SIGALTSTACK, all, "new threads"},
	{"rt_sigaction", unix.SYS_RT_SIGACTION, all, "dying of a signal"},
	{"rt_sigreturn", unix.SYS_RT_SIGRETURN, all, "preemption"},
	{"getpid", unix.SYS_GETPID, all, "preemption"},
	{"gettid", unix.SYS_GETTID, all, "new threads; CPU clocks of tasks"},
	// The sentry is the first process of its PID namespace, so it can only reach its own threads and its stubs.
	{"tgkill", unix.SYS_TGKILL, all, "preemption; interrupting stubs"},
	{"restart_syscall", unix.SYS_RESTART_SYSCALL, all, "the host kernel, after a stop"},
}

// kernel is what the sentry itself calls on every platform.
var kernel = []Rule{
	{"read", unix.SYS_READ, all, "the control socket; standard input"},
	{"write", unix.SYS_WRITE, all, "the control socket, the log, last words; standard output"},
	{"preadv2", unix.SYS_PREADV2, all, "host files: reading into guest pages"},
	{"pwritev2", unix.SYS_PWRITEV2, all, "host files: writing from guest pages"},
	{"lseek", unix.SYS_LSEEK, all, "the position of standard input and output; data and holes of host files"},
	{"ppoll", unix.SYS_PPOLL, all, "readiness of standard input and output"},
	{"epoll_pwait", unix.SYS_EPOLL_PWAIT, all, "waiting for standard input and output"},
	{"ioctl", unix.SYS_IOCTL, seccomp.Or{
		args{free, eq(unix.TCGETS)}, args{free, eq(unix.TIOCGWINSZ)}, args{free, eq(0x541b)},
		// Without these what is typed at a password prompt shows, where standard output is no terminal.
		args{free, eq(unix.TCSETS)}, args{free, eq(unix.TCFLSH), eq(unix.TCIFLUSH)},
	}, "asking a terminal (TCGETS, TIOCGWINSZ) or pipe (FIONREAD) that is standard input or output; a terminal's modes (TCSETS, TCFLSH)"},
	{"sendmsg", unix.SYS_SENDMSG, args{free, free, eq(unix.MSG_NOSIGNAL)}, "requests to the gofer"},
	{"recvmsg", unix.SYS_RECVMSG, args{free, free, eq(unix.MSG_CMSG_CLOEXEC)}, "the gofer's answers and donated descriptors"},
	{"close", unix.SYS_CLOSE, all, "donated descriptors"},
	{"accept4", unix.SYS_ACCEPT4, args{eq(listenFD), eq(0), eq(0), eq(unix.SOCK_CLOEXEC)}, "control connections of the command line, on the one listening socket"},
	// The standard input, output and error of processes that `moat exec` starts.
	{"fstat", unix.SYS_FSTAT, all, "what kind of file a process of exec gets; the attributes of host files"},
	{"fcntl", unix.SYS_FCNTL, args{free, eq(unix.F_GETFL)}, "how that file was opened"},
	{"epoll_ctl", unix.SYS_EPOLL_CTL, seccomp.Or{args{free, eq(unix.EPOLL_CTL_ADD)}, args{free, eq(unix.EPOLL_CTL_DEL)}}, "waiting for that file"},
	{"fallocate", unix.SYS_FALLOCATE, args{free, seccomp.BitsAllowlist(0x7b)}, "giving free memory back to the host; fallocate(2) of host files"},
	{"ftruncate", unix.SYS_FTRUNCATE, all, "the size of host files"},
	{"clock_gettime", unix.SYS_CLOCK_GETTIME, all, "CPU clocks of threads; the clock of files' times; other clocks where the host has no vDSO for them"},
	{"getrandom", unix.SYS_GETRANDOM, all, "random numbers"},
}

// Platforms are what each platform calls beyond that.
var Platforms = map[string][]Rule{}

// links is what a sandbox with interfaces of its own calls beyond that.
var links = []Rule{
	{"recvmmsg", unix.SYS_RECVMMSG, args{free, free, free, eq(unix.MSG_DONTWAIT), eq(0)}, "frames from a packet socket"},
	{"sendmmsg", unix.SYS_SENDMMSG, args{free, free, free, eq(unix.MSG_DONTWAIT)}, "frames to a packet socket, which is bound to its interface"},
}

// host is what a sandbox whose sockets are the host's calls beyond that (--network host).
func host() []Rule {
	const flags = unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC
	kinds, options := seccomp.Or{}, seccomp.Or{}
	for _, k := range [][3]uintptr{{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_TCP}, {unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_TCP},
		{unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDP}, {unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_UDP},
		{unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP}, {unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_ICMPV6}} {
		kinds = append(kinds, args{eq(k[0]), eq(k[1] | flags), eq(k[2])})
	}
	for _, level := range slices.Sorted(maps.Keys(hostsock.Options)) {
		for _, name := range hostsock.Options[level] {
			options = append(options, args{free, eq(uintptr(level)), eq(uintptr(name))})
		}
	}
	const why = "NETWORK HOST: the container's sockets are the host's"
	return []Rule{
		{"socket", unix.SYS_SOCKET, kinds, why + ": TCP, UDP and ICMP's datagrams"},
		{"bind", unix.SYS_BIND, all, why},
		{"connect", unix.SYS_CONNECT, all, why},
		{"listen", unix.SYS_LISTEN, all, why},
		{"accept4", unix.SYS_ACCEPT4, args{free, free, free, eq(flags)}, why},
		{"shutdown", unix.SYS_SHUTDOWN, all, why},
		{"getsockname", unix.SYS_GETSOCKNAME, all, why},
		{"getpeername", unix.SYS_GETPEERNAME, all, why},
		{"setsockopt", unix.SYS_SETSOCKOPT, options, why + "; options by name"},
		{"getsockopt", unix.SYS_GETSOCKOPT, options, why + "; options by name"},
		{"sendmsg", unix.SYS_SENDMSG, args{free, free, seccomp.BitsAllowlist(hostsock.SendFlags)}, why},
		{"recvmsg", unix.SYS_RECVMSG, args{free, free, seccomp.BitsAllowlist(hostsock.RecvFlags)}, why},
		{"ioctl", unix.SYS_IOCTL, args{free, eq(unix.TIOCOUTQ)}, why + ", and what is queued there"},
	}
}

// Rules is the filter of a sentry on the platform given, in order of the call's names. network is "sandbox" for interfaces of its own, "host" for sockets of
// the host, or another for neither.
func Rules(platform, network string) []Rule {
	byName := map[string]Rule{}
	sets := [][]Rule{runtime, kernel, Platforms[platform]}
	switch network {
	case "sandbox":
		sets = append(sets, links)
	case "host":
		sets = append(sets, host())
	}
	for _, set := range sets {
		for _, r := range set {
			if o, ok := byName[r.Name]; ok {
				r.Args = merge(o.Args, r.Args)
				r.Why = o.Why + "; " + r.Why
			}
			byName[r.Name] = r
		}
	}
	rules := slices.Collect(maps.Values(byName))
	slices.SortFunc(rules, func(a, b Rule) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return rules
}

func merge(a, b seccomp.SyscallRule) seccomp.SyscallRule {
	if _, ok := a.(seccomp.MatchAll); ok {
		return a
	}
	if _, ok := b.(seccomp.MatchAll); ok {
		return b
	}
	var or seccomp.Or
	for _, r := range []seccomp.SyscallRule{a, b} {
		if o, ok := r.(seccomp.Or); ok {
			or = append(or, o...)
		} else {
			or = append(or, r)
		}
	}
	return or
}

// built are the programs that Rules make, ahead of time: building one takes milliseconds. The tests hold them to the rules, and write them with -update.
//
//go:embed built
var built embed.FS

// Install puts every thread of the process, and those to come, under the platform's Rules.
func Install(platform, network string) error {
	if network != "sandbox" && network != "host" {
		network = "none"
	}
	b, err := built.ReadFile("built/" + platform + "-" + network)
	if err != nil {
		return err
	}
	instrs := make([]bpf.Instruction, len(b)/8)
	if _, err := binary.Decode(b, binary.LittleEndian, instrs); err != nil {
		return err
	}
	if err := seccomp.SetFilter(instrs); err != nil {
		return fmt.Errorf("install the seccomp filter: %w", err)
	}
	return nil
}
