package container

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup1/stats"
	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// group is a cgroup of the host, whatever its version.
type group interface {
	add(pid int) error
	update(r *specs.LinuxResources) error
	freeze(on bool) error
	stats() (*stats.Metrics, error)
	remove() error
}

// cgroupRoot is where version 2 is mounted on a host that has no other.
const cgroupRoot = "/sys/fs/cgroup"

// cgroupPath is the container's path below each hierarchy, "" if it is to have no cgroup. systemd's SLICE:PREFIX:NAME becomes the path that systemd would choose.
func cgroupPath(s *specs.Spec, id string, systemd bool) string {
	p := ""
	if s.Linux != nil {
		p = s.Linux.CgroupsPath
	}
	if f := strings.Split(p, ":"); systemd && len(f) == 3 {
		slice := strings.TrimSuffix(f[0], ".slice")
		if slice == "" {
			slice = "system"
		}
		p = "/"
		for i, part := range strings.Split(slice, "-") {
			if i > 0 {
				part = strings.TrimSuffix(filepath.Base(p), ".slice") + "-" + part
			}
			p = filepath.Join(p, part+".slice")
		}
		return filepath.Join(p, f[1]+"-"+f[2]+".scope")
	}
	if p == "" && !Privileged() {
		return "" // an ordinary user's is where he says, as with runc
	}
	if p == "" {
		p = id
	}
	return filepath.Clean("/" + p)
}

// taskShare is how many threads of the host one guest thread may need, and taskBase what a sandbox needs besides.
const (
	taskShare = 4
	taskBase  = 512
)

// hostResources are the limits as they are set on the host. Zeroes mean "not set" to Docker, though not to the kernel. The number of tasks is held
// by the sentry; the host's bound keeps a broken sentry from more. Devices are left out: a container has none but the sentry's.
func hostResources(r *specs.LinuxResources) (*specs.LinuxResources, error) {
	if r == nil {
		return &specs.LinuxResources{}, nil
	}
	h := *r
	h.Devices = nil
	if p := h.Pids; p != nil {
		h.Pids = nil
		if p.Limit != nil && *p.Limit > 0 {
			n := *p.Limit*taskShare + taskBase
			h.Pids = &specs.LinuxPids{Limit: &n}
		}
	}
	if h.CPU != nil {
		c := *h.CPU
		dropZero(&c.Shares)
		dropZero(&c.Period)
		dropZero(&c.Quota)
		dropZero(&c.RealtimePeriod)
		dropZero(&c.RealtimeRuntime)
		h.CPU = &c
	}
	if h.Memory != nil {
		m := *h.Memory
		dropZero(&m.Limit)
		dropZero(&m.Reservation)
		dropZero(&m.Swap)
		//lint:ignore SA1019 dropped because Linux no longer has it
		m.Kernel = nil
		dropZero(&m.KernelTCP)
		if m.Swappiness != nil && *m.Swappiness > 100 {
			m.Swappiness = nil
		}
		if _, err := os.Stat(cgroupRoot + "/memory/memory.memsw.limit_in_bytes"); err != nil && cgroups.Mode() != cgroups.Unified {
			m.Swap = nil
		}
		h.Memory = &m
	}
	if h.BlockIO != nil {
		b := *h.BlockIO
		dropZero(&b.Weight)
		dropZero(&b.LeafWeight)
		h.BlockIO = &b
	}
	return &h, checkResources(&h)
}

// hierarchies are version 1's controllers that the host has. A directory that is no mount of one, as other tools leave behind, is none.
var hierarchies = sync.OnceValues(func() ([]cgroup1.Subsystem, error) {
	all, err := cgroup1.Default()
	return slices.DeleteFunc(all, func(s cgroup1.Subsystem) bool {
		var st unix.Statfs_t
		return unix.Statfs(dirOf(s, "/"), &st) != nil || st.Type != unix.CGROUP_SUPER_MAGIC
	}), err
})

// dirOf is the directory of a cgroup in a hierarchy.
func dirOf(s cgroup1.Subsystem, path string) string {
	return s.(interface{ Path(string) string }).Path(path)
}

// checkResources refuses what the host has no controller for.
func checkResources(r *specs.LinuxResources) error {
	v2 := cgroups.Mode() == cgroups.Unified
	n := r.Network
	for _, w := range []struct {
		asked             bool
		field, controller string
	}{
		{n != nil && n.ClassID != nil, "network.classID", "net_cls"}, {n != nil && len(n.Priorities) > 0, "network.priorities", "net_prio"},
		{len(r.HugepageLimits) > 0, "hugepageLimits", "hugetlb"}, {len(r.Rdma) > 0, "rdma", "rdma"},
	} {
		if !w.asked {
			continue
		}
		have := ""
		if v2 {
			b, _ := os.ReadFile(cgroupRoot + "/cgroup.controllers")
			have = string(b)
		} else if hs, err := hierarchies(); err == nil {
			for _, h := range hs {
				have += string(h.Name()) + " "
			}
		}
		if !slices.Contains(strings.Fields(have), w.controller) {
			return fmt.Errorf("linux.resources.%s: the host has no cgroup controller %s", w.field, w.controller)
		}
	}
	if len(r.Unified) > 0 && !v2 {
		return errors.New("invalid configuration: linux.resources.unified: the host has version 1 of cgroups")
	}
	return nil
}

// checkUnused refuses a cgroup that others are in, and one that is frozen: what is added to it would not run.
func checkUnused(path string) error {
	dirs := []string{filepath.Join(cgroupRoot, path)}
	if cgroups.Mode() != cgroups.Unified {
		dirs = nil
		hs, _ := hierarchies()
		for _, h := range hs {
			dirs = append(dirs, dirOf(h, path))
		}
	}
	for _, d := range dirs {
		if b, err := os.ReadFile(filepath.Join(d, "cgroup.procs")); err == nil && len(b) > 0 {
			return fmt.Errorf("container's cgroup is not empty: %d process(es) found", strings.Count(string(b), "\n"))
		}
	}
	if frozenAt(path) {
		return errors.New("container's cgroup unexpectedly frozen")
	}
	return nil
}

// setRest writes, of the limits that hostResources gave, those that the library does not know.
func setRest(path string, r *specs.LinuxResources, b *specs.LinuxBlockIO) error {
	v2 := cgroups.Mode() == cgroups.Unified
	var err error
	set := func(controller, file, value string) {
		dir := filepath.Join(cgroupRoot, controller, path)
		if v2 {
			dir = filepath.Join(cgroupRoot, path)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, file), []byte(value), 0)
		}
	}
	if c := r.CPU; c != nil {
		if c.Idle != nil {
			set("cpu", "cpu.idle", fmt.Sprint(*c.Idle))
		}
		if c.Burst != nil && v2 {
			set("cpu", "cpu.max.burst", fmt.Sprint(*c.Burst))
		} else if c.Burst != nil {
			set("cpu", "cpu.cfs_burst_us", fmt.Sprint(*c.Burst))
		}
	}
	if b == nil {
		return err
	}
	// Version 1's weights are those of the scheduler that the host's kernel has.
	name := "blkio.weight"
	if _, e := os.Stat(filepath.Join(cgroupRoot, "blkio", path, name)); e != nil {
		name = "blkio.bfq.weight"
	}
	if b.Weight != nil {
		set("blkio", name, fmt.Sprint(*b.Weight))
	}
	for _, d := range b.WeightDevice {
		if d.Weight != nil {
			set("blkio", name+"_device", fmt.Sprintf("%d:%d %d", d.Major, d.Minor, *d.Weight))
		}
	}
	return err
}

// apart takes the weights out of version 1's resources.
func apart(h *specs.LinuxResources) *specs.LinuxBlockIO {
	if h.BlockIO == nil {
		return nil
	}
	b := *h.BlockIO
	rest := b
	rest.Weight, rest.WeightDevice = nil, nil
	h.BlockIO = &rest
	return &b
}

func dropZero[T comparable](p **T) {
	if *p != nil && **p == *new(T) {
		*p = nil
	}
}

// newGroup makes the cgroup at path, with limits.
func newGroup(path string, r *specs.LinuxResources) (g group, err error) {
	h, err := hostResources(r)
	if err != nil {
		return nil, err
	}
	if cgroups.Mode() == cgroups.Unified {
		m, e := cgroup2.NewManager(cgroupRoot, path, cgroup2.ToResources(h))
		if g, err = (&groupV2{m, path}), e; err == nil {
			err = setRest(path, h, nil)
		}
	} else {
		b := apart(h)
		c, e := cgroup1.New(cgroup1.StaticPath(path), h, cgroup1.WithHierarchy(hierarchies))
		if g, err = (&groupV1{c, path}), e; err == nil {
			err = setRest(path, h, b)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cgroup %s: %w", path, err)
	}
	return g, nil
}

// memoryCounts opens the files in which the host counts a cgroup's memory and tells what for; none if it does not.
func memoryCounts(path string) []*os.File {
	dir, name := filepath.Join(cgroupRoot, "memory", path), "memory.usage_in_bytes"
	if cgroups.Mode() == cgroups.Unified {
		dir, name = filepath.Join(cgroupRoot, path), "memory.current"
	}
	used, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return nil
	}
	stat, err := os.Open(filepath.Join(dir, "memory.stat"))
	if err != nil {
		used.Close()
		return nil
	}
	return []*os.File{used, stat}
}

// loadGroup finds a cgroup that newGroup made; an error if it is not there.
func loadGroup(path string) (group, error) {
	if path == "" {
		return nil, errors.New("the container has no cgroup")
	}
	if cgroups.Mode() == cgroups.Unified {
		m, err := cgroup2.Load(path)
		if err != nil {
			return nil, err
		}
		return &groupV2{m, path}, nil
	}
	c, err := cgroup1.Load(cgroup1.StaticPath(path), cgroup1.WithHierarchy(hierarchies))
	if err != nil {
		return nil, err
	}
	return &groupV1{c, path}, nil
}

type groupV1 struct {
	c    cgroup1.Cgroup
	path string
}

func (g *groupV1) add(pid int) error              { return g.c.AddProc(uint64(pid)) }
func (g *groupV1) stats() (*stats.Metrics, error) { return g.c.Stat(cgroup1.IgnoreNotExist) }
func (g *groupV1) update(r *specs.LinuxResources) error {
	h, err := hostResources(r)
	if err != nil {
		return err
	}
	b := apart(h)
	err = g.c.Update(h)
	if c := h.CPU; errors.Is(err, unix.EINVAL) && c != nil {
		// A new period may be too short for the old quota.
		first := specs.LinuxCPU{Quota: c.Quota, RealtimeRuntime: c.RealtimeRuntime}
		if err = g.c.Update(&specs.LinuxResources{CPU: &first}); err == nil {
			err = g.c.Update(h)
		}
	}
	if err != nil {
		return err
	}
	return setRest(g.path, h, b)
}

func (g *groupV1) freeze(on bool) error { return freeze(g.c, on) }
func (g *groupV2) freeze(on bool) error { return freeze(g.m, on) }

func freeze(g interface {
	Freeze() error
	Thaw() error
}, on bool) error {
	if on {
		return g.Freeze()
	}
	return g.Thaw()
}

func (g *groupV2) remove() error { return removed(g.m.Delete, os.ErrNotExist) }

// remove does not look for processes first, as the library does in every file of every hierarchy: the host keeps a cgroup that has some.
func (g *groupV1) remove() error {
	return removed(func() (err error) {
		for _, s := range g.c.Subsystems() {
			err = cmp.Or(os.RemoveAll(dirOf(s, g.path)), err)
		}
		return err
	}, os.ErrNotExist)
}

// removed deletes a cgroup by remove, whose error is gone if there is none. What was killed leaves it a moment later.
func removed(remove func() error, gone error) (err error) {
	for range 100 {
		if err = remove(); err == nil || errors.Is(err, gone) {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

type groupV2 struct {
	m    *cgroup2.Manager
	path string
}

func (g *groupV2) add(pid int) error { return g.m.AddProc(uint64(pid)) }
func (g *groupV2) update(r *specs.LinuxResources) error {
	h, err := hostResources(r)
	if err != nil {
		return err
	}
	if err := g.m.Update(cgroup2.ToResources(h)); err != nil {
		return err
	}
	return setRest(g.path, h, nil)
}

func (g *groupV2) stats() (*stats.Metrics, error) {
	m, err := g.m.Stat()
	if err != nil {
		return nil, err
	}
	// Version 1's words, which runc's events use for both.
	s := &stats.Metrics{
		Pids: &stats.PidsStat{Current: m.GetPids().GetCurrent(), Limit: m.GetPids().GetLimit()},
		CPU: &stats.CPUStat{
			Usage: &stats.CPUUsage{Total: m.GetCPU().GetUsageUsec() * 1000, User: m.GetCPU().GetUserUsec() * 1000, Kernel: m.GetCPU().GetSystemUsec() * 1000},
			Throttling: &stats.Throttle{Periods: m.GetCPU().GetNrPeriods(), ThrottledPeriods: m.GetCPU().GetNrThrottled(),
				ThrottledTime: m.GetCPU().GetThrottledUsec() * 1000},
		},
		Memory: &stats.MemoryStat{Usage: &stats.MemoryEntry{Usage: m.GetMemory().GetUsage(), Limit: m.GetMemory().GetUsageLimit()}},
	}
	return s, nil
}

// frozen reports whether the container is paused.
func (c *Container) frozen() bool {
	return c.Cgroup != "" && frozenAt(c.Cgroup)
}

func frozenAt(path string) bool {
	if cgroups.Mode() == cgroups.Unified {
		b, err := os.ReadFile(filepath.Join(cgroupRoot, path, "cgroup.freeze"))
		return err == nil && strings.TrimSpace(string(b)) == "1"
	}
	b, err := os.ReadFile(filepath.Join(cgroupRoot, "freezer", path, "freezer.state"))
	return err == nil && strings.TrimSpace(string(b)) != "THAWED"
}

// mayIgnore reports whether a container may do without a cgroup: an ordinary user's whom the host lets have none.
func mayIgnore(err error) bool {
	return !Privileged() && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EROFS) || errors.Is(err, unix.ENOENT))
}
