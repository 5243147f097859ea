package mm

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
)

// SetAnonName is prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME): it names the anonymous mappings in a range; "" removes the name.
// (mm/madvise.c madvise_set_anon_name)
func (mm *MemoryManager) SetAnonName(addr hostarch.Addr, length uint64, name string) error {
	start := uint64(addr)
	n := pageUp(length)
	if start&pageMask != 0 || length != 0 && n == 0 {
		return unix.EINVAL
	}
	end := start + n
	if end < start {
		return unix.EINVAL
	}
	mm.mu.Lock()
	defer mm.unlock()
	it := mm.vmas.Find(start)
	var hole error
	for at := start; at < end; {
		if !mm.vmas.Ok(it) || mm.vmas.At(it).Start >= end {
			return unix.ENOMEM
		}
		if mm.vmas.At(it).Start > at {
			hole = unix.ENOMEM
		}
		if v := &mm.vmas.At(it).Val; v.mappable != nil {
			return unix.EBADF
		} else if v.name != name {
			it = mm.isolate(it, start, end)
			mm.vmas.At(it).Val.name = name
			it = mm.mergeVMA(it)
		}
		at = mm.vmas.At(it).End
		it = mm.vmas.Next(it)
	}
	return hole
}
