package fsgofer

import (
	"runtime/debug"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"moat/fsgofer/wire"
)

// handle is an O_PATH descriptor that the sentry may name, or one that an operation uses for a while.
type handle struct {
	mount *mount
	fd    int
	// refs is guarded by Server.mu; one reference belongs to the table.
	refs int

	dirMu sync.Mutex
	// dir is a descriptor for reading the directory, -1 if none is open, and pos where it stands.
	// +checklocks:dirMu
	dir int
	// +checklocks:dirMu
	pos int64
}

// add puts fd into the table; on error it is closed.
func (s *Server) add(m *mount, fd int) (wire.Handle, error) {
	h, err := s.addHandle(&handle{mount: m, fd: fd, dir: -1, refs: 0})
	if err != nil {
		unix.Close(fd)
	}
	return h, err
}

// addHandle puts e into the table, which takes a new reference.
func (s *Server) addHandle(e *handle) (wire.Handle, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.handles) >= s.maxHandles {
		return 0, unix.EMFILE
	}
	for {
		s.last++
		if s.last != 0 && s.handles[s.last] == nil {
			break
		}
	}
	e.refs++
	s.handles[s.last] = e
	if n := len(s.handles); n >= 1<<12 && n&(n-1) == 0 {
		debug.SetMemoryLimit(garbageAt + int64(n)<<10) // it takes up to a quarter of a KiB, and there may soon be twice as many
	}
	return s.last, nil
}

// get returns the handle with a reference, which put drops. EBADMSG: the sentry made the number up.
func (s *Server) get(h wire.Handle) (*handle, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.handles[h]
	if e == nil {
		return nil, unix.EBADMSG
	}
	e.refs++
	return e, nil
}

// put drops a reference. The last one closes the descriptors.
func (s *Server) put(e *handle) {
	s.mu.Lock()
	e.refs--
	last := e.refs == 0
	s.mu.Unlock()
	if last {
		e.dirMu.Lock()
		defer e.dirMu.Unlock()
		unix.Close(e.fd)
		if e.dir >= 0 {
			s.closeDir(e)
		}
	}
}

func (s *Server) close(r *wire.CloseReq) (wire.Message, int, error) {
	for _, h := range r.Handles {
		s.mu.Lock()
		e := s.handles[h]
		delete(s.handles, h)
		s.mu.Unlock()
		if e == nil {
			return nil, -1, unix.EBADMSG
		}
		s.put(e)
	}
	return nil, -1, nil
}

// dirOf is get for a directory in which something is to be looked up, or with change to be changed.
func (s *Server) dirOf(h wire.Handle, change bool) (*handle, error) {
	e, err := s.get(h)
	if err == nil && change && e.mount.ReadOnly {
		s.put(e)
		return nil, unix.EROFS
	}
	return e, err
}

// resolve returns the file that r names, to be given back by put; with change the mount must be writable.
func (s *Server) resolve(r *wire.Ref, change bool) (*handle, error) {
	e, err := s.dirOf(r.H, change)
	if err != nil {
		return nil, err
	}
	if r.Path != "" {
		fd, err := openPath(e.fd, r.Path)
		m := e.mount
		s.put(e)
		if err != nil {
			return nil, err
		}
		e = &handle{mount: m, fd: fd, dir: -1, refs: 1}
	}
	if r.Ino != 0 {
		if a, _, err := stat(e.fd, ""); err != nil || a.Ino != r.Ino {
			s.put(e)
			if err == nil {
				err = unix.ESTALE
			}
			return nil, err
		}
	}
	return e, nil
}

// below is how every name or path is opened: it cannot lead out of dirfd nor through a link.
func below(dirfd int, name string, flags uint64, mode uint32) (int, error) {
	return openBelow(dirfd, name, &unix.OpenHow{Flags: flags, Mode: uint64(mode)})
}

// openBelow is below with more ways to resolve the name.
func openBelow(dirfd int, name string, how *unix.OpenHow) (int, error) {
	how.Flags |= unix.O_NOFOLLOW | unix.O_CLOEXEC
	how.Resolve |= unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_SYMLINKS
	for {
		// EAGAIN: a rename elsewhere kept the kernel from being sure that the walk stayed beneath.
		fd, err := unix.Openat2(dirfd, name, how)
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
}

// openPath returns an O_PATH descriptor of name, which may be a symlink itself (openat2(2): O_PATH|O_NOFOLLOW).
func openPath(dirfd int, name string) (int, error) { return below(dirfd, name, unix.O_PATH, 0) }

// self is the name of fd in the working directory, /proc/self/fd.
func self(fd int) string { return strconv.Itoa(fd) }

// reopen opens the file of an O_PATH descriptor for data. The caller has seen that it is a regular file or a directory.
func reopen(fd int, flags uint64) (int, error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC}
	if flags&unix.O_PATH == 0 {
		how.Flags |= unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_LARGEFILE
	}
	for {
		n, err := unix.Openat2(unix.AT_FDCWD, self(fd), &how)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// reopenFile opens a regular file for data; EINVAL for any other.
func reopenFile(fd int, write bool) (int, wire.Attr, error) {
	a, _, err := stat(fd, "")
	if err != nil {
		return -1, a, err
	}
	if a.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, a, unix.EINVAL
	}
	flags := uint64(unix.O_RDONLY)
	if write {
		flags = unix.O_RDWR
	}
	n, err := reopen(fd, flags)
	return n, a, err
}

const statMask = unix.STATX_BASIC_STATS | unix.STATX_BTIME

// stat returns the attributes of name in dirfd (not following it), or of dirfd itself if name is empty, and the target of a symlink.
func stat(dirfd int, name string) (wire.Attr, string, error) {
	var st unix.Statx_t
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	if err := unix.Statx(dirfd, name, flags, statMask, &st); err != nil {
		return wire.Attr{}, "", err
	}
	a := attrOf(&st)
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return a, "", nil
	}
	return a, readLink(dirfd, name), nil
}

// readLink returns the target of the symlink name in dirfd (dirfd itself if name is empty). "": it changed, the next look will tell.
func readLink(dirfd int, name string) string {
	var buf [wire.MaxPath + 1]byte
	n, err := unix.Readlinkat(dirfd, name, buf[:])
	if err != nil || n > wire.MaxPath {
		return ""
	}
	return string(buf[:n])
}

func nano(t unix.StatxTimestamp) int64 { return t.Sec*1e9 + int64(t.Nsec) }

func attrOf(st *unix.Statx_t) wire.Attr {
	return wire.Attr{
		Ino: st.Ino, Dev: unix.Mkdev(st.Dev_major, st.Dev_minor), Mode: uint32(st.Mode), Nlink: st.Nlink, UID: st.Uid, GID: st.Gid,
		Rdev: unix.Mkdev(st.Rdev_major, st.Rdev_minor), Size: int64(st.Size), Blocks: int64(st.Blocks), Blksize: st.Blksize,
		Atime: nano(st.Atime), Mtime: nano(st.Mtime), Ctime: nano(st.Ctime), Btime: nano(st.Btime), Attributes: st.Attributes,
	}
}
