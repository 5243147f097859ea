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
	if err = setRaw(slave); err == nil {
		if err = sendFD(socket, path, int(master.Fd())); err != nil {
			err = fmt.Errorf("--console-socket %s: %w", socket, err)
		}
	}
	if err != nil {
		slave.Close()
		return nil, err
	}
	return slave, nil
}

// setRaw makes a terminal pass everything on as it is, output too (cfmakeraw(3)).
func setRaw(f *os.File) error {
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return err
	}
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, t)
}

// sendPIDFD hands a descriptor of the process pid to who listens on the socket of --pidfd-socket; "": nobody.
func sendPIDFD(socket string, pid int) error {
	if socket == "" {
		return nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err == nil {
		err = sendFD(socket, "pidfd", fd)
		unix.Close(fd)
	}
	if err != nil {
		return fmt.Errorf("--pidfd-socket %s: %w", socket, err)
	}
	return nil
}

// sendFD hands a descriptor, a terminal's master or a process', to who listens on a socket.
func sendFD(socket, name string, send int) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	if err = unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err == nil {
		err = unix.Sendmsg(fd, []byte(name), unix.UnixRights(send), nil, 0)
	}
	return err
}
