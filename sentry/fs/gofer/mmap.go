package gofer

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"

	"moat/sentry/memmap"
)

// A mapping of a file shows the host's own pages: the page cache, shared with every other sandbox of the host.

// AddMapping implements memmap.Mappable.
func (i *inode) AddMapping(ms memmap.Space, ar hostarch.AddrRange, offset uint64, writable bool) error {
	i.mapMu.Lock()
	defer i.mapMu.Unlock()
	i.maps.Add(ms, ar, offset, writable)
	return nil
}

// RemoveMapping implements memmap.Mappable.
func (i *inode) RemoveMapping(ms memmap.Space, ar hostarch.AddrRange, offset uint64, writable bool) {
	i.mapMu.Lock()
	defer i.mapMu.Unlock()
	if i.maps.Remove(ms, ar, offset, writable); writable {
		i.markStale() // times of what was written through it
	}
}

// Translate implements memmap.Mappable.
func (i *inode) Translate(required, optional memmap.FileRange, at hostarch.AccessType) ([]memmap.Translation, error) {
	if i.fs.shared {
		if err := i.refresh(); err != nil {
			return nil, &memmap.BusError{Err: err}
		}
	}
	end := roundUp(uint64(i.size.Load()))
	if required.End > end {
		return nil, &memmap.BusError{Err: unix.EFAULT}
	}
	optional.End = min(optional.End, end)
	h, err := i.getFD(at.Write)
	if err != nil {
		return nil, &memmap.BusError{Err: err}
	}
	h.IncRef(optional)
	h.decRef()
	perms := hostarch.AnyAccess
	if h.slot == &i.ro {
		perms.Write = false
	}
	return []memmap.Translation{{Source: optional, File: h, Offset: optional.Start, Perms: perms}}, nil
}

func roundUp(n uint64) uint64 { return (n + hostarch.PageSize - 1) &^ (hostarch.PageSize - 1) }

// invalidate drops the guest's pages behind the new end of the file. Called with wmu, which comes before the locks of
// address spaces.
func (i *inode) invalidate(size int64) {
	i.mapMu.Lock()
	places := i.maps.Find(memmap.FileRange{Start: roundUp(uint64(size)), End: ^uint64(0)})
	i.mapMu.Unlock()
	for _, p := range places {
		p.Space.Invalidate(p.Range, true)
	}
}

// TranslatesWide implements memmap.Wide: mapping more of a host file costs nothing.
func (i *inode) TranslatesWide() bool { return true }
