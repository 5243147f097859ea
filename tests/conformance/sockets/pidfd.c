// Descriptors of who sent a message: SO_PASSPIDFD and SCM_PIDFD of unix(7).
#include "conf.h"
#include <sys/socket.h>
#include <sys/un.h>
#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76
#endif

static void set(int s, int name, int on) { V(setsockopt(s, SOL_SOCKET, name, &on, sizeof on)); }

// of is the process that a pidfd is of: ours, the child's, gone.
static const char *of(int fd, pid_t child) {
	char name[64], b[512];
	sprintf(name, "/proc/self/fdinfo/%d", fd);
	FILE *f = fopen(name, "r");
	int pid = -2;
	while (f && fgets(b, sizeof b, f))
		sscanf(b, "Pid: %d", &pid);
	if (f)
		fclose(f);
	return pid == getpid() ? "ours" : pid == child ? "the child's" : pid == -1 ? "gone" : "another";
}

// got tells of a message and what came along, for which there is room.
static void got(const char *what, int s, size_t room, int flags, pid_t child) {
	char d[16], c[256];
	struct iovec v = {d, sizeof d};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = c, .msg_controllen = room};
	ssize_t n = recvmsg(s, &m, MSG_DONTWAIT | flags);
	if (n < 0) {
		P("%s: %s, control %zu", what, conf_errno(errno), m.msg_controllen);
		return;
	}
	P("%s: %.*s, flags %x, control %zu", what, (int)n, d, m.msg_flags, m.msg_controllen);
	for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
		int fd = *(int *)CMSG_DATA(h);
		P("- %d %d, %zu", h->cmsg_level, h->cmsg_type, h->cmsg_len);
		if (h->cmsg_type == 4 && h->cmsg_len == CMSG_LEN(4)) {
			if (fd < 0) {
				P("  %s", conf_errno(-fd));
				continue;
			}
			P("  %s, close on exec %d", of(fd, child), fcntl(fd, F_GETFD));
			close(fd);
		} else if (h->cmsg_type == SCM_RIGHTS && h->cmsg_len == CMSG_LEN(4)) {
			close(fd);
		}
	}
}

static void kind(int type) {
	int p[2], one[] = {1, 2};
	P("# %s", type == SOCK_STREAM ? "stream" : type == SOCK_DGRAM ? "datagrams" : "packets");
	V(socketpair(AF_UNIX, type, 0, p));
	V(send(p[0], "a", 1, 0)), set(p[1], SO_PASSPIDFD, 1), got("sent before", p[1], 256, 0, 0);
	V(send(p[0], "b", 1, 0)), got("peeked", p[1], 256, MSG_PEEK, 0), got("sent", p[1], 256, 0, 0);
	for (size_t room = 0; room < 28; room += 4)
		V(send(p[0], "c", 1, 0)), got("little room", p[1], room, 0, 0);
	V(send(p[0], "d", 1, 0)), set(p[1], SO_PASSPIDFD, 0), got("not wanted any more", p[1], 256, 0, 0);
	set(p[0], SO_PASSPIDFD, 1), V(send(p[0], "e", 1, 0)), set(p[1], SO_PASSPIDFD, 1), got("the sender wants it", p[1], 256, 0, 0), set(p[0], SO_PASSPIDFD, 0);
	got("nothing", p[1], 256, 0, 0);
	set(p[1], SO_PASSCRED, 1), V(send(p[0], "f", 1, 0)), got("with credentials", p[1], 256, 0, 0);
	char c[CMSG_SPACE(8)] = {0};
	struct iovec v = {"g", 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = c, .msg_controllen = sizeof c};
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	h->cmsg_level = SOL_SOCKET, h->cmsg_type = SCM_RIGHTS, h->cmsg_len = CMSG_LEN(4), memcpy(CMSG_DATA(h), one, 4);
	V(sendmsg(p[0], &m, 0)), got("with a descriptor", p[1], 256, 0, 0);
	set(p[1], SO_PASSCRED, 0);
	fflush(stdout);
	pid_t child = fork();
	if (!child) {
		send(p[0], "h", 1, 0), send(p[0], "i", 1, 0);
		pause();
	}
	sleep_ms(50);
	V(send(p[0], "j", 1, 0));
	got("a child's", p[1], 256, 0, child);
	kill(child, SIGKILL), waitpid(child, 0, 0);
	got("one's that is gone", p[1], 256, 0, child), got("ours behind it", p[1], 256, 0, child);
	struct rlimit l, none = {3, 3};
	getrlimit(RLIMIT_NOFILE, &l), none.rlim_max = l.rlim_max;
	V(send(p[0], "k", 1, 0)), setrlimit(RLIMIT_NOFILE, &none), got("no descriptor left", p[1], 256, 0, 0), setrlimit(RLIMIT_NOFILE, &l);
	close(p[0]), got("closed", p[1], 256, 0, 0), close(p[1]);
}

// peer is SO_PEERPIDFD.
static void peer(const char *what, int s, pid_t child) {
	int fd = -7;
	socklen_t n = sizeof fd;
	int r = getsockopt(s, SOL_SOCKET, 77, &fd, &n);
	P("%s: %s, %u", what, EN(r), n);
	if (!r) {
		P("%s, close on exec %d", of(fd, child), fcntl(fd, F_GETFD));
		close(fd);
	}
}

static void peers(void) {
	struct sockaddr_un a = {AF_UNIX};
	socklen_t n = sizeof a;
	int p[2], l = socket(AF_UNIX, SOCK_STREAM, 0), d = socket(AF_UNIX, SOCK_DGRAM, 0), on = 1;
	P("# SO_PEERPIDFD");
	V(socketpair(AF_UNIX, SOCK_STREAM, 0, p));
	peer("a pair", p[0], 0), peer("alone", l, 0), peer("datagrams", d, 0);
	V(setsockopt(l, SOL_SOCKET, 77, &on, 4));
	V(bind(l, (void *)&a, 2)), V(getsockname(l, (void *)&a, &n)), V(listen(l, 2)), peer("it listens", l, 0);
	fflush(stdout);
	pid_t child = fork();
	if (!child) {
		int s = socket(AF_UNIX, SOCK_STREAM, 0);
		connect(s, (void *)&a, n);
		peer("who listens", s, 0);
		fflush(stdout);
		pause();
	}
	int s = accept(l, 0, 0);
	sleep_ms(100);
	peer("who came", s, child);
	kill(child, SIGKILL), waitpid(child, 0, 0);
	peer("who came is gone", s, child);
	struct rlimit lim, none = {3, 3};
	getrlimit(RLIMIT_NOFILE, &lim), none.rlim_max = lim.rlim_max, setrlimit(RLIMIT_NOFILE, &none);
	peer("no descriptor left", s, child), setrlimit(RLIMIT_NOFILE, &lim);
	peer("inet", socket(AF_INET, SOCK_STREAM, 0), 0);
}

int main(void) {
	peers();
	kind(SOCK_STREAM), kind(SOCK_DGRAM), kind(SOCK_SEQPACKET);
	int s = socket(AF_INET, SOCK_DGRAM, 0);
	set(s, SO_PASSPIDFD, 1);
}
