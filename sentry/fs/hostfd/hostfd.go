package hostfd

import (
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/waiter"

	"moat/sentry/kernel/auth"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

// File is a host descriptor as an open file of the container.
type File struct {
	vfs.Waitable
	fd    int
	kind  uint32 // S_IFMT
	flags uint32 // O_ACCMODE, O_APPEND and O_NONBLOCK
	rdev  uint64
	ino   inode
	// poller waits for the file under number; nil if it is always ready.
	poller *Poller
	number int32
	// users are open file descriptions; the last closes the host's.
	users atomic.Int64
	// pollable: the host can be asked for readiness; other files are always ready.
	pollable bool
	// noNowait: the host cannot do without waiting, so readiness is asked for before each transfer.
	noNowait atomic.Bool
}

const (
	// chunk is what a terminal that is writable takes without waiting, more or less.
	chunk    = 512
	fionread = 0x541b
)

// Open makes a File of descriptor fd, which it owns.
func Open(p *Poller, fd int) (*File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", fd, err)
	}
	fl, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", fd, err)
	}
	f := &File{Waitable: vfs.Waitable{Waiters: &waiter.Queue{}}, fd: fd, kind: st.Mode & unix.S_IFMT, flags: uint32(fl) & (unix.O_ACCMODE | unix.O_APPEND | unix.O_NONBLOCK), rdev: st.Rdev}
	f.ino = inode{file: f, mode: uint16(st.Mode), ino: vfs.NewPseudoInode(), mtime: vfs.Time(st.Mtim.Nano())}
	if f.kind == unix.S_IFREG || f.kind == unix.S_IFDIR {
		return f, nil
	}
	f.number, err = p.Add(fd, f.Waiters)
	if f.pollable = err == nil; f.pollable {
		f.poller = p
	}
	// A file that the host cannot wait for (EPERM: /dev/zero) is always ready.
	if err != nil && err != unix.EPERM {
		return nil, fmt.Errorf("descriptor %d: %w", fd, err)
	}
	return f, nil
}

// IsNull reports whether f is /dev/null, of which the sandbox has one of its own.
func (f *File) IsNull() bool { return f.kind == unix.S_IFCHR && f.rdev == unix.Mkdev(1, 3) }

// Same reports whether f and o are the same open file on the host. Call it before the filter is in force.
func (f *File) Same(o *File) bool {
	pid := uintptr(unix.Getpid())
	const kcmpFile = 0
	r, _, e := unix.Syscall6(unix.SYS_KCMP, pid, pid, kcmpFile, uintptr(f.fd), uintptr(o.fd), 0)
	return e == 0 && r == 0
}

// FileDescription is f as an open file of the container. It is called once.
func (f *File) FileDescription(fs *FS, creds *auth.Credentials) *vfs.FileDescription {
	f.ino.fs, f.ino.uid, f.ino.gid = fs, creds.EUID, creds.EGID
	name := map[uint32]string{unix.S_IFIFO: "pipe", unix.S_IFSOCK: "socket"}[f.kind]
	if name == "" {
		name = "host"
	}
	f.users.Add(1)
	return vfs.NewFile(creds, f, fs.mnt.Path(fmt.Sprintf("%s:[%d]", name, f.ino.ino), &f.ino), f.flags)
}

// Position implements vfs.Positioned.
func (f *File) Position(off int64, whence int) (int64, error) { return unix.Seek(f.fd, off, whence) }

// AsyncEvents implements vfs.Asyncer.
func (f *File) AsyncEvents(vfs.Context, *vfs.FileDescription) waiter.EventMask {
	return waiter.AllEvents
}

// Release implements vfs.FileImpl: a reader outside sees the end of a pipe.
func (f *File) Release(vfs.Context, *vfs.FileDescription) {
	if f.users.Add(-1) == 0 {
		f.Close()
	}
}

// Close closes the host's descriptor of a File that no file description stands for.
func (f *File) Close() {
	if f.poller != nil {
		f.poller.Remove(f.fd, f.number)
	}
	unix.Close(f.fd)
}

// Seekable implements vfs.FileImpl.
func (f *File) Seekable() bool { return f.kind == unix.S_IFREG }

// SeekEnd implements vfs.FileImpl.
func (f *File) SeekEnd(vfs.Context) (int64, error) {
	var st unix.Stat_t
	err := unix.Fstat(f.fd, &st)
	return st.Size, err
}

// SeekData implements vfs.FileImpl.
func (f *File) SeekData(_ vfs.Context, off int64, data bool) (int64, error) {
	if data {
		return unix.Seek(f.fd, off, unix.SEEK_DATA)
	}
	return unix.Seek(f.fd, off, unix.SEEK_HOLE)
}

// Read implements vfs.FileImpl.
func (f *File) Read(_ vfs.Context, _ *vfs.FileDescription, dst usermem.IOSequence, off int64, flags vfs.IOFlags) (int64, error) {
	if flags&vfs.IOPosition != 0 {
		off = vfs.Stream
	}
	n, err := dst.ForBlocks(hostarch.Write, func(bs [][]byte) (uint64, error) {
		n, err := f.transfer(unix.SYS_PREADV2, bs, off)
		if off != vfs.Stream {
			off += int64(n)
		}
		return n, err
	})
	if n > 0 {
		err = nil
	}
	return n, err
}

// Write implements vfs.FileImpl.
func (f *File) Write(_ vfs.Context, _ *vfs.FileDescription, src usermem.IOSequence, off int64, flags vfs.IOFlags) (int64, int64, error) {
	at := off
	if flags&(vfs.IOAppend|vfs.IOPosition) != 0 {
		at = vfs.Stream // the host's own O_APPEND and position
	}
	n, err := src.ForBlocks(hostarch.Read, func(bs [][]byte) (uint64, error) {
		if f.pollable && f.noNowait.Load() {
			bs = [][]byte{bs[0][:min(len(bs[0]), chunk)]}
		}
		k, err := f.transfer(unix.SYS_PWRITEV2, bs, at)
		if at != vfs.Stream {
			at += int64(k)
		}
		return k, err
	})
	switch {
	case !f.Seekable():
		if err == nil && n < src.NumBytes() {
			err = unix.EWOULDBLOCK // There is more: look again.
		}
		return n, off, err
	case n > 0:
		err = nil
	}
	if flags&vfs.IOAppend != 0 {
		end, _ := f.Position(0, unix.SEEK_CUR)
		return n, end, err
	}
	return n, off + n, err
}

// Ioctl implements vfs.FileImpl: what can be asked of a terminal or a pipe, and the modes of a terminal, which a program that asks for a password sets.
func (f *File) Ioctl(_ vfs.Context, _ *vfs.FileDescription, io usermem.IO, req uint32, arg uintptr) (uintptr, error) {
	switch req {
	case unix.TCGETS, unix.TIOCGWINSZ, fionread:
		if f.pollable {
			return 0, f.ask(io, req, arg)
		}
	case unix.TCSETS, unix.TCSETSW, unix.TCSETSF:
		if f.kind == unix.S_IFCHR && f.pollable {
			return 0, f.setModes(io, req, arg)
		}
	case unix.TIOCSWINSZ:
		if f.kind == unix.S_IFCHR && f.pollable {
			return 0, unix.EPERM
		}
	}
	return 0, unix.ENOTTY
}

// Fsync implements vfs.FileImpl. Written data is the host's; when it reaches the disk is for whoever opened the file to say.
func (f *File) Fsync(vfs.Context, bool) error {
	if f.kind != unix.S_IFREG {
		return unix.EINVAL
	}
	return nil
}
