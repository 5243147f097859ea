package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"

	"moat/cmd/moat/container"
	"moat/sentry/boot"
)

// execFlags are `moat exec`'s.
type execFlags struct {
	o           container.ExecOptions
	process     string
	cwd, user   string
	env, caps   []string
	gids        []uint
	tty, nnp    bool
	preserveFDs int
}

func execCommand() *cobra.Command {
	var x execFlags
	cmd := &cobra.Command{
		Use:   "exec [flags] ID CMD [ARGS...]",
		Short: "Run another process in a container",
		Args:  cobra.MinimumNArgs(1),
		RunE:  func(cmd *cobra.Command, args []string) error { return x.run(cmd, args[0], args[1:]) },
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.StringVarP(&x.process, "process", "p", "", "file with config.json's process, in place of CMD and the flags below")
	f.StringVar(&x.cwd, "cwd", "", "working directory")
	f.StringArrayVarP(&x.env, "env", "e", nil, "NAME=VALUE: an environment variable")
	f.StringVarP(&x.user, "user", "u", "", "UID[:GID] to run as")
	f.UintSliceVarP(&x.gids, "additional-gids", "g", nil, "more groups")
	f.BoolVarP(&x.tty, "tty", "t", false, "give the process a terminal")
	f.StringArrayVarP(&x.caps, "cap", "c", nil, "a capability more than the container's process has")
	f.BoolVar(&x.nnp, "no-new-privs", false, "set no_new_privs")
	f.BoolVarP(&x.o.Detach, "detach", "d", false, "return once the process runs")
	f.StringVar(&x.o.PIDFile, "pid-file", "", "file that gets the number of the process that stands for it on the host")
	f.StringVar(&x.o.ConsoleSocket, "console-socket", "", "socket that gets the master of the process' terminal")
	f.StringVar(&x.o.PIDFDSocket, "pidfd-socket", "", "socket that gets a pidfd of the process that stands for it on the host")
	f.IntVar(&x.preserveFDs, "preserve-fds", 0, "pass this many descriptors from 3 on to the process")
	f.BoolVar(&x.o.IgnorePaused, "ignore-paused", false, "allow exec in a paused container")
	for _, name := range []string{"process-label", "apparmor", "cgroup"} {
		f.String(name, "", "not supported: ignored with a warning")
	}
	return cmd
}

func (x *execFlags) run(cmd *cobra.Command, id string, args []string) error {
	c, err := load(id)
	if err != nil {
		return err
	}
	for _, name := range []string{"process-label", "apparmor", "cgroup"} {
		if cmd.Flags().Changed(name) {
			warn("--" + name + " is ignored")
		}
	}
	p, err := x.spec(c, args)
	if err != nil {
		return err
	}
	if x.o.ConsoleSocket != "" && (!x.o.Detach || !p.Terminal) {
		return errors.New("cannot use console socket if moat will not detach or allocate tty")
	}
	x.o.Process = boot.Process{Spec: p}
	if c.Process != nil {
		x.o.Process.Seccomp = c.Process.Seccomp
	}
	x.o.Stdio = [3]*os.File{os.Stdin, os.Stdout, os.Stderr}
	if x.o.Extra, err = container.Inherited(x.preserveFDs); err != nil {
		return err
	}
	st, err := c.Exec(&x.o)
	if err != nil {
		return fmt.Errorf("exec failed: %w", err)
	}
	if n := st.Shell(); n != 0 {
		return exitCode(n)
	}
	return nil
}

// spec is the process: --process, or the container's own with what the flags say.
func (x *execFlags) spec(c *container.Container, args []string) (*specs.Process, error) {
	if x.process != "" {
		b, err := os.ReadFile(x.process)
		if err != nil {
			return nil, fmt.Errorf("--process: %w", err)
		}
		p := &specs.Process{}
		if err := json.Unmarshal(b, p); err != nil {
			return nil, fmt.Errorf("--process %s: %w", x.process, err)
		}
		return p, container.CheckProcess(p, warn)
	}
	if len(args) == 0 {
		return nil, errors.New("process args cannot be empty")
	}
	if c.Spec == nil || c.Spec.Process == nil {
		return nil, errors.New("the container was not created")
	}
	p := *c.Spec.Process
	p.Args = args
	p.Terminal = x.tty
	p.ConsoleSize = nil
	p.NoNewPrivileges = p.NoNewPrivileges || x.nnp
	if x.cwd != "" {
		p.Cwd = x.cwd
	}
	p.Env = append(p.Env[:len(p.Env):len(p.Env)], x.env...)
	if x.user != "" {
		for i, id := range strings.SplitN(x.user, ":", 2) {
			n, err := strconv.ParseUint(id, 10, 32)
			if err != nil {
				return nil, fmt.Errorf("--user: %q is not UID[:GID]", x.user)
			}
			*[]*uint32{&p.User.UID, &p.User.GID}[i] = uint32(n)
		}
	}
	for _, g := range x.gids {
		p.User.AdditionalGids = append(p.User.AdditionalGids, uint32(g))
	}
	if len(x.caps) > 0 {
		n := specs.LinuxCapabilities{}
		if p.Capabilities != nil {
			n = *p.Capabilities
		}
		sets := []*[]string{&n.Bounding, &n.Effective, &n.Permitted}
		if len(n.Inheritable) > 0 {
			// What is not inheritable cannot be ambient.
			sets = append(sets, &n.Ambient)
		}
		for _, set := range sets {
			*set = append((*set)[:len(*set):len(*set)], x.caps...)
		}
		p.Capabilities = &n
	}
	return &p, container.CheckProcess(&p, warn)
}
