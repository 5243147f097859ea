// What a program reads of code that it maps for execution and has not run: a translator's client.
#include "conf.h"
#include <string.h>

int main(void)
{
	static const char *libs[] = {"/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"};
	for (int i = 0; i < 20; i++) { // until the C library's calls are well known
		pid_t pid = fork();
		if (pid == 0) {
			execl("/bin/sh", "sh", "-c", "cd /; : < /dev/null; echo > /dev/null", NULL);
			_exit(1);
		}
		waitpid(pid, NULL, 0);
	}
	for (int i = 0; i < 2; i++) {
		int fd = open(libs[i], O_RDONLY);
		struct stat st;
		fstat(fd, &st);
		char *code = mmap(0, st.st_size, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
		char *file = mmap(0, st.st_size, PROT_READ, MAP_SHARED, fd, 0);
		V(code != MAP_FAILED && file != MAP_FAILED && memcmp(code, file, st.st_size) == 0);
	}
}
