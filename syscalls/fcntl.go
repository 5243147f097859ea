package syscalls

import (
	"math"
	"slices"

	"moat/sentry/kernel"
	"moat/sentry/vfs"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

func init() {
	register(
		partial(72, "fcntl", "fd fcntl hex", "no dnotify (EINVAL, as without CONFIG_DNOTIFY): inotify has taken its place", sysFcntl),
		full(73, "flock", "fd hex", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			switch op := a[1].Int() &^ unix.LOCK_NB; {
			case op == unix.LOCK_SH, op == unix.LOCK_EX, op == unix.LOCK_UN, op&32 != 0:
			default:
				return 0, unix.EINVAL
			}
			return withFile(t, a[0], func(f *vfs.FileDescription) error { return f.Flock(t, a[1].Int()) })
		}),
		full(16, "ioctl", "fd hex ptr", sysIoctl),
	)
}

const (
	fDupfdQuery   = 1027
	fCreatedQuery = 1028
)

func sysFcntl(t *kernel.Task, a kernel.Args) (uintptr, error) {
	fd, cmd := a[0].Int(), a[1].Int()
	f, err := t.GetFileOrPath(fd)
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	switch cmd {
	case unix.F_DUPFD, unix.F_DUPFD_CLOEXEC:
		if uint64(a[2].Uint()) >= nofile(t) {
			return 0, unix.EINVAL
		}
		n, err := t.FDTable().NewFD(f, a[2].Int(), cmd == unix.F_DUPFD_CLOEXEC, nofile(t))
		return uintptr(n), err
	case unix.F_GETFD:
		g, ce := t.FDTable().GetFlags(fd)
		if g == nil {
			return 0, unix.EBADF
		}
		g.DecRef()
		if ce {
			return unix.FD_CLOEXEC, nil
		}
		return 0, nil
	case unix.F_SETFD:
		return 0, t.FDTable().SetCloexec(fd, a[2]&unix.FD_CLOEXEC != 0)
	case unix.F_GETFL:
		return uintptr(f.Flags()), nil
	case fDupfdQuery:
		g, err := t.GetFileOrPath(a[2].Int())
		if err != nil {
			return 0, err
		}
		defer g.DecRef()
		if g == f {
			return 1, nil
		}
		return 0, nil
	}
	if f.PathOnly() {
		return 0, unix.EBADF
	}
	switch cmd {
	case unix.F_SETFL:
		if err := f.SetStatusFlags(t, a[2].Uint()); err != nil {
			return 0, err
		}
		if err := f.SetAsync(t, a[2]&unix.O_ASYNC != 0, fd); err != unix.ENOTTY {
			return 0, err
		}
		return 0, nil
	case unix.F_GETLK, unix.F_OFD_GETLK:
		return 0, getlk(t, f, a[2], cmd == unix.F_OFD_GETLK)
	case unix.F_SETLK, unix.F_SETLKW:
		return 0, setlk(t, f, a[2], cmd == unix.F_SETLKW, false)
	case unix.F_OFD_SETLK, unix.F_OFD_SETLKW:
		return 0, setlk(t, f, a[2], cmd == unix.F_OFD_SETLKW, true)
	case unix.F_SETOWN, unix.F_GETOWN, unix.F_SETOWN_EX, unix.F_GETOWN_EX, unix.F_SETSIG, unix.F_GETSIG:
		return owner(t, f, cmd, a[2])
	case unix.F_GETLEASE:
		return uintptr(f.Lease()), nil
	case unix.F_SETLEASE:
		if a[2].Uint() > unix.F_UNLCK {
			return 0, unix.EINVAL
		}
		if err := f.SetLease(t, fd, int16(a[2])); err != nil {
			return 0, err
		}
		if a[2].Uint() == unix.F_UNLCK {
			f.SetAsyncSignal(0)
			return 0, setOwner(t, f, kernel.ScopeGroup, 0)
		}
		if o, _ := f.AsyncOwner().(*kernel.FileOwner); !o.Nobody() {
			return 0, nil
		}
		return 0, setOwner(t, f, kernel.ScopeGroup, t.TID()) // which is a process only if the thread leads it
	case unix.F_GET_RW_HINT:
		return 0, t.CopyOutUint64(a[2].Pointer(), f.WriteHint())
	case unix.F_SET_RW_HINT:
		h, err := t.CopyInUint64(a[2].Pointer())
		if err != nil {
			return 0, err
		}
		if h > 5 /* RWH_WRITE_LIFE_EXTREME */ {
			return 0, unix.EINVAL
		}
		return 0, f.SetWriteHint(t, h)
	case unix.F_GETPIPE_SZ, unix.F_SETPIPE_SZ:
		p, ok := f.Impl().(vfs.PipeSizer)
		if !ok {
			return 0, unix.EBADF
		}
		if cmd == unix.F_GETPIPE_SZ {
			return uintptr(p.PipeSize()), nil
		}
		if a[2].Uint() > 1<<31 {
			return 0, unix.EINVAL
		}
		n, err := p.SetPipeSize(t, int64(a[2].Uint()))
		return uintptr(n), err
	case unix.F_GET_SEALS, unix.F_ADD_SEALS:
		if cmd == unix.F_ADD_SEALS && !f.Writable() {
			return 0, unix.EPERM
		}
		s, ok := f.Impl().(vfs.Sealer)
		if !ok {
			return 0, unix.EINVAL
		}
		if cmd == unix.F_GET_SEALS {
			return uintptr(s.Seals()), nil
		}
		return 0, s.AddSeals(a[2].Uint())
	case fCreatedQuery:
		return 0, nil
	}
	return 0, unix.EINVAL
}

func readFlock(t *kernel.Task, f *vfs.FileDescription, addr kernel.Arg, ofd, get bool) (l vfs.FileLock, x linux.Flock, err error) {
	if _, err := x.CopyIn(t, addr.Pointer()); err != nil {
		return l, x, err
	}
	if get && !ofd && x.Type != unix.F_RDLCK && x.Type != unix.F_WRLCK {
		return l, x, unix.EINVAL
	}
	l = vfs.FileLock{Type: x.Type, PID: t.PID()}
	if ofd {
		l.PID = -1
	}
	var base int64
	switch x.Whence {
	case unix.SEEK_SET:
	case unix.SEEK_CUR:
		base = f.Offset()
	case unix.SEEK_END:
		a, err := f.Stat(t)
		if err != nil {
			return l, x, err
		}
		base = a.Size
	default:
		return l, x, unix.EINVAL
	}
	// fs/locks.c flock64_to_posix_lock
	if x.Start > math.MaxInt64-base {
		return l, x, unix.EOVERFLOW
	}
	l.Start = base + x.Start
	switch {
	case l.Start < 0:
		return l, x, unix.EINVAL
	case x.Len > 0:
		if x.Len-1 > math.MaxInt64-l.Start {
			return l, x, unix.EOVERFLOW
		}
		l.End = l.Start + (x.Len - 1)
	case x.Len < 0:
		if l.Start+x.Len < 0 {
			return l, x, unix.EINVAL
		}
		l.Start, l.End = l.Start+x.Len, l.Start-1
	default:
		l.End = math.MaxInt64
	}
	switch x.Type {
	case unix.F_RDLCK, unix.F_WRLCK, unix.F_UNLCK:
	default:
		return l, x, unix.EINVAL
	}
	return l, x, nil
}

func getlk(t *kernel.Task, f *vfs.FileDescription, addr kernel.Arg, ofd bool) error {
	l, x, err := readFlock(t, f, addr, ofd, true)
	if err != nil {
		return err
	}
	var o any = t.FDTable()
	if ofd {
		if x.PID != 0 {
			return unix.EINVAL
		}
		o = f
	}
	c, ok := f.GetLock(o, l)
	if !ok {
		x.Type = unix.F_UNLCK
	} else {
		x.Type, x.Whence, x.Start, x.Len, x.PID = c.Type, unix.SEEK_SET, c.Start, c.End-c.Start+1, c.PID
		if c.End == math.MaxInt64 {
			x.Len = 0
		}
	}
	_, err = x.CopyOut(t, addr.Pointer())
	return err
}

func setlk(t *kernel.Task, f *vfs.FileDescription, addr kernel.Arg, wait, ofd bool) error {
	l, x, err := readFlock(t, f, addr, ofd, false)
	if err != nil {
		return err
	}
	if l.Type == unix.F_RDLCK && !f.Readable() || l.Type == unix.F_WRLCK && !f.Writable() {
		return unix.EBADF
	}
	if ofd {
		if x.PID != 0 {
			return unix.EINVAL
		}
		return f.SetLock(t, f, l, wait)
	}
	return f.SetLock(t, t.FDTable(), l, wait)
}

// ownerKinds are whom F_OWNER_TID, F_OWNER_PID and F_OWNER_PGRP name.
var ownerKinds = []kernel.PIDScope{kernel.ScopeThread, kernel.ScopeGroup, kernel.ScopeProcessGroup}

func owner(t *kernel.Task, f *vfs.FileDescription, cmd int32, arg kernel.Arg) (uintptr, error) {
	switch cmd {
	case unix.F_SETSIG:
		if s := arg.Uint64(); s > linux.SignalMaximum {
			return 0, unix.EINVAL
		}
		f.SetAsyncSignal(arg.Int())
		return 0, nil
	case unix.F_GETSIG:
		return uintptr(f.AsyncSignal()), nil
	case unix.F_SETOWN:
		kind, id := kernel.ScopeGroup, arg.Int()
		if id < 0 {
			if id == math.MinInt32 {
				return 0, unix.EINVAL
			}
			kind, id = kernel.ScopeProcessGroup, -id
		}
		return 0, setOwner(t, f, kind, id)
	case unix.F_SETOWN_EX:
		var o linux.FOwnerEx
		if _, err := o.CopyIn(t, arg.Pointer()); err != nil {
			return 0, err
		}
		if uint32(o.Type) >= uint32(len(ownerKinds)) {
			return 0, unix.EINVAL
		}
		return 0, setOwner(t, f, ownerKinds[o.Type], o.PID)
	}
	kind, id := kernel.ScopeThread, int32(0)
	if o, ok := f.AsyncOwner().(*kernel.FileOwner); ok {
		kind, id = o.Scope(), o.ID(t)
	}
	if cmd == unix.F_GETOWN {
		if kind == kernel.ScopeProcessGroup {
			id = -id
		}
		return uintptr(id), nil
	}
	o := linux.FOwnerEx{Type: int32(slices.Index(ownerKinds, kind)), PID: id}
	_, err := o.CopyOut(t, arg.Pointer())
	return 0, err
}

func setOwner(t *kernel.Task, f *vfs.FileDescription, kind kernel.PIDScope, id int32) error {
	o, err := t.NewFileOwner(kind, id)
	if err != nil {
		return err
	}
	f.SetAsyncOwner(o)
	return nil
}

func sysIoctl(t *kernel.Task, a kernel.Args) (uintptr, error) {
	f, err := t.GetFile(a[0].Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	req, arg := a[1].Uint(), a[2]
	switch req {
	case linux.FIOCLEX:
		return 0, t.FDTable().SetCloexec(a[0].Int(), true)
	case linux.FIONCLEX:
		return 0, t.FDTable().SetCloexec(a[0].Int(), false)
	case linux.FIONBIO, linux.FIOASYNC:
		v, err := t.CopyInUint32(arg.Pointer())
		switch {
		case err != nil:
			return 0, err
		case req == linux.FIOASYNC:
			return 0, f.SetAsync(t, v != 0, a[0].Int())
		case v != 0:
			return 0, f.SetStatusFlags(t, f.Flags()|unix.O_NONBLOCK)
		}
		return 0, f.SetStatusFlags(t, f.Flags()&^unix.O_NONBLOCK)
	}
	if f.Inode().Mode()&unix.S_IFMT == unix.S_IFSOCK {
		switch req {
		case linux.FIOSETOWN, linux.SIOCSPGRP:
			v, err := t.CopyInUint32(arg.Pointer())
			if err != nil {
				return 0, err
			}
			return owner(t, f, unix.F_SETOWN, kernel.Arg(v))
		case linux.FIOGETOWN, linux.SIOCGPGRP:
			v, _ := owner(t, f, unix.F_GETOWN, 0)
			return 0, t.CopyOutUint32(arg.Pointer(), uint32(v))
		}
	}
	const fiBMap, figetbsz, fioqsize, ficlone, ficlonerange, fideduperange = 1, 2, 0x5460, 0x40049409, 0x4020940d, 0xc0189436
	if req == figetbsz {
		at, err := f.Stat(t)
		if err != nil {
			return 0, err
		}
		return 0, t.CopyOutUint32(arg.Pointer(), uint32(at.Blksize))
	}
	if f.Inode().Mode()&unix.S_IFMT == unix.S_IFREG {
		switch req {
		case linux.FIONREAD:
			at, err := f.Stat(t)
			if err != nil {
				return 0, err
			}
			return 0, t.CopyOutUint32(arg.Pointer(), uint32(at.Size-f.Offset()))
		case fioqsize:
			at, err := f.Stat(t)
			if err != nil {
				return 0, err
			}
			return 0, t.CopyOutUint64(arg.Pointer(), uint64(at.Size))
		case ficlone, ficlonerange, fideduperange:
			return 0, unix.EOPNOTSUPP
		}
	}
	return f.Ioctl(t, t, req, uintptr(arg))
}
