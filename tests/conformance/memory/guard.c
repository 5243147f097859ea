// MADV_GUARD_INSTALL at the lower end of a mapping that grows downwards: it grows below the guard, which stays where it is.
#include "conf.h"

static char *place;

static const char *touch(char *p) {
	fflush(stdout);
	pid_t c = fork();
	if (!c) {
		*(volatile char *)p = 1;
		_exit(0);
	}
	int st;
	waitpid(c, &st, 0);
	return conf_status(st);
}

static char *map(int page, int n, int flags) {
	return mmap(place + page * 4096, n * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | flags, -1, 0);
}

int main(void) {
	int page = 4096;
	place = mmap(0, 600 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	munmap(place, 600 * page);
	char *m = map(400, 8, MAP_GROWSDOWN);
	R(madvise(m, page, 102));
	P("guard: %s", touch(m));
	P("behind it: %s", touch(m + page));
	P("below: %s", touch(m - page));
	P("far below: %s", touch(m - 20 * page));
	*(volatile char *)(m - page) = 1;
	*(volatile char *)(m - 3 * page) = 1;
	P("grown, guard: %s", touch(m));
	P("grown, behind it: %s", touch(m + page));
	R(mprotect(m - 3 * page, 11 * page, PROT_READ));
	P("read-only: %s", touch(m - page));
	R(mprotect(m - 3 * page, 11 * page, PROT_READ | PROT_WRITE));
	R(madvise(m, page, 103));
	P("without it: %s", touch(m));
	R(madvise(m - 3 * page, 3 * page, 102));
	P("guards: %s", touch(m - 2 * page));
	P("below them: %s", touch(m - 4 * page));
	R(munmap(m - 3 * page, 11 * page));
}
