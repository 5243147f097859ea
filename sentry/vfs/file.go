package vfs

import (
	"moat/sentry/memmap"
	"moat/sentry/usermem"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/waiter"
)

// IOFlags change one read or write.
type IOFlags uint32

const (
	// IOAppend writes at the end of the file (O_APPEND, RWF_APPEND); IONoAppend does not, even so (RWF_NOAPPEND).
	IOAppend IOFlags = 1 << iota
	IONoAppend
	// IONonblock returns EAGAIN instead of waiting (O_NONBLOCK, RWF_NOWAIT).
	IONonblock
	// IOPosition: the offset is where a Positioned file stood, and it moves on by what it transfers.
	IOPosition
	// IODsync and IOSync are O_DSYNC and O_SYNC.
	IODsync
	IOSync
)

// Stream is the offset that files without a position are read and written at.
const Stream = -1

// FileImpl is what an open file does; FileDescription is the state around it. Implementations embed FileDefaults.
//
// FileImpl never blocks inside Read and Write: when there is nothing to do now it returns linuxerr/EAGAIN
// (unix.EWOULDBLOCK), and FileDescription waits for readiness and tries again unless the file is non-blocking. So the
// same code serves blocking and non-blocking files, and waiting is in one place.
type FileImpl interface {
	// Release is called once, when the last reference is gone.
	Release(ctx Context, fd *FileDescription)

	// Read copies into dst from off, or the next bytes if the file is a stream (off == Stream).
	Read(ctx Context, fd *FileDescription, dst usermem.IOSequence, off int64, flags IOFlags) (int64, error)
	// Write copies from src to off (or to the end, with IOAppend), and returns the offset behind the last byte written.
	// A stream that took a part and is full returns unix.EWOULDBLOCK beside the count: a blocking write then waits and
	// goes on with the rest. A short count without an error is final.
	Write(ctx Context, fd *FileDescription, src usermem.IOSequence, off int64, flags IOFlags) (n, end int64, err error)
	// Seekable reports whether the file has a position. Others get Stream as the offset, and ESPIPE for lseek and pread.
	Seekable() bool
	// SeekEnd is the size that SEEK_END starts from; SeekData implements SEEK_DATA and SEEK_HOLE (data = true for SEEK_DATA).
	SeekEnd(ctx Context) (int64, error)
	SeekData(ctx Context, off int64, data bool) (int64, error)

	// ReadDir emits entries from off on until emit returns an error (which ends it without an error) or the end. The offset
	// that a Dirent carries in Off is where the entry after it is found.
	// "." and ".." are emitted by the FileImpl, first. It returns the new offset.
	ReadDir(ctx Context, fd *FileDescription, off int64, emit func(Dirent) error) (int64, error)

	Ioctl(ctx Context, fd *FileDescription, io usermem.IO, req uint32, arg uintptr) (uintptr, error)
	ConfigureMMap(ctx Context, fd *FileDescription, opts *memmap.MMapOpts) error
	Fsync(ctx Context, dataOnly bool) error
	Allocate(ctx Context, mode uint32, off, length int64) error
	// SetFlags is told of F_SETFL after VFS checked it.
	SetFlags(ctx Context, old, new uint32) error

	// Readiness and the event registration are poll(2)'s. waiter.Waitable's contract.
	Readiness(mask waiter.EventMask) waiter.EventMask
	EventRegister(e *waiter.Entry) error
	EventUnregister(e *waiter.Entry)
}

// Dirent is one directory entry.
type Dirent struct {
	Name string
	Type uint8 // DT_*
	Ino  uint64
	Off  int64
}

// FileDefaults answers what an open file may lack as Linux does for a file without the operation.
type FileDefaults struct{}

func (FileDefaults) Release(Context, *FileDescription) {}
func (FileDefaults) Read(Context, *FileDescription, usermem.IOSequence, int64, IOFlags) (int64, error) {
	return 0, unix.EINVAL
}
func (FileDefaults) Write(Context, *FileDescription, usermem.IOSequence, int64, IOFlags) (int64, int64, error) {
	return 0, 0, unix.EINVAL
}
func (FileDefaults) Seekable() bool                               { return false }
func (FileDefaults) SeekEnd(Context) (int64, error)               { return 0, unix.EINVAL }
func (FileDefaults) SeekData(Context, int64, bool) (int64, error) { return 0, unix.EINVAL }
func (FileDefaults) ReadDir(Context, *FileDescription, int64, func(Dirent) error) (int64, error) {
	return 0, unix.ENOTDIR
}
func (FileDefaults) Ioctl(Context, *FileDescription, usermem.IO, uint32, uintptr) (uintptr, error) {
	return 0, unix.ENOTTY
}
func (FileDefaults) ConfigureMMap(Context, *FileDescription, *memmap.MMapOpts) error {
	return unix.ENODEV
}
func (FileDefaults) Fsync(Context, bool) error                    { return unix.EINVAL }
func (FileDefaults) Allocate(Context, uint32, int64, int64) error { return unix.EOPNOTSUPP }
func (FileDefaults) SetFlags(Context, uint32, uint32) error       { return nil }
func (FileDefaults) Readiness(mask waiter.EventMask) waiter.EventMask {
	return mask & (waiter.ReadableEvents | waiter.WritableEvents)
}
func (FileDefaults) EventRegister(*waiter.Entry) error { return nil }
func (FileDefaults) EventUnregister(*waiter.Entry)     {}

// Waitable is FileDefaults for a file that is waited for at Waiters; nil: it never changes.
type Waitable struct {
	FileDefaults
	Waiters *waiter.Queue
}

// EventRegister implements FileImpl.
func (w *Waitable) EventRegister(e *waiter.Entry) error {
	if w.Waiters != nil {
		w.Waiters.EventRegister(e)
	}
	return nil
}

// EventUnregister implements FileImpl.
func (w *Waitable) EventUnregister(e *waiter.Entry) {
	if w.Waiters != nil {
		w.Waiters.EventUnregister(e)
	}
}

// Files that have more to offer than FileImpl implement these beside it.

// NoopSeeker is a file without a position, for which lseek(2) does nothing (noop_llseek, null_lseek). One that is Seekable takes pread and pwrite.
type NoopSeeker interface{ NoopSeek() }

// Positioned is a seekable file whose position is kept outside, where others may move it: Position is lseek(2).
type Positioned interface {
	Position(off int64, whence int) (int64, error)
}

// NoSpliceReader is a file from which, perhaps, splice(2) and sendfile(2) do not read: EINVAL.
type NoSpliceReader interface{ NoSpliceRead() bool }

// PollChooser is a file of whose kind only some can be waited for: see CanPoll.
type PollChooser interface{ CanPoll() bool }

// CanPoll reports whether fd is a file that epoll(7) takes: not one that poll(2) finds always ready (file_can_poll).
func CanPoll(fd *FileDescription) bool {
	if c, ok := fd.impl.(PollChooser); ok {
		return c.CanPoll()
	}
	m := fd.Inode().Mode() & unix.S_IFMT
	return m != unix.S_IFREG && m != unix.S_IFDIR
}

// Peeker is a pipe's reading end, for splice(2) and tee(2): data is looked at first and taken away when the other side has it.
type Peeker interface {
	// Peek copies up to len(b) bytes from the front without taking them: 0 and nil at the end of the file, EWOULDBLOCK when the pipe is empty.
	Peek(b []byte) (int, error)
	// Discard takes n bytes away.
	Discard(n int)
}

// PipeSizer is a pipe, for fcntl(2) F_GETPIPE_SZ and F_SETPIPE_SZ.
type PipeSizer interface {
	PipeSize() int64
	// SetPipeSize rounds up and returns the new size: EBUSY, EPERM.
	SetPipeSize(ctx Context, size int64) (int64, error)
}

// Sealer is a memfd, for fcntl(2) F_GET_SEALS and F_ADD_SEALS.
type Sealer interface {
	Seals() uint32
	AddSeals(seals uint32) error
}
