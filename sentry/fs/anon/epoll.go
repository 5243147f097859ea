package anon

import (
	"sync"
	"sync/atomic"
	"time"

	"moat/sentry/usermem"
	"moat/sentry/vfs"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Epoll is epoll(7). Files put their items on the ready list, and whoever waits looks only at those.
type Epoll struct {
	file
	// queue is for those who poll the epoll file itself.
	nest nesting

	mu sync.Mutex
	// +checklocks:mu
	items map[epollKey]*epollItem
	// event is one on its way out.
	// +checklocks:mu
	event [12]byte

	readyMu sync.Mutex
	// ready is the sentinel of the ring of items that may be ready.
	// +checklocks:readyMu
	ready epollItem
	// sleepers is the sentinel of the ring of waits; each new item wakes one.
	// +checklocks:readyMu
	sleepers sleeper
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
	// events are EPOLL*, without any to wait for after EPOLLONESHOT fired. They change under Epoll.mu only.
	events atomic.Uint32
	data   [2]int32 // guarded by Epoll.mu
	// next and prev are nil if the item is not on the ready list; guarded by Epoll.readyMu.
	next, prev *epollItem
}

// sleeper is one wait. next and prev are nil once it has been woken.
type sleeper struct {
	ch         chan struct{}
	next, prev *sleeper
}

var sleepers = sync.Pool{New: func() any { return &sleeper{ch: make(chan struct{}, 1)} }}

const (
	epollExclusive = 1 << 28
	epollWakeup    = 1 << 29
	epollET        = unix.EPOLLET & 0xffffffff
	// epollFlags are no events (EP_PRIVATE_BITS).
	epollFlags  = epollET | unix.EPOLLONESHOT | epollExclusive | epollWakeup
	epollAlways = unix.EPOLLERR | unix.EPOLLHUP
	// maxEpollItems bounds the memory of all epolls (/proc/sys/fs/epoll/max_user_watches).
	maxEpollItems = 1 << 20
)

var epollItems atomic.Int64

// NewEpoll returns an open epoll instance.
func NewEpoll(ctx vfs.Context) *vfs.FileDescription {
	return vfs.NewAnonFile(ctx, "[eventpoll]", newEpoll(), unix.O_RDWR)
}

func newEpoll() *Epoll {
	e := &Epoll{file: newFile(), items: make(map[epollKey]*epollItem)}
	e.ready.next, e.ready.prev = &e.ready, &e.ready
	e.sleepers.next, e.sleepers.prev = &e.sleepers, &e.sleepers
	return e
}

// NotifyEvent implements waiter.EventListener: a file says that something happened.
func (i *epollItem) NotifyEvent(waiter.EventMask) {
	if i.mask() != 0 {
		i.ep.enqueue(i)
	}
}

// enqueue puts i on the ready list and wakes one who waits. Whoever watches e hears of each event, since it may be an edge to it.
func (e *Epoll) enqueue(i *epollItem) {
	e.readyMu.Lock()
	e.linkLocked(i, &e.ready)
	e.wakeLocked()
	e.readyMu.Unlock()
	e.Waiters.Notify(waiter.ReadableEvents)
}

// linkLocked puts i on the ready list before next, unless it is there already.
// +checklocks:e.readyMu
func (e *Epoll) linkLocked(i, next *epollItem) {
	if i.next == nil {
		i.prev, i.next = next.prev, next
		i.prev.next, next.prev = i, i
	}
}

// +checklocks:e.readyMu
func (e *Epoll) unlinkLocked(i *epollItem) {
	if i.next != nil {
		i.prev.next, i.next.prev = i.next, i.prev
		i.next, i.prev = nil, nil
	}
}

// wakeLocked wakes the first sleeper.
// +checklocks:e.readyMu
func (e *Epoll) wakeLocked() {
	if s := e.sleepers.next; s != &e.sleepers {
		s.unlink()
		s.ch <- struct{}{}
	}
}

func (s *sleeper) unlink() {
	s.prev.next, s.next.prev = s.next, s.prev
	s.next, s.prev = nil, nil
}

// mask is what the item's file is asked for; 0 if the item has fired.
func (i *epollItem) mask() waiter.EventMask {
	return waiter.EventMask(i.events.Load()) & waiter.AllEvents
}

// Control is epoll_ctl(2) on file, which the caller has open as fd. self is e's own open file.
func (e *Epoll) Control(op int32, self, file *vfs.FileDescription, fd int32, ev linux.EpollEvent) error {
	if !vfs.CanPoll(file) {
		return unix.EPERM
	}
	if file == self {
		return unix.EINVAL
	}
	inner, nested := file.Impl().(*Epoll)
	if ev.Events&epollExclusive != 0 {
		const ok = unix.EPOLLIN | unix.EPOLLOUT | epollAlways | epollWakeup | epollET | epollExclusive
		if op == unix.EPOLL_CTL_MOD || op == unix.EPOLL_CTL_ADD && (nested || ev.Events&^uint32(ok) != 0) {
			return unix.EINVAL
		}
	}
	key := epollKey{fd, file}
	switch op {
	case unix.EPOLL_CTL_ADD:
		if nested {
			if err := link(e, inner); err != nil {
				return err
			}
		}
		err := e.add(key, ev)
		if nested && err != nil {
			unlink(e, inner)
		}
		return err
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

func (e *Epoll) add(key epollKey, ev linux.EpollEvent) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.items[key] != nil {
		return unix.EEXIST
	}
	if epollItems.Add(1) > maxEpollItems {
		epollItems.Add(-1)
		return unix.ENOSPC
	}
	i := &epollItem{key: key, ep: e, data: ev.Data}
	i.events.Store(ev.Events | epollAlways)
	i.entry.Init(i, i.mask())
	if err := key.file.EventRegister(&i.entry); err != nil {
		epollItems.Add(-1)
		return err
	}
	e.items[key] = i
	key.file.AddReleaseHook(i, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.items[i.key] == i {
			e.dropLocked(i)
		}
	})
	e.pollLocked(i)
	return nil
}

func (e *Epoll) modify(key epollKey, ev linux.EpollEvent) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	i := e.items[key]
	if i == nil {
		return unix.ENOENT
	}
	if i.events.Load()&epollExclusive != 0 {
		return unix.EINVAL
	}
	// The mask of a queued entry cannot change.
	key.file.EventUnregister(&i.entry)
	i.data = ev.Data
	i.events.Store(ev.Events | epollAlways)
	i.entry.Init(i, i.mask())
	if err := key.file.EventRegister(&i.entry); err != nil {
		return err
	}
	e.pollLocked(i)
	return nil
}

// pollLocked queues i if it is ready already.
// +checklocks:e.mu
func (e *Epoll) pollLocked(i *epollItem) {
	if m := i.mask(); i.key.file.Readiness(m)&m != 0 {
		e.enqueue(i)
	}
}

// dropLocked stops watching i.
// +checklocks:e.mu
func (e *Epoll) dropLocked(i *epollItem) {
	delete(e.items, i.key)
	i.key.file.EventUnregister(&i.entry)
	e.readyMu.Lock()
	e.unlinkLocked(i)
	e.readyMu.Unlock()
	epollItems.Add(-1)
	if inner, ok := i.key.file.Impl().(*Epoll); ok {
		unlink(e, inner)
	}
}

// Release implements vfs.FileImpl.
func (e *Epoll) Release(vfs.Context, *vfs.FileDescription) {
	e.mu.Lock()
	items := make([]*epollItem, 0, len(e.items))
	for _, i := range e.items {
		items = append(items, i)
		e.dropLocked(i)
	}
	e.mu.Unlock()
	for _, i := range items {
		i.key.file.RemoveReleaseHook(i)
	}
}

// collect copies up to n events that are there now to addr, and returns how many. Level-triggered items stay on the list, behind all others; one that cannot
// be copied stays at its head (ep_send_events): EFAULT if that is the first.
func (e *Epoll) collect(io usermem.IO, addr hostarch.Addr, n int) (done int, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var again *epollItem // the first item that was put back: the round is over
	for n = min(n, len(e.items)); done < n; {
		e.readyMu.Lock()
		i := e.ready.next
		if i == &e.ready || i == again {
			e.readyMu.Unlock()
			break
		}
		e.unlinkLocked(i) // before it is asked: what happens from now on puts it back
		e.readyMu.Unlock()
		m := i.mask()
		got := i.key.file.Readiness(m) & m
		if got == 0 {
			continue
		}
		ev := linux.EpollEvent{Events: got.ToLinux(), Data: i.data}
		ev.MarshalBytes(e.event[:])
		if _, err := io.CopyOut(addr, e.event[:]); err != nil {
			e.readyMu.Lock()
			e.linkLocked(i, e.ready.next)
			e.readyMu.Unlock()
			if done > 0 {
				err = nil
			}
			return done, err
		}
		addr += hostarch.Addr(len(e.event))
		done++
		switch events := i.events.Load(); {
		case events&unix.EPOLLONESHOT != 0:
			i.events.Store(events & epollFlags)
		case events&epollET == 0:
			if again == nil {
				again = i
			}
			e.readyMu.Lock()
			e.linkLocked(i, &e.ready)
			e.readyMu.Unlock()
		}
	}
	return done, nil
}

// anyReady reports whether collect would find something, without taking edges.
func (e *Epoll) anyReady() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		e.readyMu.Lock()
		i := e.ready.next
		if i == &e.ready {
			e.readyMu.Unlock()
			return false
		}
		e.unlinkLocked(i)
		e.readyMu.Unlock()
		if m := i.mask(); i.key.file.Readiness(m)&m != 0 {
			e.readyMu.Lock()
			e.linkLocked(i, &e.ready)
			e.wakeLocked() // who looked meanwhile missed it
			e.readyMu.Unlock()
			return true
		}
	}
}

// Wait is epoll_wait(2): up to n events, copied to addr, waiting until deadline (zero: for ever; block false: not at all). An interruption gives
// linuxerr.ERESTARTSYS, a timeout no events.
func (e *Epoll) Wait(ctx vfs.Context, io usermem.IO, addr hostarch.Addr, n int, block bool, deadline time.Time) (done int, err error) {
	for {
		if done, err = e.collect(io, addr, n); done > 0 || err != nil || !block {
			e.passOn()
			return done, err
		}
		s := sleepers.Get().(*sleeper)
		if !e.sleep(s) {
			sleepers.Put(s)
			continue
		}
		err = ctx.BlockUntil(s.ch, deadline)
		woken := e.wakeUp(s)
		sleepers.Put(s)
		if err == nil {
			continue
		}
		if woken { // just as its time ended
			if n, fault := e.collect(io, addr, n); n > 0 || fault != nil {
				done, err = n, fault
			}
			e.passOn()
		}
		if err == unix.ETIMEDOUT {
			err = nil
		}
		return done, err
	}
}

// sleep queues s, unless something has become ready.
func (e *Epoll) sleep(s *sleeper) bool {
	e.readyMu.Lock()
	defer e.readyMu.Unlock()
	if e.ready.next != &e.ready {
		return false
	}
	last := e.sleepers.prev
	s.prev, s.next = last, &e.sleepers
	last.next, e.sleepers.prev = s, s
	return true
}

// wakeUp ends s' sleep and reports whether an item woke it.
func (e *Epoll) wakeUp(s *sleeper) (woken bool) {
	e.readyMu.Lock()
	defer e.readyMu.Unlock()
	if s.next != nil {
		s.unlink()
		return false
	}
	select {
	case <-s.ch:
	default: // BlockUntil took it
	}
	return true
}

// passOn wakes the next sleeper if there is more than this one has taken (ep_done_scan).
func (e *Epoll) passOn() {
	e.readyMu.Lock()
	if e.ready.next != &e.ready {
		e.wakeLocked()
	}
	e.readyMu.Unlock()
}

// Readiness implements vfs.FileImpl.
func (e *Epoll) Readiness(mask waiter.EventMask) waiter.EventMask {
	if mask&waiter.ReadableEvents == 0 || !e.anyReady() {
		return 0
	}
	return mask & waiter.ReadableEvents
}
