package proc

import (
	"bytes"
	"fmt"
	"sort"
	"strconv"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"

	"moat/sentry/fs/genfs"
	"moat/sentry/kernel"
	"moat/sentry/kernel/auth"
	"moat/sentry/mm"
	"moat/sentry/vfs"
)

// subject is the process (or thread) that a file is about.
type subject struct {
	f      *FS
	t      *kernel.Task
	thread bool // below task/
}

// gone is ESRCH if the task was reaped.
func (s subject) gone() error {
	if tid := s.t.TIDIn(s.f.pidns); tid == 0 || s.f.pidns.Task(tid) != s.t {
		return unix.ESRCH
	}
	return nil
}

// mm returns the task's address space with a user counted, or nil if it has none (any more).
func (s subject) mm() *mm.MemoryManager {
	if m := s.t.MemoryManager(); m != nil && m.IncUsersIfAlive() {
		return m
	}
	return nil
}

// euser is the owner of the task's directories that everybody may list: its effective IDs.
func (s subject) euser() (auth.KUID, auth.KGID) {
	c := s.t.Credentials()
	return c.EUID, c.EGID
}

// owner is the owner of the task's files (task_dump_owner): its effective IDs, root's if it must not be looked at.
func (s subject) owner() (auth.KUID, auth.KGID) {
	if m := s.t.MemoryManager(); m != nil && m.Dumpable.Load() != 1 {
		return 0, 0
	}
	return s.euser()
}

// mayAccess is ptrace_may_access with the caller's file system IDs (PTRACE_MODE_FSCREDS). err is what it fails with.
func (s subject) mayAccess(ctx vfs.Context, err error) error {
	if t := task(ctx); t == nil || t.ThreadGroup() == s.t.ThreadGroup() {
		return nil
	}
	c, o := ctx.Credentials(), s.t.Credentials()
	same := c.FSUID == o.EUID && c.FSUID == o.SUID && c.FSUID == o.RUID && c.FSGID == o.EGID && c.FSGID == o.SGID && c.FSGID == o.RGID
	if !same && !c.HasCapIn(linux.CAP_SYS_PTRACE, o.UserNS) {
		return err
	}
	if m := s.t.MemoryManager(); m != nil && m.Dumpable.Load() != 1 && !c.HasCapIn(linux.CAP_SYS_PTRACE, o.UserNS) {
		return err
	}
	return nil
}

// Where a file is found.
const (
	inProcess = 1 << iota
	inThread
	inBoth = inProcess | inThread
)

// taskFile is one name below /proc/PID or /proc/PID/task/TID.
type taskFile struct {
	name  string
	perm  uint16
	where int
	// gen and put print and take a file; guarded ones need mayAccess to be opened.
	gen     func(s subject, ctx vfs.Context, b *bytes.Buffer) error
	put     func(s subject, ctx vfs.Context, data []byte, off int64) error
	guarded bool
	// link makes a symlink; dir a directory.
	link func(s subject) (target func(vfs.Context) (string, error), jump func(vfs.Context) (vfs.Path, error))
	dir  func(s subject, ino uint64, perm uint16) vfs.Inode
	// open makes a file that is neither.
	open func(s subject, ino uint64, perm uint16) vfs.Inode
}

// taskFiles is set by init, for its functions refer to it.
var (
	taskFiles []taskFile
	taskIndex = map[string]int{}
)

func init() {
	taskFiles = []taskFile{
		{name: "task", perm: 0o555, where: inProcess, dir: tasksDir},
		{name: "fd", perm: 0o500, where: inBoth, dir: fdDir},
		{name: "fdinfo", perm: 0o555, where: inBoth, dir: fdinfoDir},
		{name: "ns", perm: 0o511, where: inBoth, dir: nsDir},
		{name: "net", perm: 0o555, where: inBoth, dir: func(s subject, ino uint64, _ uint16) vfs.Inode { return s.f.net }},
		{name: "environ", perm: 0o400, where: inBoth, gen: ofMM(genEnviron), guarded: true},
		{name: "auxv", perm: 0o400, where: inBoth, gen: ofMM(genAuxv), guarded: true},
		{name: "status", perm: 0o444, where: inBoth, gen: genStatus},
		{name: "personality", perm: 0o400, where: inBoth, gen: genPersonality, guarded: true},
		{name: "limits", perm: 0o444, where: inBoth, gen: genLimits},
		{name: "comm", perm: 0o644, where: inBoth, gen: genComm, put: putComm},
		{name: "syscall", perm: 0o400, where: inBoth, gen: genSyscall, guarded: true},
		{name: "cmdline", perm: 0o444, where: inBoth, gen: ofMM(genCmdline)},
		{name: "stat", perm: 0o444, where: inBoth, gen: genStat},
		{name: "statm", perm: 0o444, where: inBoth, gen: genStatm},
		{name: "maps", perm: 0o444, where: inBoth, gen: ofMM(genMaps), guarded: true},
		{name: "mem", perm: 0o600, where: inBoth, open: memFile, guarded: true},
		{name: "cwd", perm: 0o777, where: inBoth, link: cwdLink},
		{name: "root", perm: 0o777, where: inBoth, link: rootLink},
		{name: "exe", perm: 0o777, where: inBoth, link: exeLink},
		{name: "mounts", perm: 0o444, where: inBoth, open: mountsFile(genMounts)},
		{name: "mountinfo", perm: 0o444, where: inBoth, open: mountsFile(genMountinfo)},
		{name: "mountstats", perm: 0o400, where: inProcess, open: mountsFile(genMountstats)},
		{name: "smaps", perm: 0o444, where: inBoth, gen: ofMM(genSmaps), guarded: true},
		{name: "smaps_rollup", perm: 0o444, where: inBoth, gen: genSmapsRollup, guarded: true},
		{name: "wchan", perm: 0o444, where: inBoth, gen: constant("0")},
		{name: "schedstat", perm: 0o444, where: inBoth, gen: genSchedstat},
		{name: "cgroup", perm: 0o444, where: inBoth, gen: genCgroup},
		{name: "cpuset", perm: 0o444, where: inBoth, gen: constant("/\n")},
		{name: "oom_score", perm: 0o444, where: inBoth, gen: genOOMScore},
		{name: "oom_adj", perm: 0o644, where: inBoth, gen: genOOMAdj, put: putOOMAdj},
		{name: "oom_score_adj", perm: 0o644, where: inBoth, gen: genOOMScoreAdj, put: putOOMScoreAdj},
		{name: "loginuid", perm: 0o644, where: inBoth, gen: constant("4294967295")},
		{name: "sessionid", perm: 0o444, where: inBoth, gen: constant("4294967295")},
		{name: "coredump_filter", perm: 0o644, where: inProcess, gen: constant("00000033\n"), put: ignore},
		{name: "io", perm: 0o400, where: inBoth, gen: genIO, guarded: true},
		{name: "uid_map", perm: 0o644, where: inBoth, gen: genIDMap(true), put: putIDMap(true)},
		{name: "gid_map", perm: 0o644, where: inBoth, gen: genIDMap(false), put: putIDMap(false)},
		{name: "projid_map", perm: 0o644, where: inBoth, gen: constant("         0          0 4294967295\n")},
		{name: "setgroups", perm: 0o644, where: inBoth, gen: genSetgroups, put: putSetgroups},
		{name: "timens_offsets", perm: 0o644, where: inProcess, gen: genTimens, put: putTimens},
		{name: "timerslack_ns", perm: 0o666, where: inProcess, gen: genTimerSlack, put: putTimerSlack},
		{name: "children", perm: 0o444, where: inThread, gen: genChildren},
		{name: "clear_refs", perm: 0o200, where: inProcess, put: ignore},
	}
	for i := range taskFiles {
		taskIndex[taskFiles[i].name] = i
	}
}

func constant(text string) func(subject, vfs.Context, *bytes.Buffer) error {
	return func(_ subject, _ vfs.Context, b *bytes.Buffer) error {
		b.WriteString(text)
		return nil
	}
}

// genSyscall is the reader's own read(2); of others only that they run.
func genSyscall(s subject, ctx vfs.Context, b *bytes.Buffer) error {
	if r := s.t.Regs(); task(ctx) == s.t {
		_, err := fmt.Fprintf(b, "%d %#x %#x %#x %#x %#x %#x %#x %#x\n", r.Orig_rax, r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9, r.Rsp, r.Rip)
		return err
	}
	return constant("running\n")(s, ctx, b)
}

// ignore takes a setting that has no effect here.
func ignore(subject, vfs.Context, []byte, int64) error { return nil }

// taskDir is /proc/PID, or with thread /proc/PID/task/TID.
func (f *FS) taskDir(t *kernel.Task, thread bool) vfs.Inode {
	s := subject{f, t, thread}
	d := &immutableDir{}
	genfs.InitDir(&d.Dir, f.FS, taskIno(t.TIDIn(f.pidns), thread, 0), 0o555, taskEntries{s})
	d.Owner = s.euser
	if thread {
		return d
	}
	return processDir{d, s}
}

// processDir is /proc/PID.
type processDir struct {
	*immutableDir
	s subject
}

// Process is the process as pidfd_send_signal(2) finds it through the open directory.
func (d processDir) Process() *kernel.PID { return d.s.t.ID() }

// immutableDir is a directory whose attributes nobody may change.
type immutableDir struct{ genfs.Dir }

// Immutable implements vfs.Immutable.
func (*immutableDir) Immutable() {}

// taskEntries is the contents of a task's directory.
type taskEntries struct{ s subject }

func (e taskEntries) has(tf *taskFile) bool {
	if e.s.thread {
		return tf.where&inThread != 0
	}
	return tf.where&inProcess != 0
}

// Find implements genfs.Dynamic.
func (e taskEntries) Find(_ vfs.Context, name string) (vfs.Inode, error) {
	i, ok := taskIndex[name]
	if !ok || !e.has(&taskFiles[i]) || e.s.gone() != nil {
		return nil, unix.ENOENT
	}
	return e.s.inode(i), nil
}

// List implements genfs.Dynamic.
func (e taskEntries) List(_ vfs.Context, from int64, emit func(int64, string, uint8, uint64) bool) error {
	if e.s.gone() != nil {
		return unix.ENOENT
	}
	tid := e.s.t.TIDIn(e.s.f.pidns)
	for i := max(int(from), 0); i < len(taskFiles); i++ {
		tf := &taskFiles[i]
		typ := uint8(unix.DT_REG)
		switch {
		case tf.dir != nil:
			typ = unix.DT_DIR
		case tf.link != nil:
			typ = unix.DT_LNK
		}
		if e.has(tf) && !emit(int64(i), tf.name, typ, taskIno(tid, e.s.thread, i+1)) {
			return nil
		}
	}
	return nil
}

// inode makes file i of the task.
func (s subject) inode(i int) vfs.Inode {
	tf := &taskFiles[i]
	ino := taskIno(s.t.TIDIn(s.f.pidns), s.thread, i+1)
	guard := func(ctx vfs.Context) error { return s.mayAccess(ctx, unix.EACCES) }
	switch {
	case tf.dir != nil:
		return tf.dir(s, ino, tf.perm)
	case tf.open != nil:
		return tf.open(s, ino, tf.perm)
	case tf.link != nil:
		target, jump := tf.link(s)
		l := genfs.NewLink(s.f.FS, ino, tf.perm, target)
		l.Jump, l.Owner, l.Access = jump, s.owner, guard
		return l
	}
	f := genfs.NewFile(s.f.FS, ino, tf.perm, nil)
	f.Owner = s.owner
	if tf.guarded {
		f.Access = guard
	}
	if tf.gen != nil {
		f.Gen = func(ctx vfs.Context, b *bytes.Buffer) error {
			if err := s.gone(); err != nil {
				return err
			}
			return tf.gen(s, ctx, b)
		}
	}
	if tf.put != nil {
		f.Put = func(ctx vfs.Context, _ *vfs.FileDescription, data []byte, off int64) error {
			if err := s.gone(); err != nil {
				return err
			}
			data, _, _ = bytes.Cut(data, []byte{0})
			return tf.put(s, ctx, data, off)
		}
	}
	return f
}

// tasksDir is /proc/PID/task.
func tasksDir(s subject, ino uint64, perm uint16) vfs.Inode {
	d := genfs.NewDir(s.f.FS, ino, perm, threads{s})
	d.Owner = s.euser
	return d
}

type threads struct{ s subject }

// Find implements genfs.Dynamic.
func (e threads) Find(_ vfs.Context, name string) (vfs.Inode, error) {
	n, ok := number(name)
	if !ok {
		return nil, unix.ENOENT
	}
	t := e.s.f.pidns.Task(n)
	if t == nil || t.ThreadGroup() != e.s.t.ThreadGroup() {
		return nil, unix.ENOENT
	}
	return e.s.f.taskDir(t, true), nil
}

// List implements genfs.Dynamic.
func (e threads) List(_ vfs.Context, from int64, emit func(int64, string, uint8, uint64) bool) error {
	var ids []int
	for _, t := range e.s.t.ThreadGroup().Tasks() {
		if n := int(t.TIDIn(e.s.f.pidns)); n > 0 && int64(n) >= from {
			ids = append(ids, n)
		}
	}
	sort.Ints(ids)
	for _, n := range ids {
		if !emit(int64(n), strconv.Itoa(n), unix.DT_DIR, taskIno(int32(n), true, 0)) {
			return nil
		}
	}
	return nil
}
