// Ranges that end nowhere, and what mremap(2) checks first (found by the fuzzer: the first of them ended the sandbox).
#include "conf.h"
#include <sys/prctl.h>

int main(void) {
	char *p = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(p, 1, 1 << 20);
	H("old lengths without an end");
	R(mremap(p, -4096L, 16384, MREMAP_MAYMOVE));
	R(mremap(p + 8192, -4096L, 16384, 0));
	R(mremap(p + 8192, -1L - (long)p, 16384, MREMAP_MAYMOVE));
	R(mremap(p + 8192, 1L << 50, 16384, MREMAP_MAYMOVE));
	R(mremap(p + 8192, 1L << 50, 1L << 51, MREMAP_MAYMOVE));
	R(mremap(p + 8192, -1L, 4096, MREMAP_MAYMOVE));
	R(munmap(p + 4096, -4096L));
	R(SC(mlock, p + 4096, -4096L));
	R(SC(munlock, p + 4096, -4096L));
	R(SC(madvise, p + 4096, -4096L, MADV_DONTNEED));
	R(SC(mprotect, p + 4096, -4096L, PROT_READ));
	R(SC(msync, p + 4096, -4096L, MS_SYNC));
	H("the pages are what they were");
	for (int i = 0; i < 1 << 20; i += 4096)
		if (p[i] != 1)
			P("%d: %d", i, p[i]);
	H("MREMAP_DONTUNMAP");
	R(mremap(p, 16384, 16384, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, p));
	R(mremap(p, 16384, 16384, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, p + 4096));
	R(mremap((void *)0x7000000000, 16384, 16384, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, (void *)0x7000000000));
	R(mremap((void *)0x7000000000, 1, 4096, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, p));
	R(mremap((void *)0x7000000000, 1, 8192, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, p));
	H("a new address that is not asked for is no hint");
	munmap(p + 8192, 4096);
	char *q = mremap(p + 4096, 4096, 65536, MREMAP_MAYMOVE, (void *)0x7000000000);
	P("moved %d, to the address %d", q != MAP_FAILED && q != p + 4096, q == (void *)0x7000000000);
	H("the place of a mapping comes before what is mapped");
	int z[2];
	pipe(z);
	R(mmap(p, 4096, PROT_READ, MAP_PRIVATE | MAP_FIXED_NOREPLACE, z[0], 0));
	R(mmap(p, 4096, PROT_READ, MAP_SHARED | MAP_FIXED_NOREPLACE, z[1], 0));
	R(mmap(p, -4096L, PROT_READ, MAP_PRIVATE, z[0], 0));
	R(mmap(p, -1L, PROT_READ, MAP_SHARED, z[0], 0));
	R(mmap(p, -4096L, PROT_READ, MAP_SHARED, z[0], 8192));
	R(mmap(p, -4096L, PROT_READ, MAP_SHARED_VALIDATE | MAP_ANONYMOUS, -1, 0));
	R(mmap(p + 1, 4096, PROT_READ, MAP_SHARED_VALIDATE | MAP_SYNC | MAP_FIXED, z[0], 0));
	R(mmap(p, 0, PROT_READ, MAP_SHARED, z[0], 0));
	char *w = mmap(0, 8192, PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	R(madvise(w, 8192, 22));
	R(madvise(w, 8192, 23));
	return 0;
}
