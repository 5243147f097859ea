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
	ctl [16 + 4*MaxFDs]byte // CMSG_SPACE of MaxFDs descriptors
	fds [MaxFDs]int
}

// NewBuffer returns a Buffer.
func NewBuffer() *Buffer { return &Buffer{B: make([]byte, MaxMessage)} }

func (b *Buffer) set(n int) {
	b.iov.Base = &b.B[0]
	b.iov.SetLen(n)
	b.msg = unix.Msghdr{Iov: &b.iov, Iovlen: 1}
}

// Send sends the first n bytes of b.B, with at most MaxFDs descriptors.
func (b *Buffer) Send(conn, n int, fds []int) error {
	b.set(n)
	if len(fds) > 0 {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b.ctl[0]))
		h.Level, h.Type = unix.SOL_SOCKET, unix.SCM_RIGHTS
		h.SetLen(unix.CmsgLen(4 * len(fds)))
		for i, fd := range fds {
			*(*int32)(unsafe.Pointer(&b.ctl[unix.CmsgLen(4*i)])) = int32(fd)
		}
		b.msg.Control = &b.ctl[0]
		b.msg.SetControllen(unix.CmsgSpace(4 * len(fds)))
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

// Recv receives a message into b.B and returns its length and the descriptors that came with it, in memory of b. Length 0 is the end of the
// connection. EBADMSG: the datagram was too long. EMFILE: some of the descriptors did not fit into our table (or were more than MaxFDs); the
// rest are closed and the message is whole.
func (b *Buffer) Recv(conn int) (n int, fds []int, err error) {
	b.set(len(b.B))
	b.msg.Control = &b.ctl[0]
	b.msg.SetControllen(len(b.ctl))
	for {
		r, _, e := unix.Syscall(unix.SYS_RECVMSG, uintptr(conn), uintptr(unsafe.Pointer(&b.msg)), unix.MSG_CMSG_CLOEXEC)
		runtime.KeepAlive(b)
		if e == 0 {
			n = int(r)
			break
		}
		if e != unix.EINTR {
			return 0, nil, e
		}
	}
	if b.msg.Controllen >= uint64(unix.CmsgLen(4)) {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b.ctl[0]))
		if h.Level == unix.SOL_SOCKET && h.Type == unix.SCM_RIGHTS {
			for i := 0; i < MaxFDs && h.Len >= uint64(unix.CmsgLen(4*(i+1))); i++ {
				b.fds[i] = int(*(*int32)(unsafe.Pointer(&b.ctl[unix.CmsgLen(4*i)])))
				fds = b.fds[:i+1]
			}
		}
	}
	if b.msg.Flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) == 0 {
		return n, fds, nil
	}
	closeAll(fds)
	if b.msg.Flags&unix.MSG_TRUNC != 0 {
		return 0, nil, unix.EBADMSG
	}
	return n, nil, unix.EMFILE
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
