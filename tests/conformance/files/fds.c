// dup, fcntl, close_range, flock, record locks, open file description locks, leases, owners, seals.
#include "conf.h"
#include <linux/close_range.h>
#include <sys/file.h>
#include <sys/socket.h>

static void dups(void) {
	int f = file("f", "0123456789");
	V(dup(f)), V(dup(-1)), V(dup(1000)), V(dup2(f, 50)), V(dup2(f, f)), V(dup2(f, -1)), V(dup2(f, 4096)), V(dup2(-1, 50)), V(dup2(999, 999)), V(dup3(f, f, 0)), V(dup3(f, 51, O_CLOEXEC)), V(fcntl(51, F_GETFD)), V(dup3(f, 52, O_NONBLOCK)), V(dup3(f, -1, 0)), V(dup3(999, 999, 0)), V(dup3(f, 1024, 0)), V(dup3(f, 1023, 0));
	V(fcntl(f, F_DUPFD, 60)), V(fcntl(f, F_DUPFD, 60)), V(fcntl(f, F_DUPFD, -1)), V(fcntl(f, F_DUPFD, 1024)), V(fcntl(f, F_DUPFD_CLOEXEC, 70)), V(fcntl(70, F_GETFD)), V(fcntl(70, F_SETFD, 0)), V(fcntl(70, F_GETFD)), V(fcntl(70, F_SETFD, -1)), V(fcntl(70, F_GETFD)), V(fcntl(f, 1027 /* DUPFD_QUERY */, 70)), V(fcntl(f, 1027, 1)), V(fcntl(f, 1027, -1));
	V(lseek(50, 3, 0)), V(lseek(f, 0, SEEK_CUR));
	struct rlimit l = {60, 1024};
	setrlimit(RLIMIT_NOFILE, &l);
	V(dup2(f, 60)), V(dup2(f, 59)), V(fcntl(f, F_DUPFD, 59)), V(fcntl(f, F_DUPFD, 60)), V(fcntl(1023, F_GETFD)), V(close(1023)), V(close(1023)), V(close(-1));
	for (int i = 0; i < 60; i++)
		if (dup(f) < 0) {
			P("dup: %s", conf_errno(errno));
			break;
		}
	R(open("f", O_RDONLY)), R(pipe((int[2]){})), R(socket(AF_UNIX, SOCK_STREAM, 0)), R(memfd_create("x", 0)), R(SC(epoll_create1, 0)), R(SC(eventfd2, 0, 0));
	H("close_range");
	V(close_range(20, 30, 0)), V(fcntl(20, F_GETFD)), V(fcntl(31, F_GETFD)), V(close_range(31, 35, CLOSE_RANGE_CLOEXEC)), V(fcntl(33, F_GETFD)), V(close_range(5, 4, 0)), V(close_range(5, 4, 9)), V(close_range(31, 35, CLOSE_RANGE_UNSHARE)), V(close_range(40, ~0U, CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC)), V(fcntl(41, F_GETFD)), V(close_range(10, ~0U, 0)), V(fcntl(41, F_GETFD)), V(fcntl(9, F_GETFD)), V(close_range(1000000, 2000000, 0));
}

static void flags(void) {
	file("f", "x");
	static const int o[] = {O_RDONLY, O_WRONLY, O_RDWR, O_RDONLY | O_NONBLOCK, O_WRONLY | O_APPEND, O_RDWR | O_SYNC, O_RDWR | O_DSYNC, O_RDONLY | O_DIRECTORY, O_PATH, O_PATH | O_NOFOLLOW | O_CLOEXEC, O_RDONLY | O_NOATIME, O_RDWR | O_CREAT | O_TRUNC, O_RDONLY | O_NOCTTY | O_CLOEXEC, 3, O_RDONLY | 0x8000000, O_RDWR | O_ASYNC, O_RDWR | O_EXCL, O_TMPFILE | O_RDWR, O_TMPFILE | O_RDONLY, O_TMPFILE | O_RDWR | O_CREAT, O_DIRECT | O_RDONLY, O_LARGEFILE, O_PATH | O_RDWR | O_CREAT | O_TRUNC, O_RDONLY | 0x40000000};
	for (int i = 0; i < (int)(sizeof o / sizeof *o); i++) {
		int fd = open(o[i] & O_DIRECTORY ? "." : "f", o[i], 0600);
		if (fd < 0) {
			P("open %#o: %s", o[i], conf_errno(errno));
			continue;
		}
		P("open %#o: F_GETFL %#o F_GETFD %d", o[i], fcntl(fd, F_GETFL), fcntl(fd, F_GETFD));
		P("F_SETFL: %s, now %#o", EN(fcntl(fd, F_SETFL, O_NONBLOCK | O_APPEND | O_NOATIME | O_RDWR)), fcntl(fd, F_GETFL));
		close(fd);
	}
	int p[2], s[2], f = open("f", O_RDWR), a;
	pipe(p), socketpair(AF_UNIX, SOCK_STREAM, 0, s);
	V(fcntl(p[0], F_GETFL)), V(fcntl(p[1], F_GETFL)), V(fcntl(s[0], F_GETFL)), V(fcntl(p[0], F_SETFL, O_ASYNC)), V(fcntl(p[0], F_GETFL)), V(fcntl(p[0], F_SETFL, O_DIRECT)), V(fcntl(p[0], F_GETFL)), V(fcntl(f, F_SETFL, O_DIRECT)), V(fcntl(-1, F_GETFL)), V(fcntl(f, 9999, 0)), V(fcntl(open("f", O_PATH), F_SETFL, 0)), V(fcntl(open("f", O_PATH), F_GETOWN)), V(fcntl(f, F_SETFL, O_ASYNC));
	a = 1, V(ioctl(p[0], FIONBIO, &a)), V(fcntl(p[0], F_GETFL) & O_NONBLOCK), a = 0, V(ioctl(p[0], FIONBIO, &a)), V(fcntl(p[0], F_GETFL) & O_NONBLOCK), V(ioctl(p[0], FIONBIO, BAD)), V(ioctl(f, FIOCLEX)), V(fcntl(f, F_GETFD)), V(ioctl(f, FIONCLEX)), V(fcntl(f, F_GETFD)), a = 1, V(ioctl(f, FIOASYNC, &a)), V(ioctl(f, TCGETS, BAD)), V(ioctl(f, 0x12345, 0)), V(ioctl(-1, FIONBIO, &a)), V(ioctl(open("f", O_PATH), FIONBIO, &a)), V(ioctl(f, FIONREAD, &a)), P("%d", a);
	H("owners");
	V(fcntl(p[0], F_GETOWN)), V(fcntl(p[0], F_SETOWN, getpid())), V(fcntl(p[0], F_GETOWN) == getpid()), V(fcntl(p[0], F_SETOWN, -getpgrp())), V(fcntl(p[0], F_SETOWN, 99999999)), V(fcntl(p[0], F_SETOWN, 0)), V(fcntl(p[0], F_GETSIG)), V(fcntl(p[0], F_SETSIG, SIGUSR1)), V(fcntl(p[0], F_GETSIG)), V(fcntl(p[0], F_SETSIG, 65)), V(fcntl(p[0], F_SETSIG, -1));
	struct f_owner_ex ox = {F_OWNER_TID, getpid()};
	V(fcntl(p[0], F_SETOWN_EX, &ox)), memset(&ox, 0, sizeof ox), V(fcntl(p[0], F_GETOWN_EX, &ox)), P("%d %d", ox.type, ox.pid == getpid()), ox.type = 5, V(fcntl(p[0], F_SETOWN_EX, &ox)), V(fcntl(p[0], F_GETOWN_EX, BAD)), V(fcntl(p[0], F_SETOWN_EX, BAD));
	pipe(p), catch(SIGIO, 0), catch(SIGUSR1, 0), fcntl(p[0], F_SETOWN, getpid()), fcntl(p[0], F_SETFL, O_ASYNC | O_NONBLOCK), write(p[1], "x", 1), P("SIGIO %d", conf_got), fcntl(p[0], F_SETSIG, SIGUSR1), write(p[1], "x", 1), P("%d: %d code %d fd %d band %lx", conf_got, conf_sig, conf_info.si_code, conf_info.si_fd == p[0], conf_info.si_band), close(p[1]), P("%d band %lx", conf_got, conf_info.si_band);
	H("hints");
	uint64_t h = 9;
	V(fcntl(f, 1035, &h)), P("%lu", h), h = 2, V(fcntl(f, 1036, &h)), h = 0, V(fcntl(f, 1035, &h)), P("%lu", h), h = 77, V(fcntl(f, 1036, &h)), V(fcntl(f, 1037, &h)), V(fcntl(f, 1035, BAD));
}

static struct flock fl(int type, int whence, off_t start, off_t len) { return (struct flock){.l_type = type, .l_whence = whence, .l_start = start, .l_len = len}; }
static int lk(int fd, int cmd, struct flock l) { return fcntl(fd, cmd, &l); }
static void who(int fd, int cmd, struct flock l) {
	int own = getppid();
	if (fcntl(fd, cmd, &l))
		P("get: %s", conf_errno(errno));
	else
		P("get: type %d whence %d start %ld len %ld pid %s", l.l_type, l.l_whence, (long)l.l_start, (long)l.l_len, l.l_pid == own ? "parent" : l.l_pid == -1 ? "-1" : l.l_pid == 0 ? "0" : "other");
}
static int lf;
static void peek(void) { // in a child
	int g = open("lk", O_RDWR);
	who(g, F_GETLK, fl(F_WRLCK, 0, 0, 0)), who(g, F_GETLK, fl(F_RDLCK, 0, 0, 0)), who(g, F_GETLK, fl(F_WRLCK, 0, 50, 10));
	VN("set", lk(g, F_SETLK, fl(F_WRLCK, 0, 5, 1))), VN("set read", lk(g, F_SETLK, fl(F_RDLCK, 0, 5, 1))), VN("OFD set", lk(g, F_OFD_SETLK, fl(F_WRLCK, 0, 5, 1)));
}
static void locks(void) {
	int f = lf = file("lk", "0123456789"), r = open("lk", O_RDONLY), w = open("lk", O_WRONLY), o = open("lk", O_PATH), d = open(".", O_RDONLY);
	V(lk(f, F_SETLK, fl(F_WRLCK, SEEK_SET, 0, 10))), sub(peek), V(lk(f, F_SETLK, fl(F_UNLCK, SEEK_SET, 3, 4))), sub(peek), V(lk(f, F_SETLK, fl(F_RDLCK, SEEK_END, -5, 3))), sub(peek), V(lk(f, F_SETLK, fl(F_RDLCK, SEEK_SET, 60, -8))), sub(peek), who(f, F_GETLK, fl(F_WRLCK, 0, 0, 0));
	V(lk(f, F_SETLK, fl(F_WRLCK, 0, -1, 1))), V(lk(f, F_SETLK, fl(F_WRLCK, 0, 0, -1))), V(lk(f, F_SETLK, fl(F_WRLCK, 0, 5, -6))), V(lk(f, F_SETLK, fl(F_WRLCK, 7, 0, 1))), V(lk(f, F_SETLK, fl(9, 0, 0, 1))), V(lk(f, F_SETLK, fl(F_WRLCK, 0, LONG_MAX, 1))), V(lk(f, F_SETLK, fl(F_WRLCK, 0, LONG_MAX, 2))), V(lk(f, F_SETLK, fl(F_WRLCK, SEEK_END, LONG_MAX, 1))), V(lk(r, F_SETLK, fl(F_WRLCK, 0, 0, 1))), V(lk(r, F_SETLK, fl(F_RDLCK, 0, 0, 1))), V(lk(w, F_SETLK, fl(F_RDLCK, 0, 0, 1))), V(lk(o, F_SETLK, fl(F_RDLCK, 0, 0, 1))), V(lk(d, F_SETLK, fl(F_RDLCK, 0, 0, 1))), V(lk(-1, F_SETLK, fl(F_RDLCK, 0, 0, 1))), V(fcntl(f, F_SETLK, BAD)), V(fcntl(f, F_GETLK, BAD)), V(lk(f, F_GETLK, fl(F_UNLCK, 0, 0, 1)));
	int p[2];
	pipe(p), V(lk(p[1], F_SETLK, fl(F_WRLCK, 0, 0, 1)));
	V(close(dup(r))), sub(peek);
	H("blocking");
	lk(f, F_SETLK, fl(F_WRLCK, 0, 0, 0)), pipe(p);
	pid_t c = CHILD(int g = open("lk", O_RDWR); catch(SIGALRM, 0); ualarm(30000, 0); VN("SETLKW", lk(g, F_SETLKW, fl(F_WRLCK, 0, 0, 1))); write(p[1], "x", 1); VN("SETLKW", lk(g, F_SETLKW, fl(F_WRLCK, 0, 0, 1))));
	char b;
	read(p[0], &b, 1), sleep_ms(20), lk(f, F_SETLK, fl(F_UNLCK, 0, 0, 0)), P("%s", wait_for(c));
	lk(f, F_SETLK, fl(F_WRLCK, 0, 0, 1));
	c = CHILD(int g = open("lk", O_RDWR); lk(g, F_SETLK, fl(F_WRLCK, 0, 1, 1)); write(p[1], "x", 1); VN("child waits", lk(g, F_SETLKW, fl(F_WRLCK, 0, 0, 1))));
	read(p[0], &b, 1), sleep_ms(100), V(lk(f, F_SETLKW, fl(F_WRLCK, 0, 1, 1))), lk(f, F_SETLK, fl(F_UNLCK, 0, 0, 0)), P("%s", wait_for(c));
	H("OFD");
	f = open("lk", O_RDWR);
	int g = open("lk", O_RDWR);
	V(lk(f, F_OFD_SETLK, fl(F_WRLCK, 0, 0, 5))), V(lk(g, F_OFD_SETLK, fl(F_WRLCK, 0, 0, 1))), V(lk(g, F_SETLK, fl(F_RDLCK, 0, 0, 1))), who(g, F_OFD_GETLK, fl(F_WRLCK, 0, 0, 0)), who(f, F_OFD_GETLK, fl(F_WRLCK, 0, 0, 0)), who(g, F_GETLK, fl(F_WRLCK, 0, 0, 0)), V(lk(dup(f), F_OFD_SETLK, fl(F_RDLCK, 0, 0, 2)));
	struct flock l = fl(F_WRLCK, 0, 0, 1);
	l.l_pid = 1, V(fcntl(f, F_OFD_SETLK, &l)), V(close(f)), sub(peek);
	H("flock");
	f = open("lk", O_RDWR), g = open("lk", O_RDWR);
	V(flock(f, LOCK_SH)), V(flock(g, LOCK_SH)), V(flock(g, LOCK_EX | LOCK_NB)), V(flock(f, LOCK_UN)), V(flock(g, LOCK_EX | LOCK_NB)), V(flock(f, LOCK_SH | LOCK_NB)), V(flock(dup(g), LOCK_SH | LOCK_NB)), V(flock(f, LOCK_SH | LOCK_NB)), V(flock(f, 0)), V(flock(f, LOCK_SH | LOCK_EX)), V(flock(f, LOCK_NB)), V(flock(f, 77)), V(flock(-1, LOCK_SH)), V(flock(o, LOCK_SH)), V(flock(p[0], LOCK_EX)), V(flock(d, LOCK_EX)), V(flock(r, LOCK_EX | LOCK_NB)), V(flock(f, LOCK_UN)), V(flock(f, LOCK_UN)), V(flock(f, 32 | LOCK_SH));
	flock(g, LOCK_UN), flock(f, LOCK_UN), flock(g, LOCK_EX), catch(SIGALRM, 0), ualarm(30000, 0), V(flock(f, LOCK_EX));
}

static void leases(void) {
	int f = open("ls", O_RDWR | O_CREAT, 0644), r = open("ls", O_RDONLY);
	V(fcntl(f, F_GETLEASE)), V(fcntl(f, F_SETLEASE, F_RDLCK)), V(fcntl(f, F_SETLEASE, F_WRLCK)), V(fcntl(r, F_SETLEASE, F_RDLCK)), close(f), V(fcntl(r, F_SETLEASE, F_RDLCK)), V(fcntl(r, F_GETLEASE)), V(fcntl(r, F_SETLEASE, F_UNLCK)), V(fcntl(r, F_SETLEASE, F_UNLCK)), V(fcntl(r, F_SETLEASE, 9)), V(fcntl(r, F_SETLEASE, F_WRLCK)), V(fcntl(r, F_GETLEASE)), V(fcntl(open(".", O_RDONLY), F_SETLEASE, F_RDLCK)), V(fcntl(open("ls", O_PATH), F_SETLEASE, F_RDLCK)), V(fcntl(-1, F_GETLEASE));
	int p[2];
	pipe(p), V(fcntl(p[0], F_SETLEASE, F_RDLCK));
	catch(SIGIO, 0), fcntl(r, F_SETLEASE, F_UNLCK), fcntl(r, F_SETLEASE, F_RDLCK), conf_got = 0;
	pid_t c = CHILD(RN("child reads", open("ls", O_RDONLY)); RN("child writes, non-blocking", open("ls", O_WRONLY | O_NONBLOCK)); RN("child truncates", truncate("ls", 0)));
	for (int i = 0; i < 100 && !conf_got; i++)
		sleep_ms(2);
	int got = conf_got, lease = fcntl(r, F_GETLEASE), gone = fcntl(r, F_SETLEASE, F_UNLCK);
	P("%s", wait_for(c)), P("SIGIO %d, lease %d, given up %d", got > 0, lease, gone);
	H("a lease for writing, and signals that tell which");
	int w = open("ls", O_RDWR);
	conf_got = 0, V(fcntl(r, F_SETLEASE, F_RDLCK)), close(r), V(fcntl(w, F_SETLEASE, F_WRLCK)), V(fcntl(w, F_SETSIG, SIGUSR2)), V(fcntl(w, F_GETOWN) == getpid()), catch(SIGUSR2, 0);
	P("%s", wait_for(CHILD(RN("child reads, non-blocking", open("ls", O_RDONLY | O_NONBLOCK)); RN("again", open("ls", O_RDONLY | O_NONBLOCK)); R(access("ls", R_OK)); R(open("ls", O_PATH) < 0); V(fcntl(open("ls", O_PATH), F_GETLEASE)); RN("truncates", alarm(1) + truncate("ls", 0)))));
	P("%d: signal %d code %d fd %d band %lx", conf_got > 0, conf_sig, conf_info.si_code, conf_info.si_fd == w, conf_info.si_band), V(fcntl(w, F_GETLEASE)), V(fcntl(w, F_SETLEASE, F_WRLCK)), V(fcntl(w, F_SETLEASE, F_RDLCK)), V(fcntl(w, F_SETLEASE, F_UNLCK)), V(fcntl(w, F_GETLEASE));
	P("%s", wait_for(CHILD(if (getuid()) _exit(0); chown("ls", 5, 5); setuid(65534); V(fcntl(open("ls", O_RDONLY), F_SETLEASE, F_RDLCK)))));
}

static void seals(void) {
	int m = memfd_create("a", MFD_ALLOW_SEALING), n = memfd_create("b", 0), f = file("f", "x"), s = memfd_create("c", 8 /* NOEXEC_SEAL */);
	V(memfd_create("x", 0x100) >= 0), V(memfd_create(BAD, 0)), V(memfd_create("x", 8 | 16));
	char name[260];
	memset(name, 'n', 259), name[249] = 0, RN("249 bytes", memfd_create(name, 0)), memset(name, 'n', 259), name[250] = 0, RN("250 bytes", memfd_create(name, 0));
	XN("memfd", fcntl(m, F_GET_SEALS)), XN("not allowed", fcntl(n, F_GET_SEALS)), XN("not executable", fcntl(s, F_GET_SEALS)), XN("file", fcntl(f, F_GET_SEALS)), V(fcntl(n, F_ADD_SEALS, F_SEAL_GROW)), V(fcntl(f, F_ADD_SEALS, F_SEAL_GROW)), V(fcntl(m, F_ADD_SEALS, 0x100)), V(fcntl(m, F_ADD_SEALS, 0));
	ftruncate(m, 8192);
	char *sh = mmap(0, 8192, 3, MAP_SHARED, m, 0), *ro;
	V(fcntl(m, F_ADD_SEALS, F_SEAL_WRITE)), munmap(sh, 8192), V(fcntl(m, F_ADD_SEALS, F_SEAL_GROW)), V(ftruncate(m, 8193)), V(ftruncate(m, 8191)), V(pwrite(m, "x", 1, 9000)), V(pwrite(m, "xy", 2, 8190)), V(fallocate(m, 0, 8192, 1)), V(fcntl(m, F_ADD_SEALS, F_SEAL_SHRINK)), V(ftruncate(m, 100)), V(ftruncate(m, 8191)), V(fallocate(m, 3, 0, 4096)), V(fcntl(m, F_ADD_SEALS, F_SEAL_WRITE)), V(write(m, "x", 1)), V(fallocate(m, 3, 0, 4096)), RN("mmap shared rw", mmap(0, 4096, 3, MAP_SHARED, m, 0)), RN("mmap shared r", ro = mmap(0, 4096, 1, MAP_SHARED, m, 0)), RN("mprotect", mprotect(ro, 4096, 3)), RN("mmap private rw", mmap(0, 4096, 3, MAP_PRIVATE, m, 0)), V(fcntl(m, F_ADD_SEALS, F_SEAL_SEAL)), V(fcntl(m, F_ADD_SEALS, F_SEAL_GROW)), XN("all", fcntl(m, F_GET_SEALS));
	m = memfd_create("d", MFD_ALLOW_SEALING), ftruncate(m, 4096), sh = mmap(0, 4096, 3, MAP_SHARED, m, 0);
	V(fcntl(m, F_ADD_SEALS, 0x10 /* FUTURE_WRITE */)), *sh = 1, P("mapped before: %d", *sh), V(write(m, "x", 1)), RN("mmap shared rw", mmap(0, 4096, 3, MAP_SHARED, m, 0)), RN("mmap shared r", ro = mmap(0, 4096, 1, MAP_SHARED, m, 0)), RN("mprotect", mprotect(ro, 4096, 3));
	char p[64];
	sprintf(p, "/proc/self/fd/%d", m), RN("reopened r", open(p, O_RDONLY)), RN("reopened rw", open(p, O_RDWR)), V(fcntl(open(p, O_RDONLY), F_ADD_SEALS, F_SEAL_GROW));
	struct stat st;
	fstat(s, &st), P("mode %o", st.st_mode), V(fchmod(s, 0700)), V(fchmod(m, 0700)), V(fcntl(m, F_ADD_SEALS, 0x20)), V(fchmod(m, 0600)), V(fchmod(m, 0700));
}

int main(void) { sub(dups), sub(flags), sub(locks), sub(leases), sub(seals); }
