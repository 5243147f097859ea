// Package ipc has System V IPC (sysvipc(7)): semaphores, shared memory segments and message queues of one IPC namespace.
//
// It stands alone: a caller is an Actor, who knows its credentials and can sleep. Locks: Registry.mu, then the lock of one object;
// wake-ups are channel closes and need neither.
package ipc

import (
	"sync"
	"time"

	"moat/sentry/kernel/auth"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

// Actor is the calling task.
type Actor interface {
	Credentials() *auth.Credentials
	PID() int32
	Block(C <-chan struct{}) error
	BlockUntil(C <-chan struct{}, deadline time.Time) error
}

// maxIDs is IPCMNI: an identifier is seq*maxIDs + index.
const maxIDs = 32768

// Perm is what all objects have (struct kern_ipc_perm). It is guarded by the object's lock.
type Perm struct {
	ID       int32
	Key      int32
	Seq      uint16
	Mode     uint16
	UID      auth.KUID
	GID      auth.KGID
	CUID     auth.KUID
	CGID     auth.KGID
	Changed  int64 // ctime, seconds
	removed  bool
	registry *auth.UserNamespace
}

func (p *Perm) perm() *Perm { return p }

// check is ipcperms: want is a mask of 0444 and 0222 bits, any of whose classes counts.
func (p *Perm) check(a Actor, want uint16) error {
	c := a.Credentials()
	want = (want >> 6) | (want >> 3) | want
	granted := p.Mode
	if c.EUID == p.CUID || c.EUID == p.UID {
		granted >>= 6
	} else if c.EGID == p.CGID || c.EGID == p.GID || c.InGroup(p.CGID) || c.InGroup(p.GID) {
		granted >>= 3
	}
	if want&^granted&7 != 0 && !c.HasCapIn(linux.CAP_IPC_OWNER, p.registry) {
		return unix.EACCES
	}
	return nil
}

// owner is what IPC_SET and IPC_RMID need: EPERM.
func (p *Perm) owner(a Actor) error {
	c := a.Credentials()
	if c.EUID != p.CUID && c.EUID != p.UID && !c.HasCapIn(linux.CAP_SYS_ADMIN, p.registry) {
		return unix.EPERM
	}
	return nil
}

// Set is IPC_SET's part that all objects share.
func (p *Perm) set(uid auth.KUID, gid auth.KGID, mode uint16) {
	p.UID, p.GID = uid, gid
	p.Mode = p.Mode&^0777 | mode&0777
	p.Changed = time.Now().Unix()
}

type object interface {
	comparable
	perm() *Perm
	lock() *sync.Mutex
}

// registry holds the objects of one kind.
type registry[T object] struct {
	user  *auth.UserNamespace
	limit int

	mu    sync.Mutex
	byID  map[int32]T // +checklocks:mu
	byKey map[int32]T // +checklocks:mu
	next  int32       // +checklocks:mu
	seq   uint16      // +checklocks:mu
}

func (r *registry[T]) init(user *auth.UserNamespace, limit int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.user, r.limit = user, limit
	r.byID, r.byKey = make(map[int32]T), make(map[int32]T)
}

// get is the *get calls: it finds the object of key, or makes one. fits says whether an existing one is large enough.
func (r *registry[T]) get(a Actor, key int32, flags uint32, fits func(T) error, mk func(Perm) (T, error)) (int32, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if key != linux.IPC_PRIVATE {
		if o, ok := r.byKey[key]; ok {
			if flags&(linux.IPC_CREAT|linux.IPC_EXCL) == linux.IPC_CREAT|linux.IPC_EXCL {
				return 0, unix.EEXIST
			}
			if err := fits(o); err != nil {
				return 0, err
			}
			p := o.perm()
			if err := p.check(a, uint16(flags&0777)); err != nil {
				return 0, err
			}
			return p.ID, nil
		}
		if flags&linux.IPC_CREAT == 0 {
			return 0, unix.ENOENT
		}
	}
	if len(r.byID) >= r.limit {
		return 0, unix.ENOSPC
	}
	c := a.Credentials()
	idx := r.next
	for {
		if _, used := r.byID[int32(r.seq)*maxIDs+idx]; !used {
			break
		}
		idx = (idx + 1) % maxIDs
	}
	id := int32(r.seq)*maxIDs + idx
	o, err := mk(Perm{ID: id, Key: key, Seq: r.seq, Mode: uint16(flags & 0777), UID: c.EUID, GID: c.EGID, CUID: c.EUID, CGID: c.EGID,
		Changed: time.Now().Unix(), registry: r.user})
	if err != nil {
		return 0, err
	}
	if r.next = idx + 1; r.next == maxIDs {
		r.next, r.seq = 0, (r.seq+1)%0x7fff
	}
	r.byID[id] = o
	if key != linux.IPC_PRIVATE {
		r.byKey[key] = o
	}
	return id, nil
}

// find returns the object with identifier id: EINVAL.
func (r *registry[T]) find(id int32) (T, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o, ok := r.byID[id]
	if !ok {
		return o, unix.EINVAL
	}
	return o, nil
}

// owned is find for the object's owner, and locks it: EPERM.
// +checklocksignore: only if it succeeds.
func (r *registry[T]) owned(a Actor, id int32) (T, error) {
	o, err := r.find(id)
	if err == nil {
		o.lock().Lock()
		if err = o.perm().owner(a); err != nil {
			o.lock().Unlock()
		}
	}
	return o, err
}

// lookup is find, or with byIndex finds by the index id (SEM_STAT and its like).
func (r *registry[T]) lookup(id int32, byIndex bool) (o T, err error) {
	if !byIndex {
		return r.find(id)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for n, o := range r.byID {
		if n%maxIDs == id {
			return o, nil
		}
	}
	return o, unix.EINVAL
}

// top is the highest index in use.
func (r *registry[T]) top() (top int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.byID {
		top = max(top, id%maxIDs)
	}
	return top
}

// forget takes o out of the tables; its key is free at once.
func (r *registry[T]) forget(o T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := o.perm()
	delete(r.byID, p.ID)
	r.unkeyLocked(o)
}

// +checklocks:r.mu
func (r *registry[T]) unkeyLocked(o T) {
	if p := o.perm(); p.Key != linux.IPC_PRIVATE && r.byKey[p.Key] == o {
		delete(r.byKey, p.Key)
	}
}

func (r *registry[T]) all() []T {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]T, 0, len(r.byID))
	for _, o := range r.byID {
		out = append(out, o)
	}
	return out
}
