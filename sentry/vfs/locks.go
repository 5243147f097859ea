package vfs

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// File locks: flock(2), and the record locks of fcntl(2) (POSIX: owned by an FDTable; OFD: by a FileDescription).

// FileLock is a record lock on the bytes from Start to End, both included; End is math.MaxInt64 for "to the end of the file, wherever that is".
type FileLock struct {
	Type       int16 // F_RDLCK, F_WRLCK, F_UNLCK
	Start, End int64
	PID        int32 // of the locker; -1 for OFD locks
	owner      any
}

const maxLocksPerFile = 1 << 16

// lockContext is the locks of one inode.
type lockContext struct {
	mu sync.Mutex
	// whole holds flock locks, records the others, by Start.
	// +checklocks:mu
	whole []FileLock
	// +checklocks:mu
	records []FileLock
	// +checklocks:mu
	leases []lease
	// leased: there are leases.
	leased atomic.Bool
	// changed is closed when a lock goes; nil while nobody waits.
	// +checklocks:mu
	changed chan struct{}
}

// blockedMu guards blocked: who waits for whose POSIX lock, for deadlock detection.
var (
	blockedMu sync.Mutex
	blocked   = map[*FDTable][]*FDTable{}
)

func (fd *FileDescription) lockContext() *lockContext {
	return &fd.Inode().vfsState().extension().locks
}

// +checklocks:c.mu
func (c *lockContext) wakeLocked() {
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// +checklocks:c.mu
func (c *lockContext) waitLocked() <-chan struct{} {
	if c.changed == nil {
		c.changed = make(chan struct{})
	}
	return c.changed
}

// conflicts reports whether a keeps b from being set; where b is none, whether it is one of b's owner there (F_OFD_GETLK).
func conflicts(a, b *FileLock) bool {
	own := b.Type == unix.F_UNLCK
	return (a.owner == b.owner) == own && a.Start <= b.End && b.Start <= a.End && (own || a.Type == unix.F_WRLCK || b.Type == unix.F_WRLCK)
}

func find(ls []FileLock, l *FileLock) *FileLock {
	if i := slices.IndexFunc(ls, func(x FileLock) bool { return conflicts(&x, l) }); i >= 0 {
		return &ls[i]
	}
	return nil
}

// Flock is flock(2); op is LOCK_SH, LOCK_EX or LOCK_UN, perhaps with LOCK_NB.
func (fd *FileDescription) Flock(ctx Context, op int32) error {
	const lockMand = 32 // once mandatory locks; ignored
	if op&lockMand != 0 {
		return nil
	}
	c := fd.lockContext()
	nb := op&unix.LOCK_NB != 0
	l := FileLock{End: math.MaxInt64, owner: fd}
	switch op &^ unix.LOCK_NB {
	case unix.LOCK_SH:
		l.Type = unix.F_RDLCK
	case unix.LOCK_EX:
		l.Type = unix.F_WRLCK
	case unix.LOCK_UN:
		l.Type = unix.F_UNLCK
	default:
		return unix.EINVAL
	}
	if l.Type != unix.F_UNLCK {
		if !fd.Readable() && !fd.Writable() {
			return unix.EBADF
		}
		fd.locked.Store(true)
	}
	c.mu.Lock()
	// A conversion gives up the old lock first (flock(2)), unless it is the same.
	if i := slices.IndexFunc(c.whole, func(x FileLock) bool { return x.owner == fd }); i >= 0 {
		if c.whole[i].Type == l.Type {
			c.mu.Unlock()
			return nil
		}
		c.whole = slices.Delete(c.whole, i, i+1)
		c.wakeLocked()
	}
	if l.Type == unix.F_UNLCK {
		c.mu.Unlock()
		return nil
	}
	for find(c.whole, &l) != nil {
		if nb {
			c.mu.Unlock()
			return unix.EWOULDBLOCK
		}
		ch := c.waitLocked()
		c.mu.Unlock()
		if err := ctx.Block(ch); err != nil {
			return err
		}
		c.mu.Lock()
	}
	c.whole = append(c.whole, l)
	c.mu.Unlock()
	return nil
}

// GetLock is F_GETLK (owner an *FDTable) and F_OFD_GETLK (owner fd): a lock that keeps l from being set.
func (fd *FileDescription) GetLock(owner any, l FileLock) (FileLock, bool) {
	l.owner = owner
	c := fd.lockContext()
	c.mu.Lock()
	defer c.mu.Unlock()
	if x := find(c.records, &l); x != nil {
		return *x, true
	}
	return FileLock{}, false
}

// SetLock is F_SETLK, or F_SETLKW if wait: EAGAIN, EDEADLK, ENOLCK. With F_OFD_* owner is fd itself.
func (fd *FileDescription) SetLock(ctx Context, owner any, l FileLock, wait bool) error {
	if l.Type == unix.F_RDLCK && !fd.Readable() || l.Type == unix.F_WRLCK && !fd.Writable() || fd.pathOnly {
		return unix.EBADF
	}
	l.owner = owner
	c := fd.lockContext()
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.Type != unix.F_UNLCK {
		if owner == any(fd) {
			fd.locked.Store(true)
		}
		for {
			x := find(c.records, &l)
			if x == nil {
				break
			}
			if !wait {
				return unix.EAGAIN
			}
			if err := c.blockLocked(ctx, owner, x.owner); err != nil {
				return err
			}
		}
		if len(c.records) >= maxLocksPerFile {
			return unix.ENOLCK
		}
	}
	c.setLocked(l)
	return nil
}

// blockLocked waits for a change of the locks, with mu dropped meanwhile. EDEADLK if other waits for owner.
// +checklocks:c.mu
func (c *lockContext) blockLocked(ctx Context, owner, other any) error {
	me, ok := owner.(*FDTable)
	on, ok2 := other.(*FDTable)
	if ok && ok2 {
		blockedMu.Lock()
		if waitsFor(on, me, 0) {
			blockedMu.Unlock()
			return unix.EDEADLK
		}
		blocked[me] = append(blocked[me], on)
		blockedMu.Unlock()
		defer func() {
			blockedMu.Lock()
			defer blockedMu.Unlock()
			i := slices.Index(blocked[me], on)
			if blocked[me] = slices.Delete(blocked[me], i, i+1); len(blocked[me]) == 0 {
				delete(blocked, me)
			}
		}()
	}
	ch := c.waitLocked()
	c.mu.Unlock()
	err := ctx.Block(ch)
	c.mu.Lock()
	return err
}

// waitsFor reports whether a waits for b, directly or through others. blockedMu is held.
func waitsFor(a, b *FDTable, depth int) bool {
	if a == b {
		return true
	}
	if depth > 32 {
		return false
	}
	for _, n := range blocked[a] {
		if waitsFor(n, b, depth+1) {
			return true
		}
	}
	return false
}

// setLocked puts l in the place of what its owner holds in its range, and joins neighbours.
// +checklocks:c.mu
func (c *lockContext) setLocked(l FileLock) {
	var out []FileLock
	freed := false
	for _, x := range c.records {
		if x.owner != l.owner || x.End < l.Start-1 || l.End < x.Start-1 || (x.Type != l.Type && (x.End < l.Start || l.End < x.Start)) {
			out = append(out, x)
			continue
		}
		if x.Type == l.Type {
			l.Start, l.End = min(l.Start, x.Start), max(l.End, x.End)
			continue
		}
		freed = freed || x.Type == unix.F_WRLCK || l.Type == unix.F_UNLCK
		if x.Start < l.Start {
			left := x
			left.End = l.Start - 1
			out = append(out, left)
		}
		if l.End < x.End {
			right := x
			right.Start = l.End + 1
			out = append(out, right)
		}
	}
	if l.Type != unix.F_UNLCK {
		out = append(out, l)
	}
	slices.SortStableFunc(out, func(a, b FileLock) int { return cmp.Compare(a.Start, b.Start) })
	c.records = out
	if freed {
		c.wakeLocked()
	}
}

// flush drops t's POSIX locks on the file: close(2) of any of a process's descriptors of a file ends its locks on it.
func (fd *FileDescription) flush(t *FDTable) {
	if fd.pathOnly || !fd.path.Ok() {
		return
	}
	e := fd.Inode().vfsState().ext.Load()
	if e == nil {
		return
	}
	e.locks.mu.Lock()
	defer e.locks.mu.Unlock()
	if len(e.locks.records) > 0 {
		e.locks.setLocked(FileLock{Type: unix.F_UNLCK, End: math.MaxInt64, owner: t})
	}
}

// dropLocks drops the flock and OFD locks of a file that is released.
func (fd *FileDescription) dropLocks() {
	c := fd.lockContext()
	c.mu.Lock()
	defer c.mu.Unlock()
	mine := func(x FileLock) bool { return x.owner == any(fd) }
	c.whole = slices.DeleteFunc(c.whole, mine)
	c.records = slices.DeleteFunc(c.records, mine)
	c.leases = slices.DeleteFunc(c.leases, func(l lease) bool { return l.fd == fd })
	c.leased.Store(len(c.leases) > 0)
	c.wakeLocked()
}

// LockInfo describes one lock for /proc/PID/fdinfo and /proc/locks.
type LockInfo struct {
	Kind string // "FLOCK", "POSIX", "OFDLCK"
	FileLock
}

// Locks lists the locks on i.
func Locks(i Inode) []LockInfo {
	e := i.vfsState().ext.Load()
	if e == nil {
		return nil
	}
	e.locks.mu.Lock()
	defer e.locks.mu.Unlock()
	var out []LockInfo
	for _, l := range e.locks.whole {
		out = append(out, LockInfo{"FLOCK", l})
	}
	for _, l := range e.locks.records {
		k := "POSIX"
		if _, ok := l.owner.(*FileDescription); ok {
			k = "OFDLCK"
		}
		out = append(out, LockInfo{k, l})
	}
	return out
}
