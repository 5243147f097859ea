package memory

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"moat/sentry/memmap"
)

// Account is who pages are charged to while they are in use: it bounds a part of the file's users, while the file's own limit holds for all.
type Account struct {
	f     *File
	id    uint8 // in block.owner
	used  atomic.Int64
	peak  atomic.Int64
	limit atomic.Int64 // 0: none
	ended atomic.Bool
	// parent pays too, up to Root, and bounds too; constant. apart: not counted in Root's own use.
	parent *Account
	apart  bool
}

// maxAccounts is how many there may be at a time.
const maxAccounts = 256

// Root is the account of what no other one is charged with. It is not counted: all pages less those of others are its.
func (f *File) Root() *Account { return f.accounts[0].Load() }

// NewAccount returns an account without a limit, until End: ENOSPC if there are too many.
func (f *File) NewAccount() (*Account, error) { return f.newAccount(f.Root(), true) }

// NewAccount returns an account whose use is a's too, until End: ENOSPC if there are too many.
func (a *Account) NewAccount() (*Account, error) { return a.f.newAccount(a, false) }

func (f *File) newAccount(parent *Account, apart bool) (*Account, error) {
	for id := range f.accounts {
		old := f.accounts[id].Load()
		if old != nil && (id == 0 || !old.ended.Load() || old.used.Load() != 0) {
			continue
		}
		if a := (&Account{f: f, id: uint8(id), parent: parent, apart: apart}); f.accounts[id].CompareAndSwap(old, a) {
			return a, nil
		}
	}
	return nil, unix.ENOSPC
}

// End gives the account up, once the last of its pages is free. Who still has it is served by its parent.
func (a *Account) End() { a.ended.Store(true) }

// AccountOf is who pays for what ctx makes in f: who ctx says, or Root.
func (f *File) AccountOf(ctx any) *Account {
	if c, ok := ctx.(interface{ MemoryAccount() *Account }); ok {
		return c.MemoryAccount()
	}
	return f.Root()
}

// SetLimit bounds the bytes in use from now on; 0: no bound.
func (a *Account) SetLimit(n uint64) { a.limit.Store(int64(n)) }

// Limit is the bound; that of the file if there is none.
func (a *Account) Limit() uint64 {
	if l := a.limit.Load(); l > 0 {
		return min(uint64(l), a.f.Limit())
	}
	return a.f.Limit()
}

// Used are the bytes in use.
func (a *Account) Used() uint64 {
	if a.id != 0 {
		return uint64(a.used.Load())
	}
	n := a.f.used.Load()
	for i := range a.f.accounts[1:] {
		if o := a.f.accounts[1+i].Load(); o != nil && o.apart {
			n -= o.used.Load()
		}
	}
	return uint64(max(n, 0))
}

// Peak is the most that was ever in use.
func (a *Account) Peak() uint64 {
	if a.id == 0 {
		return a.f.Peak()
	}
	return uint64(a.peak.Load())
}

// Exhausted returns the account, of a and its parents, that has next to nothing left of its own limit, or nil.
func (a *Account) Exhausted() *Account {
	for ; a.id != 0; a = a.parent {
		if l := a.limit.Load(); l > 0 && l-a.used.Load() < min(64*PageSize, l/16) {
			return a
		}
	}
	return nil
}

// reserve takes up to n pages of the limits of the account, its parents and the file, at least one, and says who pays: the parent once a was given up, whose id may be
// another's by then.
func (a *Account) reserve(n int) (payer *Account, got int, err error) {
	for a.ended.Load() {
		a = a.parent
	}
	if got, err = a.take(n); err == nil && a.ended.Load() { // NewAccount looks at ended, then at used
		a.unreserve(got)
		return a.reserve(n)
	}
	return a, got, err
}

func (a *Account) take(n int) (got int, err error) {
	if a.id == 0 {
		return a.f.reserve(n)
	}
	limit := a.limit.Load()
	for {
		used := a.used.Load()
		if limit > 0 {
			n = min(n, int((limit-used)>>PageShift))
		}
		if n <= 0 {
			return 0, unix.ENOMEM
		}
		now := used + int64(n)<<PageShift
		if a.used.CompareAndSwap(used, now) {
			for p := a.peak.Load(); now > p && !a.peak.CompareAndSwap(p, now); p = a.peak.Load() {
			}
			break
		}
	}
	got, err = a.parent.take(n)
	a.used.Add(-int64(n-got) << PageShift)
	return got, err
}

func (a *Account) unreserve(n int) {
	for ; a.id != 0; a = a.parent {
		a.used.Add(-int64(n) << PageShift)
	}
	a.f.unreserve(n)
}

// unreserveLocked gives back the pages of a block that were just freed, to whom each was charged.
//
// +checklocks:f.mu
func (f *File) unreserveLocked(b *block, start, n int) {
	if !f.accounted {
		f.unreserve(n)
		return
	}
	for end := start + n; start < end; {
		id, run := b.owner[start], 0
		for ; start < end && b.owner[start] == id; start++ {
			b.owner[start] = 0
			run++
		}
		f.accounts[id].Load().unreserve(run)
	}
}

// Allocate is Account.Allocate of Root.
func (f *File) Allocate(n uint64, zero bool) (memmap.FileRange, error) {
	return f.Root().Allocate(n, zero)
}
