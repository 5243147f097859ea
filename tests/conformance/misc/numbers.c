// Numbers written to files of /proc, as C strings: white space, bases, signs, a NUL within, too large ones, too many of them.
// users: root
#include "conf.h"

static void numbers(const char *path) {
	static const struct {
		const char *s;
		int n;
	} in[] = {
#define S(s) {s, sizeof s - 1}
		S("3"), S("5\0"), S("6\0junk"), S(" 7 "), S("0b1"), S("0o7"), S("1_0"), S("010"), S("+8"), S("9\n"), S("9\n\n"), S("0x0a"), S("0X0B\t"), S("0x"), S("\0"), S("\n"), S("0"), S("3x"), S("\v4"), S("99999999999999999999999"), S("12,"), S("2")};
	H("%s", path);
	for (unsigned i = 0; i < sizeof in / sizeof *in; i++) {
		char b[64] = {0}, shown[64] = {0};
		int f = open(path, O_RDWR);
		long w = E(write(f, in[i].s, in[i].n));
		lseek(f, 0, SEEK_SET);
		if (read(f, b, sizeof b - 1) > 0)
			b[strcspn(b, "\n")] = 0;
		for (int j = 0, k = 0; j < in[i].n; j++)
			k += in[i].s[j] > ' ' ? sprintf(shown + k, "%c", in[i].s[j]) : sprintf(shown + k, "\\%o", in[i].s[j]);
		P("%s: %s, then %s", shown, w < 0 ? conf_errno(-w) : "ok", b);
		close(f);
	}
}

static void text(const char *path, const char *s, int n) {
	char b[64] = {0};
	int f = open(path, O_RDWR);
	long w = E(write(f, s, n));
	lseek(f, 0, SEEK_SET);
	read(f, b, sizeof b - 1);
	P("%s, %d bytes: %s, then %s", path, n, w == n ? "all" : w < 0 ? conf_errno(-w) : "some", b);
	close(f);
}

int main(void) {
	unshare(CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET);
	numbers("/proc/self/oom_score_adj");
	numbers("/proc/self/timerslack_ns");
	numbers("/proc/sys/kernel/msgmni");
	numbers("/proc/sys/kernel/shmmax");
	numbers("/proc/sys/net/ipv4/ip_forward");
	H("text, and more than one number");
	text("/proc/self/comm", "abc\0def", 7), text("/proc/sys/kernel/hostname", "h\0x", 3), text("/proc/sys/kernel/hostname", "h2\nx", 4), text("/proc/sys/kernel/hostname", " h3", 3);
	text("/proc/sys/kernel/shmmax", "18446744073692774399\n", 21), text("/proc/sys/kernel/shmall", "18446744073709551615", 20);
	text("/proc/sys/net/ipv4/ping_group_range", "3 4\n", 4), text("/proc/sys/net/ipv4/ping_group_range", "\t5\n6\n", 5), text("/proc/sys/net/ipv4/ip_local_port_range", "4000 5000\n", 10);
	// As they were: in moat they are the whole sandbox's, in which other programs run too.
	text("/proc/sys/net/ipv4/ping_group_range", "0 2147483647", 12), text("/proc/sys/net/ipv4/ip_local_port_range", "32768 60999", 11), text("/proc/sys/net/ipv4/ip_forward", "0", 1);
	return 0;
}
