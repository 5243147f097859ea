package mm

import (
	"slices"
	"sync"
	"sync/atomic"

	"moat/platform"
	"moat/sentry/memmap"
	"moat/sentry/memmap/spans"
	"moat/sentry/memory"
	"moat/sentry/refs"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
)

const (
	pageSize = memory.PageSize
	pageMask = pageSize - 1
	// maxMapCount is vm.max_map_count's larger value that databases ask for; moat's own structures do not mind.
	maxMapCount = 1 << 20
	// stackGuardGap is how far a growing stack stays from the mapping below it (mm/mmap.c stack_guard_gap).
	stackGuardGap = 256 * pageSize

	// si_code of SIGSEGV and SIGBUS.
	segvMapErr, segvAccErr, busAdrErr = 1, 2, 2
)

// Limiter tells resource limits: a *kernel.ThreadGroup.
type Limiter interface {
	Limit(resource int) linux.RLimit
}

// Caller is on whose behalf an address space changes.
type Caller struct {
	// Limits are the process' limits; nil means none.
	Limits Limiter
	// IPCLock is CAP_IPC_LOCK: RLIMIT_MEMLOCK does not bind.
	IPCLock bool
}

func (c Caller) limit(resource int) uint64 {
	if c.Limits == nil {
		return linux.RLimInfinity
	}
	return c.Limits.Limit(resource).Cur
}

// FaultError says which signal a bad access raises.
type FaultError struct {
	Signal unix.Signal
	Code   int32
}

func (e *FaultError) Error() string { return "bad guest access: " + e.Signal.String() }

// What HandleFault returns for accesses that Linux answers with a signal. Any other error of it is unix.ENOMEM: no memory is left.
var (
	ErrMapErr = &FaultError{unix.SIGSEGV, segvMapErr}
	ErrAccErr = &FaultError{unix.SIGSEGV, segvAccErr}
	ErrBusErr = &FaultError{unix.SIGBUS, busAdrErr}
)

// MemoryManager is one address space (struct mm_struct). It implements usermem.IO and memmap.Space.
type MemoryManager struct {
	p  platform.Platform
	mf *memory.File
	// acct pays for pages of our own.
	acct atomic.Pointer[memory.Account]
	as   platform.AddressSpace
	lim  hostarch.AddrRange // what the guest may map
	// keep is what of it the platform keeps for itself.
	keep hostarch.AddrRange
	// texts is nil if the platform rewrites nothing.
	texts *Texts

	users atomic.Int64
	// starved: see Starved.
	starved atomic.Bool
	// changes counts what was done under mu; empty is where "" was found last.
	changes atomic.Uint64
	empty   atomic.Pointer[emptyString]

	mu sync.RWMutex
	// vmas are the mappings. +checklocks:mu
	vmas spans.Set[vma]
	// pmas are the pages behind them. +checklocks:mu
	pmas spans.Set[pma]
	// layout and the program's areas; see layout.go. +checklocks:mu
	layout layout
	// stat counts bytes by kind of mapping. +checklocks:mu
	stat vmStat
	// limits are those of the process that last faulted or mapped here: copies by the kernel grow a stack within them. +checklocks:mu
	limits Limiter
	// lockFuture is mlockall's MCL_FUTURE. +checklocks:mu
	lockFuture lockMode
	// denyWX is PR_SET_MDWE. Children inherit it, programs do not.
	denyWX atomic.Bool
	// bases are where the texts that this space uses are mapped. +checklocks:mu
	bases map[*text]uint64
	// dropped are pages to be freed when no guest can reach them any more, droppedBytes their number. What takes away the first droppedOld of them has been queued. +checklocks:mu
	dropped      []droppedRun
	droppedBytes uint64
	droppedOld   int
	// released are identities to be released without mu. +checklocks:mu
	released []memmap.Identity
	// flush: unlock flushes, because a mapping changed that others may be using. +checklocks:mu
	flush bool
	dead  bool // +checklocks:mu

	rss rssCounters
	kin *kin
	// forked: the platform's side may be kept for a relative. before, in a fork that is being made, is what is mapped there and has not been looked at.
	forked bool
	before []spans.Span[pma]
	// textsAt is Texts.changes before the code was mapped that a fork began with.
	textsAt uint64

	// auxv, arguments and the executable, for /proc. +checklocks:metaMu
	metaMu sync.Mutex
	meta   Metadata
	// attached is released with the space. +checklocks:metaMu
	attached Releaser

	// membarrier registrations (sched/membarrier.c), for the kernel.
	Membarrier atomic.Uint32
	// Dumpable is prctl(PR_SET_DUMPABLE).
	Dumpable atomic.Int32
}

type droppedRun struct {
	f  memmap.File
	fr memmap.FileRange
}

// New returns an empty address space with one user. texts may be nil.
func New(p platform.Platform, mf *memory.File, texts *Texts) (*MemoryManager, error) {
	as, err := p.NewAddressSpace()
	if err != nil {
		return nil, err
	}
	mm := newOn(as, p, mf, texts, &kin{})
	mm.Dumpable.Store(1)
	mm.layout.setDefault(mm.lim)
	return mm, nil
}

func newOn(as platform.AddressSpace, p platform.Platform, mf *memory.File, texts *Texts, k *kin) *MemoryManager {
	k.members.Add(1)
	mm := &MemoryManager{p: p, mf: mf, as: as, lim: p.UserRange(), keep: p.Reserved(), texts: texts, kin: k}
	mm.acct.Store(mf.Root())
	mm.users.Store(1)
	return mm
}

// AddressSpace is the host side, for making threads.
func (mm *MemoryManager) AddressSpace() platform.AddressSpace { return mm.as }

// ChargeTo makes a pay for the space's pages from now on, and for those of its forks.
func (mm *MemoryManager) ChargeTo(a *memory.Account) { mm.acct.Store(a) }

// UserRange is the range of addresses that the guest may map.
func (mm *MemoryManager) UserRange() hostarch.AddrRange { return mm.lim }

// IncUsers adds a task (mm_users). IncUsersIfAlive is for those who are not users themselves.
func (mm *MemoryManager) IncUsers() { mm.users.Add(1) }

// IncUsersIfAlive is IncUsers for a caller that is no user (/proc, process_vm_readv); false if the space is gone.
func (mm *MemoryManager) IncUsersIfAlive() bool { return refs.TryInc(&mm.users, 1) }

// Users is the number of users.
func (mm *MemoryManager) Users() int { return int(mm.users.Load()) }

// DecUsers drops a user. The last one frees everything: its threads were released before.
func (mm *MemoryManager) DecUsers() {
	if mm.users.Add(-1) != 0 {
		return
	}
	mm.mu.Lock()
	// The stub goes first: once no guest can reach the pages they may have other owners.
	mm.retire()
	mm.dead, mm.limits = true, nil
	mm.removeVMAs(0, ^uint64(0)&^pageMask, false)
	mm.drain(len(mm.dropped))
	mm.dropTexts()
	rel := mm.released
	mm.released = nil
	mm.mu.Unlock()
	for _, id := range rel {
		id.DecRef()
	}
	mm.metaMu.Lock()
	exe, attached := mm.meta.Exe, mm.attached
	mm.meta.Exe, mm.attached = nil, nil
	mm.metaMu.Unlock()
	if attached != nil {
		attached.Release()
	}
	if exe != nil {
		exe.DecRef()
	}
}

// Releaser is what ends with an address space: the contexts of io_setup(2).
type Releaser interface{ Release() }

// Attached is what ends with the space: what it has, or what make returns (if that is not nil).
func (mm *MemoryManager) Attached(make func() Releaser) Releaser {
	mm.metaMu.Lock()
	defer mm.metaMu.Unlock()
	if mm.attached == nil && make != nil {
		mm.attached = make()
	}
	return mm.attached
}

// Small reports whether so little memory is behind mm, and nothing else, that freeing it may wait a moment.
func (mm *MemoryManager) Small() bool {
	return mm.Attached(nil) == nil && uint64(mm.rss.anon.Load()+mm.rss.shmem.Load()) < mm.mf.Limit()/256 && !mm.mf.Pressed()
}

// maxDropped is how many bytes of pages may wait to be freed until more are.
const maxDropped = 64 << 10

// drop gives up a reference to pages that were mapped here. They stay until the platform has carried out what takes them away, even from a space with one
// user: a guest can bring a host thread of its stub to life that nobody runs. That is found out when more is dropped.
// Preconditions: mu is held for writing.
// +checklocks:mm.mu
func (mm *MemoryManager) drop(f memmap.File, fr memmap.FileRange) {
	if mm.dead {
		f.DecRef(fr)
		return
	}
	if mm.droppedOld > 0 && mm.as.Settled() {
		mm.drain(mm.droppedOld)
	}
	if n := len(mm.dropped); n > mm.droppedOld && mm.dropped[n-1].f == f && mm.dropped[n-1].fr.End == fr.Start {
		mm.dropped[n-1].fr.End = fr.End
	} else {
		mm.dropped = append(mm.dropped, droppedRun{f, fr})
	}
	// A host file's descriptor should not linger.
	if mm.droppedBytes += fr.Length(); mm.droppedBytes > maxDropped || f != memmap.File(mm.mf) {
		mm.flush = true
	}
}

// drain frees the first n that were dropped.
func (mm *MemoryManager) drain(n int) {
	for _, d := range mm.dropped[:n] {
		d.f.DecRef(d.fr)
		mm.droppedBytes -= d.fr.Length()
	}
	mm.dropped = slices.Delete(mm.dropped, 0, n)
	mm.droppedOld = 0
}

// unlock drops mu, and does what could not be done under it.
// +checklocksrelease:mm.mu
func (mm *MemoryManager) unlock() {
	mm.changes.Add(1)
	mm.droppedOld = len(mm.dropped)
	if !mm.flush && len(mm.released) == 0 {
		mm.mu.Unlock()
		return
	}
	var dropped []droppedRun
	flush := mm.flush
	if flush {
		dropped, mm.dropped, mm.droppedBytes, mm.droppedOld = mm.dropped, nil, 0, 0
		mm.flush = false
	}
	rel := mm.released
	mm.released = nil
	mm.mu.Unlock()
	if flush {
		// An error says that the host is out of memory for this space; the next Thread.Run reports it too, and the process is killed there.
		// The pages may then stay mapped in a stub that never runs again.
		_ = mm.as.Flush()
		for _, d := range dropped {
			d.f.DecRef(d.fr)
		}
	}
	for _, id := range rel {
		id.DecRef()
	}
}

// MayNotLock reports whether c may not lock memory at all (mm/mlock.c can_do_mlock).
func (c Caller) MayNotLock() bool { return !c.IPCLock && c.limit(linux.RLIMIT_MEMLOCK) == 0 }
