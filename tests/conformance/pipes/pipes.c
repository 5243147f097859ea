// Pipes and FIFOs: sizes, atomic writes, packets, ends that close, opens that wait, splices of them.
#include "conf.h"
#include <pthread.h>
static char big[1 << 20];

static void basics(void) {
	int p[2], n;
	R(pipe2(p, O_CLOEXEC)), P("%d %d", fcntl(p[0], F_GETFD), fcntl(p[1], F_GETFD)), R(pipe2(p, O_DIRECT | O_NONBLOCK)), R(pipe2(p, 1)), R(pipe2(p, -1)), R(SC(pipe, BAD)), R(SC(pipe, readonly())), R(SC(pipe, border(4)));
	pipe2(p, O_NONBLOCK);
	V(write(p[1], big, 65536)), V(write(p[1], big, 1)), V(read(p[0], big, 4095)), V(write(p[1], big, 1)), V(read(p[0], big, 1)), V(write(p[1], big, 1)), V(write(p[1], big, 4096)), V(write(p[1], big, 5000)), ioctl(p[0], FIONREAD, &n), P("%d", n), V(ioctl(p[1], FIONREAD, &n)), P("%d", n);
	for (int i = 0; i < 3; i++)
		V(read(p[0], big, 1 << 20));
	H("sizes");
	V(fcntl(p[0], F_GETPIPE_SZ)), V(fcntl(p[0], F_SETPIPE_SZ, 0)), V(fcntl(p[0], F_SETPIPE_SZ, 1)), V(fcntl(p[0], F_SETPIPE_SZ, 4097)), V(fcntl(p[0], F_SETPIPE_SZ, 1 << 20)), V(fcntl(p[0], F_SETPIPE_SZ, -1)), V(fcntl(p[0], F_SETPIPE_SZ, 1 << 30)), V(write(p[1], big, 1 << 20)), V(fcntl(p[0], F_SETPIPE_SZ, 65536)), V(read(p[0], big, 1 << 20)), V(fcntl(p[0], F_SETPIPE_SZ, 65536)), V(fcntl(0, F_GETPIPE_SZ)), V(fcntl(0, F_SETPIPE_SZ, 4096)), V(fcntl(-1, F_GETPIPE_SZ));
	setresuid(9, 9, 9), V(fcntl(p[0], F_SETPIPE_SZ, 2 << 20)), V(fcntl(p[0], F_SETPIPE_SZ, 1 << 20));
	H("single bytes");
	pipe2(p, O_NONBLOCK);
	for (n = 0; write(p[1], big, 1) == 1; n++)
		;
	P("%d of one byte", n);
	pipe2(p, O_NONBLOCK);
	for (n = 0; write(p[1], big, 3000) == 3000; n++)
		;
	P("%d of 3000 bytes", n);
	for (n = 0; write(p[1], big, 1) == 1; n++)
		;
	P("%d more", n);
	H("packets");
	pipe2(p, O_DIRECT | O_NONBLOCK);
	V(write(p[1], "abcdef", 6)), V(write(p[1], "gh", 2)), V(read(p[0], big, 3)), V(read(p[0], big, 100)), P("%.2s", big), V(write(p[1], big, 5000)), V(read(p[0], big, 5000)), V(read(p[0], big, 5000)), V(write(p[1], big, 0)), V(read(p[0], big, 1));
	for (n = 0; n < 100 && write(p[1], big, 1) == 1; n++)
		;
	P("%d packets of one byte", n);
	H("ends");
	pipe(p), catch(SIGPIPE, 0), close(p[0]), V(write(p[1], "x", 1)), P("SIGPIPE %d", conf_got), V(write(p[1], "x", 0)), P("SIGPIPE %d", conf_got);
}
static void polls(void) {
	int p[2];
	pipe(p);
	struct pollfd a[2] = {{p[0], POLLIN | POLLOUT | POLLHUP | POLLERR | POLLRDNORM}, {p[1], POLLIN | POLLOUT | POLLWRNORM}};
#define W(s) P("%s: %d, reader %x writer %x", s, poll(a, 2, 0), a[0].revents, a[1].revents)
	W("empty"), write(p[1], "x", 1), W("one byte"), fcntl(p[1], F_SETFL, O_NONBLOCK), write(p[1], big, 65535), W("full"), read(p[0], big, 4095), W("4095 read"), read(p[0], big, 1), W("4096 read"), a[1].fd = -1, close(p[1]), W("writer closed"), read(p[0], big, 1 << 20), W("drained"), V(read(p[0], big, 1));
	pipe(p), a[0].fd = -1, a[1].fd = p[1], close(p[0]), W("reader closed"), fcntl(p[1], F_SETFL, O_NONBLOCK), signal(SIGPIPE, SIG_IGN), V(write(p[1], big, 70000)), W("reader closed");
}

static void fifos(void) {
	int r, w, b, t;
	char c;
	R(mkfifo("f", 0600)), R(mkfifo("f", 0600)), R(open("f", O_WRONLY | O_NONBLOCK)), r = open("f", O_RDONLY | O_NONBLOCK), V(read(r, &c, 1)), w = open("f", O_WRONLY | O_NONBLOCK), V(w > 0), V(read(r, &c, 1)), V(write(w, "x", 1)), V(read(r, &c, 1)), close(w), V(read(r, &c, 1));
	struct pollfd p = {r, POLLIN};
	V(poll(&p, 1, 0)), P("%x", p.revents), close(r), r = open("f", O_RDONLY | O_NONBLOCK), V(poll(&p, 1, 0)), P("%x", p.revents), close(r), b = open("f", O_RDWR | O_NONBLOCK), V(b > 0), V(write(b, "abc", 3)), V(read(b, &c, 1)), r = open("f", O_RDONLY), V(read(r, &c, 1)), V(lseek(r, 0, 0)), V(ftruncate(b, 0)), V(fsync(b)), V(open("f", O_RDONLY | O_DIRECTORY)), t = open("f", O_RDWR | O_TRUNC | O_NONBLOCK), V(t > 0), V(read(r, &c, 1)), close(t), close(b), close(r), fcntl(r, F_SETFL, 0);
	pid_t k = CHILD(int q = open("f", O_WRONLY); write(q, "late", 4); close(q));
	r = open("f", O_RDONLY);
	char buf[10];
	V(read(r, buf, 10)), V(read(r, buf, 10)), P("%s", wait_for(k)), close(r);
	catch(SIGALRM, 0), ualarm(30000, 0), V(open("f", O_RDONLY)), ualarm(30000, 0), V(open("f", O_WRONLY)), unlink("f");
	struct stat s;
	mkfifo("g", 0600), r = open("g", O_RDWR), write(r, "x", 1), stat("g", &s), P("size %ld", (long)s.st_size), unlink("g"), V(read(r, buf, 10));
}

static int pp[2];
static void *writer(void *x) {
	char b[4096];
	memset(b, (int)(long)x, sizeof b);
	for (int i = 0; i < 50; i++)
		write(pp[1], b, sizeof b);
	return 0;
}
static void races(void) {
	pthread_t t[4];
	pipe(pp);
	for (long i = 0; i < 4; i++)
		pthread_create(&t[i], 0, writer, (void *)(i + 'a'));
	int torn = 0, total = 0;
	for (int got; total < 4 * 50 * 4096; total += got) {
		char b[4096];
		for (got = 0; got < 4096;) {
			int n = read(pp[0], b + got, 4096 - got);
			got += n;
		}
		for (int i = 1; i < 4096; i++)
			torn += b[i] != b[0];
	}
	P("writes of PIPE_BUF are whole: torn %d of %d bytes", torn, total);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], 0);
	// A blocked writer gets SIGPIPE, a blocked reader end of file, when the other end closes.
	pid_t k = CHILD(close(pp[0]); write(pp[1], big, 1 << 20));
	sleep_ms(30), close(pp[0]), close(pp[1]), P("blocked writer: %s", wait_for(k));
	pipe(pp), k = CHILD(close(pp[1]); char c; _exit(read(pp[0], &c, 1))), sleep_ms(30), close(pp[1]), P("blocked reader: %s", wait_for(k));
	pipe(pp), k = CHILD(V(write(pp[1], big, 200000))), close(pp[1]);
	int n, all = 0;
	while ((n = read(pp[0], big, 1000)) > 0)
		all += n;
	P("all of it %d, %s", all, wait_for(k));
}
int main(void) { sub(basics), sub(polls), sub(fifos), sub(races); }
