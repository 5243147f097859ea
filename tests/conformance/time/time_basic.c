// Clocks, sleeps, interval timers, POSIX timers, timerfd. Nothing comes too early; how late, a loaded machine decides, and is no check.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/timex.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define V(x)                                                                                                           \
	do {                                                                                                               \
		errno = 0;                                                                                                     \
		long r_ = (long)(x);                                                                                           \
		if (r_ == -1)                                                                                                  \
			printf("%-80s %s\n", #x, strerrorname_np(errno));                                                          \
		else                                                                                                           \
			printf("%-80s %ld\n", #x, r_);                                                                             \
	} while (0)
#define BAD ((void *)8)
#define S(...) syscall(__VA_ARGS__)

static long ms(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}
static int after(long d, long want) { return d >= want - 1; }
// QUICK does x until that took less than n milliseconds.
#define QUICK(n, x)                                                                                                    \
	for (long m_ = ms() - n, i_ = 0; i_ < 1000 && ms() - m_ >= n; i_++)                                                \
	m_ = ms(), x
// UNTIL waits for a minute at most.
#define UNTIL(x)                                                                                                       \
	for (long m_ = ms(); !(x) && ms() - m_ < 60000; usleep(1000))

static void spin(int n) {
	struct timespec s, t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &s);
	do
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	while ((t.tv_nsec - s.tv_nsec) / 1000000 + (t.tv_sec - s.tv_sec) * 1000 < n);
}

static volatile int got, sum;
static siginfo_t last;
static void handler(int s, siginfo_t *i, void *u) { got++; sum += 1 + i->si_overrun; last = *i; }
static void catch(int sig, int flags) {
	struct sigaction a = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};
	sigaction(sig, &a, 0);
}

static void clocks(void) {
	struct timespec t, u;
	struct timeval tv;
	struct timex x = {0};
	for (int i = -2; i < 14; i++) {
		errno = 0;
		long r = S(SYS_clock_gettime, i, &t);
		printf("clock %d: %ld %s ", i, r, errno ? strerrorname_np(errno) : "");
		errno = 0;
		r = S(SYS_clock_getres, i, &u);
		printf("res %ld %ld %s", r, r ? 0 : u.tv_nsec, errno ? strerrorname_np(errno) : "");
		errno = 0;
		u = (struct timespec){0, 1};
		r = i == 2 ? 0 : S(SYS_clock_nanosleep, i, 0, &u, 0); // a process that sleeps uses no CPU time
		printf(" sleep %ld %s\n", r, errno ? strerrorname_np(errno) : "");
	}
	V(S(SYS_clock_gettime, 0, BAD));
	V(S(SYS_clock_getres, 0, BAD));
	V(S(SYS_clock_getres, 0, 0));
	V(S(SYS_gettimeofday, 0, 0));
	V(S(SYS_gettimeofday, BAD, 0));
	V(S(SYS_gettimeofday, 0, BAD));
	V(S(SYS_time, BAD));
	V(S(SYS_time, 0) == time(0));
	V(S(SYS_clock_settime, 1, &t));
	V(S(SYS_clock_settime, 99, &t));
	V(S(SYS_clock_settime, 0, BAD));
	V(S(SYS_adjtimex, BAD));
	V(S(SYS_adjtimex, &x) >= 0);
	clockid_t c;
	V(clock_getcpuclockid(getpid(), &c));
	V(S(SYS_clock_gettime, c, &t));
	V(S(SYS_clock_gettime, (~0x3fffff << 3) | 2, &t));
	V(S(SYS_clock_gettime, (~getpid() << 3) | 6, &t));
	V(S(SYS_clock_nanosleep, (~getpid() << 3) | 6, 0, &t, 0));
	V(S(SYS_clock_gettime, 3, &t)); // Agree with each other.
	clock_gettime(CLOCK_REALTIME, &t);
	gettimeofday(&tv, 0);
	clock_gettime(CLOCK_REALTIME, &u);
	V((tv.tv_sec - t.tv_sec) * 1000000 + tv.tv_usec - t.tv_nsec / 1000 >= 0);
	V((u.tv_sec - tv.tv_sec) * 1000000 + u.tv_nsec / 1000 - tv.tv_usec >= 0);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	spin(50);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &u);
	V((u.tv_sec - t.tv_sec) * 1000 + (u.tv_nsec - t.tv_nsec) / 1000000 >= 40);
}

static void *killer(void *v) {
	usleep(50000);
	pthread_kill((pthread_t)v, SIGUSR1);
	return 0;
}

static void after50(void) {
	pthread_t t;
	pthread_create(&t, 0, killer, (void *)pthread_self());
	pthread_detach(t);
}

static void sleeps(void) {
	struct timespec t = {0, 30000000}, r = {7, 7}, bad = {0, 1000000000}, neg = {-1, 0};
	long m = ms();
	V(S(SYS_nanosleep, &t, &r));
	V(after(ms() - m, 30));
	V(r.tv_sec);
	V(S(SYS_nanosleep, &bad, &r));
	V(S(SYS_nanosleep, &neg, &r));
	V(S(SYS_nanosleep, BAD, &r));
	V(S(SYS_nanosleep, 0, &r));
	V(S(SYS_clock_nanosleep, 0, 0, &bad, &r));
	V(S(SYS_clock_nanosleep, 1, TIMER_ABSTIME, &t, &r));
	catch(SIGUSR1, 0);
	t = (struct timespec){60, 0};
	m = ms();
	after50();
	V(S(SYS_nanosleep, &t, &r));
	V(r.tv_sec * 1000 + r.tv_nsec / 1000000 >= 60000 - (ms() - m) - 1);
	V(r.tv_sec < 60);
	after50();
	V(S(SYS_nanosleep, &t, BAD));
	usleep(1000);
	r = (struct timespec){7, 7};
	clock_gettime(1, &t);
	t.tv_sec += 60;
	after50();
	V(S(SYS_clock_nanosleep, 1, TIMER_ABSTIME, &t, &r));
	V(r.tv_sec);
	catch(SIGUSR1, SA_RESTART);
	t = (struct timespec){60, 0};
	after50();
	V(S(SYS_nanosleep, &t, &r));
	m = ms();
	clock_gettime(0, &t);
	t.tv_nsec += 40000000;
	if (t.tv_nsec >= 1000000000)
		t.tv_sec++, t.tv_nsec -= 1000000000;
	V(S(SYS_clock_nanosleep, 0, TIMER_ABSTIME, &t, &r));
	V(after(ms() - m, 40));
	// A stop restarts it.
	pid_t p = fork();
	if (!p) {
		t = (struct timespec){0, 200000000};
		m = ms();
		long x = S(SYS_nanosleep, &t, &r);
		_exit(x ? 99 : after(ms() - m, 200));
	}
	usleep(30000);
	kill(p, SIGSTOP);
	usleep(30000);
	kill(p, SIGCONT);
	int s;
	wait(&s);
	printf("stopped sleep %x\n", s);
}

static void itimers(void) {
	struct itimerval v = {{0, 20000}, {0, 50000}}, o, z = {0};
	catch(SIGALRM, 0);
	catch(SIGVTALRM, 0);
	catch(SIGPROF, 0);
	V(setitimer(3, &v, 0));
	V(getitimer(3, &v));
	V(S(SYS_getitimer, 0, BAD));
	V(S(SYS_setitimer, 0, BAD, 0));
	V(S(SYS_setitimer, 0, &z, BAD));
	struct itimerval b = {{0, 1000000}, {0, 1}};
	V(setitimer(0, &b, 0));
	b = (struct itimerval){{-1, 0}, {0, 1}};
	V(setitimer(0, &b, 0));
	got = 0;
	long m = ms();
	V(setitimer(0, &v, 0));
	V(getitimer(0, &o));
	V(o.it_value.tv_usec <= 50000);
	V(o.it_interval.tv_usec);
	UNTIL(got >= 3);
	V(after(ms() - m, 90));
	V(last.si_code);
	V(setitimer(0, &z, &o));
	V(o.it_interval.tv_usec);
	V(S(SYS_setitimer, 0, 0, &o)); // NULL is zero
	got = 0;
	usleep(50000);
	V(got);
	v = (struct itimerval){{0, 0}, {5, 0}};
	V(setitimer(ITIMER_VIRTUAL, &v, 0));
	V(setitimer(ITIMER_PROF, &v, 0));
	got = 0;
	usleep(60000);
	V(got);
	getitimer(ITIMER_VIRTUAL, &o);
	V(o.it_value.tv_sec == 4 || o.it_value.tv_sec == 5); // it goes by the CPU's time, not the clock's
	v = (struct itimerval){{0, 0}, {0, 20000}};
	V(setitimer(ITIMER_VIRTUAL, &v, 0));
	V(setitimer(ITIMER_PROF, &v, 0));
	m = ms();
	while (got < 2 && ms() < m + 60000)
		;
	V(got);
	V(alarm(10));
	V(alarm(0));
	int left;
	QUICK(800, (alarm(1), usleep(600000), left = alarm(0)));
	V(left);
	v.it_value.tv_usec = 100000;
	QUICK(90, (setitimer(0, &v, 0), left = alarm(0)));
	V(left);
	v.it_value = (struct timeval){1, 400000};
	QUICK(300, (setitimer(0, &v, 0), left = alarm(0)));
	V(left);
	v.it_value.tv_usec = 900000;
	QUICK(300, (setitimer(0, &v, 0), left = alarm(0)));
	V(left);
	// Not inherited by fork, kept by exec.
	alarm(1000);
	if (!fork())
		_exit(alarm(0));
	int s;
	wait(&s);
	V(s);
	V(alarm(0) > 500);
}

static void posix(void) {
	timer_t id, x;
	struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
	struct itimerspec v = {{0, 10000000}, {0, 20000000}}, o, z = {0};
	int kid = -1, k2;
	catch(SIGUSR1, 0);
	e.sigev_value.sival_int = 77;
	V(S(SYS_timer_create, 99, &e, &kid));
	V(S(SYS_timer_create, CLOCK_REALTIME_COARSE, &e, &kid));
	V(S(SYS_timer_create, CLOCK_MONOTONIC_RAW, &e, &kid));
	V(S(SYS_timer_create, 0, BAD, &kid));
	V(S(SYS_timer_create, 0, &e, BAD));
	e.sigev_signo = 65;
	V(S(SYS_timer_create, 0, &e, &kid));
	e.sigev_signo = 0;
	V(S(SYS_timer_create, 0, &e, &kid));
	e.sigev_signo = SIGUSR1;
	e.sigev_notify = 7;
	V(S(SYS_timer_create, 0, &e, &kid));
	e.sigev_notify = SIGEV_THREAD_ID;
	e._sigev_un._tid = getppid();
	V(S(SYS_timer_create, 0, &e, &kid));
	e._sigev_un._tid = S(SYS_gettid);
	V(S(SYS_timer_create, 0, &e, &k2));
	V(S(SYS_timer_delete, k2));
	e.sigev_notify = SIGEV_SIGNAL;
	V(S(SYS_timer_create, 1, &e, &kid));
	V(S(SYS_timer_settime, kid + 50, 0, &v, 0));
	V(S(SYS_timer_settime, kid, 0, 0, 0));
	V(S(SYS_timer_settime, kid, 0, BAD, 0));
	V(S(SYS_timer_gettime, kid, BAD));
	V(S(SYS_timer_gettime, kid, &o));
	V(o.it_value.tv_nsec);
	v.it_value.tv_nsec = 1000000000;
	V(S(SYS_timer_settime, kid, 0, &v, 0));
	v.it_value.tv_nsec = 20000000;
	got = sum = 0;
	V(S(SYS_timer_settime, kid, 0, &v, &o));
	QUICK(9, (S(SYS_timer_settime, kid, 0, &v, &o), S(SYS_timer_gettime, kid, &o)));
	V(o.it_interval.tv_nsec);
	V(o.it_value.tv_nsec > 10000000);
	UNTIL(got >= 2);
	V(last.si_code);
	V(last.si_value.sival_int);
	V(last.si_timerid == kid);
	// Overruns while blocked.
	sigset_t s, old;
	sigemptyset(&s);
	sigaddset(&s, SIGUSR1);
	long long all = ms();
	sigprocmask(SIG_BLOCK, &s, &old);
	usleep(100000);
	got = sum = 0;
	sigprocmask(SIG_SETMASK, &old, 0);
	UNTIL(sum >= 8);
	all = ms() - all; // in which there were so many expirations at most
	V(sum >= 8 && sum <= all / 10 + 2);
	UNTIL(S(SYS_timer_getoverrun, kid) == last.si_overrun); // no other came between
	V(S(SYS_timer_getoverrun, kid) == last.si_overrun);
	V(S(SYS_timer_settime, kid, 0, &z, &o));
	V(o.it_interval.tv_nsec);
	got = 0;
	usleep(30000);
	V(got);
	V(S(SYS_timer_gettime, kid, &o));
	V(o.it_value.tv_nsec + o.it_interval.tv_nsec);
	// Absolute, in the past.
	z.it_value.tv_nsec = 1;
	V(S(SYS_timer_settime, kid, TIMER_ABSTIME, &z, 0));
	UNTIL(got);
	V(got);
	// A deleted timer's pending signal goes.
	sigprocmask(SIG_BLOCK, &s, &old);
	V(S(SYS_timer_settime, kid, 0, &z, 0));
	sigset_t pend;
	UNTIL((sigpending(&pend), sigismember(&pend, SIGUSR1)));
	V(sigismember(&pend, SIGUSR1));
	V(S(SYS_timer_delete, kid));
	got = 0;
	sigprocmask(SIG_SETMASK, &old, 0);
	V(got);
	V(S(SYS_timer_delete, kid));
	V(S(SYS_timer_getoverrun, kid));
	// A huge rate does not hang the process.
	V(S(SYS_timer_create, 1, &e, &kid));
	struct itimerspec fast = {{0, 1}, {0, 1}};
	sigprocmask(SIG_BLOCK, &s, &old);
	V(S(SYS_timer_settime, kid, 0, &fast, 0));
	usleep(30000);
	got = sum = 0;
	struct timespec minute = {60, 0};
	siginfo_t si;
	V(sigtimedwait(&s, &si, &minute));
	V(si.si_overrun > 1000000);
	V(S(SYS_timer_delete, kid));
	sigprocmask(SIG_SETMASK, &old, 0);
	// Default signal and value.
	catch(SIGALRM, 0);
	V(S(SYS_timer_create, CLOCK_BOOTTIME, 0, &kid));
	z.it_value.tv_nsec = 1000000;
	got = 0;
	V(S(SYS_timer_settime, kid, 0, &z, 0));
	UNTIL(got);
	V(last.si_signo);
	V(last.si_value.sival_int == kid);
	// None; a thread; CPU clocks.
	e.sigev_notify = SIGEV_NONE;
	V(S(SYS_timer_create, 1, &e, &k2));
	z.it_value.tv_nsec = 20000000;
	QUICK(18, (S(SYS_timer_settime, k2, 0, &z, 0), S(SYS_timer_gettime, k2, &o)));
	V(o.it_value.tv_nsec > 1000000);
	usleep(30000);
	V(S(SYS_timer_gettime, k2, &o));
	V(o.it_value.tv_nsec);
	e.sigev_notify = SIGEV_SIGNAL;
	V(S(SYS_timer_create, CLOCK_PROCESS_CPUTIME_ID, &e, &k2));
	z.it_value.tv_sec = 5;
	V(S(SYS_timer_settime, k2, 0, &z, 0));
	got = 0;
	usleep(40000);
	V(got);
	z.it_value.tv_sec = 0;
	V(S(SYS_timer_settime, k2, 0, &z, 0));
	long m = ms();
	while (!got && ms() < m + 60000)
		;
	V(got);
	V(S(SYS_timer_create, CLOCK_THREAD_CPUTIME_ID, &e, &k2));
	V(S(SYS_timer_settime, k2, 0, &z, 0));
	m = ms();
	while (got < 2 && ms() < m + 60000)
		;
	V(got);
	// Gone in the child.
	if (!fork()) {
		_exit(S(SYS_timer_delete, kid) ? errno : 0);
	}
	int st;
	wait(&st);
	V(WEXITSTATUS(st));
}

static void timerfds(void) {
	uint64_t n;
	struct itimerspec v = {{0, 10000000}, {0, 20000000}}, o, z = {0};
	struct epoll_event ev = {EPOLLIN | EPOLLET}, out;
	V(timerfd_create(CLOCK_PROCESS_CPUTIME_ID, 0));
	V(timerfd_create(1, 4));
	int f = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	V(fcntl(f, F_GETFD));
	V(read(f, &n, 8));
	V(read(f, &n, 4));
	V(write(f, &n, 8));
	V(timerfd_settime(f, 8, &v, 0));
	V(timerfd_settime(f, 0, BAD, 0));
	V(timerfd_settime(0, 0, &v, 0));
	V(timerfd_settime(77, 0, &v, 0));
	V(timerfd_gettime(f, BAD));
	int ep = epoll_create1(0);
	epoll_ctl(ep, EPOLL_CTL_ADD, f, &ev);
	long m = ms();
	V(timerfd_settime(f, 0, &v, &o));
	V(o.it_interval.tv_nsec);
	V(epoll_wait(ep, &out, 1, 60000));
	V(epoll_wait(ep, &out, 1, 50)); // not read: no further edge
	V(read(f, &n, 8));
	V(n >= 5 && n <= (ms() - m) / 10);
	V(epoll_wait(ep, &out, 1, 60000));
	V(timerfd_settime(f, 0, &z, &o));
	V(o.it_interval.tv_nsec);
	V(o.it_value.tv_nsec > 0);
	V(read(f, &n, 8));
	z.it_value.tv_nsec = 1;
	V(timerfd_settime(f, TFD_TIMER_ABSTIME, &z, 0));
	V(poll(&(struct pollfd){f, POLLIN}, 1, 60000));
	V(read(f, &n, 8));
	V(timerfd_gettime(f, &o));
	V(o.it_value.tv_nsec + o.it_interval.tv_nsec);
	int g = timerfd_create(CLOCK_REALTIME, 0);
	z.it_value.tv_nsec = 30000000;
	m = ms();
	V(timerfd_settime(g, 0, &z, 0));
	V(read(g, &n, 8));
	V(after(ms() - m, 30));
	V(n);
	clock_gettime(CLOCK_REALTIME, &z.it_value);
	z.it_value.tv_sec += 1000;
	V(timerfd_settime(g, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &z, 0));
	V(timerfd_gettime(g, &o));
	V(o.it_value.tv_sec);
}

int main(void) {
	setvbuf(stdout, 0, _IONBF, 0);
	clocks();
	sleeps();
	itimers();
	posix();
	timerfds();
	return 0;
}
