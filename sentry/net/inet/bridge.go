package inet

import (
	"bytes"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"moat/sentry/usermem"
)

// maxNICs bounds the interfaces of a stack.
const maxNICs = 1024

const bridgeKind = "bridge"

// AddBridge makes a bridge, which is down and can have no ports: EEXIST, ENOBUFS.
func (s *Stack) AddBridge(name string) error {
	l := s.NICs()
	if err := s.nameable(name); err != nil {
		return err
	}
	if len(l) >= maxNICs {
		return unix.ENOBUFS
	}
	return errno(s.tcpip().CreateNICWithOptions(l[len(l)-1].ID+1, stack.NewBridgeEndpoint(1500+header.EthernetMinimumSize), stack.NICOptions{Name: name, Disabled: true, Kind: bridgeKind}))
}

// RemoveBridge removes one: EOPNOTSUPP for what is none.
func (s *Stack) RemoveBridge(n *NIC) error {
	if n.Kind != bridgeKind {
		return unix.EOPNOTSUPP
	}
	return s.tellLink(n, true, errno(s.tcpip().RemoveNIC(n.ID)))
}

// tellLink calls OnLink, if it is set and there was no err, which it returns.
func (s *Stack) tellLink(n *NIC, gone bool, err error) error {
	if f := s.OnLink.Load(); f != nil && err == nil {
		(*f)(n, gone)
	}
	return err
}

// linkChanged tells of the interface with a name what an ioctl(2) without err did to it.
func (s *Stack) linkChanged(name string, err error) error {
	for _, n := range s.NICs() {
		if n.Name == name {
			return s.tellLink(&n, false, err)
		}
	}
	return err
}

// bridgeIoctl is SIOCBRADDBR and SIOCBRDELBR, with a name.
func (s *Stack) bridgeIoctl(io usermem.IO, req uint32, arg hostarch.Addr) error {
	var b [unix.IFNAMSIZ]byte
	if _, err := io.CopyIn(arg, b[:]); err != nil {
		return unix.EFAULT
	}
	b[unix.IFNAMSIZ-1] = 0
	name, _, _ := bytes.Cut(b[:], []byte{0})
	if req == unix.SIOCBRADDBR {
		return s.linkChanged(string(name), s.AddBridge(string(name)))
	}
	for _, n := range s.NICs() {
		switch {
		case n.Name != string(name):
		case n.Kind != bridgeKind:
			return unix.EPERM
		case n.Flags.Running:
			return unix.EBUSY
		default:
			return s.RemoveBridge(&n)
		}
	}
	return unix.ENXIO
}
