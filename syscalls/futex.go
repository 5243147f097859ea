package syscalls

import (
	"math"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/marshal/primitive"

	"moat/sentry/kernel"
	"moat/sentry/kernel/futex"
	"moat/sentry/kernel/ktime"
	"moat/sentry/linuxerr"
	"moat/sentry/mm"
)

func init() {
	register(
		full(202, "futex", "ptr hex uint ptr ptr uint", sysFutex),
		full(273, "set_robust_list", "ptr size", sysSetRobustList),
		full(274, "get_robust_list", "pid ptr ptr", sysGetRobustList),
		full(449, "futex_waitv", "ptr uint hex timespec int", sysFutexWaitv),
		full(454, "futex_wake", "ptr hex int hex", sysFutexWake2),
		full(455, "futex_wait", "ptr uint hex hex timespec int", sysFutexWait2),
		full(456, "futex_requeue", "ptr hex int int", sysFutexRequeue2),
	)
}

// futexes is every queue; keys hold what they are about, so that one table serves all. It is there once there is a Table: only sentries pay for it.
var futexes *futex.Table

var makeFutexes = sync.OnceFunc(func() { futexes = futex.NewTable() })

var futexWaiters = sync.Pool{New: func() any { return futex.NewWaiter() }}

// Flags of the futex2 calls (include/uapi/linux/futex.h).
const (
	futex2Size32  = 2
	futex2Private = 128
)

func futexKey(t *kernel.Task, addr hostarch.Addr, private bool) (futex.Key, error) {
	k, err := t.MemoryManager().FutexKey(addr, private)
	return futex.Key(k), err
}

// locker is t as a PI futex sees it. A task that has given up its futexes, and for a private futex one of another process, owns none
// (attach_to_pi_owner).
func locker(t *kernel.Task, private bool) futex.Locker {
	return futex.Locker{TID: uint32(t.TID()), Self: t, Owner: func(tid uint32) (any, error) {
		o := t.PIDNamespace().Task(int32(tid))
		switch {
		case o == nil || o.FutexDead.Load():
			return nil, unix.ESRCH
		case private && o.MemoryManager() != t.MemoryManager():
			return nil, unix.EPERM
		}
		return o, nil
	}}
}

func newFutexWaiter() *futex.Waiter { return futexWaiters.Get().(*futex.Waiter) }

func freeFutexWaiter(w *futex.Waiter) {
	w.Clear()
	futexWaiters.Put(w)
}

// waitDeadline is when a wait ends: the zero time is never. when is in nanoseconds of the clock.
func waitDeadline(clock int32, when int64) time.Time {
	now := ktime.Monotonic()
	if clock == linux.CLOCK_REALTIME {
		now = ktime.Realtime()
	}
	return deadlineIn(when - now)
}

// deadlineIn is ns from now, never the zero time.
func deadlineIn(ns int64) time.Time { return time.Now().Add(time.Duration(ns)) }

// copyInTimeout reads a struct timespec: nil for a null pointer, saturated at 292 years. EINVAL, EFAULT.
func copyInTimeout(t *kernel.Task, p hostarch.Addr) (*int64, error) {
	if p == 0 {
		return nil, nil
	}
	var ts linux.Timespec
	if _, err := ts.CopyIn(t, p); err != nil {
		return nil, err
	}
	ns, err := timespecNs(ts)
	if err != nil {
		return nil, err
	}
	return &ns, nil
}

// copyInDeadline reads a struct timespec from now on: the zero time for a null pointer. EINVAL, EFAULT.
func copyInDeadline(t *kernel.Task, p hostarch.Addr) (time.Time, error) {
	ns, err := copyInTimeout(t, p)
	if ns == nil || err != nil {
		return time.Time{}, err
	}
	return deadlineIn(*ns), nil
}

// timespecNs is ts in nanoseconds, saturated at 292 years: EINVAL.
func timespecNs(ts linux.Timespec) (int64, error) {
	switch {
	case !ts.Valid():
		return 0, unix.EINVAL
	case ts.Sec >= 9e9:
		return math.MaxInt64, nil
	}
	return ts.ToNsec(), nil
}

func sysFutex(t *kernel.Task, a kernel.Args) (uintptr, error) {
	op := a[1].Uint()
	cmd := op &^ (linux.FUTEX_PRIVATE_FLAG | linux.FUTEX_CLOCK_REALTIME)
	private := op&linux.FUTEX_PRIVATE_FLAG != 0
	clock := int32(linux.CLOCK_MONOTONIC)
	if op&linux.FUTEX_CLOCK_REALTIME != 0 {
		if cmd != linux.FUTEX_WAIT_BITSET && cmd != linux.FUTEX_WAIT_REQUEUE_PI && cmd != futexLockPI2 {
			return 0, unix.ENOSYS
		}
		clock = linux.CLOCK_REALTIME
	}
	addr, addr2, val, val3 := a[0].Pointer(), a[4].Pointer(), a[2].Uint(), a[5].Uint()
	switch cmd {
	case linux.FUTEX_WAIT, linux.FUTEX_WAIT_BITSET:
		timeout, err := copyInTimeout(t, a[3].Pointer())
		if err != nil {
			return 0, err
		}
		if cmd == linux.FUTEX_WAIT {
			val3 = futex.BitsetAny
		}
		if timeout != nil && cmd == linux.FUTEX_WAIT {
			*timeout = addSat(ktime.Monotonic(), *timeout)
		}
		return futexWait(t, addr, private, val, val3, clock, timeout)
	case linux.FUTEX_WAKE, linux.FUTEX_WAKE_BITSET:
		if cmd == linux.FUTEX_WAKE {
			val3 = futex.BitsetAny
		}
		k, err := futexKey(t, addr, private)
		if err != nil {
			return 0, err
		}
		n, err := futexes.Wake(k, int(int32(val)), val3)
		return uintptr(n), err
	case linux.FUTEX_REQUEUE, linux.FUTEX_CMP_REQUEUE, linux.FUTEX_WAKE_OP, linux.FUTEX_CMP_REQUEUE_PI:
		return futexTwo(t, cmd, addr, addr2, private, int32(val), a[3].Int(), val3)
	case linux.FUTEX_LOCK_PI, futexLockPI2, linux.FUTEX_TRYLOCK_PI:
		var timeout *int64
		if cmd != linux.FUTEX_TRYLOCK_PI {
			var err error
			if timeout, err = copyInTimeout(t, a[3].Pointer()); err != nil {
				return 0, err
			}
		}
		if cmd == linux.FUTEX_LOCK_PI {
			clock = linux.CLOCK_REALTIME
		}
		return 0, futexLockPI(t, addr, private, clock, timeout, cmd == linux.FUTEX_TRYLOCK_PI)
	case linux.FUTEX_UNLOCK_PI:
		// Who does not own it learns that first, also of a word that is none.
		if v, err := t.CopyInUint32(addr); err != nil {
			return 0, unix.EFAULT
		} else if v&futex.TIDMask != uint32(t.TID()) {
			return 0, unix.EPERM
		}
		k, err := futexKey(t, addr, private)
		if err != nil {
			return 0, err
		}
		return 0, futexes.UnlockPI(t.MemoryManager(), addr, k, uint32(t.TID()))
	case linux.FUTEX_WAIT_REQUEUE_PI:
		timeout, err := copyInTimeout(t, a[3].Pointer())
		if err != nil {
			return 0, err
		}
		return 0, futexWaitRequeuePI(t, addr, addr2, private, val, clock, timeout)
	}
	return 0, unix.ENOSYS
}

const futexLockPI2 = 13

func addSat(a, b int64) int64 {
	if c := a + b; c >= a {
		return c
	}
	return 1<<63 - 1
}

// futexWait waits; when, if not nil, is the end on clock.
func futexWait(t *kernel.Task, addr hostarch.Addr, private bool, val, bitset uint32, clock int32, when *int64) (uintptr, error) {
	if bitset == 0 {
		return 0, unix.EINVAL
	}
	k, err := futexKey(t, addr, private)
	if err != nil {
		return 0, err
	}
	w := newFutexWaiter()
	defer freeFutexWaiter(w)
	if err := futexes.Prepare(w, t.MemoryManager(), addr, k, val, bitset); err != nil {
		return 0, err
	}
	err = futexSleep(t, w, clock, when)
	if !futexes.Cancel(w) {
		return 0, nil
	}
	if err == linuxerr.ERESTARTSYS && when != nil {
		end := *when
		return 0, t.SetRestart(func(t *kernel.Task) (uintptr, error) { return futexWait(t, addr, private, val, bitset, clock, &end) })
	}
	return 0, err
}

func futexSleep(t *kernel.Task, w *futex.Waiter, clock int32, when *int64) error {
	if when == nil {
		return t.Block(w.C)
	}
	return t.BlockUntil(w.C, waitDeadline(clock, *when))
}

// futexTwo does the operations on two futexes.
func futexTwo(t *kernel.Task, cmd uint32, addr, addr2 hostarch.Addr, private bool, val, val2 int32, val3 uint32) (uintptr, error) {
	k1, err := futexKey(t, addr, private)
	if err != nil {
		return 0, err
	}
	k2, err := futexKey(t, addr2, private)
	if err != nil {
		return 0, err
	}
	n := 0
	switch cmd {
	case linux.FUTEX_WAKE_OP:
		n, err = futexes.WakeOp(t.MemoryManager(), addr2, k1, k2, int(val), int(val2), val3)
	case linux.FUTEX_CMP_REQUEUE_PI:
		if val != 1 || val2 < 0 {
			return 0, unix.EINVAL
		}
		n, err = futexes.RequeuePI(t.MemoryManager(), addr, k1, k2, int(val2), val3)
	default:
		if val < 0 || val2 < 0 {
			return 0, unix.EINVAL
		}
		var cmp *uint32
		if cmd == linux.FUTEX_CMP_REQUEUE {
			cmp = &val3
		}
		n, err = futexes.Requeue(t.MemoryManager(), addr, k1, k2, int(val), int(val2), cmp)
	}
	return uintptr(n), err
}

func futexLockPI(t *kernel.Task, addr hostarch.Addr, private bool, clock int32, when *int64, try bool) error {
	k, err := futexKey(t, addr, private)
	if err != nil {
		return err
	}
	w := newFutexWaiter()
	defer freeFutexWaiter(w)
	blocked, err := futexes.LockPI(w, t.MemoryManager(), addr, k, locker(t, private), try)
	if err != nil || !blocked {
		return err
	}
	if err = futexes.FinishPI(w, futexSleep(t, w, clock, when), nil); err == linuxerr.ERESTARTSYS {
		return linuxerr.ERESTARTNOINTR
	}
	return err
}

func futexWaitRequeuePI(t *kernel.Task, addr, addr2 hostarch.Addr, private bool, val uint32, clock int32, when *int64) error {
	k, err := futexKey(t, addr, private)
	if err != nil {
		return err
	}
	pi, err := futexKey(t, addr2, private)
	if err != nil {
		return err
	}
	w := newFutexWaiter()
	defer freeFutexWaiter(w)
	if err := futexes.PrepareRequeuePI(w, t.MemoryManager(), addr, k, pi, addr2, locker(t, private), val); err != nil {
		return err
	}
	if err = futexes.FinishPI(w, futexSleep(t, w, clock, when), linuxerr.ERESTARTNOINTR); err == linuxerr.ERESTARTSYS {
		return unix.EAGAIN // requeued, and no longer waiting at the first futex: the caller looks again
	}
	return err
}

func sysFutexWaitv(t *kernel.Task, a kernel.Args) (uintptr, error) {
	const maxWaiters = 128
	n := a[1].Uint()
	if a[2] != 0 || n == 0 || n > maxWaiters || a[0] == 0 {
		return 0, unix.EINVAL
	}
	clock := a[4].Int()
	when, err := copyInTimeout(t, a[3].Pointer())
	if err != nil {
		return 0, err
	}
	if when != nil && clock != linux.CLOCK_MONOTONIC && clock != linux.CLOCK_REALTIME {
		return 0, unix.EINVAL
	}
	all := make([]futexWaitv, n)
	if err := copyInWaitv(t, a[0], all); err != nil {
		return 0, err
	}
	c := make(chan struct{}, 1)
	ws := make([]futex.Waiter, n)
	queued := 0
	// finish takes all out of the queues and returns which was woken, or -1.
	finish := func() int {
		woken := -1
		for i := range ws[:queued] {
			if !futexes.Cancel(&ws[i]) {
				woken = i
			}
		}
		return woken
	}
	keys := make([]futex.Key, n)
	for i, v := range all {
		private, err := v.check()
		if err == nil {
			keys[i], err = futexKey(t, v.addr, private)
		}
		if err != nil {
			return 0, err
		}
	}
	for i, v := range all {
		ws[i].C = c
		if err := futexes.PrepareShared(&ws[i], t.MemoryManager(), v.addr, keys[i], uint32(v.val)); err != nil {
			if w := finish(); w >= 0 {
				return uintptr(w), nil
			}
			return 0, err
		}
		queued++
	}
	var deadline time.Time
	if when != nil {
		deadline = waitDeadline(clock, *when)
	}
	err = t.BlockUntil(c, deadline)
	if w := finish(); w >= 0 {
		return uintptr(w), nil
	}
	if err == nil {
		err = unix.EAGAIN
	}
	return 0, err
}

// futexWaitv is struct futex_waitv; the upper half of flags is reserved.
type futexWaitv struct {
	val   uint64
	addr  hostarch.Addr
	flags uint64
}

// copyInWaitv reads as many as all holds.
func copyInWaitv(t *kernel.Task, addr kernel.Arg, all []futexWaitv) error {
	words := make([]uint64, 3*len(all))
	if _, err := primitive.CopyUint64SliceIn(t, addr.Pointer(), words); err != nil {
		return err
	}
	for i := range all {
		all[i] = futexWaitv{words[3*i], hostarch.Addr(words[3*i+1]), words[3*i+2]}
	}
	return nil
}

func (v *futexWaitv) check() (private bool, err error) {
	if v.flags>>32 != 0 || v.val>>32 != 0 {
		return false, unix.EINVAL
	}
	return futex2Flags(uint32(v.flags))
}

func futex2Flags(flags uint32) (private bool, err error) {
	if flags&^uint32(futex2Private) != futex2Size32 {
		return false, unix.EINVAL
	}
	return flags&futex2Private != 0, nil
}

func sysFutexWake2(t *kernel.Task, a kernel.Args) (uintptr, error) {
	private, err := futex2Flags(a[3].Uint())
	if err != nil || a[1].Uint64()>>32 != 0 || a[1] == 0 {
		return 0, unix.EINVAL
	}
	k, err := futexKey(t, a[0].Pointer(), private)
	if err != nil || a[2].Int() == 0 {
		return 0, err
	}
	n, err := futexes.Wake(k, int(a[2].Int()), a[1].Uint())
	return uintptr(n), err
}

func sysFutexWait2(t *kernel.Task, a kernel.Args) (uintptr, error) {
	private, err := futex2Flags(a[3].Uint())
	clock := a[5].Int()
	if err != nil || a[1].Uint64()>>32 != 0 || a[2].Uint64()>>32 != 0 {
		return 0, unix.EINVAL
	}
	when, err := copyInTimeout(t, a[4].Pointer())
	if err != nil {
		return 0, err
	}
	if when != nil && clock != linux.CLOCK_MONOTONIC && clock != linux.CLOCK_REALTIME {
		return 0, unix.EINVAL
	}
	return futexWait(t, a[0].Pointer(), private, a[1].Uint(), a[2].Uint(), clock, when)
}

func sysFutexRequeue2(t *kernel.Task, a kernel.Args) (uintptr, error) {
	var both [2]futexWaitv
	if a[1] != 0 || a[0] == 0 {
		return 0, unix.EINVAL
	}
	if err := copyInWaitv(t, a[0], both[:]); err != nil {
		return 0, err
	}
	var keys [2]futex.Key
	for i, v := range both {
		private, err := v.check()
		if err != nil {
			return 0, err
		}
		if keys[i], err = futexKey(t, v.addr, private); err != nil {
			return 0, err
		}
	}
	if a[2].Int() < 0 || a[3].Int() < 0 {
		return 0, unix.EINVAL
	}
	val := uint32(both[0].val)
	n, err := futexes.Requeue(t.MemoryManager(), both[0].addr, keys[0], keys[1], int(a[2].Int()), int(a[3].Int()), &val)
	return uintptr(n), err
}

var _ futex.Target = (*mm.MemoryManager)(nil)
