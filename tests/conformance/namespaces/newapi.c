// fsopen, fsconfig, fsmount, open_tree, move_mount, mount_setattr, fspick: the mount calls by descriptor.
// users: root ordinary
#include "conf.h"
#include <sys/mount.h>
#include <sys/statvfs.h>

static void flags(const char *p) {
	struct statvfs s;
	statvfs(p, &s), P("%s: flags %lx", p, s.f_flag & 0xfff);
}
static void newapi(void) {
	unshare(getuid() ? CLONE_NEWUSER | CLONE_NEWNS : CLONE_NEWNS), mount(0, "/", 0, MS_REC | MS_PRIVATE, 0);
	mkdir("n", 0755), mkdir("o", 0755);
	int f = SC(fsopen, "tmpfs", 1), m, t;
	V(f > 2), V(fcntl(f, F_GETFD)), R(SC(fsopen, "nosuch", 0)), R(SC(fsopen, "tmpfs", 2)), R(SC(fsopen, BAD, 0)), R(SC(fsconfig, f, 1, "size", "64k", 0)), R(SC(fsconfig, f, 1, "nosuch", "1", 0)), R(SC(fsconfig, f, 0, "ro", 0, 0)), R(SC(fsconfig, f, 99, 0, 0, 0)), R(SC(fsconfig, 0, 6, 0, 0, 0)), R(SC(fsmount, f, 0, 0)), R(SC(fsconfig, f, 6, 0, 0, 0)), R(SC(fsconfig, f, 6, 0, 0, 0)), m = SC(fsmount, f, 1, 0), V(m > 2), R(SC(fsmount, 0, 0, 0)), R(SC(move_mount, m, "", AT_FDCWD, "n", 4)), R(SC(move_mount, m, "", AT_FDCWD, "none", 4)), R(SC(move_mount, AT_FDCWD, "o", AT_FDCWD, "n", 0)), R(SC(move_mount, -1, "", AT_FDCWD, "n", 4)), R(mkdir("n/x", 0755)), f = SC(fsopen, "tmpfs", 0), SC(fsconfig, f, 6, 0, 0, 0), m = SC(fsmount, f, 0, 0xf /* MOUNT_ATTR_RDONLY NOSUID NODEV NOEXEC */), R(mkdirat(m, "y", 0755)), R(SC(move_mount, m, "", AT_FDCWD, "o", 4)), flags("o");
	t = SC(open_tree, AT_FDCWD, "n", 1 /* CLONE */ | O_CLOEXEC), V(t > 2), R(SC(open_tree, AT_FDCWD, "none", 0)), R(SC(open_tree, AT_FDCWD, "n", 0x8000)), R(SC(open_tree, AT_FDCWD, "n", 0) < 0 ? -1 : 0), R(SC(open_tree, -1, "n", 0)), mkdir("p", 0755), R(SC(move_mount, t, "", AT_FDCWD, "p", 4));
	uint64_t a[4] = {1, 0, 0, 0};
	R(SC(mount_setattr, AT_FDCWD, "p", 0, a, 32)), flags("p"), R(SC(mount_setattr, AT_FDCWD, "p", 0, a, 31)), R(SC(mount_setattr, AT_FDCWD, "p", 0x1, a, 32)), R(SC(mount_setattr, AT_FDCWD, "p", 0, BAD, 32)), a[0] = 1ULL << 40, R(SC(mount_setattr, AT_FDCWD, "p", 0, a, 32)), a[0] = 0, a[1] = 1, R(SC(mount_setattr, AT_FDCWD, "p", 0x8000, a, 32)), flags("p"), a[1] = 0, a[2] = MS_SHARED, R(SC(mount_setattr, AT_FDCWD, "p", 0x8000, a, 32)), a[2] = 99, R(SC(mount_setattr, AT_FDCWD, "p", 0, a, 32)), R(SC(fspick, AT_FDCWD, "p", 0) < 0 ? -1 : 0), R(SC(fspick, AT_FDCWD, "none", 0));
}
int main(void) { sub(newapi); }
