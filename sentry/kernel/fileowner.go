package kernel

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"moat/sentry/kernel/auth"
	"moat/sentry/vfs"
)

// FileOwner is whom SIGIO of a file goes to (F_SETOWN): a thread, a process or a process group. It implements
// vfs.AsyncOwner.
type FileOwner struct {
	k         *Kernel
	pid       *PID // nil: nobody
	scope     PIDScope
	uid, euid auth.KUID // of who set it
}

// NewFileOwner returns the owner id as seen by t, 0 for nobody: ESRCH.
func (t *Task) NewFileOwner(scope PIDScope, id int32) (*FileOwner, error) {
	p := t.PIDNamespace().PID(id)
	if p == nil && id != 0 {
		return nil, unix.ESRCH
	}
	c := t.Credentials()
	return &FileOwner{k: t.k, pid: p, scope: scope, uid: c.RUID, euid: c.EUID}, nil
}

// Nobody reports whether o is for nobody, nil included.
func (o *FileOwner) Nobody() bool { return o == nil || o.pid == nil }

// Scope says what kind of owner o is.
func (o *FileOwner) Scope() PIDScope { return o.scope }

// ID is o's number as seen by t: 0 if there is nobody of that number and kind any more.
func (o *FileOwner) ID(t *Task) int32 {
	o.k.tasksMu.RLock()
	defer o.k.tasksMu.RUnlock()
	if p := o.pid; p == nil || o.scope == ScopeThread && p.task == nil || o.scope == ScopeGroup && p.group == nil || o.scope == ScopeProcessGroup && p.pgrp == nil {
		return 0
	}
	return o.pid.In(t.PIDNamespace())
}

// sigios are the signals that SendSIGIO has yet to send.
type sigios struct {
	// sending is held while signals are sent, before mu.
	sending sync.Mutex
	mu      sync.Mutex
	list    []func() // +checklocks:mu
	count   atomic.Int32
}

// SendSIGIO implements vfs.AsyncOwner (fs/fcntl.c send_sigio). It is called with a wait queue locked, perhaps under tasksMu, so the signal is
// sent later: by the task whose call it is, before that returns, or by another goroutine.
func (o *FileOwner) SendSIGIO(sig int32, fd int32, reason int32) {
	info := &linux.SignalInfo{Signo: int32(linux.SIGIO), Code: linux.SI_KERNEL}
	if sig != 0 {
		bands := [...]int64{vfs.PollIn: 0x41, vfs.PollOut: 0x304, vfs.PollMsg: 0x441, vfs.PollErr: 0x8, vfs.PollPri: 0x82, vfs.PollHup: 0x18}
		info.Signo, info.Code = sig, reason
		info.SetBand(bands[reason])
		info.SetFD(uint32(fd))
	}
	s := &o.k.sigios
	s.mu.Lock()
	s.list = append(s.list, func() { o.send(info) })
	s.count.Add(1)
	s.mu.Unlock()
	go s.flush()
}

// flush sends what there is.
func (s *sigios) flush() {
	s.sending.Lock()
	defer s.sending.Unlock()
	s.mu.Lock()
	l := s.list
	s.list = nil
	s.mu.Unlock()
	for _, send := range l {
		send()
	}
	s.count.Add(-int32(len(l)))
}

// may is sigio_perm.
func (o *FileOwner) may(t *Task) bool {
	c := t.Credentials()
	return o.euid == 0 || o.euid == c.SUID || o.euid == c.RUID || o.uid == c.SUID || o.uid == c.RUID
}

func (o *FileOwner) send(info *linux.SignalInfo) {
	o.k.tasksMu.RLock()
	defer o.k.tasksMu.RUnlock()
	switch {
	case o.pid == nil:
	case o.scope == ScopeProcessGroup:
		if o.pid.pgrp == nil {
			return
		}
		for m := range o.pid.pgrp.members {
			if o.may(m.leader) {
				sendSIGIO(m, nil, *info)
			}
		}
	case o.pid.task == nil || !o.may(o.pid.task):
	case o.scope == ScopeThread:
		sendSIGIO(o.pid.task.tg, o.pid.task, *info)
	default:
		sendSIGIO(o.pid.task.tg, nil, *info)
	}
}

// sendSIGIO sends info, or SIGIO alone if the queue has no room for it (send_sigio_to_task).
func sendSIGIO(tg *ThreadGroup, t *Task, info linux.SignalInfo) {
	if tg.send(t, &info, true) != nil {
		tg.send(t, &linux.SignalInfo{Signo: int32(linux.SIGIO), Code: linux.SI_KERNEL}, true)
	}
}

// ReplaceRoots moves every task whose root or working directory is old to to (pivot_root(2), fs/fs_struct.c chroot_fs_refs).
func (k *Kernel) ReplaceRoots(old, to vfs.Path) {
	for _, tg := range k.ThreadGroups() {
		for _, t := range tg.Tasks() {
			if f := t.FSContext(); f != nil {
				f.Replace(old, to)
			}
		}
	}
}
