package proc

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"

	"moat/sentry/fs/genfs"
	"moat/sentry/kernel"
	"moat/sentry/mm"
	"moat/sentry/vfs"
)

// escapeComm is a command name as status shows it: newline and backslash escaped.
func escapeComm(s string) string {
	return strings.NewReplacer("\\", "\\\\", "\n", "\\n").Replace(s)
}

// genStatus is fs/proc/array.c proc_pid_status.
func genStatus(s subject, ctx vfs.Context, b *bytes.Buffer) error {
	t, ns := s.t, s.f.pidns
	tg := t.ThreadGroup()
	reader := ctx.Credentials().UserNS
	c := t.Credentials()
	mask, haveFS := t.PeekUmask()
	fmt.Fprintf(b, "Name:\t%s\n", escapeComm(t.Name()))
	if haveFS {
		fmt.Fprintf(b, "Umask:\t%#04o\n", mask)
	}
	ppid, tracer := int32(0), int32(0)
	if p := t.Tracer(); p != nil {
		tracer = p.TIDIn(ns)
	}
	if p := tg.Parent(); p != nil {
		ppid = p.PIDIn(ns)
	}
	fmt.Fprintf(b, "State:\t%s\nTgid:\t%d\nNgid:\t0\nPid:\t%d\nPPid:\t%d\nTracerPid:\t%d\n", t.State(), tg.PIDIn(ns), t.TIDIn(ns), ppid, tracer)
	fmt.Fprintf(b, "Uid:\t%d\t%d\t%d\t%d\n", reader.UIDOrOverflow(c.RUID), reader.UIDOrOverflow(c.EUID), reader.UIDOrOverflow(c.SUID), reader.UIDOrOverflow(c.FSUID))
	fmt.Fprintf(b, "Gid:\t%d\t%d\t%d\t%d\n", reader.GIDOrOverflow(c.RGID), reader.GIDOrOverflow(c.EGID), reader.GIDOrOverflow(c.SGID), reader.GIDOrOverflow(c.FSGID))
	size := 0
	if fdt := t.GetFDTable(); fdt != nil {
		size = fdt.Size()
		fdt.DecRef(ctx)
	}
	fmt.Fprintf(b, "FDSize:\t%d\nGroups:\t", size)
	for _, g := range c.Groups {
		fmt.Fprintf(b, "%d ", reader.GIDOrOverflow(g))
	}
	if len(c.Groups) == 0 {
		b.WriteByte(' ')
	}
	b.WriteByte('\n')
	nums := func(label string, p *kernel.PID) {
		b.WriteString(label)
		for _, n := range p.Nums(ns) {
			fmt.Fprintf(b, "\t%d", n)
		}
		b.WriteByte('\n')
	}
	nums("NStgid:", tg.ID())
	nums("NSpid:", t.ID())
	var pg, sid *kernel.PID
	if g := tg.ProcessGroup(); g != nil {
		pg = g.PID()
	}
	if g := tg.Session(); g != nil {
		sid = g.PID()
	}
	nums("NSpgid:", pg)
	nums("NSsid:", sid)
	b.WriteString("Kthread:\t0\n")
	if m := s.mm(); m != nil {
		statusMemory(b, m)
		m.DecUsers()
	}
	private, shared, blocked, ignored, caught := t.PendingSets()
	pending := int64(0)
	if u := t.User(); u != nil {
		pending = u.Pending()
	}
	fmt.Fprintf(b, "Threads:\t%d\nSigQ:\t%d/%d\n", tg.NumTasks(), pending, tg.Limit(linux.RLIMIT_SIGPENDING).Cur)
	fmt.Fprintf(b, "SigPnd:\t%016x\nShdPnd:\t%016x\nSigBlk:\t%016x\nSigIgn:\t%016x\nSigCgt:\t%016x\n", uint64(private), uint64(shared), uint64(blocked), uint64(ignored), uint64(caught))
	fmt.Fprintf(b, "CapInh:\t%016x\nCapPrm:\t%016x\nCapEff:\t%016x\nCapBnd:\t%016x\nCapAmb:\t%016x\n",
		uint64(c.Inheritable), uint64(c.Permitted), uint64(c.Effective), uint64(c.Bounding), uint64(c.Ambient))
	nnp := 0
	if t.NoNewPrivs() {
		nnp = 1
	}
	fmt.Fprintf(b, "NoNewPrivs:\t%d\nSeccomp:\t%d\nSeccomp_filters:\t%d\n", nnp, t.SeccompMode(), t.SeccompFilters())
	b.WriteString("Speculation_Store_Bypass:\tvulnerable\nSpeculationIndirectBranch:\talways enabled\n")
	set := t.Affinity()
	fmt.Fprintf(b, "Cpus_allowed:\t%s\nCpus_allowed_list:\t%s\n", cpuMask(&set, s.f.k.NumCPUs()), cpuList(&set, s.f.k.NumCPUs()))
	b.WriteString("Mems_allowed:\t1\nMems_allowed_list:\t0\n")
	v, nv := t.Switches()
	fmt.Fprintf(b, "voluntary_ctxt_switches:\t%d\nnonvoluntary_ctxt_switches:\t%d\n", v, nv)
	return nil
}

// statusMemory is task_mem and what follows it.
func statusMemory(b *bytes.Buffer, m *mm.MemoryManager) {
	st := m.Stats()
	lib := uint64(0)
	if st.Exec > 0 {
		a := m.Areas()
		text := min(pageUp(uint64(a.EndCode))-pageDown(uint64(a.StartCode)), st.Exec)
		lib = st.Exec - text
		st.Exec = text
	}
	for _, l := range [...]struct {
		name string
		n    uint64
	}{
		{"VmPeak", st.Peak}, {"VmSize", st.Total}, {"VmLck", st.Locked}, {"VmPin", 0}, {"VmHWM", st.RssPeak}, {"VmRSS", st.Rss},
		{"RssAnon", st.RssAnon}, {"RssFile", st.RssFile}, {"RssShmem", st.RssShm}, {"VmData", st.Data}, {"VmStk", st.Stack},
		{"VmExe", st.Exec}, {"VmLib", lib}, {"VmPTE", st.PageTables}, {"VmSwap", 0}, {"HugetlbPages", 0},
	} {
		fmt.Fprintf(b, "%s:\t%8d kB\n", l.name, l.n>>10)
	}
	b.WriteString("CoreDumping:\t0\nTHP_enabled:\t1\nuntag_mask:\t0xffffffffffffffff\n")
}

func pageUp(n uint64) uint64   { return (n + hostarch.PageSize - 1) &^ (hostarch.PageSize - 1) }
func pageDown(n uint64) uint64 { return n &^ (hostarch.PageSize - 1) }

// cpuMask prints a set of CPUs in hexadecimal words (%*pb), cpuList as ranges (%*pbl).
func cpuMask(set *kernel.CPUSet, n int) string {
	var words []string
	for w := (n+31)/32 - 1; w >= 0; w-- {
		v := uint32(set[w/2] >> (32 * (w % 2)))
		width := 8
		if rest := n - w*32; rest < 32 {
			width = (rest + 3) / 4
		}
		words = append(words, fmt.Sprintf("%0*x", width, v))
	}
	return strings.Join(words, ",")
}

func cpuList(set *kernel.CPUSet, n int) string {
	var out []string
	for i := 0; i < n; i++ {
		if !set.Has(i) {
			continue
		}
		j := i
		for j+1 < n && set.Has(j+1) {
			j++
		}
		if i == j {
			out = append(out, strconv.Itoa(i))
		} else {
			out = append(out, fmt.Sprintf("%d-%d", i, j))
		}
		i = j
	}
	return strings.Join(out, ",")
}

// ticks is a duration in clock ticks (USER_HZ is 100).
func ticks(d time.Duration) int64 { return int64(d / (10 * time.Millisecond)) }

// genStat is fs/proc/array.c do_task_stat.
func genStat(s subject, ctx vfs.Context, b *bytes.Buffer) error {
	t, ns := s.t, s.f.pidns
	tg := t.ThreadGroup()
	permitted := s.mayAccess(ctx, unix.EPERM) == nil
	pid := func(p *kernel.PID) int32 {
		if p == nil {
			return 0
		}
		return p.In(ns)
	}
	ppid, pgid, sid, tty, tpgid := int32(0), int32(0), int32(0), uint64(0), int32(-1)
	if p := tg.Parent(); p != nil {
		ppid = p.PIDIn(ns)
	}
	if g := tg.ProcessGroup(); g != nil {
		pgid = pid(g.PID())
	}
	if g := tg.Session(); g != nil {
		sid = pid(g.PID())
	}
	if c := tg.ControllingTTY(); c != nil {
		tty = encodeDev(c.Device())
		if g := tg.Foreground(); g != nil {
			tpgid = pid(g.PID())
		}
	}
	var minflt, majflt, cminflt, cmajflt int64
	var utime, stime, cutime, cstime time.Duration
	if s.thread {
		minflt, majflt = t.Faults()
		utime, stime = t.CPUTimes()
	} else {
		if r, err := t.Rusage(linux.RUSAGE_SELF); err == nil {
			minflt, majflt = r.MinFlt, r.MajFlt
		}
		utime, stime = tg.CPUTimes()
	}
	if r, err := t.Rusage(linux.RUSAGE_CHILDREN); err == nil {
		cminflt, cmajflt = r.MinFlt, r.MajFlt
	}
	cutime, cstime = tg.ChildCPUTimes()
	policy, rtprio := t.SchedPolicy()
	policy &^= linux.SCHED_RESET_ON_FORK
	nice := t.Nice()
	prio := 20 + nice
	if rtprio > 0 {
		prio = -1 - rtprio
	}
	var st mm.Stats
	var a mm.Areas
	m := s.mm()
	if m != nil {
		st, a = m.Stats(), m.Areas()
		m.DecUsers()
	}
	addr := func(v hostarch.Addr) uint64 {
		if !permitted || m == nil {
			return 0
		}
		return uint64(v)
	}
	code := func(v hostarch.Addr) uint64 {
		switch {
		case m == nil:
			return 0
		case !permitted:
			return 1
		}
		return uint64(v)
	}
	private, _, blocked, ignored, caught := t.PendingSets()
	exitSignal, exitCode := int(linux.SIGCHLD), 0
	if s.thread && t != tg.Leader() {
		exitSignal = -1
	}
	if permitted && t.State() == kernel.Zombie {
		exitCode = int(tg.ExitStatus())
	}
	fmt.Fprintf(b, "%d (%s) %c %d %d %d %d %d %d", t.TIDIn(ns), t.Name(), t.State().String()[0], ppid, pgid, sid, int32(tty), tpgid, 0x400000)
	fmt.Fprintf(b, " %d %d %d %d %d %d %d %d", minflt, cminflt, majflt, cmajflt, ticks(utime), ticks(stime), ticks(cutime), ticks(cstime))
	start := t.StartTime()
	if !s.thread {
		start = tg.StartTime()
	}
	fmt.Fprintf(b, " %d %d %d 0 %d %d %d %d", prio, nice, tg.NumTasks(), max(0, ticks(start.Sub(s.f.k.BootTime()))), st.Total, st.Rss/hostarch.PageSize, tg.Limit(linux.RLIMIT_RSS).Cur)
	fmt.Fprintf(b, " %d %d %d 0 0", code(a.StartCode), code(a.EndCode), addr(a.StartStack))
	fmt.Fprintf(b, " %d %d %d %d %d 0 0", uint64(private)&0x7fffffff, uint64(blocked)&0x7fffffff, uint64(ignored)&0x7fffffff, uint64(caught)&0x7fffffff, bit(t.State() != kernel.Running))
	fmt.Fprintf(b, " %d %d %d %d 0 0 0", exitSignal, t.CPU(), rtprio, policy)
	fmt.Fprintf(b, " %d %d %d %d %d %d %d %d\n", addr(a.StartData), addr(a.EndData), addr(a.StartBrk), addr(a.ArgStart), addr(a.ArgEnd), addr(a.EnvStart), addr(a.EnvEnd), exitCode)
	return nil
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// encodeDev is new_encode_dev.
func encodeDev(dev uint64) uint64 {
	major, minor := uint64(unix.Major(dev)), uint64(unix.Minor(dev))
	return minor&0xff | major<<8 | (minor&^0xff)<<12
}

// genStatm is fs/proc/array.c proc_pid_statm, in pages.
func genStatm(s subject, _ vfs.Context, b *bytes.Buffer) error {
	m := s.mm()
	if m == nil {
		b.WriteString("0 0 0 0 0 0 0\n")
		return nil
	}
	defer m.DecUsers()
	st, a := m.Stats(), m.Areas()
	text := pageUp(uint64(a.EndCode)) - pageDown(uint64(a.StartCode))
	fmt.Fprintf(b, "%d %d %d %d 0 %d 0\n", st.Total>>12, st.Rss>>12, (st.RssFile+st.RssShm)>>12, text>>12, (st.Data+st.Stack)>>12)
	return nil
}

// genSchedstat is time on the CPU and time waiting in nanoseconds, and time slices.
func genSchedstat(s subject, _ vfs.Context, b *bytes.Buffer) error {
	u, sys := s.t.CPUTimes()
	v, nv := s.t.Switches()
	fmt.Fprintf(b, "%d 0 %d\n", (u + sys).Nanoseconds(), v+nv)
	return nil
}

// genIO is task_io_accounting; the host does the reading and writing, and is not asked.
func genIO(s subject, _ vfs.Context, b *bytes.Buffer) error {
	b.WriteString("rchar: 0\nwchar: 0\nsyscr: 0\nsyscw: 0\nread_bytes: 0\nwrite_bytes: 0\ncancelled_write_bytes: 0\n")
	return nil
}

var limitNames = [...]struct{ name, unit string }{
	linux.RLIMIT_CPU: {"Max cpu time", "seconds"}, linux.RLIMIT_FSIZE: {"Max file size", "bytes"}, linux.RLIMIT_DATA: {"Max data size", "bytes"},
	linux.RLIMIT_STACK: {"Max stack size", "bytes"}, linux.RLIMIT_CORE: {"Max core file size", "bytes"}, linux.RLIMIT_RSS: {"Max resident set", "bytes"},
	linux.RLIMIT_NPROC: {"Max processes", "processes"}, linux.RLIMIT_NOFILE: {"Max open files", "files"}, linux.RLIMIT_MEMLOCK: {"Max locked memory", "bytes"},
	linux.RLIMIT_AS: {"Max address space", "bytes"}, linux.RLIMIT_LOCKS: {"Max file locks", "locks"}, linux.RLIMIT_SIGPENDING: {"Max pending signals", "signals"},
	linux.RLIMIT_MSGQUEUE: {"Max msgqueue size", "bytes"}, linux.RLIMIT_NICE: {"Max nice priority", ""}, linux.RLIMIT_RTPRIO: {"Max realtime priority", ""},
	linux.RLIMIT_RTTIME: {"Max realtime timeout", "us"},
}

// genLimits is fs/proc/base.c proc_pid_limits.
func genLimits(s subject, _ vfs.Context, b *bytes.Buffer) error {
	value := func(v uint64) string {
		if v == linux.RLimInfinity {
			return "unlimited"
		}
		return strconv.FormatUint(v, 10)
	}
	fmt.Fprintf(b, "%-25s %-20s %-20s %-10s\n", "Limit", "Soft Limit", "Hard Limit", "Units")
	for i, l := range s.t.ThreadGroup().Limits() {
		fmt.Fprintf(b, "%-25s %-20s %-20s ", limitNames[i].name, value(l.Cur), value(l.Max))
		if u := limitNames[i].unit; u != "" {
			fmt.Fprintf(b, "%-10s", u)
		}
		b.WriteByte('\n')
	}
	return nil
}

func genComm(s subject, _ vfs.Context, b *bytes.Buffer) error {
	b.WriteString(s.t.Name() + "\n")
	return nil
}

// putComm is comm_write: a process may name its own threads. The name ends at a newline only if the caller's does not.
func putComm(s subject, ctx vfs.Context, data []byte, _ int64) error {
	if t := task(ctx); t == nil || t.ThreadGroup() != s.t.ThreadGroup() {
		return unix.EINVAL
	}
	s.t.SetName(strings.TrimSuffix(string(data[:min(len(data), 15)]), "\n"))
	return nil
}

func genPersonality(s subject, _ vfs.Context, b *bytes.Buffer) error {
	fmt.Fprintf(b, "%08x\n", s.t.Personality())
	return nil
}

func genTimerSlack(s subject, _ vfs.Context, b *bytes.Buffer) error {
	fmt.Fprintf(b, "%d\n", s.t.TimerSlack())
	return nil
}

func putTimerSlack(s subject, ctx vfs.Context, data []byte, _ int64) error {
	n, err := genfs.Uint(string(data), 10, 63)
	if err != nil {
		return err
	}
	if t := task(ctx); t != s.t && !ctx.Credentials().HasCapIn(linux.CAP_SYS_NICE, s.t.UserNamespace()) {
		return unix.EPERM
	}
	s.t.SetTimerSlack(int64(n))
	return nil
}

func genChildren(s subject, _ vfs.Context, b *bytes.Buffer) error {
	if s.t != s.t.ThreadGroup().Leader() {
		return nil
	}
	for _, c := range s.t.ThreadGroup().Children() {
		fmt.Fprintf(b, "%d ", c.PIDIn(s.f.pidns))
	}
	return nil
}

func genCgroup(s subject, ctx vfs.Context, b *bytes.Buffer) error {
	b.WriteString("0::" + s.t.Cgroup().PathFrom(s.f.k.Within(ctx).Namespaces().Cgroup.Root) + "\n")
	return nil
}

// genOOMScore is proc_oom_score.
func genOOMScore(s subject, _ vfs.Context, b *bytes.Buffer) error {
	score := int64(0)
	if m := s.mm(); m != nil {
		if points, ok := s.f.k.OOMBadness(m, s.t.ThreadGroup().OOMScoreAdj()); ok {
			score = max(0, (1000+points*1000/max(1, s.f.k.OOMTotal()))*2/3)
		}
		m.DecUsers()
	}
	fmt.Fprintf(b, "%d\n", score)
	return nil
}

func genOOMScoreAdj(s subject, _ vfs.Context, b *bytes.Buffer) error {
	fmt.Fprintf(b, "%d\n", s.t.ThreadGroup().OOMScoreAdj())
	return nil
}

func setOOM(s subject, ctx vfs.Context, v int64, old bool) error {
	return s.t.ThreadGroup().SetOOMScoreAdj(int32(v), old, ctx.Credentials().HasCap(linux.CAP_SYS_RESOURCE))
}

func putOOMScoreAdj(s subject, ctx vfs.Context, data []byte, _ int64) error {
	n, err := genfs.Int(genfs.Strip(data), 0, 32)
	if err == nil && (n < -1000 || n > 1000) {
		err = unix.EINVAL
	}
	if err != nil {
		return err
	}
	return setOOM(s, ctx, n, false)
}

// The old scale of oom_adj is -17 to 15.
func genOOMAdj(s subject, _ vfs.Context, b *bytes.Buffer) error {
	v := s.t.ThreadGroup().OOMScoreAdj()
	switch {
	case v == 1000:
		v = 15
	case v > 0:
		v = v * 17 / 1000
	default:
		v = v * 17 / 1000
	}
	fmt.Fprintf(b, "%d\n", v)
	return nil
}

func putOOMAdj(s subject, ctx vfs.Context, data []byte, _ int64) error {
	n, err := genfs.Int(genfs.Strip(data), 0, 32)
	switch {
	case err != nil:
		return err
	case n < -17 || n > 15:
		return unix.EINVAL
	case n == 15:
		return setOOM(s, ctx, 1000, true)
	}
	return setOOM(s, ctx, n*1000/17, true)
}
