// Executes programs of system calls, one after another, each in namespaces, a root and processes of its own. It is the same on the host and in moat.
//
//   diff < stream
//
// A program is "P CALLS USER QUIET NET" and a line for each call, "ACTOR RESULT NUMBER ARGUMENT..."; the answer is "= BYTES" and the transcript. Actors: 0 is a process, 1 a thread
// of it, 2 a process that 0 forked; they take turns. A call that waits, which is
// one that sleeps for QUIET microseconds, is left waiting, and what becomes of it shows after the calls of others.
// Arguments: a number; $N the result of call N, $N.W word W of its first buffer; "HEX bytes; =LEN,XYZ a Y, Xs and a Z; *LEN:SPEC a buffer that is printed afterwards; { 4:ARG 8:ARG "HEX }SPEC a
// structure; ^ before one of these puts it at the end of a page; ~ a pointer to nothing; &h a handler, &r a restorer. SPEC is letters with a number of bytes: x printed,
// . skipped, z zero or not, d a device and v one in two words (printed as D and the number: only which are the same matters), i an inode's number (as I, with its device), with
// commas between.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/futex.h>
#include <net/if.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CALLS = 256, ACTORS = 3, LINE = 32768, TEXT = 6000, ARENA = 1 << 18, BORDERS = 8, SIGNALS = 1000 };
#define WINDOW ((char *)0x200000000) // for mmap and its like: 1 MiB, mapped by programs
#define COMMON ((char *)0x210000000) // 64 KiB, shared by all actors
#define PLACE(a) ((char *)0x220000000 + (a) * 0x1000000)

struct call {
	int actor, done, len; // done: 0 not yet, 1 made, 2 waits
	char res;
	long ret;
	int words[2];
	char line[LINE], text[TEXT];
};
static struct shared {
	int n, user, quiet, net;
	// turn counts changes: all sleep on it. An actor may run its calls from at[] below limit[].
	int turn, at[ACTORS], limit[ACTORS], ready[ACTORS], quit;
	char sigs[ACTORS][SIGNALS];
	struct call call[CALLS];
} *sh;

static __thread int me = -1;
static __thread sigjmp_buf fault;
static __thread volatile int guarded;
static __thread char faulted[64];
static __thread char *bump;
static __thread int border;
static __thread struct out { char *at, *spec; int len; } outs[64];
static __thread int nouts;

static void die(const char *what) {
	dprintf(2, "diff: %s: %s\n", what, strerror(errno));
	_exit(99);
}
static long futex(int *w, int op, int v, struct timespec *t) { return syscall(SYS_futex, w, op, v, t, 0, 0); }
static void changed(void) {
	__atomic_add_fetch(&sh->turn, 1, __ATOMIC_SEQ_CST);
	futex(&sh->turn, FUTEX_WAKE, 100, 0);
}
static const char *errname(int e) {
	static __thread char b[16];
	const char *n = strerrorname_np(e);
	if (n)
		return n;
	snprintf(b, sizeof b, "E%d", e);
	return b;
}

// Signals.

static void handler(int s, siginfo_t *i, void *u) {
	if (guarded && (s == SIGSEGV || s == SIGBUS)) {
		snprintf(faulted, sizeof faulted, "%s code %d at %#lx", s == SIGBUS ? "SIGBUS" : "SIGSEGV", i->si_code, (long)i->si_addr);
		siglongjmp(fault, 1);
	}
	int a = me < 0 ? 0 : me, n = strlen(sh->sigs[a]);
	if (n < SIGNALS - 100)
		snprintf(sh->sigs[a] + n, SIGNALS - n, " [%d code %d pid %d]", s, i->si_code, i->si_code <= 0 && i->si_code != -2 ? i->si_pid : i->si_code > 0 && s == SIGCHLD ? i->si_pid : 0);
	if (s == SIGSEGV || s == SIGBUS || s == SIGFPE || s == SIGILL)
		_exit(77);
}
__attribute__((naked)) static void restorer(void) { __asm__("mov $15, %eax\nsyscall"); }

// Arguments.

static char *place(int len, int at_border) {
	char *p;
	if (at_border && border < BORDERS && len <= 4096) {
		p = PLACE(me) + ARENA + 8192 * border++ + 4096 - len;
	} else {
		p = bump;
		bump += (len + 31) & ~15L;
		if (bump > PLACE(me) + ARENA)
			return (char *)8;
	}
	memset(p, 0x5a, len);
	return p;
}

static int hex(int c) { return c <= '9' ? c - '0' : c - 'a' + 10; }

static long argument(char **tok, int *i);

static long structure(char **tok, int *i, int at_border) {
	static __thread char item[8][4096];
	static __thread int depth;
	int n = 0, d = depth++;
	while (tok[*i] && tok[*i][0] != '}' && n < 4000) {
		char *t = tok[*i];
		if (t[0] == '#') { // raw bytes
			for (t++; t[0] && t[1] && n < 4000; t += 2)
				item[d][n++] = hex(t[0]) << 4 | hex(t[1]);
			++*i;
			continue;
		}
		int w = 8;
		if (t[0] >= '1' && t[0] <= '8' && t[1] == ':')
			w = t[0] - '0', tok[*i] = t + 2;
		long v = argument(tok, i);
		memcpy(item[d] + n, &v, w), n += w;
	}
	depth--;
	char *p = place(n, at_border);
	if (p != (char *)8)
		memcpy(p, item[d], n);
	if (tok[*i] && tok[*i][1] && nouts < 64)
		outs[nouts++] = (struct out){p, tok[*i] + 1, n};
	if (tok[*i])
		++*i;
	return (long)p;
}

static long argument(char **tok, int *i) {
	char *t = tok[*i];
	++*i;
	int b = *t == '^';
	t += b;
	switch (*t) {
	case '$': {
		char *e;
		int n = strtol(t + 1, &e, 10);
		if (n < 0 || n >= sh->n || sh->call[n].done != 1)
			return -1;
		return *e == '.' ? sh->call[n].words[atoi(e + 1) & 1] : sh->call[n].ret;
	}
	case '"': {
		int n = strlen(t + 1) / 2;
		char *p = place(n, b);
		if (p != (char *)8)
			for (int k = 0; k < n; k++)
				p[k] = hex(t[1 + 2 * k]) << 4 | hex(t[2 + 2 * k]);
		return (long)p;
	}
	case '=': {
		int n = atoi(t + 1);
		char *p = place(n, b), *k = strchr(t, ',');
		if (p != (char *)8 && k && strlen(k) == 4 && n)
			memset(p, k[1], n), p[0] = k[2], p[n - 1] = k[3];
		return (long)p;
	}
	case '*': {
		char *e;
		int n = strtol(t + 1, &e, 10);
		char *p = place(n, b);
		if (p != (char *)8 && nouts < 64)
			outs[nouts++] = (struct out){p, *e == ':' ? e + 1 : "", n};
		return (long)p;
	}
	case '{': return structure(tok, i, b);
	case '~': return 8;
	case '&': return t[1] == 'h' ? (long)handler : (long)restorer;
	}
	return strtoull(t, 0, 0);
}

// The transcript.

static void put(struct call *c, const char *f, ...) {
	va_list v;
	va_start(v, f);
	if (c->len < TEXT - 1) {
		int n = vsnprintf(c->text + c->len, TEXT - c->len, f, v);
		c->len = c->len + n < TEXT ? c->len + n : TEXT - 1;
	}
	va_end(v);
}

static void bytes(struct call *c, unsigned char *p, int n) {
	for (int i = 0; i < n;) {
		int k = i;
		while (k < n && p[k] == p[i])
			k++;
		if (k - i >= 8)
			put(c, p[i] == 0x5a ? "_%d " : "%02x*%d ", p[i] == 0x5a ? k - i : p[i], k - i), i = k;
		else
			put(c, "%02x", p[i++]);
	}
}

static uint64_t number(unsigned char *p, int n, char kind) {
	uint64_t v = 0;
	memcpy(&v, p, n < 8 ? n : 8);
	return kind == 'v' ? makedev(v & 0xffffffff, v >> 32) : v;
}

// device is the device that o tells, wherever in it.
static uint64_t device(struct out *o) {
	unsigned char *p = (void *)o->at;
	for (char *s = o->spec; *s;) {
		char kind = *s++;
		if (kind == ',')
			continue;
		int n = strtol(s, &s, 10);
		if (kind == 'd' || kind == 'v')
			return number(p, n, kind);
		p += n;
	}
	return 0;
}

static void dump(struct call *c, struct out *o) {
	put(c, " <");
	unsigned char *p = (void *)o->at, *end = p + o->len;
	if (*o->spec)
		for (int k = 0; k < o->len; k++)
			if (p[k] != 0x5a)
				goto any;
	put(c, "%s>", *o->spec ? "untouched" : "");
	return;
any:
	for (char *s = o->spec; *s && p < end;) {
		char kind = *s++;
		if (kind == ',')
			continue;
		int n = strtol(s, &s, 10);
		if (n <= 0 || n > end - p)
			n = end - p;
		switch (kind) {
		case 'x': bytes(c, p, n); break;
		case 'z': {
			int set = 0;
			for (int i = 0; i < n; i++)
				set |= p[i];
			put(c, "%s", set ? "set" : "0");
			break;
		}
		case 'd': case 'v': put(c, "D%llu", (unsigned long long)number(p, n, kind)); break;
		case 'i': put(c, "I%llu.%llu", (unsigned long long)number(p, n, kind), (unsigned long long)device(o)); break;
		}
		if (kind != '.')
			put(c, " ");
		p += n;
	}
	put(c, ">");
}

static volatile char sink;

// extra are the calls that the kernel does not have: a child that pauses, one that exits, reading and writing memory.
static long extra(int nr, long *a) {
	pid_t p;
	switch (nr) {
	case 1000: case 1001:
		p = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
		if (!p) {
			if (nr == 1001)
				_exit(a[0]);
			for (;;)
				pause();
		}
		// Whether it has ended is not to depend on the machine.
		for (siginfo_t i; nr == 1001 && p > 0 && waitid(P_PID, p, &i, WEXITED | WNOWAIT) < 0 && errno == EINTR;)
			;
		return p;
	case 1002: case 1003:
		faulted[0] = 0;
		guarded = 1;
		long sum = 0;
		if (!sigsetjmp(fault, 0))
			for (long k = 0; k < a[1]; k++)
				if (nr == 1002)
					((volatile char *)a[0])[k] = a[2];
				else
					sum = sum * 31 + ((volatile unsigned char *)a[0])[k];
		guarded = 0;
		if (faulted[0]) {
			sigset_t s;
			sigemptyset(&s), sigaddset(&s, SIGSEGV), sigaddset(&s, SIGBUS);
			sigprocmask(SIG_UNBLOCK, &s, 0);
		}
		return sum & 0xffffff;
	}
	return -1;
}

static void make(struct call *c) {
	char line[LINE], *tok[400];
	int n = 0;
	strcpy(line, c->line);
	for (char *s = 0, *t = strtok_r(line, " ", &s); t && n < 399; t = strtok_r(0, " ", &s))
		tok[n++] = t;
	tok[n] = 0;
	// Nothing of an earlier call is read behind what this one writes.
	if (bump > PLACE(me))
		memset(PLACE(me), 0, (bump < PLACE(me) + ARENA ? bump : PLACE(me) + ARENA) - PLACE(me));
	bump = PLACE(me), border = 0, nouts = 0;
	for (char *b = PLACE(me) + ARENA; b < PLACE(me) + ARENA + 8192 * BORDERS; b += 8192)
		*b = 0;
	int nr = atoi(tok[2]), i = 3, k = 0;
	long a[6] = {0};
	while (tok[i] && k < 6)
		a[k++] = argument(tok, &i);
	errno = 0;
	faulted[0] = 0;
	long r = nr >= 1000 ? extra(nr, a) : syscall(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
	int e = errno;
	if ((nr == SYS_fork || nr == SYS_vfork) && !r)
		_exit(3);
	// A process that was killed, or another that got a signal, is given the time to show it.
	if (!r && (nr == SYS_kill || nr == SYS_tkill || nr == SYS_tgkill || nr == SYS_pidfd_send_signal || nr == SYS_rt_sigqueueinfo || nr == SYS_rt_tgsigqueueinfo)) {
		struct timespec t = {0, sh->quiet * 500L};
		syscall(SYS_nanosleep, &t, 0);
	}
	c->ret = r;
	// What a link to something without a name ends with is its inode's number.
	char *link = nouts && (nr == SYS_readlink || nr == SYS_readlinkat) && r > 0 ? memchr(outs[0].at, '[', r) : 0;
	if (link)
		memset(link, 0x5a, outs[0].at + r - link);
	if (r == -1 && e)
		put(c, "%s", errname(e));
	else if (link)
		put(c, "link");
	else if (faulted[0])
		put(c, "%s", faulted), e = 0;
	else if (c->res == 'z')
		put(c, r ? "positive" : "0");
	else if (c->res == 'a' && (r >> 32 != 2))
		put(c, "A%lu", r);
	else if (c->res == 'i')
		put(c, "I%lu", r);
	else
		put(c, c->res == 'a' ? "%#lx" : "%ld", r);
	for (int k = 0; k < nouts; k++) {
		if (!k && outs[k].len >= 4)
			memcpy(c->words, outs[k].at, outs[k].len < 8 ? 4 : 8);
		if (outs[k].at != (char *)8)
			dump(c, &outs[k]);
	}
	if (sh->sigs[me][0])
		put(c, "%s", sh->sigs[me]), sh->sigs[me][0] = 0;
	__atomic_store_n(&c->done, 1, __ATOMIC_SEQ_CST);
}

static void actor(void) {
	stack_t ss = {.ss_sp = PLACE(me) + 0x800000, .ss_size = 65536};
	sigaltstack(&ss, 0);
	__atomic_store_n(&sh->ready[me], syscall(SYS_gettid), __ATOMIC_SEQ_CST);
	changed();
	for (;;) {
		int turn = __atomic_load_n(&sh->turn, __ATOMIC_SEQ_CST), i = __atomic_load_n(&sh->at[me], __ATOMIC_SEQ_CST);
		if (i < __atomic_load_n(&sh->limit[me], __ATOMIC_SEQ_CST)) {
			make(&sh->call[i]);
			__atomic_store_n(&sh->at[me], i + 1, __ATOMIC_SEQ_CST);
			if (i + 1 >= __atomic_load_n(&sh->limit[me], __ATOMIC_SEQ_CST))
				changed();
			continue;
		}
		futex(&sh->turn, FUTEX_WAIT, turn, 0);
	}
}

static int second(void *p) {
	me = 1;
	actor();
	return 0;
}

#include <pthread.h>
static void *thread(void *p) {
	second(0);
	return 0;
}

static void memory(int a) {
	char *p = mmap(PLACE(a), ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	mmap(PLACE(a) + 0x800000, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	for (int i = 0; i < BORDERS; i++)
		mmap(p + ARENA + 8192 * i, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

static void process(void) {
	struct rlimit none = {0, 0}, files = {100, 100}, size = {1 << 26, 1 << 26}, procs = {200, 200}, pending = {100, 100}, locked = {1 << 20, 1 << 20}, mq = {819200, 819200};
	setpriority(PRIO_PROCESS, 0, 0); // whatever the fuzzer's is
	setrlimit(RLIMIT_CORE, &none), setrlimit(RLIMIT_NOFILE, &files), setrlimit(RLIMIT_FSIZE, &size), setrlimit(RLIMIT_SIGPENDING, &pending), setrlimit(RLIMIT_MEMLOCK, &locked);
	setrlimit(RLIMIT_NICE, &none), setrlimit(RLIMIT_RTPRIO, &none), setrlimit(RLIMIT_MSGQUEUE, &mq);
	if (sh->user)
		setrlimit(RLIMIT_NPROC, &procs);
	// Nobody may change the machine, and the host's root may have been given less than moat's.
	static const int none_of[] = {16 /* modules */, 17 /* raw I/O */, 20 /* accounting */, 22 /* boot */, 23 /* nice */, 24 /* resources */, 25 /* time */, 27 /* mknod */, 34 /* syslog */, 35, 37, 38, 39, 40};
	struct { unsigned version; int pid; } header = {0x20080522, 0};
	unsigned caps[6] = {0};
	syscall(SYS_capget, &header, caps);
	for (int i = 0; i < sizeof none_of / sizeof *none_of; i++) {
		int c = none_of[i];
		prctl(PR_CAPBSET_DROP, c);
		for (int k = 0; k < 3; k++)
			caps[3 * (c / 32) + k] &= ~(1U << c % 32);
	}
	if (syscall(SYS_capset, &header, caps))
		die("capset");
	setsid();
	if (setgroups(0, 0) || sh->user && (setresgid(1000, 1000, 1000) || setresuid(1000, 1000, 1000)))
		die("setuid");
	prctl(PR_SET_DUMPABLE, 1);
	int null = open("/dev/null", O_RDWR);
	dup2(null, 0), dup2(null, 1), dup2(null, 2);
	close_range(3, ~0U, 0);
	mmap(COMMON, 65536, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	for (int i = 0; i < ACTORS; i++)
		memory(i);
	struct sigaction sa = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
	static const int sigs[] = {SIGSEGV, SIGBUS, SIGUSR1, SIGUSR2, 34, 35, SIGALRM, SIGIO, SIGPIPE, SIGXFSZ, SIGHUP};
	for (int i = 0; i < sizeof sigs / sizeof *sigs; i++)
		sigaction(sigs[i], &sa, 0);
	pthread_t t;
	me = 0;
	if (pthread_create(&t, 0, thread, 0))
		die("thread");
	while (!__atomic_load_n(&sh->ready[1], __ATOMIC_SEQ_CST))
		usleep(100);
	if (!fork()) {
		me = 2;
		actor();
	}
	while (!__atomic_load_n(&sh->ready[2], __ATOMIC_SEQ_CST))
		usleep(100);
	actor();
}

// The controller is init of the PID namespace.

static int statfd[ACTORS];
// state is the letter of /proc/PID/stat; X if the task is gone.
static char state(int a) {
	char b[512];
	int n = pread(statfd[a], b, sizeof b - 1, 0);
	if (n <= 0)
		return 'X';
	b[n] = 0;
	char *p = strrchr(b, ')');
	return p ? p[2] : 'X';
}

static long now_us(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000L + t.tv_nsec / 1000;
}

enum { LATE_US = 5000000, SOON_US = 300 };

static void nap(int turn, long us) {
	struct timespec t = {0, us * 1000};
	futex(&sh->turn, FUTEX_WAIT, turn, &t);
}

// settled waits until actor a has made its calls below limit, and returns 0; or until it sleeps: 'S'; or is gone: 'X'; or has run for too long: 'L'. It has slept since
// the time still, if it sleeps now and that is not 0.
static char settled(int a, int limit, long still) {
	long start = now_us();
	int was = -1, asleep = still != 0;
	for (;;) {
		int turn = __atomic_load_n(&sh->turn, __ATOMIC_SEQ_CST), at = __atomic_load_n(&sh->at[a], __ATOMIC_SEQ_CST);
		if (at >= limit)
			return 0;
		long now = now_us();
		if (at != was) {
			if (was >= 0 || !asleep) {
				was = at, start = now, asleep = 0;
				nap(turn, SOON_US);
				continue;
			}
			was = at;
		}
		char s = state(a);
		if (s == 'X' || s == 'Z')
			return __atomic_load_n(&sh->at[a], __ATOMIC_SEQ_CST) >= limit ? 0 : 'X';
		if (s != 'S' && s != 'T' && s != 't')
			asleep = 0;
		else if (!asleep)
			asleep = 1, still = now;
		else if (now - still > sh->quiet)
			return 'S';
		if (now - start > LATE_US)
			return 'L';
		nap(turn, sh->quiet / 4);
	}
}

static void control(void) {
	int waits[ACTORS], gone[ACTORS] = {0};
	for (int a = 0; a < ACTORS; a++) {
		waits[a] = -1;
		char p[64];
		for (int i = 0; !__atomic_load_n(&sh->ready[a], __ATOMIC_SEQ_CST) && i < 50000; i++)
			usleep(100);
		snprintf(p, sizeof p, "/proc/%d/task/%d/stat", sh->ready[a], sh->ready[a]);
		statfd[a] = open(p, O_RDONLY);
	}
	for (int i = 0; i < sh->n;) {
		struct call *c = &sh->call[i];
		int a = c->actor, pending = 0, j = i + 1;
		for (int k = 0; k < ACTORS; k++)
			pending += waits[k] >= 0;
		if (waits[a] >= 0 || gone[a]) {
			put(c, gone[a] ? "gone" : "busy");
			i++;
			continue;
		}
		while (!pending && j < sh->n && sh->call[j].actor == a)
			j++;
		__atomic_store_n(&sh->at[a], i, __ATOMIC_SEQ_CST);
		__atomic_store_n(&sh->limit[a], j, __ATOMIC_SEQ_CST);
		changed();
		char s = settled(a, j, 0);
		int at = __atomic_load_n(&sh->at[a], __ATOMIC_SEQ_CST);
		if (s) {
			// It must not go on by itself when it wakes.
			__atomic_store_n(&sh->limit[a], at + 1, __ATOMIC_SEQ_CST);
			if (s == 'S')
				waits[a] = at, put(&sh->call[at], "waits: ");
			else if (s == 'L') {
				put(&sh->call[at], "runs for too long");
				return;
			} else
				gone[a] = 1, put(&sh->call[at], "gone");
			i = at + 1;
		} else
			i = j;
		// Those that waited may have been woken, also in turn.
		for (int again = 1; pending && again;) {
			long since = now_us();
			again = 0;
			for (int k = 0; k < ACTORS; k++)
				if (waits[k] >= 0 && k != a || waits[k] >= 0 && waits[k] != at) {
					char s = settled(k, waits[k] + 1, since);
					if (s == 'S')
						continue;
					put(&sh->call[at], s == 0 ? " (then %d)" : " (then %d gone)", waits[k]);
					if (s)
						gone[k] = 1;
					waits[k] = -1, again = 1;
				}
		}
	}
	long since = now_us();
	for (int a = 0; a < ACTORS; a++) // those that have done their part sleep when they have taken all signals
		if (waits[a] < 0 && !gone[a])
			settled(a, sh->n + 1, since);
	for (int a = 0; a < ACTORS; a++)
		if (sh->sigs[a][0])
			put(&sh->call[sh->n - 1], " signals %d%s", a, sh->sigs[a]);
}

static void node(const char *name, int minor) {
	if (mknod(name, S_IFCHR | 0666, makedev(1, minor)) || chmod(name, 0666))
		die(name);
}

static void stage(void) {
	if (mount("", "/", 0, MS_REC | MS_PRIVATE, 0) || mount("root", "/mnt", "tmpfs", 0, "mode=755,size=64m"))
		die("/mnt");
	mkdir("/mnt/dev", 0755), mkdir("/mnt/proc", 0755), mkdir("/mnt/tmp", 0777), chmod("/mnt/tmp", 01777), mkdir("/mnt/tmp/w", 0755), mkdir("/mnt/old", 0755);
	if (sh->user && chown("/mnt/tmp/w", 1000, 1000))
		die("chown");
	node("/mnt/dev/null", 3), node("/mnt/dev/zero", 5), node("/mnt/dev/full", 7);
	if (mount("proc", "/mnt/proc", "proc", 0, 0))
		die("proc");
	if (syscall(SYS_pivot_root, "/mnt", "/mnt/old") || umount2("/old", MNT_DETACH) || rmdir("/old") || chdir("/tmp/w"))
		die("pivot_root");
	umask(022);
	sethostname("fuzz", 4), setdomainname("(none)", 6);
	static const long dfl[4];
	for (int s = 1; s < 65; s++)
		syscall(SYS_rt_sigaction, s, dfl, 0, 8L);
	pid_t p = fork();
	if (!p)
		process();
	control();
	_exit(0);
}

// network makes a network namespace, whose lo is up.
static void network(void) {
	unshare(CLONE_NEWNET);
	int s = socket(AF_INET, SOCK_DGRAM, 0);
	struct ifreq r = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
	ioctl(s, SIOCSIFFLAGS, &r);
	close(s);
}

int main(void) {
	static char line[LINE];
	sh = mmap(0, sizeof *sh, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (sh == MAP_FAILED)
		die("mmap");
	signal(SIGPIPE, SIG_IGN);
	close_range(3, ~0U, 0);
	network();
	while (fgets(line, sizeof line, stdin)) {
		if (sscanf(line, "P %d %d %d %d", &sh->n, &sh->user, &sh->quiet, &sh->net) != 4 || sh->n < 0 || sh->n > CALLS)
			die("header");
		sh->turn = sh->quit = 0;
		memset(sh->at, 0, sizeof sh->at), memset(sh->limit, 0, sizeof sh->limit), memset(sh->ready, 0, sizeof sh->ready);
		memset(sh->sigs, 0, sizeof sh->sigs);
		for (int i = 0; i < sh->n; i++) {
			struct call *c = &sh->call[i];
			if (!fgets(c->line, LINE, stdin))
				die("line");
			c->line[strcspn(c->line, "\n")] = 0;
			c->done = c->len = 0, c->text[0] = 0, c->words[0] = c->words[1] = -1, c->ret = -1;
			if (sscanf(c->line, "%d %c", &c->actor, &c->res) != 2 || c->actor < 0 || c->actor >= ACTORS)
				die("call");
		}
		fflush(stdout);
		pid_t p = fork();
		if (!p) {
			int null = open("/dev/null", O_RDWR);
			dup2(null, 0), dup2(null, 1);
			if (sh->net) // connections of earlier programs may still hold ports
				network();
			if (unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS))
				die("unshare");
			pid_t q = fork();
			if (!q)
				stage();
			int st;
			waitpid(q, &st, 0);
			_exit(WIFEXITED(st) ? WEXITSTATUS(st) : 98);
		}
		int st = 0;
		waitpid(p, &st, 0);
		size_t total = 0;
		for (int i = 0; i < sh->n; i++)
			total += strlen(sh->call[i].text) + 1;
		printf("= %d %zu\n", st, total);
		for (int i = 0; i < sh->n; i++)
			puts(sh->call[i].text);
		fflush(stdout);
	}
	return 0;
}
