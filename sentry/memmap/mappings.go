package memmap

import (
	"gvisor.dev/gvisor/pkg/hostarch"

	"moat/sentry/memmap/spans"
)

// Mappings are the mappings of one Mappable: what AddMapping and RemoveMapping told. The zero value is empty. The owner locks.
type Mappings struct {
	spaces map[Space]*places
	// writable counts bytes that may be written through shared mappings.
	writable uint64
}

// places are the mappings in one address space, by address. What goes with a span is its offset less its address (modulo 2^64).
type places struct {
	set spans.Set[uint64]
	// twice are those whose addresses were in use already: a VMA is entered before the one that it replaces is taken out.
	twice []spans.Span[uint64]
}

// Add enters a mapping.
func (m *Mappings) Add(ms Space, ar hostarch.AddrRange, off uint64, writable bool) {
	if m.spaces == nil {
		m.spaces = make(map[Space]*places)
	}
	p := m.spaces[ms]
	if p == nil {
		p = &places{}
		m.spaces[ms] = p
	}
	p.add(spans.Span[uint64]{Start: uint64(ar.Start), End: uint64(ar.End), Val: off - uint64(ar.Start)})
	if writable {
		m.writable += uint64(ar.Length())
	}
}

func (p *places) add(sp spans.Span[uint64]) {
	if p.set.Free(sp.Start, sp.End) {
		p.set.Insert(sp)
	} else {
		p.twice = append(p.twice, sp)
	}
}

// Remove takes ar of ms out; it may be a part of what was added, or several parts.
func (m *Mappings) Remove(ms Space, ar hostarch.AddrRange, off uint64, writable bool) {
	p := m.spaces[ms]
	if p == nil {
		return
	}
	n := p.remove(uint64(ar.Start), uint64(ar.End), off-uint64(ar.Start))
	if writable {
		m.writable -= min(m.writable, n)
	}
	if p.set.Len() == 0 && len(p.twice) == 0 {
		delete(m.spaces, ms)
	}
}

// remove takes out what of [start, end) goes with val, which tells apart mappings whose addresses are listed twice, and returns how much that was.
func (p *places) remove(start, end, val uint64) (n uint64) {
	for it := p.set.Find(start); p.set.Ok(it) && p.set.At(it).Start < end; {
		sp := p.set.At(it)
		if sp.Val != val {
			it = p.set.Next(it)
			continue
		}
		if sp.Start < start {
			it = p.set.Split(it, start)
		}
		if sp = p.set.At(it); sp.End > end {
			from := sp.Start
			p.set.Split(it, end)
			it = p.set.Find(from)
		}
		n += p.set.At(it).Len()
		it = p.set.Remove(it)
	}
	if len(p.twice) == 0 {
		return n
	}
	old := p.twice
	p.twice = nil
	for _, sp := range old {
		a, b := max(sp.Start, start), min(sp.End, end)
		if sp.Val != val || a >= b || n >= end-start {
			p.add(sp)
			continue
		}
		n += b - a
		if sp.Start < a {
			p.add(spans.Span[uint64]{Start: sp.Start, End: a, Val: val})
		}
		if b < sp.End {
			p.add(spans.Span[uint64]{Start: b, End: sp.End, Val: val})
		}
	}
	return n
}

// Writable reports whether a shared mapping may be written.
func (m *Mappings) Writable() bool { return m.writable != 0 }

// Empty reports whether there are none.
func (m *Mappings) Empty() bool { return len(m.spaces) == 0 }

// Place is where part of an object is mapped.
type Place struct {
	Space Space
	Range hostarch.AddrRange
}

// Find returns where fr of the object is mapped. Space.Invalidate is to be called on them after the owner's lock was dropped.
func (m *Mappings) Find(fr FileRange) []Place {
	var out []Place
	for ms, p := range m.spaces {
		place := func(sp *spans.Span[uint64]) {
			start, end := max(sp.Start+sp.Val, fr.Start), min(sp.End+sp.Val, fr.End)
			if start < end {
				out = append(out, Place{ms, hostarch.AddrRange{Start: hostarch.Addr(start - sp.Val), End: hostarch.Addr(end - sp.Val)}})
			}
		}
		for it := p.set.First(); p.set.Ok(it); it = p.set.Next(it) {
			place(p.set.At(it))
		}
		for i := range p.twice {
			place(&p.twice[i])
		}
	}
	return out
}
