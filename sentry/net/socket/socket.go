// Package socket is what the socket system calls and the protocol families know of each other: an open socket, a message, and the
// options that every socket has. A family registers itself by Register.
//
// Sockets never wait in here: an operation that cannot be done now returns EWOULDBLOCK, and the system call waits for readiness and
// tries again, unless the file is non-blocking.
package socket

import (
	"sync"
	"sync/atomic"
	"time"

	"moat/sentry/kernel"
	"moat/sentry/usermem"
	"moat/sentry/vfs"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Socket is an open socket's file implementation.
type Socket interface {
	vfs.FileImpl
	// Base has the options that all sockets share.
	Base() *Base

	// Addresses are struct sockaddr in bytes, as the guest gave them or will get them.
	Bind(t *kernel.Task, addr []byte) error
	Listen(t *kernel.Task, backlog int) error
	// Accept returns the next connection and the address of its other end.
	Accept(t *kernel.Task) (Socket, []byte, error)
	// Connect returns EINPROGRESS if the connection will be made later, EWOULDBLOCK if it is to be tried again when the socket is ready.
	Connect(t *kernel.Task, addr []byte) error
	Shutdown(how int) error
	LocalAddr(t *kernel.Task) ([]byte, error)
	PeerAddr(t *kernel.Task) ([]byte, error)
	// Send and Recv move one message (or as much of a stream as fits). ctx is a *kernel.Task except for the kernel's own use.
	Send(ctx vfs.Context, m *Message) (int64, error)
	Recv(ctx vfs.Context, m *Message) (int64, error)
	// GetOption and SetOption handle what GetBaseOption and SetBaseOption do not: ENOPROTOOPT.
	GetOption(t *kernel.Task, level, name int32, size int) ([]byte, error)
	SetOption(t *kernel.Task, level, name int32, val []byte) error
}

// Asker is a socket with options that are asked with an argument in the buffer (those of iptables, level SOL_IP).
type Asker interface {
	AskOption(t *kernel.Task, level, name int32, arg []byte) ([]byte, error)
}

// Message is what sendmsg(2) and recvmsg(2) carry.
type Message struct {
	Data usermem.IOSequence
	// Flags are MSG_*.
	Flags int32
	// Addr is the destination, nil for none; or where a message came from.
	Addr []byte
	// Rights and Cred are unix(7)'s control messages. Sent rights are the receiver's after a Send without an error; received ones are the caller's.
	Rights []*vfs.FileDescription
	Cred   *Cred
	// NoCred: there was no message, so that none has a sender.
	NoCred bool
	// Other are control messages of the family, in the guest's layout.
	Other []Control
	// OutFlags are MSG_TRUNC, MSG_CTRUNC and MSG_EOR of a received message.
	OutFlags int32
}

// Control is one control message.
type Control struct {
	Level, Type int32
	Data        []byte
}

// Cred is a process' identity, in no namespace yet.
type Cred struct {
	PID *kernel.PID
	UID uint32 // auth.KUID
	GID uint32 // auth.KGID
}

// Provider makes sockets of a family: EPROTONOSUPPORT, ESOCKTNOSUPPORT, EPERM.
type Provider func(t *kernel.Task, typ, protocol int32) (Socket, error)

var providers [64]Provider

// NetDevice is ioctl(2) about interfaces (netdevice(7)), which every socket answers: ENOTTY for what is not. The inet families set it.
var NetDevice = func(vfs.Context, *kernel.NetNamespace, usermem.IO, uint32, uintptr) (uintptr, error) {
	return 0, unix.ENOTTY
}

// Register sets the provider of a family (AF_*). It is called from init functions.
func Register(family int, p Provider) { providers[family] = p }

// New makes a socket; EAFNOSUPPORT if there is no such family.
func New(t *kernel.Task, family, typ, protocol int32) (Socket, error) {
	if family < 0 || int(family) >= len(providers) || providers[family] == nil {
		return nil, unix.EAFNOSUPPORT
	}
	if typ < 0 || typ > unix.SOCK_PACKET {
		return nil, unix.EINVAL
	}
	return providers[family](t, typ, protocol)
}

// Open makes an open file of s. flags are O_NONBLOCK.
func Open(ctx vfs.Context, s Socket, flags uint32) *vfs.FileDescription {
	f := vfs.NewFile(ctx.Credentials(), s, vfs.PseudoPath(ctx, unix.S_IFSOCK|0o777, s.Base().proto()), unix.O_RDWR|flags)
	if a, err := f.Inode().Attr(ctx); err == nil {
		s.Base().Ino.Store(a.Ino)
	}
	return f
}

// proto is the protocol's name (struct proto).
func (b *Base) proto() string {
	name := map[int32]string{unix.SOCK_STREAM: "TCP", unix.SOCK_DGRAM: "UDP", unix.SOCK_RAW: "RAW"}[b.Type]
	switch f := b.Family; {
	case f == unix.AF_UNIX && b.Type == unix.SOCK_STREAM:
		return "UNIX-STREAM"
	case !b.inet():
		return map[int32]string{unix.AF_UNIX: "UNIX", unix.AF_NETLINK: "NETLINK", unix.AF_PACKET: "PACKET"}[f]
	case b.Protocol == unix.IPPROTO_ICMP && name == "UDP", b.Protocol == unix.IPPROTO_ICMPV6 && name == "UDP":
		name = "PING"
	}
	return name + map[int32]string{unix.AF_INET6: "v6"}[b.Family]
}

// Hooks are what a family has to say about the options of SOL_SOCKET.
type Hooks interface {
	// OptionChanged is told of an option that was just set.
	OptionChanged(name int32)
	// PendingError takes the error that the protocol keeps, 0 if there is none.
	PendingError() unix.Errno
	// BufferSize is SO_SNDBUF or SO_RCVBUF where the protocol changes it by itself; 0: it does not.
	BufferSize(name int32) int32
}

// Base are the options of SOL_SOCKET.
type Base struct {
	Family   int32
	Type     int32
	Protocol int32
	// Hooks may be nil.
	Hooks Hooks
	// UID is who made the socket (auth.KUID), Ino its inode number once it has a file.
	UID uint32
	Ino atomic.Uint64

	PassCred    atomic.Bool
	PassPIDFD   atomic.Bool
	Broadcast   atomic.Bool
	ReuseAddr   atomic.Bool
	ReusePort   atomic.Bool
	KeepAlive   atomic.Bool
	OOBInline   atomic.Bool
	DontRoute   atomic.Bool
	Timestamp   atomic.Bool
	TimestampNS atomic.Bool
	SndBuf      atomic.Int32
	RcvBuf      atomic.Int32
	RcvLowat    atomic.Int32
	Priority    atomic.Int32
	Mark        atomic.Int32
	PeekOff     atomic.Int32
	// SndBufSet and RcvBufSet: the sizes are the guest's wish.
	SndBufSet  atomic.Bool
	RcvBufSet  atomic.Bool
	SndTimeout atomic.Int64 // ns, 0: none
	RcvTimeout atomic.Int64

	mu sync.Mutex
	// linger is SO_LINGER: on, seconds. +checklocks:mu
	linger [2]int32
	// err is the pending error. +checklocks:mu
	err unix.Errno
}

const (
	// defaultBuf and maxBuf are net.core.wmem_default and wmem_max; minBuf is SOCK_MIN_SNDBUF.
	defaultBuf = 212992
	maxBuf     = 212992
	minSndBuf  = 4608
	minRcvBuf  = 2304
)

// Base implements Socket for who embeds b.
func (b *Base) Base() *Base { return b }

// AsyncEvents implements vfs.Asyncer by what wakes those who wait: a datagram that was sent makes room that nobody wanted.
func (b *Base) AsyncEvents(vfs.Context, *vfs.FileDescription) waiter.EventMask {
	if b.Type == unix.SOCK_STREAM {
		return waiter.AllEvents
	}
	return waiter.AllEvents &^ waiter.WritableEvents
}

// Init sets the defaults.
func (b *Base) Init(family, typ, protocol int32) {
	b.Family, b.Type, b.Protocol = family, typ, protocol
	b.SndBuf.Store(defaultBuf)
	b.RcvBuf.Store(defaultBuf)
	b.RcvLowat.Store(1)
	b.PeekOff.Store(-1)
}

// SetError sets the pending error that the next operation, or SO_ERROR, returns.
func (b *Base) SetError(e unix.Errno) {
	b.mu.Lock()
	b.err = e
	b.mu.Unlock()
}

// TakeError returns the pending error, the socket's or the protocol's, and clears it.
func (b *Base) TakeError() error {
	if err := b.TakeOwnError(); err != nil || b.Hooks == nil {
		return err
	}
	if e := b.Hooks.PendingError(); e != 0 {
		return e
	}
	return nil
}

// TakeOwnError is TakeError without the protocol's.
func (b *Base) TakeOwnError() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.err
	b.err = 0
	if e == 0 {
		return nil
	}
	return e
}

// Inherit takes over the options of a listening socket (sk_clone_lock).
func (b *Base) Inherit(l *Base) {
	for _, f := range [...][2]*atomic.Bool{{&b.Broadcast, &l.Broadcast}, {&b.ReuseAddr, &l.ReuseAddr}, {&b.ReusePort, &l.ReusePort}, {&b.KeepAlive, &l.KeepAlive},
		{&b.OOBInline, &l.OOBInline}, {&b.DontRoute, &l.DontRoute}, {&b.Timestamp, &l.Timestamp}, {&b.TimestampNS, &l.TimestampNS},
		{&b.SndBufSet, &l.SndBufSet}, {&b.RcvBufSet, &l.RcvBufSet}} {
		f[0].Store(f[1].Load())
	}
	for _, v := range [...][2]*atomic.Int32{{&b.SndBuf, &l.SndBuf}, {&b.RcvBuf, &l.RcvBuf}, {&b.RcvLowat, &l.RcvLowat}, {&b.Priority, &l.Priority}, {&b.Mark, &l.Mark}} {
		v[0].Store(v[1].Load())
	}
	b.SndTimeout.Store(l.SndTimeout.Load())
	b.RcvTimeout.Store(l.RcvTimeout.Load())
	l.mu.Lock()
	linger := l.linger
	l.mu.Unlock()
	b.mu.Lock()
	b.linger = linger
	b.mu.Unlock()
}

// Linger is SO_LINGER: on or off, and the seconds.
func (b *Base) Linger() (on bool, seconds int32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.linger[0] != 0, b.linger[1]
}

// HasError reports whether an error is pending.
func (b *Base) HasError() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err != 0
}

// deadline is when an operation with a timeout must be over.
func deadline(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Now().Add(time.Duration(ns))
}

// RecvDeadline is SO_RCVTIMEO from now on; zero: none. With SendDeadline it implements vfs.Deadliner.
func (b *Base) RecvDeadline() time.Time { return deadline(b.RcvTimeout.Load()) }

// SendDeadline is SO_SNDTIMEO from now on; zero: none.
func (b *Base) SendDeadline() time.Time { return deadline(b.SndTimeout.Load()) }

// Ucred is struct ucred as t sees c.
func (c *Cred) Ucred(t *kernel.Task) []byte {
	if c == nil {
		return le32(0, ^uint32(0), ^uint32(0))
	}
	ns := t.UserNamespace()
	return le32(uint32(c.PID.In(t.PIDNamespace())), ns.UIDOrOverflow(kuid(c.UID)), ns.GIDOrOverflow(kgid(c.GID)))
}

// CredOf is the identity that a socket shows for t: the effective IDs.
func CredOf(t *kernel.Task) *Cred {
	c := t.Credentials()
	return &Cred{PID: t.ThreadGroup().ID(), UID: uint32(c.EUID), GID: uint32(c.EGID)}
}

// RealCredOf is the identity that goes with messages of t: the real IDs (net/core/scm.c scm_set_cred).
func RealCredOf(t *kernel.Task) *Cred {
	c := t.Credentials()
	return &Cred{PID: t.ThreadGroup().ID(), UID: uint32(c.RUID), GID: uint32(c.RGID)}
}

// Read is read(2). Of nothing it returns at once, also where there is nothing to read (sock_read_iter); descriptors that come along are dropped.
func Read(ctx vfs.Context, s Socket, f *vfs.FileDescription, dst usermem.IOSequence) (int64, error) {
	if dst.NumBytes() == 0 {
		return 0, nil
	}
	m := Message{Data: dst}
	if f.Nonblocking() {
		m.Flags = unix.MSG_DONTWAIT
	}
	n, err := s.Recv(ctx, &m)
	for _, f := range m.Rights {
		f.DecRef()
	}
	return n, err
}

// Write is write(2), at off for the result; of a stream the rest may follow.
func Write(ctx vfs.Context, s Socket, src usermem.IOSequence, off int64, stream bool) (int64, int64, error) {
	n, err := s.Send(ctx, &Message{Data: src})
	if err == nil && stream && n < src.NumBytes() {
		err = unix.EWOULDBLOCK
	}
	return n, off, err
}
