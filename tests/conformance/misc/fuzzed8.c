// Small things: a message queue's notification ends with any close by its process, ioprio_set(2) of user 0, shutdown(2) of what listens, writes of nothing to devices.
#include <conf.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <sys/socket.h>

static void again(int q) {
	struct sigevent e = {.sigev_notify = SIGEV_NONE};
	const char *r = EN(SC(mq_notify, q, &e));
	if (!strcmp(r, "ok"))
		SC(mq_notify, q, 0);
	P("another may ask: %s", r);
}

static void queues(void) {
	char name[32];
	sprintf(name, "/fuzzed8.%d", getpid());
	int q = mq_open(name, O_CREAT | O_RDWR, 0600, 0), r = mq_open(name, O_RDWR), d = dup(q);
	mq_unlink(name);
	struct sigevent e = {.sigev_notify = SIGEV_NONE};
	R(SC(mq_notify, q, &e));
	again(r);
	R(close(d));
	again(r);
	R(SC(mq_notify, q, &e));
	int s = mq_open("/nothing", O_RDWR), c = fcntl(q, F_DUPFD_CLOEXEC, 50);
	P("%d", s);
	fflush(stdout);
	pid_t p = fork();
	if (!p) { // another process' close is not the owner's
		close(q);
		_exit(0);
	}
	waitpid(p, 0, 0);
	again(r);
	dup2(1, c);
	again(r);
	R(SC(mq_notify, q, &e));
	close(r);
	P("its own other open file: %s", EN(SC(mq_notify, q, &e)));
	R(SC(mq_notify, q, 0));
	R(SC(mq_notify, q, &e));
	SC(close_range, c, c, 0);
	again(q);
}

static void priorities(void) {
	int mine = getuid() == 0;
	P("root's: %d", mine);
	if (mine)
		setuid(65534);
	V(SC(ioprio_set, 3, 0, 2 << 13 | 3));
	V(SC(ioprio_set, 3, getuid(), 2 << 13 | 4));
	V(SC(ioprio_get, 3, 0));
}

static void sockets(void) {
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int s = socket(AF_INET, SOCK_STREAM, 0);
	R(bind(s, (void *)&a, sizeof a));
	R(listen(s, 5));
	R(shutdown(s, SHUT_WR));
	R(shutdown(s, SHUT_RD));
	R(accept(s, 0, 0));
	R(shutdown(s, SHUT_RD));
	R(shutdown(s, SHUT_WR));
	R(listen(s, 5));
	R(shutdown(s, SHUT_WR));
	R(shutdown(s, SHUT_RDWR));
	R(shutdown(s, SHUT_RDWR));
}

static void full(void) {
	static const char *names[] = {"/dev/full", "/dev/null", "/dev/zero", "/dev/tty"};
	for (int i = 0; i < 3; i++) {
		int f = open(names[i], O_RDWR);
		struct iovec v = {"", 0};
		V(write(f, "", 0));
		V(write(f, BAD, 0));
		V(write(f, BAD, 5) == 5);
		V(pwrite(f, "", 0, 0));
		V(pwrite(f, "", 0, LONG_MAX));
		V(writev(f, &v, 1));
		V(writev(f, &v, 0));
	}
}

int main(void) {
	P("%s", conf_status(forked(sockets)));
	P("%s", conf_status(forked(full)));
	P("%s", conf_status(forked(queues)));
	P("%s", conf_status(forked(priorities)));
}
