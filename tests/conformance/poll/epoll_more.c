// epoll(7) beyond the basics: nesting, closing, one-shot, edges, threads that wait together. The host's output is the expected one.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define V(x)                                                                                                           \
	do {                                                                                                               \
		errno = 0;                                                                                                     \
		long r_ = (long)(x);                                                                                           \
		if (r_ == -1)                                                                                                  \
			printf("%-80s %s\n", #x, strerrorname_np(errno));                                                          \
		else                                                                                                           \
			printf("%-80s %ld\n", #x, r_);                                                                             \
	} while (0)
#define BAD ((void *)8)

static struct epoll_event out[64];

static int add(int ep, int fd, unsigned ev) {
	struct epoll_event e = {ev, {.u64 = fd}};
	return epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
}
static int mod(int ep, int fd, unsigned ev) {
	struct epoll_event e = {ev, {.u64 = fd}};
	return epoll_ctl(ep, EPOLL_CTL_MOD, fd, &e);
}
static int del(int ep, int fd) { return epoll_ctl(ep, EPOLL_CTL_DEL, fd, 0); }
static void wait_(int ep, int ms) {
	errno = 0;
	int n = epoll_wait(ep, out, 64, ms);
	printf("wait: %d %s", n, n < 0 ? strerrorname_np(errno) : "");
	unsigned all = 0;
	for (int i = 0; i < n; i++)
		all |= out[i].events;
	printf(" %#x\n", all);
}

static void kinds(void) {
	static const char *const names[] = {"/dev/null", "/dev/zero", "/dev/full", "/dev/urandom", "/", "/etc/passwd", "/proc/self/stat", "/proc/self/mounts",
		"/proc/self/mountinfo"};
	int ep = epoll_create1(EPOLL_CLOEXEC);
	for (int i = 0; i < sizeof names / sizeof *names; i++) {
		int fd = open(names[i], O_RDONLY);
		printf("%s: %s\n", names[i], add(ep, fd, EPOLLIN) ? strerrorname_np(errno) : "ok");
		close(fd);
	}
	V(epoll_create1(1));
	V(epoll_create(0));
	V(add(ep, ep, EPOLLIN));
	V(add(ep, 77, EPOLLIN));
	V(add(77, ep, EPOLLIN));
	int p[2];
	pipe(p);
	V(add(p[0], p[1], EPOLLIN));
	V(mod(ep, p[0], EPOLLIN));
	V(del(ep, p[0]));
	V(epoll_ctl(ep, EPOLL_CTL_ADD, p[0], BAD));
	V(epoll_ctl(ep, 9, p[0], out));
	V(epoll_wait(ep, out, 0, 0));
	V(epoll_wait(ep, out, -1, 0));
	V(epoll_wait(ep, out, 0x7fffffff, 0));
	V(epoll_wait(p[0], out, 1, 0));
	V(epoll_wait(77, out, 1, 0));
	V(add(ep, p[1], EPOLLOUT));
	V(add(ep, p[1], EPOLLOUT));
	V(epoll_wait(ep, BAD, 1, 0));
	V(add(ep, p[0], EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT));
	V(add(ep, p[0], EPOLLIN | EPOLLEXCLUSIVE | EPOLLRDHUP));
	V(add(ep, p[0], EPOLLIN | EPOLLEXCLUSIVE | EPOLLET));
	V(mod(ep, p[0], EPOLLIN));
	V(mod(ep, p[1], EPOLLIN | EPOLLEXCLUSIVE));
	int e2 = epoll_create1(0);
	V(add(ep, e2, EPOLLIN | EPOLLEXCLUSIVE));
	V(read(ep, out, 8));
	V(write(ep, out, 8));
	V(lseek(ep, 0, SEEK_SET));
	struct timespec ts = {0, 1000000000};
	V(syscall(441, ep, out, 1, &ts, 0, 0));
	ts.tv_nsec = 0;
	V(syscall(441, ep, out, 1, &ts, 0, 0));
	V(syscall(441, ep, out, 1, BAD, 0, 0));
	V(syscall(SYS_epoll_pwait, ep, out, 1, 0, out, 7));
	close(ep), close(e2), close(p[0]), close(p[1]);
}

static void nesting(void) {
	int e[8], p[2];
	pipe(p);
	for (int i = 0; i < 8; i++)
		e[i] = epoll_create1(0);
	// Chains built from either end.
	for (int i = 0; i < 7; i++)
		V(add(e[i], e[i + 1], EPOLLIN));
	for (int i = 0; i < 7; i++)
		V(del(e[i], e[i + 1]));
	for (int i = 6; i >= 0; i--)
		V(add(e[i], e[i + 1], EPOLLIN));
	for (int i = 0; i < 7; i++)
		del(e[i], e[i + 1]);
	V(add(e[0], e[1], EPOLLIN));
	V(add(e[1], e[2], EPOLLIN));
	V(add(e[2], e[0], EPOLLIN)); // a circle
	V(add(e[2], p[0], EPOLLIN));
	wait_(e[0], 0);
	write(p[1], "x", 1);
	struct pollfd f = {e[0], POLLIN | POLLOUT};
	V(poll(&f, 1, 0));
	V(f.revents);
	wait_(e[0], 0);
	wait_(e[0], 0);
	V(mod(e[0], e[1], EPOLLIN | EPOLLET));
	wait_(e[0], 0);
	wait_(e[0], 0);
	write(p[1], "x", 1);
	wait_(e[0], 0);
	char b[2];
	read(p[0], b, 2);
	wait_(e[0], 0);
	wait_(e[2], 0);
	for (int i = 0; i < 8; i++)
		close(e[i]);
	close(p[0]), close(p[1]);
}

static void closing(void) {
	int ep = epoll_create1(0), p[2];
	pipe(p);
	add(ep, p[0], EPOLLIN);
	int d = dup(p[0]);
	V(add(ep, d, EPOLLIN));
	write(p[1], "x", 1);
	wait_(ep, 0);
	close(p[0]);
	wait_(ep, 0);
	V(del(ep, p[0]));
	close(d);
	wait_(ep, 0);
	pipe(p);
	V(add(ep, p[0], EPOLLIN));
	write(p[1], "y", 1);
	if (!fork()) { // keeps it open
		usleep(60000);
		_exit(0);
	}
	close(p[0]), close(p[1]);
	wait_(ep, 0);
	wait(0);
	wait_(ep, 0);
	// The other end goes.
	pipe(p);
	add(ep, p[0], EPOLLIN);
	close(p[1]);
	wait_(ep, 0);
	mod(ep, p[0], 0);
	wait_(ep, 0);
	mod(ep, p[0], EPOLLONESHOT);
	wait_(ep, 0);
	wait_(ep, 0);
	close(p[0]);
	int s[2];
	socketpair(AF_UNIX, SOCK_STREAM, 0, s);
	add(ep, s[0], EPOLLIN | EPOLLRDHUP | EPOLLOUT);
	wait_(ep, 0);
	shutdown(s[1], SHUT_WR);
	wait_(ep, 0);
	close(s[1]);
	wait_(ep, 0);
	close(s[0]);
	close(ep);
}

static void edges(void) {
	int ep = epoll_create1(0), p[2], ev = eventfd(0, EFD_NONBLOCK);
	char b[10];
	uint64_t n = 1;
	pipe2(p, O_NONBLOCK);
	V(add(ep, p[0], EPOLLIN | EPOLLET));
	V(add(ep, p[1], EPOLLOUT | EPOLLET));
	wait_(ep, 0);
	wait_(ep, 0);
	write(p[1], "ab", 2);
	wait_(ep, 0);
	wait_(ep, 0);
	read(p[0], b, 1);
	wait_(ep, 0);
	write(p[1], "c", 1);
	wait_(ep, 0);
	mod(ep, p[0], EPOLLIN | EPOLLET); // looks again
	wait_(ep, 0);
	V(add(ep, ev, EPOLLIN | EPOLLOUT | EPOLLET));
	wait_(ep, 0);
	write(ev, &n, 8);
	wait_(ep, 0);
	write(ev, &n, 8);
	wait_(ep, 0);
	n = 0;
	write(ev, &n, 8);
	wait_(ep, 0);
	read(ev, &n, 8);
	wait_(ep, 0);
	V(mod(ep, ev, EPOLLOUT | EPOLLONESHOT));
	wait_(ep, 0);
	wait_(ep, 0);
	V(mod(ep, ev, EPOLLOUT | EPOLLONESHOT));
	wait_(ep, 0);
	close(p[0]);
	wait_(ep, 0);
	// Room for fewer than there are: all get their turn.
	int e2 = epoll_create1(0), q[20], seen[1024] = {0}, count = 0;
	for (int i = 0; i < 20; i++)
		add(e2, q[i] = eventfd(1, 0), EPOLLIN);
	for (int i = 0; i < 10; i++) {
		int k = epoll_wait(e2, out, 2, 0);
		for (int j = 0; j < k; j++)
			count += !seen[out[j].data.u64]++;
	}
	printf("turns: %d\n", count);
}

static int shared, waiters = 4;
static int counts;
static void *waiter(void *v) {
	struct epoll_event e;
	int n = epoll_wait(shared, &e, 1, 300);
	__sync_fetch_and_add(&counts, n);
	return 0;
}

static void together(unsigned flags, int writes) {
	pthread_t t[4];
	int ev = eventfd(0, 0);
	uint64_t n = 1;
	shared = epoll_create1(0);
	add(shared, ev, EPOLLIN | flags);
	counts = 0;
	for (int i = 0; i < 4; i++)
		pthread_create(t + i, 0, waiter, 0);
	usleep(50000);
	for (int i = 0; i < writes; i++) {
		write(ev, &n, 8);
		usleep(20000);
	}
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], 0);
	printf("%d writes, flags %#x: %d\n", writes, flags, counts);
	close(ev), close(shared);
}

static void *adder(void *v) {
	usleep(50000);
	add(shared, (int)(long)v, EPOLLOUT);
	return 0;
}

static void sig(int s) {}

static void blocking(void) {
	pthread_t t;
	int ev = eventfd(0, 0);
	shared = epoll_create1(0);
	pthread_create(&t, 0, adder, (void *)(long)ev); // added while waiting
	wait_(shared, 2000);
	pthread_join(t, 0);
	mod(shared, ev, EPOLLIN);
	struct sigaction a = {.sa_handler = sig, .sa_flags = SA_RESTART};
	sigaction(SIGALRM, &a, 0);
	struct itimerval it = {{0, 0}, {0, 50000}};
	setitimer(ITIMER_REAL, &it, 0);
	wait_(shared, 2000);
	sigset_t m, full;
	sigemptyset(&m);
	sigfillset(&full);
	sigprocmask(SIG_BLOCK, &full, 0);
	setitimer(ITIMER_REAL, &it, 0);
	V(epoll_pwait(shared, out, 1, 2000, &m));
	setitimer(ITIMER_REAL, &it, 0);
	V(epoll_pwait(shared, out, 1, 100, &full));
	sigset_t now;
	sigprocmask(SIG_SETMASK, 0, &now);
	V(sigismember(&now, SIGUSR1));
	sigprocmask(SIG_SETMASK, &m, 0);
}

// many has more ready files than some kernels give at once.
static void many(void) {
	struct rlimit l;
	getrlimit(RLIMIT_NOFILE, &l);
	l.rlim_cur = l.rlim_max = 6000;
	V(setrlimit(RLIMIT_NOFILE, &l));
	int ep = epoll_create1(0), ev = eventfd(1, EFD_NONBLOCK);
	for (int i = 0; i < 5900; i++)
		if (add(ep, dup(ev), EPOLLIN)) {
			printf("%d: %s\n", i, strerrorname_np(errno));
			break;
		}
	static struct epoll_event all[6000];
	V(epoll_wait(ep, all, 6000, -1));
	V(epoll_wait(ep, all, 5000, -1));
}

int main(void) {
	setvbuf(stdout, 0, _IONBF, 0);
	kinds();
	nesting();
	closing();
	edges();
	together(EPOLLET, 1);
	together(EPOLLET, 3);
	together(EPOLLONESHOT, 1);
	together(0, 1);
	blocking();
	many();
	return 0;
}
