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
	var req wire.RefReq
	var rep wire.AttrRep
	err := i.request(wire.OpGetAttr, &req, &rep, &req.Ref)
	if err == nil {
		i.adopt(&rep.Attr)
	}
	if err != nil || i.settled == 0 || i.settled != rep.Attr.Ctime {
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
	i.settled = settled(rep.Attr.Ctime)
	i.age.Store(now)
}

// settled is a change time of now, if a change that begins later is sure to have another, otherwise 0: the coarse clock that the times are from has gone
// on, by more than it needs to; by a second if they may be in seconds.
func settled(ctime int64) int64 {
	var now unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now)
	if age := time.Duration(now.Nano() - ctime); err != nil || age < 20*time.Millisecond || ctime%1e9 == 0 && age < time.Second {
		return 0
	}
	return ctime
}

// epoch says whether any names of the mount may have changed: it is then another.
func (fs *FS) epoch() uint64 { return fs.changes.Load() + age.Load() }
