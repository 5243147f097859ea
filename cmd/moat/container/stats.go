package container

import "github.com/containerd/cgroups/v3/cgroup1/stats"

// Stats is what `moat events` tells, in the form of runc's events.
type Stats struct {
	CPU    CPUStats    `json:"cpu"`
	Memory MemoryStats `json:"memory"`
	Pids   PidsStats   `json:"pids"`
	// OOMKills counts the container's processes that were killed for want of memory.
	OOMKills uint64 `json:"oom_kills,omitempty"`
}

// CPUStats are in nanoseconds.
type CPUStats struct {
	Usage struct {
		Total  uint64   `json:"total,omitempty"`
		Percpu []uint64 `json:"percpu,omitempty"`
		Kernel uint64   `json:"kernel"`
		User   uint64   `json:"user"`
	} `json:"usage"`
	Throttling struct {
		Periods          uint64 `json:"periods,omitempty"`
		ThrottledPeriods uint64 `json:"throttledPeriods,omitempty"`
		ThrottledTime    uint64 `json:"throttledTime,omitempty"`
	} `json:"throttling"`
}

// MemoryEntry is in bytes.
type MemoryEntry struct {
	Limit   uint64 `json:"limit"`
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

// MemoryStats are the host's cgroup's: the whole sandbox, but in the case of a container in another's. Guest is what the sentry says.
type MemoryStats struct {
	Cache uint64      `json:"cache,omitempty"`
	Usage MemoryEntry `json:"usage"`
	Swap  MemoryEntry `json:"swap"`
	Guest MemoryEntry `json:"guest"`
}

// PidsStats are the container's tasks.
type PidsStats struct {
	Current uint64 `json:"current,omitempty"`
	Limit   uint64 `json:"limit,omitempty"`
}

func entry(e *stats.MemoryEntry) MemoryEntry {
	return MemoryEntry{Limit: e.GetLimit(), Usage: e.GetUsage(), Max: e.GetMax(), Failcnt: e.GetFailcnt()}
}

// Stats reads what the container uses.
func (c *Container) Stats() (*Stats, error) {
	u, err := c.Usage()
	if err != nil {
		return nil, err
	}
	s := &Stats{OOMKills: u.OOMKills}
	s.Memory.Guest = MemoryEntry{Limit: u.MemoryLimit, Usage: u.Memory, Max: u.MemoryPeak}
	s.Pids.Current = uint64(u.Tasks)
	if l := c.Spec.Linux; l != nil && l.Resources != nil && l.Resources.Pids != nil && l.Resources.Pids.Limit != nil {
		s.Pids.Limit = uint64(max(*l.Resources.Pids.Limit, 0))
	}
	if c.Sandbox != "" {
		// On the host its processes are not to be told from those of the other containers.
		s.CPU.Usage.User, s.CPU.Usage.Kernel, s.CPU.Usage.Total = u.CPUUser, u.CPUSystem, u.CPUUser+u.CPUSystem
		s.Memory.Usage = s.Memory.Guest
		return s, nil
	}
	if c.Cgroup == "" {
		return s, nil
	}
	g, err := loadGroup(c.Cgroup)
	if err != nil {
		return nil, err
	}
	m, err := g.stats()
	if err != nil {
		return nil, err
	}
	cpu := m.GetCPU()
	s.CPU.Usage.Total, s.CPU.Usage.Percpu = cpu.GetUsage().GetTotal(), cpu.GetUsage().GetPerCPU()
	s.CPU.Usage.Kernel, s.CPU.Usage.User = cpu.GetUsage().GetKernel(), cpu.GetUsage().GetUser()
	t := cpu.GetThrottling()
	s.CPU.Throttling.Periods, s.CPU.Throttling.ThrottledPeriods, s.CPU.Throttling.ThrottledTime = t.GetPeriods(), t.GetThrottledPeriods(), t.GetThrottledTime()
	s.Memory.Cache = m.GetMemory().GetCache()
	s.Memory.Usage, s.Memory.Swap = entry(m.GetMemory().GetUsage()), entry(m.GetMemory().GetSwap())
	return s, nil
}
