// Key rings: adding, finding, reading, describing, linking, permissions, timeouts, revoking, quotas, and what fork, exec, threads and set*id do to them.
// users: root ordinary
#include "conf.h"
#include <linux/keyctl.h>
#include <pthread.h>
#include <sys/prctl.h>

#define K(...) SC(keyctl, __VA_ARGS__)
#define TH KEY_SPEC_THREAD_KEYRING
#define PR KEY_SPEC_PROCESS_KEYRING
#define SE KEY_SPEC_SESSION_KEYRING
static long add(const char *t, const char *d, const char *v, int ring) { return SC(add_key, t, d, v, v ? strlen(v) : 0, ring); }
static char b[70000];
static void desc(const char *n, int id) {
	memset(b, 0, 300);
	long r = E(K(KEYCTL_DESCRIBE, id, b, sizeof b));
	char *s = strchr(b, ';'), *t = s ? strchr(s + 1, ';') : 0, *u = t ? strchr(t + 1, ';') : 0;
	if (r < 0)
		P("%s: %s", n, conf_errno(-r));
	else
		P("%s: length %d, %.*s mine %d %s", n, r == (long)strlen(b) + 1, (int)(s - b), b, atoi(s + 1) == (int)geteuid() && atoi(t + 1) == (int)getegid(), u);
}
static void rd(const char *n, int id) {
	memset(b, 0, 300);
	long r = E(K(KEYCTL_READ, id, b, sizeof b));
	P("%s: %s %.20s", n, r < 0 ? conf_errno(-r) : "ok", r > 0 ? b : "");
}

static void basics(void) {
	K(KEYCTL_JOIN_SESSION_KEYRING, 0);
	H("arguments of add_key");
	R(SC(add_key, BAD, "d", "v", 1, PR)), R(SC(add_key, "user", BAD, "v", 1, PR)), R(SC(add_key, "user", "d", BAD, 1, PR)), R(SC(add_key, "", "d", "v", 1, PR)), R(SC(add_key, ".user", "d", "v", 1, PR)), R(SC(add_key, "12345678901234567890123456789012", "d", "v", 1, PR)), R(SC(add_key, "1234567890123456789012345678901", "d", "v", 1, PR)), R(SC(add_key, "user", 0, "v", 1, PR)), R(SC(add_key, "user", "d", "v", 0, PR)), R(SC(add_key, "user", "d", b, 32768, PR)), R(SC(add_key, "user", "d", b, 1 << 20, PR)), R(SC(add_key, "user", "d", b, -1, PR)), R(SC(add_key, "keyring", ".d", 0, 0, PR)), R(SC(add_key, "keyring", "d", "v", 1, PR)), R(SC(add_key, "logon", "d", "v", 1, PR)), R(SC(add_key, "logon", ":d", "v", 1, PR)), R(SC(add_key, "user", "d", "v", 1, 0)), R(SC(add_key, "user", "d", "v", 1, -6)), R(SC(add_key, "user", "d", "v", 1, -7)), R(SC(add_key, "user", "d", "v", 1, -8)), R(SC(add_key, "user", "d", "v", 1, -9)), R(SC(add_key, "user", "d", "v", 1, INT_MIN));
	memset(b, 'x', 5000), b[4095] = 0, R(SC(add_key, "user", b, "v", 1, PR) < 0 ? -1 : 0), b[4095] = 'x', R(SC(add_key, "user", b, "v", 1, PR));
	H("keys");
	int k = add("user", "one", "value", PR), l = add("logon", "a:b", "secret", PR), r = add("keyring", "ring", 0, PR);
	desc("user", k), desc("logon", l), desc("ring", r), desc("process", PR), desc("thread", TH), desc("session", SE), desc("uid", KEY_SPEC_USER_KEYRING), desc("group", -6), rd("user", k), rd("logon", l), V(K(KEYCTL_READ, r, b, 10)), V(K(KEYCTL_READ, k, 0, 0)), V(K(KEYCTL_READ, k, b, 3)), V(K(KEYCTL_READ, k, BAD, 300)), V(K(KEYCTL_DESCRIBE, k, BAD, 300)), V(K(KEYCTL_DESCRIBE, k, 0, 0) > 10), V(add("user", "one", "other", PR) == k), rd("updated", k), V(add("keyring", "ring", 0, PR) == r), V(K(KEYCTL_UPDATE, k, "third", 5)), rd("updated", k), V(K(KEYCTL_UPDATE, k, 0, 0)), V(K(KEYCTL_UPDATE, k, BAD, 5)), V(K(KEYCTL_UPDATE, k, b, 4097)), V(K(KEYCTL_UPDATE, PR, "x", 1)), V(K(KEYCTL_UPDATE, l, "new", 3)), V(add("user", "x", "y", k));
	H("finding");
	r = K(KEYCTL_SEARCH, PR, "keyring", "ring", 0);
	int in = add("user", "inner", "deep", r);
	V(K(KEYCTL_SEARCH, PR, "user", "inner", 0) == in), V(K(KEYCTL_SEARCH, SE, "user", "inner", 0)), V(K(KEYCTL_SEARCH, k, "user", "inner", 0)), V(K(KEYCTL_SEARCH, PR, "nosuch", "inner", 0)), V(K(KEYCTL_SEARCH, PR, BAD, "inner", 0)), V(K(KEYCTL_SEARCH, PR, "user", BAD, 0)), V(K(KEYCTL_SEARCH, PR, "user", "inner", SE) == in), V(K(KEYCTL_SEARCH, SE, "user", "inner", 0) == in), V(SC(request_key, "user", "inner", 0, 0) == in), V(SC(request_key, "user", "inner", 0, TH) == in), V(K(KEYCTL_SEARCH, TH, "user", "inner", 0) == in), V(SC(request_key, "user", "none", 0, 0)), V(SC(request_key, "nosuch", "none", 0, 0)), V(SC(request_key, BAD, "none", 0, 0)), V(SC(request_key, "user", BAD, 0, 0)), V(SC(request_key, "user", "inner", BAD, 0)), V(SC(request_key, "user", "inner", 0, 12345) == in);
	H("links");
	V(K(KEYCTL_LINK, k, r)), V(K(KEYCTL_LINK, k, r)), V(K(KEYCTL_READ, r, 0, 0)), V(K(KEYCTL_LINK, r, r)), V(K(KEYCTL_LINK, k, in)), V(K(KEYCTL_LINK, PR, r)), V(K(KEYCTL_LINK, 0, r)), V(K(KEYCTL_LINK, k, 0)), V(K(KEYCTL_UNLINK, k, r)), V(K(KEYCTL_UNLINK, k, r)), V(K(KEYCTL_UNLINK, k, in)), V(K(KEYCTL_UNLINK, 0, r)), V(K(KEYCTL_CLEAR, r)), V(K(KEYCTL_CLEAR, k)), V(K(KEYCTL_READ, r, 0, 0)), V(K(KEYCTL_CLEAR, 0));
	int d = PR;
	for (int i = 0; i < 8; i++)
		sprintf(b, "deep %d", i), d = add("keyring", b, 0, d), P("%d %d", i, d > 0);
	d = add("user", "bottom", "x", d), V(K(KEYCTL_SEARCH, PR, "user", "bottom", 0) == d), V(K(KEYCTL_SEARCH, PR, "keyring", "deep 5", 0) > 0), V(K(KEYCTL_SEARCH, PR, "keyring", "deep 6", 0) > 0), V(K(KEYCTL_SEARCH, PR, "keyring", "deep 7", 0) > 0);
	H("permissions");
	V(K(KEYCTL_SETPERM, k, 0x40000000)), V(K(KEYCTL_SETPERM, k, 0x3f000000)), desc("possessor", k), V(K(KEYCTL_SETPERM, k, 0x25000000)), rd("no read", k), V(K(KEYCTL_UPDATE, k, "x", 1)), V(K(KEYCTL_SETPERM, k, 0x22000000)), desc("no view", k), rd("no search", k), V(K(KEYCTL_SEARCH, PR, "user", "one", 0)), V(SC(request_key, "user", "one", 0, 0)), V(add("user", "one", "again", PR) > 0), V(K(KEYCTL_SETPERM, k, 0x3f000000)), rd("all", k), V(K(KEYCTL_CHOWN, k, -1, -1)), V(K(KEYCTL_CHOWN, k, geteuid(), getegid())), V(K(KEYCTL_CHOWN, k, 12345, -1)), V(K(KEYCTL_CHOWN, k, -1, 12345)), V(K(KEYCTL_CHOWN, 0, 1, 1)), V(K(KEYCTL_GET_SECURITY, k, b, 10)), V(K(KEYCTL_GET_SECURITY, 0, b, 10));
	H("ends");
	k = add("user", "two", "value", PR), V(K(KEYCTL_SET_TIMEOUT, k, 1000)), V(K(KEYCTL_SET_TIMEOUT, k, 0)), V(K(KEYCTL_SET_TIMEOUT, 0, 0)), V(K(KEYCTL_SET_TIMEOUT, k, 1)), rd("still there", k), sleep_ms(1100), rd("expired", k), desc("expired", k), V(SC(request_key, "user", "two", 0, 0)), V(K(KEYCTL_SEARCH, PR, "user", "two", 0)), V(add("user", "two", "new", PR) == k);
	k = add("user", "three", "value", PR), V(K(KEYCTL_REVOKE, k)), V(K(KEYCTL_REVOKE, k)), rd("revoked", k), desc("revoked", k), V(K(KEYCTL_SEARCH, PR, "user", "three", 0)), V(add("user", "three", "new", PR) == k), k = add("user", "four", "value", PR), V(K(KEYCTL_INVALIDATE, k)), V(SC(request_key, "user", "four", 0, 0)), k = add("user", "five", "value", PR), V(K(KEYCTL_UNLINK, k, PR)), V(K(KEYCTL_REVOKE, r)), V(add("user", "x", "y", r)), V(K(KEYCTL_REVOKE, 0));
	V(K(KEYCTL_ASSUME_AUTHORITY, 0)), V(K(KEYCTL_ASSUME_AUTHORITY, -1)), V(K(KEYCTL_INSTANTIATE, 1, "x", 1, 0)), V(K(KEYCTL_NEGATE, 1, 1, 0)), V(K(99)), V(K(-1));
}

static void *thread(void *a) {
	int *k = a;
	V(K(KEYCTL_GET_KEYRING_ID, TH, 0) > 0), V(K(KEYCTL_GET_KEYRING_ID, PR, 0) == k[1]), V(K(KEYCTL_GET_KEYRING_ID, SE, 0) == k[2]), V(K(KEYCTL_GET_KEYRING_ID, TH, 1) != k[0]), V(K(KEYCTL_JOIN_SESSION_KEYRING, "of a thread") > 0), add("user", "by a thread", "x", PR);
	return 0;
}
static void rings(void) {
	V(K(KEYCTL_GET_KEYRING_ID, TH, 0)), V(K(KEYCTL_GET_KEYRING_ID, PR, 0)), V(K(KEYCTL_GET_KEYRING_ID, -6, 0)), V(K(KEYCTL_GET_KEYRING_ID, -7, 1)), V(K(KEYCTL_GET_KEYRING_ID, -99, 1)), V(K(KEYCTL_GET_KEYRING_ID, 0, 1));
	V(K(KEYCTL_GET_KEYRING_ID, KEY_SPEC_USER_KEYRING, 0) > 0), V(K(KEYCTL_GET_KEYRING_ID, KEY_SPEC_USER_SESSION_KEYRING, 0) > 0), V(K(KEYCTL_JOIN_SESSION_KEYRING, BAD)), V(K(KEYCTL_JOIN_SESSION_KEYRING, ".x")), V(K(KEYCTL_JOIN_SESSION_KEYRING, "")), V(K(KEYCTL_JOIN_SESSION_KEYRING, 0) > 0), desc("anonymous", SE);
	char name[32];
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now), sprintf(name, "n%ld", now.tv_nsec); // another run may have the PID
	int n = K(KEYCTL_JOIN_SESSION_KEYRING, name);
	V(n > 0), V(K(KEYCTL_DESCRIBE, n, b, 300) > 0), P("%.10s", strchr(strchr(strchr(b, ';') + 1, ';') + 1, ';')), V(K(KEYCTL_SETPERM, n, 0x3f1b0000)), V(K(KEYCTL_JOIN_SESSION_KEYRING, name) == n), V(K(KEYCTL_JOIN_SESSION_KEYRING, 0) != n);
	int k[3] = {K(KEYCTL_GET_KEYRING_ID, TH, 1), K(KEYCTL_GET_KEYRING_ID, PR, 1), K(KEYCTL_GET_KEYRING_ID, SE, 1)}, s = add("user", "of the session", "x", SE);
	H("a thread");
	pthread_t t;
	pthread_create(&t, 0, thread, k), pthread_join(t, 0), V(K(KEYCTL_GET_KEYRING_ID, SE, 0) == k[2]), V(K(KEYCTL_SEARCH, PR, "user", "by a thread", 0) > 0);
	H("a child");
	P("%s", wait_for(CHILD(V(K(KEYCTL_GET_KEYRING_ID, TH, 0)); V(K(KEYCTL_GET_KEYRING_ID, PR, 0)); V(K(KEYCTL_GET_KEYRING_ID, SE, 0) == k[2]); V(SC(request_key, "user", "of the session", 0, 0) == s); V(SC(request_key, "user", "by a thread", 0, 0)); V(K(KEYCTL_READ, k[1], b, 100)); desc("parent's", k[1]); V(add("user", "from the child", "x", SE) > 0); V(K(KEYCTL_JOIN_SESSION_KEYRING, 0) > 0); V(SC(request_key, "user", "from the child", 0, 0)))));
	V(K(KEYCTL_SEARCH, SE, "user", "from the child", 0) > 0);
	H("request_key's destination");
	for (int i = -2; i < 9; i++)
		P("%d: %ld", i, E(K(KEYCTL_SET_REQKEY_KEYRING, i)));
}
static void others(void) {
	if (getuid())
		return;
	K(KEYCTL_JOIN_SESSION_KEYRING, 0);
	int k = add("user", "root's", "value", SE), o = add("user", "shown", "value", SE);
	V(K(KEYCTL_SETPERM, o, 0x3f3f0f0f)), V(K(KEYCTL_SETPERM, k, 0x003f0000));
	P("%s", wait_for(CHILD(K(KEYCTL_JOIN_SESSION_KEYRING, 0); prctl(PR_SET_DUMPABLE, 1); setresgid(7777, 7777, 7777); setgroups(0, 0); setresuid(7777, 7777, 7777); desc("root's", k); rd("root's", k); rd("shown", o); V(K(KEYCTL_UPDATE, o, "w", 1)); V(K(KEYCTL_SETPERM, o, 0)); V(K(KEYCTL_CHOWN, o, 7777, -1)); V(K(KEYCTL_LINK, o, PR)); V(K(KEYCTL_LINK, k, PR)); V(K(KEYCTL_REVOKE, k)); desc("session", SE); desc("uid", KEY_SPEC_USER_KEYRING); desc("uid session", KEY_SPEC_USER_SESSION_KEYRING);)));
	H("quota");
	// A user of this run alone (the PID is that of others, too): keys that are gone are counted until the host has collected them.
	P("%s", wait_for(CHILD(K(KEYCTL_JOIN_SESSION_KEYRING, 0); struct timespec t; clock_gettime(CLOCK_REALTIME, &t); int u = 20000 + t.tv_nsec / 1000 % 40000; setresuid(u, u, u);
		int n = 0; while (n < 400 && (sprintf(b, "key %d", n), add("user", b, "v", PR)) > 0) n++;
		P("%d keys, %s", n, conf_errno(errno)); V(K(KEYCTL_CLEAR, PR)); memset(b, 'x', 30000); for (n = 0; n < 1000 && SC(add_key, "user", "big", b, 15000, PR) < 0; n++) sleep_ms(10); P("room again %d", n < 1000); V(SC(add_key, "user", "big2", b, 15000, PR)); V(SC(add_key, "user", "big", b, 100, PR) > 0); V(SC(add_key, "user", "big2", b, 15000, PR) > 0))));
}
int main(void) { sub(basics), sub(rings), sub(others); }
