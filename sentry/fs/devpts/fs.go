package devpts

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"

	"moat/sentry/fs/genfs"
	"moat/sentry/kernel"
	"moat/sentry/kernel/auth"
	"moat/sentry/vfs"
)

// FS is an instance of devpts.
type FS struct {
	*genfs.FS
	k    *kernel.Kernel
	opts options
	ptmx *ptmxInode

	mu   sync.Mutex
	ptys map[uint32]*Pty // +checklocks:mu
}

// options are devpts' mount options.
type options struct {
	uid            auth.KUID
	gid            auth.KGID
	setUID, setGID bool
	mode, ptmxMode uint16
	max            uint32
}

// Numbers of the devices: the slaves', /dev/ptmx, /dev/tty.
const (
	slaveMajor = 136
	ttyMajor   = 5
	ttyMinor   = 0
	ptmxMinor  = 2
	rootIno    = 1
	ptmxIno    = 2
	firstIno   = 3
)

// Register makes "devpts", /dev/tty and /dev/ptmx known.
func Register(k *kernel.Kernel) {
	vfs.RegisterFileSystem("devpts", func(ctx vfs.Context, _, data string) (vfs.FileSystem, error) {
		return New(k, ctx.Credentials().UserNS, data)
	})
	vfs.RegisterDevice(vfs.CharDevice, ttyMajor, ttyMinor, openTTY)
	vfs.RegisterDevice(vfs.CharDevice, ttyMajor, ptmxMinor, openPtmxNode)
}

// New returns an instance with mount(2)'s options, of a caller in ns.
func New(k *kernel.Kernel, ns *auth.UserNamespace, data string) (*FS, error) {
	o := options{mode: 0o600, max: 1 << 20}
	for _, kv := range strings.Split(data, ",") {
		name, v, _ := strings.Cut(kv, "=")
		base := 10
		if name == "mode" || name == "ptmxmode" {
			base = 8
		}
		n, err := strconv.ParseUint(v, base, 32)
		switch name {
		case "uid":
			o.uid, o.setUID = ns.MapToKUID(uint32(n)), true
		case "gid":
			o.gid, o.setGID = ns.MapToKGID(uint32(n)), true
		case "mode":
			o.mode = uint16(n) & 0o777
		case "ptmxmode":
			o.ptmxMode = uint16(n) & 0o777
		case "max":
			o.max = uint32(n)
		case "", "newinstance":
			err = nil
		default:
			err = unix.EINVAL
		}
		if err != nil || uint32(o.uid) == auth.NoID || uint32(o.gid) == auth.NoID {
			return nil, unix.EINVAL
		}
	}
	f := &FS{FS: genfs.New("devpts", linux.DEVPTS_SUPER_MAGIC), k: k, opts: o, ptys: map[uint32]*Pty{}}
	f.Options = fmt.Sprintf("mode=%03o,ptmxmode=%03o", o.mode, o.ptmxMode)
	if o.setGID {
		f.Options = fmt.Sprintf("gid=%d,%s", o.gid, f.Options)
	}
	if o.setUID {
		f.Options = fmt.Sprintf("uid=%d,%s", o.uid, f.Options)
	}
	f.ptmx = &ptmxInode{node{fs: f, ino: ptmxIno, mode: unix.S_IFCHR | o.ptmxMode, rdev: unix.Mkdev(ttyMajor, ptmxMinor), uid: ns.MapToKUID(0), gid: ns.MapToKGID(0)}}
	f.SetRoot(genfs.NewDir(f.FS, rootIno, 0o755, names{f}, genfs.Child{Name: "ptmx", Inode: f.ptmx}))
	return f, nil
}

// names are the slaves as directory entries.
type names struct{ f *FS }

// Find implements genfs.Dynamic.
func (n names) Find(_ vfs.Context, name string) (vfs.Inode, error) {
	v, err := strconv.ParseUint(name, 10, 32)
	if err != nil || strconv.FormatUint(v, 10) != name {
		return nil, unix.ENOENT
	}
	n.f.mu.Lock()
	defer n.f.mu.Unlock()
	if p := n.f.ptys[uint32(v)]; p != nil {
		return p.slave, nil
	}
	return nil, unix.ENOENT
}

// List implements genfs.Dynamic.
func (n names) List(_ vfs.Context, from int64, emit func(int64, string, uint8, uint64) bool) error {
	n.f.mu.Lock()
	var ns []int
	for v := range n.f.ptys {
		if int64(v) >= from {
			ns = append(ns, int(v))
		}
	}
	n.f.mu.Unlock()
	sort.Ints(ns)
	for _, v := range ns {
		if !emit(int64(v), strconv.Itoa(v), unix.DT_CHR, uint64(v)+firstIno) {
			break
		}
	}
	return nil
}

// newPty makes a terminal with the lowest free number: ENOSPC.
func (f *FS) newPty(c *auth.Credentials) (*Pty, error) {
	p := &Pty{fs: f, locked: true}
	p.job.TTY = p
	p.tty.c = defaultTermios()
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.ptys[p.n] != nil {
		p.n++
	}
	if p.n >= f.opts.max {
		return nil, unix.ENOSPC
	}
	i := &slaveInode{node{fs: f, ino: uint64(p.n) + firstIno, mode: unix.S_IFCHR | f.opts.mode, rdev: unix.Mkdev(slaveMajor, p.n), uid: c.FSUID, gid: c.FSGID}, p}
	if f.opts.setUID {
		i.uid = f.opts.uid
	}
	if f.opts.setGID {
		i.gid = f.opts.gid
	}
	i.born = vfs.Background().Now()
	p.slave = i
	f.ptys[p.n] = p
	return p, nil
}

func (f *FS) remove(p *Pty) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.ptys, p.n)
}

// node is the inode of a device of devpts.
type node struct {
	vfs.InodeDefaults
	fs   *FS
	ino  uint64
	rdev uint64
	born vfs.Time

	mu   sync.Mutex
	mode uint16
	uid  auth.KUID
	gid  auth.KGID
}

// FS implements vfs.Inode.
func (n *node) FS() vfs.FileSystem { return n.fs }

// Mode implements vfs.Inode.
func (n *node) Mode() uint16 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mode
}

// Attr implements vfs.Inode.
func (n *node) Attr(vfs.Context) (vfs.Attr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return vfs.Attr{Ino: n.ino, Mode: n.mode, Nlink: 1, UID: n.uid, GID: n.gid, Rdev: n.rdev, Blksize: 1024, Atime: n.born, Mtime: n.born, Ctime: n.born}, nil
}

// SetAttr implements vfs.Inode.
func (n *node) SetAttr(_ vfs.Context, s vfs.SetAttr) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s.Valid&vfs.SetMode != 0 {
		n.mode = n.mode&unix.S_IFMT | s.Mode&0o7777
	}
	if s.Valid&vfs.SetUID != 0 {
		n.uid = s.UID
	}
	if s.Valid&vfs.SetGID != 0 {
		n.gid = s.GID
	}
	return nil
}

// ptmxInode is /dev/pts/ptmx.
type ptmxInode struct{ node }

// OpenSpecial implements vfs.SpecialOpener: a new terminal.
func (i *ptmxInode) OpenSpecial(ctx vfs.Context, _ uint32) (vfs.FileImpl, error) {
	p, err := i.fs.newPty(ctx.Credentials())
	if err != nil {
		return nil, err
	}
	return &master{vfs.Waitable{Waiters: &p.masterQueue}, p}, nil
}

// slaveInode is /dev/pts/N.
type slaveInode struct {
	node
	p *Pty
}

// OpenSpecial implements vfs.SpecialOpener.
func (i *slaveInode) OpenSpecial(ctx vfs.Context, flags uint32) (vfs.FileImpl, error) {
	return i.p.open(ctx, flags)
}

// open opens the slave, which may become the caller's controlling terminal.
func (p *Pty) open(ctx vfs.Context, flags uint32) (vfs.FileImpl, error) {
	if err := p.openSlave(ctx.Credentials().HasCap(linux.CAP_SYS_ADMIN)); err != nil {
		return nil, err
	}
	if t, ok := ctx.(*kernel.Task); ok && flags&unix.O_NOCTTY == 0 && flags&unix.O_ACCMODE != unix.O_WRONLY {
		t.OpenTTY(&p.job)
	}
	return &slave{vfs.Waitable{Waiters: &p.slaveQueue}, p}, nil
}

// openTTY opens /dev/tty: the caller's controlling terminal, or ENXIO.
func openTTY(ctx vfs.Context, _ *vfs.Dentry, flags uint32) (vfs.FileImpl, error) {
	if t, ok := ctx.(*kernel.Task); ok {
		if p, ok := t.ThreadGroup().ControllingTTY().(*Pty); ok {
			return p.open(ctx, flags|unix.O_NOCTTY)
		}
	}
	return nil, unix.ENXIO
}

// openPtmxNode opens a node 5:2 that is not in a devpts: the instance is what is mounted on pts beside it (devpts_acquire).
func openPtmxNode(ctx vfs.Context, d *vfs.Dentry, flags uint32) (vfs.FileImpl, error) {
	p, err := vfs.Resolve(ctx, ctx.Root(), "/dev/pts", vfs.Follow)
	if err != nil {
		return nil, unix.ENODEV
	}
	defer p.DecRef()
	f, ok := p.Mount.FS().(*FS)
	if !ok {
		return nil, unix.ENODEV
	}
	return f.ptmx.OpenSpecial(ctx, flags)
}

// openPeer is TIOCGPTPEER: it opens the slave as flags say, by no path, and returns the descriptor.
func (p *Pty) openPeer(ctx vfs.Context, flags uint32) (uintptr, error) {
	t, ok := ctx.(*kernel.Task)
	if !ok {
		return 0, unix.ENOTTY
	}
	dir, err := vfs.Resolve(ctx, ctx.Root(), "/dev/pts", vfs.Follow)
	if err != nil {
		return 0, err
	}
	defer dir.DecRef()
	if dir.Mount.FS() != vfs.FileSystem(p.fs) {
		return 0, unix.EIO
	}
	f, err := vfs.Open(ctx, dir, strconv.Itoa(int(p.n)), vfs.OpenOptions{Flags: flags&(unix.O_ACCMODE|unix.O_NONBLOCK|unix.O_CLOEXEC) | unix.O_NOCTTY})
	if err != nil {
		return 0, err
	}
	return t.InstallFD(f, flags)
}
