package mm

import (
	"bytes"
	"encoding/binary"
	"sync"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/sentry/memmap"
	"moat/sentry/memmap/spans"
	"moat/sentry/memory"
	"moat/sentry/usermem"
)

// MaxRW is the largest transfer of one read or write (include/linux/fs.h MAX_RW_COUNT).
const MaxRW = 1<<31 - pageSize

// CopyOut implements usermem.IO.
func (mm *MemoryManager) CopyOut(addr hostarch.Addr, src []byte) (int, error) {
	return mm.copy(addr, src, len(src), hostarch.Write, 0)
}

// CopyIn implements usermem.IO.
func (mm *MemoryManager) CopyIn(addr hostarch.Addr, dst []byte) (int, error) {
	return mm.copy(addr, dst, len(dst), hostarch.Read, 0)
}

// ZeroOut implements usermem.IO.
func (mm *MemoryManager) ZeroOut(addr hostarch.Addr, n int64) (int64, error) {
	var done int64
	for done < n {
		c, err := mm.copy(addr+hostarch.Addr(done), nil, int(min(n-done, 1<<30)), hostarch.Write, 0)
		done += int64(c)
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// Force does a copy on behalf of a debugger, which mapping permissions do not stop (mm/gup.c FOLL_FORCE): /proc/PID/mem, ptrace.
func (mm *MemoryManager) Force(addr hostarch.Addr, b []byte, write bool) (int, error) {
	at := hostarch.Read
	if write {
		at = hostarch.Write
	}
	return mm.copy(addr, b, len(b), at, copyForce)
}

const (
	copyForce = 1 << iota
	copyRemote
)

// Remote is mm as process_vm_readv(2) reaches it: a stack does not grow.
func (mm *MemoryManager) Remote() usermem.IO { return remote{mm} }

type remote struct{ *MemoryManager }

// CopyOut implements usermem.IO.
func (r remote) CopyOut(addr hostarch.Addr, src []byte) (int, error) {
	return r.copy(addr, src, len(src), hostarch.Write, copyRemote)
}

// CopyIn implements usermem.IO.
func (r remote) CopyIn(addr hostarch.Addr, dst []byte) (int, error) {
	return r.copy(addr, dst, len(dst), hostarch.Read, copyRemote)
}

// copy moves n bytes between guest memory at addr and b (nil: zeroes are written), page run by page run. The common case takes mu for reading only and
// allocates nothing.
func (mm *MemoryManager) copy(addr hostarch.Addr, b []byte, n int, at hostarch.AccessType, flags int) (int, error) {
	done := 0
	a := uint64(addr)
	if a+uint64(n) < a {
		n = int(-a) // up to the end of the address space, where nothing is mapped
	}
	mm.mu.RLock()
	for done < n {
		run := mm.pmas.Lookup(a)
		if run == nil || !run.Val.perms.SupersetOf(at) {
			mm.mu.RUnlock()
			if err := mm.copyFault(a, n-done, at, flags); err != nil {
				if flags&copyForce != 0 && err == errForce {
					return mm.forceCopy(a, b[done:], at, done)
				}
				return done, unix.EFAULT
			}
			mm.mu.RLock()
			continue
		}
		c := int(min(uint64(n-done), run.End-a))
		off := run.Val.off + (a - run.Start)
		if run.Val.file != memmap.File(mm.mf) {
			f := run.Val.file
			page := memmap.FileRange{Start: off &^ pageMask, End: (off + uint64(c) + pageMask) &^ pageMask}
			f.IncRef(page)
			mm.mu.RUnlock()
			c, err := hostCopy(f, off, b, done, c, at)
			f.DecRef(page)
			done += c
			a += uint64(c)
			if err != nil {
				return done, unix.EFAULT
			}
			mm.mu.RLock()
			continue
		}
		m := mm.mf.Bytes(off, uint64(c))
		switch {
		case b == nil:
			clear(m)
		case at.Write:
			copy(m, b[done:])
		default:
			copy(b[done:], m)
		}
		done += c
		a += uint64(c)
	}
	mm.mu.RUnlock()
	return done, nil
}

// hostPool has buffers for copies from and to host files. Going through one keeps the callers' own buffers off the heap.
var hostPool = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// hostCopy moves up to n bytes to or from a host file that the sentry does not map.
func hostCopy(f memmap.File, off uint64, b []byte, done, n int, at hostarch.AccessType) (int, error) {
	buf := hostPool.Get().(*[64 << 10]byte)
	defer hostPool.Put(buf)
	n = min(n, len(buf))
	if !at.Write {
		// Behind the end of the file, a mapped page reads as zeroes.
		if err := readPages(f, buf[:n], off); err != nil {
			return 0, err
		}
		return copy(b[done:], buf[:n]), nil
	}
	if b == nil {
		clear(buf[:n])
	} else {
		copy(buf[:n], b[done:])
	}
	c, err := f.WriteAt(buf[:n], int64(off))
	if c == 0 && err == nil {
		err = unix.EFAULT
	}
	return c, err
}

// copyFault brings in pages for a copy of n bytes at addr.
func (mm *MemoryManager) copyFault(addr uint64, n int, at hostarch.AccessType, flags int) error {
	page := addr &^ pageMask
	mm.mu.Lock()
	defer mm.unlock()
	if flags&copyRemote != 0 && mm.vmas.Lookup(page) == nil {
		return ErrMapErr
	}
	sp, err := mm.vmaFor(Caller{Limits: mm.limits}, page)
	if err != nil {
		return err
	}
	if !sp.Val.can().SupersetOf(at) {
		if flags&copyForce != 0 && sp.Val.flags&vmGuard == 0 {
			return errForce
		}
		return ErrAccErr
	}
	a, b := mm.window(sp, page)
	end := min(sp.End, pageUp(addr+uint64(n)), page+maxAround)
	if err = mm.ensure(sp, page, end, min(a, page), max(b, end), access{at: at, foreign: true}); err == unix.ENOMEM {
		mm.starved.Store(true)
	}
	return err
}

// Starved reports, once, whether a copy to or from the guest got no memory for its pages since it was last called.
func (mm *MemoryManager) Starved() bool { return mm.starved.Load() && mm.starved.Swap(false) }

// errForce: a forced access needs what the mapping does not allow.
var errForce = &FaultError{}

// forceCopy is the slow path of Force for pages that the mapping protects: it reads what is there, and writes to private copies.
func (mm *MemoryManager) forceCopy(a uint64, b []byte, at hostarch.AccessType, done int) (int, error) {
	for len(b) > 0 {
		n := min(len(b), int(pageSize-a&pageMask))
		if err := mm.forcePage(a, b[:n], at); err != nil {
			return done, err
		}
		done += n
		a += uint64(n)
		b = b[n:]
	}
	return done, nil
}

func (mm *MemoryManager) forcePage(a uint64, b []byte, at hostarch.AccessType) error {
	mm.mu.Lock()
	defer mm.unlock()
	page := a &^ pageMask
	sp := mm.vmas.Lookup(page)
	if sp == nil || at.Write && (!sp.Val.private() || !sp.Val.maxPerms.Write) {
		return unix.EFAULT
	}
	ac := access{at: hostarch.Read, foreign: true}
	if err := mm.ensure(sp, page, page+pageSize, page, page+pageSize, ac); err != nil {
		return unix.EFAULT
	}
	if run := mm.pmas.Lookup(page); at.Write && (!run.Val.anon || run.Val.cow) {
		if err := mm.makeWritable(sp, mm.pmas.Find(page), page, page+pageSize, ac); err != nil {
			return unix.EFAULT
		}
	}
	run := mm.pmas.Lookup(page)
	off := run.Val.off + (a - run.Start)
	if run.Val.file != memmap.File(mm.mf) {
		_, err := hostCopy(run.Val.file, off, b, 0, len(b), hostarch.Read)
		return err
	}
	m := mm.mf.Bytes(off, uint64(len(b)))
	if at.Write {
		copy(m, b)
	} else {
		copy(b, m)
	}
	return nil
}

// blocksScratch is what Blocks needs, kept for reuse.
type blocksScratch struct {
	bs   [][]byte
	refs []memmap.FileRange
}

var scratchPool = sync.Pool{New: func() any { return new(blocksScratch) }}

// maxBlocks bounds the slices of one Blocks call (UIO_MAXIOV).
const maxBlocks = 1024

// Blocks implements usermem.IO. Pages are pinned by references, not by mu, so fn may take as long as it must.
func (mm *MemoryManager) Blocks(ar hostarch.AddrRange, at hostarch.AccessType, fn func([][]byte) (uint64, error)) (uint64, error) {
	start, end := uint64(ar.Start), uint64(ar.End)
	if start >= end {
		return 0, nil
	}
	sc := scratchPool.Get().(*blocksScratch)
	defer func() {
		for _, fr := range sc.refs {
			mm.mf.DecRef(fr)
		}
		clear(sc.bs)
		sc.bs, sc.refs = sc.bs[:0], sc.refs[:0]
		scratchPool.Put(sc)
	}()
	for a := start; a < end && len(sc.bs) < maxBlocks; {
		mm.mu.RLock()
		run := mm.pmas.Lookup(a)
		if run == nil || !run.Val.perms.SupersetOf(at) {
			mm.mu.RUnlock()
			if mm.copyFault(a, int(min(end-a, 1<<30)), at, 0) != nil {
				break
			}
			continue
		}
		if run.Val.file != memmap.File(mm.mf) {
			mm.mu.RUnlock()
			if len(sc.bs) == 0 {
				return mm.bounce(a, min(end, a+64<<10), at, fn)
			}
			break
		}
		a = mm.pinLocked(sc, run, a, end)
		mm.mu.RUnlock()
	}
	if len(sc.bs) == 0 {
		return 0, unix.EFAULT
	}
	return fn(sc.bs)
}

func (mm *MemoryManager) pinLocked(sc *blocksScratch, run *spans.Span[pma], a, end uint64) uint64 {
	e := min(end, run.End)
	fr := fileRangeOf(run, a, e)
	pages := memmap.FileRange{Start: fr.Start &^ pageMask, End: pageUp(fr.End)}
	mm.mf.IncRef(pages)
	sc.refs = append(sc.refs, pages)
	sc.bs = append(sc.bs, mm.mf.Bytes(fr.Start, fr.Length()))
	return e
}

// bounce runs fn on a buffer in place of pages that the sentry does not map.
func (mm *MemoryManager) bounce(a, end uint64, at hostarch.AccessType, fn func([][]byte) (uint64, error)) (uint64, error) {
	buf := make([]byte, end-a)
	if at.Read {
		n, err := mm.CopyIn(hostarch.Addr(a), buf)
		if n == 0 && err != nil {
			return 0, err
		}
		buf = buf[:n]
	}
	n, err := fn([][]byte{buf})
	if at.Write && n > 0 {
		c, cerr := mm.CopyOut(hostarch.Addr(a), buf[:n])
		if cerr != nil {
			return uint64(c), cerr
		}
	}
	return n, err
}

// emptyString is the address of "" in a private mapping of a file that the sentry does not map, as the path is that the C library gives newfstatat(2) for fstat(3), which
// would read the file for it each time. It holds until mappings change.
type emptyString struct {
	addr    hostarch.Addr
	changes uint64
}

// foundEmpty notes it.
func (mm *MemoryManager) foundEmpty(e emptyString) {
	mm.mu.RLock()
	defer mm.mu.RUnlock()
	sp, run := mm.vmas.Lookup(uint64(e.addr)), mm.pmas.Lookup(uint64(e.addr))
	if sp != nil && sp.Val.private() && run != nil && run.Val.file != memmap.File(mm.mf) && !run.Val.perms.Write {
		mm.empty.Store(&e)
	}
}

// CopyInString copies in a NUL-terminated string shorter than max bytes: ENAMETOOLONG if there is no NUL among these, EFAULT.
func (mm *MemoryManager) CopyInString(addr hostarch.Addr, max int) (string, error) {
	var small [256]byte
	var long []byte
	now := emptyString{addr, mm.changes.Load()}
	if e := mm.empty.Load(); e != nil && *e == now {
		return "", nil
	}
	for got := 0; got < max; {
		// Up to the end of a page at a time: what follows the string need not be mapped.
		n := min(len(small), max-got, pageSize-int(uint64(addr)&pageMask))
		c, err := mm.CopyIn(addr, small[:n])
		if i := bytes.IndexByte(small[:c], 0); i >= 0 {
			if long == nil {
				if i == 0 {
					mm.foundEmpty(now)
				}
				return string(small[:i]), nil
			}
			return string(append(long, small[:i]...)), nil
		}
		if err != nil {
			return "", err
		}
		long = append(long, small[:c]...)
		got += c
		addr += hostarch.Addr(c)
	}
	return "", unix.ENAMETOOLONG
}

// iovMax is UIO_MAXIOV.
const iovMax = 1024

// CopyInIovecs copies in n struct iovecs as lib/iov_iter.c import_iovec does: EINVAL for more than IOV_MAX or a negative length, EFAULT for a range
// outside of user space; the sum of the lengths is cut to MAX_RW_COUNT.
func (mm *MemoryManager) CopyInIovecs(addr hostarch.Addr, n int) (usermem.IOSequence, error) {
	if n < 0 || n > iovMax {
		return usermem.IOSequence{}, unix.EINVAL
	}
	seq := usermem.IOSequence{IO: mm}
	if n == 0 {
		return seq, nil
	}
	var small [16 * 16]byte
	raw := small[:]
	if n*16 > len(raw) {
		raw = make([]byte, n*16)
	}
	raw = raw[:n*16]
	if _, err := mm.CopyIn(addr, raw); err != nil {
		return seq, err
	}
	seq.Addrs = make([]hostarch.AddrRange, 0, n)
	total := uint64(0)
	for ; len(raw) > 0; raw = raw[16:] {
		base, l := binary.LittleEndian.Uint64(raw), binary.LittleEndian.Uint64(raw[8:])
		if int64(l) < 0 {
			return usermem.IOSequence{}, unix.EINVAL
		}
		if base+l < base || base+l > taskSize+pageSize-1 {
			return usermem.IOSequence{}, unix.EFAULT
		}
		l = min(l, MaxRW-total)
		total += l
		if l > 0 {
			seq.Addrs = append(seq.Addrs, addrRange(base, base+l))
		}
	}
	return seq, nil
}

// SingleIO is the sequence of a read(2) or write(2) buffer: EINVAL for a negative length, EFAULT if it leaves user space, cut to MAX_RW_COUNT.
func (mm *MemoryManager) SingleIO(addr hostarch.Addr, n int64) (usermem.IOSequence, error) {
	if n < 0 {
		return usermem.IOSequence{}, unix.EINVAL
	}
	if end := uint64(addr) + uint64(n); end < uint64(addr) || end > taskSize {
		return usermem.IOSequence{}, unix.EFAULT
	}
	return usermem.Single(mm, addr, min(n, MaxRW)), nil
}

var _ usermem.IO = (*MemoryManager)(nil)
var _ memmap.File = (*memory.File)(nil)
