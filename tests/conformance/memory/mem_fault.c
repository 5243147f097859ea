// Page faults: copy-on-write over fork, signals with their codes and addresses, stack growth, files that shrink under a mapping, shared memory,
// and copies by system calls to memory that is partly there.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static sigjmp_buf jmp;
static volatile int sig, code;
static void *volatile at;

static void handler(int s, siginfo_t *i, void *c) {
	sig = s;
	code = i->si_code;
	at = i->si_addr;
	siglongjmp(jmp, 1);
}

static const char *probe(volatile char *p, int how) {
	static char out[100];
	sig = 0;
	if (!sigsetjmp(jmp, 1)) {
		if (how == 'r') (void)*p;
		if (how == 'w') *p = 1;
		if (how == 'x') ((void (*)(void))p)();
		return "ok";
	}
	sprintf(out, "%s code %d%s", sigabbrev_np(sig), code, at == p ? "" : " wrong address");
	return out;
}

static char *map(int pages, int prot, int flags, int fd) {
	char *p = mmap(0, pages * 4096, prot, flags | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);
	if (p == MAP_FAILED) perror("mmap"), exit(1);
	return p;
}

static void signals(void) {
	char *p = map(4, PROT_READ | PROT_WRITE, MAP_PRIVATE, -1);
	printf("plain: %s\n", probe(p, 'w'));
	printf("not executable: %s\n", probe(p, 'x'));
	mprotect(p, 4096, PROT_READ);
	printf("read-only, read: %s\n", probe(p, 'r'));
	printf("read-only, write: %s\n", probe(p, 'w'));
	mprotect(p, 4096, PROT_NONE);
	printf("none, read: %s\n", probe(p, 'r'));
	mprotect(p, 4096, PROT_READ | PROT_WRITE);
	printf("again: %s, holds %d\n", probe(p, 'r'), *p);
	mprotect(p + 4096, 4096, PROT_WRITE);
	printf("write-only, read: %s\n", probe(p + 4096, 'r'));
	munmap(p + 8192, 4096);
	printf("unmapped: %s\n", probe(p + 8192, 'r'));
	printf("null: %s\n", probe(0, 'w'));
	p[0] = 0xc3;
	mprotect(p, 4096, PROT_READ | PROT_EXEC);
	printf("executable: %s\n", probe(p, 'x'));
	mprotect(p, 4096, PROT_EXEC);
	printf("exec-only, call: %s\n", probe(p, 'x'));
}

static void files(void) {
	char name[] = "/tmp/mem_fault.XXXXXX";
	int f = mkstemp(name);
	unlink(name);
	char buf[3 * 4096];
	memset(buf, 'f', sizeof buf);
	write(f, buf, 2 * 4096 + 100);
	char *s = map(4, PROT_READ | PROT_WRITE, MAP_SHARED, f), *p = map(4, PROT_READ | PROT_WRITE, MAP_PRIVATE, f);
	printf("file: %c %c, behind its end %d\n", s[0], p[8191], s[8192 + 101]);
	printf("beyond: %s\n", probe(s + 3 * 4096, 'r'));
	s[1] = 'S';
	p[2] = 'P';
	pread(f, buf, 4, 0);
	printf("shared write shows: %.4s, in private: %.4s\n", buf, p);
	pwrite(f, "XY", 2, 4096);
	printf("file write shows: %.2s %.2s\n", s + 4096, p + 4096);
	pwrite(f, "ZZZZ", 4, 0);
	printf("private copy stays: %.4s\n", p);
	ftruncate(f, 4096);
	printf("truncated: %s, private %s, first page %s\n", probe(s + 4096, 'r'), strdup(probe(p + 4096, 'r')), probe(p, 'r'));
	ftruncate(f, 3 * 4096);
	printf("grown: %s, holds %d\n", probe(s + 4096, 'r'), s[4096]);
	int m = memfd_create("m", 0);
	ftruncate(m, 8192);
	s = map(4, PROT_READ | PROT_WRITE, MAP_SHARED, m);
	s[5000] = 7;
	printf("memfd: %s, beyond %s\n", probe(s, 'w'), strdup(probe(s + 8192, 'w')));
	ftruncate(m, 4096);
	printf("memfd truncated: %s\n", probe(s + 4096, 'r'));
	ftruncate(m, 8192);
	printf("memfd grown: %s, holds %d\n", probe(s + 4096, 'r'), s[5000]);
	fallocate(m, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096);
	printf("memfd punched: %d\n", s[0]);
	s[10] = 9;
	printf("MADV_REMOVE: %d, %d\n", madvise(s, 4096, MADV_REMOVE), s[10]);
}

static void forks(void) {
	enum { N = 300 };
	char *p = map(N, 3, MAP_PRIVATE, -1), *s = map(N, 3, MAP_SHARED, -1);
	char *w = map(1, 3, MAP_PRIVATE, -1), *d = map(1, 3, MAP_PRIVATE, -1);
	madvise(w, 4096, MADV_WIPEONFORK);
	madvise(d, 4096, MADV_DONTFORK);
	*w = *d = 5;
	for (int i = 0; i < N; i++) p[i * 4096] = s[i * 4096] = i;
	fflush(stdout);
	if (!fork()) {
		int bad = 0;
		for (int i = 0; i < N; i++) bad += p[i * 4096] != (char)i;
		for (int i = 0; i < N; i += 3) p[i * 4096] = s[i * 4096] = 99;
		printf("child: %d bad, wiped %d, not forked: %s\n", bad, *w, probe(d, 'r'));
		fflush(stdout);
		if (!fork()) {
			for (int i = 0; i < N; i += 3) bad += p[i * 4096] != 99;
			p[3 * 4096] = 1;
			printf("grandchild: %d bad\n", bad);
			exit(0);
		}
		wait(0);
		printf("child's page after grandchild: %d\n", p[3 * 4096]);
		exit(0);
	}
	p[6 * 4096] = 42;
	wait(0);
	int bad = 0, shared = 0;
	for (int i = 0; i < N; i++) bad += i != 6 && p[i * 4096] != (char)i;
	for (int i = 0; i < N; i += 3) shared += s[i * 4096] == 99;
	printf("parent: %d bad, %d shared, own %d\n", bad, shared, p[6 * 4096]);
	// DONTNEED and a move.
	madvise(p, 4096 * 10, MADV_DONTNEED);
	printf("dontneed: %d %d\n", p[4096], p[11 * 4096]);
	char *q = mremap(p, N * 4096, 2 * N * 4096, MREMAP_MAYMOVE);
	printf("moved: %d, new part %d\n", q[20 * 4096], q[(N + 1) * 4096]);
	char *t = map(4, 3, MAP_PRIVATE, -1);
	q = mremap(q, 8 * 4096 + 4096 * 12, 4096 * 4, MREMAP_MAYMOVE | MREMAP_FIXED, t);
	printf("over another: %d\n", q == t ? q[3 * 4096] : -1);
}

static int depth(int n) {
	char b[4000];
	memset(b, n, sizeof b);
	return n ? depth(n - 1) + b[17] : 0;
}

static void stack(void) {
	printf("deep recursion: %d\n", depth(1500) != 12345);
	char *top = map(64, 3, MAP_PRIVATE, -1);
	munmap(top, 60 * 4096);
	munmap(top + 60 * 4096, 4 * 4096);
	char *g = mmap(top + 60 * 4096, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1, 0);
	printf("grows down: %s\n", probe(g - 8, 'w'));
}

static void copies(void) {
	char *p = map(2, 3, MAP_PRIVATE, -1);
	munmap(p + 4096, 4096);
	memset(p, 'c', 4096);
	int fd[2];
	pipe2(fd, O_NONBLOCK);
	char buf[64];
	printf("write over the end: %zd\n", write(fd[1], p + 4090, 20));
	printf("read over the end: %zd\n", read(fd[0], p + 4093, 6));
	write(fd[1], "abcdef", 6);
	printf("read to nowhere: %zd %s\n", read(fd[0], p + 4096, 6), strerrorname_np(errno));
	struct iovec v[2] = {{p + 4095, 1}, {p + 4096, 4}};
	printf("readv: %zd\n", readv(fd[0], v, 2));
	mprotect(p, 4096, PROT_READ);
	printf("read to read-only: %zd %s\n", read(fd[0], p, 1), strerrorname_np(errno));
	printf("write from read-only: %zd\n", write(fd[1], p, 1));
	mprotect(p, 4096, PROT_NONE);
	printf("write from none: %zd %s\n", write(fd[1], p, 1), strerrorname_np(errno));
	printf("open of a string over the end: %d %s\n", open(p + 4096, 0), strerrorname_np(errno));
	mprotect(p, 4096, 3);
	memset(p, 'x', 4096);
	printf("open of a string without NUL: %d %s\n", open(p + 4000, 0), strerrorname_np(errno));
	printf("kernel pointer: %zd %s\n", write(fd[1], (void *)0xffff800000000000, 1), strerrorname_np(errno));
}

static atomic_int *word;
static void *waker(void *x) {
	usleep(20000);
	*word = 1;
	syscall(SYS_futex, word, FUTEX_WAKE, 1, 0, 0, 0);
	return 0;
}

static void futexes(void) {
	word = (void *)map(1, 3, MAP_SHARED, -1);
	atomic_int *alias = mremap(word, 0, 4096, MREMAP_MAYMOVE);
	pthread_t t;
	pthread_create(&t, 0, waker, 0);
	while (*alias == 0) syscall(SYS_futex, alias, FUTEX_WAIT, 0, 0, 0, 0);
	pthread_join(t, 0);
	printf("futex through two mappings: %d\n", *alias);
	if (!fork()) {
		usleep(20000);
		*word = 2;
		syscall(SYS_futex, word, FUTEX_WAKE, 1, 0, 0, 0);
		_exit(0);
	}
	while (*word == 1) syscall(SYS_futex, word, FUTEX_WAIT, 1, 0, 0, 0);
	wait(0);
	printf("futex between processes: %d\n", *word);
	printf("futex at nowhere: %ld %s\n", syscall(SYS_futex, 8, FUTEX_WAKE, 1, 0, 0, 0), strerrorname_np(errno));
	printf("unaligned: %ld %s\n", syscall(SYS_futex, (char *)word + 1, FUTEX_WAKE, 1, 0, 0, 0), strerrorname_np(errno));
}

static void heap(void) {
	char *b = sbrk(0);
	sbrk(1 << 20);
	memset(b, 1, 1 << 20);
	sbrk(-(1 << 20));
	printf("brk gone: %s\n", ((unsigned long)b & 4095) ? "ok" : probe(b, 'r'));
	sbrk(1 << 20);
	printf("brk again: %d\n", b[500000]);
	b = map(40000, 3, MAP_PRIVATE | MAP_NORESERVE, -1);
	for (long i = 0; i < 40000; i += 37) b[i * 4096] = i;
	int bad = 0;
	for (long i = 0; i < 40000; i += 37) bad += b[i * 4096] != (char)i;
	printf("sparse: %d bad\n", bad);
}

static void clocks(void) {
	long long last = 0, off = 0;
	for (int i = 0; i < 200000; i++) {
		struct timespec a, b;
		clock_gettime(CLOCK_MONOTONIC, &a);
		long long n = a.tv_sec * 1000000000LL + a.tv_nsec;
		if (n < last) off++;
		last = n;
		if (i % 1000 == 0) {
			syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &b);
			n = b.tv_sec * 1000000000LL + b.tv_nsec;
			if (n < last) off++;
			last = n;
		}
	}
	printf("clock went back: %lld\n", off);
	struct timeval tv;
	struct timespec ts;
	gettimeofday(&tv, 0);
	syscall(SYS_clock_gettime, CLOCK_REALTIME, &ts);
	printf("time agrees: %d %d\n", llabs(tv.tv_sec - ts.tv_sec) <= 1, llabs(time(0) - ts.tv_sec) <= 1);
}

int main(void) {
	struct sigaction sa = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_NODEFER};
	sigaction(SIGSEGV, &sa, 0);
	sigaction(SIGBUS, &sa, 0);
	setvbuf(stdout, 0, _IOLBF, 0);
	alarm(60);
	signals();
	files();
	forks();
	stack();
	copies();
	futexes();
	heap();
	clocks();
	return 0;
}
