package ipc

import (
	"strconv"
	"sync"
	"time"

	"moat/sentry/kernel/auth"
	"moat/sentry/memory"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

// Segments are the shared memory segments of a namespace.
type Segments struct {
	registry[*Segment]
	mem *memory.File
	dev uint64
}

// Segment is a shared memory segment (shmget(2)). It is the memmap.Identity of its mappings: their number is nattch.
type Segment struct {
	Perm // guarded by mu
	*memory.Shared
	segs *Segments
	size uint64

	mu       sync.Mutex
	attached int64 // +checklocks:mu
	atime    int64 // +checklocks:mu
	dtime    int64 // +checklocks:mu
	cpid     int32 // +checklocks:mu
	lpid     int32 // +checklocks:mu
}

func (s *Segment) lock() *sync.Mutex { return &s.mu }

// NewSegments returns an empty registry whose memory comes from mem; dev is the st_dev that /proc/PID/maps shows.
func NewSegments(user *auth.UserNamespace, mem *memory.File, dev uint64) *Segments {
	s := &Segments{mem: mem, dev: dev}
	s.init(user, linux.SHMMNI)
	return s
}

// Get is shmget(2).
func (r *Segments) Get(a Actor, key int32, size uint64, flags uint32) (int32, error) {
	fits := func(s *Segment) error {
		if size > s.size {
			return unix.EINVAL
		}
		return nil
	}
	return r.get(a, key, flags, fits, func(p Perm) (*Segment, error) {
		if size == 0 || size > linux.SHMMAX {
			return nil, unix.EINVAL
		}
		if size > r.mem.Machine() {
			return nil, unix.ENOMEM
		}
		name := "/SYSV" + hex8(uint32(p.Key))
		sh := memory.NewShared(r.mem.AccountOf(a), size, name, r.dev, uint64(p.ID))
		return &Segment{Perm: p, Shared: sh, segs: r, size: size, cpid: a.PID()}, nil
	})
}

func hex8(v uint32) string {
	s := strconv.FormatUint(uint64(v), 16)
	return "00000000"[len(s):] + s
}

// IncRef implements memmap.Identity: one more mapping.
func (s *Segment) IncRef() {
	s.mu.Lock()
	s.attached++
	s.mu.Unlock()
}

// DecRef implements memmap.Identity: one mapping less. The last one of a removed segment frees it.
func (s *Segment) DecRef() { s.put(time.Now().Unix()) }

// Unhold drops Attach's reference.
func (s *Segment) Unhold() { s.put(0) }

func (s *Segment) put(when int64) {
	s.mu.Lock()
	s.attached--
	s.dtime = max(s.dtime, when)
	gone := s.attached == 0 && s.Mode&linux.SHM_DEST != 0 && !s.removed
	s.removed = s.removed || gone
	s.mu.Unlock()
	if gone {
		s.segs.forget(s)
		s.Shared.DecRef()
	}
}

// MappedName implements memmap.Identity.
func (s *Segment) MappedName() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Mode&linux.SHM_DEST != 0 {
		return s.Shared.MappedName() + " (deleted)"
	}
	return s.Shared.MappedName()
}

// Attach checks that a may attach the segment (shmat(2)) and returns it with a reference as of one mapping, which keeps it while it is mapped.
func (r *Segments) Attach(a Actor, id int32, write, exec bool) (*Segment, error) {
	s, err := r.find(id)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	want := uint16(0444)
	if write {
		want |= 0222
	}
	if exec {
		want |= 0111
	}
	if err := s.check(a, want); err != nil {
		return nil, err
	}
	if s.removed {
		return nil, unix.EIDRM
	}
	s.attached++
	s.atime, s.lpid = time.Now().Unix(), a.PID()
	return s, nil
}

// Bytes is the size that shmget asked for.
func (s *Segment) Bytes() uint64 { return s.size }

// Device is the st_dev of the namespace's segments.
func (r *Segments) Device() uint64 { return r.dev }

// Detached notes a detach by a (shmdt(2)).
func (r *Segments) Detached(a Actor, id int32) {
	if s, err := r.find(id); err == nil {
		s.mu.Lock()
		s.lpid = a.PID()
		s.mu.Unlock()
	}
}

// Remove is IPC_RMID: the segment goes with its last mapping. (It can still be attached by identifier, as on Linux.)
// +checklocksignore: owned locks.
func (r *Segments) Remove(a Actor, id int32) error {
	s, err := r.owned(a, id)
	if err != nil {
		return err
	}
	gone := s.attached == 0 && !s.removed
	s.removed = s.removed || gone
	s.Mode |= linux.SHM_DEST
	s.mu.Unlock()
	if gone {
		r.forget(s)
		s.Shared.DecRef()
		return nil
	}
	r.mu.Lock()
	r.unkeyLocked(s)
	r.mu.Unlock()
	s.mu.Lock()
	s.Key = linux.IPC_PRIVATE
	s.mu.Unlock()
	return nil
}

// Set is IPC_SET; Lock is SHM_LOCK and SHM_UNLOCK, which only show.
func (r *Segments) Set(a Actor, id int32, uid auth.KUID, gid auth.KGID, mode uint16) error {
	return r.change(a, id, func(s *Segment) { s.set(uid, gid, mode) })
}

// Lock is SHM_LOCK and SHM_UNLOCK: memory of the sandbox is not swapped anyway.
func (r *Segments) Lock(a Actor, id int32, on bool) error {
	return r.change(a, id, func(s *Segment) {
		if s.Mode &^= linux.SHM_LOCKED; on {
			s.Mode |= linux.SHM_LOCKED
		}
	})
}

// +checklocksignore: owned locks.
func (r *Segments) change(a Actor, id int32, fn func(*Segment)) error {
	s, err := r.owned(a, id)
	if err != nil {
		return err
	}
	defer s.mu.Unlock()
	fn(s)
	return nil
}

// SegmentState is SHM_STAT's.
type SegmentState struct {
	Perm
	Size         uint64
	Atime, Dtime int64
	CPID, LPID   int32
	Attached     int64
}

// Stat is IPC_STAT, or SHM_STAT if byIndex.
func (r *Segments) Stat(a Actor, id int32, byIndex, perm bool) (SegmentState, error) {
	s, err := r.lookup(id, byIndex)
	if err != nil {
		return SegmentState{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if perm {
		if err := s.check(a, 0444); err != nil {
			return SegmentState{}, err
		}
	}
	return SegmentState{s.Perm, s.size, s.atime, s.dtime, s.cpid, s.lpid, s.attached}, nil
}

// Usage is SHM_INFO: segments, bytes, resident bytes, and the highest index.
func (r *Segments) Usage() (segs int32, bytes, resident uint64, top int32) {
	for _, s := range r.all() {
		segs++
		bytes += s.Shared.Size()
		resident += s.Resident()
	}
	return segs, bytes, resident, r.top()
}
