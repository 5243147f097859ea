package main

import (
	"fmt"
	"slices"
)

const (
	fStat  = "d8 i8 x8 x4 x4 x4 x4 x8 x8 x8 x8 .48 x"
	fStatx = "x4 x4 x8 x4 x4 x4 x2 x2 i8 x8 x8 x8 .64 x8 v8 .96"
	fTime  = "z16"
)

var (
	oflags   = rarely(3, flags(0o1, 0o2, 0o100, 0o200, 0o1000, 0o2000, 0o4000, 0o10000, 0o200000, 0o400000, 0o1000000, 0o2000000, 0o10000000), oneOf(0o102, 0o102, 0o2, 0, 0o1102, 0o2101))
	signo    = rarely(10, oneOf(10, 12, 10, 12, 34, 35, 1, 17, 13, 14, 23), oneOf(0, -1, 65, 64, 18, 28))
	pid      = rarely(4, of("pid"), oneOf(0, -1, 1, 2, 4, 3, 99999, -2, "0x80000000"))
	ownPid   = rarely(4, oneOf(2, 4, 2), of("pid"))
	sigset   = structOf("8:", oneOf(0, 0x200, 0x800, 0xa00, -1, 0x10000, "0x600000000"))
	stamp    = opt(structOf(arg(oneOf("8:0 8:0", "8:1 8:2", "8:1000 8:999999999", "8:0 8:1073741823", "8:0 8:1073741822", "8:5 8:-1")), arg(oneOf("8:0 8:0", "8:3 8:4", "8:-7 8:5", "8:0 8:1073741823", "8:0 8:1073741822"))))
	atflag   = flags(0x100, 0x400, 0x1000, 0x200)
	xname    = rarely(6, lit("user.a", "user.b", "trusted.a"), lit("", "user.", "x", "security.x", "system.x", "trusted.", "user"))
	lockType = oneOf(0, 1, 2)
	window   = oneOf("0x200000000", "0x200000000", "0x200001000", "0x200004000", "0x200008000", "0x200010000", "0x200000800", "0x2000ff000")
	spans    = rarely(10, oneOf(4096, 8192, 4096, 16384, 65536), oneOf(0, 1, 100, 4097, 1<<20, -1, -4096))
	word     = oneOf("0x210000000", "0x210000000", "0x210000004", "0x210000040", "0x210000002", "0x210001000")
	sockaddr = rarely(6, func(g *gen) string {
		n := pick(g, []string{"s", "t", "d/s", "\x00x", "\x00y", "a", "none"})
		s := unixName(n)
		g.last = fmt.Sprint(len(s)/2 - 0)
		return s
	}, func(g *gen) string {
		g.last = pick(g, []string{"16", "16", "2", "0", "110", "200", "-1"})
		return pick(g, []string{"\"0200000a7f0000010000000000000000", "\"02000000000000000000000000000000", "\"00000000000000000000000000000000", "0", "~", "\"0200ffff7f0000010000000000000000"})
	})
	inaddr = func(g *gen) string {
		g.last = pick(g, []string{"16", "16", "16", "16", "8", "28"})
		return fmt.Sprintf("\"0200%04x%s0000000000000000000000000000", pick(g, []int{7001, 7002, 7003, 7001}), pick(g, []string{"7f000001", "7f000001", "7f000002", "00000000"}))
	}
	addrOut = out(128, "x")
	lenIO   = inout("x4", "4:", oneOf(128, 128, 110, 16, 2, 0, -1))
	events  = oneOf(1, 4, 5, "0x2001", "0x80000001", "0x40000001", "0x80000005", 0, "0x10000001")
	sock    = fd("unix", "inet")
)

// unixName is a struct sockaddr_un that holds a name only.
func unixName(n string) string { return fmt.Sprintf("\"0100%x", n) }

var familyNames []string

func init() {
	for n := range families {
		if n != "base" {
			familyNames = append(familyNames, n)
		}
	}
	slices.Sort(familyNames)
	for n, f := range families {
		for i := range f {
			if f[i].weight == 0 {
				f[i].weight = 10
			}
			if _, ok := numbers[f[i].name]; !ok {
				panic(n + " has an unknown call " + f[i].name)
			}
		}
	}
}

type args = []arg

var families = map[string][]callType{
	"base": {
		{"openat", 'd', "fd.file", args{dirfd, path, oflags, mode}, 10},
		{"openat", 'd', "fd.file", args{oneOf(-100), lit("a", "b", "d/a"), oneOf(0o102), oneOf("0644")}, 8},
		{"openat", 'd', "fd.dir", args{oneOf(-100), lit(".", "d", "/", "d/e", "e"), oneOf(0o200000, 0o10200000), oneOf(0)}, 4},
		{"mkdir", 'd', "", args{lit("d", "e", "d/e"), mode}, 3},
		{"close", 'd', "", args{anyFD}, 4},
		{"pipe2", 'd', "fd.pipe2", args{out(8, "x"), oneOf(0o4000, 0o4000, 0, 0o2004000, 0o40000)}, 3},
		{"read", 'd', "", args{anyFD, outBuf, length}, 6},
		{"write", 'd', "", args{anyFD, inBuf, length}, 6},
		{"dup", 'd', "fd.file", args{anyFD}, 2},
	},
	"files": {
		{"open", 'd', "fd.file", args{path, oflags, mode}, 10},
		{"creat", 'd', "fd.file", args{path, mode}, 3},
		{"openat2", 'd', "fd.file", args{dirfd, path, structOf("8:", oflags, "8:", rarely(3, oneOf(0), mode), "8:", flags(1, 2, 4, 8, 16, 32)), oneOf(24, 24, 24, 23, 32, 0)}, 8},
		{"pread64", 'd', "", args{anyFD, outBuf, length, off}, 10},
		{"pwrite64", 'd', "", args{anyFD, inBuf, length, off}, 10},
		{"readv", 'd', "", args{anyFD, vec(outBuf), length}, 6},
		{"writev", 'd', "", args{anyFD, vec(inBuf), length}, 6},
		{"preadv2", 'd', "", args{anyFD, vec(outBuf), length, off, oneOf(0), oneOf(0, 0, 1, 2, 4, 16, 64)}, 5},
		{"pwritev2", 'd', "", args{anyFD, vec(inBuf), length, off, oneOf(0), oneOf(0, 0, 1, 2, 4, 16, 32, 64)}, 5},
		{"lseek", 'd', "", args{anyFD, off, oneOf(0, 1, 2, 3, 4, 5, -1)}, 10},
		{"ftruncate", 'd', "", args{anyFD, off}, 6},
		{"truncate", 'd', "", args{path, off}, 4},
		{"fallocate", 'd', "", args{fd("file", "memfd"), oneOf(0, 1, 3, 2, 8, 16, 32, 64, 0x41), off, off}, 6},
		{"fsync", 'd', "", args{anyFD}, 2},
		{"fdatasync", 'd', "", args{anyFD}, 1},
		{"sync_file_range", 'd', "", args{anyFD, off, off, flags(1, 2, 4)}, 2},
		{"readahead", 'd', "", args{anyFD, off, size}, 2},
		{"fadvise64", 'd', "", args{anyFD, off, off, oneOf(0, 1, 2, 3, 4, 5, 6, -1)}, 2},
		{"fstat", 'd', "", args{anyFD, out(144, fStat)}, 6},
		{"stat", 'd', "", args{path, out(144, fStat)}, 5},
		{"lstat", 'd', "", args{path, out(144, fStat)}, 3},
		{"newfstatat", 'd', "", args{dirfd, path, out(144, fStat), atflag}, 6},
		{"statx", 'd', "", args{dirfd, path, rarely(3, atflag, flags(0x2000, 0x4000, 0x1000)), oneOf(0x7ff, 0xfff, 0, 0x200, -1), out(256, fStatx)}, 6},
		{"statfs", 'd', "", args{path, out(120, "x8 x8 .48 x8 x")}, 2},
		{"fstatfs", 'd', "", args{anyFD, out(120, "x8 x8 .48 x8 x")}, 2},
		{"access", 'd', "", args{path, oneOf(0, 1, 2, 4, 7, 8)}, 3},
		{"faccessat2", 'd', "", args{dirfd, path, oneOf(0, 1, 2, 4, 7, 8), atflag}, 4},
		{"mkdirat", 'd', "", args{dirfd, path, mode}, 5},
		{"rmdir", 'd', "", args{path}, 4},
		{"unlink", 'd', "", args{path}, 4},
		{"unlinkat", 'd', "", args{dirfd, path, oneOf(0, 0, 0x200, 0x200, 1)}, 4},
		{"link", 'd', "", args{path, path}, 4},
		{"linkat", 'd', "", args{dirfd, path, dirfd, path, flags(0x400, 0x1000)}, 4},
		{"symlink", 'd', "", args{path, lit("l", "l2", "d/l", "a")}, 5},
		{"symlinkat", 'd', "", args{path, dirfd, lit("l", "l2", "d/l", "a")}, 3},
		{"readlink", 'd', "", args{path, outBuf, length}, 3},
		{"readlinkat", 'd', "", args{dirfd, path, outBuf, length}, 3},
		{"rename", 'd', "", args{path, path}, 6},
		{"renameat2", 'd', "", args{dirfd, path, dirfd, path, rarely(6, oneOf(0, 1, 2), oneOf(3, 4, 8))}, 6},
		{"chmod", 'd', "", args{path, mode}, 4},
		{"fchmod", 'd', "", args{anyFD, mode}, 3},
		{"fchmodat", 'd', "", args{dirfd, path, mode}, 3},
		{"fchmodat2", 'd', "", args{dirfd, path, mode, atflag}, 3},
		{"chown", 'd', "", args{path, oneOf(-1, 0, 1000, 2000), oneOf(-1, 0, 1000, 2000)}, 3},
		{"lchown", 'd', "", args{path, oneOf(-1, 0, 1000), oneOf(-1, 0, 1000)}, 2},
		{"fchown", 'd', "", args{anyFD, oneOf(-1, 0, 1000), oneOf(-1, 0, 1000)}, 2},
		{"fchownat", 'd', "", args{dirfd, path, oneOf(-1, 0, 1000), oneOf(-1, 0, 1000), atflag}, 3},
		{"umask", 'd', "", args{oneOf(0, 0o22, 0o77, 0o777, 0o27, 0o10022)}, 2},
		{"utimensat", 'd', "", args{dirfd, path, stamp, atflag}, 4},
		{"utimes", 'd', "", args{path, opt(structOf("8:1 8:2 8:", oneOf(3, -1), "8:", oneOf(4, 1000000, -1)))}, 2},
		{"futimesat", 'd', "", args{dirfd, path, opt(structOf("8:1 8:2 8:", oneOf(3, -1), "8:", oneOf(4, 1000000, -1)))}, 2},
		{"mknod", 'd', "", args{path, oneOf("010644", "0100600", "0140644", "0644", "040755", "0120777", "020666", "060666"), oneOf(0, 0, 259)}, 4},
		{"mknodat", 'd', "", args{dirfd, path, oneOf("010644", "0100600", "0140644", "0644"), oneOf(0)}, 2},
		{"chdir", 'd', "", args{path}, 3},
		{"fchdir", 'd', "", args{fd("dir")}, 2},
		{"chroot", 'd', "", args{lit("d", ".", "/", "a")}, 1},
		{"getcwd", 'd', "", args{outBuf, length}, 3},
		{"getdents64", 'd', "", args{fd("dir"), oneOf("*512:", "*24:", "*4096:", "0", "~"), oneOf(512, 24, 23, 0, 1)}, 3},
		{"copy_file_range", 'd', "", args{anyFD, opt(inout("x8", "8:", off)), anyFD, opt(inout("x8", "8:", off)), size, oneOf(0, 0, 0, 1)}, 4},
		{"sendfile", 'd', "", args{anyFD, anyFD, opt(inout("x8", "8:", off)), size}, 4},
		{"name_to_handle_at", 'd', "", args{dirfd, path, inout("x4 .", "4:", oneOf(0, 7, 200), "4:0 8:0 8:0"), out(4, "."), flags(0x400, 0x1000)}, 1},
		{"sync", 'd', "", nil, 1},
		{"syncfs", 'd', "", args{anyFD}, 1},
		{"vhangup", 'd', "", nil, 1},
	},
	"xattr": {
		{"setxattr", 'd', "", args{path, xname, inBuf, length, oneOf(0, 0, 1, 2, 3, 4)}, 10},
		{"lsetxattr", 'd', "", args{path, xname, inBuf, length, oneOf(0, 1, 2)}, 5},
		{"fsetxattr", 'd', "", args{anyFD, xname, inBuf, length, oneOf(0, 1, 2)}, 10},
		{"getxattr", 'd', "", args{path, xname, outBuf, length}, 10},
		{"lgetxattr", 'd', "", args{path, xname, outBuf, length}, 5},
		{"fgetxattr", 'd', "", args{anyFD, xname, outBuf, length}, 10},
		{"listxattr", 'd', "", args{path, oneOf("*100:"), oneOf(100, 0, 8)}, 5},
		{"flistxattr", 'd', "", args{anyFD, oneOf("*100:"), oneOf(100, 0, 8)}, 5},
		{"removexattr", 'd', "", args{path, xname}, 8},
		{"fremovexattr", 'd', "", args{anyFD, xname}, 8},
	},
	"fds": {
		{"dup2", 'd', "fd.file", args{anyFD, oneOf(3, 5, 10, 50, 99, 100, -1)}, 5},
		{"dup3", 'd', "fd.file", args{anyFD, oneOf(3, 5, 10, 50, 99, 100, -1), oneOf(0, 0o2000000, 0o2000000, 1)}, 5},
		{"close_range", 'd', "", args{oneOf(3, 4, 5, 10, 90, 100, -1), oneOf(3, 5, 7, 90, 200, -1), oneOf(0, 4, 2, 6, 1)}, 3},
		{"fcntl", 'd', "fd.file", args{anyFD, oneOf(0, 1030), oneOf(0, 3, 50, 99, 100, -1)}, 5},
		{"fcntl", 'd', "", args{anyFD, oneOf(1, 3, 9, 11, 1032, 1034, 1025, 1024), oneOf(0)}, 6},
		{"fcntl", 'd', "", args{anyFD, oneOf(2), oneOf(0, 1, 2)}, 4},
		{"fcntl", 'd', "", args{anyFD, oneOf(4), flags(0o2000, 0o4000, 0o40000, 0o1000000, 0o10000, 1)}, 6},
		{"fcntl", 'd', "", args{anyFD, oneOf(1031), oneOf(0, 1, 4096, 8192, 65536, 1<<20, 1<<21, 1<<31, -1)}, 3},
		{"fcntl", 'd', "", args{fd("memfd"), oneOf(1033), flags(1, 2, 4, 8, 16, 32)}, 5},
		{"fcntl", 'd', "", args{anyFD, oneOf(5, 6, 36, 37, 36, 37, 6), inout("x2 x2 .4 x8 x8 x4", "2:", lockType, "2:", oneOf(0, 0, 1, 2, 3), "4:0 8:", off, "8:", oneOf(0, 1, 10, 100, -1, -10, 4096), "4:", oneOf(0, 0, 0, 1), "4:0")}, 20},
		{"fcntl", 'd', "", args{anyFD, oneOf(7, 38), inout("x2 x2 .4 x8 x8 x4", "2:", lockType, "2:0 4:0 8:", off, "8:", oneOf(0, 1, 10, 100), "4:0 4:0")}, 3},
		{"flock", 'd', "", args{anyFD, oneOf(5, 6, 8, 5, 6, 8, 1, 2, 0, 12)}, 8},
		{"memfd_create", 'd', "fd.memfd", args{lit("m", ""), oneOf(0, 1, 2, 2, 3, 8, 16, 18, 64)}, 6},
		{"pwrite64", 'd', "", args{fd("memfd"), inBuf, length, off}, 5},
		{"ftruncate", 'd', "", args{fd("memfd"), off}, 4},
		{"ioctl", 'd', "", args{anyFD, oneOf(0x541b, 0x5421, 0x5450, 0x5451, 0x5401, 0x5413, 0x2, 0x80086601), inout("x", "4:", oneOf(0, 1, 5), "4:0 8:0 8:0 8:0 8:0 8:0 8:0")}, 6},
		{"fcntl", 'd', "", args{anyFD, oneOf(8, 10), oneOf(0, 2, 4, -2, 10, 12, 99, -1)}, 3},
		{"fcntl", 'd', "", args{anyFD, oneOf(15, 16), inout("x", "4:", oneOf(0, 1, 2, 3), "4:", oneOf(2, 4, 3, 0, 9999))}, 3},
		{"kcmp", 'z', "", args{oneOf(2, 2, 4, 3, 0), oneOf(2, 4, 3), oneOf(0, 1, 2, 3, 4, 5, 6, 8), anyFD, anyFD}, 2},
	},
	"pipes": {
		{"pipe", 'd', "fd.pipe2", args{out(8, "x")}, 4},
		{"pipe2", 'd', "fd.pipe2", args{out(8, "x"), flags(0o4000, 0o40000, 0o2000000)}, 8},
		{"read", 'd', "", args{fd("pipe"), outBuf, length}, 20},
		{"write", 'd', "", args{fd("pipe"), inBuf, length}, 20},
		{"writev", 'd', "", args{fd("pipe"), vec(inBuf), length}, 5},
		{"readv", 'd', "", args{fd("pipe"), vec(outBuf), length}, 5},
		{"splice", 'd', "", args{fd("pipe", "file"), opt(inout("x8", "8:", off)), fd("pipe", "file"), opt(inout("x8", "8:", off)), size, flags(1, 2, 4)}, 10},
		{"splice", 'd', "", args{fd("pipe"), oneOf(0), fd("file", "pipe"), oneOf(0), size, oneOf(2)}, 10},
		{"tee", 'd', "", args{fd("pipe"), fd("pipe"), size, oneOf(0, 2, 2, 1)}, 10},
		{"ioctl", 'd', "", args{fd("pipe"), oneOf(0x541b), out(4, "x")}, 5},
		{"fcntl", 'd', "", args{fd("pipe"), oneOf(1031), oneOf(0, 1, 4096, 8192, 65536, 1<<20)}, 3},
		{"fcntl", 'd', "", args{fd("pipe"), oneOf(4), oneOf(0o4000, 0o4000, 0, 0o40000)}, 3},
		{"close", 'd', "", args{fd("pipe")}, 6},
		{"mknod", 'd', "", args{lit("p", "p2"), oneOf("010666"), oneOf(0)}, 3},
		{"open", 'd', "fd.pipe", args{lit("p", "p2"), oneOf(0o4000, 0o4001, 2, 0o4002, 0, 1), oneOf(0)}, 8},
		{"poll", 'd', "", args{inout("x", "4:", fd("pipe"), "2:", events, "2:0 4:", fd("pipe"), "2:", events, "2:0"), oneOf(2, 1, 0), oneOf(0, 0, 1, -1)}, 8},
		{"fstat", 'd', "", args{fd("pipe"), out(144, "d8 .8 x8 x4 x4 x4 x4 x8 x8 x8 x8 .")}, 3},
	},
	"unix": {
		{"socket", 'd', "fd.unix", args{oneOf(1), rarely(20, oneOf(1, 2, 5, 0x801, 0x802, 0x805, 0x80001), oneOf(0, 3, 4, 6, 10)), oneOf(0, 0, 0, 1, 2)}, 10},
		{"socketpair", 'd', "fd.unix2", args{rarely(20, oneOf(1), oneOf(2, 0, 10)), oneOf(0x801, 0x802, 0x805, 1, 2, 5, 0x801), oneOf(0), out(8, "x")}, 10},
		{"bind", 'd', "", args{sock, sockaddr, length}, 8},
		{"listen", 'd', "", args{sock, oneOf(0, 1, 5, -1)}, 6},
		{"connect", 'd', "", args{sock, sockaddr, length}, 10},
		{"accept4", 'd', "fd.unix", args{sock, addrOut, lenIO, oneOf(0, 0x800, 0x80800, 1)}, 6},
		{"accept", 'd', "fd.unix", args{sock, oneOf(0), oneOf(0)}, 2},
		{"getsockname", 'd', "", args{sock, addrOut, lenIO}, 4},
		{"getpeername", 'd', "", args{sock, addrOut, lenIO}, 4},
		{"sendto", 'd', "", args{sock, inBuf, length, flags(0x40, 0x4000, 0x80, 0x8000), oneOf(0), oneOf(0)}, 12},
		{"sendto", 'd', "", args{sock, oneOf(`"414243`), oneOf(3), oneOf(0x40), sockaddr, length}, 6},
		{"recvfrom", 'd', "", args{sock, outBuf, length, flags(0x40, 2, 0x20, 0x100), addrOut, lenIO}, 12},
		{"sendmsg", 'd', "", args{sock, msg(inBuf, `{ 8:20 4:1 4:1 4:`, "fd"), flags(0x40, 0x4000)}, 8},
		{"sendmsg", 'd', "", args{sock, msg(inBuf, "", ""), flags(0x40, 0x4000)}, 5},
		{"recvmsg", 'd', "", args{sock, msg(outBuf, "*64:x", ""), flags(0x40, 2, 0x20, 0x40000000)}, 10},
		{"shutdown", 'd', "", args{sock, oneOf(0, 1, 2, 3, -1)}, 4},
		{"setsockopt", 'd', "", args{sock, oneOf(1), oneOf(2, 7, 8, 16, 9, 6, 13, 15, 20, 21, 42, 26, 36, 76), structOf("4:", oneOf(0, 1, 5, 4096, -1), "4:0 8:0"), oneOf(4, 4, 8, 16, 0, 1)}, 6},
		{"getsockopt", 'd', "", args{sock, oneOf(1), oneOf(2, 3, 4, 7, 8, 16, 17, 30, 38, 39, 42, 9, 6, 15, 20, 76, 99), out(64, "x"), inout("x4", "4:", oneOf(4, 64, 0, 12, -1))}, 6},
		{"poll", 'd', "", args{inout("x", "4:", sock, "2:", events, "2:0 4:", sock, "2:", events, "2:0"), oneOf(2, 1), oneOf(0, 0, 1, -1)}, 8},
		{"ioctl", 'd', "", args{sock, oneOf(0x541b, 0x5411, 0x8905), out(4, "x")}, 4},
		{"read", 'd', "", args{sock, outBuf, length}, 5},
		{"write", 'd', "", args{sock, inBuf, length}, 5},
		{"splice", 'd', "", args{sock, oneOf(0), fd("pipe"), oneOf(0), size, oneOf(2)}, 3},
		{"splice", 'd', "", args{fd("pipe"), oneOf(0), sock, oneOf(0), size, oneOf(2)}, 3},
		{"fcntl", 'd', "", args{sock, oneOf(4), oneOf(0o4000, 0o4000, 0)}, 3},
		{"fstat", 'd', "", args{sock, out(144, "d8 .8 x8 x4 x4 x4 x4 x8 x8 x8 x8 .")}, 2},
		{"unlink", 'd', "", args{lit("s", "t", "d/s")}, 2},
	},
	"inet": {
		{"socket", 'd', "fd.inet", args{oneOf(2), oneOf(0x802, 0x802, 2, 0x801), oneOf(0, 0, 17, 6)}, 10},
		{"bind", 'd', "", args{fd("inet"), inaddr, length}, 10},
		{"connect", 'd', "", args{fd("inet"), inaddr, length}, 8},
		{"getpeername", 'd', "", args{fd("inet"), addrOut, lenIO}, 4},
		{"sendto", 'd', "", args{fd("inet"), inBuf, length, flags(0x40, 0x4000), inaddr, length}, 12},
		{"recvfrom", 'd', "", args{fd("inet"), outBuf, length, flags(0x40, 2, 0x20), oneOf("*16:"), oneOf("{ 4:16 }")}, 12},
		{"getsockopt", 'd', "", args{fd("inet"), oneOf(0, 1, 6, 17), oneOf(1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 13, 14, 15, 16, 20, 23, 30, 31, 38, 39), out(64, "x"), inout("x4", "4:", oneOf(4, 64, 0, 12, 1))}, 10},
		{"setsockopt", 'd', "", args{fd("inet"), oneOf(0, 1, 6, 17), oneOf(1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 13, 14, 15, 16, 20, 23), structOf("4:", oneOf(0, 1, 5, 4096, -1), "4:0 8:0"), oneOf(4, 4, 8, 16, 0, 1)}, 10},
		{"listen", 'd', "", args{fd("inet"), oneOf(0, 5)}, 2},
		{"accept4", 'd', "fd.inet", args{fd("inet"), oneOf(0), oneOf(0), oneOf(0x800)}, 2},
		{"shutdown", 'd', "", args{fd("inet"), oneOf(0, 1, 2, 3)}, 3},
		{"poll", 'd', "", args{inout("x", "4:", fd("inet"), "2:", events, "2:0"), oneOf(1), oneOf(0, 0, 1)}, 6},
	},
	"poll": {
		{"epoll_create1", 'd', "fd.epoll", args{oneOf(0, 0, 0o2000000, 1)}, 8},
		{"epoll_create", 'd', "fd.epoll", args{oneOf(1, 0, -1)}, 1},
		{"epoll_ctl", 'd', "", args{fd("epoll"), oneOf(1, 1, 1, 2, 3, 4), rarely(4, fd("pipe", "event", "timer", "unix", "epoll"), anyFD), structOf("4:", events, "8:", oneOf(1, 2, 3))}, 20},
		{"epoll_wait", 'd', "", args{fd("epoll"), out(48, "x"), oneOf(4, 1, 2, 0, -1), oneOf(0, 0, 0, 1)}, 15},
		{"epoll_pwait2", 'd', "", args{fd("epoll"), out(48, "x"), oneOf(4, 1), timeout, opt(sigset), oneOf(8, 8, 4)}, 4},
		{"eventfd2", 'd', "fd.event", args{oneOf(0, 1, 5, -1), oneOf(0o4000, 0o4001, 0, 1, 0o2000000, 2)}, 6},
		{"eventfd", 'd', "fd.event", args{oneOf(0, 1)}, 1},
		{"write", 'd', "", args{fd("event"), structOf("8:", oneOf(1, 0, 5, -1, -2)), oneOf(8, 8, 8, 4, 16)}, 8},
		{"read", 'd', "", args{fd("event", "timer", "signal"), out(8, "x"), oneOf(8, 8, 4)}, 8},
		{"timerfd_create", 'd', "fd.timer", args{oneOf(0, 1, 7, 8, 2, -1), oneOf(0o4000, 0, 0o2004000, 1)}, 4},
		{"timerfd_settime", 'd', "", args{fd("timer"), oneOf(0, 1, 3, 8), structOf(oneOf("8:0 8:0 8:0 8:0", "8:0 8:0 8:0 8:1", "8:0 8:0 8:1000 8:0", "8:0 8:1 8:1000 8:0", "8:0 8:-1 8:0 8:0", "8:0 8:0 8:0 8:1000000000")), opt(out(32, "z16 .8 z8"))}, 5},
		{"timerfd_gettime", 'd', "", args{fd("timer"), out(32, "x16 .8 .8")}, 2},
		{"poll", 'd', "", args{inout("x", "4:", anyFD, "2:", events, "2:0 4:", anyFD, "2:", events, "2:0"), oneOf(2, 1, 0, 200), oneOf(0, 0, 1, -1)}, 8},
		{"ppoll", 'd', "", args{inout("x", "4:", anyFD, "2:", events, "2:0"), oneOf(1), timeout, opt(sigset), oneOf(8, 8, 4)}, 4},
		{"select", 'd', "", args{oneOf(0, 5, 16, 64, -1), inout("x", "8:", oneOf(0, 8, 0x30, 0xf8)), opt(inout("x", "8:", oneOf(0, 8, 0x30, 0xf8))), oneOf(0), inout("", "8:", oneOf(0, 0, -1), "8:", oneOf(0, 1000))}, 5},
		{"signalfd4", 'd', "fd.signal", args{rarely(3, oneOf(-1), fd("signal")), sigset, oneOf(8, 8, 4), oneOf(0o4000, 0, 1)}, 3},
		{"inotify_init1", 'd', "fd.inotify", args{oneOf(0o4000, 0o4000, 0, 1)}, 4},
		{"inotify_add_watch", 'd', "", args{fd("inotify"), path, oneOf(0xfff, 0x100, 0x2, 0x300, 0x80000fff, 0x20000fff, 0, 0x1000fff, 0x10000002)}, 10},
		{"inotify_rm_watch", 'd', "", args{fd("inotify"), oneOf(1, 2, 3, 99)}, 3},
		{"read", 'd', "", args{fd("inotify"), oneOf("*512:x", "*64:x", "*16:x"), oneOf(512, 64, 16, 0)}, 10},
		{"unlink", 'd', "", args{path}, 3},
		{"rename", 'd', "", args{path, path}, 4},
	},
	"memory": {
		{"mmap", 'a', "", args{window, spans, oneOf(3, 3, 1, 0, 5, 7, 2, 16), oneOf(0x32, 0x32, 0x31, 0x100022|0x10, 0x12, 0x32, 0x30, 0x33, 0x100132, 0x8032), oneOf(-1), oneOf(0, 0, 4096, 1)}, 15},
		{"mmap", 'a', "", args{window, spans, oneOf(3, 3, 1, 0), oneOf(0x11, 0x12, 0x11, 0x100011, 0x100012, 0x13, 0x80013), rarely(4, fd("file", "memfd"), anyFD), oneOf(0, 0, 4096, 8192, 1)}, 12},
		{"munmap", 'd', "", args{window, spans}, 8},
		{"mprotect", 'd', "", args{window, spans, oneOf(0, 1, 3, 7, 2, 8, "0x1000000", "0x2000000", 3)}, 10},
		{"mremap", 'a', "", args{window, spans, spans, oneOf(0, 1, 3, 5, 7, 2, 8), window}, 10},
		{"madvise", 'd', "", args{window, spans, oneOf(0, 1, 2, 3, 4, 8, 9, 10, 11, 12, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 100, 102, 103)}, 10},
		{"msync", 'd', "", args{window, spans, oneOf(1, 2, 4, 5, 6, 0, 8)}, 4},
		{"mlock", 'd', "", args{window, spans}, 3},
		{"mlock2", 'd', "", args{window, spans, oneOf(0, 1, 2)}, 2},
		{"munlock", 'd', "", args{window, spans}, 2},
		{"mincore", 'd', "", args{window, spans, oneOf("*300:")}, 3},
		{"poke", 'd', "", args{window, oneOf(1, 1, 10, 4097, 8192), oneOf(65, 66)}, 20},
		{"peek", 'd', "", args{window, oneOf(1, 1, 10, 4097, 8192)}, 20},
		{"memfd_create", 'd', "fd.memfd", args{lit("m"), oneOf(2)}, 3},
		{"ftruncate", 'd', "", args{fd("memfd", "file"), oneOf(0, 1, 4096, 8192, 10000)}, 8},
		{"read", 'd', "", args{anyFD, window, oneOf(1, 100, 4096, 10000)}, 4},
		{"write", 'd', "", args{anyFD, window, oneOf(1, 100, 4096, 10000)}, 4},
		{"process_vm_readv", 'd', "", args{rarely(4, oneOf(2, 4), pid), vec(outBuf), length, structOf("8:", window, "8:", spans), oneOf(1), oneOf(0, 0, 1)}, 4},
		{"process_vm_writev", 'd', "", args{rarely(4, oneOf(2, 4), pid), vec(inBuf), length, structOf("8:", window, "8:", spans), oneOf(1), oneOf(0, 0, 1)}, 4},
		{"mseal", 'd', "", args{window, spans, oneOf(0, 0, 1)}, 1},
		{"brk", 'z', "", args{oneOf(0, 1)}, 1},
		{"get_mempolicy", 'd', "", args{out(4, "x"), oneOf(0), oneOf(0), oneOf(0), oneOf(0, 0, 1)}, 1},
		{"membarrier", 'd', "", args{oneOf(0, 1, 8, 16, 4), oneOf(0, 0, 1), oneOf(0)}, 1},
	},
	"signals": {
		{"rt_sigaction", 'd', "", args{signo, opt(structOf("8:", oneOf("&h", 0, 1, "&h"), "8:", oneOf(0x4000004, 0x14000004, 0x44000004, 0x84000004, 0xc000004, 0x4000006), "8:&r 8:", oneOf(0, 0x200, -1))), opt(out(32, ".8 x8 .8 x8")), oneOf(8, 8, 8, 4)}, 10},
		{"rt_sigprocmask", 'd', "", args{oneOf(0, 1, 2, 2, 3), opt(sigset), opt(out(8, "x")), oneOf(8, 8, 8, 4)}, 12},
		{"rt_sigpending", 'd', "", args{out(8, "x"), oneOf(8, 8, 4, 16)}, 6},
		{"kill", 'd', "", args{ownPid, signo}, 12},
		{"kill", 'd', "", args{of("pid"), oneOf(9, 15, 19, 18, 0, 1)}, 4},
		{"tkill", 'd', "", args{oneOf(2, 3, 4, 0, 99), signo}, 8},
		{"tgkill", 'd', "", args{oneOf(2, 2, 4), oneOf(2, 3, 4, 0), signo}, 8},
		{"rt_sigqueueinfo", 'd', "", args{oneOf(2, 4, 4, 99), signo, structOf("4:", signo, "4:0 4:", oneOf(-1, -2, -6, 0, 1), "4:0 4:2 4:0 8:7 8:0 8:0 8:0 8:0 8:0 8:0 8:0 8:0 8:0 8:0 8:0 8:0")}, 5},
		{"rt_tgsigqueueinfo", 'd', "", args{oneOf(2, 4), oneOf(2, 3, 4), signo, structOf("4:0 4:0 4:", oneOf(-1, -6, 0, 1), "4:0 4:2 4:0 8:7 8:0 8:0 8:0 8:0 8:0 8:0 8:0 8:0 8:0 8:0 8:0 8:0")}, 3},
		{"rt_sigtimedwait", 'd', "", args{sigset, opt(out(128, "x4 x4 x4 .4 x8 .")), timeout, oneOf(8, 8, 4)}, 8},
		{"sigaltstack", 'd', "", args{oneOf(0), out(24, ".8 x4 .4 x8")}, 2},
		{"pause", 'd', "", nil, 1},
		{"rt_sigsuspend", 'd', "", args{sigset, oneOf(8)}, 2},
		{"signalfd4", 'd', "fd.signal", args{rarely(3, oneOf(-1), fd("signal")), sigset, oneOf(8, 8, 4), oneOf(0o4000, 0o4000, 0, 1)}, 5},
		{"read", 'd', "", args{fd("signal"), oneOf("*128:x4,x4,x4,x4,x4,."), oneOf(128, 128, 100, 256)}, 8},
		{"poll", 'd', "", args{inout("x", "4:", fd("signal"), "2:1 2:0"), oneOf(1), oneOf(0)}, 3},
		{"pidfd_send_signal", 'd', "", args{fd("pidfd"), signo, oneOf(0), oneOf(0, 0, 1, 2, 4, 8)}, 4},
		{"pidfd_open", 'd', "fd.pidfd", args{pid, oneOf(0, 0, 0o4000, 0o200, 1)}, 3},
		{"read", 'd', "", args{fd("pipe"), outBuf, length}, 4},
		{"setitimer", 'd', "", args{oneOf(0, 0, 1, 2, 3), structOf(oneOf("8:0 8:0 8:0 8:0", "8:0 8:0 8:1000 8:0", "8:0 8:0 8:0 8:1000000", "8:0 8:-1 8:0 8:0")), opt(out(32, "x16 z8 .8"))}, 3},
		{"getitimer", 'd', "", args{oneOf(0, 1, 2, 3), out(32, "x16 z8 .8")}, 2},
		{"alarm", 'z', "", args{oneOf(0, 0, 1000)}, 2},
		{"timer_create", 'd', "timer", args{oneOf(0, 1, 7, -1, 99), opt(structOf("8:7 4:", signo, "4:", oneOf(0, 1, 2, 4, 7), "4:", oneOf(2, 3, 4, 0), "4:0 8:0 8:0 8:0 8:0 8:0")), out(4, "x")}, 3},
		{"timer_settime", 'd', "", args{oneOf(0, 1, 2), oneOf(0, 1), structOf(oneOf("8:0 8:0 8:1000 8:0", "8:0 8:0 8:0 8:0", "8:0 8:-1 8:0 8:0")), opt(out(32, "x16 z8 .8"))}, 3},
		{"timer_gettime", 'd', "", args{oneOf(0, 1, 2), out(32, "x16 z8 .8")}, 2},
		{"timer_delete", 'd', "", args{oneOf(0, 1, 2)}, 2},
		{"timer_getoverrun", 'd', "", args{oneOf(0, 1, 2)}, 1},
	},
	"processes": {
		{"fork_pause", 'd', "pid", nil, 8},
		{"fork_exit", 'd', "pid", args{oneOf(0, 1, 7, 255)}, 8},
		{"wait4", 'd', "", args{rarely(3, of("pid"), oneOf(-1, 0, -2, 99999, "0x80000000")), opt(out(4, "x")), oneOf(1, 1, 3, 9, 11, 0x40000001, 0x80000001, 0x20000001, 16), oneOf(0)}, 12},
		{"wait4", 'd', "", args{of("pid"), opt(out(4, "x")), oneOf(0), oneOf(0)}, 4},
		{"waitid", 'd', "", args{oneOf(0, 1, 2, 3, 4), rarely(3, of("pid"), fd("pidfd")), opt(out(128, "x4 x4 x4 .4 x4 x4 x4 .")), oneOf(5, 1, 0x1000005, 0xf, 4, 0, 0x100000d), oneOf(0)}, 10},
		{"kill", 'd', "", args{of("pid"), oneOf(9, 15, 0, 19, 18, 10, 65)}, 10},
		{"getpid", 'd', "", nil, 1},
		{"gettid", 'd', "", nil, 1},
		{"getppid", 'd', "", nil, 1},
		{"getpgid", 'd', "", args{pid}, 3},
		{"getsid", 'd', "", args{pid}, 3},
		{"setpgid", 'd', "", args{rarely(3, of("pid"), pid), rarely(3, of("pid"), pid)}, 6},
		{"setsid", 'd', "", nil, 2},
		{"getpgrp", 'd', "", nil, 1},
		{"pidfd_open", 'd', "fd.pidfd", args{of("pid"), oneOf(0, 0, 0o4000, 1)}, 6},
		{"pidfd_send_signal", 'd', "", args{fd("pidfd"), oneOf(9, 0, 15, 19, 18), oneOf(0), oneOf(0, 0, 1, 4)}, 5},
		{"pidfd_getfd", 'd', "fd.file", args{fd("pidfd"), oneOf(0, 1, 3, 4, 50), oneOf(0, 0, 1)}, 3},
		{"poll", 'd', "", args{inout("x", "4:", fd("pidfd"), "2:1 2:0"), oneOf(1), oneOf(0)}, 4},
		{"getpriority", 'd', "", args{oneOf(0, 1, 2, 3), pid}, 3},
		{"setpriority", 'd', "", args{oneOf(0, 1, 2, 3), pid, oneOf(0, 1, 10, 19, 30)}, 3},
		{"sched_getscheduler", 'd', "", args{pid}, 2},
		{"sched_getparam", 'd', "", args{pid, out(4, "x")}, 2},
		{"sched_setscheduler", 'd', "", args{pid, oneOf(0, 3, 5, 9, -1), structOf("4:", oneOf(0, 0, 1, -1))}, 3},
		{"sched_setparam", 'd', "", args{pid, structOf("4:", oneOf(0, 0, 1, -1))}, 2},
		{"sched_get_priority_max", 'd', "", args{oneOf(0, 1, 2, 3, 5, 6, 9)}, 1},
		{"sched_getattr", 'd', "", args{pid, out(56, "x4 x4 x8 x4 x4 ."), oneOf(56, 48, 47, 0), oneOf(0, 0, 1)}, 2},
		{"prlimit64", 'd', "", args{pid, oneOf(0, 1, 2, 3, 4, 7, 11, 12, 13, 14, 15, 16), opt(structOf("8:", oneOf(0, 10, 100, -1), "8:", oneOf(0, 10, 100, -1))), opt(out(16, "x"))}, 4},
		{"getrlimit", 'd', "", args{oneOf(4, 7, 11, 12, 13, 14, 16, -1), out(16, "x")}, 2},
		{"prctl", 'd', "", args{oneOf(1, 2, 3, 4, 7, 8, 15, 16, 21, 23, 27, 28, 30, 36, 37, 38, 39, 41, 42, 47, 47, 99), oneOf(0, 1, 2, 3, 9, 10, 65, 21, 40, 41, "*16:x", "\"616263640000", "~"), oneOf(0, 0, 1, 2), oneOf(0), oneOf(0)}, 12},
		{"prctl", 'd', "", args{oneOf(40), oneOf("*8:z", "~"), oneOf(0), oneOf(0), oneOf(0)}, 1},
		{"prctl", 'd', "", args{oneOf(29), oneOf(0, 1, 50000), oneOf(0), oneOf(0), oneOf(0)}, 1},
		{"get_robust_list", 'd', "", args{pid, out(8, "."), out(8, "x")}, 2},
		{"set_tid_address", 'd', "", args{oneOf(0, 8)}, 1},
		{"getrusage", 'd', "", args{oneOf(0, -1, 1, 2, -2), out(144, ".")}, 1},
		{"times", 'z', "", args{out(32, ".")}, 1},
		{"process_madvise", 'd', "", args{fd("pidfd"), structOf("8:", window, "8:4096"), oneOf(1), oneOf(4, 20, 21, 99), oneOf(0, 0, 1)}, 1},
		{"ioprio_get", 'd', "", args{oneOf(1, 2, 3, 0), pid}, 1},
		{"ioprio_set", 'd', "", args{oneOf(1, 2, 3, 0), pid, oneOf(0, 0x4004, 0x6000, 0x4009, 0x8000)}, 1},
		{"personality", 'd', "", args{oneOf("0xffffffff", 0, 0x40000, 0x0400000)}, 1},
		{"getcpu", 'd', "", args{out(4, "."), out(4, "x"), oneOf(0)}, 1},
		{"sched_yield", 'd', "", nil, 1},
		{"unshare", 'd', "", args{rarely(4, oneOf(0, 0x200, 0x400, 0x20000, 0x4000000, 0x8000000), oneOf(0x10000000, 0x10000, 0x100, 0x20000000, 1))}, 2},
	},
	"futex": {
		{"futex", 'd', "", args{word, oneOf(0, 128, 0), oneOf(0, 0, 1, 5), timeout, oneOf(0), oneOf(0)}, 12},
		{"futex", 'd', "", args{word, oneOf(1, 129, 1), oneOf(0, 1, 5, -1)}, 12},
		{"futex", 'd', "", args{word, oneOf(9, 137), oneOf(0, 1), timeout, oneOf(0), oneOf(1, -1, 0, 2)}, 6},
		{"futex", 'd', "", args{word, oneOf(10, 138), oneOf(1, 2, 5), oneOf(0), oneOf(0), oneOf(1, -1, 0, 2)}, 6},
		{"futex", 'd', "", args{word, oneOf(3, 131, 4, 132), oneOf(0, 1, -1), oneOf(0, 1, 5, -1), word, oneOf(0, 1)}, 10},
		{"futex", 'd', "", args{word, oneOf(5, 133), oneOf(0, 1, 5), oneOf(0, 1, 5), word, oneOf(0, 0x01001000, 0x10001000, "0x51fff001", 0x20003001)}, 6},
		{"futex", 'd', "", args{word, oneOf(6, 134, 13, 8, 7), oneOf(0), timeout, oneOf(0), oneOf(0)}, 6},
		{"futex", 'd', "", args{word, oneOf(7, 135, 8), oneOf(0)}, 6},
		{"futex_waitv", 'd', "", args{structOf("8:", oneOf(0, 1), "8:", word, "4:", oneOf(2, 0x82, 0, 1), "4:0 8:", oneOf(0), "8:", word, "4:2 4:0"), oneOf(1, 2, 0, 129), oneOf(0, 0, 1), timeout, oneOf(1, 0, 5)}, 5},
		{"futex_wake", 'd', "", args{word, oneOf(-1, 1, 0), oneOf(1, 5), oneOf(2, 0x82, 0)}, 5},
		{"futex_wait", 'd', "", args{word, oneOf(0, 1), oneOf(-1, 1, 0), oneOf(2, 0x82, 0), oneOf(0), oneOf(1)}, 4},
		{"poke", 'd', "", args{word, oneOf(1, 4), oneOf(0, 1, 5)}, 10},
		{"peek", 'd', "", args{word, oneOf(4)}, 8},
		{"tgkill", 'd', "", args{oneOf(2, 2, 4), oneOf(2, 3, 4), oneOf(10, 12)}, 3},
	},
	"creds": {
		{"setuid", 'd', "", args{oneOf(0, 1000, 2000, -1)}, 3},
		{"setgid", 'd', "", args{oneOf(0, 1000, 2000, -1)}, 3},
		{"setreuid", 'd', "", args{oneOf(0, 1000, -1), oneOf(0, 1000, -1)}, 4},
		{"setregid", 'd', "", args{oneOf(0, 1000, -1), oneOf(0, 1000, -1)}, 3},
		{"setresuid", 'd', "", args{oneOf(0, 1000, -1), oneOf(0, 1000, -1), oneOf(0, 1000, -1)}, 6},
		{"setresgid", 'd', "", args{oneOf(0, 1000, -1), oneOf(0, 1000, -1), oneOf(0, 1000, -1)}, 5},
		{"setfsuid", 'd', "", args{oneOf(0, 1000, -1)}, 3},
		{"setfsgid", 'd', "", args{oneOf(0, 1000, -1)}, 2},
		{"getresuid", 'd', "", args{out(4, "x"), out(4, "x"), out(4, "x")}, 5},
		{"getresgid", 'd', "", args{out(4, "x"), out(4, "x"), out(4, "x")}, 4},
		{"setgroups", 'd', "", args{oneOf(0, 1, 2, -1, 100000), structOf("4:", oneOf(0, 1000, 5), "4:7")}, 4},
		{"getgroups", 'd', "", args{oneOf(0, 1, 2, -1), out(8, "x")}, 4},
		{"capget", 'd', "", args{inout("x", "4:", oneOf(0x20080522, 0x20080522, 0x19980330, 0), "4:", oneOf(0, 0, 2, 4, 99)), opt(out(24, "x"))}, 5},
		{"capset", 'd', "", args{inout("x", "4:0x20080522 4:", oneOf(0, 0, 4)), structOf("4:", oneOf(0, 0xff, 1, 0xc0), "4:", oneOf(0, 0xff, 1, 0xc0), "4:", oneOf(0, 0xff, 1), "4:0 4:0 4:0")}, 4},
		{"prctl", 'd', "", args{oneOf(7, 8, 23, 24, 27, 28, 38, 39, 47, 3), oneOf(0, 1, 2, 3, 6, 7, 4, 0x2f), oneOf(0, 1, 6), oneOf(0), oneOf(0)}, 8},
		{"chown", 'd', "", args{path, oneOf(-1, 0, 1000), oneOf(-1, 0, 1000)}, 4},
		{"chmod", 'd', "", args{path, mode}, 5},
		{"stat", 'd', "", args{path, out(144, fStat)}, 5},
		{"access", 'd', "", args{path, oneOf(0, 1, 2, 4, 7)}, 5},
		{"kill", 'd', "", args{oneOf(2, 4), oneOf(0, 10)}, 3},
		{"unlink", 'd', "", args{path}, 4},
		{"rename", 'd', "", args{path, path}, 3},
		{"truncate", 'd', "", args{path, oneOf(0, 1, 5000)}, 3},
		{"utimensat", 'd', "", args{dirfd, path, stamp, atflag}, 4},
		{"unshare", 'd', "", args{oneOf(0x10000000, 0x20000, 0x4000000)}, 1},
	},
	"ipc": {
		{"msgget", 'd', "msg", args{oneOf(0, 1, 2), oneOf(0o1600, 0o600, 0o3600, 0o1666)}, 6},
		{"msgsnd", 'd', "", args{of("msg"), structOf("8:", oneOf(1, 2, 0, -1), arg(oneOf("#414243", "#4142434445464748"))), oneOf(0, 1, 3, 8, 9000, -1), oneOf(0o4000)}, 8},
		{"msgrcv", 'd', "", args{of("msg"), oneOf("*64:x", "*16:x"), oneOf(0, 3, 8, -1), oneOf(0, 1, 2, -2, -1), oneOf(0o4000, 0o14000, 0o24000, 0o44000)}, 8},
		{"msgctl", 'd', "", args{of("msg"), oneOf(0, 2, 2, 3, 99), out(120, "x4 x4 x4 x4 x4 x4 .24 .24 x8 x8 x8 x4 x4 .")}, 4},
		{"semget", 'd', "sem", args{oneOf(0, 1, 2), oneOf(0, 1, 3, 5, -1, 100000), oneOf(0o1600, 0o600, 0o3600)}, 6},
		{"semop", 'd', "", args{of("sem"), structOf("2:", oneOf(0, 1, 2, 9), "2:", oneOf(1, -1, 0, 5), "2:", oneOf(0o4000, 0o4000, 0, 0o14000), "2:0 2:", oneOf(1, -1, 0), "2:2048 2:0"), oneOf(1, 1, 2, 0, 501)}, 10},
		{"semtimedop", 'd', "", args{of("sem"), structOf("2:", oneOf(0, 1, 2), "2:", oneOf(1, -1, 0), "2:0"), oneOf(1), timeout}, 4},
		{"semctl", 'd', "", args{of("sem"), oneOf(0, 1, 2, 9, -1), oneOf(11, 12, 14, 15, 16, 0), oneOf(0, 1, 5, 40000, -1)}, 8},
		{"semctl", 'd', "", args{of("sem"), oneOf(0), oneOf(13, 17), oneOf("{ 2:1 2:2 2:3 2:4 2:5 }x", "*10:x")}, 4},
		{"semctl", 'd', "", args{of("sem"), oneOf(0), oneOf(2), out(104, "x4 x4 x4 x4 x4 x4 .24 z8 .24 x8 .")}, 3},
		{"shmget", 'd', "shm", args{oneOf(0, 1, 2), oneOf(4096, 1, 0, 8192, -1, 100), oneOf(0o1600, 0o600, 0o3600, 0o1666)}, 6},
		{"shmat", 'a', "", args{of("shm"), window, oneOf(0o40000, 0o50000, 0, 0o20000, 0o60000)}, 8},
		{"shmdt", 'd', "", args{window}, 5},
		{"shmctl", 'd', "", args{of("shm"), oneOf(0, 2, 2, 11, 12), out(112, "x4 x4 x4 x4 x4 x4 .24 x8 z8 z8 z8 x4 x4 x8 .")}, 5},
		{"poke", 'd', "", args{window, oneOf(1, 100), oneOf(65, 66)}, 6},
		{"peek", 'd', "", args{window, oneOf(1, 100)}, 6},
	},
	"time": {
		{"clock_gettime", 'd', "", args{oneOf(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, -1, -6), out(16, "z")}, 4},
		{"clock_getres", 'd', "", args{oneOf(0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 99), opt(out(16, "x"))}, 3},
		{"nanosleep", 'd', "", args{structOf(oneOf("8:0 8:0", "8:0 8:1000000", "8:1000 8:0", "8:-1 8:0", "8:0 8:1000000000")), opt(out(16, "z"))}, 4},
		{"clock_nanosleep", 'd', "", args{oneOf(0, 1, 7, 4, 99), oneOf(0, 1, 2), structOf(oneOf("8:0 8:0", "8:0 8:1000000", "8:-1 8:0")), opt(out(16, "z"))}, 4},
		{"clock_nanosleep", 'd', "", args{oneOf(2, 3, -6, -2), oneOf(0, 1, 2), structOf(oneOf("8:0 8:0", "8:1000 8:0", "8:-1 8:0")), opt(out(16, "z"))}, 1},
		{"gettimeofday", 'd', "", args{opt(out(16, "z")), opt(out(8, "x"))}, 2},
		{"time", 'z', "", args{opt(out(8, "z"))}, 1},
		{"timer_create", 'd', "timer", args{oneOf(0, 1, 7, 2, 3, -1, 99), opt(structOf("8:7 4:", signo, "4:", oneOf(0, 1, 2, 4, 7), "4:", oneOf(2, 3, 4, 0), "4:0 8:0 8:0 8:0 8:0 8:0")), out(4, "x")}, 6},
		{"timer_settime", 'd', "", args{oneOf(0, 1, 2), oneOf(0, 1), structOf(oneOf("8:0 8:0 8:1000 8:0", "8:0 8:0 8:0 8:0", "8:0 8:-1 8:0 8:0")), opt(out(32, "x16 z8 .8"))}, 5},
		{"timer_gettime", 'd', "", args{oneOf(0, 1, 2), out(32, "x16 z8 .8")}, 4},
		{"timer_delete", 'd', "", args{oneOf(0, 1, 2)}, 3},
		{"timer_getoverrun", 'd', "", args{oneOf(0, 1, 2)}, 2},
		{"tgkill", 'd', "", args{oneOf(2, 2, 4), oneOf(2, 3, 4), oneOf(10, 12)}, 3},
		{"adjtimex", 'd', "", args{inout("", "4:", oneOf(0, 0, 1))}, 1},
		{"sysinfo", 'd', "", args{out(112, ".")}, 1},
		{"uname", 'd', "", args{out(390, "x65 x65 .260")}, 1},
		{"sethostname", 'd', "", args{lit("x", "yy"), oneOf(0, 1, 2, 65, -1)}, 2},
		{"setdomainname", 'd', "", args{lit("x", "yy"), oneOf(0, 1, 2, 65, -1)}, 1},
	},
	"mounts": {
		{"mount", 'd', "", args{lit("t", "none", ""), lit("d", "e", "d/e", "a", "/"), lit("tmpfs", "tmpfs", "tmpfs", "nofs", ""), flags(1, 2, 4, 8, 0x400, 0x200000), opt(lit("size=1m", "mode=700", "bad=1", "nr_inodes=5"))}, 8},
		{"mount", 'd', "", args{path, path, oneOf(0), oneOf(0x1000, 0x5000, 0x2000, 0x1020, 0x1021), oneOf(0)}, 8},
		{"mount", 'd', "", args{oneOf(0), lit("d", "e", "d/e", "a", "/tmp/w", "/"), oneOf(0), oneOf(0x40000, 0x80000, 0x100000, 0x20000, 0x44000, 0x1021, 0x1020, 0x21, 0x20, 0xc0000, 0x1026), oneOf(0)}, 6},
		{"umount2", 'd', "", args{rarely(3, lit("d", "e", "d/e"), path), oneOf(0, 0, 2, 4, 8, 1, 16)}, 8},
		{"stat", 'd', "", args{lit("d", "e", "d/e", "d/a", "e/a"), out(144, fStat)}, 5},
		{"statfs", 'd', "", args{lit("d", "e", "d/e", "d/a", "e/a"), out(120, "x8 x8 .48 x8 x8 x8")}, 4},
		{"rename", 'd', "", args{path, path}, 4},
		{"rmdir", 'd', "", args{path}, 4},
		{"unlink", 'd', "", args{path}, 4},
		{"link", 'd', "", args{path, path}, 3},
		{"chdir", 'd', "", args{path}, 3},
		{"getcwd", 'd', "", args{outBuf, length}, 3},
		{"pivot_root", 'd', "", args{lit("d", "e", "."), lit("d/e", "d/a", ".", "e/a")}, 2},
		{"unshare", 'd', "", args{oneOf(0x20000, 0x20000, 0x10020000)}, 1},
		{"chroot", 'd', "", args{lit("d", ".")}, 1},
		{"mkdirat", 'd', "", args{dirfd, path, mode}, 5},
	},
}

// msg is a struct msghdr with two buffers; control is what it is in front of a descriptor, or a buffer.
func msg(buf arg, control, kind string) arg {
	return func(g *gen) string {
		v := vec(buf)(g)
		n := g.last
		c, cl := "8:0", "0"
		switch {
		case kind != "":
			c, cl = control+anyFD(g)+" 4:0 }", pick(g, []string{"20", "24", "20", "16", "12", "200"})
		case control != "":
			c, cl = control, pick(g, []string{"64", "24", "20", "0", "16"})
		}
		name := "8:0 8:0"
		if g.one(6) {
			name = sockaddr(g)
			name += " 8:" + g.last
		}
		if len(v) > 1 && v[0] != '{' && v[0] != '"' || v == "0" || v == "~" {
			v = "8:" + v
		}
		if name[0] != '8' && (name[0] == '0' || name[0] == '~') {
			name = "8:" + name
		}
		return fmt.Sprintf("{ %s %s 8:%s %s 8:%s 8:0 }%s", name, v, n, c, cl, map[bool]string{true: ".8,x4,.4,.8,x8,.8,x8,x8", false: ""}[kind == "" && control != ""])
	}
}
