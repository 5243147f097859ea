package kernel

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

// Session is a session (setsid(2)). Guarded by Kernel.tasksMu.
type Session struct {
	pid    *PID
	leader *ThreadGroup // nil when it has exited
	groups map[*ProcessGroup]struct{}
	// tty is the controlling terminal of the session, nil if none.
	tty *TTYJob
}

// ProcessGroup is a process group (setpgid(2)). Guarded by Kernel.tasksMu.
type ProcessGroup struct {
	pid     *PID
	session *Session
	members map[*ThreadGroup]struct{}
}

// PID is the session's number.
func (s *Session) PID() *PID { return s.pid }

// PID is the group's number.
func (pg *ProcessGroup) PID() *PID { return pg.pid }

// joinGroup moves tg into pg. Preconditions: tasksMu is held for writing; tg is unhashed from its old group by leaveGroup.
func (tg *ThreadGroup) joinGroup(pg *ProcessGroup) {
	tg.pgrp = pg
	pg.members[tg] = struct{}{}
}

// leaveGroup takes tg out of its process group, which ends with its last member.
func (tg *ThreadGroup) leaveGroup() {
	pg := tg.pgrp
	if pg == nil {
		return
	}
	tg.pgrp = nil
	delete(pg.members, tg)
	if len(pg.members) > 0 {
		return
	}
	s := pg.session
	pg.pid.pgrp = nil
	pg.pid.put()
	if s.tty != nil && s.tty.foreground == pg {
		s.tty.foreground = nil
	}
	delete(s.groups, pg)
	if len(s.groups) == 0 {
		if s.tty != nil {
			s.tty.session, s.tty.foreground = nil, nil
			s.tty = nil
		}
		s.pid.sess = nil
		s.pid.put()
	}
}

// newSession makes tg the leader of a new session and group. Preconditions: tasksMu is held for writing.
func (tg *ThreadGroup) newSession() {
	tg.leaveGroup()
	s := &Session{pid: tg.pid, leader: tg, groups: make(map[*ProcessGroup]struct{})}
	pg := &ProcessGroup{pid: tg.pid, session: s, members: make(map[*ThreadGroup]struct{})}
	tg.pid.sess, tg.pid.pgrp = s, pg
	s.groups[pg] = struct{}{}
	tg.joinGroup(pg)
	tg.hasTTY = false
}

// Setsid is setsid(2).
func (tg *ThreadGroup) Setsid() error {
	k := tg.k
	k.tasksMu.Lock()
	defer k.tasksMu.Unlock()
	if tg.isSessionLeader() || tg.pid.pgrp != nil {
		return unix.EPERM
	}
	tg.newSession()
	return nil
}

func (tg *ThreadGroup) isSessionLeader() bool {
	return tg.pgrp != nil && tg.pgrp.session.leader == tg
}

// Setpgid is setpgid(2) by t.
func (t *Task) Setpgid(pid, pgid int32) error {
	if pgid < 0 || pgid == 0 && pid < 0 {
		return unix.EINVAL
	}
	k := t.k
	k.tasksMu.Lock()
	defer k.tasksMu.Unlock()
	ns := t.PIDNamespace()
	tg := t.tg
	if pid != 0 {
		p := ns.pids[pid]
		if p == nil || p.task == nil {
			return unix.ESRCH
		}
		if p.group == nil {
			return unix.EINVAL // not a thread group leader
		}
		tg = p.group
	}
	if tg != t.tg {
		if tg.parent != t.tg {
			return unix.ESRCH
		}
		if tg.pgrp == nil || tg.pgrp.session != t.tg.pgrp.session {
			return unix.EPERM
		}
		if tg.execed {
			return unix.EACCES
		}
	}
	if tg.pgrp == nil {
		return unix.ESRCH
	}
	if tg.isSessionLeader() {
		return unix.EPERM
	}
	dst := tg.pid
	if pgid != 0 && pgid != tg.pid.In(ns) {
		if dst = ns.pids[pgid]; dst == nil || dst.pgrp == nil || dst.pgrp.session != t.tg.pgrp.session {
			return unix.EPERM
		}
	}
	if dst == tg.pgrp.pid {
		return nil
	}
	s := tg.pgrp.session
	pg := dst.pgrp
	if pg == nil {
		pg = &ProcessGroup{pid: dst, session: s, members: make(map[*ThreadGroup]struct{})}
		dst.pgrp = pg
		s.groups[pg] = struct{}{}
	}
	tg.leaveGroup()
	tg.joinGroup(pg)
	return nil
}

// PGIDOf is getpgid(2) by t, for pid (0 is the caller).
func (t *Task) PGIDOf(pid int32) (int32, error) {
	return t.idOf(pid, func(g *ProcessGroup) *PID { return g.pid })
}

// SIDOf is getsid(2).
func (t *Task) SIDOf(pid int32) (int32, error) {
	return t.idOf(pid, func(g *ProcessGroup) *PID { return g.session.pid })
}

func (t *Task) idOf(pid int32, id func(*ProcessGroup) *PID) (int32, error) {
	t.k.tasksMu.RLock()
	defer t.k.tasksMu.RUnlock()
	tg, err := t.groupOf(pid)
	if err != nil {
		return 0, err
	}
	return id(tg.pgrp).In(t.PIDNamespace()), nil
}

func (t *Task) groupOf(pid int32) (*ThreadGroup, error) {
	if pid == 0 {
		return t.tg, nil
	}
	o := t.PIDNamespace().taskLocked(pid)
	if o == nil || o.tg.pgrp == nil {
		return nil, unix.ESRCH
	}
	return o.tg, nil
}

// orphaned reports whether pg has no member whose parent, outside the group but in the session, could continue it. ignored does not count
// as a member (kernel/exit.c will_become_orphaned_pgrp). Preconditions: tasksMu is held.
func (pg *ProcessGroup) orphaned(ignored *ThreadGroup) bool {
	for m := range pg.members {
		if m == ignored || m.parent == nil || m.exitNotified {
			continue
		}
		if p := m.parent; p.pgrp != nil && p.pgrp != pg && p.pgrp.session == pg.session {
			return false
		}
	}
	return true
}

// hangupOrphan sends SIGHUP and SIGCONT to tg's group if the exit of tg (or of its parent) leaves it orphaned with a stopped member
// (kernel/exit.c kill_orphaned_pgrp). Preconditions: tasksMu is held.
func (tg *ThreadGroup) hangupOrphan(parent *ThreadGroup, exiting bool) {
	pg := tg.pgrp
	var ignored *ThreadGroup
	if exiting {
		ignored = tg
	}
	if pg == nil || parent == nil || parent.pgrp == nil || parent.pgrp == pg || parent.pgrp.session != pg.session || !pg.orphaned(ignored) {
		return
	}
	stopped := false
	for m := range pg.members {
		stopped = stopped || m.Stopped()
	}
	if stopped {
		pg.hangup()
	}
}

// hangup sends SIGHUP, and SIGCONT for those that are stopped.
func (pg *ProcessGroup) hangup() {
	pg.signal(kernelInfo(linux.SIGHUP))
	pg.signal(kernelInfo(linux.SIGCONT))
}

// signal sends info to every member. Preconditions: tasksMu is held.
func (pg *ProcessGroup) signal(info *linux.SignalInfo) {
	for m := range pg.members {
		m.SendSignal(info)
	}
}
