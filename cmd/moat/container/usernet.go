package container

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"

	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"moat/sentry/net/inet"
)

// `moat do --network user`: a program for user-mode networking (pasta or slirp4netns) carries the sandbox's packets, with no rights but those of the caller, or
// of nobody if root calls. Three processes are made: the helper, an ordinary user's; below it the program; and the holder, which has a user and a network
// namespace of its own, in which the program makes an interface. Its packet socket is sent to us, as from any other network namespace.

// userNet is what the holder or the helper sends: Links with their packet sockets, or what went wrong.
type userNet struct {
	Links []inet.Link
	Error string
}

// maxUserNet bounds a userNet.
const maxUserNet = 128 << 10

// UserVerb is the verb of the helper, and with an argument of the holder.
const UserVerb = "user-network"

// UserNetwork makes a network namespace whose packets leave through pasta or slirp4netns.
func UserNetwork() (*Network, error) {
	ours, theirs, err := socketpair(unix.SOCK_SEQPACKET)
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	c := exec.Command("/proc/self/exe", UserVerb)
	c.Stderr = os.Stderr
	c.ExtraFiles = []*os.File{theirs}
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if os.Geteuid() == 0 {
		c.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	if err := c.Start(); err != nil {
		ours.Close()
		return nil, fmt.Errorf("start the helper: %w", err)
	}
	theirs.Close()
	n := &Network{helper: &userHelper{ours, c}}
	if err := n.receive(ours); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

// userHelper is the running helper, which ends when the socket is closed.
type userHelper struct {
	conn *os.File
	cmd  *exec.Cmd
}

// Close implements io.Closer.
func (h *userHelper) Close() error {
	h.conn.Close()
	return h.cmd.Wait()
}

// receive takes a userNet from conn.
func (n *Network) receive(conn *os.File) error {
	b, oob := make([]byte, maxUserNet), make([]byte, unix.CmsgSpace(4*16))
	k, o, _, _, err := unix.Recvmsg(int(conn.Fd()), b, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil || k == 0 {
		return errors.Join(errors.New("the helper ended without an answer"), err)
	}
	var u userNet
	if err := json.Unmarshal(b[:k], &u); err != nil || u.Error != "" {
		return cmp.Or(err, errors.New(u.Error))
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:o])
	if err != nil {
		return err
	}
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			return err
		}
		for _, fd := range fds {
			n.files = append(n.files, os.NewFile(uintptr(fd), "packet"))
		}
	}
	if n.Links = u.Links; len(n.files) != len(u.Links) || len(n.files) == 0 {
		return fmt.Errorf("the helper sent %d descriptors for %d interfaces", len(n.files), len(u.Links))
	}
	return nil
}

// answer sends u and descriptors to who waits for the network.
func answer(conn *os.File, u *userNet, files []*os.File) {
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	var rights []byte
	if fds != nil {
		rights = unix.UnixRights(fds...)
	}
	b, _ := json.Marshal(u)                                             // a struct of plain values
	_ = unix.Sendmsg(int(conn.Fd()), b, rights, nil, unix.MSG_NOSIGNAL) // who has gone away wants no answer
}

// UserHelper is the helper's process, and with hold the holder's; its descriptor 3 is where the answer goes.
func UserHelper(hold bool) error {
	conn := os.NewFile(3, "answer")
	unix.CloseOnExec(3)
	if _, err := unix.FcntlInt(3, unix.F_GETFL, 0); err != nil {
		return errors.New(UserVerb + " is started by moat itself, not by hand")
	}
	run := userHelp
	if hold {
		run = userHold
	}
	if err := run(conn); err != nil {
		answer(conn, &userNet{Error: err.Error()}, nil)
	}
	return nil
}

// userPrograms are the programs that can carry packets, the better first, with how they are started for the namespaces of a process.
var userPrograms = []struct {
	name, deb string
	args      func(pid string) []string
}{
	{"pasta", "passt", func(pid string) []string {
		return []string{"--quiet", "--foreground", "--config-net", "-t", "none", "-u", "none", "-T", "none", "-U", "none", "--no-map-gw", pid}
	}},
	{"slirp4netns", "slirp4netns", func(pid string) []string {
		return []string{"--configure", "--mtu=65520", "--disable-host-loopback", "--enable-ipv6", pid, "tap0"}
	}},
}

// userHelp starts the holder and a program, and ends both when conn's other end is closed.
func userHelp(conn *os.File) error {
	var tried []string
	for _, p := range userPrograms {
		path, err := exec.LookPath(p.name)
		if err != nil {
			continue
		}
		if err = userServe(conn, path, p.args); err == nil {
			return nil
		}
		tried = append(tried, fmt.Sprintf("%s: %v", p.name, err))
	}
	if tried != nil {
		return errors.New(strings.Join(tried, "; "))
	}
	return errors.New("neither pasta (package passt) nor slirp4netns is in PATH: install one of them")
}

// userServe returns an error if there is no network, else nil when conn's other end was closed.
func userServe(conn *os.File, path string, args func(pid string) []string) error {
	ours, theirs, err := socketpair(unix.SOCK_SEQPACKET)
	if err != nil {
		return err
	}
	defer ours.Close()
	holder := exec.Command("/proc/self/exe", UserVerb, "hold")
	holder.ExtraFiles = []*os.File{theirs}
	holder.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Cloneflags: unix.CLONE_NEWNET}
	userNamespace(holder, os.Geteuid(), os.Getegid())
	err = holder.Start()
	theirs.Close()
	if err != nil {
		return fmt.Errorf("user namespace: %w", err)
	}
	var said bytes.Buffer
	program := exec.Command(path, args(strconv.Itoa(holder.Process.Pid))...)
	program.Stdout, program.Stderr = &said, &said
	program.WaitDelay = time.Second
	err = program.Start()
	stop := func() {
		holder.Process.Kill()
		holder.Wait()
		if program.Process != nil {
			program.Process.Kill()
		}
	}
	if err != nil {
		stop()
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- program.Wait() }()
	found := make(chan error, 1)
	n := &Network{}
	go func() { found <- n.receive(ours) }()
	select {
	case err = <-ended:
		err = fmt.Errorf("%v: %s", err, bytes.Join(bytes.Fields(said.Bytes()), []byte(" ")))
		stop()
		return err
	case err = <-found:
	}
	if err == nil {
		answer(conn, &userNet{Links: n.Links}, n.files)
		n.closeFiles()
		var b [1]byte
		_, _ = conn.Read(b[:]) // the end of who waits
	}
	stop()
	<-ended
	return err
}

// userHold is the holder: it waits for an interface that leads out, sends it, and stays.
func userHold(conn *os.File) error {
	// It is complete when nothing is added for a while.
	for end, seen, same := time.Now().Add(20*time.Second), 0, 0; same < 10; time.Sleep(5 * time.Millisecond) {
		routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
		if err != nil {
			return fmt.Errorf("list routes: %w", err)
		}
		out := slices.ContainsFunc(routes, func(r netlink.Route) bool { return r.Gw != nil })
		if same++; !out || len(routes) != seen {
			same = 0
		}
		if seen = len(routes); !out && time.Now().After(end) {
			return errors.New("it makes no interface with a route to elsewhere")
		}
	}
	n := &Network{addrs: map[int][]netlink.Addr{}}
	if err := n.open(); err != nil {
		return err
	}
	answer(conn, &userNet{Links: n.Links}, n.files)
	select {}
}
