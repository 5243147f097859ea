// statmount(2), listmount(2) and open_tree_attr(2).
#include "mounts.h"

struct req {
	uint32_t size;
	int32_t fd;
	uint64_t id, param, ns, more;
};
struct sm {
	uint32_t size, opts;
	uint64_t mask;
	uint32_t major, minor;
	uint64_t magic;
	uint32_t sbflags, type;
	uint64_t id, parent;
	uint32_t oldid, oldparent;
	uint64_t attr, prop, peer, master, from;
	uint32_t root, point;
	uint64_t nsid;
	uint32_t subtype, source, nopt, opta, nsec, seca;
	uint64_t supported;
	uint64_t rest[45];
	char str[];
};

static char buf[65536];
static struct sm *sm = (void *)buf;
static uint64_t ids[4096], top, proc;

static uint64_t id_of(const char *path) {
	struct {
		uint32_t mask, pad[35];
		uint64_t id, rest[20];
	} x = {0};
	if (SC(statx, AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, 0x4000, &x))
		P("statx %s: %s", path, conf_errno(errno));
	return x.id;
}

static long stat_id(uint64_t id, uint64_t mask, size_t n) {
	struct req q = {24, 0, id, mask};
	memset(buf, 0x55, sizeof buf);
	return SC(statmount, &q, buf, n, 0);
}

static const char *at(uint64_t bit, uint32_t off) { return !(sm->mask & bit) ? "-" : off > 8192 ? "?" : sm->str + off; }

static void show(const char *path) {
	uint64_t id = id_of(path);
	long r = stat_id(id, 0xfff & ~0x84, sizeof buf);
	if (r) {
		P("%s: %s", path, conf_errno(errno));
		return;
	}
	P("%s: mask %lx magic %lx sb %x attr %lx propagation %lx shared %d slave %d, id %d, parent is above %d, old ids %d", path, (long)(sm->mask & ~0x400UL), (long)sm->magic, sm->sbflags,
	  (long)sm->attr, (long)sm->prop, sm->peer != 0, sm->master != 0, sm->id == id, sm->parent == top, sm->oldid != 0 && sm->oldparent != 0);
	P("  type %s root %s point %s subtype %s source %s", at(0x20, sm->type), at(8, sm->root), at(0x10, sm->point), at(0x100, sm->subtype), at(0x200, sm->source));
	P("  offsets %u %u %u", sm->type, sm->root, sm->point);
}

static void statmounts(void) {
	H("statmount");
	R(mount("src one", "m", "tmpfs", MS_NOSUID | MS_NODEV | MS_NODIRATIME, "size=1m,mode=700"));
	top = id_of(".");
	mkdir("m/a", 0755), mkdir("m/b", 0755), mkdir("m/c", 0755), mkdir("m/d", 0755), mkdir("m/a/sub", 0755);
	show("m");
	top = id_of("m");
	R(mount("m/a/sub", "m/b", 0, MS_BIND, 0));
	show("m/b");
	R(mount(0, "m/b", 0, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOEXEC | MS_NOATIME | MS_NOSUID | MS_NODEV, 0));
	show("m/b");
	R(mount(0, "m/b", 0, MS_BIND | MS_REMOUNT | MS_STRICTATIME | MS_NOSUID | MS_NODEV, 0));
	show("m/b");
	R(mount(0, "m/b", 0, MS_SHARED, 0));
	R(mount("m/b", "m/c", 0, MS_BIND, 0));
	show("m/c");
	R(mount(0, "m/c", 0, MS_SLAVE, 0));
	show("m/c");
	stat_id(id_of("m/b"), 2, sizeof buf);
	uint64_t group = sm->peer;
	stat_id(id_of("m/c"), 6, sizeof buf);
	P("master: %d from: %d", sm->master == group, sm->from == group);
	R(mount(0, "m/c", 0, MS_SHARED, 0));
	show("m/c");
	R(mount(0, "m/c", 0, MS_UNBINDABLE, 0));
	show("m/c");
	R(mount("none", "m/d", "tmpfs", MS_RDONLY, 0));
	show("m/d");
	R(stat_id(id_of("m"), 0x480, sizeof buf));
	P("options '%.10s' %u, first '%.10s'", at(0x80, sm->opts), sm->nopt > 0, at(0x400, sm->opta));
	uint64_t id = id_of("m/d");
	for (int i = 0; i < 16; i++) {
		errno = 0;
		if (i == 7 || i == 10 || i == 4) // the options and the place differ
			continue;
		stat_id(id, 1UL << i, sizeof buf);
		P("mask %#lx: %s size %u out %lx", 1UL << i, conf_errno(errno), sm->size, (long)sm->mask);
	}
	R(stat_id(id, 0, sizeof buf));
	R(stat_id(id, ~0UL, sizeof buf));
	P("out %lx supported %lx", (long)sm->mask & ~0x480UL, (long)sm->supported);
	R(stat_id(id, 1, 0));
	R(stat_id(id, 1, 20));
	P("%u %x", sm->size, buf[20]);
	R(stat_id(id, 0x20, 518));
	P("%u", sm->size);
	for (int n = 510; n < 522; n++)
		RN("0x20, short", stat_id(id, 0x20, n));
	struct req q = {24, 0, id, 1};
	R(SC(statmount, &q, buf, sizeof buf, 1));
	R(SC(statmount, &q, BAD, sizeof buf, 0));
	R(SC(statmount, BAD, buf, sizeof buf, 0));
	R(SC(statmount, &q, -4096L, sizeof buf, 0));
#define S(...) ({ struct req q = {__VA_ARGS__}; RN(#__VA_ARGS__, SC(statmount, &q, buf, sizeof buf, 0)); })
	stat_id(id, 0x40, sizeof buf);
	uint64_t ns = sm->nsid;
	P("a number: %d", ns != 0);
	S(23, 0, id, 1), S(25, 0, id, 1), S(32, 0, id, 1), S(32, 0, id, 1, ns), S(32, 0, id, 1, ns + 100000), S(32, 1, id, 1, ns), S(24, -1, id, 1), S(40, 0, id, 1), S(40, 0, id, 1, 0, 1);
	S(0, 0, id, 1), S(4097, 0, id, 1), S(24, 0, 0, 1), S(24, 0, 1UL << 31, 1), S(24, 0, 1UL << 40, 1), S(24, 0, ~0UL, 1), S(24, 0, id & 0x7fffffff, 1);
	int self = open("/proc/self/ns/mnt", O_RDONLY), net = open("/proc/self/ns/net", O_RDONLY);
	S(24, self, id, 1), S(24, net, id, 1), S(32, self, id, 1, ns);
}

static void list(const char *name, uint64_t id, uint64_t param, size_t n, int flags) {
	struct req q = {24, 0, id, param};
	VN(name, SC(listmount, &q, ids, n, flags));
}

static void listmounts(void) {
	H("listmount");
	uint64_t m = id_of("m"), want[] = {id_of("m/b"), id_of("m/c"), id_of("m/d")};
	list("m", m, 0, 10, 0);
	P("in order: %d", !memcmp(ids, want, sizeof want));
	list("m, two", m, 0, 2, 0);
	list("m, behind the first", m, want[0], 10, 0);
	P("%d", !memcmp(ids, want + 1, 16));
	list("m, behind all", m, ~0UL, 10, 0);
	list("m, backwards", m, 0, 10, 1);
	P("%d", ids[0] == want[2] && ids[2] == want[0]);
	list("m, backwards from the last", m, want[2], 10, 1);
	list("m, backwards from the first", m, want[0], 10, 1);
	list("m/b", want[0], 0, 10, 0);
	struct req q = {24, 0, ~0UL, 0};
	long n = SC(listmount, &q, ids, 4096, 0);
	int sorted = 1, has = 0;
	for (int i = 0; i < n; i++)
		sorted &= !i || ids[i] > ids[i - 1], has |= ids[i] == m;
	P("all: %d sorted %d has it %d", n > 3, sorted, has);
	list("flags", m, 0, 10, 2);
	list("none", m, 0, 0, 0);
	list("param 5", m, 5, 10, 0);
	list("id 0", 0, 0, 10, 0);
	list("id unknown", 1UL << 40, 0, 10, 0);
	list("1000001", m, 0, 1000001, 0);
	q.id = m;
	V(SC(listmount, &q, BAD, 1, 0));
	V(SC(listmount, &q, BAD, 0, 0));
	V(SC(listmount, &q, -4096L, 1, 0));
	V(SC(listmount, BAD, ids, 1, 0));
	q.size = 20;
	V(SC(listmount, &q, ids, 1, 0));
	H("in another root");
	fflush(stdout);
	pid_t c = fork();
	if (!c) {
		R(chroot("m/b"));
		R(stat_id(m, 0x18, sizeof buf));
		P("mask %lx point %s", (long)sm->mask, at(0x10, sm->point));
		R(chdir("/"));
		R(stat_id(want[0], 0x10, sizeof buf));
		P("point %s", at(0x10, sm->point));
		list("all", ~0UL, 0, 10, 0);
		P("it: %d", ids[0] == want[0]);
		_exit(0);
	}
	waitpid(c, 0, 0);
	R(umount2("m/d", MNT_DETACH));
	R(stat_id(want[2], 1, sizeof buf));
	list("m", m, 0, 10, 0);
	// Another namespace, by its descriptor.
	int p[2], q2[2];
	pipe(p), pipe(q2);
	fflush(stdout);
	c = fork();
	if (!c) {
		unshare(CLONE_NEWNS);
		mount("none", "m/d", "tmpfs", 0, 0);
		write(p[1], "", 1);
		read(q2[0], buf, 1);
		_exit(0);
	}
	read(p[0], buf, 1);
	char name[64];
	sprintf(name, "/proc/%d/ns/mnt", c);
	struct req o = {24, open(name, O_RDONLY), ~0UL, 0};
	long theirs = SC(listmount, &o, ids, 4096, 0);
	o.id = ids[theirs > 0 ? theirs - 1 : 0], o.param = 0x2;
	RN("their last", SC(statmount, &o, buf, sizeof buf, 0));
	P("%lx", (long)sm->attr);
	RN("ours, there", ({ struct req x = {24, o.fd, m, 2}; SC(statmount, &x, buf, sizeof buf, 0); }));
	RN("theirs, here", stat_id(o.id, 2, sizeof buf));
	// And by its number.
	struct req x = {24, o.fd, o.id, 0x40};
	RN("its number", SC(statmount, &x, buf, sizeof buf, 0));
	uint64_t ns = sm->nsid;
	struct req by = {32, 0, o.id, 2, ns}, all = {32, 0, ~0UL, 0, ns};
	RN("theirs, by number", SC(statmount, &by, buf, sizeof buf, 0));
	P("as many by number: %d", SC(listmount, &all, ids, 4096, 0) == theirs);
	by.id = m;
	RN("ours, there, by number", SC(statmount, &by, buf, sizeof buf, 0));
	// An open descriptor keeps it, which its number finds when no process is in it any more.
	write(q2[1], "", 1);
	waitpid(c, 0, 0);
	P("without processes: %d", SC(listmount, &all, ids, 4096, 0) == theirs);
	P("%s", conf_status(({
		fflush(stdout);
		pid_t in = fork();
		if (!in) {
			R(setns(o.fd, CLONE_NEWNS));
			P("%s", EN(access("/mnt/m/d", F_OK)));
			fflush(stdout);
			_exit(0);
		}
		int st;
		waitpid(in, &st, 0);
		st;
	})));
	// So does a mount of it, but not in itself.
	R(close(open("m/ns", O_CREAT | O_RDWR, 0600)));
	sprintf(name, "/proc/self/fd/%d", o.fd);
	R(mount(name, "m/ns", 0, MS_BIND, 0));
	R(mount("/proc/self/ns/mnt", "m/ns", 0, MS_BIND, 0));
	close(o.fd);
	P("mounted: %d", SC(listmount, &all, ids, 4096, 0) == theirs);
	int again = open("m/ns", O_RDONLY);
	R(umount2("m/ns", MNT_DETACH));
	P("open: %d", SC(listmount, &all, ids, 4096, 0) == theirs);
	close(again);
	for (int i = 0; i < 200 && SC(listmount, &all, ids, 4096, 0) >= 0; i++)
		sleep_ms(10);
	RN("gone", SC(listmount, &all, ids, 4096, 0));
}

static void trees(void) {
	H("open_tree_attr");
	uint64_t a[5] = {0};
#define T(path, flags, attr, n) ({ int fd = syscall(467, AT_FDCWD, path, flags, attr, n); RN(#path " " #flags " " #attr " " #n, fd); fd; })
	enum { CLONE = 1 };
	int fd = T("m", CLONE, 0, 0);
	T("m", 0, 0, 0);
	T("m", 0, 0, 32);
	T("m", CLONE, a, 31);
	T("m", CLONE, a, 5000);
	T("m", CLONE, a, 32);
	T("m", CLONE, BAD, 32);
	T("m/nothing", CLONE, BAD, 31);
	a[0] = 1;
	T("m/a", 0, a, 32);
	fd = T("m", CLONE, a, 32);
	P("write: %s", EN(openat(fd, "x", O_CREAT | O_RDWR, 0600)));
	P("write there: %s", EN(openat(AT_FDCWD, "m/x", O_CREAT | O_RDWR, 0600)));
	a[0] = 1UL << 40;
	T("m", CLONE, a, 32);
	a[0] = 0, a[4] = 1;
	T("m", CLONE, a, 40);
	a[4] = 0, a[0] = 1;
	T("m", CLONE, a, 40);
	fd = T("m", CLONE | AT_RECURSIVE, a, 32);
	P("write below: %s", EN(openat(fd, "b/x", O_CREAT | O_RDWR, 0600)));
	T("m", AT_RECURSIVE, a, 32);
	T("m", 0x100000, a, 32);
	// Where there is nothing to clone the mount itself changes.
	T("m/b", 0, a, 32);
	P("write: %s", EN(open("m/b/x", O_CREAT | O_RDWR, 0600)));
}

static void all(void) {
	int u = getuid(), g = getgid();
	// Linux numbers namespaces by CPU, and where they can be mounted goes by the order.
	cpu_set_t one;
	CPU_ZERO(&one);
	CPU_SET(0, &one);
	sched_setaffinity(0, sizeof one, &one);
	if (unshare(u ? CLONE_NEWUSER | CLONE_NEWNS : CLONE_NEWNS)) {
		P("no namespace: %s", conf_errno(errno));
		return;
	}
	if (u)
		as_root(u, g);
	R(mount(0, "/", 0, MS_REC | MS_PRIVATE, 0));
	// A place with a short name.
	R(mount("top", "/mnt", "tmpfs", 0, 0));
	R(chdir("/mnt"));
	R(mkdir("m", 0755));
	statmounts();
	listmounts();
	trees();
}

int main(void) { P("%s", conf_status(forked(all))); }
