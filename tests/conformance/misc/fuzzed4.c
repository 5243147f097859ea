// What differential fuzzing found, the fourth part.
#include "conf.h"
#include <arpa/inet.h>
#include <linux/kcmp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/uio.h>

static char buf[64];

static void counters(void) {
	H("each buffer for an eventfd is a write of its own");
	uint64_t one = 1, full = -1, got = 0;
	int e = eventfd(0, EFD_NONBLOCK);
	struct iovec v[3] = {{&one, 8}, {&one, 8}, {buf, 16}};
	V(writev(e, v, 3)), V(writev(e, v + 2, 1)), V(writev(e, v, 0)), v[1].iov_base = &full, V(writev(e, v, 2)), v[1].iov_base = BAD, V(writev(e, v, 2)), v[0].iov_len = 0, V(writev(e, v, 1)), V(write(e, &one, 0));
	V(read(e, &got, 8)), P("%lu", got);
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
	for (int type = SOCK_STREAM; type <= SOCK_SEQPACKET; type++) {
		if (socketpair(AF_UNIX, type | SOCK_NONBLOCK, 0, p))
			continue;
		P("type %d", type), V(recv(p[0], buf, 8, MSG_OOB)), V(send(p[1], "x", 1, 0)), V(recv(p[0], buf, 8, MSG_OOB)), V(recv(p[0], buf, 8, MSG_OOB | MSG_PEEK)), V(recv(p[0], buf, 8, 0));
	}
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
	sub(orders), sub(counters), sub(sockets), sub(lists), sub(owners);
	return 0;
}
