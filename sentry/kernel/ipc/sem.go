package ipc

import (
	"slices"
	"sync"
	"time"

	"moat/sentry/kernel/auth"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

// Semaphores are the semaphore sets of a namespace.
type Semaphores struct {
	registry[*SemSet]

	undoMu sync.Mutex
	// undos are the adjustments that a process leaves behind. +checklocks:undoMu
	undos map[any]map[*SemSet][]int16
}

// SemSet is a semaphore set (semop(2)).
type SemSet struct {
	Perm // guarded by mu

	mu    sync.Mutex
	sems  []sem // guarded by mu, but for their number, which is constant
	otime int64 // +checklocks:mu
	// waiters sleep, in order of arrival. +checklocks:mu
	waiters []*semWaiter
}

func (s *SemSet) lock() *sync.Mutex { return &s.mu }

type sem struct {
	value int16
	pid   int32
}

type semWaiter struct {
	ops  []linux.Sembuf
	pid  int32
	undo []int16 // adjustments to make with it, or nil
	// num is the semaphore that it waits for, zero whether to become zero.
	num  uint16
	zero bool
	done chan struct{}
	err  error
}

// NewSemaphores returns an empty registry.
func NewSemaphores(user *auth.UserNamespace) *Semaphores {
	s := &Semaphores{undos: make(map[any]map[*SemSet][]int16)}
	s.init(user, linux.SEMMNI)
	return s
}

// Get is semget(2).
func (r *Semaphores) Get(a Actor, key, n int32, flags uint32) (int32, error) {
	if n < 0 || n > linux.SEMMSL {
		return 0, unix.EINVAL
	}
	fits := func(s *SemSet) error {
		if int(n) > len(s.sems) {
			return unix.EINVAL
		}
		return nil
	}
	return r.get(a, key, flags, fits, func(p Perm) (*SemSet, error) {
		if n == 0 {
			return nil, unix.EINVAL
		}
		return &SemSet{Perm: p, sems: make([]sem, n)}, nil
	})
}

// Op is semop(2) and semtimedop(2) by the process proc (whose exit undoes SEM_UNDO). A zero deadline means none. EAGAIN, EIDRM, EINTR, ...
func (r *Semaphores) Op(a Actor, proc any, id int32, ops []linux.Sembuf, deadline time.Time) error {
	s, err := r.find(id)
	if err != nil {
		return err
	}
	alter, useUndo := false, false
	s.mu.Lock()
	for _, o := range ops {
		if int(o.SemNum) >= len(s.sems) {
			s.mu.Unlock()
			return unix.EFBIG
		}
		alter = alter || o.SemOp != 0
		useUndo = useUndo || o.SemFlg&linux.SEM_UNDO != 0
	}
	want := uint16(0444)
	if alter {
		want = 0222
	}
	if err := s.check(a, want); err != nil {
		s.mu.Unlock()
		return err
	}
	if s.removed {
		s.mu.Unlock()
		return unix.EIDRM
	}
	w := &semWaiter{ops: ops, pid: a.PID()}
	if useUndo {
		w.undo = r.undoOf(proc, s, len(s.sems))
	}
	ok, err := s.tryLocked(w)
	if ok && alter {
		s.wakeLocked()
	}
	if ok || err != nil {
		s.mu.Unlock()
		return err
	}
	w.done = make(chan struct{})
	s.waiters = append(s.waiters, w)
	s.mu.Unlock()
	err = a.BlockUntil(w.done, deadline)
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.waiters, w)
	if i < 0 {
		return w.err // it was served
	}
	s.waiters = slices.Delete(s.waiters, i, i+1)
	if err == unix.ETIMEDOUT {
		return unix.EAGAIN
	}
	return unix.EINTR
}

// tryLocked carries out all of w's operations or none; false without an error: w must wait (perform_atomic_semop).
// +checklocks:s.mu
func (s *SemSet) tryLocked(w *semWaiter) (bool, error) {
	done := 0
	undo := func() {
		for _, o := range w.ops[:done] {
			s.sems[o.SemNum].value -= o.SemOp
			if o.SemFlg&linux.SEM_UNDO != 0 {
				w.undo[o.SemNum] += o.SemOp
			}
		}
	}
	for _, o := range w.ops {
		sm := &s.sems[o.SemNum]
		v := int32(sm.value) + int32(o.SemOp)
		if (o.SemOp == 0 && sm.value != 0) || v < 0 {
			undo()
			w.num, w.zero = o.SemNum, o.SemOp == 0
			if o.SemFlg&linux.IPC_NOWAIT != 0 {
				return false, unix.EAGAIN
			}
			return false, nil
		}
		if v > linux.SEMVMX {
			undo()
			return false, unix.ERANGE
		}
		if o.SemFlg&linux.SEM_UNDO != 0 {
			u := int32(w.undo[o.SemNum]) - int32(o.SemOp)
			if u < -linux.SEMAEM-1 || u > linux.SEMAEM {
				undo()
				return false, unix.ERANGE
			}
			w.undo[o.SemNum] = int16(u)
		}
		sm.value = int16(v)
		done++
	}
	for _, o := range w.ops {
		s.sems[o.SemNum].pid = w.pid
	}
	s.otime = time.Now().Unix()
	return true, nil
}

// wakeLocked serves waiters until none can go on.
// +checklocks:s.mu
func (s *SemSet) wakeLocked() {
	for again := true; again; {
		again = false
		for i := 0; i < len(s.waiters); i++ {
			w := s.waiters[i]
			ok, err := s.tryLocked(w)
			if !ok && err == nil {
				continue
			}
			w.err = err
			s.waiters = slices.Delete(s.waiters, i, i+1)
			close(w.done)
			i--
			again = again || ok
		}
	}
}

// undoOf are proc's adjustments of s. s.mu is held.
func (r *Semaphores) undoOf(proc any, s *SemSet, n int) []int16 {
	r.undoMu.Lock()
	defer r.undoMu.Unlock()
	m := r.undos[proc]
	if m == nil {
		m = make(map[*SemSet][]int16)
		r.undos[proc] = m
	}
	if m[s] == nil {
		m[s] = make([]int16, n)
	}
	return m[s]
}

// Undoes reports whether proc has a list of adjustments.
func (r *Semaphores) Undoes(proc any) bool {
	r.undoMu.Lock()
	defer r.undoMu.Unlock()
	return r.undos[proc] != nil
}

// Exit undoes what proc's SEM_UNDO operations left (exit_sem).
func (r *Semaphores) Exit(proc any, pid int32) {
	r.undoMu.Lock()
	m := r.undos[proc]
	delete(r.undos, proc)
	r.undoMu.Unlock()
	for s, adj := range m {
		s.mu.Lock()
		for i, d := range adj {
			if d != 0 && !s.removed {
				s.sems[i].value = int16(min(max(int32(s.sems[i].value)+int32(d), 0), linux.SEMVMX))
				s.sems[i].pid = pid
			}
		}
		s.wakeLocked()
		s.mu.Unlock()
	}
}

// clearUndo drops all adjustments of semaphore num of s (of all if num < 0): SETVAL, SETALL, IPC_RMID.
func (r *Semaphores) clearUndo(s *SemSet, num int) {
	r.undoMu.Lock()
	defer r.undoMu.Unlock()
	for _, m := range r.undos {
		if adj := m[s]; adj != nil && num >= 0 {
			adj[num] = 0
		} else if adj != nil {
			clear(adj)
		}
	}
}

// Find returns the set with identifier id, or with index id if byIndex (SEM_STAT); perm says that reading it needs permission.
func (r *Semaphores) Find(a Actor, id int32, byIndex, perm bool) (*SemSet, error) {
	s, err := r.lookup(id, byIndex)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if perm {
		if err := s.check(a, 0444); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Usage is SEM_INFO: sets, semaphores in all, and the highest index.
func (r *Semaphores) Usage() (sets, sems, top int32) {
	for _, s := range r.all() {
		sets++
		sems += int32(len(s.sems))
	}
	return sets, sems, r.top()
}

// Remove is IPC_RMID.
// +checklocksignore: owned locks.
func (r *Semaphores) Remove(a Actor, id int32) error {
	s, err := r.owned(a, id)
	if err != nil {
		return err
	}
	s.removed = true
	for _, w := range s.waiters {
		w.err = unix.EIDRM
		close(w.done)
	}
	s.waiters = nil
	s.mu.Unlock()
	r.forget(s)
	r.undoMu.Lock()
	for _, m := range r.undos {
		delete(m, s)
	}
	r.undoMu.Unlock()
	return nil
}

// Stat returns the set's state.
func (s *SemSet) Stat() (p Perm, n int, otime int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Perm, len(s.sems), s.otime
}

// Set is IPC_SET.
func (s *SemSet) Set(a Actor, uid auth.KUID, gid auth.KGID, mode uint16) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.owner(a); err != nil {
		return err
	}
	s.set(uid, gid, mode)
	return nil
}

// Len is the number of semaphores.
func (s *SemSet) Len() int { return len(s.sems) }

// Values is GETALL.
func (s *SemSet) Values(a Actor) ([]uint16, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(a, 0444); err != nil {
		return nil, err
	}
	v := make([]uint16, len(s.sems))
	for i := range v {
		v[i] = uint16(s.sems[i].value)
	}
	return v, nil
}

// SetValues is SETALL, and SETVAL for the one semaphore num if it is not negative: ERANGE, EINVAL, EACCES.
func (r *Semaphores) SetValues(a Actor, s *SemSet, num int, vals []uint16) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.removed {
		return unix.EIDRM
	}
	if num >= len(s.sems) || (num < 0 && len(vals) != len(s.sems)) {
		return unix.EINVAL
	}
	for _, v := range vals {
		if v > linux.SEMVMX {
			return unix.ERANGE
		}
	}
	if err := s.check(a, 0222); err != nil {
		return err
	}
	r.clearUndo(s, num)
	for i, v := range vals {
		s.sems[max(num, 0)+i] = sem{int16(v), a.PID()}
	}
	s.Changed = time.Now().Unix()
	s.wakeLocked()
	return nil
}

// Query is GETVAL, GETPID, GETNCNT and GETZCNT.
func (s *SemSet) Query(a Actor, num int32, cmd int32) (int32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(a, 0444); err != nil {
		return 0, err
	}
	if s.removed {
		return 0, unix.EIDRM
	}
	if num < 0 || int(num) >= len(s.sems) {
		return 0, unix.EINVAL
	}
	switch cmd {
	case linux.GETVAL:
		return int32(s.sems[num].value), nil
	case linux.GETPID:
		return s.sems[num].pid, nil
	}
	n := int32(0)
	for _, w := range s.waiters {
		if int32(w.num) == num && w.zero == (cmd == linux.GETZCNT) {
			n++
		}
	}
	return n, nil
}
