// The mount calls by descriptor in all their ways: parameters and messages, detached trees, what may be moved where, attributes in a tree, reconfiguring.
// users: root ordinary
#include "mounts.h"

#define ATTRS(d, p, fl, set, clr, prop) R(SC(mount_setattr, d, p, fl, ((uint64_t[4]){set, clr, prop}), 32))
static int f, m, t;
static void start(void) {
	int u = getuid(), g = getgid();
	unshare(u ? CLONE_NEWUSER | CLONE_NEWNS : CLONE_NEWNS), mount(0, "/", 0, MS_REC | MS_PRIVATE, 0);
	if (u)
		as_root(u, g);
}
static int mk(const char *fs) {
	int c = SC(fsopen, fs, 0), r;
	SC(fsconfig, c, 6, 0, 0, 0), r = SC(fsmount, c, 0, 0), close(c);
	return r;
}
// line prints what mountinfo says of a mount, from its mount point on.
static void line(const char *p) {
	char *s = strdup(slurp("/proc/self/mountinfo")), *l, *save;
	for (l = strtok_r(s, "\n", &save); l; l = strtok_r(0, "\n", &save)) {
		char *q = strstr(l, p);
		if (q && strncmp(q + strlen(p), " ", 1) == 0)
			P("%s", q);
	}
	free(s);
}
static void message(void) {
	char b[256];
	int n = read(f, b, 255);
	P("message %.*s%s", n < 0 ? 0 : n - 1, b, n < 0 ? conf_errno(errno) : b[n - 1] == '\n' ? "" : "(no newline)");
}

static void contexts(void) {
	start();
	f = SC(fsopen, "tmpfs", 0);
	struct stat s;
	V(fcntl(f, F_GETFL) & 3), V(fcntl(f, F_GETFD)), fstat(f, &s), P("%o", s.st_mode), message(), R(write(f, "x", 1)), R(lseek(f, 0, 0));
	H("fsconfig's arguments");
	for (int c = -1; c < 11; c++)
		for (int i = 0; i < 16; i++) {
			char n[64];
			sprintf(n, "cmd %d args %d", c, i), f = SC(fsopen, "tmpfs", 0), RN(n, SC(fsconfig, f, c, i & 1 ? "k" : 0, i & 2 ? "v" : 0, i & 4 ? 1 : i & 8 ? -1 : 0)), close(f);
		}
	R(SC(fsconfig, -1, 6, 0, 0, 0)), R(SC(fsconfig, -1, 77, 0, 0, 0)), R(SC(fsconfig, 99, 6, 0, 0, 0)), R(SC(fsconfig, 99, 77, 0, 0, 0)), R(SC(fsconfig, 1, 1, "a", "b", 0));
	f = SC(fsopen, "tmpfs", 0);
	R(SC(fsconfig, f, 1, BAD, "b", 0)), R(SC(fsconfig, f, 1, "size", BAD, 0)), message(), R(SC(fsconfig, f, 1, "", "x", 0)), message(), R(SC(fsconfig, f, 0, "", 0, 0)), message(), R(SC(fsconfig, f, 1, "what", "x", 0)), message(), message(), R(SC(fsconfig, f, 0, "what", 0, 0)), message();
	static char big[300];
	memset(big, 'a', 299), R(SC(fsconfig, f, 1, big, "x", 0)), R(SC(fsconfig, f, 1, "size", big, 0)), R(SC(fsconfig, f, 1, "source", "one", 0)), R(SC(fsconfig, f, 1, "source", "two", 0)), R(SC(fsconfig, f, 0, "source", 0, 0)), R(SC(fsconfig, f, 0, "async", 0, 0)), R(SC(fsconfig, f, 0, "lazytime", 0, 0)), R(SC(fsconfig, f, 1, "mode", "0700", 0)), R(SC(fsconfig, f, 7, 0, 0, 0)), R(SC(fsmount, f, 0, 0)), R(SC(fsconfig, f, 6, 0, 0, 0)), R(SC(fsconfig, f, 1, "size", "1m", 0)), R(SC(fsmount, f, 2, 0)), R(SC(fsmount, f, 0, 0x100)), R(SC(fsmount, f, 0, 0x30)), R(SC(fsmount, f, 0, 0x100000)), m = SC(fsmount, f, 1, 0x80 | 0x10), V(fcntl(m, F_GETFD)), V(fcntl(m, F_GETFL) & O_PATH), R(SC(fsmount, f, 0, 0)), fstat(m, &s), P("%o", s.st_mode), mkdir("n", 0755), R(SC(move_mount, m, "", AT_FDCWD, "n", 4));
	char cwd[4096], *p = getcwd(cwd, 4000);
	strcat(p, "/n"), flags("n"), R(SC(fsconfig, f, 0, "ro", 0, 0)), R(SC(fsconfig, f, 7, 0, 0, 0)), R(mkdir("n/d", 0755)), flags("n"), R(SC(fsconfig, f, 0, "rw", 0, 0)), R(SC(fsconfig, f, 7, 0, 0, 0)), R(mkdir("n/d", 0755));
	int w = open("n/w", O_CREAT | O_RDWR, 0600);
	R(SC(fsconfig, f, 0, "ro", 0, 0)), R(SC(fsconfig, f, 7, 0, 0, 0)), close(w), R(umount("n")), close(m), R(umount("n"));
	f = SC(fsopen, "tmpfs", 0), R(SC(fsconfig, f, 1, "size", "1x", 0) < 0 || SC(fsconfig, f, 6, 0, 0, 0) < 0 ? -1 : 0), close(f);
	f = SC(fsopen, "tmpfs", 0), R(SC(fsconfig, f, 0, "ro", 0, 0)), R(SC(fsconfig, f, 6, 0, 0, 0)), m = SC(fsmount, f, 0, 0), R(SC(move_mount, m, "", AT_FDCWD, "n", 4)), close(m), flags("n"), R(mkdir("n/x", 0755)), R(mount(0, "n", 0, MS_REMOUNT | MS_BIND, 0)), R(mkdir("n/x", 0755)), R(mount(0, "n", 0, MS_REMOUNT, 0)), R(mkdir("n/x", 0755)), close(f);
	H("fspick");
	f = SC(fspick, AT_FDCWD, "n", 0), V(f > 2), R(SC(fspick, AT_FDCWD, "n/x", 0)), R(SC(fspick, AT_FDCWD, "n", 0x10)), R(SC(fspick, AT_FDCWD, "", 8)), R(SC(fspick, AT_FDCWD, "", 0)), R(SC(fspick, -1, "x", 0)), R(SC(fsconfig, f, 6, 0, 0, 0)), R(SC(fsmount, f, 0, 0)), R(SC(fsconfig, f, 1, "size", "8k", 0)), R(SC(fsconfig, f, 7, 0, 0, 0)), R(SC(fsconfig, f, 7, 0, 0, 0));
	struct statvfs v;
	statvfs("n", &v), P("blocks %ld", v.f_blocks);
}
static void trees(void) {
	start(), mkdir("a", 0755), mkdir("b", 0755), mkdir("c", 0755), file("f", "file"), file("g", "other"), symlink("a", "l");
	mount("t", "a", "tmpfs", 0, 0), mkdir("a/s", 0755), mkdir("a/s/q", 0755), mount("u", "a/s", "tmpfs", 0, 0), mkdir("a/s/deep", 0755);
	R(SC(open_tree, AT_FDCWD, "a", 0x8000)), R(SC(open_tree, AT_FDCWD, "a", 2)), R(SC(open_tree, AT_FDCWD, "", 0)), R(SC(open_tree, AT_FDCWD, "", 0x1000 | 1) < 0 ? -1 : 0), R(SC(open_tree, AT_FDCWD, BAD, 1));
	t = SC(open_tree, AT_FDCWD, "l", 0x100), V(t > 2), V(fcntl(t, F_GETFL) & (O_PATH | O_NOFOLLOW)), R(SC(move_mount, t, "", AT_FDCWD, "b", 4)), close(t), t = SC(open_tree, AT_FDCWD, "a", 0), R(SC(move_mount, t, "", AT_FDCWD, "b", 4)), R(access("b/s", 0)), R(access("a/s", 0)), R(SC(move_mount, t, "", AT_FDCWD, "a", 4)), R(access("a/s", 0)), close(t);
	H("clones");
	t = SC(open_tree, AT_FDCWD, "a", 1), V(t > 2), R(faccessat(t, "s", 0, 0)), R(faccessat(t, "s/deep", 0, 0)), R(faccessat(t, "..", 0, 0)), R(umount2("a", 0)), R(openat(t, "new", O_CREAT | O_WRONLY, 0600) < 0 ? -1 : 0), R(access("a/new", 0)), R(mount("x", "a/s/deep", "tmpfs", 0, 0)), R(SC(move_mount, AT_FDCWD, "a/s", t, "s", 0)), R(faccessat(t, "s/deep", 0, 0)), R(SC(move_mount, t, "s", AT_FDCWD, "b", 0)), R(SC(move_mount, t, "", t, "s", 4)), R(SC(move_mount, t, "", AT_FDCWD, "f", 4)), R(SC(move_mount, t, "", AT_FDCWD, "none", 4)), R(SC(move_mount, t, "", AT_FDCWD, "b", 0)), R(SC(move_mount, t, "", AT_FDCWD, "b", 0x400)), R(SC(move_mount, t, "", AT_FDCWD, "b", 0x300)), R(SC(move_mount, AT_FDCWD, "f", AT_FDCWD, "g", 0)), R(SC(move_mount, AT_FDCWD, "/", AT_FDCWD, "b", 0)), R(SC(move_mount, AT_FDCWD, "a", AT_FDCWD, "a/s", 0));
	int u = SC(open_tree, AT_FDCWD, "a", 1 | 0x8000);
	V(u > 2), R(faccessat(u, "s/deep", 0, 0)), R(SC(move_mount, u, "", AT_FDCWD, "b", 4)), R(access("b/s/deep", 0)), R(SC(move_mount, u, "", AT_FDCWD, "c", 4)), R(access("c/s/deep", 0)), R(access("b/s", 0)), close(u), R(access("c/s/deep", 0)), R(umount("c/s/deep")), R(umount("c/s")), R(umount("c"));
	u = SC(open_tree, t, "", 0x1000 | 1), V(u > 2), close(u), R(umount2("a/s", MNT_DETACH)), R(umount("a")), R(faccessat(t, "new", 0, 0)), close(t);
	u = SC(open_tree, AT_FDCWD, "f", 1), R(SC(move_mount, u, "", AT_FDCWD, "b", 4)), R(SC(move_mount, u, "", AT_FDCWD, "g", 4)), P("%s", slurp("g")), close(u), R(umount("g")), P("%s", slurp("g"));
	H("a tree that is closed is gone");
	t = mk("tmpfs"), mkdirat(t, "in", 0755), u = openat(t, "in", O_PATH), V(u > 2), close(t), R(faccessat(u, ".", 0, 0)), R(faccessat(u, "..", 0, 0)), R(SC(move_mount, u, "", AT_FDCWD, "b", 4)), R(SC(open_tree, u, "", 0x1001)), close(u);
	t = mk("tmpfs"), u = mk("tmpfs"), mkdirat(t, "in", 0755), R(SC(move_mount, u, "", t, "in", 4)), R(mkdirat(t, "in/on", 0755)), R(SC(move_mount, t, "", AT_FDCWD, "b", 4)), R(access("b/in/on", 0)), close(t), close(u), R(access("b/in/on", 0)), R(umount2("b", MNT_DETACH));
	t = mk("tmpfs"), R(umount2("b", 0)), R(mount("/proc/self/fd/99", "b", 0, MS_BIND, 0));
	char n[32];
	sprintf(n, "/proc/self/fd/%d", t), R(mount(n, "b", 0, MS_MOVE, 0)), R(umount("b")), close(t);
	t = mk("tmpfs"), R(fchdir(t)), P("%s", wait_for(CHILD(char b[64]; V(SC(getcwd, b, 64)); P("%s", b)))), close(t), R(access(".", 0)), R(open("x", O_CREAT | O_RDWR, 0600) < 0 ? -1 : 0), R(chdir("/"));
}
static void attributes(void) {
	start(), mkdir("a", 0755), mkdir("b", 0755), mount("t", "a", "tmpfs", 0, 0), mkdir("a/s", 0755), mount("u", "a/s", "tmpfs", 0, 0);
	static const uint64_t k[][2] = {{1, 0}, {0, 1}, {2 | 4 | 8, 0}, {0, 2}, {0x80, 0}, {0, 0x80}, {0x10, 0}, {0x10, 0x10}, {0x10, 0x70}, {0x20, 0x70}, {0x30, 0x70}, {0, 0x70}, {0, 0x20}, {0x200000, 0}, {0x400000, 0}, {0, 0x400000}, {1, 1}, {~0ULL, 0}, {0, ~0ULL}, {0x100000, 0}, {0, 0x100000}, {0, 0}};
	for (unsigned i = 0; i < sizeof k / sizeof *k; i++) {
		char n[64];
		uint64_t v[4] = {k[i][0], k[i][1], 0, 0};
		sprintf(n, "set %llx clear %llx", (long long)k[i][0], (long long)k[i][1]), RN(n, SC(mount_setattr, AT_FDCWD, "a", 0, v, 32)), flags("a"), flags("a/s");
	}
	H("in a tree");
	int w = open("a/s/w", O_CREAT | O_RDWR, 0600);
	ATTRS(AT_FDCWD, "a", AT_RECURSIVE, 1, 0, 0), flags("a"), ATTRS(AT_FDCWD, "a", 0, 1, 0, 0), close(w), ATTRS(AT_FDCWD, "a", AT_RECURSIVE, 2, 1, 0), flags("a/s"), ATTRS(AT_FDCWD, "a/s/w", 0, 1, 0, 0), ATTRS(AT_FDCWD, "none", 0, 1, 0, 0), ATTRS(AT_FDCWD, "none", 0, 0, 0, 0), ATTRS(AT_FDCWD, "", 0, 1, 0, 0), ATTRS(-1, "", 0x1000, 1, 0, 0);
	uint64_t big[600] = {1};
	R(SC(mount_setattr, AT_FDCWD, "a", 0, big, 40)), R(SC(mount_setattr, AT_FDCWD, "a", 0, big, 4096)), R(SC(mount_setattr, AT_FDCWD, "a", 0, big, 4097)), big[4] = 1, R(SC(mount_setattr, AT_FDCWD, "a", 0, big, 40)), R(SC(mount_setattr, AT_FDCWD, "a", 0, big, 0)), R(SC(mount_setattr, AT_FDCWD, BAD, 0, big, 32)), R(SC(mount_setattr, AT_FDCWD, "a", 0x4, big, 32));
	H("propagation");
	char cwd[4096], *p = getcwd(cwd, 4000);
	strcat(p, "/a"), ATTRS(AT_FDCWD, "a", 0, 0, 1, MS_SHARED), ATTRS(AT_FDCWD, "a", 0, 0, 0, MS_SHARED | MS_PRIVATE), ATTRS(AT_FDCWD, "a", 0, 0, 0, MS_REC), mount("a", "b", 0, MS_BIND, 0), mkdir("a/p", 0755), mount("x", "a/p", "tmpfs", 0, 0), mkdir("a/p/seen", 0755), R(access("b/p/seen", 0)), ATTRS(AT_FDCWD, "b", 0, 0, 0, MS_SLAVE), R(umount("b/p")), R(access("a/p/seen", 0)), ATTRS(AT_FDCWD, "a", AT_RECURSIVE, 0, 0, MS_PRIVATE), ATTRS(AT_FDCWD, "a", 0, 0, 0, MS_UNBINDABLE), line(p), R(SC(open_tree, AT_FDCWD, "a", 1)), ATTRS(AT_FDCWD, "a", 0, 0, 0, MS_PRIVATE), line(p);
	t = SC(open_tree, AT_FDCWD, "a", 1), ATTRS(t, "", 0x1000, 1, 0, 0), R(mkdirat(t, "no", 0755)), R(mkdir("a/yes", 0755)), R(SC(move_mount, t, "", AT_FDCWD, "b", 4)), R(mkdir("b/no", 0755));
}
static void refused(void) {
	if (!getuid())
		R(setuid(65534));
	int c = open(".", O_PATH);
	R(SC(fsopen, "tmpfs", 0)), R(SC(fsopen, "none", 99)), R(SC(open_tree, AT_FDCWD, "/", 1)), R(SC(open_tree, AT_FDCWD, "/", 0) < 0 ? -1 : 0), R(SC(open_tree, AT_FDCWD, "/", 0x10000000)), R(SC(move_mount, c, "", c, "", 0x44)), R(SC(move_mount, c, "", c, "", 0x1000)), R(SC(fspick, AT_FDCWD, "/", 0)), R(SC(fspick, AT_FDCWD, "/", 0x100)), R(SC(fsmount, c, 0, 0)), R(SC(fsmount, c, 9, 0)), ATTRS(AT_FDCWD, "/", 0, 1, 0, 0), ATTRS(AT_FDCWD, "/", 0, 0, 0, 0), ATTRS(AT_FDCWD, "/", 1, 1, 0, 0), R(SC(fsconfig, c, 6, 0, 0, 0));
}
int main(void) { sub(contexts), sub(trees), sub(attributes), sub(refused); }
