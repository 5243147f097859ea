package inet

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/rawfile"
)

// recvmmsg receives as many messages as there are, at most one for each header, without waiting.
func recvmmsg(fd int, h []rawfile.MMsgHdr) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&h[0])), uintptr(len(h)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

// ringHeader is at the beginning of a place of a ring. The host owns the place while its status is TP_STATUS_KERNEL, 0.
type ringHeader unix.Tpacket2Hdr

func (r *ring) header(i int) *ringHeader {
	return (*ringHeader)(unsafe.Pointer(&r.mem[i*ringFrame : (i+1)*ringFrame][0]))
}

func (h *ringHeader) word() *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(&h.Status)) }

func (h *ringHeader) status() uint32 { return h.word().Load() }

func (h *ringHeader) free() { h.word().Store(unix.TP_STATUS_KERNEL) }
