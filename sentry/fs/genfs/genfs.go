// Package genfs makes file systems whose files are generated when they are read: proc and sysfs. It knows directories (a fixed part and a
// part that is looked up), files with a function that prints them, and symlinks.
//
// A file is printed anew whenever it is read from offset 0, and the rest of it is read from that copy (as Linux's seq_file of
// one record). Inodes of the fixed part live as long as the file system, others from Lookup to Evict; inode numbers say which file it is and
// are the caller's business.
//
// Locks: openFile.mu guards the printed copy; it is held while the file is printed, so Gen may take any lock that a system call
// without locks may.
package genfs

import (
	"bytes"
	"math"
	"sort"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/waiter"

	"moat/sentry/kernel/auth"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

// FS is a file system of generated files.
type FS struct {
	vfs.FSDefaults
	Options string
	// Released, if set, is called at the end.
	Released func()
	root     vfs.Inode
	born     vfs.Time
	inos     uint64
}

// New returns a file system without files; see SetRoot.
func New(name string, magic uint64) *FS {
	return &FS{FSDefaults: vfs.NewFSDefaults(name, magic), born: vfs.Time(time.Now().UnixNano())}
}

// SetRoot sets the root directory, before the file system is mounted.
func (fs *FS) SetRoot(d vfs.Inode) { fs.root = d }

// NextIno returns an inode number for the fixed part. Not for concurrent use.
func (fs *FS) NextIno() uint64 {
	fs.inos++
	return fs.inos
}

// Root implements vfs.FileSystem.
func (fs *FS) Root() vfs.Inode { return fs.root }

// MountOptions implements vfs.FileSystem.
func (fs *FS) MountOptions() string { return fs.Options }

// Release implements vfs.FileSystem.
func (fs *FS) Release() {
	if fs.Released != nil {
		fs.Released()
	}
}

// Base is the common part of all inodes.
type Base struct {
	vfs.InodeDefaults
	fs   *FS
	Ino  uint64
	mode uint16
	// Owner is the file's owner; nil is root.
	Owner func() (auth.KUID, auth.KGID)
	// Access, if set, is asked when the file is opened or looked into (directories, magic links).
	Access func(ctx vfs.Context) error
	born   vfs.Time
	nlink  uint32
	size   int64
}

func (b *Base) init(fs *FS, ino uint64, mode uint16) {
	b.fs, b.Ino, b.mode, b.nlink, b.born = fs, ino, mode, 1, fs.born
}

// FS implements vfs.Inode.
func (b *Base) FS() vfs.FileSystem { return b.fs }

// Mode implements vfs.Inode.
func (b *Base) Mode() uint16 { return b.mode }

// Attr implements vfs.Inode.
func (b *Base) Attr(vfs.Context) (vfs.Attr, error) {
	a := vfs.Attr{Ino: b.Ino, Mode: b.mode, Nlink: b.nlink, Blksize: 1024, Size: b.size, Atime: b.born, Mtime: b.born, Ctime: b.born}
	if b.Owner != nil {
		a.UID, a.GID = b.Owner()
	}
	return a, nil
}

// SetAttr implements vfs.Inode: truncation (open with O_TRUNC) and times do nothing, nor does another owner for a file that follows somebody's.
func (b *Base) SetAttr(_ vfs.Context, s vfs.SetAttr) error {
	if s.Valid&vfs.SetMode != 0 || b.Owner == nil && s.Valid&(vfs.SetUID|vfs.SetGID) != 0 {
		return unix.EPERM
	}
	return nil
}

func (b *Base) access(ctx vfs.Context) error {
	if b.Access == nil {
		return nil
	}
	return b.Access(ctx)
}

// Child is a named file of the fixed part of a directory.
type Child struct {
	Name  string
	Inode vfs.Inode
}

// Dynamic is the part of a directory that is looked up. Keys order the entries; they are >= 0.
type Dynamic interface {
	// Find returns the file, or ENOENT.
	Find(ctx vfs.Context, name string) (vfs.Inode, error)
	// List emits the entries with keys >= from in ascending order until emit returns false.
	List(ctx vfs.Context, from int64, emit func(key int64, name string, typ uint8, ino uint64) bool) error
}

// Dir is a directory.
type Dir struct {
	Base
	fixed []Child
	index []int // of fixed, by name
	dyn   Dynamic
}

// NewDir returns a directory with these files, in this order, and those of dyn (which may be nil).
func NewDir(fs *FS, ino uint64, perm uint16, dyn Dynamic, fixed ...Child) *Dir {
	d := &Dir{fixed: fixed, dyn: dyn}
	d.init(fs, ino, unix.S_IFDIR|perm)
	d.nlink = 2
	d.index = make([]int, len(fixed))
	for i, c := range fixed {
		d.index[i] = i
		if c.Inode.Mode()&unix.S_IFMT == unix.S_IFDIR {
			d.nlink++
		}
	}
	sort.Slice(d.index, func(a, b int) bool { return fixed[d.index[a]].Name < fixed[d.index[b]].Name })
	return d
}

// InitDir makes d, which another inode embeds, a directory with the files of dyn.
func InitDir(d *Dir, fs *FS, ino uint64, perm uint16, dyn Dynamic) {
	d.dyn = dyn
	d.init(fs, ino, unix.S_IFDIR|perm)
	d.nlink = 2
}

// Attr implements vfs.Inode: the directories in it count as links, as programs that look for single threads know of /proc/PID/task.
func (d *Dir) Attr(ctx vfs.Context) (vfs.Attr, error) {
	a, err := d.Base.Attr(ctx)
	if err == nil && d.dyn != nil {
		_ = d.dyn.List(ctx, 0, func(_ int64, _ string, typ uint8, _ uint64) bool { // one that is gone has no more of them
			if typ == unix.DT_DIR {
				a.Nlink++
			}
			return true
		})
	}
	return a, err
}

// Lookup implements vfs.Inode.
func (d *Dir) Lookup(ctx vfs.Context, name string) (vfs.Inode, error) {
	if err := d.access(ctx); err != nil {
		return nil, err
	}
	n := sort.Search(len(d.index), func(i int) bool { return d.fixed[d.index[i]].Name >= name })
	if n < len(d.index) && d.fixed[d.index[n]].Name == name {
		return d.fixed[d.index[n]].Inode, nil
	}
	if d.dyn != nil {
		return d.dyn.Find(ctx, name)
	}
	return nil, unix.ENOENT
}

// EmptyDirectory implements vfs.EmptyDirectory.
func (d *Dir) EmptyDirectory() bool { return len(d.fixed) == 0 && d.dyn == nil }

// Open implements vfs.Inode.
func (d *Dir) Open(ctx vfs.Context, _ *vfs.Dentry, _ uint32) (vfs.FileImpl, error) {
	if err := d.access(ctx); err != nil {
		return nil, err
	}
	return &openDir{d: d}, nil
}

type openDir struct {
	vfs.FileDefaults
	d *Dir
}

// Seekable implements vfs.FileImpl.
func (*openDir) Seekable() bool { return true }

// ReadDir implements vfs.FileImpl. Offsets: 1 and 2 are behind "." and "..", then come the fixed entries, then the keys.
func (o *openDir) ReadDir(ctx vfs.Context, fd *vfs.FileDescription, off int64, emit func(vfs.Dirent) error) (int64, error) {
	put := func(name string, typ uint8, ino uint64, next int64) bool {
		if emit(vfs.Dirent{Name: name, Type: typ, Ino: ino, Off: next}) != nil {
			return false
		}
		off = next
		return true
	}
	if off == 0 && !put(".", unix.DT_DIR, o.d.Ino, 1) {
		return off, nil
	}
	if off == 1 && !put("..", unix.DT_DIR, parentIno(ctx, fd, o.d.Ino), 2) {
		return off, nil
	}
	for off-2 < int64(len(o.d.fixed)) {
		c := o.d.fixed[off-2]
		a, err := c.Inode.Attr(ctx)
		if err != nil {
			return off, err
		}
		if !put(c.Name, uint8(a.Mode>>12), a.Ino, off+1) {
			return off, nil
		}
	}
	if o.d.dyn == nil {
		return off, nil
	}
	base := int64(len(o.d.fixed)) + 2
	err := o.d.dyn.List(ctx, off-base, func(key int64, name string, typ uint8, ino uint64) bool {
		return put(name, typ, ino, base+key+1)
	})
	return off, err
}

func parentIno(ctx vfs.Context, fd *vfs.FileDescription, own uint64) uint64 {
	if fd == nil || fd.Dentry().IsRoot() {
		return own
	}
	p := fd.Dentry().Parent()
	defer p.DecRef()
	if a, err := p.Inode().Attr(ctx); err == nil {
		return a.Ino
	}
	return own
}

// File is a regular file.
type File struct {
	Base
	// Gen prints the file; nil: it cannot be read.
	Gen func(ctx vfs.Context, b *bytes.Buffer) error
	// Put takes what one write call wrote, at off; nil: it cannot be written.
	Put func(ctx vfs.Context, fd *vfs.FileDescription, data []byte, off int64) error
	// Changed and Version, if set, make the file pollable: POLLPRI|POLLERR when Version changed since it was read.
	Changed func() *waiter.Queue
	Version func() uint64
}

// NewFile returns a file.
func NewFile(fs *FS, ino uint64, perm uint16, gen func(vfs.Context, *bytes.Buffer) error) *File {
	f := &File{Gen: gen}
	f.init(fs, ino, unix.S_IFREG|perm)
	return f
}

// InitFile makes f, which another inode embeds, a file.
func InitFile(f *File, fs *FS, ino uint64, perm uint16) { f.init(fs, ino, unix.S_IFREG|perm) }

// Open implements vfs.Inode.
func (f *File) Open(ctx vfs.Context, _ *vfs.Dentry, flags uint32) (vfs.FileImpl, error) {
	if err := f.access(ctx); err != nil {
		return nil, err
	}
	o := &openFile{f: f}
	if f.Changed != nil {
		o.version = f.Version()
		o.Waiters = f.Changed()
	}
	return o, nil
}

type openFile struct {
	vfs.Waitable
	f *File

	mu sync.Mutex
	// +checklocks:mu
	printed bool
	// +checklocks:mu
	text []byte
	// +checklocks:mu
	version uint64
}

// Seekable implements vfs.FileImpl.
func (*openFile) Seekable() bool { return true }

// SeekEnd implements vfs.FileImpl. As in seq_lseek, the end is not known.
func (*openFile) SeekEnd(vfs.Context) (int64, error) { return 0, unix.EINVAL }

// Read implements vfs.FileImpl.
func (o *openFile) Read(ctx vfs.Context, _ *vfs.FileDescription, dst usermem.IOSequence, off int64, _ vfs.IOFlags) (int64, error) {
	if o.f.Gen == nil {
		return 0, unix.EINVAL
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if off == 0 || !o.printed {
		if o.f.Version != nil {
			o.version = o.f.Version()
		}
		var b bytes.Buffer
		if err := o.f.Gen(ctx, &b); err != nil {
			return 0, err
		}
		o.text, o.printed = b.Bytes(), true
	}
	if off >= int64(len(o.text)) {
		return 0, nil
	}
	n, err := dst.CopyOut(o.text[off:])
	if n > 0 {
		err = nil
	}
	return int64(n), err
}

// maxWrite bounds one write (PAGE_SIZE for most of proc's files).
const maxWrite = 64 << 10

// Write implements vfs.FileImpl.
func (o *openFile) Write(ctx vfs.Context, fd *vfs.FileDescription, src usermem.IOSequence, off int64, _ vfs.IOFlags) (int64, int64, error) {
	if o.f.Put == nil {
		return 0, off, unix.EINVAL
	}
	n := src.NumBytes()
	if n > maxWrite {
		return 0, off, unix.EINVAL
	}
	data := make([]byte, n)
	if _, err := src.CopyIn(data); err != nil {
		return 0, off, err
	}
	if err := o.f.Put(ctx, fd, data, off); err != nil {
		return 0, off, err
	}
	return n, off + n, nil
}

// CanPoll implements vfs.PollChooser.
func (o *openFile) CanPoll() bool { return o.f.Version != nil }

// Readiness implements vfs.FileImpl.
func (o *openFile) Readiness(mask waiter.EventMask) waiter.EventMask {
	ready := waiter.ReadableEvents | waiter.WritableEvents
	if o.f.Version != nil {
		o.mu.Lock()
		if v := o.f.Version(); v != o.version {
			o.version = v
			ready |= waiter.EventPri | waiter.EventErr
		}
		o.mu.Unlock()
	}
	return ready & mask
}

// Link is a symlink.
type Link struct {
	Base
	// Target is what readlink shows.
	Target func(ctx vfs.Context) (string, error)
	// Jump, if set, is where a path walk goes instead (a magic link), with references.
	Jump func(ctx vfs.Context) (vfs.Path, error)
}

// NewLink returns a symlink.
func NewLink(fs *FS, ino uint64, perm uint16, target func(vfs.Context) (string, error)) *Link {
	l := &Link{Target: target}
	l.init(fs, ino, unix.S_IFLNK|perm)
	return l
}

// SetSize sets the size that stat shows (64 for proc's descriptors).
func (l *Link) SetSize(n int64) { l.size = n }

// Readlink implements vfs.Inode.
func (l *Link) Readlink(ctx vfs.Context) (string, error) {
	if err := l.access(ctx); err != nil {
		return "", err
	}
	return l.Target(ctx)
}

// FollowLink implements vfs.Inode.
func (l *Link) FollowLink(ctx vfs.Context) (string, vfs.Path, error) {
	if err := l.access(ctx); err != nil {
		return "", vfs.Path{}, err
	}
	if l.Jump != nil {
		p, err := l.Jump(ctx)
		return "", p, err
	}
	s, err := l.Target(ctx)
	return s, vfs.Path{}, err
}

// Text returns a Gen that prints s.
func Text(s string) func(vfs.Context, *bytes.Buffer) error {
	return func(_ vfs.Context, b *bytes.Buffer) error {
		b.WriteString(s)
		return nil
	}
}

// Tree builds a fixed tree of directories from paths: Add("kernel/hostname", file).
type Tree struct {
	fs    *FS
	names []string
	nodes map[string]vfs.Inode
	subs  map[string]*Tree
}

// NewTree returns an empty tree.
func NewTree(fs *FS) *Tree {
	return &Tree{fs: fs, nodes: map[string]vfs.Inode{}, subs: map[string]*Tree{}}
}

// Add enters inode at path; nil makes an empty directory there.
func (t *Tree) Add(path string, inode vfs.Inode) {
	name, rest, more := strings.Cut(path, "/")
	if t.nodes[name] == nil && t.subs[name] == nil {
		t.names = append(t.names, name)
	}
	if !more && inode != nil {
		t.nodes[name] = inode
		return
	}
	if t.subs[name] == nil {
		t.subs[name] = NewTree(t.fs)
	}
	if more {
		t.subs[name].Add(rest, inode)
	}
}

// AddText enters a read-only file with a fixed text.
func (t *Tree) AddText(path, text string) { t.AddFile(path, 0o444, Text(text)) }

// AddFile enters a generated file and returns it.
func (t *Tree) AddFile(path string, perm uint16, gen func(vfs.Context, *bytes.Buffer) error) *File {
	f := NewFile(t.fs, t.fs.NextIno(), perm, gen)
	t.Add(path, f)
	return f
}

// AddLink enters a symlink.
func (t *Tree) AddLink(path, target string) {
	t.Add(path, NewLink(t.fs, t.fs.NextIno(), 0o777, func(vfs.Context) (string, error) { return target, nil }))
}

// Dir makes the directories and returns the top one, with dyn as its dynamic part.
func (t *Tree) Dir(dyn Dynamic) *Dir {
	var cs []Child
	for _, n := range t.names {
		if s := t.subs[n]; s != nil {
			cs = append(cs, Child{n, s.Dir(nil)})
		} else {
			cs = append(cs, Child{n, t.nodes[n]})
		}
	}
	return NewDir(t.fs, t.fs.NextIno(), 0o555, dyn, cs...)
}

// MaxKey is the largest key of a Dynamic.
const MaxKey = math.MaxInt64 - 1<<20

// Children makes the directories and returns what is at the top.
func (t *Tree) Children() []Child { return t.Dir(nil).fixed }
