package syscalls

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"

	"moat/sentry/kernel"
	"moat/sentry/kernel/futex"
)

const robustHeadSize = 24

func sysSetRobustList(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a[1] != robustHeadSize {
		return 0, unix.EINVAL
	}
	t.SetRobustList(a[0].Pointer())
	return 0, nil
}

func sysGetRobustList(t *kernel.Task, a kernel.Args) (uintptr, error) {
	o, err := taskOf(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	if !t.MayAccess(o, false) {
		return 0, unix.EPERM
	}
	if err := t.CopyOutUint64(a[2].Pointer(), robustHeadSize); err != nil {
		return 0, err
	}
	return 0, t.CopyOutUint64(a[1].Pointer(), uint64(o.RobustList()))
}

// FutexWake wakes one waiter at addr (kernel.Hooks).
func FutexWake(t *kernel.Task, addr hostarch.Addr) {
	if k, err := futexKey(t, addr, false); err == nil {
		futexes.Wake(k, 1, futex.BitsetAny)
	}
}

// ExitRobust is exit_robust_list and exit_pi_state_list (kernel/futex/core.c): it marks the robust futexes that t holds, wakes who waits for
// them, and hands on PI futexes.
func ExitRobust(t *kernel.Task) {
	if head := t.RobustList(); head != 0 {
		walkRobust(t, head)
	}
	t.FutexDead.Store(true)
	futexes.OwnerExit(t)
}

// walkRobust follows the list, which is the guest's: at most ROBUST_LIST_LIMIT entries.
func walkRobust(t *kernel.Task, head hostarch.Addr) {
	const limit = 2048
	tid := uint32(t.TID())
	next, err1 := t.CopyInUint64(head)
	offset, err2 := t.CopyInUint64(head + 8)
	pending, err3 := t.CopyInUint64(head + 16)
	if err1 != nil || err2 != nil || err3 != nil {
		return
	}
	for n := 0; hostarch.Addr(next&^1) != head && n < limit; n++ {
		after, err := t.CopyInUint64(hostarch.Addr(next &^ 1))
		if next&^1 != pending&^1 && !handleDeath(t, hostarch.Addr(next&^1+offset), next&1 != 0, false, tid) || err != nil {
			return
		}
		next = after
	}
	if pending&^1 != 0 {
		handleDeath(t, hostarch.Addr(pending&^1+offset), pending&1 != 0, true, tid)
	}
}

// handleDeath is handle_futex_death.
func handleDeath(t *kernel.Task, addr hostarch.Addr, pi, pending bool, tid uint32) bool {
	m := t.MemoryManager()
	for {
		v, err := m.LoadUint32(addr)
		if err != nil {
			return false
		}
		if pending && !pi && v == 0 {
			FutexWake(t, addr)
			return true
		}
		if v&futex.TIDMask != tid {
			return true
		}
		prev, err := m.CompareAndSwapUint32(addr, v, v&futex.Waiters|futex.OwnerDied)
		if err != nil {
			return false
		}
		if prev != v {
			continue
		}
		if !pi && v&futex.Waiters != 0 {
			FutexWake(t, addr)
		}
		return true
	}
}
