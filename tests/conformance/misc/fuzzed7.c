// Small things about files: who is told by SIGIO when nobody is, what a lease shows, locks of one's own, what O_TRUNC holds, a write that faults behind the end, offsets that are negative, owners in /proc
#include <conf.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <pthread.h>

static int made(const char *n) { return open(n, O_RDWR | O_CREAT | O_TRUNC, 0644); }

static void owners(void) {
	int p[2]; pipe(p);
	struct { int type, pid; } o;
	R(fcntl(p[0], 16, &o)), P("%d %d", o.type, o.pid);
	for (int k = 0; k < 3; k++) o.type = k, o.pid = 0, VN("set", fcntl(p[0], 15, &o)), o.type = 9, VN("get", fcntl(p[0], 16, &o)), P("%d %d", o.type, o.pid), V(fcntl(p[0], F_GETOWN));
	V(fcntl(p[0], F_SETOWN, 0)), V(fcntl(p[0], 16, &o)), P("%d %d", o.type, o.pid); V(fcntl(p[0], F_SETOWN, getpid())), R(fcntl(p[0], F_SETOWN, 99999999)), P("%d", fcntl(p[0], F_GETOWN) == getpid());
	R(fcntl(p[0], F_SETOWN, 0)), R(fcntl(p[0], F_SETFL, O_ASYNC)), R(write(p[1], "", 1));
}

static void *lease_of_thread(void *a) { VN("lease", fcntl(*(int *)a, F_SETLEASE, F_RDLCK)); return 0; }

static void leases(void) {
	close(made("f"));
	int f = open("f", O_RDONLY), m = memfd_create("m", 0), g = open("f", O_RDONLY);
	V(fcntl(f, F_SETLEASE, F_RDLCK)), X(fcntl(f, F_GETFL)), P("%d", fcntl(f, F_GETOWN) == getpid()), V(fcntl(f, F_SETLEASE, F_UNLCK)), X(fcntl(f, F_GETFL)), P("%d", fcntl(f, F_GETOWN) == getpid());
	V(fcntl(m, F_SETLEASE, F_RDLCK)), X(fcntl(m, F_GETFL));
	pthread_t t; pthread_create(&t, 0, lease_of_thread, &g), pthread_join(t, 0), V(fcntl(g, F_GETOWN)), X(fcntl(g, F_GETFL));
	int h = open("f", O_RDONLY); R(fcntl(h, F_SETOWN, 0)), R(fcntl(h, F_SETLEASE, F_RDLCK)), P("%d", fcntl(h, F_GETOWN) == getpid());
}

static void locks(void) {
	int f = made("l"), g = open("l", O_RDWR);
	struct flock l = {F_WRLCK, SEEK_SET, 100, 50, 0};
	R(fcntl(f, F_OFD_SETLK, &l)); l.l_type = F_RDLCK, l.l_start = 500, l.l_len = 0; R(fcntl(g, F_OFD_SETLK, &l));
	struct { int fd; off_t at, len; } q[] = {{f, 0, 0}, {f, 0, 100}, {f, 120, 1}, {f, 149, 1}, {f, 150, 1}, {f, 600, 1}, {g, 0, 0}, {g, 120, 1}, {g, 600, 1}, {g, 0, 500}};
	for (int i = 0; i < 10; i++) { l = (struct flock){F_UNLCK, SEEK_SET, q[i].at, q[i].len, 0}; int r = fcntl(q[i].fd, F_OFD_GETLK, &l); P("%d: %s type %d from %ld %ld pid %d", i, r ? conf_errno(errno) : "ok", l.l_type, (long)l.l_start, (long)l.l_len, l.l_pid); }
	l = (struct flock){F_UNLCK, SEEK_SET, 0, 0, 0}; R(fcntl(f, F_GETLK, &l)); l = (struct flock){F_WRLCK, SEEK_SET, 0, 0, 0}; R(fcntl(f, F_OFD_GETLK, &l)), P("%d %ld", l.l_type, (long)l.l_start);
}

static void truncating(void) {
	R(mkdir("t", 0755)), R(mount("t", "t", "tmpfs", 0, 0)), close(made("t/f"));
	int f = open("t/f", O_RDONLY | O_TRUNC), g = open("t/g", O_RDONLY | O_TRUNC | O_CREAT, 0700);
	R(mount(0, "t", 0, MS_REMOUNT | MS_RDONLY | MS_BIND, 0)), R(mount(0, "t", 0, MS_REMOUNT | MS_BIND, 0)), R(fcntl(f, F_SETLEASE, F_RDLCK)), close(g);
	int h = open("t/f", O_WRONLY);
	R(mount(0, "t", 0, MS_REMOUNT | MS_RDONLY | MS_BIND, 0)), close(h), close(f), R(umount("t"));
	int m = memfd_create("m", 0); struct stat st; char b[8];
	V(pwrite(m, BAD, 100, 1000)), fstat(m, &st), P("%ld", (long)st.st_size), V(pwrite(m, "x", 1, 0)), V(pwrite(m, BAD, 100, 5000)), fstat(m, &st), P("%ld", (long)st.st_size), V(pwrite(m, BAD, 1, 7)), fstat(m, &st), P("%ld", (long)st.st_size), V(pread(m, b, 8, 4000));
}

static void ranges(void) {
	int f = made("a"), g = made("b"); write(f, "0123456789", 10);
	loff_t at[] = {-4096, -1, 0, LONG_MAX}; size_t n[] = {0, 1, 4096, 4097, LONG_MAX, -1, -4096};
	for (int i = 0; i < 4; i++) for (int j = 0; j < 7; j++) { loff_t x = at[i], y = at[i]; P("%d %d: %s %s", i, j, EN(copy_file_range(f, &x, g, 0, n[j], 0)), EN(copy_file_range(f, 0, g, &y, n[j], 0))); ftruncate(g, 0), lseek(g, 0, 0), lseek(f, 0, 0); }
}

static void sockets(void) {
	int s[2], q[2], n; socklen_t l = sizeof n; char b[8];
	socketpair(AF_UNIX, SOCK_STREAM, 0, s), socketpair(AF_UNIX, SOCK_SEQPACKET, 0, q);
	int sizes[] = {-1, 0, 1, INT_MAX, INT_MIN, 5000};
	for (int i = 0; i < 6; i++) for (int o = SO_SNDBUF; o <= SO_RCVBUF; o++) R(setsockopt(s[0], SOL_SOCKET, o, sizes + i, 4)), getsockopt(s[0], SOL_SOCKET, o, &n, &l), P("%d is %s", sizes[i], n > 65536 ? "large" : n < 10000 ? "small" : "?");
	struct timeval tv = {0, 10000}; setsockopt(q[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv), setsockopt(s[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
	write(q[1], "abc", 3), write(s[1], "def", 3), V(recv(q[0], b, 8, MSG_ERRQUEUE)), V(recv(s[0], b, 8, MSG_ERRQUEUE)), V(recv(q[0], b, 8, MSG_ERRQUEUE)), V(recv(q[0], b, 8, MSG_ERRQUEUE | MSG_DONTWAIT));
}

static void who(void) {
	int e = epoll_create1(0);
	R(fchown(e, 1000, -1)), R(fchown(e, -1, -1)), setegid(1000), seteuid(1000), R(fchown(e, 1000, -1)), R(fchown(e, 0, -1)), R(fchown(e, -1, -1));
	struct stat st; const char *n[] = {"/proc/self", "/proc/self/task", "/proc/self/fd", "/proc/self/status", "/proc/self/ns"};
	for (int i = 0; i < 5; i++) stat(n[i], &st), P("%s: %d", n[i], st.st_uid);
	R(open("/proc/self", O_RDONLY | O_NOATIME)), R(open("/proc/self/status", O_RDONLY | O_NOATIME));
	struct rlimit r = {10, 10}; setrlimit(RLIMIT_NOFILE, &r); while (dup(0) >= 0);
	R(openat(1000, "d", O_RDONLY)), R(openat(1000, BAD, O_RDONLY)), R(openat(1000, "", O_RDONLY)), R(openat(1000, "d", O_CREAT | O_DIRECTORY)), close(9), R(openat(1000, "d", O_RDONLY)), R(openat(1000, "/none", O_RDONLY));
}

static void pivot(void) {
	R(unshare(CLONE_NEWNS)), R(mount("", "/", 0, MS_REC | MS_PRIVATE, 0)), R(SC(pivot_root, ".", ".")), R(SC(pivot_root, "/", "/")), R(unshare(CLONE_NEWUSER | CLONE_NEWNS)), R(SC(pivot_root, ".", ".")), R(SC(pivot_root, "/", "/"));
}

static void no_time(void) {
	struct rlimit r = {0, 0};
	R(setrlimit(RLIMIT_CPU, &r)), sleep_ms(30), P("alive");
}

static void no_more_time(void) {
	struct rlimit r = {0, 0};
	R(setrlimit(RLIMIT_CPU, &r));
	for (;;) ;
}

int main(void) {
	sub(owners), sub(leases), sub(locks), sub(truncating), sub(ranges), sub(sockets), sub(who), sub(pivot), sub(no_time), sub(no_more_time);
}
