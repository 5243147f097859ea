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
int main(void) { sub(states); }
