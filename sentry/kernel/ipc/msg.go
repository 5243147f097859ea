package ipc

import (
	"slices"
	"sync"
	"time"

	"moat/sentry/kernel/auth"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

// Queues are the message queues of a namespace.
type Queues struct{ registry[*Queue] }

// Queue is a message queue (msgop(2)).
type Queue struct {
	Perm // guarded by mu

	mu       sync.Mutex
	msgs     []Message     // +checklocks:mu
	bytes    uint64        // +checklocks:mu
	maxBytes uint64        // +checklocks:mu
	stime    int64         // +checklocks:mu
	rtime    int64         // +checklocks:mu
	lspid    int32         // +checklocks:mu
	lrpid    int32         // +checklocks:mu
	changed  chan struct{} // closed at each change somebody may wait for; +checklocks:mu
}

func (q *Queue) lock() *sync.Mutex { return &q.mu }

// Message is one message.
type Message struct {
	Type int64
	Text []byte
}

// NewQueues returns an empty registry.
func NewQueues(user *auth.UserNamespace) *Queues {
	q := &Queues{}
	q.init(user, linux.MSGMNI)
	return q
}

// Get is msgget(2).
func (r *Queues) Get(a Actor, key int32, flags uint32) (int32, error) {
	return r.get(a, key, flags, func(*Queue) error { return nil }, func(p Perm) (*Queue, error) {
		return &Queue{Perm: p, maxBytes: linux.MSGMNB, changed: make(chan struct{})}, nil
	})
}

func (q *Queue) notifyLocked() {
	close(q.changed)
	q.changed = make(chan struct{})
}

// Send is msgsnd(2).
func (r *Queues) Send(a Actor, id int32, m Message, nowait bool) error {
	if m.Type < 1 || len(m.Text) > linux.MSGMAX {
		return unix.EINVAL
	}
	q, err := r.find(id)
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		if q.removed {
			return unix.EIDRM
		}
		if err := q.check(a, 0222); err != nil {
			return err
		}
		if q.bytes+uint64(len(m.Text)) <= q.maxBytes && uint64(len(q.msgs))+1 <= q.maxBytes {
			break
		}
		if nowait {
			return unix.EAGAIN
		}
		ch := q.changed
		q.mu.Unlock()
		err := a.Block(ch)
		q.mu.Lock()
		if err != nil {
			return unix.EINTR
		}
	}
	q.msgs = append(q.msgs, m)
	q.bytes += uint64(len(m.Text))
	q.lspid, q.stime = a.PID(), time.Now().Unix()
	q.notifyLocked()
	return nil
}

// Receive is msgrcv(2) for a message of at most size bytes; flags are its own.
func (r *Queues) Receive(a Actor, id int32, size uint64, typ int64, flags uint32) (Message, error) {
	peek := flags&linux.MSG_COPY != 0
	if peek && (flags&linux.MSG_EXCEPT != 0 || flags&linux.IPC_NOWAIT == 0) {
		return Message{}, unix.EINVAL
	}
	q, err := r.find(id)
	if err != nil {
		return Message{}, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		if q.removed {
			return Message{}, unix.EIDRM
		}
		if err := q.check(a, 0444); err != nil {
			return Message{}, err
		}
		i := -1
		if !peek {
			i = q.pickLocked(typ, flags)
		} else if typ >= 0 && typ < int64(len(q.msgs)) {
			i = int(typ) // MSG_COPY: the message at that place
		}
		if i >= 0 {
			m := q.msgs[i]
			if uint64(len(m.Text)) > size && flags&linux.MSG_NOERROR == 0 {
				return Message{}, unix.E2BIG
			}
			if peek {
				m.Text = m.Text[:min(uint64(len(m.Text)), size)]
				return m, nil
			}
			q.msgs = slices.Delete(q.msgs, i, i+1)
			q.bytes -= uint64(len(m.Text))
			q.lrpid, q.rtime = a.PID(), time.Now().Unix()
			q.notifyLocked()
			m.Text = m.Text[:min(uint64(len(m.Text)), size)]
			return m, nil
		}
		if flags&linux.IPC_NOWAIT != 0 {
			return Message{}, unix.ENOMSG
		}
		ch := q.changed
		q.mu.Unlock()
		err := a.Block(ch)
		q.mu.Lock()
		if err != nil {
			return Message{}, unix.EINTR
		}
	}
}

// pickLocked is the message that typ asks for: any, of a type, of another type (MSG_EXCEPT), of the lowest type up to -typ.
// +checklocks:q.mu
func (q *Queue) pickLocked(typ int64, flags uint32) int {
	best := -1
	for i, m := range q.msgs {
		switch {
		case typ == 0, typ > 0 && flags&linux.MSG_EXCEPT == 0 && m.Type == typ, typ > 0 && flags&linux.MSG_EXCEPT != 0 && m.Type != typ:
			return i
		case typ < 0 && (typ == -1<<63 || m.Type <= -typ) && (best < 0 || m.Type < q.msgs[best].Type):
			best = i
		}
	}
	return best
}

// Remove is IPC_RMID.
// +checklocksignore: owned locks.
func (r *Queues) Remove(a Actor, id int32) error {
	q, err := r.owned(a, id)
	if err != nil {
		return err
	}
	q.removed = true
	q.msgs, q.bytes = nil, 0
	q.notifyLocked()
	q.mu.Unlock()
	r.forget(q)
	return nil
}

// Set is IPC_SET; raising the size above MSGMNB needs CAP_SYS_RESOURCE.
// +checklocksignore: owned locks.
func (r *Queues) Set(a Actor, id int32, uid auth.KUID, gid auth.KGID, mode uint16, maxBytes uint64) error {
	q, err := r.owned(a, id)
	if err != nil {
		return err
	}
	defer q.mu.Unlock()
	if maxBytes > linux.MSGMNB && !a.Credentials().HasCapIn(linux.CAP_SYS_RESOURCE, r.user) {
		return unix.EPERM
	}
	// What waits in a queue is the sentry's memory: even root gets no more than a megabyte.
	q.maxBytes = min(maxBytes, 1<<20)
	q.set(uid, gid, mode)
	q.notifyLocked()
	return nil
}

// QueueState is MSG_STAT's.
type QueueState struct {
	Perm
	Stime, Rtime           int64
	Bytes, Count, MaxBytes uint64
	LSPID, LRPID           int32
}

// Stat is IPC_STAT, or MSG_STAT if byIndex; perm says that it needs permission.
func (r *Queues) Stat(a Actor, id int32, byIndex, perm bool) (QueueState, error) {
	q, err := r.lookup(id, byIndex)
	if err != nil {
		return QueueState{}, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if perm {
		if err := q.check(a, 0444); err != nil {
			return QueueState{}, err
		}
	}
	return QueueState{q.Perm, q.stime, q.rtime, q.bytes, uint64(len(q.msgs)), q.maxBytes, q.lspid, q.lrpid}, nil
}

// Usage is MSG_INFO: queues, messages, bytes, and the highest index.
func (r *Queues) Usage() (queues, msgs, bytes, top int32) {
	for _, q := range r.all() {
		q.mu.Lock()
		queues++
		msgs += int32(len(q.msgs))
		bytes += int32(q.bytes)
		q.mu.Unlock()
	}
	return queues, msgs, bytes, r.top()
}
