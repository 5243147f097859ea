package vfs

import (
	"strconv"
	"sync/atomic"

	"moat/sentry/kernel/auth"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

// Files without a name in any tree: anon_inode:[eventfd], pipe:[123], socket:[124]. Each kind of them lives on a kernel mount
// of its own, as on Linux.

// pseudoFS is such a file system.
type pseudoFS struct {
	FSDefaults
	KernelMount
	root *pseudoInode
}

// anonDev hands out st_dev numbers for file systems without a device.
var anonDevs atomic.Uint32

// NewAnonDev returns an unused st_dev for a file system without a block device (0:n).
func NewAnonDev() uint64 { return unix.Mkdev(0, anonDevs.Add(1)) }

func newPseudoFS(typ string, magic uint64) *pseudoFS {
	fs := &pseudoFS{FSDefaults: NewFSDefaults(typ, magic)}
	fs.root = newPseudoInode(fs, unix.S_IFDIR|0o555, 1)
	sb, err := newSuper(fs)
	if err != nil {
		panic("vfs: " + err.Error()) // A fresh inode is not dead.
	}
	fs.mnt = newMount(sb, sb.root, 0, "none")
	return fs
}

func (fs *pseudoFS) Root() Inode { return fs.root }

// pseudoInode is the inode of an anonymous file.
type pseudoInode struct {
	InodeDefaults
	fs    *pseudoFS
	ino   uint64
	mode  atomic.Uint32
	uid   atomic.Uint32
	gid   atomic.Uint32
	times atomic.Int64
	proto string // a socket's, which lsof(8) asks for
}

const protoName = "system.sockprotoname"

// GetXattr implements Inode (net/socket.c sockfs_xattr_get).
func (i *pseudoInode) GetXattr(_ Context, name string) ([]byte, error) {
	if i.proto == "" || name != protoName {
		return nil, unix.EOPNOTSUPP
	}
	return append([]byte(i.proto), 0), nil
}

// ListXattr implements Inode.
func (i *pseudoInode) ListXattr(Context) ([]string, error) {
	if i.proto == "" {
		return nil, nil
	}
	return []string{protoName}, nil
}

func newPseudoInode(fs *pseudoFS, mode uint16, ino uint64) *pseudoInode {
	i := &pseudoInode{fs: fs, ino: ino}
	i.mode.Store(uint32(mode))
	return i
}

func (i *pseudoInode) FS() FileSystem { return i.fs }
func (i *pseudoInode) Mode() uint16   { return uint16(i.mode.Load()) }
func (i *pseudoInode) Attr(Context) (Attr, error) {
	t := Time(i.times.Load())
	return Attr{Ino: i.ino, Mode: i.Mode(), Nlink: 1, UID: auth.KUID(i.uid.Load()), GID: auth.KGID(i.gid.Load()), Blksize: 4096, Atime: t, Mtime: t, Ctime: t}, nil
}

// SetAttr implements Inode. What all anonymous files share is nobody's to change.
func (i *pseudoInode) SetAttr(_ Context, set SetAttr) error {
	if i == anonIno {
		return unix.EOPNOTSUPP
	}
	if set.Valid&SetMode != 0 {
		i.mode.Store(i.mode.Load()&unix.S_IFMT | uint32(set.Mode&0o7777))
	}
	if set.Valid&SetUID != 0 {
		i.uid.Store(uint32(set.UID))
	}
	if set.Valid&SetGID != 0 {
		i.gid.Store(uint32(set.GID))
	}
	return nil
}

var (
	anonFS = newPseudoFS("anon_inodefs", linux.ANON_INODE_FS_MAGIC)
	pipeFS = newPseudoFS("pipefs", linux.PIPEFS_MAGIC)
	sockFS = newPseudoFS("sockfs", linux.SOCKFS_MAGIC)
	// The one inode that all anon_inode files share.
	anonIno = newPseudoInode(anonFS, 0o600, pseudoInos.Add(1))
)

var pseudoInos atomic.Uint64

// KernelMount is a mount of a file system that is in no namespace, for files that only the kernel makes.
type KernelMount struct{ mnt *Mount }

// NewKernelMount mounts fs so.
func NewKernelMount(fs FileSystem) (*KernelMount, error) {
	sb, err := newSuper(fs)
	if err != nil {
		return nil, err
	}
	return &KernelMount{newMount(sb, sb.root, 0, "none")}, nil
}

// Root is the root of the mount, with references.
func (k *KernelMount) Root() Path { return Path{k.mnt, k.mnt.root}.IncRef() }

// Path returns a path, with references, to inode without a name in the tree, which /proc shows as name.
func (k *KernelMount) Path(name string, inode Inode) Path {
	attach(inode)
	d := newDentry(k.mnt.sb, nil, name, inode)
	d.flags.Or(dUnhashed)
	k.mnt.IncRef()
	return Path{k.mnt, d}
}

// NewFile returns impl, open on inode, as a nameless file that /proc shows as name, "(deleted)".
func (k *KernelMount) NewFile(ctx Context, name string, inode Inode, impl FileImpl, flags uint32) *FileDescription {
	attach(inode)
	d := newDentry(k.mnt.sb, nil, name, inode)
	d.flags.Or(dUnhashed | dDeleted)
	k.mnt.IncRef()
	return NewFile(ctx.Credentials(), impl, Path{k.mnt, d}, flags)
}

// NewAnonFile returns an open file that /proc/PID/fd shows as anon_inode:NAME ("[eventfd]"); flags are open(2)'s, with
// access mode.
func NewAnonFile(ctx Context, name string, impl FileImpl, flags uint32) *FileDescription {
	return NewFile(ctx.Credentials(), impl, anonFS.Path("anon_inode:"+name, anonIno), flags)
}

// Anonymous reports whether fd is such a file, none of which has splice operations.
func (fd *FileDescription) Anonymous() bool { return fd.Inode() == Inode(anonIno) }

// PseudoPath returns a path with references for a new file of pipefs or sockfs (mode S_IFIFO or S_IFSOCK), which /proc/PID/fd shows as pipe:[INO]. Both
// ends of a pipe share it (IncRef). proto is a socket's protocol.
func PseudoPath(ctx Context, mode uint16, proto string) Path {
	c := ctx.Credentials()
	fs, name := sockFS, "socket:["
	if mode&unix.S_IFMT == unix.S_IFIFO {
		fs, name = pipeFS, "pipe:["
	}
	i := newPseudoInode(fs, mode, pseudoInos.Add(1))
	i.proto = proto
	i.uid.Store(uint32(c.FSUID))
	i.gid.Store(uint32(c.FSGID))
	i.times.Store(int64(ctx.Now()))
	return fs.Path(name+strconv.FormatUint(i.ino, 10)+"]", i)
}

// NewPseudoInode returns an inode number of the series that pipes and sockets use (for namespaces, pidfds).
func NewPseudoInode() uint64 { return pseudoInos.Add(1) }
