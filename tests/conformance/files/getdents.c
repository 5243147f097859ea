// getdents, offsets of directories, directories that change while they are read.
#include "conf.h"
#include <dirent.h>
struct d64 { uint64_t ino, off; unsigned short len; unsigned char type; char name[]; };

static int count(int fd, int size) {
	static char b[65536];
	int n = 0, r;
	while ((r = SC(getdents64, fd, b, size)) > 0)
		for (int i = 0; i < r; i += ((struct d64 *)(b + i))->len)
			n++;
	return r < 0 ? -errno : n;
}

int main(void) {
	char b[4096], n[300];
	int d = open(".", O_RDONLY | O_DIRECTORY), f = file("f", ""), o = open(".", O_PATH);
	V(count(d, 4096)), V(SC(getdents64, d, b, 4096)), lseek(d, 0, 0), V(SC(getdents64, d, b, 0)), V(SC(getdents64, d, b, 10)), V(SC(getdents64, d, b, 23)), V(SC(getdents64, d, b, 24)), V(SC(getdents64, d, BAD, 4096)), V(SC(getdents64, f, b, 4096)), V(SC(getdents64, o, b, 4096)), V(SC(getdents64, -1, b, 4096)), V(SC(getdents, -1, b, 4096)), V(SC(getdents, f, b, 4096)), lseek(d, 0, 0), V(SC(getdents, d, b, 4096)), V(SC(getdents, d, b, 4096)), lseek(d, 0, 0), V(SC(getdents, d, b, 1)), V(SC(getdents64, d, b, -1));
	for (int i = 0; i < 1000; i++)
		sprintf(n, "name%d", i), close(open(n, O_CREAT, 0600));
	static const int sizes[] = {32, 64, 100, 1024, 65536};
	for (int i = 0; i < 5; i++)
		lseek(d, 0, 0), VN("count", count(d, sizes[i]));
	lseek(d, 0, 0);
	DIR *D = opendir(".");
	int k = 0, again = 0;
	long at = 0;
	char third[300] = "";
	for (struct dirent *e; (e = readdir(D)); k++) {
		if (k == 500)
			at = telldir(D);
		if (k == 501)
			strcpy(third, e->d_name);
	}
	VN("entries", k), seekdir(D, at);
	struct dirent *e = readdir(D);
	P("seekdir finds it again: %d", e && !strcmp(e->d_name, third)), rewinddir(D), k = 0;
	while ((e = readdir(D)))
		if (e->d_name[0] == 'n')
			unlink(e->d_name), k++;
	VN("removed while read", k), rewinddir(D), k = 0;
	while ((e = readdir(D)))
		k++;
	VN("left", k);
	rewinddir(D), e = readdir(D), P("first %s type %d", e->d_name, e->d_type), e = readdir(D), P("second %s type %d", e->d_name, e->d_type);
	V(lseek(d, 0, SEEK_END) >= 0), V(lseek(d, -1, SEEK_SET)), V(lseek(d, 5, SEEK_SET)), V(read(d, b, 1)), V(mmap(0, 4096, 1, MAP_PRIVATE, d, 0) != MAP_FAILED);
	mkdir("gone", 0755);
	int g = open("gone", O_RDONLY);
	rmdir("gone"), V(SC(getdents64, g, b, 4096));
	int p = open("/proc/self/fd", O_RDONLY);
	V(count(p, 4096) > 4), p = open("/proc", O_RDONLY), V(count(p, 4096) > 20), p = open("/dev", O_RDONLY), V(count(p, 100) > 10);
	symlink("x", "sl"), mkfifo("ff", 0600), mkdir("dd", 0755), mkdir("dd/x", 0755);
	D = opendir(".");
	int t[20] = {};
	while ((e = readdir(D)))
		t[e->d_type & 15]++;
	P("types: dirs %d links %d fifos %d files %d", t[DT_DIR], t[DT_LNK], t[DT_FIFO], t[DT_REG]);
	char order[2][20][16] = {}, path_[16];
	for (int i = 0; i < 20; i++) {
		sprintf(path_, "order%d", i), close(open(path_, O_CREAT | O_WRONLY, 0600));
	}
	int same = 0;
	for (int round = 0; round < 10; round++) {
		int j = 0;
		for (rewinddir(D); (e = readdir(D));)
			if (!strncmp(e->d_name, "order", 5) && j < 20)
				strcpy(order[round > 0][j++], e->d_name);
		same += !round || !memcmp(order[0], order[1], sizeof order[0]);
	}
	VN("the same order each time", same);
	struct stat s, u;
	rewinddir(D);
	while ((e = readdir(D)))
		if (!strcmp(e->d_name, "f"))
			fstat(f, &s), P("inode: %d", s.st_ino == e->d_ino);
		else if (!strcmp(e->d_name, "."))
			stat(".", &u), P("inode of .: %d", u.st_ino == e->d_ino);
}
