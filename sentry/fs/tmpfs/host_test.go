package tmpfs

import (
	"fmt"
	"math/rand"
	"os"
	"runtime"
	"sort"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"moat/sentry/kernel/auth"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

// host does operations on the host's tmpfs, below a directory that the calling thread is confined to.
type host struct{}

// moat does the same here.
type moat struct{ e *env }

type subject interface {
	as(uid int) subject
	open(path string, flags int, mode uint32) string
	write(path string, flags int, n int) error
	mkdir(path string, mode uint32) error
	rmdir(path string) error
	unlink(path string) error
	rename(a, b string, flags uint) error
	link(a, b string, flags int) error
	symlink(target, path string) error
	mknod(path string, mode uint32, dev int) error
	chmod(path string, mode uint32) error
	chown(path string, uid, gid int, nofollow bool) error
	truncate(path string, n int64) error
	access(path string, mode uint32) error
	touch(path string, now bool) error
	readlink(path string) string
	stat(path string, nofollow bool) string
	setxattr(path, name, value string, flags int) error
	getxattr(path, name string) string
	list(path string) string
}

func (host) as(uid int) subject {
	unix.Setfsuid(uid)
	unix.Setfsgid(uid)
	return host{}
}
func (host) open(path string, flags int, mode uint32) string {
	fd, err := unix.Open(path, flags, mode)
	if err != nil {
		return err.Error()
	}
	defer unix.Close(fd)
	fl, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	return fmt.Sprintf("%#x", fl&^0x8000)
}
func (host) write(path string, flags int, n int) error {
	fd, err := unix.Open(path, flags, 0o644)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, make([]byte, n))
	return err
}
func (host) mkdir(path string, mode uint32) error { return unix.Mkdir(path, mode) }
func (host) rmdir(path string) error              { return unix.Rmdir(path) }
func (host) unlink(path string) error             { return unix.Unlink(path) }
func (host) rename(a, b string, flags uint) error {
	return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, flags)
}
func (host) link(a, b string, flags int) error {
	return unix.Linkat(unix.AT_FDCWD, a, unix.AT_FDCWD, b, flags)
}
func (host) symlink(target, path string) error             { return unix.Symlink(target, path) }
func (host) mknod(path string, mode uint32, dev int) error { return unix.Mknod(path, mode, dev) }
func (host) chmod(path string, mode uint32) error          { return unix.Chmod(path, mode) }
func (host) chown(path string, uid, gid int, nofollow bool) error {
	f := 0
	if nofollow {
		f = unix.AT_SYMLINK_NOFOLLOW
	}
	return unix.Fchownat(unix.AT_FDCWD, path, uid, gid, f)
}
func (host) truncate(path string, n int64) error { return unix.Truncate(path, n) }
func (host) access(path string, mode uint32) error {
	return unix.Faccessat2(unix.AT_FDCWD, path, mode, unix.AT_EACCESS)
}
func (host) touch(path string, now bool) error {
	ts := []unix.Timespec{{Sec: 5}, {Sec: 6}}
	if now {
		ts = []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}}
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, ts, 0)
}
func (host) readlink(path string) string {
	var b [4096]byte
	n, err := unix.Readlink(path, b[:])
	if err != nil {
		return err.Error()
	}
	return string(b[:n])
}
func (host) stat(path string, nofollow bool) string {
	var st unix.Stat_t
	f := 0
	if nofollow {
		f = unix.AT_SYMLINK_NOFOLLOW
	}
	if err := unix.Fstatat(unix.AT_FDCWD, path, &st, f); err != nil {
		return err.Error()
	}
	size, blocks := st.Size, st.Blocks
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		blocks = 0
	}
	return fmt.Sprintf("%o %d %d:%d %d %d", st.Mode, st.Nlink, st.Uid, st.Gid, size, blocks)
}
func (host) setxattr(path, name, value string, flags int) error {
	return unix.Setxattr(path, name, []byte(value), flags)
}
func (host) getxattr(path, name string) string {
	var b [4096]byte
	n, err := unix.Getxattr(path, name, b[:])
	if err != nil {
		return err.Error()
	}
	return string(b[:n])
}
func (host) list(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return err.(*os.PathError).Err.Error()
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return unix.ENOTDIR.Error()
	}
	sort.Strings(names)
	return strings.Join(names, " ")
}

func (m moat) as(uid int) subject {
	ns := m.e.Credentials().UserNS
	c := auth.NewRoot(ns).Clone()
	c.FSUID, c.FSGID = auth.KUID(uid), auth.KGID(uid)
	if uid != 0 {
		const fsCaps = 1<<0 | 1<<1 | 1<<2 | 1<<3 | 1<<4 | 1<<9 | 1<<27 | 1<<32 // CAP_FS_SET
		c.Effective &^= fsCaps
	}
	return moat{&env{vfs.WithCredentials(c), m.e.root, m.e.cwd}}
}
func (m moat) with(path string, flags uint32, fn func(p vfs.Path) error) error {
	p, err := vfs.Resolve(m.e, m.e.cwd, path, flags)
	if err != nil {
		return err
	}
	defer p.DecRef()
	return fn(p)
}
func (m moat) open(path string, flags int, mode uint32) string {
	f, err := vfs.Open(m.e, m.e.cwd, path, vfs.OpenOptions{Flags: uint32(flags), Mode: uint16(mode)})
	if err != nil {
		return err.Error()
	}
	defer f.DecRef()
	return fmt.Sprintf("%#x", f.Flags())
}
func (m moat) write(path string, flags int, n int) error {
	f, err := vfs.Open(m.e, m.e.cwd, path, vfs.OpenOptions{Flags: uint32(flags), Mode: 0o644})
	if err != nil {
		return err
	}
	defer f.DecRef()
	_, err = f.Write(m.e, usermem.Bytes(make([]byte, n)), 0)
	return err
}
func (m moat) mkdir(path string, mode uint32) error {
	return vfs.Mkdir(m.e, m.e.cwd, path, uint16(mode))
}
func (m moat) rmdir(path string) error  { return vfs.Rmdir(m.e, m.e.cwd, path) }
func (m moat) unlink(path string) error { return vfs.Unlink(m.e, m.e.cwd, path) }
func (m moat) rename(a, b string, flags uint) error {
	if err := vfs.RenameFlags(uint32(flags)); err != nil {
		return err
	}
	return vfs.Rename(m.e, m.e.cwd, a, m.e.cwd, b, uint32(flags))
}
func (m moat) link(a, b string, flags int) error {
	f := uint32(0)
	if flags != 0 {
		f = vfs.Follow
	}
	return m.with(a, f, func(p vfs.Path) error { return vfs.Link(m.e, p, m.e.cwd, b) })
}
func (m moat) symlink(target, path string) error { return vfs.Symlink(m.e, target, m.e.cwd, path) }
func (m moat) mknod(path string, mode uint32, dev int) error {
	return vfs.Mknod(m.e, m.e.cwd, path, uint16(mode), uint64(dev))
}
func (m moat) chmod(path string, mode uint32) error {
	return m.with(path, vfs.Follow, func(p vfs.Path) error { return vfs.Chmod(m.e, p, uint16(mode)) })
}
func (m moat) chown(path string, uid, gid int, nofollow bool) error {
	f := uint32(vfs.Follow)
	if nofollow {
		f = 0
	}
	return m.with(path, f, func(p vfs.Path) error { return vfs.Chown(m.e, p, auth.KUID(uid), auth.KGID(gid)) })
}
func (m moat) truncate(path string, n int64) error {
	if n < 0 {
		return unix.EINVAL
	}
	return m.with(path, vfs.Follow, func(p vfs.Path) error { return vfs.Truncate(m.e, p, n) })
}
func (m moat) access(path string, mode uint32) error {
	return m.with(path, vfs.Follow, func(p vfs.Path) error { return vfs.Access(m.e, p, uint(mode)) })
}
func (m moat) touch(path string, now bool) error {
	s := vfs.SetAttr{Valid: vfs.SetAtime | vfs.SetMtime, Atime: 5e9, Mtime: 6e9}
	return m.with(path, vfs.Follow, func(p vfs.Path) error { return vfs.Utimes(m.e, p, s, now) })
}
func (m moat) readlink(path string) (s string) {
	err := m.with(path, 0, func(p vfs.Path) (err error) {
		s, err = vfs.Readlink(m.e, p)
		return err
	})
	if err != nil {
		return err.Error()
	}
	return s
}
func (m moat) stat(path string, nofollow bool) (s string) {
	f := uint32(vfs.Follow)
	if nofollow {
		f = 0
	}
	err := m.with(path, f, func(p vfs.Path) error {
		a, err := vfs.Stat(m.e, p)
		s = fmt.Sprintf("%o %d %d:%d %d %d", a.Mode, a.Nlink, a.UID, a.GID, a.Size, a.Blocks)
		return err
	})
	if err != nil {
		return err.Error()
	}
	return s
}
func (m moat) setxattr(path, name, value string, flags int) error {
	return m.with(path, vfs.Follow, func(p vfs.Path) error { return vfs.SetXattr(m.e, p, name, []byte(value), uint32(flags)) })
}
func (m moat) getxattr(path, name string) (s string) {
	err := m.with(path, vfs.Follow, func(p vfs.Path) error {
		b, err := vfs.GetXattr(m.e, p, name)
		s = string(b)
		return err
	})
	if err != nil {
		return err.Error()
	}
	return s
}
func (m moat) list(path string) string {
	f, err := vfs.Open(m.e, m.e.cwd, path, vfs.OpenOptions{})
	if err != nil {
		return err.Error()
	}
	defer f.DecRef()
	var names []string
	err = f.ReadDir(m.e, func(d vfs.Dirent) error {
		if d.Name != "." && d.Name != ".." {
			names = append(names, d.Name)
		}
		return nil
	})
	if err != nil {
		return err.Error()
	}
	sort.Strings(names)
	return strings.Join(names, " ")
}

// TestLikeHost does the same random things on the host's tmpfs and here, as root and as a user, and compares every answer.
func TestLikeHost(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, for chroot")
	}
	dir, err := os.MkdirTemp("/dev/shm", "moat")
	if err != nil {
		t.Skip(err)
	}
	defer os.RemoveAll(dir)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread is changed
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			t.Log(err)
			return
		}
		unix.Chroot(dir)
		unix.Chdir("/")
		unix.Umask(0)
		for seed := range int64(12) {
			unix.Chown("/", 0, 0)
			unix.Chmod("/", 0o777)
			for _, x := range []string{"user.x", "user.y", "trusted.y", "security.z"} {
				unix.Removexattr("/", x)
			}
			compareHost(t, seed)
			for _, n := range []string{"a", "b", "c", "d", "f"} {
				removeAll(n)
			}
			if t.Failed() {
				return
			}
		}
	}()
	<-done
}

func removeAll(path string) {
	ents, _ := os.ReadDir(path)
	for _, e := range ents {
		removeAll(path + "/" + e.Name())
	}
	os.Remove(path)
}

func compareHost(t *testing.T, seed int64) {
	e, _, _ := newEnv(t)
	root, _ := vfs.Resolve(e, e.cwd, "/", 0)
	vfs.Chmod(e, root, 0o777)
	root.DecRef()
	r := rand.New(rand.NewSource(seed))
	name := func() string {
		s := ""
		for i := range 1 + r.Intn(3) {
			if i > 0 || r.Intn(3) == 0 {
				s += "/"
			}
			s += []string{"a", "b", "c", "d", "f", "a", "b", "c", ".", ".."}[r.Intn(10)]
		}
		if r.Intn(12) == 0 {
			s += "/"
		}
		return s
	}
	pick := func(l ...int) int { return l[r.Intn(len(l))] }
	var subjects [2]subject
	for step := range 6000 {
		if step%20 == 0 {
			uid := pick(0, 0, 1000, 1001)
			subjects = [2]subject{host{}.as(uid), moat{e}.as(uid)}
		}
		a, b := name(), name()
		mode := uint32(pick(0o755, 0o700, 0o777, 0o1777, 0o2755, 0o6755, 0o644, 0o444, 0, 0o111, 0o2777))
		flags := pick(0, 1, 2) | pick(0, 0, unix.O_CREAT) | pick(0, 0, unix.O_EXCL) | pick(0, 0, 0, unix.O_TRUNC) |
			pick(0, 0, unix.O_NOFOLLOW) | pick(0, 0, 0, unix.O_DIRECTORY) | pick(0, 0, unix.O_APPEND) | pick(0, 0, 0, unix.O_PATH) | unix.O_NONBLOCK
		if flags&unix.O_PATH != 0 {
			flags &= unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW
		}
		if flags&unix.O_DIRECTORY != 0 {
			flags &^= unix.O_CREAT
		}
		if flags&unix.O_CREAT != 0 {
			flags &^= unix.O_NOFOLLOW // a symlink in a sticky directory: may_create_in_sticky
		}
		var what string
		var fn func(s subject) any
		switch r.Intn(22) {
		case 0, 1:
			what, fn = "mkdir", func(s subject) any { return s.mkdir(a, mode) }
		case 2:
			what, fn = "rmdir", func(s subject) any { return s.rmdir(a) }
		case 3:
			what, fn = "unlink", func(s subject) any { return s.unlink(a) }
		case 4, 5:
			fl := uint(pick(0, 0, 1, 2, 3, 4))
			what, fn = fmt.Sprint("rename ", b, fl), func(s subject) any { return s.rename(a, b, fl) }
		case 6:
			fl := pick(0, unix.AT_SYMLINK_FOLLOW)
			what, fn = "link "+b, func(s subject) any { return s.link(a, b, fl) }
		case 7:
			what, fn = "symlink "+b, func(s subject) any { return s.symlink(b, a) }
		case 8:
			m := mode | uint32(pick(unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFREG, unix.S_IFCHR, unix.S_IFDIR, 0))
			dev := pick(0, int(unix.Mkdev(1, 3)))
			if m&unix.S_IFMT != unix.S_IFCHR {
				dev = 0
			}
			what, fn = fmt.Sprintf("mknod %o", m), func(s subject) any { return s.mknod(a, m, dev) }
		case 9:
			what, fn = fmt.Sprintf("chmod %o", mode), func(s subject) any { return s.chmod(a, mode) }
		case 10:
			u, g, nf := pick(-1, 0, 1000, 1001), pick(-1, 0, 1000, 1001), r.Intn(2) == 0
			what, fn = fmt.Sprint("chown ", u, g, nf), func(s subject) any { return s.chown(a, u, g, nf) }
		case 11:
			n := int64(pick(0, 1, 4096, 10000, -1))
			what, fn = fmt.Sprint("truncate ", n), func(s subject) any { return s.truncate(a, n) }
		case 12:
			m := uint32(r.Intn(8))
			what, fn = fmt.Sprint("access ", m), func(s subject) any { return s.access(a, m) }
		case 13:
			now := r.Intn(2) == 0
			what, fn = fmt.Sprint("utimes ", now), func(s subject) any { return s.touch(a, now) }
		case 14:
			what, fn = "readlink", func(s subject) any { return s.readlink(a) }
		case 15:
			what, fn = "list", func(s subject) any {
				if !strings.HasPrefix(s.stat(a, false), "4") {
					return nil
				}
				return s.list(a)
			}
		case 16:
			v, fl := []string{"", "one", "two"}[r.Intn(3)], pick(0, 0, 1, 2)
			x := []string{"user.x", "user.y", "trusted.y", "security.z", "nope.q", "user."}[r.Intn(6)]
			what, fn = fmt.Sprint("setxattr ", x, fl), func(s subject) any { return s.setxattr(a, x, v, fl) }
		case 17:
			x := []string{"user.x", "user.y", "trusted.y", "security.z", "nope.q"}[r.Intn(5)]
			what, fn = "getxattr "+x, func(s subject) any { return s.getxattr(a, x) }
		case 18:
			n := pick(1, 100, 5000)
			what, fn = fmt.Sprintf("write %#x %d", flags, n), func(s subject) any {
				if s.stat(a, false) != "" && isSpecial(s.stat(a, false)) {
					return nil
				}
				return s.write(a, flags, n)
			}
		case 19:
			nf := r.Intn(2) == 0
			what, fn = "stat", func(s subject) any { return s.stat(a, nf) }
		default:
			what, fn = fmt.Sprintf("open %#x %o", flags, mode), func(s subject) any {
				if isSpecial(s.stat(a, false)) && flags&unix.O_PATH == 0 {
					return nil
				}
				return s.open(a, flags, mode)
			}
		}
		h, m := fn(subjects[0]), fn(subjects[1])
		if fmt.Sprint(h) != fmt.Sprint(m) {
			t.Errorf("seed %d step %d: %q %s: host %v, moat %v (stat %s | %s; parent %s)", seed, step, a, what, h, m, host{}.as(0).stat(a, true), moat{e}.as(0).stat(a, true), host{}.stat(a+"/..", true))
			for _, n := range []string{"a", "b", "c", "d", "f"} {
				t.Log(n, host{}.stat(n, true), host{}.readlink(n), moat{e}.as(0).stat(n, true), moat{e}.readlink(n))
			}
			return
		}
	}
	host{}.as(0)
}

// isSpecial reports whether the file is a device, socket or FIFO: opening those needs drivers.
func isSpecial(stat string) bool {
	m, _, _ := strings.Cut(stat, " ")
	return len(m) == 5 && (m[0] == '1' || m[0] == '2') || strings.HasPrefix(m, "14")
}
