package kernel

import (
	"encoding/binary"
	"strings"

	"moat/sentry/kernel/auth"
	"moat/sentry/loader"
	"moat/sentry/mm"
	"moat/sentry/vfs"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

// ExecArgs are execve(2)'s, with the program opened by vfs.OpenExec. Exec takes over the reference.
type ExecArgs struct {
	File       *vfs.FileDescription
	Filename   string
	Argv, Envv []string
	// Inaccessible: Filename names a descriptor that will be closed, so a script's interpreter could not open it.
	Inaccessible bool
}

// newImage is a program that is loaded and waits for its task.
type newImage struct {
	mm     *mm.MemoryManager
	start  loader.Info
	creds  *auth.Credentials
	secure bool
	name   string
	// readable: the caller may read the file; if not the process cannot be dumped.
	readable bool
}

// load prepares and loads a program for t, which is not changed.
func (t *Task) load(a *ExecArgs) (*newImage, error) {
	open := func(path string) (loader.File, error) {
		f, err := t.openExec(path)
		if err != nil {
			return nil, err
		}
		return loader.VFSFile(t, f), nil
	}
	// The name is that under which the program (or script) was asked for, not what a symlink leads to; a descriptor has
	// only the file's own (begin_new_exec).
	name := a.basename()
	if a.Filename == "/dev/fd/"+name {
		name = a.File.Dentry().Name()
	}
	im, err := loader.Prepare(loader.VFSFile(t, a.File), a.Filename, a.Argv, a.Inaccessible, open)
	if err != nil {
		return nil, err
	}
	defer im.Release()
	f := loader.Description(im.File)
	n := &newImage{name: name}
	if n.creds, n.secure, err = t.execCreds(f); err != nil {
		return nil, err
	}
	n.readable = vfs.Permission(t, f.Inode(), vfs.MayRead) == nil
	if n.mm, err = mm.New(t.k.platform, t.k.memory, t.k.texts); err != nil {
		t.k.log.Warn("no address space: " + err.Error())
		return nil, unix.ENOMEM
	}
	n.mm.ChargeTo(t.MemoryAccount())
	n.mm.AddressSpace().SetName(shown(im.Argv))
	limits := t.tg.Limits()
	ns := n.creds.UserNS
	n.start, err = im.Load(n.mm, &loader.LoadArgs{
		Envv: a.Envv, UID: ns.UIDOrOverflow(n.creds.RUID), EUID: ns.UIDOrOverflow(n.creds.EUID), GID: ns.GIDOrOverflow(n.creds.RGID),
		EGID: ns.GIDOrOverflow(n.creds.EGID), Secure: n.secure, Caller: t.MMCaller(), StackLimit: limits[linux.RLIMIT_STACK].Cur,
		NoRandom: t.Personality()&addrNoRandomize != 0, VDSO: t.k.vdso,
	})
	if err != nil {
		n.mm.DecUsers()
		return nil, err
	}
	return n, nil
}

const addrNoRandomize = 0x0040000

// shown is the beginning of a command line, at least as much as host tools show.
func shown(argv []string) (s string) {
	for i, a := range argv {
		if i == 0 {
			a = a[strings.LastIndexByte(a, '/')+1:]
		} else {
			a = " " + a
		}
		if s += a; len(s) > linux.TASK_COMM_LEN {
			break
		}
	}
	return s
}

func (a *ExecArgs) basename() string { return a.Filename[strings.LastIndexByte(a.Filename, '/')+1:] }

// openExec opens a program by path, as open_exec does.
func (t *Task) openExec(path string) (*vfs.FileDescription, error) {
	p, err := vfs.Resolve(t, t.Cwd(), path, vfs.Follow|vfs.WillOpen)
	if err != nil {
		return nil, err
	}
	defer p.DecRef()
	return vfs.OpenExec(t, p)
}

// Exec is execve(2). After the other threads are gone there is no way back: errors then end the process.
func (t *Task) Exec(a *ExecArgs) error {
	if t.attrs.nprocExceeded.Swap(false) && t.overNproc(t.Credentials().RUID) {
		a.File.DecRef()
		return unix.EAGAIN
	}
	n, err := t.load(a)
	if err != nil {
		return err
	}
	if err := t.deThread(); err != nil {
		n.mm.DecUsers()
		return err
	}
	t.unshareFiles()
	t.switchMM(n.mm)
	t.execSignals()
	t.install(n)
	t.mu.Lock()
	t.ns.enterTime()
	t.mu.Unlock()
	t.k.keys.Exec(&t.rings)
	t.k.tasksMu.Lock()
	t.tg.execed = true
	t.tg.exitSignal = linux.SIGCHLD
	t.k.tasksMu.Unlock()
	t.fdt.CloseOnExec(t) // who sees that knows that setpgid(2) is EACCES
	if t.tg.Timers != nil {
		t.tg.Timers.Exec()
	}
	t.regsReplaced = true
	if err := t.newThread(nil); err != nil {
		t.brokenThread(err)
	}
	t.endVfork()
	t.traceExec(uint64(t.TID()))
	return nil
}

// switchMM leaves the old address space for m.
func (t *Task) switchMM(m *mm.MemoryManager) {
	t.noteRSS()
	t.releaseMM()
	old := t.mm.Load()
	t.releaseThread()
	t.mm.Store(m)
	t.FutexDead.Store(false)
	switch {
	case old == nil:
	case old.Users() == 1 && old.Small():
		t.k.running.Add(1)
		go func() {
			defer t.k.running.Done()
			old.DecUsers()
		}()
	default:
		old.DecUsers()
	}
}

// install makes n what t runs: registers, name, credentials.
func (t *Task) install(n *newImage) {
	t.regs = startRegs(n.start)
	t.SetName(n.name)
	old := t.Credentials()
	if n.secure || old.EUID != n.creds.EUID || old.EGID != n.creds.EGID {
		t.attrs.pdeathsig.Store(0)
	}
	if n.secure {
		t.attrs.personality.And(^uint32(perClearOnSetid))
	}
	dumpable := int32(1)
	if n.secure || !n.readable || old.EUID != old.RUID || old.EGID != old.RGID {
		dumpable = suidDumpable
	}
	t.SetCredentials(n.creds)
	n.mm.Dumpable.Store(dumpable)
	t.altStack = linux.SignalStack{Flags: linux.SS_DISABLE}
	t.restart = nil
	t.attrs.tscFault.Store(false)
}

// perClearOnSetid is PER_CLEAR_ON_SETID: READ_IMPLIES_EXEC, ADDR_NO_RANDOMIZE, ADDR_COMPAT_LAYOUT, MMAP_PAGE_ZERO.
const perClearOnSetid = 0x0400000 | 0x0040000 | 0x0200000 | 0x0100000

// execSignals resets caught signals, in a handler table of the process' own.
func (t *Task) execSignals() {
	tg := t.tg
	tg.sigMu.Lock()
	defer tg.sigMu.Unlock()
	old := tg.handlers
	tg.handlers = old.copy(true)
	old.mu.Lock()
	old.users--
	old.mu.Unlock()
}

// deThread ends all other threads; t takes over the process' number (fs/exec.c de_thread). EAGAIN if t itself is killed meanwhile.
func (t *Task) deThread() error {
	tg, k := t.tg, t.k
	tg.sigMu.Lock()
	if tg.exiting || tg.execer != nil || t.killed {
		tg.sigMu.Unlock()
		return unix.EAGAIN
	}
	if len(tg.tasks) == 1 {
		tg.sigMu.Unlock()
		return nil
	}
	tg.execer = t
	tg.stop.count = 0
	for _, o := range tg.tasks {
		if o != t {
			o.kill()
		}
	}
	tg.sigMu.Unlock()
	for !t.aloneInGroup() {
		if t.Killed() {
			tg.sigMu.Lock()
			tg.execer = nil
			tg.sigMu.Unlock()
			return unix.EAGAIN
		}
		since := t.pause()
		<-t.wake
		t.resume(since)
	}
	k.tasksMu.Lock()
	defer k.tasksMu.Unlock()
	if tg.leader != t {
		t.takeOver()
	}
	tg.sigMu.Lock()
	tg.execer = nil
	tg.sigMu.Unlock()
	return nil
}

// aloneInGroup reports whether every other thread is gone, or is the leader's zombie.
func (t *Task) aloneInGroup() bool {
	t.k.tasksMu.RLock()
	defer t.k.tasksMu.RUnlock()
	for _, o := range t.tg.tasks {
		if o != t && !o.exitDone {
			return false
		}
	}
	return true
}

// takeOver makes t the leader, with the old leader's number. Preconditions: tasksMu is held for writing, the old leader is a zombie.
func (t *Task) takeOver() {
	tg := t.tg
	old := tg.leader
	mine, lead := t.pid.Load(), tg.pid
	lead.task, mine.task = t, old
	lead.ended.Store(false)
	t.pid.Store(lead)
	old.pid.Store(mine)
	t.tid.Store(t.tgid.Load())
	t.startTime = old.startTime
	tg.sigMu.Lock()
	tg.leader = t
	tg.sigMu.Unlock()
	old.removeLocked()
}

// execCreds computes the credentials of a program (security/commoncap.c cap_bprm_creds_from_file, fs/exec.c bprm_fill_uid) and whether it runs in
// secure mode.
func (t *Task) execCreds(f *vfs.FileDescription) (*auth.Credentials, bool, error) {
	old := t.Credentials()
	n := old.Clone()
	nosuid := f.Path().Mount.Flags()&unix.ST_NOSUID != 0
	attr, err := f.Stat(t)
	if err != nil {
		return nil, false, err
	}
	ns := n.UserNS
	n.EUID, n.EGID = old.EUID, old.EGID
	if !nosuid && !t.NoNewPrivs() && ns.MapFromKUID(attr.UID) != auth.NoID && ns.MapFromKGID(attr.GID) != auth.NoID {
		if attr.Mode&unix.S_ISUID != 0 {
			n.EUID = attr.UID
		}
		if attr.Mode&(unix.S_ISGID|unix.S_IXGRP) == unix.S_ISGID|unix.S_IXGRP {
			n.EGID = attr.GID
		}
	}
	root := ns.MapToKUID(0)
	effective, hasFcap := false, false
	n.Permitted = 0
	rootIDs := n.SecureBits&secNoRoot == 0 && n.RUID == root && n.EUID == root
	if !nosuid && (!rootIDs || n.Ambient != 0) {
		if fc, ok := fileCaps(f, ns); ok {
			hasFcap, effective = true, fc.effective
			n.Permitted = n.Bounding&fc.permitted | n.Inheritable&fc.inheritable
			if fc.effective && fc.permitted&^n.Permitted != 0 {
				return nil, false, unix.EPERM
			}
		}
	}
	setRootOnly := hasFcap && n.EUID == root && n.RUID != root
	if n.SecureBits&secNoRoot == 0 && !setRootOnly {
		if n.EUID == root || n.RUID == root {
			n.Permitted = n.Bounding | n.Inheritable
		}
		if n.EUID == root {
			effective = true
		}
	}
	isSetid := n.EUID != old.RUID && n.EUID != old.EUID || n.EGID != old.RGID && n.EGID != old.EGID
	if (isSetid || n.Permitted&^old.Permitted != 0) && (t.NoNewPrivs() || t.sharesFS()) {
		if !old.HasCap(linux.CAP_SETUID) || t.NoNewPrivs() {
			n.EUID, n.EGID = n.RUID, n.RGID
		}
		n.Permitted &= old.Permitted
	}
	n.SUID, n.FSUID = n.EUID, n.EUID
	n.SGID, n.FSGID = n.EGID, n.EGID
	if hasFcap || isSetid {
		n.Ambient = 0
	}
	n.Permitted |= n.Ambient
	n.Effective = n.Ambient
	if effective {
		n.Effective = n.Permitted
	}
	n.SecureBits &^= secKeepCaps
	secure := isSetid || (n.RUID != root && (effective || n.Permitted&^n.Ambient != 0))
	return n, secure, nil
}

// sharesFS is LSM_UNSAFE_SHARE: the root or working directory is shared with another process, which could change them under a set-ID program.
func (t *Task) sharesFS() bool {
	t.k.tasksMu.RLock()
	defer t.k.tasksMu.RUnlock()
	own := int32(0)
	for _, o := range t.tg.tasks {
		o.mu.Lock()
		if o.fs == t.fs {
			own++
		}
		o.mu.Unlock()
	}
	return t.fs.users.Load() > own
}

type fileCapability struct {
	permitted, inheritable auth.CapSet
	effective              bool
}

// fileCaps decodes security.capability (struct vfs_cap_data); a malformed or foreign one is as if it were not there.
func fileCaps(f *vfs.FileDescription, ns *auth.UserNamespace) (c fileCapability, ok bool) {
	b, err := vfs.GetXattr(vfs.Background(), f.Path(), "security.capability")
	if err != nil {
		return c, false
	}
	return decodeFileCaps(b, ns)
}

func decodeFileCaps(b []byte, ns *auth.UserNamespace) (c fileCapability, ok bool) {
	if len(b) < 12 {
		return c, false
	}
	le := binary.LittleEndian
	magic := le.Uint32(b)
	words := 2
	switch {
	case magic>>24 == 1 && len(b) == 12:
		words = 1
	case magic>>24 == 2 && len(b) == 20:
	case magic>>24 == 3 && len(b) == 24:
		// The root of the namespace that may use them.
		if auth.KUID(le.Uint32(b[20:])) != ns.MapToKUID(0) {
			return c, false
		}
	default:
		return c, false
	}
	for i := range words {
		c.permitted |= auth.CapSet(le.Uint32(b[4+8*i:])) << (32 * i)
		c.inheritable |= auth.CapSet(le.Uint32(b[8+8*i:])) << (32 * i)
	}
	c.permitted &= auth.AllCaps
	c.inheritable &= auth.AllCaps
	c.effective = magic&1 != 0
	return c, true
}
