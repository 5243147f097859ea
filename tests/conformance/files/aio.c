// Linux AIO: io_setup(2), io_submit(2), io_getevents(2), io_cancel(2), io_destroy(2), io_pgetevents(2), and the ring that C libraries read by themselves.
#include "conf.h"
#include <linux/aio_abi.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/socket.h>

struct ring {
	unsigned id, nr, head, tail, magic, compat, incompat, header;
	struct io_event events[];
};

#define SETUP(n, c) SC(io_setup, n, c)
#define SUBMIT(c, n, p) SC(io_submit, c, n, p)
#define GET(c, min, n, e, t) SC(io_getevents, c, min, n, e, t)

static aio_context_t ctx;
static char buf[8192];
static struct timespec zero, soon = {0, 50000000};

static struct iocb iocb(int op, int fd, void *b, size_t n, long off) {
	struct iocb i = {.aio_lio_opcode = op, .aio_fildes = fd, .aio_buf = (long)b, .aio_nbytes = n, .aio_offset = off, .aio_data = 77};
	return i;
}

// run submits one request and tells how it was taken and how it completed.
static void run(const char *name, struct iocb i) {
	struct iocb *p = &i;
	struct io_event e = {0};
	errno = 0;
	long r = SUBMIT(ctx, 1, &p);
	if (r != 1) {
		P("%s: submit %s", name, conf_errno(errno));
		return;
	}
	r = GET(ctx, 1, 1, &e, &soon);
	if (r != 1) {
		P("%s: no event", name);
		return;
	}
	P("%s: %s %lld%s%s%s", name, e.res < 0 ? conf_errno(-e.res) : "ok", e.res < 0 ? 0 : (long long)e.res, e.data == 77 ? "" : " data", e.obj == (__u64)p ? "" : " obj",
	  e.res2 ? " res2" : "");
}

static void setup(void) {
	H("io_setup");
	aio_context_t c = 0, d = 0;
	R(SETUP(0, &c));
	R(SETUP(1, BAD));
	R(SETUP(1, 0));
	R(SETUP(-1, &c));
	R(SETUP(1 << 30, &c));
	R(SETUP(4194305, &c));
	R(SETUP(4194304, &c));
	R(SETUP(65537 * 8, &c));
	c = 5;
	R(SETUP(1, &c));
	c = 0;
	R(SETUP(0, BAD));
	R(SETUP(1, &c));
	P("aligned: %d", c % 4096 == 0);
	struct ring *r = (void *)c;
	P("ring: nr %u head %u tail %u magic %x compat %u incompat %u header %u", r->nr, r->head, r->tail, r->magic, r->compat, r->incompat, r->header);
	R(SETUP(300, &d));
	r = (void *)d;
	P("ring of 300: nr %u head %u tail %u", r->nr, r->head, r->tail);
	FILE *f = fopen("/proc/self/maps", "r");
	char line[256], perms[8], name[256];
	unsigned long a, z, off;
	while (fgets(line, sizeof line, f))
		if (sscanf(line, "%lx-%lx %7s %lx %*s %*s %255[^\n]", &a, &z, perms, &off, name) == 5 && (a == c || a == d))
			P("maps: %ld pages %s %lx %s", (z - a) / 4096, perms, off, name);
	fclose(f);
	long nr = 0;
	f = fopen("/proc/sys/fs/aio-nr", "r");
	R(fscanf(f, "%ld", &nr) == 1);
	P("aio-nr has them: %d", nr >= 301);
	fclose(f);
	R(SC(io_destroy, c));
	R(SC(io_destroy, c));
	R(SC(io_destroy, 0));
	R(SC(io_destroy, 4096));
	R(SC(io_destroy, buf));
	R(SC(io_destroy, d));
	R(msync((void *)d, 4096, MS_ASYNC));
	// One that is not destroyed, whose ring is not there any more.
	c = 0;
	R(SETUP(1, &c));
	R(munmap((void *)c, 4096));
	R(SC(io_destroy, c));
	R(GET(c, 0, 1, BAD, &zero));
}

// A ring that mremap(2) moves is a context by its new address.
static void moved(void) {
	H("moved");
	struct iocb i = {.aio_lio_opcode = IOCB_CMD_PREAD}, *ip = &i;
	char *to = mmap(0, 65536, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	aio_context_t c = 0, d;
	R(SETUP(1, &c));
	struct ring *r = (void *)c;
	size_t n = (32 + r->nr * 32 + 4095) & ~4095UL;
	P("longer: %s", EN((long)mremap((void *)c, n, n + 4096, MREMAP_MAYMOVE) == -1 ? -1 : 0));
	P("left: %s", EN((long)mremap((void *)c, n, n, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0) == -1 ? -1 : 0));
	d = (aio_context_t)mremap((void *)c, n, n, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	P("there: %d", d == (aio_context_t)to);
	R(GET(c, 0, 1, buf, &zero));
	R(GET(d, 0, 1, buf, &zero));
	R(GET(d + 8, 0, 1, buf, &zero));
	R(SUBMIT(c, 0, &ip));
	R(SUBMIT(d, 0, &ip));
	i.aio_fildes = open("f", O_CREAT | O_RDWR, 0600), i.aio_buf = (uint64_t)buf;
	R(SUBMIT(d, 1, &ip));
	R(GET(d, 1, 1, buf, &zero));
	// Another is made where it was.
	aio_context_t e = 0;
	R(SETUP(1, &e));
	R(SC(io_destroy, d));
	R(SC(io_destroy, d));
	P("unmapped: %s", EN(msync(to, 4096, MS_ASYNC)));
	R(GET(e, 0, 1, buf, &zero));
	R(mprotect((void *)e, 4096, PROT_NONE));
	R(GET(e, 0, 1, buf, &zero));
	R(mprotect((void *)e, 4096, PROT_READ));
	R(GET(e, 0, 1, buf, &zero));
	R(SC(io_destroy, e));
}

static void rw(void) {
	int fd = open("f", O_CREAT | O_TRUNC | O_RDWR, 0600), ro = open("f", O_RDONLY), wo = open("f", O_WRONLY), ap = open("f", O_WRONLY | O_APPEND), dir = open(".", O_RDONLY);
	int path = open("f", O_PATH);
	H("reads and writes");
	ctx = 0;
	R(SETUP(8, &ctx));
	memset(buf, 'x', sizeof buf);
	run("write", iocb(IOCB_CMD_PWRITE, fd, buf, 5000, 0));
	run("write behind", iocb(IOCB_CMD_PWRITE, fd, "hello", 5, 6000));
	run("read", iocb(IOCB_CMD_PREAD, fd, buf, 8192, 0));
	run("read the end", iocb(IOCB_CMD_PREAD, fd, buf, 8192, 6005));
	run("read of 0", iocb(IOCB_CMD_PREAD, fd, buf, 0, 0));
	run("write of 0", iocb(IOCB_CMD_PWRITE, fd, buf, 0, 0));
	P("position: %ld", (long)lseek(fd, 0, SEEK_CUR));
	struct iovec v[2] = {{buf, 3}, {buf + 10, 4}}, bad[2] = {{buf, -1}, {buf, 1}}, far[1] = {{BAD, 5}};
	run("readv", iocb(IOCB_CMD_PREADV, fd, v, 2, 6000));
	P("%.2s %.3s", buf, buf + 10);
	run("writev", iocb(IOCB_CMD_PWRITEV, fd, v, 2, 10));
	run("readv of 0", iocb(IOCB_CMD_PREADV, fd, v, 0, 0));
	run("readv of 1025", iocb(IOCB_CMD_PREADV, fd, v, 1025, 0));
	run("readv, bad lengths", iocb(IOCB_CMD_PREADV, fd, bad, 2, 0));
	run("readv, bad pointer", iocb(IOCB_CMD_PREADV, fd, BAD, 2, 0));
	run("readv, bad pointers", iocb(IOCB_CMD_PREADV, fd, far, 1, 0));
	run("append", iocb(IOCB_CMD_PWRITE, ap, "end", 3, 0));
	struct stat st;
	fstat(fd, &st);
	P("size: %ld", (long)st.st_size);
	H("errors");
	run("bad pointer", iocb(IOCB_CMD_PREAD, fd, BAD, 10, 0));
	run("kernel's pointer", iocb(IOCB_CMD_PREAD, fd, (void *)-4096, 10, 0));
	run("bad pointer, write", iocb(IOCB_CMD_PWRITE, fd, BAD, 10, 0));
	run("offset -1", iocb(IOCB_CMD_PREAD, fd, buf, 10, -1));
	run("offset at the end", iocb(IOCB_CMD_PREAD, fd, buf, 10, 0x7fffffffffffffff));
	run("write at the end", iocb(IOCB_CMD_PWRITE, fd, buf, 10, 0x7ffffffffffffff8));
	run("length -1", iocb(IOCB_CMD_PREAD, fd, buf, -1, 0));
	run("length huge", iocb(IOCB_CMD_PREAD, fd, buf, 0x7fffffffffffffff, 0));
	run("write to O_RDONLY", iocb(IOCB_CMD_PWRITE, ro, buf, 1, 0));
	run("read of O_WRONLY", iocb(IOCB_CMD_PREAD, wo, buf, 1, 0));
	run("O_PATH", iocb(IOCB_CMD_PREAD, path, buf, 1, 0));
	run("fd -1", iocb(IOCB_CMD_PREAD, -1, buf, 1, 0));
	run("directory", iocb(IOCB_CMD_PREAD, dir, buf, 1, 0));
	for (int op = 4; op < 11; op++)
		if (op != 5 && op != 7 && op != 8) {
			char n[20];
			sprintf(n, "command %d", op);
			run(n, iocb(op, fd, buf, 1, 0));
		}
	run("command 65535", iocb(65535, fd, buf, 1, 0));
	struct iocb i = iocb(IOCB_CMD_PREAD, fd, buf, 1, 0);
	i.aio_reserved2 = 1;
	run("reserved", i);
	i = iocb(IOCB_CMD_PREAD, fd, buf, 1, 0);
	i.aio_key = 9;
	run("key", i);
	i.aio_flags = 0x80;
	run("unknown flag", i);
	i.aio_flags = IOCB_FLAG_IOPRIO;
	i.aio_reqprio = 2 << 13 | 3;
	run("priority", i);
	i.aio_reqprio = 7 << 13;
	run("bad priority", i);
	i.aio_reqprio = 3;
	run("priority of no class", i);
	i.aio_flags = 0;
	static const int rwf[] = {1, 2, 4, 8, 0x10, 0x20, 0x40, 0x100, 0x30, 0x8000, -1};
	for (unsigned k = 0; k < sizeof rwf / sizeof *rwf; k++) {
		char n[30];
		if (rwf[k] == 8 || rwf[k] == 0x40 || rwf[k] == 0x100) // RWF_NOWAIT and RWF_ATOMIC go by the file system; RWF_NOSIGNAL is new
			continue;
		i.aio_rw_flags = rwf[k];
		i.aio_lio_opcode = IOCB_CMD_PWRITE;
		sprintf(n, "RWF %#x", rwf[k]);
		run(n, i);
	}
	H("fsync");
	run("fsync", iocb(IOCB_CMD_FSYNC, fd, 0, 0, 0));
	run("fdsync", iocb(IOCB_CMD_FDSYNC, fd, 0, 0, 0));
	run("fsync of O_RDONLY", iocb(IOCB_CMD_FSYNC, ro, 0, 0, 0));
	run("fsync, buffer", iocb(IOCB_CMD_FSYNC, fd, buf, 0, 0));
	run("fsync, length", iocb(IOCB_CMD_FSYNC, fd, 0, 1, 0));
	run("fsync, offset", iocb(IOCB_CMD_FSYNC, fd, 0, 0, 1));
	run("fsync of a directory", iocb(IOCB_CMD_FSYNC, dir, 0, 0, 0));
	H("other files");
	int p[2], sv[2], ev = eventfd(5, 0), in = inotify_init1(IN_NONBLOCK), nul = open("/dev/null", O_RDWR), zer = open("/dev/zero", O_RDWR);
	pipe(p);
	socketpair(AF_UNIX, SOCK_STREAM, 0, sv);
	run("fsync of a pipe", iocb(IOCB_CMD_FSYNC, p[0], 0, 0, 0));
	run("pipe, write", iocb(IOCB_CMD_PWRITE, p[1], "abc", 3, 0));
	run("pipe, read, at 100", iocb(IOCB_CMD_PREAD, p[0], buf, 10, 100));
	run("pipe, write, at -1", iocb(IOCB_CMD_PWRITE, p[1], "abc", 3, -1));
	fcntl(p[0], F_SETFL, O_NONBLOCK);
	run("empty pipe that does not wait", iocb(IOCB_CMD_PREAD, p[0], buf, 10, 0));
	run("pipe, wrong end", iocb(IOCB_CMD_PREAD, p[1], buf, 10, 0));
	run("socket, write", iocb(IOCB_CMD_PWRITE, sv[1], "abc", 3, 0));
	run("socket, read", iocb(IOCB_CMD_PREAD, sv[0], buf, 10, 0));
	run("eventfd, read", iocb(IOCB_CMD_PREAD, ev, buf, 8, 0));
	run("inotify", iocb(IOCB_CMD_PREAD, in, buf, 800, 0));
	run("/dev/null", iocb(IOCB_CMD_PWRITE, nul, buf, 800, 0));
	run("/dev/zero", iocb(IOCB_CMD_PREAD, zer, buf, 800, 0));
	signal(SIGPIPE, SIG_IGN);
	close(p[0]);
	run("pipe without a reader", iocb(IOCB_CMD_PWRITE, p[1], "abc", 3, 0));
	struct rlimit rl = {4096, RLIM_INFINITY};
	signal(SIGXFSZ, SIG_IGN);
	setrlimit(RLIMIT_FSIZE, &rl);
	run("RLIMIT_FSIZE", iocb(IOCB_CMD_PWRITE, fd, buf, 10, 4096));
	run("up to RLIMIT_FSIZE", iocb(IOCB_CMD_PWRITE, fd, buf, 10, 4090));
	R(SC(io_destroy, ctx));
}

static void handler(int s) { (void)s; }

static void many(void) {
	int fd = open("f", O_CREAT | O_TRUNC | O_RDWR, 0600);
	H("several at once");
	ctx = 0;
	R(SETUP(8, &ctx));
	struct ring *r = (void *)ctx;
	struct iocb i[4];
	struct iocb *p[6] = {&i[0], &i[1], &i[2], &i[3], BAD, 0};
	struct io_event e[8];
	for (int k = 0; k < 4; k++) {
		i[k] = iocb(IOCB_CMD_PWRITE, fd, buf, 10 + k, 10 * k);
		i[k].aio_data = k;
	}
	V(SUBMIT(ctx, 0, p));
	V(SUBMIT(ctx, 0, BAD));
	V(SUBMIT(ctx, -1L, p));
	V(SUBMIT(ctx, 1, BAD));
	V(SUBMIT(ctx, 1, p + 4));
	V(SUBMIT(ctx, 1, p + 5));
	V(SUBMIT(0, 1, p));
	V(SUBMIT(buf, 1, p));
	V(SUBMIT(ctx, 3, p));
	P("head %u tail %u", r->head, r->tail);
	V(GET(ctx, 1, 2, e, 0));
	for (int k = 0; k < 2; k++)
		P("event %lld: %lld", (long long)e[k].data, (long long)e[k].res);
	P("head %u tail %u", r->head, r->tail);
	V(SUBMIT(ctx, 5, p + 2)); // the third of them is no pointer
	V(GET(ctx, 8, 8, e, &soon));
	for (int k = 0; k < 3; k++)
		P("event %lld: %lld", (long long)e[k].data, (long long)e[k].res);
	i[1].aio_fildes = -1;
	V(SUBMIT(ctx, 4, p));
	V(GET(ctx, 0, 8, e, 0));
	V(SUBMIT(ctx, 3, p + 1));
	// A program takes events from the ring by itself.
	V(SUBMIT(ctx, 2, p + 2));
	P("event %lld: %lld", (long long)r->events[r->head].data, (long long)r->events[r->head].res);
	r->head++;
	V(GET(ctx, 0, 8, e, 0));
	P("event %lld", (long long)e[0].data);
	P("empty: %d", r->head == r->tail);
	H("io_getevents");
	V(GET(ctx, 0, 0, e, 0));
	V(GET(ctx, 0, 1, e, 0));
	V(GET(ctx, 1, 1, e, &zero));
	V(GET(ctx, 1, 1, e, &soon));
	struct timespec neg = {-1, 0}, odd = {0, 2000000000}, odd2 = {0, -1};
	// One in the past is for ever.
	struct sigaction sa = {.sa_handler = handler};
	sigaction(SIGALRM, &sa, 0);
	struct itimerval it = {{0, 50000}, {0, 50000}}, none = {0};
	setitimer(ITIMER_REAL, &it, 0);
	V(GET(ctx, 1, 1, e, &neg));
	V(GET(ctx, 1, 1, e, &odd2));
	setitimer(ITIMER_REAL, &none, 0);
	long long t = now_ms();
	V(GET(ctx, 1, 1, e, &odd));
	P("two seconds: %d", now_ms() - t > 1900 && now_ms() - t < 4000);
	V(GET(ctx, -1L, 1L, e, &zero));
	V(GET(ctx, 2, 1, e, &zero));
	V(GET(ctx, 0, -1L, e, &zero));
	V(GET(ctx, 0, 1, BAD, &zero));
	V(GET(ctx, 0, 1, e, BAD));
	V(GET(0, 0, 1, e, BAD));
	V(GET(0, 0, 1, e, &zero));
	V(GET(0, 0, -1L, e, &zero));
	V(SUBMIT(ctx, 2, p + 2));
	V(GET(ctx, 1, 2, BAD, &zero));
	V(GET(ctx, 1, 2, e, &zero));
	// Around the ring, many times.
	int bad = 0;
	unsigned turns = 0;
	for (int k = 0; k < 1000; k++) {
		i[2].aio_data = k;
		unsigned was = r->tail;
		if (SUBMIT(ctx, 2, p + 2) != 2 || GET(ctx, 2, 2, e, 0) != 2 || e[0].data != (__u64)k)
			bad++;
		turns += r->tail < was;
	}
	P("bad: %d, turns: %u", bad, turns);
	// More than there is room for: how many go by CPU.
	int n = 0;
	while (n < 1000 && SUBMIT(ctx, 1, p + 2) == 1)
		n++;
	P("full: %s, some: %d", conf_errno(errno), n >= 8 && n < 127);
	int got = 0, k;
	while ((k = GET(ctx, 0, 8, e, &zero)) > 0)
		got += k;
	P("all came: %d", got == n);
	V(SUBMIT(ctx, 1, p + 2));
	// What a program writes there is its own loss alone.
	r->head = 0xfffffff0;
	r->nr = 0;
	int c = GET(ctx, 0, 8, e, &zero);
	P("spoilt head: %d", c >= 0 && c <= 8);
	P("spoilt, submit: %d", (int)SUBMIT(ctx, 1, p + 2) <= 1);
	R(SC(io_destroy, ctx));
}

static int resfd;

static void polls(void) {
	H("polls");
	ctx = 0;
	R(SETUP(8, &ctx));
	int p[2], ev = eventfd(0, EFD_NONBLOCK), file = open("f", O_CREAT | O_RDWR, 0600);
	pipe(p);
	run("ready", iocb(IOCB_CMD_POLL, p[1], (void *)POLLOUT, 0, 0));
	run("not ready", iocb(IOCB_CMD_POLL, p[0], (void *)POLLIN, 0, 0));
	struct iocb i = iocb(IOCB_CMD_POLL, p[0], (void *)(POLLIN | POLLPRI), 0, 0), *q = &i;
	i.aio_flags = IOCB_FLAG_RESFD;
	i.aio_resfd = ev;
	struct io_event e[4];
	V(SUBMIT(ctx, 1, &q));
	write(p[1], "x", 1);
	V(GET(ctx, 2, 2, e, &soon)); // the one that was not ready is, too
	// What had it wake tells more than was asked for.
	P("%lld %lld", (long long)e[0].res & POLLIN, (long long)e[1].res & POLLIN);
	uint64_t v = 0;
	V(read(ev, &v, 8));
	P("eventfd: %ld", (long)v);
	read(p[0], buf, 1);
	// Once only.
	write(p[1], "x", 1);
	V(GET(ctx, 1, 1, e, &soon));
	read(p[0], buf, 1);
	run("POLLHUP not asked for", iocb(IOCB_CMD_POLL, p[0], (void *)0, 0, 0));
	int q2[2];
	pipe(q2);
	close(q2[1]);
	run("POLLHUP", iocb(IOCB_CMD_POLL, q2[0], (void *)0, 0, 0));
	run("a file", iocb(IOCB_CMD_POLL, file, (void *)POLLIN, 0, 0));
	run("65536", iocb(IOCB_CMD_POLL, p[0], (void *)65536, 0, 0));
	run("length", iocb(IOCB_CMD_POLL, p[0], (void *)POLLIN, 1, 0));
	run("offset", iocb(IOCB_CMD_POLL, p[0], (void *)POLLIN, 0, 1));
	run("eventfd", iocb(IOCB_CMD_POLL, ev, (void *)(POLLIN | POLLOUT), 0, 0));
	H("io_cancel");
	struct iocb j = iocb(IOCB_CMD_POLL, p[0], (void *)POLLIN, 0, 0), *jp = &j;
	V(SC(io_cancel, ctx, &j, e));
	V(SUBMIT(ctx, 1, &jp));
	V(SC(io_cancel, ctx, BAD, e));
	V(SC(io_cancel, 0, &j, e));
	j.aio_key = 3;
	V(SC(io_cancel, ctx, &j, e));
	j.aio_key = 0;
	V(SC(io_cancel, ctx, &j, BAD));
	V(GET(ctx, 1, 1, e, &soon));
	P("cancelled: %lld %d", (long long)e[0].res, e[0].obj == (__u64)jp);
	V(SC(io_cancel, ctx, &j, e));
	H("IOCB_FLAG_RESFD");
	i = iocb(IOCB_CMD_PWRITE, file, buf, 100, 0);
	i.aio_flags = IOCB_FLAG_RESFD;
	i.aio_resfd = ev;
	for (int k = 0; k < 3; k++)
		run("write", i);
	V(read(ev, &v, 8));
	P("eventfd: %ld", (long)v);
	i.aio_nbytes = 5, i.aio_buf = 8;
	run("bad pointer", i);
	V(read(ev, &v, 8));
	i.aio_lio_opcode = 99;
	run("no such command", i);
	V(read(ev, &v, 8));
	i.aio_resfd = file;
	run("a file", i);
	i.aio_resfd = -1;
	run("-1", i);
	i.aio_fildes = -1;
	run("-1, both", i);
	i.aio_flags = 0;
	run("not asked for", i);
	H("io_destroy of one with polls");
	j.aio_flags = IOCB_FLAG_RESFD;
	j.aio_resfd = ev;
	while (GET(ctx, 0, 4, e, &zero) > 0)
		;
	V(SUBMIT(ctx, 1, &jp));
	R(SC(io_destroy, ctx));
	sleep_ms(20);
	V(read(ev, &v, 8));
	// The end of a process does it, too.
	resfd = ev;
	fflush(stdout);
	if (!fork()) {
		ctx = 0;
		SETUP(8, &ctx);
		SUBMIT(ctx, 1, &jp);
		_exit(0);
	}
	wait(0);
	sleep_ms(50);
	V(read(ev, &v, 8));
}

static void *later(void *arg) {
	sleep_ms(50);
	write(*(int *)arg, "y", 1);
	return 0;
}

static void *destroyer(void *arg) {
	sleep_ms(50);
	SC(io_destroy, *(aio_context_t *)arg);
	return 0;
}

static void waits(void) {
	H("who waits");
	ctx = 0;
	R(SETUP(8, &ctx));
	int p[2];
	pipe(p);
	struct iocb i = iocb(IOCB_CMD_POLL, p[0], (void *)POLLIN, 0, 0), r = iocb(IOCB_CMD_PREAD, p[0], buf, 5, 0), *ip = &i, *rp = &r;
	struct io_event e[4];
	pthread_t th;
	V(SUBMIT(ctx, 1, &ip));
	pthread_create(&th, 0, later, &p[1]);
	V(GET(ctx, 1, 4, e, 0));
	P("%lld", (long long)e[0].res & POLLIN);
	pthread_join(th, 0);
	read(p[0], buf, 1);
	// A read of an empty pipe waits in io_submit.
	pthread_create(&th, 0, later, &p[1]);
	long long t = now_ms();
	V(SUBMIT(ctx, 1, &rp));
	P("waited: %d", now_ms() - t >= 40);
	V(GET(ctx, 1, 4, e, &zero));
	P("%lld", (long long)e[0].res);
	pthread_join(th, 0);
	struct sigaction sa = {.sa_handler = handler, .sa_flags = SA_RESTART};
	sigaction(SIGALRM, &sa, 0);
	struct itimerval it = {{0, 50000}, {0, 50000}}, none = {0};
	setitimer(ITIMER_REAL, &it, 0);
	V(GET(ctx, 1, 4, e, 0));
	V(SUBMIT(ctx, 1, &rp));
	setitimer(ITIMER_REAL, &none, 0);
	V(GET(ctx, 1, 4, e, &zero));
	P("interrupted read: %s", conf_errno(-e[0].res));
	// Some have come: they are told, not the signal.
	struct iocb n = iocb(IOCB_CMD_POLL, p[1], (void *)POLLOUT, 0, 0), *np = &n;
	V(SUBMIT(ctx, 1, &np));
	setitimer(ITIMER_REAL, &it, 0);
	V(GET(ctx, 2, 4, e, 0));
	setitimer(ITIMER_REAL, &none, 0);
	H("io_pgetevents");
	struct {
		sigset_t *set;
		size_t size;
	} sig = {0, 8};
	sigset_t set, old;
	sigemptyset(&set);
	V(SC(io_pgetevents, ctx, 1, 4, e, &zero, 0));
	V(SC(io_pgetevents, ctx, 1, 4, e, &zero, &sig));
	V(SC(io_pgetevents, ctx, 1, 4, e, &zero, BAD));
	sig.set = BAD;
	V(SC(io_pgetevents, ctx, 1, 4, e, &zero, &sig));
	sig.set = &set, sig.size = 7;
	V(SC(io_pgetevents, ctx, 1, 4, e, &zero, &sig));
	sig.size = 8;
	sigaddset(&set, SIGALRM);
	sigprocmask(SIG_BLOCK, &set, &old);
	raise(SIGALRM);
	sigemptyset(&set);
	V(SC(io_pgetevents, ctx, 1, 4, e, 0, &sig));
	sigprocmask(SIG_SETMASK, 0, &set);
	P("mask is back: %d", sigismember(&set, SIGALRM));
	sigprocmask(SIG_SETMASK, &old, 0);
	H("destroyed while one waits");
	pthread_create(&th, 0, destroyer, &ctx);
	V(GET(ctx, 1, 4, e, 0));
	pthread_join(th, 0);
	V(GET(ctx, 1, 4, e, 0));
}

static void spaces(void) {
	H("fork, exec, threads");
	ctx = 0;
	R(SETUP(8, &ctx));
	int fd = open("f", O_CREAT | O_RDWR, 0600);
	fflush(stdout);
	pid_t c = fork();
	struct io_event e;
	struct iocb i = iocb(IOCB_CMD_PWRITE, fd, buf, 1, 0), *ip = &i;
	if (!c) {
		V(SUBMIT(ctx, 1, &ip));
		V(GET(ctx, 0, 1, &e, &zero));
		R(SC(io_destroy, ctx));
		P("the memory is there: %x", ((struct ring *)ctx)->magic);
		_exit(0);
	}
	waitpid(c, 0, 0);
	V(SUBMIT(ctx, 1, &ip));
	V(GET(ctx, 1, 1, &e, &zero));
	c = vfork();
	if (!c) {
		SC(io_destroy, ctx);
		_exit(0);
	}
	waitpid(c, 0, 0);
	V(SUBMIT(ctx, 1, &ip));
	// Nothing is left of those that were forgotten.
	long before = -1, after = -1;
	for (int k = 0; k < 20; k++) {
		c = fork();
		if (!c) {
			for (int j = 0; j < 100; j++) {
				ctx = 0;
				if (SETUP(60, &ctx))
					_exit(1);
			}
			if (k & 1)
				execl("/bin/true", "true", (char *)0);
			_exit(0);
		}
		int st;
		waitpid(c, &st, 0);
		FILE *f = fopen("/proc/sys/fs/aio-nr", "r");
		if (fscanf(f, "%ld", k ? &after : &before) != 1)
			P("no number");
		fclose(f);
		if (st)
			P("round %d: %s", k, conf_status(st));
	}
	P("aio-nr grows: %d", after - before > 60000);
}

int main(void) {
	P("%s", conf_status(forked(setup)));
	P("%s", conf_status(forked(moved)));
	P("%s", conf_status(forked(rw)));
	P("%s", conf_status(forked(many)));
	P("%s", conf_status(forked(polls)));
	P("%s", conf_status(forked(waits)));
	P("%s", conf_status(forked(spaces)));
}
