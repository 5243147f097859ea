package gofer

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxIovecs is how many slices one host call transfers.
const maxIovecs = 64

// rwv is preadv2 or pwritev2 (trap) of the first maxIovecs of bs at off. short: the host did less than that.
func rwv(trap uintptr, fd int, bs [][]byte, off int64, flags uintptr) (done uint64, short bool, err error) {
	var iov [maxIovecs]unix.Iovec
	n, asked := 0, 0
	for _, b := range bs {
		if len(b) == 0 {
			continue
		}
		if n == maxIovecs {
			break
		}
		iov[n].Base = &b[0]
		iov[n].Len = uint64(len(b))
		asked += len(b)
		n++
	}
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

func preadBytes(fd int, p []byte, off int64) (int, error) {
	n, _, err := rwv(unix.SYS_PREADV2, fd, [][]byte{p}, off, 0)
	return int(n), err
}

func pwriteBytes(fd int, p []byte, off int64) (int, error) {
	n, _, err := rwv(unix.SYS_PWRITEV2, fd, [][]byte{p}, off, 0)
	return int(n), err
}
