package main

import (
	"github.com/spf13/cobra"

	"moat/cmd/moat/container"
)

func runCommand() *cobra.Command {
	var c common
	bundle := "."
	cmd := &cobra.Command{
		Use:   "run [flags] ID",
		Short: "Run a container from an OCI bundle",
		Long:  `Run the container that DIR/config.json describes, with its files below DIR, and wait for its end.`,
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			o, err := container.LoadBundle(bundle, args[0])
			if err != nil {
				return err
			}
			if err := c.apply(o); err != nil {
				return err
			}
			return runToEnd(o)
		},
	}
	c.add(cmd)
	cmd.Flags().StringVarP(&bundle, "bundle", "b", ".", "directory with config.json")
	return cmd
}
