// Throws system calls at the kernel under test: numbers at random, arguments most of them by kind (rawargs.h). It never minds what comes back.
//
//   raw SEED SECONDS SLOTS < signatures
//
// A signature is "NUMBER KIND KIND ...". Each slot has an init in namespaces of its own that starts worker after worker and is replaced itself after some. A worker is a
// process of one to three threads that make calls at once; a timer's signals interrupt those that wait, and one that makes no progress all the same is killed. At the
// end a line tells how many calls were answered, and which were being made when a worker was killed for that.
//
// A worker may run wild, on any kernel: a child that clone(2) made on its stack takes a signal there, and leaves the parent to return to wherever, so that any instruction of
// this program is executed with any registers. So what workers can write proves nothing. Guards are pages that were filled before the first fork and that no process
// may write since, but all have mapped: one that changes has two owners.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "rawargs.h"

enum { MAX = 600, SLOTS = 32, THREADS = 3, CALLS = 5000, WORKERS = 40, TICK_US = 5000, STUCK_MS = 80, FAULTS = 200 };
static struct sig { int known, n; char kind[6][16]; } sigs[MAX];
static struct pages {
	// A slot's page that its workers write: counted if it makes sense, never obeyed. Other slots do not have it.
	union {
		struct { uint64_t answered, nr, faults; } t[THREADS];
		char page[4096];
	};
	// What its init alone writes.
	union {
		struct { uint64_t calls, workers, killed, faults, wild, broken, stuck[MAX + 1]; };
		char page2[8192];
	};
} *volatile pages, *volatile mine;
enum { GUARDS = 1 << 18 };
static const uint64_t *guard[2]; // a shared and a private one
static int slot, null; // null is opened first: a worker may remove its name

static __thread sigjmp_buf again;
static __thread int number = -1;

static void handler(int s) {
	if ((s == SIGSEGV || s == SIGBUS || s == SIGILL || s == SIGTRAP || s == SIGFPE || s == SIGSYS) && number >= 0)
		siglongjmp(again, 1);
}

static void arm(void) {
	struct itimerval t = {{0, TICK_US}, {0, TICK_US}};
	syscall(SYS_setitimer, ITIMER_REAL, &t, 0);
}

static void signals(void) {
	struct sigaction sa = {.sa_handler = handler, .sa_flags = SA_ONSTACK | SA_NODEFER};
	for (int s = 1; s < 65; s++)
		sigaction(s, &sa, 0);
}

static void unblock(void) {
	uint64_t none = 0;
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, 0, 8);
}

static void memory(void) {
	mmap(arena, ARENA + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

static void descriptors(void) {
	int p[2], on = 1;
	open("/tmp/w", O_RDONLY), open("a", O_RDWR | O_CREAT, 0666), pipe2(p, O_NONBLOCK), pipe2(p, 0);
	for (int type = 1; type < 6; type++)
		socketpair(AF_UNIX, type | SOCK_NONBLOCK * (type & 1), 0, p);
	syscall(SYS_epoll_create1, 0), syscall(SYS_eventfd2, 3, O_NONBLOCK), syscall(SYS_timerfd_create, 1, O_NONBLOCK), syscall(SYS_inotify_init1, O_NONBLOCK), syscall(SYS_memfd_create, "m", 2);
	open("/dev/ptmx", O_RDWR | O_NONBLOCK), open("/proc/self/mem", O_RDWR), open("/proc/self/ns/user", O_RDONLY), open("/proc/self", O_RDONLY), syscall(SYS_pidfd_open, getpid(), 0);
	socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), socket(AF_INET, SOCK_DGRAM, 0), socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK, 0), socket(AF_INET6, SOCK_STREAM, 0), socket(AF_INET, SOCK_RAW, 1), socket(AF_PACKET, SOCK_RAW, 0x300);
	for (int k = 0; k < 20; k += 1 + upto(9))
		socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK, k);
	uint64_t set = 0x200;
	syscall(SYS_signalfd4, -1, &set, 8, O_NONBLOCK), open("/dev/zero", O_RDWR), open(".", O_PATH);
	int l = socket(AF_INET, SOCK_STREAM, 0), c = socket(AF_INET, SOCK_STREAM, 0);
	struct { uint16_t f, port; uint32_t ip; char z[8]; } sa = {2, 0, 0x100007f};
	socklen_t n = sizeof sa;
	bind(l, (void *)&sa, n), listen(l, 4), getsockname(l, (void *)&sa, &n), fcntl(c, F_SETFL, O_NONBLOCK), connect(c, (void *)&sa, n), setsockopt(c, 6, 1, &on, 4);
}

static uint64_t pattern(int which, int i) { return 0x6d6f617467756172 ^ (uint64_t)which << 56 ^ (uint64_t)i * 0x9e3779b97f4a7c15; }

static void guards(void) {
	for (int k = 0; k < 2; k++) {
		uint64_t *g = mmap((char *)0x510000000000 + k * (1ULL << 40), GUARDS, PROT_READ | PROT_WRITE, (k ? MAP_PRIVATE : MAP_SHARED) | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		for (int i = 0; i < GUARDS / 8; i++)
			g[i] = pattern(k, i);
		mprotect(g, GUARDS, PROT_READ), guard[k] = g;
	}
}

// changed is where a guard is not what it was, and one more; 0 if it is.
static uint64_t changed(void) {
	for (int k = 0; k < 2; k++)
		for (int i = 0; i < GUARDS / 8; i++)
			if (guard[k][i] != pattern(k, i))
				return (uint64_t)&guard[k][i] + 1;
	return 0;
}

// call makes a system call where it stands: a child that shares its parent's memory must not use the stack, which a function of the C library does.
static inline __attribute__((always_inline)) long call(long nr, const uint64_t *a) {
	register uint64_t r10 __asm__("r10") = a[3], r8 __asm__("r8") = a[4], r9 __asm__("r9") = a[5];
	long r;
	__asm__ volatile("syscall" : "=a"(r) : "a"(nr), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
	return r;
}

// answers makes calls, n of them, as thread t.
static void answers(int t, uint64_t seed, volatile int n) {
	uint64_t past[16] = {0};
	volatile int faults = 0;
	state = seed * 0x9e3779b97f4a7c15 | 1, recent = past;
	for (int i = 0; i < 8; i++)
		rnd();
	stack_t ss = {.ss_sp = mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), .ss_size = 65536};
	sigaltstack(&ss, 0);
	number = 0;
	if (sigsetjmp(again, 0)) {
		if (++faults > FAULTS)
			return;
		mine->t[t].faults++, memory(), unblock();
	}
	while (n-- > 0) {
		uint64_t a[6];
		int nr = upto(16) ? upto(475) : wild();
		int fork = nr == SYS_clone || nr == SYS_fork || nr == SYS_vfork || nr == SYS_clone3, dead = 0;
		struct sig *s = nr >= 0 && nr < MAX && sigs[nr].known && upto(5) ? &sigs[nr] : 0;
		for (int k = 0; k < 6; k++)
			a[k] = s && k < s->n ? typed(s->kind[k]) : wild();
		if (s)
			special(nr, a);
		switch (nr) { // What ends the worker, or takes its means of going on, is for its last calls, and seldom before.
		case SYS_exit: case SYS_exit_group: case SYS_rt_sigreturn: dead = 1; break;
		case SYS_kill: case SYS_tkill: case SYS_rt_sigqueueinfo: case SYS_pidfd_send_signal: dead = a[1] == SIGKILL || a[1] == SIGSTOP; break;
		case SYS_tgkill: case SYS_rt_tgsigqueueinfo: dead = a[2] == SIGKILL || a[2] == SIGSTOP; break;
		case SYS_arch_prctl: dead = a[0] == 0x1002 || a[0] == 0x1012; break;
		case SYS_prctl: dead = a[0] == PR_SET_SECCOMP || a[0] == PR_SET_SYSCALL_USER_DISPATCH || a[0] == PR_SET_PDEATHSIG; break;
		case SYS_seccomp: case SYS_sigaltstack: case SYS_close_range: case SYS_setrlimit: case SYS_prlimit64: dead = upto(4); break;
		}
		if (dead && (n > 50 ? upto(200) : upto(4)) || fork && upto(16))
			continue;
		mine->t[t].nr = nr;
		long r = call(nr, a);
		if (fork && !r) {
			if (nr == SYS_fork && n > 0 && n < CALLS) { // A child's calls are not counted.
				t = THREADS - 1, seed = rnd(), n = 20;
				continue;
			}
			__asm__ volatile("syscall" : : "a"(SYS_exit_group), "D"(0));
		}
		mine->t[t].answered++;
		past[nrecent++ % 16] = r;
		if (nr == SYS_rt_sigprocmask)
			unblock();
		else if (nr == SYS_setitimer || nr == SYS_alarm)
			arm();
		else if (nr == SYS_rt_sigaction)
			signals();
		if (!upto(64))
			fill();
	}
}

static int limit;
static void *second(void *p) {
	answers((long)p & 3, (long)p >> 2, limit);
	return 0;
}

static void worker(uint64_t seed) {
	state = seed * 0x9e3779b97f4a7c15 | 1;
	for (int i = 0; i < 8; i++)
		rnd();
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	struct rlimit procs = {60, 60}, files = {100, 100}, size = {4 << 20, 4 << 20}, as = {256 << 20, 256 << 20}, stack = {1 << 20, 1 << 20};
	setrlimit(RLIMIT_NOFILE, &files), setrlimit(RLIMIT_FSIZE, &size), setrlimit(RLIMIT_AS, &as), setrlimit(RLIMIT_NPROC, &procs), setrlimit(RLIMIT_STACK, &stack);
	arena = (char *)0x200000000000, edge = arena + ARENA + 4096;
	memory();
	descriptors();
	int id = 1000 + slot;
	if (seed & 1 && (setresgid(id, id, id) || setresuid(id, id, id)))
		_exit(1);
	if (!(seed & 6))
		unshare(CLONE_NEWUSER | CLONE_NEWNS);
	signals(), arm();
	uint64_t past[16] = {0};
	recent = past;
	fill();
	limit = upto(4) ? CALLS : 200;
	pthread_attr_t small;
	pthread_attr_init(&small), pthread_attr_setstacksize(&small, 1 << 18);
	pthread_t t;
	for (long i = 1; i < THREADS && upto(2); i++)
		pthread_create(&t, &small, second, (void *)(rnd() << 2 | i));
	answers(0, rnd(), limit);
}

static uint64_t progress(void) {
	uint64_t n = 0;
	for (int t = 0; t < THREADS; t++)
		n += mine->t[t].answered;
	return n;
}

// count adds what a worker did. One that claims more than it was to do ran wild.
static void count(void) {
	uint64_t faults = 0, wild = 0;
	for (int t = 0; t < THREADS; t++)
		faults += mine->t[t].faults, wild |= mine->t[t].answered > 2 * CALLS || mine->t[t].faults > 2 * CALLS;
	mine->workers++, mine->wild += wild;
	if (!wild)
		mine->calls += progress(), mine->faults += faults;
}

// stage is init of the slot's PID namespace.
static void stage(uint64_t seed) {
	for (int i = 0; i < WORKERS; i++) {
		memset(mine->page, 0, sizeof mine->page);
		pid_t p = fork();
		if (!p) {
			munmap(mine->page2, sizeof mine->page2);
			worker(seed * WORKERS + i);
			_exit(0);
		}
		uint64_t last = 0;
		for (int idle = 0; waitpid(p, 0, WNOHANG) != p;) {
			struct timespec t = {0, 1000000};
			nanosleep(&t, 0);
			uint64_t now = progress();
			if (now != last)
				last = now, idle = 0;
			else if (++idle == STUCK_MS) {
				uint64_t nr = mine->t[0].nr;
				mine->killed++, mine->stuck[nr < MAX ? nr : MAX]++;
				kill(p, SIGKILL);
			}
		}
		count();
		uint64_t c = changed();
		mine->broken = mine->broken ? mine->broken : c;
		while (waitpid(-1, 0, WNOHANG) > 0)
			;
	}
}

static void begin(int i, uint64_t seed) {
	slot = i, mine = pages + i;
	munmap(pages, i * sizeof *pages), munmap(mine + 1, (SLOTS - 1 - i) * sizeof *pages);
	setpgid(0, 0);
	dup2(null, 0), dup2(null, 1), dup2(null, 2), close_range(3, -1, 0);
	if (unshare(CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET))
		_exit(9);
	mount("", "/", 0, MS_REC | MS_PRIVATE, 0), mount("t", "/tmp", "tmpfs", 0, "size=8m,mode=1777"), mkdir("/tmp/w", 0777), chmod("/tmp/w", 0777), chdir("/tmp/w");
	if (!fork()) {
		mount("p", "/proc", "proc", 0, 0);
		stage(seed);
		_exit(0);
	}
	wait(0);
	_exit(0);
}

int main(int argc, char **argv) {
	uint64_t seed = argc > 1 ? strtoull(argv[1], 0, 0) : 1, n = 0;
	int seconds = argc > 2 ? atoi(argv[2]) : 10, slots = argc > 3 ? atoi(argv[3]) : 4;
	char line[256];
	while (fgets(line, sizeof line, stdin)) {
		int nr = atoi(line);
		if (nr < 0 || nr >= MAX)
			continue;
		struct sig *s = &sigs[nr];
		s->known = 1;
		strtok(line, " \n");
		for (char *k; s->n < 6 && (k = strtok(0, " \n"));)
			snprintf(s->kind[s->n++], 16, "%s", k);
	}
	slots = slots < 1 ? 1 : slots > SLOTS ? SLOTS : slots;
	// Far from all that calls write to.
	pages = mmap((void *)0x500000000000, SLOTS * sizeof *pages, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	pid_t pid[SLOTS] = {0};
	guards();
	null = open("/dev/null", O_RDWR);
	time_t end = time(0) + seconds;
	unsigned lost = 0;
	uint64_t broken = 0;
	while (time(0) < end && !broken) {
		for (int i = 0; i < slots; i++)
			if (!pid[i]) {
				seed++;
				if (!(pid[i] = fork()))
					begin(i, seed);
			}
		int st;
		pid_t p = waitpid(-1, &st, WNOHANG);
		for (int i = 0; i < slots; i++)
			if (pid[i] == p)
				pid[i] = 0, lost += st != 0;
		if (p <= 0)
			usleep(20000);
		broken = changed();
	}
	for (int i = 0; i < slots; i++)
		if (pid[i] > 0)
			kill(pid[i], SIGKILL);
	struct pages sum = {};
	for (int i = 0; i < slots; i++) {
		sum.calls += pages[i].calls, sum.workers += pages[i].workers, sum.killed += pages[i].killed, sum.faults += pages[i].faults, sum.wild += pages[i].wild;
		broken = broken ? broken : pages[i].broken;
		for (int k = 0; k <= MAX; k++)
			sum.stuck[k] += pages[i].stuck[k];
	}
	printf("\ncalls %llu workers %llu faults %llu gone wild %llu slots failed %u next seed %llu; killed while waiting %llu, in", (unsigned long long)sum.calls, (unsigned long long)sum.workers, (unsigned long long)sum.faults, (unsigned long long)sum.wild, lost, (unsigned long long)seed, (unsigned long long)sum.killed);
	for (int k = 0; k < 8; k++) {
		int most = 0;
		for (int i = 1; i <= MAX; i++)
			if (sum.stuck[i] > sum.stuck[most])
				most = i;
		if (sum.stuck[most])
			printf(" %d (%llu)", most, (unsigned long long)sum.stuck[most]);
		sum.stuck[most] = 0;
	}
	puts("");
	if (broken) {
		const uint64_t *w = (void *)((broken - 1) & -4096);
		printf("a guard was changed, at %llx; its page:", (unsigned long long)broken - 1);
		for (int i = 0; i < 512; i++)
			printf(" %llx", (unsigned long long)w[i]);
		puts("");
		return 1;
	}
	return 0;
}
