// Package futex has the queues of futex(2). It knows words of guest memory by a small Target and tasks only by their
// thread IDs; sentry/kernel and the system calls above it do the waiting.
//
// Locks: bucket.mu, two of them in the order of their index. Guest memory is touched under bucket.mu, so the locks of
// address spaces come behind it. A Waiter belongs to whoever waits; its link fields are guarded by the bucket that it is in.
package futex

import (
	"hash/maphash"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
)

// Key names a futex word: an object (an address space, or a mapped file) and an offset in it.
type Key struct {
	Object any
	Offset uint64
}

// Target is guest memory, as far as futexes change it.
type Target interface {
	LoadUint32(addr hostarch.Addr) (uint32, error)
	CompareAndSwapUint32(addr hostarch.Addr, old, n uint32) (prev uint32, err error)
}

// BitsetAny matches every waiter (FUTEX_BITSET_MATCH_ANY).
const BitsetAny = ^uint32(0)

// Waiter is one sleeper in one queue. C is sent to (it has room for one) when the waiter is woken; see Waiter.Woken.
type Waiter struct {
	C chan struct{}

	key    Key
	bitset uint32
	// tid is the thread ID of a PI waiter, 0 of others; owner is whom a PI waiter waits for.
	tid, owner uint32
	// requeuePI is the only futex that a FUTEX_WAIT_REQUEUE_PI waiter may be requeued to.
	requeuePI Key
	// addr is the word's address for whoever waits for a PI futex, in target.
	addr   hostarch.Addr
	target Target

	bucket     atomic.Pointer[bucket] // nil: not queued
	prev, next *Waiter
	// index is which of FUTEX_WAITV's waiters this is.
	acquired bool // the PI futex was handed over
}

// NewWaiter returns a waiter, which may be used again after each wait.
func NewWaiter() *Waiter { return &Waiter{C: make(chan struct{}, 1)} }

type bucket struct {
	mu sync.Mutex
	// head is the ring's sentinel: prev and next never nil once used.
	head  Waiter
	index int
	// n is the number of waiters, read without mu to leave out empty buckets.
	n atomic.Int32
}

const numBuckets = 512

// Table is all queues of a kernel.
type Table struct {
	buckets [numBuckets]bucket
	seed    maphash.Seed
	// piWaiters counts PI waiters, so that exits need not look for them in vain.
	piWaiters atomic.Int32
}

// NewTable returns an empty table.
func NewTable() *Table {
	t := &Table{seed: maphash.MakeSeed()}
	for i := range t.buckets {
		b := &t.buckets[i]
		b.index = i
		b.head.prev, b.head.next = &b.head, &b.head
	}
	return t
}

func (t *Table) bucketOf(k Key) *bucket {
	return &t.buckets[maphash.Comparable(t.seed, k)%numBuckets]
}

func (b *bucket) pushLocked(w *Waiter) {
	last := b.head.prev
	w.prev, w.next = last, &b.head
	last.next, b.head.prev = w, w
	w.bucket.Store(b)
	b.n.Add(1)
}

func (b *bucket) removeLocked(w *Waiter) {
	w.prev.next, w.next.prev = w.next, w.prev
	w.prev, w.next = nil, nil
	w.bucket.Store(nil)
	b.n.Add(-1)
}

// wakeLocked takes w out and wakes it.
func (b *bucket) wakeLocked(w *Waiter) {
	b.removeLocked(w)
	select {
	case w.C <- struct{}{}:
	default:
	}
}

// lockTwo locks two buckets, which may be the same, and returns the unlock.
func lockTwo(x, y *bucket) func() {
	switch {
	case x == y:
		x.mu.Lock()
		return x.mu.Unlock
	case x.index > y.index:
		x, y = y, x
	}
	x.mu.Lock()
	y.mu.Lock()
	return func() { y.mu.Unlock(); x.mu.Unlock() }
}

// Prepare queues w on k if the word at addr of tg is val: EAGAIN, EFAULT. The caller then waits on w.C, and calls Cancel in any case.
func (t *Table) Prepare(w *Waiter, tg Target, addr hostarch.Addr, k Key, val, bitset uint32) error {
	if bitset == 0 {
		return unix.EINVAL
	}
	w.reset(k, bitset)
	b := t.bucketOf(k)
	b.mu.Lock()
	defer b.mu.Unlock()
	v, err := tg.LoadUint32(addr)
	if err != nil {
		return err
	}
	if v != val {
		return unix.EAGAIN
	}
	b.pushLocked(w)
	return nil
}

func (w *Waiter) reset(k Key, bitset uint32) {
	select {
	case <-w.C:
	default:
	}
	w.key, w.bitset, w.tid, w.owner, w.requeuePI, w.acquired, w.target = k, bitset, 0, 0, Key{}, false, nil
}

// Cancel takes w out of its queue and reports whether it was still there, that is not woken.
func (t *Table) Cancel(w *Waiter) bool {
	for {
		b := w.bucket.Load()
		if b == nil {
			return false
		}
		b.mu.Lock()
		if w.bucket.Load() != b { // requeued meanwhile
			b.mu.Unlock()
			continue
		}
		b.removeLocked(w)
		if w.tid != 0 {
			t.piWaiters.Add(-1)
		}
		b.mu.Unlock()
		return true
	}
}

// Wake wakes up to n waiters of k that share a bit with bitset and returns how many.
func (t *Table) Wake(k Key, n int, bitset uint32) (int, error) {
	if bitset == 0 {
		return 0, unix.EINVAL
	}
	b := t.bucketOf(k)
	if b.n.Load() == 0 {
		return 0, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.wakeUpTo(k, n, bitset)
}

func (b *bucket) wakeUpTo(k Key, n int, bitset uint32) (int, error) {
	woken := 0
	for w := b.head.next; w != &b.head && woken < max(n, 1); {
		next := w.next
		if w.key == k && w.bitset&bitset != 0 {
			if w.tid != 0 || w.requeuePI != (Key{}) {
				return woken, unix.EINVAL // a PI waiter cannot be woken so
			}
			b.wakeLocked(w)
			woken++
		}
		w = next
	}
	return woken, nil
}

// Requeue wakes up to wake waiters of from and moves up to move of the rest to to. If cmp is not nil, the word at addr must be
// *cmp: EAGAIN. It returns how many were woken or moved.
func (t *Table) Requeue(tg Target, addr hostarch.Addr, from, to Key, wake, move int, cmp *uint32) (int, error) {
	fb, tb := t.bucketOf(from), t.bucketOf(to)
	defer lockTwo(fb, tb)()
	if cmp != nil {
		v, err := tg.LoadUint32(addr)
		if err != nil {
			return 0, err
		}
		if v != *cmp {
			return 0, unix.EAGAIN
		}
	}
	n, moved := 0, 0
	for w := fb.head.next; w != &fb.head; {
		next := w.next
		if w.key == from {
			if w.tid != 0 || w.requeuePI != (Key{}) {
				return n, unix.EINVAL
			}
			switch {
			case n < wake:
				fb.wakeLocked(w)
			case moved < move:
				moved++
				fb.moveLocked(w, tb, to)
			default:
				return n, nil
			}
			n++
		}
		w = next
	}
	return n, nil
}

// moveLocked moves w to bucket tb under key to. Both buckets are locked.
func (b *bucket) moveLocked(w *Waiter, tb *bucket, to Key) {
	w.key = to
	if b == tb {
		return
	}
	w.prev.next, w.next.prev = w.next, w.prev
	b.n.Add(-1)
	tb.pushLocked(w)
}

// WakeOp does FUTEX_WAKE_OP: changes the word at addr2 by op, wakes up to n of k1 and, if op's comparison of the old value holds, up to n2 of k2.
func (t *Table) WakeOp(tg Target, addr2 hostarch.Addr, k1, k2 Key, n, n2 int, op uint32) (int, error) {
	b1, b2 := t.bucketOf(k1), t.bucketOf(k2)
	defer lockTwo(b1, b2)()
	holds, err := applyOp(tg, addr2, op)
	if err != nil {
		return 0, err
	}
	woken, err := b1.wakeUpTo(k1, n, BitsetAny)
	if err != nil || !holds {
		return woken, err
	}
	more, err := b2.wakeUpTo(k2, n2, BitsetAny)
	return woken + more, err
}

// applyOp is futex_atomic_op_inuser.
func applyOp(tg Target, addr hostarch.Addr, enc uint32) (bool, error) {
	op, cmp := enc>>28&7, enc>>24&15
	oparg, cmparg := int32(enc<<8)>>20, int32(enc<<20)>>20
	if enc>>31 != 0 { // FUTEX_OP_OPARG_SHIFT
		oparg = 1 << (uint32(oparg) & 31)
	}
	if op > 4 || cmp > 5 {
		return false, unix.ENOSYS
	}
	for {
		old, err := tg.LoadUint32(addr)
		if err != nil {
			return false, err
		}
		n := uint32(oparg)
		switch op {
		case 1:
			n = old + uint32(oparg)
		case 2:
			n = old | uint32(oparg)
		case 3:
			n = old &^ uint32(oparg)
		case 4:
			n = old ^ uint32(oparg)
		}
		prev, err := tg.CompareAndSwapUint32(addr, old, n)
		if err != nil {
			return false, err
		}
		if prev != old {
			continue
		}
		o := int32(old)
		return [...]bool{o == cmparg, o != cmparg, o < cmparg, o <= cmparg, o > cmparg, o >= cmparg}[cmp], nil
	}
}

// PrepareShared is Prepare for one of several waiters with one channel (FUTEX_WAITV): what the channel holds is left there.
func (t *Table) PrepareShared(w *Waiter, tg Target, addr hostarch.Addr, k Key, val uint32) error {
	w.key, w.bitset = k, BitsetAny
	b := t.bucketOf(k)
	b.mu.Lock()
	defer b.mu.Unlock()
	v, err := tg.LoadUint32(addr)
	if err != nil {
		return err
	}
	if v != val {
		return unix.EAGAIN
	}
	b.pushLocked(w)
	return nil
}
