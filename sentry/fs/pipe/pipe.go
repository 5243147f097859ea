// Package pipe has pipes and FIFOs (pipe(7), fifo(7)).
//
// A Pipe is a ring of bytes that grows as it is used, up to its capacity. Pipe.mu guards it; it is held while guest memory
// is copied, so locks of address spaces come behind it. The queue is notified without it.
package pipe

import (
	"math/bits"
	"sync"
	"sync/atomic"

	"moat/sentry/usermem"
	"moat/sentry/vfs"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	pageSize    = 4096
	defaultSize = 16 * pageSize
	// maxSize is /proc/sys/fs/pipe-max-size, hardMax what even CAP_SYS_RESOURCE gets.
	maxSize = 1 << 20
	hardMax = 64 << 20
	// softTotal bounds the capacity of all pipes: beyond it new ones get two pages (pipe-user-pages-soft).
	softTotal = 64 << 20
)

var total atomic.Int64

// Pipe is the buffer between the ends.
type Pipe struct {
	queue waiter.Queue
	// anon: made by pipe(2). Opening it again does not wait for the other end (fifo_open).
	anon bool

	mu sync.Mutex
	// buf is a ring of a power of two bytes, of which n from head on are in use; size is the capacity.
	// +checklocks:mu
	buf []byte
	// +checklocks:mu
	head int
	// +checklocks:mu
	n int
	// +checklocks:mu
	size int
	// slots are what Linux has a page buffer for each: size/pageSize of them make the pipe full, however little they hold. A ring like buf: of
	// those in use the first is slots[first].
	// +checklocks:mu
	slots []slot
	// +checklocks:mu
	first int
	// +checklocks:mu
	used int
	// readers and writers are open ends; their generations count opens, for those who wait for the other end.
	// +checklocks:mu
	readers int
	// +checklocks:mu
	writers int
	// +checklocks:mu
	readerGen int
	// +checklocks:mu
	writerGen int
	// files counts open files of a FIFO; guarded by the inode's special state.
	files int
}

// slot is up to a page of data, at an offset in its page: what is written fits behind it (is merged) or takes a slot of its own.
type slot struct {
	off, n uint16
	packet bool // O_DIRECT: read by one read only
}

// slotLocked is the slot at place i of those in use.
// +checklocks:p.mu
func (p *Pipe) slotLocked(i int) *slot { return &p.slots[(p.first+i)&(len(p.slots)-1)] }

// fullLocked reports whether no slot is free.
// +checklocks:p.mu
func (p *Pipe) fullLocked() bool { return p.used >= p.size/pageSize }

// pushLocked enters a slot with n bytes.
// +checklocks:p.mu
func (p *Pipe) pushLocked(n int, packet bool) {
	if p.used == len(p.slots) {
		s := make([]slot, max(4, 2*len(p.slots)))
		for i := range p.used {
			s[i] = *p.slotLocked(i)
		}
		p.slots, p.first = s, 0
	}
	p.used++
	*p.slotLocked(p.used - 1) = slot{n: uint16(n), packet: packet}
}

// newPipe returns a pipe with so many ends of each kind open.
func newPipe(ends int) *Pipe {
	p := &Pipe{size: defaultSize, readers: ends, writers: ends}
	if total.Add(defaultSize) > softTotal {
		p.size = 2 * pageSize
		total.Add(2*pageSize - defaultSize)
	}
	return p
}

// New returns the ends of a new pipe (pipe2(2)). flags are O_NONBLOCK and O_DIRECT.
func New(ctx vfs.Context, flags uint32) (r, w *vfs.FileDescription) {
	p := newPipe(1)
	p.files, p.anon = 2, true
	path := vfs.PseudoPath(ctx, unix.S_IFIFO|0o600, "")
	// /proc/PID/fd opens the pipe again.
	i := path.Inode()
	vfs.Special(i, func(any) any { return p })
	r = vfs.NewFile(ctx.Credentials(), &end{Waitable: vfs.Waitable{Waiters: &p.queue}, p: p, read: true, fifo: i, gen: -1}, path.IncRef(), unix.O_RDONLY|flags&unix.O_NONBLOCK)
	w = vfs.NewFile(ctx.Credentials(), &end{Waitable: vfs.Waitable{Waiters: &p.queue}, p: p, write: true, fifo: i, gen: -1}, path, unix.O_WRONLY|flags)
	return r, w
}

// end is an open end of a pipe; a FIFO opened O_RDWR is both.
type end struct {
	vfs.Waitable
	p           *Pipe
	read, write bool
	fifo        vfs.Inode
	// gen is the writer generation at a non-blocking open for reading: no HUP before there was a writer.
	gen int
}

// AsyncEvents implements vfs.Asyncer.
func (e *end) AsyncEvents(vfs.Context, *vfs.FileDescription) (m waiter.EventMask) {
	if e.read {
		m |= vfs.AsyncIn
	}
	if e.write {
		m |= vfs.AsyncOut
	}
	return m
}

// Release implements vfs.FileImpl.
func (e *end) Release(vfs.Context, *vfs.FileDescription) {
	e.p.leave(e.read, e.write)
	vfs.Special(e.fifo, func(v any) any {
		if e.p.files--; e.p.files > 0 {
			return v
		}
		e.p.free()
		return nil
	})
}

// leave closes ends.
func (p *Pipe) leave(read, write bool) {
	p.mu.Lock()
	if read {
		p.readers--
	}
	if write {
		p.writers--
	}
	m := waiter.EventIn | waiter.EventRdNorm | waiter.EventOut | waiter.EventWrNorm | waiter.EventHUp | waiter.EventErr
	if (p.readers == 0) != (p.writers == 0) {
		m |= vfs.AsyncIn | vfs.AsyncOut
	}
	p.mu.Unlock()
	p.queue.Notify(m)
}

// free gives the buffer up when no end is left.
func (p *Pipe) free() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.readers == 0 && p.writers == 0 && p.size > 0 {
		total.Add(-int64(p.size))
		p.buf, p.n, p.size, p.slots, p.used = nil, 0, 0, nil, 0
	}
}

// Read implements vfs.FileImpl.
func (e *end) Read(_ vfs.Context, _ *vfs.FileDescription, dst usermem.IOSequence, _ int64, flags vfs.IOFlags) (int64, error) {
	want := int(dst.NumBytes())
	if want == 0 {
		return 0, nil
	}
	p := e.p
	p.mu.Lock()
	if p.n == 0 {
		writers := p.writers
		p.mu.Unlock()
		if writers == 0 || flags&vfs.IONonblock != 0 {
			p.queue.Notify(vfs.AsyncOut)
		}
		if writers == 0 {
			return 0, nil
		}
		return 0, unix.EWOULDBLOCK
	}
	take, drop := p.readableLocked(want)
	a, b := p.usedLocked(take)
	done, err := dst.CopyOut(a)
	if err == nil && len(b) > 0 {
		var m int
		m, err = dst.DropFirst(int64(len(a))).CopyOut(b)
		done += m
	}
	if err != nil && done < take {
		// What a slot holds moves as one: the one that meets bad memory stays.
		whole := 0
		for i := 0; i < p.used && whole+int(p.slotLocked(i).n) <= done; i++ {
			whole += int(p.slotLocked(i).n)
		}
		done, drop = whole, whole
	}
	room := p.consumeLocked(drop)
	p.mu.Unlock()
	p.took(room)
	if done > 0 {
		err = nil
	}
	return int64(done), err
}

// took tells writers that something was read; room says that there is room again.
func (p *Pipe) took(room bool) {
	m := vfs.AsyncOut
	if room {
		m |= waiter.EventOut | waiter.EventWrNorm
	}
	p.queue.Notify(m)
}

// readableLocked returns how much of want one read gets, and how much leaves the pipe with it: a packet goes whole.
// +checklocks:p.mu
func (p *Pipe) readableLocked(want int) (take, drop int) {
	for i := 0; i < p.used && take < want; i++ {
		s := p.slotLocked(i)
		n := min(int(s.n), want-take)
		take += n
		if s.packet { // the read ends in it
			return take, drop + int(s.n)
		}
		drop += n
	}
	return take, drop
}

// usedLocked returns the first n bytes.
// +checklocks:p.mu
func (p *Pipe) usedLocked(n int) (a, b []byte) {
	if first := len(p.buf) - p.head; n > first {
		return p.buf[p.head:], p.buf[:n-first]
	}
	return p.buf[p.head : p.head+n], nil
}

// consumeLocked drops n bytes from the front, and reports whether writers should hear of it.
// +checklocks:p.mu
func (p *Pipe) consumeLocked(n int) (room bool) {
	full := p.fullLocked()
	p.n -= n
	if len(p.buf) > 0 {
		p.head = (p.head + n) & (len(p.buf) - 1)
	}
	if p.n == 0 {
		p.head = 0
	}
	for n > 0 && p.used > 0 {
		s := p.slotLocked(0)
		if int(s.n) > n {
			s.off += uint16(n)
			s.n -= uint16(n)
			break
		}
		n -= int(s.n)
		p.first = (p.first + 1) & (len(p.slots) - 1)
		p.used--
	}
	return full && !p.fullLocked()
}

// Write implements vfs.FileImpl.
func (e *end) Write(_ vfs.Context, fd *vfs.FileDescription, src usermem.IOSequence, _ int64, _ vfs.IOFlags) (int64, int64, error) {
	p := e.p
	packet := fd.Flags()&unix.O_DIRECT != 0
	left := int(src.NumBytes())
	if left == 0 {
		return 0, 0, nil
	}
	p.mu.Lock()
	var done int
	err := error(unix.EPIPE)
	if p.readers > 0 {
		done, err = p.appendLocked(src, left, packet)
	}
	p.mu.Unlock()
	p.queue.Notify(waiter.EventIn | waiter.EventRdNorm | vfs.AsyncIn) // also of nothing
	return int64(done), 0, err
}

// appendLocked writes as much of src, of which left bytes are wanted, as the slots take: EWOULDBLOCK if that is not all. As in pipe_write, what is
// over whole pages goes behind the last slot's data if it fits there.
// +checklocks:p.mu
func (p *Pipe) appendLocked(src usermem.IOSequence, left int, packet bool) (int, error) {
	tail := left & (pageSize - 1)
	merge := false
	if tail > 0 && p.used > 0 {
		s := p.slotLocked(p.used - 1)
		merge = !s.packet && int(s.off)+int(s.n)+tail <= pageSize
	}
	n := (p.size/pageSize - p.used) * pageSize
	if merge {
		n += tail
	}
	n = min(n, left)
	if n <= 0 {
		return 0, unix.EWOULDBLOCK
	}
	done, err := p.fillLocked(src, n)
	rest := done
	if merge {
		if done < tail {
			p.n -= done
			return 0, err
		}
		p.slotLocked(p.used - 1).n += uint16(tail)
		rest -= tail
	}
	if err != nil {
		// A page that meets bad memory is not written.
		torn := rest & (pageSize - 1)
		p.n -= torn
		done -= torn
		rest -= torn
	}
	for ; rest > 0; rest -= min(rest, pageSize) {
		p.pushLocked(min(rest, pageSize), packet)
	}
	if err == nil && done < left {
		err = unix.EWOULDBLOCK
	}
	return done, err
}

// fillLocked appends n bytes of src, for which there is room.
// +checklocks:p.mu
func (p *Pipe) fillLocked(src usermem.IOSequence, n int) (int, error) {
	p.growLocked(p.n + n)
	done := 0
	for done < n {
		at := (p.head + p.n) & (len(p.buf) - 1)
		b := p.buf[at:min(len(p.buf), at+n-done)]
		m, err := src.CopyIn(b)
		done += m
		p.n += m
		if err != nil {
			return done, err
		}
		if done < n {
			src = src.DropFirst(int64(m))
		}
	}
	return done, nil
}

// growLocked makes the ring hold n bytes.
// +checklocks:p.mu
func (p *Pipe) growLocked(n int) {
	if n <= len(p.buf) {
		return
	}
	b := make([]byte, 1<<bits.Len(uint(max(n, 1024)-1)))
	x, y := p.usedLocked(p.n)
	copy(b[copy(b, x):], y)
	p.buf, p.head = b, 0
}

// Peek implements vfs.Peeker.
func (e *end) Peek(b []byte) (int, error) {
	p := e.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.n == 0 {
		if p.writers == 0 {
			return 0, nil
		}
		return 0, unix.EWOULDBLOCK
	}
	take, _ := p.readableLocked(len(b))
	x, y := p.usedLocked(take)
	copy(b[copy(b, x):], y)
	return take, nil
}

// Discard implements vfs.Peeker.
func (e *end) Discard(n int) {
	e.p.mu.Lock()
	room := e.p.consumeLocked(min(n, e.p.n))
	e.p.mu.Unlock()
	e.p.took(room)
}

// PipeSize implements vfs.PipeSizer.
func (e *end) PipeSize() int64 {
	e.p.mu.Lock()
	defer e.p.mu.Unlock()
	return int64(e.p.size)
}

// SetPipeSize implements vfs.PipeSizer.
func (e *end) SetPipeSize(ctx vfs.Context, size int64) (int64, error) {
	if size > 1<<31 {
		return 0, unix.EINVAL
	}
	n := 1 << bits.Len64(uint64(max(size, pageSize)-1))
	if n > hardMax || n > maxSize && !ctx.Credentials().HasCap(linux.CAP_SYS_RESOURCE) {
		return 0, unix.EPERM
	}
	p := e.p
	p.mu.Lock()
	if n/pageSize < p.used {
		p.mu.Unlock()
		return 0, unix.EBUSY
	}
	if n > p.size && total.Load()+int64(n-p.size) > softTotal && !ctx.Credentials().HasCap(linux.CAP_SYS_RESOURCE) {
		p.mu.Unlock()
		return 0, unix.EPERM
	}
	total.Add(int64(n - p.size))
	p.size = n
	p.mu.Unlock()
	p.queue.Notify(waiter.EventOut | waiter.EventWrNorm)
	return int64(n), nil
}

// Ioctl implements vfs.FileImpl.
func (e *end) Ioctl(_ vfs.Context, _ *vfs.FileDescription, io usermem.IO, req uint32, arg uintptr) (uintptr, error) {
	if req != linux.FIONREAD {
		return 0, unix.ENOTTY
	}
	e.p.mu.Lock()
	n := e.p.n
	e.p.mu.Unlock()
	return 0, usermem.PutUint32(io, arg, uint32(n))
}

// Readiness implements vfs.FileImpl.
func (e *end) Readiness(mask waiter.EventMask) waiter.EventMask {
	p := e.p
	p.mu.Lock()
	defer p.mu.Unlock()
	var ev waiter.EventMask
	if e.read {
		if p.n > 0 {
			ev |= waiter.ReadableEvents
		}
		if p.writers == 0 && e.gen != p.writerGen {
			ev |= waiter.EventHUp
		}
	}
	if e.write {
		if !p.fullLocked() {
			ev |= waiter.WritableEvents
		}
		if p.readers == 0 {
			ev |= waiter.EventErr
		}
	}
	return ev & (mask | waiter.EventHUp | waiter.EventErr)
}
