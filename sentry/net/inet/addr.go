package inet

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

const (
	// sizes of struct sockaddr_in, sockaddr_in6, sockaddr_ll; minIn6 is SIN6_LEN_RFC2133.
	sizeIn  = 16
	sizeIn6 = 28
	minIn6  = 24
	sizeLL  = 20
)

func ip4(b []byte) tcpip.Address { return tcpip.AddrFrom4Slice(b[:4]) }

func ip16(b []byte) tcpip.Address { return tcpip.AddrFrom16Slice(b[:16]) }

// family is an address' sa_family; EINVAL if it is cut.
func family(b []byte) (int32, error) {
	if len(b) < 2 {
		return 0, unix.EINVAL
	}
	return int32(binary.LittleEndian.Uint16(b)), nil
}

// parse decodes a sockaddr_in or sockaddr_in6. The unspecified address is an empty Address, as netstack has it.
func parse(b []byte) (tcpip.FullAddress, error) {
	f, err := family(b)
	if err != nil {
		return tcpip.FullAddress{}, err
	}
	var a tcpip.FullAddress
	switch {
	case f == unix.AF_INET && len(b) >= sizeIn:
		a.Port = binary.BigEndian.Uint16(b[2:])
		a.Addr = ip4(b[4:])
	case f == unix.AF_INET6 && len(b) >= minIn6:
		a.Port = binary.BigEndian.Uint16(b[2:])
		a.Addr = ip16(b[8:])
		if len(b) >= sizeIn6 && linkLocal(a.Addr) {
			a.NIC = tcpip.NICID(int32(binary.LittleEndian.Uint32(b[24:])))
		}
	case f == unix.AF_INET || f == unix.AF_INET6:
		return a, unix.EINVAL
	default:
		return a, unix.EAFNOSUPPORT
	}
	if a.Addr.Unspecified() {
		a.Addr = tcpip.Address{}
	}
	return a, nil
}

func linkLocal(a tcpip.Address) bool {
	return header.IsV6LinkLocalUnicastAddress(a) || header.IsV6LinkLocalMulticastAddress(a)
}

// format encodes a as family's sockaddr: IPv4 addresses of IPv6 sockets are mapped ones.
func format(family int32, a tcpip.FullAddress) []byte {
	if family == unix.AF_INET {
		b := make([]byte, sizeIn)
		b[0] = unix.AF_INET
		binary.BigEndian.PutUint16(b[2:], a.Port)
		copy(b[4:8], a.Addr.AsSlice())
		return b
	}
	b := make([]byte, sizeIn6)
	b[0] = unix.AF_INET6
	binary.BigEndian.PutUint16(b[2:], a.Port)
	if a.Addr.Len() == 4 {
		b[18], b[19] = 0xff, 0xff
		copy(b[20:24], a.Addr.AsSlice())
	} else {
		copy(b[8:24], a.Addr.AsSlice())
	}
	if a.NIC != 0 && linkLocal(a.Addr) {
		binary.LittleEndian.PutUint32(b[24:], uint32(a.NIC))
	}
	return b
}

// destination is parse for connect and send: the unspecified address is this host, and IPv4 is mapped for IPv6 sockets by netstack.
func (s *sock) destination(b []byte) (tcpip.FullAddress, error) {
	f, err := family(b)
	if err != nil {
		return tcpip.FullAddress{}, err
	}
	if f == unix.AF_UNSPEC && s.base.Family == unix.AF_INET && len(b) >= sizeIn {
		b = append([]byte{unix.AF_INET, 0}, b[2:]...)
		f = unix.AF_INET
	}
	if f != s.base.Family && !(f == unix.AF_INET && s.base.Family == unix.AF_INET6 && s.base.Type != unix.SOCK_STREAM) {
		// Too short an address is found out first.
		if len(b) < sizeIn || s.base.Family == unix.AF_INET6 && len(b) < minIn6 {
			return tcpip.FullAddress{}, unix.EINVAL
		}
		return tcpip.FullAddress{}, unix.EAFNOSUPPORT
	}
	a, err := parse(b)
	if err != nil {
		return a, err
	}
	if a.Addr.Len() == 0 {
		switch has, _ := s.endpoint().GetLocalAddress(); {
		case f == unix.AF_INET6:
			a.Addr = header.IPv6Loopback
		case has.Addr.Len() == header.IPv4AddressSize && !header.IsV4MulticastAddress(has.Addr):
			a.Addr = has.Addr // ip_route_output_key
		default:
			a.Addr = loopback4
		}
	}
	if a.Addr == mappedAny {
		a.Addr = mapped(loopback4)
	}
	if f == unix.AF_INET && s.base.Family == unix.AF_INET6 {
		if s.endpoint().SocketOptions().GetV6Only() {
			return a, unix.ENETUNREACH
		}
		a.Addr = mapped(a.Addr)
	}
	if s.base.Type == unix.SOCK_RAW {
		a.Port = 0
	}
	return a, nil
}

// mapped is an IPv4 address as ::ffff:a.b.c.d.
func mapped(a tcpip.Address) tcpip.Address {
	var b [16]byte
	b[10], b[11] = 0xff, 0xff
	copy(b[12:], a.AsSlice())
	return tcpip.AddrFrom16(b)
}

var mappedAny = mapped(tcpip.AddrFrom4([4]byte{}))
