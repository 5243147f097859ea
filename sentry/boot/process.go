package boot

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"

	"moat/sentry/fs/gofer"
	"moat/sentry/fs/hostfd"
	"moat/sentry/kernel"
	"moat/sentry/kernel/auth"
	"moat/sentry/vfs"
)

// process is one that was started from outside.
type process struct {
	b    *container
	tg   *kernel.ThreadGroup
	pid  int32
	term *terminal
	once sync.Once // drains term
	// files are the host's descriptors until table takes them.
	files []*hostfd.File
}

// prepare makes a process that is ready to run. It owns the files of p.
func (b *container) prepare(p *process, a *Process, unkillable bool) error {
	args, err := b.processArgs(a)
	var schedule func(*kernel.Task)
	if err == nil {
		schedule, err = scheduling(a.Spec, b.k.AllCPUs(), p != b.init)
	}
	if err != nil {
		closeAll(p.files)
		p.files = nil
		return err
	}
	args.Unkillable = unkillable
	if args.FDTable, args.TTY, err = b.table(p, a, args.Credentials); err != nil {
		return err
	}
	p.b = b
	if p.tg, err = b.k.PrepareProcess(args); err != nil {
		if p.term != nil {
			p.term.held.DecRef()
			p.term.discard()
		}
		_, there := modeAt(b.ns.Mount, args.Filename, vfs.Follow)
		if err == unix.ENOENT && there && strings.HasPrefix(args.Filename, "/") {
			// It is its interpreter that is not there.
			return &startError{fmt.Sprintf("exec %s: %v", args.Filename, err), ExitNotFound}
		}
		return execError(args.Filename, err)
	}
	schedule(p.tg.Leader())
	p.pid = p.tg.PIDIn(b.ns.PIDForChildren)
	return nil
}

// processArgs are all but the descriptors.
func (b *container) processArgs(a *Process) (*kernel.ProcessArgs, error) {
	p := a.Spec
	if p == nil || len(p.Args) == 0 {
		return nil, errors.New("process.args: missing")
	}
	creds, home, err := b.credentials(a)
	if err != nil {
		return nil, err
	}
	env := distinct(p.Env)
	if !slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "HOME=") }) {
		if home == "" && !b.c.Plain {
			home = b.homeOf(p.User.UID)
		}
		if home != "" {
			env = append(env, "HOME="+home)
		}
	}
	limits, err := limitsOf(p.Rlimits)
	if err != nil {
		return nil, err
	}
	args := &kernel.ProcessArgs{
		Filename: p.Args[0], Argv: p.Args, Envv: env, Cwd: p.Cwd, Umask: 0o22, Credentials: creds, Limits: limits,
		NoNewPrivs: p.NoNewPrivileges, Seccomp: a.Seccomp, NS: b.ns, Cgroup: b.cg,
	}
	if p.User.Umask != nil {
		args.Umask = uint16(*p.User.Umask & 0o777)
	}
	if p.OOMScoreAdj != nil {
		args.OOMScoreAdj = int32(*p.OOMScoreAdj)
	}
	return args, b.checkCwd(args)
}

// distinct is an environment with the last value of each variable; an empty HOME is none.
func distinct(env []string) (d []string) {
	at := make(map[string]int)
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		if i, ok := at[name]; ok {
			d[i] = e
			continue
		}
		at[name] = len(d)
		d = append(d, e)
	}
	return slices.DeleteFunc(d, func(e string) bool { return e == "HOME=" })
}

// run lets a prepared process run.
func (p *process) run() {
	p.b.k.StartProcess(p.tg)
	if p.term != nil {
		p.term.run()
	}
}

// wait returns how the process ended, when what it printed on a terminal has been passed on.
func (p *process) wait() ExitStatus {
	<-p.tg.Done()
	if p.term != nil {
		p.once.Do(p.term.drain)
	}
	st := exitStatus(p.tg.ExitStatus())
	st.Lost = p.tg.Lost()
	return st
}

// kill ends a process whose keeper on the host is gone; nobody else waits for it.
func (p *process) kill() {
	_ = p.tg.Deliver(linux.SIGKILL, false) // ESRCH: it has ended
	go p.wait()
}

// exec starts another process with the host's descriptors, which it owns.
func (b *container) exec(a *Process, fds []int) (*process, error) {
	gofer.Doubt()
	files, err := b.host.openAll(fds, false)
	if err != nil {
		return nil, err
	}
	b.ending.RLock()
	defer b.ending.RUnlock()
	if b.over {
		closeAll(files)
		return nil, errNotRunning
	}
	p := &process{files: files}
	if err := b.prepare(p, a, false); err != nil {
		return nil, err
	}
	p.run()
	return p, nil
}

// checkCwd makes the working directory, as runc does, if it is not there, so that CreateProcess's errors are about the program.
func (b *container) checkCwd(a *kernel.ProcessArgs) error {
	if a.Cwd == "" {
		a.Cwd = "/"
	}
	if !strings.HasPrefix(a.Cwd, "/") {
		return fmt.Errorf("process.cwd: %q is not an absolute path", a.Cwd)
	}
	root := b.ns.Mount.Root()
	defer root.DecRef()
	ctx := inRoot{vfs.Background(), root}
	p, err := vfs.Resolve(ctx, root, a.Cwd, vfs.Follow|vfs.Directory)
	if err == unix.ENOENT {
		if err = makePoint(ctx, root, a.Cwd, true); err == nil {
			p, err = vfs.Resolve(ctx, root, a.Cwd, vfs.Follow|vfs.Directory)
		}
	}
	if err != nil {
		return fmt.Errorf("working directory %s: %w", a.Cwd, err)
	}
	p.DecRef()
	return nil
}

// execError gives an error of execve the exit code that shells give it.
func execError(name string, err error) error {
	var e unix.Errno
	if !errors.As(err, &e) {
		return err
	}
	switch e {
	case unix.ENOENT:
		if strings.Contains(name, "/") {
			return &startError{fmt.Sprintf("exec: %q: stat %s: %v", name, name, e), ExitNotFound}
		}
		return &startError{fmt.Sprintf("exec: %q: executable file not found in $PATH", name), ExitNotFound}
	case unix.ENOTDIR, unix.ENAMETOOLONG, unix.ELOOP:
		return &startError{fmt.Sprintf("exec: %q: %v", name, e), ExitNotFound}
	case unix.EIO, unix.ENOMEM:
		return fmt.Errorf("start %s: %w", name, err)
	}
	return &startError{fmt.Sprintf("exec: %q: %v", name, e), ExitNotExecutable}
}

// credentials are the first process', and the user's home directory if it was looked up.
func (b *container) credentials(a *Process) (*auth.Credentials, string, error) {
	p := a.Spec
	uid, gid, groups := p.User.UID, p.User.GID, slices.Clone(p.User.AdditionalGids)
	home := ""
	if a.User != "" {
		u, err := b.lookupUser(a.User)
		if err != nil {
			return nil, "", err
		}
		uid, gid, groups, home = u.uid, u.gid, u.groups, u.home
	}
	ns := b.k.RootUserNamespace()
	gs := make([]auth.KGID, len(groups))
	for i, g := range groups {
		gs[i] = ns.MapToKGID(g)
	}
	c := auth.NewUser(ns.MapToKUID(uid), ns.MapToKGID(gid), gs, 0, ns)
	if uint32(c.EUID) == auth.NoID || slices.Contains(append(gs, c.EGID), auth.KGID(auth.NoID)) {
		return nil, "", fmt.Errorf("process.user: %d:%d, or a group of %v, is not mapped by linux.uidMappings and gidMappings", uid, gid, groups)
	}
	if p.Capabilities == nil {
		c.Bounding = auth.AllCaps
		if uid == 0 {
			c.Permitted, c.Effective = auth.AllCaps, auth.AllCaps
		}
		return c, home, nil
	}
	for _, s := range []struct {
		field string
		names []string
		set   *auth.CapSet
	}{
		{"bounding", p.Capabilities.Bounding, &c.Bounding}, {"effective", p.Capabilities.Effective, &c.Effective},
		{"inheritable", p.Capabilities.Inheritable, &c.Inheritable}, {"permitted", p.Capabilities.Permitted, &c.Permitted},
		{"ambient", p.Capabilities.Ambient, &c.Ambient},
	} {
		*s.set = 0
		for _, n := range s.names {
			bit, ok := capabilities[strings.ToUpper(n)]
			if !ok {
				return nil, "", fmt.Errorf("process.capabilities.%s: there is no capability %q", s.field, n)
			}
			*s.set |= auth.CapMask(bit)
		}
	}
	// What capset(2) holds.
	c.Effective &= c.Permitted
	c.Ambient &= c.Permitted & c.Inheritable
	return c, home, nil
}

var capabilities = map[string]linux.Capability{
	"CAP_CHOWN": 0, "CAP_DAC_OVERRIDE": 1, "CAP_DAC_READ_SEARCH": 2, "CAP_FOWNER": 3, "CAP_FSETID": 4, "CAP_KILL": 5, "CAP_SETGID": 6,
	"CAP_SETUID": 7, "CAP_SETPCAP": 8, "CAP_LINUX_IMMUTABLE": 9, "CAP_NET_BIND_SERVICE": 10, "CAP_NET_BROADCAST": 11, "CAP_NET_ADMIN": 12,
	"CAP_NET_RAW": 13, "CAP_IPC_LOCK": 14, "CAP_IPC_OWNER": 15, "CAP_SYS_MODULE": 16, "CAP_SYS_RAWIO": 17, "CAP_SYS_CHROOT": 18,
	"CAP_SYS_PTRACE": 19, "CAP_SYS_PACCT": 20, "CAP_SYS_ADMIN": 21, "CAP_SYS_BOOT": 22, "CAP_SYS_NICE": 23, "CAP_SYS_RESOURCE": 24,
	"CAP_SYS_TIME": 25, "CAP_SYS_TTY_CONFIG": 26, "CAP_MKNOD": 27, "CAP_LEASE": 28, "CAP_AUDIT_WRITE": 29, "CAP_AUDIT_CONTROL": 30,
	"CAP_SETFCAP": 31, "CAP_MAC_OVERRIDE": 32, "CAP_MAC_ADMIN": 33, "CAP_SYSLOG": 34, "CAP_WAKE_ALARM": 35, "CAP_BLOCK_SUSPEND": 36,
	"CAP_AUDIT_READ": 37, "CAP_PERFMON": 38, "CAP_BPF": 39, "CAP_CHECKPOINT_RESTORE": 40,
}

// AllCapabilities are the names of every capability.
func AllCapabilities() []string { return slices.Sorted(maps.Keys(capabilities)) }

var rlimits = map[string]int{
	"RLIMIT_CPU": unix.RLIMIT_CPU, "RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_DATA": unix.RLIMIT_DATA, "RLIMIT_STACK": unix.RLIMIT_STACK,
	"RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_RSS": unix.RLIMIT_RSS, "RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_NOFILE": unix.RLIMIT_NOFILE,
	"RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK, "RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS, "RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING,
	"RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE, "RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO, "RLIMIT_RTTIME": unix.RLIMIT_RTTIME,
}

func limitsOf(rs []specs.POSIXRlimit) (kernel.Limits, error) {
	l := kernel.DefaultLimits()
	seen := map[string]bool{}
	for _, r := range rs {
		n, ok := rlimits[r.Type]
		switch {
		case !ok:
			return l, fmt.Errorf("process.rlimits: there is no limit %q", r.Type)
		case seen[r.Type]:
			return l, fmt.Errorf("process.rlimits: %s is there twice", r.Type)
		case r.Soft > r.Hard:
			return l, fmt.Errorf("process.rlimits: %s: the soft limit is above the hard one", r.Type)
		}
		seen[r.Type] = true
		l[n] = linux.RLimit{Cur: r.Soft, Max: r.Hard}
	}
	return l, nil
}
