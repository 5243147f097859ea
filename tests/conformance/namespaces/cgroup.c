// The cgroup2 file system: groups, their processes, freezing, killing, events, owners and cgroup namespaces; without controllers, which the host may have elsewhere.
#include "mounts.h"
#include <linux/sched.h>
#include <sys/inotify.h>
#include <sys/prctl.h>

static char base[128];
static const char *path(const char *f) {
	static char b[4][256];
	static int n;
	char *p = b[n++ & 3];
	snprintf(p, 256, "%s/%s", base, f);
	return p;
}
static int put(const char *f, const char *s) {
	int fd = open(path(f), O_WRONLY), r = -1, e;
	if (fd < 0)
		return -1;
	r = write(fd, s, strlen(s)) < 0 ? -1 : 0, e = errno, close(fd), errno = e;
	return r;
}
static const char *get(const char *f) {
	static char b[4096];
	int fd = open(path(f), O_RDONLY), n = fd < 0 ? -1 : read(fd, b, sizeof b - 1);
	if (n < 0)
		snprintf(b, sizeof b, "%s", conf_errno(errno));
	else
		b[n] = 0;
	close(fd);
	for (char *p = b; (p = strchr(p, '\n'));)
		*p = ' ';
	return b;
}
static int lines(const char *f) {
	int n = 0;
	for (const char *p = get(f); (p = strchr(p, ' ')); p++)
		n++;
	return n;
}
// of is what /proc says of the group of pid, without the base's path.
static const char *of(pid_t pid) {
	static char b[512];
	char f[64], *p;
	snprintf(f, sizeof f, "/proc/%d/cgroup", pid);
	FILE *in = fopen(f, "r");
	while (in && fgets(b, sizeof b, in))
		if (!strncmp(b, "0::", 3))
			break;
	if (in)
		fclose(in);
	b[strcspn(b, "\n")] = 0;
	if ((p = strstr(b, strrchr(base, '/'))))
		return p + strlen(strrchr(base, '/'));
	return b + 3;
}
static pid_t sleeper(void) {
	pid_t p = fork();
	if (!p)
		for (prctl(PR_SET_PDEATHSIG, SIGKILL);;)
			pause();
	return p;
}
// settled waits until nothing is in f: a process may be there for a moment after its end was told.
static const char *settled(const char *f) {
	for (int i = 0; lines(f) && i < 2000; i++)
		sleep_ms(1);
	return lines(f) ? "processes" : "nobody";
}
static char *pid_s(pid_t p) {
	static char b[16];
	sprintf(b, "%d", p);
	return b;
}
static const char *end(pid_t p) { return kill(p, SIGKILL), wait_for(p); }

static void tree(void) {
	R(mkdir(path("a"), 0755)), R(mkdir(path("a"), 0755)), R(mkdir(path("a/b"), 0700)), R(mkdir(path("a/cgroup.procs"), 0755)), R(mkdir(path("a\n"), 0755));
	R(creat(path("a/file"), 0644)), R(unlink(path("a/cgroup.procs"))), R(rename(path("a"), path("c"))), R(symlink("x", path("a/s"))), R(rmdir(path("a"))), R(rmdir(path("a/cgroup.procs")));
	struct stat s;
	R(stat(path("a"), &s)), P("mode %o, %ld links", s.st_mode, (long)s.st_nlink), R(stat(path("a/b"), &s)), P("mode %o", s.st_mode), stat(path("a/cgroup.procs"), &s), P("mode %o", s.st_mode), stat(path("a/cgroup.kill"), &s), P("mode %o", s.st_mode), stat(path("a/cgroup.events"), &s), P("mode %o", s.st_mode);
	P("%s", get("a/cgroup.type")), P("%s", get("a/cgroup.events")), P("%s", get("a/cgroup.procs")), P("%s", get("a/cgroup.freeze")), P("%s", get("a/cgroup.kill")), P("%s", get("a/cgroup.subtree_control"));
	R(put("a/cgroup.subtree_control", "+nosuch")), R(put("a/cgroup.subtree_control", "nosuch")), R(put("a/cgroup.subtree_control", "")), R(put("a/cgroup.type", "domain")), R(put("a/cgroup.type", "x"));
	int fd = open(path("a/b/cgroup.events"), O_RDONLY), d = open(path("a/b"), O_RDONLY | O_DIRECTORY);
	char b[64];
	R(rmdir(path("a/b"))), R(read(fd, b, 64)), R(openat(d, "cgroup.procs", O_RDONLY)), R(mkdirat(d, "x", 0755)), R(rmdir(path("a/b"))), R(rmdir(path("a"))), R(rmdir(path("a")));
}
static void procs(void) {
	mkdir(path("a"), 0755), mkdir(path("a/b"), 0755);
	pid_t p = sleeper(), q;
	R(put("a/cgroup.procs", "x")), R(put("a/cgroup.procs", "-1")), R(put("a/cgroup.procs", "99999999")), R(put("a/cgroup.procs", "2147483648")), R(put("a/cgroup.threads", pid_s(p)));
	R(put("a/b/cgroup.procs", pid_s(p))), P("%s; %d in b, %d in a", of(p), lines("a/b/cgroup.procs"), lines("a/cgroup.procs")), P("%s", get("a/cgroup.events")), P("%s", get("a/b/cgroup.events")), R(rmdir(path("a/b")));
	R(put("a/cgroup.procs", pid_s(p))), P("%s; %d in b, %d in a", of(p), lines("a/b/cgroup.procs"), lines("a/cgroup.procs")), P("%s", get("a/b/cgroup.events")), R(rmdir(path("a/b")));
	kill(p, SIGKILL), waitid(P_PID, p, 0, WEXITED | WNOWAIT), P("a zombie: %s", settled("a/cgroup.procs")), P("%s", get("a/cgroup.events")), P("%s", of(p)), R(rmdir(path("a"))), wait_for(p);
	mkdir(path("a"), 0755);
	P("%s", wait_for(CHILD({
		R(put("a/cgroup.procs", "0")), P("%s", of(getpid())), q = sleeper(), P("a child: %s", of(q)), P("%d in a", lines("a/cgroup.procs"));
		P("%s", end(q)), put("cgroup.procs", "0"), P("back: %s.", of(getpid()));
	})));
	R(rmdir(path("a")));
}
static void into(void) {
	mkdir(path("a"), 0755);
	int fd = open(path("a"), O_RDONLY | O_DIRECTORY), pfd = open(path("a"), O_PATH), f = open(path("a/cgroup.procs"), O_RDONLY), t = open("/tmp", O_RDONLY);
	int fds[] = {fd, pfd, f, t, 999};
	for (int i = 0; i < 5; i++) {
		struct clone_args c = {.flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = fds[i]};
		fflush(stdout);
		long p = SC(clone3, &c, sizeof c);
		if (!p) {
			P("child: %s", of(getpid())), fflush(stdout), _exit(0);
		}
		if (p < 0)
			P("%d: %s", i, conf_errno(errno));
		else
			P("%d: %s", i, wait_for(p));
	}
	rmdir(path("a"));
	struct clone_args c = {.flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = fd};
	R(SC(clone3, &c, sizeof c)), R(SC(clone3, &c, 80)), c.cgroup = 1L << 40, R(SC(clone3, &c, sizeof c));
}
static void frozen(void) {
	mkdir(path("a"), 0755), mkdir(path("a/b"), 0755);
	static volatile int *n;
	n = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t p = CHILD(for (;;) (*n)++);
	put("a/b/cgroup.procs", pid_s(p));
	int fd = open(path("a/b/cgroup.events"), O_RDONLY);
	char b[64];
	struct pollfd e = {fd, POLLPRI, 0};
	read(fd, b, 64);
	R(put("a/cgroup.freeze", "2")), R(put("a/cgroup.freeze", "x")), R(put("a/cgroup.freeze", "1")), P("%s", get("a/cgroup.freeze")), P("%s", get("a/b/cgroup.freeze"));
	V(poll(&e, 1, 5000)), P("events %d", e.revents), lseek(fd, 0, 0), read(fd, b, 64);
	for (int i = 0; !strstr(get("a/b/cgroup.events"), "frozen 1") && i < 1000; i++)
		sleep_ms(1);
	P("%s; %s", get("a/b/cgroup.events"), strstr(get("a/cgroup.events"), "frozen 1") ? "a too" : "a not");
	sleep_ms(20);
	int was = *n;
	sleep_ms(50), P("runs: %d", *n != was);
	R(put("cgroup.procs", pid_s(p)));
	for (int i = 0; *n == was && i < 5000; i++)
		sleep_ms(1);
	P("moved out, runs: %d", *n != was), put("a/b/cgroup.procs", pid_s(p));
	P("killed: %s", end(p)), R(put("a/cgroup.freeze", "0")), P("%s", get("a/b/cgroup.events")), rmdir(path("a/b")), rmdir(path("a"));
}
static void killed(void) {
	mkdir(path("a"), 0755), mkdir(path("a/b"), 0755);
	pid_t p = sleeper(), q = sleeper();
	put("a/cgroup.procs", pid_s(p)), put("a/b/cgroup.procs", pid_s(q));
	R(put("a/cgroup.kill", "0")), R(put("a/cgroup.kill", "x")), R(put("a/cgroup.kill", "1")), P("%s %s", wait_for(p), wait_for(q)), P("%s", get("a/cgroup.events")), rmdir(path("a/b")), rmdir(path("a"));
}
static void told(void) {
	mkdir(path("a"), 0755), mkdir(path("a/b"), 0755);
	int fd = open(path("a/cgroup.events"), O_RDONLY), in = inotify_init1(IN_NONBLOCK);
	char b[4096];
	struct pollfd e = {fd, POLLPRI, 0};
	read(fd, b, 64), V(poll(&e, 1, 0)), R(inotify_add_watch(in, path("a/cgroup.events"), IN_MODIFY));
	pid_t p = sleeper(), q = sleeper();
	put("a/b/cgroup.procs", pid_s(p)), V(poll(&e, 1, 5000)), P("events %d", e.revents), lseek(fd, 0, 0), read(fd, b, 64), V(poll(&e, 1, 0));
	struct pollfd i = {in, POLLIN, 0};
	V(poll(&i, 1, 5000)), P("%s", read(in, b, sizeof b) > 0 ? "told" : "not told");
	put("a/b/cgroup.procs", pid_s(q)), V(poll(&e, 1, 0)), end(p), V(poll(&e, 1, 0)), end(q), V(poll(&e, 1, 5000)), V(poll(&i, 1, 5000)), rmdir(path("a/b")), rmdir(path("a"));
}
static void owners(void) {
	mkdir(path("a"), 0755), mkdir(path("a/b"), 0755);
	R(chown(path("a/b"), 1000, 1000)), R(chown(path("a/b/cgroup.procs"), 1000, 1000)), R(chmod(path("a/b/cgroup.procs"), 0664)), R(chmod(path("a"), 0711)), R(truncate(path("a/b/cgroup.procs"), 0));
	struct stat s;
	stat(path("a/b/cgroup.procs"), &s), P("%d:%d %o", s.st_uid, s.st_gid, s.st_mode), stat(path("a/b/cgroup.threads"), &s), P("%d:%d %o", s.st_uid, s.st_gid, s.st_mode), stat(path("a"), &s), P("%o", s.st_mode);
	pid_t p = sleeper();
	P("%s", wait_for(CHILD({
		setgid(1000), setuid(1000), prctl(PR_SET_DUMPABLE, 1);
		R(mkdir(path("a/x"), 0755)), R(mkdir(path("a/b/c"), 0755)), R(mkdir(path("a/b/d"), 0755)), R(put("a/b/cgroup.procs", pid_s(p))), R(put("a/b/c/cgroup.procs", "0")), R(put("a/b/cgroup.freeze", "0"));
		stat(path("a/b/c/cgroup.procs"), &s), P("%d:%d %o", s.st_uid, s.st_gid, s.st_mode);
	})));
	put("a/b/c/cgroup.procs", pid_s(p));
	P("%s", wait_for(CHILD({
		setgid(1000), setuid(1000);
		R(put("a/b/d/cgroup.procs", pid_s(p))), R(put("a/b/cgroup.procs", pid_s(p))), R(put("a/cgroup.procs", pid_s(p))), R(rmdir(path("a/b/d"))), R(rmdir(path("a/b")));
	})));
	end(p), rmdir(path("a/b/c")), rmdir(path("a/b/d")), rmdir(path("a/b")), rmdir(path("a"));
}
static void namespaces(void) {
	mkdir(path("a"), 0755), mkdir(path("a/b"), 0755), mkdir(path("c"), 0755);
	pid_t p = sleeper(), q = sleeper();
	put("a/b/cgroup.procs", pid_s(p)), put("c/cgroup.procs", pid_s(q));
	P("%s", wait_for(CHILD({
		put("a/cgroup.procs", "0"), R(unshare(CLONE_NEWCGROUP));
		P("%s, below %s, beside %s", of(getpid()), of(p), of(q)), put("a/b/cgroup.procs", "0"), P("%s", of(getpid()));
		mkdir("m", 0755), R(mount("none", "m", "cgroup2", 0, 0)), R(access("m/b/cgroup.procs", F_OK)), R(access("m/a", F_OK)), strcpy(base, "m"), P("%s", get("cgroup.type")), P("%d in it", lines("cgroup.procs")), R(mkdir("m/n", 0755)), R(rmdir("m/n")), umount("m");
	})));
	end(p), end(q), rmdir(path("a/b")), rmdir(path("a")), rmdir(path("c"));
}
int main(void) {
	if (unshare(CLONE_NEWNS) || mount(0, "/", 0, MS_REC | MS_PRIVATE, 0) || mkdir("cg", 0755) || mount("none", "cg", "cgroup2", 0, 0))
		return P("no cgroup2: %s", conf_errno(errno)), 0;
	char cwd[40];
	unsigned long tag; // pids are of a namespace, the host's groups are not
	SC(getrandom, &tag, sizeof tag, 0);
	snprintf(base, sizeof base, "%s/cg/conf%lx", getcwd(cwd, sizeof cwd) ? cwd : ".", tag);
	R(mkdir(base, 0755));
	sub(tree), sub(procs), sub(into), sub(frozen), sub(killed), sub(told), sub(owners), sub(namespaces);
	put("../cgroup.procs", "0"), RN("at last", rmdir(base));
	umount("cg");
	return 0;
}
