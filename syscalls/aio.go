package syscalls

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"moat/sentry/fs/anon"
	"moat/sentry/kernel"
	"moat/sentry/linuxerr"
	"moat/sentry/memmap"
	"moat/sentry/memory"
	"moat/sentry/mm"
	"moat/sentry/usermem"
	"moat/sentry/vfs"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Linux AIO (fs/aio.c). As there, reads and writes are done by io_submit(2) itself, which may wait for them; only polls complete later.

func init() {
	register(
		full(206, "io_setup", "uint ptr", sysIOSetup),
		full(207, "io_destroy", "ptr", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return withAIO(t, a[0], func(s *aioTable, c *aioRing) (uintptr, error) {
				if !s.CompareAndDelete(c.mem, c) {
					return 0, unix.EINVAL
				}
				c.end()
				return 0, t.MemoryManager().MUnmap(a[0].Pointer(), c.size)
			})
		}),
		full(208, "io_getevents", "ptr int int ptr timespec", ioGetevents),
		full(209, "io_submit", "ptr int ptr", sysIOSubmit),
		full(210, "io_cancel", "ptr ptr ptr", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			if key, err := t.CopyInUint32(a[1].Pointer() + 8); err != nil || key != 0 {
				return 0, cmp.Or(err, error(unix.EINVAL))
			}
			return withAIO(t, a[0], func(_ *aioTable, c *aioRing) (uintptr, error) {
				c.mu.Lock()
				i := slices.IndexFunc(c.busy, func(r *aioRequest) bool { return r.file != nil && r.object == a[1].Uint64() })
				r := &aioRequest{c: c}
				if i >= 0 {
					r = c.busy[i]
				}
				c.mu.Unlock()
				if !r.finish(0, nil) {
					return 0, unix.EINVAL
				}
				return 0, unix.EINPROGRESS // the ring tells
			})
		}),
		full(333, "io_pgetevents", "ptr int int ptr timespec ptr", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			var mask [2]uint64
			var err error
			for i := 0; i < 2 && a[5] != 0 && err == nil; i++ {
				mask[i], err = t.CopyInUint64(a[5].Pointer() + hostarch.Addr(8*i))
			}
			if err != nil {
				return 0, err
			}
			return withMask(t, kernel.Arg(mask[0]), mask[1], func() (uintptr, error) {
				n, err := ioGetevents(t, a)
				if err == unix.EINTR {
					err = linuxerr.ERESTARTSYS
				}
				return n, err
			})
		}),
	)
}

const aioHeader, aioEvent = 32, 32 // sizes of struct aio_ring without its events, and of struct io_event

// aioTable has the contexts of an address space, by what is mapped where their rings are, which mremap(2) may move. It is an mm.Releaser.
type aioTable struct{ sync.Map }

// aioRing is a context: completions in memory that its process maps, too, and its C library reads by itself.
type aioRing struct {
	k        *kernel.Kernel
	size     uint64
	mem      *memory.Shared
	pages    []uint64 // where they are in the memory file
	room     uint32   // for events
	requests uint64
	waiters  waiter.Queue

	// mu is held to touch the memory, which is there until dead.
	mu   sync.Mutex
	last uint32        // the tail, which the process cannot change. +checklocks:mu
	busy []*aioRequest // that are not complete. +checklocks:mu
	dead bool          // +checklocks:mu
}

// aioRequest is one of io_submit(2): of the struct iocb at object, with an eventfd(2) to be told, or nil. A poll waits for events of file.
type aioRequest struct {
	c            *aioRing
	object, data uint64
	told, file   *vfs.FileDescription
	events       waiter.EventMask
	entry        waiter.Entry
	looking      atomic.Bool // a goroutine is about to look at what the file has
}

func sysIOSetup(t *kernel.Task, a kernel.Args) (uintptr, error) {
	v, err := t.CopyInUint64(a[1].Pointer())
	n, k, m := uint64(a[0].Uint()), t.Kernel(), t.MemoryManager()
	events := max(n, uint64(k.NumCPUs())*4) * 2
	switch {
	case err != nil:
		return 0, err
	case v != 0 || n == 0 || events > 0x10000000/aioEvent:
		return 0, unix.EINVAL
	case k.AIO.Add(n) > k.AIOMax.Load():
		k.AIO.Add(-n)
		return 0, unix.EAGAIN
	}
	c := &aioRing{k: k, requests: n, mem: memory.NewShared(k.Memory().AccountOf(t), aioHeader+(events+2)*aioEvent, "/[aio] (deleted)", 1, 0)}
	c.size = c.mem.Size()
	c.room = uint32((c.size - aioHeader) / aioEvent)
	var addr hostarch.Addr
	if c.pages, err = c.mem.Pages(); err == nil {
		for i, v := range []uint32{0, c.room, 0, 0, 0xa10a10a1, 1, 0, aioHeader} {
			c.word(uint64(4 * i)).Store(v)
		}
		addr, err = m.MMap(t.MMCaller(), memmap.MMapOpts{Length: c.size, NoExpand: true, Perms: hostarch.ReadWrite, MaxPerms: hostarch.AnyAccess, Mappable: c.mem, Identity: c.mem})
	}
	if err == nil {
		if err = t.CopyOutUint64(a[1].Pointer(), uint64(addr)); err != nil {
			_ = m.MUnmap(addr, c.size)
		}
	}
	if err != nil {
		c.end()
		return 0, err
	}
	m.Attached(func() mm.Releaser { return &aioTable{} }).(*aioTable).Store(c.mem, c)
	return 0, nil
}

// Release implements mm.Releaser.
func (s *aioTable) Release() {
	s.Range(func(_, c any) bool { c.(*aioRing).end(); return true })
}

// end cancels what waits and gives up the memory.
func (c *aioRing) end() {
	c.mu.Lock()
	busy := slices.Clone(c.busy)
	c.dead = true
	c.mu.Unlock()
	c.mem.DecRef()
	c.k.AIO.Add(-c.requests)
	for _, r := range busy {
		r.finish(0, nil)
	}
	c.waiters.Notify(waiter.ReadableEvents)
}

// word is the aligned word of the ring at off, bytes the memory of the i-th event.
func (c *aioRing) word(off uint64) *atomic.Uint32 { return c.k.Memory().Word(c.pages[0] + off) }
func (c *aioRing) bytes(i uint32) []byte {
	at := aioHeader + uint64(i)*aioEvent
	return c.k.Memory().Bytes(c.pages[at/memory.PageSize]+at%memory.PageSize, aioEvent)
}

const aioHead, aioTail = 8, 12

// withAIO runs fn on the context whose ring is mapped at addr: EINVAL.
func withAIO(t *kernel.Task, addr kernel.Arg, fn func(*aioTable, *aioRing) (uintptr, error)) (uintptr, error) {
	at, err := t.MemoryManager().FutexKey(addr.Pointer(), false)
	if s, ok := t.MemoryManager().Attached(nil).(*aioTable); ok && err == nil && at.Offset == 0 {
		if c, ok := s.Load(at.Object); ok {
			return fn(s, c.(*aioRing))
		}
	}
	return 0, unix.EINVAL
}

// finish ends r, completing it with n or an error, or if n is negative without a trace. It reports whether r was busy.
func (r *aioRequest) finish(n int64, err error) bool {
	c := r.c
	c.mu.Lock()
	i := slices.Index(c.busy, r)
	if i >= 0 {
		c.busy = slices.Delete(c.busy, i, i+1)
	}
	if e, ok := err.(unix.Errno); ok {
		n = -int64(e)
	}
	if i >= 0 && (n >= 0 || err != nil) && !c.dead {
		for i, v := range []uint64{r.data, r.object, uint64(n), 0} {
			hostarch.ByteOrder.PutUint64(c.bytes(c.last)[8*i:], v)
		}
		c.last = (c.last + 1) % c.room
		c.word(aioTail).Store(c.last)
	}
	c.mu.Unlock()
	if i < 0 {
		return false
	}
	if r.file != nil {
		r.file.EventUnregister(&r.entry)
		r.file.DecRef()
	}
	if r.told != nil {
		if n >= 0 || err != nil {
			_ = r.told.Impl().(*anon.EventFD).Add(1) // a counter that is full stays so
		}
		r.told.DecRef()
	}
	c.waiters.Notify(waiter.ReadableEvents)
	return true
}

// look completes a poll whose file has something.
func (r *aioRequest) look(f *vfs.FileDescription) {
	r.looking.Store(false)
	if f.TryIncRef() {
		if got := f.Readiness(r.events) & r.events; got != 0 {
			r.finish(int64(got.ToLinux()), nil)
		}
		f.DecRef()
	}
}

// take copies up to n events to addr and frees their places.
func (c *aioRing) take(t *kernel.Task, addr hostarch.Addr, n int64) (got int64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return 0, unix.EINVAL
	}
	head := c.word(aioHead).Load() % c.room
	for ; got < n && head != c.last; got++ {
		if _, err := t.CopyOut(addr+hostarch.Addr(got*aioEvent), c.bytes(head)); err != nil {
			return 0, err
		}
		head = (head + 1) % c.room
	}
	c.word(aioHead).Store(head)
	return got, nil
}

func ioGetevents(t *kernel.Task, a kernel.Args) (uintptr, error) {
	over, deadline := false, time.Time{}
	if a[4] != 0 {
		var ts linux.Timespec
		if _, err := ts.CopyIn(t, a[4].Pointer()); err != nil {
			return 0, err
		}
		if d := ts.ToDuration(); d >= 0 { // else it is for ever
			over, deadline = d == 0, time.Now().Add(d)
		}
	}
	return withAIO(t, a[0], func(_ *aioTable, c *aioRing) (uintptr, error) {
		least, n := a[1].Int64(), a[2].Int64()
		if least < 0 || least > n {
			return 0, unix.EINVAL
		}
		e, ch := waiter.NewChannelEntry(waiter.ReadableEvents)
		c.waiters.EventRegister(&e)
		defer c.waiters.EventUnregister(&e)
		for got := int64(0); ; {
			m, err := c.take(t, a[3].Pointer()+hostarch.Addr(got*aioEvent), n-got)
			if got += m; err != nil || got >= least || over {
				return result(got, err)
			}
			err = t.BlockUntil(ch, deadline)
			if over = err != nil; linuxerr.IsRestart(err) && got == 0 {
				return 0, unix.EINTR
			}
		}
	})
}

func sysIOSubmit(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return withAIO(t, a[0], func(_ *aioTable, c *aioRing) (uintptr, error) {
		n := min(a[1].Int64(), int64(c.room))
		if n < 0 {
			return 0, unix.EINVAL
		}
		for i := range n {
			p, err := t.CopyInUint64(a[2].Pointer() + hostarch.Addr(8*i))
			if err == nil {
				err = c.submit(t, hostarch.Addr(p))
			}
			if err != nil {
				return result(i, err)
			}
		}
		return uintptr(n), nil
	})
}

// iocb is struct iocb.
type iocb struct {
	Data         uint64
	Key, RWF     uint32
	Op           uint16
	Prio         int16
	FD           int32
	Buf, N       uint64
	Off          int64
	Reserved     uint64
	Flags, ResFD uint32
}

// submit does the request of the struct iocb at addr, or has it wait.
func (c *aioRing) submit(t *kernel.Task, addr hostarch.Addr) error {
	var b [64]byte
	var q iocb
	if _, err := t.CopyIn(addr, b[:]); err != nil {
		return err
	}
	_, _ = binary.Decode(b[:], binary.LittleEndian, &q)
	r := &aioRequest{c: c, object: uint64(addr), data: q.Data}
	c.mu.Lock()
	if q.Reserved != 0 || q.N > math.MaxInt64 || c.dead {
		c.mu.Unlock()
		return unix.EINVAL
	}
	ready := (c.last + c.room - c.word(aioHead).Load()%c.room) % c.room
	full := uint32(len(c.busy))+ready >= c.room-1
	if !full {
		c.busy = append(c.busy, r)
	}
	c.mu.Unlock()
	if full {
		return unix.EAGAIN
	}
	err := r.begin(t, &q)
	if err != nil {
		r.finish(-1, nil)
	}
	return err
}

// begin does r, which is q, or has it wait. An error is io_submit's.
func (r *aioRequest) begin(t *kernel.Task, q *iocb) error {
	f, err := t.GetFile(q.FD)
	if err != nil {
		return err
	}
	defer f.DecRef()
	if q.Flags&1 != 0 { // IOCB_FLAG_RESFD
		if r.told, err = t.GetFile(int32(q.ResFD)); err != nil {
			return err
		}
		if _, ok := r.told.Impl().(*anon.EventFD); !ok {
			return unix.EINVAL
		}
	}
	if err := t.CopyOutUint32(hostarch.Addr(r.object)+8, 0); err != nil { // KIOCB_KEY
		return err
	}
	plain := q.N|uint64(q.Off)|uint64(q.RWF) == 0
	switch {
	case q.Op <= 1, q.Op == 7, q.Op == 8: // IOCB_CMD_PREAD, PWRITE, PREADV, PWRITEV
		return r.transfer(t, f, q, q.Op == 1 || q.Op == 8)
	case (q.Op == 2 || q.Op == 3) && plain && q.Buf == 0: // IOCB_CMD_FSYNC, FDSYNC
		err := f.Fsync(t, q.Op == 3)
		if err != unix.EINVAL { // which is for want of fsync
			r.finish(0, err)
			return nil
		}
	case q.Op == 5 && plain && q.Buf <= math.MaxUint16: // IOCB_CMD_POLL
		return r.poll(f, waiter.EventMaskFromLinux(uint32(q.Buf)|unix.POLLERR|unix.POLLHUP))
	}
	return unix.EINVAL
}

// poll has r wait for events of f.
func (r *aioRequest) poll(f *vfs.FileDescription, events waiter.EventMask) error {
	r.events = events
	r.entry = waiter.NewFunctionEntry(events, func(waiter.EventMask) {
		if !r.looking.Swap(true) {
			go r.look(f) // the queue that calls is locked
		}
	})
	if err := f.EventRegister(&r.entry); err != nil {
		return err
	}
	r.c.mu.Lock()
	waits := slices.Contains(r.c.busy, r) // it may be over already
	if waits {
		f.IncRef()
		r.file = f
	}
	r.c.mu.Unlock()
	if !waits {
		f.EventUnregister(&r.entry)
		return nil
	}
	r.look(f)
	return nil
}

// transfer reads or writes.
func (r *aioRequest) transfer(t *kernel.Task, f *vfs.FileDescription, q *iocb, write bool) (err error) {
	var seq usermem.IOSequence
	var flags vfs.IOFlags
	if q.Flags&2 != 0 { // IOCB_FLAG_IOPRIO
		err = checkIOPrio(t, int32(q.Prio))
	}
	if err == nil {
		flags, err = rwFlags(f, write, q.RWF)
	}
	_, in := f.Impl().(*anon.Inotify)
	switch {
	case err != nil:
	case write && !f.Writable(), !write && !f.Readable():
		return unix.EBADF
	case in, f.Inode().Mode()&unix.S_IFMT == unix.S_IFDIR: // no read_iter
		return unix.EINVAL
	case q.Op > 1:
		seq, err = t.CopyInIovecs(hostarch.Addr(q.Buf), int(uint32(q.N)))
	default:
		seq, err = t.SingleIO(hostarch.Addr(q.Buf), int64(min(q.N, kernel.MaxRW)))
	}
	switch {
	case err != nil:
		return err
	case q.Off < 0, q.Off > math.MaxInt64-seq.NumBytes():
		return unix.EINVAL
	case !f.Seekable():
		q.Off = -1
	}
	n, err := move(t, f, seq, write, q.Off, flags, false)
	if linuxerr.IsRestart(err) {
		err = unix.EINTR
	}
	r.finish(int64(n), err)
	return nil
}
