package stub

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"moat/platform"
)

// Watch implements platform.Watcher.
func (h *Host) Watch(gone func(platform.AddressSpace)) {
	h.mu.Lock()
	h.gone = gone
	h.mu.Unlock()
}

// watch tells of stubs that end by themselves, until there are none. It runs on the OS thread that is their parent: it looks at that thread's
// children only, so a guest thread that is traced does not show here.
func (h *Host) watch() {
	for {
		pid, how, err := waitChild()
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return // ECHILD
		}
		h.mu.Lock()
		s := h.spaces[pid]
		if s == nil {
			// Nobody's, or that of a fork that has not come to enter.
			if h.forking > 0 {
				h.early[pid] = h.forks
			}
			wait(pid)
			h.mu.Unlock()
			continue
		}
		h.mu.Unlock()
		s.lifeMu.Lock() // Release reaps by itself
		ours := !s.reaped
		if ours {
			h.reapLocked(s)
		}
		s.lifeMu.Unlock()
		if ours {
			s.Died(how)
		}
	}
}

// beginFork and endFork are called around a fork; enter in between, when the child's process ID is known.
func (h *Host) beginFork() (number uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.forking++
	h.forks++
	return h.forks - 1
}

func (h *Host) endFork() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.forking--; h.forking == 0 {
		clear(h.early)
	}
}

func (h *Host) enter(s *Space, fork uint64) {
	h.mu.Lock()
	next, early := h.early[s.pid]
	delete(h.early, s.pid)
	if early = early && fork < next; !early {
		h.spaces[s.pid] = s
	}
	h.mu.Unlock()
	if early {
		s.lifeMu.Lock()
		s.reaped = true
		s.lifeMu.Unlock()
		s.Died("it ended while it was made")
	}
}

// Died says that the stub, or a guest thread of it, ended by itself.
func (s *Space) Died(how string) {
	s.diedOnce.Do(func() {
		s.end.Store(&how)
		released := s.dead.Swap(true)
		s.areasMu.Lock()
		for _, a := range s.areas {
			a.Control().State.Store(StateGone)
			platform.FutexWake(&a.Control().State, 1)
		}
		s.areasMu.Unlock()
		platform.FutexWake(&s.slot.order.ack, 1)
		for i := range s.host.Bells().Bell {
			s.host.Bells().Bell[i].Ring()
		}
		s.host.mu.Lock()
		gone := s.host.gone
		s.host.mu.Unlock()
		switch {
		case released || gone == nil:
		case s == s.host.zygote:
			go gone(nil)
		default:
			go gone(s)
		}
	})
}

// gone is the error of a dead stub.
func (s *Space) gone() error {
	if how := s.end.Load(); how != nil {
		return GoneError{What: *how}
	}
	return GoneError{What: "it was released"}
}

// Kill ends the stub's process.
func (s *Space) Kill() {
	s.lifeMu.Lock()
	defer s.lifeMu.Unlock()
	if !s.reaped {
		unix.Kill(s.pid, unix.SIGKILL)
	}
}

// reap ends the stub's process and returns when nothing runs in it any more.
func (s *Space) reap() {
	s.lifeMu.Lock()
	defer s.lifeMu.Unlock()
	if !s.reaped {
		unix.Kill(s.pid, unix.SIGKILL)
		s.host.reapLocked(s)
	}
}

// reapLocked waits for the stub's end.
//
// +checklocks:s.lifeMu
func (h *Host) reapLocked(s *Space) {
	wait(s.pid)
	s.reaped = true
	h.mu.Lock()
	if h.spaces[s.pid] == s { // or of a new one with its process ID
		delete(h.spaces, s.pid)
	}
	h.mu.Unlock()
}

func wait(pid int) {
	for {
		if _, err := unix.Wait4(pid, nil, unix.WALL, nil); err != unix.EINTR {
			return
		}
	}
}

// Ended says how the child or traced thread pid, which has not been reaped, ended; false if it did not.
func Ended(pid int) (how string, ok bool) {
	var info childInfo
	if err := waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL); err != nil {
		return "", false
	}
	return info.how()
}

// waitChild waits until a child of this thread ends, and leaves it a zombie.
func waitChild() (pid int, how string, err error) {
	var info childInfo
	if err := waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOWAIT|unix.WALL|unix.WNOTHREAD); err != nil {
		return 0, "", err
	}
	how, _ = info.how()
	return int(info.pid), how, nil
}

// childInfo is siginfo_t as waitid(2) fills it.
type childInfo struct {
	signo, errno, code, _ int32
	pid                   int32
	uid                   uint32
	status                int32
	_                     [100]byte
}

const (
	cldExited = 1
	cldDumped = 3
	// exitRefused is what a stub exits with when an order fails (stub_amd64.s).
	exitRefused = 97
)

func (c *childInfo) how() (string, bool) {
	switch {
	case c.signo == 0 || c.code > cldDumped:
		return "", false // nothing, or a stop of a traced thread
	case c.code == cldExited && c.status == exitRefused:
		return "the host refused a mapping, a thread or a process", true
	case c.code == cldExited:
		return fmt.Sprintf("it exited with %d", c.status), true
	}
	return fmt.Sprintf("it was killed by signal %d (%v)", c.status, syscall.Signal(c.status)), true
}
