// futex(2), all operations; robust lists; PI and robust PI mutexes of glibc; futex2 calls. The host's output is the expected one.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
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
#define F(a, op, v, t, a2, v3) syscall(SYS_futex, a, op, v, t, a2, v3)
#define N(n) ((void *)(long)(n))

static uint32_t *w; // words in shared memory
static struct timespec ms20 = {0, 20000000}, bad = {0, 1000000000}, neg = {-1, 0}, zero;

static struct timespec in(int clock, long ms) {
	struct timespec t;
	clock_gettime(clock, &t);
	t.tv_nsec += ms * 1000000;
	t.tv_sec += t.tv_nsec / 1000000000;
	t.tv_nsec %= 1000000000;
	return t;
}

static int tid(void) { return syscall(SYS_gettid); }

static void errors(void) {
	struct timespec t;
	V(F(w, 99, 0, 0, 0, 0));
	V(F(w, FUTEX_FD, 0, 0, 0, 0));
	V(F((char *)w + 1, FUTEX_WAIT, 0, &ms20, 0, 0));
	V(F((char *)w + 1, FUTEX_WAKE, 1, 0, 0, 0));
	V(F(BAD, FUTEX_WAIT, 0, &ms20, 0, 0));
	V(F(BAD, FUTEX_WAKE, 1, 0, 0, 0));
	V(F(BAD, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0));
	V(F((void *)-8L, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0));
	V(F(0, FUTEX_WAIT_PRIVATE, 0, &ms20, 0, 0));
	V(F(w, FUTEX_WAIT, 1, &ms20, 0, 0));
	V(F(w, FUTEX_WAIT, 0, &ms20, 0, 0));
	V(F(w, FUTEX_WAIT, 0, &zero, 0, 0));
	V(F(w, FUTEX_WAIT, 0, &bad, 0, 0));
	V(F(w, FUTEX_WAIT, 0, &neg, 0, 0));
	V(F(w, FUTEX_WAIT, 0, BAD, 0, 0));
	V(F(w, FUTEX_WAIT | FUTEX_CLOCK_REALTIME, 0, &ms20, 0, 0));
	V(F(w, FUTEX_WAIT_BITSET, 0, &ms20, 0, 0));
	V(F(w, FUTEX_WAIT_BITSET, 0, &ms20, 0, 1));
	t = in(CLOCK_REALTIME, 20);
	V(F(w, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 0, &t, 0, 1));
	t = in(CLOCK_MONOTONIC, 20);
	V(F(w, FUTEX_WAIT_BITSET_PRIVATE, 0, &t, 0, 1));
	V(F(w, FUTEX_WAKE_BITSET, 1, 0, 0, 0));
	V(F(w, FUTEX_WAKE_BITSET, 1, 0, 0, 1));
	V(F(w, FUTEX_WAKE | FUTEX_CLOCK_REALTIME, 1, 0, 0, 0));
	V(F(w, FUTEX_REQUEUE, 1, N(1), w + 1, 0));
	V(F(w, FUTEX_REQUEUE, -1, N(1), w + 1, 0));
	V(F(w, FUTEX_CMP_REQUEUE, 1, N(1), w + 1, 7));
	V(F(w, FUTEX_CMP_REQUEUE, 1, N(-1), w + 1, 0));
	V(F(w, FUTEX_CMP_REQUEUE, 1, N(1), BAD, 0));
	V(F(w, FUTEX_CMP_REQUEUE_PI, 1, N(1), w + 1, 0));
	V(F(w, FUTEX_CMP_REQUEUE_PI, 2, N(1), w + 1, 0));
	V(F(w, FUTEX_CMP_REQUEUE_PI, 1, N(1), w, 0));
	V(F(w, FUTEX_CMP_REQUEUE_PI, 1, N(1), w + 1, 5));
	V(F(w, FUTEX_WAIT_REQUEUE_PI, 0, &ms20, w, 0));
	t = in(CLOCK_MONOTONIC, 20);
	V(F(w, FUTEX_WAIT_REQUEUE_PI, 0, &t, w + 1, 0));
	V(F(w, FUTEX_WAIT_REQUEUE_PI, 1, &t, w + 1, 0));
	V(F(w, FUTEX_UNLOCK_PI, 0, 0, 0, 0));
	V(F(BAD, FUTEX_UNLOCK_PI, 0, 0, 0, 0));
	V(F(w, FUTEX_LOCK_PI, 0, &bad, 0, 0));
	uint32_t *ro = mmap(0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	V(F(ro, FUTEX_WAIT_PRIVATE, 0, &ms20, 0, 0));
	V(F(ro, FUTEX_LOCK_PI, 0, 0, 0, 0));
	V(F(w, FUTEX_WAKE_OP, 1, N(1), ro, FUTEX_OP(FUTEX_OP_SET, 1, FUTEX_OP_CMP_EQ, 0)));
	V(F(w, FUTEX_WAKE_OP, 1, N(1), w + 1, 7 << 28));
	V(F(w, FUTEX_WAKE_OP, 1, N(1), w + 1, 7 << 24));
}

static void ops(void) {
	static const struct { int op, arg; uint32_t in; } t[] = {
		{FUTEX_OP_SET, 5, 1}, {FUTEX_OP_ADD, -3, 10}, {FUTEX_OP_ADD, 2047, 1}, {FUTEX_OP_OR, 12, 3}, {FUTEX_OP_ANDN, 3, 7}, {FUTEX_OP_XOR, 5, 6},
		{FUTEX_OP_SET | FUTEX_OP_OPARG_SHIFT, 4, 0}, {FUTEX_OP_OR | FUTEX_OP_OPARG_SHIFT, 31, 1}};
	for (int i = 0; i < sizeof t / sizeof *t; i++) {
		w[1] = t[i].in;
		long r = F(w, FUTEX_WAKE_OP, 1, N(1), w + 1, FUTEX_OP(t[i].op, t[i].arg & 0xfff, FUTEX_OP_CMP_EQ, 1));
		printf("wake_op %d %d: %ld %#x\n", t[i].op, t[i].arg, r, w[1]);
	}
	w[1] = 0;
}

// Sleepers in processes of their own, on shared memory.
static pid_t sleeper(uint32_t *a, int op, uint32_t bits, uint32_t *a2) {
	pid_t p = fork();
	if (p)
		return p;
	alarm(5);
	long r = F(a, op, 0, 0, a2, bits);
	_exit(r == -1 ? errno : 100 + r);
}

static int reap(void) {
	int s;
	wait(&s);
	return WIFEXITED(s) ? WEXITSTATUS(s) : -WTERMSIG(s);
}

static void processes(void) {
	w[0] = w[1] = 0;
	for (int i = 0; i < 5; i++)
		sleeper(w, FUTEX_WAIT, 0, 0);
	usleep(100000);
	V(F(w, FUTEX_WAKE, 0, 0, 0, 0));
	V(reap());
	V(F(w, FUTEX_CMP_REQUEUE, 1, N(2), w + 1, 0));
	V(reap());
	V(F(w, FUTEX_WAKE, 10, 0, 0, 0));
	V(reap());
	V(F(w + 1, FUTEX_WAKE, 10, 0, 0, 0));
	V(reap());
	V(reap());
	sleeper(w, FUTEX_WAIT_BITSET, 1, 0);
	sleeper(w, FUTEX_WAIT_BITSET, 2, 0);
	usleep(50000);
	V(F(w, FUTEX_WAKE_BITSET, 10, 0, 0, 4));
	V(F(w, FUTEX_WAKE_BITSET, 10, 0, 0, 2));
	V(reap());
	V(F(w, FUTEX_WAKE_BITSET, 10, 0, 0, 3));
	V(reap());
	// WAKE_OP on both.
	sleeper(w, FUTEX_WAIT, 0, 0);
	sleeper(w + 1, FUTEX_WAIT, 0, 0);
	usleep(50000);
	V(F(w, FUTEX_WAKE_OP, 1, N(1), w + 1, FUTEX_OP(FUTEX_OP_ADD, 1, FUTEX_OP_CMP_GT, 0)));
	V(reap());
	V(F(w, FUTEX_WAKE_OP, 1, N(1), w + 1, FUTEX_OP(FUTEX_OP_ADD, 1, FUTEX_OP_CMP_GE, 1)));
	V(reap());
	V(w[1]);
	w[1] = 0;
}

static void onsig(int s) {}

static void restarts(void) {
	struct sigaction a = {.sa_handler = onsig};
	struct itimerval it = {{0, 0}, {0, 50000}};
	struct timespec t;
	sigaction(SIGALRM, &a, 0);
	setitimer(ITIMER_REAL, &it, 0);
	V(F(w, FUTEX_WAIT, 0, 0, 0, 0));
	setitimer(ITIMER_REAL, &it, 0);
	t = (struct timespec){2, 0};
	V(F(w, FUTEX_WAIT, 0, &t, 0, 0));
	setitimer(ITIMER_REAL, &it, 0);
	t = in(CLOCK_REALTIME, 2000);
	V(F(w, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 0, &t, 0, 1));
	a.sa_flags = SA_RESTART;
	sigaction(SIGALRM, &a, 0);
	setitimer(ITIMER_REAL, &it, 0);
	t = (struct timespec){0, 150000000};
	V(F(w, FUTEX_WAIT, 0, &t, 0, 0));
	// Stop and continue restart a wait with a timeout by restart_syscall.
	pid_t p = fork();
	if (!p) {
		t = (struct timespec){0, 200000000};
		long r = F(w, FUTEX_WAIT, 0, &t, 0, 0);
		_exit(r == -1 ? errno : 100);
	}
	usleep(30000);
	kill(p, SIGSTOP);
	usleep(30000);
	kill(p, SIGCONT);
	printf("stopped wait: %s\n", strerrorname_np(reap()));
}

static pthread_mutex_t *mu;

static void *locker(void *v) {
	long r = pthread_mutex_lock(mu);
	if (r == 0 || r == EOWNERDEAD) {
		if (r == EOWNERDEAD)
			pthread_mutex_consistent(mu);
		pthread_mutex_unlock(mu);
	}
	return (void *)r;
}

static void *dier(void *v) {
	pthread_mutex_lock(mu);
	usleep(200000);
	return 0;
}

static void mutexes(int pi, int robust, int shared) {
	pthread_mutexattr_t a;
	pthread_mutexattr_init(&a);
	pthread_mutexattr_setprotocol(&a, pi ? PTHREAD_PRIO_INHERIT : PTHREAD_PRIO_NONE);
	pthread_mutexattr_setrobust(&a, robust ? PTHREAD_MUTEX_ROBUST : PTHREAD_MUTEX_STALLED);
	pthread_mutexattr_setpshared(&a, shared ? PTHREAD_PROCESS_SHARED : PTHREAD_PROCESS_PRIVATE);
	mu = (void *)(w + 64);
	memset(mu, 0, sizeof *mu);
	pthread_mutex_init(mu, &a);
	printf("mutex pi %d robust %d shared %d\n", pi, robust, shared);
	pthread_t t[4];
	void *v;
	pthread_mutex_lock(mu);
	for (int i = 0; i < 4; i++)
		pthread_create(t + i, 0, locker, 0);
	usleep(30000);
	pthread_mutex_unlock(mu);
	for (int i = 0; i < 4; i++) {
		pthread_join(t[i], &v);
		printf(" %ld", (long)v);
	}
	puts("");
	if (shared) {
		pthread_mutex_lock(mu);
		struct timespec ts = in(CLOCK_REALTIME, 30);
		if (fork() == 0)
			_exit(pthread_mutex_timedlock(mu, &ts));
		printf("timedlock: %d\n", reap());
		pthread_mutex_unlock(mu);
	}
	if (!robust)
		return;
	pthread_create(t, 0, dier, 0);
	usleep(100000);
	pthread_create(t + 1, 0, locker, 0);
	pthread_join(t[0], 0);
	pthread_join(t[1], &v);
	printf("owner died: %ld\n", (long)v);
	if (!shared)
		return;
	for (int wait = 0; wait < 2; wait++) {
		int p[2];
		char c;
		pipe(p);
		if (fork() == 0) {
			pthread_mutex_lock(mu);
			write(p[1], "x", 1);
			usleep(wait * 60000);
			kill(getpid(), SIGKILL);
		}
		read(p[0], &c, 1);
		close(p[0]), close(p[1]);
		printf("process died: %ld ", (long)locker(0));
		printf("%d\n", reap());
	}
}

static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static int go;

static void *waiter(void *v) {
	pthread_mutex_lock(mu);
	while (!go)
		pthread_cond_wait(&cond, mu);
	pthread_mutex_unlock(mu);
	return 0;
}

static void conds(void) {
	pthread_t t[20];
	for (int i = 0; i < 20; i++)
		pthread_create(t + i, 0, waiter, 0);
	usleep(30000);
	pthread_mutex_lock(mu);
	go = 1;
	pthread_cond_broadcast(&cond);
	pthread_mutex_unlock(mu);
	for (int i = 0; i < 20; i++)
		pthread_join(t[i], 0);
	puts("cond: all");
}

static void *pilock(void *v) { // WAIT_REQUEUE_PI
	errno = 0;
	long r = F(w, FUTEX_WAIT_REQUEUE_PI_PRIVATE, 0, 0, w + 1, 0);
	long e = r ? errno : w[1] == (tid() | 0) || (w[1] & FUTEX_TID_MASK) == tid() ? 0 : -1;
	if (!r)
		F(w + 1, FUTEX_UNLOCK_PI_PRIVATE, 0, 0, 0, 0);
	return (void *)e;
}

static void pi(void) {
	pthread_t t[3];
	void *v;
	struct timespec ts = in(CLOCK_REALTIME, 30), tm = in(CLOCK_MONOTONIC, 30);
	w[0] = w[1] = w[2] = 0;
	V(F(w + 2, FUTEX_LOCK_PI_PRIVATE, 0, 0, 0, 0));
	V(w[2] == tid());
	V(F(w + 2, FUTEX_LOCK_PI_PRIVATE, 0, 0, 0, 0));
	V(F(w + 2, FUTEX_TRYLOCK_PI_PRIVATE, 0, 0, 0, 0));
	V(F(w + 2, FUTEX_WAIT_PRIVATE, tid(), &ms20, 0, 0));
	V(F(w + 2, FUTEX_UNLOCK_PI_PRIVATE, 0, 0, 0, 0));
	V(w[2]);
	V(F(w + 2, FUTEX_UNLOCK_PI_PRIVATE, 0, 0, 0, 0));
	w[2] = FUTEX_OWNER_DIED;
	V(F(w + 2, FUTEX_LOCK_PI_PRIVATE, 0, 0, 0, 0));
	V(w[2] == (FUTEX_OWNER_DIED | tid()));
	w[2] = 0x3ffffff0; // nobody
	V(F(w + 2, FUTEX_LOCK_PI_PRIVATE, 0, 0, 0, 0));
	V(F(w + 2, FUTEX_TRYLOCK_PI_PRIVATE, 0, 0, 0, 0));
	pid_t owner = fork();
	if (!owner)
		pause();
	w[2] = owner;
	ts = in(CLOCK_REALTIME, 30), tm = in(CLOCK_MONOTONIC, 60);
	V(F(w + 2, FUTEX_LOCK_PI_PRIVATE, 0, &ts, 0, 0));
	V(F(w + 2, FUTEX_TRYLOCK_PI_PRIVATE, 0, 0, 0, 0));
	V(F(w + 2, 13 | 128, 0, &tm, 0, 0)); // LOCK_PI2
	V(w[2] == (owner | FUTEX_WAITERS));
	kill(owner, SIGKILL);
	reap();
	for (int i = 0; i < 3; i++)
		pthread_create(t + i, 0, pilock, 0);
	usleep(50000);
	V(F(w, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0));
	V(F(w, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, N(1), w + 3, 0));
	V(F(w, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, N(100), w + 1, 0));
	for (int i = 0; i < 3; i++) {
		pthread_join(t[i], &v);
		printf("requeued: %ld\n", (long)v);
	}
	V(w[1]);
}

static void *deadlock(void *v) {
	long r = F(w + 11, FUTEX_LOCK_PI_PRIVATE, 0, 0, 0, 0);
	while (!(__atomic_load_n(w + 11, __ATOMIC_SEQ_CST) & FUTEX_WAITERS)) // the other is about to wait for it
		usleep(1000);
	usleep(30000);
	errno = 0;
	r = F(w + 10, FUTEX_LOCK_PI_PRIVATE, 0, 0, 0, 0);
	long e = errno;
	F(w + 11, FUTEX_UNLOCK_PI_PRIVATE, 0, 0, 0, 0);
	if (!r)
		F(w + 10, FUTEX_UNLOCK_PI_PRIVATE, 0, 0, 0, 0);
	return (void *)e;
}

static void deadlocks(void) {
	pthread_t t;
	void *v;
	w[10] = w[11] = 0;
	F(w + 10, FUTEX_LOCK_PI_PRIVATE, 0, 0, 0, 0);
	pthread_create(&t, 0, deadlock, 0);
	while (!__atomic_load_n(w + 11, __ATOMIC_SEQ_CST))
		usleep(1000);
	long r = F(w + 11, FUTEX_LOCK_PI_PRIVATE, 0, 0, 0, 0);
	printf("one of two: %ld\n", r);
	F(w + 11, FUTEX_UNLOCK_PI_PRIVATE, 0, 0, 0, 0);
	F(w + 10, FUTEX_UNLOCK_PI_PRIVATE, 0, 0, 0, 0);
	pthread_join(t, &v);
	printf("the other: %s\n", strerrorname_np((long)v));
}

struct waitv { uint64_t val, addr; uint32_t flags, res; };

static void *wake2(void *v) {
	usleep(30000);
	F(w + 2, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
	return 0;
}

static void futex2(void) {
	struct waitv v[3];
	struct timespec t = in(CLOCK_MONOTONIC, 20);
	memset(w, 0, 64);
	for (int i = 0; i < 3; i++)
		v[i] = (struct waitv){0, (uint64_t)(w + i), 2 | 128};
	V(syscall(449, v, 3, 0, &t, CLOCK_MONOTONIC));
	V(syscall(449, v, 0, 0, &t, CLOCK_MONOTONIC));
	V(syscall(449, v, 129, 0, &t, CLOCK_MONOTONIC));
	V(syscall(449, v, 3, 1, &t, CLOCK_MONOTONIC));
	V(syscall(449, v, 3, 0, &t, CLOCK_BOOTTIME));
	V(syscall(449, v, 3, 0, &bad, CLOCK_MONOTONIC));
	V(syscall(449, BAD, 3, 0, &t, CLOCK_MONOTONIC));
	V(syscall(449, 0, 3, 0, &t, CLOCK_MONOTONIC));
	v[1].val = 1;
	V(syscall(449, v, 3, 0, 0, CLOCK_MONOTONIC));
	v[1].val = 0;
	v[1].res = 1;
	V(syscall(449, v, 3, 0, 0, CLOCK_MONOTONIC));
	v[1].res = 0;
	v[1].flags = 0;
	V(syscall(449, v, 3, 0, 0, CLOCK_MONOTONIC));
	v[1].flags = 130;
	pthread_t th;
	pthread_create(&th, 0, wake2, 0);
	V(syscall(449, v, 3, 0, 0, CLOCK_MONOTONIC));
	pthread_join(th, 0);
	V(syscall(454, w, -1L, 1, 130));
	V(syscall(454, w, 0xffffffffL, 1, 130));
	V(syscall(454, w, 0L, 1, 130));
	V(syscall(454, w, 1L, 1, 128));
	V(syscall(455, w, 1L, 1L, 130, 0, CLOCK_MONOTONIC));
	V(syscall(455, w, 0L, 0L, 130, 0, CLOCK_MONOTONIC));
	V(syscall(455, w, 0L, 1L, 130, &t, CLOCK_MONOTONIC));
	V(syscall(455, w, 0L, 1L, 130, &t, 77));
	V(syscall(455, w, 1L << 32, 1L, 130, &t, CLOCK_MONOTONIC));
	pthread_create(&th, 0, wake2, 0);
	V(syscall(455, w + 2, 0L, 1L, 130, 0, CLOCK_MONOTONIC));
	pthread_join(th, 0);
	V(syscall(456, v, 0, 1, 1));
	V(syscall(456, v, 1, 1, 1));
	V(syscall(456, v, 0, -1, 1));
	V(syscall(456, 0, 0, 1, 1));
	v[0].val = 3;
	V(syscall(456, v, 0, 1, 1));
}

static void robust(void) {
	void *h;
	size_t n;
	V(syscall(SYS_set_robust_list, w, 23));
	V(syscall(SYS_get_robust_list, 0, &h, &n));
	V(n);
	V(syscall(SYS_get_robust_list, 0, BAD, &n));
	V(syscall(SYS_get_robust_list, 0x3fffff, &h, &n));
	// A child with a robust list of its own making: circular, with a held word, with bad pointers.
	for (int k = 0; k < 4; k++) {
		memset(w, 0, 4096);
		if (fork() == 0) {
			struct { void *next; long off; void *pending; } *l = (void *)(w + 256);
			void **e = (void *)(w + 512);
			l->next = e;
			l->off = 8;
			*e = k == 0 ? (void *)l : k == 1 ? (void *)e : k == 2 ? BAD : (void *)l;
			w[514] = tid() | FUTEX_WAITERS;
			if (k == 3) {
				l->pending = w + 600;
				w[602] = tid();
			}
			syscall(SYS_set_robust_list, l, sizeof *l);
			_exit(0);
		}
		reap();
		printf("robust %d: %#x %#x\n", k, w[514], w[602]);
	}
}

int main(void) {
	w = mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	setvbuf(stdout, 0, _IONBF, 0);
	alarm(50);
	errors();
	ops();
	processes();
	restarts();
	alarm(40);
	for (int i = 0; i < 8; i++)
		mutexes(i & 1, i >> 1 & 1, i >> 2);
	pthread_mutex_init(mu = (void *)(w + 64), 0);
	conds();
	pi();
	deadlocks();
	futex2();
	robust();
	return 0;
}
