// Package signal has the parts of signal(7) that stand alone: queues of pending signals, default actions, and the
// x86-64 signal frame. It takes no locks: the kernel guards each Pending by the signal lock of its thread group.
package signal

import (
	"math/bits"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/abi/linux"
)

// Sets of signals that the kernel treats alike (include/linux/signal.h).
const (
	// Synchronous signals are taken from the queue first.
	Synchronous = linux.SignalSet(1<<(linux.SIGSEGV-1) | 1<<(linux.SIGBUS-1) | 1<<(linux.SIGILL-1) | 1<<(linux.SIGTRAP-1) | 1<<(linux.SIGFPE-1) | 1<<(linux.SIGSYS-1))
	// Unblockable signals cannot be masked, caught or ignored.
	Unblockable = linux.SignalSet(1<<(linux.SIGKILL-1) | 1<<(linux.SIGSTOP-1))
	// Stop signals stop the process by default.
	Stop = linux.SignalSet(1<<(linux.SIGSTOP-1) | 1<<(linux.SIGTSTP-1) | 1<<(linux.SIGTTIN-1) | 1<<(linux.SIGTTOU-1))
	// ignored signals do nothing by default.
	ignored = linux.SignalSet(1<<(linux.SIGCONT-1) | 1<<(linux.SIGCHLD-1) | 1<<(linux.SIGWINCH-1) | 1<<(linux.SIGURG-1))
	// core signals dump core by default.
	core = linux.SignalSet(1<<(linux.SIGQUIT-1)|1<<(linux.SIGILL-1)|1<<(linux.SIGTRAP-1)|1<<(linux.SIGABRT-1)|1<<(linux.SIGFPE-1)|
		1<<(linux.SIGSEGV-1)|1<<(linux.SIGBUS-1)|1<<(linux.SIGSYS-1)|1<<(linux.SIGXCPU-1)|1<<(linux.SIGXFSZ-1)) | Synchronous
)

// Has reports whether set contains sig.
func Has(set linux.SignalSet, sig linux.Signal) bool { return set&linux.SignalSetOf(sig) != 0 }

// DefaultIgnored reports whether sig's default action is to do nothing.
func DefaultIgnored(sig linux.Signal) bool { return Has(ignored, sig) }

// DefaultStop reports whether sig's default action is to stop.
func DefaultStop(sig linux.Signal) bool { return Has(Stop, sig) }

// DefaultCore reports whether sig's default action is to dump core (and terminate).
func DefaultCore(sig linux.Signal) bool { return Has(core, sig) }

// Counter counts the queued signals of one user against RLIMIT_SIGPENDING.
type Counter interface{ AddPending(n int64) int64 }

// Entry is one queued signal (struct sigqueue).
type Entry struct {
	Info linux.SignalInfo
	// OnDequeue, if set, is called when the entry leaves a queue towards a guest, with the signal lock held: timers fill in the
	// overrun there. It may change *info. Discard reports a flush instead (info is nil).
	OnDequeue func(info *linux.SignalInfo)

	counter Counter
	next    *Entry
	// prealloc entries belong to someone else and are queued at most once; queued says that they are.
	prealloc bool
	queued   atomic.Bool
}

// NewPreallocated returns an entry that its owner (a timer) keeps and that is queued at most once at a time.
func NewPreallocated() *Entry { return &Entry{prealloc: true} }

// Queued reports whether a preallocated entry is in a queue now.
func (e *Entry) Queued() bool { return e.queued.Load() }

var entries = sync.Pool{New: func() any { return new(Entry) }}

func (e *Entry) free() {
	if e.counter != nil {
		e.counter.AddPending(-1)
		e.counter = nil
	}
	e.next = nil
	if e.prealloc {
		e.queued.Store(false)
		return
	}
	e.OnDequeue = nil
	entries.Put(e)
}

// Pending is a set of pending signals with their infos in order of arrival (struct sigpending).
type Pending struct {
	set        linux.SignalSet
	head, tail *Entry
}

// Set is the set of pending signals.
func (p *Pending) Set() linux.SignalSet { return p.set }

// Add queues a signal (kernel/signal.c __send_signal_locked). Standard signals already pending are dropped. When the user's limit is
// reached a signal that must not be lost is kept without its info; one sent by sigqueue or a timer gives false (EAGAIN).
func (p *Pending) Add(info *linux.SignalInfo, c Counter, limit uint64) bool {
	sig := linux.Signal(info.Signo)
	if sig.IsStandard() && Has(p.set, sig) {
		return true
	}
	if sig == linux.SIGKILL {
		p.set |= linux.SignalSetOf(sig)
		return true
	}
	over := false
	if c != nil {
		n := uint64(c.AddPending(1))
		// Standard signals from the kernel or kill(2) may pass the limit (override_rlimit).
		override := sig.IsStandard() && (info.Code >= 0)
		if n > limit && !override {
			c.AddPending(-1)
			over = true
		}
	}
	if over {
		if sig.IsRealtime() && info.Code != linux.SI_USER {
			return false
		}
		p.set |= linux.SignalSetOf(sig)
		return true
	}
	e := entries.Get().(*Entry)
	e.Info, e.counter, e.OnDequeue = *info, c, nil
	p.push(e)
	return true
}

// AddPreallocated queues e, which is not queued.
func (p *Pending) AddPreallocated(e *Entry) {
	e.queued.Store(true)
	p.push(e)
}

func (p *Pending) push(e *Entry) {
	p.set |= linux.SignalSetOf(linux.Signal(e.Info.Signo))
	e.next = nil
	if p.tail == nil {
		p.head = e
	} else {
		p.tail.next = e
	}
	p.tail = e
}

// Next returns the signal of p, not in mask, that is to be delivered next, or 0 (kernel/signal.c next_signal).
func (p *Pending) Next(mask linux.SignalSet) linux.Signal {
	s := p.set &^ mask
	if s == 0 {
		return 0
	}
	if sync := s & Synchronous; sync != 0 {
		s = sync
	}
	return linux.Signal(bits.TrailingZeros64(uint64(s)) + 1)
}

// Dequeue removes the first signal sig and stores its info; it reports whether a preallocated entry was behind it.
func (p *Pending) Dequeue(sig linux.Signal, info *linux.SignalInfo) {
	var prev, found, foundPrev *Entry
	more := false
	for e := p.head; e != nil; prev, e = e, e.next {
		if linux.Signal(e.Info.Signo) != sig {
			continue
		}
		if found != nil {
			more = true
			break
		}
		// Even of a standard signal there may be more: those of timers are queued in any case.
		found, foundPrev = e, prev
	}
	if !more {
		p.set &^= linux.SignalSetOf(sig)
	}
	if found == nil {
		*info = linux.SignalInfo{Signo: int32(sig), Code: linux.SI_USER}
		return
	}
	p.unlink(foundPrev, found)
	*info = found.Info
	if found.OnDequeue != nil {
		found.queued.Store(false)
		found.OnDequeue(info)
	}
	found.free()
}

func (p *Pending) unlink(prev, e *Entry) {
	if prev == nil {
		p.head = e.next
	} else {
		prev.next = e.next
	}
	if p.tail == e {
		p.tail = prev
	}
}

// Discard drops all signals in set (flush_sigqueue_mask).
func (p *Pending) Discard(set linux.SignalSet) {
	if p.set&set == 0 {
		return
	}
	p.set &^= set
	var prev *Entry
	for e := p.head; e != nil; {
		next := e.next
		if Has(set, linux.Signal(e.Info.Signo)) {
			p.unlink(prev, e)
			dequeue := e.OnDequeue
			e.free()
			if dequeue != nil {
				dequeue(nil)
			}
		} else {
			prev = e
		}
		e = next
	}
}

// Remove takes a preallocated entry out of the queue, if it is in it (a deleted timer).
func (p *Pending) Remove(e *Entry) bool {
	var prev *Entry
	same := 0
	var found, foundPrev *Entry
	for x := p.head; x != nil; prev, x = x, x.next {
		if x.Info.Signo == e.Info.Signo {
			same++
		}
		if x == e {
			found, foundPrev = x, prev
		}
	}
	if found == nil {
		return false
	}
	p.unlink(foundPrev, found)
	if same == 1 {
		p.set &^= linux.SignalSetOf(linux.Signal(e.Info.Signo))
	}
	e.free()
	return true
}
