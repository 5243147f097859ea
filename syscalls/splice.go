package syscalls

import (
	"math"
	"sync"
	"time"

	"moat/sentry/kernel"
	"moat/sentry/net/socket"
	"moat/sentry/usermem"
	"moat/sentry/vfs"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Calls that move data between two files. It passes through a buffer; files that are pipes lend a look at their data first (vfs.Peeker), so that
// nothing is lost when the other side takes less.

func init() {
	register(
		full(40, "sendfile", "fd fd ptr size", sysSendfile),
		full(275, "splice", "fd ptr fd ptr size hex", sysSplice),
		full(276, "tee", "fd fd size hex", sysTee),
		partial(278, "vmsplice", "fd iovec int hex", "pages are copied: SPLICE_F_GIFT is a hint", sysVmsplice),
		full(326, "copy_file_range", "fd ptr fd ptr size hex", sysCopyFileRange),
	)
}

const spliceChunk = 64 << 10

var spliceBuffers = sync.Pool{New: func() any { b := make([]byte, spliceChunk); return &b }}

// readOffset reads the offset argument at addr: nil for a null pointer.
func readOffset(t *kernel.Task, addr kernel.Arg) (*int64, error) {
	if addr == 0 {
		return nil, nil
	}
	v, err := t.CopyInUint64(addr.Pointer())
	if err != nil {
		return nil, err
	}
	off := int64(v)
	return &off, nil
}

// mover moves bytes from in to out; a nil offset is the file's own position, which then advances.
type mover struct {
	t             *kernel.Task
	in, out       *vfs.FileDescription
	inOff, outOff *int64
	nonblock      bool
	waitIn        bool // nonblock is not for the input
	keep          bool // tee(2): do not take the data from in
}

// move moves up to n bytes and returns how many; an error only if none.
func (m *mover) move(n uint64) (uintptr, error) {
	n = min(n, 0x7ffff000)
	buf := spliceBuffers.Get().(*[]byte)
	defer spliceBuffers.Put(buf)
	done := uint64(0)
	for done < n {
		b := (*buf)[:min(n-done, spliceChunk)]
		c, err := m.step(b, done == 0)
		done += uint64(c)
		// Less than asked for is no end of a file, which the output may be, too.
		if err != nil || c == 0 || c < len(b) && !m.in.Seekable() && !isPipe(m.in) {
			if done > 0 {
				err = nil
			}
			return uintptr(done), err
		}
		if m.t.Interrupted() || m.keep {
			break
		}
	}
	return uintptr(done), nil
}

// step moves one buffer. It waits for the input only if nothing was moved before (first).
func (m *mover) step(b []byte, first bool) (int, error) {
	var flags vfs.IOFlags
	if m.nonblock && !m.waitIn || !first {
		flags = vfs.IONonblock
	}
	if p, ok := m.in.Impl().(vfs.Peeker); ok {
		return m.stepPipe(p, b, flags)
	}
	if err := m.room(m.nonblock || !first); err != nil {
		return 0, err
	}
	var n int64
	var err error
	dst := usermem.Bytes(b)
	seekable := m.in.Seekable()
	at := int64(0)
	switch {
	case m.inOff != nil:
		at = *m.inOff
		n, err = m.in.PRead(m.t, dst, at, flags)
	case seekable:
		// Read without moving the position, which is moved by what the output took.
		at = m.in.Offset()
		n, err = m.in.PRead(m.t, dst, at, flags)
	default:
		n, err = m.in.Read(m.t, dst, flags)
	}
	if n == 0 || err != nil {
		return 0, err
	}
	w, err := m.write(b[:n], m.nonblock || !first && seekable)
	if m.inOff != nil {
		*m.inOff = at + int64(w)
	} else if seekable {
		m.in.Seek(m.t, at+int64(w), unix.SEEK_SET)
	}
	return w, err
}

func (m *mover) stepPipe(p vfs.Peeker, b []byte, flags vfs.IOFlags) (int, error) {
	n, err := p.Peek(b)
	if err == unix.EWOULDBLOCK && flags&vfs.IONonblock == 0 && !m.in.Nonblocking() {
		err = m.in.Wait(m.t, waiter.ReadableEvents|waiter.EventHUp, time.Time{}, func() (err error) {
			n, err = p.Peek(b)
			return err
		})
	}
	if err == nil {
		err = m.room(flags&vfs.IONonblock != 0)
	}
	if n == 0 || err != nil {
		return 0, err
	}
	w, err := m.write(b[:n], m.nonblock)
	if !m.keep {
		p.Discard(w)
	}
	return w, err
}

// room waits until an output that is a pipe has room, before anything is read (wait_for_space, opipe_prep): EPIPE without readers.
func (m *mover) room(nonblock bool) error {
	if !isPipe(m.out) {
		return nil
	}
	try := func() error {
		switch r := m.out.Impl().Readiness(waiter.WritableEvents); {
		case r&waiter.EventErr != 0:
			m.t.SignalSelf(linux.SIGPIPE)
			return unix.EPIPE
		case r == 0:
			return unix.EWOULDBLOCK
		}
		return nil
	}
	if err := try(); err != unix.EWOULDBLOCK || nonblock || m.out.Nonblocking() {
		return err
	}
	return m.out.Wait(m.t, waiter.WritableEvents|waiter.EventErr, time.Time{}, try)
}

func (m *mover) write(b []byte, nonblock bool) (int, error) {
	var flags vfs.IOFlags
	if nonblock {
		flags = vfs.IONonblock
	}
	src := usermem.Bytes(b)
	var n int64
	var err error
	if m.outOff != nil {
		n, err = m.out.PWrite(m.t, src, *m.outOff, flags)
		*m.outOff += n
	} else {
		n, err = m.out.Write(m.t, src, flags)
	}
	if err == unix.EPIPE && (n == 0 || isPipe(m.out)) {
		m.t.SignalSelf(linux.SIGPIPE)
		if n > 0 {
			err = nil
		}
	}
	return int(n), err
}

// twoFiles gets in and out: EBADF.
func twoFiles(t *kernel.Task, in, out int32) (i, o *vfs.FileDescription, err error) {
	if i, err = t.GetFile(in); err != nil {
		return nil, nil, err
	}
	if o, err = t.GetFile(out); err != nil {
		i.DecRef()
		return nil, nil, err
	}
	return i, o, nil
}

func sysSendfile(t *kernel.Task, a kernel.Args) (uintptr, error) {
	off, err := readOffset(t, a[2])
	if err != nil {
		return 0, err
	}
	in, err := t.GetFile(a[1].Int())
	if err != nil {
		return 0, err
	}
	defer in.DecRef()
	switch {
	case !in.Readable():
		return 0, unix.EBADF
	case !in.Seekable() && off != nil:
		return 0, unix.ESPIPE
	case a[3].Int64() < 0, off != nil && (*off < 0 || *off > math.MaxInt64-a[3].Int64()):
		return 0, unix.EINVAL
	}
	out, err := t.GetFile(a[0].Int())
	if err != nil {
		return 0, err
	}
	defer out.DecRef()
	switch {
	case !out.Writable():
		return 0, unix.EBADF
	case !in.Seekable() && !isPipe(out), out.Flags()&unix.O_APPEND != 0 && out.Seekable(),
		a[3] != 0 && (isPipe(in) || unspliced(in)): // a pipe has no splice_read
		return 0, unix.EINVAL
	}
	m := mover{t: t, in: in, out: out, inOff: off}
	n, err := m.move(a[3].Uint64())
	return n, storeOffset(t, a[2], off, err)
}

// storeOffset writes an offset back.
func storeOffset(t *kernel.Task, addr kernel.Arg, off *int64, err error) error {
	if off == nil {
		return err
	}
	if e := t.CopyOutUint64(addr.Pointer(), uint64(*off)); err == nil {
		err = e
	}
	return err
}

func isPipe(f *vfs.FileDescription) bool { return f.Inode().Mode()&unix.S_IFMT == unix.S_IFIFO }

// unspliced reports whether nothing is read from f but by read(2): it has no splice_read.
func unspliced(f *vfs.FileDescription) bool {
	i, ok := f.Impl().(vfs.NoSpliceReader)
	return ok && i.NoSpliceRead() || f.Inode().Mode()&unix.S_IFMT == unix.S_IFDIR || f.Anonymous()
}

const spliceFlags = unix.SPLICE_F_MOVE | unix.SPLICE_F_NONBLOCK | unix.SPLICE_F_MORE | unix.SPLICE_F_GIFT

func sysSplice(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a[4] == 0 {
		return 0, nil
	}
	if a[5].Uint()&^uint32(spliceFlags) != 0 {
		return 0, unix.EINVAL
	}
	in, out, err := twoFiles(t, a[0].Int(), a[2].Int())
	if err != nil {
		return 0, err
	}
	defer in.DecRef()
	defer out.DecRef()
	m := mover{t: t, in: in, out: out, nonblock: a[5].Uint()&unix.SPLICE_F_NONBLOCK != 0}
	if isPipe(in) && a[1] != 0 || isPipe(out) && a[3] != 0 {
		return 0, unix.ESPIPE
	}
	if m.outOff, err = readOffset(t, a[3]); err != nil {
		return 0, err
	}
	if m.inOff, err = readOffset(t, a[1]); err != nil {
		return 0, err
	}
	switch {
	case !in.Readable(), !out.Writable():
		return 0, unix.EBADF
	case m.inOff != nil && *m.inOff < 0, m.outOff != nil && *m.outOff < 0:
		return 0, unix.EINVAL
	case !isPipe(in) && !isPipe(out), unspliced(in), out.Anonymous(), a[4].Int64() < 0 && !(isPipe(in) && isPipe(out)):
		return 0, unix.EINVAL
	case isPipe(in) && isPipe(out) && in.Inode() == out.Inode():
		return 0, unix.EINVAL
	case !isPipe(out) && out.Flags()&unix.O_APPEND != 0:
		return 0, unix.EINVAL
	case a[1] != 0 && !in.Seekable(), a[3] != 0 && !out.Seekable():
		return 0, unix.EINVAL
	}
	// Only pipes and streams look at the flag, others at what the file was opened with (copy_splice_read).
	s, _ := in.Impl().(socket.Socket)
	m.waitIn = !isPipe(in) && (s == nil || s.Base().Type != unix.SOCK_STREAM)
	m.nonblock = m.nonblock || isPipe(in) && isPipe(out) && (in.Nonblocking() || out.Nonblocking())
	n, err := m.move(a[4].Uint64())
	err = storeOffset(t, a[1], m.inOff, err)
	return n, storeOffset(t, a[3], m.outOff, err)
}

func sysTee(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a[3].Uint()&^uint32(spliceFlags) != 0 {
		return 0, unix.EINVAL
	}
	if a[2] == 0 {
		return 0, nil
	}
	in, out, err := twoFiles(t, a[0].Int(), a[1].Int())
	if err != nil {
		return 0, err
	}
	defer in.DecRef()
	defer out.DecRef()
	if !in.Readable() || !out.Writable() {
		return 0, unix.EBADF
	}
	if !isPipe(in) || !isPipe(out) || in.Inode() == out.Inode() {
		return 0, unix.EINVAL
	}
	m := mover{t: t, in: in, out: out, nonblock: a[3].Uint()&unix.SPLICE_F_NONBLOCK != 0 || in.Nonblocking() || out.Nonblocking(), keep: true}
	return m.move(a[2].Uint64())
}

func sysVmsplice(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a[3].Uint()&^uint32(spliceFlags) != 0 {
		return 0, unix.EINVAL
	}
	f, err := t.GetFile(a[0].Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	if !f.Readable() && !f.Writable() {
		return 0, unix.EBADF
	}
	seq, err := t.CopyInIovecs(a[1].Pointer(), int(min(a[2].Uint64(), math.MaxInt32)))
	if err != nil || seq.NumBytes() == 0 {
		return 0, err
	}
	if !isPipe(f) {
		return 0, unix.EBADF
	}
	var flags vfs.IOFlags
	if a[3].Uint()&unix.SPLICE_F_NONBLOCK != 0 {
		flags = vfs.IONonblock
	}
	if f.Writable() {
		return sigpipe(t, f, seq, -1, flags)
	}
	return result(f.Read(t, seq, flags))
}

func sysCopyFileRange(t *kernel.Task, a kernel.Args) (uintptr, error) {
	in, out, err := twoFiles(t, a[0].Int(), a[2].Int())
	if err != nil {
		return 0, err
	}
	defer in.DecRef()
	defer out.DecRef()
	m := mover{t: t, in: in, out: out}
	if m.inOff, err = readOffset(t, a[1]); err != nil {
		return 0, err
	}
	if m.outOff, err = readOffset(t, a[3]); err != nil {
		return 0, err
	}
	if a[5] != 0 {
		return 0, unix.EINVAL
	}
	x, y := in.Inode().Mode()&unix.S_IFMT, out.Inode().Mode()&unix.S_IFMT
	switch {
	case x == unix.S_IFDIR, y == unix.S_IFDIR:
		return 0, unix.EISDIR
	case x != unix.S_IFREG, y != unix.S_IFREG:
		return 0, unix.EINVAL
	}
	if !in.Readable() || !out.Writable() || out.Flags()&unix.O_APPEND != 0 {
		return 0, unix.EBADF
	}
	if in.Path().Mount.FS().Dev() != out.Path().Mount.FS().Dev() {
		return 0, unix.EXDEV
	}
	from, to, n := in.Offset(), out.Offset(), int64(min(a[4].Uint64(), 0x7ffff000))
	if m.inOff != nil {
		from = *m.inOff
	}
	if m.outOff != nil {
		to = *m.outOff
	}
	switch count := a[4].Uint64(); {
	case uint64(from)+count < count, uint64(to)+count < count:
		return 0, unix.EOVERFLOW // generic_copy_file_checks counts without signs
	case from < 0, to < 0:
		return 0, unix.EINVAL
	case to == math.MaxInt64:
		return 0, unix.EFBIG
	}
	n = min(n, math.MaxInt64-from, math.MaxInt64-to)
	if st, err := in.Stat(t); err != nil {
		return 0, err
	} else {
		n = min(n, max(0, st.Size-from))
	}
	if n > 0 && in.Inode() == out.Inode() && from < to+n && to < from+n {
		return 0, unix.EINVAL
	}
	c, err := m.move(uint64(n))
	err = storeOffset(t, a[1], m.inOff, err)
	return c, storeOffset(t, a[3], m.outOff, err)
}
