package fsgofer

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"moat/fsgofer/wire"
)

// entriesOf is b as a string, in place: b must not change as long as it is used.
func entriesOf(b []byte) wire.Entries {
	return wire.Entries(unsafe.String(unsafe.SliceData(b), len(b)))
}

// statEntry is statx(2) of a name that a NUL follows in memory, as in a getdents64 buffer.
func statEntry(dirfd int, name string, st *unix.Statx_t) error {
	_, _, e := unix.Syscall6(unix.SYS_STATX, uintptr(dirfd), uintptr(unsafe.Pointer(unsafe.StringData(name))),
		unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, statMask, uintptr(unsafe.Pointer(st)), 0)
	if e != 0 {
		return e
	}
	return nil
}

// defaultSignals takes every signal from the runtime. What it could still do with one is to print where a fault happened, before it ends.
func defaultSignals() {
	var dfl [4]uint64 // struct sigaction of the kernel: SIG_DFL, no flags, no restorer, no mask
	for sig := uintptr(1); sig <= 64; sig++ {
		unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&dfl)), 0, 8, 0, 0) // EINVAL for SIGKILL and SIGSTOP
	}
}
