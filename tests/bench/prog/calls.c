/* calls measures what single system calls and hand-overs cost, in nanoseconds a call.
 *
 * usage: calls DIR SHARED [NAME...] | calls --list
 * DIR is a writable directory for the file cases, SHARED one that is shared with the host (a bind mount). Prints "NAME NS" a line. Each case runs for about 100 ms after a
 * warm-up, five times, and the least is printed: noise only ever adds.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *dir, *shared;
static char buf[4096];

static void die(const char *what)
{
	fprintf(stderr, "calls: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

static const char *path(const char *name)
{
	static char p[512];
	snprintf(p, sizeof p, "%s/%s", dir, name);
	return p;
}

static int openat_dir(const char *name, int flags)
{
	int fd = open(path(name), flags, 0644);
	if (fd < 0)
		die(name);
	return fd;
}

/* A case does its operation n times. */
static void c_getpid(long n) { while (n--) syscall(SYS_getpid); }
static void c_getppid(long n) { while (n--) syscall(SYS_getppid); }
static void c_gettid(long n) { while (n--) syscall(SYS_gettid); }
static void c_getuid(long n) { while (n--) getuid(); }
static void c_getcpu(long n) { while (n--) syscall(SYS_getcpu, 0, 0, 0); }
static void c_gettime_nr(long n) { struct timespec t; while (n--) syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &t); }
static void c_mask(long n) { sigset_t s; sigemptyset(&s); sigaddset(&s, SIGUSR2); while (n--) sigprocmask(n & 1 ? SIG_BLOCK : SIG_UNBLOCK, &s, 0); }
static void c_gettime(long n) { struct timespec t; while (n--) clock_gettime(CLOCK_MONOTONIC, &t); }
static void c_yield(long n) { while (n--) sched_yield(); }

static void rw(const char *file, int flags, size_t size, int wr, long n)
{
	int fd = file[0] == '/' ? open(file, flags) : openat_dir(file, flags | O_CREAT);
	if (fd < 0)
		die(file);
	if (!wr && file[0] != '/' && pwrite(fd, buf, sizeof buf, 0) != sizeof buf)
		die("fill");
	while (n--)
		if ((wr ? pwrite(fd, buf, size, 0) : pread(fd, buf, size, 0)) < 0 && errno != ESPIPE)
			die(file);
	close(fd);
}
static void c_zero1(long n) { rw("/dev/zero", O_RDWR, 1, 0, n); }
static void c_zero4k(long n) { rw("/dev/zero", O_RDWR, 4096, 0, n); }
static void c_null1(long n) { rw("/dev/null", O_RDWR, 1, 1, n); }
static void c_fread1(long n) { rw("f", O_RDWR, 1, 0, n); }
static void c_fread4k(long n) { rw("f", O_RDWR, 4096, 0, n); }
static void c_fwrite1(long n) { rw("f", O_RDWR, 1, 1, n); }
static void c_fwrite4k(long n) { rw("f", O_RDWR, 4096, 1, n); }

static const char *in_shared(const char *name)
{
	static char p[512];
	snprintf(p, sizeof p, "%s/%s", shared, name);
	int fd = open(p, O_RDWR | O_CREAT, 0644);
	if (fd < 0 || write(fd, buf, sizeof buf) != sizeof buf)
		die(p);
	close(fd);
	return p;
}
static void c_sread1(long n) { rw(in_shared("f"), O_RDWR, 1, 0, n); }
static void c_sread4k(long n) { rw(in_shared("f"), O_RDWR, 4096, 0, n); }
static void c_swrite1(long n) { rw(in_shared("f"), O_RDWR, 1, 1, n); }
static void c_swrite4k(long n) { rw(in_shared("f"), O_RDWR, 4096, 1, n); }
static void c_null4k(long n) { rw("/dev/null", O_RDWR, 4096, 1, n); }

static void pipe_self(size_t size, long n)
{
	int p[2];
	if (pipe(p))
		die("pipe");
	while (n--)
		if (write(p[1], buf, size) != (ssize_t)size || read(p[0], buf, size) != (ssize_t)size)
			die("pipe rw");
	close(p[0]);
	close(p[1]);
}
static void c_pipe_self(long n) { pipe_self(1, n); }
static void c_pipe_self4k(long n) { pipe_self(4096, n); }

static void c_stat(long n) { struct stat s; const char *p = path("f"); close(openat_dir("f", O_CREAT | O_RDWR)); while (n--) if (stat(p, &s)) die("stat"); }
static void c_stat_usr(long n) { struct stat s; while (n--) if (stat("/usr/bin/env", &s)) die("stat"); }
static void c_stat_shared(long n) { struct stat s; const char *p = in_shared("f"); while (n--) if (stat(p, &s)) die("stat"); }
static void c_open_shared(long n) { const char *p = in_shared("f"); while (n--) { int fd = open(p, O_RDONLY); if (fd < 0) die("open"); close(fd); } }
static void c_open(long n) { const char *p = path("f"); close(openat_dir("f", O_CREAT | O_RDWR)); while (n--) { int fd = open(p, O_RDONLY); if (fd < 0) die("open"); close(fd); } }
static void c_open_usr(long n) { while (n--) { int fd = open("/usr/bin/env", O_RDONLY); if (fd < 0) die("open"); close(fd); } }

static void c_readdir(long n)
{
	static int made;
	if (!made) {
		mkdir(path("d"), 0755);
		for (int i = 0; i < 1000; i++) {
			char nm[32];
			snprintf(nm, sizeof nm, "d/%d", i);
			close(openat_dir(nm, O_CREAT | O_RDWR));
		}
		made = 1;
	}
	while (n--) {
		DIR *d = opendir(path("d"));
		int c = 0;
		while (readdir(d))
			c++;
		closedir(d);
		if (c != 1002)
			die("readdir count");
	}
}

static void c_mmap(long n)
{
	while (n--) {
		void *p = mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (p == MAP_FAILED || munmap(p, 65536))
			die("mmap");
	}
}
static void c_fault(long n)
{
	while (n > 0) {
		long pages = n < 4096 ? n : 4096;
		char *p = mmap(0, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (p == MAP_FAILED)
			die("mmap");
		for (long i = 0; i < pages; i++)
			p[i * 4096] = 1;
		munmap(p, pages * 4096);
		n -= pages;
	}
}
static void c_mprotect(long n)
{
	char *p = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	*p = 1;
	while (n--)
		if (mprotect(p, 4096, n & 1 ? PROT_READ : PROT_READ | PROT_WRITE))
			die("mprotect");
	munmap(p, 4096);
}
static void c_fork(long n)
{
	while (n--) {
		pid_t p = fork();
		if (p < 0)
			die("fork");
		if (!p)
			_exit(0);
		waitpid(p, 0, 0);
	}
}
static void c_vforkexec(long n)
{
	extern char **environ;
	char *argv[] = {"/proc/self/exe", "--nop", 0};
	while (n--) {
		pid_t p;
		int st;
		if (posix_spawn(&p, argv[0], 0, 0, argv, environ) || waitpid(p, &st, 0) != p || st)
			die("spawn");
	}
}
static void *nop(void *a) { return a; }
static void c_pthread(long n)
{
	while (n--) {
		pthread_t t;
		if (pthread_create(&t, 0, nop, 0) || pthread_join(t, 0))
			die("pthread");
	}
}

/* ping-pong: a round trip through two descriptors, between threads or processes */
struct pp { int r, w; long n; size_t sz; };
static void *echo(void *a)
{
	struct pp *p = a;
	char b[8];
	for (long i = 0; i < p->n; i++)
		if (read(p->r, b, p->sz) != (ssize_t)p->sz || write(p->w, b, p->sz) != (ssize_t)p->sz)
			die("echo");
	return 0;
}
static void pingpong(int r, int w, int er, int ew, size_t sz, int proc, long n)
{
	struct pp p = {er, ew, n, sz};
	pthread_t t;
	pid_t pid = 0;
	char b[8] = {1};
	if (proc) {
		if (!(pid = fork())) {
			echo(&p);
			_exit(0);
		}
	} else
		pthread_create(&t, 0, echo, &p);
	for (long i = 0; i < n; i++)
		if (write(w, b, sz) != (ssize_t)sz || read(r, b, sz) != (ssize_t)sz)
			die("ping");
	if (proc)
		waitpid(pid, 0, 0);
	else
		pthread_join(t, 0);
	close(r); close(w);
	if (er != w) close(er);
	if (ew != r) close(ew);
}
static void pipes(int proc, long n)
{
	int a[2], b[2];
	if (pipe(a) || pipe(b))
		die("pipe");
	pingpong(b[0], a[1], a[0], b[1], 1, proc, n);
}
static void c_pipe_thr(long n) { pipes(0, n); }
static void c_pipe_proc(long n) { pipes(1, n); }
static void socks(int proc, long n)
{
	int s[2];
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, s))
		die("socketpair");
	int a = dup(s[0]), b = dup(s[1]);
	pingpong(s[0], a, s[1], b, 1, proc, n);
}
static void c_unix_thr(long n) { socks(0, n); }
static void c_unix_proc(long n) { socks(1, n); }
static void eventfds(int proc, long n)
{
	int a = eventfd(0, 0), b = eventfd(0, 0);
	pingpong(b, a, dup(a), dup(b), 8, proc, n);
}
static void c_eventfd_thr(long n) { eventfds(0, n); }
static void c_eventfd_proc(long n) { eventfds(1, n); }
static _Atomic int *fw;
static long fn;
static void fwait(int want)
{
	int v;
	while ((v = *fw) != want)
		syscall(SYS_futex, fw, FUTEX_WAIT, v, 0, 0, 0);
}
static void *fpeer(void *a)
{
	for (long i = 0; i < fn; i++) {
		fwait(1);
		*fw = 0;
		syscall(SYS_futex, fw, FUTEX_WAKE, 1, 0, 0, 0);
	}
	return a;
}
static void futexes(int proc, long n)
{
	pthread_t t;
	pid_t pid = 0;
	if (!fw)
		fw = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	fn = n;
	*fw = 0;
	if (!proc) {
		pthread_create(&t, 0, fpeer, 0);
	} else if (!(pid = fork())) {
		fpeer(0);
		_exit(0);
	}
	while (n--) {
		*fw = 1;
		syscall(SYS_futex, fw, FUTEX_WAKE, 1, 0, 0, 0);
		fwait(0);
	}
	if (proc)
		waitpid(pid, 0, 0);
	else
		pthread_join(t, 0);
}
static void c_futex_thr(long n) { futexes(0, n); }
static void c_futex_proc(long n) { futexes(1, n); }
static void c_epoll(long n)
{
	static int ep = -1, fds[1000];
	int made = ep >= 0;
	if (!made)
		ep = epoll_create1(0);
	for (int i = 0; !made && i < 1000; i++) {
		struct epoll_event e = {EPOLLIN, {.fd = i}};
		fds[i] = eventfd(i == 500, 0);
		if (fds[i] < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, fds[i], &e))
			die("epoll_ctl");
	}
	struct epoll_event out[16];
	while (n--)
		if (epoll_wait(ep, out, 16, -1) != 1)
			die("epoll_wait");
}
static void handler(int s) { (void)s; }
static void c_signal(long n)
{
	signal(SIGUSR1, handler);
	while (n--)
		kill(getpid(), SIGUSR1);
}
static void *ppidloop(void *a)
{
	long n = (long)a;
	while (n--)
		syscall(SYS_getppid);
	return 0;
}
static void ppids(int threads, long n)
{
	pthread_t t[8];
	for (int i = 0; i < threads; i++)
		pthread_create(&t[i], 0, ppidloop, (void *)(n / threads + 1));
	for (int i = 0; i < threads; i++)
		pthread_join(t[i], 0);
}
static void c_ppid2(long n) { ppids(2, n); }
static void c_ppid4(long n) { ppids(4, n); }
static void c_ppid8(long n) { ppids(8, n); }
static void *preadloop(void *a)
{
	long n = (long)a;
	int fd = open("/dev/zero", O_RDONLY);
	char c;
	while (n--)
		if (read(fd, &c, 1) != 1)
			die("/dev/zero");
	close(fd);
	return 0;
}
static void c_read8(long n)
{
	pthread_t t[8];
	for (int i = 0; i < 8; i++)
		pthread_create(&t[i], 0, preadloop, (void *)(n / 8 + 1));
	for (int i = 0; i < 8; i++)
		pthread_join(t[i], 0);
}

static struct { const char *name; void (*fn)(long); } cases[] = {
	{"getpid", c_getpid}, {"getppid", c_getppid}, {"clock_gettime", c_gettime}, {"sched_yield", c_yield},
	{"gettid", c_gettid}, {"getuid", c_getuid}, {"getcpu-syscall", c_getcpu}, {"clock_gettime-syscall", c_gettime_nr}, {"sigprocmask", c_mask},
	{"read-zero-1", c_zero1}, {"read-zero-4k", c_zero4k}, {"write-null-1", c_null1}, {"write-null-4k", c_null4k},
	{"read-file-1", c_fread1}, {"read-file-4k", c_fread4k}, {"write-file-1", c_fwrite1}, {"write-file-4k", c_fwrite4k},
	{"read-shared-1", c_sread1}, {"read-shared-4k", c_sread4k}, {"write-shared-1", c_swrite1}, {"write-shared-4k", c_swrite4k},
	{"stat-shared", c_stat_shared}, {"open-close-shared", c_open_shared},
	{"pipe-write-read", c_pipe_self}, {"pipe-write-read-4k", c_pipe_self4k}, {"stat", c_stat}, {"stat-usr", c_stat_usr}, {"open-close", c_open},
	{"open-close-usr", c_open_usr}, {"readdir-1000", c_readdir}, {"mmap-munmap", c_mmap}, {"page-fault", c_fault},
	{"mprotect", c_mprotect}, {"fork-wait", c_fork}, {"vfork-exec-wait", c_vforkexec}, {"pthread-create-join", c_pthread},
	{"pipe-pingpong-threads", c_pipe_thr}, {"pipe-pingpong-processes", c_pipe_proc}, {"unix-pingpong-threads", c_unix_thr},
	{"unix-pingpong-processes", c_unix_proc}, {"eventfd-pingpong-threads", c_eventfd_thr}, {"eventfd-pingpong-processes", c_eventfd_proc},
	{"futex-pingpong-threads", c_futex_thr}, {"futex-pingpong-processes", c_futex_proc}, {"epoll-wait-1000", c_epoll}, {"signal-self", c_signal},
	{"getppid-2-threads", c_ppid2}, {"getppid-4-threads", c_ppid4}, {"getppid-8-threads", c_ppid8}, {"read-8-threads", c_read8},
};

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "--nop"))
		return 0;
	if (argc > 1 && !strcmp(argv[1], "--list")) {
		for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
			puts(cases[i].name);
		return 0;
	}
	if (argc < 3) {
		fprintf(stderr, "usage: calls DIR SHARED [NAME...]\n");
		return 2;
	}
	dir = argv[1];
	shared = argv[2];
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		int want = argc == 3;
		for (int a = 3; a < argc; a++)
			want |= !strcmp(argv[a], cases[i].name);
		if (!want)
			continue;
		long n = 1;
		uint64_t t;
		for (;;) { /* find n for about 20 ms */
			t = now();
			cases[i].fn(n);
			t = now() - t;
			for (int k = 0; k < 3 && t > 20000000; k++) { /* it may have been a disturbance */
				uint64_t again = now();
				cases[i].fn(n);
				again = now() - again;
				if (again < t)
					t = again;
			}
			if (t > 10000000 || n > 100000000)
				break;
			n = t < 1000000 ? n * 10 : n * 25000000 / t + 1;
		}
		double best = (double)t / n;
		for (int r = 0; r < 5; r++) {
			t = now();
			cases[i].fn(n);
			t = now() - t;
			if ((double)t / n < best)
				best = (double)t / n;
		}
		printf("%s %.1f\n", cases[i].name, best);
		fflush(stdout);
	}
	return 0;
}
