// Mounts of a more privileged mount namespace: what they cover, and their flags, are locked; proc and sysfs may not show what they hide.
// users: root ordinary
#include "mounts.h"

// enter makes a user namespace with this user as root in it.
static void enter(int more) {
	int u = geteuid(), g = getegid();
	R(unshare(CLONE_NEWUSER | more)), as_root(u, g);
}
#define ATTR(p, set, clr, fl) R(SC(mount_setattr, AT_FDCWD, p, fl, ((uint64_t[4]){set, clr}), 32))

static void locked(void) {
	enter(CLONE_NEWNS), mount(0, "/", 0, MS_REC | MS_PRIVATE, 0);
	mkdir("a", 0755), mkdir("b", 0755), mkdir("c", 0755), mkdir("d", 0755), file("a/hidden", "secret"), mount("t", "d", "tmpfs", MS_NODEV | MS_NOATIME, 0), mkdir("d/s", 0755), mkdir("d/r", 0755), file("d/r/hidden", "secret"), mkdir("d/u", 0755), file("d/u/hidden", "x");
	mount("t", "a", "tmpfs", MS_NOSUID | MS_NOEXEC, 0), mount("t", "d/r", "tmpfs", MS_RDONLY, "size=4k"), mount("t", "d/u", "tmpfs", 0, 0), mount(0, "d/u", 0, MS_UNBINDABLE, 0), mount("d/s", "b", 0, MS_BIND, 0), mount(0, "b", 0, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NODEV, 0);
	R(umount("d/u")), R(mount("t", "d/u", "tmpfs", 0, 0)), mount(0, "d/u", 0, MS_UNBINDABLE, 0);
	H("in a namespace of less privilege");
	enter(CLONE_NEWNS);
	R(umount("a")), R(umount2("a", MNT_DETACH)), R(umount("d/r")), R(umount("b")), R(umount("/proc")), R(access("a/hidden", 0)), flags("a"), flags("b"), flags("d"), flags("d/r");
	R(mount(0, "b", 0, MS_REMOUNT | MS_BIND, 0)), R(mount(0, "b", 0, MS_REMOUNT | MS_BIND | MS_RDONLY, 0)), R(mount(0, "b", 0, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NODEV, 0)), R(mount(0, "b", 0, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NODEV | MS_NOSUID, 0)), R(mount(0, "b", 0, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NODEV | MS_NOATIME, 0)), R(mount(0, "b", 0, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NODEV, 0)), flags("b");
	R(mount(0, "a", 0, MS_REMOUNT | MS_NOSUID | MS_NOEXEC, 0)), R(mount(0, "a", 0, MS_REMOUNT, 0)), R(mount(0, "a", 0, MS_REMOUNT | MS_BIND | MS_NOEXEC, 0)), R(mount(0, "d", 0, MS_REMOUNT | MS_BIND | MS_NODEV | MS_RELATIME, 0)), R(mount(0, "d", 0, MS_REMOUNT | MS_BIND | MS_NODEV | MS_NOATIME, 0));
	ATTR("a", 0, 2, 0), ATTR("a", 0, 8, 0), ATTR("b", 0, 1, 0), ATTR("b", 1, 0, 0), ATTR("a", 4, 0, 0), ATTR("a", 0, 4, 0), ATTR("d", 0x20, 0x70, 0), ATTR("d", 0x10, 0x70, 0), flags("a");
	H("what a bind mount shows");
	R(mount("d", "c", 0, MS_BIND, 0)), R(SC(open_tree, AT_FDCWD, "d", 1)), R(mount("d", "c", 0, MS_BIND | MS_REC, 0)), R(mount("d/r", "c", 0, MS_BIND, 0)), R(access("c/hidden", 0)), flags("c"), R(mount(0, "c", 0, MS_REMOUNT | MS_BIND, 0)), R(umount("c")), R(access("c", 0)), R(mount("a", "c", 0, MS_BIND | MS_REC, 0)), R(mount(0, "c", 0, MS_REMOUNT | MS_BIND, 0)), R(mount("a", "d/s", 0, MS_MOVE, 0)), R(mount("c", "d/s", 0, MS_MOVE, 0)), flags("d/s"), R(umount("d/s"));
	H("what it mounts itself is its own");
	R(mount("t", "a", "tmpfs", 0, 0)), R(mount(0, "a", 0, MS_REMOUNT | MS_RDONLY, 0)), R(mount(0, "a", 0, MS_REMOUNT, 0)), R(umount("a")), R(access("a/hidden", 0)), R(umount("a")), R(mount("t", "a", "devtmpfs", 0, 0)), R(mount("t", "a", "sysfs", 0, 0)), R(mount("t", "a", "mqueue", 0, 0)), R(mount("t", "a", "proc", 0, 0)), R(mount("t", "a", "ramfs", 0, 0)), R(umount("a")), R(mount("t", "a", "nosuchfs", 0, 0));
	H("detached as a whole");
	mkdir("a/x", 0755), R(mount("d", "a/x", 0, MS_BIND | MS_REC, 0));
	R(SC(pivot_root, "a", "a")), R(mount("a", "a", 0, MS_BIND | MS_REC, 0));
	int d = open("d", O_PATH);
	V(d > 2), V(faccessat(d, "r/hidden", 0, 0)), R(umount2("d", MNT_DETACH)), R(faccessat(d, "r/hidden", 0, 0));
}
static void whole(void) {
	enter(CLONE_NEWNS), mount(0, "/", 0, MS_REC | MS_PRIVATE, 0);
	mkdir("w", 0755), mkdir("v", 0755), mkdir("w/top", 0755), mkdir("w/top/in", 0755), file("w/top/in/hidden", "secret"), mount("t", "w/top/in", "tmpfs", 0, 0);
	enter(CLONE_NEWNS);
	R(mount("w", "v", 0, MS_BIND | MS_REC, 0));
	int v = open("v", O_PATH), in = open("v/top/in", O_PATH);
	V(v > 2), R(umount("v/top/in")), R(faccessat(v, "top/in/hidden", 0, 0)), R(umount2("v", MNT_DETACH)), R(faccessat(v, "top/in/hidden", 0, 0)), R(faccessat(in, "../in/hidden", 0, 0)), R(faccessat(in, "../../top", 0, 0)), R(close(v)), R(faccessat(in, ".", 0, 0)), R(faccessat(in, "../..", 0, 0)), R(close(in)), R(access("v/top", 0));
}
static void revealing(void) {
	enter(CLONE_NEWNS | CLONE_NEWPID), mount(0, "/", 0, MS_REC | MS_PRIVATE, 0);
	P("%s", wait_for(CHILD({
		mkdir("p", 0755), R(mount("p", "p", "proc", 0, 0)), R(mount("t", "p/sys", "tmpfs", MS_RDONLY, 0));
		while (!umount2("/proc", MNT_DETACH));
		P("%s", wait_for(CHILD(R(mount("q", "/proc", "proc", 0, 0)))));
		mount("none", "/proc", 0, MS_BIND, 0);
	})));
}
static void foreign(void) {
	enter(CLONE_NEWNS);
	mkdir("p", 0755), R(mount("p", "p", "proc", 0, 0)), R(mount("p", "p", "sysfs", 0, 0)), R(mount("p", "p", "mqueue", 0, 0)), R(mount("p", "p", "devpts", 0, 0)), R(umount("p")), R(SC(fsopen, "proc", 0) < 0 ? -1 : 0);
	int f = SC(fsopen, "proc", 0);
	R(SC(fsconfig, f, 6, 0, 0, 0)), R(SC(fsmount, f, 0, 0)), R(SC(fsconfig, f, 6, 0, 0, 0)), R(SC(fsopen, "devtmpfs", 0) < 0 ? -1 : 0), R(mount(0, "/", 0, MS_REMOUNT, 0)), R(mount(0, "/", 0, MS_REMOUNT | MS_RDONLY, 0));
}
int main(void) { sub(locked), sub(whole), sub(revealing), sub(foreign); }
