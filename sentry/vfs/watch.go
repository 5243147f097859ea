package vfs

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Events of inotify(7).
const (
	InAccess     = unix.IN_ACCESS
	InModify     = unix.IN_MODIFY
	InAttrib     = unix.IN_ATTRIB
	InCloseWrite = unix.IN_CLOSE_WRITE
	InCloseRead  = unix.IN_CLOSE_NOWRITE
	InOpen       = unix.IN_OPEN
	InMovedFrom  = unix.IN_MOVED_FROM
	InMovedTo    = unix.IN_MOVED_TO
	InCreate     = unix.IN_CREATE
	InDelete     = unix.IN_DELETE
	InDeleteSelf = unix.IN_DELETE_SELF
	InMoveSelf   = unix.IN_MOVE_SELF
	InUnmount    = unix.IN_UNMOUNT
	InIgnored    = unix.IN_IGNORED
	InIsDir      = unix.IN_ISDIR
)

// Watcher receives the events of inodes it watches (an inotify instance's watch).
type Watcher interface {
	// Event is called without VFS locks of the inode, but perhaps with a directory locked: it must only queue.
	// name is the entry of a watched directory, "" for the watched inode itself. unlinked: the file that the event is about has no
	// name any more (IN_EXCL_UNLINK).
	Event(mask, cookie uint32, name string, unlinked bool)
}

// watchSet is the watches of one inode.
type watchSet struct {
	mu sync.Mutex
	// list is copied on change.
	list atomic.Pointer[[]Watcher]
}

// watchTotal counts all watches: while it is 0, events cost one load.
var watchTotal atomic.Int64

var cookies atomic.Uint32

// AddWatch makes w receive i's events and those of its entries, and keeps i from eviction. ESTALE.
func AddWatch(i Inode, w Watcher) error {
	if err := HoldInode(i); err != nil {
		return err
	}
	s := &i.vfsState().extension().watch
	s.mu.Lock()
	defer s.mu.Unlock()
	var l []Watcher
	if p := s.list.Load(); p != nil {
		l = append(l, *p...)
	}
	l = append(l, w)
	s.list.Store(&l)
	watchTotal.Add(1)
	return nil
}

// RemoveWatch undoes AddWatch; false if w did not watch i.
func RemoveWatch(i Inode, w Watcher) bool {
	s := &i.vfsState().extension().watch
	s.mu.Lock()
	var l []Watcher
	found := false
	if p := s.list.Load(); p != nil {
		for _, x := range *p {
			if x == w && !found {
				found = true
				continue
			}
			l = append(l, x)
		}
	}
	s.list.Store(&l)
	s.mu.Unlock()
	if found {
		watchTotal.Add(-1)
		ReleaseInode(i)
	}
	return found
}

func deliver(i Inode, mask, cookie uint32, name string, unlinked bool) {
	e := i.vfsState().ext.Load()
	if e == nil {
		return
	}
	if l := e.watch.list.Load(); l != nil {
		for _, w := range *l {
			w.Event(mask, cookie, name, unlinked)
		}
	}
}

// Notify tells watchers of d's file and of its directory of an event on the file (InAccess, InModify, InAttrib, InOpen, InClose*).
func Notify(d *Dentry, mask uint32) {
	if watchTotal.Load() == 0 || d.inode == nil {
		return
	}
	if isDir(d.inode) {
		mask |= InIsDir
	}
	un := d.Deleted()
	l := d.loc.Load()
	if l.parent != d && l.parent.inode != nil {
		deliver(l.parent.inode, mask, 0, l.name, un)
	}
	deliver(d.inode, mask, 0, "", un)
}

// NotifyInode is Notify for an event that no path led to: i is name in dir.
func NotifyInode(dir, i Inode, name string, mask uint32) {
	if watchTotal.Load() != 0 {
		deliver(dir, mask, 0, name, false)
		deliver(i, mask, 0, "", false)
	}
}

func (fd *FileDescription) notify(mask uint32) {
	if watchTotal.Load() != 0 {
		Notify(fd.path.Dentry, mask)
	}
}

func (fd *FileDescription) notifyClose() {
	if fd.Writable() {
		fd.notify(InCloseWrite)
	} else {
		fd.notify(InCloseRead)
	}
}

// notifyDir tells watchers of dir of a change of its entry name.
func notifyDir(dir *Dentry, mask, cookie uint32, name string, isdir bool) {
	if watchTotal.Load() == 0 {
		return
	}
	if isdir {
		mask |= InIsDir
	}
	deliver(dir.inode, mask, cookie, name, false)
}
