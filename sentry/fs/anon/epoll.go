package anon

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/waiter"
	"moat/sentry/vfs"
)

// Epoll is epoll(7).
type Epoll struct {
	vfs.FileDefaults
	queue waiter.Queue

	mu sync.Mutex
	// +checklocks:mu
	items map[epollKey]*epollItem

	readyMu sync.Mutex
	// first and last are the list of items that may be ready.
	// +checklocks:readyMu
	first *epollItem
	// +checklocks:readyMu
	last *epollItem
}

type epollKey struct {
	fd   int32
	file *vfs.FileDescription
}

// epollItem is one file that is watched.
type epollItem struct {
	key   epollKey
	ep    *Epoll
	entry waiter.Entry
	// events are EPOLL*; 0 after EPOLLONESHOT fired. Guarded by Epoll.mu.
	events uint32
	data   uint64
	// next, prev and listed are guarded by Epoll.readyMu.
	next, prev *epollItem
	listed     bool
}

// EpollEvent is struct epoll_event.
type EpollEvent struct {
	Events uint32
	Data   uint64
}

const (
	epollExclusive = 1 << 28
	epollWakeup    = 1 << 29
	epollFlags     = unix.EPOLLET&0xffffffff | unix.EPOLLONESHOT | epollExclusive | epollWakeup
	epollAlways    = unix.EPOLLERR | unix.EPOLLHUP
)

// NewEpoll returns an open epoll instance.
func NewEpoll(ctx vfs.Context) *vfs.FileDescription {
	return vfs.NewAnonFile(ctx, "[eventpoll]", &Epoll{items: make(map[epollKey]*epollItem)}, unix.O_RDWR)
}

// NotifyEvent implements waiter.EventListener: a file says that something happened.
func (i *epollItem) NotifyEvent(waiter.EventMask) {
	if i.ep.enqueue(i) {
		i.ep.queue.Notify(waiter.ReadableEvents)
	}
}

// enqueue puts i at the end of the ready list; false if it was there.
func (e *Epoll) enqueue(i *epollItem) bool {
	e.readyMu.Lock()
	defer e.readyMu.Unlock()
	if i.listed {
		return false
	}
	i.listed, i.prev, i.next = true, e.last, nil
	if e.last != nil {
		e.last.next = i
	} else {
		e.first = i
	}
	e.last = i
	return true
}

// +checklocks:e.readyMu
func (e *Epoll) unlistLocked(i *epollItem) {
	if !i.listed {
		return
	}
	if i.prev != nil {
		i.prev.next = i.next
	} else {
		e.first = i.next
	}
	if i.next != nil {
		i.next.prev = i.prev
	} else {
		e.last = i.prev
	}
	i.listed, i.next, i.prev = false, nil, nil
}

func (e *Epoll) unlist(i *epollItem) {
	e.readyMu.Lock()
	e.unlistLocked(i)
	e.readyMu.Unlock()
}

// mask is what the item's file is asked for.
func mask(events uint32) waiter.EventMask {
	return waiter.EventMask(events&^uint32(epollFlags)|epollAlways) & (waiter.AllEvents)
}

// loopMu makes changes of which epoll watches which one at a time.
var loopMu sync.Mutex

// Control is epoll_ctl(2).
func (e *Epoll) Control(op int32, self, file *vfs.FileDescription, fd int32, ev EpollEvent) error {
	switch file.Inode().Mode() & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFDIR:
		return unix.EPERM
	}
	inner, nested := file.Impl().(*Epoll)
	if file == self {
		return unix.EINVAL
	}
	if ev.Events&epollExclusive != 0 {
		const ok = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLERR | unix.EPOLLHUP | epollWakeup | unix.EPOLLET&0xffffffff | epollExclusive
		if op == unix.EPOLL_CTL_MOD || op == unix.EPOLL_CTL_ADD && (nested || ev.Events&^uint32(ok) != 0) {
			return unix.EINVAL
		}
	}
	key := epollKey{fd, file}
	switch op {
	case unix.EPOLL_CTL_ADD:
		if nested {
			loopMu.Lock()
			defer loopMu.Unlock()
			if inner.reaches(e, 0) || inner.depth()+1 > 5 {
				return unix.ELOOP
			}
		}
		return e.add(key, ev)
	case unix.EPOLL_CTL_MOD:
		return e.modify(key, ev)
	case unix.EPOLL_CTL_DEL:
		e.mu.Lock()
		i := e.items[key]
		if i == nil {
			e.mu.Unlock()
			return unix.ENOENT
		}
		e.dropLocked(i)
		e.mu.Unlock()
		file.RemoveReleaseHook(i)
		return nil
	}
	return unix.EINVAL
}

// nested returns the epolls that e watches.
func (e *Epoll) nested() []*Epoll {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []*Epoll
	for k := range e.items {
		if n, ok := k.file.Impl().(*Epoll); ok {
			out = append(out, n)
		}
	}
	return out
}

// reaches reports whether e watches to, directly or through others. loopMu is held.
func (e *Epoll) reaches(to *Epoll, depth int) bool {
	if e == to || depth > 5 {
		return true
	}
	for _, n := range e.nested() {
		if n.reaches(to, depth+1) {
			return true
		}
	}
	return false
}

func (e *Epoll) depth() int {
	d := 0
	for _, n := range e.nested() {
		d = max(d, n.depth())
	}
	return d + 1
}

func (e *Epoll) add(key epollKey, ev EpollEvent) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.items[key] != nil {
		return unix.EEXIST
	}
	i := &epollItem{key: key, ep: e, events: ev.Events | epollAlways, data: ev.Data}
	i.entry.Init(i, mask(i.events))
	if err := key.file.EventRegister(&i.entry); err != nil {
		return err
	}
	e.items[key] = i
	key.file.AddReleaseHook(i, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.dropLocked(i)
	})
	e.pollLocked(i)
	return nil
}

func (e *Epoll) modify(key epollKey, ev EpollEvent) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	i := e.items[key]
	if i == nil {
		return unix.ENOENT
	}
	if i.events&epollExclusive != 0 {
		return unix.EINVAL
	}
	// The mask of a queued entry cannot change.
	key.file.EventUnregister(&i.entry)
	i.events, i.data = ev.Events|epollAlways, ev.Data
	i.entry.Init(i, mask(i.events))
	if err := key.file.EventRegister(&i.entry); err != nil {
		return err
	}
	e.pollLocked(i)
	return nil
}

// pollLocked queues i if it is ready already.
// +checklocks:e.mu
func (e *Epoll) pollLocked(i *epollItem) {
	m := mask(i.events)
	if i.key.file.Readiness(m)&m != 0 && e.enqueue(i) {
		e.queue.Notify(waiter.ReadableEvents)
	}
}

// dropLocked stops watching.
// +checklocks:e.mu
func (e *Epoll) dropLocked(i *epollItem) {
	if e.items[i.key] != i {
		return
	}
	delete(e.items, i.key)
	i.key.file.EventUnregister(&i.entry)
	e.unlist(i)
}

// Release implements vfs.FileImpl.
func (e *Epoll) Release(vfs.Context, *vfs.FileDescription) {
	e.mu.Lock()
	items := e.items
	e.items = nil
	for _, i := range items {
		i.key.file.EventUnregister(&i.entry)
		e.unlist(i)
	}
	e.mu.Unlock()
	for _, i := range items {
		i.key.file.RemoveReleaseHook(i)
	}
}

// Collect appends up to n events that are there now to out.
func (e *Epoll) Collect(out []EpollEvent, n int) []EpollEvent {
	e.mu.Lock()
	defer e.mu.Unlock()
	var again *epollItem // the first level-triggered item that was put back: the round is over
	for len(out) < n {
		e.readyMu.Lock()
		i := e.first
		if i == nil || i == again {
			e.readyMu.Unlock()
			break
		}
		e.unlistLocked(i)
		e.readyMu.Unlock()
		m := mask(i.events)
		if i.events&^uint32(epollFlags|epollAlways) == 0 && i.events&unix.EPOLLONESHOT != 0 {
			continue // fired before
		}
		got := i.key.file.Readiness(m) & m
		if got == 0 {
			continue
		}
		out = append(out, EpollEvent{got.ToLinux(), i.data})
		switch {
		case i.events&unix.EPOLLONESHOT != 0:
			i.events &= epollFlags
		case i.events&(unix.EPOLLET&0xffffffff) == 0:
			e.enqueue(i)
			if again == nil {
				again = i
			}
		}
	}
	return out
}

// ready reports whether Collect would find something, without taking edges.
func (e *Epoll) ready() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.readyMu.Lock()
	var list []*epollItem
	for i := e.first; i != nil; i = i.next {
		list = append(list, i)
	}
	e.readyMu.Unlock()
	for _, i := range list {
		m := mask(i.events)
		fired := i.events&^uint32(epollFlags|epollAlways) == 0 && i.events&unix.EPOLLONESHOT != 0
		if !fired && i.key.file.Readiness(m)&m != 0 {
			return true
		}
		e.unlist(i)
		// It may have become ready between the two.
		if !fired && i.key.file.Readiness(m)&m != 0 {
			e.enqueue(i)
			return true
		}
	}
	return false
}

// Wait is epoll_wait(2): up to n events, waiting until deadline (zero: for ever; block false: not at all). An interruption gives
// linuxerr.ERESTARTSYS, a timeout no events.
func (e *Epoll) Wait(ctx vfs.Context, out []EpollEvent, n int, block bool, deadline time.Time) ([]EpollEvent, error) {
	out = e.Collect(out, n)
	if len(out) > 0 || !block {
		return out, nil
	}
	w, ch := waiter.NewChannelEntry(waiter.ReadableEvents)
	e.queue.EventRegister(&w)
	defer e.queue.EventUnregister(&w)
	for {
		if out = e.Collect(out, n); len(out) > 0 {
			return out, nil
		}
		if err := ctx.BlockUntil(ch, deadline); err != nil {
			if err == unix.ETIMEDOUT {
				return e.Collect(out, n), nil
			}
			return out, err
		}
	}
}

// Readiness implements vfs.FileImpl.
func (e *Epoll) Readiness(mask waiter.EventMask) waiter.EventMask {
	if !e.ready() {
		return 0
	}
	return mask & waiter.ReadableEvents
}

// EventRegister implements vfs.FileImpl.
func (e *Epoll) EventRegister(w *waiter.Entry) error { e.queue.EventRegister(w); return nil }

// EventUnregister implements vfs.FileImpl.
func (e *Epoll) EventUnregister(w *waiter.Entry) { e.queue.EventUnregister(w) }
