package gofer

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"

	"moat/fsgofer/wire"
	"moat/sentry/kernel/auth"
	"moat/sentry/vfs"
)

// Client is the connection to the gofer, shared by all its mounts.
type Client = wire.Client

// NewClient starts the conversation with the gofer at the other end of the socket fd. onDeath is called once when the
// gofer is gone or broken: the sandbox must end then. Until it has, every request fails with EIO.
func NewClient(fd int, onDeath func(error)) (*Client, error) { return wire.NewClient(fd, onDeath) }

// Options say how a mount is used.
type Options struct {
	// Shared: others on the host change the tree too.
	Shared bool
	// Follows: they mount below it, too, and unmount, which changes no directory's time.
	Follows bool
	// MaxFDs bounds the cached host descriptors that no file uses; 0 is 4096.
	MaxFDs int
	// IDs maps the owners of files as a mount's user namespace does on Linux (mount_setattr(2), MOUNT_ATTR_IDMAP); nil: each ID is itself.
	IDs *auth.UserNamespace
}

// FS is one mount of the gofer.
type FS struct {
	c        *Client
	id       uint32
	dev      uint64
	ids      *auth.UserNamespace // Options.IDs
	shared   bool
	follows  bool
	leaving  atomic.Bool // leave is about to run
	timed    bool        // the change time of a directory tells whether names have changed
	readOnly bool
	typ      string
	root     *inode
	// ahead counts change times that were ahead of the coarse clock, lastAhead is the last of them.
	ahead     atomic.Int32
	lastAhead atomic.Int64

	// handles, fds and lists bound what inodes keep.
	handles clock
	fds     clock
	lists   clock

	// changes counts changes of any directory.
	changes atomic.Uint64
	// statting is above 0 as long as attributes that come with listings turn out to be wanted; below is how many entries of directories below
	// come with a listing; byName: trees are walked in the order of names; rows is how long the last row was in each order, of opens or
	// on a shared mount of lookups; opens is how often what is looked up ahead there should be opened, too.
	statting atomic.Int32
	below    atomic.Int32
	byName   atomic.Bool
	opens    atomic.Int32
	rows     [orders]atomic.Int32

	mu sync.Mutex
	// inodes has what VFS knows, and a little more that it is just asking for.
	// +checklocks:mu
	inodes map[key]*inode
	// devs numbers the host devices below the mount, its root's first.
	// +checklocks:mu
	devs map[uint64]uint64
}

// Mount attaches the gofer's mount with the given ID.
func Mount(c *Client, id uint32, opts Options) (*FS, error) {
	fs := &FS{c: c, id: id, dev: vfs.NewAnonDev(), ids: opts.IDs, shared: opts.Shared, follows: opts.Follows, inodes: map[key]*inode{}, devs: map[uint64]uint64{}}
	if fs.ids == nil {
		fs.ids = auth.NewRootNamespace()
	}
	fs.fds.max = opts.MaxFDs
	if fs.fds.max <= 0 {
		fs.fds.max = 4096
	}
	fs.handles.max = min(c.MaxHandles/4, 16<<10)
	fs.lists.max = 16 << 20 // bytes
	fs.statting.Store(maxStatting)
	fs.below.Store(minBelow)
	var rep wire.AttachRep
	if err := c.Call(wire.OpAttach, &wire.AttachReq{Mount: id}, &rep); err != nil {
		return nil, fmt.Errorf("gofer: attach mount %d: %w", id, err)
	}
	fs.readOnly = rep.ReadOnly
	fs.root = fs.inodeOf(&wire.Node{Attr: rep.Attr}, nil, "")
	fs.root.setHandle(rep.Root, true)
	fs.typ = "9p"
	if st, err := fs.StatFS(vfs.Background()); err == nil {
		if t := typeNames[uint64(st.Type)]; t != "" {
			fs.typ, fs.timed = t, t != "nfs" && !opts.Follows
		}
	}
	return fs, nil
}

// typeNames are the names of what the host has the files on: programs look at them together with f_type.
var typeNames = map[uint64]string{
	unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.TMPFS_MAGIC: "tmpfs",
	unix.OVERLAYFS_SUPER_MAGIC: "overlay", unix.F2FS_SUPER_MAGIC: "f2fs", unix.NFS_SUPER_MAGIC: "nfs", unix.SQUASHFS_MAGIC: "squashfs",
}

// giveTo is how the gofer has an owner: EOVERFLOW, if of set's SetUID and SetGID one is not mapped.
func (fs *FS) giveTo(u auth.KUID, g auth.KGID, set vfs.SetAttrMask) (uid, gid uint32, err error) {
	uid, gid = fs.ids.MapFromKUID(u), fs.ids.MapFromKGID(g)
	if set&vfs.SetUID != 0 && uid == auth.NoID || set&vfs.SetGID != 0 && gid == auth.NoID {
		err = unix.EOVERFLOW
	}
	return uid, gid, err
}

// Type implements vfs.FileSystem.
func (fs *FS) Type() string { return fs.typ }

// Root implements vfs.FileSystem.
func (fs *FS) Root() vfs.Inode { return fs.root }

// Dev implements vfs.FileSystem.
func (fs *FS) Dev() uint64 { return fs.dev }

// ReadOnly reports whether the gofer refuses changes.
func (fs *FS) ReadOnly() bool { return fs.readOnly }

// MountOptions implements vfs.FileSystem.
func (fs *FS) MountOptions() string { return "" }

// CachePolicy implements vfs.FileSystem.
func (fs *FS) CachePolicy() vfs.CachePolicy {
	if fs.shared {
		return vfs.CacheRevalidate
	}
	return vfs.CacheForever
}

// StatFS implements vfs.FileSystem.
func (fs *FS) StatFS(vfs.Context) (linux.Statfs, error) {
	var req wire.RefReq
	var r wire.StatFSRep
	if err := fs.root.request(wire.OpStatFS, &req, &r, &req.Ref); err != nil {
		return linux.Statfs{}, err
	}
	return linux.Statfs{Type: r.Type, BlockSize: int64(r.Bsize), Blocks: r.Blocks, BlocksFree: r.Bfree, BlocksAvailable: r.Bavail,
		Files: r.Files, FilesFree: r.Ffree, NameLength: r.Namelen, FragmentSize: int64(r.Frsize)}, nil
}

// Sync implements vfs.FileSystem.
func (fs *FS) Sync(vfs.Context) error {
	req := wire.SyncReq{All: true}
	return fs.root.request(wire.OpSync, &req, &wire.Empty{}, &req.Ref)
}

// Release implements vfs.FileSystem.
func (fs *FS) Release() {
	fs.fds.shrink()
	fs.handles.shrink()
	fs.c.FlushCloses()
}

// key says which file of the host an inode is. The birth time tells a file from another that got its inode number later.
type key struct {
	dev, ino uint64
	btime    int64
}

func keyOf(a *wire.Attr) key { return key{a.Dev, a.Ino, a.Btime} }

// inodeOf returns the inode of a node that was found, or made, as name in parent.
func (fs *FS) inodeOf(n *wire.Node, parent *inode, name string) *inode {
	k := keyOf(&n.Attr)
	fs.mu.Lock()
	i := fs.inodes[k]
	known := i != nil
	if !known {
		i = &inode{fs: fs, key: k, parent: parent, name: name, target: n.Target, ino: fs.inoLocked(&n.Attr)}
		i.init(&n.Attr)
		fs.inodes[k] = i
	}
	fs.mu.Unlock()
	if fs.follows && fs.root != nil && k.dev != fs.root.key.dev && !fs.leaving.Swap(true) {
		time.AfterFunc(time.Second, fs.leave)
	}
	if known {
		if fs.shared {
			i.adopt(&n.Attr)
		}
		i.relocate(parent, name)
	}
	switch {
	case n.Handle == 0:
	case i.handle.Load() != nil:
		fs.c.CloseHandle(n.Handle, false)
	default:
		i.setHandle(n.Handle, false)
	}
	return i
}

// leave gives up what nobody uses of the mounts that others made below, each second while anything of them is known: the host could not unmount them else.
func (fs *FS) leave() {
	vfs.Shrink(1<<20, fs)
	fs.c.FlushCloses()
	fs.leaving.Store(false)
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for k := range fs.inodes {
		if k.dev != fs.root.key.dev && !fs.leaving.Swap(true) {
			time.AfterFunc(time.Second, fs.leave)
		}
	}
}

// inoLocked is the number that the guest sees: the host's, made distinct where another device is mounted below.
// +checklocks:fs.mu
func (fs *FS) inoLocked(a *wire.Attr) uint64 {
	n, ok := fs.devs[a.Dev]
	if !ok {
		n = uint64(len(fs.devs))
		fs.devs[a.Dev] = n
	}
	return a.Ino ^ n<<48
}

// forget takes i out of the table.
func (fs *FS) forget(i *inode) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.inodes[i.key] == i {
		delete(fs.inodes, i.key)
	}
}
