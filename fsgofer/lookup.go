package fsgofer

import (
	"strings"

	"golang.org/x/sys/unix"

	"moat/fsgofer/wire"
)

// walk looks up names one below the other. What stops it before the end is part of the answer: the nodes found so far
// are good.
func (s *Server) walk(r *wire.WalkReq) (wire.Message, int, error) {
	cur, err := s.resolve(&r.Dir, false)
	if err != nil {
		return nil, -1, err
	}
	defer func() { s.put(cur) }()
	rep := &wire.WalkRep{}
	if r.Handle && r.Dir.Path != "" {
		if rep.Dir, err = s.addHandle(cur); err != nil {
			return nil, -1, err
		}
	}
	if r.Settle {
		rep.Settled = quiesce(cur)
	}
	all := &withFDs{Message: rep}
	rep.More, all.fds = walkMore(cur, r.More, r.Open)
	data := -1
	for i, name := range r.Names {
		var n wire.Node
		var fd int
		if last := i == len(r.Names)-1; !last {
			n, fd, err = walkOne(cur.fd, name, true)
		} else if r.Open {
			n, fd, data, err = walkOpen(cur.fd, name)
		} else {
			n, fd, err = walkLast(cur.fd, name, r.Handle)
		}
		if err == nil && fd >= 0 {
			// Our own reference holds it whatever the sentry does with a handle that it guesses.
			next := &handle{mount: cur.mount, fd: fd, dir: -1, refs: 1}
			if r.Handle {
				n.Handle, err = s.addHandle(next)
			}
			s.put(cur)
			cur = next
		}
		if err != nil {
			rep.Errno = errnoOf(err)
			break
		}
		rep.Nodes = append(rep.Nodes, n)
		if fd < 0 {
			break
		}
	}
	return all, data, nil
}

// walkMore looks up what a request's More says. Without luck the answer is without it.
func walkMore(d *handle, names []string, open bool) (nodes []wire.Node, fds []int) {
	for _, name := range names {
		var n wire.Node
		fd, err := -1, error(nil)
		if open || d.mount.Shared {
			n, fd, err = walkOne(d.fd, name, false)
		} else {
			n, _, err = walkLast(d.fd, name, false)
		}
		switch file := n.Attr.Mode&unix.S_IFMT == unix.S_IFREG; {
		case fd < 0:
		case open && file:
			fd, err = forData(fd)
		case !d.mount.Shared:
			unix.Close(fd)
			fd, err = -1, unix.EINVAL
		}
		if err != nil {
			n = wire.Node{}
		} else if fd >= 0 {
			fds = append(fds, fd)
		}
		nodes = append(nodes, n)
	}
	return nodes, fds
}

// forData turns an O_PATH descriptor of a regular file into one for reading.
func forData(path int) (fd int, err error) {
	defer unix.Close(path)
	return reopen(path, unix.O_RDONLY)
}

// quiesce waits for those changes of a directory that are under way: it may have their change time already, and not yet their names. The kernel reads
// directories under the lock that changes hold; there need be no room for an entry. False: it cannot be read.
func quiesce(e *handle) bool {
	fd, err := reopen(e.fd, unix.O_RDONLY|unix.O_DIRECTORY)
	if err == nil {
		_, err = unix.Getdents(fd, make([]byte, 8))
		unix.Close(fd)
	}
	return err == nil || err == unix.EINVAL
}

// walkOne opens name in dirfd. fd is an O_PATH descriptor of it if it is a directory (or anything, unless onlyDir), else -1.
func walkOne(dirfd int, name string, onlyDir bool) (n wire.Node, fd int, err error) {
	if fd, err = openPath(dirfd, name); err != nil {
		return n, -1, err
	}
	if n.Attr, n.Target, err = stat(fd, ""); err != nil || onlyDir && n.Attr.Mode&unix.S_IFMT != unix.S_IFDIR {
		unix.Close(fd)
		fd = -1
	}
	return n, fd, err
}

// walkLast is walkOne for a name that is probably not a directory; without open, one comes without a descriptor.
func walkLast(dirfd int, name string, open bool) (n wire.Node, fd int, err error) {
	n.Attr, n.Target, err = stat(dirfd, name)
	if err != nil || !open || n.Attr.Mode&unix.S_IFMT != unix.S_IFDIR {
		return n, -1, err
	}
	// What is opened is what is described, whatever happened to the name in between.
	return walkOne(dirfd, name, true)
}

// walkOpen is walkOne for a name that is about to be opened: data is a descriptor for reading, or -1.
func walkOpen(dirfd int, name string) (n wire.Node, fd, data int, err error) {
	n, fd, err = walkOne(dirfd, name, false)
	if err != nil {
		return n, -1, -1, err
	}
	switch n.Attr.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return n, fd, -1, nil
	case unix.S_IFREG:
		data, err = reopen(fd, unix.O_RDONLY)
	}
	unix.Close(fd)
	if n.Attr.Mode&unix.S_IFMT != unix.S_IFREG || err != nil {
		data = -1 // an open of its own will tell why
	}
	return n, -1, data, nil
}

// withFDs is a reply with the descriptors of its More.
type withFDs struct {
	wire.Message
	fds []int
}

func (s *Server) open(r *wire.OpenReq) (wire.Message, int, error) {
	e, err := s.resolve(&r.Ref, r.Write)
	if err != nil {
		return nil, -1, err
	}
	defer s.put(e)
	fd, a, err := reopenFile(e.fd, r.Write)
	if err != nil {
		return nil, -1, err
	}
	rep := &wire.OpenRep{Attr: a}
	all := &withFDs{Message: rep}
	if len(r.More) > 0 && !e.mount.Shared {
		all.fds = s.openMore(r, rep)
	}
	return all, fd, nil
}

// parentPath is path without its last name.
func parentPath(path string) string { return path[:max(strings.LastIndexByte(path, '/'), 0)] }

// openMore opens what r.More says. Without luck the answer is without it.
func (s *Server) openMore(r *wire.OpenReq, rep *wire.OpenRep) (fds []int) {
	d, err := s.resolve(&wire.Ref{H: r.Ref.H, Path: parentPath(r.Ref.Path)}, false)
	if err != nil {
		return nil
	}
	defer s.put(d)
	nodes, fds := walkMore(d, r.More, true)
	for _, n := range nodes {
		rep.More = append(rep.More, n.Attr)
	}
	return fds
}

func (s *Server) getAttr(e *handle, _ *wire.RefReq) (wire.Message, int, error) {
	rep, fd, err := attrRep(e.fd)
	if err == nil && e.mount.Shared {
		fd, _ = reopen(e.fd, unix.O_PATH) // without it, the sentry asks again
	}
	return rep, fd, err
}

func attrRep(fd int) (wire.Message, int, error) {
	a, _, err := stat(fd, "")
	return &wire.AttrRep{Attr: a}, -1, err
}

func (s *Server) readlink(e *handle, _ *wire.RefReq) (wire.Message, int, error) {
	a, target, err := stat(e.fd, "")
	if err == nil && a.Mode&unix.S_IFMT != unix.S_IFLNK {
		err = unix.EINVAL
	}
	return &wire.StringRep{S: target}, -1, err
}

func (s *Server) statFS(e *handle, _ *wire.RefReq) (wire.Message, int, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(e.fd, &st); err != nil {
		return nil, -1, err
	}
	return &wire.StatFSRep{Type: uint64(st.Type), Bsize: uint64(st.Bsize), Blocks: st.Blocks, Bfree: st.Bfree, Bavail: st.Bavail, Files: st.Files,
		Ffree: st.Ffree, Namelen: uint64(st.Namelen), Frsize: uint64(st.Frsize), Flags: uint64(st.Flags)}, -1, nil
}
