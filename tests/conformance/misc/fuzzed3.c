// What differential fuzzing found, the third part.
#include "conf.h"
#include <linux/openat2.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

static char buf[8192];

static void stopped(void) {
	H("a stopped process takes no signal but SIGKILL and SIGCONT");
	int st;
	for (int threads = 0; threads < 2; threads++) {
		pid_t p = fork();
		if (!p)
			for (;;)
				pause();
		V(kill(p, SIGSTOP)), waitpid(p, &st, WUNTRACED), P("%s", conf_status(st));
		V(kill(p, SIGTERM)), V(kill(p, SIGHUP)), sleep_ms(20), V(waitpid(p, &st, WNOHANG));
		V(kill(p, threads ? SIGKILL : SIGCONT)), waitpid(p, &st, 0), P("%s", threads || WTERMSIG(st) == SIGTERM || WTERMSIG(st) == SIGHUP ? "dead" : conf_status(st));
	}
}

static void nothing(int s) {}

static void *opener(void *p) {
	open(p, O_RDONLY);
	return 0;
}

#include <pthread.h>
static void descriptors(void) {
	H("a descriptor is taken before the file is opened");
	pthread_t t;
	mkfifo("fifo", 0666);
	int low = dup(0);
	close(low), pthread_create(&t, 0, opener, "fifo"), sleep_ms(50);
	P("while another waits: %d above", dup(0) - low), V(dup2(0, low));
	close(open("fifo", O_WRONLY)), pthread_join(t, 0);
	struct rlimit none = {0, 0}, was;
	getrlimit(RLIMIT_NOFILE, &was), setrlimit(RLIMIT_NOFILE, &(struct rlimit){0, was.rlim_max});
	int fds[2] = {7, 7};
	V(open("absent", O_RDONLY)), V(accept4(0, 0, 0, 0)), V(accept4(0, 0, 0, 1)), V(socketpair(AF_INET, SOCK_STREAM, 0, fds)), V(pipe(fds)), setrlimit(RLIMIT_NOFILE, &was);
	fds[0] = fds[1] = -1, V(socketpair(AF_INET, SOCK_STREAM, 0, fds)), P("told %d %d", fds[0] >= 0, fds[1] - fds[0]);
}

static void messages(void) {
	H("the kernel's own flag comes before what the descriptor is");
	struct msghdr m = {};
	struct mmsghdr mm = {};
	V(sendmsg(-1, &m, 0x80000000)), V(recvmsg(-1, &m, 0x80000000)), V(SC(sendmmsg, -1, &mm, 1L, 0x80000000L)), V(SC(recvmmsg, -1, &mm, 1L, 0x80000000L, 0L)), V(sendto(-1, "", 0, 0x80000000, 0, 0));
	H("a stream's receive goes on to descriptors, and no further");
	int p[2], fd = -1;
	socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p);
	struct { struct cmsghdr h; int fd, pad; } c = {{20, SOL_SOCKET, SCM_RIGHTS}, p[0]};
	struct iovec v = {buf, 10}, big = {buf, 100};
	struct msghdr s = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = 20};
	for (int peek = MSG_PEEK; peek >= 0; peek -= MSG_PEEK) {
		if (peek)
			V(send(p[1], buf, 5, 0)), V(sendmsg(p[1], &s, 0)), V(send(p[1], buf, 7, 0));
		c.fd = -1;
		struct msghdr r = {.msg_iov = &big, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof c};
		V(recvmsg(p[0], &r, peek)), P("a descriptor %d", c.fd > 0);
	}
	V(recv(p[0], buf, 100, 0)), V(recv(p[0], buf, 100, 0));
	struct msghdr none = {.msg_control = &c, .msg_controllen = sizeof c};
	c.h = (struct cmsghdr){20, SOL_SOCKET, SCM_RIGHTS}, c.fd = p[0], s.msg_controllen = 20, V(sendmsg(p[1], &s, 0)), c.fd = -1, V(recvmsg(p[0], &none, 0)), P("for nothing: a descriptor %d", c.fd > 0), V(recv(p[0], buf, 100, 0));
	H("what cannot be read is not sent in part");
	struct iovec w[] = {{buf, 3}, {BAD, 3}};
	s = (struct msghdr){.msg_iov = w, .msg_iovlen = 2}, V(sendmsg(p[1], &s, 0)), V(recv(p[0], buf, 100, 0));
	H("a sender's address is what it is when the message is received");
	struct sockaddr_un a = {AF_UNIX, "late"}, from;
	socklen_t n = sizeof from;
	int l = socket(AF_UNIX, SOCK_DGRAM, 0), o = socket(AF_UNIX, SOCK_DGRAM, 0);
	struct sockaddr_un to = {AF_UNIX, "to"};
	V(bind(l, (void *)&to, sizeof to)), V(sendto(o, "x", 1, 0, (void *)&to, sizeof to)), V(bind(o, (void *)&a, sizeof a)), V(recvfrom(l, buf, 9, 0, (void *)&from, &n)), P("%d %s", n, from.sun_path);
	V(sendto(o, "x", 1, 0, (void *)&to, sizeof to)), close(o), n = sizeof from, V(recvfrom(l, buf, 9, 0, (void *)&from, &n)), P("%d %s", n, from.sun_path);
}

static void splices(void) {
	H("splice(2) and its kin");
	int p[2], q[2], ev = eventfd(3, 0), f = open("spliced", O_RDWR | O_CREAT, 0666), d = open(".", O_RDONLY), u[2];
	loff_t off = 0, neg = -1;
	pipe(p), pipe2(q, O_NONBLOCK), socketpair(AF_UNIX, SOCK_DGRAM, 0, u), write(p[1], buf, 10);
	V(splice(ev, 0, p[1], 0, 8, 0)), V(splice(p[0], 0, ev, 0, 8, 0)), V(splice(u[0], 0, p[1], 0, -1, SPLICE_F_NONBLOCK)), V(splice(p[0], 0, f, 0, -1, 0)), V(splice(p[0], 0, q[1], 0, -1, 0));
	V(sendfile(-1, ev, &off, 8)), V(sendfile(-1, f, &neg, 8)), V(sendfile(-1, d, 0, 8)), V(sendfile(f, -1, &off, 8)), V(sendfile(-1, f, 0, -1));
	V(pwrite(f, buf, 64, 0)), V(lseek(f, 1000, SEEK_SET)), off = 10, V(sendfile(f, f, &off, 2000)), V(off), V(lseek(f, 0, SEEK_CUR));
	V(copy_file_range(p[0], 0, d, 0, 8, 0)), V(copy_file_range(d, 0, p[0], 0, 8, 0)), V(copy_file_range(p[0], 0, f, 0, 8, 0));
}

static void paths(void) {
	H("openat2(2)");
	struct open_how in = {.flags = O_RDONLY, .resolve = RESOLVE_IN_ROOT}, cached = {.flags = O_DIRECTORY | O_CREAT, .resolve = RESOLVE_CACHED}, up = {.flags = O_CREAT | O_RDWR, .mode = 0600, .resolve = RESOLVE_BENEATH};
	int null = open("/dev/null", O_RDONLY), d = open("..", O_RDONLY);
	V(SC(openat2, -1, "/etc/passwd", &in, sizeof in)), V(SC(openat2, null, "/", &in, sizeof in)), V(SC(openat2, null, "/etc", &in, sizeof in)), V(SC(openat2, d, "/absent/x", &in, sizeof in)), V(SC(openat2, d, "/", &in, sizeof in) > 0);
	V(SC(openat2, AT_FDCWD, "x", &cached, sizeof cached)), V(SC(openat2, AT_FDCWD, ".", &up, sizeof up));
	H("a null path");
	struct stat st;
	V(SC(newfstatat, null, 0L, &st, AT_EMPTY_PATH | 0x300L)), P("%o", st.st_mode & S_IFMT), V(SC(newfstatat, 0L, 0L, &st, 0x300L)), V(SC(newfstatat, -1L, 0L, &st, AT_EMPTY_PATH | 0L));
	H("locks that are asked for must be locks");
	struct flock l = {F_UNLCK, SEEK_SET, 0x7fffffffffffffff, 4096}, r = {F_RDLCK, SEEK_SET, 0x7fffffffffffffff, 4096};
	int f = open("locked", O_RDWR | O_CREAT, 0666);
	V(fcntl(f, F_GETLK, &l)), V(fcntl(f, F_GETLK, &r)), V(fcntl(f, F_OFD_GETLK, &l)), V(fcntl(f, F_SETLK, &l));
	if (geteuid()) {
		V(linkat(AT_FDCWD, "", AT_FDCWD, "l", AT_EMPTY_PATH)), V(linkat(AT_FDCWD, "", -1, "l", AT_EMPTY_PATH));
	}
	H("one of two answers that cannot be written");
	buf[0] = 7, V(SC(getcpu, BAD, buf, 0L)), P("%d", buf[0]);
	if (!getuid()) {
		H("set-ID bits go when room is made, and who may look at descriptors");
		int g = open("setid", O_RDWR | O_CREAT, 0666);
		fchmod(g, 02755), chmod(".", 0777);
		if (!fork()) {
			setresgid(1000, 1000, 1000), setresuid(1000, 1000, 1000);
			V(fallocate(g, FALLOC_FL_KEEP_SIZE, 100, 100)), fstat(g, &st), P("%o", st.st_mode), exit(0);
		}
		wait(0);
		if (!fork()) {
			V(unshare(CLONE_NEWUSER)), prctl(PR_SET_DUMPABLE, 1), V(access("/proc/1/fd", W_OK)), V(access("/proc/1/fd", R_OK)), V(access("/proc/self/fd", W_OK)), exit(0);
		}
		wait(0);
	}
}

static const char *guarded;
static void fault(int s, siginfo_t *i, void *u) { P("%s: code %d", guarded, i->si_code), exit(0); }

static void memory(void) {
	H("guards in what may not be touched anyway");
	static const int prots[] = {PROT_NONE, PROT_READ, PROT_WRITE, PROT_READ | PROT_WRITE};
	for (int i = 0; i < 4; i++)
		for (int w = 0; w < 2; w++)
			if (!fork()) {
				volatile char *m = mmap(0, 4096, prots[i], MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
				struct sigaction sa = {.sa_flags = SA_SIGINFO, .sa_sigaction = fault};
				sigaction(SIGSEGV, &sa, 0), snprintf(buf, 64, "prot %d, %s", prots[i], w ? "written" : "read"), guarded = buf;
				if (madvise((void *)m, 4096, MADV_GUARD_INSTALL))
					P("%s: no guards", guarded), exit(0);
				w ? (void)(*m = 1) : (void)*m;
				exit(0);
			} else
				wait(0);
	H("mremap(2)");
	V(SC(mremap, 0x200000000000L, -4096L, 4096L, 3L, 0x200000000000L));
	char *g = mmap(0, 64 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	munmap(g, 64 * 4096), mmap(g, 8192, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), mmap(g + 8 * 4096, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_GROWSDOWN, -1, 0);
	V((char *)SC(mremap, g + 4096, 4096L, 4 * 4096L, 1L, 0L) - g);
}

static void signals(void) {
	H("a signal that signalfd(2) waits for and that is not blocked");
	uint64_t set = 1 << (SIGUSR1 - 1);
	struct signalfd_siginfo si = {};
	int f = SC(signalfd4, -1L, &set, 8L, 0L), st;
	signal(SIGUSR1, nothing);
	pid_t me = getpid();
	if (!fork())
		sleep_ms(50), kill(me, SIGUSR1), exit(0);
	V(read(f, &si, sizeof si)), V(si.ssi_signo), wait(&st);
	H("an interrupted waitid(2) tells of nobody");
	siginfo_t i;
	struct sigaction sa = {.sa_handler = nothing};
	memset(&i, 0x5a, sizeof i), sigaction(SIGUSR2, &sa, 0);
	pid_t c = fork();
	if (!c)
		sleep_ms(50), kill(me, SIGUSR2), sleep_ms(50), exit(0);
	V(waitid(P_ALL, 0, &i, WSTOPPED)), P("%d %d %d", i.si_signo, i.si_code, i.si_pid), waitpid(c, 0, 0);
}

static void *other(void *p) {
	V(SC(setresuid, 1000L, 1000L, 1000L)), V(SC(prlimit64, (long)getpid(), (long)RLIMIT_NOFILE, 0L, buf)), V(SC(prlimit64, 0L, (long)RLIMIT_NOFILE, 0L, buf));
	return 0;
}

static void ports(void) {
	H("a datagram socket that fails to send or to connect has a port all the same");
	struct sockaddr_in a = {AF_INET, 0, {htonl(INADDR_LOOPBACK)}};
	int f = open("/dev/full", O_RDWR);
	for (int i = 0; i < 3; i++) {
		int s = socket(AF_INET, SOCK_DGRAM, 0);
		socklen_t n = sizeof a;
		struct sockaddr_in b = {};
		i == 0 ? V(write(s, "x", 1)) : i == 1 ? V(sendto(s, "x", 1, 0, (void *)&a, 0)) : V(connect(s, (void *)&a, 8));
		V(bind(s, (void *)&a, sizeof a)), V(getsockname(s, (void *)&b, &n)), P("a port %d", b.sin_port != 0);
	}
	H("what an option's value lacks");
	int t = socket(AF_INET, SOCK_STREAM, 0);
	V(setsockopt(t, IPPROTO_TCP, 13, "", 1)), V(setsockopt(t, IPPROTO_TCP, 13, "", 0)), V(setsockopt(t, IPPROTO_TCP, 13, "none", 4));
	H("files without such operations");
	V((long)mmap(0, 4096, 3, MAP_PRIVATE, f, 0)), V((long)mmap(0, 4096, 3, MAP_SHARED, f, 0));
	H("limits of another thread");
	if (!getuid()) {
		pthread_t o;
		pthread_create(&o, 0, other, 0), pthread_join(o, 0);
	}
}

static void mounts(void) {
	if (getuid() || unshare(CLONE_NEWNS) || mount("", "/", 0, MS_REC | MS_PRIVATE, 0))
		return;
	H("mount(2): what is looked at first");
	mkdir("dir", 0777), mkdir("other", 0777), close(open("file", O_CREAT, 0666));
	int fd = open("dir", O_RDONLY);
	char old[64];
	snprintf(old, 64, "/proc/self/fd/%d", fd);
	V(mount("none", "other", "tmpfs", 0, 0)), V(mount("", "other", 0, MS_UNBINDABLE, 0)), RN("unbindable on a file", mount("other", "file", 0, MS_BIND, 0)), RN("a directory on a file", mount("dir", "file", 0, MS_BIND, 0));
	V(unshare(CLONE_NEWNS)), RN("of another namespace on a file", mount(old, "file", 0, MS_BIND, 0)), RN("of another namespace on a directory", mount(old, "dir", 0, MS_BIND, 0));
}

int main(void) { sub(stopped), sub(descriptors), sub(messages), sub(splices), sub(paths), sub(memory), sub(signals), sub(ports), sub(mounts); }
