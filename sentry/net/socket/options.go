package socket

import (
	"encoding/binary"
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"moat/sentry/kernel"
	"moat/sentry/kernel/auth"
)

func kuid(u uint32) auth.KUID { return auth.KUID(u) }
func kgid(g uint32) auth.KGID { return auth.KGID(g) }

func le32(v ...uint32) []byte {
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, x)
	}
	return b
}

// flag is where an option that is on or off is kept, nil for others.
func (b *Base) flag(name int32) *atomic.Bool {
	for _, f := range [...]struct {
		name int32
		flag *atomic.Bool
	}{{linux.SO_PASSCRED, &b.PassCred}, {linux.SO_PASSPIDFD, &b.PassPIDFD}, {linux.SO_BROADCAST, &b.Broadcast}, {linux.SO_REUSEADDR, &b.ReuseAddr},
		{linux.SO_REUSEPORT, &b.ReusePort}, {linux.SO_KEEPALIVE, &b.KeepAlive}, {linux.SO_OOBINLINE, &b.OOBInline}, {linux.SO_DONTROUTE, &b.DontRoute},
		{linux.SO_TIMESTAMP, &b.Timestamp}, {linux.SO_TIMESTAMPNS, &b.TimestampNS}} {
		if f.name == name {
			return f.flag
		}
	}
	return nil
}

// GetOption returns an option of SOL_SOCKET (net/core/sock.c sk_getsockopt); ENOPROTOOPT if it is the family's, or unknown.
func (b *Base) GetOption(name int32) ([]byte, error) {
	if b.noSCM(name) {
		return nil, unix.EOPNOTSUPP
	}
	if f := b.flag(name); f != nil {
		if f.Load() {
			return le32(1), nil
		}
		return le32(0), nil
	}
	switch name {
	case linux.SO_TYPE:
		return le32(uint32(b.Type)), nil
	case linux.SO_DOMAIN:
		return le32(uint32(b.Family)), nil
	case linux.SO_PROTOCOL:
		return le32(uint32(b.Protocol)), nil
	case linux.SO_ERROR:
		if e, ok := b.TakeError().(unix.Errno); ok {
			return le32(uint32(e)), nil
		}
		return le32(0), nil
	case linux.SO_SNDBUF, linux.SO_RCVBUF:
		if b.Hooks != nil {
			if n := b.Hooks.BufferSize(name); n > 0 {
				return le32(uint32(n)), nil
			}
		}
		if name == linux.SO_SNDBUF {
			return le32(uint32(b.SndBuf.Load())), nil
		}
		return le32(uint32(b.RcvBuf.Load())), nil
	case linux.SO_RCVLOWAT:
		return le32(uint32(b.RcvLowat.Load())), nil
	case linux.SO_SNDLOWAT:
		return le32(1), nil
	case linux.SO_PRIORITY:
		return le32(uint32(b.Priority.Load())), nil
	case linux.SO_MARK:
		return le32(uint32(b.Mark.Load())), nil
	case linux.SO_LINGER:
		b.mu.Lock()
		defer b.mu.Unlock()
		return le32(uint32(b.linger[0]), uint32(b.linger[1])), nil
	case linux.SO_RCVTIMEO:
		return timeval(b.RcvTimeout.Load()), nil
	case linux.SO_SNDTIMEO:
		return timeval(b.SndTimeout.Load()), nil
	case linux.SO_DEBUG, linux.SO_BSDCOMPAT, linux.SO_NO_CHECK, linux.SO_RXQ_OVFL, linux.SO_ZEROCOPY, linux.SO_BUSY_POLL, linux.SO_TIMESTAMPING, linux.SO_PASSSEC, linux.SO_LOCK_FILTER,
		linux.SO_NOFCS, linux.SO_SELECT_ERR_QUEUE, linux.SO_INCOMING_CPU, linux.SO_BUF_LOCK:
		return le32(0), nil
	case linux.SO_MAX_PACING_RATE:
		return le32(^uint32(0)), nil
	}
	return nil, unix.ENOPROTOOPT
}

func timeval(ns int64) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(ns/1e9))
	return binary.LittleEndian.AppendUint64(b, uint64(ns%1e9/1000))
}

func (b *Base) inet() bool { return b.Family == unix.AF_INET || b.Family == unix.AF_INET6 }

// noSCM reports whether an option is about control messages that sockets of the family never get (sk_may_scm_recv).
func (b *Base) noSCM(name int32) bool {
	return (name == linux.SO_PASSCRED || name == linux.SO_PASSSEC || name == linux.SO_PASSPIDFD) && b.Family != unix.AF_UNIX && b.Family != unix.AF_NETLINK
}

// SetOption changes an option of SOL_SOCKET (sk_setsockopt).
func (b *Base) SetOption(t *kernel.Task, name int32, val []byte) error {
	err := b.setOption(t, name, val)
	if err == nil && b.Hooks != nil {
		b.Hooks.OptionChanged(name)
	}
	return err
}

func (b *Base) setOption(t *kernel.Task, name int32, val []byte) error {
	switch {
	case name == linux.SO_ATTACH_FILTER && len(val) != 16: // struct sock_fprog
		return unix.EINVAL
	case b.noSCM(name) && len(val) >= 4, name == linux.SO_REUSEPORT && !b.inet() && len(val) >= 4 && binary.LittleEndian.Uint32(val) != 0:
		return unix.EOPNOTSUPP
	}
	switch name {
	case linux.SO_BINDTODEVICE, unix.SO_BINDTOIFINDEX, linux.SO_ATTACH_FILTER, linux.SO_DETACH_FILTER:
		return unix.ENOPROTOOPT // the family's
	case linux.SO_LINGER:
		if len(val) < 8 {
			return unix.EINVAL
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.linger = [2]int32{int32(min(binary.LittleEndian.Uint32(val), 1)), int32(binary.LittleEndian.Uint32(val[4:]))}
		return nil
	case linux.SO_RCVTIMEO:
		return setTimeout(&b.RcvTimeout, val)
	case linux.SO_SNDTIMEO:
		return setTimeout(&b.SndTimeout, val)
	}
	if len(val) < 4 {
		return unix.EINVAL
	}
	v := int32(binary.LittleEndian.Uint32(val))
	if f := b.flag(name); f != nil {
		f.Store(v != 0)
		return nil
	}
	c := t.Credentials()
	switch name {
	case linux.SO_SNDBUF:
		b.SndBuf.Store(max(2*int32(min(uint32(v), maxBuf)), minSndBuf))
		b.SndBufSet.Store(true)
	case linux.SO_RCVBUF:
		b.RcvBuf.Store(max(2*int32(min(uint32(v), maxBuf)), minRcvBuf))
		b.RcvBufSet.Store(true)
	case linux.SO_SNDBUFFORCE, linux.SO_RCVBUFFORCE:
		if !c.HasCap(linux.CAP_NET_ADMIN) {
			return unix.EPERM
		}
		v = 2 * min(max(v, 0), 16<<20)
		if name == linux.SO_SNDBUFFORCE {
			b.SndBuf.Store(max(v, minSndBuf))
			b.SndBufSet.Store(true)
		} else {
			b.RcvBuf.Store(max(v, minRcvBuf))
			b.RcvBufSet.Store(true)
		}
	case linux.SO_RCVLOWAT:
		if v < 0 {
			v = math.MaxInt32
		}
		b.RcvLowat.Store(max(v, 1))
	case linux.SO_PRIORITY:
		if (v < 0 || v > 6) && !c.HasCap(linux.CAP_NET_ADMIN) {
			return unix.EPERM
		}
		b.Priority.Store(v)
	case linux.SO_MARK:
		if !c.HasCap(linux.CAP_NET_ADMIN) {
			return unix.EPERM
		}
		b.Mark.Store(v)
	case linux.SO_PEEK_OFF:
		if b.Family != linux.AF_UNIX {
			return unix.EOPNOTSUPP
		}
		b.PeekOff.Store(v)
	case linux.SO_DEBUG:
		if v != 0 && !c.HasCap(linux.CAP_NET_ADMIN) {
			return unix.EACCES
		}
	case linux.SO_TYPE, linux.SO_PROTOCOL, linux.SO_DOMAIN, linux.SO_ERROR, linux.SO_SNDLOWAT, linux.SO_PEERCRED, linux.SO_ACCEPTCONN:
		return unix.ENOPROTOOPT
	case linux.SO_BSDCOMPAT, linux.SO_NO_CHECK, linux.SO_RXQ_OVFL, linux.SO_BUSY_POLL, linux.SO_PASSSEC, linux.SO_SELECT_ERR_QUEUE, linux.SO_MAX_PACING_RATE:
	default:
		return unix.ENOPROTOOPT
	}
	return nil
}

func setTimeout(to *atomic.Int64, val []byte) error {
	if len(val) < 16 {
		return unix.EINVAL
	}
	sec, usec := int64(binary.LittleEndian.Uint64(val)), int64(binary.LittleEndian.Uint64(val[8:]))
	if usec < 0 || usec >= 1e6 {
		return unix.EDOM
	}
	switch {
	case sec < 0, sec > int64(math.MaxInt64/time.Second)-1:
		to.Store(0)
	default:
		to.Store(sec*1e9 + usec*1e3)
	}
	return nil
}
