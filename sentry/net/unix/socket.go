// Package unix has AF_UNIX sockets (unix(7)): streams, datagrams and sequenced packets, with names in the file system or in the abstract
// namespace of a network namespace, descriptors and credentials.
//
// A message waits in its receiver's queue and is charged to its sender, whose SO_SNDBUF bounds what of it may wait.
//
// Locks: sock.mu guards a socket's state and queue. Two are held together only by connect, the connecting socket's before the
// listening one's. Locks of address spaces come behind it: receiving copies to the guest with mu held. Waiter queues are notified without locks,
// descriptors are released without locks. names.mu and flights.mu are leaves.
package unix

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"moat/sentry/kernel"
	"moat/sentry/net/socket"
	"moat/sentry/usermem"
	"moat/sentry/vfs"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/waiter"
)

type state uint8

const (
	idle state = iota
	listening
	connected
	closed
)

// base has the options of SOL_SOCKET, and socket.Socket\'s part that is theirs.
type base = socket.Base

// sock is a socket. It implements socket.Socket.
type sock struct {
	vfs.Waitable
	base
	ns *kernel.NetNamespace
	// sent is how many bytes of this socket's wait at receivers. noSpace: it was found to be too many; SIGIO tells when it is over (SOCKWQ_ASYNC_NOSPACE).
	sent    atomic.Int64
	noSpace atomic.Bool

	mu sync.Mutex
	// +checklocks:mu
	state state
	// peer is the other end, or a datagram socket's destination. +checklocks:mu
	peer *sock
	// noRead and noWrite are shutdown(2)'s. +checklocks:mu
	noRead  bool
	noWrite bool
	// addr is the bound address, nil if there is none. +checklocks:mu
	addr *address
	// shown is what receivers are told of it as a sender, also after its end; nil if it never had an address.
	shown atomic.Pointer[address]
	// peerCred is SO_PEERCRED: of the other end, or of who listens. +checklocks:mu
	peerCred *socket.Cred
	// msgs are received messages, bytes their sum. +checklocks:mu
	msgs  msgQueue
	bytes int
	// pending are connections that were not accepted, at most backlog. +checklocks:mu
	pending []*sock
	backlog int
	// waiting are sockets whose writers found this queue full. +checklocks:mu
	waiting map[*sock]struct{}
}

// maxDgrams is net.unix.max_dgram_qlen: how many datagrams may wait at a receiver.
const maxDgrams = 512

func init() {
	socket.Register(unix.AF_UNIX, func(t *kernel.Task, typ, protocol int32) (socket.Socket, error) {
		if protocol != 0 && protocol != unix.AF_UNIX {
			return nil, unix.EPROTONOSUPPORT
		}
		switch typ {
		case unix.SOCK_RAW:
			typ = unix.SOCK_DGRAM
		case unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_SEQPACKET:
		default:
			return nil, unix.ESOCKTNOSUPPORT
		}
		return newSock(t.Net(), typ), nil
	})
}

func newSock(ns *kernel.NetNamespace, typ int32) *sock {
	s := &sock{Waitable: vfs.Waitable{Waiters: &waiter.Queue{}}, ns: ns}
	s.base.Init(unix.AF_UNIX, typ, 0)
	return s
}

// Pair returns two connected sockets (socketpair(2)).
func Pair(t *kernel.Task, typ, protocol int32) (a, b socket.Socket, err error) {
	x, err := socket.New(t, unix.AF_UNIX, typ, protocol)
	if err != nil {
		return nil, nil, err
	}
	p := x.(*sock)
	q := newSock(t.Net(), p.base.Type)
	cred := socket.CredOf(t)
	p.join(q, cred)
	q.join(p, cred)
	return p, q, nil
}

// join makes peer, with the credentials cred, the other end of s.
func (s *sock) join(peer *sock, cred *socket.Cred) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.peer, s.state, s.peerCred = peer, connected, cred
}

func (s *sock) dgram() bool  { return s.base.Type == unix.SOCK_DGRAM }
func (s *sock) stream() bool { return s.base.Type == unix.SOCK_STREAM }

const allEvents = waiter.AllEvents

// Release implements vfs.FileImpl.
func (s *sock) Release(vfs.Context, *vfs.FileDescription) {
	s.close(false)
	collectSoon()
}

// close is unix_release_sock of net/unix/af_unix.c; embryo says that nobody accepted s, which has no file.
func (s *sock) close(embryo bool) {
	s.mu.Lock()
	was := s.state
	s.state = closed
	s.noRead, s.noWrite = true, true
	peer, addr, msgs, pending, waiting := s.peer, s.addr, s.msgs.take(), s.pending, s.waiting
	s.peer, s.addr, s.pending, s.waiting, s.bytes = nil, nil, nil, nil, 0
	s.mu.Unlock()

	for _, c := range pending {
		// A connection that nobody accepted is gone for the one who made it.
		c.close(true)
	}
	if peer != nil && was == connected && !s.dgram() {
		if embryo || len(msgs) > 0 { // something was left unread
			peer.base.SetError(unix.ECONNRESET)
		}
		peer.shut(true, true, true)
	}
	for _, m := range msgs {
		m.discard()
	}
	wake(waiting)
	if addr != nil {
		addr.release(s)
	}
	s.Waiters.Notify(allEvents)
}

// AsyncEvents implements vfs.Asyncer.
func (s *sock) AsyncEvents(vfs.Context, *vfs.FileDescription) waiter.EventMask {
	return vfs.AsyncEvents
}

// sentSome tells s that something of it was received.
func (s *sock) sentSome() {
	m := waiter.WritableEvents
	if s.writable() && s.noSpace.CompareAndSwap(true, false) {
		m |= vfs.AsyncOut
	}
	s.Waiters.Notify(m)
}

// writable is unix_writable.
func (s *sock) writable() bool { return s.sent.Load()*4 <= int64(s.base.SndBuf.Load()) }

// shut ends receiving, sending or both, which SIGIO tells of if the other end did it, and returns the other end.
func (s *sock) shut(rd, wr, other bool) *sock {
	m := waiter.EventMask(allEvents)
	switch {
	case other && rd && wr:
		m |= vfs.AsyncHup
	case other && rd:
		m |= vfs.AsyncIn
	}
	s.mu.Lock()
	s.noRead, s.noWrite = s.noRead || rd, s.noWrite || wr
	peer := s.peer
	s.mu.Unlock()
	s.Waiters.Notify(m)
	return peer
}

// Shutdown implements socket.Socket.
func (s *sock) Shutdown(how int) error {
	rd, wr := how != unix.SHUT_WR, how != unix.SHUT_RD
	if peer := s.shut(rd, wr, false); peer != nil && !s.dgram() {
		peer.shut(wr, rd, true)
	}
	return nil
}

// Readiness implements vfs.FileImpl (unix_poll, unix_dgram_poll).
func (s *sock) Readiness(mask waiter.EventMask) waiter.EventMask {
	s.mu.Lock()
	var ev waiter.EventMask
	if s.noRead {
		ev |= waiter.ReadableEvents | waiter.EventRdHUp
		if s.noWrite {
			ev |= waiter.EventHUp
		}
	}
	if s.msgs.len() > 0 || len(s.pending) > 0 {
		ev |= waiter.ReadableEvents
	}
	if !s.dgram() && (s.state == idle || s.state == closed) {
		ev |= waiter.EventHUp
	}
	peer, st := s.peer, s.state
	s.mu.Unlock()
	if s.base.HasError() {
		ev |= waiter.EventErr
	}
	if st != listening && s.writable() && !(s.dgram() && peer != nil && peer.fullFor(s)) {
		ev |= waiter.WritableEvents
	}
	return ev & mask
}

// fullFor reports whether the queue takes no more datagrams; w is told when it does.
func (s *sock) fullFor(w *sock) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s == w || s.peer == w || s.msgs.len() < maxDgrams {
		return false
	}
	s.waitLocked(w)
	return true
}

// +checklocks:s.mu
func (s *sock) waitLocked(w *sock) {
	if s.waiting == nil {
		s.waiting = make(map[*sock]struct{})
	}
	s.waiting[w] = struct{}{}
}

// wake tells sockets that waited for room.
func wake(waiting map[*sock]struct{}) {
	for w := range waiting {
		w.Waiters.Notify(waiter.WritableEvents)
	}
}

// Read implements vfs.FileImpl.
func (s *sock) Read(ctx vfs.Context, f *vfs.FileDescription, dst usermem.IOSequence, _ int64, _ vfs.IOFlags) (int64, error) {
	return socket.Read(ctx, s, f, dst)
}

// Write implements vfs.FileImpl.
func (s *sock) Write(ctx vfs.Context, _ *vfs.FileDescription, src usermem.IOSequence, off int64, _ vfs.IOFlags) (int64, int64, error) {
	return socket.Write(ctx, s, src, off, s.stream())
}

// Ioctl implements vfs.FileImpl: FIONREAD (SIOCINQ) and SIOCOUTQ.
func (s *sock) Ioctl(ctx vfs.Context, _ *vfs.FileDescription, io usermem.IO, req uint32, arg uintptr) (uintptr, error) {
	var n int
	switch req {
	case linux.FIONREAD:
		s.mu.Lock()
		switch {
		case s.state == listening:
			s.mu.Unlock()
			return 0, unix.EINVAL
		case s.stream() || s.base.Type == unix.SOCK_SEQPACKET:
			n = s.bytes
		case s.msgs.len() > 0:
			n = len(s.msgs.front().data)
		}
		s.mu.Unlock()
	case linux.TIOCOUTQ:
		n = int(s.sent.Load())
	case unix.SIOCATMARK:
		if !s.stream() {
			return 0, unix.EOPNOTSUPP
		}
	default:
		return socket.NetDevice(ctx, s.ns, io, req, arg)
	}
	return 0, usermem.PutUint32(io, arg, uint32(n))
}

// GetOption implements socket.Socket.
func (s *sock) GetOption(t *kernel.Task, level, name int32, size int) ([]byte, error) {
	if level != linux.SOL_SOCKET {
		return nil, unix.EOPNOTSUPP
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch name {
	case linux.SO_PEERCRED:
		return s.peerCred.Ucred(t), nil
	case linux.SO_ACCEPTCONN:
		v := byte(0)
		if s.state == listening {
			v = 1
		}
		return []byte{v, 0, 0, 0}, nil
	case linux.SO_PEEK_OFF:
		return binary.LittleEndian.AppendUint32(nil, uint32(s.base.PeekOff.Load())), nil
	case linux.SO_PEERGROUPS:
		return nil, unix.ENODATA
	case soPeerPIDFD:
		if s.peerCred == nil || s.peerCred.PID == nil {
			return nil, unix.ENODATA
		}
		f := kernel.NewPIDFD(t, s.peerCred.PID, 0)
		defer f.DecRef()
		fd, err := t.NewFD(f, true)
		return binary.LittleEndian.AppendUint32(nil, uint32(fd)), err
	}
	return nil, unix.ENOPROTOOPT
}

const soPeerPIDFD = 77 // SO_PEERPIDFD

// SetOption implements socket.Socket.
func (s *sock) SetOption(_ *kernel.Task, level, _ int32, _ []byte) error {
	if level != linux.SOL_SOCKET {
		return unix.EOPNOTSUPP
	}
	return unix.ENOPROTOOPT
}

var _ socket.Socket = (*sock)(nil)
