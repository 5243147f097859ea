package gofer

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"moat/fsgofer/wire"
	"moat/sentry/kernel/auth"
	"moat/sentry/memmap"
	"moat/sentry/vfs"
)

// inode is a file of the host.
type inode struct {
	vfs.InodeDefaults
	fs  *FS
	key key
	ino uint64
	// target is a symlink's.
	target string
	mode   atomic.Uint32
	size   atomic.Int64

	handle atomic.Pointer[handle]
	ro     atomic.Pointer[hostFD]
	rw     atomic.Pointer[hostFD]
	look   atomic.Pointer[hostFD] // O_PATH, for its attributes
	// opens counts open files, so that unlink knows whether to keep hold of the file.
	opens atomic.Int32

	loc sync.RWMutex
	// parent and name are where the inode is, or was last seen; parent is nil for the root and for a name that is lost.
	// +checklocks:loc
	parent *inode
	// +checklocks:loc
	name string

	mu sync.Mutex
	// +checklocks:mu
	attr wire.Attr
	// stale: times and blocks are to be fetched before they are shown.
	// +checklocks:mu
	stale bool
	// gone: the last name is gone and nothing keeps the file for requests.
	// +checklocks:mu
	gone bool // +checklocksignore: loc is only held by chance.
	// fetched is when attr came, on a shared mount.
	// +checklocks:mu
	fetched time.Time
	// owner is that of a shared file as of its change time, if a change that comes later has another. Until it is sure that none was under way it is to be
	// asked for again once that can be sure.
	// +checklocks:mu
	owner struct {
		ctime    int64
		uid, gid uint32
		sure     bool
	}

	wmu sync.Mutex
	// settled is a directory's change time when it was checked; 0: its next change may have the same.
	// +checklocks:wmu
	settled int64
	// age is that of the check, version counts those that found changes.
	age     atomic.Uint64
	version atomic.Uint64

	mapMu sync.Mutex
	// +checklocks:mapMu
	maps memmap.Mappings

	// list is what is known of a directory's entries; changes counts what made it untrue.
	list    atomic.Pointer[listing]
	changes atomic.Uint64
	// misses counts lookups that took a request; listed: the directory was itself found in a listing.
	misses atomic.Int32
	listed atomic.Bool
	// siblings are listings of directories in this one, lastDir is which of these was read last.
	siblings atomic.Pointer[siblings]
	lastDir  atomic.Pointer[visited]
	ahead    atomic.Pointer[ahead]
	// opened are descriptors of files in the directory that will probably be opened next; row is why.
	opened atomic.Pointer[openAhead]
	row    atomic.Pointer[row]
	// checks is the age at which directories in this one were last checked, checkRun how many were.
	checks   atomic.Uint64
	checkRun atomic.Int32
	// modified: the attributes are not those with which the inode was found.
	modified atomic.Bool
}

// attrLife is how long attributes of a shared mount that came with a name are taken for current, until there is a descriptor of the file to look at
// them: about as long as a request takes, it serves the several looks within one system call.
const attrLife = 100 * time.Microsecond

// FS implements vfs.Inode.
func (i *inode) FS() vfs.FileSystem { return i.fs }

// Mode implements vfs.Inode.
func (i *inode) Mode() uint16 { return uint16(i.mode.Load()) }

func (i *inode) isDir() bool { return i.mode.Load()&unix.S_IFMT == unix.S_IFDIR }

func (i *inode) isFile() bool { return i.mode.Load()&unix.S_IFMT == unix.S_IFREG }

// init gives a new inode its first attributes.
// +checklocksignore: nobody else has it.
func (i *inode) init(a *wire.Attr) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.attr = *a
	i.mode.Store(a.Mode & 0xffff)
	i.size.Store(a.Size)
	i.fetched = time.Now()
	if i.isDir() && !i.fs.shared {
		i.age.Store(age.Load())
		i.settled = i.asOf(a.Ctime, slack)
	}
}

// adopt takes attributes from the gofer, but for the size of a file that only the sandbox changes: a write may be
// under way.
func (i *inode) adopt(a *wire.Attr) { i.take(a, i.fs.shared || !i.isFile()) }

// take is adopt, with size that too: i.wmu is held, or the mount is shared.
func (i *inode) take(a *wire.Attr, size bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	// No attributes at all: the gofer could not tell. A type that changed is a lie or a reused inode.
	if a.Ino == 0 || (i.mode.Load()^a.Mode)&unix.S_IFMT != 0 {
		return
	}
	if i.attr != *a {
		i.attr = *a
		i.modified.Store(true)
	}
	i.mode.Store(a.Mode & 0xffff)
	if size {
		i.size.Store(a.Size)
	}
	i.stale = false
	if i.fs.shared {
		i.fetched = time.Now()
	}
}

// markStale has the times fetched before they are shown again.
func (i *inode) markStale() {
	i.mu.Lock()
	i.staleLocked()
	i.mu.Unlock()
}

// +checklocks:i.mu
func (i *inode) staleLocked() {
	i.stale = true
	i.modified.Store(true)
}

// refresh fetches the attributes if they may not be current.
// +checklocksignore: wmu is only tried.
func (i *inode) refresh() error {
	if i.isDir() {
		i.Version()
	}
	i.mu.Lock()
	need, fetched, gone := i.stale || i.fs.shared, i.fetched, i.gone
	i.mu.Unlock()
	if !need && i.isFile() {
		i.mapMu.Lock()
		need = i.maps.Writable()
		i.mapMu.Unlock()
	}
	if !need || gone {
		return nil
	}
	// While a write or a change of size is under way the size is theirs to say. (Waiting would take wmu behind the
	// locks of an address space: /proc/PID/maps asks for attributes.)
	size := i.fs.shared
	if !size && i.wmu.TryLock() {
		size = true
		defer i.wmu.Unlock()
	}
	t, whole := i.lookAt(size)
	if whole || i.fs.shared && time.Since(fetched) < attrLife {
		return nil
	}
	return i.fetch(size, t)
}

// fetch asks for the attributes, and on a shared mount for a descriptor to look at them by. ctime is the change time that was seen just now, or 0.
func (i *inode) fetch(size bool, ctime int64) error {
	ctime = i.asOf(ctime, 0)
	sure := i.asOf(ctime, slack) != 0
	var req wire.RefReq
	var rep wire.AttrRep
	var fd [1]int
	err := i.withRef(func(r wire.Ref) error {
		req.Ref = r
		n, err := i.fs.callFDs(wire.OpGetAttr, &req, &rep, fd[:])
		if n > 0 {
			i.install(fd[0], &i.look, 0)
		}
		return err
	})
	i.take(&rep.Attr, size)
	if ctime != 0 && ctime == rep.Attr.Ctime && i.fs.timed {
		i.mu.Lock()
		i.owner.ctime, i.owner.uid, i.owner.gid, i.owner.sure = ctime, rep.Attr.UID, rep.Attr.GID, sure
		i.mu.Unlock()
	}
	if i.fs.shared && (err == unix.ESTALE || err == unix.ENOENT) {
		return nil // the name went away after it was looked up
	}
	return err
}

// lookAt takes the attributes from a descriptor of the file, as they are now, and with size that too. It returns the change time; 0: there is no descriptor.
// whole: they are all of now. The owner cannot be seen from the sentry's user namespace; as all attributes, it changes with the change time.
func (i *inode) lookAt(size bool) (ctime int64, whole bool) {
	for _, slot := range [...]*atomic.Pointer[hostFD]{&i.rw, &i.ro, &i.look} {
		h := slot.Load()
		if h == nil || !h.tryIncRef() {
			continue
		}
		var st unix.Stat_t
		err := unix.Fstat(h.fd, &st)
		h.decRef()
		if err != nil || st.Ino != i.key.ino {
			break
		}
		i.mu.Lock()
		a, stale, owner := i.attr, i.stale, i.owner
		i.mu.Unlock()
		known := a
		a.Mode, a.Nlink, a.Size, a.Blocks, a.Blksize = st.Mode, uint32(st.Nlink), st.Size, st.Blocks, uint32(st.Blksize)
		a.Atime, a.Mtime, a.Ctime = st.Atim.Nano(), st.Mtim.Nano(), st.Ctim.Nano()
		if whole = a.Ctime == owner.ctime && (owner.sure || i.asOf(a.Ctime, slack) == 0); whole {
			a.UID, a.GID = owner.uid, owner.gid
		}
		if stale || a != known {
			i.take(&a, size)
		}
		return a.Ctime, whole || !i.fs.shared
	}
	return 0, false
}

// Attr implements vfs.Inode.
func (i *inode) Attr(vfs.Context) (vfs.Attr, error) {
	if err := i.refresh(); err != nil {
		return vfs.Attr{}, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	a := &i.attr
	return vfs.Attr{
		Ino: i.ino, Mode: uint16(a.Mode), Nlink: a.Nlink, UID: i.fs.ids.MapToKUID(a.UID), GID: i.fs.ids.MapToKGID(a.GID), Rdev: a.Rdev,
		Size: i.size.Load(), Blocks: a.Blocks, Blksize: int32(a.Blksize),
		Atime: vfs.Time(a.Atime), Mtime: vfs.Time(a.Mtime), Ctime: vfs.Time(a.Ctime), Btime: vfs.Time(a.Btime),
		Attributes: a.Attributes & statxAttrs, AttributesMask: statxAttrs,
	}, nil
}

// unmapped reports whether the mount's map has no ID for an owner of i (HAS_UNMAPPED_ID).
func (i *inode) unmapped() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return uint32(i.fs.ids.MapToKUID(i.attr.UID)) == auth.NoID || uint32(i.fs.ids.MapToKGID(i.attr.GID)) == auth.NoID
}

// Permission implements vfs.PermissionChecker: what is unmapped nobody may write.
func (i *inode) Permission(ctx vfs.Context, c *auth.Credentials, may uint) error {
	if i.fs.ids.Parent != nil && i.refresh() == nil && i.unmapped() {
		if may&vfs.MayWrite != 0 {
			return unix.EACCES
		}
		c = c.Clone()
		c.Effective = 0
	}
	err := vfs.GenericPermission(ctx, c, i, may)
	if _, _, e := i.fs.giveTo(c.FSUID, c.FSGID, vfs.SetUID|vfs.SetGID); e != nil && err != nil && may == vfs.MayWrite|vfs.MayExec {
		return e // what may_create looks at first
	}
	return err
}

const statxAttrs = unix.STATX_ATTR_COMPRESSED | unix.STATX_ATTR_IMMUTABLE | unix.STATX_ATTR_APPEND | unix.STATX_ATTR_NODUMP | unix.STATX_ATTR_ENCRYPTED

// SetAttr implements vfs.Inode.
func (i *inode) SetAttr(_ vfs.Context, s vfs.SetAttr) error {
	uid, gid, err := i.fs.giveTo(s.UID, s.GID, s.Valid)
	if err != nil {
		return err
	}
	i.wmu.Lock()
	defer i.wmu.Unlock()
	if s.Valid&vfs.SetSize != 0 {
		if err := i.truncate(s.Size); err != nil {
			return err
		}
		// The sentry has no CAP_FSETID for the host to keep these bits.
		if mode := i.Mode(); mode&(unix.S_ISUID|unix.S_ISGID) != 0 && s.Valid&vfs.SetMode == 0 {
			s.Valid |= vfs.SetMode
			s.Mode = mode
		}
	}
	req := wire.SetAttrReq{Mode: uint32(s.Mode & 0o7777), UID: uid, GID: gid, Atime: int64(s.Atime), Mtime: int64(s.Mtime)}
	for _, b := range [...]struct {
		has vfs.SetAttrMask
		set uint32
	}{{vfs.SetMode, wire.SetMode}, {vfs.SetUID, wire.SetUID}, {vfs.SetGID, wire.SetGID}, {vfs.SetAtime, wire.SetAtime}, {vfs.SetMtime, wire.SetMtime}} {
		if s.Valid&b.has != 0 {
			req.Valid |= b.set
		}
	}
	if req.Valid == 0 {
		return nil
	}
	var rep wire.AttrRep
	if err = i.request(wire.OpSetAttr, &req, &rep, &req.Ref); err == nil {
		i.take(&rep.Attr, true)
	}
	return err
}

// truncate changes the size, by a descriptor.
// +checklocks:i.wmu
func (i *inode) truncate(size int64) error {
	h, err := i.getFD(true)
	if err != nil {
		return err
	}
	defer h.decRef()
	return i.resize(unix.Ftruncate(h.fd, size), h.fd)
}

// resize takes over the size that fd has by now, unless the call that changed it ended with err.
// +checklocks:i.wmu
func (i *inode) resize(err error, fd int) error {
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstat(fd, &st)
	}
	if err != nil {
		return err
	}
	old := i.size.Swap(st.Size)
	i.markStale()
	if st.Size < old {
		i.invalidate(st.Size)
	}
	return nil
}

// Readlink implements vfs.Inode.
func (i *inode) Readlink(vfs.Context) (string, error) {
	if i.mode.Load()&unix.S_IFMT != unix.S_IFLNK {
		return "", unix.EINVAL
	}
	if i.target == "" {
		// The gofer could not say when the link was found.
		var req wire.RefReq
		var rep wire.StringRep
		err := i.request(wire.OpReadlink, &req, &rep, &req.Ref)
		return rep.S, err
	}
	return i.target, nil
}

// FollowLink implements vfs.Inode.
func (i *inode) FollowLink(ctx vfs.Context) (string, vfs.Path, error) {
	s, err := i.Readlink(ctx)
	return s, vfs.Path{}, err
}

// Evict implements vfs.Inode.
func (i *inode) Evict() {
	if i == i.fs.root {
		return
	}
	i.MarkDead()
	i.fs.forget(i)
	if i.modified.Load() {
		// The directory's listing may have attributes from before.
		i.loc.RLock()
		if i.parent != nil {
			i.parent.outdate(i.name)
		}
		i.loc.RUnlock()
	}
	i.setAhead(nil)
	if o := i.opened.Swap(nil); o != nil {
		o.close()
	}
	if h := i.handle.Swap(nil); h != nil {
		h.decRef()
	}
	i.dropFDs()
}

// relocate notes that i was found as name in parent, if it is not known where it is; on a shared mount the other name may be gone by now.
func (i *inode) relocate(parent *inode, name string) {
	i.loc.RLock()
	ok := i.parent != nil && (i.parent == parent && i.name == name || !i.fs.shared && i.parent.alive()) || parent == nil || i == i.fs.root
	i.loc.RUnlock()
	if ok {
		return
	}
	i.loc.Lock()
	i.parent, i.name = parent, name
	i.mu.Lock()
	i.gone = false
	i.mu.Unlock()
	i.loc.Unlock()
}

// alive reports whether i is still the inode that VFS sees for its file.
func (i *inode) alive() bool {
	i.fs.mu.Lock()
	defer i.fs.mu.Unlock()
	return i.fs.inodes[i.key] == i
}

// xattrKnown: only these are asked for; see the gofer's xattrAllowed.
func xattrKnown(name string, change bool) error {
	if strings.HasPrefix(name, "user.") && len(name) > len("user.") || name == "security.capability" && !change {
		return nil
	}
	return unix.EOPNOTSUPP
}

// GetXattr implements vfs.Inode.
func (i *inode) GetXattr(_ vfs.Context, name string) ([]byte, error) {
	if err := xattrKnown(name, false); err != nil {
		return nil, err
	}
	req, rep := wire.XattrReq{Name: name}, wire.BytesRep{}
	err := i.request(wire.OpGetXattr, &req, &rep, &req.Ref)
	return rep.B, err
}

// SetXattr implements vfs.Inode.
func (i *inode) SetXattr(_ vfs.Context, name string, value []byte, flags uint32) error {
	if err := xattrKnown(name, true); err != nil {
		return err
	}
	req := wire.XattrReq{Name: name, Value: value, Flags: flags}
	defer i.markStale()
	return i.request(wire.OpSetXattr, &req, &wire.Empty{}, &req.Ref)
}

// ListXattr implements vfs.Inode.
func (i *inode) ListXattr(vfs.Context) ([]string, error) {
	if t := i.mode.Load() & unix.S_IFMT; t != unix.S_IFREG && t != unix.S_IFDIR {
		return nil, nil
	}
	var req wire.RefReq
	var rep wire.BytesRep
	if err := i.request(wire.OpListXattr, &req, &rep, &req.Ref); err != nil {
		if err == unix.EOPNOTSUPP {
			err = nil
		}
		return nil, err
	}
	names := strings.Split(string(rep.B), "\x00")
	return names[:len(names)-1], nil
}

// RemoveXattr implements vfs.Inode.
func (i *inode) RemoveXattr(_ vfs.Context, name string) error {
	if err := xattrKnown(name, true); err != nil {
		return err
	}
	req := wire.XattrReq{Name: name}
	defer i.markStale()
	return i.request(wire.OpRemoveXattr, &req, &wire.Empty{}, &req.Ref)
}
