// A hostile guest: each case is done by a child process, which may die of it and may not do anything else. A witness beside it checks that its own
// memory, registers, calls and pipes stay right. Usage: hostile CASE [STEP]; prints one line a case.
//
// The addresses are those of package platform/stub. On a host, or another platform, nothing is mapped there and the cases are dull.
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define CODE 0x7fff00000000ul
#define ORDER 0x7fff00010000ul
#define REPLY 0x7fff00018000ul
#define AREA 0x7fff10000000ul
#define AREA_SIZE 0x8000ul
#define WINDOW 0x7f600000ul
#define SLOTS 0x7f610000ul
#define TEXTS 0x7f710000ul
#define WINDOW_END 0x7f800000ul

static struct shared {
	_Atomic unsigned long rounds;
	_Atomic int bad;
} *shared;

static uint64_t seed = 88172645463325252ull;
static uint64_t rnd(void)
{
	seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
	return seed;
}

// garbage is one of the values that break things.
static uint64_t garbage(void)
{
	static const uint64_t v[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, ~0ul, 0x8000000000000000ul, 0x7fffffffffff, 0x800000000000, CODE, CODE + 2048, CODE + 3072,
		AREA, AREA + 4096, AREA + AREA_SIZE - 8, ORDER, REPLY, WINDOW, SLOTS + 128, TEXTS, 0xffffffffff600000ul, 0x400000};
	uint64_t r = rnd();
	return r % 4 == 0 ? r >> 3 : v[(r >> 8) % (sizeof v / sizeof *v)];
}

static void witness(void)
{
	static unsigned char mem[1 << 16];
	int p[2];
	pid_t me = getpid();
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (pipe(p))
		_exit(1);
	for (unsigned long n = 0;; n++) {
		memset(mem, n, sizeof mem);
		register unsigned long keep asm("r12") = n * 0x9e3779b97f4a7c15ul;
		unsigned long want = keep, got = 0;
		asm volatile("" : "+r"(keep));
		if (write(p[1], &want, 8) != 8 || read(p[0], &got, 8) != 8 || got != want || syscall(SYS_getpid) != me)
			shared->bad = 1;
		void *m = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		for (int i = 0; m == MAP_FAILED || i < 8192; i++)
			if (m == MAP_FAILED || ((char *)m)[i]) {
				shared->bad = 2;
				break;
			}
		munmap(m, 8192);
		for (size_t i = 0; i < sizeof mem; i++)
			if (mem[i] != (unsigned char)n)
				shared->bad = 3;
		asm volatile("" : "+r"(keep));
		if (keep != want)
			shared->bad = 4;
		shared->rounds++;
	}
}

static int killed, died, left, unkillable;

// try runs fn in a child, which gets ms milliseconds.
static void try(void (*fn)(uint64_t), uint64_t arg, int ms)
{
	int st;
	pid_t p = fork();
	if (p < 0) {
		perror("fork");
		exit(1);
	}
	if (p == 0) {
		seed += arg * 7919 + 1;
		fn(arg);
		syscall(SYS_exit_group, 0);
		__builtin_trap();
	}
	for (int i = 0; i < ms * 4; i++) {
		if (waitpid(p, &st, WNOHANG) == p) {
			if (WIFSIGNALED(st))
				died++;
			else
				left++;
			return;
		}
		usleep(250);
	}
	kill(p, SIGKILL);
	for (int i = 0; i < 30000; i++) {
		if (waitpid(p, &st, WNOHANG) == p) {
			killed++;
			return;
		}
		usleep(1000);
	}
	unkillable++;
}

static void jump(uint64_t to)
{
	uint64_t r[6];
	for (int i = 0; i < 6; i++)
		r[i] = garbage();
	// A few calls first, so that some are rewritten and the window holds slots.
	for (int i = 0; i < 20; i++)
		getppid();
	asm volatile("mov %1, %%rdi\n mov %2, %%rsi\n mov %3, %%rdx\n mov %4, %%rax\n mov %5, %%r12\n mov %6, %%r13\n jmp *%0"
		:: "r"(to), "m"(r[0]), "m"(r[1]), "m"(r[2]), "m"(r[3]), "m"(r[4]), "m"(r[5]) : "rdi", "rsi", "rdx", "rax", "r12", "r13", "memory");
}

// jumpArea is jump with registers as the entry code itself has them.
static void jumpArea(uint64_t to)
{
	asm volatile("mov %1, %%r12\n mov %2, %%r13\n mov $1, %%eax\n mov $8, %%rdi\n mov %1, %%rsp\n add $4096, %%rsp\n jmp *%0"
		:: "r"(to), "r"(AREA), "r"(REPLY) : "r12", "r13", "rax", "rdi", "memory");
}

static void store(uint64_t at) { *(volatile uint64_t *)at = 0x4141414141414141; }

static void *work(void *arg)
{
	int p[2];
	if (pipe(p))
		return 0;
	for (;;) {
		char b[64];
		syscall(SYS_getppid);
		write(p[1], "abcd", 4);
		read(p[0], b, 4);
		void *m = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (m != MAP_FAILED)
			*(char *)m = 1, munmap(m, 4096);
		sched_yield();
		usleep(10);
	}
	return arg;
}

// forge overwrites one word of every area that may be there, while threads make calls.
static void forge(uint64_t off)
{
	pthread_t t;
	sigset_t all;
	alarm(5);
	sigfillset(&all);
	for (int i = 0; i < 2; i++)
		pthread_create(&t, 0, work, 0);
	struct timespec a, b;
	clock_gettime(CLOCK_MONOTONIC, &a);
	for (long n = 0;; n++) {
		for (int i = 0; i < 3; i++)
			*(volatile uint32_t *)(AREA + i * AREA_SIZE + off) = garbage();
		if (n % 64 == 0) {
			clock_gettime(CLOCK_MONOTONIC, &b);
			if ((b.tv_sec - a.tv_sec) * 1000000000l + b.tv_nsec - a.tv_nsec > 10000000)
				break;
		}
	}
	syscall(SYS_exit_group, 0);
}

// scribble is forge for everything at once, the signal frames with it, and the reply page.
static void scribble(uint64_t arg)
{
	pthread_t t;
	for (int i = 0; i < 2; i++)
		pthread_create(&t, 0, work, 0);
	for (long n = 0; n < 20000; n++) {
		uint64_t r = rnd();
		uint64_t at = arg % 3 == 0 ? AREA + r % AREA_SIZE : arg % 3 == 1 ? AREA + r % (3 * AREA_SIZE) : REPLY + r % 64;
		*(volatile uint32_t *)(at & ~3ul) = garbage();
	}
	syscall(SYS_exit_group, 0);
}

// unmap asks for changes of what is not the guest's; all must fail or do nothing.
static void unmap(uint64_t at)
{
	char *own = mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void *p = (void *)(at & ~4095ul);
	for (size_t n = 4096; n <= 1ul << 32; n *= 16) {
		munmap(p, n);
		mprotect(p, n, PROT_READ | PROT_WRITE | PROT_EXEC);
		mprotect(p, n, PROT_NONE);
		if (mmap(p, n, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) != MAP_FAILED)
			syscall(SYS_exit_group, 3);
		if (mremap(own, 65536, 65536, MREMAP_MAYMOVE | MREMAP_FIXED, p) != MAP_FAILED)
			syscall(SYS_exit_group, 4);
		if (mremap(p, n, 2 * n, MREMAP_MAYMOVE) != MAP_FAILED)
			syscall(SYS_exit_group, 5);
		madvise(p, n, MADV_DONTNEED);
		madvise(p, n, MADV_REMOVE);
		mlock(p, n);
		msync(p, n, MS_SYNC);
		remap_file_pages(p, n, 0, 0, 0);
	}
	// An own mapping that would grow into it.
	mremap(own, 65536, 1ul << 46, 0);
	if (syscall(SYS_getppid) <= 0)
		syscall(SYS_exit_group, 6);
	syscall(SYS_exit_group, 42);
}

static void stack(uint64_t arg)
{
	uint64_t sp = garbage();
	stack_t ss = {.ss_sp = (void *)sp, .ss_size = 1 << 16};
	sigaltstack(&ss, 0);
	struct sigaction sa = {.sa_handler = (void (*)(int))(CODE + 2048), .sa_flags = SA_ONSTACK};
	sigaction(SIGSEGV, &sa, 0);
	sigaction(SIGSYS, &sa, 0);
	sigaction(SIGUSR2, &sa, 0);
	kill(getpid(), SIGUSR2);
	asm volatile("mov %0, %%rsp\n mov $39, %%eax\n syscall\n mov $110, %%eax\n syscall\n push %%rax\n mov 0, %%rax" :: "r"(sp) : "rax", "rcx", "r11", "memory");
}

static void bases(uint64_t arg)
{
	uint64_t v = garbage();
	for (int i = 0; i < 30; i++)
		getppid();
	switch (arg % 4) {
	case 0:
		syscall(SYS_arch_prctl, ARCH_SET_GS, v);
		break;
	case 1:
		asm volatile("wrgsbase %0" :: "r"(v));
		break;
	case 2:
		asm volatile("wrfsbase %0" :: "r"(v)); // also the C library's own
		break;
	case 3:
		asm volatile("mov %w0, %%gs" :: "r"(0x2b));
		break;
	}
	for (int i = 0; i < 50; i++) {
		long r;
		asm volatile("syscall" : "=a"(r) : "a"(SYS_getppid) : "rcx", "r11", "memory");
		asm volatile("syscall" : "=a"(r) : "a"(SYS_sched_yield) : "rcx", "r11", "memory");
	}
	if (arg % 4 != 2)
		for (int i = 0; i < 20; i++)
			getppid(), getpid(), usleep(1);
	asm volatile("syscall" :: "a"(SYS_exit_group), "D"(0) : "rcx", "r11");
}

// frame returns from a handler by a frame that was tampered with.
static uint64_t frameCase;
static void onUSR1(int sig, siginfo_t *si, void *ucp)
{
	ucontext_t *uc = ucp;
	unsigned char *fp = (void *)uc->uc_mcontext.fpregs;
	switch (frameCase % 10) {
	case 0:
		uc->uc_mcontext.fpregs = (void *)garbage();
		break;
	case 1:
		*(uint32_t *)(fp + 464) = garbage(); // magic1
		break;
	case 2:
		*(uint32_t *)(fp + 468) = garbage(); // extended_size
		break;
	case 3:
		*(uint64_t *)(fp + 472) = garbage(); // xfeatures
		break;
	case 4:
		*(uint32_t *)(fp + 480) = garbage(); // xstate_size
		break;
	case 5:
		memset(fp + 512, 0xff, 64); // the XSAVE header
		break;
	case 6:
		*(uint32_t *)(fp + 24) = ~0u; // MXCSR
		break;
	case 7:
		uc->uc_mcontext.gregs[REG_CSGSFS] = garbage();
		break;
	case 8:
		uc->uc_mcontext.gregs[rnd() % 23] = garbage();
		break;
	case 9:
		for (int i = 0; i < 8; i++)
			((uint64_t *)fp)[rnd() % 300] = garbage();
		uc->uc_mcontext.gregs[REG_EFL] = garbage();
		break;
	}
}

static void frame(uint64_t arg)
{
	struct sigaction sa = {.sa_sigaction = onUSR1, .sa_flags = SA_SIGINFO};
	frameCase = arg;
	sigaction(SIGUSR1, &sa, 0);
	alarm(1);
	kill(getpid(), SIGUSR1);
	getppid();
}

// rawReturn calls rt_sigreturn with nothing of a frame.
static void rawReturn(uint64_t arg)
{
	uint64_t sp = arg % 2 ? garbage() : (uint64_t)mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) + (1 << 19);
	if (arg % 2 == 0)
		for (int i = 0; i < 2000; i++)
			((uint64_t *)sp)[i] = garbage();
	asm volatile("mov %0, %%rsp\n mov $15, %%eax\n syscall\n ud2" :: "r"(sp) : "rax", "memory");
}

static void entries(uint64_t arg)
{
	switch (arg) {
	case 0:
		asm volatile("int $0x80" :: "a"(20) : "memory");
		break;
	case 1:
		asm volatile("int $0x80" :: "a"(1), "b"(0) : "memory");
		break;
	case 2:
		asm volatile("sysenter" ::: "memory");
		break;
	case 3:
		asm volatile("jmp *%0" :: "r"(0x8000000000000000ul));
		break;
	case 4:
		asm volatile("mov %0, %%rsp\n ret" :: "r"(0x800000000000ul));
		break;
	case 5:
		asm volatile("jmp *%0" :: "r"(0xffffffffff600001ul));
		break;
	case 6:
		asm volatile("jmp *%0" :: "r"(0xffffffff80000000ul));
		break;
	case 7:
		asm volatile("pushf\n orl $0x100, (%%rsp)\n popf\n mov $39, %%eax\n syscall\n nop" ::: "rax", "rcx", "r11", "memory");
		break;
	case 8: // the trap flag over calls that are rewritten
		signal(SIGTRAP, SIG_IGN);
		for (int i = 0; i < 20; i++)
			getppid();
		asm volatile("pushf\n orl $0x100, (%%rsp)\n popf" ::: "memory");
		getppid();
		break;
	case 9:
		asm volatile("pushf\n orl $0x40000, (%%rsp)\n popf\n mov $39, %%eax\n syscall" ::: "rax", "rcx", "r11", "memory"); // AC
		asm volatile("pushf\n andl $~0x40000, (%%rsp)\n popf" ::: "memory");
		break;
	case 10:
		asm volatile("std\n mov $39, %%eax\n syscall\n cld" ::: "rax", "rcx", "r11", "memory");
		break;
	case 11:
		asm volatile("lcall *(%0)" :: "r"((uint32_t[]){0x400000, 0x23}) : "memory"); // a 32-bit code segment
		break;
	case 12:
		asm volatile("pushq $0x2b\n pushq $0x400000\n pushfq\n pushq $0x23\n pushq $0x400000\n iretq");
		break;
	case 13:
		asm volatile("hlt");
		break;
	case 14:
		asm volatile("mov %%cr3, %%rax" ::: "rax");
		break;
	case 15:
		asm volatile("int3\n int $4\n int $0xff");
		break;
	case 16: // the top of user space: a SYSCALL whose return address is not canonical
		mmap((void *)0x7fffffffe000, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		*(volatile uint16_t *)0x7fffffffeffe = 0x050f;
		asm volatile("jmp *%0" :: "r"(0x7fffffffeffeul), "a"(39));
		break;
	case 17:
		asm volatile("mov %w0, %%ss" :: "r"(0x23));
		asm volatile("mov $39, %%eax\n syscall" ::: "rax", "rcx", "r11", "memory");
		break;
	}
}

// area finds the end of its own thread: the other waits, and must die with it.
static void leave(uint64_t arg)
{
	pthread_t t;
	pthread_create(&t, 0, work, 0);
	usleep(1000);
	asm volatile("mov $1, %%eax\n jmp *%0" :: "r"(CODE) : "rax");
	(void)arg;
}

static void run(const char *name, void (*fn)(uint64_t), uint64_t from, uint64_t to, uint64_t step, int ms)
{
	killed = died = left = unkillable = 0;
	for (uint64_t a = from; a < to; a += step)
		try(fn, a, ms);
	fprintf(stderr, "%s: %d died, %d ended, %d had to be killed\n", name, died, left, killed);
	printf("%s: unkillable %d\n", name, unkillable);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	const char *c = argc > 1 ? argv[1] : "";
	uint64_t step = argc > 2 ? strtoul(argv[2], 0, 0) : 1;
	signal(SIGPIPE, SIG_IGN);
	shared = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t w = fork();
	if (w == 0)
		witness();
	if (!strcmp(c, "jump"))
		run("jump", jump, CODE, CODE + 4096, step, 300);
	if (!strcmp(c, "jump-area"))
		run("jump-area", jumpArea, CODE, CODE + 4096, step, 300);
	if (!strcmp(c, "window")) {
		run("window", jump, SLOTS, SLOTS + 40 * 128, 3 * step, 300);
		run("window-table", jump, WINDOW, WINDOW + 512, 8 * step, 300);
	}
	if (!strcmp(c, "store")) {
		uint64_t at[] = {CODE, CODE + 2048, CODE + 4096, ORDER, ORDER + 64, ORDER + 32760, WINDOW, WINDOW + 8, SLOTS, SLOTS + 128, TEXTS, TEXTS + 8,
			AREA - 4096, 0x7fff90000000, 0x7ffffffff000, 0xffffffffff600000};
		int n = sizeof at / sizeof *at;
		for (int i = 0; i < n; i++)
			try(store, at[i], 2000);
		printf("store: %d of %d died\n", died, n);
		run("store-code", store, CODE, CODE + 4096, 512, 2000);
	}
	if (!strcmp(c, "forge"))
		run("forge", forge, 0, 320, 4 * step, 1000);
	if (!strcmp(c, "scribble"))
		run("scribble", scribble, 0, 60, step, 1000);
	if (!strcmp(c, "unmap")) {
		uint64_t at[] = {CODE, CODE + 4096, ORDER, REPLY, AREA, AREA + AREA_SIZE, WINDOW, SLOTS, TEXTS, 0x7ffffffff000, 0xffffffffff600000, CODE - 4096 + 4096};
		int n = sizeof at / sizeof *at;
		for (int i = 0; i < n; i++) {
			int st = -1;
			pid_t p = fork();
			if (p == 0)
				unmap(at[i]);
			waitpid(p, &st, 0);
			if (!WIFEXITED(st) || WEXITSTATUS(st) != 42)
				printf("unmap %lx: status %x\n", at[i], st);
		}
		printf("unmap: done\n");
	}
	if (!strcmp(c, "stack"))
		run("stack", stack, 0, 60, step, 1000);
	if (!strcmp(c, "bases"))
		run("bases", bases, 0, 200, step, 2000);
	if (!strcmp(c, "frame")) {
		run("frame", frame, 0, 300, step, 2000);
		run("sigreturn", rawReturn, 0, 60, step, 1000);
	}
	if (!strcmp(c, "entries"))
		run("entries", entries, 0, 18, 1, 2000);
	if (!strcmp(c, "leave"))
		run("leave", leave, 0, 3, 1, 500);
	unsigned long n = shared->rounds;
	for (int i = 0; i < 20000 && shared->rounds < n + 3; i++)
		usleep(1000);
	int st;
	printf("witness: %s, bad %d\n", waitpid(w, &st, WNOHANG) == 0 && shared->rounds >= n + 3 ? "well" : "stuck or dead", shared->bad);
	kill(w, SIGKILL);
	waitpid(w, &st, 0);
	return 0;
}
