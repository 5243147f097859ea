package mm

import (
	"slices"
	"sync"
	"sync/atomic"

	"moat/platform"
	"moat/sentry/memmap/spans"
)

// kin is what an address space and those forked from it share, whose addresses are the same.
type kin struct {
	hot     hotPages
	members atomic.Int64

	mu sync.Mutex
	// spares are the platform's sides of members that have ended. Forks of one process differ in few pages, so that the next finds most of its mappings there.
	// +checklocks:mu
	spares []spare
}

type spare struct {
	ticket uint64
	// maps is what is mapped, without references to it: only where the same is to be mapped again does it say what is there.
	maps []spans.Span[pma]
	// textsAt is MemoryManager.textsAt.
	textsAt uint64
}

const (
	// maxSpares is how many spares relatives have: as many children as a shell's pipeline has and one that is not ready yet.
	maxSpares = 3
	// maxSpareRuns bounds the runs of pages of a spare.
	maxSpareRuns = 2048
)

// reclaim returns a spare's platform side and what is mapped there; nil if there is none.
func (k *kin) reclaim(p platform.Platform) (platform.AddressSpace, spare) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := len(k.spares) - 1; i >= 0; i-- {
		s := k.spares[i]
		as, gone := p.(platform.Keeper).Reclaim(s.ticket)
		if as != nil || gone {
			k.spares = slices.Delete(k.spares, i, i+1)
		}
		if as != nil {
			return as, s
		}
	}
	return nil, spare{}
}

// retire gives up the platform's side, and the membership.
// Preconditions: mu is held for writing.
// +checklocks:mm.mu
func (mm *MemoryManager) retire() {
	k := mm.kin
	p, keeps := mm.p.(platform.Keeper)
	var own spare
	if !keeps || !mm.forked || k.members.Load() == 1 || mm.pmas.Len() > maxSpareRuns || mm.mf.Pressed() {
		mm.as.Release()
	} else if own.ticket = p.Keep(mm.as); own.ticket != 0 {
		own.maps, own.textsAt = make([]spans.Span[pma], 0, mm.pmas.Len()), mm.textsAt
		for it := mm.pmas.First(); mm.pmas.Ok(it); it = mm.pmas.Next(it) {
			own.maps = append(own.maps, *mm.pmas.At(it))
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if own.ticket != 0 {
		k.spares = append(k.spares, own)
	}
	last := k.members.Add(-1) == 0
	for len(k.spares) > maxSpares || last && len(k.spares) > 0 {
		p.Discard(k.spares[0].ticket)
		k.spares = slices.Delete(k.spares, 0, 1)
	}
}

// expectTexts is called before code is mapped in a fork. What was mapped before when Texts.changes was at is rewritten otherwise now if that has changed.
func (mm *MemoryManager) expectTexts(at uint64) {
	if mm.texts == nil {
		return
	}
	if mm.textsAt = mm.texts.changes.Load(); mm.textsAt != at {
		for i := range mm.before {
			if p := &mm.before[i].Val; p.text != nil {
				p.file = nil
			}
		}
	}
}

// unmapBefore unmaps what is there up to addr of what was mapped before, and has not been looked at.
func (mm *MemoryManager) unmapBefore(addr uint64) {
	for ; len(mm.before) > 0 && mm.before[0].Start < addr; mm.nextBefore(addr) {
		o := &mm.before[0]
		mm.as.Unmap(addrRange(o.Start, min(o.End, addr)))
	}
}

// nextBefore goes on with what was mapped before at addr, which lies in its first run or behind.
func (mm *MemoryManager) nextBefore(addr uint64) {
	o := &mm.before[0]
	if o.End <= addr {
		mm.before = mm.before[1:]
		return
	}
	o.Val.off += addr - o.Start
	o.Start = addr
}

// mapOver is mapRun for a fork, whose runs come in ascending order: it leaves alone what was mapped before as it should be.
func (mm *MemoryManager) mapOver(start, end uint64, p pma) {
	mm.unmapBefore(start)
	for start < end {
		stop, same, at := end, false, p.perms
		if len(mm.before) > 0 {
			if o := &mm.before[0]; o.Start > start {
				stop = min(end, o.Start)
			} else {
				stop = min(end, o.End)
				same = o.Val.file == p.file && o.Val.off == p.off && o.Val.text == p.text
				at = o.Val.perms
				mm.nextBefore(stop)
			}
		}
		switch {
		case !same || p.text != nil && at != p.perms:
			mm.mapRun(start, stop, &p)
		case at != p.perms:
			mm.as.Protect(addrRange(start, stop), p.perms)
		}
		p.off += stop - start
		start = stop
	}
}
