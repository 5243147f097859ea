// Who is nobody in the user namespace that a file system was mounted in makes nothing there.
#include "mounts.h"
#include <sys/socket.h>
#include <sys/un.h>

static void makes(void) {
	struct sockaddr_un u = {AF_UNIX, "sock"};
	R(mkdir("d", 0777));
	R(mkdir("d/d", 0777));
	R(mkdir("no/d", 0777));
	R(mkdir(".", 0777));
	R(open("f", O_CREAT | O_RDWR, 0600));
	R(open("g", O_CREAT | O_RDWR, 0600));
	R(open(".", O_TMPFILE | O_RDWR, 0600));
	R(mknod("p", S_IFIFO | 0600, 0));
	R(symlink("x", "y"));
	R(bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&u, sizeof u));
	R(link("f", "l"));
	R(rename("f", "n"));
	R(rename("n", "f"));
	R(rename("f", "f"));
	R(chmod("f", 0644));
	R(truncate("f", 5));
	R(unlink("g"));
}

static void mapless(void) {
	if (getuid() == 0) {
		R(setgid(65534));
		R(setuid(65534));
	}
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS)) {
		P("no namespace: %s", conf_errno(errno));
		return;
	}
	R(mount("t", "/mnt", "tmpfs", 0, "mode=777"));
	R(chdir("/mnt"));
	H("nobody has a number");
	makes();
	fflush(stdout);
	// A parent outside maps the user, and then the group.
	H("in the file system of another namespace");
	R(chdir("/"));
	P("%s", EN(mkdir("/proc/x", 0777)));
}

static void partly(void) {
	int u = getuid(), g = getgid();
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS)) {
		P("no namespace: %s", conf_errno(errno));
		return;
	}
	R(mount("t", "/mnt", "tmpfs", 0, "mode=777"));
	R(chdir("/mnt"));
	char m[32];
	sprintf(m, "0 %d 1", u), wr("/proc/self/uid_map", m);
	H("the user has a number, the group has none");
	makes();
	wr("/proc/self/setgroups", "deny"), sprintf(m, "0 %d 1", g), wr("/proc/self/gid_map", m);
	H("both have");
	makes();
}

int main(void) {
	P("%s", conf_status(forked(mapless)));
	P("%s", conf_status(forked(partly)));
}
