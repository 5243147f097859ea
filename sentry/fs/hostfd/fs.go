package hostfd

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"

	"moat/sentry/kernel/auth"
	"moat/sentry/refs"
	"moat/sentry/vfs"
)

// FS is what the files are on: nothing that can be mounted.
type FS struct {
	vfs.FSDefaults
	root inode
	mnt  *vfs.KernelMount
}

// NewFS makes it.
func NewFS() (*FS, error) {
	fs := &FS{FSDefaults: vfs.NewFSDefaults("hostfd", linux.PIPEFS_MAGIC)}
	fs.root = inode{fs: fs, mode: unix.S_IFDIR | 0o555, ino: 1}
	var err error
	fs.mnt, err = vfs.NewKernelMount(fs)
	return fs, err
}

// Root implements vfs.FileSystem.
func (fs *FS) Root() vfs.Inode { return &fs.root }

// inode is a File's inode. It belongs to the container's first user, whoever it is outside.
type inode struct {
	vfs.InodeDefaults
	fs    *FS
	file  *File // nil: the root
	mode  uint16
	ino   uint64
	mtime vfs.Time
	uid   auth.KUID
	gid   auth.KGID
}

// FS implements vfs.Inode.
func (i *inode) FS() vfs.FileSystem { return i.fs }

// Mode implements vfs.Inode.
func (i *inode) Mode() uint16 { return i.mode }

// Attr implements vfs.Inode.
func (i *inode) Attr(vfs.Context) (vfs.Attr, error) {
	a := vfs.Attr{Ino: i.ino, Mode: i.mode, Nlink: 1, UID: i.uid, GID: i.gid, Blksize: 4096, Atime: i.mtime, Mtime: i.mtime, Ctime: i.mtime}
	if f := i.file; f != nil {
		a.Rdev = f.rdev
		if f.Seekable() && f.users.Load() > 0 {
			a.Size, _ = f.SeekEnd(nil)
			a.Blocks = (a.Size + 511) / 512
		}
	}
	return a, nil
}

// SetAttr implements vfs.Inode. Programs chown and chmod their terminals and pipes: that is accepted and changes nothing.
func (i *inode) SetAttr(vfs.Context, vfs.SetAttr) error { return nil }

// OpenSpecial implements vfs.SpecialOpener: /dev/stdout and /proc/PID/fd open the same file again.
func (i *inode) OpenSpecial(_ vfs.Context, flags uint32) (vfs.FileImpl, error) {
	f := i.file
	if f == nil {
		return nil, unix.EACCES
	}
	has, want := f.flags&unix.O_ACCMODE, flags&unix.O_ACCMODE
	if has != unix.O_RDWR && has != want {
		return nil, unix.EACCES
	}
	if !refs.TryInc(&f.users, 1) {
		return nil, unix.ENXIO
	}
	return f, nil
}

// Open implements vfs.Inode.
func (i *inode) Open(ctx vfs.Context, _ *vfs.Dentry, flags uint32) (vfs.FileImpl, error) {
	return i.OpenSpecial(ctx, flags)
}
