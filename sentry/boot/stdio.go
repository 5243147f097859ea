package boot

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"moat/sentry/fs/hostfd"
	"moat/sentry/kernel"
	"moat/sentry/kernel/auth"
	"moat/sentry/net/inet"
	"moat/sentry/vfs"
	"moat/syscalls"
)

// stdio is the first process' standard input, output and error.
type stdio struct {
	poller *hostfd.Poller
	fs     *hostfd.FS
	files  [3]*hostfd.File // nil where a terminal takes the place
	term   *terminal
}

// openStdio takes over the host's descriptors, while the host can still be asked about them.
func (b *sandbox) openStdio() (err error) {
	s := &b.stdio
	if s.fs, err = hostfd.NewFS(); err != nil {
		return err
	}
	if s.poller, err = hostfd.NewPoller(); err != nil {
		return err
	}
	for i := range s.files {
		if b.c.Terminal && (i < 2 || b.c.ErrIsTerminal) {
			continue
		}
		f, err := hostfd.Open(s.poller, StdioFD+i)
		if err != nil {
			return fmt.Errorf("standard input, output and error: %w", err)
		}
		for _, o := range s.files[:i] {
			if o != nil && f.Same(o) {
				f = o
				break
			}
		}
		s.files[i] = f
	}
	return nil
}

// table makes the first process' descriptors, and with a terminal the one that it controls.
func (s *stdio) table(b *sandbox, creds *auth.Credentials) (*vfs.FDTable, *kernel.TTYJob, error) {
	t := vfs.NewFDTable()
	var job *kernel.TTYJob
	if b.c.Terminal {
		var err error
		if s.term, err = b.openTerminal(creds); err != nil {
			return nil, nil, err
		}
		job = s.term.console.Job()
	}
	for i, f := range s.files {
		var d *vfs.FileDescription
		for j := range i {
			if f != nil && s.files[j] == f {
				d = t.Get(int32(j))
			}
		}
		switch {
		case f == nil:
			d = s.term.held
			d.IncRef()
		case d == nil:
			d = b.open(f, creds)
		}
		_, err := t.NewFD(d, int32(i), false, 3)
		d.DecRef()
		if err != nil {
			return nil, nil, err
		}
	}
	return t, job, nil
}

// open opens f, or the sandbox's own /dev/null in its place.
func (b *sandbox) open(f *hostfd.File, creds *auth.Credentials) *vfs.FileDescription {
	if f.IsNull() {
		root := b.k.RootNamespaces().Mount.Root()
		defer root.DecRef()
		d, err := vfs.Open(inRoot{vfs.WithCredentials(creds), root}, root, "/dev/null", vfs.OpenOptions{Flags: unix.O_RDWR})
		if err == nil {
			return d
		}
	}
	return f.FileDescription(b.stdio.fs, creds)
}

// start begins to pass readiness, and a terminal's bytes, on.
func (s *stdio) start(*sandbox) {
	go s.poller.Run()
	if s.term != nil {
		s.term.run()
	}
}

// drain waits until what the container wrote has been passed on.
func (s *stdio) drain() {
	if s.term != nil {
		s.term.drain()
	}
}

func (b *sandbox) resize(w WinSize) error {
	if b.stdio.term == nil {
		return errors.New("there is no terminal")
	}
	b.stdio.term.console.Resize(w.Rows, w.Cols)
	return nil
}

func hooks() kernel.Hooks {
	return kernel.Hooks{ExitRobust: syscalls.ExitRobust, FutexWake: syscalls.FutexWake, NewGroupTimers: syscalls.NewGroupTimers,
		NewNetStack: inet.NewNamespace}
}
