package kernel

import (
	"moat/sentry/kernel/auth"
	"moat/sentry/vfs"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

// newUserNS returns t's credentials in a new user namespace: all capabilities there (kernel/user_namespace.c create_user_ns).
func (t *Task) newUserNS() (*auth.Credentials, error) {
	c := t.Credentials()
	if r := t.fs.Root(); r.Ok() && t.ns.Mount != nil {
		top := t.ns.Mount.Root()
		chrooted := top != r
		top.DecRef()
		if chrooted {
			return nil, unix.EPERM
		}
	}
	if c.UserNS.MapFromKUID(c.EUID) == auth.NoID || c.UserNS.MapFromKGID(c.EGID) == auth.NoID {
		return nil, unix.EPERM
	}
	ns, err := c.NewChild()
	if err != nil {
		return nil, err
	}
	ns.ID = t.k.newNSID(nil).ino
	return c.EnterUserNS(ns), nil
}

// copyNamespaces is copy_namespaces: t's, with new ones where flags (CLONE_NEW*) ask for them. The result holds a reference to the mount
// namespace; if that is new, the paths are t's root and working directory in it, with references.
func (t *Task) copyNamespaces(flags uint64, creds *auth.Credentials) (Namespaces, []vfs.Path, error) {
	n := t.ns
	k := t.k
	user := creds.UserNS
	if flags&cloneNS != 0 && !creds.HasCapIn(linux.CAP_SYS_ADMIN, user) {
		return n, nil, unix.EPERM
	}
	if flags&linux.CLONE_NEWPID != 0 {
		if n.PIDForChildren != t.PIDNamespace() {
			return n, nil, unix.EINVAL // copy_pid_ns: one level at a time
		}
		p, err := k.newPIDNamespace(n.PIDForChildren, user)
		if err != nil {
			return n, nil, err
		}
		n.PIDForChildren = p
	}
	if flags&linux.CLONE_NEWUTS != 0 {
		h, d := n.UTS.Names()
		n.UTS = k.NewUTSNamespace(h, d, user)
	}
	if flags&linux.CLONE_NEWIPC != 0 {
		n.IPC = k.NewIPCNamespace(user)
	}
	if flags&linux.CLONE_NEWNET != 0 {
		n.Net = k.NewNetNamespace(user)
	}
	if flags&linux.CLONE_NEWCGROUP != 0 {
		n.Cgroup = &CgroupNamespace{nsID: k.newNSID(user), Root: t.Cgroup()}
	}
	if flags&cloneNewTime != 0 {
		mo, bo := n.TimeForChildren.Offsets()
		n.TimeForChildren = &TimeNamespace{nsID: k.newNSID(user), monotonic: mo, boottime: bo}
	}
	if flags&linux.CLONE_VM == 0 {
		n.enterTime()
	}
	var paths []vfs.Path
	if n.Mount != nil && flags&linux.CLONE_NEWNS != 0 {
		n.Mount, paths = n.Mount.Copy(vfs.WithCredentials(creds), t.fs.Root(), t.fs.Cwd())
	} else if n.Mount != nil {
		n.Mount.IncRef()
	}
	return n, paths, nil
}

// NewNetNamespace returns a network namespace with a stack of its own.
func (k *Kernel) NewNetNamespace(user *auth.UserNamespace) *NetNamespace {
	n := &NetNamespace{nsID: k.newNSID(user)}
	if k.hooks.NewNetStack != nil {
		n.Stack = k.hooks.NewNetStack()
	}
	return n
}

func dropNamespaces(n Namespaces, paths []vfs.Path) {
	for _, p := range paths {
		p.DecRef()
	}
	if n.Mount != nil {
		n.Mount.DecRef()
	}
}

// Unshare is unshare(2).
func (t *Task) Unshare(flags uint64) error {
	const known = linux.CLONE_THREAD | linux.CLONE_FS | linux.CLONE_SIGHAND | linux.CLONE_VM | linux.CLONE_FILES | linux.CLONE_SYSVSEM |
		linux.CLONE_NEWUSER | cloneNS
	if flags&^known != 0 {
		return unix.EINVAL
	}
	if flags&linux.CLONE_NEWUSER != 0 {
		flags |= linux.CLONE_THREAD | linux.CLONE_FS
	}
	if flags&linux.CLONE_VM != 0 {
		flags |= linux.CLONE_SIGHAND
	}
	if flags&linux.CLONE_SIGHAND != 0 {
		flags |= linux.CLONE_THREAD
	}
	if flags&linux.CLONE_NEWNS != 0 {
		flags |= linux.CLONE_FS
	}
	if flags&(linux.CLONE_THREAD|linux.CLONE_SIGHAND|linux.CLONE_VM) != 0 && t.tg.NumTasks() > 1 {
		return unix.EINVAL
	}
	creds := t.Credentials()
	if flags&linux.CLONE_NEWUSER != 0 {
		c, err := t.newUserNS()
		if err != nil {
			return err
		}
		creds = c
	}
	if flags&(cloneNS|linux.CLONE_NEWUSER) != 0 {
		// The caller itself stays in its PID and time namespaces: its children go into the new ones.
		ns, paths, err := t.copyNamespaces(flags|linux.CLONE_VM, creds)
		if err != nil {
			return err
		}
		defer t.setNamespaces(ns, paths)
	}
	if flags&linux.CLONE_FS != 0 && t.fs.Shared() {
		n, old := t.fs.fork(), t.fs
		t.mu.Lock()
		t.fs = n
		t.mu.Unlock()
		old.decRef()
	}
	if flags&linux.CLONE_FILES != 0 {
		t.unshareFiles()
	}
	if creds != t.Credentials() {
		t.SetCredentials(creds)
	}
	return nil
}

// enterTime makes the time namespace for children the task's own: a child's, or one that executes a program (timens_on_fork). Who shares memory with
// another stays in its time.
func (n *Namespaces) enterTime() {
	if n.Time != n.TimeForChildren {
		n.TimeForChildren.freeze()
		n.Time = n.TimeForChildren
	}
}

// unshareFiles gives t a table of descriptors of its own.
func (t *Task) unshareFiles() {
	if !t.fdt.Shared() {
		return
	}
	n, old := t.fdt.Fork(^uint32(0)), t.fdt
	t.mu.Lock()
	t.fdt = n
	t.mu.Unlock()
	old.DecRef(t)
}

// setNamespaces installs ns, which holds a reference to its mount namespace, in place of t's; paths are the root and working directory in another
// mount namespace.
func (t *Task) setNamespaces(ns Namespaces, paths []vfs.Path) {
	if paths != nil {
		t.fs.set(paths[0], paths[1], true)
	}
	t.mu.Lock()
	old := t.ns
	t.ns = ns
	t.mu.Unlock()
	if old.Mount != nil {
		old.Mount.DecRef()
	}
}

// SetNS is setns(2) for one namespace object: a *UTSNamespace, *IPCNamespace, *NetNamespace, *CgroupNamespace, *TimeNamespace, *PIDNamespace,
// *vfs.MountNamespace or *auth.UserNamespace.
func (t *Task) SetNS(obj any) error {
	creds := t.Credentials()
	n := t.Namespaces()
	admin := func(owner *auth.UserNamespace) bool {
		return creds.HasCapIn(linux.CAP_SYS_ADMIN, owner) && creds.HasCap(linux.CAP_SYS_ADMIN)
	}
	ok := true
	var paths []vfs.Path
	switch o := obj.(type) {
	case *UTSNamespace:
		ok, n.UTS = admin(o.userNS), o
	case *IPCNamespace:
		ok, n.IPC = admin(o.userNS), o
	case *NetNamespace:
		ok, n.Net = admin(o.userNS), o
	case *CgroupNamespace:
		ok, n.Cgroup = admin(o.userNS), o
	case *TimeNamespace:
		if t.tg.NumTasks() > 1 {
			return unix.EUSERS
		}
		ok, n.Time, n.TimeForChildren = admin(o.userNS), o, o
		o.freeze()
	case *PIDNamespace:
		// Only down: into the own namespace or one below it.
		if !t.PIDNamespace().isAncestorOf(o) {
			return unix.EINVAL
		}
		ok, n.PIDForChildren = admin(o.userNS), o
	case *vfs.MountNamespace:
		if t.fs.Shared() {
			return unix.EINVAL
		}
		if ok = admin(o.Owner) && creds.HasCap(linux.CAP_SYS_CHROOT); ok {
			if !o.TryIncRef() { // a pidfd's process has ended
				return unix.ESRCH
			}
			defer o.DecRef()
			root := o.Root()
			n.Mount, paths = o, []vfs.Path{root, root.IncRef()}
		}
	case *auth.UserNamespace:
		return t.setUserNS(o)
	default:
		return unix.EINVAL
	}
	if !ok {
		return unix.EPERM
	}
	if n.Mount != nil {
		n.Mount.IncRef()
	}
	t.setNamespaces(n, paths)
	return nil
}

// setUserNS is userns_install.
func (t *Task) setUserNS(ns *auth.UserNamespace) error {
	creds := t.Credentials()
	if ns == creds.UserNS || t.tg.NumTasks() > 1 || t.fs.Shared() {
		return unix.EINVAL
	}
	if !creds.HasCapIn(linux.CAP_SYS_ADMIN, ns) {
		return unix.EPERM
	}
	t.SetCredentials(creds.EnterUserNS(ns))
	return nil
}

// NamespaceFlag is the CLONE_NEW* flag of a namespace object.
func NamespaceFlag(obj any) uint32 {
	switch obj.(type) {
	case *UTSNamespace:
		return linux.CLONE_NEWUTS
	case *IPCNamespace:
		return linux.CLONE_NEWIPC
	case *NetNamespace:
		return linux.CLONE_NEWNET
	case *CgroupNamespace:
		return linux.CLONE_NEWCGROUP
	case *TimeNamespace:
		return cloneNewTime
	case *PIDNamespace:
		return linux.CLONE_NEWPID
	case *vfs.MountNamespace:
		return linux.CLONE_NEWNS
	case *auth.UserNamespace:
		return linux.CLONE_NEWUSER
	}
	return 0
}

// SetNSOf is setns(2) with a pidfd: the namespaces of o that flags name. The user namespace comes first, so that its capabilities hold for the others.
func (t *Task) SetNSOf(o *Task, flags uint32) error {
	t.k.tasksMu.RLock()
	gone := o.exitDone
	t.k.tasksMu.RUnlock()
	if gone {
		return unix.ESRCH
	}
	n := o.Namespaces()
	objs := []any{o.UserNamespace(), n.Cgroup, n.IPC, n.UTS, n.Net, o.PIDNamespace(), n.Time, n.Mount}
	for _, obj := range objs {
		f := NamespaceFlag(obj)
		if flags&f == 0 {
			continue
		}
		flags &^= f
		if err := t.SetNS(obj); err != nil {
			return err
		}
	}
	if flags != 0 {
		return unix.EINVAL
	}
	return nil
}

// maySetTID reports whether t may choose the numbers of new tasks in ns (checkpoint_restore_ns_capable).
func (t *Task) maySetTID(ns *PIDNamespace) bool {
	c := t.Credentials()
	return c.HasCapIn(linux.CAP_SYS_ADMIN, ns.userNS) || c.HasCapIn(linux.CAP_CHECKPOINT_RESTORE, ns.userNS)
}
