// Package futex has the queues of futex(2). It knows words of guest memory by a small Target and tasks by their thread IDs and an
// opaque identity; the system calls above it do the waiting.
//
// Locks: bucket.mu, two of them in the order of their index, then pi.mu. Guest memory is touched under bucket.mu, so the locks of
// address spaces come behind it, and Owners is asked under both. A Waiter belongs to whoever waits; while it is queued its fields are
// guarded by the bucket that it is in, after its channel was sent to or Cancel they are the waiter's again.
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

// Waiter is one sleeper in one queue. C, which has room for one, is sent to when the waiter is woken.
type Waiter struct {
	C chan struct{}

	key    Key
	bitset uint32
	// pi is set for waiters of PI futexes and for those that may be requeued to one, which nothing else may wake.
	pi *piWait

	bucket     atomic.Pointer[bucket] // nil: not queued
	prev, next *Waiter
	piState    piWait
}

// NewWaiter returns a waiter, which may be used again after each wait.
func NewWaiter() *Waiter { return &Waiter{C: make(chan struct{}, 1)} }

// Clear makes w forget what it waited for, so that it may lie in a pool.
func (w *Waiter) Clear() {
	w.key, w.pi, w.piState = Key{}, nil, piWait{}
	select {
	case <-w.C:
	default:
	}
}

type bucket struct {
	mu sync.Mutex
	// head is the ring's sentinel: prev and next are never nil.
	head  Waiter
	index int
	// n counts waiters, and those about to look at their word: a waker that finds 0 after it changed the word need not lock
	// (futex_hb_waiters_pending).
	n atomic.Int32
	_ [64]byte // neighbours do not share a cache line
}

const numBuckets = 512

// Table is all queues of a kernel.
type Table struct {
	buckets [numBuckets]bucket
	seed    maphash.Seed
	pi      piTable
}

// NewTable returns an empty table.
func NewTable() *Table {
	t := &Table{seed: maphash.MakeSeed()}
	for i := range t.buckets {
		b := &t.buckets[i]
		b.index = i
		b.head.prev, b.head.next = &b.head, &b.head
	}
	t.pi.blocked = make(map[any]*Waiter)
	return t
}

func (t *Table) bucketOf(k Key) *bucket {
	return &t.buckets[maphash.Comparable(t.seed, k)%numBuckets]
}

// linkLocked puts w at the end; the caller has counted it in n.
func (b *bucket) linkLocked(w *Waiter) {
	last := b.head.prev
	w.prev, w.next = last, &b.head
	last.next, b.head.prev = w, w
	w.bucket.Store(b)
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
	default: // one of FUTEX_WAITV's, another of which was woken
	}
}

// moveLocked moves w, waiting for key to from now on, to the bucket tb. Both are locked.
func (b *bucket) moveLocked(w *Waiter, tb *bucket, to Key) {
	w.key = to
	if b == tb {
		return
	}
	w.prev.next, w.next.prev = w.next, w.prev
	b.n.Add(-1)
	tb.n.Add(1)
	tb.linkLocked(w)
}

// +checklocksignore: two locks in order.
func lockTwo(x, y *bucket) {
	if x.index > y.index {
		x, y = y, x
	}
	x.mu.Lock()
	if x != y {
		y.mu.Lock()
	}
}

// +checklocksignore: two locks in order.
func unlockTwo(x, y *bucket) {
	x.mu.Unlock()
	if x != y {
		y.mu.Unlock()
	}
}

// Prepare queues w on k if the word at addr of tg is val: EAGAIN, EFAULT, EINVAL. The caller then waits on w.C, and calls Cancel in any case.
func (t *Table) Prepare(w *Waiter, tg Target, addr hostarch.Addr, k Key, val, bitset uint32) error {
	if bitset == 0 {
		return unix.EINVAL
	}
	w.Clear()
	return t.enqueue(w, tg, addr, k, val, bitset)
}

// PrepareShared is Prepare for one of several waiters with one channel (FUTEX_WAITV): what the channel holds is left there.
func (t *Table) PrepareShared(w *Waiter, tg Target, addr hostarch.Addr, k Key, val uint32) error {
	return t.enqueue(w, tg, addr, k, val, BitsetAny)
}

func (t *Table) enqueue(w *Waiter, tg Target, addr hostarch.Addr, k Key, val, bitset uint32) error {
	b := t.bucketOf(k)
	b.n.Add(1) // before the word is read: see bucket.n
	b.mu.Lock()
	defer b.mu.Unlock()
	v, err := tg.LoadUint32(addr)
	if err == nil && v != val {
		err = unix.EAGAIN
	}
	if err != nil {
		b.n.Add(-1)
		return err
	}
	w.key, w.bitset = k, bitset
	b.linkLocked(w)
	return nil
}

// Cancel takes w out of its queue and reports whether it was still there, that is not woken.
func (t *Table) Cancel(w *Waiter) bool {
	for {
		b := w.bucket.Load()
		if b == nil {
			return false
		}
		b.mu.Lock()
		if w.bucket.Load() != b { // woken or requeued meanwhile
			b.mu.Unlock()
			continue
		}
		b.removeLocked(w)
		if w.pi != nil {
			t.pi.leave(w)
		}
		b.mu.Unlock()
		return true
	}
}

// Wake wakes up to n waiters (at least one: futex_wake's habit) of k that share a bit with bitset and returns how many. EINVAL.
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
	for w := b.head.next; w != &b.head; {
		next := w.next
		if w.key == k && w.bitset&bitset != 0 {
			if w.pi != nil {
				return woken, unix.EINVAL
			}
			b.wakeLocked(w)
			if woken++; woken >= n {
				break
			}
		}
		w = next
	}
	return woken, nil
}

// Requeue wakes up to wake waiters of from and moves up to move of the rest to to. If cmp is not nil, the word at addr must be
// *cmp: EAGAIN. It returns how many were woken or moved.
func (t *Table) Requeue(tg Target, addr hostarch.Addr, from, to Key, wake, move int, cmp *uint32) (int, error) {
	fb, tb := t.bucketOf(from), t.bucketOf(to)
	tb.n.Add(1) // whoever wakes to from now on must wait for us
	defer tb.n.Add(-1)
	lockTwo(fb, tb)
	defer unlockTwo(fb, tb)
	if cmp != nil {
		if err := compare(tg, addr, *cmp); err != nil {
			return 0, err
		}
	}
	n := 0
	for w := fb.head.next; w != &fb.head && n-wake < move; {
		next := w.next
		if w.key == from {
			if w.pi != nil {
				return n, unix.EINVAL
			}
			if n < wake {
				fb.wakeLocked(w)
			} else {
				fb.moveLocked(w, tb, to)
			}
			n++
		}
		w = next
	}
	return n, nil
}

func compare(tg Target, addr hostarch.Addr, val uint32) error {
	v, err := tg.LoadUint32(addr)
	if err == nil && v != val {
		err = unix.EAGAIN
	}
	return err
}

// WakeOp does FUTEX_WAKE_OP: changes the word at addr2 by op, wakes up to n of k1 and, if op's comparison of the old value holds, up to n2 of k2.
func (t *Table) WakeOp(tg Target, addr2 hostarch.Addr, k1, k2 Key, n, n2 int, op uint32) (int, error) {
	b1, b2 := t.bucketOf(k1), t.bucketOf(k2)
	lockTwo(b1, b2)
	defer unlockTwo(b1, b2)
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

// applyOp is futex_atomic_op_inuser: ENOSYS for what it does not know.
func applyOp(tg Target, addr hostarch.Addr, enc uint32) (bool, error) {
	op, cmp := enc>>28&7, enc>>24&15
	oparg, cmparg := int32(enc<<8)>>20, int32(enc<<20)>>20
	if enc>>31 != 0 { // FUTEX_OP_OPARG_SHIFT
		oparg = 1 << (uint32(oparg) & 31)
	}
	if op > 4 {
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
		if cmp > 5 {
			return false, unix.ENOSYS // after the change, as on Linux
		}
		o := int32(old)
		return [...]bool{o == cmparg, o != cmparg, o < cmparg, o <= cmparg, o > cmparg, o >= cmparg}[cmp], nil
	}
}
