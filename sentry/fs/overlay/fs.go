// Package overlay is a writable file system over a read-only one: what the container changes is kept in memory (in tmpfs
// inodes), all else is the lower file system's, whose files are read and mapped directly.
//
// It differs from Linux's overlayfs where memory allows better: a directory is one node whose changed names are in a map, so
// directories are renamed without EXDEV; a lower file is one node however many names it has, before and after it was copied up, and its inode
// number never changes; open files see what is written after they were opened.
//
// A node belongs to a lower inode, or is new. Nodes of unchanged lower files live as long as VFS uses them; a node that was changed is
// kept (pinned) by FileSystem.nodes or by the directory that names it.
//
// Locks, in order: copyMu (one copy-up of a file) -> node.mu -> directory.mu -> FileSystem.mu -> locks of the lower and of tmpfs. All but copyMu are
// held for a moment only, except that directory.mu is not held over calls of the lower file system.
//
// Invariants: a name of a lower directory is visible unless directory.entries has it; an entry with a nil node is a whiteout.
// node.upper and node.copied are set once.
package overlay

import (
	"cmp"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"moat/sentry/fs/tmpfs"
	"moat/sentry/vfs"
)

// FileSystem is an overlay.
type FileSystem struct {
	upper   *tmpfs.FileSystem
	lower   vfs.FileSystem
	dev     uint64
	root    *node
	lastIno atomic.Uint64

	mu sync.Mutex
	// nodes are those of lower inodes.
	// +checklocks:mu
	nodes map[vfs.Inode]*node
}

// firstIno is above what lower file systems use.
const firstIno = 1 << 48

// New returns an overlay of upper, which must be empty and otherwise unused, over lower. It owns both.
func New(upper *tmpfs.FileSystem, lower vfs.FileSystem) (*FileSystem, error) {
	fs := &FileSystem{upper: upper, lower: lower, dev: vfs.NewAnonDev(), nodes: make(map[vfs.Inode]*node)}
	fs.lastIno.Store(firstIno)
	n, err := fs.nodeOf(vfs.Background(), lower.Root(), nil)
	if err != nil {
		return nil, err
	}
	fs.root = n
	n.pinned = true
	return fs, nil
}

// Type implements vfs.FileSystem.
func (fs *FileSystem) Type() string { return "overlay" }

// Root implements vfs.FileSystem.
func (fs *FileSystem) Root() vfs.Inode { return fs.root }

// Dev implements vfs.FileSystem.
func (fs *FileSystem) Dev() uint64 { return fs.dev }

// MountOptions implements vfs.FileSystem.
func (fs *FileSystem) MountOptions() string { return "" }

// CachePolicy implements vfs.FileSystem.
func (fs *FileSystem) CachePolicy() vfs.CachePolicy { return vfs.CacheForever }

// Sync implements vfs.FileSystem.
func (fs *FileSystem) Sync(vfs.Context) error { return nil }

// StatFS implements vfs.FileSystem.
func (fs *FileSystem) StatFS(ctx vfs.Context) (linux.Statfs, error) {
	st, err := fs.upper.StatFS(ctx)
	st.Type = linux.OVERLAYFS_SUPER_MAGIC
	return st, err
}

// Release implements vfs.FileSystem.
func (fs *FileSystem) Release() {
	var all []*node
	fs.mu.Lock()
	for _, n := range fs.nodes {
		all = append(all, n)
	}
	fs.nodes = make(map[vfs.Inode]*node)
	fs.mu.Unlock()
	seen := make(map[*node]bool)
	for len(all) > 0 {
		n := all[len(all)-1]
		all = all[:len(all)-1]
		if seen[n] {
			continue
		}
		seen[n] = true
		if n.dir != nil {
			n.dir.mu.Lock()
			for _, c := range n.dir.entries {
				if c.node != nil {
					all = append(all, c.node)
				}
			}
			n.dir.mu.Unlock()
		}
		n.free()
	}
	fs.upper.Release()
	fs.lower.Release()
}

// nodeOf returns the node of lower, which was found in parent. ESTALE if lower is dead.
func (fs *FileSystem) nodeOf(ctx vfs.Context, lower vfs.Inode, parent *node) (*node, error) {
	a, err := lower.Attr(ctx)
	if err != nil {
		return nil, err
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if n := fs.nodes[lower]; n != nil {
		return n, nil
	}
	if err := vfs.HoldInode(lower); err != nil {
		return nil, err
	}
	n := &node{fs: fs, ino: a.Ino, typ: a.FileType(), lower: lower}
	if n.typ == unix.S_IFDIR {
		n.dir = &directory{parent: cmp.Or(parent, n)}
	}
	fs.nodes[lower] = n
	return n, nil
}

// newNode returns a node without a lower file.
func (fs *FileSystem) newNode(ctx vfs.Context, o vfs.CreateOptions, target string) (*node, error) {
	u, err := fs.upper.NewNode(ctx, o, target)
	if err != nil {
		return nil, err
	}
	if err := vfs.HoldInode(u); err != nil {
		return nil, err
	}
	n := &node{fs: fs, ino: fs.lastIno.Add(1), typ: o.Mode & unix.S_IFMT}
	n.copied.Store(true)
	n.links.Store(1)
	if n.typ == unix.S_IFDIR {
		n.dir = &directory{}
		n.links.Store(2)
	}
	n.upper.Store(&box{u})
	return n, nil
}
