package inet

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

const (
	// truesize is what a queued datagram costs beside its bytes: netstack's packet and view, about as much as Linux's smallest sk_buff
	// (SKB_TRUESIZE of nothing).
	truesize = 768
	// sweepEvery is after how many datagrams the queues are looked at, when there are few of them. With many it is more often, since one multicast
	// datagram may go to all: no more than about sweepEvery*sweepShare are queued past the sockets' bounds.
	sweepEvery = 1024
	sweepShare = 64
	// maxUnresolved is how many packets may have waited for neighbours that do not answer, and resolveTime what each of these has for it all the same.
	maxUnresolved = 4096
	resolveTime   = 100 * time.Millisecond
)

// Netstack bounds a queue of datagrams by their bytes alone: empty ones would queue without end. So every sweepEvery datagrams, sent by this stack's
// sockets or come in by a link, the stack looks for sockets with more of them than SO_RCVBUF has room for, each counted with its truesize (sk_rmem_alloc),
// and these take no more until they have been read.

// delivered notes that n packets go in. It is called without locks.
func (s *Stack) delivered(n int64) {
	n *= 1 + s.queues.Load()/sweepShare
	if c := s.packets.Add(n); c/sweepEvery != (c-n)/sweepEvery {
		for _, k := range s.sockets() {
			k.throttle()
		}
		s.relieve()
	}
}

// relieve ends the resolution of neighbours that do not answer when many packets are for such ones, as in a flood from addresses that nobody has: netstack
// bounds the packets that wait, but notes each that came for as long as it asks. As long as there are many, connections are made by SYN cookies alone: the
// half-open ones, which fail with the resolution and make room for others in the backlog, would each be held by a timer for a second.
func (s *Stack) relieve() {
	var lag uint64
	nics := s.tcpip().NICInfo()
	for _, i := range nics {
		lag -= i.Stats.Tx.Packets.Value()
		for _, st := range i.NetworkStats {
			if ip, ok := st.(stack.IPNetworkEndpointStats); ok {
				lag += ip.IPStats().PacketsSent.Value()
			}
		}
	}
	flood := tcpip.TCPAlwaysUseSynCookies(int64(lag)-s.lag.Swap(int64(lag)) > sweepEvery/8)
	_ = s.net.SetTransportProtocolOption(tcp.ProtocolNumber, &flood) // there is TCP
	if d := int64(lag) - s.unresolved.Load(); d >= 0 && d < maxUnresolved {
		return
	}
	s.unresolved.Store(int64(lag))
	old := s.net.Clock().NowMonotonic().Add(-resolveTime)
	for id := range nics {
		for _, n := range s.Neighbors(id) {
			if n.State == stack.Incomplete && n.UpdatedAt.Before(old) {
				_ = s.RemoveNeighbor(id, n.Addr) // it may be gone
			}
		}
	}
}

// queued is how many datagrams wait to be read.
func (s *sock) queued() int64 {
	st, ok := s.endpoint().Stats().(*tcpip.TransportEndpointStats)
	if !ok {
		return 0
	}
	n := int64(st.PacketsReceived.Value()) - s.taken.Load()
	if s.udp() { // its counter has those that were dropped, too
		n -= int64(st.ReceiveErrors.ReceiveBufferOverflow.Value() + st.ReceiveErrors.ClosedReceiver.Value())
	}
	return n
}

func (s *sock) overfull() bool { return s.queued()*truesize > int64(s.base.RcvBuf.Load()) }

// throttle stops the delivery to a socket that has too many datagrams.
func (s *sock) throttle() {
	if s.tcp() || s.throttled.Load() != 0 || !s.overfull() {
		return
	}
	o := s.endpoint().SocketOptions()
	if size := o.GetReceiveBufferSize(); size > 0 && s.throttled.CompareAndSwap(0, size) {
		o.SetReceiveBufferSize(0, false)
		s.unthrottle() // they may have been read meanwhile
	}
}

// unthrottle lets datagrams in again once there is room for them.
func (s *sock) unthrottle() {
	if size := s.throttled.Load(); size != 0 && !s.overfull() && s.throttled.CompareAndSwap(size, 0) {
		s.endpoint().SocketOptions().SetReceiveBufferSize(size, false)
	}
}
