package inet

import (
	"encoding/binary"
	"math"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/tcpip"

	"moat/sentry/kernel"
)

// option is an option whose value is an int. Those without functions change nothing here and are kept as they were set.
type option struct {
	get func(s *sock, ep tcpip.Endpoint) (int, error)
	set func(s *sock, ep tcpip.Endpoint, v int) error
	// min and max bound the value: EINVAL.
	min, max int
	// def is what a kept option is before it is set.
	def int
	// admin: CAP_NET_ADMIN or CAP_NET_RAW is needed (EPERM).
	admin bool
}

// flagOption is one of netstack's booleans.
func flagOption(get func(*tcpip.SocketOptions) bool, set func(*tcpip.SocketOptions, bool)) option {
	return option{min: math.MinInt32, max: math.MaxInt32,
		get: func(_ *sock, ep tcpip.Endpoint) (int, error) {
			if get(ep.SocketOptions()) {
				return 1, nil
			}
			return 0, nil
		},
		set: func(_ *sock, ep tcpip.Endpoint, v int) error {
			set(ep.SocketOptions(), v != 0)
			return nil
		}}
}

// intOption is one of netstack's numbers.
func intOption(o tcpip.SockOptInt, lo, hi int) option {
	return option{min: lo, max: hi,
		get: func(_ *sock, ep tcpip.Endpoint) (int, error) {
			v, err := ep.GetSockOptInt(o)
			return v, errno(err)
		},
		set: func(_ *sock, ep tcpip.Endpoint, v int) error { return errno(ep.SetSockOptInt(o, v)) }}
}

// keptOption is remembered, and changes nothing that can be seen from here.
func keptOption(def int) option { return option{def: def, min: math.MinInt32, max: math.MaxInt32} }

// optionOf finds an option of a level that s has, nil if there is none that is an int.
func (s *sock) optionOf(level, name int32) *option {
	var o option
	ok := false
	switch {
	case level == linux.SOL_TCP && s.tcp():
		o, ok = tcpOptions[name]
	case level == linux.SOL_UDP && s.udp():
		o, ok = udpOptions[name]
	case level == linux.SOL_IP:
		o, ok = ipOptions[name]
	case level == linux.SOL_IPV6 && s.base.Family == unix.AF_INET6:
		o, ok = ip6Options[name]
	}
	if !ok {
		return nil
	}
	return &o
}

// keep remembers an option.
func (s *sock) keep(level, name int32, val []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept == nil {
		s.kept = make(map[int64][]byte)
	}
	s.kept[int64(level)<<32|int64(name)] = val
}

func (s *sock) keptValue(level, name int32) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept[int64(level)<<32|int64(name)]
}

// keptInt is a kept option's value, 0 if it was not set.
func (s *sock) keptInt(level, name int32) int {
	switch b := s.keptValue(level, name); {
	case len(b) >= 4:
		return int(int32(binary.LittleEndian.Uint32(b)))
	case len(b) > 0:
		return int(b[0])
	}
	return 0
}

// isKept reports whether a kept option is on.
func (s *sock) isKept(level, name int32) bool { return s.keptInt(level, name) != 0 }

// SetOption implements socket.Socket.
func (s *sock) SetOption(t *kernel.Task, level, name int32, val []byte) error {
	if level == linux.SOL_IP && (name == linux.IPT_SO_SET_REPLACE || name == linux.IPT_SO_SET_ADD_COUNTERS) {
		return s.setTable(t, name, val)
	}
	val = append([]byte(nil), val...)
	if err := s.setOption(t, s.endpoint(), level, name, val); err != nil {
		return err
	}
	switch {
	case level == linux.SOL_SOCKET, level == linux.SOL_IP && membership(name), level == linux.SOL_IPV6 && membership(name):
		return nil // not for a new endpoint
	}
	s.keep(level, name, val)
	if level == linux.SOL_UDP && name == unix.UDP_CORK && !s.isKept(level, name) {
		return s.flushPending(tcpip.WriteOptions{})
	}
	return nil
}

func (s *sock) setOption(t *kernel.Task, ep tcpip.Endpoint, level, name int32, val []byte) error {
	s.push()
	if level == linux.SOL_SOCKET {
		return s.setSocketOption(t, ep, name, val)
	}
	if handled, err := s.setSpecial(ep, level, name, val); handled {
		return err
	}
	o := s.optionOf(level, name)
	if o == nil {
		if (level == linux.SOL_UDP && s.udp() || level == linux.SOL_TCP && s.tcp()) && len(val) < 4 {
			return unix.EINVAL // udp_lib_setsockopt takes only numbers, do_tcp_setsockopt all but a few
		}
		return unix.ENOPROTOOPT
	}
	v := 0
	switch {
	case len(val) >= 4:
		v = int(int32(binary.LittleEndian.Uint32(val)))
	case len(val) > 0 && level == linux.SOL_IP:
		v = int(val[0])
	case level == linux.SOL_IP && !slices.Contains(ipNeedsValue, name):
	default:
		return unix.EINVAL
	}
	if o.admin && v != 0 && !s.capable(t, linux.CAP_NET_ADMIN) && !s.capable(t, linux.CAP_NET_RAW) {
		return unix.EPERM
	}
	if v < o.min || v > o.max {
		return unix.EINVAL
	}
	if o.set == nil {
		return nil
	}
	return o.set(s, ep, v)
}

// GetOption implements socket.Socket.
func (s *sock) GetOption(_ *kernel.Task, level, name int32, size int) ([]byte, error) {
	ep := s.endpoint()
	s.push()
	if level == linux.SOL_SOCKET {
		return s.getSocketOption(ep, name)
	}
	if b, handled, err := s.getSpecial(ep, level, name); handled {
		return b, err
	}
	o := s.optionOf(level, name)
	if o == nil {
		if level == linux.SOL_IP || level == linux.SOL_IPV6 && s.base.Family == unix.AF_INET6 || level == linux.SOL_TCP && s.tcp() || level == linux.SOL_UDP && s.udp() {
			return nil, unix.ENOPROTOOPT
		}
		return nil, unix.EOPNOTSUPP
	}
	v := o.def
	var err error
	if o.get != nil {
		v, err = o.get(s, ep)
	} else if b := s.keptValue(level, name); b != nil {
		v = s.keptInt(level, name)
	}
	if err != nil {
		return nil, err
	}
	if level == linux.SOL_IP && size > 0 && size < 4 && v >= 0 && v <= 255 {
		return []byte{byte(v)}, nil
	}
	return le32(uint32(v)), nil
}

func (s *sock) setSocketOption(t *kernel.Task, ep tcpip.Endpoint, name int32, val []byte) error {
	so := ep.SocketOptions()
	switch name {
	case linux.SO_BINDTODEVICE, unix.SO_BINDTOIFINDEX:
		var nic int32
		if name == linux.SO_BINDTODEVICE {
			dev, _, _ := strings.Cut(string(val), "\x00")
			if dev != "" {
				id, ok := s.st.byName(dev)
				if !ok {
					return unix.ENODEV
				}
				nic = int32(id)
			}
		} else if len(val) < 4 {
			return unix.EINVAL
		} else {
			nic = int32(binary.LittleEndian.Uint32(val))
		}
		if so.GetBindToDevice() != 0 && !s.capable(t, linux.CAP_NET_RAW) {
			return unix.EPERM
		}
		return errno(so.SetBindToDevice(nic))
	case linux.SO_NO_CHECK:
		if len(val) < 4 {
			return unix.EINVAL
		}
		so.SetNoChecksum(binary.LittleEndian.Uint32(val) != 0)
		return nil
	case linux.SO_ATTACH_FILTER, linux.SO_DETACH_FILTER:
		return s.setFilter(name, val)
	}
	return unix.ENOPROTOOPT
}

func (s *sock) getSocketOption(ep tcpip.Endpoint, name int32) ([]byte, error) {
	so := ep.SocketOptions()
	switch name {
	case linux.SO_ACCEPTCONN:
		if s.tcp() && so.GetAcceptConn() {
			return le32(1), nil
		}
		return le32(0), nil
	case linux.SO_BINDTODEVICE:
		if nic := so.GetBindToDevice(); nic != 0 {
			return append([]byte(s.st.tcpip().FindNICNameFromID(tcpip.NICID(nic))), 0), nil
		}
		return nil, nil
	case unix.SO_BINDTOIFINDEX:
		return le32(uint32(so.GetBindToDevice())), nil
	case linux.SO_PEERCRED:
		return le32(0, ^uint32(0), ^uint32(0)), nil
	case linux.SO_COOKIE:
		return binary.LittleEndian.AppendUint64(nil, s.base.Ino.Load()), nil
	}
	return nil, unix.ENOPROTOOPT
}

// setFilter is SO_ATTACH_FILTER: netstack has no place for a program, so that only those that let everything through could be attached.
func (s *sock) setFilter(name int32, _ []byte) error {
	if name == linux.SO_DETACH_FILTER {
		return unix.ENOENT
	}
	return unix.ENOPROTOOPT
}

func le32(v ...uint32) []byte {
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, x)
	}
	return b
}
