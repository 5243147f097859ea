// Throws system calls at the kernel under test: numbers at random, arguments half by kind, half at random. It never minds what comes back.
//
//   raw SEED SECONDS WORKERS < signatures
//
// A signature is "NUMBER KIND KIND ...". Workers, each in a PID namespace of its own, make a few thousand calls and are replaced; one that makes no progress is
// killed. At the end the number of calls is printed.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX = 600, ARENA = 1 << 18, CALLS = 3000 };
static struct sig { int known, n; char kind[6][16]; } sigs[MAX];
static volatile struct shared { uint64_t calls, turn[64], last[64]; } *shared;
static uint64_t state;
static char *arena, *edge;

static uint64_t rnd(void) {
	state ^= state << 13, state ^= state >> 7, state ^= state << 17;
	return state;
}
static uint64_t upto(uint64_t n) { return rnd() % n; }

static const char *paths[] = {".", "..", "/", "a", "b", "d", "d/e", "l", "none", "/proc/self/fd/3", "/proc/self/maps", "/proc/self/mem", "/proc/1/stat", "/dev/null", "/dev/zero", "/dev/ptmx", "/dev/full", "/dev/shm/x", "/tmp/w/f", "/proc/self/ns/mnt", "/proc/self", "/sys", "", "user.a", "security.capability", "tmpfs", "proc", "mqueue", "/proc/sys/kernel/hostname", "/proc/self/uid_map", "/dev/tty", "f/", "very/long/../../a"};

static uint64_t wild(void) {
	switch (upto(16)) {
	case 0: return 0;
	case 1: return -1;
	case 2: return upto(32);
	case 3: return upto(16);
	case 4: case 5: case 6: return (uint64_t)arena + upto(ARENA);
	case 7: return (uint64_t)arena + upto(ARENA / 4096) * 4096;
	case 8: return 8;
	case 9: return (uint64_t)edge - upto(64);
	case 10: return rnd();
	case 11: return 1ULL << upto(64);
	case 12: return upto(64) << 12;
	case 13: return 0xffff800000000000 + rnd() % 4096;
	case 14: return (uint32_t)rnd();
	}
	return -upto(4096);
}

static uint64_t typed(const char *k) {
	if (!upto(8))
		return wild();
	if (!strcmp(k, "fd"))
		return upto(24);
	if (!strcmp(k, "dirfd"))
		return upto(2) ? AT_FDCWD : upto(16);
	if (!strcmp(k, "path") || !strcmp(k, "str")) {
		char *p = arena + upto(ARENA - 256);
		strcpy(p, paths[upto(sizeof paths / sizeof *paths)]);
		return (uint64_t)p;
	}
	if (!strcmp(k, "size"))
		return upto(4) ? upto(8192) : 1ULL << upto(34);
	if (!strcmp(k, "off"))
		return upto(4) ? upto(1 << 20) : wild();
	if (!strcmp(k, "pid") || !strcmp(k, "id"))
		return upto(4);
	if (!strcmp(k, "signal"))
		return upto(66);
	if (!strcmp(k, "ptr") || !strcmp(k, "buf") || !strcmp(k, "data"))
		return (uint64_t)arena + upto(ARENA - 4096) / 8 * 8;
	if (!strcmp(k, "iovec")) {
		uint64_t *v = (uint64_t *)(arena + upto(ARENA - 4096) / 8 * 8);
		for (int i = 0; i < 8; i++)
			v[2 * i] = upto(8) ? (uint64_t)arena + upto(ARENA) : wild(), v[2 * i + 1] = upto(8) ? upto(5000) : wild();
		return (uint64_t)v;
	}
	if (!strcmp(k, "int"))
		return upto(3) ? upto(12) : wild();
	return upto(2) ? upto(64) : upto(4) ? 1ULL << upto(32) | 1ULL << upto(12) : rnd();
}

static void fill(void) {
	uint64_t *p = (uint64_t *)arena;
	for (int n = 64 + upto(256); n; n--)
		p[upto(ARENA / 8)] = upto(3) ? wild() : upto(64);
}

static void worker(int me, uint64_t seed) {
	state = seed * 0x9e3779b97f4a7c15 | 1;
	for (int i = 0; i < 8; i++)
		rnd();
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	struct rlimit procs = {40, 40}, files = {64, 64}, size = {16 << 20, 16 << 20}, as = {512 << 20, 512 << 20};
	setrlimit(RLIMIT_NOFILE, &files), setrlimit(RLIMIT_FSIZE, &size), setrlimit(RLIMIT_AS, &as), setrlimit(RLIMIT_NPROC, &procs);
	if (seed & 1 && (setresgid(1000 + me, 1000 + me, 1000 + me) || setresuid(1000 + me, 1000 + me, 1000 + me)))
		_exit(1);
	if (seed & 2)
		unshare(CLONE_NEWUSER | CLONE_NEWNS);
	arena = mmap(0, ARENA + 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	edge = arena + ARENA + 4096;
	munmap(edge, 4096);
	int p[2];
	open("/tmp/w", O_RDONLY), open("a", O_RDWR | O_CREAT, 0666), pipe2(p, O_NONBLOCK), socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p), socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, p), syscall(SYS_epoll_create1, 0), syscall(SYS_eventfd2, 3, O_NONBLOCK), syscall(SYS_timerfd_create, 1, O_NONBLOCK), syscall(SYS_inotify_init1, O_NONBLOCK), syscall(SYS_memfd_create, "m", 2), open("/dev/ptmx", O_RDWR | O_NONBLOCK), socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK, 0);
	fill();
	for (int i = 0; i < CALLS; i++) {
		uint64_t a[6];
		int nr = upto(16) ? upto(480) : wild();
		if (nr == SYS_exit_group || nr == SYS_exit || nr == SYS_pause || nr == SYS_rt_sigsuspend)
			continue;
		struct sig *s = nr >= 0 && nr < MAX && sigs[nr].known && upto(4) ? &sigs[nr] : 0;
		for (int k = 0; k < 6; k++)
			a[k] = s && k < s->n ? typed(s->kind[k]) : wild();
		if ((nr == SYS_clone || nr == SYS_fork || nr == SYS_vfork || nr == SYS_clone3) && upto(8))
			continue;
		shared->last[me] = (uint64_t)(uint32_t)nr;
		shared->turn[me]++;
		pid_t was = getpid();
		long r = syscall(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
		if (!r && (nr == SYS_clone || nr == SYS_fork || nr == SYS_vfork || nr == SYS_clone3))
			_exit(0);
		if (!upto(64))
			fill();
	}
}

// stage is init of the worker's PID namespace.
static void stage(int me, uint64_t seed) {
	pid_t p = fork();
	if (!p) {
		worker(me, seed);
		_exit(0);
	}
	uint64_t last = 0;
	for (int idle = 0; idle < 8; idle++) {
		for (int i = 0; i < 25; i++) {
			if (waitpid(p, 0, WNOHANG) == p)
				return;
			struct timespec t = {0, 2000000};
			nanosleep(&t, 0);
		}
		if (shared->turn[me] != last)
			last = shared->turn[me], idle = 0;
	}
}

int main(int argc, char **argv) {
	uint64_t seed = argc > 1 ? strtoull(argv[1], 0, 0) : 1;
	int seconds = argc > 2 ? atoi(argv[2]) : 10, workers = argc > 3 ? atoi(argv[3]) : 4;
	char line[256];
	while (fgets(line, sizeof line, stdin)) {
		int nr = atoi(line);
		if (nr < 0 || nr >= MAX)
			continue;
		struct sig *s = &sigs[nr];
		s->known = 1;
		strtok(line, " \n");
		for (char *k; s->n < 6 && (k = strtok(0, " \n"));)
			snprintf(s->kind[s->n++], 16, "%s", k);
	}
	shared = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pid[64] = {0};
	time_t end = time(0) + seconds;
	uint64_t lost = 0, runs = 0;
	signal(SIGINT, SIG_IGN);
	while (time(0) < end) {
		for (int i = 0; i < workers; i++)
			if (!pid[i]) {
				seed++;
				if (!(pid[i] = fork())) {
					setpgid(0, 0);
					int null = open("/dev/null", O_RDWR);
					dup2(null, 0), dup2(null, 1), dup2(null, 2), close(null);
					if (unshare(CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS))
						_exit(9);
					mount("", "/", 0, MS_REC | MS_PRIVATE, 0), mount("t", "/tmp", "tmpfs", 0, "size=8m,mode=1777"), mkdir("/tmp/w", 0777), chmod("/tmp/w", 0777), chdir("/tmp/w");
					pid_t p = fork();
					if (!p) {
						mount("p", "/proc", "proc", 0, 0);
						stage(i, seed);
						_exit(0);
					}
					waitpid(p, 0, 0);
					_exit(0);
				}
				runs++;
			}
		int st;
		pid_t p = wait(&st);
		for (int i = 0; i < workers; i++)
			if (pid[i] == p)
				pid[i] = 0, lost += st != 0, shared->calls += shared->turn[i], shared->turn[i] = 0;
	}
	for (int i = 0; i < workers; i++)
		if (pid[i])
			kill(pid[i], SIGKILL), shared->calls += shared->turn[i];
	printf("calls %llu workers %llu failed %llu next seed %llu\n", (unsigned long long)shared->calls, (unsigned long long)runs, (unsigned long long)lost, (unsigned long long)seed);
	return 0;
}
