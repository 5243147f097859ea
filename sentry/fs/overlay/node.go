package overlay

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"moat/sentry/fs/tmpfs"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

// node is a file of the overlay.
type node struct {
	vfs.InodeDefaults
	fs    *FileSystem
	ino   uint64
	typ   uint16    // S_IFMT
	lower vfs.Inode // held; nil for a new file
	dir   *directory

	// upper has the attributes once they were changed; copied: and a regular file's data.
	upper  atomic.Pointer[box]
	copied atomic.Bool
	// links is the number of names, less those of the lower inode if there is one.
	links atomic.Int32
	// gone: no name is left. linkable: made by O_TMPFILE.
	gone, linkable atomic.Bool

	// copyMu is held over copy-up.
	copyMu sync.Mutex

	// pinned is guarded by fs.mu: changed, so to be kept while it has names.
	pinned bool
	freed  atomic.Bool
}

type box struct{ vfs.Inode }

// FS implements vfs.Inode.
func (n *node) FS() vfs.FileSystem { return n.fs }

// current is the inode that has the attributes now.
func (n *node) current() vfs.Inode {
	if u := n.upper.Load(); u != nil {
		return u.Inode
	}
	return n.lower
}

// Mode implements vfs.Inode.
func (n *node) Mode() uint16 { return n.current().Mode() }

// Attr implements vfs.Inode.
func (n *node) Attr(ctx vfs.Context) (vfs.Attr, error) {
	a, err := n.current().Attr(ctx)
	if err != nil {
		return a, err
	}
	var links int32
	if n.lower != nil {
		if n.upper.Load() != nil {
			l, err := n.lower.Attr(ctx)
			if err != nil {
				return a, err
			}
			a.Nlink = l.Nlink
			if n.typ == unix.S_IFREG && !n.copied.Load() || n.typ == unix.S_IFDIR {
				a.Size, a.Blocks = l.Size, l.Blocks
			}
			a.Blksize = l.Blksize
		}
		links = int32(a.Nlink)
	} else if n.dir != nil {
		n.dir.mu.RLock()
		a.Size += int64(20 * len(n.dir.entries)) // as tmpfs counts them
		n.dir.mu.RUnlock()
	}
	a.Ino = n.ino
	a.Nlink = uint32(max(0, links+n.links.Load()))
	if n.gone.Load() {
		a.Nlink = 0
	}
	return a, nil
}

// pin keeps n although VFS may forget it.
func (n *node) pin() {
	n.fs.mu.Lock()
	n.pinned = true
	n.fs.mu.Unlock()
}

// copyUp returns the upper inode, made with the lower one's attributes if there is none yet.
func (n *node) copyUp(ctx vfs.Context) (vfs.Inode, error) {
	if u := n.upper.Load(); u != nil {
		return u.Inode, nil
	}
	n.copyMu.Lock()
	defer n.copyMu.Unlock()
	return n.copyUpLocked(ctx)
}

// +checklocks:n.copyMu
func (n *node) copyUpLocked(ctx vfs.Context) (vfs.Inode, error) {
	if u := n.upper.Load(); u != nil {
		return u.Inode, nil
	}
	a, err := n.lower.Attr(ctx)
	if err != nil {
		return nil, err
	}
	target := ""
	if n.typ == unix.S_IFLNK {
		if target, err = n.lower.Readlink(ctx); err != nil {
			return nil, err
		}
	}
	u, err := n.fs.upper.NewNode(ctx, vfs.CreateOptions{Mode: a.Mode, UID: a.UID, GID: a.GID, Rdev: a.Rdev}, target)
	if err != nil {
		return nil, err
	}
	if err := vfs.HoldInode(u); err != nil {
		return nil, err
	}
	if err := copyXattrs(ctx, n.lower, u); err != nil {
		tmpfs.Abandon(u)
		vfs.ReleaseInode(u)
		return nil, err
	}
	tmpfs.Adopt(u, &a)
	n.pin()
	n.upper.Store(&box{u})
	return u, nil
}

func copyXattrs(ctx vfs.Context, from, to vfs.Inode) error {
	names, err := from.ListXattr(ctx)
	if err != nil {
		return err
	}
	for _, x := range names {
		v, err := from.GetXattr(ctx, x)
		if err == nil {
			err = to.SetXattr(ctx, x, v, 0)
		}
		if err == unix.ENOSPC || err == unix.EIO {
			return err
		}
	}
	return nil
}

// lazySize is the size above which data is not copied at once but page by page, when it is written or mapped for writing.
var lazySize int64 = 256 << 10

// copyData copies the attributes and the first size bytes up, unless the data was copied before.
func (n *node) copyData(ctx vfs.Context, size int64) error {
	if n.copied.Load() {
		return nil
	}
	n.copyMu.Lock()
	defer n.copyMu.Unlock()
	if n.copied.Load() {
		return nil
	}
	u, err := n.copyUpLocked(ctx)
	if err != nil {
		return err
	}
	a, err := u.Attr(ctx)
	if err != nil {
		return err
	}
	la, err := n.lower.Attr(ctx)
	if err != nil {
		return err
	}
	if size = min(size, la.Size); size > lazySize {
		l, err := n.lower.Open(vfs.Background(), nil, unix.O_RDONLY)
		if err != nil {
			return err
		}
		tmpfs.SetBacking(u, l, size)
	} else if size > 0 {
		if err := CopyData(n.lower, u, size); err != nil {
			u.SetAttr(vfs.Background(), vfs.SetAttr{Valid: vfs.SetSize})
			tmpfs.Adopt(u, &a)
			return err
		}
	}
	tmpfs.Adopt(u, &a)
	n.copied.Store(true)
	return nil
}

var copyBuffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// CopyData copies the first size bytes of from to to; holes stay holes.
func CopyData(from, to vfs.Inode, size int64) error {
	ctx := vfs.Background()
	src, err := from.Open(ctx, nil, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer src.Release(ctx, nil)
	dst, err := to.Open(ctx, nil, unix.O_RDWR)
	if err != nil {
		return err
	}
	defer dst.Release(ctx, nil)
	if err := to.SetAttr(ctx, vfs.SetAttr{Valid: vfs.SetSize, Size: size}); err != nil {
		return err
	}
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	for off := int64(0); off < size; {
		data, err := src.SeekData(ctx, off, true)
		if err == unix.ENXIO {
			break // a hole to the end
		}
		if err == nil {
			off = data
		}
		if off >= size {
			break
		}
		b := (*buf)[:min(int64(len(*buf)), size-off)]
		n, err := src.Read(ctx, nil, usermem.Bytes(b), off, 0)
		if err != nil || n == 0 {
			return err
		}
		w, _, err := dst.Write(ctx, nil, usermem.Bytes(b[:n]), off, 0)
		if err != nil {
			return err
		}
		if w < n {
			return unix.ENOSPC
		}
		off += n
	}
	return nil
}

// SetAttr implements vfs.Inode.
func (n *node) SetAttr(ctx vfs.Context, s vfs.SetAttr) error {
	if s.Valid&vfs.SetSize != 0 {
		if n.typ != unix.S_IFREG {
			return unix.EINVAL
		}
		if err := n.copyData(ctx, s.Size); err != nil {
			return err
		}
	}
	u, err := n.copyUp(ctx)
	if err != nil {
		return err
	}
	return u.SetAttr(ctx, s)
}

// touch sets the modification time of a directory whose entries changed.
func (n *node) touch(ctx vfs.Context) error {
	return n.SetAttr(ctx, vfs.SetAttr{Valid: vfs.SetMtime, Mtime: ctx.Now()})
}

// Readlink implements vfs.Inode.
func (n *node) Readlink(ctx vfs.Context) (string, error) { return n.current().Readlink(ctx) }

// FollowLink implements vfs.Inode.
func (n *node) FollowLink(ctx vfs.Context) (string, vfs.Path, error) {
	return n.current().FollowLink(ctx)
}

// GetXattr implements vfs.Inode.
func (n *node) GetXattr(ctx vfs.Context, name string) ([]byte, error) {
	return n.current().GetXattr(ctx, name)
}

// ListXattr implements vfs.Inode.
func (n *node) ListXattr(ctx vfs.Context) ([]string, error) { return n.current().ListXattr(ctx) }

// SetXattr implements vfs.Inode.
func (n *node) SetXattr(ctx vfs.Context, name string, value []byte, flags uint32) error {
	u, err := n.copyUp(ctx)
	if err != nil {
		return err
	}
	return u.SetXattr(ctx, name, value, flags)
}

// RemoveXattr implements vfs.Inode.
func (n *node) RemoveXattr(ctx vfs.Context, name string) error {
	if n.upper.Load() == nil {
		if _, err := n.lower.GetXattr(ctx, name); err != nil {
			return err
		}
	}
	u, err := n.copyUp(ctx)
	if err != nil {
		return err
	}
	return u.RemoveXattr(ctx, name)
}

// addLink counts a new name.
func (n *node) addLink(ctx vfs.Context) error {
	if n.gone.Load() && !n.linkable.Swap(false) {
		return unix.ENOENT
	}
	n.gone.Store(false)
	n.links.Add(1)
	return n.SetAttr(ctx, vfs.SetAttr{Valid: vfs.SetCtimeOnly})
}

// dropLink counts a name less. A removed directory is gone at once.
func (n *node) dropLink(ctx vfs.Context) {
	n.links.Add(-1)
	if n.typ == unix.S_IFDIR {
		n.gone.Store(true)
		return
	}
	if a, err := n.Attr(ctx); err == nil && a.Nlink == 0 {
		n.gone.Store(true)
		return
	}
	n.SetAttr(ctx, vfs.SetAttr{Valid: vfs.SetCtimeOnly})
}

// Evict implements vfs.Inode.
func (n *node) Evict() {
	fs := n.fs
	fs.mu.Lock()
	if n.pinned && !n.gone.Load() || n.lower == nil && !n.gone.Load() || n == fs.root {
		fs.mu.Unlock()
		return
	}
	if n.lower != nil && fs.nodes[n.lower] == n {
		delete(fs.nodes, n.lower)
	}
	fs.mu.Unlock()
	n.MarkDead()
	n.free()
}

// free lets go of the inodes below.
func (n *node) free() {
	if n.freed.Swap(true) {
		return
	}
	if u := n.upper.Load(); u != nil {
		tmpfs.Abandon(u.Inode)
		vfs.ReleaseInode(u.Inode)
	}
	if n.lower != nil {
		vfs.ReleaseInode(n.lower)
	}
}
