package kernel

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"
	"moat/sentry/mm"
	"moat/sentry/vfs"
)

// Personality is personality(2)'s word.
func (t *Task) Personality() uint32 { return t.attrs.personality.Load() }

// SetPersonality sets it.
func (t *Task) SetPersonality(p uint32) { t.attrs.personality.Store(p) }

// TimerSlack is PR_GET_TIMERSLACK in nanoseconds.
func (t *Task) TimerSlack() int64 { return t.attrs.timerSlack.Load() }

// SetTimerSlack is PR_SET_TIMERSLACK; 0 restores what the thread was born with.
func (t *Task) SetTimerSlack(ns int64) {
	if ns <= 0 {
		ns = t.attrs.defaultSlack
	}
	t.attrs.timerSlack.Store(ns)
}

// PDeathSignal is PR_GET_PDEATHSIG.
func (t *Task) PDeathSignal() int32 { return t.attrs.pdeathsig.Load() }

// SetPDeathSignal is PR_SET_PDEATHSIG.
func (t *Task) SetPDeathSignal(sig int32) { t.attrs.pdeathsig.Store(sig) }

// THPDisabled is PR_GET_THP_DISABLE.
func (t *Task) THPDisabled() uint32 { return t.attrs.thpDisable.Load() }

// SetTHPDisabled is PR_SET_THP_DISABLE.
func (t *Task) SetTHPDisabled(mode uint32) { t.attrs.thpDisable.Store(mode) }

// Barrier returns when every thread that was running guest code (in m, if it is not nil) has left the guest at least once since: with that the
// thread has passed a memory barrier and serialised its instruction stream (membarrier(2)).
func (k *Kernel) Barrier(m *mm.MemoryManager) {
	type running struct {
		t     *Task
		count uint32
	}
	var rs []running
	k.tasksMu.RLock()
	for _, p := range k.allPIDs.pids {
		t := p.task
		if t == nil || (m != nil && t.mm.Load() != m) {
			continue
		}
		if n := t.inGuest.Load(); n&1 != 0 {
			rs = append(rs, running{t, n})
			if r := t.thr.Load(); r != nil {
				r.thread.Interrupt()
			}
		}
	}
	k.tasksMu.RUnlock()
	for pause := time.Microsecond; len(rs) > 0; pause = min(2*pause, time.Millisecond) {
		rs = slices.DeleteFunc(rs, func(r running) bool { return r.t.inGuest.Load() != r.count })
		if len(rs) > 0 {
			time.Sleep(pause)
		}
	}
}

// Kinds of objects that kcmp(2) compares.
const (
	kcmpFile = iota
	kcmpVM
	kcmpFiles
	kcmpFS
	kcmpSighand
	kcmpIO
	kcmpSysVSem
)

// Compare is kcmp(2) for x and y: 0 if they share the object, 3 (not equal, without an order) if not.
func Compare(x, y *Task, kind, a, b int32) (int, error) {
	same := false
	switch kind {
	case kcmpFile:
		f, g := x.fileOf(a), y.fileOf(b)
		if f == nil || g == nil {
			return 0, unix.EBADF
		}
		same = f == g
	case kcmpVM:
		same = x.mm.Load() == y.mm.Load()
	case kcmpFiles, kcmpFS:
		x.mu.Lock()
		fd, fs := x.fdt, x.fs
		x.mu.Unlock()
		y.mu.Lock()
		same = (kind == kcmpFiles && fd == y.fdt) || (kind == kcmpFS && fs == y.fs)
		y.mu.Unlock()
	case kcmpSighand:
		x.tg.sigMu.Lock()
		h := x.tg.handlers
		x.tg.sigMu.Unlock()
		y.tg.sigMu.Lock()
		same = h == y.tg.handlers
		y.tg.sigMu.Unlock()
	case kcmpIO: // nobody has an I/O context
		same = true
	case kcmpSysVSem:
		same = x.tg == y.tg || !x.undoes() && !y.undoes()
	default:
		return 0, unix.EINVAL
	}
	if same {
		return 0, nil
	}
	return 3, nil
}

// undoes reports whether t's process has a list for adjustments of semaphores: it has made some, or a thread to share it with.
func (t *Task) undoes() bool {
	ipc := t.Namespaces().IPC
	return t.tg.sharesUndo.Load() || ipc != nil && ipc.Sem.Undoes(t.tg)
}

// fileOf is the identity of t's open file fd, for comparing only.
func (t *Task) fileOf(fd int32) *vfs.FileDescription {
	table := t.GetFDTable()
	if table == nil {
		return nil
	}
	defer table.DecRef(vfs.Background())
	f := table.Get(fd)
	if f != nil {
		f.DecRef()
	}
	return f
}
