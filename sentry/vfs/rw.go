package vfs

import (
	"math"
	"time"

	"moat/sentry/linuxerr"
	"moat/sentry/usermem"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/waiter"
)

// ioFlags merges the RWF_-like flags of one call with the file's own.
func (fd *FileDescription) ioFlags(fl IOFlags) IOFlags {
	f := fd.flags.Load()
	if f&unix.O_NONBLOCK != 0 {
		fl |= IONonblock
	}
	if f&unix.O_APPEND != 0 && fl&IONoAppend == 0 {
		fl |= IOAppend
	}
	if f&unix.O_DSYNC != 0 {
		fl |= IODsync
		if f&unix.O_SYNC == unix.O_SYNC {
			fl |= IOSync
		}
	}
	return fl
}

// Deadliner is a file whose reads and writes have timeouts of their own: a socket (SO_RCVTIMEO, SO_SNDTIMEO). Zero: none.
type Deadliner interface {
	RecvDeadline() time.Time
	SendDeadline() time.Time
}

// ownDeadline is when a read or write that begins to wait now must be over.
func (fd *FileDescription) ownDeadline(write bool) time.Time {
	d, ok := fd.impl.(Deadliner)
	switch {
	case !ok:
		return time.Time{}
	case write:
		return d.SendDeadline()
	}
	return d.RecvDeadline()
}

// Read is read(2) and readv(2): from the file position, waiting for data unless the file or flags say not to.
func (fd *FileDescription) Read(ctx Context, dst usermem.IOSequence, flags IOFlags) (int64, error) {
	if !fd.Readable() {
		return 0, unix.EBADF
	}
	flags = fd.ioFlags(flags)
	var n int64
	var err error
	if fd.seekable {
		fd.offMu.Lock()
		off, at := fd.positionLocked()
		n, err = fd.readAt(ctx, dst, off, flags|at)
		if !fd.fixed {
			fd.off += n
		}
		fd.offMu.Unlock()
	} else {
		n, err = fd.impl.Read(ctx, fd, dst, Stream, flags)
		if err == unix.EWOULDBLOCK && flags&IONonblock == 0 {
			n, err = fd.wait(ctx, waiter.ReadableEvents|waiter.EventHUp|waiter.EventErr, time.Time{}, func() (int64, error) {
				return fd.impl.Read(ctx, fd, dst, Stream, flags)
			})
		}
	}
	if n > 0 {
		fd.notify(InAccess)
	}
	return n, err
}

// readAt reads from a seekable file, whose offsets end where loff_t does (rw_verify_area).
func (fd *FileDescription) readAt(ctx Context, dst usermem.IOSequence, off int64, flags IOFlags) (int64, error) {
	if off > math.MaxInt64-dst.NumBytes() {
		return 0, unix.EINVAL
	}
	n, err := fd.impl.Read(ctx, fd, dst, off, flags)
	if err == unix.EINVAL && isDir(fd.Inode()) {
		err = unix.EISDIR
	}
	return n, err
}

// PRead is pread(2) and preadv(2).
func (fd *FileDescription) PRead(ctx Context, dst usermem.IOSequence, off int64, flags IOFlags) (int64, error) {
	if off < 0 {
		return 0, unix.EINVAL
	}
	if !fd.seekable {
		return 0, unix.ESPIPE
	}
	if !fd.Readable() {
		return 0, unix.EBADF
	}
	n, err := fd.readAt(ctx, dst, off, fd.ioFlags(flags))
	if n > 0 {
		fd.notify(InAccess)
	}
	return n, err
}

// Write is write(2) and writev(2): at the file position (the end with O_APPEND), waiting for room unless the file or flags
// say not to. A blocking stream is written in full unless an error or a signal comes.
func (fd *FileDescription) Write(ctx Context, src usermem.IOSequence, flags IOFlags) (int64, error) {
	if !fd.Writable() {
		return 0, unix.EBADF
	}
	flags = fd.ioFlags(flags)
	var n int64
	var err error
	if fd.seekable {
		fd.offMu.Lock()
		off, at := fd.positionLocked()
		var end int64
		n, end, err = fd.writeAt(ctx, src, off, flags|at)
		if n > 0 && !fd.fixed {
			fd.off = end
		}
		fd.offMu.Unlock()
	} else {
		n, _, err = fd.impl.Write(ctx, fd, src, Stream, flags)
		if flags&IONonblock == 0 {
			n, err = fd.writeRest(ctx, src, n, err, flags)
		}
		// EPIPE stays beside a count: a writer to a pipe is told of it by SIGPIPE.
		if n > 0 && err != unix.EPIPE {
			err = nil
		}
	}
	if n > 0 {
		fd.notify(InModify)
	}
	return n, err
}

// writeRest goes on after the first try wrote n bytes of src to a stream.
func (fd *FileDescription) writeRest(ctx Context, src usermem.IOSequence, n int64, err error, flags IOFlags) (int64, error) {
	total := src.NumBytes()
	if n >= total || err != nil && err != unix.EWOULDBLOCK || err == nil && n == 0 {
		return n, err
	}
	if err == nil {
		// A short write without an error is final for datagrams and devices, and cannot be told from a full pipe, so
		// implementations return EWOULDBLOCK beside a short count when more could follow.
		return n, nil
	}
	done := n
	_, err = fd.wait(ctx, waiter.WritableEvents|waiter.EventHUp|waiter.EventErr, time.Time{}, func() (int64, error) {
		for {
			m, _, err := fd.impl.Write(ctx, fd, src.DropFirst(done), Stream, flags)
			done += m
			if err != nil || m == 0 || done >= total {
				return done, err
			}
		}
	})
	return done, err
}

// PWrite is pwrite(2) and pwritev(2). With O_APPEND the offset is ignored (pwrite(2), BUGS).
func (fd *FileDescription) PWrite(ctx Context, src usermem.IOSequence, off int64, flags IOFlags) (int64, error) {
	if off < 0 {
		return 0, unix.EINVAL
	}
	if !fd.seekable {
		return 0, unix.ESPIPE
	}
	if !fd.Writable() {
		return 0, unix.EBADF
	}
	n, _, err := fd.writeAt(ctx, src, off, fd.ioFlags(flags))
	if n > 0 {
		fd.notify(InModify)
	}
	return n, err
}

// writeAt writes to a seekable file: RLIMIT_FSIZE, the largest offset, and the set-id bits that a write takes away.
func (fd *FileDescription) writeAt(ctx Context, src usermem.IOSequence, off int64, flags IOFlags) (n, end int64, err error) {
	count, inode := src.NumBytes(), fd.Inode()
	if count == 0 && inode.Mode()&unix.S_IFMT != unix.S_IFCHR { // /dev/full takes nothing
		return 0, off, nil
	}
	if off > math.MaxInt64-count {
		return 0, off, unix.EINVAL // rw_verify_area
	}
	if mode := inode.Mode(); mode&unix.S_IFMT == unix.S_IFREG {
		if limit := ctx.FileSizeLimit(); limit < math.MaxInt64 {
			at := off
			if flags&IOAppend != 0 {
				if at, err = fd.impl.SeekEnd(ctx); err != nil {
					return 0, off, err
				}
			}
			if at >= int64(limit) {
				ctx.SendSIGXFSZ()
				return 0, off, unix.EFBIG
			}
			src = src.TakeFirst(int64(limit) - at)
		}
		if mode&(unix.S_ISUID|unix.S_ISGID) != 0 {
			if err := killPriv(ctx, inode, mode); err != nil {
				return 0, off, err
			}
		}
	}
	return fd.impl.Write(ctx, fd, src, off, flags)
}

// wait calls try each time the file becomes ready for mask until it returns anything but EWOULDBLOCK.
func (fd *FileDescription) wait(ctx Context, mask waiter.EventMask, deadline time.Time, try func() (int64, error)) (int64, error) {
	e, ch := waiter.NewChannelEntry(mask)
	if err := fd.impl.EventRegister(&e); err != nil {
		return 0, err
	}
	defer fd.impl.EventUnregister(&e)
	own := false
	if deadline.IsZero() {
		deadline = fd.ownDeadline(mask&waiter.WritableEvents != 0)
		own = !deadline.IsZero()
	}
	for {
		n, err := try()
		if err != unix.EWOULDBLOCK {
			return n, err
		}
		if deadline.IsZero() {
			err = ctx.Block(ch)
		} else {
			err = ctx.BlockUntil(ch, deadline)
		}
		if err == unix.ETIMEDOUT {
			err = unix.EWOULDBLOCK
		}
		if linuxerr.IsRestart(err) {
			// What has come with the signal goes first, be it the signal itself (signalfd_dequeue).
			if n, again := try(); again != unix.EWOULDBLOCK {
				return n, again
			}
			if own {
				err = unix.EINTR // a call with a timeout is not restarted
			}
		}
		if err != nil {
			return n, err
		}
	}
}

// Wait calls try each time the file becomes ready for mask until it returns anything but EWOULDBLOCK; a zero deadline never
// passes, and one that does gives EWOULDBLOCK. For operations beside read and write that wait (accept, splice).
func (fd *FileDescription) Wait(ctx Context, mask waiter.EventMask, deadline time.Time, try func() error) error {
	_, err := fd.wait(ctx, mask, deadline, func() (int64, error) { return 0, try() })
	return err
}

// Offset is the file position.
func (fd *FileDescription) Offset() int64 {
	fd.offMu.Lock()
	defer fd.offMu.Unlock()
	off, _ := fd.positionLocked()
	return off
}

// Seek is lseek(2).
func (fd *FileDescription) Seek(ctx Context, off int64, whence int32) (int64, error) {
	if fd.pathOnly {
		return 0, unix.EBADF
	}
	if whence < unix.SEEK_SET || whence > unix.SEEK_HOLE {
		return 0, unix.EINVAL
	}
	if fd.fixed {
		return 0, nil
	}
	if !fd.seekable {
		return 0, unix.ESPIPE
	}
	fd.offMu.Lock()
	defer fd.offMu.Unlock()
	var base int64
	var err error
	switch whence {
	case unix.SEEK_SET:
	case unix.SEEK_CUR:
		base, _ = fd.positionLocked()
	case unix.SEEK_END:
		base, err = fd.impl.SeekEnd(ctx)
	case unix.SEEK_DATA, unix.SEEK_HOLE:
		off, err = fd.impl.SeekData(ctx, off, whence == unix.SEEK_DATA)
	default:
		return 0, unix.EINVAL
	}
	if err != nil {
		return 0, err
	}
	if off > 0 && base > math.MaxInt64-off || base+off < 0 {
		return 0, unix.EINVAL
	}
	fd.off = base + off
	if fd.outside != nil {
		_, err = fd.outside.Position(fd.off, unix.SEEK_SET)
	}
	return fd.off, err
}

// positionLocked returns the file position, and IOPosition if it is kept outside.
//
// +checklocks:fd.offMu
func (fd *FileDescription) positionLocked() (int64, IOFlags) {
	if fd.outside == nil {
		return fd.off, 0
	}
	off, _ := fd.outside.Position(0, unix.SEEK_CUR) // cannot fail on a file that can be sought
	return off, IOPosition
}

// ReadDir is getdents64(2): it emits entries until emit returns an error.
func (fd *FileDescription) ReadDir(ctx Context, emit func(Dirent) error) error {
	if fd.pathOnly {
		return unix.EBADF
	}
	if !isDir(fd.Inode()) {
		return unix.ENOTDIR
	}
	if fd.path.Dentry.Deleted() {
		return unix.ENOENT
	}
	fd.offMu.Lock()
	defer fd.offMu.Unlock()
	off, err := fd.impl.ReadDir(ctx, fd, fd.off, emit)
	fd.off = off
	if err == nil {
		fd.notify(InAccess)
	}
	return err
}

// Fsync is fsync(2) and fdatasync(2).
func (fd *FileDescription) Fsync(ctx Context, dataOnly bool) error {
	if fd.pathOnly {
		return unix.EBADF
	}
	return fd.impl.Fsync(ctx, dataOnly)
}

// Allocate is fallocate(2).
func (fd *FileDescription) Allocate(ctx Context, mode uint32, off, length int64) error {
	if off < 0 || length <= 0 {
		return unix.EINVAL
	}
	const keep = unix.FALLOC_FL_KEEP_SIZE
	switch mode {
	case 0, keep, unix.FALLOC_FL_PUNCH_HOLE | keep, unix.FALLOC_FL_ZERO_RANGE, unix.FALLOC_FL_ZERO_RANGE | keep,
		unix.FALLOC_FL_UNSHARE_RANGE, unix.FALLOC_FL_UNSHARE_RANGE | keep, unix.FALLOC_FL_COLLAPSE_RANGE, unix.FALLOC_FL_INSERT_RANGE:
	default:
		return unix.EOPNOTSUPP
	}
	if !fd.Writable() {
		return unix.EBADF
	}
	switch fd.Inode().Mode() & unix.S_IFMT {
	case unix.S_IFIFO:
		return unix.ESPIPE
	case unix.S_IFDIR:
		return unix.EISDIR
	case unix.S_IFREG, unix.S_IFBLK:
	default:
		return unix.ENODEV
	}
	if off > math.MaxInt64-length {
		return unix.EFBIG
	}
	if mode == 0 {
		if err := MayGrow(ctx, fd.Inode(), off+length); err != nil {
			return err
		}
	}
	err := fd.impl.Allocate(ctx, mode, off, length)
	if err == nil {
		err = killPriv(ctx, fd.Inode(), fd.Inode().Mode())
		fd.notify(InModify)
	}
	return err
}

// WantsAtime reports whether an access through fd changes the access time, which is atime so far: O_NOATIME, the mount's options,
// and relatime (fs/inode.c relatime_need_update).
func (fd *FileDescription) WantsAtime(ctx Context, atime, mtime, ctime Time) bool {
	f := fd.path.Mount.Flags()
	if fd.flags.Load()&unix.O_NOATIME != 0 || f&(unix.ST_NOATIME|unix.ST_RDONLY) != 0 {
		return false
	}
	if f&unix.ST_NODIRATIME != 0 && isDir(fd.Inode()) {
		return false
	}
	return f&unix.ST_RELATIME == 0 || atime <= mtime || atime <= ctime || ctx.Now()-atime >= Time(24*time.Hour)
}
