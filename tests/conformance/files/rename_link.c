// rename, renameat2, link, unlink, symlink, readlink, mkdir, rmdir, mknod, chdir, getcwd: names.
// users: root ordinary
#include "conf.h"
#include <dirent.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>

static int cmp(const void *a, const void *b) { return strcmp(*(char **)a, *(char **)b); }
static void ls(const char *d) {
	DIR *D = opendir(d);
	char *n[100], out[4096] = "";
	int k = 0;
	for (struct dirent *e; D && (e = readdir(D)) && k < 100;)
		if (e->d_name[0] != '.') {
			char t = e->d_type == DT_DIR ? '/' : e->d_type == DT_LNK ? '@' : e->d_type == DT_FIFO ? '|' : e->d_type == DT_SOCK ? '=' : e->d_type == DT_REG ? ' ' : '?';
			asprintf(&n[k++], "%s%c", e->d_name, t);
		}
	qsort(n, k, sizeof *n, cmp);
	for (int i = 0; i < k; i++)
		strcat(out, " "), strcat(out, n[i]);
	P("ls %s:%s", d, out);
	if (D)
		closedir(D);
}
#define rn2(a, b, f) SC(renameat2, AT_FDCWD, a, AT_FDCWD, b, f)

static void renames(void) {
	file("a", "a"), file("b", "b"), mkdir("d", 0755), mkdir("e", 0755), mkdir("full", 0755), file("full/x", ""), symlink("a", "l"), symlink("loop", "loop"), mkdir("d/sub", 0755);
	R(rename("a", "a")), R(rename("a", "c")), ls("."), R(rename("c", "b")), P("b holds %s", slurp("b")), R(rename("none", "b")), R(rename("b", "none/b")), R(rename("b", "d")), R(rename("d", "b")), R(rename("e", "full")), R(rename("full", "e")), ls("."), ls("e");
	R(rename("d", "d/sub/x")), R(rename("d", "d")), R(rename("d/sub", "d")), R(rename(".", "z")), R(rename("..", "z")), R(rename("d/.", "z")), R(rename("b", ".")), R(rename("b", "d/..")), R(rename("", "z")), R(rename("b", "")), R(rename("b/", "z")), R(rename("b", "z/")), R(rename("d", "z/")), R(rename("z/", "d")), R(rename("l", "l2")), ls("."), R(rename("loop/x", "y")), R(rename("b/x", "y")), R(rename(BAD, "y")), R(rename("b", BAD)), R(rename("/", "y")), R(rename("b", "/")), R(rename("/proc/self/stat", "y")), R(rename("b", "/proc/y")), R(rename("b", "/dev/shm/y"));
	char n[300];
	memset(n, 'n', 299), n[299] = 0;
	R(rename("b", n)), n[255] = 0, RN("255 bytes", rename("b", n)), RN("back", rename(n, "b"));
	link("b", "b2");
	R(rename("b", "b2"));
	ls(".");
	H("renameat2");
	file("p", "p"), file("q", "q"), mkdir("dd", 0755), file("dd/in", "");
	R(rn2("p", "q", 1)), R(rn2("p", "r", 1)), R(rn2("r", "p", 0)), R(rn2("p", "q", 2)), P("p %s q %s", slurp("p"), slurp("q")), R(rn2("p", "none", 2)), R(rn2("none", "p", 2)), R(rn2("p", "dd", 2)), ls("."), R(rn2("p", "dd", 2)), R(rn2("dd", "dd/in", 2)), R(rn2("dd/in", "dd", 2)), R(rn2("p", "q", 3)), R(rn2("p", "q", 8)), R(rn2("p", "q", 5)), R(rn2("p", "q", 6)), R(rn2("p", "p", 1)), R(rn2("p", "p", 2)), R(renameat(-1, "p", AT_FDCWD, "q")), R(renameat(AT_FDCWD, "p", 1000, "q"));
	int f = open("p", O_RDONLY), dfd = open("d", O_RDONLY | O_DIRECTORY);
	R(renameat(f, "x", AT_FDCWD, "q")), R(renameat(AT_FDCWD, "p", dfd, "moved")), ls("d");
	R(rn2("q", "w", 4)), ls("."), R(unlink("q"));
}

static void links(void) {
	struct stat s;
	int fd = file("a", "a"), o = open("a", O_PATH);
	mkdir("d", 0755), symlink("a", "l"), symlink("none", "dl"), symlink("loop", "loop");
	R(link("a", "b")), stat("a", &s), P("links %ld", (long)s.st_nlink), R(link("a", "b")), R(link("a", "d")), R(link("d", "d2")), R(link("none", "x")), R(link("l", "l2")), ls("."), R(linkat(AT_FDCWD, "l", AT_FDCWD, "l3", AT_SYMLINK_FOLLOW)), ls("."), R(link("dl", "dl2")), R(linkat(AT_FDCWD, "dl", AT_FDCWD, "dl3", AT_SYMLINK_FOLLOW)), R(link("loop/x", "x")), R(link("a", "loop/x")), R(link("a/x", "x")), R(link("", "x")), R(link("a", "")), R(link(BAD, "x")), R(link("a", BAD)), R(link("a", "none/x")), R(link("a", "x/")), R(link("a/", "x")), R(linkat(AT_FDCWD, "a", AT_FDCWD, "x", 1)), R(link("a", "/proc/x")), R(link("a", "/dev/shm/x")), R(link("/proc/self/stat", "x"));
	R(linkat(fd, "", AT_FDCWD, "e1", AT_EMPTY_PATH)), R(linkat(o, "", AT_FDCWD, "e2", AT_EMPTY_PATH)), R(linkat(AT_FDCWD, "/proc/self/fd/3", AT_FDCWD, "e3", AT_SYMLINK_FOLLOW)), ls(".");
	int t = open(".", O_TMPFILE | O_RDWR, 0600);
	char p[64];
	sprintf(p, "/proc/self/fd/%d", t);
	RN("link a tmpfile", linkat(AT_FDCWD, p, AT_FDCWD, "tmp", AT_SYMLINK_FOLLOW)), fstat(t, &s), P("links %ld", (long)s.st_nlink);
	t = open(".", O_TMPFILE | O_RDWR | O_EXCL, 0600);
	sprintf(p, "/proc/self/fd/%d", t);
	RN("link an exclusive tmpfile", linkat(AT_FDCWD, p, AT_FDCWD, "tmp2", AT_SYMLINK_FOLLOW));
	int u = file("un", "x");
	unlink("un");
	sprintf(p, "/proc/self/fd/%d", u);
	RN("link an unlinked file", linkat(AT_FDCWD, p, AT_FDCWD, "un2", AT_SYMLINK_FOLLOW));
	H("unlink");
	R(unlink("b")), R(unlink("b")), R(unlink("d")), R(unlink("l2")), R(unlink("")), R(unlink("a/")), R(unlink("a/x")), R(unlink("d/")), R(unlink(".")), R(unlink("..")), R(unlink("/")), R(unlink(BAD)), R(unlink("loop/x")), R(unlink("loop")), R(unlinkat(AT_FDCWD, "d", 0)), R(unlinkat(AT_FDCWD, "d", AT_REMOVEDIR)), R(unlinkat(AT_FDCWD, "a", AT_REMOVEDIR)), R(unlinkat(AT_FDCWD, "a", 1)), R(unlinkat(-1, "a", 0)), R(unlink("/proc/self/stat"));
	H("symlink");
	R(symlink("x", "a")), R(symlink("", "s")), R(symlink("x", "")), R(symlink("x", "none/s")), R(symlink("x", "s/")), R(symlink(BAD, "s")), R(symlink("x", BAD)), R(symlinkat("x", -1, "s"));
	char big[4200];
	memset(big, 'x', 4199), big[4199] = 0;
	RN("symlink 4199", symlink(big, "s1")), big[4095] = 0, RN("symlink 4095", symlink(big, "s1")), VN("readlink", readlink("s1", big, sizeof big));
	H("readlink");
	char b[8];
	symlink("abcdefghij", "rl");
	V(readlink("rl", b, 8)), V(readlink("rl", b, 3)), V(readlink("rl", b, 0)), V(readlink("rl", b, -1)), V(readlink("a", b, 8)), V(readlink("none", b, 8)), V(readlink("rl", BAD, 8)), V(readlink(BAD, b, 8)), V(readlink("rl", (char *)border(4), 8)), V(readlink("", b, 8)), V(readlink("rl/", b, 8));
	int lo = open("rl", O_PATH | O_NOFOLLOW);
	V(readlinkat(lo, "", b, 8)), V(readlinkat(fd, "", b, 8)), V(readlinkat(-1, "rl", b, 8)), V(readlinkat(AT_FDCWD, "", b, 8));
}

static void dirs(void) {
	int f = file("f", "");
	struct stat s;
	R(mkdir("d", 0755)), R(mkdir("d", 0755)), R(mkdir("f", 0755)), R(mkdir("f/x", 0755)), R(mkdir("none/x", 0755)), R(mkdir("", 0755)), R(mkdir("e/", 0755)), R(mkdir("e//", 0755)), R(mkdir(".", 0755)), R(mkdir("..", 0755)), R(mkdir("/", 0755)), R(mkdir("d/.", 0755)), R(mkdir("d/..", 0755)), R(mkdir("g/.", 0755)), R(mkdir(BAD, 0755)), R(mkdirat(-1, "x", 0755)), R(mkdir("/proc/x", 0755));
	symlink("nowhere", "sl"), R(mkdir("sl", 0755)), R(mkdir("sl/", 0755));
	stat("d", &s), P("links %ld", (long)s.st_nlink), mkdir("d/1", 0755), mkdir("d/2", 0755), stat("d", &s), P("links %ld", (long)s.st_nlink);
	R(rmdir("d")), R(rmdir("d/1/")), R(rmdir("d/2/.")), R(rmdir("d/2/..")), R(rmdir(".")), R(rmdir("..")), R(rmdir("/")), R(rmdir("f")), R(rmdir("none")), R(rmdir("")), R(rmdir("sl")), R(rmdir("/proc")), R(rmdir("f/")), R(rmdir(BAD));
	int dfd = open("d/2", O_RDONLY | O_DIRECTORY);
	rmdir("d/2"), fstat(dfd, &s), P("removed: links %ld", (long)s.st_nlink), R(openat(dfd, "x", O_CREAT | O_WRONLY, 0644)), R(mkdirat(dfd, "x", 0755)), R(openat(dfd, ".", O_RDONLY)), R(openat(dfd, "..", O_RDONLY)), R(symlinkat("x", dfd, "y"));
	H("chdir");
	char b[4096];
	R(chdir("d")), P("%s", getcwd(b, sizeof b)), R(chdir("..")), R(chdir("f")), R(chdir("none")), R(chdir("")), R(chdir(BAD)), R(fchdir(dfd)), RN("getcwd in a removed directory", getcwd(b, sizeof b) ? 0 : -1), R(chdir("..")), P("%s", getcwd(b, sizeof b) ?: "none"), R(fchdir(f)), R(fchdir(-1)), R(chdir("/tmp/d")), V(SC(getcwd, b, 7)), V(SC(getcwd, b, 6)), V(SC(getcwd, b, 0)), V(SC(getcwd, BAD, 100)), V(SC(getcwd, (char *)border(4), 100));
	int o = open("d", O_PATH);
	R(fchdir(o)), P("%s", getcwd(b, sizeof b)), R(chdir("/tmp/d"));
	R(chroot("none")), R(chroot("f")), R(chroot("d")), P("%s", getcwd(b, sizeof b) ?: conf_errno(errno)), R(stat("/d", &s)), R(chdir("../../../..")), R(stat("tmp", &s));
}

static void mknods(void) {
	struct stat s;
	R(mknod("r", S_IFREG | 0640, 0)), R(mknod("r", S_IFREG | 0640, 0)), R(mknod("z", 0600, 0)), R(mknod("p", S_IFIFO | 0600, 0)), R(mknod("s", S_IFSOCK | 0600, 0)), R(mknod("c", S_IFCHR | 0600, makedev(1, 3))), R(mknod("b", S_IFBLK | 0600, makedev(7, 99))), R(mknod("d", S_IFDIR | 0700, 0)), R(mknod("l", S_IFLNK | 0700, 0)), R(mknod("w", S_IFCHR | 0600, 0)), R(mknod("x", 0xf000 | 0600, 0)), R(mknod("", S_IFREG, 0)), R(mknod("y/", S_IFREG, 0)), R(mknod("r/y", S_IFREG, 0)), R(mknod(BAD, S_IFREG, 0)), R(mknodat(-1, "y", S_IFREG, 0));
	if (!stat("c", &s))
		P("device %d:%d mode %o", major(s.st_rdev), minor(s.st_rdev), s.st_mode);
	R(open("s", O_RDONLY)), R(open("p", O_RDWR | O_NONBLOCK)), R(open("p", O_WRONLY | O_NONBLOCK)), R(open("w", O_RDONLY)), R(truncate("p", 0)), R(truncate("s", 0)), R(truncate("c", 0));
}

static void sticky(void) {
	if (getuid())
		return;
	mkdir("t", 0), chmod("t", 01777), close(file("t/mine", "")), mkdir("t/dir", 0755), chown("t/mine", 5, 5), close(file("t/other", "")), mkdir("w", 0), chmod("w", 0777), close(file("w/x", "")), mkdir("n", 0755), close(file("n/x", ""));
	chmod(".", 0777);
	setresgid(6, 6, 6), setresuid(6, 6, 6);
	R(unlink("t/mine")), R(rename("t/mine", "t/z")), R(rmdir("t/dir")), R(unlink("w/x")), R(unlink("n/x")), R(rename("n/x", "w/y")), R(link("n/x", "w/hard")), R(open("t/new", O_CREAT | O_WRONLY, 0600)), R(rename("t/new", "t/other")), R(unlink("t/new")), R(chmod("t/other", 0600)), R(chdir("/root")), R(open("n/x", O_WRONLY)), R(open("n/new", O_CREAT, 0600)), R(open("n/x", O_RDONLY | O_NOATIME)), R(truncate("n/x", 0)), R(utimensat(AT_FDCWD, "n/x", 0, 0)), R(chown("t/other", 6, 6));
}

int main(void) {
	sub(renames);
	mkdir("links", 0755), chdir("links"), sub(links), chdir("..");
	mkdir("nods", 0755), chdir("nods"), sub(mknods), chdir("..");
	sub(sticky);
	mkdir("/tmp/d/dirs", 0755), chdir("dirs"), sub(dirs);
}
