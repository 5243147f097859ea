// O_ASYNC, F_SETSIG and F_SETOWN: which events of pipes, sockets, terminals and other files are told by signals, and how
#include <conf.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pty.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <termios.h>

// users: root ordinary

#define RT (SIGRTMIN + 1)
static sigset_t set;

// arm has fd tell of its events by a signal that is queued.
static int arm(int fd) {
	if (fcntl(fd, F_SETOWN, getpid()) || fcntl(fd, F_SETSIG, RT) || fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_ASYNC | O_NONBLOCK))
		P("arm: %s", conf_errno(errno));
	return fd;
}

// Q does something and prints the signals that came of it. Those that need not come at once are waited for, if want says how many there are; -1 is one,
// after which more may come.
static void drain(const char *what, int fd, int fd2, int want) {
	char b[512];
	int n = snprintf(b, sizeof b, "%s:", what);
	siginfo_t i;
	for (int k = 0; k < 8; k++) {
		struct timespec t = {k < abs(want) ? 10 : 0, 0};
		if (sigtimedwait(&set, &i, &t) < 0)
			break;
		if (want < 0 && k)
			continue;
		n += snprintf(b + n, sizeof b - n, " %s %d band %lx of %s", i.si_signo == SIGIO ? "SIGIO" : i.si_signo == SIGURG ? "SIGURG" : "RT", i.si_code, i.si_signo == RT ? i.si_band : 0,
					  i.si_signo != RT ? "?" : i.si_fd == fd ? "1" : i.si_fd == fd2 ? "2" : "another");
	}
	P("%s", b);
}
#define Q(x) (x, drain(#x, one, two, 0))
#define QW(n, x) (x, drain(#x, one, two, n))
static int one, two;

static void start(void) {
	sigemptyset(&set), sigaddset(&set, RT), sigaddset(&set, SIGIO), sigaddset(&set, SIGURG);
	sigprocmask(SIG_BLOCK, &set, 0), signal(SIGPIPE, SIG_IGN);
}

static void pipes(void) {
	int p[2];
	char b[70000] = {0};
	start(), pipe(p), one = arm(p[0]), two = arm(p[1]);
	Q(write(p[1], "a", 1)), Q(write(p[1], "b", 1)), Q(read(p[0], b, 1)), Q(read(p[0], b, 1)), Q(read(p[0], b, 1));
	Q(write(p[1], b, 70000)), Q(write(p[1], b, 1)), Q(read(p[0], b, 1)), Q(read(p[0], b, 70000));
	Q(write(p[1], "", 0)), Q(read(p[0], b, 0));
	int d = dup(p[1]);
	Q(close(d)), Q(fcntl(p[0], F_SETFL, O_NONBLOCK)), Q(write(p[1], "a", 1)), arm(p[0]), Q(write(p[1], "a", 1)), Q(close(p[1])), Q(close(p[0]));
	pipe(p), one = arm(p[0]), two = arm(p[1]), Q(close(p[0])), Q(write(p[1], "a", 1)), Q(close(p[1]));
	pipe(p), one = arm(p[0]), two = arm(p[1]), dup2(p[0], 50), close(p[0]), Q(write(p[1], "a", 1)), Q(read(50, b, 1)), close(50), close(p[1]);
	drain("closed", one, two, 0);
	// a pipe's tee, splice and vmsplice
	int q[2];
	pipe(p), pipe(q), one = arm(p[0]), two = arm(q[0]), arm(p[1]), arm(q[1]);
	Q(write(p[1], "abc", 3)), Q(tee(p[0], q[1], 3, 0)), Q(splice(p[0], 0, q[1], 0, 3, 0));
	struct iovec v = {b, 5};
	Q(vmsplice(p[1], &v, 1, 0)), Q(read(p[0], b, 9));
	close(p[0]), close(p[1]), close(q[0]), close(q[1]), drain("closed", one, two, 0);
}

static void fifos(void) {
	unlink("fifo"), mkfifo("fifo", 0600);
	start(), one = arm(open("fifo", O_RDONLY | O_NONBLOCK)), two = arm(open("fifo", O_WRONLY | O_NONBLOCK)), drain("opened", one, two, 0);
	char b[9];
	int w;
	Q(w = open("fifo", O_WRONLY | O_NONBLOCK)), Q(write(w, "x", 1)), Q(read(one, b, 9)), Q(close(w)), Q(close(two)), Q(two = open("fifo", O_WRONLY | O_NONBLOCK)), Q(close(two)), Q(close(one));
	one = arm(open("fifo", O_RDWR)), Q(write(one, "x", 1)), Q(read(one, b, 9)), Q(close(one)), unlink("fifo");
	// O_ASYNC of open(2) has no effect
	mkfifo("fifo", 0600), one = open("fifo", O_RDWR | O_ASYNC | O_NONBLOCK), P("%x", fcntl(one, F_GETFL)), fcntl(one, F_SETOWN, getpid()), fcntl(one, F_SETSIG, RT), Q(write(one, "x", 1));
	fcntl(one, F_SETFL, O_ASYNC | O_NONBLOCK), Q(write(one, "x", 1)), fcntl(one, F_SETFL, O_NONBLOCK), fcntl(one, F_SETFL, O_ASYNC | O_NONBLOCK), Q(write(one, "x", 1));
}

static void streams(void) {
	int s[2];
	char b[9];
	start(), socketpair(AF_UNIX, SOCK_STREAM, 0, s), one = arm(s[0]), two = arm(s[1]);
	Q(send(s[1], "a", 1, 0)), Q(send(s[1], "a", 1, 0)), Q(recv(s[0], b, 9, MSG_PEEK)), Q(recv(s[0], b, 9, 0)), Q(recv(s[0], b, 9, 0)), Q(write(s[0], "abc", 3)), Q(read(s[1], b, 1)), Q(read(s[1], b, 9));
	Q(shutdown(s[1], SHUT_WR)), Q(shutdown(s[1], SHUT_RD)), Q(write(s[0], "a", 1)), Q(close(s[1])), Q(close(s[0]));
	socketpair(AF_UNIX, SOCK_STREAM, 0, s), one = arm(s[0]), two = arm(s[1]), Q(send(s[1], "ab", 2, 0)), Q(close(s[0])), close(s[1]);
	int q[2];
	socketpair(AF_UNIX, SOCK_SEQPACKET, 0, q), one = arm(q[0]), two = arm(q[1]), Q(send(q[1], "ab", 2, 0)), Q(recv(q[0], b, 1, 0)), Q(shutdown(q[0], SHUT_RD)), Q(close(q[0])), close(q[1]);
	socketpair(AF_UNIX, SOCK_DGRAM, 0, q), one = arm(q[0]), two = arm(q[1]), Q(send(q[1], "ab", 2, 0)), Q(recv(q[0], b, 1, 0)), Q(shutdown(q[0], SHUT_RD)), Q(send(q[1], "ab", 2, 0)), Q(close(q[0])), close(q[1]);
}

static void full(void) {
	int s[2];
	static char b[1 << 20];
	start(), socketpair(AF_UNIX, SOCK_STREAM, 0, s), one = arm(s[0]), two = -1, fcntl(s[1], F_SETFL, O_NONBLOCK);
	while (write(s[0], b, sizeof b) > 0)
		;
	drain("filled", one, two, 0), Q(read(s[1], b, 1));
	while (read(s[1], b, sizeof b) > 0)
		;
	siginfo_t i;
	struct timespec t = {0, 0};
	int n = 0, last = 0;
	while (sigtimedwait(&set, &i, &t) > 0)
		n++, last = i.si_code;
	P("emptied: told %d, last code %d", n > 0, last);
	close(s[0]), close(s[1]);
}

static void listening(void) {
	struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "sock"};
	int l = socket(AF_UNIX, SOCK_STREAM, 0), c = socket(AF_UNIX, SOCK_STREAM, 0), n;
	start(), unlink("sock"), bind(l, (void *)&a, sizeof a), listen(l, 5), one = arm(l), two = arm(c);
	Q(connect(c, (void *)&a, sizeof a)), Q(n = accept(l, 0, 0)), P("inherits %x", fcntl(n, F_GETFL)), Q(write(n, "x", 1)), Q(close(n)), Q(close(c)), Q(close(l));
}

static int listener(struct sockaddr_in *a) {
	*a = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int l = socket(AF_INET, SOCK_STREAM, 0);
	socklen_t n = sizeof *a;
	bind(l, (void *)a, sizeof *a), listen(l, 5), getsockname(l, (void *)a, &n);
	return l;
}

static void tcp(void) {
	struct sockaddr_in a;
	int l = listener(&a), c = socket(AF_INET, SOCK_STREAM, 0), n;
	char b[9];
	start(), one = arm(l), two = -1;
	QW(1, connect(c, (void *)&a, sizeof a)), Q(n = accept(l, 0, 0)), two = arm(n), QW(1, send(c, "a", 1, 0)), Q(recv(n, b, 9, 0)), QW(-1, shutdown(c, SHUT_WR)), Q(close(n)), Q(close(c)), Q(close(l));
	// who connects, and does not block
	l = listener(&a), c = socket(AF_INET, SOCK_STREAM, 0), one = arm(c), two = -1;
	QW(1, connect(c, (void *)&a, sizeof a)), n = accept(l, 0, 0), QW(1, write(n, "a", 1)), QW(-1, close(n)), close(c), close(l);
	l = listener(&a), close(l), c = socket(AF_INET, SOCK_STREAM, 0), one = arm(c), QW(1, connect(c, (void *)&a, sizeof a)), close(c);
	int u = socket(AF_INET, SOCK_DGRAM, 0), v = socket(AF_INET, SOCK_DGRAM, 0);
	socklen_t len = sizeof a;
	a.sin_port = 0, bind(u, (void *)&a, sizeof a), getsockname(u, (void *)&a, &len), one = arm(u), two = arm(v);
	QW(1, sendto(v, "x", 1, 0, (void *)&a, sizeof a)), Q(recv(u, b, 9, 0)), close(u), close(v);
}

static void ttys(void) {
	int m, s;
	char b[99];
	struct termios t;
	start();
	if (openpty(&m, &s, 0, 0, 0))
		return P("openpty: %s", conf_errno(errno)), (void)0;
	tcgetattr(s, &t), cfmakeraw(&t), tcsetattr(s, TCSANOW, &t);
	V(fcntl(s, F_GETOWN)), V(fcntl(s, F_SETFL, O_RDWR | O_ASYNC | O_NONBLOCK)), V(fcntl(s, F_GETOWN) == getpid()), V(fcntl(m, F_SETFL, O_RDWR | O_ASYNC | O_NONBLOCK)), V(fcntl(m, F_GETOWN) == getpid());
	one = s, two = m;
	struct { int type, pid; } o = {0, 0};
	V(fcntl(s, F_GETOWN_EX, &o)), P("type %d", o.type);
	fcntl(s, F_SETSIG, RT), fcntl(m, F_SETSIG, RT);
	write(m, "a", 1), drain("write(m)", one, two, 1), Q(read(s, b, 9)), write(s, "x", 1), drain("write(s)", one, two, 1), Q(read(m, b, 9));
	Q(close(s)), Q(close(m));
	openpty(&m, &s, 0, 0, 0), one = arm(s), two = arm(m), Q(close(m)), Q(close(s));
}

static void canonical(void) {
	int m, s;
	char b[99];
	struct termios t;
	start();
	if (openpty(&m, &s, 0, 0, 0))
		return;
	tcgetattr(s, &t), t.c_lflag &= ~ECHO, tcsetattr(s, TCSANOW, &t), one = arm(s), two = -1;
	Q(write(m, "ab", 2)), write(m, "c\n", 2), drain("line", one, two, 1), Q(read(s, b, 9)), close(s), close(m);
}

static void others(void) {
	start();
	char b[512];
	one = arm(eventfd(0, 0)), two = -1, Q(write(one, "\1\0\0\0\0\0\0\0", 8)), P("%x", fcntl(one, F_GETFL)), V(ioctl(one, FIOASYNC, &(int){1})), close(one);
	one = arm(timerfd_create(CLOCK_MONOTONIC, 0)), Q(timerfd_settime(one, 0, &(struct itimerspec){.it_value = {0, 1}}, 0)), V(ioctl(one, FIOASYNC, &(int){1})), close(one);
	sigset_t u;
	sigemptyset(&u), sigaddset(&u, SIGUSR1), sigprocmask(SIG_BLOCK, &u, 0);
	one = arm(signalfd(-1, &u, 0)), Q(kill(getpid(), SIGUSR1)), V(ioctl(one, FIOASYNC, &(int){1})), close(one);
	one = arm(inotify_init()), inotify_add_watch(one, ".", IN_CREATE | IN_DELETE), Q(close(file("i", 0))), Q(unlink("i")), Q(read(one, b, sizeof b)), V(ioctl(one, FIOASYNC, &(int){1})), close(one);
	one = arm(epoll_create(1)), V(ioctl(one, FIOASYNC, &(int){1})), close(one);
	one = arm(open("/dev/null", O_RDWR)), V(ioctl(one, FIOASYNC, &(int){1})), close(one);
	one = arm(file("f", "x")), Q(write(one, "x", 1)), P("%x", fcntl(one, F_GETFL)), V(ioctl(one, FIOASYNC, &(int){1})), V(ioctl(one, FIOASYNC, &(int){0})), V(ioctl(one, FIOASYNC, BAD)), close(one);
	one = arm(open(".", O_RDONLY)), V(ioctl(one, FIOASYNC, &(int){1})), close(one);
	one = arm(memfd_create("m", 0)), V(ioctl(one, FIOASYNC, &(int){1})), close(one);
	one = arm(open("/proc/self/status", O_RDONLY)), V(ioctl(one, FIOASYNC, &(int){1})), close(one);
	int p[2];
	pipe(p), V(ioctl(p[0], FIOASYNC, &(int){1})), P("%x", fcntl(p[0], F_GETFL)), V(ioctl(p[0], FIOASYNC, &(int){1})), V(ioctl(p[0], FIOASYNC, &(int){0})), P("%x", fcntl(p[0], F_GETFL)), V(ioctl(p[0], FIOASYNC, BAD));
	mqd_t q = mq_open("/sigio", O_RDWR | O_CREAT | O_NONBLOCK, 0600, 0);
	V(ioctl(q, FIOASYNC, &(int){1})), mq_close(q), mq_unlink("/sigio");
	V(ioctl(SC(pidfd_open, getpid(), 0), FIOASYNC, &(int){1}));
}

// What the ioctls of sockets set is F_SETOWN's owner.
static void owners(void) {
	start();
	int s[2], n = -5;
	socketpair(AF_UNIX, SOCK_STREAM, 0, s), one = s[0], two = s[1];
	V(ioctl(s[0], FIOGETOWN, &n)), V(n), V(ioctl(s[0], FIOSETOWN, &(int){getpid()})), V(fcntl(s[0], F_GETOWN) == getpid()), V(ioctl(s[0], SIOCGPGRP, &n)), V(n == getpid()), V(ioctl(s[0], SIOCSPGRP, &(int){-getpgrp()})), V(fcntl(s[0], F_GETOWN) == -getpgrp()), V(ioctl(s[0], FIOSETOWN, &(int){99999999})), V(ioctl(s[0], FIOSETOWN, BAD)), V(ioctl(s[0], FIOGETOWN, BAD)), V(ioctl(s[0], FIOSETOWN, &(int){INT_MIN}));
	int p[2];
	pipe(p), V(ioctl(p[0], FIOSETOWN, &n)), V(ioctl(p[0], FIOGETOWN, &n)), V(ioctl(p[0], SIOCSPGRP, &n));
	V(fcntl(s[0], F_SETOWN, getpid())), V(fcntl(s[0], F_SETFL, O_ASYNC)), Q(write(s[1], "x", 1)), V(fcntl(s[0], F_SETSIG, RT)), Q(write(s[1], "x", 1)), V(fcntl(s[0], F_SETSIG, SIGIO)), Q(write(s[1], "x", 1)), V(fcntl(s[0], F_SETSIG, 0)), V(fcntl(s[0], F_SETOWN, 0)), Q(write(s[1], "x", 1));
	// to a thread, and to one's group
	struct { int type, pid; } o = {0, SC(gettid)};
	V(fcntl(s[0], F_SETOWN_EX, &o)), fcntl(s[0], F_SETSIG, RT), Q(write(s[1], "x", 1)), setpgid(0, 0), o.type = 2, o.pid = getpid(), V(fcntl(s[0], F_SETOWN_EX, &o)), Q(write(s[1], "x", 1));
	o.type = 3, V(fcntl(s[0], F_SETOWN_EX, &o)), o.type = -1, V(fcntl(s[0], F_SETOWN_EX, &o)), o.type = 0, o.pid = 99999999, V(fcntl(s[0], F_SETOWN_EX, &o)), V(fcntl(s[0], F_SETOWN_EX, BAD)), V(fcntl(s[0], F_GETOWN_EX, BAD));
	// an owner that has ended
	pid_t c = fork();
	if (!c)
		_exit(0);
	V(fcntl(s[0], F_SETOWN, c)), waitpid(c, 0, 0), V(fcntl(s[0], F_GETOWN)), Q(write(s[1], "x", 1)), V(fcntl(s[0], F_GETOWN_EX, &o)), P("type %d pid %d", o.type, o.pid);
	// a file that is passed on tells of the descriptor it was armed as; both that were made from one are the same file
	fcntl(s[0], F_SETOWN, getpid());
	int d = dup(s[0]);
	V(fcntl(d, F_GETFL) & O_ASYNC), V(fcntl(d, F_GETSIG) == RT), Q(write(s[1], "x", 1)), V(fcntl(d, F_SETFL, 0)), Q(write(s[1], "x", 1)), V(fcntl(d, F_SETFL, O_ASYNC)), Q(write(s[1], "x", 1));
	two = d, Q(write(s[1], "x", 1)), close(s[0]), Q(write(s[1], "x", 1)), close(d), Q(write(s[1], "x", 1));
}

// Signals that the queue has no room for become SIGIO.
static void overflow(void) {
	start();
	int p[2];
	struct rlimit l = {0, 0};
	pipe(p), one = arm(p[0]), two = -1, setrlimit(RLIMIT_SIGPENDING, &l);
	Q(write(p[1], "x", 1)), Q(write(p[1], "x", 1));
}

int main(void) {
	sub(pipes), sub(fifos), sub(streams), sub(full), sub(listening), sub(tcp), sub(ttys), sub(canonical), sub(others), sub(owners), sub(overflow);
}
