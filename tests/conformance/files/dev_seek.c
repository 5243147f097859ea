// Positions of memory devices: there is none, whatever is asked. And the last positions of a file.
#include "conf.h"

int main(void) {
	const char *names[] = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"};
	for (int i = 0; i < 5; i++) {
		int fd = open(names[i], O_RDWR);
		char b[16] = "x";
		H("%s", names[i]);
		V(lseek(fd, 5, SEEK_SET));
		V(lseek(fd, -5, SEEK_SET));
		V(lseek(fd, LONG_MIN, SEEK_END));
		V(lseek(fd, LONG_MAX, SEEK_CUR));
		V(lseek(fd, 3, SEEK_DATA));
		V(lseek(fd, 3, SEEK_HOLE));
		V(lseek(fd, 0, 5));
		V(lseek(fd, 0, -1));
		V(read(fd, b, 16));
		V(lseek(fd, 0, SEEK_CUR));
		V(pread(fd, b, 16, 1L << 40));
		V(pread(fd, b, 16, -1));
		V(pwrite(fd, b, 16, 7));
		V(pwrite(fd, b, 16, LONG_MAX));
		V(ftruncate(fd, 0));
		char name[64];
		snprintf(name, sizeof name, "/proc/self/fdinfo/%d", fd);
		P("pos: %d", !strncmp(slurp(name), "pos:\t0\n", 7));
		close(fd);
	}
	H("a file");
	int fd = file("f", "text");
	char b[16] = "x";
	V(pread(fd, b, 16, LONG_MAX));
	V(pread(fd, b, 16, LONG_MAX - 16));
	V(pread(fd, b, 16, LONG_MAX - 15));
	V(pwrite(fd, b, 16, LONG_MAX));
	V(pwrite(fd, b, 0, LONG_MAX));
	V(pwrite(fd, b, 16, LONG_MAX - 15));
	V(pwrite(fd, b, 16, -1));
}
