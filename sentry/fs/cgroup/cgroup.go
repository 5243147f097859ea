// Package cgroup is the cgroup file system, version 2, that a container sees: the tree of groups of kernel.Cgroup, from the root of the cgroup namespace of who mounts
// it. The controllers are cpu, memory and pids.
//
// A container's own group, the root of its tree, has its limits, which are its keeper's affair: they can be read, not set. It may hold tasks and pass controllers on at
// the same time, as the root of a host's hierarchy may. What has no effect but to be read back: cpu.weight, memory.high, memory.min, memory.low, memory.swap.max.
// There are no threaded groups, and what tasks were given before they came stays charged where they were.
//
// Owners and permissions are kept with the group, so that all mounts show the same; inodes are the mount's, and live as long as it or the group.
//
// Locks: hierarchy.mu guards the map of inodes. Kernel.tasksMu and those of waiter queues are taken under it.
package cgroup

import (
	"bytes"
	"sync"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/waiter"

	"moat/sentry/fs/genfs"
	"moat/sentry/kernel"
	"moat/sentry/vfs"
)

// Register makes "cgroup2" known to mount(2), and "cgroup" as another name for it.
func Register(k *kernel.Kernel) {
	for _, name := range []string{"cgroup", "cgroup2"} {
		vfs.RegisterFileSystem(name, func(ctx vfs.Context, _, _ string) (vfs.FileSystem, error) { return New(k, k.Within(ctx)), nil },
			kernel.OwnedBy(func(t *kernel.Task) kernel.Owned { return t.Namespaces().Cgroup }))
	}
}

// hierarchy is one mount's view of a tree.
type hierarchy struct {
	k  *kernel.Kernel
	fs *genfs.FS

	mu     sync.Mutex
	groups map[*kernel.Cgroup]*group // +checklocks:mu
}

// New returns an instance whose root is that of the cgroup namespace of who mounts it.
func New(k *kernel.Kernel, who kernel.Inhabitant) *genfs.FS {
	h := &hierarchy{k: k, fs: genfs.New("cgroup2", linux.CGROUP_SUPER_MAGIC), groups: map[*kernel.Cgroup]*group{}}
	h.fs.Magic = 0x63677270 // CGROUP2_SUPER_MAGIC
	h.fs.Released = h.release
	h.fs.SetRoot(h.group(who.Namespaces().Cgroup.Root))
	return h.fs
}

// group returns the directory of cg.
func (h *hierarchy) group(cg *kernel.Cgroup) *group {
	h.mu.Lock()
	defer h.mu.Unlock()
	if g := h.groups[cg]; g != nil {
		return g
	}
	g := &group{h: h, owned: owned{cg: cg, typ: unix.S_IFDIR, perm: 0o755}, files: make([]*file, len(entries))}
	genfs.InitDir(&g.Dir, h.fs, cg.ID()<<8, 0o755, g)
	for i := range entries {
		f := &file{owned: owned{cg, entries[i].name, unix.S_IFREG, entries[i].perm()}}
		genfs.InitFile(&f.File, h.fs, cg.ID()<<8+uint64(i)+1, entries[i].perm())
		entries[i].bind(g, f)
		g.files[i] = f
	}
	// What was removed by way of another mount, or by another task just now, goes when there may be more of it than of groups.
	if len(h.groups) > kernel.CgroupsMax {
		for cg := range h.groups {
			if h.k.Removed(cg) {
				h.forgetLocked(cg)
			}
		}
	}
	h.groups[cg] = g
	return g
}

// forgetLocked drops the directory of a group that is gone.
//
// +checklocks:h.mu
func (h *hierarchy) forgetLocked(cg *kernel.Cgroup) {
	if g := h.groups[cg]; g != nil {
		g.unwatch()
		delete(h.groups, cg)
	}
}

func (h *hierarchy) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, g := range h.groups {
		g.unwatch()
	}
}

// owned are the attributes of a group's directory (name "") or file.
type owned struct {
	cg        *kernel.Cgroup
	name      string
	typ, perm uint16
}

// Mode implements vfs.Inode.
func (o *owned) Mode() uint16 { return o.typ | o.cg.Attr(o.name, o.perm).Perm }

func (o *owned) amend(a vfs.Attr, err error) (vfs.Attr, error) {
	own := o.cg.Attr(o.name, o.perm)
	a.UID, a.GID, a.Mode = own.UID, own.GID, o.typ|own.Perm
	return a, err
}

// SetAttr implements vfs.Inode: owner and permissions; truncation and times do nothing.
func (o *owned) SetAttr(_ vfs.Context, s vfs.SetAttr) error {
	own := o.cg.Attr(o.name, o.perm)
	if s.Valid&vfs.SetUID != 0 {
		own.UID = s.UID
	}
	if s.Valid&vfs.SetGID != 0 {
		own.GID = s.GID
	}
	if s.Valid&vfs.SetMode != 0 {
		own.Perm = s.Mode & 0o7777
	}
	if s.Valid&(vfs.SetUID|vfs.SetGID|vfs.SetMode) != 0 {
		o.cg.SetAttr(o.name, own)
	}
	return nil
}

type file struct {
	genfs.File
	owned
	watch *watch
}

// Mode, SetAttr and Attr implement vfs.Inode.
func (f *file) Mode() uint16                                  { return f.owned.Mode() }
func (f *file) SetAttr(ctx vfs.Context, s vfs.SetAttr) error  { return f.owned.SetAttr(ctx, s) }
func (f *file) Attr(ctx vfs.Context) (vfs.Attr, error)        { return f.amend(f.File.Attr(ctx)) }
func (g *group) Mode() uint16                                 { return g.owned.Mode() }
func (g *group) SetAttr(ctx vfs.Context, s vfs.SetAttr) error { return g.owned.SetAttr(ctx, s) }
func (g *group) Attr(ctx vfs.Context) (vfs.Attr, error)       { return g.amend(g.Dir.Attr(ctx)) }

// group is the directory of a Cgroup.
type group struct {
	genfs.Dir
	owned
	h     *hierarchy
	files []*file // of entries
}

// shows reports whether the group has a file: files of a controller are there if the parent passes it on.
func (g *group) shows(e *entry) bool {
	own, _ := g.h.k.Controllers(g.cg)
	return !g.h.k.Removed(g.cg) && own&e.of == e.of && (g.cg.Parent() != nil || !e.notInRoot)
}

// Find implements genfs.Dynamic.
func (g *group) Find(_ vfs.Context, name string) (vfs.Inode, error) {
	if g.h.k.Removed(g.cg) {
		return nil, unix.ENOENT
	}
	if i := entryOf(name); i >= 0 && g.shows(&entries[i]) {
		return g.files[i], nil
	}
	if cg := g.h.k.Child(g.cg, name); cg != nil {
		return g.h.group(cg), nil
	}
	return nil, unix.ENOENT
}

// List implements genfs.Dynamic.
func (g *group) List(_ vfs.Context, from int64, emit func(int64, string, uint8, uint64) bool) error {
	for i := range entries {
		if e := &entries[i]; int64(i) >= from && g.shows(e) && !emit(int64(i), e.name, unix.DT_REG, g.files[i].Ino) {
			return nil
		}
	}
	for _, cg := range g.h.k.Children(g.cg) {
		if key := int64(len(entries)) + int64(cg.ID()); key >= from && !emit(key, cg.Name(), unix.DT_DIR, cg.ID()<<8) {
			return nil
		}
	}
	return nil
}

// Mkdir implements vfs.Inode.
func (g *group) Mkdir(_ vfs.Context, name string, o vfs.CreateOptions) (vfs.Inode, error) {
	if entryOf(name) >= 0 {
		return nil, unix.EEXIST
	}
	cg, err := g.h.k.MakeCgroup(g.cg, name, kernel.FileAttr{UID: o.UID, GID: o.GID, Perm: o.Mode & 0o7777})
	if err != nil {
		return nil, err
	}
	return g.h.group(cg), nil
}

// Create implements vfs.Inode: kernfs has none.
func (g *group) Create(vfs.Context, string, vfs.CreateOptions) (vfs.Inode, error) {
	return nil, unix.EACCES
}

// Rmdir implements vfs.Inode.
func (g *group) Rmdir(_ vfs.Context, _ string, child vfs.Inode) error {
	c, ok := child.(*group)
	if !ok {
		return unix.ENOTDIR
	}
	if err := g.h.k.RemoveCgroup(c.cg); err != nil {
		return err
	}
	g.h.mu.Lock()
	defer g.h.mu.Unlock()
	g.h.forgetLocked(c.cg)
	return nil
}

func (g *group) unwatch() {
	for _, f := range g.files {
		if f.watch != nil {
			f.watch.queue.EventUnregister(&f.watch.entry)
		}
	}
}

// watch has inotify's watchers told when a file changes by itself.
type watch struct {
	g     *group
	f     *file
	queue *waiter.Queue
	entry waiter.Entry
}

// NotifyEvent implements waiter.EventListener.
func (w *watch) NotifyEvent(waiter.EventMask) { vfs.NotifyInode(w.g, w.f, w.f.name, vfs.InModify) }

// pollable makes f tell of events on q, as of which version differs.
func (g *group) pollable(f *file, q *waiter.Queue, version func() uint64) {
	f.Changed, f.Version = func() *waiter.Queue { return q }, version
	f.watch = &watch{g: g, f: f, queue: q}
	f.watch.entry.Init(f.watch, waiter.EventPri)
	q.EventRegister(&f.watch.entry)
}

// mayAttach says whether ctx may bring a process from one group into another (cgroup_attach_permissions): both must be in one tree, and it must have the right to write
// cgroup.procs of the lowest group above both, and, with dst, of that one too.
func (h *hierarchy) mayAttach(ctx vfs.Context, from, to *kernel.Cgroup, dst bool) error {
	common := from.CommonWith(to)
	if common == nil {
		return unix.ENOENT
	}
	i := entryOf("cgroup.procs")
	if err := vfs.Permission(ctx, h.group(common).files[i], vfs.MayWrite); err != nil || !dst {
		return err
	}
	return vfs.Permission(ctx, h.group(to).files[i], vfs.MayWrite)
}

// Of returns the group whose directory i is: EBADF if it is none, ENOENT if it is gone.
func Of(i vfs.Inode) (*kernel.Cgroup, error) {
	g, ok := i.(*group)
	if !ok {
		return nil, unix.EBADF
	}
	if g.h.k.Removed(g.cg) {
		return nil, unix.ENOENT
	}
	return g.cg, nil
}

// MayFork is Of for who wants a child there (CLONE_INTO_CGROUP): ctx, a task of from, must have the right.
func MayFork(ctx vfs.Context, from *kernel.Cgroup, i vfs.Inode) (*kernel.Cgroup, error) {
	cg, err := Of(i)
	if err != nil {
		return nil, err
	}
	return cg, i.(*group).h.mayAttach(ctx, from, cg, true)
}

// gen is what e shows as a Gen, until the group or its controller is gone.
func (g *group) gen(e *entry) func(vfs.Context, *bytes.Buffer) error {
	return func(ctx vfs.Context, b *bytes.Buffer) error {
		if !g.shows(e) {
			return unix.ENODEV
		}
		e.show(g, ctx, b)
		return nil
	}
}
