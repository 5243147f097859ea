package unix

import (
	"encoding/binary"

	"moat/sentry/kernel"
	"moat/sentry/net/socket"
	"moat/sentry/vfs"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/waiter"
)

// maxBacklog is net.core.somaxconn.
const maxBacklog = 4096

// Listen implements socket.Socket.
func (s *sock) Listen(t *kernel.Task, backlog int) error {
	if s.dgram() {
		return unix.EOPNOTSUPP
	}
	if backlog < 0 || backlog > maxBacklog {
		backlog = maxBacklog
	}
	s.mu.Lock()
	if s.addr == nil || s.state != idle && s.state != listening {
		s.mu.Unlock()
		return unix.EINVAL
	}
	s.state, s.backlog = listening, backlog
	s.peerCred = socket.CredOf(t)
	waiting := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	wake(waiting)
	return nil
}

// Accept implements socket.Socket.
func (s *sock) Accept(*kernel.Task) (socket.Socket, []byte, error) {
	if s.dgram() {
		return nil, nil, unix.EOPNOTSUPP
	}
	s.mu.Lock()
	if s.state != listening {
		s.mu.Unlock()
		return nil, nil, unix.EINVAL
	}
	if len(s.pending) == 0 {
		shut := s.noRead
		s.mu.Unlock()
		if shut {
			return nil, nil, unix.EINVAL
		}
		return nil, nil, unix.EWOULDBLOCK
	}
	c := s.pending[0]
	s.pending = append(s.pending[:0], s.pending[1:]...)
	waiting := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	wake(waiting)
	c.mu.Lock()
	peer := c.peer
	c.mu.Unlock()
	addr := emptyAddr()
	if peer != nil {
		peer.mu.Lock()
		addr = peer.addr.bytes()
		peer.mu.Unlock()
	}
	return c, addr, nil
}

// Connect implements socket.Socket.
func (s *sock) Connect(t *kernel.Task, addr []byte) error {
	if s.dgram() {
		return s.connectDgram(t, addr)
	}
	if err := s.bindFor(addr); err != nil {
		return err
	}
	l, err := find(t, s.ns, addr, s.base.Type)
	if err != nil {
		return err
	}
	l.mu.Lock()
	refused := l.state != listening || l.noRead
	l.mu.Unlock()
	if refused { // before the caller's own state is looked at
		return unix.ECONNREFUSED
	}
	// The other end, which accept will return.
	n := newSock(l.ns, l.base.Type)
	n.base.PassCred.Store(l.base.PassCred.Load())
	n.base.SndBuf.Store(l.base.SndBuf.Load())
	n.base.RcvBuf.Store(l.base.RcvBuf.Load())
	n.join(s, socket.CredOf(t))
	if err := s.meet(l, n); err != nil {
		return err
	}
	l.Waiters.Notify(waiter.ReadableEvents | vfs.AsyncIn)
	s.Waiters.Notify(allEvents)
	return nil
}

// bindFor gives a socket that tells of its sender a name before it looks for who is bound to addr.
func (s *sock) bindFor(addr []byte) error {
	if err := checkAddr(addr); err != nil || !s.wantsCred() {
		return err
	}
	return s.autobind()
}

// meet queues n at the listening socket l and makes s its other end.
func (s *sock) meet(l, n *sock) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.state {
	case connected:
		return unix.EISCONN
	case listening, closed:
		return unix.EINVAL
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state != listening || l.noRead {
		return unix.ECONNREFUSED
	}
	if len(l.pending) > l.backlog {
		l.waitLocked(s)
		return unix.EWOULDBLOCK
	}
	n.setAddr(l.addr.shared())
	l.pending = append(l.pending, n)
	s.state, s.peer, s.peerCred = connected, n, l.peerCred
	return nil
}

// shared is the address as accepted sockets show it: the listener's, which only the listener gives up.
func (a *address) shared() *address { return &address{raw: a.raw, ns: &noNamespace} }

// noNamespace marks addresses that are in no table.
var noNamespace kernel.NetNamespace

// connectDgram sets the destination, or takes it back (AF_UNSPEC).
func (s *sock) connectDgram(t *kernel.Task, addr []byte) error {
	if len(addr) >= famLen && binary.LittleEndian.Uint16(addr) == unix.AF_UNSPEC {
		s.setPeer(nil)
		return nil
	}
	if err := s.bindFor(addr); err != nil {
		return err
	}
	p, err := find(t, s.ns, addr, s.base.Type)
	if err != nil {
		return err
	}
	if !p.takesFrom(s) {
		return unix.EPERM
	}
	s.setPeer(p)
	return nil
}

// setPeer makes p, or none, the destination of a datagram socket. What came from the old one is lost, which hears of it if it still talks to s (unix_dgram_disconnected).
func (s *sock) setPeer(p *sock) {
	var lost []*message
	s.mu.Lock()
	old := s.peer
	if old != nil && old != p {
		lost, s.bytes = s.msgs.take(), 0
	}
	s.peer = p
	if s.state = idle; p != nil {
		s.state = connected
	}
	s.mu.Unlock()
	for _, m := range lost {
		m.discard()
	}
	if len(lost) > 0 {
		old.mu.Lock()
		mine := old.peer == s
		old.mu.Unlock()
		if mine {
			old.base.SetError(unix.ECONNRESET)
			old.Waiters.Notify(allEvents)
		}
	}
	s.Waiters.Notify(waiter.WritableEvents)
}

// takesFrom is unix_may_send: a connected datagram socket only hears its own peer.
func (s *sock) takesFrom(o *sock) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.peer == nil || s.peer == o
}
