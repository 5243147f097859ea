package kernel

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

// userInfo is the info of a signal that t sends by kill(2) (SI_USER) or tkill(2) (SI_TKILL), as target's namespaces see t.
func (t *Task) userInfo(target *Task, sig linux.Signal, code int32) *linux.SignalInfo {
	info := &linux.SignalInfo{Signo: int32(sig), Code: code}
	info.SetPID(t.tg.pid.In(target.PIDNamespace()))
	info.SetUID(int32(target.UserNamespace().UIDOrOverflow(t.Credentials().RUID)))
	return info
}

// forced reports whether t's signals to target come from an ancestor namespace, so that SIGKILL and SIGSTOP reach its init.
func (t *Task) forces(target *Task) bool { return t.tg.pid.In(target.PIDNamespace()) == 0 }

// Kill is kill(2).
func (t *Task) Kill(pid int32, sig linux.Signal) error {
	k := t.k
	k.tasksMu.RLock()
	defer k.tasksMu.RUnlock()
	ns := t.PIDNamespace()
	switch {
	case pid > 0:
		o := ns.taskLocked(pid)
		if o == nil {
			return unix.ESRCH
		}
		return t.killGroup(o, sig, nil)
	case pid == -1:
		return t.killAll(sig)
	case pid == -1<<31:
		return unix.ESRCH
	}
	pg := t.tg.pgrp
	if pid != 0 {
		p := ns.pids[-pid]
		if p == nil || p.pgrp == nil {
			return unix.ESRCH
		}
		pg = p.pgrp
	}
	return t.killPgrp(pg, sig)
}

// killAll is kill(-1): everyone in the namespace but init and oneself.
func (t *Task) killAll(sig linux.Signal) error {
	ns := t.PIDNamespace()
	count := 0
	var first error
	for nr, p := range ns.pids {
		if p.group == nil || nr == 1 || p.group == t.tg {
			continue
		}
		count++
		if err := t.killGroup(p.group.leader, sig, nil); err != nil && err != unix.EPERM {
			first = err
		}
	}
	if count == 0 {
		return unix.ESRCH
	}
	return first
}

// killPgrp succeeds if one member could be signalled.
func (t *Task) killPgrp(pg *ProcessGroup, sig linux.Signal) error {
	ok := false
	var err error = unix.ESRCH
	for m := range pg.members {
		if e := t.killGroup(m.leader, sig, nil); e == nil {
			ok = true
		} else {
			err = e
		}
	}
	if ok {
		return nil
	}
	return err
}

// killGroup sends sig, or info if it is not nil, to the process of o, which takes it if it may, with a permission check. Signal 0 only checks. Preconditions:
// tasksMu is held.
func (t *Task) killGroup(o *Task, sig linux.Signal, info *linux.SignalInfo) error {
	if sig < 0 || sig > linux.SignalMaximum {
		return unix.EINVAL
	}
	if !t.MaySignal(o, sig) && (info == nil || info.Code <= 0 || sig == 0) {
		return unix.EPERM
	}
	if sig == 0 {
		return nil
	}
	if info == nil {
		info = t.userInfo(o, sig, linux.SI_USER)
	}
	return o.tg.sendNear(o, nil, info, t.forces(o))
}

// KillThread is tkill(2) (tgid 0), tgkill(2) and, with info, rt_tgsigqueueinfo(2).
func (t *Task) KillThread(tgid, tid int32, sig linux.Signal, info *linux.SignalInfo) error {
	if info != nil && (info.Code >= 0 || info.Code == linux.SI_TKILL) && tid != t.TID() {
		return unix.EPERM
	}
	k := t.k
	k.tasksMu.RLock()
	defer k.tasksMu.RUnlock()
	o := t.PIDNamespace().taskLocked(tid)
	if o == nil || (tgid != 0 && o.tg.pid.In(t.PIDNamespace()) != tgid) {
		return unix.ESRCH
	}
	return t.killTask(o, sig, info)
}

func (t *Task) killTask(o *Task, sig linux.Signal, info *linux.SignalInfo) error {
	if sig < 0 || sig > linux.SignalMaximum {
		return unix.EINVAL
	}
	if !t.MaySignal(o, sig) {
		return unix.EPERM
	}
	if sig == 0 || o.exitDone {
		return nil
	}
	if info == nil {
		info = t.userInfo(o, sig, linux.SI_TKILL)
	}
	return o.tg.send(o, info, t.forces(o))
}

// QueueInfo is rt_sigqueueinfo(2).
func (t *Task) QueueInfo(pid int32, sig linux.Signal, info *linux.SignalInfo) error {
	if (info.Code >= 0 || info.Code == linux.SI_TKILL) && pid != t.TID() {
		return unix.EPERM
	}
	k := t.k
	k.tasksMu.RLock()
	defer k.tasksMu.RUnlock()
	o := t.PIDNamespace().taskLocked(pid)
	if o == nil {
		return unix.ESRCH
	}
	return t.killGroup(o, sig, info)
}

// PIDScope says whom a signal to a pidfd reaches.
type PIDScope int

const (
	ScopeGroup PIDScope = iota
	ScopeThread
	ScopeProcessGroup
)

// PIDFDScope is pidfd_send_signal(2)'s choice by its flags (PIDFD_SIGNAL_*), or else by the pidfd's kind.
func PIDFDScope(flags uint32, thread bool) PIDScope {
	switch {
	case flags == 1, flags == 0 && thread:
		return ScopeThread
	case flags == 4:
		return ScopeProcessGroup
	}
	return ScopeGroup
}

// KillPID is pidfd_send_signal(2).
func (t *Task) KillPID(p *PID, sig linux.Signal, info *linux.SignalInfo, scope PIDScope) error {
	k := t.k
	k.tasksMu.RLock()
	defer k.tasksMu.RUnlock()
	// The process must be visible from here.
	if !t.PIDNamespace().isAncestorOf(p.ns) {
		return unix.EINVAL
	}
	if info != nil && (info.Code >= 0 || info.Code == linux.SI_TKILL) && p != t.pid.Load() {
		return unix.EPERM
	}
	switch {
	case scope == ScopeProcessGroup:
		if p.pgrp == nil {
			return unix.ESRCH
		}
		return t.killPgrp(p.pgrp, sig)
	case p.task == nil:
		return unix.ESRCH
	case scope == ScopeThread:
		return t.killTask(p.task, sig, info)
	}
	return t.killGroup(p.task, sig, info)
}
