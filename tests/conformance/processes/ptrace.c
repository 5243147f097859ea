// ptrace: attaching, stops of every kind, registers, memory, options and events, what a tracer's end does.
// users: root ordinary
#include "conf.h"
#include <elf.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>

#define PT(req, pid, addr, data) SC(ptrace, req, pid, addr, data)
static int st;
static const char *stop(pid_t p) {
	static char b[80];
	pid_t r;
	while ((r = waitpid(p, &st, __WALL)) < 0 && errno == EINTR)
		;
	if (r < 0)
		return conf_errno(errno);
	if (WIFSTOPPED(st))
		snprintf(b, sizeof b, "stopped by SIG%s%s event %d", WSTOPSIG(st) == (SIGTRAP | 0x80) ? "TRAP|0x80" : sigabbrev_np(WSTOPSIG(st)) ?: "?", "", st >> 16);
	else
		return conf_status(st);
	return b;
}
void *main_text(void);
static volatile long word = 0x1122334455667788;
static void tracee(void) {
	PT(PTRACE_TRACEME, 0, 0, 0);
	raise(SIGSTOP);
}

static void errors(void) {
	long v;
	R(PT(PTRACE_ATTACH, 99999999, 0, 0)), R(PT(PTRACE_ATTACH, getpid(), 0, 0)), R(PT(PTRACE_ATTACH, 0, 0, 0)), R(PT(PTRACE_SEIZE, getppid(), 1, 0)), R(PT(PTRACE_CONT, getppid(), 0, 0)), R(PT(PTRACE_PEEKDATA, getppid(), &word, &v)), R(PT(12345, getppid(), 0, 0)), R(PT(PTRACE_TRACEME, 0, 0, 0)), R(PT(PTRACE_TRACEME, 0, 0, 0));
}

static void memory(void) {
	long v = 0;
	struct user_regs_struct r;
	struct user_fpregs_struct f;
	pid_t p = CHILD(tracee(); _exit(word == 5 ? 5 : 6));
	P("%s", stop(p)), R(PT(PTRACE_PEEKDATA, p, &word, &v)), P("%lx", v), R(PT(PTRACE_PEEKTEXT, p, (char *)&word + 1, &v)), P("%lx", v & 0xffffffffffffff), R(PT(PTRACE_PEEKDATA, p, BAD, &v)), R(PT(PTRACE_PEEKDATA, p, &word, BAD)), R(PT(PTRACE_POKEDATA, p, &word, 5)), P("own %lx", word), R(PT(PTRACE_POKETEXT, p, BAD, 5)), R(PT(PTRACE_POKETEXT, p, main_text(), PT(PTRACE_PEEKTEXT, p, main_text(), &v) ? 0 : v));
	R(PT(PTRACE_PEEKUSER, p, offsetof(struct user, regs.orig_rax), &v)), P("orig_rax %ld", v), R(PT(PTRACE_PEEKUSER, p, 3, &v)), R(PT(PTRACE_PEEKUSER, p, sizeof(struct user) + 16, &v)), R(PT(PTRACE_PEEKUSER, p, -8, &v)), R(PT(PTRACE_PEEKUSER, p, offsetof(struct user, u_debugreg[7]), &v)), R(PT(PTRACE_POKEUSER, p, offsetof(struct user, u_debugreg[0]), 0)), R(PT(PTRACE_GETREGS, p, 0, &r)), P("rip %d cs %llx", r.rip > 4096, r.cs), R(PT(PTRACE_GETREGS, p, 0, BAD)), R(PT(PTRACE_SETREGS, p, 0, &r)), r.fs_base = -1, R(PT(PTRACE_SETREGS, p, 0, &r)), R(PT(PTRACE_GETFPREGS, p, 0, &f)), P("mxcsr %x", f.mxcsr), R(PT(PTRACE_SETFPREGS, p, 0, &f));
	struct iovec io = {&r, sizeof r};
	R(PT(PTRACE_GETREGSET, p, NT_PRSTATUS, &io)), P("%zu", io.iov_len), io.iov_len = 16, R(PT(PTRACE_GETREGSET, p, NT_PRSTATUS, &io)), P("%zu", io.iov_len), io.iov_len = 15, R(PT(PTRACE_GETREGSET, p, NT_PRSTATUS, &io)), R(PT(PTRACE_GETREGSET, p, 999, &io)), io = (struct iovec){&f, sizeof f}, R(PT(PTRACE_GETREGSET, p, NT_PRFPREG, &io)), R(PT(PTRACE_GETREGSET, p, NT_PRSTATUS, BAD));
	uint64_t m = 0;
	siginfo_t i;
	R(PT(PTRACE_GETSIGMASK, p, 8, &m)), P("%lx", m), R(PT(PTRACE_GETSIGMASK, p, 4, &m)), m = 0x400, R(PT(PTRACE_SETSIGMASK, p, 8, &m)), R(PT(PTRACE_GETSIGINFO, p, 0, &i)), P("signo %d code %d", i.si_signo, i.si_code), R(PT(PTRACE_SETOPTIONS, p, 0, 1 << 30)), R(PT(PTRACE_SETOPTIONS, p, 0, PTRACE_O_TRACESYSGOOD)), R(PT(PTRACE_INTERRUPT, p, 0, 0)), R(PT(PTRACE_LISTEN, p, 0, 0)), R(PT(PTRACE_CONT, p, 0, 65)), R(PT(PTRACE_CONT, p, 0, 0)), P("%s", stop(p)), R(PT(PTRACE_CONT, p, 0, 0));
}
void *main_text(void) { return (void *)((unsigned long)errors & ~7UL); }

static void calls(void) {
	struct { uint8_t op, pad[3]; uint32_t arch; uint64_t ip, sp, nr, args[6]; } s;
	pid_t p = CHILD(tracee(); syscall(SYS_getpriority, 1, 2, 3); syscall(SYS_close, -1); _exit(syscall(SYS_umask, 7)));
	P("%s", stop(p)), R(PT(PTRACE_SETOPTIONS, p, 0, PTRACE_O_TRACESYSGOOD));
	for (int n = 0; n < 40; n++) {
		PT(PTRACE_SYSCALL, p, 0, 0);
		const char *w = stop(p);
		if (!WIFSTOPPED(st)) {
			P("%s", w);
			break;
		}
		unsigned long message = 0;
		R(PT(PTRACE_GETEVENTMSG, p, 0, &message)), P("message %ld", message);
		memset(&s, 0, sizeof s);
		long k = PT(PTRACE_GET_SYSCALL_INFO, p, sizeof s, &s);
		if (s.op == 1)
			P("%s: entry of %ld, size %ld", w, (long)s.nr, k);
		else
			P("%s: op %d size %ld value %ld", w, s.op, k, s.nr == 0 || (long)s.nr < 0 ? (long)s.nr : 1);
		if (s.op == 1 && s.nr == SYS_close)
			PT(PTRACE_POKEUSER, p, offsetof(struct user, regs.orig_rax), -1), PT(PTRACE_POKEUSER, p, offsetof(struct user, regs.rax), 0);
		if (s.op == 1 && s.nr == SYS_umask)
			PT(PTRACE_POKEUSER, p, offsetof(struct user, regs.orig_rax), SYS_getsid), PT(PTRACE_POKEUSER, p, offsetof(struct user, regs.rdi), -1);
	}
}

static void signals(void) {
	siginfo_t i;
	pid_t p = CHILD(tracee(); catch(SIGUSR1, 0); signal(SIGUSR2, SIG_IGN); raise(SIGUSR1); raise(SIGUSR2); raise(SIGTERM); raise(SIGUSR1); *(volatile int *)BAD = 0);
	P("%s", stop(p)), PT(PTRACE_CONT, p, 0, 0), P("%s", stop(p)), R(PT(PTRACE_GETSIGINFO, p, 0, &i)), P("code %d", i.si_code), PT(PTRACE_CONT, p, 0, SIGUSR1), P("ignored: %s", stop(p)), PT(PTRACE_CONT, p, 0, SIGUSR2), P("%s", stop(p)), PT(PTRACE_CONT, p, 0, 0), P("dropped, next: %s", stop(p)), PT(PTRACE_CONT, p, 0, 0), P("%s", stop(p)), PT(PTRACE_GETSIGINFO, p, 0, &i), P("code %d", i.si_code), PT(PTRACE_CONT, p, 0, SIGHUP), P("changed: %s", stop(p));
	p = CHILD(tracee(); __asm__ volatile("int3"); _exit(1));
	P("%s", stop(p)), PT(PTRACE_CONT, p, 0, 0), P("breakpoint: %s", stop(p)), PT(PTRACE_GETSIGINFO, p, 0, &i), P("code %d", i.si_code), PT(PTRACE_CONT, p, 0, 0), P("%s", stop(p));
	p = CHILD(tracee(); for (volatile int k = 0;;) k++);
	P("%s", stop(p));
	for (int k = 0; k < 5; k++)
		PT(PTRACE_SINGLESTEP, p, 0, 0), P("step: %s", stop(p)), PT(PTRACE_GETSIGINFO, p, 0, &i), P("code %d", i.si_code);
	R(PT(PTRACE_KILL, p, 0, 0)), P("%s", stop(p));
	p = CHILD(tracee(); raise(SIGTSTP); _exit(4)), P("%s", stop(p)), PT(PTRACE_CONT, p, 0, 0), P("%s", stop(p)), R(PT(PTRACE_DETACH, p, 0, SIGCONT)), P("%s", stop(p));
	catch(SIGCHLD, 0), p = CHILD(tracee(); _exit(1)), P("%s", stop(p)), P("SIGCHLD code %d status %d", conf_info.si_code, conf_info.si_status), kill(p, SIGKILL), P("%s", stop(p));
	siginfo_t w;
	p = CHILD(tracee(); _exit(1)), R(waitid(P_PID, p, &w, WSTOPPED)), P("waitid: code %d status %d", w.si_code, w.si_status), kill(p, SIGKILL), stop(p);
}

static void *thread(void *x) { return 0; }
static void events(void) {
	unsigned long m;
	pid_t p = CHILD(tracee(); if (!fork()) _exit(2); wait(0); if (!vfork()) _exit(3); wait(0); pthread_t t; pthread_create(&t, 0, thread, 0); pthread_join(t, 0); execl("/bin/true", "true", NULL)), c;
	P("%s", stop(p)), R(PT(PTRACE_SETOPTIONS, p, 0, PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACEVFORKDONE | PTRACE_O_TRACEEXEC | PTRACE_O_TRACEEXIT));
	PT(PTRACE_CONT, p, 0, 0), P("fork: %s", stop(p)), R(PT(PTRACE_GETEVENTMSG, p, 0, &m)), c = m, P("child %s", stop(c)), PT(PTRACE_CONT, c, 0, 0), P("child %s", stop(c)), PT(PTRACE_GETEVENTMSG, c, 0, &m), P("message %lx", m), PT(PTRACE_CONT, c, 0, 0), P("child %s", stop(c)), PT(PTRACE_CONT, p, 0, 0), P("%s", stop(p));
	if (WSTOPSIG(st) == SIGCHLD)
		PT(PTRACE_CONT, p, 0, SIGCHLD), P("vfork: %s", stop(p));
	PT(PTRACE_GETEVENTMSG, p, 0, &m), c = m, P("child %s", stop(c)), PT(PTRACE_CONT, p, 0, 0), PT(PTRACE_CONT, c, 0, 0), P("child %s", stop(c)), PT(PTRACE_CONT, c, 0, 0), P("child %s", stop(c));
	for (int n = 0; n < 10 && (P("then %s", stop(p)), WIFSTOPPED(st)); n++)
		PT(PTRACE_CONT, p, 0, st >> 16 ? 0 : WSTOPSIG(st) == SIGTRAP ? 0 : WSTOPSIG(st));
}

static void attach(void) {
	int pp[2];
	char b;
	pipe(pp);
	pid_t p = CHILD(write(pp[1], "x", 1); for (;;) pause());
	read(pp[0], &b, 1), R(PT(PTRACE_ATTACH, p, 0, 0)), P("%s", stop(p)), R(PT(PTRACE_ATTACH, p, 0, 0)), P("other tracer: %s", wait_for(CHILD(R(PT(PTRACE_ATTACH, p, 0, 0)); R(PT(PTRACE_CONT, p, 0, 0))))), P("tracer shown %d", strstr(slurp(({ static char n[40]; sprintf(n, "/proc/%d/status", p); n; })), "TracerPid:\t0") == 0), R(PT(PTRACE_CONT, p, 0, 0)), R(PT(PTRACE_GETREGS, p, 0, &(struct user_regs_struct){})), kill(p, SIGUSR1), P("%s", stop(p)), R(PT(PTRACE_DETACH, p, 0, 0)), R(PT(PTRACE_DETACH, p, 0, 0));
	R(PT(PTRACE_SEIZE, p, 0, PTRACE_O_TRACEEXIT)), V(waitpid(p, &st, WNOHANG)), R(PT(PTRACE_INTERRUPT, p, 0, 0)), P("%s", stop(p)), R(PT(PTRACE_CONT, p, 0, 0)), kill(p, SIGSTOP), P("%s", stop(p)), R(PT(PTRACE_CONT, p, 0, SIGSTOP)), P("group stop: %s", stop(p)), R(PT(PTRACE_LISTEN, p, 0, 0)), kill(p, SIGCONT), P("continued: %s", stop(p)), R(PT(PTRACE_CONT, p, 0, 0)), P("%s", stop(p)), R(PT(PTRACE_CONT, p, 0, SIGCONT)), kill(p, SIGTERM), P("%s", stop(p)), R(PT(PTRACE_CONT, p, 0, SIGTERM)), P("%s", stop(p)), R(PT(PTRACE_CONT, p, 0, 0)), P("%s", stop(p));
	p = CHILD(write(pp[1], "x", 1); for (;;) pause()), read(pp[0], &b, 1);
	P("tracer ends: %s", wait_for(CHILD(PT(PTRACE_SEIZE, p, 0, 0); _exit(0)))), kill(p, SIGUSR1), P("%s", stop(p)), p = CHILD(write(pp[1], "x", 1); for (;;) pause()), read(pp[0], &b, 1), P("EXITKILL: %s", wait_for(CHILD(PT(PTRACE_SEIZE, p, 0, PTRACE_O_EXITKILL); _exit(0)))), P("%s", stop(p));
	p = CHILD(prctl(PR_SET_DUMPABLE, 0); write(pp[1], "x", 1); pause()), read(pp[0], &b, 1), R(PT(PTRACE_ATTACH, p, 0, 0) * 0), kill(p, SIGKILL);
	p = CHILD(PT(PTRACE_TRACEME, 0, 0, 0); execl("/bin/true", "true", NULL)), P("exec: %s", stop(p)), PT(PTRACE_CONT, p, 0, 0), P("%s", stop(p));
}

int main(void) { sub(errors), sub(memory), sub(calls), sub(signals), sub(events), sub(attach); }
