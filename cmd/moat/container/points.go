package container

import (
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"moat/sentry/boot"
)

// makePoint makes a directory or an empty file below the directory root, with the directories above it, if it is not there. Symlinks
// of the tree stay in it; one that leads nowhere is led somewhere.
func makePoint(root int, p mountPoint) error {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	open := func(path string) (int, error) {
		for {
			fd, err := unix.Openat2(root, path, &how)
			if err != unix.EINTR && err != unix.EAGAIN {
				return fd, err
			}
		}
	}
	at := "."
	parts := strings.Split(strings.Trim(p.Path, "/"), "/")
	for i, links := 0, 0; i < len(parts); i++ {
		parent, name := at, parts[i]
		at = filepath.Join(at, name)
		fd, err := open(at)
		if err == nil {
			buf := make([]byte, unix.PathMax)
			n, e := unix.Readlinkat(fd, "", buf)
			unix.Close(fd)
			if e != nil {
				continue // no symlink
			}
			if links++; links > boot.MaxLinks {
				return unix.ELOOP
			}
			parts, at, i = boot.Redirected(parts, i, string(buf[:n])), ".", -1
			continue
		}
		if err != unix.ENOENT {
			return err
		}
		dir, err := open(parent)
		if err != nil {
			return err
		}
		if i < len(parts)-1 || p.Dir {
			err = unix.Mkdirat(dir, name, 0o755)
		} else {
			err = unix.Mknodat(dir, name, unix.S_IFREG|0o644, 0)
		}
		unix.Close(dir)
		if err != nil && err != unix.EEXIST {
			return err
		}
	}
	return nil
}
