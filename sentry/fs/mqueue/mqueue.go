// Package mqueue has POSIX message queues (mq_overview(7)) and the file system that shows them. Each IPC namespace has one instance, which is mounted any number
// of times.
//
// Locks: FS.mu guards the directory; a queue's mu its messages. Neither is held over the other, and signals are sent without them.
package mqueue

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/waiter"

	"moat/sentry/kernel"
	"moat/sentry/kernel/auth"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

const (
	// maxMsgs and maxSize are msg_max and msgsize_max of /proc/sys/fs/mqueue, maxQueues is queues_max; the hard ones are for who has CAP_SYS_RESOURCE.
	maxMsgs, maxSize, maxQueues   = 10, 8192, 256
	hardMaxMsgs, hardMaxSize      = 65536, 16 << 20
	defaultMsgs, defaultSize      = 10, 8192
	messageOverhead, nodeOverhead = 48, 48 // struct msg_msg, struct posix_msg_tree_node
	maxPriority                   = 32768
	// maxTotal bounds what all queues of the sandbox may hold, whatever RLIMIT_MSGQUEUE says.
	maxTotal = 64 << 20
	// fileSize is FILENT_SIZE.
	fileSize = 80
	magic    = 0x19800202
)

var total atomic.Int64

// Attr is a queue's mq_maxmsg and mq_msgsize.
type Attr struct{ MaxMsg, MsgSize int64 }

// FS is the queues of an IPC namespace.
type FS struct {
	vfs.FSDefaults
	root *directory
	km   *vfs.KernelMount
	inos atomic.Uint64

	mu     sync.Mutex
	queues map[string]*Queue   // +checklocks:mu
	order  []string            // +checklocks:mu
	bytes  map[auth.KUID]int64 // what RLIMIT_MSGQUEUE counts. +checklocks:mu
}

type slot struct{}

// Of is the instance of ns.
func Of(ns *kernel.IPCNamespace) *FS {
	return ns.Slot(slot{}, func() any {
		fs := &FS{FSDefaults: vfs.NewFSDefaults("mqueue", magic), queues: map[string]*Queue{}, bytes: map[auth.KUID]int64{}}
		fs.inos.Store(1)
		fs.root = &directory{inode: inode{fs: fs, ino: 1}}
		fs.root.init(vfs.CreateOptions{Mode: unix.S_IFDIR | 0o1777}, vfs.Background().Now())
		fs.km, _ = vfs.NewKernelMount(fs) // a fresh inode is not dead
		return fs
	}).(*FS)
}

// Register makes "mqueue" known to mount(2).
func Register(k *kernel.Kernel) {
	vfs.RegisterFileSystem("mqueue", func(ctx vfs.Context, _, _ string) (vfs.FileSystem, error) {
		return Of(k.Within(ctx).Namespaces().IPC), nil
	}, kernel.OwnedBy(func(t *kernel.Task) kernel.Owned { return t.IPC() }))
}

// Root implements vfs.FileSystem.
func (fs *FS) Root() vfs.Inode { return fs.root }

// opener is a task that makes a queue by mq_open(3), with attributes.
type opener struct {
	*kernel.Task
	attr *Attr
}

// Open is mq_open(2): name has no slash, a may be nil.
func (fs *FS) Open(t *kernel.Task, name string, flags uint32, mode uint16, a *Attr) (*vfs.FileDescription, error) {
	p := fs.km.Root()
	defer p.DecRef()
	return vfs.Open(opener{t, a}, p, name, vfs.OpenOptions{Flags: flags, Mode: mode & 0o7777})
}

// Unlink is mq_unlink(2).
func (fs *FS) Unlink(t *kernel.Task, name string) error {
	p := fs.km.Root()
	defer p.DecRef()
	return vfs.Unlink(t, p, name)
}

// inode is what the directory and the queues share.
type inode struct {
	vfs.InodeDefaults
	fs  *FS
	ino uint64

	attrMu sync.Mutex
	attr   vfs.Attr // +checklocks:attrMu
}

// +checklocksignore: not shared yet.
func (i *inode) init(o vfs.CreateOptions, now vfs.Time) {
	i.attr = vfs.Attr{Ino: i.ino, Mode: o.Mode, Nlink: 1, UID: o.UID, GID: o.GID, Blksize: 4096, Atime: now, Mtime: now, Ctime: now}
	if o.Mode&unix.S_IFMT == unix.S_IFDIR {
		i.attr.Nlink = 2
	} else {
		i.attr.Size = fileSize
	}
}

func (i *inode) FS() vfs.FileSystem { return i.fs }

func (i *inode) Mode() uint16 {
	a, _ := i.Attr(nil)
	return a.Mode
}

func (i *inode) Attr(vfs.Context) (vfs.Attr, error) {
	i.attrMu.Lock()
	defer i.attrMu.Unlock()
	return i.attr, nil
}

// touch notes a change of what the file holds, and adds links to its count.
func (i *inode) touch(links int) {
	i.attrMu.Lock()
	i.attr.Mtime = vfs.Background().Now()
	i.attr.Ctime = i.attr.Mtime
	i.attr.Nlink = uint32(int(i.attr.Nlink) + links)
	i.attrMu.Unlock()
}

// SetAttr implements vfs.Inode.
func (i *inode) SetAttr(ctx vfs.Context, s vfs.SetAttr) error {
	i.attrMu.Lock()
	defer i.attrMu.Unlock()
	a := &i.attr
	if s.Valid&vfs.SetMode != 0 {
		a.Mode = a.Mode&unix.S_IFMT | s.Mode&0o7777
	}
	if s.Valid&vfs.SetUID != 0 {
		a.UID = s.UID
	}
	if s.Valid&vfs.SetGID != 0 {
		a.GID = s.GID
	}
	if s.Valid&vfs.SetAtime != 0 {
		a.Atime = s.Atime
	}
	if s.Valid&vfs.SetMtime != 0 {
		a.Mtime = s.Mtime
	}
	a.Ctime = ctx.Now()
	return nil
}

// directory is the root.
type directory struct{ inode }

// Lookup implements vfs.Inode.
func (d *directory) Lookup(_ vfs.Context, name string) (vfs.Inode, error) {
	d.fs.mu.Lock()
	defer d.fs.mu.Unlock()
	if q := d.fs.queues[name]; q != nil {
		return q, nil
	}
	return nil, unix.ENOENT
}

// Create implements vfs.Inode (ipc/mqueue.c mqueue_create_attr, mqueue_get_inode).
func (d *directory) Create(ctx vfs.Context, name string, o vfs.CreateOptions) (vfs.Inode, error) {
	if o.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, unix.EPERM
	}
	fs, a, limit := d.fs, Attr{defaultMsgs, defaultSize}, int64(unix.RLIM_INFINITY>>1)
	root := ctx.Credentials().Capable(linux.CAP_SYS_RESOURCE)
	if op, ok := ctx.(opener); ok {
		if op.attr != nil {
			a = *op.attr
		}
		limit = int64(min(op.ThreadGroup().Limit(linux.RLIMIT_MSGQUEUE).Cur, uint64(limit)))
	}
	most := Attr{maxMsgs, maxSize}
	if root {
		most = Attr{hardMaxMsgs, hardMaxSize}
	}
	if a.MaxMsg <= 0 || a.MsgSize <= 0 || a.MaxMsg > most.MaxMsg || a.MsgSize > most.MsgSize {
		return nil, unix.EINVAL
	}
	size := a.MaxMsg*(messageOverhead+a.MsgSize) + min(a.MaxMsg, maxPriority)*nodeOverhead
	fs.mu.Lock()
	defer fs.mu.Unlock()
	switch {
	case len(fs.queues) >= maxQueues && !root:
		return nil, unix.ENOSPC
	case fs.bytes[o.UID]+size > limit:
		return nil, unix.EMFILE
	case total.Add(size) > maxTotal:
		total.Add(-size)
		return nil, unix.EMFILE
	}
	fs.bytes[o.UID] += size
	q := &Queue{inode: inode{fs: fs, ino: fs.inos.Add(1)}, Attributes: a, size: size, payer: o.UID}
	q.init(o, ctx.Now())
	fs.queues[name] = q
	fs.order = append(fs.order, name)
	d.touch(0)
	return q, nil
}

// Unlink implements vfs.Inode.
func (d *directory) Unlink(_ vfs.Context, name string, child vfs.Inode) error {
	d.fs.mu.Lock()
	delete(d.fs.queues, name)
	if i := slices.Index(d.fs.order, name); i >= 0 {
		d.fs.order = slices.Delete(d.fs.order, i, i+1)
	}
	d.fs.mu.Unlock()
	child.(*Queue).touch(-1)
	d.touch(0)
	return nil
}

// Evict implements vfs.Inode: a queue that was unlinked is gone with the last who had it open.
func (q *Queue) Evict() {
	if a, _ := q.inode.Attr(nil); a.Nlink > 0 {
		return
	}
	q.fs.mu.Lock()
	defer q.fs.mu.Unlock()
	if q.fs.bytes[q.payer] -= q.size; q.fs.bytes[q.payer] == 0 {
		delete(q.fs.bytes, q.payer)
	}
	total.Add(-q.size)
	q.size = 0
}

// Open implements vfs.Inode.
func (d *directory) Open(vfs.Context, *vfs.Dentry, uint32) (vfs.FileImpl, error) {
	return &dirFile{d: d}, nil
}

type dirFile struct {
	vfs.FileDefaults
	d *directory
}

// Seekable implements vfs.FileImpl.
func (*dirFile) Seekable() bool { return true }

// ReadDir implements vfs.FileImpl.
func (f *dirFile) ReadDir(_ vfs.Context, _ *vfs.FileDescription, off int64, emit func(vfs.Dirent) error) (int64, error) {
	fs := f.d.fs
	entries := []vfs.Dirent{{Name: ".", Type: unix.DT_DIR, Ino: 1}, {Name: "..", Type: unix.DT_DIR, Ino: 1}}
	fs.mu.Lock()
	for _, n := range fs.order {
		entries = append(entries, vfs.Dirent{Name: n, Type: unix.DT_REG, Ino: fs.queues[n].ino})
	}
	fs.mu.Unlock()
	for ; off >= 0 && off < int64(len(entries)); off++ {
		e := entries[off]
		e.Off = off + 1
		if emit(e) != nil {
			break
		}
	}
	return off, nil
}

// Open implements vfs.Inode.
func (q *Queue) Open(vfs.Context, *vfs.Dentry, uint32) (vfs.FileImpl, error) {
	return &File{Waitable: vfs.Waitable{Waiters: &q.waiters}, Queue: q}, nil
}

// File is an open queue.
type File struct {
	vfs.Waitable
	Queue *Queue
}

// Seekable implements vfs.FileImpl.
func (*File) Seekable() bool { return true }

// SeekEnd implements vfs.FileImpl.
func (*File) SeekEnd(vfs.Context) (int64, error) { return fileSize, nil }

// CanPoll implements vfs.PollChooser.
func (*File) CanPoll() bool { return true }

// Read implements vfs.FileImpl: what is in the queue, and who is to be told of more.
func (f *File) Read(ctx vfs.Context, _ *vfs.FileDescription, dst usermem.IOSequence, off int64, _ vfs.IOFlags) (int64, error) {
	q := f.Queue
	q.mu.Lock()
	var kind, signo, pid int32
	if n := q.notify; n != nil {
		switch signo = n.event.Signo; {
		case n.event.Socket != nil:
			kind = linux.SIGEV_THREAD
		case signo == 0:
			kind = linux.SIGEV_NONE
		}
		if t, ok := ctx.(*kernel.Task); ok {
			pid = n.group.ID().In(t.PIDNamespace())
		}
	}
	s := fmt.Sprintf("QSIZE:%-10d NOTIFY:%-5d SIGNO:%-5d NOTIFY_PID:%-6d\n", q.bytes, kind, signo, pid)
	q.mu.Unlock()
	if off >= int64(len(s)) {
		return 0, nil
	}
	n, err := dst.CopyOut([]byte(s[off:]))
	if n > 0 {
		err = nil
	}
	return int64(n), err
}

// Readiness implements vfs.FileImpl.
func (f *File) Readiness(mask waiter.EventMask) (ready waiter.EventMask) {
	n := int64(f.Queue.Count())
	if n > 0 {
		ready |= waiter.ReadableEvents
	}
	if n < f.Queue.Attributes.MaxMsg {
		ready |= waiter.WritableEvents
	}
	return ready & mask
}

// Release implements vfs.FileImpl: who asked to be told through this file no longer is.
func (f *File) Release(vfs.Context, *vfs.FileDescription) {
	f.Queue.forget(func(n *notification) bool { return n.file == f })
}
