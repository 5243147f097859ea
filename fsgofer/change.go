package fsgofer

import (
	"strings"

	"golang.org/x/sys/unix"

	"moat/fsgofer/wire"
)

// own gives a new file, open as fd (O_PATH suffices), the owner and mode that it is to have, and returns its attributes. Chown comes first:
// it clears set-id bits. An ordinary user's gofer cannot give files away; its user namespace maps
// the container's IDs to its own then, and the file stays as it is.
func own(fd int, mode, uid, gid uint32) (wire.Attr, error) {
	a, _, err := stat(fd, "")
	if err != nil {
		return a, err
	}
	changed := false
	if a.UID != uid || a.GID != gid {
		err := unix.Fchownat(fd, "", int(uid), int(gid), unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW)
		if err != nil && err != unix.EPERM && err != unix.EINVAL {
			return a, err
		}
		changed = true
	}
	if a.Mode&unix.S_IFMT != unix.S_IFLNK && (a.Mode&07777 != mode&07777 || changed && mode&06000 != 0) {
		if err := unix.Chmod(self(fd), mode&07777); err != nil {
			return a, err
		}
		changed = true
	}
	if changed {
		a, _, err = stat(fd, "")
	}
	return a, err
}

// create makes a regular file. It is created closed to others and gets its owner before its mode.
func (s *Server) create(e *handle, r *wire.CreateReq) (wire.Message, int, error) {
	if r.Name == "" {
		return s.tmpfile(e, r)
	}
	fd, err := below(e.fd, r.Name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NONBLOCK|unix.O_NOCTTY, r.Mode&0700)
	if err != nil {
		return nil, -1, err
	}
	a, err := own(fd, r.Mode, r.UID, r.GID)
	if err != nil {
		unix.Close(fd)
		unix.Unlinkat(e.fd, r.Name, 0)
		return nil, -1, err
	}
	return &wire.NodeRep{Node: wire.Node{Attr: a}, Dir: dirAttr(e)}, fd, nil
}

// tmpfile makes a file without a name, which the sentry names by a handle.
func (s *Server) tmpfile(e *handle, r *wire.CreateReq) (wire.Message, int, error) {
	fd, err := reopen(e.fd, unix.O_RDWR|unix.O_TMPFILE)
	if err != nil {
		return nil, -1, err
	}
	a, err := own(fd, r.Mode, r.UID, r.GID)
	if err != nil {
		unix.Close(fd)
		return nil, -1, err
	}
	path, err := reopen(fd, unix.O_PATH)
	if err != nil {
		unix.Close(fd)
		return nil, -1, err
	}
	h, err := s.add(e.mount, path)
	if err != nil {
		unix.Close(fd)
		return nil, -1, err
	}
	return &wire.NodeRep{Node: wire.Node{Handle: h, Attr: a}}, fd, nil
}

// makeNode is mkdir(2), symlink(2) and mknod(2).
func (s *Server) makeNode(e *handle, r *wire.MakeReq) (wire.Message, int, error) {
	var err error
	rmflags := 0
	switch typ := r.Mode & unix.S_IFMT; typ {
	case unix.S_IFDIR:
		err = unix.Mkdirat(e.fd, r.Name, r.Mode&0700)
		rmflags = unix.AT_REMOVEDIR
	case unix.S_IFLNK:
		err = unix.Symlinkat(r.Target, e.fd, r.Name)
	case unix.S_IFCHR, unix.S_IFBLK:
		// On a shared mount a host user could open what a guest made there.
		if e.mount.Shared && r.Rdev != 0 {
			return nil, -1, unix.EPERM
		}
		err = unix.Mknodat(e.fd, r.Name, typ|r.Mode&0600, int(r.Rdev))
	case unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK:
		err = unix.Mknodat(e.fd, r.Name, typ|r.Mode&0600, 0)
	default:
		return nil, -1, unix.EINVAL
	}
	if err != nil {
		return nil, -1, err
	}
	fd, err := openPath(e.fd, r.Name)
	if err != nil {
		return nil, -1, err // someone else on a shared mount took it away
	}
	n := wire.Node{Target: r.Target}
	if n.Attr, err = own(fd, r.Mode, r.UID, r.GID); err != nil {
		unix.Close(fd)
		unix.Unlinkat(e.fd, r.Name, rmflags)
		return nil, -1, err
	}
	if rmflags == 0 {
		unix.Close(fd)
	} else if n.Handle, err = s.add(e.mount, fd); err != nil {
		return nil, -1, err
	}
	return &wire.NodeRep{Node: n, Dir: dirAttr(e)}, -1, nil
}

func (s *Server) link(r *wire.LinkReq) (wire.Message, int, error) {
	d, err := s.dirOf(r.Dir, true)
	if err != nil {
		return nil, -1, err
	}
	defer s.put(d)
	t, err := s.resolve(&r.Target, true)
	if err != nil {
		return nil, -1, err
	}
	defer s.put(t)
	if t.mount != d.mount {
		return nil, -1, unix.EXDEV
	}
	// By the descriptor's own link in the working directory: needs no CAP_DAC_READ_SEARCH, unlike AT_EMPTY_PATH.
	if err := unix.Linkat(unix.AT_FDCWD, self(t.fd), d.fd, r.Name, unix.AT_SYMLINK_FOLLOW); err != nil {
		return nil, -1, err
	}
	a, _, err := stat(t.fd, "")
	return &wire.LinkRep{Attr: a, Dir: dirAttr(d)}, -1, err
}

// dirAttr are the attributes of a directory after it was changed. They cannot fail for an open file; if they do, Ino is 0.
func dirAttr(e *handle) wire.Attr {
	a, _, _ := stat(e.fd, "")
	return a
}

// keep opens name before it is unlinked, for a reply with a handle; 0 if there is nothing to keep.
func keep(dirfd int, name string, want bool) int {
	if !want {
		return -1
	}
	fd, err := openPath(dirfd, name)
	if err != nil {
		return -1
	}
	return fd
}

// kept turns keep's descriptor into the reply after the operation that ended with err. The name is gone even if no handle is to be had
// any more, so that is no error: the sentry then knows the file no longer.
func (s *Server) kept(dir, newDir *handle, fd int, err error) (wire.Message, int, error) {
	if err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return nil, -1, err
	}
	rep := &wire.GoneRep{Dir: dirAttr(dir)}
	if newDir != nil {
		rep.New = dirAttr(newDir)
	}
	if fd >= 0 {
		rep.Handle, _ = s.add(dir.mount, fd)
	}
	return rep, -1, nil
}

func (s *Server) rename(r *wire.RenameReq) (wire.Message, int, error) {
	o, err := s.dirOf(r.OldDir, true)
	if err != nil {
		return nil, -1, err
	}
	defer s.put(o)
	n, err := s.dirOf(r.NewDir, true)
	if err != nil {
		return nil, -1, err
	}
	defer s.put(n)
	switch {
	case o.mount != n.mount:
		return nil, -1, unix.EXDEV
	case r.Flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE|unix.RENAME_WHITEOUT) != 0:
		return nil, -1, unix.EINVAL
	}
	fd := keep(n.fd, r.NewName, r.Keep)
	return s.kept(o, n, fd, unix.Renameat2(o.fd, r.OldName, n.fd, r.NewName, uint(r.Flags)))
}

func (s *Server) unlink(e *handle, r *wire.UnlinkReq) (wire.Message, int, error) {
	flags := 0
	if r.Rmdir {
		flags = unix.AT_REMOVEDIR
	}
	fd := keep(e.fd, r.Name, r.Keep)
	return s.kept(e, nil, fd, unix.Unlinkat(e.fd, r.Name, flags))
}

// setAttr changes attributes, mode after owner.
func (s *Server) setAttr(e *handle, r *wire.SetAttrReq) (wire.Message, int, error) {
	if r.Valid&(wire.SetUID|wire.SetGID) != 0 {
		uid, gid := -1, -1
		if r.Valid&wire.SetUID != 0 {
			uid = int(r.UID)
		}
		if r.Valid&wire.SetGID != 0 {
			gid = int(r.GID)
		}
		if err := unix.Fchownat(e.fd, "", uid, gid, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return nil, -1, err
		}
	}
	if r.Valid&wire.SetMode != 0 {
		if err := unix.Chmod(self(e.fd), r.Mode&07777); err != nil {
			return nil, -1, err
		}
	}
	if r.Valid&(wire.SetAtime|wire.SetMtime) != 0 {
		ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_OMIT}}
		if r.Valid&wire.SetAtime != 0 {
			ts[0] = timespec(r.Atime)
		}
		if r.Valid&wire.SetMtime != 0 {
			ts[1] = timespec(r.Mtime)
		}
		if err := setTimes(e.fd, ts); err != nil {
			return nil, -1, err
		}
	}
	return attrRep(e.fd)
}

// setTimes sets times; a symlink's too, which has no other way than its own descriptor.
func setTimes(fd int, ts []unix.Timespec) error {
	return unix.UtimesNanoAt(fd, "", ts, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW)
}

func timespec(ns int64) unix.Timespec {
	sec, rem := ns/1e9, ns%1e9
	if rem < 0 {
		sec, rem = sec-1, rem+1e9
	}
	return unix.Timespec{Sec: sec, Nsec: rem}
}

// onXattr calls f with a path of the file e for a request about one xattr, if it is one of those that a guest may see or change.
func onXattr(e *handle, name string, change bool, f func(path string) (wire.Message, error)) (wire.Message, int, error) {
	if !xattrAllowed(name, change) {
		return nil, -1, unix.EOPNOTSUPP
	}
	return onXattrs(e, f)
}

// onXattrs calls f with a path of the file e for a request about xattrs. A symlink has none that a guest may touch.
func onXattrs(e *handle, f func(path string) (wire.Message, error)) (wire.Message, int, error) {
	a, _, err := stat(e.fd, "")
	if err == nil && a.Mode&unix.S_IFMT == unix.S_IFLNK {
		err = unix.EOPNOTSUPP
	}
	if err != nil {
		return nil, -1, err
	}
	m, err := f(self(e.fd))
	return m, -1, err
}

// xattrAllowed: the user's attributes, and the file capabilities that execve reads. The rest is the host's.
func xattrAllowed(name string, change bool) bool {
	return strings.HasPrefix(name, "user.") || name == "security.capability" && !change
}

func (s *Server) getXattr(e *handle, r *wire.XattrReq) (wire.Message, int, error) {
	return onXattr(e, r.Name, false, func(path string) (wire.Message, error) {
		buf := make([]byte, wire.MaxXattrValue)
		n, err := unix.Getxattr(path, r.Name, buf)
		return &wire.BytesRep{B: buf[:max(n, 0)]}, err
	})
}

func (s *Server) setXattr(e *handle, r *wire.XattrReq) (wire.Message, int, error) {
	return onXattr(e, r.Name, true, func(path string) (wire.Message, error) {
		return &wire.Empty{}, unix.Setxattr(path, r.Name, r.Value, int(r.Flags))
	})
}

func (s *Server) removeXattr(e *handle, r *wire.XattrReq) (wire.Message, int, error) {
	return onXattr(e, r.Name, true, func(path string) (wire.Message, error) { return &wire.Empty{}, unix.Removexattr(path, r.Name) })
}

func (s *Server) listXattr(e *handle, _ *wire.RefReq) (wire.Message, int, error) {
	return onXattrs(e, func(path string) (wire.Message, error) {
		buf := make([]byte, wire.MaxXattrValue)
		n, err := unix.Listxattr(path, buf)
		var out []byte
		for _, name := range strings.Split(string(buf[:max(n, 0)]), "\x00") {
			if name != "" && xattrAllowed(name, false) {
				out = append(append(out, name...), 0)
			}
		}
		return &wire.BytesRep{B: out}, err
	})
}

// sync is fsync(2), or syncfs(2) of what the file lies on.
func (s *Server) sync(e *handle, r *wire.SyncReq) (wire.Message, int, error) {
	if e.mount.ReadOnly {
		return &wire.Empty{}, -1, nil
	}
	a, _, err := stat(e.fd, "")
	if err != nil {
		return nil, -1, err
	}
	if t := a.Mode & unix.S_IFMT; t != unix.S_IFREG && t != unix.S_IFDIR {
		return nil, -1, unix.EINVAL
	}
	fd, err := reopen(e.fd, unix.O_RDONLY)
	if err != nil {
		return nil, -1, err
	}
	defer unix.Close(fd)
	if r.All {
		return &wire.Empty{}, -1, unix.Syncfs(fd)
	}
	return &wire.Empty{}, -1, unix.Fsync(fd)
}
