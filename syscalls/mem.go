package syscalls

import (
	"moat/sentry/fs/tmpfs"
	"moat/sentry/kernel"
	"moat/sentry/memmap"
	"moat/sentry/mm"
	"moat/sentry/net/socket"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
)

func init() {
	register(
		full(9, "mmap", "ptr size prot mmapflags fd off", sysMmap),
		full(10, "mprotect", "ptr size prot", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return 0, mprotect(t, a[0].Pointer(), a[1].Uint64(), a[2].Uint64())
		}),
		full(11, "munmap", "ptr size", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return 0, t.MemoryManager().MUnmap(a[0].Pointer(), a[1].Uint64())
		}),
		full(12, "brk", "ptr", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return uintptr(t.MemoryManager().Brk(t.MMCaller(), a[0].Pointer())), nil
		}),
		full(25, "mremap", "ptr size size hex ptr", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			addr, err := t.MemoryManager().MRemap(t.MMCaller(), a[0].Pointer(), a[1].Uint64(), a[2].Uint64(), a[3].Uint(), a[4].Pointer())
			return uintptr(addr), err
		}),
		full(26, "msync", "ptr size hex", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return 0, t.MemoryManager().MSync(a[0].Pointer(), a[1].Uint64(), a[2].Int())
		}),
		full(27, "mincore", "ptr size ptr", sysMincore),
		partial(28, "madvise", "ptr size madvise", "no merging (MADV_MERGEABLE does nothing, as with /sys/kernel/mm/ksm/run 0), no poisoning (EINVAL, as without CONFIG_MEMORY_FAILURE)", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return 0, t.MemoryManager().MAdvise(t.MMCaller(), a[0].Pointer(), a[1].Uint64(), a[2].Int())
		}),
		full(149, "mlock", "ptr size", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return 0, t.MemoryManager().MLock(t.MMCaller(), a[0].Pointer(), a[1].Uint64(), false)
		}),
		full(325, "mlock2", "ptr size hex", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			const onFault = 1
			if a[2].Uint64()&^onFault != 0 {
				return 0, unix.EINVAL
			}
			return 0, t.MemoryManager().MLock(t.MMCaller(), a[0].Pointer(), a[1].Uint64(), a[2] == onFault)
		}),
		full(150, "munlock", "ptr size", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return 0, t.MemoryManager().MUnlock(a[0].Pointer(), a[1].Uint64())
		}),
		full(151, "mlockall", "hex", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return 0, t.MemoryManager().MLockAll(t.MMCaller(), a[0].Int())
		}),
		full(152, "munlockall", "", func(t *kernel.Task, _ kernel.Args) (uintptr, error) {
			t.MemoryManager().MUnlockAll()
			return 0, nil
		}),
		full(216, "remap_file_pages", "ptr size prot int hex", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			if a[2] != 0 {
				return 0, unix.EINVAL
			}
			return 0, t.MemoryManager().RemapFilePages(t.MMCaller(), a[0].Pointer(), a[1].Uint64(), a[3].Uint64())
		}),
		full(319, "memfd_create", "str hex", sysMemfdCreate),
		absent(447, "memfd_secret", "needs a boot parameter on Linux too (ENOSYS without it)"),
		// Protection keys: as Linux answers on a CPU without them.
		full(329, "pkey_mprotect", "ptr size prot int", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			if a[3].Int() != -1 {
				return 0, unix.EINVAL
			}
			return 0, mprotect(t, a[0].Pointer(), a[1].Uint64(), a[2].Uint64())
		}),
		full(330, "pkey_alloc", "hex hex", sysPkey),
		full(331, "pkey_free", "int", sysPkey),
		absent(453, "map_shadow_stack", "no shadow stacks (ENOSYS as on Linux without them)"),
		full(462, "mseal", "ptr size hex", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			if a[2] != 0 {
				return 0, unix.EINVAL
			}
			return 0, t.MemoryManager().MSeal(a[0].Pointer(), a[1].Uint64())
		}),
	)
}

func sysPkey(*kernel.Task, kernel.Args) (uintptr, error) { return 0, unix.EINVAL }

func protOf(prot uint64) hostarch.AccessType {
	return hostarch.AccessType{Read: prot&unix.PROT_READ != 0, Write: prot&unix.PROT_WRITE != 0, Execute: prot&unix.PROT_EXEC != 0}
}

// readImpliesExec is personality(2)'s READ_IMPLIES_EXEC.
const readImpliesExec = 0x0400000

// Flags that MAP_SHARED_VALIDATE knows of (include/linux/mman.h LEGACY_MAP_MASK), and MAP_SYNC, which no file of ours supports.
const (
	mapDroppable  = 0x08
	mapLegacyMask = unix.MAP_SHARED | unix.MAP_PRIVATE | unix.MAP_FIXED | unix.MAP_ANONYMOUS | unix.MAP_DENYWRITE | unix.MAP_EXECUTABLE | 0x4000000 |
		unix.MAP_GROWSDOWN | unix.MAP_LOCKED | unix.MAP_NORESERVE | unix.MAP_POPULATE | unix.MAP_NONBLOCK | unix.MAP_STACK | unix.MAP_HUGETLB |
		unix.MAP_32BIT | unix.MAP_FIXED_NOREPLACE | 0x3f<<26
)

func sysMmap(t *kernel.Task, a kernel.Args) (uintptr, error) {
	prot, flags := a[2].Uint64(), a[3].Uint64()
	if a[5]&(hostarch.PageSize-1) != 0 {
		return 0, unix.EINVAL
	}
	o := memmap.MMapOpts{
		Addr: a[0].Pointer(), Length: a[1].Uint64(), Offset: a[5].Uint64(),
		Fixed: flags&unix.MAP_FIXED != 0, FixedNoReplace: flags&unix.MAP_FIXED_NOREPLACE != 0, Map32Bit: flags&unix.MAP_32BIT != 0,
		GrowsDown: flags&unix.MAP_GROWSDOWN != 0, Stack: flags&unix.MAP_STACK != 0, Locked: flags&unix.MAP_LOCKED != 0,
		Populate:  flags&(unix.MAP_POPULATE|unix.MAP_NONBLOCK) == unix.MAP_POPULATE,
		Program:   flags&unix.MAP_DENYWRITE != 0,
		NoReserve: flags&unix.MAP_NORESERVE != 0, Perms: protOf(prot), MaxPerms: hostarch.AnyAccess,
	}
	if o.Perms.Read && t.Personality()&readImpliesExec != 0 {
		o.Perms.Execute = true
	}
	if o.Locked && t.MMCaller().MayNotLock() {
		return 0, unix.EPERM
	}
	if flags&unix.MAP_ANONYMOUS == 0 {
		f, err := t.GetFile(a[4].Int())
		if err != nil {
			return 0, err
		}
		defer f.DecRef()
		if flags&unix.MAP_HUGETLB != 0 {
			return 0, unix.EINVAL
		}
		if err := t.MemoryManager().MayPlace(&o); err != nil {
			return 0, err
		}
		if err := mapType(flags, true, &o); err != nil {
			return 0, err
		}
		if err := f.ConfigureMMap(t, &o); err != nil {
			if _, late := f.Impl().(socket.Socket); late && o.Fixed { // it fails when there is room for it already
				_ = t.MemoryManager().MUnmap(o.Addr, o.Length)
			}
			return 0, err
		}
		if o.GrowsDown {
			return 0, unix.EINVAL
		}
		if o.Mappable != nil && o.Identity == nil {
			o.Identity = f
		}
	} else {
		if flags&unix.MAP_HUGETLB != 0 {
			return 0, unix.ENOMEM
		}
		if err := t.MemoryManager().MayPlace(&o); err != nil {
			return 0, err
		}
		if err := mapType(flags, false, &o); err != nil {
			return 0, err
		}
		o.Offset = 0
	}
	addr, err := t.MemoryManager().MMap(t.MMCaller(), o)
	return uintptr(addr), err
}

// mapType decodes MAP_SHARED, MAP_SHARED_VALIDATE and MAP_PRIVATE.
func mapType(flags uint64, file bool, o *memmap.MMapOpts) error {
	switch flags & 0xf {
	case unix.MAP_SHARED:
		if !file && o.GrowsDown {
			return unix.EINVAL
		}
	case unix.MAP_SHARED_VALIDATE:
		if !file {
			return unix.EINVAL
		}
		if flags&^uint64(mapLegacyMask) != 0 {
			return unix.EOPNOTSUPP
		}
	case unix.MAP_PRIVATE:
		o.Private = true
	case mapDroppable:
		// Pages that memory pressure may drop: ours are kept, and as on Linux not the child's.
		if file || flags&unix.MAP_LOCKED != 0 || o.GrowsDown {
			return unix.EINVAL
		}
		o.Private, o.NoReserve, o.WipeOnFork = true, true, true
	default:
		return unix.EINVAL
	}
	return nil
}

func mprotect(t *kernel.Task, addr hostarch.Addr, n, prot uint64) error {
	const growsDown, growsUp, sem = 0x01000000, 0x02000000, 8
	grows := prot & (growsDown | growsUp)
	prot &^= growsDown | growsUp
	if grows == growsDown|growsUp {
		return unix.EINVAL
	}
	if addr&(hostarch.PageSize-1) != 0 {
		return unix.EINVAL
	}
	if n == 0 {
		return nil
	}
	if end, ok := (addr + hostarch.Addr(n)).RoundUp(); !ok || end <= addr {
		return unix.ENOMEM
	}
	if prot&^(unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC|sem) != 0 {
		return unix.EINVAL
	}
	if grows == growsUp {
		// No mapping grows up; where there is none that is said first.
		err := error(unix.ENOMEM)
		t.MemoryManager().Mappings(addr, false, func(v *mm.Mapping) bool {
			if v.Range.Start <= addr {
				err = unix.EINVAL
			}
			return false
		})
		return err
	}
	at := protOf(prot)
	if at.Read && t.Personality()&readImpliesExec != 0 {
		at.Execute = true
	}
	return t.MemoryManager().MProtect(t.MMCaller(), addr, n, at, grows == growsDown)
}

func sysMincore(t *kernel.Task, a kernel.Args) (uintptr, error) {
	addr, n, vec := a[0].Pointer(), a[1].Uint64(), a[2].Pointer()
	if addr&(hostarch.PageSize-1) != 0 {
		return 0, unix.EINVAL
	}
	if end := addr.RoundDown() + hostarch.Addr(n); end < addr || uint64(end) > userTop {
		return 0, unix.ENOMEM
	}
	pages := (n + hostarch.PageSize - 1) / hostarch.PageSize
	var buf [hostarch.PageSize]byte
	for pages > 0 {
		c := min(pages, uint64(len(buf)))
		if err := t.MemoryManager().MInCore(addr, c*hostarch.PageSize, buf[:c]); err != nil {
			return 0, err
		}
		if _, err := t.CopyOut(vec, buf[:c]); err != nil {
			return 0, unix.EFAULT
		}
		pages -= c
		addr += hostarch.Addr(c * hostarch.PageSize)
		vec += hostarch.Addr(c)
	}
	return 0, nil
}

type shmKey struct{}

// kernelShm is the kernel's own tmpfs, for memfds and other files without a name.
func kernelShm(k *kernel.Kernel) (*tmpfs.Shm, error) {
	v := k.RootNamespaces().IPC.Slot(shmKey{}, func() any {
		s, err := tmpfs.NewShm(k.Memory())
		if err != nil {
			return err
		}
		return s
	})
	if s, ok := v.(*tmpfs.Shm); ok {
		return s, nil
	}
	return nil, unix.ENOMEM
}

func sysMemfdCreate(t *kernel.Task, a kernel.Args) (uintptr, error) {
	// fs/memfd.c: the name with its prefix is a file name.
	const maxName = linux.NAME_MAX - len("memfd:")
	flags := a[1].Uint()
	if flags&^(unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL|unix.MFD_EXEC|unix.MFD_HUGETLB|0x3f<<26) != 0 {
		return 0, unix.EINVAL
	}
	name, err := shortString(t, a[0], maxName+1)
	if err != nil {
		return 0, err
	}
	if flags&unix.MFD_HUGETLB != 0 {
		return 0, unix.ENOMEM
	}
	s, err := kernelShm(t.Kernel())
	if err != nil {
		return 0, err
	}
	f, err := s.NewMemfd(t, name, flags)
	if err != nil {
		return 0, err
	}
	if flags&unix.MFD_CLOEXEC != 0 {
		flags = unix.O_CLOEXEC
	}
	return t.InstallFD(f, flags)
}
