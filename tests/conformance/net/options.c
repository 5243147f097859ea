// Options of sockets of the inet families: defaults, what is set, what is refused.
#include "net.h"
#include <netinet/udp.h>

#define G(s, level, name) get(s, level, name, #level " " #name)
#define S(s, level, name, v) set(s, level, name, v, #level " " #name)

static void get(int s, int level, int name, const char *text) {
	int v = -99;
	socklen_t n = 4;
	if (getsockopt(s, level, name, &v, &n))
		P("get %s: %s", text, conf_errno(errno));
	else
		P("get %s: %d, length %d", text, v, n);
}
static void set(int s, int level, int name, int v, const char *text) {
	int e = setsockopt(s, level, name, &v, 4);
	P("set %s %d: %s", text, v, e ? conf_errno(errno) : "ok");
	get(s, level, name, text);
}

static void tcp_options(void) {
	int s = socket(AF_INET, SOCK_STREAM, 0);
	G(s, SOL_SOCKET, SO_TYPE), G(s, SOL_SOCKET, SO_DOMAIN), G(s, SOL_SOCKET, SO_PROTOCOL), G(s, SOL_SOCKET, SO_ACCEPTCONN);
	G(s, SOL_SOCKET, SO_ERROR), G(s, SOL_SOCKET, SO_KEEPALIVE), G(s, SOL_SOCKET, SO_SNDBUF);
	S(s, SOL_SOCKET, SO_KEEPALIVE, 1), S(s, SOL_SOCKET, SO_REUSEADDR, 5), S(s, SOL_SOCKET, SO_REUSEPORT, 1);
	S(s, SOL_SOCKET, SO_SNDBUF, 10000), S(s, SOL_SOCKET, SO_RCVBUF, 20000), S(s, SOL_SOCKET, SO_SNDBUF, 1), S(s, SOL_SOCKET, SO_RCVBUF, 1);
	S(s, SOL_SOCKET, SO_RCVLOWAT, 3), S(s, SOL_SOCKET, SO_RCVLOWAT, 0), S(s, SOL_SOCKET, SO_OOBINLINE, 1);
	S(s, SOL_SOCKET, SO_PRIORITY, 3), S(s, SOL_SOCKET, SO_PRIORITY, 7), S(s, SOL_SOCKET, 9999, 1);
	G(s, IPPROTO_TCP, TCP_NODELAY), G(s, IPPROTO_TCP, TCP_CORK), G(s, IPPROTO_TCP, TCP_QUICKACK), G(s, IPPROTO_TCP, TCP_SYNCNT), G(s, IPPROTO_TCP, TCP_DEFER_ACCEPT), G(s, IPPROTO_TCP, TCP_LINGER2), G(s, IPPROTO_TCP, TCP_USER_TIMEOUT);
	S(s, IPPROTO_TCP, TCP_NODELAY, 1), S(s, IPPROTO_TCP, TCP_NODELAY, 0), S(s, IPPROTO_TCP, TCP_CORK, 1), S(s, IPPROTO_TCP, TCP_CORK, 0);
	G(s, IPPROTO_TCP, TCP_KEEPIDLE), G(s, IPPROTO_TCP, TCP_KEEPINTVL), G(s, IPPROTO_TCP, TCP_KEEPCNT);
	S(s, IPPROTO_TCP, TCP_KEEPIDLE, 10), S(s, IPPROTO_TCP, TCP_KEEPIDLE, 0), S(s, IPPROTO_TCP, TCP_KEEPIDLE, 32768), S(s, IPPROTO_TCP, TCP_KEEPINTVL, 11);
	S(s, IPPROTO_TCP, TCP_KEEPCNT, 12), S(s, IPPROTO_TCP, TCP_KEEPCNT, 128), S(s, IPPROTO_TCP, TCP_SYNCNT, 3), S(s, IPPROTO_TCP, TCP_SYNCNT, 0);
	S(s, IPPROTO_TCP, TCP_USER_TIMEOUT, 1234), S(s, IPPROTO_TCP, TCP_USER_TIMEOUT, -1), S(s, IPPROTO_TCP, TCP_LINGER2, 7);
	S(s, IPPROTO_TCP, TCP_QUICKACK, 1), S(s, IPPROTO_TCP, TCP_MAXSEG, 1000), S(s, IPPROTO_TCP, TCP_MAXSEG, 5), S(s, IPPROTO_TCP, TCP_NOTSENT_LOWAT, 4096);
	S(s, IPPROTO_TCP, 999, 1), S(s, IPPROTO_UDP, UDP_CORK, 1), S(s, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	char cc[16];
	socklen_t n = 16;
	R(setsockopt(s, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
	VN("congestion", getsockopt(s, IPPROTO_TCP, TCP_CONGESTION, cc, &n));
	P("%s %d", cc, n);
	R(setsockopt(s, IPPROTO_TCP, TCP_CONGESTION, "nosuch", 6));
	R(setsockopt(s, IPPROTO_TCP, TCP_NODELAY, "x", 1));
	R(setsockopt(s, IPPROTO_TCP, TCP_NODELAY, BAD, 4));
	R(setsockopt(s, IPPROTO_TCP, TCP_NODELAY, cc, -1));
	struct linger lg = {1, 5};
	R(setsockopt(s, SOL_SOCKET, SO_LINGER, &lg, sizeof lg));
	n = sizeof lg;
	getsockopt(s, SOL_SOCKET, SO_LINGER, &lg, &n);
	P("linger %d %d", lg.l_onoff, lg.l_linger);
	R(setsockopt(s, SOL_SOCKET, SO_LINGER, &lg, 4));
	struct tcp_info ti;
	n = sizeof ti;
	R(getsockopt(s, IPPROTO_TCP, TCP_INFO, &ti, &n));
	P("state %d", ti.tcpi_state);
	close(s);
	int p[2];
	tcp_pair(p);
	n = sizeof ti;
	getsockopt(p[0], IPPROTO_TCP, TCP_INFO, &ti, &n);
	P("connected state %d", ti.tcpi_state);
	G(p[0], IPPROTO_IP, IP_MTU);
	close(p[0]), close(p[1]);
}

static void inherited(void) {
	int l = socket(AF_INET, SOCK_STREAM, 0), s = socket(AF_INET, SOCK_STREAM, 0);
	S(l, IPPROTO_TCP, TCP_NODELAY, 1), S(l, SOL_SOCKET, SO_KEEPALIVE, 1), S(l, IPPROTO_TCP, TCP_KEEPIDLE, 99);
	struct timeval tv = {3, 0};
	setsockopt(l, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
	listen(l, 1);
	G(l, SOL_SOCKET, SO_ACCEPTCONN);
	struct sockaddr_in a = in4("127.0.0.1", port_of(l));
	connect(s, SA(a));
	int c = accept(l, 0, 0);
	G(c, IPPROTO_TCP, TCP_NODELAY), G(c, SOL_SOCKET, SO_KEEPALIVE), G(c, IPPROTO_TCP, TCP_KEEPIDLE), G(c, SOL_SOCKET, SO_ACCEPTCONN);
	socklen_t n = sizeof tv;
	getsockopt(c, SOL_SOCKET, SO_RCVTIMEO, &tv, &n);
	P("timeout %ld", (long)tv.tv_sec);
	close(l), close(s), close(c);
}

static void ip_options(void) {
	int s = socket(AF_INET, SOCK_DGRAM, 0);
	G(s, IPPROTO_IP, IP_TTL), G(s, IPPROTO_IP, IP_TOS), G(s, IPPROTO_IP, IP_MULTICAST_TTL), G(s, IPPROTO_IP, IP_MULTICAST_LOOP);
	S(s, IPPROTO_IP, IP_TTL, 33), S(s, IPPROTO_IP, IP_TTL, 0), S(s, IPPROTO_IP, IP_TTL, 256), S(s, IPPROTO_IP, IP_TTL, -1);
	S(s, IPPROTO_IP, IP_TOS, 0x10), S(s, IPPROTO_IP, IP_TOS, 300), S(s, IPPROTO_IP, IP_TOS, -1), S(s, IPPROTO_IP, IP_TOS, INT_MAX), S(s, IPPROTO_IP, IP_MULTICAST_TTL, 5), S(s, IPPROTO_IP, IP_MULTICAST_TTL, -1), S(s, IPPROTO_IP, IP_MULTICAST_LOOP, 0);
	S(s, IPPROTO_IP, IP_PKTINFO, 1), S(s, IPPROTO_IP, IP_RECVTTL, 1), S(s, IPPROTO_IP, IP_RECVTOS, 1), S(s, IPPROTO_IP, IP_RECVERR, 1);
	S(s, IPPROTO_IP, IP_MTU_DISCOVER, 2), S(s, IPPROTO_IP, IP_MTU_DISCOVER, 9), S(s, IPPROTO_IP, IP_FREEBIND, 1), S(s, IPPROTO_IP, 150, 1);
	S(s, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1), S(s, IPPROTO_IP, IP_HDRINCL, 1), G(s, IPPROTO_IP, IP_MTU), G(s, IPPROTO_TCP, TCP_NODELAY);
	S(s, SOL_SOCKET, SO_BROADCAST, 1), S(s, IPPROTO_UDP, UDP_CORK, 0);
	R(setsockopt(s, IPPROTO_IP, IP_TTL, "\x07", 1));
	unsigned char b = 0;
	socklen_t n = 1;
	getsockopt(s, IPPROTO_IP, IP_TTL, &b, &n);
	P("one byte %d %d", b, n);
	struct ip_mreq m = {{inet_addr("239.1.2.3")}, {inet_addr("127.0.0.1")}};
	R(setsockopt(s, IPPROTO_IP, IP_ADD_MEMBERSHIP, &m, sizeof m));
	RN("twice", setsockopt(s, IPPROTO_IP, IP_ADD_MEMBERSHIP, &m, sizeof m));
	R(setsockopt(s, IPPROTO_IP, IP_DROP_MEMBERSHIP, &m, sizeof m));
	RN("dropped twice", setsockopt(s, IPPROTO_IP, IP_DROP_MEMBERSHIP, &m, sizeof m));
	m.imr_multiaddr.s_addr = inet_addr("10.0.0.1");
	RN("not multicast", setsockopt(s, IPPROTO_IP, IP_ADD_MEMBERSHIP, &m, sizeof m));
	R(setsockopt(s, SOL_SOCKET, SO_BINDTODEVICE, "lo", 2));
	char d[16] = "";
	n = 16;
	R(getsockopt(s, SOL_SOCKET, SO_BINDTODEVICE, d, &n));
	P("device %s %d", d, n);
	R(setsockopt(s, SOL_SOCKET, SO_BINDTODEVICE, "nosuch", 7));
	R(setsockopt(s, SOL_SOCKET, SO_BINDTODEVICE, "", 0));
	close(s);
}

static void tcp_tos(void) {
	int s = socket(AF_INET, SOCK_STREAM, 0), s6 = socket(AF_INET6, SOCK_STREAM, 0);
	S(s, IPPROTO_IP, IP_TOS, 0x1f), S(s, IPPROTO_IP, IP_TOS, 0x1ff), S(s, IPPROTO_IP, IP_TOS, -1);
	S(s6, IPPROTO_IPV6, IPV6_TCLASS, 0x1f), S(s6, IPPROTO_IPV6, IPV6_TCLASS, -1), S(s6, IPPROTO_IPV6, IPV6_TCLASS, 0x1ff);
	close(s), close(s6);
}

static void ip6_options(void) {
	int s = socket(AF_INET6, SOCK_DGRAM, 0);
	G(s, IPPROTO_IPV6, IPV6_UNICAST_HOPS), G(s, IPPROTO_IPV6, IPV6_MULTICAST_HOPS), G(s, IPPROTO_IPV6, IPV6_V6ONLY), G(s, IPPROTO_IPV6, IPV6_TCLASS);
	S(s, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 12), S(s, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 256), S(s, IPPROTO_IPV6, IPV6_UNICAST_HOPS, -1);
	S(s, IPPROTO_IPV6, IPV6_V6ONLY, 1), S(s, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1), S(s, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1), S(s, IPPROTO_IPV6, IPV6_RECVTCLASS, 1);
	S(s, IPPROTO_IPV6, IPV6_TCLASS, 8), S(s, IPPROTO_IPV6, IPV6_TCLASS, 300), S(s, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, 0), S(s, IPPROTO_IPV6, IPV6_MULTICAST_IF, 1);
	S(s, IPPROTO_IP, IP_TTL, 9), S(s, IPPROTO_IPV6, 250, 1);
	R(setsockopt(s, IPPROTO_IPV6, IPV6_UNICAST_HOPS, "\x07", 1));
	struct ipv6_mreq m = {0};
	inet_pton(AF_INET6, "ff02::1234", &m.ipv6mr_multiaddr);
	m.ipv6mr_interface = 1;
	R(setsockopt(s, IPPROTO_IPV6, IPV6_JOIN_GROUP, &m, sizeof m));
	R(setsockopt(s, IPPROTO_IPV6, IPV6_LEAVE_GROUP, &m, sizeof m));
	close(s);
}

int main(void) {
	sub(tcp_options);
	sub(inherited);
	sub(ip_options);
	sub(tcp_tos);
	sub(ip6_options);
}
