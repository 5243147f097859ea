package vfs

import (
	"encoding/binary"
	"sync"
	"time"
	"weak"

	"golang.org/x/sys/unix"
)

// File handles: name_to_handle_at(2) and open_by_handle_at(2). A handle is the file's inode number and what tells it from an earlier file of that number,
// its birth time. Nothing is held for it: the file is found again by the dentry that it was asked of, while that lives, and by a search of the file
// system otherwise.

// AT_HANDLE_*, and what a handle's type may say beside: only a directory, and only what is below the directory that it is opened by. There are no connectable
// handles, as for tmpfs on Linux.
const (
	HandleUniqueMount = 1
	HandleConnectable = 2
	HandleFID         = unix.AT_REMOVEDIR
	fileIDConnectable = 0x10000
	fileIDDir         = 0x20000
)

// handleKind is what handles of a file system are like: their type (FILEID_*) and size, and whether files are found by them.
type handleKind struct {
	typ    int32
	size   int
	opened bool
}

func (sb *super) handleKind() handleKind {
	switch sb.fs.Type() {
	case "cgroup2":
		return handleKind{0xfe, 8, true}
	case "overlay": // without nfs_export
		return handleKind{0xf8, 36, false}
	case "proc", "sysfs", "devpts", "mqueue", "nsfs", "pipefs", "sockfs", "anon_inodefs", "9p":
		return handleKind{0x81, 12, false}
	}
	return handleKind{1, 12, true}
}

// bornAs is what a handle has of a file's birth time.
func (a *Attr) bornAs() uint32 { return uint32(a.Btime) ^ uint32(a.Btime>>32) }

// Handle returns the type and bytes of p's handle; flags are HandleFID and HandleConnectable. EOPNOTSUPP: the file system has none of that kind.
func Handle(ctx Context, p Path, flags uint32) (typ int32, h []byte, err error) {
	sb := p.Dentry.sb
	k := sb.handleKind()
	if flags&HandleFID == 0 && !k.opened || flags&HandleConnectable != 0 {
		return 0, nil, unix.EOPNOTSUPP
	}
	a, err := p.Inode().Attr(ctx)
	if err != nil {
		return 0, nil, err
	}
	if k.opened {
		sb.handles.add(a.Ino, p.Dentry)
	}
	h = binary.LittleEndian.AppendUint64(nil, a.Ino)
	h = binary.LittleEndian.AppendUint32(h, a.bornAs())
	return k.typ, append(h, make([]byte, 36)...)[:k.size], nil
}

// OpenHandle finds the file of a handle on at's mount: ESTALE if there is none (any more).
func OpenHandle(ctx Context, at Path, typ int32, h []byte) (Path, error) {
	sb := at.Dentry.sb
	k := sb.handleKind()
	if !k.opened || k.typ != 1 && typ&0xffff != k.typ || len(h) < k.size { // tmpfs takes any type
		return Path{}, unix.ESTALE
	}
	d, err := at.Mount.search(ctx, binary.LittleEndian.Uint64(h))
	if err != nil {
		return Path{}, err
	}
	a, err := d.inode.Attr(ctx)
	if err != nil || k.size > 8 && a.bornAs() != binary.LittleEndian.Uint32(h[8:]) || typ&fileIDDir != 0 && d.dir == nil || typ&fileIDConnectable != 0 && !isAncestor(at.Dentry, d) {
		d.DecRef()
		return Path{}, unix.ESTALE
	}
	at.Mount.IncRef()
	return Path{at.Mount, d}, nil
}

// handleTable has of files that a handle was asked of the dentries, by inode number. It keeps none of them.
type handleTable struct {
	mu sync.Mutex
	m  map[uint64]weak.Pointer[Dentry] // +checklocks:mu
}

func (t *handleTable) add(ino uint64, d *Dentry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.m == nil || len(t.m) >= 4096 {
		t.m = map[uint64]weak.Pointer[Dentry]{}
	}
	t.m[ino] = weak.Make(d)
}

// find returns the dentry of ino with a reference, or nil.
func (t *handleTable) find(ino uint64) *Dentry {
	t.mu.Lock()
	d := t.m[ino].Value()
	t.mu.Unlock()
	if d == nil || !d.tryIncRef() {
		return nil
	}
	return d
}

// maxSearch is how many directories a search has before it at once, and finds in one.
const maxSearch = 100000

// search finds the file with the number ino, if need be in a walk through all directories of m's file system: ESTALE, ENOMEM, or that ctx was interrupted.
func (m *Mount) search(ctx Context, ino uint64) (*Dentry, error) {
	if d := m.sb.handles.find(ino); d != nil {
		return d, nil
	}
	m.sb.root.IncRef()
	todo := []*Dentry{m.sb.root}
	defer func() {
		for _, d := range todo {
			d.DecRef()
		}
	}()
	for len(todo) > 0 {
		if len(todo) > maxSearch {
			return nil, unix.ENOMEM
		}
		if err := ctx.BlockUntil(nil, time.Unix(1, 0)); err != unix.ETIMEDOUT {
			return nil, err
		}
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if a, err := d.inode.Attr(ctx); err == nil && a.Ino == ino {
			return d, nil
		}
		if d.dir != nil {
			todo = append(todo, m.directoriesAnd(d, ino)...)
		}
		d.DecRef()
	}
	return nil, unix.ESTALE
}

// directoriesAnd returns the directories in d and the file ino, if it seems to be there, with references.
func (m *Mount) directoriesAnd(d *Dentry, ino uint64) (found []*Dentry) {
	ctx := Background()
	impl, err := d.inode.Open(ctx, d, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil
	}
	fd := NewFile(ctx.Credentials(), impl, Path{m, d}, unix.O_DIRECTORY|unix.O_NOATIME) // ours alone: nobody is told of it
	var names []string
	impl.ReadDir(ctx, fd, 0, func(e Dirent) error {
		if (e.Type == unix.DT_DIR || e.Type == unix.DT_UNKNOWN || e.Ino == ino) && e.Name != "." && e.Name != ".." {
			names = append(names, e.Name)
		}
		if len(names) > maxSearch {
			return unix.ENOMEM
		}
		return nil
	})
	impl.Release(ctx, fd)
	for _, n := range names {
		if c, err := d.child(ctx, n, "", 0); err == nil {
			found = append(found, c)
		}
	}
	return found
}
