package container

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"moat/sentry/boot"
	"moat/sentry/boot/rpc"
)

// Client is a control connection to a running sentry.
type Client struct {
	*rpc.Client
	conn *clientConn
}

// maxReplies bounds what a sentry may say on the control socket: it is not trusted.
const maxReplies = 256 << 20

// clientConn is the connection; files go along with the first request.
type clientConn struct {
	*os.File
	left  int64
	files []*os.File
}

func newClient(f *os.File) *Client {
	c := &clientConn{File: f, left: maxReplies}
	return &Client{rpc.NewClient(c), c}
}

func (c *clientConn) Read(p []byte) (int, error) {
	n, err := c.File.Read(p)
	if c.left -= int64(n); c.left < 0 {
		return 0, errors.New("the sentry says too much")
	}
	return n, err
}

func (c *clientConn) Write(p []byte) (int, error) {
	if len(c.files) == 0 {
		return c.File.Write(p)
	}
	fds := make([]int, len(c.files))
	for i, f := range c.files {
		fds[i] = int(f.Fd())
	}
	c.files = nil
	n, err := unix.SendmsgN(int(c.Fd()), p, unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL)
	if err != nil || n == len(p) {
		return n, err
	}
	m, err := c.File.Write(p[n:])
	return n + m, err
}

// listenAt makes the listening socket of a container's directory.
func listenAt(dir string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), "listener")
	err = shortPath(dir, func(p string) error {
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: p}); err != nil {
			return err
		}
		return unix.Listen(fd, 64)
	})
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return f, nil
}

// shortPath calls f with a path to the directory's socket that fits into a socket address, however long the directory's name is.
func shortPath(dir string, f func(string) error) error {
	d, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(d)
	return f(fmt.Sprintf("/proc/self/fd/%d/%s", d, socketFile))
}

// Dial connects to the container's sentry; files are sent with the first request.
func (c *Container) Dial(files ...*os.File) (*Client, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	err = shortPath(c.dir, func(p string) error { return unix.Connect(fd, &unix.SockaddrUnix{Name: p}) })
	if err != nil {
		unix.Close(fd)
		if !c.Init.alive() {
			return nil, ErrNotRunning
		}
		return nil, fmt.Errorf("control socket %s: %w", filepath.Join(c.dir, socketFile), err)
	}
	cl := newClient(os.NewFile(uintptr(fd), "control"))
	cl.conn.files = files
	return cl, nil
}

// Call does one request, boot.Session.s method, on a connection of its own, or on that of who is starting the sandbox.
func (c *Container) Call(method string, args, reply any) error {
	cl := c.starter
	if cl == nil {
		var err error
		if cl, err = c.Dial(); err != nil {
			return err
		}
		defer cl.Close()
	}
	return c.known(cl.Call(method, args, reply))
}

// known is an error of a request, as ErrNotRunning if that is what it is about.
func (c *Container) known(err error) error {
	for _, gone := range [...]error{os.ErrClosed, io.EOF, io.ErrUnexpectedEOF, unix.EPIPE, unix.ECONNRESET} {
		if errors.Is(err, gone) {
			return ErrNotRunning // the sentry is ending
		}
	}
	if err != nil && (err.Error() == ErrNotRunning.Error() || !c.Init.alive()) {
		return ErrNotRunning
	}
	return err
}

// askStatus asks the sentry, which may be frozen, for a while.
func (c *Container) askStatus() (boot.Status, error) {
	var st boot.Status
	cl, err := c.Dial()
	if err != nil {
		return st, err
	}
	defer cl.Close()
	select {
	case err := <-cl.Go("Status", c.ID, &st):
		return st, c.known(err)
	case <-time.After(2 * time.Second):
		return boot.Status{}, errors.New("the sentry does not answer")
	}
}

// Processes lists the container's processes.
func (c *Container) Processes() (l []boot.ProcessInfo, err error) {
	return l, c.Call("Processes", c.ID, &l)
}

// AwaitOOM returns how many of the container's processes were killed for want of memory, once that is more than seen or the container has ended.
func (c *Container) AwaitOOM(seen uint64) (kills uint64, err error) {
	return kills, c.Call("AwaitOOM", &boot.AwaitOOMArgs{ID: c.ID, Seen: seen}, &kills)
}

// Usage tells what the guest uses.
func (c *Container) Usage() (u boot.Usage, err error) {
	return u, c.Call("Usage", c.ID, &u)
}
