package proc

import (
	"bytes"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"moat/sentry/fs/anon"
	"moat/sentry/fs/genfs"
	"moat/sentry/kernel"
	"moat/sentry/kernel/auth"
	"moat/sentry/vfs"
)

// fdEntries is the contents of /proc/PID/fd, or with info of fdinfo.
type fdEntries struct {
	s    subject
	info bool
}

func fdDir(s subject, ino uint64, perm uint16) vfs.Inode { return newFDDir(s, ino, perm, false) }

func fdinfoDir(s subject, ino uint64, perm uint16) vfs.Inode { return newFDDir(s, ino, perm, true) }

// fdDirectory adds proc_fd_permission to a directory: a process may always see its own.
type fdDirectory struct {
	genfs.Dir
	s    subject
	info bool
}

// Permission implements vfs.PermissionChecker.
func (d *fdDirectory) Permission(ctx vfs.Context, c *auth.Credentials, may uint) error {
	if t := task(ctx); t != nil && t.ThreadGroup() == d.s.t.ThreadGroup() {
		return nil
	}
	return vfs.GenericPermission(ctx, c, d, may)
}

// Attr implements vfs.Inode: the size is the number of descriptors.
func (d *fdDirectory) Attr(ctx vfs.Context) (vfs.Attr, error) {
	a, err := d.Dir.Attr(ctx)
	if fdt := d.s.t.GetFDTable(); err == nil && fdt != nil && !d.info {
		fdt.ForEach(func(int32, *vfs.FileDescription, bool) bool { a.Size++; return true })
		fdt.DecRef(ctx)
	}
	return a, err
}

func newFDDir(s subject, ino uint64, perm uint16, info bool) vfs.Inode {
	d := &fdDirectory{s: s, info: info}
	genfs.InitDir(&d.Dir, s.f.FS, ino, perm, fdEntries{s, info})
	d.Owner = s.owner
	return d
}

// file returns the open file of descriptor n with a reference.
func (s subject) file(ctx vfs.Context, n int32) (fd *vfs.FileDescription, cloexec bool, err error) {
	fdt := s.t.GetFDTable()
	if fdt == nil {
		return nil, false, unix.ENOENT
	}
	defer fdt.DecRef(ctx)
	if fd, cloexec = fdt.GetFlags(n); fd == nil {
		return nil, false, unix.ENOENT
	}
	return fd, cloexec, nil
}

func fdIno(tid int32, n int32, info bool) uint64 {
	ino := uint64(fdBit) + uint64(tid)<<21 + uint64(n)
	if info {
		ino += fdinfoBit
	}
	return ino
}

// Find implements genfs.Dynamic.
func (e fdEntries) Find(ctx vfs.Context, name string) (vfs.Inode, error) {
	n, ok := number(name)
	if !ok {
		return nil, unix.ENOENT
	}
	fd, _, err := e.s.file(ctx, n)
	if err != nil {
		return nil, err
	}
	defer fd.DecRef()
	ino := fdIno(e.s.t.TIDIn(e.s.f.pidns), n, e.info)
	if e.info {
		f := genfs.NewFile(e.s.f.FS, ino, 0o444, func(ctx vfs.Context, b *bytes.Buffer) error { return e.s.fdinfo(ctx, n, b) })
		f.Owner = e.s.owner
		return f, nil
	}
	// The permissions say how the file is open (tid_fd_update_inode).
	perm := uint16(0)
	if fd.Readable() {
		perm |= 0o500
	}
	if fd.Writable() {
		perm |= 0o300
	}
	l := genfs.NewLink(e.s.f.FS, ino, perm, func(ctx vfs.Context) (string, error) {
		fd, _, err := e.s.file(ctx, n)
		if err != nil {
			return "", err
		}
		defer fd.DecRef()
		return vfs.PathString(ctx, ctx.Root(), fd.Path()), nil
	})
	l.Jump = func(ctx vfs.Context) (vfs.Path, error) {
		fd, _, err := e.s.file(ctx, n)
		if err != nil {
			return vfs.Path{}, err
		}
		defer fd.DecRef()
		return fd.Path().IncRef(), nil
	}
	l.SetSize(64)
	l.Owner = e.s.owner
	l.Access = func(ctx vfs.Context) error { return e.s.mayAccess(ctx, unix.EACCES) }
	return l, nil
}

// List implements genfs.Dynamic.
func (e fdEntries) List(ctx vfs.Context, from int64, emit func(int64, string, uint8, uint64) bool) error {
	fdt := e.s.t.GetFDTable()
	if fdt == nil {
		return nil
	}
	defer fdt.DecRef(ctx)
	typ, tid := uint8(unix.DT_LNK), e.s.t.TIDIn(e.s.f.pidns)
	if e.info {
		typ = unix.DT_REG
	}
	fdt.ForEachFrom(int32(min(max(from, 0), 1<<30)), func(n int32, _ *vfs.FileDescription, _ bool) bool {
		return emit(int64(n), strconv.Itoa(int(n)), typ, fdIno(tid, n, e.info))
	})
	return nil
}

// fdinfo is fs/proc/fd.c seq_show.
func (s subject) fdinfo(ctx vfs.Context, n int32, b *bytes.Buffer) error {
	fd, cloexec, err := s.file(ctx, n)
	if err != nil {
		return err
	}
	defer fd.DecRef()
	flags := fd.Flags()
	if cloexec {
		flags |= unix.O_CLOEXEC
	}
	var ino uint64
	if a, err := fd.Inode().Attr(ctx); err == nil {
		ino = a.Ino
	}
	fmt.Fprintf(b, "pos:\t%d\nflags:\t0%o\nmnt_id:\t%d\nino:\t%d\n", fd.Offset(), flags, fd.Path().Mount.ID(), ino)
	for i, l := range vfs.Locks(fd.Inode()) {
		fmt.Fprintf(b, "lock:\t%s", lockLine(i+1, &l, fd.Inode().FS().Dev(), ino))
	}
	switch x := fd.Impl().(type) {
	case *kernel.PIDFD:
		pid := x.PID()
		if _, err := x.Task(s.t.Kernel()); err != nil {
			b.WriteString("Pid:\t-1\nNSpid:\t-1\n")
			break
		}
		nr := pid.In(s.f.pidns)
		fmt.Fprintf(b, "Pid:\t%d\n", nr)
		if nr == 0 {
			b.WriteString("NSpid:\t0\n") // it is not below here
			break
		}
		b.WriteString("NSpid:")
		for _, n := range pid.Nums(s.f.pidns) {
			fmt.Fprintf(b, "\t%d", n)
		}
		b.WriteByte('\n')
	case *anon.SignalFD:
		fmt.Fprintf(b, "sigmask:\t%016x\n", x.Mask())
	}
	return nil
}

// lockLine is fs/locks.c lock_get_status.
func lockLine(i int, l *vfs.LockInfo, dev, ino uint64) string {
	typ := "WRITE"
	if l.Type == unix.F_RDLCK {
		typ = "READ "
	}
	end := "EOF"
	if l.End < 1<<63-1 {
		end = strconv.FormatInt(l.End, 10)
	}
	return fmt.Sprintf("%d: %-6s ADVISORY  %s %d %02x:%02x:%d %d %s\n", i, l.Kind, typ, l.PID, unix.Major(dev), unix.Minor(dev), ino, l.Start, end)
}

func noLink(error) (string, error) { return "", unix.ENOENT }

// pathLink makes the functions of a magic link to what get returns (with references).
func pathLink(get func(ctx vfs.Context) (vfs.Path, error)) (func(vfs.Context) (string, error), func(vfs.Context) (vfs.Path, error)) {
	return func(ctx vfs.Context) (string, error) {
		p, err := get(ctx)
		if err != nil {
			return noLink(err)
		}
		defer p.DecRef()
		return vfs.PathString(ctx, ctx.Root(), p), nil
	}, get
}

func cwdLink(s subject) (func(vfs.Context) (string, error), func(vfs.Context) (vfs.Path, error)) {
	return s.ownPath(true)
}

func rootLink(s subject) (func(vfs.Context) (string, error), func(vfs.Context) (vfs.Path, error)) {
	return s.ownPath(false)
}

func (s subject) ownPath(wantCwd bool) (func(vfs.Context) (string, error), func(vfs.Context) (vfs.Path, error)) {
	return pathLink(func(vfs.Context) (vfs.Path, error) {
		root, cwd, ok := s.t.Paths()
		if !ok {
			return vfs.Path{}, unix.ENOENT
		}
		if wantCwd {
			root, cwd = cwd, root
		}
		cwd.DecRef()
		return root, nil
	})
}

func exeLink(s subject) (func(vfs.Context) (string, error), func(vfs.Context) (vfs.Path, error)) {
	return pathLink(func(vfs.Context) (vfs.Path, error) {
		m := s.mm()
		if m == nil {
			return vfs.Path{}, unix.ENOENT
		}
		defer m.DecUsers()
		id := m.Exe()
		if id == nil {
			return vfs.Path{}, unix.ENOENT
		}
		defer id.DecRef()
		fd, ok := id.(*vfs.FileDescription)
		if !ok {
			return vfs.Path{}, unix.ENOENT
		}
		return fd.Path().IncRef(), nil
	})
}
