// What the network is measured with. Each prints one line for each figure: a name, a blank, nanoseconds.
//
//	net lo                     round trips of one byte by TCP and UDP over 127.0.0.1, between two processes
//	net echo PORT              a server: what comes on a connection goes back
//	net connect ADDR PORT N    N connections, eight at a time, each used for one byte
//	net hold ADDR PORT N       N connections that stay until standard input ends; prints a line once they are there
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what) {
	perror(what);
	exit(1);
}

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static struct sockaddr_in at(const char *host, int port) {
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
	if (inet_pton(AF_INET, host, &a.sin_addr) != 1)
		die(host);
	return a;
}

static int dial(struct sockaddr_in a) {
	int s = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	if (s < 0 || connect(s, (void *)&a, sizeof a) < 0)
		die("connect");
	setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	return s;
}

static void trips(const char *name, int a, int b) {
	char c = 0;
	pid_t child = fork();
	if (child < 0)
		die("fork");
	if (child == 0) {
		while (recv(b, &c, 1, 0) == 1 && send(b, &c, 1, 0) == 1 && c != 'e')
			;
		_exit(0);
	}
	double start = 0;
	long n = 0;
	for (long i = -200;; i++) { // the first are not measured
		if (i == 0)
			start = now();
		if (i > 0 && i % 100 == 0 && now() - start > 1e9) {
			n = i;
			break;
		}
		if (send(a, &c, 1, 0) != 1 || recv(a, &c, 1, 0) != 1)
			die(name);
	}
	printf("%s %.0f\n", name, (now() - start) / n);
	fflush(stdout);
	c = 'e';
	send(a, &c, 1, 0);
	waitpid(child, NULL, 0);
}

static void lo(void) {
	struct sockaddr_in a = at("127.0.0.1", 0), b = a;
	socklen_t len = sizeof a;
	int one = 1, l = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(l, (void *)&a, sizeof a) || listen(l, 1) || getsockname(l, (void *)&a, &len))
		die("listen");
	int c = dial(a), s = accept(l, NULL, NULL);
	setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	trips("lo-tcp", c, s);
	int u = socket(AF_INET, SOCK_DGRAM, 0), v = socket(AF_INET, SOCK_DGRAM, 0);
	a = b;
	if (bind(u, (void *)&a, sizeof a) || bind(v, (void *)&b, sizeof b) || getsockname(u, (void *)&a, &len) || getsockname(v, (void *)&b, &len) ||
	    connect(u, (void *)&b, sizeof b) || connect(v, (void *)&a, sizeof a))
		die("udp");
	trips("lo-udp", u, v);
}

static void echo(int port) {
	struct sockaddr_in a = at("0.0.0.0", port);
	int one = 1, l = socket(AF_INET, SOCK_STREAM, 0), e = epoll_create1(0);
	setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(l, (void *)&a, sizeof a) || listen(l, 4096))
		die("listen");
	struct epoll_event ev = {.events = EPOLLIN, .data.fd = l}, got[64];
	epoll_ctl(e, EPOLL_CTL_ADD, l, &ev);
	for (;;) {
		int n = epoll_wait(e, got, 64, -1);
		for (int i = 0; i < n; i++) {
			char b[4096];
			int fd = got[i].data.fd;
			if (fd == l) {
				ev.data.fd = accept4(l, NULL, NULL, SOCK_NONBLOCK);
				if (ev.data.fd < 0 || epoll_ctl(e, EPOLL_CTL_ADD, ev.data.fd, &ev) < 0)
					die("accept");
				continue;
			}
			ssize_t k = read(fd, b, sizeof b);
			if (k < 0 && errno == EAGAIN)
				continue;
			if (k <= 0 || write(fd, b, k) != k)
				close(fd);
		}
	}
}

static struct sockaddr_in to;
static int count;

static void *connections(void *arg) {
	(void)arg;
	for (int i = 0; i < count; i++) {
		char c = 'x';
		int s = dial(to);
		if (write(s, &c, 1) != 1 || read(s, &c, 1) != 1)
			die("connection");
		close(s);
	}
	return NULL;
}

int main(int argc, char **argv) {
	signal(SIGPIPE, SIG_IGN);
	if (argc == 2 && !strcmp(argv[1], "lo"))
		lo();
	else if (argc == 3 && !strcmp(argv[1], "echo"))
		echo(atoi(argv[2]));
	else if (argc == 5 && !strcmp(argv[1], "connect")) {
		pthread_t t[8];
		to = at(argv[2], atoi(argv[3]));
		count = atoi(argv[4]) / 8;
		double start = now();
		for (int i = 0; i < 8; i++)
			if (pthread_create(&t[i], NULL, connections, NULL))
				die("thread");
		for (int i = 0; i < 8; i++)
			pthread_join(t[i], NULL);
		printf("connection %.0f\n", (now() - start) / (8 * count));
	} else if (argc == 5 && !strcmp(argv[1], "hold")) {
		char c = 'x';
		for (int i = atoi(argv[4]); i > 0; i--) {
			int s = dial(at(argv[2], atoi(argv[3])));
			if (write(s, &c, 1) != 1 || read(s, &c, 1) != 1)
				die("connection");
		}
		printf("held 0\n");
		fflush(stdout);
		while (read(0, &c, 1) > 0)
			;
	} else
		return 2;
	return 0;
}
