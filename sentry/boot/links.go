package boot

import (
	"fmt"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"moat/platform"
	"moat/sentry/fs/sys"
	"moat/sentry/kernel"
	"moat/sentry/net/inet"
	_ "moat/sentry/net/netlink" // AF_NETLINK
)

// packetSockets is how many come with the configuration.
func (c *Config) packetSockets() int {
	n := len(c.Links)
	if c.Loop != nil {
		n++
	}
	return n
}

// useSockets says which they are; nil: the links are only shown.
func (c *Config) useSockets(fds []int) {
	for i := range c.Links {
		if c.Links[i].FD = -1; fds != nil {
			c.Links[i].FD = fds[i]
		}
	}
	if c.Loop != nil && fds != nil {
		c.Loop.FD = fds[len(c.Links)]
	}
}

// link gives a container that shares nobody's network one of its own, with links whose descriptors came with its configuration: the filter must be one for links.
func (b *container) link(fds []int) error {
	if b.ns.Net != nil {
		return nil
	}
	b.ns.Net = b.k.NewNetNamespace(b.k.RootUserNamespace())
	if f := b.first.c; len(fds) > 0 && (f.Network != "sandbox" || len(f.Links) == 0) {
		closeFDs(fds)
		return fmt.Errorf("linux.namespaces: a network of its own: the sandbox of %s has no interfaces but lo, and so may not use any", f.ID)
	}
	b.c.useSockets(fds)
	return inet.Of(b.ns.Net).AddLinks(b.c.Links, b.c.Loop, nil, nil)
}

// unlink takes the links away that link has given.
func (b *container) unlink() {
	if b.ns != nil && b.ns.Net != nil && b.c.Share[specs.NetworkNamespace] == "" {
		inet.Of(b.ns.Net).RemoveLinks()
	}
}

// addLinks gives the stack the links of the configuration, whose descriptors the command line has sent.
func addLinks(c *Config, s *inet.Stack, p platform.Platform) error {
	if c.LinksFD > 0 {
		defer unix.Close(c.LinksFD)
	}
	if len(c.Links) == 0 {
		return nil
	}
	var fds []int
	if c.Network != "host" {
		var err error
		if fds, err = receiveFiles(c.LinksFD, c.packetSockets()); err != nil {
			return err
		}
	}
	c.useSockets(fds)
	var pcap *os.File
	if c.Pcap > 0 {
		pcap = os.NewFile(uintptr(c.Pcap), "pcap")
	}
	a, _ := p.(platform.Attender)
	return s.AddLinks(c.Links, c.Loop, a, pcap)
}

// netDevs are the interfaces that a network namespace begins with, for sysfs.
func netDevs(ns *kernel.NetNamespace) (l []sys.NetDev) {
	s := inet.Of(ns)
	for _, i := range append([]inet.Link{{Name: "lo", Index: 1}}, s.Links()...) {
		l = append(l, sys.NetDev{Name: i.Name, Attrs: inet.SysAttrs, Attr: func(a string) string { return s.SysAttr(i.Index, a) }})
	}
	return l
}

func closeFDs(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// receiveFiles takes n descriptors from one message on the socket fd.
func receiveFiles(fd, n int) ([]int, error) {
	oob := make([]byte, unix.CmsgSpace(4*n))
	_, k, _, _, err := unix.Recvmsg(fd, make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("receive the links' descriptors: %w", err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:k])
	if err != nil || len(msgs) != 1 {
		return nil, fmt.Errorf("receive the links' descriptors: a message without them")
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err == nil && len(fds) != n {
		err = fmt.Errorf("%d came, of %d", len(fds), n)
	}
	if err != nil {
		return nil, fmt.Errorf("receive the links' descriptors: %w", err)
	}
	return fds, nil
}
