package container

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// dieWithParent makes the host kill this process when the thread that started it ends, unless it is to live on: that one ends with its sockets.
func dieWithParent() error {
	if os.Getenv(standaloneEnv) != "" {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("prctl PR_SET_PDEATHSIG: %w", err)
	}
	return nil
}

// EmptyRoot makes an empty read-only file system the root of this process's mount namespace, and nothing else is left in it.
func EmptyRoot() error {
	// Any directory serves as the place to mount on; / may not be (pivot_root wants a mount that has a parent).
	const at = "/proc"
	const ro = unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"make mounts private", func() error { return unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, "") }},
		{"mount an empty root", func() error {
			return unix.Mount("none", at, "tmpfs", ro&^(unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY), "size=4k,nr_inodes=2,mode=555")
		}},
		{"enter the empty root", func() error { return os.Chdir(at) }},
		{"pivot_root to the empty root", func() error { return unix.PivotRoot(".", ".") }},
		{"detach the host's root", func() error { return unix.Unmount(".", unix.MNT_DETACH) }},
		{"enter the empty root", func() error { return os.Chdir("/") }},
		{"make the empty root read-only", func() error { return unix.Mount("none", "/", "", ro, "") }},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}

// limitCapabilities leaves this process, in all its threads, the capabilities keep of those it has. It gets no others: no_new_privs, which comes with the
// filter, keeps user 0 from gaining any by execve too. To set secure bits or drop the bounding set as well would add nothing to that; and for
// each such call all threads stop, and those that the runtime has just made must get their turn on a CPU first.
func limitCapabilities(keep ...uintptr) error {
	var kept [2]uint32
	for _, c := range keep {
		kept[c/32] |= 1 << (c % 32)
	}
	if err := capset(kept); err == unix.ENOTSUP {
		return fmt.Errorf("this moat was built with cgo; it must be built with CGO_ENABLED=0: %w", err)
	} else if err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return nil
}
