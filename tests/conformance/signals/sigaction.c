// rt_sigaction(2), which a kernel may answer without being entered: each kind of call is made so often that it is surely answered the fast way, and what signals do
// must still agree with /proc, delivery, sigpending, fork, vfork, execve, threads, wait and who shares the actions.
#include "conf.h"
#include <pthread.h>
#include <spawn.h>

struct kaction {
	unsigned long handler, flags, restorer, mask;
};
enum { OFTEN = 400 };

static long act(int sig, const struct kaction *a, struct kaction *o) { return SC(rt_sigaction, sig, a, o, 8L); }
static unsigned long bit(int sig) { return 1ul << (sig - 1); }
static long same(struct kaction a, unsigned long h, unsigned long f, unsigned long r, unsigned long m) {
	return a.handler == h && a.flags == f && a.restorer == r && a.mask == m;
}

// proc is a set of signals as /proc says it.
static unsigned long proc(const char *field) {
	char line[200], form[32];
	unsigned long v = 0;
	snprintf(form, sizeof form, "%s: %%lx", field);
	FILE *f = fopen("/proc/self/status", "r");
	while (fgets(line, sizeof line, f))
		if (sscanf(line, form, &v) == 1)
			break;
	fclose(f);
	return v;
}

static volatile int seen;
static void on(int sig) { seen = sig; }
static void other(int sig) { seen = -sig; }

// defaults leaves no action of ours, whoever started the program.
static void defaults(void) {
	struct kaction d = {0};
	for (int sig = 1; sig < 65; sig++)
		act(sig, &d, 0);
}

static void values(void) {
	struct kaction a, o;
	long bad = 0;
	defaults();
	for (long i = 0; i < OFTEN; i++)
		for (int sig = 1; sig <= 64; sig++) {
			if (sig == SIGKILL || sig == SIGSTOP)
				continue;
			unsigned long k = i * 64 + sig, was = k - 64;
			a = (struct kaction){0x10000 + k, 0x04000000 | (k & 1 ? SA_RESTART : SA_ONSTACK | SA_SIGINFO), k, ~k};
			bad += act(sig, &a, &o) != 0;
			if (i)
				bad += !same(o, 0x10000 + was, 0x04000000 | (was & 1 ? SA_RESTART : SA_ONSTACK | SA_SIGINFO), was, ~was & ~(bit(SIGKILL) | bit(SIGSTOP)));
			bad += act(sig, 0, &o) != 0 || !same(o, a.handler, a.flags, a.restorer, a.mask & ~(bit(SIGKILL) | bit(SIGSTOP)));
			if (i % 100 == 0)
				bad += (proc("SigCgt") & bit(sig)) == 0;
		}
	P("set and read: %ld wrong", bad);
	XN("caught", proc("SigCgt"));
	for (long f = 0; f < 64; f++) {
		a = (struct kaction){(unsigned long)on, 1ul << f, 1, 0};
		for (int i = 0; i < 8; i++)
			bad += act(SIGUSR1, &a, 0) != 0;
		act(SIGUSR1, 0, &o);
		XN("flag", o.flags);
	}
	for (int i = 0; i < OFTEN; i++) {
		a = (struct kaction){0x5000 + i, 0, 3, 4};
		bad += act(SIGUSR1, &a, &a) != 0;
		if (i)
			bad += !same(a, 0x5000 + i - 1, 0, 3, 4);
	}
	P("old where the new one was: %ld wrong", bad);
	defaults();
}

static void errors(void) {
	struct kaction a = {0}, o;
	static const int sigs[] = {-1, 0, SIGKILL, SIGSTOP, 65, 1 << 30};
	for (unsigned i = 0; i < sizeof sigs / sizeof *sigs; i++) {
		int set = 0, get = 0;
		for (int n = 0; n < OFTEN; n++)
			set = E(act(sigs[i], &a, 0)), get = E(act(sigs[i], 0, &o));
		P("signal %d: %d %d", sigs[i], set, get);
	}
	int e[6] = {0};
	for (int n = 0; n < OFTEN; n++) {
		e[0] = E(SC(rt_sigaction, SIGUSR1, &a, &o, 4L));
		e[1] = E(act(SIGUSR1, BAD, &o));
		e[2] = E(act(SIGUSR1, (void *)-8, &o));
		e[3] = E(act(SIGUSR1, 0, BAD));
		e[4] = E(act(SIGUSR1, 0, 0));
		e[5] = E(act(SIGKILL, BAD, 0));
	}
	P("size %d, action %d %d, old %d, nothing %d, SIGKILL's %d", e[0], e[1], e[2], e[3], e[4], e[5]);
	a.handler = (unsigned long)on;
	RN("old action nowhere", act(SIGUSR1, &a, BAD));
	act(SIGUSR1, 0, &o);
	P("and the action: %d", o.handler == a.handler);
	a.handler = 0;
	R(act(SIGUSR1, &a, border(24)));
	act(SIGUSR1, 0, &o);
	P("and the action: %ld", o.handler);
	char *page = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	long bad = 0;
	for (int i = 0; i < 200; i++) {
		madvise(page, 8192, MADV_DONTNEED);
		a.handler = i + 5;
		bad += act(SIGUSR1, &a, (void *)(page + 4080)) != 0 || act(SIGUSR2, (void *)(page + 5000), 0) != 0;
		act(SIGUSR1, 0, &o);
		bad += o.handler != a.handler;
	}
	P("fresh pages: %ld wrong", bad);
	defaults();
}

// A signal does what was said last.
static void delivery(void) {
	long bad = 0;
	for (int i = 0; i < OFTEN; i++) {
		signal(SIGUSR1, i & 1 ? on : other);
		seen = 0;
		raise(SIGUSR1);
		bad += seen != (i & 1 ? SIGUSR1 : -SIGUSR1);
		signal(SIGUSR1, SIG_IGN);
		seen = 0;
		raise(SIGUSR1);
		bad += seen != 0 || (proc("SigIgn") & bit(SIGUSR1)) == 0;
		struct sigaction a = {.sa_handler = on, .sa_flags = SA_RESETHAND}, o;
		sigaction(SIGUSR2, &a, 0);
		raise(SIGUSR2);
		sigaction(SIGUSR2, 0, &o);
		bad += seen != SIGUSR2 || o.sa_handler != SIG_DFL;
	}
	P("delivery: %ld wrong", bad);
	signal(SIGUSR1, SIG_DFL);
	P("default: %s", wait_for(CHILD({
		for (int i = 0; i < OFTEN; i++)
			signal(SIGUSR1, on), signal(SIGUSR1, SIG_DFL);
		raise(SIGUSR1);
	})));
	P("from without: %s", wait_for(CHILD({
		for (int i = 0; i < OFTEN; i++)
			signal(SIGTERM, SIG_IGN), signal(SIGTERM, SIG_DFL);
		if (!fork())
			kill(getppid(), SIGTERM), _exit(0);
		for (;;)
			pause();
	})));
}

// A signal that is ignored while it is pending and blocked is dropped, by SIG_IGN and by a default that ignores.
static void dropped(void) {
	long bad = 0;
	unsigned long p, set = bit(SIGUSR1) | bit(SIGWINCH) | bit(SIGRTMIN), none = 0;
	SC(rt_sigprocmask, SIG_BLOCK, &set, 0, 8L);
	for (int i = 0; i < OFTEN; i++) {
		signal(SIGUSR1, on), signal(SIGWINCH, on), signal(SIGRTMIN, on);
		raise(SIGUSR1), kill(getpid(), SIGWINCH), raise(SIGRTMIN), raise(SIGRTMIN);
		SC(rt_sigpending, &p, 8L);
		bad += p != set;
		signal(SIGUSR1, SIG_IGN), signal(SIGWINCH, SIG_DFL), signal(SIGRTMIN, SIG_IGN);
		SC(rt_sigpending, &p, 8L);
		bad += p != 0;
		raise(SIGUSR1); // one that is blocked waits even if it is ignored
		SC(rt_sigpending, &p, 8L);
		bad += p != bit(SIGUSR1);
		signal(SIGUSR1, on), seen = 0;
		SC(rt_sigprocmask, SIG_SETMASK, &none, 0, 8L);
		bad += seen != SIGUSR1;
		SC(rt_sigprocmask, SIG_SETMASK, &set, 0, 8L);
	}
	P("dropped: %ld wrong", bad);
	SC(rt_sigprocmask, SIG_SETMASK, &none, 0, 8L);
	defaults();
}

static void *change(void *a) {
	for (int i = 0; i < OFTEN; i++)
		signal(SIGUSR1, i & 1 ? a : SIG_IGN);
	return a;
}

// Actions are the threads' in common, also once there are threads no more.
static void threads(void) {
	long bad = 0;
	pthread_t t;
	struct sigaction o;
	for (int i = 0; i < 40; i++) {
		for (int j = 0; j < 20; j++)
			signal(SIGUSR1, SIG_IGN);
		pthread_create(&t, 0, change, i & 1 ? on : other);
		pthread_join(t, 0);
		sigaction(SIGUSR1, 0, &o);
		bad += o.sa_handler != (i & 1 ? on : other);
		seen = 0, raise(SIGUSR1);
		bad += seen != (i & 1 ? SIGUSR1 : -SIGUSR1);
	}
	P("threads: %ld wrong", bad);
}

static char stack[65536] __attribute__((aligned(16)));
static int in_clone(void *a) {
	for (int i = 0; i < OFTEN; i++)
		signal(SIGUSR1, SIG_IGN), signal(SIGUSR1, on);
	return 0;
}

// cloned says what a child with flags leaves of the parent's actions.
static void cloned(const char *name, int flags) {
	int st;
	struct sigaction o;
	for (int i = 0; i < OFTEN; i++)
		signal(SIGUSR1, other);
	pid_t p = clone(in_clone, stack + sizeof stack, flags | SIGCHLD, 0);
	waitpid(p, &st, 0);
	sigaction(SIGUSR1, 0, &o);
	P("%s: %s", name, o.sa_handler == on ? "the child's" : o.sa_handler == other ? "the parent's" : "?");
}

static void children(void) {
	cloned("fork", 0);
	cloned("vfork", CLONE_VM | CLONE_VFORK);
	cloned("shared memory", CLONE_VM);
	cloned("shared actions", CLONE_VM | CLONE_SIGHAND);
	cloned("after that", CLONE_VM | CLONE_VFORK);
	P("inherited: %s", wait_for(CHILD({
		struct sigaction o;
		sigaction(SIGUSR1, 0, &o);
		_exit(o.sa_handler == on ? 3 : 4);
	})));
	defaults();
}

static void spawned(void) {
	extern char **environ;
	long bad = 0;
	for (int i = 0; i < OFTEN; i++)
		signal(SIGUSR1, on), signal(SIGUSR2, SIG_IGN), signal(SIGHUP, i & 1 ? SIG_IGN : on);
	for (int i = 0; i < 10; i++) {
		char *argv[] = {"self", "again", 0};
		posix_spawnattr_t at;
		posix_spawnattr_init(&at);
		sigset_t d;
		sigemptyset(&d), sigaddset(&d, SIGHUP);
		posix_spawnattr_setsigdefault(&at, &d);
		posix_spawnattr_setflags(&at, i & 1 ? POSIX_SPAWN_SETSIGDEF : 0);
		pid_t p;
		fflush(stdout);
		if (posix_spawn(&p, "/proc/self/exe", 0, &at, argv, environ))
			P("no spawn");
		wait_for(p);
		struct sigaction o;
		sigaction(SIGUSR1, 0, &o), bad += o.sa_handler != on;
		sigaction(SIGHUP, 0, &o), bad += o.sa_handler != SIG_IGN;
	}
	P("the parent's: %ld wrong", bad);
	defaults();
}

// What a parent says of SIGCHLD decides what becomes of its children.
static void sigchld(void) {
	struct sigaction a = {.sa_handler = on};
	long bad = 0;
	for (int i = 0; i < 60; i++) {
		for (int j = 0; j < 10; j++)
			signal(SIGCHLD, j & 1 ? SIG_IGN : SIG_DFL);
		bad += E(waitpid(CHILD(;), 0, 0)) != -ECHILD;
		for (int j = 0; j < 10; j++)
			signal(SIGCHLD, j & 1 ? on : SIG_IGN);
		seen = 0;
		bad += E(waitpid(CHILD(;), 0, 0)) < 0 || seen != SIGCHLD;
		for (int j = 0; j < 2; j++) {
			a.sa_flags = SA_NOCLDWAIT | (j ? SA_RESTART : 0), seen = 0;
			sigaction(SIGCHLD, &a, 0);
			bad += E(waitpid(CHILD(sleep_ms(j)), 0, 0)) != -ECHILD || seen != SIGCHLD;
		}
		a.sa_flags = 0;
		sigaction(SIGCHLD, &a, 0);
		bad += E(waitpid(CHILD(;), 0, 0)) < 0;
	}
	P("SIGCHLD: %ld wrong", bad);
	defaults();
}

static volatile int go;
static void *killer(void *a) {
	for (int i = 0; i < 20000 && !go; i++)
		kill(*(pid_t *)a, SIGUSR1);
	return a;
}

// Another process sends signals while this one changes between handlers and SIG_IGN: it never dies.
static void race(void) {
	pid_t me = getpid();
	signal(SIGUSR1, SIG_IGN);
	pid_t p = CHILD({
		killer(&me);
		_exit(0);
	});
	int st;
	while (waitpid(p, &st, WNOHANG) == 0)
		for (int i = 0; i < 100; i++)
			signal(SIGUSR1, i % 3 == 0 ? on : i % 3 == 1 ? other : SIG_IGN);
	P("race: %s", conf_status(st));
}

int main(int argc, char **argv) {
	if (argc > 1) {
		P("after execve: %#lx ignored, %#lx caught", proc("SigIgn") & 0x7ffffffful, proc("SigCgt"));
		return 0;
	}
	sub(values);
	sub(errors);
	sub(delivery);
	sub(dropped);
	sub(threads);
	sub(children);
	sub(spawned);
	sub(sigchld);
	sub(race);
	return 0;
}
