// Package hostfd passes the sandbox's standard input, output and error into the guest.
//
// A host descriptor is read and written without O_NONBLOCK, which belongs to the open file description and so to the shell
// outside too: calls carry RWF_NOWAIT where the host supports it for the file, otherwise poll(2) is asked first. Waiting
// is in one goroutine that sleeps in epoll_wait on those files that some task waits for, one shot each.
//
// Locks: file.mu is a leaf.
package hostfd

import (
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/waiter"

	"moat/sentry/fs/genfs"
	"moat/sentry/kernel/auth"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

// Set is the host files of one sandbox.
type Set struct {
	epfd  int
	mount *vfs.KernelMount
	fs    *genfs.FS
	start sync.Once

	mu    sync.Mutex
	files map[int32]*file // +checklocks:mu
}

// NewSet must be called before the sentry's filter is installed.
func NewSet() (*Set, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	s := &Set{epfd: epfd, files: map[int32]*file{}, fs: genfs.New("hostfs", 0x686f7374)}
	s.fs.SetRoot(genfs.NewDir(s.fs, 1, 0o555, nil))
	if s.mount, err = vfs.NewKernelMount(s.fs); err != nil {
		return nil, err
	}
	return s, nil
}

// Import returns an open file that is host descriptor fd, which it owns from now on. creds own the inode.
func (s *Set) Import(fd int, creds *auth.Credentials) (*vfs.FileDescription, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("fstat of descriptor %d: %w", fd, err)
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return nil, fmt.Errorf("fcntl of descriptor %d: %w", fd, err)
	}
	f := &file{set: s, fd: fd, flags: uint32(flags)}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFBLK, unix.S_IFDIR:
		f.seekable = true
	default:
		// A file that the host cannot wait for (EPERM: /dev/null) is always ready.
		ev := unix.EpollEvent{Fd: int32(fd)}
		f.pollable = unix.EpollCtl(s.epfd, unix.EPOLL_CTL_ADD, fd, &ev) == nil
	}
	if f.pollable {
		s.mu.Lock()
		s.files[int32(fd)] = f
		s.mu.Unlock()
	}
	i := &inode{fs: s.fs, fd: fd, mode: uint16(st.Mode), ino: st.Ino, uid: creds.FSUID, gid: creds.FSGID}
	name := fmt.Sprintf("host:[%d]", fd)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFIFO:
		name = fmt.Sprintf("pipe:[%d]", st.Ino)
	case unix.S_IFSOCK:
		name = fmt.Sprintf("socket:[%d]", st.Ino)
	}
	const keep = unix.O_ACCMODE | unix.O_APPEND | unix.O_NONBLOCK
	return vfs.NewFile(vfs.WithCredentials(creds).Credentials(), f, s.mount.Path(name, i), uint32(flags)&keep), nil
}

// inode describes the host file.
type inode struct {
	vfs.InodeDefaults
	fs   *genfs.FS
	fd   int
	mode uint16
	ino  uint64
	uid  auth.KUID
	gid  auth.KGID
}

func (i *inode) FS() vfs.FileSystem { return i.fs }
func (i *inode) Mode() uint16       { return i.mode }

// Attr asks the host for what changes; owner and device numbers are the sandbox's own affair.
func (i *inode) Attr(vfs.Context) (vfs.Attr, error) {
	a := vfs.Attr{Ino: i.ino, Mode: i.mode, Nlink: 1, UID: i.uid, GID: i.gid, Blksize: 4096}
	var st unix.Stat_t
	if err := unix.Fstat(i.fd, &st); err != nil {
		return a, nil // released: the rest stays
	}
	a.Size, a.Blocks, a.Rdev = st.Size, st.Blocks, st.Rdev
	a.Atime, a.Mtime, a.Ctime = vfs.Time(st.Atim.Nano()), vfs.Time(st.Mtim.Nano()), vfs.Time(st.Ctim.Nano())
	return a, nil
}

// SetAttr accepts changes and forgets them: programs chown and chmod their terminals.
func (i *inode) SetAttr(vfs.Context, vfs.SetAttr) error { return nil }

// file is an open host file.
type file struct {
	vfs.FileDefaults
	set      *Set
	fd       int
	flags    uint32
	seekable bool
	pollable bool
	// noNowait: the host does not know RWF_NOWAIT for this file.
	noNowait atomic.Bool
	queue    waiter.Queue

	mu      sync.Mutex
	waiters int // +checklocks:mu
}

// Release closes the host descriptor, so that the reader of a pipe outside sees its end.
func (f *file) Release(vfs.Context, *vfs.FileDescription) {
	if f.pollable {
		f.set.mu.Lock()
		delete(f.set.files, int32(f.fd))
		f.set.mu.Unlock()
		unix.EpollCtl(f.set.epfd, unix.EPOLL_CTL_DEL, f.fd, nil)
	}
	unix.Close(f.fd)
}

// Seekable: files keep their position on the host, where others share it; see offset.
func (f *file) Seekable() bool { return false }

const maxBounce = 128 << 10

// transfer does one host call: offset -1 is the host's own position.
func (f *file) transfer(call func(bs [][]byte, flags int) (int, error), bs [][]byte, ready int16) (int, error) {
	if !f.pollable {
		return call(bs, 0)
	}
	if !f.noNowait.Load() {
		n, err := call(bs, unix.RWF_NOWAIT)
		if err != unix.EOPNOTSUPP && err != unix.EINVAL {
			return n, err
		}
		f.noNowait.Store(true)
	}
	p := []unix.PollFd{{Fd: int32(f.fd), Events: ready}}
	if n, err := unix.Poll(p, 0); err == nil && n == 0 {
		return 0, unix.EWOULDBLOCK
	}
	return call(bs, 0)
}

// Read implements vfs.FileImpl.
func (f *file) Read(_ vfs.Context, _ *vfs.FileDescription, dst usermem.IOSequence, _ int64, _ vfs.IOFlags) (int64, error) {
	read := func(bs [][]byte, flags int) (int, error) { return unix.Preadv2(f.fd, bs, -1, flags) }
	n, err := dst.ForBlocks(hostarch.Write, func(bs [][]byte) (uint64, error) {
		n, err := f.transfer(read, clip(bs), unix.POLLIN)
		return uint64(max(n, 0)), noIntr(err)
	})
	if n > 0 {
		return n, nil
	}
	return 0, err
}

// Write implements vfs.FileImpl.
func (f *file) Write(_ vfs.Context, _ *vfs.FileDescription, src usermem.IOSequence, _ int64, _ vfs.IOFlags) (int64, int64, error) {
	write := func(bs [][]byte, flags int) (int, error) { return unix.Pwritev2(f.fd, bs, -1, flags) }
	n, err := src.ForBlocks(hostarch.Read, func(bs [][]byte) (uint64, error) {
		if f.noNowait.Load() && f.pollable {
			// poll(2) says that something can be written; up to PIPE_BUF that is the whole of it.
			bs = [][]byte{bs[0][:min(len(bs[0]), 4096)]}
		}
		n, err := f.transfer(write, clip(bs), unix.POLLOUT)
		return uint64(max(n, 0)), noIntr(err)
	})
	if n > 0 && err != unix.EWOULDBLOCK {
		err = nil
	}
	return n, 0, err
}

// clip bounds one host call, so that no task holds its address space for long, and the number of slices (IOV_MAX).
func clip(bs [][]byte) [][]byte {
	total := 0
	for i, b := range bs {
		if total += len(b); total >= 4<<20 || i == 1000 {
			return bs[:i+1]
		}
	}
	return bs
}

func noIntr(err error) error {
	if err == unix.EINTR {
		return unix.EWOULDBLOCK
	}
	return err
}

// Ioctl knows FIONREAD; a terminal reaches the guest as a pseudoterminal of the sandbox, not by this package.
func (f *file) Ioctl(_ vfs.Context, _ *vfs.FileDescription, io usermem.IO, req uint32, arg uintptr) (uintptr, error) {
	if req != unix.TIOCINQ {
		return 0, unix.ENOTTY
	}
	n, err := unix.IoctlGetInt(f.fd, unix.TIOCINQ)
	if err != nil {
		return 0, err
	}
	_, err = io.CopyOut(hostarch.Addr(arg), []byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)})
	return 0, err
}

// Fsync implements vfs.FileImpl.
func (f *file) Fsync(vfs.Context, bool) error {
	if !f.seekable {
		return unix.EINVAL
	}
	return unix.Fsync(f.fd)
}
