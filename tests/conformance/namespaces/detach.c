// Names that another mount namespace has mounted on go all the same, and what is mounted there with them; those of the own namespace are busy.
#include <conf.h>
#include <sys/mount.h>

static int ready[2], ask[2];

static void tell(const char *p) {
	struct stat st;
	char b[64] = "";
	int fd = open(p, O_RDONLY), mounts = 0;
	if (fd >= 0 && !fstat(fd, &st) && S_ISREG(st.st_mode)) read(fd, b, 10);
	if (fd >= 0) close(fd);
	FILE *f = fopen("/proc/self/mountinfo", "r");
	char *line = 0; size_t n;
	while (getline(&line, &n, f) > 0) mounts += strstr(line, "/away/") != 0 || strstr(line, " detach-") != 0;
	fclose(f), free(line);
	P("there: %s: %s %s, %d mounts", p, fd < 0 ? conf_errno(errno) : "open", b, mounts);
}

static void there(void) {
	R(unshare(CLONE_NEWNS)), R(mount("", "/", 0, MS_REC | MS_PRIVATE, 0));
	R(mount("detach-a", "d/dir", "tmpfs", 0, 0)), R(mkdir("d/dir/in", 0755)), R(mount("detach-b", "d/dir/in", "tmpfs", 0, 0)), R(mount("detach-c", "d/dir", "tmpfs", 0, 0));
	R(mount("d/other", "d/file", 0, MS_BIND, 0)), R(mount("detach-d", "d/moved", "tmpfs", 0, 0)), R(mount("detach-e", "d/over", "tmpfs", 0, 0)), R(mount("d/other", "d/overfile", 0, MS_BIND, 0)), R(mount("detach-f", "d/x", "tmpfs", 0, 0));
	int inside = open("d/over", O_RDONLY);
	close(openat(inside, "held", O_CREAT | O_WRONLY, 0600));
	write(ready[1], "", 1);
	for (char c; read(ask[0], &c, 1) == 1; write(ready[1], "", 1)) {
		const char *all[] = {"d/dir", "d/dir2", "d/file", "d/moved", "d/moved2", "d/over", "d/overfile", "d/x", "d/y"};
		for (unsigned i = 0; i < sizeof all / sizeof *all; i++) tell(all[i]);
		R(faccessat(inside, "held", F_OK, 0)), R(umount("d/dir")), R(rmdir("d/busy"));
	}
}

static void wait_there(void) { char c; read(ready[0], &c, 1); }

int main(void) {
	R(unshare(CLONE_NEWNS)), R(mount("", "/", 0, MS_REC | MS_PRIVATE, 0)), R(mkdir("away", 0755)), R(mount("away", "away", "tmpfs", 0, 0)), R(chdir("away"));
	const char *dirs[] = {"d", "d/dir", "d/moved", "d/over", "d/from", "d/x", "d/y", "d/busy", 0}, *files[] = {"d/file", "d/other", "d/overfile", "d/fromfile", "d/bound", 0};
	for (int i = 0; dirs[i]; i++) mkdir(dirs[i], 0755);
	for (int i = 0; files[i]; i++) { int fd = open(files[i], O_CREAT | O_WRONLY, 0644); dprintf(fd, "%s\n", files[i]); close(fd); }
	pipe(ready), pipe(ask), fflush(stdout);
	if (!fork()) { close(ask[1]); there(); fflush(stdout), _exit(0); }
	wait_there();
	R(mount("mine", "d/busy", "tmpfs", 0, 0)), R(mount("d/other", "d/bound", 0, MS_BIND, 0));
	R(rmdir("d/busy")), R(rename("d/busy", "d/z")), R(rename("d/from", "d/busy")), R(unlink("d/bound")), R(rename("d/bound", "d/z")), R(rename("d/other", "d/bound")), R(SC(renameat2, AT_FDCWD, "d/busy", AT_FDCWD, "d/y", 2)), R(umount("d/bound")), R(umount("d/busy"));
	R(unlink("d/dir")), R(rmdir("d/file"));
	R(rmdir("d/dir")), R(rmdir("d/dir")), R(mkdir("d/dir", 0755)), R(unlink("d/file")), R(rename("d/moved", "d/moved2")), R(rename("d/from", "d/over")), R(rename("d/fromfile", "d/overfile")), R(SC(renameat2, AT_FDCWD, "d/x", AT_FDCWD, "d/y", 2));
	fflush(stdout), write(ask[1], "", 1), wait_there();
	close(ask[1]), wait(0);
	return 0;
}
