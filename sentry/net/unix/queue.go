package unix

import (
	"slices"

	"moat/sentry/kernel"
	"moat/sentry/net/socket"
	"moat/sentry/vfs"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/waiter"
)

// message is one datagram, or a piece of a stream.
type message struct {
	data   []byte
	from   *sock
	cred   *socket.Cred
	rights []*vfs.FileDescription
}

func (m *message) discard() {
	m.from.sent.Add(-int64(len(m.data)))
	m.dropRights()
	m.from.sentSome()
}

// addr is the sender's address, as of now: nil if it has none (unix_copy_addr).
func (m *message) addr() []byte {
	if a := m.from.shown.Load(); a != nil {
		return a.raw
	}
	return nil
}

func (m *message) dropRights() {
	inFlight(m.rights, -1)
	for _, f := range m.rights {
		f.DecRef()
	}
	m.rights = nil
}

// msgQueue is a FIFO of messages.
type msgQueue struct {
	q    []*message
	head int
}

func (q *msgQueue) len() int        { return len(q.q) - q.head }
func (q *msgQueue) front() *message { return q.q[q.head] }
func (q *msgQueue) push(m *message) { q.q = append(q.q, m) }
func (q *msgQueue) pop() {
	q.q[q.head] = nil
	q.head++
	if q.head == len(q.q) {
		q.q, q.head = q.q[:0], 0
	} else if q.head > 64 && q.head > len(q.q)/2 {
		n := copy(q.q, q.q[q.head:])
		clear(q.q[n:])
		q.q, q.head = q.q[:n], 0
	}
}
func (q *msgQueue) take() []*message {
	m := q.q[q.head:]
	q.q, q.head = nil, 0
	return m
}

const (
	// maxPiece is how much of a stream is one message; minPiece the room that a small write leaves for the next.
	maxPiece = 64 << 10
	minPiece = 1024
)

// Send implements socket.Socket.
func (s *sock) Send(ctx vfs.Context, m *socket.Message) (int64, error) {
	if m.Flags&unix.MSG_OOB != 0 {
		return 0, unix.EOPNOTSUPP
	}
	s.mu.Lock()
	st, peer, shut := s.state, s.peer, s.noWrite
	s.mu.Unlock()
	if s.stream() {
		switch {
		case len(m.Addr) > 0 && st == connected:
			return 0, unix.EISCONN
		case len(m.Addr) > 0:
			return 0, unix.EOPNOTSUPP
		case peer == nil:
			return 0, unix.ENOTCONN
		case shut:
			return 0, unix.EPIPE
		}
		return s.sendStream(ctx, m, peer)
	}
	return s.sendPacket(ctx, m, st, peer, shut)
}

// room is how many bytes s may send now.
func (s *sock) room() int64 { return int64(s.base.SndBuf.Load()) - s.sent.Load() }

func (s *sock) sendStream(ctx vfs.Context, m *socket.Message, peer *sock) (int64, error) {
	total := m.Data.NumBytes()
	if total == 0 {
		return 0, nil
	}
	done := int64(0)
	cred := s.credFor(ctx, m, peer)
	for done < total {
		n := min(total-done, s.room(), maxPiece)
		if n <= 0 {
			s.noSpace.Store(true)
			break
		}
		buf := make([]byte, n, max(n, min(minPiece, n*4)))
		// A piece is sent whole or not at all.
		_, err := m.Data.DropFirst(done).TakeFirst(n).CopyIn(buf)
		if err == nil {
			err = peer.receive(&message{data: buf, from: s, cred: cred, rights: m.Rights})
		}
		if err != nil {
			if done > 0 {
				return done, nil
			}
			return 0, err
		}
		m.Rights = nil
		done += n
	}
	if done == 0 {
		return 0, unix.EWOULDBLOCK
	}
	return done, nil
}

// receive queues a message at s.
func (s *sock) receive(m *message) error {
	m.from.sent.Add(int64(len(m.data)))
	s.mu.Lock()
	if s.state == closed || s.noRead {
		s.mu.Unlock()
		m.from.sent.Add(-int64(len(m.data)))
		return unix.EPIPE
	}
	inFlight(m.rights, 1)
	if last := s.tail(m); last != nil {
		last.data = append(last.data, m.data...)
	} else {
		s.msgs.push(m)
	}
	s.bytes += len(m.data)
	s.mu.Unlock()
	s.Waiters.Notify(waiter.ReadableEvents | vfs.AsyncIn)
	return nil
}

// tail is the last message of a stream if m may go on it without growing it. +checklocks:s.mu
func (s *sock) tail(m *message) *message {
	if !s.stream() || s.msgs.len() == 0 || len(m.rights) > 0 {
		return nil
	}
	l := s.msgs.q[len(s.msgs.q)-1]
	if len(l.rights) > 0 || l.from != m.from || !sameCred(l.cred, m.cred) || cap(l.data)-len(l.data) < len(m.data) {
		return nil
	}
	return l
}

func sameCred(a, b *socket.Cred) bool { return a == b || a != nil && b != nil && *a == *b }

// credFor is who a message comes from: what the sender says, or, if either end wants to know, what it is.
func (s *sock) credFor(ctx vfs.Context, m *socket.Message, peer *sock) *socket.Cred {
	if m.Cred != nil {
		return m.Cred
	}
	t, ok := ctx.(*kernel.Task)
	if !ok || !s.wantsCred() && !peer.wantsCred() {
		return nil
	}
	return socket.RealCredOf(t)
}

// wantsCred reports whether who receives wants to know from whom (unix_may_passcred).
func (s *sock) wantsCred() bool { return s.base.PassCred.Load() || s.base.PassPIDFD.Load() }

func (s *sock) sendPacket(ctx vfs.Context, m *socket.Message, st state, peer *sock, shut bool) (int64, error) {
	var to *kernel.Task
	if len(m.Addr) > 0 {
		t, ok := ctx.(*kernel.Task)
		if !ok {
			return 0, unix.EINVAL
		}
		if s.base.Type == unix.SOCK_SEQPACKET {
			// The address is ignored (unix_seqpacket_sendmsg).
		} else if err := checkAddr(m.Addr); err != nil {
			return 0, err
		} else {
			to = t
		}
	}
	if s.base.Type == unix.SOCK_SEQPACKET && peer == nil {
		return 0, unix.ENOTCONN
	}
	if s.wantsCred() {
		if err := s.autobind(); err != nil {
			return 0, err
		}
	}
	n := m.Data.NumBytes()
	if n > int64(s.base.SndBuf.Load())-32 {
		return 0, unix.EMSGSIZE
	}
	if err := s.base.TakeError(); err != nil {
		return 0, err
	}
	if shut {
		return 0, unix.EPIPE
	}
	if n > s.room() && s.sent.Load() > 0 {
		s.noSpace.Store(true)
		return 0, unix.EWOULDBLOCK
	}
	buf := make([]byte, n)
	if _, err := m.Data.CopyIn(buf); err != nil {
		return 0, err
	}
	// Who gets it is looked for last (unix_dgram_sendmsg).
	if to != nil {
		var err error
		if peer, err = find(to, s.ns, m.Addr, s.base.Type); err != nil {
			return 0, err
		}
	}
	if peer == nil {
		return 0, unix.ENOTCONN
	}
	msg := &message{data: buf, from: s, cred: s.credFor(ctx, m, peer), rights: m.Rights}
	if s.dgram() {
		if err := peer.admits(s); err != nil {
			if err == unix.ECONNREFUSED && len(m.Addr) == 0 {
				s.setPeer(nil)
			}
			return 0, err
		}
	}
	if err := peer.receive(msg); err != nil {
		return 0, err
	}
	m.Rights = nil
	return n, nil
}

// admits says whether a datagram of from's may be queued now.
func (s *sock) admits(from *sock) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.state == closed:
		return unix.ECONNREFUSED
	case s.peer != nil && s.peer != from:
		return unix.EPERM
	case s.noRead:
		return unix.EPIPE
	case s != from && s.peer != from && s.msgs.len() >= maxDgrams:
		s.waitLocked(from)
		return unix.EWOULDBLOCK
	}
	return nil
}

// Recv implements socket.Socket.
func (s *sock) Recv(ctx vfs.Context, m *socket.Message) (int64, error) {
	if m.Flags&unix.MSG_OOB != 0 && !s.stream() {
		return 0, unix.EOPNOTSUPP
	}
	var woken []*sock
	s.mu.Lock()
	n, err := s.recvLocked(m, &woken)
	var waiting map[*sock]struct{}
	if len(woken) > 0 && s.msgs.len() < maxDgrams/2 {
		waiting, s.waiting = s.waiting, nil
	}
	s.mu.Unlock()
	for _, w := range woken {
		w.sentSome()
	}
	wake(waiting)
	return n, err
}

// recvLocked receives; woken gets the senders that may go on.
// +checklocks:s.mu
func (s *sock) recvLocked(m *socket.Message, woken *[]*sock) (int64, error) {
	if s.stream() && (s.state != connected || m.Flags&unix.MSG_OOB != 0) { // there is no urgent data
		return 0, unix.EINVAL
	}
	if s.base.Type == unix.SOCK_SEQPACKET && s.state != connected {
		return 0, unix.ENOTCONN
	}
	// A packet is not looked for before the error is told, what a stream has comes first.
	if s.msgs.len() == 0 || !s.stream() {
		if err := s.base.TakeError(); err != nil {
			return 0, err
		}
	}
	if s.msgs.len() == 0 {
		if s.noRead && !(s.dgram() && m.Flags&unix.MSG_DONTWAIT != 0) {
			// At its end a stream tells of a sender of zeros (unix_stream_read_generic), the others of none.
			m.Cred, m.NoCred = &socket.Cred{}, !s.stream()
			return 0, nil
		}
		return 0, unix.EWOULDBLOCK
	}
	if s.stream() {
		return s.recvStream(m, woken)
	}
	return s.recvPacket(m, woken)
}

// +checklocks:s.mu
func (s *sock) recvStream(m *socket.Message, woken *[]*sock) (int64, error) {
	peek := m.Flags&unix.MSG_PEEK != 0
	want := m.Data.NumBytes()
	skip := 0
	if peek {
		skip = max(0, int(s.base.PeekOff.Load()))
	}
	done := int64(0)
	wantCred := s.wantsCred()
	for i := s.msgs.head; i < len(s.msgs.q) && (done < want || i == s.msgs.head && done == 0); i++ {
		msg := s.msgs.q[i]
		if skip >= len(msg.data) && len(msg.data) > 0 && peek && skip > 0 {
			skip -= len(msg.data)
			continue
		}
		if done > 0 && wantCred && !sameCred(msg.cred, m.Cred) {
			break
		}
		if done == 0 {
			m.Cred, m.Addr = msg.cred, msg.addr()
		}
		c := int(min(want-done, int64(len(msg.data)-skip)))
		if _, err := m.Data.DropFirst(done).CopyOut(msg.data[skip : skip+c]); err != nil {
			// What was not copied whole stays (unix_stream_read_generic).
			if done == 0 {
				return 0, err
			}
			break
		}
		takeRights(m, msg, peek)
		done += int64(c)
		if !peek {
			s.consume(msg, c)
			addSock(woken, msg.from)
			if len(msg.data) > 0 {
				break
			}
			s.msgs.pop()
			i = s.msgs.head - 1
		}
		skip = 0
		if len(m.Rights) > 0 {
			break
		}
	}
	s.movePeekOff(done, peek)
	return done, nil
}

// consume takes n bytes off the front of a stream's message. +checklocks:s.mu
func (s *sock) consume(msg *message, n int) {
	msg.data = msg.data[n:]
	s.bytes -= n
	msg.from.sent.Add(-int64(n))
}

func (s *sock) movePeekOff(n int64, peek bool) {
	o := s.base.PeekOff.Load()
	if o < 0 {
		return
	}
	if peek {
		s.base.PeekOff.Store(o + int32(n))
	} else {
		s.base.PeekOff.Store(max(0, o-int32(n)))
	}
}

func addSock(list *[]*sock, s *sock) {
	if !slices.Contains(*list, s) {
		*list = append(*list, s)
	}
}

// +checklocks:s.mu
func (s *sock) recvPacket(m *socket.Message, woken *[]*sock) (int64, error) {
	peek := m.Flags&unix.MSG_PEEK != 0
	msg := s.msgs.front()
	skip := 0
	if peek {
		skip = min(max(0, int(s.base.PeekOff.Load())), len(msg.data))
	}
	data := msg.data[skip:]
	n := min(m.Data.NumBytes(), int64(len(data)))
	// One that cannot be copied is gone, too (unix_dgram_recvmsg).
	_, err := m.Data.CopyOut(data[:n])
	if n < int64(len(data)) {
		m.OutFlags |= unix.MSG_TRUNC
	}
	m.Cred, m.Addr = msg.cred, msg.addr()
	takeRights(m, msg, peek)
	if !peek {
		s.msgs.pop()
		s.bytes -= len(msg.data)
		msg.from.sent.Add(-int64(len(msg.data)))
		addSock(woken, msg.from)
	}
	if err != nil {
		return 0, err
	}
	s.movePeekOff(n, peek)
	if m.Flags&unix.MSG_TRUNC != 0 {
		return int64(len(data)), nil
	}
	return n, nil
}

// takeRights moves a message's descriptors to the receiver, or gives it new references.
func takeRights(m *socket.Message, msg *message, peek bool) {
	if len(msg.rights) == 0 {
		return
	}
	if peek {
		for _, f := range msg.rights {
			f.IncRef()
		}
		inFlight(msg.rights, 0)
		m.Rights = append([]*vfs.FileDescription(nil), msg.rights...)
		return
	}
	inFlight(msg.rights, -1)
	m.Rights, msg.rights = msg.rights, nil
}
