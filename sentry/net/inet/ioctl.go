package inet

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"

	"moat/sentry/kernel"
	"moat/sentry/net/socket"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

const ifreqSize = 40

func init() { socket.NetDevice = Ioctl }

// Ioctl is socket.NetDevice.
func Ioctl(ctx vfs.Context, ns *kernel.NetNamespace, io usermem.IO, req uint32, arg uintptr) (uintptr, error) {
	s := Of(ns)
	if s == nil || req < unix.SIOCADDRT || req > unix.SIOCDEVPRIVATE {
		return 0, unix.ENOTTY
	}
	if req == unix.SIOCGIFCONF {
		return 0, s.ifconf(io, hostarch.Addr(arg))
	}
	if req == unix.SIOCBRADDBR || req == unix.SIOCBRDELBR {
		if !ctx.Credentials().HasCapIn(linux.CAP_NET_ADMIN, ns.UserNamespace()) {
			return 0, unix.EPERM
		}
		return 0, s.bridgeIoctl(io, req, hostarch.Addr(arg))
	}
	var r [ifreqSize]byte
	if _, err := io.CopyIn(hostarch.Addr(arg), r[:]); err != nil {
		return 0, unix.EFAULT
	}
	if req == unix.SIOCSIFFLAGS || req == unix.SIOCSIFMTU {
		return 0, s.change(ctx, ns, req, r[:])
	}
	if err := s.ifreq(req, r[:]); err != nil {
		return 0, err
	}
	_, err := io.CopyOut(hostarch.Addr(arg), r[:])
	return 0, err
}

// change sets what can be set by a struct ifreq: whether the interface is up, and its MTU.
func (s *Stack) change(ctx vfs.Context, ns *kernel.NetNamespace, req uint32, r []byte) error {
	if !ctx.Credentials().HasCapIn(linux.CAP_NET_ADMIN, ns.UserNamespace()) {
		return unix.EPERM
	}
	n, err := s.find(req, r)
	if err != nil {
		return err
	}
	v := binary.LittleEndian.Uint32(r[16:])
	if req == unix.SIOCSIFMTU {
		return s.linkChanged(n.Name, s.SetMTU(n.ID, v))
	}
	if up := v&unix.IFF_UP != 0; up != n.Flags.Running {
		return s.linkChanged(n.Name, s.SetUp(n.ID, up))
	}
	return nil
}

// find is the interface that a struct ifreq names.
func (s *Stack) find(req uint32, r []byte) (NIC, error) {
	name, _, _ := bytes.Cut(r[:unix.IFNAMSIZ], []byte{0})
	index := tcpip.NICID(int32(binary.LittleEndian.Uint32(r[16:])))
	for _, n := range s.NICs() {
		if req == unix.SIOCGIFNAME && n.ID == index || req != unix.SIOCGIFNAME && n.Name == string(name) {
			return n, nil
		}
	}
	return NIC{}, unix.ENODEV
}

func (s *Stack) ifreq(req uint32, r []byte) error {
	n, err := s.find(req, r)
	if err != nil {
		return err
	}
	v := r[16:]
	le := binary.LittleEndian
	var a tcpip.AddressWithPrefix
	for _, p := range n.ProtocolAddresses {
		if p.Protocol == ipv4.ProtocolNumber {
			a = p.AddressWithPrefix
			break
		}
	}
	inAddr := func(b []byte) error {
		if a.Address.Len() == 0 {
			return unix.EADDRNOTAVAIL
		}
		copy(v, format(unix.AF_INET, tcpip.FullAddress{Addr: tcpip.AddrFrom4Slice(b)}))
		return nil
	}
	sub := a.Subnet()
	switch req {
	case unix.SIOCGIFINDEX:
		le.PutUint32(v, uint32(n.ID))
	case unix.SIOCGIFNAME:
		clear(r[:unix.IFNAMSIZ])
		copy(r[:unix.IFNAMSIZ-1], n.Name)
	case unix.SIOCGIFFLAGS:
		le.PutUint16(v, uint16(n.LinuxFlags()))
	case unix.SIOCGIFMTU:
		le.PutUint32(v, n.MTU)
	case unix.SIOCGIFMETRIC:
		le.PutUint32(v, 0)
	case unix.SIOCGIFTXQLEN:
		le.PutUint32(v, 1000)
	case unix.SIOCGIFMAP:
		clear(v[:24])
	case unix.SIOCGIFHWADDR:
		le.PutUint16(v, n.HardwareType())
		clear(v[2:16])
		copy(v[2:16], n.LinkAddress)
	case unix.SIOCGIFADDR:
		return inAddr(a.Address.AsSlice())
	case unix.SIOCGIFNETMASK:
		mask := sub.Mask()
		return inAddr(mask.AsSlice())
	case unix.SIOCGIFBRDADDR:
		b := sub.Broadcast()
		return inAddr(b.AsSlice())
	case unix.SIOCGIFDSTADDR:
		return inAddr(a.Address.AsSlice())
	default:
		return unix.EOPNOTSUPP
	}
	return nil
}

// LinuxFlags are IFF_*.
func (n *NIC) LinuxFlags() uint32 {
	var f uint32
	if n.Flags.Running { // netstack calls every interface up
		f |= linux.IFF_UP
	}
	if n.Flags.Running {
		f |= linux.IFF_RUNNING | linux.IFF_LOWER_UP
	}
	if n.Flags.Promiscuous {
		f |= linux.IFF_PROMISC
	}
	if n.Flags.Loopback {
		f |= linux.IFF_LOOPBACK
	} else {
		f |= linux.IFF_BROADCAST | linux.IFF_MULTICAST
	}
	return f
}

// HardwareType is ARPHRD_*.
func (n *NIC) HardwareType() uint16 {
	if n.ARPHardwareType == header.ARPHardwareLoopback {
		return unix.ARPHRD_LOOPBACK
	}
	return unix.ARPHRD_ETHER
}

// ifconf is SIOCGIFCONF: the interfaces that have an IPv4 address.
func (s *Stack) ifconf(io usermem.IO, arg hostarch.Addr) error {
	var c [16]byte
	if _, err := io.CopyIn(arg, c[:]); err != nil {
		return unix.EFAULT
	}
	size, buf := int32(binary.LittleEndian.Uint32(c[:])), hostarch.Addr(binary.LittleEndian.Uint64(c[8:]))
	var out []byte
	for _, n := range s.NICs() {
		for _, p := range n.ProtocolAddresses {
			if p.Protocol != ipv4.ProtocolNumber {
				continue
			}
			var r [ifreqSize]byte
			copy(r[:unix.IFNAMSIZ-1], n.Name)
			copy(r[16:], format(unix.AF_INET, tcpip.FullAddress{Addr: p.AddressWithPrefix.Address}))
			out = append(out, r[:]...)
		}
	}
	if buf != 0 {
		if size < 0 {
			return unix.EINVAL
		}
		out = out[:min(len(out), int(size)/ifreqSize*ifreqSize)]
		if _, err := io.CopyOut(buf, out); err != nil {
			return unix.EFAULT
		}
	}
	_, err := io.CopyOut(arg, le32(uint32(len(out))))
	return err
}
