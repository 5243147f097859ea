// What differential fuzzing found, the fourth part.
#include "conf.h"
#include <arpa/inet.h>
#include <linux/kcmp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>

static char buf[4096];
static int pipes;
static void on(int s) { pipes += s == SIGPIPE; }

static void counters(void) {
	H("each buffer for an eventfd is a write of its own");
	uint64_t one = 1, full = -1, got = 0;
	int e = eventfd(0, EFD_NONBLOCK);
	struct iovec v[3] = {{&one, 8}, {&one, 8}, {buf, 16}};
	V(writev(e, v, 3)), V(writev(e, v + 2, 1)), V(writev(e, v, 0)), v[1].iov_base = &full, V(writev(e, v, 2)), v[1].iov_base = BAD, V(writev(e, v, 2)), v[0].iov_len = 0, V(writev(e, v, 1)), V(write(e, &one, 0));
	V(read(e, &got, 8)), P("%lu", got);
}

static void spliced(void) {
	H("a pipe has room and a reader before anything is read for it");
	int p[2], s[2], q[2];
	pipe(p), socketpair(AF_UNIX, SOCK_SEQPACKET, 0, s), close(p[0]);
	V(splice(s[0], 0, p[1], 0, 8, 0)), V(splice(s[0], 0, p[1], 0, 8, SPLICE_F_NONBLOCK)), P("%d", pipes), close(p[1]);
	pipe2(p, O_NONBLOCK), pipe2(q, O_NONBLOCK), V(fcntl(p[1], F_SETPIPE_SZ, 4096)), V(write(p[1], buf, 4096));
	V(tee(q[0], p[1], 8, 0)), close(q[1]), V(tee(q[0], p[1], 8, 0)), V(splice(q[0], 0, p[1], 0, 8, 0)), V(splice(s[0], 0, p[1], 0, 8, 0));
	V(write(s[1], "ab", 2)), V(splice(s[0], 0, p[1], 0, 8, 0)), V(read(p[0], buf, 4096)), V(tee(q[0], p[1], 8, 0)), V(splice(s[0], 0, p[1], 0, 8, 0)), V(read(p[0], buf, 8));
	int f = open("f", O_RDWR | O_CREAT, 0644);
	off_t o = 0;
	V(ftruncate(f, 100000)), V(sendfile(p[1], f, &o, 65536)), P("at %ld", (long)o), V(sendfile(p[1], f, &o, 1)), P("at %ld", (long)o), V(splice(f, &o, p[1], 0, 1, 0));
	close(p[0]), V(sendfile(p[1], f, &o, 1)), P("%d", pipes);
}

static struct sockaddr_in at(const char *a, int port) { return (struct sockaddr_in){AF_INET, htons(port), {inet_addr(a)}}; }
static void whom(const char *what, int s) {
	struct sockaddr_in a = {};
	socklen_t n = sizeof a;
	long r = E(getpeername(s, (void *)&a, &n));
	P("%s: %ld %s", what, r, r ? "" : inet_ntoa(a.sin_addr));
}

static void sockets(void) {
	H("where 0.0.0.0 is, what is refused first, MSG_OOB");
	struct sockaddr_in a = at("127.0.0.2", 0), any = at("0.0.0.0", 0);
	socklen_t n = sizeof a;
	int u = socket(AF_INET, SOCK_DGRAM, 0), l = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), s = socket(AF_INET, SOCK_STREAM, 0), p[2];
	V(bind(u, (void *)&a, n)), getsockname(u, (void *)&a, &n), any.sin_port = a.sin_port, V(connect(u, (void *)&any, n)), whom("datagrams", u);
	V(recv(u, buf, 8, MSG_OOB | MSG_DONTWAIT)), V(send(u, "a", 1, MSG_OOB)), V(send(u, "a", 1, 0)), V(recv(u, buf, 8, MSG_OOB)), V(sendto(u, "bc", 2, 0, (void *)&any, n)), V(recv(u, buf, 8, 0));
	a.sin_port = 0, V(bind(l, (void *)&a, n)), V(listen(l, 1)), getsockname(l, (void *)&a, &n), V(connect(l, (void *)&a, 8)), V(connect(l, (void *)&a, n)), V(connect(l, (void *)&a, 1));
	any.sin_port = a.sin_port, a.sin_port = 0, V(bind(s, (void *)&a, n)), V(connect(s, (void *)&any, n)), whom("a stream", s);
	int r = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), off = -1;
	close(l), V(connect(r, (void *)&any, n)), V(setsockopt(r, IPPROTO_TCP, TCP_FASTOPEN, &off, 4));
	struct pollfd f = {r, POLLOUT};
	poll(&f, 1, -1), n = 4, V(getsockopt(r, SOL_SOCKET, SO_ERROR, &off, &n)), P("%d", off == ECONNREFUSED), V(connect(r, (void *)&any, 8)), V(connect(r, (void *)&any, 8));
	close(u), u = socket(AF_INET, SOCK_DGRAM, 0), close(s), s = socket(AF_INET, SOCK_STREAM, 0);
	struct {
		struct cmsghdr h;
		int fd;
	} c = {{20, SOL_SOCKET, SCM_RIGHTS}, -1};
	struct iovec one = {buf, 1};
	struct msghdr m = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = 16};
	pipes = 0, V(sendmsg(s, &m, MSG_NOSIGNAL)), V(sendmsg(s, &m, 0)), P("%d", pipes), V(sendmsg(u, &m, 0)), m.msg_control = BAD, V(sendmsg(u, &m, 0)), V(sendmsg(s, &m, 0)), m.msg_control = &c;
	any = at("127.0.0.1", 9), m.msg_name = &any, m.msg_namelen = sizeof any, V(sendmsg(u, &m, 0));
	char *w = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned char in[2];
	V(mmap(w, 4096, PROT_READ, MAP_PRIVATE | MAP_FIXED, u, 0)), V(mincore(w, 4096, in)), V(mincore(w + 4096, 4096, in)), V(mmap(w + 4096, 4096, PROT_READ, MAP_PRIVATE, u, 0)), V(mincore(w + 4096, 4096, in));
	int e = eventfd(0, 0);
	V(mmap(w + 4096, 4096, PROT_READ, MAP_PRIVATE | MAP_FIXED, e, 0)), V(mincore(w + 4096, 4096, in));
	for (int type = SOCK_STREAM; type <= SOCK_SEQPACKET; type++) {
		if (socketpair(AF_UNIX, type | SOCK_NONBLOCK, 0, p))
			continue;
		P("type %d", type), V(recv(p[0], buf, 8, MSG_OOB)), V(send(p[1], "x", 1, 0)), V(recv(p[0], buf, 8, MSG_OOB)), V(recv(p[0], buf, 8, MSG_OOB | MSG_PEEK)), V(recv(p[0], buf, 8, 0));
	}
}

static void limits(void) {
	H("only a process that runs is told of its CPU time");
	int st;
	pid_t p = fork();
	if (!p)
		for (;;)
			pause();
	sleep_ms(20), V(prlimit(p, RLIMIT_CPU, &(struct rlimit){0, 10}, 0)), sleep_ms(300), V(waitpid(p, &st, WNOHANG)), V(prlimit(p, RLIMIT_CPU, &(struct rlimit){0, 0}, 0)), sleep_ms(300), V(waitpid(p, &st, WNOHANG));
	kill(p, SIGTERM), waitpid(p, &st, 0), P("%s", conf_status(st));
	if (!(p = fork())) {
		setrlimit(RLIMIT_CPU, &(struct rlimit){0, 10});
		for (;;)
			;
	}
	waitpid(p, &st, 0), P("%s", conf_status(st));
}

static int ready[2];
static void *idle(void *p) { return write(ready[1], "r", 1), read(*(int *)p, buf, 1), p; }

static void lists(void) {
	H("who has a list of adjustments of semaphores");
	int p[2];
	pipe(p), pipe(ready);
	pid_t a = fork();
	if (!a)
		idle(p), _exit(0);
	pid_t b = fork();
	if (!b) {
		pthread_t t;
		pthread_create(&t, 0, idle, p), pthread_join(t, 0), _exit(0);
	}
	read(ready[0], buf, 1), read(ready[0], buf, 1), P("%d", SC(kcmp, a, a, KCMP_SYSVSEM, 0L, 0L) != 0), P("%d", SC(kcmp, a, b, KCMP_SYSVSEM, 0L, 0L) != 0), P("%d", SC(kcmp, b, b, KCMP_SYSVSEM, 0L, 0L) != 0);
	write(p[1], "abc", 3), waitpid(a, 0, 0), waitpid(b, 0, 0);
}

static void owners(void) {
	H("the inode of all anonymous files has no owner that could change it");
	int e = eventfd(0, 0);
	V(fchmod(e, 0600)), V(fchown(e, -1, -1)), V(fchown(e, 0, 0));
	if (fork() == 0) {
		(void)!setresuid(1000, 1000, 1000), V(fchmod(e, 0600)), fflush(stdout), _exit(0);
	}
	wait(0);
}

static void orders(void) {
	H("what is refused first");
	char *p = mmap(0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	V(mprotect(p, -1, 0x2000000)), V(mprotect(p, -1, 64)), V(mprotect(p, -8192, 64)), V(mprotect(p, 4096, 64)), V(mprotect(p + 1, -1, 0));
	int d = open(".", O_RDONLY), f = open("file", O_RDWR | O_CREAT, 0644);
	V(pread(d, buf, 64, LONG_MAX)), V(pread(d, buf, 64, 0)), V(pread(d, buf, 64, -1)), V(read(d, buf, 64)), V(pread(f, buf, 64, LONG_MAX));
	if (!getuid() && !unshare(CLONE_NEWNS))
		V(mount("", "file", "tmpfs", 1UL << 31, 0)), V(mount("", "absent", "tmpfs", 1UL << 31, 0)), V(mount("", ".", "nosuch", 1UL << 31, 0));
}

int main(void) {
	signal(SIGPIPE, on);
	sub(orders), sub(counters), sub(spliced), sub(limits), sub(sockets), sub(lists), sub(owners);
	return 0;
}
