package wire

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Buffer is what one thread needs to send and receive messages without allocating.
type Buffer struct {
	B   []byte // MaxMessage long
	msg unix.Msghdr
	iov unix.Iovec
	ctl [24]byte // CMSG_SPACE of MaxFDs descriptors
}

// NewBuffer returns a Buffer.
func NewBuffer() *Buffer { return &Buffer{B: make([]byte, MaxMessage)} }

func (b *Buffer) set(n int) {
	b.iov.Base = &b.B[0]
	b.iov.SetLen(n)
	b.msg = unix.Msghdr{Iov: &b.iov, Iovlen: 1}
}

// Send sends the first n bytes of b.B, with descriptor fd if it is not negative.
func (b *Buffer) Send(conn, n, fd int) error {
	b.set(n)
	if fd >= 0 {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b.ctl[0]))
		h.Level, h.Type = unix.SOL_SOCKET, unix.SCM_RIGHTS
		h.SetLen(unix.CmsgLen(4))
		*(*int32)(unsafe.Pointer(&b.ctl[unix.CmsgLen(0)])) = int32(fd)
		b.msg.Control = &b.ctl[0]
		b.msg.SetControllen(unix.CmsgSpace(4))
	}
	for {
		r, _, e := unix.Syscall(unix.SYS_SENDMSG, uintptr(conn), uintptr(unsafe.Pointer(&b.msg)), unix.MSG_NOSIGNAL)
		runtime.KeepAlive(b)
		switch {
		case e == unix.EINTR:
			continue
		case e != 0:
			return e
		case int(r) != n:
			return unix.EMSGSIZE
		}
		return nil
	}
}

// Recv receives a message into b.B and returns its length and the descriptor that came with it, or -1.
// Length 0 is the end of the connection. EBADMSG: the datagram was too long, or had more descriptors than MaxFDs (those are closed).
func (b *Buffer) Recv(conn int) (n, fd int, err error) { return b.recv(conn, nil) }

func (b *Buffer) recv(conn int, s *spinner) (n, fd int, err error) {
	b.set(len(b.B))
	b.msg.Control = &b.ctl[0]
	b.msg.SetControllen(len(b.ctl))
	for spin := s.begin(); ; {
		var r uintptr
		var e unix.Errno
		if spin {
			r, _, e = unix.RawSyscall(unix.SYS_RECVMSG, uintptr(conn), uintptr(unsafe.Pointer(&b.msg)), unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
			if e == unix.EAGAIN {
				spin = s.again()
				continue
			}
			if e == 0 {
				s.hit()
			}
		} else {
			r, _, e = unix.Syscall(unix.SYS_RECVMSG, uintptr(conn), uintptr(unsafe.Pointer(&b.msg)), unix.MSG_CMSG_CLOEXEC)
		}
		runtime.KeepAlive(b)
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			return 0, -1, e
		}
		n = int(r)
		break
	}
	// The control buffer has room for exactly MaxFDs (= 1, and padding for a second) descriptors.
	fd = -1
	extra := false
	if b.msg.Controllen >= uint64(unix.CmsgLen(4)) {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b.ctl[0]))
		if h.Level == unix.SOL_SOCKET && h.Type == unix.SCM_RIGHTS && h.Len >= uint64(unix.CmsgLen(4)) {
			fd = int(*(*int32)(unsafe.Pointer(&b.ctl[unix.CmsgLen(0)])))
			if h.Len >= uint64(unix.CmsgLen(8)) {
				unix.Close(int(*(*int32)(unsafe.Pointer(&b.ctl[unix.CmsgLen(4)]))))
				extra = true
			}
		}
	}
	if extra || b.msg.Flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		if fd >= 0 {
			unix.Close(fd)
		}
		// A descriptor table that is full truncates the control data of a message that is whole.
		if !extra && b.msg.Flags&unix.MSG_TRUNC == 0 {
			return n, -1, unix.EMFILE
		}
		return 0, -1, unix.EBADMSG
	}
	return n, fd, nil
}
