package syscalls

import (
	"encoding/binary"

	"moat/sentry/kernel"
	"moat/sentry/vfs"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

func init() {
	register(
		full(2, "open", "path oflags mode", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return openAt(t, cwdArg, a[0], openFlags(a[1].Uint()), a[2].Mode())
		}),
		full(257, "openat", "dirfd path oflags mode", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return openAt(t, a[0], a[1], openFlags(a[2].Uint()), a[3].Mode())
		}),
		full(85, "creat", "path mode", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return openAt(t, cwdArg, a[0], openFlags(unix.O_CREAT|unix.O_WRONLY|unix.O_TRUNC), a[1].Mode())
		}),
		full(437, "openat2", "dirfd path ptr size", sysOpenat2),
		full(3, "close", "fd", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return 0, t.FDTable().Close(t, a[0].Int()) }),
		full(436, "close_range", "uint uint hex", sysCloseRange),
		full(32, "dup", "fd", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return dup(t, a[0].Int(), 0, false) }),
		full(33, "dup2", "fd fd", sysDup2),
		full(292, "dup3", "fd fd oflags", sysDup3),
		partial(303, "name_to_handle_at", "dirfd path ptr ptr hex", "AT_HANDLE_CONNECTABLE (Linux 6.13): EOPNOTSUPP", sysNameToHandle),
		partial(304, "open_by_handle_at", "fd ptr oflags", "EPERM for directories of mounts that the root of a user namespace made (Linux 6.11)", sysOpenByHandle),
	)
}

// oLargefile is set for each open by a 64-bit process; its F_GETFL shows it.
const oLargefile = 0o100000

// oTmpfile is __O_TMPFILE without O_DIRECTORY.
const oTmpfile = unix.O_TMPFILE &^ unix.O_DIRECTORY

const validOpenFlags = unix.O_ACCMODE | unix.O_CREAT | unix.O_EXCL | unix.O_NOCTTY | unix.O_TRUNC | unix.O_APPEND | unix.O_NONBLOCK |
	unix.O_DSYNC | unix.O_SYNC | unix.O_ASYNC | unix.O_DIRECT | oLargefile | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_NOATIME |
	unix.O_CLOEXEC | unix.O_PATH | unix.O_TMPFILE

// openFlags drops what open(2) ignores.
func openFlags(f uint32) uint32 {
	f = f&validOpenFlags | oLargefile
	if f&unix.O_PATH != 0 {
		f &= unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_PATH | unix.O_CLOEXEC
	}
	return f
}

// checkFlags is the rest of build_open_flags (fs/open.c).
func checkFlags(f uint32) error {
	switch {
	case f&oTmpfile != 0 && (f&(unix.O_TMPFILE|unix.O_CREAT) != unix.O_TMPFILE || f&unix.O_ACCMODE == 0):
		return unix.EINVAL
	case f&(unix.O_CREAT|unix.O_DIRECTORY) == unix.O_CREAT|unix.O_DIRECTORY:
		return unix.EINVAL
	}
	return nil
}

func openAt(t *kernel.Task, dirfd, addr kernel.Arg, flags uint32, mode uint16) (uintptr, error) {
	if err := checkFlags(flags); err != nil {
		return 0, err
	}
	return open(t, dirfd, addr, vfs.OpenOptions{Flags: flags, Mode: mode & 0o7777})
}

func open(t *kernel.Task, dirfd, addr kernel.Arg, o vfs.OpenOptions) (uintptr, error) {
	w, err := pathAt(t, dirfd, addr)
	if err == nil && o.Resolve&vfs.ResolveInRoot != 0 && w.path[0] == '/' {
		w, err = startAt(t, dirfd.Int(), "."+w.path) // dirfd is the root
	}
	if err == unix.EBADF { // there must be a free descriptor first
		return t.OpenFD(o.Flags, func() (*vfs.FileDescription, error) { return nil, err })
	}
	if err != nil {
		return 0, err
	}
	defer w.done()
	return t.OpenFD(o.Flags, func() (*vfs.FileDescription, error) { return vfs.Open(t, w.start, w.path, o) })
}

func sysOpenat2(t *kernel.Task, a kernel.Args) (uintptr, error) {
	var how linux.OpenHow
	b, err := copyInSized(t, a[2], a[3], how.SizeBytes())
	if err != nil {
		return 0, err
	}
	how.UnmarshalBytes(b)
	flags, mode, resolve := how.Flags, how.Mode, how.Resolve
	const known = vfs.ResolveNoXdev | vfs.ResolveNoMagiclinks | vfs.ResolveNoSymlinks | vfs.ResolveBeneath | vfs.ResolveInRoot | vfs.ResolveCached
	const oPath = unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_PATH | unix.O_CLOEXEC
	switch {
	case flags&^uint64(validOpenFlags) != 0, resolve&^uint64(known) != 0,
		resolve&(vfs.ResolveBeneath|vfs.ResolveInRoot) == vfs.ResolveBeneath|vfs.ResolveInRoot,
		mode&^uint64(0o7777) != 0, mode != 0 && flags&(unix.O_CREAT|oTmpfile) == 0,
		flags&unix.O_PATH != 0 && flags&^uint64(oPath) != 0:
		return 0, unix.EINVAL
	}
	f := openFlags(uint32(flags))
	if err := checkFlags(f); err != nil {
		return 0, err
	}
	if resolve&vfs.ResolveCached != 0 && flags&(unix.O_TRUNC|unix.O_CREAT|oTmpfile) != 0 {
		return 0, unix.EAGAIN
	}
	return open(t, a[0], a[1], vfs.OpenOptions{Flags: f, Mode: uint16(mode), Resolve: uint32(resolve)})
}

// A struct file_handle is its size and its type, and at most so many bytes (MAX_HANDLE_SZ).
const (
	handleHeader = 8
	maxHandle    = 128
)

func sysNameToHandle(t *kernel.Task, a kernel.Args) (uintptr, error) {
	const known = unix.AT_SYMLINK_FOLLOW | unix.AT_EMPTY_PATH | vfs.HandleFID | vfs.HandleUniqueMount | vfs.HandleConnectable
	flags := a[4].Uint()
	if flags&^uint32(known) != 0 || flags&vfs.HandleConnectable != 0 && flags&(vfs.HandleFID|unix.AT_EMPTY_PATH) != 0 {
		return 0, unix.EINVAL
	}
	if flags&unix.AT_SYMLINK_FOLLOW == 0 {
		flags |= unix.AT_SYMLINK_NOFOLLOW
	}
	return withPathOrNull(t, a[0], a[1], flags, func(p vfs.Path) error {
		typ, h, err := vfs.Handle(t, p, flags)
		if err != nil {
			return err
		}
		var b [handleHeader]byte
		if _, err := t.CopyIn(a[2].Pointer(), b[:4]); err != nil {
			return err
		}
		room := binary.LittleEndian.Uint32(b[:])
		if room > maxHandle {
			return unix.EINVAL
		}
		binary.LittleEndian.PutUint32(b[:], uint32(len(h)))
		if uint32(len(h)) > room {
			typ, h, err = 0xff, nil, unix.EOVERFLOW // FILEID_INVALID
		}
		binary.LittleEndian.PutUint32(b[4:], uint32(typ))
		id := binary.LittleEndian.AppendUint64(nil, p.Mount.UniqueID())
		if flags&vfs.HandleUniqueMount == 0 {
			id = binary.LittleEndian.AppendUint32(nil, uint32(p.Mount.ID()))
		}
		if _, err := t.CopyOut(a[3].Pointer(), id); err != nil {
			return err
		}
		if _, fault := t.CopyOut(a[2].Pointer(), append(b[:], h...)); fault != nil {
			return fault
		}
		return err
	})
}

func sysOpenByHandle(t *kernel.Task, a kernel.Args) (uintptr, error) {
	var head [handleHeader]byte
	if _, err := t.CopyIn(a[1].Pointer(), head[:]); err != nil {
		return 0, err
	}
	size, typ, flags := binary.LittleEndian.Uint32(head[:]), int32(binary.LittleEndian.Uint32(head[4:])), openFlags(a[2].Uint())
	if size == 0 || size > maxHandle || uint32(typ) > 0x3ffff {
		return 0, unix.EINVAL
	}
	at := t.Cwd()
	if fd := a[0].Int(); fd != unix.AT_FDCWD {
		f, err := t.GetFile(fd)
		if err != nil {
			return 0, err
		}
		defer f.DecRef()
		at = f.Path()
	}
	if !t.Credentials().Capable(linux.CAP_DAC_READ_SEARCH) {
		return 0, unix.EPERM
	}
	h := make([]byte, size)
	if _, err := t.CopyIn(a[1].Pointer()+handleHeader, h); err != nil {
		return 0, err
	}
	if err := checkFlags(flags); err != nil {
		return 0, err
	}
	p, err := vfs.OpenHandle(t, at, typ, h)
	if err != nil {
		return 0, err
	}
	defer p.DecRef()
	switch typ := p.Inode().Mode() & unix.S_IFMT; {
	case typ == unix.S_IFLNK && flags&unix.O_PATH == 0:
		return 0, unix.ELOOP
	case flags&(unix.O_CREAT|unix.O_EXCL) == unix.O_CREAT|unix.O_EXCL:
		return 0, unix.EEXIST
	case flags&unix.O_CREAT != 0 && typ == unix.S_IFDIR:
		return 0, unix.EISDIR
	}
	flags &^= unix.O_CREAT
	return t.OpenFD(flags, func() (*vfs.FileDescription, error) {
		return vfs.Open(t, p, "", vfs.OpenOptions{Flags: flags, Resolve: vfs.EmptyPath})
	})
}

func sysCloseRange(t *kernel.Task, a kernel.Args) (uintptr, error) {
	const unshare, cloexec = 2, 4
	first, last, flags := a[0].Uint(), a[1].Uint(), a[2].Uint()
	if flags&^uint32(unshare|cloexec) != 0 || first > last {
		return 0, unix.EINVAL
	}
	if flags&unshare != 0 {
		if err := t.Unshare(unix.CLONE_FILES); err != nil {
			return 0, err
		}
	}
	if flags&cloexec != 0 {
		t.FDTable().CloexecRange(first, last)
	} else {
		t.FDTable().CloseRange(t, first, last)
	}
	return 0, nil
}

func nofile(t *kernel.Task) uint64 { return t.ThreadGroup().Limit(linux.RLIMIT_NOFILE).Cur }

func dup(t *kernel.Task, fd, minFD int32, cloexec bool) (uintptr, error) {
	f, err := t.GetFileOrPath(fd)
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	n, err := t.FDTable().NewFD(f, minFD, cloexec, nofile(t))
	return uintptr(n), err
}

func sysDup2(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a[0].Int() == a[1].Int() {
		f, err := t.GetFileOrPath(a[0].Int())
		if err != nil {
			return 0, err
		}
		f.DecRef()
		return uintptr(a[1].Int()), nil
	}
	return dupTo(t, a[0].Int(), a[1].Int(), false)
}

func sysDup3(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a[2].Uint()&^uint32(unix.O_CLOEXEC) != 0 || a[0].Int() == a[1].Int() {
		return 0, unix.EINVAL
	}
	return dupTo(t, a[0].Int(), a[1].Int(), a[2] != 0)
}

func dupTo(t *kernel.Task, from, to int32, cloexec bool) (uintptr, error) {
	if to < 0 || uint64(to) >= nofile(t) {
		return 0, unix.EBADF
	}
	f, err := t.GetFileOrPath(from)
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	return uintptr(to), t.FDTable().NewFDAt(t, f, to, cloexec, nofile(t))
}
