package boot

import (
	"fmt"

	"golang.org/x/sys/unix"

	"moat/sentry/fs/devpts"
	"moat/sentry/kernel/auth"
	"moat/sentry/vfs"
)

// terminal connects a pseudoterminal of the sandbox with the host's standard input and output.
type terminal struct {
	console *devpts.Console
	// held keeps the slave open, so that output is kept when the container closes it; drain gives it up.
	held *vfs.FileDescription
	done chan struct{} // closed when all output was passed on
}

// openTerminal makes the pseudoterminal on the container's /dev/pts and returns it open.
func (b *sandbox) openTerminal(creds *auth.Credentials) (*terminal, error) {
	root := b.k.RootNamespaces().Mount.Root()
	defer root.DecRef()
	ctx := inRoot{vfs.WithCredentials(creds), root}
	p, err := vfs.Resolve(ctx, root, "/dev/pts", vfs.Follow)
	if err != nil {
		return nil, fmt.Errorf("a terminal needs devpts on /dev/pts: %w", err)
	}
	defer p.DecRef()
	fs, ok := p.Mount.FS().(*devpts.FS)
	if !ok {
		return nil, fmt.Errorf("a terminal needs devpts on /dev/pts; there is %s", p.Mount.FS().Type())
	}
	t := &terminal{done: make(chan struct{})}
	if t.console, err = fs.NewConsole(creds, b.c.Rows, b.c.Cols); err != nil {
		return nil, fmt.Errorf("make a terminal: %w", err)
	}
	if t.held, err = vfs.Open(ctx, root, "/dev/"+t.console.Name(), vfs.OpenOptions{Flags: unix.O_RDWR | unix.O_NOCTTY}); err != nil {
		return nil, fmt.Errorf("open the terminal: %w", err)
	}
	return t, nil
}

// run passes bytes on in both directions.
func (t *terminal) run() {
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := unix.Read(StdioFD, buf)
			switch {
			case err == unix.EINTR:
			case err == unix.EAGAIN:
				waitHost(StdioFD, unix.POLLIN)
			case err != nil || n == 0 || !t.console.Type(buf[:n]):
				return
			}
		}
	}()
	go func() {
		defer close(t.done)
		buf := make([]byte, 8192)
		for {
			n := t.console.Printed(buf)
			if n == 0 || !writeHost(StdioFD+1, buf[:n]) {
				return
			}
		}
	}()
}

func waitHost(fd int, events int16) {
	unix.Ppoll([]unix.PollFd{{Fd: int32(fd), Events: events}}, nil, nil)
}

func writeHost(fd int, b []byte) bool {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			waitHost(fd, unix.POLLOUT)
		case err != nil:
			return false
		default:
			b = b[n:]
		}
	}
	return true
}

// drain returns when what was printed has been passed on.
func (t *terminal) drain() {
	t.held.DecRef()
	<-t.done
}
