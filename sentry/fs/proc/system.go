package proc

import (
	"bytes"
	"fmt"
	"sort"
	"strings"
	"time"

	"moat/sentry/fs/genfs"
	"moat/sentry/kernel"
	"moat/sentry/vfs"
)

// addSystem adds what is about the whole machine.
func (in *Instances) addSystem(f *FS, tree *genfs.Tree) {
	k := in.k
	plain := func(name string, gen func(b *bytes.Buffer)) {
		tree.AddFile(name, 0o444, func(_ vfs.Context, b *bytes.Buffer) error {
			gen(b)
			return nil
		})
	}
	cmdline := in.opts.Cmdline
	if cmdline == "" {
		cmdline = "quiet"
	}
	tree.AddText("cmdline", cmdline+"\n")
	plain("cpuinfo", func(b *bytes.Buffer) { b.WriteString(in.cpuinfo()) })
	tree.AddText("devices", "Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n  5 /dev/ptmx\n 10 misc\n136 pts\n\nBlock devices:\n")
	tree.AddText("diskstats", "")
	tree.AddText("execdomains", "0-0\tLinux           \t[kernel]\n")
	plain("filesystems", func(b *bytes.Buffer) {
		names := vfs.FileSystemTypes()
		sort.Strings(names)
		for _, n := range names {
			fmt.Fprintf(b, "nodev\t%s\n", n)
		}
	})
	plain("interrupts", func(b *bytes.Buffer) {
		b.WriteString("    ")
		for i := range k.NumCPUs() {
			fmt.Fprintf(b, "       CPU%-4d", i)
		}
		b.WriteByte('\n')
	})
	tree.AddFile("loadavg", 0o444, func(ctx vfs.Context, b *bytes.Buffer) error {
		running, total := k.NumRunning()
		a := k.LoadAverage()
		_, err := fmt.Fprintf(b, "%.2f %.2f %.2f %d/%d %d\n", a[0], a[1], a[2], running, total, k.Within(ctx).PIDNamespace().LastPID()) // the reader's
		return err
	})
	tree.AddText("locks", "")
	plain("meminfo", in.meminfo)
	tree.AddText("misc", "")
	tree.AddText("modules", "")
	tree.AddLink("mounts", "self/mounts")
	tree.AddLink("net", "self/net")
	tree.AddText("partitions", "major minor  #blocks  name\n\n")
	plain("stat", in.stat)
	tree.AddText("swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n")
	in.addSysVIPC(tree)
	plain("uptime", func(b *bytes.Buffer) {
		up := time.Since(k.BootTime())
		idle := int64(up*time.Duration(k.NumCPUs()) - in.busy())
		for old := in.idle.Load(); idle > old && !in.idle.CompareAndSwap(old, idle); old = in.idle.Load() {
		}
		fmt.Fprintf(b, "%.2f %.2f\n", up.Seconds(), time.Duration(in.idle.Load()).Seconds()) // never less than before
	})
	plain("version", func(b *bytes.Buffer) {
		fmt.Fprintf(b, "Linux version %s (moat@moat) (gcc (GCC) 14.2.0, GNU ld (GNU Binutils) 2.44) %s\n", kernel.Release, kernel.Version)
	})
	plain("vmstat", in.vmstat)
	tree.AddText("zoneinfo", "")
	tree.AddText("cgroups", "#subsys_name\thierarchy\tnum_cgroups\tenabled\n")
	for _, r := range [...]string{"cpu", "io", "memory"} {
		text := "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
		tree.AddText("pressure/"+r, text)
	}
	tree.AddText("tty/drivers", "/dev/tty             /dev/tty        5       0 system:/dev/tty\n/dev/ptmx            /dev/ptmx       5       2 system\npty_slave            /dev/pts      136 0-1048575 pty:slave\n")
	tree.Add("bus", nil)
	tree.Add("driver", nil)
	tree.Add("fs", nil)
	tree.Add("irq", nil)
}

// kib is bytes as meminfo prints them.
func kib(b *bytes.Buffer, name string, n uint64) { fmt.Fprintf(b, "%-16s%8d kB\n", name+":", n>>10) }

// memory are the machine's figures: total, free, anonymous and page cache (tmpfs) bytes. The host's page cache of mapped files is not
// the container's.
func (in *Instances) memory() (total, free, used uint64) {
	m := in.k.Memory()
	total, used = m.Limit(), m.Used()
	return total, total - min(total, used), used
}

// meminfo is fs/proc/meminfo.c.
func (in *Instances) meminfo(b *bytes.Buffer) {
	total, free, used := in.memory()
	m := in.k.Memory()
	var anon, file, shmem, tables uint64
	for _, tg := range in.k.ThreadGroups() {
		if l := tg.Leader(); l != nil {
			if mm := l.MemoryManager(); mm != nil && mm.IncUsersIfAlive() {
				st := mm.Stats()
				anon, file, shmem, tables = anon+st.RssAnon, file+st.RssFile, shmem+st.RssShm, tables+st.PageTables
				mm.DecUsers()
			}
		}
	}
	// Pages that processes share after fork are counted by each: no more is anonymous than is used at all.
	anon = min(anon, used)
	cached := used - anon
	for _, l := range [...]struct {
		name string
		n    uint64
	}{
		{"MemTotal", total}, {"MemFree", free}, {"MemAvailable", free}, {"Buffers", 0}, {"Cached", cached}, {"SwapCached", 0},
		{"Active", anon}, {"Inactive", cached}, {"Active(anon)", anon}, {"Inactive(anon)", cached}, {"Active(file)", 0}, {"Inactive(file)", 0},
		{"Unevictable", 0}, {"Mlocked", 0}, {"SwapTotal", 0}, {"SwapFree", 0}, {"Zswap", 0}, {"Zswapped", 0}, {"Dirty", 0}, {"Writeback", 0},
		{"AnonPages", anon}, {"Mapped", file + shmem}, {"Shmem", cached}, {"KReclaimable", 0}, {"Slab", 0}, {"SReclaimable", 0},
		{"SUnreclaim", 0}, {"KernelStack", 0}, {"PageTables", tables}, {"SecPageTables", 0}, {"NFS_Unstable", 0}, {"Bounce", 0},
		{"WritebackTmp", 0}, {"CommitLimit", m.CommitLimit()}, {"Committed_AS", m.Committed()},
	} {
		kib(b, l.name, l.n)
	}
	fmt.Fprintf(b, "VmallocTotal:   34359738367 kB\n")
	for _, n := range [...]string{"VmallocUsed", "VmallocChunk", "Percpu", "AnonHugePages", "ShmemHugePages", "ShmemPmdMapped", "FileHugePages", "FilePmdMapped", "Balloon"} {
		kib(b, n, 0)
	}
	b.WriteString("HugePages_Total:       0\nHugePages_Free:        0\nHugePages_Rsvd:        0\nHugePages_Surp:        0\n")
	kib(b, "Hugepagesize", 2<<20)
	kib(b, "Hugetlb", 0)
	kib(b, "DirectMap4k", 0)
	kib(b, "DirectMap2M", total)
	kib(b, "DirectMap1G", 0)
}

// busy is the CPU time that all living processes have used.
func (in *Instances) busy() time.Duration {
	u, s := in.cpuTimes()
	return u + s
}

func (in *Instances) cpuTimes() (user, sys time.Duration) {
	for _, tg := range in.k.ThreadGroups() {
		u, s := tg.CPUTimes()
		user, sys = user+u, sys+s
	}
	if i := in.k.Init(); i != nil {
		u, s := i.ChildCPUTimes()
		user, sys = user+u, sys+s
	}
	return user, sys
}

// stat is fs/proc/stat.c. Which CPU ran what is the host's affair: the times are spread evenly.
func (in *Instances) stat(b *bytes.Buffer) {
	user, sys := in.cpuTimes()
	n := in.k.NumCPUs()
	up := time.Since(in.k.BootTime())
	idle := max(up*time.Duration(n)-user-sys, 0)
	fmt.Fprintf(b, "cpu  %d 0 %d %d 0 0 0 0 0 0\n", ticks(user), ticks(sys), ticks(idle))
	d := time.Duration(n)
	for i := range n {
		fmt.Fprintf(b, "cpu%d %d 0 %d %d 0 0 0 0 0 0\n", i, ticks(user/d), ticks(sys/d), ticks(idle/d))
	}
	var switches int64
	for _, tg := range in.k.ThreadGroups() {
		for _, t := range tg.Tasks() {
			v, nv := t.Switches()
			switches += v + nv
		}
	}
	running, _ := in.k.NumRunning()
	boot := time.Now().Add(-up)
	fmt.Fprintf(b, "intr 0\nctxt %d\nbtime %d\nprocesses %d\nprocs_running %d\nprocs_blocked 0\nsoftirq 0 0 0 0 0 0 0 0 0 0 0\n",
		switches, boot.Unix(), in.k.Forks(), running)
}

func (in *Instances) vmstat(b *bytes.Buffer) {
	_, free, used := in.memory()
	fmt.Fprintf(b, "nr_free_pages %d\nnr_zone_inactive_anon 0\nnr_zone_active_anon %d\nnr_mlock 0\nnr_anon_pages %d\nnr_mapped 0\nnr_file_pages 0\nnr_dirty 0\nnr_writeback 0\n", free>>12, used>>12, used>>12)
	fmt.Fprintf(b, "pgpgin 0\npgpgout 0\npswpin 0\npswpout 0\npgfault 0\npgmajfault 0\noom_kill %d\n", in.k.OOMKills())
}

// cpuinfo is the host's, cut to the CPUs that guests see.
func (in *Instances) cpuinfo() string {
	parts := strings.SplitAfter(strings.TrimRight(in.opts.CPUInfo, "\n")+"\n\n", "\n\n")
	return strings.Join(parts[:min(len(parts)-1, in.k.NumCPUs())], "")
}

// addSysVIPC adds /proc/sysvipc.
func (in *Instances) addSysVIPC(tree *genfs.Tree) {
	for name, head := range map[string]string{
		"msg": "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime      ctime\n",
		"sem": "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n",
		"shm": "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap\n",
	} {
		tree.AddFile("sysvipc/"+name, 0o444, func(ctx vfs.Context, b *bytes.Buffer) error {
			b.WriteString(head)
			if gen := in.opts.SysVIPC[name]; gen != nil {
				gen(ipcOf(ctx, in.k), b)
			}
			return nil
		})
	}
}

func ipcOf(ctx vfs.Context, k *kernel.Kernel) *kernel.IPCNamespace {
	return k.Within(ctx).Namespaces().IPC
}
