package tmpfs

import (
	"golang.org/x/sys/unix"
	"moat/sentry/memmap"
	"moat/sentry/memmap/spans"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

// Backing is an open file that never changes, from which a regular file takes the pages it has not got yet: what an overlay
// has copied up is copied when it is touched.
type Backing interface {
	Read(ctx vfs.Context, fd *vfs.FileDescription, dst usermem.IOSequence, off int64, flags vfs.IOFlags) (int64, error)
	Release(ctx vfs.Context, fd *vfs.FileDescription)
}

// backing is a regular file's Backing; guarded by regular.mu.
type backing struct {
	file Backing
	// end is where the bytes taken from file end; what is behind is zero.
	end int64
	// missing are the page-aligned ranges that are still to be taken from file. None of them has pages.
	missing spans.Set[struct{}]
}

// SetBacking gives i, a new regular file of NewNode, size bytes that are taken from b when they are needed. i owns b.
func SetBacking(i vfs.Inode, b Backing, size int64) {
	r := i.(*regular)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.size.Store(size)
	r.back = &backing{file: b, end: size}
	r.back.missing.Insert(spans.Span[struct{}]{Start: 0, End: pageUp(uint64(size))})
}

// missingLocked returns how far from off, which is page-aligned, pages are missing (true) or not (false), at most n.
// +checklocksread:r.mu
func (r *regular) missingLocked(off, n uint64) (uint64, bool) {
	if r.back == nil {
		return n, false
	}
	m := &r.back.missing
	it := m.Find(off)
	switch {
	case !m.Ok(it):
		return n, false
	case m.At(it).Start > off:
		return min(n, m.At(it).Start-off), false
	}
	return min(n, m.At(it).End-off), true
}

// foundLocked notes that [start, end) is not missing any more.
// +checklocks:r.mu
func (r *regular) foundLocked(start, end uint64) {
	if r.back == nil {
		return
	}
	m := &r.back.missing
	for it := m.Find(start); m.Ok(it) && m.At(it).Start < end; {
		switch sp := *m.At(it); {
		case sp.Start < start:
			it = m.Split(it, start)
		case sp.End > end:
			m.SetBounds(it, end, sp.End)
			return
		default:
			it = m.Remove(it)
		}
	}
}

// take fills b with the bytes at off of the backing file, zeroes behind its end.
func (r *regular) take(b []byte, off uint64) error {
	r.mu.RLock()
	k := r.back
	end := uint64(k.end)
	r.mu.RUnlock()
	n := uint64(0)
	if off < end {
		n = min(uint64(len(b)), end-off)
	}
	clear(b[n:])
	for done := uint64(0); done < n; {
		c, err := k.file.Read(vfs.Background(), nil, usermem.Bytes(b[done:n]), int64(off+done), 0)
		if err != nil {
			return err
		}
		if c == 0 {
			return unix.EIO
		}
		done += uint64(c)
	}
	return nil
}

// fetch makes the missing pages of [start, end), page-aligned, present.
func (r *regular) fetch(start, end uint64) error {
	if r.back == nil { // set before the file is seen, then only freed
		return nil
	}
	for start < end {
		r.mu.RLock()
		n, missing := r.missingLocked(start, end-start)
		r.mu.RUnlock()
		if !missing {
			start += n
			continue
		}
		fr, err := r.alloc(start, n, false)
		if err != nil {
			return err
		}
		if err := r.take(r.fs.mem.Bytes(fr.Start, fr.Length()), start); err != nil {
			r.fs.unreserve(int64(fr.Length() / pageSize))
			r.fs.mem.DecRef(fr)
			return err
		}
		r.mu.Lock()
		// Somebody may have been faster, or truncated: enter only what is still missing.
		if end := uint64(r.back.end); end < start+fr.Length() {
			clear(r.fs.mem.Bytes(fr.Start, fr.Length())[max(end, start)-start:])
		}
		for off := uint64(0); off < fr.Length(); {
			n, missing := r.missingLocked(start+off, fr.Length()-off)
			part := memmap.FileRange{Start: fr.Start + off, End: fr.Start + off + n}
			if missing {
				r.joinLocked(start+off, start+off+n, part.Start)
				r.foundLocked(start+off, start+off+n)
			} else {
				r.fs.mem.DecRef(part)
				r.fs.unreserve(int64(n / pageSize))
			}
			off += n
		}
		r.mu.Unlock()
		start += fr.Length()
	}
	return nil
}

// fetchEdges makes those missing pages present that [start, end) covers only in part.
func (r *regular) fetchEdges(start, end uint64) error {
	if start&pageMask != 0 {
		if err := r.fetch(pageDown(start), pageDown(start)+pageSize); err != nil {
			return err
		}
	}
	if end&pageMask != 0 {
		return r.fetch(pageDown(end), pageDown(end)+pageSize)
	}
	return nil
}
