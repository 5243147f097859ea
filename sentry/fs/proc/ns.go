package proc

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/waiter"

	"moat/sentry/fs/genfs"
	"moat/sentry/kernel"
	"moat/sentry/kernel/auth"
	"moat/sentry/vfs"
)

// mountNSBase is added to a mount namespace's number for its inode number, away from those of other kinds.
const mountNSBase = 0xF2000000

// namespace is one entry of /proc/PID/ns.
type namespace struct {
	name, typ string
	flag      uint32
	get       func(t *kernel.Task) (obj any, ino uint64)
}

var namespaces = []namespace{
	{"net", "net", unix.CLONE_NEWNET, func(t *kernel.Task) (any, uint64) { n := t.Namespaces().Net; return n, n.Ino() }},
	{"uts", "uts", unix.CLONE_NEWUTS, func(t *kernel.Task) (any, uint64) { n := t.Namespaces().UTS; return n, n.Ino() }},
	{"ipc", "ipc", unix.CLONE_NEWIPC, func(t *kernel.Task) (any, uint64) { n := t.Namespaces().IPC; return n, n.Ino() }},
	{"pid", "pid", unix.CLONE_NEWPID, func(t *kernel.Task) (any, uint64) { n := t.PIDNamespace(); return n, n.Ino() }},
	{"pid_for_children", "pid", unix.CLONE_NEWPID, func(t *kernel.Task) (any, uint64) { n := t.Namespaces().PIDForChildren; return n, n.Ino() }},
	{"user", "user", unix.CLONE_NEWUSER, func(t *kernel.Task) (any, uint64) { n := t.UserNamespace(); return n, n.Ino() }},
	{"mnt", "mnt", unix.CLONE_NEWNS, func(t *kernel.Task) (any, uint64) {
		n := t.Namespaces().Mount
		if n == nil {
			return nil, 0
		}
		return n, mountNSBase + n.ID
	}},
	{"cgroup", "cgroup", unix.CLONE_NEWCGROUP, func(t *kernel.Task) (any, uint64) { n := t.Namespaces().Cgroup; return n, n.Ino() }},
	{"time", "time", unix.CLONE_NEWTIME, func(t *kernel.Task) (any, uint64) { n := t.Namespaces().Time; return n, n.Ino() }},
	{"time_for_children", "time", unix.CLONE_NEWTIME, func(t *kernel.Task) (any, uint64) { n := t.Namespaces().TimeForChildren; return n, n.Ino() }},
}

func nsDir(s subject, ino uint64, perm uint16) vfs.Inode {
	d := genfs.NewDir(s.f.FS, ino, perm, nsEntries{s})
	d.Owner = s.owner
	return d
}

type nsEntries struct{ s subject }

// nsIndex is where the inode numbers of namespace links begin among those of a task.
const nsIndex = 128

// Find implements genfs.Dynamic.
func (e nsEntries) Find(_ vfs.Context, name string) (vfs.Inode, error) {
	for i := range namespaces {
		n := &namespaces[i]
		if n.name != name {
			continue
		}
		l := genfs.NewLink(e.s.f.FS, taskIno(e.s.t.TIDIn(e.s.f.pidns), e.s.thread, nsIndex+i), 0o777, func(vfs.Context) (string, error) {
			obj, ino := n.get(e.s.t)
			if obj == nil {
				return "", unix.ENOENT
			}
			return fmt.Sprintf("%s:[%d]", n.typ, ino), nil
		})
		l.Jump = func(vfs.Context) (vfs.Path, error) {
			obj, ino := n.get(e.s.t)
			m, ok := obj.(*vfs.MountNamespace)
			if obj == nil || ok && !m.TryIncRef() {
				return vfs.Path{}, unix.ENOENT
			}
			return e.s.f.nsPath(obj, n.flag, n.typ, ino), nil
		}
		l.Owner = e.s.owner
		l.Access = func(ctx vfs.Context) error { return e.s.mayAccess(ctx, unix.EACCES) }
		return l, nil
	}
	return nil, unix.ENOENT
}

// nsPath is the file of a namespace in nsfs, which has the reference to one of mounts.
func (f *FS) nsPath(obj any, flag uint32, typ string, ino uint64) vfs.Path {
	i := &nsInode{file: kernel.NSFile{Object: obj, Type: flag, Path: func(obj any, flag uint32) vfs.Path {
		if flag == unix.CLONE_NEWUSER {
			return f.nsPath(obj, flag, "user", obj.(*auth.UserNamespace).Ino())
		}
		return f.nsPath(obj, flag, "pid", obj.(*kernel.PIDNamespace).Ino())
	}}}
	genfs.InitFile(&i.File, f.nsfs, ino, 0o444)
	return f.ns.Path(fmt.Sprintf("%s:[%d]", typ, ino), i)
}

// List implements genfs.Dynamic.
func (e nsEntries) List(_ vfs.Context, from int64, emit func(int64, string, uint8, uint64) bool) error {
	for i := max(int(from), 0); i < len(namespaces); i++ {
		if !emit(int64(i), namespaces[i].name, unix.DT_LNK, taskIno(e.s.t.TIDIn(e.s.f.pidns), e.s.thread, nsIndex+i)) {
			break
		}
	}
	return nil
}

// nsInode is a namespace in nsfs.
type nsInode struct {
	genfs.File
	file kernel.NSFile
}

// Open implements vfs.Inode.
func (i *nsInode) Open(vfs.Context, *vfs.Dentry, uint32) (vfs.FileImpl, error) {
	f := i.file
	return &f, nil
}

// Holds is the mount namespace that the file keeps, or nil.
func (i *nsInode) Holds() *vfs.MountNamespace {
	m, _ := i.file.Object.(*vfs.MountNamespace)
	return m
}

// Evict implements vfs.Inode.
func (i *nsInode) Evict() {
	if m := i.Holds(); m != nil {
		go m.DecRef() // it unmounts
	}
}

// genIDMap is fs/proc/base.c's uid_map and gid_map.
func genIDMap(uid bool) func(subject, vfs.Context, *bytes.Buffer) error {
	return func(s subject, ctx vfs.Context, b *bytes.Buffer) error {
		for _, e := range s.t.UserNamespace().IDMap(uid, ctx.Credentials().UserNS) {
			fmt.Fprintf(b, "%10d %10d %10d\n", e.First, e.Parent, e.Length)
		}
		return nil
	}
}

// putIDMap is kernel/user_namespace.c map_write: all of the map in one write at offset 0.
func putIDMap(uid bool) func(subject, vfs.Context, []byte, int64) error {
	return func(s subject, ctx vfs.Context, data []byte, off int64) error {
		if off != 0 || len(data) >= 4096 {
			return unix.EINVAL
		}
		es, err := parseIDMap(string(data))
		if err != nil {
			return err
		}
		return s.t.UserNamespace().SetIDMap(uid, es, ctx.Credentials())
	}
}

// parseIDMap reads lines of three numbers.
func parseIDMap(text string) ([]auth.IDMapEntry, error) {
	var es []auth.IDMapEntry
	for _, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		var n [3]uint32
		fs := strings.Fields(line)
		if len(fs) != 3 {
			return nil, unix.EINVAL
		}
		for i, f := range fs {
			v, err := strconv.ParseUint(f, 10, 32)
			if err != nil {
				return nil, unix.EINVAL
			}
			n[i] = uint32(v)
		}
		es = append(es, auth.IDMapEntry{First: n[0], Parent: n[1], Length: n[2]})
	}
	return es, nil
}

func genSetgroups(s subject, _ vfs.Context, b *bytes.Buffer) error {
	if s.t.UserNamespace().SetgroupsAllowed() {
		b.WriteString("allow\n")
	} else {
		b.WriteString("deny\n")
	}
	return nil
}

func putSetgroups(s subject, _ vfs.Context, data []byte, off int64) error {
	if off != 0 || len(data) > 8 {
		return unix.EINVAL
	}
	switch strings.TrimRight(string(data), " \n\t") {
	case "allow":
		return s.t.UserNamespace().SetSetgroups(true)
	case "deny":
		return s.t.UserNamespace().SetSetgroups(false)
	}
	return unix.EINVAL
}

func genTimens(s subject, _ vfs.Context, b *bytes.Buffer) error {
	m, bt := s.t.Namespaces().TimeForChildren.Offsets()
	for _, o := range [...]struct {
		name string
		ns   int64
	}{{"monotonic", m}, {"boottime", bt}} {
		sec, ns := o.ns/1e9, o.ns%1e9
		if ns < 0 {
			sec, ns = sec-1, ns+1e9
		}
		fmt.Fprintf(b, "%-10s %10d %9d\n", o.name, sec, ns)
	}
	return nil
}

// putTimens is timens_offsets_write: lines "monotonic|boottime SEC NSEC".
func putTimens(s subject, ctx vfs.Context, data []byte, off int64) error {
	if off != 0 {
		return unix.EINVAL
	}
	tn := s.t.Namespaces().TimeForChildren
	m, bt := tn.Offsets()
	m, bt, err := parseTimens(string(data), m, bt)
	if err != nil {
		return err
	}
	return tn.SetOffsets(m, bt)
}

// parseTimens reads what is written to timens_offsets and returns the new offsets in nanoseconds.
func parseTimens(text string, m, bt int64) (int64, int64, error) {
	for _, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		f := strings.Fields(line)
		if len(f) != 3 {
			return 0, 0, unix.EINVAL
		}
		sec, err1 := strconv.ParseInt(f[1], 10, 64)
		ns, err2 := strconv.ParseInt(f[2], 10, 64)
		switch {
		case err1 != nil || err2 != nil || ns < 0 || ns >= 1e9:
			return 0, 0, unix.EINVAL
		case sec > 1<<32 || sec < -1<<32:
			return 0, 0, unix.ERANGE
		}
		switch f[0] {
		case "monotonic", "1":
			m = sec*1e9 + ns
		case "boottime", "7":
			bt = sec*1e9 + ns
		default:
			return 0, 0, unix.EINVAL
		}
	}
	return m, bt, nil
}

// mountsFile makes mounts, mountinfo and mountstats, which can be polled for changes.
func mountsFile(gen func(*bytes.Buffer, *vfs.MountInfo)) func(s subject, ino uint64, perm uint16) vfs.Inode {
	return func(s subject, ino uint64, perm uint16) vfs.Inode {
		f := genfs.NewFile(s.f.FS, ino, perm, func(_ vfs.Context, b *bytes.Buffer) error {
			root, cwd, ok := s.t.Paths()
			ns := s.t.Namespaces().Mount
			if !ok || ns == nil {
				return unix.EINVAL
			}
			defer root.DecRef()
			cwd.DecRef()
			mounts := ns.Mounts(root)
			for i := range mounts {
				gen(b, &mounts[i])
			}
			return nil
		})
		f.Owner = s.owner
		if ns := s.t.Namespaces().Mount; ns != nil {
			f.Changed = func() *waiter.Queue { return &ns.Changed }
			f.Version = ns.Event
		}
		return f
	}
}

// mangle escapes what separates the fields (fs/seq_file.c mangle_path).
var mangle = strings.NewReplacer(" ", "\\040", "\t", "\\011", "\n", "\\012", "\\", "\\134", "#", "\\043")

func source(m *vfs.MountInfo) string {
	if m.Source == "" {
		return "none"
	}
	return mangle.Replace(m.Source)
}

func genMounts(b *bytes.Buffer, m *vfs.MountInfo) {
	opts := m.FlagString()
	if m.Options != "" {
		opts += "," + m.Options
	}
	fmt.Fprintf(b, "%s %s %s %s 0 0\n", source(m), mangle.Replace(m.Point), m.Type, opts)
}

func genMountinfo(b *bytes.Buffer, m *vfs.MountInfo) {
	fmt.Fprintf(b, "%d %d %d:%d %s %s %s", m.ID, m.ParentID, unix.Major(m.Dev), unix.Minor(m.Dev), mangle.Replace(m.Root), mangle.Replace(m.Point), m.FlagString())
	if m.Shared != 0 {
		fmt.Fprintf(b, " shared:%d", m.Shared)
	}
	if m.Master != 0 {
		fmt.Fprintf(b, " master:%d", m.Master)
	}
	if m.Unbindable {
		b.WriteString(" unbindable")
	}
	opts := "rw"
	if m.SuperReadOnly {
		opts = "ro"
	}
	if m.Options != "" {
		opts += "," + m.Options
	}
	fmt.Fprintf(b, " - %s %s %s\n", m.Type, source(m), opts)
}

func genMountstats(b *bytes.Buffer, m *vfs.MountInfo) {
	fmt.Fprintf(b, "device %s mounted on %s with fstype %s\n", source(m), mangle.Replace(m.Point), m.Type)
}
