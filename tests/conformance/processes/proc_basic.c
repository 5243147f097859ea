// Processes: fork, clone, exec, wait, stops, sessions, pidfds, subreapers. It prints what the kernel answers; the host's output is the expected one.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define P(...) do { printf(__VA_ARGS__); fflush(stdout); } while (0)

static int child(void *a) { _exit(*(int *)a); }

static void *sleeper(void *a) {
	sleep(100);
	return 0;
}

static void *execer(void *a) {
	execl("/proc/self/exe", "x", "exec", "a thread", NULL);
	_exit(1);
}

static void waits(void) {
	int st;
	struct rusage ru;
	siginfo_t si;
	pid_t p = fork();
	if (!p)
		_exit(7);
	pid_t w = wait4(p, &st, 0, &ru);
	P("wait4: %d exit %d\n", w == p, WEXITSTATUS(st));
	P("nobody: %d, bad options: %d %d\n", wait(&st) < 0 ? errno : 0, wait4(-1, &st, 0x10, 0) < 0 ? errno : 0, waitid(P_ALL, 0, &si, 0) < 0 ? errno : 0);
	p = fork();
	if (!p)
		abort();
	waitpid(p, &st, 0);
	P("abort: %d\n", WTERMSIG(st));
	p = fork();
	if (!p)
		for (;;)
			pause();
	setpgid(p, p);
	P("WNOHANG: %d\n", waitpid(p, &st, WNOHANG));
	kill(p, SIGSTOP);
	waitpid(p, &st, WUNTRACED);
	P("stopped: %d by %d\n", WIFSTOPPED(st), WSTOPSIG(st));
	kill(p, SIGCONT);
	waitpid(p, &st, WCONTINUED);
	P("continued: %d\n", WIFCONTINUED(st));
	kill(p, SIGKILL);
	memset(&si, 0, sizeof si);
	waitid(P_PID, p, &si, WEXITED | WNOWAIT);
	P("waitid: signo %d code %d status %d\n", si.si_signo, si.si_code, si.si_status);
	waitid(P_PGID, p, &si, WEXITED);
	P("again: code %d, then %d\n", si.si_code, waitpid(p, &st, 0) < 0 ? errno : 0);
	signal(SIGCHLD, SIG_IGN);
	p = fork();
	if (!p)
		_exit(1);
	P("SIGCHLD ignored: %d\n", wait(&st) < 0 ? errno : 0);
	signal(SIGCHLD, SIG_DFL);
}

static void clones(void) {
	int st, code = 9;
	pid_t p = vfork();
	if (!p) {
		execl("/proc/self/exe", "x", "exec", "vfork", NULL);
		_exit(1);
	}
	waitpid(p, &st, 0);
	P("vfork: %d\n", WEXITSTATUS(st));
	p = fork();
	if (!p) {
		pthread_t a, b;
		pthread_create(&a, 0, sleeper, 0);
		pthread_create(&b, 0, execer, 0);
		pause();
	}
	waitpid(p, &st, 0);
	P("exec by a thread: %d\n", WEXITSTATUS(st));
	char *stack = malloc(65536);
	p = clone(child, stack + 65536, CLONE_VM | SIGCHLD, &code);
	waitpid(p, &st, 0);
	P("clone: %d\n", WEXITSTATUS(st));
	signal(SIGUSR2, SIG_IGN);
	p = clone(child, stack + 65536, CLONE_VM | SIGUSR2, &code);
	P("clone child: plain wait %d, __WCLONE %d\n", waitpid(p, &st, 0) < 0 ? errno : 0, waitpid(p, &st, __WCLONE) == p);
	static const unsigned long bad[] = {CLONE_THREAD, CLONE_SIGHAND, CLONE_NEWNS | CLONE_FS, CLONE_THREAD | CLONE_SIGHAND};
	for (int i = 0; i < 4; i++)
		P("clone %lx: %d\n", bad[i], syscall(SYS_clone, bad[i], 0, 0, 0, 0) < 0 ? errno : 0);
	P("execve: %d %d %d\n", execl("/nonexistent", "x", NULL) ? errno : 0, execl("/", "x", NULL) ? errno : 0, execl("/dev/null", "x", NULL) ? errno : 0);
}

static void pidfds(void) {
	int st;
	siginfo_t si;
	pid_t p = fork();
	if (!p) {
		usleep(30000);
		_exit(4);
	}
	int fd = syscall(SYS_pidfd_open, p, 0);
	struct pollfd pf = {fd, POLLIN};
	int before = poll(&pf, 1, 0), after = poll(&pf, 1, 5000);
	P("pidfd: %d then %d %x, cloexec %d\n", before, after, pf.revents, fcntl(fd, F_GETFD));
	waitid(P_PIDFD, fd, &si, WEXITED);
	P("P_PIDFD: %d, then signal: %d\n", si.si_status, syscall(SYS_pidfd_send_signal, fd, 0, 0, 0) < 0 ? errno : 0);
	P("pidfd_open: %d %d %d\n", syscall(SYS_pidfd_open, 0, 0) < 0 ? errno : 0, syscall(SYS_pidfd_open, 99999999, 0) < 0 ? errno : 0,
		syscall(SYS_pidfd_open, getpid(), 1) < 0 ? errno : 0);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	p = fork();
	if (!p) {
		if (!fork()) {
			usleep(50000);
			_exit(11);
		}
		_exit(0);
	}
	waitpid(p, &st, 0);
	wait(&st);
	P("subreaper: %d\n", WEXITSTATUS(st));
	prctl(PR_SET_CHILD_SUBREAPER, 0);
}

static void sessions(void) {
	int st;
	pid_t p = fork();
	if (!p) {
		int ok = setsid() == getpid() && getpgrp() == getpid() && getsid(0) == getpid();
		int again = setsid() < 0 ? errno : 0;
		P("setsid: %d, again %d, setpgid by a leader %d\n", ok, again, setpgid(0, 0) ? errno : 0);
		_exit(0);
	}
	waitpid(p, &st, 0);
	P("setpgid: %d %d %d\n", setpgid(1, 0) ? errno : 0, setpgid(0, -1) ? errno : 0, setpgid(99999999, 0) ? errno : 0);
	prctl(PR_SET_NAME, "averyveryverylongname");
	char name[17] = "";
	prctl(PR_GET_NAME, name);
	P("name: %s\n", name);
	struct rlimit r = {10, 20};
	setrlimit(RLIMIT_NOFILE, &r);
	P("RLIMIT_NOFILE: %d\n", fcntl(0, F_DUPFD, 10) < 0 ? errno : 0);
	r.rlim_cur = 30;
	P("setrlimit: %d %d\n", setrlimit(RLIMIT_NOFILE, &r) ? errno : 0, setrlimit(99, &r) ? errno : 0);
}

static void *until(void *pipe) {
	char c;
	read(*(int *)pipe, &c, 1);
	return 0;
}

// How many threads a process has is what stat says of its directory: a sandboxing browser asks before it forks.
static void links(void) {
	int p[2];
	struct stat st;
	pthread_t t[3];
	pipe(p);
	for (int i = 0; i < 3; i++) {
		stat("/proc/self/task", &st);
		P("links of /proc/self/task: %d\n", (int)st.st_nlink);
		pthread_create(&t[i], 0, until, p);
	}
	write(p[1], "abc", 3);
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], 0);
	// Who is joined has told so before it is gone.
	for (int i = 0; i < 100 && (stat("/proc/self/task", &st), st.st_nlink > 3); i++)
		usleep(1000);
	P("links of /proc/self/task: %d\n", (int)st.st_nlink);
	close(p[0]);
	close(p[1]);
}

int main(int argc, char **argv) {
	if (argc > 2) {
		P("exec by %s, leader %d\n", argv[2], getpid() == syscall(SYS_gettid));
		return 42;
	}
	waits();
	clones();
	pidfds();
	links();
	sessions();
	return 0;
}
