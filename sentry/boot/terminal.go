package boot

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"moat/sentry/fs/devpts"
	"moat/sentry/fs/hostfd"
	"moat/sentry/kernel/auth"
	"moat/sentry/vfs"
)

// terminal connects a pseudoterminal of the sandbox with the host's standard input and output.
type terminal struct {
	console *devpts.Console
	in, out *hostfd.File
	// held keeps the slave open, so that output is kept when the container closes it; drain gives it up.
	held *vfs.FileDescription
	done chan struct{} // closed when all output was passed on
	stop chan struct{} // closed to stop passing
}

// openTerminal makes the pseudoterminal on the container's /dev/pts and returns it open.
func (b *container) openTerminal(a *Process, creds *auth.Credentials, in, out *hostfd.File) (*terminal, error) {
	root := b.ns.Mount.Root()
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
	t := &terminal{in: in, out: out, done: make(chan struct{}), stop: make(chan struct{})}
	if t.console, err = fs.NewConsole(creds, a.Rows, a.Cols, a.PlainOutput); err != nil {
		return nil, fmt.Errorf("make a terminal: %w", err)
	}
	if t.held, err = vfs.Open(ctx, root, "/dev/"+t.console.Name(), vfs.OpenOptions{Flags: unix.O_RDWR | unix.O_NOCTTY}); err != nil {
		t.console.Close()
		return nil, fmt.Errorf("open the terminal: %w", err)
	}
	if a == &b.c.First && !b.c.Plain {
		if err := b.bindConsole(inRoot{vfs.Background(), root}, root, t.console.Name()); err != nil {
			t.held.DecRef()
			t.console.Close()
			return nil, fmt.Errorf("/dev/console: %w", err)
		}
	}
	return t, nil
}

// run passes bytes on in both directions. The host's terminal going away hangs the sandbox's up; the end of other input does not, as with runc.
func (t *terminal) run() {
	_, _, err := t.in.WindowSize()
	hangup := err == nil
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := t.in.ReadHost(buf, t.stop)
			switch {
			case err == unix.ECANCELED:
				return
			case err != nil || n == 0:
				if hangup {
					t.console.Close()
				}
				return
			case !t.console.Type(buf[:n]):
				return
			}
		}
	}()
	go func() {
		defer close(t.done)
		buf := make([]byte, 8192)
		for {
			n := t.console.Printed(buf)
			if n == 0 || t.out.WriteHost(buf[:n], t.stop) != nil {
				return
			}
		}
	}()
}

// follow gives the sandbox's terminal the size of the host's.
func (t *terminal) follow() {
	if t == nil {
		return
	}
	if rows, cols, err := t.in.WindowSize(); err == nil {
		t.console.Resize(rows, cols)
	}
}

// patience is how long output that nobody takes is kept once the process is gone.
const patience = 2 * time.Second

// drain returns when what was printed has been passed on, and closes the terminal and the host's files.
func (t *terminal) drain() {
	t.held.DecRef()
	select {
	case <-t.done:
	case <-time.After(patience):
	}
	t.discard()
}

// discard closes a terminal whose output does not matter.
func (t *terminal) discard() {
	close(t.stop)
	t.console.Close()
	t.in.Close()
	if t.out != t.in {
		t.out.Close()
	}
}
