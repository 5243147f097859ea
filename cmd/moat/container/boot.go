package container

import (
	"fmt"

	"golang.org/x/sys/unix"

	"moat/sentry/boot"
)

// Boot is the sentry's process. It gives up everything that it will not need, then waits for orders.
func Boot() error {
	if err := unix.CloseRange(boot.ControlFD, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close_range: %w", err)
	}
	if err := dieWithParent(); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte("moat")); err != nil {
		return fmt.Errorf("set the host name of an own UTS namespace: %w", err)
	}
	host, err := boot.ReadHost()
	if err != nil {
		return err
	}
	host.Trim = trimmer()
	if err := EmptyRoot(); err != nil {
		return err
	}
	if err := limitCapabilities(); err != nil {
		return err
	}
	return boot.Serve(host)
}
