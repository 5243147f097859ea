package mm

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/sentry/memmap"
	"moat/sentry/memmap/spans"
	"moat/sentry/memory"
)

// sharedIno numbers shared anonymous memory, as the kernel's internal tmpfs does.
var sharedIno atomic.Uint64

// MMap maps memory as mmap(2) does. Checks that concern the file (its access mode, its type) are the caller's; opts.Mappable is nil for
// anonymous memory, private or shared. opts.Identity is not consumed: the mapping takes its own reference.
func (mm *MemoryManager) MMap(c Caller, opts memmap.MMapOpts) (hostarch.Addr, error) {
	n := pageUp(opts.Length)
	switch {
	case opts.Length == 0:
		return 0, unix.EINVAL
	case n == 0:
		return 0, unix.ENOMEM
	case opts.Offset&pageMask != 0:
		return 0, unix.EINVAL
	case opts.Mappable != nil && opts.Offset+n < opts.Offset:
		return 0, unix.EOVERFLOW
	}
	if !opts.Private && opts.Mappable == nil {
		sh := memory.NewShared(mm.acct.Load(), n, "/dev/zero (deleted)", 1, sharedIno.Add(1))
		defer sh.DecRef()
		opts.Mappable, opts.Identity, opts.Offset = sh, sh, 0
		opts.MaxPerms = hostarch.AnyAccess
	}
	v := newVMA(&opts)
	mm.mu.Lock()
	start, err := mm.mapLocked(c, &opts, v, n)
	populate := err == nil && (opts.Populate || v.lock == lockEager || mm.lockFuture == lockEager)
	mm.unlock()
	if err != nil {
		return 0, err
	}
	if populate {
		// Failing to populate is no error (mmap(2)).
		mm.Populate(hostarch.Addr(start), n)
	}
	return hostarch.Addr(start), nil
}

func newVMA(opts *memmap.MMapOpts) vma {
	v := vma{mappable: opts.Mappable, id: opts.Identity, name: opts.Hint, perms: opts.Perms, maxPerms: opts.MaxPerms}
	if v.mappable != nil {
		v.off = opts.Offset
	} else {
		v.maxPerms = hostarch.AnyAccess
	}
	if opts.Private {
		v.flags |= vmPrivate
	}
	if opts.GrowsDown {
		v.flags |= vmGrowsDown
	}
	if opts.NoReserve {
		v.flags |= vmNoReserve
	}
	if opts.WipeOnFork {
		v.flags |= vmWipeOnFork
	}
	if opts.NoExpand {
		v.flags |= vmNoGrow
	}
	if opts.Program {
		v.flags |= vmProgram
	}
	if opts.Locked {
		v.lock = lockEager
	}
	if len(opts.Hint) > 1 && opts.Hint[0] == '[' && opts.Mappable != nil && opts.Identity == nil {
		v.flags |= vmSpecial
	}
	return v
}

// mapLocked finds the place, makes room, and adds the mapping (mm/mmap.c do_mmap, mm/vma.c mmap_region).
// +checklocks:mm.mu
func (mm *MemoryManager) mapLocked(c Caller, opts *memmap.MMapOpts, v vma, n uint64) (uint64, error) {
	mm.limits = c.Limits
	if mm.denyWX.Load() && v.perms.Write && v.perms.Execute {
		return 0, unix.EACCES
	}
	if mm.vmas.Len() >= maxMapCount {
		return 0, unix.ENOMEM
	}
	start, err := mm.place(opts, n)
	if err != nil {
		return 0, err
	}
	if v.lock == unlocked {
		v.lock = mm.lockFuture
	}
	if v.lock != unlocked && !mm.mayLock(c, n) {
		return 0, unix.EAGAIN
	}
	end := start + n
	if old := mm.mappedIn(start, end); mm.mayExpand(c, v.perms, v.flags, n-min(n, old)) != nil {
		return 0, unix.ENOMEM
	}
	if mm.charged(&v) {
		if err := mm.mf.Charge(n); err != nil {
			return 0, err
		}
		v.flags |= vmAccount
	}
	if mm.sealed(start, end) {
		return 0, unix.EPERM
	}
	if !mm.vmas.Free(start, end) {
		mm.removeVMAs(start, end, true)
	}
	if v.mappable != nil {
		if err := v.mappable.AddMapping(mm, addrRange(start, end), v.off, v.sharedWritable()); err != nil {
			if v.flags&vmAccount != 0 {
				mm.mf.Uncharge(n)
			}
			return 0, err
		}
	}
	if v.id != nil {
		v.id.IncRef()
	}
	mm.insertVMA(start, end, v)
	if opts.Ahead {
		mm.mapAhead(start, end)
	}
	return start, nil
}

// mapAhead maps a segment of a program at once: it will be used, and the change travels with the others. Of data, which the dynamic linker
// relocates, the first pages are copied too. Errors show up when the guest gets there.
// +checklocks:mm.mu
func (mm *MemoryManager) mapAhead(start, end uint64) {
	sp := mm.vmas.Lookup(start)
	wide, ok := sp.Val.mappable.(memmap.Wide)
	if !ok || !wide.TranslatesWide() || !sp.Val.can().Read {
		return
	}
	if sp.Val.perms.Write {
		end = min(end, start+minAround)
		_ = mm.ensure(sp, start, end, start, end, access{at: hostarch.Write})
		return
	}
	_ = mm.ensure(sp, start, start+pageSize, start, end, access{at: hostarch.Read})
}

// place decides where a mapping goes (mm/mmap.c get_unmapped_area).
func (mm *MemoryManager) place(opts *memmap.MMapOpts, n uint64) (uint64, error) {
	addr := uint64(opts.Addr)
	lo, hi := uint64(mm.lim.Start), uint64(mm.lim.End)
	if n > hi-lo {
		return 0, unix.ENOMEM
	}
	if !opts.Fixed && !opts.FixedNoReplace {
		return mm.findGap(n, addr, opts.Map32Bit)
	}
	switch {
	case addr > hi-n, mm.reserved(addr, addr+n):
		return 0, unix.ENOMEM
	case addr&pageMask != 0:
		return 0, unix.EINVAL
	case addr < lo:
		return 0, unix.EPERM // vm.mmap_min_addr
	case opts.FixedNoReplace && !mm.vmas.Free(addr, addr+n):
		return 0, unix.EEXIST
	}
	return addr, nil
}

// MayPlace checks the place that opts ask for, which comes before what is to be mapped there.
func (mm *MemoryManager) MayPlace(opts *memmap.MMapOpts) error {
	n := pageUp(opts.Length)
	switch {
	case opts.Length == 0:
		return unix.EINVAL
	case n == 0:
		return unix.ENOMEM
	}
	mm.mu.RLock()
	defer mm.mu.RUnlock()
	if !opts.Fixed && !opts.FixedNoReplace {
		if n > uint64(mm.lim.End-mm.lim.Start) {
			return unix.ENOMEM
		}
		return nil
	}
	_, err := mm.place(opts, n)
	return err
}

// mappedIn is the number of mapped bytes in [start, end).
func (mm *MemoryManager) mappedIn(start, end uint64) (n uint64) {
	for it := mm.vmas.Find(start); mm.vmas.Ok(it) && mm.vmas.At(it).Start < end; it = mm.vmas.Next(it) {
		sp := mm.vmas.At(it)
		n += min(end, sp.End) - max(start, sp.Start)
	}
	return n
}

// checkRange validates an address and a length as the calls below do: EINVAL if they are unaligned, overflow or leave user space.
func (mm *MemoryManager) checkRange(addr hostarch.Addr, length uint64) (start, end uint64, err error) {
	start = uint64(addr)
	n := pageUp(length)
	if start&pageMask != 0 || n < length || start+n < start || start+n > taskSize {
		return 0, 0, unix.EINVAL
	}
	return start, start + n, nil
}

// taskSize is Linux's TASK_SIZE_MAX with four-level page tables. The platform may let guests map less.
const taskSize = 1<<47 - pageSize

// MUnmap is munmap(2).
func (mm *MemoryManager) MUnmap(addr hostarch.Addr, length uint64) error {
	start, end, err := mm.checkRange(addr, length)
	if err != nil || start == end {
		return unix.EINVAL
	}
	mm.mu.Lock()
	defer mm.unlock()
	it := mm.vmas.Find(start)
	if mm.vmas.Ok(it) && mm.vmas.At(it).Start < start && mm.vmas.At(it).End > end && mm.vmas.Len() >= maxMapCount {
		return unix.ENOMEM
	}
	if mm.sealed(start, end) {
		return unix.EPERM
	}
	mm.removeVMAs(start, end, true)
	return nil
}

// MProtect is mprotect(2) with the checks of mm/mprotect.c do_mprotect_pkey. growsDown is PROT_GROWSDOWN.
func (mm *MemoryManager) MProtect(c Caller, addr hostarch.Addr, length uint64, perms hostarch.AccessType, growsDown bool) error {
	start := uint64(addr)
	if start&pageMask != 0 {
		return unix.EINVAL
	}
	if length == 0 {
		return nil
	}
	end := start + pageUp(length)
	if end <= start {
		return unix.ENOMEM
	}
	mm.mu.Lock()
	defer mm.unlock()
	it := mm.vmas.Find(start)
	if !mm.vmas.Ok(it) {
		return unix.ENOMEM
	}
	if growsDown {
		if sp := mm.vmas.At(it); sp.Start < end {
			if sp.Val.flags&vmGrowsDown == 0 {
				return unix.EINVAL
			}
			start = sp.Start
		} else {
			return unix.ENOMEM
		}
	} else if mm.vmas.At(it).Start > start {
		return unix.ENOMEM
	}
	for at := start; at < end; {
		if !mm.vmas.Ok(it) || mm.vmas.At(it).Start > at {
			return unix.ENOMEM
		}
		if mm.vmas.At(it).Val.flags&vmSealed != 0 {
			return unix.EPERM
		}
		it = mm.isolateForProtect(it, start, end, perms)
		sp := mm.vmas.At(it)
		at = sp.End
		if sp.Val.perms != perms {
			if err := mm.protectVMA(c, it, perms); err != nil {
				mm.mergeVMA(it)
				return err
			}
			it = mm.mergeVMA(it)
			at = mm.vmas.At(it).End
		}
		it = mm.vmas.Next(it)
	}
	return nil
}

// isolateForProtect is isolate, unless nothing would change.
func (mm *MemoryManager) isolateForProtect(it spans.Iter, start, end uint64, perms hostarch.AccessType) spans.Iter {
	if mm.vmas.At(it).Val.perms == perms {
		return it
	}
	return mm.isolate(it, start, end)
}

func (mm *MemoryManager) protectVMA(c Caller, it spans.Iter, perms hostarch.AccessType) error {
	sp := mm.vmas.At(it)
	v := &sp.Val
	if !v.maxPerms.SupersetOf(perms) || mm.denyWX.Load() && perms.Execute && (perms.Write || !v.perms.Execute) {
		return unix.EACCES
	}
	n := sp.Len()
	if isData(perms, v.flags) && !isData(v.perms, v.flags) {
		if mm.stat.data+n > c.limit(linux.RLIMIT_DATA) {
			return unix.ENOMEM
		}
	}
	changed := *v
	changed.perms = perms
	if mm.charged(&changed) && v.flags&vmAccount == 0 {
		if err := mm.mf.Charge(n); err != nil {
			return err
		}
		changed.flags |= vmAccount
	} else if !perms.Write && v.flags&vmAccount != 0 && v.anonymous() && mm.pmas.Free(sp.Start, sp.End) {
		mm.mf.Uncharge(n) // nothing was ever written there (mm/mprotect.c mprotect_fixup)
		changed.flags &^= vmAccount
	}
	mm.stat.sub(v, n)
	*v = changed
	mm.stat.add(v, n)
	mm.protectPMAs(sp.Start, sp.End, v)
	return nil
}

// protectPMAs brings the pages of a mapping in line with its permissions, with one change of the platform for neighbours that agree. Pages that may be written
// again wait for the first write (later), unless the mapping's last ones have not waited in vain.
func (mm *MemoryManager) protectPMAs(start, end uint64, v *vma) {
	later := v.eager == 0
	if !later && v.perms.Write {
		v.eager--
	}
	it := mm.pmas.Find(start)
	var from, to uint64
	var cur hostarch.AccessType
	for mm.pmas.Ok(it) && mm.pmas.At(it).Start < end {
		it = mm.isolatePMA(it, start, end)
		sp := mm.pmas.At(it)
		was := sp.Val.perms
		if now := sp.Val.pagePerms(v); !later || !sp.Val.anon || !now.Write || was != (hostarch.AccessType{Read: now.Read, Execute: now.Execute}) {
			sp.Val.perms = now
		}
		now, s, e := sp.Val.perms, sp.Start, sp.End
		it = mm.pmas.Next(mm.mergePMA(it))
		// Neighbours that are to have the same permissions are one change: mprotect stops at holes.
		if to == s && to > from && now == cur {
			to = e
			continue
		}
		if to > from {
			mm.as.Protect(addrRange(from, to), cur)
			to = from
		}
		if was != now {
			from, to, cur = s, e, now
		}
	}
	if to > from {
		mm.as.Protect(addrRange(from, to), cur)
	}
}
