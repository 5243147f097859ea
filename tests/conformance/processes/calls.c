// clone, clone3, exec, execveat, wait, pidfds, sessions, groups, priorities, scheduling, limits, prctl: values and errors.
// users: root ordinary
#include "conf.h"
#include <linux/sched.h>
#include <pthread.h>
#include <sys/auxv.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/times.h>
#ifndef P_PIDFD
#define P_PIDFD 3
#endif

static long c3(uint64_t flags, uint64_t sig, size_t size, uint64_t stack, uint64_t ssize, int *fd) {
	struct { struct clone_args a; char more[64]; } x;
	memset(&x, 0, sizeof x);
	x.a.flags = flags, x.a.exit_signal = sig, x.a.stack = stack, x.a.stack_size = ssize, x.a.pidfd = (uint64_t)fd;
	fflush(stdout);
	long r = SC(clone3, &x, size);
	if (r == 0)
		_exit(5);
	return r;
}

static void clones(void) {
	int st, fd = -1;
	long p = c3(0, SIGCHLD, 64, 0, 0, 0);
	VN("clone3", p > 0 ? waitpid(p, &st, 0) == p : E(-1)), P("%s", conf_status(st)), p = c3(CLONE_PIDFD, SIGCHLD, 88, 0, 0, &fd), VN("pidfd", fd > 2 && waitpid(p, &st, 0) == p), VN("size 63", E(c3(0, SIGCHLD, 63, 0, 0, 0))), VN("size 96", E(c3(0, SIGCHLD, 96, 0, 0, 0)) > 0), VN("size 5000", E(c3(0, SIGCHLD, 5000, 0, 0, 0))), VN("signal 65", E(c3(0, 65, 88, 0, 0, 0))), VN("CSIGNAL in flags", E(c3(SIGCHLD, 0, 88, 0, 0, 0))), VN("DETACHED", E(c3(0x400000, SIGCHLD, 88, 0, 0, 0))), VN("stack without size", E(c3(0, SIGCHLD, 88, 0x1000, 0, 0))), VN("size without stack", E(c3(0, SIGCHLD, 88, 0, 0x1000, 0))), VN("THREAD with a signal", E(c3(CLONE_THREAD | CLONE_SIGHAND | CLONE_VM, SIGCHLD, 88, 0, 0, 0))), VN("SIGHAND without VM", E(c3(CLONE_SIGHAND, SIGCHLD, 88, 0, 0, 0))), VN("THREAD without SIGHAND", E(c3(CLONE_THREAD, 0, 88, 0, 0, 0))), VN("CLEAR_SIGHAND and SIGHAND", E(c3(CLONE_CLEAR_SIGHAND | CLONE_SIGHAND | CLONE_VM, SIGCHLD, 88, 0, 0, 0))), VN("PIDFD to nowhere", E(c3(CLONE_PIDFD, SIGCHLD, 88, 0, 0, BAD))), VN("unknown flag", E(c3(1ULL << 40, SIGCHLD, 88, 0, 0, 0))), VN("NULL", E(SC(clone3, 0, 88))), VN("BAD", E(SC(clone3, BAD, 88))), VN("NEWPID and PARENT", E(c3(CLONE_NEWPID | CLONE_PARENT, SIGCHLD, 88, 0, 0, 0)) < 0), VN("FS and NEWNS", E(c3(CLONE_FS | CLONE_NEWNS, SIGCHLD, 88, 0, 0, 0)));
	while (waitpid(-1, &st, __WALL) > 0)
		;
	struct clone_args a = {.exit_signal = SIGCHLD, .set_tid = (uint64_t)(pid_t[]){7777}, .set_tid_size = 1};
	p = SC(clone3, &a, sizeof a);
	if (!p)
		_exit(getpid() == 7777 ? 1 : 2);
	P("set_tid: %s", p < 0 ? conf_errno(errno) : wait_for(p));
	a.flags = CLONE_NEWPID, a.set_tid = (uint64_t)(pid_t[]){1, 7778, 1}, p = SC(clone3, &a, sizeof a);
	if (!p)
		_exit(getpid());
	VN("pid 1 of a new namespace", p < 0 ? -errno : (waitpid(p, &st, 0), WEXITSTATUS(st))), a.set_tid_size = 3, VN("more levels than there are", E(SC(clone3, &a, sizeof a)) < 0), a.set_tid_size = 1, a.set_tid = (uint64_t)(pid_t[]){2}, VN("not pid 1", E(SC(clone3, &a, sizeof a))), a.flags = 0;
	a.set_tid = (uint64_t)(pid_t[]){getpid()}, VN("set_tid taken", E(SC(clone3, &a, sizeof a))), a.set_tid_size = 100, VN("set_tid_size 100", E(SC(clone3, &a, sizeof a))), a.set_tid_size = 0, a.set_tid = 1, VN("set_tid without size", E(SC(clone3, &a, sizeof a)));
	H("old clone");
	R(SC(clone, CLONE_PIDFD | CLONE_PARENT_SETTID | SIGCHLD, 0, &fd, 0, 0)), R(SC(clone, CLONE_THREAD | SIGCHLD, 0, 0, 0, 0)), R(SC(clone, CLONE_SIGHAND | SIGCHLD, 0, 0, 0, 0)), R(SC(clone, CLONE_NEWUSER | CLONE_FS | SIGCHLD, 0, 0, 0, 0));
	pid_t tid = 0, ctid = 0;
	p = SC(clone, CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD, 0, &tid, &ctid, 0);
	if (!p)
		_exit(ctid == getpid() ? 3 : 4);
	VN("PARENT_SETTID", tid == p), P("CHILD_SETTID: %s", wait_for(p)), p = SC(clone, CLONE_PARENT_SETTID | SIGCHLD, 0, BAD, 0, 0);
	if (!p)
		_exit(6);
	P("PARENT_SETTID to nowhere: %s", p < 0 ? conf_errno(errno) : wait_for(p));
	signal(SIGUSR1, SIG_IGN), p = SC(clone, SIGUSR1, 0, 0, 0, 0);
	if (!p)
		_exit(6);
	VN("exit signal SIGUSR1: waitpid", E(waitpid(p, &st, 0))), VN("__WALL", waitpid(p, &st, __WALL) == p), p = SC(clone, 0, 0, 0, 0, 0);
	if (!p)
		_exit(6);
	VN("no exit signal: waitpid", E(waitpid(p, &st, 0))), VN("__WCLONE", waitpid(p, &st, __WCLONE) == p);
	struct rlimit l = {0, 0};
	P("%s", wait_for(CHILD(setrlimit(RLIMIT_NPROC, &l); pid_t q = fork(); if (!q) _exit(0); P("fork over RLIMIT_NPROC: %s", q < 0 ? conf_errno(errno) : "ok"))));
}

static void execs(void) {
	static char *av[] = {"sh", "-c", "exit 9", 0}, *ev[] = {0};
	int d = open("/bin", O_RDONLY), f = open("/bin/sh", O_RDONLY), o = open("/bin/sh", O_PATH | O_CLOEXEC), n = file("noexec", "#!/bin/sh\n"), s;
	R(execve("none", av, ev)), R(execve("noexec", av, ev)), R(execve("/", av, ev)), R(execve("", av, ev)), R(execve(BAD, av, ev)), R(execve("/bin/sh", BAD, ev)), R(execve("/bin/sh", av, BAD)), R(execve("/bin/sh/x", av, ev)), chmod("noexec", 0755), R(execve("noexec", av, ev)), close(n), P("script: %s", wait_for(CHILD(execve("noexec", av, ev); P("%s", conf_errno(errno))))), n = file("bad", "\177ELFxxxx"), close(n), chmod("bad", 0755), R(execve("bad", av, ev)), n = file("text", "hello"), close(n), chmod("text", 0755), R(execve("text", av, ev)), n = file("empty", ""), close(n), chmod("empty", 0755), R(execve("empty", av, ev)), n = file("nointerp", "#!/none\n"), close(n), chmod("nointerp", 0755), R(execve("nointerp", av, ev)), n = file("blank", "#!\n"), close(n), chmod("blank", 0755), R(execve("blank", av, ev)), n = file("loop", "#!./loop\n"), close(n), chmod("loop", 0755), R(execve("./loop", av, ev)), symlink("self", "self"), R(execve("self", av, ev));
	R(SC(execveat, d, "none", av, ev, 0)), R(SC(execveat, d, "sh", av, ev, 0x10)), R(SC(execveat, -1, "sh", av, ev, 0)), R(SC(execveat, f, "", av, ev, 0)), R(SC(execveat, f, "x", av, ev, 0)), symlink("/bin/sh", "link"), R(SC(execveat, AT_FDCWD, "link", av, ev, AT_SYMLINK_NOFOLLOW));
	P("execveat: %s", wait_for(CHILD(SC(execveat, d, "sh", av, ev, 0)))), P("empty path: %s", wait_for(CHILD(SC(execveat, f, "", av, ev, AT_EMPTY_PATH)))), P("O_PATH: %s", wait_for(CHILD(SC(execveat, o, "", av, ev, AT_EMPTY_PATH))));
	s = open("noexec", O_RDONLY | O_CLOEXEC), P("script by a close-on-exec fd: %s", wait_for(CHILD(SC(execveat, s, "", av, ev, AT_EMPTY_PATH); P("%s", conf_errno(errno))))), s = open("noexec", O_RDONLY), P("script by fd: %s", wait_for(CHILD(SC(execveat, s, "", av, ev, AT_EMPTY_PATH); P("%s", conf_errno(errno)))));
	int w = open("noexec", O_WRONLY);
	P("busy: %s", wait_for(CHILD(execve("noexec", av, ev); P("%s", conf_errno(errno))))), close(w);
	char *big = malloc(200000);
	memset(big, 'x', 199999), big[199999] = 0;
	char *bv[] = {"sh", big, 0};
	R(execve("/bin/sh", bv, ev)), big[131071] = 0, P("131071 bytes: %s", wait_for(CHILD(execve("/bin/true", bv, ev)))), P("no argv: %s", wait_for(CHILD(execve("/bin/true", ev, ev)))), P("NULL argv: %s", wait_for(CHILD(SC(execve, "/bin/true", 0, 0))));
	char **many = malloc(8 * 400000);
	for (int i = 0; i < 399999; i++)
		many[i] = "0123456789";
	many[399999] = 0, R(execve("/bin/sh", many, ev));
	P("writing a running program: %s", EN(open("/tmp/prog", O_WRONLY)));
	n = file("mode", ""), close(n);
	chmod("noexec", 0711), P("script that cannot be read: %s", wait_for(CHILD(setresuid(77, 77, 77); execve("noexec", av, ev); P("%s", conf_errno(errno)))));
	P("signals over exec: %s", wait_for(CHILD(signal(SIGUSR1, SIG_IGN); catch(SIGUSR2, 0); sigset_t m; sigemptyset(&m); sigaddset(&m, SIGHUP); sigprocmask(SIG_BLOCK, &m, 0); execl("/bin/sh", "sh", "-c", "grep -E 'Sig(Blk|Ign|Cgt)' /proc/self/status", NULL))));
}

static void waits(void) {
	siginfo_t i;
	int st;
	R(wait4(-1, &st, 0, 0)), R(wait4(99999999, &st, 0, 0)), R(wait4(INT_MIN, &st, 0, 0)), R(wait4(0, &st, 0, 0)), R(wait4(-1, &st, 0x100, 0)), R(waitid(P_ALL, 0, &i, WEXITED)), R(waitid(P_ALL, 0, &i, 0)), R(waitid(9, 0, &i, WEXITED)), R(waitid(P_PID, 0, &i, WEXITED)), R(waitid(P_PID, -1, &i, WEXITED)), R(waitid(P_PGID, -1, &i, WEXITED)), R(waitid(P_PGID, 0, &i, WEXITED)), R(waitid(P_PIDFD, -1, &i, WEXITED)), R(waitid(P_PIDFD, 0, &i, WEXITED)), R(waitid(P_PIDFD, 999, &i, WEXITED)), R(waitid(P_ALL, 0, &i, WEXITED | 0x100));
	pid_t p = CHILD(_exit(300));
	memset(&i, 1, sizeof i), R(waitid(P_PID, p, &i, WEXITED | WNOWAIT)), P("signo %d code %d status %d pid %d errno %d", i.si_signo, i.si_code, i.si_status, i.si_pid == p, i.si_errno), R(waitid(P_PID, p, 0, WEXITED | WNOWAIT)), VN("BAD status", E(wait4(p, BAD, 0, 0))), VN("gone", E(wait4(p, &st, 0, 0)));
	p = CHILD(pause()), memset(&i, 1, sizeof i), V(waitid(P_PID, p, &i, WEXITED | WNOHANG)), P("signo %d pid %d", i.si_signo, i.si_pid), V(waitpid(p, &st, WNOHANG)), kill(p, SIGSTOP), R(waitid(P_PID, p, &i, WSTOPPED)), P("code %d status %d", i.si_code, i.si_status), V(waitid(P_PID, p, &i, WSTOPPED | WNOHANG)), P("signo %d", i.si_signo), kill(p, SIGCONT), R(waitid(P_PID, p, &i, WCONTINUED)), P("code %d status %d", i.si_code, i.si_status), kill(p, SIGSEGV), R(waitid(P_PID, p, &i, WEXITED)), P("code %d status %d", i.si_code, i.si_status);
	struct rusage ru;
	p = CHILD(for (volatile int k = 0; k < 100000000; k++); ), V(wait4(p, &st, 0, &ru) == p), P("used time %d", ru.ru_utime.tv_sec * 1000000 + ru.ru_utime.tv_usec > 1000), R(wait4(-1, &st, 0, BAD));
	struct tms t;
	V(times(&t) > 0), P("children's %d", t.tms_cutime + t.tms_cstime >= 0), R(times(BAD)), V(times(0) > 0), R(getrusage(RUSAGE_CHILDREN, &ru)), P("maxrss %d", ru.ru_maxrss > 0), R(getrusage(RUSAGE_THREAD, &ru)), R(getrusage(5, &ru)), R(getrusage(0, BAD));
	catch(SIGCHLD, SA_NOCLDWAIT), p = CHILD(_exit(0)), VN("NOCLDWAIT", E(waitpid(p, &st, 0))), P("SIGCHLD %d", conf_got), catch(SIGCHLD, SA_NOCLDSTOP), conf_got = 0, p = CHILD(pause()), kill(p, SIGSTOP), waitpid(p, &st, WUNTRACED), P("NOCLDSTOP %d", conf_got), kill(p, SIGKILL), waitpid(p, &st, 0), P("then %d", conf_got);
	catch(SIGALRM, 0), p = CHILD(pause()), ualarm(20000, 0), VN("interrupted", E(waitpid(p, &st, 0))), kill(p, SIGKILL), waitpid(p, &st, 0);
}

static void pidfds(void) {
	siginfo_t i;
	pid_t p = CHILD(pause());
	int fd = SC(pidfd_open, p, 0), self = SC(pidfd_open, getpid(), 0), nb = SC(pidfd_open, p, O_NONBLOCK);
	V(SC(pidfd_open, p, 1)), V(SC(pidfd_open, -1, 0)), V(SC(pidfd_open, 0, 0)), V(SC(pidfd_open, 99999999, 0)), V(SC(pidfd_send_signal, fd, 0, 0, 0)), V(SC(pidfd_send_signal, fd, 65, 0, 0)), V(SC(pidfd_send_signal, fd, 0, 0, 0x100)), V(SC(pidfd_send_signal, 1, 0, 0, 0)), V(SC(pidfd_send_signal, -1, 0, 0, 0)), V(SC(pidfd_send_signal, fd, 0, BAD, 0)), memset(&i, 0, sizeof i), i.si_signo = SIGUSR1, i.si_code = SI_USER, V(SC(pidfd_send_signal, fd, SIGUSR1, &i, 0)), i.si_code = SI_QUEUE, V(SC(pidfd_send_signal, fd, SIGUSR2, &i, 0));
	V(SC(pidfd_getfd, self, 0, 0) > 2), V(SC(pidfd_getfd, self, 999, 0)), V(SC(pidfd_getfd, self, 0, 1)), V(SC(pidfd_getfd, 0, 0, 0)), V(SC(pidfd_getfd, -1, 0, 0)), V(SC(pidfd_getfd, fd, 0, 0) > 2), V(fcntl(SC(pidfd_getfd, self, 0, 0), F_GETFD));
	struct pollfd pf = {fd, POLLIN};
	char b;
	V(poll(&pf, 1, 0)), V(waitid(P_PIDFD, nb, &i, WEXITED)), kill(p, SIGKILL), V(poll(&pf, 1, 5000)), P("%x", pf.revents), V(read(fd, &b, 1)), V(waitid(P_PIDFD, fd, &i, WEXITED)), P("%d %d", i.si_code, i.si_status), V(poll(&pf, 1, 0)), P("%x", pf.revents & ~0x10), V(SC(pidfd_send_signal, fd, 0, 0, 0)), V(SC(pidfd_getfd, fd, 0, 0)), V(waitid(P_PIDFD, fd, &i, WEXITED)), V(SC(process_mrelease, self, 0)), V(SC(process_mrelease, fd, 0)), V(SC(process_mrelease, -1, 0)), V(SC(process_madvise, self, 0, 0, MADV_COLD, 0)), V(SC(process_madvise, self, BAD, 1, MADV_COLD, 0)), V(SC(process_madvise, self, BAD, 1, MADV_COLD, 1)), V(SC(process_madvise, -1, BAD, 1, MADV_COLD, 0));
}

// fdinfo is the number behind a label in fdinfo, -2 if there is none.
static long fdinfo(int fd, const char *label) {
	char path[64], b[1000] = {};
	sprintf(path, "/proc/self/fdinfo/%d", fd);
	int f = open(path, O_RDONLY);
	read(f, b, sizeof b - 1), close(f);
	char *at = strstr(b, label);
	return at ? atol(at + strlen(label)) : -2;
}

// other_pidfds are what pidfd_send_signal(2) takes besides: the caller's, and open directories of /proc.
static void other_pidfds(void) {
	pid_t p = CHILD(pause());
	char path[64], buf[64];
	struct iovec v = {buf, 64};
	sprintf(path, "/proc/%d", p);
	int d = open(path, O_RDONLY | O_DIRECTORY), o = open(path, O_PATH), self = open("/proc/self", O_RDONLY), thread = open("/proc/thread-self", O_RDONLY), fds = open("/proc/self/fd", O_RDONLY);
	V(SC(pidfd_send_signal, -10000, 0, 0, 0)), V(SC(pidfd_send_signal, -10001, 0, 0, 0)), V(SC(pidfd_send_signal, -10001, 0, 0, 4)), V(SC(pidfd_getfd, -10001, 0, 0)), V(SC(process_mrelease, -10000, 0)), V(SC(process_madvise, -10000, &v, 1, MADV_COLD, 0)), V(waitid(P_PIDFD, -10000, 0, WEXITED));
	V(SC(pidfd_send_signal, self, 0, 0, 0)), V(SC(pidfd_send_signal, thread, 0, 0, 0)), V(SC(pidfd_send_signal, fds, 0, 0, 0)), V(SC(pidfd_send_signal, o, 0, 0, 0)), V(SC(pidfd_send_signal, d, 65, 0, 0)), V(SC(pidfd_send_signal, d, 0, 0, 1)), V(SC(pidfd_send_signal, d, 0, 0, 4)), V(SC(pidfd_getfd, d, 0, 0)), V(SC(process_madvise, d, &v, 1, MADV_COLD, 0));
	int st, pf = SC(pidfd_open, p, 0), z = 0;
	V(fdinfo(pf, "Pid:") == p), V(fdinfo(pf, "NSpid:") == p), V(fdinfo(1, "NSpid:"));
	V(SC(pidfd_send_signal, d, SIGTERM, 0, 0)), waitid(P_PID, p, 0, WEXITED | WNOWAIT), V(setns(pf, CLONE_NEWNET | CLONE_NEWUTS)), V(fdinfo(pf, "Pid:") == p), V(waitpid(p, &st, 0) == p), V(fdinfo(pf, "Pid:")), V(fdinfo(pf, "NSpid:")), V(setns(pf, CLONE_NEWUTS)), close(pf);
	V(SC(pidfd_send_signal, d, 0, 0, 0));
	close(d), close(o), close(self), close(thread), close(fds);
}

static void groups(void) {
	int pp[2];
	char c;
	V(getsid(0) == getsid(getppid())), V(getpgid(0) == getpgrp()), V(getpgid(-1)), V(getpgid(99999999)), V(getsid(99999999)), V(getsid(-1)), V(setpgid(0, -1)), V(setpgid(99999999, 0)), V(setpgid(0, 99999999)), V(setpgid(getppid(), 0)), V(setpgid(0, 0)), V(getpgrp() == getpid()), V(setpgid(0, 0)), V(setsid());
	pid_t p = CHILD(V(setsid() == getpid()); V(setpgid(0, 0)); V(setsid()); V(getsid(0) == getpid()); pid_t q = CHILD(V(setpgid(0, getppid())); V(setpgid(0, 0)); V(setsid())); P("%s", wait_for(q)));
	P("%s", wait_for(p)), pipe2(pp, O_CLOEXEC), p = CHILD(execl("/bin/sleep", "sleep", "5", NULL)), close(pp[1]), read(pp[0], &c, 1), V(setpgid(p, 0)), kill(p, SIGKILL), wait_for(p), p = CHILD(_exit(0)), sleep_ms(30), V(setpgid(p, p)), V(getpgid(p) == getpgrp()), wait_for(p), V(getpgid(p)), V(kill(-99999, 0)), V(kill(99999999, 0)), V(kill(0, 0)), V(kill(-1, 0)), V(kill(getpid(), 65)), V(kill(getpid(), -1)), V(kill(INT_MIN, 0)), V(SC(tkill, 0, 0)), V(SC(tkill, getpid(), 0)), V(SC(tgkill, getpid(), getpid(), 0)), V(SC(tgkill, getpid() + 1, getpid(), 0)), V(SC(tgkill, 0, 1, 0)), V(SC(tgkill, 1, 1, 0)), V(SC(tkill, 1, SIGUSR1));
}

static void sched(void) {
	struct sched_param sp = {0};
	cpu_set_t set;
	struct timespec t;
	V(getpriority(PRIO_PROCESS, 0)), V(setpriority(PRIO_PROCESS, 0, 5)), V(getpriority(PRIO_PROCESS, 0)), V(setpriority(PRIO_PROCESS, 0, 100)), V(getpriority(PRIO_PROCESS, 0)), V(setpriority(PRIO_PROCESS, 0, -5)), V(getpriority(9, 0)), V(getpriority(PRIO_PROCESS, 99999999)), V(getpriority(PRIO_PROCESS, -1)), V(setpriority(PRIO_PROCESS, 99999999, 0)), V(setpriority(9, 0, 0)), V(getpriority(PRIO_PGRP, 0)), V(getpriority(PRIO_USER, 12345)), V(setpriority(PRIO_PROCESS, 1, 3)), V(SC(getpriority, 0, 0));
	V(sched_getscheduler(0)), V(sched_getscheduler(-1)), V(sched_getscheduler(99999999)), V(sched_setscheduler(0, SCHED_BATCH, &sp)), V(sched_getscheduler(0)), V(sched_setscheduler(0, SCHED_IDLE, &sp)), V(sched_setscheduler(0, SCHED_OTHER, &sp)), sp.sched_priority = 1, V(sched_setscheduler(0, SCHED_OTHER, &sp)), V(sched_setscheduler(0, 77, &sp)), V(sched_setscheduler(0, -1, &sp)), V(sched_setscheduler(0, SCHED_FIFO, 0)), V(sched_setscheduler(0, SCHED_FIFO, BAD)), sp.sched_priority = 100, V(sched_setscheduler(0, SCHED_FIFO, &sp)), sp.sched_priority = 0, V(sched_setscheduler(0, SCHED_FIFO, &sp)), V(sched_setparam(0, &sp)), V(sched_setparam(-1, &sp)), V(sched_setparam(0, 0)), V(sched_getparam(0, &sp)), V(sched_getparam(0, 0)), V(sched_getparam(0, BAD)), V(sched_getparam(-1, &sp)), V(sched_getparam(99999999, &sp));
	for (int p = -1; p < 8; p++)
		P("policy %d: %ld %ld", p, E(sched_get_priority_min(p)), E(sched_get_priority_max(p)));
	V(sched_rr_get_interval(0, &t)), V(sched_rr_get_interval(-1, &t)), V(sched_rr_get_interval(0, BAD)), V(sched_rr_get_interval(99999999, &t)), V(sched_yield());
	V(SC(sched_getaffinity, 0, 4, &set)), V(SC(sched_getaffinity, 0, 0, &set)), V(SC(sched_getaffinity, 0, 12, &set)), V(SC(sched_getaffinity, 99999999, 128, &set)), V(SC(sched_getaffinity, -1, 128, &set)), V(SC(sched_getaffinity, 0, 128, BAD)), memset(&set, 0, sizeof set), V(sched_setaffinity(0, sizeof set, &set)), CPU_SET(0, &set), V(sched_setaffinity(0, sizeof set, &set)), memset(&set, 0, sizeof set), V(SC(sched_getaffinity, 0, 128, &set) > 0), P("%d CPU", CPU_COUNT(&set)), V(sched_setaffinity(0, 0, &set)), V(sched_setaffinity(0, 128, BAD)), V(sched_setaffinity(99999999, 128, &set)), memset(&set, 0, sizeof set), CPU_SET(1000, &set), V(sched_setaffinity(0, 128, &set));
	unsigned cpu, node;
	V(SC(getcpu, &cpu, &node, 0)), P("%u %u", cpu, node), V(SC(getcpu, 0, 0, 0)), V(SC(getcpu, BAD, 0, 0)), V(SC(ioprio_get, 1, 0)), V(SC(ioprio_set, 1, 0, 2 << 13 | 4)), V(SC(ioprio_get, 1, 0)), V(SC(ioprio_set, 1, 0, 2 << 13 | 9)), V(SC(ioprio_set, 1, 0, 4 << 13)), V(SC(ioprio_set, 9, 0, 0)), V(SC(ioprio_get, 1, 99999999)), V(SC(ioprio_set, 1, 0, 0)), V(SC(ioprio_get, 1, 0));
	struct { uint32_t size, policy; uint64_t flags; int32_t nice; uint32_t prio; uint64_t run, dead, period; uint32_t umin, umax; } at = {0};
	V(SC(sched_getattr, 0, &at, sizeof at, 0)), P("size %u policy %u nice %d", at.size, at.policy, at.nice), V(SC(sched_getattr, 0, &at, 10, 0)), V(SC(sched_getattr, 0, &at, sizeof at, 1)), V(SC(sched_getattr, 0, 0, sizeof at, 0)), V(SC(sched_getattr, -1, &at, sizeof at, 0)), at.nice = 7, at.flags = 0, V(SC(sched_setattr, 0, &at, 0)), V(getpriority(PRIO_PROCESS, 0)), at.size = 10, V(SC(sched_setattr, 0, &at, 0)), at.size = 0, at.policy = 99, V(SC(sched_setattr, 0, &at, 0)), V(SC(sched_setattr, 0, &at, 1)), V(SC(sched_setattr, 0, 0, 0));
	H("limits");
	struct rlimit l;
	for (int r = 0; r < 16; r++) {
		if (r == RLIMIT_NPROC || r == RLIMIT_SIGPENDING)
			continue;
		getrlimit(r, &l), P("limit %d: %ld %ld", r, (long)l.rlim_cur, (long)l.rlim_max);
	}
	R(getrlimit(16, &l)), R(getrlimit(-1, &l)), R(SC(getrlimit, 7, BAD)), l.rlim_cur = 10, l.rlim_max = 5, R(setrlimit(RLIMIT_NOFILE, &l)), l.rlim_cur = 1000, l.rlim_max = 2000, R(setrlimit(RLIMIT_NOFILE, &l)), l.rlim_max = 3000, R(setrlimit(RLIMIT_NOFILE, &l)), l.rlim_max = RLIM_INFINITY, R(setrlimit(RLIMIT_NOFILE, &l)), R(SC(setrlimit, 7, BAD)), R(SC(prlimit64, 0, 7, 0, &l)), R(SC(prlimit64, 99999999, 7, 0, &l)), R(SC(prlimit64, 0, 99, 0, &l)), R(SC(prlimit64, 1, 7, 0, &l)), R(SC(prlimit64, 0, 7, BAD, 0)), R(SC(prlimit64, -1, 7, 0, &l)), R(nice(1) == -1 && errno ? -1 : 0);
}

static void prctls(void) {
	char b[20];
	int n;
	V(prctl(PR_SET_NAME, "abcdefghijklmnopqrst")), V(prctl(PR_GET_NAME, b)), P("%s", b), V(prctl(PR_SET_NAME, BAD)), V(prctl(PR_GET_NAME, BAD)), V(prctl(PR_GET_PDEATHSIG, &n)), V(prctl(PR_SET_PDEATHSIG, SIGUSR1)), V(prctl(PR_GET_PDEATHSIG, &n)), P("%d", n), V(prctl(PR_SET_PDEATHSIG, 65)), V(prctl(PR_SET_PDEATHSIG, -1)), V(prctl(PR_GET_PDEATHSIG, BAD)), V(prctl(PR_GET_DUMPABLE)), V(prctl(PR_SET_DUMPABLE, 0)), V(prctl(PR_GET_DUMPABLE)), V(prctl(PR_SET_DUMPABLE, 2)), V(prctl(PR_SET_DUMPABLE, 1)), V(prctl(PR_SET_DUMPABLE, -1)), V(prctl(PR_GET_KEEPCAPS)), V(prctl(PR_SET_KEEPCAPS, 1)), V(prctl(PR_SET_KEEPCAPS, 2)), V(prctl(PR_GET_TIMING)), V(prctl(PR_SET_TIMING, 0)), V(prctl(PR_SET_TIMING, 1)), V(prctl(PR_GET_TIMERSLACK)), V(prctl(PR_SET_TIMERSLACK, 1234)), V(prctl(PR_GET_TIMERSLACK)), V(prctl(PR_SET_TIMERSLACK, 0)), V(prctl(PR_GET_TIMERSLACK)), V(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)), V(prctl(PR_GET_NO_NEW_PRIVS, 1, 0, 0, 0)), V(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0)), V(prctl(PR_SET_NO_NEW_PRIVS, 1, 1, 0, 0)), V(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)), V(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)), V(prctl(PR_GET_SECCOMP)), V(prctl(PR_SET_SECCOMP, 9)), V(prctl(PR_GET_CHILD_SUBREAPER, &n)), P("%d", n), V(prctl(PR_SET_CHILD_SUBREAPER, 5)), V(prctl(PR_GET_CHILD_SUBREAPER, &n)), P("%d", n), V(prctl(PR_GET_CHILD_SUBREAPER, BAD)), V(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0)), V(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)), V(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0)), V(prctl(PR_GET_THP_DISABLE, 1, 0, 0, 0)), V(prctl(PR_CAPBSET_READ, 0)), V(prctl(PR_CAPBSET_READ, 99)), V(prctl(PR_CAPBSET_DROP, 99)), V(prctl(PR_GET_SECUREBITS)), V(prctl(PR_GET_TSC, &n)), P("%d", n), V(prctl(PR_SET_TSC, 9)), V(prctl(PR_GET_UNALIGN, &n)), V(prctl(PR_GET_FPEMU, &n)), V(prctl(PR_GET_ENDIAN, &n)), V(prctl(PR_MCE_KILL, 9, 0, 0, 0)), V(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0)), V(prctl(PR_MCE_KILL_GET, 1, 0, 0, 0)), V(prctl(PR_TASK_PERF_EVENTS_DISABLE)), V(prctl(PR_SET_MM, 99, 0, 0, 0)), V(prctl(PR_GET_TID_ADDRESS, &n)), V(prctl(PR_CAP_AMBIENT, 9, 0, 0, 0)), V(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, 0, 0, 0)), V(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, 99, 0, 0)), V(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)), V(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 1, 0, 0)), V(prctl(PR_SET_PTRACER, 99999999)), V(prctl(PR_GET_SPECULATION_CTRL, 99, 0, 0, 0)), V(prctl(PR_GET_IO_FLUSHER, 1, 0, 0, 0)), V(prctl(PR_SET_VMA, 0, BAD, 0, 0)), V(prctl(PR_SET_SYSCALL_USER_DISPATCH, 9, 0, 0, 0)), V(prctl(12345)), V(prctl(-1)), V(prctl(0)), V(prctl(65 /* SET_MDWE */, 1, 0, 0, 0)), V(prctl(66 /* GET_MDWE */, 0, 0, 0, 0)), RN("writable and executable", mmap(0, 4096, 7, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	V(SC(arch_prctl, 0x1003 /* GET_FS */, &(long){0})), V(SC(arch_prctl, 0x1003, BAD)), V(SC(arch_prctl, 0x1001 /* SET_GS */, 1UL << 63)), V(SC(arch_prctl, 0x9999, 0)), V(SC(arch_prctl, 0x1011, 0)), V(personality(0xffffffff)), V(personality(ADDR_NO_RANDOMIZE)), V(personality(0xffffffff)), V(SC(set_tid_address, 0) == getpid()), V(SC(set_robust_list, 0, 23)), V(SC(set_robust_list, 0, 24)), V(SC(get_robust_list, 0, BAD, BAD)), V(SC(get_robust_list, 99999999, &n, &n)), V(SC(kcmp, getpid(), getpid(), 0, 1, 2)), V(SC(kcmp, getpid(), getpid(), 0, 1, 0) != 0), V(SC(kcmp, getpid(), getpid(), 1, 0, 0)), V(SC(kcmp, getpid(), getpid(), 99, 0, 0)), V(SC(kcmp, getpid(), getpid(), 0, 1, 999)), V(SC(kcmp, 99999999, getpid(), 1, 0, 0));
}

int main(void) { sub(clones), sub(execs), sub(waits), sub(pidfds), sub(other_pidfds), sub(groups), sub(sched), sub(prctls); }
