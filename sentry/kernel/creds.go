package kernel

import (
	"gvisor.dev/gvisor/pkg/abi/linux"
	"moat/sentry/kernel/auth"
)

// SetCredentials makes c t's credentials (commit_creds): the process becomes undumpable if it gained an identity, the parent-death signal is cleared, and
// the count of the real user moves.
func (t *Task) SetCredentials(c *auth.Credentials) {
	old := t.Credentials()
	if old.EUID != c.EUID || old.EGID != c.EGID || old.FSUID != c.FSUID || old.FSGID != c.FSGID ||
		(old.UserNS == c.UserNS && c.Permitted&^old.Permitted != 0) {
		if m := t.mm.Load(); m != nil {
			m.Dumpable.Store(suidDumpable)
		}
		t.attrs.pdeathsig.Store(0)
	}
	if old.RUID != c.RUID {
		n, o := t.k.users.get(c.RUID), t.user.Load()
		n.procs.Add(1)
		t.user.Store(n)
		o.procs.Add(-1)
		t.k.users.put(o)
	}
	t.creds.Store(c)
	t.publishIdentity()
}

// suidDumpable is /proc/sys/fs/suid_dumpable.
const suidDumpable = 0

// MaySignal is kill_ok_by_cred, with SIGCONT's exception for one's own session.
func (t *Task) MaySignal(target *Task, sig linux.Signal) bool {
	if t.tg == target.tg {
		return true
	}
	c, tc := t.Credentials(), target.Credentials()
	if c.EUID == tc.SUID || c.EUID == tc.RUID || c.RUID == tc.SUID || c.RUID == tc.RUID {
		return true
	}
	if c.HasCapIn(linux.CAP_KILL, tc.UserNS) {
		return true
	}
	if sig != linux.SIGCONT {
		return false
	}
	a, b := t.tg.pgrp, target.tg.pgrp
	return a != nil && b != nil && a.session == b.session
}

// MayAccess is ptrace_may_access: whether t may look at (PTRACE_MODE_READ) or change target. fsCreds: the file system IDs count, as for /proc.
func (t *Task) MayAccess(target *Task, fsCreds bool) bool {
	if t.tg == target.tg {
		return true
	}
	c, tc := t.Credentials(), target.Credentials()
	uid, gid := c.RUID, c.RGID
	if fsCreds {
		uid, gid = c.FSUID, c.FSGID
	}
	same := uid == tc.EUID && uid == tc.SUID && uid == tc.RUID && gid == tc.EGID && gid == tc.SGID && gid == tc.RGID
	admin := c.HasCapIn(linux.CAP_SYS_PTRACE, tc.UserNS)
	if !same && !admin {
		return false
	}
	if m := target.mm.Load(); m != nil && m.Dumpable.Load() != 1 && !admin {
		return false
	}
	// cap_ptrace_access_check
	return admin || (c.UserNS == tc.UserNS && tc.Permitted&^c.Permitted == 0)
}

// SetNoNewPrivs is PR_SET_NO_NEW_PRIVS.
func (t *Task) SetNoNewPrivs() { t.attrs.noNewPrivs.Store(true) }
