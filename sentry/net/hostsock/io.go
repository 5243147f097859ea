package hostsock

import (
	"slices"
	"sync"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"

	"moat/sentry/net/socket"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

const (
	// maxDatagram is what fits in an IP packet; maxControl is for all the control messages that Options can ask for.
	maxDatagram = 65535
	maxControl  = 1024
	// sendFlags and recvFlags are what a guest may say; all calls are without waiting.
	sendFlags = unix.MSG_OOB | unix.MSG_DONTROUTE | unix.MSG_CONFIRM | unix.MSG_MORE
	recvFlags = unix.MSG_OOB | unix.MSG_PEEK | unix.MSG_TRUNC | unix.MSG_ERRQUEUE
	// SendFlags and RecvFlags are the flags that the calls have on the host.
	SendFlags = sendFlags | unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL
	RecvFlags = recvFlags | unix.MSG_DONTWAIT | unix.MSG_CMSG_CLOEXEC
)

// buffers hold a datagram on its way, of sockets that are in a call.
var buffers = sync.Pool{New: func() any { return new([maxDatagram]byte) }}

// Send implements socket.Socket.
func (s *sock) Send(_ vfs.Context, m *socket.Message) (int64, error) {
	if m.Flags&unix.MSG_FASTOPEN != 0 {
		return 0, unix.EOPNOTSUPP
	}
	flags := m.Flags&sendFlags | unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL
	if s.stream() {
		n, err := m.Data.ForBlocks(hostarch.Read, func(bs [][]byte) (uint64, error) {
			n, _, err := message(unix.SYS_SENDMSG, s.fd, bs, nil, nil, flags)
			return uint64(n), err
		})
		if n > 0 {
			err = nil
		}
		return n, err
	}
	if m.Data.NumBytes() > maxDatagram {
		return 0, unix.EMSGSIZE
	}
	var control []byte
	for i := range m.Other {
		if c := &m.Other[i]; slices.Contains(sendable[c.Level], c.Type) {
			control = appendControl(control, c)
		} else if c.Level == unix.SOL_IP || c.Level == unix.SOL_IPV6 {
			return 0, unix.EINVAL
		}
	}
	buf := buffers.Get().(*[maxDatagram]byte)
	defer buffers.Put(buf)
	b := buf[:m.Data.NumBytes()]
	if _, err := m.Data.CopyIn(b); err != nil {
		return 0, err
	}
	n, _, err := message(unix.SYS_SENDMSG, s.fd, [][]byte{b}, m.Addr, control, flags)
	return int64(n), err
}

// appendControl adds c as struct cmsghdr.
func appendControl(b []byte, c *socket.Control) []byte {
	at := len(b)
	b = append(b, make([]byte, unix.CmsgSpace(len(c.Data)))...)
	n := uint64(unix.CmsgLen(len(c.Data)))
	for i := range 8 {
		b[at+i] = byte(n >> (8 * i))
	}
	for i := range 4 {
		b[at+8+i], b[at+12+i] = byte(uint32(c.Level)>>(8*i)), byte(uint32(c.Type)>>(8*i))
	}
	copy(b[at+unix.CmsgLen(0):], c.Data)
	return b
}

// Recv implements socket.Socket.
func (s *sock) Recv(_ vfs.Context, m *socket.Message) (int64, error) {
	flags := m.Flags&recvFlags | unix.MSG_DONTWAIT | unix.MSG_CMSG_CLOEXEC
	var control [maxControl]byte
	if s.stream() && flags&(unix.MSG_PEEK|unix.MSG_ERRQUEUE|unix.MSG_TRUNC) == 0 {
		n, err := m.Data.ForBlocks(hostarch.Write, func(bs [][]byte) (uint64, error) {
			n, h, err := message(unix.SYS_RECVMSG, s.fd, bs, nil, control[:], flags)
			if err == nil {
				err = s.received(m, &h, control[:])
			}
			return uint64(n), err
		})
		if n > 0 {
			err = nil
		}
		return n, err
	}
	buf := buffers.Get().(*[maxDatagram]byte)
	defer buffers.Put(buf)
	b := buf[:min(m.Data.NumBytes(), maxDatagram)]
	var addr [unix.SizeofSockaddrAny]byte
	n, h, err := message(unix.SYS_RECVMSG, s.fd, [][]byte{b}, addr[:], control[:], flags)
	if err == unix.EWOULDBLOCK && s.rdShut.Load() && flags&unix.MSG_ERRQUEUE == 0 {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if err := s.received(m, &h, control[:]); err != nil {
		return 0, err
	}
	if h.Namelen > 0 {
		m.Addr = append([]byte(nil), addr[:min(int(h.Namelen), len(addr))]...)
	}
	if s.stream() && flags&unix.MSG_TRUNC != 0 {
		return int64(n), nil // the data is discarded (tcp(7))
	}
	_, err = m.Data.CopyOut(b[:min(n, len(b))])
	return int64(n), err
}

// received takes over the control messages that came with a message, and its flags.
func (s *sock) received(m *socket.Message, h *unix.Msghdr, control []byte) error {
	m.OutFlags |= h.Flags & (unix.MSG_TRUNC | unix.MSG_CTRUNC | unix.MSG_ERRQUEUE | unix.MSG_OOB)
	if h.Controllen == 0 {
		return nil
	}
	cs, err := unix.ParseSocketControlMessage(control[:min(int(h.Controllen), len(control))])
	for i := range cs {
		c := &cs[i]
		m.Other = append(m.Other, socket.Control{Level: c.Header.Level, Type: c.Header.Type, Data: append([]byte(nil), c.Data...)})
	}
	return err
}

// Read implements vfs.FileImpl.
func (s *sock) Read(ctx vfs.Context, f *vfs.FileDescription, dst usermem.IOSequence, _ int64, _ vfs.IOFlags) (int64, error) {
	return socket.Read(ctx, s, f, dst)
}

// Write implements vfs.FileImpl.
func (s *sock) Write(ctx vfs.Context, _ *vfs.FileDescription, src usermem.IOSequence, off int64, _ vfs.IOFlags) (int64, int64, error) {
	return socket.Write(ctx, s, src, off, s.stream())
}

var _ socket.Socket = (*sock)(nil)
