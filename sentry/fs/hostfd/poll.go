package hostfd

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Poller waits for all Files, and for what else is given to it.
type Poller struct {
	fd   int
	once sync.Once // starts run

	mu sync.Mutex
	// queues are told of events, by the number that epoll gives back.
	// +checklocks:mu
	queues map[int32]*waiter.Queue
	// +checklocks:mu
	last int32
}

// NewPoller makes a Poller.
func NewPoller() (*Poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	return &Poller{fd: fd, queues: make(map[int32]*waiter.Queue)}, nil
}

const epollET = 1 << 31

// Add has q told of what happens to the descriptor fd; EPERM: its kind is always ready.
func (p *Poller) Add(fd int, q *waiter.Queue) (number int32, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.last++; p.last < 0 || p.queues[p.last] != nil; p.last++ {
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLPRI | epollET, Fd: p.last}
	if err := unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return 0, err
	}
	p.queues[p.last] = q
	return p.last, nil
}

// Remove forgets fd, which is about to be closed.
func (p *Poller) Remove(fd int, number int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.queues, number)
	unix.EpollCtl(p.fd, unix.EPOLL_CTL_DEL, fd, &unix.EpollEvent{})
}

// Start begins to pass events on, if any file has some: for ever, on a goroutine of its own.
func (p *Poller) Start() {
	p.mu.Lock()
	n := len(p.queues)
	p.mu.Unlock()
	if n > 0 {
		p.once.Do(func() { go p.run() })
	}
}

func (p *Poller) run() {
	evs := make([]unix.EpollEvent, 8)
	for {
		n, err := unix.EpollWait(p.fd, evs, -1)
		if err != nil && err != unix.EINTR {
			return
		}
		for _, e := range evs[:max(n, 0)] {
			p.mu.Lock()
			q := p.queues[e.Fd]
			p.mu.Unlock()
			if q != nil {
				q.Notify(waiter.EventMaskFromLinux(e.Events))
			}
		}
	}
}

func (f *File) ready(mask waiter.EventMask) waiter.EventMask { return Ready(f.fd, mask) }

// Ready asks the host which of mask holds now for the descriptor fd.
func Ready(fd int, mask waiter.EventMask) waiter.EventMask {
	p := [1]unix.PollFd{{Fd: int32(fd), Events: int16(mask.ToLinux())}}
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
