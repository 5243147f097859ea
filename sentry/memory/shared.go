package memory

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/sentry/memmap"
	"moat/sentry/memmap/spans"
)

// Shared is a memory object of fixed size that address spaces map shared: MAP_SHARED|MAP_ANONYMOUS memory, a System V
// shared memory segment. It implements memmap.Mappable and memmap.Identity; its creator holds the first reference.
type Shared struct {
	f    *File
	a    *Account
	name string
	dev  uint64
	ino  uint64
	size uint64
	refs atomic.Int64

	mu sync.Mutex
	// pages maps ranges of the object to offsets in the file. +checklocks:mu
	pages spans.Set[uint64]
}

// NewShared returns an object of size bytes, whose pages are charged to a. name, dev and ino identify it in /proc/PID/maps.
func NewShared(a *Account, size uint64, name string, dev, ino uint64) *Shared {
	s := &Shared{f: a.f, a: a, name: name, dev: dev, ino: ino, size: (size + PageSize - 1) &^ (PageSize - 1)}
	s.refs.Store(1)
	return s
}

// Size is the object's size in bytes.
func (s *Shared) Size() uint64 { return s.size }

// IncRef implements memmap.Identity.
func (s *Shared) IncRef() { s.refs.Add(1) }

// DecRef implements memmap.Identity. The last one frees the pages.
func (s *Shared) DecRef() {
	if s.refs.Add(-1) != 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for it := s.pages.First(); s.pages.Ok(it); it = s.pages.Next(it) {
		sp := s.pages.At(it)
		s.f.DecRef(memmap.FileRange{Start: sp.Val, End: sp.Val + sp.Len()})
	}
	s.pages.Clear()
}

// MappedName, DeviceID and InodeID implement memmap.Identity.
func (s *Shared) MappedName() string { return s.name }

// DeviceID implements memmap.Identity.
func (s *Shared) DeviceID() uint64 { return s.dev }

// InodeID implements memmap.Identity.
func (s *Shared) InodeID() uint64 { return s.ino }

// Resident is the number of bytes that have pages.
func (s *Shared) Resident() (n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for it := s.pages.First(); s.pages.Ok(it); it = s.pages.Next(it) {
		n += s.pages.At(it).Len()
	}
	return n
}

// AddMapping implements memmap.Mappable. Pages of a Shared never change, so nobody needs to be told.
func (s *Shared) AddMapping(memmap.Space, hostarch.AddrRange, uint64, bool) error { return nil }

// RemoveMapping implements memmap.Mappable.
func (s *Shared) RemoveMapping(memmap.Space, hostarch.AddrRange, uint64, bool) {}

// Translate implements memmap.Mappable.
func (s *Shared) Translate(required, optional memmap.FileRange, _ hostarch.AccessType) ([]memmap.Translation, error) {
	if required.End > s.size {
		return nil, &memmap.BusError{Err: unix.EFAULT}
	}
	optional.End = min(optional.End, s.size)
	s.mu.Lock()
	defer s.mu.Unlock()
	var ts []memmap.Translation
	for at := optional.Start; at < optional.End; {
		it := s.pages.Find(at)
		if s.pages.Ok(it) && s.pages.At(it).Start <= at {
			sp := s.pages.At(it)
			end := min(sp.End, optional.End)
			fr := memmap.FileRange{Start: sp.Val + (at - sp.Start), End: sp.Val + (end - sp.Start)}
			s.f.IncRef(fr)
			ts = append(ts, memmap.Translation{Source: memmap.FileRange{Start: at, End: end}, File: s.f, Offset: fr.Start, Perms: hostarch.AnyAccess})
			at = end
			continue
		}
		end := optional.End
		if s.pages.Ok(it) {
			end = min(end, s.pages.At(it).Start)
		}
		fr, err := s.a.Allocate(end-at, true)
		if err != nil {
			if at >= required.End {
				break
			}
			for _, t := range ts {
				s.f.DecRef(memmap.FileRange{Start: t.Offset, End: t.Offset + t.Source.Length()})
			}
			if optional != required {
				ts, optional, at = nil, required, required.Start
				continue
			}
			return nil, err
		}
		end = at + fr.Length()
		s.insertLocked(at, end, fr.Start)
	}
	return ts, nil
}

// Pages are where the object's pages, all of which have memory now, lie in the file. They stay there while there is a reference. ENOMEM.
func (s *Shared) Pages() (ps []uint64, err error) {
	all := memmap.FileRange{End: s.size}
	ts, err := s.Translate(all, all, hostarch.ReadWrite)
	for _, t := range ts {
		for off := uint64(0); off < t.Source.Length(); off += PageSize {
			ps = append(ps, t.Offset+off)
		}
		s.f.DecRef(memmap.FileRange{Start: t.Offset, End: t.Offset + t.Source.Length()})
	}
	return ps, err
}

// PunchHole implements mm.PunchHoler: what lies there reads as zeroes again. The pages stay, since mappings of them are not told.
func (s *Shared) PunchHole(off, length uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for it := s.pages.Find(off); s.pages.Ok(it) && s.pages.At(it).Start < off+length; it = s.pages.Next(it) {
		sp := s.pages.At(it)
		a, b := max(sp.Start, off), min(sp.End, off+length)
		clear(s.f.Bytes(sp.Val+(a-sp.Start), b-a))
	}
	return nil
}

// insertLocked adds pages, joining them to the run before if they follow it in the file too.
func (s *Shared) insertLocked(start, end, off uint64) {
	it := s.pages.Find(start)
	if p, ok := s.pages.Prev(it); ok {
		if sp := s.pages.At(p); sp.End == start && sp.Val+sp.Len() == off {
			s.pages.SetBounds(p, sp.Start, end)
			return
		}
	}
	s.pages.InsertAt(it, spans.Span[uint64]{Start: start, End: end, Val: off})
}
