// POSIX message queues: names, attributes, priorities, limits, time-outs, notification, the file system.
// users: root ordinary
#include "conf.h"
#include <linux/netlink.h>
#include <mqueue.h>
#include <sys/mount.h>
#include <sys/socket.h>

static int op(const char *n, int f, int mode, long max, long size) { struct mq_attr a = {0, max, size}; return SC(mq_open, n, f, mode, max < 0 ? 0 : &a); }

static void opens(void) {
	struct mq_attr a;
	char n[300];
	memset(n, 'q', 299), n[299] = 0;
	V(op("q", O_RDWR, 0, -1, 0)), V(op("q", O_RDWR | O_CREAT, 0600, -1, 0) >= 0), V(op("q", O_RDWR | O_CREAT | O_EXCL, 0600, -1, 0)), V(op("/q", O_RDWR, 0, -1, 0)), V(op("a/b", O_RDWR | O_CREAT, 0600, -1, 0)), V(op("", O_RDWR | O_CREAT, 0600, -1, 0)), V(op(".", O_RDWR | O_CREAT, 0600, -1, 0)), V(op("..", O_RDWR | O_CREAT, 0600, -1, 0)), V(op(n, O_RDWR | O_CREAT, 0600, -1, 0)), n[255] = 0, RN("255", op(n, O_RDWR | O_CREAT, 0600, -1, 0)), R(SC(mq_unlink, n)), V(op(BAD, O_RDWR, 0, -1, 0)), V(SC(mq_open, "x", O_RDWR | O_CREAT, 0600, BAD)), V(op("r", O_RDONLY | O_CREAT, 0600, 0, 10)), V(op("r", O_RDONLY | O_CREAT, 0600, 10, 0)), V(op("r", O_RDONLY | O_CREAT, 0600, 11, 10) >= 0), V(op("r2", O_RDONLY | O_CREAT, 0600, 10, 8193) >= 0), V(op("r3", O_RDONLY | O_CREAT, 0600, 1L << 40, 10)), V(op("r4", 3 | O_CREAT, 0600, 5, 10));
	int q = mq_open("/q", O_RDWR);
	R(mq_getattr(q, &a)), P("%ld %ld %ld %ld", a.mq_flags, a.mq_maxmsg, a.mq_msgsize, a.mq_curmsgs), R(mq_getattr(0, &a)), R(mq_getattr(-1, &a)), a.mq_flags = O_NONBLOCK, R(mq_setattr(q, &a, 0)), R(mq_getattr(q, &a)), P("%lx", a.mq_flags), a.mq_flags = 1, R(mq_setattr(q, &a, 0)), R(SC(mq_getsetattr, q, BAD, 0)), R(SC(mq_getsetattr, q, 0, BAD)), R(SC(mq_getsetattr, q, 0, 0)), V(fcntl(q, F_GETFL)), V(fcntl(q, F_GETFD));
	struct stat s;
	R(fstat(q, &s)), P("mode %o size %ld links %ld", s.st_mode, (long)s.st_size, (long)s.st_nlink), V(read(q, n, 10)), V(write(q, n, 1)), V(lseek(q, 0, 0)), V(read(q, n, 200) > 0), n[20] = 0;
	R(mq_unlink("/q")), R(mq_unlink("/q")), R(SC(mq_unlink, BAD)), R(SC(mq_unlink, "a/b")), R(SC(mq_unlink, "")), R(mq_getattr(q, &a)), R(mq_close(q));
	mode_t u = umask(077);
	q = op("m", O_RDWR | O_CREAT, 0666, -1, 0), fstat(q, &s), P("mode %o", s.st_mode), umask(u);
}

static void sends(void) {
	struct mq_attr at = {0, 3, 16};
	int q = mq_open("/s", O_RDWR | O_CREAT | O_NONBLOCK, 0600, &at), r = mq_open("/s", O_RDONLY), w = mq_open("/s", O_WRONLY), nr = mq_open("/s", O_RDONLY | O_NONBLOCK);
	char b[32];
	unsigned p;
	V(mq_receive(q, b, 16, &p)), V(mq_send(q, "low", 3, 1)), V(mq_send(q, "high", 4, 9)), V(mq_send(q, "low2", 4, 1)), V(mq_send(q, "x", 1, 0)), V(mq_receive(q, b, 15, &p)), V(mq_receive(q, b, 16, &p)), P("%.4s %u", b, p), V(mq_receive(q, b, 32, &p)), P("%.3s %u", b, p), V(mq_receive(q, b, 16, 0)), P("%.4s", b), V(mq_receive(q, b, 16, &p)), V(mq_send(q, b, 17, 0)), V(mq_send(q, b, 0, 0)), V(mq_receive(q, b, 16, 0)), V(mq_send(q, b, 1, 32767)), V(mq_send(q, b, 1, 32768)), V(mq_send(r, b, 1, 0)), V(mq_receive(w, b, 16, 0)), V(mq_send(0, b, 1, 0)), V(mq_receive(-1, b, 16, 0)), V(mq_send(q, BAD, 1, 0)), V(mq_receive(q, BAD, 16, 0)), V(mq_receive(q, b, 16, 0));
	struct timespec t = {0, 0};
	V(mq_timedreceive(r, b, 16, 0, &t)), t.tv_nsec = 1000000000, V(mq_timedreceive(r, b, 16, 0, &t)), t.tv_nsec = -1, V(mq_timedreceive(r, b, 16, 0, &t)), clock_gettime(CLOCK_REALTIME, &t), t.tv_nsec = 0, t.tv_sec--, V(mq_timedreceive(r, b, 16, 0, &t)), V(SC(mq_timedreceive, r, b, 16, 0, BAD)), t.tv_nsec = -1, V(mq_timedreceive(nr, b, 16, 0, &t)), mq_send(q, b, 1, 0), V(mq_timedreceive(r, b, 16, 0, &(struct timespec){0, 0}));
	struct pollfd f[2] = {{q, POLLIN | POLLOUT}};
	V(poll(f, 1, 0)), P("%x", f[0].revents), mq_send(q, b, 1, 0), V(poll(f, 1, 0)), P("%x", f[0].revents), mq_send(q, b, 1, 0), mq_send(q, b, 1, 0), V(poll(f, 1, 0)), P("%x", f[0].revents), V(mq_timedsend(w, b, 1, 0, &(struct timespec){0, 0}));
	while (mq_receive(q, b, 16, 0) >= 0)
		;
	pid_t c = CHILD(V(mq_receive(r, b, 16, 0)); V(mq_receive(r, b, 16, 0)));
	sleep_ms(20), mq_send(q, "a", 1, 0), mq_send(q, "b", 1, 0), P("%s", wait_for(c));
	catch(SIGALRM, 0), ualarm(20000, 0), V(mq_receive(r, b, 16, 0));
	H("notify");
	struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 5};
	catch(SIGUSR1, 0), conf_got = 0;
	V(mq_notify(q, &e)), V(mq_notify(q, &e)), P("%s", wait_for(CHILD(V(mq_notify(q, &e))))), mq_send(q, "x", 1, 0), P("%d code %d value %d pid %d", conf_got, conf_info.si_code, conf_info.si_value.sival_int, conf_info.si_pid == getpid()), mq_send(q, "x", 1, 0), P("once %d", conf_got), V(mq_notify(q, &e)), mq_send(q, "x", 1, 0), P("not when there was one %d", conf_got), V(mq_notify(q, 0)), V(mq_notify(q, 0)), e.sigev_signo = 65, V(mq_notify(q, &e)), e.sigev_notify = 9, V(mq_notify(q, &e)), e.sigev_notify = SIGEV_NONE, V(mq_notify(q, &e)), V(SC(mq_notify, q, BAD)), V(SC(mq_notify, 0, 0)), V(SC(mq_notify, -1, 0));
}

static volatile int called;
static void call(union sigval v) { called = v.sival_int; }

// By a message on a netlink socket, of which the C library makes a thread.
static void threads(void) {
	struct mq_attr at = {0, 3, 16};
	int q = mq_open("/t", O_RDWR | O_CREAT | O_NONBLOCK, 0600, &at), q2, nl = socket(AF_NETLINK, SOCK_RAW, 0), un = socket(AF_UNIX, SOCK_STREAM, 0);
	char c[32] = "cookie", b[64];
	struct sigevent e = {.sigev_notify = SIGEV_THREAD, .sigev_signo = -1, .sigev_value.sival_ptr = c};
	R(SC(mq_notify, q, &e)), e.sigev_signo = q, R(SC(mq_notify, q, &e)), e.sigev_signo = un, R(SC(mq_notify, q, &e)), e.sigev_signo = nl, R(SC(mq_notify, -1, &e)), R(SC(mq_notify, un, &e));
	e.sigev_value.sival_ptr = BAD, R(SC(mq_notify, q, &e)), e.sigev_value.sival_ptr = 0, R(SC(mq_notify, q, &e)), e.sigev_value.sival_ptr = c;
#define GOT P("%ld %.6s %d", (long)recv(nl, b, 64, MSG_DONTWAIT), b, b[31]), memset(b, 0, 64)
	R(SC(mq_notify, q, &e)), R(SC(mq_notify, q, &e)), V(recv(nl, b, 64, MSG_DONTWAIT)), V(read(q, b, 64) > 0), b[42] = 0, P("%s", b + 17), mq_send(q, "x", 1, 0), memcpy(c, "change", 6), GOT, V(recv(nl, b, 64, MSG_DONTWAIT)), mq_receive(q, b, 16, 0);
	R(SC(mq_notify, q, &e)), R(SC(mq_notify, q, 0)), GOT, R(SC(mq_notify, q, 0)), V(recv(nl, b, 64, MSG_DONTWAIT)), q2 = mq_open("/t", O_RDWR), R(SC(mq_notify, q2, &e)), close(q2), GOT, R(SC(mq_notify, q, &e)), P("%s", wait_for(CHILD(mq_send(q, "y", 1, 0)))), GOT, mq_receive(q, b, 16, 0);
	e.sigev_value.sival_int = 7, e.sigev_notify_function = call, e.sigev_notify_attributes = 0, R(mq_notify(q, &e)), mq_send(q, "z", 1, 0);
	for (int i = 0; i < 500 && !called; i++)
		sleep_ms(10);
	P("called %d", called);
}

int main(void) {
	sub(opens), sub(sends), sub(threads);
	if (getuid())
		return 0;
	H("mount");
	mkdir("mq", 0755), R(mount("mqueue", "mq", "mqueue", 0, 0)), op("vis", O_RDWR | O_CREAT, 0640, -1, 0), P("%s", slurp("mq/vis")), R(open("mq/made", O_CREAT | O_RDWR, 0600) < 0 ? -1 : 0), R(op("made", O_RDWR, 0, -1, 0) < 0 ? -1 : 0), R(unlink("mq/vis")), V(op("vis", O_RDWR, 0, -1, 0)), R(mkdir("mq/d", 0755)), P("%s %s %s", slurp("/proc/sys/fs/mqueue/msg_max"), slurp("/proc/sys/fs/mqueue/msgsize_max"), slurp("/proc/sys/fs/mqueue/queues_max"));
}
