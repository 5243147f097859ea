package boot

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"

	"moat/sentry/fs/pipe"
	"moat/sentry/fs/tmpfs"
	"moat/sentry/kernel"
	"moat/sentry/kernel/auth"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

// runHook runs a hook in the container: as root, under the container's seccomp filter, with the state on its standard input, its output told if it fails.
func (b *container) runHook(h *specs.Hook, state string) error {
	creds := auth.NewRoot(b.k.RootUserNamespace())
	args := h.Args
	if len(args) == 0 {
		args = []string{h.Path}
	}
	root := b.ns.Mount.Root()
	defer root.DecRef()
	ctx := inRoot{vfs.WithCredentials(creds), root}
	r, w := pipe.New(ctx, unix.O_NONBLOCK)
	defer r.DecRef()
	r.SetStatusFlags(ctx, 0)
	n, err := w.Write(ctx, usermem.Bytes([]byte(state)), 0)
	w.DecRef()
	if err != nil || n < int64(len(state)) {
		return fmt.Errorf("its state of %d bytes does not fit into a pipe", len(state))
	}
	shm, err := tmpfs.NewShm(b.mem)
	if err != nil {
		return err
	}
	out, err := shm.NewFile(ctx, "/hook", 0, 0o600, false)
	if err != nil {
		return err
	}
	defer out.DecRef()
	t := vfs.NewFDTable()
	for i, d := range []*vfs.FileDescription{r, out, out} {
		if _, err := t.NewFD(d, int32(i), false, 3); err != nil {
			t.DecRef(ctx)
			return err
		}
	}
	if h.Env == nil {
		// Historically, that of the container's process.
		with := *h
		if p, err := b.processArgs(&b.c.First); err == nil {
			with.Env = p.Envv
		}
		h = &with
	}
	tg, err := b.k.CreateProcess(&kernel.ProcessArgs{Filename: h.Path, Argv: args, Envv: h.Env, Cwd: "/", Umask: 0o22, Credentials: creds, FDTable: t,
		Limits: kernel.DefaultLimits(), NS: b.ns, Cgroup: b.cg, Seccomp: b.c.First.Seccomp})
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
		_ = tg.Deliver(linux.SIGKILL, false)
		<-tg.Done()
		return errors.New("it took longer than its timeout")
	}
	if st := exitStatus(tg.ExitStatus()); st != (ExitStatus{}) {
		said := make([]byte, 1024)
		n, _ := out.PRead(ctx, usermem.Bytes(said), 0, 0)
		how := fmt.Sprint("exit status ", st.Code)
		if st.Signal != 0 {
			how = unix.Signal(st.Signal).String()
		}
		return fmt.Errorf("%s: %s: %s", h.Path, how, strings.TrimSpace(string(said[:max(n, 0)])))
	}
	return nil
}
