// seccomp_trace: a filter that asks the tracer (SECCOMP_RET_TRACE), and the siginfo of stops that are not signals'.
// users: root ordinary
#include "conf.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/user.h>

#define PT(req, pid, addr, data) SC(ptrace, req, pid, addr, data)
#define ON(nr, ret) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1), BPF_STMT(BPF_RET | BPF_K, ret)
#define REG(r) offsetof(struct user, regs.r)

static void filter(void) {
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		ON(SYS_getpriority, SECCOMP_RET_TRACE | 1), ON(SYS_umask, SECCOMP_RET_TRACE | 2), ON(SYS_getsid, SECCOMP_RET_TRACE | 3),
		ON(SYS_getpgid, SECCOMP_RET_ERRNO | ENOTTY), ON(SYS_nanosleep, SECCOMP_RET_TRACE | 0xffff), ON(SYS_sync, SECCOMP_RET_TRACE | 5), ON(SYS_rmdir, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog p = {sizeof f / sizeof *f, f};
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p))
		_exit(99);
}

static int st;
static const char *stop(pid_t p) {
	static char b[80];
	if (waitpid(p, &st, __WALL) != p)
		return conf_errno(errno);
	if (!WIFSTOPPED(st))
		return conf_status(st);
	snprintf(b, sizeof b, "stopped by %d event %d", WSTOPSIG(st), st >> 16);
	return b;
}

static void info(pid_t p) {
	siginfo_t i;
	memset(&i, 0, sizeof i);
	R(PT(PTRACE_GETSIGINFO, p, 0, &i)), P("signo %d code %#x errno %d from it %d, its user %d", i.si_signo, i.si_code, i.si_errno, i.si_pid == p, i.si_uid == getuid());
}

static void syscall_info(pid_t p) {
	struct { uint8_t op, pad[3]; uint32_t arch; uint64_t ip, sp, nr, args[6]; uint32_t ret, pad2[5]; } s;
	memset(&s, 0xee, sizeof s);
	V(PT(PTRACE_GET_SYSCALL_INFO, p, sizeof s, &s)), P("op %d nr %ld args %lx %lx ret %x %x", s.op, (long)s.nr, s.nr == SYS_nanosleep ? 0 : s.args[0], s.args[1], s.ret, s.pad2[1]);
	unsigned long m = 0;
	R(PT(PTRACE_GETEVENTMSG, p, 0, &m)), P("message %#lx", m);
}

static void untraced(void) {
	filter();
	V(SC(getpriority, 1, 2)), V(SC(getsid, 0)), V(SC(getpgid, 0)), V(SC(nanosleep, 0, 0));
}

// calls: the child's calls are seen, let through, changed, skipped with a value and without.
static void calls(int how) {
	fflush(stdout);
	pid_t p = fork();
	if (!p) {
		PT(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		filter();
		V(SC(getpriority, 9, 2));
		V(SC(umask, 022) >= 0);
		V(SC(getsid, 0) == getsid(0));
		R(SC(sync));
		fflush(stdout);
		_exit(0);
	}
	H("how %d", how);
	P("%s", stop(p)), R(PT(PTRACE_SETOPTIONS, p, 0, PTRACE_O_TRACESECCOMP | PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL)), info(p);
	PT(PTRACE_CONT, p, 0, 0);
	for (int n = 0; n < 20; n++) {
		P("%s", stop(p));
		if (!WIFSTOPPED(st))
			return;
		info(p), syscall_info(p);
		long nr = PT(PTRACE_PEEKUSER, p, REG(orig_rax), &nr) ? 0 : nr, next = nr == SYS_getpriority && how == 6 ? SYS_rmdir : -1;
		switch (how) {
		case 1: // nothing is called; the result is what it was
			R(PT(PTRACE_POKEUSER, p, REG(orig_rax), -1));
			break;
		case 2: // nothing is called, and a result
			R(PT(PTRACE_POKEUSER, p, REG(orig_rax), -1)), R(PT(PTRACE_POKEUSER, p, REG(rax), -ESRCH));
			break;
		case 3: // another call, which the filter allows
			R(PT(PTRACE_POKEUSER, p, REG(orig_rax), SYS_close)), R(PT(PTRACE_POKEUSER, p, REG(rdi), -1));
			break;
		case 4: // another call, which the filter refuses
			R(PT(PTRACE_POKEUSER, p, REG(orig_rax), SYS_getpgid));
			break;
		case 5: // another call, which the filter would ask about again; and one that there is not
			R(PT(PTRACE_POKEUSER, p, REG(orig_rax), nr == SYS_sync ? 9999 : SYS_getsid)), R(PT(PTRACE_POKEUSER, p, REG(rdi), 99999999));
			break;
		case 6: // it kills
			R(PT(PTRACE_POKEUSER, p, REG(orig_rax), next == -1 ? nr : next));
			break;
		}
		if (how == 7) { // to the end of the call, whose entry is over
			R(PT(PTRACE_SYSCALL, p, 0, 0)), P("%s", stop(p)), info(p), syscall_info(p);
		}
		if (how == 8) { // the end of the tracing lets the call be made
			long r = E(PT(PTRACE_DETACH, p, 0, 0)); // said when the child has said its part
			P("%s", stop(p)), P("detached: %ld", r);
			return;
		}
		PT(PTRACE_CONT, p, 0, 0); // says nothing: the child does
	}
}

// tracee stops behind its filter and then does what is given.
#define tracee(...) CHILD(filter(); PT(PTRACE_TRACEME, 0, 0, 0); raise(SIGSTOP); __VA_ARGS__)

// entry: a tracer that follows calls sees the entry first, then the filter's question.
static void entry(void) {
	pid_t p = tracee({ _exit(SC(umask, 022) < 0); });
	P("%s", stop(p)), R(PT(PTRACE_SETOPTIONS, p, 0, PTRACE_O_TRACESECCOMP | PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXIT));
	for (int n = 0; n < 20 && WIFSTOPPED(st); n++)
		R(PT(PTRACE_SYSCALL, p, 0, 0)), P("%s", stop(p)), ({ if (WIFSTOPPED(st)) info(p), syscall_info(p); });
}

// restart: a call that a signal interrupts is asked about again, by its new name.
static void restart(void) {
	pid_t p = tracee({
		struct timespec t = {0, 200000000};
		_exit(SC(nanosleep, &t, 0) ? errno : 0);
	});
	P("%s", stop(p)), R(PT(PTRACE_SETOPTIONS, p, 0, PTRACE_O_TRACESECCOMP)), R(PT(PTRACE_CONT, p, 0, 0)), P("%s", stop(p)), syscall_info(p);
	R(kill(p, SIGWINCH)), R(PT(PTRACE_CONT, p, 0, 0)), P("%s", stop(p)), R(PT(PTRACE_CONT, p, 0, 0)), P("%s", stop(p));
}

// seized: the siginfo of a group stop, of PTRACE_INTERRUPT and of a new thread's first stop.
static void seized(void) {
	fflush(stdout);
	pid_t p = fork();
	if (!p)
		for (;;)
			pause();
	R(PT(PTRACE_SEIZE, p, 0, 0)), R(PT(PTRACE_INTERRUPT, p, 0, 0)), P("%s", stop(p)), info(p), R(PT(PTRACE_CONT, p, 0, 0));
	R(kill(p, SIGTSTP)), P("%s", stop(p)), R(PT(PTRACE_CONT, p, 0, SIGTSTP)), P("%s", stop(p)), info(p);
	R(kill(p, SIGKILL)), P("%s", stop(p));
}

int main(void) {
	H("untraced");
	P("%s", conf_status(forked(untraced)));
	for (int how = 0; how <= 8; how++)
		calls(how);
	H("entry"), entry();
	H("restart"), restart();
	H("seized"), seized();
	return 0;
}
