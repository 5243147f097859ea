// name_to_handle_at(2) and open_by_handle_at(2). Run as root, on file systems of its own: a tmpfs and a cgroup2.
#include "conf.h"
#include <sys/mount.h>
#define C(e) printf("%s: %s\n", #e, said(e))

#define UNIQUE 1
#define CONNECTABLE 2
#define FID 0x200

struct handle { unsigned bytes; int type; unsigned char h[128]; };
static struct handle h;
static uint64_t id;

static const char *said(long r) { return r < 0 ? strerrorname_np(errno) : "0"; }

static void name(const char *what, int dir, const char *path, int flags, unsigned room) {
	memset(&h, 0xee, sizeof h);
	h.bytes = room;
	id = -1;
	long r = syscall(SYS_name_to_handle_at, dir, path, &h, &id, flags);
	int e = errno, tail = 0;
	for (unsigned i = 0; i < sizeof h.h; i++) tail += h.h[i] != 0xee && (r < 0 || i >= h.bytes);
	errno = e;
	printf("%s %s %#x room %u: %s bytes %u type %#x beyond %d id %s\n", what, path, flags, room, said(r), h.bytes, h.type, tail,
		id == -1ull ? "untouched" : id >> 32 == 0xffffffff ? "int" : id > 1u << 31 ? "unique" : "?");
}

static int by(const char *what, int mnt, int flags, const char *path) {
	int fd = syscall(SYS_open_by_handle_at, mnt, &h, flags);
	struct stat a, b;
	printf("%s %#x: %s", what, flags, said(fd < 0 ? -1 : 0));
	if (fd >= 0 && path) printf(" same %d flags %#x", !fstat(fd, &a) && !fstatat(AT_FDCWD, path, &b, AT_SYMLINK_NOFOLLOW) && a.st_ino == b.st_ino && a.st_dev == b.st_dev, fcntl(fd, F_GETFL));
	printf("\n");
	if (fd >= 0) close(fd);
	return fd >= 0;
}

static void name_to(const char *path) {
	h.bytes = 128;
	syscall(SYS_name_to_handle_at, AT_FDCWD, path, &h, &id, 0);
}

int main(void) {
	struct handle first;
	C(unshare(CLONE_NEWNS)); C(mount("", "/", 0, MS_REC | MS_PRIVATE, 0));
	C(mkdir("m", 0755)); C(mount("t", "m", "tmpfs", 0, "")); C(chdir("m"));
	mkdir("u", 0755), mkdir("cg", 0755), mkdir("d", 0755), mkdir("d/e", 0700);
	close(open("f", O_CREAT | O_WRONLY, 0600)), close(open("d/e/g", O_CREAT | O_WRONLY, 0600)), symlink("f", "s"), mkfifo("p", 0600);
	C(mount("cg", "cg", "cgroup2", 0, 0));

	printf("# what has handles\n");
	const char *paths[] = {".", "f", "s", "p", "d/e/g", "cg", "cg/cgroup.procs", "/proc", "/proc/self/status", "/proc/self/ns/mnt", "/sys", "/dev/null", "/dev/pts", "none", ""};
	for (unsigned i = 0; i < sizeof paths / sizeof *paths; i++) {
		if (!strcmp(paths[i], "/proc/self/ns/mnt")) { name("magic link", AT_FDCWD, paths[i], 0, 128), name("magic link", AT_FDCWD, paths[i], FID, 128); continue; }
		int flags[] = {0, FID, CONNECTABLE, UNIQUE, AT_SYMLINK_FOLLOW, FID | UNIQUE, 0x100, 4, CONNECTABLE | FID, CONNECTABLE | AT_EMPTY_PATH};
		for (unsigned j = 0; j < sizeof flags / sizeof *flags; j++) name("name", AT_FDCWD, paths[i], flags[j], 128);
		unsigned rooms[] = {0, 4, 8, 11, 12, 35, 36, 129, -1};
		for (unsigned j = 0; j < sizeof rooms / sizeof *rooms; j++) name("name", AT_FDCWD, paths[i], 0, rooms[j]), name("name", AT_FDCWD, paths[i], FID, rooms[j]);
	}
	int f = open("f", O_RDWR), pipes[2], mem = memfd_create("x", 0);
	pipe(pipes), ftruncate(mem, 77);
	name("open file", f, "", AT_EMPTY_PATH, 128); name("open file", f, "", 0, 128); name("pipe", pipes[0], "", AT_EMPTY_PATH, 128); name("pipe", pipes[0], "", AT_EMPTY_PATH | FID, 128);
	name("closed", -1, "", AT_EMPTY_PATH, 128); name("file as directory", f, "x", 0, 128); name("memfd", mem, "", AT_EMPTY_PATH, 128);
	by("memfd", mem, O_RDWR, 0);
	errno = 0; h.bytes = 128;
	C(syscall(SYS_name_to_handle_at, AT_FDCWD, "f", BAD, &id, 0)); C(syscall(SYS_name_to_handle_at, AT_FDCWD, "f", &h, BAD, 0)); C(syscall(SYS_name_to_handle_at, AT_FDCWD, BAD, &h, &id, 0));
	C(syscall(SYS_name_to_handle_at, AT_FDCWD, "none", BAD, BAD, 0)); C(syscall(SYS_name_to_handle_at, AT_FDCWD, "/proc", BAD, BAD, 0));
	struct statx x;
	C(syscall(SYS_statx, AT_FDCWD, ".", 0, 0x4000, &x)); name("unique", AT_FDCWD, ".", UNIQUE, 128);
	printf("statx tells it: %d %#x\n", x.stx_mnt_id == id, x.stx_mask & 0x5000);

	printf("# opened by handle\n");
	int root = open(".", O_RDONLY), path = open(".", O_PATH), other = open("/proc", O_RDONLY), flags[] = {0, O_RDWR, O_WRONLY | O_TRUNC, O_PATH, O_DIRECTORY, O_PATH | O_DIRECTORY, O_NOFOLLOW, O_CREAT, O_CREAT | O_EXCL, O_CREAT | O_DIRECTORY, O_TMPFILE | O_RDWR, O_RDONLY | O_NONBLOCK, O_APPEND | O_RDWR};
	for (unsigned i = 0; i < 5; i++) {
		name("handle", AT_FDCWD, paths[i], 0, 128);
		struct handle keep = h;
		for (unsigned j = 0; j < sizeof flags / sizeof *flags; j++) {
			if (i == 3 && !(flags[j] & (O_PATH | O_NONBLOCK | O_DIRECTORY))) continue;
			by(paths[i], root, flags[j], paths[i]);
		}
		by("another file system", other, O_PATH, paths[i]); by("O_PATH mount", path, O_PATH, paths[i]); by("cwd", AT_FDCWD, O_PATH, paths[i]); by("file of it", f, O_PATH, paths[i]); by("closed", -1, O_PATH, paths[i]); by("memfd's mount", mem, O_PATH, paths[i]);
		h.type = 2; by("other type", root, O_PATH, 0); h.type = -1; by("negative type", root, O_PATH, 0); h.type = 0x40001; by("unknown flag", root, O_PATH, 0); h.type = 0x10001; by("connectable", root, O_PATH, paths[i]); h.type = 0x20001; by("directory", root, O_PATH, paths[i]); h = keep;
		h.bytes = 0; by("no bytes", root, O_PATH, 0); h.bytes = 8; by("8 bytes", root, O_PATH, 0); h.bytes = 129; by("129 bytes", root, O_PATH, 0); h.bytes = 64; by("64 bytes", root, O_PATH, paths[i]); h = keep;
		h.h[5] ^= 1; by("other number", root, O_PATH, 0); h = keep; memset(h.h, 0xff, 12); by("all ones", root, O_PATH, 0); h = keep;
	}
	name("cgroup", AT_FDCWD, "cg/cgroup.procs", 0, 128);
	int cg = open("cg", O_RDONLY);
	by("cgroup", cg, O_RDONLY, "cg/cgroup.procs"); by("cgroup's on tmpfs", root, 0, 0);
	name("cgroup", AT_FDCWD, "cg", 0, 128); h.type |= 0x30000; by("connectable", cg, O_RDONLY, "cg"); by("connectable", cg, O_RDONLY | O_DIRECTORY, "cg");
	C(syscall(SYS_open_by_handle_at, root, BAD, 0)); C(syscall(SYS_open_by_handle_at, -1, BAD, 0)); C(syscall(SYS_open_by_handle_at, other, BAD, 0));

	printf("# what became of the file\n");
	name("f", AT_FDCWD, "f", 0, 128); C(rename("f", "d/e/f2")); by("renamed", root, O_RDWR, "d/e/f2"); C(unlink("d/e/f2")); by("unlinked, open", root, O_RDWR, 0); close(f); by("gone", root, O_RDWR, 0);
	close(open("f", O_CREAT | O_WRONLY, 0600)); by("another of the name", root, O_RDWR, 0);
	name("tree", AT_FDCWD, "d", 0, 128); C(rename("d", "d2")); by("renamed", root, O_DIRECTORY, "d2"); name("g", AT_FDCWD, "d2/e/g", 0, 128); C(link("d2/e/g", "g")); C(unlink("d2/e/g")); by("other name", root, O_RDWR, "g");
	C(mount("t2", "d2", "tmpfs", 0, "")); by("below a mount", root, O_RDWR, "g"); name("d2", AT_FDCWD, "d2", 0, 128); int d2 = open("d2", O_RDONLY); by("mounted", d2, 0, "d2"); by("of another tmpfs", root, O_PATH, 0);

	char n[32];
	mkdir("many", 0755);
	for (int i = 0; i < 5000; i++) { snprintf(n, sizeof n, "many/%d", i); close(open(n, O_CREAT, 0600)); name_to(n); if (!i) first = h; }
	h = first; by("the first of many", root, O_RDWR, "many/0"); C(unlink("many/0")); by("and removed", root, O_RDWR, 0);

	printf("# who may\n");
	name("g", AT_FDCWD, "g", 0, 128);
	if (!fork()) { setegid(1000), seteuid(1000); name("user", AT_FDCWD, ".", 0, 128); by("user", root, 0, "g"); by("user", root, O_DIRECTORY, 0); h.bytes = 0; by("user, no bytes", root, 0, 0); by("user, closed", -1, 0, 0); _exit(0); }
	wait(0);
	name("u", AT_FDCWD, "u", 0, 128);
	if (!fork()) {
		C(unshare(CLONE_NEWUSER)); by("other user namespace", root, O_DIRECTORY, "u"); by("file", root, 0, "u");
		C(unshare(CLONE_NEWNS)); by("old mount", root, O_DIRECTORY, "u"); int r = open(".", O_RDONLY); by("own mounts", r, O_DIRECTORY, "u");
		_exit(0);
	}
	wait(0);
	if (!fork()) {
		int pp[2], q[2]; pipe(pp), pipe(q);
		int c = fork();
		if (!c) { char b; C(unshare(CLONE_NEWUSER | CLONE_NEWNS)); write(pp[1], "", 1); read(q[0], &b, 1);
			C(mkdir("own", 0755)); C(mount("own", "own", "tmpfs", 0, "")); mkdir("own/a", 0700); close(open("own/b", O_CREAT | O_WRONLY, 0600)); int r = open("own", O_RDONLY);
			name("own tmpfs", AT_FDCWD, "own/a", 0, 128); by("own", r, O_DIRECTORY, "own/a"); by("own, as a file", r, 0, 0); name("own file", AT_FDCWD, "own/b", 0, 128); by("own file", r, 0, 0); by("own file as directory", r, O_DIRECTORY, 0);
			_exit(0); }
		char b, n[64]; read(pp[0], &b, 1);
		for (const char **m = (const char *[]){"uid", "gid", 0}; *m; m++) { snprintf(n, sizeof n, "/proc/%d/%s_map", c, *m); int fd = open(n, O_WRONLY); write(fd, "0 0 1\n", 6); close(fd); }
		write(q[1], "", 1); wait(0); _exit(0);
	}
	wait(0);
	return 0;
}
