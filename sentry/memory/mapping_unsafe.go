package memory

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapWhole maps the whole of fd into the sentry. The mapping is kept out of core dumps and of children (a stub must
// never inherit the sandbox's RAM).
func mapWhole(fd int, size uint64) (uintptr, error) {
	addr, _, errno := unix.Syscall6(unix.SYS_MMAP, 0, uintptr(size), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_SHARED|unix.MAP_NORESERVE, uintptr(fd), 0)
	if errno != 0 {
		return 0, errno
	}
	for _, advice := range []uintptr{unix.MADV_DONTDUMP, unix.MADV_DONTFORK} {
		unix.Syscall(unix.SYS_MADVISE, addr, uintptr(size), advice)
	}
	return addr, nil
}

func unmapWhole(base uintptr, size uint64) {
	unix.Syscall(unix.SYS_MUNMAP, base, uintptr(size), 0)
}

// Bytes is the sentry's mapping of [off, off+n). The caller holds references to the pages.
func (f *File) Bytes(off, n uint64) []byte {
	if off+n > f.size || off+n < off {
		panic("memory: range outside the file")
	}
	//nolint:govet // the mapping is not in Go's heap and never moves
	return unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(nil), f.base+uintptr(off))), n)
}

// Word is the aligned 32-bit word at off, for atomic access.
func (f *File) Word(off uint64) *atomic.Uint32 {
	return (*atomic.Uint32)(unsafe.Pointer(&f.Bytes(off&^3, 4)[0]))
}
