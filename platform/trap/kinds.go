package trap

import "golang.org/x/sys/unix"

// Kinds of system calls, by what the goroutine that answers one may do to those that wait.
const (
	// plain calls may take long.
	plain uint8 = iota
	// brief calls come to an end, or block by Park, within a few microseconds, but for an open or stat that has to ask the gofer: then other threads'
	// events wait for its answer, which costs less than to pass the role on for each of those that are cached.
	brief
	// waking calls are brief and may make other tasks ready.
	waking
)

var kinds = func() (k [512]uint8) {
	for _, nr := range [...]int{
		unix.SYS_READ, unix.SYS_PREAD64, unix.SYS_POLL, unix.SYS_PPOLL, unix.SYS_SELECT, unix.SYS_PSELECT6, unix.SYS_EPOLL_WAIT, unix.SYS_EPOLL_PWAIT,
		unix.SYS_LSEEK, unix.SYS_FSTAT, unix.SYS_FCNTL, unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_RT_SIGTIMEDWAIT,
		unix.SYS_GETPID, unix.SYS_GETTID, unix.SYS_GETPPID, unix.SYS_GETUID, unix.SYS_GETEUID, unix.SYS_GETGID, unix.SYS_GETEGID, unix.SYS_SCHED_YIELD,
		unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_GETTIMEOFDAY, unix.SYS_TIME, unix.SYS_GETCPU, unix.SYS_WAIT4,
		unix.SYS_EPOLL_CTL, unix.SYS_PAUSE, unix.SYS_RT_SIGSUSPEND, unix.SYS_STAT, unix.SYS_LSTAT, unix.SYS_NEWFSTATAT, unix.SYS_STATX, unix.SYS_ACCESS,
		unix.SYS_OPEN, unix.SYS_OPENAT, unix.SYS_BRK, unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MPROTECT,
		unix.SYS_SOCKET, unix.SYS_BIND, unix.SYS_ACCEPT, unix.SYS_ACCEPT4, unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME, unix.SYS_SETSOCKOPT, unix.SYS_GETSOCKOPT,
		unix.SYS_IOCTL, unix.SYS_READLINK, unix.SYS_READLINKAT, unix.SYS_FACCESSAT, unix.SYS_FACCESSAT2, unix.SYS_GETCWD, unix.SYS_MADVISE, unix.SYS_DUP,
		unix.SYS_PIPE2, unix.SYS_SIGALTSTACK, unix.SYS_UNAME, unix.SYS_SYSINFO, unix.SYS_GETRUSAGE, unix.SYS_PRLIMIT64, unix.SYS_GETRANDOM,
		unix.SYS_ARCH_PRCTL, unix.SYS_SET_TID_ADDRESS, unix.SYS_SET_ROBUST_LIST, unix.SYS_RSEQ, // what a program does as it starts
	} {
		k[nr] = brief
	}
	for _, nr := range [...]int{
		unix.SYS_READV, unix.SYS_WRITE, unix.SYS_PWRITE64, unix.SYS_WRITEV, unix.SYS_FUTEX, unix.SYS_SENDTO, unix.SYS_SENDMSG, unix.SYS_RECVFROM,
		unix.SYS_RECVMSG, unix.SYS_SENDMMSG, unix.SYS_RECVMMSG, unix.SYS_SENDFILE, unix.SYS_CONNECT, unix.SYS_SHUTDOWN, unix.SYS_CLOSE, unix.SYS_DUP2, unix.SYS_DUP3, unix.SYS_KILL, unix.SYS_TKILL, unix.SYS_TGKILL,
		unix.SYS_CLONE3, unix.SYS_EXIT, // threads that are made and joined
	} {
		k[nr] = waking
	}
	return k
}()
