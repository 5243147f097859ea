package syscalls

import (
	"moat/sentry/kernel"
	"moat/sentry/vfs"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
)

func init() {
	const noFlags = "new in Linux 6.17, and no file has inode flags (chattr(1)): programs fall back to ioctl(2), which says so (ENOTTY)"
	register(
		full(165, "mount", "path path str hex ptr", sysMount),
		full(166, "umount2", "path hex", sysUmount),
		full(155, "pivot_root", "path path", sysPivotRoot),
		absent(468, "file_getattr", noFlags),
		absent(469, "file_setattr", noFlags),
		absent(139, "sysfs", "obsolete; /proc/filesystems tells"),
		partial(179, "quotactl", "hex path int ptr", "no file system is mounted from a block device: ENOTBLK, ENODEV", sysQuotactl),
		partial(443, "quotactl_fd", "fd hex int ptr", "no file system has quotas: ENOSYS, as for those without on Linux", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return withFile(t, a[0], func(*vfs.FileDescription) error {
				if a[1]&0xff >= quotaTypes {
					return unix.EINVAL
				}
				return unix.ENOSYS
			})
		}),
		absent(167, "swapon", "no swap: the sandbox's memory is the host's to swap"),
		absent(168, "swapoff", "no swap: the sandbox's memory is the host's to swap"),
	)
}

// optString copies in a string that may be absent.
func optString(t *kernel.Task, a kernel.Arg) (string, error) {
	if a == 0 {
		return "", nil
	}
	return shortString(t, a, hostarch.PageSize)
}

func sysMount(t *kernel.Task, a kernel.Args) (uintptr, error) {
	fstype, err := optString(t, a[2])
	if err != nil {
		return 0, err
	}
	if a[2] != 0 && fstype == "" {
		fstype = "\x00" // there is none of this name; without a name it is another error
	}
	source, err := optString(t, a[0])
	if err != nil {
		return 0, err
	}
	flags := a[3].Uint64()
	if flags&linux.MS_MGC_MSK == linux.MS_MGC_VAL {
		flags &^= linux.MS_MGC_MSK
	}
	var data string
	if a[4] != 0 {
		// The data page may end at an unmapped one, and need not be a string.
		b := make([]byte, hostarch.PageSize)
		n, err := t.CopyIn(a[4].Pointer(), b)
		if n == 0 {
			return 0, err
		}
		data = unix.ByteSliceToString(b[:n])
	}
	return withPath(t, cwdArg, a[1], vfs.Follow, func(p vfs.Path) error { return vfs.DoMount(t, source, p, fstype, flags, data) })
}

const quotaTypes = 3 // MAXQUOTAS

func sysQuotactl(t *kernel.Task, a kernel.Args) (uintptr, error) {
	const qSync = 0x800001
	switch {
	case a[0]&0xff >= quotaTypes:
		return 0, unix.EINVAL
	case a[1] == 0 && a[0].Uint()>>8 == qSync:
		return 0, nil
	case a[1] == 0:
		return 0, unix.ENODEV
	}
	return withPath(t, cwdArg, a[1], vfs.Follow, func(p vfs.Path) error {
		if p.Inode().Mode()&unix.S_IFMT != unix.S_IFBLK {
			return unix.ENOTBLK
		}
		return unix.ENODEV
	})
}

func sysUmount(t *kernel.Task, a kernel.Args) (uintptr, error) {
	flags := a[1].Int()
	if flags&^(unix.MNT_FORCE|unix.MNT_DETACH|unix.MNT_EXPIRE|unix.UMOUNT_NOFOLLOW) != 0 {
		return 0, unix.EINVAL
	}
	walk := uint32(vfs.Follow)
	if flags&unix.UMOUNT_NOFOLLOW != 0 {
		walk = 0
	}
	return withPath(t, cwdArg, a[0], walk, func(p vfs.Path) error { return vfs.Unmount(t, p, flags) })
}

func sysPivotRoot(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if err := vfs.MayMount(t); err != nil {
		return 0, err
	}
	return withPath(t, cwdArg, a[0], vfs.Follow|vfs.Directory, func(newRoot vfs.Path) error {
		_, err := withPath(t, cwdArg, a[1], vfs.Follow|vfs.Directory, func(putOld vfs.Path) error {
			old, err := vfs.PivotRoot(t, newRoot, putOld)
			if err != nil {
				return err
			}
			t.Kernel().ReplaceRoots(old, newRoot)
			return nil
		})
		return err
	})
}
