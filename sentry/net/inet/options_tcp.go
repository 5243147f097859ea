package inet

import (
	"encoding/binary"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// duration is an option of netstack's that is a time; the guest's unit is unit.
func duration[T interface {
	~int64
}, P interface {
	*T
	tcpip.GettableSocketOption
	tcpip.SettableSocketOption
}](unit time.Duration, lo, hi int) option {
	return option{min: lo, max: hi,
		get: func(_ *sock, ep tcpip.Endpoint) (int, error) {
			var v T
			err := ep.GetSockOpt(P(&v))
			return int(time.Duration(v) / unit), errno(err)
		},
		set: func(_ *sock, ep tcpip.Endpoint, n int) error {
			v := T(time.Duration(n) * unit)
			return errno(ep.SetSockOpt(P(&v)))
		}}
}

const maxInt32 = 1<<31 - 1

var tcpOptions = map[int32]option{
	linux.TCP_NODELAY:  flagOption(func(o *so) bool { return !o.GetDelayOption() }, func(o *so, on bool) { o.SetDelayOption(!on) }),
	linux.TCP_CORK:     flagOption((*so).GetCorkOption, (*so).SetCorkOption),
	linux.TCP_QUICKACK: flagOption((*so).GetQuickAck, (*so).SetQuickAck),
	linux.TCP_MAXSEG: {min: 0, max: 32767,
		get: func(s *sock, ep tcpip.Endpoint) (int, error) { return s.maxSegment(ep), nil },
		set: func(_ *sock, ep tcpip.Endpoint, v int) error {
			if v == 0 {
				return nil
			}
			if v < 88 {
				return unix.EINVAL
			}
			return errno(ep.SetSockOptInt(tcpip.MaxSegOption, v))
		}},
	linux.TCP_KEEPCNT:              intOption(tcpip.KeepaliveCountOption, 1, 127),
	linux.TCP_SYNCNT:               intOption(tcpip.TCPSynCountOption, 1, 127),
	linux.TCP_WINDOW_CLAMP:         intOption(tcpip.TCPWindowClampOption, 0, maxInt32),
	linux.TCP_KEEPIDLE:             duration[tcpip.KeepaliveIdleOption](time.Second, 1, 32767),
	linux.TCP_KEEPINTVL:            duration[tcpip.KeepaliveIntervalOption](time.Second, 1, 32767),
	linux.TCP_USER_TIMEOUT:         duration[tcpip.TCPUserTimeoutOption](time.Millisecond, 0, maxInt32),
	linux.TCP_LINGER2:              duration[tcpip.TCPLingerTimeoutOption](time.Second, -1<<31, maxInt32),
	linux.TCP_DEFER_ACCEPT:         duration[tcpip.TCPDeferAcceptOption](time.Second, -1<<31, maxInt32),
	linux.TCP_FASTOPEN:             {max: 1<<31 - 1},
	linux.TCP_FASTOPEN_CONNECT:     keptOption(0),
	linux.TCP_FASTOPEN_NO_COOKIE:   keptOption(0),
	linux.TCP_NOTSENT_LOWAT:        keptOption(0),
	linux.TCP_THIN_LINEAR_TIMEOUTS: {min: 0, max: 1},
	linux.TCP_THIN_DUPACK:          {min: 0, max: 1},
	linux.TCP_SAVE_SYN:             {min: 0, max: 2},
	linux.TCP_INQ:                  {min: 0, max: 1},
	linux.TCP_TX_DELAY:             keptOption(0),
}

// maxSegment is TCP_MAXSEG: the connection's, or what was set.
func (s *sock) maxSegment(ep tcpip.Endpoint) int {
	if v := s.keptInt(linux.SOL_TCP, linux.TCP_MAXSEG); v > 0 {
		return v
	}
	if peer, err := ep.GetRemoteAddress(); err == nil {
		if r, err := s.st.tcpip().FindRoute(peer.NIC, tcpip.Address{}, peer.Addr, protoOf(peer.Addr), false); err == nil {
			defer r.Release()
			// Without the options of every segment: time stamps.
			return min(int(r.MTU()), 65535) - header.TCPMinimumSize - 12
		}
	}
	return header.TCPDefaultMSS
}

// setSpecial handles options whose value is not an int.
func (s *sock) setSpecial(ep tcpip.Endpoint, level, name int32, val []byte) (handled bool, err error) {
	switch {
	case level == linux.SOL_TCP && s.tcp() && name == linux.TCP_CONGESTION:
		cc, _, _ := strings.Cut(string(val), "\x00")
		if len(val) == 0 {
			return true, unix.EINVAL
		}
		o := tcpip.CongestionControlOption(cc)
		return true, errno(ep.SetSockOpt(&o))
	case level == linux.SOL_TCP && s.tcp() && name == linux.TCP_ULP:
		return true, unix.ENOENT // no upper layer, as where the tls module is not there
	case level == linux.SOL_TCP && s.tcp() && name == linux.TCP_REPAIR:
		return true, unix.EPERM
	case level == linux.SOL_IP, level == linux.SOL_IPV6 && s.base.Family == unix.AF_INET6:
		return s.setIPSpecial(ep, level, name, val)
	case level == linux.SOL_RAW, level == linux.SOL_ICMPV6:
		return s.setICMPFilter(ep, level, name, val)
	}
	return false, nil
}

func (s *sock) setICMPFilter(ep tcpip.Endpoint, level, name int32, val []byte) (bool, error) {
	if s.base.Type != unix.SOCK_RAW || name != 1 {
		return false, nil
	}
	if level == linux.SOL_RAW {
		if s.base.Protocol != unix.IPPROTO_ICMP || len(val) < 4 {
			return true, unix.EOPNOTSUPP
		}
		return true, nil // ICMP_FILTER: more is received than asked for, which programs check anyway
	}
	if s.base.Protocol != unix.IPPROTO_ICMPV6 || len(val) < 32 {
		return true, unix.EINVAL
	}
	var f tcpip.ICMPv6Filter
	for i := range f.DenyType {
		f.DenyType[i] = binary.LittleEndian.Uint32(val[4*i:])
	}
	return true, errno(ep.SetSockOpt(&f))
}

func (s *sock) getSpecial(ep tcpip.Endpoint, level, name int32) (b []byte, handled bool, err error) {
	switch {
	case level == linux.SOL_TCP && s.tcp() && name == linux.TCP_CONGESTION:
		var o tcpip.CongestionControlOption
		err := errno(ep.GetSockOpt(&o))
		b := make([]byte, 16) // TCP_CA_NAME_MAX
		copy(b, o)
		return b, true, err
	case level == linux.SOL_TCP && s.tcp() && name == linux.TCP_INFO:
		return s.tcpInfo(ep), true, nil
	case level == linux.SOL_IP && name == linux.IP_MULTICAST_IF && !s.tcp():
		var o tcpip.MulticastInterfaceOption
		err := errno(ep.GetSockOpt(&o))
		b := make([]byte, 4)
		copy(b, o.InterfaceAddr.AsSlice())
		return b, true, err
	case level == linux.SOL_IP && name == linux.IP_OPTIONS:
		return nil, true, nil
	case level == linux.SOL_IP && name == linux.SO_ORIGINAL_DST && s.tcp():
		var o tcpip.OriginalDestinationOption
		if err := ep.GetSockOpt(&o); err != nil {
			return nil, true, unix.ENOENT // no connection that was translated
		}
		return format(unix.AF_INET, tcpip.FullAddress(o)), true, nil
	case level == linux.SOL_ICMPV6 && name == 1 && s.base.Type == unix.SOCK_RAW:
		var f tcpip.ICMPv6Filter
		err := errno(ep.GetSockOpt(&f))
		return le32(f.DenyType[:]...), true, err
	}
	return nil, false, nil
}

// linuxState is a TCP state as Linux numbers it (TCP_*); netstack's are the same but for its own.
func linuxState(st tcp.EndpointState) uint8 {
	switch {
	case st == tcp.StateConnecting:
		return uint8(tcp.StateSynSent)
	case st > tcp.StateClosing:
		return uint8(tcp.StateClose)
	}
	return uint8(st)
}

// tcpInfo is TCP_INFO.
func (s *sock) tcpInfo(ep tcpip.Endpoint) []byte {
	var v tcpip.TCPInfoOption
	_ = ep.GetSockOpt(&v) // TCP endpoints have it
	mss := uint32(s.maxSegment(ep))
	i := linux.TCPInfo{
		State: linuxState(tcp.EndpointState(ep.State())), RTO: uint32(v.RTO / time.Microsecond), RTT: uint32(v.RTT / time.Microsecond),
		RTTVar: uint32(v.RTTVar / time.Microsecond), SndSsthresh: v.SndSsthresh, SndCwnd: v.SndCwnd, SndMss: mss, RcvMss: mss, Advmss: mss,
		PMTU: mss + 52, Reordering: 3,
	}
	switch v.CcState {
	case tcpip.RTORecovery:
		i.CaState = linux.TCP_CA_Loss
	case tcpip.FastRecovery, tcpip.SACKRecovery:
		i.CaState = linux.TCP_CA_Recovery
	case tcpip.Disorder:
		i.CaState = linux.TCP_CA_Disorder
	}
	b := make([]byte, i.SizeBytes())
	i.MarshalBytes(b)
	return b
}
