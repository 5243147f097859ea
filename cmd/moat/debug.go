package main

import (
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"moat/sentry/boot"
)

func debugCommand() *cobra.Command {
	var stacks, tasks bool
	var strace, profile string
	var duration time.Duration
	cmd := verb("debug [flags] ID", "Look into a running container's sentry", func(cmd *cobra.Command, id string) error {
		c, err := load(id)
		if err != nil {
			return err
		}
		if !stacks && strace == "" && profile == "" {
			tasks = true
		}
		if tasks {
			var l []boot.TaskInfo
			if err := c.Call("Tasks", id, &l); err != nil {
				return err
			}
			w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "PID\tTID\tNAME\tSTATE\tCALL")
			for _, t := range l {
				fmt.Fprintf(w, "%d\t%d\t%s\t%s\t%s\n", t.PID, t.TID, t.Name, t.State, t.Call)
			}
			w.Flush()
		}
		if stacks {
			var text string
			if err := c.Call("Stacks", &boot.None{}, &text); err != nil {
				return err
			}
			fmt.Print(text)
		}
		switch strace {
		case "":
		case "on", "off":
			if err := c.Call("Strace", strace == "on", &boot.None{}); err != nil {
				return err
			}
		default:
			return fmt.Errorf("--strace: %q is neither on nor off", strace)
		}
		if profile == "" {
			return nil
		}
		kind, file, ok := strings.Cut(profile, ":")
		if !ok || file == "" {
			return fmt.Errorf("--profile: %q is not KIND:FILE", profile)
		}
		var data []byte
		if err := c.Call("Profile", &boot.ProfileArgs{Kind: kind, Seconds: duration.Seconds()}, &data); err != nil {
			return err
		}
		return os.WriteFile(file, data, 0o644)
	})
	f := cmd.Flags()
	f.BoolVar(&tasks, "tasks", false, "print the container's tasks, and what call each is in (the default)")
	f.BoolVar(&stacks, "stacks", false, "print the stacks of the sentry's goroutines")
	f.StringVar(&strace, "strace", "", "on or off: print the container's system calls to the sandbox's log (--debug-log)")
	f.StringVar(&profile, "profile", "", "KIND:FILE: write a profile for go tool pprof: cpu, heap, goroutine, allocs, mutex, block or threadcreate")
	f.DurationVar(&duration, "duration", 5*time.Second, "how long a cpu profile takes")
	return cmd
}
