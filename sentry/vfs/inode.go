package vfs

import (
	"sync/atomic"

	"moat/sentry/kernel/auth"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

// Attr are an inode's attributes, as statx(2) reports them.
type Attr struct {
	Ino                        uint64
	Mode                       uint16 // file type and permission bits
	Nlink                      uint32
	UID                        auth.KUID
	GID                        auth.KGID
	Rdev                       uint64 // dev_t of a device node (unix.Mkdev)
	Size                       int64
	Blocks                     int64 // of 512 bytes
	Blksize                    int32
	Atime, Mtime, Ctime, Btime Time
	// Attributes and AttributesMask are statx's STATX_ATTR_*.
	Attributes, AttributesMask uint64
}

// Time is a time in nanoseconds since the Unix epoch.
type Time int64

// Timespec returns t as struct timespec.
func (t Time) Timespec() linux.Timespec { return linux.NsecToTimespec(int64(t)) }

// FileType is the S_IFMT part of the mode.
func (a *Attr) FileType() uint16 { return a.Mode & unix.S_IFMT }

// IsDir reports whether a describes a directory.
func (a *Attr) IsDir() bool { return a.FileType() == unix.S_IFDIR }

// SetAttr says which attributes to change; VFS has checked permissions and computed Linux's side effects (cleared
// set-id bits).
type SetAttr struct {
	Valid        SetAttrMask
	Mode         uint16 // permission bits only
	UID          auth.KUID
	GID          auth.KGID
	Size         int64
	Atime, Mtime Time
}

// SetAttrMask is a set of fields of SetAttr.
type SetAttrMask uint8

const (
	SetMode SetAttrMask = 1 << iota
	SetUID
	SetGID
	SetSize
	SetAtime
	SetMtime
	// SetCtimeOnly changes nothing but ctime.
	SetCtimeOnly
)

// FileSystem is a mounted instance of a file system (Linux's super_block).
type FileSystem interface {
	// Type is the name in /proc/mounts: "tmpfs", "proc".
	Type() string
	// Root is the root directory's (or a bind-mounted file's) inode.
	Root() Inode
	// StatFS is statfs(2).
	StatFS(ctx Context) (linux.Statfs, error)
	// Dev is the st_dev of its files.
	Dev() uint64
	// MountOptions are the file system's own options in /proc/mounts, e.g. "size=64k"; "" for none.
	MountOptions() string
	// CachePolicy says how long VFS may believe a dentry.
	CachePolicy() CachePolicy
	// Sync is syncfs(2).
	Sync(ctx Context) error
	// Release is called after the last mount and the last open file of it are gone.
	Release()
}

// FSDefaults is what file systems that the kernel makes up are alike in: statfs(2) says no more than Magic (simple_statfs), their names are not
// cached, and there is nothing to write back.
type FSDefaults struct {
	Name  string
	Magic uint64
	dev   uint64
}

// NewFSDefaults returns those of a new file system.
func NewFSDefaults(name string, magic uint64) FSDefaults {
	return FSDefaults{name, magic, NewAnonDev()}
}

func (fs *FSDefaults) Type() string { return fs.Name }
func (fs *FSDefaults) Dev() uint64  { return fs.dev }
func (fs *FSDefaults) StatFS(Context) (linux.Statfs, error) {
	return linux.Statfs{Type: fs.Magic, BlockSize: 4096, FragmentSize: 4096, NameLength: 255}, nil
}
func (*FSDefaults) MountOptions() string     { return "" }
func (*FSDefaults) CachePolicy() CachePolicy { return CacheNone }
func (*FSDefaults) Sync(Context) error       { return nil }
func (*FSDefaults) Release()                 {}

// CachePolicy says what VFS may keep of a file system's names.
type CachePolicy uint8

const (
	// CacheForever: only VFS changes names; positive and negative dentries hold until VFS changes them, or a Versioned directory says otherwise.
	CacheForever CachePolicy = iota
	// CacheRevalidate: before each use of a dentry VFS calls Revalidator.Revalidate on its directory.
	CacheRevalidate
	// CacheNone: names are looked up each time (proc).
	CacheNone
)

// Inode is a file of any type. Implementations embed InodeDefaults for what they do not support.
//
// VFS has done permission checks (generic_permission of fs/namei.c, unless the inode is a PermissionChecker), name
// checks (length, ".", "..", NUL, slash), read-only mounts, sticky bits and mount points before it calls. It holds the
// directory's dentry lock over calls that change a directory, so implementations need not order these among themselves.
// Inode values must be comparable; one file is one Inode value for as long as VFS holds it.
type Inode interface {
	// FS is the file system the inode belongs to.
	FS() FileSystem
	// Mode is the file type and permissions: cheap, no request.
	Mode() uint16
	// Attr returns all attributes.
	Attr(ctx Context) (Attr, error)
	// SetAttr changes attributes and sets ctime.
	SetAttr(ctx Context, set SetAttr) error
	// Open opens the file. d is the dentry it was reached by. flags are open(2)'s. VFS handles O_CREAT, O_EXCL, O_TRUNC,
	// O_NOFOLLOW, O_DIRECTORY, O_PATH and device, FIFO and socket inodes (see OpenSpecial) before.
	Open(ctx Context, d *Dentry, flags uint32) (FileImpl, error)

	// Directories.
	// Lookup finds name; ENOENT if there is none.
	Lookup(ctx Context, name string) (Inode, error)
	Create(ctx Context, name string, opts CreateOptions) (Inode, error) // regular file, FIFO, socket, device: by opts.Mode
	Mkdir(ctx Context, name string, opts CreateOptions) (Inode, error)
	Symlink(ctx Context, name, target string, opts CreateOptions) (Inode, error)
	Link(ctx Context, name string, target Inode) error
	Unlink(ctx Context, name string, child Inode) error
	Rmdir(ctx Context, name string, child Inode) error
	// Rename moves child from name in this directory to newName in newDir (same FileSystem), replacing replaced (nil if
	// there is none). flags are RENAME_EXCHANGE and RENAME_WHITEOUT.
	Rename(ctx Context, name string, child Inode, newDir Inode, newName string, replaced Inode, flags uint32) error

	// Readlink returns a symlink's target.
	Readlink(ctx Context) (string, error)
	// FollowLink is what path walk does at a symlink. Magic links (proc's fd/N, exe, cwd) return a Path (with references); all others return
	// the target string.
	FollowLink(ctx Context) (target string, jump Path, err error)

	GetXattr(ctx Context, name string) ([]byte, error)
	SetXattr(ctx Context, name string, value []byte, flags uint32) error
	ListXattr(ctx Context) ([]string, error)
	RemoveXattr(ctx Context, name string) error

	// Evict is called when VFS drops its last reference (dentry pruned, or unlinked and closed). A later Lookup may return
	// the inode again, unless Evict called InodeDefaults.MarkDead: then VFS takes it for stale and asks Lookup once
	// more. Evict excludes VFS taking a new reference; it must not call VFS.
	Evict()

	// vfsState is promoted from InodeDefaults, which every inode embeds (by value, and is used by pointer).
	vfsState() *inodeState
}

// CreateOptions says how a new file is made. UID, GID and Mode are final (umask, set-group-id directories applied).
type CreateOptions struct {
	Mode uint16
	UID  auth.KUID
	GID  auth.KGID
	Rdev uint64
}

// Revalidator is implemented by directories of file systems with CacheRevalidate, and Versioned ones.
type Revalidator interface {
	// Revalidate reports whether name still names child (nil: still names nothing). proof is a number kept with the name, 0 at first: what tells
	// the directory next time whether it must look.
	Revalidate(ctx Context, name string, child Inode, proof *atomic.Int64) (bool, error)
}

// Versioned is implemented by directories of file systems with CacheForever whose names others may change all the same.
type Versioned interface {
	// Version is another when what was known of names is to be revalidated.
	Version() uint64
}

// Prefetcher is implemented by directories for which it is cheaper to find several names at once.
type Prefetcher interface {
	// Prefetch is told that Lookup(name) comes next, and that rest, a path, is to be walked from what it finds (symlinks and permissions
	// allowing); open: and what is there will be opened for reading.
	Prefetch(ctx Context, name, rest string, open bool)
}

// PermissionChecker is implemented by inodes whose permission is not decided by mode bits alone.
type PermissionChecker interface {
	// Permission returns nil or EACCES/EPERM. may is a mask of MayRead, MayWrite, MayExec.
	Permission(ctx Context, c *auth.Credentials, may uint) error
}

// MayRead, MayWrite, MayExec are access(2)'s bits.
const (
	MayExec  = 1
	MayWrite = 2
	MayRead  = 4
)

// TmpfileMaker is implemented by directories that support O_TMPFILE.
type TmpfileMaker interface {
	Tmpfile(ctx Context, opts CreateOptions) (Inode, error)
}

// InodeDefaults answers every operation that a file may lack as Linux does for a file system without it.
type InodeDefaults struct{ state inodeState }

func (i *InodeDefaults) vfsState() *inodeState { return &i.state }

func (*InodeDefaults) SetAttr(Context, SetAttr) error                       { return unix.EPERM }
func (*InodeDefaults) Open(Context, *Dentry, uint32) (FileImpl, error)      { return nil, unix.ENXIO }
func (*InodeDefaults) Lookup(Context, string) (Inode, error)                { return nil, unix.ENOTDIR }
func (*InodeDefaults) Create(Context, string, CreateOptions) (Inode, error) { return nil, unix.EPERM }
func (*InodeDefaults) Mkdir(Context, string, CreateOptions) (Inode, error)  { return nil, unix.EPERM }
func (*InodeDefaults) Symlink(Context, string, string, CreateOptions) (Inode, error) {
	return nil, unix.EPERM
}
func (*InodeDefaults) Link(Context, string, Inode) error   { return unix.EPERM }
func (*InodeDefaults) Unlink(Context, string, Inode) error { return unix.EPERM }
func (*InodeDefaults) Rmdir(Context, string, Inode) error  { return unix.EPERM }
func (*InodeDefaults) Rename(Context, string, Inode, Inode, string, Inode, uint32) error {
	return unix.EPERM
}
func (*InodeDefaults) Readlink(Context) (string, error)               { return "", unix.EINVAL }
func (*InodeDefaults) FollowLink(Context) (string, Path, error)       { return "", Path{}, unix.EINVAL }
func (*InodeDefaults) GetXattr(Context, string) ([]byte, error)       { return nil, unix.EOPNOTSUPP }
func (*InodeDefaults) SetXattr(Context, string, []byte, uint32) error { return unix.EOPNOTSUPP }
func (*InodeDefaults) ListXattr(Context) ([]string, error)            { return nil, nil }
func (*InodeDefaults) RemoveXattr(Context, string) error              { return unix.EOPNOTSUPP }
func (*InodeDefaults) Evict()                                         {}
