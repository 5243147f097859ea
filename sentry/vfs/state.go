package vfs

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// inodeState is what VFS itself keeps of an inode. Most inodes never need ext.
type inodeState struct {
	mu sync.Mutex
	// refs counts dentries (and watches) of the inode.
	// +checklocks:mu
	refs int32
	// dead: the file system gave the inode up in Evict.
	// +checklocks:mu
	dead bool
	// writers is i_writecount: > 0 files open for writing, < 0 running executables.
	writers atomic.Int32
	ext     atomic.Pointer[inodeExt]
	// readers counts files of a regular file that are open for reading only (i_readcount).
	readers atomic.Int32
}

// inodeExt is the rarely used part of inodeState, made at first use and kept for the inode's life.
type inodeExt struct {
	locks lockContext
	watch watchSet
	// writeHint is F_SET_RW_HINT's.
	writeHint atomic.Uint64

	mu sync.Mutex
	// special is FIFO state or a bound socket.
	// +checklocks:mu
	special any
}

func (s *inodeState) extension() *inodeExt {
	if e := s.ext.Load(); e != nil {
		return e
	}
	s.ext.CompareAndSwap(nil, &inodeExt{})
	return s.ext.Load()
}

// MarkDead is called by a file system in Evict when it gives up what the inode needs to work: should a Lookup
// racing with it still return this Inode, VFS looks up again.
// +checklocksignore: Evict runs under state.mu.
func (i *InodeDefaults) MarkDead() {
	i.state.dead = true // Evict runs under state.mu.
}

// attach takes a VFS reference to i; false if i is dead.
func attach(i Inode) bool {
	s := i.vfsState()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return false
	}
	s.refs++
	return true
}

// detach drops a VFS reference; the last one evicts.
func detach(i Inode) {
	s := i.vfsState()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refs--
	if s.refs == 0 && !s.dead {
		i.Evict()
	}
}

// HoldInode takes a reference to i beside those of its dentries, so that it is not evicted (an inotify watch, a
// socket's peer). ReleaseInode drops it. ESTALE: the inode is gone.
func HoldInode(i Inode) error {
	if !attach(i) {
		return unix.ESTALE
	}
	return nil
}

// ReleaseInode undoes HoldInode.
func ReleaseInode(i Inode) { detach(i) }

// getWrite takes i_writecount for a file opened for writing: ETXTBSY while i is being executed.
func getWrite(i Inode) error {
	w := &i.vfsState().writers
	for {
		n := w.Load()
		if n < 0 {
			return unix.ETXTBSY
		}
		if w.CompareAndSwap(n, n+1) {
			return nil
		}
	}
}

// beginWrite counts a file open for writing with p's mount and inode: EROFS, ETXTBSY.
func (p Path) beginWrite() error {
	err := p.Mount.beginWrite()
	if err == nil {
		if err = getWrite(p.Inode()); err != nil {
			p.Mount.endWrite()
		}
	}
	return err
}

func (p Path) endWrite() {
	putWrite(p.Inode())
	p.Mount.endWrite()
}

func putWrite(i Inode) { i.vfsState().writers.Add(-1) }

// denyWrite marks i as being executed: ETXTBSY while it is open for writing.
func denyWrite(i Inode) error {
	w := &i.vfsState().writers
	for {
		n := w.Load()
		if n > 0 {
			return unix.ETXTBSY
		}
		if w.CompareAndSwap(n, n-1) {
			return nil
		}
	}
}

func allowWrite(i Inode) { i.vfsState().writers.Add(1) }

// WriteHint is F_GET_RW_HINT, for the inode of fd.
func (fd *FileDescription) WriteHint() uint64 {
	return fd.Inode().vfsState().extension().writeHint.Load()
}

// SetWriteHint is F_SET_RW_HINT: EPERM. The caller has checked the value.
func (fd *FileDescription) SetWriteHint(ctx Context, h uint64) error {
	if !ownerOrCapable(ctx, fd.Inode()) {
		return unix.EPERM
	}
	fd.Inode().vfsState().extension().writeHint.Store(h)
	return nil
}
