package gofer

import (
	"strings"

	"golang.org/x/sys/unix"

	"moat/fsgofer/wire"
	"moat/sentry/vfs"
)

// ahead is what one request found out about a path that is just being walked: names, one below the other, beginning in the directory that has it, and
// their nodes. It is handed down as the walk goes on, and good for as long as no directory of the mount has changed.
type ahead struct {
	names   []string
	nodes   []wire.Node
	fd      int        // of the file that the last name is; -1: none
	errno   unix.Errno // why there are fewer nodes than names; 0: not known
	changes uint64
}

// maxAhead bounds the names of one request.
const maxAhead = 12

// setAhead replaces what i has.
func (i *inode) setAhead(a *ahead) {
	if old := i.ahead.Swap(a); old != nil {
		old.drop(i.fs)
	}
}

// drop gives the handles and the descriptor back.
func (a *ahead) drop(fs *FS) {
	if a.fd >= 0 {
		unix.Close(a.fd)
	}
	for _, n := range a.nodes {
		fs.c.CloseHandle(n.Handle, false)
	}
}

// Prefetch implements vfs.Prefetcher.
func (i *inode) Prefetch(_ vfs.Context, name, rest string, open bool) {
	if i.fs.shared {
		return
	}
	if n, absent := i.known(name); n || absent {
		return
	}
	if a := i.ahead.Load(); a != nil && a.names[0] == name {
		return // from the walk that comes by here now
	}
	if i.missed() {
		if n, absent := i.known(name); n || absent {
			return
		}
	}
	names := []string{name}
	for _, n := range strings.Split(rest, "/") {
		if n == "" || n == "." {
			continue
		}
		if !wire.ValidName(n) || len(names) == maxAhead {
			open = false
			break
		}
		names = append(names, n)
	}
	if len(names) == 1 && !open {
		return
	}
	a := &ahead{names: names, changes: i.fs.epoch(), fd: -1}
	var rep wire.WalkRep
	var fds [1]int
	n, err := i.walk(&wire.WalkReq{Open: open, Names: names}, &rep, fds[:])
	if n > 0 {
		a.fd = fds[0]
	}
	a.nodes = rep.Nodes
	if err != nil {
		a.drop(i.fs)
		return
	}
	if rep.Errno == uint32(unix.ENOENT) {
		a.errno = unix.ENOENT
	}
	i.setAhead(a)
}

// takeAhead answers a lookup from what was found ahead; ok is false if nothing was.
func (i *inode) takeAhead(name string) (c vfs.Inode, err error, ok bool) {
	if i.ahead.Load() == nil {
		return nil, nil, false
	}
	a := i.ahead.Swap(nil)
	if a == nil {
		return nil, nil, false
	}
	if a.names[0] != name || a.changes != i.fs.epoch() || len(a.nodes) == 0 && a.errno == 0 {
		a.drop(i.fs)
		return nil, nil, false
	}
	if len(a.nodes) == 0 {
		a.drop(i.fs)
		return nil, a.errno, true
	}
	n := i.fs.inodeOf(&a.nodes[0], i, name)
	a.names, a.nodes = a.names[1:], a.nodes[1:]
	if len(a.names) == 0 && a.fd >= 0 {
		if n.isFile() {
			n.install(a.fd, &n.ro, 0)
		} else {
			unix.Close(a.fd)
		}
		return n, nil, true
	}
	if len(a.names) > 0 && (len(a.nodes) > 0 || a.errno != 0) {
		n.setAhead(a)
	} else {
		a.drop(i.fs)
	}
	return n, nil, true
}
