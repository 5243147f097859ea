// What belongs to a network namespace: the values below /proc/sys/net, who may write them, and what they do; and where connections over lo come from.
#include "net.h"
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>

static const char *const ttl = "/proc/sys/net/ipv4/ip_default_ttl";

static void show(const char *what, const char *path) {
	char b[64] = {0};
	struct stat st;
	int f = open(path, O_RDONLY);
	int n = read(f, b, sizeof b - 1);
	fstat(f, &st);
	P("%s: %s, %d:%d, mode %o: %.*s", what, strrchr(path, '/') + 1, st.st_uid, st.st_gid, st.st_mode, n - 1, b);
	close(f);
}

static void put(const char *path, const char *v) {
	int f = open(path, O_WRONLY);
	if (f < 0) {
		P("open %s: %s", path, strerrorname_np(errno));
		return;
	}
	VN(path, write(f, v, strlen(v)));
	close(f);
}

static void up(void) {
	struct ifreq r = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int s = socket(AF_INET, SOCK_DGRAM, 0);
	VN("lo up", ioctl(s, SIOCSIFFLAGS, &r));
	close(s);
}

static void in_child(void (*f)(void)) {
	int st = 0;
	fflush(stdout);
	if (!fork()) {
		f();
		exit(0);
	}
	wait(&st);
	P("status %x", st);
}

// from is the source address of a connection of a type to an address.
static void from(int type, const char *to, const char *own) {
	struct sockaddr_in a = in4(to, 0);
	int l = socket(AF_INET, type, 0), s = socket(AF_INET, type, 0);
	bind(l, SA(a));
	listen(l, 1);
	if (own) {
		struct sockaddr_in b = in4(own, 0);
		bind(s, SA(b));
	}
	a.sin_port = htons(port_of(l));
	VN("connect", connect(s, SA(a)));
	socklen_t n = sizeof a;
	getsockname(s, (void *)&a, &n);
	P("to %s bound to %s: from %s", to, own ? own : "nothing", inet_ntoa(a.sin_addr));
	close(l), close(s);
}

// heard tells of the links that notifications say are gone.
static void heard(int s) {
	char b[16384];
	for (int n; (n = recv(s, b, sizeof b, MSG_DONTWAIT)) > 0;)
		for (struct nlmsghdr *h = (void *)b; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
			struct ifinfomsg *i = NLMSG_DATA(h);
			const char *name = "?";
			int left = IFLA_PAYLOAD(h);
			for (struct rtattr *a = IFLA_RTA(i); RTA_OK(a, left); a = RTA_NEXT(a, left))
				if (a->rta_type == IFLA_IFNAME)
					name = RTA_DATA(a);
			if (h->nlmsg_type == RTM_DELLINK)
				P("gone: %s, family %d, type %d, flags %x, change %x, of the message %x", name, i->ifi_family, i->ifi_type, i->ifi_flags, i->ifi_change, h->nlmsg_flags);
		}
}

// del removes a link by netlink.
static int del(int s, const char *name) {
	struct { struct nlmsghdr h; struct ifinfomsg i; } q = {{sizeof q, RTM_DELLINK, NLM_F_REQUEST | NLM_F_ACK, 1, 0}, {.ifi_index = if_nametoindex(name)}};
	struct { struct nlmsghdr h; struct nlmsgerr e; } r = {0};
	send(s, &q, sizeof q, 0);
	recv(s, &r, sizeof r, 0);
	errno = -r.e.error;
	return errno ? -1 : 0;
}

// A bridge is made, named, and removed.
static void bridges(int s) {
	static const struct { int how; const char *name; } c[] = {{SIOCBRADDBR, "br0"}, {SIOCBRADDBR, "br0"}, {SIOCBRADDBR, ""}, {SIOCBRADDBR, "."}, {SIOCBRADDBR, "a/b"}, {SIOCBRADDBR, "a b"},
		{SIOCBRADDBR, "a:b"}, {SIOCBRADDBR, "lo"}, {SIOCBRDELBR, "lo"}, {SIOCBRDELBR, "br1"}, {SIOCBRADDBR, "0123456789abcdefXYZ"}, {SIOCBRDELBR, "0123456789abcdef"}};
	for (unsigned i = 0; i < sizeof c / sizeof *c; i++) {
		char b[64] = {0};
		strcpy(b, c[i].name);
		VN(c[i].name, ioctl(s, c[i].how, b));
	}
	struct ifreq r = {.ifr_name = "br0"};
	V(ioctl(s, SIOCGIFFLAGS, &r));
	P("flags %x", r.ifr_flags);
	V(ioctl(s, SIOCGIFMTU, &r));
	P("MTU %d", r.ifr_mtu);
	r.ifr_flags = IFF_UP;
	V(ioctl(s, SIOCSIFFLAGS, &r));
	V(ioctl(s, SIOCBRDELBR, "br0\0           "));
	r.ifr_flags = 0;
	V(ioctl(s, SIOCSIFFLAGS, &r));
	V(ioctl(s, SIOCBRDELBR, "br0\0           "));
	V(ioctl(s, SIOCBRADDBR, (char *)8));
	V(ioctl(s, SIOCBRADDBR, "br4\0           "));
	V(ioctl(s, SIOCBRADDBR, "br5\0           "));
	r = (struct ifreq){.ifr_name = "br4", .ifr_mtu = 900};
	V(ioctl(s, SIOCSIFMTU, &r));
	r.ifr_mtu = 0;
	V(ioctl(s, SIOCGIFMTU, &r));
	P("MTU %d", r.ifr_mtu);
	int all = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE), ask = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
	struct sockaddr_nl nl = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK};
	V(bind(all, SA(nl)));
	V(del(ask, "br4"));
	heard(all);
	V(del(ask, "lo"));
	V(ioctl(s, SIOCBRDELBR, "br5\0           "));
	heard(all);
	V(ioctl(s, SIOCBRADDBR, "br2\0           "));
	V(setuid(1000));
	V(ioctl(s, SIOCBRADDBR, "br3\0           "));
	V(ioctl(s, SIOCBRDELBR, "br2\0           "));
}

static void bridged(void) {
	V(unshare(CLONE_NEWNET));
	bridges(socket(AF_INET, SOCK_DGRAM, 0));
}

static void inner(void) {
	V(unshare(CLONE_NEWNET));
	show("inner", ttl);
	put(ttl, "99"), show("inner", ttl);
	put("/proc/sys/net/ipv4/ip_local_port_range", "2000 2001"), show("inner", "/proc/sys/net/ipv4/ip_local_port_range");
	put("/proc/sys/net/ipv4/ip_unprivileged_port_start", "7"), show("inner", "/proc/sys/net/ipv4/ip_unprivileged_port_start");
	up();
	int s[3];
	for (int i = 0; i < 3; i++) {
		struct sockaddr_in a = in4("127.0.0.1", 0);
		s[i] = socket(AF_INET, SOCK_DGRAM, 0);
		VN("bind", bind(s[i], SA(a)));
	}
	for (int i = 0; i < 3; i++)
		close(s[i]);
	put("/proc/sys/net/ipv4/ip_local_port_range", "20000 30000");
	for (int t = SOCK_STREAM; t <= SOCK_DGRAM; t++)
		from(t, "127.0.0.1", 0), from(t, "127.0.0.2", 0), from(t, "127.9.9.9", 0), from(t, "127.0.0.3", "127.0.0.4"), from(t, "127.0.0.3", "0.0.0.0");
	V(setgid(1000));
	V(setuid(1000));
	put(ttl, "98");
	V(unshare(CLONE_NEWUSER | CLONE_NEWNET));
	put("/proc/self/setgroups", "deny"), put("/proc/self/uid_map", "0 1000 1"), put("/proc/self/gid_map", "0 1000 1");
	show("of an ordinary user", ttl);
	put(ttl, "77"), show("of an ordinary user", ttl);
	put("/proc/sys/kernel/pid_max", "4000");
}

int main(void) {
	if (getuid())
		return 0;
	V(unshare(CLONE_NEWNET));
	put(ttl, "88");
	in_child(inner);
	in_child(bridged);
	show("outer", ttl);
	show("outer", "/proc/sys/net/ipv4/ip_local_port_range");
	show("outer", "/proc/sys/net/ipv4/ip_unprivileged_port_start");
	return 0;
}
