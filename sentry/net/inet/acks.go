package inet

import (
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// ackDelay is how long an acknowledgement may wait for data to go with, ackShare how many bytes it is of at most: a full segment does not wait.
	ackDelay = 10 * time.Millisecond
	ackShare = 1024
	// maxPlainTCP is a header with a timestamp: one that is longer has SACK blocks.
	maxPlainTCP = header.TCPMinimumSize + 12
)

// acks is the queueing discipline of a link: netstack acknowledges each segment at once. Here, as on Linux (inet_csk_in_pingpong_mode), where a connection
// answers soon what it is asked, the acknowledgement of a request goes with the answer.
type acks struct {
	stack.LinkWriter
	mu sync.Mutex
	// flows are the latest connections, by their hash. +checklocks:mu
	flows [1024]ackFlow
	// +checklocks:mu
	timer *time.Timer
}

// ackFlow is a connection, as it sends.
type ackFlow struct {
	hash  uint32
	acked uint32 // by what left last
	pure  bool   // which had no data
	chat  bool   // data came soon after it
	held  *stack.PacketBuffer
	since time.Time
}

func (f *ackFlow) drop() {
	if f.held != nil {
		f.held.DecRef()
		f.held = nil
	}
}

// WritePacket implements stack.QueueingDiscipline.
func (q *acks) WritePacket(pkt *stack.PacketBuffer) tcpip.Error {
	if tcp := header.TCP(pkt.TransportHeader().Slice()); pkt.Hash != 0 && len(tcp) >= header.TCPMinimumSize && pkt.TransportProtocolNumber == header.TCPProtocolNumber {
		if q.hold(pkt, tcp.AckNumber(), tcp.Flags() == header.TCPFlagAck && pkt.Data().Size() == 0 && len(tcp) <= maxPlainTCP) {
			return nil
		}
	}
	var l stack.PacketBufferList
	l.PushBack(pkt)
	_, err := q.WritePackets(l)
	return err
}

// hold keeps an acknowledgement that may wait; false: the packet is to be sent.
func (q *acks) hold(pkt *stack.PacketBuffer, ack uint32, pure bool) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	f := &q.flows[pkt.Hash%uint32(len(q.flows))]
	switch {
	case f.hash != pkt.Hash && f.held != nil:
		return false // the other's slot
	case f.hash != pkt.Hash:
		*f = ackFlow{hash: pkt.Hash}
	case f.chat && pure && ack-f.acked-1 < ackShare:
		if f.held == nil {
			f.since = time.Now()
		}
		f.drop()
		f.held = pkt.IncRef()
		if q.timer == nil {
			q.timer = time.AfterFunc(ackDelay, q.flush)
		}
		return true
	}
	f.chat = f.chat || !pure && f.pure && ack == f.acked
	f.drop()
	f.acked, f.pure = ack, pure
	return false
}

// flush sends what has waited.
func (q *acks) flush() {
	var l stack.PacketBufferList
	q.mu.Lock()
	q.timer = nil
	for i := range q.flows {
		switch f := &q.flows[i]; {
		case f.held == nil:
		case time.Since(f.since) > ackDelay/2:
			l.PushBack(f.held)
			*f = ackFlow{hash: f.hash, acked: header.TCP(f.held.TransportHeader().Slice()).AckNumber(), pure: true}
		case q.timer == nil:
			q.timer = time.AfterFunc(ackDelay, q.flush)
		}
	}
	q.mu.Unlock()
	_, _ = q.WritePackets(l) // what is lost is lost, as on a wire
	l.DecRef()
}

// Close implements stack.QueueingDiscipline.
func (q *acks) Close() {}
