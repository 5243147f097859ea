package syscalls

import (
	"encoding/binary"
	"time"

	"moat/sentry/kernel"
	"moat/sentry/kernel/auth"
	"moat/sentry/linuxerr"
	"moat/sentry/net/socket"
	unixsock "moat/sentry/net/unix"
	"moat/sentry/usermem"
	"moat/sentry/vfs"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/waiter"
)

func init() {
	register(
		full(44, "sendto", "fd data size hex ptr int", sysSendto),
		full(45, "recvfrom", "fd buf size hex ptr ptr", sysRecvfrom),
		full(46, "sendmsg", "fd ptr hex", sysSendmsg),
		full(47, "recvmsg", "fd ptr hex", sysRecvmsg),
		full(307, "sendmmsg", "fd ptr int hex", sysSendmmsg),
		full(299, "recvmmsg", "fd ptr int hex ptr", sysRecvmmsg),
	)
}

func isRestart(err error) bool { return linuxerr.IsRestart(err) }

// send sends m, waiting as the file and the flags say, and raises SIGPIPE.
func send(t *kernel.Task, f *vfs.FileDescription, s socket.Socket, m *socket.Message) (int64, error) {
	total := m.Data.NumBytes()
	n, err := s.Send(t, m)
	nonblock := f.Nonblocking() || m.Flags&unix.MSG_DONTWAIT != 0
	stream := s.Base().Type == unix.SOCK_STREAM
	if !nonblock && (err == unix.EWOULDBLOCK || stream && err == nil && n < total) {
		d := s.Base().SendDeadline()
		err = f.Wait(t, waiter.WritableEvents|waiter.EventErr|waiter.EventHUp, d, func() error {
			rest := *m
			rest.Data = m.Data.DropFirst(n)
			c, err := s.Send(t, &rest)
			m.Rights = rest.Rights
			if n += c; err == nil && stream && n < total {
				return unix.EWOULDBLOCK
			}
			return err
		})
		err = interrupted(err, !d.IsZero())
	}
	if n > 0 {
		return n, nil
	}
	if err == unix.EPIPE && stream && m.Flags&unix.MSG_NOSIGNAL == 0 {
		t.SignalSelf(linux.SIGPIPE)
	}
	return n, err
}

// recv receives into m. MSG_WAITALL and waiting are here.
func recv(t *kernel.Task, f *vfs.FileDescription, s socket.Socket, m *socket.Message, deadline time.Time) (int64, error) {
	if f.Nonblocking() {
		m.Flags |= unix.MSG_DONTWAIT
	}
	if s.Base().Family == unix.AF_UNIX {
		m.Flags &^= unix.MSG_ERRQUEUE // has no such queue, and looks at no such flag
	}
	total := m.Data.NumBytes()
	n, err := s.Recv(t, m)
	// want is how much of a stream the call waits for (sock_rcvlowat).
	want := int64(1)
	if s.Base().Type == unix.SOCK_STREAM && m.Flags&unix.MSG_PEEK == 0 {
		if want = min(total, int64(s.Base().RcvLowat.Load())); m.Flags&unix.MSG_WAITALL != 0 {
			want = total
		}
	}
	if m.Flags&(unix.MSG_DONTWAIT|unix.MSG_ERRQUEUE) != 0 || err != unix.EWOULDBLOCK && !(err == nil && 0 < n && n < want) {
		return n, err
	}
	d := deadline
	if d.IsZero() {
		d = s.Base().RecvDeadline()
	}
	err = f.Wait(t, waiter.ReadableEvents|waiter.EventErr|waiter.EventHUp|waiter.EventRdHUp, d, func() error {
		rest := *m
		rest.Data = m.Data.DropFirst(n)
		c, err := s.Recv(t, &rest)
		if err != nil {
			return err
		}
		rest.Data = m.Data
		rest.Rights = append(m.Rights, rest.Rights...)
		*m = rest
		if n += c; c > 0 && n < want && len(m.Rights) == 0 {
			return unix.EWOULDBLOCK
		}
		return nil
	})
	if n > 0 {
		return n, nil
	}
	return 0, interrupted(err, !d.IsZero())
}

// importBuf is import_ubuf: a buffer that is longer than any transfer is cut first.
func importBuf(t *kernel.Task, addr, n kernel.Arg) (usermem.IOSequence, error) {
	return t.SingleIO(addr.Pointer(), int64(min(n.Uint64(), kernel.MaxRW)))
}

// oneBuffer is how sendto and recvfrom begin.
func oneBuffer(t *kernel.Task, a kernel.Args) (m socket.Message, f *vfs.FileDescription, s socket.Socket, err error) {
	m.Flags = a[3].Int()
	if m.Data, err = importBuf(t, a[1], a[2]); err == nil {
		f, s, err = getSocket(t, a[0].Int())
	}
	return m, f, s, err
}

func sysSendto(t *kernel.Task, a kernel.Args) (uintptr, error) {
	m, f, s, err := oneBuffer(t, a)
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	if a[4] != 0 {
		if m.Addr, err = copyInAddr(t, a[4].Pointer(), a[5].Int()); err != nil {
			return 0, err
		}
	}
	n, err := send(t, f, s, &m)
	return uintptr(n), err
}

func sysRecvfrom(t *kernel.Task, a kernel.Args) (uintptr, error) {
	m, f, s, err := oneBuffer(t, a)
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	n, err := recv(t, f, s, &m, time.Time{})
	dropRights(m.Rights)
	if err != nil {
		return 0, err
	}
	if a[4] != 0 {
		if err := copyOutAddr(t, m.Addr, a[4].Pointer(), a[5].Pointer()); err != nil {
			return 0, err
		}
	}
	return uintptr(n), nil
}

func dropRights(fs []*vfs.FileDescription) {
	for _, f := range fs {
		f.DecRef()
	}
}

// msghdr is struct user_msghdr.
type msghdr struct {
	name    hostarch.Addr
	nameLen int32
	iov     hostarch.Addr
	iovLen  uint64
	control hostarch.Addr
	ctlLen  uint64
}

const (
	msghdrSize = 56
	offNameLen = 8
	offCtlLen  = 40
	offFlags   = 48
	mmsgSize   = 64
)

func copyInMsghdr(t *kernel.Task, addr hostarch.Addr) (h msghdr, data usermem.IOSequence, err error) {
	var b [msghdrSize]byte
	if _, err := t.CopyIn(addr, b[:]); err != nil {
		return h, data, unix.EFAULT
	}
	le := binary.LittleEndian
	h = msghdr{
		name: hostarch.Addr(le.Uint64(b[:])), nameLen: int32(le.Uint32(b[8:])), iov: hostarch.Addr(le.Uint64(b[16:])), iovLen: le.Uint64(b[24:]),
		control: hostarch.Addr(le.Uint64(b[32:])), ctlLen: le.Uint64(b[40:]),
	}
	if h.name == 0 {
		h.nameLen = 0
	}
	if h.nameLen < 0 {
		return h, data, unix.EINVAL
	}
	h.nameLen = min(h.nameLen, maxSockaddr)
	if h.iovLen > linux.UIO_MAXIOV {
		return h, data, unix.EMSGSIZE
	}
	data, err = t.CopyInIovecs(h.iov, int(h.iovLen))
	return h, data, err
}

// onSocket calls fn with the socket of fd and its file: EINVAL for MSG_CMSG_COMPAT, which only the kernel may say.
func onSocket(t *kernel.Task, fd, flags kernel.Arg, fn func(f *vfs.FileDescription, s socket.Socket) (int64, error)) (uintptr, error) {
	if flags.Uint()&0x80000000 != 0 {
		return 0, unix.EINVAL
	}
	f, s, err := getSocket(t, fd.Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	n, err := fn(f, s)
	return uintptr(n), err
}

func sysSendmsg(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return onSocket(t, a[0], a[2], func(f *vfs.FileDescription, s socket.Socket) (int64, error) {
		return sendmsg(t, f, s, a[1].Pointer(), a[2].Int())
	})
}

func sendmsg(t *kernel.Task, f *vfs.FileDescription, s socket.Socket, addr hostarch.Addr, flags int32) (int64, error) {
	h, data, err := copyInMsghdr(t, addr)
	if err != nil {
		return 0, err
	}
	m := socket.Message{Data: data, Flags: flags}
	if h.nameLen > 0 {
		if m.Addr, err = copyInAddr(t, h.name, h.nameLen); err != nil {
			return 0, err
		}
	}
	b := s.Base()
	inet := b.Family == unix.AF_INET || b.Family == unix.AF_INET6
	if err := copyInControl(t, &h, &m, inet); err != nil {
		dropRights(m.Rights)
		if _, e := s.PeerAddr(t); e != nil && err != unix.EFAULT && err != unix.ENOBUFS {
			// What it is connected to comes before what the messages say (unix_seqpacket_sendmsg, udp_sendmsg, tcp_sendmsg_locked).
			switch {
			case b.Type == unix.SOCK_SEQPACKET:
				err = e
			case inet && (b.Type == unix.SOCK_STREAM || m.Addr == nil):
				m.Data = usermem.IOSequence{}
				return send(t, f, s, &m)
			}
		}
		return 0, err
	}
	n, err := send(t, f, s, &m)
	dropRights(m.Rights) // what was not sent
	return n, err
}

const (
	cmsgLen    = 16
	maxControl = 64 << 10
)

func cmsgAlign(n int) int { return (n + 7) &^ 7 }

// copyInControl decodes the control messages of sendmsg (net/core/scm.c __scm_send).
func copyInControl(t *kernel.Task, h *msghdr, m *socket.Message, inet bool) error {
	if h.ctlLen > maxControl {
		return unix.ENOBUFS
	}
	b := make([]byte, h.ctlLen)
	if _, err := t.CopyIn(h.control, b); err != nil {
		return unix.EFAULT
	}
	return parseControl(b, func(level, typ int32, data []byte) error {
		if level != linux.SOL_SOCKET {
			m.Other = append(m.Other, socket.Control{Level: level, Type: typ, Data: data})
			return nil
		}
		if inet && (typ == linux.SCM_RIGHTS || typ == linux.SCM_CREDENTIALS) {
			return nil // __sock_cmsg_send
		}
		switch typ {
		case linux.SCM_RIGHTS:
			return sendRights(t, data, m)
		case linux.SCM_CREDENTIALS:
			return sendCred(t, data, m)
		}
		return unix.EINVAL
	})
}

// parseControl takes control messages apart; EINVAL for a bad length.
func parseControl(b []byte, fn func(level, typ int32, data []byte) error) error {
	for len(b) >= cmsgLen {
		n := binary.LittleEndian.Uint64(b)
		if n < cmsgLen || n > uint64(len(b)) {
			return unix.EINVAL
		}
		if err := fn(int32(binary.LittleEndian.Uint32(b[8:])), int32(binary.LittleEndian.Uint32(b[12:])), b[cmsgLen:n]); err != nil {
			return err
		}
		b = b[min(len(b), cmsgAlign(int(n))):]
	}
	return nil
}

func sendRights(t *kernel.Task, data []byte, m *socket.Message) error {
	n := len(data) / 4
	if n+len(m.Rights) > linux.SCM_MAX_FD {
		return unix.EINVAL
	}
	if unixsock.TooMany(n) {
		return unix.ETOOMANYREFS
	}
	for i := range n {
		f, err := t.GetFileOrPath(int32(binary.LittleEndian.Uint32(data[4*i:])))
		if err != nil {
			return unix.EBADF
		}
		m.Rights = append(m.Rights, f)
	}
	return nil
}

func sendCred(t *kernel.Task, data []byte, m *socket.Message) error {
	if len(data) != 12 {
		return unix.EINVAL
	}
	pid := int32(binary.LittleEndian.Uint32(data))
	ns, c := t.UserNamespace(), t.Credentials()
	uid, gid := ns.MapToKUID(binary.LittleEndian.Uint32(data[4:])), ns.MapToKGID(binary.LittleEndian.Uint32(data[8:]))
	if uid == auth.KUID(auth.NoID) || gid == auth.KGID(auth.NoID) {
		return unix.EINVAL
	}
	if pid != t.PID() && !c.HasCap(linux.CAP_SYS_ADMIN) ||
		uid != c.RUID && uid != c.EUID && uid != c.SUID && !c.HasCap(linux.CAP_SETUID) ||
		gid != c.RGID && gid != c.EGID && gid != c.SGID && !c.HasCap(linux.CAP_SETGID) {
		return unix.EPERM
	}
	p := t.PIDNamespace().PID(pid)
	if p == nil {
		return unix.ESRCH
	}
	m.Cred = &socket.Cred{PID: p, UID: uint32(uid), GID: uint32(gid)}
	return nil
}

func sysRecvmsg(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return onSocket(t, a[0], a[2], func(f *vfs.FileDescription, s socket.Socket) (int64, error) {
		return recvmsg(t, f, s, a[1].Pointer(), a[2].Int(), time.Time{})
	})
}

func recvmsg(t *kernel.Task, f *vfs.FileDescription, s socket.Socket, addr hostarch.Addr, flags int32, deadline time.Time) (int64, error) {
	h, data, err := copyInMsghdr(t, addr)
	if err != nil {
		return 0, err
	}
	m := socket.Message{Data: data, Flags: flags}
	n, err := recv(t, f, s, &m, deadline)
	if err != nil {
		dropRights(m.Rights)
		return 0, err
	}
	used := controlOut(t, s, &h, &m)
	dropRights(m.Rights)
	if h.name != 0 {
		b := m.Addr[:min(len(m.Addr), int(h.nameLen))]
		if _, err := t.CopyOut(h.name, b); err != nil {
			return 0, unix.EFAULT
		}
		if err := t.CopyOutUint32(addr+offNameLen, uint32(len(m.Addr))); err != nil {
			return 0, unix.EFAULT
		}
	}
	if flags&unix.MSG_CMSG_CLOEXEC != 0 {
		m.OutFlags |= unix.MSG_CMSG_CLOEXEC
	}
	if t.CopyOutUint32(addr+offFlags, uint32(m.OutFlags)) != nil || t.CopyOutUint64(addr+offCtlLen, uint64(used)) != nil {
		return 0, unix.EFAULT
	}
	return n, nil
}

// controlOut writes the control messages of a received message and returns how many bytes it took. What does not fit is lost: MSG_CTRUNC.
func controlOut(t *kernel.Task, s socket.Socket, h *msghdr, m *socket.Message) int {
	w := controlWriter{t: t, addr: h.control, left: int(min(h.ctlLen, maxControl)), m: m}
	if s.Base().PassCred.Load() && !m.NoCred {
		c := m.Cred
		b := c.Ucred(t)
		if c == nil {
			binary.LittleEndian.PutUint32(b[4:], auth.Overflow)
			binary.LittleEndian.PutUint32(b[8:], auth.Overflow)
		}
		w.put(linux.SOL_SOCKET, linux.SCM_CREDENTIALS, b)
	}
	for _, o := range m.Other {
		w.put(o.Level, o.Type, o.Data)
	}
	if len(m.Rights) > 0 {
		w.rights(m.Flags&unix.MSG_CMSG_CLOEXEC != 0)
	}
	if s.Base().PassPIDFD.Load() && !m.NoCred {
		w.pidfd(m.Cred)
	}
	return w.used
}

type controlWriter struct {
	t          *kernel.Task
	addr       hostarch.Addr
	left, used int
	m          *socket.Message
}

func (w *controlWriter) put(level, typ int32, data []byte) {
	n := cmsgLen + len(data)
	if w.left < cmsgLen {
		w.m.OutFlags |= unix.MSG_CTRUNC
		return
	}
	if n > w.left {
		w.m.OutFlags |= unix.MSG_CTRUNC
		n = w.left
	}
	b := make([]byte, cmsgLen, n)
	binary.LittleEndian.PutUint64(b, uint64(n))
	binary.LittleEndian.PutUint32(b[8:], uint32(level))
	binary.LittleEndian.PutUint32(b[12:], uint32(typ))
	b = append(b, data[:n-cmsgLen]...)
	if _, err := w.t.CopyOut(w.addr, b); err != nil {
		return
	}
	n = min(cmsgAlign(n), w.left)
	w.addr += hostarch.Addr(n)
	w.left -= n
	w.used += n
}

// rights installs as many descriptors as there is room for (net/core/scm.c scm_detach_fds).
func (w *controlWriter) rights(cloexec bool) {
	room := max(0, (w.left-cmsgLen)/4)
	if w.left < cmsgLen {
		room = 0
	}
	var data []byte
	for i, f := range w.m.Rights {
		if i >= room {
			break
		}
		fd, err := w.t.NewFD(f, cloexec)
		if err != nil {
			break
		}
		data = binary.LittleEndian.AppendUint32(data, uint32(fd))
	}
	if len(data) > 0 {
		w.put(linux.SOL_SOCKET, linux.SCM_RIGHTS, data)
	}
	if len(data)/4 < len(w.m.Rights) {
		w.m.OutFlags |= unix.MSG_CTRUNC
	}
}

// pidfd installs a descriptor of who sent the message, if that is known (net/core/scm.c scm_pidfd_recv).
func (w *controlWriter) pidfd(c *socket.Cred) {
	if w.left <= cmsgLen {
		w.m.OutFlags |= unix.MSG_CTRUNC
		return
	}
	if c == nil || c.PID == nil {
		return
	}
	f := kernel.NewPIDFD(w.t, c.PID, 0)
	defer f.DecRef()
	fd, err := w.t.NewFD(f, true)
	if e, ok := err.(unix.Errno); ok {
		fd = -int32(e)
	}
	w.put(linux.SOL_SOCKET, scmPIDFD, binary.LittleEndian.AppendUint32(nil, uint32(fd)))
}

const scmPIDFD = 4 // SCM_PIDFD

// messages runs one on each of the struct mmsghdr at addr and stores its count, until it fails or there are to be no more. It returns how many
// were done; an error only if none.
func messages(t *kernel.Task, addr hostarch.Addr, n uint32, one func(addr hostarch.Addr) (count int64, more bool, err error)) (int64, error) {
	n = min(n, linux.UIO_MAXIOV)
	for i := range n {
		c, more, err := one(addr)
		if err == nil {
			err = t.CopyOutUint32(addr+msghdrSize, uint32(c))
		}
		switch {
		case err != nil && i == 0:
			return 0, err
		case err != nil:
			return int64(i), nil
		case !more:
			return int64(i + 1), nil
		}
		addr += mmsgSize
	}
	return int64(n), nil
}

func sysSendmmsg(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return onSocket(t, a[0], a[3], func(f *vfs.FileDescription, s socket.Socket) (int64, error) {
		return messages(t, a[1].Pointer(), a[2].Uint(), func(addr hostarch.Addr) (int64, bool, error) {
			n, err := sendmsg(t, f, s, addr, a[3].Int())
			return n, true, err
		})
	})
}

func sysRecvmmsg(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return onSocket(t, a[0], a[3], func(f *vfs.FileDescription, s socket.Socket) (int64, error) {
		deadline, err := copyInDeadline(t, a[4].Pointer())
		if err != nil {
			return 0, err
		}
		flags := a[3].Int()
		return messages(t, a[1].Pointer(), a[2].Uint(), func(addr hostarch.Addr) (int64, bool, error) {
			n, err := recvmsg(t, f, s, addr, flags&^unix.MSG_WAITFORONE, deadline)
			if flags&unix.MSG_WAITFORONE != 0 {
				flags |= unix.MSG_DONTWAIT
			}
			return n, deadline.IsZero() || !time.Now().After(deadline), err
		})
	})
}
