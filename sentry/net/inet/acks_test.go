package inet

import (
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// sent is a link that tells of the acknowledgements that it is given.
type sent chan uint32

func (s sent) WritePackets(l stack.PacketBufferList) (int, tcpip.Error) {
	for _, p := range l.AsSlice() {
		s <- header.TCP(p.TransportHeader().Slice()).AckNumber()
	}
	return l.Len(), nil
}

// TestAcks: an acknowledgement waits for the answer only where there was one before, and not if it is more than one: a duplicate, one of a full segment or with SACK blocks.
func TestAcks(t *testing.T) {
	out := make(sent, 10)
	q := &acks{LinkWriter: out}
	send := func(flow, ack uint32, data string, options int) {
		t.Helper()
		p := stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: header.TCPHeaderMaximumSize, Payload: buffer.MakeWithData([]byte(data))})
		defer p.DecRef()
		p.Hash, p.TransportProtocolNumber = flow, header.TCPProtocolNumber
		header.TCP(p.TransportHeader().Push(header.TCPMinimumSize + options)).Encode(&header.TCPFields{AckNum: ack, DataOffset: uint8(header.TCPMinimumSize + options), Flags: header.TCPFlagAck})
		if err := q.WritePacket(p); err != nil {
			t.Fatal(err)
		}
	}
	want := func(what string, acks ...uint32) {
		t.Helper()
		for _, w := range acks {
			select {
			case a := <-out:
				if a != w {
					t.Errorf("%s: %d was sent, want %d", what, a, w)
				}
			default:
				t.Errorf("%s: %d was not sent", what, w)
			}
		}
		select {
		case a := <-out:
			t.Errorf("%s: %d was sent", what, a)
		default:
		}
	}
	send(1, 100, "", 0)
	send(1, 110, "", 0)
	want("who does not answer", 100, 110)
	send(1, 110, "answer", 0)
	want("an answer", 110)
	q.mu.Lock() // no flush between the two
	q.timer = time.NewTimer(time.Hour)
	q.mu.Unlock()
	send(1, 120, "", 12)
	want("who answers")
	send(1, 120, "answer", 12)
	want("the answer has it", 120)
	send(1, 130, "", 0)
	send(1, 140, "", 0)
	want("two requests")
	send(257, 7, "", 0)
	want("another connection in its place", 7)
	send(1, 140+ackShare, "", 0)
	want("more than a share", 140+ackShare)
	send(1, 140+ackShare, "", 0)
	want("a duplicate", 140+ackShare)
	send(1, 150+ackShare, "", 24)
	want("SACK", 150+ackShare)
	q.mu.Lock()
	q.timer = nil
	q.mu.Unlock()
	send(1, 160+ackShare, "", 0)
	select {
	case a := <-out:
		if a != 160+ackShare {
			t.Errorf("%d was sent late, want %d", a, 160+ackShare)
		}
	case <-time.After(time.Minute):
		t.Fatal("no answer: the acknowledgement is not sent")
	}
	send(1, 170+ackShare, "", 0)
	want("who has not answered", 170+ackShare)
}
