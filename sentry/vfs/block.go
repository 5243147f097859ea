package vfs

import (
	"time"

	"golang.org/x/sys/unix"
	"moat/sentry/linuxerr"
)

// BlockHost waits for C, for interrupt (ERESTARTSYS; nil never fires), or for the deadline (ETIMEDOUT; zero never).
func BlockHost(C, interrupt <-chan struct{}, deadline time.Time) error {
	var timeout <-chan time.Time
	if !deadline.IsZero() {
		t := time.NewTimer(time.Until(deadline))
		defer t.Stop()
		timeout = t.C
	}
	select {
	case <-C:
		return nil
	default:
	}
	select {
	case <-C:
		return nil
	case <-interrupt:
		return linuxerr.ERESTARTSYS
	case <-timeout:
		return unix.ETIMEDOUT
	}
}
