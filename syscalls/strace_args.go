package syscalls

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/sentry/kernel"
)

// A row's Sig names the kind of each argument, one word each, with an optional ":name" that is for the reader. Kinds of numbers: fd dirfd int uint hex size off
// pid id signal mode ptr, and those of names. Kinds of memory: path str argv envp data buf iovec stat timespec sigset sigaction rlimit sockaddr clone_args
// fds wstatus. Kinds of flags: see flagSets. What the call fills in has a '>' before it. Anything else prints as hex.

// isOutput reports whether the call fills an argument in: it prints when the call returns.
func isOutput(kind string) bool {
	return kind[0] == '>' || kind == "buf" || kind == "stat" || kind == "siginfo"
}

// names are kinds of numbers that count from 0.
var names = map[string][]string{
	"whence": {"SEEK_SET", "SEEK_CUR", "SEEK_END", "SEEK_DATA", "SEEK_HOLE"}, "sighow": {"SIG_BLOCK", "SIG_UNBLOCK", "SIG_SETMASK"},
	"rlimitres": {"RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_DATA", "RLIMIT_STACK", "RLIMIT_CORE", "RLIMIT_RSS", "RLIMIT_NPROC",
		"RLIMIT_NOFILE", "RLIMIT_MEMLOCK", "RLIMIT_AS", "RLIMIT_LOCKS", "RLIMIT_SIGPENDING", "RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_RTPRIO", "RLIMIT_RTTIME"},
	"family": {"AF_UNSPEC", "AF_UNIX", "AF_INET", 10: "AF_INET6", 16: "AF_NETLINK", 17: "AF_PACKET"}, "epollop": {1: "EPOLL_CTL_ADD", 2: "EPOLL_CTL_DEL", 3: "EPOLL_CTL_MOD"},
	"clock": {"CLOCK_REALTIME", "CLOCK_MONOTONIC", "CLOCK_PROCESS_CPUTIME_ID", "CLOCK_THREAD_CPUTIME_ID", 7: "CLOCK_BOOTTIME"},
}

// kinds takes a signature apart.
func kinds(sig string) []string {
	words := strings.Fields(sig)
	for i, w := range words {
		words[i], _, _ = strings.Cut(w, ":")
	}
	return words[:min(len(words), 6)]
}

const maxPrint = 32 // bytes of a string, as strace's -s

// appendArg prints argument i. ret is what the call returned, or ^0 if it failed; it bounds what a filled-in buffer holds.
func appendArg(b []byte, t *kernel.Task, sig []string, i int, a kernel.Args, ret uintptr) []byte {
	if i > 0 {
		b = append(b, ", "...)
	}
	v := a[i]
	switch sig[i] {
	case "fd", "int", "pid", "id":
		return strconv.AppendInt(b, int64(v.Int()), 10)
	case "dirfd":
		if v.Int() == unix.AT_FDCWD {
			return append(b, "AT_FDCWD"...)
		}
		return strconv.AppendInt(b, int64(v.Int()), 10)
	case "uint":
		return strconv.AppendUint(b, uint64(v.Uint()), 10)
	case "size":
		return strconv.AppendUint(b, v.Uint64(), 10)
	case "off":
		return strconv.AppendInt(b, v.Int64(), 10)
	case "mode":
		return append(append(b, '0'), strconv.FormatUint(uint64(v.Uint()&07777), 8)...)
	case "signal":
		return append(b, signalName(v.Int())...)
	}
	if ns := names[sig[i]]; ns != nil {
		return appendName(b, v.Int(), ns...)
	}
	if fs := flagSets[sig[i]]; fs != nil {
		return appendFlags(b, v.Uint64(), fs)
	}
	if p := v.Pointer(); p != 0 && ret != ^uintptr(0) {
		if dec := memoryKinds[strings.TrimPrefix(sig[i], ">")]; dec != nil {
			if out, ok := dec(b, t, p, i, a, ret); ok {
				return out
			}
		}
	}
	if v == 0 && sig[i] != "hex" {
		return append(b, "NULL"...)
	}
	return appendHex(b, v.Uint64())
}

func appendHex(b []byte, v uint64) []byte { return strconv.AppendUint(append(b, "0x"...), v, 16) }

func appendName(b []byte, v int32, names ...string) []byte {
	if v >= 0 && int(v) < len(names) && names[v] != "" {
		return append(b, names[v]...)
	}
	return strconv.AppendInt(b, int64(v), 10)
}

func signalName(n int32) string {
	if n >= 32 && n <= 64 {
		return "SIGRT_" + strconv.Itoa(int(n-32))
	}
	if s := unix.SignalName(unix.Signal(n)); s != "" {
		return s
	}
	return strconv.Itoa(int(n))
}

type flagName struct {
	bit  uint64
	name string
}

// flagSets are kinds of flag words. The first entries with bit 0 name the absence of others.
var flagSets = map[string][]flagName{
	"oflags": {{unix.O_WRONLY, "O_WRONLY"}, {unix.O_RDWR, "O_RDWR"}, {0, "O_RDONLY"}, {unix.O_CREAT, "O_CREAT"}, {unix.O_EXCL, "O_EXCL"},
		{unix.O_NOCTTY, "O_NOCTTY"}, {unix.O_TRUNC, "O_TRUNC"}, {unix.O_APPEND, "O_APPEND"}, {unix.O_NONBLOCK, "O_NONBLOCK"},
		{unix.O_SYNC, "O_SYNC"}, {unix.O_DSYNC, "O_DSYNC"}, {unix.O_DIRECT, "O_DIRECT"}, {unix.O_LARGEFILE | 0x8000, "O_LARGEFILE"},
		{unix.O_TMPFILE, "O_TMPFILE"}, {unix.O_DIRECTORY, "O_DIRECTORY"}, {unix.O_NOFOLLOW, "O_NOFOLLOW"}, {unix.O_NOATIME, "O_NOATIME"},
		{unix.O_CLOEXEC, "O_CLOEXEC"}, {unix.O_PATH, "O_PATH"}},
	"atflags": {{unix.AT_SYMLINK_NOFOLLOW, "AT_SYMLINK_NOFOLLOW"}, {unix.AT_REMOVEDIR, "AT_REMOVEDIR"}, {unix.AT_SYMLINK_FOLLOW, "AT_SYMLINK_FOLLOW"},
		{unix.AT_NO_AUTOMOUNT, "AT_NO_AUTOMOUNT"}, {unix.AT_EMPTY_PATH, "AT_EMPTY_PATH"}},
	"prot": {{0, "PROT_NONE"}, {1, "PROT_READ"}, {2, "PROT_WRITE"}, {4, "PROT_EXEC"}, {unix.PROT_GROWSDOWN, "PROT_GROWSDOWN"}},
	"mmapflags": {{unix.MAP_SHARED_VALIDATE, "MAP_SHARED_VALIDATE"}, {unix.MAP_SHARED, "MAP_SHARED"}, {unix.MAP_PRIVATE, "MAP_PRIVATE"}, {unix.MAP_FIXED, "MAP_FIXED"},
		{unix.MAP_ANONYMOUS, "MAP_ANONYMOUS"}, {unix.MAP_GROWSDOWN, "MAP_GROWSDOWN"}, {unix.MAP_DENYWRITE, "MAP_DENYWRITE"}, {unix.MAP_LOCKED, "MAP_LOCKED"},
		{unix.MAP_NORESERVE, "MAP_NORESERVE"}, {unix.MAP_POPULATE, "MAP_POPULATE"}, {unix.MAP_NONBLOCK, "MAP_NONBLOCK"}, {unix.MAP_STACK, "MAP_STACK"},
		{unix.MAP_HUGETLB, "MAP_HUGETLB"}, {unix.MAP_FIXED_NOREPLACE, "MAP_FIXED_NOREPLACE"}, {unix.MAP_32BIT, "MAP_32BIT"}},
	"cloneflags": {{linux.CLONE_VM, "CLONE_VM"}, {linux.CLONE_FS, "CLONE_FS"}, {linux.CLONE_FILES, "CLONE_FILES"}, {linux.CLONE_SIGHAND, "CLONE_SIGHAND"},
		{linux.CLONE_PIDFD, "CLONE_PIDFD"}, {linux.CLONE_VFORK, "CLONE_VFORK"}, {linux.CLONE_PARENT, "CLONE_PARENT"}, {linux.CLONE_THREAD, "CLONE_THREAD"},
		{linux.CLONE_NEWNS, "CLONE_NEWNS"}, {linux.CLONE_SYSVSEM, "CLONE_SYSVSEM"}, {linux.CLONE_SETTLS, "CLONE_SETTLS"},
		{linux.CLONE_PARENT_SETTID, "CLONE_PARENT_SETTID"}, {linux.CLONE_CHILD_CLEARTID, "CLONE_CHILD_CLEARTID"}, {linux.CLONE_CHILD_SETTID, "CLONE_CHILD_SETTID"},
		{linux.CLONE_NEWCGROUP, "CLONE_NEWCGROUP"}, {linux.CLONE_NEWUTS, "CLONE_NEWUTS"}, {linux.CLONE_NEWIPC, "CLONE_NEWIPC"},
		{linux.CLONE_NEWUSER, "CLONE_NEWUSER"}, {linux.CLONE_NEWPID, "CLONE_NEWPID"}, {linux.CLONE_NEWNET, "CLONE_NEWNET"},
		{linux.CLONE_CLEAR_SIGHAND, "CLONE_CLEAR_SIGHAND"}},
	"waitflags": {{unix.WNOHANG, "WNOHANG"}, {unix.WUNTRACED, "WUNTRACED"}, {unix.WEXITED, "WEXITED"}, {unix.WCONTINUED, "WCONTINUED"}, {unix.WNOWAIT, "WNOWAIT"},
		{linux.WALL, "__WALL"}, {linux.WCLONE, "__WCLONE"}, {linux.WNOTHREAD, "__WNOTHREAD"}},
	"pollevents": {{unix.POLLIN, "POLLIN"}, {unix.POLLPRI, "POLLPRI"}, {unix.POLLOUT, "POLLOUT"}, {unix.POLLERR, "POLLERR"}, {unix.POLLHUP, "POLLHUP"},
		{unix.POLLNVAL, "POLLNVAL"}, {unix.POLLRDHUP, "POLLRDHUP"}},
	"socktype": {{unix.SOCK_CLOEXEC, "SOCK_CLOEXEC"}, {unix.SOCK_NONBLOCK, "SOCK_NONBLOCK"}, {unix.SOCK_SEQPACKET, "SOCK_SEQPACKET"}, {unix.SOCK_RAW, "SOCK_RAW"},
		{unix.SOCK_DGRAM, "SOCK_DGRAM"}, {unix.SOCK_STREAM, "SOCK_STREAM"}},
	"msgflags": {{unix.MSG_OOB, "MSG_OOB"}, {unix.MSG_PEEK, "MSG_PEEK"}, {unix.MSG_DONTWAIT, "MSG_DONTWAIT"}, {unix.MSG_WAITALL, "MSG_WAITALL"},
		{unix.MSG_NOSIGNAL, "MSG_NOSIGNAL"}, {unix.MSG_TRUNC, "MSG_TRUNC"}, {unix.MSG_CMSG_CLOEXEC, "MSG_CMSG_CLOEXEC"}},
}

func appendFlags(b []byte, v uint64, set []flagName) []byte {
	if v == 0 {
		for _, f := range set {
			if f.bit == 0 {
				return append(b, f.name...)
			}
		}
		return append(b, '0')
	}
	n, left := len(b), v
	for _, f := range set {
		if f.bit != 0 && left&f.bit == f.bit {
			left &^= f.bit
			b = append(append(b, f.name...), '|')
		} else if f.bit == 0 && v&3 == 0 && len(b) == n && f.name == "O_RDONLY" {
			b = append(append(b, f.name...), '|')
		}
	}
	if left != 0 || len(b) == n {
		return appendHex(b, left)
	}
	return b[:len(b)-1]
}

// memoryKinds print what an argument points to; false: it cannot be read.
var memoryKinds map[string]func(b []byte, t *kernel.Task, p hostarch.Addr, i int, a kernel.Args, ret uintptr) ([]byte, bool)

func init() {
	type fn = func(b []byte, t *kernel.Task, p hostarch.Addr, i int, a kernel.Args, ret uintptr) ([]byte, bool)
	str := func(b []byte, t *kernel.Task, p hostarch.Addr, _ int, _ kernel.Args, _ uintptr) ([]byte, bool) {
		s, err := t.CopyInString(p, 4096)
		return strconv.AppendQuote(b, s), err == nil
	}
	words := func(n int, f func(b []byte, w []byte) []byte) fn {
		return func(b []byte, t *kernel.Task, p hostarch.Addr, _ int, _ kernel.Args, _ uintptr) ([]byte, bool) {
			w := make([]byte, n)
			if _, err := t.CopyIn(p, w); err != nil {
				return b, false
			}
			return f(b, w), true
		}
	}
	memoryKinds = map[string]fn{
		"path": str, "str": str, "argv": straceStrings, "envp": straceEnv, "iovec": straceIovec, "sockaddr": straceSockaddr,
		"data": func(b []byte, t *kernel.Task, p hostarch.Addr, i int, a kernel.Args, _ uintptr) ([]byte, bool) {
			return straceBytes(b, t, p, a[min(i+1, 5)].Uint64())
		},
		"buf": func(b []byte, t *kernel.Task, p hostarch.Addr, _ int, _ kernel.Args, ret uintptr) ([]byte, bool) {
			return straceBytes(b, t, p, uint64(ret))
		},
		"timespec": words(16, straceTimespec),
		"stat":     words(144, straceStat),
		"rlimit": words(16, func(b, w []byte) []byte {
			b = append(b, "{rlim_cur="...)
			b = straceLimit(b, binary.LittleEndian.Uint64(w))
			b = straceLimit(append(b, ", rlim_max="...), binary.LittleEndian.Uint64(w[8:]))
			return append(b, '}')
		}),
		"sigset": words(8, func(b, w []byte) []byte { return straceSigset(b, binary.LittleEndian.Uint64(w)) }),
		"sigaction": words(32, func(b, w []byte) []byte {
			le := binary.LittleEndian
			b = append(b, "{sa_handler="...)
			switch h := le.Uint64(w); h {
			case 0:
				b = append(b, "SIG_DFL"...)
			case 1:
				b = append(b, "SIG_IGN"...)
			default:
				b = appendHex(b, h)
			}
			b = straceSigset(append(b, ", sa_mask="...), le.Uint64(w[24:]))
			return append(appendHex(append(b, ", sa_flags="...), le.Uint64(w[8:])), '}')
		}),
		"fds": words(8, func(b, w []byte) []byte {
			return fmt.Appendf(b, "[%d, %d]", int32(binary.LittleEndian.Uint32(w)), int32(binary.LittleEndian.Uint32(w[4:])))
		}),
		"wstatus": words(4, func(b, w []byte) []byte {
			switch s := unix.WaitStatus(binary.LittleEndian.Uint32(w)); {
			case s.Exited():
				return fmt.Appendf(b, "[exited %d]", s.ExitStatus())
			case s.Signaled():
				return fmt.Appendf(b, "[killed by %s]", signalName(int32(s.Signal())))
			case s.Stopped():
				return fmt.Appendf(b, "[stopped by %s]", signalName(int32(s.StopSignal())))
			}
			return append(b, "[continued]"...)
		}),
		"clone_args": words(64, func(b, w []byte) []byte {
			le := binary.LittleEndian
			b = appendFlags(append(b, "{flags="...), le.Uint64(w), flagSets["cloneflags"])
			b = append(append(b, ", exit_signal="...), signalName(int32(le.Uint64(w[32:])))...)
			b = appendHex(append(b, ", stack="...), le.Uint64(w[40:]))
			return append(appendHex(append(b, ", stack_size="...), le.Uint64(w[48:])), '}')
		}),
	}
}

func straceBytes(b []byte, t *kernel.Task, p hostarch.Addr, n uint64) ([]byte, bool) {
	buf := make([]byte, min(n, maxPrint))
	c, err := t.CopyIn(p, buf)
	if err != nil && c == 0 && n > 0 {
		return b, false
	}
	b = strconv.AppendQuoteToASCII(b, string(buf[:c]))
	if n > uint64(c) {
		b = append(b, "..."...)
	}
	return b, true
}

func straceStrings(b []byte, t *kernel.Task, p hostarch.Addr, _ int, _ kernel.Args, _ uintptr) ([]byte, bool) {
	b = append(b, '[')
	for i := range hostarch.Addr(32) {
		v, err := t.CopyInUint64(p + 8*i)
		if err != nil {
			return b, false
		}
		if v == 0 {
			return append(b, ']'), true
		}
		if i > 0 {
			b = append(b, ", "...)
		}
		s, _ := t.CopyInString(hostarch.Addr(v), 1024)
		b = strconv.AppendQuote(b, s)
	}
	return append(b, ", ...]"...), true
}

func straceEnv(b []byte, t *kernel.Task, p hostarch.Addr, _ int, _ kernel.Args, _ uintptr) ([]byte, bool) {
	for n := range hostarch.Addr(4096) {
		v, err := t.CopyInUint64(p + 8*n)
		if err != nil {
			return b, false
		}
		if v == 0 {
			b = appendHex(b, uint64(p))
			return append(append(append(b, " /* "...), strconv.Itoa(int(n))...), " vars */"...), true
		}
	}
	return b, false
}

func straceIovec(b []byte, t *kernel.Task, p hostarch.Addr, i int, a kernel.Args, _ uintptr) ([]byte, bool) {
	n := a[min(i+1, 5)].Uint64()
	b = append(b, '[')
	var w [16]byte
	for j := range min(n, 4) {
		if _, err := t.CopyIn(p+hostarch.Addr(16*j), w[:]); err != nil {
			return b, false
		}
		if j > 0 {
			b = append(b, ", "...)
		}
		base, l := binary.LittleEndian.Uint64(w[:]), binary.LittleEndian.Uint64(w[8:])
		b = append(b, "{iov_base="...)
		var ok bool
		if b, ok = straceBytes(b, t, hostarch.Addr(base), l); !ok {
			b = appendHex(b, base)
		}
		b = append(append(append(b, ", iov_len="...), strconv.FormatUint(l, 10)...), '}')
	}
	if n > 4 {
		b = append(b, ", ..."...)
	}
	return append(b, ']'), true
}

func straceSockaddr(b []byte, t *kernel.Task, p hostarch.Addr, i int, a kernel.Args, _ uintptr) ([]byte, bool) {
	n := min(a[min(i+1, 5)].Uint64(), 128)
	w := make([]byte, max(n, 2))
	if _, err := t.CopyIn(p, w[:n]); err != nil {
		return b, false
	}
	switch f := binary.LittleEndian.Uint16(w); {
	case f == unix.AF_UNIX:
		b = strconv.AppendQuote(append(b, "{sa_family=AF_UNIX, sun_path="...), strings.TrimRight(string(w[2:]), "\x00"))
	case f == unix.AF_INET && n >= 8:
		ap := netip.AddrPortFrom(netip.AddrFrom4([4]byte(w[4:8])), binary.BigEndian.Uint16(w[2:]))
		b = append(append(b, "{sa_family=AF_INET, "...), ap.String()...)
	case f == unix.AF_INET6 && n >= 24:
		ap := netip.AddrPortFrom(netip.AddrFrom16([16]byte(w[8:24])), binary.BigEndian.Uint16(w[2:]))
		b = append(append(b, "{sa_family=AF_INET6, "...), ap.String()...)
	default:
		b = append(strconv.AppendUint(append(b, "{sa_family="...), uint64(f), 10), ", ..."...)
	}
	return append(b, '}'), true
}

func straceTimespec(b, w []byte) []byte {
	le := binary.LittleEndian
	b = strconv.AppendInt(append(b, "{tv_sec="...), int64(le.Uint64(w)), 10)
	return append(strconv.AppendInt(append(b, ", tv_nsec="...), int64(le.Uint64(w[8:])), 10), '}')
}

func straceStat(b, w []byte) []byte {
	le := binary.LittleEndian
	mode := le.Uint32(w[24:])
	b = append(b, "{st_mode="...)
	b = append(b, map[uint32]string{unix.S_IFREG: "S_IFREG", unix.S_IFDIR: "S_IFDIR", unix.S_IFLNK: "S_IFLNK", unix.S_IFCHR: "S_IFCHR",
		unix.S_IFBLK: "S_IFBLK", unix.S_IFIFO: "S_IFIFO", unix.S_IFSOCK: "S_IFSOCK"}[mode&unix.S_IFMT]...)
	b = strconv.AppendUint(append(b, "|0"...), uint64(mode&07777), 8)
	b = strconv.AppendInt(append(b, ", st_size="...), int64(le.Uint64(w[48:])), 10)
	return append(b, ", ...}"...)
}

func straceLimit(b []byte, v uint64) []byte {
	if v == linux.RLimInfinity {
		return append(b, "RLIM64_INFINITY"...)
	}
	return strconv.AppendUint(b, v, 10)
}

func straceSigset(b []byte, v uint64) []byte {
	if v == ^uint64(0) {
		return append(b, "~[]"...)
	}
	b = append(b, '[')
	first := true
	for n := int32(1); n <= 64; n++ {
		if v>>(n-1)&1 != 0 {
			if !first {
				b = append(b, ' ')
			}
			first = false
			b = append(b, strings.TrimPrefix(signalName(n), "SIG")...)
		}
	}
	return append(b, ']')
}
