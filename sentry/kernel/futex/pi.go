package futex

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
)

// Bits of a PI futex' or a robust mutex' word.
const (
	Waiters   = 0x80000000
	OwnerDied = 0x40000000
	TIDMask   = 0x3fffffff
)

// Owner reports on the task with a thread ID, for PI futexes.
type Owner interface {
	// Exists reports whether tid is a live thread of the caller's PID namespace.
	Exists(tid uint32) bool
}

// LockPI tries to take the PI futex at addr for thread tid. If it is taken and try is false, w is queued and blocked is true: the caller waits on w.C, then calls
// FinishPI. EAGAIN (try), EDEADLK, ESRCH, EPERM.
func (t *Table) LockPI(w *Waiter, tg Target, addr hostarch.Addr, k Key, tid uint32, owners Owner, try bool) (blocked bool, err error) {
	b := t.bucketOf(k)
	b.mu.Lock()
	defer b.mu.Unlock()
	return t.lockPILocked(b, w, tg, addr, k, tid, owners, try)
}

func (t *Table) lockPILocked(b *bucket, w *Waiter, tg Target, addr hostarch.Addr, k Key, tid uint32, owners Owner, try bool) (bool, error) {
	for {
		v, err := tg.LoadUint32(addr)
		if err != nil {
			return false, err
		}
		owner := v & TIDMask
		switch {
		case owner == tid:
			return false, unix.EDEADLK
		case owner == 0:
			n := v&OwnerDied | tid
			if b.hasPI(k) {
				n |= Waiters
			}
			prev, err := tg.CompareAndSwapUint32(addr, v, n)
			if err != nil || prev == v {
				return false, err
			}
			continue
		case try:
			return false, unix.EAGAIN
		case !owners.Exists(owner):
			return false, unix.ESRCH
		}
		if v&Waiters == 0 {
			prev, err := tg.CompareAndSwapUint32(addr, v, v|Waiters)
			if err != nil {
				return false, err
			}
			if prev != v {
				continue
			}
		}
		if w.bucket.Load() == nil {
			w.reset(k, BitsetAny)
		}
		w.key, w.tid, w.owner, w.addr, w.target = k, tid, owner, addr, tg
		t.piWaiters.Add(1)
		if w.bucket.Load() == nil {
			b.pushLocked(w)
		}
		return true, nil
	}
}

func (b *bucket) hasPI(k Key) bool { return b.firstPI(k) != nil }

func (b *bucket) firstPI(k Key) *Waiter {
	for w := b.head.next; w != &b.head; w = w.next {
		if w.key == k && w.tid != 0 {
			return w
		}
	}
	return nil
}

// FinishPI is called after a wait for a PI futex that ended for any reason; it reports whether w holds the futex now.
func (t *Table) FinishPI(w *Waiter) bool {
	t.Cancel(w)
	return w.acquired
}

// UnlockPI gives up the PI futex at addr, which tid must own: to the first waiter, else it becomes free. EPERM.
func (t *Table) UnlockPI(tg Target, addr hostarch.Addr, k Key, tid uint32) error {
	b := t.bucketOf(k)
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		v, err := tg.LoadUint32(addr)
		if err != nil {
			return err
		}
		if v&TIDMask != tid {
			return unix.EPERM
		}
		done, err := t.passLocked(b, tg, addr, k, v, 0)
		if done || err != nil {
			return err
		}
	}
}

// passLocked hands the futex whose word is v to its first waiter, or frees it, keeping the bits of extra.
func (t *Table) passLocked(b *bucket, tg Target, addr hostarch.Addr, k Key, v, extra uint32) (bool, error) {
	w := b.firstPI(k)
	n := extra
	if w != nil {
		n |= w.tid
		for o := w.next; o != &b.head; o = o.next {
			if o.key == k && o.tid != 0 {
				n |= Waiters
				break
			}
		}
	}
	prev, err := tg.CompareAndSwapUint32(addr, v, n)
	if err != nil || prev != v {
		return false, err
	}
	if w == nil {
		return true, nil
	}
	for o := w.next; o != &b.head; o = o.next {
		if o.key == k && o.tid != 0 {
			o.owner = w.tid
		}
	}
	w.acquired = true
	t.piWaiters.Add(-1)
	b.wakeLocked(w)
	return true, nil
}

// OwnerExit hands on the PI futexes that waiters wait for thread tid of namespace-equal tasks to release, marked OwnerDied (exit_pi_state_list).
func (t *Table) OwnerExit(tid uint32, same func(Target) bool) {
	if t.piWaiters.Load() == 0 {
		return
	}
	for i := range t.buckets {
		b := &t.buckets[i]
		if b.n.Load() == 0 {
			continue
		}
		b.mu.Lock()
		for w := b.head.next; w != &b.head; {
			next := w.next
			if w.tid != 0 && w.owner == tid && same(w.target) {
				v, err := w.target.LoadUint32(w.addr)
				if err == nil && v&TIDMask == tid {
					// A lost race with a guest that writes the word at the same time leaves the waiter waiting, as its own doing.
					t.passLocked(b, w.target, w.addr, w.key, v, OwnerDied)
					next = b.head.next
				}
				if w.bucket.Load() != nil {
					w.owner = 0
				}
			}
			w = next
		}
		b.mu.Unlock()
	}
}

// PrepareRequeuePI is Prepare for FUTEX_WAIT_REQUEUE_PI: w may be requeued only to the PI futex pi, by RequeuePI.
func (t *Table) PrepareRequeuePI(w *Waiter, tg Target, addr hostarch.Addr, k, pi Key, piAddr hostarch.Addr, tid, val, bitset uint32) error {
	if k == pi {
		return unix.EINVAL
	}
	if err := t.Prepare(w, tg, addr, k, val, bitset); err != nil {
		return err
	}
	b := w.bucket.Load()
	if b == nil {
		return nil
	}
	b.mu.Lock()
	w.requeuePI, w.addr, w.target, w.owner = pi, piAddr, tg, tid
	b.mu.Unlock()
	return nil
}

// RequeuePI is FUTEX_CMP_REQUEUE_PI: the first waiter gets the PI futex if it is free, up to move others wait for it.
func (t *Table) RequeuePI(tg Target, addr hostarch.Addr, from, to Key, piAddr hostarch.Addr, move int, val uint32, owners Owner) (int, error) {
	if from == to {
		return 0, unix.EINVAL
	}
	fb, tb := t.bucketOf(from), t.bucketOf(to)
	defer lockTwo(fb, tb)()
	if v, err := tg.LoadUint32(addr); err != nil {
		return 0, err
	} else if v != val {
		return 0, unix.EAGAIN
	}
	n := 0
	for w := fb.head.next; w != &fb.head && n <= move; {
		next := w.next
		if w.key == from {
			if w.requeuePI != to {
				return n, unix.EINVAL
			}
			tid := w.owner // kept there by PrepareRequeuePI
			fb.moveLocked(w, tb, to)
			blocked, err := t.lockPILocked(tb, w, w.target, w.addr, to, tid, owners, false)
			if err != nil {
				return n, err
			}
			if !blocked {
				w.acquired = true
				tb.wakeLocked(w)
			}
			n++
		}
		w = next
	}
	return n, nil
}
