package futex

import (
	"sync"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
)

// Bits of a PI futex' or a robust mutex' word.
const (
	Waiters   = 0x80000000
	OwnerDied = 0x40000000
	TIDMask   = 0x3fffffff
)

const (
	// maxChain is how many owners that wait for each other are followed (/proc/sys/kernel/max_lock_depth).
	maxChain = 1024
	// maxRaces bounds how often a change of a word that a guest keeps changing too is tried.
	maxRaces = 1000
)

// Locker is who locks a PI futex.
type Locker struct {
	// TID is what stands in the word. Self is the task's identity, comparable, for as long as it owns futexes.
	TID  uint32
	Self any
	// Owner returns the identity of the thread whose TID stands in a word: ESRCH, EPERM.
	Owner func(tid uint32) (any, error)
}

// piWait is a wait for a PI futex, or one that may become such (FUTEX_WAIT_REQUEUE_PI).
type piWait struct {
	Locker
	key    Key // the PI futex
	addr   hostarch.Addr
	target Target
	// owner is whom the waiter waits for, nil before it was requeued. Guarded by piTable.mu.
	owner any
	// acquired: the futex was handed over; err: that failed.
	acquired bool
	err      error
}

// piTable knows who waits for whom.
type piTable struct {
	mu sync.Mutex
	// blocked are the waiters of PI futexes by their Self.
	// +checklocks:mu
	blocked map[any]*Waiter
}

// block notes that w waits for owner: EDEADLK if that waits for w's task already (rt_mutex_adjust_prio_chain). Asking for the owner under mu orders it before
// or after OwnerExit.
func (p *piTable) block(w *Waiter, tid uint32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	owner, err := w.pi.Owner(tid)
	if err != nil {
		return err
	}
	o := owner
	for range maxChain {
		if o == w.pi.Self {
			return unix.EDEADLK
		}
		next := p.blocked[o]
		if next == nil {
			break
		}
		o = next.pi.owner
	}
	w.pi.owner = owner
	p.blocked[w.pi.Self] = w
	return nil
}

func (p *piTable) leave(w *Waiter) {
	p.mu.Lock()
	if p.blocked[w.pi.Self] == w {
		delete(p.blocked, w.pi.Self)
	}
	p.mu.Unlock()
}

// claimLocked takes the PI futex of w if it is free; else it marks the word and notes whom w waits for, and blocked is true. ESRCH, EPERM, EDEADLK, EFAULT, and EAGAIN if try.
func (t *Table) claimLocked(b *bucket, w *Waiter, try bool) (blocked bool, err error) {
	p := w.pi
	for {
		v, err := p.target.LoadUint32(p.addr)
		if err != nil {
			return false, err
		}
		owner := v & TIDMask
		if owner == p.TID {
			return false, unix.EDEADLK
		}
		if b.otherWaits(p.key) {
			return false, unix.EINVAL // somebody waits as for a futex of another kind (attach_to_pi_state)
		}
		n := v | Waiters
		if owner == 0 {
			n = v&OwnerDied | p.TID
			if b.firstPI(p.key) != nil {
				n |= Waiters
			}
		}
		if n != v {
			prev, err := p.target.CompareAndSwapUint32(p.addr, v, n)
			if err != nil {
				return false, err
			}
			if prev != v {
				continue
			}
		}
		if owner == 0 {
			return false, nil
		}
		if try {
			if _, err := p.Owner(owner); err != nil {
				return false, err
			}
			return false, unix.EAGAIN
		}
		err = t.pi.block(w, owner)
		if err == unix.ESRCH {
			// It may have released the futex as it died (handle_exit_race).
			if now, e := p.target.LoadUint32(p.addr); e != nil || now != n {
				continue
			}
		}
		return err == nil, err
	}
}

// otherWaits reports whether somebody waits at k as at a futex of another kind.
func (b *bucket) otherWaits(k Key) bool {
	for w := b.head.next; w != &b.head; w = w.next {
		if w.key == k && (w.pi == nil || w.pi.key != k) {
			return true
		}
	}
	return false
}

// firstPI is the first waiter of the PI futex k.
func (b *bucket) firstPI(k Key) *Waiter { return b.nextPI(&b.head, k) }

func (b *bucket) nextPI(w *Waiter, k Key) *Waiter {
	for w = w.next; w != &b.head; w = w.next {
		if w.key == k && w.pi != nil && w.pi.key == k {
			return w
		}
	}
	return nil
}

// LockPI tries to take the PI futex at addr. If it is taken and try is false, w is queued and blocked is true: the caller waits on w.C, then calls
// FinishPI. EAGAIN (try), EDEADLK, ESRCH, EPERM, EFAULT.
func (t *Table) LockPI(w *Waiter, tg Target, addr hostarch.Addr, k Key, l Locker, try bool) (blocked bool, err error) {
	w.Clear()
	w.piState = piWait{Locker: l, key: k, addr: addr, target: tg}
	w.key, w.bitset, w.pi = k, BitsetAny, &w.piState
	b := t.bucketOf(k)
	b.mu.Lock()
	defer b.mu.Unlock()
	blocked, err = t.claimLocked(b, w, try)
	if blocked {
		b.n.Add(1)
		b.linkLocked(w)
	}
	return blocked, err
}

// FinishPI is called after a wait for a PI futex that ended for any reason: err is what it ended with. It returns nil if w holds the futex now.
// A FUTEX_WAIT_REQUEUE_PI that was not requeued before a signal came gives notRequeued.
func (t *Table) FinishPI(w *Waiter, err, notRequeued error) error {
	canceled := t.Cancel(w)
	switch p := w.pi; {
	case p.acquired:
		return nil
	case p.err != nil:
		return p.err
	case canceled && err != unix.ETIMEDOUT && w.key != p.key:
		return notRequeued
	case err == nil:
		return unix.EAGAIN // cannot be: woken, but without the futex
	}
	return err
}

// UnlockPI gives up the PI futex at addr, which tid must own: to the first waiter, else it becomes free. EPERM, EFAULT.
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
		if w := b.firstPI(k); w != nil {
			err = t.passLocked(b, w, v, 0)
		} else {
			var prev uint32
			if prev, err = tg.CompareAndSwapUint32(addr, v, 0); err == nil && prev != v {
				err = unix.EAGAIN
			}
		}
		if err != unix.EAGAIN {
			return err
		}
	}
}

// passLocked hands the futex whose word is v to its first waiter w, with the bits of extra: EAGAIN if the word has changed.
func (t *Table) passLocked(b *bucket, w *Waiter, v, extra uint32) error {
	p := w.pi
	n := p.TID | extra
	if b.nextPI(w, p.key) != nil {
		n |= Waiters
	}
	prev, err := p.target.CompareAndSwapUint32(p.addr, v, n)
	if err != nil {
		return err
	}
	if prev != v {
		return unix.EAGAIN
	}
	t.pi.mu.Lock()
	delete(t.pi.blocked, p.Self)
	for o := b.nextPI(w, p.key); o != nil; o = b.nextPI(o, p.key) {
		o.pi.owner = p.Self
	}
	t.pi.mu.Unlock()
	p.acquired = true
	b.wakeLocked(w)
	return nil
}

// OwnerExit hands on the PI futexes that waiters wait for self to release, marked OwnerDied (exit_pi_state_list). The caller has made
// Locker.Owner return ESRCH for self.
func (t *Table) OwnerExit(self any) {
	var ws []*Waiter
	t.pi.mu.Lock()
	for _, w := range t.pi.blocked {
		if w.pi.owner == self {
			ws = append(ws, w)
		}
	}
	t.pi.mu.Unlock()
	for _, w := range ws {
		t.passDead(w, self)
	}
}

// passDead hands the futex that w waits for self to release to the first of its waiters.
// +checklocksignore: the bucket is found by locking it.
func (t *Table) passDead(w *Waiter, self any) {
	b := w.bucket.Load()
	for b != nil {
		b.mu.Lock()
		if w.bucket.Load() == b {
			break
		}
		b.mu.Unlock()
		b = w.bucket.Load()
	}
	if b == nil {
		return
	}
	defer b.mu.Unlock()
	t.pi.mu.Lock()
	waits := w.pi != nil && t.pi.blocked[w.pi.Self] == w && w.pi.owner == self
	t.pi.mu.Unlock()
	if !waits {
		return
	}
	first := b.firstPI(w.pi.key)
	for range maxRaces {
		v, err := first.pi.target.LoadUint32(first.pi.addr)
		if err == nil {
			err = t.passLocked(b, first, v, OwnerDied)
		}
		if err == nil {
			return
		}
		if err != unix.EAGAIN {
			t.pi.leave(first)
			first.pi.err = err
			b.wakeLocked(first)
			if first = b.firstPI(w.key); first == nil {
				return
			}
		}
	}
}

// PrepareRequeuePI is Prepare for FUTEX_WAIT_REQUEUE_PI: w may be requeued only to the PI futex pi at piAddr, by RequeuePI.
func (t *Table) PrepareRequeuePI(w *Waiter, tg Target, addr hostarch.Addr, k, pi Key, piAddr hostarch.Addr, l Locker, val uint32) error {
	if k == pi {
		return unix.EINVAL
	}
	w.Clear()
	w.piState = piWait{Locker: l, key: pi, addr: piAddr, target: tg}
	w.pi = &w.piState
	return t.enqueue(w, tg, addr, k, val, BitsetAny)
}

// RequeuePI is FUTEX_CMP_REQUEUE_PI: the first waiter gets the PI futex if it is free, up to move others wait for it. EAGAIN, EINVAL, EDEADLK, ...
func (t *Table) RequeuePI(tg Target, addr hostarch.Addr, from, to Key, move int, val uint32) (int, error) {
	if from == to {
		return 0, unix.EINVAL
	}
	fb, tb := t.bucketOf(from), t.bucketOf(to)
	tb.n.Add(1)
	defer tb.n.Add(-1)
	lockTwo(fb, tb)
	defer unlockTwo(fb, tb)
	if err := compare(tg, addr, val); err != nil {
		return 0, err
	}
	n := 0
	for w := fb.head.next; w != &fb.head && n <= move; {
		next := w.next
		if w.key == from {
			if w.pi == nil || w.pi.key != to {
				return n, unix.EINVAL
			}
			blocked, err := t.claimLocked(tb, w, false)
			switch {
			case err != nil:
				return n, err
			case blocked:
				fb.moveLocked(w, tb, to)
			default:
				w.pi.acquired = true
				fb.wakeLocked(w)
			}
			n++
		}
		w = next
	}
	return n, nil
}
