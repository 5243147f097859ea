package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"

	"moat/cmd/moat/container"
)

func updateCommand() *cobra.Command {
	resources, given := "", false
	r := &specs.LinuxResources{CPU: &specs.LinuxCPU{}, Memory: &specs.LinuxMemory{}}
	cmd := verb("update [flags] ID", "Change a container's limits", func(_ *cobra.Command, id string) (err error) {
		switch {
		case resources != "":
			r, err = readResources(resources)
		case !given:
			err = errors.New("nothing to update: name a limit, or --resources")
		}
		if err != nil {
			return err
		}
		return locked(id, func(c *container.Container) error { return c.Update(r) })
	})
	f := cmd.Flags()
	f.StringVarP(&resources, "resources", "r", "", "file with config.json's linux.resources, - for standard input, in place of the flags below")
	for _, l := range []struct {
		name, usage string
		set         func(string) error
	}{
		// The names are runc's.
		{"blkio-weight", "`weight` of block input and output, 10 to 1000", func(s string) error { r.BlockIO = &specs.LinuxBlockIO{}; return number(&r.BlockIO.Weight)(s) }},
		{"cpu-period", "period of --cpu-quota in `microseconds`", number(&r.CPU.Period)},
		{"cpu-burst", "CPU time saved up for a burst, in `microseconds`", number(&r.CPU.Burst)},
		{"cpu-idle", "`1`: only what others leave of the CPU", number(&r.CPU.Idle)},
		{"cpu-quota", "CPU time a period in `microseconds`", number(&r.CPU.Quota)},
		{"cpu-share", "`weight` of CPU time", number(&r.CPU.Shares)},
		{"cpu-rt-period", "period of --cpu-rt-runtime in `microseconds`", number(&r.CPU.RealtimePeriod)},
		{"cpu-rt-runtime", "realtime CPU time a period in `microseconds`", number(&r.CPU.RealtimeRuntime)},
		{"cpuset-cpus", "CPUs, a `list` like 0-2,7", func(s string) error { r.CPU.Cpus = s; return nil }},
		{"cpuset-mems", "memory nodes, a `list`", func(s string) error { r.CPU.Mems = s; return nil }},
		{"memory", "limit of memory in `bytes`, -1 for none", bytesInto(&r.Memory.Limit)},
		{"memory-reservation", "soft limit of memory in `bytes`", bytesInto(&r.Memory.Reservation)},
		{"memory-swap", "limit of memory and swap in `bytes`, -1 for none", bytesInto(&r.Memory.Swap)},
		{"kernel-memory", "has no effect in Linux any more (`bytes`)", func(string) error { return nil }},
		{"kernel-memory-tcp", "limit of the host kernel's TCP buffers in `bytes`", bytesInto(&r.Memory.KernelTCP)},
		{"pids-limit", "most `tasks`", func(s string) error { r.Pids = &specs.LinuxPids{}; return number(&r.Pids.Limit)(s) }},
	} {
		f.Func(l.name, l.usage, func(s string) error { given = true; return l.set(s) })
	}
	return cmd
}

// readResources reads config.json's linux.resources from a file, or - for standard input.
func readResources(file string) (*specs.LinuxResources, error) {
	in := os.Stdin
	if file != "-" {
		var err error
		if in, err = os.Open(file); err != nil {
			return nil, fmt.Errorf("--resources: %w", err)
		}
		defer in.Close()
	}
	r := &specs.LinuxResources{}
	if err := json.NewDecoder(io.LimitReader(in, 16<<20)).Decode(r); err != nil {
		return nil, fmt.Errorf("--resources: %w", err)
	}
	return r, nil
}

// number reads a number.
func number[T any](p **T) func(string) error {
	return func(s string) error {
		if json.Unmarshal([]byte(s), p) != nil || *p == nil { // null is none
			return fmt.Errorf("%q is not a number that can be there", s)
		}
		return nil
	}
}

// bytesInto reads a number of bytes, with an optional K, M or G, or -1.
func bytesInto(p **int64) func(string) error {
	return func(s string) error {
		n := int64(-1)
		if s != "-1" {
			v, err := sizeOf(s)
			if err != nil {
				return err
			}
			n = int64(v)
		}
		*p = &n
		return nil
	}
}
