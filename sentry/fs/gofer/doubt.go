package gofer

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"moat/fsgofer/wire"
)

// Others do change an exclusive mount now and then: docker cp writes into the root of a running container. So what is known of the names in a
// directory is doubted from time to time, and with each order from the host: before they are used again the directory's change time is
// asked for, and if it is another, be it for what the sandbox itself did, VFS has each name that it knows revalidated.

// maxAge is how long names are believed, at least.
const maxAge = time.Second

var (
	// age counts doubts; aging: there will be another by itself.
	age   atomic.Uint64
	aging atomic.Bool
)

// Doubt has the names of all directories checked before they are used again.
func Doubt() { age.Add(1) }

// Version implements vfs.Versioned. Nothing is checked, and no timer runs, while nobody asks.
func (i *inode) Version() uint64 {
	if i.fs.shared {
		return 0
	}
	if !aging.Load() && !aging.Swap(true) {
		time.AfterFunc(maxAge, func() {
			aging.Store(false)
			Doubt()
		})
	}
	if i.age.Load() != age.Load() {
		i.check()
	}
	return i.version.Load()
}

// check compares the directory with what it was when it was found, or last checked.
func (i *inode) check() {
	i.wmu.Lock()
	defer i.wmu.Unlock()
	now := age.Load()
	if i.age.Load() == now {
		return
	}
	if i.checkRow(now) {
		return
	}
	var req wire.RefReq
	var rep wire.AttrRep
	err := i.request(wire.OpGetAttr, &req, &rep, &req.Ref)
	i.checked(&rep.Attr, err, now)
}

// checked notes what the directory is at the age now.
// +checklocks:i.wmu
func (i *inode) checked(a *wire.Attr, err error, now uint64) {
	if err == nil {
		i.adopt(a)
	}
	if err != nil || i.settled == 0 || i.settled != a.Ctime {
		i.changes.Add(1)
		i.fs.changes.Add(1)
		i.list.Store(nil)
		i.siblings.Store(nil)
		i.setAhead(nil)
		if o := i.opened.Swap(nil); o != nil {
			o.close()
		}
		i.version.Add(1)
	}
	i.settled = i.asOf(a.Ctime, slack)
	i.age.Store(now)
}

// checkRow checks i along with those that a walk of the tree will check next, if it is one of a row: a request for all. False: it is to be checked alone.
// +checklocksignore: the wmu of others is only tried.
func (i *inode) checkRow(now uint64) bool {
	i.loc.RLock()
	p, name := i.parent, i.name
	i.loc.RUnlock()
	if p == nil {
		return false
	}
	if p.checks.Swap(now) != now {
		p.checkRun.Store(0)
	}
	if p.checkRun.Add(1) < inRow {
		return false
	}
	req := wire.WalkReq{More: append([]string{name}, p.dirsBehind(name)...)}
	req.More = req.More[:min(len(req.More), wire.MaxFDs-1)]
	var rep wire.WalkRep
	if _, err := p.walk(&req, &rep, nil); err != nil {
		return false
	}
	for n := range rep.More {
		a := &rep.More[n].Attr
		i.fs.mu.Lock()
		d := i.fs.inodes[keyOf(a)]
		i.fs.mu.Unlock()
		switch {
		case d == nil || !d.isDir() || a.Mode&unix.S_IFMT != unix.S_IFDIR || d.age.Load() == now:
		case d == i:
			d.checked(a, nil, now)
		case d.wmu.TryLock():
			d.checked(a, nil, now)
			d.wmu.Unlock()
		}
	}
	return i.age.Load() == now
}

// slack is longer than a change that nobody waits for is under way, from when it takes its time until it is seen. tick is as long as the coarse clock stands still, at most.
const slack, tick = 20 * time.Millisecond, 10 * time.Millisecond

// asOf is ctime, which was looked at, if a change that begins later, or began up to margin ago, is sure to have another time, otherwise 0: the coarse clock that the times are
// from has gone on; by a second if they may be in seconds. Where a time that was looked at is always followed by another (Linux 6.13's multigrain timestamps) no clock counts.
func (i *inode) asOf(ctime int64, margin time.Duration) int64 {
	if i.multigrain() {
		return ctime
	}
	now := coarseTime()
	age := time.Duration(now - ctime)
	if i.here() && age < 0 && age > -tick && i.fs.lastAhead.Swap(ctime) != ctime {
		i.fs.ahead.Add(1)
	}
	if !past(now, ctime, margin) {
		return 0
	}
	return ctime
}

// past reports whether at the time now, by the coarse clock, ctime was past by more than margin, and would not be given again.
func past(now, ctime int64, margin time.Duration) bool {
	age := time.Duration(now - ctime)
	return age > margin && (ctime%1e9 != 0 || age >= time.Second)
}

// coarseTime is the clock that the kernel takes the times of files from; 0: it cannot be read.
func coarseTime() int64 {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now) != nil {
		return 0
	}
	return now.Nano()
}

// here reports whether i is on the file system of the mount's root.
func (i *inode) here() bool { return i.fs.root != nil && i.key.dev == i.fs.root.key.dev }

// multigrain reports whether a change time that was looked at is always followed by another.
func (i *inode) multigrain() bool { return i.here() && i.fs.ahead.Load() >= proof }

// proof is how many times ahead of the coarse clock show that the file system has such timestamps. A clock that is set back makes fewer.
const proof = 8

// epoch says whether any names of the mount may have changed: it is then another.
func (fs *FS) epoch() uint64 { return fs.changes.Load() + age.Load() }
