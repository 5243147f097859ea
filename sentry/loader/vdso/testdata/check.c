// Maps a vvar page and a vDSO from descriptor 3, looks its functions up as musl does, and compares their answers with the host's.
#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static void *find(char *base, const char *vername, const char *name) {
	Elf64_Ehdr *eh = (void *)base;
	Elf64_Phdr *ph = (void *)(base + eh->e_phoff);
	Elf64_Dyn *dyn = 0;
	for (int i = 0; i < eh->e_phnum; i++)
		if (ph[i].p_type == PT_DYNAMIC) dyn = (void *)(base + ph[i].p_offset);
	char *strings = 0;
	Elf64_Sym *syms = 0;
	Elf32_Word *hash = 0;
	Elf64_Half *versym = 0;
	Elf64_Verdef *verdef = 0;
	for (int i = 0; dyn[i].d_tag; i++) {
		void *p = base + dyn[i].d_un.d_ptr;
		switch (dyn[i].d_tag) {
		case DT_STRTAB: strings = p; break;
		case DT_SYMTAB: syms = p; break;
		case DT_HASH: hash = p; break;
		case DT_VERSYM: versym = p; break;
		case DT_VERDEF: verdef = p; break;
		}
	}
	if (!strings || !syms || !hash || !versym || !verdef) return 0;
	for (unsigned i = hash[2 + 0]; i; i = hash[3 + i]) {
		if (strcmp(name, strings + syms[i].st_name) || !syms[i].st_shndx) continue;
		Elf64_Verdef *d = verdef;
		while ((d->vd_ndx & 0x7fff) != versym[i]) {
			if (!d->vd_next) return 0;
			d = (void *)((char *)d + d->vd_next);
		}
		Elf64_Verdaux *aux = (void *)((char *)d + d->vd_aux);
		if (strcmp(vername, strings + aux->vda_name)) return 0;
		return base + syms[i].st_value;
	}
	return 0;
}

static long long ns(struct timespec t) { return t.tv_sec * 1000000000LL + t.tv_nsec; }

int main(int argc, char **argv) {
	char *p = mmap(0, 8192, PROT_READ | PROT_EXEC, MAP_SHARED, 3, atol(argv[1]));
	if (p == MAP_FAILED) return 1;
	char *v = p + 4096;
	int (*gettime)(clockid_t, struct timespec *) = find(v, "LINUX_2.6", "__vdso_clock_gettime");
	int (*getres)(clockid_t, struct timespec *) = find(v, "LINUX_2.6", "__vdso_clock_getres");
	int (*tod)(struct timeval *, void *) = find(v, "LINUX_2.6", "__vdso_gettimeofday");
	time_t (*tim)(time_t *) = find(v, "LINUX_2.6", "time");
	int (*cpu)(unsigned *, unsigned *, void *) = find(v, "LINUX_2.6", "__vdso_getcpu");
	if (!gettime || !getres || !tod || !tim || !cpu) { puts("missing function"); return 1; }
	printf("tsc in use: %d\n", ((int *)p)[1]);
	int ids[] = {0, 1, 7, 5, 6, 4, 2};
	long long last = 0;
	for (int round = 0; round < 1000; round++)
		for (int i = 0; i < 7; i++) {
			struct timespec a, t, b;
			syscall(SYS_clock_gettime, ids[i], &a);
			if (gettime(ids[i], &t)) { printf("clock %d fails\n", ids[i]); return 1; }
			syscall(SYS_clock_gettime, ids[i], &b);
			long long slack = ids[i] == 5 || ids[i] == 6 ? 20000000 : 20000;
			if (ns(t) < ns(a) - slack || ns(t) > ns(b) + slack) {
				printf("clock %d: %lld not in [%lld, %lld]\n", ids[i], ns(t), ns(a), ns(b));
				return 1;
			}
			if (ids[i] == 1) {
				if (ns(t) < last) { puts("went back"); return 1; }
				last = ns(t);
			}
		}
	struct timespec t;
	if (gettime(99, &t) != -22) { puts("bad clock accepted"); return 1; }
	struct timeval tv;
	struct timezone tz = {5, 5};
	tod(&tv, &tz);
	gettime(0, &t);
	if (llabs(t.tv_sec * 1000000LL + t.tv_nsec / 1000 - tv.tv_sec * 1000000LL - tv.tv_usec) > 1000 || tz.tz_minuteswest) { puts("gettimeofday"); return 1; }
	time_t s;
	if (llabs(tim(&s) - t.tv_sec) > 1 || llabs(tim(0) - s) > 1) { puts("time"); return 1; }
	unsigned c = 99, n = 99;
	if (cpu(&c, &n, 0) || c > 4096 || n) { puts("getcpu"); return 1; }
	if (getres(1, &t) || t.tv_nsec != 1 || getres(0, 0) || getres(99, &t) != -22) { puts("clock_getres"); return 1; }
	struct timespec b0, b1;
	syscall(SYS_clock_gettime, 1, &b0);
	for (int i = 0; i < 1000000; i++) gettime(1, &t);
	syscall(SYS_clock_gettime, 1, &b1);
	printf("%.1f ns a call\n", (ns(b1) - ns(b0)) / 1e6);
	return 0;
}
