package hostfd

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Readiness implements waiter.Waitable: one poll(2) on the host.
func (f *file) Readiness(mask waiter.EventMask) waiter.EventMask {
	if !f.pollable {
		return mask & (waiter.ReadableEvents | waiter.WritableEvents)
	}
	p := []unix.PollFd{{Fd: int32(f.fd), Events: int16(mask.ToLinux())}}
	if _, err := unix.Poll(p, 0); err != nil {
		return 0
	}
	return waiter.EventMaskFromLinux(uint32(uint16(p[0].Revents)))
}

// EventRegister implements waiter.Waitable.
func (f *file) EventRegister(e *waiter.Entry) error {
	f.queue.EventRegister(e)
	if f.pollable {
		f.mu.Lock()
		f.waiters++
		f.armLocked()
		f.mu.Unlock()
		f.set.start.Do(func() { go f.set.poll() })
	}
	return nil
}

// EventUnregister implements waiter.Waitable.
func (f *file) EventUnregister(e *waiter.Entry) {
	f.queue.EventUnregister(e)
	if f.pollable {
		f.mu.Lock()
		f.waiters--
		f.armLocked()
		f.mu.Unlock()
	}
}

// armLocked asks the host for one event of what is waited for, or for none, so that nobody is woken in vain.
//
// +checklocks:f.mu
func (f *file) armLocked() {
	ev := unix.EpollEvent{Fd: int32(f.fd), Events: unix.EPOLLONESHOT}
	if f.waiters > 0 {
		ev.Events |= uint32(f.queue.Events().ToLinux())
	}
	unix.EpollCtl(f.set.epfd, unix.EPOLL_CTL_MOD, f.fd, &ev)
}

// poll passes events on until the sandbox ends.
func (s *Set) poll() {
	evs := make([]unix.EpollEvent, 16)
	for {
		n, err := unix.EpollWait(s.epfd, evs, -1)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return
		}
		for _, e := range evs[:n] {
			s.mu.Lock()
			f := s.files[e.Fd]
			s.mu.Unlock()
			if f == nil {
				continue
			}
			f.queue.Notify(waiter.EventMaskFromLinux(e.Events))
			// Level-triggered waiters that stay (epoll) must hear again once more comes. One that finds the file ready all the
			// time is asked for only when it looks, by Readiness.
			f.rearm(e.Events)
		}
	}
}

// rearm waits for the events that have not just come.
func (f *file) rearm(got uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.waiters == 0 {
		return
	}
	want := uint32(f.queue.Events().ToLinux())
	// Edge-triggered: what is ready now is not told twice, and a file that stays ready costs nothing.
	ev := unix.EpollEvent{Fd: int32(f.fd), Events: unix.EPOLLONESHOT | unix.EPOLLET | want}
	if got&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		return // final: there is nothing more to hear
	}
	unix.EpollCtl(f.set.epfd, unix.EPOLL_CTL_MOD, f.fd, &ev)
}
