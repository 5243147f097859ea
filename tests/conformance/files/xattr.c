// Extended attributes: names, sizes, flags, name spaces, who may.
// users: root ordinary
#include "conf.h"
#include <sys/xattr.h>

int main(void) {
	static char big[70000];
	char b[300];
	int f = file("f", "x"), o = open("f", O_PATH), r = open("f", O_RDONLY);
	symlink("f", "l"), mkdir("d", 0755), mkfifo("p", 0600);
	V(setxattr("f", "user.a", "hello", 5, 0)), V(getxattr("f", "user.a", b, 300)), V(getxattr("f", "user.a", b, 0)), V(getxattr("f", "user.a", 0, 0)), V(getxattr("f", "user.a", b, 4)), V(getxattr("f", "user.none", b, 300)), V(setxattr("f", "user.a", "x", 1, XATTR_CREATE)), V(setxattr("f", "user.b", "x", 1, XATTR_REPLACE)), V(setxattr("f", "user.b", "", 0, XATTR_CREATE)), V(getxattr("f", "user.b", b, 300)), V(setxattr("f", "user.a", "zz", 2, XATTR_REPLACE)), V(setxattr("f", "user.a", "x", 1, 3)), V(setxattr("f", "user.a", "x", 1, 4)), V(setxattr("f", "", "x", 1, 0)), V(setxattr("f", "user", "x", 1, 0)), V(setxattr("f", "user.", "x", 1, 0)), V(setxattr("f", "foo.bar", "x", 1, 0)), V(setxattr("f", BAD, "x", 1, 0)), V(setxattr("f", "user.c", BAD, 1, 0)), V(setxattr("f", "user.c", 0, 0, 0)), V(setxattr("none", "user.a", "x", 1, 0)), V(setxattr(BAD, "user.a", "x", 1, 0));
	memset(b, 'n', 299), memcpy(b, "user.", 5), b[256] = 0, RN("256 bytes", setxattr("f", b, "x", 1, 0)), b[255] = 0, RN("255 bytes", setxattr("f", b, "x", 1, 0)), RN("remove", removexattr("f", b));
	RN("65537", setxattr("f", "user.big", big, 65537, 0)), RN("65536", setxattr("f", "user.big", big, 65536, 0)), VN("get", getxattr("f", "user.big", big, 70000)), RN("remove", removexattr("f", "user.big"));
	V(listxattr("f", b, 300)), V(listxattr("f", b, 0)), V(listxattr("f", b, 3)), V(listxattr("f", BAD, 300)), V(llistxattr("l", b, 300)), V(flistxattr(f, b, 300)), V(flistxattr(o, b, 300)), V(flistxattr(-1, b, 300)), V(listxattr("none", b, 300));
	V(lsetxattr("l", "user.a", "x", 1, 0)), V(lgetxattr("l", "user.a", b, 300)), V(lremovexattr("l", "user.a")), V(setxattr("l", "user.d", "x", 1, 0)), V(getxattr("f", "user.d", b, 300)), V(setxattr("d", "user.a", "x", 1, 0)), V(setxattr("p", "user.a", "x", 1, 0)), V(getxattr("p", "user.a", b, 300)), V(fsetxattr(f, "user.e", "x", 1, 0)), V(fsetxattr(r, "user.e", "x", 1, 0)), V(fsetxattr(o, "user.e", "x", 1, 0)), V(fgetxattr(o, "user.e", b, 300)), V(fgetxattr(f, "user.e", BAD, 300)), V(fremovexattr(f, "user.e")), V(fremovexattr(f, "user.e")), V(fremovexattr(o, "user.e")), V(removexattr("f", "user.none")), V(removexattr("f", "foo.x")), V(removexattr("f", "")), V(fsetxattr(-1, "user.e", "x", 1, 0));
	V(setxattr("f", "trusted.a", "x", 1, 0)), V(getxattr("f", "trusted.a", b, 300)), V(getxattr("f", "trusted.none", b, 300)), V(listxattr("f", 0, 0) > 0), V(setxattr("f", "security.foo", "x", 1, 0)), V(getxattr("f", "security.foo", b, 300)), V(getxattr("f", "security.none", b, 300)), V(setxattr("f", "system.foo", "x", 1, 0)), V(getxattr("f", "system.foo", b, 300)), V(getxattr("f", "system.posix_acl_access", b, 300)), V(setxattr("f", "security.capability", "x", 1, 0)), V(getxattr("f", "security.capability", b, 300)), V(removexattr("f", "security.capability"));
	unsigned char cap[20] = {1, 0, 0, 2, 0, 4};
	RN("a capability", setxattr("f", "security.capability", cap, 20, 0)), VN("get", getxattr("f", "security.capability", b, 300)), V(removexattr("f", "security.capability"));
	chmod("f", 0400), V(setxattr("f", "user.ro", "x", 1, 0)), chmod("f", 0200), V(getxattr("f", "user.a", b, 300)), V(setxattr("/proc/self/stat", "user.a", "x", 1, 0)), V(getxattr("/proc/self/stat", "user.a", b, 300)), V(listxattr("/proc/self/stat", b, 300)), V(listxattr("/proc", b, 300));
	int s[2];
	pipe(s), V(fsetxattr(s[0], "user.a", "x", 1, 0)), V(fgetxattr(s[0], "user.a", b, 300));
}
