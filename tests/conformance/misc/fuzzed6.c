// What is left when a call fails half-way: events of epoll that could not be copied, numbers of processes that were not made, limits of file sizes, locks at the largest offset, mounts that expire
#include <conf.h>
#include <linux/falloc.h>
#include <linux/sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <netinet/in.h>
#include <sys/un.h>

// Three events: an edge, a one-shot and a level. What a fault kept back is told again.
static void epoll_faults(void) {
	int ep = epoll_create1(0);
	uint32_t kinds[] = {EPOLLIN | EPOLLET, EPOLLIN | EPOLLONESHOT, EPOLLIN};
	for (int i = 0; i < 3; i++) {
		struct epoll_event ev = {kinds[i], {.u32 = i}};
		epoll_ctl(ep, EPOLL_CTL_ADD, eventfd(1, 0), &ev);
	}
	struct epoll_event *at, *edge, none;
	V(epoll_wait(ep, BAD, 3, 0)), V(epoll_wait(ep, readonly(), 3, 0)), V(epoll_wait(ep, (void *)-1L, 3, 0)), V(epoll_wait(ep, (void *)(1L << 62), 3, 100)), V(epoll_wait(ep, border(3 * sizeof none), 1 << 24, 0));
	V(epoll_ctl(ep, EPOLL_CTL_MOD, 4, &(struct epoll_event){kinds[0], {.u32 = 0}})), V(epoll_ctl(ep, EPOLL_CTL_MOD, 5, &(struct epoll_event){kinds[1], {.u32 = 1}}));
	for (int room = 1; room <= 3; room++) {
		edge = border(room * sizeof *at - 1), at = border(room * sizeof *at);
		int n = epoll_wait(ep, edge, 3, 0);
		P("room for %d and most of another: %d %s", room - 1, n, n < 0 ? conf_errno(errno) : "");
		for (int i = 0; i < n; i++)
			P("event %d: %x of %d", i, edge[i].events, edge[i].data.u32);
		n = epoll_wait(ep, at, 3, 0);
		P("room for %d: %d %s", room, n, n < 0 ? conf_errno(errno) : "");
		for (int i = 0; i < n; i++)
			P("event %d: %x of %d", i, at[i].events, at[i].data.u32);
	}
}

static const char *lock(int fd, int cmd, int type, long start, long len) {
	static char b[100];
	struct flock l = {.l_type = type, .l_start = start, .l_len = len};
	int r = fcntl(fd, cmd, &l);
	if (r)
		return conf_errno(errno);
	snprintf(b, sizeof b, "type %d start %lx len %lx", l.l_type, l.l_start, l.l_len);
	return b;
}

static void far_locks(void) {
	int f = file("l", ""), g = open("l", O_RDWR);
	const long max = LONG_MAX;
	static const long r[][2] = {{LONG_MAX, 1}, {LONG_MAX, 0}, {LONG_MAX - 1, 1}, {LONG_MAX - 1, 2}, {LONG_MAX - 1, 0}, {LONG_MAX, 2}, {LONG_MAX, -1}, {LONG_MAX, -2}, {0, LONG_MAX}, {1, LONG_MAX}, {0, 0}, {LONG_MAX, LONG_MIN}};
	for (int i = 0; i < 12; i++) {
		P("%d: %s", i, lock(f, F_OFD_SETLK, F_WRLCK, r[i][0], r[i][1]));
		P("%d whole: %s", i, lock(g, F_OFD_GETLK, F_WRLCK, 0, 0));
		P("%d last: %s", i, lock(g, F_OFD_GETLK, F_WRLCK, max, 1));
		P("%d last but one: %s", i, lock(g, F_OFD_GETLK, F_WRLCK, max - 1, 1));
		P("%d first: %s", i, lock(g, F_OFD_GETLK, F_WRLCK, 0, 1));
		lock(f, F_OFD_SETLK, F_UNLCK, 0, 0);
	}
	// joined, split, and both ends cut
	lock(f, F_OFD_SETLK, F_WRLCK, max, 1), lock(f, F_OFD_SETLK, F_WRLCK, max - 1, 1), P("joined: %s", lock(g, F_OFD_GETLK, F_WRLCK, 0, 0));
	lock(f, F_OFD_SETLK, F_UNLCK, max, 1), P("cut: %s", lock(g, F_OFD_GETLK, F_WRLCK, 0, 0)), lock(f, F_OFD_SETLK, F_UNLCK, 0, 0);
	lock(f, F_OFD_SETLK, F_WRLCK, 10, 10), lock(f, F_OFD_SETLK, F_RDLCK, 20, 10), P("neighbours: %s", lock(g, F_OFD_GETLK, F_WRLCK, 0, 0)), P("second: %s", lock(g, F_OFD_GETLK, F_WRLCK, 20, 1));
	lock(f, F_OFD_SETLK, F_UNLCK, 15, 1), P("left: %s", lock(g, F_OFD_GETLK, F_WRLCK, 0, 0)), P("gap: %s", lock(g, F_OFD_GETLK, F_WRLCK, 15, 1)), P("right: %s", lock(g, F_OFD_GETLK, F_WRLCK, 15, 2));
	lock(f, F_OFD_SETLK, F_WRLCK, 15, 1), P("again: %s", lock(g, F_OFD_GETLK, F_WRLCK, 0, 0));
	char name[40];
	snprintf(name, sizeof name, "/proc/self/fdinfo/%d", f);
	char *s = strstr(slurp(name), "lock:");
	for (; s; s = strstr(s + 1, "lock:")) {
		long a;
		char end[40], kind[20], type[20];
		if (sscanf(s, "lock: %*d: %s ADVISORY %s %*d %*s %ld %s", kind, type, &a, end) == 4)
			P("fdinfo: %s %s %ld %s", kind, type, a, end);
	}
}

static void sizes(void) {
	static const long off[] = {0, 60000, 100000, 0, 49000, 0, 1, 0, 1L << 62}, len[] = {80000, 100, 1, 100000, 1000, 100001, LONG_MAX, LONG_MAX, 1L << 62};
	int f = SC(memfd_create, "m", 3);
	struct rlimit l = {50000, RLIM_INFINITY};
	catch(SIGXFSZ, 0), ftruncate(f, 100000), setrlimit(RLIMIT_FSIZE, &l);
	for (int mode = 0; mode < 2; mode++)
		for (int i = 0; i < 9; i++) {
			conf_got = 0;
			const char *e = EN(fallocate(f, mode, off[i], len[i]));
			P("fallocate(%d, %lx, %lx): %s, %d signals", mode, off[i], len[i], e, conf_got);
		}
	for (int mode = 2; mode < 256; mode += mode < 128 ? 1 : 17)
		RN("a mode", fallocate(f, mode, 90000, 20000));
	struct stat st;
	fstat(f, &st), P("size %ld", (long)st.st_size);
	fcntl(f, F_ADD_SEALS, F_SEAL_GROW), conf_got = 0, R(fallocate(f, 0, 90000, 20000)), V(conf_got), R(fallocate(f, 0, 90000, 10000));
	R(ftruncate(f, 90000)), R(ftruncate(f, 95000)), V(conf_got);
}

static pid_t next(void) {
	pid_t p = fork();
	if (!p)
		_exit(0);
	waitpid(p, 0, 0);
	return p;
}

// How many numbers a process takes that is not made.
static void numbers(void) {
	if (unshare(CLONE_NEWPID))
		return P("unshare: %s", conf_errno(errno)), (void)0;
	pid_t c = fork();
	if (c)
		return P("%s", wait_for(c)), (void)0;
	pid_t last = next();
	struct clone_args a = {.exit_signal = SIGCHLD};
#define TRY(what, ...)                                                                                                 \
	({                                                                                                                 \
		struct clone_args b = {.exit_signal = SIGCHLD, ##__VA_ARGS__};                                                 \
		const char *e = EN(SC(clone3, &b, sizeof b));                                                                  \
		pid_t n = next();                                                                                              \
		P("%s: %s, %d numbers", what, e, n - last - 1), last = n;                                                      \
	})
	TRY("pidfd to nowhere", .flags = CLONE_PIDFD, .pidfd = 8);
	TRY("flags", .flags = CLONE_THREAD);
	TRY("signal", .exit_signal = 65);
	pid_t set = 1, free = 5000;
	TRY("a number in use", .set_tid = (long)&set, .set_tid_size = 1);
	TRY("a number in use, and pidfd to nowhere", .flags = CLONE_PIDFD, .pidfd = 8, .set_tid = (long)&set, .set_tid_size = 1);
	TRY("a chosen number, and pidfd to nowhere", .flags = CLONE_PIDFD, .pidfd = 8, .set_tid = (long)&free, .set_tid_size = 1);
	struct rlimit l, old;
	getrlimit(RLIMIT_NOFILE, &old), l = old, l.rlim_cur = 3, setrlimit(RLIMIT_NOFILE, &l);
	int pidfd;
	TRY("no descriptor", .flags = CLONE_PIDFD, .pidfd = (long)&pidfd);
	setrlimit(RLIMIT_NOFILE, &old);
	// a namespace whose init has ended
	if (unshare(CLONE_NEWPID))
		P("%s", conf_errno(errno));
	pid_t end = fork();
	if (!end)
		_exit(0);
	waitpid(end, 0, 0), last = end;
	RN("fork where init has ended", fork()), RN("again", fork());
	int ns = open("/proc/self/ns/pid", O_RDONLY);
	RN("back", setns(ns, CLONE_NEWPID)), P("%d numbers", next() - last - 1);
	fflush(stdout), _exit(0);
}

static void expiry(void) {
	if (unshare(CLONE_NEWNS) || mount("", "/", 0, MS_REC | MS_PRIVATE, 0) || mount("t", "/mnt", "tmpfs", 0, 0) || chdir("/mnt"))
		return P("%s", conf_errno(errno)), (void)0;
	struct stat st;
	mkdir("a", 0700), mkdir("b", 0700), mount("t", "a", "tmpfs", 0, 0);
	R(umount2("a", MNT_EXPIRE | MNT_FORCE)), R(umount2("a", MNT_EXPIRE | MNT_DETACH)), R(umount2("/", MNT_EXPIRE)), R(umount2("b", MNT_EXPIRE)), R(umount2("/mnt", MNT_EXPIRE)), R(umount2("c", MNT_EXPIRE));
	R(umount2("a", MNT_EXPIRE)), R(close(open("a", O_RDONLY))), R(umount2("a", MNT_EXPIRE)), R(umount2("a", MNT_EXPIRE));
	mount("t", "a", "tmpfs", 0, 0), mkdir("a/x", 0700), R(umount2("a", MNT_EXPIRE)), R(close(open("a", O_PATH))), R(umount2("a", MNT_EXPIRE));
	R(stat("a", &st)), R(umount2("a", MNT_EXPIRE)), R(stat("a/x", &st)), R(umount2("a", MNT_EXPIRE)), R(umount2("a", MNT_EXPIRE));
	mount("t", "a", "tmpfs", 0, 0);
	int f = open("a", O_RDONLY);
	R(umount2("a", MNT_EXPIRE)), R(close(f)), R(umount2("a", MNT_EXPIRE)), R(umount2("a", MNT_FORCE));
	mount("t", "a", "tmpfs", 0, 0), mkdir("a/x", 0700), R(umount2("a", MNT_EXPIRE)), R(mount("t", "a/x", "tmpfs", 0, 0)), R(umount2("a", MNT_EXPIRE)), R(umount2("a/x", MNT_EXPIRE)), R(umount2("a/x", MNT_EXPIRE));
	R(umount2("a", MNT_EXPIRE)), R(mount("a", "b", 0, MS_BIND, 0)), R(umount2("a", MNT_EXPIRE)), R(umount2("a", MNT_EXPIRE)), R(umount2("b", MNT_EXPIRE)), R(umount2("b", 0));
	mkdir("r", 0700), mount("t", "r", "tmpfs", 0, 0);
	pid_t in = CHILD(chroot("r"); R(umount2("r", MNT_EXPIRE)); R(umount2("r/", MNT_EXPIRE)));
	P("%s", wait_for(in)), setuid(1000), R(umount2("/mnt", MNT_EXPIRE));
}

// Calls of which the last is what showed a difference.
static void pairs(void) {
	int f = file("p", "");
	struct stat st;
	fallocate(f, FALLOC_FL_KEEP_SIZE, 2, 4097), fstat(f, &st), P("allocated %d", st.st_blocks > 0), ftruncate(f, 0), fstat(f, &st), P("blocks %ld", (long)st.st_blocks);
	int m = SC(memfd_create, "m", 0);
	ftruncate(m, 5000), fallocate(m, FALLOC_FL_KEEP_SIZE, 0, 100000), ftruncate(m, 5000), fstat(m, &st), P("blocks %ld", (long)st.st_blocks);
	int e = eventfd(5, EFD_NONBLOCK), t = timerfd_create(CLOCK_MONOTONIC, 0);
	V(read(e, border(1), 100)), V(read(e, border(8), 8)), timerfd_settime(t, 0, &(struct itimerspec){.it_value = {0, 1}}, 0), V(read(t, border(7), 8));
	struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "bound"};
	int s = socket(AF_UNIX, SOCK_DGRAM, 0), on = 5;
	R(setsockopt(s, SOL_SOCKET, 76 /* SO_PASSPIDFD */, &on, 4)), R(send(s, "x", 1, 0)), R(bind(s, (void *)&a, 8));
	s = socket(AF_UNIX, SOCK_STREAM, 0), R(setsockopt(s, SOL_SOCKET, 76, &on, 4)), R(connect(s, (void *)&a, 8)), R(bind(s, (void *)&a, 8));
	int u = socket(AF_INET, SOCK_DGRAM, 0), v = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0), all = -1;
	struct sockaddr_in i = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof i;
	bind(v, (void *)&i, sizeof i), getsockname(v, (void *)&i, &n), connect(u, (void *)&i, n), R(setsockopt(u, IPPROTO_UDP, 1 /* UDP_CORK */, &all, 4)), V(write(u, "corked", 6)), V(recv(v, &all, 4, 0)), all = 0, R(setsockopt(u, IPPROTO_UDP, 1, &all, 4)), V(recv(v, &all, 4, MSG_TRUNC));
	int p[2], q[2], w[2];
	pipe(p), pipe(q), socketpair(AF_UNIX, SOCK_STREAM, 0, w), write(p[1], "abc", 3), write(w[1], "xyz", 3);
	V(sendfile(q[1], p[0], 0, 3)), V(sendfile(q[1], p[0], 0, 0)), V(sendfile(w[0], p[0], 0, 3)), V(sendfile(p[1], p[0], 0, 3)), fcntl(q[0], F_SETFL, O_NONBLOCK), V(sendfile(p[1], q[0], 0, 3)), V(sendfile(q[1], w[0], 0, 3)), V(sendfile(w[0], w[0], 0, 3));
	// a read that begins in front of a packet ends in it, and takes what it has no room for away
	static char big[9000];
	for (int want = 1; want < 9000; want += 1111) {
		int k[2];
		pipe2(k, O_NONBLOCK), write(k[1], big, 1000), fcntl(k[1], F_SETFL, 040000 | O_NONBLOCK), write(k[1], big, 4161), write(k[1], big, 10);
		P("reads of %d:", want);
		for (int i = 0; i < 5; i++)
			V(read(k[0], big, want));
		close(k[0]), close(k[1]);
	}
	mkdir("ad", 0700), V(SC(open, "ad", 040000 /* O_DIRECT */)), chmod("ad", 0);
	setuid(1000), V(SC(open, "ad", 040000)), R(mount("t", "/", "", 1UL << 31, 0)), R(mount("t", "/", "", 0, 0));
}

// A directory that moves out of the root of a walk while its ".." is taken does not lead the walk out.
static void escapes(void) {
	mkdir("root", 0700), mkdir("root/c", 0700), mkdir("other", 0700);
	int a = open("root", O_PATH), out = 0;
	struct stat at, st;
	fstat(a, &at);
	pid_t mover = CHILD(for (pid_t up = getppid(); getppid() == up;) SC(renameat2, AT_FDCWD, "root/c", AT_FDCWD, "other", 2 /* RENAME_EXCHANGE */));
	for (int i = 0; i < 10000; i++) {
		uint64_t how[3] = {O_PATH, 0, 0x10 /* RESOLVE_IN_ROOT */};
		int f = SC(openat2, a, "c/../../c/../../c/../../c/../../c/../../c/../..", how, sizeof how);
		out += f < 0 ? errno != EAGAIN : fstat(f, &st) || st.st_ino != at.st_ino;
		close(f);
	}
	V(out), kill(mover, SIGKILL), waitpid(mover, 0, 0);
}

int main(void) { sub(escapes), sub(pairs), sub(epoll_faults), sub(far_locks), sub(sizes), sub(numbers), sub(expiry); }
