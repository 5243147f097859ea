package kernel

import (
	"sync"
	"sync/atomic"

	"moat/sentry/vfs"
)

// FSContext is a root, a working directory and a umask (struct fs_struct), shared by CLONE_FS.
type FSContext struct {
	mu    sync.Mutex              // changes
	paths atomic.Pointer[fsPaths] // read without a lock by path walks
	umask atomic.Uint32
	users atomic.Int32
	// retired are the last directories that were left.
	retired [2]vfs.Path
	next    int
}

type fsPaths struct{ root, cwd vfs.Path }

// NewFSContext takes over one reference of root and of cwd each.
func NewFSContext(root, cwd vfs.Path, umask uint16) *FSContext {
	f := &FSContext{}
	f.users.Store(1)
	f.paths.Store(&fsPaths{root, cwd})
	f.umask.Store(uint32(umask))
	return f
}

// Root is the root directory, without a reference.
func (f *FSContext) Root() vfs.Path { return f.paths.Load().root }

// Cwd is the working directory, without a reference.
func (f *FSContext) Cwd() vfs.Path { return f.paths.Load().cwd }

// Get returns the root and the working directory with references.
func (f *FSContext) Get() (root, cwd vfs.Path) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.paths.Load()
	return p.root.IncRef(), p.cwd.IncRef()
}

// Umask is umask(2)'s mask.
func (f *FSContext) Umask() uint16 { return uint16(f.umask.Load()) }

// SetUmask sets the mask and returns the old one.
func (f *FSContext) SetUmask(m uint16) uint16 { return uint16(f.umask.Swap(uint32(m & 0777))) }

// SetCwd changes the working directory (chdir(2)), taking over p's reference.
func (f *FSContext) SetCwd(p vfs.Path) { f.set(vfs.Path{}, p, true) }

// SetRoot changes the root (chroot(2)), taking over p's reference.
func (f *FSContext) SetRoot(p vfs.Path) { f.set(p, vfs.Path{}, true) }

// set replaces what is given. The old directories keep their references until nobody who looked them up without one can still be walking: they
// are dropped with the next change, or at once if the caller is the only user (own), so that umount(2) finds them unused.
func (f *FSContext) set(root, cwd vfs.Path, own bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	old := f.paths.Load()
	n := *old
	if root.Ok() {
		n.root = root
	}
	if cwd.Ok() {
		n.cwd = cwd
	}
	f.paths.Store(&n)
	if root.Ok() {
		f.retire(old.root)
	}
	if cwd.Ok() {
		f.retire(old.cwd)
	}
	if own && f.users.Load() == 1 {
		for i := range f.retired {
			f.retired[i].DecRef()
			f.retired[i] = vfs.Path{}
		}
	}
}

func (f *FSContext) retire(p vfs.Path) {
	f.retired[f.next].DecRef()
	f.retired[f.next] = p
	f.next = (f.next + 1) % len(f.retired)
}

// Replace changes root and cwd where they are at old (pivot_root(2)), to references of its own.
func (f *FSContext) Replace(old, to vfs.Path) {
	p := f.paths.Load()
	var r, c vfs.Path
	if p.root == old {
		r = to.IncRef()
	}
	if p.cwd == old {
		c = to.IncRef()
	}
	if r.Ok() || c.Ok() {
		f.set(r, c, false)
	}
}

// fork returns a copy (clone(2) without CLONE_FS).
func (f *FSContext) fork() *FSContext {
	root, cwd := f.Get()
	return NewFSContext(root, cwd, f.Umask())
}

func (f *FSContext) incRef() { f.users.Add(1) }

func (f *FSContext) decRef() {
	if f.users.Add(-1) != 0 {
		return
	}
	p := f.paths.Load()
	p.root.DecRef()
	p.cwd.DecRef()
	for _, r := range f.retired {
		r.DecRef()
	}
}

// Shared reports whether other tasks use f.
func (f *FSContext) Shared() bool { return f.users.Load() > 1 }
