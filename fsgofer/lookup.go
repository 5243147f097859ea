package fsgofer

import (
	"golang.org/x/sys/unix"

	"moat/fsgofer/wire"
)

// walk looks up names one below the other. What stops it before the end is part of the answer: the nodes found so far
// are good.
func (s *Server) walk(r *wire.WalkReq) (wire.Message, int, error) {
	cur, err := s.get(r.Dir)
	if err != nil {
		return nil, -1, err
	}
	defer func() { s.put(cur) }()
	rep := &wire.WalkRep{}
	for i, name := range r.Names {
		n, fd, err := walkOne(cur.fd, name, r.Handle || i < len(r.Names)-1)
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
	if rep.Errno != 0 && len(rep.Nodes) == 0 {
		return nil, -1, unix.Errno(rep.Errno)
	}
	return rep, -1, nil
}

// walkOne looks name up in dirfd. With open, a directory comes with a descriptor, else fd is -1.
func walkOne(dirfd int, name string, open bool) (n wire.Node, fd int, err error) {
	n.Attr, n.Target, err = stat(dirfd, name)
	if err != nil || !open || n.Attr.Mode&unix.S_IFMT != unix.S_IFDIR {
		return n, -1, err
	}
	fd, err = openPath(dirfd, name)
	if err != nil {
		return n, -1, err
	}
	// What was opened is what is described, whatever happened to the name in between.
	if n.Attr, n.Target, err = stat(fd, ""); err == nil && n.Attr.Mode&unix.S_IFMT != unix.S_IFDIR {
		unix.Close(fd)
		return n, -1, nil
	}
	if err != nil {
		unix.Close(fd)
		fd = -1
	}
	return n, fd, err
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
	return &wire.AttrRep{Attr: a}, fd, nil
}

func (s *Server) getAttr(r *wire.RefReq) (wire.Message, int, error) {
	e, err := s.resolve(&r.Ref, false)
	if err != nil {
		return nil, -1, err
	}
	defer s.put(e)
	return attrRep(e.fd)
}

func attrRep(fd int) (wire.Message, int, error) {
	a, _, err := stat(fd, "")
	return &wire.AttrRep{Attr: a}, -1, err
}

func (s *Server) readlink(r *wire.RefReq) (wire.Message, int, error) {
	e, err := s.resolve(&r.Ref, false)
	if err != nil {
		return nil, -1, err
	}
	defer s.put(e)
	a, target, err := stat(e.fd, "")
	if err == nil && a.Mode&unix.S_IFMT != unix.S_IFLNK {
		err = unix.EINVAL
	}
	return &wire.StringRep{S: target}, -1, err
}

func (s *Server) statFS(r *wire.RefReq) (wire.Message, int, error) {
	e, err := s.resolve(&r.Ref, false)
	if err != nil {
		return nil, -1, err
	}
	defer s.put(e)
	var st unix.Statfs_t
	if err := unix.Fstatfs(e.fd, &st); err != nil {
		return nil, -1, err
	}
	return &wire.StatFSRep{Type: uint64(st.Type), Bsize: uint64(st.Bsize), Blocks: st.Blocks, Bfree: st.Bfree, Bavail: st.Bavail, Files: st.Files,
		Ffree: st.Ffree, Namelen: uint64(st.Namelen), Frsize: uint64(st.Frsize), Flags: uint64(st.Flags)}, -1, nil
}

// seek is lseek(2) with SEEK_DATA and SEEK_HOLE, on a descriptor of its own.
func (s *Server) seek(r *wire.SeekReq) (wire.Message, int, error) {
	e, err := s.resolve(&r.Ref, false)
	if err != nil {
		return nil, -1, err
	}
	defer s.put(e)
	fd, _, err := reopenFile(e.fd, false)
	if err != nil {
		return nil, -1, err
	}
	defer unix.Close(fd)
	whence := unix.SEEK_DATA
	if r.Hole {
		whence = unix.SEEK_HOLE
	}
	off, err := unix.Seek(fd, r.Off, whence)
	return &wire.SeekRep{Off: off}, -1, err
}
