package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/user"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"moat/cmd/moat/container"
)

func psCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "ps [flags] ID",
		Short: "List a container's processes",
		Long: `List a container's processes: as a table with the container's own numbers, or as JSON: the numbers of the processes on the host
that hold the memory and run the code of the container's.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := load(args[0])
			if err != nil {
				return err
			}
			if len(args) > 1 {
				warn("ps: options of ps(1) have no effect: moat prints the container's own table")
			}
			if c.Status() == container.Stopped {
				return nil
			}
			if format == "json" {
				m, err := c.HostPIDs()
				if err != nil {
					return err
				}
				pids := slices.AppendSeq([]int{}, maps.Values(m))
				slices.Sort(pids)
				return json.NewEncoder(os.Stdout).Encode(slices.Compact(pids))
			}
			if format != "table" {
				return fmt.Errorf("--format: %q is neither table nor json", format)
			}
			l, err := c.Processes()
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(os.Stdout, 0, 8, 1, ' ', 0)
			fmt.Fprintln(w, "UID\tPID\tPPID\tC\tSTIME\tTTY\tTIME\tCMD")
			for _, p := range l {
				tty, command := cmp.Or(p.TTY, "?"), cmp.Or(strings.Join(p.Args, " "), "["+p.Name+"]")
				cpu, start := time.Duration(p.CPU), time.Unix(p.Start, 0)
				share := min(int(100*cpu/max(time.Since(start), 1)), 99)
				owner := fmt.Sprint(p.UID)
				if u, err := user.LookupId(owner); err == nil {
					owner = u.Username
				}
				fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s\t%s\t%02d:%02d:%02d\t%s\n", owner, p.PID, p.PPID, share, start.Format("15:04"), tty,
					int(cpu.Hours()), int(cpu.Minutes())%60, int(cpu.Seconds())%60, command)
			}
			return w.Flush()
		},
	}
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().StringVarP(&format, "format", "f", "table", "table or json")
	return cmd
}
