package syscalls

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"

	"moat/sentry/kernel"
	"moat/sentry/vfs"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
)

// statmount(2) and listmount(2).

func init() {
	register(
		full(457, "statmount", "ptr ptr size hex", sysStatmount),
		full(458, "listmount", "ptr ptr size hex", sysListmount),
	)
}

// STATMOUNT_*.
const (
	smSuper, smMount, smFrom, smRoot, smPoint, smType, smNS, smOptions, smSource, smOptionArray, smSupported = 1, 2, 4, 8, 0x10, 0x20, 0x40, 0x80, 0x200, 0x400, 0x1000

	smStrings = 0x6fb8 // with FS_SUBTYPE, OPT_SEC_ARRAY and the maps of an idmapped mount, which none has here
	smAll     = 0x7fff
)

// statmount is struct statmount without what is reserved.
type statmount struct {
	Size, Options                                        uint32
	Mask                                                 uint64
	Major, Minor                                         uint32
	Magic                                                uint64
	SuperFlags, Type                                     uint32
	ID, Parent                                           uint64
	OldID, OldParent                                     uint32
	Attr, Propagation, Peer, Master, From                uint64
	Root, Point                                          uint32
	Namespace                                            uint64
	Subtype, Source, OptionCount, OptionArray, Sec, Secs uint32
	Supported                                            uint64
}

const statmountSize = 512

// mountRequest is struct mnt_id_req.
type mountRequest struct {
	Size                 uint32
	FD                   int32
	ID, Param, Namespace uint64
}

// withMounts runs fn with a request, and the namespace and the root that it is about: EFAULT, E2BIG, EINVAL, EBADF, ENOENT.
func withMounts(t *kernel.Task, addr kernel.Arg, fn func(q *mountRequest, ns *vfs.MountNamespace, root vfs.Path) (uintptr, error)) (uintptr, error) {
	size, err := t.CopyInUint32(addr.Pointer())
	if err != nil {
		return 0, err
	}
	b, err := copyInSized(t, addr, kernel.Arg(size), min(32, max(24, int(size)&^7)))
	if err != nil {
		return 0, err
	}
	var q mountRequest
	_, _ = binary.Decode(append(b, make([]byte, 8)...), hostarch.ByteOrder, &q)
	ns, root := t.MountNamespace(), t.Root()
	switch {
	case q.FD != 0 && q.Namespace != 0, q.ID <= 1<<31:
		return 0, unix.EINVAL
	case q.Namespace != 0 && q.Namespace != ns.ID:
		if ns = vfs.FindMountNamespace(q.Namespace); ns == nil {
			return 0, unix.ENOENT
		}
		defer ns.DecRef()
	case q.FD != 0:
		f, err := t.GetFile(q.FD)
		if err != nil {
			return 0, err
		}
		defer f.DecRef()
		h, _ := f.Impl().(*kernel.NSFile)
		if h == nil || h.Type != unix.CLONE_NEWNS {
			return 0, unix.EINVAL
		}
		ns = h.Object.(*vfs.MountNamespace)
	}
	if q.FD != 0 || ns != t.MountNamespace() {
		if ns != t.MountNamespace() && !mayAll(t, ns) {
			return 0, unix.ENOENT
		}
		root = ns.Root()
		defer root.DecRef()
	}
	return fn(&q, ns, root)
}

// mayAll reports whether t may see mounts of ns that its root does not reach.
func mayAll(t *kernel.Task, ns *vfs.MountNamespace) bool {
	return t.Credentials().HasCapIn(linux.CAP_SYS_ADMIN, ns.Owner)
}

func sysListmount(t *kernel.Task, a kernel.Args) (uintptr, error) {
	n, reverse := a[2].Uint64(), a[3].Uint() == 1 // LISTMOUNT_REVERSE
	if a[3].Uint() > 1 {
		return 0, unix.EINVAL
	} else if n > 1000000 {
		return 0, unix.EOVERFLOW
	}
	if _, err := t.SingleIO(a[1].Pointer(), int64(8*n)); err != nil {
		return 0, err
	}
	return withMounts(t, a[0], func(q *mountRequest, ns *vfs.MountNamespace, root vfs.Path) (uintptr, error) {
		ms, err := ns.Mounts(root), error(nil)
		switch {
		case q.Param != 0 && q.Param <= 1<<31:
			err = unix.EINVAL
		case q.ID != 1<<64-1: // LSMT_ROOT
			ms, err = ns.MountsBelow(root, q.ID, mayAll(t, ns))
		}
		var b []byte
		slices.SortFunc(ms, func(a, b vfs.MountInfo) int { return cmp.Compare(a.ID, b.ID) })
		if reverse {
			slices.Reverse(ms)
		}
		for _, m := range ms {
			if id := m.ID + 1<<31; uint64(len(b)) < 8*n && (q.Param == 0 || !reverse && id >= q.Param+1 || reverse && id < q.Param) {
				b = hostarch.ByteOrder.AppendUint64(b, id)
			}
		}
		if err == nil {
			_, err = t.CopyOut(a[1].Pointer(), b)
		}
		return uintptr(len(b) / 8), err
	})
}

func sysStatmount(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a[3].Uint() != 0 {
		return 0, unix.EINVAL
	}
	return withMounts(t, a[0], func(q *mountRequest, ns *vfs.MountNamespace, root vfs.Path) (uintptr, error) {
		if _, err := t.SingleIO(a[1].Pointer(), a[2].Int64()); err != nil {
			return 0, err
		}
		ms := ns.Mounts(root)
		is := func(m vfs.MountInfo) bool { return m.ID+1<<31 == q.ID }
		i := slices.IndexFunc(ms, is)
		if i < 0 {
			if _, err := ns.MountsBelow(root, q.ID, mayAll(t, ns)); err != nil {
				return 0, err
			}
			top := ns.Root()
			ms = ns.Mounts(top)
			top.DecRef()
			if i = slices.IndexFunc(ms, is); i < 0 {
				return 0, unix.ENOENT
			}
			ms[i].Point = ""
		}
		b, err := statMount(t, &ms[i], ns, q.Param, a[2].Uint64())
		if err == nil {
			_, err = t.CopyOut(a[1].Pointer(), b)
		}
		return 0, err
	})
}

// statMount is what statmount(2) tells of m in size bytes: EOVERFLOW.
func statMount(t *kernel.Task, m *vfs.MountInfo, ns *vfs.MountNamespace, mask, size uint64) ([]byte, error) {
	s := statmount{Mask: mask & (smSuper | smMount | smFrom | smNS | smSupported)}
	if mask&smSuper != 0 {
		s.Major, s.Minor = unix.Major(m.Dev), unix.Minor(m.Dev)
		if st, err := m.FS.StatFS(t); err == nil {
			s.Magic = st.Type
		}
		if m.SuperReadOnly {
			s.SuperFlags = unix.MS_RDONLY
		}
	}
	if mask&smMount != 0 {
		s.ID, s.Parent, s.OldID, s.OldParent, s.Peer, s.Master = m.ID+1<<31, m.ParentID+1<<31, uint32(m.ID), uint32(m.ParentID), m.Shared, m.Master
		s.Attr = mountAttrs(m.Flags)
		for flag, is := range map[uint64]bool{unix.MS_SHARED: m.Shared != 0, unix.MS_SLAVE: m.Master != 0, unix.MS_UNBINDABLE: m.Unbindable,
			unix.MS_PRIVATE: m.Shared|m.Master == 0 && !m.Unbindable} {
			if is {
				s.Propagation |= flag
			}
		}
	}
	for bit, x := range map[uint64]struct {
		to *uint64
		v  uint64
	}{smFrom: {&s.From, m.Master}, smNS: {&s.Namespace, ns.ID}, smSupported: {&s.Supported, smAll}} {
		if mask&bit != 0 {
			*x.to = x.v
		}
	}
	var text []byte
	if mask&smStrings != 0 {
		text = []byte{0}
	}
	options := strings.ReplaceAll(m.Options, ",", "\x00")
	for _, x := range [...]struct {
		bit  uint64
		at   *uint32
		text string
	}{{smType, &s.Type, m.Type}, {smRoot, &s.Root, m.Root}, {smPoint, &s.Point, m.Point}, {smOptions, &s.Options, m.Options},
		{smOptionArray, &s.OptionArray, options}, {smSource, &s.Source, cmp.Or(m.Source, "none")}} {
		if mask&x.bit != 0 && x.text != "" {
			s.Mask |= x.bit
			*x.at = uint32(len(text))
			text = append(append(text, x.text...), 0)
		}
	}
	if s.OptionArray != 0 {
		s.OptionCount = uint32(strings.Count(options, "\x00") + 1)
	}
	if len(text) > 0 && statmountSize+uint64(len(text)) > size {
		return nil, unix.EOVERFLOW
	}
	n := min(size, statmountSize)
	s.Size = uint32(n) + uint32(len(text))
	b, _ := binary.Append(nil, hostarch.ByteOrder, &s)
	return append(append(b, make([]byte, statmountSize-len(b))...)[:n], text...), nil
}
