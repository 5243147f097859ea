// What programs about sockets share.
#ifndef NET_H
#define NET_H
#include "conf.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

static UNUSED const char *events(int fd) {
	static char out[100];
	struct pollfd p = {fd, POLLIN | POLLOUT | POLLRDHUP | POLLPRI, 0};
	poll(&p, 1, 0);
	snprintf(out, sizeof out, "%s%s%s%s%s%s", p.revents & POLLIN ? "in " : "", p.revents & POLLOUT ? "out " : "", p.revents & POLLHUP ? "hup " : "",
			 p.revents & POLLRDHUP ? "rdhup " : "", p.revents & POLLERR ? "err " : "", p.revents & POLLPRI ? "pri " : "");
	return out;
}
#define EV(name, fd) P("%s: poll: %s", name, events(fd))

// until waits up to two seconds for events.
static UNUSED void until(int fd, int ev) {
	struct pollfd p = {fd, ev, 0};
	poll(&p, 1, 2000);
}

static UNUSED struct sockaddr_in in4(const char *a, int port) {
	struct sockaddr_in s = {.sin_family = AF_INET, .sin_port = htons(port)};
	inet_pton(AF_INET, a, &s.sin_addr);
	return s;
}
static UNUSED struct sockaddr_in6 in6(const char *a, int port) {
	struct sockaddr_in6 s = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	inet_pton(AF_INET6, a, &s.sin6_addr);
	return s;
}
static UNUSED int port_of(int fd) {
	struct sockaddr_storage s;
	socklen_t l = sizeof s;
	getsockname(fd, (void *)&s, &l);
	return ntohs(((struct sockaddr_in *)&s)->sin_port);
}
#define SA(a) (struct sockaddr *)&(a), sizeof(a)

static UNUSED int listener(int backlog) {
	int s = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in a = in4("127.0.0.1", 0);
	bind(s, SA(a));
	listen(s, backlog);
	return s;
}
// tcp_pair makes a connection over the loopback interface.
static UNUSED void tcp_pair(int p[2]) {
	int l = listener(1);
	struct sockaddr_in a = in4("127.0.0.1", port_of(l));
	p[0] = socket(AF_INET, SOCK_STREAM, 0);
	connect(p[0], SA(a));
	p[1] = accept(l, 0, 0);
	close(l);
}
static UNUSED int nonblock(int fd) { return fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK); }
static UNUSED const char *name_of(int fd, int peer) {
	static char b[100], t[64];
	struct sockaddr_storage s = {0};
	socklen_t l = sizeof s;
	if ((peer ? getpeername : getsockname)(fd, (void *)&s, &l))
		return conf_errno(errno);
	void *a = s.ss_family == AF_INET ? (void *)&((struct sockaddr_in *)&s)->sin_addr : (void *)&((struct sockaddr_in6 *)&s)->sin6_addr;
	snprintf(b, sizeof b, "%d %s %s %d", s.ss_family, inet_ntop(s.ss_family, a, t, sizeof t), ((struct sockaddr_in *)&s)->sin_port ? "port" : "none", l);
	return b;
}
#endif
