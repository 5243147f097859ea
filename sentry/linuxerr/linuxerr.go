// Package linuxerr has the error numbers that Linux uses inside the kernel only (include/linux/errno.h). They never
// reach a guest: the task's run loop turns them into a restart or into EINTR.
package linuxerr

import "golang.org/x/sys/unix"

const (
	// ERESTARTSYS restarts the call if the signal handler has SA_RESTART, else EINTR.
	ERESTARTSYS unix.Errno = 512
	// ERESTARTNOINTR always restarts.
	ERESTARTNOINTR unix.Errno = 513
	// ERESTARTNOHAND restarts only if no handler ran.
	ERESTARTNOHAND unix.Errno = 514
	// ERESTART_RESTARTBLOCK restarts by restart_syscall(2), for calls with relative timeouts.
	ERESTART_RESTARTBLOCK unix.Errno = 516
)

// IsRestart reports whether err is one of the restart codes.
func IsRestart(err error) bool {
	switch err {
	case ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND, ERESTART_RESTARTBLOCK:
		return true
	}
	return false
}
