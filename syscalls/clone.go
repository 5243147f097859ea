package syscalls

import (
	"math"

	"moat/sentry/fs/cgroup"
	"moat/sentry/kernel"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/marshal/primitive"
)

func init() {
	register(
		full(56, "clone", "cloneflags ptr ptr ptr ptr", sysClone),
		full(57, "fork", "", func(t *kernel.Task, _ kernel.Args) (uintptr, error) {
			return pidResult(t.Clone(&kernel.CloneArgs{ExitSignal: linux.SIGCHLD}))
		}),
		full(58, "vfork", "", func(t *kernel.Task, _ kernel.Args) (uintptr, error) {
			return pidResult(t.Clone(&kernel.CloneArgs{Flags: linux.CLONE_VM | linux.CLONE_VFORK, ExitSignal: linux.SIGCHLD}))
		}),
		full(435, "clone3", "clone_args size", sysClone3),
		full(272, "unshare", "cloneflags", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return 0, t.Unshare(a[0].Uint64()) }),
		partial(308, "setns", "fd cloneflags", "pidfds are taken for one namespace type at a time in a fixed order, not atomically", sysSetns),
	)
}

func sysClone(t *kernel.Task, a kernel.Args) (uintptr, error) {
	// The upper half of clone's flags is ignored (lower_32_bits).
	flags := uint64(a[0].Uint())
	args := &kernel.CloneArgs{Flags: flags &^ linux.CSIGNAL, ExitSignal: linux.Signal(flags & linux.CSIGNAL), Stack: a[1].Uint64(),
		ParentTID: a[2].Pointer(), ChildTID: a[3].Pointer(), TLS: a[4].Uint64(), PIDFD: a[2].Pointer()}
	if flags&(linux.CLONE_PIDFD|linux.CLONE_PARENT_SETTID) == linux.CLONE_PIDFD|linux.CLONE_PARENT_SETTID {
		return 0, unix.EINVAL
	}
	return pidResult(t.Clone(args))
}

const (
	cloneArgsMin = 64
	// maxSetTID is MAX_PID_NS_LEVEL.
	maxSetTID = 32
	// cloneKnown are clone3's flags; CLONE_NEWTIME lies in CSIGNAL's range.
	cloneKnown = uint64(0x1ffffff00|linux.CLONE_CLEAR_SIGHAND|linux.CLONE_INTO_CGROUP)&^linux.CLONE_DETACHED | 0x80
)

func sysClone3(t *kernel.Task, a kernel.Args) (uintptr, error) {
	args, err := copyInCloneArgs(t, a[0].Pointer(), a[1].Uint64())
	if err != nil {
		return 0, err
	}
	if args.Flags&linux.CLONE_INTO_CGROUP != 0 {
		f, err := t.GetFileOrPath(args.CgroupFD)
		if err != nil {
			return 0, err
		}
		defer f.DecRef()
		if args.Cgroup, err = cgroup.MayFork(t, t.Cgroup(), f.Dentry().Inode()); err != nil {
			return 0, err
		}
	}
	return pidResult(t.Clone(args))
}

func copyInCloneArgs(t *kernel.Task, p hostarch.Addr, size uint64) (*kernel.CloneArgs, error) {
	if size > hostarch.PageSize {
		return nil, unix.E2BIG
	}
	if size < cloneArgsMin {
		return nil, unix.EINVAL
	}
	var b [hostarch.PageSize]byte
	if _, err := t.CopyIn(p, b[:size]); err != nil {
		return nil, err
	}
	args, set, n, err := decodeCloneArgs(b[:size])
	if err != nil || n == 0 {
		return args, err
	}
	args.SetTID = make([]int32, n)
	if _, err := primitive.CopyInt32SliceIn(t, set, args.SetTID); err != nil {
		return nil, err
	}
	return args, nil
}

// decodeCloneArgs checks what clone3 checks of struct clone_args without looking at memory; n is the length of set_tid.
func decodeCloneArgs(b []byte) (args *kernel.CloneArgs, set hostarch.Addr, n uint64, err error) {
	var f [11]uint64
	for i := range f {
		if len(b) >= 8*(i+1) {
			f[i] = hostarch.ByteOrder.Uint64(b[8*i:])
		}
	}
	for i := 88; i < len(b); i++ {
		if b[i] != 0 {
			return nil, 0, 0, unix.E2BIG
		}
	}
	flags, exit, stack, stackSize := f[0], f[4], f[5], f[6]
	set, n = hostarch.Addr(f[8]), f[9]
	switch {
	case n > maxSetTID, (set == 0) != (n == 0):
		return nil, 0, 0, unix.EINVAL
	case exit&^linux.CSIGNAL != 0, exit > linux.SignalMaximum:
		return nil, 0, 0, unix.EINVAL
	case flags&linux.CLONE_INTO_CGROUP != 0 && (f[10] > math.MaxInt32 || len(b) < 88):
		return nil, 0, 0, unix.EINVAL
	case flags&^cloneKnown != 0:
		return nil, 0, 0, unix.EINVAL
	case flags&(linux.CLONE_THREAD|linux.CLONE_PARENT) != 0 && exit != 0:
		return nil, 0, 0, unix.EINVAL
	case (stack == 0) != (stackSize == 0):
		return nil, 0, 0, unix.EINVAL
	}
	sp := stack
	if stack != 0 {
		if sp = stack + stackSize; sp < stack || sp > userTop {
			return nil, 0, 0, unix.EINVAL
		}
	}
	return &kernel.CloneArgs{Flags: flags, ExitSignal: linux.Signal(exit), Stack: sp, PIDFD: hostarch.Addr(f[1]), ChildTID: hostarch.Addr(f[2]),
		ParentTID: hostarch.Addr(f[3]), TLS: f[7], CgroupFD: int32(f[10])}, set, n, nil
}

func sysSetns(t *kernel.Task, a kernel.Args) (uintptr, error) {
	f, err := t.GetFile(a[0].Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	flags := a[1].Uint()
	if p, ok := f.Impl().(*kernel.PIDFD); ok {
		if flags == 0 {
			return 0, unix.EINVAL
		}
		o, err := p.Task(t.Kernel())
		if err != nil {
			return 0, err
		}
		if !t.MayAccess(o, false) {
			return 0, unix.EPERM
		}
		return 0, t.SetNSOf(o, flags)
	}
	h, ok := f.Impl().(*kernel.NSFile)
	if !ok || (flags != 0 && flags != h.Type) {
		return 0, unix.EINVAL
	}
	return 0, t.SetNS(h.Object)
}
