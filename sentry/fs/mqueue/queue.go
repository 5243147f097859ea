package mqueue

import (
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/waiter"

	"moat/sentry/kernel"
	"moat/sentry/kernel/auth"
	"moat/sentry/vfs"
)

// Queue is a message queue.
type Queue struct {
	inode
	Attributes Attr
	// size is what the queue counts for, payer whom; guarded by FS.mu.
	size  int64
	payer auth.KUID

	waiters waiter.Queue

	mu        sync.Mutex
	msgs      []Message     // by falling priority, then by age. +checklocks:mu
	bytes     int           // of msgs. +checklocks:mu
	receivers int           // who wait for a message. +checklocks:mu
	notify    *notification // +checklocks:mu
}

// Message is one message.
type Message struct {
	Priority uint32
	Text     []byte
}

// notification is who asked to be told when a message comes to an empty queue (mq_notify(3)).
type notification struct {
	file  *File
	group *kernel.ThreadGroup
	pids  *kernel.PIDNamespace
	users *auth.UserNamespace
	event Event
}

// Event is how a process is told: by the signal Signo with Value, by a message on Socket, if there is one, or not at all.
type Event struct {
	Signo  int32
	Value  uint64
	Socket Receiver
	Cookie [CookieLen]byte
}

// Receiver is a netlink socket.
type Receiver interface {
	// Deliver queues a message of the kernel's, if there is room.
	Deliver([]byte)
}

// CookieLen is how long the message on a socket is (NOTIFY_COOKIE_LEN in ipc/mqueue.c). Its last byte says what happened.
const CookieLen = 32

const (
	wokenUp = 1 + iota
	removed
)

func (e *Event) deliver(what byte) {
	e.Cookie[CookieLen-1] = what
	e.Socket.Deliver(e.Cookie[:])
}

// tell says that t sent a message.
func (n *notification) tell(t *kernel.Task) {
	switch e := &n.event; {
	case e.Socket != nil:
		e.deliver(wokenUp)
	case e.Signo != 0:
		info := linux.SignalInfo{Signo: e.Signo, Code: linux.SI_MESGQ}
		info.SetSigval(e.Value)
		info.SetPID(t.ThreadGroup().ID().In(n.pids))
		info.SetUID(int32(n.users.UIDOrOverflow(t.Credentials().RUID)))
		n.group.SendSignal(&info)
	}
}

// Count is mq_curmsgs.
func (q *Queue) Count() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.msgs)
}

// wait calls try until it is no longer EWOULDBLOCK: at once if the file does not block. ETIMEDOUT when the deadline passes; zero: never.
func wait(t *kernel.Task, fd *vfs.FileDescription, mask waiter.EventMask, deadline time.Time, try func() error) error {
	err := try()
	if err != unix.EWOULDBLOCK || fd.Nonblocking() {
		return err
	}
	if err = fd.Wait(t, mask, deadline, try); err == unix.EWOULDBLOCK {
		err = unix.ETIMEDOUT
	}
	return err
}

// Send is mq_timedsend(2). fd is the file that f is open as.
func (f *File) Send(t *kernel.Task, fd *vfs.FileDescription, m Message, deadline time.Time) error {
	q := f.Queue
	return wait(t, fd, waiter.WritableEvents, deadline, func() error {
		q.mu.Lock()
		if int64(len(q.msgs)) >= q.Attributes.MaxMsg {
			q.mu.Unlock()
			return unix.EWOULDBLOCK
		}
		at, _ := slices.BinarySearchFunc(q.msgs, m.Priority, func(o Message, p uint32) int {
			if o.Priority >= p {
				return -1
			}
			return 1
		})
		q.msgs = slices.Insert(q.msgs, at, m)
		q.bytes += len(m.Text)
		n := q.notify
		if len(q.msgs) > 1 || q.receivers > 0 {
			n = nil
		} else {
			q.notify = nil
		}
		q.mu.Unlock()
		q.touch(0)
		q.waiters.Notify(waiter.ReadableEvents)
		if n != nil {
			n.tell(t)
		}
		return nil
	})
}

// Receive is mq_timedreceive(2).
func (f *File) Receive(t *kernel.Task, fd *vfs.FileDescription, deadline time.Time) (m Message, err error) {
	q, waits := f.Queue, false
	err = wait(t, fd, waiter.ReadableEvents, deadline, func() error {
		q.mu.Lock()
		defer q.mu.Unlock()
		if len(q.msgs) == 0 {
			if !waits && !fd.Nonblocking() {
				q.receivers++
				waits = true
			}
			return unix.EWOULDBLOCK
		}
		m = q.msgs[0]
		q.msgs = slices.Delete(q.msgs, 0, 1)
		q.bytes -= len(m.Text)
		return nil
	})
	if waits {
		q.mu.Lock()
		q.receivers--
		q.mu.Unlock()
	}
	if err == nil {
		q.touch(0)
		q.waiters.Notify(waiter.WritableEvents)
	}
	return m, err
}

// Notify is mq_notify(2): EBUSY.
func (f *File) Notify(t *kernel.Task, e Event) error {
	q := f.Queue
	n := &notification{file: f, group: t.ThreadGroup(), pids: t.PIDNamespace(), users: t.UserNamespace(), event: e}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.notify != nil {
		return unix.EBUSY
	}
	q.notify = n
	return nil
}

// Forget is mq_notify(2) without an event: t's process is no longer to be told.
func (f *File) Forget(t *kernel.Task) {
	f.Queue.forget(func(n *notification) bool { return n.group == t.ThreadGroup() })
}

// Flush is called when a task closes a descriptor: its process is told no more (mqueue_flush_file).
func (f *File) Flush(ctx vfs.Context) {
	if t, ok := ctx.(*kernel.Task); ok {
		f.Forget(t)
	}
}

// forget takes the notification back if it is one of those.
func (q *Queue) forget(those func(*notification) bool) {
	q.mu.Lock()
	n := q.notify
	if n == nil || !those(n) {
		q.mu.Unlock()
		return
	}
	q.notify = nil
	q.mu.Unlock()
	if n.event.Socket != nil {
		n.event.deliver(removed)
	}
}
