package hostfd

import (
	"fmt"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Poller waits for all Files.
type Poller struct {
	fd    int
	files []*File // by the number that epoll gives back; complete before Run
}

// NewPoller makes a Poller.
func NewPoller() (*Poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	return &Poller{fd: fd}, nil
}

const epollET = 1 << 31

// add registers f; EPERM: its kind is always ready.
func (p *Poller) add(f *File) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLPRI | epollET, Fd: int32(len(p.files))}
	if err := unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, f.fd, &ev); err != nil {
		return err
	}
	p.files = append(p.files, f)
	return nil
}

// Run passes events on, for ever, on a goroutine of its own. If no file has any it returns.
func (p *Poller) Run() {
	if len(p.files) == 0 {
		return
	}
	evs := make([]unix.EpollEvent, 8)
	for {
		n, err := unix.EpollWait(p.fd, evs, -1)
		if err != nil && err != unix.EINTR {
			return
		}
		for _, e := range evs[:max(n, 0)] {
			p.files[e.Fd].queue.Notify(waiter.EventMaskFromLinux(e.Events))
		}
	}
}

// ready asks the host which of mask holds now.
func (f *File) ready(mask waiter.EventMask) waiter.EventMask {
	p := [1]unix.PollFd{{Fd: int32(f.fd), Events: int16(mask.ToLinux())}}
	for {
		n, err := unix.Ppoll(p[:], &unix.Timespec{}, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return 0
		}
		return waiter.EventMaskFromLinux(uint32(uint16(p[0].Revents)))
	}
}

// Readiness implements vfs.FileImpl.
func (f *File) Readiness(mask waiter.EventMask) waiter.EventMask {
	if !f.pollable {
		return mask & (waiter.ReadableEvents | waiter.WritableEvents)
	}
	return f.ready(mask)
}

// EventRegister implements vfs.FileImpl.
func (f *File) EventRegister(e *waiter.Entry) error { f.queue.EventRegister(e); return nil }

// EventUnregister implements vfs.FileImpl.
func (f *File) EventUnregister(e *waiter.Entry) { f.queue.EventUnregister(e) }
