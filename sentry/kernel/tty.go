package kernel

import (
	"moat/sentry/kernel/signal"
	"moat/sentry/linuxerr"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

// TTY is what the kernel needs of a terminal (implemented by fs/devpts).
type TTY interface {
	// Job is the terminal's job-control half, embedded in it.
	Job() *TTYJob
	// Name is the path under /dev, "pts/0"; Device its st_rdev (for /proc/PID/stat's tty_nr, as the kernel's old encoding new_encode_dev gives).
	Name() string
	Device() uint64
	// Hangup makes the terminal dead for its session (vhangup: reads give EOF, writes EIO). Called with no kernel locks held.
	Hangup()
}

// TTYJob is the job-control half of a terminal: the session that it controls and that session's foreground group. Both are guarded
// by Kernel.tasksMu. The zero value with TTY set belongs to no session.
type TTYJob struct {
	TTY        TTY
	session    *Session
	foreground *ProcessGroup
}

// ControllingTTY is the task's controlling terminal, or nil (/dev/tty gives ENXIO).
func (tg *ThreadGroup) ControllingTTY() TTY {
	tg.k.tasksMu.RLock()
	defer tg.k.tasksMu.RUnlock()
	if j := tg.ttyLocked(); j != nil {
		return j.TTY
	}
	return nil
}

func (tg *ThreadGroup) ttyLocked() *TTYJob {
	if tg.pgrp == nil || !tg.hasTTY {
		return nil
	}
	return tg.pgrp.session.tty
}

// SetControllingTTY is ioctl_tty(2) TIOCSCTTY. readable says that the caller's descriptor may be read. steal is the ioctl's argument 1.
func (t *Task) SetControllingTTY(j *TTYJob, steal, readable bool) error {
	t.k.tasksMu.Lock()
	defer t.k.tasksMu.Unlock()
	s := t.tg.pgrp.session
	if t.tg.isSessionLeader() && s.tty == j && j.session == s {
		return nil
	}
	if !t.tg.isSessionLeader() || s.tty != nil {
		return unix.EPERM
	}
	admin := t.Credentials().HasCap(linux.CAP_SYS_ADMIN)
	if j.session != nil {
		if !steal || !admin {
			return unix.EPERM
		}
		j.session.dropTTY()
	}
	if !readable && !admin {
		return unix.EPERM
	}
	t.tg.attachTTY(j)
	return nil
}

// OpenTTY makes j the controlling terminal of t's session if t leads a session without one, as open(2) without O_NOCTTY does.
func (t *Task) OpenTTY(j *TTYJob) {
	t.k.tasksMu.Lock()
	defer t.k.tasksMu.Unlock()
	if t.tg.isSessionLeader() && t.tg.pgrp.session.tty == nil && j.session == nil {
		t.tg.attachTTY(j)
	}
}

// attachTTY. Preconditions: tasksMu is held for writing, tg leads its session.
func (tg *ThreadGroup) attachTTY(j *TTYJob) {
	s := tg.pgrp.session
	s.tty, j.session, j.foreground = j, s, tg.pgrp
	tg.hasTTY = true
}

// dropTTY takes the terminal from every process of s. Preconditions: tasksMu is held for writing.
func (s *Session) dropTTY() {
	if s.tty == nil {
		return
	}
	s.tty.session, s.tty.foreground, s.tty = nil, nil, nil
	for pg := range s.groups {
		for m := range pg.members {
			m.hasTTY = false
		}
	}
}

// ReleaseControllingTTY is TIOCNOTTY: ENOTTY unless j controls the caller. A leader's release hangs up its foreground group.
func (t *Task) ReleaseControllingTTY(j *TTYJob) error {
	t.k.tasksMu.Lock()
	defer t.k.tasksMu.Unlock()
	if t.tg.ttyLocked() != j {
		return unix.ENOTTY
	}
	if t.tg.isSessionLeader() {
		if fg := j.foreground; fg != nil {
			fg.hangup()
		}
		t.tg.pgrp.session.dropTTY()
		return nil
	}
	t.tg.hasTTY = false
	return nil
}

// ForegroundPGID is TIOCGPGRP. master says that the descriptor is the master side, which needs no controlling terminal. ENOTTY, or 0 if there is none.
func (t *Task) ForegroundPGID(j *TTYJob, master bool) (int32, error) {
	t.k.tasksMu.RLock()
	defer t.k.tasksMu.RUnlock()
	if !master && t.tg.ttyLocked() != j {
		return 0, unix.ENOTTY
	}
	if j.foreground == nil {
		return 0, nil
	}
	return j.foreground.pid.In(t.PIDNamespace()), nil
}

// SetForegroundPGID is TIOCSPGRP; the caller has done CheckTTYChange.
func (t *Task) SetForegroundPGID(j *TTYJob, pgid int32, master bool) error {
	t.k.tasksMu.Lock()
	defer t.k.tasksMu.Unlock()
	s := t.tg.pgrp.session
	if (!master && t.tg.ttyLocked() != j) || j.session == nil || (!master && j.session != s) {
		return unix.ENOTTY
	}
	if pgid < 0 {
		return unix.EINVAL
	}
	p := t.PIDNamespace().pids[pgid]
	if p == nil || p.pgrp == nil {
		return unix.ESRCH
	}
	if p.pgrp.session != j.session {
		return unix.EPERM
	}
	j.foreground = p.pgrp
	return nil
}

// TTYSessionID is TIOCGSID.
func (t *Task) TTYSessionID(j *TTYJob, master bool) (int32, error) {
	t.k.tasksMu.RLock()
	defer t.k.tasksMu.RUnlock()
	if (!master && t.tg.ttyLocked() != j) || j.session == nil {
		return 0, unix.ENOTTY
	}
	return j.session.pid.In(t.PIDNamespace()), nil
}

// CheckTTYRead is called before a read of the slave side by a controlling terminal's process: background readers get SIGTTIN and
// ERESTARTSYS, or EIO if that cannot stop them (n_tty.c job_control).
func (t *Task) CheckTTYRead(j *TTYJob) error { return t.checkTTY(j, linux.SIGTTIN) }

// CheckTTYChange is called before ioctls that change the terminal, and before writes if TOSTOP is set: background
// processes get SIGTTOU and ERESTARTSYS, EIO if orphaned; blocked or ignored SIGTTOU lets them pass (tty_jobctrl.c __tty_check_change).
func (t *Task) CheckTTYChange(j *TTYJob) error { return t.checkTTY(j, linux.SIGTTOU) }

func (t *Task) checkTTY(j *TTYJob, sig linux.Signal) error {
	t.k.tasksMu.RLock()
	defer t.k.tasksMu.RUnlock()
	pg := t.tg.pgrp
	if t.tg.ttyLocked() != j || j.foreground == nil || j.foreground == pg {
		return nil
	}
	if t.ignoresOrBlocks(sig) {
		if sig == linux.SIGTTIN {
			return unix.EIO
		}
		return nil
	}
	if pg.orphaned(nil) {
		return unix.EIO
	}
	pg.signal(kernelInfo(sig))
	return linuxerr.ERESTARTSYS
}

func (t *Task) ignoresOrBlocks(sig linux.Signal) bool {
	return signal.Has(t.SignalMask(), sig) || t.tg.handlers.get(sig).Handler == linux.SIG_IGN
}

// SignalForeground sends sig (SIGINT, SIGQUIT, SIGTSTP from the line discipline; SIGWINCH) to j's foreground group.
func (k *Kernel) SignalForeground(j *TTYJob, sig linux.Signal) {
	k.tasksMu.RLock()
	defer k.tasksMu.RUnlock()
	if j.foreground != nil {
		j.foreground.signal(kernelInfo(sig))
	}
}

// TTYHangup is what the other side's going away does to the session (tty_io.c __tty_hangup): SIGHUP and SIGCONT to the leader and the foreground
// group; the session loses its terminal.
func (k *Kernel) TTYHangup(j *TTYJob) {
	k.tasksMu.Lock()
	defer k.tasksMu.Unlock()
	s := j.session
	if s == nil {
		return
	}
	if s.leader != nil {
		s.leader.SendSignal(kernelInfo(linux.SIGHUP))
		s.leader.SendSignal(kernelInfo(linux.SIGCONT))
	}
	if fg := j.foreground; fg != nil && (s.leader == nil || s.leader.pgrp != fg) {
		fg.hangup()
	}
	s.dropTTY()
}

// disassociateTTY is the exit of a session leader: the terminal is hung up, its foreground group gets SIGHUP and SIGCONT. It returns the terminal
// to hang up once tasksMu is released, or nil. Preconditions: tasksMu is held for writing.
func (tg *ThreadGroup) disassociateTTY() TTY {
	s := tg.pgrp.session
	j := s.tty
	if j == nil {
		return nil
	}
	if fg := j.foreground; fg != nil {
		fg.hangup()
	}
	s.dropTTY()
	return j.TTY
}
