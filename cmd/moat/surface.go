package main

import (
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"gvisor.dev/gvisor/pkg/seccomp"

	"moat/fsgofer"
	"moat/sentry/boot"
	"moat/sentry/boot/filter"
)

func surfaceCommand() *cobra.Command {
	platform := boot.DefaultPlatform
	cmd := &cobra.Command{
		Use:   "surface",
		Short: "Print the host calls that the sandbox's processes may make, and why",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			rules := filter.Rules(platform)
			fmt.Printf("sentry (%s): %d host calls\n", platform, len(rules))
			w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
			for _, r := range rules {
				printRule(w, r.Name, r.Args, r.Why)
			}
			w.Flush()
			fmt.Printf("\ngofer: %d host calls, %d where every mount is read-only\n", len(fsgofer.Rules(true)), len(fsgofer.Rules(false)))
			for _, r := range fsgofer.Rules(true) {
				printRule(w, r.Name, r.Args, r.Why)
			}
			return w.Flush()
		},
	}
	cmd.Flags().StringVar(&platform, "platform", platform, "the sentry's platform: "+strings.Join(boot.Platforms(), ", "))
	return cmd
}

func printRule(w *tabwriter.Writer, name string, a seccomp.SyscallRule, why string) {
	s := ""
	if _, any := a.(seccomp.MatchAll); !any {
		s = "[arguments held]"
	}
	fmt.Fprintf(w, "  %s\t%s\t%s\n", name, s, why)
}
