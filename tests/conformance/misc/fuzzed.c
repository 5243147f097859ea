// What differential fuzzing found: mostly which of two errors is told first, and what is written beside an error.
#include "conf.h"
#include <net/if.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/xattr.h>

static char buf[8192];

static void files(void) {
	int f = file("a", "abc"), p[2], w = open("a", O_WRONLY);
	loff_t neg = -4096, zero = 0;
	pipe2(p, O_NONBLOCK);
	V(SC(setxattr, "none", "user.a", "x", 1, 4)), V(SC(fsetxattr, -1, "user.a", BAD, 3, 1)), V(SC(fsetxattr, -1, "", "x", 1, 1)), V(SC(getxattr, "none", "", buf, 16)), V(SC(fremovexattr, 1000, "")), V(SC(lsetxattr, "none", "user.b", 0L, 63, 0));
	V(SC(sendfile, -1, -1, &neg, 3)), V(SC(sendfile, f, f, &neg, 3)), V(SC(splice, p[1], &zero, f, &zero, 7, 2)), V(SC(splice, f, &neg, p[1], 0, 7, 2)), V(SC(splice, f, BAD, p[1], 0, 7, 2)), V(SC(splice, w, 0, p[1], 0, 7, 2)), V(SC(tee, w, p[1], 7, 2));
	V(SC(vmsplice, f, "", 0, 2)), V(SC(vmsplice, f, &(struct iovec){buf, 3}, 1, 2)), V(SC(lseek, p[0], 0, -1)), V(SC(lseek, p[0], 0, 9)), V(SC(flock, -1, 0)), V(SC(flock, -1, 3)), V(SC(flock, -1, LOCK_SH));
	struct timespec bad[2] = {{5, -1}, {0, 0}};
	V(SC(utimensat, 99, "a", bad, 0)), V(SC(utimensat, AT_FDCWD, "none", bad, 0)), V(SC(utimensat, AT_FDCWD, "a", bad, 0));
	int n = 0;
	V(SC(ioctl, p[0], 2, &n)), P("%d", n), V(SC(ioctl, f, 2, &n)), P("%d", n);
	struct f_owner_ex o = {9, 9};
	V(fcntl(p[0], F_GETOWN_EX, &o)), P("%d %d", o.type, o.pid);
	int m = memfd_create("m", 0);
	V(fcntl(m, F_GETFL));
	catch(SIGXFSZ, 0), setrlimit(RLIMIT_FSIZE, &(struct rlimit){1 << 20, 1 << 20}), V(pwrite(f, "x", 1, 1 << 20)), P("%d code %d self %d", conf_got, conf_info.si_code, conf_info.si_pid == getpid());
	V(SC(mount, "none", "d", "", 8, "x")), V(SC(mount, "none", ".", "", 8, "x")), V(SC(mount, "none", ".", 0, 8, "x"));
}

static void maps(void) {
	char *p = mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int w = open("a", O_WRONLY | O_CREAT, 0644);
	munmap(p + 8192, 8192), V(mprotect(p + 8192, 4096, PROT_GROWSUP)), V(mprotect(p, 4096, PROT_GROWSUP)), V(SC(mmap, p + 100, 4096, PROT_READ, MAP_PRIVATE | MAP_FIXED, w, 0)), V(SC(mmap, p, 4096, PROT_READ, MAP_PRIVATE | MAP_FIXED, w, 0));
}

static void calls(void) {
	siginfo_t i;
	memset(&i, 0x5a, sizeof i), V(waitid(P_PID, -1, &i, WEXITED)), P("%d %d %d", i.si_signo, i.si_code, i.si_pid), memset(&i, 0x5a, sizeof i), V(waitid(P_ALL, 0, &i, WEXITED)), P("%d %d %d", i.si_signo, i.si_code, i.si_pid), V(waitid(P_ALL, 0, BAD, WEXITED));
	struct sigevent none = {.sigev_notify = SIGEV_NONE}, bad = {.sigev_notify = 7}, sig = {.sigev_signo = 99};
#define TIMER(c, ev) ({ int id = 77; V(SC(timer_create, c, ev, &id)), P("%d", id); })
	TIMER(0, 0), TIMER(0, &bad), TIMER(0, 0), TIMER(0, &sig), TIMER(0, 0), TIMER(99, 0), TIMER(0, 0), TIMER(-1, 0), TIMER(0, 0), TIMER(CLOCK_MONOTONIC_RAW, 0), TIMER(CLOCK_REALTIME_ALARM + 0 * 8, &none), TIMER(0, 0), TIMER(-6, 0), V(SC(timer_create, 0, 0, 0)), TIMER(0, 0);
	struct epoll_event e;
	V(epoll_wait(-1, &e, -1, 0)), V(SC(signalfd4, -1, BAD, 8, 1)), V(SC(semctl, 0, -1, SETVAL, 40000)), V(SC(msgsnd, 99, 0L, -1, 0)), V(SC(msgsnd, 99, buf, -1, 0));
	unsigned word = 0x5a5a5a5a;
	V(SC(futex, (char *)&word + 2, 7, 0, 0, 0, 0)), V(SC(futex, BAD, 7, 0, 0, 0, 0));
	int s = shmget(IPC_PRIVATE, 4096, 0600 | IPC_CREAT);
	struct shmid_ds d;
	void *at = shmat(s, 0, 0);
	shmctl(s, IPC_STAT, &d), P("attached %d detached %d", d.shm_atime != 0, d.shm_dtime != 0), shmdt(at), shmctl(s, IPC_STAT, &d), P("detached %d", d.shm_dtime != 0), shmctl(s, IPC_RMID, 0);
}

static pid_t taker;
static void took(int s) { taker = SC(gettid); }
static volatile pid_t second;
static void *thread(void *p) {
	second = SC(gettid);
	for (;;)
		pause();
}

static void threads(void) {
	pthread_t t;
	struct sigaction a = {.sa_handler = took};
	sigaction(SIGUSR1, &a, 0), pthread_create(&t, 0, thread, 0);
	while (!second)
		sleep_ms(1);
	V(kill(second, SIGUSR1)), sleep_ms(50), P("a signal to a process by a thread's number: %s", taker == second ? "that thread" : "the first"), V(kill(getpid(), SIGUSR1)), sleep_ms(50), P("by its own: %s", taker == second ? "that thread" : "the first");
}

static void sockets(void) {
	int p[2], u = socket(AF_INET, SOCK_DGRAM, 0), q = socket(AF_UNIX, SOCK_SEQPACKET, 0), n = 1;
	socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p);
	V(read(p[0], buf, 0)), V(recv(p[0], buf, 0, 0)), V(SC(ioctl, q, 0x8905, &n)), V(SC(ioctl, q, 0x8905, BAD)), V(SC(ioctl, p[0], 0x8905, &n)), V(SC(setsockopt, p[0], SOL_SOCKET, 26, &n, 4)), V(setsockopt(u, SOL_SOCKET, SO_PASSCRED, &n, 4)), V(setsockopt(p[0], SOL_SOCKET, SO_PASSCRED, &n, 4)), V(SC(setsockopt, u, 17, 16, &n, 0)), V(SC(setsockopt, u, 17, 16, &n, 4)), V(SC(recvfrom, 99, -1L, 1, 0, 0, 0)), V(SC(sendto, 99, -1L, 1, 0, 0, 0));
	if (getuid() || unshare(CLONE_NEWNET))
		return;
	H("lo comes up by ioctl(2)");
	struct ifreq r = {.ifr_name = "lo"};
	int s = socket(AF_INET, SOCK_DGRAM, 0);
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(7), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	V(connect(s, (void *)&a, sizeof a)), V(ioctl(s, SIOCGIFFLAGS, &r)), P("%x", r.ifr_flags), r.ifr_flags |= IFF_UP, V(ioctl(s, SIOCSIFFLAGS, &r)), V(ioctl(s, SIOCGIFFLAGS, &r)), P("%x", r.ifr_flags), V(connect(s, (void *)&a, sizeof a)), r.ifr_mtu = 9000, V(ioctl(s, SIOCSIFMTU, &r)), V(ioctl(s, SIOCGIFMTU, &r)), P("%d", r.ifr_mtu);
	strcpy(r.ifr_name, "none"), V(ioctl(s, SIOCSIFFLAGS, &r)), setresuid(1000, 1000, 1000), V(ioctl(s, SIOCSIFFLAGS, &r)), V(SC(pivot_root, "none", "none"));
}

// The structure of setxattrat(2) and getxattrat(2).
static void at(void) {
	struct { uint64_t value; uint32_t size, flags; } a = {(uint64_t)"abc", 3, 0}, b = {(uint64_t)buf, 100, 0}, bad = {(uint64_t)"abc", 3, 4};
	int f = file("x", "");
	V(SC(setxattrat, AT_FDCWD, "x", 0, "user.a", &a, 16)), V(SC(setxattrat, AT_FDCWD, "none", 0, "user.a", &bad, 16)), V(SC(setxattrat, AT_FDCWD, "x", 0, "user.a", &a, 15)), V(SC(setxattrat, AT_FDCWD, "x", 0, "user.a", &a, 5000)), V(SC(setxattrat, AT_FDCWD, "x", 1, "user.a", &a, 16)), V(SC(setxattrat, f, "", AT_EMPTY_PATH, "user.b", &a, 16)), V(SC(setxattrat, f, 0L, AT_EMPTY_PATH, "user.b", &a, 16)), V(SC(setxattrat, AT_FDCWD, "x", 0, "user.a", 0L, 16));
	V(SC(getxattrat, AT_FDCWD, "x", 0, "user.a", &b, 16)), P("%.3s", buf), b.flags = 1, V(SC(getxattrat, AT_FDCWD, "x", 0, "user.a", &b, 16)), V(SC(listxattrat, AT_FDCWD, "x", 0, buf, 100)), V(SC(listxattrat, f, "", AT_EMPTY_PATH, buf, 0)), V(SC(removexattrat, AT_FDCWD, "x", 0, "user.a")), V(SC(removexattrat, AT_FDCWD, "x", 0, "user.a")), V(SC(removexattrat, AT_FDCWD, "x", 8, "user.a"));
}

int main(void) { sub(files), sub(maps), sub(calls), sub(threads), sub(sockets), sub(at); }
