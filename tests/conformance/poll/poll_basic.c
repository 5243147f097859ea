// poll, select, epoll, eventfd, timerfd, signalfd, inotify, pipes and FIFOs: results and errors. Times are only compared loosely, so the host's
// output is the expected one.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define V(x)                                                                                                           \
	do {                                                                                                               \
		errno = 0;                                                                                                     \
		long r_ = (long)(x);                                                                                           \
		if (r_ == -1)                                                                                                  \
			printf("%-72s %s\n", #x, strerrorname_np(errno));                                                          \
		else                                                                                                           \
			printf("%-72s %ld\n", #x, r_);                                                                             \
	} while (0)
#define BAD ((void *)8)

static char buf[1 << 20];

static long ms(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void handler(int s) {}

static void pipes(void) {
	int p[2], q[2];
	V(pipe2(p, 0x100));
	V(pipe2(BAD, 0));
	V(pipe2(p, O_NONBLOCK));
	V(read(p[0], buf, 1));
	V(read(p[1], buf, 1));
	V(write(p[0], buf, 1));
	V(fcntl(p[0], F_GETPIPE_SZ));
	V(write(p[1], buf, 65537));
	V(write(p[1], buf, 1));
	int n = 0;
	V(ioctl(p[0], FIONREAD, &n));
	V(n);
	V(read(p[0], buf, 4095));
	V(write(p[1], buf, 4096));
	V(read(p[0], buf, 1));
	V(write(p[1], buf, 4096));
	V(fcntl(p[0], F_SETPIPE_SZ, 4096));
	V(fcntl(p[0], F_SETPIPE_SZ, 100000));
	V(fcntl(p[0], F_SETPIPE_SZ, 0));
	V(read(p[0], buf, sizeof buf));
	V(fcntl(p[0], F_SETPIPE_SZ, 1));
	V(write(p[1], buf, 10000));
	V(lseek(p[0], 0, SEEK_SET));
	V(fsync(p[0]));
	struct stat st;
	fstat(p[0], &st);
	printf("%o %ld\n", st.st_mode, (long)st.st_size);
	close(p[0]);
	V(write(p[1], buf, 1));
	struct pollfd f = {p[1], POLLOUT};
	V(poll(&f, 1, 0));
	printf("%#x\n", f.revents);
	pipe(q);
	close(q[1]);
	V(read(q[0], buf, 10));
	f = (struct pollfd){q[0], POLLIN | POLLOUT};
	V(poll(&f, 1, -1));
	printf("%#x\n", f.revents);
	V(pipe2(p, O_DIRECT | O_NONBLOCK));
	V(write(p[1], "abc", 3));
	V(write(p[1], "defg", 4));
	V(read(p[0], buf, 2));
	V(read(p[0], buf, 10));
	V(mkfifo("fifo", 0600));
	V(open("fifo", O_WRONLY | O_NONBLOCK));
	if (fork() == 0) {
		int w = open("fifo", O_WRONLY);
		write(w, "hello", 5);
		_exit(0);
	}
	int r = open("fifo", O_RDONLY);
	V(read(r, buf, 10));
	V(read(r, buf, 10));
	wait(0);
	close(r);
	r = open("fifo", O_RDONLY | O_NONBLOCK);
	f = (struct pollfd){r, POLLIN};
	V(poll(&f, 1, 0));
	int w = open("fifo", O_WRONLY);
	V(write(w, "x", 1));
	V(poll(&f, 1, 0));
	printf("%#x\n", f.revents);
	close(w);
	V(poll(&f, 1, 0));
	printf("%#x\n", f.revents);
	V(read(r, buf, 10));
	V(poll(&f, 1, 0));
	printf("%#x\n", f.revents);
}

static void polls(void) {
	int p[2];
	pipe(p);
	int file = open("/etc/passwd", O_RDONLY);
	struct pollfd f[4] = {{p[0], POLLIN}, {p[1], POLLOUT | POLLIN}, {-1, POLLIN, 5}, {999, POLLIN}};
	V(poll(f, 4, -1));
	for (int i = 0; i < 4; i++)
		printf("%#x ", f[i].revents);
	f[0] = (struct pollfd){file, POLLIN | POLLOUT | POLLPRI};
	V(poll(f, 1, -1));
	printf("%#x\n", f[0].revents);
	V(poll(BAD, 1, 0));
	V(poll(0, 0, 1));
	struct rlimit rl = {30, 4096};
	getrlimit(RLIMIT_NOFILE, &rl);
	long cur = rl.rlim_cur;
	rl.rlim_cur = 30;
	setrlimit(RLIMIT_NOFILE, &rl);
	V(poll((void *)buf, 31, 0));
	rl.rlim_cur = cur;
	setrlimit(RLIMIT_NOFILE, &rl);
	long t = ms();
	f[0] = (struct pollfd){p[0], POLLIN};
	V(poll(f, 1, 30));
	V(ms() - t >= 30 && ms() - t < 1000);
	struct timespec ts = {0, 1000000000};
	V(ppoll(f, 1, &ts, 0));
	ts = (struct timespec){-1, 0};
	V(ppoll(f, 1, &ts, 0));
	signal(SIGALRM, handler);
	struct itimerval it = {{0, 0}, {0, 20000}};
	setitimer(ITIMER_REAL, &it, 0);
	V(poll(f, 1, 2000));
	sigset_t none, all;
	sigemptyset(&none), sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, 0);
	raise(SIGALRM);
	V(ppoll(f, 1, 0, &none));
	sigprocmask(SIG_SETMASK, &none, 0);
	fd_set r, w, e;
	FD_ZERO(&r); FD_ZERO(&w); FD_ZERO(&e);
	FD_SET(p[0], &r); FD_SET(p[1], &w); FD_SET(p[0], &e);
	V(select(p[1] + 1, &r, &w, &e, 0));
	printf("%d %d %d\n", !!FD_ISSET(p[0], &r), !!FD_ISSET(p[1], &w), !!FD_ISSET(p[0], &e));
	struct timeval tv = {0, 20000};
	FD_SET(p[0], &r);
	V(select(p[1] + 1, &r, 0, 0, &tv));
	printf("%d %ld %ld\n", !!FD_ISSET(p[0], &r), tv.tv_sec, tv.tv_usec);
	FD_SET(900, &r);
	V(select(1000, &r, 0, 0, &tv));
	V(select(-1, 0, 0, 0, &tv));
	tv.tv_usec = -1;
	V(select(0, 0, 0, 0, &tv));
	FD_ZERO(&r);
	FD_SET(45, &r);
	tv = (struct timeval){0, 0};
	V(select(46, &r, 0, 0, &tv));
	write(p[1], "x", 1);
	close(p[1]);
	FD_ZERO(&r); FD_SET(p[0], &r);
	V(select(p[0] + 1, &r, 0, 0, 0));
}

static void epolls(void) {
	int p[2], q[2], ep = epoll_create1(EPOLL_CLOEXEC), ep2 = epoll_create(1);
	struct epoll_event ev = {EPOLLIN, {.u64 = 7}}, out[10];
	pipe(p), pipe(q);
	V(epoll_create(0));
	V(epoll_create1(1));
	V(epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &ev));
	V(epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &ev));
	V(epoll_ctl(ep, EPOLL_CTL_MOD, q[0], &ev));
	V(epoll_ctl(ep, EPOLL_CTL_DEL, q[0], &ev));
	V(epoll_ctl(ep, 9, p[0], &ev));
	V(epoll_ctl(ep, EPOLL_CTL_ADD, ep, &ev));
	V(epoll_ctl(ep, EPOLL_CTL_ADD, 999, &ev));
	V(epoll_ctl(999, EPOLL_CTL_ADD, p[0], &ev));
	V(epoll_ctl(p[0], EPOLL_CTL_ADD, p[1], &ev));
	V(epoll_ctl(ep, EPOLL_CTL_ADD, open("/etc/passwd", O_RDONLY), &ev));
	V(epoll_ctl(ep, EPOLL_CTL_ADD, open("/", O_RDONLY), &ev));
	V(epoll_ctl(ep, EPOLL_CTL_ADD, q[0], BAD));
	V(epoll_wait(ep, out, 0, 0));
	V(epoll_wait(ep, out, -1, 0));
	V(epoll_wait(p[0], out, 1, 0));
	V(epoll_wait(ep, out, 10, 0));
	write(p[1], "abc", 3);
	V(epoll_wait(ep, out, 10, -1));
	printf("%#x %ld\n", out[0].events, (long)out[0].data.u64);
	V(epoll_wait(ep, out, 10, 0)); // level: again
	ev.events = EPOLLIN | EPOLLET;
	V(epoll_ctl(ep, EPOLL_CTL_MOD, p[0], &ev));
	V(epoll_wait(ep, out, 10, 0));
	V(epoll_wait(ep, out, 10, 0)); // edge: not again
	write(p[1], "d", 1);
	V(epoll_wait(ep, out, 10, 0));
	V(read(p[0], buf, 1));
	V(epoll_wait(ep, out, 10, 0));
	ev.events = EPOLLIN | EPOLLONESHOT;
	V(epoll_ctl(ep, EPOLL_CTL_MOD, p[0], &ev));
	V(epoll_wait(ep, out, 10, 0));
	V(epoll_wait(ep, out, 10, 0));
	V(epoll_ctl(ep, EPOLL_CTL_MOD, p[0], &ev));
	V(epoll_wait(ep, out, 10, 0));
	ev.events = EPOLLIN | EPOLLEXCLUSIVE;
	V(epoll_ctl(ep, EPOLL_CTL_MOD, p[0], &ev));
	V(epoll_ctl(ep, EPOLL_CTL_ADD, q[0], &ev));
	ev.events = EPOLLIN;
	V(epoll_ctl(ep, EPOLL_CTL_MOD, q[0], &ev));
	V(epoll_ctl(ep, EPOLL_CTL_DEL, q[0], 0));
	ev.events = EPOLLOUT;
	V(epoll_ctl(ep, EPOLL_CTL_ADD, q[1], &ev));
	V(epoll_wait(ep, out, 10, 0));
	V(epoll_ctl(ep, EPOLL_CTL_DEL, q[1], 0));
	V(epoll_wait(ep, out, 10, 0));
	// Nested.
	ev.events = EPOLLIN;
	V(epoll_ctl(ep2, EPOLL_CTL_ADD, ep, &ev));
	V(epoll_ctl(ep, EPOLL_CTL_ADD, ep2, &ev));
	V(epoll_wait(ep2, out, 10, 0));
	V(epoll_ctl(ep, EPOLL_CTL_MOD, p[0], &ev));
	V(epoll_wait(ep2, out, 10, 0));
	struct pollfd f = {ep, POLLIN};
	V(poll(&f, 1, 0));
	V(read(p[0], buf, 100));
	V(epoll_wait(ep2, out, 10, 0));
	V(poll(&f, 1, 0));
	if (fork() == 0) {
		usleep(20000);
		write(p[1], "x", 1);
		_exit(0);
	}
	V(epoll_wait(ep2, out, 10, 5000));
	wait(0);
	// The last close ends the watch; a duplicate keeps it.
	int d = dup(p[0]);
	close(p[0]);
	V(epoll_wait(ep, out, 10, 0));
	close(d);
	V(epoll_wait(ep, out, 10, 0));
	long t = ms();
	V(epoll_wait(ep, out, 10, 25));
	V(ms() - t >= 25 && ms() - t < 1000);
	struct timespec ts = {0, 1};
	V(syscall(SYS_epoll_pwait2, ep, out, 10, &ts, 0, 8));
	signal(SIGALRM, handler);
	struct itimerval it = {{0, 0}, {0, 20000}};
	setitimer(ITIMER_REAL, &it, 0);
	V(epoll_wait(ep, out, 10, 5000));
	V(read(ep, buf, 8));
}

static void counters(void) {
	uint64_t v = 3;
	int e = eventfd(0, EFD_NONBLOCK), s = eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK);
	V(eventfd(0, 4));
	V(read(e, &v, 8));
	V(read(e, &v, 7));
	v = 3;
	V(write(e, &v, 7));
	V(write(e, &v, 8));
	V(write(e, &v, 16));
	V(read(e, &v, 16));
	V(v);
	v = -1;
	V(write(e, &v, 8));
	v = -2;
	V(write(e, &v, 8));
	v = 1;
	V(write(e, &v, 8));
	struct pollfd f = {e, POLLIN | POLLOUT};
	V(poll(&f, 1, 0));
	printf("%#x\n", f.revents);
	V(read(s, &v, 8));
	V(v);
	V(read(s, &v, 8));
	V(read(s, &v, 8));
	int t = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
	struct itimerspec it = {{0, 10000000}, {0, 20000000}}, old;
	V(timerfd_create(99, 0));
	V(timerfd_create(CLOCK_MONOTONIC, 1));
	V(read(t, &v, 8));
	V(timerfd_settime(t, 0, &it, 0));
	V(timerfd_settime(e, 0, &it, 0));
	V(timerfd_settime(t, 8, &it, 0));
	V(timerfd_gettime(t, &old));
	V(old.it_value.tv_nsec > 0 && old.it_value.tv_nsec <= 20000000);
	f = (struct pollfd){t, POLLIN};
	V(poll(&f, 1, 0));
	V(poll(&f, 1, 1000));
	usleep(45000);
	V(read(t, &v, 8));
	V(v >= 4);
	it = (struct itimerspec){{0, 0}, {0, 0}};
	V(timerfd_settime(t, 0, &it, &old));
	V(old.it_interval.tv_nsec);
	V(read(t, &v, 8));
	it.it_value.tv_sec = 1;
	V(timerfd_settime(t, TFD_TIMER_ABSTIME, &it, 0));
	V(read(t, &v, 8));
	V(v);
	sigset_t m;
	sigemptyset(&m), sigaddset(&m, SIGUSR1), sigaddset(&m, SIGKILL);
	sigprocmask(SIG_BLOCK, &m, 0);
	int g = signalfd(-1, &m, SFD_NONBLOCK);
	struct signalfd_siginfo si;
	V(signalfd(-1, &m, 4));
	V(signalfd(e, &m, 0));
	V(read(g, &si, sizeof si));
	V(read(g, &si, 100));
	f = (struct pollfd){g, POLLIN};
	V(poll(&f, 1, 0));
	kill(getpid(), SIGUSR1);
	V(poll(&f, 1, 1000));
	V(read(g, &si, sizeof si));
	printf("%d %d %d\n", si.ssi_signo, si.ssi_code, si.ssi_pid == getpid());
	union sigval sv = {.sival_int = 77};
	sigqueue(getpid(), SIGUSR1, sv);
	V(read(g, &si, sizeof si));
	printf("%d %d %d\n", si.ssi_signo, si.ssi_code, si.ssi_int);
}

static void show(int in) {
	int n = read(in, buf, 4096);
	if (n < 0)
		printf("  %s\n", strerrorname_np(errno));
	for (char *p = buf; p < buf + n;) {
		struct inotify_event *e = (void *)p;
		printf("  wd %d mask %#x cookie %d len %d %s\n", e->wd, e->mask, !!e->cookie, e->len, e->len ? e->name : "");
		p += sizeof *e + e->len;
	}
}

static void inotify(void) {
	int in = inotify_init1(IN_NONBLOCK), n;
	V(inotify_init1(1));
	V(mkdir("w", 0700));
	V(inotify_add_watch(in, "none", IN_ALL_EVENTS));
	V(inotify_add_watch(in, "w", 0));
	V(inotify_add_watch(in, "/etc/passwd", IN_ALL_EVENTS | IN_ONLYDIR));
	V(inotify_add_watch(0, "w", IN_ALL_EVENTS));
	V(inotify_add_watch(in, "w", IN_ALL_EVENTS));
	V(inotify_add_watch(in, "w", IN_ALL_EVENTS | IN_MASK_CREATE));
	V(inotify_rm_watch(in, 55));
	show(in);
	int f = open("w/file", O_CREAT | O_RDWR, 0600);
	write(f, "x", 1);
	write(f, "x", 1);
	lseek(f, 0, SEEK_SET);
	read(f, buf, 1);
	V(ioctl(in, FIONREAD, &n));
	V(n);
	V(read(in, buf, 10));
	show(in);
	int wd = inotify_add_watch(in, "w/file", IN_ATTRIB | IN_DELETE_SELF | IN_MODIFY | IN_MOVE_SELF);
	fchmod(f, 0644);
	ftruncate(f, 0);
	close(f);
	show(in);
	mkdir("w/dir", 0700);
	rename("w/file", "w/dir/moved");
	rename("w/dir/moved", "w/back");
	show(in);
	symlink("x", "w/sl"), unlink("w/sl"), link("w/back", "w/hard"), unlink("w/hard");
	show(in);
	unlink("w/back");
	show(in);
	rmdir("w/dir");
	show(in);
	rmdir("w");
	show(in);
	V(inotify_rm_watch(in, wd));
	mkdir("w2", 0700);
	wd = inotify_add_watch(in, "w2", IN_CREATE | IN_ONESHOT);
	close(creat("w2/a", 0600)), close(creat("w2/b", 0600));
	show(in);
	wd = inotify_add_watch(in, "w2", IN_CREATE);
	V(inotify_rm_watch(in, wd));
	show(in);
}

int main(void) {
	char dir[] = "/tmp/poll_basic.XXXXXX", cmd[100];
	signal(SIGPIPE, SIG_IGN);
	setvbuf(stdout, 0, _IOLBF, 0);
	mkdtemp(dir);
	chdir(dir);
	pipes(), polls(), epolls(), counters(), inotify();
	fflush(stdout);
	snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
	chdir("/");
	return system(cmd);
}
