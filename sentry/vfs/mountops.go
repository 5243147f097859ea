package vfs

import (
	"path"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"moat/sentry/kernel/auth"
)

// FileSystemType makes a file system for mount(2).
type FileSystemType func(ctx Context, source, data string) (FileSystem, error)

// FileSystemOwner is the user namespace that an instance made by ctx belongs to: mounting one takes CAP_SYS_ADMIN there.
type FileSystemOwner func(ctx Context) *auth.UserNamespace

type fsType struct {
	make  FileSystemType
	owner FileSystemOwner
}

var fsTypes struct {
	mu sync.RWMutex
	// +checklocks:mu
	m map[string]fsType
}

// RegisterFileSystem makes a type known to mount(2). Without an owner it belongs to whoever mounts it.
func RegisterFileSystem(name string, t FileSystemType, owner ...FileSystemOwner) {
	fsTypes.mu.Lock()
	defer fsTypes.mu.Unlock()
	if fsTypes.m == nil {
		fsTypes.m = make(map[string]fsType)
	}
	f := fsType{make: t, owner: func(ctx Context) *auth.UserNamespace { return ctx.Credentials().UserNS }}
	if len(owner) > 0 {
		f.owner = owner[0]
	}
	fsTypes.m[name] = f
}

// typeByName is get_fs_type: ENODEV.
func typeByName(name string) (fsType, error) {
	fsTypes.mu.RLock()
	defer fsTypes.mu.RUnlock()
	t, ok := fsTypes.m[name]
	if !ok {
		return t, unix.ENODEV
	}
	return t, nil
}

// mayMount is mount_capable; the kernel itself, which has no root directory, may.
func (t fsType) mayMount(ctx Context) bool {
	return !ctx.Root().Ok() || ctx.Credentials().HasCapIn(linux.CAP_SYS_ADMIN, t.owner(ctx))
}

// instance makes a file system of type t with a mount of it that is in no namespace yet: EPERM, and the type's own errors.
func (t fsType) instance(ctx Context, source, data string) (*Mount, error) {
	if !t.mayMount(ctx) {
		return nil, unix.EPERM
	}
	fs, err := t.make(ctx, source, data)
	if err != nil {
		return nil, err
	}
	sb, err := newSuper(fs)
	if err != nil {
		fs.Release()
		return nil, err
	}
	if ctx.Root().Ok() {
		sb.owner = t.owner(ctx)
	}
	if source == "" {
		source = "none"
	}
	return newMount(sb, sb.root, 0, source), nil
}

// FileSystemTypes are the names that mount(2) knows.
func FileSystemTypes() []string {
	fsTypes.mu.RLock()
	defer fsTypes.mu.RUnlock()
	var out []string
	for n := range fsTypes.m {
		out = append(out, n)
	}
	return out
}

// Remounter is implemented by file systems whose own options can change on remount.
type Remounter interface {
	Remount(ctx Context, data string) error
}

// namespaceOf returns the caller's mount namespace if the caller may change it: EPERM.
func namespaceOf(ctx Context) (*MountNamespace, error) {
	m := ctx.Root().Mount
	if m == nil {
		return nil, nil // the kernel itself
	}
	ns := m.Namespace()
	if ns == nil {
		return nil, unix.EINVAL
	}
	if !ctx.Credentials().HasCapIn(linux.CAP_SYS_ADMIN, ns.Owner) {
		return nil, unix.EPERM
	}
	return ns, nil
}

// MayMount is may_mount: EPERM.
func MayMount(ctx Context) error {
	_, err := namespaceOf(ctx)
	return err
}

// MountFlags turns mount(2)'s MS_* flags into a mount's ST_* flags.
func MountFlags(ms uint64) uint32 {
	var f uint32
	for _, p := range [...]struct {
		ms uint64
		st uint32
	}{{unix.MS_RDONLY, unix.ST_RDONLY}, {unix.MS_NOSUID, unix.ST_NOSUID}, {unix.MS_NODEV, unix.ST_NODEV},
		{unix.MS_NOEXEC, unix.ST_NOEXEC}, {unix.MS_NOATIME, unix.ST_NOATIME}, {unix.MS_NODIRATIME, unix.ST_NODIRATIME},
		{unix.MS_NOSYMFOLLOW, 0x2000}} {
		if ms&p.ms != 0 {
			f |= p.st
		}
	}
	if ms&(unix.MS_NOATIME|unix.MS_STRICTATIME) == 0 {
		f |= unix.ST_RELATIME
	}
	return f
}

// DoMount is mount(2). target is consumed neither way; source is resolved for MS_BIND and MS_MOVE only.
func DoMount(ctx Context, source string, target Path, fstype string, flags uint64, data string) error {
	ns, err := namespaceOf(ctx)
	const noUser = 1 << 31 // MS_NOUSER
	if flags&noUser != 0 || err == nil && ns != nil && target.Mount.Namespace() != ns {
		return unix.EINVAL
	}
	if err != nil {
		return err
	}
	const propagation = unix.MS_SHARED | unix.MS_PRIVATE | unix.MS_SLAVE | unix.MS_UNBINDABLE
	switch {
	case flags&unix.MS_REMOUNT != 0:
		return remount(ctx, target, flags, data)
	case source == "" && (flags&unix.MS_BIND != 0 || flags&(propagation|unix.MS_MOVE) == unix.MS_MOVE):
		return unix.EINVAL
	case flags&unix.MS_BIND != 0:
		src, err := Resolve(ctx, ctx.Cwd(), source, Follow)
		if err != nil {
			return err
		}
		defer src.DecRef()
		if ns != nil && src.Mount.Namespace() != ns && src.Mount.FS().Type() != "nsfs" {
			return unix.EINVAL
		}
		return BindMount(src, target, flags&unix.MS_REC != 0)
	case flags&propagation != 0:
		if k := flags & propagation; k&(k-1) != 0 {
			return unix.EINVAL // one kind at a time
		}
		return setPropagation(target, flags)
	case flags&unix.MS_MOVE != 0:
		src, err := Resolve(ctx, ctx.Cwd(), source, Follow)
		if err != nil {
			return err
		}
		defer src.DecRef()
		return MoveMount(ctx, src, target)
	}
	if fstype == "" {
		return unix.EINVAL
	}
	t, err := typeByName(fstype)
	if err != nil {
		return err
	}
	m, err := t.instance(ctx, source, data)
	if err != nil {
		return err
	}
	m.flags.Store(MountFlags(flags))
	m.sb.ro.Store(flags&unix.MS_RDONLY != 0)
	return m.mountOn(ns, target)
}

// MountFS mounts fs on target with ST_* flags. fs is released if that fails.
func MountFS(fs FileSystem, target Path, source, root string, flags uint32) error {
	sb, err := newSuper(fs)
	if err != nil {
		fs.Release()
		return err
	}
	sb.path = root
	return newMount(sb, sb.root, flags, source).mountOn(nil, target)
}

// mountOn consumes m: it is attached at target, in the caller's namespace (nil: the kernel itself asks).
func (m *Mount) mountOn(ns *MountNamespace, target Path) (err error) {
	mountMu.Lock()
	switch {
	case ns != nil && m.revealsLocked(ns):
		err = unix.EPERM
	case (m.root.dir != nil) != (target.Dentry.dir != nil):
		err = unix.ENOTDIR
	default:
		err = m.graftAtLocked(target)
	}
	mountMu.Unlock()
	if err != nil {
		m.DecRef()
	}
	return err
}

// graftAtLocked attaches m at target after the checks that all ways to mount share.
func (m *Mount) graftAtLocked(target Path) error {
	switch {
	case target.Dentry.Deleted():
		return unix.ENOENT
	case target.Mount.ns == nil, m.loopsLocked(target.Mount):
		return unix.EINVAL
	case len(target.Mount.ns.mounts) >= 100000: // fs.mount-max
		return unix.ENOSPC
	}
	m.graftLocked(target.Mount, target.Dentry)
	return nil
}

// BindMount makes the tree at src visible at target too; rec takes the mounts below along (MS_REC).
func BindMount(src, target Path, rec bool) error {
	mountMu.Lock()
	m, err := src.cloneTreeLocked(rec)
	var gone []*Mount
	if err == nil {
		if err = unix.ENOTDIR; (src.Dentry.dir != nil) == (target.Dentry.dir != nil) {
			err = m.graftAtLocked(target)
		}
		if err != nil {
			gone = m.detachTreeLocked()
		}
	}
	mountMu.Unlock()
	dropAll(gone)
	return err
}

// cloneTreeLocked is __do_loopback: a copy of the tree at p, with what is mounted below if rec.
func (p Path) cloneTreeLocked(rec bool) (*Mount, error) {
	if p.Mount.unbind || !rec && p.coversLocked() {
		return nil, unix.EINVAL
	}
	hidden := false
	if rec {
		p.Mount.walkLocked(func(x *Mount) { hidden = hidden || x.unbind && x.locked })
	}
	if hidden {
		return nil, unix.EPERM
	}
	m := p.Mount.copyTreeLocked(p.Dentry, rec, false, nil)
	m.locked = false
	return m, nil
}

// detachTreeLocked detaches m and all below; the caller drops what it returns. What a locked mount covers stays covered: it stays where it is.
func (m *Mount) detachTreeLocked() []*Mount {
	var gone []*Mount
	m.walkLocked(func(x *Mount) { gone = append(gone, x) })
	for _, x := range gone {
		if x.locked && x != m {
			x.leaveLocked()
			x.old = x.place.Load()
			x.old.kept = true
			x.old.parent.keeps.Store(true)
		} else {
			x.detachLocked()
		}
	}
	return gone
}

// mountedHere is is_local_mountpoint: ctx's namespace has something mounted on d. What others have does not keep d's name.
func (d *Dentry) mountedHere(ctx Context) bool {
	l, root := d.mounts.Load(), ctx.Root().Mount
	if l == nil {
		return false
	}
	mountMu.RLock()
	defer mountMu.RUnlock()
	return slices.ContainsFunc(*l, func(m *Mount) bool { return root == nil || m.ns == root.ns })
}

// detachMounts ends what other namespaces have mounted on d, whose name is gone (detach_mounts).
func (d *Dentry) detachMounts() {
	if d.mounts.Load() == nil {
		return
	}
	var gone []*Mount
	mountMu.Lock()
	if l := d.mounts.Load(); l != nil {
		for _, m := range *l {
			if ns := m.ns; ns != nil {
				gone = append(gone, m.detachTreeLocked()...)
				ns.changedLocked()
			}
		}
	}
	mountMu.Unlock()
	dropAll(gone)
}

func dropAll(gone []*Mount) {
	for _, g := range gone {
		g.drop()
	}
}

func setPropagation(target Path, flags uint64) error {
	if target.Dentry != target.Mount.root {
		return unix.EINVAL
	}
	mountMu.Lock()
	defer mountMu.Unlock()
	if flags&unix.MS_REC != 0 {
		target.Mount.walkLocked(func(m *Mount) { m.propagateLocked(flags) })
	} else {
		target.Mount.propagateLocked(flags)
	}
	target.Mount.ns.changedLocked()
	return nil
}

// propagateLocked makes m what flags say, of MS_SHARED, MS_SLAVE, MS_PRIVATE and MS_UNBINDABLE; nothing without one of them.
func (m *Mount) propagateLocked(flags uint64) {
	switch {
	case flags&unix.MS_SHARED != 0:
		m.makeSharedLocked()
		m.unbind = false
	case flags&unix.MS_SLAVE != 0:
		if g := m.group; g != nil {
			m.leaveGroupLocked()
			if len(g.members) > 0 {
				m.setMasterLocked(g)
			}
		}
	case flags&(unix.MS_PRIVATE|unix.MS_UNBINDABLE) != 0:
		m.leaveGroupLocked()
		m.setMasterLocked(nil)
		m.unbind = flags&unix.MS_UNBINDABLE != 0
	}
}

func remount(ctx Context, target Path, flags uint64, data string) error {
	m := target.Mount
	if target.Dentry != m.root {
		return unix.EINVAL
	}
	f := MountFlags(flags)
	mountMu.Lock()
	defer mountMu.Unlock()
	if flags&(unix.MS_NOATIME|unix.MS_STRICTATIME|unix.MS_RELATIME|unix.MS_NODIRATIME) == 0 {
		f = f&^atimeFlags | m.flags.Load()&atimeFlags
	}
	if !m.mayChangeLocked(f) {
		return unix.EPERM
	}
	if flags&unix.MS_BIND == 0 {
		ro := f&unix.ST_RDONLY != 0
		if err := m.sb.reconfigure(ctx, data, &ro); err != nil {
			return err
		}
	}
	if f&^m.flags.Load()&unix.ST_RDONLY != 0 {
		// Block new writers while the flag is set.
		if m.writers.Add(remounting) != remounting {
			m.writers.Add(-remounting)
			return unix.EBUSY
		}
		defer m.writers.Add(-remounting)
	}
	m.flags.Store(f)
	m.ns.changedLocked()
	return nil
}

// reconfigure changes the options of the file system itself: EPERM unless ctx may do so, EBUSY if there are writers while it becomes read-only.
func (sb *super) reconfigure(ctx Context, data string, ro *bool) error {
	if ctx.Root().Ok() {
		owner := sb.owner
		if owner == nil {
			owner = ctx.Credentials().UserNS.Root()
		}
		if !ctx.Credentials().HasCapIn(linux.CAP_SYS_ADMIN, owner) {
			return unix.EPERM
		}
	}
	if r, ok := sb.fs.(Remounter); ok && data != "" {
		if err := r.Remount(ctx, data); err != nil {
			return err
		}
	}
	if ro == nil {
		return nil
	}
	if *ro && !sb.ro.Load() {
		if sb.writers.Add(remounting) != remounting {
			sb.writers.Add(-remounting)
			return unix.EBUSY
		}
		defer sb.writers.Add(-remounting)
	}
	sb.ro.Store(*ro)
	return nil
}

// Unmount is umount2(2).
func Unmount(ctx Context, target Path, flags int32) error {
	if _, err := namespaceOf(ctx); err != nil {
		return err
	}
	m := target.Mount
	if target.Dentry != m.root {
		return unix.EINVAL
	}
	if flags&unix.MNT_EXPIRE != 0 && (flags&(unix.MNT_FORCE|unix.MNT_DETACH) != 0 || m == ctx.Root().Mount) {
		return unix.EINVAL
	}
	mountMu.Lock()
	gone, err := unmountLocked(ctx, m, flags)
	mountMu.Unlock()
	dropAll(gone)
	return err
}

func unmountLocked(ctx Context, m *Mount, flags int32) ([]*Mount, error) {
	at := m.place.Load()
	// The caller's path and the namespace hold a reference each.
	busy := func(x *Mount, own int64) bool { return x.refs.Load() > own || len(x.children) > 0 }
	root := ctx.Root()
	switch {
	case m.ns == nil || root.Ok() && root.Mount.ns != m.ns:
		return nil, unix.EINVAL
	case at == nil, m.locked:
		return nil, unix.EINVAL // the root of the namespace, or what a more privileged one has hidden something with
	case flags&unix.MNT_EXPIRE != 0:
		if busy(m, 2) {
			return nil, unix.EBUSY
		}
		if m.expire.CompareAndSwap(0, 2) {
			return nil, unix.EAGAIN
		}
	case flags&unix.MNT_DETACH == 0 && busy(m, 2):
		return nil, unix.EBUSY
	}
	ns := m.ns
	var gone []*Mount
	for _, q := range at.parent.targetsLocked(at.point) {
		if c := q.child(at.point); c != nil {
			if flags&unix.MNT_DETACH != 0 || !busy(c, 2) {
				qns := q.ns
				gone = append(gone, c.detachTreeLocked()...)
				qns.changedLocked()
			}
			c.DecRef()
		}
	}
	gone = append(gone, m.detachTreeLocked()...)
	ns.changedLocked()
	return gone, nil
}

// PivotRoot is pivot_root(2). The caller then moves the roots and working directories of tasks from old to newRoot.
func PivotRoot(ctx Context, newRoot, putOld Path) (old Path, err error) {
	ns, err := namespaceOf(ctx)
	if err != nil {
		return Path{}, err
	}
	if newRoot.Dentry.dir == nil || putOld.Dentry.dir == nil {
		return Path{}, unix.ENOTDIR
	}
	root := ctx.Root()
	mountMu.Lock()
	err = pivotLocked(ns, root, newRoot, putOld)
	mountMu.Unlock()
	if err != nil {
		return Path{}, err
	}
	newRoot.Mount.dropPlace()
	root.Mount.dropPlace()
	return root, nil
}

// onShared reports whether m is mounted on a shared mount.
func (m *Mount) onShared() bool {
	p := m.place.Load()
	return p != nil && p.parent.group != nil
}

// +checklocks:mountMu
func pivotLocked(ns *MountNamespace, root, newRoot, putOld Path) error {
	nm, rm := newRoot.Mount, root.Mount
	switch {
	case nm.ns != ns || putOld.Mount.ns != ns || rm.ns != ns, putOld.Mount.group != nil, nm.onShared(), rm.onShared(), nm.locked:
		return unix.EINVAL
	case newRoot.Dentry.Deleted():
		return unix.ENOENT
	case nm == rm || putOld.Mount == rm:
		return unix.EBUSY
	case root.Dentry != rm.root, newRoot.Dentry != nm.root, nm.place.Load() == nil:
		return unix.EINVAL
	case !below(newRoot, putOld), !below(root, newRoot):
		return unix.EINVAL
	}
	at := rm.place.Load()
	nm.locked, rm.locked = rm.locked, false
	nm.unplaceLocked()
	if at != nil {
		rm.unplaceLocked()
		nm.attachLocked(at.parent, at.point)
	} else {
		ns.root = nm
	}
	rm.attachLocked(putOld.Mount, putOld.Dentry)
	ns.changedLocked()
	return nil
}

// below reports whether p is at or below root (mountMu held).
func below(root, p Path) bool {
	m, d := p.Mount, p.Dentry
	for m != root.Mount {
		at := m.place.Load()
		if at == nil {
			return false
		}
		m, d = at.parent, at.point
	}
	return isAncestor(root.Dentry, d)
}

// Copy returns a copy of ns for clone(2) with CLONE_NEWNS, and the paths that correspond to ps in it, with references (those outside ns are kept as
// they are).
func (ns *MountNamespace) Copy(ctx Context, ps ...Path) (*MountNamespace, []Path) {
	c := &MountNamespace{ID: nsIDs.Add(1), Owner: ctx.Credentials().UserNS}
	c.refs.Store(1)
	defer nsByID.Store(c.ID, c)
	mountMu.Lock()
	defer mountMu.Unlock()
	twin := make(map[*Mount]*Mount)
	slave := c.Owner != ns.Owner
	c.root = ns.root.copyTreeLocked(ns.root.root, true, true, func(from, to *Mount) {
		twin[from] = to
		if slave && to.group != nil {
			g := to.group
			to.leaveGroupLocked()
			to.setMasterLocked(g)
		}
	})
	c.root.setNSLocked(c)
	if slave {
		c.root.lockTreeLocked()
		c.root.locked = true // as if on a rootfs
	}
	// Keep the table in ns's order.
	c.mounts = c.mounts[:0]
	for _, m := range ns.mounts {
		if t := twin[m]; t != nil {
			c.mounts = append(c.mounts, t)
		}
	}
	out := make([]Path, len(ps))
	for i, p := range ps {
		if t := twin[p.Mount]; t != nil {
			p.Mount = t
		}
		out[i] = p.IncRef()
	}
	return c, out
}

// MountInfo is one line of /proc/PID/mountinfo.
type MountInfo struct {
	ID, ParentID   uint64
	Dev            uint64
	Root, Point    string
	Flags          uint32 // ST_*
	Type, Source   string
	Options        string // the file system's own
	SuperReadOnly  bool
	Shared, Master uint64 // peer group IDs, 0 for none
	Unbindable     bool
	FS             FileSystem // without a reference
}

// FlagString is flags as in the options column: "rw,nosuid,relatime".
func (mi *MountInfo) FlagString() string {
	var b strings.Builder
	b.WriteString("rw")
	if mi.Flags&unix.ST_RDONLY != 0 {
		b.Reset()
		b.WriteString("ro")
	}
	for _, f := range [...]struct {
		bit  uint32
		name string
	}{{unix.ST_NOSUID, ",nosuid"}, {unix.ST_NODEV, ",nodev"}, {unix.ST_NOEXEC, ",noexec"}, {unix.ST_NOATIME, ",noatime"},
		{unix.ST_NODIRATIME, ",nodiratime"}, {unix.ST_RELATIME, ",relatime"}, {0x2000, ",nosymfollow"}} {
		if mi.Flags&f.bit != 0 {
			b.WriteString(f.name)
		}
	}
	return b.String()
}

// Mounts lists the mounts of ns that are reachable from root, in order of mounting.
func (ns *MountNamespace) Mounts(root Path) []MountInfo {
	mountMu.RLock()
	defer mountMu.RUnlock()
	return ns.mountsLocked(root)
}

// MountsBelow lists the mounts that are reachable from the one with the unique number id, without it. It must be reachable from root, unless all is set: ENOENT, EPERM.
func (ns *MountNamespace) MountsBelow(root Path, id uint64, all bool) ([]MountInfo, error) {
	mountMu.RLock()
	defer mountMu.RUnlock()
	i := slices.IndexFunc(ns.mounts, func(m *Mount) bool { return m.UniqueID() == id })
	if i < 0 {
		return nil, unix.ENOENT
	}
	m := ns.mounts[i]
	if _, ok := GetPath(root, Path{m, m.root}); !ok && !all {
		return nil, unix.EPERM
	}
	return slices.DeleteFunc(ns.mountsLocked(Path{m, m.root}), func(x MountInfo) bool { return x.ID == m.id }), nil
}

func (ns *MountNamespace) mountsLocked(root Path) []MountInfo {
	var out []MountInfo
	for _, m := range ns.mounts {
		point, ok := GetPath(root, Path{m, m.root})
		if !ok {
			continue
		}
		mi := MountInfo{ID: m.id, ParentID: m.id, Dev: m.sb.fs.Dev(), Root: mountRoot(m), Point: point, Flags: m.flags.Load(),
			Type: m.sb.fs.Type(), Source: m.source, Options: m.sb.fs.MountOptions(), Unbindable: m.unbind,
			SuperReadOnly: m.sb.ro.Load(), FS: m.sb.fs}
		if p := m.place.Load(); p != nil {
			mi.ParentID = p.parent.id
		}
		if m.group != nil {
			mi.Shared = m.group.id
		}
		if m.master != nil {
			mi.Master = m.master.id
		}
		out = append(out, mi)
	}
	return out
}

// mountRoot is the path of m's root within its file system.
func mountRoot(m *Mount) string {
	s := ""
	for d := m.root; ; {
		l := d.loc.Load()
		if l.parent == d {
			return path.Join("/", m.sb.path, s)
		}
		s = "/" + l.name + s
		d = l.parent
	}
}

// Sync writes back every file system of ns (sync(2)).
func (ns *MountNamespace) Sync(ctx Context) {
	seen := make(map[*super]bool)
	mountMu.RLock()
	var all []*Mount
	for _, m := range ns.mounts {
		if !seen[m.sb] {
			seen[m.sb] = true
			m.IncRef()
			all = append(all, m)
		}
	}
	mountMu.RUnlock()
	for _, m := range all {
		m.sb.fs.Sync(ctx)
		m.DecRef()
	}
}
