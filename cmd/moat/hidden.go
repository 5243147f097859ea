package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"moat/cmd/moat/container"
)

// bootCommand is the sentry's process. Its standard error is read by the process that started it.
func bootCommand() *cobra.Command {
	return hidden("boot", container.Boot)
}

// goferCommand is the gofer's process.
func goferCommand() *cobra.Command {
	return hidden("gofer", container.Gofer)
}

// keeperCommand stands on the host for a process that `moat exec --detach` started.
func keeperCommand() *cobra.Command {
	return &cobra.Command{Use: "keeper", Hidden: true, Args: cobra.NoArgs, Run: func(*cobra.Command, []string) { os.Exit(container.Keeper()) }}
}

// userCommand is the helper of --network user.
func userCommand() *cobra.Command {
	return &cobra.Command{Use: container.UserVerb, Hidden: true, Args: cobra.MaximumNArgs(1), RunE: func(_ *cobra.Command, args []string) error {
		return container.UserHelper(len(args) > 0)
	}}
}

func hidden(name string, run func() error) *cobra.Command {
	return &cobra.Command{
		Use:    name,
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if os.Getpid() != 1 {
				return errors.New(name + " is started by moat itself, not by hand")
			}
			if err := run(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
			return nil
		},
	}
}
