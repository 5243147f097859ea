package kernel

import (
	"strings"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"moat/platform"
	"moat/sentry/kernel/auth"
	"moat/sentry/loader"
	"moat/sentry/vfs"
)

// ProcessArgs describe a process that is started from outside of the container.
type ProcessArgs struct {
	// Filename is the program; without a slash it is looked for in PATH of Envv. Argv and Envv are its arguments and environment.
	Filename   string
	Argv, Envv []string
	// Cwd is an absolute path; it must exist.
	Cwd         string
	Umask       uint16
	Credentials *auth.Credentials
	// FDTable holds the first descriptors; CreateProcess takes over the reference, also on error.
	FDTable *vfs.FDTable
	// NS and Cgroup are the container's, nil for the first one's. Root is a directory below the root of its mount namespace, "" for the root itself.
	NS          *Namespaces
	Cgroup      *Cgroup
	Root        string
	Limits      Limits
	NoNewPrivs  bool
	OOMScoreAdj int32
	// TTY becomes the controlling terminal of the process' new session.
	TTY *TTYJob
	// Seccomp are filters (struct sock_filter programs, the first innermost) that the process starts under.
	Seccomp [][]byte
	// Unkillable gives the first process of a PID namespace init's protection from signals that it has no handler for.
	Unkillable bool
}

// CreateProcess starts a process: the first in its PID namespace becomes its init, later ones have no parent. Errors are execve(2)'s: ENOENT if the
// program (or Cwd) is not there, EACCES if it cannot be executed.
func (k *Kernel) CreateProcess(a *ProcessArgs) (*ThreadGroup, error) {
	tg, err := k.PrepareProcess(a)
	if err == nil {
		k.StartProcess(tg)
	}
	return tg, err
}

// StartProcess runs what PrepareProcess made. It is called once.
func (k *Kernel) StartProcess(tg *ThreadGroup) { tg.Leader().start(nil) }

// PrepareProcess is CreateProcess, but the process does not run before StartProcess; what it looks like is in the process tree from now on.
func (k *Kernel) PrepareProcess(a *ProcessArgs) (*ThreadGroup, error) {
	t, err := k.prepareProcess(a)
	if err != nil {
		return nil, err
	}
	f, path, err := t.findProgram(a)
	var n *newImage
	if err == nil {
		n, err = t.load(&ExecArgs{File: f, Filename: path, Argv: a.Argv, Envv: a.Envv})
	}
	if err == nil {
		t.mm.Store(n.mm)
		t.user.Store(k.users.get(a.Credentials.RUID))
		if err = k.adopt(t, a); err != nil {
			k.users.put(t.user.Load())
		}
	}
	if err != nil {
		if t.mm.Load() == nil {
			t.dropFiles()
		} else {
			t.abandon()
		}
		return nil, err
	}
	t.install(n)
	return t.tg, nil
}

// prepareProcess makes a task in no table, so that paths are looked up in its context.
func (k *Kernel) prepareProcess(a *ProcessArgs) (*Task, error) {
	ns, cg := &k.rootNS, k.rootCgroup
	if a.NS != nil {
		ns, cg = a.NS, a.Cgroup
	}
	ns.Mount.IncRef()
	t := k.newTask("", a.Credentials, nil, cg)
	t.straced.Store(k.strace.Load())
	t.ns = *ns
	t.fdt = a.FDTable
	root := ns.Mount.Root()
	t.fs = NewFSContext(root, root.IncRef(), a.Umask)
	// Limits are read through the group while the program is loaded.
	t.tg = &ThreadGroup{k: k, leader: t, tasks: []*Task{t}}
	t.tg.limits.setAll(&a.Limits)
	t.attrs.noNewPrivs.Store(a.NoNewPrivs)
	for _, code := range a.Seccomp {
		if err := t.pushSeccomp(code); err != nil {
			t.dropFiles()
			return nil, err
		}
	}
	if a.Root != "" && a.Root != "/" {
		p, err := vfs.Resolve(t, root, a.Root, vfs.Follow)
		if err != nil {
			t.dropFiles()
			return nil, err
		}
		t.fs.set(p, p.IncRef(), true)
	}
	if a.Cwd != "" {
		p, err := vfs.Resolve(t, t.Root(), a.Cwd, vfs.Follow|vfs.Directory)
		if err != nil {
			t.dropFiles()
			return nil, err
		}
		t.fs.SetCwd(p)
	}
	return t, nil
}

func (t *Task) dropFiles() {
	t.fdt.DecRef(vfs.WithCredentials(t.Credentials()))
	t.fs.decRef()
	t.ns.Mount.DecRef()
}

// findProgram opens the program, searching PATH as execvp(3) does.
func (t *Task) findProgram(a *ProcessArgs) (*vfs.FileDescription, string, error) {
	if strings.Contains(a.Filename, "/") || a.Filename == "" {
		f, err := t.openExec(a.Filename)
		return f, a.Filename, err
	}
	search := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, e := range a.Envv {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			search = v
		}
	}
	var err error = unix.ENOENT
	for _, dir := range strings.Split(search, ":") {
		if dir == "" {
			dir = "."
		}
		path := dir + "/" + a.Filename
		f, e := t.openExec(path)
		if e == nil {
			return f, path, nil
		}
		if e == unix.EACCES {
			err = e
		}
	}
	return nil, "", err
}

// adopt puts t into the process tree.
func (k *Kernel) adopt(t *Task, a *ProcessArgs) error {
	k.tasksMu.Lock()
	defer k.tasksMu.Unlock()
	pid, err := k.allocPID(t.ns.PIDForChildren, nil, nil)
	if err != nil {
		return err
	}
	k.forks.Add(1)
	t.user.Load().procs.Add(1)
	t.setPID(pid) // a container's own group: nobody can have looked at it yet
	tg := k.newGroup(t, nil, nil)
	tg.limits.setAll(&a.Limits)
	tg.limitsMu.Lock()
	tg.watchCPULocked()
	tg.limitsMu.Unlock()
	tg.oomScoreAdj.Store(a.OOMScoreAdj)
	tg.oomScoreAdjMin.Store(a.OOMScoreAdj)
	tg.execed = true
	tg.exitSignal = linux.SIGCHLD
	tg.newSession()
	if a.TTY != nil && a.TTY.session == nil {
		tg.attachTTY(a.TTY)
	}
	if pid.ns.init == nil {
		pid.ns.init = tg
		tg.unkillable = a.Unkillable
	}
	if k.init == nil {
		k.init = tg
	}
	return nil
}

// startRegs are the registers that a program starts with.
func startRegs(s loader.Info) platform.Regs {
	return platform.Regs{Rip: uint64(s.Entry), Rsp: uint64(s.StackPointer), Cs: 0x33, Ss: 0x2b, Eflags: 0x202, Orig_rax: ^uint64(0)}
}
