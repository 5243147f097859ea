package boot

import (
	"errors"

	"moat/sentry/kernel"
	"moat/sentry/kernel/auth"
	"moat/sentry/vfs"
)

// stdio is the first process' standard input, output and error.
type stdio struct{}

func (b *sandbox) openStdio() error { return nil }

// table makes the first process' descriptors, and with a terminal the one that it controls.
func (s *stdio) table(b *sandbox, creds *auth.Credentials) (*vfs.FDTable, *kernel.TTYJob, error) {
	return vfs.NewFDTable(), nil, nil
}

func (s *stdio) start(b *sandbox) {}

// drain waits until what the container wrote to its terminal has been passed on.
func (s *stdio) drain() {}

func (b *sandbox) resize(w WinSize) error { return errors.New("there is no terminal") }

func hooks() kernel.Hooks { return kernel.Hooks{} }
