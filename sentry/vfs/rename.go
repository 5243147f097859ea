package vfs

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Rename is renameat2(2).
func Rename(ctx Context, oldStart Path, oldPath string, newStart Path, newPath string, flags uint32) error {
	r := renaming{ctx: ctx, flags: flags}
	od, oldName, oldSlash, err := ResolveParent(ctx, oldStart, oldPath, 0)
	if err != nil {
		return err
	}
	defer od.DecRef()
	nd, newName, newSlash, err := ResolveParent(ctx, newStart, newPath, 0)
	if err != nil {
		return err
	}
	defer nd.DecRef()
	special := func(s string) bool { return s == "" || s == "." || s == ".." }
	switch {
	case od.Mount != nd.Mount:
		return unix.EXDEV
	case special(oldName):
		return unix.EBUSY
	case special(newName):
		if flags&unix.RENAME_NOREPLACE != 0 {
			return unix.EEXIST
		}
		return unix.EBUSY
	}
	if err := od.Mount.beginWrite(); err != nil {
		return err
	}
	defer od.Mount.endWrite()
	r.od, r.nd, r.oldName, r.newName, r.oldSlash, r.newSlash = od.Dentry, nd.Dentry, oldName, newName, oldSlash, newSlash
	r.lock()
	err = r.run()
	r.unlock()
	// References go without locks: the last one of a replaced file releases it.
	if r.src != nil {
		if err == nil && r.done {
			r.notify()
		}
		r.src.DecRef()
	}
	if r.dst != nil {
		if r.dst.Deleted() {
			r.dst.detachMounts()
		}
		r.dst.DecRef()
	}
	return err
}

// RenameFlags is EINVAL for flags that Rename must not be given.
func RenameFlags(flags uint32) error {
	if flags&^uint32(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE|unix.RENAME_WHITEOUT) != 0 ||
		flags&unix.RENAME_EXCHANGE != 0 && flags&(unix.RENAME_NOREPLACE|unix.RENAME_WHITEOUT) != 0 {
		return unix.EINVAL
	}
	return nil
}

// renaming is one rename under way.
type renaming struct {
	ctx                Context
	flags              uint32
	od, nd             *Dentry // directories
	oldName, newName   string
	oldSlash, newSlash bool
	src, dst           *Dentry // dst is nil if there is none
	done               bool
}

// lock takes the locks of both directories, an ancestor first (lock_rename).
// +checklocksignore: two locks in order.
func (r *renaming) lock() {
	a, b := r.od, r.nd
	if a == b {
		a.dir.ops.Lock()
		return
	}
	a.sb.renameMu.Lock()
	switch {
	case isAncestor(a, b):
	case isAncestor(b, a), b.dir.id < a.dir.id:
		a, b = b, a
	}
	a.dir.ops.Lock()
	b.dir.ops.Lock()
}

// +checklocksignore: two locks in order.
func (r *renaming) unlock() {
	r.od.dir.ops.Unlock()
	if r.od != r.nd {
		r.nd.dir.ops.Unlock()
		r.od.sb.renameMu.Unlock()
	}
}

func (r *renaming) run() (err error) {
	if r.od.Deleted() || r.nd.Deleted() {
		return unix.ENOENT
	}
	ctx := r.ctx
	exchange := r.flags&unix.RENAME_EXCHANGE != 0
	if r.src, err = r.od.lookupFresh(ctx, r.oldName); err != nil {
		return err
	}
	r.dst, err = r.nd.lookupFresh(ctx, r.newName)
	if err != nil && (err != unix.ENOENT || r.nd.fixedNames()) {
		return err
	}
	if err != nil {
		r.dst = nil
	}
	srcDir := r.src.dir != nil
	switch {
	case r.dst != nil && r.flags&unix.RENAME_NOREPLACE != 0:
		return unix.EEXIST
	case r.dst == nil && exchange:
		return unix.ENOENT
	case exchange && r.newSlash && r.dst.dir == nil:
		return unix.ENOTDIR
	case !srcDir && (r.oldSlash || !exchange && r.newSlash):
		return unix.ENOTDIR
	case srcDir && isAncestor(r.src, r.nd):
		return unix.EINVAL
	case r.dst != nil && r.dst.dir != nil && isAncestor(r.dst, r.od):
		if exchange {
			return unix.EINVAL
		}
		return unix.ENOTEMPTY
	case r.dst != nil && r.src.inode == r.dst.inode:
		return nil // two names of one file
	}
	if err := r.permitted(srcDir, exchange); err != nil {
		return err
	}
	var replaced Inode
	if r.dst != nil {
		replaced = r.dst.inode
		if r.dst.dir != nil {
			r.dst.dir.ops.Lock()
			defer r.dst.dir.ops.Unlock()
		}
	}
	if err := r.od.inode.Rename(ctx, r.oldName, r.src.inode, r.nd.inode, r.newName, replaced, r.flags); err != nil {
		return err
	}
	r.move(exchange)
	r.done = true
	return nil
}

// permitted is the part of vfs_rename that checks.
func (r *renaming) permitted(srcDir, exchange bool) error {
	ctx := r.ctx
	if err := mayDelete(ctx, r.od.inode, r.src.inode); err != nil {
		return err
	}
	if r.dst == nil {
		if err := r.nd.mayCreate(ctx); err != nil {
			return err
		}
	} else {
		if err := mayDelete(ctx, r.nd.inode, r.dst.inode); err != nil {
			return err
		}
		dstDir := r.dst.dir != nil
		switch {
		case exchange:
			if dstDir && r.od != r.nd {
				if err := Permission(ctx, r.dst.inode, MayWrite); err != nil {
					return err
				}
			}
		case srcDir && !dstDir:
			return unix.ENOTDIR
		case !srcDir && dstDir:
			return unix.EISDIR
		}
	}
	if srcDir && r.od != r.nd {
		if err := Permission(ctx, r.src.inode, MayWrite); err != nil {
			return err
		}
	}
	if r.src.mountedHere(ctx) || r.dst != nil && r.dst.mountedHere(ctx) {
		return unix.EBUSY
	}
	if r.flags&unix.RENAME_WHITEOUT != 0 {
		return mayMknod(ctx, unix.S_IFCHR, 0)
	}
	return nil
}

// movesBegun and movesDone count changes of where dentries are: Linux's rename_lock, for those who only want to know whether there was one.
var movesBegun, movesDone atomic.Uint64

// move changes the dentries as the file system changed the files.
// +checklocksignore: two locks in order.
func (r *renaming) move(exchange bool) {
	first, second := r.od, r.nd
	if second.dir.id < first.dir.id {
		first, second = second, first
	}
	first.dir.mu.Lock()
	if second != first {
		second.dir.mu.Lock()
	}
	var drop []*Dentry
	movesBegun.Add(1)
	r.od.unhashLocked(r.src)
	if r.dst != nil {
		r.nd.unhashLocked(r.dst)
	} else if neg := r.nd.dir.children[r.newName]; neg != nil {
		neg.IncRef()
		r.nd.unhashLocked(neg)
		drop = append(drop, neg)
	}
	// The new location's reference to the parent is taken, the old one's dropped.
	relocate := func(d, parent *Dentry, name string) {
		parent.IncRef()
		drop = append(drop, d.loc.Load().parent)
		d.loc.Store(&location{parent, name})
		if d.sb.policy != CacheNone {
			parent.hashLocked(name, d)
		}
	}
	relocate(r.src, r.nd, cloneName(r.newName))
	if r.dst != nil {
		if exchange {
			relocate(r.dst, r.od, cloneName(r.oldName))
		} else {
			r.dst.flags.Or(dDeleted)
		}
	}
	movesDone.Add(1)
	if second != first {
		second.dir.mu.Unlock()
	}
	first.dir.mu.Unlock()
	for _, d := range drop {
		d.DecRef()
	}
}

func cloneName(s string) string { return string(append([]byte(nil), s...)) }

func (r *renaming) notify() {
	if watchTotal.Load() == 0 {
		return
	}
	moved := func(from, to *Dentry, oldName, newName string, d *Dentry) {
		c := cookies.Add(1)
		notifyDir(from, InMovedFrom, c, oldName, d.dir != nil)
		notifyDir(to, InMovedTo, c, newName, d.dir != nil)
		deliver(d.inode, InMoveSelf, 0, "", false)
	}
	moved(r.od, r.nd, r.oldName, r.newName, r.src)
	if r.dst == nil {
		return
	}
	if r.flags&unix.RENAME_EXCHANGE != 0 {
		moved(r.nd, r.od, r.newName, r.oldName, r.dst)
	} else {
		deliver(r.dst.inode, InAttrib, 0, "", true)
	}
}
