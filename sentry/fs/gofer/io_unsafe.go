package gofer

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"moat/sentry/fs/hostfd"
)

// rwv is preadv2 or pwritev2 (trap) of the first of bs at off. short: the host did less than that.
func rwv(trap uintptr, fd int, bs [][]byte, off int64, flags uintptr) (done uint64, short bool, err error) {
	var iov hostfd.Iovecs
	n, asked := iov.Fill(bs)
	if n == 0 {
		return 0, false, nil
	}
	for {
		r, _, e := unix.Syscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(&iov[0])), uintptr(n), uintptr(off), 0, flags)
		runtime.KeepAlive(bs)
		if e == 0 {
			return uint64(r), int(r) < asked, nil
		}
		if e != unix.EINTR {
			return 0, false, e
		}
	}
}
