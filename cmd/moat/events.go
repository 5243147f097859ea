package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"moat/cmd/moat/container"
)

// event is what is printed, a line each.
type event struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	Data any    `json:"data,omitempty"`
}

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
		out := json.NewEncoder(os.Stdout)
		print := func(kind string, data any, err error) error {
			if err != nil {
				return err
			}
			return out.Encode(&event{kind, id, data})
		}
		s, err := c.Stats()
		if err = print("stats", s, err); err != nil || stats {
			return err
		}
		killed := make(chan error)
		go func(seen uint64) {
			for n := seen; ; seen = n {
				var err error
				if n, err = c.AwaitOOM(seen); err == nil && n == seen {
					err = container.ErrNotRunning
				}
				killed <- err
			}
		}(s.OOMKills)
		for tick := time.Tick(interval); err == nil; {
			select {
			case err = <-killed:
				if errors.Is(err, container.ErrNotRunning) {
					if c.ExitStatus().OOM {
						return print("oom", nil, nil)
					}
					return nil
				}
				err = print("oom", nil, err)
			case <-tick:
				s, err = c.Stats()
				if err = print("stats", s, err); errors.Is(err, container.ErrNotRunning) {
					err = nil // whoever waits for killed processes has more to say
				}
			}
		}
		return err
	})
	cmd.Flags().BoolVar(&stats, "stats", false, "print the statistics once")
	cmd.Flags().DurationVar(&interval, "interval", 5*time.Second, "time between statistics")
	return cmd
}
