package memmap

import "gvisor.dev/gvisor/pkg/hostarch"

// Mappings are the mappings of one Mappable: what AddMapping and RemoveMapping told. The zero value is empty. The owner locks.
type Mappings struct {
	spaces map[Space][]mapping
	// writable counts bytes that may be written through shared mappings.
	writable uint64
}

type mapping struct {
	ar  hostarch.AddrRange
	off uint64
}

// Add enters a mapping.
func (m *Mappings) Add(ms Space, ar hostarch.AddrRange, off uint64, writable bool) {
	if m.spaces == nil {
		m.spaces = make(map[Space][]mapping)
	}
	m.spaces[ms] = append(m.spaces[ms], mapping{ar, off})
	if writable {
		m.writable += uint64(ar.Length())
	}
}

// Remove takes ar of ms out; it may be a part of what was added, or several parts.
func (m *Mappings) Remove(ms Space, ar hostarch.AddrRange, off uint64, writable bool) {
	old := m.spaces[ms]
	kept := old[:0]
	var more []mapping
	for _, e := range old {
		x := e.ar.Intersect(ar)
		// The same addresses may be listed twice while a VMA is replaced: the offset tells which.
		if x.Length() == 0 || e.off+uint64(x.Start-e.ar.Start) != off+uint64(x.Start-ar.Start) {
			kept = append(kept, e)
			continue
		}
		if writable {
			m.writable -= min(m.writable, uint64(x.Length()))
		}
		if e.ar.Start < x.Start {
			more = append(more, mapping{hostarch.AddrRange{Start: e.ar.Start, End: x.Start}, e.off})
		}
		if x.End < e.ar.End {
			more = append(more, mapping{hostarch.AddrRange{Start: x.End, End: e.ar.End}, e.off + uint64(x.End-e.ar.Start)})
		}
	}
	if kept = append(kept, more...); len(kept) == 0 {
		delete(m.spaces, ms)
	} else {
		m.spaces[ms] = kept
	}
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
	for ms, l := range m.spaces {
		for _, e := range l {
			start, end := e.off, e.off+uint64(e.ar.Length())
			start, end = max(start, fr.Start), min(end, fr.End)
			if start < end {
				out = append(out, Place{ms, hostarch.AddrRange{
					Start: e.ar.Start + hostarch.Addr(start-e.off),
					End:   e.ar.Start + hostarch.Addr(end-e.off),
				}})
			}
		}
	}
	return out
}
