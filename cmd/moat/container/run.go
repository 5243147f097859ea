package container

import (
	"os"
	"os/signal"
	"path/filepath"
	"slices"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"

	"moat/sentry/boot"
)

// forwarded are the signals that go to the container.
var forwarded = []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGCONT}

// Run starts a container, stays with it, and returns how its first process ended. The caller is locked to its thread, which lives as long as the process.
func Run(o *Options) (st boot.ExitStatus, err error) {
	sigs := make(chan os.Signal, 16)
	signal.Notify(sigs, append(forwarded, unix.SIGWINCH, unix.SIGTSTP)...)
	// A reader of our output that went away is the container's affair.
	signal.Ignore(unix.SIGPIPE)
	term, err := openTerminal(o)
	if err != nil {
		return st, err
	}
	defer term.restore()
	defer func() { o.Network.Close() }()
	s, err := Start(o)
	if err != nil {
		return st, err
	}
	defer s.Close()
	done := make(chan struct{})
	go func() {
		st, err = s.Wait()
		close(done)
	}()
	s.attend(o, sigs, term, done)
	return st, err
}

// attend passes signals on until done is closed.
func (s *Sandbox) attend(o *Options, sigs <-chan os.Signal, term *terminal, done <-chan struct{}) {
	trimForGood()
	for {
		select {
		case sig := <-sigs:
			s.forward(sig.(unix.Signal), o, term)
		case <-done:
			return
		}
	}
}

// RunContainer is create, start, wait and, unless keep is set, delete. With detach it returns once the container runs. The result is how the first
// process ended.
func RunContainer(o *Options, co *CreateOptions, detach, keep bool) (st boot.ExitStatus, err error) {
	sigs := make(chan os.Signal, 16)
	term := &terminal{}
	if !detach {
		signal.Notify(sigs, append(forwarded, unix.SIGWINCH, unix.SIGTSTP)...)
		signal.Ignore(unix.SIGPIPE)
	}
	if o.Config.First.Terminal = o.Config.First.Spec.Terminal; co.ConsoleSocket == "" && !detach {
		if term, err = openTerminal(o); err != nil {
			return st, err
		}
		defer term.restore()
	}
	co.start = true
	c, s, err := Create(o, co)
	if err != nil {
		return st, err
	}
	defer c.Unlock()
	if detach {
		return st, nil
	}
	c.Unlock()
	s.attend(o, sigs, term, s.sentry.done)
	if st, err = s.ended(c); keep {
		return st, err
	}
	if e := c.acquire(); e != nil {
		return st, err // somebody deleted it
	}
	if e := c.destroy(); e != nil {
		o.warn("%v", e)
	}
	return st, err
}

// ended is how a sandbox that lives by itself ended: as its sentry said, if it could.
func (s *Sandbox) ended(c *Container) (boot.ExitStatus, error) {
	s.gofer.ended(longest)
	if fi, err := os.Stat(filepath.Join(c.dir, exitFile)); err == nil && fi.Size() == 0 {
		return boot.ExitStatus{}, s.failure()
	}
	return c.ExitStatus(), nil
}

// forward passes a signal to the container. What a key sent goes to the foreground group, as the terminal would have it.
func (s *Sandbox) forward(sig unix.Signal, o *Options, term *terminal) {
	keys := term.fd == nil && slices.ContainsFunc(o.Stdio[:], isTerminal)
	switch sig {
	case unix.SIGWINCH:
		if r, c, ok := term.size(); ok {
			go s.Resize(r, c)
		}
	case unix.SIGTSTP:
		// ^Z at a terminal that the container uses directly: stop it, then ourselves.
		if s.Signal(int(unix.SIGTSTP), keys) == nil {
			unix.Kill(os.Getpid(), unix.SIGSTOP)
		}
	case unix.SIGCONT:
		go s.Signal(int(sig), true)
	default:
		go s.Signal(int(sig), keys && (sig == unix.SIGINT || sig == unix.SIGQUIT))
	}
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// terminal is the caller's, in raw mode while the container has a pseudoterminal of its own.
type terminal struct {
	fd console.Console // nil: there is none, or the container uses it directly
}

// openTerminal decides whether the container gets a pseudoterminal: `moat do` if its input and output are one, a bundle if it says so.
func openTerminal(o *Options) (*terminal, error) {
	c, plain := &o.Config.First, o.Config.Plain
	both := isTerminal(o.Stdio[0]) && isTerminal(o.Stdio[1])
	c.Terminal = both && plain || c.Spec.Terminal
	t := &terminal{}
	if !c.Terminal {
		return t, nil
	}
	c.ErrIsTerminal = isTerminal(o.Stdio[2]) || !plain
	c.Rows, c.Cols = 24, 80
	if b := c.Spec.ConsoleSize; b != nil {
		c.Rows, c.Cols = uint16(b.Height), uint16(b.Width)
	}
	if !both {
		c.PlainOutput = true
		return t, nil
	}
	var err error
	if t.fd, err = console.ConsoleFromFile(o.Stdio[0]); err != nil {
		return nil, err
	}
	if r, cols, ok := t.size(); ok {
		c.Rows, c.Cols = r, cols
	}
	if err := t.fd.SetRaw(); err != nil {
		return nil, err
	}
	// What the sandbox's terminal sends has been processed; again, a line feed alone would be more than that.
	if m, err := unix.IoctlGetTermios(int(t.fd.Fd()), unix.TCGETS); err == nil {
		m.Oflag &^= unix.OPOST
		if err = unix.IoctlSetTermios(int(t.fd.Fd()), unix.TCSETS, m); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (t *terminal) size() (rows, cols uint16, ok bool) {
	if t.fd == nil {
		return 0, 0, false
	}
	s, err := t.fd.Size()
	return s.Height, s.Width, err == nil
}

func (t *terminal) restore() {
	if t.fd != nil {
		t.fd.Reset()
	}
}
