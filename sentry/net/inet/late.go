package inet

import (
	"bytes"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/abi/linux"
)

// late are the connections whose data waits, corked, until the guests have nothing to ask (package trap): a thread that sends is answered before the segments are
// made, which takes longer than all else of its call, and goes on meanwhile. It is for connections by links that an attender looks after, while it does.
type late struct {
	// pushing counts those who send what waited, as frames that leave together.
	pushing atomic.Int32
	mu      sync.Mutex
	// +checklocks:mu
	socks []*sock
}

// looks reports whether push is called soon.
func (s *Stack) looks() bool { return s.attender != nil && s.attender.Looks() }

// hold has the data of k sent by the next push.
func (s *Stack) hold(k *sock) {
	s.late.mu.Lock()
	s.late.socks = append(s.late.socks, k)
	s.late.mu.Unlock()
	if !s.looks() {
		s.push()
	}
}

// push sends what waits. Who calls it flushes the links after that, or nobody looks.
func (s *Stack) push() {
	l := &s.late
	l.pushing.Add(1)
	l.mu.Lock()
	socks := l.socks
	l.socks = nil
	l.mu.Unlock()
	for _, k := range socks {
		k.push()
	}
	l.pushing.Add(-1)
}

// push sends what s holds back.
func (s *sock) push() {
	if s.late.Swap(false) {
		s.endpoint().SocketOptions().SetCorkOption(s.corked.Load() || s.corks())
	}
}

// corks reports whether TCP_CORK was set; netstack's option is on for what is late, too.
func (s *sock) corks() bool {
	return len(bytes.Trim(s.keptValue(linux.SOL_TCP, linux.TCP_CORK), "\x00")) > 0
}
