package boot

import (
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"

	"moat/sentry/fs/pipe"
	"moat/sentry/kernel"
	"moat/sentry/kernel/auth"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

// runHook runs a hook in the container: as root, with the state on its standard input, its output nowhere.
func (b *sandbox) runHook(h *specs.Hook, state string) error {
	creds := auth.NewRoot(b.k.RootUserNamespace())
	args := h.Args
	if len(args) == 0 {
		args = []string{h.Path}
	}
	root := b.k.RootNamespaces().Mount.Root()
	defer root.DecRef()
	ctx := inRoot{vfs.WithCredentials(creds), root}
	null, err := vfs.Open(ctx, root, "/dev/null", vfs.OpenOptions{Flags: unix.O_RDWR})
	if err != nil {
		return fmt.Errorf("/dev/null: %w", err)
	}
	defer null.DecRef()
	r, w := pipe.New(ctx, unix.O_NONBLOCK)
	defer r.DecRef()
	r.SetStatusFlags(ctx, 0)
	n, err := w.Write(ctx, usermem.Bytes([]byte(state)), 0)
	w.DecRef()
	if err != nil || n < int64(len(state)) {
		return fmt.Errorf("its state of %d bytes does not fit into a pipe", len(state))
	}
	t := vfs.NewFDTable()
	for i, d := range []*vfs.FileDescription{r, null, null} {
		if _, err := t.NewFD(d, int32(i), false, 3); err != nil {
			t.DecRef(ctx)
			return err
		}
	}
	tg, err := b.k.CreateProcess(&kernel.ProcessArgs{Filename: h.Path, Argv: args, Envv: h.Env, Cwd: "/", Umask: 0o22, Credentials: creds, FDTable: t,
		Limits: kernel.DefaultLimits()})
	if err != nil {
		return fmt.Errorf("%s: %w", h.Path, err)
	}
	var late <-chan time.Time
	if h.Timeout != nil {
		late = time.After(time.Duration(*h.Timeout) * time.Second)
	}
	select {
	case <-tg.Done():
	case <-late:
		b.k.SendSignal(tg.PIDIn(b.k.RootPIDNamespace()), linux.SIGKILL, false)
		<-tg.Done()
		return errors.New("it took longer than its timeout")
	}
	if st := exitStatus(tg.ExitStatus()); st != (ExitStatus{}) {
		return fmt.Errorf("%s ended with status %d", h.Path, st.Shell())
	}
	return nil
}
