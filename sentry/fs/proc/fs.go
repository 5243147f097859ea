// Package proc is procfs (proc(5)), printed byte for byte as Linux 6.x does.
//
// A mount shows the processes of one PID namespace: that of its maker. The fixed files are a genfs tree; what is below
// a PID is made at lookup, from one table (taskFiles), and holds the *kernel.Task. A task that was reaped answers ESRCH, or ENOENT in path walks.
//
// Who may look: files that Linux guards with ptrace_may_access are guarded by mayAccess.
//
// Locks: none of its own but sysctl values; kernel, mm and vfs locks are taken by their accessors, one at a time.
package proc

import (
	"bytes"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"

	"moat/sentry/fs/genfs"
	"moat/sentry/kernel"
	"moat/sentry/vfs"
)

// Options are what the kernel does not know itself.
type Options struct {
	// CPUInfo is /proc/cpuinfo of the host, read before the sentry was locked in; empty: made from CPUID.
	CPUInfo string
	// Cmdline is /proc/cmdline.
	Cmdline string
	// Net prints /proc/PID/net/NAME for a network namespace; nil leaves the tables empty.
	Net map[string]func(ns *kernel.NetNamespace, b *bytes.Buffer)
	// Sysctl is told of a value below /proc/sys/net that was written in a network namespace, by its path in /proc/sys.
	Sysctl func(ns *kernel.NetNamespace, path, value string)
	// SysVIPC prints /proc/sysvipc/NAME ("msg", "sem", "shm") below the heading.
	SysVIPC map[string]func(ns *kernel.IPCNamespace, b *bytes.Buffer)
}

// FS is one instance of procfs.
type FS struct {
	*genfs.FS
	k     *kernel.Kernel
	pidns *kernel.PIDNamespace
	opts  *Options
	net   *genfs.Dir
	nsfs  *genfs.FS
	ns    *vfs.KernelMount // of nsfs
}

// Instances makes instances that share what has no namespace (sysctl values).
type Instances struct {
	k    *kernel.Kernel
	opts Options
	sys  sysctls
	nsfs *genfs.FS
	ns   *vfs.KernelMount
	// idle is the most idle time that /proc/uptime told.
	idle atomic.Int64
}

// NewInstances prepares procfs for k and registers it with mount(2) as "proc". Call it before the sentry is locked in.
func NewInstances(k *kernel.Kernel, opts Options) (*Instances, error) {
	nsfs := genfs.New("nsfs", linux.NSFS_MAGIC)
	nsfs.SetRoot(genfs.NewDir(nsfs, 1, 0o555, nil))
	m, err := vfs.NewKernelMount(nsfs)
	if err != nil {
		return nil, err
	}
	in := &Instances{k: k, opts: opts, nsfs: nsfs, ns: m}
	if in.opts.CPUInfo == "" {
		in.opts.CPUInfo = hostCPUInfo(k.NumCPUs())
	}
	in.sys.init(in)
	vfs.RegisterFileSystem("proc", func(ctx vfs.Context, _, data string) (vfs.FileSystem, error) {
		f := in.New(k.Within(ctx).PIDNamespace())
		if slices.Contains(strings.Split(data, ","), "subset=pid") { // the processes alone
			f.SetRoot(genfs.NewDir(f.FS, 1, 0o555, pids{f}))
		}
		return f, nil
	}, kernel.OwnedBy(func(t *kernel.Task) kernel.Owned { return t.PIDNamespace() }))
	return in, nil
}

// New returns an instance that shows the processes of pidns.
func (in *Instances) New(pidns *kernel.PIDNamespace) *FS {
	f := &FS{FS: genfs.New("proc", linux.PROC_SUPER_MAGIC), k: in.k, pidns: pidns, opts: &in.opts, nsfs: in.nsfs, ns: in.ns}
	// Inode 1 is the root's.
	f.NextIno()
	tree := genfs.NewTree(f.FS)
	in.addSystem(f, tree)
	in.sys.add(f.FS, tree)
	f.net = f.netDir()
	f.SetRoot(genfs.NewDir(f.FS, 1, 0o555, pids{f}, tree.Children()...))
	return f
}

// FixedNames implements vfs.FixedNames.
func (f *FS) FixedNames() {}

// task is the caller as a task, or nil for the kernel itself.
func task(ctx vfs.Context) *kernel.Task {
	if t, ok := ctx.(interface{ Self() *kernel.Task }); ok {
		return t.Self()
	}
	return nil
}

// pids is the dynamic part of the root: a directory for each process. A thread's own ID can be looked up too, though it is not listed.
type pids struct{ f *FS }

// Find implements genfs.Dynamic.
func (p pids) Find(ctx vfs.Context, name string) (vfs.Inode, error) {
	f := p.f
	switch name {
	case "self":
		return f.selfLink(false), nil
	case "thread-self":
		return f.selfLink(true), nil
	}
	n, ok := number(name)
	if !ok {
		return nil, unix.ENOENT
	}
	t := f.pidns.Task(n)
	if t == nil {
		return nil, unix.ENOENT
	}
	return f.taskDir(t, false), nil
}

// List implements genfs.Dynamic: self and thread-self have keys 0 and 1, process n has 2+n.
func (p pids) List(_ vfs.Context, from int64, emit func(int64, string, uint8, uint64) bool) error {
	if from <= 0 && !emit(0, "self", unix.DT_LNK, selfIno) || from <= 1 && !emit(1, "thread-self", unix.DT_LNK, selfIno+1) {
		return nil
	}
	var ns []int
	for _, tg := range p.f.pidns.ThreadGroups() {
		if n := int64(tg.PIDIn(p.f.pidns)); n > 0 && 2+n >= from {
			ns = append(ns, int(n))
		}
	}
	sort.Ints(ns)
	for _, n := range ns {
		if !emit(2+int64(n), strconv.Itoa(n), unix.DT_DIR, taskIno(int32(n), false, 0)) {
			return nil
		}
	}
	return nil
}

// number is a PID or descriptor as a name: decimal, no leading zero (name_to_int).
func number(s string) (int32, bool) {
	if s == "" || s[0] < '0' || s[0] > '9' || s[0] == '0' && len(s) > 1 {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 32)
	return int32(n), err == nil
}

// Inode numbers: the fixed tree has small ones; then comes a bit for the kind, the thread ID, and what it is of the task's.
const (
	selfIno    = 1 << 16
	taskBit    = 1 << 44
	threadBit  = 1 << 45
	fdBit      = 1 << 46
	fdinfoBit  = 1 << 47
	taskInoGap = 256
)

func taskIno(tid int32, thread bool, index int) uint64 {
	ino := taskBit + uint64(tid)*taskInoGap + uint64(index)
	if thread {
		ino |= threadBit
	}
	return ino
}

// selfLink is /proc/self or /proc/thread-self.
func (f *FS) selfLink(thread bool) vfs.Inode {
	ino := uint64(selfIno)
	if thread {
		ino++
	}
	return genfs.NewLink(f.FS, ino, 0o777, func(ctx vfs.Context) (string, error) {
		t := task(ctx)
		if t == nil {
			return "", unix.ENOENT
		}
		pid, tid := t.ThreadGroup().PIDIn(f.pidns), t.TIDIn(f.pidns)
		switch {
		case pid == 0 || tid == 0:
			return "", unix.ENOENT
		case thread:
			return fmt.Sprintf("%d/task/%d", pid, tid), nil
		}
		return strconv.Itoa(int(pid)), nil
	})
}
