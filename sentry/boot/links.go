package boot

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"moat/platform"
	"moat/sentry/fs/sys"
	"moat/sentry/net/inet"
	_ "moat/sentry/net/netlink" // AF_NETLINK
)

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
		n := len(c.Links)
		if c.Loop != nil {
			n++
		}
		var err error
		if fds, err = receiveFiles(c.LinksFD, n); err != nil {
			return err
		}
		if c.Loop != nil {
			c.Loop.FD = fds[n-1]
		}
	}
	for i := range c.Links {
		if c.Links[i].FD = -1; fds != nil {
			c.Links[i].FD = fds[i]
		}
	}
	var pcap *os.File
	if c.Pcap > 0 {
		pcap = os.NewFile(uintptr(c.Pcap), "pcap")
	}
	a, _ := p.(platform.Attender)
	return s.AddLinks(c.Links, c.Loop, a, pcap)
}

// netDevs are the interfaces that the container begins with, for sysfs.
func (b *sandbox) netDevs(c *Config) (l []sys.NetDev) {
	s := inet.Of(b.k.RootNamespaces().Net)
	add := func(name string, id int) {
		l = append(l, sys.NetDev{Name: name, Attrs: inet.SysAttrs, Attr: func(a string) string { return s.SysAttr(id, a) }})
	}
	add("lo", 1)
	for i := range c.Links {
		add(c.Links[i].Name, c.Links[i].Index)
	}
	return l
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
