package hostfd

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/waiter"
)

// The sentry's own use of a File: a terminal of the host behind one of the sandbox.

// ReadHost reads into b, waiting for the host until stop is closed. 0 without an error is the end.
func (f *File) ReadHost(b []byte, stop <-chan struct{}) (int, error) {
	for {
		n, err := f.transfer(unix.SYS_PREADV2, [][]byte{b}, -1)
		if err != unix.EWOULDBLOCK {
			return int(n), err
		}
		if !f.wait(waiter.ReadableEvents, stop) {
			return 0, unix.ECANCELED
		}
	}
}

// WriteHost writes all of b, waiting for the host until stop is closed.
func (f *File) WriteHost(b []byte, stop <-chan struct{}) error {
	for len(b) > 0 {
		part := b
		if f.pollable && f.noNowait.Load() {
			part = b[:min(len(b), chunk)]
		}
		n, err := f.transfer(unix.SYS_PWRITEV2, [][]byte{part}, -1)
		b = b[n:]
		switch {
		case err == unix.EWOULDBLOCK:
			if !f.wait(waiter.WritableEvents, stop) {
				return unix.ECANCELED
			}
		case err != nil:
			return err
		}
	}
	return nil
}

// wait returns when one of mask or an error is there; false: stop was closed.
func (f *File) wait(mask waiter.EventMask, stop <-chan struct{}) bool {
	if !f.pollable {
		return true
	}
	mask |= waiter.EventHUp | waiter.EventErr
	e, ch := waiter.NewChannelEntry(mask)
	f.Waiters.EventRegister(&e)
	defer f.Waiters.EventUnregister(&e)
	for f.ready(mask) == 0 {
		select {
		case <-ch:
		case <-stop:
			return false
		}
	}
	return true
}

// WindowSize is the host terminal's size; ENOTTY.
func (f *File) WindowSize() (rows, cols uint16, err error) {
	w, err := unix.IoctlGetWinsize(f.fd, unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0, err
	}
	return w.Row, w.Col, nil
}
