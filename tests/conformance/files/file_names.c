// Names and open files: what the file calls answer to good and bad arguments. Runs in a fresh directory below /tmp, or the argument; prints no inode numbers or
// times, so the host's output is the expected one.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define R(x)                                                                                                           \
	do {                                                                                                               \
		errno = 0;                                                                                                     \
		long r_ = (long)(x);                                                                                           \
		printf("%-76s %s\n", #x, r_ == -1 ? strerrorname_np(errno) : "ok");                                            \
	} while (0)
#define V(x)                                                                                                           \
	do {                                                                                                               \
		errno = 0;                                                                                                     \
		long r_ = (long)(x);                                                                                           \
		if (r_ == -1)                                                                                                  \
			printf("%-76s %s\n", #x, strerrorname_np(errno));                                                          \
		else                                                                                                           \
			printf("%-76s %ld\n", #x, r_);                                                                             \
	} while (0)
#define BAD ((void *)8)

static int openat2_(int d, const char *p, unsigned long long flags, unsigned long long mode, unsigned long long res, size_t size) {
	struct {
		struct open_how h;
		char more[64];
	} a;
	memset(&a, 0, sizeof a);
	a.h.flags = flags, a.h.mode = mode, a.h.resolve = res;
	return syscall(SYS_openat2, d, p, &a, size);
}

static char *fdpath(int fd) {
	static char buf[4096];
	char l[64];
	snprintf(l, sizeof l, "/proc/self/fd/%d", fd);
	int n = readlink(l, buf, sizeof buf - 1);
	buf[n < 0 ? 0 : n] = 0;
	return buf;
}

static void opens(void) {
	int fd, d;
	R(open("", O_RDONLY));
	R(open(0, O_RDONLY));
	R(open(BAD, O_RDONLY));
	R(open("none", O_RDONLY));
	R(open("file", O_CREAT | O_EXCL | O_RDWR, 0640));
	R(open("file", O_CREAT | O_EXCL | O_RDWR, 0640));
	R(open("file/", O_RDONLY));
	R(open("file/x", O_RDONLY));
	R(open("file", O_RDONLY | O_DIRECTORY));
	R(open("file", O_CREAT | O_DIRECTORY, 0600));
	R(open("new/", O_CREAT | O_RDWR, 0600));
	R(open(".", O_CREAT | O_RDWR, 0600));
	R(open(".", O_RDWR));
	R(open(".", O_RDONLY | O_TRUNC));
	R(open("/", O_CREAT, 0600));
	R(open(".", O_TMPFILE | O_RDONLY, 0600));
	R(open(".", O_TMPFILE | O_RDWR, 0600));
	R(open("file", O_TMPFILE | O_RDWR, 0600));
	R(symlink("loop", "loop"));
	R(symlink("file", "link"));
	R(symlink("missing", "dangling"));
	R(open("loop", O_RDONLY));
	R(open("link", O_RDONLY | O_NOFOLLOW));
	R(open("link", O_PATH | O_NOFOLLOW));
	R(open("dangling", O_RDONLY));
	R(open("dangling", O_CREAT | O_EXCL | O_RDWR, 0600));
	R(open("dangling", O_CREAT | O_RDWR, 0600));
	R(access("missing", F_OK));
	fd = open("file", O_RDWR | O_APPEND | O_NONBLOCK | O_CLOEXEC | O_SYNC);
	printf("F_GETFL %#x F_GETFD %d\n", fcntl(fd, F_GETFL), fcntl(fd, F_GETFD));
	close(fd);
	fd = open("link", O_PATH | O_NOFOLLOW | O_CLOEXEC | O_RDWR | O_CREAT, 0600);
	printf("O_PATH F_GETFL %#x F_GETFD %d\n", fcntl(fd, F_GETFL), fcntl(fd, F_GETFD));
	char c;
	struct stat st;
	R(read(fd, &c, 1));
	R(write(fd, &c, 1));
	R(lseek(fd, 0, SEEK_SET));
	R(fchmod(fd, 0600));
	R(fchown(fd, 0, 0));
	R(ioctl(fd, FIONREAD, &c));
	R(fcntl(fd, F_SETFL, 0));
	R(fstat(fd, &st));
	R(mmap(0, 4096, 1, MAP_PRIVATE, fd, 0));
	R(readlinkat(fd, "", &c, 1));
	R(fgetxattr(fd, "user.x", &c, 1));
	R(fchdir(fd));
	R(dup(fd));
	R(flock(fd, LOCK_SH));
	close(fd);
	R(close(fd));
	R(close(-1));
	d = open(".", O_RDONLY);
	R(read(d, &c, 1));
	R(pread(d, &c, 1, 0));
	R(write(d, &c, 1));
	R(openat(d, "file", O_RDONLY));
	R(openat(-1, "file", O_RDONLY));
	R(openat(-1, "/", O_RDONLY));
	R(openat(AT_FDCWD, "file", O_RDONLY));
	fd = open("file", O_RDONLY);
	R(openat(fd, "x", O_RDONLY));
	R(openat(fd, "", O_RDONLY));
	R(openat(fd, "/", O_RDONLY));
	char *longname = malloc(5000);
	memset(longname, 'n', 4999);
	longname[256] = 0;
	R(open(longname, O_RDONLY));
	longname[255] = 0;
	R(open(longname, O_RDONLY));
	memset(longname, '/', 4096);
	longname[4095] = 0;
	R(open(longname, O_RDONLY));
	longname[4095] = '/', longname[4096] = 0;
	R(open(longname, O_RDONLY));

	R(openat2_(AT_FDCWD, "file", O_RDONLY, 0, 0, 8));
	R(openat2_(AT_FDCWD, "file", O_RDONLY, 0, 0, sizeof(struct open_how) + 8));
	R(openat2_(AT_FDCWD, "file", O_RDONLY, 0600, 0, 24));
	R(openat2_(AT_FDCWD, "file", O_RDONLY, 0, 64, 24));
	R(openat2_(AT_FDCWD, "file", O_RDONLY | 1ull << 40, 0, 0, 24));
	R(openat2_(AT_FDCWD, "file", O_CREAT, 010000, 0, 24));
	R(openat2_(AT_FDCWD, "file", O_PATH | O_RDWR, 0, 0, 24));
	R(openat2_(d, "../x", 0, 0, RESOLVE_BENEATH, 24));
	R(openat2_(d, "/etc", 0, 0, RESOLVE_BENEATH, 24));
	R(openat2_(d, "/file", 0, 0, RESOLVE_IN_ROOT, 24));
	R(openat2_(d, "../../file", 0, 0, RESOLVE_IN_ROOT, 24));
	R(openat2_(d, "link", 0, 0, RESOLVE_NO_SYMLINKS, 24));
	R(openat2_(d, "link", 0, 0, RESOLVE_BENEATH, 24));
	R(openat2_(AT_FDCWD, "/proc/self/root", 0, 0, RESOLVE_NO_MAGICLINKS, 24));
	R(openat2_(AT_FDCWD, "/proc/self/stat", 0, 0, RESOLVE_NO_XDEV, 24));
	int proc = open("/proc", O_RDONLY); // an absolute path begins at the root, wherever the directory is
	V(openat2_(proc, "/", O_RDONLY, 0, RESOLVE_NO_XDEV, 24) >= 0); V(openat2_(proc, "/bin", O_RDONLY, 0, RESOLVE_NO_XDEV, 24) >= 0); R(openat2_(proc, "/proc", O_RDONLY, 0, RESOLVE_NO_XDEV, 24)); R(openat2_(proc, "..", O_RDONLY, 0, RESOLVE_NO_XDEV, 24));
	R(openat2_(d, "file", 0, 0, RESOLVE_IN_ROOT | RESOLVE_BENEATH, 24));
	R(openat2_(d, "file", O_TRUNC | O_WRONLY, 0, RESOLVE_CACHED, 24));
}

static void descriptors(void) {
	int fd = open("file", O_RDWR), p[2];
	R(dup2(fd, fd));
	R(dup2(-1, 5));
	R(dup2(fd, -1));
	R(dup2(fd, 1 << 30));
	R(dup3(fd, fd, 0));
	R(dup3(fd, 60, 4));
	V(dup3(fd, 60, O_CLOEXEC));
	V(fcntl(60, F_GETFD));
	V(dup2(fd, 60));
	V(fcntl(60, F_GETFD));
	V(fcntl(fd, F_DUPFD, 100));
	V(fcntl(fd, F_DUPFD_CLOEXEC, 100));
	R(fcntl(fd, F_DUPFD, -1));
	R(fcntl(fd, F_DUPFD, 1 << 30));
	R(fcntl(99, F_GETFD));
	R(fcntl(fd, 12345));
	R(syscall(SYS_close_range, 100, 99, 0));
	R(syscall(SYS_close_range, 100, 101, 8));
	R(syscall(SYS_close_range, 60, 60, 4));
	V(fcntl(60, F_GETFD));
	R(syscall(SYS_close_range, 60, 200, 0));
	R(fcntl(60, F_GETFD));
	struct rlimit rl = {8, 4096};
	getrlimit(RLIMIT_NOFILE, &rl);
	rl.rlim_cur = 50;
	setrlimit(RLIMIT_NOFILE, &rl);
	R(dup2(fd, 50));
	R(fcntl(fd, F_DUPFD, 50));
	while (dup(fd) >= 0)
		;
	printf("dup: %s\n", strerrorname_np(errno));
	R(pipe(p));
	syscall(SYS_close_range, 3, ~0u, 0);
	rl.rlim_cur = 1024;
	setrlimit(RLIMIT_NOFILE, &rl);
	fd = open("file", O_RDWR);
	int x = 1;
	R(ioctl(fd, FIONBIO, &x));
	printf("%#x\n", fcntl(fd, F_GETFL));
	R(ioctl(fd, FIOCLEX));
	V(fcntl(fd, F_GETFD));
	R(ioctl(fd, 0x5401, &x));
	R(ftruncate(fd, 100));
	R(ioctl(fd, FIONREAD, &x));
	V(x);
	R(fcntl(fd, F_GETPIPE_SZ));
	R(fcntl(fd, F_GET_SEALS));
	V(fcntl(fd, F_GETOWN));
	R(fcntl(fd, F_SETOWN, 999999));
	R(fcntl(fd, F_SETOWN, getpid()));
	R(fcntl(fd, F_SETSIG, 65));
	R(fcntl(fd, F_GETLEASE));
}

static void positions(void) {
	int fd = open("pos", O_CREAT | O_RDWR, 0600), a = open("pos", O_WRONLY | O_APPEND), r = open("pos", O_RDONLY), p[2];
	char b[100] = "0123456789";
	struct iovec v[3] = {{b, 4}, {b, 0}, {b + 4, 6}}, bad[1] = {{b, -1}};
	pipe(p);
	V(write(fd, b, 10));
	V(lseek(fd, 0, SEEK_CUR));
	V(lseek(fd, -11, SEEK_CUR));
	V(lseek(fd, -11, SEEK_END));
	V(lseek(fd, 5, SEEK_END));
	V(lseek(fd, 0, 9));
	V(lseek(p[0], 0, SEEK_CUR));
	V(lseek(fd, 20, SEEK_SET));
	V(read(fd, b, 10));
	V(write(fd, b, 3));
	V(lseek(fd, 0, SEEK_END));
	V(pwrite(a, "zz", 2, 0));
	V(lseek(fd, 0, SEEK_END));
	V(pread(fd, b, 100, 22));
	V(pread(fd, b, 1, -1));
	V(pread(p[0], b, 1, 0));
	V(pwrite(r, b, 1, 0));
	V(read(a, b, 1));
	V(read(fd, BAD, 10));
	lseek(fd, 0, SEEK_SET);
	V(read(fd, BAD, 10));
	V(read(fd, BAD, 0));
	V(write(fd, BAD, 10));
	V(write(fd, (void *)-1, 10));
	V(read(fd, b, -1));
	V(writev(fd, v, 3));
	V(writev(fd, v, -1));
	V(writev(fd, v, 1025));
	V(writev(fd, bad, 1));
	V(writev(fd, v, 0));
	V(readv(fd, BAD, 1));
	V(preadv(fd, v, 3, 0));
	V(preadv(fd, v, 3, -1));
	V(preadv2(fd, v, 3, -1, 0));
	V(preadv2(fd, v, 3, 0, 0x1000));
	V(pwritev2(fd, v, 3, 0, RWF_APPEND));
	V(pwritev2(fd, v, 3, 0, RWF_DSYNC));
	V(preadv2(p[0], v, 1, -1, RWF_NOWAIT));
	V(lseek(fd, 0, SEEK_END));
	struct rlimit rl = {100, 100}, old;
	getrlimit(RLIMIT_FSIZE, &old);
	signal(SIGXFSZ, SIG_IGN);
	rl.rlim_max = old.rlim_max;
	fflush(stdout);
	setrlimit(RLIMIT_FSIZE, &rl);
	long x[5], e[5];
	x[0] = pwrite(fd, b, 50, 80), e[0] = errno;
	x[1] = pwrite(fd, b, 50, 100), e[1] = errno;
	x[2] = ftruncate(fd, 101), e[2] = errno;
	x[3] = fallocate(fd, 0, 0, 101), e[3] = errno;
	x[4] = write(a, b, 1), e[4] = errno;
	setrlimit(RLIMIT_FSIZE, &old);
	for (int i = 0; i < 5; i++)
		printf("RLIMIT_FSIZE %d: %ld %s\n", i, x[i], x[i] < 0 ? strerrorname_np(e[i]) : "");
	ftruncate(fd, 0);
	V(ftruncate(fd, -1));
	V(ftruncate(r, 0));
	V(ftruncate(p[0], 0));
	V(truncate("pos", -1));
	V(truncate(".", 0));
	V(truncate("none", 0));
	V(ftruncate(fd, 3 << 20));
	V(pwrite(fd, "x", 1, 1 << 20));
	V(lseek(fd, 0, SEEK_HOLE));
	V(lseek(fd, 3 << 20, SEEK_DATA));
	V(lseek(fd, -1, SEEK_DATA));
	V(fallocate(fd, 0, 0, 0));
	V(fallocate(fd, 0, -1, 1));
	V(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 1));
	V(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1 << 21));
	V(fallocate(r, 0, 0, 1));
	V(fallocate(p[1], 0, 0, 1));
	V(fallocate(fd, 0, 4 << 20, 1));
	V(lseek(fd, 0, SEEK_END));
	V(posix_fadvise(fd, 0, 0, 9));
	V(posix_fadvise(p[0], 0, 0, 0));
	V(readahead(a, 0, 10));
	V(syscall(SYS_sync_file_range, fd, 0l, 0l, 8));
	V(syscall(SYS_sync_file_range, fd, -1l, 0l, 0));
	V(fsync(fd));
	V(fdatasync(p[0]));
	V(syncfs(fd));
}

static void copies(void) {
	int a = open("src", O_CREAT | O_RDWR | O_TRUNC, 0600), b = open("dst", O_CREAT | O_RDWR | O_TRUNC, 0600), p[2], q[2];
	char buf[3000];
	memset(buf, 'x', sizeof buf);
	write(a, buf, sizeof buf);
	pipe(p), pipe(q);
	off_t o = 100;
	V(sendfile(b, a, &o, 500));
	V(o);
	V(lseek(a, 0, SEEK_CUR));
	lseek(a, 0, SEEK_SET);
	V(sendfile(p[1], a, 0, 1000));
	V(lseek(a, 0, SEEK_CUR));
	V(sendfile(b, p[0], 0, 10));
	V(sendfile(b, p[0], &o, 10));
	V(sendfile(a, b, &o, -1));
	o = -1;
	V(sendfile(b, a, &o, 10));
	V(splice(p[0], 0, q[1], 0, 300, 0));
	V(tee(p[0], q[1], 200, 0));
	V(splice(p[0], 0, b, 0, 5000, 0));
	V(splice(p[0], 0, b, 0, 5000, SPLICE_F_NONBLOCK));
	V(splice(a, 0, b, 0, 10, 0));
	V(splice(p[0], 0, p[1], 0, 10, 0));
	o = 0;
	V(splice(p[0], &o, b, 0, 10, 0));
	V(splice(a, &o, p[1], 0, 700, 0));
	V(o);
	V(splice(a, &o, p[1], 0, 0, 0));
	V(splice(a, 0, p[1], 0, 1, 0x100));
	V(read(q[0], buf, sizeof buf));
	struct iovec v = {buf, 100};
	V(vmsplice(p[1], &v, 1, 0));
	V(vmsplice(a, &v, 1, 0));
	V(read(p[0], buf, sizeof buf));
	off_t i = 0, j = 10000;
	V(copy_file_range(a, &i, b, &j, 99999, 0));
	V(i);
	V(j);
	V(copy_file_range(a, &i, b, &j, 99999, 0));
	i = 0, j = 10;
	V(copy_file_range(a, &i, a, &j, 100, 0));
	V(copy_file_range(a, &i, a, &j, 10, 0));
	V(copy_file_range(a, 0, p[1], 0, 10, 0));
	V(copy_file_range(a, 0, b, 0, 10, 1));
	V(lseek(b, 0, SEEK_END));
}

static void names(void) {
	char b[300];
	struct stat st;
	struct statfs sf;
	R(mkdir("d", 0755));
	R(mkdir("d/", 0755));
	R(mkdir("d/e/", 0755));
	R(mkdir("d/.", 0755));
	R(mkdir("file/x", 0755));
	R(rmdir("d"));
	R(rmdir("d/."));
	R(rmdir("d/.."));
	R(rmdir("/"));
	R(rmdir("file"));
	R(unlink("d"));
	R(unlink("file/"));
	R(unlink("/"));
	R(unlinkat(AT_FDCWD, "d", 1));
	R(unlinkat(AT_FDCWD, "d/e", AT_REMOVEDIR));
	R(rename("d", "d/x"));
	R(rename("d", "file"));
	R(rename("file", "d"));
	R(rename("file", "file2/"));
	R(rename(".", "x"));
	R(rename("d", "."));
	R(rename("none", "x"));
	R(syscall(SYS_renameat2, AT_FDCWD, "file", AT_FDCWD, "d", 1));
	R(syscall(SYS_renameat2, AT_FDCWD, "file", AT_FDCWD, "none", 2));
	R(syscall(SYS_renameat2, AT_FDCWD, "file", AT_FDCWD, "d", 3));
	R(syscall(SYS_renameat2, AT_FDCWD, "file", AT_FDCWD, "d", 8));
	R(syscall(SYS_renameat2, AT_FDCWD, "file", AT_FDCWD, "d", 2));
	R(stat("d", &st));
	V(st.st_mode & S_IFMT);
	R(rename("file", "tmp"));
	R(rename("d", "file"));
	R(rename("tmp", "d"));
	R(link("file", "file"));
	R(link("file", "hard"));
	R(stat("hard", &st));
	V(st.st_nlink);
	R(rename("hard", "file"));
	R(unlink("hard"));
	R(link("d", "hard"));
	R(link("none", "hard"));
	R(link("link", "hardlink"));
	R(lstat("hardlink", &st));
	V(S_ISLNK(st.st_mode));
	R(linkat(AT_FDCWD, "link", AT_FDCWD, "h2", AT_SYMLINK_FOLLOW));
	R(linkat(AT_FDCWD, "file", AT_FDCWD, "h3", 1));
	int t = open(".", O_TMPFILE | O_RDWR, 0600);
	snprintf(b, sizeof b, "/proc/self/fd/%d", t);
	R(linkat(AT_FDCWD, b, AT_FDCWD, "fromtmp", AT_SYMLINK_FOLLOW));
	R(linkat(t, "", AT_FDCWD, "fromtmp2", AT_EMPTY_PATH));
	V(fstat(t, &st) ?: st.st_nlink);
	int g = open("gone", O_CREAT | O_RDWR, 0600);
	unlink("gone");
	V(fstat(g, &st) ?: st.st_nlink);
	R(linkat(g, "", AT_FDCWD, "back", AT_EMPTY_PATH));
	R(symlink("", "s"));
	R(symlink("x", ""));
	R(symlink("x", "file"));
	R(symlink("x", "s/"));
	V(readlink("link", b, 2));
	R(readlink("link", b, 0));
	R(readlink("file", b, 10));
	R(readlink("none", b, 10));
	R(mknod("fifo", S_IFIFO | 0600, 0));
	R(mknod("sock", S_IFSOCK | 0600, 0));
	R(mknod("reg", 0600, 0));
	R(mknod("dir", S_IFDIR | 0600, 0));
	R(mknod("lnk", S_IFLNK | 0600, 0));
	R(open("sock", O_RDWR));
	R(open("fifo", O_WRONLY | O_NONBLOCK));
	R(open("fifo", O_RDONLY | O_NONBLOCK));
	R(open("fifo", O_RDWR | O_NONBLOCK));
	R(chmod("none", 0600));
	R(chmod("file", 0777777));
	V(stat("file", &st) ?: st.st_mode);
	R(fchmodat(AT_FDCWD, "link", 0644, AT_SYMLINK_NOFOLLOW));
	R(syscall(452, AT_FDCWD, "file", 0644, 0x8000));
	R(chown("file", -1, -1));
	R(fchownat(AT_FDCWD, "file", 0, 0, 1));
	R(utimensat(AT_FDCWD, "file", (struct timespec[]){{1, 2000000000}, {0, 0}}, 0));
	R(utimensat(AT_FDCWD, "file", (struct timespec[]){{5, 6}, {0, UTIME_OMIT}}, 0));
	V(stat("file", &st) ?: st.st_atim.tv_sec * 1000 + st.st_atim.tv_nsec);
	R(utimensat(AT_FDCWD, "none", 0, 0));
	R(utimensat(g, 0, 0, 0));
	R(syscall(SYS_utimensat, AT_FDCWD, 0, 0, 0));
	R(fstatat(AT_FDCWD, "", &st, 0));
	R(fstatat(AT_FDCWD, "", &st, AT_EMPTY_PATH));
	R(fstatat(g, "", &st, AT_EMPTY_PATH));
	R(fstatat(AT_FDCWD, "file", &st, 0x10000));
	R(stat("file", BAD));
	R(statfs("none", &sf));
	R(statfs("/", BAD));
	R(syscall(SYS_statx, AT_FDCWD, "file", 0x6000, 0, &st));
	R(syscall(SYS_statx, AT_FDCWD, "file", 0, 0x80000000, &st));
	R(access("file", 8));
	R(faccessat(AT_FDCWD, "file", R_OK, 0x8000));
	R(chdir("file"));
	R(chdir("none"));
	R(getcwd(b, 2));
	R(chroot("none"));
	mkdir("cwd", 0700), chdir("cwd"), rmdir("../cwd");
	R(syscall(SYS_getcwd, b, sizeof b));
	R(open("x", O_CREAT | O_RDWR, 0600));
	R(mkdir("x", 0700));
	R(open(".", O_RDONLY));
	R(access("..", F_OK));
	R(syscall(SYS_getdents64, open(".", O_RDONLY), b, sizeof b));
	chdir("..");
	R(syscall(SYS_getdents64, open(".", O_RDONLY), b, 10));
	R(syscall(SYS_getdents64, g, b, 300));
	R(umount2("file", 0));
	R(umount2("none", 0));
	R(umount2("file", 0x100));
	R(mount("none", "file", "nonesuch", 0, 0));
	R(mount("none", "none", "tmpfs", 0, 0));
	char *cwd = getcwd(0, 0);
	int n = strlen(cwd);
	g = open("moved", O_CREAT | O_RDWR, 0600);
	rename("moved", "moved2");
	printf("%s\n", fdpath(g) + n);
	unlink("moved2");
	printf("%s\n", fdpath(g) + n);
}

static void attributes(void) {
	char b[300];
	int fd = open("xa", O_CREAT | O_RDWR, 0600);
	R(setxattr("xa", "user.a", "1", 1, XATTR_REPLACE));
	R(setxattr("xa", "user.a", "12", 2, XATTR_CREATE));
	R(setxattr("xa", "user.a", "12", 2, XATTR_CREATE));
	R(setxattr("xa", "user.a", "12", 2, 4));
	R(setxattr("xa", "", "12", 2, 0));
	R(setxattr("xa", "user.", "12", 2, 0));
	R(setxattr("xa", "bogus.a", "12", 2, 0));
	R(setxattr("xa", "user.b", b, 65537, 0));
	V(getxattr("xa", "user.a", b, 100));
	V(getxattr("xa", "user.a", b, 1));
	V(getxattr("xa", "user.a", 0, 0));
	V(getxattr("xa", "user.none", b, 100));
	V(fgetxattr(fd, "user.a", b, 100));
	V(listxattr("xa", b, 100));
	V(listxattr("xa", b, 1));
	R(removexattr("xa", "user.none"));
	R(fremovexattr(fd, "user.a"));
	V(listxattr("xa", b, 100));
	symlink("xa", "xl");
	R(lsetxattr("xl", "user.a", "1", 1, 0));
	R(lgetxattr("xl", "user.a", b, 1));
}

static void locks(void) {
	int a = open("lock", O_CREAT | O_RDWR, 0600), b = open("lock", O_RDWR), r = open("lock", O_RDONLY);
	struct flock l = {F_WRLCK, SEEK_SET, 0, 10, 0};
	R(flock(a, LOCK_EX));
	R(flock(b, LOCK_SH | LOCK_NB));
	R(flock(a, LOCK_SH));
	R(flock(b, LOCK_SH | LOCK_NB));
	R(flock(b, 99));
	R(flock(a, LOCK_UN));
	R(fcntl(a, F_SETLK, &l));
	R(fcntl(r, F_SETLK, &l));
	R(fcntl(b, F_SETLK, &l));
	l.l_type = 9;
	R(fcntl(a, F_SETLK, &l));
	l.l_type = F_WRLCK, l.l_start = -1;
	R(fcntl(a, F_SETLK, &l));
	l.l_start = 0, l.l_whence = 7;
	R(fcntl(a, F_SETLK, &l));
	l.l_whence = 0;
	R(fcntl(a, F_SETLK, BAD));
	fflush(stdout);
	if (fork() == 0) {
		R(fcntl(a, F_SETLK, &l));
		R(fcntl(a, F_GETLK, &l));
		printf("%d %d %ld %ld %d\n", l.l_type, l.l_whence, (long)l.l_start, (long)l.l_len, l.l_pid == getppid());
		l.l_start = 10;
		R(fcntl(a, F_GETLK, &l));
		V(l.l_type);
		l.l_type = F_WRLCK, l.l_start = 5, l.l_pid = 1;
		R(fcntl(a, F_OFD_SETLK, &l));
		l.l_pid = 0;
		R(fcntl(a, F_OFD_SETLK, &l));
		fflush(stdout);
		_exit(0);
	}
	wait(0);
	close(r); // drops the process' locks on the file
	if (fork() == 0) {
		l.l_start = 0, l.l_type = F_WRLCK;
		R(fcntl(a, F_SETLK, &l));
		fflush(stdout);
		_exit(0);
	}
	wait(0);
}

int main(int argc, char **argv) {
	char dir[100], cmd[200];
	snprintf(dir, sizeof dir, "%s/file_names.XXXXXX", argc > 1 ? argv[1] : "/tmp");
	umask(022);
	signal(SIGPIPE, SIG_IGN);
	setvbuf(stdout, 0, _IOLBF, 0);
	mkdtemp(dir);
	chdir(dir);
	opens(), descriptors(), positions(), copies(), names(), attributes(), locks();
	fflush(stdout);
	snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
	chdir("/");
	return system(cmd);
}
