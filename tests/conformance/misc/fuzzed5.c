// What differential fuzzing found, the fifth part.
#include "conf.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/uio.h>

static char buf[65536];

static void nothing(void) {
	H("nothing is sent from what nothing can be read from by splice(2)");
	int n = open("/dev/null", O_RDWR), d = open(".", O_RDONLY), p[2], s[2];
	off_t o = 100;
	pipe(p), socketpair(AF_UNIX, SOCK_STREAM, 0, s);
	V(sendfile(n, n, &o, 0)), V(sendfile(n, n, &o, 1)), V(sendfile(n, d, 0, 0)), V(sendfile(n, d, 0, 1)), V(sendfile(p[1], p[0], 0, 0)), V(sendfile(p[1], p[0], 0, 1));
	int q[2], f = open("f", O_RDWR | O_CREAT, 0644);
	V(pipe2(q, O_DIRECT)), V(write(q[1], buf, 2)), V(write(q[1], buf, 3000)), V(splice(q[0], 0, f, 0, 511, 0)), V(splice(q[0], 0, p[1], 0, 5000, 0)), V(splice(q[0], 0, f, 0, 5000, SPLICE_F_NONBLOCK));
	o = LONG_MAX, V(sendfile(-1, f, &o, 2)), o = LONG_MAX - 2, V(sendfile(-1, f, &o, 2));
	V(sendfile(n, p[0], 0, 0)), V(sendfile(n, s[0], 0, 0)), V(sendfile(s[0], n, 0, 0)), V(sendfile(s[0], n, 0, 1));
}

static void files(void) {
	H("copy_file_range between file systems, F_SEAL_GROW, RWF_NOAPPEND, sync_file_range");
	int m = memfd_create("m", MFD_ALLOW_SEALING), k = memfd_create("k", 0), f = open("f", O_RDWR | O_CREAT | O_APPEND, 0644), g = open("g", O_RDWR | O_CREAT, 0644);
	V(copy_file_range(m, 0, g, 0, 8, 0)), V(copy_file_range(m, 0, g, 0, 0, 0)), V(copy_file_range(m, 0, k, 0, 8, 0)), V(copy_file_range(m, 0, f, 0, 8, 0)), V(copy_file_range(g, 0, m, 0, 8, 1));
	ftruncate(m, 5000), V(fcntl(m, F_ADD_SEALS, F_SEAL_GROW));
	V(pwrite(m, buf, 8192, 1)), V(pwrite(m, buf, 512, 4900)), V(pwrite(m, buf, 100, 4900)), V(pwrite(m, buf, 101, 4900)), V(pwrite(m, buf, 1, 5000)), V(pwrite(m, buf, 4096, 4000)), V(pwrite(m, buf, 65536, 0));
	struct iovec v = {"abc", 3};
	struct rlimit l = {1 << 20, 1 << 20};
	V(pwritev2(f, &v, 1, 0, 0)), V(pwritev2(f, &v, 1, 0, 32)), V(pwritev2(f, &v, 1, 1, 0)), V(pwritev2(f, &v, 1, 100, 32)), V(pwritev2(f, &v, 1, 0, 48)), V(lseek(f, 0, SEEK_END));
	memset(buf, 0, 8), V(pread(f, buf, 8, 0)), P("%s", buf);
	signal(SIGXFSZ, SIG_IGN), V(setrlimit(RLIMIT_FSIZE, &l)), V(pwritev2(f, &v, 1, 1 << 20, 32)), V(pwritev2(f, &v, 1, 1 << 20, 0));
	int d = open("/proc/self", O_RDONLY), o = open("g", 3);
	V(flock(o, LOCK_SH)), V(flock(o, LOCK_UN)), V(flock(o, 0));
	V(sync_file_range(d, 0, 10, 7)), V(sync_file_range(d, 0, 10, 8));
}

static void memory(void) {
	H("a mapping is sealed before a hole behind it is found");
	char *p = mmap(0, 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	munmap(p + 4096, 4096), V(mprotect(p, 8192, PROT_NONE)), V(SC(mseal, p, 4096L, 0L)), V(mprotect(p, 8192, PROT_NONE)), V(mprotect(p, 4096, PROT_NONE)), V(mprotect(p, 8192, PROT_READ));
}

static void sockets(void) {
	H("packets come behind an error, a piece of a stream comes whole or not at all, a port comes first");
	for (int type = SOCK_STREAM; type <= SOCK_SEQPACKET; type++) {
		int s[2];
		if (socketpair(AF_UNIX, type | SOCK_NONBLOCK, 0, s))
			continue;
		P("type %d", type), V(send(s[0], "unread", 6, 0)), V(send(s[1], "abc", 3, 0)), close(s[1]);
		V(recv(s[0], buf, 8, 0)), V(recv(s[0], buf, 8, 0)), V(recv(s[0], buf, 8, 0)), close(s[0]);
		socketpair(AF_UNIX, type | SOCK_NONBLOCK, 0, s);
		struct iovec v[2] = {{buf, 64}, {BAD, 100}};
		struct msghdr m = {.msg_iov = v, .msg_iovlen = 2};
		V(send(s[1], buf, 100, 0)), V(recvmsg(s[0], &m, 0)), V(recv(s[0], buf, 200, 0));
	}
	int d[2];
	struct sockaddr_un name = {AF_UNIX, "me"};
	socketpair(AF_UNIX, SOCK_DGRAM, 0, d), V(bind(d[0], (void *)&name, 5)), V(sendto(d[0], "a", 1, 0, (void *)&name, 5)), V(sendto(d[1], "a", 1, 0, (void *)&name, 5)), close(d[0]);
	unlink("me"), d[0] = socket(AF_UNIX, SOCK_DGRAM, 0), V(bind(d[0], (void *)&name, 5)), V(sendto(d[0], "a", 1, 0, (void *)&name, 5)), V(connect(d[0], (void *)&name, 5)), V(send(d[0], "a", 1, 0));
	struct sockaddr_in a = {AF_INET, 0, {htonl(INADDR_LOOPBACK)}};
	int u = socket(AF_INET, SOCK_DGRAM, 0);
	socklen_t n = sizeof a;
	V(sendto(u, buf, 1 << 20, 0, (void *)&a, n)), getsockname(u, (void *)&a, &n), P("%d", a.sin_port != 0), V(bind(u, (void *)&a, n));
}

static volatile int taken, me, other;
static void on(int s) { taken = gettid() == me ? 1 : 2; }
static int go[2];
static void *second(void *p) {
	other = gettid(), write(go[1], "r", 1);
	while (!taken)
		sleep_ms(1);
	return p;
}

static void signals(void) {
	H("who takes a signal first, and when");
	pthread_t t;
	pipe(go), me = gettid(), signal(SIGUSR1, on), pthread_create(&t, 0, second, 0), read(go[0], buf, 1);
	int f = SC(pidfd_open, other, O_EXCL);
	V(SC(pidfd_send_signal, f, SIGUSR1, 0L, 2L)), pthread_join(t, 0), P("%d", taken), close(f);
	signal(SIGALRM, on);
	for (int i = 0; i < 50; i++) {
		timer_t id;
		struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
		struct itimerspec s = {.it_value = {1000}};
		taken = 0, timer_create(CLOCK_REALTIME, &e, &id), timer_settime(id, TIMER_ABSTIME, &s, 0);
		if (taken != 1)
			P("late");
		timer_delete(id);
	}
	V(SC(sched_setscheduler, 0, SCHED_OTHER, BAD));
	V(kill(0, 65)), V(kill(-99999, 65)), V(kill(99999, 65)), V(kill(getpid(), -1)), V(kill(INT_MIN, 65));
	if (!getuid() && !unshare(CLONE_NEWPID)) {
		if (!fork())
			V(kill(-1, 65)), V(kill(-1, 0)), fflush(stdout), _exit(0);
		wait(0);
	}
	V(SC(clock_nanosleep, -2, 0L, BAD, 0L)), V(SC(clock_nanosleep, -2, 0L, &(struct timespec){-1}, 0L)), V(SC(clock_nanosleep, -2, 0L, &(struct timespec){1}, 0L)), V(SC(clock_nanosleep, CLOCK_THREAD_CPUTIME_ID, 0L, BAD, 0L));
}

static void told(void) {
	H("what signalfd(2) tells, and poll(2) before an interruption");
	int f;
	sigset_t all;
	struct signalfd_siginfo in;
	siginfo_t info = {.si_code = SI_USER};
	info.si_pid = 7, info.si_uid = 8, info.si_int = 9;
	sigfillset(&all), sigprocmask(SIG_SETMASK, &all, 0), f = signalfd(-1, &all, SFD_NONBLOCK);
	V(SC(rt_sigqueueinfo, getpid(), SIGUSR2, &info)), read(f, &in, sizeof in), P("%d %d %d %d %lu", in.ssi_code, in.ssi_pid, in.ssi_uid, in.ssi_int, in.ssi_ptr);
	info.si_code = SI_QUEUE, V(SC(rt_sigqueueinfo, getpid(), SIGUSR2, &info)), read(f, &in, sizeof in), P("%d %d %d %d %lu", in.ssi_code, in.ssi_pid, in.ssi_uid, in.ssi_int, in.ssi_ptr);
	sigemptyset(&all), sigaddset(&all, SIGUSR1), f = signalfd(-1, &all, SFD_NONBLOCK), signal(SIGUSR1, on), sigprocmask(SIG_UNBLOCK, &all, 0);
	struct pollfd pf = {f, POLLIN};
	if (!fork())
		sleep_ms(20), kill(getppid(), SIGUSR1), _exit(0);
	V(poll(&pf, 1, -1)), P("%d", pf.revents), wait(0);
}

static void alarms(void) {
	H("clocks that wake the machine are not for a user namespace");
	if (getuid())
		return;
	V(timerfd_create(CLOCK_REALTIME_ALARM, 0)), V(unshare(CLONE_NEWUSER)), V(timerfd_create(CLOCK_REALTIME_ALARM, 0)), V(timerfd_create(CLOCK_BOOTTIME_ALARM, 0)), V(timerfd_create(CLOCK_BOOTTIME, 0));
}

// pass sends the descriptor d, and e if it is not -1, over s.
static long pass(int s, int d, int e) {
	struct {
		struct cmsghdr h;
		int fd[2];
	} c = {{e < 0 ? 20 : 24, SOL_SOCKET, SCM_RIGHTS}, {d, e}};
	struct iovec v = {"x", 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof c};
	return sendmsg(s, &m, 0);
}

static int got(int s) {
	struct {
		struct cmsghdr h;
		int fd[2];
	} c;
	struct iovec v = {buf, 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof c};
	return recvmsg(s, &m, 0) == 1 ? c.fd[0] : -1;
}

// freed waits until nobody has the other end of pipe p any more. What frees cycles begins when a socket is closed, and takes its time.
static const char *freed(int p) {
	struct pollfd f = {p, POLLIN};
	for (int i = 0; i < 500; i++) {
		close(socket(AF_UNIX, SOCK_STREAM, 0));
		if (poll(&f, 1, 10) > 0)
			return read(p, buf, 1) == 0 ? "freed" : "written to";
	}
	return "kept";
}

static void cycles(void) {
	H("sockets that only messages in one another's queues refer to");
	int p[2], s[2], x[2], y[2];
	pipe(p), socketpair(AF_UNIX, SOCK_STREAM, 0, s), V(pass(s[0], s[0], p[1])), V(pass(s[1], s[1], p[1])), close(p[1]), close(s[0]), close(s[1]), P("a pair: %s", freed(p[0]));
	struct sockaddr_un a = {AF_UNIX};
	socklen_t n = sizeof a;
	int d = socket(AF_UNIX, SOCK_DGRAM, 0), l = socket(AF_UNIX, SOCK_STREAM, 0), c = socket(AF_UNIX, SOCK_STREAM, 0);
	pipe(p), V(bind(d, (void *)&a, 2)), getsockname(d, (void *)&a, &n), V(connect(d, (void *)&a, n)), V(pass(d, d, p[1])), close(p[1]), close(d), P("one that has itself: %s", freed(p[0])), d = socket(AF_UNIX, SOCK_DGRAM, 0);
	int r = -1;
	for (int i = 0; r && i < 5000; i++)
		r = bind(d, (void *)&a, n), sleep_ms(1);
	P("its name: %d", r);
	n = sizeof a, pipe(p), V(bind(l, (void *)&a, 2)), getsockname(l, (void *)&a, &n), V(listen(l, 5)), V(connect(c, (void *)&a, n)), V(pass(c, l, p[1])), close(p[1]), close(l), close(c), P("one that is not accepted: %s", freed(p[0]));
	pipe(p), socketpair(AF_UNIX, SOCK_STREAM, 0, s), socketpair(AF_UNIX, SOCK_STREAM, 0, x), socketpair(AF_UNIX, SOCK_STREAM, 0, y);
	V(pass(x[0], p[1], -1)), V(pass(y[0], x[1], -1)), V(pass(s[0], y[1], -1)), V(pass(y[0], y[1], -1)), close(p[1]), close(x[1]), close(y[1]);
	for (int i = 0; i < 20; i++)
		close(socket(AF_UNIX, SOCK_STREAM, 0)), sleep_ms(1);
	y[1] = got(s[1]), x[1] = got(y[1]), p[1] = got(x[1]), V(write(p[1], "y", 1)), P("a chain: %s", freed(p[0]));
	int z = got(y[1]);
	V(send(z, "z", 1, 0)), V(recv(y[0], buf, 1, 0)), close(z), close(p[1]), P("%s", freed(p[0]));
}

int main(void) {
	sub(nothing), sub(files), sub(memory), sub(sockets), sub(signals), sub(told), sub(alarms), sub(cycles);
	return 0;
}
