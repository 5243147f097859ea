package main

import (
	"errors"

	"github.com/spf13/cobra"

	"moat/cmd/moat/container"
)

func createCommand() *cobra.Command {
	var b bundleFlags
	var cmd *cobra.Command
	cmd = verb("create [flags] ID", "Make a container from an OCI bundle; its process does not run yet", func(_ *cobra.Command, id string) error {
		o, err := b.options(cmd, id)
		if err != nil {
			return err
		}
		if t := o.Config.First.Spec.Terminal; t && b.create.ConsoleSocket == "" {
			return errors.New("cannot allocate tty if moat will detach without setting console socket")
		} else if !t && b.create.ConsoleSocket != "" {
			return errors.New("cannot use console socket if moat will not allocate tty")
		}
		c, _, err := container.Create(o, &b.create)
		if err == nil {
			c.Unlock()
		}
		return err
	})
	b.add(cmd)
	return cmd
}

func startCommand() *cobra.Command {
	return verb("start ID", "Run the process of a container that was created", func(_ *cobra.Command, id string) error {
		return locked(id, (*container.Container).Start)
	})
}

func deleteCommand() *cobra.Command {
	var force bool
	cmd := verb("delete [flags] ID", "Remove a container that has stopped", func(_ *cobra.Command, id string) error {
		err := locked(id, func(c *container.Container) error { return c.Delete(force) })
		var w *container.Warning
		switch {
		case errors.As(err, &w):
			warn(w.Text)
			return nil
		case force && errors.Is(err, container.ErrNotExist):
			return nil
		}
		return err
	})
	cmd.Flags().BoolVarP(&force, "force", "f", false, "kill the container if it still runs")
	return cmd
}

func pauseCommand() *cobra.Command {
	return verb("pause ID", "Stop all processes of a container for a while", func(_ *cobra.Command, id string) error {
		return locked(id, (*container.Container).Pause)
	})
}

func resumeCommand() *cobra.Command {
	return verb("resume ID", "Let a paused container go on", func(_ *cobra.Command, id string) error {
		return locked(id, (*container.Container).Resume)
	})
}
