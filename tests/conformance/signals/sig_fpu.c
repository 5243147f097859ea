// The extended state around signal handlers: all of every vector register is kept, whatever the handler does with its own, and the frame says what it holds.
#include "conf.h"
#include <cpuid.h>
#include <pthread.h>
#include <sys/auxv.h>
#include <ucontext.h>

static volatile sig_atomic_t got;
static uint64_t features;
static uint32_t magic1, magic2, ext;

// clobber fills YMM0-15 with ones.
static void clobber(void) {
	__asm__ volatile("vpcmpeqd %%ymm0,%%ymm0,%%ymm0\n vmovdqa %%ymm0,%%ymm1\n vmovdqa %%ymm0,%%ymm5\n vmovdqa %%ymm0,%%ymm15" ::: "memory");
}

static void handler(int s, siginfo_t *i, void *u) {
	ucontext_t *uc = u;
	char *fp = (char *)uc->uc_mcontext.fpregs;
	memcpy(&magic1, fp + 464, 4);
	memcpy(&ext, fp + 468, 4);
	memcpy(&features, fp + 472, 8);
	memcpy(&magic2, fp + ext - 4, 4);
	clobber();
	got++;
	(void)s, (void)i;
}

static pthread_t main_thread;
static volatile int stop;

static void *shoot(void *a) {
	while (!stop) {
		pthread_kill(main_thread, SIGUSR1);
		sleep_ms(1);
	}
	return a;
}

// spin keeps a pattern in YMM registers, makes no call (or a getppid with sys), and says whether it was still there at the end.
static int spin(int sys, long n) {
	uint64_t in[4] = {0x1111, 0x2222, 0x3333, 0x4444}, out1[4], out5[4], out15[4];
	__asm__ volatile("vmovdqu %3,%%ymm1\n vmovdqu %3,%%ymm5\n vmovdqu %3,%%ymm15\n"
			 "1: testl %5,%5\n jz 2f\n movl $110,%%eax\n syscall\n"
			 "2: pause\n decq %4\n jnz 1b\n"
			 "vmovdqu %%ymm1,%0\n vmovdqu %%ymm5,%1\n vmovdqu %%ymm15,%2\n vzeroupper"
			 : "=m"(out1), "=m"(out5), "=m"(out15), "+m"(in), "+r"(n)
			 : "r"(sys)
			 : "rax", "rcx", "r11", "memory", "cc");
	return !memcmp(in, out1, 32) && !memcmp(in, out5, 32) && !memcmp(in, out15, 32);
}

int main(void) {
	unsigned a, b, c, d;
	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_AVX)) {
		P("no AVX");
		return 0;
	}
	struct sigaction act = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_RESTART};
	R(sigaction(SIGUSR1, &act, 0));
	raise(SIGUSR1);
	P("the frame's magic words: %x %x, x87, SSE and AVX: %d, no more than XCR0 has: %d", magic1, magic2, (int)(features & 7), !(features & ~({
		  unsigned lo, hi;
		  __asm__("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
		  (uint64_t)hi << 32 | lo;
	  })));
	pthread_t t;
	main_thread = pthread_self();
	pthread_create(&t, 0, shoot, 0);
	for (int sys = 0; sys < 2; sys++) {
		int ok = 1, from = got, rounds = 0;
		for (; (got < from + 50 || rounds < 20) && rounds < 100000; rounds++)
			ok &= spin(sys, sys ? 200 : 100000);
		P("registers are kept, %s: %d, handlers ran: %d", sys ? "in a loop of calls" : "without calls", ok, got > from);
	}
	stop = 1;
	pthread_join(t, 0);
	return 0;
}
