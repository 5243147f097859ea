// Sockets: what is checked first, and what a pair tells that cannot be made (found by the fuzzer).
#include "conf.h"
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <netinet/in.h>

static void pair(const char *name, int family, int type, int proto) {
	int v[2] = {-5, -5};
	errno = 0;
	int r = socketpair(family, type, proto, v);
	P("%s: %s %d %d", name, r ? conf_errno(errno) : "ok", v[0], v[1]);
	if (!r)
		close(v[0]), close(v[1]);
}

int main(void) {
	struct sockaddr_un sa = {AF_UNIX, "none"};
	static char low[64];
	int d = open(".", O_RDONLY);
	H("before the kind of file");
	R(connect(-1, (void *)&sa, -1));
	R(connect(d, (void *)&sa, -1));
	R(connect(d, BAD, 8));
	R(connect(d, (void *)&sa, sizeof sa));
	R(bind(d, (void *)&sa, -1));
	R(accept4(-1, 0, 0, 1));
	R(accept4(d, 0, 0, 1));
	R(accept4(d, 0, 0, 0));
	R(SC(sendto, -1, low, -1L, 0, 0, 0));
	R(SC(recvfrom, -1, low, -1L, 0, 0, 0));
	R(SC(recvfrom, -1, -1L, 8L, 0, 0, 0));
	close(d);
	H("pairs that cannot be");
	pair("no family", 0, SOCK_STREAM, 0);
	pair("inet dgram", AF_INET, SOCK_DGRAM, 0);
	pair("inet seqpacket", AF_INET, SOCK_SEQPACKET, 0);
	pair("unix", AF_UNIX, SOCK_STREAM, 0);
	pair("unix proto", AF_UNIX, SOCK_STREAM, 5);
	pair("flags", AF_UNIX, SOCK_STREAM | 0x100, 0);
	R(SC(socketpair, 0, SOCK_STREAM, 0, BAD));
	R(SC(socketpair, AF_UNIX, SOCK_STREAM, 0, BAD));
	H("the length of an address is told first");
	int v[2];
	socketpair(AF_UNIX, SOCK_STREAM, 0, v);
	socklen_t n = 100;
	R(getpeername(v[0], BAD, &n));
	P("%u", n);
	return 0;
}
