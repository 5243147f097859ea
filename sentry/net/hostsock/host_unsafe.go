package hostsock

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

func result(r uintptr, e unix.Errno) (int, error) {
	if e != 0 {
		return 0, e
	}
	return int(r), nil
}

// call is a call of the host with an address: bind, connect, getsockname, getpeername (with a length that is a pointer to one), accept4.
func call(trap uintptr, fd int, addr []byte) error {
	_, _, e := unix.Syscall(trap, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(addr))), uintptr(len(addr)))
	_, err := result(0, e)
	return err
}

// named is a call that fills in an address and its length.
func named(trap uintptr, fd int, flags uintptr) (int, []byte, error) {
	var b [unix.SizeofSockaddrAny]byte
	n := uint32(len(b))
	r, _, e := unix.Syscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(&b)), uintptr(unsafe.Pointer(&n)), flags, 0, 0)
	k, err := result(r, e)
	return k, b[:min(int(n), len(b))], err
}

func setsockopt(fd int, level, name int32, val []byte) error {
	_, _, e := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name), uintptr(unsafe.Pointer(unsafe.SliceData(val))), uintptr(len(val)), 0)
	_, err := result(0, e)
	return err
}

func getsockopt(fd int, level, name int32, size int) ([]byte, error) {
	var b [maxValue]byte
	n := uint32(max(min(size, maxValue), 0))
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name), uintptr(unsafe.Pointer(&b)), uintptr(unsafe.Pointer(&n)), 0)
	_, err := result(0, e)
	return b[:min(n, maxValue)], err
}

// maxIovecs is how many slices one call moves.
const maxIovecs = 64

// message calls sendmsg or recvmsg; the lengths of h's buffers become those that came.
func message(trap uintptr, fd int, bs [][]byte, addr, control []byte, flags int32) (n int, h unix.Msghdr, err error) {
	var iov [maxIovecs]unix.Iovec
	k := 0
	for _, b := range bs {
		if len(b) > 0 && k < maxIovecs {
			iov[k].Base = unsafe.SliceData(b)
			iov[k].SetLen(len(b))
			k++
		}
	}
	h = unix.Msghdr{Iov: &iov[0], Iovlen: uint64(k), Controllen: uint64(len(control)), Namelen: uint32(len(addr))}
	if len(addr) > 0 {
		h.Name = unsafe.SliceData(addr)
	}
	if len(control) > 0 {
		h.Control = unsafe.SliceData(control)
	}
	for {
		r, _, e := unix.Syscall(trap, uintptr(fd), uintptr(unsafe.Pointer(&h)), uintptr(flags))
		if e == unix.EINTR {
			continue
		}
		n, err = result(r, e)
		runtime.KeepAlive(bs)
		return n, h, err
	}
}
