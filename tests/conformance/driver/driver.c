// Runs conformance programs, many at a time, each in namespaces of its own with an empty /tmp. It is the same on the host and in moat.
//
//   driver JOBS SECONDS < list
//
// A line of the list is "ID USER PATH" (USER 0 or another uid). For each program it writes "+ ID" when it starts and "= ID BYTES", a newline and that many
// bytes of output when it has ended.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct job {
	char id[128], path[512];
	int user, out;
	pid_t pid;
} jobs[4096];

static int limit;

static void die(const char *what) {
	dprintf(1, "driver: %s: %s\n", what, strerror(errno));
	_exit(99);
}

static void program(struct job *j) {
	static const int zero[] = {RLIMIT_CORE, RLIMIT_NICE, RLIMIT_RTPRIO};
	struct rlimit none = {0, 0}, files = {1024, 4096}, stack = {8 << 20, RLIM_INFINITY}, locked = {8 << 20, 8 << 20}, procs = {100000, 100000},
		  pending = {1000, 1000}, inf = {RLIM_INFINITY, RLIM_INFINITY}, mq = {819200, 819200};
	for (int i = 0; i < 3; i++)
		setrlimit(zero[i], &none);
	setrlimit(RLIMIT_NOFILE, &files), setrlimit(RLIMIT_STACK, &stack), setrlimit(RLIMIT_MEMLOCK, &locked), setrlimit(RLIMIT_NPROC, &procs);
	setrlimit(RLIMIT_SIGPENDING, &pending), setrlimit(RLIMIT_FSIZE, &inf), setrlimit(RLIMIT_AS, &inf), setrlimit(RLIMIT_CPU, &inf), setrlimit(RLIMIT_MSGQUEUE, &mq);
	// signal(3) refuses the C library's own two, which some callers (make) leave ignored.
	static const long dfl[4];
	for (int s = 1; s < 65; s++)
		syscall(SYS_rt_sigaction, s, dfl, 0, 8L);
	sigset_t all;
	sigemptyset(&all);
	sigprocmask(SIG_SETMASK, &all, 0);
	umask(022);
	// What both sides may have: the host's root may lack some, moat has no others.
	for (int c = 0; c < 64; c++)
		if (c == 24 /* CAP_SYS_RESOURCE */)
			prctl(PR_CAPBSET_DROP, c);
	// Pages of the first program would be the last of the stack: the driver's own environment is not the programs' to see.
	static char *env[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp", "LANG=C", 0};
	if (chdir("/tmp/d") || setgroups(0, 0))
		die("chdir");
	if (j->user && (setresgid(j->user, j->user, j->user) || setresuid(j->user, j->user, j->user)))
		die("setresuid");
	prctl(PR_SET_DUMPABLE, 1);
	execle("/tmp/prog", "prog", (char *)0, env);
	die("exec");
}

static void copy(const char *from, const char *to) {
	int in = open(from, O_RDONLY | O_CLOEXEC), out = open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
	char buf[65536];
	ssize_t n;
	if (in < 0 || out < 0)
		die(from);
	while ((n = read(in, buf, sizeof buf)) > 0)
		if (write(out, buf, n) != n)
			die("write");
	close(in), close(out);
}

static volatile int late;
static void alarmed(int s) { late = 1; }

// stage is the first process of the namespaces: when it ends, all that the program left behind does.
static void stage(struct job *j) {
	if (mount("", "/", 0, MS_REC | MS_PRIVATE, 0))
		die("private /");
	copy(j->path, "/dev/shm/.prog"); // the path may lie below /tmp
	if (mount("tmpfs", "/tmp", "tmpfs", 0, "mode=1777"))
		die("/tmp");
	copy("/dev/shm/.prog", "/tmp/prog");
	if (mkdir("/tmp/d", 0755) || chown("/tmp/d", j->user, j->user))
		die("/tmp/d");
	if (mount("proc", "/proc", "proc", 0, 0))
		die("/proc");
	sethostname("conformance", 11), setdomainname("(none)", 6);
	pid_t p = fork();
	if (!p) {
		setsid();
		program(j);
	}
	struct sigaction a = {.sa_handler = alarmed};
	sigaction(SIGALRM, &a, 0);
	alarm(limit);
	int st = 0;
	for (;;) {
		pid_t w = wait(&st);
		if (w == p)
			break;
		if (late) {
			dprintf(1, "hangs: killed after %d s\n", limit);
			_exit(0);
		}
	}
	if (WIFSIGNALED(st))
		dprintf(1, "ended: SIG%s\n", sigabbrev_np(WTERMSIG(st)) ? sigabbrev_np(WTERMSIG(st)) : "RT");
	else
		dprintf(1, "ended: exit %d\n", WEXITSTATUS(st));
	_exit(0);
}

static void start(struct job *j) {
	printf("+ %s\n", j->id);
	fflush(stdout);
	j->out = memfd_create("out", MFD_CLOEXEC);
	if (j->out < 0)
		die("memfd_create");
	j->pid = fork();
	if (j->pid)
		return;
	int null = open("/dev/null", O_RDONLY);
	dup2(null, 0), dup2(j->out, 1), dup2(j->out, 2);
	close_range(3, ~0U, 0);
	// Not the driver's group: a program that signals its own must not meet the driver.
	setpgid(0, 0);
	if (unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS))
		die("unshare");
	mount("", "/", 0, MS_REC | MS_PRIVATE, 0);
	if (mount("tmpfs", "/dev/shm", "tmpfs", 0, "mode=1777"))
		die("/dev/shm");
	pid_t p = fork();
	if (!p)
		stage(j);
	waitpid(p, 0, 0);
	_exit(0);
}

static void finish(struct job *j) {
	off_t n = lseek(j->out, 0, SEEK_END);
	static char buf[1 << 16];
	printf("= %s %lld\n", j->id, (long long)n);
	for (off_t at = 0; at < n;) {
		ssize_t k = pread(j->out, buf, sizeof buf, at);
		if (k <= 0)
			break;
		fwrite(buf, 1, k, stdout);
		at += k;
	}
	fflush(stdout);
	close(j->out);
}

int main(int argc, char **argv) {
	int n = 0, next = 0, busy = 0, parallel = argc > 2 ? atoi(argv[1]) : 1;
	limit = argc > 2 ? atoi(argv[2]) : 30;
	while (n < 4096 && scanf("%127s %d %511s", jobs[n].id, &jobs[n].user, jobs[n].path) == 3)
		n++;
	while (next < n || busy) {
		while (next < n && busy < parallel)
			start(&jobs[next++]), busy++;
		pid_t p = wait(0);
		for (int i = 0; i < next; i++)
			if (jobs[i].pid == p)
				finish(&jobs[i]), busy--;
	}
	return 0;
}
