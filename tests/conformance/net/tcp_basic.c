// TCP on the loopback interface: states, errors and readiness of connect, listen, accept, send, recv, shutdown, close.
#include "net.h"

static char big[1 << 16];

static void fresh(void) {
	int s = socket(AF_INET, SOCK_STREAM, 0);
	EV("fresh", s);
	V(recv(s, big, 1, MSG_DONTWAIT));
	V(send(s, big, 1, MSG_DONTWAIT | MSG_NOSIGNAL));
	R(shutdown(s, SHUT_WR));
	R(accept(s, 0, 0));
	P("name %s", name_of(s, 0));
	P("peer %s", name_of(s, 1));
	R(listen(s, 1));
	EV("listening", s);
	P("name %s", name_of(s, 0));
	V(recv(s, big, 1, MSG_DONTWAIT));
	struct sockaddr_in a = in4("127.0.0.1", 1);
	R(connect(s, SA(a)));
	nonblock(s);
	R(accept(s, 0, 0));
	R(shutdown(s, SHUT_RDWR));
	EV("listener shut", s);
	R(accept(s, 0, 0));
	close(s);
}

static void binding(void) {
	int s = socket(AF_INET, SOCK_STREAM, 0), t = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in a = in4("127.0.0.1", 0);
	RN("short", bind(s, (void *)&a, 15));
	RN("negative", bind(s, (void *)&a, -1));
	RN("bad pointer", bind(s, BAD, 16));
	a.sin_family = AF_INET6;
	RN("family", bind(s, SA(a)));
	a = in4("192.0.2.1", 0);
	RN("not ours", bind(s, SA(a)));
	a = in4("127.0.0.1", 0);
	R(bind(s, SA(a)));
	RN("twice", bind(s, SA(a)));
	a.sin_port = htons(port_of(s));
	RN("in use, not listening", bind(t, SA(a)));
	R(listen(s, 5));
	int one = 1;
	setsockopt(t, SOL_SOCKET, SO_REUSEADDR, &one, 4);
	RN("reuseaddr against a listener", bind(t, SA(a)));
	a.sin_addr.s_addr = htonl(0x7f000002);
	RN("another loopback address", bind(t, SA(a)));
	int u = socket(AF_INET, SOCK_STREAM, 0), v = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(u, SOL_SOCKET, SO_REUSEPORT, &one, 4);
	setsockopt(v, SOL_SOCKET, SO_REUSEPORT, &one, 4);
	a = in4("0.0.0.0", 0);
	R(bind(u, SA(a)));
	a.sin_port = htons(port_of(u));
	RN("reuseport", bind(v, SA(a)));
	R(listen(u, 1));
	R(listen(v, 1));
	close(s), close(t), close(u), close(v);
}

static void refused(void) {
	int l = listener(1);
	struct sockaddr_in a = in4("127.0.0.1", port_of(l));
	close(l);
	int s = socket(AF_INET, SOCK_STREAM, 0);
	RN("blocking", connect(s, SA(a)));
	EV("refused", s);
	RN("again", connect(s, SA(a)));
	close(s);
	s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	const char *e = EN(connect(s, SA(a)));
	P("non-blocking: %s", !strcmp(e, "ECONNREFUSED") ? "EINPROGRESS" : e);
	until(s, POLLOUT);
	EV("non-blocking refused", s);
	int err = 0;
	socklen_t n = sizeof err;
	getsockopt(s, SOL_SOCKET, SO_ERROR, &err, &n);
	P("SO_ERROR %s", conf_errno(err));
	getsockopt(s, SOL_SOCKET, SO_ERROR, &err, &n);
	P("SO_ERROR again %d", err);
	EV("after SO_ERROR", s);
	RN("connect after SO_ERROR", connect(s, SA(a)));
	close(s);
	s = socket(AF_INET, SOCK_STREAM, 0);
	RN("family", ({ a.sin_family = AF_INET6; connect(s, SA(a)); }));
	a.sin_family = AF_INET;
	RN("short", connect(s, (void *)&a, 10));
	a = in4("255.255.255.255", 80);
	RN("broadcast", connect(s, SA(a)));
	close(s);
	// A socket that failed can be connected again.
	s = socket(AF_INET, SOCK_STREAM, 0);
	a = in4("127.0.0.1", 1);
	RN("refused first", connect(s, SA(a)));
	l = listener(1);
	a = in4("127.0.0.1", port_of(l));
	RN("then accepted", connect(s, SA(a)));
	EV("connected", s);
	RN("is connected", connect(s, SA(a)));
	struct sockaddr un = {AF_UNSPEC};
	RN("unspec", connect(s, &un, sizeof un));
	EV("disconnected", s);
	P("peer %s", name_of(s, 1));
	RN("connect anew", connect(s, SA(a)));
	close(s), close(l);
}

static void any(void) {
	int l = socket(AF_INET, SOCK_STREAM, 0), s = socket(AF_INET, SOCK_STREAM, 0);
	listen(l, 1);
	struct sockaddr_in a = in4("0.0.0.0", port_of(l));
	RN("connect to 0.0.0.0", connect(s, SA(a)));
	P("peer %s", name_of(s, 1));
	P("name %s", name_of(s, 0));
	close(l), close(s);
}

static void data(void) {
	int p[2];
	tcp_pair(p);
	EV("connected", p[0]);
	V(send(p[0], "hello", 5, 0));
	until(p[1], POLLIN);
	EV("data", p[1]);
	int n = -1;
	ioctl(p[1], FIONREAD, &n);
	P("FIONREAD %d", n);
	V(recv(p[1], big, 2, MSG_PEEK));
	V(recv(p[1], big, 2, 0));
	V(recv(p[1], 0, 0, 0));
	V(recv(p[1], big, 10, MSG_TRUNC));
	V(recv(p[1], big, 1, MSG_DONTWAIT));
	V(recv(p[1], big, 1, MSG_OOB));
	V(recv(p[1], big, 1, MSG_ERRQUEUE));
	V(send(p[0], BAD, 5, 0));
	V(send(p[0], 0, 0, 0));
	struct sockaddr_in a = in4("127.0.0.1", 1);
	VN("sendto with an address", sendto(p[0], "abc", 3, 0, SA(a)));
	struct sockaddr_in from = {0};
	socklen_t l = sizeof from;
	VN("recvfrom", recvfrom(p[1], big, 3, MSG_WAITALL, (void *)&from, &l));
	P("address length %d", l);
	R(shutdown(p[0], SHUT_WR));
	until(p[1], POLLIN);
	EV("half closed, other", p[1]);
	EV("half closed, own", p[0]);
	V(recv(p[1], big, 1, 0));
	V(send(p[0], "x", 1, MSG_NOSIGNAL));
	V(send(p[1], "x", 1, 0));
	V(recv(p[0], big, 1, 0));
	R(shutdown(p[0], SHUT_WR));
	R(shutdown(p[1], SHUT_RDWR));
	until(p[0], POLLHUP);
	EV("closed both", p[0]);
	V(recv(p[0], big, 1, 0));
	R(shutdown(p[0], 3));
	R(shutdown(p[0], -1));
	close(p[0]), close(p[1]);
}

static void shut_read(void) {
	int p[2];
	tcp_pair(p);
	R(shutdown(p[0], SHUT_RD));
	EV("read side shut", p[0]);
	V(recv(p[0], big, 1, 0));
	V(send(p[1], "x", 1, 0));
	V(send(p[0], "x", 1, 0));
	V(recv(p[1], big, 1, 0));
	close(p[0]), close(p[1]);
}

static void reset(void) {
	int p[2];
	tcp_pair(p);
	V(send(p[0], "unread", 6, 0));
	until(p[1], POLLIN);
	close(p[1]);
	until(p[0], POLLHUP);
	EV("reset", p[0]);
	V(recv(p[0], big, 1, 0));
	V(recv(p[0], big, 1, 0));
	V(send(p[0], "x", 1, MSG_NOSIGNAL));
	P("peer %s", name_of(p[0], 1));
	close(p[0]);
	tcp_pair(p);
	struct linger lg = {1, 0};
	setsockopt(p[1], SOL_SOCKET, SO_LINGER, &lg, sizeof lg);
	close(p[1]);
	until(p[0], POLLHUP);
	EV("linger 0", p[0]);
	V(send(p[0], "x", 1, MSG_NOSIGNAL));
	V(send(p[0], "x", 1, MSG_NOSIGNAL));
	V(recv(p[0], big, 1, 0));
	close(p[0]);
	tcp_pair(p);
	close(p[1]);
	until(p[0], POLLIN);
	EV("closed by the other", p[0]);
	V(send(p[0], "x", 1, MSG_NOSIGNAL));
	until(p[0], POLLHUP);
	sleep_ms(20);
	EV("after writing to it", p[0]);
	V(send(p[0], "x", 1, MSG_NOSIGNAL));
	close(p[0]);
	catch (SIGPIPE, 0);
	tcp_pair(p);
	shutdown(p[0], SHUT_WR);
	V(write(p[0], "x", 1));
	close(p[0]), close(p[1]);
}

static void full(void) {
	int p[2];
	tcp_pair(p);
	nonblock(p[0]);
	long sent = 0, n;
	do {
		while ((n = send(p[0], big, sizeof big, 0)) > 0)
			sent += n;
		sleep_ms(30);
	} while (*events(p[0])); // what was sent may still be on its way
	send(p[0], big, 1, 0);
	P("full: %s", conf_errno(errno));
	EV("full", p[0]);
	pid_t k = fork();
	if (!k) {
		long got = 0;
		while (got < sent && (n = recv(p[1], big, sizeof big, 0)) > 0)
			got += n;
		_exit(got == sent ? 0 : 1);
	}
	until(p[0], POLLOUT);
	EV("room", p[0]);
	P("all arrived: %s", wait_for(k));
	close(p[0]), close(p[1]);
}

static void lowat(void) {
	int p[2], low = 4;
	tcp_pair(p);
	setsockopt(p[1], SOL_SOCKET, SO_RCVLOWAT, &low, 4);
	V(send(p[0], "ab", 2, 0));
	sleep_ms(20);
	EV("below the low-water mark", p[1]);
	V(recv(p[1], big, 10, MSG_DONTWAIT | MSG_PEEK));
	V(send(p[0], "cd", 2, 0));
	until(p[1], POLLIN);
	EV("at the mark", p[1]);
	V(recv(p[1], big, 10, 0));
	struct timeval tv = {0, 30000};
	setsockopt(p[1], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
	V(recv(p[1], big, 1, 0));
	close(p[0]), close(p[1]);
}

static void backlog(void) {
	int l = listener(1), ok = 0, s[4];
	struct sockaddr_in a = in4("127.0.0.1", port_of(l));
	for (int i = 0; i < 2; i++) {
		s[i] = socket(AF_INET, SOCK_STREAM, 0);
		ok += !connect(s[i], SA(a));
	}
	P("queued %d", ok);
	EV("listener", l);
	nonblock(l);
	int c = accept4(l, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC);
	P("accepted %d, flags %x, cloexec %d", c >= 0, fcntl(c, F_GETFL), fcntl(c, F_GETFD));
	R(accept4(l, 0, 0, 1));
	socklen_t n = 16;
	RN("accept with a bad address", accept(l, BAD, &n));
	RN("none left", accept(l, 0, 0));
	close(l);
	close(c), close(s[0]), close(s[1]);
}

static void v6(void) {
	int l = socket(AF_INET6, SOCK_STREAM, 0), s = socket(AF_INET, SOCK_STREAM, 0), on = -1;
	socklen_t n = 4;
	getsockopt(l, IPPROTO_IPV6, IPV6_V6ONLY, &on, &n);
	P("v6only %d", on);
	struct sockaddr_in6 a6 = in6("::", 0);
	R(bind(l, SA(a6)));
	R(listen(l, 1));
	struct sockaddr_in a = in4("127.0.0.1", port_of(l));
	RN("IPv4 to a dual-stack listener", connect(s, SA(a)));
	struct sockaddr_in6 from;
	n = sizeof from;
	int c = accept(l, (void *)&from, &n);
	char t[64];
	P("from %s, length %d", inet_ntop(AF_INET6, &from.sin6_addr, t, sizeof t), n);
	P("name %s", name_of(c, 0));
	close(s), close(c);
	s = socket(AF_INET6, SOCK_STREAM, 0);
	a6 = in6("::1", port_of(l));
	RN("IPv6", connect(s, SA(a6)));
	P("peer %s", name_of(s, 1));
	close(s);
	s = socket(AF_INET6, SOCK_STREAM, 0);
	a6 = in6("::ffff:127.0.0.1", port_of(l));
	RN("mapped", connect(s, SA(a6)));
	P("peer %s", name_of(s, 1));
	close(s), close(l);
	l = socket(AF_INET6, SOCK_STREAM, 0);
	on = 1;
	R(setsockopt(l, IPPROTO_IPV6, IPV6_V6ONLY, &on, 4));
	a6 = in6("::", 0);
	R(bind(l, SA(a6)));
	R(setsockopt(l, IPPROTO_IPV6, IPV6_V6ONLY, &on, 4));
	listen(l, 1);
	s = socket(AF_INET, SOCK_STREAM, 0);
	a = in4("127.0.0.1", port_of(l));
	RN("IPv4 to v6only", connect(s, SA(a)));
	RN("both families on a port", bind(s, SA(a)));
	RN("v6 address for a v4 socket", connect(s, SA(a6)));
	close(s);
	s = socket(AF_INET6, SOCK_STREAM, 0);
	RN("v4 address for a v6 socket", connect(s, SA(a)));
	RN("short v6 address", connect(s, (void *)&a6, 20));
	close(s), close(l);
}

static void kinds(void) {
	R(close(socket(AF_INET, SOCK_STREAM, IPPROTO_TCP)));
	R(close(socket(AF_INET, SOCK_DGRAM, IPPROTO_UDP)));
	R(socket(AF_INET, SOCK_STREAM, IPPROTO_UDP));
	R(socket(AF_INET, SOCK_DGRAM, IPPROTO_TCP));
	R(socket(AF_INET, SOCK_STREAM, 400));
	R(socket(AF_INET, SOCK_STREAM, -1));
	R(socket(AF_INET, SOCK_RDM, 0));
	R(socket(AF_INET, SOCK_RAW, 0));
	R(socket(AF_INET, 99, 0));
	R(socket(AF_INET6, SOCK_STREAM, IPPROTO_UDP));
	int p[2];
	R(socketpair(AF_INET, SOCK_STREAM, 0, p));
	R(close(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP)));
	R(close(socket(AF_INET, SOCK_RAW, IPPROTO_RAW)));
	R(close(socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6)));
}

static void edge(void) {
	int p[2], e = epoll_create1(0);
	tcp_pair(p);
	struct epoll_event ev = {EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET}, out;
	epoll_ctl(e, EPOLL_CTL_ADD, p[1], &ev);
	VN("writable at first", epoll_wait(e, &out, 1, 1000));
	P("events %x", out.events);
	VN("only once", epoll_wait(e, &out, 1, 20));
	send(p[0], "a", 1, 0);
	VN("data", epoll_wait(e, &out, 1, 1000));
	P("events %x", out.events);
	VN("still unread", epoll_wait(e, &out, 1, 20));
	send(p[0], "b", 1, 0);
	VN("more data", epoll_wait(e, &out, 1, 1000));
	P("events %x", out.events);
	shutdown(p[0], SHUT_WR);
	VN("end", epoll_wait(e, &out, 1, 1000));
	P("events %x", out.events);
	close(p[0]), close(p[1]), close(e);
}

static void interrupted(void) {
	int p[2];
	tcp_pair(p);
	catch (SIGUSR1, 0);
	pid_t k = after(30, SIGUSR1);
	V(recv(p[0], big, 1, 0));
	after_done(k);
	int l = listener(1);
	k = after(30, SIGUSR1);
	R(accept(l, 0, 0));
	after_done(k);
	struct timeval tv = {0, 30000};
	setsockopt(l, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
	R(accept(l, 0, 0));
	close(p[0]), close(p[1]), close(l);
}

// first sends more at once than the send buffer of a socket without connection holds.
static void first(void) {
	static char much[100 << 10];
	int p[2];
	tcp_pair(p);
	nonblock(p[0]), nonblock(p[1]);
	V(send(p[0], much, sizeof much, 0)), V(send(p[1], much, sizeof much, 0));
	close(p[0]), close(p[1]);
}

int main(void) {
	sub(kinds);
	sub(fresh);
	sub(binding);
	sub(refused);
	sub(any);
	sub(data);
	sub(shut_read);
	sub(reset);
	sub(full);
	sub(first);
	sub(lowat);
	sub(backlog);
	sub(v6);
	sub(edge);
	sub(interrupted);
}
