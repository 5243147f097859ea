// rt_sig*, sigaltstack, queues, targets, defaults, interruption and restart of what blocks.
#include "conf.h"
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/msg.h>
#include <sys/random.h>
#include <sys/sem.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <linux/futex.h>
#include <sys/select.h>

static sigset_t set(int a, int b) {
	sigset_t s;
	sigemptyset(&s);
	if (a)
		sigaddset(&s, a);
	if (b)
		sigaddset(&s, b);
	return s;
}

static void calls(void) {
	char m[16] = {0};
	struct sigaction sa = {.sa_handler = SIG_IGN};
	R(SC(rt_sigaction, 0, 0, m, 8)), R(SC(rt_sigaction, 65, 0, m, 8)), R(SC(rt_sigaction, SIGKILL, 0, border(32), 8)), R(SC(rt_sigaction, SIGUSR1, BAD, 0, 8)), R(SC(rt_sigaction, SIGUSR1, 0, BAD, 8)), R(SC(rt_sigaction, SIGUSR1, 0, 0, 4)), R(SC(rt_sigaction, SIGUSR1, 0, 0, 16)), R(sigaction(SIGKILL, &sa, 0)), R(sigaction(SIGSTOP, &sa, 0));
	R(SC(rt_sigprocmask, 0, 0, 0, 8)), R(SC(rt_sigprocmask, 9, 0, 0, 8)), R(SC(rt_sigprocmask, 9, m, 0, 8)), R(SC(rt_sigprocmask, 0, m, 0, 4)), R(SC(rt_sigprocmask, 0, BAD, 0, 8)), R(SC(rt_sigprocmask, 0, m, BAD, 8)), R(SC(rt_sigprocmask, SIG_SETMASK, &(long){-1}, 0, 8)), SC(rt_sigprocmask, 0, 0, m, 8), P("full mask without KILL and STOP: %lx", *(long *)m), *(long *)m = 0, SC(rt_sigprocmask, SIG_SETMASK, m, 0, 8);
	R(SC(rt_sigpending, m, 8)), R(SC(rt_sigpending, m, 9)), R(SC(rt_sigpending, BAD, 8)), R(SC(rt_sigpending, m, 4)), R(SC(rt_sigsuspend, m, 4)), R(SC(rt_sigsuspend, BAD, 8)), R(SC(rt_sigtimedwait, m, 0, &(struct timespec){0, 0}, 8)), R(SC(rt_sigtimedwait, m, 0, &(struct timespec){0, 1000000000}, 8)), R(SC(rt_sigtimedwait, m, 0, &(struct timespec){-1, 0}, 8)), R(SC(rt_sigtimedwait, m, 0, BAD, 8)), R(SC(rt_sigtimedwait, BAD, 0, 0, 8)), R(SC(rt_sigtimedwait, m, 0, 0, 4));
	siginfo_t i;
	memset(&i, 0, sizeof i), i.si_code = SI_QUEUE;
	catch(SIGUSR1, 0), R(SC(rt_sigqueueinfo, getpid(), SIGUSR1, &i)), P("code %d signo %d", conf_info.si_code, conf_info.si_signo), R(SC(rt_sigqueueinfo, getpid(), 0, &i)), R(SC(rt_sigqueueinfo, getpid(), 65, &i)), R(SC(rt_sigqueueinfo, 99999999, SIGUSR1, &i)), R(SC(rt_sigqueueinfo, getpid(), SIGUSR1, BAD)), i.si_code = SI_USER, R(SC(rt_sigqueueinfo, getppid(), 0, &i)), i.si_code = 5, R(SC(rt_sigqueueinfo, getppid(), 0, &i)), R(SC(rt_sigqueueinfo, getpid(), SIGUSR1, &i)), i.si_code = SI_TKILL, R(SC(rt_sigqueueinfo, getppid(), 0, &i)), i.si_code = SI_QUEUE, R(SC(rt_tgsigqueueinfo, getpid(), getpid(), SIGUSR1, &i)), R(SC(rt_tgsigqueueinfo, getpid(), -1, SIGUSR1, &i)), R(SC(rt_tgsigqueueinfo, getpid() + 1, getpid(), SIGUSR1, &i));
	H("sigaltstack");
	stack_t st, old;
	char *big = malloc(65536);
	R(sigaltstack(0, &old)), P("flags %d", old.ss_flags), st = (stack_t){.ss_sp = big, .ss_size = 2048}, R(sigaltstack(&st, 0)), st.ss_size = 2047, R(sigaltstack(&st, 0)), st.ss_size = 65536, R(sigaltstack(&st, 0)), st.ss_flags = 9, R(sigaltstack(&st, 0)), st.ss_flags = SS_ONSTACK, R(sigaltstack(&st, 0)), st.ss_flags = 1 << 31, R(sigaltstack(&st, &old)), P("flags %x size %zu", old.ss_flags, old.ss_size), R(sigaltstack(0, &old)), P("flags %x", old.ss_flags), st.ss_flags = SS_DISABLE, R(sigaltstack(&st, 0)), R(sigaltstack(0, &old)), P("flags %x", old.ss_flags), R(SC(sigaltstack, BAD, 0)), R(SC(sigaltstack, 0, BAD));

}


static int order[64], at;
static void note(int s) { order[at++ & 63] = s; }
static void queues(void) {
	sigset_t s = set(0, 0), o;
	static const int sig[] = {SIGUSR2, SIGUSR1, SIGHUP, 40, 35, 34};
	for (int i = 0; i < 6; i++)
		sigaddset(&s, sig[i]), signal(sig[i], note);
	sigprocmask(SIG_BLOCK, &s, &o);
	for (int i = 0; i < 6; i++)
		for (int k = 0; k < 3; k++)
			sigqueue(getpid(), sig[i], (union sigval){.sival_int = k});
	sigset_t p;
	sigpending(&p), P("pending %lx", *(long *)&p), sigprocmask(SIG_SETMASK, &o, 0);
	for (int i = 0; i < at; i++)
		P("delivered %d", order[i]);
	siginfo_t i;
	sigprocmask(SIG_BLOCK, &s, &o);
	for (int k = 0; k < 3; k++)
		sigqueue(getpid(), 34, (union sigval){.sival_int = k}), kill(getpid(), SIGUSR1);
	struct timespec z = {0, 0};
	for (int k = 0; k < 5; k++)
		P("sigtimedwait %ld value %d code %d", E(sigtimedwait(&s, &i, &z)), i.si_value.sival_int, i.si_code);
	raise(SIGUSR1), kill(getpid(), SIGUSR1), P("thread and process: %ld %ld %ld", E(sigtimedwait(&s, 0, &z)), E(sigtimedwait(&s, 0, &z)), E(sigtimedwait(&s, 0, &z)));
	int ok = 0;
	struct rlimit l = {10, 10};
	uid_t u = 0; // the count is the user's: one that no other run of this has
	getrandom(&u, 2, 0), u += 100000, setrlimit(RLIMIT_SIGPENDING, &l), setresuid(u, u, u);
	while (ok < 100 && !sigqueue(getpid(), 34, (union sigval){}))
		ok++;
	P("over RLIMIT_SIGPENDING: %d %s, kill %s", ok, conf_errno(errno), EN(kill(getpid(), 35)));
	signal(SIGUSR1, SIG_IGN), sigpending(&p), P("ignored while blocked: %lx", *(long *)&p & 0x200), kill(getpid(), SIGUSR1), sigpending(&p), P("sent while ignored and blocked: %lx", *(long *)&p & 0x200);
}

static void defaults(void) {
	for (int s = 1; s < 65; s++) {
		if (s == 32 || s == 33)
			continue;
		pid_t p = CHILD(kill(getpid(), s); _exit(0));
		int st;
		waitpid(p, &st, WUNTRACED), P("signal %d: %s", s, conf_status(st));
		if (WIFSTOPPED(st))
			kill(p, SIGKILL), waitpid(p, &st, 0);
	}
	pid_t p = CHILD(signal(SIGCONT, SIG_DFL); sigset_t s = set(SIGTERM, SIGCONT); sigprocmask(SIG_BLOCK, &s, 0); kill(getpid(), SIGSTOP); sigset_t q; sigpending(&q); P("pending after a stop %lx", *(long *)&q));
	int st;
	waitpid(p, &st, WUNTRACED), kill(p, SIGTERM), kill(p, SIGCONT), P("%s", wait_for(p));
	p = CHILD(sigset_t s = set(SIGTSTP, SIGCONT); sigprocmask(SIG_BLOCK, &s, 0); kill(getpid(), SIGTSTP); kill(getpid(), SIGCONT); sigset_t q; sigpending(&q); P("SIGCONT removes stops %lx", *(long *)&q); kill(getpid(), SIGTSTP); sigpending(&q); P("and stops remove it %lx", *(long *)&q));
	P("%s", wait_for(p));
	P("orphaned group: %s", wait_for(CHILD(setsid(); kill(getpid(), SIGTSTP); _exit(3))));
}

static void handlers(void) {
	struct sigaction a = {.sa_sigaction = conf_handler, .sa_flags = SA_RESETHAND | SA_SIGINFO};
	sigaction(SIGUSR1, &a, 0), raise(SIGUSR1), sigaction(SIGUSR1, 0, &a), P("reset to default %d flags %x", a.sa_handler == SIG_DFL, a.sa_flags & ~0x4000000);
	a = (struct sigaction){.sa_sigaction = conf_handler, .sa_flags = SA_SIGINFO | 0x400 | 0x40000000 | 0x800};
	sigaction(SIGUSR1, &a, 0), sigaction(SIGUSR1, 0, &a), P("unknown flags are cleared: %x", a.sa_flags & ~0x4000000);
}

static int fd[2], sv[2], sock;
static long f_read(void) { char b; return read(fd[0], &b, 1); }
static long f_write(void) { static char b[1 << 20]; return write(fd[1], b, sizeof b); }
static long f_recv(void) { char b; return recv(sv[0], &b, 1, 0); }
static long f_recvt(void) { char b; struct timeval t = {5, 0}; setsockopt(sv[0], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t); return recv(sv[0], &b, 1, 0); }
static long f_accept(void) { return accept(sock, 0, 0); }
static long f_wait(void) { return wait4(-1, 0, 0, 0); }
static long f_waitid(void) { siginfo_t i; return waitid(P_ALL, 0, &i, WEXITED | WSTOPPED); }
static long f_flock(void) { return flock(open("lock", O_RDWR), LOCK_EX); }
static long f_futex(void) { int w = 0; return SC(futex, &w, FUTEX_WAIT, 0, 0); }
static long f_futext(void) { int w = 0; return SC(futex, &w, FUTEX_WAIT, 0, &(struct timespec){5, 0}); }
static long f_poll(void) { return poll(0, 0, 5000); }
static long f_ppoll(void) { return ppoll(0, 0, 0, 0); }
static long f_select(void) { return select(0, 0, 0, 0, &(struct timeval){5, 0}); }
static long f_pselect(void) { return pselect(0, 0, 0, 0, 0, 0); }
static long f_epoll(void) { struct epoll_event e; return epoll_wait(epoll_create1(0), &e, 1, 5000); }
static long f_nanosleep(void) { struct timespec t = {5, 0}, r = {9, 9}; long x = nanosleep(&t, &r); int e = errno; if (r.tv_sec > 5) P("remaining %ld", (long)r.tv_sec); errno = e; return x; }
static long f_clock(void) { struct timespec t = {5, 0}; long x = clock_nanosleep(CLOCK_MONOTONIC, 0, &t, 0); errno = x; return x ? -1 : 0; }
static long f_clockabs(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); t.tv_sec += 5; long x = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, 0); errno = x; return x ? -1 : 0; }
static long f_pause(void) { return pause(); }
static long f_sigwait(void) { sigset_t s = set(SIGUSR2, 0); return sigwaitinfo(&s, 0); }
static long f_sigtimed(void) { sigset_t s = set(SIGUSR2, 0); return sigtimedwait(&s, 0, &(struct timespec){5, 0}); }
static long f_suspend(void) { sigset_t s = set(0, 0); return sigsuspend(&s); }
static long f_sigfd(void) { sigset_t s = set(SIGUSR2, 0); struct signalfd_siginfo i; return read(signalfd(-1, &s, 0), &i, sizeof i); }
static long f_msgrcv(void) { char b[16]; return msgrcv(msgget(IPC_PRIVATE, 0600), b, 1, 0, 0); }
static long f_semop(void) { struct sembuf b = {0, -1, 0}; return semop(semget(IPC_PRIVATE, 1, 0600), &b, 1); }
static long f_fifo(void) { mkfifo("ff", 0600); return open("ff", O_RDONLY); }
static long f_lockw(void) { struct flock l = {.l_type = F_WRLCK}; return fcntl(open("lock", O_RDWR), F_SETLKW, &l); }
static long f_eventfd(void) { uint64_t v; return read(SC(eventfd2, 0, 0), &v, 8); }
static long f_splice(void) { int q[2]; pipe(q); return splice(fd[0], 0, q[1], 0, 1, 0); }
static long f_connect(void) {
	struct sockaddr_un a = {AF_UNIX, "sock"};
	for (int i = 0; i < 10; i++) {
		int s = socket(AF_UNIX, SOCK_STREAM, 0);
		if (connect(s, (void *)&a, sizeof a))
			return -1;
	}
	return 0;
}

static const char *ticked;
static int restarts_;
static void third(int s) {
	if (++restarts_ == 3)
		P("%s: restarted", ticked), fflush(stdout), _exit(0);
}
// ticker calls what blocks while a timer sends signals: EINTR ends it at the first, the handler at the third.
static void ticker(int flags, long (*fn)(void), const char *name) {
	struct sigaction a = {.sa_handler = third, .sa_flags = flags};
	struct itimerval t = {{0, 20000}, {0, 20000}}, off = {};
	char label[64];
	sprintf(label, "%s%s", name, flags ? " SA_RESTART" : ""), ticked = label, restarts_ = 0, sigaction(SIGALRM, &a, 0);
	pid_t p = CHILD(setitimer(ITIMER_REAL, &t, 0); long r = E(fn()); setitimer(ITIMER_REAL, &off, 0); P("%s: %s", label, r < 0 ? conf_errno(-r) : "went on"));
	wait_for(p);
}

static void restarts(void) {
	pipe(fd), socketpair(AF_UNIX, SOCK_STREAM, 0, sv), sock = socket(AF_UNIX, SOCK_STREAM, 0);
	struct sockaddr_un a = {AF_UNIX, "sock"};
	bind(sock, (void *)&a, sizeof a), listen(sock, 1);
	int l = open("lock", O_CREAT | O_RDWR, 0600);
	flock(l, LOCK_EX);
	pid_t holder = CHILD(struct flock k = {.l_type = F_WRLCK}; fcntl(open("lock", O_RDWR), F_SETLK, &k); sleep(60));
	sleep_ms(50);
#define T(f) ticker(0, f, #f), ticker(SA_RESTART, f, #f)
	T(f_read), T(f_write), pipe(fd), T(f_recv), T(f_recvt), T(f_flock), T(f_futex), T(f_futext), T(f_poll), T(f_ppoll), T(f_select), T(f_pselect), T(f_epoll), T(f_nanosleep), T(f_clock), T(f_clockabs), T(f_pause), T(f_sigwait), T(f_sigtimed), T(f_suspend), T(f_sigfd), T(f_msgrcv), T(f_semop), T(f_fifo), T(f_lockw), T(f_eventfd), T(f_splice), T(f_connect);
	sock = socket(AF_UNIX, SOCK_STREAM, 0), strcpy(a.sun_path, "sock2"), bind(sock, (void *)&a, sizeof a), listen(sock, 1), T(f_accept);
	kill(holder, SIGKILL);
}
static volatile int step;
static void *block(void *x) { sigset_t s = set(SIGUSR1, SIGUSR2), p; pthread_sigmask(SIG_BLOCK, &s, 0); step = 1; while (step == 1) sleep_ms(1); if (step == 3) sleep_ms(100); sigpending(&p); return (void *)(*(long *)&p & 0xa00); }
static void threads(void) {
	pthread_t t;
	catch(SIGUSR1, 0), catch(SIGUSR2, 0), pthread_create(&t, 0, block, 0);
	while (!step)
		sleep_ms(1);
	pthread_kill(t, SIGUSR1), kill(getpid(), SIGUSR2), step = 2;
	void *r;
	pthread_join(t, &r), P("thread's pending %lx, process' delivered %d", (long)r, conf_got);
	pid_t p = CHILD(step = 2; pthread_create(&t, 0, block, 0); sleep_ms(50); step = 3; SC(exit, 7)); // the leader only
	P("leader exits first: %s", wait_for(p));
}

int main(void) { sub(calls), sub(queues), sub(defaults), sub(handlers), sub(threads); restarts(); }
