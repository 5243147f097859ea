package memory

import (
	"time"

	"golang.org/x/sys/unix"
)

// reclaimDelay is how long freed pages stay with the sentry, which can allocate them again for the price of zeroing
// them: much less than what the host takes for a new page.
const reclaimDelay = 200 * time.Millisecond

// keepPages is how many dirty pages a busy sandbox may keep.
func (f *File) keepPages() int { return int(min(16<<20, f.limit.Load()/16) >> PageShift) }

// reclaim gives free pages back to the host. It sleeps without a timer while nothing is dirty.
func (f *File) reclaim() {
	defer f.wg.Done()
	for {
		select {
		case <-f.stop:
			return
		case <-f.kick:
		case <-f.urgent:
		}
		for f.reclaimOnce() {
		}
	}
}

// reclaimOnce waits a moment and punches what is dirty then. It returns false when nothing is left.
func (f *File) reclaimOnce() bool {
	f.mu.Lock()
	before := f.allocs
	over := f.dirtyPages > 4*f.keepPages()
	f.mu.Unlock()
	if !over {
		t := time.NewTimer(reclaimDelay)
		defer t.Stop()
		select {
		case <-f.stop:
			return false
		case <-f.urgent:
		case <-t.C:
		}
	}
	f.mu.Lock()
	keep := 0
	if f.allocs != before {
		keep = f.keepPages()
	}
	for f.dirtyPages > keep && len(f.dirty) > 0 {
		idx := int(f.dirty[0])
		f.dirty = f.dirty[1:]
		f.punchLocked(idx)
	}
	left := len(f.dirty) > 0
	f.mu.Unlock()
	return left
}

// punchLocked gives the dirty pages of a block back to the host. It drops mu for that; nobody can allocate from the
// block meanwhile.
// +checklocks:f.mu
func (f *File) punchLocked(idx int) {
	b := (*f.tab.Load())[idx]
	b.inDirty = false
	claim := b.dirty
	n := claim.count()
	if n == 0 {
		return
	}
	kind := b.kind
	if b.pos >= 0 {
		if kind == neutral {
			f.unlistLocked(b, &f.neutral)
		} else {
			f.unlistLocked(b, &f.partial)
		}
	}
	b.kind = punching
	b.dirty = mask{}
	f.dirtyPages -= n
	f.mu.Unlock()

	base := int64(idx) << HugeShift
	ok := true
	for s, e := claim.next(0); s < blockPages; s, e = claim.next(e) {
		err := unix.EINTR
		for err == unix.EINTR {
			err, _ = unix.Fallocate(f.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE,
				base+int64(s)<<PageShift, int64(e-s)<<PageShift).(unix.Errno)
		}
		ok = ok && err == 0
	}

	f.mu.Lock()
	if !ok {
		// The host refused (it should never): the pages keep their contents, and are zeroed at their next use.
		for i := range claim {
			b.dirty[i] |= claim[i]
		}
		f.dirtyPages += n
	}
	b.kind = kind
	if kind == neutral && b.nfree < blockPages {
		b.kind = small
	}
	f.relistLocked(idx, b)
	f.forgetLocked(idx, b)
}
