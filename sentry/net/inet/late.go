package inet

// A thread that sends to a connection by a link is answered before the segments are made, which takes longer than all else of its call, and goes on meanwhile: while
// somebody looks after the links, the data waits, corked, until the guests have nothing to ask (package trap).

// looks reports whether push is called soon.
func (s *Stack) looks() bool { return s.attender != nil && s.attender.Looks() }

// hold has the data of k sent by the next push.
func (s *Stack) hold(k *sock) {
	s.mu.Lock()
	s.late = append(s.late, k)
	s.mu.Unlock()
	if !s.looks() {
		s.push()
	}
}

// push sends what waits. Who calls it flushes the links after that, or nobody looks.
func (s *Stack) push() {
	s.mu.Lock()
	late := s.late
	s.late = nil
	s.mu.Unlock()
	for _, k := range late {
		k.push()
	}
}

// push sends what s holds back, whose TCP_CORK is then its own again.
func (s *sock) push() {
	if s.late.Swap(false) {
		s.endpoint().SocketOptions().SetCorkOption(false)
	}
}
