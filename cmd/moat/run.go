package main

import (
	"errors"

	"github.com/spf13/cobra"

	"moat/cmd/moat/container"
)

func runCommand() *cobra.Command {
	var b bundleFlags
	var detach, keep bool
	cmd := &cobra.Command{
		Use:   "run [flags] ID",
		Short: "Run a container from an OCI bundle",
		Long:  `Run the container that DIR/config.json describes, with its files below DIR, wait for its end and remove it.`,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := b.options(cmd, args[0])
			if err != nil {
				return err
			}
			switch t := o.Config.First.Spec.Terminal; {
			case detach && t && b.create.ConsoleSocket == "":
				return errors.New("cannot allocate tty if moat will detach without setting console socket")
			case (!detach || !t) && b.create.ConsoleSocket != "":
				return errors.New("cannot use console socket if moat will not detach or allocate tty")
			}
			st, err := container.RunContainer(o, &b.create, detach, keep)
			if err != nil {
				return err
			}
			return ending(st)
		},
	}
	b.add(cmd)
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "return once the container runs")
	cmd.Flags().BoolVar(&keep, "keep", false, "do not remove the container when it has ended")
	return cmd
}
