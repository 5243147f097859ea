// What the memory calls answer to good and bad arguments. The output holds no addresses: the host's is the expected one.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define R(x)                                                                                                           \
	do {                                                                                                               \
		errno = 0;                                                                                                     \
		long r_ = (long)(x);                                                                                           \
		printf("%-68s %s\n", #x, r_ == -1 ? strerrorname_np(errno) : "ok");                                            \
	} while (0)
#define V(x) printf("%-68s %ld\n", #x, (long)(x))

static char *fresh(int n) { return mmap(0, n * 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }

int main(void) {
	char *p = fresh(2), *q;
	char name[] = "/tmp/mem_errno.XXXXXX";
	int f = mkstemp(name), r = open(name, O_RDONLY), w = open(name, O_WRONLY), d = open("/", O_RDONLY), o = open(name, O_PATH);
	ftruncate(f, 8192);
	unlink(name);
	R(mmap(0, 4096, 3, MAP_ANONYMOUS, -1, 0));
	R(mmap(0, 4096, 3, MAP_SHARED_VALIDATE | MAP_ANONYMOUS, -1, 0));
	R(mmap(0, 4096, 3, MAP_PRIVATE, -1, 0));
	R(mmap(0, 4096, 3, MAP_PRIVATE, o, 0));
	R(mmap(0, 0, 3, MAP_PRIVATE, -1, 0));
	R(mmap(0, 0, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	R(mmap(0, 0, 3, MAP_PRIVATE, f, 0));
	R(mmap(0, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 1));
	R(mmap(0, -1, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	R(mmap(0, -4096, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	R(mmap(0, 1UL << 47, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	R(mmap(0, 4096, 1, MAP_PRIVATE, f, -4096));
	R(mmap(0, 4096, 3, MAP_SHARED, r, 0));
	R(mmap(0, 4096, 1, MAP_SHARED, r, 0));
	R(mmap(0, 4096, 3, MAP_PRIVATE, r, 0));
	R(mmap(0, 4096, 1, MAP_PRIVATE, w, 0));
	R(mmap(0, 4096, 2, MAP_SHARED, w, 0));
	R(mmap(0, 4096, 1, MAP_PRIVATE, d, 0));
	R(mmap(0, 4096, 1, MAP_PRIVATE | MAP_GROWSDOWN, r, 0));
	R(mmap(p + 1, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	R(mmap(p, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));
	R(mmap((void *)-8192, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	R(mmap(p, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	R(mmap(0, 4096, 7, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0));
	q = mmap(0, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	V(q != MAP_FAILED && (unsigned long)q < 1UL << 31);
	// Where a hint is taken: below 2 GiB with MAP_32BIT, and not where something is.
	for (int i = 0; i < 2; i++) {
		int fl = MAP_PRIVATE | MAP_ANONYMOUS | (i ? MAP_32BIT : 0);
		static unsigned long at[] = {1, 4096, 0x10000, 0x20000000, 0x50000000, 0x50000800, 0x60000000, 0x7000000000, -4096UL, -1UL << 40};
		for (int j = 0; j < 10; j++) {
			unsigned long a = (unsigned long)mmap((void *)at[j], 8192, 3, fl, -1, 0);
			printf("hint %lx%s: %s\n", at[j], i ? " 32BIT" : "", a == (at[j] & -4096) ? "taken" : a == 0x10000 ? "raised" : a < 1UL << 31 ? "low" : "elsewhere");
			if (a != 0x60000000)
				munmap((void *)a, 8192);
		}
	}

	q = mmap(0, 4096, 1, MAP_SHARED, r, 0);
	R(mprotect(q, 4096, 3));
	R(mprotect(p, 4096, 0x100));
	R(mprotect(p, 4096, 8));
	R(mprotect(p, 0, 3));
	R(mprotect(p + 1, 4096, 3));
	R(mprotect(p, 4096, PROT_GROWSDOWN | 1));
	R(mprotect(p, 4096, PROT_GROWSDOWN | PROT_GROWSUP));
	p = fresh(3);
	munmap(p + 4096, 4096);
	R(mprotect(p, 3 * 4096, 1));
	R(mprotect(p, -4096, 1));
	R(pkey_mprotect(p, 4096, 3, -1));

	p = fresh(3);
	R(munmap(p, 0));
	R(munmap(p + 1, 4096));
	R(munmap((void *)-4096, 4096));
	R(munmap(0, -1));
	R(munmap(p + 4096, 4096));
	R(munmap(p + 4096, 4096));
	int advice[] = {0, 1, 2, 3, 4, 8, 10, 11, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 99};
	for (int i = 0; i < sizeof advice / sizeof *advice; i++) {
		char *a = fresh(1);
		errno = 0;
		madvise(a, 4096, advice[i]);
		printf("madvise %d: %s,", advice[i], strerrorname_np(errno) ?: "ok");
		errno = 0;
		madvise(p, 3 * 4096, advice[i]);
		printf(" over a hole: %s,", strerrorname_np(errno) ?: "ok");
		q = mmap(0, 4096, 3, MAP_SHARED, f, 0);
		errno = 0;
		madvise(q, 4096, advice[i]);
		printf(" file: %s\n", strerrorname_np(errno) ?: "ok");
	}
	R(madvise(p + 1, 4096, MADV_NORMAL));
	R(madvise(p, 0, MADV_NORMAL));
	R(madvise(p, 0, 99));
	R(madvise(p, -4096, MADV_NORMAL));

	unsigned char v[8];
	R(mincore(p, 4096, v));
	R(mincore(p, 3 * 4096, v));
	R(mincore(p + 1, 4096, v));
	R(mincore(p, 4096, 0));
	R(mincore((void *)-4096, 4096, v));
	R(mincore(p, 1UL << 60, v));
	R(mincore(p, 0, v));
	*p = 1;
	mincore(p, 4096, v);
	V(v[0] & 1);

	R(msync(p, 4096, 0));
	R(msync(p, 4096, 8));
	R(msync(p, 4096, MS_SYNC | MS_ASYNC));
	R(msync(p, 0, MS_SYNC));
	R(msync(p, -1, MS_SYNC));
	R(msync(p + 1, 1, MS_SYNC));
	R(msync(p, 3 * 4096, MS_SYNC));
	R(msync(q, 4096, MS_SYNC));

	struct rlimit rl = {64 << 10, 64 << 10};
	setrlimit(RLIMIT_MEMLOCK, &rl);
	if (geteuid() == 0)
		puts("(root may lock anything)");
	q = fresh(4);
	R(syscall(SYS_mlock2, q, 4096, 2));
	R(syscall(SYS_mlock2, q, 4096, 1));
	R(mlock(q + 5, 4096));
	R(madvise(q, 4096, MADV_DONTNEED));
	R(msync(q, 4096, MS_INVALIDATE));
	R(mlock(p, 3 * 4096));
	R(mlock(q, -1));
	R(mlock(0, 4096));
	R(munlock(q, 4096));
	R(munlock(0, 0));
	R(mlockall(0));
	R(mlockall(8));
	R(mlockall(4));
	R(munlockall());

	p = fresh(8);
	R(mremap(p, 4096, 4096, 8));
	R(mremap(p, 4096, 0, 0));
	R(mremap(p + 1, 4096, 4096, 0));
	R(mremap((void *)4096, 4096, 8192, 1));
	R(mremap(p, 9 * 4096, 10 * 4096, 1));
	R(mremap(p, 0, 4096, 1));
	R(mremap(p, 4096, 4096, 2, p));
	R(mremap(p, 4096, 4096, 3, p));
	R(mremap(p, 4096, 4096, 4, 0));
	R(mremap(p, 4096, 8192, 5, 0));
	R(mremap(p, 4096, -1, 1));
	R(mremap(p, 4096, 4096, 3, -4096));
	R(mremap(p, 4096, 4096, 3, p + 1));
	R(mremap(p, 8192, 4096, 0));
	R(mremap(p + 8192, 4096, 8192, 0));
	q = fresh(1);
	R(mremap(p + 3 * 4096, 4096, 4096, 3, q));
	R(mremap(p + 4 * 4096, 4096, 4096, 5, 0));

	R(syscall(SYS_memfd_create, 0, 0));
	R(syscall(SYS_memfd_create, "x", 0x8000));
	char big[300];
	memset(big, 'a', 299);
	for (int i = 248; i < 252; i++) {
		big[i] = 0;
		errno = 0;
		printf("memfd name of %d: %s\n", i, syscall(SYS_memfd_create, big, 0) < 0 ? strerrorname_np(errno) : "ok");
		big[i] = 'a';
	}
	int m = memfd_create("x", MFD_ALLOW_SEALING);
	R(ftruncate(m, 8192));
	q = mmap(0, 8192, 3, MAP_SHARED, m, 0);
	R(fcntl(m, F_ADD_SEALS, F_SEAL_WRITE));
	munmap(q, 8192);
	R(fcntl(m, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW));
	R(write(m, "x", 1));
	R(ftruncate(m, 4096));
	R(ftruncate(m, 16384));
	R(mmap(0, 8192, 3, MAP_SHARED, m, 0));
	R(mmap(0, 8192, 1, MAP_SHARED, m, 0));
	R(mmap(0, 8192, 3, MAP_PRIVATE, m, 0));
	V(fcntl(m, F_GET_SEALS));
	R(fcntl(m, F_ADD_SEALS, F_SEAL_SEAL));
	R(fcntl(m, F_ADD_SEALS, F_SEAL_GROW));
	R(fcntl(memfd_create("y", 0), F_ADD_SEALS, F_SEAL_GROW));

	struct iovec l = {v, 4}, rm = {p, 4}, bad = {(void *)8, 4};
	V(syscall(SYS_process_vm_readv, getpid(), &l, 1, &rm, 1, 0));
	R(syscall(SYS_process_vm_readv, getpid(), &l, 1, &bad, 1, 0));
	R(syscall(SYS_process_vm_readv, getpid(), &bad, 1, &rm, 1, 0));
	R(syscall(SYS_process_vm_readv, 0x3fffff, &l, 1, &rm, 1, 0));
	R(syscall(SYS_process_vm_readv, getpid(), &l, 1, &rm, 1, 1));
	R(syscall(SYS_process_vm_readv, getpid(), &l, 2000, &rm, 1, 0));

	getrlimit(RLIMIT_AS, &rl);
	rl.rlim_cur = 1 << 30;
	setrlimit(RLIMIT_AS, &rl);
	R(mmap(0, 2UL << 30, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	R(mmap(0, 2UL << 30, 0, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
	R(mmap(0, 1UL << 20, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	return 0;
}
