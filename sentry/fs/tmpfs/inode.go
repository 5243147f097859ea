package tmpfs

import (
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"moat/sentry/kernel/auth"
	"moat/sentry/memory"
	"moat/sentry/vfs"
)

// inode is what all types of files share.
type inode struct {
	vfs.InodeDefaults
	fs   *FileSystem
	ino  uint64
	rdev uint64
	mode atomic.Uint32

	mu sync.Mutex
	// +checklocks:mu
	uid auth.KUID
	// +checklocks:mu
	gid auth.KGID
	// +checklocks:mu
	nlink uint32
	// +checklocks:mu
	atime vfs.Time
	// +checklocks:mu
	mtime vfs.Time
	// +checklocks:mu
	ctime vfs.Time
	// +checklocks:mu
	btime vfs.Time
	// xattrBytes bounds xattrs.
	// +checklocks:mu
	xattrBytes int
	// +checklocks:mu
	xattrs map[string][]byte
	// linkable: made by O_TMPFILE, may get a first name.
	// +checklocks:mu
	linkable bool
	// gone: counted out of the file system.
	// +checklocks:mu
	gone bool
}

func (i *inode) init(fs *FileSystem, o vfs.CreateOptions, now vfs.Time) {
	i.fs = fs
	i.ino = fs.lastIno.Add(1)
	i.mode.Store(uint32(o.Mode))
	i.rdev = o.Rdev
	i.mu.Lock()
	defer i.mu.Unlock()
	i.uid, i.gid = o.UID, o.GID
	i.nlink = 1
	i.atime, i.mtime, i.ctime, i.btime = now, now, now, now
}

// setLinks is for a new inode.
func (i *inode) setLinks(n uint32, linkable bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.nlink, i.linkable = n, linkable
}

// node is any of the types of inodes.
type node interface {
	vfs.Inode
	base() *inode
}

func (i *inode) base() *inode { return i }

// FS implements vfs.Inode.
func (i *inode) FS() vfs.FileSystem { return i.fs }

// Mode implements vfs.Inode.
func (i *inode) Mode() uint16 { return uint16(i.mode.Load()) }

// Attr implements vfs.Inode.
func (i *inode) Attr(vfs.Context) (vfs.Attr, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return vfs.Attr{Ino: i.ino, Mode: i.Mode(), Nlink: i.nlink, UID: i.uid, GID: i.gid, Rdev: i.rdev, Blksize: memory.PageSize,
		AttributesMask: unix.STATX_ATTR_APPEND | unix.STATX_ATTR_IMMUTABLE | unix.STATX_ATTR_NODUMP, Atime: i.atime, Mtime: i.mtime, Ctime: i.ctime, Btime: i.btime}, nil
}

// SetAttr implements vfs.Inode. SetSize is regular's.
func (i *inode) SetAttr(ctx vfs.Context, s vfs.SetAttr) error {
	now := ctx.Now()
	i.mu.Lock()
	defer i.mu.Unlock()
	if s.Valid&vfs.SetMode != 0 {
		i.mode.Store(i.mode.Load()&unix.S_IFMT | uint32(s.Mode&0o7777))
	}
	if s.Valid&vfs.SetUID != 0 {
		i.uid = s.UID
	}
	if s.Valid&vfs.SetGID != 0 {
		i.gid = s.GID
	}
	if s.Valid&vfs.SetAtime != 0 {
		i.atime = s.Atime
	}
	if s.Valid&vfs.SetMtime != 0 {
		i.mtime = s.Mtime
	}
	i.ctime = now
	return nil
}

// modified sets mtime and ctime.
func (i *inode) modified(now vfs.Time) {
	i.mu.Lock()
	i.mtime, i.ctime = now, now
	i.mu.Unlock()
}

func (i *inode) accessed(ctx vfs.Context, fd *vfs.FileDescription) {
	if fd == nil {
		return
	}
	i.mu.Lock()
	if fd.WantsAtime(ctx, i.atime, i.mtime, i.ctime) {
		i.atime = ctx.Now()
	}
	i.mu.Unlock()
}

// addLink counts one more name: ENOENT for a file that lost its last one, EMLINK.
func (i *inode) addLink(now vfs.Time) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.nlink == 0 && !i.linkable {
		return unix.ENOENT
	}
	if i.nlink == 1<<31 {
		return unix.EMLINK
	}
	i.linkable = false
	i.nlink++
	i.ctime = now
	return nil
}

func (i *inode) dropLink(n uint32, now vfs.Time) {
	i.mu.Lock()
	i.nlink -= min(n, i.nlink)
	i.ctime = now
	i.mu.Unlock()
}

// Evict implements vfs.Inode.
func (i *inode) Evict() { i.evicted() }

// evicted counts an inode without names out; false if it has some, or was counted before.
func (i *inode) evicted() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.nlink != 0 || i.gone {
		return false
	}
	i.gone = true
	i.fs.inodes.Add(-1)
	return true
}

const maxXattrBytes = 128 << 10

func xattrKnown(name string) error {
	for _, p := range [...]string{"user.", "trusted.", "security."} {
		if strings.HasPrefix(name, p) {
			if len(name) == len(p) {
				return unix.EINVAL
			}
			return nil
		}
	}
	return unix.EOPNOTSUPP
}

// GetXattr implements vfs.Inode.
func (i *inode) GetXattr(_ vfs.Context, name string) ([]byte, error) {
	if err := xattrKnown(name); err != nil {
		return nil, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	v, ok := i.xattrs[name]
	if !ok {
		return nil, unix.ENODATA
	}
	return v, nil // replaced, never changed
}

// SetXattr implements vfs.Inode.
func (i *inode) SetXattr(ctx vfs.Context, name string, value []byte, flags uint32) error {
	if err := xattrKnown(name); err != nil {
		return err
	}
	now := ctx.Now()
	i.mu.Lock()
	defer i.mu.Unlock()
	old, ok := i.xattrs[name]
	switch {
	case ok && flags&unix.XATTR_CREATE != 0:
		return unix.EEXIST
	case !ok && flags&unix.XATTR_REPLACE != 0:
		return unix.ENODATA
	}
	n := i.xattrBytes + len(value) - len(old)
	if !ok {
		n += len(name)
	}
	if n > maxXattrBytes {
		return unix.ENOSPC
	}
	if i.xattrs == nil {
		i.xattrs = make(map[string][]byte)
	}
	i.xattrs[name] = append([]byte{}, value...)
	i.xattrBytes = n
	i.ctime = now
	return nil
}

// ListXattr implements vfs.Inode.
func (i *inode) ListXattr(vfs.Context) ([]string, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	out := make([]string, 0, len(i.xattrs))
	for n := range i.xattrs {
		out = append(out, n)
	}
	sort.Strings(out)
	return out, nil
}

// RemoveXattr implements vfs.Inode.
func (i *inode) RemoveXattr(ctx vfs.Context, name string) error {
	if err := xattrKnown(name); err != nil {
		return err
	}
	now := ctx.Now()
	i.mu.Lock()
	defer i.mu.Unlock()
	old, ok := i.xattrs[name]
	if !ok {
		return unix.ENODATA
	}
	i.xattrBytes -= len(name) + len(old)
	delete(i.xattrs, name)
	i.ctime = now
	return nil
}

// special is a FIFO, socket or device node: VFS opens those.
type special struct{ inode }

// symlink is a symbolic link.
type symlink struct {
	inode
	target string
}

// Attr implements vfs.Inode.
func (l *symlink) Attr(ctx vfs.Context) (vfs.Attr, error) {
	a, err := l.inode.Attr(ctx)
	a.Size = int64(len(l.target))
	return a, err
}

// Readlink implements vfs.Inode.
func (l *symlink) Readlink(vfs.Context) (string, error) { return l.target, nil }

// FollowLink implements vfs.Inode.
func (l *symlink) FollowLink(vfs.Context) (string, vfs.Path, error) {
	return l.target, vfs.Path{}, nil
}
