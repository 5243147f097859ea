package hostfd

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/waiter"

	"moat/sentry/usermem"
)

// Iovecs are what one host call transfers.
type Iovecs [64]unix.Iovec

// Fill makes v the first of bs that are not empty, and returns how many and their length.
func (v *Iovecs) Fill(bs [][]byte) (n, length int) {
	for _, b := range bs {
		if len(b) > 0 && n < len(v) {
			v[n] = unix.Iovec{Base: &b[0], Len: uint64(len(b))}
			length += len(b)
			n++
		}
	}
	return n, length
}

const rwfNowait = 8

// transfer is preadv2 or pwritev2 of bs at off (-1: the host's position). Nothing but regular files and terminals waits.
func (f *File) transfer(trap uintptr, bs [][]byte, off int64) (uint64, error) {
	var iov Iovecs
	n, _ := iov.Fill(bs)
	ready := waiter.ReadableEvents
	if trap == unix.SYS_PWRITEV2 {
		ready = waiter.WritableEvents
	}
	for n > 0 {
		flags := uintptr(0)
		switch {
		case !f.pollable:
		case !f.noNowait.Load():
			flags = rwfNowait
		case f.ready(ready|waiter.EventHUp|waiter.EventErr) == 0:
			return 0, unix.EWOULDBLOCK
		}
		r, _, e := unix.Syscall6(trap, uintptr(f.fd), uintptr(unsafe.Pointer(&iov[0])), uintptr(n), uintptr(off), 0, flags)
		runtime.KeepAlive(bs)
		switch {
		case e == 0:
			return uint64(r), nil
		case e == unix.EINTR:
		case e == unix.EOPNOTSUPP && flags != 0:
			f.noNowait.Store(true)
		default:
			return 0, e
		}
	}
	return 0, nil
}

// ask is an ioctl that only tells something.
func (f *File) ask(io usermem.IO, req uint32, arg uintptr) error {
	var buf [64]byte
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(f.fd), uintptr(req), uintptr(unsafe.Pointer(&buf))); e != 0 {
		return e
	}
	n := map[uint32]int{unix.TCGETS: 36, unix.TIOCGWINSZ: 8, fionread: 4}[req]
	_, err := io.CopyOut(hostarch.Addr(arg), buf[:n])
	return err
}

// setModes sets a terminal's struct termios. It does not wait until what was written is on the screen, which may be never.
func (f *File) setModes(io usermem.IO, req uint32, arg uintptr) error {
	var termios [36]byte
	if _, err := io.CopyIn(hostarch.Addr(arg), termios[:]); err != nil {
		return err
	}
	if req == unix.TCSETSF {
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(f.fd), unix.TCFLSH, unix.TCIFLUSH); e != 0 {
			return e
		}
	}
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(f.fd), unix.TCSETS, uintptr(unsafe.Pointer(&termios))); e != 0 {
		return e
	}
	return nil
}
