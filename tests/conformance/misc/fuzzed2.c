// What differential fuzzing found, the second part.
#include "conf.h"
#include <dirent.h>
#include <linux/futex.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include "net.h"

static char buf[8192];

// alone moves to a network namespace of its own, whose lo is up: names and ports are nobody else's.
static int alone(void) {
	struct ifreq r = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	return !getuid() && !unshare(CLONE_NEWNET) && !ioctl(socket(AF_INET, SOCK_DGRAM, 0), SIOCSIFFLAGS, &r);
}

static void unixsockets(void) {
	if (!alone())
		return;
	H("an abstract address is of one type of socket");
	struct sockaddr_un x = {AF_UNIX, "\0x"}, file = {AF_UNIX, "bound"}, lis = {AF_UNIX, "listens"};
	int s = socket(AF_UNIX, SOCK_STREAM, 0), q = socket(AF_UNIX, SOCK_SEQPACKET, 0), d = socket(AF_UNIX, SOCK_DGRAM, 0), l = socket(AF_UNIX, SOCK_STREAM, 0), p[2];
	V(bind(s, (void *)&x, 4)), V(bind(q, (void *)&x, 4)), V(bind(d, (void *)&x, 4)), V(bind(socket(AF_UNIX, SOCK_DGRAM, 0), (void *)&x, 4)), V(listen(s, 1)), V(connect(socket(AF_UNIX, SOCK_SEQPACKET, 0), (void *)&x, 4)), V(connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&x, 4)), V(connect(socket(AF_UNIX, SOCK_DGRAM, 0), (void *)&x, 4));
	H("connect(2) of what is connected");
	socketpair(AF_UNIX, SOCK_STREAM, 0, p);
	V(bind(l, (void *)&lis, sizeof lis)), V(listen(l, 1)), V(bind(p[0], (void *)&file, sizeof file)), V(connect(p[1], (void *)&file, sizeof file)), V(connect(p[1], (void *)&lis, sizeof lis)), V(connect(l, (void *)&lis, sizeof lis)), V(connect(l, (void *)&file, sizeof file));
	H("senders without a peer");
	for (int i = 0; i < 2; i++) {
		int t = i ? SOCK_SEQPACKET : SOCK_STREAM, u = socket(AF_UNIX, t, 0);
		struct { struct cmsghdr h; int fd[10]; } c = {{20, SOL_SOCKET, SCM_RIGHTS}, {-1}};
		struct msghdr m = {.msg_control = &c, .msg_controllen = 20};
		V(sendmsg(u, &m, MSG_DONTWAIT)), c.h.cmsg_len = 3, V(sendmsg(u, &m, MSG_DONTWAIT)), m.msg_control = BAD, V(sendmsg(u, &m, MSG_DONTWAIT)), V(shutdown(u, SHUT_RDWR)), V(send(u, "x", 1, MSG_NOSIGNAL)), V(send(u, "", 0, MSG_NOSIGNAL));
	}
	H("a datagram's receiver turns to another");
	struct sockaddr_un y = {AF_UNIX, "\0y"};
	int o = socket(AF_UNIX, SOCK_DGRAM, 0);
	bind(o, (void *)&y, 4);
	for (int i = 0; i < 2; i++) {
		socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, p);
		if (i)
			send(p[1], "abc", 3, 0);
		V(connect(p[0], (void *)&y, 4)), V(read(p[1], buf, 9)), V(read(p[1], buf, 9)), V(read(p[0], buf, 9)), V(send(p[1], "x", 1, 0));
	}
	H("a socket's attribute");
	int in[] = {s, q, d, socket(AF_INET, SOCK_STREAM, 0), socket(AF_INET6, SOCK_DGRAM, 0)};
	for (int i = 0; i < 5; i++) {
		memset(buf, 0, 64);
		V(flistxattr(in[i], buf, 100)), P("%s", buf), V(flistxattr(in[i], 0, 0)), V(flistxattr(in[i], buf, 20)), memset(buf, 0, 64), V(fgetxattr(in[i], "system.sockprotoname", buf, 100)), P("%s", buf), V(fgetxattr(in[i], "system.sockprotoname", buf, 2)), V(fgetxattr(in[i], "system.x", buf, 2)), V(fgetxattr(in[i], "user.x", buf, 2)), V(fsetxattr(in[i], "system.sockprotoname", "a", 1, 0));
	}
}

static void inet(void) {
	if (!alone())
		return;
	H("shutdown(2) of UDP");
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(7031), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, b = a;
	int u = socket(AF_INET, SOCK_DGRAM, 0), n = 1, z = 0, t = socket(AF_INET, SOCK_STREAM, 0);
	V(shutdown(u, SHUT_RDWR)), V(recv(u, buf, 9, MSG_DONTWAIT)), V(recv(u, buf, 9, 0)), V(recv(u, buf, 0, MSG_DONTWAIT)), V(sendto(u, "x", 1, MSG_NOSIGNAL, (void *)&a, sizeof a));
	u = socket(AF_INET, SOCK_DGRAM, 0);
	V(connect(u, (void *)&a, sizeof a)), V(shutdown(u, SHUT_WR)), V(send(u, "x", 1, MSG_NOSIGNAL)), V(recv(u, buf, 9, MSG_DONTWAIT)), V(shutdown(u, SHUT_RD)), V(recv(u, buf, 9, MSG_DONTWAIT)), V(recv(u, buf, 9, 0));
	H("options");
	socklen_t len = 4;
	V(recv(t, buf, 0, MSG_DONTWAIT)), V(recv(t, buf, 0, 0)), V(setsockopt(u, SOL_SOCKET, 14, &n, 4)), V(getsockopt(u, SOL_SOCKET, 14, &n, &len)), n = 1, V(setsockopt(u, 0, 5, &n, 4)), V(setsockopt(t, 0, 5, &z, 4)), n = 7, V(getsockopt(t, 0, 5, &n, &len)), P("%d", n);
	static const int ip[] = {1, 2, 6, 8, 10, 11, 12, 13, 15, 18, 19, 20, 21, 22, 23, 24, 49};
	for (int i = 0; i < 17; i++)
		P("%d: %d", ip[i], setsockopt(u, 0, ip[i], &n, 0) ? errno : 0);
	H("after a connection was refused");
	V(connect(t, (void *)&a, sizeof a)), V(send(t, "x", 1, MSG_NOSIGNAL)), V(recv(t, buf, 9, MSG_DONTWAIT)), V(recv(t, buf, 9, 0)), b.sin_port = htons(7032), V(bind(t, (void *)&b, sizeof b)), V(connect(t, (void *)&a, sizeof a)), V(getsockopt(t, SOL_SOCKET, SO_ERROR, &n, &len)), P("%d", n);
	t = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	V(connect(t, (void *)&a, sizeof a)), sleep_ms(20), V(send(t, "x", 1, MSG_NOSIGNAL)), V(recv(t, buf, 9, 0)), V(recv(t, buf, 9, 0)), V(send(t, "x", 1, MSG_NOSIGNAL)), V(connect(t, (void *)&a, sizeof a)), sleep_ms(20), V(bind(t, (void *)&b, sizeof b));
	t = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	V(connect(t, (void *)&a, sizeof a)), sleep_ms(20), V(connect(t, (void *)&a, 8)), V(connect(t, (void *)&a, 8)), V(recv(t, buf, 9, 0));
	int l = socket(AF_INET, SOCK_STREAM, 0);
	V(bind(l, (void *)&a, sizeof a)), V(listen(l, 1)), sleep_ms(1), V(connect(t, (void *)&a, sizeof a)), sleep_ms(20), V(connect(t, (void *)&a, sizeof a));
}

static void maps(void) {
	char *p = mmap(0, 1 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	munmap(p, 1 << 20), p += 65536;
	mmap(p + 4096, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	V(madvise(p, 16384, MADV_REMOVE)), V(madvise(p, 4096, MADV_REMOVE)), V(madvise(p, 16384, 25)), V(madvise(p + 4096, 8192, 25)), V(madvise(p, 4096, 25)), V(madvise(p + 4096, 0, 25));
	mmap(p + 4096, 65536, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	p[4096] = 1, V(madvise(p, 16384, MADV_REMOVE)), P("%d", p[4096]), p[4096] = 1, mprotect(p + 4096, 65536, PROT_READ), V(madvise(p + 4096, 16384, MADV_REMOVE)), P("%d", p[4096]);
	H("another process' stack does not grow");
	p = mmap(0, 1 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	munmap(p, 1 << 20), p += 65536;
	mmap(p, 16384, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_GROWSDOWN, -1, 0);
	munmap(p, 8192);
	struct iovec me = {buf, 4096}, it = {p + 4096, 4096};
	V(process_vm_readv(getpid(), &me, 1, &it, 1, 0)), V(process_vm_writev(getpid(), &me, 1, &it, 1, 0));
	int f = open("/proc/self/mem", O_RDWR);
	V(pread(f, buf, 1, (off_t)p + 4096)), V(pwrite(f, buf, 1, (off_t)p + 4096)), close(f), V(getcwd(p + 4096, 4096) != 0);
}

static uint32_t word;
static volatile pid_t waiting;
static void *waiter(void *p) {
	waiting = SC(gettid);
	SC(futex, &word, FUTEX_WAIT, 0, 0, 0, 0);
	return 0;
}

static void calls(void) {
	V(SC(getrlimit, 12, 0L)), V(SC(getrlimit, 99, 0L)), V(SC(prlimit64, -1, 0, BAD, 0)), V(SC(prlimit64, -1, 99, 0L, 0)), V(SC(prlimit64, 0, 99, BAD, 0L)), V(SC(prlimit64, 0, 99, 0L, 0L)), V(SC(setrlimit, 99, BAD));
	pthread_t t;
	pthread_create(&t, 0, waiter, 0);
	for (char name[64], st[100] = ""; !strstr(st, ") S ");) {
		snprintf(name, sizeof name, "/proc/self/task/%d/stat", waiting);
		int f = open(name, O_RDONLY);
		st[f < 0 ? 0 : read(f, st, 99)] = 0, close(f);
	}
	V(SC(futex, &word, FUTEX_LOCK_PI, 0, 0, 0, 0)), V(SC(futex, &word, FUTEX_TRYLOCK_PI, 0, 0, 0, 0)), P("%u", word), SC(futex, &word, FUTEX_WAKE, 1, 0, 0, 0), pthread_join(t, 0), V(SC(futex, &word, FUTEX_LOCK_PI, 0, 0, 0, 0)), V(SC(futex, &word, FUTEX_UNLOCK_PI, 0, 0, 0, 0));
	struct { uint64_t val, addr; uint32_t flags, r; } w[2] = {{5, (uint64_t)&word, 2}, {0, (uint64_t)&word + 2, 2}};
	V(SC(futex_waitv, w, 2, 0, 0, 0)), w[1].addr = (uint64_t)BAD & -4, V(SC(futex_waitv, w, 2, 0, 0, 0)), w[1].flags = 0x82, V(SC(futex_waitv, w, 2, 0, 0, 0));
	if (!fork()) {
		int f = file("mine", "");
		fchmod(f, 0600), setfsuid(1000), V(setresuid(-1, -1, getuid() ? -1 : 0)), P("%d", setfsuid(-1) == getuid()), V(setresuid(-1, geteuid(), -1)), P("%d", setfsuid(-1) == getuid());
		setfsgid(1000), V(setresgid(-1, -1, -1)), P("%d", setfsgid(-1) == getgid()), V(setresgid(-1, getegid(), -1)), P("%d", setfsgid(-1) == getgid()), setfsuid(1000), V(setreuid(-1, -1)), P("%d", setfsuid(-1) == getuid()), setfsuid(1000), V(setuid(getuid())), P("%d", setfsuid(-1) == getuid());
		_exit(0);
	}
	wait(0);
	static const char *names[] = {"/proc/self/task", "/proc/self/fd", "/proc/self/fdinfo", "/proc/self/ns", "/proc/self/status"}, *dirs[] = {"/proc/self", "/proc/thread-self"};
	for (int i = 0; i < 5; i++) {
		struct stat st;
		stat(names[i], &st), P("%s %lo %ld %ld", names[i], (long)st.st_mode, (long)st.st_nlink, (long)st.st_blocks);
	}
	for (int i = 0; i < 2; i++) {
		struct stat st;
		int n = 2;
		DIR *d = opendir(dirs[i]);
		for (struct dirent *e; (e = readdir(d));)
			n += e->d_type == DT_DIR && e->d_name[0] != '.';
		stat(dirs[i], &st), P("%s has a link for each directory: %d", dirs[i], n == st.st_nlink);
	}
	struct { unsigned bytes; int type; char h[128]; } h = {0};
	int id;
	file("here", "");
	V(SC(name_to_handle_at, AT_FDCWD, "none", &h, &id, 0)), V(SC(name_to_handle_at, -1, "none", &h, &id, 0)), V(SC(name_to_handle_at, AT_FDCWD, "here/x", &h, &id, 0)), V(SC(name_to_handle_at, AT_FDCWD, "/proc/self/status", &h, &id, 0)), V(SC(name_to_handle_at, AT_FDCWD, "none", &h, &id, 0x4000)), V(SC(name_to_handle_at, AT_FDCWD, BAD, &h, &id, 0)), V(SC(name_to_handle_at, AT_FDCWD, "", &h, &id, 0));
	int z = open("/dev/null", O_RDWR), z2 = open("/dev/zero", O_RDWR);
	V(SC(sendfile, z, z, 0, 512)), V(SC(sendfile, 99, z, 0, 512)), V(SC(sendfile, z, z2, 0, 512));
}

int main(void) { sub(unixsockets), sub(inet), sub(maps), sub(calls); }
