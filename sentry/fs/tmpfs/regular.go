package tmpfs

import (
	"math"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"moat/sentry/memmap"
	"moat/sentry/memmap/spans"
	"moat/sentry/memory"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

const (
	pageSize = memory.PageSize
	pageMask = pageSize - 1
)

func pageDown(n uint64) uint64 { return n &^ pageMask }
func pageUp(n uint64) uint64   { return (n + pageMask) &^ pageMask }

// regular is a regular file.
type regular struct {
	inode
	size atomic.Int64    // changed under mu
	acct *memory.Account // pays for the pages: that of who made the file

	// writeMu makes writes, truncations and fallocate one after the other (Linux's i_rwsem).
	writeMu sync.Mutex

	mu sync.RWMutex
	// pages maps page-aligned ranges of the file to offsets in the memory file.
	// +checklocks:mu
	pages spans.Set[uint64]
	// nr is the number of pages.
	// +checklocks:mu
	nr int64
	// +checklocks:mu
	maps memmap.Mappings
	// back is where missing pages come from, or nil; it is set before the file is seen.
	back *backing
	// seals are F_SEAL_*.
	// +checklocks:mu
	seals uint32
}

// Attr implements vfs.Inode.
func (r *regular) Attr(ctx vfs.Context) (vfs.Attr, error) {
	a, err := r.inode.Attr(ctx)
	r.mu.RLock()
	a.Size, a.Blocks = r.size.Load(), r.nr*(pageSize/512)
	r.mu.RUnlock()
	return a, err
}

// SetAttr implements vfs.Inode.
func (r *regular) SetAttr(ctx vfs.Context, s vfs.SetAttr) error {
	if s.Valid&vfs.SetMode != 0 && (r.mode.Load()^uint32(s.Mode))&0o111 != 0 {
		r.mu.RLock()
		sealed := r.seals&sealExec != 0
		r.mu.RUnlock()
		if sealed {
			return unix.EPERM
		}
	}
	if s.Valid&vfs.SetSize != 0 {
		r.writeMu.Lock()
		err := r.truncate(s.Size)
		r.writeMu.Unlock()
		if err != nil {
			return err
		}
		if s.Valid&vfs.SetMtime == 0 {
			r.modified(ctx.Now())
		}
	}
	return r.inode.SetAttr(ctx, s)
}

// Evict implements vfs.Inode.
func (r *regular) Evict() {
	if r.evicted() {
		r.free()
	}
}

// free gives all pages back.
func (r *regular) free() {
	r.mu.Lock()
	r.dropLocked(0, maxSize)
	r.mu.Unlock()
	if r.back != nil {
		r.back.file.Release(vfs.Background(), nil)
	}
}

// Open implements vfs.Inode.
func (r *regular) Open(vfs.Context, *vfs.Dentry, uint32) (vfs.FileImpl, error) {
	return &file{r: r}, nil
}

// file is an open regular file.
type file struct {
	vfs.FileDefaults
	r *regular
}

// Seekable implements vfs.FileImpl.
func (*file) Seekable() bool { return true }

// SeekEnd implements vfs.FileImpl.
func (f *file) SeekEnd(vfs.Context) (int64, error) { return f.r.size.Load(), nil }

// SeekData implements vfs.FileImpl.
func (f *file) SeekData(_ vfs.Context, off int64, data bool) (int64, error) {
	r := f.r
	r.mu.RLock()
	defer r.mu.RUnlock()
	size := r.size.Load()
	if off < 0 || off >= size {
		return 0, unix.ENXIO
	}
	for at := uint64(off); at < uint64(size); {
		end, present := r.dataLocked(at)
		if present == data {
			return int64(at), nil
		}
		at = end
	}
	if data {
		return 0, unix.ENXIO
	}
	return size, nil
}

// dataLocked reports whether there is data at off, and where that changes (or may change).
// +checklocksread:r.mu
func (r *regular) dataLocked(off uint64) (end uint64, data bool) {
	at := pageDown(off)
	n, missing := r.missingLocked(at, maxSize-at)
	if missing {
		return at + n, true
	}
	it := r.pages.Find(at)
	switch {
	case !r.pages.Ok(it):
		return at + n, false
	case r.pages.At(it).Start > at:
		return min(at+n, r.pages.At(it).Start), false
	}
	return r.pages.At(it).End, true
}

// Fsync implements vfs.FileImpl.
func (*file) Fsync(vfs.Context, bool) error { return nil }

// Read implements vfs.FileImpl.
func (f *file) Read(ctx vfs.Context, fd *vfs.FileDescription, dst usermem.IOSequence, off int64, _ vfs.IOFlags) (int64, error) {
	r := f.r
	var done int64
	var err error
	left := dst.NumBytes()
	for left > 0 && err == nil {
		r.mu.RLock()
		n := min(left, r.size.Load()-off)
		if n <= 0 {
			r.mu.RUnlock()
			break
		}
		fr := r.runLocked(uint64(off), uint64(n))
		if fr.Start != 0 {
			r.fs.mem.IncRef(fr)
		}
		var from Backing
		if fr.Start == 0 && r.back != nil {
			// Of a hole of both kinds, take the first.
			l, missing := r.missingLocked(pageDown(uint64(off)), fr.End)
			if fr.End = l; missing {
				from = r.back.file
				n = min(n, r.back.end-off)
			}
		}
		r.mu.RUnlock()
		var c int64
		if from != nil && n > 0 {
			c, err = from.Read(ctx, nil, dst.TakeFirst(min(n, int64(fr.Length()-uint64(off)&pageMask))), off, 0)
			if c == 0 && err == nil {
				err = unix.EIO
			}
		} else if fr.Start != 0 {
			in := uint64(off) & pageMask
			n = min(n, int64(fr.Length()-in))
			var m int
			m, err = dst.CopyOut(r.fs.mem.Bytes(fr.Start+in, uint64(n)))
			c = int64(m)
			r.fs.mem.DecRef(fr)
		} else {
			if n <= 0 {
				n = left // behind the bytes of the backing file
				if m := r.size.Load() - off; m < n {
					n = m
				}
			}
			c, err = dst.ZeroOut(min(n, int64(fr.Length()-uint64(off)&pageMask)))
		}
		done, off, left = done+c, off+c, left-c
		if left > 0 && err == nil {
			dst = dst.DropFirst(c)
		}
	}
	if done > 0 {
		r.accessed(ctx, fd)
		err = nil
	}
	return done, err
}

// runLocked returns the pages, neighbours in the memory file too, that hold up to n bytes from off on. For a hole,
// Start is 0 and End the length of the hole from off's page on. Offset 0 of the memory file is therefore never used by a file (see alloc).
// +checklocksread:r.mu
func (r *regular) runLocked(off, n uint64) memmap.FileRange {
	start, end := pageDown(off), pageUp(off+n)
	it := r.pages.Find(start)
	if !r.pages.Ok(it) {
		return memmap.FileRange{End: end - start}
	}
	sp := r.pages.At(it)
	if sp.Start > start {
		return memmap.FileRange{End: min(end, sp.Start) - start}
	}
	at := sp.Val + (start - sp.Start)
	return memmap.FileRange{Start: at, End: at + min(end, sp.End) - start}
}

// maxSize is MAX_LFS_FILESIZE.
const maxSize = math.MaxInt64 &^ pageMask

// Write implements vfs.FileImpl.
func (f *file) Write(ctx vfs.Context, _ *vfs.FileDescription, src usermem.IOSequence, off int64, flags vfs.IOFlags) (int64, int64, error) {
	r := f.r
	r.writeMu.Lock()
	defer r.writeMu.Unlock()
	if flags&vfs.IOAppend != 0 {
		off = r.size.Load()
	}
	left := src.NumBytes()
	if left == 0 {
		return 0, off, nil
	}
	r.mu.RLock()
	seals := r.seals
	r.mu.RUnlock()
	if seals&(unix.F_SEAL_WRITE|sealFutureWrite) != 0 {
		return 0, off, unix.EPERM
	}
	limit := int64(maxSize)
	if size := r.size.Load(); seals&unix.F_SEAL_GROW != 0 && left > size-off {
		// What goes to a page is written whole or not at all (shmem_write_begin).
		if limit = size &^ pageMask; off >= limit {
			return 0, off, unix.EPERM
		}
	}
	if off >= limit {
		return 0, off, unix.EFBIG
	}
	left = min(left, limit-off)
	var done int64
	err := r.fetchEdges(uint64(off), uint64(off+left))
	for left > 0 && err == nil {
		var n int64
		n, err = r.writeSome(src, uint64(off), uint64(left))
		done, off, left = done+n, off+n, left-n
		if left > 0 && err == nil {
			src = src.DropFirst(n)
		}
	}
	if done > 0 {
		r.modified(ctx.Now())
		err = nil
	}
	return done, off, err
}

// writeSome writes the first bytes of src, up to n, at off. writeMu is held.
func (r *regular) writeSome(src usermem.IOSequence, off, n uint64) (int64, error) {
	mem := r.fs.mem
	r.mu.RLock()
	fr := r.runLocked(off, n)
	if fr.Start != 0 {
		mem.IncRef(fr)
	}
	r.mu.RUnlock()
	in := off & pageMask
	n = min(n, fr.Length()-in)
	if fr.Start != 0 {
		c, err := src.CopyIn(mem.Bytes(fr.Start+in, n))
		mem.DecRef(fr)
		r.grow(int64(off) + int64(c))
		return int64(c), err
	}
	// A hole: fill new pages before anybody can see them.
	fr, err := r.alloc(pageDown(off), pageUp(in+n), false)
	if err != nil {
		return 0, err
	}
	n = min(n, fr.Length()-in)
	b := mem.Bytes(fr.Start, fr.Length())
	clear(b[:in])
	c, err := src.CopyIn(b[in : in+n])
	if c == 0 {
		r.grow(int64(off)) // as where there are pages
		r.fs.unreserve(int64(fr.Length() / pageSize))
		mem.DecRef(fr)
		return 0, err
	}
	used := pageUp(in + uint64(c))
	clear(b[in+uint64(c) : used])
	if uint64(c) < n && r.back != nil && used > in+uint64(c) {
		// Only part of a page could be written: if the page is missing, the rest comes from the backing file.
		if e := r.fetch(pageDown(off)+used-pageSize, pageDown(off)+used); e != nil {
			if used -= pageSize; used <= in {
				r.fs.unreserve(int64(fr.Length() / pageSize))
				mem.DecRef(fr)
				return 0, e
			}
			c = int(used - in)
		}
	}
	r.mu.Lock()
	r.foundLocked(pageDown(off), pageDown(off)+used)
	r.insertLocked(pageDown(off), fr, used, b[in:in+uint64(c)], in)
	r.mu.Unlock()
	r.grow(int64(off) + int64(c))
	return int64(c), err
}

// grow raises the size to at least end.
func (r *regular) grow(end int64) {
	if end <= r.size.Load() {
		return
	}
	r.mu.Lock()
	if end > r.size.Load() {
		r.size.Store(end)
	}
	r.mu.Unlock()
}

// alloc reserves and allocates up to n bytes of pages for file offset off.
func (r *regular) alloc(off, n uint64, zero bool) (memmap.FileRange, error) {
	n = min(n, memory.HugePage-off%memory.HugePage)
	if err := r.fs.reserve(int64(n / pageSize)); err != nil {
		if n == pageSize {
			return memmap.FileRange{}, err
		}
		n = pageSize
		if err := r.fs.reserve(1); err != nil {
			return memmap.FileRange{}, err
		}
	}
	var fr memmap.FileRange
	var err error
	// Go on where the page before lies, so that the file stays in one piece.
	if near := r.behind(off); near != 0 {
		if got := r.acct.AllocateAt(near, n, zero); got > 0 {
			fr = memmap.FileRange{Start: near, End: near + got}
		}
	}
	if fr.Length() == 0 {
		if off >= 64<<10 || n >= 64<<10 {
			fr, err = r.acct.AllocateIn(off, 0, n, zero)
		} else {
			fr, err = r.acct.Allocate(n, zero)
		}
	}
	if err == nil && fr.Start == 0 {
		// Offset 0 stands for a hole: that one page is given away for good.
		if fr.Length() > pageSize {
			r.fs.mem.DecRef(memmap.FileRange{Start: pageSize, End: fr.End})
		}
		fr, err = r.acct.Allocate(n, zero)
	}
	r.fs.unreserve(int64((n - min(n, fr.Length())) / pageSize))
	return fr, err
}

// behind returns where in the memory file the page before off ends, or 0.
func (r *regular) behind(off uint64) uint64 {
	if off == 0 {
		return 0
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if sp := r.pages.Lookup(off - pageSize); sp != nil {
		return sp.Val + (off - sp.Start)
	}
	return 0
}

// insertLocked enters the first used bytes of the new pages fr at off, and frees the others. Where a page fault was faster, data,
// which lies at in of the new pages, is copied to the page that is there.
// +checklocks:r.mu
func (r *regular) insertLocked(off uint64, fr memmap.FileRange, used uint64, data []byte, in uint64) {
	mem := r.fs.mem
	if used < fr.Length() {
		mem.DecRef(memmap.FileRange{Start: fr.Start + used, End: fr.End})
		r.fs.unreserve(int64((fr.Length() - used) / pageSize))
	}
	if r.pages.Free(off, off+used) {
		r.joinLocked(off, off+used, fr.Start)
		return
	}
	for p := uint64(0); p < used; p += pageSize {
		sp := r.pages.Lookup(off + p)
		if sp == nil {
			r.joinLocked(off+p, off+p+pageSize, fr.Start+p)
			continue
		}
		lo, hi := max(p, in), min(p+pageSize, in+uint64(len(data)))
		if lo < hi {
			copy(mem.Bytes(sp.Val+(off+lo-sp.Start), hi-lo), data[lo-in:hi-in])
		}
		mem.DecRef(memmap.FileRange{Start: fr.Start + p, End: fr.Start + p + pageSize})
		r.fs.unreserve(1)
	}
}

// joinLocked enters pages, as part of the run before if they follow it in the memory file too.
// +checklocks:r.mu
func (r *regular) joinLocked(start, end, val uint64) {
	r.nr += int64((end - start) / pageSize)
	it := r.pages.Find(start)
	if p, ok := r.pages.Prev(it); ok {
		if sp := r.pages.At(p); sp.End == start && sp.Val+sp.Len() == val {
			r.pages.SetBounds(p, sp.Start, end)
			return
		}
	}
	r.pages.InsertAt(it, spans.Span[uint64]{Start: start, End: end, Val: val})
}

// dropLocked frees the pages of [start, end), which are page-aligned.
// +checklocks:r.mu
func (r *regular) dropLocked(start, end uint64) {
	it := r.pages.Find(start)
	for r.pages.Ok(it) && r.pages.At(it).Start < end {
		sp := r.pages.At(it)
		if sp.Start < start {
			v := sp.Val + (start - sp.Start)
			it = r.pages.Split(it, start)
			r.pages.At(it).Val = v
			continue
		}
		if sp.End > end {
			v := sp.Val + (end - sp.Start)
			next := r.pages.Split(it, end)
			r.pages.At(next).Val = v
			it, _ = r.pages.Prev(next)
			sp = r.pages.At(it)
		}
		fr := memmap.FileRange{Start: sp.Val, End: sp.Val + sp.Len()}
		it = r.pages.Remove(it)
		r.fs.mem.DecRef(fr)
		n := int64(fr.Length() / pageSize)
		r.nr -= n
		r.fs.unreserve(n)
	}
}

// zeroLocked zeroes [start, end), which lies in one page, if that is there.
// +checklocks:r.mu
func (r *regular) zeroLocked(start, end uint64) {
	if start >= end {
		return
	}
	if sp := r.pages.Lookup(start); sp != nil {
		clear(r.fs.mem.Bytes(sp.Val+(start-sp.Start), end-start))
	}
}

// truncate changes the size. writeMu is held.
func (r *regular) truncate(size int64) error {
	r.mu.Lock()
	old := r.size.Load()
	switch {
	case size > maxSize:
		r.mu.Unlock()
		return unix.EFBIG
	case size < old && r.seals&unix.F_SEAL_SHRINK != 0, size > old && r.seals&unix.F_SEAL_GROW != 0:
		r.mu.Unlock()
		return unix.EPERM
	}
	r.size.Store(size)
	if size > old { // at the old size, too, what was allocated behind it goes
		// What mappings wrote behind the old end must not show.
		r.zeroLocked(uint64(old), min(pageUp(uint64(old)), uint64(size)))
		r.mu.Unlock()
		return nil
	}
	first := pageUp(uint64(size))
	places := r.maps.Find(memmap.FileRange{Start: first, End: maxSize})
	r.mu.Unlock()
	// Unmap before the pages can be used for something else; a fault after this finds the new size.
	for _, p := range places {
		p.Space.Invalidate(p.Range, true)
	}
	r.mu.Lock()
	r.dropLocked(first, maxSize)
	r.zeroLocked(uint64(size), first)
	if r.back != nil {
		r.foundLocked(first, maxSize)
		r.back.end = min(r.back.end, size)
	}
	r.mu.Unlock()
	return nil
}

// Allocate implements vfs.FileImpl.
func (f *file) Allocate(ctx vfs.Context, mode uint32, off, length int64) error {
	if mode&^uint32(unix.FALLOC_FL_KEEP_SIZE|unix.FALLOC_FL_PUNCH_HOLE) != 0 {
		return unix.EOPNOTSUPP
	}
	r := f.r
	r.writeMu.Lock()
	defer r.writeMu.Unlock()
	start, end := uint64(off), uint64(off+length)
	r.mu.RLock()
	seals := r.seals
	r.mu.RUnlock()
	if mode&unix.FALLOC_FL_PUNCH_HOLE != 0 {
		if seals&(unix.F_SEAL_WRITE|sealFutureWrite) != 0 {
			return unix.EPERM
		}
		err := r.punch(start, min(end, maxSize))
		if err == nil {
			r.modified(ctx.Now())
		}
		return err
	}
	if err := vfs.MayGrow(ctx, r, int64(end)); err != nil { // with FALLOC_FL_KEEP_SIZE too
		return err
	}
	if end > maxSize {
		return unix.EFBIG
	}
	if seals&unix.F_SEAL_GROW != 0 && int64(end) > r.size.Load() {
		return unix.EPERM
	}
	var added []memmap.FileRange
	if err := r.fill(pageDown(start), pageUp(end), &added); err != nil {
		r.undo(added)
		return err
	}
	if mode&unix.FALLOC_FL_KEEP_SIZE == 0 {
		r.grow(int64(end))
	}
	r.touchCtime(ctx.Now())
	return nil
}

func (r *regular) punch(start, end uint64) error {
	if err := r.fetchEdges(start, end); err != nil {
		return err
	}
	lo, hi := pageUp(start), pageDown(end)
	r.mu.Lock()
	if lo > hi {
		r.zeroLocked(start, end)
		r.mu.Unlock()
		return nil
	}
	r.zeroLocked(start, lo)
	r.zeroLocked(hi, end)
	places := r.maps.Find(memmap.FileRange{Start: lo, End: hi})
	r.dropLocked(lo, hi)
	r.foundLocked(lo, hi)
	r.mu.Unlock()
	for _, p := range places {
		p.Space.Invalidate(p.Range, false)
	}
	return nil
}

// PunchHole frees the pages of a range, for MADV_REMOVE.
func (r *regular) PunchHole(off, length uint64) error {
	r.writeMu.Lock()
	defer r.writeMu.Unlock()
	r.mu.RLock()
	seals := r.seals
	r.mu.RUnlock()
	if seals&(unix.F_SEAL_WRITE|sealFutureWrite) != 0 {
		return unix.EPERM
	}
	r.punch(off, off+length)
	r.modified(vfs.Background().Now())
	return nil
}

// undo frees what a fallocate that failed has allocated (shmem_undo_range), but for pages that somebody has mapped meanwhile.
func (r *regular) undo(added []memmap.FileRange) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range added {
		if len(r.maps.Find(a)) == 0 {
			r.dropLocked(a.Start, a.End)
		}
	}
}

// fill allocates zeroed pages for the holes of [at, end), and tells added of them if it is not nil.
func (r *regular) fill(at, end uint64, added *[]memmap.FileRange) error {
	need := int64((end - at) / pageSize)
	if m := r.fs.maxBlocks.Load(); at < end && (m > 0 && need > m || uint64(need) > r.fs.mem.Limit()/pageSize) {
		return unix.ENOSPC
	}
	if err := r.fetch(at, end); err != nil {
		return err
	}
	for at < end {
		r.mu.RLock()
		run := r.runLocked(at, end-at)
		r.mu.RUnlock()
		if run.Start != 0 {
			at += run.Length()
			continue
		}
		fr, err := r.alloc(at, min(run.Length(), end-at), true)
		if err != nil {
			return err
		}
		n := fr.Length()
		r.mu.Lock()
		if hole := r.runLocked(at, n); added != nil && hole.Start == 0 && hole.Length() >= n {
			*added = append(*added, memmap.FileRange{Start: at, End: at + n})
		}
		r.insertLocked(at, fr, n, nil, 0)
		r.mu.Unlock()
		at += n
	}
	return nil
}
