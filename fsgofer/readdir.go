package fsgofer

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"

	"moat/fsgofer/wire"
)

// readDir returns the entries that one getdents64 gives. The offsets are the host's own cookies, which outlive the descriptor.
func (s *Server) readDir(r *wire.ReadDirReq) (wire.Message, int, error) {
	e, err := s.get(r.Dir)
	if err != nil {
		return nil, -1, err
	}
	defer s.put(e)
	e.dirMu.Lock()
	defer e.dirMu.Unlock()
	if err := s.openDir(e); err != nil {
		return nil, -1, err
	}
	if e.pos != r.Off {
		if _, err := unix.Seek(e.dir, r.Off, unix.SEEK_SET); err != nil {
			return nil, -1, err
		}
	}
	e.pos = -1 // unknown, until all goes well
	buf := make([]byte, 48<<10)
	rep := &wire.ReadDirRep{Attrs: r.Attrs, Next: r.Off}
	room := wire.MaxMessage - wire.ReadDirFixed
	size := 48 << 10
	if r.Attrs {
		size = 12 << 10
	}
	// A directory that fits is read to its end, so that it takes one request.
	for room >= size/4 {
		n, err := unix.Getdents(e.dir, buf[:min(size, room)])
		if err != nil {
			return nil, -1, err
		}
		if n == 0 {
			rep.EOF = true
			s.closeDir(e)
			return rep, -1, nil
		}
		if room, err = takeDirents(e.fd, buf[:n], rep, room); err != nil {
			return nil, -1, err
		}
	}
	if room >= 0 {
		e.pos = rep.Next
	}
	return rep, -1, nil
}

// takeDirents appends the entries in buf to rep, which has room for so many bytes more, and returns the room left; it is
// negative if an entry did not fit: the descriptor is then past rep.Next.
func takeDirents(dir int, buf []byte, rep *wire.ReadDirRep, room int) (int, error) {
	for len(buf) >= direntName {
		d, size := parseDirent(buf)
		if size == 0 {
			return room, unix.EIO
		}
		buf = buf[size:]
		if wire.ValidName(d.Name) {
			if rep.Attrs {
				var err error
				if d.Node.Attr, d.Node.Target, err = stat(dir, d.Name); err != nil {
					d.Node = wire.Node{} // gone by now: the entry was there when it was read
				}
			}
			if room -= wire.DirentLen(&d, rep.Attrs); room < 0 {
				return room, nil
			}
			rep.Entries = append(rep.Entries, d)
		}
		rep.Next = d.Off
	}
	return room, nil
}

// direntName is the offset of d_name in struct linux_dirent64.
const direntName = 19

// parseDirent reads the record at the start of b, whose size is 0 if it is malformed.
func parseDirent(b []byte) (wire.Dirent, int) {
	size := int(binary.LittleEndian.Uint16(b[16:]))
	if size <= direntName || size > len(b) {
		return wire.Dirent{}, 0
	}
	name := b[direntName:size]
	if i := bytes.IndexByte(name, 0); i >= 0 {
		name = name[:i]
	}
	return wire.Dirent{
		Ino:  binary.LittleEndian.Uint64(b),
		Off:  int64(binary.LittleEndian.Uint64(b[8:])),
		Type: b[18],
		Name: string(name),
	}, size
}

// openDir opens e for reading. Past maxReading directories the descriptor is not kept: see closeDir's caller put.
// +checklocks:e.dirMu
func (s *Server) openDir(e *handle) error {
	if e.dir >= 0 {
		return nil
	}
	s.mu.Lock()
	full := s.reading >= maxReading
	if !full {
		s.reading++
	}
	s.mu.Unlock()
	if full {
		s.closeSomeDir()
		s.mu.Lock()
		s.reading++
		s.mu.Unlock()
	}
	fd, err := reopen(e.fd, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		s.mu.Lock()
		s.reading--
		s.mu.Unlock()
		return err
	}
	e.dir, e.pos = fd, 0
	return nil
}

// closeDir closes the descriptor that reads e.
// +checklocks:e.dirMu
func (s *Server) closeDir(e *handle) {
	unix.Close(e.dir)
	e.dir = -1
	s.mu.Lock()
	s.reading--
	s.mu.Unlock()
}

// closeSomeDir closes the reading descriptor of some directory that is not in use now; its reader goes on from a cookie.
// +checklocksignore: dirMu is only tried.
func (s *Server) closeSomeDir() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.handles {
		if e.dirMu.TryLock() {
			fd := e.dir
			e.dir = -1
			e.dirMu.Unlock()
			if fd >= 0 {
				unix.Close(fd)
				s.reading--
				return
			}
		}
	}
}
