// set*id, groups, capabilities, securebits, what exec keeps, who may signal whom.
// users: root ordinary
#include "conf.h"
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>

static void ids(const char *w) {
	uid_t r, e, s;
	gid_t a, b, c;
	getresuid(&r, &e, &s), getresgid(&a, &b, &c), P("%s: uid %d %d %d fs %d gid %d %d %d fs %d", w, r, e, s, setfsuid(-1), a, b, c, setfsgid(-1));
}
static void caps(const char *w) {
	struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct d[2];
	SC(capget, &h, d), P("%s: e %d p %d i %d ambient %d bounding %d", w, !!(d[0].effective & 1), !!(d[0].permitted & 1), !!(d[0].inheritable & 1), prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, 0, 0, 0), prctl(PR_CAPBSET_READ, 0));
}
static int set(int e, int p, int i) {
	struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct d[2] = {{e, p, i}};
	return SC(capset, &h, d);
}
static const int U[] = {0, 1000, 5, -1};
static void each(int r, int e, int s, int how, int x, int y, int z) {
	if (getuid() == 0)
		setresgid(r, e, s), setresuid(r, e, s);
	char n[80];
	sprintf(n, "%s(%d, %d, %d) from %d %d %d", (char *[]){"setuid", "setreuid", "setresuid", "seteuid", "setgid", "setregid", "setresgid", "setegid"}[how], x, y, z, r, e, s);
	RN(n, how == 0 ? setuid(x) : how == 1 ? setreuid(x, y) : how == 2 ? setresuid(x, y, z) : how == 3 ? SC(setresuid, -1, x, -1) : how == 4 ? setgid(x) : how == 5 ? setregid(x, y) : how == 6 ? setresgid(x, y, z) : SC(setresgid, -1, x, -1)), ids("then");
}
static void changes(void) {
	static const int from[][3] = {{0, 0, 0}, {1000, 0, 0}, {0, 1000, 0}, {1000, 1000, 0}, {1000, 1000, 5}, {1000, 5, 1000}};
	for (int f = 0; f < (getuid() ? 1 : 6); f++)
		for (int how = 0; how < 8; how++)
			for (int k = 0; k < 4; k++) {
				fflush(stdout);
				pid_t p = fork();
				if (!p)
					each(from[f][0], from[f][1], from[f][2], how, U[k], U[(k + 1) & 3], U[(k + 2) & 3]), fflush(stdout), _exit(0);
				waitpid(p, 0, 0);
			}
	gid_t g[40];
	R(setgroups(3, (gid_t[]){1, 2, 3})), V(getgroups(0, 0)), V(getgroups(40, g)), V(getgroups(2, g)), V(getgroups(-1, g)), V(SC(getgroups, 40, BAD)), R(SC(setgroups, -1, g)), R(SC(setgroups, 65537, g)), R(SC(setgroups, 1, BAD)), R(setgroups(1, (gid_t[]){-1})), R(setgroups(0, 0)), V(getgroups(40, g)), V(setfsuid(7)), V(setfsuid(-1)), V(setfsgid(7)), V(setfsgid(-1)), R(SC(getresuid, BAD, BAD, BAD)), R(SC(getresgid, BAD, BAD, BAD));
}
static void capabilities(void) {
	struct __user_cap_header_struct h = {0, 0};
	struct __user_cap_data_struct d[2];
	caps("start"), R(SC(capget, &h, d)), P("version %x", h.version), R(SC(capget, &h, 0)), h.version = 0, R(SC(capget, &h, 0)), P("version %x", h.version), h.version = _LINUX_CAPABILITY_VERSION_1, R(SC(capget, &h, d)), h.version = _LINUX_CAPABILITY_VERSION_3, h.pid = -1, R(SC(capget, &h, d)), h.pid = 99999999, R(SC(capget, &h, d)), h.pid = 1, R(SC(capget, &h, d)), R(SC(capset, &h, d)), R(SC(capget, BAD, d)), R(SC(capget, 0, 0)), h.pid = 0, R(SC(capget, &h, BAD)), R(SC(capset, &h, BAD)), R(set(1, 0, 0)), R(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 0, 0, 0)), R(set(1, 1, 1)), caps("set"), R(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 0, 0, 0)), R(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 5, 0, 0)), caps("ambient"), R(set(3, 3, 0)), R(set(1, 1, 3)), R(set(0, 1, 1)), caps("not effective"), R(set(1, 1, 1)), R(prctl(PR_CAPBSET_DROP, 0)), R(set(0, 1, 0)), caps("ambient follows"), R(set(0, 0, 0)), R(set(0, 1, 0));
}
static void bits(void) {
	R(prctl(PR_SET_SECUREBITS, SECBIT_NOROOT)), V(prctl(PR_GET_SECUREBITS)), P("%s", wait_for(CHILD(execl("/bin/grep", "grep", "CapEff", "/proc/self/status", NULL)))), R(prctl(PR_SET_SECUREBITS, SECBIT_KEEP_CAPS)), V(prctl(PR_GET_KEEPCAPS)), R(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED)), R(prctl(PR_SET_SECUREBITS, 0)), R(prctl(PR_SET_SECUREBITS, 1 << 20)), R(prctl(PR_SET_SECUREBITS, SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED)), set(1, 1, 1), R(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 0, 0, 0));
	if (!getuid())
		setresuid(1000, 1000, 1000), caps("without fix-up");
}
static void keep(void) {
	if (getuid())
		return;
	P("%s", wait_for(CHILD(prctl(PR_SET_KEEPCAPS, 1); setresuid(1000, 1000, 1000); caps("kept"); R(set(1, 1, 0)); caps("effective again"); setresuid(1000, 1000, 1000); caps("still"))));
	P("%s", wait_for(CHILD(seteuid(1000); caps("euid 1000"); seteuid(0); caps("euid 0")))), P("%s", wait_for(CHILD(setuid(1000); caps("setuid"); R(setuid(0))))), P("%s", wait_for(CHILD(set(1, 1, 1); prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 0, 0, 0); prctl(PR_SET_KEEPCAPS, 1); setresuid(1000, 1000, 1000); caps("ambient after setuid"); execl("/bin/grep", "grep", "Cap[IPEA]", "/proc/self/status", NULL))));
	P("%s", wait_for(CHILD(set(1, 1, 1); prctl(PR_SET_SECUREBITS, SECBIT_KEEP_CAPS | SECBIT_NO_SETUID_FIXUP); prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 0, 0, 0); setresuid(1000, 1000, 1000); execl("/bin/grep", "grep", "Cap[IPEA]", "/proc/self/status", NULL))));
	setresuid(1000, 1000, 0), P("dumpable %d", prctl(PR_GET_DUMPABLE)), prctl(PR_SET_DUMPABLE, 1), setresuid(-1, 0, -1), P("dumpable %d", prctl(PR_GET_DUMPABLE)), setresuid(0, 0, 0), setfsuid(5), P("dumpable %d", prctl(PR_GET_DUMPABLE)), setfsuid(0);
	H("set-id programs");
	int in = open("/bin/grep", O_RDONLY), out = open("grep", O_CREAT | O_WRONLY, 0755), n;
	char b[65536];
	while ((n = read(in, b, sizeof b)) > 0)
		write(out, b, n);
	close(out);
	static const int modes[] = {04755, 02755, 06755, 02745, 0755};
	for (int i = 0; i < 5; i++)
		chown("grep", 33, 34), chmod("grep", modes[i]), H("mode %o", modes[i]), P("%s", wait_for(CHILD(setresgid(9, 9, 9); setresuid(9, 9, 9); execl("grep", "grep", "[UG]id:", "/proc/self/status", NULL)))), P("%s", wait_for(CHILD(setresgid(9, 9, 9); setresuid(9, 9, 9); prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); execl("grep", "grep", "[UG]id:", "/proc/self/status", NULL))));
	chown("grep", 0, 0), chmod("grep", 04755), P("%s", wait_for(CHILD(setresuid(9, 9, 9); execl("grep", "grep", "Cap[IPEA]", "/proc/self/status", NULL))));
}
static void signals(void) {
	if (getuid())
		return;
	static const int who[][3] = {{5, 5, 5}, {6, 6, 6}, {5, 6, 6}, {6, 5, 6}, {6, 6, 5}, {0, 6, 0}};
	for (int i = 0; i < 6; i++) {
		int pp[2];
		pipe(pp);
		pid_t p = CHILD(setresuid(who[i][0], who[i][1], who[i][2]); write(pp[1], "x", 1); pause());
		char c;
		read(pp[0], &c, 1), P("5 to %d %d %d: %s", who[i][0], who[i][1], who[i][2], wait_for(CHILD(setresuid(5, 5, 5); R(kill(p, 0)); R(SC(tgkill, p, p, 0)); R(SC(pidfd_send_signal, syscall(SYS_pidfd_open, p, 0), 0, 0, 0)); R(setpriority(0, p, 5)); R(sched_setaffinity(p, 8, (void *)&(long){1})); R(SC(prlimit64, p, 7, 0, &(struct rlimit){})); char path[64]; sprintf(path, "/proc/%d/environ", p); R(open(path, O_RDONLY)); R(getpgid(p) < 0 ? -1 : 0)))), kill(p, SIGKILL), waitpid(p, 0, 0);
	}
}
int main(void) { sub(changes), sub(capabilities), sub(bits), sub(keep), sub(signals); }
