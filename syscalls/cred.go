package syscalls

import (
	"moat/sentry/kernel"
	"moat/sentry/kernel/auth"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/marshal/primitive"
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
		full(113, "setreuid", "id id", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return 0, t.Setreuid(a[0].Uint(), a[1].Uint()) }),
		full(114, "setregid", "id id", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return 0, t.Setregid(a[0].Uint(), a[1].Uint()) }),
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
		gids := make([]uint32, len(c.Groups))
		for i, g := range c.Groups {
			gids[i] = c.UserNS.GIDOrOverflow(g)
		}
		if _, err := primitive.CopyUint32SliceOut(t, a[1].Pointer(), gids); err != nil {
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
	gids := make([]uint32, n)
	if _, err := primitive.CopyUint32SliceIn(t, a[1].Pointer(), gids); err != nil {
		return 0, err
	}
	return 0, t.Setgroups(gids)
}

const (
	capV1, capV2, capV3 = 0x19980330, 0x20071026, 0x20080522
)

// capHeader reads the header of capget and capset and returns the number of 32-bit words a set has. An unknown version is answered with the one
// that is preferred.
func capHeader(t *kernel.Task, p hostarch.Addr) (words int, pid int32, err error) {
	var h linux.CapUserHeader
	if _, err := h.CopyInN(t, p, 4); err != nil {
		return 0, 0, err
	}
	switch h.Version {
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
	_, err = h.CopyIn(t, p)
	return words, h.Pid, err
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
	o, err := taskOf(t, pid)
	if err != nil {
		return 0, err
	}
	c := o.Credentials()
	var sets [2]linux.CapUserData
	for w := range words {
		sets[w] = linux.CapUserData{Effective: uint32(c.Effective >> (32 * w)), Permitted: uint32(c.Permitted >> (32 * w)), Inheritable: uint32(c.Inheritable >> (32 * w))}
	}
	_, err = linux.CopyCapUserDataSliceOut(t, a[1].Pointer(), sets[:words])
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
	var sets [2]linux.CapUserData
	if _, err := linux.CopyCapUserDataSliceIn(t, a[1].Pointer(), sets[:words]); err != nil {
		return 0, err
	}
	whole := func(lo, hi uint32) auth.CapSet { return auth.CapSet(hi)<<32 | auth.CapSet(lo) }
	lo, hi := &sets[0], &sets[1]
	return 0, t.Capset(whole(lo.Effective, hi.Effective), whole(lo.Permitted, hi.Permitted), whole(lo.Inheritable, hi.Inheritable))
}
