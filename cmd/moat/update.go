package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// updateFlags are limits by the names that runc gives them.
type updateFlags struct {
	resources                                          string
	cpuPeriod, cpuShare, cpuRTPeriod                   uint64
	cpuQuota, cpuRTRuntime                             int64
	cpus, mems                                         string
	memory, reservation, swap, kernelMemory, kernelTCP string
	pids                                               int64
	blkioWeight                                        uint16
	cpuBurst                                           uint64
	cpuIdle                                            int64
}

func updateCommand() *cobra.Command {
	var u updateFlags
	var cmd *cobra.Command
	cmd = verb("update [flags] ID", "Change a container's limits", func(_ *cobra.Command, id string) error {
		r, err := u.limits(cmd.Flags())
		if err != nil {
			return err
		}
		c, err := lock(id)
		if err != nil {
			return err
		}
		defer c.Unlock()
		return c.Update(r)
	})
	f := cmd.Flags()
	f.StringVarP(&u.resources, "resources", "r", "", "file with config.json's linux.resources, - for standard input, in place of the flags below")
	f.Uint16Var(&u.blkioWeight, "blkio-weight", 0, "weight of block input and output, 10 to 1000")
	f.Uint64Var(&u.cpuPeriod, "cpu-period", 0, "period of --cpu-quota in microseconds")
	f.Uint64Var(&u.cpuBurst, "cpu-burst", 0, "CPU time saved up for a burst, in microseconds")
	f.Int64Var(&u.cpuIdle, "cpu-idle", 0, "1: only what others leave of the CPU")
	f.Int64Var(&u.cpuQuota, "cpu-quota", 0, "CPU time a period in microseconds")
	f.Uint64Var(&u.cpuShare, "cpu-share", 0, "weight of CPU time")
	f.Uint64Var(&u.cpuRTPeriod, "cpu-rt-period", 0, "period of --cpu-rt-runtime in microseconds")
	f.Int64Var(&u.cpuRTRuntime, "cpu-rt-runtime", 0, "realtime CPU time a period in microseconds")
	f.StringVar(&u.cpus, "cpuset-cpus", "", "CPUs, like 0-2,7")
	f.StringVar(&u.mems, "cpuset-mems", "", "memory nodes")
	f.StringVar(&u.memory, "memory", "", "limit of memory in bytes, -1 for none")
	f.StringVar(&u.reservation, "memory-reservation", "", "soft limit of memory in bytes")
	f.StringVar(&u.swap, "memory-swap", "", "limit of memory and swap in bytes, -1 for none")
	f.StringVar(&u.kernelMemory, "kernel-memory", "", "has no effect in Linux any more")
	f.StringVar(&u.kernelTCP, "kernel-memory-tcp", "", "limit of the host kernel's TCP buffers in bytes")
	f.Int64Var(&u.pids, "pids-limit", 0, "most tasks")
	return cmd
}

// limits are what the flags that were given say.
func (u *updateFlags) limits(f *pflag.FlagSet) (*specs.LinuxResources, error) {
	r := &specs.LinuxResources{}
	if u.resources != "" {
		in := os.Stdin
		if u.resources != "-" {
			var err error
			if in, err = os.Open(u.resources); err != nil {
				return nil, fmt.Errorf("--resources: %w", err)
			}
			defer in.Close()
		}
		if err := json.NewDecoder(io.LimitReader(in, 16<<20)).Decode(r); err != nil {
			return nil, fmt.Errorf("--resources: %w", err)
		}
		return r, nil
	}
	r.CPU, r.Memory = &specs.LinuxCPU{Cpus: u.cpus, Mems: u.mems}, &specs.LinuxMemory{}
	given := false
	for name, set := range map[string]func() error{
		"cpu-period": func() error { r.CPU.Period = &u.cpuPeriod; return nil }, "cpu-quota": func() error { r.CPU.Quota = &u.cpuQuota; return nil },
		"cpu-share": func() error { r.CPU.Shares = &u.cpuShare; return nil }, "cpu-rt-period": func() error { r.CPU.RealtimePeriod = &u.cpuRTPeriod; return nil },
		"cpu-rt-runtime": func() error { r.CPU.RealtimeRuntime = &u.cpuRTRuntime; return nil },
		"cpu-burst":      func() error { r.CPU.Burst = &u.cpuBurst; return nil }, "cpu-idle": func() error { r.CPU.Idle = &u.cpuIdle; return nil },
		"cpuset-cpus": func() error { return nil }, "cpuset-mems": func() error { return nil },
		"memory": func() error { return bytesInto(&r.Memory.Limit, u.memory) }, "memory-reservation": func() error { return bytesInto(&r.Memory.Reservation, u.reservation) },
		"memory-swap": func() error { return bytesInto(&r.Memory.Swap, u.swap) }, "kernel-memory": func() error { return nil },
		"kernel-memory-tcp": func() error { return bytesInto(&r.Memory.KernelTCP, u.kernelTCP) },
		"pids-limit":        func() error { r.Pids = &specs.LinuxPids{Limit: &u.pids}; return nil },
		"blkio-weight":      func() error { r.BlockIO = &specs.LinuxBlockIO{Weight: &u.blkioWeight}; return nil },
	} {
		if !f.Changed(name) {
			continue
		}
		given = true
		if err := set(); err != nil {
			return nil, fmt.Errorf("--%s: %w", name, err)
		}
	}
	if !given {
		return nil, errors.New("nothing to update: name a limit, or --resources")
	}
	return r, nil
}

// bytesInto reads a number of bytes, with an optional K, M or G, or -1.
func bytesInto(p **int64, s string) error {
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
