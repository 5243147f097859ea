// mremap, madvise, mlock, mincore, msync, brk, process_vm_readv, pkeys, mseal, protections, memfd: edges and errors.
#include "conf.h"
#include <linux/mman.h>
#include <setjmp.h>
#define PG 4096

static char *fresh(int n) { return mmap(0, n * PG, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }
static sigjmp_buf jmp;
static volatile int fsig, fcode;
static void onfault(int s, siginfo_t *i, void *u) { fsig = s, fcode = i->si_code, siglongjmp(jmp, 1); }
static const char *touch(volatile char *p, int write) {
	static char b[4][32];
	static int k;
	struct sigaction a = {.sa_sigaction = onfault, .sa_flags = SA_SIGINFO | SA_NODEFER};
	sigaction(SIGSEGV, &a, 0), sigaction(SIGBUS, &a, 0);
	if (sigsetjmp(jmp, 1)) {
		char *s = b[k++ & 3];
		sprintf(s, "SIG%s %d", sigabbrev_np(fsig), fcode);
		return s;
	}
	if (write)
		*p = 1;
	else
		(void)*p;
	return "ok";
}

static void remaps(void) {
	char *p = fresh(8), *q;
	memset(p, 7, 8 * PG);
	RN("shrink", mremap(p, 8 * PG, 4 * PG, 0)), P("tail %s", touch(p + 5 * PG, 0)), RN("grow", q = mremap(p, 4 * PG, 8 * PG, MREMAP_MAYMOVE)), P("data %d new %d", q[0], q[5 * PG]), p = q;
	mmap(p + 8 * PG, PG, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	RN("grow in place, blocked", mremap(p, 8 * PG, 9 * PG, 0)), RN("unaligned", mremap(p + 1, PG, PG, 0)), RN("new size 0", mremap(p, PG, 0, 0)), RN("old size 0 of private", mremap(p, 0, PG, MREMAP_MAYMOVE)), RN("flags", mremap(p, PG, PG, 8)), RN("FIXED without MAYMOVE", mremap(p, PG, PG, MREMAP_FIXED, p + 4 * PG)), RN("overlap", mremap(p, 4 * PG, 4 * PG, MREMAP_FIXED | MREMAP_MAYMOVE, p + 2 * PG)), RN("unaligned target", mremap(p, PG, PG, MREMAP_FIXED | MREMAP_MAYMOVE, p + 4 * PG + 1)), RN("huge", mremap(p, PG, 1UL << 47, MREMAP_MAYMOVE)), RN("wrap", mremap(p, PG, -1UL, MREMAP_MAYMOVE)), RN("nothing there", mremap((void *)0x10000, PG, 2 * PG, MREMAP_MAYMOVE)), munmap(p + 3 * PG, PG), RN("over a hole", mremap(p, 8 * PG, 9 * PG, MREMAP_MAYMOVE)), RN("over a hole, same size", mremap(p, 8 * PG, 8 * PG, MREMAP_MAYMOVE)), RN("move", q = mremap(p, PG, PG, MREMAP_FIXED | MREMAP_MAYMOVE, p + 6 * PG)), P("moved %d old %s", q[0], touch(p, 0));
	p = fresh(4), memset(p, 5, 4 * PG), RN("DONTUNMAP", q = mremap(p, 4 * PG, 4 * PG, MREMAP_MAYMOVE | MREMAP_DONTUNMAP)), P("%d %d %s", p[0], q[0], touch(p, 1)), RN("DONTUNMAP of another size", mremap(q, 4 * PG, 2 * PG, MREMAP_MAYMOVE | MREMAP_DONTUNMAP)), RN("DONTUNMAP without MAYMOVE", mremap(q, 4 * PG, 4 * PG, MREMAP_DONTUNMAP));
	p = mmap(0, 2 * PG, 3, MAP_SHARED | MAP_ANONYMOUS, -1, 0), *p = 9, RN("duplicate shared", q = mremap(p, 0, 2 * PG, MREMAP_MAYMOVE)), *q = 8, P("%d", *p);
	int m = memfd_create("x", 0);
	ftruncate(m, 2 * PG), p = mmap(0, 2 * PG, 3, MAP_SHARED, m, 0), RN("grow over the end of file", p = mremap(p, 2 * PG, 4 * PG, MREMAP_MAYMOVE)), P("%s %s", touch(p + PG, 1), touch(p + 3 * PG, 1)), ftruncate(m, 4 * PG), P("%s", touch(p + 3 * PG, 1)), ftruncate(m, 100), P("%s %s", touch(p, 0), touch(p + PG, 0));
}

static void advice(void) {
	char *p = fresh(8), v[8];
	static const int adv[] = {MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_WILLNEED, MADV_DONTNEED, MADV_FREE, MADV_REMOVE, MADV_DONTFORK, MADV_DOFORK, MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_DONTDUMP, MADV_DODUMP, MADV_WIPEONFORK, MADV_KEEPONFORK, MADV_COLD, MADV_PAGEOUT, MADV_POPULATE_READ, MADV_POPULATE_WRITE, MADV_DONTNEED_LOCKED, 5, 6, 7, 99, -1};
	for (int i = 0; i < (int)(sizeof adv / sizeof *adv); i++)
		P("private %d: %s", adv[i], EN(madvise(p, PG, adv[i])));
	int m = memfd_create("x", 0), f = file("f", "hello");
	ftruncate(m, 4 * PG);
	char *s = mmap(0, 4 * PG, 3, MAP_SHARED, m, 0), *r = mmap(0, PG, 1, MAP_PRIVATE, f, 0);
	for (int i = 0; i < (int)(sizeof adv / sizeof *adv); i++)
		P("shared %d: %s, read-only file: %s", adv[i], EN(madvise(s, PG, adv[i])), EN(madvise(r, PG, adv[i])));
	R(madvise(p + 1, PG, MADV_NORMAL)), R(madvise(p, 0, MADV_DONTNEED)), R(madvise(p, 1, MADV_DONTNEED)), R(madvise(p, -1, MADV_DONTNEED)), R(madvise((void *)0x10000, PG, MADV_DONTNEED)), R(madvise((void *)0x10000, 0, MADV_DONTNEED));
	memset(p, 3, 8 * PG), madvise(p, PG, MADV_DONTNEED), P("%d %d", p[0], p[PG]), munmap(p + 2 * PG, PG), R(madvise(p, 8 * PG, MADV_DONTNEED)), P("%d %d", p[PG], p[7 * PG]), R(madvise(p, 8 * PG, MADV_WILLNEED));
	memset(s, 4, 4 * PG), R(madvise(s, PG, MADV_REMOVE)), P("%d %d", s[0], s[PG]), R(madvise(s, PG, MADV_DONTNEED)), P("%d", s[0]);
	p = fresh(2), p[0] = 1, madvise(p, PG, MADV_WIPEONFORK), p[PG] = 1, madvise(p + PG, PG, MADV_DONTFORK);
	P("%s", wait_for(CHILD(P("wiped %d, not there %s", p[0], touch(p + PG, 0)))));
	mprotect(p, PG, 0), R(madvise(p, PG, MADV_POPULATE_READ)), R(madvise(p, PG, MADV_DONTNEED));
	P("guard %s", EN(madvise(p, PG, 102))), mprotect(p, PG, 3), P("guarded %s", touch(p, 0)), P("unguard %s", EN(madvise(p, PG, 103))), P("%s", touch(p, 0));
	H("mincore");
	p = fresh(8), p[0] = p[3 * PG] = 1, R(mincore(p, 8 * PG, v)), P("%d%d%d%d%d", v[0] & 1, v[1] & 1, v[2] & 1, v[3] & 1, v[4] & 1), R(mincore(p + 1, PG, v)), R(mincore(p, 0, v)), R(mincore(p, PG, BAD)), R(mincore((void *)0x10000, PG, v)), R(mincore(p, -1, v)), munmap(p + 2 * PG, PG), R(mincore(p, 4 * PG, v)), R(mincore(p, 1, v));
	H("mlock");
	p = fresh(4), R(mlock(p, PG)), R(mlock(p + 1, PG)), R(mlock(p, 0)), R(mlock(p, -1)), R(mlock((void *)0x10000, PG)), R(munlock(p, 2 * PG)), R(munlock((void *)0x10000, PG)), R(SC(mlock2, p, PG, MLOCK_ONFAULT)), R(SC(mlock2, p, PG, 2)), R(mlockall(0)), R(mlockall(MCL_ONFAULT)), R(mlockall(8)), R(mlockall(MCL_CURRENT | MCL_ONFAULT)), R(munlockall());
	P("madvise of locked: %s", (mlock(p, PG), EN(madvise(p, PG, MADV_DONTNEED))));
	munlockall();
	setresuid(9, 9, 9);
	struct rlimit l = {2 * PG, 2 * PG};
	setrlimit(RLIMIT_MEMLOCK, &l), R(mlock(p, 2 * PG)), R(mlock(p + 2 * PG, PG)), R(mlockall(MCL_CURRENT)), RN("MAP_LOCKED", mmap(0, PG, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0)), l.rlim_cur = l.rlim_max = 0, munlockall(), setrlimit(RLIMIT_MEMLOCK, &l), R(mlock(p, PG)), R(mlockall(MCL_FUTURE)), R(munlock(p, PG));
}

static void misc(void) {
	int f = file("f", "hello"), m = memfd_create("x", 0);
	char *p = fresh(4), *s = mmap(0, PG, 3, MAP_SHARED, f, 0), v[100];
	H("msync");
	R(msync(p, PG, MS_SYNC)), R(msync(s, PG, MS_ASYNC)), R(msync(s, PG, MS_SYNC | MS_ASYNC)), R(msync(s, PG, MS_INVALIDATE)), R(msync(s, PG, 8)), R(msync(s + 1, PG, MS_SYNC)), R(msync(s, 0, MS_SYNC)), R(msync((void *)0x10000, PG, MS_SYNC)), R(msync(s, -1, MS_SYNC)), mlock(s, PG), R(msync(s, PG, MS_INVALIDATE)), munlock(s, PG), munmap(p + PG, PG), R(msync(p, 3 * PG, MS_SYNC)), R(munmap(p + 1, PG)), R(munmap(p, 0)), R(munmap(p, -1)), R(munmap((void *)0x10000, PG)), R(munmap((void *)(1UL << 47), PG)), R(munmap((void *)-PG, PG));
	H("mprotect");
	p = fresh(4), munmap(p + 2 * PG, PG), R(mprotect(p, 4 * PG, 1)), P("%s %s", touch(p, 1), touch(p + 3 * PG, 1)), R(mprotect(p, 0, 1)), R(mprotect(p + 1, PG, 1)), R(mprotect(p, PG, PROT_GROWSDOWN | 3)), R(mprotect(p, PG, PROT_GROWSUP | 3)), R(mprotect(p, PG, PROT_GROWSDOWN | PROT_GROWSUP)), R(mprotect(p, -1, 1)), R(mprotect((void *)0x10000, PG, 1)), R(mprotect(p, PG, 0x10)), R(mprotect(p, PG, 8)), R(SC(pkey_mprotect, p, PG, 3, -1)), R(SC(pkey_mprotect, p, PG, 3, 16)), R(SC(pkey_mprotect, p, PG, 3, 15)), R(SC(pkey_free, 0)), R(SC(pkey_free, 15)), R(SC(pkey_alloc, 1, 0)), R(SC(pkey_alloc, 0, 4));
	H("brk");
	char *b = sbrk(0);
	RN("grow", brk(b + 10 * PG)), b[5 * PG] = 1, RN("shrink", brk(b + PG)), P("%s", touch(b + 5 * PG, 0)), VN("too low", SC(brk, 0) == (long)sbrk(0)), VN("too high", SC(brk, 1UL << 46) == (long)sbrk(0)), VN("wrap", SC(brk, -1L) == (long)sbrk(0)), RN("grow", brk(b + 10 * PG)), P("zeroed %d", b[5 * PG]);
	struct rlimit l = {1 << 20, 1 << 20};
	P("%s", wait_for(CHILD(setrlimit(RLIMIT_DATA, &l); RN("brk over RLIMIT_DATA", brk(b + (8 << 20))); RN("mmap over RLIMIT_DATA", mmap(0, 8 << 20, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)); RN("shared", mmap(0, 8 << 20, 3, MAP_SHARED | MAP_ANONYMOUS, -1, 0)); RN("read-only", mmap(0, 8 << 20, 1, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)))));
	l.rlim_cur = 64 << 20;
	P("%s", wait_for(CHILD(l.rlim_max = l.rlim_cur; setrlimit(RLIMIT_AS, &l); RN("over RLIMIT_AS", mmap(0, 100 << 20, 0, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)); RN("under", mmap(0, 8 << 20, 0, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)); RN("fork", fork() == 0 ? (_exit(0), 0) : 0))));
	H("process_vm");
	char dst[64];
	struct iovec lo = {dst, 5}, re = {"hello", 5}, bad = {BAD, 5}, two[2] = {{"abc", 3}, {BAD, 3}};
	pid_t me = getpid();
	V(process_vm_readv(me, &lo, 1, &re, 1, 0)), V(process_vm_readv(me, &lo, 1, &bad, 1, 0)), V(process_vm_readv(me, &bad, 1, &re, 1, 0)), V(process_vm_readv(me, &lo, 1, two, 2, 0)), V(process_vm_readv(me, &lo, 1, &re, 1, 1)), V(process_vm_readv(99999999, &lo, 1, &re, 1, 0)), V(process_vm_readv(me, &lo, 0, &re, 1, 0)), V(process_vm_readv(me, &lo, 1, &re, 0, 0)), V(process_vm_readv(me, &lo, 1025, &re, 1, 0)), V(process_vm_readv(me, BAD, 1, &re, 1, 0)), V(process_vm_readv(me, &lo, 1, BAD, 1, 0)), V(process_vm_writev(me, &re, 1, &lo, 1, 0)), two[1].iov_base = "de", two[1].iov_len = 2, V(process_vm_readv(me, &lo, 1, two, 2, 0)), P("%.5s", dst), lo.iov_len = 2, V(process_vm_readv(me, &lo, 1, two, 2, 0)), V(process_vm_readv(0, &lo, 1, &re, 1, 0)), lo.iov_len = -1, V(process_vm_readv(me, &lo, 1, &re, 1, 0)), V(process_vm_readv(1, &lo, 1, &re, 1, 0));
	char *g = mmap(0, PG, 3, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t c = CHILD(while (!*(volatile char *)g) sleep_ms(1));
	lo.iov_len = 1, lo.iov_base = "\1", re.iov_base = g, re.iov_len = 1;
	V(process_vm_writev(c, &lo, 1, &re, 1, 0)), P("%s", wait_for(c));
	H("mseal");
	p = fresh(4), V(SC(mseal, p, PG, 0)), V(SC(mseal, p, PG, 0)), V(SC(mseal, p, PG, 1)), V(SC(mseal, p + 1, PG, 0)), V(SC(mseal, p, 0, 0)), V(SC(mseal, 0x10000, PG, 0)), R(munmap(p, 2 * PG)), R(mprotect(p, PG, 1)), RN("mmap over", mmap(p, PG, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)), RN("mremap", mremap(p, PG, 2 * PG, MREMAP_MAYMOVE)), RN("mremap onto", mremap(p + 2 * PG, PG, PG, MREMAP_MAYMOVE | MREMAP_FIXED, p)), R(madvise(p, PG, MADV_DONTNEED)), mprotect(p + PG, PG, 1), SC(mseal, p + PG, PG, 0), R(madvise(p + PG, PG, MADV_DONTNEED)), R(madvise(p + PG, PG, MADV_WILLNEED)), R(munmap(p + 3 * PG, PG)), P("%s", touch(p, 1));
	H("mmap");
	ftruncate(m, 2 * PG);
	RN("hint", mmap((void *)0x700000000000, PG, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == (void *)0x700000000000 ? 0 : 1), RN("low", mmap(0, PG, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)), RN("NOREPLACE", mmap(s, PG, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0)), RN("SHARED_VALIDATE", mmap(0, PG, 3, MAP_SHARED_VALIDATE, m, 0)), RN("SHARED_VALIDATE and SYNC", mmap(0, PG, 3, MAP_SHARED_VALIDATE | MAP_SYNC, m, 0)), RN("no type", mmap(0, PG, 3, MAP_ANONYMOUS, -1, 0)), RN("POPULATE", mmap(0, PG, 3, MAP_PRIVATE | MAP_POPULATE, m, 0)), RN("beyond the end", p = mmap(0, PG, 3, MAP_SHARED, m, 8 * PG)), P("%s", touch(p, 0)), RN("offset wraps", mmap(0, 2 * PG, 3, MAP_SHARED, m, -PG)), RN("HUGETLB", mmap(0, 2 << 20, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0)), RN("DROPPABLE", mmap(0, PG, 3, 8 | MAP_ANONYMOUS, -1, 0)), RN("GROWSDOWN", mmap(0, PG, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN, -1, 0)), RN("null device", mmap(0, PG, 3, MAP_PRIVATE, open("/dev/null", O_RDWR), 0)), RN("zero device", p = mmap(0, PG, 3, MAP_PRIVATE, open("/dev/zero", O_RDWR), 0)), P("%d", *p), RN("shared zero device", p = mmap(0, PG, 3, MAP_SHARED, open("/dev/zero", O_RDWR), 0)), RN("proc", mmap(0, PG, 1, MAP_PRIVATE, open("/proc/self/stat", O_RDONLY), 0));
	int pp[2];
	pipe(pp), RN("pipe", mmap(0, PG, 1, MAP_PRIVATE, pp[0], 0)), RN("exec", p = mmap(0, PG, 7, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)), *p = 0xc3, ((void (*)(void))p)(), P("returned"), R(remap_file_pages(s, PG, 0, 0, 0)), R(remap_file_pages(s, PG, 1, 0, 0));
}

int main(void) { sub(remaps), sub(advice), sub(misc); }
