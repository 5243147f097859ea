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

// commitUIDs is how all set*uid calls end: EAGAIN is not given here, since Linux defers RLIMIT_NPROC to execve (PF_NPROC_EXCEEDED).
func (t *Task) commitUIDs(n *auth.Credentials) {
	old := t.Credentials()
	fixUIDs(n, old)
	t.attrs.nprocExceeded.Store(old.RUID != n.RUID && t.overNproc(n.RUID))
	t.SetCredentials(n)
}

func (t *Task) overNproc(uid auth.KUID) bool {
	u := t.k.users.get(uid)
	defer t.k.users.put(u)
	return uid != 0 && uint64(u.procs.Load()) >= t.tg.Limit(linux.RLIMIT_NPROC).Cur
}

// ids are a task's user IDs, or its group IDs, as the kernel has them. Both change by the same rules.
type ids struct {
	real, effective, saved, fs uint32
	// mapped is the user namespace's way from the caller's IDs; privileged: CAP_SETUID or CAP_SETGID.
	mapped     func(uint32) uint32
	privileged bool
}

// set is setuid(2).
func (i *ids) set(id uint32) error {
	k := i.mapped(id)
	switch {
	case id == auth.NoID || k == auth.NoID:
		return unix.EINVAL
	case i.privileged:
		i.real, i.saved = k, k
	case k != i.real && k != i.saved:
		return unix.EPERM
	}
	i.effective, i.fs = k, k
	return nil
}

// setRE is setreuid(2).
func (i *ids) setRE(r, e uint32) error {
	old, kr, ke := *i, i.mapped(r), i.mapped(e)
	if r != noChange && kr == auth.NoID || e != noChange && ke == auth.NoID {
		return unix.EINVAL
	}
	if r != noChange {
		i.real = kr
		if !i.privileged && kr != old.real && kr != old.effective {
			return unix.EPERM
		}
	}
	if e != noChange {
		i.effective = ke
		if !i.privileged && !old.has(ke) {
			return unix.EPERM
		}
	}
	if r != noChange || e != noChange && ke != old.real {
		i.saved = i.effective
	}
	i.fs = i.effective
	return nil
}

// setRES is setresuid(2).
func (i *ids) setRES(r, e, s uint32) error {
	old := *i
	for _, x := range [...]struct {
		id  uint32
		dst *uint32
	}{{r, &i.real}, {e, &i.effective}, {s, &i.saved}} {
		if x.id == noChange {
			continue
		}
		k := i.mapped(x.id)
		if k == auth.NoID {
			return unix.EINVAL
		}
		if !i.privileged && !old.has(k) {
			return unix.EPERM
		}
		*x.dst = k
	}
	if i.real != old.real || i.saved != old.saved || e != noChange && (i.effective != old.effective || i.effective != old.fs) {
		i.fs = i.effective // what changes nothing leaves setfsuid's too
	}
	return nil
}

func (i *ids) has(k uint32) bool { return k == i.real || k == i.effective || k == i.saved }

func (t *Task) changeUIDs(change func(i *ids) error) error {
	c := t.Credentials()
	i := ids{uint32(c.RUID), uint32(c.EUID), uint32(c.SUID), uint32(c.FSUID), func(id uint32) uint32 { return uint32(c.UserNS.MapToKUID(id)) }, c.HasCap(linux.CAP_SETUID)}
	if err := change(&i); err != nil {
		return err
	}
	n := c.Clone()
	n.RUID, n.EUID, n.SUID, n.FSUID = auth.KUID(i.real), auth.KUID(i.effective), auth.KUID(i.saved), auth.KUID(i.fs)
	t.commitUIDs(n)
	return nil
}

func (t *Task) changeGIDs(change func(i *ids) error) error {
	c := t.Credentials()
	i := ids{uint32(c.RGID), uint32(c.EGID), uint32(c.SGID), uint32(c.FSGID), func(id uint32) uint32 { return uint32(c.UserNS.MapToKGID(id)) }, c.HasCap(linux.CAP_SETGID)}
	if err := change(&i); err != nil {
		return err
	}
	n := c.Clone()
	n.RGID, n.EGID, n.SGID, n.FSGID = auth.KGID(i.real), auth.KGID(i.effective), auth.KGID(i.saved), auth.KGID(i.fs)
	t.SetCredentials(n)
	return nil
}

// Setuid is setuid(2).
func (t *Task) Setuid(uid uint32) error {
	return t.changeUIDs(func(i *ids) error { return i.set(uid) })
}

// Setgid is setgid(2).
func (t *Task) Setgid(gid uint32) error {
	return t.changeGIDs(func(i *ids) error { return i.set(gid) })
}

// Setreuid is setreuid(2).
func (t *Task) Setreuid(r, e uint32) error {
	return t.changeUIDs(func(i *ids) error { return i.setRE(r, e) })
}

// Setregid is setregid(2).
func (t *Task) Setregid(r, e uint32) error {
	return t.changeGIDs(func(i *ids) error { return i.setRE(r, e) })
}

// Setresuid is setresuid(2).
func (t *Task) Setresuid(r, e, s uint32) error {
	return t.changeUIDs(func(i *ids) error { return i.setRES(r, e, s) })
}

// Setresgid is setresgid(2).
func (t *Task) Setresgid(r, e, s uint32) error {
	return t.changeGIDs(func(i *ids) error { return i.setRES(r, e, s) })
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
