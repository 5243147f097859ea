// unshare, setns, clone with namespaces, mount, umount, pivot_root, chroot, user namespaces and their maps.
// users: root ordinary
#include "conf.h"
#include <linux/mount.h>
#include <linux/sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <sys/sysmacros.h>

static int wr(const char *f, const char *t) {
	int fd = open(f, O_WRONLY), r = fd < 0 ? -1 : (int)write(fd, t, strlen(t)), e = errno;
	close(fd), errno = e;
	return r < 0 ? -1 : 0;
}
static char m_[8];
static ino_t nsino(const char *n) {
	struct stat s = {};
	char p[64];
	sprintf(p, "/proc/self/ns/%s", n), stat(p, &s);
	return s.st_ino;
}

static void unshares(void) {
	static const struct { int f; const char *n; } k[] = {{CLONE_NEWNS, "mnt"}, {CLONE_NEWUTS, "uts"}, {CLONE_NEWIPC, "ipc"}, {CLONE_NEWPID, "pid_for_children"}, {CLONE_NEWUSER, "user"}, {CLONE_NEWCGROUP, "cgroup"}, {CLONE_NEWTIME, "time_for_children"}};
	R(unshare(0)), R(unshare(0x100)), R(unshare(-1)), R(unshare(CLONE_FILES)), R(unshare(CLONE_FS)), R(unshare(CLONE_SYSVSEM)), R(unshare(CLONE_VM)), R(unshare(CLONE_SIGHAND)), R(unshare(CLONE_THREAD)), R(unshare(CLONE_PTRACE));
	for (int i = 0; i < 7; i++)
		P("%s: %s", k[i].n, wait_for(CHILD(ino_t a = nsino(k[i].n); RN(k[i].n, unshare(k[i].f)); P("changed %d", a != nsino(k[i].n)))));
	R(setns(-1, 0)), R(setns(0, 0)), R(setns(open("/proc/self/ns/mnt", O_RDONLY), CLONE_NEWUTS)), R(setns(open("/proc/self/ns/uts", O_RDONLY), CLONE_NEWUTS)), R(setns(open("/proc/self/ns/uts", O_RDONLY), 0)), R(setns(open("/proc/self/ns/user", O_RDONLY), 0)), R(setns(open("/proc/self/ns/pid", O_RDONLY), 0)), R(setns(open("/proc/self/ns/ipc", O_RDONLY), 0)), R(setns(SC(pidfd_open, getpid(), 0), CLONE_NEWUTS)), R(setns(SC(pidfd_open, getpid(), 0), 0)), R(setns(SC(pidfd_open, getpid(), 0), CLONE_NEWUTS | CLONE_NEWIPC)), R(setns(open("/", O_RDONLY), 0));
	int n = open("/proc/self/ns/uts", O_RDONLY);
	V(ioctl(n, 0xb703)), P("%d", ioctl(n, 0xb703) == CLONE_NEWUTS), R(ioctl(n, 0xb701) < 0 ? -1 : 0), R(ioctl(n, 0xb702) < 0 ? -1 : 0), R(ioctl(n, 0xb704, &(int){0})), R(ioctl(open("/proc/self/ns/user", O_RDONLY), 0xb704, &(int){0})), R(ioctl(open("/proc/self/ns/user", O_RDONLY), 0xb702) < 0 ? -1 : 0), R(ioctl(open("/proc/self/ns/pid", O_RDONLY), 0xb702) < 0 ? -1 : 0);
	char b[64];
	V(readlink("/proc/self/ns/uts", b, 64) > 5), P("%.5s", b), V(sethostname("abc", 3)), V(sethostname("abc", -1)), V(sethostname("abc", 65)), V(SC(sethostname, BAD, 3)), V(SC(setdomainname, BAD, 3)), V(SC(setdomainname, "x", 65)), V(sethostname("", 0));
}

// times: who shares memory stays in the time namespace, a new program enters that of its children.
static int stay(void *v) {
	return nsino("time") == *(ino_t *)v;
}
static void times_(void) {
	static char stack[65536];
	ino_t own = nsino("time");
	int st;
	struct clone_args a = {.flags = CLONE_NEWTIME, .exit_signal = SIGCHLD};
	pid_t p = SC(clone3, &a, sizeof a);
	if (!p)
		_exit(nsino("time") == own);
	VN("CLONE_NEWTIME", p < 0 ? -errno : (waitpid(p, &st, 0), WEXITSTATUS(st)));
	VN("unshare", E(unshare(CLONE_NEWTIME))), VN("stays", nsino("time") == own);
	p = clone(stay, stack + sizeof stack, CLONE_VM | SIGCHLD, &own);
	VN("CLONE_VM", p < 0 ? -errno : (waitpid(p, &st, 0), WEXITSTATUS(st)));
	p = clone(stay, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, &own);
	VN("CLONE_VFORK", p < 0 ? -errno : (waitpid(p, &st, 0), WEXITSTATUS(st)));
	if (!(p = vfork())) {
		char now[32];
		sprintf(now, "%ld", (long)own);
		execl("/bin/sh", "sh", "-c", "test $(stat -L -c %i /proc/$$/ns/time) = $0", now, NULL), _exit(99);
	}
	VN("exec", (waitpid(p, &st, 0), WEXITSTATUS(st)));
	p = fork();
	if (!p)
		_exit(nsino("time") == own);
	VN("fork", (waitpid(p, &st, 0), WEXITSTATUS(st)));
}

static void pids(void) {
	if (getuid() && unshare(CLONE_NEWUSER))
		return;
	R(unshare(CLONE_NEWPID)), R(unshare(CLONE_NEWPID)), P("%s", wait_for(CHILD(V(getpid()); V(getppid()); pid_t p = CHILD(V(getpid()); V(getppid()); V(kill(1, SIGKILL)); V(kill(1, SIGTERM)); V(kill(-1, 0)));
		P("%s", wait_for(p)); p = CHILD(pid_t me = getpid(); if (fork()) _exit(0); while (getppid() == me) sleep_ms(1); V(getppid())); wait_for(p); int st; V(wait(&st) > 0)))), VN("no more processes", E(fork()));
	P("%s", wait_for(CHILD(0)));
}

static void users(void) {
	int u = getuid(), g = getgid();
	char m[64];
	R(unshare(CLONE_NEWUSER)), V(getuid()), V(getgid()), P("%s|%s", slurp("/proc/self/uid_map"), slurp("/proc/self/setgroups")), R(setuid(0)), R(wr("/proc/self/gid_map", "0 0 1")), sprintf(m, "0 %d 2", u), R(wr("/proc/self/uid_map", m)), R(wr("/proc/self/uid_map", "garbage")), R(wr("/proc/self/uid_map", "0 0 0")), R(wr("/proc/self/setgroups", "deny")), R(wr("/proc/self/setgroups", "allow")), sprintf(m, "0 %d 1\n", u), R(wr("/proc/self/uid_map", m)), R(wr("/proc/self/uid_map", m)), sprintf(m, "0 %d 1\n", g), R(wr("/proc/self/gid_map", m)), V(getuid()), V(getgid()), P("%s%s", u ? "" : slurp("/proc/self/uid_map"), u ? "" : slurp("/proc/self/gid_map")), R(setgroups(0, 0)), R(setuid(1)), R(setuid(0)), R(sethostname("x", 1)), R(unshare(CLONE_NEWUTS)), R(sethostname("x", 1)), R(mount("t", "/tmp", "tmpfs", 0, 0)), R(unshare(CLONE_NEWNS)), R(mount("t", "/tmp", "tmpfs", 0, 0)), R(umount("/proc")), R(chroot("/tmp")), R(mknod("/n", S_IFCHR, makedev(1, 3)));
	struct stat s;
	R(stat("/", &s)), P("owner %d", s.st_uid);
	R(unshare(CLONE_NEWUSER)), V(getuid()), P("%s", slurp("/proc/self/setgroups"));
}

static void mnt(const char *src, const char *dst, const char *type, unsigned long f, const char *d) { P("mount %s %s %s %#lx %s: %s", src ?: "-", dst ?: "-", type ?: "-", f, d ?: "-", EN(mount(src, dst, type, f, d))); }
static void flags(const char *p) {
	struct statvfs s;
	statvfs(p, &s), P("%s: flags %lx", p, s.f_flag & 0xfff);
}
static void mounts(void) {
	if (getuid())
		return;
	unshare(CLONE_NEWNS), mount(0, "/", 0, MS_REC | MS_PRIVATE, 0);
	mkdir("a", 0755), mkdir("b", 0755), mkdir("c", 0755), file("f", "file"), file("g", "target"), symlink("a", "l");
	mnt("t", "a", "tmpfs", 0, 0), mnt("t", "none", "tmpfs", 0, 0), mnt("t", "f", "tmpfs", 0, 0), mnt("t", "a", "nosuchfs", 0, 0), mnt("t", "a", 0, 0, 0), mnt("t", "b", "tmpfs", 0, "size=1x"), mnt("t", "b", "tmpfs", 0, "nosuch=1"), mnt("t", "b", "tmpfs", 0, "size=64k,mode=700,uid=5"), mnt(0, "b", 0, MS_BIND, 0), mnt("none", "c", 0, MS_BIND, 0), mnt("f", "c", 0, MS_BIND, 0), mnt("a", "f", 0, MS_BIND, 0), mnt("f", "g", 0, MS_BIND, 0), P("%s", slurp("g")), mnt("a", "c", 0, MS_BIND, 0);
	struct stat s;
	stat("b", &s), P("mode %o uid %d", s.st_mode, s.st_uid), close(open("b/x", O_CREAT | O_WRONLY)), file("a/x", ""), P("seen %d", access("c/x", 0)), VN("write over the size", E(pwrite(open("b/y", O_CREAT | O_RDWR, 0600), mmap(0, 1 << 20, 1, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 1 << 20, 0)));
	mnt(0, "c", 0, MS_REMOUNT | MS_BIND | MS_RDONLY, 0), R(open("c/x", O_RDWR)), R(open("a/x", O_RDWR) < 0 ? -1 : 0), R(unlink("c/x")), R(mkdir("c/d", 0755)), R(chmod("c/x", 0600)), R(utimensat(AT_FDCWD, "c/x", 0, 0)), R(rename("c/x", "c/y")), R(truncate("c/x", 0)), R(open("c/new", O_CREAT | O_WRONLY, 0600)), R(access("c/x", W_OK)), flags("c"), flags("a"), mnt(0, "a", 0, MS_REMOUNT | MS_NOEXEC | MS_NOSUID | MS_NODEV, 0), flags("a"), flags("c"), mnt(0, "b", 0, MS_REMOUNT, "size=128k"), mnt(0, ".", 0, MS_REMOUNT, 0), mnt(0, "none", 0, MS_REMOUNT, 0);
	R(umount("f")), R(umount("none")), R(umount("l")), R(umount2("c", 0x100)), R(umount2("c", UMOUNT_NOFOLLOW)), R(umount2("c", MNT_EXPIRE)), R(umount2("c", MNT_EXPIRE | MNT_FORCE)), R(umount("c")), R(umount("c"));
	int fd = open("a/x", O_RDONLY);
	R(umount("a")), R(umount2("a", MNT_DETACH)), V(read(fd, m_, 0)), R(umount("g"));
	H("propagation");
	mnt("t", "a", "tmpfs", 0, 0), mnt(0, "a", 0, MS_SHARED, 0), mkdir("a/s", 0755), mnt("a", "c", 0, MS_BIND, 0), mnt("t", "a/s", "tmpfs", 0, 0), file("a/s/p", ""), P("propagated %d", access("c/s/p", 0)), mnt(0, "c", 0, MS_SLAVE, 0), R(umount("c/s")), P("slave to master %d", access("a/s/p", 0)), mnt(0, "a", 0, MS_PRIVATE | MS_SHARED, 0), mnt(0, "f", 0, MS_PRIVATE, 0), mnt(0, "c", 0, MS_UNBINDABLE, 0), mnt("c", "b", 0, MS_BIND, 0), mnt("c", "a", 0, MS_MOVE, 0), mnt("none", "a", 0, MS_MOVE, 0), mnt("f", "a", 0, MS_MOVE, 0);
	umount("c"), umount2("a", MNT_DETACH), mkdir("mv", 0755), mnt("t", "a", "tmpfs", 0, 0), mnt(0, "/tmp", 0, MS_PRIVATE, 0), mkdir("a/in", 0755), mnt("a", "mv", 0, MS_MOVE, 0), R(access("mv/in", 0)), mnt("mv", "mv/in", 0, MS_MOVE, 0);
	H("pivot_root");
	mkdir("mv/old", 0755), R(SC(pivot_root, "none", "mv")), R(SC(pivot_root, "b", "mv/old")), R(SC(pivot_root, "mv", "b")), R(SC(pivot_root, "f", "f")), R(SC(pivot_root, "/", "/")), R(SC(pivot_root, "a", "a")), R(SC(pivot_root, "mv", "mv/old")), R(chdir("/")), R(access("/in", 0)), R(access("/old/bin", 0)), R(umount2("/old", MNT_DETACH)), R(access("/old/bin", 0));
}

int main(void) { sub(unshares), sub(times_), sub(pids), sub(users), sub(mounts); }
