package memory

import (
	"cmp"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"moat/sentry/memmap"
)

// PageSize is the size of a guest page; HugePage that of an allocator block, the largest run that is allocated at once.
const (
	PageShift = 12
	PageSize  = 1 << PageShift
	HugeShift = 21
	HugePage  = 1 << HugeShift

	blockPages = HugePage / PageSize
)

// File is the memory file. It implements memmap.File.
type File struct {
	fd    int
	size  uint64
	base  uintptr
	ram   uint64 // the host's
	limit atomic.Int64
	used  atomic.Int64
	peak  atomic.Int64

	accounts [maxAccounts]atomic.Pointer[Account]

	// Commit is the memory that guests were promised; see Charge.
	committed  atomic.Int64
	overcommit atomic.Int32 // vm.overcommit_memory
	ratio      atomic.Int32 // vm.overcommit_ratio

	// tab is replaced by a longer copy under mu; its elements are set under mu before any page of the block is handed out, and are nil
	// while a block has neither pages in use nor contents: what is known of the file's blocks goes with what is used of it.
	tab atomic.Pointer[[]*block]

	mu sync.Mutex
	// next is the first block that was never used. +checklocks:mu
	next int
	// neutral are blocks all of whose pages are free. +checklocks:mu
	neutral []int32
	// holes are blocks below next that tab has forgotten, and some that it knows again; inHoles says which are listed. +checklocks:mu
	holes   []int32
	inHoles map[int32]struct{}
	// partial are blocks for runs of any size that have free pages. +checklocks:mu
	partial []int32
	// dirty are blocks with dirty pages; dirtyPages counts these. +checklocks:mu
	dirty      []int32
	dirtyPages int
	// accounted: some pages are, or were, charged to other accounts than Root. +checklocks:mu
	accounted bool
	// allocs counts allocations, for the reclaimer to see whether the sandbox is busy. +checklocks:mu
	allocs uint64

	kick   chan struct{} // wakes the reclaimer
	urgent chan struct{} // wakes it at once
	stop   chan struct{}
	wg     sync.WaitGroup
}

// Create makes the memfd that New maps. It is called before the sentry's seccomp filter is in force.
func Create() (int, error) {
	fd, err := unix.MemfdCreate("moat-memory", unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if err == unix.EINVAL {
		// Before Linux 6.3 there was no MFD_EXEC, and every memfd could be mapped executable.
		fd, err = unix.MemfdCreate("moat-memory", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return -1, fmt.Errorf("create the sandbox's memory file: %w", err)
	}
	return fd, nil
}

// New makes a memory file of the memfd fd, or of a new one if fd is negative. limit bounds the bytes in use; zero
// means the host's RAM. It owns fd.
func New(fd int, limit uint64) (*File, error) {
	if fd < 0 {
		var err error
		if fd, err = Create(); err != nil {
			return nil, err
		}
	}
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		return nil, err
	}
	ram := uint64(si.Totalram) * uint64(si.Unit)
	limit = cmp.Or(limit, ram)
	// Offset 0 is never handed out, so that callers may let it mean none.
	f := &File{fd: fd, ram: ram, next: 1, kick: make(chan struct{}, 1), urgent: make(chan struct{}, 1), stop: make(chan struct{}), inHoles: map[int32]struct{}{}}
	f.limit.Store(int64(limit &^ (PageSize - 1)))
	f.ratio.Store(50)
	f.tab.Store(&[]*block{})
	f.accounts[0].Store(&Account{f: f})
	// Offsets are cheap and fragmentation is not: the file is much larger than the limit. Where the sentry's own
	// address space is limited, a smaller one has to do.
	f.size = min(max(64*limit, 256<<30), 16<<40) &^ (HugePage - 1)
	for {
		var err error
		if err = unix.Ftruncate(fd, int64(f.size)); err == nil {
			if f.base, err = mapWhole(fd, f.size); err == nil {
				break
			}
		}
		if f.size/2 < 2*limit || f.size < 4*HugePage {
			unix.Close(fd)
			return nil, fmt.Errorf("map the sandbox's memory file (%d MiB): %w", f.size>>20, err)
		}
		f.size = f.size / 2 &^ (HugePage - 1)
	}
	f.wg.Add(1)
	go f.reclaim()
	return f, nil
}

// Close unmaps the file and closes its descriptor. No page may be in use.
func (f *File) Close() {
	close(f.stop)
	f.wg.Wait()
	unmapWhole(f.base, f.size)
	unix.Close(f.fd)
}

// FD implements memmap.File.
func (f *File) FD() int { return f.fd }

// Limit is the largest number of bytes that may be in use.
func (f *File) Limit() uint64 { return uint64(f.limit.Load()) }

// Machine is the host's RAM in bytes, or the limit if that is more: what Linux would compare with that does not know of a container's limit.
func (f *File) Machine() uint64 { return max(f.ram, f.Limit()) }

// SetLimit changes the limit. What is in use beyond it stays.
func (f *File) SetLimit(n uint64) { f.limit.Store(int64(n &^ (PageSize - 1))) }

// Used is the number of bytes in use, Peak the largest there ever was.
func (f *File) Used() uint64 { return uint64(f.used.Load()) }

// Peak is the largest number of bytes that ever were in use.
func (f *File) Peak() uint64 { return uint64(f.peak.Load()) }

// Pressed reports whether so much of the limit is in use that caches should shrink and faults should map single pages.
func (f *File) Pressed() bool { l := f.limit.Load(); return f.used.Load() > l-l/16 }

// Exhausted reports whether the limit has been reached, give or take what others free meanwhile.
func (f *File) Exhausted() bool { return f.limit.Load()-f.used.Load() < 64*PageSize }

// Slices implements memmap.File.
func (f *File) Slices(fr memmap.FileRange, fn func([]byte) error) error {
	return fn(f.Bytes(fr.Start, fr.Length()))
}

// ReadAt implements memmap.File.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || uint64(off) >= f.size {
		return 0, io.EOF
	}
	n := min(uint64(len(p)), f.size-uint64(off))
	return copy(p, f.Bytes(uint64(off), n)), nil
}

// WriteAt implements memmap.File.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || uint64(off)+uint64(len(p)) > f.size {
		return 0, unix.EFBIG
	}
	return copy(f.Bytes(uint64(off), uint64(len(p))), p), nil
}

// SetOvercommit sets vm.overcommit_memory (0, 1 or 2) and vm.overcommit_ratio.
func (f *File) SetOvercommit(mode, ratio int) {
	f.overcommit.Store(int32(mode))
	f.ratio.Store(int32(ratio))
}

// Overcommit returns vm.overcommit_memory and vm.overcommit_ratio.
func (f *File) Overcommit() (mode, ratio int) {
	return int(f.overcommit.Load()), int(f.ratio.Load())
}

// Committed is Committed_AS of /proc/meminfo; CommitLimit its CommitLimit.
func (f *File) Committed() uint64 { return uint64(max(0, f.committed.Load())) }

// CommitLimit is the bound on Committed in mode 2.
func (f *File) CommitLimit() uint64 { return f.Limit() / 100 * uint64(f.ratio.Load()) }

// Charge promises n bytes more of private writable memory, as __vm_enough_memory (mm/util.c) does: in mode 0 only what
// could never be had is refused, in mode 1 nothing, in mode 2 what exceeds CommitLimit.
func (f *File) Charge(n uint64) error {
	switch f.overcommit.Load() {
	case 0:
		if n > f.Machine() {
			return unix.ENOMEM
		}
	case 2:
		if f.Committed()+n > f.CommitLimit() {
			return unix.ENOMEM
		}
	}
	f.committed.Add(int64(n))
	return nil
}

// Recharge promises memory that is about to be uncharged elsewhere: it cannot fail.
func (f *File) Recharge(n uint64) { f.committed.Add(int64(n)) }

// Uncharge takes back a promise.
func (f *File) Uncharge(n uint64) { f.committed.Add(-int64(n)) }
