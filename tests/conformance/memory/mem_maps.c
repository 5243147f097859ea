// How mappings are split and joined, as /proc/self/maps shows: offsets from the start of a region, permissions, offset in the file, name.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { P = 4096, N = 64 };
static char *base;

static void show(const char *what) {
	char line[512], perms[8], name[256];
	unsigned long s, e, off;
	FILE *f = fopen("/proc/self/maps", "r");
	printf("%s:", what);
	while (fgets(line, sizeof line, f)) {
		*name = 0;
		if (sscanf(line, "%lx-%lx %7s %lx %*s %*s %255[^\n]", &s, &e, perms, &off, name) < 4) continue;
		if (e <= (unsigned long)base || s >= (unsigned long)base + N * P) continue;
		char *slash = strrchr(name, '/');
		printf(" %ld-%ld%s", (long)(s - (unsigned long)base) / P, (long)(e - (unsigned long)base) / P, perms);
		if (strstr(line, "mm_maps")) printf("@%ld", off / P);
		if (*name == '[' || strstr(name, "zero")) printf("%s", slash ? slash : name);
	}
	fclose(f);
	puts("");
}

static void *at(int page, int n, int prot, int flags, int fd, long off) {
	return mmap(base + page * P, n * P, prot, flags | MAP_FIXED, fd, off * P);
}

int main(void) {
	char name[] = "/tmp/mm_maps.XXXXXX";
	int f = mkstemp(name);
	ftruncate(f, N * P);
	base = mmap(0, (N + 2) * P, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	munmap(base, (N + 2) * P);
	base += P;
	enum { A = MAP_PRIVATE | MAP_ANONYMOUS };
	at(0, 8, 3, A, -1, 0);
	show("one");
	at(8, 8, 3, A, -1, 0);
	show("joined behind");
	at(20, 4, 3, A, -1, 0);
	at(16, 4, 3, A, -1, 0);
	show("joined between");
	mprotect(base + 4 * P, 4 * P, 1);
	show("split in three");
	mprotect(base + 4 * P, 4 * P, 3);
	show("joined again");
	mprotect(base + 2 * P, 2 * P, 1);
	mprotect(base + 4 * P, 2 * P, 1);
	show("neighbours joined");
	mprotect(base, 24 * P, 0);
	show("all of it");
	munmap(base + 3 * P, 2 * P);
	show("hole");
	at(3, 2, 0, A, -1, 0);
	show("filled");
	madvise(base + 5 * P, P, MADV_DONTFORK);
	show("dontfork");
	madvise(base + 5 * P, P, MADV_DOFORK);
	show("dofork");
	madvise(base + 5 * P, P, MADV_RANDOM);
	madvise(base + 7 * P, P, MADV_NOHUGEPAGE);
	show("advice");
	madvise(base, 24 * P, MADV_NORMAL);
	at(0, 24, 3, A, -1, 0);
	show("replaced");
	at(0, 4, 3, A | MAP_NORESERVE, -1, 0);
	show("noreserve");
	mlock(base + 10 * P, P);
	show("locked");
	munlock(base + 10 * P, P);
	show("unlocked");
	munmap(base, N * P);

	at(0, 4, 1, MAP_PRIVATE, f, 0);
	at(4, 4, 1, MAP_PRIVATE, f, 4);
	show("file, in order");
	at(8, 4, 1, MAP_PRIVATE, f, 9);
	show("file, not in order");
	at(12, 4, 1, MAP_SHARED, f, 13);
	show("file, shared");
	mprotect(base + 2 * P, P, 3);
	show("file, split");
	mprotect(base + 2 * P, P, 1);
	show("file, joined");
	mremap(base + 4 * P, 2 * P, 2 * P, MREMAP_MAYMOVE | MREMAP_FIXED, base + 30 * P);
	show("file, moved");
	mremap(base + 30 * P, 2 * P, 2 * P, MREMAP_MAYMOVE | MREMAP_FIXED, base + 4 * P);
	show("file, moved back");
	munmap(base, N * P);

	at(0, 4, 3, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	at(4, 4, 3, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	show("shared anonymous");
	munmap(base + P, P);
	show("with a hole");
	munmap(base, N * P);

	at(0, 8, 3, A, -1, 0);
	mremap(base, 8 * P, 12 * P, 0);
	show("grown in place");
	mremap(base, 12 * P, 3 * P, 0);
	show("shrunk");
	at(10, 4, 3, A, -1, 0);
	mremap(base + 10 * P, 4 * P, 4 * P, MREMAP_MAYMOVE | MREMAP_FIXED, base + 3 * P);
	show("moved beside");
	mremap(base, P, P, MREMAP_MAYMOVE | MREMAP_DONTUNMAP);
	show("dontunmap");
	unlink(name);
	return 0;
}
