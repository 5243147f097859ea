package main

import (
	"context"

	"github.com/containerd/cgroups/v3"
	v1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	v2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	task "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/containerd/protobuf"
)

// Stats are the host's, from the container's cgroup, but for a container in another's sandbox: only the sentry can tell what of that is whose.
func (s *service) Stats(ctx context.Context, r *task.StatsRequest) (*task.StatsResponse, error) {
	c, err := s.get(r.ID)
	if err != nil {
		return nil, err
	}
	if c.sandbox == "" {
		return s.TaskService.Stats(ctx, r)
	}
	u, err := c.runc.Stats(ctx, r.ID)
	if err != nil {
		return nil, errdefs.ToGRPC(err)
	}
	cpu, memory, pids := u.Cpu.Usage, u.Memory.Usage, u.Pids
	var m any = &v1.Metrics{
		CPU:    &v1.CPUStat{Usage: &v1.CPUUsage{Total: cpu.Total, User: cpu.User, Kernel: cpu.Kernel}},
		Memory: &v1.MemoryStat{Usage: &v1.MemoryEntry{Usage: memory.Usage, Limit: memory.Limit, Max: memory.Max, Failcnt: memory.Failcnt}},
		Pids:   &v1.PidsStat{Current: pids.Current, Limit: pids.Limit},
	}
	if cgroups.Mode() == cgroups.Unified {
		m = &v2.Metrics{
			CPU:    &v2.CPUStat{UsageUsec: cpu.Total / 1000, UserUsec: cpu.User / 1000, SystemUsec: cpu.Kernel / 1000},
			Memory: &v2.MemoryStat{Usage: memory.Usage, UsageLimit: memory.Limit},
			Pids:   &v2.PidsStat{Current: pids.Current, Limit: pids.Limit},
		}
	}
	a, err := protobuf.MarshalAnyToProto(m)
	return &task.StatsResponse{Stats: a}, err
}
