package tmpfs

import (
	"golang.org/x/sys/unix"
	"moat/sentry/vfs"
)

// Nodes without a place in the tree, for an overlay that keeps its own directories and stores files here.

// NewNode returns an inode of the type in o.Mode with one link; target is a symlink's. ENOSPC.
func (fs *FileSystem) NewNode(ctx vfs.Context, o vfs.CreateOptions, target string) (vfs.Inode, error) {
	if len(target) >= unix.PathMax {
		return nil, unix.ENAMETOOLONG
	}
	n, err := fs.newNode(ctx, o, ctx.Now())
	if err != nil {
		return nil, err
	}
	switch n := n.(type) {
	case *symlink:
		n.target = target
	case *directory:
		n.dmu.Lock()
		n.parent = n
		n.dmu.Unlock()
	}
	return n, nil
}

// Adopt gives i, an inode of NewNode, the owners, permissions and times of a.
func Adopt(i vfs.Inode, a *vfs.Attr) {
	b := i.(node).base()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mode.Store(b.mode.Load()&unix.S_IFMT | uint32(a.Mode&0o7777))
	b.uid, b.gid = a.UID, a.GID
	b.atime, b.mtime, b.ctime, b.btime = a.Atime, a.Mtime, a.Ctime, a.Btime
}

// Abandon takes the link of NewNode away: i is freed when VFS's last reference goes.
func Abandon(i vfs.Inode) {
	b := i.(node).base()
	b.mu.Lock()
	b.nlink = 0
	b.mu.Unlock()
}
