// munmap of ranges that are mostly empty, up to all of the address space: what can be unmapped is, whatever lies around.
#include "conf.h"

#define TASK_SIZE ((1UL << 47) - 4096)

static void ranges(void) {
	char *p = mmap((void *)0x10000000, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	*p = 1;
	VN("low", munmap(0, 0x7f000000));
	VN("msync of what was there", msync(p, 4096, MS_ASYNC));
	VN("page 0", munmap(0, 4096));
	VN("below mmap_min_addr", munmap((void *)4096, 4096 * 8));
	VN("last page", munmap((void *)(TASK_SIZE - 4096), 4096));
	VN("past the end", munmap((void *)(TASK_SIZE - 4096), 8192));
	VN("beyond the end", munmap((void *)TASK_SIZE, 4096));
	VN("more than all", munmap(0, TASK_SIZE + 4096));
	VN("above the stack", munmap((void *)(((unsigned long)&p + (64UL << 30)) & ~4095UL), 1UL << 30));
	VN("mprotect of page 0", mprotect(0, 4096, 1));
	VN("mprotect of all", mprotect(0, TASK_SIZE, 1));
	VN("madvise of page 0", madvise(0, 4096, MADV_DONTNEED));
	VN("mremap of page 0", mremap(0, 4096, 8192, MREMAP_MAYMOVE));
}

static void all(void) { munmap(0, TASK_SIZE); }

static void halves(void) {
	unsigned long here = (unsigned long)halves & ~0xfffffUL;
	P("below the program: %s", EN(munmap(0, here - (1UL << 32))));
	munmap((void *)(here + (1UL << 32)), TASK_SIZE - here - (1UL << 32)); // libc and the stack go
}

int main(void) {
	sub(ranges);
	sub(all);
	sub(halves);
}
