// What conformance programs share: the canonical transcript. A line of standard output is a check, "what it did: what the kernel answered"; a line that
// begins with '#' is a heading and not counted. Nothing that may rightly vary (pids, times, inode numbers, addresses) is printed, only relations.
#ifndef CONF_H
#define CONF_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// Calls that are newer than the C library's headers.
#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif
#ifndef SYS_futex_wake
#define SYS_futex_wake 454
#endif
#ifndef SYS_futex_wait
#define SYS_futex_wait 455
#endif
#ifndef SYS_futex_requeue
#define SYS_futex_requeue 456
#endif
#ifndef SYS_statmount
#define SYS_statmount 457
#endif
#ifndef SYS_listmount
#define SYS_listmount 458
#endif
#ifndef SYS_mseal
#define SYS_mseal 462
#endif
#ifndef SYS_setxattrat
#define SYS_setxattrat 463
#endif
#ifndef SYS_getxattrat
#define SYS_getxattrat 464
#endif
#ifndef SYS_listxattrat
#define SYS_listxattrat 465
#endif
#ifndef SYS_removexattrat
#define SYS_removexattrat 466
#endif
#ifndef SYS_map_shadow_stack
#define SYS_map_shadow_stack 453
#endif
#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif

#define UNUSED __attribute__((unused))
#define BAD ((void *)8) // a pointer to nothing

static UNUSED void __attribute__((constructor)) conf_start(void) { setvbuf(stdout, 0, _IOLBF, 1 << 16); }

static UNUSED const char *conf_errno(int e) {
	const char *n = strerrorname_np(e);
	static char b[16];
	if (n)
		return n;
	snprintf(b, sizeof b, "errno %d", e);
	return b;
}

// P prints a line.
#define P(...) (printf(__VA_ARGS__), printf("\n"))
// H is a heading.
#define H(...) (printf("# " __VA_ARGS__), printf("\n"))
#define CONF_(name, x, good)                                                                                           \
	({                                                                                                                 \
		errno = 0;                                                                                                     \
		long r_ = (long)(x);                                                                                           \
		int e_ = errno;                                                                                                \
		if (r_ == -1 && e_)                                                                                            \
			P("%s: %s", name, conf_errno(e_));                                                                         \
		else                                                                                                           \
			good;                                                                                                      \
		(void)0;                                                                                                       \
	})
// R says whether a call succeeded, or its errno; V prints its value too; X in hexadecimal. The forms with N take a name of their own.
#define RN(name, x) CONF_(name, x, P("%s: ok", name))
#define VN(name, x) CONF_(name, x, P("%s: %ld", name, r_))
#define XN(name, x) CONF_(name, x, P("%s: %#lx", name, r_))
#define R(x) RN(#x, x)
#define V(x) VN(#x, x)
#define X(x) XN(#x, x)
// E is the value of a call, or its errno as a negative number.
#define E(x) ({ errno = 0; long r_ = (long)(x); r_ == -1 && errno ? -(long)errno : r_; })
// EN is the name of how a call ended.
#define EN(x) ({ errno = 0; long r_ = (long)(x); r_ == -1 && errno ? conf_errno(errno) : "ok"; })
// SC is a raw system call.
#define SC(nr, ...) syscall(SYS_##nr, ##__VA_ARGS__)

static UNUSED const char *conf_status(int st) {
	static char b[64];
	if (WIFEXITED(st))
		snprintf(b, sizeof b, "exit %d", WEXITSTATUS(st));
	else if (WIFSIGNALED(st))
		snprintf(b, sizeof b, "SIG%s%s", sigabbrev_np(WTERMSIG(st)) ?: "RT", WCOREDUMP(st) ? " core" : "");
	else if (WIFSTOPPED(st))
		snprintf(b, sizeof b, "stopped by SIG%s", sigabbrev_np(WSTOPSIG(st)) ?: "RT");
	else
		snprintf(b, sizeof b, "continued");
	return b;
}

static UNUSED long long now_ms(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

static UNUSED void sleep_ms(int ms) {
	struct timespec t = {ms / 1000, ms % 1000 * 1000000L};
	while (nanosleep(&t, &t) && errno == EINTR)
		;
}

// forked runs fn in a child and returns its wait status. One that takes longer than 10 s is killed.
static UNUSED int forked(void (*fn)(void)) {
	fflush(stdout);
	pid_t p = fork();
	if (!p) {
		fn();
		fflush(stdout);
		_exit(0);
	}
	int st = 0;
	for (long long end = now_ms() + 10000;;) {
		pid_t w = waitpid(p, &st, WNOHANG);
		if (w == p || (w < 0 && errno != EINTR))
			return st;
		if (now_ms() > end) {
			P("a child hangs: killed");
			kill(p, SIGKILL);
			waitpid(p, &st, 0);
			return st;
		}
		struct timespec t = {0, 300000};
		nanosleep(&t, 0);
	}
}

// sub runs a group of checks in a child, under a heading; how it ended is a check if it is not exit 0.
#define sub(fn) sub_(#fn, fn)
static UNUSED void sub_(const char *name, void (*fn)(void)) {
	H("%s", name);
	int st = forked(fn);
	if (st)
		P("%s ended: %s", name, conf_status(st));
}

// child forks; IN_CHILD { ... } END_CHILD runs a block in a child and prints nothing; the status is the value of wait_for.
#define CHILD(...)                                                                                                     \
	({                                                                                                                 \
		fflush(stdout);                                                                                                \
		pid_t p_ = fork();                                                                                             \
		if (!p_) {                                                                                                     \
			__VA_ARGS__;                                                                                               \
			fflush(stdout);                                                                                            \
			_exit(0);                                                                                                  \
		}                                                                                                              \
		p_;                                                                                                            \
	})
static UNUSED const char *wait_for(pid_t p) {
	int st;
	while (waitpid(p, &st, 0) < 0)
		if (errno != EINTR)
			return conf_errno(errno);
	return conf_status(st);
}

// border is n bytes that end at a page border; what follows cannot be touched.
static UNUSED void *border(size_t n) {
	char *p = mmap(0, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	mprotect(p + 8192, 4096, PROT_NONE);
	return p + 8192 - n;
}

// readonly is a page that can be read only.
static UNUSED void *readonly(void) { return mmap(0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }

// file makes a file with a text.
static UNUSED int file(const char *name, const char *text) {
	int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0644);
	if (fd >= 0 && text && write(fd, text, strlen(text)) < 0)
		perror(name);
	lseek(fd, 0, SEEK_SET);
	return fd;
}

// slurp is what a file holds, at most 4095 bytes.
static UNUSED const char *slurp(const char *name) {
	static char b[4][4096];
	static int i;
	char *s = b[i++ & 3];
	int fd = open(name, O_RDONLY), n = fd < 0 ? -1 : (int)read(fd, s, 4095);
	if (n < 0)
		snprintf(s, 4096, "(%s)", conf_errno(errno)), n = strlen(s);
	s[n] = 0;
	if (fd >= 0)
		close(fd);
	return s;
}

static volatile int conf_got, conf_sig;
static volatile siginfo_t conf_info;
static UNUSED void conf_handler(int s, siginfo_t *i, void *u) {
	conf_got++;
	conf_sig = s;
	conf_info = *i;
}

// catch counts a signal in conf_got.
static UNUSED void catch(int sig, int flags) {
	struct sigaction a = {.sa_sigaction = conf_handler, .sa_flags = flags | SA_SIGINFO};
	sigaction(sig, &a, 0);
}

// after sends this process a signal every ms milliseconds, 50 times at most, from a child: for calls that are to be interrupted.
static UNUSED pid_t after(int ms, int sig) {
	fflush(stdout);
	pid_t me = getpid(), p = fork();
	if (!p) {
		for (int i = 0; i < 50 && getppid() == me; i++)
			sleep_ms(ms), kill(me, sig);
		_exit(0);
	}
	return p;
}
static UNUSED void after_done(pid_t p) {
	kill(p, SIGKILL);
	waitpid(p, 0, 0);
}
#endif
