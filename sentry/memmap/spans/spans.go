// Package spans is an ordered set of disjoint ranges of uint64, each with a value: the VMAs and page runs of an
// address space, the page runs of a file.
//
// It is a two-level sorted array: leaves of up to leafMax spans, in one slice. Lookups are two binary searches,
// neighbours lie side by side, and 100,000 spans need an insert to move a few kilobytes at most. A Set has no lock of
// its own. Iterators and pointers into it are valid until the next insert, split or removal.
package spans

const leafMax = 64

// Span is the range [Start, End) with a value.
type Span[V any] struct {
	Start, End uint64
	Val        V
}

// Len is the length of the span.
func (s *Span[V]) Len() uint64 { return s.End - s.Start }

type leaf[V any] struct {
	ents []Span[V]
	// gap bounds the gaps between neighbours in the leaf from above; gapOK is false when it must be computed again.
	gap   uint64
	gapOK bool
}

// Set is a set of disjoint spans in ascending order. The zero value is empty.
type Set[V any] struct {
	leaves []*leaf[V]
	n      int
}

// Iter is a position in a Set: a span, or the end.
type Iter struct{ l, i int }

// Len is the number of spans.
func (s *Set[V]) Len() int { return s.n }

// Clear empties the set.
func (s *Set[V]) Clear() { s.leaves, s.n = nil, 0 }

// First is the position of the lowest span.
func (s *Set[V]) First() Iter { return Iter{} }

// Ok reports whether it is at a span (not at the end).
func (s *Set[V]) Ok(it Iter) bool { return it.l < len(s.leaves) }

// At returns the span at it, which must be Ok.
func (s *Set[V]) At(it Iter) *Span[V] { return &s.leaves[it.l].ents[it.i] }

// Next is the position after it.
func (s *Set[V]) Next(it Iter) Iter {
	if it.i++; it.i == len(s.leaves[it.l].ents) {
		return Iter{it.l + 1, 0}
	}
	return it
}

// Prev returns the position before it; ok is false at the first. it may be the end.
func (s *Set[V]) Prev(it Iter) (_ Iter, ok bool) {
	if it.i > 0 {
		it.i--
		return it, true
	}
	if it.l == 0 {
		return it, false
	}
	return Iter{it.l - 1, len(s.leaves[it.l-1].ents) - 1}, true
}

// Find returns the first span whose End is above addr: the one that holds addr, or the next higher.
func (s *Set[V]) Find(addr uint64) Iter {
	lo, hi := 0, len(s.leaves)
	for lo < hi {
		m := int(uint(lo+hi) / 2)
		e := s.leaves[m].ents
		if e[len(e)-1].End > addr {
			hi = m
		} else {
			lo = m + 1
		}
	}
	if lo == len(s.leaves) {
		return Iter{lo, 0}
	}
	e := s.leaves[lo].ents
	i, j := 0, len(e)-1
	for i < j {
		m := int(uint(i+j) / 2)
		if e[m].End > addr {
			j = m
		} else {
			i = m + 1
		}
	}
	return Iter{lo, i}
}

// Lookup returns the span that holds addr, or nil.
func (s *Set[V]) Lookup(addr uint64) *Span[V] {
	it := s.Find(addr)
	if !s.Ok(it) {
		return nil
	}
	if sp := s.At(it); sp.Start <= addr {
		return sp
	}
	return nil
}

// Free reports whether no span overlaps [start, end).
func (s *Set[V]) Free(start, end uint64) bool {
	it := s.Find(start)
	return !s.Ok(it) || s.At(it).Start >= end
}

// Insert adds a span, which must overlap none, and returns its position.
func (s *Set[V]) Insert(sp Span[V]) Iter { return s.InsertAt(s.Find(sp.Start), sp) }

// InsertAt is Insert with the position of the span behind the new one known.
func (s *Set[V]) InsertAt(it Iter, sp Span[V]) Iter {
	s.n++
	if it.l == len(s.leaves) {
		if it.l == 0 {
			s.leaves = append(s.leaves, newLeaf(sp))
			return Iter{}
		}
		it = Iter{it.l - 1, len(s.leaves[it.l-1].ents)}
	}
	lf := s.leaves[it.l]
	if len(lf.ents) == leafMax {
		switch it.i {
		case 0:
			s.addLeaf(it.l, newLeaf(sp))
			return it
		case leafMax:
			s.addLeaf(it.l+1, newLeaf(sp))
			return Iter{it.l + 1, 0}
		}
		const h = leafMax / 2
		right := newLeaf(lf.ents[h:]...)
		clear(lf.ents[h:])
		lf.ents, lf.gapOK = lf.ents[:h], false
		s.addLeaf(it.l+1, right)
		if it.i > h {
			it = Iter{it.l + 1, it.i - h}
			lf = right
		}
	}
	lf.ents = append(lf.ents, sp)
	copy(lf.ents[it.i+1:], lf.ents[it.i:])
	lf.ents[it.i] = sp
	lf.gapOK = false
	return it
}

func newLeaf[V any](sp ...Span[V]) *leaf[V] {
	n := 4
	if len(sp) > 1 {
		n = leafMax
	}
	return &leaf[V]{ents: append(make([]Span[V], 0, n), sp...)}
}

func (s *Set[V]) addLeaf(l int, lf *leaf[V]) {
	s.leaves = append(s.leaves, nil)
	copy(s.leaves[l+1:], s.leaves[l:])
	s.leaves[l] = lf
}

// Remove removes the span at it and returns the position of the next.
func (s *Set[V]) Remove(it Iter) Iter {
	s.n--
	lf := s.leaves[it.l]
	last := len(lf.ents) - 1
	copy(lf.ents[it.i:], lf.ents[it.i+1:])
	lf.ents[last] = Span[V]{}
	lf.ents, lf.gapOK = lf.ents[:last], false
	if last == 0 {
		copy(s.leaves[it.l:], s.leaves[it.l+1:])
		s.leaves[len(s.leaves)-1] = nil
		s.leaves = s.leaves[:len(s.leaves)-1]
		return it
	}
	if it.i == last {
		return Iter{it.l + 1, 0}
	}
	return it
}

// SetBounds changes the bounds of the span at it, which must not come to overlap others.
func (s *Set[V]) SetBounds(it Iter, start, end uint64) {
	sp := s.At(it)
	sp.Start, sp.End = start, end
	s.leaves[it.l].gapOK = false
}

// Split cuts the span at it in two at addr, which lies inside it, and returns the position of the second. Both have the
// value.
func (s *Set[V]) Split(it Iter, addr uint64) Iter {
	sp := *s.At(it)
	s.SetBounds(it, sp.Start, addr)
	sp.Start = addr
	it = s.InsertAt(s.Next(it), sp)
	return it
}

// GapDown returns the highest start of a free range of size bytes (a multiple of align apart from phase) within [lo, hi).
// guard says how much room to leave below a span.
func (s *Set[V]) GapDown(lo, hi, size uint64, guard func(*Span[V]) uint64) (uint64, bool) {
	if hi < lo || hi-lo < size {
		return 0, false
	}
	it := s.Find(hi - 1)
	top := hi
	if s.Ok(it) {
		top = min(hi, below(s.At(it), guard))
	}
	for {
		p, ok := s.Prev(it)
		bottom := lo
		if ok {
			bottom = max(lo, s.At(p).End)
		}
		if top >= bottom && top-bottom >= size {
			return top - size, true
		}
		if !ok || bottom == lo {
			return 0, false
		}
		// Skip a leaf that has no gap large enough: go on at its first span.
		if lf := s.leaves[p.l]; p.i == len(lf.ents)-1 && lf.maxGap() < size {
			p.i = 0
		}
		it = p
		top = min(hi, below(s.At(it), guard))
	}
}

// GapUp is GapDown for the lowest.
func (s *Set[V]) GapUp(lo, hi, size uint64, guard func(*Span[V]) uint64) (uint64, bool) {
	if hi < lo || hi-lo < size {
		return 0, false
	}
	bottom := lo
	for it := s.Find(lo); ; {
		top := hi
		ok := s.Ok(it)
		if ok {
			top = min(hi, below(s.At(it), guard))
		}
		if top >= bottom && top-bottom >= size {
			return bottom, true
		}
		if !ok || s.At(it).Start >= hi {
			return 0, false
		}
		if lf := s.leaves[it.l]; it.i == 0 && lf.maxGap() < size {
			it.i = len(lf.ents) - 1
		}
		bottom = max(bottom, s.At(it).End)
		it = s.Next(it)
	}
}

func below[V any](sp *Span[V], guard func(*Span[V]) uint64) uint64 {
	g := guard(sp)
	if g > sp.Start {
		return 0
	}
	return sp.Start - g
}

func (lf *leaf[V]) maxGap() uint64 {
	if !lf.gapOK {
		lf.gap = 0
		for i := 1; i < len(lf.ents); i++ {
			lf.gap = max(lf.gap, lf.ents[i].Start-lf.ents[i-1].End)
		}
		lf.gapOK = true
	}
	return lf.gap
}
