// Which thread takes a signal to the process (kernel/signal.c complete_signal): the one that it was sent to by number, the one that forked for SIGCHLD, else
// the first that can after who took one last.
#include "conf.h"
#include <pthread.h>
#include <sys/ptrace.h>

static pid_t tids[4];
static volatile int who = -1, got, order[4], nth;
static pthread_barrier_t bar;

static void record(int sig) {
	pid_t me = gettid();
	for (int i = 0; i < 4; i++)
		if (tids[i] == me)
			who = i;
	got = sig;
}

static sigset_t set_of(int sig) {
	sigset_t s;
	sigemptyset(&s);
	sigaddset(&s, sig);
	return s;
}

// wait_got waits until a handler ran and tells which thread it was.
static const char *wait_got(void) {
	static const char *names[] = {"leader", "first", "second", "third"};
	for (int i = 0; i < 2000 && !got; i++)
		sleep_ms(1);
	const char *n = got ? names[who] : "nobody";
	got = 0, who = -1;
	return n;
}

// Threads do what they are told: fork a child that ends, block or unblock a signal; between, they sleep in read(2) of a pipe, which restarts.
static int orders[4][2], done[2];
static volatile int arg;

static void *thread(void *p) {
	int i = (int)(long)p;
	tids[i] = gettid();
	pthread_barrier_wait(&bar);
	char c;
	while (read(orders[i][0], &c, 1) == 1) {
		sigset_t s = set_of(arg);
		if (c == 'f') {
			pid_t child = fork();
			if (!child)
				_exit(3);
		} else if (c == 'v') {
			pid_t child = vfork();
			if (!child)
				_exit(3);
		} else if (c == 's') {
			pid_t child = fork();
			if (!child) {
				raise(SIGSTOP);
				sleep_ms(100); // the handler has returned by then
				_exit(3);
			}
			arg = child;
		} else if (c == 'p') {
			pid_t child = SC(clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
			if (!child)
				_exit(3);
		} else if (c == 't') { // a child that asks to be traced, stops and ends
			pid_t child = fork();
			if (!child) {
				ptrace(PTRACE_TRACEME, 0, 0, 0);
				raise(SIGUSR2);
				_exit(3);
			}
			arg = child;
		} else if (c == 'a') { // the process arg is seized and interrupted
			ptrace(PTRACE_SEIZE, arg, 0, 0);
			ptrace(PTRACE_INTERRUPT, arg, 0, 0);
		} else if (c == 'c') { // it goes on, and is let go
			waitpid(arg, 0, __WALL);
			ptrace(PTRACE_CONT, arg, 0, 0);
		} else if (c == 'b') {
			sigprocmask(SIG_BLOCK, &s, 0);
		} else if (c == 'u') {
			sigprocmask(SIG_UNBLOCK, &s, 0);
		} else if (c == 'x') {
			write(done[1], "", 1);
			pthread_exit(0);
		}
		write(done[1], "", 1);
	}
	return 0;
}

// tell has thread i do what c says and waits until it has.
static void tell(int i, char c, int a) {
	char x;
	arg = a;
	write(orders[i][1], &c, 1);
	while (read(done[0], &x, 1) != 1)
		;
	sleep_ms(10); // until it waits again
}

static pthread_t ths[4];

static void begin(int n) {
	struct sigaction sa = {.sa_handler = record, .sa_flags = SA_RESTART};
	sigaction(SIGCHLD, &sa, 0);
	sigaction(SIGUSR1, &sa, 0);
	pipe(done);
	pthread_barrier_init(&bar, 0, n);
	tids[0] = gettid();
	for (long i = 1; i < n; i++) {
		pipe(orders[i]);
		pthread_create(&ths[i], 0, thread, (void *)i);
	}
	pthread_barrier_wait(&bar);
	sleep_ms(20);
}

static void reap(void) {
	while (waitpid(-1, 0, __WALL) > 0)
		;
}

static void chld(void) {
	H("SIGCHLD: the thread that forked");
	begin(4);
	for (int round = 0; round < 3; round++)
		for (int i = 3; i > 0; i--) {
			tell(i, 'f', 0);
			P("a child of thread %d has ended: %s", i, wait_got());
			reap();
		}
	tell(2, 'v', 0);
	P("vfork of the second: %s", wait_got());
	reap();
	if (!fork())
		_exit(3);
	P("the leader's own: %s", wait_got());
	reap();
	// One that blocks it does not take it: then the one that took the last by search, at first the leader.
	tell(2, 'b', SIGCHLD);
	tell(2, 'f', 0);
	P("the second forks and blocks it: %s", wait_got());
	reap();
	tell(2, 'u', SIGCHLD);
	// Stops and continuations go the same way.
	tell(3, 's', 0);
	P("the third's child has stopped: %s", wait_got());
	pid_t child = arg;
	kill(child, SIGCONT);
	P("it goes on: %s", wait_got());
	P("it has ended: %s", wait_got());
	reap();
}

static void orphaned(void) {
	H("SIGCHLD: the thread that forked is gone");
	begin(4);
	tell(3, 's', 0);
	P("the third's child has stopped: %s", wait_got());
	pid_t child = arg;
	tell(3, 'x', 0);
	pthread_join(ths[3], 0);
	kill(child, SIGKILL);
	P("the third has ended, then its child: %s", wait_got());
	reap();
}

// attached has thread i trace c, which is then killed.
static void attached(const char *what, int i, pid_t c) {
	tell(i, 'a', c);
	P("%s: %s", what, wait_got());
	tell(i, 'c', c);
	kill(c, SIGKILL);
	P("and is killed: %s", wait_got());
	reap();
}

static void traced(void) {
	H("SIGCHLD: the thread that traces");
	begin(4);
	for (int i = 3; i > 0; i--) {
		tell(i, 't', 0);
		P("a child of thread %d stops for it: %s", i, wait_got());
		tell(i, 'c', arg);
		P("and ends: %s", wait_got());
		reap();
	}
	pid_t c = fork();
	if (!c)
		for (;;)
			pause();
	attached("the leader's child stops for the second", 2, c);
	// A process of somebody else's.
	int p[2];
	pipe(p);
	if (!(c = fork())) {
		if (!(c = fork()))
			for (;;)
				pause();
		write(p[1], &c, sizeof c);
		_exit(0);
	}
	wait_got();
	reap();
	read(p[0], &c, sizeof c);
	attached("a stranger stops for the third", 3, c);
}

static void search(void) {
	H("SIGUSR1 to the process");
	begin(4);
	sigset_t s = set_of(SIGUSR1);
#define KILL(name, to) (kill(to, SIGUSR1), P("%s: %s", name, wait_got()))
	KILL("kill(pid)", getpid());
	KILL("kill(the second's number)", tids[2]);
	KILL("kill(pid) again", getpid());
	sigprocmask(SIG_BLOCK, &s, 0);
	KILL("the leader blocks it", getpid());
	KILL("once more", getpid());
	tell(1, 'b', SIGUSR1);
	KILL("the first blocks it, too", getpid());
	tell(1, 'u', SIGUSR1);
	KILL("the first does not any more: who took the last stays", getpid());
	KILL("the first's number", tids[1]);
	KILL("pid: that was no search", getpid());
	tell(2, 'b', SIGUSR1);
	KILL("the second blocks it: from there on", getpid());
	tell(2, 'u', SIGUSR1);
	tell(3, 'b', SIGUSR1);
	KILL("the third blocks it: around, past the leader", getpid());
	tell(3, 'u', SIGUSR1);
	tell(1, 'b', SIGUSR1);
	KILL("the first's number, which blocks it: the second", tids[1]);
	tell(2, 'x', 0);
	pthread_join(ths[2], 0);
	KILL("the second has ended: the one after it", getpid());
	tell(1, 'u', SIGUSR1);
	KILL("and stays", getpid());
	sigprocmask(SIG_UNBLOCK, &s, 0);
	KILL("the leader takes it", getpid());
	union sigval v = {.sival_int = 1};
	sigqueue(getpid(), SIGUSR1, v);
	P("sigqueue: %s", wait_got());
}

int main(void) {
	P("%s", conf_status(forked(chld)));
	P("%s", conf_status(forked(orphaned)));
	P("%s", conf_status(forked(traced)));
	P("%s", conf_status(forked(search)));
}
