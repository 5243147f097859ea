package futex

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
)

// fake is memory of a few words; addresses from 1000 on fault.
type fake struct{ w [64]atomic.Uint32 }

func (f *fake) LoadUint32(a hostarch.Addr) (uint32, error) {
	if a >= 1000 {
		return 0, unix.EFAULT
	}
	return f.w[a].Load(), nil
}

func (f *fake) CompareAndSwapUint32(a hostarch.Addr, old, n uint32) (uint32, error) {
	if a >= 1000 {
		return 0, unix.EFAULT
	}
	for {
		if v := f.w[a].Load(); v != old || f.w[a].CompareAndSwap(old, n) {
			return v, nil
		}
	}
}

func (f *fake) key(a hostarch.Addr) Key { return Key{f, uint64(a)} }

func is(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func woken(w *Waiter) bool {
	select {
	case <-w.C:
		return true
	default:
		return false
	}
}

func TestWaitWake(t *testing.T) {
	tab, m := NewTable(), &fake{}
	w := [3]*Waiter{NewWaiter(), NewWaiter(), NewWaiter()}
	is(t, "changed word", tab.Prepare(w[0], m, 1, m.key(1), 5, BitsetAny), unix.EAGAIN)
	is(t, "fault", tab.Prepare(w[0], m, 1000, m.key(1), 0, BitsetAny), unix.EFAULT)
	is(t, "no bits", tab.Prepare(w[0], m, 1, m.key(1), 0, 0), unix.EINVAL)
	for i := range w {
		is(t, "prepare", tab.Prepare(w[i], m, 1, m.key(1), 0, 1<<i), nil)
	}
	if n, _ := tab.Wake(m.key(1), 9, 8); n != 0 {
		t.Error("woken by no bit", n)
	}
	if n, _ := tab.Wake(m.key(1), 9, 2); n != 1 || !woken(w[1]) || tab.Cancel(w[1]) {
		t.Error("bit 2", n)
	}
	v := uint32(0)
	if n, err := tab.Requeue(m, 1, m.key(1), m.key(2), 1, 1, &v); n != 2 || err != nil || !woken(w[0]) {
		t.Error("requeue", n, err)
	}
	if n, _ := tab.Wake(m.key(1), 1, BitsetAny); n != 0 {
		t.Error("left behind", n)
	}
	if !tab.Cancel(w[2]) || tab.Cancel(w[2]) {
		t.Error("cancel")
	}
	for i := range tab.buckets {
		if b := &tab.buckets[i]; b.n.Load() != 0 || b.head.next != &b.head {
			t.Error("bucket", i, "not empty")
		}
	}
}

// TestNoLostWakeup: a waker that changed the word either finds the waiter, or the waiter finds the new value.
func TestNoLostWakeup(t *testing.T) {
	tab, m := NewTable(), &fake{}
	w := NewWaiter()
	for i := uint32(0); i < 20000; i++ {
		go func() {
			m.w[1].Store(i + 1)
			tab.Wake(m.key(1), 1, BitsetAny)
		}()
		if tab.Prepare(w, m, 1, m.key(1), i, BitsetAny) == nil {
			select {
			case <-w.C:
			case <-time.After(5 * time.Second):
				t.Fatal("lost wake-up at", i)
			}
		} else {
			for m.w[1].Load() != i+1 {
			}
		}
		tab.Cancel(w)
	}
}

// TestMutex is glibc's mutex on 32 goroutines and 4 words.
func TestMutex(t *testing.T) {
	tab, m := NewTable(), &fake{}
	var counts [4]int
	var wg sync.WaitGroup
	for g := range 32 {
		wg.Go(func() {
			w := NewWaiter()
			for i := range 2000 {
				a := hostarch.Addr((g + i) % 4)
				if p, _ := m.CompareAndSwapUint32(a, 0, 1); p != 0 {
					for m.w[a].Swap(2) != 0 {
						if tab.Prepare(w, m, a, m.key(a), 2, BitsetAny) == nil {
							<-w.C
							tab.Cancel(w)
						}
					}
				}
				counts[a]++
				if m.w[a].Swap(0) == 2 {
					tab.Wake(m.key(a), 1, BitsetAny)
				}
			}
		})
	}
	wg.Wait()
	if counts != [4]int{16000, 16000, 16000, 16000} {
		t.Error(counts)
	}
}

func TestWakeOp(t *testing.T) {
	tab, m := NewTable(), &fake{}
	for _, c := range []struct {
		enc, in, out uint32
		holds        bool
	}{{0x00005000 | 0<<24, 0, 5, true}, {1<<28 | 0xfff000, 10, 9, false}, {3<<28 | 3<<12 | 4<<24, 7, 4, true}, {8<<28 | 4<<12, 1, 16, false},
		{2<<28 | 1<<12 | 2<<24 | 0xfff, 0xfffffffe, 0xffffffff, true}} {
		m.w[1].Store(c.in)
		if holds, err := applyOp(m, 1, c.enc); holds != c.holds || err != nil || m.w[1].Load() != c.out {
			t.Errorf("%#x: %v %v %#x", c.enc, holds, err, m.w[1].Load())
		}
	}
	_, err := tab.WakeOp(m, 1, m.key(1), m.key(2), 1, 1, 5<<28)
	is(t, "operation 5", err, unix.ENOSYS)
}

// people are tasks by TID; a dead one is not there.
type people map[uint32]bool

func (p people) locker(tid uint32) Locker {
	return Locker{tid, tid, func(o uint32) (any, error) {
		if p[o] {
			return o, nil
		}
		return nil, unix.ESRCH
	}}
}

// +checklocksignore: nobody else.
func TestPI(t *testing.T) {
	tab, m, p := NewTable(), &fake{}, people{1: true, 2: true, 3: true}
	w := [4]*Waiter{NewWaiter(), NewWaiter(), NewWaiter(), NewWaiter()}
	lock := func(tid uint32, a hostarch.Addr, try bool) (bool, error) {
		return tab.LockPI(w[tid], m, a, m.key(a), p.locker(tid), try)
	}
	if b, err := lock(1, 1, false); b || err != nil || m.w[1].Load() != 1 {
		t.Fatal("free", b, err)
	}
	_, err := lock(1, 1, false)
	is(t, "own", err, unix.EDEADLK)
	_, err = lock(2, 1, true)
	is(t, "try", err, unix.EAGAIN)
	if b, err := lock(2, 1, false); !b || err != nil || m.w[1].Load() != 1|Waiters {
		t.Fatal("taken", b, err)
	}
	lock(2+1, 1, false)
	_, err = tab.Wake(m.key(1), 1, BitsetAny)
	is(t, "plain wake", err, unix.EINVAL)
	is(t, "not the owner", tab.UnlockPI(m, 1, m.key(1), 2), unix.EPERM)
	is(t, "unlock", tab.UnlockPI(m, 1, m.key(1), 1), nil)
	if !woken(w[2]) || m.w[1].Load() != 2|Waiters {
		t.Errorf("not handed over: %#x", m.w[1].Load())
	}
	is(t, "finish", tab.FinishPI(w[2], nil, nil), nil)
	// 2 dies: 3 gets it, marked.
	p[2] = false
	tab.OwnerExit(uint32(2))
	if !woken(w[3]) || m.w[1].Load() != 3|OwnerDied {
		t.Errorf("not inherited: %#x", m.w[1].Load())
	}
	is(t, "finish", tab.FinishPI(w[3], nil, nil), nil)
	// A cycle: 1 owns word 2 and waits for 3, who owns word 1 and then wants word 2.
	lock(1, 2, false)
	lock(1, 1, false)
	_, err = lock(3, 2, false)
	is(t, "cycle", err, unix.EDEADLK)
	is(t, "timeout", tab.FinishPI(w[1], unix.ETIMEDOUT, nil), unix.ETIMEDOUT)
	m.w[5].Store(2)
	_, err = lock(1, 5, false)
	is(t, "dead owner", err, unix.ESRCH)
	if len(tab.pi.blocked) != 0 {
		t.Error("still blocked", tab.pi.blocked)
	}
}

// +checklocksignore: nobody else.
func TestRequeuePI(t *testing.T) {
	tab, m, p := NewTable(), &fake{}, people{1: true, 2: true, 3: true}
	w := [4]*Waiter{NewWaiter(), NewWaiter(), NewWaiter(), NewWaiter()}
	for i := uint32(1); i <= 3; i++ {
		is(t, "prepare", tab.PrepareRequeuePI(w[i], m, 1, m.key(1), m.key(2), 2, p.locker(i), 0), nil)
	}
	_, err := tab.RequeuePI(m, 1, m.key(1), m.key(3), 1, 0)
	is(t, "elsewhere", err, unix.EINVAL)
	if n, err := tab.RequeuePI(m, 1, m.key(1), m.key(2), 1, 0); n != 2 || err != nil || !woken(w[1]) || m.w[2].Load() != 1|Waiters {
		t.Fatalf("requeue %d %v %#x", n, err, m.w[2].Load())
	}
	is(t, "first", tab.FinishPI(w[1], nil, nil), nil)
	is(t, "unlock", tab.UnlockPI(m, 2, m.key(2), 1), nil)
	is(t, "second", tab.FinishPI(w[2], nil, nil), nil)
	is(t, "interrupted before", tab.FinishPI(w[3], unix.EINTR, unix.EAGAIN), unix.EAGAIN)
	if m.w[2].Load() != 2 || len(tab.pi.blocked) != 0 {
		t.Error("left behind")
	}
}

func BenchmarkWakeNobody(b *testing.B) {
	tab, m := NewTable(), &fake{}
	k := m.key(1)
	b.ReportAllocs()
	for b.Loop() {
		tab.Wake(k, 1, BitsetAny)
	}
}

func BenchmarkWaitWake(b *testing.B) {
	tab, m := NewTable(), &fake{}
	w, k := NewWaiter(), m.key(1)
	b.ReportAllocs()
	for b.Loop() {
		tab.Prepare(w, m, 1, k, 0, BitsetAny)
		tab.Wake(k, 1, BitsetAny)
		<-w.C
		tab.Cancel(w)
	}
}

// BenchmarkPingPong hands over between two goroutines.
func BenchmarkPingPong(b *testing.B) {
	tab, m := NewTable(), &fake{}
	b.ReportAllocs()
	wait := func(w *Waiter, a hostarch.Addr, v uint32) {
		for m.w[a].Load() != v {
			if tab.Prepare(w, m, a, m.key(a), v-1, BitsetAny) == nil {
				<-w.C
				tab.Cancel(w)
			}
		}
	}
	go func() {
		w := NewWaiter()
		for i := uint32(1); i <= uint32(b.N); i++ {
			wait(w, 1, i)
			m.w[2].Store(i)
			tab.Wake(m.key(2), 1, BitsetAny)
		}
	}()
	w := NewWaiter()
	for i := uint32(1); i <= uint32(b.N); i++ {
		m.w[1].Store(i)
		tab.Wake(m.key(1), 1, BitsetAny)
		wait(w, 2, i)
	}
}

func BenchmarkContended(b *testing.B) {
	for _, n := range []int{2, 200} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			tab, m := NewTable(), &fake{}
			var wg sync.WaitGroup
			b.ReportAllocs()
			for range n {
				wg.Go(func() {
					w := NewWaiter()
					for range b.N / n {
						if p, _ := m.CompareAndSwapUint32(1, 0, 1); p != 0 {
							for m.w[1].Swap(2) != 0 {
								if tab.Prepare(w, m, 1, m.key(1), 2, BitsetAny) == nil {
									<-w.C
									tab.Cancel(w)
								}
							}
						}
						if m.w[1].Swap(0) == 2 {
							tab.Wake(m.key(1), 1, BitsetAny)
						}
					}
				})
			}
			wg.Wait()
		})
	}
}
