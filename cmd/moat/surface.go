package main

import (
	"cmp"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/seccomp"

	"moat/cmd/moat/container"
	"moat/fsgofer"
	"moat/platform/stub"
	"moat/sentry/boot"
	"moat/sentry/boot/filter"
)

func surfaceCommand() *cobra.Command {
	platform := boot.DefaultPlatform
	network := ""
	cmd := &cobra.Command{
		Use:   "surface",
		Short: "Print the host calls that the sandbox's processes may make, and why",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			rules := filter.Rules(platform, network)
			wide := ""
			if network == "host" {
				wide = "; with --network host, which is wider: its sockets are the host kernel's"
			}
			fmt.Printf("sentry (%s): %d host calls%s\n", platform, len(rules), wide)
			w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
			for _, r := range rules {
				printRule(w, r.Name, held(r.Args), r.Why)
			}
			w.Flush()
			slow := container.SlowClock()
			served := fsgofer.Rules(true, slow)
			fmt.Printf("\ngofer: %d host calls, %d where every mount is read-only\n", len(served), len(fsgofer.Rules(false, slow)))
			for _, r := range served {
				printRule(w, r.Name, held(r.Args), r.Why)
			}
			w.Flush()
			fmt.Println("\ngofer: calls that its filter answers itself")
			for _, a := range fsgofer.Answers() {
				printRule(w, a.Name, held(a.Args), fmt.Sprintf("%s: %s", cmp.Or(unix.ErrnoName(a.Errno), "success"), a.Why))
			}
			w.Flush()
			printStub(w, "stub's helper thread", stub.HelperRules(0))
			printStub(w, "guest threads ("+platform+")", boot.GuestRules(platform))
			return nil
		},
	}
	cmd.Flags().StringVar(&network, "network", "loopback", "the sandbox's network: none, loopback, sandbox or host")
	cmd.Flags().StringVar(&platform, "platform", platform, "the sentry's platform: "+strings.Join(boot.Platforms(), ", "))
	return cmd
}

func held(a seccomp.SyscallRule) bool { _, any := a.(seccomp.MatchAll); return !any }

func printRule(w *tabwriter.Writer, name string, held bool, why string) {
	s := ""
	if held {
		s = "[arguments held]"
	}
	fmt.Fprintf(w, "  %s\t%s\t%s\n", name, s, why)
}

func printStub(w *tabwriter.Writer, who string, rules []stub.Rule) {
	names := make(map[string]bool)
	for _, r := range rules {
		names[r.Name] = true
	}
	fmt.Printf("\n%s: %d host calls\n", who, len(names))
	for _, r := range rules {
		printRule(w, r.Name, r.Args != nil, r.Why)
	}
	w.Flush()
}
