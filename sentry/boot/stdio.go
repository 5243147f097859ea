package boot

import (
	"fmt"

	"golang.org/x/sys/unix"

	"moat/sentry/fs/hostfd"
	"moat/sentry/kernel"
	"moat/sentry/kernel/auth"
	"moat/sentry/vfs"
)

// hostFiles makes files of the container from descriptors of the host.
type hostFiles struct {
	poller *hostfd.Poller
	fs     *hostfd.FS
}

func newHostFiles() (h hostFiles, err error) {
	if h.fs, err = hostfd.NewFS(); err == nil {
		h.poller, err = hostfd.NewPoller()
	}
	return h, err
}

// openAll takes over descriptors, all or none. Those that are the same open file on the host are the same File, if same is set: the host must allow to ask.
func (h *hostFiles) openAll(fds []int, same bool) ([]*hostfd.File, error) {
	files := make([]*hostfd.File, 0, len(fds))
next:
	for i, fd := range fds {
		f, err := hostfd.Open(h.poller, fd)
		if err != nil {
			closeAll(files)
			closeFDs(fds[i:])
			return nil, fmt.Errorf("standard input, output and error: %w", err)
		}
		for _, o := range files {
			if same && f.Same(o) {
				files = append(files, o)
				continue next
			}
		}
		files = append(files, f)
	}
	h.poller.Start()
	return files, nil
}

func closeAll(files []*hostfd.File) {
	for i, f := range files {
		same := false
		for _, o := range files[:i] {
			same = same || o == f
		}
		if !same {
			f.Close()
		}
	}
}

// table makes p's descriptors from its files, and with a terminal the one that it controls. It owns the files, also on error.
func (b *container) table(p *process, a *Process, creds *auth.Credentials) (*vfs.FDTable, *kernel.TTYJob, error) {
	t := vfs.NewFDTable()
	files := p.files
	p.files = nil
	fail := func(err error) (*vfs.FDTable, *kernel.TTYJob, error) {
		closeAll(files)
		t.DecRef(vfs.Background())
		return nil, nil, err
	}
	var job *kernel.TTYJob
	isTTY := func(i int) bool { return a.Terminal && (i < 2 || i == 2 && a.ErrIsTerminal) }
	if a.Terminal {
		var err error
		if p.term, err = b.openTerminal(a, creds, files[0], files[1]); err != nil {
			return fail(err)
		}
		job = p.term.console.Job()
	}
	for i, f := range files {
		var d *vfs.FileDescription
		for j := range i {
			if files[j] == f && !isTTY(j) {
				d = t.Get(int32(j))
			}
		}
		switch {
		case isTTY(i):
			d = p.term.held
			d.IncRef()
			if i == 2 && f != files[0] && f != files[1] {
				f.Close()
			}
		case d == nil:
			d = b.open(f, creds)
		}
		_, err := t.NewFD(d, int32(i), false, uint64(len(files)))
		d.DecRef()
		if err != nil {
			return fail(err)
		}
	}
	return t, job, nil
}

// open opens f, or the sandbox's own /dev/null in its place.
func (b *container) open(f *hostfd.File, creds *auth.Credentials) *vfs.FileDescription {
	if f.IsNull() {
		root := b.ns.Mount.Root()
		defer root.DecRef()
		d, err := vfs.Open(inRoot{vfs.WithCredentials(creds), root}, root, "/dev/null", vfs.OpenOptions{Flags: unix.O_RDWR})
		if err == nil {
			f.Close()
			return d
		}
	}
	return f.FileDescription(b.host.fs, creds)
}
