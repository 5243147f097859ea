package container

import (
	"fmt"
	"os"
	"syscall"

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

// securebits are SECBIT_NOROOT and SECBIT_NO_CAP_AMBIENT_RAISE, and locks on all of them (capabilities(7)).
const securebits = 1<<0 | 1<<6 | 1<<1 | 1<<3 | 1<<5 | 1<<7

// limitCapabilities leaves this process, in all its threads, the capabilities keep of those it has, and no way to get any others.
func limitCapabilities(keep ...uintptr) error {
	var kept [2]uint32
	for _, c := range keep {
		kept[c/32] |= 1 << (c % 32)
	}
	all := func(nr, a, b, c, d uintptr) error {
		if _, _, e := syscall.AllThreadsSyscall6(nr, a, b, c, d, 0, 0); e == unix.ENOTSUP {
			return fmt.Errorf("this moat was built with cgo; it must be built with CGO_ENABLED=0: %w", e)
		} else if e != 0 {
			return e
		}
		return nil
	}
	// To the host, user 0 is a user as others are, whatever is executed. Dropping the bounding set as well would add nothing to this and to no_new_privs,
	// and takes forty calls, for each of which all threads stop.
	if err := all(unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, securebits, 0, 0); err != nil && err != unix.EPERM {
		return fmt.Errorf("set secure bits: %w", err)
	}
	if err := capset(kept); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	if err := all(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	return nil
}
