// Package sys is sysfs as far as programs in containers read it: the CPUs' and the memory node's topology, huge page settings, and the empty
// directories that software looks into, among them the mount point of the cgroup file system.
//
// It has no locks and no state; everything is made when an instance is made.
package sys

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"gvisor.dev/gvisor/pkg/abi/linux"

	"moat/platform"
	"moat/sentry/fs/genfs"
	"moat/sentry/kernel"
	"moat/sentry/vfs"
)

// NetDev is an interface of the container's network namespace. Attr prints the file of /sys/class/net/NAME that is called name, one of Attrs.
type NetDev struct {
	Name  string
	Attrs []string
	Attr  func(name string) string
}

// Register makes "sysfs" known to mount(2). devs are the interfaces of a network namespace.
func Register(k *kernel.Kernel, devs func(*kernel.NetNamespace) []NetDev) {
	vfs.RegisterFileSystem("sysfs", func(ctx vfs.Context, _, _ string) (vfs.FileSystem, error) {
		return New(k, devs(k.Within(ctx).Namespaces().Net)...), nil
	},
		kernel.OwnedBy(func(t *kernel.Task) kernel.Owned { return t.Namespaces().Net }))
}

// New returns an instance.
func New(k *kernel.Kernel, net ...NetDev) *genfs.FS {
	fs := genfs.New("sysfs", linux.SYSFS_MAGIC)
	t := genfs.NewTree(fs)
	for _, d := range []string{"block", "bus", "class/block", "class/net", "class/tty", "class/mem", "class/misc", "class/power_supply", "class/thermal",
		"dev/block", "dev/char", "devices/virtual/net", "firmware", "fs/cgroup", "fs/bpf", "hypervisor", "kernel/debug", "kernel/tracing", "kernel/security", "module", "power"} {
		t.Add(d, nil)
	}
	addCPUs(t, k.NumCPUs())
	addNode(t, k)
	for _, d := range net {
		addNet(t, d)
	}
	t.AddText("kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n")
	t.AddText("kernel/mm/transparent_hugepage/defrag", "always defer defer+madvise [madvise] never\n")
	t.AddText("kernel/mm/transparent_hugepage/shmem_enabled", "always within_size advise [never] deny force\n")
	t.AddText("kernel/mm/transparent_hugepage/hpage_pmd_size", "2097152\n")
	t.AddText("kernel/mm/transparent_hugepage/use_zero_page", "1\n")
	for _, f := range []string{"nr_hugepages", "free_hugepages", "resv_hugepages", "surplus_hugepages", "nr_overcommit_hugepages"} {
		t.AddText("kernel/mm/hugepages/hugepages-2048kB/"+f, "0\n")
	}
	t.AddText("kernel/mm/ksm/run", "0\n")
	t.AddText("kernel/uevent_seqnum", "0\n")
	t.AddText("kernel/fscaps", "1\n")
	t.AddText("kernel/profiling", "0\n")
	fs.SetRoot(t.Dir(nil))
	return fs
}

// mask prints the set of CPUs lo to hi-1 as the kernel's %*pb of n bits does, and list as %*pbl.
func mask(n, lo, hi int) string {
	words := make([]string, 0, n/32+1)
	for w := (n+31)/32 - 1; w >= 0; w-- {
		var v uint32
		for b := range 32 {
			if i := w*32 + b; i >= lo && i < hi {
				v |= 1 << b
			}
		}
		width := 8
		if rest := n - w*32; rest < 32 {
			width = (rest + 3) / 4
		}
		words = append(words, fmt.Sprintf("%0*x", width, v))
	}
	return strings.Join(words, ",") + "\n"
}

func list(lo, hi int) string {
	if hi-lo == 1 {
		return strconv.Itoa(lo) + "\n"
	}
	return fmt.Sprintf("%d-%d\n", lo, hi-1)
}

// addCPUs shows one package of n cores with one thread each.
func addCPUs(t *genfs.Tree, n int) {
	const dir = "devices/system/cpu/"
	for _, f := range []string{"online", "possible", "present"} {
		t.AddText(dir+f, list(0, n))
	}
	t.AddText(dir+"offline", "\n")
	t.AddText(dir+"isolated", "\n")
	t.AddText(dir+"kernel_max", "8191\n")
	t.AddText(dir+"smt/active", "0\n")
	t.AddText(dir+"smt/control", "notsupported\n")
	t.Add(dir+"cpufreq", nil)
	t.Add(dir+"cpuidle", nil)
	for i := range n {
		cpu := fmt.Sprintf("%scpu%d/", dir, i)
		if i > 0 {
			t.AddText(cpu+"online", "1\n")
		}
		for _, f := range []struct{ name, text string }{
			{"core_id", fmt.Sprintf("%d\n", i)}, {"physical_package_id", "0\n"}, {"die_id", "0\n"}, {"cluster_id", "65535\n"},
			{"thread_siblings", mask(n, i, i+1)}, {"thread_siblings_list", list(i, i+1)}, {"core_cpus", mask(n, i, i+1)}, {"core_cpus_list", list(i, i+1)},
			{"core_siblings", mask(n, 0, n)}, {"core_siblings_list", list(0, n)}, {"package_cpus", mask(n, 0, n)}, {"package_cpus_list", list(0, n)},
			{"die_cpus", mask(n, 0, n)}, {"die_cpus_list", list(0, n)},
		} {
			t.AddText(cpu+"topology/"+f.name, f.text)
		}
		addCaches(t, cpu+"cache/", i, n)
		t.AddLink(cpu+"node0", "../../node/node0")
		t.AddLink(cpu+"subsystem", "../../../../bus/cpu")
	}
	t.Add("bus/cpu", nil)
}

// addCaches shows the processor's caches as those of CPU i of n (CPUID leaf 4, AMD's 0x8000001d): what no other core has is its own, the third level all have.
func addCaches(t *genfs.Tree, dir string, i, n int) {
	leaf := uint32(4)
	if most, _, _, _ := platform.CPUID(0x80000000, 0); most >= 0x8000001d {
		if a, _, _, _ := platform.CPUID(0x8000001d, 0); a != 0 {
			leaf = 0x8000001d
		}
	}
	for x := range uint32(8) {
		a, b, c, _ := platform.CPUID(leaf, x)
		kind, level := a&31, a>>5&7
		if kind < 1 || kind > 3 {
			break
		}
		line, parts, ways, sets := b&0xfff+1, b>>12&0x3ff+1, b>>22+1, c+1
		id, lo, hi := i, i, i+1
		if level >= 3 {
			id, lo, hi = 0, 0, n
		}
		for name, v := range map[string]any{"level": level, "type": [...]string{1: "Data", 2: "Instruction", 3: "Unified"}[kind], "coherency_line_size": line,
			"physical_line_partition": parts, "ways_of_associativity": ways, "number_of_sets": sets, "id": id,
			"size": fmt.Sprintf("%dK", uint64(line)*uint64(parts)*uint64(ways)*uint64(sets)>>10), "shared_cpu_map": mask(n, lo, hi), "shared_cpu_list": list(lo, hi)} {
			t.AddText(fmt.Sprintf("%sindex%d/%s", dir, x, name), strings.TrimSpace(fmt.Sprint(v))+"\n")
		}
	}
}

// addNet shows one interface.
func addNet(t *genfs.Tree, d NetDev) {
	dir := "devices/virtual/net/" + d.Name
	for _, a := range d.Attrs {
		t.AddFile(dir+"/"+a, 0o444, func(_ vfs.Context, b *bytes.Buffer) error {
			b.WriteString(d.Attr(a))
			return nil
		})
	}
	t.AddLink(dir+"/subsystem", "../../../../class/net")
	t.AddLink("class/net/"+d.Name, "../../"+dir)
}

// addNode shows one memory node.
func addNode(t *genfs.Tree, k *kernel.Kernel) {
	const dir = "devices/system/node/"
	n := k.NumCPUs()
	for _, f := range []string{"online", "possible", "has_cpu", "has_memory", "has_normal_memory"} {
		t.AddText(dir+f, "0\n")
	}
	t.AddText(dir+"node0/cpulist", list(0, n))
	t.AddText(dir+"node0/cpumap", mask(n, 0, n))
	t.AddText(dir+"node0/distance", "10\n")
	t.AddFile(dir+"node0/meminfo", 0o444, func(_ vfs.Context, b *bytes.Buffer) error {
		m := k.Memory()
		total, used := m.Limit(), min(m.Used(), m.Limit())
		fmt.Fprintf(b, "Node 0 MemTotal:       %d kB\nNode 0 MemFree:        %d kB\nNode 0 MemUsed:        %d kB\n", total>>10, (total-used)>>10, used>>10)
		return nil
	})
	for i := range n {
		t.AddLink(fmt.Sprintf("%snode0/cpu%d", dir, i), fmt.Sprintf("../../cpu/cpu%d", i))
	}
}
