// Package cgroup is the cgroup file system that a container sees: version 2 with one group, its own, as it looks from within a cgroup
// namespace. Limits are those that the container was given; usage is its tasks'.
//
// Groups cannot be made, and nothing can be written: a container's limits are its keeper's affair (as with a read-only mount, which is what
// containers usually get).
//
// Limits are atomic; the package has no locks.
package cgroup

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"

	"gvisor.dev/gvisor/pkg/abi/linux"

	"moat/sentry/fs/genfs"
	"moat/sentry/kernel"
	"moat/sentry/vfs"
)

// Register makes "cgroup2" known to mount(2), and "cgroup" as another name for it.
func Register(k *kernel.Kernel) {
	for _, name := range []string{"cgroup", "cgroup2"} {
		vfs.RegisterFileSystem(name, func(ctx vfs.Context, _, _ string) (vfs.FileSystem, error) { return New(k, k.Within(ctx)), nil },
			kernel.OwnedBy(func(t *kernel.Task) kernel.Owned { return t.Namespaces().Cgroup }))
	}
}

// most is a limit as cgroup files show it.
func most(n uint64) string {
	if n == 0 {
		return "max"
	}
	return strconv.FormatUint(n, 10)
}

// New returns an instance that shows the group of who mounts it, in the numbers of his PID namespace.
func New(k *kernel.Kernel, who kernel.Inhabitant) *genfs.FS {
	l, ns := who.Cgroup(), who.PIDNamespace()
	fs := genfs.New("cgroup2", linux.CGROUP_SUPER_MAGIC)
	fs.Magic = 0x63677270 // CGROUP2_SUPER_MAGIC
	t := genfs.NewTree(fs)
	show := func(name string, f func(b *bytes.Buffer)) {
		t.AddFile(name, 0o444, func(_ vfs.Context, b *bytes.Buffer) error { f(b); return nil })
	}
	text := func(name string, f func() string) {
		show(name, func(b *bytes.Buffer) { b.WriteString(f() + "\n") })
	}
	for name, s := range map[string]string{
		"cgroup.controllers": "cpu memory pids", "cgroup.subtree_control": "", "cgroup.type": "domain", "cgroup.max.depth": "max",
		"cgroup.max.descendants": "max", "cgroup.stat": "nr_descendants 0\nnr_dying_descendants 0",
		"memory.high": "max", "memory.min": "0", "memory.swap.current": "0", "memory.swap.max": "0", "memory.oom.group": "0", "cpu.max.burst": "0",
	} {
		t.AddText(name, s+"\n")
	}
	show("cgroup.procs", func(b *bytes.Buffer) { list(b, k, l, ns, false) })
	show("cgroup.threads", func(b *bytes.Buffer) { list(b, k, l, ns, true) })
	frozen := func() int {
		if l.Frozen() {
			return 1
		}
		return 0
	}
	text("cgroup.freeze", func() string { return strconv.Itoa(frozen()) })
	text("cgroup.events", func() string { return fmt.Sprintf("populated 1\nfrozen %d", frozen()) })
	text("memory.max", func() string { return most(l.MemoryMax.Load()) })
	text("memory.low", func() string { return strconv.FormatUint(l.MemoryLow.Load(), 10) })
	text("memory.current", func() string { return strconv.FormatUint(l.Memory.Used(), 10) })
	text("memory.peak", func() string { return strconv.FormatUint(l.Memory.Peak(), 10) })
	show("memory.events", func(b *bytes.Buffer) {
		n := l.OOMKills()
		fmt.Fprintf(b, "low 0\nhigh 0\nmax %d\noom %d\noom_kill %d\noom_group_kill 0\n", n, n, n)
	})
	show("memory.stat", func(b *bytes.Buffer) {
		i := k.MemoryInfo()
		used := l.Memory.Used()
		fmt.Fprintf(b, "anon %d\nfile %d\nkernel 0\nshmem %d\ninactive_file 0\nactive_file 0\n", used-min(used, i.Cached), i.Cached, i.Shared)
	})
	text("cpu.max", func() string {
		period := l.Period.Load()
		if period == 0 {
			period = 100000
		}
		return fmt.Sprintf("%s %d", most(uint64(max(l.Quota.Load(), 0))), period)
	})
	text("cpu.weight", func() string {
		if w := l.Weight.Load(); w != 0 {
			return strconv.FormatUint(w, 10)
		}
		return "100"
	})
	show("cpu.stat", func(b *bytes.Buffer) {
		u, s := k.CPUTimes(l)
		user, system := u.Microseconds(), s.Microseconds()
		periods, overs, overFor := l.QuotaStat()
		fmt.Fprintf(b, "usage_usec %d\nuser_usec %d\nsystem_usec %d\nnr_periods %d\nnr_throttled %d\nthrottled_usec %d\n", user+system, user, system,
			periods, overs, overFor.Microseconds())
	})
	text("pids.max", func() string { return most(l.MaxTasks.Load()) })
	text("pids.current", func() string { return strconv.Itoa(l.Tasks()) })
	fs.SetRoot(t.Dir(nil))
	return fs
}

// list prints the processes, or all tasks, in order.
func list(b *bytes.Buffer, k *kernel.Kernel, cg *kernel.Cgroup, ns *kernel.PIDNamespace, tasks bool) {
	var ids []int32
	for _, tg := range k.Members(cg) {
		if !tasks {
			ids = append(ids, tg.PIDIn(ns))
			continue
		}
		for _, t := range tg.Tasks() {
			ids = append(ids, t.TIDIn(ns))
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		fmt.Fprintf(b, "%d\n", id)
	}
}
