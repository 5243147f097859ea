// Signals: info by origin, masks, queues, frames, synchronous signals, restarts. It prints what the kernel answers; the host's output is the expected one.
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define P(...) do { printf(__VA_ARGS__); fflush(stdout); } while (0)

static volatile int got;
static siginfo_t last;
static volatile double fp;

static void handler(int s, siginfo_t *i, void *u) {
	got++;
	last = *i;
	fp *= 2;
}

static void catch(int sig, int flags) {
	struct sigaction a = {.sa_sigaction = handler, .sa_flags = flags | SA_SIGINFO};
	sigaction(sig, &a, 0);
}

static void infos(void) {
	union sigval v = {.sival_int = 99};
	catch(SIGUSR1, 0);
	fp = 1.5;
	kill(getpid(), SIGUSR1);
	P("kill: %d code %d pid %d uid %d fp %g\n", got, last.si_code, last.si_pid == getpid(), last.si_uid == getuid(), fp);
	raise(SIGUSR1);
	P("raise: %d code %d pid %d\n", got, last.si_code, last.si_pid == getpid());
	sigqueue(getpid(), SIGUSR1, v);
	P("sigqueue: %d code %d value %d\n", got, last.si_code, last.si_value.sival_int);
	catch(SIGCHLD, 0);
	got = 0;
	pid_t p = fork();
	if (!p)
		_exit(3);
	while (!got)
		usleep(1000);
	P("SIGCHLD: code %d status %d pid %d\n", last.si_code, last.si_status, last.si_pid == p);
	wait(0);
	signal(SIGCHLD, SIG_DFL);
	for (int sig = 0; sig < 66; sig++) {
		struct sigaction a = {.sa_handler = SIG_IGN};
		if (sig == 32 || sig == 33)
			continue;
		errno = 0;
		if (syscall(SYS_rt_sigaction, sig, 0, 0, 8) || (sig && sigaction(sig, &a, 0)))
			P("sigaction %d: %d\n", sig, errno);
		signal(sig, SIG_DFL);
	}
	P("size: %d, kill: %d %d %d\n", syscall(SYS_rt_sigaction, 1, 0, 0, 4) ? errno : 0, kill(getpid(), 65) ? errno : 0, kill(-99999999, 0) ? errno : 0,
		kill(99999999, 65) ? errno : 0);
}

static void masks(void) {
	sigset_t s, o, pend;
	siginfo_t si;
	struct timespec ts = {0, 1000000};
	sigemptyset(&s);
	sigaddset(&s, SIGUSR1);
	sigaddset(&s, SIGRTMIN);
	sigaddset(&s, SIGRTMIN + 1);
	sigprocmask(SIG_BLOCK, &s, &o);
	catch(SIGUSR1, 0);
	got = 0;
	kill(getpid(), SIGUSR1);
	kill(getpid(), SIGUSR1);
	sigpending(&pend);
	P("pending %d, ran %d\n", sigismember(&pend, SIGUSR1), got);
	int r = sigsuspend(&o);
	P("sigsuspend: %d %d, ran %d\n", r, errno, got);
	sigprocmask(SIG_SETMASK, 0, &pend);
	P("still blocked: %d\n", sigismember(&pend, SIGUSR1));
	for (int i = 0; i < 4; i++) {
		union sigval v = {.sival_int = i};
		sigqueue(getpid(), SIGRTMIN + (i + 1) % 2, v);
	}
	for (int i = 0; i < 4; i++) {
		r = sigwaitinfo(&s, &si);
		P("real-time: +%d value %d\n", r - SIGRTMIN, si.si_value.sival_int);
	}
	r = sigtimedwait(&s, &si, &ts);
	P("sigtimedwait: %d %d\n", r, errno);
	// Ignoring a signal drops it even if it is blocked.
	kill(getpid(), SIGUSR1);
	signal(SIGUSR1, SIG_IGN);
	sigpending(&pend);
	P("ignored: %d\n", sigismember(&pend, SIGUSR1));
	sigprocmask(SIG_SETMASK, &o, 0);
}

static sigjmp_buf back;
static void *addr;
static int onstack;
static stack_t ss;

static void fault(int s, siginfo_t *i, void *u) {
	ucontext_t *c = u;
	addr = i->si_addr;
	got = i->si_code;
	onstack = (char *)&c > (char *)ss.ss_sp && (char *)&c < (char *)ss.ss_sp + ss.ss_size;
	P("  signal %d trap %lld flags %lx\n", s, (long long)c->uc_mcontext.gregs[REG_TRAPNO], c->uc_flags);
	siglongjmp(back, 1);
}

static void faults(void) {
	struct sigaction a = {.sa_sigaction = fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
	sigaction(SIGSEGV, &a, 0);
	sigaction(SIGBUS, &a, 0);
	sigaction(SIGFPE, &a, 0);
	sigaction(SIGILL, &a, 0);
	ss.ss_size = 65536;
	ss.ss_sp = malloc(ss.ss_size);
	sigaltstack(&ss, 0);
	char *ro = mmap(0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!sigsetjmp(back, 1))
		*(volatile int *)0x1234 = 1;
	P("unmapped: code %d addr %p, alternate stack %d\n", got, addr, onstack);
	if (!sigsetjmp(back, 1))
		*(volatile char *)ro = 1;
	P("read-only: code %d addr %d\n", got, addr == ro);
	if (!sigsetjmp(back, 1))
		__asm__ volatile("xor %%edx,%%edx; mov $1,%%eax; xor %%ecx,%%ecx; idiv %%ecx" ::: "eax", "ecx", "edx");
	P("division: code %d\n", got);
	if (!sigsetjmp(back, 1))
		__asm__ volatile("ud2");
	P("ud2: code %d\n", got);
	if (!sigsetjmp(back, 1))
		*(volatile char *)0x8000000000000000UL = 1;
	P("non-canonical: code %d addr %p\n", got, addr);
	if (!sigsetjmp(back, 1))
		((void (*)(void))ro)();
	P("execute: code %d addr %d\n", got, addr == ro);
	pid_t p = fork();
	int st;
	if (!p) {
		// A blocked synchronous signal kills.
		sigset_t s;
		sigfillset(&s);
		sigprocmask(SIG_BLOCK, &s, 0);
		*(volatile int *)0x1234 = 1;
	}
	waitpid(p, &st, 0);
	P("blocked SIGSEGV: %d\n", WTERMSIG(st));
	p = fork();
	if (!p) {
		// No room for the frame.
		sigaction(SIGUSR1, &a, 0);
		a.sa_flags = SA_SIGINFO;
		sigaction(SIGSEGV, &a, 0);
		sigaction(SIGUSR2, &a, 0);
		__asm__ volatile("mov $4096, %%rsp; mov $39, %%eax; syscall; mov %%eax, %%edi; mov $12, %%esi; mov $62, %%eax; syscall; hlt" ::: "memory");
	}
	waitpid(p, &st, 0);
	P("no stack: %d\n", WTERMSIG(st));
	signal(SIGSEGV, SIG_DFL);
}

static void restarts(void) {
	int fd[2], st;
	char c;
	pipe(fd);
	for (int restart = 0; restart < 2; restart++) {
		catch(SIGALRM, restart ? SA_RESTART : 0);
		got = 0;
		pid_t p = fork();
		if (!p) {
			usleep(50000);
			kill(getppid(), SIGALRM);
			usleep(50000);
			write(fd[1], "x", 1);
			_exit(0);
		}
		int r = read(fd[0], &c, 1);
		P("read, SA_RESTART %d: %d %d, ran %d\n", restart, r, r < 0 ? errno : 0, got);
		if (r < 0)
			read(fd[0], &c, 1);
		waitpid(p, &st, 0);
	}
	stack_t small = {.ss_sp = malloc(1024), .ss_size = 1024}, old;
	P("small stack: %d\n", sigaltstack(&small, 0) ? errno : 0);
	small.ss_flags = 77;
	P("bad flags: %d\n", sigaltstack(&small, 0) ? errno : 0);
	ss.ss_flags = SS_DISABLE;
	sigaltstack(&ss, 0);
	sigaltstack(0, &old);
	P("disabled: %x\n", old.ss_flags);
}

int main(void) {
	infos();
	masks();
	faults();
	restarts();
	return 0;
}
