// What programs about mounts in user namespaces share.
#ifndef MOUNTS_H
#define MOUNTS_H
#include "conf.h"
#include <sys/mount.h>
#include <sys/statvfs.h>

static void flags(const char *p) {
	struct statvfs s = {};
	statvfs(p, &s), P("%s: flags %lx", p, s.f_flag & 0xfff);
}
static void wr(const char *f, const char *t) {
	int fd = open(f, O_WRONLY);
	if (write(fd, t, strlen(t)) < 0)
		P("%s: %s", f, conf_errno(errno));
	close(fd);
}
// as_root makes user u and group g root in the user namespace that was just made.
static void as_root(int u, int g) {
	char m[32];
	wr("/proc/self/setgroups", "deny"), sprintf(m, "0 %d 1", u), wr("/proc/self/uid_map", m), sprintf(m, "0 %d 1", g), wr("/proc/self/gid_map", m);
}
#endif
