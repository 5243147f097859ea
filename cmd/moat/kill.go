package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func killCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "kill [flags] ID [SIGNAL]",
		Short: "Send a signal, SIGTERM if none is named, to a container's first process",
		Args:  cobra.RangeArgs(1, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			sig, err := parseSignal(append(args, "TERM")[1])
			if err != nil {
				return err
			}
			c, err := load(args[0])
			if err != nil {
				return err
			}
			return c.Kill(sig, all)
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "send it to all of the container's processes")
	return cmd
}

// parseSignal understands 9, KILL and SIGKILL, and the realtime signals as RTMIN+n and RTMAX-n.
func parseSignal(s string) (unix.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil && n >= 0 && n <= 64 {
		return unix.Signal(n), nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if n := unix.SignalNum(name); n != 0 {
		return n, nil
	}
	const rtMin, rtMax = 34, 64 // as the C library counts
	for prefix, base := range map[string]int{"SIGRTMIN": rtMin, "SIGRTMAX": rtMax} {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			n, err := strconv.Atoi(strings.TrimPrefix(rest, "+"))
			if rest == "" || err == nil && base+n >= rtMin && base+n <= rtMax {
				return unix.Signal(base + n), nil
			}
		}
	}
	return 0, fmt.Errorf("unknown signal %q", s)
}
