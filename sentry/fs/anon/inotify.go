package anon

import (
	"sync"
	"sync/atomic"

	"moat/sentry/usermem"
	"moat/sentry/vfs"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Inotify is inotify(7).
type Inotify struct {
	file

	mu sync.Mutex
	// events wait to be read; bytes is their size as read(2) returns them.
	// +checklocks:mu
	events []inotifyEvent
	// +checklocks:mu
	bytes int
	// +checklocks:mu
	watches map[int32]*watch
	// +checklocks:mu
	byInode map[vfs.Inode]*watch
	// +checklocks:mu
	lastWD int32
}

type inotifyEvent struct {
	wd           int32
	mask, cookie uint32
	name         string
}

// watch is one watch; it implements vfs.Watcher. mask is guarded by Inotify.mu.
type watch struct {
	in    *Inotify
	wd    int32
	inode vfs.Inode
	mask  uint32
}

// maxQueued and maxWatches are /proc/sys/fs/inotify/max_queued_events and max_user_watches.
const (
	maxQueued  = 16384
	maxWatches = 65536
	// maxInotify bounds the instances of all users, and maxTotal the events that wait in all of them: the sentry's memory.
	maxInotify = 1024
	maxTotal   = 1 << 18
)

var inotifies, totalEvents atomic.Int64

// NewInotify returns an open inotify instance: EINVAL, EMFILE.
func NewInotify(ctx vfs.Context, flags uint32) (*vfs.FileDescription, error) {
	if flags&^uint32(unix.IN_CLOEXEC|unix.IN_NONBLOCK) != 0 {
		return nil, unix.EINVAL
	}
	if inotifies.Add(1) > maxInotify {
		inotifies.Add(-1)
		return nil, unix.EMFILE
	}
	in := &Inotify{file: newFile(), watches: make(map[int32]*watch), byInode: make(map[vfs.Inode]*watch)}
	return vfs.NewAnonFile(ctx, "inotify", in, unix.O_RDONLY|flags&oNonblock), nil
}

// Add is inotify_add_watch(2) on a resolved inode.
func (in *Inotify) Add(i vfs.Inode, mask uint32) (int32, error) {
	const all = linux.IN_ALL_EVENTS
	if mask&all == 0 || mask&unix.IN_MASK_ADD != 0 && mask&unix.IN_MASK_CREATE != 0 {
		return 0, unix.EINVAL
	}
	keep := mask & (all | unix.IN_EXCL_UNLINK | unix.IN_ONESHOT)
	in.mu.Lock()
	defer in.mu.Unlock()
	if w := in.byInode[i]; w != nil {
		switch {
		case mask&unix.IN_MASK_CREATE != 0:
			return 0, unix.EEXIST
		case mask&unix.IN_MASK_ADD != 0:
			w.mask |= keep
		default:
			w.mask = keep
		}
		return w.wd, nil
	}
	if len(in.watches) >= maxWatches {
		return 0, unix.ENOSPC
	}
	in.lastWD++
	w := &watch{in: in, wd: in.lastWD, inode: i, mask: keep}
	if err := vfs.AddWatch(i, w); err != nil {
		return 0, err
	}
	in.watches[w.wd], in.byInode[i] = w, w
	return w.wd, nil
}

// Remove is inotify_rm_watch(2): EINVAL.
func (in *Inotify) Remove(wd int32) error {
	in.mu.Lock()
	w := in.watches[wd]
	in.mu.Unlock()
	if w == nil {
		return unix.EINVAL
	}
	w.remove()
	return nil
}

// remove ends the watch and queues IN_IGNORED.
func (w *watch) remove() {
	in := w.in
	in.mu.Lock()
	if in.watches[w.wd] != w {
		in.mu.Unlock()
		return
	}
	delete(in.watches, w.wd)
	delete(in.byInode, w.inode)
	m := in.queueLocked(inotifyEvent{wd: w.wd, mask: unix.IN_IGNORED})
	in.mu.Unlock()
	vfs.RemoveWatch(w.inode, w)
	in.Waiters.Notify(m)
}

// Event implements vfs.Watcher.
func (w *watch) Event(mask, cookie uint32, name string, unlinked bool) {
	in := w.in
	in.mu.Lock()
	want := w.mask
	if in.watches[w.wd] != w || unlinked && name != "" && want&unix.IN_EXCL_UNLINK != 0 {
		in.mu.Unlock()
		return
	}
	hit := mask&want&linux.IN_ALL_EVENTS != 0 || mask&unix.IN_UNMOUNT != 0
	var m waiter.EventMask
	if hit {
		m = in.queueLocked(inotifyEvent{w.wd, mask, cookie, name})
	}
	in.mu.Unlock()
	in.Waiters.Notify(m)
	if mask&(unix.IN_DELETE_SELF|unix.IN_UNMOUNT) != 0 && name == "" || hit && want&unix.IN_ONESHOT != 0 {
		w.remove()
	}
}

// queueLocked queues e, and returns what in's waiters are to be told.
// +checklocks:in.mu
func (in *Inotify) queueLocked(e inotifyEvent) waiter.EventMask {
	if n := len(in.events); n > 0 {
		// The same again is told once (inotify_merge).
		if in.events[n-1] == e && e.mask&unix.IN_IGNORED == 0 {
			return waiter.ReadableEvents
		}
		if n >= maxQueued || totalEvents.Load() >= maxTotal {
			if in.events[n-1].mask != unix.IN_Q_OVERFLOW {
				e = inotifyEvent{wd: -1, mask: unix.IN_Q_OVERFLOW}
			} else {
				return waiter.ReadableEvents
			}
		}
	}
	in.events = append(in.events, e)
	in.bytes += e.size()
	totalEvents.Add(1)
	return waiter.ReadableEvents | vfs.AsyncIn
}

// size is that of struct inotify_event with the name padded to 16 bytes.
func (e *inotifyEvent) size() int {
	if e.name == "" {
		return 16
	}
	return 16 + (len(e.name)+1+15)&^15
}

// Read implements vfs.FileImpl.
func (in *Inotify) Read(_ vfs.Context, _ *vfs.FileDescription, dst usermem.IOSequence, _ int64, _ vfs.IOFlags) (int64, error) {
	left := int(dst.NumBytes())
	in.mu.Lock()
	if len(in.events) == 0 {
		in.mu.Unlock()
		return 0, unix.EWOULDBLOCK
	}
	var b []byte
	n := 0
	for ; n < len(in.events) && len(b)+in.events[n].size() <= left; n++ {
		e := &in.events[n]
		at := len(b)
		b = append(b, make([]byte, e.size())...)
		le.PutUint32(b[at:], uint32(e.wd))
		le.PutUint32(b[at+4:], e.mask)
		le.PutUint32(b[at+8:], e.cookie)
		le.PutUint32(b[at+12:], uint32(e.size()-16))
		copy(b[at+16:], e.name)
	}
	if n == 0 {
		in.mu.Unlock()
		return 0, unix.EINVAL
	}
	totalEvents.Add(-int64(n))
	if in.events = in.events[n:]; len(in.events) == 0 {
		in.events = nil
	}
	in.bytes -= len(b)
	in.mu.Unlock()
	c, err := dst.CopyOut(b)
	return int64(c), err
}

// Ioctl implements vfs.FileImpl.
func (in *Inotify) Ioctl(_ vfs.Context, _ *vfs.FileDescription, io usermem.IO, req uint32, arg uintptr) (uintptr, error) {
	if req != linux.FIONREAD {
		return 0, unix.ENOTTY
	}
	in.mu.Lock()
	n := in.bytes
	in.mu.Unlock()
	return 0, usermem.PutUint32(io, arg, uint32(n))
}

// AsyncEvents implements vfs.Asyncer.
func (in *Inotify) AsyncEvents(vfs.Context, *vfs.FileDescription) waiter.EventMask {
	return vfs.AsyncEvents
}

// Release implements vfs.FileImpl.
func (in *Inotify) Release(vfs.Context, *vfs.FileDescription) {
	in.mu.Lock()
	ws := in.watches
	totalEvents.Add(-int64(len(in.events)))
	in.watches, in.byInode, in.events = nil, nil, nil
	in.mu.Unlock()
	inotifies.Add(-1)
	for _, w := range ws {
		vfs.RemoveWatch(w.inode, w)
	}
}

// Readiness implements vfs.FileImpl.
func (in *Inotify) Readiness(mask waiter.EventMask) waiter.EventMask {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.events) == 0 {
		return 0
	}
	return mask & waiter.ReadableEvents
}
