package fsgofer

import (
	"bytes"
	"encoding/binary"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"moat/fsgofer/wire"
)

// readDir returns entries of a directory, and if that is what is asked for, those of directories below it. The offsets are the host's own cookies,
// which outlive the descriptor.
func (s *Server) readDir(r *wire.ReadDirReq) (wire.Message, int, error) {
	e, err := s.resolve(&r.Dir, false)
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
	l := newLister(e.mount, r)
	rep := &listed{ReadDirRep: wire.ReadDirRep{Next: r.Off}, bufs: l.bufs}
	lost, err := l.read(e.dir, &rep.Next, wire.MaxEntries)
	if err != nil {
		rep.release()
		return nil, -1, err
	}
	l.lists = append(l.lists, len(l.raw))
	switch {
	case l.eof:
		rep.EOF = true
		if l.below(e.dir, l.takeDirs(), 0) && len(r.Siblings) > 0 {
			s.readSiblings(l, r, rep)
		}
		s.closeDir(e)
	case r.Dir.Path != "":
		rep.Dir, err = s.addHandle(e)
		if err != nil {
			rep.release()
			return nil, -1, err
		}
		fallthrough
	default:
		if !lost {
			e.pos = rep.Next
		}
	}
	l.bufs.raw = l.raw
	start := 0
	for _, end := range l.lists {
		rep.Lists = append(rep.Lists, entriesOf(l.raw[start:end]))
		start = end
	}
	return rep, -1, nil
}

// readSiblings reads those of r.Siblings that fit.
func (s *Server) readSiblings(l *lister, r *wire.ReadDirReq, rep *listed) {
	d, err := s.resolve(&wire.Ref{H: r.Dir.H, Path: parentPath(r.Dir.Path)}, false)
	if err != nil {
		return
	}
	defer s.put(d)
	for ok := true; ok && len(rep.Siblings) < len(r.Siblings) && l.room() > 8*wire.MaxSiblings; {
		var n int
		n, ok = l.belowOne(d.fd, r.Siblings[len(rep.Siblings)], 0)
		rep.Siblings = append(rep.Siblings, uint32(n))
	}
}

// listed is a wire.ReadDirRep whose entries are in buffers that release gives back.
type listed struct {
	wire.ReadDirRep
	bufs *dirBufs
}

func (r *listed) release() { dirBuffers.Put(r.bufs) }

// dirBufs are getdents64's buffer and the entries that become of it.
type dirBufs struct {
	dents []byte
	raw   []byte
}

var dirBuffers = sync.Pool{New: func() any { return &dirBufs{make([]byte, 32<<10), make([]byte, 0, wire.MaxMessage)} }}

// lister collects the entries of directories. A list is where its entries in raw end.
type lister struct {
	bufs  *dirBufs
	raw   []byte
	lists []int
	attrs uint8
	flags uint64 // of open, for directories below
	left  int    // entries that may come from directories below
	want  bool   // directories are noted in dirs
	dirs  []subdir
	eof   bool
	st    unix.Statx_t
}

// subdir is a directory that was read, by name and by where its entry is.
type subdir struct {
	name string
	at   int
}

// Directories below others are read so deep at most: each keeps a descriptor open.
const maxDepth = 16

func newLister(m *mount, r *wire.ReadDirReq) *lister {
	bufs := dirBuffers.Get().(*dirBufs)
	l := &lister{bufs: bufs, raw: bufs.raw[:0], attrs: r.Attrs, left: int(min(r.Below, wire.MaxEntries)), want: r.Below > 0}
	l.flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NONBLOCK
	if !m.ReadOnly {
		l.flags |= unix.O_NOATIME // nobody has asked to read them
	}
	return l
}

func (l *lister) room() int {
	return wire.MaxMessage - wire.ReadDirFixed - len(l.raw) - wire.ListFixed*len(l.lists)
}

// read appends the entries of fd up to its end (l.eof) or as far as they fit and are at most limit; next is where to go on. lost: the descriptor is past that.
func (l *lister) read(fd int, next *int64, limit int) (lost bool, err error) {
	size := len(l.bufs.dents)
	if l.attrs == wire.AttrsAll {
		size = 12 << 10 // of which more comes
	}
	l.eof = false
	for l.room() >= size/4 && limit > 0 {
		n, err := unix.Getdents(fd, l.bufs.dents[:min(size, l.room())])
		if err != nil {
			return false, err
		}
		if n == 0 {
			l.eof = true
			return false, nil
		}
		for buf := l.bufs.dents[:n]; len(buf) > 0; limit-- {
			d, err := parseDirent(buf)
			if err != nil {
				return false, err
			}
			if limit == 0 || !l.add(fd, &d) {
				return true, nil
			}
			*next = d.off
			buf = buf[d.size:]
		}
	}
	return false, nil
}

// add appends an entry; false if there is no room.
func (l *lister) add(fd int, d *dirent) bool {
	if !wire.ValidName(d.name) {
		return true
	}
	var node *wire.Node
	isDir := d.typ == unix.DT_DIR
	if l.attrs == wire.AttrsAll || l.attrs == wire.AttrsDirs && (isDir || d.typ == unix.DT_UNKNOWN) {
		// Without: it is gone by now, but was there when it was read.
		if statEntry(fd, d.name, &l.st) == nil {
			node = &wire.Node{Attr: attrOf(&l.st)}
			if node.Attr.Mode&unix.S_IFMT == unix.S_IFLNK {
				node.Target = readLink(fd, d.name)
			}
			isDir = node.Attr.Mode&unix.S_IFMT == unix.S_IFDIR
		}
	}
	if wire.EntryLen(d.name, node) > l.room() {
		return false
	}
	if isDir && l.want {
		l.dirs = append(l.dirs, subdir{strings.Clone(d.name), len(l.raw)})
	}
	l.raw = wire.AppendEntry(l.raw, d.ino, d.off, d.typ, d.name, node)
	return true
}

// takeDirs returns the directories noted since it was called last.
func (l *lister) takeDirs() []subdir {
	d := l.dirs
	l.dirs = nil
	return d
}

// below reads the directories dirs of fd and what is below them, depth first; false when that is enough.
func (l *lister) below(fd int, dirs []subdir, depth int) bool {
	for _, d := range dirs {
		n, ok := l.belowOne(fd, d.name, depth)
		if n > 0 {
			wire.SetSub(l.raw[d.at:], n)
		}
		if !ok {
			return false
		}
	}
	return true
}

// belowOne reads the directory name of fd and what is below it, and returns which list it became, 0 if it cannot be read; ok is false when that is
// enough.
func (l *lister) belowOne(fd int, name string, depth int) (n int, ok bool) {
	if l.left <= 0 || depth == maxDepth || l.room() <= wire.ListFixed {
		return 0, false
	}
	// Never into what else is mounted there: it may be slow, or not be meant.
	sub, err := openBelow(fd, name, &unix.OpenHow{Flags: l.flags, Resolve: unix.RESOLVE_NO_XDEV})
	if err != nil {
		return 0, true
	}
	defer unix.Close(sub)
	start := len(l.raw)
	n = len(l.lists)
	l.lists = append(l.lists, 0)
	var next int64
	_, err = l.read(sub, &next, l.left)
	dirs := l.takeDirs()
	if err != nil || !l.eof {
		l.raw, l.lists = l.raw[:start], l.lists[:n]
		return 0, false
	}
	l.lists[n] = len(l.raw)
	l.left -= 1 + (len(l.raw)-start)/32 // about what it has
	return n, l.below(sub, dirs, depth+1)
}

// dirent is a record of getdents64; name is in the buffer that it was read into.
type dirent struct {
	ino  uint64
	off  int64
	typ  uint8
	size int
	name string
}

// direntName is the offset of d_name in struct linux_dirent64.
const direntName = 19

// parseDirent reads the record at the start of b. EIO: it is malformed.
func parseDirent(b []byte) (dirent, error) {
	if len(b) <= direntName {
		return dirent{}, unix.EIO
	}
	d := dirent{ino: binary.LittleEndian.Uint64(b), off: int64(binary.LittleEndian.Uint64(b[8:])), typ: b[18], size: int(binary.LittleEndian.Uint16(b[16:]))}
	if d.size <= direntName || d.size > len(b) {
		return d, unix.EIO
	}
	end := bytes.IndexByte(b[direntName:d.size], 0)
	if end < 0 {
		return d, unix.EIO
	}
	d.name = string(entriesOf(b[direntName : direntName+end]))
	return d, nil
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
