package proc

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"

	"moat/sentry/fs/genfs"
	"moat/sentry/kernel"
	"moat/sentry/kernel/auth"
	"moat/sentry/vfs"
)

// sysctl is one file of /proc/sys. Values are shared by all instances, those below net by all in a network namespace.
type sysctl struct {
	path string
	perm uint16
	gen  func(ctx vfs.Context) string
	put  func(ctx vfs.Context, s string) error
}

// sysctls are all of them, and the values of those that are only kept.
type sysctls struct {
	k    *kernel.Kernel
	list []sysctl
	// changed is Options.Sysctl.
	changed func(n *kernel.NetNamespace, path, value string)

	mu sync.Mutex
	// values are those of all network namespaces that have not set their own (NetNamespace.Sysctls).
	values map[string]string // +checklocks:mu
}

// ints is a stored value that may be written: fields decimal numbers between lo and hi.
func (y *sysctls) ints(path, value string, lo, hi int64) {
	y.kept(path, value, func(was, s string) (string, error) {
		fs := strings.Fields(s)
		if len(fs) == 0 {
			return "", unix.EINVAL
		}
		fs = fs[:min(len(fs), len(strings.Fields(value)))] // more are left to a next write, which begins where it has no effect
		for i, f := range fs {
			v, err := genfs.Int(f, 0, 64)
			if hi == math.MaxInt64 && err == unix.ERANGE { // an unsigned long
				var n uint64
				n, err = genfs.Uint(f, 0, 64)
				v, fs[i] = hi, strconv.FormatUint(n, 10)
			} else {
				fs[i] = strconv.FormatInt(v, 10)
			}
			if err != nil || v < lo || v > hi || f[0] == '+' {
				return "", unix.EINVAL
			}
		}
		// Fewer numbers than there are change the first ones.
		old := strings.Fields(was)
		copy(old, fs)
		return strings.Join(old, "\t"), nil
	})
}

// kept is a stored value; check turns what it was and what was written into what is kept.
func (y *sysctls) kept(path, value string, check func(was, s string) (string, error)) {
	y.mu.Lock()
	y.values[path] = value
	y.mu.Unlock()
	y.list = append(y.list, sysctl{path, 0o644, func(ctx vfs.Context) string { return y.value(ctx, path) + "\n" }, func(ctx vfs.Context, s string) error {
		v, err := check(y.value(ctx, path), s)
		if err != nil {
			return err
		}
		if n := y.network(ctx, path); n != nil {
			n.Sysctls.Store(path, v)
			y.changed(n, path, v)
			return nil
		}
		y.mu.Lock()
		defer y.mu.Unlock()
		y.values[path] = v
		return nil
	}})
}

// network is the namespace whose values path has for ctx; nil for what all share.
func (y *sysctls) network(ctx vfs.Context, path string) *kernel.NetNamespace {
	if !strings.HasPrefix(path, "net/") {
		return nil
	}
	return y.k.Within(ctx).Namespaces().Net
}

func (y *sysctls) value(ctx vfs.Context, path string) string {
	if n := y.network(ctx, path); n != nil {
		if v, ok := n.Sysctls.Load(path); ok {
			return v.(string)
		}
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.values[path]
}

// fixed cannot be written.
func (y *sysctls) fixed(path, value string) {
	y.list = append(y.list, sysctl{path, 0o444, func(vfs.Context) string { return value + "\n" }, nil})
}

func (y *sysctls) computed(path string, perm uint16, gen func(ctx vfs.Context) string, put func(ctx vfs.Context, s string) error) {
	y.list = append(y.list, sysctl{path, perm, gen, put})
}

// uuid returns a random UUID (version 4).
func uuid() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func (y *sysctls) init(in *Instances) {
	y.k, y.changed = in.k, in.opts.Sysctl
	y.mu.Lock()
	y.values = map[string]string{}
	y.mu.Unlock()
	y.kernel(in)
	y.vm(in)
	y.fs()
	y.net()
}

// line is what proc_dostring takes of s: up to a NUL or the end of the line.
func line(s string) string {
	if i := strings.IndexAny(s, "\x00\n"); i >= 0 {
		return s[:i]
	}
	return s
}

func utsOf(ctx vfs.Context, k *kernel.Kernel) *kernel.UTSNamespace {
	return k.Within(ctx).Namespaces().UTS
}

func (y *sysctls) kernel(in *Instances) {
	k := in.k
	name := func(path string, get func(*kernel.UTSNamespace) string, set func(*kernel.UTSNamespace, string)) {
		y.computed(path, 0o644, func(ctx vfs.Context) string { return get(utsOf(ctx, k)) + "\n" }, func(ctx vfs.Context, s string) error {
			uts := utsOf(ctx, k)
			if !ctx.Credentials().HasCapIn(linux.CAP_SYS_ADMIN, uts.UserNamespace()) {
				return unix.EPERM
			}
			s = line(s)
			set(uts, s[:min(len(s), 64)])
			return nil
		})
	}
	name("kernel/hostname", func(u *kernel.UTSNamespace) string { h, _ := u.Names(); return h }, (*kernel.UTSNamespace).SetHost)
	name("kernel/domainname", func(u *kernel.UTSNamespace) string { _, d := u.Names(); return d }, (*kernel.UTSNamespace).SetDomain)
	y.fixed("kernel/ostype", "Linux")
	y.fixed("kernel/osrelease", kernel.Release)
	y.fixed("kernel/version", kernel.Version)
	y.fixed("kernel/arch", "x86_64")
	y.ints("kernel/pid_max", strconv.Itoa(kernel.PIDMax), 301, kernel.PIDMax)
	y.computed("kernel/ns_last_pid", 0o444, func(ctx vfs.Context) string { return strconv.Itoa(int(k.Within(ctx).PIDNamespace().LastPID())) + "\n" }, nil)
	y.kept("kernel/threads-max", strconv.Itoa(kernel.ThreadsMax), func(_, s string) (string, error) {
		n, err := genfs.Uint(strings.TrimSpace(s), 0, 64)
		if err != nil || n < 20 || n > kernel.ThreadsMax {
			return "", unix.EINVAL
		}
		k.SetThreadsMax(n)
		return strconv.FormatUint(n, 10), nil
	})
	y.fixed("kernel/cap_last_cap", strconv.Itoa(int(linux.CAP_LAST_CAP)))
	y.fixed("kernel/ngroups_max", "65536")
	y.fixed("kernel/overflowuid", "65534")
	y.fixed("kernel/overflowgid", "65534")
	y.kept("kernel/core_pattern", "core", func(_, s string) (string, error) { s = line(s); return s[:min(len(s), 127)], nil })
	y.ints("kernel/core_uses_pid", "0", 0, 1)
	y.ints("kernel/core_pipe_limit", "0", 0, math.MaxInt32)
	y.fixed("kernel/randomize_va_space", "2")
	y.ints("kernel/printk", "4\t4\t1\t7", 0, math.MaxInt32)
	y.ints("kernel/panic", "0", math.MinInt32, math.MaxInt32)
	y.ints("kernel/panic_on_oops", "0", 0, 1)
	y.fixed("kernel/tainted", "0")
	y.fixed("kernel/dmesg_restrict", "1")
	y.fixed("kernel/kptr_restrict", "1")
	y.fixed("kernel/perf_event_paranoid", "4")
	y.fixed("kernel/unprivileged_bpf_disabled", "2")
	y.fixed("kernel/modules_disabled", "1")
	y.fixed("kernel/sysrq", "0")
	y.fixed("kernel/io_uring_disabled", "2")
	y.fixed("kernel/sched_autogroup_enabled", "0")
	y.ints("kernel/sched_rr_timeslice_ms", "100", 0, math.MaxInt32)
	y.fixed("kernel/sched_rt_period_us", "1000000")
	y.fixed("kernel/sched_rt_runtime_us", "950000")
	y.ints("kernel/shmmax", "18446744073692774399", 0, math.MaxInt64)
	y.ints("kernel/shmall", "18446744073692774399", 0, math.MaxInt64)
	y.ints("kernel/shmmni", "4096", 0, 32768)
	y.ints("kernel/shm_rmid_forced", "0", 0, 1)
	y.ints("kernel/msgmax", "8192", 0, math.MaxInt32)
	y.ints("kernel/msgmnb", "16384", 0, math.MaxInt32)
	y.ints("kernel/msgmni", "32000", 0, 32768)
	y.ints("kernel/sem", "32000\t1024000000\t500\t32000", 0, math.MaxInt32)
	y.fixed("kernel/random/boot_id", uuid())
	y.computed("kernel/random/uuid", 0o444, func(vfs.Context) string { return uuid() + "\n" }, nil)
	y.fixed("kernel/random/entropy_avail", "256")
	y.fixed("kernel/random/poolsize", "256")
	y.ints("kernel/random/write_wakeup_threshold", "256", 0, 4096)
	y.ints("kernel/random/urandom_min_reseed_secs", "60", 0, math.MaxInt32)
	y.fixed("kernel/seccomp/actions_avail", "kill_process kill_thread trap errno user_notif trace log allow")
	y.ints("kernel/keys/maxkeys", "200", 0, math.MaxInt32)
	y.ints("kernel/keys/root_maxkeys", "1000000", 0, math.MaxInt32)
	y.fixed("kernel/pty/max", "4096")
	y.fixed("kernel/pty/reserve", "1024")
	for _, n := range [...]string{"user", "pid", "uts", "ipc", "net", "mnt", "cgroup", "time"} {
		y.ints("user/max_"+n+"_namespaces", "65536", 0, math.MaxInt32)
	}
}

func (y *sysctls) vm(in *Instances) {
	m := in.k.Memory()
	overcommit := func(path string, get func() int, set func(int) bool) {
		y.computed(path, 0o644, func(vfs.Context) string { return strconv.Itoa(get()) + "\n" }, func(_ vfs.Context, s string) error {
			v, err := genfs.Int(strings.TrimSpace(s), 0, 32)
			if err != nil || !set(int(v)) {
				return unix.EINVAL
			}
			return nil
		})
	}
	overcommit("vm/overcommit_memory", func() int { mode, _ := m.Overcommit(); return mode }, func(v int) bool {
		if _, r := m.Overcommit(); v >= 0 && v <= 2 {
			m.SetOvercommit(v, r)
			return true
		}
		return false
	})
	overcommit("vm/overcommit_ratio", func() int { _, r := m.Overcommit(); return r }, func(v int) bool {
		mode, _ := m.Overcommit()
		if v < 0 {
			return false
		}
		m.SetOvercommit(mode, v)
		return true
	})
	y.ints("vm/overcommit_kbytes", "0", 0, math.MaxInt64)
	y.ints("vm/max_map_count", "65530", 0, math.MaxInt32)
	y.ints("vm/mmap_min_addr", "65536", 0, math.MaxInt64)
	y.ints("vm/mmap_rnd_bits", "28", 28, 32)
	y.ints("vm/swappiness", "60", 0, 200)
	y.ints("vm/dirty_ratio", "20", 0, 100)
	y.ints("vm/dirty_background_ratio", "10", 0, 100)
	y.ints("vm/dirty_expire_centisecs", "3000", 0, math.MaxInt32)
	y.ints("vm/dirty_writeback_centisecs", "500", 0, math.MaxInt32)
	y.ints("vm/vfs_cache_pressure", "100", 0, math.MaxInt32)
	y.ints("vm/min_free_kbytes", "67584", 0, math.MaxInt32)
	y.ints("vm/oom_kill_allocating_task", "0", 0, 1)
	y.ints("vm/panic_on_oom", "0", 0, 2)
	y.ints("vm/legacy_va_layout", "0", 0, 1)
	y.ints("vm/drop_caches", "0", 0, 7)
	y.ints("vm/compaction_proactiveness", "20", 0, 100)
	y.fixed("vm/nr_hugepages", "0")
	y.fixed("vm/nr_overcommit_hugepages", "0")
	y.fixed("vm/unprivileged_userfaultfd", "0")
	y.fixed("vm/zone_reclaim_mode", "0")
}

func (y *sysctls) fs() {
	y.ints("fs/file-max", "9223372036854775807", 0, math.MaxInt64)
	y.fixed("fs/file-nr", "1024\t0\t9223372036854775807")
	y.ints("fs/nr_open", "1048576", 64, 1<<30)
	y.fixed("fs/inode-nr", "4096\t0")
	y.fixed("fs/inode-state", "4096\t0\t0\t0\t0\t0\t0")
	y.fixed("fs/dentry-state", "4096\t2048\t45\t0\t0\t0")
	y.computed("fs/aio-nr", 0o444, func(vfs.Context) string { return strconv.FormatUint(y.k.AIO.Load(), 10) + "\n" }, nil)
	y.computed("fs/aio-max-nr", 0o644, func(vfs.Context) string { return strconv.FormatUint(y.k.AIOMax.Load(), 10) + "\n" }, func(_ vfs.Context, s string) error {
		n, err := genfs.Uint(strings.TrimSpace(s), 0, 64)
		if err == nil {
			y.k.AIOMax.Store(n)
		}
		return err
	})
	y.kept("fs/pipe-max-size", "1048576", func(_, s string) (string, error) { // round_pipe_size
		n, err := genfs.Uint(strings.TrimSpace(s), 0, 32)
		if err != nil || n > 1<<31 {
			return "", unix.EINVAL
		}
		return strconv.Itoa(1 << bits.Len64(max(n, hostarch.PageSize)-1)), nil
	})
	y.ints("fs/pipe-user-pages-soft", "16384", 0, math.MaxInt64)
	y.ints("fs/pipe-user-pages-hard", "0", 0, math.MaxInt64)
	y.ints("fs/inotify/max_user_instances", "128", 0, math.MaxInt32)
	y.ints("fs/inotify/max_user_watches", "65536", 0, math.MaxInt32)
	y.ints("fs/inotify/max_queued_events", "16384", 0, math.MaxInt32)
	y.ints("fs/epoll/max_user_watches", "5000000", 0, math.MaxInt64)
	y.ints("fs/mqueue/queues_max", "256", 0, math.MaxInt32)
	y.ints("fs/mqueue/msg_max", "10", 1, 65536)
	y.ints("fs/mqueue/msgsize_max", "8192", 128, 16777216)
	y.ints("fs/mqueue/msg_default", "10", 1, 65536)
	y.ints("fs/mqueue/msgsize_default", "8192", 128, 16777216)
	y.ints("fs/mount-max", "100000", 1, math.MaxInt32)
	y.ints("fs/lease-break-time", "45", 0, math.MaxInt32)
	y.ints("fs/leases-enable", "1", 0, 1)
	y.ints("fs/suid_dumpable", "0", 0, 2)
	y.ints("fs/protected_symlinks", "1", 0, 1)
	y.ints("fs/protected_hardlinks", "1", 0, 1)
	y.ints("fs/protected_fifos", "0", 0, 2)
	y.ints("fs/protected_regular", "0", 0, 2)
	y.ints("fs/overflowuid", "65534", 0, 65535)
	y.ints("fs/overflowgid", "65534", 0, 65535)
}

func (y *sysctls) net() {
	for _, v := range [...]struct{ path, value string }{
		{"core/somaxconn", "4096"}, {"core/rmem_default", "212992"}, {"core/rmem_max", "212992"}, {"core/wmem_default", "212992"},
		{"core/wmem_max", "212992"}, {"core/optmem_max", "131072"}, {"core/netdev_max_backlog", "1000"}, {"core/busy_poll", "0"}, {"core/busy_read", "0"},
		{"ipv4/ip_forward", "0"}, {"ipv4/ip_local_port_range", "32768\t60999"}, {"ipv4/ip_local_reserved_ports", ""}, {"ipv4/ip_default_ttl", "64"},
		{"ipv4/ip_nonlocal_bind", "0"}, {"ipv4/ip_unprivileged_port_start", "1024"}, {"ipv4/ping_group_range", "0\t2147483647"},
		{"ipv4/tcp_rmem", "4096\t131072\t6291456"}, {"ipv4/tcp_wmem", "4096\t16384\t4194304"}, {"ipv4/tcp_mem", "190000\t253335\t380000"},
		{"ipv4/tcp_keepalive_time", "7200"}, {"ipv4/tcp_keepalive_intvl", "75"}, {"ipv4/tcp_keepalive_probes", "9"}, {"ipv4/tcp_fin_timeout", "60"},
		{"ipv4/tcp_syn_retries", "6"}, {"ipv4/tcp_synack_retries", "5"}, {"ipv4/tcp_retries1", "3"}, {"ipv4/tcp_retries2", "15"},
		{"ipv4/tcp_syncookies", "1"}, {"ipv4/tcp_timestamps", "1"}, {"ipv4/tcp_sack", "1"}, {"ipv4/tcp_window_scaling", "1"},
		{"ipv4/tcp_tw_reuse", "2"}, {"ipv4/tcp_max_syn_backlog", "512"}, {"ipv4/tcp_fastopen", "1"}, {"ipv4/tcp_ecn", "2"}, {"ipv4/tcp_mtu_probing", "0"},
		{"ipv4/tcp_slow_start_after_idle", "1"}, {"ipv4/tcp_moderate_rcvbuf", "1"}, {"ipv4/tcp_no_metrics_save", "0"},
		{"ipv4/tcp_notsent_lowat", "4294967295"}, {"ipv4/udp_rmem_min", "4096"}, {"ipv4/udp_wmem_min", "4096"}, {"ipv4/conf/all/forwarding", "0"},
		{"ipv4/conf/default/forwarding", "0"}, {"ipv4/conf/lo/forwarding", "0"}, {"ipv4/conf/all/rp_filter", "0"}, {"ipv4/conf/default/rp_filter", "0"},
		{"ipv6/bindv6only", "0"}, {"ipv6/conf/all/disable_ipv6", "0"}, {"ipv6/conf/default/disable_ipv6", "0"}, {"ipv6/conf/lo/disable_ipv6", "0"},
		{"ipv6/conf/all/forwarding", "0"}, {"unix/max_dgram_qlen", "512"},
	} {
		if v.value == "" {
			y.kept("net/"+v.path, "", func(_, s string) (string, error) { return strings.TrimSpace(s), nil })
			continue
		}
		y.ints("net/"+v.path, v.value, math.MinInt32, math.MaxInt64)
	}
	y.kept("net/ipv4/tcp_congestion_control", "cubic", func(_, s string) (string, error) {
		if s = strings.TrimSpace(s); s != "cubic" && s != "reno" {
			return "", unix.ENOENT
		}
		return s, nil
	})
	y.fixed("net/ipv4/tcp_available_congestion_control", "reno cubic")
	y.fixed("net/ipv4/tcp_allowed_congestion_control", "reno cubic")
}

// add enters all of them in an instance's tree. Who may write is the mode's business: root, with the capabilities of the machine's owner.
func (y *sysctls) add(fs *genfs.FS, tree *genfs.Tree) {
	for i := range y.list {
		s := &y.list[i]
		file := &sysctlFile{y: y, s: s}
		genfs.InitFile(&file.File, fs, fs.NextIno(), s.perm)
		tree.Add("sys/"+s.path, file)
		file.Gen = func(ctx vfs.Context, b *bytes.Buffer) error {
			b.WriteString(s.gen(ctx))
			return nil
		}
		if s.put == nil {
			continue
		}
		file.Put = func(ctx vfs.Context, _ *vfs.FileDescription, data []byte, off int64) error {
			if off != 0 {
				return nil // sysctl_writes_strict: only the start counts
			}
			return s.put(ctx, string(data))
		}
	}
}

// sysctlFile is the file of s. One below net belongs to the root of the user namespace that owns the reader's network (net_ctl_set_ownership).
type sysctlFile struct {
	genfs.File
	y *sysctls
	s *sysctl
}

// owner is that user namespace, nil for files that belong to the machine's root.
func (f *sysctlFile) owner(ctx vfs.Context) *auth.UserNamespace {
	if n := f.y.network(ctx, f.s.path); n != nil {
		return n.UserNamespace()
	}
	return nil
}

// Attr implements vfs.Inode.
func (f *sysctlFile) Attr(ctx vfs.Context) (vfs.Attr, error) {
	a, err := f.File.Attr(ctx)
	if u := f.owner(ctx); u != nil && u.MapFromKUID(u.MapToKUID(0)) == 0 && u.MapFromKGID(u.MapToKGID(0)) == 0 {
		a.UID, a.GID = u.MapToKUID(0), u.MapToKGID(0)
	}
	return a, err
}

// Permission implements vfs.PermissionChecker: who administers the network is as its root (net_ctl_permissions).
func (f *sysctlFile) Permission(ctx vfs.Context, c *auth.Credentials, may uint) error {
	if u := f.owner(ctx); u != nil && c.HasCapIn(linux.CAP_NET_ADMIN, u) && may&^uint(f.s.perm>>6)&7 == 0 {
		return nil
	}
	return vfs.GenericPermission(ctx, c, f, may)
}

var _ vfs.PermissionChecker = (*sysctlFile)(nil)
