package syscalls

import (
	"bytes"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"

	"moat/sentry/fs/cgroup"
	"moat/sentry/kernel"
	"moat/sentry/kernel/ebpf"
	"moat/sentry/vfs"
)

func init() {
	register(partial(321, "bpf", "cmd hex size", "programs for a control group's devices, which container runtimes need; nothing else", sysBPF))
}

// bpfAttr is union bpf_attr.
type bpfAttr [128]byte

func (a *bpfAttr) u32(off int) uint32 { return hostarch.ByteOrder.Uint32(a[off:]) }
func (a *bpfAttr) fd(off int) int32   { return int32(a.u32(off)) }
func (a *bpfAttr) addr(off int) hostarch.Addr {
	return hostarch.Addr(hostarch.ByteOrder.Uint64(a[off:]))
}

// onlyTo is CHECK_ATTR: nothing is set behind the first n bytes.
func (a *bpfAttr) onlyTo(n int) bool { return bytes.Equal(a[n:], make([]byte, len(a)-n)) }

func sysBPF(t *kernel.Task, a kernel.Args) (uintptr, error) {
	c := t.Credentials()
	mighty := func(cp linux.Capability) bool {
		return c.Capable(cp) || c.Capable(linux.CAP_SYS_ADMIN)
	}
	if !mighty(linux.CAP_BPF) || !mighty(linux.CAP_NET_ADMIN) {
		return 0, unix.EPERM // as with kernel.unprivileged_bpf_disabled = 2
	}
	p, size := a[1].Pointer(), a[2].Uint64()
	if size > hostarch.PageSize {
		return 0, unix.E2BIG
	}
	whole := make([]byte, max(size, uint64(len(bpfAttr{}))))
	if _, err := t.CopyIn(p, whole[:size]); err != nil {
		return 0, err
	}
	attr := bpfAttr(whole)
	if !bytes.Equal(whole[len(attr):], make([]byte, len(whole)-len(attr))) {
		return 0, unix.E2BIG
	}
	switch a[0].Int() {
	case unix.BPF_PROG_LOAD:
		return bpfLoad(t, &attr)
	case unix.BPF_PROG_ATTACH, unix.BPF_PROG_DETACH:
		return 0, bpfAttach(t, &attr, a[0].Int() == unix.BPF_PROG_DETACH)
	case unix.BPF_PROG_QUERY:
		return 0, bpfQuery(t, &attr, p)
	case unix.BPF_PROG_GET_FD_BY_ID:
		if !attr.onlyTo(12) {
			return 0, unix.EINVAL
		}
		prog := t.Kernel().DeviceProgram(t.Cgroup(), attr.u32(0))
		if prog == nil {
			return 0, unix.ENOENT
		}
		return bpfFD(t, prog)
	case unix.BPF_OBJ_GET_INFO_BY_FD:
		return 0, bpfInfo(t, &attr, p)
	}
	return 0, unix.EPERM
}

func bpfFD(t *kernel.Task, p *ebpf.Program) (uintptr, error) {
	f := vfs.NewAnonFile(t, "bpf-prog", &kernel.BPFProgram{Program: p}, unix.O_RDWR)
	defer f.DecRef()
	fd, err := t.NewFD(f, true)
	return uintptr(fd), err
}

// bpfProgram is the program for devices behind a descriptor: EBADF, EINVAL.
func bpfProgram(t *kernel.Task, fd int32) (*ebpf.Program, error) {
	f, err := t.GetFile(fd)
	if err != nil {
		return nil, err
	}
	defer f.DecRef()
	if p, ok := f.Impl().(*kernel.BPFProgram); ok && p.Type == unix.BPF_PROG_TYPE_CGROUP_DEVICE {
		return p.Program, nil
	}
	return nil, unix.EINVAL
}

func bpfLoad(t *kernel.Task, a *bpfAttr) (uintptr, error) {
	n := a.u32(4)
	switch typ := a.u32(0); {
	case typ != unix.BPF_PROG_TYPE_CGROUP_DEVICE && typ != unix.BPF_PROG_TYPE_CGROUP_SKB:
		return 0, unix.EPERM
	case a.u32(44) != 0: // prog_flags
		return 0, unix.EINVAL
	case n == 0 || n > ebpf.MaxInstructions:
		return 0, unix.E2BIG
	}
	if _, err := t.CopyInString(a.addr(16), 128); err != nil { // the licence
		return 0, unix.EFAULT
	}
	name := [16]byte(a[48:])
	text, _, _ := bytes.Cut(name[:], []byte{0})
	for _, c := range text {
		if !(c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' || c == '.') {
			return 0, unix.EINVAL
		}
	}
	code := make([]byte, 8*n)
	if _, err := t.CopyIn(a.addr(8), code); err != nil {
		return 0, err
	}
	p, err := ebpf.Load(a.u32(0), code, name)
	if err != nil {
		return 0, err
	}
	return bpfFD(t, p)
}

// bpfGroup is the group of the directory that is open as fd.
func bpfGroup(t *kernel.Task, fd int32) (*kernel.Cgroup, error) {
	f, err := t.GetFile(fd)
	if err != nil {
		return nil, err
	}
	defer f.DecRef()
	return cgroup.Of(f.Dentry().Inode())
}

// bpfAttach is bpf_prog_attach and bpf_prog_detach for a group's devices.
func bpfAttach(t *kernel.Task, a *bpfAttr, detach bool) error {
	flags := a.u32(12)
	if !a.onlyTo(20) || a.u32(8) != unix.BPF_CGROUP_DEVICE || flags&^uint32(unix.BPF_F_ALLOW_MULTI|unix.BPF_F_ALLOW_OVERRIDE|unix.BPF_F_REPLACE) != 0 {
		return unix.EINVAL
	}
	p, err := bpfProgram(t, a.fd(4))
	if err != nil && !detach {
		return err
	}
	cg, err := bpfGroup(t, a.fd(0))
	if err != nil {
		return err
	}
	if detach {
		return t.Kernel().ChangeDevicePrograms(cg, p, nil, 0)
	}
	var old *ebpf.Program
	if flags&unix.BPF_F_REPLACE != 0 {
		if old, err = bpfProgram(t, a.fd(16)); err != nil {
			return err
		}
	}
	if flags&unix.BPF_F_ALLOW_OVERRIDE != 0 && flags&unix.BPF_F_ALLOW_MULTI != 0 || flags&unix.BPF_F_REPLACE != 0 && flags&unix.BPF_F_ALLOW_MULTI == 0 {
		return unix.EINVAL
	}
	return t.Kernel().ChangeDevicePrograms(cg, old, p, flags&^unix.BPF_F_REPLACE)
}

// bpfQuery is __cgroup_bpf_query: what is attached, and how.
func bpfQuery(t *kernel.Task, a *bpfAttr, p hostarch.Addr) error {
	effective := a.u32(8)
	if a.u32(4) != unix.BPF_CGROUP_DEVICE || effective&^1 != 0 {
		return unix.EINVAL
	}
	cg, err := bpfGroup(t, a.fd(0))
	if err != nil {
		return err
	}
	d := cg.DevicePrograms(effective != 0)
	if effective != 0 {
		d.Flags = 0
	}
	room, ids, n := a.u32(24), a.addr(16), uint32(len(d.Programs))
	if err := t.CopyOutUint32(p+12, d.Flags); err != nil {
		return err
	}
	if err := t.CopyOutUint32(p+24, n); err != nil || room == 0 || ids == 0 {
		return err
	}
	for i := range min(room, n) {
		if err := t.CopyOutUint32(ids+hostarch.Addr(4*i), d.Programs[i].ID); err != nil {
			return err
		}
	}
	if room < n {
		return unix.ENOSPC
	}
	return nil
}

// bpfInfo is bpf_prog_get_info_by_fd, without the instructions.
func bpfInfo(t *kernel.Task, a *bpfAttr, p hostarch.Addr) error {
	if !a.onlyTo(16) {
		return unix.EINVAL
	}
	prog, err := bpfProgram(t, a.fd(0))
	if err != nil {
		return err
	}
	var info [232]byte // struct bpf_prog_info
	hostarch.ByteOrder.PutUint32(info[0:], unix.BPF_PROG_TYPE_CGROUP_DEVICE)
	hostarch.ByteOrder.PutUint32(info[4:], prog.ID)
	copy(info[8:], prog.Tag[:])
	hostarch.ByteOrder.PutUint32(info[20:], uint32(8*prog.Len()))
	copy(info[64:], prog.Name[:])
	n := min(a.u32(4), uint32(len(info)))
	if _, err := t.CopyOut(a.addr(8), info[:n]); err != nil {
		return err
	}
	return t.CopyOutUint32(p+4, n)
}
