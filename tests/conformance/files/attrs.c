// stat, statx, chmod, chown, utimensat, access, umask: attributes, who may change them, errors.
// users: root ordinary
#include "conf.h"
#include <linux/stat.h>
#include <sys/sysmacros.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <utime.h>
#define AT_EMPTY 0x1000

static void show(const char *what, const char *name) {
	struct stat s;
	if (lstat(name, &s)) {
		P("%s: %s", what, conf_errno(errno));
		return;
	}
	P("%s: mode %o links %ld uid %d gid %d size %ld blocks %s", what, s.st_mode, (long)s.st_nlink, s.st_uid, s.st_gid, S_ISDIR(s.st_mode) ? -1L : (long)s.st_size, s.st_blocks ? "some" : "none");
}

static int xstat(int d, const char *n, int fl, unsigned mask, void *b) { return SC(statx, d, n, fl, mask, b); }

static void stats(void) {
	struct stat s;
	struct statx x;
	int fd = file("f", "hello"), o = open("f", O_PATH), d = open(".", O_RDONLY | O_DIRECTORY);
	symlink("f", "l"), symlink("none", "dangling"), symlink("loop", "loop"), mkdir("dir", 0750), mkfifo("fifo", 0600), link("f", "f2");
	show("file", "f"), show("link", "l"), show("dir", "dir"), show("fifo", "fifo");
	R(stat("f", &s)), R(stat("none", &s)), R(stat("", &s)), R(stat("f/", &s)), R(stat("f/x", &s)), R(stat("dangling", &s)), R(stat("loop", &s)), R(lstat("loop", &s)), R(lstat("loop/", &s));
	R(stat(0, &s)), R(SC(stat, BAD, &s)), R(SC(stat, "f", 0)), R(SC(stat, "f", BAD)), R(SC(stat, "f", (char *)border(10)));
	R(SC(stat, "f", readonly())), R(SC(fstat, fd, BAD)), R(fstat(-1, &s)), R(fstat(1000, &s)), R(fstat(o, &s));
	char longname[5000];
	memset(longname, 'a', 4999), longname[4999] = 0;
	R(stat(longname, &s));
	longname[256] = 0;
	R(stat(longname, &s));
	longname[255] = 0;
	R(stat(longname, &s));
	memset(longname, '/', 4096), longname[4095] = 0;
	R(stat(longname, &s));
	char *e = border(4);
	memcpy(e, "f\0xx", 4);
	R(stat(e, &s));
	memcpy(e, "ffff", 4);
	R(stat(e, &s));
	R(fstatat(d, "f", &s, 0)), R(fstatat(d, "l", &s, AT_SYMLINK_NOFOLLOW)), R(fstatat(d, "", &s, AT_EMPTY_PATH)), R(fstatat(fd, "", &s, AT_EMPTY_PATH)), R(fstatat(fd, "f", &s, 0)), R(fstatat(-5, "f", &s, 0)), R(fstatat(-5, "/", &s, 0)),
		R(fstatat(d, "f", &s, 0x40000)), R(fstatat(AT_FDCWD, "", &s, AT_EMPTY_PATH)), R(fstatat(d, "f", &s, AT_NO_AUTOMOUNT)), R(fstatat(o, "", &s, AT_EMPTY_PATH)), R(SC(newfstatat, fd, 0, &s, AT_EMPTY_PATH)), R(SC(newfstatat, -1, 0, &s, AT_EMPTY_PATH)), R(fstatat(d, "f", &s, AT_EACCESS));
	H("an empty path in a mapping that changes");
	int exe = open("/proc/self/exe", O_RDONLY), other = file("other", "other than an empty path");
	char *page = mmap(0, 4096, PROT_READ, MAP_PRIVATE, exe, 0);
	char *pad = page + 9; // of e_ident
	for (int i = 0; i < 3; i++)
		R(fstatat(fd, pad, &s, AT_EMPTY_PATH));
	R(mmap(page, 4096, PROT_READ, MAP_PRIVATE | MAP_FIXED, other, 0) == page ? 0 : -1), R(fstatat(fd, pad, &s, AT_EMPTY_PATH)), R(fstatat(d, pad, &s, AT_EMPTY_PATH));
	R(mmap(page, 4096, PROT_READ, MAP_PRIVATE | MAP_FIXED, exe, 0) == page ? 0 : -1), R(fstatat(fd, pad, &s, AT_EMPTY_PATH)), R(fstatat(fd, pad, &s, AT_EMPTY_PATH));
	R(mprotect(page, 4096, PROT_READ | PROT_WRITE)), R(fstatat(fd, pad, &s, AT_EMPTY_PATH)), *pad = 'f', R(fstatat(fd, pad, &s, AT_EMPTY_PATH)), R(fstatat(d, pad, &s, AT_EMPTY_PATH));
	R(mprotect(page, 4096, PROT_READ)), R(fstatat(d, pad, &s, AT_EMPTY_PATH)), R(munmap(page, 4096)), R(fstatat(fd, pad, &s, AT_EMPTY_PATH));
	H("statx");
	memset(&x, 0, sizeof x);
	R(xstat(AT_FDCWD, "f", 0, STATX_BASIC_STATS | STATX_BTIME, &x));
	P("mask %x blksize %u attributes %llx mask %d uid %u mode %o size %llu dev %d", x.stx_mask & 0xfff, x.stx_blksize, (unsigned long long)x.stx_attributes & ~STATX_ATTR_MOUNT_ROOT, 0, x.stx_uid, x.stx_mode, (unsigned long long)x.stx_size, x.stx_rdev_major);
	R(xstat(AT_FDCWD, "f", 0, 0, &x));
	P("no mask: %x", x.stx_mask & 0xfff);
	R(xstat(AT_FDCWD, "f", 0, 0x80000000, &x));
	R(xstat(AT_FDCWD, "f", AT_STATX_FORCE_SYNC | AT_STATX_DONT_SYNC, STATX_MODE, &x));
	R(xstat(AT_FDCWD, "f", AT_STATX_FORCE_SYNC, STATX_MODE, &x)), R(xstat(AT_FDCWD, "f", AT_STATX_DONT_SYNC, STATX_MODE, &x)), R(xstat(AT_FDCWD, "f", 0x10000, STATX_MODE, &x));
	R(xstat(AT_FDCWD, "f", AT_EACCESS, STATX_MODE, &x)), R(xstat(AT_FDCWD, "", 0, STATX_MODE, &x)), R(xstat(fd, "", AT_EMPTY_PATH, STATX_MODE, &x)), R(xstat(fd, 0, AT_EMPTY_PATH, STATX_MODE, &x)), R(xstat(-1, "", AT_EMPTY_PATH, STATX_MODE, &x)), R(xstat(AT_FDCWD, "f", 0, STATX_MODE, BAD)), R(xstat(AT_FDCWD, BAD, 0, STATX_MODE, &x)), R(xstat(AT_FDCWD, "l", AT_SYMLINK_NOFOLLOW, STATX_TYPE, &x));
	P("symlink %d", S_ISLNK(x.stx_mode));
	R(xstat(AT_FDCWD, "/proc", 0, STATX_BASIC_STATS, &x));
	P("mount root: %d in mask %d", !!(x.stx_attributes & STATX_ATTR_MOUNT_ROOT), !!(x.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT));
	R(xstat(AT_FDCWD, "f", 0, 0x1000, &x));
	P("mount id: %d", !!(x.stx_mask & 0x1000));
	R(xstat(AT_FDCWD, "/dev/null", 0, STATX_BASIC_STATS, &x));
	P("null: %u:%u mode %o", x.stx_rdev_major, x.stx_rdev_minor, x.stx_mode);
	H("statfs");
	struct statfs f;
	R(statfs(".", &f));
	P("type %lx bsize %ld namelen %ld frsize %ld flags %lx", (long)f.f_type, f.f_bsize, f.f_namelen, f.f_frsize, f.f_flags & 0x20);
	R(fstatfs(fd, &f)), R(fstatfs(-1, &f)), R(fstatfs(o, &f)), R(statfs("none", &f)), R(statfs("f/x", &f)), R(statfs("loop", &f)), R(statfs("f", BAD)), R(statfs(BAD, &f)), R(fstatfs(fd, BAD));
	R(statfs("/proc", &f));
	P("type %lx", (long)f.f_type);
	R(statfs("/sys", &f));
	P("type %lx", (long)f.f_type);
	int p[2];
	pipe(p);
	R(fstatfs(p[0], &f));
	P("type %lx", (long)f.f_type);
	fstat(p[0], &s);
	P("pipe mode %o links %ld size %ld blksize %ld", s.st_mode, (long)s.st_nlink, (long)s.st_size, (long)s.st_blksize);
	int m = memfd_create("x", 0);
	fstat(m, &s);
	P("memfd mode %o links %ld size %ld", s.st_mode, (long)s.st_nlink, (long)s.st_size);
}

static void modes(void) {
	int fd = file("m", "x"), o = open("m", O_PATH), r = open("m", O_RDONLY);
	symlink("m", "ml"), symlink("none", "md"), mkdir("mdir", 0755);
	static const int bits[] = {0, 0777, 07777, 04755, 02755, 02745, 01777, 0170777, -1, 0644};
	for (int i = 0; i < 10; i++)
		R(chmod("m", bits[i])), show("chmod", "m");
	R(chmod("mdir", 07777)), show("chmod", "mdir"), R(chmod("mdir", 0755)), show("chmod", "mdir");
	R(chmod("ml", 0600)), show("through a link", "m"), R(chmod("md", 0600)), R(chmod("", 0600)), R(chmod("m/x", 0600)), R(chmod(BAD, 0600)), R(fchmod(r, 0640)), show("fchmod", "m"), R(fchmod(o, 0640)), R(fchmod(-1, 0640));
	R(fchmodat(AT_FDCWD, "m", 0600, 0)), R(SC(fchmodat2, AT_FDCWD, "ml", 0600, AT_SYMLINK_NOFOLLOW)), R(SC(fchmodat2, AT_FDCWD, "m", 0604, AT_SYMLINK_NOFOLLOW)), R(SC(fchmodat2, o, "", 0614, AT_EMPTY_PATH)), show("empty path", "m"), R(SC(fchmodat2, AT_FDCWD, "m", 0600, 0x4000)), R(SC(fchmodat2, -1, "m", 0600, 0)), R(SC(fchmodat, AT_FDCWD, "m", 0600));
	R(chmod("/proc/self/stat", 0600)), R(chmod("/", 0755) ? errno != EPERM : 0);
	H("umask");
	umask(0);
	VN("umask", umask(027));
	close(open("u1", O_CREAT | O_WRONLY, 0777)), show("file", "u1"), mkdir("u2", 0777), show("dir", "u2"), mkfifo("u3", 0666), show("fifo", "u3");
	VN("umask", umask(07777)), VN("umask", umask(-1)), VN("umask", umask(022));
	close(open("u4", O_CREAT | O_WRONLY, 07777)), show("with set-id bits", "u4"), mkdir("u5", 07777), show("dir", "u5");
	mkdir("sg", 0755), chmod("sg", 02777), close(open("sg/f", O_CREAT, 0666)), show("below setgid", "sg/f"), mkdir("sg/d", 0755), show("below setgid", "sg/d");
}

static void owners(void) {
	int fd = file("o", "x"), o = open("o", O_PATH);
	symlink("o", "ol"), symlink("none", "od");
	chmod("o", 06755);
	R(chown("o", -1, -1)), show("-1 -1", "o");
	chmod("o", 06755);
	R(chown("o", getuid(), getgid())), show("own", "o");
	chmod("o", 06745);
	R(chown("o", 1, 2)), show("others", "o"), R(chown("o", -1, 5)), show("group", "o"), R(chown("o", 0, -1)), show("root", "o");
	R(lchown("ol", 7, 8)), show("lchown", "ol"), show("not the file", "o"), R(chown("ol", 9, 9)), show("chown", "o"), R(chown("od", 1, 1)), R(lchown("od", 1, 1)), R(chown("", 1, 1)), R(chown("o/x", 1, 1)), R(chown(BAD, 1, 1));
	R(fchown(fd, 3, 3)), show("fchown", "o"), R(fchown(o, 3, 3)), R(fchown(-1, 3, 3)), R(fchownat(AT_FDCWD, "ol", 4, 4, AT_SYMLINK_NOFOLLOW)), show("link", "ol"), R(fchownat(o, "", 6, 6, AT_EMPTY_PATH)), show("empty", "o"), R(fchownat(AT_FDCWD, "o", 6, 6, 0x8000)), R(fchownat(AT_FDCWD, "", 6, 6, 0)), R(fchownat(-1, "o", 6, 6, 0));
	R(write(fd, "y", 1));
	fd = file("s", "x");
	chmod("s", 06777), R(write(fd, "y", 1)), show("written", "s"), chmod("s", 06777), R(ftruncate(fd, 0)), show("truncated", "s"), chmod("s", 02767), R(write(fd, "y", 1)), show("locking bit", "s");
}

static void times_(const char *what, const char *n) {
	struct stat s;
	lstat(n, &s);
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	int a = llabs(now.tv_sec - s.st_atim.tv_sec) < 100, m = llabs(now.tv_sec - s.st_mtim.tv_sec) < 100;
	P("%s: atime %ld.%09ld mtime %ld.%09ld ctime %s", what, a ? -1 : s.st_atim.tv_sec, a ? 0 : s.st_atim.tv_nsec, m ? -1 : s.st_mtim.tv_sec, m ? 0 : s.st_mtim.tv_nsec, llabs(now.tv_sec - s.st_ctim.tv_sec) < 100 ? "now" : "not now");
}

static void times__(void) {
	int fd = file("t", "x"), o = open("t", O_PATH), r = open("t", O_RDONLY);
	symlink("t", "tl");
	struct timespec t[2] = {{1000, 5}, {2000, 999999999}};
	R(utimensat(AT_FDCWD, "t", t, 0)), times_("set", "t");
	t[0].tv_nsec = UTIME_OMIT, t[1].tv_sec = 3000, R(utimensat(AT_FDCWD, "t", t, 0)), times_("omit", "t");
	t[0].tv_nsec = UTIME_NOW, t[1].tv_nsec = UTIME_OMIT, R(utimensat(AT_FDCWD, "t", t, 0)), times_("now, omit", "t");
	t[0].tv_nsec = t[1].tv_nsec = UTIME_OMIT, R(utimensat(AT_FDCWD, "t", t, 0)), R(utimensat(AT_FDCWD, "none", t, 0)), R(SC(utimensat, AT_FDCWD, BAD, t, 0)), R(SC(utimensat, -1, 0, t, 0));
	t[0].tv_nsec = 1000000000, R(utimensat(AT_FDCWD, "t", t, 0)), t[0].tv_nsec = -1, R(utimensat(AT_FDCWD, "t", t, 0));
	t[0].tv_nsec = 0, t[0].tv_sec = -5, t[1].tv_nsec = 3, R(utimensat(AT_FDCWD, "t", t, 0)), times_("before the epoch", "t");
	t[0].tv_sec = 1L << 33, R(utimensat(AT_FDCWD, "t", t, 0)), times_("late", "t");
	t[0].tv_sec = LONG_MAX, t[1].tv_sec = LONG_MIN, R(utimensat(AT_FDCWD, "t", t, 0)), times_("extremes", "t");
	t[0].tv_sec = 1, t[1].tv_sec = 2, R(utimensat(AT_FDCWD, "tl", t, AT_SYMLINK_NOFOLLOW)), times_("link", "tl");
	R(futimens(r, t)), times_("futimens", "t"), R(futimens(o, t)), R(futimens(-1, t)), R(utimensat(o, "", t, AT_EMPTY_PATH)), R(utimensat(AT_FDCWD, "t", t, 0x4000)), R(SC(utimensat, AT_FDCWD, "t", BAD, 0)), R(SC(utimensat, AT_FDCWD, 0, t, 0)), R(SC(utimensat, fd, 0, t, AT_SYMLINK_NOFOLLOW));
	R(utimensat(AT_FDCWD, "t", 0, 0)), times_("null", "t");
	struct timeval v[2] = {{5, 6}, {7, 999999}};
	R(utimes("t", v)), times_("utimes", "t"), v[1].tv_usec = 1000000, R(utimes("t", v)), v[1].tv_usec = -1, R(utimes("t", v)), R(SC(futimesat, AT_FDCWD, "t", 0)), R(SC(utimes, "t", BAD));
	struct utimbuf u = {11, 12};
	R(utime("t", &u)), times_("utime", "t"), R(utime("t", 0)), R(SC(utime, "t", BAD)), R(utime("none", 0));
	utime("t", &u), usleep(2000), pwrite(fd, "z", 1, 0), times_("write", "t"), utime("t", &u), ftruncate(fd, 1), times_("ftruncate to the same size", "t"), utime("t", &u), truncate("t", 1), times_("truncate to the same size", "t"), utime("t", &u), chmod("t", 0600), times_("chmod", "t");
	char b;
	utime("t", &u), read(r, &b, 1), times_("read", "t"), utime("t", &u), close(open("t", O_WRONLY | O_TRUNC)), times_("O_TRUNC", "t"), utime("t", &u), link("t", "t2"), times_("link", "t");
	chmod("t", 0400);
	R(utime("t", 0));
	int n = open("/proc/self/stat", O_RDONLY);
	R(futimens(n, t));
}

static void access_(void) {
	file("a", "x");
	mkdir("ad", 0), symlink("a", "al"), mkdir("ad2", 0711);
	static const int modes[] = {0, 0400, 0200, 0100, 0444, 0222, 0111, 0644, 0755, 0040, 0004};
	for (int i = 0; i < 11; i++) {
		chmod("a", modes[i]);
		P("mode %o: F %s R %s W %s X %s RWX %s", modes[i], EN(access("a", F_OK)), EN(access("a", R_OK)), EN(access("a", W_OK)), EN(access("a", X_OK)), EN(access("a", 7)));
		P("open: R %s W %s RW %s exec %s", EN(open("a", O_RDONLY)), EN(open("a", O_WRONLY)), EN(open("a", O_RDWR)), EN(SC(faccessat2, AT_FDCWD, "a", X_OK, AT_EACCESS)));
	}
	R(access("a", 8)), R(access("a", -1)), R(access("none", 0)), R(access("", 0)), R(access("a/", 0)), R(access(BAD, 0)), R(access("ad", 7)), R(access("ad/x", 0)), R(access("ad2/x", 0));
	R(SC(faccessat2, AT_FDCWD, "a", 0, 0x10000)), R(SC(faccessat2, AT_FDCWD, "al", 0, AT_SYMLINK_NOFOLLOW)), R(SC(faccessat2, AT_FDCWD, "", 0, AT_EMPTY_PATH)), R(SC(faccessat2, -1, "a", 0, 0)), R(SC(faccessat, AT_FDCWD, "a", 0, 0));
	R(chdir("ad")), R(open("ad", O_RDONLY)), R(rmdir("ad")), R(mkdir("/x", 0755) < 0 && errno == EROFS ? 0 : (rmdir("/x"), 0)), R(access("/proc/self/mem", W_OK)), R(access("/etc/passwd", W_OK)), R(open("/etc/shadow", O_RDONLY)), R(access("/root", R_OK));
	chmod("a", 0755);
	if (!getuid()) {
		setresuid(5, 0, 0);
		R(access("a", W_OK)), R(SC(faccessat2, AT_FDCWD, "a", W_OK, AT_EACCESS));
	}
}

int main(void) {
	sub(stats), sub(modes), sub(owners), sub(times__), sub(access_);
}
