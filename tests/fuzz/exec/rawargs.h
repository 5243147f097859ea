// The arguments of raw.c's calls: by kind, as the signature of a call names them, or at random.
enum { ARENA = 1 << 18 };

static __thread uint64_t state, *recent; // recent are the last results, which may be descriptors or identities
static __thread unsigned nrecent;
static char *arena, *edge; // edge is the end of the arena's last page, with nothing behind it

static uint64_t rnd(void) {
	state ^= state << 13, state ^= state >> 7, state ^= state << 17;
	return state;
}
static uint64_t upto(uint64_t n) { return rnd() % n; }
#define ANY(list) (list)[upto(sizeof(list) / sizeof *(list))]

static const char *paths[] = {".", "..", "/", "a", "b", "d", "d/e", "l", "none", "/proc/self/fd/3", "/proc/self/maps", "/proc/self/mem", "/proc/1/stat", "/dev/null", "/dev/zero", "/dev/ptmx", "/dev/full", "/dev/shm/x", "/tmp/w/f", "/proc/self/ns/mnt", "/proc/self", "/sys", "", "user.a", "security.capability", "tmpfs", "proc", "mqueue", "/proc/sys/kernel/hostname", "/proc/self/uid_map", "/dev/tty", "f/", "very/long/../../a",
	"/proc/self/status", "/proc/self/pagemap", "/proc/self/task", "/proc/self/mountinfo", "/proc/self/exe", "/proc/self/environ", "/proc/self/oom_score_adj", "/proc/self/comm", "/proc/net/tcp", "/proc/sysvipc/shm", "/sys/fs/cgroup/cgroup.procs", "/proc/self/attr/current", "/proc/self/fdinfo/5", "/proc/self/root/tmp", "/proc/self/cwd", "/dev/pts/0", "/dev/mqueue", "s", "sysfs", "devpts", "cgroup2", "overlay", "ramfs", "lowerdir=/tmp/w,upperdir=/tmp/w/d,workdir=/tmp/w/e", "size=1m", "trusted.a", "system.posix_acl_access", "/q"};

static uint64_t wild(void) {
	switch (upto(17)) {
	case 0: return 0;
	case 1: return -1;
	case 2: return upto(40);
	case 3: return upto(16);
	case 4: case 5: case 6: return (uint64_t)arena + upto(ARENA);
	case 7: return (uint64_t)arena + upto(ARENA / 4096) * 4096;
	case 8: return 8;
	case 9: return (uint64_t)edge - upto(64);
	case 10: return rnd();
	case 11: return 1ULL << upto(64);
	case 12: return upto(64) << 12;
	case 13: return 0xffff800000000000 + rnd() % 4096;
	case 14: return (uint32_t)rnd();
	case 15: return recent[upto(16)];
	}
	return -upto(4096);
}

static uint64_t spot(void) { return upto(12) ? (uint64_t)arena + upto(ARENA - 4096) / 8 * 8 : (uint64_t)edge - upto(80); }

static uint64_t path(void) {
	char *p = arena + upto(ARENA - 256);
	return (uint64_t)strcpy(p, ANY(paths));
}

static uint64_t vector(void) {
	uint64_t *v = (uint64_t *)(arena + upto(ARENA - 4096) / 8 * 8);
	for (int i = 0; i < 8; i++)
		v[2 * i] = upto(8) ? (uint64_t)arena + upto(ARENA) : wild(), v[2 * i + 1] = upto(8) ? upto(5000) : wild();
	return (uint64_t)v;
}

static int descriptor(void) { return upto(4) ? upto(44) : recent[upto(16)]; }

// address writes a struct sockaddr of some family.
static uint64_t address(void) {
	static const int families[] = {1, 1, 2, 2, 10, 16, 17, 0, 40, 29};
	char *p = arena + upto(ARENA - 256) / 4 * 4;
	uint16_t f = ANY(families), port = upto(2) ? 0x1b00 + upto(8) << 8 : upto(65536);
	memcpy(p, &f, 2);
	switch (f) {
	case 1: upto(2) ? strcpy(p + 2, ANY(paths)) : memcpy(p + 2, "\0abc", 5); break;
	case 2: memcpy(p + 2, &port, 2), memcpy(p + 4, upto(4) ? "\x7f\0\0\x01" : upto(2) ? "\xe0\0\0\x01" : "\0\0\0", 4); break;
	case 10: memset(p + 4, 0, 24), memcpy(p + 2, &port, 2), p[23] = upto(2); break;
	default:
		for (int i = 2; i < 24; i++)
			p[i] = upto(3) ? 0 : upto(32);
	}
	return (uint64_t)p;
}

// record writes one of the structures that calls read: small numbers, descriptors and pointers at the places where such structures have them.
static uint64_t record(void) {
	char *p = arena + upto(ARENA - 4096) / 8 * 8;
	uint64_t *q = (void *)p;
	uint32_t *w = (void *)p;
	uint16_t *h = (void *)p;
	switch (upto(16)) {
	case 0: q[0] = upto(3), q[1] = upto(3) ? upto(2000000) : rnd(), q[2] = upto(2), q[3] = upto(1000000); break; // timespec, itimerspec
	case 1: // pollfd
		for (int i = 0; i < 8; i++)
			w[2 * i] = descriptor(), w[2 * i + 1] = upto(0x4000);
		break;
	case 2: w[0] = 1 << upto(32) | upto(32), q[1] = rnd(), w[1] = rnd(); break; // epoll_event
	case 3: h[0] = upto(4), h[1] = upto(4), q[1] = upto(3) ? upto(8192) : wild(), q[2] = upto(3) ? upto(8192) : wild(), w[6] = upto(3); break; // flock
	case 4: // sembuf
		for (int i = 0; i < 8; i++)
			h[3 * i] = upto(5), h[3 * i + 1] = upto(5) - 2, h[3 * i + 2] = upto(2) * 2048 | upto(2) * 4096;
		break;
	case 5: q[0] = address(), w[2] = upto(120), q[2] = vector(), q[3] = upto(6), q[4] = spot(), q[5] = upto(200), q[6] = 0; break; // msghdr
	case 6: // msghdr with descriptors or some other control message
		q[0] = 0, q[1] = 0, q[2] = vector(), q[3] = upto(3), q[4] = (uint64_t)(q + 16), q[5] = upto(3) ? 24 : upto(120), q[6] = 0;
		q[16] = upto(3) ? 20 : upto(100), w[34] = upto(3) ? 1 : upto(64), w[35] = upto(3) ? 1 : upto(64), w[36] = descriptor(), w[37] = descriptor();
		break;
	case 7: q[0] = rnd(), w[2] = upto(66), w[3] = upto(8), w[4] = upto(6); break; // sigevent
	case 8: q[0] = 1ULL << upto(34) & ~0x100ULL, memset(q + 1, 0, 80), q[4] = upto(66); break; // clone_args
	case 9: q[0] = rnd() & rnd() & 0x7fffff, q[1] = upto(2) ? 0 : 0644, q[2] = upto(64); break; // open_how
	case 10: // nlmsghdr with attributes
		w[0] = upto(3) ? 16 + upto(64) : upto(8192), h[2] = upto(128), h[3] = upto(0x800), w[2] = upto(8), w[3] = 0;
		for (int i = 8; i < 64; i++)
			h[i] = upto(3) ? upto(64) : rnd();
		break;
	case 11: // sock_fprog
		h[0] = upto(8), q[1] = (uint64_t)(q + 2);
		for (int i = 0; i < 8; i++)
			h[8 + 4 * i] = upto(256), p[18 + 8 * i] = upto(4), p[19 + 8 * i] = upto(4), w[5 + 2 * i] = upto(2) ? upto(64) : rnd();
		h[8 + 28] = 6;
		break;
	case 12: strcpy(p, upto(3) ? "lo" : "x"), q[2] = upto(2) ? address() : upto(256); break; // ifreq
	case 13: // termios, winsize and the like
		for (int i = 0; i < 16; i++)
			w[i] = upto(2) ? upto(256) : rnd();
		break;
	case 14: q[0] = upto(3) ? rnd() : 0, q[1] = rnd(), q[2] = upto(2); break; // sigset, capability data
	case 15: // sigaction, iocb, and whatever else has a pointer first
		q[0] = spot(), q[1] = upto(64), q[2] = spot(), q[3] = upto(4096), q[4] = descriptor();
		break;
	}
	return (uint64_t)p;
}

static uint64_t typed(const char *k) {
	if (!upto(10))
		return wild();
	if (!strcmp(k, "fd"))
		return descriptor();
	if (!strcmp(k, "dirfd"))
		return upto(2) ? AT_FDCWD : descriptor();
	if (!strcmp(k, "path") || !strcmp(k, "str"))
		return path();
	if (!strcmp(k, "size"))
		return upto(4) ? upto(8192) : 1ULL << upto(34);
	if (!strcmp(k, "off"))
		return upto(4) ? upto(1 << 20) : wild();
	if (!strcmp(k, "pid") || !strcmp(k, "id"))
		return upto(4) ? upto(6) : recent[upto(16)];
	if (!strcmp(k, "signal"))
		return upto(66);
	if (!strcmp(k, "iovec"))
		return vector();
	if (!strcmp(k, "int"))
		return upto(3) ? upto(12) : upto(3) ? recent[upto(16)] : wild();
	if (!strcmp(k, "ptr") || !strcmp(k, "timespec") || !strcmp(k, "clone_args") || !strcmp(k, "sigset") || !strcmp(k, "sigaction") || !strcmp(k, "rlimit") || !strcmp(k, "stat"))
		return upto(3) ? record() : upto(3) ? spot() : 0;
	if (!strcmp(k, "buf") || !strcmp(k, "data"))
		return spot();
	return upto(2) ? upto(64) : upto(4) ? 1ULL << upto(32) | 1ULL << upto(12) : rnd();
}

static uint32_t ioctlnr(void) {
	static const uint32_t some[] = {1, 2, 3, 0x541b, 0x5441, 0x5452, 0x80086601, 0x40086602, 0x801c581f, 0x401c5820, 0x40049409, 0x4020940d, 0x400454ca, 0x800454d2, 0x8008e001, 0x40088a01, 0xc018aa3f, 0xb701, 0xb702, 0xb703, 0x8008b704, 0x5331, 0x125e, 0x1260, 0x80081272, 0xc020660b, 0x8004e500, 0xff0b, 0xff05, 0xc0502100, 0x8902, 0x8906};
	static const char types[] = "TfvXV\x12\x89\xb7\x8a\x94\xff!aHEPdRruN";
	switch (upto(5)) {
	case 0: return 0x5400 + upto(0x70);
	case 1: return 0x8900 + upto(0x100);
	case 2: return ANY(some);
	case 3: return upto(4) << 30 | upto(64) * 4 << 16 | (types[upto(sizeof types - 1)] & 255) << 8 | upto(64);
	}
	return rnd();
}

// special chooses arguments whose range is the call's own: commands, options, families.
static void special(int nr, uint64_t *a) {
	static const uint64_t prctls[] = {0x41555856, 0x53564d41, 0x59616d61}, levels[] = {0, 1, 6, 17, 41, 58, 255, 263, 270, 1, 1, 6, 41, 0}, families[] = {1, 1, 2, 2, 10, 10, 16, 16, 17, 15, 29, 38, 40}, arch[] = {0x1001, 0x1003, 0x1004, 0x1011, 0x1012, 0x1021, 0x1022, 0x2001, 0x4001, 0x5001};
	switch (nr) {
	case SYS_ioctl: a[1] = ioctlnr(); break;
	case SYS_fcntl: a[1] = upto(3) ? upto(44) : 1024 + upto(20); break;
	case SYS_prctl: a[0] = upto(8) ? upto(82) : ANY(prctls), a[1] = upto(2) ? upto(70) : a[1]; break;
	case SYS_arch_prctl: a[0] = ANY(arch); break;
	case SYS_socket: case SYS_socketpair: a[0] = upto(6) ? ANY(families) : upto(48), a[1] = upto(11) | upto(2) * 04000, a[2] = upto(2) ? 0 : upto(4) ? upto(24) : upto(256); break;
	case SYS_setsockopt: case SYS_getsockopt: a[1] = upto(10) ? ANY(levels) : upto(300), a[2] = upto(4) ? upto(90) : wild(), a[4] = nr == SYS_setsockopt ? upto(64) : a[4]; break;
	case SYS_bind: case SYS_connect: a[1] = address(), a[2] = upto(4) ? 16 + upto(2) * 12 : upto(140); break;
	case SYS_sendto: a[4] = address(), a[5] = upto(4) ? 16 + upto(2) * 12 : upto(140); break;
	case SYS_madvise: a[2] = upto(28); break;
	case SYS_process_madvise: a[3] = upto(28); break;
	case SYS_futex: a[0] = (uint64_t)arena + upto(64) * 4, a[1] = upto(14) | upto(2) * 128 | upto(2) * 256, a[4] = (uint64_t)arena + upto(64) * 4; break;
	case SYS_ptrace: a[0] = upto(3) ? upto(32) : 0x4200 + upto(16); break;
	case SYS_msgget: case SYS_semget: case SYS_shmget: a[0] = upto(4); break;
	case SYS_msgctl: case SYS_shmctl: a[1] = upto(16); break;
	case SYS_semctl: a[2] = upto(20); break;
	case SYS_lseek: a[2] = upto(5); break;
	case SYS_mmap: a[0] = upto(3) ? 0 : (uint64_t)arena + upto(ARENA / 4096) * 4096, a[1] = upto(64) << 12, a[2] = upto(8), a[3] = 1 + upto(3) | upto(2) * 32 | upto(2) * 16 & (a[0] ? -1 : 0) | (upto(8) ? 0 : 1 << upto(20)); break;
	case SYS_mremap: case SYS_munmap: case SYS_mprotect: case SYS_mlock: case SYS_msync:
		a[0] = upto(4) ? (uint64_t)arena + upto(ARENA / 4096) * 4096 : a[0], a[1] = upto(4) ? upto(16) << 12 : a[1]; break;
	case SYS_nanosleep: case SYS_clock_nanosleep: break;
	}
}

static void fill(void) {
	uint64_t *p = (uint64_t *)arena;
	for (int n = 32 + upto(64); n; n--)
		p[upto(ARENA / 8)] = upto(3) ? wild() : upto(64);
}
