// Credentials, capabilities, securebits, limits, scheduling attributes and namespaces. Run as root; the host's output is the expected one.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#define P(...) do { printf(__VA_ARGS__); fflush(stdout); } while (0)
#define E(x) ({ errno = 0; long r_ = (x); r_ < 0 ? -errno : r_; })

static void caps(const char *what) {
	struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct d[2] = {};
	syscall(SYS_capget, &h, d);
	uid_t r, e, s;
	gid_t gr, ge, gs;
	getresuid(&r, &e, &s);
	getresgid(&gr, &ge, &gs);
	// The bounding set differs between hosts: only whether the sets are empty, and CAP_CHOWN, count.
	P("%-24s uid %d %d %d fs %d gid %d %d %d eff %d perm %d inh %d keep %d dump %d\n", what, r, e, s, setfsuid(-1), gr, ge, gs, d[0].effective & 1,
		d[0].permitted & 1, d[0].inheritable & 1, prctl(PR_GET_KEEPCAPS), prctl(PR_GET_DUMPABLE));
}

// in runs fn in a child.
static void in(void (*fn)(void)) {
	int st;
	pid_t p = fork();
	if (!p) {
		fn();
		exit(0);
	}
	waitpid(p, &st, 0);
	if (st)
		P("status %x\n", st);
}

static void drop(void) {
	caps("root");
	P("setgroups %ld\n", E(setgroups(2, (gid_t[]){5, 3})));
	gid_t g[8];
	int n = getgroups(8, g);
	P("getgroups %d %d %d, too small %ld\n", n, g[0], g[1], E(getgroups(1, g)));
	setregid(1000, 1000);
	caps("setregid");
	seteuid(1000);
	caps("seteuid 1000");
	P("setuid 0: %ld\n", E(setuid(0)));
	caps("back");
	setresuid(1000, 1001, 1002);
	caps("setresuid");
	P("setreuid: %ld %ld\n", E(setreuid(1002, 1000)), E(setreuid(5, -1)));
	caps("setreuid");
	P("setuid 0: %ld, setgroups %ld, setpriority %ld, sethostname %ld\n", E(setuid(0)), E(setgroups(0, 0)), E(setpriority(PRIO_PROCESS, 0, -5)),
		E(sethostname("x", 1)));
	P("kill init: %ld\n", E(kill(1, 0)));
}

static void keep(void) {
	P("PR_SET_KEEPCAPS %ld %ld\n", E(prctl(PR_SET_KEEPCAPS, 1)), E(prctl(PR_SET_KEEPCAPS, 2)));
	setresuid(1000, 1000, 1000);
	caps("keepcaps, setresuid");
	struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct d[2] = {};
	syscall(SYS_capget, &h, d);
	d[0].effective = d[0].permitted;
	P("capset %ld\n", E(syscall(SYS_capset, &h, d)));
	caps("capset");
	d[0].inheritable = 1;
	P("capset %ld, ambient %ld\n", E(syscall(SYS_capset, &h, d)), E(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0)));
	P("ambient %ld %ld %ld\n", E(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_CHOWN, 0, 0)), E(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0)),
		E(prctl(PR_CAP_AMBIENT, 9, 0, 0, 0)));
	execl("/proc/self/exe", "x", "caps", "exec with ambient", NULL);
}

static void secure(void) {
	P("securebits %ld %ld\n", E(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED)), E(prctl(PR_SET_SECUREBITS, 0)));
	setresuid(1000, 1000, 1000);
	caps("no fixup");
	P("bad version %ld, pid %ld\n", E(syscall(SYS_capget, &(struct __user_cap_header_struct){1, 0}, 0)),
		E(syscall(SYS_capget, &(struct __user_cap_header_struct){_LINUX_CAPABILITY_VERSION_3, -1}, 0)));
}

static void bounding(void) {
	P("drop %ld read %ld bad %ld\n", E(prctl(PR_CAPBSET_DROP, CAP_CHOWN)), E(prctl(PR_CAPBSET_READ, CAP_CHOWN)), E(prctl(PR_CAPBSET_READ, 77)));
	execl("/proc/self/exe", "x", "caps", "exec without CAP_CHOWN", NULL);
}

static void user(void) {
	setresgid(1000, 1000, 1000);
	setresuid(1000, 1000, 1000);
	execl("/proc/self/exe", "x", "caps", "exec as a user", NULL);
}

static char copy[] = "/tmp/cred_basic.XXXXXX";

static void setid(void) {
	setresgid(1000, 1000, 1000);
	setresuid(1000, 1000, 1000);
	execl(copy, "x", "caps", "set-user-ID", NULL);
}

static void setidnnp(void) {
	P("no_new_privs %ld %ld %ld\n", E(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)), E(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0)), E(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)));
	setid();
}

static void sched(void) {
	struct sched_param p = {.sched_priority = 10};
	P("nice %ld, getpriority %ld\n", E(setpriority(PRIO_PROCESS, 0, 7)), E(syscall(SYS_getpriority, PRIO_PROCESS, 0)));
	P("SCHED_FIFO %ld %ld", E(sched_setscheduler(0, SCHED_FIFO, &p)), E(sched_getscheduler(0)));
	P(" min %ld max %ld bad %ld\n", E(sched_get_priority_min(SCHED_RR)), E(sched_get_priority_max(SCHED_RR)), E(sched_get_priority_max(77)));
	p.sched_priority = 0;
	P("bad: %ld %ld %ld\n", E(sched_setscheduler(0, SCHED_FIFO, &p)), E(sched_setscheduler(0, 77, &p)), E(sched_getscheduler(99999999)));
	sched_setscheduler(0, SCHED_BATCH, &p);
	cpu_set_t s;
	CPU_ZERO(&s);
	P("affinity: %ld %ld %d\n", E(syscall(SYS_sched_setaffinity, 0, sizeof s, &s)), E(syscall(SYS_sched_getaffinity, 0, 1, &s)),
		E(syscall(SYS_sched_getaffinity, 0, 128, &s)) > 0);
	P("slack %ld", E(prctl(PR_GET_TIMERSLACK)));
	prctl(PR_SET_TIMERSLACK, 123);
	P(" %ld", E(prctl(PR_GET_TIMERSLACK)));
	prctl(PR_SET_TIMERSLACK, 0);
	P(" %ld\n", E(prctl(PR_GET_TIMERSLACK)));
	P("prctl: %ld %ld %ld %ld\n", E(prctl(PR_SET_PDEATHSIG, 65)), E(prctl(PR_SET_DUMPABLE, 2)), E(prctl(9999)), E(prctl(PR_SET_NAME, 1)));
	P("personality %ld\n", E(syscall(SYS_personality, 0xffffffff)));
	P("getrusage %ld, times %d, getcpu %ld\n", E(getrusage(9, 0)), E(syscall(SYS_times, 0)) > 0, E(syscall(SYS_getcpu, 0, 0, 0)));
	P("getrandom %ld %ld\n", E(syscall(SYS_getrandom, &s, 16, 0)), E(syscall(SYS_getrandom, &s, 16, 0x80)));
	P("unshare %ld, clone3 %ld %ld\n", E(unshare(1)), E(syscall(SYS_clone3, 0, 8)), E(syscall(SYS_clone3, 0, 100000)));
}

static void namespaces(void) {
	P("unshare UTS %ld", E(unshare(CLONE_NEWUTS)));
	P(" sethostname %ld %ld", E(sethostname("inner", 5)), E(sethostname("x", 65)));
	struct utsname u;
	uname(&u);
	P(" %s\n", u.nodename);
	P("unshare PID %ld\n", E(unshare(CLONE_NEWPID)));
	int st;
	pid_t p = fork();
	if (!p) {
		P("inside: %d, parent %d\n", getpid(), getppid());
		pid_t c = fork();
		if (!c)
			pause();
		P("child: %d\n", c);
		P("kill from inside: %ld\n", E(kill(1, SIGKILL)));
		_exit(3);
	}
	waitpid(p, &st, 0);
	P("init %d, next fork %ld\n", WEXITSTATUS(st), E(fork()));
}

static void userns(void) {
	setresgid(1000, 1000, 1000);
	setresuid(1000, 1000, 1000);
	P("unshare UTS %ld, user and UTS %ld\n", E(unshare(CLONE_NEWUTS)), E(unshare(CLONE_NEWUSER | CLONE_NEWUTS)));
	caps("unmapped");
	P("sethostname %ld\n", E(sethostname("inner", 5)));
	prctl(PR_SET_DUMPABLE, 1);
	int f = open("/proc/self/uid_map", O_WRONLY);
	P("uid_map %ld", E(write(f, "0 1000 1\n", 9)));
	P(" again %ld\n", E(write(f, "0 1000 1\n", 9)));
	f = open("/proc/self/gid_map", O_WRONLY);
	P("gid_map %ld", E(write(f, "0 1000 1\n", 9)));
	int g = open("/proc/self/setgroups", O_WRONLY);
	P(" setgroups %ld", E(write(g, "deny", 4)));
	P(" gid_map %ld\n", E(write(f, "0 1000 1\n", 9)));
	caps("mapped");
	P("setuid %ld %ld setgroups %ld\n", E(setuid(0)), E(setuid(5)), E(setgroups(0, 0)));
}

int main(int argc, char **argv) {
	if (argc > 2) {
		caps(argv[2]);
		P("AT_SECURE %d\n", secure_getenv("PATH") == 0);
		return 0;
	}
	setenv("PATH", "/bin", 1);
	in(drop);
	in(keep);
	in(secure);
	in(bounding);
	in(user);
	char cmd[200];
	close(mkstemp(copy));
	snprintf(cmd, sizeof cmd, "cp /proc/%d/exe %s; chmod 6755 %s", getpid(), copy, copy);
	system(cmd);
	in(setid);
	in(setidnnp);
	unlink(copy);
	in(sched);
	in(namespaces);
	in(userns);
	return 0;
}
