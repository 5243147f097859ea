package tmpfs

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/sentry/memmap"
	"moat/sentry/vfs"
)

// ConfigureMMap implements vfs.FileImpl.
func (f *file) ConfigureMMap(_ vfs.Context, fd *vfs.FileDescription, o *memmap.MMapOpts) error {
	r := f.r
	r.mu.RLock()
	seals := r.seals
	r.mu.RUnlock()
	if !o.Private && seals&(unix.F_SEAL_WRITE|sealFutureWrite) != 0 {
		if o.Perms.Write {
			return unix.EPERM
		}
		o.MaxPerms.Write = false
	}
	o.Mappable, o.Identity = r, fd
	return nil
}

// AddMapping implements memmap.Mappable.
func (r *regular) AddMapping(ms memmap.Space, ar hostarch.AddrRange, off uint64, writable bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if writable && r.seals&unix.F_SEAL_WRITE != 0 {
		return unix.EPERM
	}
	r.maps.Add(ms, ar, off, writable)
	return nil
}

// RemoveMapping implements memmap.Mappable.
func (r *regular) RemoveMapping(ms memmap.Space, ar hostarch.AddrRange, off uint64, writable bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.maps.Remove(ms, ar, off, writable)
}

// Translate implements memmap.Mappable. Holes get pages, as shmem's do: those of optional too if they are about to be written.
func (r *regular) Translate(required, optional memmap.FileRange, at hostarch.AccessType) ([]memmap.Translation, error) {
	if !at.Write {
		r.mu.RLock()
		ts, ok, err := r.translateLocked(required, optional)
		r.mu.RUnlock()
		if ok || err != nil {
			return ts, err
		}
	}
	want := required
	if at.Write {
		want = optional
	}
	if err := r.fill(want.Start, min(want.End, pageUp(uint64(r.size.Load()))), nil); err != nil {
		if want == required {
			return nil, &memmap.BusError{Err: err}
		}
		if err := r.fill(required.Start, min(required.End, pageUp(uint64(r.size.Load()))), nil); err != nil {
			return nil, &memmap.BusError{Err: err}
		}
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	ts, ok, err := r.translateLocked(required, optional)
	if err == nil && !ok {
		return nil, &memmap.BusError{Err: unix.EFAULT} // truncated meanwhile
	}
	return ts, err
}

// translateLocked translates what is there of optional around required; false if a page of required is a hole.
// +checklocksread:r.mu
func (r *regular) translateLocked(required, optional memmap.FileRange) ([]memmap.Translation, bool, error) {
	size := pageUp(uint64(r.size.Load()))
	if required.End > size {
		return nil, false, &memmap.BusError{Err: unix.EFAULT}
	}
	optional.End = min(optional.End, size)
	// The run of pages without a hole around required.
	it := r.pages.Find(required.Start)
	if !r.pages.Ok(it) || r.pages.At(it).Start > required.Start {
		return nil, false, nil
	}
	for r.pages.At(it).Start > optional.Start {
		p, ok := r.pages.Prev(it)
		if !ok || r.pages.At(p).End != r.pages.At(it).Start {
			break
		}
		it = p
	}
	var ts []memmap.Translation
	end := max(optional.Start, r.pages.At(it).Start)
	for ; r.pages.Ok(it) && r.pages.At(it).Start <= end && end < optional.End; it = r.pages.Next(it) {
		sp := r.pages.At(it)
		t := memmap.Translation{Source: memmap.FileRange{Start: end, End: min(sp.End, optional.End)}, File: r.fs.mem,
			Offset: sp.Val + (end - sp.Start), Perms: hostarch.AnyAccess}
		ts = append(ts, t)
		end = t.Source.End
	}
	if end < required.End {
		return nil, false, nil
	}
	for _, t := range ts {
		r.fs.mem.IncRef(memmap.FileRange{Start: t.Offset, End: t.Offset + t.Source.Length()})
	}
	return ts, true, nil
}
