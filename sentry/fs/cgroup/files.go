package cgroup

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"

	"moat/sentry/fs/genfs"
	"moat/sentry/kernel"
	"moat/sentry/vfs"
)

// entry is one file of each directory.
type entry struct {
	name string
	// of is the controller that the file belongs to, 0 for none.
	of kernel.Controllers
	// notInRoot: a container's root has none. own: a container's root has it, but it cannot be written there.
	notInRoot, own bool
	show           func(g *group, ctx vfs.Context, b *bytes.Buffer)
	put            func(g *group, ctx vfs.Context, s string) error
}

func (e *entry) perm() (p uint16) {
	if e.show != nil {
		p = 0o444
	}
	if e.put != nil {
		p |= 0o200
	}
	return p
}

// bind makes f the file of e in g.
func (e *entry) bind(g *group, f *file) {
	if e.show != nil {
		f.Gen = g.gen(e)
	}
	if e.put != nil {
		f.Put = func(ctx vfs.Context, _ *vfs.FileDescription, data []byte, _ int64) error {
			switch {
			case !g.shows(e):
				return unix.ENODEV
			case e.own && g.cg.Parent() == nil:
				return unix.EPERM // as in a cgroup namespace's root: the limits are those of who made it
			}
			return e.put(g, ctx, genfs.Strip(data))
		}
	}
	switch e.name {
	case "cgroup.events":
		g.pollable(f, &g.cg.Events, g.cg.EventsVersion)
	case "memory.events":
		g.pollable(f, &g.cg.OOMs, g.cg.OOMKills)
	}
}

var controllerNames = []string{"cpu", "memory", "pids"}

func controllers(b *bytes.Buffer, c kernel.Controllers) {
	var names []string
	for i, n := range controllerNames {
		if c&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	if len(names) > 0 {
		b.WriteString(strings.Join(names, " ") + "\n")
	}
}

func text(s string) func(*group, vfs.Context, *bytes.Buffer) {
	return func(_ *group, _ vfs.Context, b *bytes.Buffer) { b.WriteString(s + "\n") }
}

func number(f func(g *group) uint64) func(*group, vfs.Context, *bytes.Buffer) {
	return func(g *group, _ vfs.Context, b *bytes.Buffer) { fmt.Fprintln(b, f(g)) }
}

// most is a limit as cgroup files show it.
func most(n uint64) string {
	if n == 0 {
		return "max"
	}
	return strconv.FormatUint(n, 10)
}

// flag parses 0 or 1.
func flag(s string) (bool, error) {
	n, err := genfs.Int(s, 0, 32)
	switch {
	case err != nil:
		return false, err
	case n < 0 || n > 1:
		return false, unix.ERANGE
	}
	return n == 1, nil
}

// bytesOf parses a size (page_counter_memparse): "max" is none, else a number with K, M, G or T, of whole pages.
func bytesOf(s string, none uint64) (uint64, error) {
	if s == "max" {
		return none, nil
	}
	shift := strings.IndexByte("kmgt", strings.ToLower(s + " ")[max(len(s)-1, 0)])
	if shift >= 0 {
		s = s[:len(s)-1]
	}
	n, err := genfs.Uint(s, 0, 64)
	shift = 10 * (shift + 1)
	if err != nil || n > math.MaxInt64>>shift {
		return 0, unix.EINVAL
	}
	return n << shift &^ (hostarch.PageSize - 1), nil
}

// kept is a file with a size that does no more than be kept: plus is 1 if it is "max" until it is set.
func kept(name string, at func(*kernel.Cgroup) *atomic.Uint64, plus uint64) entry {
	return entry{name: name, of: kernel.MemoryController, own: true,
		show: func(g *group, _ vfs.Context, b *bytes.Buffer) {
			if n := at(g.cg).Load() - plus; n != math.MaxUint64 {
				fmt.Fprintln(b, n)
			} else {
				b.WriteString("max\n")
			}
		},
		put: func(g *group, _ vfs.Context, s string) error {
			n, err := bytesOf(s, math.MaxUint64)
			if err == nil {
				at(g.cg).Store(n + plus)
			}
			return err
		}}
}

// entries are the files of a group, in the order in which they are listed.
var entries []entry

// entryOf is the place in entries of the file with this name, or -1.
func entryOf(name string) int {
	return slices.IndexFunc(entries, func(e entry) bool { return e.name == name })
}

func init() {
	const cpu, mem, pids = kernel.CPUController, kernel.MemoryController, kernel.PIDsController
	entries = []entry{
		{name: "cgroup.type", notInRoot: true, show: text("domain"), put: func(_ *group, _ vfs.Context, s string) error {
			if s == "threaded" {
				return unix.EOPNOTSUPP
			}
			return unix.EINVAL
		}},
		{name: "cgroup.procs", show: func(g *group, ctx vfs.Context, b *bytes.Buffer) { list(b, g, ctx, false) }, put: putProcs},
		{name: "cgroup.threads", show: func(g *group, ctx vfs.Context, b *bytes.Buffer) { list(b, g, ctx, true) },
			put: func(*group, vfs.Context, string) error { return unix.EOPNOTSUPP }}, // as in a domain that is not threaded
		{name: "cgroup.controllers", show: func(g *group, _ vfs.Context, b *bytes.Buffer) {
			own, _ := g.h.k.Controllers(g.cg)
			controllers(b, own)
		}},
		{name: "cgroup.subtree_control", put: putSubtree, show: func(g *group, _ vfs.Context, b *bytes.Buffer) {
			_, sub := g.h.k.Controllers(g.cg)
			controllers(b, sub)
		}},
		{name: "cgroup.events", show: func(g *group, _ vfs.Context, b *bytes.Buffer) {
			fmt.Fprintf(b, "populated %d\nfrozen %d\n", digit(g.cg.Populated()), digit(g.frozen()))
		}},
		{name: "cgroup.max.descendants", show: text("max")},
		{name: "cgroup.max.depth", show: text("max")},
		{name: "cgroup.stat", show: func(g *group, _ vfs.Context, b *bytes.Buffer) {
			fmt.Fprintf(b, "nr_descendants %d\nnr_dying_descendants 0\n", g.h.k.Descendants(g.cg))
		}},
		{name: "cgroup.freeze", own: true, show: func(g *group, _ vfs.Context, b *bytes.Buffer) { fmt.Fprintln(b, digit(g.cg.Frozen())) },
			put: func(g *group, _ vfs.Context, s string) error {
				on, err := flag(s)
				if err == nil && on != g.cg.Frozen() {
					g.h.k.Freeze(g.cg, on)
				}
				return err
			}},
		{name: "cgroup.kill", notInRoot: true, put: func(g *group, _ vfs.Context, s string) error {
			on, err := flag(s)
			if err == nil && !on {
				err = unix.ERANGE
			}
			if err == nil {
				g.h.k.KillGroup(g.cg)
			}
			return err
		}},
		{name: "cpu.stat", show: cpuStat},
		{name: "cpu.max", of: cpu, own: true, show: func(g *group, _ vfs.Context, b *bytes.Buffer) {
			fmt.Fprintf(b, "%s %d\n", most(uint64(max(g.cg.Quota.Load(), 0))), period(g.cg))
		}, put: putCPUMax},
		{name: "cpu.max.burst", of: cpu, show: text("0")},
		{name: "cpu.weight", of: cpu, own: true, show: number(func(g *group) uint64 {
			if w := g.cg.Weight.Load(); w != 0 {
				return w
			}
			return 100
		}), put: func(g *group, _ vfs.Context, s string) error {
			n, err := genfs.Uint(s, 0, 64)
			switch {
			case err != nil:
				return err
			case n < 1 || n > 10000:
				return unix.ERANGE
			}
			g.cg.Weight.Store(n)
			return nil
		}},
		{name: "memory.current", of: mem, show: number(func(g *group) uint64 {
			n, _, _, _ := g.cg.MemoryUsed()
			return n
		})},
		{name: "memory.peak", of: mem, show: number(func(g *group) uint64 {
			n, _, _, _ := g.cg.MemoryUsed()
			return n + g.cg.Account().Peak() - g.cg.Account().Used()
		})},
		kept("memory.min", func(cg *kernel.Cgroup) *atomic.Uint64 { return &cg.MemoryMin }, 0),
		kept("memory.low", func(cg *kernel.Cgroup) *atomic.Uint64 { return &cg.MemoryLow }, 0),
		kept("memory.high", func(cg *kernel.Cgroup) *atomic.Uint64 { return &cg.MemoryHigh }, 1),
		{name: "memory.max", of: mem, own: true, show: func(g *group, _ vfs.Context, b *bytes.Buffer) { b.WriteString(most(g.cg.MemoryMax.Load()) + "\n") },
			put: func(g *group, _ vfs.Context, s string) error {
				n, err := bytesOf(s, 0)
				if err != nil {
					return err
				}
				if s != "max" {
					n = max(n, hostarch.PageSize) // 0 is no limit there
				}
				return g.h.k.SetMemoryMax(g.cg, n)
			}},
		{name: "memory.events", of: mem, show: func(g *group, _ vfs.Context, b *bytes.Buffer) {
			n := g.cg.OOMKills()
			fmt.Fprintf(b, "low 0\nhigh 0\nmax %d\noom %d\noom_kill %d\noom_group_kill 0\n", n, n, n)
		}},
		{name: "memory.stat", of: mem, show: memoryStat},
		{name: "memory.oom.group", of: mem, own: true, show: func(g *group, _ vfs.Context, b *bytes.Buffer) { fmt.Fprintln(b, digit(g.cg.OOMGroup.Load())) },
			put: func(g *group, _ vfs.Context, s string) error {
				on, err := flag(s)
				if err != nil {
					return unix.EINVAL
				}
				g.cg.OOMGroup.Store(on)
				return nil
			}},
		{name: "memory.swap.current", of: mem, show: text("0")},
		kept("memory.swap.max", func(cg *kernel.Cgroup) *atomic.Uint64 { return &cg.SwapMax }, 1),
		{name: "pids.current", of: pids, show: number(func(g *group) uint64 { return uint64(g.cg.Tasks()) })},
		{name: "pids.max", of: pids, own: true, show: func(g *group, _ vfs.Context, b *bytes.Buffer) {
			if n := g.cg.MaxTasks.Load(); n != 0 {
				fmt.Fprintln(b, n-1)
			} else {
				b.WriteString("max\n")
			}
		}, put: func(g *group, _ vfs.Context, s string) error {
			if s == "max" {
				g.cg.MaxTasks.Store(0)
				return nil
			}
			n, err := genfs.Int(s, 0, 64)
			if err == nil && (n < 0 || n > 1<<22) { // PIDS_MAX
				err = unix.EINVAL
			}
			if err == nil {
				g.cg.MaxTasks.Store(uint64(n + 1))
			}
			return err
		}},
	}
}

func digit(on bool) int {
	if on {
		return 1
	}
	return 0
}

func (g *group) frozen() bool {
	for cg := g.cg; cg != nil; cg = cg.Parent() {
		if cg.Frozen() {
			return true
		}
	}
	return false
}

// putProcs moves a process here.
func putProcs(g *group, ctx vfs.Context, s string) error {
	n, err := genfs.Int(s, 0, 32)
	if err != nil || n < 0 {
		return unix.EINVAL
	}
	t, ok := ctx.(*kernel.Task)
	if ok && n != 0 {
		t = t.PIDNamespace().Task(int32(n))
	}
	if t == nil {
		return unix.ESRCH
	}
	if err := g.h.mayAttach(ctx, t.Cgroup(), g.cg, false); err != nil {
		return err
	}
	return g.h.k.Attach(t.ThreadGroup(), g.cg)
}

// putSubtree takes "+NAME" and "-NAME".
func putSubtree(g *group, _ vfs.Context, s string) error {
	var add, take kernel.Controllers
	for _, w := range strings.Fields(s) {
		i := slices.Index(controllerNames, w[1:])
		switch c := kernel.Controllers(1) << max(i, 0); {
		case i >= 0 && w[0] == '+':
			add, take = add|c, take&^c
		case i >= 0 && w[0] == '-':
			add, take = add&^c, take|c
		default:
			return unix.EINVAL
		}
	}
	return g.h.k.SetControllers(g.cg, add, take)
}

func period(cg *kernel.Cgroup) int64 {
	if p := cg.Period.Load(); p != 0 {
		return p
	}
	return 100000
}

// putCPUMax takes "QUOTA [PERIOD]" in microseconds, QUOTA perhaps "max" (cpu_period_quota_parse).
func putCPUMax(g *group, _ vfs.Context, s string) error {
	w := strings.Fields(s)
	if len(w) < 1 || len(w) > 2 {
		return unix.EINVAL
	}
	quota, p, err := int64(0), period(g.cg), error(nil)
	if w[0] != "max" {
		if quota, err = strconv.ParseInt(w[0], 10, 64); err != nil || quota < 1000 {
			return unix.EINVAL
		}
	}
	if len(w) == 2 {
		if p, err = strconv.ParseInt(w[1], 10, 64); err != nil || p < 1000 || p > 1000000 {
			return unix.EINVAL
		}
	}
	g.cg.Period.Store(p)
	g.cg.Quota.Store(quota)
	g.h.k.HoldToQuota(g.cg)
	return nil
}

func cpuStat(g *group, _ vfs.Context, b *bytes.Buffer) {
	u, s := g.h.k.CPUTimes(g.cg)
	user, system := u.Microseconds(), s.Microseconds()
	fmt.Fprintf(b, "usage_usec %d\nuser_usec %d\nsystem_usec %d\n", user+system, user, system)
	if own, _ := g.h.k.Controllers(g.cg); own&kernel.CPUController != 0 {
		periods, overs, overFor := g.cg.QuotaStat()
		fmt.Fprintf(b, "nr_periods %d\nnr_throttled %d\nthrottled_usec %d\n", periods, overs, overFor.Microseconds())
	}
}

// memoryStat knows what is cached for the sandbox as a whole only.
func memoryStat(g *group, _ vfs.Context, b *bytes.Buffer) {
	used, inactive, active, own := g.cg.MemoryUsed()
	fmt.Fprintf(b, "anon %d\nfile %d\nkernel %d\nshmem 0\ninactive_file %d\nactive_file %d\n", used-inactive-active-own, inactive+active, own, inactive, active)
}

// list prints the processes of g itself, or all tasks, in order; zombies are none of them any more.
func list(b *bytes.Buffer, g *group, ctx vfs.Context, tasks bool) {
	ns := g.h.k.Within(ctx).PIDNamespace()
	var ids []int32
	for _, tg := range g.h.k.Members(g.cg) {
		select {
		case <-tg.Done():
			continue
		default:
		}
		if tg.Leader().Cgroup() != g.cg {
			continue
		}
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
		fmt.Fprintln(b, id)
	}
}
