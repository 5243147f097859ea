// read, write and their kin, lseek, truncate, fallocate, sendfile, splice, tee, copy_file_range: data.
#include "conf.h"
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/sendfile.h>

static char buf[1 << 17];
#define pr2(fd, v, n, o, f) SC(preadv2, fd, v, n, o, 0, f)
#define pw2(fd, v, n, o, f) SC(pwritev2, fd, v, n, o, 0, f)

static void rw(void) {
	int f = file("f", "0123456789"), r = open("f", O_RDONLY), w = open("f", O_WRONLY), a = open("f", O_WRONLY | O_APPEND), o = open("f", O_PATH), d = open(".", O_RDONLY);
	V(read(f, buf, 4)), V(read(w, buf, 4)), V(read(o, buf, 4)), V(read(d, buf, 4)), V(read(-1, buf, 4)), V(read(f, BAD, 4)), V(read(f, buf, 0)), V(read(f, BAD, 0)), V(read(w, BAD, 0)), V(SC(read, f, buf, -1)), V(SC(read, f, buf, 1UL << 40)), V(lseek(f, 0, SEEK_CUR));
	V(write(r, "x", 1)), V(write(o, "x", 1)), V(write(d, "x", 1)), V(write(f, BAD, 4)), V(write(f, "x", 0)), V(write(f, BAD, 0)), V(write(r, BAD, 0)), V(SC(write, f, BAD, -1));
	lseek(f, 0, 0);
	char *e = border(6);
	memcpy(e, "abcdef", 6);
	V(write(f, e, 10)), P("%s", slurp("f")), V(read(r, e + 3, 10)), V(lseek(r, 0, SEEK_CUR)), V(write(a, "APP", 3)), V(lseek(a, 0, SEEK_CUR)), P("%s", slurp("f"));
	H("pread, pwrite");
	V(pread(f, buf, 4, 2)), V(pread(f, buf, 4, 1000)), V(pread(f, buf, 4, -1)), V(pread(f, buf, 4, LONG_MAX)), V(pread(f, buf, 0, -1)), V(pwrite(f, "X", 1, -1)), V(pwrite(f, "X", 1, 20)), V(pwrite(a, "Y", 1, 0)), P("%s", slurp("f") + 21), V(pwrite(f, "X", 1, LONG_MAX)), V(pwrite(f, "XY", 2, LONG_MAX - 1));
	int p[2];
	pipe(p);
	V(pread(p[0], buf, 1, 0)), V(pwrite(p[1], "x", 1, 0)), V(lseek(p[0], 0, SEEK_CUR)), V(pread(d, buf, 1, 0)), V(pread(o, buf, 1, 0));
	H("vectors");
	struct iovec v[4] = {{buf, 2}, {buf + 10, 0}, {buf + 20, 3}, {buf + 30, 1}};
	lseek(f, 0, 0);
	V(readv(f, v, 4)), V(readv(f, v, 0)), V(readv(f, v, -1)), V(readv(f, v, 1025)), V(readv(f, BAD, 1)), V(readv(f, BAD, 0)), V(writev(f, v, 4)), V(writev(r, v, 1)), V(preadv(f, v, 4, 1)), V(preadv(f, v, 4, -1)), V(pwritev(f, v, 2, 3)), V(pwritev(f, v, 2, -2));
	v[1].iov_len = -1, V(readv(f, v, 2)), v[1].iov_len = SSIZE_MAX, V(readv(f, v, 2)), v[1].iov_base = BAD, v[1].iov_len = 1, lseek(f, 0, 0), V(readv(f, v, 3)), v[0].iov_base = BAD, V(readv(f, v, 1)), v[0].iov_len = 0, V(readv(f, v, 1)), V(writev(f, (struct iovec *)border(8), 1));
	struct iovec g = {buf, 5}, z = {"hello", 5};
	V(pr2(f, &g, 1, 0, 0)), V(pr2(f, &g, 1, -1, 0)), V(pr2(f, &g, 1, 0, RWF_HIPRI)), V(pr2(f, &g, 1, 0, RWF_NOWAIT)), V(pr2(f, &g, 1, 0, RWF_DSYNC)), V(pr2(f, &g, 1, 0, RWF_APPEND)), V(pr2(f, &g, 1, 0, 0x1000)), V(pr2(f, &g, 1, 0, -1)), V(pr2(p[0], &g, 1, 0, 0)), V(pr2(f, &g, 1, -2, 0));
	V(pw2(f, &z, 1, 0, RWF_APPEND)), P("%zu", strlen(slurp("f"))), V(pw2(f, &z, 1, -1, RWF_DSYNC)), V(pw2(f, &z, 1, -1, RWF_SYNC)), V(pw2(a, &z, 1, 0, 0x20 /* NOAPPEND */)), V(pw2(f, &z, 1, 0, RWF_APPEND | 0x20)), V(pw2(f, &z, 1, 0, 0x4000));
	V(pw2(p[1], &z, 1, -1, RWF_NOWAIT)), V(pr2(p[0], &g, 1, -1, RWF_NOWAIT)), V(pr2(p[0], &g, 1, -1, RWF_NOWAIT));
	H("limits");
	struct rlimit l = {100, 100};
	setrlimit(RLIMIT_FSIZE, &l), catch(SIGXFSZ, 0);
	V(pwrite(f, "x", 1, 99)), V(pwrite(f, "xyz", 3, 98)), V(pwrite(f, "x", 1, 100)), P("signals %d", conf_got), V(ftruncate(f, 101)), P("signals %d", conf_got), V(ftruncate(f, 100)), V(fallocate(f, 0, 0, 101)), P("signals %d", conf_got), V(truncate("f", 200)), P("signals %d", conf_got);
	V(write(file("new", ""), buf, 4096));
}

static void seeks(void) {
	int f = file("s", "0123456789"), d = open(".", O_RDONLY), n = open("/dev/null", O_RDWR), z = open("/dev/zero", O_RDWR);
	V(lseek(f, 5, SEEK_SET)), V(lseek(f, 2, SEEK_CUR)), V(lseek(f, -8, SEEK_CUR)), V(lseek(f, 0, SEEK_END)), V(lseek(f, 100, SEEK_END)), V(lseek(f, -200, SEEK_END)), V(lseek(f, -1, SEEK_SET)), V(lseek(f, LONG_MAX, SEEK_SET)), V(lseek(f, 1, SEEK_CUR)), V(lseek(f, 0, 9)), V(lseek(-1, 0, 0)), V(lseek(d, 0, SEEK_SET)), V(lseek(n, 5, SEEK_SET)), V(lseek(n, 0, SEEK_END)), V(lseek(z, 7, SEEK_CUR));
	H("holes");
	ftruncate(f, 0), ftruncate(f, 1 << 20), pwrite(f, "x", 1, 65536), pwrite(f, "x", 1, 300000);
	V(lseek(f, 0, SEEK_DATA)), V(lseek(f, 0, SEEK_HOLE)), V(lseek(f, 65536, SEEK_HOLE)), V(lseek(f, 70000, SEEK_DATA)), V(lseek(f, 400000, SEEK_DATA)), V(lseek(f, 1 << 20, SEEK_DATA)), V(lseek(f, (1 << 20) - 1, SEEK_HOLE)), V(lseek(f, 1 << 20, SEEK_HOLE)), V(lseek(f, -1, SEEK_DATA)), V(lseek(d, 0, SEEK_DATA));
	struct stat s;
	fstat(f, &s), P("blocks %ld", (long)s.st_blocks);
	H("fallocate");
	V(fallocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 65536, 4096)), V(lseek(f, 0, SEEK_DATA)), V(fallocate(f, FALLOC_FL_PUNCH_HOLE, 0, 4096)), V(fallocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 300001, 10)), V(fallocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2 << 20, 10)), V(fallocate(f, 0, 0, 0)), V(fallocate(f, 0, -1, 1)), V(fallocate(f, 0, 0, -1)), V(fallocate(f, 0, LONG_MAX, 1)), V(fallocate(f, 0, LONG_MAX - 10, 5)), V(fallocate(f, 0x1000, 0, 1)), V(fallocate(f, FALLOC_FL_KEEP_SIZE, 1 << 20, 8192)), fstat(f, &s), P("size %ld blocks %ld", (long)s.st_size, (long)s.st_blocks), V(fallocate(f, 0, 1 << 20, 8192)), fstat(f, &s), P("size %ld", (long)s.st_size), V(fallocate(f, FALLOC_FL_COLLAPSE_RANGE, 0, 4096)), V(fallocate(f, FALLOC_FL_ZERO_RANGE, 0, 4096)), V(fallocate(f, FALLOC_FL_INSERT_RANGE, 0, 4096)), V(fallocate(f, FALLOC_FL_UNSHARE_RANGE, 0, 4096)), V(fallocate(d, 0, 0, 1)), V(fallocate(-1, 0, 0, 1)), V(fallocate(open("s", O_RDONLY), 0, 0, 1)), V(fallocate(n, 0, 0, 1));
	int p[2];
	pipe(p);
	V(fallocate(p[1], 0, 0, 1)), V(posix_fallocate(f, 0, 10));
	H("truncate");
	V(truncate("s", 5)), V(truncate("s", -1)), V(truncate("none", 0)), V(truncate(".", 0)), V(truncate("", 0)), V(truncate(BAD, 0)), V(truncate("s/x", 0)), V(truncate("s", LONG_MAX)), V(truncate("s", 1L << 50)), V(ftruncate(f, 10)), V(ftruncate(f, -1)), V(ftruncate(open("s", O_RDONLY), 0)), V(ftruncate(open("s", O_PATH), 0)), V(ftruncate(p[1], 0)), V(ftruncate(n, 0)), V(ftruncate(d, 0)), V(ftruncate(-1, 0));
	memset(buf, 'a', 8192), pwrite(f, buf, 8192, 0), ftruncate(f, 4000), ftruncate(f, 8192), pread(f, buf, 8192, 0), P("zeroed: %d %d %d", buf[3999], buf[4000], buf[4095]);
	H("sync");
	V(fsync(f)), V(fdatasync(f)), V(fsync(d)), V(fsync(p[0])), V(fsync(n)), V(fsync(-1)), V(fsync(open("s", O_PATH))), V(syncfs(f)), V(syncfs(-1)), V(sync_file_range(f, 0, 0, 0)), V(sync_file_range(f, 0, 10, 7)), V(sync_file_range(f, 0, 10, 8)), V(sync_file_range(f, -1, 10, 1)), V(sync_file_range(p[0], 0, 10, 1)), V(readahead(f, 0, 10)), V(readahead(p[0], 0, 10)), V(readahead(d, 0, 10)), V(readahead(-1, 0, 10));
	for (int i = 0; i < 8; i++)
		P("fadvise %d: %d", i, posix_fadvise(f, 0, 10, i));
	P("fadvise: %d %d %d %d", posix_fadvise(p[0], 0, 0, 0), posix_fadvise(-1, 0, 0, 0), posix_fadvise(f, 0, -1, 0), posix_fadvise(d, 0, 0, 0));
}

static void moves(void) {
	int f = file("m", "0123456789abcdef"), g = file("n", ""), a = open("n", O_WRONLY | O_APPEND), r = open("n", O_RDONLY), o = open("m", O_PATH), d = open(".", O_RDONLY), p[2], q[2], nb[2], null = open("/dev/null", O_RDWR), zero = open("/dev/zero", O_RDONLY);
	pipe(p), pipe(q), pipe2(nb, O_NONBLOCK);
	off_t x = 2, y = 1;
	H("sendfile");
	V(sendfile(g, f, 0, 4)), V(sendfile(g, f, &x, 4)), P("offset %ld, of the file %ld", x, (long)lseek(f, 0, SEEK_CUR)), P("%s", slurp("n")), V(sendfile(g, f, 0, 0)), V(sendfile(g, f, 0, -1)), V(sendfile(r, f, 0, 1)), V(sendfile(g, a, 0, 1)), V(sendfile(a, f, 0, 1)), V(sendfile(g, p[0], 0, 1)), V(sendfile(p[1], f, 0, 100)), lseek(f, 0, 0), V(sendfile(p[1], f, 0, 100)), V(read(p[0], buf, 100)), V(sendfile(-1, f, 0, 1)), V(sendfile(g, -1, 0, 1)), V(sendfile(g, f, BAD, 1)), x = -1, V(sendfile(g, f, &x, 1)), x = LONG_MAX, V(sendfile(g, f, &x, 1)), V(sendfile(g, d, 0, 1)), V(sendfile(g, o, 0, 1)), V(sendfile(null, f, 0, 5)), V(sendfile(g, zero, 0, 5)), V(sendfile(g, f, (off_t *)readonly(), 3));
	H("splice");
	lseek(f, 0, 0);
	V(splice(f, 0, p[1], 0, 5, 0)), x = 3, V(splice(f, &x, p[1], 0, 5, 0)), P("offset %ld", x), V(splice(p[0], 0, g, 0, 3, 0)), V(splice(p[0], 0, g, &y, 3, 0)), P("offset %ld %s", y, slurp("n")), V(splice(p[0], 0, q[1], 0, 2, 0)), V(splice(p[0], 0, q[1], 0, 100, 0)), V(splice(p[0], 0, q[1], 0, 100, SPLICE_F_NONBLOCK)), V(splice(nb[0], 0, q[1], 0, 100, 0)), V(splice(p[0], 0, p[1], 0, 1, 0)), V(splice(f, 0, g, 0, 1, 0)), V(splice(p[0], &x, g, 0, 1, 0)), V(splice(f, 0, p[1], &x, 1, 0)), V(splice(f, 0, p[1], 0, 1, 0x10)), V(splice(f, 0, p[1], 0, 0, 0)), V(splice(f, 0, p[0], 0, 1, 0)), V(splice(p[1], 0, g, 0, 1, 0)), V(splice(-1, 0, p[1], 0, 1, 0)), V(splice(f, BAD, p[1], 0, 1, 0)), V(splice(p[0], 0, a, 0, 1, SPLICE_F_NONBLOCK)), V(splice(d, 0, p[1], 0, 1, 0)), V(splice(zero, 0, p[1], 0, 5, 0)), V(splice(p[0], 0, null, 0, 5, 0)), V(splice(q[0], 0, null, 0, 500, 0)), V(splice(f, 0, p[1], 0, 1, SPLICE_F_MOVE | SPLICE_F_MORE)), V(splice(f, 0, o, 0, 1, 0));
	close(q[0]), catch(SIGPIPE, 0), V(splice(f, 0, q[1], 0, 1, 0)), P("SIGPIPE %d", conf_got);
	H("tee");
	pipe(q), read(p[0], buf, 1), write(p[1], "hello", 5);
	V(tee(p[0], q[1], 3, 0)), V(tee(p[0], q[1], 100, 0)), V(read(q[0], buf, 100)), V(read(p[0], buf, 100)), V(tee(p[0], q[1], 1, SPLICE_F_NONBLOCK)), V(tee(p[0], p[1], 1, 0)), V(tee(f, q[1], 1, 0)), V(tee(p[0], f, 1, 0)), V(tee(p[0], q[1], 0, 0)), V(tee(p[0], q[1], 1, 0x20)), V(tee(-1, q[1], 1, 0)), V(tee(q[1], p[0], 1, 0));
	H("vmsplice");
	struct iovec v[2] = {{"abc", 3}, {"de", 2}}, w = {buf, 100};
	V(vmsplice(p[1], v, 2, 0)), V(vmsplice(p[0], &w, 1, 0)), V(vmsplice(p[0], &w, 1, SPLICE_F_NONBLOCK)), V(vmsplice(f, v, 1, 0)), V(vmsplice(p[1], v, 0, 0)), V(vmsplice(p[1], BAD, 1, 0)), V(vmsplice(p[1], v, 1, 0x40)), V(vmsplice(-1, v, 1, 0)), v[0].iov_base = BAD, V(vmsplice(p[1], v, 1, 0)), V(vmsplice(p[1], v, 5000, 0));
	H("copy_file_range");
	loff_t i = 0, j = 0;
	ftruncate(g, 0);
	V(copy_file_range(f, &i, g, &j, 100, 0)), P("%ld %ld %s", (long)i, (long)j, slurp("n")), V(copy_file_range(f, &i, g, &j, 100, 0)), i = 1, j = 3, V(copy_file_range(f, &i, f, &j, 2, 0)), V(copy_file_range(f, &i, f, &j, 10, 0)), V(copy_file_range(f, 0, g, 0, 1, 1)), V(copy_file_range(f, 0, a, 0, 1, 0)), V(copy_file_range(f, 0, r, 0, 1, 0)), V(copy_file_range(a, 0, g, 0, 1, 0)), V(copy_file_range(f, 0, p[1], 0, 1, 0)), V(copy_file_range(p[0], 0, g, 0, 1, 0)), V(copy_file_range(d, 0, g, 0, 1, 0)), V(copy_file_range(f, 0, d, 0, 1, 0)), V(copy_file_range(-1, 0, g, 0, 1, 0)), V(copy_file_range(f, BAD, g, 0, 1, 0)), i = -1, V(copy_file_range(f, &i, g, 0, 1, 0)), i = 0, j = LONG_MAX, V(copy_file_range(f, &i, g, &j, 1, 0)), V(copy_file_range(f, 0, g, 0, 0, 0)), V(copy_file_range(null, 0, g, 0, 1, 0)), V(copy_file_range(o, 0, g, 0, 1, 0));
}

int main(void) { sub(rw), sub(seeks), sub(moves); }
