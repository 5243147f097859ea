package mm

import (
	"encoding/binary"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/sentry/memmap"
)

// FutexKey names a futex: a word of an object that several address spaces map, or of one address space.
// It is comparable.
type FutexKey struct {
	// Object is a memmap.Mappable, or the *MemoryManager.
	Object any
	// Offset is the offset in the Mappable, or the address.
	Offset uint64
}

// FutexKey returns the key of the word at addr (kernel/futex/core.c get_futex_key): EINVAL if it is unaligned, EFAULT.
// private is FUTEX_PRIVATE_FLAG.
func (mm *MemoryManager) FutexKey(addr hostarch.Addr, private bool) (FutexKey, error) {
	a := uint64(addr)
	switch {
	case a&3 != 0:
		return FutexKey{}, unix.EINVAL
	case a > taskSize-4:
		return FutexKey{}, unix.EFAULT
	case private:
		return FutexKey{mm, a}, nil
	}
	mm.mu.RLock()
	sp := mm.vmas.Lookup(a)
	if sp == nil || !sp.Val.can().Read {
		mm.mu.RUnlock()
		// A stack may grow to it; otherwise EFAULT.
		if _, err := mm.LoadUint32(addr); err != nil {
			return FutexKey{}, err
		}
		return FutexKey{mm, a}, nil
	}
	defer mm.mu.RUnlock()
	v := &sp.Val
	if v.private() {
		return FutexKey{mm, a}, nil
	}
	return FutexKey{v.mappable, v.off + (a - sp.Start)}, nil
}

// word calls fn with the word at addr, which it has made accessible. Words of host files, which the sentry does not map, go to slow.
func (mm *MemoryManager) word(addr hostarch.Addr, at hostarch.AccessType, fn func(*atomic.Uint32), slow func(memmap.File, int64) error) error {
	a := uint64(addr)
	if a&3 != 0 {
		return unix.EINVAL
	}
	for {
		mm.mu.RLock()
		run := mm.pmas.Lookup(a)
		if run != nil && run.Val.perms.SupersetOf(at) {
			off := run.Val.off + (a - run.Start)
			var err error
			if run.Val.file == memmap.File(mm.mf) {
				fn(mm.mf.Word(off))
			} else if slow(run.Val.file, int64(off)) != nil {
				err = unix.EFAULT
			}
			mm.mu.RUnlock()
			return err
		}
		mm.mu.RUnlock()
		if mm.copyFault(a, 4, at, 0) != nil {
			return unix.EFAULT
		}
	}
}

// LoadUint32 reads the aligned word at addr atomically.
func (mm *MemoryManager) LoadUint32(addr hostarch.Addr) (v uint32, err error) {
	err = mm.word(addr, hostarch.Read, func(w *atomic.Uint32) { v = w.Load() }, func(f memmap.File, off int64) error {
		var b [4]byte
		_, err := f.ReadAt(b[:], off)
		v = binary.LittleEndian.Uint32(b[:])
		return err
	})
	return v, err
}

// CompareAndSwapUint32 replaces the aligned word at addr by n if it is old, atomically, and returns what was there.
func (mm *MemoryManager) CompareAndSwapUint32(addr hostarch.Addr, old, n uint32) (prev uint32, err error) {
	err = mm.word(addr, hostarch.ReadWrite, func(w *atomic.Uint32) {
		for {
			if prev = w.Load(); prev != old || w.CompareAndSwap(old, n) {
				return
			}
		}
	}, func(f memmap.File, off int64) (err error) {
		prev, err = hostRMW(f, off, func(v uint32) (uint32, bool) { return n, v == old })
		return err
	})
	return prev, err
}

// hostRMW changes a word of a host file. Against guests that have it mapped it is not atomic: a locked operation would need a mapping in the sentry, where
// truncation of the file raises SIGBUS.
func hostRMW(f memmap.File, off int64, fn func(uint32) (uint32, bool)) (uint32, error) {
	var b [4]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		return 0, err
	}
	old := binary.LittleEndian.Uint32(b[:])
	if n, ok := fn(old); ok {
		binary.LittleEndian.PutUint32(b[:], n)
		if _, err := f.WriteAt(b[:], off); err != nil {
			return 0, err
		}
	}
	return old, nil
}
