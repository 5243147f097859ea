// Calls that a kernel may answer without being entered: the signal mask and the thread's own identity. Each is made so often that it is surely answered the fast way,
// and must still agree with /proc, sigpending, delivery, fork, execve and other threads.
#include "conf.h"
#include <pthread.h>

static volatile int wrong, seen;
static volatile unsigned long now_blocked;

static unsigned long blocked_in_proc(void) {
	char line[200];
	unsigned long v = 0;
	FILE *f = fopen("/proc/thread-self/status", "r");
	while (fgets(line, sizeof line, f))
		if (sscanf(line, "SigBlk: %lx", &v) == 1)
			break;
	fclose(f);
	return v;
}

static long mask(int how, unsigned long *set, unsigned long *old) { return syscall(SYS_rt_sigprocmask, how, set, old, 8); }
static unsigned long bit(int sig) { return 1ul << (sig - 1); }

static void on(int sig) {
	seen++;
	if (now_blocked & bit(sig))
		wrong++;
}

static void masks(void) {
	unsigned long s = 0, o = 0, p = 0, bad = 0;
	for (int i = 0; i < 3000; i++) {
		unsigned long want = (i * 0x9e3779b97f4a7c15ul) & ~0x300000000ul; // libc's own stay
		mask(SIG_SETMASK, &want, 0);
		mask(SIG_BLOCK, 0, &o);
		bad += o != (want & ~(bit(SIGKILL) | bit(SIGSTOP)));
		s = bit(SIGUSR1) | bit(SIGKILL);
		mask(SIG_UNBLOCK, &s, &o);
		mask(SIG_BLOCK, &s, 0);
		mask(77, 0, &o);
		bad += (o & bit(SIGUSR1)) == 0 || (o & bit(SIGKILL)) != 0;
		if (i % 100 == 0) {
			mask(SIG_BLOCK, 0, &o);
			bad += blocked_in_proc() != o;
		}
	}
	printf("masks: %ld wrong\n", (long)bad);
	s = 0, mask(SIG_SETMASK, &s, 0);
	for (int i = 0; i < 500; i++)
		bad += mask(3, &s, &o) != -1 || errno != EINVAL;
	printf("unknown how: %ld wrong\n", (long)bad);
	for (int i = 0; i < 500; i++)
		bad += syscall(SYS_rt_sigprocmask, SIG_BLOCK, &s, &o, 4L) != -1 || errno != EINVAL;
	printf("size: %ld wrong\n", (long)bad);
	for (int i = 0; i < 500; i++)
		bad += mask(SIG_BLOCK, (void *)8, &o) != -1 || errno != EFAULT || mask(SIG_BLOCK, (void *)-8, &o) != -1 || errno != EFAULT;
	printf("set unmapped: %ld wrong\n", (long)bad);
	s = bit(SIGUSR2);
	printf("old unmapped: %ld %d\n", mask(SIG_SETMASK, &s, (void *)8), errno);
	mask(SIG_BLOCK, 0, &p);
	printf("and the mask: %lx\n", p);
	char *page = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (int i = 0; i < 300; i++) {
		s = bit(SIGUSR1) << i % 2;
		madvise(page, 8192, MADV_DONTNEED);
		bad += mask(SIG_SETMASK, &s, (void *)(page + 4092)) != 0 || mask(SIG_BLOCK, (void *)(page + 5000), 0) != 0;
		mask(SIG_BLOCK, 0, &o);
		bad += o != s;
	}
	printf("fresh pages: %ld wrong\n", (long)bad);
	s = 0, mask(SIG_SETMASK, &s, 0);
}

static void pending(void) {
	unsigned long s = bit(SIGUSR1), p, bad = 0, none = 0;
	signal(SIGUSR1, on);
	for (int i = 0; i < 1000; i++) {
		int was = seen;
		mask(SIG_BLOCK, &s, 0);
		now_blocked = s;
		if (i & 1)
			kill(getpid(), SIGUSR1);
		else
			syscall(SYS_tgkill, getpid(), gettid(), SIGUSR1);
		syscall(SYS_rt_sigpending, &p, 8);
		bad += p != s || seen != was;
		now_blocked = 0;
		mask(SIG_SETMASK, &none, 0);
		bad += seen != was + 1;
	}
	printf("pending and delivered: %ld wrong, %d early\n", (long)bad, wrong);
}

static volatile int stop;
static void *sender(void *a) {
	long n = 0;
	union sigval v = {0};
	while (!stop) {
		if (n - seen < 8 && !sigqueue(getpid(), SIGRTMIN, v))
			n++;
		else
			sched_yield();
	}
	return (void *)n;
}

// Signals come from a thread that blocks them while this one changes its mask all the time: none is lost, none comes early.
static void race(void) {
	unsigned long s = bit(SIGRTMIN), none = 0;
	pthread_t t;
	void *n;
	seen = wrong = 0;
	signal(SIGRTMIN, on);
	mask(SIG_BLOCK, &s, 0);
	pthread_create(&t, 0, sender, 0);
	for (int i = 0; i < 200000 && seen < 20000; i++) {
		mask(SIG_SETMASK, &none, 0);
		mask(SIG_BLOCK, &s, 0);
		now_blocked = s;
		for (int j = 0; j < i % 8; j++)
			mask(SIG_BLOCK, &s, 0);
		now_blocked = 0;
	}
	stop = 1;
	pthread_join(t, &n);
	mask(SIG_SETMASK, &none, 0);
	printf("race: %s, %d early\n", seen == (long)n ? "all came" : "some were lost", wrong);
}

static void *thread(void *a) {
	*(unsigned long *)a = blocked_in_proc();
	return (void *)(long)(syscall(SYS_gettid) == gettid() && syscall(SYS_gettid) != syscall(SYS_getpid));
}

static void inherit(char *self) {
	unsigned long s = bit(SIGUSR1) | bit(SIGHUP), in_thread = 0;
	pthread_t t;
	void *r;
	for (int i = 0; i < 500; i++)
		mask(SIG_SETMASK, &s, 0), syscall(SYS_getppid);
	pthread_create(&t, 0, thread, &in_thread);
	pthread_join(t, &r);
	printf("thread: mask %lx, identity %ld\n", in_thread, (long)r);
	pid_t parent = getpid(), p = fork();
	if (!p) {
		long bad = 0;
		for (int i = 0; i < 500; i++)
			bad += syscall(SYS_getpid) == parent || syscall(SYS_getppid) != parent || syscall(SYS_gettid) != syscall(SYS_getpid);
		printf("child: mask %lx, %ld wrong\n", blocked_in_proc(), bad);
		fflush(stdout);
		execl(self, self, "again", (char *)0);
		_exit(1);
	}
	waitpid(p, 0, 0);
}

static void identity(void) {
	long bad = 0;
	pid_t p = fork();
	if (!p) {
		for (int i = 0; i < 500; i++)
			bad += syscall(SYS_getuid) != getuid() || syscall(SYS_geteuid) != geteuid() || syscall(SYS_getgid) != getgid() || syscall(SYS_getegid) != getegid();
		if (!getuid()) {
			syscall(SYS_setresgid, 5, 6, 7);
			bad += syscall(SYS_getgid) != 5 || syscall(SYS_getegid) != 6;
			syscall(SYS_setresuid, 11, 12, 13);
			bad += syscall(SYS_getuid) != 11 || syscall(SYS_geteuid) != 12;
		}
		_exit(bad != 0);
	}
	int st;
	waitpid(p, &st, 0);
	printf("users and groups: %x\n", st);
	for (int i = 0; i < 2000; i++)
		bad += sched_yield() != 0;
	printf("sched_yield: %ld wrong\n", bad);
	// A child whose parent ends sees it by getppid alone.
	int fd[2], ready[2];
	char c;
	if (pipe(fd) || pipe(ready))
		return;
	if (!(p = fork())) {
		pid_t me = getpid();
		if (!fork()) {
			for (int i = 0; i < 500; i++)
				syscall(SYS_getppid);
			write(ready[1], &c, 1);
			while (syscall(SYS_getppid) == me)
				;
			write(fd[1], &c, 1);
			_exit(0);
		}
		read(ready[0], &c, 1);
		_exit(0);
	}
	waitpid(p, 0, 0);
	printf("orphan: %zd\n", read(fd[0], &c, 1));
}

// getcpu says one of the CPUs that the thread may run on, after each change, its own or another process', and in a child.
static void cpus(void) {
	cpu_set_t all, one;
	long bad = 0;
	unsigned cpu, node;
	sched_getaffinity(0, sizeof all, &all);
	for (int c = 0; c < CPU_SETSIZE; c++) {
		if (!CPU_ISSET(c, &all))
			continue;
		CPU_ZERO(&one);
		CPU_SET(c, &one);
		sched_setaffinity(0, sizeof one, &one);
		for (int i = 0; i < 500; i++)
			cpu = node = 4711, bad += syscall(SYS_getcpu, &cpu, &node, 0) != 0 || cpu != (unsigned)c || node == 4711 || syscall(SYS_getcpu, 0, 0, 0) != 0;
		pid_t parent = getpid(), p = fork();
		if (!p) {
			for (int i = 0; i < 500; i++)
				bad += syscall(SYS_getcpu, &cpu, 0, 0) != 0 || cpu != (unsigned)c;
			sched_setaffinity(parent, sizeof all, &all);
			_exit(bad != 0);
		}
		int st;
		waitpid(p, &st, 0);
		bad += st != 0;
		for (int i = 0; i < 500; i++)
			bad += syscall(SYS_getcpu, &cpu, &node, 0) != 0 || !CPU_ISSET(cpu, &all);
	}
	printf("CPUs: %ld wrong\n", bad);
	printf("no pointer: %d %d\n", (int)E(syscall(SYS_getcpu, BAD, 0, 0)), (int)E(syscall(SYS_getcpu, 0, BAD, 0)));
}

// No register and no flag but RAX, RCX and R11 changes.
static void registers(void) {
	long bad = 0;
	for (long i = 0; i < 4000; i++) {
		static const long nrs[] = {SYS_getpid, SYS_sched_yield, SYS_rt_sigprocmask, SYS_getuid};
		unsigned long before = (unsigned long)i * 0x123456789abcdef, fl, after_fl, o[6] = {0}, m = 0;
		register unsigned long r8 __asm__("r8") = before + 8, r9 __asm__("r9") = before + 9, r10 __asm__("r10") = 8, r12 __asm__("r12") = before + 12;
		long rax = nrs[i % 4];
		fl = i & 8 ? 0x8d5 : 0;
		__asm__ volatile("pushfq; andq $~0x8d5, (%%rsp); orq %[fl], (%%rsp); popfq; syscall; pushfq; popq %[after]"
			: "+a"(rax), "+r"(r8), "+r"(r9), "+r"(r10), "+r"(r12), [after] "=&r"(after_fl)
			: "D"(SIG_BLOCK), "S"(&m), "d"(o), [fl] "r"(fl)
			: "rcx", "r11", "memory", "cc");
		bad += r8 != before + 8 || r9 != before + 9 || r10 != 8 || r12 != before + 12 || (after_fl & 0x8d5) != fl || rax < 0;
	}
	printf("registers: %ld wrong\n", bad);
}

int main(int argc, char **argv) {
	if (argc > 1) {
		printf("after execve: mask %lx\n", blocked_in_proc());
		return 0;
	}
	setvbuf(stdout, 0, _IOLBF, 0);
	masks();
	pending();
	race();
	inherit(argv[0]);
	identity();
	cpus();
	registers();
	return 0;
}
