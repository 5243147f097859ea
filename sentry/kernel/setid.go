package kernel

import (
	"slices"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"moat/sentry/kernel/auth"
)

// Securebits (prctl(2), capabilities(7)).
const (
	secNoRoot            = 1 << 0
	secNoSetuidFixup     = 1 << 2
	secKeepCaps          = 1 << 4
	secNoCapAmbientRaise = 1 << 6
	secAllBits           = secNoRoot | secNoSetuidFixup | secKeepCaps | secNoCapAmbientRaise
	secAllLocks          = secAllBits << 1
)

const noChange = auth.NoID

// fixUIDs adjusts capabilities after the user IDs changed from old (cap_task_fix_setuid, LSM_SETID_ID/RE/RES).
func fixUIDs(n, old *auth.Credentials) {
	if n.SecureBits&secNoSetuidFixup != 0 {
		return
	}
	root := n.UserNS.MapToKUID(0)
	if (old.RUID == root || old.EUID == root || old.SUID == root) && n.RUID != root && n.EUID != root && n.SUID != root {
		if n.SecureBits&secKeepCaps == 0 {
			n.Permitted, n.Effective = 0, 0
		}
		n.Ambient = 0
	}
	if old.EUID == root && n.EUID != root {
		n.Effective = 0
	}
	if old.EUID != root && n.EUID == root {
		n.Effective = n.Permitted
	}
}

// fsCaps are the capabilities that follow the file system user ID (CAP_FS_SET).
var fsCaps = auth.CapMask(linux.CAP_CHOWN) | auth.CapMask(linux.CAP_MKNOD) | auth.CapMask(linux.CAP_DAC_OVERRIDE) | auth.CapMask(linux.CAP_DAC_READ_SEARCH) |
	auth.CapMask(linux.CAP_FOWNER) | auth.CapMask(linux.CAP_FSETID) | auth.CapMask(linux.CAP_LINUX_IMMUTABLE) | auth.CapMask(linux.CAP_MAC_OVERRIDE)

// setuidChecked is how all set*uid calls end: EAGAIN is not given here, since Linux defers RLIMIT_NPROC to execve (PF_NPROC_EXCEEDED).
func (t *Task) commitUIDs(n *auth.Credentials) error {
	old := t.Credentials()
	fixUIDs(n, old)
	t.attrs.nprocExceeded.Store(old.RUID != n.RUID && t.overNproc(n.RUID))
	t.SetCredentials(n)
	return nil
}

func (t *Task) overNproc(uid auth.KUID) bool {
	u := t.k.users.get(uid)
	defer t.k.users.put(u)
	return uid != 0 && uint64(u.procs.Load()) >= t.tg.Limit(linux.RLIMIT_NPROC).Cur
}

// Setuid is setuid(2).
func (t *Task) Setuid(uid uint32) error {
	c := t.Credentials()
	k := c.UserNS.MapToKUID(uid)
	if uid == auth.NoID || uint32(k) == auth.NoID {
		return unix.EINVAL
	}
	n := c.Clone()
	if c.HasCap(linux.CAP_SETUID) {
		n.RUID, n.SUID = k, k
	} else if k != c.RUID && k != c.SUID {
		return unix.EPERM
	}
	n.EUID, n.FSUID = k, k
	return t.commitUIDs(n)
}

// Setreuid is setreuid(2).
func (t *Task) Setreuid(r, e uint32) error {
	c := t.Credentials()
	kr, ke := c.UserNS.MapToKUID(r), c.UserNS.MapToKUID(e)
	if (r != noChange && uint32(kr) == auth.NoID) || (e != noChange && uint32(ke) == auth.NoID) {
		return unix.EINVAL
	}
	n := c.Clone()
	priv := c.HasCap(linux.CAP_SETUID)
	if r != noChange {
		n.RUID = kr
		if !priv && kr != c.RUID && kr != c.EUID {
			return unix.EPERM
		}
	}
	if e != noChange {
		n.EUID = ke
		if !priv && ke != c.RUID && ke != c.EUID && ke != c.SUID {
			return unix.EPERM
		}
	}
	if r != noChange || (e != noChange && ke != c.RUID) {
		n.SUID = n.EUID
	}
	n.FSUID = n.EUID
	return t.commitUIDs(n)
}

// Setresuid is setresuid(2).
func (t *Task) Setresuid(r, e, s uint32) error {
	c := t.Credentials()
	n := c.Clone()
	priv := c.HasCap(linux.CAP_SETUID)
	for _, x := range [...]struct {
		id  uint32
		dst *auth.KUID
	}{{r, &n.RUID}, {e, &n.EUID}, {s, &n.SUID}} {
		if x.id == noChange {
			continue
		}
		k := c.UserNS.MapToKUID(x.id)
		if uint32(k) == auth.NoID {
			return unix.EINVAL
		}
		if !priv && k != c.RUID && k != c.EUID && k != c.SUID {
			return unix.EPERM
		}
		*x.dst = k
	}
	n.FSUID = n.EUID
	return t.commitUIDs(n)
}

// Setfsuid is setfsuid(2): it returns the old ID whether or not it changed.
func (t *Task) Setfsuid(uid uint32) uint32 {
	c := t.Credentials()
	old := c.UserNS.UIDOrOverflow(c.FSUID)
	k := c.UserNS.MapToKUID(uid)
	if uint32(k) == auth.NoID || (k != c.RUID && k != c.EUID && k != c.SUID && k != c.FSUID && !c.HasCap(linux.CAP_SETUID)) || k == c.FSUID {
		return old
	}
	n := c.Clone()
	n.FSUID = k
	if root := c.UserNS.MapToKUID(0); c.SecureBits&secNoSetuidFixup == 0 {
		if c.FSUID == root && k != root {
			n.Effective &^= fsCaps
		} else if c.FSUID != root && k == root {
			n.Effective |= n.Permitted & fsCaps
		}
	}
	t.SetCredentials(n)
	return old
}

// Setgid is setgid(2).
func (t *Task) Setgid(gid uint32) error {
	c := t.Credentials()
	k := c.UserNS.MapToKGID(gid)
	if gid == auth.NoID || uint32(k) == auth.NoID {
		return unix.EINVAL
	}
	n := c.Clone()
	if c.HasCap(linux.CAP_SETGID) {
		n.RGID, n.SGID = k, k
	} else if k != c.RGID && k != c.SGID {
		return unix.EPERM
	}
	n.EGID, n.FSGID = k, k
	t.SetCredentials(n)
	return nil
}

// Setregid is setregid(2).
func (t *Task) Setregid(r, e uint32) error {
	c := t.Credentials()
	kr, ke := c.UserNS.MapToKGID(r), c.UserNS.MapToKGID(e)
	if (r != noChange && uint32(kr) == auth.NoID) || (e != noChange && uint32(ke) == auth.NoID) {
		return unix.EINVAL
	}
	n := c.Clone()
	priv := c.HasCap(linux.CAP_SETGID)
	if r != noChange {
		n.RGID = kr
		if !priv && kr != c.RGID && kr != c.EGID {
			return unix.EPERM
		}
	}
	if e != noChange {
		n.EGID = ke
		if !priv && ke != c.RGID && ke != c.EGID && ke != c.SGID {
			return unix.EPERM
		}
	}
	if r != noChange || (e != noChange && ke != c.RGID) {
		n.SGID = n.EGID
	}
	n.FSGID = n.EGID
	t.SetCredentials(n)
	return nil
}

// Setresgid is setresgid(2).
func (t *Task) Setresgid(r, e, s uint32) error {
	c := t.Credentials()
	n := c.Clone()
	priv := c.HasCap(linux.CAP_SETGID)
	for _, x := range [...]struct {
		id  uint32
		dst *auth.KGID
	}{{r, &n.RGID}, {e, &n.EGID}, {s, &n.SGID}} {
		if x.id == noChange {
			continue
		}
		k := c.UserNS.MapToKGID(x.id)
		if uint32(k) == auth.NoID {
			return unix.EINVAL
		}
		if !priv && k != c.RGID && k != c.EGID && k != c.SGID {
			return unix.EPERM
		}
		*x.dst = k
	}
	n.FSGID = n.EGID
	t.SetCredentials(n)
	return nil
}

// Setfsgid is setfsgid(2).
func (t *Task) Setfsgid(gid uint32) uint32 {
	c := t.Credentials()
	old := c.UserNS.GIDOrOverflow(c.FSGID)
	k := c.UserNS.MapToKGID(gid)
	if uint32(k) == auth.NoID || (k != c.RGID && k != c.EGID && k != c.SGID && k != c.FSGID && !c.HasCap(linux.CAP_SETGID)) {
		return old
	}
	n := c.Clone()
	n.FSGID = k
	t.SetCredentials(n)
	return old
}

// Setgroups is setgroups(2) with IDs as the caller sees them.
func (t *Task) Setgroups(gids []uint32) error {
	c := t.Credentials()
	n := c.Clone()
	n.Groups = make([]auth.KGID, len(gids))
	for i, g := range gids {
		k := c.UserNS.MapToKGID(g)
		if uint32(k) == auth.NoID {
			return unix.EINVAL
		}
		n.Groups[i] = k
	}
	slices.Sort(n.Groups)
	t.SetCredentials(n)
	return nil
}

// Capset is capset(2) of oneself (cap_capset).
func (t *Task) Capset(effective, permitted, inheritable auth.CapSet) error {
	c := t.Credentials()
	effective, permitted, inheritable = effective&auth.AllCaps, permitted&auth.AllCaps, inheritable&auth.AllCaps
	if !c.HasCap(linux.CAP_SETPCAP) && inheritable&^(c.Inheritable|c.Permitted) != 0 ||
		inheritable&^(c.Inheritable|c.Bounding) != 0 || permitted&^c.Permitted != 0 || effective&^permitted != 0 {
		return unix.EPERM
	}
	n := c.Clone()
	n.Effective, n.Permitted, n.Inheritable = effective, permitted, inheritable
	n.Ambient &= permitted & inheritable
	t.SetCredentials(n)
	return nil
}

// DropBounding is PR_CAPBSET_DROP.
func (t *Task) DropBounding(c linux.Capability) error {
	cr := t.Credentials()
	if !cr.HasCap(linux.CAP_SETPCAP) {
		return unix.EPERM
	}
	if c < 0 || c > linux.CAP_LAST_CAP {
		return unix.EINVAL
	}
	n := cr.Clone()
	n.Bounding &^= auth.CapMask(c)
	t.SetCredentials(n)
	return nil
}

// SetSecureBits is PR_SET_SECUREBITS.
func (t *Task) SetSecureBits(bits uint32) error {
	c := t.Credentials()
	old := c.SecureBits
	if ((old&secAllLocks)>>1)&(old^bits) != 0 || old&secAllLocks&^bits != 0 || bits&^(secAllLocks|secAllBits) != 0 || !c.HasCap(linux.CAP_SETPCAP) {
		return unix.EPERM
	}
	n := c.Clone()
	n.SecureBits = bits
	t.SetCredentials(n)
	return nil
}

// SetKeepCaps is PR_SET_KEEPCAPS.
func (t *Task) SetKeepCaps(on bool) error {
	c := t.Credentials()
	if c.SecureBits&(secKeepCaps<<1) != 0 {
		return unix.EPERM
	}
	n := c.Clone()
	n.SecureBits &^= secKeepCaps
	if on {
		n.SecureBits |= secKeepCaps
	}
	t.SetCredentials(n)
	return nil
}

// Ambient is PR_CAP_AMBIENT with its second argument op and capability c.
func (t *Task) Ambient(op uint64, c linux.Capability) (uintptr, error) {
	cr := t.Credentials()
	if op == linux.PR_CAP_AMBIENT_CLEAR_ALL {
		n := cr.Clone()
		n.Ambient = 0
		t.SetCredentials(n)
		return 0, nil
	}
	if c < 0 || c > linux.CAP_LAST_CAP {
		return 0, unix.EINVAL
	}
	n := cr.Clone()
	switch op {
	case linux.PR_CAP_AMBIENT_IS_SET:
		if cr.Ambient.Has(c) {
			return 1, nil
		}
		return 0, nil
	case linux.PR_CAP_AMBIENT_RAISE:
		if !cr.Permitted.Has(c) || !cr.Inheritable.Has(c) || cr.SecureBits&secNoCapAmbientRaise != 0 {
			return 0, unix.EPERM
		}
		n.Ambient |= auth.CapMask(c)
	case linux.PR_CAP_AMBIENT_LOWER:
		n.Ambient &^= auth.CapMask(c)
	default:
		return 0, unix.EINVAL
	}
	t.SetCredentials(n)
	return 0, nil
}
