package container

import (
	"fmt"
	"os"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"

	"moat/sentry/boot"
)

// openConsole makes a terminal of the host for p, sends its master to the console socket and returns its slave, which is raw: the terminal that
// programs see is the sandbox's.
func openConsole(p *boot.Process, socket string) (*os.File, error) {
	master, path, err := console.NewPty()
	if err != nil {
		return nil, fmt.Errorf("make a terminal: %w", err)
	}
	defer master.Close()
	p.Rows, p.Cols = 24, 80
	if b := p.Spec.ConsoleSize; b != nil && b.Height > 0 && b.Width > 0 {
		p.Rows, p.Cols = uint16(b.Height), uint16(b.Width)
		if err := master.Resize(console.WinSize{Height: p.Rows, Width: p.Cols}); err != nil {
			return nil, err
		}
	}
	p.ErrIsTerminal = true
	slave, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("open the terminal: %w", err)
	}
	c, err := console.ConsoleFromFile(slave)
	if err == nil {
		err = c.SetRaw()
	}
	if err == nil {
		err = sendMaster(socket, path, master)
	}
	if err != nil {
		slave.Close()
		return nil, err
	}
	return slave, nil
}

// sendMaster hands a terminal's master to who listens on a console socket.
func sendMaster(socket, name string, master console.Console) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	if err = unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err == nil {
		err = unix.Sendmsg(fd, []byte(name), unix.UnixRights(int(master.Fd())), nil, 0)
	}
	if err != nil {
		return fmt.Errorf("--console-socket %s: %w", socket, err)
	}
	return nil
}
