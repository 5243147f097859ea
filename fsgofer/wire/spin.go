package wire

import (
	"sync/atomic"
	"time"
)

// spinner decides for how long to look for a message before sleeping. To sleep and be woken on another CPU takes several times as long as the
// gofer needs for most requests; but where the CPUs are busy looking is waste, so it is only done while it succeeds.
type spinner struct {
	limit time.Duration
	// credit is how many failures may still follow.
	credit atomic.Int32
	start  time.Time
}

const (
	maxCredit = 16
	// Every so many receives one tries again, when there is no credit.
	probeEvery = 64
)

func (s *spinner) begin() bool {
	if s == nil {
		return false
	}
	if c := s.credit.Add(-1); c < 0 && c%probeEvery != 0 {
		return false
	}
	s.start = time.Now()
	return true
}

func (s *spinner) again() bool { return time.Since(s.start) < s.limit }

func (s *spinner) hit() {
	if c := s.credit.Load(); c < maxCredit {
		s.credit.Store(max(c, 0) + 3)
	}
}

// Receiver receives messages for one thread, looking for each for a while before it sleeps.
type Receiver struct{ spin spinner }

// NewReceiver returns a Receiver that looks for limit.
func NewReceiver(limit time.Duration) *Receiver { return &Receiver{spinner{limit: limit}} }

// Recv is b.Recv.
func (r *Receiver) Recv(b *Buffer, conn int) (n, fd int, err error) { return b.recv(conn, &r.spin) }
