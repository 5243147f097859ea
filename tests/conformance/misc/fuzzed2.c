// What differential fuzzing found, the second part.
#include "conf.h"
#include <dirent.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/shm.h>
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

static void packets(void) {
	if (!alone())
		return;
	H("what is asked of a datagram or packet before who gets it");
	struct sockaddr_un none = {AF_UNIX, "\0none"}, file = {AF_UNIX, "nofile"};
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(7033), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int d = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0), p[2], on = 1;
	V(SC(sendto, d, buf, 0x80000000, 0, 0, 0)), V(sendto(d, buf, 3, 0, 0, 0)), V(SC(sendto, d, BAD, 3, 0, &none, 8)), V(SC(sendto, d, BAD, 3, 0, 0, 0)), V(sendto(d, buf, 3, 0, (void *)&none, 8)), V(sendto(d, buf, 3, 0, (void *)&file, 9)), V(sendto(d, buf, 3, 0, (void *)&in, sizeof in)), V(shutdown(d, SHUT_RDWR)), V(sendto(d, buf, 3, MSG_NOSIGNAL, (void *)&none, 8)), V(recv(d, buf, 9, 0)), V(read(d, buf, 9)), fcntl(d, F_SETFL, 0), V(recv(d, buf, 9, MSG_DONTWAIT)), V(recv(d, buf, 9, 0)), V(read(d, buf, 9));
	H("write(2) to a SEQPACKET socket whose other end is gone");
	socketpair(AF_UNIX, SOCK_SEQPACKET, 0, p), close(p[0]), catch(SIGPIPE, 0), conf_got = 0, V(write(p[1], "x", 1)), P("%d", conf_got), V(send(p[1], "x", 1, 0)), P("%d", conf_got), V(recv(p[1], buf, 9, MSG_DONTWAIT));
	socketpair(AF_UNIX, SOCK_STREAM, 0, p), close(p[0]), V(write(p[1], "x", 1)), P("%d", conf_got);
	H("SO_PASSCRED binds before connect(2) looks for anybody");
	int s = socket(AF_UNIX, SOCK_STREAM, 0);
	V(setsockopt(s, SOL_SOCKET, SO_PASSCRED, &on, 4)), V(listen(s, 1)), V(connect(s, (void *)&none, 1)), V(listen(s, 1)), V(connect(s, (void *)&file, 9)), V(listen(s, 1));
	H("options of other families");
	int i = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), u = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0), q = socket(AF_UNIX, SOCK_STREAM, 0), n = 7, z = 0;
	socklen_t len = 4, l2 = 12;
	V(getsockopt(i, SOL_SOCKET, SO_PASSCRED, &n, &len)), V(getsockopt(q, SOL_SOCKET, SO_PASSCRED, &n, &len)), P("%d", n), V(setsockopt(q, SOL_SOCKET, SO_REUSEPORT, &on, 4)), V(setsockopt(q, SOL_SOCKET, SO_REUSEPORT, &z, 4)), V(setsockopt(i, SOL_SOCKET, SO_REUSEPORT, &on, 4)), V(getsockopt(i, 0, IP_MTU_DISCOVER, &n, &len)), P("%d", n), V(getsockopt(u, 0, IP_MTU_DISCOVER, &n, &len)), P("%d", n), V(setsockopt(i, 0, IP_MTU_DISCOVER, &z, 4)), V(getsockopt(i, 0, IP_MTU_DISCOVER, &n, &len)), P("%d", n), V(setsockopt(i, 6, 20, &n, 1)), V(setsockopt(i, 6, 99, &n, 1)), V(setsockopt(i, 6, 99, &n, 4)), V(getsockopt(i, 0, IP_TTL, BAD, &l2)), P("%d", l2), l2 = 12, V(getsockopt(i, SOL_SOCKET, SO_TYPE, BAD, &l2)), P("%d", l2);
	H("control messages that sockets of AF_INET do not mind");
	struct { struct cmsghdr h; int fd[10]; } c = {{20, SOL_SOCKET, SCM_RIGHTS}, {-1}};
	struct iovec v = {buf, 3};
	struct msghdr m = {&in, sizeof in, &v, 1, &c, 20};
	int w = socket(AF_INET, SOCK_DGRAM, 0);
	V(shutdown(w, SHUT_WR)), V(send(w, "x", 1, MSG_NOSIGNAL)), V(write(w, "x", 1)), V(sendto(w, "x", 1, MSG_NOSIGNAL, (void *)&in, sizeof in));
	V(sendmsg(u, &m, MSG_NOSIGNAL)), c.h.cmsg_type = 2, V(sendmsg(u, &m, MSG_NOSIGNAL)), c.h.cmsg_type = 99, V(sendmsg(u, &m, MSG_NOSIGNAL)), V(sendto(u, buf, 3, 0x20000000, (void *)&in, sizeof in));
	H("bind(2) of what has a port");
	V(bind(u, (void *)&in, sizeof in)), V(connect(i, (void *)&in, sizeof in)), sleep_ms(20), V(bind(i, (void *)&in, sizeof in)), V(getsockopt(i, SOL_SOCKET, SO_ERROR, &n, &len)), P("%d", n), V(bind(i, (void *)&in, sizeof in)), V(bind(i, (void *)&in, sizeof in));
	H("shutdown(2) of what is not connected");
	i = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	EV("new", i), V(recv(i, buf, 9, 0)), V(shutdown(i, SHUT_RD)), EV("shut", i), V(recv(i, buf, 9, 0)), V(shutdown(i, SHUT_WR)), EV("shut", i), V(recv(i, buf, 9, 0));
}

static void orders(void) {
	int f = file("seal", "abcdefgh"), p[2], o[2];
	pipe2(p, 0), pipe2(o, O_NONBLOCK);
	V(SC(process_vm_readv, 4242424, "", 0L, BAD, 1L, 0L)), V(SC(process_vm_writev, -1, "", 0L, 0L, 1L, 0L)), V(SC(sched_setparam, -5, BAD)), V(SC(newfstatat, -1, "s", buf, 0x4000)), V(SC(newfstatat, AT_FDCWD, "seal", buf, 0x6000)), V(SC(readahead, f, 2L, -1L)), V(SC(mknod, "", S_IFDIR | 0755, 0)), V(SC(mknod, BAD, S_IFDIR | 0755, 0)), V(SC(mknod, "", S_IFLNK | 0755, 0)), V(SC(mknod, "", S_IFREG | 0755, 0));
	V(SC(pwrite64, p[1], BAD, -1L, 0L)), V(SC(pread64, p[0], BAD, -1L, 0L)), V(SC(pwrite64, open("/", O_RDONLY), buf, -1L, 0L)), V(SC(pread64, open("seal", O_WRONLY), -1L, 5L, 0L)), V(SC(fcntl, open("/", O_RDONLY), 1024, 0)), V(SC(fcntl, open("/", O_RDONLY), 1024, 9));
	V(SC(splice, p[0], 0L, o[1], 0L, 63L, 0L)), V(SC(sendfile, o[1], o[0], 0L, 63L)), V(SC(sendfile, p[1], p[0], 0L, 63L));
	V(SC(copy_file_range, p[1], BAD, p[0], 0L, 16L, 0L)), V(SC(copy_file_range, p[1], 0L, p[0], BAD, 16L, 9L)), V(SC(copy_file_range, f, 0L, p[0], 0L, 16L, 9L));
	char *a = mmap(0, 16384, PROT_READ, MAP_PRIVATE, f, 0);
	if (!SC(mseal, a + 4096, 4096, 0))
		V(mremap(a, 8192, 16384, 0) == MAP_FAILED), V(mremap(a + 4096, 4096, 8192, 0) == MAP_FAILED), V(mremap(a, 8192, 4096, 0) == MAP_FAILED), V(mremap(a + 8192, 8192, 4096, 0) == MAP_FAILED);
	int m = memfd_create("m", 2), d[2], n[2];
	char *sh = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, m, 0);
	V(fcntl(m, 1033, 32)), V(fcntl(m, 1034)), munmap(sh, 8192), V(fcntl(m, 1033, 32)), V(fcntl(m, 1034)), V(open(".", O_DIRECT)), V(open("..", O_DIRECT | O_DIRECTORY)), V(open(".", O_PATH | O_DIRECT) > 0), V(SC(utimes, 0L, 0L)), V(SC(utimensat, AT_FDCWD, 0L, 0L, 0)), V(SC(utimensat, f, 0L, 0L, 0));
	pipe2(d, O_NONBLOCK), pipe2(n, 0), V(SC(tee, p[0], d[1], 3L, 0L)), V(SC(tee, d[0], n[1], 3L, 0L)), V(SC(ioctl, socket(AF_INET, SOCK_DGRAM, 0), 0x8905, buf)), V(SC(ioctl, socket(AF_INET, SOCK_STREAM, 0), 0x8905, buf));
	V(mount("", "..", 0, MS_MOVE, 0)), V(mount("", "..", 0, MS_BIND, 0)), V(mount(0, "..", 0, MS_MOVE, 0));
	if (!fork()) {
		setreuid(1000, 0), V(access("/proc/self", R_OK)), V(access("/proc/self/cwd", F_OK)), V(access("/proc/self/status", W_OK)), V(access("/proc/thread-self/fd", F_OK)), exit(0);
	}
	wait(0);
	H("looking at mappings detaches nothing");
	int id = shmget(IPC_PRIVATE, 8192, 0600 | IPC_CREAT);
	struct shmid_ds ds;
	char *at = shmat(id, 0, 0);
	int mf = open("/proc/self/maps", O_RDONLY);
	while (read(mf, buf, 4096) > 0)
		;
	V(shmdt(at - 4096) && shmdt(at + 4096)), shmctl(id, IPC_STAT, &ds), P("%d attached, detached %d", (int)ds.shm_nattch, ds.shm_dtime != 0), shmctl(id, IPC_RMID, 0);
	H("of several children the oldest is waited for first");
	pid_t c[6];
	for (int i = 0; i < 6; i++)
		if (!(c[i] = fork()))
			_exit(i);
	siginfo_t si;
	for (int i = 5; i >= 0; i--)
		waitid(P_PID, c[i], &si, WEXITED | WNOWAIT);
	for (int i = 0, st; i < 6; i++) {
		pid_t w = wait(&st);
		P("child %d, %d", w == c[i], WEXITSTATUS(st));
	}
}

// What the kernel's selftests of proc and seccomp ask.
static void selftests(void) {
	long nr, a[3];
	int f = open("/proc/self/syscall", O_RDONLY);
	memset(buf, 0, 200), SC(read, f, buf, 200L), sscanf(buf, "%ld %lx %lx %lx", &nr, a, a + 1, a + 2), P("read %d, of this file %d, to here %d, %ld bytes", nr == SYS_read, a[0] == f, a[1] == (long)buf, a[2]);
	double up, idle, before = 0;
	int less = 0;
	for (int i = 0; i < 300; i++) {
		f = open("/proc/uptime", O_RDONLY), read(f, buf, 99), close(f), sscanf(buf, "%lf %lf", &up, &idle);
		less += idle < before, before = idle;
	}
	P("idle time went back %d times", less);
	if (!fork()) {
		struct sock_filter *i = calloc(4096, sizeof *i);
		for (int k = 0; k < 4096; k++)
			i[k] = (struct sock_filter){BPF_RET, 0, 0, SECCOMP_RET_ALLOW};
		struct sock_fprog g = {4096, i};
		int n = 0;
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		while (n < 100 && !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &g, 0, 0))
			n++;
		P("filters of 4096 instructions: some %d, then %s", n > 0 && n < 8, strerrorname_np(errno)), exit(0);
	}
	wait(0);
	if (getuid() || !alone())
		return;
	if (!fork()) {
		unshare(CLONE_NEWPID | CLONE_NEWNS), mount("", "/", 0, MS_REC | MS_PRIVATE, 0);
		if (!fork()) {
			f = open("/proc/loadavg", O_RDONLY), memset(buf, 0, 99), read(f, buf, 99), P("last PID %s", strrchr(buf, ' '));
			V(mount("p", "/proc", "proc", 0, "subset=pid")), V(open("/proc/cpuinfo", O_RDONLY)), V(open("/proc/1/status", O_RDONLY) > 0), V(open("/proc/self/mounts", O_RDONLY) > 0), V(open("/proc/mounts", O_RDONLY));
			DIR *d = opendir("/proc");
			for (struct dirent *e; (e = readdir(d));)
				if (e->d_name[0] != '.')
					P("%s", e->d_name);
			exit(0);
		}
		wait(0), exit(0);
	}
	wait(0);
}

int main(void) { sub(unixsockets), sub(inet), sub(maps), sub(calls), sub(packets), sub(orders), sub(selftests); }
