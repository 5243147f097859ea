package mm

import (
	"cmp"
	"slices"
	"sync"
)

// hotPages are pages that were written to soon after forks, by either side: the top of the stack, the C library's data. A fork copies them at
// once, which costs a fraction of the two faults that follow otherwise. Its mutex is a leaf.
type hotPages struct {
	mu sync.Mutex
	// +checklocks:mu
	pages []hotPage
}

type hotPage struct {
	addr uint64
	ttl  int // how many forks more it is believed hot without being proved again
}

const (
	maxHot = 24
	hotTTL = 32
)

// note tells of a copy-on-write fault.
func (h *hotPages) note(addr uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i, ok := slices.BinarySearchFunc(h.pages, addr, func(p hotPage, a uint64) int { return cmp.Compare(p.addr, a) })
	switch {
	case ok:
		h.pages[i].ttl = hotTTL
	case len(h.pages) < maxHot:
		h.pages = slices.Insert(h.pages, i, hotPage{addr, hotTTL})
	}
}

// take returns the hot pages in ascending order.
func (h *hotPages) take() []uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []uint64
	h.pages = slices.DeleteFunc(h.pages, func(p hotPage) bool { return p.ttl == 0 })
	for i := range h.pages {
		h.pages[i].ttl--
		list = append(list, h.pages[i].addr)
	}
	return list
}

// splitHot makes runs of their own of the hot pages. Those that only this space has, and writes to, stay writable at a fork.
// Preconditions: mu is held for writing.
func (mm *MemoryManager) splitHot() (runs []uint64) {
	if mm.mf.Pressed() {
		return nil
	}
	for _, a := range mm.kin.hot.take() {
		sp, run := mm.vmas.Lookup(a), mm.pmas.Lookup(a)
		if sp == nil || !sp.Val.private() || sp.Val.flags&(vmDontFork|vmWipeOnFork) != 0 || run == nil || !run.Val.anon || !sp.Val.can().Write {
			continue
		}
		if run.Val.perms.Write && mm.users.Load() > 1 {
			continue // a copy while others write would be none of one moment
		}
		mm.pmas.At(mm.isolatePMA(mm.pmas.Find(a), a, a+pageSize)).Val.hot = true
		runs = append(runs, a)
	}
	return runs
}

// joinHot undoes splitHot.
// Preconditions: mu is held for writing.
func (mm *MemoryManager) joinHot(runs []uint64) {
	for _, a := range runs {
		it := mm.pmas.Find(a)
		mm.pmas.At(it).Val.hot = false
		mm.mergePMA(it)
	}
}

// copyHot makes p, a hot page of ours in v, the child's copy of it.
func (mm *MemoryManager) copyHot(p *pma, v *vma) error {
	fr, err := mm.acct.Load().Allocate(pageSize, false)
	if err != nil {
		return err
	}
	copy(mm.mf.Bytes(fr.Start, pageSize), mm.mf.Bytes(p.off, pageSize))
	p.off, p.hot, p.cow = fr.Start, false, false
	p.perms = p.pagePerms(v)
	return nil
}
