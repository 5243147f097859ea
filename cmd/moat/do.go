package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"moat/cmd/moat/container"
	"moat/sentry/boot"
)

func doCommand() *cobra.Command {
	var d container.Do
	cmd := &cobra.Command{
		Use:   "do [flags] -- CMD [ARGS...]",
		Short: "Run one command in a sandbox on top of the host's files",
		Long: `Run one command in a sandbox that sees the host's files (or those of --rootfs) below a layer of memory: what it writes
stays in the sandbox and is gone afterwards, except below a --volume.

The exit code is the command's, or 128+n if signal n ended it; 127: no such command, 126: it cannot be executed, 125: moat failed.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			d.Args = args
			o, err := d.Options()
			if err != nil {
				return err
			}
			if err := global.apply(o); err != nil {
				return err
			}
			switch o.Config.Network {
			case "sandbox":
				o.Network, err = container.OwnNetwork()
			case "user":
				o.Config.Network = "sandbox"
				o.Network, err = container.UserNetwork()
			}
			if err != nil {
				return fmt.Errorf("--network %s: %w", global.network, err)
			}
			return runToEnd(o)
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.StringVar(&d.Rootfs, "rootfs", "", "directory that becomes the root (default: the host's root)")
	f.StringArrayVar(&d.Volumes, "volume", nil, "SRC:DST[:ro]: show the host's SRC at DST; what is written goes to the host")
	f.StringVar(&d.Workdir, "workdir", "", "working directory (default: the current one, or / with --rootfs)")
	f.StringArrayVar(&d.Env, "env", nil, "NAME=VALUE, or NAME to pass on: an environment variable")
	f.StringVar(&d.User, "user", "", "USER[:GROUP] to run as, names or numbers (default: root of the sandbox)")
	f.StringVar(&d.Hostname, "hostname", "", "host name (default: the host's, or moat with --rootfs)")
	return cmd
}

// runToEnd runs a container and turns its end into an exit code.
func runToEnd(o *container.Options) error {
	st, err := container.Run(o)
	if err != nil {
		return err
	}
	return ending(st)
}

// ending turns the end of a container into an exit code.
func ending(st boot.ExitStatus) error {
	if st.Lost != "" {
		return &container.Failure{Text: "the first process was killed: " + st.Lost, Code: st.Shell()}
	}
	if n := st.Shell(); n != 0 {
		return exitCode(n)
	}
	return nil
}
