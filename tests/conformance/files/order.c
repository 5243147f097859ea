// What is checked first: calls that are wrong in two ways, and files whose attributes and names are the kernel's own (found by the fuzzer).
#include "conf.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/xattr.h>
#include <linux/openat2.h>

static char *cut; // a string that does not end before a page that is not there
static char longname[300];

static void names(void) {
	memset(longname, 'n', 256);
	H("the old path is walked before the new one is looked at");
	R(linkat(AT_FDCWD, "none", -1, "x", 0));
	R(linkat(AT_FDCWD, "none", AT_FDCWD, cut, 0));
	R(linkat(AT_FDCWD, "f", -1, "x", 0));
	R(renameat(AT_FDCWD, "none/a", -1, "x"));
	R(renameat(AT_FDCWD, "none/a", AT_FDCWD, cut));
	R(renameat(AT_FDCWD, "none", -1, "x"));
	R(rename(longname, "none/x"));
	R(rename("none", longname));
	R(rename("f", longname));
	R(rename(longname, "."));
	R(SC(renameat2, -1, "a", -1, "b", 8));
	R(SC(renameat2, AT_FDCWD, cut, -1, "b", 3));
	H("an empty path is none, whatever the directory");
	R(mkdirat(1000, "", 0700));
	R(openat(1000, "", 0));
	struct open_how how = {.flags = O_RDONLY};
	R(SC(openat2, 1000, "", &how, sizeof how));
	R(unlinkat(1000, "", 0));
	R(symlinkat("", 1000, "x"));
	R(fchownat(1000, "", 0, 0, AT_EMPTY_PATH));
	R(fchownat(1000, "", 0, 0, 0));
}

static void proc(void) {
	H("proc: no name can be made, and a process's directory is immutable");
	R(open("/proc/self/fd/77", O_RDWR | O_CREAT, 0600));
	R(mkdir("/proc/x", 0700));
	R(symlink("a", "/proc/self/x"));
	R(mknod("/proc/self/task/x", S_IFREG | 0600, 0));
	R(rename("/proc/self/stat", "/proc/self/x"));
	R(chmod("/proc/self", 0700));
	R(chmod("/proc/self/fd", 0700));
	R(chown("/proc/self", 0, 0));
	R(chown("/proc/self", -1, -1));
	R(chown("/proc/self/fd", 0, 0));
	R(utimensat(AT_FDCWD, "/proc/self", 0, 0));
	R(access("/proc/self", W_OK));
	R(unlink("/proc/self/stat"));
	R(setxattr("/proc/self", "user.a", "", 0, 0));
	R(removexattr("/proc/self", "x"));
	struct stat st;
	stat("/proc/self/fd", &st);
	P("descriptors: %ld", (long)st.st_size);
	int fd = open("/", O_RDONLY);
	long before = st.st_size;
	stat("/proc/self/fd", &st);
	P("one more: %ld", (long)st.st_size - before);
	close(fd);
}

static void anonymous(void) {
	H("anonymous files");
	int e = eventfd(0, 0), p[2];
	R(fchmod(e, 0600));
	R(fchown(e, 0, 0));
	pipe(p);
	struct stat st;
	R(fchmod(p[0], 0640));
	fstat(p[1], &st);
	P("pipe %o", st.st_mode);
	struct flock l = {.l_type = F_RDLCK, .l_pid = 1};
	R(fcntl(p[1], F_OFD_SETLK, &l));
	R(fcntl(p[0], F_OFD_SETLK, &l));
	R(fcntl(p[0], F_ADD_SEALS, 2));
	R(fcntl(p[1], F_ADD_SEALS, 2));
	H("O_DIRECT by fcntl");
	int m = memfd_create("m", 0), s = socket(AF_UNIX, SOCK_STREAM, 0), d = open(".", O_RDONLY);
	R(fcntl(e, F_SETFL, O_DIRECT | O_NONBLOCK));
	V(fcntl(e, F_GETFL) & O_NONBLOCK);
	R(fcntl(p[0], F_SETFL, O_DIRECT));
	R(fcntl(s, F_SETFL, O_DIRECT));
	R(fcntl(m, F_SETFL, O_DIRECT));
	H("fallocate");
	ftruncate(m, 4096);
	R(fallocate(m, FALLOC_FL_INSERT_RANGE, 1L << 40, 4096));
	R(fcntl(m, F_SETFL, O_APPEND));
	R(fallocate(m, FALLOC_FL_COLLAPSE_RANGE, 0, 4096));
	signal(SIGXFSZ, SIG_IGN);
	struct rlimit old, few = {8192, 8192};
	getrlimit(RLIMIT_FSIZE, &old);
	few.rlim_max = old.rlim_max;
	setrlimit(RLIMIT_FSIZE, &few);
	R(fallocate(m, FALLOC_FL_KEEP_SIZE, 8192, 4096));
	setrlimit(RLIMIT_FSIZE, &old);
	H("copying from the end");
	int f = open("f", O_RDWR);
	loff_t at = 10;
	V(copy_file_range(f, &at, f, 0, 63, 0));
	R(SC(pipe2, p, 0x80));
	struct statx sx;
	statx(m, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &sx);
	P("statx knows %llx of a memfd", (long long)sx.stx_attributes_mask);
	close(m), close(s), close(d), close(f), close(e), close(p[0]), close(p[1]);
}

static void vectors(void) {
	H("preadv2 and pwritev2");
	int p[2], d = open(".", O_RDONLY), f = open("f", O_RDWR);
	pipe(p);
	char b[8];
	struct iovec v = {b, 8}, none = {b, 0};
	R(SC(preadv2, p[1], &v, 1, 0L, 0L, 64));
	R(SC(preadv2, p[1], &v, 1, -1L, 0L, 64));
	R(SC(pwritev2, p[0], &v, 1, 0L, 0L, 64));
	R(SC(preadv2, d, &v, 1, 0L, 0L, 2));
	R(SC(preadv2, d, &v, 1, 0L, 0L, 0));
	R(SC(preadv2, d, &none, 1, 0L, 0L, 16));
	R(readv(d, &none, 1));
	R(SC(pwritev2, f, &v, 0, 0L, 0L, 64));
	R(SC(pwritev2, f, &v, 1, 0L, 0L, 256));
	close(p[0]), close(p[1]), close(d), close(f);
}

static void selecting(void) {
	H("select on a descriptor of O_PATH");
	int d = open(".", O_PATH);
	fd_set r, w, x;
	FD_ZERO(&r);
	FD_SET(d, &r);
	w = x = r;
	struct timeval t = {0, 0};
	V(select(d + 1, &r, &w, &x, &t));
	P("%d %d %d", FD_ISSET(d, &r), FD_ISSET(d, &w), FD_ISSET(d, &x));
	struct pollfd p = {d, POLLIN};
	V(poll(&p, 1, 0));
	P("%x", p.revents);
	close(d);
}

int main(void) {
	cut = memcpy(border(2), "aa", 2);
	close(open("f", O_RDWR | O_CREAT, 0644));
	names();
	proc();
	anonymous();
	vectors();
	selecting();
	return 0;
}
