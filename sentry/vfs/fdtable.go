package vfs

import (
	"math/bits"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// FDTable is a table of file descriptors (Linux's struct files_struct). Get takes no lock; changes take mu.
// As the identity of a set of descriptors it is also the owner of POSIX record locks.
type FDTable struct {
	refs atomic.Int64

	mu sync.Mutex
	// slots is replaced when it grows, by a longer copy.
	slots atomic.Pointer[[]atomic.Pointer[FileDescription]]
	// used, cloexec: one bit a descriptor. full: one bit a word of used that is all ones. A bit of used without a file is a reservation.
	// +checklocks:mu
	used []uint64
	// +checklocks:mu
	cloexec []uint64
	// +checklocks:mu
	full []uint64
	// next is no higher than the lowest free descriptor.
	// +checklocks:mu
	next int
}

const minFDs = 64

// maxFDs bounds every table, whatever RLIMIT_NOFILE says (fs.nr_open).
const maxFDs = 1 << 20

// NewFDTable returns an empty table with one reference.
func NewFDTable() *FDTable {
	t := &FDTable{}
	t.refs.Store(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.growLocked(minFDs)
	return t
}

// IncRef takes a reference for one more task (CLONE_FILES).
func (t *FDTable) IncRef() { t.refs.Add(1) }

// Shared reports whether more than one task uses the table.
func (t *FDTable) Shared() bool { return t.refs.Load() > 1 }

// DecRef drops a task's reference; the last closes every descriptor.
func (t *FDTable) DecRef(ctx Context) {
	if t.refs.Add(-1) == 0 {
		t.CloseRange(ctx, 0, maxFDs)
	}
}

// Get returns fd's file with a reference, or nil.
func (t *FDTable) Get(fd int32) *FileDescription {
	s := *t.slots.Load()
	if uint32(fd) >= uint32(len(s)) {
		return nil
	}
	f := s[fd].Load()
	if f == nil || !f.TryIncRef() {
		return nil
	}
	return f
}

// GetFlags is Get with the FD_CLOEXEC flag.
func (t *FDTable) GetFlags(fd int32) (f *FileDescription, cloexec bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f = t.Get(fd)
	if f == nil {
		return nil, false
	}
	return f, test(t.cloexec, int(fd))
}

// SetCloexec sets or clears FD_CLOEXEC; EBADF.
func (t *FDTable) SetCloexec(fd int32, on bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fileLocked(fd) == nil {
		return unix.EBADF
	}
	assign(t.cloexec, int(fd), on)
	return nil
}

// +checklocks:t.mu
func (t *FDTable) fileLocked(fd int32) *FileDescription {
	s := *t.slots.Load()
	if uint32(fd) >= uint32(len(s)) {
		return nil
	}
	return s[fd].Load()
}

// NewFD gives f the lowest free descriptor from minFD on, below limit (RLIMIT_NOFILE): EMFILE. The table takes a reference of its own.
func (t *FDTable) NewFD(f *FileDescription, minFD int32, cloexec bool, limit uint64) (int32, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fd, err := t.allocLocked(int(minFD), cloexec, limit)
	if err != nil {
		return -1, err
	}
	f.IncRef()
	(*t.slots.Load())[fd].Store(f)
	return int32(fd), nil
}

// Reserve takes the lowest free descriptors for files that are still to be opened, one for each of fds, or none: EMFILE. Install follows.
func (t *FDTable) Reserve(fds []int32, cloexec bool, limit uint64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range fds {
		fd, err := t.allocLocked(0, cloexec, limit)
		if err != nil {
			for _, fd := range fds[:i] {
				t.freeLocked(int(fd))
			}
			return err
		}
		fds[i] = int32(fd)
	}
	return nil
}

// Install gives a reserved descriptor f, whose reference it takes over, or frees it if there is none.
func (t *FDTable) Install(fd int32, f *FileDescription) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f == nil {
		t.freeLocked(int(fd))
		return
	}
	(*t.slots.Load())[fd].Store(f)
}

// NewFDAt makes fd name f, closing what it named before (dup2, dup3): EBADF if fd is not below limit.
func (t *FDTable) NewFDAt(ctx Context, f *FileDescription, fd int32, cloexec bool, limit uint64) error {
	if fd < 0 || uint64(fd) >= min(limit, maxFDs) {
		return unix.EBADF
	}
	t.mu.Lock()
	t.growLocked(int(fd) + 1)
	old := (*t.slots.Load())[fd].Load()
	if old == nil && test(t.used, int(fd)) {
		t.mu.Unlock()
		return unix.EBUSY // being opened by another thread
	}
	f.IncRef()
	t.markLocked(int(fd), cloexec)
	(*t.slots.Load())[fd].Store(f)
	t.mu.Unlock()
	if old != nil {
		t.dropped(ctx, old)
	}
	return nil
}

// Close is close(2).
func (t *FDTable) Close(ctx Context, fd int32) error {
	t.mu.Lock()
	f := t.fileLocked(fd)
	if f != nil {
		(*t.slots.Load())[fd].Store(nil)
		t.freeLocked(int(fd))
	}
	t.mu.Unlock()
	if f == nil {
		return unix.EBADF
	}
	t.dropped(ctx, f)
	return nil
}

// dropped finishes a close outside mu: record locks of this table on the file go (fcntl(2)), then what else a file drops at each close, then the reference.
func (t *FDTable) dropped(ctx Context, f *FileDescription) {
	f.flush(t)
	if x, ok := f.impl.(interface{ Flush(Context) }); ok {
		x.Flush(ctx)
	}
	f.DecRef()
}

// CloseRange closes descriptors first to last (inclusive): close_range(2).
func (t *FDTable) CloseRange(ctx Context, first, last uint32) {
	t.closeIf(ctx, first, last, nil)
}

// CloexecRange sets FD_CLOEXEC on descriptors first to last (inclusive).
func (t *FDTable) CloexecRange(first, last uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for w := first / 64; w <= last/64 && w < uint32(len(t.used)); w++ {
		t.cloexec[w] |= t.used[w] & rangeMask(w, first, last)
	}
}

// CloseOnExec closes what has FD_CLOEXEC.
func (t *FDTable) CloseOnExec(ctx Context) {
	t.mu.Lock()
	set := append([]uint64(nil), t.cloexec...)
	t.mu.Unlock()
	t.closeIf(ctx, 0, maxFDs, set)
}

// rangeMask is the bits of word w that lie in [first, last].
func rangeMask(w, first, last uint32) uint64 {
	m := ^uint64(0)
	if w == first/64 {
		m &= ^uint64(0) << (first % 64)
	}
	if w == last/64 {
		m &= ^uint64(0) >> (63 - last%64)
	}
	return m
}

// closeIf closes the descriptors of [first, last] that are in set (nil: all).
func (t *FDTable) closeIf(ctx Context, first, last uint32, set []uint64) {
	if first > last {
		return
	}
	for w := first / 64; w <= last/64; w++ {
		var files [64]*FileDescription
		n := 0
		t.mu.Lock()
		if w >= uint32(len(t.used)) {
			t.mu.Unlock()
			return
		}
		m := t.used[w] & rangeMask(w, first, last)
		if set != nil {
			if int(w) >= len(set) {
				m = 0
			} else {
				m &= set[w]
			}
		}
		for ; m != 0; m &= m - 1 {
			fd := int(w)*64 + bits.TrailingZeros64(m)
			if f := (*t.slots.Load())[fd].Swap(nil); f != nil {
				t.freeLocked(fd)
				files[n] = f
				n++
			}
		}
		t.mu.Unlock()
		for _, f := range files[:n] {
			t.dropped(ctx, f)
		}
	}
}

// Fork returns a copy of the table (clone(2) without CLONE_FILES, unshare(2)), leaving out descriptors from maxFD on.
func (t *FDTable) Fork(maxFD uint32) *FDTable {
	n := &FDTable{}
	n.refs.Store(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	src := *t.slots.Load()
	top := t.topLocked()
	n.growLocked(max(minFDs, min(top, int(min(maxFD, maxFDs)))))
	dst := *n.slots.Load()
	for i := 0; i < min(top, len(dst)) && uint32(i) < maxFD; i++ {
		if f := src[i].Load(); f != nil {
			f.IncRef()
			dst[i].Store(f)
			n.markLocked(i, test(t.cloexec, i))
		}
	}
	return n
}

// topLocked is one past the highest used descriptor.
// +checklocks:t.mu
func (t *FDTable) topLocked() int {
	for w := len(t.used) - 1; w >= 0; w-- {
		if t.used[w] != 0 {
			return w*64 + 64 - bits.LeadingZeros64(t.used[w])
		}
	}
	return 0
}

// ForEach calls fn with each open descriptor, ascending, until it returns false. f is referenced for the length of the call. Files opened and
// closed meanwhile may be missed. fn is called without a lock.
func (t *FDTable) ForEach(fn func(fd int32, f *FileDescription, cloexec bool) bool) {
	t.ForEachFrom(0, fn)
}

// ForEachFrom is ForEach from descriptor fd on.
func (t *FDTable) ForEachFrom(fd int32, fn func(fd int32, f *FileDescription, cloexec bool) bool) {
	for ; ; fd++ {
		t.mu.Lock()
		top := int32(t.topLocked())
		var f *FileDescription
		for ; fd < top && f == nil; fd++ {
			if f = t.fileLocked(fd); f != nil {
				break
			}
		}
		if f == nil {
			t.mu.Unlock()
			return
		}
		f.IncRef()
		ce := test(t.cloexec, int(fd))
		t.mu.Unlock()
		more := fn(fd, f, ce)
		f.DecRef()
		if !more {
			return
		}
	}
}

// Size is the number of descriptors that the table has room for (FDSize of /proc/PID/status).
func (t *FDTable) Size() int { return len(*t.slots.Load()) }

func test(set []uint64, i int) bool { return set[i/64]>>(i%64)&1 != 0 }

func assign(set []uint64, i int, on bool) {
	if on {
		set[i/64] |= 1 << (i % 64)
	} else {
		set[i/64] &^= 1 << (i % 64)
	}
}

// allocLocked reserves the lowest free descriptor from lo on.
// +checklocks:t.mu
func (t *FDTable) allocLocked(lo int, cloexec bool, limit uint64) (int, error) {
	fd := t.firstFreeLocked(max(lo, t.next))
	if uint64(fd) >= min(limit, maxFDs) {
		return -1, unix.EMFILE
	}
	t.growLocked(fd + 1)
	if lo <= t.next {
		t.next = fd + 1
	}
	t.markLocked(fd, cloexec)
	return fd, nil
}

// firstFreeLocked returns the lowest free descriptor >= lo, perhaps beyond the table.
// +checklocks:t.mu
func (t *FDTable) firstFreeLocked(lo int) int {
	w := lo / 64
	if w >= len(t.used) {
		return lo
	}
	if m := ^t.used[w] & (^uint64(0) << (lo % 64)); m != 0 {
		return w*64 + bits.TrailingZeros64(m)
	}
	for w++; w < len(t.used); {
		// Skip words that are full by the summary.
		if m := ^t.full[w/64] & (^uint64(0) << (w % 64)); m != 0 {
			w = w&^63 + bits.TrailingZeros64(m)
			if w >= len(t.used) {
				break
			}
			return w*64 + bits.TrailingZeros64(^t.used[w])
		}
		w = w&^63 + 64
	}
	return len(t.used) * 64
}

// +checklocks:t.mu
func (t *FDTable) markLocked(fd int, cloexec bool) {
	w := fd / 64
	t.used[w] |= 1 << (fd % 64)
	if t.used[w] == ^uint64(0) {
		t.full[w/64] |= 1 << (w % 64)
	}
	assign(t.cloexec, fd, cloexec)
}

// +checklocks:t.mu
func (t *FDTable) freeLocked(fd int) {
	w := fd / 64
	t.used[w] &^= 1 << (fd % 64)
	t.full[w/64] &^= 1 << (w % 64)
	t.cloexec[w] &^= 1 << (fd % 64)
	t.next = min(t.next, fd)
}

// growLocked makes room for at least n descriptors.
// +checklocks:t.mu
func (t *FDTable) growLocked(n int) {
	var old []atomic.Pointer[FileDescription]
	if p := t.slots.Load(); p != nil {
		old = *p
	}
	if n <= len(old) {
		return
	}
	size := max(minFDs, len(old))
	for size < n {
		size *= 2
	}
	s := make([]atomic.Pointer[FileDescription], size)
	for i := range old {
		s[i].Store(old[i].Load())
	}
	t.used = growWords(t.used, size/64)
	t.cloexec = growWords(t.cloexec, size/64)
	t.full = growWords(t.full, (size/64+63)/64)
	t.slots.Store(&s)
}

func growWords(b []uint64, words int) []uint64 { return append(b, make([]uint64, words-len(b))...) }
