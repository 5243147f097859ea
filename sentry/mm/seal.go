package mm

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
)

// MSeal is mseal(2): the mappings of a range can no longer be unmapped, moved, replaced, or given other permissions. EINVAL; ENOMEM if there is a hole.
func (mm *MemoryManager) MSeal(addr hostarch.Addr, length uint64) error {
	start, end, err := mm.checkRange(addr, length)
	if err != nil || start == end {
		return err
	}
	mm.mu.Lock()
	defer mm.unlock()
	if !mm.covered(start, end) {
		return unix.ENOMEM
	}
	for it := mm.vmas.Find(start); mm.vmas.Ok(it) && mm.vmas.At(it).Start < end; it = mm.vmas.Next(it) {
		if mm.vmas.At(it).Val.flags&vmSealed == 0 {
			it = mm.isolate(it, start, end)
			mm.vmas.At(it).Val.flags |= vmSealed
			it = mm.mergeVMA(it)
		}
	}
	return nil
}

// sealed reports whether a mapping in [start, end) is sealed.
// +checklocks:mm.mu
func (mm *MemoryManager) sealed(start, end uint64) bool {
	for it := mm.vmas.Find(start); mm.vmas.Ok(it) && mm.vmas.At(it).Start < end; it = mm.vmas.Next(it) {
		if mm.vmas.At(it).Val.flags&vmSealed != 0 {
			return true
		}
	}
	return false
}

// DenyWriteExec is prctl(2)'s PR_SET_MDWE: from now on no memory becomes executable that is, or was, writable.
func (mm *MemoryManager) DenyWriteExec() { mm.denyWX.Store(true) }

// DeniesWriteExec is PR_GET_MDWE.
func (mm *MemoryManager) DeniesWriteExec() bool { return mm.denyWX.Load() }
