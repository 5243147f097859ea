// uname, sysinfo, getrandom, membarrier, rseq, syslog, reboot, keyrings, io_uring, bpf and other doors: what a program that probes sees.
// users: root ordinary
#include "conf.h"
#include <linux/membarrier.h>
#include <linux/keyctl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/klog.h>
#include <sys/prctl.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <sys/quota.h>

static void info(void) {
	struct utsname u;
	struct sysinfo s;
	char b[600];
	R(uname(&u)), P("%s %s %s %s", u.sysname, u.nodename, u.machine, u.domainname), R(SC(uname, BAD)), R(sysinfo(&s)), P("unit %d procs %d uptime %d", s.mem_unit, s.procs > 0, s.uptime > 0), R(SC(sysinfo, BAD)), V(SC(getrandom, b, 16, 0)), V(SC(getrandom, b, 600, 1)), V(SC(getrandom, b, 0, 0)), V(SC(getrandom, b, 16, 4)), V(SC(getrandom, b, 16, 8)), V(SC(getrandom, b, 16, 6)), V(SC(getrandom, BAD, 16, 0)), V(SC(getrandom, border(8), 16, 0)), V(SC(getrandom, b, 16, 2)), V(sysconf(_SC_PAGESIZE)), V(sysconf(_SC_CLK_TCK)), V(sysconf(_SC_NPROCESSORS_ONLN)), V(sysconf(_SC_NPROCESSORS_CONF)), V(sysconf(_SC_OPEN_MAX)), V(sysconf(_SC_ARG_MAX)), V(sysconf(_SC_NGROUPS_MAX)), V(sysconf(_SC_IOV_MAX)), V(pathconf(".", _PC_NAME_MAX)), V(pathconf(".", _PC_PIPE_BUF)), V(pathconf(".", _PC_LINK_MAX)), V(time(0) > 1000000000), V(SC(time, BAD)), R(SC(gettimeofday, BAD, 0)), R(SC(gettimeofday, 0, BAD)), R(SC(gettimeofday, 0, 0)), R(SC(ustat, 0, b)), R(SC(sysfs, 3)), R(SC(sysfs, 9)), R(SC(uselib, "x")), R(SC(modify_ldt, 9, b, 10)), V(SC(modify_ldt, 0, b, 10)), R(SC(iopl, 0)), R(SC(iopl, 4)), R(SC(ioperm, 0, 1, 0)), R(SC(ioperm, 70000, 1, 1));
}
static void doors(void) {
	char b[200] = {0};
	R(SC(membarrier, 0, 0, 0) < 0 ? -1 : 0), V(SC(membarrier, 0, 1, 0)), V(SC(membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0)), V(SC(membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0)), V(SC(membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0)), V(SC(membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0)), V(SC(membarrier, 1 << 20, 0, 0)), V(SC(membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0));
	H("rseq");
	V(SC(rseq, 0, 0, 0, 0)), V(SC(rseq, b, 10, 0, 0)), V(SC(rseq, b + 1, 32, 0, 0)), V(SC(rseq, b, 32, 4, 0)), V(SC(rseq, BAD, 32, 1, 0));
	H("probes");
	R(SC(bpf, 99, 0, 0)), R(SC(userfaultfd, 0xffff)), R(SC(perf_event_open, BAD, 0, -1, -1, 0)), R(SC(io_uring_setup, 0, BAD)), R(SC(kexec_load, 0, 0, 0, 0)), R(SC(init_module, 0, 0, "")), R(SC(delete_module, "nosuch", 0)), R(SC(swapon, "none", 0)), R(SC(swapoff, "none")), R(SC(quotactl, QCMD(Q_SYNC, USRQUOTA), 0, 0, 0)), R(SC(lookup_dcookie, 0, b, 10)), R(SC(fanotify_init, 0xffff, 0)), R(SC(landlock_create_ruleset, 0, 0, 0)), R(SC(name_to_handle_at, AT_FDCWD, "none", b, b, 0)), R(SC(open_by_handle_at, AT_FDCWD, b, 0)), R(SC(io_setup, 0, 0)), R(SC(io_destroy, 0)), R(SC(get_mempolicy, 0, 0, 0, 0, 0)), R(SC(set_mempolicy, 0, 0, 0)), R(SC(set_mempolicy, 99, 0, 0)), R(SC(mbind, 0, 0, 0, 0, 0, 0)), R(SC(mbind, 1, 4096, 0, 0, 0, 0)), R(SC(migrate_pages, 99999999, 8, b, b)), R(SC(settimeofday, BAD, 0)), R(SC(adjtimex, BAD)), R(SC(reboot, 1, 2, 3, 0)), R(SC(acct, "none")), R(SC(vserver)), R(syscall(1000)), R(syscall(-1)), R(syscall(0x40000000)), R(syscall(500)), R(SC(set_thread_area, b)), R(SC(cachestat, -1, b, b, 0)), R(SC(statmount, BAD, BAD, 0, 0)), R(SC(listmount, BAD, BAD, 0, 0)), R(SC(map_shadow_stack, 0, 4096, 0)), R(SC(quotactl, 0x80000700, 0, 0, 0)), R(SC(ustat, 1, b));
	H("syslog");
	static const int t[] = {2, 3, 8, 10, 11, -1};
	for (int i = 0; i < 6; i++)
		P("syslog %d: %s", t[i], EN(SC(syslog, t[i], t[i] == 8 ? 0 : (long)b, t[i] == 8 ? 99 : -1)));
	H("seccomp");
	uint32_t act = SECCOMP_RET_ALLOW;
	R(SC(seccomp, 9, 0, 0)), R(SC(seccomp, SECCOMP_SET_MODE_STRICT, 1, 0)), R(SC(seccomp, SECCOMP_SET_MODE_FILTER, 0, BAD)), R(SC(seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &act)), act = 0x12340000, R(SC(seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &act)), R(SC(seccomp, SECCOMP_GET_ACTION_AVAIL, 1, &act)), R(SC(seccomp, SECCOMP_GET_NOTIF_SIZES, 0, b));
	struct sock_filter f[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 77), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
	struct sock_fprog p = {4, f}, none = {0, f}, bad = {1, (struct sock_filter[]){BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 2)}};
	R(SC(seccomp, SECCOMP_SET_MODE_FILTER, 0x8000, &p)), R(SC(seccomp, SECCOMP_SET_MODE_FILTER, 0, &none)), R(SC(seccomp, SECCOMP_SET_MODE_FILTER, 0, &p) * 0), prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), R(SC(seccomp, SECCOMP_SET_MODE_FILTER, 0, &bad)), R(SC(seccomp, SECCOMP_SET_MODE_FILTER, 0, &p)), V(SC(getppid)), V(prctl(PR_GET_SECCOMP)), P("%s", wait_for(CHILD(V(SC(getppid)); f[2].k = SECCOMP_RET_KILL_PROCESS; f[1].k = SYS_getuid; R(SC(seccomp, SECCOMP_SET_MODE_FILTER, 0, &p)); SC(getuid)))), f[1].k = SYS_getuid, f[2].k = SECCOMP_RET_TRAP, P("%s", wait_for(CHILD(R(SC(seccomp, SECCOMP_SET_MODE_FILTER, 0, &p)); catch(SIGSYS, 0); V(SC(getuid)); P("code %d signo %d", conf_info.si_code, conf_info.si_signo)))), f[2].k = SECCOMP_RET_TRACE, P("%s", wait_for(CHILD(R(SC(seccomp, SECCOMP_SET_MODE_FILTER, 0, &p)); V(SC(getuid))))), P("%s", wait_for(CHILD(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT); SC(getpid)))), P("%s", wait_for(CHILD(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT); write(1, "strict\n", 7); SC(exit, 3))));
}
static void keys(void) {
	char b[200];
	long k = SC(add_key, "user", "mine", "secret", 6, KEY_SPEC_PROCESS_KEYRING);
	V(k > 0), V(SC(keyctl, KEYCTL_READ, k, b, 200)), V(SC(keyctl, KEYCTL_READ, k, b, 2)), V(SC(keyctl, KEYCTL_READ, 99999999, b, 200)), V(SC(keyctl, KEYCTL_DESCRIBE, k, b, 200) > 0), P("%s", strstr(b, "mine") ? strstr(b, "mine") : "?"), V(SC(keyctl, KEYCTL_SEARCH, KEY_SPEC_PROCESS_KEYRING, "user", "mine", 0) == k), V(SC(keyctl, KEYCTL_SEARCH, KEY_SPEC_PROCESS_KEYRING, "user", "other", 0)), V(SC(request_key, "user", "mine", 0, 0) == k), V(SC(request_key, "user", "other", 0, 0)), V(SC(add_key, "nosuch", "x", "y", 1, KEY_SPEC_PROCESS_KEYRING)), V(SC(add_key, "user", "x", "y", 1, 99999999)), V(SC(add_key, "user", "", "y", 1, KEY_SPEC_PROCESS_KEYRING)), V(SC(add_key, "user", "x", 0, 0, KEY_SPEC_PROCESS_KEYRING)), V(SC(add_key, "user", "x", b, 40000, KEY_SPEC_PROCESS_KEYRING)), V(SC(add_key, "keyring", "ring", 0, 0, KEY_SPEC_PROCESS_KEYRING) > 0), V(SC(keyctl, KEYCTL_JOIN_SESSION_KEYRING, "sess") > 0), V(SC(keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0) > 0), V(SC(keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_THREAD_KEYRING, 0)), V(SC(keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_THREAD_KEYRING, 1) > 0), V(SC(keyctl, KEYCTL_UPDATE, k, "newer", 5)), V(SC(keyctl, KEYCTL_READ, k, b, 200)), V(SC(keyctl, KEYCTL_SETPERM, k, 0x3f3f0000)), V(SC(keyctl, KEYCTL_SET_TIMEOUT, k, 100)), V(SC(keyctl, KEYCTL_LINK, k, KEY_SPEC_SESSION_KEYRING)), V(SC(keyctl, KEYCTL_UNLINK, k, KEY_SPEC_PROCESS_KEYRING)), V(SC(keyctl, KEYCTL_UNLINK, k, KEY_SPEC_PROCESS_KEYRING)), V(SC(keyctl, KEYCTL_REVOKE, k)), V(SC(keyctl, KEYCTL_READ, k, b, 200)), V(SC(keyctl, KEYCTL_CLEAR, KEY_SPEC_SESSION_KEYRING)), V(SC(keyctl, 999, 0, 0, 0));
}
int main(void) { sub(info), sub(doors), sub(keys); }
