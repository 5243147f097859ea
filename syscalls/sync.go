package syscalls

import (
	"golang.org/x/sys/unix"
	"moat/sentry/kernel"
	"moat/sentry/vfs"
)

// Calls about a file's storage.

func init() {
	register(
		full(74, "fsync", "fd", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return withFile(t, a[0], func(f *vfs.FileDescription) error { return f.Fsync(t, false) })
		}),
		full(75, "fdatasync", "fd", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return withFile(t, a[0], func(f *vfs.FileDescription) error { return f.Fsync(t, true) })
		}),
		full(162, "sync", "", func(t *kernel.Task, _ kernel.Args) (uintptr, error) {
			t.MountNamespace().Sync(t)
			return 0, nil
		}),
		full(306, "syncfs", "fd", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return withFile(t, a[0], func(f *vfs.FileDescription) error { return f.Path().Mount.FS().Sync(t) })
		}),
		full(277, "sync_file_range", "fd off off hex", sysSyncFileRange),
		full(285, "fallocate", "fd hex off off", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return withFile(t, a[0], func(f *vfs.FileDescription) error { return f.Allocate(t, a[1].Uint(), a[2].Int64(), a[3].Int64()) })
		}),
		full(221, "fadvise64", "fd off size int", sysFadvise),
		full(187, "readahead", "fd off size", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return withFile(t, a[0], func(f *vfs.FileDescription) error {
				switch {
				case !f.Readable():
					return unix.EBADF
				case f.Inode().Mode()&unix.S_IFMT != unix.S_IFREG, a[2].Int64() < 0:
					return unix.EINVAL
				}
				return nil // the host reads ahead by itself
			})
		}),
		absent(451, "cachestat", "as without CONFIG_CACHESTAT_SYSCALL: what the host's page cache holds of a file tells of other containers, too, and of files in memory nothing is ever dirty or evicted"),
	)
}

func sysSyncFileRange(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return withFile(t, a[0], func(f *vfs.FileDescription) error {
		off, n := a[1].Int64(), a[2].Int64()
		if a[3].Uint()&^uint32(7) != 0 || off < 0 || n < 0 || off+n < off {
			return unix.EINVAL
		}
		m := f.Inode().Mode() & unix.S_IFMT
		switch m {
		case unix.S_IFREG, unix.S_IFBLK, unix.S_IFDIR, unix.S_IFLNK:
		default:
			return unix.ESPIPE
		}
		if a[3].Uint()&6 == 0 || m == unix.S_IFDIR {
			return nil
		}
		return f.Fsync(t, true)
	})
}

func sysFadvise(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return withFile(t, a[0], func(f *vfs.FileDescription) error {
		switch {
		case f.Inode().Mode()&unix.S_IFMT == unix.S_IFIFO:
			return unix.ESPIPE
		case a[2].Int64() < 0, a[3].Uint() > unix.FADV_NOREUSE:
			return unix.EINVAL
		}
		return nil
	})
}
