package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"moat/cmd/moat/container"
)

// stateOf is a container's state with its owner's name.
func stateOf(c *container.Container) *container.OCIState {
	s := c.OCIState(c.Status())
	s.Owner = "#" + strconv.Itoa(c.UID)
	if u, err := user.LookupId(strconv.Itoa(c.UID)); err == nil {
		s.Owner = u.Username
	}
	return s
}

func stateCommand() *cobra.Command {
	return verb("state ID", "Print a container's state as JSON", func(_ *cobra.Command, id string) error {
		c, err := load(id)
		if err != nil {
			return err
		}
		b, err := json.MarshalIndent(stateOf(c), "", "  ")
		if err == nil {
			_, err = fmt.Printf("%s\n", b)
		}
		return err
	})
}

func listCommand() *cobra.Command {
	var format string
	var quiet bool
	cmd := &cobra.Command{
		Use:   "list [flags]",
		Short: "List the containers below --root",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := os.Stat(global.root); err != nil && cmd.Flags().Changed("root") {
				return fmt.Errorf("--root: %w", err)
			}
			cs, err := container.List(global.root)
			if err != nil {
				return err
			}
			var states []*container.OCIState
			for _, c := range cs {
				if quiet {
					fmt.Println(c.ID)
					continue
				}
				states = append(states, stateOf(c))
			}
			switch {
			case quiet:
				return nil
			case format == "json":
				return json.NewEncoder(os.Stdout).Encode(states)
			case format != "table":
				return fmt.Errorf("--format: %q is neither table nor json", format)
			}
			w := tabwriter.NewWriter(os.Stdout, 12, 1, 3, ' ', 0)
			fmt.Fprint(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER\n")
			for _, s := range states {
				fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", s.ID, s.Pid, s.Status, s.Bundle, s.Created.Format(time.RFC3339Nano), s.Owner)
			}
			return w.Flush()
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "table", "table or json")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "only the IDs")
	return cmd
}
