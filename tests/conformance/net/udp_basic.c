// UDP on the loopback interface: names, connect, errors, truncation, control messages, error queues, many at a time, multicast, ping.
#include "net.h"
#include <linux/errqueue.h>
#include <netinet/ip_icmp.h>
#include <netinet/udp.h>

static char buf[1 << 17];

static int udp(const char *a) {
	int s = socket(AF_INET, SOCK_DGRAM, 0);
	if (a) {
		struct sockaddr_in n = in4(a, 0);
		bind(s, SA(n));
	}
	return s;
}

static void plain(void) {
	int s = udp(0), t = udp("127.0.0.1");
	EV("fresh", s);
	P("name %s", name_of(s, 0));
	P("peer %s", name_of(s, 1));
	V(recv(s, buf, 1, MSG_DONTWAIT));
	V(send(s, "x", 1, 0));
	R(shutdown(s, SHUT_RD));
	R(listen(s, 1));
	R(accept(s, 0, 0));
	struct sockaddr_in a = in4("127.0.0.1", port_of(t)), f;
	VN("sendto", sendto(s, "hello", 5, 0, SA(a)));
	P("name %s", name_of(s, 0));
	until(t, POLLIN);
	EV("data", t);
	int n = -1;
	ioctl(t, FIONREAD, &n);
	P("FIONREAD %d", n);
	V(recv(t, buf, 2, MSG_PEEK));
	V(recv(t, buf, 2, MSG_PEEK | MSG_TRUNC));
	socklen_t l = sizeof f;
	VN("recvfrom cut", recvfrom(t, buf, 2, 0, (void *)&f, &l));
	P("from the sender: %d, length %d", ntohs(f.sin_port) == port_of(s), l);
	V(recv(t, buf, 2, MSG_DONTWAIT));
	VN("empty", sendto(s, 0, 0, 0, SA(a)));
	until(t, POLLIN);
	EV("an empty one", t);
	V(recv(t, buf, 10, 0));
	VN("too long", sendto(s, buf, 65508, 0, SA(a)));
	VN("much too long", sendto(s, buf, 100000, 0, SA(a)));
	VN("the longest", sendto(s, buf, 65507, 0, SA(a)));
	V(recv(t, buf, sizeof buf, 0));
	VN("no room", sendto(s, "abc", 3, 0, SA(a)));
	V(recv(t, buf, 0, 0));
	V(recv(t, buf, 1, MSG_DONTWAIT));
	VN("bad buffer", sendto(s, BAD, 3, 0, SA(a)));
	VN("short address", sendto(s, "x", 1, 0, (void *)&a, 8));
	a.sin_port = 0;
	VN("port 0", sendto(s, "x", 1, 0, SA(a)));
	a.sin_family = AF_INET6;
	VN("family", sendto(s, "x", 1, 0, SA(a)));
	V(sendto(s, "x", 1, MSG_OOB, SA(a)));
	close(s), close(t);
}

static void connected(void) {
	int s = udp(0), t = udp("127.0.0.1"), u = udp("127.0.0.1");
	struct sockaddr_in a = in4("127.0.0.1", port_of(t)), b;
	R(connect(s, SA(a)));
	P("name %s", name_of(s, 0));
	P("peer %s", name_of(s, 1));
	V(send(s, "x", 1, 0));
	V(recv(t, buf, 10, 0));
	b = in4("127.0.0.1", port_of(s));
	VN("from another", sendto(u, "no", 2, 0, SA(b)));
	VN("from the peer", sendto(t, "yes", 3, 0, SA(b)));
	V(recv(s, buf, 10, 0));
	V(recv(s, buf, 10, MSG_DONTWAIT));
	struct sockaddr un = {AF_UNSPEC};
	RN("unspec", connect(s, &un, sizeof un));
	P("peer %s", name_of(s, 1));
	V(send(s, "x", 1, 0));
	RN("again", connect(s, SA(a)));
	R(shutdown(s, SHUT_WR));
	V(send(s, "x", 1, MSG_NOSIGNAL));
	EV("shut for writing", s);
	R(shutdown(s, SHUT_RD));
	EV("shut", s);
	V(recv(s, buf, 1, 0));
	close(s), close(t), close(u);
}

static void refused(void) {
	int s = udp(0), t = udp("127.0.0.1");
	struct sockaddr_in a = in4("127.0.0.1", port_of(t));
	close(t);
	VN("not connected", sendto(s, "x", 1, 0, SA(a)));
	sleep_ms(10);
	EV("not connected", s);
	R(connect(s, SA(a)));
	V(send(s, "x", 1, 0));
	until(s, POLLERR);
	EV("refused", s);
	V(send(s, "x", 1, 0));
	V(recv(s, buf, 1, MSG_DONTWAIT));
	sleep_ms(10);
	int one = 1, err = 0;
	socklen_t n = 4;
	R(setsockopt(s, IPPROTO_IP, IP_RECVERR, &one, 4));
	getsockopt(s, SOL_SOCKET, SO_ERROR, &err, &n);
	V(send(s, "query", 5, 0));
	until(s, POLLERR);
	EV("with an error queue", s);
	char c[512];
	struct sockaddr_in f;
	struct iovec v = {buf, 100};
	struct msghdr m = {&f, sizeof f, &v, 1, c, sizeof c, 0};
	V(recvmsg(s, &m, MSG_ERRQUEUE));
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	struct sock_extended_err *e = (void *)CMSG_DATA(h);
	P("level %d type %d errno %s origin %d type %d code %d flags %x", h->cmsg_level, h->cmsg_type, conf_errno(e->ee_errno), e->ee_origin, e->ee_type,
	  e->ee_code, m.msg_flags);
	P("data %.5s, to the port: %d", buf, f.sin_port == a.sin_port);
	V(recvmsg(s, &m, MSG_ERRQUEUE));
	close(s);
}

static void controls(void) {
	int s = udp("127.0.0.1"), t = udp("0.0.0.0"), one = 1;
	setsockopt(t, SOL_SOCKET, SO_TIMESTAMP, &one, 4);
	setsockopt(t, IPPROTO_IP, IP_PKTINFO, &one, 4);
	setsockopt(t, IPPROTO_IP, IP_RECVTTL, &one, 4);
	setsockopt(t, IPPROTO_IP, IP_RECVTOS, &one, 4);
	struct sockaddr_in a = in4("127.0.0.1", port_of(t));
	sendto(s, "x", 1, 0, SA(a));
	char c[512];
	struct iovec v = {buf, 100};
	struct msghdr m = {0, 0, &v, 1, c, sizeof c, 0};
	V(recvmsg(t, &m, 0));
	for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
		P("level %d type %d length %d", h->cmsg_level, h->cmsg_type, (int)h->cmsg_len);
		if (h->cmsg_type == IP_TTL && h->cmsg_level == IPPROTO_IP)
			P("ttl %d", *(int *)CMSG_DATA(h));
		if (h->cmsg_type == IP_PKTINFO && h->cmsg_level == IPPROTO_IP) {
			struct in_pktinfo *p = (void *)CMSG_DATA(h);
			P("interface %d address %s", p->ipi_ifindex, inet_ntoa(p->ipi_addr));
		}
	}
	sendto(s, "x", 1, 0, SA(a));
	m.msg_controllen = 20;
	V(recvmsg(t, &m, 0));
	P("flags %x", m.msg_flags);
	close(s), close(t);
}

static void many(void) {
	int s = udp("127.0.0.1"), t = udp("127.0.0.1");
	struct sockaddr_in a = in4("127.0.0.1", port_of(t));
	struct mmsghdr m[4] = {0};
	struct iovec v[4];
	for (int i = 0; i < 4; i++) {
		v[i] = (struct iovec){buf + 10 * i, i + 1};
		m[i].msg_hdr = (struct msghdr){&a, sizeof a, &v[i], 1};
	}
	V(sendmmsg(s, m, 4, 0));
	P("lengths %d %d", m[0].msg_len, m[3].msg_len);
	for (int i = 0; i < 4; i++)
		m[i].msg_hdr.msg_name = 0, v[i].iov_len = 10;
	struct timespec ts = {1, 0};
	V(recvmmsg(t, m, 3, MSG_WAITFORONE, &ts));
	P("lengths %d %d", m[0].msg_len, m[2].msg_len);
	V(recvmmsg(t, m, 4, MSG_DONTWAIT, 0));
	V(recvmmsg(t, m, 4, MSG_DONTWAIT, 0));
	int one = 1, zero = 0;
	connect(s, SA(a));
	R(setsockopt(s, IPPROTO_UDP, UDP_CORK, &one, 4));
	V(send(s, "ab", 2, 0));
	V(send(s, "cd", 2, 0));
	V(recv(t, buf, 10, MSG_DONTWAIT));
	R(setsockopt(s, IPPROTO_UDP, UDP_CORK, &zero, 4));
	V(recv(t, buf, 10, 0));
	V(send(s, "ab", 2, MSG_MORE));
	V(send(s, "c", 1, 0));
	V(recv(t, buf, 10, 0));
	int seg = 4;
	R(setsockopt(s, IPPROTO_UDP, UDP_SEGMENT, &seg, 4));
	V(send(s, "aaaabbbbcc", 10, 0));
	V(recv(t, buf, 10, 0));
	V(recv(t, buf, 10, 0));
	V(recv(t, buf, 10, 0));
	close(s), close(t);
}

static void v6(void) {
	int s = socket(AF_INET6, SOCK_DGRAM, 0), t = socket(AF_INET6, SOCK_DGRAM, 0), one = 1;
	struct sockaddr_in6 a = in6("::1", 0), f;
	R(bind(t, SA(a)));
	R(setsockopt(t, IPPROTO_IPV6, IPV6_RECVPKTINFO, &one, 4));
	R(setsockopt(t, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, &one, 4));
	a.sin6_port = htons(port_of(t));
	VN("sendto", sendto(s, "x", 1, 0, SA(a)));
	char c[512], n[64];
	struct iovec v = {buf, 100};
	struct msghdr m = {&f, sizeof f, &v, 1, c, sizeof c, 0};
	V(recvmsg(t, &m, 0));
	P("from %s", inet_ntop(AF_INET6, &f.sin6_addr, n, sizeof n));
	for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h))
		P("level %d type %d length %d", h->cmsg_level, h->cmsg_type, (int)h->cmsg_len);
	int u = udp("127.0.0.1");
	struct sockaddr_in a4 = in4("127.0.0.1", port_of(u));
	VN("an IPv4 address", sendto(s, "y", 1, 0, SA(a4)));
	V(recv(u, buf, 10, 0));
	a = in6("::ffff:127.0.0.1", port_of(u));
	VN("a mapped address", sendto(s, "z", 1, 0, SA(a)));
	V(recv(u, buf, 10, 0));
	VN("short", sendto(s, "z", 1, 0, (void *)&a, 20));
	close(s), close(t), close(u);
}

static void timeouts(void) {
	int s = udp("127.0.0.1");
	struct timeval tv = {0, 20000};
	setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
	V(recv(s, buf, 1, 0));
	close(s);
}

// shut: what comes after shutdown(2) is received all the same; only a wait ends.
static void shut(void) {
	for (int linked = 0; linked < 2; linked++) {
		int s = udp("127.0.0.1"), t = udp("127.0.0.1");
		struct sockaddr_in a = in4("127.0.0.1", port_of(s)), b = in4("127.0.0.1", port_of(t));
		connect(t, SA(a));
		if (linked)
			connect(s, SA(b));
		send(t, "abc", 3, 0);
		R(shutdown(s, SHUT_RD));
		EV("shut, with data", s);
		V(recv(s, buf, 9, 0));
		EV("shut", s);
		V(recv(s, buf, 9, 0));
		V(recv(s, buf, 9, MSG_DONTWAIT));
		V(send(t, "abcd", 4, 0));
		V(recv(s, buf, 9, MSG_DONTWAIT));
		V(sendto(s, "ab", 2, 0, SA(b)));
		V(recv(t, buf, 9, 0));
		R(shutdown(s, SHUT_RDWR));
		V(sendto(s, "ab", 2, MSG_NOSIGNAL, SA(b)));
		V(send(t, "abcde", 5, 0));
		EV("shut for both", s);
		V(recv(s, buf, 9, MSG_DONTWAIT));
		close(s), close(t);
	}
}

static void ports(void) {
	int s = udp("127.0.0.1"), t = udp(0), one = 1;
	struct sockaddr_in a = in4("127.0.0.1", port_of(s));
	RN("in use", bind(t, SA(a)));
	setsockopt(t, SOL_SOCKET, SO_REUSEADDR, &one, 4);
	RN("one with reuseaddr", bind(t, SA(a)));
	close(s);
	R(bind(t, SA(a)));
	s = udp(0);
	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, 4);
	RN("both with reuseaddr", bind(s, SA(a)));
	P("ephemeral in range: %d", ({ int u = udp("127.0.0.1"), p = port_of(u); close(u); p >= 32768 && p <= 60999; }));
	close(s), close(t);
}

int main(void) {
	sub(plain);
	sub(connected);
	sub(refused);
	sub(controls);
	sub(many);
	sub(v6);
	sub(timeouts);
	sub(ports);
	sub(shut);
}
