// AF_UNIX: streams, datagrams, sequenced packets, names, shutdown, readiness, descriptors and credentials.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define R(x)                                                                                                           \
	do {                                                                                                               \
		errno = 0;                                                                                                     \
		long r_ = (long)(x);                                                                                           \
		printf("%-70s %ld %s\n", #x, r_, r_ == -1 ? strerrorname_np(errno) : "");                                      \
	} while (0)

static char buf[1 << 20];

static const char *events(int fd) {
	static char out[100];
	struct pollfd p = {fd, POLLIN | POLLOUT | POLLRDHUP, 0};
	poll(&p, 1, 0);
	sprintf(out, "%s%s%s%s%s", p.revents & POLLIN ? "in " : "", p.revents & POLLOUT ? "out " : "", p.revents & POLLHUP ? "hup " : "",
			p.revents & POLLRDHUP ? "rdhup " : "", p.revents & POLLERR ? "err " : "");
	return out;
}
#define E(fd) printf("%-70s %s\n", "poll " #fd, events(fd))

static struct sockaddr_un name(const char *s, int abstract, socklen_t *len) {
	struct sockaddr_un a = {AF_UNIX};
	strcpy(a.sun_path + abstract, s);
	*len = 2 + strlen(s) + 1;
	return a;
}

static int sendfd(int s, int *fds, int n, const char *data) {
	char c[CMSG_SPACE(sizeof(int) * 300)] = {0};
	struct iovec v = {(void *)data, strlen(data)};
	struct msghdr m = {0, 0, &v, 1, c, CMSG_SPACE(n * sizeof(int)), 0};
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(n * sizeof(int));
	memcpy(CMSG_DATA(h), fds, n * sizeof(int));
	return sendmsg(s, &m, 0);
}

static int lastfd;
static void show(int s, int room, int flags) {
	char c[1024], d[16] = {0};
	struct iovec v = {d, 8};
	struct sockaddr_un from;
	struct msghdr m = {&from, sizeof from, &v, 1, c, room, 0};
	int n = recvmsg(s, &m, flags | MSG_DONTWAIT);
	printf("recvmsg: %d %s '%s' flags %#x name %d", n, n < 0 ? strerrorname_np(errno) : "", d, m.msg_flags, (int)m.msg_namelen);
	for (struct cmsghdr *h = n >= 0 && m.msg_controllen ? CMSG_FIRSTHDR(&m) : 0; h; h = CMSG_NXTHDR(&m, h)) {
		if (h->cmsg_type == SCM_RIGHTS) {
			int k = (h->cmsg_len - CMSG_LEN(0)) / 4, *f = (int *)CMSG_DATA(h);
			struct stat st;
			printf(" rights %d", k);
			for (int i = 0; i < k; i++) printf(" %s%s", fstat(f[i], &st) ? "bad" : "good", fcntl(f[i], F_GETFD) ? "+cloexec" : "");
			lastfd = f[0];
			for (int i = 1; i < k; i++) close(f[i]);
		} else if (h->cmsg_type == SCM_CREDENTIALS) {
			struct ucred *u = (struct ucred *)CMSG_DATA(h);
			printf(" cred %s %d %d", u->pid == getpid() ? "self" : u->pid ? "other" : "0", u->uid == getuid() ? 0 : u->uid, u->gid == getgid() ? 0 : u->gid);
		}
	}
	puts("");
}

static void streams(void) {
	int p[2];
	R(socketpair(AF_UNIX, SOCK_STREAM, 0, p));
	E(p[0]);
	R(write(p[0], "hello", 5));
	E(p[1]);
	int n;
	ioctl(p[1], FIONREAD, &n);
	printf("FIONREAD %d\n", n);
	R(recv(p[1], buf, 2, MSG_PEEK));
	R(read(p[1], buf, 100));
	R(recv(p[1], buf, 1, MSG_DONTWAIT));
	R(shutdown(p[0], SHUT_WR));
	E(p[0]);
	E(p[1]);
	R(read(p[1], buf, 1));
	R(send(p[0], "x", 1, MSG_NOSIGNAL));
	R(send(p[1], "back", 4, 0));
	R(read(p[0], buf, 10));
	R(close(p[1]));
	E(p[0]);
	R(write(p[0], "x", 1));
	R(read(p[0], buf, 1));
	socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p);
	write(p[0], "unread", 6);
	R(close(p[1]));
	R(read(p[0], buf, 1));
	R(read(p[0], buf, 1));
	close(p[0]);
	socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p);
	long total = 0;
	while ((n = write(p[0], buf, 10000)) > 0) total += n;
	printf("full after %d KiB or so: %s\n", total > 100000 && total < 1000000 ? 0 : (int)(total >> 10), strerrorname_np(errno));
	E(p[0]);
	while (read(p[1], buf, 100000) > 0) {}
	E(p[0]);
	close(p[0]), close(p[1]);
	// A big transfer between processes.
	socketpair(AF_UNIX, SOCK_STREAM, 0, p);
	fflush(stdout);
	if (!fork()) {
		close(p[1]);
		for (int i = 0; i < sizeof buf; i++) buf[i] = i * 7;
		long r = send(p[0], buf, sizeof buf, 0);
		_exit(r != sizeof buf);
	}
	close(p[0]);
	R(recv(p[1], buf, sizeof buf, MSG_WAITALL));
	int bad = 0, st;
	for (int i = 0; i < sizeof buf; i++) bad += buf[i] != (char)(i * 7);
	wait(&st);
	printf("big transfer: %d bad, sender %d\n", bad, st);
	R(read(p[1], buf, 1));
	close(p[1]);
	struct timeval tv = {0, 30000};
	socketpair(AF_UNIX, SOCK_STREAM, 0, p);
	setsockopt(p[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
	R(read(p[0], buf, 1));
	close(p[0]), close(p[1]);
}

static void packets(void) {
	int p[2];
	socketpair(AF_UNIX, SOCK_DGRAM, 0, p);
	R(write(p[0], "one", 3));
	R(write(p[0], "", 0));
	R(write(p[0], "three", 5));
	R(recv(p[1], buf, 2, MSG_TRUNC));
	R(recv(p[1], buf, 10, 0));
	show(p[1], 0, 0);
	show(p[1], 0, 0);
	R(send(p[0], buf, sizeof buf, 0));
	R(close(p[1]));
	R(write(p[0], "x", 1));
	R(write(p[0], "x", 1));
	close(p[0]);
	socketpair(AF_UNIX, SOCK_SEQPACKET, 0, p);
	R(write(p[0], "packet", 6));
	R(write(p[0], "longer than eight", 17));
	show(p[1], 0, 0);
	show(p[1], 0, 0);
	R(close(p[0]));
	E(p[1]);
	R(read(p[1], buf, 1));
	R(send(p[1], "x", 1, MSG_NOSIGNAL));
	close(p[1]);
}

static void names(void) {
	socklen_t len, got;
	char path[100];
	sprintf(path, "/tmp/us.%d", getpid());
	struct sockaddr_un a = name(path, 0, &len), b;
	int l = socket(AF_UNIX, SOCK_STREAM, 0), c = socket(AF_UNIX, SOCK_STREAM, 0), s;
	E(l);
	R(listen(l, 1));
	R(connect(c, (void *)&a, len));
	R(bind(l, (void *)&a, len));
	R(bind(l, (void *)&a, len));
	s = socket(AF_UNIX, SOCK_STREAM, 0);
	R(bind(s, (void *)&a, len));
	struct stat st;
	stat(path, &st);
	printf("mode %o\n", st.st_mode & ~022);
	R(open(path, O_RDWR));
	R(connect(c, (void *)&a, len));
	R(listen(l, 1));
	E(l);
	R(connect(c, (void *)&a, len));
	R(connect(c, (void *)&a, len));
	E(l);
	R(accept(c, 0, 0));
	got = sizeof b;
	s = accept(l, (void *)&b, &got);
	printf("accepted: %d name %d\n", s >= 0, got);
	got = sizeof b;
	R(getsockname(s, (void *)&b, &got));
	printf("its name: %d %s\n", got - len, strcmp(b.sun_path, path) ? "?" : "same");
	got = sizeof b;
	R(getpeername(c, (void *)&b, &got));
	printf("peer: %d\n", got - len);
	got = sizeof b;
	R(getpeername(s, (void *)&b, &got));
	printf("peer without name: %d\n", got);
	struct ucred u;
	got = sizeof u;
	R(getsockopt(c, SOL_SOCKET, SO_PEERCRED, &u, &got));
	printf("peercred %d %d\n", u.pid == getpid(), u.uid == getuid());
	int v, type, dom;
	got = 4;
	getsockopt(l, SOL_SOCKET, SO_ACCEPTCONN, &v, &got);
	getsockopt(l, SOL_SOCKET, SO_TYPE, &type, &got);
	getsockopt(l, SOL_SOCKET, SO_DOMAIN, &dom, &got);
	printf("acceptconn %d type %d domain %d\n", v, type, dom);
	R(write(c, "hi", 2));
	R(read(s, buf, 10));
	R(sendto(c, "x", 1, 0, (void *)&a, len));
	int d = socket(AF_UNIX, SOCK_DGRAM, 0);
	R(connect(d, (void *)&a, len));
	R(unlink(path));
	int e = socket(AF_UNIX, SOCK_STREAM, 0);
	R(connect(e, (void *)&a, len));
	int fl = open(path, O_CREAT | O_RDWR, 0600);
	R(connect(e, (void *)&a, len));
	unlink(path);
	close(fl);
	R(close(l));
	write(s, "z", 1);
	R(read(c, buf, 1));
	close(c), close(s), close(d), close(e);

	// The static and the dynamic program run at once in one network namespace.
	struct timespec now;
	char unique[64];
	clock_gettime(CLOCK_MONOTONIC, &now);
	sprintf(unique, "abstract-%09ld-%p", now.tv_nsec, (void *)&now);
	a = name(unique, 1, &len);
	l = socket(AF_UNIX, SOCK_DGRAM, 0);
	c = socket(AF_UNIX, SOCK_DGRAM, 0);
	R(bind(l, (void *)&a, len));
	R(bind(c, (void *)&a, len));
	R(sendto(c, "dg", 2, 0, (void *)&a, len));
	show(l, 0, 0);
	struct sockaddr_un self = {AF_UNIX};
	R(bind(c, (void *)&self, 2));
	got = sizeof b;
	getsockname(c, (void *)&b, &got);
	printf("autobind: %d bytes, abstract %d\n", got, b.sun_path[0] == 0);
	R(connect(c, (void *)&a, len));
	R(send(c, "named", 5, 0));
	show(l, 0, 0);
	E(c);
	self.sun_family = AF_UNSPEC;
	R(connect(c, (void *)&self, sizeof self));
	R(send(c, "x", 1, 0));
	R(close(l));
	R(sendto(c, "dg", 2, 0, (void *)&a, len));
	R(recv(c, buf, 1, MSG_OOB));
	close(c);
	R(socket(AF_UNIX, 77, 0));
	R(socket(AF_UNIX, SOCK_STREAM, 5));
	R(socket(77, SOCK_STREAM, 0));
	R(listen(0x7777, 1));
	R(listen(0, 1));
	int p[2];
	pipe(p);
	R(send(p[1], "x", 1, 0));
	R(bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&a, 200));
	R(bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&a, 1));
}

static void passing(void) {
	int p[2], q[2], fds[300];
	socketpair(AF_UNIX, SOCK_STREAM, 0, p);
	pipe(q);
	R(sendfd(p[0], q, 2, "fd"));
	R(write(p[0], "tail", 4));
	show(p[1], 256, 0);
	show(p[1], 256, 0);
	R(write(lastfd, "x", 1));
	write(q[1], "y", 1);
	R(read(lastfd, buf, 1));
	R(sendfd(p[0], q, 2, "cut"));
	show(p[1], CMSG_SPACE(4) - 4, MSG_CMSG_CLOEXEC);
	R(sendfd(p[0], q, 1, "none"));
	show(p[1], 0, 0);
	R(sendfd(p[0], q, 1, "peek"));
	show(p[1], 256, MSG_PEEK);
	show(p[1], 256, 0);
	for (int i = 0; i < 300; i++) fds[i] = q[0];
	R(sendfd(p[0], fds, 253, "many"));
	show(p[1], 1024, 0);
	R(sendfd(p[0], fds, 254, "more"));
	fds[0] = 999;
	R(sendfd(p[0], fds, 1, "bad"));
	R(sendfd(p[0], q, 1, "left"));
	close(p[1]);
	close(p[0]);
	socketpair(AF_UNIX, SOCK_DGRAM, 0, p);
	int on = 1;
	R(setsockopt(p[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
	R(write(p[0], "cred", 4));
	show(p[1], 256, 0);
	fflush(stdout);
	if (!fork()) {
		write(p[0], "child", 5);
		_exit(0);
	}
	wait(0);
	show(p[1], 256, 0);
	R(sendfd(p[0], q, 1, "both"));
	show(p[1], 256, 0);
	// At the end of the connection, and of one whose peer has only stopped sending.
	for (int i = 0; i < 4; i++) {
		socketpair(AF_UNIX, i & 1 ? SOCK_SEQPACKET : SOCK_STREAM, 0, p);
		R(setsockopt(p[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
		if (i & 2)
			R(shutdown(p[0], SHUT_WR));
		else
			close(p[0]);
		show(p[1], 256, 0);
		show(p[1], 256, MSG_DONTWAIT | MSG_PEEK);
	}
}

int main(void) {
	signal(SIGPIPE, SIG_IGN);
	alarm(30);
	setvbuf(stdout, 0, _IOLBF, 0);
	streams();
	packets();
	names();
	passing();
	return 0;
}
