package vfs

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

// lease is a file lease (fcntl(2), F_SETLEASE): its holder is told before another opens or truncates the file, and has leaseBreakTime to give it up.
type lease struct {
	fd  *FileDescription
	num int32 // its descriptor, for si_fd
	// typ is what it is, target what it has been asked to become by the time until; equal while nobody asked.
	typ, target int16
	until       time.Time
}

// leaseBreakTime is /proc/sys/fs/lease-break-time.
const leaseBreakTime = 45 * time.Second

// strength orders the kinds of leases.
func strength(typ int16) int { return [...]int{unix.F_RDLCK: 1, unix.F_WRLCK: 2, unix.F_UNLCK: 0}[typ] }

// Lease is F_GETLEASE: the kind that fd has, or is to have by now.
func (fd *FileDescription) Lease() int16 {
	c := fd.lockContext()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.leases {
		if l.fd == fd {
			return l.target
		}
	}
	return unix.F_UNLCK
}

// SetLease is F_SETLEASE of descriptor num: EINVAL, EACCES, EAGAIN.
func (fd *FileDescription) SetLease(ctx Context, num int32, typ int16) error {
	i := fd.Inode()
	if typ != unix.F_UNLCK {
		a, err := i.Attr(ctx)
		if err != nil {
			return err
		}
		switch {
		case typ != unix.F_RDLCK && typ != unix.F_WRLCK:
			return unix.EINVAL
		case a.UID != ctx.Credentials().FSUID && !ctx.Credentials().HasCap(linux.CAP_LEASE):
			return unix.EACCES
		case i.Mode()&unix.S_IFMT != unix.S_IFREG:
			return unix.EINVAL
		}
	}
	c := fd.lockContext()
	c.mu.Lock()
	defer c.mu.Unlock()
	defer func() { c.leased.Store(len(c.leases) > 0) }()
	n := slices.IndexFunc(c.leases, func(l lease) bool { return l.fd == fd })
	if typ == unix.F_UNLCK {
		if n < 0 {
			return unix.EAGAIN
		}
		c.leases = slices.Delete(c.leases, n, n+1)
		fd.flags.And(^uint32(unix.O_ASYNC))
		c.wakeLocked()
		return nil
	}
	if s := i.vfsState(); typ == unix.F_RDLCK && s.writers.Load() > 0 || typ == unix.F_WRLCK && max(s.writers.Load(), 0)+s.readers.Load() > 1 {
		return unix.EAGAIN
	}
	for _, l := range c.leases {
		if l.fd != fd && (typ == unix.F_WRLCK || l.target == unix.F_UNLCK) {
			return unix.EAGAIN
		}
	}
	fd.locked.Store(true)
	fd.flags.Or(unix.O_ASYNC) // as F_GETFL tells: its holder will be sent a signal
	if n >= 0 {
		// What it has been asked for remains to be done.
		l := &c.leases[n]
		if l.target == l.typ || l.target == typ {
			l.target = typ
		}
		l.typ, l.num = typ, num
		c.wakeLocked()
		return nil
	}
	c.leases = append(c.leases, lease{fd: fd, num: num, typ: typ, target: typ})
	return nil
}

// breakLeases is break_lease: it returns when no lease keeps i from being opened with flags (open(2)'s): EWOULDBLOCK with O_NONBLOCK.
func breakLeases(ctx Context, i Inode, flags uint32) error {
	e := i.vfsState().ext.Load()
	if e == nil || !e.locks.leased.Load() {
		return nil
	}
	want := int16(unix.F_UNLCK)
	if accMode(flags)&MayWrite == 0 {
		want = unix.F_RDLCK
	}
	c := &e.locks
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		var until time.Time
		for n := range c.leases {
			l := &c.leases[n]
			if strength(l.target) > strength(want) {
				if l.target == l.typ {
					l.until = time.Now().Add(leaseBreakTime)
				}
				l.target = want
				if a := l.fd.asyncState(); a.owner != nil { // it is to go
					a.owner.SendSIGIO(a.sig, l.num, PollMsg)
				}
			}
			if l.target != l.typ && !time.Now().Before(l.until) {
				l.typ = l.target
			}
			if strength(l.typ) > strength(want) && (until.IsZero() || l.until.Before(until)) {
				until = l.until
			}
		}
		c.leases = slices.DeleteFunc(c.leases, func(l lease) bool { return l.typ == unix.F_UNLCK })
		c.leased.Store(len(c.leases) > 0)
		if until.IsZero() {
			return nil
		}
		if flags&unix.O_NONBLOCK != 0 {
			return unix.EWOULDBLOCK
		}
		ch := c.waitLocked()
		c.mu.Unlock()
		err := ctx.BlockUntil(ch, until)
		c.mu.Lock()
		if err != nil && err != unix.ETIMEDOUT {
			return err
		}
	}
}
