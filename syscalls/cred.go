package syscalls

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/sentry/kernel"
	"moat/sentry/kernel/auth"
)

func init() {
	register(
		full(102, "getuid", "", func(t *kernel.Task, _ kernel.Args) (uintptr, error) {
			c := t.Credentials()
			return uintptr(c.UserNS.UIDOrOverflow(c.RUID)), nil
		}),
		full(104, "getgid", "", func(t *kernel.Task, _ kernel.Args) (uintptr, error) {
			c := t.Credentials()
			return uintptr(c.UserNS.GIDOrOverflow(c.RGID)), nil
		}),
		full(107, "geteuid", "", func(t *kernel.Task, _ kernel.Args) (uintptr, error) {
			c := t.Credentials()
			return uintptr(c.UserNS.UIDOrOverflow(c.EUID)), nil
		}),
		full(108, "getegid", "", func(t *kernel.Task, _ kernel.Args) (uintptr, error) {
			c := t.Credentials()
			return uintptr(c.UserNS.GIDOrOverflow(c.EGID)), nil
		}),
		full(105, "setuid", "id", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return 0, t.Setuid(a[0].Uint()) }),
		full(106, "setgid", "id", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return 0, t.Setgid(a[0].Uint()) }),
		full(113, "setreuid", "id id", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return 0, t.Setreuid(a[0].Uint(), a[1].Uint())
		}),
		full(114, "setregid", "id id", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return 0, t.Setregid(a[0].Uint(), a[1].Uint())
		}),
		full(115, "getgroups", "int ptr", sysGetgroups),
		full(116, "setgroups", "int ptr", sysSetgroups),
		full(117, "setresuid", "id id id", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return 0, t.Setresuid(a[0].Uint(), a[1].Uint(), a[2].Uint())
		}),
		full(118, "getresuid", "ptr ptr ptr", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			c := t.Credentials()
			return 0, copyOutIDs(t, a, c.UserNS.UIDOrOverflow(c.RUID), c.UserNS.UIDOrOverflow(c.EUID), c.UserNS.UIDOrOverflow(c.SUID))
		}),
		full(119, "setresgid", "id id id", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return 0, t.Setresgid(a[0].Uint(), a[1].Uint(), a[2].Uint())
		}),
		full(120, "getresgid", "ptr ptr ptr", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			c := t.Credentials()
			return 0, copyOutIDs(t, a, c.UserNS.GIDOrOverflow(c.RGID), c.UserNS.GIDOrOverflow(c.EGID), c.UserNS.GIDOrOverflow(c.SGID))
		}),
		full(122, "setfsuid", "id", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return uintptr(t.Setfsuid(a[0].Uint())), nil }),
		full(123, "setfsgid", "id", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return uintptr(t.Setfsgid(a[0].Uint())), nil }),
		full(125, "capget", "ptr ptr", sysCapget),
		full(126, "capset", "ptr ptr", sysCapset),
	)
}

func copyOutIDs(t *kernel.Task, a kernel.Args, ids ...uint32) error {
	for i, id := range ids {
		if err := t.CopyOutUint32(a[i].Pointer(), id); err != nil {
			return err
		}
	}
	return nil
}

func sysGetgroups(t *kernel.Task, a kernel.Args) (uintptr, error) {
	c := t.Credentials()
	n := a[0].Int()
	if n < 0 || (n != 0 && int(n) < len(c.Groups)) {
		return 0, unix.EINVAL
	}
	if n != 0 && len(c.Groups) > 0 {
		b := make([]byte, 4*len(c.Groups))
		for i, g := range c.Groups {
			hostarch.ByteOrder.PutUint32(b[4*i:], c.UserNS.GIDOrOverflow(g))
		}
		if _, err := t.CopyOut(a[1].Pointer(), b); err != nil {
			return 0, err
		}
	}
	return uintptr(len(c.Groups)), nil
}

func sysSetgroups(t *kernel.Task, a kernel.Args) (uintptr, error) {
	c := t.Credentials()
	if !c.HasCap(linux.CAP_SETGID) || !c.UserNS.MaySetgroups() {
		return 0, unix.EPERM
	}
	n := a[0].Uint()
	if n > 65536 {
		return 0, unix.EINVAL
	}
	b := make([]byte, 4*n)
	if _, err := t.CopyIn(a[1].Pointer(), b); err != nil {
		return 0, err
	}
	gids := make([]uint32, n)
	for i := range gids {
		gids[i] = hostarch.ByteOrder.Uint32(b[4*i:])
	}
	return 0, t.Setgroups(gids)
}

const (
	capV1, capV2, capV3 = 0x19980330, 0x20071026, 0x20080522
)

// capHeader reads the header of capget and capset and returns the number of 32-bit words a set has. An unknown version is answered with the one
// that is preferred.
func capHeader(t *kernel.Task, p hostarch.Addr) (words int, pid int32, err error) {
	var b [8]byte
	if _, err := t.CopyIn(p, b[:4]); err != nil {
		return 0, 0, err
	}
	switch hostarch.ByteOrder.Uint32(b[:]) {
	case capV1:
		words = 1
	case capV2, capV3:
		words = 2
	default:
		if err := t.CopyOutUint32(p, capV3); err != nil {
			return 0, 0, err
		}
		return 0, 0, unix.EINVAL
	}
	if _, err := t.CopyIn(p+4, b[4:]); err != nil {
		return 0, 0, err
	}
	return words, int32(hostarch.ByteOrder.Uint32(b[4:])), nil
}

func sysCapget(t *kernel.Task, a kernel.Args) (uintptr, error) {
	words, pid, err := capHeader(t, a[0].Pointer())
	if a[1] == 0 && (err == nil || err == unix.EINVAL) {
		return 0, nil // it only asked for the version
	}
	if err != nil {
		return 0, err
	}
	if pid < 0 {
		return 0, unix.EINVAL
	}
	o := t
	if pid != 0 && pid != t.TID() {
		if o = t.PIDNamespace().Task(pid); o == nil {
			return 0, unix.ESRCH
		}
	}
	c := o.Credentials()
	var b [24]byte
	for w := range words {
		for i, s := range [...]auth.CapSet{c.Effective, c.Permitted, c.Inheritable} {
			hostarch.ByteOrder.PutUint32(b[12*w+4*i:], uint32(s>>(32*w)))
		}
	}
	_, err = t.CopyOut(a[1].Pointer(), b[:12*words])
	return 0, err
}

func sysCapset(t *kernel.Task, a kernel.Args) (uintptr, error) {
	words, pid, err := capHeader(t, a[0].Pointer())
	if err != nil {
		return 0, err
	}
	if pid != 0 && pid != t.TID() {
		return 0, unix.EPERM
	}
	var b [24]byte
	if _, err := t.CopyIn(a[1].Pointer(), b[:12*words]); err != nil {
		return 0, err
	}
	var sets [3]auth.CapSet
	for w := range words {
		for i := range sets {
			sets[i] |= auth.CapSet(hostarch.ByteOrder.Uint32(b[12*w+4*i:])) << (32 * w)
		}
	}
	return 0, t.Capset(sets[0], sets[1], sets[2])
}
