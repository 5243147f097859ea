package kernel

import (
	"slices"

	"golang.org/x/sys/unix"

	"moat/sentry/kernel/ebpf"
	"moat/sentry/vfs"
)

// DevicePrograms are what says which devices a group's tasks may use, and the flags with which it was attached; constant.
type DevicePrograms struct {
	Flags    uint32 // unix.BPF_F_ALLOW_OVERRIDE or BPF_F_ALLOW_MULTI or none
	Programs []*ebpf.Program
}

// maxDevicePrograms is BPF_CGROUP_MAX_PROGS.
const maxDevicePrograms = 64

// BPFProgram is the file behind a descriptor of a program.
type BPFProgram struct {
	vfs.FileDefaults
	*ebpf.Program
}

// DevicePrograms are those of cg alone, or those in effect for its tasks (compute_effective_progs): its own, and those of the groups above that share.
func (cg *Cgroup) DevicePrograms(effective bool) (all DevicePrograms) {
	for c := cg; c != nil; c = c.parent {
		if d := c.devices.Load(); d != nil && (len(all.Programs) == 0 || d.Flags&unix.BPF_F_ALLOW_MULTI != 0) {
			all.Flags = d.Flags
			all.Programs = append(all.Programs, d.Programs...)
		}
		if !effective {
			break
		}
	}
	return all
}

// MayUseDevice implements vfs.DeviceGuard.
func (t *Task) MayUseDevice(access uint32, block bool, rdev uint64) error {
	kind := uint32(2)
	if block {
		kind = 1
	}
	for _, p := range t.Cgroup().DevicePrograms(true).Programs {
		if !p.Run(access, kind, unix.Major(rdev), unix.Minor(rdev)) {
			return unix.EPERM
		}
	}
	return nil
}

// ChangeDevicePrograms replaces old by p in cg's programs (BPF_PROG_ATTACH and BPF_PROG_DETACH); without an old one p is added, without p the old one is taken away.
// Errors are those of kernel/bpf/cgroup.c: EPERM where the groups above or the programs that are there do not allow it, EINVAL for one that is there, ENOENT, E2BIG.
func (k *Kernel) ChangeDevicePrograms(cg *Cgroup, old, p *ebpf.Program, flags uint32) error {
	k.tasksMu.Lock()
	defer k.tasksMu.Unlock()
	var now DevicePrograms
	if d := cg.devices.Load(); d != nil {
		now = *d
	}
	if p == nil {
		flags = now.Flags
	} else if !cg.mayAttachLocked() || len(now.Programs) > 0 && now.Flags != flags {
		return unix.EPERM
	}
	i := -1 // the one that goes
	switch {
	case flags&unix.BPF_F_ALLOW_MULTI == 0:
		i = min(len(now.Programs), 1) - 1
	case old == nil && p == nil:
		return unix.EINVAL
	case old != nil:
		i = slices.Index(now.Programs, old)
	}
	switch has := p != nil && p != old && flags&unix.BPF_F_ALLOW_MULTI != 0 && slices.Contains(now.Programs, p); {
	case has:
		return unix.EINVAL
	case i < 0 && (p == nil || old != nil):
		return unix.ENOENT
	case i < 0 && len(now.Programs) >= maxDevicePrograms:
		return unix.E2BIG
	}
	next := &DevicePrograms{flags, slices.Clone(now.Programs)}
	switch {
	case i < 0:
		next.Programs = append(next.Programs, p)
	case p != nil:
		next.Programs[i] = p
	default:
		next.Programs = slices.Delete(next.Programs, i, i+1)
	}
	if len(next.Programs) == 0 {
		next = nil
	}
	cg.devices.Store(next)
	return nil
}

// mayAttachLocked is hierarchy_allows_attach: the nearest group above with programs lets those below have their own.
func (cg *Cgroup) mayAttachLocked() bool {
	for c := cg.parent; c != nil; c = c.parent {
		if d := c.devices.Load(); d != nil {
			return d.Flags != 0
		}
	}
	return true
}

// DeviceProgram is the attached program with this ID in the tree that cg is in, or nil.
func (k *Kernel) DeviceProgram(cg *Cgroup, id uint32) (found *ebpf.Program) {
	k.tasksMu.RLock()
	defer k.tasksMu.RUnlock()
	for cg.parent != nil {
		cg = cg.parent
	}
	cg.walkLocked(func(c *Cgroup) {
		for _, p := range c.DevicePrograms(false).Programs {
			if p.ID == id {
				found = p
			}
		}
	})
	return found
}
