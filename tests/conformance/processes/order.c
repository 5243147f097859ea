// Who may be chosen, and what is told of those that are not there (found by the fuzzer).
#include "conf.h"
#include <linux/kcmp.h>
#include <sys/sem.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/sem.h>
#include <sys/msg.h>

static void *thread(void *p) {
	siginfo_t i = {.si_code = 1};
	i.si_signo = SIGUSR1;
	RN("queueinfo to the leader, code 1", SC(rt_sigqueueinfo, getpid(), SIGUSR1, &i));
	return 0;
}

int main(void) {
	signal(SIGUSR1, SIG_IGN);
	H("waitid by a group");
	pid_t c = fork();
	if (!c)
		_exit(0);
	siginfo_t si;
	R(waitid(P_PGID, 1, &si, WEXITED | WNOHANG | WNOWAIT));
	R(waitid(P_PGID, 0, &si, WEXITED));
	H("an owner of files that is no group");
	int p[2];
	pipe(p);
	struct f_owner_ex o = {0};
	c = fork();
	if (!c) {
		pause();
		_exit(0);
	}
	R(fcntl(p[0], F_SETOWN, -c));
	R(fcntl(p[0], F_GETOWN_EX, &o));
	P("%d %d", o.type, o.pid);
	R(fcntl(p[0], F_SETOWN, c));
	fcntl(p[0], F_GETOWN_EX, &o);
	P("%d %d", o.type, o.pid == c);
	V(SC(kcmp, getpid(), c, KCMP_IO, 0, 0));
	V(SC(kcmp, getpid(), getpid(), KCMP_SYSVSEM, 0, 0));
	V(SC(kcmp, getpid(), c, KCMP_SYSVSEM, 0, 0)); // neither undoes anything
	int sem = semget(IPC_PRIVATE, 1, 0600);
	R(semop(sem, &(struct sembuf){0, 1, SEM_UNDO}, 1));
	V(SC(kcmp, getpid(), c, KCMP_SYSVSEM, 0, 0) != 0);
	V(SC(kcmp, getpid(), getpid(), KCMP_SYSVSEM, 0, 0));
	R(semctl(sem, 0, IPC_RMID));
	kill(c, SIGKILL), waitpid(c, 0, 0);
	fcntl(p[0], F_GETOWN_EX, &o);
	P("%d %d", o.type, o.pid);
	pthread_t t;
	pthread_create(&t, 0, thread, 0), pthread_join(t, 0);
	H("huge pages");
	V(prctl(41, 1, 2, 0, 0)); // PR_SET_THP_DISABLE, but for who asks for them
	V(prctl(42, 0, 0, 0, 0));
	V(prctl(41, 0, 2, 0, 0));
	V(prctl(41, 1, 4, 0, 0));
	V(prctl(41, 1, 0, 1, 0));
	V(prctl(41, 0, 0, 0, 0));
	V(prctl(42, 0, 0, 0, 0));
	H("System V");
	char b[256];
	R(SC(semctl, -1, 0, SETVAL, -1L));
	R(SC(semctl, -1, 0, IPC_INFO, b));
	R(SC(msgctl, -1, IPC_INFO, b));
	int id = semget(IPC_PRIVATE, 2, 0600);
	struct sembuf undo[] = {{0, 0, SEM_UNDO}, {1, 0, SEM_UNDO | IPC_NOWAIT}};
	R(semop(id, undo, 2));
	semctl(id, 0, IPC_RMID);
	H("a process that may more than the caller");
	c = fork();
	if (!c) {
		pause();
		_exit(0);
	}
	if (!fork()) {
		unsigned header[2] = {0x20080522, 0}, caps[6];
		SC(capget, header, caps);
		caps[0] &= ~(1u << 23), caps[1] &= ~(1u << 23);
		SC(capset, header, caps);
		R(setpriority(PRIO_PROCESS, c, 5));
		R(setpriority(PRIO_PROCESS, 0, 5));
		struct sched_param sp = {0};
		R(SC(sched_setscheduler, c, SCHED_BATCH, &sp));
		R(SC(sched_setscheduler, 0, SCHED_BATCH, &sp));
		R(SC(ioprio_set, 1, c, 0x4004));
		R(SC(ioprio_set, 1, 0, 0x4004));
		_exit(0);
	}
	wait(0);
	kill(c, SIGKILL), wait(0);
	R(setpgid(-1, 0));
	H("sigtimedwait and a signal that is ignored by default");
	sigset_t set;
	sigemptyset(&set), sigaddset(&set, SIGURG);
	c = fork();
	if (!c) {
		usleep(20000);
		kill(getppid(), SIGURG);
		_exit(0);
	}
	struct timespec tenth = {0, 100000000};
	V(sigtimedwait(&set, 0, &tenth));
	sigprocmask(SIG_BLOCK, &set, 0);
	kill(getpid(), SIGURG);
	P("blocked: %d", sigtimedwait(&set, 0, &tenth) == SIGURG);
	wait(0);
	H("robust lists of those that one may trace");
	c = fork();
	if (!c) {
		pause();
		_exit(0);
	}
	void *head;
	size_t len;
	if (!fork()) {
		setresuid(0, 1000, -1);
		R(SC(get_robust_list, c, &head, &len));
		setresuid(1000, 1000, 1000);
		R(SC(get_robust_list, c, &head, &len));
		_exit(0);
	}
	wait(0);
	kill(c, SIGKILL), wait(0);
	return 0;
}
