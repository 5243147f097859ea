// The extended processor state as a tracer reads and writes it.
#include "conf.h"
#include <sys/ptrace.h>
#include <sys/user.h>

#define PT(req, pid, addr, data) SC(ptrace, req, pid, addr, data)
static uint64_t x[4096], y[4096];

static void states(void) {
	pid_t p = CHILD(PT(PTRACE_TRACEME, 0, 0, 0); raise(SIGSTOP); double d = 0; __asm__ volatile("movsd %%xmm5, %0" : "=m"(d)); P("xmm5 %g", d); raise(SIGSTOP));
	waitpid(p, 0, 0);
	static const int n[] = {0, 8, 464, 472, 512, 520, 576, 584, 832, sizeof x, 7};
	struct iovec v = {x, sizeof x};
	long full = PT(PTRACE_GETREGSET, p, 0x202, &v) ? -1 : (long)v.iov_len;
	P("features %lx then %lx, padding %lx, some are in use %d, compacted %lx", x[58], x[59], x[60] | x[61] | x[62] | x[63], (x[64] & 3) != 0, x[65]);
	for (unsigned i = 0; i < sizeof n / sizeof *n; i++) {
		char t[32];
		v = (struct iovec){y, n[i]}, memset(y, 0xff, sizeof y), sprintf(t, "read %d", n[i]), RN(t, PT(PTRACE_GETREGSET, p, 0x202, &v)), P("%d, the same %d, not more %d", (long)v.iov_len == full, !memcmp(x, y, v.iov_len), ((uint8_t *)y)[v.iov_len] == 0xff);
	}
	static struct user_fpregs_struct f;
	R(PT(PTRACE_GETFPREGS, p, 0, &f)), P("legacy: the same %d, padding %d", !memcmp(&f, x, 416), f.padding[12] | f.padding[13] | f.padding[14] | f.padding[15] | f.padding[23]);
	double d = 42.5;
	memcpy((char *)x + 160 + 5 * 16, &d, 8), x[64] |= 2, v = (struct iovec){x, full}, R(PT(PTRACE_SETREGSET, p, 0x202, &v)), v.iov_len = full - 8, R(PT(PTRACE_SETREGSET, p, 0x202, &v)), v.iov_len = full + 8, R(PT(PTRACE_SETREGSET, p, 0x202, &v)), v = (struct iovec){y, sizeof y}, R(PT(PTRACE_GETREGSET, p, 0x202, &v)), P("set: the same %d", !memcmp(x, y, 576));
	x[65] = 1UL << 63, v = (struct iovec){x, full}, R(PT(PTRACE_SETREGSET, p, 0x202, &v)), x[65] = 0, x[64] |= 1UL << 60, R(PT(PTRACE_SETREGSET, p, 0x202, &v));
	PT(PTRACE_CONT, p, 0, 0), waitpid(p, 0, 0), PT(PTRACE_KILL, p, 0, 0), waitpid(p, 0, 0);
}
// A child has its parent's state, also where the call's code has been executed so often that it may come another way.
#define FORK(nr) \
	__asm__ volatile("ldmxcsr %[m]; fldcw %[c]; movq %[v], %%xmm5; movq %[v], %%xmm15; mov %[a], %%rdi; mov $88, %%esi; mov $" #nr ", %%eax; syscall; movq %%xmm5, %[l]; movq %%xmm15, %[h]; stmxcsr %[m]; fnstcw %[c]" \
		: "=&a"(r), [l] "=&r"(lo), [h] "=&r"(hi), [m] "+m"(mxcsr), [c] "+m"(cw) : [v] "r"(v), [a] "r"(args) : "rdi", "rsi", "rcx", "r11", "memory", "xmm5", "xmm15")
static int inherits(int three, uint64_t v) {
	uint64_t args[11] = {[4] = SIGCHLD}, lo, hi;
	uint32_t mxcsr = 0x1f80 | (v % 4) << 13, want = mxcsr;
	uint16_t cw = 0x37f ^ (v % 3) << 10, cwant = cw;
	long r;
	if (three)
		FORK(435);
	else
		FORK(57);
	int ok = lo == v && hi == v && (mxcsr & 0xffc0) == (want & 0xffc0) && cw == cwant, st;
	if (!r)
		_exit(ok ? 7 : 8);
	return r > 0 && waitpid(r, &st, 0) == r && ok && WIFEXITED(st) && WEXITSTATUS(st) == 7;
}
static void inherited(void) {
	int n = 0, m = 0;
	for (uint64_t i = 0; i < 40; i++)
		n += inherits(0, i * 0x123456789abcdef), m += inherits(1, ~i);
	P("fork %d, clone3 %d", n, m);
}
int main(void) { sub(states); sub(inherited); }
