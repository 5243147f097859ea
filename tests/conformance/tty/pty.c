// Pseudo-terminals: opening, termios, line discipline, job control, window sizes, hang-up.
#include "conf.h"
#include <pty.h>
#include <sys/ttydefaults.h>
#include <termios.h>

static int m, s;
static void fresh(void) {
	int z = 0;
	char n[64];
	m = open("/dev/ptmx", O_RDWR | O_NOCTTY), ioctl(m, TIOCSPTLCK, &z), ioctl(m, TIOCGPTN, &z), sprintf(n, "/dev/pts/%d", z), s = open(n, O_RDWR | O_NOCTTY);
}
static void tios(int fd) {
	struct termios t;
	if (tcgetattr(fd, &t))
		P("tcgetattr: %s", conf_errno(errno));
	else
		P("i %x o %x c %x l %x cc %02x %02x %02x %02x %02x %02x %02x", t.c_iflag, t.c_oflag, t.c_cflag, t.c_lflag, t.c_cc[0], t.c_cc[1], t.c_cc[2], t.c_cc[3], t.c_cc[4], t.c_cc[VTIME], t.c_cc[VMIN]);
}
// settle has the kernel take in what was written to either side, which the host leaves to a worker until somebody polls: the slave's side first, which echoes.
static void settle(void) {
	poll(&(struct pollfd){s, POLLIN}, 1, 0), poll(&(struct pollfd){m, POLLIN}, 1, 0);
}
static void say(int fd, const char *text) { write(fd, text, strlen(text)), settle(); }
// hear prints what fd has: of the master's side all, which the host may hand out in the pieces that came.
static void hear(const char *what, int fd) {
	char b[512];
	struct pollfd p = {fd, POLLIN};
	if (poll(&p, 1, 50) < 1) {
		P("%s: nothing", what);
		return;
	}
	int n = read(fd, b, sizeof b);
	for (int more; fd == m && n > 0 && (settle(), poll(&p, 1, 2)) > 0 && (more = read(fd, b + n, sizeof b - n)) > 0;)
		n += more;
	printf("%s: %d", what, n);
	if (n < 0)
		printf(" %s", conf_errno(errno));
	for (int i = 0; i < n; i++)
		b[i] >= 32 && b[i] < 127 ? printf(i ? "%c" : " %c", b[i]) : printf("\\%02x", b[i] & 255);
	printf("\n");
}
static void lflag(int set, int clear) {
	struct termios t;
	tcgetattr(s, &t), t.c_lflag = t.c_lflag & ~clear | set, tcsetattr(s, TCSANOW, &t);
}

static void opens(void) {
	int n, z = 0;
	m = open("/dev/ptmx", O_RDWR | O_NOCTTY), V(m > 2), V(ioctl(m, TIOCGPTN, &n)), V(ioctl(m, TIOCGPTLCK, &z)), P("locked %d", z);
	char path[64];
	sprintf(path, "/dev/pts/%d", n), RN("open while locked", open(path, O_RDWR | O_NOCTTY)), z = 0, R(ioctl(m, TIOCSPTLCK, &z)), s = open(path, O_RDWR | O_NOCTTY), V(s > 2), V(isatty(s)), V(isatty(m)), tios(s), tios(m);
	struct stat st;
	fstat(s, &st), P("uid %d char %d", st.st_uid, S_ISCHR(st.st_mode)), V(strcmp(ttyname(s) ?: "", path)), R(ioctl(m, TIOCGPTPEER, O_RDWR) < 0 ? -1 : 0), R(ioctl(s, TIOCGPTN, &n)), R(ioctl(m, TIOCGPTN, BAD)), R(ioctl(s, TCGETS, BAD)), R(ioctl(s, TCSETS, BAD)), R(ioctl(s, 0x54ff, 0)), R(ioctl(s, TIOCEXCL)), R(open(path, O_RDWR | O_NOCTTY)), R(ioctl(s, TIOCNXCL)), V(lseek(s, 0, 0)), V(pread(s, &n, 1, 0)), R(ftruncate(s, 0)), R(fsync(s)), RN("mmap", mmap(0, 4096, 1, MAP_PRIVATE, s, 0));
	struct winsize w;
	R(ioctl(s, TIOCGWINSZ, &w)), P("%d %d", w.ws_row, w.ws_col), w.ws_row = 25, w.ws_col = 80, R(ioctl(m, TIOCSWINSZ, &w)), w.ws_row = 0, R(ioctl(s, TIOCGWINSZ, &w)), P("%d %d", w.ws_row, w.ws_col), R(ioctl(s, TIOCGWINSZ, BAD));
	R(ioctl(s, TIOCOUTQ, &n)), P("%d", n), R(ioctl(s, FIONREAD, &n)), P("%d", n), R(ioctl(s, TIOCGETD, &n)), P("discipline %d", n), R(ioctl(s, TIOCMGET, &n)), R(ioctl(s, TCSBRK, 1)), R(ioctl(s, TCXONC, 9)), R(ioctl(s, TCFLSH, 0)), R(ioctl(s, TCFLSH, 9)), R(ioctl(s, TIOCGSID, &n)), R(ioctl(s, TIOCGPGRP, &n)), R(ioctl(s, TIOCSPGRP, &n)), R(ioctl(m, TIOCPKT, &(int){1})), R(ioctl(s, TIOCPKT, &(int){1})), R(ioctl(s, TIOCSTI, "x")), R(ioctl(s, TIOCLINUX, "\6")), R(ioctl(s, TIOCCONS)), R(ioctl(s, TIOCVHANGUP) < 0 && errno == EPERM), R(open("/dev/tty", O_RDWR));
}

static void discipline(void) {
	fresh();
	say(m, "hello\n"), hear("canonical", s), hear("echo", m), say(m, "par"), hear("no line yet", s), say(m, "tial\n"), hear("line", s), hear("echo", m), say(m, "abc\x7f\x7fX\n"), hear("erase", s), hear("echo", m), say(m, "kill me\x15new\n"), hear("kill", s), hear("echo", m), say(m, "one two\x17three\n"), hear("word erase", s), hear("echo", m), say(m, "\x04"), hear("end of file", s), say(m, "half\x04"), hear("half a line", s), hear("echo", m), say(m, "lit\x16\x03\n"), hear("literal", s), hear("echo", m), say(m, "a\rb\n"), hear("CR", s), hear("and", s), hear("echo", m), say(m, "\x01\x1b[A\n"), hear("control", s), hear("echo", m);
	say(m, "1\n2\n3\n"), hear("first", s), hear("second", s), hear("third", s), hear("echo", m), say(s, "out\nput\ttab\r\n"), hear("output", m), say(m, "\x12"), hear("reprint", m);
	lflag(0, ECHO), say(m, "quiet\n"), hear("without ECHO", m), hear("line", s), lflag(ECHONL, ECHO), say(m, "nl\n"), hear("ECHONL", m), hear("line", s), lflag(ECHO, ECHONL | ICANON), say(m, "raw"), hear("raw", s), hear("echo", m);
	struct termios t;
	tcgetattr(s, &t), t.c_cc[VMIN] = 0, t.c_cc[VTIME] = 0, tcsetattr(s, TCSANOW, &t);
	char b[10];
	V(read(s, b, 10)), t.c_cc[VTIME] = 1, tcsetattr(s, TCSANOW, &t), V(read(s, b, 10)), t.c_cc[VMIN] = 3, t.c_cc[VTIME] = 0, tcsetattr(s, TCSANOW, &t), say(m, "abcd"), V(read(s, b, 10)), t.c_cc[VMIN] = 1, cfmakeraw(&t), tcsetattr(s, TCSAFLUSH, &t), tios(s), say(m, "\x03\x04\r\n\x7f"), hear("raw bytes", s), hear("echo", m), say(s, "\n"), hear("no OPOST", m), t.c_iflag = INLCR, tcsetattr(s, TCSANOW, &t), say(m, "\n\r"), hear("INLCR", s), t.c_iflag = IGNCR | IUCLC, t.c_lflag = IEXTEN, tcsetattr(s, TCSANOW, &t), say(m, "A\rB"), hear("IGNCR IUCLC", s), t.c_iflag = ISTRIP, tcsetattr(s, TCSANOW, &t), say(m, "\xe1"), hear("ISTRIP", s), t.c_oflag = OPOST | OLCUC | ONLRET | OCRNL, tcsetattr(s, TCSANOW, &t), say(s, "ab\rc\n"), hear("OLCUC OCRNL", m), t.c_oflag = OPOST | XTABS, tcsetattr(s, TCSANOW, &t), say(s, "a\tb"), hear("XTABS", m);
	fcntl(s, F_SETFL, O_NONBLOCK), V(read(s, b, 1)), fcntl(m, F_SETFL, O_NONBLOCK), V(read(m, b, 1));
	int n = 0;
	say(m, "queued"), sleep_ms(10), ioctl(s, FIONREAD, &n), P("FIONREAD %d", n), tcflush(s, TCIFLUSH), ioctl(s, FIONREAD, &n), P("flushed %d", n);
	H("packets");
	fresh(), n = 1, ioctl(m, TIOCPKT, &n), say(s, "hi"), hear("packet", m), tcflush(s, TCOFLUSH), hear("flush", m), tcflow(s, TCOOFF), hear("stop", m), tcflow(s, TCOON), hear("start", m);
}

static void jobs(void) {
	fresh();
	pid_t g;
	setsid(), R(ioctl(s, TIOCSCTTY, 0)), V(tcgetsid(s) == getpid()), V(tcgetpgrp(s) == getpgrp()), R(open("/dev/tty", O_RDWR) < 0 ? -1 : 0), R(ioctl(s, TIOCSCTTY, 0));
	catch(SIGINT, 0), catch(SIGQUIT, 0), catch(SIGTSTP, 0), catch(SIGWINCH, 0);
	say(m, "\x03"), sleep_ms(20), P("INTR %d %d code %d", conf_got, conf_sig, conf_info.si_code), hear("echo", m), say(m, "\x1c"), sleep_ms(20), P("QUIT %d %d", conf_got, conf_sig), say(m, "\x1a"), sleep_ms(20), P("SUSP %d %d", conf_got, conf_sig), hear("echo", m);
	struct winsize w = {10, 20};
	ioctl(m, TIOCSWINSZ, &w), sleep_ms(20), P("WINCH %d %d", conf_got, conf_sig), ioctl(m, TIOCSWINSZ, &w), sleep_ms(20), P("same size %d", conf_got), say(m, "typed\x03more\n"), sleep_ms(20), hear("INTR flushes", s);
	H("background");
	int st;
	pid_t p = CHILD(setpgid(0, 0); char c; read(s, &c, 1));
	waitpid(p, &st, WUNTRACED), P("read: %s", conf_status(st)), kill(p, SIGKILL), waitpid(p, &st, 0), p = CHILD(setpgid(0, 0); signal(SIGTTIN, SIG_IGN); char c; V(read(s, &c, 1)); V(write(s, "x", 1)); lflag(TOSTOP, 0)), waitpid(p, &st, WUNTRACED), P("tcsetattr: %s", conf_status(st)), kill(p, SIGKILL), waitpid(p, &st, 0), lflag(TOSTOP, 0), p = CHILD(setpgid(0, 0); write(s, "x", 1)), waitpid(p, &st, WUNTRACED), P("write with TOSTOP: %s", conf_status(st)), kill(p, SIGKILL), waitpid(p, &st, 0), p = CHILD(setpgid(0, 0); signal(SIGTTOU, SIG_IGN); V(tcsetpgrp(s, getpgrp())); V(tcgetpgrp(s) == getpid()); sleep_ms(30)), P("%s", wait_for(p)), V(tcgetpgrp(s) == getpgrp()), signal(SIGTTOU, SIG_IGN), V(tcsetpgrp(s, getpgrp())), V(tcsetpgrp(s, 99999999)), V(tcsetpgrp(s, -1)), V(tcsetpgrp(m, getpgrp())), V(tcgetpgrp(m) == getpgrp()), V(tcgetsid(m) == getpid()), p = CHILD(setsid(); V(tcgetpgrp(s)); V(ioctl(s, TIOCSCTTY, 0)); V(ioctl(s, TIOCNOTTY)); V(open("/dev/tty", O_RDWR))), P("%s", wait_for(p));
	H("hang-up");
	catch(SIGHUP, 0), catch(SIGCONT, 0), conf_got = 0, close(m), sleep_ms(20), P("signals %d", conf_got);
	char b[4];
	V(read(s, b, 4)), V(write(s, "x", 1)), V(ioctl(s, TCGETS, &(struct termios){})), V(open("/dev/tty", O_RDWR));
	struct pollfd f = {s, POLLIN | POLLOUT};
	V(poll(&f, 1, 0)), P("%x", f.revents), fresh(), close(s), f.fd = m, V(poll(&f, 1, 0)), P("%x", f.revents), V(read(m, b, 4)), V(write(m, "x", 1));
}
int main(void) { sub(opens), sub(discipline), sub(jobs); }
