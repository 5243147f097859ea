package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"moat/cmd/moat/container"
)

func eventsCommand() *cobra.Command {
	var stats bool
	var interval time.Duration
	cmd := verb("events [flags] ID", "Print a container's statistics, and when it runs out of memory, as JSON", func(_ *cobra.Command, id string) error {
		if interval <= 0 {
			return fmt.Errorf("--interval: %v is not a time to wait", interval)
		}
		c, err := load(id)
		if err != nil {
			return err
		}
		type event struct {
			Type string `json:"type"`
			ID   string `json:"id"`
			Data any    `json:"data,omitempty"`
		}
		out := json.NewEncoder(os.Stdout)
		ooms := uint64(0)
		for first := true; ; first = false {
			s, err := c.Stats()
			if err != nil {
				if !first && c.Status() == container.Stopped {
					return nil
				}
				return err
			}
			if err := out.Encode(&event{"stats", id, s}); err != nil || stats {
				return err
			}
			if s.OOMKills > ooms && !first {
				if err := out.Encode(&event{Type: "oom", ID: id}); err != nil {
					return err
				}
			}
			ooms = s.OOMKills
			time.Sleep(interval)
		}
	})
	cmd.Flags().BoolVar(&stats, "stats", false, "print the statistics once")
	cmd.Flags().DurationVar(&interval, "interval", 5*time.Second, "time between statistics")
	return cmd
}
